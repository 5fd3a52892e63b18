# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program that makes sets decides by itself. The rest is tried in a lab."""

from __future__ import annotations

import fcntl
import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[3] / "roles/backup/files/set.py"
specification = importlib.util.spec_from_file_location("berth_set", FILE)
program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(program)


@pytest.mark.parametrize(
    ("days", "since", "wanted"),
    [
        (14, 0, "14d"),
        (0, 1_000_000 - 7200, "3h"),
        (0, 1_000_000 - 7199, "2h"),
        (0, 1_000_000, "1h"),
        # Nobody knows since when there are backups, so nothing is too old.
        (0, 0, "278h"),
    ],
)
def test_sets_are_kept_for_days_or_as_far_back_as_a_backup_leads_to_them(days, since, wanted):
    assert program.kept_within(days, since, 1_000_000.5) == wanted


RETRIED = "Save(<lock/999790a445>) returned error, retrying after 1.47223912s: client.PutObject: We encountered an internal error, please try again.\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (RETRIED, 130, "it answers with an error of its own: look at its log, and whether its disk is full"),
        ("Fatal: client.BucketExists: Access Denied.", 1, "the keys are refused"),
        ("", 12, "backup_secrets.passphrase is not the one"),
    ],
)
def test_words_of_restic_are_explained(words, code, sentence):
    assert sentence in program.meaning({"name": "offsite", "restic": "s3:x"}, words, code)


RESTIC = """#!/bin/sh
echo "$*" >> "$STORE/calls"
case "$*" in
  "cat config"*) echo '{"id": "abc"}' ;;
  unlock*) rm -f "$STORE/lock" ;;
  "backup --stdin"*) ;;
  backup*)
    [ ! -e "$STORE/lock" ] || { echo "repository is already locked exclusively by PID 4711" >&2; exit 1; }
    echo '{"message_type": "summary", "snapshot_id": "5e7", "data_added": 1}'
    [ ! -e "$STORE/unreadable" ] || exit 3 ;;
  forget*) [ ! -e "$STORE/appended" ] || { echo "Access Denied." >&2; exit 1; } ;;
esac
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A repository near, and a restic that writes down what it is asked for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/restic").write_text(RESTIC, encoding="utf-8")
    (tmp_path / "bin/restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/near.env").write_text(f"STORE={tmp_path}\n", encoding="utf-8")
    near = {"name": "near", "type": "posix", "path": str(tmp_path), "restic": str(tmp_path), "authority": False}
    settings = {"data_dir": str(tmp_path), "repositories": [near], "stanza": "berth", "archive_seconds": 1, "retention_days": 14}
    monkeypatch.setattr(program, "CONFIG", settings)
    monkeypatch.setattr(program, "HERE", tmp_path / "config")
    (tmp_path / "main").mkdir()
    return tmp_path


def asked(store, word):
    """What restic was asked for."""
    return [line for line in (store / "calls").read_text(encoding="utf-8").splitlines() if line.startswith(word)]


class Inside:
    """A database that answers at once, and may go while files are copied."""

    fails = ""

    def __init__(self, _instance):
        self.answer = {"lsn": "0/5", "timeline": 1, "database": "main", "time": "2026-11-25T11:00:00Z", "attachments": {"files": 0}}

    def tell(self, line):
        if line == self.fails:
            raise program.Failed("the database went away")
        return {**self.answer, "missing": 0, "missing_names": [], "mark": "000000010000000000000005"} if "archive" in line else {}

    def web(self):
        return program.Web("odoo:19", "sha256:1", Path("/nowhere"))

    def close(self):
        pass


def test_a_lock_of_what_was_killed_keeps_no_set_off(store, monkeypatch):
    (store / "lock").touch()
    monkeypatch.setattr(program, "Inside", type("Sound", (Inside,), {"fails": "never"}))
    monkeypatch.setattr(program, "unarchived", lambda _lsn, _mark: ({}, {}, {}))
    assert program.make("main", {})["snapshots"] == {"near": "5e7"}
    assert not asked(store, "forget")


@pytest.mark.parametrize("appended", [False, True])
@pytest.mark.parametrize("reason", ["unreadable", "database", "archive", "check", "gap"])
def test_the_snapshot_of_a_set_that_failed_is_taken_back(store, monkeypatch, reason, appended):
    def unarchived(_lsn, _mark):
        if reason == "check":
            raise program.Failed("whether a backup leads to this set is not known")
        return ({"near": "WAL is missing"} if reason == "gap" else {}), {}, {}

    for name in {"unreadable"} & {reason} | ({"appended"} if appended else set()):
        (store / name).touch()
    monkeypatch.setattr(program, "Inside", type("Lost", (Inside,), {"fails": {"database": "end", "archive": ""}.get(reason, "never")}))
    monkeypatch.setattr(program, "unarchived", unarchived)
    with pytest.raises(program.Failed):
        program.make("main", {})
    assert asked(store, "forget") == ["forget 5e7"]
    # Keys that may not delete leave word that restores heed.
    assert [line.split()[-1] for line in asked(store, "backup --stdin")] == (["--tag=failed=5e7"] if appended else [])


def test_nothing_is_deleted_while_it_is_restored(store, monkeypatch):
    monkeypatch.setattr(program, "LOCKS", store)
    made, before = {"snapshots": {"near": "5e7"}}, {"retention": {"tried": 1, "part": 3}}
    with (store / "berth-files-main").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        # Another instance's is another repository.
        assert program.retain("other", made, before, {})["part"] == 4
        assert len(asked(store, "prune")) == 1
        # As if it had not been tried, so that the next set does.
        assert program.retain("main", made, before, {}) == before["retention"]
        assert len(asked(store, "prune")) == 1
    assert program.retain("main", made, before, {})["part"] == 4
    assert len(asked(store, "prune")) == 2
