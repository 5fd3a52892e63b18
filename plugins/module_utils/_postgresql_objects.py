# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and databases for Odoo: from what a cluster has and what is wanted to the statements in between.

Pure functions. :func:`read_script` is the question, its answers go through :func:`parse_state` into :func:`plan`,
and what that returns is run by :func:`run_script`. Planning again afterwards must give nothing: that is the check.

Why a template (measured on Odoo 19): Odoo wants the extensions ``unaccent`` and ``pg_trgm`` and the function
``unaccent(text)`` marked IMMUTABLE, without which none of its trigram indexes exist and searches read whole tables.
Only a superuser may mark the function, Odoo's own role must not be one, and ``pg_dump`` loses the mark. So a superuser
prepares it here, once in a template for new databases and restores, and again in every database that lacks it.

Why settings on the role: web, cron and websocket share it, so the server's value for everybody else (a report tool's statement_timeout)
must not reach Odoo. A scheduled action keeps its lock in a transaction as long as it runs; cut off, it repeats every minute (measured).
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ._psql import identifier, literal
from ._scram import scram_verifier

ADMIN_DATABASE = "postgres"
REWIND_ROLE = "rewind"
"""Made by Patroni, which uses it to bring a former primary onto the new timeline, through :data:`ADMIN_DATABASE`."""
EXTENSIONS = ("pg_trgm", "unaccent")
NAME = re.compile(r"^[a-z][a-z0-9_]{0,49}$")
SETTING_NAME = re.compile(r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$")
# They take a list, of which a quoted text would be one element.
LIST_SETTINGS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})
# Odoo ends its own requests and actions (limit_time_real). lock_timeout is not here: Odoo sets it where it wants one.
ROLE_SETTINGS: dict[str, Any] = {
    "idle_in_transaction_session_timeout": 0,
    "statement_timeout": 0,
    "transaction_timeout": 0,
}
RESERVED = frozenset({"postgres", "template0", "template1", "public", "none", "replicator", "rewind", "all"})


class ObjectsError(ValueError):
    """What is wanted cannot be. The message says what was found, what was expected and what to type."""


@dataclass(frozen=True)
class Step:
    """One statement that brings the cluster closer to what is wanted."""

    text: str
    """What it does, for people; holds no secret."""
    sql: str
    database: str = ADMIN_DATABASE


def check_wanted(roles: list[dict[str, Any]], databases: list[dict[str, Any]], template: str) -> None:
    """Refuse names that would need quoting or that PostgreSQL keeps for itself, and references into nothing.

    :raises ObjectsError: with everything that is wrong.
    """
    rule = f"expected {NAME.pattern} and none of {', '.join(sorted(RESERVED))}, nor a name that starts with pg_"
    problems = []
    for kind, names in (
        ("role", [role["name"] for role in roles]),
        ("database", [*(database["name"] for database in databases), template]),
    ):
        problems += [
            f"{kind} name {name!r}: {rule}" for name in names if not NAME.match(name) or name in RESERVED or name.startswith("pg_")
        ]
        problems += [f"{kind} {name!r} is listed twice" for name in sorted(set(names)) if names.count(name) > 1]
    known = {role["name"] for role in roles}
    problems += [
        f"database {database['name']!r} belongs to {database['owner']!r}, which is not among the roles: add it there"
        for database in databases
        if database["owner"] not in known
    ]
    for role in roles:
        for name in role.get("settings") or {}:
            if not SETTING_NAME.match(str(name)):
                problems.append(f"setting {name!r} of role {role['name']!r}: expected {SETTING_NAME.pattern}")
            elif name in LIST_SETTINGS:
                problems.append(f"setting {name!r} of role {role['name']!r} takes a list: type ALTER ROLE {role['name']} SET {name} TO …")
    if problems:
        raise ObjectsError("; ".join(problems))


_DATABASE_QUESTION = """
SELECT json_build_object('database', current_database(),
  'extensions', (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension),
  'unaccent', (SELECT provolatile FROM pg_proc WHERE oid = to_regprocedure('public.unaccent(text)')),
  'schema_owner', (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'),
  'schema_public', (SELECT coalesce(json_agg(a.privilege_type ORDER BY a.privilege_type), '[]')
      FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
      WHERE n.nspname = 'public' AND a.grantee = 0));
"""


