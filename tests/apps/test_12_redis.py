# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts run one Redis: whatever happens to its primary, nobody is logged out."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, ansible, docker, environment, wait_for
from ansible_collections.berth.odoo.tests.support.load import Clerks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

CACHES = ("front", "app1", "app2")
APPS = ("app1", "app2")
CLERKS = 4
AGAIN_S = 5
"""Seconds after a death from which on nobody may notice it."""
REDIS, SENTINEL = "redis-redis-1", "redis-sentinel-1"
SPEAK = {
    REDIS: "cat /etc/redis-secrets/login - | redis-cli -s /run/redis/redis.sock",
    SENTINEL: "cat /etc/redis-secrets/login - | redis-cli -p 26379 --tls --cacert /etc/redis-tls/ca.crt",
}


def ask(host: Host, container: str, question: str) -> list[str]:
    """What a Redis, or a Sentinel, of a host answers, without that of the login."""
    return host.run(f"docker exec -i {container} sh -c '{SPEAK[container]}'", stdin=question).splitlines()[1:]


def primary(lab: Lab, *asked: str) -> str:
    """The host of the primary, when Sentinels agree; nothing while they do not."""
    told = {ask(lab.hosts[name], SENTINEL, "SENTINEL GET-MASTER-ADDR-BY-NAME berth")[0] for name in asked or CACHES}
    return told.pop().removesuffix("-redis") if len(told) == 1 else ""


def in_sync(lab: Lab) -> bool:
    """Whether one leads and both others have what it has."""
    roles = [ask(lab.hosts[name], REDIS, "ROLE") for name in CACHES]
    return [role[0] for role in roles].count("master") == 1 and all(role[0] == "master" or role[3] == "connected" for role in roles)


def seen(lab: Lab) -> bool:
    """Whether each Sentinel, which looks every ten seconds and is whom status asks, has seen that."""
    views = [ask(lab.hosts[name], SENTINEL, "SENTINEL REPLICAS berth") for name in CACHES]
    well = [("flags", "slave"), ("master-link-status", "ok")]
    return all([pair for pair in zip(view[::2], view[1::2], strict=True) if pair in well] == well * 2 for view in views)


def tilted(lab: Lab) -> bool:
    """Whether a Sentinel does nothing for half a minute, because its machine stood still for two seconds."""
    last = "docker logs {} 2>&1 | grep -oE '[+-]tilt' | tail -n 1"
    return any(lab.hosts[name].run(last.format(SENTINEL)).strip() == "+tilt" for name in CACHES)


def account(clerks: Clerks) -> str:
    """What went wrong, for a person."""
    return "\n".join(f"{request.what} of {request.ended - request.began:.1f} s: {request.problem}" for request in clerks.failed)


def slowest(clerks: Clerks) -> float:
    """Seconds that the slowest request took."""
    return max(request.ended - request.began for request in clerks.requests)


@pytest.fixture(scope="module")
def clerks(admin: Odoo) -> Clerks:
    """People at work, who are logged in."""
    return Clerks(admin, CLERKS)


@pytest.fixture
def leader(lab: Lab) -> Host:
    """Who is the primary."""
    wait_for("Sentinels that act", lambda: not tilted(lab), seconds=60, interval=1)
    wait_for("replicas in sync", lambda: in_sync(lab) and seen(lab), seconds=60, interval=1)
    return lab.hosts[wait_for("a primary", lambda: primary(lab), seconds=30)]


def test_status_names_the_primary(play: Player, leader: Host) -> None:
    run = play("playbooks/status.yml").expect_success()
    assert f"Redis: {leader.name} is the primary, 2 of 2 replicas are in sync" in run.text
    assert "3 of 3 Sentinels answer" in run.text


