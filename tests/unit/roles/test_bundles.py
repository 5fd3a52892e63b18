# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles that are compressed beforehand: which, for whom, by whom and how often, in an Odoo of a few lines. A real one is in tests/e2e."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.berth.odoo.tests.support import addon

CONTENT = b"odoo.define();\n" * 2000
NAME = hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()

ODOO = {
    "odoo.http": """
from types import SimpleNamespace

request = SimpleNamespace(httprequest=SimpleNamespace(path="/web/assets/1a2b3c4/web.assets_web.min.js", headers={}))

def _send_file(path, **more):
    with open(path, "rb") as file:
        return SimpleNamespace(body=file.read(), headers={"ETag": more["etag"]}, last_modified=more["last_modified"])

class Stream:
    type, data, path, mimetype, conditional, etag, last_modified, size = "", None, None, None, True, True, 1234, None

    def __init__(self, **kwargs):
        self.__dict__.update(kwargs)

    def read(self):
        return self.data

    def get_response(self, as_attachment=None, immutable=None, content_security_policy="default-src 'none'", **send_file_kwargs):
        send_file_kwargs = {
            'conditional': self.conditional,
            'etag': self.etag,
            'last_modified': self.last_modified,
            **send_file_kwargs,
        }
        if self.type == 'data':
            return SimpleNamespace(body=self.data, headers={"ETag": self.etag}, last_modified=self.last_modified)
        return _send_file(self.path, **send_file_kwargs)
""",
    "odoo.tools": "config = {}",
    "odoo.addons.base.models.ir_attachment": """
class IrAttachment:
    def _to_http_stream(self):
        stream = dict(etag=self.checksum)
        stream.size = 0

    def _compute_checksum(self, bin_data):
        hashlib.sha1(bin_data)
""",
    "odoo.addons.web.controllers.binary": """
import functools

def route(path):
    def decorator(endpoint):
        @functools.wraps(endpoint)
        def route_wrapper(self, *args, **params):
            return endpoint(self, *args, **params)
        return route_wrapper
    return decorator

class Binary:
    @route(['/web/assets/<string:unique>/<string:filename>'])
    def content_assets(self, filename=None, unique=None):
        send_file_kwargs['immutable'] = True
        return stream.get_response(**send_file_kwargs)
""",
}


def load(monkeypatch: pytest.MonkeyPatch, directory: Path, *, brotli: bool = True, **replaced: str) -> Any:
    """Load the piece of the add-on beside an Odoo whose sources are files, because they are looked at."""
    sources = {name: replaced.get(name.rpartition(".")[2], source) for name, source in ODOO.items()}
    bundles = addon.load(monkeypatch, directory, sources, ("fits", "copies", "bundles"))
    bundles.config["data_dir"] = str(directory)
    monkeypatch.setattr(bundles, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda _name: brotli or None)))
    return bundles


@pytest.fixture
def bundles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The add-on's module, put in place. Nothing is compressed: what would be is in ``wanted``."""
    module = load(monkeypatch, tmp_path)
    module.wanted = []
    monkeypatch.setattr(module.Copies, "want", lambda _self, name, content: module.wanted.append((name, content())))
    module.post_load()
    return module


def answer(bundles: Any, *, accepts: str = "gzip, deflate, br, zstd", immutable: bool = True, **stream: Any) -> Any:
    bundles.http.request.httprequest.headers = {"Accept-Encoding": accepts}
    about = {"type": "data", "data": CONTENT, "mimetype": "application/javascript", "etag": NAME, "size": len(CONTENT), **stream}
    return bundles.http.Stream(**about).get_response(as_attachment=False, immutable=immutable, content_security_policy=None)


def keep(directory: Path) -> Path:
    (directory / "bundles").mkdir(exist_ok=True)
    file = directory / f"bundles/{NAME}.br"
    file.write_bytes(b"compressed")
    return file


def test_a_bundle_without_a_copy_is_sent_as_before_and_wanted(bundles: Any) -> None:
    response = answer(bundles)
    assert response.body == CONTENT
    assert response.headers == {"ETag": NAME, "Vary": "Accept-Encoding"}
    assert bundles.wanted == [(NAME, CONTENT)]


def test_a_copy_is_sent_to_who_takes_it(bundles: Any, tmp_path: Path) -> None:
    keep(tmp_path)
    for more in ({}, {"type": "path", "data": None, "path": "/nowhere"}):
        response = answer(bundles, **more)
        assert response.body == b"compressed"
        assert response.headers == {"ETag": f"{NAME}-br", "Content-Encoding": "br", "Vary": "Accept-Encoding"}
        assert response.last_modified == 1234, "the time of the copy changes when it is used"
    for accepts in ("", "gzip", "br;q=0"):
        response = answer(bundles, accepts=accepts)
        assert response.body == CONTENT
        assert response.headers == {"ETag": NAME, "Vary": "Accept-Encoding"}
    assert bundles.wanted == []


