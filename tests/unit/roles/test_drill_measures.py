# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a drill's probe saw to figures: a loss, a stall or a second primary must never be missed, nor invented."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

FILE = Path(__file__).resolve().parents[3] / "roles/drill/files/measures.py"
spec = importlib.util.spec_from_file_location("measures", FILE)
assert spec and spec.loader
measures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measures)

TIMES = st.lists(st.floats(0, 1000, allow_nan=False), max_size=40)


# --- stalls ---


def test_the_longest_gap_counts_from_the_start_and_to_the_end() -> None:
    assert measures.longest_gap([], 10, 25) == (15, 10)
    assert measures.longest_gap([11, 12, 13], 10, 25) == (12, 13)
    assert measures.longest_gap([18, 24], 10, 25) == (8, 10)


def test_what_lies_outside_of_the_window_is_ignored() -> None:
    assert measures.longest_gap([1, 2, 12, 40], 10, 20) == (8, 12)


@given(TIMES)
def test_a_gap_is_never_shorter_than_any_two_neighbours_and_never_longer_than_the_window(times: list[float]) -> None:
    gap = measures.longest_gap(times, 0, 1000)
    ordered = [0.0, *sorted(times), 1000.0]
    assert gap.seconds == max(later - earlier for earlier, later in itertools.pairwise(ordered))
    end = min((time for time in ordered if time > gap.at), default=1000.0)
    assert end - gap.at == gap.seconds


@given(TIMES, st.floats(0, 1000, allow_nan=False))
def test_one_more_write_never_makes_a_stall_longer(times: list[float], one: float) -> None:
    assert measures.longest_gap([*times, one], 0, 1000).seconds <= measures.longest_gap(times, 0, 1000).seconds


# --- users ---


@pytest.mark.parametrize(
    ("status", "location", "verdict"),
    [
        (200, "", "ok"),
        (303, "/web/login?redirect=%2Fodoo", "logout"),
        (302, "http://odoo/web/login", "logout"),
        (303, "/odoo/contacts", "failed"),
        (500, "", "failed"),
        (502, "", "failed"),
    ],
)
def test_pages(status: int, location: str, verdict: str) -> None:
    assert measures.judge_page(status, location)[0] == verdict


@pytest.mark.parametrize(
    ("status", "answer", "verdict", "words"),
    [
        (200, {"result": [{"id": 3}]}, "ok", ""),
        (200, {"result": False}, "ok", ""),
        (200, {"error": {"code": 100, "message": "Odoo Session Expired"}}, "logout", "Odoo Session Expired"),
        (200, {"error": {"code": 0, "message": "Odoo Server Error", "data": {"message": "server closed"}}}, "failed", "200: server closed"),
        (200, {"error": "broken"}, "failed", "200: broken"),
        (500, {"result": 1}, "failed", "500: None"),
        (200, {}, "failed", "200: None"),
        (200, [], "failed", "200, no JSON: '[]'"),
    ],
)
def test_calls(status: int, answer: Any, verdict: str, words: str) -> None:
    assert measures.judge_call(status, json.dumps(answer)) == (verdict, words)


def test_a_page_of_a_proxy_is_no_answer() -> None:
    assert measures.judge_call(502, "<html>Bad Gateway") == ("failed", "502, no JSON: '<html>Bad Gateway'")


# --- two primaries ---


def polls(text: str, offset: float = 0.0) -> list[Any]:
    """An answer each tenth of a second: P yes, r no, - none."""
    status = {"P": 200, "r": 503, "-": 0}
    return [measures.Poll(offset + number / 10, offset + number / 10 + 0.01, status[letter]) for number, letter in enumerate(text)]


def pairs(**answers: list[Any]) -> int:
    return len(measures.overlaps(measures.reigns(answers)))


def test_a_handover_is_no_overlap() -> None:
    assert pairs(db1=polls("PPPPPrrrr"), db2=polls("rrrrrrPPP")) == 0
    assert pairs(db1=polls("PPPPPrrrr"), db2=polls("rrrrrPPPP", 0.05)) == 0


def test_one_answer_between_two_others_is_an_overlap() -> None:
    assert pairs(db1=polls("PPPPPPrrr"), db2=polls("rrrrPrrrr", 0.05)) == 1


def test_two_that_both_stay_are_an_overlap() -> None:
    assert pairs(db1=polls("PPPPPPPPP"), db2=polls("rrrPPPPPP", 0.03)) == 1


def test_silence_proves_nothing() -> None:
    """What a member is while it does not answer, nobody knows."""
    assert pairs(db1=polls("PPP---PPP"), db2=polls("rrrrPrrrr", 0.0)) == 0


def test_an_answer_that_took_a_minute_proves_nothing_for_that_minute() -> None:
    frozen = [measures.Poll(0, 0.01, 200), measures.Poll(0.1, 60.0, 200), measures.Poll(60.1, 60.11, 503)]
    assert pairs(db1=frozen, db2=[measures.Poll(30, 30.01, 200), measures.Poll(30.1, 30.11, 200)]) == 0


def test_a_member_does_not_overlap_with_itself() -> None:
    assert pairs(db1=polls("PPrPPrPP")) == 0


