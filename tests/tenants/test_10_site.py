# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a bare VM to several instances, and that a second run does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.playbook import Player
    from ansible_collections.berth.odoo.tests.support.tenants import Tenant


def test_site_converges(host: Host, play: Player) -> None:
    play("playbooks/site.yml").expect_success()
    host.wait_until_healthy(seconds=60)


def test_second_run_changes_nothing(host: Host, play: Player) -> None:
    before = host.state()
    assert play("playbooks/site.yml").expect_success().changed == []
    assert host.state() == before


def test_each_instance_has_containers_of_its_own_within_limits(host: Host, instances: dict[str, Any]) -> None:
    containers = host.containers()
    for name, instance in instances.items():
        tiers = {"web", "websocket", "cron", *(["queue"] if instance.get("queue_workers") else [])}
        assert {container.service for container in containers.values() if container.project == f"odoo-{name}"} == tiers
        for tier in tiers:
            limits = containers[f"odoo-{name}/{tier}"].facts["HostConfig"]
            assert limits["Memory"] > 0 and limits["PidsLimit"] > 0 and limits["CpuShares"] > 0


@pytest.mark.parametrize("name", ["acme", "globex"])
def test_each_domain_leads_to_its_own_database(name: str, tenant: Callable[[str], Tenant], secrets: dict[str, Any]) -> None:
    client = tenant(name)
    client.log_in("admin", secrets[name]["admin_password"])
    assert client.rpc("/web/session/get_session_info")["db"] == name
    other = tenant("globex" if name == "acme" else "acme")
    with pytest.raises(AssertionError, match="the login of admin was answered with 200"):
        other.log_in("admin", secrets[name]["admin_password"])
