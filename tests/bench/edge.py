#!/usr/bin/env python3
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what the edge does with many slow or silent clients, and how much a first page weighs: `make bench-edge`.

Clerks work at a constant rate and somebody asks for /web/health, alone, beside 200 uploads and 200 downloads at 4 kB/s, and beside 10,000
connections that ask for nothing: a third after the handshake, a third in the middle of it, a third in the middle of their headers. A headless
Chromium with an empty cache loads the back office, after another one and when Odoo has compressed what that one asked for. Prints one line a
figure, tab-separated: name, wanted, got, unit, `ok` or `short`; a ratio is the 95th percentile beside the slow ones divided by the one without.
Progress goes to standard error. Ends with 0 when the measuring worked.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import datetime
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import socket
import ssl
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.berth.odoo.tests.bench.converge import Figure, machine, say, write
from ansible_collections.berth.odoo.tests.bench.isolation import Clerks, Site, fill, platform_site
from ansible_collections.berth.odoo.tests.support.browser import browser, image
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, wait_for
from ansible_collections.berth.odoo.tests.support.odoo import Odoo

WANTED_RATIO = 1.3
WANTED_MEGABYTES = 1.4
SPEED = 4096  # bytes a second of a slow client
# More than the kernels between Odoo and a client keep: where the edge does not keep an answer, Odoo gives up a client that does not take it (2 s).
DOWNLOAD_BYTES = 12 * 1024 * 1024
UPLOAD_SECONDS = 400  # that a whole upload would take: longer than all need to begin and clerks to work
TOGETHER = 4  # slow clients that begin, or end, at the same moment: they shall be slow, not a crowd
QUIET_S = 5  # in which nothing more arrives: the page is there
SMALL_BUNDLE = 10_000  # bytes below which Odoo leaves a bundle to the edge
WEIGHT = """
const loaded = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
return loaded.map(entry => [entry.name.replace(/[?#].*/, ''), entry.transferSize, entry.decodedBodySize]);
"""


# --- clients that are slow, in a process of their own ------------------------------------------------------------------------


