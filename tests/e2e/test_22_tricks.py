# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that no browser sends: ways round what is closed, headers that only a proxy may set, and bodies that two servers might read in two ways.

They go out byte by byte, because every HTTP library would tidy them up.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.odoo import Watch

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo

END = b"\r\n"
# Every one would be a closed path if somebody between the client and Odoo's router decoded, cleaned or cut it in another way.
TRICKS = [
    b"//web//database/manager",
    b"/web/./database/manager",
    b"/web/login/../database/manager",
    b"/web/login/%2e%2e/database/manager",
    b"/web/login/..%2fdatabase/manager",
    b"/web/login/%2e%2e%2fdatabase%2fmanager",
    b"/web/.%2fdatabase/manager",
    b"/.%2fweb/database/manager",
    b"/%2e%2fweb%2fdatabase/manager",
    b"/x%2f..%2fweb%2fdatabase/manager",
    b"/%2fweb/database/manager",
    b"/web%2Fdatabase%2Fmanager",
    b"/web/%64atabase/manager",
    b"/%77eb/%64%61%74%61%62%61%73%65/manager",
    b"/web/%2564atabase/manager",
    b"/web%252fdatabase/manager",
    b"/WEB/Database/Manager",
    b"/web/database;x/manager",
    b"/web/database%3bx/manager",
    b"/web;x/database/manager",
    b"/web/database.",
    b"/web./database/manager",
    b"/web/database%20/manager",
    b"/web/database%09",
    b"/web/database%0a",
    b"/web/database%00/manager",
    b"/web/database%3f/manager",
    b"/web/database%23",
    b"/web\\database\\manager",
    b"/web%5cdatabase%5cmanager",
    b"/web/%c0%ae%c0%ae/database/manager",
    b"/web/%e2%80%8bdatabase/manager",
    b"/web/database%ff/manager",
    b"/%u0077eb/database/manager",
    b"/fr/web/database/manager",
    b"/zh_CN%2fweb/database/manager",
    b"/anything at all/web/database/manager".replace(b" ", b"%20"),
    b"/websocket/../web/database/manager",
    b"/websocket/..%2fweb/database/manager",
    b"/web/static/..%2fdatabase/manager",
    b"/web/assets/..%2f..%2fweb%2fdatabase/manager",
    b"http://HOST/web/database/manager",
    b"https://HOST/web/%64atabase/manager",
    b"web/database/manager",
    b"/queue_job/",
    b"/queue_job/runjob",
    b"/en%2fqueue_job/runjob",
    b"/website//info",
    b"/doc",
    b"/doc%2f",
    b"/jsonrpc/",
    b"/english/jsonrpc",
    b"/xmlrpc/2/db",
    b"/base_import_module/login_upload",
    b"/html_editor/link_preview_external",
    b"/en%2fhtml_editor//link_preview_external",
]


def send(
    visitor: Odoo, target: bytes, *headers: bytes, method: bytes = b"GET", host: bytes | None = None, body: bytes = b""
) -> tuple[int, str]:
    """Send a request as it is written and return status and body of the answer. ``HOST`` stands for the site's name."""
    name = visitor.url.removeprefix("https://")
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: " + (name.encode() if host is None else host), *headers, b"Connection: close"]
    request = END.join(line.replace(b"HOST", name.encode()) for line in lines) + END + END + body
    trust = ssl.create_default_context(cafile=str(visitor.ca))
    with socket.create_connection((name, 443), timeout=60) as plain, trust.wrap_socket(plain, server_hostname=name) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method=method.decode("latin-1"))
        answer.begin()
        text = answer.read().decode("utf-8", "replace")
    assert not text.startswith("HTTP/1.1"), f"{target!r} got two answers: {text[:300]}"
    return answer.status, text


def classes(host: Host, count: int) -> list[str]:
    """The routers that the last requests took, as the access log names them."""
    name = host.container("traefik/traefik").id
    lines = host.run(f"docker logs --tail 200 {name} 2>/dev/null").splitlines()
    found = [entry.get("RouterName", "") for entry in map(json.loads, lines) if "RequestMethod" in entry]
    return found[-count:]


def test_no_way_of_writing_it_opens_a_closed_path(visitor: Odoo, say: Callable[[str], None]) -> None:
    """Refused at the edge (403), by Traefik's reading of HTTP (400), or something that Odoo does not know either (404)."""
    answers = {target: send(visitor, target) for target in TRICKS}
    for status, who in ((403, "closed"), (400, "not understood"), (404, "not known to Odoo")):
        found = [target.decode("latin-1") for target, (got, _text) in answers.items() if got == status]
        say(f"{status} {who}: {len(found)} of {len(TRICKS)}: {' '.join(found)}")
    assert {target: status for target, (status, _text) in answers.items() if status not in (400, 403, 404)} == {}
    assert [target for target, (_status, text) in answers.items() if "master_pwd" in text or "server_version" in text] == []


