#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_maintenance
short_description: Report what a PostgreSQL server's databases waste or lack, and repair it while users work
version_added: 0.1.0
description:
  - Measures the tables of every database (C(pgstattuple_approx)), rewrites those that waste too much with C(pg_repack), and analyzes tables
    whose statistics are missing or old. Never C(VACUUM FULL) or C(CLUSTER), which keep everybody out.
  - Reports invalid and unused indexes, damaged pages, and how many transaction numbers are used. An index is never dropped.
  - C(pg_repack) needs a table for itself for a moment, at its beginning and its end. It waits a minute for that and then gives up, and
    cancels nobody. It needs room for a second copy of the table, and a primary key.
  - What an interrupted run left in a database is removed first, also when nothing is rewritten. Extensions that it needs are made and removed.
    Removing waits a second at a time for its tables, so that nobody waits longer behind it, and gives up after a minute.
  - On the host of the leader; a standby is refused.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Measures and reports, at any time, and leaves nothing in the databases. Changed says only whether an interrupted run would be removed.
    support: full
  diff_mode:
    description: Shows nothing.
    support: none
options:
  window:
    description:
      - When it may begin, in UTC, as days of the week and two times. Without days every day; empty means always.
      - After its end no further table is begun. One that is being rewritten is finished.
      - "Example: V(sat,sun 22:00-05:00)."
    type: str
    default: ""
  databases:
    description: Databases. Without any, all but templates and C(postgres).
    type: list
    elements: str
    default: []
  bloat_percent:
    description: Part of a table, in percent of its size, that must be wasted for it to be rewritten. Room that its fill factor leaves is not wasted.
    type: int
    default: 30
  bloat_mb:
    description: And so many megabytes. Smaller tables and indexes are not reported.
    type: int
    default: 100
  unused_days:
    description: Days for which uses of indexes must have been counted before one is called unused.
    type: int
    default: 30
  table_timeout:
    description: Seconds that one table may take.
    type: int
    default: 21600
  data_dir:
    description: Directory on this host whose disk holds the data.
    type: path
    default: /var/lib/berth/postgresql
  project:
    description: Compose project of the container.
    type: str
    default: postgresql
  service:
    description: Compose service of the container.
    type: str
    default: postgresql
seealso:
  - module: berth.odoo.postgresql_cluster_info
"""

EXAMPLES = r"""
- name: Rewrite what wastes half of its place, at night
  berth.odoo.postgresql_maintenance:
    window: sat,sun 22:00-05:00
    bloat_percent: 50
"""

RETURN = r"""
record:
  description:
    - "The evidence: C(databases) with what was found in each, C(done) with what was done and how long it took, C(left) with what should have been done
      and was not, C(freed_bytes), C(problems), C(transaction_ages)."
  returned: always
  type: dict
name:
  description: Name of a file for it.
  returned: always
  type: str
  sample: maintenance-20261128T220003Z.json
failed_steps:
  description: What was tried and failed, a sentence each.
  returned: always
  type: list
  elements: str
report:
  description: What was found and done, lines for a person.
  returned: always
  type: list
  elements: str
