# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two application hosts behind one edge: they are one site, one of them can be taken out, and one of them can die."""

from __future__ import annotations

import base64
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from ansible_collections.berth.odoo.tests.support.browser import artifacts, browser, image
from ansible_collections.berth.odoo.tests.support.lab import docker, wait_for
from ansible_collections.berth.odoo.tests.support.load import Clerks, Request
from ansible_collections.berth.odoo.tests.support.odoo import Odoo, open_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.remote.webdriver import WebDriver

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

APPS = ("app1", "app2")
CLERKS = 4
SLOW_S = 35  # seconds; longer than a playbook needs until the edge has been told
CONTENT = bytes(range(256)) * 20
PATIENCE = 240  # seconds for a page; the first one after a deployment makes Odoo build its assets
WEB, WEBSOCKET = 8069, 8072


@pytest.fixture(scope="module")
def clerks(admin: Odoo) -> Clerks:
    """People at work, who are logged in."""
    return Clerks(admin, CLERKS)


@pytest.fixture(scope="module")
def person(lab: Lab, host: Host, url: str, admin_password: str) -> Iterator[WebDriver]:
    """Somebody at a browser, who logs in once."""
    with browser(lab, image(host.variables["images_base_image"])) as driver:
        driver.get(f"{url}/odoo")
        _see(driver, "input[name=login]")
        driver.find_element(By.CSS_SELECTOR, "input[name=login]").send_keys("admin")
        driver.find_element(By.CSS_SELECTOR, "input[name=password]").send_keys(admin_password)
        driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        _see(driver, ".o_main_navbar")
        yield driver


def _see(driver: WebDriver, selector: str) -> None:
    waiting = WebDriverWait(driver, PATIENCE, ignored_exceptions=[NoSuchElementException])
    waiting.until(lambda page: page.find_element(By.CSS_SELECTOR, selector).is_displayed(), f"nothing to see of {selector}")


def _live(driver: WebDriver) -> None:
    """Wait until the page's bus is connected."""
    state = "return odoo.__WOWL_DEBUG__.root.env.services.bus_service.workerState"
    WebDriverWait(driver, PATIENCE).until(lambda page: page.execute_script(state) == "CONNECTED", "the bus is not connected")


def answered(host: Host, since: float) -> int:
    """How many requests a host's web tier has logged for some seconds of the past; health checks ask for static files, which are not counted."""
    text = host.run(
        f"docker logs --since {max(1, round(time.monotonic() - since))}s odoo-main-web-1 2>&1 | grep -c -e 'POST /web/' -e 'GET /odoo' || true"
    )
    return int(text)


def serving(host: Host) -> bool:
    """Whether somebody else than the host itself is connected to its web tier: a request is being answered there."""
    connections = host.run("docker exec odoo-main-web-1 cat /proc/net/tcp")
    lines = [line.split() for line in connections.splitlines()[1:]]
    return any(line[3] == "01" and line[1].endswith(f":{WEB:04X}") and not line[2].startswith("0100007F") for line in lines)


def one_at_each(lab: Lab, people: ThreadPoolExecutor, clerks: Clerks) -> list[Future[Request]]:
    """Begin a long request at each host. Nobody else works: the second one goes where nothing is in flight."""
    first = people.submit(clerks.wait_for_server, SLOW_S)
    wait_for("a long request", lambda: any(serving(lab.hosts[name]) for name in APPS), seconds=10, interval=0.1)
    second = people.submit(clerks.wait_for_server, SLOW_S)
    wait_for("a long request at each host", lambda: all(serving(lab.hosts[name]) for name in APPS), seconds=10, interval=0.1)
    return [first, second]


def account(requests: list[Request]) -> str:
    """What went wrong, for a person."""
    return "\n".join(f"{request.what} of {request.ended - request.began:.1f} s: {request.problem}" for request in requests)


def test_the_first_run_converges(play: Player) -> None:
    play("playbooks/site.yml").expect_success()


def test_the_second_run_changes_nothing(play: Player) -> None:
    assert play("playbooks/site.yml").expect_success().changed == []


def test_odoo_is_published_on_the_private_address_alone(lab: Lab) -> None:
    for name in APPS:
        host = lab.hosts[name]
        assert open_ports(host.address, range(WEB, WEBSOCKET + 1)) == [WEB, WEBSOCKET]
        for container in host.containers().values():
            for bindings in container.facts["HostConfig"]["PortBindings"].values():
                assert [binding["HostIp"] for binding in bindings] == [host.variables["host_address"]], container.name


