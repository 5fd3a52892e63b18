# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When maintenance may run, what it rewrites, and what it says; the SQL is tried on a real server by tests/ha."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _maintenance as maintenance

MB = 2**20
SATURDAY = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "now", "opens", "open_now"),
    [
        ("sat,sun 22:00-05:00", SATURDAY + timedelta(hours=23), SATURDAY + timedelta(hours=22), True),
        ("sat 22:00-05:00", SATURDAY + timedelta(hours=28), SATURDAY + timedelta(hours=22), True),  # after midnight it is still Saturday's
        ("sat 22:00-05:00", SATURDAY + timedelta(hours=29), SATURDAY + timedelta(days=7, hours=22), False),
        ("Sun 02:00-04:30", SATURDAY + timedelta(hours=12), SATURDAY + timedelta(hours=26), False),
        ("02:00-04:00", SATURDAY + timedelta(hours=2), SATURDAY + timedelta(hours=2), True),
        ("02:00-04:00", SATURDAY + timedelta(hours=4), SATURDAY + timedelta(hours=26), False),
        ("00:00-00:00", SATURDAY + timedelta(hours=13), SATURDAY, True),  # the whole day
    ],
)
def test_a_window_is_open_from_its_beginning_to_its_end(text: str, now: datetime, opens: datetime, open_now: bool) -> None:
    found = maintenance.window(text, now)
    assert (found.opens, found.open_at(now)) == (opens, open_now)


@pytest.mark.parametrize(
    "text", ["", "22:00", "sat 22:00-5:00", "samstag 22:00-05:00", "sat, sun 22:00-05:00", "xyz 22:00-05:00", "24:00-05:00", "22:60-05:00"]
)
def test_what_is_no_window_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="Type days of the week"):
        maintenance.window(text, SATURDAY)


@given(
    now=st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1)),
    day=st.sampled_from(["", *maintenance.DAYS]),
    start=st.times(),
    end=st.times(),
)
def test_every_window_opens_within_a_week_and_closes_within_a_day(now: datetime, day: str, start: Any, end: Any) -> None:
    text = f"{day} {start:%H:%M}-{end:%H:%M}".strip()
    aware = now.replace(tzinfo=UTC)
    found = maintenance.window(text, aware)
    assert found.closes > aware
    assert found.opens - aware <= timedelta(days=7)
    assert timedelta() < found.closes - found.opens <= timedelta(days=1)
    assert not day or maintenance.DAYS[found.opens.weekday()] == day


def table(name: str = "public.stock_move", wasted: int = 60, size: int = 100, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "size": size * MB,
        "total_size": 2 * size * MB,
        "wasted": wasted * MB,
        "has_key": True,
        "has_invalid_index": False,
        "has_own_function": False,
        **changes,
    }


def test_what_wastes_enough_is_rewritten_where_that_can_be_done() -> None:
    tables = [
        table(),
        table("public.a", wasted=20),
        table("public.b", has_key=False),
        table("public.c", total_size=600 * MB),
        table("public.d", has_invalid_index=True),
        table("public.e", has_own_function=True),
    ]
    chosen, left = maintenance.to_repack(tables, 30, 1000 * MB)
    assert [one["name"] for one in chosen] == ["public.stock_move"]
    assert len(left) == 4
    assert "public.b wastes 60 MB and has no primary key" in left[0]
    assert "public.d wastes 60 MB and has an invalid index" in left[2]
    assert "public.e wastes 60 MB and has an index by a function of its owner" in left[3]
    assert "public.c wastes 60 MB, and to rewrite it takes 1200 MB of disk while 1000 MB are free" in left[1]


def cluster(**changes: Any) -> dict[str, Any]:
    return {
        "version": "17.12",
        "running": 0,
        "ages": {"main": 1000, "template1": 2000},
        "held_by": [],
        "freeze_max_age": 200_000_000,
        **changes,
    }


def report(**changes: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"tables": [], "invalid_indexes": [], "unused_indexes": [], "statistics": []}
    return {"size": 500 * MB, "counted_days": 90, "checksum_failures": 0, "repack": False, **empty, **changes}


def test_a_database_that_is_well_has_no_problems() -> None:
    assert maintenance.problems(cluster(), {"main": report()}) == []


def test_what_somebody_should_do_something_about_is_said_with_what_to_type() -> None:
    old = cluster(ages={"main": 1_500_000_000}, held_by=["replication slot db3"])
    found = maintenance.problems(old, {"main": report(invalid_indexes=[{"name": "a_idx", "table": "a"}], checksum_failures=2)})
    assert len(found) == 3
    assert "main has used 69 % of its transaction numbers, held up by replication slot db3" in found[0]
    assert "psql -U postgres -d main -c 'REINDEX INDEX CONCURRENTLY a_idx'" in found[1]
    assert "2 damaged pages" in found[2]


def test_an_index_is_called_unused_only_after_uses_were_counted_for_long_enough() -> None:
    unused = [{"name": "a_idx", "table": "a", "size": 20 * MB}]
    text = "\n".join(maintenance.lines(cluster(), {"main": report(unused_indexes=unused)}, 30))
    assert "a_idx of a: 20 MB, not used for 90 days" in text
    text = "\n".join(maintenance.lines(cluster(), {"main": report(unused_indexes=unused, counted_days=3)}, 30))
    assert "a_idx" not in text
    assert "counted for 3 days" in text


def test_the_evidence_is_plain_data_with_a_name_by_its_time() -> None:
    moment = SATURDAY.timestamp()
    done = [{"what": "repack", "database": "main", "table": "public.a", "seconds": 1.5, "freed_bytes": MB, "error": ""}]
    record = maintenance.record(cluster(), {"main": report()}, done=done, left=[], moment=moment)
    assert (record["kind"], record["date"], record["done"], record["freed_bytes"]) == ("maintenance", "2026-11-28T00:00:00Z", done, MB)
    assert maintenance.record_name(moment) == "maintenance-20261128T000000Z.json"