class Slow:
    """Slow clients of one site, all in flight at the same moment until they are told to end."""

    def __init__(self, address: str, ca: str, cookies: str) -> None:
        """``cookies`` of somebody who has logged in."""
        self.address, self.cookies = address, cookies
        self.trust = ssl.create_default_context(cafile=ca)
        self.begin, self.finish = asyncio.Semaphore(TOGETHER), asyncio.Semaphore(TOGETHER)
        self.ending = asyncio.Event()
        self.begun: set[asyncio.Task[None] | None] = set()
        self.results: Counter[str] = Counter()

    async def connect(self, *, encrypted: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection that takes little at a time."""
        plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        await asyncio.get_running_loop().sock_connect(plain, (self.address, 443))
        options: dict[str, Any] = {"ssl": self.trust, "server_hostname": self.address, "ssl_handshake_timeout": 120} if encrypted else {}
        return await asyncio.open_connection(sock=plain, limit=SPEED, **options)

    def head(self, method: str, path: str, *more: str) -> bytes:
        """The first lines of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.address}", f"Cookie: {self.cookies}", "Connection: close", *more]
        return "\r\n".join([*lines, "", ""]).encode()

    async def upload(self) -> str:
        """Send a request whose body lasts longer than is measured."""
        padding = "x" * (SPEED * UPLOAD_SECONDS)
        params = {"model": "res.partner", "method": "search_count", "args": [[["id", "=", 1]]], "kwargs": {"context": {"padding": padding}}}
        body = json.dumps({"jsonrpc": "2.0", "method": "call", "params": params}).encode()
        path = "/web/dataset/call_kw/res.partner/search_count"
        async with self.begin:
            reader, writer = await self.connect()
            writer.write(self.head("POST", path, "Content-Type: application/json", f"Content-Length: {len(body)}"))
        self.begun.add(asyncio.current_task())
        while not self.ending.is_set() and len(body) > SPEED:
            writer.write(body[:SPEED])
            await writer.drain()
            body = body[SPEED:]
            await asyncio.sleep(1)
        async with self.finish:
            writer.write(body)
            answer = await reader.read(-1)
        writer.close()
        return "answered" if b" 200 " in answer[:20] and b'"result": 1' in answer else f"answered {answer[:80]!r}"

    async def download(self, path: str, size: int) -> str:
        """Take an answer slowly, and the rest of it at once in the end."""
        async with self.begin:
            reader, writer = await self.connect()
            writer.write(self.head("GET", path, "Accept-Encoding: identity"))
            head = await reader.readuntil(b"\r\n\r\n")
        self.begun.add(asyncio.current_task())
        if b" 200 " not in head[:20]:
            return f"answered {head[:20]!r}"
        taken = 0
        while not self.ending.is_set() and taken < size:
            taken += len(await reader.readexactly(min(SPEED, size - taken)))
            await asyncio.sleep(1)
        async with self.finish:
            while part := await reader.read(1 << 20):
                taken += len(part)
        writer.close()
        return "complete" if taken == size else f"cut at {taken} of {size} bytes"

    async def silent(self, kind: int) -> str:
        """Open a connection and ask for nothing."""
        async with self.begin:
            _reader, writer = await self.connect(encrypted=kind != 1)
            if kind == 1:
                # A client's greeting that says how long it is, and ends before.
                writer.write(bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]))
            if kind == 2:
                writer.write(b"GET /web/login HTTP/1.1\r\nHost: " + self.address.encode() + b"\r\nX-Slow: ")
        self.begun.add(asyncio.current_task())
        await self.ending.wait()
        writer.transport.abort()
        return "held"

    async def one(self, kind: str, *arguments: Any) -> None:
        """Count how a client ended."""
        try:
            result = await getattr(self, kind)(*arguments)
        except (OSError, EOFError, asyncio.IncompleteReadError) as error:
            result = f"{type(error).__name__} {error}"[:120]
            self.begun.add(asyncio.current_task())
        self.results[f"{kind} {result}"] += 1

    async def run(self, crowd: list[tuple[Any, ...]], pipe: multiprocessing.connection.Connection) -> None:
        """Let them all begin, tell how many are in flight when asked, and end them when told to."""
        tasks = [asyncio.create_task(self.one(*client)) for client in crowd]
        while not self.ending.is_set():
            await asyncio.sleep(0.1)
            if pipe.poll():
                if pipe.recv() == "end":
                    self.ending.set()
                else:
                    pipe.send((len(self.begun), dict(self.results)))
        await asyncio.gather(*tasks)
        pipe.send((len(self.begun), dict(self.results)))


def _process(address: str, ca: str, cookies: str, crowd: list[tuple[Any, ...]], pipe: multiprocessing.connection.Connection) -> None:
    """The clients' process: it gets the processor when nobody else wants it."""
    os.nice(19)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def run() -> None:
        await Slow(address, ca, cookies).run(crowd, pipe)

    asyncio.run(run())


@contextmanager
def slow(site: Site, cookies: str, crowd: list[tuple[Any, ...]], results: Counter[str]) -> Iterator[None]:
    """Have clients in flight meanwhile; ``results`` counts afterwards how they ended."""
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    arguments = [site.url.removeprefix("https://"), str(site.ca), cookies, crowd, there]
    process = processes.Process(target=_process, args=arguments, daemon=True)
    process.start()

    def in_flight() -> bool:
        here.send("count")
        count, ended = here.recv()
        say(f"  {count} of {len(crowd)} have begun, ended: {ended or 'none'}")
        return int(count) == len(crowd)

    try:
        wait_for("all slow clients in flight", in_flight, seconds=600, interval=5)
        yield
    finally:
        if process.is_alive():
            here.send("end")
            while not here.poll(1) and process.is_alive():
                pass
            with contextlib.suppress(EOFError):
                results.update(here.recv()[1])
        process.join(30)


# --- the figures ---------------------------------------------------------------------------------------------------------------


