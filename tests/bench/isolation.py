#!/usr/bin/env python3
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what people at work feel of machines, exports and a crowd: `make bench-isolation`.

Clerks work at a constant rate, alone and beside a batch of API imports, exports and portal pages, in turns: on the demo, with a batch tier, and
on the stock way to run Odoo on the same VM (one Odoo container with as many workers, PostgreSQL's defaults, no limits, a Traefik that buffers
nothing), with a copy of the demo's database. What the machine takes by itself is measured too: a program that computes at the clerks' rate, and
beside it one on each processor that runs when nobody else wants to. Prints one line a figure, tab-separated: name, wanted, got, unit, `ok` or
`short`; a ratio is the 95th percentile with the batch divided by the one without. Progress goes to standard error. Ends with 0 when the measuring
worked.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import datetime
import json
import multiprocessing
import multiprocessing.synchronize
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.berth.odoo.tests.bench.converge import Figure, machine, say, write
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, wait_for
from ansible_collections.berth.odoo.tests.support.odoo import CSRF, Odoo
from ansible_collections.berth.odoo.tests.support.playbook import Player

STOCK = Path(__file__).with_name("stock")
DIRECTORY = "/var/lib/berth/bench-isolation"
STOCK_PORT = 18080
ODOO_UID = 48069
WANTED = 1.3
RATE = 4.0  # clicks a second of all clerks together, far below what two workers can do
CLERKS = 4
# How many of each at the same moment. They wait half a second when they are told to (429), as a well-made client does.
BATCH = {"import": 4, "export": 2, "portal": 4}
REFUSED_PAUSE = 0.5
COMPUTED = 100_000  # additions, about 20 ms
API_KEY = """
import datetime
user = env.ref("base.user_admin")
key = env["res.users.apikeys"].with_user(user)._generate(None, "bench-isolation", datetime.datetime.now() + datetime.timedelta(days=1))
env.cr.commit()
print("key=" + key)
"""


@dataclasses.dataclass
class Site:
    """One of the two that are compared.

    Attributes:
        name: ``platform`` or ``stock``.
        url: where it answers.
        key: an API key of its administrator.
    """

    name: str
    url: str
    ca: Path
    password: str
    key: str

    def client(self) -> Odoo:
        """Somebody who has logged in."""
        client = Odoo(self.url, self.ca)
        client.log_in("admin", self.password)
        return client

    def api(self, model: str, method: str, **arguments: Any) -> tuple[int, Any]:
        """One JSON-2 call of a machine: status and answer."""
        headers = {"Authorization": f"bearer {self.key}"}
        answer = Odoo(self.url, self.ca).request(f"/json/2/{model}/{method}", body=arguments, headers=headers, timeout=120)
        return answer.status, json.loads(answer.body) if answer.status == 200 else answer.body


@dataclasses.dataclass
class Phase:
    """What the clerks saw, in milliseconds, and what the batch was answered."""

    latencies: list[float] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    answers: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def p95(self) -> float:
        """Milliseconds that 95 of 100 clicks do not exceed."""
        return statistics.quantiles(self.latencies, n=20)[-1]


class Clerks:
    """People who click at a constant rate, however long the answers take: a queue shows as latency and not as fewer clicks."""

    def __init__(self, site: Site) -> None:
        """Log in, once each, and warm up."""
        self.clients = [site.client() for _ in range(CLERKS)]
        self.clicks: list[Callable[[Odoo], Any]] = [
            lambda client: client.call("stock.picking", "web_search_read", [], {"display_name": {}, "state": {}}, limit=40),
            lambda client: client.call("product.product", "name_search", "Desk", limit=8),
            lambda client: client.call("sale.order", "web_search_read", [], {"name": {}, "amount_total": {}}, limit=40),
            lambda client: client.call("res.partner", "web_read", [1], {"display_name": {}, "email": {}, "child_ids": {}}),
        ]
        for client in self.clients:
            for click in self.clicks:
                click(client)

    def work(self, seconds: float) -> tuple[list[float], list[str]]:
        """Click; return latencies, counted from when the click was due, and failures."""
        latencies: list[float] = []
        failures: list[str] = []

        def one(due: float, number: int) -> None:
            try:
                self.clicks[number % len(self.clicks)](self.clients[number % CLERKS])
            except (AssertionError, OSError) as error:
                failures.append(str(error)[:200])
            latencies.append((time.monotonic() - due) * 1000)

        threads = []
        began = time.monotonic()
        for number in range(int(seconds * RATE)):
            due = began + number / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            threads.append(threading.Thread(target=one, args=[due, number]))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return latencies, failures


