#!/usr/bin/env python3
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure how quick and how small a deployment is: `make bench-converge`.

Prints one line a figure, tab-separated: name, wanted, got, unit, `ok` or `short`. Progress and the slowest tasks go to standard error.
Every time is the median of several runs. Ends with 0 when the measuring worked, whatever the figures are.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, environment
from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

MIB = 1024 * 1024
PAGE = REPOSITORY / "docs/benchmarks.md"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured number beside the most, or the least, that it should be."""

    name: str
    wanted: float
    got: float
    unit: str
    least: bool = False

    @property
    def verdict(self) -> str:
        """``ok``, or ``short`` of what was wanted."""
        return "ok" if (self.got >= self.wanted if self.least else self.got <= self.wanted) else "short"

    @property
    def cells(self) -> list[str]:
        """Texts for a line or a table row."""
        return [self.name, f"{self.wanted:.4g}", f"{self.got:.2f}".rstrip("0").rstrip("."), self.unit, self.verdict]


def say(text: str) -> None:
    """Print progress."""
    sys.stderr.write(f"{text}\n")


def unchanged_runs(play: Player, runs: int) -> tuple[list[Figure], list[Run]]:
    """Time of a run that changes nothing, and how often it sends something to the host."""
    play("playbooks/site.yml").expect_success()
    done = [play("playbooks/site.yml").expect_success() for _ in range(runs)]
    changed = [name for run in done for name in run.changed]
    if changed:
        raise SystemExit(f"A second run is not idle, so nothing can be measured: {', '.join(sorted(set(changed)))} reported a change.")
    checking = [sum(task.seconds for task in run.tasks if task.play == run.tasks[0].play) for run in done]
    return [
        Figure("site_unchanged", 10, statistics.median(run.seconds for run in done), "s"),
        Figure("site_unchanged_remote_tasks", 25, statistics.median(run.remote_tasks for run in done), "tasks"),
        Figure("preflight", 5, statistics.median(checking), "s"),
    ], done


def slowest(runs: list[Run], count: int = 8) -> list[tuple[str, float]]:
    """The tasks that take the longest, with their median seconds."""
    times: dict[str, list[float]] = {}
    for task in (task for run in runs for task in run.tasks):
        times.setdefault(task.task, []).append(task.seconds)
    return sorted(((name, statistics.median(values)) for name, values in times.items()), key=lambda item: -item[1])[:count]


def one_setting(play: Player, host: Host, runs: int) -> list[Figure]:
    """Time of a change of one Odoo setting, and how many containers it touches."""
    seconds, touched = [], []
    for number in range(runs):
        before = host.containers()
        seconds.append(play("playbooks/site.yml", variables={"odoo_limit_time_real_cron": 601 + number}).expect_success().seconds)
        after = host.containers()
        touched.append(sum(name not in before or after[name].identity != before[name].identity for name in after))
    play("playbooks/site.yml").expect_success()
    return [
        Figure("odoo_setting_changed", 20, statistics.median(seconds), "s"),
        Figure("odoo_setting_changed_containers", 1, max(touched), "containers"),
    ]


def compose_project(play: Player, host: Host, runs: int) -> list[Figure]:
    """Seconds that an unchanged compose_project needs on the host, with Python's start and without SSH."""
    kept = {"ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_PIPELINING": "0"}
    try:
        play("playbooks/site.yml", variables={"ansible_pipelining": False}, settings=kept).expect_success()
        script = (
            "import glob, json, statistics, subprocess, sys, time\n"
            "medians = []\n"
            f"for module in glob.glob('/home/{host.variables['ansible_user']}/.ansible/tmp/*/AnsiballZ_compose_project.py'):\n"
            "    times = []\n"
            f"    for _ in range({runs}):\n"
            "        began = time.monotonic()\n"
            "        done = subprocess.run([sys.executable, module], capture_output=True, check=True)\n"
            "        times.append(time.monotonic() - began)\n"
            "        assert json.loads(done.stdout)['changed'] is False\n"
            "    medians.append(statistics.median(times))\n"
            "print(json.dumps(medians))\n"
        )
        medians = json.loads(host.run("python3 -", stdin=script, timeout=300))
    finally:
        host.run(f"rm -rf /home/{host.variables['ansible_user']}/.ansible/tmp")
    if not medians:
        raise SystemExit("No compose_project module was left on the host to be measured.")
    return [Figure("compose_project_unchanged_on_host", 0.3, max(medians), "s")]


def memory(host: Host) -> list[Figure]:
    """Memory of all containers: without the page cache that can be dropped (as `docker stats` counts), and anonymous memory alone."""
    usage = anonymous = 0
    for container in host.containers().values():
        stats = json.loads(
            host.run(f"curl -s --unix-socket /run/docker.sock 'http://docker/containers/{container.id}/stats?stream=false&one-shot=true'")
        )["memory_stats"]
        details = stats["stats"]
        # cgroup v1 names the first of each pair, v2 the second.
        usage += stats["usage"] - details.get("total_inactive_file", details.get("inactive_file", 0))
        anonymous += details.get("total_rss", details.get("anon", 0))
    return [
        Figure("memory_idle", 1536, usage / MIB, "MiB"),
        Figure("memory_idle_anonymous", 1536, anonymous / MIB, "MiB"),
    ]


