# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the instances and the groups of an inventory mean to each tier. Pure functions: no Ansible import, no I/O.

A role knows nothing of instances or of other roles; the playbooks hand each one its own list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

MONITORING_ROLE = {
    "name": "berth_monitoring",
    "member_of": ["pg_monitor"],
    "connection_limit": 3,
    "settings": {"statement_timeout": "10s", "idle_in_transaction_session_timeout": "30s"},
}
"""Reads PostgreSQL's statistics and no table. It has no password and logs in with a certificate of the platform's authority."""

ANALYST_CONNECTIONS = 5
ANALYST_SETTINGS = {
    "default_transaction_read_only": True,
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "work_mem": "32MB",
}
"""Of the role with which people and report tools read an instance's database. What they may is decided by its rights; these are against mistakes."""

SECOND_LOGIN = "_login2"
ANALYST = "_analyst"


class DatabaseLogins:
    """The two roles with which Odoo may log in to a database. A rotation gives the one that is not used another password, and goes over to it.

    The first has the name of the database and owns it. The second is a member of the first and acts as it in every session, so that whatever
    either makes belongs to the first.
    """

    @staticmethod
    def names(database: str) -> tuple[str, str]:
        """Return both names."""
        return database, f"{database}{SECOND_LOGIN}"

    @classmethod
    def other(cls, database: str, user: str | None) -> str:
        """Return the one that is not ``user``; nothing is the first."""
        first, second = cls.names(database)
        return first if user == second else second

    @classmethod
    def used(cls, database: str, secrets: Mapping[str, str]) -> dict[str, str]:
        """Return C(name) and C(password) of the one that Odoo shall use."""
        user = secrets.get("db_user") or database
        if "db_password_next" in secrets:
            return {"name": cls.other(database, user), "password": secrets["db_password_next"]}
        return {"name": user, "password": secrets["db_password"]}

    @classmethod
    def roles(cls, database: str, secrets: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the roles, as C(postgresql_roles) takes them. Before the first rotation there is one."""
        first, second = cls.names(database)
        passwords: dict[str, str | None] = {first: None, second: None}
        passwords[secrets.get("db_user") or database] = secrets["db_password"]
        if "db_password_next" in secrets:
            passwords[cls.other(database, secrets.get("db_user"))] = secrets["db_password_next"]
        found: list[dict[str, Any]] = [{"name": first, "password": passwords[first]}]
        if "db_user" in secrets or passwords[second] is not None:
            found.append({"name": second, "password": passwords[second], "member_of": [first], "settings": {"role": first}})
        return found


def roles_of(database: str) -> list[str]:
    """Return every role of PostgreSQL that may be there for a database's sake."""
    return [*DatabaseLogins.names(database), f"{database}{ANALYST}"]


def network_of(name: str) -> str:
    """Return the Docker network of an instance, as the role C(odoo) calls it."""
    return f"berth-odoo-{name}"


WEB_PORT = 8069
WEBSOCKET_PORT = 8072

FIRST_PORT = 8069
"""C(odoo_instances.*.port) where it is not given."""

PORT_OFFSETS = {"web": 0, "batch": 1, "websocket": 3}
"""What a tier adds to it. With the default they are Odoo's own ports."""

PORTS = max(PORT_OFFSETS.values()) + 1
"""How many ports an instance takes."""


def first_port(instance: Mapping[str, Any]) -> int:
    """Return the first port of an instance on the application hosts."""
    return int(instance.get("port") or FIRST_PORT)


def servers(name: str, instance: Mapping[str, Any], tier: str, addresses: Iterable[str]) -> list[str]:
    """Return the URLs at which an edge reaches a tier of an instance.

    Args:
        name: of the instance.
        instance: its entry in C(odoo_instances).
        tier: C(web), C(batch) or C(websocket).
        addresses: of the application hosts; empty text for the edge's own host, where Docker knows the container by name.
    """
    inside = WEBSOCKET_PORT if tier == "websocket" else WEB_PORT
    outside = first_port(instance) + PORT_OFFSETS[tier]
    return [f"http://{address}:{outside}" if address else f"http://odoo-{name}-{tier}:{inside}" for address in addresses]


SITE_KEYS = ("certificate", "legacy_rpc", "limits", "api_paths", "portal_paths")
"""Keys of an instance that its site at the edge has, too."""


def wire(
    instances: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, Mapping[str, str]],
    plan: Mapping[str, Mapping[str, Any]] | None = None,
    apps: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the lists that the roles take, one entry an instance.

    The PostgreSQL role of an instance has the name of its database, which it owns. Where the instance has C(analyst), a second one reads it.

    Args:
        instances: C(odoo_instances), as C(preflight) has checked them.
        secrets: C(odoo_instance_secrets), likewise.
        plan: C(berth_plan) by host; it says how many workers an instance has, and which hosts were drained.
        apps: application hosts and their addresses as an edge reaches them, empty text for its own host. Without it there is that alone.

    Returns:
        C(postgresql_roles), C(postgresql_databases), C(pgbouncer_users), C(redis_users), C(traefik_sites), C(traefik_drained), C(odoo_logins), by
        instance, and C(networks), of which each instance has its own.

    Raises:
        KeyError: an instance has no secrets or no database; C(preflight) refuses such an inventory earlier.
    """
    drained = {host: part["drained"] for host, part in (plan or {}).items() if part.get("drained")}
    wiring: dict[str, Any] = {
        "postgresql_roles": [{**MONITORING_ROLE}],
        "postgresql_databases": [],
        "pgbouncer_users": [],
        "redis_users": [],
        "traefik_sites": [],
        "traefik_drained": drained,
        "odoo_logins": {},
        "networks": [network_of(name) for name in instances],
    }
    for name, instance in instances.items():
        database = instance["database"]
        logins = DatabaseLogins.roles(database, secrets[name])
        wiring["postgresql_roles"] += logins
        wiring["odoo_logins"][name] = DatabaseLogins.used(database, secrets[name])
        wiring["postgresql_databases"].append({"name": database, "owner": database})
        analyst = instance.get("analyst")
        if analyst is not None:
            wiring["postgresql_roles"].append(
                {
                    "name": f"{database}{ANALYST}",
                    "password": secrets[name]["analyst_password"],
                    "reads": [database],
                    "networks": list(analyst.get("networks") or []),
                    "connection_limit": analyst.get("connections") or ANALYST_CONNECTIONS,
                    "settings": {**ANALYST_SETTINGS, **(analyst.get("settings") or {})},
                }
            )
        wiring["pgbouncer_users"] += [
            {"name": login["name"], "password": login["password"]} for login in logins if login["password"] is not None
        ]
        wiring["redis_users"].append({"name": name, "password": secrets[name]["redis_password"], "prefix": name})
        sizes = {
            host: part["odoo"][name] for host, part in (plan or {}).items() if host not in drained and name in (part.get("odoo") or {})
        }
        addresses = [address for host, address in apps.items() if host in sizes] if apps else [""]
        site: dict[str, Any] = {
            "name": name,
            "domains": list(instance["domains"]),
            "web": servers(name, instance, "web", addresses),
            "websocket": servers(name, instance, "websocket", addresses),
        }
        site.update({key: instance[key] for key in SITE_KEYS if instance.get(key)})
        for key, workers in (("workers", "web_workers"), ("batch_workers", "batch_workers")):
            if total := sum(int(size[workers]) for size in sizes.values()):
                site[key] = total
        if site.get("batch_workers"):
            site["batch"] = servers(name, instance, "batch", addresses)
        wiring["traefik_sites"].append(site)
    return wiring


IMAGES = {
    "app": ("odoo", "pgbouncer", "haproxy"),
    "cache": ("redis",),
    "database": ("postgresql", "etcd"),
    "edge": ("traefik",),
    "witness": ("etcd",),
}
"""The images that each tier runs."""


def variants(instances: Mapping[str, Mapping[str, Any]] | None, known: Collection[str]) -> list[str]:
    """Return the images of C(images_odoo_variants) that instances use. What else an instance has as its image is a reference."""
    return list(dict.fromkeys(instance["image"] for instance in (instances or {}).values() if instance.get("image") in known))


ETCD_PORT = 2379
REDIS_PORT = 6379
SENTINEL_PORT = 26379


def voters(tiers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the hosts that run an etcd member: those of the database, and witnesses, which only vote."""
    return list(dict.fromkeys([*(tiers.get("database") or []), *(tiers.get("witness") or [])]))


def analyst_networks(instances: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """Return the networks from which people read databases directly."""
    return [network for instance in (instances or {}).values() for network in (instance.get("analyst") or {}).get("networks") or []]


def _alone(host: str, tiers: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a host does nothing but its part in a cluster of the database, so that nobody else minds when it is reset."""
    members = tiers.get("database") or []
    return len(members) > 1 and host in members and not any(host in (tiers.get(tier) or []) for tier in ("app", "cache", "edge"))


def topology(tiers: Mapping[str, Sequence[str]], addresses: Mapping[str, str], *, readers: bool = False) -> dict[str, dict[str, Any]]:
    """Return who reaches whom, and where, as the variables that the roles take.

    On one host the tiers meet on Docker's networks by name, and nothing but the edge is published. Only what another host needs is
    published on this host's address.

    Args:
        tiers: C(database), C(witness), C(app), C(cache) and C(edge) to their hosts.
        addresses: host to the address at which the others reach it.
        readers: somebody outside of the platform reads a database.

    Returns:
        By host: C(images_names), C(etcd_members), C(etcd_publish_address), C(postgresql_members), C(postgresql_publish_address),
        C(postgresql_etcd_hosts), C(postgresql_hosts), C(postgresql_client_networks), C(postgresql_watchdog), C(haproxy_members), C(redis_members),
        C(redis_publish_address), C(odoo_redis), C(odoo_redis_members), C(odoo_redis_published), C(odoo_publish_address), C(traefik_apps), C(edges) and
        C(drill_addresses).
        Each host has all of them, and uses those of its tiers.
    """
    database, app, members = (list(names) for names in (tiers.get("database") or [], tiers.get("app") or [], voters(tiers)))
    edge, cache = (list(tiers.get(tier) or []) for tier in ("edge", "cache"))
    etcd_published = len(members) > 1
    published = readers or len(database) > 1 or bool(set(app) - set(database))
    found: dict[str, dict[str, Any]] = {}
    for host in dict.fromkeys(name for tier in IMAGES for name in tiers.get(tier) or []):
        found[host] = {
            "images_names": list(
                dict.fromkeys(image for tier, images in IMAGES.items() if host in (tiers.get(tier) or []) for image in images)
            ),
            "etcd_members": {name: addresses[name] for name in members} if etcd_published else {},
            "etcd_publish_address": addresses[host] if etcd_published and host in members else "",
            "postgresql_members": {name: addresses[name] for name in database} if len(database) > 1 else {},
            "postgresql_publish_address": addresses[host] if published and host in database else "",
            "postgresql_etcd_hosts": [f"{name}-etcd:{ETCD_PORT}" for name in members] if etcd_published else [f"etcd:{ETCD_PORT}"],
            "postgresql_hosts": {
                **{name: addresses[name] for name in database if name != host},
                **{f"{name}-etcd": addresses[name] for name in members if name != host},
            },
            "postgresql_client_networks": [f"{addresses[name]}/32" for name in app] if published else [],
            "postgresql_watchdog": "automatic" if _alone(host, tiers) else "never",
            # The member on the same host is next door.
            "haproxy_members": {name: "postgresql" if name == host else addresses[name] for name in database},
            "redis_members": {name: addresses[name] for name in cache} if len(cache) > 1 else {},
            "redis_publish_address": addresses[host] if host in cache and (len(cache) > 1 or set(app) - {host}) else "",
            "odoo_redis": f"{addresses[cache[0]]}:{REDIS_PORT}" if cache and host not in cache else f"redis:{REDIS_PORT}",
            # The others' Sentinels first: one beside a Redis that is down is slow to answer.
            "odoo_redis_members": {
                f"{name}-redis": {
                    "redis": f"{'redis' if name == host else addresses[name]}:{REDIS_PORT}",
                    "sentinel": f"{'sentinel' if name == host else addresses[name]}:{SENTINEL_PORT}",
                }
                for name in sorted(cache, key=lambda name: name == host)
            }
            if len(cache) > 1
            else {},
            "odoo_redis_published": len(cache) > 1 or (bool(cache) and bool(set(app) - {cache[0]})),
            # Edges on other hosts come over the network, one on the same host over Docker's.
            "odoo_publish_address": addresses[host] if host in app and set(edge) - {host} else "",
            "traefik_apps": {name: "" if name == host else addresses[name] for name in app},
            "edges": {name: addresses[name] for name in edge},
            "drill_addresses": dict(addresses),
        }
    return found
