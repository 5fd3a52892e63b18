# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program and the style sheets of the back office: compressed once with time to try hard, and by the edge until then."""

from __future__ import annotations

import base64
import hashlib
import re
from email.message import Message
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ansible_collections.berth.odoo.tests.support.lab import wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo

BUNDLE = re.compile(r'(?:src|href)="(/web/assets/[0-9a-f]{7}/web\.assets_web\.min\.(js|css))"')
DIRECTORY = "/var/lib/odoo/bundles"
DECOMPRESS = "import base64, brotli, hashlib, sys; print(hashlib.sha1(brotli.decompress(base64.b64decode(sys.stdin.read()))).hexdigest())"


class Sent(NamedTuple):
    """What came over the wire, as it came."""

    status: int
    headers: Message
    body: bytes

    @property
    def checksum(self) -> str:
        """What the ETag says."""
        return str(self.headers["ETag"]).strip('"')


def ask(client: Odoo, path: str, method: str = "GET", **headers: str) -> Sent:
    """Ask without a session. Nothing is asked for and nothing is unpacked that the caller does not say."""
    connection = client.connection(client.url.removeprefix("https://"), timeout=60)
    try:
        # Without this http.client would say that it takes nothing but the plain content.
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return Sent(answer.status, answer.msg, answer.read())
    finally:
        connection.close()


def in_web(host: Host, command: str, stdin: str = "") -> str:
    return host.run(f"docker exec -i {host.container('odoo-main/web').id} {command}", stdin=stdin)


@pytest.fixture(scope="module")
def paths(admin: Odoo) -> dict[str, str]:
    """By kind, where the page says that the bundles are."""
    found = {kind: path for path, kind in BUNDLE.findall(admin.request("/odoo").body)}
    assert sorted(found) == ["css", "js"]
    return found


@pytest.fixture(scope="module")
def before(host: Host, admin: Odoo, paths: dict[str, str]) -> dict[str, Sent]:
    """What the first browser gets after a release, where an earlier process was killed in the middle."""
    in_web(host, f"sh -c 'mkdir -p {DIRECTORY}; rm -f {DIRECTORY}/*; head -c 500000 /dev/urandom > {DIRECTORY}/part'")
    return {kind: ask(admin, path, Accept_Encoding="gzip, deflate, br, zstd") for kind, path in paths.items()}


@pytest.fixture(scope="module")
def after(admin: Odoo, paths: dict[str, str], before: dict[str, Sent]) -> dict[str, Sent]:
    """What the next one gets when the copies are there. The edge compresses no answer to HEAD."""
    for path in paths.values():
        wait_for(
            f"a copy of {path}", lambda path=path: ask(admin, path, "HEAD", Accept_Encoding="br").headers["Content-Encoding"], seconds=60
        )
    return {kind: ask(admin, path, Accept_Encoding="gzip, deflate, br, zstd") for kind, path in paths.items()}


def test_until_there_is_a_copy_the_edge_compresses(before: dict[str, Sent]) -> None:
    for sent in before.values():
        assert (sent.status, sent.headers["Content-Encoding"]) == (200, "br")
        assert sent.headers.get_all("Vary") == ["Accept-Encoding"]
        assert not sent.checksum.endswith("-br")


def test_the_copy_is_smaller_and_says_what_it_is(before: dict[str, Sent], after: dict[str, Sent]) -> None:
    for kind, sent in after.items():
        assert (sent.status, sent.headers["Content-Encoding"]) == (200, "br")
        assert len(sent.body) < 0.9 * len(before[kind].body), f"{kind}: {len(sent.body)} bytes, before {len(before[kind].body)}"
        assert sent.headers["Content-Length"] == str(len(sent.body))
        assert sent.headers.get_all("Vary") == ["Accept-Encoding"]
        assert sent.checksum == before[kind].checksum + "-br"
        assert "immutable" in sent.headers["Cache-Control"]
        assert sent.headers["Content-Type"] == before[kind].headers["Content-Type"]
        assert sent.headers["Last-Modified"] == before[kind].headers["Last-Modified"]


def test_it_is_the_plain_content(host: Host, admin: Odoo, paths: dict[str, str], after: dict[str, Sent]) -> None:
    """Which everybody gets who does not take brotli."""
    for kind, path in paths.items():
        plain = ask(admin, path, Accept_Encoding="identity")
        checksum = hashlib.sha1(plain.body, usedforsecurity=False).hexdigest()
        assert in_web(host, f"python3 -c '{DECOMPRESS}'", base64.b64encode(after[kind].body).decode()).strip() == checksum
        assert plain.checksum == checksum
        for headers in ({}, {"Accept_Encoding": "br;q=0"}):
            sent = ask(admin, path, **headers)
            assert (sent.status, sent.headers["Content-Encoding"], sent.body == plain.body) == (200, None, True)
            assert sent.headers.get_all("Vary") == ["Accept-Encoding"]
        assert ask(admin, path, Accept_Encoding="gzip").headers["Content-Encoding"] == "gzip"


def test_questions_about_it_are_about_the_compressed_bytes(admin: Odoo, paths: dict[str, str], after: dict[str, Sent]) -> None:
    path, sent = paths["js"], after["js"]
    head = ask(admin, path, "HEAD", Accept_Encoding="br")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(sent.body)), b"")
    same = ask(admin, path, Accept_Encoding="br", If_None_Match=sent.headers["ETag"])
    assert (same.status, same.headers["ETag"], same.body) == (304, sent.headers["ETag"], b"")
    other = ask(admin, path, Accept_Encoding="gzip", If_None_Match=sent.headers["ETag"])
    assert other.status == 200
    part = ask(admin, path, Accept_Encoding="br", Range="bytes=1000-1999", If_Range=sent.headers["ETag"])
    assert (part.status, part.headers["Content-Encoding"], part.body) == (206, "br", sent.body[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(sent.body)}"


def test_nothing_is_left_over(host: Host, after: dict[str, Sent]) -> None:
    wait_for("the end of the processes", lambda: not host.succeeds("pgrep -f '[s]queeze.py' > /dev/null"), seconds=5)
    names = {sent.checksum.removesuffix("-br") + ".br" for sent in after.values()}
    found = set(in_web(host, f"ls {DIRECTORY}").split())
    assert names <= found and "part" not in found, found
    listed = host.run(f"docker top {host.container('odoo-main/web').id} -eo pid,stat,args").splitlines()
    assert [line for line in listed[1:] if line.split()[1].startswith("Z")] == []


def test_with_debug_assets_nothing_is_compressed_beforehand(host: Host, admin: Odoo, after: dict[str, Sent]) -> None:
    before = in_web(host, f"ls {DIRECTORY}")
    sent = ask(admin, "/web/assets/debug/web.assets_frontend_minimal.js", Accept_Encoding="br")
    assert sent.status == 200
    assert "immutable" not in (sent.headers["Cache-Control"] or "")
    assert not sent.checksum.endswith("-br")
    assert in_web(host, f"ls {DIRECTORY}") == before