def test_a_language_of_any_name_opens_nothing(visitor: Odoo, admin: Odoo) -> None:
    """Odoo takes its languages out of paths, and an administrator may call them what he likes in addresses."""
    [english] = admin.call("res.lang", "search_read", [["code", "=", "en_US"]], fields=["url_code"])
    version = json.dumps({"jsonrpc": "2.0", "params": {"service": "common", "method": "version", "args": []}}).encode()
    more = (b"Content-Type: application/json", f"Content-Length: {len(version)}".encode())
    admin.call("res.lang", "write", [english["id"]], {"url_code": "our english"})
    try:
        # It is a language now: what is open is there with it.
        wait_for("the language in an address", lambda: send(visitor, b"/our%20english/web/login")[0] in (200, 301, 303), seconds=10)
        for target in (b"/our%20english/jsonrpc", b"/our%20english%2fjsonrpc", b"/OUR%20english//jsonrpc"):
            assert send(visitor, target, *more, method=b"POST", body=version)[0] == 403, target
    finally:
        admin.call("res.lang", "write", [english["id"]], {"url_code": english["url_code"]})


# Whom Odoo takes for the client decides whose failed logins are counted together; which host it is, where links of its mails lead.
FORGED = [
    b"X-Forwarded-For: 203.0.113.7",
    b"X_Forwarded_For: 203.0.113.7",
    b"X-Forwarded_For: 203.0.113.7",
    b"x-FORWARDED-for: 203.0.113.7\r\nX-Forwarded-For: 203.0.113.8",
    b"Forwarded: for=203.0.113.7;host=evil.example;proto=http",
    b"X-Real-IP: 203.0.113.7",
    b"X_Real_IP: 203.0.113.7",
    b"X-Client-IP: 203.0.113.7",
    b"X-A: b\r\n X-Forwarded-For: 203.0.113.7",
    b"X-A: b\nX-Forwarded-For: 203.0.113.7",
    b"Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Real-Ip",
]


def test_nobody_says_for_himself_who_he_is(host: Host, visitor: Odoo) -> None:
    assert send(visitor, b"/web/login?forged=none")[0] == 200
    for number, header in enumerate(FORGED):
        assert send(visitor, f"/web/login?forged={number}".encode(), header)[0] == 200, header
    log = f"docker logs --since 600s {host.container('odoo-main/web').id} 2>&1 | grep -o '[^ ]* - - .*GET /web/login?forged=[0-9a-z]*' || true"
    lines = wait_for("a line for each", lambda: (found := host.run(log).splitlines()) and len(found) > len(FORGED) and found, seconds=10)
    [client] = {line.split()[0] for line in lines}
    assert not client.startswith("203.0.113."), lines


@pytest.mark.parametrize(
    "header",
    [
        b"X-Odoo-Database: postgres",
        b"x-odoo-DATABASE: postgres\r\nX-Odoo-Database: main",
        b"X_Odoo_Database: postgres",
        b"X-Odoo_Database: postgres",
        b"X-A: b\nX-Odoo-Database: postgres",
        b"X-Odoo-Dbfilter: postgres",
        b"Connection: X-Odoo-Database\r\nX-Odoo-Database: postgres",
    ],
)
def test_nobody_chooses_the_database(visitor: Odoo, header: bytes) -> None:
    status, text = send(visitor, b"/web/login", header)
    assert (status, 'name="password"' in text) == (200, True)


@pytest.mark.parametrize(
    ("host_header", "wanted"),
    [
        (b"HOST:443", 200),
        (b"HOST:1", 200),
        (b"evil.example", 404),
        (b"evil.example,HOST", 404),
        (b"", 404),
        (b"evil@HOST", 400),
        (b"HOST/evil", 400),
        (b"HOST evil", 400),
        (b"HOST\r\nHost: evil.example", 400),
    ],
)
def test_a_name_is_the_sites_or_nobodys(visitor: Odoo, host_header: bytes, wanted: int) -> None:
    assert send(visitor, b"/web/login", host=host_header)[0] == wanted


def test_the_name_in_the_request_line_counts(visitor: Odoo) -> None:
    assert send(visitor, b"http://HOST/web/login", host=b"evil.example")[0] == 200
    assert send(visitor, b"http://evil.example/web/login")[0] == 404


