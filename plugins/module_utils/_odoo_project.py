# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking and changing one Odoo instance on its host, through the containers of its Compose project.

Questions go into a container that runs already (0.2 s); work goes into a container of its own, made from the project's
``maintenance`` service, because it must reach PostgreSQL without a transaction pooler and must survive this process.
"""

from __future__ import annotations

import contextlib
import getpass
import inspect
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.berth.odoo.plugins.module_utils import _compose_files as files
from ansible_collections.berth.odoo.plugins.module_utils import _odoo_inside
from ansible_collections.berth.odoo.plugins.module_utils._compose import (
    COMPOSE_ONEOFF,
    COMPOSE_PROJECT,
    COMPOSE_SERVICE,
    ManagedFile,
    compose_error,
    compose_missing,
)
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import (
    DockerClient,
    DockerError,
    DockerUnavailable,
)
from ansible_collections.berth.odoo.plugins.module_utils._odoo import (
    BrokenAnswer,
    error_lines,
    parse_answer,
    password_note,
)

MAINTENANCE = "maintenance"
# Containers that may answer questions, the best first.
LOGIN = {"PGSERVICEFILE": "/run/secrets/odoo/pg_service.conf", "PGSERVICE": "odoo"}
"""How Odoo logs in. Said again to a container that was made before there was such a file, where the new configuration is there already."""
ANSWERING = ("web", "websocket", "cron")
# Beyond a container's own time to stop, for the daemon to report it.
STOP_MARGIN_S = 30
# How long a container that was started again is waited for, and how often it is looked at.
WELL_S = 60
POLL_S = 0.5


class OdooError(Exception):
    """An instance refused or failed. The text is for the operator; nothing in it is secret."""


class Silent(Exception):
    """No container of the project runs, or Docker itself does not."""


class OdooProject:
    """The Compose project of one instance.

    Args:
        name: Project name, such as ``odoo-main``.
        base_dir: Directory that holds the projects.
        caller: The module that asks; other operations see it as the holder of the lock.
    """

    def __init__(self, name: str, base_dir: str, caller: str) -> None:
        """Remember what is asked for; nothing is contacted yet."""
        self.name = name
        self.base_dir = base_dir
        self.directory = Path(base_dir) / name
        self.who = f"{caller} by {os.environ.get('SUDO_USER') or getpass.getuser()} on {platform.node()}"
        self.docker = DockerClient()

    @property
    def deployed(self) -> bool:
        """Whether compose_project has written this project to the host."""
        return (self.directory / "compose.yml").is_file()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put a question to a container that runs.

        Raises:
            Silent: None runs.
            OdooError: The container cannot answer, for example because the database is down.
        """
        try:
            running = self._containers()
        except DockerUnavailable as error:
            raise Silent from error
        for service in ANSWERING:
            for container in running.get(service, []):
                try:
                    rc, stdout, stderr = self.docker.exec(container, _program(), env=LOGIN, stdin=self._encode(request))
                except DockerError:
                    continue  # it stopped since the list was made
                return self._decode(rc, stdout, stderr, f"service {service}")
        raise Silent

    def work(self, request: Mapping[str, Any], seconds: int, pause: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
        """Carry out a request in a maintenance container, holding the project's lock.

        Args:
            request: What to do; ``wait`` is how long another run on the same project or database may take, in seconds.
            seconds: When to give up and end the container.
            pause: Services that must not run meanwhile.

        Returns:
            The answer, and the errors that Odoo logged nevertheless.

        Raises:
            OdooError: It was refused or failed, with Odoo's own words.
            HostError: Another run holds the project's lock.
        """
        with files.project_lock(self.name, request["wait"], self.who) as lock, self._paused(pause):
            return self._run(request, seconds, lock)

    def _run(self, request: Mapping[str, Any], seconds: int, lock: int) -> tuple[dict[str, Any], list[str]]:
        container = f"{self.name}-{MAINTENANCE}-{os.getpid()}"
        command = ["docker", "compose", "--ansi", "never", "--project-name", self.name, "--env-file", "/dev/null"]
        command += ["--project-directory", str(self.directory), "--file", str(self.directory / "compose.yml")]
        command += ["run", "--rm", "--no-deps", "-T", "--name", container, MAINTENANCE, *_program()]
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment.update(DOCKER_HOST=f"unix://{self.docker.socket_path}", LC_ALL="C.UTF-8")
        try:
            # run_command has no time limit and hands on no lock.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                command,
                input=self._encode(request),
                capture_output=True,
                timeout=seconds,
                check=False,
                env=environment,
                pass_fds=(lock,),
            )
        except subprocess.TimeoutExpired as error:
            with contextlib.suppress(DockerError):
                self.docker.delete(f"/containers/{container}", force=True)
            last = error_lines((error.stderr or b"").decode("utf-8", "replace"))
            raise OdooError(
                "\n".join([f"Odoo did not finish within {seconds} s and was ended; raise 'timeout' if the work is that long", *last])
            ) from error
        except FileNotFoundError as error:
            raise OdooError("the command docker is not on this host: run the docker role first") from error
        stdout, stderr = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
        if compose_missing(stderr):
            raise OdooError("docker has no compose plugin on this host: run the docker role first")
        return self._decode(done.returncode, stdout, stderr, "the maintenance container"), error_lines(stderr)

    def module_problems(self, names: Sequence[str]) -> list[str]:
        """Return why the image that runs now cannot install modules; the one that replaces it may. Empty when none runs."""
        if not names:
            return []
        try:
            return _odoo_inside.module_problems(names, self.ask({"do": "available"})["available"])
        except Silent:
            return []

    def runs(self, services: Sequence[str]) -> bool:
        """Tell whether a container of one of these services runs."""
        return bool(services) and not self._containers().keys().isdisjoint(services)

    @contextlib.contextmanager
    def _paused(self, services: Sequence[str]) -> Iterator[None]:
        """Stop services while something is done, then start those that ran.

        They end their current work first: a container's own time to stop counts. A run that is killed in between leaves them
        stopped, and the next compose_project starts them.
        """
        running = self._containers() if services else {}
        stopped: list[str] = []
        try:
            for container in (item for service in services for item in running.get(service, [])):
                grace = self.docker.get(f"/containers/{container}/json")["Config"].get("StopTimeout") or 10
                stopped.append(container)
                with DockerClient(timeout=grace + STOP_MARGIN_S) as patient:
                    patient.post(f"/containers/{container}/stop")
            yield
        finally:
            for container in stopped:
                self.docker.post(f"/containers/{container}/start")
            self._wait_for(stopped)

    def _wait_for(self, containers: Sequence[str]) -> None:
        """Wait until containers are well, a minute at most; what is ill is for compose_project to say.

        Whoever stops one before would wait for as long as its longest work may take: the first process of a container does not hear SIGTERM until it
        has said what to do with it, and Odoo says that after its imports.
        """
        end = time.monotonic() + WELL_S
        for container in containers:
            while time.monotonic() < end:
                state = self.docker.get(f"/containers/{container}/json")["State"]
                if not state["Running"] or (state.get("Health") or {}).get("Status", "healthy") == "healthy":
                    break
                time.sleep(POLL_S)

    # --- the administrator's password -----------------------------------------------------------------------------------

    def password_is_known(self, stored: str, password: str) -> bool:
        """Tell whether this host has seen that a password belongs to a stored hash."""
        key = files.read_key(self.base_dir)
        noted = files.ProjectDirectory(files.LOCK_DIRECTORY).read(self._note_name)
        return key is not None and noted is not None and noted.content.decode() == password_note(key, stored, password)

    def note_password(self, stored: str, password: str) -> None:
        """Remember until the next boot that a password belongs to a stored hash."""
        note = password_note(files.ensure_key(self.base_dir), stored, password).encode()
        files.ProjectDirectory(files.LOCK_DIRECTORY).write(
            ManagedFile(self._note_name, note, os.geteuid(), os.getegid(), 0o600, True, (), ())
        )

    @property
    def _note_name(self) -> str:
        return f"{self.name}.password-seen"

    # --- Docker ---------------------------------------------------------------------------------------------------------

    def _containers(self) -> dict[str, list[str]]:
        """Return the ids of the project's running containers by service."""
        labels = [f"{COMPOSE_PROJECT}={self.name}"]
        listed = self.docker.get("/containers/json", filters={"label": labels, "status": ["running"]})
        found: dict[str, list[str]] = {}
        for entry in listed:
            if entry["Labels"].get(COMPOSE_ONEOFF, "").lower() != "true":
                found.setdefault(entry["Labels"].get(COMPOSE_SERVICE, ""), []).append(entry["Id"])
        return found

    def _encode(self, request: Mapping[str, Any]) -> bytes:
        return json.dumps({**request, "who": self.who}).encode()

    def _decode(self, rc: int, stdout: str, stderr: str, where: str) -> dict[str, Any]:
        """Return an answer, or raise what it says."""
        try:
            answer = parse_answer(stdout)
        except BrokenAnswer as error:
            words = error_lines(stderr) or compose_error(stderr).splitlines()
            raise OdooError("\n".join([f"{where} of {self.name} ended with exit code {rc} and no answer", *words])) from error
        if "refused" in answer:
            raise OdooError(answer["refused"])
        if "failed" in answer:
            raise OdooError("\n".join([f"Odoo failed: {answer['failed']}", *error_lines(stderr)]))
        return answer


def _program() -> list[str]:
    """Return the command that answers requests inside a container."""
    return ["python3", "-I", "-c", inspect.getsource(_odoo_inside)]
