# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What compose_project decides, as pure functions: merging, escaping, hashing, predicting, explaining.

No Ansible, no input or output, no clock. The host's side effects are in ``_compose_host``.

How a change is noticed: every service carries two labels. ``berth.inputs`` is a map from the name of an input (a key of its
definition, its image, each file it reads) to a keyed digest of that input; ``berth.hash`` is the digest of them all. The labels
live and die with the container, so what they say is what is running, also after a run that was killed half way.
The digests are keyed with a secret of the host, because an unkeyed digest of a short password can be reversed.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LABEL_MANAGED = "berth.managed"
LABEL_PROJECT = "berth.project"
LABEL_HASH = "berth.hash"
LABEL_INPUTS = "berth.inputs"
OWN_LABELS = (LABEL_MANAGED, LABEL_PROJECT, LABEL_HASH, LABEL_INPUTS)

# Labels that Compose sets: https://github.com/docker/compose/blob/v2.26.1/pkg/api/labels.go
COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"
COMPOSE_ONEOFF = "com.docker.compose.oneoff"
COMPOSE_CONFIG_HASH = "com.docker.compose.config-hash"
COMPOSE_WORKING_DIR = "com.docker.compose.project.working_dir"

NETWORK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TOP_LEVEL = ("services", "networks", "volumes")
_PLAIN_YAML = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*")
_YAML_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
# Characters that YAML 1.2 does not print (section 5.1), and line separators that it would fold.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

CREATED, RECREATED, STARTED = "created", "recreated", "started"
RELOADED, REMOVED, UNCHANGED, STOPPED = "reloaded", "removed", "unchanged", "stopped"


class DefinitionError(ValueError):
    """The request contradicts itself or cannot work. The message says what, where, and what was expected."""


@dataclass(frozen=True)
class Reload:
    """How one service takes over a changed file without being recreated: a command in its container, or a signal."""

    service: str
    command: tuple[str, ...] = ()
    signal: str = ""

    def describe(self) -> str:
        """Return the reload in words for results and errors."""
        return f"signal {self.signal}" if self.signal else " ".join(self.command)


@dataclass(frozen=True)
class ManagedFile:
    """One file of the project directory, with its content and what its change means."""

    dest: str
    content: bytes
    owner: int
    group: int
    mode: int
    sensitive: bool
    services: tuple[str, ...]
    reloads: tuple[Reload, ...]

    @property
    def recreated(self) -> set[str]:
        """The services that a change recreates: those listed that do not take it over by a reload."""
        return set(self.services) - {entry.service for entry in self.reloads}


@dataclass(frozen=True)
class DataDirectory:
    """A directory outside the project that services keep their data in."""

    path: str
    owner: int
    group: int
    mode: int


@dataclass(frozen=True)
class Leaf:
    """A certificate with its key, both PEM, and its times in seconds since 1970."""

    certificate: str
    key: str = field(repr=False)
    not_before: int
    not_after: int


@dataclass(frozen=True)
class Certificate:
    """A certificate that services shall have, and what its change means."""

    dest: str
    common_name: str
    names: tuple[str, ...]
    """Alternative names, the common name among them, sorted."""
    days: int
    owner: int
    group: int
    services: tuple[str, ...]
    reloads: tuple[Reload, ...]
    bundle: str
    """PEM of every authority that is trusted."""
    signer: str
    """Fingerprint of the authority's certificate that signs."""
    signer_not_after: int
    usage: str = "both"
    """``both``: good for servers and clients; ``server``: for servers alone."""
    leaf: Leaf | None = None
    """What the controller has issued, once the host has said that it must."""


@dataclass(frozen=True)
class CertificateRecord:
    """What a host remembers of a certificate that it was given."""

    common_name: str
    names: tuple[str, ...]
    signer: str
    pair: str
    """Fingerprint of certificate and key together."""
    not_before: int
    not_after: int
    usage: str = "both"
    """What older records do not say, because all were good for both."""


@dataclass(frozen=True)
class Container:
    """What the Docker API lists about one container of the project."""

    id: str
    name: str
    service: str
    state: str
    health: str
    exit_code: int | None
    image: str
    labels: Mapping[str, str]
    networks: frozenset[str]

    @property
    def inputs(self) -> dict[str, str]:
        """The digests this container was created from; empty when its label is missing or unreadable."""
        try:
            value = json.loads(self.labels.get(LABEL_INPUTS, "{}"))
        except ValueError:
            return {}
        return {str(name): str(digest) for name, digest in value.items()} if isinstance(value, dict) else {}


@dataclass
class ServicePlan:
    """What a run will do to one service, and why.

    ``how`` is the means: ``none``, ``up`` (docker compose up), ``force`` (up --force-recreate), ``restart``, ``unpause``,
    ``wait`` (it is still starting: only wait for it).
    """

    action: str = UNCHANGED
    reasons: list[str] = field(default_factory=list)
    how: str = "none"

    def result(self) -> dict[str, Any]:
        """Return the part that goes into the module's result."""
        return {"action": self.action, "reasons": self.reasons}


