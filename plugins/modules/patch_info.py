#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patch_info
short_description: Read which packages of a host wait for an upgrade, and whether it has to be rebooted
version_added: 0.1.0
description:
  - Asks apt by simulation, dpkg, the kernel and, where it is installed, needrestart. The lists of packages are those that are there; bring them up to
    date before.
  - Fails where an upgrade must not begin, with what to type. It changes nothing.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
options:
  packages:
    description: V(security) for security updates of Debian, V(all) for every upgrade that removes no package.
    type: str
    choices: [security, all]
    default: security
  window:
    description:
      - Fail outside of this window, as in M(berth.odoo.postgresql_maintenance), by the host's clock in UTC. Empty for any time.
      - "Example: V(sat,sun 22:00-05:00)."
    type: str
    default: ""
  begin:
    description: Fail where an upgrade must not begin. Without, RV(obstacles) says why.
    type: bool
    default: true
  state_file:
    description: File in which a run notes that it began with this host.
    type: path
    default: /var/lib/berth/patch.json
seealso:
  - module: ansible.builtin.apt
"""

EXAMPLES = r"""
- name: Read what waits
  berth.odoo.patch_info:
    packages: all
  register: __waiting
"""

RETURN = r"""
packages:
  description: What would be upgraded, with C(name), C(before), C(after) and C(security).
  returned: always
  type: list
  elements: dict
  sample: [{name: openssl, before: 3.5.4-1, after: 3.5.4-1+deb13u1, security: true}]
held:
  description: The same of packages on hold, which stay as they are.
  returned: always
  type: list
  elements: dict
kept_back:
  description: The same of packages that cannot be upgraded without a removal of others.
  returned: always
  type: list
  elements: dict
engine:
  description: Names of those among RV(packages) that containers run on.
  returned: always
  type: list
  elements: str
engine_replaced:
  description: Whether the Docker engine that runs is another one than is installed. Debian's package does not restart it.
  returned: always
  type: bool
live_restore:
  description: Whether containers go on while the Docker engine restarts; V(null) where none answers.
  returned: always
  type: bool
kernel_comes:
  description: Whether a kernel is among what would be installed.
  returned: always
  type: bool
reboot:
  description: Why the host has to be rebooted now, a sentence each.
  returned: always
  type: list
  elements: str
obstacles:
  description: Why an upgrade must not begin, a sentence each.
  returned: always
  type: list
  elements: str
begun:
  description: What an earlier run noted that did not come to its end here, with C(date), C(drained) and C(reboot); V(null) where none did.
  returned: always
  type: dict
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _patch
from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._maintenance import window

ENVIRONMENT = {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def tell(module: AnsibleModule, *argv: str) -> str:
    """Return what a command wrote, or fail with its words."""
    code, output, errors = module.run_command(list(argv), environ_update=ENVIRONMENT)
    if code:
        module.fail_json(msg=f"Patching, nothing was changed: `{' '.join(argv)}` ended with {code}: {(errors or output).strip()[-600:]}")
    return output


def room() -> dict[str, int]:
    """Return the free megabytes of the file systems that an upgrade writes to."""
    found = {}
    for path in _patch.ROOM_MB:
        if path in ("/", "/var") or os.path.ismount(path):
            space = os.statvfs(path)
            found[path] = space.f_bavail * space.f_frsize >> 20
    return found


def live_restore() -> bool | None:
    """Return whether containers go on while the engine restarts; None where no engine answers."""
    try:
        return bool(DockerClient().get("/info")["LiveRestoreEnabled"])
    except (DockerError, DockerUnavailable):
        return None


def engine_replaced() -> bool:
    """Return whether the program of the running engine was replaced."""
    try:
        return os.readlink(f"/proc/{Path('/run/docker.pid').read_text(encoding='ascii').strip()}/exe").endswith(" (deleted)")
    except FileNotFoundError:  # no engine runs
        return False


def reboot(module: AnsibleModule) -> list[str]:
    """Return why the host has to be rebooted."""
    required, by = Path("/run/reboot-required"), Path("/run/reboot-required.pkgs")
    required_by = (by.read_text(encoding="utf-8", errors="replace") if by.exists() else "") if required.exists() else None
    installed = [file.name.removeprefix("vmlinuz-") for file in Path("/boot").glob("vmlinuz-*")]
    program = module.get_bin_path("needrestart")
    # -r l: it lists. What it is configured to do by itself would be another restart than ours.
    waits, services = _patch.needrestart(tell(module, program, "-b", "-r", "l") if program else "")
    return _patch.reboot_reasons(required_by, _patch.newer_kernel(os.uname().release, installed), waits, services)


def begun(file: Path) -> dict[str, Any] | None:
    """Return what an earlier run noted; None where none did."""
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Module entry."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "str", "choices": ["security", "all"], "default": "security"},
            "window": {"type": "str", "default": ""},
            "begin": {"type": "bool", "default": True},
            "state_file": {"type": "path", "default": "/var/lib/berth/patch.json"},
        },
        supports_check_mode=True,
    )
    which = module.params["packages"]
    now = datetime.now(UTC)
    try:
        limit = window(module.params["window"], now) if module.params["window"] else None
    except ValueError as error:
        module.fail_json(msg=f"maintenance_window, nothing was changed: {error}")
    if limit and not limit.open_at(now):
        module.fail_json(
            msg=f"Patching, this host was not begun: the window {module.params['window']!r} (UTC) opens at {limit.opens:%a %Y-%m-%d %H:%M}, and now it is "
            f"{now:%a %H:%M}. To begin all the same, type: -e maintenance_now=true; to see what waits: --check"
        )
    _rc, audit, _err = module.run_command(["dpkg", "--audit"], environ_update=ENVIRONMENT)
    # With a half-configured package apt simulates nothing.
    broken = bool(audit.strip())
    simulate = ["apt-get", "--simulate", "--quiet=2"]
    upgrade = [] if broken else _patch.simulated(tell(module, *simulate, "--with-new-pkgs", "upgrade"))
    everything = (
        [] if broken else _patch.simulated(tell(module, *simulate, "--ignore-hold", "--allow-change-held-packages", "dist-upgrade"))
    )
    packages = _patch.chosen(upgrade, which)
    held, kept_back = _patch.left(upgrade, everything, tell(module, "apt-mark", "showhold").split(), which)
    kernel_comes = _patch.brings_kernel(upgrade if packages else [])
    obstacles = _patch.obstacles(audit, room(), kernel_comes)
    if obstacles and module.params["begin"] and (packages or broken):
        module.fail_json(msg=f"Patching, nothing was changed on this host: {'; '.join(obstacles)}", obstacles=obstacles)
    module.exit_json(
        changed=False,
        packages=packages,
        held=held,
        kept_back=kept_back,
        engine=_patch.brings_engine(packages),
        engine_replaced=engine_replaced(),
        live_restore=live_restore(),
        kernel_comes=kernel_comes,
        reboot=reboot(module),
        obstacles=obstacles,
        begun=begun(Path(module.params["state_file"])),
    )


if __name__ == "__main__":
    main()
