# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup a restore begins with, what it refuses, and what a drill calls broken. The restore itself runs in a lab."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _odoo

FILE = Path(__file__).resolve().parents[3] / "roles/restore/files/rules.py"
specification = importlib.util.spec_from_file_location("restore_rules", FILE)
assert specification and specification.loader
rules = importlib.util.module_from_spec(specification)
sys.modules["restore_rules"] = rules
specification.loader.exec_module(rules)

Target = rules.Target
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
IDENTIFIER = "7400000000000000001"


def backup(label: str, minutes: int, stop: str, timeline: int = 1, **more: Any) -> dict[str, Any]:
    archive = {"stop": f"{timeline:08X}{'0' * 16}"}
    when = int((NOON + timedelta(minutes=minutes)).timestamp())
    return {"label": label, "timestamp": {"stop": when}, "lsn": {"stop": stop}, "archive": archive, **more}


STANZA = {
    "name": "berth",
    "db": [{"system-id": int(IDENTIFIER)}],
    "backup": [backup("full", 0, "0/5000000"), backup("incremental", 60, "0/9000000"), backup("torn", 90, "0/A000000", error=True)],
}
MANIFEST = {"time": "2026-11-25T12:30:00Z", "lsn": "0/7000148", "timeline": 3, "system_identifier": IDENTIFIER}


