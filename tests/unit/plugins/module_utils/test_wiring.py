# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance means to each tier."""

from __future__ import annotations

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._wiring import wire

INSTANCES = {
    "main": {"database": "main", "domains": ["odoo.example.com"], "certificate": "main"},
    "test": {"database": "trial", "domains": ["a.example", "b.example"]},
}
SECRETS = {
    "main": {"db_password": "p 1", "redis_password": "r1", "admin_password": "a1"},
    "test": {"db_password": "p$2", "redis_password": "r2", "admin_password": "a2"},
}


def test_each_tier_gets_its_own_list() -> None:
    wiring = wire(INSTANCES, SECRETS)
    assert wiring["postgresql_roles"] == [{"name": "main", "password": "p 1"}, {"name": "trial", "password": "p$2"}]
    assert wiring["postgresql_databases"] == [{"name": "main", "owner": "main"}, {"name": "trial", "owner": "trial"}]
    assert wiring["pgbouncer_users"] == wiring["postgresql_roles"]
    assert wiring["redis_users"][1] == {"name": "test", "password": "r2", "prefix": "test"}
    assert wiring["traefik_sites"][0] == {
        "name": "main",
        "domains": ["odoo.example.com"],
        "web": ["http://odoo-main-web:8069"],
        "websocket": ["http://odoo-main-websocket:8072"],
        "certificate": "main",
    }
    assert "certificate" not in wiring["traefik_sites"][1]


def test_an_instance_without_secrets_is_an_error() -> None:
    with pytest.raises(KeyError):
        wire(INSTANCES, {"main": SECRETS["main"]})
