# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patroni's dynamic configuration and PostgreSQL's view of its own files, as pure functions."""

from __future__ import annotations

from typing import Any

SETTINGS_SCRIPT = """
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'loaded', extract(epoch FROM pg_conf_load_time()),
  'file', (SELECT json_object_agg(name, setting) FROM (
      SELECT DISTINCT ON (name) name, setting FROM pg_file_settings ORDER BY name, seqno DESC) last),
  'errors', (SELECT coalesce(json_object_agg(name, error), '{}') FROM pg_file_settings
      WHERE error IS NOT NULL AND name NOT IN (SELECT s.name FROM pg_settings s WHERE s.pending_restart)),
  'pending', (SELECT coalesce(json_object_agg(name, current_setting(name)), '{}') FROM pg_settings
      WHERE pending_restart));
"""
"""What PostgreSQL runs with beside what its files say. ``pg_file_settings`` reads the files at the moment of the query."""


HEALTH_SCRIPT = """
SELECT json_build_object(
  'damaged', (SELECT coalesce(json_object_agg(coalesce(datname, 'shared tables'), checksum_failures), '{}') FROM pg_stat_database
      WHERE checksum_failures > 0),
  'lost_slots', (SELECT coalesce(json_agg(slot_name ORDER BY slot_name), '[]') FROM pg_replication_slots WHERE wal_status = 'lost'),
  'archive_waiting', (SELECT count(*) FROM pg_ls_archive_statusdir()
      WHERE name LIKE '%.ready' AND current_setting('archive_mode') <> 'off'),
  'archive_waiting_s', (SELECT coalesce(extract(epoch FROM now() - min(modification)), 0)::bigint FROM pg_ls_archive_statusdir()
      WHERE name LIKE '%.ready' AND current_setting('archive_mode') <> 'off'),
  'huge_pages', current_setting('huge_pages_status') = 'on',
  'huge_pages_needed', current_setting('shared_memory_size_in_huge_pages')::bigint);
"""
"""What one server alone knows of its ills: pages whose checksum was wrong when they were read, replication slots whose WAL is gone, and WAL that
waits for archive_command, with the age of the oldest in seconds; and whether its shared memory is in huge pages, and how many that are. Where nothing is
archived none waits, although Patroni marks some so when it recovers a server that crashed."""


# A standby does not start with less of these than its primary has, so they can be lowered on the primary first only.
PRIMARY_FIRST = ("max_connections", "max_locks_per_transaction", "max_prepared_transactions", "max_wal_senders", "max_worker_processes")


def merge(current: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with a patch applied as Patroni applies it: recursively, None removes a key."""
    merged = dict(current)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def refused(wanted: dict[str, Any], state: dict[str, Any]) -> list[str]:
    """Return a sentence for each wanted parameter that PostgreSQL's files do not hold, or that it cannot read.

    Patroni drops unknown parameters and bounds values with nothing but a line in its log.
    """
    problems = []
    later = held_up(wanted, state)
    for name, value in sorted(wanted.items()):
        if name in later:
            continue
        if name not in state["file"]:
            problems.append(f"{name}: Patroni does not know this parameter or refused its value {value!r}")
        elif str(state["file"][name]) != str(value):
            problems.append(f"{name}: asked for {value!r}, Patroni wrote {state['file'][name]!r}")
        elif name in state["errors"]:
            problems.append(f"{name} = {value!r}: {state['errors'][name]}")
    return problems


def held_up(wanted: dict[str, Any], state: dict[str, Any]) -> dict[str, str]:
    """Return the parameters that Patroni keeps as high on a standby as on its primary until that one was restarted: name to value."""
    found = {}
    for name in PRIMARY_FIRST if state["in_recovery"] else ():
        kept, value = str(state["file"].get(name, "")), str(wanted.get(name, ""))
        if kept.isdigit() and value.isdigit() and int(kept) > int(value):
            found[name] = kept
    return found


def pending_restart(wanted: dict[str, Any], state: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the parameters that wait for a restart: name to the running and the configured value."""
    waiting = {name: {"running": kept, "configured": str(wanted[name])} for name, kept in held_up(wanted, state).items()}
    for name, running in state["pending"].items():
        waiting[name] = {"running": running, "configured": str(state["file"].get(name, "(default)"))}
    return dict(sorted(waiting.items()))
