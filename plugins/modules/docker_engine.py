#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine
short_description: Install and configure Debian's Docker Engine without stopping a container
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Installs packages where they are missing, writes C(/etc/docker/daemon.json), and makes the running daemon follow it.
  - A new configuration is checked by C(dockerd --validate) before it replaces the old one. A daemon that does not start with it
    gets the old one back.
  - What dockerd can take over while it runs is reloaded. Anything else restarts dockerd, and only when live restore keeps the
    running containers.
  - What the daemon runs with is compared with the file on every run, so an interrupted run is completed by the next.
  - When nothing is to be done it takes a quarter of a second.
attributes:
  check_mode:
    description: Predicts, also where Docker is not installed yet.
    support: full
  diff_mode:
    description: Shows daemon.json before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  packages:
    description: Debian packages to install.
    type: list
    elements: str
    default: [docker.io, docker-cli, docker-compose]
  config:
    description:
      - Content of C(/etc/docker/daemon.json). Null, empty lists and empty dictionaries are left out.
      - The file belongs to this module. A change of C(data-root), C(storage-driver), C(userns-remap) or C(exec-root) is refused on a host
        in use, because it would hide all images, volumes and containers.
    type: dict
    default: {}
seealso:
  - name: Daemon configuration file
    description: All options of daemon.json.
    link: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

EXAMPLES = r"""
- name: Converge Docker
  berth.odoo.docker_engine:
    config:
      live-restore: true
      log-driver: journald
  become: true
"""

