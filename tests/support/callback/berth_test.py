# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record every task of a run as data, and kill the run at a named task. For tests only.

Environment:
    BERTH_TEST_RECORD: file that gets one JSON object a line and task result: play, task, action, host, seconds, changed,
        failed, skipped, remote (how many times a module was sent to the host; a loop counts each item).
    BERTH_TEST_RESULTS: file that gets the whole result of every task, a line each, as AWX keeps it beside the output.
    BERTH_TEST_KILL_AT: name of a task. When it is about to start, the whole process group gets SIGKILL, as when the
        controller loses its power.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader

DOCUMENTATION = """
name: berth_test
type: notification
short_description: record task results, kill the run at a named task
description: For tests only; see the module's docstring.
"""

# They have no action plugin or need no connection, and run in the controller's own process.
CONTROLLER_ONLY = {"include_role", "import_role", "include_tasks", "import_tasks", "import_playbook", "meta", "pause"}


def runs_on_the_host(task: Any) -> bool:
    """Whether a task sends something to the host when it is not skipped."""
    if task.delegate_to in ("localhost", "127.0.0.1") or task.action.removeprefix("ansible.builtin.") in CONTROLLER_ONLY:
        return False
    action = action_loader.get(task.action, class_only=True)
    return action is None or getattr(action, "_requires_connection", True)


class CallbackModule(CallbackBase):
    """Listen to a run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "berth_test"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Read the environment."""
        super().__init__()
        self.record = os.environ.get("BERTH_TEST_RECORD", "")
        self.results = os.environ.get("BERTH_TEST_RESULTS", "")
        self.kill_at = os.environ.get("BERTH_TEST_KILL_AT", "")
        self.play = ""
        self.started: dict[tuple[str, str], float] = {}
        self.items: dict[tuple[str, str], int] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember the play's name."""
        self.play = play.get_name()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Kill the run when this is the task it must not survive."""
        if self.kill_at and task.name == self.kill_at:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Start the clock of one task on one host."""
        self.started[host.name, task._uuid] = time.monotonic()

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Count an item of a loop."""
        self._count(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Count an item of a loop."""
        self._count(result)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Record a success."""
        self._write(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Record a failure."""
        self._write(result, failed=not ignore_errors)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Record a skipped task."""
        self._write(result, skipped=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Record a host that did not answer."""
        self._write(result, failed=True)

    def _count(self, result: Any) -> None:
        key = (result.host.name, result.task._uuid)
        self.items[key] = self.items.get(key, 0) + 1

    def _write(self, result: Any, *, failed: bool = False, skipped: bool = False) -> None:
        if not self.record:
            return
        task, answer = result.task, result.result
        key = (result.host.name, task._uuid)
        runs = self.items.get(key, 0) if task.loop is not None else 1
        line = {
            "play": self.play,
            "task": task.name or task.action,
            "action": task.action,
            "host": result.host.name,
            "seconds": round(time.monotonic() - self.started.get(key, time.monotonic()), 3),
            "changed": bool(answer.get("changed")),
            "failed": failed,
            "skipped": skipped,
            "remote": runs if runs_on_the_host(task) and not skipped else 0,
            # Only what compose_project says per service.
            "services": answer.get("services") if task.action.endswith("compose_project") else None,
        }
        with Path(self.record).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.results:
            with Path(self.results).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"task": line["task"], "result": answer}, default=str) + "\n")
