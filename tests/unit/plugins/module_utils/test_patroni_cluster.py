# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster's answers mean and what may be done to it, on answers recorded from Patroni 4.0.7 with one and three members.

Each file in fixtures/patroni holds what one member answered to GET /patroni, /cluster, /config and /history, and what every member answered
to GET /patroni, or why there was no answer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _patroni_cluster as cluster_rules
from ansible_collections.berth.odoo.plugins.module_utils._patroni_cluster import Refused

FIXTURES = Path(__file__).parent / "fixtures/patroni"
Change = Callable[[dict[str, Any]], None]


def recorded(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))


def described(name: str, change: Change | None = None, age: float = 2) -> dict[str, Any]:
    """The description of a recorded cluster, after a change to the answers; ``age`` seconds after Patroni last saw etcd."""
    answers = recorded(name)
    if change:
        change(answers)
    config = answers["config"] if isinstance(answers["config"], dict) else None
    members = answers["members"] or {answers["patroni"]["patroni"]["name"]: answers["patroni"]}
    status = answers["patroni"]
    return cluster_rules.describe(status, members, answers["cluster"], config, status["dcs_last_seen"] + age)


def member(cluster: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in cluster["members"] if one["name"] == name)


def of(answers: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a member in GET /cluster."""
    return next(one for one in answers["cluster"]["members"] if one["name"] == name)


def configured(**settings: Any) -> Change:
    return lambda answers: answers["config"].update(settings)


def test_a_cluster_that_is_well() -> None:
    cluster = described("three")
    assert cluster["problems"] == []
    assert (cluster["cluster_name"], cluster["member"], cluster["leader"]) == ("berth", "db2", "db1")
    assert cluster["system_identifier"].isdigit()
    assert (cluster["synchronous_mode"], cluster["synchronous_mode_strict"], cluster["synchronous_node_count"]) == ("quorum", False, 1)
    assert (cluster["ttl"], cluster["loop_wait"], cluster["retry_timeout"]) == (30, 5, 10)
    assert cluster["expected_stall"] == {"min_seconds": 25, "max_seconds": 30}
    assert (cluster["paused"], cluster["failsafe_mode"], cluster["failsafe_active"]) == (False, True, False)
    assert cluster["scheduled_switchover"] is None
    leader, follower = member(cluster, "db1"), member(cluster, "db3")
    assert (leader["role"], leader["state"], leader["writable"], leader["lag_bytes"]) == ("leader", "running", True, None)
    assert (follower["role"], follower["state"], follower["writable"]) == ("quorum_standby", "streaming", False)
    assert (follower["lag_bytes"], follower["receive_lag_bytes"], follower["replay_lag_bytes"]) == (0, 0, 0)
    assert (follower["host"], follower["port"]) == ("10.213.1.13", 5432)
    assert cluster["summary"] == [
        "berth: led by db1, synchronous by quorum",
        "MEMBER  ROLE            STATE      TIMELINE  BEHIND",
        "db1     leader          running    1",
        "db2     quorum_standby  streaming  1         0 B",
        "db3     quorum_standby  streaming  1         0 B",
    ]


def test_one_member_alone_is_well() -> None:
    cluster = described("one")
    assert cluster["problems"] == []
    assert cluster["synchronous_mode"] == "off"
    assert cluster["restart_in_place"] == "solo is the only member"
    assert cluster["summary"][0] == "berth: led by solo, asynchronous"


@pytest.mark.parametrize(
    ("value", "mode"), [(True, "on"), ("on", "on"), ("true", "on"), (False, "off"), ("off", "off"), (None, "off"), ("Quorum", "quorum")]
)
def test_synchronous_mode_is_read_as_patroni_reads_it(value: Any, mode: str) -> None:
    assert described("three", configured(synchronous_mode=value))["synchronous_mode"] == mode


def test_missing_and_broken_numbers_are_what_patroni_takes_them_for() -> None:
    cluster = described("three", lambda answers: answers.update(config={"ttl": "20", "loop_wait": "soon"}))
    assert (cluster["ttl"], cluster["loop_wait"], cluster["retry_timeout"]) == (20, 10, 10)
    assert cluster["maximum_lag_on_failover"] == 1048576
    assert cluster["expected_stall"] == {"min_seconds": 10, "max_seconds": 20}


def test_a_standby_that_receives_nothing() -> None:
    cluster = described("lagging")
    assert cluster["problems"] == ["db1 is 289023464 bytes behind, more than maximum_lag_on_failover (1048576) lets take over"]
    assert member(cluster, "db1")["receive_lag_bytes"] > 280_000_000
    assert member(cluster, "db2")["replay_lag_bytes"] == 0
    assert "289023464 B" in cluster["summary"][2]


def test_a_member_on_another_timeline() -> None:
    cluster = described("after_switchover", lambda answers: of(answers, "db3").update(timeline=1))
    assert cluster["problems"] == ["db3 is on timeline 1 and the leader on 2: it does not follow"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            "starting",
            "db3 is starting. When it stays so for minutes, it cannot follow any more; type: ansible-playbook … berth.odoo.reinit_replica",
        ),
        ("start failed", "db3 is start failed. When it stays so"),
        (
            "running",
            "db3 runs and receives nothing. When its log says that WAL was removed, type: ansible-playbook … berth.odoo.reinit_replica",
        ),
        ("stopped", "db3 is stopped"),
    ],
)
def test_a_replica_that_does_not_follow_is_named_with_what_to_type(state: str, words: str) -> None:
    def change(answers: dict[str, Any]) -> None:
        answers["members"]["db3"].update(state=state)
        answers["members"]["db3"].pop("replication_state", None)

    [problem] = described("three", change)["problems"]
    assert problem.startswith(words)


def test_a_position_that_nobody_knows() -> None:
    cluster = described("three", lambda answers: of(answers, "db3").update(lag="unknown"))
    assert cluster["problems"] == ["db3 repeats from an unknown position"]
    assert cluster["summary"][-1].endswith("unknown")


def test_members_that_wait_for_a_restart() -> None:
    cluster = described("pending_raised")
    assert len(cluster["problems"]) == 3
    assert cluster["problems"][0].startswith("db1 waits for a restart (max_connections 60 → 70). Type: ")
    assert member(cluster, "db2")["pending_restart_reason"] == {"max_connections": {"old_value": "60", "new_value": "70"}}
    assert cluster["summary"][2].endswith("restart pending")


def test_its_own_word_counts_more_than_what_a_member_told_etcd() -> None:
    def not_in_etcd_yet(answers: dict[str, Any]) -> None:
        of(answers, "db2").update(state="streaming", lag=0, timeline=5)

    cluster = described("creating", not_in_etcd_yet)
    assert member(cluster, "db2")["state"] == "creating replica"
    assert cluster["problems"] == ["db2 is creating replica"]


def test_a_leader_that_died() -> None:
    cluster = described("leader_dead_with_lease")
    assert cluster["leader"] == "db1"
    assert member(cluster, "db1")["writable"] is False
    assert "Connection refused" in member(cluster, "db1")["error"]
    assert cluster["problems"][0].startswith("db1 does not answer: ")
    # Where the leader is, is unknown, so how far behind the others are is too.
    assert member(cluster, "db2")["receive_lag_bytes"] is None


def test_nobody_leads_and_patroni_is_paused() -> None:
    cluster = described("no_leader")
    assert cluster["leader"] is None
    assert cluster["problems"][0] == "the cluster has no leader: nothing can be written"
    assert cluster["problems"][1].startswith("Patroni is paused: ")
    assert cluster["problems"][1].endswith("docker exec postgresql-postgresql-1 patronictl resume --wait berth")
    assert cluster["summary"][0] == "berth: led by nobody, synchronous by quorum, paused"


@pytest.mark.parametrize(("strict", "effect"), [(False, "a commit is on one machine only"), (True, "commits wait for one")])
def test_no_synchronous_standby(strict: bool, effect: str) -> None:
    def nobody_confirms(answers: dict[str, Any]) -> None:
        for name in ("db2", "db3"):
            of(answers, name)["role"] = "replica"
        answers["config"]["synchronous_mode_strict"] = strict

    cluster = described("three", nobody_confirms)
    assert cluster["problems"] == [f"0 of 1 synchronous standbys are there although synchronous_mode is on: {effect}"]
    assert described("three", lambda answers: (nobody_confirms(answers), configured(synchronous_mode=False)(answers)))["problems"] == []


def test_failsafe_mode() -> None:
    cluster = described("etcd_away_leader")
    assert cluster["failsafe_active"] is True
    assert cluster["leader"] == "db3"
    assert cluster["problems"][0].startswith("etcd is away and the leader goes on because all members agree")


def test_etcd_away_for_so_long_that_patroni_knows_itself_only() -> None:
    cluster = described("etcd_gone_leader", age=60)
    assert cluster["leader"] == cluster["member"] == "db3"
    assert [one["name"] for one in cluster["members"]] == ["db3"]
    assert member(cluster, "db3")["writable"] is True
    assert cluster["ttl"] is cluster["expected_stall"] is cluster["synchronous_mode"] is None
    assert "Remote end closed connection" in cluster["dcs_error"]
    assert "this may be old" in cluster["problems"][1]
    assert cluster["summary"][0] == "berth: led by db3"


def test_answers_from_a_copy_of_etcd_are_found_out_by_their_age() -> None:
    assert described("three", age=15)["problems"] == []
    [problem] = described("three", age=16)["problems"]
    assert problem == "Patroni on the host of db2 does not reach etcd, so this may be old: Patroni reached it 16 s ago"


# --- switchover --------------------------------------------------------------------------------------------------------------------


def test_a_switchover_goes_to_the_candidate_or_to_the_one_with_least_to_repeat() -> None:
    assert cluster_rules.switchover_target(described("three"), "db3") == "db3"
    assert cluster_rules.switchover_target(described("three"), None) == "db2"
    assert cluster_rules.switchover_target(described("lagging"), None) == "db2"

    def behind(answers: dict[str, Any]) -> None:
        answers["members"]["db2"]["xlog"]["replayed_location"] -= 100

    assert cluster_rules.switchover_target(described("three", behind), None) == "db3"


def test_a_switchover_to_the_leader_is_nothing_to_do_even_where_it_would_be_refused() -> None:
    assert cluster_rules.switchover_target(described("three"), "db1") == "db1"
    assert cluster_rules.switchover_target(described("paused"), "db1") == "db1"
    assert cluster_rules.switchover_target(described("one"), "solo") == "solo"


def test_with_named_synchronous_standbys_only_those_take_over() -> None:
    cluster = described("two_synchronous")
    assert cluster["synchronous_mode"] == "on"
    assert member(cluster, "db2")["role"] == "sync_standby"
    assert cluster_rules.switchover_target(cluster, None) == "db2"
    with pytest.raises(Refused, match=r"db3 cannot take over: it does not answer: .*and it is stopped, and it is no synchronous standby"):
        cluster_rules.switchover_target(cluster, "db3")


def test_of_a_quorum_all_that_are_as_good_may_take_over() -> None:
    assert described("three")["synchronous_mode"] == "quorum"
    assert cluster_rules.switchover_takers(described("three"), None) == ["db2", "db3"]
    assert cluster_rules.switchover_takers(described("three"), "db3") == ["db3"]
    preferred = described("three", lambda answers: of(answers, "db3").update(tags={"failover_priority": "2"}))
    assert cluster_rules.switchover_takers(preferred, None) == ["db3"]
    kept = described("three", lambda answers: of(answers, "db2").update(tags={"nofailover": True}))
    assert cluster_rules.switchover_takers(kept, None) == ["db3"]
    # Commits wait for one of them, by its name.
    assert cluster_rules.switchover_takers(described("two_synchronous"), None) == ["db2"]


def test_priorities_and_nofailover_count() -> None:
    def tagged(**tags: Any) -> Change:
        return lambda answers: of(answers, "db2").update(tags=tags)

    assert cluster_rules.switchover_target(described("three", tagged(failover_priority=0)), None) == "db3"
    assert cluster_rules.switchover_target(described("three", tagged(nofailover=True)), None) == "db3"
    assert cluster_rules.switchover_target(described("three", tagged(nofailover=False, failover_priority=0)), None) == "db2"
    preferred = described("three", lambda answers: of(answers, "db3").update(tags={"failover_priority": "2"}))
    assert cluster_rules.switchover_target(preferred, None) == "db3"
    with pytest.raises(Refused, match=r"^db2 cannot take over: it is tagged nofailover\. Name another one: db3$"):
        cluster_rules.switchover_target(described("three", tagged(nofailover="true")), "db2")


@pytest.mark.parametrize(
    ("name", "change", "candidate", "words"),
    [
        ("one", None, None, "solo is the only member of berth"),
        ("one", None, "db2", r"db2 is no member of berth\. Its members are: solo \(leader\)"),
        ("three", None, "db9", r"db1 \(leader\), db2 \(quorum_standby\), db3 \(quorum_standby\)"),
        ("lagging", None, "db1", r"db1 cannot take over: it is 289023464 bytes behind, .*\. Name another one: db2"),
        ("creating", None, "db2", "it is creating replica"),
        ("paused", None, None, r"berth is paused\. First type: docker exec .* patronictl resume --wait berth"),
        ("scheduled", None, "db2", r"scheduled at 2027-01-01T03:00:00\+00:00\. .* patronictl flush berth switchover --force"),
        ("no_leader", None, "db3", "no leader that could hand over"),
        ("leader_dead_with_lease", None, "db2", "db1 leads and does not answer"),
        ("etcd_away_leader", None, "db1", "etcd is away, and commands need it: the leader goes on in failsafe mode"),
        ("etcd_gone_leader", None, None, "etcd is away"),
        (
            "three",
            lambda answers: answers["members"].update(db2="no answer", db3="no answer"),
            None,
            "no member of berth can take over: db2 does not answer: no answer; db3 does not answer: no answer",
        ),
        (
            "three",
            lambda answers: [of(answers, name).update(role="replica") for name in ("db2", "db3")],
            "db2",
            "is no synchronous standby, so it may lack what was acknowledged. No other member can take over either",
        ),
        (
            "three",
            lambda answers: answers["members"]["db2"].pop("replication_state"),
            "db2",
            "db2 cannot take over: it runs and receives nothing",
        ),
    ],
)
def test_a_switchover_that_would_hurt_is_refused(name: str, change: Change | None, candidate: str | None, words: str) -> None:
    with pytest.raises(Refused, match=words):
        cluster_rules.switchover_target(described(name, change), candidate)


def test_without_synchronous_mode_any_standby_that_is_near_will_do() -> None:
    def asynchronous(answers: dict[str, Any]) -> None:
        answers["config"]["synchronous_mode"] = False
        for name in ("db2", "db3"):
            of(answers, name)["role"] = "replica"

    assert cluster_rules.switchover_target(described("three", asynchronous), "db3") == "db3"


# --- failover ----------------------------------------------------------------------------------------------------------------------


def test_a_failover_promotes_where_nobody_leads() -> None:
    assert cluster_rules.failover_target(described("no_leader"), "db3", force=True) == "db3"
    assert cluster_rules.failover_target(described("three"), "db1", force=False) == "db1"


@pytest.mark.parametrize(
    ("name", "candidate", "force", "words"),
    [
        ("no_leader", "db3", False, "promoting db3 by force can lose .* set: force true"),
        ("no_leader", "db9", True, "db9 is no member"),
        ("three", "db2", True, "db1 leads berth, so nothing has to be forced.* state switchover, candidate db2"),
        ("leader_dead_with_lease", "db2", True, "db1 still has the lease of berth for up to 30 s"),
        ("etcd_gone_leader", "db3", True, "etcd is away"),
    ],
)
def test_a_failover_that_is_not_the_last_resort_is_refused(name: str, candidate: str, force: bool, words: str) -> None:
    with pytest.raises(Refused, match=words):
        cluster_rules.failover_target(described(name), candidate, force=force)


def test_a_failover_to_the_member_that_has_less_is_refused() -> None:
    def behind(answers: dict[str, Any]) -> None:
        answers["members"]["db3"]["xlog"]["received_location"] -= 16

    with pytest.raises(Refused, match=r"db2 has 16 bytes more than db3, .* candidate db2"):
        cluster_rules.failover_target(described("no_leader", behind), "db3", force=True)
    assert cluster_rules.failover_target(described("no_leader", behind), "db2", force=True) == "db2"


def test_a_failover_to_a_member_that_cannot_be_promoted_is_refused() -> None:
    with pytest.raises(Refused, match="tagged nofailover"):
        cluster_rules.failover_target(
            described("no_leader", lambda answers: of(answers, "db3").update(tags={"nofailover": True})), "db3", force=True
        )
    with pytest.raises(Refused, match="db3 does not answer: gone"):
        cluster_rules.failover_target(described("no_leader", lambda answers: answers["members"].update(db3="gone")), "db3", force=True)


# --- reinitialize, restart ---------------------------------------------------------------------------------------------------------


def test_a_replica_is_copied_anew_once() -> None:
    assert cluster_rules.check_reinitialize(described("three"), "db3", "db3") is True
    assert cluster_rules.check_reinitialize(described("creating"), "db2", "db2") is False


@pytest.mark.parametrize(
    ("name", "target", "confirm", "words"),
    [
        ("three", "db1", "db1", "db1 leads berth"),
        ("three", "db3", None, "confirm is not set; type: confirm=db3"),
        ("three", "db3", "db2", "confirm is 'db2'; type: confirm=db3"),
        ("three", "db9", "db9", "db9 is no member"),
        ("no_leader", "db3", "db3", "no leader to copy from"),
        ("etcd_away_leader", "db1", "db1", "etcd is away"),
    ],
)
def test_a_copy_that_would_hurt_is_refused(name: str, target: str, confirm: str | None, words: str) -> None:
    with pytest.raises(Refused, match=words):
        cluster_rules.check_reinitialize(described(name), target, confirm)


def test_a_replica_is_removed_once() -> None:
    assert cluster_rules.check_remove(described("three"), "db3", "db3") is True
    assert cluster_rules.check_remove(described("three"), "db9", "db9") is False
    # The last standby may go: who has none has decided so.
    assert cluster_rules.check_remove(
        described("three", lambda answers: answers["cluster"]["members"].remove(of(answers, "db2"))), "db3", "db3"
    )


@pytest.mark.parametrize(
    ("name", "target", "confirm", "words"),
    [
        ("three", "db1", "db1", "db1 leads berth. Hand over first: berth.odoo.switchover -e target=db2 or db3"),
        ("one", "solo", "solo", "the only member"),
        ("three", "db3", None, "confirm is not set; type: confirm=db3"),
        ("lagging", "db2", "db2", "without db2 nobody could take over"),
        ("no_leader", "db3", "db3", "has no leader"),
        ("etcd_away_leader", "db1", "db1", "etcd is away"),
    ],
)
def test_a_removal_that_would_hurt_is_refused(name: str, target: str, confirm: str | None, words: str) -> None:
    with pytest.raises(Refused, match=words):
        cluster_rules.check_remove(described(name), target, confirm)


def test_a_member_that_is_stopped_and_forgotten_takes_over_from_nobody() -> None:
    """Patroni no longer lists db2, and the inventory still has it."""
    cluster = described("three", lambda answers: answers["cluster"]["members"].remove(of(answers, "db2")))
    with pytest.raises(Refused, match="without db3 nobody could take over from db1: db2 is no member now"):
        cluster_rules.check_remove(cluster, "db3", "db3", ["db1", "db2"])
    assert cluster_rules.check_remove(cluster, "db3", "db3", ["db1"])
    assert cluster_rules.check_remove(described("three"), "db3", "db3", ["db1", "db2"])


@pytest.mark.parametrize(("member", "slot"), [("db1", "db1"), ("DB-1.a", "db_1_a"), ("däb", "du0228b"), ("x" * 70, "x" * 63)])
def test_slots_are_named_as_patroni_names_them(member: str, slot: str) -> None:
    assert cluster_rules.slot_name(member) == slot


HEALTHY: dict[str, Any] = {"damaged": {}, "lost_slots": [], "archive_waiting": 0, "archive_waiting_s": 0}


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (HEALTHY, []),
        (None, []),
        ({**HEALTHY, "archive_waiting": 3, "archive_waiting_s": 299}, []),
        ("psql ended with exit code 2: FATAL: the database system is starting up", ["db2 does not answer questions: psql ended"]),
        ({**HEALTHY, "damaged": {"main": 2}}, ["db2 read damaged pages in main, 2 times", "reinit_replica -e target=db2 -e confirm=db2"]),
        # It is no leader, so these are the leader's to tell.
        ({**HEALTHY, "lost_slots": ["db3"], "archive_waiting": 9, "archive_waiting_s": 900}, []),
    ],
)
def test_what_a_replica_says_of_itself(health: Any, words: list[str]) -> None:
    answers = recorded("three")
    status = answers["patroni"]
    found = cluster_rules.describe(status, answers["members"], answers["cluster"], answers["config"], status["dcs_last_seen"], health)[
        "problems"
    ]
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)


def test_what_a_leader_says_of_itself() -> None:
    answers = recorded("three")
    status = answers["members"]["db1"]
    health = {"damaged": {"main": 1}, "lost_slots": ["db3", "db9"], "archive_waiting": 9, "archive_waiting_s": 900}
    damaged, lost, stranger, late = cluster_rules.describe(
        status, answers["members"], answers["cluster"], answers["config"], status["dcs_last_seen"], health
    )["problems"]
    assert "hand over first (berth.odoo.switchover), then type: ansible-playbook" in damaged
    assert lost.startswith("db3 was away for longer than its WAL is kept (max_slot_wal_keep_size)")
    assert stranger.startswith("db9 was away")
    assert "9 WAL files of db1 wait for archive_command, the oldest for 15 minutes" in late


def needs_restart(cluster: dict[str, Any], name: str, **options: Any) -> bool:
    return cluster_rules.restart_needed(cluster, name, **{"allow_leader": False, "only_pending": False, "running_since": None, **options})


def test_restarts_only_where_needed() -> None:
    assert needs_restart(described("three"), "db2") is True
    assert needs_restart(described("three"), "db2", only_pending=True) is False
    assert needs_restart(described("pending_raised"), "db1", only_pending=True) is True


def test_the_leader_is_restarted_only_when_allowed_and_nothing_is_refused_that_is_not_needed() -> None:
    with pytest.raises(Refused, match=r"db1 leads berth: .*state switchover.*allow_leader true"):
        needs_restart(described("three"), "db1")
    assert needs_restart(described("three"), "db1", allow_leader=True) is True
    assert needs_restart(described("three"), "db1", only_pending=True) is False


def test_who_was_restarted_since_is_left_alone() -> None:
    cluster = described("three")
    since = datetime.fromisoformat(max(one["started_at"] for one in cluster["members"]))
    assert all(needs_restart(cluster, name, running_since=since, allow_leader=True) for name in ("db1", "db2", "db3"))
    started = "2026-11-24 19:05:00.000000+00:00"
    again = described("three", lambda answers: answers["members"]["db2"].update(postmaster_start_time=started))
    assert needs_restart(again, "db2", running_since=since) is False
    with pytest.raises(Refused, match="db2 does not say since when its PostgreSQL runs: it is creating replica"):
        needs_restart(described("creating"), "db2", running_since=since)


def test_a_member_that_does_not_answer_is_told_nothing() -> None:
    gone = described("three", lambda answers: answers["members"].update(db3="gone"))
    for verb in (
        lambda: needs_restart(gone, "db3"),
        lambda: needs_restart(gone, "db3", running_since=datetime.now(UTC)),
        lambda: cluster_rules.check_reinitialize(gone, "db3", "db3"),
    ):
        with pytest.raises(Refused, match="db3 does not answer: gone"):
            verb()
    assert needs_restart(gone, "db3", only_pending=True) is False


def test_what_a_standby_cannot_have_lower_than_its_primary_needs_the_leader_in_its_place() -> None:
    assert described("pending_raised")["restart_in_place"] == ""
    assert described("pending_lowered")["restart_in_place"] == "a standby does not run with less than its primary of max_connections"

    def other_parameter(answers: dict[str, Any]) -> None:
        answers["members"]["db1"]["pending_restart_reason"] = {"shared_buffers": {"old_value": "128MB", "new_value": "64MB"}}

    assert described("pending_lowered", other_parameter)["restart_in_place"] == ""


# --- afterwards --------------------------------------------------------------------------------------------------------------------


def test_who_leads_hands_over_before_it_goes_away_unless_it_is_alone() -> None:
    assert cluster_rules.must_hand_over(described("three"), "db1")
    assert not cluster_rules.must_hand_over(described("three"), "db2")
    assert not cluster_rules.must_hand_over(described("one"), "solo")


def ill(*names: str) -> Change:
    """Members that do not stream."""
    return lambda answers: [answers["members"][name].update(state="starting", replication_state=None) for name in names] and None


def test_the_last_standby_stays_and_one_that_is_ill_may_go() -> None:
    cluster = described("three", ill("db3"))
    with pytest.raises(Refused, match="without db2 no standby would be left: db3 is starting"):
        cluster_rules.must_hand_over(cluster, "db2")
    assert not cluster_rules.must_hand_over(cluster, "db3")
    assert cluster_rules.must_hand_over(cluster, "db1")
    with pytest.raises(Refused, match="no member of berth can take over"):
        cluster_rules.must_hand_over(described("three", ill("db2", "db3")), "db1")


@pytest.mark.parametrize(("name", "member"), [("paused", "db2"), ("no_leader", "db2"), ("etcd_gone_leader", "db1")])
def test_nobody_goes_away_where_nobody_could_take_over(name: str, member: str) -> None:
    with pytest.raises(Refused):
        cluster_rules.must_hand_over(described(name), member)


def test_a_member_is_back_when_it_leads_or_confirms_commits() -> None:
    assert cluster_rules.not_back(described("three"), "db1") == []
    assert cluster_rules.not_back(described("three"), "db3") == []
    late = described("three", lambda answers: of(answers, "db3").update(role="replica"))
    assert cluster_rules.not_back(late, "db3") == ["db3 streams and does not confirm commits yet"]
    assert cluster_rules.not_back(late, "db2") == []
    assert cluster_rules.not_back(described("three", ill("db3")), "db3") == ["db3 is starting and does not stream"]
    never = described("three", lambda answers: of(answers, "db3").update(role="replica", tags={"nosync": True}))
    assert cluster_rules.not_back(never, "db3") == []


def test_a_cluster_is_settled_when_everybody_follows_a_leader_that_accepts_writes() -> None:
    names = ["db1", "db2", "db3"]
    assert cluster_rules.unsettled(described("three"), names) == []
    assert cluster_rules.unsettled(described("one"), ["solo"]) == []
    assert cluster_rules.unsettled(described("no_leader"), names) == ["nobody leads"]
    assert cluster_rules.unsettled(described("leader_dead_with_lease"), []) == ["db1 leads and does not accept writes"]
    assert cluster_rules.unsettled(described("creating"), names) == ["db2 is creating replica and does not stream"]
    assert cluster_rules.unsettled(described("creating"), ["db1", "db3"]) == [], "one that was ill before is not waited for"


def test_a_cluster_is_not_settled_on_two_timelines_or_without_a_synchronous_standby() -> None:
    cluster = described("after_switchover", lambda answers: of(answers, "db1").update(timeline=1))
    assert cluster_rules.unsettled(cluster, ["db1", "db2"]) == ["db1 is on timeline 1, the leader on 2"]
    alone = described("three", lambda answers: [of(answers, name).update(role="replica") for name in ("db2", "db3")])
    assert cluster_rules.unsettled(alone, ["db1", "db2"]) == ["there is no synchronous standby"]
    assert cluster_rules.unsettled(alone, ["db1"]) == []


def test_who_should_follow_afterwards() -> None:
    assert cluster_rules.following(described("three")) == ["db1", "db2", "db3"]
    assert cluster_rules.following(described("creating")) == ["db1", "db3"]
    assert cluster_rules.following(described("creating"), "db2") == ["db1", "db2", "db3"]


def test_patronis_history_tells_of_a_promotion() -> None:
    history = recorded("after_switchover")["history"]
    assert cluster_rules.promotion(history, 1) == {
        "timeline": 2,
        "promoted_at": "2026-11-24T19:02:21.549624+00:00",
        "leader": "db2",
        "reason": "no recovery target specified",
    }
    assert cluster_rules.promotion(history, 2) is None
    assert cluster_rules.promotion([[1, 100, "no recovery target specified"]], 1) is None, "PostgreSQL's own history has no time"


NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))


@given(st.sampled_from(NAMES), st.sampled_from(["db1", "db2", "db3", "solo", "db9", None]))
def test_every_verb_answers_or_refuses_whatever_the_cluster_is_like(name: str, target: str | None) -> None:
    cluster = described(name)
    before = copy.deepcopy(cluster)
    verbs: list[Callable[[], object]] = [
        lambda: cluster_rules.switchover_target(cluster, target),
        lambda: cluster_rules.failover_target(cluster, target or "", force=True),
        lambda: cluster_rules.check_reinitialize(cluster, target or "", target),
        lambda: needs_restart(cluster, target or ""),
    ]
    for verb in verbs:
        try:
            verb()
        except Refused as error:
            assert len(str(error)) > 20
    assert cluster == before
