#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Open the named ports of a Debian host to the named peers, and nothing else, beside Docker
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Keeps C(table inet berth) of nftables, which drops what comes in and what is forwarded to containers unless it is named, and refuses what
    leaves where O(outgoing) says so. Its chains are asked before
    those of Docker, which stay as they are.
  - C(berth-firewall.service) loads the table before the network and Docker, and C(berth-firewall-watch.timer) puts it back within 20 s where
    somebody flushed or changed it. C(nftables.service) is masked, because it flushes Docker's rules, too.
  - New rules are on trial. They are taken back after O(confirm_seconds), unless O(state=confirmed) was called through a connection made since.
    Until then a reboot brings the old ones.
  - Rules that would not let in again whoever is connected are refused.
  - What the kernel has is compared, not only the file. When nothing is to be done it takes a quarter of a second.
attributes:
  check_mode:
    description: Predicts. Where nftables is not installed yet the rules are not checked by it.
    support: full
  diff_mode:
    description: Shows rules and units before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  state:
    description:
      - V(present) loads the rules.
      - V(confirmed) keeps rules that are on trial. It fails when it comes through the connection through which they were loaded.
    type: str
    choices: [present, confirmed]
    default: present
  openings:
    description: What the platform needs. A dictionary each with C(port), C(protocol), C(sources) and C(why); see O(extra_openings).
    type: list
    elements: dict
    default: []
  extra_openings:
    description: What else is open. A dictionary each.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The port, of the host or published by a container. Required, but for V(vrrp), which has none.
        type: int
      protocol:
        description: V(tcp), V(udp) or V(vrrp).
        type: str
        default: tcp
      sources:
        description: Addresses and networks that reach it; C([any]) is everybody.
        type: list
        elements: str
        required: true
      why:
        description: A comment.
        type: str
        default: ""
  destinations:
    description: What the platform has to reach. A dictionary each, as in O(outgoing). Counts where that is not C([any]).
    type: list
    elements: dict
    default: []
  outgoing:
    description:
      - What the host and its containers may reach beside that. C([any]) is everything; or a dictionary each with C(port), C(protocol), C(to), a list of
        addresses and networks, and C(why). Names (port 53), the time (123) and addresses (67, 547) are asked anywhere in any case. What is
        not listed is refused with an ICMP message.
    type: list
    elements: raw
    default: [any]
  management_networks:
    description: Addresses and networks from which SSH is reached. Empty is everywhere.
    type: list
    elements: str
    default: []
  ssh_port:
    description: Port of SSH.
    type: int
    default: 22
  confirm_seconds:
    description: Seconds after which rules that nobody confirmed are taken back.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Open the site, and SSH to the administrators
  berth.odoo.firewall:
    openings:
      - port: 443
        sources: [any]
        why: the edge
    management_networks: [198.51.100.0/24]
  register: firewall
  become: true

- name: Close the old connection
  ansible.builtin.meta: reset_connection

- name: Keep the rules through which this connection was made
  berth.odoo.firewall:
    state: confirmed
  become: true
"""

RETURN = r"""
changes:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: ["loaded the rules: they were not there"]
confirm:
  description: Whether rules are on trial and wait for O(state=confirmed).
  returned: success
  type: bool
  sample: true
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _apt, _firewall, _systemd

RULES = Path("/etc/berth/firewall.nft")
RUNTIME = Path("/run/berth")
TRIAL = RUNTIME / "firewall.nft"
"""Rules that nobody has confirmed yet."""
TRIAL_CONNECTION = RUNTIME / "firewall.connection"
"""The connection through which they were loaded."""

SERVICE = "berth-firewall.service"
TIMER = "berth-firewall-watch.timer"
FOREIGN = "nftables.service"
REVERT = "berth-firewall-revert"
UNITS = Path("/etc/systemd/system")


