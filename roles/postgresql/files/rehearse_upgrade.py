# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade a copy of the data to the next major version of PostgreSQL, look whether everything is there, and say how long it took.

Runs in an image that has both versions, without a network, as the owner of the copy: rehearse_upgrade.py OLD NEW DIRECTORY JOBS. The copy is
DIRECTORY/OLD, as pg_basebackup leaves it. Nothing but DIRECTORY is written to. Prints one JSON document; what failed is in its "error".
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COUNTS = """
SELECT json_build_object(
  'relations', (SELECT json_object_agg(relkind, number) FROM (SELECT relkind, count(*) AS number FROM pg_class
      WHERE relnamespace::regnamespace::text !~ '^pg_' AND relnamespace <> 'information_schema'::regnamespace GROUP BY relkind) kinds),
  'constraints', (SELECT count(*) FROM pg_constraint WHERE connamespace::regnamespace::text !~ '^pg_' AND contype <> 'n'
      AND connamespace <> 'information_schema'::regnamespace),
  'functions', (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
  'immutable_functions', (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND provolatile = 'i'),
  'rows_expected', (SELECT coalesce(sum(reltuples), 0)::bigint FROM pg_class WHERE relkind = 'r' AND reltuples > 0
      AND relnamespace::regnamespace::text !~ '^pg_' AND relnamespace <> 'information_schema'::regnamespace),
  'invalid_indexes', (SELECT coalesce(json_agg(indexrelid::regclass), '[]') FROM pg_index WHERE NOT indisvalid OR NOT indisready))
"""
AFTER = """
SELECT json_build_object(
  'extensions_behind', (SELECT coalesce(json_agg(name || ' ' || installed_version || ', there is ' || default_version), '[]') FROM pg_available_extensions
      WHERE installed_version <> default_version),
  'collations_changed', (SELECT count(*) FROM pg_collation WHERE collversion <> pg_collation_actual_version(oid))
      + (SELECT count(*) FROM pg_database WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)))
"""
DATABASES = "SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database WHERE datallowconn"


class Failed(Exception):
    """A program ended with another code than 0. The message holds its last words."""


def binaries(version: str) -> Path:
    """Directory of a version's programs."""
    return Path("/usr/lib/postgresql", version, "bin")


