# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL was told about Odoo's tables and its role, in a real Odoo's database, and how a run puts it right."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._odoo_tables import TABLES
from ansible_collections.berth.odoo.tests.support.lab import wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

# Not among the modules of the inventory, and no other installs itself with it.
MODULE, TABLE = "lunch", "lunch_order"
OWN = {TABLE: {"fillfactor": 80, "statistics(state)": 300, "index(date)": True}}
INDEX = "bus_bus__create_date_index"


def sql(host: Host, script: str, **values: str) -> str:
    """Run a script as the superuser in the instance's database; ``:'name'`` in it is a value of that name."""
    given = " ".join(f"-v {name}={shlex.quote(value)}" for name, value in values.items())
    psql = f"psql -h /run/postgresql -U postgres -XAtq -v ON_ERROR_STOP=1 {given} main"
    return host.run(f"docker exec -i {host.container('postgresql/postgresql').id} {psql}", stdin=script).strip()


def options(host: Host) -> dict[str, dict[str, str]]:
    """Storage parameters of all tables."""
    answer = sql(
        host,
        "SELECT json_object_agg(c.relname, coalesce(c.reloptions, '{}') || ARRAY(SELECT 'toast.' || o FROM unnest(t.reloptions) o))"
        " FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace",
    )
    return {table: dict(item.split("=") for item in items) for table, items in json.loads(answer).items()}


def index_state(host: Host, name: str = INDEX) -> str:
    """``t`` when the index can be used, ``f`` when a build of it was interrupted, empty when there is none."""
    return sql(host, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:'name')", name=name)


