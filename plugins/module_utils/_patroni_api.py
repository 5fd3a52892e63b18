# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patroni from one of its database hosts: questions to the REST API over TLS, commands through patronictl.

Source of paths and answers: https://patroni.readthedocs.io/en/latest/rest_api.html
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ._docker_api import DockerClient
from ._patroni import HEALTH_SCRIPT
from ._patroni_cluster import describe
from ._psql import Container, PsqlError, psql

REST_PORT = 8008
SERVER_NAME = "postgresql"
"""The name that every member's certificate has. Its address is not in there when the member is alone: Docker chooses it."""
SILENCE = 15.0
"""Seconds without an answer. While etcd is away Patroni itself tries for ``retry_timeout``, 10 s, before it gives up."""
QUICK = 5.0
"""The same for questions that Patroni answers from memory, as to other members: one that is gone must not stop everything."""

PATRONI_OPTIONS: dict[str, Any] = {
    "project": {"type": "str", "default": "postgresql"},
    "service": {"type": "str", "default": "postgresql"},
    "tls_dir": {"type": "path", "default": "/opt/berth/postgresql/tls"},
}
"""Argument spec of the documentation fragment ``patroni``."""


class PatroniError(Exception):
    """Patroni refused or did not answer. The message says what to do."""


class _Connection(http.client.HTTPConnection):
    """An HTTPS connection to an address whose certificate is for another name."""

    def __init__(self, address: str, port: int, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(address, port, timeout=timeout)
        self._context = context

    def connect(self) -> None:
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=SERVER_NAME)


class PatroniApi:
    """The REST API of one member. It is only read: commands need a member's own certificate, see patronictl.

    Args:
        address: Address at which this host reaches the member.
        tls_dir: Directory that holds ``ca.crt``.
        hint: What to type to learn more when the member does not answer.
        port: Port of the REST API.
        timeout: Seconds without an answer after which a request fails.
    """

    def __init__(self, address: str, tls_dir: str, hint: str, port: int = REST_PORT, timeout: float = SILENCE) -> None:
        """Read the certificate authority.

        Raises:
            PatroniError: There is none, or it is none.
        """
        self.address = address
        self.port = port
        self.hint = hint
        self.timeout = timeout
        self._ca = os.path.join(tls_dir, "ca.crt")
        try:
            self._context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:  # ssl.SSLError is one
            raise PatroniError(
                f"the certificate authority of Patroni's REST API cannot be read from {self._ca}: {error.strerror or error}. "
                "Converge the database tier (berth.odoo.site, --tags database), or set tls_dir to the directory that holds ca.crt"
            ) from error

    def get(self, path: str, timeout: float | None = None) -> Any:
        """Return an answer, parsed from JSON.

        Raises:
            PatroniError: No answer in time, one that cannot be trusted, or another status than 200.
        """
        url = f"https://{self.address}:{self.port}{path}"
        connection = _Connection(self.address, self.port, self.timeout if timeout is None else timeout, self._context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except ssl.SSLCertVerificationError as error:
            raise PatroniError(
                f"{url} has a certificate that {self._ca} does not vouch for as {SERVER_NAME}: {error.verify_message}. "
                "Converge the database tier on all its hosts (berth.odoo.site, --tags database)"
            ) from error
        except ssl.SSLError as error:
            raise PatroniError(
                f"no TLS at {url}: {error.reason or error}. A Patroni that was deployed without it gets it from berth.odoo.site, --tags database"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise PatroniError(
                f"no answer from {url}: {error or type(error).__name__}. Does Patroni reach etcd? Type: {self.hint}"
            ) from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise PatroniError(f"GET {url} answered {answer.status} {answer.reason}. Type: {self.hint}")
        return json.loads(body)


def own_api(container: Container, tls_dir: str, timeout: float = SILENCE) -> PatroniApi:
    """Return the REST API of this host's member. Raises PatroniError."""
    return PatroniApi(container.address, tls_dir, f"docker logs --tail 20 {container.id[:12]}", timeout=timeout)


def read_health(client: DockerClient, container: Container) -> dict[str, Any] | str:
    """Return what the PostgreSQL of this host says of itself, or why it says nothing. Raises DockerUnavailable."""
    try:
        health: dict[str, Any] = psql(client, container, HEALTH_SCRIPT)[0]
    except PsqlError as error:
        return str(error)
    return health


def container_hosts(client: DockerClient, container: Container) -> dict[str, str]:
    """Return the addresses that a container was given names for. Raises DockerError, DockerUnavailable."""
    entries = client.get(f"/containers/{container.id}/json")["HostConfig"].get("ExtraHosts") or []
    return {name: address for name, _colon, address in (entry.partition(":") for entry in entries)}


def apis(own: PatroniApi, name: str, cluster: dict[str, Any], tls_dir: str, hosts: Mapping[str, str]) -> dict[str, PatroniApi]:
    """Return the REST API of every member of a cluster by its name.

    Args:
        own: REST API of this host's member.
        name: This host's member.
        cluster: Answer to ``GET /cluster``. It knows members by names that only their containers can resolve.
        tls_dir: Directory that holds ``ca.crt``.
        hosts: What container_hosts returns.
    """
    found = {}
    for member in cluster["members"]:
        if member["name"] == name:
            found[name] = own
        elif member.get("api_url"):
            url = urlsplit(member["api_url"])
            hint = f"docker logs --tail 20 postgresql-postgresql-1, on the host of {member['name']}"
            address = url.hostname or ""
            found[member["name"]] = PatroniApi(hosts.get(address, address), tls_dir, hint, url.port or REST_PORT, QUICK)
    return found


def read_cluster(own: PatroniApi, tls_dir: str, hosts: Mapping[str, str], health: Mapping[str, Any] | str | None = None) -> dict[str, Any]:
    """Return what this host's member and, through it, all others say; see _patroni_cluster.describe. Arguments as of
    apis, and what read_health returned.

    Raises:
        PatroniError: This host's member does not answer. What others and etcd leave unsaid is part of the description.
    """
    status = own.get("/patroni")
    name = status["patroni"]["name"]
    try:
        cluster = own.get("/cluster")
        config = own.get("/config")
    except PatroniError as error:
        return describe(status, {name: status}, str(error), None, time.time(), health)
    answers: dict[str, Any] = {}
    for member, api in apis(own, name, cluster, tls_dir, hosts).items():
        try:
            answers[member] = status if api is own else api.get("/patroni")
        except PatroniError as error:
            answers[member] = str(error)
    return describe(status, answers, cluster, config, time.time(), health)


def patronictl(client: DockerClient, container: Container, *arguments: str, stdin: bytes | None = None) -> str:
    """Run patronictl in the container and return what it printed.

    Commands go this way and not to the REST API, because patronictl brings the member's own client certificate and finds the
    member that a command is for, and goes through etcd when that one does not listen. Its exit code is no proof: it ends with
    0 also when Patroni refused, so that callers must look whether what they asked for has happened.

    Raises:
        PatroniError: With patronictl's words: it ended with another code, or Patroni refused.
    """
    done = client.exec(container.id, ["patronictl", *arguments], stdin=stdin)
    if done.rc != 0:
        # The last line: before it are Python's tracebacks and every attempt to reach etcd.
        lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise PatroniError(f"patronictl {arguments[0]} ended with {done.rc}: {lines[-1]}")
    refusals = [line for line in done.stdout.splitlines() if line.startswith("Failed: ") or " failed, details: " in line]
    if refusals:
        raise PatroniError("; ".join(refusals))
    return done.stdout
