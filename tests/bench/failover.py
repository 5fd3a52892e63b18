#!/usr/bin/env python3
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what users feel when the database fails: `make bench-failover`.

Every run is a drill of playbooks/drill_failover.yml on a lab of four VMs with the plan `fast`, and a failed VM is the lab's container
killed or paused. Prints one line a figure, tab-separated: name, wanted, got, unit, `ok` or `short`; a stall is the median of the runs, anything
counted is their worst. Progress and the spread go to standard error, every run to a CSV file. Ends with 0 when the measuring worked.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.berth.odoo.tests.bench.converge import Figure, machine, say, write
from ansible_collections.berth.odoo.tests.support.drill import drill, failover_lab, wait_until_fit, with_other_images
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY
from ansible_collections.berth.odoo.tests.support.playbook import Player

# Seconds without an acknowledged write that are wanted at most. Where nothing may fail over the wish is none; a second is what a busy
# machine does by itself.
WANTED = {
    "switchover": 3.0,
    "restart_primary_container": 3.0,
    "kill_postgresql": 5.0,
    "kill_patroni": 5.0,
    "power_off": 25.0,
    "partition_primary": 27.0,
    "freeze": 30.0,
    "rolling_restart": 3.0,
    "minor_upgrade": 3.0,
    "stop_etcd_member": 1.0,
    "quorum_loss": 1.0,
}
COUNTS = ("lost_writes", "failed_requests", "logouts", "two_primaries")
COLUMNS = (
    *(
        "fault",
        "date",
        "primary_before",
        "primary_after",
        "stall_s",
        "stall_pool_s",
        "stall_session_s",
        "usual_stall_s",
        "slowest_request_s",
    ),
    *("lost_writes", "failed_requests", "logouts", "two_primaries", "writes", "write_errors", "requests", "left_behind"),
)


class Outcome(NamedTuple):
    """One drill."""

    fault: str
    record: dict[str, Any]

    @property
    def row(self) -> dict[str, Any]:
        """A line of the CSV file."""
        measured = self.record["measured"]
        return {
            **{key: value for key, value in measured.items() if key in COLUMNS},
            "fault": self.fault,
            **{key: self.record[key] for key in ("date", "primary_before", "primary_after")},
            **{f"stall_{path}_s": gap["seconds"] for path, gap in measured["stalls"].items()},
            "write_errors": sum(measured["write_errors"].values()),
            "left_behind": "; ".join(measured["left_behind"]),
        }


def spread(outcomes: list[Outcome], measure: str) -> str:
    """Least, median and most of a measure."""
    values = [outcome.record["measured"][measure] for outcome in outcomes]
    return f"{min(values):.1f} / {statistics.median(values):.1f} / {max(values):.1f}"


def figures(fault: str, outcomes: list[Outcome]) -> list[Figure]:
    """The figures of one fault."""
    measured = [outcome.record["measured"] for outcome in outcomes]
    stall = statistics.median(one["stall_s"] for one in measured)
    return [
        Figure(f"{fault}_stall", WANTED[fault], stall, "s"),
        *(Figure(f"{fault}_{name}", 0, max(one[name] for one in measured), "") for name in COUNTS),
    ]


def table(outcomes: list[Outcome], command: str) -> str:
    """The section of docs/benchmarks.md."""
    first = outcomes[0].record
    timers, versions = first["timers"], first["versions"]
    lines = [
        f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {machine()}, with `{command}`: four lab VMs on this one machine, PostgreSQL "
        f"{versions['postgresql']}, Patroni {versions['patroni']}, Odoo {versions['odoo']}; ttl {timers['ttl']} s, loop_wait {timers['loop_wait']} s, "
        f"retry_timeout {timers['retry_timeout']} s, primary_start_timeout {timers['primary_start_timeout']} s, synchronous_mode "
        f"{timers['synchronous_mode']}. Seconds are least / median / most of the runs, counts are the sum of all runs.",
        "",
        "| Fault | Runs | Stall wanted, at most | Stall | Without the fault | Slowest request | Lost | Failed requests | Logouts | Two primaries | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.fault == fault]
        verdict = "ok" if all(figure.verdict == "ok" for figure in figures(fault, mine)) else "short"
        totals = [str(sum(outcome.record["measured"][name] for outcome in mine)) for name in COUNTS]
        requests = sum(outcome.record["measured"]["requests"] for outcome in mine)
        totals[1] += f" of {requests}"
        totals[0] += f" of {sum(outcome.record['measured']['writes'] for outcome in mine)}"
        seconds = [spread(mine, measure) for measure in ("stall_s", "usual_stall_s", "slowest_request_s")]
        lines.append("| " + " | ".join([fault, str(len(mine)), f"{WANTED[fault]:g}", *seconds, *totals, verdict]) + " |")
    lines += [
        "",
        "Every run:",
        "",
        "| Fault | From | To | Stall by the pool | By the session pooler | Slowest request | Failed | Writes broken off |",
    ]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|"]
    for outcome in outcomes:
        row = outcome.row
        cells = (
            "fault",
            "primary_before",
            "primary_after",
            "stall_pool_s",
            "stall_session_s",
            "slowest_request_s",
            "failed_requests",
            "write_errors",
        )
        lines.append("| " + " | ".join(str(row[cell]) for cell in cells) + " |")
    return "\n".join(lines)


def keep(outcomes: list[Outcome], file: Path) -> None:
    """Write every run so far, so that an interrupted bench has not been for nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as output:
        writer = csv.DictWriter(output, COLUMNS)
        writer.writeheader()
        writer.writerows(outcome.row for outcome in outcomes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", default="ha", help="a lab of molecule/ha with a deployed site (default: ha)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each fault (default: 3)")
    parser.add_argument("--faults", nargs="+", choices=sorted(WANTED), default=list(WANTED), metavar="FAULT", help="these only")
    parser.add_argument("--seconds", type=int, default=60, help="how long something stays cut off, stopped or frozen (default: 60)")
    parser.add_argument("--csv", type=Path, default=REPOSITORY / ".cache/bench-failover.csv", help="file for every run")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    lab = failover_lab(options.lab)
    if not lab.directory.is_dir():
        raise SystemExit(f"There is no lab {options.lab} to measure. Type: molecule create -s ha && molecule prepare -s ha")
    play = Player(lab, say)
    play("playbooks/site.yml").expect_success()
    outcomes: list[Outcome] = []
    for number in range(options.runs):
        for fault in options.faults:
            wait_until_fit(lab)
            player = play
            if fault == "minor_upgrade":
                player = with_other_images(play, f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}")
            # Its exit code judges the promises of the tests' inventory; here the figures count.
            run, record = drill(player, fault, drill_seconds=options.seconds)
            if record is None:
                raise SystemExit(f"Run {number + 1} of {fault} came to no evidence:\n{run.tail}")
            outcomes.append(Outcome(fault, record))
            keep(outcomes, options.csv)
            measured = record["measured"]
            say(
                f"  {fault}: stall {measured['stall_s']} s, slowest request {measured['slowest_request_s']} s, {measured['complaints'] or 'no complaint'}"
            )
    for fault in options.faults:
        mine = [outcome for outcome in outcomes if outcome.fault == fault]
        for figure in figures(fault, mine):
            sys.stdout.write("\t".join(figure.cells) + "\n")
        say(f"{fault}: stall {spread(mine, 'stall_s')} s (least / median / most)")
    if options.write:
        write(table(outcomes, f'make bench-failover BENCH="{" ".join(sys.argv[1:])}"'), "bench-failover")


if __name__ == "__main__":
    main()
