# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's front door: TLS, redirect, headers, closed paths, and nothing else to be reached on the machine."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import urllib.request
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.odoo import open_ports

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo


def test_certificate_is_the_labs_and_not_trusted_without_its_ca(visitor: Odoo) -> None:
    assert visitor.request("/web/health").status == 200
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        opener.open(f"{visitor.url}/web/health", timeout=10)


@pytest.mark.parametrize(
    ("door", "offer", "taken"),
    [
        ("traefik/traefik 8443", "-groups X25519MLKEM768", True),
        ("traefik/traefik 8443", "-groups P-256 -tls1_2", True),
        ("traefik/traefik 8443", "-groups P-521", False),
        ("traefik/traefik 8443", "-groups P-256 -tls1_2 -cipher ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:AES128-GCM-SHA256", False),
        ("traefik/traefik 8443", "-groups P-256 -tls1_1", False),
        ("postgresql/postgresql 5432", "-starttls postgres -tls1_3", True),
        ("postgresql/postgresql 5432", "-starttls postgres -tls1_2", False),
        ("postgresql/postgresql 8008", "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", True),
        ("postgresql/postgresql 8008", "-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384", False),
        ("etcd/etcd 2379", "-tls1_3", True),
        ("etcd/etcd 2379", "-tls1_2", False),
        ("etcd/etcd 2380", "-tls1_2", False),
    ],
)
def test_doors_take_tls_that_is_up_to_date_and_no_other(host: Host, door: str, offer: str, taken: bool) -> None:
    """With a certificate of the platform's, so that nothing but the offer is refused. `make scan` lets a scanner look at all of it."""
    name, port = door.split()
    networks = host.container(name).facts["NetworkSettings"]["Networks"].values()
    address = next(network["IPAddress"] for network in networks if network["IPAddress"])
    known = "-cert /opt/berth/etcd/tls/tls.crt -key /opt/berth/etcd/tls/tls.key"
    answer = host.run(f"openssl s_client -connect {address}:{port} {known} {offer} </dev/null 2>&1", check=False)
    assert "CONNECTED(" in answer, f"{name} was not reached"
    assert ("-----BEGIN CERTIFICATE-----" in answer) == taken, answer


def test_http_is_redirected_to_https(host: Host, visitor: Odoo) -> None:
    answer = visitor.request(f"http://{host.address}/web/login?redirect=/odoo")
    assert answer.status in (301, 308)
    assert answer.headers["Location"] == f"https://{host.address}/web/login?redirect=/odoo"


def test_root_leads_to_the_login_page(visitor: Odoo) -> None:
    page = visitor.request("/web/login")
    assert page.status == 200
    assert 'name="password"' in page.body


@pytest.mark.parametrize(
    "path",
    [
        "/web/database/manager",
        "/web/database/selector",
        "/web/database/list",
        "/web/database/backup",
        "/WEB/DATABASE/manager",
        "//web/database/manager",
        "/web//database/manager",
        "/web/%64atabase/manager",
        "/web/login/../database/manager",
        "/queue_job/runjob",
        "/website/info",
        "/html_editor/link_preview_external",
        "/xmlrpc/2/common",
        "/xmlrpc/2/db",
        "/jsonrpc",
    ],
)
def test_closed_paths_never_reach_odoo(visitor: Odoo, path: str) -> None:
    answer = visitor.request(path)
    # A path that Odoo does not know either (other case) may be its own 404; the database manager's page is never the answer.
    assert answer.status in (403, 404), f"{path} answered {answer.status}"
    assert "master_pwd" not in answer.body
    if path == path.lower() and "//" not in path:
        assert answer.status == 403, f"{path} answered {answer.status}"


def test_headers_of_every_answer(visitor: Odoo) -> None:
    headers = visitor.request("/web/login").headers
    assert int(headers["Strict-Transport-Security"].split("max-age=")[1].split(";")[0]) >= 31536000 // 2
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"]
    assert headers["Server"] is None
    assert headers["X-Powered-By"] is None


