# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Database connections are lost in the middle of requests: each is served again, none takes effect twice, and after a COMMIT without an answer its
user is told. There is one database host, so nothing but the add-on berth_runtime lets clients wait."""

from __future__ import annotations

import dataclasses
import json
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.odoo import Odoo

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab

WRITERS = 4
# Writes first, then lasts. The record is new in each attempt, so one that took effect twice would be there twice.
SLOW = "env['res.partner'].create({'name': env.context['mark']})\nenv.cr.execute('SELECT pg_sleep(%s)', [env.context['seconds']])"
UNKNOWN = "may have been saved or not"


@dataclasses.dataclass(frozen=True)
class Write:
    """One request that creates the partner `mark`, and its error; empty when it was acknowledged."""

    mark: str
    error: str


def sql(host: Host, statement: str) -> str:
    """Let the superuser execute something in the instance's database."""
    psql = "psql -h /run/postgresql -U postgres -XAtq -v ON_ERROR_STOP=1 main"
    return host.run(f"docker exec -i {host.container('postgresql/postgresql').id} {psql}", stdin=statement).strip()


def counts(host: Host) -> dict[str, int]:
    """How many partners have each of the names."""
    rows = sql(host, "SELECT count(*), name FROM res_partner WHERE name LIKE 'berth %' GROUP BY name").splitlines()
    return {name: int(count) for count, name in (row.split("|") for row in rows)}


def found(host: Host, mark: str) -> int:
    """How many partners have this name."""
    return counts(host).get(mark, 0)


def said(host: Host, since: str) -> str:
    """What the web container logged."""
    return host.run(f"docker logs --since {since} {host.container('odoo-main/web').id} 2>&1")


@pytest.fixture(scope="module")
def action(host: Host, admin: Odoo) -> Iterator[int]:
    """A server action that does SLOW."""
    [model] = admin.call("ir.model", "search", [["model", "=", "res.partner"]])
    [made] = admin.call("ir.actions.server", "create", [{"name": "berth test", "model_id": model, "state": "code", "code": SLOW}])
    # Of an earlier run on the same lab.
    sql(host, "DELETE FROM res_partner WHERE name LIKE 'berth %'")
    yield made
    admin.call("ir.actions.server", "unlink", [made])
    sql(host, "DELETE FROM res_partner WHERE name LIKE 'berth %'")


@pytest.fixture
def clients(lab: Lab, url: str, admin_password: str) -> list[Odoo]:
    """Users who are logged in."""
    found = [Odoo(url, lab.ca) for _number in range(WRITERS)]
    for client in found:
        client.log_in("admin", admin_password)
    return found


def write(client: Odoo, action: int, mark: str, seconds: float | str) -> Write:
    """Send one request."""
    path = "/web/dataset/call_kw/ir.actions.server/run"
    params = {"model": "ir.actions.server", "method": "run", "args": [[action]], "kwargs": {"context": {"mark": mark, "seconds": seconds}}}
    try:
        answer = client.request(path, body={"jsonrpc": "2.0", "method": "call", "params": params}, timeout=100)
    except OSError as error:
        return Write(mark, f"{type(error).__name__}: {error}")
    if answer.status != 200:
        return Write(mark, f"status {answer.status}: {answer.body[:300]}")
    error = json.loads(answer.body).get("error")
    return Write(mark, error["data"]["message"] if error else "")


@contextmanager
def load(clients: list[Odoo], action: int, name: str, seconds: float) -> Iterator[list[Write]]:
    """Let every client write one after the other, and load a page in between; a page that is no page is an error too."""
    writes: list[Write] = []
    stopping = threading.Event()

    def run(number: int, client: Odoo) -> None:
        count = 0
        while not stopping.is_set():
            count += 1
            writes.append(write(client, action, f"{name} {number}.{count}", seconds))
            try:
                page = client.request("/odoo", timeout=100)
                if page.status != 200:
                    writes.append(Write(f"{name} page {number}.{count}", f"/odoo: {page.status} {page.headers.get('Location', '')}"))
            except OSError as error:
                writes.append(Write(f"{name} page {number}.{count}", f"/odoo: {type(error).__name__}: {error}"))

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    try:
        yield writes
    finally:
        stopping.set()
        for thread in threads:
            thread.join(timeout=150)


