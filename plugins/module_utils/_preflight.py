# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge a whole inventory and its machines at once: every problem of every host, and the capacity plan.

Pure: the action plugin reads variables, specifications and machines; here they only meet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from . import _authority, _odoo_tables, _pgbackrest, _sizing, _validate
from ._compose_certificates import as_text
from ._odoo_instance import overlap
from ._traefik import ACME, acme_problems, class_problems
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

_COMPUTED = "nothing: it follows from the groups, host_address and odoo_instances"

HANDED_OVER: Mapping[str, str] = {
    **{
        f"odoo_{key}": f"odoo_instances.<name>.{key}"
        for key in ("admin_login", "attachments", "country", "cpus", "database", "extra_settings")
    },
    **{f"odoo_{key}": f"odoo_instances.<name>.{key}" for key in ("filestore", "image", "language", "modules", "oidc", "sessions", "state")},
    "odoo_system_parameters": "odoo_instances.<name>.system_parameters",
    "odoo_name": "the name in odoo_instances",
    "odoo_base_url": "odoo_instances.<name>.domains",
    "odoo_publish_port": "odoo_instances.<name>.port",
    "odoo_admin_password": "odoo_instance_secrets.<name>.admin_password",
    "odoo_db_password": "odoo_instance_secrets.<name>.db_password",
    "odoo_redis_password": "odoo_instance_secrets.<name>.redis_password",
    "odoo_filestore_access_key": "odoo_instance_secrets.<name>.s3_access_key",
    "odoo_filestore_secret_key": "odoo_instance_secrets.<name>.s3_secret_key",
    "odoo_oidc_client_secret": "odoo_instance_secrets.<name>.oidc_client_secret",
    **{f"{role}_image": f"images_registry.{role}" for role in ("etcd", "haproxy", "pgbouncer", "postgresql", "redis", "traefik")},
    "restore_postgresql_image": "images_registry.postgresql",
    **{f"postgresql_backup_{part}": f"backup_{part}" for part in ("repositories", "retention", "schedule", "secrets")},
    "restore_repositories": "backup_repositories",
    "restore_secrets": "backup_secrets",
    "restore_schedule": "backup_schedule.drill",
    "restore_objectives": "objectives",
    "backup_stanza": "postgresql_cluster_name",
    "restore_stanza": "postgresql_cluster_name",
    **dict.fromkeys(("etcd_authority", "postgresql_authority", "redis_authority"), "platform_authority"),
    **dict.fromkeys(("haproxy_authority_certificate", "pgbouncer_authority_certificate"), "platform_authority"),
    **dict.fromkeys(("odoo_db_authority_certificate", "odoo_redis_authority_certificate"), "platform_authority"),
    **dict.fromkeys(("haproxy_replica_reads", "postgresql_replica_reads"), "odoo_replica_reads"),
    "firewall_openings": "firewall_extra_openings",
    "firewall_destinations": "firewall_outgoing",
    "host_huge_pages": "vm.nr_hugepages in host_sysctl",
    "preflight_tier_hosts": "the groups of the inventory",
    **dict.fromkeys(("backup_instances", "restore_drilled", "restore_instances", "restore_project"), _COMPUTED),
    **dict.fromkeys(("etcd_members", "etcd_publish_address", "haproxy_members"), _COMPUTED),
    **dict.fromkeys((f"keepalived_{name}" for name in ("interface", "own_address", "peers", "peers_interface")), _COMPUTED),
    **dict.fromkeys(("keepalived_ping_port", "keepalived_priority"), _COMPUTED),
    # What is built in addition is said once, with -e, which berth.odoo.images keeps in the manifest.
    "images_names": _COMPUTED,
    **dict.fromkeys((f"odoo_{name}" for name in ("db_replica_pool", "db_user", "publish_address", "redis", "redis_members")), _COMPUTED),
    **dict.fromkeys((f"pgbouncer_{name}" for name in ("hold", "networks", "replica_port", "users")), _COMPUTED),
    **dict.fromkeys((f"postgresql_{name}" for name in ("client_networks", "databases", "etcd_hosts", "hosts", "members")), _COMPUTED),
    **dict.fromkeys(("postgresql_publish_address", "postgresql_roles"), _COMPUTED),
    **dict.fromkeys((f"redis_{name}" for name in ("first", "members", "networks", "publish_address", "users")), _COMPUTED),
    **dict.fromkeys((f"traefik_{name}" for name in ("drained", "networks", "ping_port", "sites")), _COMPUTED),
}
"""Variables of roles whose value the playbooks hand over, which wins over an inventory's, and where the inventory says it instead. What the plan
computes is not among them: it reads such a variable and takes its value."""