# --- the definition -----------------------------------------------------------------------------------------------------


def merge(base: Any, override: Any) -> Any:
    """Merge two definitions: mappings recursively, everything else replaced, a null removes the key."""
    if not isinstance(base, Mapping) or not isinstance(override, Mapping):
        return copy.deepcopy(override)
    merged = {key: copy.deepcopy(value) for key, value in base.items()}
    for key, value in override.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = merge(merged.get(key, {}), value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _text(value: Any) -> str | None:
    """Return an environment or label value as Compose wants it: text, or null for "take it from outside"."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _pairs_to_mapping(value: Any) -> Any:
    """Turn ``[A=b]`` into ``{A: b}``, so that both notations merge and hash alike."""
    if isinstance(value, list):
        pairs = (str(item).partition("=") for item in value)
        return {name: text if separator else None for name, separator, text in pairs}
    return value


def _mapping(value: Any) -> dict[str, Any]:
    """Return pairs in either notation as a mapping."""
    return dict(_pairs_to_mapping(value) or {})


def normalise(definition: Any, what: str = "definition") -> dict[str, Any]:
    """Return a definition in one notation: sections are mappings, environment and labels are mappings of text.

    Raises:
        DefinitionError: A section or a service is not a mapping, or a section is not one of ours.
    """
    if not isinstance(definition, Mapping):
        raise DefinitionError(f"{what} must be a mapping with 'services', not {type(definition).__name__}")
    unknown = sorted(str(key) for key in definition if key not in _TOP_LEVEL)
    if unknown:
        raise DefinitionError(
            f"{what} has {', '.join(unknown)}; only services, networks and volumes are understood "
            "(secrets and configs are files: list them under 'files' and mount their directory)"
        )
    result: dict[str, Any] = {}
    for section, entries in definition.items():
        if entries is None:
            result[section] = None
            continue
        if not isinstance(entries, Mapping):
            raise DefinitionError(f"{what}.{section} must be a mapping of names, not {type(entries).__name__}")
        result[section] = {str(name): copy.deepcopy(entry) for name, entry in entries.items()}
    for name, service in (result.get("services") or {}).items():
        if service is None:
            continue
        if not isinstance(service, Mapping):
            raise DefinitionError(f"{what}.services.{name} must be a mapping, not {type(service).__name__}")
        for key in ("environment", "labels"):
            pairs = _pairs_to_mapping(service.get(key))
            if isinstance(pairs, Mapping):
                result["services"][name][key] = {str(item): _text(value) for item, value in pairs.items()}
    return result


def check_definition(
    definition: Mapping[str, Any], files: Sequence[ManagedFile], certificates: Sequence[Certificate] = (), *, files_alone: bool = False
) -> None:
    """Find everything in a merged definition that could not work, before anything is touched.

    Args:
        definition: The definition.
        files: Files of the project.
        certificates: Certificates of the project.
        files_alone: The project shall have no service.

    Raises:
        DefinitionError: With all problems, one a line.
    """
    services = definition.get("services") or {}
    problems = [] if services or files_alone else ["definition.services is empty: a project needs at least one service"]
    for name, service in services.items():
        where = f"definition.services.{name}"
        if not isinstance(service, Mapping):
            problems.append(f"{where} must be a mapping")
            continue
        if not isinstance(service.get("image"), str) or not service["image"]:
            problems.append(f"{where}.image is missing: give the reference of an image that is on the host")
        if "build" in service:
            problems.append(f"{where}.build is not supported: images are built once, elsewhere; remove it and set image")
        own = sorted(label for label in service.get("labels") or {} if label in OWN_LABELS)
        if own:
            problems.append(f"{where}.labels sets {', '.join(own)}, which compose_project sets itself")
    described: list[ManagedFile | Certificate] = [*files, *certificates]
    for item in described:
        where = f"{'files' if isinstance(item, ManagedFile) else 'certificates'}: {item.dest}"
        named = {*item.services, *(reload.service for reload in item.reloads)}
        problems.extend(f"{where} names the service '{name}', which the definition does not have" for name in sorted(named - set(services)))
        problems.extend(
            f"{where} reloads the service '{reload.service}', which has profiles and so is not running"
            for reload in item.reloads
            if reload.service in services and not is_active(services[reload.service] or {})
        )
    problems.extend(f"{path} contains a NUL character" for path in _with_nul(definition, "definition"))
    if problems:
        raise DefinitionError("\n".join(problems))


def _with_nul(value: Any, path: str) -> Iterable[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _with_nul(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _with_nul(item, f"{path}[{index}]")


def check_files(files: Sequence[ManagedFile]) -> None:
    """Check the file list: names inside the project, no duplicates, one group for each directory with secrets.

    Raises:
        DefinitionError: With all problems, one a line.
    """
    problems: list[str] = []
    seen: set[str] = set()
    groups: dict[str, set[int]] = {}
    for item in files:
        parts = item.dest.split("/")
        if not item.dest or item.dest.startswith("/") or any(part in ("", ".", "..") for part in parts):
            problems.append(f"files: dest '{item.dest}' must be a plain relative path such as config/app.conf, without '..'")
        elif parts[0] in RESERVED or "\0" in item.dest or len(item.dest) > 200:
            problems.append(f"files: dest '{item.dest}' is a name that compose_project uses itself")
        if item.dest in seen:
            problems.append(f"files: dest '{item.dest}' is listed twice")
        seen.add(item.dest)
        if item.sensitive:
            if len(parts) < 2:
                problems.append(f"files: sensitive file '{item.dest}' must be in a directory of its own, such as secrets/{item.dest}")
            groups.setdefault("/".join(parts[:-1]), set()).add(item.group)
    for directory, gids in groups.items():
        if len(gids) > 1:
            listed = ", ".join(str(gid) for gid in sorted(gids))
            problems.append(f"files: {directory}/ holds sensitive files for the groups {listed}; use one directory for each group")
    parents = {"/".join(dest.split("/")[:depth]) for dest in seen for depth in range(1, dest.count("/") + 1)}
    problems.extend(f"files: '{dest}' is a file and also the directory of another file" for dest in sorted(seen & parents))
    if problems:
        raise DefinitionError("\n".join(problems))


RESERVED = ("compose.yml", "compose.yaml", "docker-compose.yml", "docker-compose.yaml", ".env", ".berth.json")


def secret_directories(files: Sequence[ManagedFile]) -> dict[str, int]:
    """Return the directories that hold sensitive files, with the group that may enter them."""
    return {item.dest.rpartition("/")[0]: item.group for item in files if item.sensitive}


def is_active(service: Mapping[str, Any]) -> bool:
    """Tell whether a plain ``docker compose up`` starts a service: those with profiles are one-shot maintenance."""
    return not service.get("profiles")


def active_services(definition: Mapping[str, Any]) -> list[str]:
    """Return the names of the services that shall run, in the definition's order."""
    return [name for name, service in (definition.get("services") or {}).items() if is_active(service)]


def replicas(service: Mapping[str, Any]) -> int:
    """Return how many containers a service shall have."""
    deploy = service.get("deploy") or {}
    for value in (service.get("scale"), deploy.get("replicas")):
        if value is not None:
            return int(value)
    return 1


def one_shots(definition: Mapping[str, Any]) -> set[str]:
    """Return the services that others wait for to end with success: for them "exited with 0" is the wanted state."""
    found = set()
    for service in (definition.get("services") or {}).values():
        depends_on = service.get("depends_on")
        if isinstance(depends_on, Mapping):
            found |= {
                name
                for name, how in depends_on.items()
                if isinstance(how, Mapping) and how.get("condition") == "service_completed_successfully"
            }
    return found


def linked_services(service: Mapping[str, Any]) -> set[str]:
    """Return the services whose namespace or volumes a service borrows: when they are recreated, it must be, too."""
    linked = {
        value.partition(":")[2]
        for value in (service.get(key) for key in ("network_mode", "pid", "ipc"))
        if isinstance(value, str) and value.startswith("service:")
    }
    for entry in service.get("volumes_from") or []:
        if not str(entry).startswith("container:"):
            linked.add(str(entry).partition(":")[0])
    return linked


def restarted_with(service: Mapping[str, Any]) -> set[str]:
    """Return the services whose replacement restarts this one (``depends_on`` with ``restart: true``)."""
    depends_on = service.get("depends_on")
    if not isinstance(depends_on, Mapping):
        return set()
    return {name for name, how in depends_on.items() if isinstance(how, Mapping) and how.get("restart") is True}


def service_networks(service: Mapping[str, Any]) -> list[str]:
    """Return the keys of the networks a service is on; none when it borrows or has no network of its own."""
    if service.get("network_mode"):
        return []
    networks = service.get("networks")
    return [str(name) for name in networks] if networks else ["default"]


def network_names(definition: Mapping[str, Any], project: str) -> dict[str, str]:
    """Return the real name of each network that services use, one-shot ones included, by its key in the definition."""
    declared = definition.get("networks") or {}
    used = {key for service in (definition.get("services") or {}).values() for key in service_networks(service)}
    names = {}
    for key in sorted(used):
        entry = declared.get(key) or {}
        names[key] = str(entry.get("name") or (key if entry.get("external") else f"{project}_{key}"))
    return names


def mounted_directories(definition: Mapping[str, Any], project_dir: str) -> set[str]:
    """Return the directories of the project that a service mounts, relative to it.

    A container keeps a removed directory mounted and never sees one that is made anew under its name.
    """
    found = set()
    for service in (definition.get("services") or {}).values():
        for source in _mount_sources(service):
            for root in ("./", f"{project_dir}/"):
                if source.startswith(root):
                    found.add(source.removeprefix(root).rstrip("/"))
    return found


def network_hashes(key: bytes, definition: Mapping[str, Any], project: str) -> dict[str, str]:
    """Return the digest of each network that belongs to the project itself, by its real name.

    Compose 2.26 leaves an existing network as it is when its definition changes; the digest tells that it did.
    """
    declared = definition.get("networks") or {}
    names = network_names(definition, project)
    own = {key_name: declared.get(key_name) or {} for key_name in names}
    return {names[name]: digest(key, entry) for name, entry in own.items() if not entry.get("external")}


def external_networks(definition: Mapping[str, Any], project: str) -> list[str]:
    """Return the real names of the networks that exist outside this project and are made when missing."""
    declared = definition.get("networks") or {}
    names = network_names(definition, project)
    return [names[key] for key in names if (declared.get(key) or {}).get("external")]


def joins(definition: Mapping[str, Any], wanted: Any) -> dict[str, tuple[str, ...]]:
    """Return the networks that services shall join beside those of the definition, by service, in the form of a request.

    Raises:
        DefinitionError: A service is not there, or the networks are no list of names.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, networks in (wanted or {}).items():
        if name not in definition["services"]:
            raise DefinitionError(f"joins: {name} is no service of the definition, which has {', '.join(definition['services'])}")
        if isinstance(networks, str) or not isinstance(networks, Sequence) or not all(NETWORK_NAME.fullmatch(str(net)) for net in networks):
            raise DefinitionError(f"joins.{name} is {networks!r}, must be a list of names of networks such as [berth-odoo-main]")
        found[str(name)] = tuple(dict.fromkeys(map(str, networks)))
    return found


def aliases(definition: Mapping[str, Any], service: str) -> list[str]:
    """Return every name under which a service is found on the networks of its definition. Compose adds that of the service itself."""
    networks = definition["services"][service].get("networks")
    entries = networks.values() if isinstance(networks, Mapping) else ()
    return list(dict.fromkeys([service, *(str(alias) for entry in entries for alias in (entry or {}).get("aliases") or ())]))


# --- YAML ---------------------------------------------------------------------------------------------------------------


def escape(value: Any) -> Any:
    """Return a value in which Compose finds no variables: every ``$`` of every text is doubled."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape(item) for item in value]
    return value


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        text = repr(value + 0)  # + 0 turns subclasses of int and float, as Ansible makes them, into plain ones
        if "n" in text:  # inf, nan
            raise DefinitionError(f"{text} is not a number that Compose understands")
        mantissa, exponent, power = text.partition("e")  # YAML 1.1 takes 1e-06 for a text and 1.0e-06 for a number
        return f"{mantissa}.0e{power}" if exponent and "." not in mantissa else text
    text = str(value)
    if _PLAIN_YAML.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", quoted)


def _lines(value: Any, indent: str) -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, (Mapping, list, tuple)) and item:
                yield f"{indent}{_scalar(str(key))}:"
                yield from _lines(item, indent + "  ")
            else:
                yield f"{indent}{_scalar(str(key))}: {_empty_or_scalar(item)}"
    else:
        for item in value:
            if isinstance(item, (Mapping, list, tuple)) and item:
                first, *rest = _lines(item, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
            else:
                yield f"{indent}- {_empty_or_scalar(item)}"


def _empty_or_scalar(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    return "[]" if isinstance(value, (list, tuple)) else _scalar(value)


def to_yaml(value: Mapping[str, Any]) -> str:
    """Return a non-empty mapping as block YAML. Managed hosts have no YAML library, and people read these files.

    Every text that could be taken for something else is quoted, so YAML 1.1 and 1.2 readers agree on it.
    """
    return "\n".join(_lines(value, "")) + "\n"


COMPOSE_HEADER = (
    "# Managed by Ansible (berth.odoo.compose_project): changes made here are undone by the next run.\n"
    "# To change something for good, use the role's variables or its compose override.\n"
)
_HASH_LINE = re.compile(r"^\s+berth\.(?:hash|inputs): .*\n", re.MULTILINE)


def compose_file(
    name: str,
    definition: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, str]],
    hashes: Mapping[str, str],
    networks: Mapping[str, str],
) -> str:
    """Return the text of compose.yml: the definition, escaped, with our labels on every service and own network.

    Args:
        name: Project name.
        definition: Merged, normalised definition.
        inputs: For each service its input digests.
        hashes: For each service the digest of them all.
        networks: For each network of the project itself, by its real name, the digest of its definition.
    """
    owned = {LABEL_MANAGED: "true", LABEL_PROJECT: name}
    services = {}
    for service_name, service in definition["services"].items():
        record = json.dumps(inputs[service_name], sort_keys=True, separators=(",", ":"))
        labels = {**(service.get("labels") or {}), **owned, LABEL_HASH: hashes[service_name], LABEL_INPUTS: record}
        services[service_name] = {**service, "pull_policy": "never", "labels": labels}
    document: dict[str, Any] = {"name": name, "services": services}
    declared = {**(definition.get("networks") or {})}
    for key, real_name in network_names(definition, name).items():
        if real_name in networks:
            entry = declared.get(key) or {}
            labels = {**_mapping(entry.get("labels")), **owned, LABEL_HASH: networks[real_name]}
            declared[key] = {**entry, "labels": labels}
    if declared:
        document["networks"] = declared
    if definition.get("volumes"):
        document["volumes"] = definition["volumes"]
    return COMPOSE_HEADER + to_yaml(escape(document))