def judge(host: Host, writes: list[Write], unknown: int = 1) -> None:
    """Every acknowledged write is there once, and nothing failed but what nobody can know, of which there may be `unknown`."""
    acknowledged = [one.mark for one in writes if not one.error]
    assert len(acknowledged) >= WRITERS
    there = counts(host)
    assert [mark for mark in acknowledged if there.get(mark) != 1] == []
    failed = [one for one in writes if one.error]
    assert [one for one in failed if UNKNOWN not in one.error] == []
    assert max(there.values()) == 1
    # A COMMIT lasts a small part of the request.
    assert len(failed) <= unknown, failed


def test_backends_are_ended_in_the_middle_of_requests(host: Host, clients: list[Odoo], action: int) -> None:
    since = host.run("date +%s").strip()
    ended = 0
    ending = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    with load(clients, action, "berth ended", 1) as writes:
        for _number in range(4):
            ended += wait_for("a request at work", lambda: int(sql(host, ending)), seconds=60, interval=0.1)
            # Longer than one lasts, so that each is served at its next attempt.
            time.sleep(2)
    judge(host, writes)
    lines = [line for line in said(host, since).splitlines() if "the database was lost" in line]
    assert len(lines) >= ended
    assert "POST /web/dataset/call_kw/ir.actions.server/run of user 2" in "\n".join(lines)
    assert "served at attempt 2" in said(host, since)


# Arguments by standard input, so that no process list shows the password. In the container, because the edge may not let programs in.
PROGRAM = """
import json, sys, urllib.request, xmlrpc.client
given = json.load(sys.stdin)
url, ids, context = "http://localhost:8069", [given["action"]], {"mark": given["mark"], "seconds": 15}
if given["way"] == "xml-rpc":
    server = xmlrpc.client.ServerProxy(url + "/xmlrpc/2/object", allow_none=True)
    server.execute_kw("main", 2, given["secret"], "ir.actions.server", "run", [ids], {"context": context})
else:
    headers = {"Content-Type": "application/json", "Authorization": "bearer " + given["secret"]}
    body = json.dumps({"ids": ids, "context": context}).encode()
    urllib.request.urlopen(urllib.request.Request(url + "/json/2/ir.actions.server/run", body, headers), timeout=200).read()
"""
API_KEY = """
key = env['res.users.apikeys'].with_user(2)._generate(None, 'berth test', datetime.datetime.now() + datetime.timedelta(hours=1))
action = {'type': 'ir.actions.act_window_close', 'infos': {'key': key}}
"""


@pytest.mark.parametrize("way", ["xml-rpc", "json-2"])
def test_programs_are_served_again(host: Host, admin: Odoo, admin_password: str, action: int, way: str) -> None:
    secret = admin_password
    if way == "json-2":
        [model] = admin.call("ir.model", "search", [["model", "=", "res.partner"]])
        [made] = admin.call("ir.actions.server", "create", [{"name": "berth key", "model_id": model, "state": "code", "code": API_KEY}])
        secret = admin.call("ir.actions.server", "run", [made])["infos"]["key"]
        admin.call("ir.actions.server", "unlink", [made])
    mark = f"berth {way}"
    given = json.dumps({"way": way, "action": action, "mark": mark, "secret": secret})
    web = host.container("odoo-main/web").id
    answers: list[str] = []
    command = f"docker exec -i {web} python3 -c {shlex.quote(PROGRAM)}"
    thread = threading.Thread(target=lambda: answers.append(host.run(f"{command} && echo served", stdin=given, timeout=200)), daemon=True)
    thread.start()
    sleeping = "FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    ending = f"SELECT count(pg_terminate_backend(pid)) {sleeping}"
    assert wait_for("the request", lambda: int(sql(host, ending)), seconds=90, interval=0.1) == 1
    thread.join(timeout=150)
    assert [answer.strip() for answer in answers] == ["served"]
    assert found(host, mark) == 1


