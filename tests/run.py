# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the stages of the test suite one after the other and say at the end what passed.

    python tests/run.py                     every step, without the tests marked nightly, as `make test` and .ci/run do
    python tests/run.py --nightly           every step with every test, as `make test-nightly` does
    python tests/run.py lint unit           these stages, as `make check` does; every test of theirs
    python tests/run.py molecule:default    one step of a stage
    python tests/run.py --list              what there is

Every step runs even when one before it failed, so that one run shows everything; the exit code is 1 when any failed.
The output of each step goes to the terminal and to .cache/test/<stage>-<step>.log. Started by the Makefile with the Python
of .venv; needs the standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.prefix, "bin")
LOGS = ROOT / ".cache/test"
TAIL = 40  # last lines of a failed step's log that the summary repeats

# What everything else stands on, because it builds the images that all use.
FIRST = "default"

# Beside it, these stages: without an engine or a lab.
WITHOUT_LAB = ("lint", "unit", "sanity", "build")

# Then these labs, two at a time, because a scenario waits for most of its time. The longest first, so that both ends come at the same time.
IN_PAIRS = ("lifecycle", "backup", "apps", "tenants", "ha", "database", "roles", "compose_project", "hybrid")

# Of which every test is a nightly one.
AT_NIGHT = ("hybrid", "vm_site")

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Step:
    """One command of a stage.

    Attributes:
        name: unique in its stage.
        argv: the command.
        timeout: seconds; then its whole process group is stopped and the step has failed.
        cwd: where it runs.
        lab: name of the lab it uses; what an earlier run left of it is destroyed before the step, and the lab after it in any case. It is
            searched for the cause when the step fails.
    """

    name: str
    argv: tuple[str, ...]
    timeout: int = 1800
    cwd: Path = ROOT
    lab: str = ""


@dataclass
class Result:
    """How a step ended."""

    stage: str
    step: Step
    seconds: float
    problem: str = ""


def tracked(*patterns: str) -> tuple[str, ...]:
    """Files of the checkout that match, also those not yet added to git; a linter told to find files itself reads .venv too."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return tuple(sorted({name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()}))


def scripts() -> tuple[str, ...]:
    """Shell scripts: by their first line, because most have no extension."""
    return tuple(
        name
        for name in tracked()
        if name.endswith(".sh") or (ROOT / name).open("rb").readline(64).startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash"))
    )


def lint() -> list[Step]:
    """Read the files without running them."""
    return [
        # The longest first, so that the others run beside it.
        Step("ansible-lint", ("ansible-lint", "--offline", "--strict", "--nocolor"), timeout=3600),
        Step("ruff", ("ruff", "check", ".")),
        Step("ruff-format", ("ruff", "format", "--check", ".")),
        Step("mypy", ("tools/mypy",)),
        Step("yamllint", ("yamllint", "--strict", *tracked("*.yml", "*.yaml", ".yamllint", ".ansible-lint"))),
        Step("hadolint", ("hadolint", *tracked("*Dockerfile"))),
        Step("shellcheck", ("shellcheck", *scripts())),
        Step("changelog", ("antsibull-changelog", "lint")),
        Step("docs", (sys.executable, "tools/docs.py", "--check")),
        Step(
            "plugin-docs",
            ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=self", "--skip-rstcheck", "."),
        ),
    ]


def unit() -> list[Step]:
    """Pure logic: no engine, no network."""
    return [Step("pytest", ("pytest", "-q", "tests/unit"))]


def sanity() -> list[Step]:
    """What Ansible demands of every collection."""
    return [Step("ansible-test", (sys.executable, "tools/sanity.py"), timeout=3600)]


def build() -> list[Step]:
    """The archive a user installs."""
    return [Step("artifact", ("pytest", "-q", "tests/artifact"))]


def lab() -> list[Step]:
    """The lab's own life: made, rebooted, interrupted, removed."""
    return [Step("lifecycle", ("pytest", "-v", "tests/lab"), timeout=3600, lab="lifecycle")]


def molecule() -> list[Step]:
    """Playbooks and roles on lab VMs."""
    return [scenario(name) for name in (FIRST, *IN_PAIRS) if name != "lifecycle"]


def vm() -> list[Step]:
    """Lab VMs with a kernel of their own."""
    return [scenario("vm", timeout=2700), scenario("vm_site")]


