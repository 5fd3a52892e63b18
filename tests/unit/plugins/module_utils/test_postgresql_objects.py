# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and databases: which statements a given state leads to."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._postgresql_objects import (
    ObjectsError,
    Step,
    check_removed,
    check_wanted,
    describe,
    parse_state,
    plan,
    plan_opening,
    plan_removal,
    read_script,
    run_script,
)
from ansible_collections.berth.odoo.plugins.module_utils._scram import scram_verifier

PASSWORD = 'a $b%c "d"\'e {{ x }} \\ ;'
ROLES = [{"name": "odoo_main", "password": PASSWORD, "connection_limit": -1}]
DATABASES = [{"name": "main", "owner": "odoo_main"}]
TEMPLATE = "template_odoo"
TIMEOUTS = ["idle_in_transaction_session_timeout=0", "statement_timeout=0", "transaction_timeout=0"]


def database(owner="postgres", **other):
    return {
        "owner": owner,
        "encoding": "UTF8",
        "is_template": False,
        "allow_connections": True,
        "public": [],
        "connect": [],
        "extensions": ["pg_trgm", "plpgsql", "unaccent"],
        "unaccent": "i",
        "schema_owner": "pg_database_owner",
        "schema_public": ["USAGE"],
        **other,
    }


def role(**other):
    return {
        "login": True,
        "superuser": False,
        "createdb": False,
        "createrole": False,
        "replication": False,
        "bypassrls": False,
        "connection_limit": -1,
        "settings": {"": [*TIMEOUTS, "lock_timeout=5s"]},
        "member_of": [],
        "password": scram_verifier(PASSWORD, "odoo_main"),
        **other,
    }


EMPTY = {
    "in_recovery": False,
    "roles": {},
    "databases": {name: {"public": ["CONNECT", "TEMPORARY"], "connect": []} for name in ("postgres", "template1")},
}
CONVERGED = {
    "in_recovery": False,
    "roles": {"odoo_main": role()},
    "databases": {
        "postgres": database(connect=["odoo_main", "postgres"]),
        "template1": database(),
        TEMPLATE: database(is_template=True),
        "main": database("odoo_main", connect=["odoo_main"]),
    },
}


def texts(state):
    return [step.text for step in plan(ROLES, DATABASES, TEMPLATE, state)]


def changed(path, value):
    """Return the converged state with one value changed, as a path of keys says."""
    state = copy.deepcopy(CONVERGED)
    target = state
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return state


def test_from_nothing():
    assert texts(EMPTY) == [
        "create role odoo_main",
        "set password of role odoo_main",
        "set idle_in_transaction_session_timeout = 0 on role odoo_main",
        "set statement_timeout = 0 on role odoo_main",
        "set transaction_timeout = 0 on role odoo_main",
        "create template template_odoo",
        "create extension pg_trgm in template_odoo",
        "create extension unaccent in template_odoo",
        "mark unaccent(text) immutable in template_odoo",
        "revoke PUBLIC's rights on template_odoo",
        "create database main",
        "revoke PUBLIC's rights on main",
        "revoke PUBLIC's rights on postgres",
        "let odoo_main connect to postgres",
        "revoke PUBLIC's rights on template1",
    ]


def test_converged_needs_nothing():
    assert texts(CONVERGED) == []


