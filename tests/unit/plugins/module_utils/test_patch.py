# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits on a host, whether it is rebooted, and in which order hosts go away; the words of apt are those of Debian 13."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _patch as patch

UPGRADE = """\
Inst libc6 [2.41-12] (2.41-12+deb13u1 Debian-Security:13/stable-security [amd64])
Conf libc6 (2.41-12+deb13u1 Debian-Security:13/stable-security [amd64])
Inst tzdata [2025b-4] (2025b-4+deb13u1 Debian:13.2/stable, Debian:13-updates/stable-updates [all]) []
Inst linux-image-6.12.57+deb13-amd64 (6.12.57-1 Debian-Security:13/stable-security [amd64])
Inst linux-image-amd64 [6.12.48-1] (6.12.57-1 Debian-Security:13/stable-security [amd64])
Inst docker.io [26.1.5+dfsg1-9] (26.1.5+dfsg1-9+b9 Debian:13.2/stable [amd64])
"""
HELD = UPGRADE + "Inst nginx [1.26.3-3] (1.26.3-3+deb13u1 Debian-Security:13/stable-security [amd64])\n"
TIERS = {"database": ["db1", "db2", "db3"], "app": ["app1", "app2"], "edge": ["front"], "cache": ["front"], "witness": ["w"]}
NOTHING: dict[str, Any] = {
    "packages": [],
    "held": [],
    "kept_back": [],
    "engine": [],
    "engine_replaced": False,
    "live_restore": True,
    "kernel_comes": False,
    "reboot": [],
    "obstacles": [],
    "begun": None,
}
ONE = [{"name": "openssl", "before": "1", "after": "2", "security": True}]


def test_what_apt_says() -> None:
    found = patch.simulated(UPGRADE)
    assert [(one["name"], one["before"], one["security"]) for one in found] == [
        ("libc6", "2.41-12", True),
        ("tzdata", "2025b-4", False),
        ("linux-image-6.12.57+deb13-amd64", "", True),
        ("linux-image-amd64", "6.12.48-1", True),
        ("docker.io", "26.1.5+dfsg1-9", False),
    ]
    assert found[0]["after"] == "2.41-12+deb13u1"
    assert [one["name"] for one in patch.chosen(found, "security")] == ["libc6", "linux-image-amd64"]
    assert [one["name"] for one in patch.chosen(found, "all")] == ["libc6", "tzdata", "linux-image-amd64", "docker.io"]
    assert patch.brings_kernel(found)
    assert patch.brings_engine(found) == ["docker.io"]


@pytest.mark.parametrize(("holds", "held", "kept_back"), [(["nginx"], ["nginx"], []), ([], [], ["nginx"])])
def test_what_stays_is_on_hold_or_kept_back(holds: list[str], held: list[str], kept_back: list[str]) -> None:
    found = patch.left(patch.simulated(UPGRADE), patch.simulated(HELD), holds, "security")
    assert tuple([one["name"] for one in part] for part in found) == (held, kept_back)


@pytest.mark.parametrize(
    ("running", "installed", "newer"),
    [
        ("6.12.48+deb13-amd64", ["6.12.48+deb13-amd64", "6.12.57+deb13-amd64"], "6.12.57+deb13-amd64"),
        ("6.12.57+deb13-amd64", ["6.12.48+deb13-amd64", "6.12.57+deb13-amd64"], ""),
        ("6.12.9+deb13-amd64", ["6.12.10+deb13-amd64"], "6.12.10+deb13-amd64"),
        ("6.1.0-39-amd64", ["6.1.0-40-amd64", "6.1.0-41-cloud-amd64"], "6.1.0-40-amd64"),
        ("6.12.48+deb13-cloud-amd64", ["6.12.57+deb13-amd64"], ""),
        ("5.10.0", ["6.12.57+deb13-amd64"], ""),  # somebody else's kernel, as in a container
        ("6.12.48+deb13-amd64", [], ""),
    ],
)
def test_a_newer_kernel_of_the_same_flavour(running: str, installed: list[str], newer: str) -> None:
    assert patch.newer_kernel(running, installed) == newer


