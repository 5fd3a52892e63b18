# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve a request again when its database connection was lost before anything was committed.

Odoo repeats a transaction after a lock, serialization or deadlock error and never after a lost connection: the request fails, and a page
load ends the login. Here everything that Odoo does with a database for one request, from the registry over the session check to the
commit, is done again, on another connection and from the request as it arrived.

It is repeated only when no COMMIT of a transaction that wrote something was sent. Whether it wrote is asked of PostgreSQL right before, which also
finds most connections that are dead without COMMIT having to. After a COMMIT without an answer nobody knows; the user is told so.

Written for Odoo 19.0. It wraps four functions and relies on some more; what it relies on is checked when it is loaded.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Any

import psycopg2
from odoo import http, release, sql_db
from odoo.exceptions import UserError
from odoo.service import model, server
from odoo.tools import config
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from werkzeug.exceptions import default_exceptions

from . import fits, lost

_logger = logging.getLogger(__name__)

SERVICE_UNAVAILABLE = 503
CONNECTION = sql_db.PsycoConnection
_UNREADABLE = "The database was lost and nothing was saved. Please do it again."

EXPECTED: fits.Expected = {
    "odoo.http.Request._serve_db": (
        http.Request._serve_db,
        "(self)",
        (
            "registry.cursor(readonly=True)",
            "raise RegistryError",
            "service_model.retrying(serve_func, env=self.env)",
            "finally:",
            "cr.close()",
        ),
    ),
    "odoo.http.Request.__init__": (
        http.Request.__init__,
        "(self, httprequest)",
        ("self.future_response = FutureResponse()", "_dispatchers['http']"),
    ),
    "odoo.http.Request._get_session_and_dbname": (http.Request._get_session_and_dbname, "(self)", ("return session, dbname",)),
    "odoo.http.Request.reroute": (http.Request.reroute, "(self, path, query_string=None)", ("self.httprequest = httprequest",)),
    "odoo.http.HttpDispatcher.handle_error": (
        http.HttpDispatcher.handle_error,
        "(self, exc: Exception) -> collections.abc.Callable",
        ("exc.http_status",),
    ),
    "odoo.service.model.retrying": (model.retrying, "(func, env)", ("env.cr.flush()", "env.cr.commit()", "env.cr.rollback()")),
    "odoo.sql_db.Cursor.commit": (sql_db.Cursor.commit, "(self) -> None", ("self._cnx.commit()", "self.postcommit.run()")),
    "odoo.sql_db.Cursor.rollback": (sql_db.Cursor.rollback, "(self) -> None", ("self._cnx.rollback()",)),
    "odoo.sql_db.Cursor._close": (sql_db.Cursor._close, "(self, leak: bool = False) -> None", ("self.rollback()",)),
    "odoo.service.server.PreforkServer.process_spawn": (
        server.PreforkServer.process_spawn,
        "(self)",
        ("check_registries()", "self.worker_spawn"),
    ),
}


class _Attempt(threading.local):
    """What became of the changes of the request that this thread serves; ``serves`` is False outside of requests."""

    serves = False
    commit = lost.Commit.NONE


_attempt = _Attempt()


def unexpected() -> list[str]:
    """Return what is not as in the Odoo that this was written for, in words."""
    found = []
    if release.version_info[:2] != (19, 0):
        found.append(f"this is Odoo {release.version}, and the add-on was written for 19.0")
    found += fits.differences(EXPECTED)
    if {"commit", "rollback"} & set(vars(CONNECTION)):
        found.append("odoo.sql_db.PsycoConnection has a commit or rollback of its own")
    return found


def commit(self: Any) -> None:
    """Send COMMIT on a connection of Odoo, and keep book of it for the request that is being served."""
    # A transaction that failed is rolled back by COMMIT, and answers no question.
    if not _attempt.serves or self.get_transaction_status() != TRANSACTION_STATUS_INTRANS:
        super(CONNECTION, self).commit()
        return
    with self.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        [wrote] = cursor.fetchone()
    before = _attempt.commit
    if wrote:
        _attempt.commit = lost.Commit.SENT
    try:
        super(CONNECTION, self).commit()
    except psycopg2.Error as error:
        if error.pgcode and not self.closed:
            # The server refused it and goes on: a constraint that is checked last, say.
            _attempt.commit = before
        raise
    if wrote:
        _attempt.commit = lost.Commit.DONE


