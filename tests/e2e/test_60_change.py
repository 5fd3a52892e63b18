# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of one setting of Odoo touches what has it, and nothing else, and people do not notice. tests/bench measures how long it takes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ansible_collections.berth.odoo.tests.support.odoo import Watch

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


def with_setting(host: Host, **settings: Any) -> dict[str, Any]:
    """The inventory's instances with other settings of Odoo."""
    instances = copy.deepcopy(host.variables["odoo_instances"])
    instances["main"].setdefault("extra_settings", {}).update(settings)
    return {"odoo_instances": instances}


def test_a_setting_of_the_web_tier_loses_no_request(host: Host, play: Player, visitor: Odoo) -> None:
    before = host.container("odoo-main/web")
    watch = Watch(visitor, "/web/login")
    with watch.watching():
        play("playbooks/site.yml", variables=with_setting(host, limit_request=4321)).expect_success()
    assert len(watch.answers) > 20
    assert watch.failures == []
    after = host.container("odoo-main/web")
    assert after.identity == before.identity
    assert "ODOO_READY_SIGHUP_PID" in host.run(f"docker exec {after.id} cat /proc/1/environ"), "it has read its configuration anew"


def test_a_setting_that_stops_odoo_is_told_before_it_serves(host: Host, play: Player, visitor: Odoo) -> None:
    before = host.containers()
    play("playbooks/site.yml", variables=with_setting(host, limit_request="many")).expect_refusal("limit_request")
    assert visitor.request("/web/login").status == 200
    assert {name: one.identity for name, one in host.containers().items()} == {name: one.identity for name, one in before.items()}
    play("playbooks/site.yml").expect_success()
    assert "limit_time_real_cron = 600" in host.run(f"docker exec {host.container('odoo-main/cron').id} cat /etc/odoo/odoo.conf")
    assert "limit_request" not in host.run(f"docker exec {host.container('odoo-main/web').id} cat /etc/odoo/odoo.conf")
