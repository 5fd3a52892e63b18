# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role of the database tries what it must not be able to do, over the network, as whoever has its password or certificate would."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.tests.support.drill import POSTGRESQL, leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

# What nobody who logs in may do, and what PostgreSQL says to it.
FORBIDDEN = {
    "SELECT rolpassword FROM pg_authid": "permission denied for table pg_authid",
    "ALTER ROLE CURRENT_USER SUPERUSER": "permission denied to alter role",
    "ALTER ROLE CURRENT_USER REPLICATION": "permission denied to alter role",
    "SET ROLE postgres": "permission denied to set role",
    "SET ROLE pg_write_all_data": "permission denied to set role",
    "CREATE ROLE another": "permission denied to create role",
    "CREATE DATABASE another": "permission denied to create database",
    "CREATE EXTENSION dblink": "permission denied",
    "COPY (SELECT 1) TO PROGRAM 'true'": "permission denied to COPY",
    "SELECT pg_read_file('/etc/passwd')": "permission denied for function pg_read_file",
    "SELECT pg_switch_wal()": "permission denied for function pg_switch_wal",
}
IN_POSTGRES = {
    "CREATE TABLE public.x ()": "permission denied for schema public",
    "CREATE TEMP TABLE x ()": "permission denied to create temporary tables",
    "CREATE SCHEMA x": "permission denied for database",
}
READ_ONLY_ANALYST = {
    "UPDATE res_partner SET name = name": "read-only transaction",
}
ANALYST = {
    "UPDATE res_partner SET name = name": "permission denied for table res_partner",
    "DELETE FROM res_partner": "permission denied for table res_partner",
    "TRUNCATE res_partner": "permission denied for table res_partner",
    "SELECT nextval('res_partner_id_seq')": "permission denied for sequence",
    "CREATE TABLE public.x ()": "permission denied for schema public",
    "CREATE TEMP TABLE x ()": "permission denied to create temporary tables",
    "SELECT value FROM ir_config_parameter": "permission denied for table ir_config_parameter",
    "SELECT key FROM res_users_apikeys": "permission denied for table res_users_apikeys",
    "SELECT password FROM res_users": "permission denied for table res_users",
    "SELECT * FROM res_users": "permission denied for table res_users",
    "SET ROLE main": "permission denied to set role",
}
MONITORING = {
    "SELECT name FROM res_partner": "permission denied for table res_partner",
    "CREATE TABLE public.x ()": "permission denied for schema public",
    "CREATE TEMP TABLE x ()": "permission denied to create temporary tables",
}


@pytest.fixture(scope="module")
def primary(lab: Lab) -> Host:
    return lab.hosts[leader(lab)]


@pytest.fixture(scope="module")
def superuser(lab: Lab) -> Callable[[str, str], str]:
    """Ask as the superuser, which only root on the host can."""

    def ask(script: str, database: str = "main") -> str:
        psql = f"docker exec -i $({POSTGRESQL}) psql -h /run/postgresql -U postgres -d {database} -XAtq -v ON_ERROR_STOP=1"
        # Asked anew, because it may lead elsewhere by now.
        return lab.hosts[leader(lab)].run(psql, stdin=script).strip()

    return ask


@pytest.fixture(scope="module")
def other_instance(superuser: Callable[[str, str], str]) -> Iterator[str]:
    """A database of somebody else, with the rights that the module gives, as a second instance has."""
    superuser("CREATE ROLE other_instance LOGIN", "postgres")
    superuser("CREATE DATABASE other_instance OWNER other_instance TEMPLATE template_odoo", "postgres")
    superuser("REVOKE ALL ON DATABASE other_instance FROM PUBLIC", "postgres")
    yield "other_instance"
    superuser("DROP DATABASE other_instance", "postgres")
    superuser("DROP ROLE other_instance", "postgres")