def without_hashes(text: str) -> str:
    """Return compose.yml without the digests, which mean nothing to a person who reads a diff."""
    return _HASH_LINE.sub("", text)


# --- digests ------------------------------------------------------------------------------------------------------------


def digest(key: bytes, *parts: Any) -> str:
    """Return the keyed SHA-256 of some values in canonical form, as hex.

    Bytes are hashed before they enter, everything else enters as JSON with sorted keys.
    """
    canonical = [{"sha256": hashlib.sha256(part).hexdigest()} if isinstance(part, bytes) else part for part in parts]
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def file_digest(key: bytes, item: ManagedFile) -> str:
    """Return the keyed digest of a file as a container sees it: content, owner, group and mode."""
    return digest(key, item.content, item.owner, item.group, item.mode)


def service_inputs(
    key: bytes,
    project_dir: str,
    name: str,
    definition: Mapping[str, Any],
    files: Sequence[ManagedFile],
    image_id: str | None,
) -> dict[str, str]:
    """Return the digests of everything one service is made of, by the name of the input.

    Args:
        key: The host's secret.
        project_dir: Enters because relative mounts are resolved against it.
        name: The service.
        definition: Merged, normalised definition.
        files: All files; those whose change recreates this service enter.
        image_id: Id of the image on the host, so that another image under the same name is noticed. None: not there.
    """
    service = definition["services"][name]
    networks, volumes = definition.get("networks") or {}, definition.get("volumes") or {}
    used_volumes = sorted(volume for volume in _mount_sources(service) if volume in volumes)
    extra: dict[str, Any] = {
        "image": image_id,
        "networks": {net: networks.get(net) for net in service_networks(service) if net in networks},
        "volumes": {volume: volumes[volume] for volume in used_volumes},
    }
    inputs = {"project directory": digest(key, project_dir)}
    for part in sorted({str(option) for option in service} | {option for option in extra if extra[option]}):
        inputs[part] = digest(key, part, service.get(part), extra.get(part))
    for item in files:
        if name in item.recreated:
            inputs[f"file {item.dest}"] = file_digest(key, item)
    return {part: value[:16] for part, value in inputs.items()}


