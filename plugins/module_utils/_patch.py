# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's packages wait for, and whether it has to be rebooted, from the words of apt, dpkg and needrestart. Pure functions: no I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

ENGINE = ("docker.io", "docker-ce", "moby-engine", "containerd", "containerd.io", "runc")
"""Packages whose upgrade restarts what containers run on."""

ROOM_MB = {"/": 500, "/var": 500, "/boot": 150}
"""Free space that an upgrade may need: packages before and after unpacking; a kernel with its initrd, beside the ones that are there."""

# Inst libc6 [2.41-12] (2.41-12+deb13u1 Debian-Security:13/stable-security [amd64]) [...]
_INST = re.compile(r"^Inst (\S+)(?: \[([^\]]+)\])? \((\S+) ([^)]*?)(?: \[\w+\])?\)", re.MULTILINE)
# 6.12.57+deb13-cloud-amd64, 6.1.0-40-amd64: what comes after version and build is the flavour.
_KERNEL = re.compile(r"[0-9.]+(?:[+~][\w.~]+)*(?:-[0-9]+)?-(.+)")


def simulated(text: str) -> list[dict[str, Any]]:
    """Return what ``apt-get --simulate`` would install: C(name), C(before) (empty for a package that is new), C(after), C(security)."""
    return [
        {"name": name, "before": before, "after": after, "security": "-security" in origins.lower()}
        for name, before, after, origins in _INST.findall(text)
    ]


def chosen(plan: Iterable[dict[str, Any]], which: str) -> list[dict[str, Any]]:
    """Return those that are there and get another version: all, or security updates alone. What is new comes along with them."""
    return [package for package in plan if package["before"] and (which == "all" or package["security"])]


