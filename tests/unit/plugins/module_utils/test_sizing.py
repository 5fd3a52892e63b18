# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizing: what must hold for every machine, and the numbers for a few known ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _sizing
from ansible_collections.berth.odoo.plugins.module_utils._sizing import Machine, SizingError, plan, postgresql_parameters

TIERS = ("edge", "app", "database", "cache")


def one_host(cpus: int, memory_mb: int, /, users: int = 10, overrides: dict[str, Any] | None = None, **instance: Any) -> _sizing.Plan:
    return plan(
        {"vm1": Machine(cpus, memory_mb, "ssd", 40_000)},
        {tier: ["vm1"] for tier in TIERS},
        {"vm1": {"main": {"users": users, **instance}}},
        {"vm1": overrides or {}},
    )


def mb(value: str | int) -> int:
    assert isinstance(value, str)
    return int(value.removesuffix("MB"))


# -- strategies

machines = st.builds(
    Machine,
    cpus=st.integers(1, 96),
    memory_mb=st.integers(512, 400_000),
    disk_kind=st.sampled_from(_sizing.DISK_KINDS),
    disk_mb=st.sampled_from([0, 5_000, 40_000, 2_000_000]),
)
instance = st.fixed_dictionaries(
    {},
    optional={
        "users": st.integers(1, 600),
        "service_class": st.sampled_from(["production", "staging", "development"]),
        "web_workers": st.integers(1, 40),
        "batch_workers": st.integers(0, 10),
        "queue_workers": st.integers(0, 10),
        "cron_workers": st.integers(1, 6),
    },
)
override = st.fixed_dictionaries(
    {},
    optional={
        "postgresql_max_connections": st.integers(_sizing.LEAST_CONNECTIONS, 600),
        "postgresql_memory_mb": st.integers(100, 8000),
        "pgbouncer_pool_size": st.integers(1, 60),
        "pgbouncer_session_pool_size": st.integers(1, 60),
        "redis_maxmemory_mb": st.integers(16, 512),
        "redis_memory_mb": st.integers(16, 1024),
        "odoo_web_memory_mb": st.integers(100, 4000),
        "traefik_memory_mb": st.integers(16, 600),
    },
)


@st.composite
def inventories(draw: st.DrawFn) -> tuple[Any, ...]:
    """One to five hosts with tiers, one to four instances, sometimes overrides."""
    names = [f"vm{number}" for number in range(1, draw(st.integers(1, 5)) + 1)]
    hosts = {name: draw(machines) for name in names}
    some = st.lists(st.sampled_from(names), min_size=1, unique=True)
    tiers = {tier: draw(some) for tier in TIERS}
    seen = draw(st.dictionaries(st.sampled_from(["main", "shop", "test", "old"]), instance, min_size=1, max_size=4))
    own = {name: draw(override) for name in names} if draw(st.booleans()) else {}
    return hosts, tiers, dict.fromkeys(names, seen), own


# -- properties of the plan


@given(inventories())
def test_containers_and_reserve_fit_into_memory(inventory: tuple[Any, ...]) -> None:
    hosts, tiers, instances, own = inventory
    result = plan(hosts, tiers, instances, own)
    refused = {host for problem in result.problems if problem.subject == "memory" for host in problem.hosts}
    for host, part in result.hosts.items():
        memory = part["memory"]
        assert memory["reserve_mb"] >= 512 or hosts[host].memory_mb < 1024
        if host not in refused:
            assert sum(memory["limits"].values()) + memory["reserve_mb"] <= memory["total_mb"] == hosts[host].memory_mb