@pytest.fixture(scope="module")
def ask(host: Host) -> Callable[..., str]:
    """Log in from the application host through HAProxy and run statements, each by itself; what was answered, errors included."""
    image = host.container("pgbouncer/pgbouncer").facts["Image"]
    secrets = host.variables["odoo_instance_secrets"]["main"]

    def run(role: str, *statements: str, database: str = "main", options: str = "") -> str:
        password = secrets["analyst_password" if role.endswith("_analyst") else "db_password"]
        # After a rotation somebody else logs in, and acts as this one.
        user = secrets.get("db_user", role) if role == "main" else role
        parts = " ".join(f"-c {shlex.quote(statement)}" for statement in statements)
        inside = f'IFS= read -r PGPASSWORD; export PGPASSWORD; psql -XAtq "host=postgresql-primary user={user} dbname={database} {options}" {parts} 2>&1'
        return host.run(
            f"docker run --rm -i --network berth-data --entrypoint sh {image} -c {shlex.quote(inside)} || true", stdin=password + "\n"
        )

    return run


def refused(answer: str, attempts: dict[str, str]) -> None:
    """Every attempt was answered with its own error, and nothing else was answered."""
    lines = [line for line in answer.splitlines() if line.startswith(("ERROR", "FATAL", "psql:"))]
    assert len(lines) == len(attempts), f"expected {len(attempts)} errors:\n{answer}"
    for (statement, words), line in zip(attempts.items(), lines, strict=True):
        assert words in line, f"{statement}: {line}"


def test_the_application_s_role_owns_its_database_and_nothing_else(ask: Callable[..., str], other_instance: str) -> None:
    refused(ask("main", *FORBIDDEN), FORBIDDEN)
    refused(ask("main", *IN_POSTGRES, database="postgres"), IN_POSTGRES)
    assert ask("main", "SELECT current_user, 1").strip() == "main|1"


def test_an_analyst_reads_one_database_without_its_secrets(ask: Callable[..., str]) -> None:
    role = "main_analyst"
    assert int(ask(role, "SELECT count(*) FROM res_partner")) > 0
    assert "admin" in ask(role, "SELECT login FROM res_users").split()
    refused(ask(role, *READ_ONLY_ANALYST), READ_ONLY_ANALYST)
    off = "SET default_transaction_read_only = off"
    refused(ask(role, off, *ANALYST, *FORBIDDEN), ANALYST | FORBIDDEN)
    shown = ask(role, "SHOW statement_timeout", "SHOW work_mem", "SHOW default_transaction_read_only").split()
    assert shown == ["1min", "48MB", "on"]


def test_an_analyst_reads_what_a_module_adds(ask: Callable[..., str], superuser: Callable[..., str]) -> None:
    superuser("SET ROLE main; CREATE TABLE x_berth_access (name text); INSERT INTO x_berth_access VALUES ('new')")
    try:
        assert ask("main_analyst", "SELECT name FROM x_berth_access").strip() == "new"
    finally:
        superuser("DROP TABLE x_berth_access")


@pytest.mark.parametrize("role", ["main", "main_analyst"])
def test_nobody_gets_into_another_database_or_replicates(ask: Callable[..., str], other_instance: str, role: str) -> None:
    databases = [other_instance, "template1", "template_odoo", *(["postgres"] if role == "main_analyst" else [])]
    for database in databases:
        assert "FATAL:  no pg_hba.conf entry" in ask(role, "SELECT 1", database=database), database
    assert "FATAL:  no pg_hba.conf entry" in ask(role, "IDENTIFY_SYSTEM", options="replication=true")


def test_rights_alone_keep_everybody_out_too(superuser: Callable[..., str], other_instance: str) -> None:
    """Where somebody opens pg_hba.conf by hand."""
    roles = "('main', 'main_analyst', 'berth_monitoring')"
    question = (
        "SELECT rolname, datname, kind FROM pg_roles, pg_database, (VALUES ('CONNECT'), ('TEMP'), ('CREATE')) k(kind) "  # noqa: S608 - names of this file
        f"WHERE rolname IN {roles} AND has_database_privilege(rolname, datname, kind) AND datname <> 'template0' ORDER BY 1, 2, 3"
    )
    assert superuser(question).split() == [
        "berth_monitoring|main|CONNECT",
        "berth_monitoring|postgres|CONNECT",
        "main|main|CONNECT",
        "main|main|CREATE",
        "main|main|TEMP",
        "main|postgres|CONNECT",
        "main_analyst|main|CONNECT",
    ]
    superusers = f"SELECT count(*) FROM pg_roles WHERE rolname IN {roles} AND (rolsuper OR rolreplication OR rolbypassrls OR rolcreaterole OR rolcreatedb)"  # noqa: S608
    assert superuser(superusers) == "0"


