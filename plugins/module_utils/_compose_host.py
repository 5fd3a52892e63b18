# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of compose_project on the managed host: look, decide, and unless it is only a prediction, act.

Decisions are in ``_compose``, files in ``_compose_files``, containers in ``_compose_engine``.

Order of an applying run, chosen so that a run killed anywhere is repaired by the next one:

1. the manifest: every file that exists or will exist, and which services must be recreated whatever their labels say;
2. files, then compose.yml: from here on, labels of running containers differ from the wanted ones;
3. containers, then waiting for their health, then reload commands;
4. the manifest again: what was reloaded, nothing pending.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.berth.odoo.plugins.module_utils import _compose as compose
from ansible_collections.berth.odoo.plugins.module_utils import _compose_certificates as certificates
from ansible_collections.berth.odoo.plugins.module_utils import _compose_files as files
from ansible_collections.berth.odoo.plugins.module_utils._compose import (
    Certificate,
    CertificateRecord,
    Container,
    DataDirectory,
    Leaf,
    ManagedFile,
    Reload,
    ServicePlan,
)
from ansible_collections.berth.odoo.plugins.module_utils._compose_engine import COMPOSE_FILE, ConvergeError, Engine
from ansible_collections.berth.odoo.plugins.module_utils._compose_files import FileState, HostError
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import DockerClient, DockerError, DockerUnavailable

MANIFEST = ".berth.json"


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
    certificates: tuple[Certificate, ...] = ()
    joins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Networks beside those of the definition, by service, which its containers join as they run."""
    now: int = 0
    """The controller's time, in seconds since 1970: the clock that certificates are issued by also decides when one is renewed."""
    holder: str = "Ansible"
    """Who asks, shown to another run that finds the project locked."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Request:
        """Build a request from its JSON form, in which file contents are base64."""
        managed = tuple(ManagedFile(**{**item, "content": base64.b64decode(item["content"]), **_meaning(item)}) for item in raw["files"])
        wanted = tuple(
            Certificate(**{**item, "names": tuple(item["names"]), "leaf": Leaf(**item["leaf"]) if item["leaf"] else None, **_meaning(item)})
            for item in raw["certificates"]
        )
        directories = tuple(DataDirectory(**item) for item in raw["directories"])
        joins = {name: tuple(networks) for name, networks in raw["joins"].items()}
        return cls(**{**raw, "joins": joins, "files": managed, "certificates": wanted, "directories": directories})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        raw = asdict(self)
        for item in raw["files"]:
            item["content"] = base64.b64encode(item["content"]).decode()
        return raw

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
    certificates: dict[str, CertificateRecord] = field(default_factory=dict)
    """What was issued for each certificate, by its directory."""
    joined: list[str] = field(default_factory=list)
    """Networks beside those of the definition that containers may have joined."""

    @classmethod
    def parse(cls, content: bytes, path: str) -> Manifest:
        """Read the JSON form.

        Raises:
            HostError: It is damaged. It is written atomically, so this was done by hand or by a disk.
        """
        try:
            raw = json.loads(content)
            issued = {
                dest: CertificateRecord(**{**entry, "names": tuple(entry["names"])}) for dest, entry in raw.get("certificates", {}).items()
            }
            remembered = {name: dict(raw[name]) for name in ("files", "applied", "pending", "config_hashes")}
            return cls(**remembered, certificates=issued, joined=list(raw.get("joined", [])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HostError(
                f"{path} is damaged ({error!r}). Move it and {COMPOSE_FILE} beside it away and run again: every service is then looked at anew"
            ) from error

    def to_bytes(self) -> bytes:
        """Return the JSON form."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


@dataclass
class Outcome:
    """What a run did or would do, in the shape of the module's result."""

    changed: bool = False
    services: dict[str, ServicePlan] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=lambda: {"created": [], "changed": [], "removed": []})
    certificates: list[dict[str, str]] = field(default_factory=list)
    issue: list[str] = field(default_factory=list)
    """Certificates that the controller must issue before anything can be done. Nothing else was decided or done then."""
    directories: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the module's result."""
        return {
            "warnings": self.warnings,
            "diff": self.diff,
            "changed": self.changed,
            "services": {name: plan.result() for name, plan in self.services.items()},
            "files": self.files,
            "certificates": self.certificates,
            "directories": self.directories,
            "networks": self.networks,
            "joins": self.joins,
            **({"issue": self.issue} if self.issue else {}),
        }


