# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The half of odoo_database, odoo_filestore and odoo_module that runs inside an Odoo container.

The modules hand the text of this file to ``python3 -c`` in a container and write a request, one JSON object, to its standard
input; the answer is the last line of standard output that starts with ANSWER. Secrets travel in the request only. Odoo itself is
imported where it is needed: asking for the state takes psycopg2 alone and a tenth of the time.

Odoo's command line is not used, because it ends with 0 after an unknown module, a failed initialisation and a broken
dependency (Odoo 19.0, ``cli/server.py``, ``service/db.py``, ``modules/loading.py``).

Facts of Odoo 19.0 this relies on:

* ``Registry.new`` with ``update_module`` initialises an empty database and installs what is marked; it commits after each module.
* ``odoo.modules.Manifest.all_addon_manifests`` lists what the image has, ``ir_module_module`` what the database has.
* A registry that changed signals the other processes through ``orm_signaling_registry``.
"""

from __future__ import annotations

import configparser
import contextlib
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ANSWER = "berth-answer:"
# Advisory lock that serialises operations on one database: the first 63 bits of sha256("berth.odoo maintenance").
LOCK = 8560957220717946169
# Written as the database's comment while an operation of ours is unfinished, so that the next one knows how to go on.
INITIALISING = "berth: initialising"
CHANGING_MODULES = "berth: changing modules"
# Followed by the names of those that are updated. It stays until they are.
UPDATING = f"{CHANGING_MODULES}; to update: "
TRANSITIONAL = ("to install", "to upgrade", "to remove")
# Shown in messages so that a long list stays readable.
SHOWN = 8
# Kinds of what a table may have beside storage parameters.
STATISTICS = "statistics"
INDEX = "index"
# Attachments that are moved in one transaction.
MOVED_AT_ONCE = 50
MOVED_BYTES = 20 << 20
# How long to wait for a table in each round, in seconds. More than deadlock_timeout (1 s), after which autovacuum gives way to us.
# What we ask for (SHARE UPDATE EXCLUSIVE) lets reading and writing go on, also of those who come after us.
LOCK_WAITS_S = (2, 5)
# Code of the storage in S3 that is ours, and the module that brings storages.
FILESTORE = "berth"
FILESTORE_MODULE = "fs_attachment_s3"
IMAGE_REMEDY = "build it into the image, docs/filestore.md says how"
# Object that says which database a directory in S3 belongs to.
OWNER = ".berth-owner"
# External id of the OpenID provider that is ours, in a module that does not exist: no upgrade of modules takes it away.
PROVIDER = ("berth", "oidc_provider")
ADMINISTRATOR = "id = (SELECT res_id FROM ir_model_data WHERE module = 'base' AND name = 'user_admin' AND model = 'res.users')"
SIGNING_IN = f"(oauth_uid IS NOT NULL OR {ADMINISTRATOR}) AND coalesce(password, '') <> ''"
# Who may sign up. The module website asks each website's column instead.
SIGN_UP = "auth_signup.invitation_scope"
SIGN_UP_COLUMN = "auth_signup_uninvited"
# How long an OpenID provider has to say what it is, in seconds.
PROVIDER_WAITS_S = 10
# Attachments in the data directory.
LOCAL = "type = 'binary' AND store_fname IS NOT NULL AND store_fname NOT LIKE '%://%'"


class Refused(Exception):
    """The request cannot be met and nothing was changed. The text says why and what to do."""


# --- rules, without any input or output ---------------------------------------------------------------------------------


def listed(names: Iterable[str]) -> str:
    """Return names for a message, the first few of many."""
    ordered = sorted(names)
    more = len(ordered) - SHOWN
    return ", ".join(ordered[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def connection_arguments(options: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments for ``psycopg2.connect`` that Odoo would use with these options of its configuration file.

    Raises:
        Refused: The configuration names no database or several.
    """
    names = [name.strip() for name in options.get("db_name", "").split(",") if name.strip()]
    if len(names) != 1:
        raise Refused(f"db_name in Odoo's configuration must be one database, not {options.get('db_name', '')!r}")
    arguments: dict[str, Any] = {"dbname": names[0]}
    for option, argument in (
        ("db_host", "host"),
        ("db_port", "port"),
        ("db_user", "user"),
        ("db_password", "password"),
        ("db_sslmode", "sslmode"),
    ):
        value = options.get(option, "")
        if value not in ("", "False", "None"):
            arguments[argument] = value
    return arguments


MODULES_FROM = (
    "build one that has it: images_odoo_addons for your own modules, images_odoo_requirements for packages such as odoo-addon-queue-job"
)


