#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_base
short_description: Packages, time, kernel settings, journal and directories of a Debian host in one step
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Converges what every host of the platform needs. When nothing is to be done it takes a quarter of a second.
  - Of C(vm.nr_hugepages) the kernel does what it can. Where it found fewer pages in one piece, RV(not_applied) says how many, and the next run tries again.
  - Whether a kernel setting can be written is tried and not guessed. In a container, whose kernel belongs to somebody else, a
    read-only setting is written to the file, named in RV(not_applied), and not an error.
  - A service is compared with the time at which its configuration was written, so an interrupted run is completed by the next.
attributes:
  check_mode:
    description: Predicts.
    support: full
  diff_mode:
    description: Shows the files before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  packages:
    description: Debian packages to install.
    type: list
    elements: str
    default: []
  timezone:
    description: Name of the time zone, as below C(/usr/share/zoneinfo).
    type: str
    default: Etc/UTC
  sysctl:
    description: Kernel settings, name to value. They are written to C(/etc/sysctl.d/80-berth.conf) and applied.
    type: dict
    default: {}
  ntp:
    description:
      - Keep the clock right with systemd-timesyncd, which is installed for it.
      - A host that has chrony, ntpsec or openntpd already keeps that and is left alone.
    type: bool
    default: true
  ntp_servers:
    description: Time servers. Empty leaves Debian's.
    type: list
    elements: str
    default: []
  journal:
    description: Settings of the section C([Journal]) of journald.
    type: dict
    default: {}
  directories:
    description: Directories that belong to root. Their content is never touched.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      mode:
        description: Permissions in octal.
        type: str
        default: "0755"
"""

EXAMPLES = r"""
- name: Converge the host
  berth.odoo.host_base:
    packages: [ca-certificates]
    timezone: Europe/Berlin
    sysctl:
      vm.swappiness: 1
    directories:
      - path: /var/lib/berth
  become: true
"""

RETURN = r"""
changes:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: ["set the time zone to Europe/Berlin"]
not_applied:
  description: Kernel settings that this host may not write, or that its kernel did only in part, with the reason.
  returned: success
  type: dict
  sample: {"vm.swappiness": "read-only here"}
