# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site with backups converges, and a second run changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.playbook import Player
    from ansible_collections.berth.odoo.tests.support.s3 import Store


def test_it_converges(play: Player, store: Store) -> None:
    store.create(play)
    play("playbooks/site.yml").expect_success()


def test_the_second_run_changes_nothing(play: Player) -> None:
    assert play("playbooks/site.yml").expect_success().changed == []
