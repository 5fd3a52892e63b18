# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The half of odoo_database and odoo_module that runs inside an Odoo container.

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
from typing import Any

ANSWER = "berth-answer:"
# Advisory lock that serialises operations on one database: the first 63 bits of sha256("berth.odoo maintenance").
LOCK = 8560957220717946169
# Written as the database's comment while an operation of ours is unfinished, so that the next one knows how to go on.
INITIALISING = "berth: initialising"
CHANGING_MODULES = "berth: changing modules"
TRANSITIONAL = ("to install", "to upgrade", "to remove")
# Shown in messages so that a long list stays readable.
SHOWN = 8


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
            problems.append(f"{name}: no such module in the image" + (f"; did you mean {match[0]}?" if match else ""))
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


def leftovers(modules: Mapping[str, str]) -> dict[str, str]:
    """Return the modules that an unfinished operation left in a state between two others."""
    return {name: state for name, state in modules.items() if state in TRANSITIONAL}


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


def read_state(connection: Any, parameters: Sequence[str]) -> dict[str, Any]:
    """Return what the modules compare with what is wanted.

    Args:
        connection: To the instance's database.
        parameters: Keys of the system parameters to return.
    """
    ((database, has_odoo, tables, note),) = rows(
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
        "unfinished": note if note in (INITIALISING, CHANGING_MODULES) else "",
        "foreign_tables": 0 if has_odoo else tables,
        "version": "",
        "modules": {},
        "parameters": {},
        "languages": [],
        "country": "",
        "login": "",
        "password_hash": "",
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
        state["languages"] = [code for (code,) in rows(connection, "SELECT code FROM res_lang WHERE active ORDER BY code")]
        for login, password in rows(
            connection,
            "SELECT login, password FROM res_users WHERE id = (SELECT res_id FROM ir_model_data"
            " WHERE module = 'base' AND name = 'user_admin' AND model = 'res.users')",
        ):
            state["login"], state["password_hash"] = login, password or ""
        for (country,) in rows(
            connection,
            "SELECT c.code FROM res_company y JOIN res_partner p ON p.id = y.partner_id"
            " JOIN res_country c ON c.id = p.country_id WHERE y.id = 1",
        ):
            state["country"] = country or ""
    state["initialised"] = state["modules"].get("base") == "installed" and state["unfinished"] != INITIALISING
    return state


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
    if state["version"] and state["version"] != ours:
        raise Refused(
            f"database {state['database']} has base {state['version']}, the image has {ours}: "
            "upgrade the database with a release, or deploy the image it was made with"
        )


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


# --- requests -----------------------------------------------------------------------------------------------------------


def answer_state(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the database, reading only."""
    with contextlib.closing(connect(read_configuration(), request["who"])) as connection:
        return read_state(connection, request["parameters"])


def answer_available(_request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the modules of the image, without a database."""
    load_odoo()
    return {"available": image_modules()}


def answer_converge(request: Mapping[str, Any]) -> dict[str, Any]:
    """Make the database what the request says and return its new state."""
    options = read_configuration()
    with contextlib.closing(connect(options, request["who"])) as connection, alone(connection, request["wait"]):
        # Read again under the lock: whoever held it before may have done the work.
        state = read_state(connection, list(request["parameters"]))
        registry_class = load_odoo()
        check_version(state, image_modules())
        if not state["initialised"]:
            initialise(connection, registry_class, request, state)
            state = read_state(connection, [])
        with environment(registry_class(state["database"])) as env:
            if request["language"] not in state["languages"]:
                set_language(env, request["language"])
            if request["login"] != state["login"]:
                env.ref("base.user_admin").login = request["login"]
            if request["set_password"]:
                env.ref("base.user_admin").password = request["password"]
            for key, value in request["parameters"].items():
                env["ir.config_parameter"].set_param(key, value)
        return read_state(connection, list(request["parameters"]))


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
        if request["install"]:
            problems = module_problems(request["install"], available)
            if problems:
                raise Refused("\n".join(problems))
        pending = leftovers(state["modules"])
        if pending and state["unfinished"] != CHANGING_MODULES:
            raise Refused(
                f"modules between two states: {listed(f'{name} ({how})' for name, how in pending.items())}. Either somebody "
                "is installing at this moment, or an operation died. Wait, or cancel it in Odoo's Apps, then run again"
            )
        if request["only_check"]:
            if request["uninstall"]:
                with environment(registry_class(state["database"])) as env:
                    removable(env, request["uninstall"])
            return state
        if pending:
            # Ours, and dead: we hold its lock.
            from odoo.modules.loading import reset_modules_state  # type: ignore[import-not-found]

            reset_modules_state(state["database"])
        with noted(connection, CHANGING_MODULES):
            if request["install"]:
                registry_class.new(state["database"], update_module=True, install_modules=request["install"])
            if request["uninstall"]:
                with environment(registry_class(state["database"])) as env:
                    removable(env, request["uninstall"]).button_immediate_uninstall()
        return read_state(connection, [])


@contextlib.contextmanager
def noted(connection: Any, note: str) -> Iterator[None]:
    """Keep a note in the database as long as modules may be between two states. Odoo puts them back when it fails."""
    annotate(connection, note)
    try:
        yield
    finally:
        if not leftovers(read_state(connection, [])["modules"]):
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
    "converge": answer_converge,
    "modules": answer_modules,
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
