# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands to a cluster: what is told to Patroni, what is waited for, and what is said when it does not come."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _patroni_cluster
from ansible_collections.berth.odoo.plugins.module_utils._patroni_api import PatroniError
from ansible_collections.berth.odoo.plugins.module_utils._patroni_cluster import Refused
from ansible_collections.berth.odoo.plugins.modules import postgresql_cluster

FIXTURES = Path(__file__).parents[1] / "module_utils/fixtures/patroni"
OPTIONS = {
    "project": "postgresql",
    "service": "postgresql",
    "candidate": None,
    "member": None,
    "force": False,
    "confirm": None,
    "staying": [],
    "allow_leader": False,
    "only_pending": False,
    "running_since": None,
    "timeout": 1,
}


def described(name: str) -> dict[str, Any]:
    answers = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    status = answers["patroni"]
    return _patroni_cluster.describe(status, answers["members"], answers["cluster"], answers["config"], status["dcs_last_seen"])


class Api:
    """A member that accepts writes as ``writable`` says, the last word again and again; None is no answer."""

    def __init__(self, writable: Iterable[bool | None], history: list[Any] | None = None) -> None:
        self.words = list(writable)
        self.history = history or []
        self.once_writable: Callable[[], None] = lambda: None

    def get(self, path: str, timeout: float | None = None) -> Any:
        if path == "/history":
            return self.history
        word = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if word is None:
            raise PatroniError("no answer")
        if word:
            self.once_writable()
        return {"role": "primary" if word else "replica", "state": "running"}


class Session(postgresql_cluster.Session):
    """A session with a cluster that goes through prepared states, the last one again and again."""

    def __init__(
        self, before: dict[str, Any], *later: dict[str, Any] | PatroniError, apis: dict[str, Api] | None = None, **options: Any
    ) -> None:
        self.options = {**OPTIONS, **options}
        self.timeout = self.options["timeout"]
        self.before = before
        self.later = list(later)
        self.apis = apis or {}
        self.own = Api([False], json.loads((FIXTURES / "after_switchover.json").read_text(encoding="utf-8"))["history"])  # type: ignore[assignment]
        self.commands: list[tuple[str, ...]] = []
        self.refusal: PatroniError | None = None
        self.busy = threading.Event()  # patronictl ends when it is set
        self.busy.set()

    def read(self) -> dict[str, Any]:
        state = self.later.pop(0) if len(self.later) > 1 else self.later[0]
        if isinstance(state, PatroniError):
            raise state
        return state

    def command(self, verb: str, *arguments: str) -> str:
        self.busy.wait(timeout=10)
        self.commands.append((verb, *arguments))
        if self.refusal:
            raise self.refusal
        return "patronictl's words\n"

    def api(self, member: str) -> Any:
        return self.apis[member]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_cluster, "INTERVAL", 0.01)
    monkeypatch.setattr(postgresql_cluster, "GAP_INTERVAL", 0.01)


def changed(cluster: dict[str, Any], name: str, **values: Any) -> dict[str, Any]:
    """A copy of a description with other values for one member."""
    other = copy.deepcopy(cluster)
    next(one for one in other["members"] if one["name"] == name).update(values)
    return other


def test_a_switchover_tells_measures_and_waits() -> None:
    after = described("after_switchover")
    unfinished = changed(after, "db1", state="starting")
    apis = {"db1": Api([True, True, None, False]), "db2": Api([False, False, False, False, True])}
    session = Session(described("three"), described("three"), PatroniError("in between"), unfinished, after, apis=apis, candidate="db2")
    session.busy.clear()
    apis["db2"].once_writable = session.busy.set
    result = postgresql_cluster.switchover(session, check_mode=False)
    assert session.commands == [("switchover", "--force", "--leader", "db1", "--candidate", "db2", "berth")]
    assert (result["changed"], result["from"], result["to"]) == (True, "db1", "db2")
    assert 0 < result["gap_seconds"] < 1
    assert result["cluster"] is after
    assert result["promotion"]["promoted_at"] == "2026-11-24T19:02:21.549624+00:00"


def test_of_a_quorum_whoever_is_quicker_takes_over() -> None:
    """Nobody is named, because Patroni lets all others sleep for two seconds then."""
    apis = {"db1": Api([True, False]), "db2": Api([False]), "db3": Api([False, False, True])}
    led = changed(described("after_switchover"), "db2", role="quorum_standby", state="streaming", writable=False, lag_bytes=0)
    led = changed(led, "db3", role="leader", state="running", writable=True)
    session = Session(described("three"), {**led, "leader": "db3"}, apis=apis)
    session.busy.clear()
    apis["db3"].once_writable = session.busy.set
    result = postgresql_cluster.switchover(session, check_mode=False)
    assert session.commands == [("switchover", "--force", "--leader", "db1", "berth")]
    assert (result["from"], result["to"]) == ("db1", "db3")


