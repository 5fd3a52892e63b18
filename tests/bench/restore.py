#!/usr/bin/env python3
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure backups and restores on the lab `backup`, with its S3 server on the same machine: `make bench-restore`.

A scratch database beside Odoo's is backed up and restored with pgBackRest, and dumped and restored with pg_dump and pg_restore, one after the other on the same
disk. Clerks click beside a full backup, and before it. Prints one line a figure, tab-separated: name, wanted, got, unit, `ok` or `short`. Progress goes to
standard error. Ends with 0 when the measuring worked.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable

from ansible_collections.berth.odoo.tests.bench.converge import Figure, machine, say, write
from ansible_collections.berth.odoo.tests.support.history import admin
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, docker
from ansible_collections.berth.odoo.tests.support.load import Clerks
from ansible_collections.berth.odoo.tests.support.playbook import Player
from ansible_collections.berth.odoo.tests.support.writers import sql

INSIDE = "docker exec -i postgresql-postgresql-1"
DATA = "/var/lib/berth/postgresql/17"
SCRATCH = "/var/lib/postgresql/bench-restore"
ROWS_PER_MB = 4700
HOUR = 3600.0
# Like the lines of transfers: numbers and times that grow, and one of a thousand products. Beside it keys by chance, as tokens and checksums are.
FILL = """
CREATE TABLE rows WITH (fillfactor = 90) AS
SELECT n AS id, md5(n::text) || md5((n * 7)::text) AS text, n % 1000 AS part, now() + n * interval '1 s' AS at, repeat(md5((n / 9)::text), 2) AS more,
       'WH/OUT/' || lpad((n / 5)::text, 9, '0') AS reference
FROM generate_series(1, ROWS) n;
ALTER TABLE rows ADD PRIMARY KEY (id);
CREATE INDEX ON rows (reference);
CREATE INDEX ON rows (part, at);
CREATE TABLE keys AS SELECT n AS id, md5(n::text) AS key, false AS used FROM generate_series(1, ROWS / 5) n;
ALTER TABLE keys ADD PRIMARY KEY (id);
CREATE INDEX ON keys (key);
VACUUM ANALYZE;
CHECKPOINT;
"""
# One row in a hundred: what people worked on last, which is side by side and has no room in its pages; new ones; any, as a batch over everything; and the
# newest where an index has them anywhere.
CHANGES = {
    "newest": "UPDATE rows SET more = 'changed' WHERE id > ROWS - ROWS / 100",
    "appended": "INSERT INTO rows SELECT id + ROWS / 100, md5(text), part, at, more, reference FROM rows WHERE id > ROWS - ROWS / 100",
    "anywhere": "UPDATE rows SET more = 'chance' WHERE id IN (SELECT (random() * ROWS)::int FROM generate_series(1, ROWS / 100))",
    "keys": "UPDATE keys SET used = true WHERE id > (ROWS - ROWS / 100) / 5",
}
# Share of the pages of a table and its indexes whose last change is younger than a position of the WAL: less than that no backup by pages can take.
CHANGED = """
import glob, struct, sys
pages = young = 0
for name in (one for place in sys.argv[2:] for one in [place, *glob.glob(place + ".*")]):
    with open(name, "rb") as file:
        while page := file.read(8192):
            high, low = struct.unpack("<II", page[:8])
            pages += 1
            young += (high << 32 | low) > int(sys.argv[1])
print(young / pages)
"""
CLICKS_S = 40
EMPTY = f"{INSIDE} sh -c 'rm -rf {SCRATCH} && mkdir -m 0700 {SCRATCH}'"
# A repository on the disk of the dump, with what the role postgresql configures.
NEAR = " ".join(
    f"PGBACKREST_{name}={value}"
    for name, value in {
        "STANZA": "bench",
        "PG1_PATH": "/var/lib/postgresql/17",
        "PG1_SOCKET_PATH": "/run/postgresql",
        "LOCK_PATH": "/run/postgresql/bench",
        "LOG_LEVEL_FILE": "off",
        "REPO1_PATH": f"{SCRATCH}-repository",
        "REPO1_BUNDLE": "y",
        "REPO1_BLOCK": "y",
        "REPO1_BLOCK_SIZE_MAP": "16KiB=8KiB",
        "REPO1_CIPHER_TYPE": "aes-256-cbc",
        "REPO1_CIPHER_PASS": "bench",
        "REPO1_RETENTION_FULL": "1",
        "COMPRESS_TYPE": "zst",
        "PROCESS_MAX": "2",
        "START_FAST": "y",
        "ARCHIVE_CHECK": "n",
    }.items()
)
# Into which segment a row was written, and which has been sent.
LOOK = """
INSERT INTO writes VALUES (clock_timestamp(), pg_walfile_name(pg_current_wal_insert_lsn())) RETURNING segment;
SELECT coalesce(last_archived_wal, '-') FROM pg_stat_archiver
"""


