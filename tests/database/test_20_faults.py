# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What else happens to a database: full disks, bad pages, foreign data, dead certificates. Nothing acknowledged is lost, and status.yml has the words."""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, cluster, leader, wait_until_fit
from ansible_collections.berth.odoo.tests.support.lab import CommandFailed, wait_for
from ansible_collections.berth.odoo.tests.support.writers import PSQL, primary, sql, writers

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

ALL = list(MEMBERS)
CONTAINER = "postgresql-postgresql-1"
DATA = "/var/lib/berth/postgresql"
PGDATA = f"{DATA}/17"
# As in test_10_membership.py.
HANDOVER = 45
# The lease of 20 s, and a crash that PostgreSQL has to notice before it.
FAILOVER = 30


def replica(lab: Lab) -> Host:
    """A member that does not lead."""
    return lab.hosts[max(name for name in ALL if name != leader(lab))]


@contextlib.contextmanager
def stopped(host: Host) -> Generator[None]:
    """The host's PostgreSQL is down meanwhile."""
    host.run(f"docker stop {CONTAINER}", timeout=180)
    try:
        yield
    finally:
        host.run(f"docker start {CONTAINER}")


def wal_megabytes(host: Host) -> int:
    """How much WAL a server keeps."""
    return int(sql(host, "SELECT sum(size) / 1024 / 1024 FROM pg_ls_waldir()").partition(".")[0])


def test_a_replica_that_is_away_for_too_long_costs_bounded_space_and_is_named(lab: Lab, play: Player) -> None:
    wait_until_fit(lab)
    away = replica(lab)
    with stopped(away), writers(lab, [name for name in ALL if name != away.name]) as audit:
        first = primary(lab, ALL)
        # 600 MB of WAL; a slot may keep 64. Each part waits for the other replica, whose slot may not be lost on a busy machine.
        for _turn in range(20):
            sql(
                first,
                "SELECT count(pg_logical_emit_message(true, 'berth', repeat(md5(i::text), 31250))) FROM generate_series(1, 30) i; CHECKPOINT",
            )
        wait_for(
            "the slot's end",
            lambda: f"{away.name}|lost" in sql(first, "SELECT slot_name, wal_status FROM pg_replication_slots").splitlines(),
            seconds=30,
        )
        assert wal_megabytes(first) < 300
        play("playbooks/status.yml").expect_refusal(f"{away.name}: postgresql/postgresql is exited")
    assert audit.lost == []
    # It cannot follow any more, and says so with what to type.
    words = f"berth.odoo.reinit_replica -e target={away.name} -e confirm={away.name}"
    wait_for("its return", lambda: len(cluster(lab)) == 3, seconds=60, interval=1)
    play("playbooks/status.yml").expect_refusal(words)
    play("playbooks/reinit_replica.yml", variables={"target": away.name, "confirm": away.name}).expect_success()
    wait_until_fit(lab)
    play("playbooks/status.yml").expect_success()


def test_damaged_pages_are_seen_and_a_copy_heals_them(lab: Lab, play: Player) -> None:
    ill = replica(lab)
    file = f"{PGDATA}/" + sql(ill, "SELECT pg_relation_filepath('kept')")
    with stopped(ill):
        # 64 bytes in the middle of the fourth page.
        ill.run(f"head -c 64 /dev/urandom | dd of={file} bs=1 seek=$((3 * 8192 + 4096)) conv=notrunc status=none")
    wait_until_fit(lab)
    refusal = ill.run(f"{PSQL} 2>&1 || true", stdin="SELECT count(*) FROM kept")
    assert "invalid page in block 3" in refusal
    # The counters are written when a session has ended.
    wait_for("the count", lambda: sql(ill, "SELECT sum(checksum_failures) FROM pg_stat_database") not in ("", "0"), seconds=30)
    play("playbooks/status.yml").expect_refusal(
        f"{ill.name} read damaged pages in main", f"berth.odoo.reinit_replica -e target={ill.name} -e confirm={ill.name}"
    )
    play("playbooks/reinit_replica.yml", variables={"target": ill.name, "confirm": ill.name}).expect_success()
    assert sql(ill, "SELECT count(*) FROM kept") == "50000"
    wait_until_fit(lab)
    play("playbooks/status.yml").expect_success()


