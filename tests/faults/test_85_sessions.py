# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions in Redis: the whole contract of Odoo's store, and nobody is logged out when Redis restarts. And the log as JSON, from the same run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.odoo import Odoo, Watch

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

# In the web container, with Odoo's own objects. Each line that it prints is a piece of the contract with its verdict.
CONTRACT = r"""
import json, time
from odoo import http
store = http.root.session_store
def verdict(name, holds):
    print("contract " + json.dumps([name, bool(holds)]))
verdict("it is the store in Redis", type(store).__name__ == "RedisSessionStore")
session = store.new()
session.update(http.get_default_session(), create_time=time.time(), text="é \"'%$")
store.save(session)
first = session.sid
again = store.get(first)
verdict("what was saved is there", dict(again) == dict(session) and not again.is_new)
verdict("an unknown id gives another one", store.get("x" * 84).sid != "x" * 84)
verdict("a wrong id gives another one", len(store.get("../../etc/passwd").sid) == 84)
store.rotate(again, None, soft=True)
verdict("a soft rotation keeps the first half", again.sid[:42] == first[:42] and again.sid != first)
verdict("the old id leads to the new one", store.get(first).get("next_sid") == again.sid)
other = store.get(first)
store.rotate(other, None, soft=True)
verdict("a request beside it gets the same new id", other.sid == again.sid)
verdict("the old id is kept while somebody may use it", not store.delete_old_sessions(again) and store.get(first).sid == first)
again["create_time"] = time.time() - http.SESSION_DELETION_TIMER - 1
store.delete_old_sessions(again)
verdict("then it is gone and the new one stays", store.get(first).sid != first and store.get(again.sid).get("text") == session["text"])
second = again.sid
store.rotate(again, None)
verdict("a hard rotation changes all of it", again.sid[:42] != first[:42] and store.get(second).sid != second)
identifier = again.sid[:42]
verdict("missing identifiers", store.get_missing_session_identifiers([identifier, "y" * 42]) == {"y" * 42})
try:
    store.delete_from_identifiers([identifier, "*"])
    refused = False
except ValueError:
    refused = True
verdict("a pattern for an identifier is refused and deletes nothing", refused and store.get(again.sid).sid == again.sid)
store.delete_from_identifiers([identifier])
verdict("a revoked device is gone", store.get(again.sid).sid != again.sid)
store.vacuum(1)
session = store.new(); session["create_time"] = time.time(); store.save(session)
verdict("an anonymous session expires within an hour", 0 < store._server.run(lambda client: client.ttl(store._key(session.sid[:42]))) <= 3600)
big = store.new(); big.update(create_time=time.time(), debug="1," * 15000); store.save(big)
verdict("a big anonymous session is not stored", store.get(big.sid).sid != big.sid)
store.delete(session)
verdict("a deleted one is gone", store.get(session.sid).sid != session.sid)
"""


@pytest.fixture(scope="module")
def redis_sessions(play: Player, host: Host) -> str:
    """The site with its sessions in Redis. The next converging run without the variables puts them back into files."""
    play("playbooks/site.yml", variables={"odoo_sessions": "redis", "odoo_log_format": "json"}).expect_success()
    host.wait_until_healthy(seconds=120)
    return host.container("odoo-main/web").id


@pytest.fixture(scope="module")
def clerk(redis_sessions: str, url: str, lab: Lab, admin_password: str) -> Odoo:
    """Somebody who logged in after the change, which ends every login."""
    assert redis_sessions
    client = Odoo(url, lab.ca)
    client.log_in("admin", admin_password)
    return client


def test_the_whole_contract(redis_sessions: str, host: Host) -> None:
    output = host.run(f"docker exec -i {redis_sessions} odoo shell --no-http --log-level=error", stdin=CONTRACT, timeout=120)
    verdicts = [json.loads(line.partition("contract ")[2]) for line in output.splitlines() if "contract [" in line]
    assert len(verdicts) == CONTRACT.count("verdict(") - 1, output
    assert [name for name, holds in verdicts if not holds] == []


