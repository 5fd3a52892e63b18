# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the instances and the groups of an inventory mean to each tier. Pure functions: no Ansible import, no I/O.

A role knows nothing of instances or of other roles; the playbooks hand each one its own list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WEB_PORT = 8069
WEBSOCKET_PORT = 8072


SITE_KEYS = ("certificate", "legacy_rpc", "limits", "api_paths", "portal_paths")
"""Keys of an instance that its site at the edge has, too."""


def wire(
    instances: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, Mapping[str, str]],
    plan: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Return the lists that the roles take, one entry an instance.

    The PostgreSQL role of an instance has the name of its database, which it owns.

    Args:
        instances: C(odoo_instances), as C(preflight) has checked them.
        secrets: C(odoo_instance_secrets), likewise.
        plan: C(berth_plan) by host; it says how many workers an instance has.

    Returns:
        C(postgresql_roles), C(postgresql_databases), C(pgbouncer_users), C(redis_users), C(traefik_sites).

    Raises:
        KeyError: an instance has no secrets or no database; C(preflight) refuses such an inventory earlier.
    """
    wiring: dict[str, list[dict[str, Any]]] = {
        "postgresql_roles": [],
        "postgresql_databases": [],
        "pgbouncer_users": [],
        "redis_users": [],
        "traefik_sites": [],
    }
    for name, instance in instances.items():
        database = instance["database"]
        login = {"name": database, "password": secrets[name]["db_password"]}
        wiring["postgresql_roles"].append(login)
        wiring["postgresql_databases"].append({"name": database, "owner": database})
        wiring["pgbouncer_users"].append(login)
        wiring["redis_users"].append({"name": name, "password": secrets[name]["redis_password"], "prefix": name})
        site: dict[str, Any] = {
            "name": name,
            "domains": list(instance["domains"]),
            "web": [f"http://odoo-{name}-web:{WEB_PORT}"],
            "websocket": [f"http://odoo-{name}-websocket:{WEBSOCKET_PORT}"],
        }
        site.update({key: instance[key] for key in SITE_KEYS if instance.get(key)})
        sizes = [host["odoo"][name] for host in (plan or {}).values() if name in (host.get("odoo") or {})]
        for key, workers in (("workers", "web_workers"), ("batch_workers", "batch_workers")):
            if total := sum(int(size[workers]) for size in sizes):
                site[key] = total
        if site.get("batch_workers"):
            site["batch"] = [f"http://odoo-{name}-batch:{WEB_PORT}"]
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

ETCD_PORT = 2379


def voters(tiers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the hosts that run an etcd member: those of the database, and witnesses, which only vote."""
    return list(dict.fromkeys([*(tiers.get("database") or []), *(tiers.get("witness") or [])]))


def topology(tiers: Mapping[str, Sequence[str]], addresses: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return who reaches whom, and where, as the variables that the roles take.

    On one host the tiers meet on Docker's networks by name, and nothing but the edge is published. Only what another host needs is
    published on this host's address.

    Args:
        tiers: C(database), C(witness), C(app), C(cache) and C(edge) to their hosts.
        addresses: host to the address at which the others reach it.

    Returns:
        By host: C(images_names), C(etcd_members), C(etcd_publish_address), C(postgresql_members), C(postgresql_publish_address),
        C(postgresql_etcd_hosts), C(postgresql_hosts), C(postgresql_client_networks), C(haproxy_members) and C(drill_addresses). Each host
        has all of them, and uses those of its tiers.
    """
    database, app, members = (list(names) for names in (tiers.get("database") or [], tiers.get("app") or [], voters(tiers)))
    etcd_published = len(members) > 1
    published = len(database) > 1 or bool(set(app) - set(database))
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
            # The member on the same host is next door.
            "haproxy_members": {name: "postgresql" if name == host else addresses[name] for name in database},
            "drill_addresses": dict(addresses),
        }
    return found
