# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of one setting of Odoo touches the one container that has it, and no other. tests/bench measures how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player


def test_one_setting_touches_one_container(host: Host, play: Player, visitor: Odoo) -> None:
    before = host.containers()
    play("playbooks/site.yml", "--diff", variables={"odoo_limit_time_real_cron": 601}).expect_success()
    after = host.containers()
    assert [name for name in after if after[name].identity != before[name].identity] == ["odoo-main/cron"]
    assert "limit_time_real_cron = 601" in host.run(f"docker exec {after['odoo-main/cron'].id} cat /etc/odoo/odoo.conf")
    assert visitor.request("/web/login").status == 200
    play("playbooks/site.yml").expect_success()
    assert "limit_time_real_cron = 600" in host.run(f"docker exec {host.container('odoo-main/cron').id} cat /etc/odoo/odoo.conf")