@given(st.text("Pr-", min_size=1, max_size=30), st.text("Pr-", min_size=1, max_size=30), st.floats(0, 3, allow_nan=False))
def test_an_overlap_does_not_depend_on_the_order_of_members(one: str, other: str, offset: float) -> None:
    assert pairs(a=polls(one), b=polls(other, offset)) == pairs(b=polls(other, offset), a=polls(one))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 20))
def test_two_reigns_with_a_pause_between_them_never_overlap(first: int, second: int, pause: int) -> None:
    assert pairs(a=polls("P" * first + "r" * (pause + second + 1)), b=polls("r" * (first + pause) + "P" * second, 0.02)) == 0


@given(st.integers(3, 20), st.integers(2, 20))
def test_two_reigns_that_share_two_tenths_always_overlap(first: int, second: int) -> None:
    assert pairs(a=polls("P" * first + "r" * second), b=polls("r" * (first - 2) + "P" * second, 0.02)) == 1


# --- a cluster that is fit ---


def cluster(**changes: Any) -> dict[str, Any]:
    members = {
        "db1": {"role": "leader", "state": "running", "timeline": 3},
        "db2": {"role": "quorum_standby", "state": "streaming", "timeline": 3, "lag": 0},
        "db3": {"role": "replica", "state": "streaming", "timeline": 3, "lag": 0},
    }
    for name, change in changes.items():
        members[name] = {**members[name], **change}
    return {"members": [{"name": name, **facts} for name, facts in members.items()]}


def problems(found: dict[str, Any] | None) -> list[str]:
    answer: list[str] = measures.cluster_problems(found, ["db1", "db2", "db3"])
    return answer


def test_a_fit_cluster_has_no_problem() -> None:
    assert problems(cluster()) == []
    assert problems(cluster(db2={"role": "sync_standby"})) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "no member of the cluster answers"),
        ({"members": cluster()["members"][:2]}, "db3 is not in the cluster"),
        (cluster(db3={"state": "starting"}), "db3 is starting and does not stream"),
        (cluster(db3={"timeline": 2}), "db3 is on timeline 2 and the leader on 3"),
        (cluster(db2={"role": "replica"}), "there is no synchronous standby, so a failover could lose writes"),
        (cluster(db1={"role": "replica", "state": "streaming"}), "nobody leads the cluster"),
        (cluster(db1={"state": "crashed"}), "db1 leads and is crashed"),
        ({**cluster(), "pause": True}, "the cluster is paused, so nobody would take over"),
    ],
)
def test_an_unfit_cluster(found: dict[str, Any] | None, words: str) -> None:
    assert problems(found) == [words]


def test_members_must_answer_now() -> None:
    yes, no, old, silent = (
        measures.Poll(99, 99.1, 200),
        measures.Poll(99, 99.1, 503),
        measures.Poll(90, 90.1, 503),
        measures.Poll(99, 100, 0),
    )
    assert measures.view_problems({"db1": yes, "db2": no}, 100) == []
    assert measures.view_problems({"db1": yes, "db2": old}, 100) == ["db2 does not answer"]
    assert measures.view_problems({"db1": yes, "db2": silent}, 100) == ["db2 does not answer"]
    assert measures.view_problems({"db1": yes, "db2": None}, 100) == ["db2 does not answer"]
    assert measures.view_problems({"db1": no, "db2": no}, 100) == ["nobody says to be the primary"]
    assert measures.view_problems({"db1": yes, "db2": yes}, 100) == ["db1 and db2 say to be the primary"]


# --- the summary ---


def summarise(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "writes": {"pool": [1.0, 2.0, 3.0, 4.0, 5.0], "session": [1.0, 5.0]},
        "errors": {"pool": 0, "session": 1},
        "lost": 0,
        "requests": [],
        "polls": {},
        "warm": 0.0,
        "start": 2.0,
        "end": 6.0,
    }
    answer: dict[str, Any] = measures.summarise(**{**given, **changes})
    return answer


def test_a_path_that_works_does_not_hide_one_that_stalls() -> None:
    found = summarise()
    assert found["stall_s"] == 3.0
    assert found["stalls"] == {"pool": {"seconds": 1.0, "at": 2.0}, "session": {"seconds": 3.0, "at": 2.0}}
    assert found["usual_stall_s"] == 1.0
    assert found["writes"] == 7


def test_requests_that_ended_before_the_measurement_do_not_count() -> None:
    requests = [
        measures.Request(0.5, 1.0, "failed", "login: too early"),
        measures.Request(1.5, 2.0, "ok"),
        measures.Request(3.0, 0.5, "failed", "read: 500"),
        measures.Request(4.0, 0.5, "logout", "load_page: 303 to /web/login"),
    ]
    found = summarise(requests=requests)
    assert (found["requests"], found["failed_requests"], found["logouts"], found["slowest_request_s"]) == (3, 1, 1, 2.0)
    assert found["complaints"] == ["failed: read: 500", "logout: load_page: 303 to /web/login"]


def test_losses_and_overlaps_are_told() -> None:
    found = summarise(lost=3, polls={"db1": polls("PPPP"), "db2": polls("PPPP", 0.05)})
    assert (found["lost_writes"], found["two_primaries"]) == (3, 1)
    assert json.loads(json.dumps(found)) == found
