# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person goes back: first beside what serves, then in its place, to the second before a mistake."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support import history as the
from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.tenants import psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

RESTORE = "playbooks/restore.yml"
PROGRAM = "python3 -B /opt/berth/restore/config/restore.py"
COPY = "berth-restore-main-postgresql"
BEATS = (
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), max(at) FROM berth_heartbeat HAVING count(*) > 20"
)
"""The time of the database, UTC, and the last heartbeat that is to be seen."""


@dataclasses.dataclass(frozen=True)
class History:
    """What was there before the mistake."""

    moment: str
    beat: str
    """The last heartbeat that was to be seen then."""
    transaction: str
    """A savepoint of the one that did it."""
    mistake: str
    """When it did."""
    last: str
    """The last heartbeat that it saw."""
    after: str
    """A moment after it."""
    rows: dict[str, str]
    files: dict[str, str]


def refusal(host: Host, *arguments: str) -> str:
    """What the program says when it refuses."""
    text = host.run(f"{PROGRAM} {' '.join(map(shlex.quote, arguments))} 2>&1 >/dev/null; echo code $?", timeout=300)
    assert text.splitlines()[-1] in ("code 1", "code 2"), text
    return " ".join(text.split())


@pytest.fixture(scope="module")
def history(play: Player, host: Host, lab: Lab) -> History:
    """A set, then work, then a mistake."""
    odoo = the.admin(host, lab)
    the.transfer(odoo, "before the set")
    the.store_file(odoo, "before the set")
    psql(host, "DROP TABLE IF EXISTS berth_ledger", "main")
    psql(host, "CREATE TABLE berth_ledger AS SELECT id, md5(id::text) AS entry FROM generate_series(1, 5000) id", "main")
    with the.hurry(host):
        play("playbooks/backup.yml", variables={"target": "main"}).expect_success()
    the.transfer(odoo, "after the set")
    the.store_file(odoo, "after the set")
    with the.heartbeat(host):
        [line] = wait_for("heartbeats", lambda: psql(host, BEATS, "main"), seconds=60)
        moment, beat = line.split("|")
        rows, files = the.rows(host), the.files(odoo)
        wait_for(
            "more of them",
            lambda: psql(host, f"SELECT 1 FROM berth_heartbeat WHERE at > '{moment}+00' HAVING count(*) > 20", "main"),  # noqa: S608 - ours
            seconds=60,
        )
        # As Odoo does it: what is written in a savepoint has the number of that.
        mistake = (
            "BEGIN; SAVEPOINT one; SELECT 'last', max(at) FROM berth_heartbeat; INSERT INTO berth_heartbeat DEFAULT VALUES RETURNING xmin, at; "
            "DROP TABLE berth_ledger; RELEASE one; COMMIT"
        )
        [(_, last), (transaction, at)] = [line.split("|") for line in psql(host, mistake, "main") if "|" in line]
        [after] = psql(host, "SELECT clock_timestamp()")
        odoo.call("stock.picking", "unlink", odoo.call("stock.picking", "search", [["origin", "like", "the set"]]))
        odoo.call("ir.attachment", "unlink", odoo.call("ir.attachment", "search", [["name", "=like", "proof %"]]))
        odoo.call("res.partner", "create", [{"name": "proof that somebody went on"}])
    return History(moment, beat, transaction, at, last, after, rows, files)


def test_it_says_what_it_would_do_and_changes_nothing(play: Player, host: Host, history: History) -> None:
    before = the.state(host)
    play(RESTORE, variables={"target": "main", "time": history.moment, "into": "place"}).expect_refusal(
        "nothing was changed. To do it, type: -e target=main -e confirm=main -e into=place -e lose=newer",
        "'res_partner': 1",
        "needed",
        "free",
    )
    assert the.state(host) == before