AUTHORITY_ENDS_SOON = 180 * 86400
"""Seconds before the end of the platform's authority from which that is worth a note: changing it takes three runs."""

DATA_DIR = "odoo_data_dir"

UNREACHABLE_REMEDY = "try: ansible {host} -m ansible.builtin.ping -b"


class Rules(NamedTuple):
    """What the variables of the preflight role ask for."""

    minimum_memory_mb: int = 900
    minimum_disk_gb: int = 18
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
    data_dirs: Mapping[str, str] = {}
    """Instance to its C(odoo_data_dir), where the inventory says one."""


_TURNS = {"standby": 1, "leader": 2, "blank": 3}
"""When a host's turn is among those of its tier: first who is not well, because nothing can be lost there, and of those with data who leads at last. After
it who has none: such a host copies from the leader, which may not be reachable for others before its own turn."""


REPLICATION_PASSWORD = "redis_replication_password"  # noqa: S105 - a name


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
    instances = {name for host in hosts.values() for name in _well_formed(host.variables.get("odoo_instances"))}
    for name, host in hosts.items():
        problems.extend(_check_variables(name, host, known, {f"{role}_image" for role in specifications}, rules, notes, instances))
        if "platform_authority" not in host.unrenderable:
            problems.extend(_check_authority(name, host.variables, bool(tiers.get("database")), now, notes))
        mistakes, strangers = _validate.unknown_variables(
            name, host.names, {*known, *SET_BY_ROLES}, {*specifications, "berth"}, rules.ignored_variables
        )
        problems.extend(mistakes)
        notes.extend((name, f"{item.subject} is {item.found}{f'; {item.expected}' if item.expected else ''}") for item in strangers)
        problems.extend(_check_handed_over(name, host, rules))
        if host.facts is not None:
            problems.extend(_check_machine(name, host, tiers, rules))
            problems.extend(_check_left(name, host, tiers))
        elif not host.limited:
            problems.append(Problem((name,), "connection", host.failure, "an answer", UNREACHABLE_REMEDY.format(host=name)))
    problems.extend(_check_clocks(hosts, rules, notes))
    problems.extend(_check_replica_reads(hosts, tiers))
    problems.extend(_check_acme(hosts, tiers))
    problems.extend(_check_floating(hosts, tiers))
    problems.extend(_check_apps(hosts, tiers))
    problems.extend(_check_data_dirs(hosts, tiers))
    problems.extend(_check_founding(hosts, tiers))
    problems.extend(_check_caches(hosts, tiers))
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
    _plan_caches(hosts, tiers, result.hosts)
    for name, part in _keepalived(hosts, tiers).items():
        if part.get("drained"):
            notes.append(
                (
                    name,
                    f"drained since {part['drained']}: it does not get the floating address; to undo it: ansible-playbook -i <inventory> "
                    f"berth.odoo.undrain -e target={name}",
                )
            )
        result.hosts.get(name, {})["keepalived"] = part
    for name, since in _drained(hosts, tiers, notes).items():
        result.hosts.get(name, {})["drained"] = since
    return Report(_validate.merge(problems), _joined([*notes, *result.notes]), result.hosts, _sizing.format_plan(result, machines))


def _check_tiers(tiers: Mapping[str, Sequence[str]], hosts: Mapping[str, Host]) -> Iterator[Problem]:
    yield from _validate.check_topology(tiers)
    for tier, names in tiers.items():
        for name in names or []:
            if name not in hosts:
                yield Problem((), f"preflight_tier_hosts.{tier}", f"{name}, which is no host", "hosts of the inventory", f"add {name}")


def _check_handed_over(name: str, host: Host, rules: Rules) -> Iterator[Problem]:
    """Check that nobody sets what would be ignored without a word, because the playbooks hand the role another value."""
    for variable in host.names:
        if variable in HANDED_OVER and variable not in rules.ignored_variables:
            where = HANDED_OVER[variable]
            remedy = f"remove {variable}" if where == _COMPUTED else f"write it into {where}, and remove {variable}"
            yield Problem((name,), variable, "a value that the playbooks replace by their own", where, remedy)