RETURN = r"""
changes:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: ["wrote /etc/docker/daemon.json", "reloaded dockerd"]
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _apt, _docker_engine, _systemd
from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable

CONFIG = Path("/etc/docker/daemon.json")
APPLIED = Path("/run/berth/docker-applied.json")
"""What was last handed to which dockerd. Gone after a reboot, and then the daemon has read the file itself."""
UNIT = "docker.service"


class EngineError(Exception):
    """The engine cannot become what was asked for. The message says what to type."""


class Engine:
    """One host's Docker Engine."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the module's parameters; nothing is looked at yet."""
        self.module = module
        self.wanted: dict[str, Any] = _docker_engine.without_nothing(module.params["config"])
        self.changes: list[str] = []
        self.diff: list[dict[str, str]] = []

    def converge(self) -> None:
        """Bring packages, file and daemon to what is wanted; refuse before anything is touched."""
        self.refuse_impossible()
        before = self.read()
        unit = _systemd.show(self.module.run_command, [UNIT])[UNIT]
        verb = self.needed(unit, before)
        self.install()
        self.write(before)
        self.enable(unit)
        if verb != "nothing":
            self.changes.append({"start": "started", "reload": "reloaded", "restart": "restarted"}[verb] + " dockerd")
            if not self.module.check_mode:
                self.act(verb, before)

    # -- before anything is touched

    def refuse_impossible(self) -> None:
        """Refuse what --validate accepts and what would break the host or every container on it."""
        try:
            networks = _docker_engine.host_networks(Path("/proc/net/route").read_text(encoding="ascii"))
            clashes = _docker_engine.overlaps(self.wanted.get("default-address-pools", []), networks)
        except ValueError as error:
            raise EngineError(f"docker_address_pools: {error}") from error
        if clashes:
            raise EngineError(f"docker_address_pools: {'; '.join(clashes)}. Choose another private network of that size.")
        limits = _docker_engine.ulimit_problems(
            self.wanted.get("default-ulimits", {}),
            Path("/proc/1/limits").read_text(encoding="ascii"),
            Path("/proc/1/status").read_text(encoding="utf-8"),
        )
        if limits:
            raise EngineError(f"docker_default_ulimits: {'; '.join(limits)}: no container would start. Lower it or leave it out.")

    def needed(self, unit: _systemd.Unit, before: dict[str, Any] | None) -> str:
        """Return what dockerd must do to follow the wanted configuration: nothing, start, reload or restart."""
        hidden = _docker_engine.hidden(before or {}, self.wanted)
        if unit.active != "active":
            self.refuse_hiding(hidden, before or {}, before is not None)
            return "start"
        info = self.ask("/info")
        self.refuse_hiding(hidden, before or {}, bool(info.get("Containers") or info.get("Images")))
        verb = _docker_engine.effort(self.running(unit, before), self.wanted)
        if verb == "nothing" and _docker_engine.mismatches(self.wanted, info):
            verb = "restart"
        if verb == "restart" and info.get("ContainersRunning") and not self.wanted.get("live-restore"):
            raise EngineError(
                f"dockerd must be restarted for this change and that would stop {info['ContainersRunning']} running containers. "
                "Type docker_live_restore: true, or stop the containers first."
            )
        return verb

    @staticmethod
    def refuse_hiding(options: list[str], before: dict[str, Any], in_use: bool) -> None:
        """Refuse to point dockerd to another place while the old one holds something."""
        if options and in_use:
            found = ", ".join(f"{key}: {json.dumps(before.get(key))}" for key in options)
            raise EngineError(
                f"{CONFIG} has {found}. A change would hide all images, volumes and containers of this host. "
                f"To keep it, type docker_daemon_extra: {{{found}}}. To change it, stop Docker, move the data, change {CONFIG} and run again."
            )

    def running(self, unit: _systemd.Unit, before: dict[str, Any] | None) -> dict[str, Any]:
        """Return the configuration that the running dockerd follows; empty when that cannot be known."""
        try:
            applied = json.loads(APPLIED.read_text(encoding="utf-8"))
            if applied["pid"] == unit.pid and isinstance(applied["config"], dict):
                return applied["config"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # never written, or gone with a reboot: the times below tell as much
        try:
            return (before or {}) if int(CONFIG.stat().st_mtime) <= unit.since else {}
        except OSError:
            return {}

    # -- packages

    def install(self) -> None:
        """Install what is missing. The daemon must not start before its configuration is there."""
        names = self.module.params["packages"]
        missing = [name for name in names if name not in _apt.installed(Path("/"), names)]
        if not missing:
            return
        self.changes.append(f"installed {', '.join(missing)}")
        if self.module.check_mode:
            return
        # With Docker's default networks, docker0 would keep their addresses until the next boot.
        fresh = not self.dockerd()
        if fresh:
            _systemd.command(self.module.run_command, "mask --runtime --quiet", "docker.service", "docker.socket")
        try:
            _apt.install(self.module.run_command, missing)
        finally:
            if fresh:
                _systemd.command(self.module.run_command, "unmask --runtime --quiet", "docker.service", "docker.socket")
        if fresh:
            # The package does that itself, but not for a masked unit.
            _systemd.command(self.module.run_command, "enable --quiet", "docker.service", "docker.socket")

    def dockerd(self) -> str | None:
        """Return the path of dockerd."""
        path: str | None = self.module.get_bin_path("dockerd", opt_dirs=["/usr/sbin"])
        return path

    # -- the file

    def read(self) -> dict[str, Any] | None:
        """Return daemon.json, nothing when there is none. A broken one counts as empty: dockerd cannot run with it."""
        try:
            content = json.loads(CONFIG.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, before: dict[str, Any] | None) -> None:
        """Validate and replace daemon.json where it differs."""
        if before == self.wanted:
            return
        text = json.dumps(self.wanted, indent=2, sort_keys=True) + "\n"
        self.validate(text)
        self.changes.append(f"wrote {CONFIG}")
        old = CONFIG.read_text(encoding="utf-8", errors="replace") if before is not None else ""
        self.diff.append({"before_header": str(CONFIG), "after_header": str(CONFIG), "before": old, "after": text})
        if not self.module.check_mode:
            self.replace(text)

    def validate(self, text: str) -> None:
        """Let dockerd judge the configuration, where it is installed."""
        dockerd = self.dockerd()
        if dockerd is None:
            return
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir="/run", prefix="berth-", suffix=".json") as candidate:
            candidate.write(text)
            candidate.flush()
            code, output, errors = self.module.run_command([dockerd, "--validate", "--config-file", candidate.name])
        if code:
            words = (errors.strip() or output.strip()).replace(candidate.name, "daemon.json")
            raise EngineError(f"dockerd refuses the configuration: {words}. {CONFIG} was not touched. Correct docker_daemon_extra.")

    def replace(self, text: str) -> None:
        """Replace daemon.json atomically."""
        CONFIG.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        candidate = CONFIG.with_name(".daemon.json.berth")
        candidate.write_text(text, encoding="utf-8")
        candidate.chmod(0o644)
        candidate.replace(CONFIG)

    # -- the daemon

    def enable(self, unit: _systemd.Unit) -> None:
        """Start Docker at boot, also when somebody switched that off."""
        if unit.enabled == "enabled" or unit.load == "not-found":
            return
        self.changes.append("enabled docker.service")
        if not self.module.check_mode:
            if unit.enabled == "masked-runtime":
                # An earlier run was killed while it installed. A mask of somebody else's is not of this kind.
                _systemd.command(self.module.run_command, "unmask --runtime --quiet", "docker.service", "docker.socket")
                _systemd.command(self.module.run_command, "enable --quiet", "docker.socket")
            _systemd.command(self.module.run_command, "enable --quiet", "docker.service")

    def act(self, verb: str, before: dict[str, Any] | None) -> None:
        """Make dockerd follow the file; give it the old file back when it cannot."""
        run = self.module.run_command
        if verb != "start":
            # Also before a restart: live restore must be on in the daemon that ends.
            _systemd.command(run, "reload", "docker.service")
            self.await_live_restore()
        if verb != "reload":
            try:
                # Without this, three failed starts in the past minute would count against this one.
                run(["systemctl", "reset-failed", "docker.service"])
                _systemd.command(run, verb, "docker.service")
            except _systemd.SystemdError as error:
                raise EngineError(self.roll_back(before, str(error))) from error
        state = _systemd.show(run, [UNIT])[UNIT]
        APPLIED.parent.mkdir(mode=0o755, exist_ok=True)
        APPLIED.write_text(json.dumps({"pid": state.pid, "config": self.wanted}), encoding="utf-8")

    def roll_back(self, before: dict[str, Any] | None, reason: str) -> str:
        """Give dockerd the configuration back with which it ran, and return the message."""
        if before is None or before == self.wanted:
            return f"dockerd does not start: {reason}"
        self.replace(json.dumps(before, indent=2, sort_keys=True) + "\n")
        run = self.module.run_command
        run(["systemctl", "reset-failed", "docker.service"])
        code, _output, errors = run(["systemctl", "restart", "docker.service"])
        again = "It runs with the old one again" if code == 0 else f"It does not start with the old one either ({errors.strip()})"
        return f"dockerd did not start with the new configuration. {again}. It said: {reason}"

    def await_live_restore(self) -> None:
        """Wait until a reload has switched live restore: SIGHUP is handled in the background."""
        deadline = time.monotonic() + 60
        while self.ask("/info").get("LiveRestoreEnabled") != self.wanted.get("live-restore", False):
            if time.monotonic() > deadline:
                raise EngineError("dockerd did not switch live-restore within 60 s of a reload. Look at: journalctl -u docker -n 50")
            time.sleep(0.1)

    def ask(self, path: str) -> dict[str, Any]:
        """GET from the engine."""
        try:
            with DockerClient(timeout=20) as engine:
                answer: dict[str, Any] = engine.get(path)
                return answer
        except (DockerUnavailable, DockerError) as error:
            raise EngineError(f"dockerd runs but does not answer: {error}. Look at: journalctl -u docker -n 50") from error


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": ["docker.io", "docker-cli", "docker-compose"]},
            "config": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    engine = Engine(module)
    try:
        engine.converge()
    except (EngineError, _apt.AptError, _systemd.SystemdError, OSError) as error:
        module.fail_json(msg=str(error), changes=engine.changes, changed=False)
    module.exit_json(changed=bool(engine.changes), changes=engine.changes, diff=engine.diff)


if __name__ == "__main__":
    main()