def test_patroni_s_own_role_may_connect_for_a_rewind():
    """Without it a former primary is up and never follows again, and nothing but Patroni's log says so."""
    assert texts({**CONVERGED, "rewind": True}) == ["let rewind connect to postgres"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("roles", "odoo_main", "superuser"), True, 'ALTER ROLE "odoo_main" NOSUPERUSER'),
        (("roles", "odoo_main", "createdb"), True, 'ALTER ROLE "odoo_main" NOCREATEDB'),
        (("roles", "odoo_main", "login"), False, 'ALTER ROLE "odoo_main" LOGIN'),
        (("roles", "odoo_main", "connection_limit"), 3, 'ALTER ROLE "odoo_main" CONNECTION LIMIT -1'),
        (("roles", "odoo_main", "settings"), {"": TIMEOUTS[:2]}, "ALTER ROLE \"odoo_main\" SET transaction_timeout TO '0'"),
        (
            ("roles", "odoo_main", "settings"),
            {"": TIMEOUTS, "main": ["statement_timeout=5s", "work_mem=1GB"]},
            'ALTER ROLE "odoo_main" IN DATABASE "main" RESET statement_timeout',
        ),
        (("databases", "main", "schema_public"), ["CREATE", "USAGE"], "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        (("databases", "postgres", "schema_public"), ["CREATE", "USAGE"], "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        (("databases", "main", "owner"), "postgres", 'ALTER DATABASE "main" OWNER TO "odoo_main"'),
        (("databases", "main", "unaccent"), "s", "ALTER FUNCTION public.unaccent(text) IMMUTABLE"),
        (("databases", "main", "extensions"), ["unaccent"], 'CREATE EXTENSION "pg_trgm" SCHEMA public'),
        (("databases", "main", "public"), ["CONNECT"], 'REVOKE ALL ON DATABASE "main" FROM PUBLIC'),
        (("databases", "postgres", "connect"), ["postgres"], 'GRANT CONNECT ON DATABASE "postgres" TO "odoo_main"'),
        (("databases", "template1", "public"), ["TEMPORARY"], 'REVOKE ALL ON DATABASE "template1" FROM PUBLIC'),
        (("databases", TEMPLATE, "is_template"), False, 'ALTER DATABASE "template_odoo" IS_TEMPLATE true'),
    ],
)
def test_one_difference_is_one_statement(path, value, expected):
    assert [step.sql for step in plan(ROLES, DATABASES, TEMPLATE, changed(path, value))] == [expected]


def test_the_right_to_create_moves_from_public_to_the_owner():
    state = copy.deepcopy(CONVERGED)
    state["databases"]["main"].update(schema_owner="postgres", schema_public=["CREATE"])
    assert [(step.sql, step.database) for step in plan(ROLES, DATABASES, TEMPLATE, state)] == [
        ("ALTER SCHEMA public OWNER TO pg_database_owner", "main"),
        ("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "main"),
    ]


def test_settings_of_a_role_are_set_reset_or_left_alone():
    roles = [
        {
            **ROLES[0],
            "settings": {"work_mem": "64MB", "jit": False, "lock_timeout": None, "statement_timeout": None, "log_temp_files": None},
        }
    ]
    assert [step.text for step in plan(roles, DATABASES, TEMPLATE, CONVERGED)] == [
        "reset statement_timeout of role odoo_main",
        "set work_mem = 64MB on role odoo_main",
        "set jit = off on role odoo_main",
        "reset lock_timeout of role odoo_main",
    ]
    state = changed(
        ("roles", "odoo_main", "settings"), {"": [TIMEOUTS[0], TIMEOUTS[2], "work_mem=64MB", "jit=off", "application_name=a=b"]}
    )
    assert plan(roles, DATABASES, TEMPLATE, state) == []


@pytest.mark.parametrize("name", ["work mem", "x'; drop", "Search_Path", "search_path", ""])
def test_settings_that_cannot_be_written_are_refused(name):
    with pytest.raises(ObjectsError, match="setting"):
        check_wanted([{"name": "odoo_main", "settings": {name: 1}}], [], TEMPLATE)


@pytest.mark.parametrize("stored", [None, "md5deadbeef", scram_verifier("another", "odoo_main")])
def test_a_different_password_is_set_as_a_verifier_only(stored):
    steps = plan(ROLES, DATABASES, TEMPLATE, changed(("roles", "odoo_main", "password"), stored))
    assert [step.text for step in steps] == ["set password of role odoo_main"]
    assert scram_verifier(PASSWORD, "odoo_main") in steps[0].sql
    assert PASSWORD not in steps[0].sql + steps[0].text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("databases", "main", "encoding"), "SQL_ASCII", "encoding SQL_ASCII"),
        (("databases", "main", "unaccent"), None, "SET SCHEMA public"),
    ],
)
def test_what_cannot_be_repaired_is_said(path, value, message):
    with pytest.raises(ObjectsError, match=message):
        plan(ROLES, DATABASES, TEMPLATE, changed(path, value))