class Health:
    """Somebody who asks for /web/health four times a second."""

    def __init__(self, site: Site) -> None:
        """Ask at this site."""
        self.site = site
        self.latencies: list[float] = []
        self.failures: list[str] = []

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask in the background meanwhile."""
        stop = threading.Event()
        client = self.site.client()

        def ask() -> None:
            while not stop.wait(0.25):
                began = time.monotonic()
                try:
                    if (status := client.request("/web/health").status) != 200:
                        self.failures.append(str(status))
                except OSError as error:
                    self.failures.append(str(error))
                self.latencies.append((time.monotonic() - began) * 1000)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def p95(latencies: list[float]) -> float:
    """Milliseconds that 95 of 100 do not exceed."""
    return statistics.quantiles(latencies, n=20)[-1]


def phase(name: str, site: Site, clerks: Clerks, seconds: float) -> tuple[float, float, int]:
    """The 95th percentiles of clicks and of /web/health, and how many failed."""
    health = Health(site)
    with health.asking():
        clicks, failures = clerks.work(seconds)
    failed = [*failures, *health.failures]
    say(f"  {name}: clicks p95 {p95(clicks):.0f} ms, health p95 {p95(health.latencies):.0f} ms, failed {len(failed)} {failed[:3] or ''}")
    return p95(clicks), p95(health.latencies), len(failed)


def ratios(name: str, alone: tuple[float, float, int], beside: tuple[float, float, int]) -> list[Figure]:
    """The figures of a phase."""
    return [
        Figure(f"{name}_p95_ratio", WANTED_RATIO, beside[0] / alone[0], ""),
        Figure(f"{name}_health_p95_ratio", WANTED_RATIO, beside[1] / alone[1], ""),
        Figure(f"{name}_failed_requests", 0, beside[2], ""),
    ]


def attachment(site: Site) -> int:
    """A file to download, made by an earlier run or now. It does not compress."""
    client = site.client()
    name = f"bench-edge-{DOWNLOAD_BYTES}"
    if found := client.call("ir.attachment", "search", [["name", "=", name]], limit=1):
        return int(found[0])
    data = base64.b64encode(os.urandom(DOWNLOAD_BYTES)).decode()
    return int(client.call("ir.attachment", "create", [{"name": name, "datas": data, "mimetype": "application/octet-stream"}])[0])


def loaded(lab: Lab, host: Host, site: Site, client: Odoo) -> list[tuple[str, int, int]]:
    """Load the back office as somebody who is logged in and has never been here: what, its bytes over the wire and its bytes."""
    with browser(lab, image(str(host.variables["images_base_image"]))) as driver:
        # WebDriver itself sets cookies of an open page only, and whatever that still loads could bring back its own.
        driver.command_executor.add_command("cdp", "POST", "/session/$sessionId/goog/cdp/execute")  # type: ignore[union-attr]
        for cookie in client.cookies:
            driver.execute("cdp", {"cmd": "Network.setCookie", "params": {"url": site.url, "name": cookie.name, "value": cookie.value}})
        driver.get(f"{site.url}/odoo")
        wait_for("the back office", lambda: driver.execute_script("return !!document.querySelector('.o_main_navbar')"), seconds=120)
        entries: list[Any] = []

        def quiet() -> bool:
            nonlocal entries
            before, entries = entries, driver.execute_script(WEIGHT)
            return before == entries

        # Fonts and what the first screen asks for come after it, later where the program takes longer to arrive.
        wait_for("the rest of the page", quiet, seconds=60, interval=QUIET_S)
        return [(name.removeprefix(site.url), size, whole) for name, size, whole in entries]


def compressed(client: Odoo, path: str) -> bool:
    """Whether Odoo sends a bundle compressed. The edge compresses no answer to HEAD."""
    with contextlib.closing(client.connection(client.url.removeprefix("https://"), timeout=60)) as connection:
        connection.request("HEAD", path, headers={"Accept-Encoding": "br"})
        return connection.getresponse().headers["Content-Encoding"] == "br"


def page_weight(lab: Lab, host: Host, site: Site) -> Figure:
    """Load the back office twice: the first visitor of a release lets Odoo compress its bundles, and the figure is what the others take."""
    client = site.client()
    first = loaded(lab, host, site, client)
    for path in {name for name, _size, whole in first if name.startswith("/web/assets/") and whole >= SMALL_BUNDLE}:
        wait_for(f"a copy of {path}", lambda path=path: compressed(client, path), seconds=120)
    entries = loaded(lab, host, site, client)
    say(f"  the first visitor took {sum(size for _name, size, _whole in first)} bytes, the next one:")
    for name, size, whole in sorted(entries, key=lambda entry: -entry[1])[:8]:
        say(f"  {size:9d} of {whole:9d} bytes  {name}")
    return Figure("first_back_office_load", WANTED_MEGABYTES, sum(size for _name, size, _whole in entries) / 1e6, "MB")


def memory(host: Host) -> float:
    """The most that Traefik's control group has held, in MB; the page cache is in it."""
    usage = "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    command = f"docker exec {host.container('traefik/traefik').id} sh -c 'cat {usage} 2>/dev/null || cat /sys/fs/cgroup/memory.peak'"
    return int(host.run(command)) / 1e6


