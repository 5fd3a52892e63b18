# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down who changed what, on the controller and on each host that was changed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ledger
type: notification
short_description: Write down who ran what and what it changed, so that nobody can change it afterwards unseen
version_added: 0.1.0
description:
  - Writes one JSON line when a run begins and one when it ends, with the user, the playbook, the Git revision of the inventory, and what was changed
    on which host. Each line has the hash of the line before it.
  - What a run changed is also written to C(/var/lib/berth/ledger.jsonl) on each host that it changed, by one more connection after the run.
    M(berth.odoo.platform_status) compares both sides.
  - Values of variables are never written, names are. Names of tasks are written as the output shows them.
  - A run that cannot be written down on the controller does not begin. A host that cannot write it down is named.
  - AWX gives the name of the user who started a job as the variable C(awx_user_name), which is used instead of the account that it runs as, and the
    project's revision as C(awx_project_revision). There the controller is called as AWX's base URL, because each job has a host name of its own.
author: [berth.odoo contributors (@berth-odoo)]
requirements: [enable it with C(callbacks_enabled = berth.odoo.ledger) in ansible.cfg]
options:
  path:
    description: The controller's ledger. Everybody who works from this controller may have one of their own.
    type: path
    default: ~/.local/state/berth/ledger.jsonl
    env: [{name: BERTH_LEDGER}]
"""

import getpass
import json
import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from ansible_collections.berth.odoo.plugins.module_utils import _ledger

# Of the command line, what it takes to reach the same hosts in the same way. Passwords that were typed cannot be given on.
_REPEATED = {
    "vault_ids": "--vault-id",
    "vault_password_files": "--vault-password-file",
    "private_key_file": "--private-key",
    "remote_user": "--user",
    "connection": "--connection",
    "ssh_common_args": "--ssh-common-args",
    "ssh_extra_args": "--ssh-extra-args",
    "become_method": "--become-method",
    "become_password_file": "--become-password-file",
    "connection_password_file": "--connection-password-file",
}
_ANSWER = re.compile(r"^(\S+) \| (\w+)!? => (?={)", re.MULTILINE)
TIMEOUT = 120


def connection_arguments(options: dict[str, Any]) -> list[str]:
    """Return the options of this run that another one on the same hosts needs."""
    arguments = [word for source in options.get("inventory") or () for word in ("--inventory", str(source))]
    for name, option in _REPEATED.items():
        value = options.get(name)
        for one in value if isinstance(value, list | tuple) else [value]:
            # Who asked once does not ask again, least of all a person who is about to leave.
            if one and not (name == "vault_ids" and str(one).rpartition("@")[2] == "prompt"):
                arguments += [option, str(one)]
    for one in options.get("extra_vars") or ():
        arguments += ["--extra-vars", str(one)]
    return arguments


def revision(directory: Path) -> str:
    """Return the Git revision of a directory, C(-dirty) at its end when files there are not committed; empty outside Git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(directory), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("-dirty" if commit and git("status", "--porcelain", "--", ".") else "")
    except FileNotFoundError:
        return ""


