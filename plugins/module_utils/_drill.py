# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failover drill found, beside what was promised: the evidence. Pure functions: no Ansible import, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

PLANNED = "switchover_stall_s"
UNPLANNED = "failover_stall_s"

FAULTS = {
    "switchover": PLANNED,
    "restart_primary_container": PLANNED,
    "rolling_restart": PLANNED,
    "minor_upgrade": PLANNED,
    "patch": PLANNED,
    "stop_etcd_member": PLANNED,
    "quorum_loss": PLANNED,
    "kill_postgresql": UNPLANNED,
    "kill_patroni": UNPLANNED,
    "partition_primary": UNPLANNED,
    "power_off": UNPLANNED,
    "freeze": UNPLANNED,
}
"""Fault to the objective that its stall is held against. Where nothing may fail over, users must not notice more than at a switchover."""

COUNTS = {
    "lost_writes": "acknowledged writes lost",
    "failed_requests": "failed requests",
    "logouts": "logouts",
}
"""Objectives that are numbers of something bad, and how a person calls them."""


class Row(NamedTuple):
    """One line of the table: what was promised and what was measured."""

    measure: str
    promised: float | None
    measured: float
    unit: str

    @property
    def kept(self) -> bool:
        """Whether the promise was kept; nothing was broken where nothing was promised."""
        return self.promised is None or self.measured <= self.promised


def merge(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the summary of the probe with those of writers beside members.

    Times and requests are the probe's. Losses add up, and reigns are compared across all of them, because a member that is cut off
    answers nobody else than the writer beside it.

    Args:
        summaries: the probe's own first.
    """
    merged = dict(summaries[0])
    merged["lost_writes"] = sum(summary["lost_writes"] for summary in summaries)
    merged["writes"] = sum(summary["writes"] for summary in summaries)
    merged["write_errors"] = {path: count for summary in summaries for path, count in summary["write_errors"].items()}
    merged["left_behind"] = [words for summary in summaries for words in summary["left_behind"]]
    merged["reigns"] = sorted((reign for summary in summaries for reign in summary["reigns"]), key=lambda reign: reign[1])
    merged["two_primaries"] = sum(
        _overlap(one, other) for number, one in enumerate(merged["reigns"]) for other in merged["reigns"][number + 1 :]
    )
    return merged


def _overlap(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two members were certainly primary at the same moment; the rule is explained in the drill role's measures.py."""
    (member, _sent, first, last, _received), (peer, _peer_sent, peer_first, peer_last, _peer_received) = one, other
    return bool(member != peer and first < peer_last and peer_first < last)


def rows(measured: Mapping[str, Any], fault: str, objectives: Mapping[str, Any]) -> list[Row]:
    """Return what has a promise, or could have one.

    Args:
        measured: result of :func:`merge`.
        fault: a key of :data:`FAULTS`.
        objectives: C(objectives) of the inventory.
    """

    def promise(name: str) -> float | None:
        return None if objectives.get(name) is None else float(objectives[name])

    return [
        Row("longest time without an acknowledged write", promise(FAULTS[fault]), measured["stall_s"], "s"),
        *(Row(words, promise(name), measured[name], "") for name, words in COUNTS.items()),
        # Nobody can promise anything else.
        Row("overlaps of two primaries", 0.0, measured["two_primaries"], ""),
    ]


def table(found: Sequence[Row], measured: Mapping[str, Any]) -> list[str]:
    """Return the lines that a person reads."""
    cells = [("", "promised", "measured", "")]
    for row in found:
        promised = "nothing" if row.promised is None else f"at most {row.promised:g} {row.unit}".rstrip()
        verdict = "" if row.promised is None else "kept" if row.kept else "BROKEN"
        cells.append((row.measure, promised, f"{row.measured:g} {row.unit}".rstrip(), verdict))
    cells += [
        ("slowest request", "", f"{measured['slowest_request_s']:g} s", ""),
        ("longest time without a write before the fault", "", f"{measured['usual_stall_s']:g} s", ""),
        ("writes, of which broken off", "", f"{measured['writes']}, {sum(measured['write_errors'].values())}", ""),
        ("requests", "", str(measured["requests"]), ""),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in cells]
    return [*lines, *(f"  {words}" for words in measured["complaints"]), *(f"left behind: {words}" for words in measured["left_behind"])]


def record(
    summaries: Sequence[Mapping[str, Any]],
    *,
    fault: str,
    cluster: str,
    victim: str,
    objectives: Mapping[str, Any],
    machines: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the evidence of a drill.

    Args:
        summaries: what the probe and the writers beside members printed, the probe's own first.
        fault: a key of :data:`FAULTS`.
        cluster: name of the cluster.
        victim: member that led before.
        objectives: C(objectives) of the inventory.
        machines: host to what C(preflight_info) found.

    Returns:
        C(record), the evidence as plain data; C(name) for its file; C(table), lines for a person; C(broken), sentences.
    """
    measured = merge(summaries)
    found = rows(measured, fault, objectives)
    broken = [f"{row.measure}: {row.measured:g}, promised at most {row.promised:g} {row.unit}".rstrip() for row in found if not row.kept]
    broken += [f"left behind: {words}" for words in measured["left_behind"]]
    when = datetime.fromtimestamp(measured["start"], UTC)
    after = measured["reigns"][-1][0] if measured["reigns"] else ""
    return {
        "name": f"failover-{when:%Y%m%dT%H%M%SZ}-{fault.replace('_', '-')}.json",
        "record": {
            "kind": "failover",
            "date": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "cluster": cluster,
            "fault": fault,
            "primary_before": victim,
            "primary_after": after,
            "kept": not broken,
            "broken": broken,
            "objectives": dict(objectives),
            "measured": {key: value for key, value in measured.items() if key not in ("versions", "timers")},
            "versions": measured.get("versions", {}),
            "timers": measured.get("timers", {}),
            "machines": {host: {key: facts.get(key) for key in ("cpus", "memory_mb")} for host, facts in machines.items()},
        },
        "table": [
            f"{fault} of {cluster}, led by {victim} before and {after or 'nobody'} after, {when:%Y-%m-%d %H:%M} UTC",
            *table(found, measured),
        ],
        "broken": broken,
    }
