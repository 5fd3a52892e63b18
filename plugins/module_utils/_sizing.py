# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Capacity formulas: from what a machine has to what each service may take.

Everything here is a pure function of its arguments: no Ansible, no input or output, no clock. Memory is in
megabytes of 1024 * 1024 bytes everywhere, and always a whole number.

Sources are named where a number comes from outside:

* *Odoo guide*: Odoo's deployment guide (CPU * 2 + 1 workers, one worker for about six concurrent users).
* *Odoo engineer*: odoo/odoo#39825, one worker for about 30 named users, 40 when tenants share a machine.
* *measured*: measured on Odoo 19, PostgreSQL 17, PgBouncer 1.24 while this collection was made.
* *judgement*: the authors' decision; no measurement behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ._validate import Problem
from ._wiring import ANALYST_CONNECTIONS, voters

DISK_KINDS = ("hdd", "ssd", "nvme")

HTTP_TIERS = ("web", "batch", "queue")
"""Odoo's tiers that answer requests; the second and the third are there when an instance wants them."""

POSTGRESQL_MINIMUM_MB = 256
"""Below this the fixed parts (catalogue caches, checkpointer, autovacuum) leave nothing for queries (judgement)."""

POSTGRESQL_BACKEND_MB = 4
"""Private memory of a connection that does nothing (judgement, between a fresh 2 MB and 10 MB after use)."""


LEAST_CONNECTIONS = 25
"""Patroni takes its own default of 100 instead of a lower ``max_connections``, with nothing but a line in its log (patroni 4.0, postgresql/config.py)."""


class SizingError(ValueError):
    """A number that cannot work. The message says what was found, what was expected and what to type."""


def _clamp(value: int, lowest: int, highest: int) -> int:
    return max(lowest, min(value, highest))


