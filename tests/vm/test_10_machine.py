# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab VM that is a container cannot show: a kernel of its own, and a boot of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host

BOOT = 900  # seconds, on an emulated processor that others slow down
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


def test_everything_comes_back_after_a_reboot(host: Host) -> None:
    """A reboot of the kernel: units, Docker and a file are there again, with nobody's help."""
    host.run("echo kept > /root/kept")
    before = host.boot_id()
    subprocess.run([*host.ssh, "sudo -n systemctl reboot"], capture_output=True, timeout=120, check=False)
    host.wait_for_boot(before, seconds=BOOT)
    host.run("systemctl is-system-running --wait", timeout=BOOT)  # ends with 0 only when no unit has failed
    assert host.run("cat /root/kept") == "kept\n"
    assert host.run("docker info --format '{{.Driver}}'", timeout=120).strip() == "overlay2"