def snapshot(name: str, minutes: int) -> dict[str, Any]:
    return {"id": name * 8, "time": (NOON + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z"), "paths": []}


FIRST = rules.ends(1, "")

SNAPSHOTS = [snapshot("bbbbbbbb", 30), snapshot("aaaaaaaa", 0), snapshot("cccccccc", 60)]


def test_a_snapshot_that_failed_is_no_set() -> None:
    made = [{**one, "tags": ["instance=main"]} for one in SNAPSHOTS]
    words = [
        {"id": "d" * 64, "tags": ["failed=" + made[2]["id"][:8], "failed="]},
        {"id": "e" * 64, "tags": None},
        {"id": "f" * 64, "tags": ["instance=other"]},
    ]
    assert rules.sets_of([*made, *words], "main") == made[:2]
    assert rules.sets_of(made, "main") == made
    # Whoever has a host's keys can call any so.
    assert rules.sets_of([*made, *words], "main", also_failed=True) == made


def test_what_a_server_replays_is_in_the_titles_of_its_processes() -> None:
    titles = ["postgres -D /var/lib/postgresql/17", "postgres: checkpointer ", "postgres: startup recovering 0000000100000000000000AB"]
    # Somebody who asks whether it is ready is no progress.
    processes = "".join(f"{pid} {title}\n" for pid, title in enumerate([*titles, "postgres: postgres postgres [local] startup"]))
    assert rules.replaying(f"PID COMMAND\n{processes}") == "checkpointer; startup recovering 0000000100000000000000AB"
    assert rules.replaying("") == ""


def test_a_position_is_in_a_segment() -> None:
    assert rules.segment_at(3, "0/7000148") == "000000030000000000000007"
    assert rules.segment_at(17, "1A/FF000000") == "000000110000001A000000FF"


# --- the archive ---


def segments(*ranges: tuple[str, int, int]) -> list[str]:
    return [
        f"17-1/{timeline}{number // 256:08X}/{timeline}{number // 256:08X}{number % 256:08X}-{'0' * 40}.zst"
        for timeline, first, last in ranges
        for number in range(first, last + 1)
    ]


ONE, TWO = "00000001", "00000002"
HISTORY = "1\t1/1000148\tno recovery target specified\n"


def test_a_backup_of_during_an_exchange_brings_what_is_renamed_later() -> None:
    known = ["postgres", "main", "main_restoring", "main_before_20261125140359", "main_before_2026", "other_restoring", "main2"]
    assert rules.included("main", known) == ["main", "main_restoring", "main_before_20261125140359"]
    assert rules.included("main", ["postgres", "other"]) == [], "made after the backup: everything is brought"
    long = "m" * 50
    assert rules.included(long, [long, f"{'m' * 40}_restoring"]) == [long, f"{'m' * 40}_restoring"]


@pytest.mark.parametrize(
    ("archived", "wanted"),
    [
        (segments((ONE, 254, 257), (TWO, 257, 260)), []),
        # Across the end of a log, and the end itself.
        (
            segments((ONE, 254, 254), (TWO, 258, 259)),
            [(f"{ONE}00000000000000FF", f"{TWO}0000000100000001"), (f"{TWO}0000000100000004",) * 2],
        ),
        # What the timeline before wrote after it was left is another story.
        (segments((ONE, 254, 260)), [(f"{TWO}0000000100000001", f"{TWO}0000000100000004")]),
        ([*segments((ONE, 254, 256), (TWO, 257, 260)), f"17-1/{ONE}00000001/{ONE}0000000100000001.partial-{'0' * 40}.zst", "17-1"], []),
    ],
)
def test_what_was_dropped_is_missing(archived: list[str], wanted: list[tuple[str, str]]) -> None:
    assert rules.missing_wal(archived, rules.way(f"{ONE}00000000000000FE", f"{TWO}0000000100000004", HISTORY)) == wanted


def test_a_cluster_that_never_changed_its_timeline_has_no_history() -> None:
    assert rules.missing_wal(segments((ONE, 1, 3)), rules.way(f"{ONE}0000000000000001", f"{ONE}0000000000000003")) == []


# --- transactions: what pg_waldump 17 printed ---


def wal_record(manager: str, transaction: int, position: int, words: str) -> str:
    return f"rmgr: {manager:11} len (rec/tot):     34/    34, tx: {transaction:10}, lsn: 0/{position:08X}, prev 0/00000028, desc: {words}\n"


def running(position: int, following: int, oldest: int) -> str:
    busy = f"; 1 xacts: {oldest}" if oldest < following else ""
    words = f"RUNNING_XACTS nextXid {following} latestCompletedXid {following - 1} oldestRunningXid {oldest}{busy}"
    return wal_record("Standby", 0, position, words)


def commit(transaction: int, position: int, *parts: int, word: str = "COMMIT", rels: str = "") -> str:
    below = f"; subxacts: {' '.join(map(str, parts))}" if parts else ""
    return wal_record(
        "Transaction", transaction, position, f"{word} 2026-11-29 10:21:22.914463 UTC{rels}{below}; inval msgs: catcache 21; sync"
    )


CHECKPOINT = "CHECKPOINT_ONLINE redo 0/5000050; tli 1; prev tli 1; fpw true; wal_level replica; xid 0:744; oid 24576; multi 1; offset 0"
# 739 is long; 742 is a savepoint that was rolled back, 741 and 743 are parts of 740.
WAL = {
    3: running(0x3000028, 739, 739),
    4: commit(742, 0x4958CD8, word="ABORT") + commit(740, 0x4958D40, 741, 743, rels="; rels: base/5/16384 base/5/16390"),
    5: wal_record("XLOG", 0, 0x50000A8, CHECKPOINT) + commit(744, 0x5001000),
    6: commit(745, 0x6000028),
    7: running(0x7000028, 746, 739) + commit(746, 0x7001000, word="ABORT"),
    8: commit(739, 0x8000028),
    9: running(0x9000028, 747, 747) + commit(747, 0x9001000),
}


def found(number: int, wal: dict[int, str] = WAL) -> Any:
    names = [f"{ONE}00000000{place:08X}" for place in wal]
    return rules.find_ending(number, names, lambda span: "".join(wal[rules.segment_number(name)] for name in span))


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (740, (740, True, "0/04958D40")),
        # What the row of a savepoint has in xmin.
        (743, (740, True, "0/04958D40")),
        (742, (742, False, "0/04958CD8")),
        (739, (739, True, "0/08000028")),
        (745, (745, True, "0/06000028")),
        (746, (746, False, "0/07001000")),
        (747, (747, True, "0/09001000")),
        # Before the archive, after it, and a part of the numbers of another one.
        (738, None),
        (748, None),
        (74, None),
    ],
)
def test_a_transaction_is_found_where_it_ended(number: int, wanted: Any) -> None:
    ending = found(number)
    assert (ending and (ending.number, ending.committed, ending.lsn)) == wanted
    assert ending is None or ending.time == "2026-11-29T10:21:22.914463+00:00"


