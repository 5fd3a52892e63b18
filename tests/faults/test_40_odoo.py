# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Odoo itself returns 0 for a module that does not exist; we do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player


def test_unknown_module_is_refused_and_the_site_stays_up(host: Host, play: Player, admin: Odoo) -> None:
    before = {name: container.identity for name, container in host.containers().items()}
    instances = host.variables["odoo_instances"]
    instances = {"main": instances["main"] | {"modules": ["stock", "sale_management", "no_such_module"], "domains": [host.address]}}
    play("playbooks/site.yml", variables={"odoo_instances": instances}).expect_refusal("no_such_module", host.name)
    assert {name: container.identity for name, container in host.containers().items()} == before
    assert admin.request("/web/login").status in (200, 303)
    assert admin.call("ir.module.module", "search_count", [["state", "like", "to %"]]) == 0
