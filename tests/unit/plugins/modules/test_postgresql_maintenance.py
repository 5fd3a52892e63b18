# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What maintenance does in which order, and that a table that cannot be had keeps no other from its turn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._psql import PsqlError
from ansible_collections.berth.odoo.plugins.modules import postgresql_maintenance

MB = 2**20
CLUSTER = {"in_recovery": False, "version": "17.12", "running": 0, "freeze_max_age": 200_000_000, "ages": {"main": 1000}, "held_by": []}
REMOVAL = ["SET lock_timeout = '1s';", "DROP EXTENSION IF EXISTS pg_repack CASCADE;"]


def table(name: str) -> dict[str, Any]:
    return {
        "name": f"public.{name}",
        "size": 10 * MB,
        "total_size": 12 * MB,
        "wasted": 8 * MB,
        "has_key": True,
        "has_invalid_index": False,
        "has_own_function": False,
    }


class Server(postgresql_maintenance.Server):
    """Answers as prepared, and remembers what it was told."""

    def __init__(self, cluster: dict[str, Any] | None = None, held: str = "", busy: int = 0) -> None:
        self.cluster = {**CLUSTER, **(cluster or {})}
        self.held, self.busy = held, busy
        self.told: list[str] = []
        statistics = [{"name": name, "rows": 10, "changed": 9, "missing": False} for name in ("a", "b", "c")]
        self.report = {
            "size": 100 * MB,
            "counted_days": 1,
            "checksum_failures": 0,
            "repack": False,
            "invalid_indexes": [],
            "unused_indexes": [],
            "tables": [table("a"), table("b")],
            "statistics": statistics,
        }

    def ask(self, script: str) -> Any:
        if script == postgresql_maintenance.maintenance.CLUSTER:
            return self.cluster
        return ["main"] if script == postgresql_maintenance.maintenance.DATABASES else self.report

    def tell(self, database: str, *statements: str) -> None:
        self.told += statements
        if list(statements) == REMOVAL and self.busy:
            self.busy -= 1
            raise PsqlError("psql ended with exit code 3: <stdin>:3: ERROR:  canceling statement due to lock timeout")

    def repack(self, database: str, table: str) -> int:
        if table == self.held:
            raise PsqlError("users had it")
        self.told.append(f"repack {table}")
        return 4 * MB


def options(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {"window": "", "databases": [], "bloat_percent": 30, "bloat_mb": 1, "unused_days": 30, "data_dir": str(tmp_path), **changes}


def test_what_is_rewritten_is_not_analyzed_again(tmp_path: Path) -> None:
    server = Server()
    result = postgresql_maintenance.run(server, options(tmp_path), check_mode=False)
    assert server.told == [
        *("CREATE EXTENSION pg_repack;", "repack public.a", "repack public.b"),
        *(*REMOVAL, "ANALYZE c;"),
    ]
    assert (result["changed"], result["failed_steps"], result["record"]["freed_bytes"]) == (True, [], 16 * MB)
    assert "freed 16 MB" in result["report"]


def test_a_table_that_cannot_be_had_keeps_no_other_from_its_turn(tmp_path: Path) -> None:
    server = Server(held="public.a")
    result = postgresql_maintenance.run(server, options(tmp_path), check_mode=False)
    assert result["failed_steps"] == ["repack of public.a in main: users had it"]
    assert server.told == ["CREATE EXTENSION pg_repack;", "repack public.b", *REMOVAL, "ANALYZE a;", "ANALYZE c;"]


def test_what_an_interrupted_run_left_is_removed_where_nothing_is_rewritten(tmp_path: Path) -> None:
    server = Server()
    # There is no room for it: perhaps because of what was left, which grows with each write.
    server.report |= {"repack": True, "tables": [{**table("a"), "total_size": 2**62}], "statistics": []}
    result = postgresql_maintenance.run(server, options(tmp_path), check_mode=False)
    assert server.told == REMOVAL
    assert (result["changed"], result["failed_steps"]) == (True, [])


def test_removing_waits_for_a_pause_and_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = Server(busy=2)
    server.report |= {"repack": True, "tables": [], "statistics": []}
    assert postgresql_maintenance.run(server, options(tmp_path), check_mode=False)["failed_steps"] == []
    assert server.told == REMOVAL * 3


def test_what_cannot_be_removed_is_said_and_nothing_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = Server(busy=1000)
    server.report["repack"] = True
    result = postgresql_maintenance.run(server, options(tmp_path), check_mode=False)
    assert "removal of an interrupted pg_repack of all tables in main: users had its tables" in result["failed_steps"][0]
    assert "main: public.a wastes 8.0 MB, and pg_repack is to be removed first" in result["report"]
    assert [told for told in server.told if told not in REMOVAL] == ["ANALYZE a;", "ANALYZE b;", "ANALYZE c;"]


@pytest.mark.parametrize("running", [0, 1])
def test_a_report_says_that_a_run_was_interrupted(tmp_path: Path, running: int) -> None:
    server = Server({"running": running})
    server.report["repack"] = True
    result = postgresql_maintenance.run(server, options(tmp_path), check_mode=True)
    assert (result["changed"], server.told) == (not running, [])
    assert any("pg_repack was interrupted here" in line for line in result["report"]) == (not running)


def test_a_report_tells_nothing(tmp_path: Path) -> None:
    server = Server({"running": 1})
    result = postgresql_maintenance.run(server, options(tmp_path, window="mon 03:00-03:01"), check_mode=True)
    assert (result["changed"], server.told) == (False, [])


@pytest.mark.parametrize(
    ("cluster", "changes", "words"),
    [
        ({"in_recovery": True}, {}, "this is a standby"),
        ({"running": 1}, {}, "at work already"),
        ({}, {"databases": ["mian"]}, "no database mian. There are: main"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, cluster: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    server = Server(cluster)
    with pytest.raises(postgresql_maintenance.Refused, match=words):
        postgresql_maintenance.run(server, options(tmp_path, **changes), check_mode=False)
    assert server.told == []
