# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program that backs PostgreSQL up makes of pgBackRest's words. The outputs are those of pgBackRest 2.55.1."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _pgbackrest

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


# --- several members

UNREACHED = """2026-11-30 14:20:11.101 P00   WARN: unable to check pg2: [HostConnectError] unable to connect to 'db2:8432': [111] Connection refused
                                    [HostConnectError] on 18 retries from 60-14946ms: unable to connect to 'db2:8432': [111] Connection refused
2026-11-30 14:20:11.102 P00  ERROR: [056]: unable to find standby cluster - cannot proceed
"""
DEAF = "2026-11-30 15:01:11.101 P00  ERROR: [049]: unable to connect to 'db2:8432 (10.0.0.12)': [111] Connection refused\n"
NOT_LATER = """P00  ERROR: [106]: new backup label '20261130-145903F_20261130-150758I' is not later than latest backup label '20261130-150511F'
                                    HINT: has the timezone changed?
"""
PROMOTED = "2026-11-30 15:00:21.001 P00  ERROR: [101]: NULL result required to complete request\n"
DIRECTORY = "/var/lib/postgresql/17"


class Members:
    """Answers of PostgreSQL and pgBackRest on the member that leads."""

    def __init__(self, monkeypatch, *outputs: tuple[int, str]) -> None:
        self.leads, self.standbys, self.outputs = (
            "f|f",
            f"db1|{DIRECTORY}|{80 << 20}\ndb2|{DIRECTORY}|168\ndb3|{DIRECTORY}|0\n",
            list(outputs),
        )
        self.backups: list[tuple[str, ...]] = []
        self.asked: list[str] = []
        self.repository, self.deaf = json.dumps(INFO), {}
        self.runner = backup.Runner("berth", ["offsite"], ["db1", "db2", "db3"])
        monkeypatch.setattr(self.runner, "inside", self.inside)
        monkeypatch.setattr(self.runner, "beside", self.beside)

    def inside(self, *argv: str) -> tuple[int, str]:
        if "server-ping" in argv:
            return self.deaf.get(argv[-1], (0, ""))
        if argv[0] != "psql":
            return 0, self.repository
        self.asked.append(argv[-1][2:])
        return 0, f"{self.leads}\n" if argv[-1][2:] == backup.STATE else self.standbys if argv[-1][2:] == backup.STANDBYS else "f\n"

    def beside(self, *argv: str) -> tuple[int, str]:
        self.backups.append(argv)
        return self.outputs.pop(0)

    def of_standby(self) -> list[str]:
        return [next((word.partition("=")[2] for word in argv if word.startswith("--pg2-host=")), "") for argv in self.backups]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(backup.time, "sleep", lambda _seconds: None)


def test_a_standby_is_read_and_the_leader_where_there_is_none(monkeypatch, capsys):
    members = Members(monkeypatch, (0, ""), (0, ""))
    assert members.runner.make("full", 1) == "read from db2"
    assert "--backup-standby=y" in members.backups[0]
    assert f"--pg2-path={DIRECTORY}" in members.backups[0]
    # Another program that streams is no standby, and one that has said nothing yet is no better than none.
    members.standbys = f"pg_receivewal|{DIRECTORY}|0\ndb3|{DIRECTORY}|\n"
    assert members.runner.make("full", 1) == "read from the leader, because no standby streams and is less than 64 MB behind"
    assert members.of_standby() == ["db2", ""]
    assert "no standby streams and is less than 64 MB behind; the leader's own files are read" in capsys.readouterr().out


def test_a_standby_that_does_not_answer_is_passed_over(monkeypatch, capsys):
    members = Members(monkeypatch, (0, ""), (0, ""))
    members.deaf = {"db2": (49, DEAF)}
    words = "standby db2 could not be read: [049]: unable to connect to 'db2:8432 (10.0.0.12)': [111] Connection refused"
    assert members.runner.make("full", 1) == f"read from db3, because {words}"
    members.deaf["db3"] = (49, DEAF.replace("db2", "db3"))
    assert members.runner.make("full", 1) == f"read from the leader, because {words}; {words.replace('db2', 'db3')}"
    assert members.of_standby() == ["db3", ""]


