# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything is lost but the repository and the inventory with its secrets. The last test: another cluster serves afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support import history as the
from ansible_collections.berth.odoo.tests.support.tenants import psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

# All that berth.odoo ever put there, but for the images, which are loaded from the same archives.
LOSE = """
set -eu
systemctl stop 'berth-*.timer' 'berth-*.service' 'berth-set@*' 'berth-postgresql-backup@*'
docker ps -aq | xargs -r docker rm -f >/dev/null
docker network prune -f >/dev/null
docker volume ls -q | xargs -r docker volume rm -f >/dev/null
rm -rf /opt/berth /var/lib/berth
find /etc/systemd/system -name 'berth-*' -delete
systemctl daemon-reload
"""


def test_everything_is_lost_and_comes_back(play: Player, host: Host, lab: Lab) -> None:
    odoo = the.admin(host, lab)
    the.transfer(odoo, "before all was lost")
    the.store_file(odoo, "before all was lost")
    psql(host, "CREATE TABLE IF NOT EXISTS berth_ledger AS SELECT id, md5(id::text) AS entry FROM generate_series(1, 5000) id", "main")
    with the.hurry(host):
        play("playbooks/backup.yml", variables={"target": "main"}).expect_success()
    rows, files = the.rows(host), the.files(odoo)
    assert "before all was lost" in files
    [cluster] = psql(host, "SELECT system_identifier FROM pg_control_system()")

    host.run(LOSE, timeout=120)
    [repository] = host.variables["backup_repositories"]
    site = {"backup_repositories": [{**repository, "path": "/site2"}]}
    play("playbooks/site.yml", variables=site).expect_success()
    assert psql(host, "SELECT system_identifier FROM pg_control_system()") != [cluster]

    restore = {**site, "target": "main", "restore_path": "/site1", "into": "place", "lose": "newer", "confirm": "main"}
    play("playbooks/restore.yml", variables=restore).expect_refusal(
        "nothing was changed", f"one of the cluster {cluster}", "-e cluster=other"
    )
    play("playbooks/restore.yml", variables={**restore, "cluster": "other"}).expect_success()
    assert the.rows(host) == rows
    assert the.files(the.admin(host, lab)) == files