class Rehearsal:
    """A copy and what is done with it."""

    def __init__(self, old: str, new: str, directory: Path, jobs: str) -> None:
        self.old, self.new, self.directory, self.jobs = old, new, directory, jobs
        self.seconds: dict[str, float] = {}

    def data(self, version: str) -> Path:
        """Data directory of a version."""
        return self.directory / version

    def call(self, what: str, version: str, program: str, *arguments: str) -> str:
        """Run a program, add its time to that of ``what``, and return what it wrote. Raises Failed."""
        begun = time.monotonic()
        command = [str(binaries(version) / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.directory)
        self.seconds[what] = round(self.seconds.get(what, 0) + time.monotonic() - begun, 1)
        if done.returncode != 0:
            words = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise Failed(f"{program} ended with {done.returncode}: {' / '.join(self.reasons() or words[-12:])}")
        return done.stdout

    def reasons(self) -> list[str]:
        """What the logs of pg_upgrade say about its failure: they are removed with the copy, and its own words only name them."""
        found = []
        for log in sorted(self.data(self.new).glob("pg_upgrade_output.d/*/log/*")) if self.data(self.new).is_dir() else []:
            found += [line.strip() for line in log.read_text(errors="replace").splitlines() if "error:" in line or "ERROR:" in line]
        return found[:12]

    def server(self, what: str, version: str, action: str) -> None:
        """Start or stop the server, which listens on a socket of this container alone."""
        # A pg_ctl whose output is read would be waited for until the server that inherits it stops.
        log = self.directory / f"server-{version}.log"
        options = ["-l", str(log), "-o", "-c listen_addresses='' -c unix_socket_directories=/tmp"] if action == "start" else ["--mode=fast"]
        begun = time.monotonic()
        command = [str(binaries(version) / "pg_ctl"), action, "-D", str(self.data(version)), "--wait", "--timeout=3600", *options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        self.seconds[what] = round(self.seconds.get(what, 0) + time.monotonic() - begun, 1)
        if done.returncode != 0:
            raise Failed(f"the server {version} did not {action}: {' / '.join(log.read_text(errors='replace').splitlines()[-8:])}")

    def ask(self, database: str, question: str) -> Any:
        """The answer of the running server."""
        # Functions of the database's owner are not to be taken for PostgreSQL's own.
        target = f"dbname={database} options='-c search_path=pg_catalog,pg_temp'"
        arguments = ["--host=/tmp", "--username=postgres", "--no-psqlrc", "--tuples-only", "--no-align", f"--dbname={target}"]
        return json.loads(self.call("questions", self.new, "psql", *arguments, "--command", question))

    def counts(self) -> dict[str, Any]:
        """What is in each database, by the running server."""
        return {name: self.ask(name, COUNTS) for name in self.ask("postgres", DATABASES)}

    def configure(self, version: str) -> None:
        """Replace the settings of the copied server, which name files that are not here, by what an upgrade needs."""
        data = self.data(version)
        for name in ("postgresql.auto.conf", "standby.signal", "recovery.signal"):
            (data / name).unlink(missing_ok=True)
        settings = ("shared_preload_libraries = 'pg_stat_statements'", "max_wal_senders = 0", "max_connections = 100")
        (data / "postgresql.conf").write_text("\n".join(settings) + "\n", encoding="utf-8")
        (data / "pg_hba.conf").write_text("local all all trust\n", encoding="utf-8")
        (data / "pg_ident.conf").write_text("", encoding="utf-8")

    def run(self) -> dict[str, Any]:
        """Do it and return what was found. Raises Failed."""
        self.configure(self.old)
        self.server("recovery of the copy", self.old, "start")
        before = self.counts()
        self.server("stop", self.old, "stop")
        shutil.rmtree(self.data(self.new), ignore_errors=True)
        # As Patroni makes new clusters here; pg_upgrade compares them.
        encoding = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8", "--data-checksums")
        self.call("initdb", self.new, "initdb", "--username=postgres", "--no-sync", *encoding, f"--pgdata={self.data(self.new)}")
        self.configure(self.new)
        upgrade = [
            *(f"--old-bindir={binaries(self.old)}", f"--new-bindir={binaries(self.new)}", f"--old-datadir={self.data(self.old)}"),
            *(f"--new-datadir={self.data(self.new)}", "--username=postgres", "--socketdir=/tmp", f"--jobs={self.jobs}", "--link"),
        ]
        self.call("pg_upgrade --check", self.new, "pg_upgrade", *upgrade, "--check")
        self.call("pg_upgrade --link", self.new, "pg_upgrade", *upgrade)
        self.server("first start", self.new, "start")
        after = self.counts()
        found = {name: self.ask(name, AFTER) for name in after}
        connection = ["--host=/tmp", "--username=postgres", "--all", f"--jobs={self.jobs}"]
        self.call("statistics that are missing", self.new, "vacuumdb", *connection, "--analyze-in-stages", "--missing-stats-only")
        self.call("amcheck of every table and index", self.new, "pg_amcheck", *connection, "--install-missing", "--heapallindexed")
        self.server("stop", self.new, "stop")
        return {"before": before, "after": after, "found": found, "problems": problems(before, after, found)}


def problems(before: dict[str, Any], after: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What an upgrade would have lost or left behind, a sentence each."""
    sentences = [f"the database {name} is gone" for name in sorted(set(before) - set(after))]
    for name in sorted(set(before) & set(after)):
        differing = sorted(key for key in before[name] if before[name][key] != after[name][key])
        sentences += [f"{name}: {key} was {before[name][key]} and is {after[name][key]}" for key in differing]
        if found[name]["collations_changed"]:
            sentences.append(
                f"{name}: {found[name]['collations_changed']} collations have another version, so indexes on text have to be made anew"
            )
    return sentences


def main() -> int:
    """Command line."""
    old, new, directory, jobs = sys.argv[1:]
    rehearsal = Rehearsal(old, new, Path(directory), jobs)
    begun = time.monotonic()
    try:
        result = {**rehearsal.run(), "error": ""}
    except Failed as error:
        result = {"error": str(error)}
    print(json.dumps({**result, "from": old, "to": new, "seconds": rehearsal.seconds, "total_seconds": round(time.monotonic() - begun, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
