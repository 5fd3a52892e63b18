# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Odoo's log as JSON: whatever is logged is one line that every reader understands. The add-on itself runs in tests/e2e."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

FILE = Path(__file__).resolve().parents[3] / "roles/images/files/odoo/berth_runtime/record.py"
spec = importlib.util.spec_from_file_location("record", FILE)
assert spec and spec.loader
record = importlib.util.module_from_spec(spec)
spec.loader.exec_module(record)


def written(message: str, *arguments: Any, thread: Any = None, traceback: str = "", **more: Any) -> dict[str, Any]:
    entry = logging.makeLogRecord(
        {"msg": message, "args": arguments, "levelname": "INFO", "name": "odoo.http", "created": 1732536000.5, "process": 7, **more}
    )
    line = record.line(entry, thread or SimpleNamespace(), traceback)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record_of_a_request() -> None:
    thread = SimpleNamespace(berth_request="0f", uid=2)
    assert written("GET %s", "/odoo", thread=thread, dbname="main", perf_info="12 0.010 0.032 ro->rw") == {
        "time": "2024-11-25T12:00:00.500Z",
        "level": "info",
        "logger": "odoo.http",
        "message": "GET /odoo",
        "pid": 7,
        "database": "main",
        "request": "0f",
        "user": 2,
        "queries": 12,
        "sql_s": 0.01,
        "python_s": 0.032,
        "cursor": "ro->rw",
    }


def test_what_is_not_known_is_not_there() -> None:
    assert set(written("started", dbname="?", perf_info="- - -")) == {"time", "level", "logger", "message", "pid"}


def test_a_traceback_is_part_of_its_record() -> None:
    assert written("failed", traceback="Traceback:\n  line\nError")["exception"] == "Traceback:\n  line\nError"


@pytest.mark.parametrize("words", ["", "-", "1 2", "a b c", "- - - -"])
def test_figures_that_are_none(words: str) -> None:
    assert record.performance(words) == {}


@given(st.text(st.characters()))
def test_any_message_is_one_line(text: str) -> None:
    assert written("%s", text)["message"] == text
    assert record.line(logging.makeLogRecord({"msg": "%s", "args": (text,)}), SimpleNamespace(), "").isascii()
