# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application host gets an update that asks for a reboot while people are at work at both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support import packages
from ansible_collections.berth.odoo.tests.support.lab import docker, wait_for
from ansible_collections.berth.odoo.tests.support.load import Clerks
from ansible_collections.berth.odoo.tests.support.packages import SECURITY

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

CLERKS = 4


@pytest.fixture
def victim(lab: Lab) -> Iterator[Host]:
    """The second application host: an update waits there, and a machine that stops by itself starts again."""
    host = lab.hosts["app2"]
    docker("update", "--restart=unless-stopped", host.variables["lab_container"])
    packages.prepare(host)
    packages.offer(host, SECURITY, "2.0")
    yield host
    docker("update", "--restart=no", host.variables["lab_container"])
    packages.restore(host)


def test_it_is_drained_rebooted_and_given_back(victim: Host, admin: Odoo, play: Player, say: Callable[[str], None]) -> None:
    clerks = Clerks(admin, CLERKS)
    before = victim.run("cut -d ' ' -f 22 /proc/1/stat")
    with clerks.working():
        play("playbooks/patch.yml", variables={"target": "app2"}).expect_success()
        since = round(time.monotonic())
        count = "docker logs --since {}s odoo-main-web-1 2>&1 | grep -c -e 'POST /web/' -e 'GET /odoo' || true"
        wait_for(
            "requests at the host that was away",
            lambda: int(victim.run(count.format(max(1, round(time.monotonic()) - since)))) > 2,
            seconds=60,
        )
    say(f"patch: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}")
    assert len(clerks.requests) > 50
    assert [request.problem for request in clerks.failed] == []
    assert victim.run("cut -d ' ' -f 22 /proc/1/stat") != before
    assert packages.version(victim, SECURITY) == "2.0"
