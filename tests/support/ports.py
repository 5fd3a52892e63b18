# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports somebody reaches: from a host, from a stranger beside the hosts, from here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ansible_collections.berth.odoo.tests.support.lab import Host, docker

# Runs wherever there is Python. A connection that is refused was let through; one that is dropped is not answered.
SCANNER = """
import errno, json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reach(target):
    with socket.socket() as probe:
        probe.settimeout(1.5)
        code = probe.connect_ex(tuple(target))
    return {0: "open", errno.ECONNREFUSED: "refused"}.get(code, "dropped")

targets = json.load(sys.stdin)
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(list(pool.map(reach, targets))))
"""

Target = tuple[str, int]


def _answers(targets: list[Target], output: str) -> dict[Target, str]:
    return dict(zip(targets, json.loads(output), strict=True))


def from_here(targets: Iterable[Target]) -> dict[Target, str]:
    """Try addresses and ports from the controller: C(open), C(refused), or C(dropped)."""
    listed = list(targets)
    done = subprocess.run([sys.executable, "-c", SCANNER], input=json.dumps(listed), capture_output=True, text=True, timeout=60, check=True)
    return _answers(listed, done.stdout)


def from_host(host: Host, targets: Iterable[Target]) -> dict[Target, str]:
    """The same from a host."""
    listed = list(targets)
    return _answers(listed, host.run(f"python3 -c '{SCANNER}'", stdin=json.dumps(listed)))


class Stranger:
    """A machine on the network of the hosts that is none of theirs."""

    def __init__(self, name: str, address: str) -> None:
        """``name`` of its container."""
        self.name = name
        self.address = address

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a command there as root and return what it wrote."""
        done = subprocess.run(
            ["docker", "exec", "-i", self.name, *argv], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"`{' '.join(argv)[:80]}` ended with {done.returncode} on the stranger:\n{done.stdout}{done.stderr}"
        return done.stdout

    def scan(self, targets: Iterable[Target]) -> dict[Target, str]:
        """Try addresses and ports."""
        listed = list(targets)
        return _answers(listed, self.run("python3", "-c", SCANNER, stdin=json.dumps(listed)))

    def scan_by(self, gateway: Host, targets: Iterable[Target]) -> dict[Target, str]:
        """Try addresses that are behind a host, as a neighbour does who sends it their packets."""
        listed = list(targets)
        for address in sorted({address for address, _port in listed}):
            self.run("ip", "route", "replace", f"{address}/32", "via", gateway.address)
        return self.scan(listed)


@contextmanager
def stranger(hosts: Mapping[str, Host]) -> Iterator[Stranger]:
    """Put a machine beside the hosts, for as long as the context lasts."""
    machine = str(next(iter(hosts.values())).variables["lab_container"])
    [facts] = json.loads(docker("inspect", machine))
    [network] = facts["NetworkSettings"]["Networks"]
    name = f"{machine}-stranger"
    subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)  # what an interrupted run left
    labels = [word for key in ("berth.lab", "berth.lab.project") for word in ("--label", f"{key}={facts['Config']['Labels'][key]}")]
    docker(
        *("run", "--detach", "--name", name, "--network", network, *labels),
        *("--cap-add", "NET_ADMIN", "--entrypoint", "sleep", facts["Image"], "infinity"),
    )
    try:
        [own] = json.loads(docker("inspect", name))
        yield Stranger(name, own["NetworkSettings"]["Networks"][network]["IPAddress"])
    finally:
        docker("rm", "--force", "--volumes", name)


def inside(host: Host) -> list[Target]:
    """Every address of a container and every port that its image exposes or that it publishes: what is nobody's business outside."""
    found = []
    for container in host.containers().values():
        ports: dict[str, Any] = container.facts["NetworkSettings"]["Ports"] or {}
        numbers = {int(port.split("/")[0]) for port in ports if port.endswith("/tcp")}
        for network in container.facts["NetworkSettings"]["Networks"].values():
            found += [(network["IPAddress"], port) for port in sorted(numbers) if network["IPAddress"]]
    return found


def listening(host: Host) -> set[int]:
    """The TCP ports at which something of the host or of a published container listens for others than the host itself."""
    ports = {
        int(line.split()[3].rpartition(":")[2])
        for line in host.run("ss -Hltn").splitlines()
        if not line.split()[3].startswith(("127.", "[::1]"))
    }
    for container in host.containers().values():
        for bindings in (container.facts["NetworkSettings"]["Ports"] or {}).values():
            ports |= {int(binding["HostPort"]) for binding in bindings or []}
    return ports