def postgresql_parameters(
    memory_mb: int,
    cpus: int,
    disk_kind: str,
    max_connections: int,
    workers: int = 0,
    *,
    disk_mb: int = 0,
) -> dict[str, str | int]:
    """Compute PostgreSQL 17 parameters for Odoo from what the container may use.

    The shape follows one finding about Odoo: every statement is planned afresh from literals and most are short,
    so plans must be cheap (no JIT, little parallelism), memory per operation modest, and autovacuum eager.

    :param memory_mb: memory the PostgreSQL container may use, page cache included, in MB. At least 256.
    :param cpus: processors the container may use. At least 1.
    :param disk_kind: ``hdd``, ``ssd`` or ``nvme``.
    :param max_connections: upper bound of client connections. At least 25.
    :param workers: connections that work at the same moment at most, usually the sum of the pools.
        ``0`` takes 60 % of *max_connections*.
    :param disk_mb: size of the file system that holds the data, in MB, to bound WAL. ``0``: unknown.
    :returns: parameter name to value. Sizes are strings with a unit, switches ``"on"`` or ``"off"``.
    :raises SizingError: a number is out of range, or the connections alone do not fit into the memory.

    ==================================== ============================================================================
    Parameter                            Rule, reason and source
    ==================================== ============================================================================
    max_connections                      As given; the plan adds up pools, direct connections and a reserve.
    shared_buffers                       25 % of the memory, 16 GB at most: what six public tuners agree on; more only
                                         displaces the page cache. Rounded to 16 MB, since a change needs a restart.
    effective_cache_size                 70 % of the memory. The usual 75 % forgets the neighbours (judgement).
    work_mem                             Half of what shared_buffers leaves, over three operations for each working
                                         connection; 2 to 64 MB (judgement; 34 MB at 16 GB and 60 connections).
    maintenance_work_mem                 1/32 of the memory, 16 MB to 2 GB: PostgreSQL 17's vacuum needs much less
                                         than before.
    autovacuum_work_mem                  Half of maintenance_work_mem: several workers use it at once.
    autovacuum_max_workers               3 up to 2 processors, 4 below 16, then 5 (judgement).
    autovacuum_vacuum_scale_factor       0.05: Odoo's big tables must not wait for 20 % of dead rows.
    autovacuum_vacuum_insert_scale_factor 0.05: keeps the visibility map fresh on append-only ledgers.
    autovacuum_analyze_scale_factor      0.02: estimates follow states that change in bursts.
    autovacuum_naptime                   20 s: bus and cron tables bloat within minutes.
    autovacuum_vacuum_cost_limit         2000 on flash, 400 on rotating disks: the default of 200 falls behind.
    min_wal_size                         A quarter of max_wal_size: recycled files instead of new ones.
    max_wal_size                         Half the memory, 1 to 16 GB, never above 10 % of the disk: checkpoints come
                                         from the clock, not from volume.
    max_slot_wal_keep_size               Twice max_wal_size, never above 20 % of the disk: a dead replica or a lost
                                         slot must not fill the disk. Never -1.
    checkpoint_timeout                   15 min: fewer full-page images; with lz4 84 % less WAL (measured).
    wal_compression                      lz4, see above.
    random_page_cost                     1.1 on flash, 4 on rotating disks.
    effective_io_concurrency             2 on rotating disks, 200 on SSD, 256 on NVMe.
    max_parallel_workers_per_gather      0 up to 2 processors, 1 below 16, then 2: 95th percentile before throughput,
                                         and every worker multiplies work_mem.
    max_parallel_workers                 Half the processors, 6 at most.
    max_parallel_maintenance_workers     As max_parallel_workers, 2 at most (index builds of an upgrade).
    jit                                  off: compiling costs more than Odoo's statements take (10x on published
                                         cases, open-noodle/gallery#798).
    default_statistics_target            200: better estimates for skewed states; 1000 multiplies planning time.
    huge_pages                           try: uses them where the host reserved them and starts where not, see
                                         :func:`huge_pages_mb`.
    tcp_keepalives_idle, _interval,      30 s, 10 s, 3: a vanished client frees its connection within a minute.
    _count
    tcp_user_timeout                     30 s: the same for data that is never acknowledged.
    client_connection_check_interval     10 s: stops queries whose client has gone.
    track_io_timing                      on: the cost is small on current clocks, diagnosis needs it.
    log_min_duration_statement           500 ms.
    log_lock_waits                       on.
    log_temp_files                       16 MB: shows reports that need more work_mem.
    log_autovacuum_min_duration          10 s.
    ==================================== ============================================================================

    Deliberately absent, because a value would do harm: ``idle_in_transaction_session_timeout`` and
    ``transaction_timeout`` (a cron job keeps its lock transaction open as long as it runs; cut off, it repeats every
    minute: measured), ``statement_timeout`` and ``lock_timeout`` (module upgrades, pg_rewind).
    """
    if memory_mb < POSTGRESQL_MINIMUM_MB:
        raise SizingError(
            f"PostgreSQL memory is {memory_mb} MB, expected at least {POSTGRESQL_MINIMUM_MB} MB: "
            f"set postgresql_memory_mb to {POSTGRESQL_MINIMUM_MB} or more."
        )
    if cpus < 1:
        raise SizingError(f"PostgreSQL processors are {cpus}, expected at least 1: set postgresql_cpus to 1 or more.")
    if disk_kind not in DISK_KINDS:
        raise SizingError(f"The disk kind is {disk_kind!r}, expected one of {', '.join(DISK_KINDS)}: set postgresql_disk_kind.")
    if max_connections < LEAST_CONNECTIONS:
        raise SizingError(
            f"max_connections is {max_connections}, expected at least {LEAST_CONNECTIONS}: "
            f"set postgresql_max_connections to {LEAST_CONNECTIONS} or more."
        )
    if workers < 0 or workers > max_connections:
        raise SizingError(
            f"{workers} connections would work at once but max_connections is {max_connections}: "
            f"set postgresql_max_connections to {workers + 20} or lower the pools."
        )

    shared_buffers = _clamp(memory_mb // 4, 64, 16384) // 16 * 16
    left_mb = memory_mb - shared_buffers
    if max_connections * POSTGRESQL_BACKEND_MB > left_mb:
        raise SizingError(
            f"{max_connections} connections need {max_connections * POSTGRESQL_BACKEND_MB} MB when idle and only "
            f"{left_mb} MB of {memory_mb} MB are left beside shared_buffers: set postgresql_max_connections to at most "
            f"{left_mb // POSTGRESQL_BACKEND_MB} or raise postgresql_memory_mb."
        )
    active = workers or max(1, max_connections * 3 // 5)
    work_mem = _clamp(left_mb // 2 // (3 * active), 2, 64)
    maintenance = _clamp(memory_mb // 32, 16, 2048)
    max_wal = _clamp(memory_mb // 2, 1024, 16384)
    slot_wal = 2 * max_wal
    if disk_mb:
        # Two 16 MB segments are the least PostgreSQL accepts; 64 MB keeps a checkpoint from following each burst.
        max_wal = max(64, min(max_wal, disk_mb // 10))
        slot_wal = max(128, min(slot_wal, disk_mb // 5))
    parallel = min(cpus // 2, 6)
    flash = disk_kind != "hdd"

    return {
        "max_connections": max_connections,
        "shared_buffers": f"{shared_buffers}MB",
        "effective_cache_size": f"{memory_mb * 7 // 10}MB",
        "work_mem": f"{work_mem}MB",
        "maintenance_work_mem": f"{maintenance}MB",
        "autovacuum_work_mem": f"{maintenance // 2}MB",
        "autovacuum_max_workers": 3 if cpus <= 2 else 4 if cpus < 16 else 5,
        "autovacuum_vacuum_scale_factor": "0.05",
        "autovacuum_vacuum_insert_scale_factor": "0.05",
        "autovacuum_analyze_scale_factor": "0.02",
        "autovacuum_naptime": "20s",
        "autovacuum_vacuum_cost_limit": 2000 if flash else 400,
        "min_wal_size": f"{max(32, max_wal // 4)}MB",
        "max_wal_size": f"{max_wal}MB",
        "max_slot_wal_keep_size": f"{slot_wal}MB",
        "checkpoint_timeout": "15min",
        "wal_compression": "lz4",
        "random_page_cost": "1.1" if flash else "4",
        "effective_io_concurrency": {"hdd": 2, "ssd": 200, "nvme": 256}[disk_kind],
        "max_parallel_workers_per_gather": 0 if cpus <= 2 else 1 if cpus < 16 else 2,
        "max_parallel_workers": parallel,
        "max_parallel_maintenance_workers": min(parallel, 2),
        "jit": "off",
        "default_statistics_target": 200,
        "huge_pages": "try",
        "tcp_keepalives_idle": 30,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": 30000,
        "client_connection_check_interval": "10s",
        "track_io_timing": "on",
        "log_min_duration_statement": "500ms",
        "log_lock_waits": "on",
        "log_temp_files": "16MB",
        "log_autovacuum_min_duration": "10s",
    }


HUGE_PAGE_MB = 2
"""Default size of a huge page, on amd64 and on arm64 with Debian's kernel."""

HUGE_PAGES_FROM_MB = 1024
"""``shared_buffers`` from which huge pages are worth it. With pages of 4 KiB a connection that has seen all of it keeps 2 KiB of page table a MB
(measured), 2 MB from here on, half of what it takes otherwise. Below, memory that nobody else can use costs a small machine more than that."""


def huge_pages_mb(memory_mb: int, parameters: Mapping[str, Any]) -> int:
    """Return the memory in huge pages that PostgreSQL wants beside its container's, as they are not counted into its limit; 0 where none shall be kept.

    What 17 asks for beside its buffers was measured with ``postgres -C shared_memory_size_in_huge_pages`` for 40 combinations of 64 MB to 16 GB and
    25 to 1000 connections: this is 0 to 80 MB more. ``platform_info`` compares it with what the running server says.

    :param memory_mb: what PostgreSQL may use, huge pages included.
    :param parameters: as PostgreSQL gets them.
    """
    buffers = megabytes(parameters.get("shared_buffers"), 8 / 1024)
    connections = whole(parameters.get("max_connections"))
    if parameters.get("huge_pages") not in ("try", "on") or buffers is None or connections is None or buffers < HUGE_PAGES_FROM_MB:
        return 0
    wal = megabytes(parameters.get("wal_buffers"), 8 / 1024)
    wanted = _granules(int(buffers * 41 / 40) + 48 + connections // 16 + max(16, int(wal or 0)))
    # The kernel may find too few in one piece; then the same memory is asked for in small pages, and counted into the limit.
    left = memory_mb - wanted
    return wanted if left >= wanted + connections * POSTGRESQL_BACKEND_MB else 0


# --------------------------------------------------------------------------------------------------------------------
# The plan of a whole inventory

USERS_PER_WORKER = {"production": 6, "staging": 12, "development": 30}
"""People who work at the same moment per web worker. 6: Odoo guide. The others: judgement (fewer clicks at once)."""

USERS_PER_WORKER_LIMIT = 30
"""More people per worker is no plan but a hope: the Odoo engineer's starting point for *named* users."""

MINIMUM_WEB_WORKERS = 2
"""A PDF report asks its own pool for its stylesheets while it holds a worker, so one worker waits for itself."""

WEB_FIXED_MB = 176
"""Prefork master (41 MB measured) and the websocket process that prefork always starts (71 to 110 MB), used or not."""

WEB_WORKER_MB = 160
"""A worker between two requests: 131 to 134 MB resident measured with 40 to 84 modules, plus a margin."""

WEB_HEAVY_MB = {"production": (512, 1024), "staging": (512, 768), "development": (384, 512)}
"""Least and wanted room for one worker that prints, imports or computes: the Odoo guide's heavy request is 1 GB."""

CRON_FIXED_MB = 96
CRON_HEAVY_MB = {"production": (256, 512), "staging": (256, 384), "development": (192, 256)}
"""A cron worker idles at 55 MB (measured); a scheduler run is heavier (judgement)."""

MAINTENANCE_MB = 1024
"""An installation or upgrade, one at a time on a host, while the cron of that instance stands still (judgement)."""

QUEUE_SPARE = 1
"""HTTP workers of the queue beyond its jobs: one job more than workers would wait, and the health check with it."""

RUNNER_CONNECTIONS = 1
"""The queue's runner listens on the instance's database (queue_job 19.0)."""

ODOO_MAPPED_MB = 128
"""What Odoo's limits count beyond resident memory: they measure *virtual* memory, 255 MB at 131 MB resident."""

ODOO_HARD_MINIMUM_MB = 2560
"""Odoo's own default. Lower breaks wkhtmltopdf, which inherits the limit and maps much more than it touches; the
cgroup limit is what really protects the neighbours."""

REDIS_FIXED_MB = 64
"""Redis beside its data: its program, clients' buffers, the buffer of the append-only file."""

SENTINEL_MB = 64
"""Limit of a Sentinel, as in the role C(redis); it takes 12."""

READER_FIXED_MB, READER_PROCESS_MB = 96, 32
"""pgBackRest that reads a member's files for a backup of another one: its server, and each process that it may use. Measured with two of them, a file of 1 GB
and 33,000 small ones, full and incremental: 38 MB together. The member that leads runs the backup meanwhile (39 MB, in a container that may take 1 GB) and its
own reader idles, so one of both is counted. A member that is alone has no reader, and its backup fits into the reserve."""

HAPROXY_FIXED_MB = 64
"""HAProxy without connections, with room for the second process of a reload (judgement, it takes 20)."""

DB_MAXCONN = 8
"""Upper bound of a web or cron process (``db_maxconn``). A web worker uses 2, a cron worker 3 (measured)."""

CRON_CONNECTIONS = 4
"""LISTEN on ``postgres``, the lock on the job, the job's own cursor (measured: 3), and one notification."""

NESTED_TRANSACTIONS = 4
"""Spare server connections above one per worker, for cursors opened inside a transaction. Without them all workers
could wait for each other until ``query_wait_timeout``; so the pool is never cut to the database's processors."""

NOTIFY_POOL = 5
"""The transaction port's pool for the database ``postgres``, to which web processes only send notifications."""

DIRECT_CONNECTIONS = 20
"""Connections to PostgreSQL beside the pools: 3 reserved for superusers, Patroni 4, one module upgrade 6, a dump 2,
exporters 3, a person 2."""

MAXIMUM_CONNECTIONS = 1000
"""postgres.conf values above this only hide a missing pool (judgement)."""

ROOM = "(room)"
"""What is kept for instances that are not there yet, in the table."""

PAGES = "(huge pages)"
"""What is kept in huge pages for PostgreSQL, in the table."""

HUGE_PAGES = "vm.nr_hugepages"

GRANULE_MB = 16
"""Limits are multiples of this, so that a few megabytes more or less do not touch every container."""


class Machine(NamedTuple):
    """What a host has, as C(preflight_info) measured it."""

    cpus: int
    memory_mb: int
    disk_kind: str = "ssd"
    disk_mb: int = 0
    own_kernel: bool = True
    """Whether its kernel's settings are its own; a container's are not."""


class Demand(NamedTuple):
    """A service's memory: refused below *least*, never given more than *wanted*."""

    service: str
    least: int
    wanted: int
    setting: str
    """The variable that changes it; empty when none does."""


def usable_memory(memory_mb: int) -> int:
    """Round memory down to a sixteenth of the next power of two.

    What the kernel reports varies by some megabytes with its version, and a limit that follows would restart
    containers and change ``shared_buffers``. 3 to 5 % of a machine's nominal memory is missing from ``MemTotal``;
    the step is 6 to 12 %, so the nominal size never sits on an edge.
    """
    step = max(1, (1 << (memory_mb - 1).bit_length()) // 16) if memory_mb > 0 else 1
    return memory_mb // step * step


def reserve_of(memory_mb: int) -> int:
    """Memory kept for the kernel, Docker, SSH and administration: 512 MB, and 5 % above 8 GB, 4 GB at most.

    systemd, sshd, dockerd and containerd idle at 250 to 300 MB (measured in lab VMs).
    """
    return min(4096, 512 + max(0, memory_mb - 8192) // 20)


def budget_of(memory_mb: int) -> int:
    """Memory that all containers of a host may use together."""
    usable = usable_memory(memory_mb)
    return max(0, usable - reserve_of(usable)) // GRANULE_MB * GRANULE_MB


def share(demands: Sequence[Demand], budget: int) -> dict[str, int]:
    """Divide *budget* between services: each gets its least, and the same part of the way to what it wants.

    :raises SizingError: the least amounts alone exceed the budget.
    """
    least = sum(demand.least for demand in demands)
    if least > budget:
        parts = ", ".join(f"{demand.service} {demand.least}" for demand in demands)
        raise SizingError(f"{least} MB are needed at least ({parts}) and {budget} MB are there")
    spare = budget - least
    missing = sum(demand.wanted - demand.least for demand in demands)
    part = min(spare, missing)
    return {
        demand.service: demand.least + ((demand.wanted - demand.least) * part // missing // GRANULE_MB * GRANULE_MB if missing else 0)
        for demand in demands
    }


def postgresql_minimum(max_connections: int) -> int:
    """Return the least memory for a PostgreSQL container: 384 MB, or 6 MB a connection and 64 MB (judgement)."""
    return _granules(max(384, 64 + 6 * max_connections))


def _granules(memory_mb: int) -> int:
    """Round up to whole granules."""
    return -(-memory_mb // GRANULE_MB) * GRANULE_MB


def whole(value: Any) -> int | None:
    """Return an override as a whole number, or nothing when it is none (validation reports it elsewhere)."""
    if isinstance(value, bool):
        return None
    try:
        return int(str(value))
    except ValueError:
        return None


def truth(value: Any) -> bool:
    """Return what a variable of type bool says, as Ansible reads it; validation reports what is neither."""
    return str(value).lower() in ("true", "yes", "on", "1")


def processes(odoo: Mapping[str, Any], tier: str) -> int:
    """Return how many HTTP workers one of :data:`HTTP_TIERS` has; none where it is not wanted."""
    workers = int(odoo[f"{tier}_workers"])
    return workers + QUEUE_SPARE if tier == "queue" and workers else workers


class Plan(NamedTuple):
    """Result of :func:`plan`."""

    hosts: dict[str, dict[str, Any]]
    """Host to its part, see :func:`plan`."""
    problems: list[Problem]
    notes: list[tuple[str, str]]
    """Host and what is worth knowing about it."""


def plan(
    machines: Mapping[str, Machine],
    tiers: Mapping[str, Sequence[str]],
    instances: Mapping[str, Mapping[str, Mapping[str, Any]]],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """Compute what every service of every host may use, and refuse what does not add up.

    Order of the computation: workers from users and processors, pools from workers, ``max_connections`` from pools,
    memory from all of it, Odoo's and PostgreSQL's own limits from the memory they got. So each number depends only
    on earlier ones, and more users or more memory never lead to less of anything but slack.

    :param machines: host to what it has. A host that is missing here gets no plan.
    :param tiers: tier (``edge``, ``app``, ``database``, ``cache``, ``witness``) to its hosts.
    :param instances: host to the validated ``odoo_instances`` it sees. An instance runs on the app hosts that see it;
        where all hosts see the same ones, all app hosts run all of them.
    :param overrides: host to the flat variables an inventory sets (``odoo_web_workers``, ``postgresql_memory_mb``…).
        Keys of an instance (``web_workers``…) win over flat variables.
    ``preflight_room_for_instances`` says for how many instances there shall be room: the missing ones are planned like one of the defaults, so that
    one that comes later changes nobody's limits.

    :returns: per host ``memory`` (``total_mb``, ``reserve_mb``, ``limits`` by service), and by tier ``traefik``,
        ``etcd``, ``postgresql``, ``haproxy``, ``pgbouncer``, ``redis`` and ``odoo`` (by instance).
    """
    return _Planner(machines, tiers, instances, overrides or {}).run()


class _Planner:
    """One computation; collects problems and notes on its way."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        tiers: Mapping[str, Sequence[str]],
        instances: Mapping[str, Mapping[str, Mapping[str, Any]]],
        overrides: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.machines = machines
        self.tiers = {tier: [host for host in hosts if host in machines] for tier, hosts in tiers.items()}
        self.overrides = overrides
        self.instances = {host: {**seen, **self._room(host, len(seen))} for host, seen in instances.items()}
        self.problems: list[Problem] = []
        self.notes: list[tuple[str, str]] = []
        self.hosts: dict[str, dict[str, Any]] = {host: {} for host in machines}

    def run(self) -> Plan:
        """Compute in the order that :func:`plan` describes."""
        for host in self.tiers.get("app", []):
            self._workers(host)
            self._pools(host)
        self._connections()
        for host in self.tiers.get("database", []):
            self._database_processors(host)
        for host in self.machines:
            self._memory(host)
        self._parameters()
        for part in self.hosts.values():
            self._keep_room(part)
        return Plan(self.hosts, self.problems, self.notes)

    # -- room for instances that are not there yet

    def _room(self, host: str, there: int) -> dict[str, dict[str, Any]]:
        """Return instances that stand for those which may come."""
        wanted = whole(self.overrides.get(host, {}).get("preflight_room_for_instances")) or 0
        # No instance can have such a name.
        return {f"{ROOM} {number}": {} for number in range(1, wanted - there + 1)}

    @staticmethod
    def _keep_room(part: dict[str, Any]) -> None:
        """Put what those would get together: it is nobody's yet."""
        if "odoo" in part:
            part["odoo"] = {name: odoo for name, odoo in part["odoo"].items() if not name.startswith(ROOM)}
        limits = part["memory"]["limits"]
        kept = [service for service in limits if service.startswith(f"odoo-{ROOM}")]
        if kept:
            limits[ROOM] = sum(limits.pop(service) for service in kept)

    # -- helpers

    def _override(self, host: str, variable: str, least: int = 1) -> int | None:
        """Return an override, or nothing. One that is too small is a problem and is used nevertheless."""
        value = whole(self.overrides.get(host, {}).get(variable))
        if value is not None and value < least:
            self._refuse(host, variable, str(value), f"{least} or more", f"{variable}: {least}")
        return value

    def _refuse(self, host: str, subject: str, found: str, expected: str, remedy: str) -> None:
        self.problems.append(Problem((host,), subject, found, expected, remedy))

    def _replica_reads(self, host: str) -> bool:
        return truth(self.overrides.get(host, {}).get("odoo_replica_reads"))

    def _app_hosts(self, instance: str) -> list[str]:
        return [host for host in self.tiers.get("app", []) if instance in self.instances.get(host, {})]

    def _all_users(self) -> int:
        users: dict[str, int] = {}
        for seen in self.instances.values():
            for name, instance in seen.items():
                users[name] = _users(instance)
        return sum(users.values())

    # -- workers

    def _workers(self, host: str) -> None:
        odoo: dict[str, dict[str, Any]] = {}
        for name, instance in self.instances.get(host, {}).items():
            cores = self._processors(host, name, instance)
            users = -(-_users(instance) // len(self._app_hosts(name)))
            wanted = max(MINIMUM_WEB_WORKERS, -(-users // USERS_PER_WORKER[_service_class(instance)]))
            given = self._instance_override(host, name, instance, "web_workers")
            workers = given if given is not None else min(wanted, 2 * cores + 1)
            if given is None and workers < wanted:
                reason = f"more than {2 * cores + 1} only queue on {cores} CPUs"
                self.notes.append((host, f"{name} gets {workers} web workers for {users} users instead of {wanted}: {reason}"))
            if given is None and users > workers * USERS_PER_WORKER_LIMIT:
                self._refuse(
                    host,
                    f"odoo_instances.{name}.users",
                    f"{users} users on {cores} CPUs, {users // workers} for each of {workers} web workers",
                    f"at most {workers * USERS_PER_WORKER_LIMIT} at the same moment on this host",
                    f"more CPUs, another app host, or accept it: odoo_instances.{name}: {{web_workers: {workers}}}",
                )
            if given == 1:
                self.notes.append((host, f"{name} has one web worker: printing a PDF makes it wait for itself"))
            batch = self._instance_override(host, name, instance, "batch_workers", least=0)
            queue = self._instance_override(host, name, instance, "queue_workers", least=0)
            cron = self._instance_override(host, name, instance, "cron_workers")
            if cron is None:
                production = _service_class(instance) == "production"
                cron = 1 + (users >= 50) + (users >= 200) if production else 1
            odoo[name] = {
                "web_workers": workers,
                "batch_workers": batch or 0,
                "queue_workers": queue or 0,
                "cron_workers": cron,
                "max_cron": cron,
                "db_maxconn": DB_MAXCONN,
                "db_maxconn_gevent": _clamp(4 + users // 100, 4, 16),
            }
        self.hosts[host]["odoo"] = odoo

    def _processors(self, host: str, name: str, instance: Mapping[str, Any]) -> int:
        """Processors that an instance's workers share. A limit above the host's is refused here and not by Docker, halfway through."""
        cores = self.machines[host].cpus
        try:
            limit = float(instance.get("cpus") or 0) or cores
        except (TypeError, ValueError):
            return cores  # reported by validation
        if not math.isfinite(limit):
            return cores  # likewise
        if limit > cores:
            path = f"odoo_instances.{name}"
            self._refuse(host, f"{path}.cpus", f"{limit:g}", f"at most {cores}, which this host has", f"{path}: {{cpus: {cores}}}, or none")
        return max(1, min(cores, math.ceil(limit)))

    def _instance_override(self, host: str, name: str, instance: Mapping[str, Any], key: str, least: int = 1) -> int | None:
        """Return an instance's own value, or the flat variable's."""
        value = whole(instance.get(key))
        if value is None:
            return self._override(host, f"odoo_{key}", least)
        if value < least:
            path = f"odoo_instances.{name}.{key}"
            self._refuse(host, path, str(value), f"{least} or more", f"odoo_instances.{name}: {{{key}: {least}}}")
        return value

    # -- connections

    def _pools(self, host: str) -> None:
        odoo = self.hosts[host]["odoo"].values()
        pool_least = max((sum(processes(item, tier) for tier in HTTP_TIERS) for item in odoo), default=1) + 1
        session_least = max((_session_connections(item) for item in odoo), default=1)
        clients = max(
            sum((processes(item, tier) + 1) * DB_MAXCONN for item in odoo for tier in HTTP_TIERS if processes(item, tier)),
            sum(item["db_maxconn_gevent"] + (item["cron_workers"] + 1) * DB_MAXCONN + _runner_connections(item) for item in odoo),
        )
        pool = self._override(host, "pgbouncer_pool_size", pool_least)
        session = self._override(host, "pgbouncer_session_pool_size", session_least)
        maximum = self._override(host, "pgbouncer_max_client_connections", clients)
        self.hosts[host]["pgbouncer"] = {
            "pool_size": pool_least - 1 + NESTED_TRANSACTIONS if pool is None else pool,
            "session_pool_size": session_least if session is None else session,
            "max_client_connections": max(100, -(-(clients + 10) // 50) * 50) if maximum is None else maximum,
        }

    def _connections(self) -> None:
        """Add up the pools: per instance and app host one for its database and one for ``postgres``, in both modes."""
        pools = 0
        for host in self.tiers.get("app", []):
            pooler = self.hosts[host]["pgbouncer"]
            web = pooler["pool_size"] + min(pooler["pool_size"], NOTIFY_POOL)
            # Reads go to the primary, too, where there is no synchronous standby.
            web += pooler["pool_size"] if self._replica_reads(host) else 0
            mine = len(self.hosts[host]["odoo"]) * (web + 2 * pooler["session_pool_size"])
            pools += mine
            # Maintenance goes past the pools.
            given = self._override(host, "haproxy_max_connections", mine + DIRECT_CONNECTIONS)
            self.hosts[host]["haproxy"] = {"max_connections": -(-(mine + DIRECT_CONNECTIONS) // 50) * 50 if given is None else given}
        # Who reads a database does so past the pools, as often as the role's limit allows.
        seen = {name: instance for host in self.tiers.get("database", []) for name, instance in self.instances.get(host, {}).items()}
        analysts = sum(_analyst_connections(instance) for instance in seen.values())
        beside = DIRECT_CONNECTIONS + analysts
        needed = pools + beside
        # In steps of 20, because a change restarts PostgreSQL.
        planned = max(LEAST_CONNECTIONS, -(-needed // 20) * 20)
        if planned > MAXIMUM_CONNECTIONS:
            self.problems.append(
                Problem(
                    (),
                    "connections",
                    f"{pools} connections of all pools and {beside} beside them",
                    f"at most {MAXIMUM_CONNECTIONS} in one PostgreSQL cluster",
                    "move instances to another inventory, or lower web_workers and cron_workers of small ones to 2 and 1",
                )
            )
        for host in self.tiers.get("database", []):
            given = whole(self.overrides.get(host, {}).get("postgresql_max_connections"))
            if given is not None and given < needed:
                self._refuse(
                    host,
                    "postgresql_max_connections",
                    str(given),
                    f"at least {needed}: {pools} of all pools and {beside} beside them",
                    f"postgresql_max_connections: {planned}, or lower pgbouncer_pool_size",
                )
            self.hosts[host]["postgresql"] = {
                "max_connections": planned if given is None else given,
                "connections": {"pools": pools, "reserved": beside},
            }
        values = {self.hosts[host]["postgresql"]["max_connections"] for host in self.tiers.get("database", [])}
        if len(values) > 1:
            self.problems.append(
                Problem(
                    tuple(self.tiers["database"]),
                    "postgresql_max_connections",
                    f"different values: {', '.join(map(str, sorted(values)))}",
                    "one value, because every member may become the primary and a standby refuses a lower one",
                    "set it in the group's variables instead of a host's",
                )
            )

    # -- memory

    def _memory(self, host: str) -> None:
        total = self.machines[host].memory_mb
        budget = budget_of(total)
        demands = self._demands(host)
        try:
            limits = share(demands, budget)
        except SizingError as error:
            least = sum(demand.least for demand in demands)
            enough = next(size for size in range(256, 1 << 30, 256) if budget_of(size) >= least)
            movable = [demand for demand in demands if demand.setting]
            largest = sorted(movable, key=lambda demand: demand.least, reverse=True)[:3]
            self._refuse(
                host,
                "memory",
                f"{total} MB, of which {total - budget} MB are kept for the system: {error}",
                f"{enough} MB for what this host shall run",
                f"give {host} {enough} MB, move a tier to another host, or lower "
                + ", ".join(dict.fromkeys(demand.setting for demand in largest)),
            )
            limits = {demand.service: demand.least for demand in demands}
        if "postgresql" in limits and "postgresql_memory_mb" not in self._given(host):
            # What nobody else wants is PostgreSQL's: its limit counts the page cache.
            limits["postgresql"] += max(0, budget - sum(limits.values())) // GRANULE_MB * GRANULE_MB
        part = self.hosts[host]
        part["memory"] = {"total_mb": total, "reserve_mb": total - budget, "limits": limits}
        for service in ("traefik", "etcd", "postgresql", "haproxy", "pgbouncer", "redis"):
            if service in limits:
                part.setdefault(service, {})["memory_mb"] = limits[service]
        if "redis" in part:
            given = self._override(host, "redis_maxmemory_mb")
            part["redis"]["maxmemory_mb"] = (limits["redis"] - REDIS_FIXED_MB) // 2 if given is None else given
        for name, odoo in part.get("odoo", {}).items():
            self._odoo_limits(name, odoo, limits)

    def _given(self, host: str) -> set[str]:
        return {name for name, value in self.overrides.get(host, {}).items() if whole(value) is not None}

    def _demand(self, host: str, service: str, setting: str, least: int, wanted: int) -> Demand:
        least = _granules(least)
        given = self._override(host, setting, least)
        if given is not None:
            return Demand(service, given, given, setting)
        return Demand(service, least, max(least, _granules(wanted)), setting)

    def _demands(self, host: str) -> list[Demand]:
        users = self._all_users()
        part = self.hosts[host]
        demands = []
        if host in self.tiers.get("edge", []):
            demands.append(self._demand(host, "traefik", "traefik_memory_mb", 128, _clamp(512 + users // 2, 512, 1024)))
        if host in self.tiers.get("cache", []):
            # A session takes 520 bytes (measured), twice that with overhead; four devices a user; the rest is rate
            # limits. The limit is twice maxmemory, because rewriting the append-only file forks.
            maximum = whole(self.overrides.get(host, {}).get("redis_maxmemory_mb"))
            wanted = 2 * (_clamp(64 + users // 20, 64, 1024) if maximum is None else maximum) + REDIS_FIXED_MB
            demands.append(self._demand(host, "redis", "redis_memory_mb", 128 if maximum is None else maximum * 5 // 4 + 16, wanted))
            if len(self.tiers["cache"]) > 1:
                demands.append(Demand("sentinel", SENTINEL_MB, SENTINEL_MB, ""))
        if host in self.tiers.get("app", []):
            for name, odoo in part["odoo"].items():
                demands.extend(self._odoo_demands(host, name, odoo))
            # What an installation takes beyond the cron container that it replaces.
            crons = [demand.least for demand in demands if demand.service.endswith("-cron")]
            beyond = _granules(max(0, MAINTENANCE_MB - min(crons, default=MAINTENANCE_MB)))
            demands.append(Demand("odoo-maintenance", beyond, beyond, ""))
            clients = part["pgbouncer"]["max_client_connections"]
            demands.extend(
                self._demand(host, service, "pgbouncer_memory_mb", 48, 64 + clients // 100)
                for service in ("pgbouncer", "pgbouncer-session", *(["pgbouncer-replica"] if self._replica_reads(host) else []))
            )
            # HAProxy: two buffers of 16 KiB for each end of a connection, at most.
            least = HAPROXY_FIXED_MB + part["haproxy"]["max_connections"] // 16
            demands.append(self._demand(host, "haproxy", "haproxy_memory_mb", least, least))
        if host in voters(self.tiers):
            demands.append(self._demand(host, "etcd", "etcd_memory_mb", 128, 256))
        if host in self.tiers.get("database", []):
            least = postgresql_minimum(part["postgresql"]["max_connections"])
            wanted = budget_of(self.machines[host].memory_mb) // 4
            demands.append(self._demand(host, "postgresql", "postgresql_memory_mb", least, wanted))
            if len(self.tiers["database"]) > 1 and self.overrides.get(host, {}).get("backup_repositories"):
                reader = part["postgresql"]["backup_memory_mb"]
                demands.append(Demand("pgbackrest", reader, reader, "postgresql_backup_memory_mb"))
        return demands

    def _odoo_demands(self, host: str, name: str, odoo: Mapping[str, Any]) -> Iterable[Demand]:
        instance = self.instances[host][name]
        kind = _service_class(instance)
        idle = {tier: WEB_FIXED_MB + (processes(odoo, tier) - 1) * WEB_WORKER_MB for tier in HTTP_TIERS}
        web_least, web_wanted = WEB_HEAVY_MB[kind]
        # Odoo guide: 80 % of the workers light at 150 MB, 20 % heavy at 1 GB.
        guide = WEB_FIXED_MB + odoo["web_workers"] * (4 * 150 + 1024) // 5
        cron_least, cron_wanted = CRON_HEAVY_MB[kind]
        users = -(-_users(instance) // len(self._app_hosts(name)))
        for tier, least, wanted in (
            ("web", idle["web"] + web_least, max(idle["web"] + web_wanted, guide) if kind == "production" else idle["web"] + web_wanted),
            ("batch", idle["batch"] + web_least, idle["batch"] + web_wanted),
            ("queue", idle["queue"] + web_least, idle["queue"] + web_wanted),
            ("websocket", 208, _clamp(320 + users, 320, 1024)),
            (
                "cron",
                CRON_FIXED_MB + odoo["cron_workers"] * cron_least,
                CRON_FIXED_MB + odoo["cron_workers"] * cron_wanted,
            ),
        ):
            if tier in ("batch", "queue") and not processes(odoo, tier):
                continue
            least = _granules(least)
            key = f"{tier}_memory_mb"
            given = self._instance_override(host, name, instance, key, least)
            setting = f"odoo_instances.{name}.{key if given is not None or tier != 'web' else 'web_workers'}"
            if name.startswith(ROOM):
                setting = "preflight_room_for_instances"
            yield Demand(
                f"odoo-{name}-{tier}",
                least if given is None else given,
                max(least, _granules(wanted)) if given is None else given,
                setting,
            )

    @staticmethod
    def _odoo_limits(name: str, odoo: dict[str, Any], limits: Mapping[str, int]) -> None:
        for tier in (*HTTP_TIERS, "websocket", "cron"):
            odoo[f"{tier}_memory_mb"] = limits.get(f"odoo-{name}-{tier}", 0)
        # One limit for both, of the one that has less beyond what its workers take anyway.
        rooms = [
            odoo[f"{tier}_memory_mb"] - WEB_FIXED_MB - (processes(odoo, tier) - 1) * WEB_WORKER_MB
            for tier in HTTP_TIERS
            if f"odoo-{name}-{tier}" in limits
        ]
        soft = _clamp(min(rooms), 256, 2048) + ODOO_MAPPED_MB
        odoo["limit_memory_soft"] = soft * 1024 * 1024
        odoo["limit_memory_hard"] = max(ODOO_HARD_MINIMUM_MB, soft * 5 // 4) * 1024 * 1024
        # The same by Odoo's own names, for odoo.conf.
        odoo["settings"] = {key: odoo[key] for key in ("limit_memory_soft", "limit_memory_hard", "db_maxconn", "db_maxconn_gevent")}

    # -- PostgreSQL

    def _database_processors(self, host: str) -> None:
        """Say how many processors PostgreSQL may count on, and what the reader of its files may use that works on half of them."""
        part = self.hosts[host]["postgresql"]
        cores = self.machines[host].cpus
        shared = host in self.tiers.get("app", [])
        part["cpus"] = self._override(host, "postgresql_cpus") or (max(1, cores // 2) if shared else cores)
        reader = _granules(READER_FIXED_MB + READER_PROCESS_MB * max(1, part["cpus"] // 2))
        part["backup_memory_mb"] = self._override(host, "postgresql_backup_memory_mb", reader) or reader

    def _parameters(self) -> None:
        """One set for the cluster, from its smallest member: any member may become the primary."""
        hosts = self.tiers.get("database", [])
        if not hosts:
            return
        given = [self.overrides.get(host, {}) for host in hosts]
        kinds = [
            kind if (kind := values.get("postgresql_disk_kind")) in DISK_KINDS else self.machines[host].disk_kind
            for host, values in zip(hosts, given, strict=True)
        ]
        disks = [self.machines[host].disk_mb for host in hosts]
        parts = [self.hosts[host]["postgresql"] for host in hosts]
        active = sum(len(self.hosts[host]["odoo"]) * self.hosts[host]["pgbouncer"]["pool_size"] for host in self.tiers.get("app", []))
        connections = max(part["max_connections"] for part in parts)
        try:
            parameters = postgresql_parameters(
                min(part["memory_mb"] for part in parts),
                min(part["cpus"] for part in parts),
                min(kinds, key=DISK_KINDS.index),
                connections,
                min(max(1, active), connections),
                disk_mb=min(disks) if all(disks) else 0,
            )
        except SizingError as error:
            self.problems.append(Problem(tuple(hosts), "PostgreSQL", str(error), "numbers that fit together", "see above"))
            return
        for host, part, values in zip(hosts, parts, given, strict=True):
            part["disk_kind"] = min(kinds, key=DISK_KINDS.index)
            own = values.get("postgresql_parameters")
            part["huge_pages"] = 0
            part["parameters"] = {**parameters, "max_connections": part["max_connections"], **(own if isinstance(own, Mapping) else {})}
            self._check_own_parameters(host, part)
            self._huge_pages(host, part)

    def _huge_pages(self, host: str, part: dict[str, Any]) -> None:
        """Keep huge pages for PostgreSQL, and take them from its container: the control group does not count them."""
        wanted = huge_pages_mb(part["memory_mb"], part["parameters"])
        settings = self.overrides.get(host, {}).get("host_sysctl")
        settings = settings if isinstance(settings, Mapping) else {}
        if not wanted:
            return
        if not self.machines[host].own_kernel:
            self.notes.append((host, "no huge pages for PostgreSQL: the kernel of a container is somebody else's"))
            return
        if HUGE_PAGES in settings:
            given = whole(settings[HUGE_PAGES])
            if not given:  # null leaves the kernel alone, 0 gives back what was kept
                return
            buffers = str(part["parameters"]["shared_buffers"])
            if given * HUGE_PAGE_MB < (megabytes(buffers, 8 / 1024) or 0):
                self._refuse(
                    host,
                    f"host_sysctl: {HUGE_PAGES}",
                    f"{given} pages of {HUGE_PAGE_MB} MB, of which PostgreSQL could use none for shared_buffers {buffers}",
                    f"about {wanted // HUGE_PAGE_MB}, or 0 for none",
                    f"host_sysctl: {{{HUGE_PAGES}: {wanted // HUGE_PAGE_MB}}}, or remove it: the plan knows",
                )
            wanted = min(wanted, given * HUGE_PAGE_MB)
        part["huge_pages"] = wanted // HUGE_PAGE_MB
        part["memory_mb"] -= wanted
        limits = self.hosts[host]["memory"]["limits"]
        limits["postgresql"] -= wanted
        limits[PAGES] = wanted

    def _check_own_parameters(self, host: str, part: Mapping[str, Any]) -> None:
        """Check what a person put into ``postgresql_parameters`` against the memory of the container."""
        buffers = megabytes(part["parameters"].get("shared_buffers"), 8 / 1024)
        if buffers is not None and buffers > part["memory_mb"] * 6 // 10:
            self._refuse(
                host,
                "postgresql_parameters.shared_buffers",
                str(part["parameters"]["shared_buffers"]),
                f"at most 60 % of the container's {part['memory_mb']} MB",
                f"postgresql_parameters: {{shared_buffers: {part['memory_mb'] // 4}MB}}, or raise postgresql_memory_mb",
            )
        if whole(part["parameters"].get("max_connections")) != part["max_connections"]:
            self._refuse(
                host,
                "postgresql_parameters.max_connections",
                str(part["parameters"].get("max_connections")),
                "the variable for it, which the plan checks",
                f"postgresql_max_connections: {part['max_connections']}",
            )


def _users(instance: Mapping[str, Any]) -> int:
    return max(1, whole(instance.get("users")) or 10)


def _service_class(instance: Mapping[str, Any]) -> str:
    kind = str(instance.get("service_class") or "production")
    return kind if kind in USERS_PER_WORKER else "production"


def _analyst_connections(instance: Mapping[str, Any]) -> int:
    analyst = instance.get("analyst")
    return (whole(analyst.get("connections")) or ANALYST_CONNECTIONS) if isinstance(analyst, Mapping) else 0


def _session_connections(odoo: Mapping[str, Any]) -> int:
    """Count the server connections that one database needs in session mode: each client holds one."""
    return int(odoo["db_maxconn_gevent"] + odoo["cron_workers"] * CRON_CONNECTIONS + _runner_connections(odoo) + 2)


def _runner_connections(odoo: Mapping[str, Any]) -> int:
    return RUNNER_CONNECTIONS if odoo["queue_workers"] else 0


def megabytes(value: Any, unit_mb: float) -> float | None:
    """Read a PostgreSQL size: a number of *unit_mb*, or a text with kB, MB, GB or TB."""
    units = {"kB": 1 / 1024, "MB": 1.0, "GB": 1024.0, "TB": 1024.0 * 1024}
    text = str(value).strip()
    for suffix, factor in units.items():
        if text.endswith(suffix):
            text, unit_mb = text.removesuffix(suffix).strip(), factor
            break
    try:
        return float(text) * unit_mb
    except ValueError:
        return None


# --------------------------------------------------------------------------------------------------------------------
# Table


def format_plan(result: Plan, machines: Mapping[str, Machine]) -> list[str]:
    """Lay the plan out as aligned columns, without colours: one line a service."""
    rows: list[tuple[str, str, str, str]] = [("host", "service", "memory", "plan")]
    for host, part in result.hosts.items():
        machine = machines[host]
        memory = part["memory"]
        used = sum(memory["limits"].values())
        rows.append((host, "", f"{machine.memory_mb} MB", f"{machine.cpus} CPUs, {machine.disk_kind}"))
        rows.extend(("", service, f"{limit} MB", _remark(part, service)) for service, limit in memory["limits"].items())
        rows.append(("", "system", f"{memory['reserve_mb']} MB", "kept for the kernel, Docker and administration"))
        free = machine.memory_mb - used - memory["reserve_mb"]
        if free >= GRANULE_MB:
            rows.append(("", "unassigned", f"{free} MB", "page cache"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]


_PLACES = {
    ROOM: "kept for instances that are not there yet (preflight_room_for_instances)",
    PAGES: "shared memory of PostgreSQL, beside its container (host_sysctl: {vm.nr_hugepages: 0} for none)",
    "sentinel": "watches the hosts of the group cache",
    "pgbackrest": "reads what PostgreSQL has here for a backup",
    "odoo-maintenance": f"one installation or upgrade at a time, {MAINTENANCE_MB} MB with the cron that it replaces",
}
"""What is no container of its own."""


def _remark(part: Mapping[str, Any], service: str) -> str:
    if service == "postgresql":
        values = part["postgresql"]
        connections = values["connections"]
        buffers = values.get("parameters", {}).get("shared_buffers", "?")
        return (
            f"shared_buffers {buffers}, max_connections {values['max_connections']} "
            f"(pools {connections['pools']}, reserved {connections['reserved']})"
        )
    if service == "pgbouncer":
        values = part["pgbouncer"]
        return f"{values['pool_size']} server connections a pool, {values['max_client_connections']} clients"
    if service == "haproxy":
        return f"{part['haproxy']['max_connections']} connections to the primary"
    if service == "pgbouncer-replica":
        return f"{part['pgbouncer']['pool_size']} server connections to the standby"
    if service == "pgbouncer-session":
        return f"{part['pgbouncer']['session_pool_size']} server connections a pool"
    if service == "redis":
        return f"maxmemory {part['redis']['maxmemory_mb']} MB"
    if service in _PLACES:
        return _PLACES[service]
    if service.startswith("odoo-"):
        name, tier = service.removeprefix("odoo-").rsplit("-", 1)
        odoo = part["odoo"][name]
        if tier == "queue":
            return f"{odoo['queue_workers']} jobs at a time"
        if tier in HTTP_TIERS:
            return f"{odoo[f'{tier}_workers']} workers, recycled above {odoo['limit_memory_soft'] >> 20} MB (virtual)"
        if tier == "cron":
            return f"{odoo['cron_workers']} workers"
        return f"{odoo['db_maxconn_gevent']} connections"
    return ""
