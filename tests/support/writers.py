# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writers on every database host, and the audit of what PostgreSQL acknowledged to them.

On a standby a writer is refused until that one leads, so all of them together are a client that always finds the primary at once: what is
measured is how long nobody accepted a write. The machines of a lab share one clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Generator

from ansible_collections.berth.odoo.tests.support.lab import Host, Lab, wait_for

UNIT = "berth-test-writer"
DIRECTORY = "/var/tmp/berth-test-writer"
PSQL = "docker exec -i postgresql-postgresql-1 psql -h /run/postgresql -U postgres -d main -XAtq -v ON_ERROR_STOP=1"

# Prints a line for each row when its COMMIT has been answered, and not before.
WRITER = """
import itertools, sys, time, psycopg
run = f"{sys.argv[1]}-{time.time():.6f}"
with psycopg.connect("host=/run/postgresql user=postgres dbname=main connect_timeout=2", autocommit=True) as connection:
    for number in itertools.count():
        try:
            connection.execute("INSERT INTO berth_test_writes (id) VALUES (%s)", [f"{run}-{number}"])
        except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.UndefinedTable, psycopg.errors.DiskFull):
            time.sleep(0.1)
            continue
        print(f"{run}-{number}", time.time(), flush=True)
        time.sleep(0.03)
"""
# The loop outlives containers that are made anew.
LOOP = f"""
while :; do
  docker exec -i postgresql-postgresql-1 python3 - "$1" < {DIRECTORY}/writer.py >> {DIRECTORY}/acknowledged 2>> {DIRECTORY}/errors
  sleep 0.1
done
"""


@dataclasses.dataclass
class Audit:
    """What came of it; filled when the writers have been stopped.

    Attributes:
        acknowledged: rows that PostgreSQL acknowledged.
        lost: those that are not there.
        gap: longest time without an acknowledgement, seconds.
    """

    acknowledged: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    gap: float = 0.0


def sql(host: Host, script: str, database: str = "main") -> str:
    """Return what psql printed for a script, stripped."""
    return host.run(PSQL.replace("-d main", f"-d {database}"), stdin=script, timeout=120).strip()


def primary(lab: Lab, hosts: list[str]) -> Host:
    """The host whose PostgreSQL accepts writes."""
    for name in hosts:
        host = lab.hosts[name]
        with contextlib.suppress(AssertionError, OSError):
            if sql(host, "SELECT pg_is_in_recovery()", "postgres") == "f":
                return host
    raise AssertionError(f"nobody among {', '.join(hosts)} accepts writes")


@contextlib.contextmanager
def writers(lab: Lab, hosts: list[str]) -> Generator[Audit]:
    """Write on all hosts meanwhile; the audit is made at the end, when somebody accepts writes again."""
    audit = Audit()
    sql(primary(lab, hosts), "CREATE TABLE IF NOT EXISTS berth_test_writes (id text PRIMARY KEY)")
    for name in hosts:
        host = lab.hosts[name]
        host.run(f"rm -rf {DIRECTORY}; mkdir {DIRECTORY}; cat > {DIRECTORY}/writer.py", stdin=WRITER)
        host.run(f"cat > {DIRECTORY}/loop.sh", stdin=LOOP)
        host.run(f"systemd-run --quiet --unit={UNIT} bash {DIRECTORY}/loop.sh {name}")
    try:
        wait_for("a first write", lambda: any(_lines(lab.hosts[name]) for name in hosts), seconds=30)
        began = time.time()
        yield audit
        primary(lab, hosts)
    finally:
        ended = time.time()
        found = {}
        for name in hosts:
            host = lab.hosts[name]
            host.run(f"systemctl stop {UNIT}.service || true", check=False)
            found.update(_lines(host))
    moments = sorted([began, *(moment for moment in found.values() if began < moment < ended), ended])
    kept = set(sql(wait_for("a primary", lambda: primary(lab, hosts), seconds=60), "SELECT id FROM berth_test_writes").splitlines())
    audit.acknowledged = len(found)
    audit.lost = sorted(set(found) - kept)
    audit.gap = max(after - before for before, after in itertools.pairwise(moments))


def _lines(host: Host) -> dict[str, float]:
    """What was acknowledged on a host: row to time. The end of a line that is still being written is left out."""
    text = host.run(f"cat {DIRECTORY}/acknowledged 2>/dev/null || true")
    return {row: float(moment) for row, moment in (line.split() for line in text.split("\n")[:-1] if len(line.split()) == 2)}
