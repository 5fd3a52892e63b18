# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller loses its power in the middle of a first deployment, three times at fixed tasks and once in the middle of a task.

Last of all tests: it removes everything that was deployed, data included, and keeps only the images.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

KILLED_AT = ["Converge PostgreSQL", "Start the instance", "Converge Traefik"]
# A transaction of the maintenance container that takes long: its questions are answered at once.
INITIALISING = (
    'docker exec postgresql-postgresql-1 psql -h /run/postgresql -U postgres -tAc "SELECT 1 FROM pg_stat_activity'
    " WHERE application_name LIKE 'odoo-maintenance-%' AND now() - xact_start > interval '1 s'\" 2>/dev/null | grep -q 1"
)


def test_killed_deployments_are_completed_by_the_next_run(host: Host, play: Player, visitor: Odoo) -> None:
    host.run("docker ps -aq | xargs -r docker rm -f; docker network prune -f; rm -rf /opt/berth /var/lib/berth", timeout=120)
    assert host.containers() == {}
    killed = play("playbooks/site.yml", kill_at=KILLED_AT[0])
    assert killed.code == -signal.SIGKILL, f"the run was not killed at {KILLED_AT[0]!r}:\n{killed.tail}"
    # What runs on the host goes on without its controller: the next run meets it.
    killed = play("playbooks/site.yml", kill_when=lambda: host.succeeds(INITIALISING))
    assert killed.code == -signal.SIGKILL, f"the run was not killed while Odoo initialised its database:\n{killed.tail}"
    assert host.succeeds(INITIALISING), "the initialisation ended with its controller"
    for name in KILLED_AT[1:]:
        killed = play("playbooks/site.yml", kill_at=name)
        assert killed.code == -signal.SIGKILL, f"the run was not killed at {name!r}:\n{killed.tail}"
    play("playbooks/site.yml").expect_success()
    host.wait_until_healthy(seconds=60)
    assert visitor.request("/web/login").status == 200
    assert play("playbooks/site.yml").expect_success().changed == []