def _mount_sources(service: Mapping[str, Any]) -> Iterable[str]:
    for mount in service.get("volumes") or []:
        if isinstance(mount, Mapping):
            yield str(mount.get("source", ""))
        else:
            yield str(mount).partition(":")[0]


def combined_hash(key: bytes, inputs: Mapping[str, str]) -> str:
    """Return the value of the ``berth.hash`` label."""
    return digest(key, dict(inputs))


def changed_inputs(old: Container, new: Mapping[str, str], image: str) -> list[str]:
    """Say in words which inputs differ between a running container and the wanted service."""
    before = old.inputs
    if not before:
        return ["its record of inputs is missing"]
    reasons = []
    for part in sorted({*before, *new}):
        if before.get(part) == new.get(part):
            continue
        if part == "image":
            same_name = old.image in (image, "") or old.image.startswith("sha256:")
            reasons.append(f"image {image} has other content" if same_name else f"image changed from {old.image} to {image}")
        elif part not in new:
            reasons.append(f"{part} removed")
        else:
            reasons.append(f"{part} changed" if part in before else f"{part} added")
    return reasons or ["the host's key changed"]


# --- what runs and what to do -------------------------------------------------------------------------------------------

_STATUS_HEALTH = re.compile(r"\((healthy|unhealthy|health: starting)\)")
_STATUS_EXIT = re.compile(r"(?:Exited|Restarting) \((\d+)\)")