@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=40),
    st.integers(3, 2**32 - 1) | st.just(2**32 - 5),
    st.data(),
)
def test_every_transaction_is_found_whatever_the_segments_say_of_the_next_one(
    given_segments: list[tuple[int, bool]], start: int, data: st.DataObject
) -> None:
    """Each segment has some commits, or a snapshot before them, or both; numbers go round."""
    wal, number, places = {}, start, {}
    for place, (commits, snapshot) in enumerate(given_segments, 1):
        wal[place] = running(place << 24, number, number) if snapshot else ""
        for one in range(commits):
            wal[place] += commit(number, (place << 24) + 100 * one)
            places[number] = place
            number = number + 1 if number < 2**32 - 1 else 3
    wanted = data.draw(st.sampled_from(sorted(places)))
    assert rules.lsn(found(wanted, wal).lsn) >> 24 == places[wanted]


def test_adjacent_segments_are_read_together_and_begin_with_the_last_one() -> None:
    names = [*(f"{ONE}00000000{place:08X}" for place in (1, 2, 3, 4, 5, 7)), f"{TWO}0000000000000008"]
    assert [[rules.segment_number(name) for name in span] for span in rules.spans(names)] == [[1, 2, 3], [3, 4, 5], [5], [7], [8]]
    assert list(rules.spans(names[:3])) == [names[:3]]
    assert list(rules.spans([])) == []


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "2", "4711 ", "4294967296", "1e3", "9" * 21])
def test_what_is_no_transaction_is_refused(text: str) -> None:
    with pytest.raises(rules.Refused, match="expected such as 4711"):
        rules.xid(text)


def test_a_transaction_has_the_number_that_a_row_shows() -> None:
    assert rules.xid("4711") == rules.xid(str(3 * 2**32 + 4711)) == 4711


# --- positions and times ---


@given(st.integers(0, 2**64 - 1))
def test_positions_are_numbers(number: int) -> None:
    assert rules.lsn(f"{number >> 32:X}/{number & 0xFFFFFFFF:X}") == number


