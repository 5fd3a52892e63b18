# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site with backups converges, and a second run changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.ports import from_here

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.playbook import Player
    from ansible_collections.berth.odoo.tests.support.s3 import Store


def test_the_store_is_reached_with_keys_alone(play: Player, store: Store) -> None:
    """SeaweedFS has other ports that ask for none, one of them at every address."""
    play("docs/examples/s3_store.yml", variables={"store": store.host.name}).expect_refusal(
        "store_owner and backup_secrets.offsite must each have"
    )
    store.create(play)
    lines = store.host.run("ss -Hltnp | grep weed").splitlines()
    ports = {int(line.split()[3].rpartition(":")[2]) for line in lines}
    assert len(ports) > 5
    answers = from_here((store.host.address, port) for port in sorted(ports))
    assert [port for (_address, port), answer in answers.items() if answer == "open"] == [8333]


def test_it_converges(play: Player) -> None:
    play("playbooks/site.yml").expect_success()


def test_the_second_run_changes_nothing(play: Player) -> None:
    assert play("playbooks/site.yml").expect_success().changed == []
