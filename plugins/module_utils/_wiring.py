# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the instances of an inventory mean to each tier. Pure function: no Ansible import, no I/O.

A role knows nothing of instances or of other roles; the playbooks hand each one its own list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WEB_PORT = 8069
WEBSOCKET_PORT = 8072


def wire(instances: Mapping[str, Mapping[str, Any]], secrets: Mapping[str, Mapping[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """Return the lists that the roles take, one entry an instance.

    The PostgreSQL role of an instance has the name of its database, which it owns.

    Args:
        instances: C(odoo_instances), as C(preflight) has checked them.
        secrets: C(odoo_instance_secrets), likewise.

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
        site = {
            "name": name,
            "domains": list(instance["domains"]),
            "web": [f"http://odoo-{name}-web:{WEB_PORT}"],
            "websocket": [f"http://odoo-{name}-websocket:{WEBSOCKET_PORT}"],
        }
        if instance.get("certificate"):
            site["certificate"] = instance["certificate"]
        wiring["traefik_sites"].append(site)
    return wiring