@pytest.mark.parametrize("text", ["", "5000148", "0/", "0/G", "0/5000148; DROP", "0/5000148\n"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(rules.Refused, match="expected such as 0/5000148"):
        rules.lsn(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-25T14:03:59", 14),
        ("2026-11-25T14:03:59Z", 14),
        ("2026-11-25T14:03:59+01:00", 13),
        ("2026-11-25T00:00", 0),
        ("2026-11-25 14:03:59", 14),
        ("2026-11-25 14:03:59+01:00", 13),
        ("2026-11-25 14:03:59.5", 14),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, wanted: int) -> None:
    assert rules.moment(text).hour == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "25.11.2026", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(rules.Refused, match="expected such as 2026-11-25T14:03:59 "):
        rules.moment(text)


@pytest.mark.parametrize("text", ["2026-11-25", " 2026-11-25 ", "20261125", "2026-W48-3"])
def test_a_date_alone_is_what_the_command_line_left_of_a_time_behind_a_blank(text: str) -> None:
    with pytest.raises(rules.Refused) as refused:
        rules.moment(text)
    assert str(refused.value).startswith(f"time {text!r} is a date without a time of day. With -e a value ends at a blank")
    assert "type a T in its place, such as -e time=2026-11-25T14:03:59 (UTC)" in str(refused.value)


# --- which backup ---


@pytest.mark.parametrize(
    ("target", "label"),
    [
        (Target("latest"), "incremental"),
        (Target("lsn", "0/5000000"), "full"),
        (Target("lsn", "1/0"), "incremental"),
        (Target("time", "2026-11-25 12:59:59"), "full"),
        (Target("time", "2026-11-25 13:00:00"), "incremental"),
    ],
)
def test_the_newest_backup_before_the_target_is_used_and_no_torn_one(target: Any, label: str) -> None:
    assert rules.pick_backup(STANZA, target, FIRST)["label"] == label


def test_a_set_begins_with_the_backup_before_its_position() -> None:
    assert (
        rules.pick_backup(STANZA, Target("set", "bbbb"), rules.ends(3, "1\t0/6000000\tx\n2\t0/7000000\tx\n"), MANIFEST)["label"] == "full"
    )


# Of the whole cluster, at 13:30 to what it was at 12:30, where it was at 0/7000000. "before" is from 12:00, "lost" from 13:00.
FORK = "1\t0/7000000\tbefore 2026-11-25 12:30:00+00\n"
FORKED = [backup("before", 0, "0/5000000"), backup("lost", 60, "0/9000000")]
AFTER = backup("after", 120, "0/8000000", timeline=2)


@pytest.mark.parametrize(
    ("target", "timeline", "backups", "label"),
    [
        # Until there is a new backup; a moment, the newest state and a set of then all lead on from the one before the fork.
        (Target("time", "2026-11-25 13:45:00"), 2, FORKED, "before"),
        (Target("latest"), 2, FORKED, "before"),
        (Target("lsn", "0/A000000"), 2, FORKED, "before"),
        (Target("set", "0/A000000"), 2, FORKED, "before"),
        # Afterwards.
        (Target("time", "2026-11-25 14:30:00"), 2, [*FORKED, AFTER], "after"),
        (Target("set", "0/A000000"), 2, [*FORKED, AFTER], "after"),
        # A moment that was lost is not there any more, and the one before it is.
        (Target("time", "2026-11-25 13:15:00"), 2, [*FORKED, AFTER], "before"),
        # Sets of what was lost can still be had, and lead on from what was lost.
        (Target("set", "0/A000000"), 1, [*FORKED, AFTER], "lost"),
        (Target("set", "0/8800000"), 1, [*FORKED, AFTER], "before"),
    ],
)
def test_a_backup_of_what_was_left_leads_nowhere_else(target: Any, timeline: int, backups: list[Any], label: str) -> None:
    manifest = {**MANIFEST, "lsn": target.value, "timeline": timeline} if target.kind == "set" else None
    left = rules.ends(timeline, FORK if timeline > 1 else "")
    assert rules.pick_backup({**STANZA, "backup": backups}, target, left, manifest)["label"] == label


def test_without_a_backup_of_what_goes_on_one_is_to_be_made() -> None:
    with pytest.raises(
        rules.Refused, match=r"of a timeline that was left, .* on timeline 2\. Type berth\.odoo\.backup -e backup_database=full"
    ):
        rules.pick_backup({**STANZA, "backup": FORKED[1:]}, Target("lsn", "0/A000000"), rules.ends(2, FORK))


@pytest.mark.parametrize("target", [Target("lsn", "0/4FFFFFF"), Target("time", "2026-11-25 11:59:59")])
def test_what_is_older_than_the_oldest_backup_is_refused(target: Any) -> None:
    with pytest.raises(rules.Refused, match="the oldest one reaches back to 2026-11-25T12:00:00Z"):
        rules.pick_backup(STANZA, target, FIRST)


def test_a_set_of_another_cluster_is_refused() -> None:
    with pytest.raises(rules.Refused, match="one of the cluster 99, and the repository is that of 7400000000000000001"):
        rules.pick_backup(STANZA, Target("set", "bbbb"), FIRST, {**MANIFEST, "system_identifier": "99"})


def test_a_repository_without_a_backup_is_refused() -> None:
    with pytest.raises(rules.Refused, match=r"no backup of the cluster berth \(no valid backups\)"):
        rules.stanza_of([{"name": "berth", "backup": [], "status": {"message": "no valid backups"}}], "berth")


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (Target("latest"), "c"),
        (Target("set", "aaaaaaaa"), "a"),
        (Target("time", "2026-11-25 12:15:00"), "ab"),
        (Target("time", "2026-11-25 11:00:00"), "a"),
        (Target("time", "2026-11-25 14:00:00"), "c"),
        (Target("lsn", "0/7000000"), "bc"),
    ],
)
def test_between_two_sets_the_files_of_both_are_restored(target: Any, names: str) -> None:
    assert "".join(one["id"][0] for one in rules.pick_snapshots(SNAPSHOTS, target)) == names


