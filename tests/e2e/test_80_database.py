# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of the database on a member alone: what cannot work is refused before anything happens, a restart only when it was confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player


def started(host: Host) -> str:
    """When PostgreSQL started."""
    container = host.container("postgresql/postgresql").id
    return host.run(f"docker exec {container} psql -U postgres -Atc 'SELECT pg_postmaster_start_time()'").strip()


def test_there_is_nobody_to_hand_over_to_and_nothing_to_copy_from(host: Host, play: Player) -> None:
    before = started(host)
    play("playbooks/switchover.yml").expect_refusal("nothing was changed", f"{host.name} is the only member of berth")
    play("playbooks/reinit_replica.yml").expect_refusal(
        f"target is not set. Type: -e target=<member> -e confirm=<member>, one of {host.name}"
    )
    play("playbooks/reinit_replica.yml", variables={"target": host.name, "confirm": host.name}).expect_refusal(
        "nothing was changed", f"{host.name} leads berth"
    )
    assert started(host) == before


def test_a_restart_that_nothing_waits_for_does_not_happen(host: Host, play: Player) -> None:
    before = started(host)
    assert play("playbooks/restart_rolling.yml").expect_success().changed == []
    assert started(host) == before


def test_a_restart_that_users_notice_has_to_be_confirmed(host: Host, play: Player, visitor: Odoo) -> None:
    before = started(host)
    play("playbooks/restart_rolling.yml", variables={"restart_all": True}).expect_refusal(
        f"because {host.name} is the only member", "To accept that, type: -e confirm=berth"
    )
    assert started(host) == before
    container = host.container("postgresql/postgresql").identity
    play("playbooks/restart_rolling.yml", variables={"restart_all": True, "confirm": "berth"}).expect_success()
    assert started(host) > before
    assert host.container("postgresql/postgresql").identity == container, "PostgreSQL was restarted and its container was not"
    assert visitor.request("/web/login").status == 200
