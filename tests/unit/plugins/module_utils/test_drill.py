# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured beside what was promised: a broken promise must be named, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _drill, _validate

ROLES = Path(__file__).resolve().parents[4] / "roles"
PROMISES = {"switchover_stall_s": 3, "failover_stall_s": 30, "lost_writes": 0, "failed_requests": 0, "logouts": 0}


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "start": 1795546800.0,
        "end": 1795546860.0,
        "stall_s": 2.5,
        "usual_stall_s": 0.1,
        "stalls": {"pool": {"seconds": 2.5, "at": 1795546805.0}},
        "writes": 1000,
        "write_errors": {"pool": 1},
        "lost_writes": 0,
        "requests": 200,
        "failed_requests": 0,
        "logouts": 0,
        "slowest_request_s": 2.4,
        "complaints": [],
        "reigns": [["db1", 0.0, 0.1, 5.0, 5.1], ["db2", 7.0, 7.1, 60.0, 60.1]],
        "two_primaries": 0,
        "left_behind": [],
        "versions": {"postgresql": "17.12"},
        "timers": {"ttl": 20},
        **changes,
    }


def island(**changes: Any) -> dict[str, Any]:
    """A writer beside the old primary."""
    reigns = [["db1", 0.0, 0.1, 5.05, 5.15]]
    return {**summary(write_errors={"island": 40}, writes=100, reigns=reigns), **changes}


def judge(*summaries: dict[str, Any], fault: str = "switchover", promises: dict[str, Any] | None = None) -> dict[str, Any]:
    given_promises = PROMISES if promises is None else promises
    return _drill.record(
        summaries,
        fault=fault,
        cluster="berth",
        victim="db1",
        objectives=given_promises,
        machines={"db1": {"cpus": 4, "memory_mb": 16384, "disks": []}},
    )


def test_what_was_kept() -> None:
    found = judge(summary())
    assert found["broken"] == []
    assert found["name"] == "failover-20261124T190000Z-switchover.json"
    record = found["record"]
    assert record["kept"] is True
    assert (record["date"], record["primary_before"], record["primary_after"]) == ("2026-11-24T19:00:00Z", "db1", "db2")
    assert record["machines"] == {"db1": {"cpus": 4, "memory_mb": 16384}}
    assert (record["versions"], record["timers"]) == ({"postgresql": "17.12"}, {"ttl": 20})
    assert found["table"][0] == "switchover of berth, led by db1 before and db2 after, 2026-11-24 19:00 UTC"
    assert found["table"][2].split("  ")[0] == "longest time without an acknowledged write"
    assert found["table"][2].endswith("at most 3 s  2.5 s     kept")


@pytest.mark.parametrize(
    ("measure", "value", "words"),
    [
        ("stall_s", 3.1, "longest time without an acknowledged write: 3.1, promised at most 3 s"),
        ("lost_writes", 1, "acknowledged writes lost: 1, promised at most 0"),
        ("failed_requests", 2, "failed requests: 2, promised at most 0"),
        ("logouts", 4, "logouts: 4, promised at most 0"),
        ("left_behind", ["1 writer(s) still waiting"], "left behind: 1 writer(s) still waiting"),
    ],
)
def test_what_was_broken(measure: str, value: Any, words: str) -> None:
    found = judge(summary(**{measure: value}))
    assert found["broken"] == [words]
    assert found["record"]["kept"] is False


def test_a_lost_machine_has_more_time_than_a_switchover() -> None:
    assert judge(summary(stall_s=29), fault="power_off")["broken"] == []
    assert judge(summary(stall_s=29), fault="switchover")["broken"] != []


def test_without_a_promise_it_is_measured_and_not_judged() -> None:
    found = judge(summary(stall_s=500, lost_writes=9), promises={})
    assert found["broken"] == []
    assert found["table"][2].split() == "longest time without an acknowledged write nothing 500 s".split()


def test_two_primaries_are_wrong_without_any_promise() -> None:
    both = [["db1", 0.0, 0.1, 9.0, 9.1], ["db2", 7.0, 7.1, 60.0, 60.1]]
    assert judge(summary(reigns=both), promises={})["broken"] == ["overlaps of two primaries: 1, promised at most 0"]


def test_the_writer_beside_the_primary_counts() -> None:
    """Nobody else sees what a member that is cut off says and acknowledges."""
    assert judge(summary(), island())["broken"] == []
    assert judge(summary(), island(lost_writes=7))["broken"] == ["acknowledged writes lost: 7, promised at most 0"]
    late = island(reigns=[["db1", 0.0, 0.1, 12.0, 12.1]])
    assert judge(summary(), late)["record"]["measured"]["two_primaries"] == 1
    measured = judge(summary(), island())["record"]["measured"]
    assert (measured["writes"], measured["write_errors"]) == (1100, {"pool": 1, "island": 40})


@given(st.floats(0, 100, allow_nan=False), st.floats(0, 100, allow_nan=False), st.integers(0, 5), st.integers(0, 5))
def test_a_promise_is_broken_exactly_when_more_was_measured(stall: float, promise: float, lost: int, allowed: int) -> None:
    found = judge(summary(stall_s=stall, lost_writes=lost), promises={"switchover_stall_s": promise, "lost_writes": allowed})
    assert len(found["broken"]) == (stall > promise) + (lost > allowed)
    assert found["record"]["kept"] == (found["broken"] == [])


RESTORE = {"restore_minutes", "rpo_minutes"}
"""Measured by the drill of the role restore."""


def mistakes(objectives: Any) -> list[tuple[str, str]]:
    return [(problem.subject, problem.expected) for problem in _validate.check_objectives("app1", objectives)]


def test_a_mistyped_objective_is_found() -> None:
    assert mistakes({**PROMISES, "logout": 0}) == [("objectives.logout", "logouts?")]
    assert mistakes({"failover_stall_s": "soon"}) == [("objectives.failover_stall_s", "a number")]
    assert mistakes({"lost_writes": 0.5}) == [("objectives.lost_writes", "a whole number")]
    assert mistakes({"lost_writes": -1}) == [("objectives.lost_writes", "0 or more")]
    assert mistakes(PROMISES) == mistakes({"logouts": None}) == mistakes(None) == []


def test_every_promise_of_a_drill_can_be_made_and_every_fault_has_one() -> None:
    assert set(_validate.OBJECTIVES) == {*_drill.FAULTS.values(), *_drill.COUNTS, *RESTORE}
    drill = yaml.safe_load((ROLES / "drill/meta/argument_specs.yml").read_text(encoding="utf-8"))
    assert set(drill["argument_specs"]["main"]["options"]["drill_fault"]["choices"]) == set(_drill.FAULTS)
    example = yaml.safe_load((ROLES.parent / "inventories/ha/group_vars/all/main.yml").read_text(encoding="utf-8"))["objectives"]
    assert mistakes(example) == []
    assert set(example) >= set(_validate.OBJECTIVES) - RESTORE
