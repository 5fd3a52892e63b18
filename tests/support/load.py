# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clerks who read, write and load pages, and an account of what each request met and when."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ansible_collections.berth.odoo.tests.support.odoo import Odoo

PATIENCE = 20  # seconds for an answer; a request to a machine that has vanished is never answered
PAUSE = 0.05  # seconds between two requests of a clerk
SLOW = "time.sleep({seconds})"


@dataclasses.dataclass(frozen=True)
class Request:
    """One request: when it was sent and was over, by time.monotonic(), and what was wrong with it, if anything."""

    what: str
    began: float
    ended: float
    problem: str

    def in_flight(self, moment: float) -> bool:
        """Whether it had been sent and was not over."""
        return self.began <= moment < self.ended


class Clerks:
    """Several people who share one login, as several tabs of a browser do."""

    def __init__(self, odoo: Odoo, number: int) -> None:
        """Make a contact for each of ``number`` people; ``odoo`` has logged in."""
        self.odoo = odoo
        self.partners = [odoo.call("res.partner", "create", [{"name": f"Clerk {index}"}])[0] for index in range(number)]
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def ask(self, what: str, action: Callable[[], object]) -> Request:
        """Do something, and note how it went."""
        began, problem = time.monotonic(), ""
        try:
            action()
        except (AssertionError, OSError) as error:
            problem = " ".join(f"{type(error).__name__} {error}".split())[:300]
        request = Request(what, began, time.monotonic(), problem)
        with self._lock:
            self.requests.append(request)
        return request

    def wait_for_server(self, seconds: float) -> Request:
        """Send a request that takes as long as a large report does; the server sleeps."""
        [action] = self.odoo.call(
            "ir.actions.server",
            "create",
            [
                {
                    "name": "berth slow",
                    "state": "code",
                    "model_id": self.odoo.call("ir.model", "search", [["model", "=", "res.partner"]])[0],
                    "code": SLOW.format(seconds=seconds),
                }
            ],
        )
        return self.ask("slow", lambda: self._call("ir.actions.server", "run", [action], timeout=seconds + PATIENCE))

    def _call(self, model: str, method: str, *args: object, timeout: float = PATIENCE, **kwargs: object) -> None:
        params = {"model": model, "method": method, "args": list(args), "kwargs": kwargs}
        body = {"jsonrpc": "2.0", "method": "call", "params": params}
        answer = self.odoo.request(f"/web/dataset/call_kw/{model}/{method}", body=body, timeout=timeout)
        assert answer.status == 200, f"answered {answer.status}: {answer.body[:200]}"
        assert "error" not in json.loads(answer.body), answer.body[:300]

    def _page(self) -> None:
        answer = self.odoo.request("/odoo", timeout=PATIENCE)
        assert answer.status == 200, f"answered {answer.status}"

    def _work(self, partner: int) -> None:
        for step in itertools.count():
            if self._stop.wait(PAUSE):
                return
            if step % 3 == 0:
                self.ask("read", lambda: self._call("res.partner", "read", [partner], fields=["name"]))
            elif step % 3 == 1:
                self.ask("write", lambda text=f"{step}": self._call("res.partner", "write", [partner], {"comment": text}))  # type: ignore[misc]
            else:
                self.ask("page", self._page)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work in the background meanwhile."""
        threads = [threading.Thread(target=self._work, args=(partner,), daemon=True) for partner in self.partners]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=PATIENCE + 10)
            self._stop.clear()

    @property
    def failed(self) -> list[Request]:
        """The requests that went wrong."""
        return [request for request in self.requests if request.problem]
