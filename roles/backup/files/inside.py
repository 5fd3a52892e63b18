# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The half of set.py that runs in a maintenance container of an instance: it knows the way to the database.

It answers three lines of standard input, each with a line of standard output that begins with ANSWER: what was asked for, then "end" when the files
have been copied, then it waits for the archive. When standard input ends it ends, and with it the lock: whoever asked is gone.

Odoo's collector of attachments (ir.attachment, _gc_file_store, Odoo 19.0) locks the table in the mode SHARE, or does nothing for this time when it does
not get that within ten seconds. ROW EXCLUSIVE, which every writer takes, keeps it off and keeps nobody else off. Taken with nothing else in its transaction it
holds neither a snapshot nor a transaction number, so that vacuum goes on for as long as a first copy takes.
"""

from __future__ import annotations

import configparser
import json
import os
import select
import sys
import time
from typing import Any

ANSWER = "berth-answer:"
# What a restore is judged by: that people, their documents, goods and money are there. Tables that an instance has not are left out.
TABLES = (
    "res_partner", "res_users", "res_company", "ir_attachment", "ir_model_data", "mail_message", "product_template", "product_product",
    "sale_order", "sale_order_line", "purchase_order", "stock_picking", "stock_move", "stock_quant", "account_move", "account_move_line",
    "mrp_production", "hr_employee", "crm_lead", "project_task",
)  # fmt: skip
LOOK_S = 2.0
LOCK_WAIT_S = 120
# How often a moment without a write is looked for, and how long between.
TRIES, PAUSE_S = 40, 0.05
SHOWN = 10


class Refused(Exception):
    """It cannot be done. The text says why and what to do."""


def options() -> dict[str, str]:
    """Return what Odoo's configuration of this container says."""
    parser = configparser.RawConfigParser()
    parser.read([os.environ["ODOO_RC"]], encoding="utf-8")
    return dict(parser.items("options"))


def connect(found: dict[str, str]) -> Any:
    """Return a connection to the primary, each statement its own transaction. Raises Refused."""
    import psycopg2

    try:
        connection = psycopg2.connect(
            dbname=found["db_name"], host=found["db_host"], port=found["db_port"], sslmode=found.get("db_sslmode", "prefer"),
            application_name="berth-set", keepalives_idle=15, keepalives_interval=5, keepalives_count=3,
        )  # fmt: skip
    except psycopg2.OperationalError as error:
        raise Refused(f"cannot connect to database {found['db_name']} at {found['db_host']}:{found['db_port']}: {error}".strip()) from error
    connection.autocommit = True
    ask(connection, "SET idle_in_transaction_session_timeout = 0")
    ask(connection, "SET statement_timeout = '30min'")
    return connection


def ask(connection: Any, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall()) if cursor.description else []


def say(answer: dict[str, Any]) -> None:
    """Answer."""
    print(ANSWER + json.dumps(answer), flush=True)


def hold(connection: Any) -> None:
    """Keep the collector off, after one that runs just now."""
    import psycopg2

    ask(connection, f"SET lock_timeout = '{LOCK_WAIT_S}s'")
    ask(connection, "BEGIN")
    try:
        ask(connection, "LOCK TABLE ir_attachment IN ROW EXCLUSIVE MODE")
    except psycopg2.errors.LockNotAvailable as error:
        raise Refused(
            f"the table of attachments is locked by somebody for more than {LOCK_WAIT_S} s; run again when modules are installed"
        ) from error


