# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several instances on one machine: clients of each, and programs that run inside of their containers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.berth.odoo.tests.support.lab import Host
from ansible_collections.berth.odoo.tests.support.odoo import Answer, Odoo, Watch

DOMAIN = "berth.test"


class Tenant(Odoo):
    """A client of one instance. It asks the machine's address for the instance's domain, which no DNS knows."""

    def __init__(self, address: str, ca: Path, name: str) -> None:
        """``name`` of the instance."""
        super().__init__(f"https://{address}", ca)
        self.name = name

    def request(self, path: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        """As of any client."""
        return super().request(path, headers={"Host": f"{self.name}.{DOMAIN}", **(headers or {})}, **options)


def psql(host: Host, query: str, database: str = "postgres") -> list[str]:
    """Ask PostgreSQL as its superuser; one line a row, columns separated by ``|``."""
    return host.run(f"docker exec postgresql-postgresql-1 psql -d {database} -XtAc {shlex.quote(query)}").splitlines()


def redis_keys(host: Host, prefix: str) -> list[str]:
    """Keys that Redis has stored below a prefix, from a copy of its data: nobody may list them in the server."""
    program = (
        "cp -a /data /tmp/data && redis-server --dir /tmp/data --appendonly yes --save '' --unixsocket /tmp/s --port 0 --daemonize yes >/dev/null && "
        f"until redis-cli -e -s /tmp/s PING >/dev/null 2>&1; do sleep 0.1; done; redis-cli -e -s /tmp/s --scan --pattern {shlex.quote(prefix + '*')}"
    )
    image = host.container("redis/redis").facts["Image"]
    return host.run(
        f"docker run --rm --network none --user 46379:46379 -v /var/lib/berth/redis:/data:ro --entrypoint bash {image} -c {shlex.quote(program)}"
    ).splitlines()


def inside(host: Host, container: str, program: str, *, timeout: float = 60) -> Any:
    """Run a Python program in a container and return what it printed last, as JSON."""
    output = host.run(f"docker exec -i {container} python3 -", stdin=program, timeout=timeout)
    return json.loads(output.splitlines()[-1])


@contextmanager
def nobody_notices(*clients: Odoo) -> Iterator[None]:
    """Ask each client's login page five times a second meanwhile; every answer must be 200."""
    watches = [Watch(client, "/web/login") for client in clients]
    with ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch.watching())
        yield
    for watch in watches:
        assert len(watch.answers) > 5, "nobody asked"
        assert watch.failures == [], f"{len(watch.failures)} of {len(watch.answers)} requests failed: {watch.failures[:5]}"
