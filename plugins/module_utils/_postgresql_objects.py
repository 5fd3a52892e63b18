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

Why readers do not read everything: who knows ``database.secret`` makes himself an administrator's session. The columns and tables that hold
such things are named in :data:`WITHHELD_TABLES` and :data:`WITHHELD_COLUMNS`.
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
NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
SETTING_NAME = re.compile(r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$")
# They take a list, of which a quoted text would be one element.
LIST_SETTINGS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})
# Odoo ends its own requests and actions (limit_time_real). lock_timeout is not here: Odoo sets it where it wants one.
ROLE_SETTINGS: dict[str, Any] = {
    "idle_in_transaction_session_timeout": 0,
    "statement_timeout": 0,
    "transaction_timeout": 0,
}
MONITOR = "pg_monitor"
"""Who is a member of it may connect to every database, because statistics of tables are a database's own."""
MEMBERSHIPS = frozenset({MONITOR})
"""Roles of PostgreSQL itself that a role may be a member of. The others let it read or do what is somebody else's."""
WITHHELD_TABLES = (
    "auth_totp_device",
    "fetchmail_server",
    "iap_account",
    "ir_config_parameter",
    "ir_mail_server",
    "payment_provider",
    "payment_token",
    "res_users_apikeys",
)
"""Odoo's tables of passwords, keys and tokens: of Odoo itself, of mail servers, of payment providers."""
WITHHELD_COLUMNS = {"res_users": "password|secret|token"}
"""Tables that are read without the columns whose names hold one of these words."""
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


def check_removed(removed: dict[str, list[str]], roles: list[dict[str, Any]], databases: list[dict[str, Any]], template: str) -> None:
    """Refuse to drop what is kept, or is PostgreSQL's.

    :param removed: names by C(databases) and C(roles).
    :raises ObjectsError: with everything that is wrong.
    """
    kept = {"databases": {template, *(database["name"] for database in databases)}, "roles": {role["name"] for role in roles}}
    problems = [
        f"{kind[:-1]} {name!r} cannot be removed: it is {'among ' + kind if name in kept[kind] else 'a name of PostgreSQL itself or none at all'}"
        for kind, names in removed.items()
        for name in names
        if name in kept[kind] or name in RESERVED or name.startswith("pg_") or not NAME.match(name)
    ]
    if problems:
        raise ObjectsError("; ".join(problems))


def plan_removal(removed: dict[str, list[str]], state: dict[str, Any]) -> list[Step]:
    """Return the statements that drop databases, with whoever uses them, and then roles.

    :param removed: as in :func:`check_removed`.
    :param state: what :func:`parse_state` returned.
    :raises ObjectsError: a role still owns another database.
    """
    there = [name for name in removed["roles"] if name in state["roles"]]
    problems = [
        f"role {database['owner']!r} cannot be removed: it owns the database {name!r}"
        for name, database in state["databases"].items()
        if database.get("owner") in there and name not in removed["databases"]
    ]
    if problems:
        raise ObjectsError("; ".join(problems))
    steps = [
        Step(f"drop database {name}", f"DROP DATABASE {identifier(name)} WITH (FORCE)")
        for name in removed["databases"]
        if name in state["databases"]
    ]
    for name in there:
        # What it was granted on other databases would keep it.
        steps += [
            Step(f"take all rights from role {name}", f"DROP OWNED BY {identifier(name)}"),
            Step(f"drop role {name}", f"DROP ROLE {identifier(name)}"),
        ]
    return steps


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
    listed = {database["name"] for database in databases}
    for role in roles:
        problems += [
            f"role {role['name']!r} reads {name!r}, which is not among the databases: add it there"
            for name in role.get("reads") or []
            if name not in listed
        ]
        problems += [
            f"role {role['name']!r} owns {database['name']!r} and cannot be kept from writing there: another role has to read it"
            for database in databases
            if role.get("reads") and database["owner"] == role["name"]
        ]
        problems += [
            f"role {role['name']!r} as a member of {name!r}: expected {', '.join(sorted(MEMBERSHIPS))} or another one of the roles"
            for name in role.get("member_of") or []
            if name == role["name"] or name not in known | MEMBERSHIPS
        ]
        for name in role.get("settings") or {}:
            if not SETTING_NAME.match(str(name)):
                problems.append(f"setting {name!r} of role {role['name']!r}: expected {SETTING_NAME.pattern}")
            elif name in LIST_SETTINGS:
                problems.append(f"setting {name!r} of role {role['name']!r} takes a list: type ALTER ROLE {role['name']} SET {name} TO …")
    if problems:
        raise ObjectsError("; ".join(problems))


_OWN_TABLES = (
    "pg_class c WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f') "
    "AND c.relowner = (SELECT datdba FROM pg_database WHERE datname = current_database())"
)