def test_postgresql_is_killed_under_load(host: Host, clients: list[Odoo], action: int) -> None:
    server = host.container("postgresql/postgresql").id
    before = sql(host, "SELECT pg_postmaster_start_time()")
    with load(clients, action, "berth killed", 0.5) as writes:
        time.sleep(2)
        data = host.run(f"docker exec {server} psql -h /run/postgresql -U postgres -XAtc 'SHOW data_directory'").strip()
        host.run(f"docker exec {server} sh -c 'kill -s KILL $(head -n 1 {data}/postmaster.pid)'")
        wait_for("another PostgreSQL", lambda: sql(host, "SELECT pg_postmaster_start_time()") != before, seconds=180)
        time.sleep(2)
    # On a slow disk both workers may wait for their COMMIT.
    judge(host, writes, unknown=2)


def test_a_commit_without_an_answer_is_not_repeated(host: Host, clients: list[Odoo], action: int) -> None:
    # A check that PostgreSQL makes within COMMIT, which so lasts long enough to be hit.
    sql(
        host,
        "CREATE FUNCTION berth_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER berth_wait AFTER INSERT ON res_partner DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "WHEN (NEW.name = 'berth unknown') EXECUTE FUNCTION berth_wait()",
    )
    since = host.run("date +%s").strip()
    writes: list[Write] = []
    try:
        thread = threading.Thread(target=lambda: writes.append(write(clients[0], action, "berth unknown", 0)), daemon=True)
        thread.start()
        committing = "FROM pg_stat_activity WHERE usename = 'main' AND state = 'active' AND query = 'COMMIT' AND wait_event = 'PgSleep'"
        ending = f"SELECT count(pg_terminate_backend(pid)) {committing}"
        assert wait_for("a COMMIT that lasts", lambda: int(sql(host, ending)), seconds=90, interval=0.1) == 1
        thread.join(timeout=150)
        [answer] = writes
        assert UNKNOWN in answer.error
        # A repetition would wait in its own COMMIT now.
        assert sql(host, f"SELECT count(*) {committing}") == "0"
        assert found(host, "berth unknown") == 0
        assert "a COMMIT was sent and not answered; not repeated" in said(host, since)
        assert clients[0].request("/odoo").status == 200, "the user was logged out"
    finally:
        sql(host, "DROP TRIGGER berth_wait ON res_partner; DROP FUNCTION berth_wait")


def test_a_request_that_fails_by_itself_is_not_repeated(host: Host, clients: list[Odoo], admin: Odoo, action: int) -> None:
    since = host.run("date +%s").strip()
    answer = write(clients[0], action, "berth broken", "never")
    assert answer.error
    assert found(host, "berth broken") == 0
    assert "the database was lost" not in said(host, since)


def test_a_web_process_that_ends_during_an_outage_is_started_after_it(host: Host, admin: Odoo) -> None:
    web = host.container("odoo-main/web")
    pool = host.container("pgbouncer/pgbouncer")
    since = host.run("date +%s").strip()
    host.run(f"docker stop {pool.id}", timeout=90)
    try:
        listing = host.run(f"docker top {web.id} -eo pid,ppid,args").splitlines()[1:]
        worker = next(
            line.split()[0] for line in reversed(listing) if line.split()[1] == str(web.facts["State"]["Pid"]) and "gevent" not in line
        )
        host.run(f"kill -KILL {worker}")
        wait_for("a worker that is not started", lambda: "missing workers are started when it is back" in said(host, since), seconds=240)
    finally:
        host.run(f"docker start {pool.id}")
    wait_for(
        "both workers", lambda: said(host, since).count("WorkerHTTP") >= 1 and admin.request("/web/login").status in (200, 303), seconds=240
    )
    assert host.container("odoo-main/web").identity == web.identity, "the web container was restarted"
