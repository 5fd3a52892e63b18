# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of the database on three members: hand over, restart for new parameters, copy a replica anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.lab import wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

MEMBERS = ("db1", "db2", "db3")


def patronictl(lab: Lab, arguments: str, host: str = "db1") -> str:
    """Run patronictl on a database host."""
    return lab.hosts[host].run(f"docker exec postgresql-postgresql-1 patronictl {arguments}")


def listing(lab: Lab) -> dict[str, dict[str, Any]]:
    """The members by name, as patronictl has them."""
    return {member["Member"]: member for member in json.loads(patronictl(lab, "list --format json"))}


def leader(lab: Lab) -> str:
    """Who leads."""
    [name] = [name for name, member in listing(lab).items() if member["Role"] == "Leader"]
    return name


def asked(lab: Lab, question: str) -> dict[str, str]:
    """What each member's PostgreSQL answers."""
    command = f'docker exec postgresql-postgresql-1 psql -U postgres -Atc "{question}"'
    return {name: lab.hosts[name].run(command).strip() for name in MEMBERS}


def started(lab: Lab) -> dict[str, str]:
    """When each member's PostgreSQL started."""
    return asked(lab, "SELECT pg_postmaster_start_time()")


def fit(lab: Lab) -> bool:
    """Whether two standbys stream and confirm commits."""
    return sorted(f"{member['Role']} {member['State']}" for member in listing(lab).values()) == [
        "Leader running",
        "Quorum Standby streaming",
        "Quorum Standby streaming",
    ]


def configure(lab: Lab, connections: int) -> None:
    """Give all members another max_connections, and wait until they know that it needs a restart."""
    patronictl(lab, f"edit-config --quiet --force --pg max_connections={connections}")
    wait_for("restart pending", lambda: all(member.get("Pending restart") for member in listing(lab).values()), seconds=60, interval=1)


def test_the_leading_role_goes_where_it_is_told(lab: Lab, play: Player) -> None:
    wait_for("two standbys that confirm", lambda: fit(lab), seconds=120, interval=1)
    old = leader(lab)
    target = next(name for name in MEMBERS if name != old)
    assert f"{target} would lead" in play("playbooks/switchover.yml", "--check", variables={"target": target}).expect_success().text
    assert leader(lab) == old
    run = play("playbooks/switchover.yml", variables={"target": target}).expect_success()
    assert f"- {target} leads after " in run.text
    assert leader(lab) == target
    assert asked(lab, "SELECT pg_is_in_recovery()") == {name: "f" if name == target else "t" for name in MEMBERS}
    again = play("playbooks/switchover.yml", variables={"target": target}).expect_success()
    assert again.changed == []
    assert f"- {target} led already" in again.text


def test_a_switchover_that_cannot_work_changes_nothing(lab: Lab, play: Player) -> None:
    old = leader(lab)
    play("playbooks/switchover.yml", variables={"target": "db9"}).expect_refusal("nothing was changed: db9 is no member of berth")
    patronictl(lab, "pause --wait")
    try:
        play("playbooks/switchover.yml").expect_refusal("berth is paused", "patronictl resume --wait berth")
    finally:
        patronictl(lab, "resume --wait")
    assert leader(lab) == old


@pytest.mark.nightly
def test_raised_parameters_cost_one_switchover(lab: Lab, play: Player) -> None:
    wait_for("two standbys that confirm", lambda: fit(lab), seconds=60, interval=1)
    old, before = leader(lab), started(lab)
    connections = int(asked(lab, "SHOW max_connections")[old])
    configure(lab, connections + 7)
    play("playbooks/restart_rolling.yml").expect_success()
    assert set(asked(lab, "SHOW max_connections").values()) == {str(connections + 7)}
    assert leader(lab) != old
    after = started(lab)
    assert all(after[name] > before[name] for name in MEMBERS)
    assert play("playbooks/restart_rolling.yml").expect_success().changed == []
    assert started(lab) == after


@pytest.mark.nightly
def test_lowered_parameters_need_the_leader_in_its_place_and_a_word(lab: Lab, play: Player) -> None:
    wait_for("two standbys that confirm", lambda: fit(lab), seconds=60, interval=1)
    old, before = leader(lab), started(lab)
    connections = int(asked(lab, "SHOW max_connections")[old])
    configure(lab, connections - 7)
    play("playbooks/restart_rolling.yml").expect_refusal(
        f"{old} has to be restarted in its place", "max_connections", "type: -e confirm=berth"
    )
    assert started(lab) == before, "refused before the first restart"
    play("playbooks/restart_rolling.yml", variables={"confirm": "berth"}).expect_success()
    assert set(asked(lab, "SHOW max_connections").values()) == {str(connections - 7)}
    assert leader(lab) == old


def test_a_replica_is_copied_anew(lab: Lab, play: Player) -> None:
    wait_for("two standbys that confirm", lambda: fit(lab), seconds=60, interval=1)
    first = leader(lab)
    target = next(name for name in MEMBERS if name != first)
    play("playbooks/reinit_replica.yml", variables={"target": first, "confirm": first}).expect_refusal(f"{first} leads berth")
    play("playbooks/reinit_replica.yml", variables={"target": target}).expect_refusal(f"confirm={target}")
    # What a copy does not have, and a restart would keep.
    mark = "/var/lib/postgresql/17/berth-mark"
    lab.hosts[target].run(f"docker exec postgresql-postgresql-1 touch {mark}")
    play("playbooks/reinit_replica.yml", variables={"target": target, "confirm": target}).expect_success()
    assert not lab.hosts[target].succeeds(f"docker exec postgresql-postgresql-1 test -e {mark}")
    # Itself, and not the list, into which a member writes every few seconds.
    receiver = "docker exec postgresql-postgresql-1 psql -U postgres -XAtc 'SELECT status FROM pg_stat_wal_receiver'"
    assert lab.hosts[target].run(receiver).strip() == "streaming"
    wait_for("two standbys that confirm", lambda: fit(lab), seconds=60, interval=1)


@pytest.mark.nightly
def test_a_role_changes_where_the_leading_role_went_in_the_same_run(lab: Lab, play: Player) -> None:
    """When all members are made anew each of them was a standby in its turn."""
    main = lab.hosts["db1"].variables["odoo_instances"]["main"]
    analyst = {**main["analyst"], "connections": main["analyst"]["connections"] + 1}
    anew = {"services": {"postgresql": {"labels": {"berth.test": "anew"}}}}
    variables = {"odoo_instances": {"main": {**main, "analyst": analyst}}, "postgresql_compose_override": anew}
    try:
        run = play("playbooks/site.yml", "--tags", "database", variables=variables).expect_success()
        changed = [task.play for task in run.tasks if task.changed and task.action == "berth.odoo.postgresql_databases"]
        assert changed == ["Converge what whoever led before did not"]
    finally:
        play("playbooks/site.yml", "--tags", "database").expect_success()
    assert play("playbooks/site.yml", "--tags", "database").expect_success().changed == []
