# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions about daemon.json: what may change, what a change takes, what would break the host. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

RELOADABLE = frozenset(
    {
        "allow-nondistributable-artifacts",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)
"""Options that dockerd takes over on SIGHUP (https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior)."""

HIDING = ("data-root", "storage-driver", "userns-remap", "exec-root")
"""Options whose change makes images, volumes and containers disappear from view."""


def without_nothing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop options without a value: null, and empty lists and dictionaries."""
    return {key: value for key, value in config.items() if value is not None and value != {} and value != []}


def effort(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what takes *after* into a daemon that runs with *before*: ``nothing``, ``reload`` or ``restart``."""
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    if not changed:
        return "nothing"
    return "reload" if changed <= RELOADABLE else "restart"


def hidden(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the options whose change would hide images, volumes and containers."""
    return [key for key in HIDING if before.get(key) != after.get(key)]


def host_networks(table: str) -> list[tuple[str, ipaddress.IPv4Network]]:
    """Read /proc/net/route: the IPv4 networks that the host itself is in or routes to, without Docker's own."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[0].startswith(("docker", "br-", "veth")):
            continue
        address, mask = (bytes.fromhex(fields[index])[::-1] for index in (1, 7))
        if mask != bytes(4):
            found.append((fields[0], ipaddress.IPv4Network((address, int.from_bytes(mask, "big").bit_count()))))
    return found


def overlaps(pools: Iterable[Mapping[str, Any]], networks: Iterable[tuple[str, ipaddress.IPv4Network]]) -> list[str]:
    """Return a sentence for each address pool that the host needs for something else.

    :raises ValueError: a pool is no network, or smaller than the networks to be made of it.
    """
    known = list(networks)
    found: list[str] = []
    for pool in pools:
        base = ipaddress.ip_network(str(pool.get("base")))
        size = pool.get("size")
        if not isinstance(size, int) or not base.prefixlen <= size <= base.max_prefixlen:
            raise ValueError(f"the pool {base} has size {size!r}, expected a prefix length from {base.prefixlen} to {base.max_prefixlen}")
        found.extend(
            f"{base} overlaps {network}, which {interface} reaches"
            for interface, network in known
            if base.version == 4 and base.overlaps(network)
        )
    return found


def ulimit_problems(ulimits: Mapping[str, Any], limits: str, capabilities: str) -> list[str]:
    """Return a sentence for each default ulimit that the host cannot give.

    Without CAP_SYS_RESOURCE a limit cannot be raised, and then *no* container starts ("error setting rlimit").

    :param ulimits: ``default-ulimits`` of daemon.json.
    :param limits: text of /proc/1/limits.
    :param capabilities: text of /proc/1/status.
    """
    cap_sys_resource = 1 << 24
    bounding = next((line.split()[1] for line in capabilities.splitlines() if line.startswith("CapBnd:")), "")
    if not bounding or int(bounding, 16) & cap_sys_resource:
        return []
    names = {"nofile": "Max open files", "nproc": "Max processes", "memlock": "Max locked memory"}
    found = []
    for name, values in ulimits.items():
        wanted = values.get("Hard") if isinstance(values, Mapping) else None
        line = next((line for line in limits.splitlines() if name in names and line.startswith(names[name])), "")
        hard = line.removeprefix(names.get(name, "")).split()[1:2]
        if isinstance(wanted, int) and hard and hard[0].isdigit() and (wanted > int(hard[0]) or wanted < 0):
            found.append(f"{name} is {wanted}, and this host cannot go above {hard[0]}")
    return found


def mismatches(config: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    """Compare daemon.json with what the running daemon says about itself (``GET /info``)."""
    found = []
    if info.get("LiveRestoreEnabled") != config.get("live-restore", False):
        found.append("live-restore")
    if info.get("LoggingDriver") != config.get("log-driver", "json-file"):
        found.append("log-driver")
    secure = any("no-new-privileges" in option for option in info.get("SecurityOptions") or [])
    if secure != config.get("no-new-privileges", False):
        found.append("no-new-privileges")
    pools = [{"base": pool.get("Base"), "size": pool.get("Size")} for pool in info.get("DefaultAddressPools") or []]
    if config.get("default-address-pools", []) != pools:
        found.append("default-address-pools")
    mirrors = [mirror.rstrip("/") for mirror in (info.get("RegistryConfig") or {}).get("Mirrors") or []]
    if [mirror.rstrip("/") for mirror in config.get("registry-mirrors", [])] != mirrors:
        found.append("registry-mirrors")
    return found