def five_hosts(runs: int) -> list[Figure]:
    """Time of a run that ends in preflight, for five hosts: from typing the command until every problem is on the screen."""
    lab = "five"
    machines = [
        *({"name": f"app{number}", "groups": ["edge", "app", "cache"], "memory_mb": 512} for number in (1, 2)),
        *({"name": f"db{number}", "groups": ["database"], "memory_mb": 512} for number in (1, 2, 3)),
    ]
    create = ["ansible-playbook", "molecule/shared/create.yml", "-e", json.dumps({"lab_name": lab, "lab_vms": machines})]
    destroy = ["ansible-playbook", "molecule/shared/destroy.yml", "-e", f"lab_name={lab}"]
    subprocess.run(create, cwd=REPOSITORY, env=environment(), stdout=sys.stderr, check=True)
    try:
        play = Player(Lab(lab, (REPOSITORY / "inventories/ha", REPOSITORY / ".cache/lab" / lab / "inventory")), say)
        done = [
            play("playbooks/site.yml", variables={"preflight_minimum_disk_gb": 10**6}).expect_refusal("preflight_minimum_disk_gb")
            for _ in range(runs)
        ]
        asked = {task.host for run in done for task in run.tasks if task.remote}
        if len(asked) != len(machines):
            raise SystemExit(f"Preflight asked {', '.join(sorted(asked))} and not {len(machines)} hosts, so nothing was measured.")
    finally:
        subprocess.run(destroy, cwd=REPOSITORY, env=environment(), stdout=sys.stderr, check=True)
    return [Figure("preflight_five_hosts", 5, statistics.median(run.seconds for run in done), "s")]


def demo(*, from_nothing: bool) -> list[Figure]:
    """Time of `make demo`, from nothing (removes all labs, images and caches of this checkout) or with images."""
    subprocess.run(["make", "clean" if from_nothing else "demo-down"], cwd=REPOSITORY, stdout=sys.stderr, check=True)
    began = time.monotonic()
    subprocess.run(["make", "demo"], cwd=REPOSITORY, stdout=sys.stderr, check=True)
    name, wanted = ("demo_from_nothing", 600) if from_nothing else ("demo_with_images", 240)
    return [Figure(name, wanted, time.monotonic() - began, "s")]


def machine() -> str:
    """The size of the machine that measured."""
    kib = int(next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")))
    return f"{len(os.sched_getaffinity(0))} cores, {kib / 2**20:.0f} GiB, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"


def table(figures: list[Figure], tasks: list[tuple[str, float]], command: str) -> str:
    """The section of docs/benchmarks.md."""
    lines = [
        f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {machine()}, with `{command}`.",
        "",
        "| Figure | Wanted, at most | Got | Unit | |",
        "|---|---:|---:|---|---|",
        *("| " + " | ".join(figure.cells) + " |" for figure in figures),
    ]
    if tasks:
        lines += ["", "The slowest tasks of a run that changes nothing, median seconds:", "", "| Task | s |", "|---|---:|"]
        lines += [f"| {name} | {seconds:.2f} |" for name, seconds in tasks]
    return "\n".join(lines)


def write(text: str, section: str = "bench-converge") -> None:
    """Replace a section of docs/benchmarks.md."""
    begin, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{PAGE} has no section between {begin} and {end}.")
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", default="demo", help="a lab with a deployed site (default: demo)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default: 5)")
    parser.add_argument("--demo", action="store_true", help="also destroy and make the demo, with the images that are there")
    parser.add_argument(
        "--from-nothing", action="store_true", help="also remove ALL labs, images and caches of this checkout, and make the demo"
    )
    parser.add_argument(
        "--five-hosts", action="store_true", help="also make a lab of five small hosts, and time a refusal of preflight there"
    )
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    figures: list[Figure] = []
    if options.from_nothing:
        figures += demo(from_nothing=True)
    if options.demo:
        figures += demo(from_nothing=False)
    lab = Lab(options.lab, (REPOSITORY / "inventories/single", REPOSITORY / ".cache/lab" / options.lab / "inventory"))
    if not lab.directory.is_dir():
        raise SystemExit(f"There is no lab {options.lab} to measure. Type: make demo")
    play = Player(lab, say)
    # Before anything else is done to it: this is what the stack needs when nobody works.
    figures += memory(lab.host)
    unchanged, runs = unchanged_runs(play, options.runs)
    figures += unchanged
    figures += compose_project(play, lab.host, options.runs)
    figures += one_setting(play, lab.host, options.runs)
    if options.five_hosts:
        figures += five_hosts(options.runs)
    for figure in figures:
        sys.stdout.write("\t".join(figure.cells) + "\n")
    tasks = slowest(runs)
    say("The slowest tasks of a run that changes nothing, median seconds:")
    for name, seconds in tasks:
        say(f"  {seconds:6.2f}  {name}")
    if options.write:
        write(
            table(
                figures,
                tasks,
                f'make bench-converge BENCH="{" ".join(sys.argv[1:])}"',
            )
        )


if __name__ == "__main__":
    main()
