# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record of Odoo's log as a line of JSON. Knows nothing of Odoo."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any

MODES = ("ro", "rw", "ro->rw")
"""What Odoo says of a request's cursor where there is a replica."""


def performance(words: str) -> dict[str, Any]:
    """Return what Odoo writes behind the line of a request: queries, seconds of PostgreSQL and of Python, and the kind of cursor.

    Args:
        words: such as C(12 0.010 0.032), C(12 0.010 0.032 ro->rw), or C(- - -) where nothing was measured.
    """
    parts = words.split()
    try:
        found: dict[str, Any] = {"queries": int(parts[0]), "sql_s": float(parts[1]), "python_s": float(parts[2])}
    except (IndexError, ValueError):
        return {}
    if len(parts) > 3 and parts[3] in MODES:
        found["cursor"] = parts[3]
    return found


def line(entry: logging.LogRecord, thread: Any, traceback: str) -> str:
    """Return a record as one line.

    Args:
        entry: the record, with Odoo's attributes C(dbname) and C(perf_info) where Odoo made it.
        thread: the thread that logs; its attributes C(berth_request) and C(uid) say for which request and user.
        traceback: of the record's exception, or empty.
    """
    moment = datetime.datetime.fromtimestamp(entry.created, datetime.UTC)
    database, user = getattr(entry, "dbname", None), getattr(thread, "uid", None)
    found = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": entry.levelname.lower(),
        "logger": entry.name,
        "message": entry.getMessage(),
        "pid": entry.process,
        "database": database if database != "?" else None,
        "request": getattr(thread, "berth_request", None),
        "user": user if isinstance(user, int) else None,
        **performance(getattr(entry, "perf_info", "")),
        "exception": traceback or None,
    }
    return json.dumps({key: value for key, value in found.items() if value is not None}, default=str)
