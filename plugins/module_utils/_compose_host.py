# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of compose_project on the managed host: look, decide, and unless it is only a prediction, act and wait.

Decisions are in ``_compose``, files in ``_compose_files``, the daemon's protocol in ``_docker_api``.

Order of an applying run, chosen so that a run killed anywhere is repaired by the next one:

1. the manifest: every file that exists or will exist, and which services must be recreated whatever their labels say;
2. files, then compose.yml: from here on, labels of running containers differ from the wanted ones;
3. containers, then waiting for their health, then reload commands;
4. the manifest again: what was reloaded, nothing pending.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.berth.odoo.plugins.module_utils import _compose as compose
from ansible_collections.berth.odoo.plugins.module_utils import _compose_files as files
from ansible_collections.berth.odoo.plugins.module_utils._compose import (
    Container,
    DataDirectory,
    ManagedFile,
    Reload,
    ServicePlan,
)
from ansible_collections.berth.odoo.plugins.module_utils._compose_files import HostError
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import (
    DockerClient,
    DockerError,
    DockerUnavailable,
)

COMPOSE_FILE = "compose.yml"
MANIFEST = ".berth.json"
LOG_LINES = 20
POLL_SECONDS = 0.25
STABLE_SECONDS = 1.0
"""A container without a health check counts as started when it has been running this long."""
CRASH_LOOP_RESTARTS = 3
CRASH_LOOP_SECONDS = 20.0
"""A service that its restart policy restarts this often is given up only after this time: some wait for a peer by dying."""


class ConvergeError(Exception):
    """The project could not be brought into the wanted state.

    Attributes:
        failures: For each service that failed, the reason and its last log lines.
    """

    def __init__(self, message: str, failures: Sequence[Mapping[str, Any]] = ()) -> None:
        """Keep the failures beside the message, which already contains them in words."""
        super().__init__(message)
        self.failures = list(failures)


@dataclass(frozen=True)
class Request:
    """Everything the controller sends."""

    name: str
    base_dir: str
    state: str
    wait_timeout: float
    lock_timeout: float
    definition: dict[str, Any]
    files: tuple[ManagedFile, ...]
    directories: tuple[DataDirectory, ...]
    holder: str = "Ansible"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Request:
        """Build a request from its JSON form, in which file contents are base64."""
        return cls(
            name=raw["name"],
            base_dir=raw["base_dir"],
            state=raw["state"],
            wait_timeout=raw["wait_timeout"],
            lock_timeout=raw["lock_timeout"],
            definition=raw["definition"],
            files=tuple(
                ManagedFile(
                    dest=item["dest"],
                    content=base64.b64decode(item["content"]),
                    owner=item["owner"],
                    group=item["group"],
                    mode=item["mode"],
                    sensitive=item["sensitive"],
                    services=tuple(item["services"]),
                    reloads=tuple(Reload(entry["service"], tuple(entry["command"]), entry["signal"]) for entry in item["reloads"]),
                )
                for item in raw["files"]
            ),
            directories=tuple(DataDirectory(**item) for item in raw["directories"]),
            holder=raw["holder"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "base_dir": self.base_dir,
            "state": self.state,
            "wait_timeout": self.wait_timeout,
            "lock_timeout": self.lock_timeout,
            "definition": self.definition,
            "files": [
                {
                    "dest": item.dest,
                    "content": base64.b64encode(item.content).decode(),
                    "owner": item.owner,
                    "group": item.group,
                    "mode": item.mode,
                    "sensitive": item.sensitive,
                    "services": list(item.services),
                    "reloads": [
                        {"service": entry.service, "command": list(entry.command), "signal": entry.signal} for entry in item.reloads
                    ],
                }
                for item in self.files
            ],
            "directories": [vars(item) for item in self.directories],
            "holder": self.holder,
        }

    @property
    def project_dir(self) -> str:
        """Absolute path of the project directory."""
        return f"{self.base_dir.rstrip('/')}/{self.name}"


@dataclass
class Manifest:
    """What this module remembers in the project directory. Everything else it reads off the host."""

    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Managed files, each with the reloads to run when it is removed."""
    applied: dict[str, str] = field(default_factory=dict)
    """Digest of each reloadable file that a service has taken over, by ``dest|service``."""
    pending: dict[str, str] = field(default_factory=dict)
    """Services to recreate although their labels are right, with the reason, until that has been done."""
    config_hashes: dict[str, str] = field(default_factory=dict)
    """Compose's own digest of each service's containers as we left them; another one means somebody recreated them."""

    @classmethod
    def parse(cls, content: bytes, path: str) -> Manifest:
        """Read the JSON form.

        Raises:
            HostError: It is damaged. It is written atomically, so this was done by hand or by a disk.
        """
        try:
            raw = json.loads(content)
            return cls(*(dict(raw[name]) for name in ("files", "applied", "pending", "config_hashes")))
        except (ValueError, KeyError, TypeError) as error:
            raise HostError(f"{path} is damaged ({error}). Remove it and run again: every service will be looked at anew") from error

    def to_bytes(self) -> bytes:
        """Return the JSON form."""
        return (json.dumps(vars(self), indent=1, sort_keys=True) + "\n").encode()


@dataclass
class Outcome:
    """What a run did or would do, in the shape of the module's result."""

    changed: bool = False
    services: dict[str, ServicePlan] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=lambda: {"created": [], "changed": [], "removed": []})
    directories: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the module's result, without the diff."""
        return {
            "changed": self.changed,
            "services": {name: plan.result() for name, plan in self.services.items()},
            "files": self.files,
            "directories": self.directories,
            "networks": self.networks,
        }