def timed(host: Host, command: str) -> float:
    """Seconds that a command needs."""
    began = time.monotonic()
    host.run(command, timeout=HOUR)
    return time.monotonic() - began


def loss(host: Host, seconds: float) -> float:
    """Most seconds of work that were not in the archive yet, while somebody writes all the time."""
    sql(host, "CREATE TABLE IF NOT EXISTS writes (at timestamptz, segment text)", "bench")
    begun: dict[str, float] = {}
    worst, last, end = 0.0, "", time.monotonic() + seconds
    while time.monotonic() < end or not worst:
        segment, archived = sql(host, LOOK, "bench").splitlines()
        begun.setdefault(segment, time.monotonic())
        if archived != last and archived in begun:
            worst = max(worst, time.monotonic() - begun[archived])
            last = archived
        time.sleep(0.2)
    return worst


def backup(host: Host, kind: str) -> dict[str, float]:
    """What the newest backup says of itself."""
    host.run(f"systemctl start berth-postgresql-backup@{kind}.service", timeout=HOUR)
    found: dict[str, float] = json.loads(host.run("cat /var/lib/berth/backup/postgresql.json").splitlines()[0])
    return found


def changed_pages(host: Host, position: str) -> float:
    """Share of the pages of the scratch database's files that have been changed since a position, as it is on the disk."""
    places = sql(
        host,
        "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace",
        "bench",
    )
    names = " ".join(f"{DATA}/{place}" for place in places.split())
    return float(host.run(f"python3 - {position} {names}", stdin=CHANGED, timeout=HOUR))


def p95(clerks: Clerks, meanwhile: Callable[[], object]) -> float:
    """The latency that 95 % of the clicks stay below while something is done, in s."""
    before = len(clerks.requests)
    with clerks.working():
        meanwhile()
    return statistics.quantiles([request.ended - request.began for request in clerks.requests[before:]], n=20)[-1]