def _names(select: str) -> str:
    return f"(SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM ({select}) found(name))"  # noqa: S608 - names of this file


def _reader_question(role: str) -> str:
    """Return the SQL expression for what a reader may and may not in the current database, as :func:`_plan_reader` compares it."""
    who = f"to_regrole({literal(role)})::oid"
    withheld = ", ".join(literal(name) for name in WITHHELD_TABLES)
    partly = ", ".join(literal(name) for name in WITHHELD_COLUMNS)
    hidden = " OR ".join(f"c.relname = {literal(table)} AND a.attname ~ {literal(words)}" for table, words in WITHHELD_COLUMNS.items())
    columns = f"pg_attribute a JOIN pg_class c ON a.attrelid = c.oid AND c.oid IN (SELECT c.oid FROM {_OWN_TABLES})"  # noqa: S608 - names of this file
    column = "SELECT c.relname || '.' || a.attname FROM"
    # A role that is not there yet has no right.
    may = f"coalesce(has_column_privilege({who}, c.oid, a.attnum, 'SELECT'), false)"
    granted = f"EXISTS (SELECT FROM aclexplode(c.relacl) g WHERE g.grantee = {who} AND g.privilege_type"
    return f"""json_build_object(
  'unread', {_names(f"SELECT c.relname FROM {_OWN_TABLES} AND c.relname NOT IN ({withheld}, {partly}) AND NOT {granted} = 'SELECT')")},
  'overread', {_names(f"SELECT c.relname FROM {_OWN_TABLES} AND c.relname IN ({withheld}, {partly}) AND {granted} = 'SELECT')")},
  'written', {_names(f"SELECT c.relname FROM {_OWN_TABLES} AND {granted} <> 'SELECT')")},
  'columns', {_names(f"{column} {columns} WHERE c.relname IN ({partly}) AND a.attnum > 0 AND NOT a.attisdropped AND NOT ({hidden}) AND NOT {may}")},
  'secrets', {_names(f"{column} {columns} WHERE a.attnum > 0 AND NOT a.attisdropped AND (c.relname IN ({withheld}) OR {hidden}) AND {may}")},
  'future', EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) g WHERE d.defaclobjtype = 'r' AND g.grantee = {who}
      AND d.defaclrole = (SELECT datdba FROM pg_database WHERE datname = current_database())
      AND d.defaclnamespace = to_regnamespace('public') AND g.privilege_type = 'SELECT'))"""  # noqa: S608 - literal() quotes the names


def _database_question(readers: Iterable[str]) -> str:
    each = ", ".join(f"{literal(role)}, {_reader_question(role)}" for role in readers)
    return f"""
SELECT json_build_object('database', current_database(),
  'extensions', (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension),
  'unaccent', (SELECT provolatile FROM pg_proc WHERE oid = to_regprocedure('public.unaccent(text)')),
  'schema_owner', (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'),
  'readers', json_build_object({each}),
  'schema_public', (SELECT coalesce(json_agg(a.privilege_type ORDER BY a.privilege_type), '[]')
      FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
      WHERE n.nspname = 'public' AND a.grantee = 0));
"""  # noqa: S608 - literal() quotes the names