def parse_container(entry: Mapping[str, Any]) -> Container:
    """Turn one entry of ``GET /containers/json`` into a Container.

    Health and exit code are only in the human-readable status there ("Up 3 minutes (healthy)", "Exited (1) 2 hours ago");
    asking for each container instead would cost a request each.
    """
    labels = entry.get("Labels") or {}
    status = entry.get("Status") or ""
    health = _STATUS_HEALTH.search(status)
    exited = _STATUS_EXIT.match(status)
    networks = ((entry.get("NetworkSettings") or {}).get("Networks") or {}).keys()
    return Container(
        id=entry["Id"],
        name=(entry.get("Names") or ["/" + entry["Id"][:12]])[0].lstrip("/"),
        service=labels.get(COMPOSE_SERVICE, ""),
        state=entry.get("State") or "",
        health=health.group(1).replace("health: ", "") if health else "",
        exit_code=int(exited.group(1)) if exited else None,
        image=entry.get("Image") or "",
        labels=labels,
        networks=frozenset(networks),
    )


def is_oneoff(container: Container) -> bool:
    """Tell whether a container was made by ``docker compose run``, a maintenance task that is not ours to touch."""
    return container.labels.get(COMPOSE_ONEOFF, "").lower() == "true"


def foreign_containers(containers: Iterable[Container], project: str) -> list[Container]:
    """Return the containers of a Compose project of the same name that somebody else made."""
    return [item for item in containers if not is_oneoff(item) and item.labels.get(LABEL_PROJECT) != project]


