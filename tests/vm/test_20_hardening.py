# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardening where nothing is forbidden: AppArmor, auditd and the kernel's settings are there, and a second run finds nothing to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, wait_for
from ansible_collections.berth.odoo.tests.support.playbook import EMULATED

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

PLAYBOOK = "playbooks/harden.yml"
ROLE = yaml.safe_load((REPOSITORY / "roles/hardening/vars/main.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hardened(play: Player) -> Run:
    """A host on which everything is as it shall be, and the run that found nothing to do."""
    play(PLAYBOOK, **EMULATED).expect_success()
    return play(PLAYBOOK, **EMULATED).expect_success()


def test_second_run_changes_nothing_and_nothing_is_forbidden(host: Host, hardened: Run) -> None:
    assert hardened.changed == []
    assert host.run("systemctl is-system-running", check=False) == "running\n", host.run("systemctl --failed")
    assert "this host may not do all of it" not in hardened.text


def test_the_kernel_does_what_was_written_down(host: Host, hardened: Run) -> None:
    settings = {key: str(value) for key, value in ROLE["__hardening_sysctl"].items()}
    lines = host.run(f"sysctl {' '.join(settings)}").splitlines()
    assert dict(line.split(" = ") for line in lines) == settings
    assert {"nosuid", "nodev", "noexec"} <= set(host.run("findmnt -n -o OPTIONS /dev/shm").strip().split(","))
    assert not host.succeeds("modprobe usb-storage 2>/dev/null")


def test_apparmor_and_the_clock_run(host: Host, hardened: Run) -> None:
    assert host.succeeds("aa-enabled --quiet && systemctl is-active --quiet apparmor systemd-timesyncd")
    assert "docker-default" in host.run("aa-status")


def test_what_a_person_changes_is_recorded(host: Host, hardened: Run) -> None:
    host.run("systemctl is-active auditd && touch /etc/sudoers.d/probe && rm /etc/sudoers.d/probe")
    wait_for(
        "a record",
        lambda: "/etc/sudoers.d/probe" in host.run("ausearch --input-logs --key scope --interpret 2>/dev/null", check=False),
        seconds=30,
    )


def test_rules_that_somebody_took_away_are_loaded_again(host: Host, play: Player, hardened: Run) -> None:
    host.run("auditctl -D")
    assert "-k scope" not in host.run("auditctl -l")
    play(PLAYBOOK, **EMULATED).expect_success()
    assert "-w /etc/sudoers.d -p wa -k scope" in host.run("auditctl -l")
    assert play(PLAYBOOK, **EMULATED).expect_success().changed == []