POSITIONS = {"a": "0/5000000", "b": "0/7000148", "c": "1/0"}


@pytest.mark.parametrize(
    ("position", "name"),
    [("0/1", "a"), ("0/5000000", "a"), ("0/7000147", "a"), ("0/7000148", "b"), ("0/FFFFFFFF", "b"), ("1/0", "c"), ("2/0", "c")],
)
def test_of_a_position_the_set_before_it_is_known_or_the_first_one(position: str, name: str) -> None:
    found = rules.set_before(SNAPSHOTS, position, lambda one: {"lsn": POSITIONS[one["id"][0]], "name": one["id"][0]})
    assert found["name"] == name


def test_few_sets_are_asked_for_their_position() -> None:
    asked: list[int] = []

    def manifest(one: dict[str, Any]) -> dict[str, Any]:
        asked.append(int(one["id"], 16))
        return {"lsn": f"0/{int(one['id'], 16):X}", "name": int(one["id"], 16)}

    many = [snapshot("0", number) | {"id": f"{number:08x}"} for number in range(1000)]
    assert rules.set_before(many, "0/200", manifest)["name"] == 512
    assert len(asked) == len(set(asked)) <= 11


def test_a_moment_has_the_image_of_the_set_before_it_and_the_files_of_any() -> None:
    files, away = {"location": "files", "files": 7}, {"location": "s3"}
    old, new = {"image": {"id": "old"}, "attachments": away}, {"image": {"id": "new"}, "attachments": files}
    assert rules.of_moment([old, new]) == {"image": {"id": "old"}, "attachments": files}
    assert rules.of_moment([new, old]) == new
    assert rules.of_moment([old]) == old


@pytest.mark.parametrize("value", ["dddddddd", "a", "", "aaaaaaab"])
def test_a_set_that_is_not_there_is_refused_with_those_that_are(value: str) -> None:
    with pytest.raises(rules.Refused, match=r"bbbbbbbb \(2026-11-25T12:30:00Z\)"):
        rules.pick_snapshots(SNAPSHOTS, Target("set", value))


@given(st.randoms())
def test_by_chance_a_drill_goes_back_to_what_is_between_the_oldest_and_the_newest(random: Any) -> None:
    target = rules.older(SNAPSHOTS, [backup("full", -60, "0/1")], random)
    assert rules.older(SNAPSHOTS[:1], [], random) is None
    # What the database cannot go back to is no target.
    assert rules.older(SNAPSHOTS, [backup("full", 40, "0/1")], random) is None
    if target.kind == "set":
        assert target.value[:8] in ("aaaaaaaa", "bbbbbbbb")
    else:
        assert NOON <= rules.moment(target.value) <= NOON + timedelta(minutes=61)


def test_a_set_ends_before_its_position_on_its_own_timeline() -> None:
    before = {"label": "full", "archive": {"stop": "000000020000000000000006"}}
    arguments = rules.restore_arguments(Target("set", "bbbb"), MANIFEST, before, ["main"])
    assert {"--set=full", "--db-include=main", "--type=lsn", "--target=0/7000148", "--target-exclusive", "--target-timeline=3"} <= set(
        arguments
    )
    assert "--archive-mode=off" in arguments
    # Nobody asks for the history of the timeline that the backup is of.
    same = {"label": "full", "archive": {"stop": "000000030000000000000006"}}
    assert "--target-timeline=current" in rules.restore_arguments(Target("set", "bbbb"), MANIFEST, same, ["main"])


