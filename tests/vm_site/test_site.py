# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest production on a hardened machine behind a firewall, and that it serves again after a reboot, with nobody's help."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.lab import BOOT, wait_for
from ansible_collections.berth.odoo.tests.support.playbook import EMULATED

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player


def answers(lab: Lab, url: str) -> bool:
    """Whether the login page comes over HTTPS, with a certificate that the lab's CA signed."""
    argv = ["curl", "--silent", "--fail", "--max-time", "60", "--output", "/dev/null", "--cacert", str(lab.ca), f"{url}/web/login"]
    return subprocess.run(argv, check=False).returncode == 0


def test_host_is_hardened(host: Host, play: Player) -> None:
    """With every topic; molecule/vm leaves one out and looks at what they do."""
    play("playbooks/harden.yml", **EMULATED).expect_success()
    # It reads every file in the background.
    wait_for("AIDE's database", lambda: host.succeeds("test -e /var/lib/aide/aide.db"), seconds=1800, interval=5)


def test_site_converges_on_the_hardened_machine(host: Host, play: Player, lab: Lab, url: str) -> None:
    play("playbooks/site.yml", **EMULATED).expect_success()
    host.wait_until_healthy(seconds=BOOT)
    assert answers(lab, url)
    # Packages made accounts, and with them /etc/shadow- anew, with the mode of /etc/shadow.
    play("playbooks/harden.yml", **EMULATED).expect_success()


def test_firewall_is_closed_around_it(host: Host, play: Player, lab: Lab, url: str) -> None:
    play("playbooks/firewall.yml", **EMULATED).expect_success()
    assert "policy drop" in host.run("nft list table inet berth")
    assert answers(lab, url)


def test_everything_is_there_again_after_a_reboot(host: Host, lab: Lab, url: str) -> None:
    host.reboot()
    assert host.run("systemctl is-system-running", check=False) == "running\n", host.run("systemctl --failed")
    host.wait_until_healthy(seconds=BOOT)
    wait_for("Odoo's login page", lambda: answers(lab, url), seconds=BOOT, interval=2)
    assert "policy drop" in host.run("nft list table inet berth")
    assert "-w /etc/sudoers.d -p wa -k scope" in host.run("auditctl -l")


def test_a_person_logs_in(admin: Odoo) -> None:
    assert admin.call("res.users", "search_count", []) > 0


def test_runs_after_that_change_nothing(play: Player) -> None:
    for playbook in ("playbooks/site.yml", "playbooks/harden.yml", "playbooks/firewall.yml"):
        assert play(playbook, **EMULATED).expect_success().changed == [], playbook
