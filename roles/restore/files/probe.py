# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in the Odoo of this container as a person does: log in, read, write a transfer and read it again.

Reads ``{"login", "password", "timeout"}`` from standard input and prints one JSON document; what failed is in its ``error``. The container has no
network, so this runs in it. Needs the standard library alone.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
import urllib.parse
from typing import Any

ADDRESS = ("127.0.0.1", 8069)
CSRF = re.compile(r'name="csrf_token"\s+value="([^"]+)"')


class Failed(Exception):
    """Odoo did not do what it does for people."""


class Client:
    """A browser with one cookie."""

    def __init__(self) -> None:
        """Nobody is logged in."""
        self.session = ""

    def exchange(self, method: str, path: str, body: str = "", kind: str = "") -> tuple[int, str, str]:
        """Status, location and body of an answer. Raises OSError, http.client.HTTPException."""
        connection = http.client.HTTPConnection(*ADDRESS, timeout=120)
        try:
            headers = {"Cookie": f"session_id={self.session}"} if self.session else {}
            connection.request(method, path, body or None, {**headers, **({"Content-Type": kind} if kind else {})})
            answer = connection.getresponse()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie" and (match := re.match(r"session_id=([^;]+)", value)):
                    self.session = match[1]
            return answer.status, answer.headers.get("Location", ""), answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def log_in(self, login: str, password: str) -> None:
        """Through the form. Raises Failed."""
        status, _location, page = self.exchange("GET", "/web/login")
        token = CSRF.search(page)
        if status != 200 or token is None:
            raise Failed(f"/web/login answered {status} without a form")
        form = urllib.parse.urlencode({"csrf_token": token[1], "login": login, "password": password, "redirect": "/odoo"})
        status, location, _page = self.exchange("POST", "/web/login", form, "application/x-www-form-urlencoded")
        if status != 303 or "/web/login" in location:
            raise Failed(f"the login of {login} was answered with {status} {location}, expected a redirect into Odoo")

    def call(self, model: str, method: str, *arguments: Any, **keywords: Any) -> Any:
        """A method of a model, as the web client calls it. Raises Failed."""
        params = {"model": model, "method": method, "args": arguments, "kwargs": keywords}
        body = json.dumps({"jsonrpc": "2.0", "method": "call", "params": params})
        status, _location, text = self.exchange("POST", f"/web/dataset/call_kw/{model}/{method}", body, "application/json")
        if status != 200:
            raise Failed(f"{model}.{method} answered {status}")
        answer = json.loads(text)
        if "error" in answer:
            raise Failed(f"{model}.{method}: {answer['error'].get('data', {}).get('message') or answer['error'].get('message')}")
        return answer.get("result")


def wait(seconds: float) -> float:
    """Wait for the first answer that needs the database. Returns the seconds it took. Raises Failed."""
    began, last = time.monotonic(), ""
    while time.monotonic() - began < seconds:
        try:
            status, _location, _page = Client().exchange("GET", "/web/login")
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        else:
            if status == 200:
                return time.monotonic() - began
            last = f"/web/login answered {status}"
        time.sleep(0.25)
    raise Failed(f"Odoo did not answer within {seconds:g} s: {last}")


def work(client: Client) -> dict[str, Any]:
    """Write what can be written, a transfer where there is a warehouse, and read it again. Raises Failed."""
    found: dict[str, Any] = {"partners": client.call("res.partner", "search_count", [])}
    transfers = client.call("ir.model", "search_count", [["model", "=", "stock.picking"]])
    types = (
        client.call("stock.picking.type", "search_read", [], fields=["default_location_src_id", "default_location_dest_id"])
        if transfers
        else []
    )
    usable = [one for one in types if one["default_location_src_id"] and one["default_location_dest_id"]]
    if not usable:
        model, values, field = "res.partner", {"name": "berth drill"}, "name"
    else:
        found["transfers"] = client.call("stock.picking", "search_count", [])
        places = {"location_id": usable[0]["default_location_src_id"][0], "location_dest_id": usable[0]["default_location_dest_id"][0]}
        model, values, field = "stock.picking", {"picking_type_id": usable[0]["id"], **places, "origin": "berth drill"}, "origin"
    [number] = client.call(model, "create", [values])
    [read] = client.call(model, "read", [number], [field])
    if read[field] != "berth drill":
        raise Failed(f"a {model} was written, and its {field} is {read[field]!r}")
    client.call(model, "write", [number], {field: "berth drill, again"})
    [read] = client.call(model, "read", [number], [field])
    if read[field] != "berth drill, again":
        raise Failed(f"a {model} was changed, and its {field} is {read[field]!r}")
    return {**found, "written": model}


def main() -> int:
    """Command line."""
    request = json.load(sys.stdin)
    answer: dict[str, Any] = {"error": ""}
    try:
        answer["started_s"] = round(wait(request["timeout"]), 1)
        if request.get("login"):
            client = Client()
            client.log_in(request["login"], request["password"])
            answer.update(work(client))
    except (Failed, OSError, http.client.HTTPException) as error:
        answer["error"] = str(error)
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