class Firewall:
    """The firewall of one host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the module's parameters; nothing is looked at yet."""
        self.module = module
        self.parameters: dict[str, Any] = module.params
        self.changes: list[str] = []
        self.diff: list[dict[str, str]] = []
        self.confirm = False

    def change(self, text: str) -> bool:
        """Note a change, and tell whether it may be made."""
        self.changes.append(text)
        return not self.module.check_mode

    def call(self, argv: list[str], data: str | None = None) -> str:
        """Run a command and return what it wrote."""
        code, output, errors = self.module.run_command(argv, data=data, binary_data=True)
        if code:
            raise _firewall.FirewallError(f"`{' '.join(argv)}` ended with {code}: {(errors or output).strip()}")
        return str(output)

    # -- converge

    def present(self) -> None:
        """Load the rules where the kernel has others, and have them loaded at every boot."""
        parameters = self.parameters
        found = _firewall.openings(
            parameters["openings"], parameters["extra_openings"], parameters["management_networks"], parameters["ssh_port"]
        )
        _firewall.refuse_to_cut(found, connection())
        _firewall.refuse_bridges(os.listdir("/sys/class/net"))
        if not parameters["management_networks"]:
            self.module.warn("SSH is open to everybody. Set firewall_management_networks")
        wanted = _firewall.ruleset(found, _firewall.outgoing(parameters["destinations"], parameters["outgoing"]))
        self.install()
        nft = self.module.get_bin_path("nft", opt_dirs=["/usr/sbin"]) is not None
        if nft:
            self.check(wanted)
        self.units()
        self.rules(wanted, nft)

    def install(self) -> None:
        """Install nftables where it is missing, and keep its own service from flushing Docker's rules."""
        if "nftables" not in _apt.installed(Path("/"), ["nftables"]) and self.change("installed nftables"):
            _apt.install(self.module.run_command, ["nftables"])
        unit = _systemd.show(self.module.run_command, [FOREIGN])[FOREIGN]
        if unit.load != "masked" and self.change(f"masked {FOREIGN}"):
            _systemd.command(self.module.run_command, "mask --quiet", FOREIGN)
        if unit.active == "active":
            self.module.warn(
                f"{FOREIGN} had loaded /etc/nftables.conf: until the next boot those rules count, too. It was not stopped, which would delete "
                "Docker's rules with them"
            )

    def check(self, wanted: str) -> None:
        """Let nftables judge the rules."""
        code, _output, errors = self.module.run_command(["nft", "-c", "-f", "-"], data=wanted, binary_data=True)
        if code:
            raise _firewall.FirewallError(f"nftables refuses the rules. Nothing was changed. It says: {errors.strip()}")

    def units(self) -> None:
        """Write the units of systemd."""
        wrote = [self.write(UNITS / name, text) for name, text in _firewall.units(str(RULES), str(TRIAL)).items()]
        if any(wrote) and not self.module.check_mode:
            _systemd.command(self.module.run_command, "daemon-reload")

    def rules(self, wanted: str, nft: bool) -> None:
        """Compare the rules with file and kernel."""
        before = read(RULES)
        live = self.live() if nft else ""
        loaded = nft and live == self.listing(wanted)
        if before == wanted and not TRIAL.exists():
            if not loaded and self.change(f"loaded the rules: {'they were not there' if not live else 'somebody had changed them'}"):
                self.call(["nft", "-f", str(RULES)])
            self.enable()
            return
        self.confirm = True
        if before != wanted:
            self.diff.append({"before_header": str(RULES), "after_header": str(RULES), "before": before, "after": wanted})
        if self.change("put new rules on trial" if before != wanted else "took back rules that nobody had confirmed"):
            RUNTIME.mkdir(mode=0o755, exist_ok=True)
            # Armed before anything is loaded: whatever becomes of this run.
            self.disarm()
            replace(TRIAL_CONNECTION, json.dumps(connection()))
            replace(TRIAL, wanted)
            self.arm()
            self.call(["nft", "-f", str(TRIAL)])

    def live(self) -> str:
        """Return what the kernel has, without counters; empty where it has nothing."""
        code, output, _errors = self.module.run_command(["nft", "-s", "list", "table", *_firewall.TABLE.split()])
        return str(output) if code == 0 else ""

    def listing(self, text: str) -> str:
        """Return how nftables lists the rules of a file, from a network of its own, where nobody is affected."""
        script = f"nft -f - && nft -s list table {_firewall.TABLE}"
        return self.call(["unshare", "--net", "--", "sh", "-c", script], data=text)

    def enable(self) -> None:
        """Have the rules loaded at boot and watched."""
        units = _systemd.show(self.module.run_command, [SERVICE, TIMER])
        if units[SERVICE].enabled != "enabled" and self.change(f"enabled {SERVICE}"):
            _systemd.command(self.module.run_command, "enable --quiet", SERVICE)
        for name in (SERVICE, TIMER):
            if units[name].active != "active" and self.change(f"started {name}"):
                _systemd.command(self.module.run_command, "start", name)

    def write(self, path: Path, content: str) -> bool:
        """Write a file atomically where it differs, and tell whether it does."""
        before = read(path)
        if before == content:
            return False
        self.diff.append({"before_header": str(path), "after_header": str(path), "before": before, "after": content})
        if self.change(f"wrote {path}"):
            replace(path, content)
        return True

    # -- trial

    def arm(self) -> None:
        """Have the old rules back in a while."""
        script = _firewall.revert(str(RULES), str(TRIAL))
        timer = [f"--on-active={self.parameters['confirm_seconds']}", "--timer-property=AccuracySec=100ms", f"--unit={REVERT}"]
        self.call(["systemd-run", "--quiet", "--collect", *timer, "/bin/sh", "-c", script])

    def disarm(self) -> None:
        """Stop that. It may be under way already, so look at the trial afterwards."""
        for unit in (f"{REVERT}.timer", f"{REVERT}.service"):
            # Not loaded is as good as stopped; one that runs is waited for.
            self.module.run_command(["systemctl", "stop", unit])
        self.module.run_command(["systemctl", "reset-failed", f"{REVERT}.service"])

    def confirmed(self) -> None:
        """Keep the rules on trial, if this connection was made under them."""
        if not TRIAL.exists():
            if self.module.check_mode:
                return
            raise _firewall.FirewallError(
                "there are no rules on trial: they were taken back because nobody confirmed them in time. Run again"
            )
        _firewall.refuse_old_connection(json.loads(TRIAL_CONNECTION.read_text(encoding="utf-8")), connection())
        if not connection():
            self.module.warn("this is no SSH connection: that anybody can log in under the new rules was not tried")
        if not self.change("kept the new rules"):
            return
        self.disarm()
        wanted = read(TRIAL)
        if not wanted or self.live() != self.listing(wanted):
            raise _firewall.FirewallError("the new rules were taken back just before they were confirmed. Run again")
        replace(RULES, wanted)
        TRIAL.unlink()
        TRIAL_CONNECTION.unlink(missing_ok=True)
        self.enable()