class Project:
    """One project on this host.

    Args:
        request: The wanted state.
        docker: Client of the host's daemon.
        check: Only predict.
    """

    def __init__(self, request: Request, docker: DockerClient, check: bool) -> None:
        """Remember what is wanted; nothing is read or changed yet."""
        self.request = request
        self.docker = docker
        self.check = check
        self.directory = files.ProjectDirectory(request.project_dir)
        self.outcome = Outcome()
        self.manifest = Manifest()
        self.lock: int | None = None
        self.docker_missing = ""

    def run(self) -> Outcome:
        """Bring the project into the wanted state, or predict that.

        Raises:
            HostError: Nothing was changed, because the host forbids it.
            ConvergeError: Something was changed and a service failed.
            DockerUnavailable: The daemon cannot be reached.
        """
        if self.check:
            self._run()
        else:
            with files.project_lock(self.request.name, self.request.lock_timeout, self.request.holder) as self.lock:
                self._run()
        return self.outcome

    def _run(self) -> None:
        containers = self._containers_or_none()
        self._refuse_foreign(containers)
        state = self.directory.read(MANIFEST)
        if state:
            self.manifest = Manifest.parse(state.content, f"{self.directory.path}/{MANIFEST}")
        if self.request.state == "absent":
            self._absent(containers)
            return
        if state is None and self.directory.read(COMPOSE_FILE):
            raise HostError(
                f"{self.directory.path}/{COMPOSE_FILE} exists and was not written by this collection. "
                f"Move it away (its containers, if any, must be gone), or choose another name or base_dir"
            )
        self._converge(containers)

    # --- looking --------------------------------------------------------------------------------------------------------

    def _containers_or_none(self) -> list[Container]:
        """Return the project's containers. Without Docker: none when only predicting, or when it was never installed."""
        try:
            return self._containers()
        except DockerUnavailable as error:
            never_installed = not os.path.exists(self.docker.socket_path) and shutil.which("docker") is None
            if not self.check and not (never_installed and self.request.state == "absent"):
                raise
            self.docker_missing = str(error)
            return []

    def _containers(self) -> list[Container]:
        label = f"{compose.COMPOSE_PROJECT}={self.request.name}"
        entries = self.docker.get("/containers/json", all=True, filters={"label": [label]})
        return [compose.parse_container(entry) for entry in entries]

    def _refuse_foreign(self, containers: Sequence[Container]) -> None:
        foreign = compose.foreign_containers(containers, self.request.name)
        if foreign:
            names = ", ".join(sorted(item.name for item in foreign))
            place = foreign[0].labels.get(compose.COMPOSE_WORKING_DIR, "an unknown directory")
            raise HostError(
                f"a Compose project named '{self.request.name}' that this collection did not make already runs on this host, "
                f"from {place}: {names}. Choose another name, or remove it first: docker compose -p {self.request.name} down"
            )

    def _image_ids(self, active: Sequence[str]) -> dict[str, str | None]:
        """Return the id of each image in use.

        Raises:
            HostError: One is not on this host and containers shall run now.
        """
        services = self.request.definition["services"]
        ids: dict[str, str | None] = {str(service["image"]): None for service in services.values()}
        if self.docker_missing:
            return ids
        for reference in ids:
            ids[reference] = self.docker.image_id(reference)
        missing = {str(services[name]["image"]): name for name in active if ids[str(services[name]["image"])] is None}
        if missing and self.request.state == "present" and not self.check:
            listed = "\n".join(f"  {reference} (service {name})" for reference, name in missing.items())
            raise HostError(
                f"project {self.request.name}: images are not on this host, and nothing is pulled by itself:\n{listed}\n"
                "Put them there with the role berth.odoo.images, or by hand: docker pull IMAGE, or docker load -i ARCHIVE. "
                "Nothing was changed"
            )
        return ids

    # --- deciding -------------------------------------------------------------------------------------------------------

    def _converge(self, containers: Sequence[Container]) -> None:
        request = self.request
        definition = request.definition
        active = compose.active_services(definition)
        images = self._image_ids(active)
        key = files.read_key(request.base_dir)
        if key is None:
            key = secrets.token_bytes(32) if self.check else files.ensure_key(request.base_dir)
        inputs = {
            name: compose.service_inputs(key, request.project_dir, name, definition, request.files, images[str(service["image"])])
            for name, service in definition["services"].items()
        }
        hashes = {name: compose.combined_hash(key, parts) for name, parts in inputs.items()}
        text = compose.compose_file(request.name, definition, inputs, hashes)
        compose_yml = ManagedFile(COMPOSE_FILE, text.encode(), os.geteuid(), os.getegid(), 0o640, False, (), ())

        before = {item.dest: self.directory.read(item.dest) for item in (*request.files, compose_yml)}
        to_write = [item for item in request.files if not _matches(before[item.dest], item)]
        edited = {item.dest for item in to_write if _content_differs(before[item.dest], item)}
        stale = sorted(set(self.manifest.files) - {item.dest for item in request.files})
        own = [item for item in containers if not compose.is_oneoff(item)]

        if request.state == "stopped":
            plans = _plan_stop(own)
        else:
            plans = compose.plan_services(definition, request.name, own, inputs, hashes, self._forced(edited, own))
            self._explain_missing_images(plans, images)
        digests = {item.dest: compose.file_digest(key, item) for item in request.files if item.reloads}
        reloads = self._reloads(plans, digests, edited, stale) if request.state == "present" else {}

        writes_compose = not _matches(before[COMPOSE_FILE], compose_yml)
        self._record_files(to_write, stale, before, compose_yml if writes_compose else None)
        self.outcome.directories = [item.path for item in request.directories if files.directory_differs(item)]
        layout = self._layout_changes()
        self.outcome.services = _with_reloads(plans, reloads)
        acts = any(plan.how not in ("none", "wait") for plan in plans.values())
        if acts and request.state == "present":
            self.outcome.networks = self._missing_networks()
        self.outcome.changed = bool(acts or reloads or to_write or stale or writes_compose or layout or self.outcome.directories)
        waits = [name for name, plan in plans.items() if plan.how == "wait"]
        if self.check or not (self.outcome.changed or waits):
            return
        self._apply(compose_yml if writes_compose else None, to_write, stale, plans, reloads, digests, own)

    def _forced(self, edited: set[str], own: Sequence[Container]) -> dict[str, str]:
        """Return the services to recreate although their labels are right, with the reason."""
        forced = dict(self.manifest.pending)
        for item in self.request.files:
            if item.dest in edited and not item.reloads:
                forced.update(dict.fromkeys(item.services, f"file {item.dest} was changed on the host"))
        for container in own:
            ours = self.manifest.config_hashes.get(container.service)
            if ours and container.labels.get(compose.COMPOSE_CONFIG_HASH) != ours:
                forced[container.service] = "was recreated by somebody with another configuration"
        return forced

    def _explain_missing_images(self, plans: Mapping[str, ServicePlan], images: Mapping[str, str | None]) -> None:
        """In check mode images may still be missing; say so instead of guessing at their content."""
        if self.docker_missing:
            self.outcome.warnings.append(f"Docker cannot be reached yet ({self.docker_missing}): every service would be created")
            return
        for name, plan in plans.items():
            service = self.request.definition["services"].get(name)
            if service and images[str(service["image"])] is None and plan.action != compose.REMOVED:
                plan.reasons = [f"image {service['image']} is not on this host yet", *plan.reasons]

    def _reloads(
        self,
        plans: Mapping[str, ServicePlan],
        digests: Mapping[str, str],
        edited: set[str],
        stale: Sequence[str],
    ) -> dict[Reload, list[str]]:
        """Return the reloads to run, each with the files it is for. A service that is started anyway needs none."""
        wanted: dict[Reload, list[str]] = {}
        for item in self.request.files:
            for entry in item.reloads:
                done = self.manifest.applied.get(f"{item.dest}|{entry.service}") == digests[item.dest]
                if item.dest in edited or not done:
                    wanted.setdefault(entry, []).append(item.dest)
        for dest in stale:
            for raw in self.manifest.files[dest]:
                entry = Reload(raw["service"], tuple(raw["command"]), raw["signal"])
                wanted.setdefault(entry, []).append(dest)
        return {entry: dests for entry, dests in wanted.items() if entry.service in plans and plans[entry.service].how in ("none", "wait")}

    def _record_files(
        self,
        to_write: Sequence[ManagedFile],
        stale: Sequence[str],
        before: Mapping[str, files.FileState | None],
        compose_yml: ManagedFile | None,
    ) -> None:
        """Fill in the result's file lists and the diff."""
        for item in (*to_write, *((compose_yml,) if compose_yml else ())):
            old = before[item.dest]
            self.outcome.files["changed" if old else "created"].append(item.dest)
            self.outcome.diff.append(_file_diff(f"{self.directory.path}/{item.dest}", old, item))
        for dest in stale:
            old = self.directory.read(dest)
            if old:
                self.outcome.files["removed"].append(dest)
                header = f"{self.directory.path}/{dest}"
                self.outcome.diff.append({"before_header": header, "after_header": header, "before": "(managed file)\n", "after": ""})

    def _layout_changes(self) -> list[tuple[str, int, int]]:
        """Return the directories inside the project whose group or mode must change: (path, group, mode)."""
        secret = compose.secret_directories(self.request.files)
        wanted: dict[str, tuple[int, int]] = {}
        for item in self.request.files:
            parts = item.dest.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                path = "/".join(parts[:depth])
                wanted[path] = (secret[path], 0o750) if path in secret else (os.getegid(), 0o755)
        return [
            (path, group, mode) for path, (group, mode) in sorted(wanted.items()) if not self.directory.directory_matches(path, group, mode)
        ]

    def _missing_networks(self) -> list[str]:
        """Return the external networks that have to be made."""
        wanted = compose.external_networks(self.request.definition, self.request.name)
        if not wanted or self.docker_missing:
            return wanted
        existing = {entry["Name"] for entry in self.docker.get("/networks")}
        return [name for name in wanted if name not in existing]

    # --- acting ---------------------------------------------------------------------------------------------------------

    def _apply(
        self,
        compose_yml: ManagedFile | None,
        to_write: Sequence[ManagedFile],
        stale: Sequence[str],
        plans: dict[str, ServicePlan],
        reloads: Mapping[Reload, Sequence[str]],
        digests: Mapping[str, str],
        own: Sequence[Container],
    ) -> None:
        docker_command = self._docker_command()
        redone = {name for name, plan in plans.items() if plan.how in ("up", "force", "restart", "remove")}
        written = {item.dest for item in to_write}
        manifest = Manifest(
            files={**self.manifest.files, **_manifest_files(self.request.files)},
            applied={name: value for name, value in self.manifest.applied.items() if name.partition("|")[0] not in written},
            pending={
                **self.manifest.pending,
                **{name: plan.reasons[0] for name, plan in plans.items() if plan.how == "force"},
            },
            config_hashes={name: value for name, value in self.manifest.config_hashes.items() if name not in redone},
        )
        self._write_manifest(manifest)
        for path, group, mode in self._layout_changes():
            self.directory.ensure_directory(path, group, mode)
        for directory in self.request.directories:
            files.ensure_directory(directory)
        for item in to_write:
            self.directory.write(item)
        if compose_yml:
            self.directory.write(compose_yml, check=lambda path: self._validate(docker_command, path))
        for dest in stale:
            self.directory.remove(dest)

        if self.request.state == "stopped":
            if any(plan.how == "stop" for plan in plans.values()):
                self._compose(docker_command, ["stop"], timeout=None)
            manifest.files = _manifest_files(self.request.files)
            self._write_manifest(manifest)
            return
        self._start(docker_command, plans, own)
        self._run_reloads(reloads)
        manifest.files = _manifest_files(self.request.files)
        manifest.pending = {}
        for item in self.request.files:
            for entry in item.reloads:
                manifest.applied[f"{item.dest}|{entry.service}"] = digests[item.dest]
        wanted_keys = {f"{item.dest}|{entry.service}" for item in self.request.files for entry in item.reloads}
        manifest.applied = {name: value for name, value in manifest.applied.items() if name in wanted_keys}
        manifest.config_hashes = {
            item.service: item.labels.get(compose.COMPOSE_CONFIG_HASH, "") for item in self._containers() if not compose.is_oneoff(item)
        }
        self._write_manifest(manifest)

    def _write_manifest(self, manifest: Manifest) -> None:
        content = manifest.to_bytes()
        wanted = ManagedFile(MANIFEST, content, os.geteuid(), os.getegid(), 0o600, False, (), ())
        if not _matches(self.directory.read(MANIFEST), wanted):
            self.directory.write(wanted)

    def _docker_command(self) -> str:
        path = shutil.which("docker")
        if path is None:
            raise HostError(
                "the command docker is not on this host. Install it with the role berth.odoo.docker, "
                "or on Debian: apt-get install docker.io docker-cli docker-compose. Nothing was changed"
            )
        return path

    def _compose(
        self, docker_command: str, arguments: Sequence[str], timeout: float | None, compose_file: str | None = None
    ) -> tuple[int, str]:
        """Run docker compose for this project, return its exit code and what it wrote on stderr.

        Nothing of the caller's environment can change what it does. It inherits the lock, so that no other run starts
        while it works, even when we are killed.
        """
        directory = self.directory.path
        command = [docker_command, "compose", "--ansi", "never", "--progress", "plain", "--project-name", self.request.name]
        command += ["--project-directory", directory, "--env-file", "/dev/null"]
        command += ["--file", compose_file or f"{directory}/{COMPOSE_FILE}", *arguments]
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment.update(DOCKER_HOST=f"unix://{self.docker.socket_path}", LC_ALL="C.UTF-8")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=directory,
            start_new_session=True,
            pass_fds=() if self.lock is None else (self.lock,),
        ) as process:
            try:
                _stdout, stderr = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                _stdout, stderr = process.communicate()
        text = stderr.decode("utf-8", "replace")
        if process.returncode and compose.compose_missing(text):
            raise HostError(
                "docker has no compose plugin on this host. Install it with the role berth.odoo.docker, "
                "or on Debian: apt-get install docker-compose"
            )
        return process.returncode, text

    def _validate(self, docker_command: str, path: str) -> None:
        rc, stderr = self._compose(docker_command, ["config", "--quiet"], 60, path)
        if rc:
            complaint = compose.compose_error(stderr).replace(path, COMPOSE_FILE)
            raise HostError(
                f"project {self.request.name}: Compose refuses the definition, no container was touched: {complaint}. "
                "Check the role's compose override"
            )

    def _start(self, docker_command: str, plans: Mapping[str, ServicePlan], own: Sequence[Container]) -> None:
        """Bring the containers into the planned state and wait until all of them are well."""
        for name in self.outcome.networks:
            self.docker.post("/networks/create", {"Name": name, "Driver": "bridge", "Labels": {compose.LABEL_MANAGED: "true"}})
        by_service: dict[str, list[Container]] = {}
        for item in own:
            by_service.setdefault(item.service, []).append(item)
        for name, plan in plans.items():
            for item in by_service.get(name, []):
                if plan.how == "remove":
                    self._remove_container(item)
                elif plan.how == "unpause":
                    self.docker.post(f"/containers/{item.id}/unpause")
        touched = [name for name, plan in plans.items() if plan.how not in ("none", "remove")]
        started = time.monotonic()
        baseline = self._restart_counts(touched)
        for how, flags in (("force", ["--force-recreate"]), ("up", [])):
            names = [name for name, plan in plans.items() if plan.how == how]
            if names:
                self._up(docker_command, flags, names, touched)
        for name, plan in plans.items():
            if plan.how == "restart":
                for item in by_service.get(name, []):
                    self._with_long_timeout().post(f"/containers/{item.id}/restart")
        self._wait(touched, started, baseline)

    def _with_long_timeout(self) -> DockerClient:
        """Return a client for requests that last as long as a container takes to stop."""
        return DockerClient(self.docker.socket_path, timeout=3600)

    def _remove_container(self, item: Container) -> None:
        """Stop a container in its own time and remove it; anonymous volumes go, named ones stay."""
        client = self._with_long_timeout()
        try:
            if item.state in ("running", "restarting", "paused"):
                client.post(f"/containers/{item.id}/stop")
            client.delete(f"/containers/{item.id}", v=True, force=True)
        except DockerError as error:
            if error.status != 404:  # gone by itself
                raise
        finally:
            client.close()

    def _up(self, docker_command: str, flags: Sequence[str], names: Sequence[str], touched: Sequence[str]) -> None:
        arguments = ["up", "--detach", "--no-build", "--pull", "never", "--no-deps", "--remove-orphans", *flags, *names]
        rc, stderr = self._compose(docker_command, arguments, self._up_timeout(names))
        if rc:
            self._fail(touched, compose.compose_error(stderr) or f"docker compose ended with exit code {rc}")

    def _up_timeout(self, names: Iterable[str]) -> float:
        """Return the seconds docker compose may take: stopping the old containers, and waiting for dependencies."""
        services = self.request.definition["services"]
        grace = sum(compose.seconds(services[name].get("stop_grace_period"), 10) for name in names)
        start = sum(compose.seconds((services[name].get("healthcheck") or {}).get("start_period"), 0) for name in names)
        return grace + start + max(self.request.wait_timeout, 60)

    # --- waiting --------------------------------------------------------------------------------------------------------

    def _restart_counts(self, names: Iterable[str]) -> dict[str, int]:
        wanted = set(names)
        return {
            item.id: int(self.docker.get(f"/containers/{item.id}/json").get("RestartCount", 0))
            for item in self._containers()
            if item.service in wanted and not compose.is_oneoff(item)
        }

    def _inspect(self, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the full description of the containers of some services."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for item in self._containers():
            if item.service in found and not compose.is_oneoff(item):
                with contextlib.suppress(DockerError):  # it went away between the two requests; then it is missing
                    found[item.service].append(self.docker.get(f"/containers/{item.id}/json"))
        return found

    def _wait(self, names: Sequence[str], started: float, baseline: Mapping[str, int]) -> None:
        """Wait until every touched service is well.

        Raises:
            ConvergeError: One is unhealthy, ended, or restarts again and again, or the time is over.
        """
        finished = compose.one_shots(self.request.definition)
        steady: dict[str, tuple[str, float]] = {}
        while True:
            elapsed = time.monotonic() - started
            waiting, failed, limit = [], [], self.request.wait_timeout
            for name, containers in self._inspect(names).items():
                verdicts = []
                for item in containers:
                    restarts = int(item.get("RestartCount", 0)) - baseline.get(item["Id"], 0)
                    looping = restarts >= CRASH_LOOP_RESTARTS and elapsed >= min(CRASH_LOOP_SECONDS, limit)
                    verdict = compose.judge(item, one_shot=name in finished, looping=looping)
                    if verdict == "running":  # no health check: well when it stays up for a moment
                        mark = item["State"].get("StartedAt", "")
                        seen, since = steady.setdefault(item["Id"], (mark, time.monotonic()))
                        if seen != mark:
                            steady[item["Id"]] = (mark, time.monotonic())
                        verdict = "well" if seen == mark and time.monotonic() - since >= STABLE_SECONDS else "waiting"
                    verdicts.append(verdict)
                    limit = max(limit, compose.health_allowance(item))
                if "failed" in verdicts:
                    failed.append(name)
                elif "waiting" in verdicts or (not verdicts and compose.replicas(self.request.definition["services"][name])):
                    waiting.append(name)
            if failed:
                self._fail(failed, "", waiting)
            if not waiting:
                return
            if elapsed > limit:
                self._fail(waiting, f"not healthy within {limit:g} s (wait_timeout)")
            time.sleep(POLL_SECONDS)

    # --- reloading ------------------------------------------------------------------------------------------------------

    def _run_reloads(self, reloads: Mapping[Reload, Sequence[str]]) -> None:
        running: dict[str, list[Container]] = {}
        for item in self._containers() if reloads else []:
            if item.state == "running" and not compose.is_oneoff(item):
                running.setdefault(item.service, []).append(item)
        for entry, dests in reloads.items():
            for item in running.get(entry.service, []):
                problem = self._reload(entry, item)
                if problem:
                    raise ConvergeError(
                        f"project {self.request.name}: service {entry.service} did not take over {', '.join(dests)}: "
                        f"{entry.describe()}: {problem}. The files are in place; the next run tries again",
                        [{"service": entry.service, "reason": f"reload failed: {problem}", "log": self._log(item.id)}],
                    )

    def _reload(self, entry: Reload, item: Container) -> str:
        """Run one reload; return what went wrong, empty when nothing did."""
        try:
            if entry.signal:
                self.docker.post(f"/containers/{item.id}/kill", signal=entry.signal)
                return ""
            result = self.docker.exec(item.id, entry.command)
        except DockerError as error:
            return error.message
        if result.rc:
            words = (result.stderr.strip() or result.stdout.strip())[-1000:]
            return f"exit code {result.rc}: {self._masked(words)}"
        return ""

    # --- failing --------------------------------------------------------------------------------------------------------

    def _masked(self, text: str) -> str:
        return compose.mask(text, compose.secret_words(item.content for item in self.request.files if item.sensitive))

    def _log(self, container_id: str) -> list[str]:
        return self._masked(self.docker.logs(container_id, LOG_LINES)).splitlines()

    def _fail(self, names: Iterable[str], problem: str, waiting: Sequence[str] = ()) -> None:
        """Raise a ConvergeError that says for each failed service why, and shows its last words."""
        failures = []
        for name, containers in self._inspect(names).items():
            for item in containers:
                reason = compose.failure_reason(item, name in compose.one_shots(self.request.definition))
                if reason is None and not problem:
                    continue
                if reason is None:
                    continue
                failures.append(
                    {
                        "service": name,
                        "container": item["Name"].lstrip("/"),
                        "reason": self._masked(self._explain(reason)),
                        "log": self._log(item["Id"]),
                    }
                )
        message = compose.failure_message(self.request.name, failures, self._masked(self._explain(problem)), waiting)
        raise ConvergeError(message, failures)

    def _explain(self, reason: str) -> str:
        """Add to Docker's complaint about a port who has it."""
        taken = compose.taken_port(reason)
        if taken:
            address, port = taken
            holder = self._port_holder(port)
            return f"port {port} on {address or '0.0.0.0'} is already taken by {holder}. Stop that, or publish another port"
        address_missing = compose.missing_address(reason)
        if address_missing:
            return f"cannot publish on {address_missing}: this host does not have that address"
        return reason

    def _port_holder(self, port: int) -> str:
        for entry in self.docker.get("/containers/json"):
            if any(item.get("PublicPort") == port for item in entry.get("Ports") or []):
                name = entry["Names"][0].lstrip("/")
                project = (entry.get("Labels") or {}).get(compose.COMPOSE_PROJECT)
                return f"container {name}" + (f" of project {project}" if project else "")
        return _listening_process(port) or "an unknown process"

    # --- absent ---------------------------------------------------------------------------------------------------------

    def _absent(self, containers: Sequence[Container]) -> None:
        """Remove containers, the project's own networks and the files we wrote. Data and foreign files stay."""
        networks = self._own_networks()
        managed = [*self.manifest.files, *(name for name in (COMPOSE_FILE, MANIFEST) if self.directory.read(name))]
        if not self.manifest.files and not self.directory.read(MANIFEST):
            managed = []
        self.outcome.files["removed"] = [dest for dest in managed if self.directory.read(dest)]
        self.outcome.services = {item.service: ServicePlan(compose.REMOVED, ["state is absent"], "remove") for item in containers}
        self.outcome.networks = [entry["Name"] for entry in networks]
        self.outcome.changed = bool(containers or networks or self.outcome.files["removed"])
        if self.check or not self.outcome.changed:
            return
        if containers and self.directory.read(COMPOSE_FILE):
            # Compose stops in the order of dependencies; whatever it leaves is removed below.
            self._compose(self._docker_command(), ["stop"], timeout=None)
        for item in self._containers() if containers else []:
            self._remove_container(item)
        for entry in networks:
            self.docker.delete(f"/networks/{entry['Id']}")
        for dest in managed:
            self.directory.remove(dest)
        left = self.directory.remove_itself()
        if left:
            self.outcome.warnings.append(
                f"{self.directory.path} stays, because it holds what this collection did not write: {', '.join(left)}"
            )

    def _own_networks(self) -> list[dict[str, Any]]:
        if self.docker_missing:
            return []
        label = f"{compose.COMPOSE_PROJECT}={self.request.name}"
        return list(self.docker.get("/networks", filters={"label": [label]}))


# --- small helpers ------------------------------------------------------------------------------------------------------


def _matches(state: files.FileState | None, wanted: ManagedFile) -> bool:
    return state is not None and state.matches(wanted)


def _content_differs(state: files.FileState | None, wanted: ManagedFile) -> bool:
    return state is None or state.content != wanted.content


def _plan_stop(own: Sequence[Container]) -> dict[str, ServicePlan]:
    plans: dict[str, ServicePlan] = {}
    for item in own:
        if item.state in ("running", "restarting", "paused"):
            plans[item.service] = ServicePlan(compose.STOPPED, ["state is stopped"], "stop")
        else:
            plans.setdefault(item.service, ServicePlan())
    return plans


def _with_reloads(plans: Mapping[str, ServicePlan], reloads: Mapping[Reload, Sequence[str]]) -> dict[str, ServicePlan]:
    result = dict(plans)
    for entry, dests in reloads.items():
        reasons = [f"file {dest} changed" for dest in dests]
        known = result[entry.service]
        if known.action == compose.RELOADED:
            reasons = [*known.reasons, *(reason for reason in reasons if reason not in known.reasons)]
        result[entry.service] = ServicePlan(compose.RELOADED, reasons, known.how)
    return result


def _manifest_files(managed: Iterable[ManagedFile]) -> dict[str, list[dict[str, Any]]]:
    return {
        item.dest: [{"service": entry.service, "command": list(entry.command), "signal": entry.signal} for entry in item.reloads]
        for item in managed
    }


def _file_diff(path: str, old: files.FileState | None, new: ManagedFile) -> dict[str, str]:
    """Return Ansible's diff of one file; of a sensitive one only that it changed."""
    if new.sensitive:
        before, after = ("(sensitive)\n" if old else ""), "(sensitive, changed)\n"
        if old and old.content == new.content:
            after = "(sensitive)\n"
    else:
        before, after = (_readable(old.content) if old else ""), _readable(new.content)
    if new.dest == COMPOSE_FILE:
        before, after = compose.without_hashes(before), compose.without_hashes(after)
    if old and (old.owner, old.group, old.mode) != (new.owner, new.group, new.mode):
        before = f"# owner {old.owner}:{old.group} mode {old.mode:04o}\n{before}"
        after = f"# owner {new.owner}:{new.group} mode {new.mode:04o}\n{after}"
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def _readable(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"({len(content)} bytes, not text)\n"


def _listening_process(port: int, proc: str = "/proc") -> str:
    """Return which process listens on a TCP port, empty when that cannot be found out."""
    inodes: set[str] = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            inodes |= compose.listening_inodes(Path(proc, table).read_text(), port)
    targets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path(proc).iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, PermissionError, ProcessLookupError):
            if any(os.readlink(entry) in targets for entry in (process / "fd").iterdir()):
                command = (process / "comm").read_text().strip()
                unit = re.search(r"([\w@.\\-]+\.service)", (process / "cgroup").read_text())
                return f"process {process.name} ({command}{', ' + unit.group(1) if unit else ''})"
    return ""
