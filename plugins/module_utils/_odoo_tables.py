# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What some tables of Odoo need of PostgreSQL that the server's parameters cannot give to one table alone.

Odoo sets no storage parameter, no statistics target and no extended statistics itself. The server's parameters (``_sizing``) already
make autovacuum eager for every table, so a table is here only where the same number would be wrong for it. Not here, on purpose:

* ``ir_attachment.url``: asked for in odoo/odoo#141633; Odoo 19.0 has that index (``index='btree_not_null'``).
* ``orm_signaling_*``: Odoo 19.0 purges them itself and keeps ten rows (``_gc_orm_signaling``).
* ``res_device_log``, ``res_users_log``, ``ir_logging``: they only grow, and the server's insert scale factor of 0.05 does for that.
* ``fillfactor`` on what is only inserted and deleted (``bus_bus``, ``ir_cron_trigger``): there is no new version to leave room for.

Pure data and functions. ``_odoo_inside`` compares them with a database and changes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ansible_collections.berth.odoo.plugins.module_utils._odoo_inside import INDEX, STATISTICS, index_name, parse_key
from ansible_collections.berth.odoo.plugins.module_utils._validate import Problem, describe, nearest

VARIABLE = "odoo_table_parameters"
TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# PostgreSQL cuts longer names.
LONGEST_NAME = 63

# Each entry is a storage parameter by PostgreSQL's name, ``toast.`` before it for the table's TOAST table, or
#   statistics(column): N       statistics target of a column, N instead of the server's 200
#   statistics(column, …): True  extended statistics (ndistinct, dependencies, mcv) on columns together
#   index(column, …): True      a btree index, named as Odoo would name it, so that an Odoo that brings it later makes no second
# Tags of sources: (odoo) the source code of Odoo 19.0; owner/repository#number; (judgement) not measured under Odoo's load.
TABLES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Every notification is a row for at most a day, then all of a day go at once (odoo: _gc_messages). A fraction of a table
        # whose size follows the time of day means nothing, so a number of rows (judgement). odoo/odoo#278542.
        "bus_bus": {
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 5000,
            # What is left behind is read by each poll of the bus: vacuum it at full speed (judgement).
            "autovacuum_vacuum_cost_delay": 0,
            # The daily purge and a browser's first poll search by it, and Odoo 19.0 has no index on it. odoo/odoo#278542.
            "index(create_date)": True,
        },
        # A row for each user, updated again and again while they are there (odoo: mail.presence). No updated column has an index, so
        # room in the page lets PostgreSQL prune by itself, and a vacuum every few hundred updates is enough. odoo/odoo#30382.
        "mail_presence": {
            "fillfactor": 50,
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 500,
        },
        # A row for each member of each channel, updated by each message read (odoo). odoo/odoo#30382.
        "discuss_channel_member": {
            "fillfactor": 50,
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 500,
        },
        # Some dozen rows, each locked and updated by each run of its job and read by every cron worker each minute (odoo). Without
        # indexes on what is updated, as above (judgement).
        "ir_cron": {
            "fillfactor": 50,
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 200,
        },
        # A queue: rows come, are read by every cron worker, and go (odoo). (judgement)
        "ir_cron_trigger": {
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 500,
        },
        # A row for each run of a job, updated once or twice, purged after a week (odoo). (judgement)
        "ir_cron_progress": {
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 1000,
        },
        # OCA's queue: each job is updated about five times, and the runner reads the table all the time. (judgement)
        "queue_job": {
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 1000,
            # Arguments and results of jobs are long texts, purged together.
            "toast.autovacuum_vacuum_scale_factor": 0,
            "toast.autovacuum_vacuum_threshold": 1000,
        },
        # Sequences without gaps are a row that each document updates, under a lock (odoo: _predict_nextval, number_next). (judgement)
        "ir_sequence": {
            "fillfactor": 20,
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 50,
        },
        "ir_sequence_date_range": {
            "fillfactor": 20,
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 50,
        },
        # Warehouse tables: a row is updated several times within the hours of a transfer, then hardly ever again. Room for one more
        # version in each page, and estimates that follow a dispatch peak (judgement).
        "stock_quant": {
            "fillfactor": 85,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
            # A few bins hold much, thousands hold little: a sample of 60,000 rows misses the latter.
            "statistics(location_id)": 500,
        },
        "stock_move": {
            "fillfactor": 85,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
            # Nearly all are done, and what people search is the rest: a larger sample sees the rare states. Measured on made data: 425 of
            # 1,500,000 rows were estimated at 225 with 200 and at 350 with 500, and ANALYZE took 0.9 s instead of 0.4 s.
            "statistics(state)": 500,
            # States are not the same in each company; multiplied, their frequencies are wrong.
            "statistics(company_id, state)": True,
        },
        "stock_move_line": {
            "fillfactor": 85,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
        },
        "stock_picking": {
            "fillfactor": 85,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
            "statistics(company_id, state)": True,
        },
        # Ledgers: inserted, then read by date or account for years. An eager vacuum after inserts keeps the visibility map fresh, which
        # reports scan by index alone with, and spares one long anti-wraparound vacuum (judgement).
        "account_move_line": {
            "autovacuum_vacuum_insert_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
            # As stock_move's state: nearly everything is posted.
            "statistics(parent_state)": 500,
            "statistics(company_id, parent_state)": True,
        },
        "product_value": {
            "autovacuum_vacuum_insert_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
        },
        "mail_message": {
            "autovacuum_vacuum_insert_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
        },
        "mail_tracking_value": {
            "autovacuum_vacuum_insert_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.01,
        },
        # Large, and a part of them changes or goes every day; the texts lie in TOAST tables, which count for themselves (judgement).
        "mail_notification": {
            "autovacuum_vacuum_scale_factor": 0.02,
            "toast.autovacuum_vacuum_scale_factor": 0.02,
        },
        "mail_mail": {
            "autovacuum_vacuum_scale_factor": 0.02,
            "toast.autovacuum_vacuum_scale_factor": 0.02,
        },
        "mail_followers": {
            "autovacuum_vacuum_scale_factor": 0.02,
            "toast.autovacuum_vacuum_scale_factor": 0.02,
        },
        "ir_attachment": {
            "autovacuum_vacuum_scale_factor": 0.02,
            "toast.autovacuum_vacuum_scale_factor": 0.02,
        },
    }
)