def test_a_closed_database_is_opened_and_only_then_looked_at():
    closed = {**database(), "allow_connections": False}
    for unknown in ("extensions", "unaccent", "schema_owner", "schema_public"):
        del closed[unknown]
    state = changed(("databases", "main"), closed)
    [step] = plan(ROLES, DATABASES, TEMPLATE, state)
    assert (step.sql, step.database) == ('ALTER DATABASE "main" ALLOW_CONNECTIONS true', "postgres")
    assert plan_opening(DATABASES, state) == [step]
    assert plan_opening([{"name": "new"}], state) == []


@pytest.mark.parametrize("name", ["a;drop", "../x", "Demo", "-x", "a b", "x" * 64, "postgres", "pg_x", "", "replicator"])
def test_names_are_refused_by_one_rule(name):
    with pytest.raises(ObjectsError, match="role name") as error:
        check_wanted([{"name": name}], [{"name": name, "owner": name}], TEMPLATE)
    assert "database name" in str(error.value)


def test_references_and_doubles_are_refused_together():
    with pytest.raises(ObjectsError) as error:
        check_wanted([{"name": "a"}, {"name": "a"}], [{"name": "main", "owner": "b"}, {"name": TEMPLATE, "owner": "a"}], TEMPLATE)
    for part in ("role 'a' is listed twice", "belongs to 'b'", "database 'template_odoo' is listed twice"):
        assert part in str(error.value)


def test_the_script_changes_the_database_only_where_needed():
    steps = [Step("", "A"), Step("", "B", "main"), Step("", "C", "main"), Step("", "D")]
    assert run_script(steps).splitlines() == ["A;", '\\connect "main"', "B;", "C;", '\\connect "postgres"', "D;"]


def test_the_question_quotes_its_names_and_the_answers_are_put_together():
    script = read_script([{"name": "o'x", "reads": ["main"]}], ["main"], TEMPLATE)
    assert "to_regrole('o''x')" in script
    assert script.count("\\connect") == 4
    documents = [copy.deepcopy(EMPTY), {"database": "postgres", "extensions": [], "unaccent": None}]
    assert parse_state(documents)["databases"]["postgres"]["unaccent"] is None


def test_a_diff_shows_no_verifier():
    assert "SCRAM" not in describe(CONVERGED)
    assert "odoo_main" in describe(CONVERGED)


ANALYST = {"name": "analyst", "password": PASSWORD, "connection_limit": 5, "reads": ["main"], "settings": {"statement_timeout": "60s"}}
MONITORING = {"name": "monitoring", "connection_limit": 3, "member_of": ["pg_monitor"]}
READS = {"unread": [], "overread": [], "written": [], "columns": [], "secrets": [], "future": True}


def with_readers(reader=READS, **monitoring):
    state = copy.deepcopy(CONVERGED)
    state["roles"]["analyst"] = role(
        password=scram_verifier(PASSWORD, "analyst"),
        connection_limit=5,
        settings={"": [TIMEOUTS[0], "statement_timeout=60s", TIMEOUTS[2]]},
    )
    state["roles"]["monitoring"] = role(password=None, connection_limit=3, member_of=["pg_monitor"], **monitoring)
    state["databases"]["main"]["connect"] += ["analyst", "monitoring"]
    state["databases"]["main"]["readers"] = {"analyst": reader}
    state["databases"]["postgres"]["connect"].append("monitoring")
    return state


def steps_of(state):
    return plan([*ROLES, ANALYST, MONITORING], DATABASES, TEMPLATE, state)


def test_readers_from_nothing_and_converged():
    made = [step.text for step in steps_of(EMPTY)]
    for text in (
        "make monitoring a member of pg_monitor",
        "set statement_timeout = 60s on role analyst",
        "let analyst connect to main",
        "let monitoring connect to main",
        "let analyst read future tables of main",
        "let monitoring connect to postgres",
    ):
        assert text in made
    assert "let analyst connect to postgres" not in made
    assert "set password of role monitoring" not in made
    assert made.index("create database main") < made.index("let analyst connect to main")
    assert [step.text for step in steps_of(with_readers())] == []


def test_a_reader_gets_tables_and_loses_secrets_and_what_it_may_write():
    steps = steps_of(
        with_readers({**READS, "unread": ["sale_order", "stock_move"], "overread": ["res_users"], "written": ["res_partner"],
                      "secrets": ["ir_config_parameter.value", "res_users.password"], "columns": []})
    )  # fmt: skip
    assert {step.database for step in steps} == {"main"}
    assert [step.sql for step in steps[:3]] == [
        'REVOKE ALL ON public."ir_config_parameter", public."res_users" FROM "analyst"',
        'REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON public."res_partner" FROM "analyst"',
        'GRANT SELECT ON public."sale_order", public."stock_move" TO "analyst"',
    ]
    assert [step.text for step in steps[3:]] == ["let analyst read the other columns of res_users of main"]