TROJAN = """
SET ROLE main;
CREATE FUNCTION public.berth_rise(text, name) RETURNS text LANGUAGE plpgsql AS 'BEGIN ALTER ROLE main SUPERUSER; RETURN NULL; END';
CREATE AGGREGATE public.json_agg(name) (SFUNC = public.berth_rise, STYPE = text);
"""


def test_whoever_owns_a_database_does_not_get_further_by_the_next_run(play: Player, superuser: Callable[..., str]) -> None:
    """A function there that fits better than PostgreSQL's own, which an administrator of Odoo can make."""
    superuser(TROJAN)
    try:
        assert play("playbooks/site.yml", "--tags", "database").expect_success().changed == []
        assert superuser("SELECT rolsuper FROM pg_roles WHERE rolname = 'main'") == "f"
    finally:
        superuser("DROP AGGREGATE public.json_agg(name); DROP FUNCTION public.berth_rise(text, name); ALTER ROLE main NOSUPERUSER")


def test_an_analyst_has_as_many_connections_as_planned(host: Host, ask: Callable[..., str], superuser: Callable[..., str]) -> None:
    assert superuser("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'main_analyst'") == "2"
    image = host.container("pgbouncer/pgbouncer").facts["Image"]
    # Each opens the next one while it is connected: the server counts those that arrive together against each other and may refuse all of them.
    another = 'psql -XAtq "host=postgresql-primary user=main_analyst dbname=main" -c "SELECT 1" -c "\\! eval \\"\\$ANOTHER\\"" 2>&1'
    inside = f'IFS= read -r PGPASSWORD; ANOTHER={shlex.quote(another)}; export PGPASSWORD ANOTHER; eval "$ANOTHER"'
    password = host.variables["odoo_instance_secrets"]["main"]["analyst_password"]
    answer = host.run(f"docker run --rm -i --network berth-data --entrypoint sh {image} -c {shlex.quote(inside)}", stdin=password + "\n")
    assert answer.splitlines()[:2] == ["1", "1"], answer
    assert answer.count("FATAL:") == answer.count("too many connections for role") == 1, answer


def test_monitoring_needs_a_certificate_and_reads_statistics_alone(primary: Host, lab: Lab) -> None:
    authority = primary.variables["platform_authority"]
    signed = _authority.load(authority["certificate"], authority["key"], int(time.time()))
    image = primary.container("postgresql/postgresql").facts["Image"]

    def ask(name: str, *statements: str, database: str = "main") -> str:
        leaf = _authority.issue(signed, name, [name], 1, int(time.time()))
        parts = " ".join(f"-c {shlex.quote(statement)}" for statement in statements)
        tls = "sslmode=verify-ca sslrootcert=/tmp/ca.crt sslcert=/tmp/tls.crt sslkey=/tmp/tls.key"
        inside = (
            "umask 077; cd /tmp; cat > all; sed -n '1,/--ca--/p' all > tls.crt; "
            "sed -n '/--ca--/,/--key--/p' all > ca.crt; sed -n '/--key--/,$p' all > tls.key; "
            f'psql -XAtq "host=postgresql user=berth_monitoring dbname={database} {tls}" {parts} 2>&1'
        )
        command = f"docker run --rm -i --network berth-data --user 45432:45432 --entrypoint sh {image} -c {shlex.quote(inside)} || true"
        return primary.run(command, stdin=f"{leaf.certificate}\n--ca--\n{signed.bundle}\n--key--\n{leaf.key}\n")

    assert (
        int(ask("berth_monitoring", "SELECT count(*) FROM pg_stat_activity WHERE query <> '<insufficient privilege>' AND usename = 'main'"))
        > 0
    )
    assert ask("berth_monitoring", "SHOW statement_timeout", database="postgres").strip() == "10s"
    refused(ask("berth_monitoring", *MONITORING, *FORBIDDEN), MONITORING | FORBIDDEN)
    assert "certificate authentication failed" in ask("main", "SELECT 1")
