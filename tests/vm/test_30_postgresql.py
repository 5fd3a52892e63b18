# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL asks of a kernel: memory in huge pages, and a watchdog that resets a host whose Patroni hangs while it leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.lab import BOOT, wait_for
from ansible_collections.berth.odoo.tests.support.playbook import EMULATED
from ansible_collections.berth.odoo.tests.support.writers import sql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.playbook import Player

SAFE = {"ttl": 30, "margin": 5}
"""The role's plan `safe`."""

PSQL = "docker exec -i postgresql-postgresql-1 psql -X -q -h /run/postgresql -U postgres -d main"
PATRONI = "docker top postgresql-postgresql-1 -eo pid,args | awk '/[p]atroni/ {print $1}'"


def huge_pages(host: Host) -> dict[str, int]:
    """The kernel's counts."""
    lines = host.run("grep ^HugePages_ /proc/meminfo").splitlines()
    return {name.removeprefix("HugePages_"): int(value) for name, value in (line.split(":") for line in lines)}


def test_the_database_converges_and_the_second_run_changes_nothing(play: Player) -> None:
    """Nothing here is read-only: what a container may not set is set."""
    first = play("playbooks/site.yml", **EMULATED).expect_success()
    assert "(huge pages)" in first.output
    assert "set for the next boot only" not in first.text
    assert play("playbooks/site.yml", **EMULATED).expect_success().changed == []


@pytest.mark.nightly
def test_shared_memory_is_in_huge_pages_that_the_limit_does_not_count(host: Host) -> None:
    assert sql(host, "SHOW huge_pages_status") == "on"
    needed = int(sql(host, "SHOW shared_memory_size_in_huge_pages"))
    before = huge_pages(host)
    # As many as PostgreSQL wants, and little more.
    assert needed <= before["Total"] <= needed + 45
    assert before["Total"] - before["Free"] + before["Rsvd"] == needed
    sql(host, "CREATE UNLOGGED TABLE wide AS SELECT repeat('x', 1000) AS text FROM generate_series(1, 100000)")
    sql(host, "CREATE EXTENSION pg_prewarm; SELECT pg_prewarm('wide')")
    # 110 MB of buffers were filled. What the control group counts as shared memory does not hold them.
    assert before["Free"] - huge_pages(host)["Free"] > 45
    cgroup = host.run(
        "echo /sys/fs/cgroup$(cut -d: -f3 /proc/$(docker inspect -f '{{.State.Pid}}' postgresql-postgresql-1)/cgroup)"
    ).strip()
    counted = dict(line.split() for line in host.run(f"cat {cgroup}/memory.stat").splitlines())
    assert int(counted["shmem"]) < 32 << 20
    sql(host, "DROP TABLE wide; DROP EXTENSION pg_prewarm")


@pytest.mark.nightly
def test_the_container_has_the_watchdog_and_no_other_device(host: Host, play: Player) -> None:
    given = host.container("postgresql/postgresql").facts["HostConfig"]
    assert given["DeviceCgroupRules"] == ["c 10:130 w"]
    assert not given["Devices"] and not given["Privileged"]
    assert (
        host.run("docker exec postgresql-postgresql-1 stat -c '%n %t:%T %u %a' /dev/berth/watchdog").strip()
        == "/dev/berth/watchdog a:82 45432 600"
    )
    timeout = SAFE["ttl"] - SAFE["margin"]
    assert host.run("cat /sys/class/watchdog/watchdog0/{identity,state,timeout}").splitlines() == [
        "Software Watchdog",
        "active",
        str(timeout),
    ]
    status = play("playbooks/status.yml", **EMULATED).expect_success()
    assert f"Watchdog: Software Watchdog resets db1 when Patroni is silent for {timeout} s" in status.text


@pytest.mark.nightly
def test_a_leader_whose_patroni_hangs_is_reset_before_its_lease_ends_and_comes_back(host: Host, play: Player) -> None:
    """PostgreSQL itself is well and takes writes, so that nothing but the watchdog could end it."""
    sql(host, "CREATE TABLE written (at timestamptz)")
    host.run("cat > /root/write.sql", stdin="INSERT INTO written VALUES (clock_timestamp()) \\watch 0.2\n")
    host.run(f"systemd-run --quiet --unit=berth-test-writer sh -c '{PSQL} < /root/write.sql'")
    wait_for("a write", lambda: sql(host, "SELECT count(*) FROM written") != "0", seconds=60)
    before = host.boot_id()
    hung = float(host.run(f"kill -STOP $({PATRONI}); date +%s.%N"))
    host.wait_for_boot(before)
    host.wait_until_healthy(seconds=BOOT)
    wait_for("a leader", lambda: sql(host, "SELECT pg_is_in_recovery()") == "f", seconds=BOOT, interval=2)
    last = float(sql(host, "SELECT extract(epoch FROM max(at)) FROM written"))
    # It went on while Patroni hung, and nothing was written when the lease, renewed before that, had ended.
    assert 1 < last - hung < SAFE["ttl"]
    assert sql(host, "SHOW huge_pages_status") == "on"
    # The watchdog is there again, and held.
    wait_for("a held watchdog", lambda: host.run("cat /sys/class/watchdog/watchdog0/state").strip() == "active", seconds=BOOT, interval=2)
    play("playbooks/status.yml", **EMULATED).expect_success()