def plan_services(
    definition: Mapping[str, Any],
    project: str,
    containers: Sequence[Container],
    inputs: Mapping[str, Mapping[str, str]],
    hashes: Mapping[str, str],
    forced: Mapping[str, str],
) -> dict[str, ServicePlan]:
    """Decide for each service what has to be done, from what runs and what is wanted.

    Args:
        definition: Merged, normalised definition.
        project: Project name.
        containers: The project's containers, without those of ``docker compose run``.
        inputs: Wanted input digests by service.
        hashes: Wanted ``berth.hash`` by service.
        forced: Services to recreate although their labels are right, with the reason (a file had been edited by hand).

    Returns:
        A plan for every active service, and for every service that runs but is no longer wanted.
    """
    services = definition["services"]
    names = network_names(definition, project)
    finished = one_shots(definition)
    plans: dict[str, ServicePlan] = {}
    for name in active_services(definition):
        own = [item for item in containers if item.service == name and item.state != "removing"]
        wanted_networks = {names[key] for key in service_networks(services[name])}
        image = str(services[name]["image"])
        plans[name] = _plan_service(
            own,
            inputs[name],
            hashes[name],
            image,
            wanted_networks,
            replicas(services[name]),
            name in finished,
            forced.get(name),
        )
    _follow_dependencies(services, plans)
    for item in containers:
        if item.service not in services:
            plans[item.service] = ServicePlan(REMOVED, ["no longer in the definition"], "remove")
    return plans


def _plan_service(
    own: Sequence[Container],
    inputs: Mapping[str, str],
    wanted_hash: str,
    image: str,
    networks: set[str],
    count: int,
    one_shot: bool,
    forced: str | None,
) -> ServicePlan:
    if not own:
        return ServicePlan() if count == 0 else ServicePlan(CREATED, ["no container yet"], "up")
    outdated = [item for item in own if item.labels.get(LABEL_HASH) != wanted_hash]
    if outdated:
        return ServicePlan(RECREATED, changed_inputs(outdated[0], inputs, image), "up")
    if forced:
        return ServicePlan(RECREATED, [forced], "force")
    lost = sorted({net for item in own for net in networks - item.networks})
    if lost:
        return ServicePlan(RECREATED, [f"was not connected to {', '.join(lost)}"], "force")
    if len(own) != count:
        return ServicePlan(STARTED, [f"{len(own)} containers, {count} wanted"], "up")
    plans = [_plan_state(item, one_shot) for item in own]
    order = ("force", "up", "restart", "unpause", "wait", "none")
    return min(plans, key=lambda plan: order.index(plan.how))


def _plan_state(item: Container, one_shot: bool) -> ServicePlan:
    """Decide what to do about one container that has the right configuration."""
    if item.state == "running":
        if item.health == "unhealthy":
            return ServicePlan(STARTED, ["was unhealthy"], "restart")
        return ServicePlan(how="wait" if item.health == "starting" else "none")
    if item.state == "paused":
        return ServicePlan(STARTED, ["was paused"], "unpause")
    if item.state == "restarting":
        return ServicePlan(STARTED, [f"was restarting again and again (last exit code {item.exit_code})"], "restart")
    if item.state == "exited":
        if one_shot and item.exit_code == 0:
            return ServicePlan()
        return ServicePlan(STARTED, [f"had exited with code {item.exit_code}"], "up")
    if item.state == "created":
        return ServicePlan(STARTED, ["was created but never started"], "up")
    return ServicePlan(RECREATED, [f"was {item.state}"], "force")


def _follow_dependencies(services: Mapping[str, Any], plans: dict[str, ServicePlan]) -> None:
    """Let a replacement spread to services that borrow from the replaced one, or asked to be restarted with it."""
    changed = True
    while changed:
        changed = False
        for name, plan in plans.items():
            if plan.action in (CREATED, RECREATED):
                continue
            replaced = {other for other, its in plans.items() if its.action in (CREATED, RECREATED)}
            borrowed = sorted(linked_services(services[name]) & replaced)
            leaders = sorted(restarted_with(services[name]) & replaced)
            if borrowed:
                plans[name] = ServicePlan(RECREATED, [f"shares a namespace of {', '.join(borrowed)}"], "force")
                changed = True
            elif leaders and plan.how not in ("up", "restart"):
                plans[name] = ServicePlan(STARTED, [f"restarted together with {', '.join(leaders)}"], "restart")
                changed = True


CRASH_LOOP_RESTARTS = 3

UNHEALTHY_ROUNDS = 2
"""How many times as many checks in a row must have failed as make a container unhealthy, until it is given up. Compose gives it up at the first word, and
one that waits for another, or whose host is busy, gets well after it."""

DEFAULT_RETRIES = 3
"""Failed checks in a row that make a container unhealthy, where its definition does not say."""