def test_each_host_knows_the_login_and_the_files_that_another_one_made(lab: Lab, admin: Odoo) -> None:
    """Past the edge, to each host itself."""
    attachment = admin.call("ir.attachment", "create", [{"name": "berth", "datas": base64.b64encode(CONTENT).decode()}])[0]
    [stored] = admin.call("ir.attachment", "read", [attachment], fields=["store_fname", "file_size"])
    assert stored["store_fname"] is False
    session = "; ".join(f"{cookie.name}={cookie.value}" for cookie in admin.cookies)
    for name in APPS:
        direct = Odoo(f"http://{lab.hosts[name].address}:{WEB}", lab.ca)
        answer = direct.request("/web/session/get_session_info", body={"params": {}}, headers={"Cookie": session})
        assert '"uid": 2' in answer.body, f"{name}: {answer.status} {answer.body[:200]}"
        content = direct.request(f"/web/content/{attachment}", headers={"Cookie": session})
        assert (content.status, int(content.headers["Content-Length"])) == (200, stored["file_size"]), name


def test_redis_speaks_tls_to_whoever_has_a_password(lab: Lab, host: Host) -> None:
    redis = host.container("redis/redis").id
    plain = host.run(f"docker exec {redis} redis-cli -h {host.address} PING 2>&1", check=False)
    assert "PONG" not in plain and "NOAUTH" not in plain, plain
    tls = f"docker exec {redis} redis-cli -h {host.address} --tls --cacert /etc/redis-tls/ca.crt PING 2>&1"
    assert host.run(tls, check=False).startswith("NOAUTH"), "not the answer of a server that is well"


def test_no_attachment_is_left_in_a_file(lab: Lab, host: Host) -> None:
    """Those that the initialisation made are on the first application host, and were copied."""
    question = "SELECT count(*) FILTER (WHERE store_fname IS NOT NULL), count(db_datas) > 10 FROM ir_attachment WHERE type = 'binary'"
    container = host.container("postgresql/postgresql").id
    assert host.run(f"docker exec -i {container} psql -h /run/postgresql -U postgres -XAtq main", stdin=question).strip() == "0|t"


def test_what_cannot_be_drained_is_refused(play: Player) -> None:
    play("playbooks/drain.yml", variables={"target": "app3"}).expect_refusal("target is app3. Type: -e target=<host>, one of app1, app2")


def test_a_host_is_drained_without_a_failed_request(
    play: Player, lab: Lab, clerks: Clerks, admin: Odoo, say: Callable[[str], None]
) -> None:
    drained = lab.hosts["app2"]
    sockets = [admin.websocket() for _ in range(6)]
    with ThreadPoolExecutor(2) as people:
        slow = one_at_each(lab, people, clerks)
        with clerks.working():
            began = time.monotonic()
            wait_for("requests at both hosts", lambda: all(answered(lab.hosts[name], began) > 2 for name in APPS), seconds=20)
            run = play("playbooks/drain.yml", variables={"target": "app2"}).expect_success()
            ended = time.monotonic()
            before = len(clerks.requests)
            wait_for("more requests", lambda: len(clerks.requests) > before + 20, seconds=30)
            after = answered(drained, ended)
    for connection in sockets:
        connection.close()
    failed = clerks.failed
    [waited] = [task.seconds for task in run.tasks if task.task == "finish | Wait until it has answered what it was asked"]
    closed = re.search(r"(\d+) live connections were closed", run.text)
    say(f"drain: failed requests, wanted 0, got {len(failed)} of {len(clerks.requests)}; requests there afterwards, wanted 0, got {after}")
    say(
        f"drain: live connections there, wanted 1 to 5 of 6, got {closed and closed[1]}; waited {waited:.1f} s for the last answer, wanted more than 1"
    )
    assert failed == [], account(failed)
    assert [future.result().problem for future in slow] == ["", ""]
    assert waited > 1, "nothing was in flight there: the test proves nothing"
    assert after == 0
    assert closed and 1 <= int(closed[1]) <= 5
    assert admin.websocket().getstatus() == 101


def test_a_drained_host_stays_drained_and_is_named(play: Player, lab: Lab, clerks: Clerks) -> None:
    run = play("playbooks/site.yml", "--tags", "edge").expect_success()
    assert run.changed == []
    assert "app2: drained since" in run.text
    status = play("playbooks/status.yml").expect_success()
    assert "Drained: app2 gets no requests from front since" in status.text


def test_the_last_one_is_not_drained(play: Player) -> None:
    run = play("playbooks/drain.yml", variables={"target": "app1"})
    run.expect_refusal("app1 is the last application host that gets requests (app2 is drained)", "berth.odoo.undrain")


def test_a_host_comes_back_without_a_failed_request(play: Player, lab: Lab, clerks: Clerks, say: Callable[[str], None]) -> None:
    clerks.requests.clear()
    with clerks.working():
        play("playbooks/undrain.yml", variables={"target": "app2"}).expect_success()
        began = time.monotonic()
        wait_for("requests at the host that came back", lambda: answered(lab.hosts["app2"], began) > 5, seconds=30)
    say(f"undrain: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}")
    assert clerks.failed == [], account(clerks.failed)


@pytest.mark.nightly
def test_an_instance_that_is_stopped_stands_in_nobodys_way(play: Player, host: Host) -> None:
    stopped = {"odoo_instances": {"main": {**host.variables["odoo_instances"]["main"], "state": "stopped"}}}
    play("playbooks/site.yml", "--tags", "app,edge", variables=stopped).expect_success()
    try:
        play("playbooks/drain.yml", variables={**stopped, "target": "app2"}).expect_success()
        play("playbooks/undrain.yml", variables={**stopped, "target": "app2"}).expect_success()
    finally:
        play("playbooks/site.yml", "--tags", "app,edge").expect_success()


