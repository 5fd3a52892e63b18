# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What odoo_database and odoo_module decide."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _odoo as odoo
from ansible_collections.berth.odoo.plugins.module_utils._odoo_inside import TableStep

WANTED = {
    "language": "en_US",
    "country": "DE",
    "login": "admin",
    "parameters": {"report.url": "http://web:8069"},
    "modules": ["stock"],
    "provider": {},
    "passwords": True,
}
STATE = {
    "database": "main",
    "initialised": True,
    "unfinished": "",
    "languages": ["en_US"],
    "login": "admin",
    "parameters": {"report.url": "http://web:8069"},
    "websites": [],
    "modules": {"base": "installed", "stock": "installed"},
    "oidc": {"provider": {}, "odoo_com": False, "passwords": 1, "administrators": 0},
}
AWKWARD = "A$ %1\"'{b} # \\ : ü{{ 7*7 }}x"


def odoo_hash(password: str, rounds: int = 1000) -> str:
    """Return a hash in passlib's form, with few rounds so that a test is quick."""
    salt = b"0123456789abcdef"
    checksum = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    adapted = [base64.b64encode(part).decode().rstrip("=").replace("+", ".") for part in (salt, checksum)]
    return "$".join(["", "pbkdf2-sha512", str(rounds), *adapted])


def test_nothing_to_do() -> None:
    assert odoo.database_changes(WANTED, STATE, password_right=True) == []


def test_each_difference_is_named() -> None:
    changing = {"languages": ["de_DE"], "login": "old", "parameters": {}, "modules": {}, "unfinished": "berth: changing modules"}
    state = {**STATE, **changing, "files": 3, "files_elsewhere": 2}
    assert odoo.database_changes(WANTED, state, password_right=False) == [
        "clean up an interrupted change of modules",
        "load language en_US",
        "rename the administrator's login from old to admin",
        "set the administrator's password",
        "set system parameter report.url",
        "copy 3 attachments from files of this host into the database",
        "install stock",
    ]


def test_websites_say_who_may_sign_up_as_the_system_parameter_does() -> None:
    key = "auth_signup.invitation_scope"
    for value, scope, left in (("b2b", "b2b", "2 websites"), ("b2c", "b2c", "1 website"), ("nobody", "b2b", "2 websites")):
        wanted = {**WANTED, "parameters": {key: value}}
        state = {**STATE, "parameters": {key: value}, "websites": ["b2c", "b2b", "b2c"]}
        assert odoo.database_changes(wanted, state, password_right=True) == [f"set who may sign up on {left}"]
        assert odoo.database_view(state, wanted, [])["sign-up on websites"] == ["b2c", "b2b", "b2c"]
        assert odoo.wanted_view(state, wanted, True, [])["sign-up on websites"] == [scope] * 3
        assert odoo.database_changes(wanted, {**state, "websites": [scope] * 3}, password_right=True) == []


def test_websites_are_left_alone_where_nobody_says_who_may_sign_up() -> None:
    state = {**STATE, "websites": ["b2c"]}
    assert odoo.database_changes(WANTED, state, password_right=True) == []
    assert odoo.database_view(state, WANTED, []) == odoo.wanted_view(state, WANTED, True, [])


@pytest.mark.parametrize(("note", "verb"), [("", "initialise"), ("berth: initialising", "continue the interrupted initialisation of")])
def test_a_new_database_is_initialised_and_gets_its_modules(note: str, verb: str) -> None:
    state = {**STATE, "initialised": False, "unfinished": note, "modules": {}}
    assert odoo.database_changes(WANTED, state, password_right=True) == [f"{verb} database main", "install stock"]


def test_the_diff_never_shows_a_password() -> None:
    before, after = odoo.database_view(STATE, WANTED, []), odoo.wanted_view(STATE, WANTED, False, [])
    assert after["administrator's password"] == "(another one)"
    assert {**after, "administrator's password": None} == {**before, "administrator's password": None}


def test_the_wanted_language_is_added_to_those_there_are() -> None:
    assert odoo.wanted_view({**STATE, "languages": ["fr_FR"]}, WANTED, True, [])["languages"] == ["en_US", "fr_FR"]


def test_the_diff_shows_modules_and_the_entries_of_tables_that_differ() -> None:
    state = {**STATE, "modules": {"sale": "installed", "mrp": "to install"}}
    wanted = {**WANTED, "modules": ["stock", "sale", "mrp"]}
    steps = [
        TableStep("bus_bus", {"fillfactor": "90"}, {"fillfactor": 50, "toast.autovacuum_vacuum_threshold": 9}, []),
        TableStep("bus_bus", {}, {"index(create_date)": True}, [], "bus_bus__create_date_index"),
    ]
    before, after = odoo.database_view(state, wanted, steps), odoo.wanted_view(state, wanted, True, steps)
    assert (before["modules"], after["modules"]) == (["sale"], ["mrp", "sale", "stock"])
    assert before["tables"] == {"bus_bus": {"fillfactor": "90"}}
    assert after["tables"] == {"bus_bus": {"fillfactor": "50", "toast.autovacuum_vacuum_threshold": "9", "index(create_date)": "true"}}