def scenario(name: str, timeout: int = 14400) -> Step:
    """One Molecule scenario. Nothing is destroyed at its end: a VM that failed is searched for the cause before it goes."""
    return Step(name, ("molecule", "test", "--scenario-name", name, "--destroy=never"), timeout=timeout, lab=name)


STAGES = {function.__name__: function for function in (lint, unit, sanity, build, lab, molecule, vm)}


def choose(wanted: list[str], *, nightly: bool = False) -> list[tuple[str, Step]]:
    """Steps for arguments such as ``lint`` or ``molecule:default``; without arguments all, by day except those of AT_NIGHT.

    Raises:
        SystemExit: an argument names nothing.
    """
    steps = [(stage, step) for stage, function in STAGES.items() for step in function()]
    if not wanted:
        return [(stage, step) for stage, step in steps if nightly or step.lab not in AT_NIGHT]
    chosen = [(stage, step) for stage, step in steps if {stage, f"{stage}:{step.name}"} & set(wanted)]
    unknown = [name for name in wanted if not any(name in (stage, f"{stage}:{step.name}") for stage, step in steps)]
    if unknown:
        raise SystemExit(
            f"No such stage or step: {' '.join(unknown)}. There are: {' '.join(f'{stage}:{step.name}' for stage, step in steps)}"
        )
    return chosen


class Runner:
    """Runs steps, knows which processes are alive, and stops them all when told to.

    Args:
        nightly: whether pytest runs the tests that are marked so.
    """

    def __init__(self, *, nightly: bool) -> None:
        self._pytest_options = os.environ.get("PYTEST_ADDOPTS", "") + ("" if nightly else " -m 'not nightly'")
        self._alive: set[subprocess.Popen[str]] = set()
        self._printing = threading.Lock()

    def run(self, stage: str, step: Step, *, beside_others: bool) -> Result:
        """Run a step from nothing, and search and remove its lab.

        Args:
            stage: its stage.
            step: what to run.
            beside_others: do not print its output line by line: when it has ended, in one piece, or, because a lab takes minutes, with
                the step's name before each line.
        """
        began = time.monotonic()
        self._say(f"=== {now()} {stage}:{step.name}")
        problem = INTERRUPTED
        whole = beside_others and not step.lab
        try:
            problem = self._remove_lab(stage, step.lab) if step.lab else ""
            problem = problem or self._execute(stage, step, echo=not whole, before=f"{step.name}: " if beside_others else "")
        finally:
            if step.lab:
                problem = self._leave_lab(stage, step.lab, problem)
        result = Result(stage, step, time.monotonic() - began, problem)
        output = log_file(stage, step).read_text(encoding="utf-8") if whole else ""
        self._say(f"{output}=== {now()} {stage}:{step.name} {problem or 'ok'} after {result.seconds:.1f} s")
        return result

    def stop(self) -> None:
        """Stop every process that runs."""
        for process in list(self._alive):
            stop(process)

    def _leave_lab(self, stage: str, lab: str, problem: str) -> str:
        if problem not in ("", INTERRUPTED):
            self._execute(stage, Step(f"{lab}-diagnosis", (str(ROOT / "tools/diagnose"), lab), timeout=600), echo=True)
        left = self._remove_lab(stage, lab)
        return problem or left

    def _remove_lab(self, stage: str, lab: str) -> str:
        # Molecule keeps in here whether it has created the lab; --destroy=never leaves that note standing.
        shutil.rmtree(molecule_state(lab), ignore_errors=True)
        argv = (sys.executable, "-m", "berth_lab", "--project", str(ROOT), "destroy", lab)
        left = self._execute(stage, Step(f"{lab}-destroy", argv, timeout=600, cwd=ROOT / "molecule/shared"), echo=True)
        return f"its lab was not removed: {left}" if left else ""

    def _execute(self, stage: str, step: Step, *, echo: bool, before: str = "") -> str:
        """Run one command, its output into its log, and each line on the terminal after `before`; return what went wrong, "" when nothing did."""
        environment = os.environ | {
            "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT / ".cache/collections"),
            "PYTHONUNBUFFERED": "1",
            "PYTEST_ADDOPTS": self._pytest_options,
        }
        if step.lab:
            # Its default is below HOME and named after the checkout's last directory: another checkout of that name would be believed.
            environment["MOLECULE_EPHEMERAL_DIRECTORY"] = str(molecule_state(step.lab))
        expired = threading.Event()
        process = subprocess.Popen(
            step.argv,
            cwd=step.cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # its children are stopped with it
        )
        self._alive.add(process)

        def expire() -> None:
            expired.set()
            stop(process)

        watchdog = threading.Timer(step.timeout, expire)
        watchdog.start()
        try:
            assert process.stdout is not None  # for the type checker: stdout=PIPE
            with log_file(stage, step).open("w", encoding="utf-8") as file:
                for line in process.stdout:
                    file.write(line)
                    if echo:
                        self._say(before + line.rstrip("\n"))
            code = process.wait()
        finally:
            watchdog.cancel()
            stop(process)
            self._alive.discard(process)
        if expired.is_set():
            return f"did not end within {step.timeout} s"
        return "" if code == 0 else f"exit code {code}"

    def _say(self, text: str) -> None:
        with self._printing:
            print(text, flush=True)


