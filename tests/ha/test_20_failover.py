# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database fails in ways that it must survive, with writers and users at work: nobody is logged out, nothing acknowledged is lost.

Each drill is the operator's own playbook. Seconds are judged against Patroni's timers alone; `make bench-failover` measures them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support import contract
from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, POSTGRESQL, drill, evidence, leader, wait_until_fit

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

USERS = 4
WEB_WORKERS = 2
UNKNOWN = "may have been saved or not"
QUICK = {"drill_warm_up_seconds": 2, "drill_seconds": 30, "drill_users": USERS}


def judge(record: dict[str, Any], before: str, *, crash: bool = False) -> dict[str, Any]:
    """What holds after every fault; returns what was measured.

    Args:
        record: the evidence.
        before: who led.
        crash: the primary died, and whoever was in the middle of a COMMIT is told that nobody knows whether it was saved. A web worker is in one
            at most. Everything else waits and is served again.
    """
    measured: dict[str, Any] = record["measured"]
    assert record["primary_before"] == before
    assert measured["lost_writes"] == 0
    assert measured["two_primaries"] == 0
    assert measured["logouts"] == 0, measured["complaints"]
    assert [words for words in measured["complaints"] if not (crash and UNKNOWN in words)] == []
    assert measured["failed_requests"] <= (WEB_WORKERS if crash else 0), measured["complaints"]
    assert measured["left_behind"] == []
    # The probe really did something.
    assert measured["writes"] > 200
    assert measured["requests"] > 10
    assert record["timers"]["ttl"] == 20
    return measured


def test_without_the_name_of_the_cluster_nothing_is_done(lab: Lab, host: Host, play: Player) -> None:
    before = host.state()
    play("playbooks/drill_failover.yml", variables={"drill_fault": "switchover"}).expect_refusal("To accept that, type: -e confirm=berth")
    assert host.state() == before


def test_a_mistyped_promise_is_found(play: Player) -> None:
    run = play("playbooks/drill_failover.yml", variables={"drill_fault": "switchover", "confirm": "berth", "objectives": {"lost_write": 0}})
    run.expect_refusal("objectives.lost_write", "lost_writes?")


def test_switchover(lab: Lab, play: Player) -> None:
    before = leader(lab)
    run, record = drill(play, "switchover", **QUICK)
    run.expect_success()
    assert record
    measured = judge(record, before)
    assert record["primary_after"] == leader(lab) != before
    # Nobody waits for a lease to end.
    assert measured["stall_s"] < record["timers"]["ttl"] - record["timers"]["loop_wait"]


def test_postgresql_killed(lab: Lab, play: Player) -> None:
    before = leader(lab)
    run, record = drill(play, "kill_postgresql", **QUICK)
    run.expect_success()
    assert record
    measured = judge(record, before, crash=True)
    assert measured["stall_s"] < record["timers"]["ttl"] - record["timers"]["loop_wait"]


def test_listeners_hear_again_after_a_failover(admin: Odoo, play: Player) -> None:
    """They lost their connections, and nobody else would notice. The kernel would after two minutes."""
    notification, action = contract.listeners(admin, within=110)
    play.say(f"notification {notification:.2f} s, triggered action {action:.2f} s")


@pytest.mark.nightly
def test_the_primary_is_cut_off_with_a_writer_on_its_side(lab: Lab, play: Player) -> None:
    before = leader(lab)
    run, record = drill(play, "partition_primary", **QUICK)
    run.expect_success()
    assert record
    measured = judge(record, before, crash=True)
    assert record["primary_after"] != before
    assert measured["write_errors"]["island"] > 0, "the writer on the side of the old primary was never refused"
    # The lease had to end, so it was a failover.
    assert measured["stall_s"] > record["timers"]["ttl"] / 4
    assert "BERTH-DRILL" not in lab.hosts[before].run("iptables -t raw -S")


def test_the_primary_loses_its_power(lab: Lab, host: Host, play: Player) -> None:
    before = leader(lab)
    run, record = drill(play, "power_off", **QUICK)
    run.expect_success()
    assert record
    measured = judge(record, before, crash=True)
    assert record["primary_after"] != before
    assert measured["stall_s"] > record["timers"]["ttl"] / 4
    wait_until_fit(lab)
    # The evidence is on every host that could be asked for it later.
    for name in (*MEMBERS, "app1"):
        assert record in evidence(lab.hosts[name]).values()


def test_nothing_of_the_drills_is_left(lab: Lab, host: Host) -> None:
    primary = lab.hosts[leader(lab)]
    psql = f"docker exec -i $({POSTGRESQL}) psql -h /run/postgresql -U postgres -d main -XAt"
    assert primary.run(psql, stdin="SELECT count(*) FROM pg_namespace WHERE nspname = 'berth_drill'").strip() == "0"
    assert primary.run(psql, stdin="SELECT count(*) FROM res_partner WHERE name LIKE 'berth_drill%'").strip() == "0"
    for name in (*MEMBERS, "app1"):
        assert lab.hosts[name].run("docker ps -aq --filter name=berth-drill").strip() == ""
        assert not lab.hosts[name].succeeds("find /opt/berth/berth-drill -type f | grep -q .")


def test_a_cluster_that_is_not_fit_is_refused(lab: Lab, play: Player) -> None:
    replica = lab.hosts[next(name for name in MEMBERS if name != leader(lab))]
    container = replica.run(POSTGRESQL).strip()
    replica.run(f"docker stop {container}", timeout=180)
    try:
        run, record = drill(play, "switchover", **QUICK)
        run.expect_refusal("the cluster is not fit for a drill", replica.name)
        assert record is None
    finally:
        replica.run(f"docker start {container}")
        wait_until_fit(lab)
