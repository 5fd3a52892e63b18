# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge and draw the state of a platform. Pure functions: no Ansible import, no I/O.

The input is what the module C(platform_info) reads on each host; the output is one screen for a person, and a list of
problems that decides the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MIB = 1024 * 1024

#: A certificate with fewer days left than this is a problem: an operator needs a working week to get a new one.
CERTIFICATE_WARNING_DAYS = 7

#: Roles of members that have everything the primary has acknowledged, as Patroni 4 names them.
SYNCHRONOUS = ("sync_standby", "quorum_standby")


def service_problem(service: Mapping[str, Any]) -> str | None:
    """Return why a service counts as down, or None.

    Args:
        service: one entry of C(services) as returned by C(platform_info).
    """
    state = service["state"]
    if state == "missing":
        return "has no container; run playbooks/site.yml"
    if state != "running":
        return f"is {state} (exit code {service.get('exit_code')})"
    if service["health"] not in ("healthy", "none"):
        return f"is running but {service['health']}"
    return None


def cluster_problems(cluster: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the PostgreSQL cluster as Patroni describes it (its C(GET /cluster) answer)."""
    if cluster.get("error"):
        return [f"PostgreSQL: {cluster['error']}"]
    members: Sequence[Mapping[str, Any]] = cluster.get("members", [])
    problems = []
    if not any(member.get("role") in ("leader", "standby_leader") for member in members):
        problems.append("PostgreSQL: the cluster has no leader")
    for member in members:
        if member.get("state") not in ("running", "streaming"):
            problems.append(f"PostgreSQL: member {member.get('name')} is {member.get('state')}")
    if len(members) > 1 and not any(member.get("role") in SYNCHRONOUS for member in members):
        problems.append("PostgreSQL: no synchronous standby, so a failover now would lose what was acknowledged last")
    return problems


def certificate_problem(certificate: Mapping[str, Any]) -> str | None:
    """Return why a served certificate needs attention, or None.

    Args:
        certificate: keys C(server_name), and either C(error) or C(days_left) (float, days).
    """
    name = certificate["server_name"]
    if certificate.get("error"):
        return f"certificate of {name}: {certificate['error']}"
    days = certificate["days_left"]
    if days < 0:
        return f"certificate of {name} expired {-days:.0f} days ago"
    if days < CERTIFICATE_WARNING_DAYS:
        return f"certificate of {name} expires in {days:.1f} days"
    return None


def problems(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return every problem of every host, each as one line that starts with the host's name.

    Args:
        hosts: host name → what C(platform_info) returned, or C({"unreachable": reason}).
    """
    found = []
    for host, info in hosts.items():
        if "unreachable" in info:
            found.append(f"{host}: unreachable: {info['unreachable']}")
            continue
        if info.get("docker_error"):
            found.append(f"{host}: {info['docker_error']}")
        if not info.get("services") and not info.get("docker_error"):
            found.append(f"{host}: nothing is deployed; run playbooks/site.yml")
        for service in info.get("services", []):
            reason = service_problem(service)
            if reason:
                found.append(f"{host}: {service['project']}/{service['service']} {reason}")
        for cluster in filter(None, [info.get("postgresql")]):
            found.extend(f"{host}: {problem}" for problem in cluster_problems(cluster))
        for certificate in info.get("certificates", []):
            reason = certificate_problem(certificate)
            if reason:
                found.append(f"{host}: {reason}")
    return found


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align rows of cells in columns; the first row is the heading. Returns lines without trailing spaces."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _memory(service: Mapping[str, Any]) -> str:
    used, limit = service.get("memory_bytes"), service.get("memory_limit_bytes")
    if used is None:
        return "-"
    if not limit:
        return f"{used // MIB} MiB, no limit"
    return f"{used // MIB} of {limit // MIB} MiB ({100 * used // limit} %)"


def screen(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the one screen of C(playbooks/status.yml).

    Args:
        hosts: host name → what C(platform_info) returned, or C({"unreachable": reason}).
    """
    rows: list[Sequence[str]] = [("HOST", "SERVICE", "STATE", "HEALTH", "MEMORY", "VERSION", "IMAGE")]
    notes: list[str] = []
    for host, info in hosts.items():
        for service in info.get("services", []):
            rows.append(
                (
                    host,
                    f"{service['project']}/{service['service']}",
                    service["state"],
                    service["health"],
                    _memory(service),
                    service.get("version") or "-",
                    (service.get("image_id") or "-").removeprefix("sha256:")[:12],
                )
            )
        for member in (info.get("postgresql") or {}).get("members", []):
            line = (
                f"PostgreSQL: {member.get('name')} is {member.get('role')}, {member.get('state')}, timeline "
                f"{member.get('timeline', '-')}, lag {member.get('lag', 0)}"
                + (", restart pending" if member.get("pending_restart") else "")
            )
            # Every member says the same of all, unless they are apart.
            if line not in notes:
                notes.append(line)
        for certificate in info.get("certificates", []):
            if not certificate.get("error"):
                notes.append(
                    f"Certificate of {certificate['server_name']} on {host}: {certificate['days_left']:.0f} days left "
                    f"(until {certificate['not_after']}), issued by {certificate['issuer']}"
                )
    found = problems(hosts)
    services = [service for info in hosts.values() for service in info.get("services", [])]
    up = sum(1 for service in services if service_problem(service) is None)
    verdict = [f"{up} of {len(services)} services are up on {len(hosts)} host(s)."]
    if found:
        verdict.append(f"{len(found)} problem(s):")
        verdict.extend(f"  - {line}" for line in found)
    return "\n".join([*table(rows), "", *notes, "", *verdict])