def drive(
    site: Site, products: list[int], partner: int, answers: multiprocessing.Queue[str], stop: multiprocessing.synchronize.Event
) -> None:
    """Import orders, export them and open portal pages, without a pause but the one after a refusal, until told to stop.

    In a process of its own, which gets the processor when nobody else wants it: machines that send a batch are not the ones that serve it.
    """
    os.nice(19)
    bench = os.getppid()
    lines = [[0, 0, {"product_id": product, "product_uom_qty": 3}] for product in products]

    def imports(_number: int) -> Callable[[], int]:
        return lambda: site.api("sale.order", "create", vals_list=[{"partner_id": partner, "order_line": lines} for _ in range(3)])[0]

    def exports(_number: int) -> Callable[[], int]:
        client = site.client()
        token = CSRF.search(client.request("/my/security").body)
        assert token, "/my/security has no token for the export's form"
        fields = [{"name": name, "label": name} for name in ("name", "partner_id/name", "order_line/name", "order_line/price_total")]
        data = {"model": "sale.order", "fields": fields, "ids": False, "domain": [], "import_compat": False, "context": {}, "groupby": []}
        return lambda: client.request("/web/export/csv", form={"data": json.dumps(data), "csrf_token": token[1]}, timeout=120).status

    def pages(_number: int) -> Callable[[], int]:
        client = site.client()
        return lambda: client.request("/my/orders", timeout=120).status

    def run(kind: str, call: Callable[[], int]) -> None:
        # Whoever ends the bench by a signal ends its batch as well.
        while not stop.is_set() and os.getppid() == bench:
            try:
                status = call()
            except OSError as error:
                answers.put(f"{kind} {type(error).__name__}")
                stop.wait(REFUSED_PAUSE)
                continue
            answers.put(f"{kind} {status}")
            if status == 429:
                stop.wait(REFUSED_PAUSE)

    makers = {"import": imports, "export": exports, "portal": pages}
    threads = [threading.Thread(target=run, args=[kind, makers[kind](n)]) for kind, count in BATCH.items() for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def batch(site: Site, products: list[int], partner: int) -> Iterator[Callable[[], Counter[str]]]:
    """The batch beside what is done meanwhile; gives a function that counts its answers until now."""
    processes = multiprocessing.get_context("spawn")
    queue, stop, counted = processes.Queue(), processes.Event(), Counter[str]()

    def answers() -> Counter[str]:
        for _ in range(queue.qsize()):
            counted[queue.get()] += 1
        return counted

    process = processes.Process(target=drive, args=[site, products, partner, queue, stop], daemon=True)
    process.start()
    try:
        yield answers
    finally:
        stop.set()
        # Its process ends when all that it sent has been read.
        while process.is_alive():
            answers()
            process.join(0.2)


def measure(site: Site, seconds: float, turns: int) -> dict[str, Phase]:
    """Both phases of one site, in turns: what changes on the machine meanwhile then changes both."""
    status, names = site.api("product.product", "search_read", domain=[], fields=["id"], limit=20)
    assert status == 200, f"the API key of {site.name} was answered {status}: {names}"
    status, partners = site.api("res.partner", "search", domain=[["is_company", "=", True]], limit=1)
    products = [entry["id"] for entry in names]
    clerks = Clerks(site)
    phases = {"alone": Phase(), "batch": Phase()}

    def work(phase: Phase) -> None:
        latencies, failures = clerks.work(seconds)
        phase.latencies += latencies
        phase.failures += failures

    for _ in range(turns):
        work(phases["alone"])
        with batch(site, products, partners[0]) as answers:
            wait_for("an answer to every kind of the batch", lambda: {what.split()[0] for what in answers()} == set(BATCH), seconds=60)
            before = Counter(answers())
            work(phases["batch"])
            phases["batch"].answers += Counter(answers()) - before
    # A batch that is refused altogether disturbs nobody, and would measure nothing.
    served = phases["batch"].answers
    if idle := [kind for kind in BATCH if not served[f"{kind} 200"]]:
        raise SystemExit(f"{site.name} served no {', '.join(idle)} of the batch, so nothing was measured: {dict(served)}")
    report(site.name, phases)
    return phases


def report(name: str, phases: dict[str, Phase]) -> None:
    """Say what was measured."""
    for kind, phase in phases.items():
        say(
            f"  {name} {kind}: p50 {statistics.median(phase.latencies):.0f} ms, p95 {phase.p95:.0f} ms, "
            f"{len(phase.failures)} of {len(phase.latencies)} clicks failed; batch: {dict(sorted(phase.answers.items())) or 'none'}"
        )


def compute() -> None:
    """Keep a processor busy for about as long as a click does."""
    found: dict[int, str] = {}
    for number in range(COMPUTED):
        found[number % 5000] = str(number)


def compute_for_ever() -> None:
    """Keep a processor busy that nobody else wants."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        compute()


def measure_machine(seconds: float, turns: int) -> dict[str, Phase]:
    """Both phases with nothing to share but the machine: processors that are threads of one core, or that a hypervisor lends to others as well."""
    processes = multiprocessing.get_context("spawn")
    phases = {"alone": Phase(), "batch": Phase()}
    for _ in range(turns):
        for kind, phase in phases.items():
            beside = [processes.Process(target=compute_for_ever, daemon=True) for _ in range(os.cpu_count() or 1) if kind == "batch"]
            for process in beside:
                process.start()
            try:
                for _ in range(int(seconds * RATE)):
                    time.sleep(1 / RATE)
                    began = time.monotonic()
                    compute()
                    phase.latencies.append((time.monotonic() - began) * 1000)
            finally:
                for process in beside:
                    process.kill()
                    process.join()
    report("machine", phases)
    return phases


def platform_site(lab: Lab, host: Host) -> Site:
    """The demo, with a new API key."""
    shell = "docker exec -i odoo-main-web-1 odoo shell --no-http --log-level=error"
    key = new_key(host, shell)
    password = str(host.variables["odoo_instance_secrets"]["main"]["admin_password"])
    return Site("platform", f"https://{host.address}", lab.ca, password, key)


def new_key(host: Host, shell: str) -> str:
    """An API key of the administrator, made by Odoo's shell."""
    output = host.run(shell, stdin=API_KEY, timeout=120)
    found = [line.partition("key=")[2] for line in output.splitlines() if "key=" in line]
    assert found, f"Odoo's shell made no API key:\n{output[-2000:]}"
    return found[-1]


def fill(site: Site) -> None:
    """Give the demo something to work with, unless an earlier run did: it has no demonstration data."""
    status, found = site.api("res.partner", "search", domain=[["name", "=", "Bench isolation"]], limit=1)
    assert status == 200, f"the API answered {status}: {found}"
    if found:
        return
    site.api("res.partner", "create", vals_list=[{"name": "Bench isolation", "is_company": True}])
    products = [{"name": f"Desk {number}", "type": "consu", "list_price": 100 + number} for number in range(200)]
    status, answer = site.api("product.product", "create", vals_list=products)
    assert status == 200, f"products: {status} {answer}"


@contextmanager
def stock_site(host: Host, site: Site, workers: int) -> Iterator[Site]:
    """The stock way on the same VM, with a copy of the demo's database and files; removed afterwards."""
    image = {
        name: host.container(path).facts["Image"] for name, path in (("odoo", "odoo-main/web"), ("postgresql", "postgresql/postgresql"))
    }
    image["traefik"] = host.container("traefik/traefik").facts["Image"]
    environment = "".join(f"{name.upper()}_IMAGE={value}\n" for name, value in image.items()) + f"WORKERS={workers}\nPORT={STOCK_PORT}\n"
    compose = f"cd {DIRECTORY} && docker compose --project-name bench-stock"
    try:
        host.run(f"rm -rf {DIRECTORY} && install -d -m 0755 {DIRECTORY}")
        for file in sorted(STOCK.iterdir()):
            encoded = base64.b64encode(file.read_bytes()).decode()
            host.run(f"base64 -d > {DIRECTORY}/{file.name} && chmod 0644 {DIRECTORY}/{file.name}", stdin=encoded)
        host.run(f"cat > {DIRECTORY}/.env", stdin=environment)
        host.run(f"cp -a /var/lib/berth/odoo/main {DIRECTORY}/data && rm -rf {DIRECTORY}/data/sessions", timeout=300)
        host.run(f"{compose} up --detach --wait postgresql", timeout=120)
        host.run(
            "set -o pipefail; docker exec postgresql-postgresql-1 pg_dump --no-owner --no-privileges main | "
            "docker exec -i bench-stock-postgresql-1 psql --quiet --set ON_ERROR_STOP=1 --username odoo main >/dev/null",
            timeout=600,
        )
        host.run(f"{compose} up --detach", timeout=180)
        stock = dataclasses.replace(site, name="stock", url=f"http://{host.address}:{STOCK_PORT}")
        wait_for("the login page of the stock site", lambda: Odoo(stock.url, site.ca).request("/web/login").status == 200, seconds=180)
        yield stock
    finally:
        host.run(
            f"if cd {DIRECTORY} 2>/dev/null; then docker compose --project-name bench-stock down --volumes --timeout 5; fi", timeout=180
        )
        host.run(f"rm -rf {DIRECTORY}")


def table(figures: list[Figure], results: dict[str, dict[str, Phase]], setting: str, command: str) -> str:
    """The section of docs/benchmarks.md."""
    lines = [
        f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {machine()}, with `{command}`: {setting}. The clients "
        "run on the same machine, those of the batch with what others leave of the processors.",
        "",
        "| Figure | Wanted, at most | Got | Unit | |",
        "|---|---:|---:|---|---|",
        *("| " + " | ".join(figure.cells) + " |" for figure in figures),
        "",
        "| Site | | p50, ms | p95, ms | Failed clicks | Batch answered |",
        "|---|---|---:|---:|---:|---|",
    ]
    for site, phases in results.items():
        for name, phase in phases.items():
            answers = ", ".join(f"{what}: {count}" for what, count in sorted(phase.answers.items()))
            lines.append(
                f"| {site} | {name} | {statistics.median(phase.latencies):.0f} | {phase.p95:.0f} | "
                f"{len(phase.failures)} of {len(phase.latencies)} | {answers} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", default="demo", help="a lab with a deployed site (default: demo)")
    parser.add_argument("--seconds", type=float, default=15, help="length of each phase of a turn (default: 15)")
    parser.add_argument("--turns", type=int, default=4, help="how often each phase comes (default: 4)")
    parser.add_argument(
        "--batch-workers", type=int, default=1, help="workers of the demo's batch tier; 0: limits at the edge alone (default: 1)"
    )
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    lab = Lab(options.lab, (REPOSITORY / "inventories/single", REPOSITORY / ".cache/lab" / options.lab / "inventory"))
    if not lab.directory.is_dir():
        raise SystemExit(f"There is no lab {options.lab} to measure. Type: make demo")
    play, host = Player(lab, say), lab.host
    play("playbooks/site.yml", variables={"odoo_batch_workers": options.batch_workers}).expect_success()
    site = platform_site(lab, host)
    fill(site)
    results = {"machine": measure_machine(options.seconds, options.turns), "platform": measure(site, options.seconds, options.turns)}
    web = int(host.run("docker exec odoo-main-web-1 sed -n 's/^workers = //p' /etc/odoo/odoo.conf"))
    with stock_site(host, site, web + options.batch_workers) as stock:
        results["stock"] = measure(stock, options.seconds, options.turns)
    play("playbooks/site.yml").expect_success()
    figures = []
    for name, phases in results.items():
        figures.append(Figure(f"{name}_p95_ratio", WANTED, phases["batch"].p95 / phases["alone"].p95, ""))
        if name != "machine":
            figures.append(Figure(f"{name}_failed_clicks", 0, sum(len(phase.failures) for phase in phases.values()), ""))
    for figure in figures:
        sys.stdout.write("\t".join(figure.cells) + "\n")
    if options.write:
        setting = f"{web} web workers and {options.batch_workers} for the batch; the stock site has {web + options.batch_workers}"
        write(table(figures, results, setting, f'make bench-isolation BENCH="{" ".join(sys.argv[1:])}"'), "bench-isolation")


if __name__ == "__main__":
    main()
