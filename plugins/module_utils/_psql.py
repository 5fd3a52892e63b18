# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL as the superuser, through psql inside the PostgreSQL container.

The superuser has no password and no way in over the network. It is whoever may run a process as the server's own
user in the container, which is root on the host. So no PostgreSQL client, driver or secret is needed on the host.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple, overload

from ._docker_api import DockerClient, DockerError, DockerUnavailable

# Statements here may hold verifiers of passwords: keep them out of the server's log and of pg_stat_statements. An instance's role owns the schema
# public of its database: a function there that fits better than PostgreSQL's own of the same name would run as the superuser, so names of public are
# always written out here. As environment, so that it also holds after psql's connect command.
ENVIRONMENT = {
    "PGCONNECT_TIMEOUT": "10",
    "PGOPTIONS": " ".join(
        f"-c {setting}"
        for setting in (
            "client_min_messages=warning",
            "search_path=pg_catalog,pg_temp",
            "log_statement=none",
            "log_min_duration_statement=-1",
            "log_min_error_statement=panic",
            "pg_stat_statements.track_utility=off",
        )
    ),
}
ARGV = (
    "psql",
    "--no-psqlrc",
    "--quiet",
    "--no-align",
    "--tuples-only",
    "--set=ON_ERROR_STOP=1",
    "--username=postgres",
    "postgres",
)


class PsqlError(Exception):
    """PostgreSQL could not be asked, or refused a statement. The message holds PostgreSQL's words."""


class Container(NamedTuple):
    """A running container of a Compose project."""

    id: str
    address: str


@overload
def find_container(client: DockerClient, project: str, service: str, *, optional: Literal[False]) -> Container: ...
@overload
def find_container(client: DockerClient, project: str, service: str, *, optional: bool) -> Container | None: ...


def find_container(client: DockerClient, project: str, service: str, *, optional: bool) -> Container | None:
    """Return the running container of a Compose service.

    Where it is optional, as in check mode before anything is installed, its absence and Docker's give None.

    Raises PsqlError, DockerError, DockerUnavailable.
    """
    labels = [f"com.docker.compose.project={project}", f"com.docker.compose.service={service}"]
    try:
        found = client.get("/containers/json", filters={"label": [*labels, "com.docker.compose.oneoff=False"]})
    except DockerUnavailable:
        if optional:
            return None
        raise
    if found:
        networks = found[0]["NetworkSettings"]["Networks"].values()
        address = next((network["IPAddress"] for network in networks if network["IPAddress"]), "")
        return Container(str(found[0]["Id"]), address)
    if optional:
        return None
    raise PsqlError(
        f"no container of service {service} in project {project} is running on this host. "
        "Converge the project first, or look at: docker compose ls --all"
    )


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Quote a string for SQL. Backslashes are literal: standard_conforming_strings is on since PostgreSQL 9.1."""
    return "'" + value.replace("'", "''") + "'"


def psql(client: DockerClient, container: Container, script: str) -> list[Any]:
    """Run a script in the database ``postgres`` and return the JSON documents that its queries gave, one a line.

    The script goes through standard input: argv and environment of a process can be read by others.

    Raises PsqlError, DockerUnavailable.
    """
    try:
        done = client.exec(container.id, ARGV, env=ENVIRONMENT, stdin=script.encode())
    except DockerError as error:
        raise PsqlError(f"psql could not be run in the PostgreSQL container: {error.message}") from error
    if done.rc != 0:
        # Only the first line: DETAIL and LINE quote the statement, which may hold a verifier.
        reasons = [line for line in done.stderr.splitlines() if "ERROR:" in line or "FATAL:" in line]
        reason = (reasons or done.stderr.splitlines() or ["no output"])[0]
        raise PsqlError(f"psql ended with exit code {done.rc}: {reason.removeprefix('psql:')}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