def judge(inspected: Mapping[str, Any], *, one_shot: bool, looping: bool) -> str:
    """Judge a container that was started: ``well``, ``waiting``, ``failed``, or ``running`` when it has no health check.

    Args:
        inspected: Answer of ``GET /containers/{id}/json``.
        one_shot: Whether ending with exit code 0 is what it shall do.
        looping: Whether its restart policy has restarted it too often.
    """
    state = inspected.get("State") or {}
    status = state.get("Status")
    if status == "running" and not state.get("Restarting"):
        health = (state.get("Health") or {}).get("Status") or "none"
        if looping and health != "healthy":
            return "failed"
        if health == "unhealthy":
            retries = ((inspected.get("Config") or {}).get("Healthcheck") or {}).get("Retries") or DEFAULT_RETRIES
            return "failed" if state["Health"].get("FailingStreak", 0) >= UNHEALTHY_ROUNDS * retries else "waiting"
        return {"none": "running", "healthy": "waiting" if one_shot else "well"}.get(health, "waiting")
    if status == "exited" and one_shot and state.get("ExitCode") == 0:
        return "well"
    if status in ("restarting", "created", "running"):
        return "failed" if looping or state.get("Error") else "waiting"
    return "failed"


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|us|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def seconds(duration: Any, default: float) -> float:
    """Return a Compose duration ("1m30s", or a number of nanoseconds) in seconds; the default when it is not set."""
    if duration is None:
        return default
    if isinstance(duration, (int, float)):
        return duration / 1e9
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(str(duration)))


def health_allowance(inspected: Mapping[str, Any]) -> float:
    """Return the seconds a container may take until its first good health check: its start period and one round more."""
    check = (inspected.get("Config") or {}).get("Healthcheck") or {}
    nanoseconds = (check.get("StartPeriod") or 0) + (check.get("Interval") or 30e9) + (check.get("Timeout") or 30e9)
    return nanoseconds / 1e9 if check.get("StartPeriod") else 0.0


# --- explaining failures ------------------------------------------------------------------------------------------------

# " Container odoo-web-1  Started"; newer releases put one space between name and state.
_PROGRESS = re.compile(r"^ (?:Container|Network|Volume|Image|Service) \S+ {1,2}\S")
_DAEMON = re.compile(r"^(?:Error response from daemon: |failed to create task for container: |failed to create shim task: )+")
_CANNOT_START = re.compile(
    r"(?:OCI runtime create failed: )?runc create failed: unable to start container process: (?P<why>.*?)(?:: unknown)?$"
)
_PORT_TAKEN = (
    re.compile(r"Bind for (?P<address>\S*):(?P<port>\d+) failed: port is already allocated"),
    re.compile(r"listen (?:tcp|udp)[46]? (?P<address>\S*):(?P<port>\d+): bind: address already in use"),
    re.compile(r"failed to bind host port (?:for )?(?P<address>\S*?):(?P<port>\d+)[:/ ].*address already in use"),
)
_ADDRESS_MISSING = re.compile(r"listen (?:tcp|udp)[46]? (?P<address>\S*):(?P<port>\d+): bind: cannot assign requested address")
_NO_COMPOSE = re.compile(r"'compose' is not a docker command|unknown command: docker compose|unknown shorthand flag: 'p'")


def taken_port(text: str) -> tuple[str, int] | None:
    """Return (address, port) when the text is Docker's complaint about a port that something else listens on."""
    for pattern in _PORT_TAKEN:
        match = pattern.search(text)
        if match:
            return match["address"], int(match["port"])
    return None


def missing_address(text: str) -> str | None:
    """Return the address of a published port that this host does not have, when that is Docker's complaint."""
    match = _ADDRESS_MISSING.search(text)
    return match["address"] if match else None


def compose_missing(stderr: str) -> bool:
    """Tell whether the docker command has no compose plugin."""
    return bool(_NO_COMPOSE.search(stderr))


def compose_error(stderr: str) -> str:
    """Return what Compose complained about, without its progress lines; empty when it said nothing else."""
    lines = [daemon_words(line) for line in stderr.splitlines() if line.strip() and not _PROGRESS.match(line)]
    return "\n".join(lines[-5:])


def daemon_words(text: str) -> str:
    """Return a message of the daemon without the names of the layers it came through."""
    text = _DAEMON.sub("", text.strip())
    match = _CANNOT_START.search(text)
    return f"cannot start: {match['why']}" if match else text


def probe_command(test: Sequence[str]) -> list[str]:
    """Return the command of a health check as Docker stores it; empty when there is none.

    Source: the Healthcheck object of https://docs.docker.com/reference/api/engine/version/v1.44/
    """
    if test[:1] == ["CMD"]:
        return list(test[1:])
    if test[:1] == ["CMD-SHELL"]:
        return ["/bin/sh", "-c", *test[1:]]
    return []


def exit_reason(code: int, oom_killed: bool) -> str:
    """Say what an exit code means."""
    if oom_killed:
        return f"was killed because it reached its memory limit (exit code {code})"
    if code > 128 and code <= 128 + 64:
        return f"was ended by signal {code - 128} (exit code {code})"
    words = {126: ": the command cannot be executed", 127: ": the command was not found in the image"}
    return f"exited with code {code}{words.get(code, '')}"