@given(inventories())
def test_connections_of_all_processes_fit_into_pools_and_these_into_the_server(inventory: tuple[Any, ...]) -> None:
    result = plan(*inventory)
    if any("pool" in problem.subject or "connections" in problem.subject for problem in result.problems):
        return  # refused
    servers = 0
    for part in result.hosts.values():
        if "odoo" not in part:
            continue
        pooler = part["pgbouncer"]
        clients_transaction = clients_session = 0
        for odoo in part["odoo"].values():
            # Each web worker may sit in a transaction, and one of them must still be able to open a second one.
            jobs = odoo["queue_workers"]
            assert odoo["web_workers"] + odoo["batch_workers"] + (jobs + 1 if jobs else 0) + 1 <= pooler["pool_size"]
            # In session mode every client holds a server connection; all of them may be on one database.
            assert odoo["db_maxconn_gevent"] + odoo["cron_workers"] * 3 + bool(jobs) <= pooler["session_pool_size"]
            assert odoo["db_maxconn"] >= 4
            # A container's first process has connections, too.
            processes = odoo["web_workers"] + 1 + (odoo["batch_workers"] + 1 if odoo["batch_workers"] else 0) + (jobs + 2 if jobs else 0)
            clients_transaction += processes * odoo["db_maxconn"]
            clients_session += odoo["db_maxconn_gevent"] + (odoo["cron_workers"] + 1) * odoo["db_maxconn"] + bool(jobs)
            servers += pooler["pool_size"] + min(pooler["pool_size"], _sizing.NOTIFY_POOL) + 2 * pooler["session_pool_size"]
        assert max(clients_transaction, clients_session) <= pooler["max_client_connections"]
    for part in result.hosts.values():
        if "postgresql" in part:
            assert servers == part["postgresql"]["connections"]["pools"]
            assert servers <= part["postgresql"]["max_connections"] - part["postgresql"]["connections"]["reserved"]


@given(inventories())
def test_every_number_is_positive_and_limits_are_whole_granules(inventory: tuple[Any, ...]) -> None:
    result = plan(*inventory)
    for host, part in result.hosts.items():
        assert all(limit > 0 or service == "odoo-maintenance" for service, limit in part["memory"]["limits"].items())
        if not inventory[3].get(host):
            assert all(limit % _sizing.GRANULE_MB == 0 for limit in part["memory"]["limits"].values())
        for odoo in part.get("odoo", {}).values():
            assert odoo["web_workers"] >= 1
            assert odoo["cron_workers"] >= 1
            assert odoo["limit_memory_soft"] < odoo["limit_memory_hard"]


@given(st.integers(1, 64), st.integers(2500, 300_000), st.integers(1, 4000), st.integers(1, 400))
def test_more_memory_never_means_less_for_anybody(cpus: int, memory_mb: int, more: int, users: int) -> None:
    small, large = one_host(cpus, memory_mb, users), one_host(cpus, memory_mb + more, users)
    before, after = (dict(one.hosts["vm1"]["memory"]["limits"]) for one in (small, large))
    for limits in (before, after):
        # From some size on a part of PostgreSQL's is in huge pages, beside its container.
        limits["postgresql"] += limits.pop(_sizing.PAGES, 0)
    if not any(problem.subject == "memory" for problem in small.problems):
        assert not any(problem.subject == "memory" for problem in large.problems)
        assert all(after[service] >= limit for service, limit in before.items())
        assert large.hosts["vm1"]["odoo"]["main"]["limit_memory_soft"] >= small.hosts["vm1"]["odoo"]["main"]["limit_memory_soft"]


@given(st.integers(1, 64), st.integers(2500, 300_000), st.integers(1, 500), st.integers(1, 100))
def test_more_users_never_mean_fewer_workers_or_connections(cpus: int, memory_mb: int, users: int, more: int) -> None:
    few, many = one_host(cpus, memory_mb, users).hosts["vm1"], one_host(cpus, memory_mb, users + more).hosts["vm1"]
    for key in ("web_workers", "cron_workers", "db_maxconn_gevent"):
        assert many["odoo"]["main"][key] >= few["odoo"]["main"][key]
    for key in ("pool_size", "session_pool_size", "max_client_connections"):
        assert many["pgbouncer"][key] >= few["pgbouncer"][key]
    assert many["postgresql"]["max_connections"] >= few["postgresql"]["max_connections"]