"""

import errno
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _apt, _systemd

SYSCTL = Path("/etc/sysctl.d/80-berth.conf")
JOURNAL = Path("/etc/systemd/journald.conf.d/80-berth.conf")
TIMESYNC = Path("/etc/systemd/timesyncd.conf.d/80-berth.conf")
HUGE_PAGES = "vm.nr_hugepages"
"""The one setting of which the kernel does only what it can."""
OTHER_CLOCKS = ("chrony", "ntpsec", "openntpd")
HEADER = "# Managed by Ansible (berth.odoo.host_base).\n"


class HostError(Exception):
    """The host cannot become what was asked for. The message says what to type."""


class Host:
    """One host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the module's parameters; nothing is looked at yet."""
        self.module = module
        self.parameters: dict[str, Any] = module.params
        self.changes: list[str] = []
        self.diff: list[dict[str, str]] = []
        self.not_applied: dict[str, str] = {}

    def converge(self) -> None:
        """Bring everything to what is wanted."""
        clock = self.install()
        self.timezone()
        self.sysctl()
        self.services(clock)
        for directory in self.parameters["directories"]:
            self.directory(Path(directory["path"]), int(directory["mode"], 8))

    def change(self, text: str) -> bool:
        """Note a change, and tell whether it may be made."""
        self.changes.append(text)
        return not self.module.check_mode

    def write(self, path: Path, content: str) -> bool:
        """Write a file of ours atomically where it differs, remove it where it shall be empty, and tell whether it changed."""
        try:
            before = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            before = ""
        if before == content:
            return False
        self.diff.append({"before_header": str(path), "after_header": str(path), "before": before, "after": content})
        if self.change(f"wrote {path}" if content else f"removed {path}"):
            if not content:
                path.unlink()
                return True
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            candidate = path.with_name(f".{path.name}.new")
            candidate.write_text(content, encoding="utf-8")
            candidate.chmod(0o644)
            candidate.replace(path)
        return True

    # -- packages and time

    def install(self) -> bool:
        """Install what is missing, and tell whether the clock is ours to keep."""
        names = list(self.parameters["packages"])
        found = _apt.installed(Path("/"), [*names, *OTHER_CLOCKS, "systemd-timesyncd"])
        clock = self.parameters["ntp"] and not any(name in found for name in OTHER_CLOCKS)
        if clock:
            names.append("systemd-timesyncd")
        missing = [name for name in names if name not in found]
        if missing and self.change(f"installed {', '.join(missing)}"):
            _apt.install(self.module.run_command, missing)
        return clock

    def timezone(self) -> None:
        """Point /etc/localtime to the zone."""
        name = self.parameters["timezone"]
        zone = Path("/usr/share/zoneinfo") / name
        link = Path("/etc/localtime")
        known = ".." not in zone.parts and zone.is_file()
        if not known and not (self.module.check_mode and "tzdata" in self.parameters["packages"]):
            raise HostError(f"host_timezone is {name!r}, and /usr/share/zoneinfo has no such zone. List them: timedatectl list-timezones")
        if link.is_symlink() and os.path.normpath(link.parent / link.readlink()) == str(zone):
            return
        if self.change(f"set the time zone to {name}"):
            candidate = Path("/etc/.localtime.new")
            candidate.unlink(missing_ok=True)
            candidate.symlink_to(zone)
            candidate.replace(link)
            old_style = Path("/etc/timezone")
            if old_style.exists():
                old_style.write_text(f"{name}\n", encoding="utf-8")

    # -- kernel

    def sysctl(self) -> None:
        """Write the settings for the next boot, and apply those that differ now."""
        settings = {str(key): " ".join(str(value).split()) for key, value in self.parameters["sysctl"].items()}
        lines = "".join(f"{key} = {value}\n" for key, value in sorted(settings.items()))
        self.write(SYSCTL, HEADER + lines if lines else "")
        for key, value in settings.items():
            self.apply(key, value)

    def apply(self, key: str, value: str) -> None:
        """Set one kernel setting where it differs."""
        # sysctl(8): with dots as separators a slash stands for a dot inside a name, as in an interface's.
        path = Path("/proc/sys") / key.translate(str.maketrans("./", "/."))
        try:
            now = " ".join(path.read_text(encoding="ascii").split())
        except FileNotFoundError:
            raise HostError(f"host_sysctl has {key}, which this kernel does not know. Remove it, or load its module first.") from None
        except PermissionError:
            now = ""
        if now == value:
            return
        if not os.access(path, os.W_OK):
            self.not_applied[key] = f"read-only here, it is {now or 'unreadable'}"
            return
        if self.change(f"set {key} from {now} to {value}"):
            try:
                path.write_text(f"{value}\n", encoding="ascii")
            except OSError as error:
                if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
                    self.changes.pop()
                    self.not_applied[key] = f"{os.strerror(error.errno).lower()}, it is {now}"
                    return
                raise HostError(f"host_sysctl: the kernel refuses {key} = {value}: {error.strerror}. It is {now}.") from error
            if key == HUGE_PAGES and (got := int(path.read_text(encoding="ascii"))) != int(value):
                if str(got) == now:
                    self.changes.pop()
                self.not_applied[key] = f"the kernel found {got} pages of {value} in one piece; the others are there after a reboot"

    # -- services

    def services(self, clock: bool) -> None:
        """Configure journald and, where the clock is ours, timesyncd; restart what is older than its configuration."""
        journal = "".join(f"{key}={value}\n" for key, value in sorted(self.parameters["journal"].items()))
        self.write(JOURNAL, f"{HEADER}[Journal]\n{journal}" if journal else "")
        servers = " ".join(self.parameters["ntp_servers"]) if clock else ""
        self.write(TIMESYNC, f"{HEADER}[Time]\nNTP={servers}\n" if servers else "")
        names = ["systemd-journald.service", *(["systemd-timesyncd.service"] if clock else [])]
        units = _systemd.show(self.module.run_command, names)
        for name, path in (("systemd-journald.service", JOURNAL), ("systemd-timesyncd.service", TIMESYNC)):
            if name not in units:
                continue
            unit = units[name]
            if name != "systemd-journald.service" and unit.enabled != "enabled" and self.change(f"enabled {name}"):
                _systemd.command(self.module.run_command, "enable --quiet", name)
            if unit.active == "active":
                stale = path.exists() and int(path.stat().st_mtime) > unit.since
                if (stale or self.wrote(path)) and self.change(f"restarted {name}"):
                    _systemd.command(self.module.run_command, "restart", name)
            # A clock's unit may not run where the clock belongs to somebody else, as in a container.
            elif unit.condition and self.change(f"started {name}"):
                _systemd.command(self.module.run_command, "start", name)

    def wrote(self, path: Path) -> bool:
        """Tell whether this run changed the file."""
        return any(change.endswith(f" {path}") for change in self.changes)

    # -- directories

    def directory(self, path: Path, mode: int) -> None:
        """Create a directory, or give it back its owner and mode."""
        try:
            status = path.stat()
        except FileNotFoundError:
            if self.change(f"created {path}"):
                path.mkdir(parents=True)
                path.chmod(mode)
            return
        if not path.is_dir():
            raise HostError(f"{path} is no directory. Move it away.")
        if (status.st_uid, status.st_gid) != (0, 0) and self.change(f"gave {path} to root"):
            os.chown(path, 0, 0)
        if status.st_mode & 0o7777 != mode and self.change(f"set the mode of {path} to {mode:04o}"):
            path.chmod(mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "timezone": {"type": "str", "default": "Etc/UTC"},
            "sysctl": {"type": "dict", "default": {}},
            "ntp": {"type": "bool", "default": True},
            "ntp_servers": {"type": "list", "elements": "str", "default": []},
            "journal": {"type": "dict", "default": {}},
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "mode": {"type": "str", "default": "0755"}},
            },
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    host = Host(module)
    try:
        host.converge()
    except (HostError, _apt.AptError, _systemd.SystemdError, OSError, ValueError) as error:
        module.fail_json(msg=str(error), changes=host.changes)
    if host.not_applied:
        module.warn(
            "set for the next boot only, this kernel does not do it now: "
            + ", ".join(f"{key} ({reason})" for key, reason in sorted(host.not_applied.items()))
        )
    module.exit_json(changed=bool(host.changes), changes=host.changes, not_applied=host.not_applied, diff=host.diff)


if __name__ == "__main__":
    main()
