# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the poolers owe: listeners hear at once, posting opens no connection to PostgreSQL, and no storm opens more of them than were planned."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support import contract
from ansible_collections.berth.odoo.tests.support.drill import POSTGRESQL, leader, wait_until_fit
from ansible_collections.berth.odoo.tests.support.lab import wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

POSTS = 5
QUIET_ROUNDS = 4


def ask(host: Host, question: str) -> str:
    """What a host's PostgreSQL answers to its superuser."""
    return host.run(f"docker exec -i $({POSTGRESQL}) psql -h /run/postgresql -U postgres -XAtq", stdin=question).strip()


def sessions(host: Host) -> int:
    """How many sessions were ever begun in the databases that Odoo uses. A session is counted when it has done something, a second later at most."""
    time.sleep(1.5)
    return int(ask(host, "SELECT sum(sessions) FROM pg_stat_database WHERE datname IN ('main', 'postgres')"))


def test_listeners_hear_at_once(admin: Odoo, play: Player) -> None:
    notification, action = contract.listeners(admin)
    play.say(f"notification {notification:.2f} s, triggered action {action:.2f} s")


def test_posting_opens_no_connection_to_postgresql(lab: Lab, admin: Odoo) -> None:
    primary = lab.hosts[leader(lab)]
    [partner] = admin.call("res.partner", "search", [], limit=1)

    def post() -> None:
        admin.call("res.partner", "message_post", [partner], body="berth")

    for _ in range(5):
        post()
    new = []
    # Somebody else's session, such as the health check's of every ten seconds, may fall into a round, and not into all.
    while new.count(0) < QUIET_ROUNDS and len(new) < 6 * QUIET_ROUNDS:
        before = sessions(primary)
        for _ in range(POSTS):
            post()
        # The question is asked in a session of its own, in the database postgres.
        new.append(sessions(primary) - before - 1)
    assert new.count(0) >= QUIET_ROUNDS, f"{new} new sessions for {POSTS} posts each"
    # What is counted here is counted.
    before = sessions(primary)
    ask(primary, "SELECT 1")
    assert sessions(primary) - before >= 2


def test_no_storm_opens_more_connections_than_planned(lab: Lab, host: Host, admin: Odoo, play: Player) -> None:
    """Four times as many users as workers, and both poolers and then PostgreSQL start again under them."""
    wait_until_fit(lab)
    sizes = {
        mode: {
            name: int(value) for name, value in re.findall(r"^(default_pool_size|postgres = .*pool_size) ?= ?(\d+)$", text, re.MULTILINE)
        }
        for mode in ("transaction", "session")
        if (text := host.run(f"cat /opt/berth/pgbouncer/config/{mode}/pgbouncer.ini"))
    }
    [web, notify] = [sizes["transaction"].pop("default_pool_size"), *sizes["transaction"].values()]
    planned = web + notify + 2 * sizes["session"]["default_pool_size"]
    primary = lab.hosts[leader(lab)]
    workers = int(re.search(r"^workers = (\d+)$", host.run("cat /opt/berth/odoo-main/config/web/odoo.conf"), re.MULTILINE)[1])  # type: ignore[index]
    question = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename IN ('main', 'main_login2')"
    stop, seen, answers = threading.Event(), [], []

    def count() -> None:
        while not stop.is_set():
            try:
                seen.append(int(ask(primary, question)))
            except (AssertionError, ValueError):  # it starts again
                time.sleep(0.2)

    def work(number: int) -> None:
        while not stop.is_set():
            try:
                admin.call("res.partner", "search_read", [], ["name", "message_ids"], limit=80)
                answers.append("ok")
            except (AssertionError, OSError, ValueError) as error:
                answers.append(f"{number}: {error}")

    with ThreadPoolExecutor(max_workers=4 * workers + 1) as pool:
        pool.submit(count)
        for number in range(4 * workers):
            pool.submit(work, number)
        try:
            wait_for("all workers at work", lambda: len(answers) > 8 * workers, seconds=180)
            for name in ("pgbouncer-pgbouncer-1", "pgbouncer-pgbouncer-session-1"):
                host.run(f"docker restart -t 1 {name}")
            count_then = len(answers)
            wait_for("answers after the poolers", lambda: len(answers) > count_then + 8 * workers, seconds=180)
            primary.run(f"docker exec $({POSTGRESQL}) patronictl restart --force berth {primary.name}")
            count_then = len(answers)
            wait_for("answers after PostgreSQL", lambda: len(answers) > count_then + 8 * workers, seconds=180)
        finally:
            stop.set()
    words = "too many (clients|connections)|connection slots"
    refused = primary.run(f"docker logs --since 5m $({POSTGRESQL}) 2>&1 | grep -cE '{words}' || true")
    play.say(f"{len(answers)} requests of {4 * workers} users on {workers} workers: {max(seen)} connections at most, {planned} planned; "
             f"{len([answer for answer in answers if answer != 'ok'])} failed")  # fmt: skip
    assert max(seen) > 3, "nothing was counted"
    assert max(seen) <= planned
    assert refused.strip() == "0"
    admin.wait_until_up()
    wait_until_fit(lab)