@given(st.integers(0, 6), st.integers(14, 60), st.integers(14, 60))
def test_a_few_percent_between_kernels_change_nothing(power: int, missing: int, other: int) -> None:
    """MemTotal is 1.4 to 6 % below the nominal size; no nominal size of 2^n or 1.5 * 2^n may sit on an edge."""
    for nominal in (2048 << power, 3072 << power):
        first, second = (nominal - nominal * part // 1000 for part in (missing, other))
        assert _sizing.usable_memory(first) == _sizing.usable_memory(second)


@given(st.integers(1, 1_000_000), st.integers(0, 10_000))
def test_usable_memory_and_budget_grow_with_memory(memory_mb: int, more: int) -> None:
    assert 0 < _sizing.usable_memory(memory_mb) <= _sizing.usable_memory(memory_mb + more) <= memory_mb + more
    assert _sizing.usable_memory(memory_mb) * 8 >= memory_mb * 7
    assert _sizing.budget_of(memory_mb) <= _sizing.budget_of(memory_mb + more)


@given(inventories())
def test_all_database_hosts_get_the_same_parameters(inventory: tuple[Any, ...]) -> None:
    """Any member may become the primary, and Patroni keeps one configuration for the cluster."""
    result = plan(*inventory[:3])
    if any(problem.subject == "PostgreSQL" for problem in result.problems):
        return  # refused
    kept = [part["postgresql"]["parameters"] for part in result.hosts.values() if "postgresql" in part]
    assert all(parameters == kept[0] for parameters in kept)


# -- properties of the PostgreSQL parameters

postgresql = st.tuples(
    st.integers(256, 500_000),
    st.integers(1, 128),
    st.sampled_from(_sizing.DISK_KINDS),
    st.integers(10, 1000),
    st.integers(0, 400),
    st.sampled_from([0, 2_000, 40_000, 4_000_000]),
)


@given(postgresql)
def test_postgresql_fits_into_its_memory_when_all_work(size: tuple[int, int, str, int, int, int]) -> None:
    memory_mb, cpus, disk_kind, connections, workers, disk_mb = size
    try:
        parameters = postgresql_parameters(memory_mb, cpus, disk_kind, connections, workers, disk_mb=disk_mb)
    except SizingError:
        return
    buffers, work = mb(parameters["shared_buffers"]), mb(parameters["work_mem"])
    active = workers or connections * 3 // 5
    if work > 2:  # at the floor the number of connections is the problem, and the plan refuses that
        assert buffers + active * 3 * work <= memory_mb
    assert buffers <= memory_mb * 0.35
    assert mb(parameters["autovacuum_work_mem"]) * int(parameters["autovacuum_max_workers"]) <= max(40, memory_mb // 8)
    assert mb(parameters["min_wal_size"]) <= mb(parameters["max_wal_size"])
    if disk_mb:
        assert mb(parameters["max_wal_size"]) <= max(64, disk_mb // 10)
        assert mb(parameters["max_slot_wal_keep_size"]) <= max(128, disk_mb // 5)


@given(postgresql, st.integers(0, 5000))
def test_postgresql_sizes_grow_with_memory(size: tuple[int, int, str, int, int, int], more: int) -> None:
    memory_mb, cpus, disk_kind, connections, workers, disk_mb = size
    try:
        small = postgresql_parameters(memory_mb, cpus, disk_kind, connections, workers, disk_mb=disk_mb)
    except SizingError:
        return
    large = postgresql_parameters(memory_mb + more, cpus, disk_kind, connections, workers, disk_mb=disk_mb)
    # Not work_mem: rounding shared_buffers down by 16 MB may leave one megabyte more for it on the smaller machine.
    for name in ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "max_wal_size"):
        assert mb(large[name]) >= mb(small[name])
    assert mb(large["work_mem"]) >= mb(small["work_mem"]) - 1


def test_every_parameter_is_explained() -> None:
    documented = postgresql_parameters.__doc__ or ""
    for name in postgresql_parameters(1024, 2, "ssd", 60):
        short = re.sub(r"^tcp_keepalives(_interval|_count)$", r"\1", name)
        assert re.search(rf"^ +{re.escape(short)}|\b{re.escape(short)}\b", documented, re.MULTILINE), name


def test_no_parameter_that_harms_odoo() -> None:
    parameters = postgresql_parameters(16384, 4, "ssd", 100)
    assert not {"idle_in_transaction_session_timeout", "transaction_timeout", "statement_timeout", "lock_timeout", "fsync"} & set(
        parameters
    )


def test_postgresql_on_four_processors_and_16_gb() -> None:
    parameters = postgresql_parameters(16384, 4, "ssd", 100, 60)
    assert parameters["shared_buffers"] == "4096MB"
    assert parameters["work_mem"] == "34MB"
    assert parameters["maintenance_work_mem"] == "512MB"
    assert parameters["max_wal_size"] == "8192MB"
    assert parameters["max_parallel_workers_per_gather"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, 2, "ssd", 60), r"64 MB, expected at least 256 MB: set postgresql_memory_mb to 256"),
        ((1024, 0, "ssd", 60), r"set postgresql_cpus to 1"),
        ((1024, 2, "tape", 60), r"'tape', expected one of hdd, ssd, nvme"),
        ((1024, 2, "ssd", 24), r"set postgresql_max_connections to 25"),
        ((1024, 2, "ssd", 60, 61), r"61 connections would work at once"),
        ((256, 2, "ssd", 300), r"300 connections need 1200 MB .* at most 48"),
    ],
)
def test_impossible_numbers_are_refused_with_what_to_type(arguments: Any, message: str) -> None:
    with pytest.raises(SizingError, match=message):
        postgresql_parameters(*arguments)


