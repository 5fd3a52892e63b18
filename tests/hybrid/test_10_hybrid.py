# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance with a host of its own beside one that shares another: both converge, and both are backed up, restored, cloned and proven."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support import history as the
from ansible_collections.berth.odoo.tests.support.tenants import Tenant, psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player
    from ansible_collections.berth.odoo.tests.support.s3 import Store

pytestmark = pytest.mark.nightly

HOSTS = {"acme": "shared1", "initech": "initech1"}
"""Instances and the hosts that run them."""
NAMES = "SELECT DISTINCT name FROM res_partner WHERE name LIKE 'proof %' ORDER BY 1"


def clerk(lab: Lab, host: Host, instance: str) -> Tenant:
    """A client that has logged in."""
    client = Tenant(host.address, lab.ca, instance)
    client.wait_until_up()
    client.log_in("admin", host.variables["odoo_instance_secrets"][instance]["admin_password"])
    return client


def proofs(lab: Lab, instance: str) -> list[dict[str, Any]]:
    """What the host of an instance keeps of its drills."""
    return [
        json.loads(text)
        for text in lab.hosts[HOSTS[instance]].run("cd /var/lib/berth/evidence && cat restore-*.json").replace("}\n{", "}\0{").split("\0")
    ]


def test_it_converges(play: Player, store: Store) -> None:
    store.create(play)
    play("playbooks/site.yml").expect_success()


def test_the_second_run_changes_nothing(play: Player) -> None:
    assert play("playbooks/site.yml").expect_success().changed == []


def test_each_instance_is_where_it_belongs_and_served_from_there(lab: Lab, host: Host) -> None:
    for instance, name in HOSTS.items():
        projects = {container.partition("/")[0] for container in lab.hosts[name].containers()}
        assert {project for project in projects if project.startswith("odoo-")} == {f"odoo-{instance}"}
        assert lab.hosts[name].run("cd /etc/systemd/system/timers.target.wants && ls -d berth-set@*").split() == [
            f"berth-set@{instance}.timer"
        ]
        clerk(lab, host, instance).call("res.partner", "create", [{"name": f"proof of {instance}"}])


@pytest.mark.parametrize("instance", HOSTS)
def test_a_host_that_alone_runs_an_instance_is_not_drained(play: Player, instance: str) -> None:
    run = play("playbooks/drain.yml", variables={"target": HOSTS[instance]})
    run.expect_refusal(
        f"Nothing was changed. Of the hosts that get requests {HOSTS[instance]} alone runs {instance}: without it nobody would answer there"
    )
    assert run.changed == []


def test_each_host_makes_the_sets_of_its_own(play: Player, lab: Lab, host: Host) -> None:
    with the.hurry(host):
        play("playbooks/backup.yml").expect_success()
    for instance, name in HOSTS.items():
        assert lab.hosts[name].run("ls /var/lib/berth/backup/*/result.json").split() == [f"/var/lib/berth/backup/{instance}/result.json"]
        assert not json.loads(lab.hosts[name].run(f"cat /var/lib/berth/backup/{instance}/result.json"))["good"]["problems"]


def test_a_restore_is_made_on_the_host_of_the_instance(play: Player, lab: Lab, host: Host) -> None:
    play("playbooks/restore.yml", variables={"target": "nobody"}).expect_refusal("nothing was changed", "target is one of acme, initech")
    play("playbooks/restore.yml", variables={"target": "initech", "confirm": "initech"}).expect_success()
    copies = {name: one.run("docker ps -q --filter label=berth.restore").split() for name, one in lab.hosts.items() if name != "store1"}
    assert len(copies.pop("initech1")) == 2
    assert copies == {"front": [], "shared1": []}
    play("playbooks/restore.yml", variables={"target": "initech", "remove": True}).expect_success()
    # In its place, too.
    clerk(lab, host, "initech").call("res.partner", "create", [{"name": "proof that is newer"}])
    variables = {"target": "initech", "into": "place", "lose": "newer", "confirm": "initech"}
    play("playbooks/restore.yml", variables=variables).expect_success()
    assert psql(host, NAMES, "initech") == ["proof of initech"]
    play("playbooks/restore.yml", variables={"target": "initech", "forget": True, "confirm": "initech"}).expect_success()
    assert clerk(lab, host, "initech").call("res.partner", "search_count", [["name", "like", "proof "]]) > 0


def test_a_clone_crosses_from_one_host_to_the_other(play: Player, lab: Lab, host: Host) -> None:
    before = {name: one.identity for name, one in lab.hosts["initech1"].containers().items()}
    play("playbooks/clone.yml", variables={"source": "acme", "target": "initech", "confirm": "initech"}).expect_refusal(
        "production=overwrite"
    )
    play("playbooks/clone.yml", variables={"source": "initech", "target": "acme", "confirm": "acme"}).expect_success()
    assert psql(host, NAMES, "acme") == ["proof of initech"]
    assert psql(host, NAMES, "initech") == ["proof of initech"]
    assert {name: one.identity for name, one in lab.hosts["initech1"].containers().items()} == before
    assert clerk(lab, host, "acme").call("res.partner", "search_count", [["name", "=", "proof of initech"]]) > 0
    assert play("playbooks/site.yml").expect_success().changed == []


def test_each_host_proves_the_restores_of_its_own(play: Player, lab: Lab, host: Host) -> None:
    with the.hurry(host):
        play("playbooks/backup.yml").expect_success()
    play("playbooks/drill_restore.yml").expect_success()
    for instance in HOSTS:
        assert {(one["instance"], one["kept"]) for one in proofs(lab, instance)} == {(instance, True)}
    status = play("playbooks/status.yml").expect_success()
    for instance in HOSTS:
        assert f"Restore of {instance}: proven on" in status.text


def test_the_database_password_of_an_instance_that_one_host_runs_is_replaced(play: Player, lab: Lab, host: Host) -> None:
    variables = {"secrets_file": str(lab.directory / "inventory/group_vars/all/secrets.yml"), "rotate_instances": ["initech"]}
    run = play("playbooks/rotate_secrets.yml", variables=variables).expect_success()
    assert "The database passwords of initech are new" in run.text
    for instance in HOSTS:
        assert clerk(lab, host, instance).call("res.partner", "search_count", [["name", "like", "proof "]]) > 0
    assert play("playbooks/site.yml").expect_success().changed == []