def test_who_has_no_password_may_nothing(lab: Lab, leader: Host) -> None:
    """Neither at a Sentinel nor as the user of the health check, who needs none."""
    for who in ("", "--user berth --pass none --no-auth-warning "):
        for words in ("SENTINEL MASTERS", "SENTINEL FAILOVER berth", "ACL LIST", "SENTINEL SET berth quorum 1"):
            command = f"redis-cli -p 26379 --tls --cacert /etc/redis-tls/ca.crt {who}{words} 2>&1"
            answer = leader.run(f"docker exec {SENTINEL} {command}", check=False)
            assert answer.startswith(("NOAUTH", "NOPERM")), f"{words}: {answer}"
        command = f"redis-cli -e -s /run/redis/redis.sock {who}REPLICAOF NO ONE 2>&1"
        answer = leader.run(f"docker exec {REDIS} {command}", check=False)
        assert answer.startswith(("NOAUTH", "NOPERM")), answer


def test_a_primary_that_is_stopped_hands_over(lab: Lab, leader: Host, clerks: Clerks, say: Callable[[str], None]) -> None:
    clerks.requests.clear()
    with clerks.working():
        wait_for("requests", lambda: len(clerks.requests) > 10, seconds=30)
        leader.run(f"docker restart {REDIS}", timeout=60)
        other = wait_for("another primary", lambda: primary(lab), seconds=30)
        wait_for("the old one as a replica", lambda: in_sync(lab), seconds=60, interval=1)
        before = len(clerks.requests)
        wait_for("requests afterwards", lambda: len(clerks.requests) > before + 10, seconds=30)
    assert other != leader.name
    say(
        f"stop of the primary: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}; the slowest took {slowest(clerks):.1f} s"
    )
    assert clerks.failed == [], account(clerks)


def test_nobody_notices_that_the_primary_is_killed(lab: Lab, leader: Host, clerks: Clerks, say: Callable[[str], None]) -> None:
    others = [name for name in CACHES if name != leader.name]
    clerks.requests.clear()
    with clerks.working():
        wait_for("requests", lambda: len(clerks.requests) > 10, seconds=30)
        leader.run(f"docker kill {REDIS}")
        killed = time.monotonic()
        try:
            wait_for("another primary", lambda: primary(lab, *others) not in ("", leader.name), seconds=40, interval=0.2)
            stall = time.monotonic() - killed
            before = len(clerks.requests)
            wait_for("requests afterwards", lambda: len(clerks.requests) > before + 20, seconds=30)
        finally:
            leader.run(f"docker start {REDIS}")
        wait_for("the old one as a replica", lambda: in_sync(lab), seconds=60, interval=1)
    say(
        f"death of the primary: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}; another one after {stall:.1f} s, "
        f"the slowest request took {slowest(clerks):.1f} s"
    )
    assert clerks.failed == [], account(clerks)


def test_a_run_does_not_move_the_primary_back(play: Player, lab: Lab, leader: Host) -> None:
    if leader.name == CACHES[0]:  # where it was at first
        leader.run(f"docker restart {REDIS}", timeout=60)
    moved = wait_for("another primary", lambda: (primary(lab) != CACHES[0] and in_sync(lab) and primary(lab)) or "", seconds=60, interval=1)
    assert play("playbooks/site.yml", "--tags", "cache").expect_success().changed == []
    assert primary(lab) == moved


@pytest.mark.nightly
@pytest.mark.parametrize(("away", "back"), [("pause", "unpause"), ("kill", "start")])
def test_the_host_of_the_primary_is_away_and_comes_back(
    lab: Lab, leader: Host, clerks: Clerks, say: Callable[[str], None], away: str, back: str
) -> None:
    """One that thaws believes that it is the primary, and so do the Sentinel and Odoo beside it."""
    if leader.name not in APPS:  # there are the edge and the database
        leader.run(f"docker restart {REDIS}", timeout=60)
        wait_for("another primary", lambda: primary(lab) in APPS and in_sync(lab), seconds=60, interval=1)
    victim = lab.hosts[primary(lab)]
    others = [name for name in CACHES if name != victim.name]
    machine = victim.variables["lab_container"]
    clerks.requests.clear()
    with clerks.working():
        wait_for("requests", lambda: len(clerks.requests) > 10, seconds=30)
        docker(away, machine)
        gone = time.monotonic()
        try:
            wait_for("another primary", lambda: primary(lab, *others) not in ("", victim.name), seconds=40, interval=0.2)
            stall = time.monotonic() - gone
            moved = time.monotonic()
            wait_for("requests afterwards", lambda: sum(request.began > moved for request in clerks.requests) > 40, seconds=60)
        finally:
            docker(back, machine)
            returned = time.monotonic()
        wait_for("the old one as a replica", lambda: primary(lab) != victim.name and in_sync(lab), seconds=180, interval=1)
        before = len(clerks.requests)
        wait_for("requests afterwards", lambda: len(clerks.requests) > before + 20, seconds=30)
    late = [request for request in clerks.failed if request.began > gone + AGAIN_S]
    say(
        f"{away} of the primary's host: failed requests, wanted at most {CLERKS}, one of each at work, got {len(clerks.failed)} of {len(clerks.requests)}; of "
        f"those sent {AGAIN_S} s later, wanted 0, got {len(late)}; another primary after {stall:.1f} s, away for {returned - gone:.1f} s"
    )
    assert late == [], account(clerks)
    assert len(clerks.failed) <= CLERKS, account(clerks)