def test_the_cookie_is_for_https_and_this_site(clerk: Odoo) -> None:
    [cookie] = [cookie for cookie in clerk.cookies if cookie.name == "session_id"]
    assert cookie.secure
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    assert cookie.has_nonstandard_attr("HttpOnly")


def test_who_does_not_log_in_to_redis_may_nothing(host: Host) -> None:
    """The user that an unauthenticated client would be has all rights, and is off."""
    for words in ("PING", "KEYS *", "AUTH default ''", "CONFIG GET maxmemory", "FLUSHALL"):
        answer = host.run(
            f"docker exec {host.container('redis/redis').id} redis-cli -h 127.0.0.1 --no-auth-warning {words} 2>&1", check=False
        )
        assert answer.startswith(("NOAUTH", "WRONGPASS")), f"{words}: {answer}"


def test_nobody_notices_a_restart_of_redis(clerk: Odoo, host: Host) -> None:
    before = {cookie.value for cookie in clerk.cookies if cookie.name == "session_id"}
    watch = Watch(clerk, "/odoo")
    with watch.watching():
        host.run(f"docker restart --time 10 {host.container('redis/redis').id}", timeout=60)
        host.wait_until_healthy(seconds=60, names=["redis/redis"])
    assert watch.failures == [], f"{len(watch.failures)} of {len(watch.answers)} requests failed: {watch.failures[:3]}"
    assert before == {cookie.value for cookie in clerk.cookies if cookie.name == "session_id"}


def test_without_redis_requests_fail_and_nobody_is_logged_out(clerk: Odoo, host: Host, visitor: Odoo) -> None:
    redis = host.container("redis/redis").id
    host.run(f"docker stop --time 10 {redis}", timeout=60)
    try:
        assert clerk.request("/odoo", timeout=60).status == 500
        assert visitor.request("/web/login", timeout=60).status == 200, "who has no session needs no Redis"
    finally:
        host.run(f"docker start {redis}", timeout=60)
    host.wait_until_healthy(seconds=60, names=["redis/redis"])
    assert clerk.request("/odoo").status == 200


def test_a_request_has_the_same_id_in_its_answer_and_in_both_logs(clerk: Odoo, host: Host, redis_sessions: str) -> None:
    identifier = clerk.request("/odoo?secret=x", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"]
    assert identifier != "mine"

    def found(container: str, field: str) -> dict[str, Any]:
        lines = host.run(f"docker logs --since 600s {container} 2>&1 | grep -F {identifier} || true").splitlines()
        return next((entry for entry in map(json.loads, lines) if entry.get(field) == identifier), {})

    served = wait_for("Odoo's line", lambda: found(redis_sessions, "request"), seconds=10)
    assert served["logger"] == "werkzeug"
    assert served["user"] == 2
    assert served["queries"] > 0
    passed = wait_for("Traefik's line", lambda: found(host.container("traefik/traefik").id, "downstream_X-Request-Id"), seconds=10)
    assert passed["RequestPath"] == "/odoo"


def test_a_revoked_device_has_to_log_in_again(
    clerk: Odoo, host: Host, redis_sessions: str, url: str, lab: Lab, admin_password: str
) -> None:
    other = Odoo(url, lab.ca)
    other.log_in("admin", admin_password)
    assert other.request("/odoo").status == 200
    [sid] = [cookie.value for cookie in other.cookies if cookie.name == "session_id"]
    assert sid
    revoke = f"device = env['res.device'].search([('session_identifier', '=', '{sid[:42]}')])\nprint('devices', len(device))\n"
    revoke += "device._revoke()\nenv.cr.commit()\n"
    output = host.run(f"docker exec -i {redis_sessions} odoo shell --no-http --log-level=error", stdin=revoke, timeout=120)
    assert "devices 1" in output, output
    assert other.request("/odoo").status == 303
    assert clerk.request("/odoo").status == 200