def measure(host: Host, clerks: Clerks, megabytes: int) -> tuple[list[Figure], list[str]]:
    """The figures of the database, and what they were made of."""
    sql(host, "DROP DATABASE IF EXISTS bench", "postgres")
    sql(host, "CREATE DATABASE bench", "postgres")
    try:
        say(f"fill a database of {megabytes} MB")
        rows = megabytes * ROWS_PER_MB
        host.run(f"{INSIDE} psql -h /run/postgresql -U postgres -d bench -q", stdin=FILL.replace("ROWS", str(rows)), timeout=HOUR)
        size = int(sql(host, "SELECT pg_database_size('bench') >> 20", "postgres"))
        say("clerks alone, and beside a full backup")
        alone = p95(clerks, lambda: time.sleep(CLICKS_S))
        found: list[dict[str, float]] = []
        beside = p95(clerks, lambda: found.append(backup(host, "full")))
        [full] = found
        say("dump")
        dump = timed(host, f"{INSIDE} sh -c 'pg_dump -h /run/postgresql -U postgres -Fc -f {SCRATCH}.dump bench'")
        changed, share = {}, {}
        for name, statement in CHANGES.items():
            say(f"change one row in a hundred, {name}, and back that up")
            position = sql(host, "SELECT pg_current_wal_insert_lsn() - '0/0'", "bench")
            sql(host, statement.replace("ROWS", str(rows)), "bench")
            # What it writes in the same pages belongs to the change, and not to the next one.
            sql(host, "VACUUM", "bench")
            sql(host, "CHECKPOINT", "bench")
            share[name] = changed_pages(host, position)
            changed[name] = backup(host, "incremental")
        say("restore the dump")
        sql(host, "CREATE DATABASE bench_restored", "postgres")
        logical = timed(host, f"{INSIDE} pg_restore -h /run/postgresql -U postgres -j2 -d bench_restored {SCRATCH}.dump")
        # What is copied below is the one database as well, and the disk has room for a large one.
        sql(host, "DROP DATABASE bench_restored WITH (FORCE)", "postgres")
        say("restore the backup from the store, and one from the same disk")
        restore = f"pgbackrest --stanza=berth --repo=1 --process-max=2 --pg1-path={SCRATCH} --archive-mode=off --type=immediate restore"
        host.run(EMPTY)
        far = timed(host, f"{INSIDE} {restore}")
        host.run(
            f"{INSIDE} env {NEAR} pgbackrest --no-config stanza-create && {INSIDE} env {NEAR} pgbackrest --no-config backup", timeout=HOUR
        )
        host.run(EMPTY)
        copied = timed(host, f"{INSIDE} env {NEAR} PGBACKREST_PG1_PATH={SCRATCH} pgbackrest --no-config --type=immediate restore")
        say("look for what is lost with the disk, for two minutes and a half")
        lost = loss(host, 150)
    finally:
        host.run(f"{INSIDE} sh -c 'rm -rf {SCRATCH} {SCRATCH}.dump {SCRATCH}-repository'")
        for name in ("bench", "bench_restored"):
            sql(host, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "postgres")
    figures = [
        Figure("rpo_one_host", 60, lost, "s"),
        *(Figure(f"incremental_of_full_{name}", 0.05, found["bytes"] / full["bytes"], "") for name, found in changed.items()),
        Figure("restore_faster_than_pg_restore", 3, logical / copied, "times", least=True),
        Figure("p95_beside_a_full_backup", 1.3, beside / alone, ""),
        Figure("failed_clicks", 0, len(clerks.failed), ""),
    ]
    notes = [
        f"database {size} MB, cluster {full['size'] / 2**20:.0f} MB; full backup {full['seconds']:.1f} s with its "
        f"verification, {full['bytes'] / 2**20:.0f} MB in the store; "
        "incremental backups "
        + ", ".join(
            f"{name} {found['bytes'] / 2**20:.1f} MB in {found['seconds']:.1f} s with {share[name] * 100:.0f} % of the pages changed"
            for name, found in changed.items()
        )
        + f"; clicks' p95 {alone * 1000:.0f} ms alone, "
        f"{beside * 1000:.0f} ms beside the full backup; pg_dump {dump:.1f} s, pg_restore of that one database {logical:.1f} s; "
        f"pgBackRest's restore of the cluster, without replaying WAL, {copied:.1f} s from the same disk, {far:.1f} s from the store"
    ]
    return figures, notes


def table(figures: list[Figure], notes: list[str], command: str) -> str:
    """The section of docs/benchmarks.md."""
    return "\n".join(
        [
            f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {machine()}, with `{command}`: {'; '.join(notes)}.",
            "",
            "| Figure | Wanted | Got | Unit | |",
            "|---|---:|---:|---|---|",
            *("| " + " | ".join(figure.cells) + " |" for figure in figures),
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--megabytes",
        type=int,
        default=1000,
        help="size of the scratch database without indexes, about (default: 1000)",
    )
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    sources = ("inventories/single", ".cache/lab/backup/inventory", "tests/backup/inventory")
    lab = Lab("backup", tuple(REPOSITORY / source for source in sources))
    if not lab.directory.is_dir():
        raise SystemExit(
            "There is no lab backup. Type: molecule create -s backup && molecule prepare -s backup && pytest tests/backup/test_10_site.py"
        )
    play, host = Player(lab, say), lab.hosts["vm1"]
    # What a site has that does not say otherwise.
    play("playbooks/site.yml", "--tags", "database", variables={"postgresql_parameters": {}}).expect_success()
    # Elsewhere in a real site, and hungrier than what is measured.
    store = str(lab.hosts["store1"].variables["lab_container"])
    docker("update", "--cpu-shares=64", store)
    try:
        figures, notes = measure(host, Clerks(admin(host, lab), 3), options.megabytes)
    finally:
        docker("update", "--cpu-shares=1024", store)
    play("playbooks/site.yml", "--tags", "database").expect_success()
    play("playbooks/backup.yml", variables={"target": "main"}).expect_success()
    drill = play("playbooks/drill_restore.yml", variables={"target": "main"}).expect_success()
    figures.append(Figure("drill", 5, drill.seconds / 60, "min"))
    for figure in figures:
        sys.stdout.write("\t".join(figure.cells) + "\n")
    for note in notes:
        say(note)
    if options.write:
        write(table(figures, notes, f'make bench-restore BENCH="{" ".join(sys.argv[1:])}"'), "bench-restore")


if __name__ == "__main__":
    main()