# -- known machines


def test_a_small_lab_machine() -> None:
    result = one_host(2, 6144)
    part = result.hosts["vm1"]
    assert not result.problems
    assert part["odoo"]["main"]["web_workers"] == 2
    assert part["odoo"]["main"]["cron_workers"] == 1
    assert part["postgresql"]["max_connections"] == 60
    assert part["memory"]["reserve_mb"] == 512


def test_a_batch_tier_is_planned_only_where_it_is_asked_for() -> None:
    without, alongside = (one_host(4, 16384, batch_workers=number).hosts["vm1"] for number in (0, 2))
    assert "odoo-main-batch" not in without["memory"]["limits"]
    assert without["odoo"]["main"]["batch_memory_mb"] == 0
    assert alongside["memory"]["limits"]["odoo-main-batch"] == alongside["odoo"]["main"]["batch_memory_mb"] >= 700
    assert alongside["pgbouncer"]["pool_size"] == without["pgbouncer"]["pool_size"] + 2
    refused = one_host(4, 16384, batch_workers=-1).problems
    assert [problem.subject for problem in refused] == ["odoo_instances.main.batch_workers"]


def test_a_limit_of_processors_is_one_of_workers_and_not_above_the_hosts() -> None:
    free, limited = (one_host(4, 16384, users=100, **more).hosts["vm1"]["odoo"]["main"]["web_workers"] for more in ({}, {"cpus": 1.5}))
    assert (free, limited) == (9, 5)
    assert one_host(4, 16384, users=100, cpus="0").hosts["vm1"]["odoo"]["main"]["web_workers"] == free
    for nonsense in (float("inf"), float("nan"), "many", -1):
        assert one_host(4, 16384, cpus=nonsense).hosts["vm1"]["odoo"]["main"]["web_workers"] >= 2, (
            "validation reports it, with all else that is wrong"
        )
    [refused] = one_host(4, 16384, cpus=6).problems
    assert (refused.subject, refused.found, refused.expected) == ("odoo_instances.main.cpus", "6", "at most 4, which this host has")