_INT = 2**31 - 1
# Storage parameters of PostgreSQL 17's tables with their least and greatest value; none are switches
# (src/backend/access/common/reloptions.c).
_NUMBERS: Mapping[str, tuple[type[int] | type[float], int, int]] = MappingProxyType(
    {
        "fillfactor": (int, 10, 100),
        "parallel_workers": (int, 0, 1024),
        "toast_tuple_target": (int, 128, 8160),
        "autovacuum_vacuum_threshold": (int, 0, _INT),
        "autovacuum_vacuum_scale_factor": (float, 0, 100),
        "autovacuum_vacuum_insert_threshold": (int, -1, _INT),
        "autovacuum_vacuum_insert_scale_factor": (float, 0, 100),
        "autovacuum_analyze_threshold": (int, 0, _INT),
        "autovacuum_analyze_scale_factor": (float, 0, 100),
        "autovacuum_vacuum_cost_delay": (float, 0, 100),
        "autovacuum_vacuum_cost_limit": (int, 1, 10_000),
        "autovacuum_freeze_min_age": (int, 0, 1_000_000_000),
        "autovacuum_freeze_max_age": (int, 100_000, 2_000_000_000),
        "autovacuum_freeze_table_age": (int, 0, 2_000_000_000),
        "autovacuum_multixact_freeze_min_age": (int, 0, 1_000_000_000),
        "autovacuum_multixact_freeze_max_age": (int, 10_000, 2_000_000_000),
        "autovacuum_multixact_freeze_table_age": (int, 0, 2_000_000_000),
        "log_autovacuum_min_duration": (int, -1, _INT),
    }
)
_SWITCHES = ("autovacuum_enabled", "vacuum_truncate")
_ONLY_HEAP = (
    "fillfactor",
    "parallel_workers",
    "toast_tuple_target",
    "autovacuum_analyze_threshold",
    "autovacuum_analyze_scale_factor",
)
_TOAST = "toast."
_KNOWN = frozenset({*_NUMBERS, *_SWITCHES, *(f"{_TOAST}{name}" for name in (*_NUMBERS, *_SWITCHES) if name not in _ONLY_HEAP)})
_HIGHEST_TARGET = 10_000
_MOST_STATISTICS_COLUMNS = 8


