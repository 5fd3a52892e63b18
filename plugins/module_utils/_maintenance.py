# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the databases of a cluster waste or lack, what is to be done, and when: SQL and pure functions. No Ansible import, no I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([a-z]{3}(?:,[a-z]{3})*) )?(\d\d):(\d\d)-(\d\d):(\d\d)")

# Of 2^31 transactions that may lie between the oldest and the newest. PostgreSQL stops accepting writes three millions before.
WRAPAROUND = 2**31
WRAPAROUND_WARNING = 50
"""Percent. Autovacuum begins at 9 with its defaults, so this is what it did not get done."""

ANALYZE_PERCENT = 10
"""A table's statistics are old when so many of its rows changed since; autovacuum's default limit, which the platform sets lower."""


class Window(NamedTuple):
    """When maintenance may run, by the host's clock in UTC."""

    opens: datetime
    closes: datetime

    def open_at(self, now: datetime) -> bool:
        """Whether it is open."""
        return self.opens <= now < self.closes


def window(text: str, now: datetime) -> Window:
    """Return the occurrence of a window that is open, or else the next one.

    Args:
        text: Such as ``sat,sun 22:00-05:00``, days of its beginning and UTC; without days every day.
        now: In UTC.

    Raises:
        ValueError: The text is no window.
    """
    found = _WINDOW.fullmatch(text.strip().lower())
    days = (found[1] or ",".join(DAYS)).split(",") if found else []
    clock = [int(number) for number in found.groups()[1:]] if found else []
    if not found or not set(days) <= set(DAYS) or max(clock[0], clock[2]) > 23 or max(clock[1], clock[3]) > 59:
        raise ValueError(
            f"{text!r} is no window. Type days of the week (or none, for every day) and two times in UTC: 'sat,sun 22:00-05:00'"
        )
    length = timedelta(minutes=(clock[2] - clock[0]) * 60 + clock[3] - clock[1])
    if length <= timedelta():
        length += timedelta(days=1)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = (midnight + timedelta(days=number, hours=clock[0], minutes=clock[1]) for number in range(-1, 8))
    occurrences = (Window(start, start + length) for start in starts if DAYS[start.weekday()] in days)
    return next(one for one in occurrences if one.closes > now)


# --- what is asked ---------------------------------------------------------------------------------------------------------------------

DATABASES = "SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres'"

CLUSTER = """
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'version', current_setting('server_version'),
  'running', (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_repack'),
  'freeze_max_age', current_setting('autovacuum_freeze_max_age')::bigint,
  'ages', (SELECT json_object_agg(datname, greatest(age(datfrozenxid), mxid_age(datminmxid))) FROM pg_database),
  'held_by', (SELECT coalesce(json_agg(words ORDER BY held DESC), '[]') FROM (
      SELECT 'replication slot ' || slot_name, greatest(age(xmin), age(catalog_xmin)) FROM pg_replication_slots
      UNION ALL SELECT 'prepared transaction ' || gid, age(transaction) FROM pg_prepared_xacts
      UNION ALL SELECT 'transaction of ' || usename || ' since ' || xact_start, age(backend_xmin) FROM pg_stat_activity
        WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()) AS holders (words, held) WHERE held > 1000000));
"""