def failure_reason(inspected: Mapping[str, Any], one_shot: bool) -> str | None:
    """Say why a container is not well; None when it is, or when it only waits for others.

    Args:
        inspected: Answer of ``GET /containers/{id}/json``.
        one_shot: Whether ending with exit code 0 is what it shall do.
    """
    state = inspected.get("State") or {}
    status = state.get("Status")
    code, oom_killed = int(state.get("ExitCode") or 0), bool(state.get("OOMKilled"))
    if status == "created":
        return daemon_words(state.get("Error") or "") or None
    if status == "exited":
        return None if one_shot and code == 0 else daemon_words(state.get("Error") or "") or exit_reason(code, oom_killed)
    restarts = int(inspected.get("RestartCount") or 0)
    if status == "restarting":
        return f"{exit_reason(code, oom_killed)} and was restarted {restarts} times"
    health = state.get("Health") or {}
    if health.get("Status") in ("unhealthy", "starting"):
        last = (health.get("Log") or [{}])[-1]
        words = " ".join(str(last.get("Output") or "").split())[-500:]
        judged = "is unhealthy" if health["Status"] == "unhealthy" else "is not healthy yet"
        if not last:
            return f"{judged}: its health check has not run yet"
        return f"{judged}: its health check ended with exit code {last.get('ExitCode')}" + (f": {words}" if words else "")
    if status == "running":  # its last exit code is forgotten as soon as it runs again
        return f"ends again and again, it was restarted {restarts} times" if restarts >= CRASH_LOOP_RESTARTS else None
    return f"is {status}"


def failure_message(project: str, failures: Sequence[Mapping[str, Any]], problem: str, waiting: Sequence[str] = ()) -> str:
    """Return the module's error: for each failed service why, and its last log lines.

    Args:
        project: Project name.
        failures: For each failed service ``service``, ``reason`` and ``log`` (lines).
        problem: What went wrong beyond single services; may be empty.
        waiting: Services that had not failed but were not ready either.
    """
    parts = []
    reasons = {str(item["reason"]) for item in failures}
    if problem and not any(problem in reason or reason in problem for reason in reasons):
        parts.append(f"project {project}: {problem}")
    for item in failures:
        parts.append(f"project {project}: service {item['service']} {item['reason']}")
        if item["log"]:
            parts.append("its last log lines:")
            parts.extend(f"    {line}" for line in item["log"])
        else:
            parts.append("it logged nothing")
    if waiting:
        parts.append(f"not ready yet either: {', '.join(waiting)}")
    parts.append(f"More: docker compose -p {project} logs")
    return "\n".join(parts)


_LISTEN = "0A"


def listening_inodes(proc_net_tcp: str, port: int) -> set[str]:
    """Return the socket inodes that listen on a port, from the text of /proc/net/tcp or tcp6 (proc(5))."""
    inodes = set()
    for line in proc_net_tcp.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 9 and columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
            inodes.add(columns[9])
    return inodes


# --- never showing secrets ----------------------------------------------------------------------------------------------

SHORTEST_SECRET = 4
_ASSIGNMENT = re.compile(r"^(?P<name>[^=:]{1,80})[=:]\s*(?P<value>\S.*?)\s*,?$")
_SECRET_NAME = re.compile(r"pass|secret|token|key|pwd|credential", re.IGNORECASE)
_WORD_BORDER = re.compile(r"[\s\"'=:,;@{}\[\]]+")


def secret_words(contents: Iterable[bytes]) -> list[str]:
    """Return the texts of sensitive files that must not appear in what a container says when we show that.

    Values of names that sound like a secret, and otherwise whole lines, values and single words that mix kinds of characters.
    Plain words, numbers and paths stay readable: a configuration file with one password in it is sensitive as a whole, and
    hiding every "localhost" would make the log useless.
    """
    found: set[str] = set()
    for content in contents:
        for raw in content.decode("utf-8", "replace").splitlines():
            line = raw.strip()
            match = _ASSIGNMENT.match(line)
            value = match["value"].strip("\"'") if match else ""
            if match and _SECRET_NAME.search(match["name"]) and len(value) >= SHORTEST_SECRET:
                found.add(value)
            candidates = [line, value, *_WORD_BORDER.split(line)]
            found.update(text for text in candidates if len(text) >= SHORTEST_SECRET and _looks_secret(text))
    return sorted(found, key=lambda text: (-len(text), text))


def _looks_secret(text: str) -> bool:
    """Tell whether a text mixes kinds of characters, as passwords do and plain words, numbers and paths do not."""
    if text.startswith(("/", "#")):
        return False
    kinds = (str.islower, str.isupper, str.isdigit, lambda char: not char.isalnum() and char not in " ._-")
    return sum(any(kind(char) for char in text) for kind in kinds) > 1


def mask(text: str, words: Iterable[str]) -> str:
    """Replace every secret in a text by asterisks; longest first, so that no rest of a longer one remains."""
    for word in words:
        text = text.replace(word, "********")
    return text
