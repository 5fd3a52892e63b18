# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge a whole inventory and its machines at once: every problem of every host, and the capacity plan.

Pure: the action plugin reads variables, specifications and machines; here they only meet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import _authority, _odoo_tables, _sizing, _validate
from ._compose_certificates import as_text
from ._traefik import class_problems
from ._validate import Problem
from ._wiring import voters

TIER_ROLES = {
    "edge": ("traefik",),
    "app": ("haproxy", "pgbouncer", "odoo"),
    "database": ("etcd", "postgresql"),
    "cache": ("redis",),
    "witness": ("etcd",),
}
"""Which roles a tier's hosts run."""

SET_BY_ROLES = frozenset({"berth_plan", "images_references"})
"""Facts that roles and playbooks of the collection set; a second run in one play sees them as variables."""

AUTHORITY_ENDS_SOON = 180 * 86400
"""Seconds before the end of the platform's authority from which that is worth a note: changing it takes three runs."""

UNREACHABLE_REMEDY = "try: ansible {host} -m ansible.builtin.ping -b"


class Rules(NamedTuple):
    """What the variables of the preflight role ask for."""

    minimum_memory_mb: int = 1024
    minimum_disk_gb: int = 20
    minimum_free_gb: int = 5
    cpu_flags: tuple[str, ...] = ("sse4_2", "popcnt")
    maximum_clock_skew_s: float = 2.0
    minimum_secret_length: int = 20
    require_image_digests: bool = False
    ignored_variables: tuple[str, ...] = ()


class Host(NamedTuple):
    """One host of the inventory."""

    variables: Mapping[str, Any]
    """Rendered values of the variables that the collection knows."""
    names: Sequence[str]
    """All variables that a person wrote."""
    unrenderable: Mapping[str, str]
    """Variable to the reason why it has no value."""
    facts: Mapping[str, Any] | None
    """What C(preflight_info) returned; nothing when the host did not answer."""
    failure: str = ""
    """Why there are no facts."""
    limited: bool = False
    """Outside of the run's limit: its problems of reachability are notes."""


_TURNS = {"standby": 1, "leader": 2, "blank": 3}
"""When a host's turn is among those of its tier: first who is not well, because nothing can be lost there, and of those with data who leads at last. After
it who has none: such a host copies from the leader, which may not be reachable for others before its own turn."""


class Report(NamedTuple):
    """Result of :func:`examine`."""

    problems: list[Problem]
    notes: list[str]
    plan: dict[str, dict[str, Any]]
    table: list[str]


def examine(
    hosts: Mapping[str, Host],
    tiers: Mapping[str, Sequence[str]],
    specifications: Mapping[str, Mapping[str, Any]],
    rules: Rules,
    now: int,
) -> Report:
    """Check everything and plan.

    :param specifications: role to the options of its argument specification.
    :param now: seconds since 1970.
    """
    problems: list[Problem] = list(_check_tiers(tiers, hosts))
    notes: list[tuple[str, str]] = []
    known = {name: option for options in specifications.values() for name, option in options.items()}
    for name, host in hosts.items():
        problems.extend(_check_variables(name, host, known, {f"{role}_image" for role in specifications}, rules, notes))
        if "platform_authority" not in host.unrenderable:
            problems.extend(_check_authority(name, host.variables, bool(tiers.get("database")), now, notes))
        mistakes, strangers = _validate.unknown_variables(
            name, host.names, {*known, *SET_BY_ROLES}, {*specifications, "berth"}, rules.ignored_variables
        )
        problems.extend(mistakes)
        notes.extend((name, f"{item.subject} is {item.found}{f'; {item.expected}' if item.expected else ''}") for item in strangers)
        if host.facts is not None:
            problems.extend(_check_machine(name, host, tiers, rules))
            problems.extend(_check_left(name, host, tiers))
        elif not host.limited:
            problems.append(Problem((name,), "connection", host.failure, "an answer", UNREACHABLE_REMEDY.format(host=name)))
    problems.extend(_check_clocks(hosts, rules, notes))
    problems.extend(_check_replica_reads(hosts, tiers))
    machines = _machines(hosts, tiers, notes)
    result = _sizing.plan(
        machines,
        tiers,
        {name: _well_formed(hosts[name].variables.get("odoo_instances")) for name in machines},
        {name: hosts[name].variables for name in machines},
    )
    problems.extend(result.problems)
    for name, sponsor in _sponsors(hosts, tiers).items():
        if "etcd" in result.hosts.get(name, {}):
            result.hosts[name]["etcd"].update(sponsor=sponsor, has_data=bool((hosts[name].facts or {}).get("etcd")))
            result.hosts[name]["etcd"]["turn"] = int(bool((hosts[name].facts or {}).get("etcd_healthy")))
        if "postgresql" in result.hosts.get(name, {}):
            result.hosts[name]["postgresql"]["turn"] = _TURNS.get((hosts[name].facts or {}).get("postgresql", ""), 0)
        if sponsor:
            notes.append((name, f"is no voting etcd member yet and joins the cluster of {sponsor}"))
    return Report(_validate.merge(problems), _joined([*notes, *result.notes]), result.hosts, _sizing.format_plan(result, machines))