def left(
    upgrade: Sequence[dict[str, Any]], everything: Sequence[dict[str, Any]], held: Iterable[str], which: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the packages that an upgrade leaves as they are although there is a newer version: those on hold, and those that others stand in the way of.

    Args:
        upgrade: What an upgrade that removes nothing would do.
        everything: What one would do that may remove packages and ignores holds.
        held: Names of packages on hold.
        which: ``security`` or ``all``.
    """
    names, holds = {package["name"] for package in upgrade}, set(held)
    rest = [package for package in chosen(everything, which) if package["name"] not in names]
    return [one for one in rest if one["name"] in holds], [one for one in rest if one["name"] not in holds]


def brings_engine(packages: Iterable[dict[str, Any]]) -> list[str]:
    """Return the names of those that containers run on."""
    return [package["name"] for package in packages if package["name"].partition(":")[0] in ENGINE]


def brings_kernel(plan: Iterable[dict[str, Any]]) -> bool:
    """Return whether a kernel comes."""
    return any(package["name"].startswith("linux-image-") for package in plan)


def _order(release: str) -> list[tuple[int, str]]:
    """Sort key of a kernel's release: numbers by their value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", release) if part]


def newer_kernel(running: str, installed: Iterable[str]) -> str:
    """Return the newest installed kernel of the flavour that runs, when that is another one than runs; else nothing.

    Args:
        running: As ``uname -r`` says.
        installed: Releases with a file ``/boot/vmlinuz-…``.
    """
    flavour = _KERNEL.fullmatch(running)
    same = [one for one in installed if flavour and (found := _KERNEL.fullmatch(one)) and found[1] == flavour[1]]
    newest = max([*same, running], key=_order)
    return "" if newest == running else newest


def needrestart(text: str) -> tuple[bool, list[str]]:
    """Return whether another kernel waits, and the services that run with replaced libraries, from ``needrestart -b``."""
    return bool(re.search(r"^NEEDRESTART-KSTA: [23]$", text, re.MULTILINE)), re.findall(r"^NEEDRESTART-SVC: (\S+)", text, re.MULTILINE)


def reboot_reasons(required_by: str | None, kernel: str, kernel_waits: bool, services: Sequence[str]) -> list[str]:
    """Return why a host has to be rebooted, a sentence each.

    Args:
        required_by: Content of ``/run/reboot-required.pkgs``; None where nobody asked for a reboot.
        kernel: A newer kernel that is installed.
        kernel_waits: Whether needrestart says so too.
        services: With replaced libraries.
    """
    reasons = []
    if required_by is not None:
        packages = sorted(set(required_by.split()))
        reasons.append(f"/run/reboot-required is there{', of ' + ', '.join(packages) if packages else ''}")
    if kernel:
        reasons.append(f"the kernel {kernel} is installed and does not run")
    elif kernel_waits:
        reasons.append("needrestart says that another kernel is installed than runs")
    if services:
        more = f" and {len(services) - 5} more" if len(services) > 5 else ""
        reasons.append(f"{', '.join(services[:5])}{more} run with libraries that were replaced")
    return reasons


def obstacles(audit: str, room_mb: dict[str, int], kernel_comes: bool) -> list[str]:
    """Return what stands in the way of an upgrade, a sentence each with what to type.

    Args:
        audit: What ``dpkg --audit`` wrote; nothing where all is well.
        room_mb: Free space of ``/``, ``/var`` and, where it is a file system of its own, ``/boot``.
        kernel_comes: Whether a kernel is among what would be installed.
    """
    found = []
    if audit.strip():
        words = " ".join(audit.split())
        found.append(f"dpkg was interrupted: {words[:300]}. Type there: dpkg --configure --pending && apt-get --fix-broken install")
    for path, free in room_mb.items():
        needed = ROOM_MB[path]
        if free < needed and (path != "/boot" or kernel_comes):
            advice = "apt-get autoremove --purge, which removes old kernels" if path == "/boot" else "apt-get clean, docker image prune"
            found.append(f"{path} has {free} MB free and an upgrade may need {needed}. Make room there: {advice}")
    return found


# --- a platform ------------------------------------------------------------------------------------------------------------------------


def only_on(name: str, instances: Mapping[str, Collection[str]], drained: Sequence[str]) -> list[str]:
    """Return the instances of a host that no other host runs which gets requests.

    Args:
        name: The host.
        instances: Application hosts and the names of their instances.
        drained: Application hosts that get no requests.
    """
    elsewhere = {instance for host, theirs in instances.items() if host != name and host not in drained for instance in theirs}
    return sorted(set(instances.get(name, ())) - elsewhere)


def _alone(
    name: str, tiers: Mapping[str, Sequence[str]], drained: Sequence[str], floating: Sequence[str], instances: Mapping[str, Collection[str]]
) -> list[str]:
    """Return whose work nobody does while a host is away."""
    found = []
    if list(tiers.get("database") or []) == [name]:
        found.append("it is the only database host")
    staying = [app for app in tiers.get("app") or [] if app not in drained]
    if staying == [name]:
        found.append("it is the only application host that gets requests")
    elif name in staying and (only := only_on(name, instances, drained)):
        found.append(f"nobody else runs {', '.join(only)}")
    if name in (tiers.get("edge") or []) and not set(floating) - {name}:
        found.append("people come in through it (group edge)")
    if list(tiers.get("cache") or []) == [name]:
        found.append("it holds the logins (group cache)")
    return found


def in_turn(names: Iterable[str], tiers: Mapping[str, Sequence[str]], leads: Sequence[str]) -> list[str]:
    """Return hosts in the order in which they may go away: who follows before who leads, the database before what stands on it."""
    databases = tiers.get("database") or []
    turns: list[Sequence[str]] = [
        [name for name in tiers.get("witness") or [] if name not in databases],
        [name for name in databases if name not in leads],
        leads,
        tiers.get("app") or [],
    ]
    turn = {name: number for number, group in reversed(list(enumerate(turns))) for name in group}
    return sorted(names, key=lambda name: turn.get(name, len(turns)))


def plan(
    found: Mapping[str, Mapping[str, Any]],
    tiers: Mapping[str, Sequence[str]],
    leads: Sequence[str] = (),
    drained: Sequence[str] = (),
    floating: Sequence[str] = (),
    reboot: str = "needed",
    outage: bool = False,
    instances: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Any]:
    """Return what is to be done to which host, and in which order.

    Args:
        found: What C(patch_info) returned, by host.
        tiers: Groups and their hosts.
        leads: The hosts whose member leads its cluster.
        drained: Application hosts that get no requests.
        floating: Edges that may have the floating address.
        reboot: ``needed``, ``always`` or ``never``.
        outage: Whether hosts whose work nobody does meanwhile may go away.
        instances: Application hosts and the names of their instances.

    Returns:
        C(order), the names of hosts with something to do; C(hosts), of each host C(alone), why it may not go away, C(only), instances that nobody else
        runs, and C(reboot), whether it is rebooted although nothing asks for it; C(lines), for a person; C(refused), why nothing may begin.
    """
    hosts: dict[str, dict[str, Any]] = {}
    work, lines, refused = [], [], []
    for name, facts in found.items():
        begun = facts["begun"] or {}
        # What an interrupted run drained is not left drained; alone is judged as if it were not.
        away = [one for one in drained if one != name or not begun.get("drained")]
        reasons = [] if outage else _alone(name, tiers, away, floating, instances or {})
        asked = reboot == "always" or bool(begun.get("reboot"))
        hosts[name] = {"alone": " and ".join(reasons), "only": only_on(name, instances or {}, away), "reboot": asked}
        # With live restore its containers do not notice.
        starts = facts["engine_replaced"] and (facts["live_restore"] or not reasons)
        if facts["packages"] or begun or asked or starts or (facts["reboot"] and reboot != "never"):
            work.append(name)
        if reasons and facts["engine"] and not facts["live_restore"]:
            refused.append(
                f"{name}: {', '.join(facts['engine'])} would restart all of its containers, because live-restore is off, and {hosts[name]['alone']}. "
                "Switch it on (docker_live_restore, berth.odoo.site), or accept that: -e patch_outage=true"
            )
        lines += _lines(name, facts, hosts[name], reboot)
    return {"order": in_turn(work, tiers, leads), "hosts": hosts, "lines": lines, "refused": refused}


def _lines(name: str, facts: Mapping[str, Any], host: Mapping[str, Any], reboot: str) -> list[str]:
    """Return what waits on a host, for a person."""
    packages = facts["packages"]
    versions = [f"{one['name']} {one['before']} → {one['after']}" for one in packages]
    lines = [f"{name}: {len(packages)} package{'' if len(packages) == 1 else 's'}{': ' if packages else ''}{', '.join(versions)}"]
    if facts["engine_replaced"]:
        lines.append(f"{name}: the Docker engine that runs is older than the one that is installed, and is restarted")
    why = [*facts["reboot"], *(["a kernel comes"] if facts["kernel_comes"] else []), *(["it was asked for"] if host["reboot"] else [])]
    if why and reboot != "never":
        stays = f"; it is not rebooted, because {host['alone']} (-e patch_outage=true)" if host["alone"] else ""
        lines.append(f"{name}: a reboot, because {' and '.join(why)}{stays}")
    if facts["begun"]:
        lines.append(f"{name}: an earlier run did not come to its end there")
    for key, words in (("held", "on hold"), ("kept_back", "kept back, because it needs the removal of others")):
        lines += [f"{name}: {one['name']} stays at {one['before']}, {words}" for one in facts[key]]
    return [*lines, *(f"{name}: {sentence}" for sentence in facts["obstacles"])]