def rewind(request: Any, arrived: dict[str, Any]) -> str:
    """Make a request what it was when it arrived; return why that cannot be done, in words for its user, empty when it was.

    Args:
        request: Odoo's request.
        arrived: its attributes when it arrived.
    """
    httprequest = arrived["httprequest"]
    # Of a path that was rewritten (a language in front of it) the body was read by another object, and is gone.
    if request.httprequest is not httprequest and httprequest.content_length:
        return _UNREADABLE
    for file in httprequest.files.values():
        if not (hasattr(file, "seekable") and file.seekable()):
            return _UNREADABLE
        file.seek(0)
    vars(request).clear()
    vars(request).update(arrived)
    request.future_response = http.FutureResponse()
    request.dispatcher = http._dispatchers["http"](request)
    request.registry = request.env = None
    thread: Any = threading.current_thread()
    thread.url = httprequest.url
    request.session, request.db = request._get_session_and_dbname()
    return ""


def excuse(words: str) -> UserError:
    """Return the error that says to a user, or to a program, what happened: a message in the browser, HTTP status 503 elsewhere."""
    error = UserError(words)
    error.http_status = SERVICE_UNAVAILABLE
    return error


def post_load() -> None:
    """Put the functions in place.

    Raises:
        SystemExit: Odoo is not as expected. Odoo logs any other error of an add-on and serves without it.
    """
    problems = unexpected()
    if problems or SERVICE_UNAVAILABLE not in default_exceptions:
        raise SystemExit(
            f"berth_runtime does not fit this Odoo: {'; '.join(problems)}. To serve without it, set odoo_repeat_requests: false (or take "
            "berth_runtime out of server_wide_modules)."
        )
    serve_once = http.Request._serve_db
    spawn = server.PreforkServer.process_spawn

    def _serve_db(self: Any) -> Any:
        """Serve a request with a database, again where its connection was lost."""
        began = time.monotonic()
        arrived = dict(vars(self))
        for attempt in itertools.count(1):
            _attempt.serves, _attempt.commit = True, lost.Commit.NONE
            try:
                response = serve_once(self)
            except Exception as error:
                reason = lost.reason(error)
                if reason is None:
                    raise
                failure = error
            else:
                if attempt > 1:
                    _logger.info("%s: served at attempt %s, %.1f s after it arrived", _who(arrived), attempt, time.monotonic() - began)
                return response
            finally:
                _attempt.serves = False
            wait, spent = lost.pause(attempt), time.monotonic() - began
            words = lost.verdict(_attempt.commit, spent, wait, lost.budget(config["limit_time_real"])) or rewind(self, arrived)
            what = f"{_who(arrived)}: the database was lost ({_line(reason)}) {spent:.1f} s after it arrived, {_attempt.commit.value}"
            if words:
                _logger.error("%s; not repeated", what)
                raise excuse(words) from failure
            _logger.warning("%s; attempt %s in %.1f s", what, attempt + 1, wait)
            time.sleep(wait)
        raise AssertionError("unreachable")

    def process_spawn(self: Any) -> None:
        """Start the workers that are missing; without a database later, where Odoo would end all of them."""
        try:
            spawn(self)
        except Exception as error:
            reason = lost.reason(error)
            if reason is None:
                raise
            _logger.warning("The database was lost (%s); missing workers are started when it is back", _line(reason))

    CONNECTION.commit = commit
    http.Request._serve_db = _serve_db
    server.PreforkServer.process_spawn = process_spawn
    _logger.info("Requests that lose the database are repeated for up to %.0f s", lost.budget(config["limit_time_real"]))


def _who(arrived: dict[str, Any]) -> str:
    httprequest = arrived["httprequest"]
    return f"{httprequest.method} {httprequest.path} of user {arrived['session'].uid or '-'}"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