def _check_tiers(tiers: Mapping[str, Sequence[str]], hosts: Mapping[str, Host]) -> Iterator[Problem]:
    yield from _validate.check_topology(tiers)
    for tier, names in tiers.items():
        for name in names or []:
            if name not in hosts:
                yield Problem((), f"preflight_tier_hosts.{tier}", f"{name}, which is no host", "hosts of the inventory", f"add {name}")


def _check_replica_reads(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    asking = [name for name, host in hosts.items() if _sizing.truth(host.variables.get("odoo_replica_reads"))]
    members = tiers.get("database") or []
    if asking and len(members) < 2:
        found = f"true with {len(members)} database host" + ("s" if len(members) != 1 else "")
        yield Problem(
            tuple(asking),
            "odoo_replica_reads",
            found,
            "a second one, which could answer",
            "odoo_replica_reads: false, or add a host to the group database",
        )
    elif asking and len(asking) < len(hosts):
        others = ", ".join(name for name in hosts if name not in asking)
        yield Problem(
            tuple(asking), "odoo_replica_reads", f"true, and not for {others}", "one value for all hosts", "set it in group_vars/all"
        )


def _sponsors(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return, for each etcd member, who lets it join: nobody where it has its data or where all of them begin together.

    A member without data that began by itself would found a second cluster beside the first, and PostgreSQL with it.
    """
    members = [name for name in voters(tiers) if name in hosts]
    founded = [name for name in members if (hosts[name].facts or {}).get("etcd") == "member"]
    return {name: "" if name in founded or not founded else founded[0] for name in members}


def _check_left(name: str, host: Host, tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Check that no instance is on a host that the inventory does not know: a run would take its users, its routes and its place away."""
    if name not in (tiers.get("app") or []) or "odoo_instances" in host.unrenderable:
        return
    known = _well_formed(host.variables.get("odoo_instances"))
    for instance in (host.facts or {}).get("instances") or []:
        if instance not in known:
            yield Problem(
                (name,),
                "odoo_instances",
                f"no {instance}, which is on {name}",
                "every instance that is there, also one that shall not run (state: stopped)",
                f"put {instance} back. To delete it with all its data: ansible-playbook -i <inventory> berth.odoo.remove_instance "
                f"-e target={instance} -e confirm={instance} -e backup=none",
            )


def _check_classes(name: str, instances: Any) -> Iterator[Problem]:
    """Check what instances say of their route classes."""
    for instance, entry in _well_formed(instances).items():
        for key, found, expected in class_problems(entry):
            path = f"odoo_instances.{instance}.{key}"
            yield Problem((name,), path, found, expected, f"correct {path}")


def _unfinished_rotations(name: str, secrets: Any) -> Iterator[tuple[str, str]]:
    """Return a note for each instance whose rotation was interrupted."""
    for instance, values in _well_formed(secrets).items():
        if values.keys() & {"db_password_next", "db_password_old"}:
            yield (
                name,
                f"the database password of {instance} is being rotated; finish it: ansible-playbook -i <inventory> berth.odoo.rotate_secrets",
            )


def _check_variables(
    name: str, host: Host, known: Mapping[str, Mapping[str, Any]], images: Collection[str], rules: Rules, notes: list[tuple[str, str]]
) -> Iterator[Problem]:
    variables = host.variables
    for variable, reason in host.unrenderable.items():
        yield Problem((name,), variable, f"no value: {reason}", "a value", f"correct {variable}")
    certificates = variables.get("traefik_certificates")
    variants = _well_formed(variables.get("images_odoo_variants"))
    yield from _check_variants(name, _well_formed(variables.get("odoo_instances")), variants)
    yield from _validate.check_instances(
        name,
        _without_variants(variables.get("odoo_instances") or {}, variants),
        None if "traefik_certificates" in host.unrenderable else list(certificates) if isinstance(certificates, Mapping) else [],
        require_digests=rules.require_image_digests,
    )
    yield from _check_classes(name, variables.get("odoo_instances"))
    if not variables.get("odoo_instances") and "odoo_instances" not in host.unrenderable:
        yield Problem(
            (name,), "odoo_instances", "nothing", "at least one instance", "odoo_instances: {main: {domains: […], database: main}}"
        )
    if "odoo_instance_secrets" not in host.unrenderable:
        yield from _validate.check_instance_secrets(
            name, variables.get("odoo_instances"), variables.get("odoo_instance_secrets"), rules.minimum_secret_length
        )
    notes.extend(_unfinished_rotations(name, variables.get("odoo_instance_secrets")))
    yield from _validate.check_objectives(name, variables.get("objectives"))
    secrets: dict[str, Any] = _instance_passwords(variables.get("odoo_instance_secrets"))
    for variable, option in known.items():
        value = variables.get(variable)
        if value is None or variable in {"odoo_instances", "odoo_instance_secrets", "platform_authority"}:
            continue
        found = list(_validate.check_value(name, variable, option, value))
        yield from found
        if variable in images and not found:
            yield from _validate.check_image(name, variable, value, rules.require_image_digests)
        for path, secret in _validate.passwords_in(variable, option, value):
            secrets[path] = secret
            yield from _validate.check_secret(name, path, secret, rules.minimum_secret_length)
    yield from _validate.check_distinct(name, secrets)
    if isinstance(tables := variables.get("odoo_table_parameters"), Mapping):
        yield from _odoo_tables.check_tables(name, tables)


def _without_variants(instances: Any, variants: Mapping[str, Any]) -> Any:
    """Return instances without the images that we build for them, which have no registry and no digest."""
    if not isinstance(instances, Mapping):
        return instances
    return {
        name: {key: value for key, value in entry.items() if key != "image" or not isinstance(value, str) or value not in variants}
        if isinstance(entry, Mapping)
        else entry
        for name, entry in instances.items()
    }


def _check_variants(name: str, instances: Mapping[str, Mapping[str, Any]], variants: Collection[str]) -> Iterator[Problem]:
    """Check the images that instances name without a tag or a registry where images of our own have such names."""
    for instance, entry in instances.items():
        image = entry.get("image")
        if variants and isinstance(image, str) and image != "odoo" and image not in variants and not re.search("[:/@]", image):
            match = _validate.nearest(image, variants, 0.5)
            yield Problem(
                (name,),
                f"odoo_instances.{instance}.image",
                _validate.describe(image),
                f"odoo, one of images_odoo_variants ({', '.join(sorted(variants))}), or a reference with a tag or digest",
                f"odoo_instances: {{{instance}: {{image: {match or sorted(variants)[0]}}}}}",
            )


def _check_authority(name: str, variables: Mapping[str, Any], required: bool, now: int, notes: list[tuple[str, str]]) -> Iterator[Problem]:
    """Check C(platform_authority) as compose_project will; a note when it ends soon.

    :param required: some host runs a service that needs a certificate.
    """
    subject, authority = "platform_authority", variables.get("platform_authority")
    keys = ("certificate", "key")
    if authority is None:
        if required:
            first = _validate.SECRETS_REMEDY if variables.get("odoo_instance_secrets") is None else _authority.ADD
            yield Problem((name,), subject, "nothing", "the authority that signs the certificates of the platform's services", first)
        return
    if not isinstance(authority, Mapping):
        yield Problem((name,), subject, _validate.describe(authority, True), "a dictionary with certificate and key", _authority.REPLACE)
        return
    for key in authority:
        if key not in keys:
            match = _validate.nearest(str(key), keys)
            expected = f"{match}?" if match else f"one of {', '.join(keys)}"
            yield Problem((name,), f"{subject}.{key}", "a key that nothing reads", expected, f"rename or remove {key}")
    wrong = {key: authority.get(key) for key in keys if not isinstance(authority.get(key), str)}
    for key, value in wrong.items():
        yield Problem((name,), f"{subject}.{key}", _validate.describe(value, True), "PEM text", _authority.REPLACE)
    if wrong:
        return
    if _authority.LIBRARY_ERROR:
        remedy = "install cryptography into the Python that runs Ansible: pip install cryptography"
        yield Problem((), "this controller", "no Python package cryptography", "it, to issue certificates", remedy)
        return
    try:
        end = _authority.load(authority["certificate"], authority["key"], now).not_after
    except _authority.AuthorityError as error:
        yield Problem((name,), f"{subject}.{error.part}", error.found, error.expected, error.remedy)
        return
    if end - now < AUTHORITY_ENDS_SOON:
        notes.append(
            (name, f"{subject} expires on {as_text(end)}; the documentation of compose_project, option authority, says how to change it")
        )


def _instance_passwords(secrets: Any) -> dict[str, Any]:
    found = {}
    for instance, values in secrets.items() if isinstance(secrets, Mapping) else ():
        for key, value in values.items() if isinstance(values, Mapping) else ():
            found[f"odoo_instance_secrets.{instance}.{key}"] = value
    return found


def _check_machine(name: str, host: Host, tiers: Mapping[str, Sequence[str]], rules: Rules) -> Iterator[Problem]:
    facts = host.facts or {}
    variables = host.variables
    ports: list[tuple[str, int]] = []
    if name in (tiers.get("edge") or []):
        where = str(variables.get("traefik_publish_address") or "")
        ports = [
            (where, _sizing.whole(variables.get(variable)) or default)
            for variable, default in (("traefik_http_port", 80), ("traefik_https_port", 443))
        ]
    yield from _validate.check_host(
        name,
        facts,
        _validate.HostRules(
            minimum_memory_mb=rules.minimum_memory_mb,
            minimum_disk_gb=rules.minimum_disk_gb,
            minimum_free_gb=rules.minimum_free_gb,
            cpu_flags=rules.cpu_flags,
            ports=tuple(ports),
            runs_docker=any(name in (tiers.get(tier) or []) for tier in TIER_ROLES),
        ),
    )
    yield from _validate.check_peers(name, facts["peers"])


def _check_clocks(hosts: Mapping[str, Host], rules: Rules, notes: list[tuple[str, str]]) -> Iterator[Problem]:
    answered = {name: host.facts for name, host in hosts.items() if host.facts is not None}
    for name, facts in answered.items():
        if facts.get("clock_synchronized") is False and not facts["container"]:
            notes.append((name, "nothing disciplines the clock yet; the host role installs systemd-timesyncd"))
    offsets = {name: (facts["clock_offset_s"], facts["clock_error_s"]) for name, facts in answered.items()}
    if len(offsets) == 1:
        ((name, (offset, error)),) = offsets.items()
        if abs(offset) - error > rules.maximum_clock_skew_s:
            notes.append((name, f"its clock and this controller's are {abs(offset):.1f} s apart"))
    yield from _validate.check_clocks(offsets, rules.maximum_clock_skew_s)


def _machines(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]], notes: list[tuple[str, str]]) -> dict[str, _sizing.Machine]:
    """Return the machines to plan with.

    A host that the run's limit leaves out and that does not answer still counts, else a limited run would plan fewer
    connections and restart PostgreSQL: it is taken to be like another host of its tier.
    """
    machines = {name: _machine(host.facts) for name, host in hosts.items() if host.facts is not None}
    for name, host in hosts.items():
        if name in machines or not host.limited:
            continue
        fellows = [fellow for members in tiers.values() if name in (members or []) for fellow in members if fellow in machines]
        if fellows:
            machines[name] = machines[fellows[0]]
            notes.append((name, f"outside of --limit and does not answer ({host.failure}): planned like {fellows[0]}"))
    return {name: machines[name] for name in hosts if name in machines}


def _machine(facts: Mapping[str, Any]) -> _sizing.Machine:
    data: Mapping[str, Any] = next(iter(facts["disks"]), {})
    return _sizing.Machine(facts["cpus"], facts["memory_mb"], data.get("kind", "ssd"), data.get("size_mb", 0))


def _well_formed(instances: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(instances, Mapping):
        return {}
    return {str(name): value for name, value in instances.items() if isinstance(value, Mapping)}


def _joined(notes: Sequence[tuple[str, str]]) -> list[str]:
    """Say each note once: what stands in a group's variables would be said for every host."""
    said: dict[str, list[str]] = {}
    for host, text in notes:
        said.setdefault(text, []).append(host)
    return [f"{', '.join(hosts)}: {text}" for text, hosts in said.items()]


def render(value: Any) -> Any:
    """Copy containers, so that lazy templates inside them are evaluated now, where an error can be caught."""
    if isinstance(value, Mapping):
        return {key: render(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [render(inner) for inner in value]
    return value
