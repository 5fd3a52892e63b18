# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Odoo's listeners owe its users: a notification and a triggered action come at once, not when somebody polls next.

A pooler that shares the connection of a listener, or a listener that lost it and does not notice, breaks nothing visible: everything comes late.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import websocket

from ansible_collections.berth.odoo.tests.support.lab import wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo

LIMIT = 5.0
"""Seconds. The promise is 1 for a notification and 2 for an action; a busy machine takes longer, and who does not listen takes 50."""
UNHEARD = 40.0
"""Seconds after which nobody listens any more."""
CALLS = 10
"""As many calls as nothing but the calls themselves may take beside it, on a machine that is busier still."""

TRIES = 2
PARAMETER = "berth.contract"


def notification_seconds(admin: Odoo) -> float:
    """Seconds from a call that notifies to the message in the browser's live connection; infinite when none came within the limit."""
    field = "is_discuss_sidebar_category_chat_open"
    try:
        connection = admin.websocket()
    except (websocket.WebSocketException, OSError):
        return float("inf")  # the process is still finding its database again
    try:
        connection.send(json.dumps({"event_name": "subscribe", "data": {"channels": [], "last": 0}}))
        [settings] = admin.call("res.users.settings", "search_read", [["user_id.login", "=", "admin"]], fields=[field])
        # Until it is subscribed there is nothing to hear: the first message says that it is.
        for wanted in (not settings[field], settings[field]):
            began = time.monotonic()
            admin.call("res.users.settings", "set_res_users_settings", [settings["id"]], {field: wanted})
            connection.settimeout(UNHEARD)
            seconds = float("inf")
            try:
                while seconds == float("inf") and time.monotonic() - began < UNHEARD:
                    if any(item["message"]["type"] == "res.users.settings" for item in json.loads(connection.recv())):
                        seconds = time.monotonic() - began
            except (websocket.WebSocketException, OSError):
                continue
        return seconds
    finally:
        connection.close()


class Triggered:
    """A scheduled action of our own, due in ten years, which somebody triggers."""

    def __init__(self, admin: Odoo) -> None:
        """Make it."""
        self.admin = admin
        [model] = admin.call("ir.model", "search", [["model", "=", "ir.config_parameter"]])
        code = f"env['ir.config_parameter'].sudo().set_param('{PARAMETER}', datetime.datetime.now().isoformat())"
        values = {"name": PARAMETER, "model_id": model, "state": "code", "code": code, "interval_type": "months", "interval_number": 120}
        self.cron = self._made("ir.cron", {**values, "nextcall": "2099-01-01 00:00:00"})
        trigger = f"env['ir.cron'].browse({self.cron})._trigger()"
        self.action = self._made("ir.actions.server", {"name": PARAMETER, "model_id": model, "state": "code", "code": trigger})

    def _made(self, model: str, values: dict[str, object]) -> int:
        made = self.admin.call(model, "create", values)
        return int(made[0] if isinstance(made, list) else made)

    def _ran(self) -> str:
        found = self.admin.call("ir.config_parameter", "search_read", [["key", "=", PARAMETER]], ["value"])
        return str(found[0]["value"]) if found else ""

    def seconds(self) -> float:
        """Seconds from the trigger to the action's work being there; infinite when it was not within the limit."""
        before = self._ran()
        self.admin.call("ir.actions.server", "run", [self.action])
        began = time.monotonic()
        while time.monotonic() - began < UNHEARD:
            if self._ran() != before:
                return time.monotonic() - began
            time.sleep(0.05)
        return float("inf")

    def remove(self) -> None:
        """Leave nothing behind."""
        self.admin.call("ir.actions.server", "unlink", [self.action])
        self.admin.call("ir.cron", "unlink", [self.cron])


def listeners(admin: Odoo, *, within: float = 0) -> tuple[float, float]:
    """Measure both, and fail when one of them was too late each time.

    Args:
        admin: who is logged in.
        within: seconds in which they may still be finding their database again.
    """
    best = [float("inf"), float("inf")]
    deadline = time.monotonic() + within
    action = wait_for("a scheduled action of our own", lambda: Triggered(admin), seconds=20 + within)
    try:
        tries = 0
        limit = LIMIT
        while max(best) > limit and (tries < TRIES or time.monotonic() < deadline):
            tries += 1
            began = time.monotonic()
            admin.call("res.partner", "search", [], limit=1)
            limit = max(limit, LIMIT + CALLS * (time.monotonic() - began))
            best = [min(best[0], notification_seconds(admin)), min(best[1], action.seconds())]
    finally:
        action.remove()
    assert best[0] <= limit, f"no notification came within {limit:.1f} s"
    assert best[1] <= limit, f"no triggered action ran within {limit:.1f} s"
    return best[0], best[1]
