# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Odoo behind the edge: pages, JSON calls, the bus, scheduled jobs, and that all of its tiers log in with awkward passwords."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo


def test_wrong_password_is_refused(visitor: Odoo) -> None:
    with pytest.raises(AssertionError, match="the login of admin was answered with 200"):
        visitor.log_in("admin", "certainly not the password")


def test_nobody_makes_an_account_without_an_invitation(visitor: Odoo) -> None:
    login = visitor.request("/web/login")
    assert login.status == 200
    assert "/web/reset_password" in login.body
    assert "/web/signup" not in login.body
    assert visitor.request("/web/signup").status == 404


def test_nobody_tries_passwords_past_the_login_page(admin: Odoo, admin_password: str) -> None:
    credential = {"type": "password", "login": "admin", "password": admin_password}
    with pytest.raises(AssertionError, match=r"Private methods \(such as 'res\.users\.authenticate'\)"):
        admin.call("res.users", "authenticate", [], credential, {"interactive": False})


def test_modules_of_the_inventory_are_installed_without_demo_data(admin: Odoo) -> None:
    names = ["stock", "sale_management"]
    modules = admin.call("ir.module.module", "search_read", [["name", "in", names]], fields=["name", "state", "demo"])
    assert {module["name"]: (module["state"], module["demo"]) for module in modules} == dict.fromkeys(names, ("installed", False))
    assert admin.call("ir.module.module", "search_count", [["state", "like", "to %"]]) == 0


def test_json_call_writes_and_reads(admin: Odoo) -> None:
    name = "Straße 'quoted' \"twice\" <b>&amp;</b> 日本語"
    partner = admin.call("res.partner", "create", {"name": name})
    assert admin.call("res.partner", "read", partner if isinstance(partner, list) else [partner], ["name"])[0]["name"] == name


def test_assets_of_the_web_client_are_served(admin: Odoo) -> None:
    page = admin.request("/odoo")
    assert page.status == 200
    bundles = {part.split('"')[0] for part in page.body.split('src="') if part.startswith("/web/assets/")}
    assert bundles, "the page names no script of /web/assets"
    for bundle in bundles:
        answer = admin.request(bundle)
        assert answer.status == 200
        assert len(answer.body) > 10_000


def test_websocket_delivers_a_notification(admin: Odoo) -> None:
    """A real handshake with the session's cookie, and a message that went web worker → PostgreSQL → gevent process → client."""
    connection = admin.websocket()
    try:
        assert connection.getstatus() == 101
        connection.send(json.dumps({"event_name": "subscribe", "data": {"channels": [], "last": 0}}))
        field = "is_discuss_sidebar_category_chat_open"
        [settings] = admin.call(
            "res.users.settings", "search_read", [["user_id.login", "=", "admin"]], fields=[field]
        )  # made when the web client was loaded
        admin.call("res.users.settings", "set_res_users_settings", [settings["id"]], {field: not settings[field]})
        deadline = time.monotonic() + 90
        kinds: list[str] = []
        while "res.users.settings" not in kinds:
            assert time.monotonic() < deadline, f"only these notifications came: {kinds}"
            kinds += [item["message"]["type"] for item in json.loads(connection.recv())]
    finally:
        connection.close()


@pytest.mark.parametrize(("server", "port"), [("pgbouncer", 6432), ("pgbouncer-session", 6433), ("postgresql-primary", 5432)])
def test_awkward_database_password(host: Host, server: str, port: int) -> None:
    """From another container, because a server may trust its own; and only the instance's own role, on its own database."""
    image = host.container("postgresql/postgresql").facts["Image"]

    def logs_in(password: str, role: str = "main", database: str = "main") -> bool:
        command = (
            f"docker run --rm -i --network {'berth-data' if server == 'postgresql-primary' else 'berth-app'} --entrypoint sh {image} -c "
            f"'IFS= read -r PGPASSWORD; export PGPASSWORD; psql -h {server} -p {port} -d {database} -U {role} -tAc \"select 1\"' 2>&1"
        )
        return host.succeeds(command, stdin=password + "\n")

    password = host.variables["odoo_instance_secrets"]["main"]["db_password"]
    assert logs_in(password)
    assert not logs_in("wrong")
    assert not logs_in(password, role="postgres"), "the superuser gets in over the network"
    assert not logs_in(password, database="template1"), "the instance's role gets into a database that is not its own"


def test_awkward_redis_password(host: Host) -> None:
    command = (
        f"docker exec -i {host.container('redis/redis').id} sh -c "
        "'IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --no-auth-warning --user main {}' 2>&1"
    )
    password = host.variables["odoo_instance_secrets"]["main"]["redis_password"] + "\n"
    assert host.run(command.format("set main:test value ex 60"), stdin=password).strip() == "OK"
    assert "WRONGPASS" in host.run(command.format("ping"), stdin="wrong\n")
    assert "NOPERM" in host.run(command.format("set other:test value"), stdin=password), "the instance's user may write another's keys"