def test_check_mode_and_a_leader_that_leads_already_tell_nothing() -> None:
    session = Session(described("three"))
    assert postgresql_cluster.switchover(session, check_mode=True) == {"changed": True, "from": "db1", "to": "db2"}
    session.options["candidate"] = "db1"
    assert postgresql_cluster.switchover(session, check_mode=False) == {"changed": False, "from": "db1", "to": "db1"}
    assert session.commands == []


def test_a_refused_switchover_says_patronis_words() -> None:
    session = Session(described("three"), apis={"db1": Api([True]), "db2": Api([False]), "db3": Api([None])})
    session.refusal = PatroniError("Switchover failed, details: 412, no good candidates have been found")
    with pytest.raises(PatroniError, match="412, no good candidates"):
        postgresql_cluster.switchover(session, check_mode=False)


def test_a_switchover_that_patroni_gave_up_is_no_success() -> None:
    session = Session(described("three"), apis={"db1": Api([True]), "db2": Api([False]), "db3": Api([False])})
    with pytest.raises(PatroniError, match=r"db1 still leads\. patronictl said: patronictl's words"):
        postgresql_cluster.switchover(session, check_mode=False)


def test_a_new_leader_that_never_accepts_writes_is_named() -> None:
    session = Session(described("three"), apis={"db1": Api([None]), "db2": Api([None]), "db3": Api([None])})
    with pytest.raises(PatroniError, match=r"db2 or db3 does not accept writes 1 s \(timeout\) after the command"):
        postgresql_cluster.switchover(session, check_mode=False)


def test_another_leader_than_the_wanted_one_is_said() -> None:
    session = Session(described("three"), described("after_switchover"), apis={"db1": Api([False]), "db3": Api([True])}, candidate="db3")
    with pytest.raises(PatroniError, match=r"after 1 s \(timeout\) db2 leads instead of db3\. .* patronictl list"):
        postgresql_cluster.switchover(session, check_mode=False)


def test_a_failover_needs_force_and_then_tells_the_candidate() -> None:
    session = Session(described("no_leader"), changed(described("three"), "db1", timeline=3), candidate="db3")
    with pytest.raises(Refused, match="force"):
        postgresql_cluster.failover(session, check_mode=False)
    session.options["force"] = True
    assert postgresql_cluster.failover(session, check_mode=True) == {"changed": True, "from": None, "to": "db3"}
    assert session.commands == []
    with pytest.raises(PatroniError, match="db1 leads instead of db3"):
        postgresql_cluster.failover(session, check_mode=False)
    assert session.commands == [("failover", "--force", "--candidate", "db3", "berth")]


def test_a_restart_waits_for_another_process() -> None:
    before = described("three")
    started = changed(before, "db3", started_at="2026-11-24 20:00:00+00:00")
    stopped = changed(before, "db3", started_at=None, state="stopped")
    session = Session(before, before, stopped, changed(started, "db3", state="running"), started, member="db3")
    result = postgresql_cluster.restarted(session, check_mode=False)
    assert session.commands == [("restart", "--force", "berth", "db3")]
    assert (result["changed"], result["member"], result["cluster"]) == (True, "db3", started)


def test_a_restart_that_does_not_come_back_is_no_success() -> None:
    before = described("three")
    session = Session(before, changed(before, "db3", started_at=None, state="start failed"), member="db3")
    with pytest.raises(PatroniError, match="the PostgreSQL of db3 has not started again: it is start failed"):
        postgresql_cluster.restarted(session, check_mode=False)


def test_a_restart_is_of_this_hosts_member_and_only_when_needed() -> None:
    session = Session(described("three"), only_pending=True)
    assert postgresql_cluster.restarted(session, check_mode=False) == {"changed": False, "needed": False, "member": "db2"}
    session = Session(described("three"))
    assert postgresql_cluster.restarted(session, check_mode=True) == {"changed": True, "needed": True, "member": "db2"}
    assert session.commands == []


def test_who_goes_away_hands_over_when_it_leads() -> None:
    apis = {"db1": Api([False]), "db2": Api([False, True]), "db3": Api([False])}
    session = Session(described("three"), described("after_switchover"), apis=apis, member="db1")
    result = postgresql_cluster.vacated(session, check_mode=False)
    assert session.commands == [("switchover", "--force", "--leader", "db1", "berth")]
    assert (result["changed"], result["member"], result["to"]) == (True, "db1", "db2")
    session = Session(described("three"))
    assert postgresql_cluster.vacated(session, check_mode=False) == {"changed": False, "member": "db2"}
    assert session.commands == []


def test_who_comes_back_is_waited_for() -> None:
    well = described("three")
    session = Session(well, changed(well, "db2", state="starting"), changed(well, "db2", role="replica"), well)
    assert postgresql_cluster.back(session, check_mode=False) == {"changed": False, "member": "db2", "cluster": well}
    session = Session(well, changed(well, "db2", role="replica"))
    with pytest.raises(PatroniError, match="db2 streams and does not confirm commits yet"):
        postgresql_cluster.back(session, check_mode=False)


def test_a_copy_that_is_under_way_is_waited_for_and_not_begun_again() -> None:
    done = changed(described("creating"), "db2", state="streaming", timeline=5, started_at="2026-11-24 20:00:00+00:00")
    session = Session(described("creating"), described("creating"), done, member="db2", confirm="db2")
    assert postgresql_cluster.reinitialized(session, check_mode=False) == {"changed": False, "member": "db2", "cluster": done}
    assert session.commands == []


