# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a cluster: one database host grows to three while somebody writes, loses one, gets another one, and is interrupted everywhere."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, cluster, leader, wait_until_fit
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, CommandFailed, ansible, docker, environment, wait_for
from ansible_collections.berth.odoo.tests.support.writers import primary, sql, writers

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

ALL = list(MEMBERS)
PGDATA = "/var/lib/berth/postgresql/17"
# What nobody waits for, whatever the machine does: longer than Patroni's timers, shorter than anything that stays broken.
HANDOVER = 45


def voters(host: Host) -> dict[str, bool]:
    """The members of etcd by name, and whether they have a vote."""
    listing = json.loads(host.run("docker exec etcd-etcd-1 etcdctl member list --write-out=json"))
    return {member["name"]: not member.get("isLearner") for member in listing["members"]}


def rows(lab: Lab) -> str:
    """A digest of what was there from the beginning, from whoever leads."""
    return sql(primary(lab, ALL), "SELECT count(*), md5(string_agg(text, ',' ORDER BY id)) FROM kept")


def test_one_host_is_a_database_also_when_its_first_run_is_interrupted(lab: Lab, host: Host, play: Player) -> None:
    one = (REPOSITORY / "tests/database/inventory/one.yml", *lab.inventories[1:])
    # Its data is being made.
    assert play("playbooks/site.yml", inventories=one, kill_when=lambda: host.succeeds(f"test -e {PGDATA}")).code < 0
    play("playbooks/site.yml", inventories=one).expect_success()
    sql(host, "CREATE TABLE kept AS SELECT id, md5(id::text) AS text FROM generate_series(1, 50000) id")
    assert sql(host, "SHOW max_connections") == "25"


def test_it_grows_to_three_while_somebody_writes_also_when_that_is_interrupted(lab: Lab, host: Host, play: Player) -> None:
    before = rows(lab)
    with writers(lab, ALL) as audit:
        # db2 was announced to etcd and has not started; then its PostgreSQL is being copied.
        assert play("playbooks/site.yml", kill_at="join_etcd | Start the member").code < 0
        assert play("playbooks/site.yml", kill_when=lambda: lab.hosts["db2"].succeeds(f"test -e {PGDATA}")).code < 0
        play("playbooks/site.yml").expect_success()
        wait_until_fit(lab)
    assert audit.lost == []
    assert audit.acknowledged > 200
    assert audit.gap < HANDOVER
    assert rows(lab) == before
    assert voters(host) == dict.fromkeys(MEMBERS, True)


def test_the_second_run_changes_nothing(play: Player) -> None:
    assert play("playbooks/site.yml").expect_success().changed == []
    status = play("playbooks/status.yml").expect_success()
    # Their kernel is that of the machine below.
    assert "Watchdog: none on db1, db2, db3;" in status.text


def test_a_rolling_restart_that_is_interrupted_continues(lab: Lab, play: Player) -> None:
    def started() -> dict[str, str]:
        return {name: sql(lab.hosts[name], "SELECT extract(epoch FROM pg_postmaster_start_time())") for name in ALL}

    before, first = started(), leader(lab)
    replicas = [name for name in ALL if name != first]

    def begun() -> bool:
        try:
            return sql(lab.hosts[replicas[0]], "SELECT extract(epoch FROM pg_postmaster_start_time())") != before[replicas[0]]
        except CommandFailed:  # it is down
            return True

    with writers(lab, ALL) as audit:
        # The controller is lost as soon as the first replica has begun to restart.
        killed = play(
            "playbooks/restart_rolling.yml",
            variables={"restart_all": True},
            kill_when=begun,
        )
        assert killed.code < 0
        [words] = re.findall(r"restart_running_since=([0-9T:.+-]+)", killed.text)
        wait_until_fit(lab)
        between = started()
        assert between[first] == before[first]
        play("playbooks/restart_rolling.yml", variables={"restart_all": True, "restart_running_since": words}).expect_success()
    after = started()
    assert all(after[name] > before[name] for name in ALL)
    assert after[replicas[0]] == between[replicas[0]], "who was restarted before the interruption was not restarted again"
    assert audit.lost == []
    assert audit.gap < HANDOVER