def _check_acme(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """The ACME server asks any one of the edges for the file that another one has."""
    edges = [name for name in tiers.get("edge") or [] if name in hosts]
    for name in edges if len(edges) > 1 else []:
        acme = hosts[name].variables.get("traefik_acme")
        if isinstance(acme, Mapping) and acme and not acme.get("dns_provider"):
            yield Problem(
                (name,),
                "traefik_acme.dns_provider",
                f"nothing with {len(edges)} edges ({', '.join(edges)})",
                "a DNS provider, because certificates can be proven by HTTP with one edge only",
                "traefik_acme: {dns_provider: …}, see docs/tls.md",
            )


FLOATING = "keepalived_address"


def _edges(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the edges and the floating address that each of them is told."""
    return {name: hosts[name].variables.get(FLOATING) or "" for name in tiers.get("edge") or [] if name in hosts}


def _check_floating(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Check the address that edges share: that it can move between them, and that nobody else has it."""
    told = _edges(hosts, tiers)
    edges, values = tuple(told), list(dict.fromkeys(map(str, told.values())))
    if not any(values):
        return
    if len(values) > 1:
        found = ", ".join(f"{value or 'nothing'} on {name}" for name, value in told.items())
        yield Problem(edges, FLOATING, found, "one value for all edges", f"set {FLOATING} in group_vars/all")
        return
    address = values[0]
    if not _validate.is_address(address):
        yield Problem(edges, FLOATING, _validate.describe(address), "an IPv4 address without a mask", f"{FLOATING}: 203.0.113.9")
        return
    if len(edges) < 2:
        yield Problem(
            edges,
            FLOATING,
            f"{address} with one edge ({', '.join(edges)})",
            "two hosts in the group edge, between which it could move",
            f"add a host to the group edge, or remove {FLOATING}",
        )
    owners = [
        name
        for name, host in hosts.items()
        if address in {str(host.variables.get("host_address")), str(host.variables.get("ansible_host"))}
    ]
    if owners:
        yield Problem(edges, FLOATING, f"{address}, which is {', '.join(owners)}'s own", "an address that no host has", "take a free one")
        return
    yield from _check_floating_network(hosts, edges, address)


def _check_floating_network(hosts: Mapping[str, Host], edges: Sequence[str], address: str) -> Iterator[Problem]:
    """Check what the edges say of the address: they are in its network, and nobody else has it."""
    facts = {name: (hosts[name].facts or {}).get("floating") or {} for name in edges}
    for name, fact in facts.items():
        if fact and not fact["interface"]:
            yield Problem(
                (name,),
                FLOATING,
                f"{address}, and no interface of {name} is in its network",
                "an address of a network that every edge is in, without a router between",
                f"take a free address of such a network, or give {name} an interface there",
            )
        elif fact and not fact["own_interface"]:
            yield Problem(
                (name,),
                "host_address",
                "an address of no interface's network",
                "the one at which the other edges see it",
                f"correct it for {name}",
            )
        if where := hosts[name].variables.get("traefik_publish_address"):
            yield Problem(
                (name,),
                "traefik_publish_address",
                f"{where} with {FLOATING} {address}, which is another",
                "nothing",
                "remove traefik_publish_address",
            )
    # An edge that does not answer may have it.
    if all(facts.values()) and not any(fact["held"] for fact in facts.values()):
        for name, fact in facts.items():
            if fact["claimed_by"]:
                yield Problem(
                    (name,),
                    FLOATING,
                    f"{address}, which the machine with the hardware address {fact['claimed_by']} has",
                    "an address that nobody else has",
                    "take a free one, or take it from that machine",
                )


def _keepalived(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Return, for each edge of a floating address that answered, what the role C(keepalived) cannot know: interfaces, and its turn among the others.

    Where the address was taken out of the inventory, C(left) says that the role was there.
    """
    left = {
        name: {"left": True}
        for name, address in _edges(hosts, tiers).items()
        if not address and (hosts[name].facts or {}).get("keepalived")
    }
    edges = [name for name, address in _edges(hosts, tiers).items() if address]
    facts = {name: (hosts[name].facts or {}).get("floating") for name in edges}
    return left | {
        name: {
            "interface": fact["interface"],
            "peers_interface": fact["own_interface"],
            "priority": 200 - edges.index(name),
            "drained": fact["drained"],
        }
        for name, fact in facts.items()
        if fact
    }


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


def _check_apps(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Check what several application hosts, or edges on other hosts, ask of the instances."""
    apps = [name for name in tiers.get("app") or [] if name in hosts]
    seen = {name: _well_formed(hosts[name].variables.get("odoo_instances")) for name in apps}
    instances = {instance: entry for entries in seen.values() for instance, entry in entries.items()}
    yield from _validate.check_shared(instances, {instance: [name for name in apps if instance in seen[name]] for instance in instances})
    published = [name for name in apps if set(tiers.get("edge") or []) - {name}]
    if published:
        yield from _validate.check_instance_ports(published, instances)


def _check_data_dirs(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Check that no instance has its files among those of another one on the same host: whoever deletes one would delete both."""
    for name in tiers.get("app") or []:
        found = hosts[name].data_dirs if name in hosts else {}
        for (one, mine), (other, its) in combinations(found.items(), 2):
            if overlap(mine, its):
                yield Problem(
                    (name,),
                    DATA_DIR,
                    f"{mine} for {one}, and {its} for {other}",
                    "a directory for each instance, none inside of another one",
                    f'{DATA_DIR}: "/srv/odoo/{{{{ odoo_name }}}}"; where they run already move their files first, docs/instances.md',
                )
                break


def _drained(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]], notes: list[tuple[str, str]]) -> dict[str, str]:
    """Return the application hosts that some edge was told to leave out, and since when; noted for a person.

    Nobody when it is all of them, as after the last other one has left the group: somebody has to answer.
    """
    told: dict[str, str] = {}
    for edge in tiers.get("edge") or []:
        told |= (hosts[edge].facts or {}).get("drained") or {} if edge in hosts else {}
    apps = tiers.get("app") or []
    found = {name: since for name, since in told.items() if name in apps}
    if found and not set(apps) - set(found):
        notes.extend((name, "was drained and gets requests all the same, because no other app host is left") for name in found)
        return {}
    notes.extend(
        (
            name,
            f"drained since {since}: no edge sends it requests; to undo it: ansible-playbook -i <inventory> berth.odoo.undrain -e target={name}",
        )
        for name, since in found.items()
    )
    return found


def _sponsors(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return, for each etcd member, who lets it join: nobody where it has its data or where all of them begin together.

    A member without data that began by itself would found a second cluster beside the first, and PostgreSQL with it.
    """
    members = [name for name in voters(tiers) if name in hosts]
    founded = [name for name in members if (hosts[name].facts or {}).get("etcd") == "member"]
    return {name: "" if name in founded or not founded else founded[0] for name in members}


def _check_founding(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Check that nobody founds a cluster while one that cannot be asked may have its data: its database would be taken for an empty one."""
    members = [name for name in voters(tiers) if name in hosts]
    states = {name: (facts or {}).get("etcd") for name in members if (facts := hosts[name].facts) is not None}
    silent = [name for name in members if name not in states]
    begin = tuple(name for name in states if not hosts[name].limited)
    if silent and begin and "member" not in states.values():
        yield Problem(
            begin,
            "groups database and witness",
            f"no data of a cluster on any that answers, and {', '.join(silent)} cannot be asked whether it has them",
            "an answer of all of them before one is founded",
            f"let {silent[0]} answer; take one that is lost for ever, and was blank, out of the groups",
        )


def _plan_caches(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]], plan: Mapping[str, dict[str, Any]]) -> None:
    """Note, for each host with Redis, whom one without data follows, C(first), and its C(turn) among the others.

    All of them get the least memory for data that one of them has. The Sentinels' newest word counts. Where there is none yet, nobody would let the
    others in before him who has the logins so far.
    """
    names = [name for name in tiers.get("cache") or [] if name in hosts]
    facts = {name: (hosts[name].facts or {}).get("redis") or {} for name in names}
    # What is left of one that was removed does not count beside those that are there.
    there = [name for name in names if facts[name].get("deployed")] or names
    told = [(facts[name]["epoch"], facts[name]["primary"]) for name in there if facts[name].get("primary") in names]
    with_data = [name for name in there if facts[name].get("data")]
    first = max(told)[1] if told else next(iter(with_data or names), "")
    # The last of several that there were lets nobody in before it has had its turn, and they would choose another one meanwhile.
    alone = bool(facts.get(first, {}).get("deployed")) and not facts[first].get("first")
    planned = {name: plan[name]["redis"] for name in names if "redis" in plan.get(name, {})}
    # Whoever takes over has to hold what the primary holds.
    least = min((part["maxmemory_mb"] for part in planned.values()), default=0)
    for name, part in planned.items():
        # Where it is decided it does not count, and a run changes nothing for it.
        told_before = facts[name].get("first", "") if facts[name].get("primary") else ""
        part.update(
            first=told_before if told_before in names else first,
            turn=int((name == first) == (bool(told) and not alone)),
            maxmemory_mb=least,
        )


def _check_caches(hosts: Mapping[str, Host], tiers: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Check what several hosts with Redis need, and that one that is left alone has the newest logins."""
    names = tuple(name for name in tiers.get("cache") or [] if name in hosts)
    passwords = {str(hosts[name].variables.get(REPLICATION_PASSWORD) or "") for name in names}
    if len(names) > 1 and passwords != {""} and len(passwords) > 1:
        yield Problem(
            names, REPLICATION_PASSWORD, "different ones", "one value for all hosts of the group cache", "set it in group_vars/all"
        )
    elif len(names) > 1 and passwords == {""} and not any(REPLICATION_PASSWORD in hosts[name].unrenderable for name in names):
        yield Problem(
            names,
            REPLICATION_PASSWORD,
            f"nothing, with {len(names)} hosts in the group cache",
            "the password with which they speak to each other",
            f"add it with ansible-vault edit, beside odoo_instance_secrets: {REPLICATION_PASSWORD}: <what openssl rand -hex 24 prints>",
        )
    facts = {name: (hosts[name].facts or {}).get("redis") or {} for name in names}
    left = tuple(name for name, fact in facts.items() if fact.get("primary") and not fact.get("deployed"))
    if left and any(fact.get("deployed") for fact in facts.values()):
        yield Problem(
            left,
            "what is left of Redis",
            f"the word of a Sentinel that was removed, by which {facts[left[0]]['primary']} is the primary",
            "nothing: it may be younger than that of those who have the logins now, and would be believed",
            "on each: rm -r /var/lib/berth/redis /var/lib/berth/redis-sentinel",
        )
    primary = facts[names[0]].get("primary") if len(names) == 1 else ""
    if primary and primary != names[0]:
        yield Problem(
            names,
            "group cache",
            f"{names[0]} alone, and the primary of the several that there were is {primary}",
            f"{primary}, which has the newest logins",
            f"leave {primary} in the group cache, or make {names[0]} the primary first: with all of them in the group, on {primary}, "
            "docker restart redis-redis-1, until berth.odoo.status names it",
        )


def _certificates(host: Host) -> list[str] | None:
    """Return the names that an instance's certificate may have, nothing where that cannot be known."""
    given = host.variables.get("traefik_certificates")
    if "traefik_certificates" in host.unrenderable:
        return None
    return [*(given if isinstance(given, Mapping) else []), *([ACME] if host.variables.get("traefik_acme") else [])]


def _check_acme_settings(name: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
    given = [variables.get(variable) for variable in ("traefik_acme", "traefik_acme_secrets")]
    for variable, found, expected in acme_problems(*(value if isinstance(value, Mapping) else {} for value in given)):
        yield Problem((name,), variable, found, expected, f"correct {variable}")


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
    name: str,
    host: Host,
    known: Mapping[str, Mapping[str, Any]],
    images: Collection[str],
    rules: Rules,
    notes: list[tuple[str, str]],
    instances: Collection[str],
) -> Iterator[Problem]:
    variables = host.variables
    for variable, reason in host.unrenderable.items():
        yield Problem((name,), variable, f"no value: {reason}", "a value", f"correct {variable}")
    variants = _well_formed(variables.get("images_odoo_variants"))
    yield from _check_variants(name, _well_formed(variables.get("odoo_instances")), variants)
    yield from _validate.check_instances(
        name,
        _without_variants(variables.get("odoo_instances") or {}, variants),
        _certificates(host),
        require_digests=rules.require_image_digests,
    )
    yield from _check_classes(name, variables.get("odoo_instances"))
    yield from _check_acme_settings(name, variables)
    if not variables.get("odoo_instances") and "odoo_instances" not in host.unrenderable:
        yield Problem(
            (name,), "odoo_instances", "nothing", "at least one instance", "odoo_instances: {main: {domains: […], database: main}}"
        )
    if "odoo_instance_secrets" not in host.unrenderable:
        yield from _validate.check_instance_secrets(
            name, variables.get("odoo_instances"), variables.get("odoo_instance_secrets"), rules.minimum_secret_length, instances
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
    if not {"backup_repositories", "backup_secrets", "backup_retention"} & set(host.unrenderable):
        given = (variables.get(f"backup_{part}") for part in ("secrets", "retention"))
        for mistake in _pgbackrest.mistakes(variables.get("backup_repositories") or [], *given):
            yield Problem((name,), *mistake)
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
    published = _validate.published_ports(name, tiers, variables.get("odoo_instances"))
    ports += [(str(variables.get("host_address") or ""), port) for port in published]
    yield from _validate.check_host(
        name,
        facts,
        _validate.HostRules(
            minimum_memory_mb=rules.minimum_memory_mb,
            minimum_disk_gb=rules.minimum_disk_gb,
            minimum_free_gb=rules.minimum_free_gb,
            cpu_flags=rules.cpu_flags,
            ports=tuple(ports),
            settings=published,
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
    return _sizing.Machine(facts["cpus"], facts["memory_mb"], data.get("kind", "ssd"), data.get("size_mb", 0), not facts["container"])


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
