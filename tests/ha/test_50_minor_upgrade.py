# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another image of the same PostgreSQL and etcd on three members, interrupted on its way and finished while users are at work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.drill import (
    MEMBERS,
    cluster,
    drill,
    expect_unnoticed,
    leader,
    wait_until_fit,
    with_other_images,
)

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

PLAYBOOK = "playbooks/minor_upgrade.yml"


def images(lab: Lab, project: str) -> dict[str, str]:
    """The image of each member's container."""
    return {name: lab.hosts[name].run(f"docker inspect --format '{{{{.Image}}}}' {project}-{project}-1").strip() for name in MEMBERS}


@pytest.fixture(scope="module")
def upgrade(play: Player) -> Player:
    """Runs playbooks for which another image of both is ready: another one than an earlier run of the tests left on a lab that stays."""
    return with_other_images(play, f"test-{time.time():.0f}")


def test_it_is_refused_while_nobody_could_take_over(lab: Lab, upgrade: Player) -> None:
    wait_until_fit(lab)
    before = images(lab, "postgresql"), images(lab, "etcd")
    lab.hosts["db1"].run("docker exec postgresql-postgresql-1 patronictl pause --wait")
    try:
        run = upgrade(PLAYBOOK)
    finally:
        lab.hosts["db1"].run("docker exec postgresql-postgresql-1 patronictl resume --wait")
    run.expect_refusal("nothing was changed: berth is paused", "patronictl resume --wait berth")
    assert (images(lab, "postgresql"), images(lab, "etcd")) == before


def test_users_do_not_notice_the_rest_of_one_that_was_interrupted(lab: Lab, upgrade: Player) -> None:
    before, first = {project: images(lab, project) for project in ("postgresql", "etcd")}, leader(lab)
    [timeline] = {member["TL"] for member in cluster(lab)}
    upgrade(PLAYBOOK, kill_at="Wait until the member follows and confirms commits again")
    half = images(lab, "postgresql")
    assert len([name for name in MEMBERS if half[name] != before["postgresql"][name]]) == 1
    assert half[first] == before["postgresql"][first], "who leads is the last"
    wait_until_fit(lab)
    run, record = drill(upgrade, "minor_upgrade", drill_warm_up_seconds=2)
    run.expect_success()
    expect_unnoticed(record)
    for project, images_before in before.items():
        now = images(lab, project)
        assert len(set(now.values())) == 1
        assert all(now[name] != images_before[name] for name in MEMBERS)
    assert leader(lab) != first
    assert {member["TL"] for member in cluster(lab)} == {timeline + 1}, "one switchover"


def test_again_it_changes_nothing(upgrade: Player) -> None:
    assert upgrade(PLAYBOOK).expect_success().changed == []