def test_client_cannot_choose_the_database(visitor: Odoo) -> None:
    """Odoo would answer for another database, or not at all, if the header came through."""
    answer = visitor.request("/web/login", headers={"X-Odoo-Database": "postgres"})
    assert answer.status == 200
    assert 'name="password"' in answer.body


def test_body_over_the_limit_is_refused_at_the_edge(visitor: Odoo) -> None:
    """Odoo takes 128 MiB. The announced length is enough for a refusal; nothing is sent after it."""
    host = visitor.url.removeprefix("https://")
    connection = http.client.HTTPSConnection(host, timeout=20, context=ssl.create_default_context(cafile=str(visitor.ca)))
    try:
        connection.putrequest("POST", "/web/login")
        connection.putheader("Content-Length", str(200 * 1024 * 1024))
        connection.endheaders()
        assert connection.getresponse().status == 413
    finally:
        connection.close()


def test_a_flood_of_logins_is_stopped_and_others_log_in(host: Host, visitor: Odoo) -> None:
    """Thirty a minute from one address. The flood comes from the machine itself, so that the visitor's address keeps its allowance."""
    flood = "for i in $(seq 45); do curl -ks -o /dev/null -w '%{http_code}\\n' -X POST https://$HOSTNAME/web/login -d login=x -d password=y; done"
    answers = host.run(flood.replace("$HOSTNAME", host.address)).split()
    assert len(answers) == 45
    assert answers.count("429") >= 5, answers
    assert "429" not in answers[:25], "the allowance of a minute was not given"
    assert visitor.request("/web/login", form={"login": "x", "password": "y"}).status != 429


WAITING = 20


def test_machines_cannot_occupy_every_worker(visitor: Odoo) -> None:
    """Calls that nobody finishes take no place. Of those that arrive in one moment, with two workers one may be in flight; people meanwhile get answers."""
    call = "/json/2/res.partner/search_count"
    host = visitor.url.removeprefix("https://")
    trust = ssl.create_default_context(cafile=str(visitor.ca))
    with contextlib.ExitStack() as opened:
        slow = []
        for _ in range(WAITING):
            connection = opened.enter_context(contextlib.closing(http.client.HTTPSConnection(host, timeout=60, context=trust)))
            connection.putrequest("POST", call)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", "2")
            connection.endheaders(b"{")  # the rest is still to come
            slow.append(connection)
        # Without a key it is refused by Odoo, which shows that it got there.
        assert visitor.request(call, body={}).status in (401, 403)
        for connection in slow:
            connection.send(b"}")
        assert visitor.request("/web/login").status == 200
        answers = [connection.getresponse().status for connection in slow]
    assert 429 in answers, answers
    assert set(answers) - {429} and set(answers) <= {401, 403, 429}, answers
    assert visitor.request(call, body={}).status in (401, 403)


def test_customers_who_send_nothing_keep_nobody_out(visitor: Odoo) -> None:
    """A few anonymous requests that announce a body would otherwise close the portal for minutes."""
    host = visitor.url.removeprefix("https://")
    trust = ssl.create_default_context(cafile=str(visitor.ca))
    with contextlib.ExitStack() as opened:
        for path in ("/my", "/report/pdf/x/1") * 5:
            connection = opened.enter_context(contextlib.closing(http.client.HTTPSConnection(host, timeout=20, context=trust)))
            connection.putrequest("POST", path)
            connection.putheader("Content-Type", "text/plain")
            connection.putheader("Content-Length", "1000")
            connection.endheaders()
        for path in ("/my", "/report/pdf/x/1"):
            assert visitor.request(path).status != 429, path


def test_nothing_listens_but_ssh_and_the_edge(host: Host) -> None:
    """As a neighbour on the network sees it: every TCP port, and whatever waits for UDP."""
    assert open_ports(host.address, range(1, 65536)) == [22, 80, 443]
    udp = host.run("ss -Hlnu | awk '{print $4}'").split()
    assert [address for address in udp if not address.startswith(("127.", "[::1]"))] == []