def test_a_queue_has_a_worker_that_no_job_takes_and_its_runner_a_connection() -> None:
    without, alongside = (one_host(4, 16384, queue_workers=number).hosts["vm1"] for number in (0, 2))
    assert "odoo-main-queue" not in without["memory"]["limits"]
    assert alongside["memory"]["limits"]["odoo-main-queue"] == alongside["odoo"]["main"]["queue_memory_mb"] >= 900
    assert alongside["pgbouncer"]["pool_size"] == without["pgbouncer"]["pool_size"] + 3
    assert alongside["pgbouncer"]["session_pool_size"] == without["pgbouncer"]["session_pool_size"] + 1
    refused = one_host(4, 16384, queue_workers=-1).problems
    assert [problem.subject for problem in refused] == ["odoo_instances.main.queue_workers"]


@given(st.integers(2, 6), st.integers(16384, 65536), st.integers(1, 8))
def test_an_instance_for_which_there_was_room_changes_nothing_for_the_others(room: int, memory_mb: int, cpus: int) -> None:
    """Nor does one that goes."""

    def planned(count: int) -> dict[str, Any]:
        names = [f"t{number}" for number in range(count)]
        overrides = {"preflight_room_for_instances": room}
        result = plan(
            {"vm1": Machine(cpus, memory_mb)}, {tier: ["vm1"] for tier in TIERS}, {"vm1": {name: {} for name in names}}, {"vm1": overrides}
        )
        return result.hosts["vm1"]

    fewer, more = planned(room - 1), planned(room)
    kept = fewer["memory"]["limits"].pop(_sizing.ROOM)
    assert kept == sum(more["memory"]["limits"].pop(f"odoo-t{room - 1}-{tier}") for tier in ("web", "websocket", "cron"))
    assert more["odoo"].pop(f"t{room - 1}")
    assert more == fewer


def test_memory_that_room_takes_is_given_back_by_the_variable_that_asked_for_it() -> None:
    [refused] = plan(
        {"vm1": Machine(2, 6144)}, {tier: ["vm1"] for tier in TIERS}, {"vm1": {"main": {}}}, {"vm1": {"preflight_room_for_instances": 5}}
    ).problems
    assert refused.subject == "memory"
    assert "preflight_room_for_instances" in refused.remedy and _sizing.ROOM not in refused.remedy


def test_without_room_an_instance_takes_from_the_others() -> None:
    one, two = (
        plan({"vm1": Machine(4, 16384)}, {tier: ["vm1"] for tier in TIERS}, {"vm1": {name: {} for name in names}}, {}).hosts["vm1"]
        for names in (["a"], ["a", "b"])
    )
    assert two["postgresql"]["max_connections"] > one["postgresql"]["max_connections"]


def test_sixty_users_on_four_processors_as_in_the_guide() -> None:
    result = one_host(4, 16000, 60)
    assert not result.problems
    assert result.hosts["vm1"]["odoo"]["main"]["web_workers"] == 9
    assert result.notes == [("vm1", "main gets 9 web workers for 60 users instead of 10: more than 9 only queue on 4 CPUs")]


def test_three_gigabytes_are_refused_with_a_size_that_would_do() -> None:
    result = one_host(2, 2900)
    (problem,) = [problem for problem in result.problems if problem.subject == "memory"]
    assert problem.hosts == ("vm1",)
    enough = int(re.search(r"give vm1 (\d+) MB", problem.remedy).group(1))  # type: ignore[union-attr]
    assert not one_host(2, enough).problems
    assert one_host(2, enough - 257).problems


def test_too_many_users_are_refused_until_accepted() -> None:
    result = one_host(2, 16000, 400)
    (problem,) = result.problems
    assert problem.subject == "odoo_instances.main.users"
    assert "400 users on 2 CPUs" in problem.found
    assert not one_host(2, 16000, 400, web_workers=5).problems


