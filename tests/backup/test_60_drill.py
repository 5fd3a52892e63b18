# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores are proven by a timer and by a playbook, what is damaged is named, and who looks at the status sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support import history as the
from ansible_collections.berth.odoo.tests.support.lab import PLACES, seen
from ansible_collections.berth.odoo.tests.support.tenants import psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

STATUS = "playbooks/status.yml"
PROGRAM = "python3 -B /opt/berth/restore/config/restore.py"
EVIDENCE = "/var/lib/berth/evidence"
AGE = f"""
import datetime, glob, json, os
for name in glob.glob("{EVIDENCE}/restore-*.json"):
    record = json.load(open(name))
    record["date"] = (datetime.datetime.fromisoformat(record["date"]) - datetime.timedelta(days=9)).strftime("%Y-%m-%dT%H:%M:%SZ")
    os.unlink(name)
    json.dump(record, open("{EVIDENCE}/restore-" + record["date"].replace("-", "").replace(":", "") + "-" + record["instance"] + ".json", "w"))
"""


@pytest.fixture(scope="module", autouse=True)
def sets(play: Player, host: Host, lab: Lab) -> None:
    """A set of each instance, one with files."""
    odoo = the.admin(host, lab)
    the.transfer(odoo, "in the drill's set")
    the.store_file(odoo, "in the drill's set")
    with the.hurry(host):
        play("playbooks/backup.yml").expect_success()


def latest(host: Host, instance: str) -> dict[str, Any]:
    """The newest evidence."""
    found: dict[str, Any] = json.loads(host.run(f"cat $(ls {EVIDENCE}/restore-*-{instance}.json | tail -n 1)"))
    return found


def test_the_timer_proves_every_instance_and_the_status_says_so(play: Player, host: Host) -> None:
    host.run("systemctl is-active berth-drill-restore.timer; systemctl start berth-drill-restore.service", timeout=1200)
    record = latest(host, "main")
    assert record["kept"], record["broken"]
    assert record["found"]["files"]["files"] > 0
    assert record["found"]["odoo"]["written"] == "stock.picking"
    assert record["restore_s"] > 0
    assert latest(host, "staging")["kept"]
    # Nothing of it is left.
    assert host.run("docker ps -aq --filter label=berth.restore") == ""
    assert f"Restore of main: proven on {record['date']}" in play(STATUS).text


def test_a_proof_that_is_too_old_is_a_problem(play: Player, host: Host) -> None:
    host.run("python3 -", stdin=AGE)
    play(STATUS).expect_refusal("the restore of main was proven 9 days ago", "berth-drill-restore.timer")


@pytest.mark.nightly
def test_what_is_missing_or_damaged_is_named(play: Player, host: Host, lab: Lab) -> None:
    odoo = the.admin(host, lab)
    # In no set yet, and not what the database says.
    the.store_file(odoo, "in no set")
    [missing] = psql(host, "SELECT store_fname FROM ir_attachment WHERE name = 'proof in no set'", "main")
    where = "name = $$proof in the drill's set$$"
    [damaged] = psql(host, f"SELECT store_fname FROM ir_attachment WHERE {where} ORDER BY id DESC LIMIT 1", "main")  # noqa: S608 - ours
    psql(host, f"UPDATE ir_attachment SET checksum = repeat('0', 40) WHERE store_fname = '{damaged}'", "main")  # noqa: S608 - ours
    moment = the.now(host)
    psql(host, f"UPDATE ir_attachment SET checksum = replace(right(store_fname, 40), '/', '') WHERE store_fname = '{damaged}'", "main")  # noqa: S608 - ours
    odoo.call("ir.attachment", "unlink", odoo.call("ir.attachment", "search", [["name", "=", "proof in no set"]]))
    psql(host, "SELECT pg_switch_wal()")
    host.run(f"{PROGRAM} drill --instance main --time '{moment}'; [ $? = 3 ]", timeout=300)
    broken = " ".join(latest(host, "main")["broken"])
    assert f"1 files of attachments are missing: {missing}" in broken
    assert f"1 files of attachments are damaged: {damaged}" in broken
    play(STATUS).expect_refusal("the restore drill of main back to time", missing)


@pytest.mark.nightly
def test_the_playbook_proves_it_again(play: Player, host: Host) -> None:
    run = play("playbooks/drill_restore.yml", variables={"target": "main"}).expect_success()
    assert "kept" in run.text
    assert f"Restore of main: proven on {latest(host, 'main')['date']}" in play(STATUS).text


def test_neither_backups_nor_restores_leave_a_secret(host: Host, lab: Lab) -> None:
    """The passphrase of the backups and the keys of their store among them."""
    secrets = lab.secrets()
    assert any(name.startswith("backup_secrets.") for name in secrets)
    assert {place: found for place in PLACES if (found := seen(host, secrets, place))} == {}