def test_a_time_is_handed_on_in_utc() -> None:
    arguments = rules.restore_arguments(Target("time", "2026-11-25 14:03:59+01:00"), None, {"label": "full"}, [])
    assert "--target=2026-11-25 13:03:59.000000+00" in arguments and "--archive-mode=off" in arguments
    assert not any(argument.startswith("--db-include") for argument in arguments)


# --- room, time ---


def test_what_serves_keeps_its_room() -> None:
    assert rules.room_problem(10, 10 + rules.RESERVE, "/srv") == ""
    assert "a copy needs 2.0 GB below /srv" in rules.room_problem(2 << 30, 2 << 30, "/srv")


def test_minutes_are_estimated_from_the_latest_drill() -> None:
    old = {"kind": "restore", "date": "2026-11-01T00:00:00Z", "bytes": 1, "restore_s": 9999, "copy_s": 9999}
    new = {"kind": "restore", "date": "2026-11-20T00:00:00Z", "bytes": 1 << 30, "restore_s": 90.0, "copy_s": 60.0}
    assert rules.estimate(rules.needed(2 << 30, 0), [new, old, {"kind": "failover"}]) == 2.5
    assert rules.estimate(1 << 30, []) is None
    assert rules.estimate(1 << 30, [{"kind": "restore", "date": "2026-11-20T00:00:00Z", "bytes": 0, "restore_s": 3.0}]) is None


def test_recovery_gets_the_source_s_limits() -> None:
    control = "max_connections setting:              150\nmax_prepared_xacts setting:           7\nmax_locks_per_xact setting:  64\n"
    settings = rules.server_settings(control)
    assert {
        "max_connections=150",
        "max_prepared_transactions=7",
        "max_locks_per_transaction=64",
        "archive_mode=off",
        "listen_addresses=",
    } <= set(settings)


# --- nothing may get out ---

COLUMNS = {
    "ir_mail_server": {
        "active": "boolean",
        "smtp_pass": "character varying",
        "smtp_user": "character varying",
        "smtp_ssl_private_key": "bytea",
    },
    "payment_provider": {
        "state": "character varying",
        "stripe_secret_key": "character varying",
        "token_inline_form_view_id": "integer",
        "code": "text",
    },
    "ir_config_parameter": {"key": "character varying", "value": "text"},
    "ir_act_server": {"webhook_url": "character varying"},
    "base_automation": {"webhook_uuid": "character varying"},
    "res_users_apikeys": {"id": "integer"},
    "res_partner": {"id": "integer", "name": "character varying", "phone": "character varying"},
}


def test_keys_of_any_module_are_emptied_and_looked_for() -> None:
    statements = rules.neutralising(COLUMNS)
    assert 'UPDATE "payment_provider" SET "stripe_secret_key" = NULL' in statements
    assert 'UPDATE "ir_mail_server" SET "smtp_pass" = NULL, "smtp_ssl_private_key" = NULL' in statements
    assert "DELETE FROM res_users_apikeys" in statements
    checks = rules.leak_checks(COLUMNS)
    assert any("stripe_secret_key" in words for words in checks) and "webhooks" in checks


@given(st.sets(st.sampled_from(sorted(COLUMNS))))
def test_tables_that_no_module_brought_are_not_asked_for(tables: set[str]) -> None:
    here = {table: COLUMNS[table] for table in tables}
    text = " ".join([*rules.neutralising(here), *rules.anonymising(here, "admin")])
    for table in ("payment_provider", "base_automation", "res_users_apikeys", "mail_message"):
        assert (table in text) == (table in tables)


def test_the_companies_and_the_administrator_stay_who_they_are() -> None:
    statements = rules.anonymising(COLUMNS, "o'brien")
    assert any(text.startswith('UPDATE "res_partner"') and "NOT IN (SELECT partner_id FROM res_company)" in text for text in statements)
    assert any("login <> 'o''brien'" in text for text in statements)


