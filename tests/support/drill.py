# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills on a lab with several database hosts, and what they leave as evidence."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, wait_for
from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

CLUSTER = "berth"
EVIDENCE = "/var/lib/berth/evidence"
MEMBERS = ("db1", "db2", "db3")
POSTGRESQL = "docker ps -q --filter label=com.docker.compose.project=postgresql --filter label=com.docker.compose.service=postgresql"


def failover_lab(name: str) -> Lab:
    """A lab of inventories/ha with the settings of the failover tests."""
    return Lab(name, (REPOSITORY / "inventories/ha", REPOSITORY / ".cache/lab" / name / "inventory", REPOSITORY / "tests/ha/inventory"))


def cluster(lab: Lab) -> list[dict[str, Any]]:
    """The members as Patroni lists them, from whichever host answers."""
    failure: Exception | None = None
    for name in MEMBERS:
        try:
            found: list[dict[str, Any]] = json.loads(lab.hosts[name].run(f"docker exec $({POSTGRESQL}) patronictl list --format json"))
            return found
        except (AssertionError, OSError, ValueError) as error:
            failure = error
    raise AssertionError(f"no member says how the cluster is: {failure}")


def leader(lab: Lab) -> str:
    """Name of the member that leads; AssertionError while none does, so that it can be waited for."""
    members = cluster(lab)
    found = [str(member["Member"]) for member in members if member["Role"] == "Leader"]
    assert len(found) == 1, members
    return found[0]


def wait_until_fit(lab: Lab, seconds: float = 180) -> None:
    """Wait until every member is there, and each that follows may confirm commits: one that came back does so some seconds after it streams."""

    def probe() -> bool:
        members = cluster(lab)
        states = sorted((member["Role"] == "Leader", member["State"]) for member in members)
        assert states == [(False, "streaming"), (False, "streaming"), (True, "running")], members
        # Of a quorum both may; where commits wait for one by name, one.
        roles = sorted(member["Role"] for member in members if member["Role"] != "Leader")
        assert roles in (["Quorum Standby", "Quorum Standby"], ["Replica", "Sync Standby"]), members
        return True

    wait_for("a fit cluster", probe, seconds=seconds, interval=1)


def evidence(host: Host) -> dict[str, dict[str, Any]]:
    """Every record of a drill on a host by the name of its file."""
    names = host.run(f"ls {EVIDENCE} 2>/dev/null || true").split()
    return {name: json.loads(host.run(f"cat {EVIDENCE}/{name}")) for name in names}


def with_other_images(play: Player, refresh: str) -> Player:
    """Build the images of the database with the packages of now; another ``refresh`` gives others with the same content.

    Returns:
        What runs playbooks that put them on the hosts. All other runs, also those of other labs at the same time, go on with the images
        that every lab begins with.
    """
    archives, inventory = play.lab.directory / "images", play.lab.directory / "other-images"
    if not archives.exists():
        # The archives are never written to, the manifest is replaced.
        shutil.copytree(REPOSITORY / ".cache/images", archives, copy_function=os.link)
    # The lab says it in the group_vars of its inventory, which no variable of a plain inventory file replaces.
    (inventory / "group_vars").mkdir(parents=True, exist_ok=True)
    (inventory / "hosts.json").write_text(json.dumps({"all": {}}), encoding="utf-8")
    (inventory / "group_vars/all.json").write_text(json.dumps({"images_archive_dir": str(archives)}), encoding="utf-8")
    lab = Lab(play.lab.name, (*play.lab.inventories, inventory))
    assert lab.hosts[MEMBERS[0]].variables["images_archive_dir"] == str(archives)
    other = Player(lab, play.say)
    variables = {"images_names": ["postgresql", "etcd"], "images_refresh": refresh, "build_host": "localhost"}
    other("playbooks/images.yml", variables=variables).expect_success()
    return other


def drill(play: Player, fault: str, **variables: Any) -> tuple[Run, dict[str, Any] | None]:
    """Run playbooks/drill_failover.yml; return the run and its evidence, None when it came to none."""
    host = play.lab.hosts["app1"]
    before = set(host.run(f"ls {EVIDENCE} 2>/dev/null || true").split())
    # Faults that are playbooks themselves are given the vault's password as configuration.
    settings = {"ANSIBLE_VAULT_PASSWORD_FILE": str(play.lab.vault_password_file)}
    run = play("playbooks/drill_failover.yml", variables={"drill_fault": fault, "confirm": CLUSTER, **variables}, settings=settings)
    new = {name: record for name, record in evidence(host).items() if name not in before}
    return run, next(iter(new.values()), None)


def expect_unnoticed(record: dict[str, Any] | None) -> None:
    """Fail unless a drill of something planned left its evidence, and nobody noticed it: nothing lost or refused, and nobody waited for a lease to end."""
    assert record
    measured, timers = record["measured"], record["timers"]
    counts = ("lost_writes", "failed_requests", "logouts", "two_primaries")
    assert {name: measured[name] for name in counts} == dict.fromkeys(counts, 0), measured["complaints"]
    assert measured["writes"] > 200
    assert measured["requests"] > 10
    assert measured["stall_s"] < timers["ttl"] - timers["loop_wait"]