def read(path: Path) -> str:
    """Return a file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def replace(path: Path, content: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    candidate = path.with_name(f".{path.name}.new")
    with candidate.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    candidate.chmod(0o644)
    candidate.replace(path)


def connection() -> str:
    """Return SSH_CONNECTION of the login that carries this, empty text where there is none. sudo hides it, so the parents are asked."""
    pid = os.getpid()
    while pid > 1:
        for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if item.startswith(b"SSH_CONNECTION="):
                return item.partition(b"=")[2].decode("ascii")
        parent = re.search(r"^PPid:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        pid = int(parent[1]) if parent else 0
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "confirmed"], "default": "present"},
            "openings": {"type": "list", "elements": "dict", "default": []},
            "extra_openings": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "port": {"type": "int"},
                    "protocol": {"type": "str", "default": "tcp"},
                    "sources": {"type": "list", "elements": "str", "required": True},
                    "why": {"type": "str", "default": ""},
                },
            },
            "destinations": {"type": "list", "elements": "dict", "default": []},
            "outgoing": {"type": "list", "elements": "raw", "default": [_firewall.ANYWHERE]},
            "management_networks": {"type": "list", "elements": "str", "default": []},
            "ssh_port": {"type": "int", "default": _firewall.SSH_PORT},
            "confirm_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    firewall = Firewall(module)
    try:
        if module.params["state"] == "confirmed":
            firewall.confirmed()
        else:
            firewall.present()
    except (_firewall.FirewallError, _apt.AptError, _systemd.SystemdError, OSError, ValueError) as error:
        module.fail_json(msg=str(error), changed=bool(firewall.changes), changes=firewall.changes)
    module.exit_json(changed=bool(firewall.changes), changes=firewall.changes, confirm=firewall.confirm, diff=firewall.diff)


if __name__ == "__main__":
    main()