@pytest.mark.nightly
def test_without_most_sentinels_work_goes_on_and_status_says_so(
    play: Player, lab: Lab, leader: Host, clerks: Clerks, say: Callable[[str], None]
) -> None:
    away = [name for name in CACHES if name != leader.name]
    clerks.requests.clear()
    for name in away:
        lab.hosts[name].run(f"docker stop {SENTINEL}", timeout=60)
    try:
        with clerks.working():
            run = play("playbooks/status.yml")
    finally:
        for name in away:
            lab.hosts[name].run(f"docker start {SENTINEL}")
    say(f"two of three Sentinels away: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}")
    assert clerks.failed == [], account(clerks)
    run.expect_refusal(
        *(f"{name}: redis/sentinel is exited" for name in away), "does not answer", "the rest is no majority, so nobody takes over"
    )
    wait_for("Sentinels that agree", lambda: primary(lab) == leader.name, seconds=30)


@pytest.mark.nightly
def test_from_three_to_one_and_back(
    play: Player, lab: Lab, leader: Host, clerks: Clerks, tmp_path: Path, say: Callable[[str], None]
) -> None:
    """What docs/sessions.md says to type, while people work. What is left on the hosts that go must not count when they come back.

    The plan divides the hosts' memory anew, so the edge and Odoo are made anew as well.
    """
    at, others = leader.name, [name for name in CACHES if name != leader.name]
    shutil.copytree(REPOSITORY / "inventories/two_apps", tmp_path / "alone")
    hosts = yaml.safe_load((tmp_path / "alone/hosts.yml").read_text(encoding="utf-8"))
    hosts["all"]["children"]["cache"]["hosts"] = {at: None}
    (tmp_path / "alone/hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    inventories = (tmp_path / "alone", *lab.inventories[1:])
    known = [part for source in lab.inventories for part in ("-i", str(source))]
    clerks.requests.clear()
    with clerks.working():
        play("playbooks/site.yml", inventories=inventories).expect_success()
        leave = [*ansible("ansible"), ",".join(others), *known, "--vault-password-file", str(lab.vault_password_file), "--become"]
        leave += ["--module-name=berth.odoo.compose_project", "--args=name=redis state=absent"]
        subprocess.run(leave, check=True, capture_output=True, cwd=REPOSITORY, env=environment(), timeout=120)
        assert play("playbooks/site.yml", inventories=inventories).expect_success().changed == []
        play("playbooks/site.yml").expect_refusal("the word of a Sentinel that was removed", "rm -r /var/lib/berth/redis")
        for name in others:
            lab.hosts[name].run("rm -r /var/lib/berth/redis /var/lib/berth/redis-sentinel")
        play("playbooks/site.yml").expect_success()
        wait_for("replicas in sync", lambda: primary(lab) == at and in_sync(lab), seconds=60, interval=1)
        before = len(clerks.requests)
        wait_for("requests afterwards", lambda: len(clerks.requests) > before + 20, seconds=30)
    meanwhile = [one for one in clerks.failed if "answered 502" in one.problem or "Connection refused" in one.problem]
    say(f"from three to one and back: not answered while containers were made anew {len(meanwhile)} of {len(clerks.requests)} requests")
    assert meanwhile == clerks.failed, account(clerks)
