# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two edges with one address, behind the firewall: it moves when one is drained or patched, when its Traefik is gone, and when the machine is."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support import packages
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, docker, wait_for
from ansible_collections.berth.odoo.tests.support.load import Clerks
from ansible_collections.berth.odoo.tests.support.odoo import Odoo
from ansible_collections.berth.odoo.tests.support.playbook import Player

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.load import Request

EDGES = ("front", "app1")
CLERKS = 4
SLOW_S = 20  # seconds; longer than the address needs to move
MOVING = {
    f"handover | {task}"
    for task in ("Hand on what the others will not know", "Take the address from it", "Close its connections", "Hand nothing on any more")
}
"""What a drain of an edge changes."""
AGAIN_S = 5  # seconds after a death from which on nobody may notice it


@pytest.fixture(scope="module")
def edges(lab: Lab) -> Lab:
    """The same machines, of which two are edges."""
    return dataclasses.replace(lab, inventories=(*lab.inventories, REPOSITORY / "tests/apps/edges"))


@pytest.fixture(scope="module")
def run(edges: Lab, say: Callable[[str], None]) -> Player:
    """Run a playbook with both edges."""
    return Player(edges, say)


@pytest.fixture(scope="module")
def address(edges: Lab) -> str:
    """The one that moves."""
    return f"{edges.hosts['front'].address.rpartition('.')[0]}.250"


@pytest.fixture(scope="module")
def clerks(address: str, url: str, lab: Lab, admin_password: str) -> Clerks:
    """People at work, whose DNS leads them to the floating address."""
    odoo = Odoo(url, lab.ca, address)
    odoo.log_in("admin", admin_password)
    return Clerks(odoo, CLERKS)