def test_a_copy_of_the_moment_before_the_mistake(play: Player, host: Host, lab: Lab, history: History) -> None:
    play(RESTORE, variables={"target": "main", "time": history.moment, "confirm": "main"}).expect_success()
    assert the.rows(host, server=COPY) == history.rows
    # Everything that was committed until then, and nothing that came later.
    kept = f"SELECT max(at) BETWEEN '{history.beat}' AND '{history.moment}+00', max(at) FROM berth_heartbeat"  # noqa: S608 - ours
    found = host.run(f'docker exec {COPY} psql -h /run/postgresql -U postgres -d main -XtAc "{kept}"')
    assert found.startswith("t|"), f"the copy has {found}, expected {history.beat} at least, and nothing after {history.moment}"
    odoo = "berth-restore-main-odoo"
    address = host.run(f"docker inspect -f '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}}' {odoo}").strip()
    assert host.run(f"curl -s -o /dev/null -w '%{{http_code}}' http://{address}:8069/web/login") == "200"
    way = f"import socket; socket.create_connection(('{lab.hosts['store1'].address}', 8333), 3)"
    assert "unreachable" in host.run(f'docker exec {odoo} python3 -c "{way}" 2>&1', check=False)


def test_a_second_copy_is_refused_and_the_first_one_removed(play: Player, host: Host) -> None:
    assert "remove it first" in refusal(host, "up", "--instance=main", "--name=main")
    play(RESTORE, variables={"target": "main", "remove": True}).expect_success()
    assert host.run(
        "docker ps -aq --filter label=berth.restore; docker network ls -q --filter label=berth.restore; ls /var/lib/berth/restore"
    ).split() == ["cache"]


def test_in_place_although_it_is_interrupted(play: Player, host: Host, lab: Lab, history: History) -> None:
    variables = {"target": "main", "xid": history.transaction, "into": "place", "lose": "newer", "confirm": "main"}
    # Each dump has a key of its own.
    dump = "docker exec postgresql-postgresql-1 pg_dump -d staging | grep -v '^.restrict' | grep -v '^.unrestrict' | md5sum"
    others = f"docker ps --no-trunc --format '{{{{.ID}}}} {{{{.Names}}}}' | grep -v odoo-main | sort; {dump}"
    before = host.run(others)
    # As a run leaves it that was killed before it exchanged anything.
    psql(host, "ALTER DATABASE main ALLOW_CONNECTIONS false")
    # The worst moment: one of the two is exchanged.
    by_time = {**variables, "xid": "", "time": history.moment}
    assert play(RESTORE, variables=by_time, kill_at="Exchange the files").code < 0
    play(RESTORE, variables=variables).expect_success()
    assert the.rows(host) == history.rows
    assert the.files(the.admin(host, lab)) == history.files
    assert host.run(others) == before
    # What the transaction saw, and maybe what was committed beside it; what was written in the transaction itself is not there.
    kept = (
        f"SELECT max(at) BETWEEN '{history.last}' AND '{history.after}', count(*) FILTER (WHERE at = '{history.mistake}') "  # noqa: S608 - ours
        "FROM berth_heartbeat"
    )
    assert psql(host, kept, "main") == ["t|0"]


def test_what_was_there_stays_until_it_is_forgotten(play: Player, host: Host, history: History) -> None:
    kept = psql(host, "SELECT datname FROM pg_database WHERE datname LIKE 'main_before_%' ORDER BY 1")
    assert len(kept) >= 2
    play(RESTORE, variables={"target": "main", "forget": True}).expect_refusal("nothing was changed. This deletes", *kept)
    play(RESTORE, variables={"target": "main", "forget": True, "confirm": "main"}).expect_success()
    assert psql(host, "SELECT datname FROM pg_database WHERE datname LIKE 'main_%'") == []
    assert host.run("ls /var/lib/berth/odoo/main/filestore").split() == ["main"]