# The extension is made in a transaction that is rolled back: a report leaves nothing in the database. In a table with a fill factor that part is
# room that was meant to be free. pgstattuple_approx reads only pages that are not known to hold live rows alone.
REPORT = """
\\connect -reuse-previous=on {dbname}
BEGIN;
SET LOCAL lock_timeout = '10s';
CREATE SCHEMA berth_maintenance;
CREATE EXTENSION IF NOT EXISTS pgstattuple SCHEMA berth_maintenance;
SELECT nspname AS place FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pgstattuple' \\gset
SELECT json_build_object(
  'size', pg_database_size(current_database()),
  'counted_days', (SELECT round(extract(epoch FROM now() - coalesce(stats_reset, pg_postmaster_start_time())) / 86400)
      FROM pg_stat_database WHERE datname = current_database()),
  'checksum_failures', (SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()),
  'repack', EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_repack'),
  'tables', (SELECT coalesce(json_agg(one ORDER BY wasted DESC), '[]') FROM (
      SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_relation_size(c.oid) AS size, pg_total_relation_size(c.oid) AS total_size,
        greatest(0, (measured.approx_free_space + measured.dead_tuple_len - pg_relation_size(c.oid) * (100 - fill.factor) / 100)::bigint) AS wasted,
        EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND NOT i.indisvalid) AS has_invalid_index,
        EXISTS (SELECT FROM pg_index i JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
          LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
          LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
          JOIN pg_roles r ON r.oid = coalesce(p.proowner, o.oprowner) WHERE i.indrelid = c.oid AND NOT r.rolsuper) AS has_own_function,
        EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)) AS has_key
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (SELECT coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
          WHERE option_name = 'fillfactor'), 100) AS factor) fill
        CROSS JOIN LATERAL :"place".pgstattuple_approx(c.oid) measured
      WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^(pg_|information_schema$|berth_|repack$)' AND pg_relation_size(c.oid) >= {least}
    ) one WHERE wasted >= {least}),
  'invalid_indexes', (SELECT coalesce(json_agg(json_build_object('name', i.indexrelid::regclass, 'table', i.indrelid::regclass)), '[]')
      FROM pg_index i WHERE NOT i.indisvalid OR NOT i.indisready),
  'unused_indexes', (SELECT coalesce(json_agg(json_build_object('name', s.indexrelid::regclass, 'table', s.relid::regclass,
        'size', pg_relation_size(s.indexrelid)) ORDER BY pg_relation_size(s.indexrelid) DESC), '[]')
      FROM pg_stat_user_indexes s JOIN pg_index i USING (indexrelid)
      WHERE s.idx_scan = 0 AND NOT i.indisunique AND i.indisvalid AND pg_relation_size(s.indexrelid) >= {least}
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = s.indexrelid)),
  'statistics', (SELECT coalesce(json_agg(json_build_object('name', s.relid::regclass, 'rows', greatest(c.reltuples::bigint, s.n_live_tup),
        'changed', s.n_mod_since_analyze,
        'missing', NOT EXISTS (SELECT FROM pg_statistic p WHERE p.starelid = s.relid))), '[]')
      FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
      WHERE s.schemaname !~ '^(berth_|repack$)'
        AND ((c.reltuples > 0 OR s.n_live_tup > 0) AND NOT EXISTS (SELECT FROM pg_statistic p WHERE p.starelid = s.relid)
        OR s.n_mod_since_analyze > 1000 + {percent} * s.n_live_tup / 100)));
ROLLBACK;
"""

# An interrupted pg_repack: those that are at work are no interrupted ones.
WHERE_REPACK = """
SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres'
  AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pg_repack');
"""
# Its log of changes lives as long as this trigger, which is made with it.
LEFT_BY_REPACK = """
\\connect -reuse-previous=on {dbname}
SELECT json_build_object('database', current_database(), 'tables', (SELECT coalesce(json_agg(tgrelid::regclass ORDER BY tgrelid::regclass::text), '[]')
  FROM pg_trigger WHERE tgname = 'repack_trigger' AND NOT tgisinternal));
"""

SIZE = "\\connect -reuse-previous=on {dbname}\nSELECT pg_total_relation_size({table}::regclass);"


# --- what follows ----------------------------------------------------------------------------------------------------------------------