def test_a_standby_that_cannot_be_read_costs_no_backup(monkeypatch, capsys):
    members = Members(monkeypatch, (56, UNREACHED), (0, ""))
    words = (
        "standby db2 could not be read: unable to check pg2: [HostConnectError] unable to connect to 'db2:8432': [111] Connection refused"
    )
    assert members.runner.make("incremental", 1) == f"read from the leader, because {words}"
    assert members.of_standby() == ["db2", ""]
    assert capsys.readouterr().out == f"{words}; the leader's own files are read\n"


def test_a_repository_that_is_away_is_not_the_standby_s_fault(monkeypatch):
    members = Members(monkeypatch, (49, REFUSED))
    members.repository = json.dumps([{"repo": [{"key": 1, "status": {"code": 99, "message": REFUSED}}]}])
    with pytest.raises(backup.Failed, match="repository offsite does not answer") as caught:
        members.runner.make("full", 1)
    assert caught.value.away
    assert members.of_standby() == ["db2"]


def test_after_a_full_backup_that_ended_in_its_middle_another_one_is_made(monkeypatch, capsys):
    """SeaweedFS lists the directory of the one that ended, so that every incremental one would be refused until the next full one."""
    members = Members(monkeypatch, (106, NOT_LATER), (0, ""))
    assert members.runner.make("incremental", 1) == "read from db2"
    assert ["--type=full" in argv for argv in members.backups] == [False, True]
    assert "so another full one is made" in capsys.readouterr().out
    members.outputs = [(106, NOT_LATER)]
    with pytest.raises(backup.Failed, match="is not later than latest backup label"):
        members.runner.make("full", 1)


def test_two_at_once_say_so(monkeypatch):
    members = Members(monkeypatch, (50, LOCKED))
    with pytest.raises(backup.Failed, match="another backup of this cluster runs already; nothing was done"):
        members.runner.make("full", 1)
    assert members.of_standby() == ["db2"]


@pytest.mark.parametrize("standbys", [f"db2|{DIRECTORY}|0\n", ""])
def test_who_leads_no_more_says_so_and_reads_nothing(monkeypatch, standbys):
    members = Members(monkeypatch, (57, PROMOTED))
    members.leads, members.standbys = "t|t", standbys
    with pytest.raises(backup.Failed, match=r"another member leads since the backup began.*NULL result required.*berth\.odoo\.backup"):
        members.runner.make("full", 1)
    assert len(members.backups) == 1


def test_in_a_handover_a_member_asks_again_who_leads(monkeypatch):
    members = Members(monkeypatch)
    answers = [(2, "FATAL:  the database system is shutting down"), (0, "t|f\n"), (0, "t|f\n"), (0, "f|f\n")]
    monkeypatch.setattr(members.runner, "inside", lambda *_argv: answers.pop(0))
    assert members.runner.leads()
    assert answers == []
    # One that is alone is not waited for.
    alone = backup.Runner("berth", ["offsite"])
    monkeypatch.setattr(alone, "inside", lambda *_argv: (2, "FATAL:  the database system is starting up"))
    with pytest.raises(backup.Failed, match="PostgreSQL on this host does not answer"):
        alone.leads()


STOPPED = (1, "Error response from daemon: container 0f is not running\n")
LED = '[{"Cluster": "berth", "Member": "db1", "Role": "Leader", "State": "running"}, {"Member": "db2", "Role": "Replica", "State": "stopped"}]\n'