def test_a_copy_is_told_once_confirmed() -> None:
    before = described("three")
    done = changed(before, "db3", started_at="2026-11-24 20:00:00+00:00")
    session = Session(before, changed(before, "db3", started_at=None), done, member="db3", confirm="db3")
    assert postgresql_cluster.reinitialized(session, check_mode=False)["changed"] is True
    assert session.commands == [("reinit", "--force", "berth", "db3")]


def test_pausing_waits_until_every_member_knows() -> None:
    paused = described("paused")
    session = Session(described("three"), changed(paused, "db2", paused=False), paused, state="paused")
    assert postgresql_cluster.pause(session, check_mode=False) == {"changed": True, "cluster": paused}
    assert session.commands == [("pause", "berth")]
    session = Session(paused, changed(described("three"), "db2", paused=True), state="resumed")
    with pytest.raises(PatroniError, match="db2 does not know yet"):
        postgresql_cluster.pause(session, check_mode=False)
    assert session.commands == [("resume", "berth")]


def test_pausing_twice_is_once() -> None:
    session = Session(described("paused"), state="paused")
    assert postgresql_cluster.pause(session, check_mode=False) == {"changed": False}
    assert postgresql_cluster.pause(Session(described("paused"), state="resumed"), check_mode=True) == {"changed": True}
    assert session.commands == []


@pytest.mark.parametrize("text", ["yesterday", "2026-11-24", "2026-11-24T22:00:00", ""])
def test_a_time_without_offset_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"running_since is .*Type it like 2026-11-24T22:00:00\.123456\+00:00"):
        postgresql_cluster.moment(text)


def test_a_time_is_read_as_patroni_writes_it_and_as_iso_wants_it() -> None:
    assert postgresql_cluster.moment(None) is None
    assert postgresql_cluster.moment("2026-11-24 22:00:00.5+00:00") == postgresql_cluster.moment("2026-11-24T22:00:00.500Z")


class Keeper(Session):
    """A session on the leader's host, whose PostgreSQL keeps slots; it drops them when Patroni's time for them is 0."""

    def __init__(self, *states: dict[str, Any], slots: list[str], **options: Any) -> None:
        super().__init__(states[0], *states, **options)
        self.slots = slots
        self.own = self  # type: ignore[assignment]

    def get(self, path: str) -> Any:
        assert path == "/config"
        return {"member_slots_ttl": "30min"}

    def has_slot(self, member: str) -> bool:
        if any("member_slots_ttl=0" in command for command in self.commands):
            self.slots.clear()
        return member in self.slots


def led_from_here(cluster: dict[str, Any], without: str = "") -> dict[str, Any]:
    here = {**cluster, "member": cluster["leader"]}
    here["members"] = [one for one in cluster["members"] if one["name"] != without]
    return here


def test_a_member_is_forgotten_with_its_slot_and_the_time_for_slots_stays() -> None:
    there = led_from_here(described("three"))
    session = Keeper(there, led_from_here(described("three"), "db3"), slots=["db3"], member="db3", confirm="db3")
    result = postgresql_cluster.removed(session, check_mode=False)
    assert result["changed"]
    assert [command[-2] for command in session.commands] == ["member_slots_ttl=0", "member_slots_ttl=30min"]


def test_a_removal_is_only_asked_for_in_check_mode_and_done_once() -> None:
    session = Keeper(led_from_here(described("three")), slots=["db3"], member="db3", confirm="db3")
    assert postgresql_cluster.removed(session, check_mode=True) == {"changed": True, "member": "db3"}
    assert session.commands == []
    again = Keeper(led_from_here(described("three"), "db3"), slots=[], member="db3", confirm="db3")
    assert postgresql_cluster.removed(again, check_mode=False) == {"changed": False, "member": "db3"}


def test_a_member_that_still_runs_is_not_forgotten() -> None:
    session = Keeper(led_from_here(described("three")), slots=["db3"], member="db3", confirm="db3", timeout=0)
    with pytest.raises(PatroniError, match="db3 is still a member: stop its container"):
        postgresql_cluster.removed(session, check_mode=False)


def test_a_slot_that_stays_is_said_and_the_time_for_slots_is_set_again() -> None:
    session = Keeper(led_from_here(described("three"), "db3"), slots=["db3"], member="db3", confirm="db3", timeout=0)
    session.has_slot = lambda member: True  # type: ignore[method-assign]
    with pytest.raises(PatroniError, match="the replication slot of db3 is still there"):
        postgresql_cluster.removed(session, check_mode=False)
    assert session.commands[-1][-2] == "member_slots_ttl=30min"


def test_a_removal_needs_the_host_of_the_leader() -> None:
    with pytest.raises(Refused, match="this is the host of db2, and db1 leads berth: run it there"):
        postgresql_cluster.removed(Keeper(described("three"), slots=[], member="db3", confirm="db3"), check_mode=True)
