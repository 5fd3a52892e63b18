# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an error means that the database went away, and whether a request may be served again after it.

Pure functions: no import of Odoo or of the driver, no I/O, no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

LOST = frozenset(
    {
        "57P01",  # admin_shutdown: PostgreSQL stops, or somebody ended the backend
        "57P02",  # crash_shutdown: another process of it died
        "57P03",  # cannot_connect_now: it starts, stops or recovers
        "57P05",  # idle_session_timeout
        "25006",  # read_only_sql_transaction: what led a moment ago is a standby now
        "53300",  # too_many_connections: everybody comes back at once
    }
)
"""SQLSTATEs after which another connection may do better. Class 08, connection exceptions, is lost as a whole: PgBouncer uses 08P01 for all it says."""

LASTING = ("does not exist", "authentication failed", "no such database", "no such user")
"""Words of a server that refuses a login for a reason that waiting does not remove. Not "no pg_hba.conf entry": a primary closes that door before it stops."""

OWN = ("odoo.sql_db", "odoo.addons.berth_runtime.repeat")
"""Modules that talk to Odoo's own database. An add-on may talk to others, and their loss is its business."""

UNLIMITED_S = 60.0
"""Seconds in which a request may be repeated where limit_time_real sets no limit."""


class Commit(enum.Enum):
    """What became of the changes of a request."""

    NONE = "nothing was committed"
    SENT = "a COMMIT was sent and not answered"
    DONE = "a COMMIT was acknowledged"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that it was raised from or during, the error first.

    Odoo hides what happened: a failed session check becomes AccessDenied, and closing the cursor raises again.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__context__, one.__cause__]


def is_lost(error: BaseException) -> bool:
    """Whether this error, without its causes, says that the connection or the primary is gone.

    Args:
        error: anything; only errors of psycopg2 can be it.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] == "psycopg2"}
    words = str(error)
    code = getattr(error, "pgcode", None)
    if code:
        # The last one: Odoo asks for a transaction that may write, which a standby refuses with feature_not_supported.
        return code in LOST or code.startswith("08") or (code == "0A000" and "during recovery" in words)
    if "OperationalError" in kinds:
        # A login that failed, or a connection that broke: neither has an SQLSTATE in psycopg2.
        return not any(lasting in words for lasting in LASTING)
    # Odoo's own "Cursor already closed" is a mistake of a program.
    return "InterfaceError" in kinds and "connection already closed" in words


def is_own(error: BaseException) -> bool:
    """Whether an error of the driver comes from a connection of Odoo itself."""
    module = ""
    trace = error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] != "psycopg2":
            module = name
        trace = trace.tb_next
    return module in OWN


def reason(error: BaseException) -> BaseException | None:
    """Return the oldest error in the chain that says that Odoo's database went away, None when none does."""
    found = None
    for one in chain(error):
        # What follows the loss of a connection on the same connection explains nothing.
        if is_lost(one) and is_own(one) and (found is None or type(one).__name__ != "InterfaceError"):
            found = one
    return found


def budget(limit_time_real: float) -> float:
    """Return the seconds after its arrival in which a request may be begun anew.

    A repetition may take as long as what it repeats, and a worker that is busy for limit_time_real is killed. So half of it.

    Args:
        limit_time_real: Odoo's setting, seconds; 0 is no limit.
    """
    return limit_time_real / 2 if limit_time_real > 0 else UNLIMITED_S


def pause(attempt: int) -> float:
    """Return the seconds to wait after a failed attempt, 1 being the first. Short: the pooler is where one waits for a primary."""
    return min(0.1 * 2 ** (attempt - 1), 1.0)


def verdict(commit: Commit, spent: float, wait: float, allowed: float) -> str:
    """Return why a request must not be served again, in words for its user; empty when it may.

    Args:
        commit: what became of its changes.
        spent: seconds since it arrived.
        wait: seconds that would be waited first.
        allowed: result of :func:`budget`.
    """
    if commit is Commit.SENT:
        return "The database was lost while this was being saved. It may have been saved or not: reload and look before you do it again."
    if commit is Commit.DONE:
        return "The database was lost after this was saved, or a part of it. Reload and look before you do it again."
    if spent + wait > allowed:
        return "The database cannot be reached and nothing was saved. Please do it again in a minute."
    return ""
