# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups when something is in the way: nobody who works notices, the message says what it is, and the next run works."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support import history as the
from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.writers import sql, writers

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player
    from ansible_collections.berth.odoo.tests.support.s3 import Store

PROGRAM = "python3 -B /opt/berth/postgresql/backup/backup.py --stanza=berth --repositories=offsite"
NEAR = "/srv/berth-test-near"
CONFIGURATION = "/opt/berth/postgresql/pgbackrest/pgbackrest.conf"


def result(host: Host) -> dict[str, Any]:
    """What came of the instance's last set."""
    found: dict[str, Any] = json.loads(host.run("cat /var/lib/berth/backup/main/result.json"))
    return found


def segment(host: Host) -> str:
    """Begin a new WAL segment and return the name of the one that ended."""
    return sql(
        host, "SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000)); SELECT pg_walfile_name(pg_switch_wal())", "postgres"
    ).splitlines()[-1]


def archived(host: Host, name: str) -> bool:
    """Whether a segment of the WAL has been sent."""
    return sql(host, "SELECT last_archived_wal FROM pg_stat_archiver", "postgres") >= name


@contextmanager
def changed_configuration(host: Host, script: str) -> Iterator[None]:
    """Edit pgBackRest's configuration by a script of sed meanwhile."""
    host.run(f"cp -p {CONFIGURATION} /run/berth-test-pgbackrest && sed -E -i {shlex.quote(script)} {CONFIGURATION}")
    try:
        yield
    finally:
        host.run(f"mv /run/berth-test-pgbackrest {CONFIGURATION}")


def kept(host: Host) -> dict[str, Any]:
    """What pgBackRest has in the repository."""
    found: dict[str, Any] = json.loads(host.run("docker exec postgresql-postgresql-1 pgbackrest --stanza=berth --output=json info"))[0]
    return found


def test_a_backup_and_a_set(play: Player, host: Host) -> None:
    """The state that the other tests begin with: a full backup and a set."""
    with the.hurry(host):
        play("playbooks/backup.yml", variables={"backup_database": "full"}).expect_success()
    assert not result(host)["good"]["problems"]


def test_a_repository_that_is_away_keeps_nobody_waiting(play: Player, lab: Lab, host: Host, store: Store) -> None:
    """Commits go on, WAL waits, the message names the repository; when it is back WAL catches up and the next run works."""
    began = time.monotonic()
    store.stop()
    try:
        with writers(lab, ["vm1"]) as audit:
            names = [segment(host) for _ in range(4)]
            run = play("playbooks/backup.yml")
            run.expect_refusal("repository offsite does not answer", "backup_repositories")
            play("playbooks/backup.yml", variables={"backup_database": "none"}).expect_refusal(
                "repository offsite: no TLS at", "Look at the server"
            )
            names.append(segment(host))
        assert not archived(host, names[0]), "the repository is away, and WAL was sent to it"
    finally:
        store.begin()
        away = time.monotonic() - began
    assert not audit.lost
    assert audit.acknowledged > 100
    assert audit.gap < away / 3, f"somebody waited {audit.gap:.1f} s for a commit, and the repository was away for {away:.1f} s"
    wait_for("the archive to catch up", lambda: archived(host, names[-1]), seconds=120)
    with the.hurry(host):
        play("playbooks/backup.yml", variables={"target": "main"}).expect_success()


def test_a_clock_that_is_wrong_is_named(host: Host) -> None:
    """A store refuses requests of another time, and the keys are right."""
    host.run("command -v faketime >/dev/null || apt-get install -qq --no-install-recommends faketime >/dev/null", timeout=120)
    said = host.run("faketime -f +30m python3 -B /opt/berth/backup/config/set.py main 2>&1; echo ended with $?")
    assert "is 30 minutes ahead of that of" in said, said
    assert "ended with 1" in said


@pytest.mark.nightly
def test_refused_keys_are_named_and_so_is_what_was_dropped_meanwhile(play: Player, host: Host, store: Store) -> None:
    """Keys that the server does not let in any more are named. No set claims WAL that did not wait, until there is a new backup."""
    store.let_in("another" + store.secret_key)
    try:
        run = play("playbooks/backup.yml")
        run.expect_refusal("backup_secrets.offsite.secret_key")
        run = play("playbooks/backup.yml", variables={"backup_database": "none"})
        run.expect_refusal("backup_secrets.offsite.access_key and secret_key")
        names = [segment(host) for _ in range(4)]
        host.run(
            f"cp -p {CONFIGURATION} /run/berth-test-pgbackrest && sed -i 's/^archive-push-queue-max=.*/archive-push-queue-max=32MB/' {CONFIGURATION}"
        )
        # PostgreSQL is told that they are archived, and nobody lets them in. A new segment wakes the archiver, which tries again by itself after a minute.
        wait_for("the queue to be dropped", lambda: segment(host) and archived(host, names[-1]), seconds=180, interval=2)
    finally:
        host.run(f"[ ! -e /run/berth-test-pgbackrest ] || mv /run/berth-test-pgbackrest {CONFIGURATION}")
        store.let_in(store.secret_key)
    with the.hurry(host):
        refused = play("playbooks/backup.yml", variables={"backup_database": "none", "target": "main"})
    refused.expect_refusal("no set of main was made", "WAL after the backup", "run berth.odoo.backup")
    first, last = re.search(r"is missing: (\w{24}) to (\w{24})", refused.text).groups()
    assert first <= names[0] < names[-1] <= last
    play("playbooks/status.yml").expect_refusal("no set of main was made", f"{first} to {last}")
    with the.hurry(host):
        play("playbooks/backup.yml", variables={"target": "main"}).expect_success()


