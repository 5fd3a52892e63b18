#!/usr/bin/env python3
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare PostgreSQL as this collection tunes it with PostgreSQL's defaults: `make bench-postgresql`.

Two clusters on the demo's VM, made from one physical copy of the demo's cluster, with the demo's image and memory limit. One has the
parameters of the demo's server and what `odoo_database` gave to Odoo's tables, the other has PostgreSQL's defaults and bare tables. Each piece of
work runs on one while the other rests, in short turns whose order lets a drift of the machine hit both.

Prints one line a figure, tab-separated: name, wanted, got, unit, `ok` or `short`; every figure is tuned divided by default. The numbers behind
them go to standard error. Ends with 0 when the measuring worked, whatever the figures are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.berth.odoo.tests.bench.converge import Figure, machine, say, write
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, wait_for

PICKING = Path(__file__).with_name("picking.py")
DIRECTORY = "/var/lib/berth/bench-postgresql"
DATA = "/var/lib/postgresql/17"
ORDER = ("tuned", "default", "default", "tuned", "default", "tuned", "tuned", "default")
POSTGRESQL_UID, ODOO_UID = 45432, 48069
# What belongs to the place of the demo's server and not to its tuning: names, and certificates that are not in the copy.
PLACE = "^(cluster_name|hba_file|ident_file|listen_addresses|port|unix_socket_directories|ssl.*)$"
# Name, arguments of pgbench, part of the transactions that are logged.
PGBENCH = (
    ("select", "--builtin=select-only", 0.05),
    ("simple_update", "--skip-some-updates", 1.0),
    ("tpcb", "", 1.0),
)
CLIENTS = 8
CLERKS = 2
# The parameters promise less WAL, and to cost no more than two runs of the same differ by. They promise no speed.
NO_SLOWER = 0.95
LESS_WAL = 0.5


@dataclasses.dataclass
class Sample:
    """What one piece of work did on one cluster, all its turns together."""

    transactions: int = 0
    seconds: float = 0
    wal_bytes: int = 0
    latencies: list[float] = dataclasses.field(default_factory=list)
    """Milliseconds."""

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.seconds

    @property
    def p95(self) -> float:
        """Milliseconds that 95 of 100 do not exceed."""
        return statistics.quantiles(self.latencies, n=20)[-1]

    @property
    def wal(self) -> float:
        """Bytes of WAL for each transaction."""
        return self.wal_bytes / self.transactions


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A scratch cluster in a container without a network; its socket is in a directory that only PostgreSQL and Odoo may enter."""

    host: Host
    name: str

    @property
    def container(self) -> str:
        """Name of its container."""
        return f"berth-bench-{self.name}"

    @property
    def directory(self) -> str:
        """Its files on the VM."""
        return f"{DIRECTORY}/{self.name}"

    def start(self, limits: dict[str, int], image: str, settings: dict[str, str]) -> None:
        """Copy the demo's cluster and start it with other parameters."""
        lines = {**settings, "listen_addresses": "", "unix_socket_directories": "/run/postgresql"}
        conf = "".join(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in lines.items())
        self.host.run(
            f"install -d -o {POSTGRESQL_UID} -g {POSTGRESQL_UID} -m 0700 {self.directory}/data && "
            f"install -d -o {POSTGRESQL_UID} -g {ODOO_UID} -m 0750 {self.directory}/socket && "
            f"tar -x --same-owner -C {self.directory}/data -f {DIRECTORY}/copy.tar && cd {self.directory}/data && "
            "rm -f postgresql.auto.conf patroni.dynamic.json postgresql.base.conf && "
            "cat > postgresql.conf && echo 'local all all trust' > pg_hba.conf && : > pg_ident.conf && "
            f"chown {POSTGRESQL_UID}:{POSTGRESQL_UID} postgresql.conf pg_hba.conf pg_ident.conf && "
            f"docker run -d --name {self.container} --network none --user {POSTGRESQL_UID}:{POSTGRESQL_UID} "
            f"--memory {limits['Memory']} --memory-swap {limits['MemorySwap']} --shm-size {limits['ShmSize']} --tmpfs /tmp "
            f"-v {self.directory}/data:{DATA} -v {self.directory}/socket:/run/postgresql "
            f"--entrypoint /usr/lib/postgresql/17/bin/postgres {image} -D {DATA}",
            stdin=conf,
        )
        wait_for(f"start of {self.container}", lambda: self.run("pg_isready -h /run/postgresql", check=False), seconds=60)

    def run(self, command: str, *, stdin: str = "", timeout: float = 120, check: bool = True) -> str:
        """Run a command in the container."""
        command = f"docker exec -i {self.container} sh -c {json.dumps(command)}"
        if not check and not self.host.succeeds(command, timeout=timeout):
            return ""
        return self.host.run(command, stdin=stdin, timeout=timeout)

    def sql(self, script: str, database: str = "postgres") -> str:
        """Run a script as the superuser."""
        return self.run(f"psql -h /run/postgresql -U postgres -XAtq -v ON_ERROR_STOP=1 {database}", stdin=script).strip()

    def wal_bytes(self) -> int:
        """WAL written since the cluster was made, in bytes."""
        return int(self.sql("SELECT pg_current_wal_insert_lsn() - '0/0'").split(".")[0])

    def pgbench(self, sample: Sample, arguments: str, rate: float, seconds: int) -> None:
        """Run pgbench and add what it did."""
        before = self.wal_bytes()
        report = self.run(
            f"cd /tmp && rm -f turn.* && pgbench -h /run/postgresql -U postgres -n -c {CLIENTS} -j 2 -T {seconds} "
            f"--log --log-prefix=turn --sampling-rate={rate} {arguments} bench"
        )
        sample.wal_bytes += self.wal_bytes() - before
        done = next(line for line in report.splitlines() if line.startswith("number of transactions actually processed"))
        failed = next(line for line in report.splitlines() if line.startswith("number of failed transactions"))
        if ": 0 " not in failed:
            raise SystemExit(f"{self.container}: {failed}")
        sample.transactions += int(done.split(":")[1].split("/")[0])
        sample.seconds += seconds
        # The third column is the latency in microseconds.
        sample.latencies += [int(text) / 1000 for text in self.run("cat /tmp/turn.* | cut -d' ' -f3").split()]


