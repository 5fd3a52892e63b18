# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a lab: a free subnet, fixed addresses, name servers."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .run import CommandError, LabError, run

FIRST_HOST = 11  # vm1 is x.y.z.11
RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf")


def ensure_network(name: str, labels: Mapping[str, str], pool: ipaddress.IPv4Network) -> tuple[ipaddress.IPv4Network, bool]:
    """Return the subnet of a lab's Docker network, creating the network when it is missing.

    Args:
        name: name of the Docker network.
        labels: labels for a new network.
        pool: where to take a free /24 from.

    Returns:
        The subnet, and whether the network was created.

    Raises:
        LabError: every /24 of the pool is taken.
    """
    try:
        [network] = json.loads(run(["docker", "network", "inspect", name]))
        return ipaddress.IPv4Network(network["IPAM"]["Config"][0]["Subnet"]), False
    except CommandError as error:
        if "not found" not in error.output and "No such network" not in error.output:
            raise
    taken = _docker_subnets() + routes(Path("/proc/net/route").read_text())
    flags = [flag for key, value in labels.items() for flag in ("--label", f"{key}={value}")]
    while True:
        subnet = free_subnet(pool, taken)
        try:
            run(["docker", "network", "create", *flags, "--subnet", str(subnet), "--gateway", str(subnet[1]), name])
        except CommandError as error:
            if "overlap" not in error.output:
                raise
            taken.append(subnet)  # another lab was quicker
        else:
            return subnet, True


def free_subnet(pool: ipaddress.IPv4Network, taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """First /24 of the pool that overlaps nothing.

    Raises:
        LabError: there is none.
    """
    occupied = [network for network in taken if network.prefixlen > 0]
    for subnet in pool.subnets(new_prefix=24):
        if not any(subnet.overlaps(network) for network in occupied):
            return subnet
    raise LabError(
        f"No /24 of lab_network_pool={pool} is free: this machine's routes and Docker networks cover it.\n"
        "Destroy labs that nobody needs (make clean), or name another range: -e lab_network_pool=10.77.0.0/16"
    )


def routes(table: str) -> list[ipaddress.IPv4Network]:
    """Destinations in a ``/proc/net/route`` table (hexadecimal, least significant byte first)."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[index]), "little") for index in (1, 7))
        found.append(ipaddress.IPv4Network((address, mask.bit_count())))
    return found


def assign(names: Sequence[str], known: Mapping[str, str], subnet: ipaddress.IPv4Network) -> dict[str, str]:
    """Addresses by host name: those already given stay, new hosts get the next free one.

    Args:
        names: hosts of the lab.
        known: addresses of hosts that exist.
        subnet: where addresses come from.

    Raises:
        LabError: the subnet is full.
    """
    kept = {name: address for name, address in known.items() if ipaddress.IPv4Address(address) in subnet}
    free = (str(subnet[number]) for number in range(FIRST_HOST, 255) if str(subnet[number]) not in kept.values())
    try:
        return {name: kept[name] if name in kept else next(free) for name in names}
    except StopIteration:
        raise LabError(f"The subnet {subnet} has no address left for {len(names)} VMs; a lab has room for {255 - FIRST_HOST}.") from None


def nameservers(resolvers: Iterable[str]) -> list[str]:
    """Name servers that a container can reach, out of the contents of resolv.conf files: the first file that names one wins.

    A local stub (127.0.0.53) answers nobody but its own machine, so its file is passed over for the one with the servers behind it.
    """
    for text in resolvers:
        servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ") and len(line.split()) > 1]
        reachable = [server for server in servers if not ipaddress.ip_address(server.split("%")[0]).is_loopback and "%" not in server]
        if reachable:
            return reachable
    return []


def machine_nameservers() -> list[str]:
    """Name servers of this machine that a container can reach; empty when there is only a stub."""
    return nameservers(Path(file).read_text() for file in RESOLVERS if Path(file).exists())


def _docker_subnets() -> list[ipaddress.IPv4Network]:
    names = run(["docker", "network", "ls", "--quiet"]).split()
    networks = json.loads(run(["docker", "network", "inspect", *names])) if names else []
    configs = (config for network in networks for config in network["IPAM"]["Config"] or [])
    return [ipaddress.IPv4Network(config["Subnet"]) for config in configs if ":" not in config.get("Subnet", ":")]