@pytest.mark.parametrize(
    ("state", "cluster", "status", "words"),
    [
        # Its own PostgreSQL is down, and another member does it: no failed unit.
        (
            (2, "psql: error: no such file"),
            (0, f"db2\n{LED}"),
            0,
            "db1 leads, and makes it. Of this member: PostgreSQL on this host does not answer",
        ),
        (
            (0, "t|f\n"),
            (0, f"'db2'\n{LED}"),
            0,
            "db1 leads, and makes it. Of this member: PostgreSQL on this host is a standby and follows nobody",
        ),
        # Nobody here can say: its container is stopped, or the host is cut off from etcd.
        (
            STOPPED,
            STOPPED,
            69,
            "container 0f is not running. Look: docker logs --tail 50 postgresql-postgresql-1. Whether another member leads cannot",
        ),
        ((0, "t|f\n"), (0, "db2\n"), 69, "follows nobody. Whether another member leads cannot be asked here"),
        # Nobody makes one, and somebody has to say so.
        ((0, "t|f\n"), (0, f"db2\n{LED.replace('Leader', 'Replica')}"), 1, "follows nobody. No member leads: type berth.odoo.status"),
        ((2, "psql: error: starting up"), (0, f"db1\n{LED}"), 1, "It is the one that leads: type berth.odoo.status"),
        ((0, "t|t\n"), STOPPED, 0, _pgbackrest.ELSEWHERE),
    ],
)
def test_a_member_that_is_down_fails_no_backup_that_another_one_makes(monkeypatch, capsys, state, cluster, status, words):
    monkeypatch.setattr(backup, "HANDOVER_S", -1)
    monkeypatch.setattr(backup.Runner, "inside", lambda _self, *argv: cluster if argv[0] == "sh" else state)
    given = ["full", "--stanza=berth", "--repositories=offsite", "--members=db1,db2"]
    assert backup.main(given) == status
    said = capsys.readouterr()
    assert words in said.out + said.err
    # Of one that is alone nothing else is known.
    if "t|" not in state[1]:
        assert backup.main(given[:-1]) == 1


def test_the_unit_takes_the_status_for_a_success_that_others_answer_for():
    units = (FILE.parents[1] / "vars/main.yml").read_text(encoding="utf-8")
    assert f"SuccessExitStatus={backup.UNKNOWN}\n" in units


def test_a_new_leader_knows_what_the_former_one_made(runner, monkeypatch):
    monkeypatch.setattr(runner, "repositories", ["offsite"])
    monkeypatch.setattr(runner, "information", lambda *_options, **_more: INFO)

    def fails(*_arguments, **_more):
        raise backup.Failed("pgBackRest backup: repository offsite is full")

    monkeypatch.setattr(runner, "make", fails)
    monkeypatch.setenv("INVOCATION_ID", "0f")
    assert runner.backup("incremental") == 1
    [result] = backup.read(backup.RESULT)
    assert (result["last_success"], result["listed"], result["label"], result["run"]) == (1795590293, True, "", "0f")
    assert 'last_success_timestamp_seconds{stanza="berth",repository="offsite"} 1795590293' in backup.METRICS.read_text()
    # One that does not answer is no proof that there is none.
    monkeypatch.setattr(runner, "information", fails)
    runner.backup("incremental")
    [result] = backup.read(backup.RESULT)
    assert (result["last_success"], result["listed"]) == (1795590293, False)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (42, "[042]: timeout after 300000ms waiting for read from 'db2:8432'"),
        (39, "[039]: client state is 'response' but expected 'idle'"),
        (101, "[101]: TLS error [5:2147483758] no details available"),
    ],
)
def test_a_standby_that_stands_still_is_waited_for_some_minutes(monkeypatch, status, error):
    """pgBackRest's own patience is half an hour, and stays for the leader's files."""
    members = Members(monkeypatch, (status, f"P00  ERROR: {error}\n"), (0, ""))
    assert members.runner.make("full", 1) == f"read from the leader, because standby db2 could not be read: it answers no more: {error}"
    first, second = members.backups
    assert {"--protocol-timeout=5m", "--tcp-keep-alive-count=3"} <= {*first}
    assert not any("timeout" in word or "keep-alive" in word for word in second)


def test_members_are_let_ask_what_a_backup_asks_once(monkeypatch):
    members = Members(monkeypatch)
    members.repository = json.dumps([{"repo": [{"key": 1, "status": {"code": 0}}]}])
    assert members.runner.prepare() == "granted rewind what a backup asks a standby"
    assert members.asked == [backup.MAY, backup.GRANT]
    monkeypatch.setattr(members.runner, "ask", lambda question: [["t"]])
    assert members.runner.prepare() == "nothing to do"


def test_the_result_says_what_was_read(runner, monkeypatch, capsys):
    monkeypatch.setattr(runner, "repositories", ["offsite"])
    monkeypatch.setattr(runner, "information", lambda *_options, **_more: INFO)
    monkeypatch.setattr(runner, "make", lambda *_arguments: "read from db2")
    assert runner.backup("incremental") == 0
    assert backup.read(backup.RESULT)[0]["source"] == "read from db2"
    assert capsys.readouterr().out.endswith("to offsite, read from db2\n")