@dataclasses.dataclass(frozen=True)
class Odoo:
    """Web workers of their own on a scratch cluster."""

    cluster: Cluster

    @property
    def container(self) -> str:
        """Name of its container."""
        return f"{self.cluster.container}-odoo"

    def start(self, image: str) -> None:
        """Start it with as many workers as there are clerks, and wait until it answers."""
        options = {
            "db_host": "/run/postgresql",
            "db_name": "main",
            "db_user": "main",
            "workers": CLERKS,
            "max_cron_threads": 0,
            "data_dir": "/tmp/odoo",
            "limit_memory_soft": 0,
            "limit_memory_hard": 0,
        }
        conf = "[options]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
        self.cluster.host.run(
            f"cat > {self.cluster.directory}/odoo.conf && docker run -d --name {self.container} --network none --tmpfs /tmp "
            f"-v {self.cluster.directory}/odoo.conf:/etc/odoo/odoo.conf:ro -v {self.cluster.directory}/socket:/run/postgresql "
            f"{image} odoo -c /etc/odoo/odoo.conf",
            stdin=conf,
        )
        page = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8069/web/health').read()"
        wait_for(
            f"start of {self.container}",
            lambda: self.cluster.host.succeeds(f'docker exec {self.container} python3 -c "{page}" 2>&1'),
            seconds=60,
        )

    def work(self, sample: Sample, password: str, seconds: int) -> None:
        """Let the clerks work and add what they did."""
        request = json.dumps({"password": password, "clients": CLERKS, "seconds": seconds})
        # The program is small; its standard input is the request.
        self.cluster.host.run(f"docker exec -i {self.container} sh -c 'cat > /tmp/picking.py'", stdin=PICKING.read_text(encoding="utf-8"))
        before = self.cluster.wal_bytes()
        answer = json.loads(
            self.cluster.host.run(f"docker exec -i {self.container} python3 /tmp/picking.py", stdin=request, timeout=seconds + 120)
        )
        sample.wal_bytes += self.cluster.wal_bytes() - before
        sample.transactions += answer["pickings"]
        sample.seconds += answer["seconds"]
        sample.latencies += [latency * 1000 for latency in answer["latencies"]]