"""

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _maintenance as maintenance
from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._psql import ENVIRONMENT, Container, PsqlError, find_container, identifier, literal, psql

PATIENCE = 30
"""Times that a lock is waited for, a second each and a second apart: a minute, as pg_repack does."""


class Refused(Exception):
    """It is not the time or not the place. The message says when or where."""


class Server:
    """The PostgreSQL in a container."""

    def __init__(self, client: DockerClient, container: Container) -> None:
        self.client = client
        self.container = container

    def ask(self, script: str) -> Any:
        """Return the answer to a script that gives one. Raises PsqlError, DockerUnavailable."""
        return psql(self.client, self.container, script)[-1]

    def tell(self, database: str, *statements: str) -> None:
        """Carry out statements in a database, each by itself. Raises PsqlError, DockerUnavailable."""
        psql(self.client, self.container, "\n".join([f"\\connect -reuse-previous=on {identifier(database)}", *statements]))

    def forget_repack(self, database: str) -> int:
        """Remove pg_repack and what a run that was killed left at tables, such as triggers. Raises PsqlError, DockerUnavailable."""
        # A trigger goes only with its table locked. Who waits for that lock keeps everybody out who comes later, behind one long transaction.
        for _try in range(PATIENCE):
            try:
                self.tell(database, "SET lock_timeout = '1s';", "DROP EXTENSION IF EXISTS pg_repack CASCADE;")
            except PsqlError as error:
                if "lock timeout" not in str(error):
                    raise
                time.sleep(1)
            else:
                return 0
        raise PsqlError("users had its tables without a pause of a second for a minute. Run again when less is going on")

    def analyze(self, database: str, table: str) -> int:
        """Gather statistics, which frees nothing. Raises PsqlError, DockerUnavailable."""
        self.tell(database, f"ANALYZE {table};")
        return 0

    def free(self, database: str, table: Mapping[str, Any]) -> int:
        """Rewrite a table and return by how many bytes it became smaller. Raises PsqlError with pg_repack's words."""
        size: int = table["total_size"]
        return size - self.repack(database, table["name"])

    def repack(self, database: str, table: str) -> int:
        """Rewrite a table and return its new size with indexes and all. Raises PsqlError with pg_repack's words."""
        argv = ["pg_repack", "--host=/run/postgresql", "--username=postgres", f"--dbname={database}", f"--table={table}", "--no-order"]
        done = self.client.exec(self.container.id, [*argv, "--wait-timeout=60", "--no-kill-backend"], env=ENVIRONMENT)
        # It ends with 0 also when it gave a table up.
        wrong = [line for line in done.stderr.splitlines() if line.startswith(("WARNING:", "ERROR:"))]
        if any("timed out" in line for line in wrong):
            raise PsqlError("users had it without a pause of a moment for a minute, so pg_repack gave up. Run again when less is going on")
        if done.rc != 0 or wrong:
            raise PsqlError(wrong[0] if wrong else (done.stderr.strip().splitlines() or [f"pg_repack ended with {done.rc}"])[-1])
        return int(self.ask(maintenance.SIZE.format(dbname=identifier(database), table=literal(table))))


def look(server: Server, names: list[str], least: int) -> dict[str, Any]:
    """Return what was found in each database."""
    script = maintenance.REPORT
    return {name: server.ask(script.format(dbname=identifier(name), least=least, percent=maintenance.ANALYZE_PERCENT)) for name in names}


def step(what: str, database: str, table: str, action: Callable[[], int]) -> dict[str, Any]:
    """Do something that says how much it freed, and return what came of it. A table that cannot be had must not keep others from their turn."""
    begun, error, freed = time.monotonic(), "", 0
    try:
        freed = action()
    except PsqlError as refusal:
        error = str(refusal)
    seconds = round(time.monotonic() - begun, 1)
    return {"what": what, "database": database, "table": table, "seconds": seconds, "freed_bytes": freed, "error": error}