def read_script(roles: Iterable[str], databases: Iterable[str], template: str) -> str:
    """Return the psql script that reads everything :func:`plan` compares, one JSON document a line."""
    names = [*databases, template]
    role_list = ", ".join(literal(name) for name in roles) or "NULL"
    database_list = ", ".join(literal(name) for name in [*names, ADMIN_DATABASE, "template1"])
    script = f"""
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'rewind', EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(REWIND_ROLE)}),
  'roles', (SELECT coalesce(json_object_agg(r.rolname, json_build_object(
      'login', rolcanlogin, 'superuser', rolsuper, 'createdb', rolcreatedb, 'createrole', rolcreaterole,
      'replication', rolreplication, 'bypassrls', rolbypassrls, 'connection_limit', rolconnlimit,
      'settings', (SELECT coalesce(json_object_agg(coalesce(d.datname, ''), s.setconfig), '{{}}')
          FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase WHERE s.setrole = r.oid),
      'password', rolpassword)), '{{}}')
    FROM pg_authid r WHERE r.rolname IN ({role_list})),
  'databases', (SELECT coalesce(json_object_agg(d.datname, json_build_object(
      'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
      'is_template', d.datistemplate, 'allow_connections', d.datallowconn,
      'public', (SELECT coalesce(json_agg(a.privilege_type ORDER BY a.privilege_type), '[]') FROM
          aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0),
      'connect', (SELECT coalesce(json_agg(pg_get_userbyid(a.grantee) ORDER BY pg_get_userbyid(a.grantee)), '[]') FROM aclexplode(d.datacl) a
          WHERE a.privilege_type = 'CONNECT' AND a.grantee <> 0))), '{{}}')
    FROM pg_database d WHERE d.datname IN ({database_list})));
{_DATABASE_QUESTION}"""  # noqa: S608 - literal() and identifier() quote the names
    for name in names:
        script += f"""
SELECT EXISTS (SELECT FROM pg_database WHERE datname = {literal(name)} AND datallowconn) AS present \\gset
\\if :present
\\connect {identifier(name)}
{_DATABASE_QUESTION}\\connect {ADMIN_DATABASE}
\\endif
"""  # noqa: S608 - as above
    return script


def parse_state(documents: list[Any]) -> dict[str, Any]:
    """Put the answers to :func:`read_script` together: the cluster's, with each database's put into it."""
    state: dict[str, Any] = documents[0]
    for document in documents[1:]:
        state["databases"][document["database"]].update(document)
    return state


def _plan_role(role: dict[str, Any], found: dict[str, Any] | None) -> list[Step]:
    name = identifier(role["name"])
    verifier = scram_verifier(role["password"], role["name"])
    steps = []
    wanted = {
        "login": True,
        "superuser": False,
        "createdb": False,
        "createrole": False,
        "replication": False,
        "bypassrls": False,
    }
    if found is None:
        steps.append(Step(f"create role {role['name']}", f"CREATE ROLE {name} LOGIN"))
        found = {**wanted, "connection_limit": -1, "password": None, "settings": {}}
    wrong = {attribute: value for attribute, value in wanted.items() if found[attribute] != value}
    if wrong:
        words = " ".join(("" if value else "NO") + attribute.upper() for attribute, value in wrong.items())
        steps.append(Step(f"set {words} on role {role['name']}", f"ALTER ROLE {name} {words}"))
    if found["connection_limit"] != role["connection_limit"]:
        limit = int(role["connection_limit"])
        steps.append(Step(f"set connection limit {limit} on role {role['name']}", f"ALTER ROLE {name} CONNECTION LIMIT {limit}"))
    if not hmac.compare_digest((found["password"] or "").encode(), verifier.encode()):
        steps.append(Step(f"set password of role {role['name']}", f"ALTER ROLE {name} PASSWORD {literal(verifier)}"))
    return [*steps, *_plan_settings(role["name"], {**ROLE_SETTINGS, **(role.get("settings") or {})}, found["settings"])]


def _plan_settings(role: str, wanted: dict[str, Any], found: dict[str, list[str]]) -> list[Step]:
    """Compare settings of a role's sessions. Those that nobody named stay: PostgreSQL does not know whose they are."""
    there = {database: dict(item.split("=", 1) for item in items) for database, items in found.items()}
    general = there.pop("", {})
    steps = []
    for name, value in wanted.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        if value is None:
            if name in general:
                steps.append(Step(f"reset {name} of role {role}", f"ALTER ROLE {identifier(role)} RESET {name}"))
        elif general.get(name) != text:
            steps.append(Step(f"set {name} = {text} on role {role}", f"ALTER ROLE {identifier(role)} SET {name} TO {literal(text)}"))
        # One for a single database comes before the role's own.
        steps += [
            Step(
                f"reset {name} of role {role} in database {database}",
                f"ALTER ROLE {identifier(role)} IN DATABASE {identifier(database)} RESET {name}",
            )
            for database, items in there.items()
            if name in items
        ]
    return steps


def _plan_extensions(database: str, found: dict[str, Any]) -> list[Step]:
    steps = [
        Step(
            f"create extension {extension} in {database}",
            f"CREATE EXTENSION {identifier(extension)} SCHEMA public",
            database,
        )
        for extension in EXTENSIONS
        if extension not in found["extensions"]
    ]
    if "unaccent" in found["extensions"] and found["unaccent"] is None:
        raise ObjectsError(
            f"database {database} has the extension unaccent outside of the schema public, where Odoo looks for it. "
            f"Type: ALTER EXTENSION unaccent SET SCHEMA public"
        )
    if found["unaccent"] != "i":
        steps.append(
            Step(
                f"mark unaccent(text) immutable in {database}",
                "ALTER FUNCTION public.unaccent(text) IMMUTABLE",
                database,
            )
        )
    return steps


