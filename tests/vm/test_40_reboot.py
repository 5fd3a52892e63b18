# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A boot of the hardened host: its units, its kernel's settings, its database, with nobody's help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.lab import BOOT, wait_for
from ansible_collections.berth.odoo.tests.support.writers import sql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host


def test_everything_comes_back_after_a_reboot(host: Host) -> None:
    host.run("echo kept > /root/kept")
    sql(host, "CREATE TABLE kept (value text); INSERT INTO kept VALUES ('kept')")
    host.reboot()
    assert host.run("systemctl is-system-running", check=False) == "running\n", host.run("systemctl --failed")
    assert host.run("cat /root/kept") == "kept\n"
    assert host.run("docker info --format '{{.Driver}}'", timeout=120).strip() == "overlay2"
    assert "-w /etc/sudoers.d -p wa -k scope" in host.run("auditctl -l")
    host.wait_until_healthy(seconds=BOOT)
    wait_for("a leader", lambda: sql(host, "SELECT pg_is_in_recovery()") == "f", seconds=BOOT, interval=2)
    assert sql(host, "SELECT value FROM kept") == "kept"
