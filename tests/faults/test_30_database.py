# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL dies under Odoo: the web tier stays up, and everything that needs the database comes back by itself."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.odoo import HEALTH, STATIC_FILE, Odoo, Watch

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

DOWN_SECONDS = 15  # long enough that Odoo's cron worker notices; it asks the database at least that often after an error


def test_postgresql_killed_while_odoo_runs(lab: Lab, host: Host, play: Player, admin: Odoo, url: str, admin_password: str) -> None:
    [written] = admin.call("res.partner", "create", [{"name": "acknowledged before the kill"}])
    server = host.container("postgresql/postgresql")
    web = host.container("odoo-main/web")
    pages, questions = Watch(Odoo(url, lab.ca), STATIC_FILE), Watch(Odoo(url, lab.ca), HEALTH)
    with pages.watching(), questions.watching():
        # The process and not `docker kill`, which Docker takes for a wish to stop it.
        host.run(f"kill -KILL {server.facts['State']['Pid']}")
        wait_for("restart of PostgreSQL", lambda: host.container("postgresql/postgresql").facts["RestartCount"] > 0, seconds=30)
        host.wait_until_healthy(seconds=120)
        client = Odoo(url, lab.ca)

        def logged_in() -> bool:
            client.log_in("admin", admin_password)
            return True

        wait_for("login after the outage", logged_in, seconds=60, interval=2)
    assert pages.failures == [], f"{len(pages.failures)} of {len(pages.answers)} requests failed that need no database"
    # They wait for the database; the one whose statement ran when the server died is served again.
    assert questions.failures == [], f"{len(questions.failures)} of {len(questions.answers)} requests failed that ask the database"
    assert host.container("odoo-main/web").identity == web.identity, "the web container was restarted"
    assert client.call("res.partner", "search_count", [["id", "=", written]]) == 1


def test_scheduled_jobs_run_again(host: Host, admin: Odoo) -> None:
    """After the kill above: a job that is made due runs in the cron tier."""
    assert host.container("postgresql/postgresql").facts["RestartCount"] > 0, "PostgreSQL was not killed before this test"
    [job] = admin.call("ir.cron", "search_read", [["cron_name", "=", "Base: Auto-vacuum internal data"]], fields=["lastcall"], limit=1)
    due = datetime.datetime.now(datetime.UTC).replace(microsecond=0, tzinfo=None)
    admin.call("ir.cron", "write", [job["id"]], {"nextcall": str(due)})

    def ran() -> bool:
        [now] = admin.call("ir.cron", "read", [job["id"]], ["lastcall"])
        return bool(now["lastcall"]) and datetime.datetime.fromisoformat(now["lastcall"]) >= due

    wait_for("run of the scheduled job", ran, seconds=150, interval=2)
