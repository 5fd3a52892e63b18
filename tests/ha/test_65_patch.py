# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates of a host that follows and of the one that leads, with their reboots, interrupted on the way and finished while users are at work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support import packages
from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, cluster, drill, evidence, expect_unnoticed, leader, wait_until_fit
from ansible_collections.berth.odoo.tests.support.lab import docker
from ansible_collections.berth.odoo.tests.support.packages import HELD, PLAIN, SECURITY

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

PLAYBOOK = "playbooks/patch.yml"


@pytest.fixture(scope="module")
def waiting(lab: Lab) -> Iterator[tuple[str, str]]:
    """A host that follows and the one that leads: updates wait there, one of which asks for a reboot, and a machine that stops by itself starts again."""
    wait_until_fit(lab)
    first = leader(lab)
    names = next(name for name in MEMBERS if name != first), first
    for name in names:
        docker("update", "--restart=unless-stopped", lab.hosts[name].variables["lab_container"])
        packages.prepare(lab.hosts[name])
        for package in packages.SOURCES:
            packages.offer(lab.hosts[name], package, "2.0")
    yield names
    for name in names:
        docker("update", "--restart=no", lab.hosts[name].variables["lab_container"])
        packages.restore(lab.hosts[name])


def versions(lab: Lab, name: str) -> list[str]:
    """The installed versions on a host."""
    return [packages.version(lab.hosts[name], package) for package in (SECURITY, PLAIN, HELD)]


def boot(lab: Lab, name: str) -> str:
    """When process 1 of a host began."""
    return lab.hosts[name].run("cut -d ' ' -f 22 /proc/1/stat").strip()


def test_what_waits_is_said_and_not_done(lab: Lab, waiting: tuple[str, str], play: Player) -> None:
    follows, leads = waiting
    run = play(PLAYBOOK, "--check", "--limit", "database").expect_success()
    assert run.changed == []
    for name in waiting:
        assert f"{name}: 1 package: {SECURITY} 1.0 → 2.0" in run.text
        assert f"{name}: {HELD} stays at 1.0, on hold" in run.text
        assert versions(lab, name) == ["1.0", "1.0", "1.0"]
    assert f"in this order: {follows}, {leads}" in run.text


def test_outside_of_the_window_no_host_is_begun(lab: Lab, waiting: tuple[str, str], play: Player) -> None:
    opens, closes = (datetime.now(UTC) + timedelta(hours=hours) for hours in (2, 3))
    window = f"{opens:%H:%M}-{closes:%H:%M}"
    run = play(PLAYBOOK, "--limit", waiting[0], variables={"maintenance_window": window})
    run.expect_refusal("this host was not begun", "opens at", "maintenance_now=true")
    assert versions(lab, waiting[0]) == ["1.0", "1.0", "1.0"]


def test_users_do_not_notice_the_rest_of_one_that_was_interrupted(lab: Lab, waiting: tuple[str, str], play: Player) -> None:
    follows, leads = waiting
    before = {name: boot(lab, name) for name in MEMBERS}
    # Its packages are there, and its reboot is still to come.
    play(PLAYBOOK, "--limit", "database", kill_at="patch_host | Reboot")
    assert [versions(lab, name)[0] for name in waiting] == ["2.0", "1.0"]
    run, record = drill(play, "patch", drill_warm_up_seconds=2)
    run.expect_success()
    expect_unnoticed(record)
    assert [name for name in MEMBERS if boot(lab, name) != before[name]] == sorted(waiting)
    assert [versions(lab, name) for name in waiting] == [["2.0", "1.0", "1.0"]] * 2, "no update of security, or on hold"
    assert leader(lab) != leads
    assert sorted(member["State"] for member in cluster(lab)) == ["running", "streaming", "streaming"]
    for name in MEMBERS:
        found = {file: one for file, one in evidence(lab.hosts[name]).items() if one["kind"] == "patch"}
        newest = found[max(found)]
        assert list(newest["hosts"]) == [follows, leads]
        assert (newest["stopped"], newest["not_done"], newest["left"]) == ("", [], [])
        for done in newest["hosts"].values():
            assert [(one["name"], one["before"], one["after"]) for one in done["packages"]] == [(SECURITY, "1.0", "2.0")]
            assert done["reboot_seconds"] > 0
            assert [one["name"] for one in done["held"]] == [HELD]