def module_problems(wanted: Sequence[str], available: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return why modules cannot be installed from an image; empty when they can.

    Args:
        wanted: Names of the modules to install.
        available: For each module of the image ``depends`` (list of names) and ``installable``.
    """
    problems = []
    for name in wanted:
        if name not in available:
            match = difflib.get_close_matches(name, available, 1, 0.6)
            guess = f"did you mean {match[0]}? Otherwise " if match else ""
            problems.append(f"{name}: no such module in the image; {guess}{MODULES_FROM}")
            continue
        if not available[name]["installable"]:
            problems.append(f"{name}: its manifest says that it is not installable")
            continue
        missing: dict[str, str] = {}
        seen, todo = {name}, [name]
        while todo:
            module = todo.pop()
            for needed in available[module]["depends"]:
                if needed not in available or not available[needed]["installable"]:
                    missing.setdefault(needed, module)
                elif needed not in seen:
                    seen.add(needed)
                    todo.append(needed)
        problems.extend(
            f"{name}: needs {needed} (a dependency of {module}), which the image does not have"
            for needed, module in sorted(missing.items())
        )
    return problems


def load_problems(names: Sequence[str], available: Iterable[str]) -> list[str]:
    """Return which server-wide modules an image lacks; Odoo would log it and serve without them.

    Args:
        names: The modules of C(server_wide_modules).
        available: Names of the image's modules.
    """
    known = set(available)
    problems = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.6)
            problems.append(
                f"server_wide_modules has {name}, and there is no such module in the image: "
                + (f"did you mean {near[0]}? Otherwise add" if near else "add")
                + " it with images_odoo_addons or images_odoo_requirements, and build the image again"
            )
    return problems


def leftovers(modules: Mapping[str, str]) -> dict[str, str]:
    """Return the modules that an unfinished operation left in a state between two others."""
    return {name: state for name, state in modules.items() if state in TRANSITIONAL}


def updating(state: Mapping[str, Any]) -> list[str]:
    """Return the modules whose update has begun and not ended."""
    return str(state["unfinished"]).partition(UPDATING)[2].split()


def website_scope(parameters: Mapping[str, str]) -> str:
    """Return who may sign up on websites by these system parameters; nothing where they do not say it."""
    # Any other word means to Odoo what b2b does, and no website takes it.
    return ("b2c" if parameters[SIGN_UP] == "b2c" else "b2b") if SIGN_UP in parameters else ""


# --- tables, without any input or output --------------------------------------------------------------------------------


class TableStep(NamedTuple):
    """Statements that bring one table closer to what is wanted."""

    table: str
    before: dict[str, Any]
    """Entries that differ, as they are; what is not set is missing."""
    after: dict[str, Any]
    """The same entries, as they shall be."""
    statements: list[str]
    builds: str = ""
    """Name of the index that they build, outside of a transaction; empty for all other statements."""

    @property
    def text(self) -> str:
        """What it does, for people."""
        words = [
            f"{key} = {shown(value)}" + (f" (was {self.before[key]})" if key in self.before else "") for key, value in self.after.items()
        ]
        return f"set on table {self.table}: {', '.join(words)}"


def shown(value: Any) -> str:
    """Return a wanted value as PostgreSQL takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_key(key: str) -> tuple[str, list[str]]:
    """Return the kind and the columns of an entry such as ``statistics(company_id, state)``; a storage parameter is its own kind."""
    match = re.fullmatch(r"(statistics|index)\s*\((.*)\)", key)
    return (match[1], [column.strip() for column in match[2].split(",")]) if match else (key, [])


def index_name(table: str, columns: Sequence[str]) -> str:
    """Return the name that Odoo gives to an index (``make_index_name`` in Odoo's ``tools/sql.py``)."""
    return f"{table}__{'_'.join(columns)}_index"


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def same_value(found: str | None, wanted: Any) -> bool:
    """Tell whether a storage parameter, which PostgreSQL keeps as somebody typed it, has a value."""
    if found is None:
        return False
    if isinstance(wanted, bool):
        return (found.lower() in ("true", "on", "yes", "1")) == wanted
    try:
        return float(found) == float(wanted)
    except ValueError:
        return False


def table_steps(wanted: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> list[TableStep]:
    """Return what to do so that the tables that exist have what is wanted. What is not named stays as it is.

    Args:
        wanted: Entries of each table, as ``_odoo_tables.merge_tables`` returns them.
        found: As :func:`read_tables` returns it.
    """
    steps: list[TableStep] = []
    for table in sorted(wanted):
        if table in found:
            steps += _table_steps(table, wanted[table], found[table])
    return steps


def _table_steps(table: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[TableStep]:
    actions: list[str] = []
    created: list[str] = []
    indexes: list[TableStep] = []
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for key, value in wanted.items():
        kind, columns = parse_key(key)
        if not found["columns"].keys() >= set(columns):
            continue
        if kind == INDEX:
            indexes += _index_step(table, key, columns, found["indexes"])
        elif kind == STATISTICS and len(columns) > 1:
            if not any(set(item["columns"]) == set(columns) and {"d", "f", "m"} <= set(item["kinds"]) for item in found["statistics"]):
                name = f"berth_{table}_{'_'.join(columns)}"
                created.append(f"CREATE STATISTICS {quoted(name)} ON {', '.join(map(quoted, columns))} FROM {quoted(table)}")
                after[key] = True
        elif kind == STATISTICS:
            target = found["columns"][columns[0]]
            if target != value:
                actions.append(f"ALTER COLUMN {quoted(columns[0])} SET STATISTICS {value}")
                before.update({key: target} if target >= 0 else {})
                after[key] = value
        elif not same_value(found["options"].get(key), value) and (found["toast"] or not key.startswith("toast.")):
            before.update({key: found["options"][key]} if key in found["options"] else {})
            after[key] = value
    options = ", ".join(f"{key} = {shown(value)}" for key, value in after.items() if not parse_key(key)[1])
    if options:
        actions.insert(0, f"SET ({options})")
    statements = [f"ALTER TABLE {quoted(table)} {', '.join(actions)}"] if actions else []
    if any(parse_key(key)[1] for key in after):
        # Without it a new target or new statistics would mean nothing until autovacuum comes by.
        created.append(f"ANALYZE {quoted(table)}")
    if statements or created:
        yield TableStep(table, before, after, [*statements, *created])
    yield from indexes


def _index_step(table: str, key: str, columns: Sequence[str], found: Iterable[Mapping[str, Any]]) -> Iterator[TableStep]:
    name = index_name(table, columns)
    broken = False
    for index in found:
        if index["valid"] and index["plain"] and index["columns"][: len(columns)] == list(columns):
            return
        broken = broken or (index["name"] == name and not index["valid"])
    create = f"CREATE INDEX CONCURRENTLY {quoted(name)} ON {quoted(table)} ({', '.join(map(quoted, columns))})"
    # What an interrupted build leaves behind is kept up to date by every write and used by no query.
    drop = [f"DROP INDEX CONCURRENTLY {quoted(name)}"] if broken else []
    yield TableStep(table, {key: "invalid"} if broken else {}, {key: True}, [*drop, create], name)


def unknown_entries(wanted: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which entries name a column that their table does not have."""
    return [
        f"{table}.{key}: table {table} has no column {column}"
        for table in sorted(wanted)
        if table in found
        for key in wanted[table]
        for column in parse_key(key)[1]
        if column not in found[table]["columns"]
    ]


# --- the database -------------------------------------------------------------------------------------------------------


def read_configuration() -> dict[str, str]:
    """Return the options of the configuration file that this container's Odoo uses."""
    path = os.environ.get("ODOO_RC", "")
    parser = configparser.RawConfigParser()
    if not path or not parser.read([path], encoding="utf-8"):
        raise Refused(f"cannot read Odoo's configuration {path or '(ODOO_RC is not set)'}")
    return dict(parser.items("options"))


def connect(options: Mapping[str, str], who: str) -> Any:
    """Open a connection to the instance's database, each statement its own transaction."""
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    try:
        connection = psycopg2.connect(application_name=who[:63], **connection_arguments(options))
    except psycopg2.OperationalError as error:
        where = f"{options.get('db_host') or 'the local socket'}:{options.get('db_port') or 5432}"
        raise Refused(f"cannot connect to database {options.get('db_name')} at {where}: {error}".strip()) from error
    connection.autocommit = True
    return connection


def rows(connection: Any, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall()) if cursor.description else []


def attachment_files(connection: Any, filestore: str) -> tuple[list[int], int]:
    """Return the attachments whose content is in a file of this host, and how many have one that is not here."""
    found = rows(connection, "SELECT id, store_fname FROM ir_attachment WHERE store_fname IS NOT NULL AND type = 'binary' ORDER BY id")
    here = [number for number, name in found if os.path.isfile(os.path.join(filestore, name))]
    return here, len(found) - len(here)


def filestore_of(options: Mapping[str, str]) -> str:
    """Return the directory of an instance's attachments (odoo/tools/config.py, ``filestore``)."""
    return os.path.join(options["data_dir"], "filestore", options["db_name"])


def read_state(
    connection: Any, parameters: Iterable[str], tables: Mapping[str, Mapping[str, Any]] | None = None, filestore: str = ""
) -> dict[str, Any]:
    """Return what the modules compare with what is wanted.

    Args:
        connection: To the instance's database.
        parameters: Keys of the system parameters to return.
        tables: Entries wanted of tables, to be returned as they are.
        filestore: Where attachments are that shall be in the database; nothing when they may stay.
    """
    ((database, has_odoo, occupied, note),) = rows(
        connection,
        """
        SELECT current_database(), to_regclass('ir_module_module') IS NOT NULL,
               (SELECT count(*) FROM pg_class
                 WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
                   AND relname NOT LIKE 'orm\\_signaling\\_%'),
               (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database())
        """,
    )
    state: dict[str, Any] = {
        "database": database,
        "unfinished": note if (note or "").startswith((INITIALISING, CHANGING_MODULES)) else "",
        "foreign_tables": 0 if has_odoo else occupied,
        "version": "",
        "modules": {},
        "parameters": {},
        "websites": [],
        "languages": [],
        "country": "",
        "login": "",
        "password_hash": "",
        "files": 0,
        "files_elsewhere": 0,
        "oidc": {"provider": {}, "odoo_com": False, "passwords": 0, "administrators": 0},
    }
    if has_odoo:
        for name, module_state, version in rows(
            connection,
            "SELECT name, state, latest_version FROM ir_module_module WHERE state IN ('installed', %s, %s, %s)",
            *TRANSITIONAL,
        ):
            state["modules"][name] = module_state
            if name == "base":
                state["version"] = version or ""
        keys = [*parameters, "base.partially_updated_database"]
        state["parameters"] = dict(rows(connection, "SELECT key, value FROM ir_config_parameter WHERE key = ANY(%s)", keys))
        state["websites"] = read_websites(connection)
        state["languages"] = [code for (code,) in rows(connection, "SELECT code FROM res_lang WHERE active ORDER BY code")]
        for login, password in rows(connection, f"SELECT login, password FROM res_users WHERE {ADMINISTRATOR}"):  # noqa: S608 - of this file
            state["login"], state["password_hash"] = login, password or ""
        for (country,) in rows(
            connection,
            "SELECT c.code FROM res_company y JOIN res_partner p ON p.id = y.partner_id"
            " JOIN res_country c ON c.id = p.country_id WHERE y.id = 1",
        ):
            state["country"] = country or ""
    state["initialised"] = state["modules"].get("base") == "installed" and state["unfinished"] != INITIALISING
    state["oidc"] = read_provider(connection)
    state["tables"] = read_tables(connection, tables) if tables and state["initialised"] else {}
    if filestore and state["initialised"]:
        here, state["files_elsewhere"] = attachment_files(connection, filestore)
        state["files"] = len(here)
    return state


def read_websites(connection: Any) -> list[str]:
    """Return who may sign up on each website, without those that leave it to the system parameter."""
    has = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('website') AND attname = %s AND NOT attisdropped"
    if not rows(connection, has, SIGN_UP_COLUMN):
        return []
    return [scope for (scope,) in rows(connection, f"SELECT {SIGN_UP_COLUMN} FROM website WHERE {SIGN_UP_COLUMN} <> '' ORDER BY id")]  # noqa: S608 - of this file


def read_tables(connection: Any, wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what those of the tables that exist have now.

    Each has ``options`` (storage parameters by name), ``toast`` (whether it has a TOAST table), ``columns`` (statistics target of those
    columns that anything is wanted for, -1 for the server's own), ``statistics`` and ``indexes``.
    """
    columns = sorted({column for entries in wanted.values() for key in entries for column in parse_key(key)[1]})
    found = {}
    for name, toast, options, targets, statistics, indexes in rows(
        connection,
        """
        SELECT c.relname, t.oid IS NOT NULL,
               coalesce(c.reloptions, '{}') || ARRAY(SELECT 'toast.' || o FROM unnest(t.reloptions) o),
               (SELECT coalesce(json_object_agg(attname, coalesce(attstattarget, -1)), '{}') FROM pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attname = ANY(%s)),
               (SELECT coalesce(json_agg(json_build_object('kinds', s.stxkind, 'columns',
                         ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY(s.stxkeys)))), '[]')
                  FROM pg_statistic_ext s WHERE s.stxrelid = c.oid AND s.stxexprs IS NULL),
               (SELECT coalesce(json_agg(json_build_object('name', x.relname, 'valid', i.indisvalid,
                         'plain', i.indpred IS NULL AND i.indexprs IS NULL AND m.amname = 'btree',
                         'columns', ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true) FROM generate_series(1, i.indnkeyatts) k))), '[]')
                  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
                 WHERE i.indrelid = c.oid AND c.relname = ANY(%s))
          FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname = ANY(%s)
        """,
        columns,
        [table for table, entries in wanted.items() if any(parse_key(key)[0] == INDEX for key in entries)],
        list(wanted),
    ):
        found[name] = {
            "options": dict(option.split("=", 1) for option in options),
            "toast": toast,
            "columns": targets,
            "statistics": statistics,
            "indexes": indexes,
        }
    return found


def set_tables(connection: Any, wanted: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Give the tables what is wanted, and keep nobody waiting.

    Args:
        connection: Of the tables' owner, straight to PostgreSQL.
        wanted: Entries of each table.

    Returns:
        What was done, and what could not be done because somebody held a table.
    """
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    done: list[str] = []
    locked: list[str] = []
    for seconds in LOCK_WAITS_S:
        locked = []
        # Read again each time: a step that failed may have left something behind.
        for step in table_steps(wanted, read_tables(connection, wanted)):
            try:
                (build_index if step.builds else set_table)(connection, step, seconds)
            except psycopg2.errors.LockNotAvailable:
                locked.append(f"{step.text}, because it is in use by {in_the_way(connection, step)}")
            else:
                done.append(step.text)
        if not locked:
            break
    return done, locked


def set_table(connection: Any, step: TableStep, seconds: int) -> None:
    """Perform a step as a whole or not at all."""
    rows(connection, "BEGIN")
    try:
        rows(connection, "SELECT set_config('lock_timeout', %s, true)", f"{seconds}s")
        for statement in step.statements:
            rows(connection, statement)
    except BaseException:
        rows(connection, "ROLLBACK")
        raise
    rows(connection, "COMMIT")


def build_index(connection: Any, step: TableStep, seconds: int) -> None:
    """Build an index beside its users, which waits for every transaction that began earlier; what could not be finished is removed."""
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    rows(connection, "SELECT set_config('lock_timeout', %s, false)", f"{seconds}s")
    try:
        for statement in step.statements:
            rows(connection, statement)
    except psycopg2.errors.LockNotAvailable:
        # When it cannot be removed either, the next round or run sees it and begins with it.
        with contextlib.suppress(psycopg2.errors.LockNotAvailable):
            rows(connection, f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(step.builds)}")
        raise


def in_the_way(connection: Any, step: TableStep) -> str:
    """Say who keeps a table, or the transactions that an index has to wait for."""
    holders = rows(
        connection,
        "SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), a.usename), date_trunc('second', a.xact_start)"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.granted AND a.pid <> pg_backend_pid() AND l.relation = %s::regclass"
        " AND (%s OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')) ORDER BY 1",
        quoted(step.table),
        bool(step.builds),
    )
    # Since when a session of another role works, only a superuser sees.
    text = "; ".join(f"{who}, pid {pid}" + (f", since {since}" if since else "") for pid, who, since in holders)
    return text or ("a transaction that began earlier" if step.builds else "somebody who has gone just now")


def annotate(connection: Any, note: str | None) -> None:
    """Write, or remove, the comment that tells an unfinished operation."""
    from psycopg2 import sql  # type: ignore[import-untyped,unused-ignore]

    ((database,),) = rows(connection, "SELECT current_database()")
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(note)))


@contextlib.contextmanager
def alone(connection: Any, seconds: int) -> Iterator[None]:
    """Hold the database's maintenance lock. It ends with the connection, so a killed operation leaves none behind.

    Args:
        connection: A session of its own, straight to PostgreSQL: a transaction pooler would share it.
        seconds: How long to wait for another operation.

    Raises:
        Refused: Another operation still holds it; the text says which.
    """
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    rows(connection, "SELECT set_config('lock_timeout', %s, false)", f"{seconds}s")
    try:
        rows(connection, "SELECT pg_advisory_lock(%s)", LOCK)
    except psycopg2.errors.LockNotAvailable as error:
        holders = rows(
            connection,
            "SELECT a.pid, a.application_name, a.client_addr, date_trunc('second', a.backend_start)"
            " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database"
            " WHERE datname = current_database()) AND (l.classid::bigint << 32) + l.objid::bigint = %s",
            LOCK,
        )
        text = "; ".join(f"{app} from {address} since {since} (pid {pid})" for pid, app, address, since in holders)
        raise Refused(
            f"another operation on this database did not end within {seconds} s: {text or 'it ended just now'}. "
            "Wait for it, or end it with SELECT pg_terminate_backend(<pid>) and run again"
        ) from error
    yield
    rows(connection, "SELECT pg_advisory_unlock(%s)", LOCK)


# --- Odoo ---------------------------------------------------------------------------------------------------------------


def load_odoo() -> Any:
    """Read Odoo's configuration and return its registry class. Its log goes to standard error."""
    from odoo.modules.registry import Registry  # type: ignore[import-not-found]
    from odoo.tools import config  # type: ignore[import-not-found]

    config.parse_config([], setup_logging=True)
    return Registry


def check_settings() -> None:
    """Refuse a value of the configuration file that Odoo cannot read: it ends as soon as it starts. Raises Refused."""
    import importlib
    import traceback

    try:
        # It reads the file when it is imported.
        importlib.import_module("odoo.tools.config")
    except (ValueError, SystemExit) as error:
        # Odoo's words have the value, and not the name of the option.
        frames = [frame.f_locals for frame, _line in traceback.walk_tb(error.__traceback__) if "option_name" in frame.f_locals]
        which = f"{frames[0]['option_name']} is {frames[0].get('value')!r}" if frames else "a setting is wrong"
        raise Refused(f"odoo.conf: {which}, and Odoo cannot read that: {error}. Correct it in the instance's extra_settings") from error


@contextlib.contextmanager
def environment(registry: Any) -> Iterator[Any]:
    """Yield an environment of the superuser; commit, then tell the other processes which caches are stale."""
    from odoo import SUPERUSER_ID, api  # type: ignore[import-not-found]

    with registry.cursor() as cursor:
        yield api.Environment(cursor, SUPERUSER_ID, {})
    registry.signal_changes()


def image_modules() -> dict[str, dict[str, Any]]:
    """Return the modules of this image."""
    from odoo.modules import Manifest  # type: ignore[import-not-found]

    return {
        manifest.name: {
            "depends": manifest["depends"],
            "installable": manifest["installable"],
            "version": manifest.version,
        }
        for manifest in Manifest.all_addon_manifests()
    }


def check_version(state: Mapping[str, Any], available: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to touch a database that another version of Odoo wrote."""
    ours = available["base"]["version"]
    # The first two of 19.0.1.3 are Odoo's; what comes after them is the module's own, and updated like any other's.
    if state["version"] and state["version"].split(".")[:2] != ours.split(".")[:2]:
        raise Refused(
            f"database {state['database']} has base {state['version']}, the image has {ours}: deploy the image that the database was made with"
        )


def other_versions(connection: Any, state: Mapping[str, Any], available: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the installed modules of which the image has another version: ``name``, ``was``, ``now``, ``newer`` and ``text``, all that for a person.

    Odoo looks at none of it when it starts. It serves new code on the tables of the former, and without a module that it does not find or whose
    dependencies are not installed. The latter count as newer, and so does what an update that failed or was killed left: Odoo commits after each module.

    Raises:
        Refused: The image lacks some that are installed, or what they need, or is of another version of Odoo.
    """
    from odoo.tools.parse_version import parse_version  # type: ignore[import-not-found]

    if not state["initialised"]:
        return []
    check_version(state, available)
    # One that somebody imported in Odoo is data alone (base_import_module, which brings the column).
    installed = rows(
        connection,
        "SELECT name, coalesce(latest_version, ''), coalesce(to_jsonb(m) ->> 'imported', '') = 'true'"
        " FROM ir_module_module m WHERE state IN ('installed', 'to upgrade') ORDER BY name",
    )
    versions = {name: version for name, version, imported in installed if not imported}
    lacking = [name for name in versions if not available.get(name, {}).get("installable")]
    if lacking:
        raise Refused(
            f"the image lacks what is installed in database {state['database']}: {listed(lacking)}. Odoo would serve without it. Nothing was restarted; "
            f"{MODULES_FROM}. To uninstall it, take the former image back, run berth.odoo.site, and use odoo_module with state absent"
        )
    found, pending = [], updating(state)
    for name, was in versions.items():
        now, needs = available[name]["version"], set(available[name]["depends"]).difference(name for name, _version, _imported in installed)
        if needs and (problems := module_problems([name], available)):
            raise Refused("\n".join(problems))
        newer = bool(needs) or name in pending or parse_version(was) < parse_version(now)
        text = (
            f"{name} {was} (image: {now})"
            if was != now
            else f"{name} (now needs {listed(needs)})"
            if needs
            else f"{name} (its update did not end)"
        )
        if newer or was != now:
            found.append({"name": name, "was": was, "now": now, "newer": newer, "text": text})
    return found


def set_parameters(env: Any, wanted: Mapping[str, str]) -> None:
    """Set system parameters, and on the websites who may sign up: website asks them, and website_sale opens all of them."""
    for key, value in wanted.items():
        env["ir.config_parameter"].set_param(key, value)
    scope = website_scope(wanted)
    if scope and "website" in env:
        # One that has nothing asks the parameter. Each write empties Odoo's caches.
        others = env["website"].with_context(active_test=False).search([(SIGN_UP_COLUMN, "not in", [scope, False])])
        if others:
            others.write({SIGN_UP_COLUMN: scope})


def set_language(env: Any, code: str) -> None:
    """Activate a language and load its terms for every installed module."""
    from odoo.tools.translate import load_language  # type: ignore[import-not-found]

    known = [item.code for item in env["res.lang"].with_context(active_test=False).search([])]
    if code not in known:
        match = difflib.get_close_matches(code, known, 1, 0.4)
        raise Refused(f"language {code} is unknown to Odoo" + (f"; did you mean {match[0]}?" if match else ""))
    load_language(env.cr, code)


def set_country(env: Any, code: str) -> None:
    """Make a country the main company's, with its currency and, when it has only one, its time zone.

    As ``_initialize_db`` in Odoo's ``service/db.py`` does. Localisation modules are chosen by it, so it comes before any.
    """
    from pytz import country_timezones  # type: ignore[import-untyped,import-not-found,unused-ignore]

    country = env["res.country"].search([("code", "=", code)])
    if not country:
        raise Refused(f"country {code} is unknown to Odoo: give its ISO 3166 code of two letters, such as DE")
    env["res.company"].browse(1).write({"country_id": country.id, "currency_id": country.currency_id.id})
    zones = country_timezones.get(code, [])
    if len(zones) == 1:
        env["res.users"].search([]).write({"tz": zones[0]})


def unfinished_basics(connection: Any) -> list[str]:
    """Return the modules that belong to every new database and that an interrupted initialisation did not get to.

    Odoo marks them when it creates its tables: those that install by themselves once their dependencies are there.
    """
    candidates: dict[str, set[str]] = {}
    for name, needed in rows(
        connection,
        "SELECT m.name, d.name FROM ir_module_module m LEFT JOIN ir_module_module_dependency d"
        " ON d.module_id = m.id AND d.auto_install_required WHERE m.state = 'uninstalled' AND m.auto_install",
    ):
        candidates.setdefault(name, set()).update({needed} if needed else ())
    present = {name for (name,) in rows(connection, "SELECT name FROM ir_module_module WHERE state = 'installed'")}
    found: set[str] = set()
    while True:
        more = {name for name, needs in candidates.items() if name not in found and needs <= present | found}
        if not more:
            return sorted(found)
        found |= more


def initialise(connection: Any, registry_class: Any, request: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Install base into an empty database, or go on where an interrupted initialisation ended; no demo data."""
    import psycopg2  # type: ignore[import-untyped,unused-ignore]

    if state["foreign_tables"]:
        raise Refused(
            f"database {state['database']} holds {state['foreign_tables']} tables and none of them is Odoo's: "
            "give the instance an empty database"
        )
    annotate(connection, INITIALISING)
    # Indexes for searching text. A trusted extension: the database's owner may create it where its files are installed.
    with contextlib.suppress(psycopg2.errors.InsufficientPrivilege, psycopg2.errors.FeatureNotSupported):
        rows(connection, "CREATE EXTENSION IF NOT EXISTS pg_trgm")
    basics = unfinished_basics(connection) if state["modules"] else []
    registry = registry_class.new(state["database"], update_module=True, install_modules=basics, new_db_demo=False)
    with environment(registry) as env:
        set_language(env, request["language"])
        if request["country"]:
            set_country(env, request["country"])
        administrator = env.ref("base.user_admin")
        administrator.write({"lang": request["language"], "login": request["login"], "password": request["password"]})
        if "@" in request["login"]:
            administrator.email = env["res.company"].browse(1).email = request["login"]
    annotate(connection, None)


def portions(files: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield attachments that are moved at once: Odoo has all of them in memory, five times, and writes them in one statement.

    Args:
        files: Each with its size in bytes.
    """
    portion: list[int] = []
    total = 0
    for number, size in files:
        if portion and (len(portion) == MOVED_AT_ONCE or total + size > MOVED_BYTES):
            yield portion
            portion, total = [], 0
        portion.append(number)
        total += size
    if portion:
        yield portion


def move_attachments(connection: Any, registry: Any, filestore: str) -> None:
    """Copy the content of attachments from files of this host into the database; the files stay.

    Odoo's own way (``force_storage``) also takes those whose file is on another host, reads nothing, and stores that.
    """
    here, _elsewhere = attachment_files(connection, filestore)
    sizes = dict(rows(connection, "SELECT id, coalesce(file_size, 0) FROM ir_attachment WHERE id = ANY(%s)", here))
    for portion in portions([(number, sizes.get(number, 0)) for number in here]):
        with environment(registry) as env:
            env["ir.attachment"].browse(portion).exists()._migrate()


# --- sign-in by OpenID Connect --------------------------------------------------------------------------------------------


def read_provider(connection: Any) -> dict[str, Any]:
    """Return our OpenID provider as the database has it, whether Odoo's own is on the login page, and who could sign in at ours.

    Of the administrator and of all users that are linked to a provider ``passwords`` counts those with a password. ``administrators`` are the active ones
    among the users that are linked to ours.
    """
    state: dict[str, Any] = {"provider": {}, "odoo_com": False, "passwords": 0, "administrators": 0}
    ((there,),) = rows(connection, "SELECT to_regclass('auth_oauth_provider') IS NOT NULL")
    if there:
        question = "SELECT row_to_json(p) FROM auth_oauth_provider p JOIN ir_model_data d ON d.res_id = p.id"
        question += " WHERE d.model = 'auth.oauth.provider' AND d.module = %s AND d.name = %s"
        for (provider,) in rows(connection, question, *PROVIDER):
            # The button's text is kept by language; what is not translated shows the English one.
            state["provider"] = {**provider, "body": (provider["body"] or {}).get("en_US")}
        for (odoo_com,) in rows(connection, question, "auth_oauth", "provider_openerp"):
            state["odoo_com"] = bool(odoo_com["enabled"])
        ((state["passwords"],),) = rows(connection, f"SELECT count(*) FROM res_users WHERE {SIGNING_IN}")  # noqa: S608 - of this file
        question = "SELECT count(*) FROM res_users u JOIN res_groups_users_rel g ON g.uid = u.id JOIN ir_model_data d ON d.res_id = g.gid"
        question += (
            " WHERE d.model = 'res.groups' AND d.module = 'base' AND d.name = 'group_system' AND u.active AND u.oauth_uid IS NOT NULL"
        )
        ((state["administrators"],),) = rows(
            connection, f"{question} AND u.oauth_provider_id = %s", (state["provider"] or {"id": None})["id"]
        )
    return state


def ask_provider(issuer: str, authority: str) -> dict[str, Any]:
    """Return what an OpenID provider says of itself as C(configuration), or C(silence), why it says nothing.

    Args:
        issuer: Its address.
        authority: PEM text of the authorities that sign its certificate, empty for the public ones.
    """
    import ssl
    import urllib.request

    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        context = ssl.create_default_context(cadata=authority or None)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        with opener.open(address, timeout=PROVIDER_WAITS_S) as answer:
            configuration = json.load(answer)
    except (OSError, ValueError) as error:
        return {"silence": f"{address}: {getattr(error, 'reason', None) or error}"}
    return {"configuration": configuration} if isinstance(configuration, dict) else {"silence": f"{address} is no JSON object"}


def set_provider(env: Any, record: Mapping[str, Any]) -> None:
    """Make our OpenID provider what it shall be, or take it from the login page when nothing is wanted. Users stay linked to it."""
    module, name = PROVIDER
    provider = env.ref(f"{module}.{name}", raise_if_not_found=False)
    if not record:
        if provider:
            provider.enabled = False
        return
    if provider:
        provider.with_context(lang="en_US").write(dict(record))
    else:
        provider = env["auth.oauth.provider"].with_context(lang="en_US").create(dict(record))
        env["ir.model.data"].create({"module": module, "name": name, "model": provider._name, "res_id": provider.id, "noupdate": True})
    odoo_com = env.ref("auth_oauth.provider_openerp", raise_if_not_found=False)
    if odoo_com:
        odoo_com.enabled = False


def take_passwords(env: Any) -> None:
    """Take the passwords of whoever signs in at the provider; who is in has to sign in again."""
    env.flush_all()
    env.cr.execute(f"UPDATE res_users SET password = NULL WHERE {SIGNING_IN}")  # noqa: S608 - of this file
    env.invalidate_all()
    # It keeps what a session must match.
    env.registry.clear_cache()


# --- attachments in S3 --------------------------------------------------------------------------------------------------


def read_filestore(connection: Any) -> dict[str, Any]:
    """Return where the attachments are.

    ``storage`` holds the columns of our storage, nothing when there is none; ``used`` tells whether an attachment is there, and ``local``
    counts those in the data directory. ``owner`` is the database's own id, empty in a new one.
    """
    ((attachments, storages),) = rows(connection, "SELECT to_regclass('ir_attachment') IS NOT NULL, to_regclass('fs_storage') IS NOT NULL")
    state: dict[str, Any] = {"storage": {}, "used": False, "local": 0, "owner": ""}
    if attachments:
        ((state["local"],),) = rows(connection, f"SELECT count(*) FROM ir_attachment WHERE {LOCAL}")  # noqa: S608 - a constant
        for (owner,) in rows(connection, "SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'"):
            state["owner"] = owner or ""
    if storages:
        for (storage,) in rows(connection, "SELECT row_to_json(s) FROM fs_storage s WHERE code = %s", FILESTORE):
            state["storage"] = storage
        ((state["used"],),) = rows(connection, "SELECT EXISTS (SELECT FROM ir_attachment WHERE store_fname LIKE %s)", f"{FILESTORE}://%")
    return state


def place_problem(kinds: Iterable[str], text: str, endpoint: str, place: str) -> str:
    """Return in words why a place in S3 cannot be used, and what to do.

    Args:
        kinds: Names of the error's class and of its bases.
        text: What the error says.
        endpoint: The server.
        place: Bucket and directory.
    """
    bucket, names = place.partition("/")[0], set(kinds)
    words = f"{place} at {endpoint} cannot be used ({' '.join(text.split())})"
    if "ImportError" in names:
        return f"the image cannot reach S3 ({text}): {IMAGE_REMEDY}"
    if "FileNotFoundError" in names:
        return f"{words}: make the bucket {bucket}, or correct odoo_filestore.bucket"
    if "PermissionError" in names:
        return (
            f"{words}: check that the bucket {bucket} exists, that odoo_filestore_access_key and odoo_filestore_secret_key are right, "
            f"and that they may list the bucket, and read, write and delete below {place}/"
        )
    if "SSLError" in names:
        return f"{words}: give the authority that signed its certificate as odoo_filestore.authority_certificate"
    return f"{words}: check odoo_filestore.endpoint, and that this host reaches it"


@contextlib.contextmanager
def place_errors(record: Mapping[str, Any], database: str) -> Iterator[None]:
    """Turn whatever S3 and the way to it raise into words. psycopg2 has its own."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Refused) or type(error).__module__.startswith("psycopg2"):
            raise
        kinds = [kind.__name__ for kind in type(error).__mro__]
        endpoint, place = json.loads(record["options"])["endpoint_url"], record["directory_path"].format(db_name=database)
        raise Refused(place_problem(kinds, str(error), endpoint, place)) from error


def open_place(record: Mapping[str, Any], database: str) -> tuple[Any, str]:
    """Return a file system for S3, and the directory of a database in it."""
    import fsspec  # type: ignore[import-untyped,import-not-found,unused-ignore]

    return fsspec.filesystem("s3", **json.loads(record["options"])), record["directory_path"].format(db_name=database)


def check_place(record: Mapping[str, Any], database: str, owner: str, claim: bool) -> None:
    """Refuse a place in S3 that cannot be read and written, or belongs to another database.

    Two databases in one place would delete each other's attachments. So the owner's id lies there.

    Args:
        record: Values of the storage.
        database: Its name.
        owner: Its own id, empty while it is new.
        claim: Whether the place becomes its own.
    """
    with place_errors(record, database):
        system, place = open_place(record, database)
        probe = f"{place}/{OWNER}-probe"
        try:
            found = system.cat_file(f"{place}/{OWNER}").decode()
        except FileNotFoundError:
            found = ""
        if not found:
            system.pipe_file(probe, b"berth")
            system.rm_file(probe)
            if claim and owner:
                system.pipe_file(f"{place}/{OWNER}", owner.encode())
                found = system.cat_file(f"{place}/{OWNER}").decode()
    if found and found != owner:
        raise Refused(
            f"{place} belongs to another database, with the id {found}: two would delete each other's attachments. "
            f"Give odoo_filestore.bucket another bucket. Where that database is gone for good, delete the object {place}/{OWNER}"
        )


def set_storage(env: Any, record: Mapping[str, Any]) -> None:
    """Make our storage what it shall be; it becomes the one for new attachments."""
    storage = env["fs.storage"].search([("code", "=", FILESTORE)])
    if storage:
        storage.write(dict(record))
    else:
        env["fs.storage"].create({"name": "berth.odoo", "code": FILESTORE, **record})


def move_files(connection: Any, env: Any, seconds: float) -> dict[str, Any]:
    """Copy attachments from the data directory to S3, and let each one point there once it was read back.

    Each is a transaction of its own, so whatever ends this, the rest stays where it is. Nothing in the data directory is deleted. Odoo's
    own way, C(force_storage), deletes the local files, and its uploads are deleted with a transaction that fails (OCA/storage#660).

    Args:
        connection: To the database.
        env: An environment of the superuser.
        seconds: When to stop.

    Returns:
        ``moved``, and ``unreadable``: ids whose local file is not there or has another content.
    """
    import hashlib
    import time

    attachments, end, last = env["ir.attachment"], time.monotonic() + seconds, 0
    storage, system = env["fs.storage"].search([("code", "=", FILESTORE)]), attachments._get_fs_storage_for_code(FILESTORE)
    result: dict[str, Any] = {"moved": 0, "unreadable": []}
    while batch := rows(
        connection,
        f"SELECT id, store_fname, checksum, coalesce(mimetype, '') FROM ir_attachment WHERE {LOCAL.replace('%', '%%')} AND id > %s"  # noqa: S608
        " ORDER BY id LIMIT 100",
        last,
    ):
        # It only reads; open for all that time it would hold back vacuum.
        env.cr.commit()
        for last, name, checksum, mimetype in batch:
            if time.monotonic() > end:
                return result
            try:
                with open(attachments._full_path(name), "rb") as file:
                    content = file.read()
            except FileNotFoundError:
                content = None
            if content is None or hashlib.sha1(content).hexdigest() != checksum:  # noqa: S324 - Odoo's
                result["unreadable"].append(last)
                continue
            if attachments._store_in_db_instead_of_object_storage(content, mimetype):
                rows(
                    connection,
                    "UPDATE ir_attachment SET store_fname = NULL, db_datas = %s WHERE id = %s AND store_fname = %s",
                    content,
                    last,
                    name,
                )
            else:
                mark = "INSERT INTO fs_file_gc (store_fname, fs_storage_code, create_date) VALUES (%s, %s, now() AT TIME ZONE 'UTC')"
                mark += " ON CONFLICT (store_fname) DO UPDATE SET create_date = excluded.create_date"
                rows(connection, mark, f"{FILESTORE}://{checksum}", FILESTORE)
                system.pipe_file(checksum, content, **({"ContentType": mimetype} if mimetype else {}))
                if system.cat_file(checksum) != content:
                    raise Refused(f"attachment {last} came back from S3 with another content; it stays in the data directory")
                rows(
                    connection,
                    "UPDATE ir_attachment SET store_fname = %s, fs_filename = %s, fs_storage_id = %s, fs_storage_code = %s"
                    " WHERE id = %s AND store_fname = %s",
                    f"{FILESTORE}://{checksum}",
                    checksum,
                    storage.id,
                    FILESTORE,
                    last,
                    name,
                )
            result["moved"] += 1
    return result


# --- requests -----------------------------------------------------------------------------------------------------------


def answer_state(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the database, reading only."""
    options = read_configuration()
    with contextlib.closing(connect(options, request["who"])) as connection:
        state = read_state(connection, request["parameters"], request["tables"], wanted_filestore(request, options))
    if request.get("oidc"):
        state["oidc"].update(ask_provider(request["oidc"]["issuer"], request["oidc"]["authority_certificate"]))
    return state


def wanted_filestore(request: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """Return where attachments are that shall be in the database."""
    return filestore_of(options) if request.get("attachments_in_database") else ""


def answer_available(_request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the modules of the image, without a database."""
    load_odoo()
    return {"available": image_modules()}


def check_start(names: Sequence[str], options: Mapping[str, str]) -> None:
    """Refuse server-wide modules that the image does not have, and settings with which Odoo would not start."""
    roots = [*(f"{entry}/odoo/addons" for entry in sys.path), *options.get("addons_path", "").split(",")]
    available = {file.parent.name for root in roots if root for file in Path(root).glob("*/__manifest__.py")}
    if problems := load_problems(names, available):
        raise Refused("\n".join(problems))
    check_settings()


def answer_loadable(request: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse an image with which Odoo would not start or which lacks modules of the database; return those of another version."""
    options = {**read_configuration(), **({"db_name": request["database"]} if request.get("database") else {})}
    check_start(request["names"], options)
    with contextlib.closing(connect(options, request["who"])) as connection:
        load_odoo()
        state = read_state(connection, [])
        return {"database": state["database"], "others": other_versions(connection, state, image_modules())}


def answer_converge(request: Mapping[str, Any]) -> dict[str, Any]:
    """Make the database what the request says and return its new state."""
    options = read_configuration()
    with contextlib.closing(connect(options, request["who"])) as connection, alone(connection, request["wait"]):
        # Read again under the lock: whoever held it before may have done the work.
        state = read_state(connection, request["parameters"])
        registry_class = load_odoo()
        available = image_modules()
        check_version(state, available)
        missing = [name for name in request["modules"] if state["modules"].get(name) != "installed"]
        if missing or request["update"]:
            check_modules(state, missing, available)
        if request["only_check"]:
            return state
        if not state["initialised"]:
            initialise(connection, registry_class, request, state)
            state = read_state(connection, [])
        newer = [other["name"] for other in other_versions(connection, state, available) if other["newer"]]
        # Another host may have done it meanwhile.
        if update := [name for name in request["update"] if name in newer]:
            # First, because new code may not find its columns.
            change_modules(connection, registry_class, state, [], [], update)
            state = read_state(connection, request["parameters"])
        with environment(registry_class(state["database"])) as env:
            if request["language"] not in state["languages"]:
                set_language(env, request["language"])
            if request["login"] != state["login"]:
                env.ref("base.user_admin").login = request["login"]
            if request["set_password"]:
                env.ref("base.user_admin").password = request["password"]
            set_parameters(env, request["parameters"])
        filestore = wanted_filestore(request, options)
        if filestore:
            move_attachments(connection, registry_class(state["database"]), filestore)
        # The initialisation may have brought some.
        missing = [name for name in missing if state["modules"].get(name) != "installed"]
        change_modules(connection, registry_class, state, missing, [])
        if missing:
            # A module may have brought values of its own.
            with environment(registry_class(state["database"])) as env:
                set_parameters(env, request["parameters"])
        if request["provider"] or state["oidc"]["provider"]:
            with environment(registry_class(state["database"])) as env:
                set_provider(env, request["provider"])
                if not request["passwords"]:
                    take_passwords(env)
        # Last, because tables come with modules.
        done, locked = set_tables(connection, request["tables"])
        after = read_state(connection, request["parameters"], request["tables"], filestore)
        return {**after, "tables_done": done, "tables_locked": locked, "others": other_versions(connection, after, available)}


def answer_tables(request: Mapping[str, Any]) -> dict[str, Any]:
    """Change tables alone, which needs no Odoo, and return the database's new state."""
    with contextlib.closing(connect(read_configuration(), request["who"])) as connection, alone(connection, request["wait"]):
        done, locked = set_tables(connection, request["tables"])
        return {**read_state(connection, request["parameters"], request["tables"]), "tables_done": done, "tables_locked": locked}


def answer_modules(request: Mapping[str, Any]) -> dict[str, Any]:
    """Install or uninstall modules and return the database's new state."""
    options = read_configuration()
    with contextlib.closing(connect(options, request["who"])) as connection, alone(connection, request["wait"]):
        state = read_state(connection, [])
        if not state["initialised"]:
            raise Refused(f"database {state['database']} is not initialised: run odoo_database first")
        registry_class = load_odoo()
        available = image_modules()
        check_version(state, available)
        check_modules(state, request["install"], available)
        if older := listed(other["text"] for other in other_versions(connection, state, available) if other["newer"]):
            raise Refused(
                f"modules have to be updated first, with odoo_database and update_modules, in playbooks -e odoo_update_modules=true: {older}"
            )
        if request["only_check"]:
            if request["uninstall"]:
                with environment(registry_class(state["database"])) as env:
                    removable(env, request["uninstall"])
            return state
        change_modules(connection, registry_class, state, request["install"], request["uninstall"])
        return read_state(connection, [])


def answer_filestore_state(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the attachments are, reading only."""
    with contextlib.closing(connect(read_configuration(), request["who"])) as connection:
        return read_filestore(connection)


def answer_filestore(request: Mapping[str, Any]) -> dict[str, Any]:
    """Keep attachments in S3, move those of the data directory there, and return where they are then."""
    options = read_configuration()
    with contextlib.closing(connect(options, request["who"])) as connection, alone(connection, request["wait"]):
        state, record = read_filestore(connection), request["record"]
        registry_class = load_odoo()
        problems = module_problems([FILESTORE_MODULE], image_modules())
        if problems:
            raise Refused("\n".join(f"{problem}: {IMAGE_REMEDY}" for problem in problems))
        check_place(record, options["db_name"], state["owner"], claim=not request["only_check"])
        if request["only_check"]:
            return state
        from odoo.service.server import load_server_wide_modules  # type: ignore[import-not-found]

        load_server_wide_modules()
        with environment(registry_class(options["db_name"])) as env:
            set_storage(env, record)
        with place_errors(record, options["db_name"]), environment(registry_class(options["db_name"])) as env:
            moved = move_files(connection, env, request["seconds"])
        return {**read_filestore(connection), **moved}


def check_modules(state: Mapping[str, Any], names: Sequence[str], available: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse modules that cannot be installed, and a database in which somebody else changes modules."""
    problems = module_problems(names, available)
    if problems:
        raise Refused("\n".join(problems))
    pending = leftovers(state["modules"]) if state["initialised"] else {}
    if pending and not state["unfinished"].startswith(CHANGING_MODULES):
        raise Refused(
            f"modules between two states: {listed(f'{name} ({how})' for name, how in pending.items())}. Either somebody "
            "is installing at this moment, or an operation died. Wait, or cancel it in Odoo's Apps, then run again"
        )


def change_modules(
    connection: Any,
    registry_class: Any,
    state: Mapping[str, Any],
    install: Sequence[str],
    uninstall: Sequence[str],
    update: Sequence[str] = (),
) -> None:
    """Install, uninstall and update modules, after what an operation of ours that died left behind."""
    if (pending := updating(state)) and not update:
        raise Refused(
            f"the update of {listed(pending)} did not end. Run again with update_modules, which in playbooks is -e odoo_update_modules=true"
        )
    if leftovers(state["modules"]) and state["unfinished"].startswith(CHANGING_MODULES):
        # Ours, and dead: we hold its lock.
        from odoo.modules.loading import reset_modules_state  # type: ignore[import-not-found]

        reset_modules_state(state["database"])
    if not install and not uninstall and not update and not state["unfinished"]:
        return
    with noted(connection, UPDATING + " ".join(update) if update else CHANGING_MODULES):
        if install or update:
            registry_class.new(state["database"], update_module=True, install_modules=install, upgrade_modules=update)
        if uninstall:
            with environment(registry_class(state["database"])) as env:
                removable(env, uninstall).button_immediate_uninstall()


@contextlib.contextmanager
def noted(connection: Any, note: str) -> Iterator[None]:
    """Keep a note in the database as long as modules may be between two states.

    When it fails Odoo puts the states back, and forgets which modules of an update it has not come to.
    """
    annotate(connection, note)
    ended = not note.startswith(UPDATING)
    try:
        yield
        ended = True
    finally:
        if ended and not leftovers(read_state(connection, [])["modules"]):
            annotate(connection, None)


def removable(env: Any, names: Sequence[str]) -> Any:
    """Return the records of modules to uninstall, unless that would take others along."""
    modules = env["ir.module.module"].search([("name", "in", list(names)), ("state", "=", "installed")])
    others = modules.downstream_dependencies() - modules
    if others:
        raise Refused(
            f"uninstalling {listed(names)} would also uninstall, with their data: {listed(others.mapped('name'))}. "
            "Name them too when that is wanted"
        )
    return modules


REQUESTS = {
    "state": answer_state,
    "available": answer_available,
    "loadable": answer_loadable,
    "converge": answer_converge,
    "tables": answer_tables,
    "modules": answer_modules,
    "filestore_state": answer_filestore_state,
    "filestore": answer_filestore,
}


def main() -> int:
    """Answer the request on standard input. The exit code is 0 whenever there is an answer, also a refusal."""
    request = json.load(sys.stdin)
    try:
        answer = REQUESTS[request["do"]](request)
    except Refused as refusal:
        answer = {"refused": str(refusal)}
    except Exception as error:  # noqa: BLE001 - Odoo raises anything; the log on standard error has the traceback
        import traceback

        traceback.print_exc()
        text = re.sub(r"\s+", " ", str(error)).strip()
        answer = {"failed": f"{type(error).__name__}: {text}"[:1000]}
    # This file is a program for Odoo's container, not part of a module: its answer is what it prints.
    print(ANSWER + json.dumps(answer), flush=True)  # noqa: T201  # pylint: disable=ansible-bad-function
    return 0


if __name__ == "__main__":
    sys.exit(main())  # pylint: disable=ansible-bad-function