def test_too_few_connections_are_refused() -> None:
    (problem,) = one_host(2, 6144, overrides={"postgresql_max_connections": 30}).problems
    assert (problem.subject, problem.found) == ("postgresql_max_connections", "30")
    assert problem.remedy.startswith("postgresql_max_connections: 60")


def test_database_hosts_alone_get_as_many_connections_as_patroni_accepts() -> None:
    """With less Patroni takes 100, and the run would find something else than it asked for."""
    tiers, machines = {"database": ["db1"]}, {"db1": Machine(2, 2048)}
    result = plan(machines, tiers, {})
    assert not result.problems
    assert result.hosts["db1"]["postgresql"]["max_connections"] == _sizing.LEAST_CONNECTIONS
    (problem,) = plan(machines, tiers, {}, {"db1": {"postgresql_max_connections": 24}}).problems
    assert "max_connections is 24, expected at least 25" in problem.found


def test_too_many_instances_for_one_cluster_are_refused() -> None:
    many = {f"i{number}": {"users": 10} for number in range(40)}
    result = plan({"vm1": Machine(32, 200_000)}, {tier: ["vm1"] for tier in TIERS}, {"vm1": many})
    assert any(problem.subject == "connections" and "1240" in problem.found for problem in result.problems)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("pgbouncer_pool_size", 1, "3 or more"),
        ("pgbouncer_session_pool_size", 2, "10 or more"),
        ("pgbouncer_max_client_connections", 5, "24 or more"),
        ("odoo_web_workers", 0, "1 or more"),
        ("odoo_web_memory_mb", 200, "848 or more"),
        ("postgresql_memory_mb", 200, "432 or more"),
        ("redis_memory_mb", 16, "128 or more"),
    ],
)
def test_an_override_that_cannot_work_is_refused(variable: str, value: int, expected: str) -> None:
    problems = one_host(2, 6144, overrides={variable: value}).problems
    assert (variable, str(value), expected) in [(problem.subject, problem.found, problem.expected) for problem in problems]


def test_overrides_win_and_an_instance_wins_over_a_flat_variable() -> None:
    overrides = {"odoo_web_workers": 3, "odoo_cron_workers": "2", "redis_maxmemory_mb": 100, "postgresql_memory_mb": 1024}
    part = one_host(2, 8000, overrides=overrides, web_workers=4).hosts["vm1"]
    assert part["odoo"]["main"]["web_workers"] == 4
    assert part["odoo"]["main"]["cron_workers"] == 2
    assert part["redis"] == {"memory_mb": 272, "maxmemory_mb": 100}
    assert part["memory"]["limits"]["postgresql"] == 1024


def test_own_postgresql_parameters_are_merged_and_checked() -> None:
    fine = one_host(2, 6144, overrides={"postgresql_parameters": {"work_mem": "12MB", "shared_buffers": 16384}})
    assert not fine.problems
    assert fine.hosts["vm1"]["postgresql"]["parameters"]["work_mem"] == "12MB"
    oversold = one_host(2, 6144, overrides={"postgresql_parameters": {"shared_buffers": "4GB"}})
    assert [problem.subject for problem in oversold.problems] == ["postgresql_parameters.shared_buffers"]
    hidden = one_host(2, 6144, overrides={"postgresql_parameters": {"max_connections": 500}})
    assert [problem.subject for problem in hidden.problems] == ["postgresql_parameters.max_connections"]


def test_members_with_different_max_connections_are_refused() -> None:
    hosts = {"db1": Machine(4, 8000), "db2": Machine(4, 8000), "db3": Machine(4, 8000)}
    tiers = {"database": list(hosts), "app": ["db1"], "edge": ["db1"], "cache": ["db1"]}
    instances: dict[str, dict[str, dict[str, Any]]] = {host: {"main": {}} for host in hosts}
    result = plan(hosts, tiers, instances, {"db2": {"postgresql_max_connections": 200}})
    assert [problem.hosts for problem in result.problems] == [("db1", "db2", "db3")]