# What odoo_database gave to tables, taken from them again.
BARE_TABLES = """
DO $$
DECLARE item record;
BEGIN
  FOR item IN SELECT c.oid::regclass AS name, string_agg(split_part(o, '=', 1), ', ') AS options
      FROM pg_class c, unnest(c.reloptions) o WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY c.oid LOOP
    EXECUTE format('ALTER TABLE %s RESET (%s)', item.name, item.options);
  END LOOP;
  FOR item IN SELECT c.oid::regclass AS name, string_agg('toast.' || split_part(o, '=', 1), ', ') AS options
      FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid, unnest(t.reloptions) o
      WHERE c.relnamespace = 'public'::regnamespace GROUP BY c.oid LOOP
    EXECUTE format('ALTER TABLE %s RESET (%s)', item.name, item.options);
  END LOOP;
  FOR item IN SELECT attrelid::regclass AS name, attname FROM pg_attribute WHERE attstattarget > 0 LOOP
    EXECUTE format('ALTER TABLE %s ALTER %I SET STATISTICS -1', item.name, item.attname);
  END LOOP;
  FOR item IN SELECT stxname FROM pg_statistic_ext WHERE stxnamespace = 'public'::regnamespace LOOP
    EXECUTE format('DROP STATISTICS %I', item.stxname);
  END LOOP;
END $$;
DROP INDEX bus_bus__create_date_index;
ANALYZE;
"""


@contextmanager
def clusters(host: Host) -> Iterator[dict[str, Cluster]]:
    """Both scratch clusters, removed afterwards."""
    server = host.container("postgresql/postgresql")
    answer = host.run(
        f"docker exec -i {server.id} psql -h /run/postgresql -U postgres -XAtq -v place={shlex.quote(PLACE)} postgres",
        stdin="SELECT json_object_agg(name, setting) FROM pg_file_settings WHERE applied AND name !~ :'place'",
    )
    settings = {"tuned": json.loads(answer), "default": {}}
    found = {name: Cluster(host, name) for name in settings}
    remove(host)
    host.run(f"install -d -m 0711 {DIRECTORY}")
    try:
        host.run(
            f"docker exec {server.id} pg_basebackup -h /run/postgresql -U replicator -D - -F tar -X fetch -c fast > {DIRECTORY}/copy.tar",
            timeout=120,
        )
        for name, cluster in found.items():
            cluster.start(server.facts["HostConfig"], server.facts["Image"], settings[name])
        if found["tuned"].sql("SELECT to_regclass('bus_bus__create_date_index')", "main") == "":
            raise SystemExit("The demo's tables are not as a run leaves them, so nothing can be compared. Type: make demo")
        found["default"].sql(BARE_TABLES, "main")
        found["tuned"].sql("ANALYZE", "main")
        yield found
    finally:
        remove(host)


def remove(host: Host) -> None:
    """Remove what this or a killed measuring left."""
    host.run(f"docker ps -aq --filter name=^berth-bench- | xargs -r docker rm -f > /dev/null; rm -rf {DIRECTORY}", timeout=120)


def measure(host: Host, scale: int, seconds: int) -> dict[str, dict[str, Sample]]:
    """Do each piece of work on both clusters; by work, then by cluster."""
    with clusters(host) as both:
        for cluster in both.values():
            cluster.sql("CREATE DATABASE bench")
            cluster.run(f"pgbench -h /run/postgresql -U postgres -i -q -s {scale} bench", timeout=300)
        samples: dict[str, dict[str, Sample]] = {}
        for work, arguments, rate in PGBENCH:
            samples[work] = fresh(both, "VACUUM ANALYZE")
            for name in ORDER:
                both[name].pgbench(samples[work][name], arguments, rate, seconds)
            say_sample(work, samples[work])
        password = host.variables["odoo_instance_secrets"]["main"]["admin_password"]
        image = host.container("odoo-main/web").facts["Image"]
        for cluster in both.values():
            # Autovacuum would go on with what pgbench left, and its WAL would be counted as Odoo's.
            cluster.sql("DROP DATABASE bench")
            Odoo(cluster).start(image)
        samples["picking"] = fresh(both, "")
        for name in ORDER:
            Odoo(both[name]).work(samples["picking"][name], password, seconds)
        say_sample("picking", samples["picking"])
        return samples


