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
        [settings] = admin.call("res.users.settings", "search_read", [], fields=[field])  # made when the web client was loaded
        admin.call("res.users.settings", "set_res_users_settings", [settings["id"]], {field: not settings[field]})
        deadline = time.monotonic() + 20
        kinds: list[str] = []
        while "res.users.settings" not in kinds:
            assert time.monotonic() < deadline, f"only these notifications came: {kinds}"
            kinds += [item["message"]["type"] for item in json.loads(connection.recv())]
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("role", "secret"),
    [("postgres", "postgresql_superuser_password"), ("replicator", "postgresql_replication_password")],
)
def test_awkward_passwords_of_postgresql(host: Host, role: str, secret: str) -> None:
    """From another container, because the server may trust its own."""
    image = host.container("postgresql/postgresql").facts["Image"]
    command = (
        f"docker run --rm -i --network berth-data --entrypoint sh {image} -c "
        f"'IFS= read -r PGPASSWORD; export PGPASSWORD; psql -h postgresql -d postgres -U {role} -tAc \"select 1\"'"
    )
    assert not host.succeeds(command, stdin="wrong\n"), f"{role} gets in with a wrong password"
    assert host.succeeds(command, stdin=host.variables[secret] + "\n")
