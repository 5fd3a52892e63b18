# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What compose_project does to the containers of one project: look, start, stop, wait, reload, and explain what failed.

Everything goes through the Docker API, except what Compose alone knows: how to turn a definition into containers, and in which
order to stop them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ansible_collections.berth.odoo.plugins.module_utils import _compose as compose
from ansible_collections.berth.odoo.plugins.module_utils._compose import Container, Reload
from ansible_collections.berth.odoo.plugins.module_utils._compose_files import HostError
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import DockerClient, DockerError, DockerUnavailable

COMPOSE_FILE = "compose.yml"
LOG_LINES = 20
POLL_SECONDS = 0.25
STABLE_SECONDS = 1.0
"""A container without a health check counts as started when it has been running this long."""
CRASH_LOOP_SECONDS = 20.0
"""A service that its restart policy restarts again and again is given up only after this time: some wait for a peer by dying."""
STOP_TIMEOUT = 3600.0
"""Seconds for one stop request; the container's own stop_grace_period ends it much earlier."""
VALIDATE_TIMEOUT = 60.0
END_TIMEOUT = 30.0
"""Seconds that a docker compose has, which took too long and was told to end. Then it is killed: what it asked of the daemon goes on there either way."""
NOT_FOUND = 404


class ConvergeError(Exception):
    """The project could not be brought into the wanted state.

    Attributes:
        failures: For each service that failed, the reason and its last log lines.
    """

    def __init__(self, message: str, failures: Sequence[Mapping[str, Any]] = ()) -> None:
        """Keep the failures beside the message, which already contains them in words."""
        super().__init__(message)
        self.failures = list(failures)