def log_file(stage: str, step: Step) -> Path:
    """Where a step's output is kept."""
    return LOGS / f"{stage}-{step.name}.log"


def molecule_state(lab: str) -> Path:
    """Where Molecule keeps its notes about a scenario of this checkout."""
    return ROOT / ".cache/molecule" / lab


def stop(process: subprocess.Popen[str]) -> None:
    """End a process group: politely, then not. Also when its leader has ended and left something behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
            return


def summary(results: list[Result]) -> str:
    """The table at the end; its last line is for machines too."""
    lines = ["", f"{'stage':<12} {'step':<18} {'seconds':>8}  result"]
    lines += [f"{r.stage:<12} {r.step.name:<18} {r.seconds:8.1f}  {r.problem or 'ok'}" for r in results]
    failed = [r for r in results if r.problem]
    for r in failed:
        log = log_file(r.stage, r.step)
        tail = log.read_text(encoding="utf-8").splitlines()[-TAIL:] if log.exists() else []
        lines += ["", f"--- the end of {r.stage}:{r.step.name}", *tail]
    lines += [""] if failed else []
    lines += [f"FAILED {r.stage}:{r.step.name}: {r.problem}; log: {LOGS.relative_to(ROOT)}/{r.stage}-{r.step.name}.log" for r in failed]
    lines += ["", f"{len(results) - len(failed)} passed, {len(failed)} failed"]
    return "\n".join(lines)


def now() -> str:
    """Time of day, for the lines that say when a step began and ended."""
    return time.strftime("%H:%M:%S")


def raise_exit(number: int, _: object) -> None:
    """Turn SIGTERM into an exception, so that what we started is stopped."""
    raise SystemExit(128 + number)


def run_all(chosen: list[tuple[str, Step]], *, nightly: bool) -> list[Result]:
    """Run steps two at a time where they bear it, and then the others one by one."""
    runner = Runner(nightly=nightly)
    results: list[Result] = []
    pairs = [entry for entry in chosen if entry[1].lab == FIRST] + [entry for entry in chosen if entry[0] in WITHOUT_LAB]
    pairs += sorted((entry for entry in chosen if entry[1].lab in IN_PAIRS), key=lambda entry: IN_PAIRS.index(entry[1].lab))
    try:
        results += side_by_side(runner, pairs)
        for stage, step in chosen:
            if (stage, step) not in pairs:
                results.append(runner.run(stage, step, beside_others=False))
    finally:
        runner.stop()
    return results


def side_by_side(runner: Runner, entries: list[tuple[str, Step]]) -> list[Result]:
    """Begin steps in their order, two at a time."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = [pool.submit(runner.run, stage, step, beside_others=len(entries) > 1) for stage, step in entries]
        try:
            return [future.result() for future in running]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", help="stage, or stage:step")
    parser.add_argument("--list", action="store_true", help="print the steps and exit")
    parser.add_argument("--nightly", action="store_true", help="also the tests marked nightly, which steps that are named run anyway")
    arguments = parser.parse_args()
    chosen = choose(arguments.steps, nightly=arguments.nightly)
    if arguments.list:
        print("\n".join(f"{stage}:{step.name}\t{' '.join(step.argv)[:100]}" for stage, step in chosen))
        return 0
    signal.signal(signal.SIGTERM, raise_exit)
    LOGS.mkdir(parents=True, exist_ok=True)
    results = run_all(chosen, nightly=arguments.nightly or bool(arguments.steps))
    print(summary(results), flush=True)
    return 1 if any(result.problem for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