def to_repack(tables: Sequence[Mapping[str, Any]], percent: int, free_bytes: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the tables that are to be rewritten, those first that give most, and a sentence for each that should be and cannot.

    Args:
        tables: C(tables) of a report.
        percent: Part of a table that must be wasted.
        free_bytes: Space on the disk of the data. While a table is rewritten it is there twice, and its changes are in the WAL.
    """
    chosen, left = [], []
    for table in tables:
        if table["wasted"] * 100 < percent * table["size"]:
            continue
        if not table["has_key"]:
            left.append(
                f"{table['name']} wastes {megabytes(table['wasted'])} and has no primary key, without which pg_repack cannot follow its rows"
            )
        elif table["has_own_function"]:
            left.append(
                f"{table['name']} wastes {megabytes(table['wasted'])} and has an index by a function of its owner, which pg_repack would run as the superuser"
            )
        elif table["has_invalid_index"]:
            left.append(f"{table['name']} wastes {megabytes(table['wasted'])} and has an invalid index, which is to be repaired first")
        elif table["total_size"] * 2 > free_bytes:
            left.append(
                f"{table['name']} wastes {megabytes(table['wasted'])}, and to rewrite it takes {megabytes(table['total_size'] * 2)} of disk while "
                f"{megabytes(free_bytes)} are free"
            )
        else:
            chosen.append(dict(table))
    return chosen, left


def megabytes(size: float) -> str:
    """Return a size for a person."""
    return f"{size / 2**20:.0f} MB" if size >= 10 * 2**20 else f"{size / 2**20:.1f} MB"


def problems(cluster: Mapping[str, Any], databases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what somebody should do something about, one sentence each; nothing when all is well."""
    found = []
    for name, age in sorted(cluster["ages"].items()):
        percent = age * 100 // WRAPAROUND
        if percent >= WRAPAROUND_WARNING:
            held = f", held up by {', '.join(cluster['held_by'])}" if cluster["held_by"] else ""
            found.append(
                f"{name} has used {percent} % of its transaction numbers{held}: at 100 % nothing can be written. Find out what stops autovacuum"
            )
    for name, report in databases.items():
        for index in report["invalid_indexes"]:
            found.append(
                f"{name}: the index {index['name']} of {index['table']} is invalid: written and never read. Type on the primary: "
                f"docker exec postgresql-postgresql-1 psql -U postgres -d {name} -c 'REINDEX INDEX CONCURRENTLY {index['name']}'"
            )
        if report["checksum_failures"]:
            found.append(
                f"{name}: {report['checksum_failures']} damaged pages were read: the disk loses data. Hand over, and make this member anew"
            )
    return found


def lines(cluster: Mapping[str, Any], databases: Mapping[str, Mapping[str, Any]], unused_days: int) -> list[str]:
    """Return the report for a person."""
    oldest = max(cluster["ages"].values(), default=0)
    text = [
        f"transaction numbers: at most {oldest * 100 // WRAPAROUND} % used, autovacuum begins at {cluster['freeze_max_age'] * 100 // WRAPAROUND} %"
    ]
    for name, report in databases.items():
        text.append(f"{name}: {megabytes(report['size'])}")
        if report["repack"] and not cluster["running"]:
            text.append(
                "  pg_repack was interrupted here. At the table that it had under way, each change may be kept a second time until a run removes it"
            )
        text += [
            f"  {table['name']}: {megabytes(table['wasted'])} of {megabytes(table['size'])} wasted ({table['wasted'] * 100 // table['size']} %)"
            for table in report["tables"]
        ]
        text += [
            f"  {one['name']}: {'no statistics' if one['missing'] else 'old statistics'}, {one['changed']} of {one['rows']} rows changed"
            for one in report["statistics"]
        ]
        unused = report["unused_indexes"]
        if unused and report["counted_days"] < unused_days:
            text.append(
                f"  unused indexes: uses are counted for {report['counted_days']:.0f} days, which says nothing before {unused_days}"
            )
        elif unused:
            text += [
                f"  {one['name']} of {one['table']}: {megabytes(one['size'])}, not used for {report['counted_days']:.0f} days"
                for one in unused
            ]
    return text


def record(
    cluster: Mapping[str, Any],
    before: Mapping[str, Mapping[str, Any]],
    *,
    done: Sequence[Mapping[str, Any]],
    left: Sequence[str],
    moment: float,
) -> dict[str, Any]:
    """Return the evidence of a run as plain data.

    Args:
        cluster: Answer to CLUSTER.
        before: Database to the answer to REPORT before anything was done.
        done: What was done, each with ``what``, ``database``, ``table``, ``seconds``, ``freed_bytes``, and ``error``, which
            is empty when it succeeded.
        left: Sentences about what should have been done and was not.
        moment: Seconds since the epoch.
    """
    return {
        "kind": "maintenance",
        "date": f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "version": cluster["version"],
        "transaction_ages": dict(cluster["ages"]),
        "databases": {name: dict(report) for name, report in before.items()},
        "done": [dict(step) for step in done],
        "left": list(left),
        "freed_bytes": sum(step["freed_bytes"] for step in done),
        "problems": problems(cluster, before),
    }


def record_name(moment: float) -> str:
    """Return the name of the evidence's file."""
    return f"maintenance-{datetime.fromtimestamp(moment, UTC):%Y%m%dT%H%M%SZ}.json"