def table(figures: list[Figure], command: str) -> str:
    """The section of docs/benchmarks.md."""
    return "\n".join(
        [
            f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {machine()}, with `{command}`. The clients run on the same machine, slow "
            "ones with what others leave of the processors.",
            "",
            "| Figure | Wanted, at most | Got | Unit | |",
            "|---|---:|---:|---|---|",
            *("| " + " | ".join(figure.cells) + " |" for figure in figures),
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", default="demo", help="a lab with a deployed site (default: demo)")
    parser.add_argument("--seconds", type=float, default=40, help="length of each phase (default: 40)")
    parser.add_argument("--clients", type=int, default=200, help="slow uploads, and as many slow downloads (default: 200)")
    parser.add_argument("--connections", type=int, default=10000, help="connections that ask for nothing (default: 10000)")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    lab = Lab(options.lab, (REPOSITORY / "inventories/single", REPOSITORY / ".cache/lab" / options.lab / "inventory"))
    if not lab.directory.is_dir():
        raise SystemExit(f"There is no lab {options.lab} to measure. Type: make demo")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < options.connections + 500:
        raise SystemExit(f"This machine lets a process open {hard} files; {options.connections} connections take more. Type: ulimit -Hn")
    host = lab.host
    site = platform_site(lab, host)
    fill(site)
    before = host.container("traefik/traefik").identity
    figures = [page_weight(lab, host, site)]
    client = site.client()
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies)
    path = f"/web/content/{attachment(site)}?download=true"
    clerks = Clerks(site)
    alone = phase("alone", site, clerks, options.seconds)
    ended: Counter[str] = Counter()
    crowd = [client for _ in range(options.clients) for client in (("upload",), ("download", path, DOWNLOAD_BYTES))]
    with slow(site, cookies, crowd, ended):
        figures += ratios("slow_clients", alone, phase("slow clients", site, clerks, options.seconds))
    say(f"  they ended: {dict(ended)}")
    figures.append(Figure("slow_uploads_failed", 0, options.clients - ended["upload answered"], ""))
    figures.append(Figure("slow_downloads_cut", 0, options.clients - ended["download complete"], ""))
    ended = Counter()
    alone = phase("alone again", site, clerks, options.seconds)
    with slow(site, cookies, [("silent", number % 3) for number in range(options.connections)], ended):
        figures += ratios("connections", alone, phase(f"{options.connections} connections", site, clerks, options.seconds))
    say(f"  they ended: {dict(ended)}")
    figures.append(Figure("connections_refused", 0, options.connections - ended["silent held"], ""))
    figures.append(Figure("edge_restarts", 0, int(host.container("traefik/traefik").identity != before), ""))
    limit = host.container("traefik/traefik").facts["HostConfig"]["Memory"] / 1e6
    say(f"  Traefik held at most {memory(host):.0f} of {limit:.0f} MB, page cache included")
    for figure in figures:
        sys.stdout.write("\t".join(figure.cells) + "\n")
    if options.write:
        write(table(figures, f'make bench-edge BENCH="{" ".join(sys.argv[1:])}"'), "bench-edge")


if __name__ == "__main__":
    main()
