# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of one setting of Odoo touches what has it, and nothing else, and people do not notice. tests/bench measures how long it takes."""

from __future__ import annotations

import copy
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.lab import wait_for
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


def workers(host: Host, container: str) -> int:
    """Processes that answer requests, old ones included that have not ended."""
    program = "import pathlib, sys; print(len([p for p in pathlib.Path('/proc/1/task/1/children').read_text().split()"
    program += " if b'gevent' not in pathlib.Path(f'/proc/{p}/cmdline').read_bytes()]))"
    return int(host.run(f"docker exec {container} python3 -c {shlex.quote(program)}"))


def converge_workers(host: Host, play: Player, visitor: Odoo, wanted: int) -> None:
    """Change the number alone: with more memory the container would be another one. Nobody who asks meanwhile notices."""
    before = host.container("odoo-main/web")
    instances = copy.deepcopy(host.variables["odoo_instances"])
    instances["main"].update(web_workers=wanted, web_memory_mb=before.facts["HostConfig"]["Memory"] >> 20)
    watch = Watch(visitor, "/web/login")
    with watch.watching():
        play("playbooks/site.yml", "--tags", "app", variables={"odoo_instances": instances}).expect_success()
    assert len(watch.answers) > 10
    assert watch.failures == []
    assert host.container("odoo-main/web").identity == before.identity
    wait_for(f"{wanted} workers", lambda: workers(host, before.id) == wanted, seconds=30)


@pytest.mark.nightly
def test_another_number_of_workers_loses_no_request_and_outlives_a_restart(host: Host, play: Player, visitor: Odoo) -> None:
    converge_workers(host, play, visitor, 3)
    web = host.container("odoo-main/web").id
    host.run(f"docker restart {web}")
    host.wait_until_healthy(names=["odoo-main/web"])
    assert workers(host, web) == 3
    converge_workers(host, play, visitor, 2)


def test_a_setting_that_stops_odoo_is_told_before_it_serves(host: Host, play: Player, visitor: Odoo) -> None:
    before = host.containers()
    play("playbooks/site.yml", variables=with_setting(host, limit_request="many")).expect_refusal("limit_request")
    assert visitor.request("/web/login").status == 200
    assert {name: one.identity for name, one in host.containers().items()} == {name: one.identity for name, one in before.items()}
    play("playbooks/site.yml").expect_success()
    assert "limit_time_real_cron = 600" in host.run(f"docker exec {host.container('odoo-main/cron').id} cat /etc/odoo/odoo.conf")
    assert "limit_request" not in host.run(f"docker exec {host.container('odoo-main/web').id} cat /etc/odoo/odoo.conf")