def _plan_privileges(database: str, found: dict[str, Any], connect: Iterable[str]) -> list[Step]:
    name = identifier(database)
    steps = []
    if found["public"]:
        steps.append(Step(f"revoke PUBLIC's rights on {database}", f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"))
    steps += [
        Step(f"let {role} connect to {database}", f"GRANT CONNECT ON DATABASE {name} TO {identifier(role)}")
        for role in connect
        if role not in found["connect"]
    ]
    # Clusters have had this since PostgreSQL 15, databases restored from older ones have not.
    if "CREATE" in found.get("schema_public", ()):
        if found["schema_owner"] != "pg_database_owner":
            # Odoo's role may have got its right to create tables from PUBLIC.
            text = f"give schema public in {database} to the database's owner"
            steps.append(Step(text, "ALTER SCHEMA public OWNER TO pg_database_owner", database))
        text = f"revoke PUBLIC's right to create in schema public in {database}"
        steps.append(Step(text, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", database))
    return steps


def _plan_database(wanted: dict[str, Any], template: str, found: dict[str, Any] | None) -> list[Step]:
    name, owner = wanted["name"], wanted["owner"]
    steps = []
    if found is None:
        # A copy of the template has its extensions, and the owner is in no list before rights are given or taken.
        steps.append(
            Step(
                f"create database {name}",
                f"CREATE DATABASE {identifier(name)} OWNER {identifier(owner)} TEMPLATE {identifier(template)}",
            )
        )
        found = {"owner": owner, "public": ["CONNECT"], "connect": [], "extensions": EXTENSIONS, "unaccent": "i"}
    elif found["encoding"] != "UTF8":
        raise ObjectsError(
            f"database {name} has the encoding {found['encoding']}, Odoo needs UTF8, and an encoding cannot be changed: "
            f"dump the database, restore it into a new one, and name that one here"
        )
    elif not found["allow_connections"]:
        raise ObjectsError(f"database {name} allows no connections. Type: ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS true")
    if found["owner"] != owner:
        steps.append(Step(f"give database {name} to {owner}", f"ALTER DATABASE {identifier(name)} OWNER TO {identifier(owner)}"))
    return [*steps, *_plan_extensions(name, found), *_plan_privileges(name, found, ())]


def _plan_template(template: str, found: dict[str, Any] | None) -> list[Step]:
    name = identifier(template)
    steps = []
    if found is None:
        # From template0, which nobody can have put anything into. Encoding and locale are the cluster's.
        steps.append(Step(f"create template {template}", f"CREATE DATABASE {name} TEMPLATE template0 IS_TEMPLATE true"))
        found = {"is_template": True, "public": ["CONNECT"], "connect": [], "extensions": [], "unaccent": None}
        fresh = _plan_extensions(template, found)
        return [*steps, *fresh, *_plan_privileges(template, found, ())]
    if not found["is_template"]:
        steps.append(Step(f"mark {template} as a template", f"ALTER DATABASE {name} IS_TEMPLATE true"))
    return [*steps, *_plan_extensions(template, found), *_plan_privileges(template, found, ())]


def plan(roles: list[dict[str, Any]], databases: list[dict[str, Any]], template: str, state: dict[str, Any]) -> list[Step]:
    """Return the statements that make a cluster what is wanted, in their order. Nothing is ever dropped.

    :param roles: ``name``, ``password``, ``connection_limit`` and perhaps ``settings`` of each role.
    :param databases: ``name`` and ``owner`` of each database.
    :param template: name of the template database.
    :param state: what :func:`parse_state` returned.
    :raises ObjectsError: something exists and cannot be made what is wanted.
    """
    found_roles, found_databases = state["roles"], state["databases"]
    steps: list[Step] = []
    for role in roles:
        steps += _plan_role(role, found_roles.get(role["name"]))
    steps += _plan_template(template, found_databases.get(template))
    for database in databases:
        steps += _plan_database(database, template, found_databases.get(database["name"]))
    # LISTEN and NOTIFY of Odoo's bus and cron happen in the database postgres.
    connecting = [role["name"] for role in roles] + ([REWIND_ROLE] if state.get("rewind") else [])
    steps += _plan_privileges(ADMIN_DATABASE, found_databases[ADMIN_DATABASE], connecting)
    steps += _plan_privileges("template1", found_databases["template1"], ())
    return steps


def run_script(steps: list[Step]) -> str:
    """Return the psql script that performs the steps, changing the database where a step needs another one."""
    lines, database = [], ADMIN_DATABASE
    for step in steps:
        if step.database != database:
            database = step.database
            lines.append(f"\\connect {identifier(database)}")
        lines.append(f"{step.sql};")
    return "\n".join([*lines, ""])


def describe(state: dict[str, Any]) -> str:
    """Return the state as text for a diff, without verifiers."""
    public = {
        **state,
        "roles": {name: {key: value for key, value in role.items() if key != "password"} for name, role in state["roles"].items()},
    }
    return json.dumps(public, indent=2, sort_keys=True) + "\n"