def test_who_is_needed_is_not_removed(lab: Lab, host: Host, play: Player) -> None:
    wait_until_fit(lab)
    first = leader(lab)
    second, third = [name for name in ALL if name != first]
    play("playbooks/remove_member.yml").expect_refusal("target is not set")
    play("playbooks/remove_member.yml", variables={"target": first, "confirm": first}).expect_refusal(
        f"nothing was changed: {first} leads berth", "berth.odoo.switchover"
    )
    play("playbooks/remove_member.yml", variables={"target": third}).expect_refusal(f"confirm={third}")
    replica = lab.hosts[second]
    replica.run("docker stop postgresql-postgresql-1", timeout=180)
    try:
        wait_for("the end of its membership", lambda: len(cluster(lab)) < 3 or "stopped" in str(cluster(lab)), seconds=60, interval=1)
        play("playbooks/remove_member.yml", variables={"target": third, "confirm": third}).expect_refusal(
            "nothing was changed", f"without {third} nobody could take over"
        )
    finally:
        replica.run("docker start postgresql-postgresql-1")
    wait_until_fit(lab)
    assert voters(host) == dict.fromkeys(MEMBERS, True)


def test_a_member_is_removed_with_all_that_the_others_kept_for_it(lab: Lab, play: Player) -> None:
    first = leader(lab)
    target = max(name for name in ALL if name != first)
    with writers(lab, ALL) as audit:
        play("playbooks/remove_member.yml", variables={"target": target, "confirm": target}).expect_success()
    assert audit.lost == []
    assert audit.gap < HANDOVER
    left = [name for name in ALL if name != target]
    assert voters(lab.hosts[first]) == dict.fromkeys(left, True)
    assert sorted(member["Member"] for member in cluster(lab)) == left

    def slots() -> list[str]:
        return [sql(lab.hosts[name], "SELECT slot_name FROM pg_replication_slots") for name in left]

    wait_for("the end of its slots", lambda: not any(target in names for names in slots()), seconds=30, interval=1)
    assert lab.hosts[target].run("docker ps -aq").strip() == ""
    assert "30min" in lab.hosts[first].run("docker exec postgresql-postgresql-1 patronictl show-config")
    again = play("playbooks/remove_member.yml", variables={"target": target, "confirm": target}).expect_success()
    assert again.changed == []
    # It comes back with the data that it had.
    play("playbooks/site.yml", "--tags", "database").expect_success()
    wait_until_fit(lab)
    assert voters(lab.hosts[first]) == dict.fromkeys(MEMBERS, True)


@pytest.mark.nightly
def test_a_machine_that_is_lost_is_replaced_by_a_blank_one_of_its_name(lab: Lab, play: Player) -> None:
    before, first = rows(lab), leader(lab)
    lost = min(name for name in ALL if name != first)
    left = [name for name in ALL if name != lost]
    docker("rm", "--force", "--volumes", str(lab.hosts[lost].variables["lab_container"]))
    with writers(lab, left) as audit:
        scenario = yaml.safe_load((REPOSITORY / "molecule/database/molecule.yml").read_text(encoding="utf-8"))
        make = json.dumps({"lab_name": lab.name, "lab_vms": scenario["platforms"]})
        subprocess.run(
            [*ansible("ansible-playbook"), "molecule/shared/create.yml", "-e", make], cwd=REPOSITORY, env=environment(), check=True
        )
        play("playbooks/site.yml").expect_success()
        wait_until_fit(lab)
    assert audit.lost == []
    assert audit.gap < HANDOVER
    assert rows(lab) == before
    assert voters(lab.hosts[first]) == dict.fromkeys(MEMBERS, True)
