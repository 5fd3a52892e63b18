# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people did in an instance, and how to tell whether it is there again: rows and files by hash, and a clock that writes."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
from ansible_collections.berth.odoo.tests.support.odoo import Odoo
from ansible_collections.berth.odoo.tests.support.tenants import Tenant, psql

HEARTBEAT = "berth-test-heartbeat"
# Nothing of them is written by Odoo by itself.
TABLES = {
    "berth_ledger": "true",
    "stock_picking": "true",
    "product_template": "true",
    "res_partner": "name LIKE 'proof %'",
    "ir_attachment": "name LIKE 'proof %'",
}


def store_file(odoo: Odoo, name: str, size: int = 200_000) -> str:
    """Attach a file of random bytes, and return its SHA-256."""
    content = os.urandom(size)
    odoo.call("ir.attachment", "create", [{"name": f"proof {name}", "datas": base64.b64encode(content).decode()}])
    return hashlib.sha256(content).hexdigest()


def files(odoo: Odoo) -> dict[str, str]:
    """The attached files as Odoo hands them out: name → SHA-256."""
    found = odoo.call("ir.attachment", "search_read", [["name", "=like", "proof %"]], fields=["name", "datas"])
    return {one["name"].removeprefix("proof "): hashlib.sha256(base64.b64decode(one["datas"] or "")).hexdigest() for one in found}


def transfer(odoo: Odoo, origin: str) -> None:
    """Write a transfer."""
    sides = ["default_location_src_id", "default_location_dest_id"]
    [kind] = odoo.call("stock.picking.type", "search_read", [[side, "!=", False] for side in sides], fields=sides, limit=1)
    places = {"location_id": kind["default_location_src_id"][0], "location_dest_id": kind["default_location_dest_id"][0]}
    odoo.call("stock.picking", "create", [{"picking_type_id": kind["id"], **places, "origin": origin}])


def rows(host: Host, database: str = "main", server: str = "") -> dict[str, str]:
    """Of each table the number of rows and a hash of all of them.

    Args:
        host: the machine.
        database: to ask.
        server: container of a copy; empty: the cluster.
    """
    found = {}
    for table, where in TABLES.items():
        query = f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY id)) FROM {table} t WHERE {where}"  # noqa: S608 - ours
        [found[table]] = (
            host.run(f'docker exec {server} psql -h /run/postgresql -U postgres -d {database} -XtAc "{query}"').splitlines()
            if server
            else psql(host, query, database)
        )
    return found


@contextmanager
def heartbeat(host: Host, database: str = "main") -> Iterator[None]:
    """Write the time into the table ``berth_heartbeat`` twenty times a second meanwhile."""
    psql(host, "CREATE TABLE IF NOT EXISTS berth_heartbeat (at timestamptz DEFAULT clock_timestamp())", database)
    host.run(f"cat > /run/{HEARTBEAT}.sql", stdin="INSERT INTO berth_heartbeat DEFAULT VALUES \\watch i=0.05\n")
    host.run(
        f"systemd-run --quiet --unit={HEARTBEAT} bash -c 'docker exec -i postgresql-postgresql-1 psql -XAtq -d {database} < /run/{HEARTBEAT}.sql'"
    )
    try:
        yield
    finally:
        host.run(f"systemctl stop {HEARTBEAT}; systemctl reset-failed {HEARTBEAT} 2>/dev/null; true")
        # Whoever writes in the container does not end with who asked for it.
        psql(host, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO berth_heartbeat%'")


def now(host: Host) -> str:
    """The time of the database, UTC."""
    [found] = psql(host, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")
    return found


def state(host: Host) -> list[str]:
    """What a refused run must not move, without the sets and backups that a timer makes meanwhile, some of whose containers Docker names, and without
    what reading a repository leaves in the cache."""
    moves = re.compile(r"/berth-set-|^/[a-z]+_[a-z]+\d? [0-9a-f]{64} |/var/lib/berth/backup|/var/lib/berth/restore/cache ")
    return [line for line in host.state() if not moves.search(line)]


@contextmanager
def hurry(host: Host) -> Iterator[None]:
    """Hand the WAL on at once meanwhile, so that a set need not wait for archive_timeout."""
    loop = 'while sleep 1; do docker exec postgresql-postgresql-1 psql -XAtqc "SELECT pg_switch_wal()"; done'
    host.run("cat > /run/berth-test-hurry.sh", stdin=loop)
    host.run("systemd-run --quiet --unit=berth-test-hurry bash /run/berth-test-hurry.sh")
    try:
        yield
    finally:
        host.run("systemctl stop berth-test-hurry; systemctl reset-failed berth-test-hurry 2>/dev/null; true")


def admin(host: Host, lab: Lab, instance: str = "main") -> Odoo:
    """A client that has logged in as the administrator."""
    client = Odoo(f"https://{host.address}", lab.ca) if instance == "main" else Tenant(host.address, lab.ca, instance)
    client.wait_until_up()
    client.log_in("admin", host.variables["odoo_instance_secrets"][instance]["admin_password"])
    return client