def test_why_a_host_is_rebooted() -> None:
    text = (
        "NEEDRESTART-VER: 3.8\nNEEDRESTART-KCUR: 6.1\nNEEDRESTART-KEXP: 6.2\nNEEDRESTART-KSTA: 3\n"
        "NEEDRESTART-SVC: cron.service\nNEEDRESTART-SVC: ssh.service\n"
    )
    assert patch.needrestart(text) == (True, ["cron.service", "ssh.service"])
    assert patch.needrestart("NEEDRESTART-KSTA: 1\n") == (False, [])
    assert patch.needrestart("NEEDRESTART-KSTA: 0\n") == (False, []), "it does not know, as in a container"
    assert patch.reboot_reasons(None, "", False, []) == []
    [asked] = patch.reboot_reasons("libc6\nlibc6\ndbus\n", "", False, [])
    assert asked == "/run/reboot-required is there, of dbus, libc6"
    assert patch.reboot_reasons("", "6.2", True, list("abcdefg")) == [
        "/run/reboot-required is there",
        "the kernel 6.2 is installed and does not run",
        "a, b, c, d, e and 2 more run with libraries that were replaced",
    ]


def test_what_stands_in_the_way() -> None:
    fine = {"/": 600, "/var": 600, "/boot": 200}
    assert patch.obstacles("", fine, kernel_comes=True) == []
    assert patch.obstacles("", {**fine, "/boot": 20}, kernel_comes=False) == []
    [boot] = patch.obstacles("", {**fine, "/boot": 20}, kernel_comes=True)
    assert boot.startswith("/boot has 20 MB free") and "autoremove" in boot
    [disk] = patch.obstacles("", {**fine, "/var": 20}, kernel_comes=False)
    assert disk.startswith("/var has 20 MB free")
    [broken] = patch.obstacles("The following packages are only half configured:\n openssl\n", fine, kernel_comes=False)
    assert "openssl" in broken and "dpkg --configure --pending" in broken


@given(st.permutations(["db1", "db2", "db3", "app1", "app2", "front", "w"]), st.sampled_from(["db1", "db2", "db3"]))
def test_who_leads_goes_after_who_follows_and_before_what_stands_on_it(names: list[str], leads: str) -> None:
    order = patch.in_turn(names, TIERS, [leads])
    assert sorted(order) == sorted(names)
    assert order[0] == "w"
    assert order[3] == leads
    assert set(order[4:6]) == {"app1", "app2"}
    assert order[6] == "front"


def test_only_hosts_with_something_to_do_are_touched() -> None:
    found = {
        "db1": {**NOTHING, "packages": ONE},
        "db2": NOTHING,
        "db3": {**NOTHING, "reboot": ["x"]},
        "app1": {**NOTHING, "begun": {"date": "", "drained": True, "reboot": False}},
    }
    assert patch.plan(found, TIERS, ["db1"])["order"] == ["db3", "db1", "app1"]
    assert patch.plan(found, TIERS, ["db1"], reboot="never")["order"] == ["db1", "app1"]
    everybody = patch.plan(found, TIERS, ["db1"], reboot="always")
    assert everybody["order"] == ["db2", "db3", "db1", "app1"]
    assert all(host["reboot"] for host in everybody["hosts"].values())


@pytest.mark.parametrize(("name", "live_restore", "work"), [("db1", False, True), ("front", True, True), ("front", False, False)])
def test_an_engine_that_was_replaced_is_started_where_containers_do_not_notice(name: str, live_restore: bool, work: bool) -> None:
    found = {name: {**NOTHING, "engine_replaced": True, "live_restore": live_restore}}
    assert patch.plan(found, TIERS)["order"] == ([name] if work else [])


def test_an_interrupted_run_keeps_what_was_asked_for() -> None:
    found = {"db2": {**NOTHING, "begun": {"date": "", "drained": False, "reboot": True}}}
    planned = patch.plan(found, TIERS)
    assert (planned["order"], planned["hosts"]["db2"]["reboot"]) == (["db2"], True)


