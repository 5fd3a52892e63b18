# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the stages of the test suite one after the other and say at the end what passed.

    python tests/run.py                     everything, as `make test` and .ci/run do
    python tests/run.py lint unit           these stages, as `make check` does
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
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.prefix, "bin")
LOGS = ROOT / ".cache/test"

# In the order they run: what everything else stands on first.
SCENARIOS = ("default", "compose_project", "roles")


@dataclass(frozen=True)
class Step:
    """One command of a stage.

    Attributes:
        name: unique in its stage.
        argv: the command.
        timeout: seconds; then its whole process group is stopped and the step has failed.
        cwd: where it runs.
        lab: name of the lab it uses; it is searched for the cause when the step fails, and destroyed in any case.
    """

    name: str
    argv: tuple[str, ...]
    timeout: int = 300
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
        if (ROOT / name).open("rb").readline(64).startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash"))
    )


def lint() -> list[Step]:
    """Read the files without running them."""
    return [
        Step("ruff", ("ruff", "check", ".")),
        Step("ruff-format", ("ruff", "format", "--check", ".")),
        Step("mypy", ("tools/mypy",)),
        Step("yamllint", ("yamllint", "--strict", *tracked("*.yml", "*.yaml", ".yamllint", ".ansible-lint"))),
        Step("ansible-lint", ("ansible-lint", "--offline", "--strict", "--nocolor")),
        Step("hadolint", ("hadolint", *tracked("*Dockerfile"))),
        Step("shellcheck", ("shellcheck", *scripts())),
        Step("changelog", ("antsibull-changelog", "lint")),
        Step("docs", (sys.executable, "tools/docs.py", "--check")),
        Step(
            "plugin-docs",
            ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "--skip-rstcheck", "."),
        ),
    ]


def unit() -> list[Step]:
    """Pure logic: no engine, no network."""
    return [Step("pytest", ("pytest", "-q", "tests/unit"))]


def sanity() -> list[Step]:
    """What Ansible demands of every collection."""
    return [Step("ansible-test", (sys.executable, "tools/sanity.py"), timeout=600)]


def build() -> list[Step]:
    """The archive a user installs."""
    return [Step("artifact", ("pytest", "-q", "tests/artifact"), timeout=180)]


def lab() -> list[Step]:
    """The lab's own life: made, rebooted, interrupted, removed."""
    return [Step("lifecycle", ("pytest", "-v", "tests/lab"), timeout=900, lab="lifecycle")]


def molecule() -> list[Step]:
    """Playbooks and roles on lab VMs."""
    # --destroy=never: a VM that failed is searched for the cause before it goes.
    return [
        Step(name, ("molecule", "test", "--scenario-name", name, "--destroy=never"), timeout=1500, lab=name)
        for name in SCENARIOS
        if (ROOT / "molecule" / name / "molecule.yml").is_file()
    ]


STAGES = {function.__name__: function for function in (lint, unit, sanity, build, lab, molecule)}


def choose(wanted: list[str]) -> list[tuple[str, Step]]:
    """Steps for arguments such as ``lint`` or ``molecule:default``; all of them without arguments.

    Raises:
        SystemExit: an argument names nothing.
    """
    steps = [(stage, step) for stage, function in STAGES.items() for step in function()]
    if not wanted:
        return steps
    chosen = [(stage, step) for stage, step in steps if {stage, f"{stage}:{step.name}"} & set(wanted)]
    unknown = [name for name in wanted if not any(name in (stage, f"{stage}:{step.name}") for stage, step in steps)]
    if unknown:
        raise SystemExit(
            f"No such stage or step: {' '.join(unknown)}. There are: {' '.join(f'{stage}:{step.name}' for stage, step in steps)}"
        )
    return chosen


@contextlib.contextmanager
def lab_of(result: Result) -> Iterator[None]:
    """Search the lab of a failed step for the cause, then destroy it in any case."""
    lab = result.step.lab
    try:
        yield
    finally:
        if lab and result.problem:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([str(ROOT / "tools/diagnose"), lab], cwd=ROOT, check=False, timeout=60, stdin=subprocess.DEVNULL)
        if lab:
            argv = (sys.executable, "-m", "berth_lab", "--project", str(ROOT), "destroy", lab)
            problem = execute(result.stage, Step(f"{lab}-destroy", argv, timeout=180, cwd=ROOT / "molecule/shared"))
            result.problem = result.problem or (f"destroy: {problem}" if problem else "")


def execute(stage: str, step: Step) -> str:
    """Run one command and copy its output to the terminal and to its log; return what went wrong, "" when nothing did."""
    log = LOGS / f"{stage}-{step.name}.log"
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT / ".cache/collections"),
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("w", encoding="utf-8") as file:
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
        timer = signal.setitimer(signal.ITIMER_REAL, step.timeout)
        try:
            assert process.stdout is not None  # for the type checker: stdout=PIPE
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                file.write(line)
            code = process.wait()
        except TimeoutError:
            return f"did not end within {step.timeout} s"
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            stop(process)
    return "" if code == 0 else f"exit code {code}"


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
    lines += [f"FAILED {r.stage}:{r.step.name}: {r.problem}; log: {LOGS.relative_to(ROOT)}/{r.stage}-{r.step.name}.log" for r in failed]
    lines += ["", f"{len(results) - len(failed)} passed, {len(failed)} failed"]
    return "\n".join(lines)


def now() -> str:
    """Time of day, for the lines that say when a step began and ended."""
    return time.strftime("%H:%M:%S")


def raise_timeout(*_: object) -> None:
    """Signal handler of the steps' time limit."""
    raise TimeoutError


def raise_exit(number: int, _: object) -> None:
    """Turn SIGTERM into an exception, so that what we started is stopped."""
    raise SystemExit(128 + number)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", help="stage, or stage:step")
    parser.add_argument("--list", action="store_true", help="print the steps and exit")
    arguments = parser.parse_args()
    chosen = choose(arguments.steps)
    if arguments.list:
        print("\n".join(f"{stage}:{step.name}\t{' '.join(step.argv)[:100]}" for stage, step in chosen))
        return 0
    signal.signal(signal.SIGALRM, raise_timeout)
    signal.signal(signal.SIGTERM, raise_exit)
    LOGS.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for stage, step in chosen:
        print(f"\n=== {now()} {stage}:{step.name}", flush=True)
        started = time.monotonic()
        result = Result(stage, step, 0, "interrupted")
        results.append(result)
        with lab_of(result):
            result.problem = execute(stage, step)
        result.seconds = time.monotonic() - started
        print(f"=== {now()} {stage}:{step.name} {result.problem or 'ok'} after {result.seconds:.1f} s", flush=True)
    print(summary(results), flush=True)
    return 1 if any(result.problem for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