def test_a_dedicated_database_host_gives_postgresql_nearly_everything() -> None:
    hosts = {"app1": Machine(4, 8000), "db1": Machine(4, 16384, "nvme", 100_000)}
    tiers = {"database": ["db1"], "app": ["app1"], "edge": ["app1"], "cache": ["app1"]}
    part = plan(hosts, tiers, {host: {"main": {"users": 40}} for host in hosts}).hosts["db1"]
    kept = 2 * part["postgresql"]["huge_pages"]
    assert part["postgresql"]["memory_mb"] + kept == 16384 - part["memory"]["reserve_mb"] - 256
    # A control group does not count them, and so the container may have that much less.
    assert (part["memory"]["limits"]["postgresql"], part["memory"]["limits"][_sizing.PAGES]) == (part["postgresql"]["memory_mb"], kept)
    assert part["postgresql"]["parameters"]["shared_buffers"] == "3792MB"
    assert part["postgresql"]["cpus"] == 4
    assert part["postgresql"]["parameters"]["effective_io_concurrency"] == 256


def test_an_instance_runs_only_where_it_is_seen() -> None:
    hosts = {"app1": Machine(4, 8000), "app2": Machine(4, 8000), "db1": Machine(4, 8000)}
    tiers = {"database": ["db1"], "app": ["app1", "app2"], "edge": ["app1"], "cache": ["app1"]}
    both = {"main": {"users": 40}, "big": {"users": 40}}
    result = plan(hosts, tiers, {"app1": {"main": {"users": 40}}, "app2": both, "db1": both})
    assert set(result.hosts["app1"]["odoo"]) == {"main"}
    assert result.hosts["app1"]["odoo"]["main"]["web_workers"] == 4
    assert result.hosts["app2"]["odoo"]["big"]["web_workers"] == 7


def test_the_table_is_aligned_and_adds_up() -> None:
    machine = Machine(2, 6144, "ssd", 40_000)
    lines = _sizing.format_plan(one_host(2, 6144), {"vm1": machine})
    column = lines[0].index("memory") + len("memory")
    assert all(line[column - 2 : column] == "MB" for line in lines[1:])
    assert "\033" not in "".join(lines)
    numbers = [int(line[:column].split()[-2]) for line in lines[1:]]
    assert sum(numbers[1:]) == numbers[0]


MEASURED = """
  64 25 38   64 100 39   64 200 42   64 400 46   64 1000 62
 256 25 140  256 100 141  256 200 144  256 400 148  256 1000 163
 512 25 275  512 100 277  512 200 280  512 400 284  512 1000 299
1024 25 539  1024 100 541  1024 200 543  1024 400 548  1024 1000 563
2048 25 1067  2048 100 1069  2048 200 1071  2048 400 1076  2048 1000 1091
4096 25 2123  4096 100 2125  4096 200 2127  4096 400 2132  4096 1000 2147
8192 25 4218  8192 100 4220  8192 200 4222  8192 400 4227  8192 1000 4242
16384 25 8408  16384 100 8410  16384 200 8412  16384 400 8417  16384 1000 8432
"""
"""shared_buffers in MB, max_connections, and what ``postgres -C shared_memory_size_in_huge_pages`` of 17.12 said, with the other parameters that the role
sets for all (max_worker_processes 16, max_wal_senders 10, max_locks_per_transaction 64, pg_stat_statements)."""


def test_as_many_huge_pages_as_postgresql_asks_for() -> None:
    numbers = [int(word) for word in MEASURED.split()]
    for buffers, connections, pages in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        parameters = {"shared_buffers": f"{buffers}MB", "max_connections": connections, "huge_pages": "try"}
        wanted = _sizing.huge_pages_mb(4 * buffers + 8 * connections, parameters) // _sizing.HUGE_PAGE_MB
        assert pages <= wanted <= pages + 45 if buffers >= _sizing.HUGE_PAGES_FROM_MB else wanted == 0, (buffers, connections)