@pytest.mark.parametrize(
    ("name", "tiers", "drained", "alone"),
    [
        ("db1", TIERS, [], ""),
        ("db1", {"database": ["db1"]}, [], "it is the only database host"),
        ("app1", TIERS, [], ""),
        ("app1", TIERS, ["app2"], "it is the only application host that gets requests"),
        ("app1", TIERS, ["app1"], ""),
        ("front", TIERS, [], "people come in through it (group edge) and it holds the logins (group cache)"),
        ("front", {**TIERS, "cache": ["front", "app1", "app2"]}, [], "people come in through it (group edge)"),
        ("w", TIERS, [], ""),
    ],
)
def test_whose_work_nobody_does_meanwhile(name: str, tiers: dict[str, list[str]], drained: list[str], alone: str) -> None:
    found = {name: {**NOTHING, "packages": ONE, "reboot": ["x"]}}
    planned = patch.plan(found, tiers, [], drained)
    assert planned["hosts"][name]["alone"] == alone
    assert any("it is not rebooted" in line for line in planned["lines"]) == bool(alone)
    assert patch.plan(found, tiers, [], drained, outage=True)["hosts"][name]["alone"] == ""


def test_an_instance_that_nobody_else_runs_stays() -> None:
    tiers = {"app": ["a1", "a2", "a3"]}
    instances = {"a1": ["acme", "globex"], "a2": ["acme"], "a3": ["globex", "initech"]}
    found = {name: {**NOTHING, "reboot": ["x"]} for name in tiers["app"]}
    hosts = patch.plan(found, tiers, instances=instances)["hosts"]
    assert {name: host["alone"] for name, host in hosts.items()} == {"a1": "", "a2": "", "a3": "nobody else runs initech"}
    hosts = patch.plan(found, tiers, drained=["a3"], instances=instances)["hosts"]
    assert {name: host["alone"] for name, host in hosts.items()} == {"a1": "nobody else runs globex", "a2": "", "a3": ""}
    # Whoever takes that upon himself still cannot have its requests sent elsewhere.
    host = patch.plan(found, tiers, outage=True, instances=instances)["hosts"]["a3"]
    assert (host["alone"], host["only"]) == ("", ["initech"])


@pytest.mark.parametrize(
    ("floating", "alone"),
    [
        ([], "people come in through it (group edge)"),
        (["e1"], "people come in through it (group edge)"),
        (["e2"], ""),  # drained by a person, or by a run that was interrupted
        (["e1", "e2"], ""),
    ],
)
def test_an_edge_is_alone_where_no_other_one_may_have_its_address(floating: list[str], alone: str) -> None:
    tiers = {"database": ["db1", "db2", "db3"], "app": ["app1", "app2"], "edge": ["e1", "e2"]}
    planned = patch.plan({"e1": {**NOTHING, "reboot": ["x"]}}, tiers, floating=floating)
    assert planned["hosts"]["e1"]["alone"] == alone


@pytest.mark.parametrize(
    ("live_restore", "name", "refused"), [(True, "front", 0), (False, "front", 1), (None, "front", 1), (False, "db1", 0)]
)
def test_an_engine_that_takes_its_containers_along(live_restore: bool | None, name: str, refused: int) -> None:
    found = {name: {**NOTHING, "packages": ONE, "engine": ["docker.io"], "live_restore": live_restore}}
    assert len(patch.plan(found, TIERS)["refused"]) == refused
    assert patch.plan(found, TIERS, outage=True)["refused"] == []


def test_what_a_person_reads() -> None:
    found = {
        "db1": {
            **NOTHING,
            "packages": ONE,
            "held": [{"name": "nginx", "before": "1", "after": "2", "security": True}],
            "kernel_comes": True,
        }
    }
    assert patch.plan(found, TIERS)["lines"] == [
        "db1: 1 package: openssl 1 → 2",
        "db1: a reboot, because a kernel comes",
        "db1: nginx stays at 1, on hold",
    ]