@given(st.text(min_size=1, max_size=40), st.binary(min_size=16, max_size=16))
def test_a_password_is_hashed_as_odoo_does(password: str, salt: bytes) -> None:
    hashed = rules.password_hash(password, salt)
    assert _odoo.password_matches(hashed, password) is True
    assert _odoo.password_matches(hashed, password + "x") is False
    assert hashlib.sha512(password.encode()).hexdigest() not in hashed


# --- what a drill found ---


def test_rows_may_differ_by_what_people_did_meanwhile_and_by_no_more() -> None:
    assert rules.row_problems({"a": 100000}, {"a": 99900}, exact=False) == []
    assert rules.row_problems({"a": 100000}, {"a": 99000}, exact=False) == ["the table a has 99000 rows, and the set says 100000"]
    assert rules.row_problems({"a": 5}, {"a": 4}, exact=True) == ["the table a has 4 rows, and the set says 5"]
    assert rules.row_problems({"a": 0}, {}, exact=False) == ["the table a is gone; it had 0 rows"]


def test_files_are_named() -> None:
    assert rules.file_problems([], []) == []
    [missing, damaged] = rules.file_problems([f"a{number}" for number in range(12)], ["b"])
    assert missing.startswith("12 files of attachments are missing: a0, a1") and missing.endswith("and 2 more")
    assert damaged == "1 files of attachments are damaged: b"


def record(**changes: Any) -> dict[str, Any]:
    given = {
        "instance": "main",
        "began": NOON,
        "steps": {"database: restore": 40.0, "database: replay": 20.0, "database: amcheck": 100.0, "odoo: start": 10.0},
        "found": {"position": "2026-11-25T11:59:00Z", "database_bytes": 1 << 30, "file_bytes": 1 << 30, "target": "set abc"},
        "problems": [],
        "objectives": {"restore_minutes": 2, "rpo_minutes": 5, "lost_writes": 0},
    }
    return dict(rules.evidence(**{**given, **changes}))


def test_what_only_a_drill_does_is_no_part_of_a_restore() -> None:
    found = record()
    assert (found["restore_s"], found["total_s"], found["copy_s"], found["gb_per_minute"], found["rpo_s"]) == (70.0, 170.0, 60.0, 2.0, 60.0)
    assert found["kept"] and found["kind"] == "restore"
    assert rules.evidence_name({**found, "of": "newest"}) == "restore-20261125T120000Z-main.json"
    # Both may begin in one second.
    assert rules.evidence_name({**found, "of": "older"}) == "restore-20261125T120000Z-older-main.json"
    assert found["objectives"] == {"restore_minutes": 2, "rpo_minutes": 5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objectives": {"restore_minutes": 1}}, "minutes to restore: 1.2, promised at most 1"),
        ({"objectives": {"rpo_minutes": 0.5}}, "minutes of work lost: 1.0, promised at most 0.5"),
        ({"problems": ["1 files of attachments are missing: x"]}, "1 files of attachments are missing: x"),
    ],
)
def test_a_broken_promise_is_said(changes: dict[str, Any], words: str) -> None:
    found = record(**changes)
    assert not found["kept"] and found["broken"] == [words]
    assert f"  BROKEN: {words}" in rules.lines(found)


def test_a_drill_that_could_not_begin_has_a_record_too() -> None:
    found = record(steps={}, found={}, problems=["the store does not answer"])
    assert not found["kept"] and found["rpo_s"] is None and found["bytes"] == 0
    assert any("work lost: unknown" in line for line in rules.lines(found))


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("Fatal: wrong password or no key found", "passphrase"),
        ("ERROR: [095]: CryptoError", "passphrase"),
        ("FATAL:  recovery ended before configured recovery target was reached", "choose an earlier time"),
        ("an unknown thing", ""),
    ],
)
def test_words_of_programs_are_explained(words: str, meaning: str) -> None:
    assert meaning in rules.cause(words) and bool(meaning) == bool(rules.cause(words))