class CallbackModule(CallbackBase):
    """Listen to a run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "berth.odoo.ledger"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Know nothing yet."""
        super().__init__()
        self._run: dict[str, Any] = {}
        self._changed: dict[str, list[str]] = {}
        self._known: set[str] = set()

    @property
    def _path(self) -> Path:
        return Path(self.get_option("path")).expanduser()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Begin a run."""
        options = context.CLIARGS
        sources = [str(source) for source in options.get("inventory") or ()]
        place = next((Path(source) for source in sources if Path(source).exists()), Path.cwd())
        self._run = {
            "format": 1,
            "run": str(uuid.uuid4()),
            "controller": _ledger.controller(),
            "ledger": str(self._path),
            "user": os.environ.get("SUDO_USER") or getpass.getuser(),
            "playbook": playbook._file_name,
            "inventories": sources,
            "revision": revision(place if place.is_dir() else place.parent),
            "check": bool(options.get("check")),
            "limit": options.get("subset") or "",
            "tags": [tag for tag in options.get("tags") or () if tag != "all"],
        }
        try:
            self._write({**self._run, "event": _ledger.START})
        except OSError as error:
            # An exception of a callback is no more than a warning to Ansible.
            raise SystemExit(
                f"Nothing was run: the ledger {self._path} cannot be written, so nobody would know of it: {error}."
                " Name another file in the environment variable BERTH_LEDGER."
            ) from error

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Learn which variables were given for this run."""
        variables = play.get_variable_manager().extra_vars
        self._run["variables"] = sorted(variables)
        self._run["user"] = str(variables.get("awx_user_name") or self._run["user"])
        # AWX hands a job its files without their history.
        self._run["revision"] = self._run["revision"] or str(variables.get("awx_project_revision") or "")
        self._known.update(host.get_name() for host in play.get_variable_manager()._inventory.get_hosts(ignore_limits=True))

    def v2_runner_on_failed(self, result: Any, **_ignored: bool) -> None:
        """Keep the name of a task that changed something before it failed."""
        self.v2_runner_on_ok(result)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Keep the name of a task that changed something, for the host on which it did."""
        if result.result.get("changed"):
            there = (result.result.get("_ansible_delegated_vars") or {}).get("ansible_delegated_host") or result.host.get_name()
            names = self._changed.setdefault(there, [])
            if (name := result.task.get_name().strip()) not in names:
                names.append(name)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End the run: here, and on each host that it changed."""
        hosts = {}
        for host in sorted({*stats.processed, *self._changed}):
            tasks = self._changed.get(host, [])
            more = len(tasks) - _ledger.MOST_TASKS
            hosts[host] = {
                "changed": len(tasks),
                "failed": stats.failures.get(host, 0),
                "unreachable": stats.dark.get(host, 0),
                "tasks": [*tasks[: _ledger.MOST_TASKS], *([f"and {more} more"] if more > 0 else [])],
            }
        end = {**self._run, "event": _ledger.END, "hosts": hosts}
        line = self._write(end)
        changed = [host for host in hosts if hosts[host]["changed"] and host in self._known and not hosts[host]["unreachable"]]
        if not changed or self._run["check"]:
            return
        kept, failed = self._tell(changed, {**end, "time": self._now(), "line": line})
        self._write({**self._run, "event": _ledger.KEPT, "hosts": kept})
        if failed:
            self._display.warning("the ledger of " + "; of ".join(f"{host} lacks this run: {why}" for host, why in failed.items()))

    def _tell(self, hosts: list[str], record: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """Write a record on hosts. Return the hash of the new line of each, and why it is not there."""
        command = [
            *(sys.executable, "-m", "ansible", "adhoc", ",".join(hosts)),
            *("--become", "--module-name", "berth.odoo.ledger", "--args", json.dumps({"record": record})),
            *connection_arguments(dict(context.CLIARGS)),
        ]
        # It is no run of its own to write down, and its answer is read here. AWX forces colours, which win over none, and brings a callback that writes
        # into every output, also where none shall be loaded.
        environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CALLBACK_PLUGINS"}
        output = {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "0", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        output |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                env={**environment, **output},
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return {}, dict.fromkeys(hosts, f"no answer within {TIMEOUT} s")
        kept: dict[str, str] = {}
        failed: dict[str, str] = {}
        for match in _ANSWER.finditer(done.stdout):
            answer = json.JSONDecoder().raw_decode(done.stdout, match.end())[0]
            if "line" in answer:
                kept[match[1]] = answer["line"]
            else:
                failed[match[1]] = str(answer.get("msg", match[2]))
        words = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        failed.update({host: words for host in hosts if host not in kept and host not in failed})
        return kept, failed

    def _now(self) -> str:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _write(self, record: dict[str, Any]) -> str:
        return _ledger.append(self._path, {**record, "time": self._now()})