def test_what_a_role_was_given_beyond_is_taken_from_it():
    state = with_readers()
    state["roles"]["analyst"]["member_of"] = ["pg_read_all_data"]
    state["databases"]["postgres"]["connect"].append("analyst")
    state["databases"]["template1"]["connect"] = ["odoo_main"]
    state["roles"]["monitoring"]["password"] = "SCRAM-SHA-256$x"
    assert [step.sql for step in steps_of(state)] == [
        'REVOKE "pg_read_all_data" FROM "analyst" CASCADE',
        'ALTER ROLE "monitoring" PASSWORD NULL',
        'REVOKE CONNECT ON DATABASE "postgres" FROM "analyst"',
        'REVOKE CONNECT ON DATABASE "template1" FROM "odoo_main"',
    ]


def test_a_second_login_of_an_owner_comes_after_it_and_is_no_stranger():
    second = {
        "name": "a_second",
        "password": PASSWORD,
        "connection_limit": -1,
        "member_of": ["odoo_main"],
        "settings": {"role": "odoo_main"},
    }
    check_wanted([second, *ROLES], DATABASES, TEMPLATE)
    texts = [step.text for step in plan([second, *ROLES], DATABASES, TEMPLATE, EMPTY)]
    assert texts.index("create role odoo_main") < texts.index("make a_second a member of odoo_main")
    assert not [text for text in texts if "a_second" in text and "main" in text.split() and "connect" in text]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"reads": ["mian"]}, "reads 'mian'"),
        ({"member_of": ["pg_read_all_data"]}, "expected pg_monitor or another"),
        ({"member_of": ["analyst"]}, "expected pg_monitor or another"),
    ],
)
def test_rights_that_cannot_be_are_refused(other, message):
    with pytest.raises(ObjectsError, match=message):
        check_wanted([*ROLES, {"name": "analyst", **other}], DATABASES, TEMPLATE)


def test_an_owner_is_no_reader():
    with pytest.raises(ObjectsError, match="another role has to read it"):
        check_wanted([{"name": "odoo_main", "reads": ["main"]}], DATABASES, TEMPLATE)


def test_what_is_removed_goes_with_its_users_and_what_they_were_granted():
    removed = {"databases": ["shop"], "roles": ["shop", "shop_login2"]}
    state = {"roles": {"shop": role()}, "databases": {"shop": database(owner="shop"), "main": database(owner="odoo_main")}}
    steps = plan_removal(removed, state)
    assert [step.text for step in steps] == ["drop database shop", "take all rights from role shop", "drop role shop"]
    assert steps[0].sql == 'DROP DATABASE "shop" WITH (FORCE)'
    assert plan_removal(removed, {"roles": {}, "databases": {"main": database()}}) == []
    script = read_script(ROLES, ["main"], TEMPLATE, removed)
    assert "'shop_login2'" in script
    # Before anything is dropped: what else a role owns.
    assert "OR pg_get_userbyid(d.datdba) IN ('shop', 'shop_login2')" in script
    assert "OR pg_get_userbyid(d.datdba) IN (NULL)" in read_script(ROLES, ["main"], TEMPLATE)


def test_a_role_that_owns_another_database_stays():
    state = {"roles": {"shop": role()}, "databases": {"other": database(owner="shop")}}
    with pytest.raises(ObjectsError, match="role 'shop' cannot be removed: it owns the database 'other'"):
        plan_removal({"databases": ["shop"], "roles": ["shop"]}, state)


@pytest.mark.parametrize("name", ["main", "postgres", "template1", TEMPLATE, "pg_monitor", "a;b", "odoo_main", "rewind"])
def test_what_is_kept_is_not_removed(name):
    kind = "roles" if name in ("odoo_main", "pg_monitor", "rewind") else "databases"
    with pytest.raises(ObjectsError, match="cannot be removed"):
        check_removed({"databases": [], "roles": [], kind: [name]}, ROLES, DATABASES, TEMPLATE)