SMUGGLED = b"GET /web/database/manager HTTP/1.1\r\nHost: HOST\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body", "wanted"),
    [
        # The length is what the chunks say, and what follows is no second request: the connection ends.
        ([b"Transfer-Encoding: chunked", b"Content-Length: 6"], b"0\r\n\r\n" + SMUGGLED, {200, 400}),
        ([b"Content-Length: 4", b"Content-Length: 60"], b"abcd" + SMUGGLED, {400}),
        ([b"Content-Length: 4, 4"], b"abcd" + SMUGGLED, {400}),
        ([b"Content-Length: +4"], b"abcd" + SMUGGLED, {400}),
        ([b"Content-Length : 4"], b"abcd" + SMUGGLED, {400}),
        ([b"Transfer-Encoding: xchunked"], b"0\r\n\r\n" + SMUGGLED, {501}),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], b"0\r\n\r\n" + SMUGGLED, {501}),
        ([b"Transfer-Encoding: \x0bchunked"], b"0\r\n\r\n" + SMUGGLED, {400, 501}),
        ([b"Transfer_Encoding: chunked", b"Content-Length: 4"], b"abcd", {200, 400}),
    ],
)
def test_a_body_ends_in_one_place(visitor: Odoo, headers: list[bytes], body: bytes, wanted: set[int]) -> None:
    """``send`` fails where a second answer follows. Odoo itself gets one request on a connection, with a length."""
    status, _text = send(visitor, b"/web/login?smuggled", b"Content-Type: text/plain", *headers, body=body)
    assert status in wanted


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([b"X-A: " + b"a" * 30000], 200),
        ([b"X-A: " + b"a" * 40000], 431),
        ([b"X-%d: a" % number for number in range(5000)], 431),
        ([b"X-A: a\x00b"], 400),
        ([b"X-A: a\rX-B: b"], 400),
    ],
)
def test_headers_have_an_end(visitor: Odoo, headers: list[bytes], wanted: int) -> None:
    assert send(visitor, b"/web/login", *headers)[0] == wanted


def test_every_way_to_try_a_password_is_counted(host: Host, visitor: Odoo) -> None:
    """Odoo takes one in any method and in small letters, and behind a language of any name."""
    form = b"login=x&password=y"
    more = (b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: %d" % len(form))
    ways = [
        (b"POST", b"/web/login"),
        (b"post", b"/web/login"),
        (b"PoSt", b"/web//login"),
        (b"PUT", b"/web/session/authenticate"),
        (b"GET", b"/web/session/authenticate"),
        (b"FOO", b"/web/session/authenticate"),
        # They try addresses.
        (b"GET", b"/web/reset_password?signup_email=x%40example.com"),
        (b"GET", b"/web/signup?signup_email=x%40example.com"),
        (b"POST", b"/our%20english/web/login"),
    ]
    for method, target in ways:
        send(visitor, target, *more, method=method, body=form)
    wait_for("lines of them", lambda: classes(host, len(ways)) == ["main-login@file"] * len(ways), seconds=10)
    assert send(visitor, b"/web/login")[0] == 200
    wait_for("a line of somebody who looks", lambda: classes(host, 1) == ["main-web@file"], seconds=10)


SILENT, UNFINISHED = 9000, 1000


def test_ten_thousand_silent_connections_keep_nobody_out(host: Host, visitor: Odoo, say: Callable[[str], None]) -> None:
    """Most in the middle of the handshake, the others in the middle of large headers. Traefik lives, and people are served as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > SILENT + UNFINISHED + 500, f"this machine lets a process open {hard} files only; type: ulimit -Hn"
    before = host.container("traefik/traefik").identity
    name = visitor.url.removeprefix("https://")
    trust = ssl.create_default_context(cafile=str(visitor.ca))
    watch = Watch(visitor, "/web/login")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(SILENT):
                connection = opened.enter_context(socket.create_connection((name, 443), timeout=60))
                # A greeting of 512 bytes, of which these are the first.
                connection.sendall(bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]))
            for _ in range(UNFINISHED):
                plain = opened.enter_context(socket.create_connection((name, 443), timeout=60))
                connection = opened.enter_context(trust.wrap_socket(plain, server_hostname=name))
                connection.sendall(f"GET /web/login HTTP/1.1\r\nHost: {name}\r\nX-A: ".encode() + b"a" * 30000)
            with watch.watching():
                wait_for("25 answers", lambda: len(watch.answers) >= 25, seconds=60)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    say(
        f"{SILENT + UNFINISHED} silent connections: requests that failed beside them, wanted 0, got {len(watch.failures)} of {len(watch.answers)}"
    )
    assert watch.failures == []
    assert host.container("traefik/traefik").identity == before, "Traefik was killed"