def test_a_copy_that_takes_long_is_not_begun_again(lab: Lab, play: Player) -> None:
    wait_until_fit(lab)
    empty = replica(lab)
    empty.run(f"docker rm --force {CONTAINER} && rm -rf {PGDATA}", timeout=120)
    slow = {"postgresql_extra_settings": {"postgresql": {"basebackup": [{"checkpoint": "fast"}, {"max-rate": "150k"}]}}}

    def copying() -> bool:
        return empty.succeeds("pgrep -x pg_basebackup >&2") and empty.container("postgresql/postgresql").healthy

    assert play("playbooks/site.yml", "--tags", "database", variables=slow, kill_when=copying).code < 0
    before = empty.container("postgresql/postgresql").identity
    assert copying()
    run = play("playbooks/site.yml", "--tags", "database", variables=slow).expect_success()
    assert re.search(
        rf"FAILED - RETRYING: \[{empty.name}\]: \S* ?:? ?Converge the cluster's configuration, once the member has its data", run.text
    )
    assert empty.container("postgresql/postgresql").identity == before
    wait_until_fit(lab)
    assert sql(empty, "SELECT count(*) FROM kept") == "50000"
    play("playbooks/site.yml", "--tags", "database").expect_success()


def test_data_of_another_cluster_is_refused_and_left_alone(lab: Lab, play: Player) -> None:
    misled = replica(lab)
    image = misled.container("postgresql/postgresql").facts["Image"]
    initdb = f"docker run --rm --network none -v {DATA}:/var/lib/postgresql --entrypoint initdb {image} -D /var/lib/postgresql/17 --data-checksums"
    with stopped(misled):
        misled.run(f"mv {PGDATA} {DATA}/own && {initdb}", timeout=120)
        before = misled.run(f"sha256sum {PGDATA}/global/pg_control {PGDATA}/PG_VERSION; ls -lR {PGDATA} | sha256sum")
    try:
        wait_for(
            "its refusal", lambda: "different cluster" in misled.run(f"docker logs --tail 20 {CONTAINER} 2>&1"), seconds=60, interval=1
        )
        play("playbooks/status.yml").expect_refusal(f"{misled.name}: postgresql/postgresql is ", "belongs to a different cluster")
        assert misled.run(f"sha256sum {PGDATA}/global/pg_control {PGDATA}/PG_VERSION; ls -lR {PGDATA} | sha256sum") == before
    finally:
        misled.run(f"docker stop {CONTAINER}; rm -rf {PGDATA}; mv {DATA}/own {PGDATA}; docker start {CONTAINER}", timeout=180)
    wait_until_fit(lab)


def test_a_full_disk_loses_nothing_and_somebody_else_goes_on(lab: Lab, play: Player) -> None:
    """The data and its WAL are on one small file system, on the member that leads."""
    wait_until_fit(lab)
    full = replica(lab)
    with stopped(full):
        full.run(f"mv {DATA} {DATA}.big && mkdir {DATA} && mount -t tmpfs -o size=400m,mode=0700,uid=45432,gid=45432 tmpfs {DATA}")
        full.run(f"cp -a {DATA}.big/. {DATA}/", timeout=120)
    try:
        wait_until_fit(lab)
        play("playbooks/switchover.yml", variables={"target": full.name}).expect_success()
        wait_until_fit(lab)
        with writers(lab, ALL) as audit:
            full.run(
                f"dd if=/dev/zero of={DATA}/ballast bs=1M status=none; test $(df --output=avail {DATA} | tail -1) -lt 1024", check=False
            )
            assert int(full.run(f"df --output=avail {DATA} | tail -1")) < 1024
            play("playbooks/status.yml").expect_refusal(f"{full.name}: the file system of {DATA} is 100 % full")
            # Its own WAL needs the next file soon.
            with contextlib.suppress(AssertionError, OSError):
                sql(
                    full, "SELECT count(pg_logical_emit_message(true, 'berth', repeat(md5(i::text), 31250))) FROM generate_series(1, 200) i"
                )
            wait_for("another primary", lambda: leader(lab) != full.name, seconds=FAILOVER, interval=1)
            # It cannot even be rewound, and what that leaves behind can follow nobody.
            logs = f"docker logs --since 5m {CONTAINER} 2>&1"
            wait_for("the end of its rewind", lambda: "Failed to rewind" in full.run(logs), seconds=60, interval=1)
            assert "No space left on device" in full.run(logs)
            full.run(f"rm {DATA}/ballast")
        assert audit.lost == []
        assert audit.gap < FAILOVER
        again = f"berth.odoo.reinit_replica -e target={full.name} -e confirm={full.name}"
        play("playbooks/status.yml").expect_refusal(again)
        play("playbooks/reinit_replica.yml", variables={"target": full.name, "confirm": full.name}).expect_success()
        wait_until_fit(lab)
    finally:
        full.run(f"docker stop {CONTAINER}", timeout=180)
        # What it has now: what it had before is too old to follow.
        full.run(
            f"rm -rf {DATA}/ballast {DATA}.big && cp -a {DATA} {DATA}.big && umount {DATA} && rmdir {DATA} && mv {DATA}.big {DATA}",
            timeout=120,
        )
        full.run(f"docker start {CONTAINER}")
    wait_until_fit(lab)


