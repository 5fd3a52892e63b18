# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest production on a hardened machine behind a firewall, and that it serves again after a reboot, with nobody's help."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.vm_site.test_10_hardening import SLOW

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

BOOT = 900  # seconds


def answers(lab: Lab, url: str) -> bool:
    """Whether the login page comes over HTTPS, with a certificate that the lab's CA signed."""
    argv = ["curl", "--silent", "--fail", "--max-time", "60", "--output", "/dev/null", "--cacert", str(lab.ca), f"{url}/web/login"]
    return subprocess.run(argv, check=False).returncode == 0


def test_site_converges_on_the_hardened_machine(host: Host, play: Player, lab: Lab, url: str) -> None:
    play("playbooks/site.yml", **SLOW).expect_success()
    host.wait_until_healthy(seconds=BOOT)
    assert answers(lab, url)


def test_firewall_is_closed_around_it(host: Host, play: Player, lab: Lab, url: str) -> None:
    play("playbooks/firewall.yml", **SLOW).expect_success()
    assert "policy drop" in host.run("nft list table inet berth")
    assert answers(lab, url)


def test_everything_is_there_again_after_a_reboot(host: Host, lab: Lab, url: str) -> None:
    before = host.boot_id()
    subprocess.run([*host.ssh, "sudo -n systemctl reboot"], capture_output=True, timeout=120, check=False)
    host.wait_for_boot(before, seconds=BOOT)
    assert host.run("systemctl is-system-running --wait", timeout=BOOT, check=False).strip() == "running", host.run("systemctl --failed")
    host.wait_until_healthy(seconds=BOOT)
    wait_for("Odoo's login page", lambda: answers(lab, url), seconds=BOOT, interval=2)
    assert "policy drop" in host.run("nft list table inet berth")
    assert "-w /etc/sudoers.d -p wa -k scope" in host.run("auditctl -l")


def test_a_person_logs_in(admin: Odoo) -> None:
    assert admin.call("res.users", "search_count", [[]]) > 0


def test_runs_after_that_change_nothing(play: Player) -> None:
    for playbook in ("playbooks/site.yml", "playbooks/harden.yml", "playbooks/firewall.yml"):
        assert play(playbook, **SLOW).expect_success().changed == [], playbook