def test_nobody_notices_a_restart_of_redis(host: Host, clerks: Clerks, say: Callable[[str], None]) -> None:
    clerks.requests.clear()
    with clerks.working():
        host.run(f"docker restart --time 10 {host.container('redis/redis').id}", timeout=60)
        host.wait_until_healthy(seconds=60, names=["redis/redis"])
        restarted = time.monotonic()
        wait_for("requests afterwards", lambda: sum(request.began > restarted for request in clerks.requests) > 10, seconds=30)
    say(f"restart of Redis: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}")
    assert clerks.failed == [], account(clerks.failed)


def test_a_web_tier_that_crashes_takes_along_what_it_was_answering(lab: Lab, clerks: Clerks, say: Callable[[str], None]) -> None:
    """Until it is missed it looks as if it had nothing to do, so everything is sent there first, refused, and sent again."""
    victim = lab.hosts["app2"]
    clerks.requests.clear()
    with clerks.working():
        began = time.monotonic()
        wait_for("requests at both hosts", lambda: all(answered(lab.hosts[name], began) > 2 for name in APPS), seconds=20)
        # The kernel takes its time to end all of its processes, and accepts connections until then.
        victim.run("pid=$(docker inspect --format '{{.State.Pid}}' odoo-main-web-1); kill -KILL $pid; tail --pid=$pid -f /dev/null")
        crashed = time.monotonic()
        # Docker has started it again.
        victim.wait_until_healthy(seconds=60, names=["odoo-main/web"])
        again = time.monotonic()
        wait_for("requests at both hosts", lambda: all(answered(lab.hosts[name], again) > 2 for name in APPS), seconds=30)
    late = [request for request in clerks.failed if request.began > crashed]
    slowest = max(request.ended - request.began for request in clerks.requests if request.began > crashed)
    say(
        f"crash: failed requests, wanted at most {CLERKS} in flight, got {len(clerks.failed)} of {len(clerks.requests)}; of those sent afterwards, "
        f"wanted 0, got {len(late)}; the slowest took {slowest:.1f} s, wanted at most 15"
    )
    assert late == [], account(late)
    assert len(clerks.failed) <= CLERKS, account(clerks.failed)


def test_a_host_that_dies_takes_along_what_it_was_answering_and_nobody_s_login(
    lab: Lab, url: str, clerks: Clerks, person: WebDriver, say: Callable[[str], None]
) -> None:
    victim = lab.hosts["app2"]
    machine = victim.variables["lab_container"]
    _live(person)
    cookie = person.get_cookie("session_id")
    clerks.requests.clear()
    with ThreadPoolExecutor(2) as people:
        one_at_each(lab, people, clerks)
        with clerks.working():
            began = time.monotonic()
            wait_for("requests at both hosts", lambda: all(answered(lab.hosts[name], began) > 2 for name in APPS), seconds=20)
            killing = time.monotonic()
            docker("kill", machine)
            killed = time.monotonic()
            try:
                person.get(f"{url}/odoo")
                _see(person, ".o_main_navbar")
                _live(person)
                person.save_screenshot(str(artifacts() / "apps-after-the-death.png"))
                time.sleep(max(0.0, killed + 15 - time.monotonic()))  # people work on
                wait_for("more work", lambda: sum(request.began > killed for request in clerks.requests) > 50, seconds=30)
            finally:
                docker("start", machine)
    failed = clerks.failed
    late = [request for request in failed if request.began > killed]
    flying = [request for request in clerks.requests if request.began <= killed and request.ended > killing]
    later = [request for request in clerks.requests if request.began > killed]
    slowest = max(request.ended - request.began for request in later)
    say(f"death: failed requests, wanted at most {len(flying)} in flight, got {len(failed)} of {len(clerks.requests)}")
    say(
        f"death: failed of those sent afterwards, wanted 0, got {len(late)} of {len(later)}; the slowest took {slowest:.1f} s, wanted at most 15"
    )
    assert late == [], account(late)
    assert 1 <= len(failed) <= len(flying), account(failed)
    assert [request for request in later if request.began > killed + 5 and request.problem] == []
    again = person.get_cookie("session_id")
    assert cookie and again and again["value"][:42] == cookie["value"][:42], "another login"


def test_the_dead_host_comes_back_by_itself(lab: Lab, clerks: Clerks) -> None:
    victim = lab.hosts["app2"]
    wait_for("SSH", lambda: victim.succeeds("systemctl is-active docker"), seconds=60, interval=2)
    victim.wait_until_healthy(seconds=120)
    clerks.requests.clear()
    with clerks.working():
        began = time.monotonic()
        wait_for("requests at the host that was dead", lambda: answered(victim, began) > 5, seconds=60, interval=1)
    assert clerks.failed == [], account(clerks.failed)
