# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Odoo's web interface as a client sees it: pages, JSON-RPC, the websocket. TLS is always verified against the lab's CA."""

from __future__ import annotations

import dataclasses
import http.client
import http.cookiejar
import json
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any

import websocket

from ansible_collections.berth.odoo.tests.support.lab import wait_for

CSRF = re.compile(r'name="csrf_token"\s+value="([^"]+)"')
# The client's version of the websocket protocol: Odoo closes a connection whose version differs from its own.
WORKER_VERSION = re.compile(r'"?websocket_worker_version"?:\s*"([^"]+)"')

STATIC_FILE = "/web/static/img/favicon.ico"
"""Answered by a web worker without the database."""

HEALTH = "/web/health"
"""Answered by a web worker that asks the database, where the instance has one only."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer; redirects are not followed."""

    status: int
    headers: Message
    body: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        return None


class _At(urllib.request.HTTPSHandler):
    """Connects to an address whatever the name, as a client does whose DNS says so."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._address, self._trust = address, context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.connection, req)

    def connection(self, host: str, **more: Any) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(host, context=self._trust, **more)
        connection._create_connection = lambda where, *rest: socket.create_connection((self._address, where[1]), *rest)  # type: ignore[attr-defined]
        return connection


class Odoo:
    """One client with its own cookies."""

    def __init__(self, url: str, ca: Path, address: str = "") -> None:
        """``url`` without a path, such as ``https://192.0.2.1``; ``address`` to go to, where the name does not lead there."""
        self.url = url.rstrip("/")
        self.ca = ca
        self.cookies = http.cookiejar.CookieJar()
        context = ssl.create_default_context(cafile=str(ca))
        self.connection = _At(address, context).connection if address else partial(http.client.HTTPSConnection, context=context)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            _At(address, context) if address else urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPCookieProcessor(self.cookies),
            _NoRedirect,
        )

    def request(
        self,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Answer:
        """GET, or POST when there is a form or a JSON body. ``path`` may also be a whole URL."""
        url = path if "://" in path else self.url + path
        data, sent = None, dict(headers or {})
        if form is not None:
            data = urllib.parse.urlencode(form).encode()
        elif body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            request = urllib.request.Request(url, data, sent)  # noqa: S310 - tests pass http and https alone
            with self._opener.open(request, timeout=timeout) as answer:
                return Answer(answer.status, answer.headers, answer.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read().decode("utf-8", "replace"))
        except http.client.HTTPException as error:
            raise ConnectionError(f"{url}: {error!r}") from error

    def log_in(self, login: str, password: str) -> None:
        """Log in through the form, as a person does."""
        page = self.request("/web/login")
        token = CSRF.search(page.body)
        assert page.status == 200 and token, f"/web/login answered {page.status} without a form:\n{page.body[:500]}"
        answer = self.request("/web/login", form={"csrf_token": token[1], "login": login, "password": password, "redirect": "/odoo"})
        assert answer.status == 303, f"the login of {login} was answered with {answer.status}, expected a redirect into Odoo"

    def rpc(self, path: str, **params: Any) -> Any:
        """A JSON-RPC call of the web client."""
        answer = self.request(path, body={"jsonrpc": "2.0", "method": "call", "params": params})
        assert answer.status == 200, f"{path} answered {answer.status}: {answer.body[:500]}"
        result = json.loads(answer.body)
        assert "error" not in result, f"{path}: {result['error']['message']}: {result['error'].get('data', {}).get('message')}"
        return result.get("result")

    def call(self, model: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a public method of a model, as the web client does."""
        return self.rpc(f"/web/dataset/call_kw/{model}/{method}", model=model, method=method, args=list(args), kwargs=kwargs)

    def websocket(self) -> websocket.WebSocket:
        """Open the bus websocket with this client's session. The handshake's status is in its ``getstatus()``."""
        page = self.request("/odoo")
        version = WORKER_VERSION.search(page.body)
        assert version, f"/odoo answered {page.status} without a websocket version:\n{page.body[:500]}"
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies)
        return websocket.create_connection(
            f"{self.url.replace('https', 'wss', 1)}/websocket?version={version[1]}",
            origin=self.url,
            cookie=cookies,
            sslopt={"ca_certs": str(self.ca)},
            timeout=90,
        )

    def wait_until_up(self, *, seconds: float = 120) -> None:
        """Wait for an answer that needs the database."""

        def probe() -> bool:
            answer = self.request(HEALTH, timeout=30)
            assert answer.status == 200, f"{HEALTH} answered {answer.status}"
            return True

        wait_for(f"{self.url}{HEALTH}", probe, seconds=seconds)


class Watch:
    """What a client saw that asked for a page again and again."""

    def __init__(self, odoo: Odoo, path: str) -> None:
        """The client to ask with, and what for."""
        self.odoo = odoo
        self.path = path
        self.answers: list[str] = []
        self._stop = threading.Event()

    def run(self) -> None:
        """Ask five times a second until told to stop. Who waits is served within a minute, or has an error by then."""
        while not self._stop.wait(0.2):
            began = time.monotonic()
            try:
                result = str(self.odoo.request(self.path, timeout=100).status)
            except OSError as error:
                result = f"{type(error).__name__} {error} after {time.monotonic() - began:.1f} s"
            self.answers.append(result)

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Ask in the background meanwhile."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(timeout=110)

    @property
    def failures(self) -> list[str]:
        """Every answer that was not 200."""
        return [answer for answer in self.answers if answer != "200"]


def open_ports(address: str, ports: Iterator[int] | range) -> list[int]:
    """The TCP ports of an address that accept a connection."""
    found = []
    for port in ports:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                found.append(port)
    return found