@dataclass
class Work:
    """What a run has to do, decided before anything is touched."""

    write: list[ManagedFile] = field(default_factory=list)
    compose_yml: ManagedFile | None = None
    stale: list[str] = field(default_factory=list)
    layout: list[tuple[str, int, int]] = field(default_factory=list)
    """Directories inside the project to make or correct: path, group, mode."""
    plans: dict[str, ServicePlan] = field(default_factory=dict)
    reloads: dict[Reload, list[str]] = field(default_factory=dict)
    """Reloads to run, each with the files it is for."""
    digests: dict[str, str] = field(default_factory=dict)
    """Wanted ``applied`` entries of the manifest."""
    networks: dict[str, str] = field(default_factory=dict)
    """Wanted digest of each network of the project, by its real name."""
    join: list[tuple[Container, str]] = field(default_factory=list)
    leave: list[tuple[Container, str]] = field(default_factory=list)
    """Containers that stay, and networks that they join or leave. New ones join after they were started."""

    def by_how(self, *how: str) -> list[str]:
        """Return the services that are treated in one of some ways."""
        return [name for name, plan in self.plans.items() if plan.how in how]


class Project:
    """One project on this host.

    Args:
        request: The wanted state.
        docker: Client of the host's daemon.
        check: Only predict.
    """

    def __init__(self, request: Request, docker: DockerClient, check: bool) -> None:
        """Remember what is wanted; nothing is read or changed yet."""
        sensitive = [item.content for item in request.files if item.sensitive]
        self.request = request
        self.engine = Engine(docker, request.name, request.project_dir, request.definition, sensitive, request.wait_timeout)
        self.check = check
        self.directory = files.ProjectDirectory(request.project_dir)
        self.outcome = Outcome()
        self.manifest = Manifest()
        self.issued: dict[str, CertificateRecord] = {}
        self.docker_missing = ""

    def run(self) -> Outcome:
        """Bring the project into the wanted state, or predict that.

        Raises:
            HostError: The host forbids it; no container was touched.
            ConvergeError: Something was changed and a service failed.
            DockerError: The daemon refused something unexpectedly.
            DockerUnavailable: The daemon cannot be reached.
        """
        if self.check:
            self._run()
        else:
            with files.project_lock(self.request.name, self.request.lock_timeout, self.request.holder) as self.engine.lock:
                self._run()
        return self.outcome

    def _run(self) -> None:
        containers = self._containers()
        state = self.directory.read(MANIFEST)
        if state:
            self.manifest = Manifest.parse(state.content, f"{self.directory.path}/{MANIFEST}")
        if self.request.state == "absent":
            self._absent(containers, managed=state is not None)
            return
        if state is None and self.directory.read(COMPOSE_FILE):
            raise HostError(
                f"{self.directory.path}/{COMPOSE_FILE} exists and was not written by this collection. "
                "Move it away (its containers must be gone), or choose another name or base_dir"
            )
        self._add_certificates()
        if not self.outcome.issue:
            self._converge([item for item in containers if not compose.is_oneoff(item)])

    # --- looking --------------------------------------------------------------------------------------------------------

    def _containers(self) -> list[Container]:
        """Return the project's containers. Without Docker: none when only predicting, or when it was never installed.

        Raises:
            HostError: A project of the same name exists that is not ours.
        """
        try:
            containers = self.engine.containers()
        except DockerUnavailable as error:
            if not self.check and (self.request.state != "absent" or self.engine.installed()):
                raise
            self.docker_missing = str(error)
            return []
        foreign = compose.foreign_containers(containers, self.request.name)
        if foreign:
            names = ", ".join(sorted(item.name for item in foreign))
            place = foreign[0].labels.get(compose.COMPOSE_WORKING_DIR, "an unknown directory")
            raise HostError(
                f"a Compose project named '{self.request.name}' that this collection did not make is already on this host, "
                f"from {place}: {names}. Choose another name, or remove it first: docker compose -p {self.request.name} down"
            )
        return containers

    def _image_ids(self) -> dict[str, str | None]:
        """Return the id of each image in use, None for those that are not on this host.

        Raises:
            HostError: One is missing and containers shall run now.
        """
        services = self.request.definition["services"]
        references = {name: str(service["image"]) for name, service in services.items()}
        if self.docker_missing:
            return dict.fromkeys(references.values())
        ids = {reference: self.engine.docker.image_id(reference) for reference in references.values()}
        active = compose.active_services(self.request.definition)
        missing = {references[name]: name for name in active if ids[references[name]] is None}
        if missing and self.request.state in ("present", "prepared") and not self.check:
            listed = ", ".join(f"{reference} (service {name})" for reference, name in missing.items())
            raise HostError(
                f"project {self.request.name}: not on this host, and nothing is pulled by itself: image {listed}. "
                "Put it there with the role berth.odoo.images, or by hand: docker pull IMAGE, or docker load -i ARCHIVE. "
                "Nothing was changed"
            )
        return ids

    # --- certificates ---------------------------------------------------------------------------------------------------

    def _add_certificates(self) -> None:
        """Add the files of the certificates to the wanted ones: as they are when they are good, else as the controller made them.

        When the controller has not made one yet, ``outcome.issue`` names it, or a prediction goes on without it.
        """
        outcome, now = self.outcome, self.request.now
        added: list[ManagedFile] = []
        for wanted in self.request.certificates:
            states = {name: self.directory.read(f"{wanted.dest}/{name}") for name in (certificates.CERTIFICATE_FILE, certificates.KEY_FILE)}
            on_disk = {name: state.content if state else None for name, state in states.items()}
            known = self.manifest.certificates.get(wanted.dest)
            action, reason = certificates.judge(wanted, known, on_disk, now)
            if action == certificates.UNCHANGED and known:
                certificate, key = ((content or b"").decode() for content in on_disk.values())
                leaf, record = Leaf(certificate, key, known.not_before, known.not_after), known
            elif wanted.leaf or self.check:
                leaf = wanted.leaf or certificates.expected(wanted, now)
                record = certificates.record_of(wanted, leaf)
                header = f"{self.directory.path}/{wanted.dest}/{certificates.CERTIFICATE_FILE}"
                before, after = certificates.describe(known) if known else "", certificates.describe(record)
                outcome.diff.append({"before_header": header, "after_header": header, "before": before, "after": after})
            else:
                outcome.issue.append(wanted.dest)
                continue
            self.issued[wanted.dest] = record
            self.engine.hide(leaf.key.encode())
            added.extend(certificates.files_of(wanted, leaf, os.geteuid()))
            not_after = certificates.as_text(leaf.not_after)
            outcome.certificates.append({"dest": wanted.dest, "action": action, "reason": reason, "not_after": not_after})
        self.request = replace(self.request, files=(*self.request.files, *added))

    # --- deciding -------------------------------------------------------------------------------------------------------

    def _converge(self, own: Sequence[Container]) -> None:
        request, definition = self.request, self.request.definition
        images = self._image_ids()
        key = files.read_key(request.base_dir)
        if key is None:
            # A prediction writes nothing, not even a key. With any other key every service differs, as it will.
            key = secrets.token_bytes(32) if self.check else files.ensure_key(request.base_dir)
        inputs = {
            name: compose.service_inputs(key, request.project_dir, name, definition, request.files, images[str(service["image"])])
            for name, service in definition["services"].items()
        }
        hashes = {name: compose.combined_hash(key, parts) for name, parts in inputs.items()}
        work = Work(networks=compose.network_hashes(key, definition, request.name))
        text = compose.compose_file(request.name, definition, inputs, hashes, work.networks)
        compose_yml = ManagedFile(COMPOSE_FILE, text.encode(), os.geteuid(), os.getegid(), 0o640, False, (), ())

        before = {item.dest: self.directory.read(item.dest) for item in (*request.files, compose_yml)}
        work.write = [item for item in request.files if not _matches(before[item.dest], item)]
        work.compose_yml = None if _matches(before[COMPOSE_FILE], compose_yml) else compose_yml
        work.stale = sorted(set(self.manifest.files) - {item.dest for item in request.files})
        work.layout = self._layout_changes()
        edited = {item.dest for item in work.write if _content_differs(before[item.dest], item)}
        if request.state == "stopped":
            work.plans = _plan_stop(own)
        else:
            forced = self._forced(edited, own)
            work.plans = compose.plan_services(definition, request.name, own, inputs, hashes, forced)
            self._explain_missing_images(work.plans, images)
            self._probe_unhealthy(work.plans, own)
            self._plan_reloads(work, key, edited)
            if request.state == "present":
                self._plan_joins(work, own)
        self._report(work, before)
        if not self.check:
            if self.outcome.changed or (work.by_how("wait") and request.state == "present"):
                self._apply(work, own)
            elif (self.manifest.files, self.manifest.certificates) != (self._remembered_files(work), self.issued):
                # A reload command changed, nothing else.
                self.manifest.files, self.manifest.certificates = self._remembered_files(work), self.issued
                self._write_manifest(self.manifest)

    def _forced(self, edited: set[str], own: Sequence[Container]) -> dict[str, str]:
        """Return the services to recreate although their labels are right, with the reason."""
        forced = dict(self.manifest.pending)
        for item in self.request.files:
            if item.dest in edited:
                forced.update(dict.fromkeys(item.recreated, f"file {item.dest} was changed on the host"))
            parent = item.dest.rpartition("/")[0]
            if item.dest in self.manifest.files and parent and not self.directory.exists(parent):
                # A container that has the removed directory mounted would never see the new one.
                names = [*item.services, *(entry.service for entry in item.reloads)]
                forced.update(dict.fromkeys(names, f"directory {parent} was removed on the host"))
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
            if service and images[str(service["image"])] is None:
                plan.reasons = [
                    f"image {service['image']} is not on this host yet",
                    *(text for text in plan.reasons if "image" not in text),
                ]

    def _probe_unhealthy(self, plans: dict[str, ServicePlan], own: Sequence[Container]) -> None:
        """Ask unhealthy containers again before restarting them: what they waited for may be back, and Docker asks rarely."""
        for item in own:
            plan = plans.get(item.service)
            if plan and plan.how == "restart" and item.health == "unhealthy" and item.state == "running":
                problem = self.engine.probe(item)
                if problem is None:
                    plans[item.service] = ServicePlan(reasons=["was unhealthy; its health check passes again"])
                else:
                    plans[item.service] = ServicePlan(compose.STARTED, [f"was unhealthy: {problem}"], "restart")

    def _plan_reloads(self, work: Work, key: bytes, edited: set[str]) -> None:
        """Find the reloads to run, each with the files it is for. A service that is started anyway needs none."""
        wanted: dict[Reload, list[str]] = {}
        for item in self.request.files:
            for entry in item.reloads:
                digest = compose.file_digest(key, item)
                work.digests[f"{item.dest}|{entry.service}"] = digest
                if item.dest in edited or self.manifest.applied.get(f"{item.dest}|{entry.service}") != digest:
                    wanted.setdefault(entry, []).append(item.dest)
        for dest in work.stale:
            for raw in self.manifest.files[dest]:
                entry = Reload(raw["service"], tuple(raw["command"]), raw["signal"])
                wanted.setdefault(entry, []).append(dest)
        untouched = work.by_how("none", "wait")
        work.reloads = {entry: dests for entry, dests in wanted.items() if entry.service in untouched}

    def _plan_joins(self, work: Work, own: Sequence[Container]) -> None:
        """Find the networks that containers which stay must join or leave."""
        former = set(self.manifest.joined)
        staying = {name for name, plan in work.plans.items() if plan.how not in ("up", "force", "remove")}
        for item in own:
            if item.service in staying:
                wanted = self.request.joins.get(item.service, ())
                work.join += [(item, net) for net in wanted if net not in item.networks]
                work.leave += [(item, net) for net in sorted(former - set(wanted)) if net in item.networks]

    def _wanted_joins(self) -> list[str]:
        return sorted({net for networks in self.request.joins.values() for net in networks})

    def _layout_changes(self) -> list[tuple[str, int, int]]:
        secret = compose.secret_directories(self.request.files)
        wanted: dict[str, tuple[int, int]] = {}
        for item in self.request.files:
            parts = item.dest.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                path = "/".join(parts[:depth])
                wanted[path] = (secret[path], 0o750) if path in secret else (os.getegid(), 0o755)
        return [(path, *layout) for path, layout in sorted(wanted.items()) if not self.directory.directory_matches(path, *layout)]

    def _report(self, work: Work, before: Mapping[str, FileState | None]) -> None:
        """Fill in the result: it is complete before anything is done."""
        outcome = self.outcome
        described = {entry["after_header"] for entry in outcome.diff}  # a new certificate is shown as its names and dates
        for item in (*work.write, *([work.compose_yml] if work.compose_yml else [])):
            old = before[item.dest]
            outcome.files["changed" if old else "created"].append(item.dest)
            difference = _file_diff(f"{self.directory.path}/{item.dest}", old, item)
            if difference["before"] != difference["after"] and difference["after_header"] not in described:
                outcome.diff.append(difference)
        for dest in work.stale:
            old = self.directory.read(dest)
            if old:
                header = f"{self.directory.path}/{dest}"
                outcome.files["removed"].append(dest)
                outcome.diff.append({"before_header": header, "after_header": header, "before": "(managed file)\n", "after": ""})
        outcome.directories = [item.path for item in self.request.directories if files.directory_differs(item)]
        outcome.services = _with_reloads(work.plans, work.reloads)
        outcome.joins = [
            f"{item.service} {verb} {net}" for verb, pairs in (("leaves", work.leave), ("joins", work.join)) for item, net in pairs
        ]
        if self.request.state in ("present", "prepared") and (work.by_how("up", "force") or work.compose_yml or work.join):
            joins = self._wanted_joins() if self.request.state == "present" else []
            outcome.networks = (
                list(dict.fromkeys([*compose.external_networks(self.request.definition, self.request.name), *joins]))
                if self.docker_missing
                else self.engine.missing_networks(joins)
            )
        acts = any(plan.how not in ("none", "wait") for plan in work.plans.values())
        touches_files = bool(work.write or work.compose_yml or outcome.files["removed"] or work.layout or outcome.directories)
        if self.request.state == "prepared":  # its services say what a run with state present would do
            outcome.changed = touches_files or bool(outcome.networks)
        else:
            outcome.changed = acts or bool(work.reloads or outcome.joins) or touches_files

    # --- acting ---------------------------------------------------------------------------------------------------------

    def _apply(self, work: Work, own: Sequence[Container]) -> None:
        self.engine.docker_command()  # refuse before anything is written
        manifest = self._begin(work)
        for path, group, mode in work.layout:
            self.directory.ensure_directory(path, group, mode)
        for directory in self.request.directories:
            files.ensure_directory(directory)
        for item in work.write:
            self.directory.write(item)
        if work.compose_yml:
            # Compose refuses a file without services.
            self.directory.write(work.compose_yml, check=self.engine.validate if self.request.definition["services"] else None)
        mounted = compose.mounted_directories(self.request.definition, self.request.project_dir)
        for dest in work.stale:
            self.directory.remove(dest, keep=mounted)

        manifest.files = self._remembered_files(work)
        if self.request.state == "stopped":
            if work.by_how("stop"):
                self.engine.stop_all()
            self._write_manifest(manifest)
            return
        if self.request.state == "prepared":
            for name in self.outcome.networks:
                self.engine.create_network(name)
            self._write_manifest(manifest)
            return
        self._start(work, own)
        for entry, dests in work.reloads.items():
            self.engine.run_reload(entry, dests)
        manifest.pending = {}
        manifest.joined = self._wanted_joins()
        manifest.applied = work.digests
        manifest.config_hashes = {
            item.service: item.labels.get(compose.COMPOSE_CONFIG_HASH, "")
            for item in self.engine.containers()
            if not compose.is_oneoff(item)
        }
        self._write_manifest(manifest)

    def _remembered_files(self, work: Work) -> dict[str, list[dict[str, Any]]]:
        """Return what the manifest says about files at the end of a run."""
        remembered = _manifest_files(self.request.files)
        if self.request.state == "prepared" and work.reloads:
            # The reload of a removed file is known from the manifest only, and still to be done.
            remembered.update({dest: self.manifest.files[dest] for dest in work.stale if self.manifest.files[dest]})
        return remembered

    def _begin(self, work: Work) -> Manifest:
        """Write down what is about to happen, so that the next run knows it if this one does not come to its end."""
        touched = {item.dest for item in work.write}
        redone = work.by_how("up", "force", "restart", "remove")
        forced = {name: work.plans[name].reasons[0] for name in work.by_how("force")}
        manifest = Manifest(
            files={**self.manifest.files, **_manifest_files(self.request.files)},
            applied={name: value for name, value in self.manifest.applied.items() if name.rpartition("|")[0] not in touched},
            pending={**self.manifest.pending, **forced},
            config_hashes={name: value for name, value in self.manifest.config_hashes.items() if name not in redone},
            certificates=self.issued,
            joined=sorted({*self.manifest.joined, *self._wanted_joins()}),
        )
        self._write_manifest(manifest)
        return manifest

    def _write_manifest(self, manifest: Manifest) -> None:
        wanted = ManagedFile(MANIFEST, manifest.to_bytes(), os.geteuid(), os.getegid(), 0o600, False, (), ())
        if not _matches(self.directory.read(MANIFEST), wanted):
            self.directory.write(wanted)

    def _start(self, work: Work, own: Sequence[Container]) -> None:
        """Bring the containers into the planned state and wait until all of them are well."""
        engine = self.engine
        for name in self.outcome.networks:
            engine.create_network(name)
        for item in own:
            plan = work.plans.get(item.service)
            if plan and plan.how == "remove":
                engine.remove(item)
            elif plan and plan.how == "unpause":
                engine.unpause(item)
        touched = [name for name, plan in work.plans.items() if plan.how not in ("none", "remove")]
        baseline = engine.restart_counts(work.by_how("wait", "unpause"))
        outdated, unused = self._outdated_networks(work)
        again = self._replace_networks(outdated, own)
        for how, flags in (("force", ["--force-recreate"]), ("up", [])):
            names = work.by_how(how)
            names += sorted(again - {*names, *work.by_how("force")}) if how == "up" else []
            if names:
                engine.up(names, flags, touched)
        self._join(work)
        for item in own:
            if work.plans.get(item.service, ServicePlan()).how == "restart" and item.service not in again:
                engine.restart(item)
        engine.wait(sorted({*touched, *again}), baseline)
        for entry in unused:
            problem = engine.remove_network(entry)
            if problem:
                self.outcome.warnings.append(f"network {entry['Name']} is no longer in the definition but stays: {problem}")

    def _join(self, work: Work) -> None:
        """Let containers join and leave networks: Compose would make them anew for that."""
        for item, net in work.leave:
            self.engine.disconnect(item, net)
        if not self.request.joins:
            return
        for item in self.engine.containers():
            if not compose.is_oneoff(item):
                for net in self.request.joins.get(item.service, ()):
                    if net not in item.networks:
                        self.engine.connect(item, net)

    def _outdated_networks(self, work: Work) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the project's networks that must be made anew, and those that are no longer used."""
        if not work.by_how("up", "force", "remove"):
            return [], []
        outdated, unused = [], []
        for entry in self.engine.own_networks():
            if entry["Name"] not in work.networks:
                unused.append(entry)
            elif (entry.get("Labels") or {}).get(compose.LABEL_HASH) != work.networks[entry["Name"]]:
                outdated.append(entry)
        return outdated, unused

    def _replace_networks(self, outdated: Sequence[Mapping[str, Any]], own: Sequence[Container]) -> set[str]:
        """Remove networks whose definition changed, which Compose would leave as they are; return the services to start again.

        Raises:
            HostError: Something that is not of this project uses one.
        """
        again: set[str] = set()
        for entry in outdated:
            for item in own:
                if entry["Name"] in item.networks:
                    self.engine.remove(item)
                    again.add(item.service)
            problem = self.engine.remove_network(entry)
            if problem:
                raise HostError(
                    f"project {self.request.name}: network {entry['Name']} must be made anew, since its definition changed, "
                    f"but cannot be removed: {problem}. Disconnect what uses it and run again"
                )
        return again & set(compose.active_services(self.request.definition))

    # --- absent ---------------------------------------------------------------------------------------------------------

    def _absent(self, containers: Sequence[Container], *, managed: bool) -> None:
        """Remove containers, the project's own networks and the files we wrote. Data and foreign files stay."""
        outcome, engine = self.outcome, self.engine
        networks = [] if self.docker_missing else engine.own_networks()
        ours = [*self.manifest.files, COMPOSE_FILE, MANIFEST] if managed else []
        outcome.files["removed"] = [dest for dest in ours if self.directory.read(dest)]
        outcome.services = {item.service: ServicePlan(compose.REMOVED, ["state is absent"], "remove") for item in containers}
        outcome.networks = [entry["Name"] for entry in networks]
        outcome.changed = bool(containers or networks or outcome.files["removed"])
        if self.check or not outcome.changed:
            return
        if containers and managed and self.directory.read(COMPOSE_FILE):
            engine.stop_all()  # Compose knows the order; without its file any order has to do
        for item in engine.containers() if containers else []:
            engine.remove(item)
        for entry in networks:
            problem = engine.remove_network(entry)
            if problem:
                raise HostError(f"project {self.request.name}: network {entry['Name']} cannot be removed: {problem}")
        for dest in ours:
            self.directory.remove(dest)
        left = self.directory.remove_itself()
        if left:
            listed = ", ".join(left)
            outcome.warnings.append(f"{self.directory.path} stays, because it holds what this collection did not write: {listed}")


