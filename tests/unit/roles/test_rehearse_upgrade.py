# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rehearsed upgrade would have lost is said; the upgrade itself needs both versions and runs in a lab."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[3] / "roles/postgresql/files/rehearse_upgrade.py"
specification = importlib.util.spec_from_file_location("rehearse_upgrade", FILE)
assert specification and specification.loader
rehearse_upgrade = importlib.util.module_from_spec(specification)
sys.modules["rehearse_upgrade"] = rehearse_upgrade
specification.loader.exec_module(rehearse_upgrade)

WELL = {"collations_changed": 0, "extensions_behind": []}


def database(**changes: Any) -> dict[str, Any]:
    return {"relations": {"r": 10, "i": 20}, "constraints": 5, "immutable_functions": 1, "invalid_indexes": [], **changes}


def test_the_same_on_both_sides_is_no_problem() -> None:
    assert rehearse_upgrade.problems({"main": database()}, {"main": database()}, {"main": WELL}) == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({}, "the database main is gone"),
        ({"main": database(relations={"r": 10, "i": 19})}, "main: relations was {'r': 10, 'i': 20} and is {'r': 10, 'i': 19}"),
        ({"main": database(immutable_functions=0)}, "main: immutable_functions was 1 and is 0"),
        ({"main": database(invalid_indexes=["a_idx"])}, "main: invalid_indexes was [] and is ['a_idx']"),
    ],
)
def test_what_would_be_lost_is_said(after: dict[str, Any], words: str) -> None:
    assert rehearse_upgrade.problems({"main": database()}, after, {"main": WELL}) == [words]


def test_text_in_another_order_is_said() -> None:
    [words] = rehearse_upgrade.problems({"main": database()}, {"main": database()}, {"main": {**WELL, "collations_changed": 2}})
    assert words.startswith("main: 2 collations have another version")


def test_the_last_words_of_a_program_that_failed_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pg_upgrade"
    program.write_text("#!/bin/sh\necho 'Your installation references loadable libraries that are missing'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(rehearse_upgrade, "binaries", lambda _version: tmp_path)
    with pytest.raises(rehearse_upgrade.Failed, match=r"pg_upgrade ended with 1: .*libraries that are missing"):
        rehearse_upgrade.Rehearsal("17", "18", tmp_path, "1").call("pg_upgrade --check", "18", "pg_upgrade")