class Engine:
    """The containers and networks of one Compose project.

    Args:
        docker: Client of the host's daemon.
        name: Project name.
        directory: Absolute path of the project directory.
        definition: Merged, normalised definition; empty when the project is only removed.
        sensitive: Contents of sensitive files, whose secrets are hidden in everything a container says.
        wait_timeout: Seconds for services to become well.
    """

    def __init__(
        self,
        docker: DockerClient,
        name: str,
        directory: str,
        definition: Mapping[str, Any],
        sensitive: Iterable[bytes],
        wait_timeout: float,
    ) -> None:
        """Remember the project; nothing is asked or changed yet."""
        self.docker = docker
        self.name = name
        self.directory = directory
        self.definition = definition
        self.wait_timeout = wait_timeout
        self.lock: int | None = None
        self._sensitive = list(sensitive)
        self._one_shots = compose.one_shots(definition)

    def hide(self, content: bytes) -> None:
        """Hide the secrets of one more sensitive file in everything a container says."""
        self._sensitive.append(content)

    # --- looking --------------------------------------------------------------------------------------------------------

    def installed(self) -> bool:
        """Tell whether Docker was ever installed here. False excludes that containers exist; a stopped daemon does not."""
        return Path(self.docker.socket_path).exists() or shutil.which("docker") is not None

    def containers(self) -> list[Container]:
        """Return all containers of the project, also those that ``docker compose run`` made."""
        label = f"{compose.COMPOSE_PROJECT}={self.name}"
        entries = self.docker.get("/containers/json", all=True, filters={"label": [label]})
        return [compose.parse_container(entry) for entry in entries]

    def _inspect(self, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the full description of the containers of some services."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for item in self.containers():
            if item.service in found and not compose.is_oneoff(item):
                try:
                    found[item.service].append(self.docker.get(f"/containers/{item.id}/json"))
                except DockerError as error:
                    if error.status != NOT_FOUND:  # gone between the two requests: then it is missing, as below
                        raise
        return found

    def missing_networks(self, more: Iterable[str] = ()) -> list[str]:
        """Return the external networks, and others, that the services need and that do not exist."""
        wanted = list(dict.fromkeys([*compose.external_networks(self.definition, self.name), *more]))
        if not wanted:
            return []
        existing = {entry["Name"] for entry in self.docker.get("/networks")}
        return [name for name in wanted if name not in existing]

    def own_networks(self) -> list[dict[str, Any]]:
        """Return the networks that Compose made for this project."""
        label = f"{compose.COMPOSE_PROJECT}={self.name}"
        return list(self.docker.get("/networks", filters={"label": [label]}))

    def probe(self, item: Container) -> str | None:
        """Run a container's health check now; return what is wrong, None when it passes."""
        try:
            check = (self.docker.get(f"/containers/{item.id}/json").get("Config") or {}).get("Healthcheck") or {}
            command = compose.probe_command(check.get("Test") or [])
            if not command:
                return "it has no health check any more"
            timeout = (check.get("Timeout") or 30e9) / 1e9
            with DockerClient(self.docker.socket_path, timeout=timeout) as client:
                result = client.exec(item.id, command)
        except (DockerError, DockerUnavailable) as error:
            return str(error)
        if result.rc == 0:
            return None
        words = " ".join((result.stdout + result.stderr).split())[-300:]
        return self._masked(f"exit code {result.rc}: {words}" if words else f"exit code {result.rc}")

    # --- Compose --------------------------------------------------------------------------------------------------------

    def docker_command(self) -> str:
        """Return the path of the docker command.

        Raises:
            HostError: It is not installed.
        """
        path = shutil.which("docker")
        if path is None:
            raise HostError(
                "the command docker is not on this host. Install it with the role berth.odoo.docker, "
                "or on Debian: apt-get install docker.io docker-cli docker-compose"
            )
        return path

    def _compose(self, arguments: Sequence[str], timeout: float | None, compose_file: str = "") -> tuple[int, str]:
        """Run docker compose for this project; return its exit code and what it wrote on stderr.

        Nothing of the caller's environment can change what it does. It inherits the lock, so that no other run starts
        while it works, even when we are killed.

        Raises:
            HostError: Docker has no compose plugin.
        """
        command = [self.docker_command(), "compose", "--ansi", "never", "--progress", "plain", "--project-name", self.name]
        command += ["--project-directory", self.directory, "--env-file", "/dev/null"]
        command += ["--file", compose_file or f"{self.directory}/{COMPOSE_FILE}", *arguments]
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment.update(DOCKER_HOST=f"unix://{self.docker.socket_path}", LC_ALL="C.UTF-8")
        note = ""
        # Ansible's run_command can neither end what it started after some time nor run outside of a module.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=self.directory,
            start_new_session=True,
            pass_fds=() if self.lock is None else (self.lock,),
        ) as process:
            try:
                _stdout, stderr = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    _stdout, stderr = process.communicate(timeout=END_TIMEOUT)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    _stdout, stderr = process.communicate()
                note = f"\ndocker compose {arguments[0]} was ended after {timeout:g} s"
        text = stderr.decode("utf-8", "replace")
        if process.returncode and compose.compose_missing(text):
            raise HostError(
                "docker has no compose plugin on this host. Install it with the role berth.odoo.docker, "
                "or on Debian: apt-get install docker-compose"
            )
        return process.returncode, text + note

    def validate(self, path: str) -> None:
        """Let Compose read a definition.

        Raises:
            HostError: It refuses it; the message is Compose's own.
        """
        rc, stderr = self._compose(["config", "--quiet"], VALIDATE_TIMEOUT, path)
        if rc:
            complaint = compose.compose_error(stderr).replace(path, COMPOSE_FILE)
            raise HostError(
                f"project {self.name}: Compose refuses the definition, no container was touched: {complaint}. "
                "Check the definition and its override"
            )

    def up(self, names: Sequence[str], flags: Sequence[str], touched: Sequence[str]) -> None:
        """Create or start the containers of some services, and no others.

        Args:
            names: The services.
            flags: Further flags of ``docker compose up``.
            touched: All services of this run, to find the culprit when it fails.

        Raises:
            ConvergeError: Compose failed.
        """
        services = [self.definition["services"][name] for name in names]
        grace = sum(compose.seconds(service.get("stop_grace_period"), 10) for service in services)
        start = sum(compose.seconds((service.get("healthcheck") or {}).get("start_period"), 0) for service in services)
        # Stopping the old containers, and waiting for dependencies that are started in the same call.
        timeout = grace + start + max(self.wait_timeout, 60.0)
        arguments = ["up", "--detach", "--no-build", "--pull", "never", "--no-deps", "--remove-orphans", *flags, *names]
        rc, stderr = self._compose(arguments, timeout)
        if rc:
            self._fail(touched, compose.compose_error(stderr) or f"docker compose ended with exit code {rc}")

    def stop_all(self) -> None:
        """Stop every container of the project, dependents first.

        Raises:
            ConvergeError: Compose failed.
        """
        rc, stderr = self._compose(["stop"], None)
        if rc:
            raise ConvergeError(f"project {self.name}: cannot be stopped: {compose.compose_error(stderr)}")

    # --- single containers and networks ---------------------------------------------------------------------------------

    def restart(self, item: Container) -> None:
        """Stop and start a container in its own time."""
        with DockerClient(self.docker.socket_path, timeout=STOP_TIMEOUT) as client:
            client.post(f"/containers/{item.id}/restart")

    def unpause(self, item: Container) -> None:
        """Let a paused container go on."""
        self.docker.post(f"/containers/{item.id}/unpause")

    def remove(self, item: Container) -> None:
        """Stop a container in its own time and remove it with its anonymous volumes; named ones stay."""
        with DockerClient(self.docker.socket_path, timeout=STOP_TIMEOUT) as client:
            try:
                if item.state in ("running", "restarting", "paused"):
                    client.post(f"/containers/{item.id}/stop")
                client.delete(f"/containers/{item.id}", v=True, force=True)
            except DockerError as error:
                if error.status != NOT_FOUND:  # gone by itself
                    raise

    def create_network(self, name: str) -> None:
        """Make an external network that several projects share."""
        self.docker.post("/networks/create", {"Name": name, "Driver": "bridge", "Labels": {compose.LABEL_MANAGED: "true"}})

    def remove_network(self, entry: Mapping[str, Any]) -> str | None:
        """Remove a network; return why that was not possible, None when it is gone."""
        try:
            self.docker.delete(f"/networks/{entry['Id']}")
        except DockerError as error:
            return None if error.status == NOT_FOUND else error.message
        return None

    def connect(self, item: Container, network: str) -> None:
        """Let a container, as it runs, join a network, under the names that it has on its own networks."""
        names = compose.aliases(self.definition, item.service)
        self.docker.post(f"/networks/{network}/connect", {"Container": item.id, "EndpointConfig": {"Aliases": names}})

    def disconnect(self, item: Container, network: str) -> None:
        """Let a container, as it runs, leave a network. The last one takes the network along."""
        self.docker.post(f"/networks/{network}/disconnect", {"Container": item.id})
        entry = self.docker.get(f"/networks/{network}")
        if not entry.get("Containers") and (entry.get("Labels") or {}).get(compose.LABEL_MANAGED):
            self.remove_network(entry)

    # --- waiting --------------------------------------------------------------------------------------------------------

    def restart_counts(self, names: Iterable[str]) -> dict[str, int]:
        """Return how often the restart policy has already restarted each container of some services."""
        return {item["Id"]: int(item.get("RestartCount") or 0) for group in self._inspect(names).values() for item in group}

    def wait(self, names: Sequence[str], baseline: Mapping[str, int]) -> None:
        """Wait until every one of some services is well.

        Args:
            names: The services.
            baseline: Restarts that happened before this run, by container.

        Raises:
            ConvergeError: One stays unhealthy, ended, or restarts again and again, or the time is over.
        """
        started = time.monotonic()
        steady: dict[str, float] = {}
        while True:
            now = time.monotonic()
            limit = self.wait_timeout
            verdicts: dict[str, str] = {}
            for name, group in self._inspect(names).items():
                judged = ["well"] if group or not compose.replicas(self.definition["services"][name]) else ["waiting"]
                for item in group:
                    limit = max(limit, compose.health_allowance(item))
                    judged.append(self._verdict(item, baseline, steady, now, now - started))
                verdicts[name] = min(judged)  # "failed" < "waiting" < "well"
            failed, waiting = ([name for name in names if verdicts[name] == verdict] for verdict in ("failed", "waiting"))
            if failed:
                self._fail(failed, "", waiting)
            if not waiting:
                return
            if now - started > limit:
                self._fail(waiting, f"not well within {limit:g} s (wait_timeout): {', '.join(waiting)}")
            time.sleep(POLL_SECONDS)

    def _verdict(self, item: Mapping[str, Any], baseline: Mapping[str, int], steady: dict[str, float], now: float, elapsed: float) -> str:
        """Judge one container: ``failed``, ``waiting`` or ``well``."""
        restarts = int(item.get("RestartCount") or 0) - baseline.get(item["Id"], 0)
        looping = restarts >= compose.CRASH_LOOP_RESTARTS and elapsed >= min(CRASH_LOOP_SECONDS, self.wait_timeout)
        one_shot = item["Config"]["Labels"].get(compose.COMPOSE_SERVICE) in self._one_shots
        verdict = compose.judge(item, one_shot=one_shot, looping=looping)
        if verdict != "running":
            return verdict
        # Without a health check a container is well when it stays up for a moment. A restart begins a new moment.
        since = steady.setdefault(f"{item['Id']} {item['State'].get('StartedAt')}", now)
        return "well" if now - since >= STABLE_SECONDS and not one_shot else "waiting"

    # --- reloading ------------------------------------------------------------------------------------------------------

    def run_reload(self, entry: Reload, dests: Sequence[str]) -> None:
        """Let a running service take over changed files.

        Raises:
            ConvergeError: The command failed.
        """
        for item in self.containers():
            if item.service != entry.service or item.state != "running" or compose.is_oneoff(item):
                continue
            problem = self._reload(entry, item)
            if problem:
                reason = f"did not take over {', '.join(dests)}: {entry.describe()}: {problem}"
                raise ConvergeError(
                    f"project {self.name}: service {entry.service} {reason}. The files are in place; the next run tries again",
                    [{"service": entry.service, "container": item.name, "reason": reason, "log": self._log(item.id)}],
                )

    def _reload(self, entry: Reload, item: Container) -> str:
        """Run one reload; return what went wrong, empty when nothing did."""
        try:
            if entry.signal:
                return self._send_signal(entry.signal, item)
            result = self.docker.exec(item.id, entry.command)
        except (DockerError, DockerUnavailable) as error:
            return str(error)
        if result.rc:
            return self._masked(f"exit code {result.rc}: {(result.stderr.strip() or result.stdout.strip())[-1000:]}")
        return ""

    def _send_signal(self, name: str, item: Container) -> str:
        """Send a signal to a container's first process; return what went wrong, empty when nothing did.

        Not through Docker's own kill: any signal sent through it marks the container as stopped by hand, and with
        "unless-stopped" it then stays down after the next reboot (measured on Docker 26).
        """
        number = getattr(signal, f"SIG{name.removeprefix('SIG')}", None)
        if number is None:
            return f"there is no signal {name}"
        process = self.docker.get(f"/containers/{item.id}/json")["State"]["Pid"]
        try:
            if not process:
                raise ProcessLookupError
            os.kill(process, number)
        except ProcessLookupError:
            return "the container has stopped"
        return ""

    # --- failing --------------------------------------------------------------------------------------------------------

    def _masked(self, text: str) -> str:
        return compose.mask(text, compose.secret_words(self._sensitive))

    def _log(self, container_id: str) -> list[str]:
        return self._masked(self.docker.logs(container_id, LOG_LINES)).splitlines()

    def _fail(self, names: Iterable[str], problem: str, waiting: Sequence[str] = ()) -> NoReturn:
        """Raise a ConvergeError that says for each failed service why, and shows its last words."""
        failures = []
        for name, group in self._inspect(names).items():
            for item in group:
                reason = compose.failure_reason(item, name in self._one_shots)
                if reason is not None:
                    failures.append(
                        {
                            "service": name,
                            "container": item["Name"].lstrip("/"),
                            "reason": self._masked(self._explain(reason)),
                            "log": self._log(item["Id"]),
                        }
                    )
        message = compose.failure_message(self.name, failures, self._masked(self._explain(problem)), waiting)
        raise ConvergeError(message, failures)

    def _explain(self, reason: str) -> str:
        """Turn Docker's complaint about a port into who has it and what to do."""
        taken = compose.taken_port(reason)
        if taken:
            address, port = taken
            return f"cannot publish {address}:{port}: taken by {self._port_holder(port)}. Stop that, or publish another port"
        address_missing = compose.missing_address(reason)
        if address_missing:
            return f"cannot publish on {address_missing}: this host does not have that address"
        return reason

    def _port_holder(self, port: int) -> str:
        for entry in self.docker.get("/containers/json"):
            if any(item.get("PublicPort") == port for item in entry.get("Ports") or []):
                project = (entry.get("Labels") or {}).get(compose.COMPOSE_PROJECT)
                return f"container {entry['Names'][0].lstrip('/')}" + (f" of project {project}" if project else "")
        return listening_process(port) or "a process that could not be found"


def listening_process(port: int, proc: str = "/proc") -> str:
    """Return which process listens on a TCP port, with its systemd unit; empty when that cannot be found out.

    Only the short name is shown: a command line may hold secrets.
    """
    inodes: set[str] = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(FileNotFoundError):  # no IPv6 on this host
            inodes |= compose.listening_inodes(Path(proc, table).read_text(), port)
    targets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path(proc).iterdir() if targets else ():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, PermissionError, ProcessLookupError):  # it ended while we looked
            if any(str(entry.readlink()) in targets for entry in (process / "fd").iterdir()):
                unit = re.search(r"([\w@.\\-]+\.service)", (process / "cgroup").read_text())
                command = (process / "comm").read_text().strip()
                return f"process {process.name} ({command}{', ' + unit.group(1) if unit else ''})"
    return ""