def test_an_archive_command_that_hangs_does_not_hold_up_a_switchover(lab: Lab, play: Player) -> None:
    """The inventory of these tests has one that waits as long as a file is there."""
    old = lab.hosts[leader(lab)]
    hang = f"docker exec {CONTAINER} touch /tmp/berth-hang"
    for name in ALL:
        lab.hosts[name].run(hang)
    timeout = f"docker exec {CONTAINER} patronictl edit-config --quiet --force --set primary_stop_timeout="
    assert "primary_stop_timeout: 100" in old.run(f"docker exec {CONTAINER} patronictl show-config")
    old.run(f"{timeout}15")
    try:
        sql(old, "SELECT pg_switch_wal(); CREATE TABLE IF NOT EXISTS filler AS SELECT 1; SELECT pg_switch_wal()")
        ready = f"{PGDATA}/pg_wal/archive_status/*.ready"
        wait_for("WAL that waits", lambda: old.succeeds(f"ls {ready} >/dev/null 2>&1"), seconds=30)
        old.run(f"touch -d '-10 minutes' {ready}")
        play("playbooks/status.yml").expect_refusal(f"WAL files of {old.name} wait for archive_command, the oldest for 10 minutes")
        with writers(lab, ALL) as audit:
            run = play("playbooks/switchover.yml")
        assert audit.gap < HANDOVER
        assert audit.lost == []
        run.expect_success()
        assert leader(lab) != old.name
    finally:
        old.run(f"{timeout}100")
        for name in ALL:
            lab.hosts[name].run(f"docker exec {CONTAINER} rm -f /tmp/berth-hang")
    wait_until_fit(lab)
    first = lab.hosts[leader(lab)]
    wait_for("an archive without backlog", lambda: not first.succeeds(f"ls {ready} >/dev/null 2>&1"), seconds=60, interval=1)


def test_dead_certificates_and_wrong_clocks_are_named_and_the_next_run_renews(lab: Lab, play: Player) -> None:
    ill = replica(lab)
    pair, now = ill.variables["platform_authority"], int(time.time())
    authority = _authority.load(pair["certificate"], pair["key"], now)
    names = ["postgresql", "postgresql-primary", "localhost", "127.0.0.1", ill.name]
    for project, issued_at, also in (("postgresql", now - 3 * 86400, names), ("etcd", now + 86400, [ill.name])):
        leaf = _authority.issue(authority, ill.name, also, 1, issued_at)
        tls = f"/opt/berth/{project}/tls"
        ill.run(f"cat > {tls}/tls.crt", stdin=leaf.certificate)
        ill.run(f"cat > {tls}/tls.key", stdin=leaf.key)
    # What a member does by itself whenever its PostgreSQL starts.
    ill.run(f"docker exec {CONTAINER} sh -c 'kill -HUP 1'")
    wait_for("the expired certificate in use", lambda: not answers(lab, ill), seconds=30, interval=1)
    play("playbooks/status.yml").expect_refusal(
        f"{ill.name}: certificate of postgresql expired 2 days ago; run ansible-playbook -i <inventory> berth.odoo.site, which renews it",
        f"{ill.name}: certificate of etcd is valid from",
        "a clock is wrong",
        f"{ill.name} does not answer",
    )
    play("playbooks/site.yml", "--tags", "database").expect_success()
    wait_until_fit(lab)
    play("playbooks/status.yml").expect_success()


def answers(lab: Lab, member: Host) -> bool:
    """Whether the others still believe who a member is."""
    [other] = [lab.hosts[name] for name in ALL if name != member.name][:1]
    ask = f"curl -s --max-time 5 --cacert /opt/berth/postgresql/tls/ca.crt --resolve postgresql:8008:{member.address} https://postgresql:8008/health"
    return other.succeeds(f"{ask} -o /dev/null")


def test_a_member_with_fewer_connections_than_the_others_cannot_be(lab: Lab, play: Player, tmp_path: Path) -> None:
    odd = replica(lab)
    file = tmp_path / "odd.yml"
    file.write_text(f"all: {{hosts: {{{odd.name}: {{postgresql_max_connections: 40}}}}}}\n", encoding="utf-8")
    before = odd.state()
    play("playbooks/site.yml", inventories=(*lab.inventories, file)).expect_refusal(
        "postgresql_max_connections", "different values: 25, 40", "a standby refuses a lower one"
    )
    assert odd.state() == before
    # By hand, behind the platform's back: Patroni starts PostgreSQL with what all have.
    sql(odd, "ALTER SYSTEM SET max_connections = 20")
    try:
        odd.run(f"docker exec {CONTAINER} patronictl restart --force berth {shlex.quote(odd.name)}", timeout=120)
        wait_until_fit(lab)
        assert sql(odd, "SHOW max_connections") == "25"
    finally:
        with contextlib.suppress(CommandFailed):
            sql(odd, "ALTER SYSTEM RESET max_connections")