def test_a_copy_that_goes_in_this_moment_is_not_missed(bundles: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles.Copies, "find", lambda _self, _name: tmp_path / "gone")
    response = answer(bundles)
    assert (response.body, response.headers) == (CONTENT, {"ETag": NAME, "Vary": "Accept-Encoding"})


@pytest.mark.parametrize(
    "about",
    [
        {"immutable": False},
        {"mimetype": "text/xml"},
        {"mimetype": "image/png"},
        {"size": 9_999},
        {"size": None},
        {"etag": True},
        {"etag": "../../secret"},
    ],
)
def test_nothing_else_is_touched(bundles: Any, tmp_path: Path, about: dict[str, Any]) -> None:
    keep(tmp_path)
    assert answer(bundles, **about).headers == {"ETag": about.get("etag", NAME)}
    assert bundles.wanted == []


def test_nor_the_same_content_at_another_path(bundles: Any, tmp_path: Path) -> None:
    keep(tmp_path)
    bundles.http.request.httprequest.path = "/web/content/7"
    assert answer(bundles).headers == {"ETag": NAME}


def test_who_asks_without_brotli_has_nothing_made(bundles: Any) -> None:
    """The program that draws reports asks for style sheets, and would never take the copy."""
    answer(bundles, accepts="gzip, deflate")
    assert bundles.wanted == []


def test_another_odoo_is_served_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundles = load(monkeypatch, tmp_path, http=ODOO["odoo.http"].replace("'etag': self.etag", "'etag': self.tag"))
    original = bundles.http.Stream.get_response
    bundles.post_load()
    assert bundles.http.Stream.get_response is original
    (line,) = caplog.messages
    assert "odoo.http.Stream.get_response does not contain" in line


def test_an_image_without_brotli_is_served_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundles = load(monkeypatch, tmp_path, brotli=False)
    original = bundles.http.Stream.get_response
    bundles.post_load()
    assert bundles.http.Stream.get_response is original
    assert caplog.messages == ["Bundles are not compressed beforehand: the image does not have Debian's python3-brotli"]


# --- copies.py ----------------------------------------------------------------------------------------------------------------