def database(memory_mb: int = 16384, overrides: dict[str, Any] | None = None, **machine: Any) -> _sizing.Plan:
    hosts = {"app1": Machine(4, 8000), "db1": Machine(4, memory_mb, "nvme", 100_000, **machine)}
    tiers = {"database": ["db1"], "app": ["app1"], "edge": ["app1"], "cache": ["app1"]}
    return plan(hosts, tiers, {host: {"main": {"users": 40}} for host in hosts}, {"db1": overrides or {}})


def test_where_huge_pages_are_not_worth_it_or_not_possible_none_are_kept() -> None:
    assert database(4096).hosts["db1"]["postgresql"]["huge_pages"] == 0
    contained = database(own_kernel=False)
    assert contained.hosts["db1"]["postgresql"]["huge_pages"] == 0
    assert [host for host, note in contained.notes if "huge pages" in note] == ["db1"]
    assert database(overrides={"postgresql_parameters": {"huge_pages": "off"}}).hosts["db1"]["postgresql"]["huge_pages"] == 0
    # When the kernel has none, the container's limit must hold the buffers.
    assert database(overrides={"postgresql_parameters": {"shared_buffers": "8GB"}}).hosts["db1"]["postgresql"]["huge_pages"] == 0


@pytest.mark.parametrize(("given", "kept"), [(None, 0), (0, 0), (2200, None), (1900, 1900)])
def test_who_sets_huge_pages_himself_is_right(given: int | None, kept: int | None) -> None:
    own = database().hosts["db1"]
    result = database(overrides={"host_sysctl": {"vm.nr_hugepages": given}})
    assert not result.problems
    part = result.hosts["db1"]["postgresql"]
    assert part["huge_pages"] == (own["postgresql"]["huge_pages"] if kept is None else kept)
    assert part["memory_mb"] + 2 * part["huge_pages"] == own["postgresql"]["memory_mb"] + 2 * own["postgresql"]["huge_pages"]


def test_huge_pages_that_serve_nobody_are_refused() -> None:
    (problem,) = database(overrides={"host_sysctl": {"vm.nr_hugepages": 500}}).problems
    assert problem.subject == "host_sysctl: vm.nr_hugepages"
    assert "500 pages of 2 MB" in problem.found and "vm.nr_hugepages: 19" in problem.remedy


@pytest.mark.parametrize(
    ("members", "repositories", "counted"),
    [(3, [{"name": "near"}], 128), (3, [], None), (1, [{"name": "near"}], None)],
)
def test_the_reader_of_a_backup_has_its_part_where_there_is_one(members: int, repositories: list[Any], counted: int | None) -> None:
    hosts = [f"db{number}" for number in range(1, members + 1)]
    tiers = {"edge": [], "app": [], "cache": [], "database": hosts}
    given = {name: {"backup_repositories": repositories} for name in hosts}
    small = {name: Machine(3, 1536, "ssd", 40_000) for name in hosts}
    result = plan(small, tiers, {name: {} for name in hosts}, given)
    assert result.problems == []
    limits = result.hosts["db1"]["memory"]["limits"]
    assert limits.get("pgbackrest") == counted
    without = plan(small, tiers, {name: {} for name in hosts}, {}).hosts["db1"]["memory"]["limits"]
    assert sum(limits.values()) == sum(without.values())
    assert limits["postgresql"] == without["postgresql"] - (counted or 0)
    # A process more for each two processors.
    assert result.hosts["db1"]["postgresql"]["backup_memory_mb"] == 128
    table = "\n".join(_sizing.format_plan(result, small))
    assert ("reads what PostgreSQL has here for a backup" in table) is bool(counted)
