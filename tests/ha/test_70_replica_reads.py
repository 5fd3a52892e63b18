# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a standby: everybody sees what he has just written, and without a synchronous standby the primary answers. The last file, because it
leaves the cluster so."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, POSTGRESQL, cluster, leader, wait_until_fit
from ansible_collections.berth.odoo.tests.support.lab import wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

ROUNDS = 400
ON = {"odoo_replica_reads": True}


def ask(host: Host, question: str) -> str:
    """What a host's PostgreSQL answers to its superuser."""
    return host.run(f"docker exec -i $({POSTGRESQL}) psql -h /run/postgresql -U postgres -XAtq", stdin=question).strip()


def rounds(admin: Odoo, number: int) -> int:
    """Write and read again, and count what was not there. ``search_read`` is what Odoo declares as reading only."""
    [partner] = admin.call("res.partner", "search", [], limit=1)
    stale = 0
    for _ in range(number):
        text = uuid.uuid4().hex
        admin.call("res.partner", "write", [partner], {"ref": text})
        stale += admin.call("res.partner", "search_read", [["id", "=", partner]], ["ref"])[0]["ref"] != text
    return stale


def read_by_odoo(host: Host) -> int:
    """Transactions of the instance's database that a member has ended."""
    return int(ask(host, "SELECT pg_stat_clear_snapshot(), xact_commit FROM pg_stat_database WHERE datname = 'main'").split("|")[1])


def test_everybody_sees_what_he_has_written(lab: Lab, admin: Odoo, play: Player) -> None:
    play("playbooks/site.yml", "--tags", "database,app", variables=ON).expect_success()
    wait_until_fit(lab)

    def synchronous() -> str:
        return "".join(member["Member"] for member in cluster(lab) if member["Role"] == "Sync Standby")

    # Patroni takes up another synchronous_mode within its loop_wait.
    standby = wait_for("a standby that commits wait for by name", synchronous, seconds=60)
    [other] = set(MEMBERS) - {standby, leader(lab)}
    assert ask(lab.hosts[leader(lab)], "SHOW synchronous_commit") == "remote_apply"
    rounds(admin, 5)
    before = {name: read_by_odoo(lab.hosts[name]) for name in (standby, other)}
    stale = rounds(admin, ROUNDS)
    after = {name: read_by_odoo(lab.hosts[name]) for name in (standby, other)}
    read = {name: after[name] - before[name] for name in after}
    play.say(f"{stale} stale of {ROUNDS}; {standby}, which is synchronous, ended {read[standby]} transactions, {other} {read[other]}")
    assert stale == 0
    assert read[standby] >= ROUNDS, "the standby did not answer"
    assert read[other] < ROUNDS / 10, "a standby answered for which commits do not wait"


def test_without_a_standby_the_primary_answers(lab: Lab, admin: Odoo) -> None:
    standbys = [lab.hosts[name] for name in MEMBERS if name != leader(lab)]
    containers = {host.name: host.run(POSTGRESQL).strip() for host in standbys}
    for host in standbys:
        host.run(f"docker stop {containers[host.name]}", timeout=180)
    try:
        wait_for("an answer without a standby", lambda: rounds(admin, 1) == 0, seconds=60)
        assert rounds(admin, 20) == 0
    finally:
        for host in standbys:
            host.run(f"docker start {containers[host.name]}")
        wait_until_fit(lab)


def test_a_second_run_changes_nothing(play: Player) -> None:
    assert play("playbooks/site.yml", "--tags", "database,app", variables=ON).expect_success().changed == []
