# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab VM that is a container cannot show: a kernel of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def test_kernel_is_the_hosts_own(host: Host) -> None:
    """Another kernel than the one outside runs here, with settings, control groups v2 and AppArmor of its own, and Docker on top of it."""
    assert host.run(f"cat {BOOT_ID}") != Path(BOOT_ID).read_text()
    outside = Path("/proc/sys/vm/swappiness").read_text()
    other = "7" if outside.strip() != "7" else "8"
    host.run(f"sysctl --write vm.swappiness={other}")
    assert host.run("sysctl --values vm.swappiness").strip() == other
    assert Path("/proc/sys/vm/swappiness").read_text() == outside
    assert host.run("stat --file-system --format %T /sys/fs/cgroup").strip() == "cgroup2fs"
    assert "apparmor" in host.run("docker info --format '{{json .SecurityOptions}}'")