def read_script(roles: list[dict[str, Any]], databases: Iterable[str], template: str, removed: dict[str, list[str]] | None = None) -> str:
    """Return the psql script that reads everything :func:`plan` compares, one JSON document a line.

    :param roles: ``name`` and perhaps ``reads`` of each role.
    :param removed: names of C(databases) and C(roles) that shall not be there.
    """
    names = [*databases, template]
    removed = removed or {"databases": [], "roles": []}
    role_list = ", ".join(map(literal, [*(role["name"] for role in roles), *removed["roles"]])) or "NULL"
    database_list = ", ".join(map(literal, [*names, ADMIN_DATABASE, "template1", *removed["databases"]]))
    owner_list = ", ".join(map(literal, removed["roles"])) or "NULL"
    script = f"""
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'rewind', EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(REWIND_ROLE)}),
  'roles', (SELECT coalesce(json_object_agg(r.rolname, json_build_object(
      'login', rolcanlogin, 'superuser', rolsuper, 'createdb', rolcreatedb, 'createrole', rolcreaterole,
      'replication', rolreplication, 'bypassrls', rolbypassrls, 'connection_limit', rolconnlimit,
      'settings', (SELECT coalesce(json_object_agg(coalesce(d.datname, ''), s.setconfig), '{{}}')
          FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase WHERE s.setrole = r.oid),
      'member_of', (SELECT coalesce(json_agg(pg_get_userbyid(m.roleid) ORDER BY pg_get_userbyid(m.roleid)), '[]')
          FROM pg_auth_members m WHERE m.member = r.oid),
      'password', rolpassword)), '{{}}')
    FROM pg_authid r WHERE r.rolname IN ({role_list})),
  'databases', (SELECT coalesce(json_object_agg(d.datname, json_build_object(
      'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
      'is_template', d.datistemplate, 'allow_connections', d.datallowconn,
      'public', (SELECT coalesce(json_agg(a.privilege_type ORDER BY a.privilege_type), '[]') FROM
          aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0),
      'connect', (SELECT coalesce(json_agg(pg_get_userbyid(a.grantee) ORDER BY pg_get_userbyid(a.grantee)), '[]') FROM aclexplode(d.datacl) a
          WHERE a.privilege_type = 'CONNECT' AND a.grantee <> 0))), '{{}}')
    FROM pg_database d WHERE d.datname IN ({database_list}) OR pg_get_userbyid(d.datdba) IN ({owner_list})));
{_database_question(())}"""  # noqa: S608 - literal() and identifier() quote the names
    for name in names:
        readers = [role["name"] for role in roles if name in (role.get("reads") or [])]
        script += f"""
SELECT EXISTS (SELECT FROM pg_database WHERE datname = {literal(name)} AND datallowconn) AS present \\gset
\\if :present
\\connect {identifier(name)}
{_database_question(readers)}\\connect {ADMIN_DATABASE}
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
    # Without a password it can log in with a certificate only.
    verifier = "" if role.get("password") is None else scram_verifier(role["password"], role["name"])
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
        found = {**wanted, "connection_limit": -1, "password": None, "settings": {}, "member_of": []}
    wrong = {attribute: value for attribute, value in wanted.items() if found[attribute] != value}
    if wrong:
        words = " ".join(("" if value else "NO") + attribute.upper() for attribute, value in wrong.items())
        steps.append(Step(f"set {words} on role {role['name']}", f"ALTER ROLE {name} {words}"))
    if found["connection_limit"] != role["connection_limit"]:
        limit = int(role["connection_limit"])
        steps.append(Step(f"set connection limit {limit} on role {role['name']}", f"ALTER ROLE {name} CONNECTION LIMIT {limit}"))
    if not hmac.compare_digest((found["password"] or "").encode(), verifier.encode()):
        text, value = ("set", literal(verifier)) if verifier else ("remove", "NULL")
        steps.append(Step(f"{text} password of role {role['name']}", f"ALTER ROLE {name} PASSWORD {value}"))
    wanted_of, found_of = role.get("member_of") or [], found["member_of"]
    for group in (group for group in found_of if group not in wanted_of):
        steps.append(Step(f"take {role['name']} out of {group}", f"REVOKE {identifier(group)} FROM {name} CASCADE"))
    for group in (group for group in wanted_of if group not in found_of):
        steps.append(Step(f"make {role['name']} a member of {group}", f"GRANT {identifier(group)} TO {name}"))
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


def _plan_reader(database: str, owner: str, role: str, found: dict[str, Any] | None) -> list[Step]:
    """Compare what a role may in a database that it reads.

    :param found: the answer to :func:`_reader_question`; nothing where the database is new and has no tables yet.
    """
    who, steps = identifier(role), []
    found = found or {"unread": [], "overread": [], "written": [], "columns": [], "secrets": [], "future": False}

    def tables(names: Iterable[str]) -> str:
        return ", ".join(f"public.{identifier(name)}" for name in names)

    if not found["future"]:
        sql = f"ALTER DEFAULT PRIVILEGES FOR ROLE {identifier(owner)} IN SCHEMA public GRANT SELECT ON TABLES TO {who}"
        steps.append(Step(f"let {role} read future tables of {database}", sql, database))
    # Taken away before anything is given: a column's right does not outlive its table's.
    taken = sorted({*found["overread"], *(name.split(".")[0] for name in found["secrets"])})
    if taken:
        secrets = f"keep {role} from secrets in {', '.join(taken)} of {database}"
        steps.append(Step(secrets, f"REVOKE ALL ON {tables(taken)} FROM {who}", database))
    if found["written"]:
        text = f"keep {role} from writing {len(found['written'])} tables of {database}"
        steps.append(
            Step(text, f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON {tables(found['written'])} FROM {who}", database)
        )
    if found["unread"]:
        steps.append(
            Step(
                f"let {role} read {len(found['unread'])} tables of {database}",
                f"GRANT SELECT ON {tables(found['unread'])} TO {who}",
                database,
            )
        )
    # Which columns there are is asked again, since those of a table that was just taken away are not in the answer.
    for table, words in WITHHELD_COLUMNS.items():
        if table in taken or any(name.startswith(f"{table}.") for name in found["columns"]):
            columns = (
                "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute "  # noqa: S608 - literal() quotes
                f"WHERE attrelid = {literal('public.' + table)}::regclass AND attnum > 0 AND NOT attisdropped AND attname !~ {literal(words)}"
            )
            sql = f"DO $berth$ BEGIN EXECUTE format('GRANT SELECT (%s) ON {tables([table])} TO {who}', ({columns})); END $berth$"
            steps.append(Step(f"let {role} read the other columns of {table} of {database}", sql, database))
    return steps


def _plan_connections(name: str, owner: str, roles: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return who of the roles may connect to a database and who may not; its owner and his members may in any case."""
    own = {owner, *(role["name"] for role in roles if owner in (role.get("member_of") or []))}
    may = [role["name"] for role in roles if name in (role.get("reads") or []) or MONITOR in (role.get("member_of") or [])]
    return may, [role["name"] for role in roles if role["name"] not in own and role["name"] not in may]


