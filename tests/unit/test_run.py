# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that runs the test suite: it must not call a failure a success, nor leave anything running."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from ansible_collections.berth.odoo.tests import run
from ansible_collections.berth.odoo.tests.support.lab import wait_for


def python(name: str, code: str, timeout: int = 30) -> run.Step:
    return run.Step(name, (sys.executable, "-c", code), timeout=timeout)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[run.Step]]:
    """Stages to fill in; the program then runs these."""
    stages: dict[str, list[run.Step]] = {"one": [], "two": []}
    monkeypatch.setattr(run, "STAGES", {name: lambda name=name: stages[name] for name in stages})
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "LOGS", tmp_path / "logs")
    return stages


def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    return run.main(), capsys.readouterr().out


def test_a_failure_does_not_keep_later_steps_from_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: dict[str, list[run.Step]], tmp_path: Path
) -> None:
    steps["one"] = [python("bad", "print('why it failed'); raise SystemExit(3)")]
    steps["two"] = [python("good", "print('fine')")]
    code, out = main(monkeypatch, capsys)
    assert code == 1
    assert out.splitlines()[-1] == "1 passed, 1 failed"
    assert "FAILED one:bad: exit code 3; log: logs/one-bad.log" in out
    assert (tmp_path / "logs/one-bad.log").read_text() == "why it failed\n"
    assert out.index("why it failed") < out.index("fine") < out.index("--- the end of one:bad\nwhy it failed\n")


def test_a_step_that_hangs_is_stopped_with_its_children(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: dict[str, list[run.Step]], tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    child = f"import os, time, pathlib; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)"
    steps["one"] = [python("hangs", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])", timeout=10)]
    code, out = main(monkeypatch, capsys)
    assert code == 1
    assert "one:hangs did not end within 10 s" in out
    stat = Path("/proc", note.read_text(), "stat")

    def gone() -> bool:
        try:
            # Whoever adopts orphans here may not have collected it yet; then it is a zombie.
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for("the end of the child", gone, seconds=30)


def test_a_lab_is_removed_after_success_failure_and_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: dict[str, list[run.Step]], tmp_path: Path
) -> None:
    package = tmp_path / "molecule/shared/berth_lab"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("import sys; print('argv', sys.argv[3:])")
    diagnose = tmp_path / "tools/diagnose"
    diagnose.parent.mkdir()
    diagnose.write_text("#!/bin/sh\necho diagnosing $1\n")
    diagnose.chmod(0o755)
    stale = tmp_path / ".cache/molecule/green/state.yml"
    believed = f"import os, pathlib; assert os.environ['MOLECULE_EPHEMERAL_DIRECTORY'] == {str(stale.parent)!r}; "
    believed += f"assert not pathlib.Path({str(stale)!r}).exists(); "
    for code, expected in (("", "1 passed, 0 failed"), ("raise SystemExit(1)", "0 passed, 1 failed")):
        stale.parent.mkdir(parents=True)
        stale.write_text("created: true")
        steps["one"] = [dataclasses.replace(python("a", f"{believed}print('runs'); {code}"), lab="green")]
        out = main(monkeypatch, capsys)[1]
        assert out.index("argv ['destroy', 'green']") < out.index("runs\n") < out.rindex("argv ['destroy', 'green']")
        assert not stale.parent.exists()
        assert ("diagnosing green" in out) == bool(code)
        assert out.splitlines()[-1] == expected
    steps["one"] = [
        dataclasses.replace(python("a", f"import os, signal, time; os.kill({os.getpid()}, signal.SIGTERM); time.sleep(60)"), lab="green")
    ]
    with pytest.raises(SystemExit, match="143"):
        main(monkeypatch, capsys)
    assert "argv ['destroy', 'green']" in capsys.readouterr().out


def test_one_stage_or_step_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: dict[str, list[run.Step]]
) -> None:
    steps["one"] = [python("a", ""), python("b", "")]
    steps["two"] = [python("c", "raise SystemExit(1)")]
    assert main(monkeypatch, capsys, "one")[1].endswith("2 passed, 0 failed\n")
    assert main(monkeypatch, capsys, "one:b")[1].endswith("1 passed, 0 failed\n")
    with pytest.raises(SystemExit, match="No such stage or step: three"):
        main(monkeypatch, capsys, "three")


@pytest.mark.parametrize(("arguments", "left_out"), [((), True), (("--nightly",), False), (("one",), False), (("one:a",), False)])
def test_what_is_named_runs_with_its_nightly_tests(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: dict[str, list[run.Step]],
    arguments: tuple[str, ...],
    left_out: bool,
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--color=no")
    steps["one"] = [python("a", "import os; print(os.environ['PYTEST_ADDOPTS'])")]
    assert ("--color=no -m 'not nightly'\n" in main(monkeypatch, capsys, *arguments)[1]) == left_out


def test_labs_run_in_pairs_before_what_has_to_be_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: dict[str, list[run.Step]], tmp_path: Path
) -> None:
    package = tmp_path / "molecule/shared/berth_lab"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("")
    monkeypatch.setattr(run, "IN_PAIRS", ("waits", "meets", "later"))
    met = tmp_path / "met"
    # Ends only while the other one runs.
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(met)!r}).exists(): time.sleep(0.05)\nprint('met it')"
    meets = f"import pathlib; pathlib.Path({str(met)!r}).touch(); raise SystemExit(4)"
    names = {"waits": waits, "meets": meets, "later": "print('later')", "alone": "print('alone')"}
    steps["one"] = [dataclasses.replace(python(name, code), lab=name) for name, code in names.items()]
    diagnose = tmp_path / "tools/diagnose"
    diagnose.parent.mkdir()
    diagnose.write_text("#!/bin/sh\n")
    diagnose.chmod(0o755)
    code, out = main(monkeypatch, capsys)
    assert (code, out.splitlines()[-1]) == (1, "3 passed, 1 failed")
    lines = out.splitlines()
    assert lines.index("alone") > max(lines.index("waits: met it"), lines.index("later: later"))
    assert "FAILED one:meets: exit code 4; log: logs/one-meets.log" in out


def test_every_molecule_scenario_is_run() -> None:
    there = {file.parent.name for file in (run.ROOT / "molecule").glob("*/molecule.yml")}
    alone = {step.name for step in run.vm()}
    assert there == {run.FIRST, *run.IN_PAIRS, *alone} - {"lifecycle"}, "add the new scenario to IN_PAIRS in tests/run.py"
    by_day = {step.name for stage, step in run.choose([])}
    assert by_day.isdisjoint(run.AT_NIGHT)
    assert {step.name for stage, step in run.choose([], nightly=True)} == by_day | {*run.AT_NIGHT}