def slow_upload(odoo: Odoo, seconds: float) -> None:
    """Send a request whose body takes its time, as over a bad line. On a connection that is broken it fails."""
    head, parts = b'{"params": {}, "padding": "', round(seconds * 5)
    piece, tail = b"x" * 10_000, b'"}'
    host = odoo.url.removeprefix("https://")

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(parts):
            yield piece
            time.sleep(0.2)  # the line is slow
        yield tail

    length = len(head) + parts * len(piece) + len(tail)
    headers = {"Host": host, "Content-Type": "application/json", "Content-Length": str(length)}
    # The name is of the certificate; where it leads to is what moves.
    connection = odoo.connection(host, timeout=30)
    connection.request("POST", "/web/webclient/version_info", body(), headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200 and b"server_version" in text, f"answered {answer.status}: {text[:200]!r}"


def holders(lab: Lab, address: str) -> list[str]:
    """The edges that have the address."""
    return [name for name in EDGES if lab.hosts[name].run(f"ip -4 -oneline address show to {address}/32").strip()]


def account(requests: list[Request]) -> str:
    """What went wrong, for a person."""
    return "\n".join(f"{request.what} of {request.ended - request.began:.1f} s: {request.problem}" for request in requests)


def worked(clerks: Clerks, since: float, number: int = 20) -> bool:
    """Whether so many requests were sent since then and answered."""
    return sum(request.began > since and not request.problem for request in list(clerks.requests)) >= number


def test_an_address_of_somebody_else_is_refused(run: Player, lab: Lab) -> None:
    """The gateway of the lab's network is one, and no host of the inventory."""
    gateway = lab.hosts["front"].run("ip -4 route show default").split()[2]
    run("playbooks/site.yml", "--tags", "edge", variables={"keepalived_address": gateway}).expect_refusal(
        f"{gateway}, which the machine with the hardware address", "Nothing was changed"
    )


def test_one_edge_gets_the_address(run: Player, lab: Lab, address: str) -> None:
    run("playbooks/firewall.yml", variables={"firewall_management_networks": []}).expect_success()
    run("playbooks/site.yml", "--tags", "edge").expect_success()
    # From here on nothing leaves that the platform does not need.
    run("playbooks/firewall.yml", variables={"firewall_management_networks": [], "firewall_outgoing": []}).expect_success()
    assert holders(lab, address) == ["front"]


def test_an_edge_is_drained_without_a_failed_request(
    run: Player, lab: Lab, address: str, clerks: Clerks, say: Callable[[str], None]
) -> None:
    clerks.requests.clear()
    with ThreadPoolExecutor(3) as people, clerks.working():
        running = people.submit(run, "playbooks/drain.yml", variables={"target": "front"})
        # A moment before the address moves.
        told = "nft list table ip berth_handover > /dev/null 2>&1"
        wait_for("the other edge to be told", lambda: running.done() or lab.hosts["app1"].succeeds(told), seconds=120, interval=0.2)
        slow = people.submit(clerks.wait_for_server, SLOW_S)
        upload = people.submit(clerks.ask, "upload", lambda: slow_upload(clerks.odoo, SLOW_S))
        wait_for("the address at the other edge", lambda: holders(lab, address) == ["app1"], seconds=30, interval=0.1)
        moved = time.monotonic()
        running.result().expect_success()
        ended = time.monotonic()
        wait_for("work at the other edge", lambda: worked(clerks, ended), seconds=30)
    # It converged both edges again.
    assert set(running.result().changed) == MOVING
    [waited] = [
        task.seconds
        for task in running.result().tasks
        if task.task == "handover | Wait until the edge has answered what it was asked" and not task.skipped
    ]
    say(
        f"drain of an edge: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}, an answer and an upload of {SLOW_S} s among them; "
        f"waited {waited:.1f} s for answers"
    )
    for future in (slow, upload):
        assert future.result().in_flight(moved), "not in flight when the address moved: the test proves nothing"
    assert clerks.failed == [], account(clerks.failed)
    assert holders(lab, address) == ["app1"]
    assert not lab.hosts["app1"].succeeds(told)


def test_a_drained_edge_is_named_and_the_last_one_is_not_drained(run: Player, lab: Lab, address: str) -> None:
    status = run("playbooks/status.yml").expect_success().text
    assert "Drained: front does not get the floating address since" in status
    assert f"Floating address: {address} is at app1" in status
    run("playbooks/drain.yml", variables={"target": "app1"}).expect_refusal("app1 is the last edge that may have the floating address")
    run("playbooks/undrain.yml", variables={"target": "front"}).expect_success()
    assert holders(lab, address) == ["app1"], "nobody takes the address from an edge that is well"


@pytest.fixture
def waiting(lab: Lab) -> Iterator[Host]:
    """An edge that is an application host, too: an update that asks for a reboot waits there, and a machine that stops by itself starts again."""
    host = lab.hosts["app1"]
    docker("update", "--restart=unless-stopped", host.variables["lab_container"])
    packages.prepare(host)
    packages.offer(host, packages.SECURITY, "2.0")
    yield host
    docker("update", "--restart=no", host.variables["lab_container"])
    packages.restore(host)


def test_nobody_hands_over_to_an_edge_that_would_not_take_it(run: Player, lab: Lab, address: str) -> None:
    lab.hosts["front"].run("docker stop traefik-traefik-1")
    try:
        run("playbooks/drain.yml", variables={"target": "app1"}).expect_refusal(
            f"No other edge would take the floating address {address} from app1, which keeps it: on front Traefik does not answer"
        )
    finally:
        lab.hosts["front"].run("docker start traefik-traefik-1")
    assert holders(lab, address) == ["app1"]


@pytest.mark.nightly
def test_an_edge_is_patched_and_rebooted_without_a_failed_request(
    run: Player, waiting: Host, lab: Lab, address: str, clerks: Clerks, say: Callable[[str], None]
) -> None:
    """It makes way as an edge and as an application host, and gets its requests back."""
    boot = "cut -d ' ' -f 22 /proc/1/stat"
    before = waiting.run(boot)
    clerks.requests.clear()
    with clerks.working():
        run("playbooks/patch.yml", variables={"target": "app1"}).expect_success()
        since = time.monotonic()
        count = "docker logs --since {}s odoo-main-web-1 2>&1 | grep -c -e 'POST /web/' -e 'GET /odoo' || true"
        wait_for(
            "requests at the host that was away",
            lambda: int(waiting.run(count.format(max(1, round(time.monotonic() - since))))) > 2,
            seconds=60,
        )
    say(f"patch of an edge: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}")
    assert len(clerks.requests) > 50
    assert clerks.failed == [], account(clerks.failed)
    assert waiting.run(boot) != before
    assert packages.version(waiting, packages.SECURITY) == "2.0"
    assert holders(lab, address) == ["front"]
    wait_for("app1 to be ready again", lambda: ready(waiting), seconds=20)


def test_the_address_leaves_an_edge_without_traefik(lab: Lab, address: str, clerks: Clerks, say: Callable[[str], None]) -> None:
    [holder] = holders(lab, address)
    victim, other = lab.hosts[holder], next(name for name in EDGES if name != holder)
    wait_for("the other edge to be ready", lambda: ready(lab.hosts[other]), seconds=60)
    clerks.requests.clear()
    with clerks.working():
        wait_for("work", lambda: worked(clerks, 0), seconds=30)
        killed = time.monotonic()
        victim.run("docker kill traefik-traefik-1")
        wait_for("the address at the other edge", lambda: holders(lab, address) == [other], seconds=15, interval=0.1)
        moved = time.monotonic()
        wait_for("work at the other edge", lambda: worked(clerks, moved), seconds=30)
    victim.run("docker start traefik-traefik-1")
    judge("death of Traefik", clerks, killed, moved, say)


def ready(host: Host) -> bool:
    """Whether an edge would take the address: it says so when its check succeeds again."""
    states = host.run("journalctl --unit keepalived --output cat --grep 'Entering (BACKUP|FAULT|MASTER) STATE'").splitlines()
    return "BACKUP" in states[-1]


def judge(what: str, clerks: Clerks, killed: float, moved: float, say: Callable[[str], None]) -> None:
    """Say and judge how many requests failed."""
    late = [request for request in clerks.failed if request.began > max(killed + AGAIN_S, moved)]
    slowest = max(request.ended - request.began for request in clerks.requests if request.began > killed)
    say(
        f"{what}: moved after {moved - killed:.1f} s; failed requests {len(clerks.failed)} of {len(clerks.requests)}; of those sent "
        f"{AGAIN_S} s later or after it moved, wanted 0, got {len(late)}; the slowest took {slowest:.1f} s"
    )
    assert late == [], account(late)


@pytest.mark.nightly
def test_the_address_leaves_a_machine_that_dies_and_the_machine_comes_back(
    run: Player, lab: Lab, address: str, clerks: Clerks, say: Callable[[str], None]
) -> None:
    """It is the other one that has it now: the one with the edge alone cannot die here, because it has the database, too."""
    victim = lab.hosts["app1"]
    wait_for("front to be ready", lambda: ready(lab.hosts["front"]), seconds=20)
    machine = victim.variables["lab_container"]
    clerks.requests.clear()
    with clerks.working():
        wait_for("work", lambda: worked(clerks, 0), seconds=30)
        docker("kill", machine)
        killed = time.monotonic()
        try:
            wait_for(
                "the address at front",
                lambda: bool(lab.hosts["front"].run(f"ip -4 -o address show to {address}/32").strip()),
                seconds=20,
                interval=0.1,
            )
            moved = time.monotonic()
            wait_for("work at the other edge", lambda: worked(clerks, max(moved, killed + AGAIN_S), 40), seconds=40)
        finally:
            docker("start", machine)
    judge("death of an edge", clerks, killed, moved, say)
    wait_for("app1", lambda: ready(victim), seconds=60, interval=1)
    assert holders(lab, address) == ["front"]
