# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tables shall have, and the statements that bring them there. tests/e2e does it to a real Odoo."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _odoo_inside as inside
from ansible_collections.berth.odoo.plugins.module_utils import _odoo_tables as tables

COLUMNS = {"create_date", "state", "company_id", "location_id", "parent_state"}


def bare(**changes: Any) -> dict[str, Any]:
    """A table as Odoo makes it."""
    return {"options": {}, "toast": True, "columns": dict.fromkeys(COLUMNS, -1), "statistics": [], "indexes": [], **changes}


def index(name: str, *columns: str, valid: bool = True, plain: bool = True) -> dict[str, Any]:
    return {"name": name, "columns": list(columns), "valid": valid, "plain": plain}


def after(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What the database answers once the steps for it were performed."""
    result = {}
    for table, was in found.items():
        now: dict[str, Any] = {**was, "options": dict(was["options"]), "columns": dict(was["columns"])}
        for key, value in wanted.get(table, {}).items():
            kind, columns = inside.parse_key(key)
            if kind == inside.INDEX:
                now["indexes"] = [*now["indexes"], index("x", *columns)]
            elif kind == inside.STATISTICS and len(columns) > 1:
                now["statistics"] = [*now["statistics"], {"kinds": ["d", "f", "m"], "columns": columns}]
            elif kind == inside.STATISTICS:
                now["columns"][columns[0]] = value
            elif now["toast"] or not key.startswith("toast."):
                now["options"][key] = inside.shown(value)
        result[table] = now
    return result


# --- the collection's own table


def test_the_collections_table_passes_its_own_check() -> None:
    assert list(tables.check_tables("", {table: dict(entries) for table, entries in tables.TABLES.items()})) == []


def test_every_entry_becomes_a_statement_once() -> None:
    wanted = tables.merge_tables({})
    found = {table: bare() for table in wanted}
    steps = inside.table_steps(wanted, found)
    assert {step.table: {} for step in steps} == {table: {} for table in wanted}
    said = [(step.table, key) for step in steps for key in step.after]
    assert sorted(said) == sorted((table, key) for table, entries in wanted.items() for key in entries)
    assert inside.table_steps(wanted, after(wanted, found)) == []


def test_tables_that_are_not_there_are_left_out() -> None:
    wanted = tables.merge_tables({})
    assert {step.table for step in inside.table_steps(wanted, {"bus_bus": bare()})} == {"bus_bus"}


# --- statements


def test_one_statement_a_table_and_an_index_apart() -> None:
    wanted = {
        "stock_move": {
            "fillfactor": 85,
            "autovacuum_enabled": True,
            "toast.autovacuum_vacuum_scale_factor": 0.02,
            "statistics(state)": 500,
            "statistics(company_id, state)": True,
            "index(create_date)": True,
        }
    }
    step, build = inside.table_steps(wanted, {"stock_move": bare(options={"fillfactor": "70", "parallel_workers": "2"})})
    assert step.statements == [
        'ALTER TABLE "stock_move" SET (fillfactor = 85, autovacuum_enabled = true, toast.autovacuum_vacuum_scale_factor = 0.02), '
        'ALTER COLUMN "state" SET STATISTICS 500',
        'CREATE STATISTICS "berth_stock_move_company_id_state" ON "company_id", "state" FROM "stock_move"',
        'ANALYZE "stock_move"',
    ]
    assert step.text.startswith("set on table stock_move: fillfactor = 85 (was 70), autovacuum_enabled = true, ")
    assert build.statements == ['CREATE INDEX CONCURRENTLY "stock_move__create_date_index" ON "stock_move" ("create_date")']
    assert build.builds == "stock_move__create_date_index"


def test_storage_parameters_alone_need_no_new_statistics() -> None:
    (step,) = inside.table_steps({"ir_cron": {"fillfactor": 50}}, {"ir_cron": bare()})
    assert step.statements == ['ALTER TABLE "ir_cron" SET (fillfactor = 50)']


def test_a_table_without_toast_takes_no_toast_parameters() -> None:
    assert inside.table_steps({"mail_mail": {"toast.autovacuum_vacuum_threshold": 9}}, {"mail_mail": bare(toast=False)}) == []


def test_what_is_not_named_stays() -> None:
    found = {"ir_cron": bare(options={"fillfactor": "50", "autovacuum_vacuum_threshold": "7"}, columns={"state": 99})}
    assert inside.table_steps({"ir_cron": {"fillfactor": 50}}, found) == []


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("0.02", 0.02, True),
        (".020", 0.02, True),
        ("2e-2", 0.02, True),
        ("50", 50, True),
        ("50", 51, False),
        ("on", True, True),
        ("TRUE", True, True),
        ("off", True, False),
        ("0", False, True),
        ("auto", 1, False),
        (None, 0, False),
    ],
)
def test_values_are_compared_as_postgresql_reads_them(found: str | None, wanted: Any, same: bool) -> None:
    assert inside.same_value(found, wanted) is same


@pytest.mark.parametrize(
    ("there", "enough"),
    [
        (index("anything", "create_date"), True),
        (index("anything", "create_date", "id"), True),
        (index("anything", "id", "create_date"), False),
        (index("anything", "create_date", plain=False), False),
        (index("anything", "create_date", valid=False), False),
    ],
)
def test_an_index_of_another_name_will_do(there: dict[str, Any], enough: bool) -> None:
    assert (inside.table_steps({"t": {"index(create_date)": True}}, {"t": bare(indexes=[there])}) == []) is enough


def test_what_an_interrupted_build_left_is_built_again() -> None:
    found = {"bus_bus": bare(indexes=[index("bus_bus__create_date_index", "create_date", valid=False)])}
    (step,) = inside.table_steps({"bus_bus": {"index(create_date)": True}}, found)
    assert step.statements[0] == 'DROP INDEX CONCURRENTLY "bus_bus__create_date_index"'
    assert step.statements[1].startswith("CREATE INDEX CONCURRENTLY")
    assert step.text == "set on table bus_bus: index(create_date) = true (was invalid)"


def test_statistics_of_another_name_or_order_will_do_and_half_of_them_do_not() -> None:
    wanted = {"t": {"statistics(company_id, state)": True}}
    there = {"columns": ["state", "company_id"], "kinds": ["d", "f", "m"]}
    assert inside.table_steps(wanted, {"t": bare(statistics=[there])}) == []
    assert len(inside.table_steps(wanted, {"t": bare(statistics=[{**there, "kinds": ["d"]}])})) == 1


def test_a_column_that_does_not_exist_is_said_and_left_out() -> None:
    wanted = {"t": {"fillfactor": 50, "statistics(stat)": 500}, "absent": {"statistics(x)": 1}}
    found = {"t": bare()}
    assert inside.unknown_entries(wanted, found) == ["t.statistics(stat): table t has no column stat"]
    assert [step.after for step in inside.table_steps(wanted, found)] == [{"fillfactor": 50}]


# --- what a person writes


def test_a_persons_entries_replace_ours_come_beside_them_or_take_them_out() -> None:
    merged = tables.merge_tables(
        {
            "bus_bus": {"autovacuum_vacuum_threshold": "9000", "index( create_date )": None},
            "stock_move": {"statistics(company_id,state)": True, "toast.autovacuum_vacuum_scale_factor": "0.5"},
            "mail_followers": None,
            "x_scan": {"index(create_date)": True},
            "x_other": {"fillfactor": None},
        }
    )
    assert merged["bus_bus"] == {
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 9000,
        "autovacuum_vacuum_cost_delay": 0,
    }
    assert merged["stock_move"] == {**tables.TABLES["stock_move"], "toast.autovacuum_vacuum_scale_factor": 0.5}
    assert merged["x_scan"] == {"index(create_date)": True}
    assert not {"mail_followers", "x_other"} & set(merged)
    assert "index(create_date)" in tables.TABLES["bus_bus"]


def test_only_what_a_person_wants_and_the_database_lacks_is_worth_a_word() -> None:
    override = {"mail_mail": None, "queue_job": {"fillfactor": 60}, "x_scan": {"fillfactor": None}, "stock_mvoe": {"fillfactor": 60}}
    wanted = tables.merge_tables(override)
    assert tables.absent_tables(override, wanted, {"stock_move": {}}) == ["queue_job", "stock_mvoe"]
    assert tables.absent_tables({}, tables.merge_tables({}), {}) == []


@pytest.mark.parametrize(
    ("value", "subject", "words"),
    [
        (["bus_bus"], "odoo_table_parameters", ["a list"]),
        ({"stock.move": {}}, "odoo_table_parameters.stock.move", ["stock_move"]),
        ({"t": 5}, "odoo_table_parameters.t", ["5", "null"]),
        ({"t": {"fill_factor": 50}}, "odoo_table_parameters.t.fill_factor", ["did you mean fillfactor?"]),
        ({"t": {"zzz": 50}}, "odoo_table_parameters.t.zzz", ["CREATE TABLE"]),
        ({"t": {"toast.fillfactor": 50}}, "odoo_table_parameters.t.toast.fillfactor", ["unknown"]),
        ({"t": {"fillfactor": 5}}, "odoo_table_parameters.t.fillfactor", ["5", "10 to 100"]),
        ({"t": {"fillfactor": 50.5}}, "odoo_table_parameters.t.fillfactor", ["whole number"]),
        ({"t": {"fillfactor": True}}, "odoo_table_parameters.t.fillfactor", ["True", "whole number"]),
        ({"t": {"autovacuum_vacuum_scale_factor": "nan"}}, "odoo_table_parameters.t.autovacuum_vacuum_scale_factor", ["0 to 100"]),
        ({"t": {"autovacuum_enabled": "off"}}, "odoo_table_parameters.t.autovacuum_enabled", ["true or false"]),
        ({"t": {"statistics(state)": True}}, "odoo_table_parameters.t.statistics(state)", ["0 to 10000"]),
        ({"t": {"statistics(a, b)": 500}}, "odoo_table_parameters.t.statistics(a, b)", ["true"]),
        ({"t": {"statistics()": 500}}, "odoo_table_parameters.t.statistics()", ["column"]),
        ({"t": {'index(a"; drop)': True}}, 'odoo_table_parameters.t.index(a"; drop)', ["column"]),
        ({"t": {"index(a)": False}}, "odoo_table_parameters.t.index(a)", ["null"]),
        ({"t": {"index(a, a)": True}}, "odoo_table_parameters.t.index(a, a)", ["twice"]),
        ({"t" * 40: {f"index({'c' * 40})": True}}, f"odoo_table_parameters.{'t' * 40}.index({'c' * 40})", ["63"]),
        ({"t": {f"statistics({', '.join('abcdefghi')})": True}}, "odoo_table_parameters.t.statistics(a, b, c, d, e, f, g, h, i)", ["8"]),
    ],
)
def test_mistakes_say_what_to_type(value: Any, subject: str, words: list[str]) -> None:
    (problem,) = tables.check_tables("vm1", value)
    assert problem.hosts == ("vm1",)
    assert problem.subject == subject
    text = " ".join((problem.found, problem.expected, problem.remedy))
    assert all(word in text for word in words), text


NAMES = st.from_regex(r"\A[a-z_][a-z0-9_]{0,10}\Z")
ENTRIES = st.dictionaries(
    st.sampled_from(sorted(tables._KNOWN)) | NAMES.map(lambda name: f"statistics({name})") | NAMES.map(lambda name: f"index({name})"),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    max_size=4,
)


@given(st.dictionaries(NAMES | st.sampled_from(sorted(tables.TABLES)), st.none() | ENTRIES, max_size=3))
def test_what_passes_the_check_becomes_statements_that_a_second_run_does_not_repeat(value: Any) -> None:
    if list(tables.check_tables("", value)):
        return
    wanted = tables.merge_tables(value)
    columns = {column: -1 for entries in wanted.values() for key in entries for column in inside.parse_key(key)[1]}
    found = {table: bare(columns=columns) for table in wanted}
    for step in inside.table_steps(wanted, found):
        assert not any(mark in statement for statement in step.statements for mark in (";", "'", "None", "nan", "inf"))
    assert inside.table_steps(wanted, after(wanted, found)) == []