# --- modules


def test_only_the_difference_is_changed() -> None:
    modules = {"stock": "installed", "sale": "to install"}
    assert odoo.modules_to_change(["sale", "stock", "sale"], True, modules) == ["sale"]
    assert odoo.modules_to_change(["sale", "stock"], False, modules) == ["stock"]


def test_names_that_cannot_be_modules() -> None:
    assert odoo.name_problems(["stock", "web_studio2"]) == []
    assert len(odoo.name_problems(["a;drop", "../x", "Stock", "--stop", ""])) == 5


def test_success_is_checked() -> None:
    after = {"modules": {"stock": "installed", "sale": "to upgrade"}, "parameters": {"base.partially_updated_database": "1"}}
    problems = odoo.after_problems(["stock", "sale", "mrp"], True, after)
    assert problems == [
        "sale is to upgrade",
        "mrp is uninstalled",
        "left between two states: sale (to upgrade)",
        "Odoo marked the database as partially updated",
    ]
    assert odoo.after_problems(["stock"], True, {"modules": {"stock": "installed"}, "parameters": {}}) == []


# --- passwords


def test_a_hash_that_odoos_library_made() -> None:
    # passlib 1.7.4 in Odoo 19's image: CryptContext(["pbkdf2_sha512"], pbkdf2_sha512__rounds=1000).hash(AWKWARD)
    stored = (
        "$pbkdf2-sha512$1000$c845hzBm7D1njHFurZWSUg$O1LYiXlpaOl3jzj0fSJt/eL05hnh.SRBTDoFw6v.yS226/pAypCPHW40sue9l/9NYggWUxuUIrg8i4hTbhE5nw"
    )
    assert odoo.password_matches(stored, AWKWARD) is True
    assert odoo.password_matches(stored, AWKWARD.lower()) is False


def test_a_user_without_a_password_has_another_one() -> None:
    assert odoo.password_matches("", "x") is False


@pytest.mark.parametrize("stored", ["plain", "$2b$12$abc", "$pbkdf2-sha512$x$a$b", "$pbkdf2-sha256$1000$YWJj$YWJj"])
def test_hashes_of_other_kinds_are_not_judged(stored: str) -> None:
    assert odoo.password_matches(stored, "x") is None


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), min_size=1))
def test_the_right_password_matches_and_another_does_not(password: str) -> None:
    stored = odoo_hash(password, rounds=2)
    assert odoo.password_matches(stored, password) is True
    assert odoo.password_matches(stored, password + "x") is False


def test_the_note_depends_on_everything() -> None:
    note = odoo.password_note(b"key", "hash", "password")
    others = [odoo.password_note(*args) for args in ((b"k", "hash", "password"), (b"key", "h", "password"), (b"key", "hash", "p"))]
    assert note not in others
    assert "password" not in note


# --- answers and logs


def test_the_answer_is_found_among_other_output() -> None:
    assert odoo.parse_answer('berth-answer:{"a": 1}\nnoise\nberth-answer:{"a": 2}\nbye\n') == {"a": 2}


@pytest.mark.parametrize("stdout", ["", "noise\n", "berth-answer:[1]\n"])
def test_no_answer_is_an_error(stdout: str) -> None:
    with pytest.raises(odoo.BrokenAnswer):
        odoo.parse_answer(stdout)


LOG = """\
2026-11-21 22:30:01,100 1 INFO demo odoo.modules.loading: Loading module broken (74/74)
2026-11-21 22:30:01,200 1 WARNING demo odoo.modules.loading: Transient module states were reset
2026-11-21 22:30:01,300 1 ERROR demo odoo.registry: Failed to load registry
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/odoo/tools/convert.py", line 600, in _tag_root
    f(rec)
odoo.tools.convert.ParseError: while parsing broken/data.xml:3
Invalid field 'nope' on model 'res.partner'
2026-11-21 22:30:01,400 1 ERROR demo odoo.registry: Failed to load registry
2026-11-21 22:30:01,500 1 INFO demo odoo.sql_db: ConnectionPool: closed
Traceback (most recent call last):
ValueError: of an INFO record, not shown
"""


def test_errors_of_a_log_with_the_end_of_their_traceback() -> None:
    assert odoo.error_lines(LOG) == [
        "ERROR odoo.registry: Failed to load registry",
        "  Invalid field 'nope' on model 'res.partner'",
    ]


def test_a_clean_log_has_no_errors() -> None:
    assert odoo.error_lines(LOG.splitlines()[0]) == []


def test_the_last_errors_win() -> None:
    log = "\n".join(f"2026-11-21 22:30:01,300 1 ERROR demo odoo.x: number {number}" for number in range(50))
    assert odoo.error_lines(log, 2) == ["ERROR odoo.x: number 48", "ERROR odoo.x: number 49"]