@contextlib.contextmanager
def session(host: Host, name: str, statement: str) -> Iterator[None]:
    """Somebody's transaction, open until the end of the block."""
    waiting = f"BEGIN; {statement}; SELECT pg_sleep(600)"
    server = host.container("postgresql/postgresql").id
    host.run(f"docker exec -d -e PGAPPNAME='{name}' {server} psql -h /run/postgresql -U postgres -X -c \"{waiting}\" main")
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :'name' AND wait_event = 'PgSleep'"
    try:
        wait_for(f"begin of {name}", lambda: sql(host, asleep, name=name) == "1", seconds=20)
        yield
    finally:
        sql(host, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :'name'", name=name)


def converge(play: Player, *arguments: str, **variables: Any) -> Run:
    """Run the application tier alone."""
    return play("playbooks/site.yml", "--tags", "app", *arguments, variables=variables).expect_success()


def test_tables_have_what_the_collection_wants(host: Host) -> None:
    found = options(host)
    present = {table: entries for table, entries in TABLES.items() if table in found}
    assert set(TABLES) - set(present) == {"queue_job"}, "only OCA's queue is not in the image"
    for table, entries in present.items():
        plain = {key: value for key, value in entries.items() if "(" not in key}
        assert {key: float(value) for key, value in found[table].items()} == plain, table
        for key in entries:
            if kind := re.fullmatch(r"statistics\((\w+)\)", key):
                target = "SELECT attstattarget FROM pg_attribute WHERE attrelid = :'table'::regclass AND attname = :'column'"
                assert sql(host, target, table=table, column=kind[1]) == str(entries[key]), f"{table}.{key}"
    together = sql(host, "SELECT stxrelid::regclass FROM pg_statistic_ext WHERE stxnamespace = 'public'::regnamespace ORDER BY 1").split()
    assert sorted(together) == sorted(table for table, entries in present.items() for key in entries if "," in key)
    assert index_state(host) == "t"


def test_odoo_has_no_index_twice(host: Host) -> None:
    """Also not one that a module of ours thinks it misses."""
    twice = sql(
        host,
        "SELECT indrelid::regclass, array_agg(indexrelid::regclass) FROM pg_index"
        " WHERE indrelid IN ('bus_bus'::regclass, 'ir_attachment'::regclass)"
        " GROUP BY indrelid, indkey::text, coalesce(indpred::text, ''), coalesce(indexprs::text, '') HAVING count(*) > 1",
    )
    assert twice == ""
    assert index_state(host, "ir_attachment__url_index") == "t", "Odoo 19 brings this one itself"


def test_what_somebody_undid_is_predicted_and_repaired_and_the_rest_stays(host: Host, play: Player) -> None:
    sql(
        host,
        "ALTER TABLE bus_bus RESET (autovacuum_vacuum_threshold); ALTER TABLE bus_bus SET (parallel_workers = 1);"
        "ALTER TABLE stock_move SET (fillfactor = 99); ALTER TABLE stock_move ALTER state SET STATISTICS -1;"
        f"DROP STATISTICS berth_stock_move_company_id_state; DROP INDEX {INDEX};",
    )
    undone = options(host)
    predicted = converge(play, "--check", "--diff")
    assert predicted.changed == ["Converge the database"]
    for line in ("- fillfactor: '99'", "+ fillfactor: '85'", "+ statistics(state): '500'", "+ index(create_date): 'true'"):
        assert line in predicted.text, f"{line} is not in:\n{predicted.tail}"
    assert options(host) == undone, "--check changed a table"
    done = converge(play, "-v")
    assert done.changed == ["Converge the database"]
    assert "set on table bus_bus: autovacuum_vacuum_threshold = 5000" in done.text
    assert converge(play).changed == []
    by_hand = options(host)["bus_bus"].get("parallel_workers")
    sql(host, "ALTER TABLE bus_bus RESET (parallel_workers)")
    assert by_hand == "1", "what nobody manages was taken away"
    test_tables_have_what_the_collection_wants(host)


@pytest.mark.nightly
def test_a_table_in_use_is_named_with_who_uses_it_and_done_by_the_next_run(host: Host, play: Player, visitor: Odoo) -> None:
    sql(host, f"ALTER TABLE stock_move RESET (fillfactor); ALTER TABLE stock_quant RESET (fillfactor); DROP INDEX {INDEX}")
    with (
        session(host, "a dump", "LOCK TABLE stock_move IN SHARE UPDATE EXCLUSIVE MODE"),
        session(host, "a long job", "DELETE FROM bus_bus WHERE id = -1"),
    ):
        run = converge(play)
        for words in ("stock_move: fillfactor = 85, because it is in use by a dump", "because it is in use by a long job"):
            assert words in run.text, run.tail
        assert run.changed == ["Converge the database"], "stock_quant was free"
        assert options(host)["stock_quant"]["fillfactor"] == "85"
        assert "fillfactor" not in options(host)["stock_move"]
        assert visitor.request("/web/login").status == 200
    # Whatever the build of the index left behind.
    run = converge(play)
    assert run.changed == ["Converge the database"]
    assert "because it is in use" not in run.text
    test_tables_have_what_the_collection_wants(host)


@pytest.mark.nightly
def test_a_module_that_comes_later_is_covered_by_the_same_run(host: Host, play: Player, admin: Odoo) -> None:
    early = converge(play, odoo_table_parameters=OWN)
    assert early.changed == []
    assert f"table_parameters.{TABLE}: the database has no such table" in early.text
    instance = host.variables["odoo_instances"]["main"]
    instances = {"main": {**instance, "modules": [*instance["modules"], MODULE]}}
    predicted = converge(play, "--check", odoo_table_parameters=OWN, odoo_instances=instances)
    assert predicted.changed == ["Converge the database"]
    run = converge(play, "-v", odoo_table_parameters=OWN, odoo_instances=instances)
    assert f"install {MODULE}" in run.text
    assert f"set on table {TABLE}: fillfactor = 80, statistics(state) = 300" in run.text
    assert options(host)[TABLE] == {"fillfactor": "80"}
    assert index_state(host, f"{TABLE}__date_index") == "t"
    assert admin.call("ir.module.module", "search_count", [["name", "=", MODULE], ["state", "=", "installed"]]) == 1
    assert converge(play, odoo_table_parameters=OWN, odoo_instances=instances).changed == []


@pytest.mark.nightly
def test_a_module_is_uninstalled_only_when_that_takes_no_other_along(play: Player, admin: Odoo) -> None:
    """The way back, and the other half of odoo_module."""
    uninstall = "tests/e2e/uninstall.yml"
    play(uninstall, variables={"modules": ["stock"]}).expect_refusal("uninstalling stock would also uninstall")
    assert play(uninstall, "--check", variables={"modules": [MODULE]}).expect_success().changed == ["Uninstall the modules"]
    assert play(uninstall, variables={"modules": [MODULE]}).expect_success().changed == ["Uninstall the modules"]
    assert play(uninstall, variables={"modules": [MODULE]}).expect_success().changed == []
    assert admin.call("ir.module.module", "search_count", [["name", "=", MODULE], ["state", "=", "uninstalled"]]) == 1


def test_a_mistyped_parameter_is_refused_before_anything_is_touched(host: Host, play: Player) -> None:
    before = host.state()
    run = play("playbooks/site.yml", variables={"odoo_table_parameters": {"stock_move": {"fill_factor": 80}}})
    run.expect_refusal("odoo_table_parameters.stock_move.fill_factor", "did you mean fillfactor?")
    assert host.state() == before


@pytest.mark.parametrize("name", ["statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"])
def test_a_timeout_for_everybody_is_none_for_odoos_role(host: Host, name: str) -> None:
    image = host.container("postgresql/postgresql").facts["Image"]
    command = (
        f"docker run --rm -i --network berth-data --entrypoint sh {image} -c "
        f"'IFS= read -r PGPASSWORD; export PGPASSWORD; psql -h postgresql -d main -U main -tAc \"show {name}\"'"
    )
    sql(host, f"ALTER DATABASE main SET {name} = '5min'")
    try:
        assert sql(host, f"SHOW {name}") == "5min"
        assert host.run(command, stdin=host.variables["odoo_instance_secrets"]["main"]["db_password"] + "\n").strip() == "0"
    finally:
        sql(host, f"ALTER DATABASE main RESET {name}")


def test_public_may_nothing(host: Host, play: Player) -> None:
    rights = (
        "SELECT coalesce(string_agg(d.datname || ' ' || a.privilege_type, ','), '') FROM pg_database d,"
        " aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0 AND d.datname <> 'template0'"
    )
    create = (
        "SELECT count(*) FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'"
    )
    assert sql(host, rights) == ""
    assert sql(host, create) == "0"
    # As in a database that comes from PostgreSQL 14.
    sql(host, "ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC")
    run = play("playbooks/site.yml", "--tags", "database").expect_success()
    assert run.changed == ["objects | Converge roles and databases"]
    assert sql(host, create) == "0"
    assert sql(host, "SELECT has_schema_privilege('main', 'public', 'CREATE')") == "t"