WORKING = """
import pathlib, sys, time, zlib
with pathlib.Path(__file__).with_name("runs").open("a") as runs:
    runs.write(sys.argv[1] + "\\n")
time.sleep(0.2)
sys.stdout.buffer.write(zlib.compress(sys.stdin.buffer.read()))
"""
HALF = "import os, sys; sys.stdout.buffer.write(b'half'); sys.stdout.buffer.flush(); os.kill(os.getpid(), 9)"
FULL = "raise OSError(28, 'No space left on device')"


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, with a program that compresses differently and counts how often."""
    spec = importlib.util.spec_from_file_location("copies_under_test", addon.ADDON / "copies.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SQUEEZE", tmp_path / "squeeze.py")
    (tmp_path / "squeeze.py").write_text(WORKING)
    return module


def wait() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("Copy of"):
            thread.join(30)


def runs(directory: Path) -> int:
    file = directory / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("br", True),
        ("gzip, deflate, br, zstd", True),
        ("gzip;q=1.0, BR ; q=0.5", True),
        ("", False),
        ("gzip, deflate", False),
        ("*", False),
        ("br;q=0", False),
        ("br;q=0.000, *", False),
        ("br;q=much", False),
        ("brotli, x-br", False),
    ],
)
def test_who_takes_brotli(copies: Any, header: str, taken: bool) -> None:
    assert copies.takes_brotli(header) is taken


def test_two_workers_make_one_copy(copies: Any, tmp_path: Path) -> None:
    workers = [copies.Copies(tmp_path / "bundles") for _ in range(2)]
    for worker in workers * 3:
        worker.want(NAME, lambda: CONTENT)
    wait()
    assert runs(tmp_path) == 1
    assert [file.name for file in (tmp_path / "bundles").iterdir()] == [f"{NAME}.br"]
    for worker in workers:
        assert worker.find(NAME) == tmp_path / f"bundles/{NAME}.br"
    assert 0 < workers[0].find(NAME).stat().st_size < len(CONTENT)


def test_copies_that_nobody_needs_any_more_go(copies: Any, tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    now = time.time()
    for name, days in {"old": 31, "used": 31, "young": 29}.items():
        (tmp_path / f"bundles/{name}.br").write_bytes(b"x")
        os.utime(tmp_path / f"bundles/{name}.br", (now - days * copies.DAY,) * 2)
    worker = copies.Copies(tmp_path / "bundles")
    assert worker.find("used")
    worker.want(NAME, lambda: CONTENT)
    wait()
    assert sorted(file.name for file in (tmp_path / "bundles").iterdir()) == sorted([f"{NAME}.br", "used.br", "young.br"])


@pytest.mark.parametrize(
    ("program", "words"), [(FULL, r"No space left on device"), (HALF, r"it ended with -9"), ("import nowhere", "nowhere")]
)
def test_what_fails_is_not_served_and_said_once(
    copies: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: str, words: str
) -> None:
    now = 1000.0
    monkeypatch.setattr(copies.time, "monotonic", lambda: now)
    (tmp_path / "squeeze.py").write_text(program)
    worker = copies.Copies(tmp_path / "bundles")
    with caplog.at_level(logging.WARNING):
        for name in (NAME, "another", NAME):
            worker.want(name, lambda: CONTENT)
        wait()
        worker.want(NAME, lambda: CONTENT)
        wait()
    (line,) = caplog.messages
    assert words in line
    assert list((tmp_path / "bundles").iterdir()) == [], "what was written takes the room that is missing"
    (tmp_path / "squeeze.py").write_text(WORKING)
    now += 3601
    worker.want(NAME, lambda: CONTENT)
    wait()
    assert worker.find(NAME)


def test_a_place_that_cannot_be_written_is_said_once(copies: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bundles").write_text("in the way")
    worker = copies.Copies(tmp_path / "bundles")
    for _ in range(3):
        worker.want(NAME, lambda: CONTENT)
        wait()
    assert len(caplog.messages) == 1
    assert worker.find(NAME) is None


def test_what_was_left_half_is_not_served_and_replaced(copies: Any, tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles/part").write_bytes(b"half")
    worker = copies.Copies(tmp_path / "bundles")
    assert worker.find(NAME) is None
    worker.want(NAME, lambda: CONTENT)
    wait()
    assert [file.name for file in (tmp_path / "bundles").iterdir()] == [f"{NAME}.br"]


def test_a_process_without_room_for_a_thread_goes_on(copies: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    worker = copies.Copies(tmp_path / "bundles")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        worker.want(NAME, lambda: CONTENT)
    worker.want(NAME, lambda: CONTENT)
    wait()
    assert worker.find(NAME)


# --- squeeze.py, with another brotli ------------------------------------------------------------------------------------------

BESIDE = """
import resource, runpy, sys, types, zlib
{before}
def compress(content, quality, lgwin):
    {during}
    return zlib.compress(content)
sys.modules["brotli"] = types.SimpleNamespace(compress=compress, decompress=zlib.decompress)
sys.argv = ["squeeze.py", {name!r}, {parent}]
runpy.run_path({program!r}, run_name="__main__")
"""
TELL = "import os, resource, sys; print(os.nice(0), os.sched_getscheduler(0), resource.getrlimit(resource.RLIMIT_CPU)[0], file=sys.stderr)"


def squeeze(name: str = NAME, parent: str = "str(__import__('os').getppid())", before: str = "", during: str = "pass") -> list[str]:
    code = BESIDE.format(before=before, during=during, name=name, parent=parent, program=str(addon.ADDON / "squeeze.py"))
    return [sys.executable, "-c", code]


def test_it_yields_to_everybody_and_is_not_under_the_limit_of_a_request() -> None:
    before = "resource.setrlimit(resource.RLIMIT_CPU, (60, resource.getrlimit(resource.RLIMIT_CPU)[1]))"
    done = subprocess.run(squeeze(before=before, during=TELL), input=CONTENT, capture_output=True, check=True)
    assert importlib.import_module("zlib").decompress(done.stdout) == CONTENT
    assert done.stderr.split() == [b"19", str(os.SCHED_IDLE).encode(), b"-1"]


def test_a_content_that_is_not_whole_is_refused() -> None:
    done = subprocess.run(squeeze(), input=CONTENT[:-1], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"not what its checksum says" in done.stderr


def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(squeeze(), input=CONTENT, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(b"No space left on device")


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """Also with one that is killed: nothing is left that a container would wait for when it stops."""
    slow = squeeze(during=f"import pathlib, os, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)")
    parent = f"import subprocess; subprocess.run({slow!r}, input={CONTENT!r}, stdout=subprocess.DEVNULL)"
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        until = time.monotonic() + 20
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        process.kill()
    child = int((tmp_path / "pid").read_text())
    while True:
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            break
        if state == "Z":
            break
        assert time.monotonic() < until + 20
        time.sleep(0.05)


def test_it_does_not_begin_without_its_parent() -> None:
    done = subprocess.run(squeeze(parent="'1'"), input=CONTENT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
