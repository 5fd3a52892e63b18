# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which errors mean that Odoo's database went away, and when a request may be served again. The add-on itself runs in tests/e2e and tests/ha."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

FILE = Path(__file__).resolve().parents[3] / "roles/images/files/odoo/berth_runtime/lost.py"
spec = importlib.util.spec_from_file_location("lost", FILE)
assert spec and spec.loader
lost = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lost)
Commit = lost.Commit


class Error(Exception):
    """As psycopg2's: the driver is not among the tests' packages."""

    __module__ = "psycopg2"

    def __init__(self, words: str, pgcode: str | None = None) -> None:
        super().__init__(words)
        self.pgcode = pgcode


class OperationalError(Error):
    __module__ = "psycopg2"


class AdminShutdown(OperationalError):
    __module__ = "psycopg2.errors"


class InterfaceError(Error):
    __module__ = "psycopg2"


class AccessDenied(Exception):
    """As Odoo's."""


def raised(error: BaseException, *modules: str) -> BaseException:
    """Raise an error in the last of some modules, called by those before, and return it."""

    call: Callable[[], None] | None = None
    for module in reversed(modules):
        scope: dict[str, Any] = {"__name__": module, "error": error, "inner": call}
        exec("def call():\n    if inner:\n        inner()\n    raise error\n", scope)  # noqa: S102
        call = scope["call"]
    assert call
    try:
        call()
    except type(error) as caught:
        return caught
    raise AssertionError("it was not raised")


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally"),
        OperationalError('connection to server at "pgbouncer" (172.18.0.3), port 6432 failed: Connection refused'),
        OperationalError('FATAL:  no pg_hba.conf entry for host "10.0.0.10", user "main", database "main"'),
        AdminShutdown("terminating connection due to administrator command\nSSL connection has been closed unexpectedly", "57P01"),
        OperationalError("query_wait_timeout", "08P01"),
        OperationalError("server login has been failing, try again later (server_login_retry)", "08P01"),
        OperationalError("the database system is starting up", "57P03"),
        Error("cannot execute UPDATE in a read-only transaction", "25006"),
        Error("cannot set transaction read-write mode during recovery", "0A000"),
        InterfaceError("connection already closed"),
    ],
)
def test_a_lost_database(error: BaseException) -> None:
    assert lost.reason(raised(error, "odoo.http", "odoo.sql_db")) is error
    assert lost.reason(raised(error, "odoo.sql_db", "psycopg2")) is error


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("could not serialize access due to concurrent update", "40001"),
        OperationalError("canceling statement due to statement timeout", "57014"),
        OperationalError('FATAL:  database "nothing" does not exist'),
        OperationalError('FATAL:  password authentication failed for user "main"'),
        OperationalError("could not extend file: No space left on device", "53100"),
        Error("materialized views are not supported here", "0A000"),
        Error("duplicate key value violates unique constraint", "23505"),
        InterfaceError("Cursor already closed"),
        ConnectionResetError("the mail server went away"),
        RuntimeError("connection already closed"),
    ],
)
def test_anything_else(error: BaseException) -> None:
    assert lost.reason(raised(error, "odoo.http", "odoo.sql_db")) is None


def test_the_loss_of_another_database_is_its_add_on_s_business() -> None:
    error = OperationalError("server closed the connection unexpectedly")
    assert lost.reason(raised(error, "odoo.sql_db", "odoo.addons.warehouse_link", "psycopg2")) is None


def test_what_odoo_made_of_it_is_seen_through() -> None:
    first = raised(AdminShutdown("terminating connection", "57P01"), "odoo.sql_db")
    denied = AccessDenied()
    denied.__context__ = first
    denied.__suppress_context__ = True
    closed = raised(InterfaceError("connection already closed"), "odoo.sql_db")
    closed.__context__ = denied
    assert lost.reason(closed) is first
    # Code that swallowed the first error leaves the second.
    closed.__context__ = None
    assert lost.reason(closed) is closed


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__cause__ = other, one
    assert len(list(lost.chain(one))) == 2
    assert lost.reason(one) is None


@given(st.floats(0, 1000), st.floats(0, 10), st.floats(0, 1000))
def test_after_a_commit_nothing_is_repeated(spent: float, wait: float, allowed: float) -> None:
    assert "may have been saved or not" in lost.verdict(Commit.SENT, spent, wait, allowed)
    assert "lost after this was saved" in lost.verdict(Commit.DONE, spent, wait, allowed)
    words = lost.verdict(Commit.NONE, spent, wait, allowed)
    assert bool(words) == (spent + wait > allowed)
    assert "nothing was saved" in words or not words


def test_a_repetition_may_take_as_long_as_what_it_repeats() -> None:
    assert lost.budget(120) == 60
    assert lost.budget(0) == lost.budget(-1) == 60


@given(st.integers(1, 1000))
def test_pauses_are_short_and_grow(attempt: int) -> None:
    assert 0 < lost.pause(attempt) <= lost.pause(attempt + 1) <= 1