def test_a_missing_file_is_named(play: Player, host: Host) -> None:
    """The set is made without it, and says whose file it is."""
    number, file = sql(host, "SELECT id, store_fname FROM ir_attachment WHERE store_fname IS NOT NULL ORDER BY id LIMIT 1").split("|")
    path = f"/var/lib/berth/odoo/main/filestore/main/{file}"
    host.run(f"mv {path} {path}.aside")
    try:
        with the.hurry(host):
            run = play("playbooks/backup.yml", variables={"backup_database": "none", "target": "main"})
        run.expect_refusal("needs attention", f"attachment {number} ", file)
    finally:
        host.run(f"mv {path}.aside {path}")


def test_killed_and_run_again(play: Player, host: Host) -> None:
    """A backup and a set that are killed in the middle leave nothing that keeps the next ones from being made; two at once are told of each other."""
    # Held in its middle by a signal, so that it is there to be found.
    host.run("systemctl start --no-block berth-postgresql-backup@full.service")
    held = "pgrep -f '^pgbackrest .*--type=full.* backup$'"
    pids = wait_for("the backup", lambda: host.run(held, check=False).split(), seconds=30, interval=0.05)
    host.run(f"kill -STOP {' '.join(pids)}")
    second = host.run(f"{PROGRAM} incremental 2>&1; echo ended with $?", timeout=120)
    assert "another backup of this cluster runs already; nothing was done" in second
    assert "ended with 1" in second
    host.run(f"kill -KILL {' '.join(pids)}")
    wait_for("its end", lambda: "failed" in host.run("systemctl is-active berth-postgresql-backup@full.service", check=False), seconds=60)

    host.run("systemctl start --no-block berth-set@main.service")
    wait_for("the database's answer", lambda: host.succeeds("docker inspect berth-set-main >/dev/null 2>&1"), seconds=60, interval=0.1)
    second = host.run("python3 -B /opt/berth/backup/config/set.py main 2>&1; echo ended with $?")
    assert "a set of main is being made already, by process" in second
    assert "ended with 1" in second
    host.run("systemctl kill --signal=KILL berth-set@main.service")
    locks = "SELECT count(*) FROM pg_locks WHERE relation = 'ir_attachment'::regclass AND mode = 'RowExclusiveLock' AND granted"
    wait_for("the end of its lock", lambda: sql(host, locks) == "0", seconds=60)
    # With the retention {days: 0, full: 1} in the configuration, as berth.odoo.site writes it: time cannot be hurried here.
    assert len(kept(host)["backup"]) > 1
    with changed_configuration(host, "s/^(repo1-retention-full-type)=.*/\\1=count/; s/^(repo1-retention-full)=.*/\\1=1/"), the.hurry(host):
        play("playbooks/backup.yml", variables={"backup_database": "full"}).expect_success()
    after = kept(host)
    [backup] = after["backup"]
    assert [one["min"] for one in after["archive"]] == [backup["archive"]["start"]], "WAL that no backup needs is still there"


@pytest.fixture(scope="module")
def both(play: Player, host: Host) -> Iterator[dict[str, Any]]:
    """A second repository, in a directory on a disk of its own."""
    host.run(f"mkdir -p {NEAR} && mount -t tmpfs -o size=768m,mode=0755 tmpfs {NEAR}")
    (offsite,) = host.variables["backup_repositories"]
    variables = {"backup_repositories": [offsite, {"name": "near", "type": "posix", "path": NEAR}]}
    play("playbooks/site.yml", "--tags", "database,backup", variables=variables).expect_success()
    yield variables
    play("playbooks/site.yml", "--tags", "database,backup").expect_success()
    host.run(f"umount {NEAR} && rmdir {NEAR}")


@pytest.mark.nightly
def test_a_second_repository_in_a_directory_gets_everything_too(play: Player, host: Host, both: dict[str, Any]) -> None:
    with the.hurry(host):
        play("playbooks/backup.yml", variables={**both, "backup_database": "full", "target": "main"}).expect_success()
    assert set(result(host)["good"]["snapshots"]) == {"offsite", "near"}
    play("playbooks/drill_restore.yml", variables={**both, "target": "main", "repository": "near"}).expect_success()
    assert play("playbooks/site.yml", "--tags", "database,backup", variables=both).expect_success().changed == []
