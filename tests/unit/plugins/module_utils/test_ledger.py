# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is done to a ledger is seen: in its own chain, or by what the other side has."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of five lines."""
    path = tmp_path / "new" / "ledger.jsonl"
    for number in range(5):
        _ledger.append(path, {"number": number, "text": "ä" * 100})
    return path


def test_it_is_for_its_owner_and_holds(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    lines = _ledger.read(path)
    assert [(_ledger.parse(line) or {})["number"] for line in lines] == list(range(5))
    assert _ledger.broken(lines) == []


def test_a_line_longer_than_a_block_is_followed(path: Path) -> None:
    _ledger.append(path, {"text": "x" * 200_000})
    _ledger.append(path, {})
    assert _ledger.broken(_ledger.read(path)) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda lines: [lines[0], lines[1].replace(b'"number": 1', b'"number": 7'), *lines[2:]], ["line 3 does not follow"]),
        (lambda lines: [lines[0], *lines[2:]], ["line 2 does not follow"]),
        (lambda lines: lines[1:], ["line 1 is not the first"]),
        (lambda lines: [*lines[:2], lines[0], *lines[2:]], ["line 3 does not follow", "line 4 does not follow"]),
        (lambda lines: [*lines[:2], lines[3], lines[2], lines[4]], ["line 3", "line 4", "line 5"]),
        (lambda lines: [*lines[:4], lines[4][:20]], ["line 5 is no record"]),
        (lambda lines: [*lines[:4], b"[]"], ["line 5 is no record"]),
    ],
)
def test_a_change_is_named(path: Path, damage: Any, expected: list[str]) -> None:
    found = _ledger.broken(damage(_ledger.read(path)))
    assert len(found) == len(expected)
    assert all(words in problem for words, problem in zip(expected, found, strict=True))


def test_it_goes_on_after_a_torn_line_which_stays(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])
    _ledger.append(path, {"number": 5})
    lines = _ledger.read(path)
    assert len(lines) == 6
    assert _ledger.broken(lines) == ["line 5 is no record: it was changed, or a machine lost its power while it was written"]


def write(path: Path) -> None:
    """One of several who write at the same time."""
    for number in range(20):
        _ledger.append(path, {"number": number})


def test_several_write_at_the_same_time(path: Path) -> None:
    writers = [multiprocessing.get_context("fork").Process(target=write, args=(path,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = _ledger.read(path)
    assert len(lines) == 5 + 80
    assert _ledger.broken(lines) == []


def run(path: Path, hosts: dict[str, Path], name: str) -> None:
    """What a run writes."""
    record = {
        "run": name,
        "user": "jane",
        "playbook": "site.yml",
        "time": "2026-11-25T17:00:00Z",
        "controller": "desk",
        "ledger": str(path),
    }
    _ledger.append(path, {**record, "event": "start"})
    line = _ledger.append(path, {**record, "event": "end"})
    kept = {host: _ledger.append(own, {**record, "event": "end", "line": line}) for host, own in hosts.items()}
    _ledger.append(path, {**record, "event": "kept", "hosts": kept})


def judge(path: Path, hosts: dict[str, Path], controller: str = "desk") -> list[str]:
    """What both sides say against each other."""
    return _ledger.disagreements(
        _ledger.read(path), str(path), controller, {host: _ledger.latest(_ledger.read(own)) for host, own in hosts.items()}
    )


def test_what_was_cut_off_is_known_to_the_other_side(tmp_path: Path) -> None:
    path, hosts = tmp_path / "controller", {"vm1": tmp_path / "vm1", "vm2": tmp_path / "vm2"}
    run(path, hosts, "a")
    run(path, {"vm1": hosts["vm1"]}, "b")
    assert judge(path, hosts) == []
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    assert _ledger.broken(_ledger.read(path)) == []
    [found] = judge(path, hosts)
    assert found.startswith("vm1: its ledger has a run of jane")
    path.unlink()
    assert len(judge(path, hosts)) == 3
    assert judge(path, hosts, controller="another") == []
    path.write_bytes(whole)
    hosts["vm2"].unlink()
    [found] = judge(path, hosts)
    assert found.startswith("vm2: its ledger lacks the run")
    # One that did not answer is not judged.
    assert judge(path, {"vm1": hosts["vm1"]}) == []


def test_the_jobs_of_one_awx_are_of_one_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "automation-job-17-x5k2p")
    monkeypatch.delenv("AWX_HOST", raising=False)
    assert _ledger.controller() == "automation-job-17-x5k2p"
    monkeypatch.setenv("AWX_HOST", "https://awx.example.com")
    assert _ledger.controller() == "https://awx.example.com"
