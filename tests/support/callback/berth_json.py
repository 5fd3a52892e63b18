# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the last task's result of each host as JSON, and nothing else. For tests only: ansible-core itself has no such callback."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.callback import CallbackBase, strip_internal_keys

DOCUMENTATION = """
name: berth_json
type: stdout
short_description: print the last task's results as JSON
description: For tests only; see the module's docstring.
"""


class CallbackModule(CallbackBase):
    """Listen to a run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "berth_json"

    def __init__(self) -> None:
        """Start without results."""
        super().__init__()
        self.hosts: dict[str, Any] = {}

    def v2_runner_on_ok(self, result: Any) -> None:
        """Keep a result."""
        self._keep(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Keep a result."""
        self._keep(result, failed=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Keep a result."""
        self._keep(result, unreachable=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print what was kept."""
        self._display.display(json.dumps({"hosts": self.hosts}, indent=2, default=str))

    def _keep(self, result: Any, **outcome: bool) -> None:
        self.hosts[result.host.get_name()] = strip_internal_keys(result.result) | outcome