def fresh(both: dict[str, Cluster], tidy: str) -> dict[str, Sample]:
    """Let both clusters begin tidy and after a checkpoint, when each page that is changed goes into the WAL as a whole once."""
    for cluster in both.values():
        if tidy:
            cluster.sql(tidy, "bench")
        cluster.sql("CHECKPOINT")
    return {name: Sample() for name in both}


def say_sample(work: str, samples: dict[str, Sample]) -> None:
    """Print the numbers behind the figures."""
    for name, sample in samples.items():
        say(f"  {work:14} {name:8} {sample.rate:10.1f} per s   p95 {sample.p95:8.2f} ms   {sample.wal:9.0f} B of WAL each")


def figures(samples: dict[str, dict[str, Sample]]) -> list[Figure]:
    """Tuned divided by default."""
    found = []
    for work, both in samples.items():
        tuned, default = both["tuned"], both["default"]
        found.append(Figure(f"{work}_rate", NO_SLOWER, tuned.rate / default.rate, "x", least=True))
        found.append(Figure(f"{work}_p95", 1 / NO_SLOWER, tuned.p95 / default.p95, "x"))
        if work != "select":
            found.append(Figure(f"{work}_wal", LESS_WAL, tuned.wal / default.wal, "x"))
    return found


def table(samples: dict[str, dict[str, Sample]], measured: list[Figure], notes: dict[str, Any], command: str) -> str:
    """The section of docs/benchmarks.md."""
    lines = [
        f"Measured {time.strftime('%Y-%m-%d', time.gmtime())} on {machine()}, with `{command}`: PostgreSQL limited to {notes['memory_mb']} MB,",
        f"pgbench of scale {notes['scale']} with {CLIENTS} clients, {CLERKS} Odoo workers with one client each, {len(ORDER) // 2} turns of",
        f"{notes['seconds']} s. Load of the machine before: {notes['load']:.1f}.",
        "",
        "| Work | Default, per s | Tuned, per s | Default, p95 ms | Tuned, p95 ms | Default, WAL bytes each | Tuned, WAL bytes each |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for work, both in samples.items():
        pairs = [
            f"{getattr(both[name], what):.{digits}f}"
            for what, digits in (("rate", 1), ("p95", 2), ("wal", 0))
            for name in ("default", "tuned")
        ]
        lines.append(f"| {work} | " + " | ".join(pairs) + " |")
    lines += ["", "Tuned divided by default:", "", "| Figure | Wanted | Got | Unit | |", "|---|---:|---:|---|---|"]
    for figure in measured:
        name, wanted, *rest = figure.cells
        lines.append(f"| {name} | {'≥' if figure.least else '≤'} {wanted} | " + " | ".join(rest) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", default="demo", help="a lab with a deployed site (default: demo)")
    parser.add_argument("--scale", type=int, default=30, help="size of pgbench's data in units of 15 MB (default: 30)")
    parser.add_argument("--seconds", type=int, default=5, help=f"length of each of the {len(ORDER) // 2} turns (default: 5)")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    lab = Lab(options.lab, (REPOSITORY / "inventories/single", REPOSITORY / ".cache/lab" / options.lab / "inventory"))
    if not lab.directory.is_dir():
        raise SystemExit(f"There is no lab {options.lab} to measure. Type: make demo")
    limit = lab.host.container("postgresql/postgresql").facts["HostConfig"]["Memory"]
    load = os.getloadavg()[0]
    if load > len(os.sched_getaffinity(0)):
        say(f"The machine is busy (load {load:.1f}): rates and latencies will say little, WAL is not affected.")
    samples = measure(lab.host, options.scale, options.seconds)
    measured = figures(samples)
    for figure in measured:
        sys.stdout.write("\t".join(figure.cells) + "\n")
    if options.write:
        notes = {"memory_mb": limit // 2**20, "scale": options.scale, "seconds": options.seconds, "load": load}
        write(table(samples, measured, notes, f'make bench-postgresql BENCH="{" ".join(sys.argv[1:])}"'), "bench-postgresql")


if __name__ == "__main__":
    main()
