# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program that backs PostgreSQL up makes of pgBackRest's words. The outputs are those of pgBackRest 2.55.1."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[3] / "roles/postgresql/files/backup.py"
specification = importlib.util.spec_from_file_location("berth_backup", FILE)
backup = importlib.util.module_from_spec(specification)
specification.loader.exec_module(backup)

LOCKED = """2026-11-25 07:04:53.690 P00  ERROR: [050]: unable to acquire lock on file '/run/postgresql/pgbackrest/berth-backup-1.lock': Resource
                                    HINT: is another pgBackRest process running?
"""
WRONG_PASSPHRASE = """2026-11-25 07:05:23.428 P00  ERROR: [029]: unable to load info file '/srv/backup/postgresql/archive/berth/archive.info':
                                    FormatError: key/value found outside of section at line 1: \ufffd\ufffded\x05E07Z
                                    HINT: archive.info cannot be opened but is required to push/get WAL segments.
                                    HINT: has a stanza-create been performed?
"""
REFUSED = "[HostConnectError] unable to connect to '127.0.0.1:9': [111] Connection refused\n    [HostConnectError] on 6 retries from 101-3000ms: unable"
NO_NAME = """2026-11-25 07:06:09.680 P00  ERROR: [049]: unable to load info file '/srv/backup/archive.info' or '/srv/backup/archive.info.copy':
              HostConnectError: unable to get address for 's3.nowhere.invalid': [-2] Name or service not known
                                    HINT: has a stanza-create been performed?
"""
# Of a host whose clock is half an hour ahead, and of one where it is behind, with SeaweedFS 4.48.
SKEWED = """[ProtocolError] HTTP request failed with 403 (Forbidden):
*** Response Content ***:
<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the server's time is too large.</Message></Error>
"""
BEHIND = "[CryptoError] unable to verify certificate presented by '127.0.0.1:8333': [9] certificate is not yet valid"
# Of a store whose disk is full: what the backup says, and what the archive has written down.
NOT_ARCHIVED = """2026-11-29 10:45:56.761 P00  ERROR: [082]: WAL segment 000000010000000000000005 was not archived before the 60000ms timeout
                                    HINT: check the archive_command to ensure that all options are correct (especially --stanza).
"""
FULL = """104
raised from local-1 protocol: archive-push command encountered error(s):
repo1: [ServiceError] [500] Internal Server Error
    [ServiceError] on 6 retries from 369-10474ms: [500] Internal Server Error
"""
BIT_FLIP = """stanza: berth
status: error
  backup: 20261125-070453F, status: invalid, total files checked: 966, total valid files: 965
    checksum invalid: 1
"""
INFO = [
    {
        "backup": [
            {
                "database": {"repo-key": 1},
                "label": "20261125-070451F",
                "timestamp": {"stop": 1795590292},
                "info": {"size": 9, "repository": {"delta": 3}},
            },
            {
                "database": {"repo-key": 1},
                "label": "20261125-070451F_I",
                "timestamp": {"stop": 1795590293},
                "info": {"size": 9, "repository": {"delta": 1}},
            },
        ],
        "repo": [{"key": 1, "status": {"code": 0}}, {"key": 2, "status": {"code": 1, "message": "missing stanza path"}}],
    }
]


@pytest.mark.parametrize(
    ("output", "words", "away"),
    [
        (LOCKED, "another backup of this cluster runs already", False),
        (WRONG_PASSPHRASE, "backup_secrets.passphrase is not the one that encrypted repository offsite", False),
        (REFUSED, "repository offsite does not answer", True),
        (NO_NAME, "repository offsite does not answer", True),
        (SKEWED, "the clock of this host and that of repository offsite differ", False),
        (BEHIND, "the clock of this host and that of repository offsite differ", False),
        (NOT_ARCHIVED, "WAL does not reach repository offsite in time: docker logs --since 5m postgresql-postgresql-1 says why", False),
        (NOT_ARCHIVED + REFUSED, "repository offsite does not answer", True),
        (NOT_ARCHIVED + FULL, "repository offsite answers with an error of its own: look at its log, and whether its disk is full", True),
        ("ERROR: [101]: something new", "", False),
    ],
)
def test_words_are_explained(output, words, away):
    assert backup.meaning(output, "offsite").startswith(words)
    assert backup.is_away(output) is away
    assert str(backup.Runner.failed(output, "offsite", "check")).isprintable()


def test_a_bit_that_was_flipped_is_an_error_although_the_exit_status_is_0():
    assert backup.damaged(BIT_FLIP) == [
        "status: error",
        "backup: 20261125-070453F, status: invalid, total files checked: 966, total valid files: 965",
        "checksum invalid: 1",
    ]
    assert backup.damaged("stanza: berth\nstatus: ok\n") == []


def test_which_repositories_are_prepared_and_what_is_the_newest():
    assert backup.unprepared(INFO, 2) == [2]
    assert backup.unprepared([], 2) == [1, 2]
    assert backup.newest(INFO, 1)["label"] == "20261125-070451F_I"
    assert backup.newest(INFO, 2) is None


def test_what_keeps_the_archive_is_in_the_message_of_a_backup_that_waited_for_it(monkeypatch):
    runner = backup.Runner("berth", ["offsite"])
    monkeypatch.setattr(runner, "beside", lambda *argv: (82, NOT_ARCHIVED))
    monkeypatch.setattr(runner, "inside", lambda *argv: (0, FULL) if "out/*.error" in argv[-1] else (1, ""))
    with pytest.raises(backup.Failed, match=r"its disk is full .*WAL segment 000000010000000000000005 was not archived before") as caught:
        runner.pgbackrest("backup", number=1)
    assert caught.value.away


def test_a_stanza_is_made_when_the_archiver_lets_go_of_its_lock(monkeypatch):
    runner = backup.Runner("berth", ["offsite"])
    answers = [(50, LOCKED), (50, LOCKED), (0, "")]
    monkeypatch.setattr(runner, "inside", lambda *_argv: answers.pop(0))
    runner.create()
    assert answers == []
    answers += [(50, LOCKED)] * 3
    monkeypatch.setattr(backup, "LOCK_WAIT_S", 0)
    with pytest.raises(backup.Failed, match="unable to acquire lock"):
        runner.create()


@pytest.fixture
def runner(tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "RESULT", tmp_path / "backup/postgresql.json")
    monkeypatch.setattr(backup, "METRICS", tmp_path / "metrics/berth.prom")
    return backup.Runner("berth", ["offsite", "near"])


def test_one_repository_that_is_away_does_not_keep_the_other_from_its_backup(runner, monkeypatch):
    outputs = {1: (0, ""), 2: (49, NO_NAME)}

    def inside(*argv):
        if "info" in argv:
            return 0, json.dumps(INFO)
        return outputs[int(next(one for one in argv if one.startswith("--repo="))[-1])]

    monkeypatch.setattr(runner, "inside", inside)
    monkeypatch.setattr(runner, "beside", inside)
    assert runner.backup("incremental") == backup.AWAY
    good, bad = backup.read(backup.RESULT)
    assert (good["label"], good["bytes"], good["error"]) == ("20261125-070451F_I", 1, "")
    assert bad["label"] == "" and "does not answer" in bad["error"] and bad["last_success"] == 0
    text = backup.METRICS.read_text()
    assert 'berth_postgresql_backup_failed{stanza="berth",repository="near"} 1' in text
    before = good["last_success"]
    outputs[1] = (50, LOCKED)
    runner.backup("full")
    assert backup.read(backup.RESULT)[0]["last_success"] == before
