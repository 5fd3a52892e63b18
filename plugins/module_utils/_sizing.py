# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
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

DISK_KINDS = ("hdd", "ssd", "nvme")

POSTGRESQL_MINIMUM_MB = 256
"""Below this the fixed parts (catalogue caches, checkpointer, autovacuum) leave nothing for queries (judgement)."""

POSTGRESQL_BACKEND_MB = 4
"""Private memory of a connection that does nothing (judgement, between a fresh 2 MB and 10 MB after use)."""


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
    :param max_connections: upper bound of client connections. At least 10.
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
    huge_pages                           try: uses them where the host reserved them and starts where not.
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
        raise SizingError(
            f"The disk kind is {disk_kind!r}, expected one of {', '.join(DISK_KINDS)}: set postgresql_disk_kind."
        )
    if max_connections < 10:
        raise SizingError(
            f"max_connections is {max_connections}, expected at least 10: set postgresql_max_connections to 10 or more."
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
