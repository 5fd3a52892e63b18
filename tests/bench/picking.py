# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of a dispatch desk, over JSON-RPC: deliveries of five products, made, reserved and validated, one after the other.

`tests/bench/postgresql.py` runs this inside the Odoo container that it measures. A request on standard input, JSON: ``password``,
``clients``, ``seconds``. The answer on standard output, JSON: ``pickings``, ``seconds`` and for each validation its ``latencies``.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from typing import Any

ADDRESS = ("127.0.0.1", 8069)
LINES = 5


class Client:
    """A clerk with products of their own, so that two never wait for the same stock."""

    def __init__(self, number: int, password: str) -> None:
        """Log in and put a million pieces of each product on the shelf, unless an earlier run did."""
        self.password = password
        self.user = self.rpc("common", "authenticate", "main", "admin", password, {})
        if not self.user:
            raise SystemExit("the administrator's login was refused")
        [warehouse] = self.call("stock.warehouse", "search_read", [[]], {"limit": 1, "fields": ["out_type_id", "lot_stock_id"]})
        self.type, self.shelf = warehouse["out_type_id"][0], warehouse["lot_stock_id"][0]
        [self.customers] = self.call("stock.location", "search", [[["usage", "=", "customer"]]], {"limit": 1})
        names = [f"Benchmark {number}-{line}" for line in range(LINES)]
        self.products = self.call("product.product", "search", [[["name", "in", names]]])
        if not self.products:
            products = [{"name": name, "type": "consu", "is_storable": True} for name in names]
            self.products = self.call("product.product", "create", [products])
            quants = [{"product_id": product, "location_id": self.shelf, "inventory_quantity": 1e6} for product in self.products]
            context = {"context": {"inventory_mode": True}}
            self.call("stock.quant", "action_apply_inventory", [self.call("stock.quant", "create", [quants], context)])
        self.latencies: list[float] = []

    def rpc(self, service: str, method: str, *arguments: Any) -> Any:
        """One call. Raises SystemExit with Odoo's words when it is refused."""
        body = {"jsonrpc": "2.0", "method": "call", "params": {"service": service, "method": method, "args": arguments}}
        connection = http.client.HTTPConnection(*ADDRESS, timeout=60)
        connection.request("POST", "/jsonrpc", json.dumps(body), {"Content-Type": "application/json"})
        result = json.load(connection.getresponse())
        connection.close()
        if "error" in result:
            raise SystemExit(f"{arguments[3:5]}: {result['error']['data']['message']}")
        return result.get("result")  # absent where Odoo returns nothing

    def call(self, model: str, method: str, arguments: list[Any], keywords: dict[str, Any] | None = None) -> Any:
        """Call a method of a model."""
        return self.rpc("object", "execute_kw", "main", self.user, self.password, model, method, arguments, keywords or {})

    def deliver(self) -> None:
        """Make, reserve and validate one delivery."""
        move = {"location_id": self.shelf, "location_dest_id": self.customers, "product_uom_qty": 1}
        moves = [(0, 0, {**move, "product_id": product}) for product in self.products]
        places = {"picking_type_id": self.type, "location_id": self.shelf, "location_dest_id": self.customers}
        [picking] = self.call("stock.picking", "create", [[{**places, "move_ids": moves}]])
        self.call("stock.picking", "action_confirm", [[picking]])
        self.call("stock.picking", "action_assign", [[picking]])
        began = time.monotonic()
        self.call("stock.picking", "button_validate", [[picking]])
        self.latencies.append(time.monotonic() - began)
        [state] = self.call("stock.picking", "read", [[picking], ["state"]])
        if state["state"] != "done":
            raise SystemExit(f"a validated delivery is {state['state']}")


def main() -> None:
    """Work for the given time and answer."""
    request = json.load(sys.stdin)
    clients = [Client(number, request["password"]) for number in range(request["clients"])]
    for client in clients:
        client.deliver()  # caches
        client.latencies.clear()
    began = time.monotonic()
    failures: list[BaseException] = []

    def work(client: Client) -> None:
        try:
            while time.monotonic() < began + request["seconds"]:
                client.deliver()
        except BaseException as failure:  # noqa: BLE001 - raised again below, where it ends the program
            failures.append(failure)

    threads = [threading.Thread(target=work, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    latencies = [latency for client in clients for latency in client.latencies]
    sys.stdout.write(json.dumps({"pickings": len(latencies), "seconds": time.monotonic() - began, "latencies": latencies}))


if __name__ == "__main__":
    main()
