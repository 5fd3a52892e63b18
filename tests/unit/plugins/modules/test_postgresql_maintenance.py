# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What maintenance does in which order, and that a table that cannot be had keeps no other from its turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._psql import PsqlError
from ansible_collections.berth.odoo.plugins.modules import postgresql_maintenance

MB = 2**20
CLUSTER = {"in_recovery": False, "version": "17.12", "running": 0, "freeze_max_age": 200_000_000, "ages": {"main": 1000}, "held_by": []}


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

    def __init__(self, cluster: dict[str, Any] | None = None, held: str = "") -> None:
        self.cluster = {**CLUSTER, **(cluster or {})}
        self.held = held
        self.told: list[str] = []
        statistics = [{"name": name, "rows": 10, "changed": 9, "missing": False} for name in ("a", "b", "c")]
        self.report = {
            "size": 100 * MB,
            "counted_days": 1,
            "checksum_failures": 0,
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
        *("DROP EXTENSION IF EXISTS pg_repack CASCADE;", "CREATE EXTENSION pg_repack;", "repack public.a", "repack public.b"),
        *("DROP EXTENSION IF EXISTS pg_repack CASCADE;", "ANALYZE c;"),
    ]
    assert (result["changed"], result["failed_steps"], result["record"]["freed_bytes"]) == (True, [], 16 * MB)
    assert "freed 16 MB" in result["report"]


def test_a_table_that_cannot_be_had_keeps_no_other_from_its_turn(tmp_path: Path) -> None:
    server = Server(held="public.a")
    result = postgresql_maintenance.run(server, options(tmp_path), check_mode=False)
    assert result["failed_steps"] == ["repack of public.a in main: users had it"]
    assert [told for told in server.told if "EXTENSION" not in told] == ["repack public.b", "ANALYZE a;", "ANALYZE c;"]
    assert server.told.count("DROP EXTENSION IF EXISTS pg_repack CASCADE;") == 2


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