def test_a_disk_that_a_restore_would_fill_is_not_filled(play: Player, host: Host) -> None:
    small = "/run/berth-test-small"
    host.run(f"mkdir -p {small} && mount -t tmpfs -o size=32m tmpfs {small}")
    before = the.state(host)
    try:
        # The directory is only looked at.
        variables = {"target": "main", "into": "place", "lose": "newer", "confirm": "main", "postgresql_data_dir": small}
        run = play(RESTORE, variables=variables).expect_refusal("main is as it was", f"GB in {small}, and 32.00 MB are free")
    finally:
        host.run(f"umount {small}")
    assert "Load the database" not in {task.task for task in run.tasks}
    play(RESTORE, variables={"target": "main", "remove": True}).expect_success()
    assert the.state(host) == before


def test_a_cluster_that_nobody_leads_is_left_alone(play: Player, host: Host) -> None:
    before = host.run("ls -di /var/lib/berth/odoo/main/filestore/main")
    host.run("docker stop postgresql-postgresql-1", timeout=60)
    try:
        run = play(RESTORE, variables={"target": "main", "into": "place", "lose": "newer", "confirm": "main"})
    finally:
        host.run("docker start postgresql-postgresql-1")
    run.expect_refusal("nothing was changed. Of", "one has to lead, and those that say so are 0")
    assert host.run("ls -di /var/lib/berth/odoo/main/filestore/main") == before
    wait_for("PostgreSQL", lambda: psql(host, "SELECT NOT pg_is_in_recovery()") == ["t"], seconds=60)


def test_what_is_refused(play: Player, host: Host) -> None:
    # Sets and drills go on asking this site's repository.
    asked = host.run("sha256sum /opt/berth/restore/config/config.json /opt/berth/restore/pgbackrest/pgbackrest.conf")
    play(RESTORE, variables={"target": "main", "restore_path": "/elsewhere"}).expect_refusal(
        "there is no repository of files of this instance"
    )
    assert host.run("sha256sum /opt/berth/restore/config/config.json /opt/berth/restore/pgbackrest/pgbackrest.conf") == asked
    before = the.state(host)
    play(RESTORE, variables={"target": "main; rm -rf /", "confirm": "main; rm -rf /"}).expect_refusal(
        "nothing was changed", "target is one of main, staging"
    )
    small = "/run/berth-test-small"
    host.run(f"mkdir -p {small} && mount -t tmpfs -o size=32m tmpfs {small} && cp -a /opt/berth/restore {small}/home")
    try:
        config = json.loads(host.run("cat /opt/berth/restore/config/config.json"))
        host.run(f"cat > {small}/home/config/config.json", stdin=json.dumps({**config, "data_dir": f"{small}/data"}))
        found = json.loads(host.run(f"{PROGRAM} --config {small}/home/config/config.json plan --instance main"))
        assert "make room, or set restore_data_dir" in found["room_problem"], found
        host.run(f"cat > {small}/home/secrets/passphrase", stdin="another one")
        assert "the passphrase is not that of the repository" in refusal(
            host, "--config", f"{small}/home/config/config.json", "plan", "--instance=main"
        )
    finally:
        host.run(f"umount {small}")
    assert "no backup of the database is old enough" in refusal(host, "plan", "--instance=main", "--time=2020-01-01 00:00:00")
    assert "is none: expected such as" in refusal(host, "plan", "--instance=main", "--time=yesterday'; DROP TABLE x; --")
    assert "there is none of that name" in refusal(host, "plan", "--instance=main", "--set=00000000")
    assert "is not on this host" in refusal(host, "plan", "--instance=main", "--image=odoo:none")
    assert "did not end in what the repository offsite has" in refusal(host, "plan", "--instance=main", "--xid=2000000000")
    assert "expected such as 4711" in refusal(host, "plan", "--instance=main", "--xid=0x1'")
    assert "is not in odoo_instances" in refusal(host, "plan", "--instance=../../etc")
    assert "is no name of a copy" in refusal(host, "remove", "--name=../../etc")
    assert "the archive does not reach as far as that" in refusal(
        host, "up", "--instance=main", "--name=main", "--time=2099-01-01 00:00:00"
    )
    assert the.state(host) == before