def _plan_privileges(database: str, found: dict[str, Any], connect: Iterable[str], strangers: Iterable[str] = ()) -> list[Step]:
    name = identifier(database)
    steps = []
    if found["public"]:
        steps.append(Step(f"revoke PUBLIC's rights on {database}", f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"))
    steps += [
        Step(f"let {role} connect to {database}", f"GRANT CONNECT ON DATABASE {name} TO {identifier(role)}")
        for role in connect
        if role not in found["connect"]
    ]
    steps += [
        Step(f"keep {role} from connecting to {database}", f"REVOKE CONNECT ON DATABASE {name} FROM {identifier(role)}")
        for role in strangers
        if role in found["connect"]
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


def _plan_database(wanted: dict[str, Any], template: str, found: dict[str, Any] | None, roles: list[dict[str, Any]]) -> list[Step]:
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
        # What is in it is not known before.
        return plan_opening([wanted], {"databases": {name: found}})
    if found["owner"] != owner:
        steps.append(Step(f"give database {name} to {owner}", f"ALTER DATABASE {identifier(name)} OWNER TO {identifier(owner)}"))
    steps += [*_plan_extensions(name, found), *_plan_privileges(name, found, *_plan_connections(name, owner, roles))]
    for role in roles:
        if name in (role.get("reads") or []):
            steps += _plan_reader(name, owner, role["name"], found.get("readers", {}).get(role["name"]))
    return steps


def plan_opening(databases: list[dict[str, Any]], state: dict[str, Any]) -> list[Step]:
    """Return the statements that let people into databases again, which a restore or clone closes for the moment in which it exchanges two.

    :param databases: ``name`` of each database.
    :param state: what :func:`parse_state` returned.
    """
    return [
        Step(f"let people into database {item['name']}", f"ALTER DATABASE {identifier(item['name'])} ALLOW_CONNECTIONS true")
        for item in databases
        if item["name"] in state["databases"] and not state["databases"][item["name"]]["allow_connections"]
    ]


def _plan_template(template: str, found: dict[str, Any] | None, roles: list[dict[str, Any]]) -> list[Step]:
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
    strangers = [role["name"] for role in roles]
    return [*steps, *_plan_extensions(template, found), *_plan_privileges(template, found, (), strangers)]


def plan(roles: list[dict[str, Any]], databases: list[dict[str, Any]], template: str, state: dict[str, Any]) -> list[Step]:
    """Return the statements that make a cluster what is wanted, in their order. Nothing is ever dropped.

    :param roles: ``name``, ``connection_limit`` and perhaps ``password``, ``settings``, ``member_of`` and ``reads`` of each role.
    :param databases: ``name`` and ``owner`` of each database.
    :param template: name of the template database.
    :param state: what :func:`parse_state` returned.
    :raises ObjectsError: something exists and cannot be made what is wanted.
    """
    found_roles, found_databases = state["roles"], state["databases"]
    steps: list[Step] = []
    # One that others are members of comes before them.
    for role in sorted(roles, key=lambda role: any(group not in MEMBERSHIPS for group in role.get("member_of") or [])):
        steps += _plan_role(role, found_roles.get(role["name"]))
    steps += _plan_template(template, found_databases.get(template), roles)
    for database in databases:
        steps += _plan_database(database, template, found_databases.get(database["name"]), roles)
    # LISTEN and NOTIFY of Odoo's bus and cron happen in the database postgres. Who reads has nothing to do there.
    connecting = [role["name"] for role in roles if not role.get("reads")] + ([REWIND_ROLE] if state.get("rewind") else [])
    readers = [role["name"] for role in roles if role.get("reads")]
    steps += _plan_privileges(ADMIN_DATABASE, found_databases[ADMIN_DATABASE], connecting, readers)
    steps += _plan_privileges("template1", found_databases["template1"], (), [role["name"] for role in roles])
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