def check_tables(host: str, value: Any) -> Iterator[Problem]:
    """Find what is wrong with ``odoo_table_parameters``.

    Args:
        host: Whose variable it is; empty when that does not matter.
        value: What a person wrote.
    """
    hosts = (host,) if host else ()
    if not isinstance(value, Mapping):
        yield Problem(hosts, VARIABLE, describe(value), "tables with their parameters", f"{VARIABLE}: {{stock_move: {{fillfactor: 80}}}}")
        return
    for table, entries in value.items():
        path = f"{VARIABLE}.{table}"
        if not TABLE_NAME.fullmatch(str(table)):
            remedy = f"name a table, not a model: {str(table).replace('.', '_')}"
            yield Problem(hosts, path, describe(table), "a table's name (a-z, 0-9 and '_')", remedy)
        elif isinstance(entries, Mapping):
            for key, entry in entries.items():
                yield from (Problem(hosts, f"{path}.{key}", *words) for words in _entry_problems(str(table), str(key), entry))
        elif entries is not None:
            yield Problem(hosts, path, describe(entries), "parameters, or null", f"{VARIABLE}: {{{table}: {{fillfactor: 80}}}}")


def _entry_problems(table: str, key: str, value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield what was found, what was expected and what to type."""
    kind, columns = parse_key(key)
    if kind not in (STATISTICS, INDEX):
        yield from _parameter_problems(key, value)
        return
    for column in columns:
        if not TABLE_NAME.fullmatch(column):
            yield describe(column), "a column's name (a-z, 0-9 and '_')", f"type {kind}(column), or {kind}(one, other)"
            return
    if value is None:
        return
    if kind == STATISTICS and len(columns) == 1:
        if _number(value, int) is None or not 0 <= int(value) <= _HIGHEST_TARGET:
            yield describe(value), f"a statistics target, 0 to {_HIGHEST_TARGET}", "500 suits a column with many values"
    elif value is not True:
        yield describe(value), "true, or null to leave it to others", f"{key}: true"
    if kind == STATISTICS and len(columns) > _MOST_STATISTICS_COLUMNS:
        yield f"{len(columns)} columns", f"{_MOST_STATISTICS_COLUMNS} at most", "name those that depend on each other"
    if len(columns) != len(set(columns)):
        yield "a column twice", "each once", f"remove one from {key}"
    if len(index_name(table, columns)) > LONGEST_NAME:
        yield "a name for it that PostgreSQL would cut", f"{LONGEST_NAME} characters", "name fewer columns"


def _parameter_problems(key: str, value: Any) -> Iterator[tuple[str, str, str]]:
    if key not in _KNOWN:
        match = nearest(key, _KNOWN)
        remedy = f"did you mean {match}?" if match else "see CREATE TABLE, storage parameters, in PostgreSQL's manual"
        yield "an unknown name", "a storage parameter of PostgreSQL 17, statistics(column) or index(column)", remedy
        return
    name = key.removeprefix(_TOAST)
    if value is None:
        return
    if name in _SWITCHES:
        if not isinstance(value, bool):
            yield describe(value), "true or false", f"{key}: true"
        return
    kind, low, high = _NUMBERS[name]
    number = _number(value, kind)
    if number is None or not low <= number <= high:
        yield describe(value), f"a {'whole ' if kind is int else ''}number from {low} to {high}", f"{key}: {low}"


def _number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """Return a number that may have been written as text, as on the command line; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return kind(str(value))
    except ValueError:
        return None


def merge_tables(override: Mapping[str, Mapping[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """Return what the tables shall have: ours, with a person's entries in place of or beside them; null takes an entry out.

    Args:
        override: Checked by :func:`check_tables`.
    """
    merged: dict[str, dict[str, Any]] = {table: dict(entries) for table, entries in TABLES.items()}
    for table, entries in override.items():
        known = merged.pop(table, {})
        if entries is None:
            continue
        # One spelling for each, however many spaces somebody types.
        plain = {_spelling(key): value for key, value in entries.items()}
        kept = {key: _plain(key, value) for key, value in {**known, **plain}.items() if value is not None}
        if kept:
            merged[table] = kept
    return merged


def absent_tables(override: Mapping[str, Any], wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the tables that a person, and not the collection alone, wants something for and that a database does not have.

    Args:
        override: What the person wrote.
        wanted: As :func:`merge_tables` returned it.
        found: Tables that exist, of those wanted.
    """
    return sorted(table for table in override if table in wanted and table not in found)


def _plain(key: str, value: Any) -> Any:
    """Return a checked value in the form that goes into a statement."""
    if isinstance(value, bool):
        return value
    number = _number(value, _NUMBERS.get(key.removeprefix(_TOAST), (int,))[0])
    return value if number is None else number


def _spelling(key: str) -> str:
    kind, columns = parse_key(key)
    return f"{kind}({', '.join(columns)})" if kind in (STATISTICS, INDEX) else key
