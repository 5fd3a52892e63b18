# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions about daemon.json, and systemd's answers, on recorded outputs of Debian 13."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _docker_engine, _systemd

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0108D50A\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t0000C90A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
br-8bd929c353e2\t0001C90A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0008D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             96365                96365                processes
Max open files            20000                20000                files
"""
CONFIG: dict[str, Any] = {
    "live-restore": True,
    "log-driver": "journald",
    "no-new-privileges": True,
    "default-address-pools": [{"base": "10.201.0.0/16", "size": 24}],
}
INFO: dict[str, Any] = {
    "LiveRestoreEnabled": True,
    "LoggingDriver": "journald",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=no-new-privileges"],
    "DefaultAddressPools": [{"Base": "10.201.0.0/16", "Size": 24}],
    "RegistryConfig": {"Mirrors": []},
}


@pytest.mark.parametrize(
    ("before", "after", "effort"),
    [
        ({}, {}, "nothing"),
        ({"a": 1}, {"a": 1}, "nothing"),
        ({}, {"live-restore": True}, "reload"),
        ({"registry-mirrors": ["a"]}, {}, "reload"),
        ({"live-restore": True}, {"live-restore": True, "icc": False}, "restart"),
        ({"log-driver": "local"}, {"live-restore": True}, "restart"),
    ],
)
def test_the_least_effort_that_is_enough(before: dict[str, Any], after: dict[str, Any], effort: str) -> None:
    assert _docker_engine.effort(before, after) == effort


def test_options_without_a_value_are_left_out() -> None:
    assert _docker_engine.without_nothing({"a": None, "b": [], "c": {}, "d": False, "e": 0, "f": ""}) == {"d": False, "e": 0, "f": ""}


def test_moving_the_data_hides_it() -> None:
    assert _docker_engine.hidden({"data-root": "/srv"}, {}) == ["data-root"]
    assert _docker_engine.hidden({}, {"data-root": "/srv", "userns-remap": "default"}) == ["data-root", "userns-remap"]
    assert _docker_engine.hidden({"data-root": "/srv"}, {"data-root": "/srv", "icc": False}) == []


def test_pools_must_not_be_the_hosts_own_networks() -> None:
    networks = _docker_engine.host_networks(ROUTES)
    assert networks == [("eth0", ipaddress.IPv4Network("10.213.8.0/24"))]
    assert _docker_engine.overlaps([{"base": "10.201.0.0/16", "size": 24}, {"base": "fd00::/48", "size": 64}], networks) == []
    assert _docker_engine.overlaps([{"base": "10.213.0.0/16", "size": 24}], networks) == [
        "10.213.0.0/16 overlaps 10.213.8.0/24, which eth0 reaches"
    ]


@pytest.mark.parametrize(
    "pool", [{"base": "10.1.2.3/16", "size": 24}, {"base": "x", "size": 24}, {"base": "10.0.0.0/16", "size": 8}, {"base": "10.0.0.0/16"}]
)
def test_what_is_no_pool_is_refused(pool: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        _docker_engine.overlaps([pool], [])


def test_a_limit_that_stops_every_container_is_named() -> None:
    ulimits = {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 65536}}
    without = "Name:\tsystemd\nCapBnd:\t0000003ffeffffff\n"
    assert _docker_engine.ulimit_problems(ulimits, LIMITS, without) == ["nofile is 65536, and this host cannot go above 20000"]
    assert _docker_engine.ulimit_problems(ulimits, LIMITS, "CapBnd:\t000001ffffffffff\n") == []
    assert _docker_engine.ulimit_problems({"nofile": {"Hard": 20000}}, LIMITS, without) == []
    assert _docker_engine.ulimit_problems({"core": {"Hard": 1}}, LIMITS, without) == []


def test_the_running_daemon_is_compared_with_its_file() -> None:
    assert _docker_engine.mismatches(CONFIG, INFO) == []
    assert _docker_engine.mismatches({}, {**INFO, "DefaultAddressPools": None}) == ["live-restore", "log-driver", "no-new-privileges"]
    changed = {**CONFIG, "default-address-pools": [], "registry-mirrors": ["https://m.example"]}
    assert _docker_engine.mismatches(changed, INFO) == ["default-address-pools", "registry-mirrors"]
    mirrored = {**INFO, "RegistryConfig": {"Mirrors": ["https://m.example/"]}}
    assert _docker_engine.mismatches({**CONFIG, "registry-mirrors": ["https://m.example"]}, mirrored) == []


# -- systemd

SHOW = """\
MainPID=2682
Id=docker.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
ActiveEnterTimestamp=@1795298926
ConditionResult=yes
ConditionTimestamp=@1795298925

MainPID=0
Id=systemd-timesyncd.service
LoadState=loaded
ActiveState=inactive
UnitFileState=enabled
ActiveEnterTimestamp=
ConditionResult=no
ConditionTimestamp=@1795298000

MainPID=0
Id=nope.service
LoadState=not-found
ActiveState=inactive
UnitFileState=
ActiveEnterTimestamp=
ConditionResult=no
ConditionTimestamp=

Type=oneshot
RemainAfterExit=no
Id=audit-rules.service
LoadState=loaded
ActiveState=inactive
UnitFileState=enabled
ActiveEnterTimestamp=
InactiveEnterTimestamp=@1795298007
ConditionResult=yes
ConditionTimestamp=@1795298006
"""


def test_units_are_read_in_one_call() -> None:
    units = _systemd.show(lambda argv: (0, SHOW, ""), ["docker.service"])
    assert units["docker.service"] == _systemd.Unit("loaded", "active", "enabled", True, 2682, 1795298926.0)
    assert not units["systemd-timesyncd.service"].condition
    assert units["nope.service"].condition
    assert units["nope.service"].load == "not-found"
    # What ends is not active when it has done its work.
    assert units["audit-rules.service"] == _systemd.Unit("loaded", "inactive", "enabled", True, 0, 1795298007.0, ends=True)


def test_a_failing_unit_is_told_in_its_own_words() -> None:
    log = 'time="x" level=info msg="Starting up"\ntime="x" level=info msg="[graphdriver] trying"\nfailed to start daemon: driver not supported: nosuch\n'

    def run(argv: list[str]) -> tuple[int, str, str]:
        return (1, "", "Job failed.") if argv[0] == "systemctl" else (0, log, "")

    with pytest.raises(_systemd.SystemdError) as caught:
        _systemd.command(run, "restart", "docker.service")
    assert str(caught.value) == "systemctl restart docker.service: Job failed.\nfailed to start daemon: driver not supported: nosuch"