def repair(
    server: Server, name: str, report: Mapping[str, Any], options: Mapping[str, Any], may_begin: Callable[[], bool]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rewrite and analyze the tables of one database; return what was done and what was left."""
    done: list[dict[str, Any]] = []
    if report["repack"]:
        # Before room is judged: what it left grows with each write, and may be why nothing can be rewritten.
        done.append(step("removal of an interrupted pg_repack", name, "all tables", partial(server.forget_repack, name)))
    space = os.statvfs(options["data_dir"])
    chosen, left = maintenance.to_repack(report["tables"], options["bloat_percent"], space.f_bavail * space.f_frsize)
    if done and done[0]["error"]:
        left += [
            f"{name}: {table['name']} wastes {maintenance.megabytes(table['wasted'])}, and pg_repack is to be removed first"
            for table in chosen
        ]
        chosen = []
    if chosen:
        server.tell(name, "CREATE EXTENSION pg_repack;")
    rewritten: set[str] = set()
    for table in chosen:
        if may_begin():
            repacked = step("repack", name, table["name"], partial(server.free, name, table))
            done.append(repacked)
            rewritten |= set() if repacked["error"] else {table["name"].removeprefix("public.")}
        else:
            left.append(f"{name}: {table['name']} wastes {maintenance.megabytes(table['wasted'])}, and the window is over")
    if chosen:
        removed = step("removal of pg_repack", name, "all tables", partial(server.forget_repack, name))
        done += [removed] if removed["error"] else []
    for table in report["statistics"]:
        if table["name"] not in rewritten and may_begin():  # pg_repack analyzes what it rewrites
            done.append(step("analyze", name, table["name"], partial(server.analyze, name, table["name"])))
    return done, left


def run(server: Server, options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Look, repair unless it is only a check, and return the module's result.

    Raises:
        Refused: Not now or not here.
        PsqlError: A database cannot be asked.
    """
    begun = time.time()
    limit = maintenance.window(options["window"], datetime.now(UTC)) if options["window"] else None
    if limit and not check_mode and not limit.open_at(datetime.now(UTC)):
        raise Refused(
            f"the window {options['window']!r} (UTC) opens at {limit.opens:%a %Y-%m-%d %H:%M}, and now it is {datetime.now(UTC):%a %H:%M}. "
            "To begin all the same, type: -e maintenance_now=true; for a report alone: --check"
        )
    cluster = server.ask(maintenance.CLUSTER)
    if cluster["in_recovery"]:
        raise Refused("this is a standby. Maintenance is the leader's")
    if cluster["running"] and not check_mode:
        raise Refused("pg_repack is at work already, of a run before or of somebody else. Wait for it: SELECT * FROM pg_stat_activity")
    known = server.ask(maintenance.DATABASES) or []
    names = options["databases"] or known
    strangers = sorted(set(names) - set(known))
    if strangers:
        raise Refused(f"there is no database {', '.join(strangers)}. There are: {', '.join(known)}")
    before = look(server, names, options["bloat_mb"] * 2**20)
    done: list[dict[str, Any]] = []
    left: list[str] = []
    for name in () if check_mode else names:
        its_done, its_left = repair(server, name, before[name], options, lambda: limit is None or limit.open_at(datetime.now(UTC)))
        done += its_done
        left += its_left
    record = maintenance.record(cluster, before, done=done, left=left, moment=begun)
    failed = [f"{one['what']} of {one['table']} in {one['database']}: {one['error']}" for one in done if one["error"]]
    return {
        "changed": bool(done) or (check_mode and not cluster["running"] and any(report["repack"] for report in before.values())),
        "record": record,
        "name": maintenance.record_name(begun),
        "failed_steps": failed,
        "report": [
            *maintenance.lines(cluster, before, options["unused_days"]),
            *(f"{one['what']} of {one['table']} in {one['database']}: {one['seconds']} s" for one in done if not one["error"]),
            *([f"freed {maintenance.megabytes(record['freed_bytes'])}"] if done else []),
            *(f"FAILED {words}" for words in failed),
            *left,
            *record["problems"],
        ],
    }


def main() -> None:
    """Module entry."""
    module = AnsibleModule(
        argument_spec={
            "window": {"type": "str", "default": ""},
            "databases": {"type": "list", "elements": "str", "default": []},
            "bloat_percent": {"type": "int", "default": 30},
            "bloat_mb": {"type": "int", "default": 100},
            "unused_days": {"type": "int", "default": 30},
            "table_timeout": {"type": "int", "default": 21600},
            "data_dir": {"type": "path", "default": "/var/lib/berth/postgresql"},
            "project": {"type": "str", "default": "postgresql"},
            "service": {"type": "str", "default": "postgresql"},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        client = DockerClient(timeout=options["table_timeout"])
        container = find_container(client, options["project"], options["service"], optional=False)
        result = run(Server(client, container), options, module.check_mode)
    except (Refused, ValueError) as error:
        module.fail_json(msg=f"PostgreSQL maintenance, nothing was changed: {error}")
    except (PsqlError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"PostgreSQL maintenance: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
