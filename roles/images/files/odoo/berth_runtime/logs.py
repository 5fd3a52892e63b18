# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give every request an id, which the edge's log has too, and write the log as JSON, one record a line with its traceback.

Written for Odoo 19.0; what it relies on is checked when it is loaded.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from odoo import http, netsvc
from werkzeug.wsgi import ClosingIterator

from . import fits
from .record import line

HEADER = "X-Request-Id"

EXPECTED: fits.Expected = {
    "odoo.http.Application.__call__": (http.Application.__call__, "(self, environ, start_response)", ("current_thread.query_count = 0",)),
    "odoo.netsvc.PerfFilter.filter": (netsvc.PerfFilter.filter, "(self, record)", ("record.perf_info = '%s %s %s'",)),
}


def unexpected() -> list[str]:
    """Return what is not as in the Odoo that this was written for, in words."""
    return fits.differences(EXPECTED)


def number_requests() -> None:
    """Answer each request with an id of its own, and keep that for what is logged meanwhile. The client's word for it is not taken."""
    serve = http.Application.__call__

    def numbered(self: Any, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        thread: Any = threading.current_thread()
        thread.berth_request = identifier = secrets.token_hex(8)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, (HEADER, identifier)], *more)

        # The line of the request is logged while its answer is sent.
        return ClosingIterator(serve(self, environ, start), lambda: vars(thread).pop("berth_request", None))

    http.Application.__call__ = numbered


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return line(record, threading.current_thread(), self.formatException(record.exc_info) if record.exc_info else "")


def post_load(*, numbered: bool, as_json: bool) -> None:
    """Put the pieces in place.

    Args:
        numbered: this process answers requests.
        as_json: the log is to be JSON.

    Raises:
        SystemExit: Odoo is not as expected.
    """
    if problems := unexpected():
        raise SystemExit(f"berth_runtime does not fit this Odoo: {'; '.join(problems)}")
    if numbered:
        number_requests()
    if as_json:
        for handler in logging.getLogger().handlers:
            # Another one writes to the database.
            if isinstance(handler, logging.StreamHandler):
                handler.setFormatter(JsonFormatter())