def execute(request: Request, docker: DockerClient, check: bool) -> dict[str, Any]:
    """Run a request and return the module's result, with ``failed`` and ``msg`` when it could not be done."""
    project = Project(request, docker, check)
    error: dict[str, Any] = {}
    try:
        project.run()
    except ConvergeError as problem:
        error = {"failed": True, "msg": str(problem), "failures": problem.failures}
    except (HostError, DockerError) as problem:
        error = {"failed": True, "msg": str(problem)}
    except DockerUnavailable as problem:
        remedy = (
            "Install Docker with the role berth.odoo.docker, or on Debian: apt-get install docker.io docker-cli docker-compose. "
            "If it is installed, look at: systemctl status docker"
        )
        error = {"failed": True, "msg": f"project {request.name}: {problem}. {remedy}"}
    return {"project_dir": request.project_dir, **project.outcome.to_dict(), **error}


# --- small helpers ------------------------------------------------------------------------------------------------------


def _meaning(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a change of a file or certificate means, from its JSON form."""
    reloads = tuple(Reload(entry["service"], tuple(entry["command"]), entry["signal"]) for entry in item["reloads"])
    return {"services": tuple(item["services"]), "reloads": reloads}


def _matches(state: FileState | None, wanted: ManagedFile) -> bool:
    return state is not None and state.matches(wanted)


def _content_differs(state: FileState | None, wanted: ManagedFile) -> bool:
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
    """Return the plans as they are reported: a service that is only reloaded says so, with the files."""
    result = dict(plans)
    for entry, dests in reloads.items():
        known = result[entry.service]
        earlier = known.reasons if known.action == compose.RELOADED else []
        reasons = [*earlier, *(reason for reason in (f"file {dest} changed" for dest in dests) if reason not in earlier)]
        result[entry.service] = ServicePlan(compose.RELOADED, reasons, known.how)
    return result


def _manifest_files(managed: Iterable[ManagedFile]) -> dict[str, list[dict[str, Any]]]:
    # Through JSON, so that it compares equal to what was read back.
    return {item.dest: json.loads(json.dumps([asdict(entry) for entry in item.reloads])) for item in managed}


def _file_diff(path: str, old: FileState | None, new: ManagedFile) -> dict[str, str]:
    """Return Ansible's diff of one file; of a sensitive one only whether it changed."""
    if new.sensitive:
        before = "(sensitive)\n" if old else ""
        after = "(sensitive)\n" if old and old.content == new.content else "(sensitive, changed)\n"
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
