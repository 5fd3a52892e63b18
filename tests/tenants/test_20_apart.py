# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance sees of another one when whoever controls its containers tries: nothing.

Each refusal stands beside the same thing that works with what is its own, or it would prove nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.tenants import inside, psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host

LOG_IN = """
import json, sys, urllib.request
def session(db, password):
    body = json.dumps({"jsonrpc": "2.0", "method": "call", "params": {"db": db, "login": "admin", "password": password}}).encode()
    request = urllib.request.Request("http://localhost:8069/web/session/authenticate", body, {"Content-Type": "application/json", "X-Odoo-Database": db})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return (json.load(answer).get("result") or {}).get("uid")
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
"""

CONNECT = """
import json, psycopg2
def connect(host, port, db):
    try:
        psycopg2.connect(host=host, port=port, dbname=db, connect_timeout=5).close()
    except psycopg2.Error as error:
        return str(error)
    return ""
print(json.dumps({f"{host} {db}": connect(host, port, db) for host, port in %r for db in ("acme", "globex", "template_odoo")}))
"""

REACH = """
import json, socket
from concurrent.futures import ThreadPoolExecutor
def reach(place):
    try:
        socket.create_connection(tuple(place), timeout=2).close()
    except OSError as error:
        return type(error).__name__
    return ""
print(json.dumps(list(ThreadPoolExecutor(16).map(reach, %r))))
"""


def test_the_other_s_administrator_is_nobody_here(host: Host, secrets: dict[str, Any]) -> None:
    """With the right password of the other's administrator, past the edge, and with the header that chooses a database."""
    passwords = {name: secrets[name]["admin_password"] for name in ("acme", "globex")}
    found = inside(
        host, "odoo-acme-web-1", f"{LOG_IN}\nprint(json.dumps({{db: session(db, password) for db, password in {passwords!r}.items()}}))"
    )
    assert isinstance(found["acme"], int), f"the own administrator was answered {found['acme']}"
    assert not isinstance(found["globex"], int), "an instance serves the database of another"


@pytest.mark.parametrize("tier", ["web", "cron"])
def test_the_other_s_database_refuses_the_connection(host: Host, tier: str) -> None:
    poolers = [("pgbouncer", 6432), ("pgbouncer-session", 6433)]
    found = inside(host, f"odoo-acme-{tier}-1", CONNECT % poolers)
    for pooler, _port in poolers:
        assert found[f"{pooler} acme"] == "", found
        for database in ("globex", "template_odoo"):
            assert "no pg_hba.conf entry" in found[f"{pooler} {database}"], found


def test_no_role_has_the_right_to_connect_to_the_other_s_database(host: Host) -> None:
    """The second lock behind the rules above."""
    question = (
        "SELECT d, has_database_privilege(r, d, 'CONNECT') FROM unnest(ARRAY['acme', 'globex', 'template_odoo']) d, unnest(ARRAY['acme']) r"
    )
    assert psql(host, question) == ["acme|t", "globex|f", "template_odoo|f"]


def test_the_other_s_keys_are_closed(host: Host, secrets: dict[str, Any]) -> None:
    def redis(command: str) -> str:
        inner = f"IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --no-auth-warning --user acme {command}"
        return host.run(f"docker exec -i redis-redis-1 sh -c '{inner} 2>&1'", stdin=secrets["acme"]["redis_password"] + "\n").strip()

    assert redis("set acme:test value ex 60") == "OK"
    for command in (
        "get globex:test",
        "set globex:test value",
        "del globex:test",
        "publish globex:test x",
        "scan 0",
        "keys acme:*",
        "flushall",
    ):
        assert "NOPERM" in redis(command), command


@pytest.mark.parametrize("tier", ["web", "websocket", "cron"])
def test_no_way_leads_to_the_other_s_containers(host: Host, tier: str) -> None:
    """By name and by every address, to whatever listens. The way to its own, to the pools and to Redis is open."""
    containers = host.containers()

    def addresses(name: str) -> list[str]:
        return [net["IPAddress"] for net in containers[name].facts["NetworkSettings"]["Networks"].values()]

    own = [("odoo-acme-web", 8069), ("pgbouncer", 6432), ("pgbouncer-session", 6433), ("redis", 6379)]
    closed = [("odoo-globex-web", 8069), ("odoo-globex-websocket", 8072), ("postgresql-primary", 5432), ("etcd", 2379)]
    for name, port in {
        "odoo-globex/web": 8069,
        "odoo-globex/websocket": 8072,
        "postgresql/postgresql": 5432,
        "haproxy/haproxy": 5432,
        "etcd/etcd": 2379,
    }.items():
        closed += [(address, port) for address in addresses(name)]
    found = inside(host, f"odoo-acme-{tier}-1", REACH % [*own, *closed])
    assert dict(zip(own, found, strict=False)) == dict.fromkeys(own, "")
    answers = dict(zip(closed, found[len(own) :], strict=True))
    assert [place for place, failure in answers.items() if not failure] == []


def test_no_file_of_the_other_is_mounted(host: Host) -> None:
    for container in host.containers().values():
        if container.project == "odoo-acme":
            mounts = json.dumps(container.facts["Mounts"])
            assert "odoo/acme" in mounts and "globex" not in mounts
