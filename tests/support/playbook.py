# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run playbooks exactly as an operator types them, and keep what they did as data."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab, ansible, environment, leaks

CALLBACKS = Path(__file__).with_name("callback")
EMULATED: dict[str, Any] = {"timeout": 7200, "settings": {"ANSIBLE_TIMEOUT": "120"}}
"""Arguments of a run against a host whose processor is emulated, on which a login takes its time."""
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Task:
    """One task result on one host, as the callback recorded it."""

    play: str
    task: str
    action: str
    host: str
    seconds: float
    changed: bool
    failed: bool
    skipped: bool
    remote: int
    services: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run of ansible-playbook.

    Attributes:
        command: what was typed.
        code: exit code; negative when a signal ended it.
        output: standard output and standard error as a person saw them.
        seconds: wall-clock time.
        tasks: every task result, in order.
    """

    command: str
    code: int
    output: str
    seconds: float
    tasks: list[Task]

    @property
    def changed(self) -> list[str]:
        """Names of the tasks that reported a change."""
        return [task.task for task in self.tasks if task.changed]

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The PLAY RECAP by host."""
        names = ("ok", "changed", "unreachable", "failed")
        return {host: dict(zip(names, map(int, numbers), strict=True)) for host, *numbers in RECAP.findall(self.output)}

    @property
    def remote_tasks(self) -> int:
        """How often something was sent to a host."""
        return sum(task.remote for task in self.tasks)

    @property
    def text(self) -> str:
        """The output with each run of white space as one space, so that line breaks in messages do not matter."""
        return " ".join(self.output.split())

    def expect_success(self) -> Run:
        """Return itself, or fail with the end of the output."""
        assert self.code == 0, f"`{self.command}` ended with {self.code}:\n{self.tail}"
        return self

    def expect_refusal(self, *words: str) -> Run:
        """Return itself, or fail: the exit code must not be 0, and the output must hold all words."""
        assert self.code > 0, f"`{self.command}` ended with {self.code}, expected a refusal:\n{self.tail}"
        missing = [word for word in words if word not in self.text]
        assert not missing, f"`{self.command}` does not say {missing}:\n{self.tail}"
        return self

    @property
    def tail(self) -> str:
        """The last 60 lines of the output."""
        return "\n".join(self.output.splitlines()[-60:])


def descendants(pid: int) -> list[int]:
    """Process numbers of all children, their children and so on. Ansible's workers leave the process group of their parent."""
    children = [int(text) for file in Path("/proc", str(pid), "task").glob("*/children") for text in file.read_text().split()]
    return [found for child in children for found in (child, *descendants(child))]


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all its descendants, as when the controller loses its power."""
    for victim in [pid, *descendants(pid)]:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:  # ended by itself meanwhile
            continue


class Player:
    """Runs playbooks against one lab and looks for the lab's secrets in each output, and in the results of tasks, which AWX keeps and shows."""

    def __init__(self, lab: Lab, say: Callable[[str], None]) -> None:
        """``say`` prints a line of progress."""
        self.lab = lab
        self.say = say

    def __call__(
        self,
        playbook: str,
        *arguments: str,
        variables: Mapping[str, Any] | None = None,
        inventories: Sequence[Path] | None = None,
        vault_password_file: Path | None = None,
        settings: Mapping[str, str] | None = None,
        kill_at: str = "",
        kill_when: Callable[[], bool] | None = None,
        timeout: float = 3600,
    ) -> Run:
        """Run ``ansible-playbook``.

        Args:
            playbook: relative to the repository.
            arguments: more of the command line, such as ``--check``.
            variables: extra variables.
            inventories: instead of the lab's.
            vault_password_file: instead of the lab's.
            settings: more environment variables for Ansible.
            kill_at: name of the task before which the controller dies.
            kill_when: asked again and again during the run; the controller dies once it says True.
            timeout: seconds until the run is stopped and the test fails.
        """
        with tempfile.TemporaryDirectory(prefix="berth-test-") as name:
            record, results, extra, log = (Path(name, part) for part in ("tasks.jsonl", "results.jsonl", "extra.json", "output.txt"))
            extra.write_text(json.dumps(variables or {}), encoding="utf-8")
            record.touch()
            results.touch()
            argv = [
                *ansible("ansible-playbook"),
                *(part for source in inventories or self.lab.inventories for part in ("-i", str(source))),
                *("--vault-password-file", str(vault_password_file or self.lab.vault_password_file)),
                *(("-e", f"@{extra}") if variables else ()),
                *arguments,
                str(REPOSITORY / playbook),
            ]
            shown = " ".join(["ansible-playbook", *arguments, *(f"-e {key}=…" for key in variables or {}), playbook])
            started = time.monotonic()
            with log.open("w+", encoding="utf-8") as output:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=REPOSITORY,
                    start_new_session=True,
                    env=environment(
                        **{
                            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
                            "ANSIBLE_CALLBACKS_ENABLED": "berth_test",
                            "BERTH_TEST_RECORD": str(record),
                            "BERTH_TEST_RESULTS": str(results),
                            "BERTH_TEST_KILL_AT": kill_at,
                            **(settings or {}),
                        }
                    ),
                )
                try:
                    self._watch(process, record, kill_when, started + timeout)
                finally:
                    if process.poll() is None:
                        kill_tree(process.pid)
                        process.wait()
            seconds = time.monotonic() - started
            text = log.read_text(encoding="utf-8", errors="replace")
            tasks = [Task(**json.loads(line)) for line in record.read_text(encoding="utf-8").splitlines()]
            whole = results.read_text(encoding="utf-8")
        run = Run(shown, process.returncode, text, seconds, tasks)
        ending = f"ended with {run.code}" if run.code >= 0 else f"killed by signal {-run.code}"
        self.say(f"{shown}: {ending} after {seconds:.1f} s, {run.remote_tasks} remote tasks, {len(run.changed)} changed")
        found = leaks(self.lab.secrets(), text)
        assert not found, f"`{shown}` printed the secrets {found}"
        if found := leaks(self.lab.secrets(), whole):
            tasks_with = [json.loads(line)["task"] for line in whole.splitlines() if leaks(self.lab.secrets(), line)]
            raise AssertionError(f"`{shown}` left the secrets {found} in the results of {tasks_with}")
        return run

    def _watch(self, process: subprocess.Popen[bytes], record: Path, kill_when: Callable[[], bool] | None, deadline: float) -> None:
        """Wait for the end; say the slow tasks meanwhile; kill when asked or too late."""
        seen = 0
        while process.poll() is None:
            if kill_when is not None and kill_when():
                kill_tree(process.pid)
            assert time.monotonic() < deadline, f"{process.args!r} did not end in time"
            lines = record.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last line end is still being written
            for line in lines[seen:]:
                task = json.loads(line)
                if task["seconds"] >= 5:
                    self.say(f"  {task['task']}: {task['seconds']:.1f} s")
            seen = len(lines)
            time.sleep(0.2)