def position(connection: Any) -> dict[str, Any]:
    """Return what the database holds and where in its WAL that is. The transaction of it is open afterwards.

    Where nobody writes, the two are the same moment. Where somebody always does, rows may differ from the position by what was written between two statements:
    C(exact) says so.
    """
    for _attempt in range(TRIES):
        ((before,),) = ask(connection, "SELECT pg_current_wal_insert_lsn()::text")
        ask(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        ((lsn, moment, timeline, writing),) = ask(
            connection,
            "SELECT pg_current_wal_insert_lsn()::text, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), "
            "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int, "
            "(SELECT count(*) FROM pg_snapshot_xip(pg_current_snapshot()))",
        )
        exact = before == lsn and not writing
        if exact or _attempt == TRIES - 1:
            return {"time": moment, "lsn": lsn, "timeline": timeline, "exact": exact}
        ask(connection, "ROLLBACK")
        time.sleep(PAUSE_S)
    raise AssertionError


def attachments(connection: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what is known of the attachments, and the names of those that are files."""
    # One row a file: many attachments may share it.
    found = ask(
        connection, "SELECT store_fname, max(file_size) FROM ir_attachment WHERE type = 'binary' AND store_fname IS NOT NULL GROUP BY 1"
    )
    local = [(name, size or 0) for name, size in found if "://" not in name]
    remote = [(name, size or 0) for name, size in found if "://" in name]
    location = ask(connection, "SELECT value FROM ir_config_parameter WHERE key = 'ir_attachment.location'")
    kind = "s3" if remote else "database" if not local and location and location[0][0] == "db" else "files"
    counted = remote if remote else local
    answer = {"files": len(counted), "bytes": sum(size for _name, size in counted), "location": kind}
    if remote and local:
        answer["not_yet_in_s3"] = len(local)
    return answer, [name for name, _size in local]


def versioning(connection: Any) -> str:
    """Return what the bucket of the attachments says of its versions, or why it says nothing."""
    ((text, directory),) = ask(connection, "SELECT options, directory_path FROM fs_storage WHERE code = 'berth'") or [(None, None)]
    if not text:
        return "unknown: the database has no storage berth"
    import botocore.exceptions
    import botocore.session

    known = json.loads(text)
    client = botocore.session.get_session().create_client("s3", endpoint_url=known["endpoint_url"], **known.get("client_kwargs", {}))
    try:
        return str(client.get_bucket_versioning(Bucket=directory.partition("/")[0]).get("Status", "off"))
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        return f"unknown: {error}"


def gone(filestore: str, names: list[str]) -> list[str]:
    """Return those that have no file here."""
    return [name for name in names if not os.path.isfile(os.path.join(filestore, name))]


def whose(connection: Any, names: list[str]) -> list[str]:
    """Name attachments by their files."""
    found = ask(
        connection, "SELECT id, name, store_fname FROM ir_attachment WHERE store_fname = ANY(%s) ORDER BY id LIMIT %s", names, SHOWN
    )
    words = [f"attachment {number} ({name!r}): {file}" for number, name, file in found]
    return words or names[:SHOWN]


def begin(holder: Any, reader: Any, found: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Hold the collector, and return what the manifest says of the database."""
    ((recovery, mode, table),) = ask(
        reader, "SELECT pg_is_in_recovery(), current_setting('archive_mode'), to_regclass('ir_attachment') IS NOT NULL"
    )
    if recovery:
        raise Refused(f"{found['db_host']} leads to a standby, and a position is the primary's; look at berth.odoo.status")
    if mode == "off":
        raise Refused("PostgreSQL archives nothing (archive_mode is off), so no position can be restored: run berth.odoo.site")
    if not table:
        raise Refused(f"database {found['db_name']} has no attachments: Odoo was not installed in it; run berth.odoo.site")
    hold(holder)
    answer = {"database": found["db_name"], **position(reader)}
    filestore = os.path.join(found["data_dir"], "filestore", found["db_name"])
    tables = [name for name in TABLES if ask(reader, "SELECT to_regclass(%s)", f"public.{name}")[0][0]]
    counts = ", ".join(f"'{name}', (SELECT count(*) FROM \"{name}\")" for name in tables)  # noqa: S608 - names of ours
    ((answer["rows"],),) = ask(reader, f"SELECT json_build_object({counts})")
    answer["modules"] = dict(ask(reader, "SELECT name, latest_version FROM ir_module_module WHERE state = 'installed' ORDER BY name"))
    answer["modules_unfinished"] = dict(
        ask(reader, "SELECT name, state FROM ir_module_module WHERE state IN ('to install', 'to upgrade', 'to remove') ORDER BY name")
    )
    answer["attachments"], names = attachments(reader)
    ((answer["system_identifier"],),) = ask(reader, "SELECT system_identifier::text FROM pg_control_system()")
    ask(reader, "COMMIT")
    if answer["attachments"]["location"] == "s3":
        answer["attachments"]["versioning"] = versioning(reader)
    # A record after the position: recovery knows by it that it is there, and a database in which nobody writes has something to archive.
    ((answer["mark"],),) = ask(reader, "SELECT pg_walfile_name(pg_logical_emit_message(true, 'berth', 'set'))")
    lost = gone(filestore, names)
    answer["missing"], answer["missing_names"] = len(lost), whose(reader, lost) if lost else []
    return answer, [name for name in names if name not in set(lost)]


def wait(holder: Any, watcher: Any) -> str:
    """Hold the lock until the files are copied; return why it was let go before that, empty when it was not.

    A change of the table itself would wait for it, and everybody for that change.
    """
    released = ""
    while not select.select([sys.stdin], [], [], LOOK_S)[0]:
        # Also what tells a proxy that the connection is in use, and what notices that it is gone.
        ask(holder, "SELECT 1")
        waiting = ask(
            watcher,
            "SELECT 1 FROM pg_locks WHERE relation = 'ir_attachment'::regclass AND NOT granted AND mode = 'AccessExclusiveLock' "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        if waiting and not released:
            ask(holder, "ROLLBACK")
            released = "modules are installed or updated"
    if sys.stdin.readline().strip() != "end":
        sys.exit(1)
    ask(holder, "SELECT 1")
    if not released:
        ask(holder, "ROLLBACK")
    return released


def archived(watcher: Any, mark: str, seconds: float) -> None:
    """Wait until a segment of the WAL is in the archive. Raises Refused."""
    end = time.monotonic() + seconds
    while True:
        ((last, failed, when),) = ask(
            watcher,
            "SELECT last_archived_wal, CASE WHEN last_failed_time > COALESCE(last_archived_time, '-infinity') THEN last_failed_wal END, "
            "to_char(last_archived_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM pg_stat_archiver",
        )
        # Of another timeline, what has a higher number comes later.
        if last and len(last) >= len(mark) and (last[:8], last[8:24]) >= (mark[:8], mark[8:24]):
            return
        if time.monotonic() > end:
            raise Refused(
                f"the WAL of this set, {mark}, was not archived within {seconds:.0f} s: the last was {last or 'none'} at {when or '-'} UTC"
                + (f", and archiving {failed} fails" if failed else "")
                + ". Look at the log of the postgresql container; the set cannot be restored before that"
            )
        if select.select([sys.stdin], [], [], LOOK_S)[0] and not sys.stdin.readline():
            sys.exit(1)


def main() -> None:
    """Answer three lines."""
    import psycopg2

    request = json.loads(sys.stdin.readline())
    found = options()
    try:
        holder, watcher = connect(found), connect(found)
        answer, names = begin(holder, watcher, found)
        say(answer)
        released = wait(holder, watcher)
        if released:
            lost = gone(os.path.join(found["data_dir"], "filestore", found["db_name"]), names)
            if lost:
                raise Refused(f"{len(lost)} files went while they were copied, because {released}; run again")
        say({"copied": True})
        archived(watcher, answer["mark"], float(request["archive_seconds"]))
        say({"archived": True})
    except Refused as error:
        say({"refused": str(error)})
    except psycopg2.Error as error:
        say({"refused": f"the database went away or refused: {' '.join(str(error).split())}; run again"})


if __name__ == "__main__":
    main()
