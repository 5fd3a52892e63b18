# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traefik's dynamic configuration. That Traefik takes it is tested with a real one."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _traefik as traefik

PEM = {
    "certificate": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----",
    "key": "-----BEGIN EC PRIVATE KEY-----\nx\n-----END EC PRIVATE KEY-----",
}
SITE: dict[str, Any] = {
    "name": "main",
    "domains": ["odoo.example.com", "203.0.113.10"],
    "web": ["http://odoo-main-web:8069"],
    "websocket": ["http://odoo-main-websocket:8072"],
    "certificate": "main",
}
COMMON = {"maximum_body_mb": 128, "response_timeout": 150, "hsts_seconds": 300}


def files(*sites: dict[str, Any], **more: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"certificates": {"main": PEM}, "extra": {}, "networks": [], "common": COMMON, **more}
    return traefik.dynamic_files(list(sites) or [SITE], **arguments)


def test_a_site_has_three_routers_in_order() -> None:
    routers = files()["site-main"]["http"]["routers"]
    assert routers["main-deny"]["priority"] > routers["main-websocket"]["priority"] > routers["main-web"]["priority"]
    assert routers["main-web"]["rule"] == "(Host(`odoo.example.com`) || Host(`203.0.113.10`))"
    assert all(router["rule"].startswith(routers["main-web"]["rule"]) for name, router in routers.items() if name.startswith("main-"))


def test_bodies_are_buffered_and_websockets_are_not() -> None:
    routers = files()["site-main"]["http"]["routers"]
    assert "buffering" in routers["main-web"]["middlewares"]
    assert "buffering" not in routers["main-websocket"]["middlewares"]


def denied(path: str, *, legacy_rpc: bool = False) -> bool:
    """Match a path as Traefik would: its regular expressions are Go's, and these use nothing that Python reads otherwise."""
    rule = traefik.site_configuration({**SITE, "legacy_rpc": legacy_rpc})["http"]["routers"]["main-deny"]["rule"]
    match = re.search(r"PathRegexp\(`(.*)`\)", rule)
    assert match
    return re.search(match[1], path) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/web/database",
        "/web/database/manager",
        "//web//database/",
        "/WEB/Database/list",
        "/web%2Fdatabase/manager",
        "/web%2f%2fdatabase",
        "/fr/web/database/manager",
        "/sr@latin/web/database/manager",
        "/zh_cn/web/database",
        "/pt-br/web/database",
        "/web/database;x=1",
        "/queue_job/runjob",
        "/website/info",
        "/doc",
        "/doc/res.partner.json",
        "/doc-bearer/index.json",
        "/xmlrpc/2/common",
        "/jsonrpc",
    ],
)
def test_closed_paths(path: str) -> None:
    assert denied(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/web",
        "/web/databases_x",
        "/document",
        "/docs",
        "/my/documents",
        "/odoo",
        "/json/2/res.partner/read",
        "/websocket",
        "/web/login",
    ],
)
def test_open_paths(path: str) -> None:
    assert not denied(path)


def test_old_rpc_is_open_where_a_site_needs_it() -> None:
    assert not denied("/xmlrpc/2/common", legacy_rpc=True)
    assert denied("/web/database", legacy_rpc=True)


def test_nobody_reaches_closed_paths_unless_a_network_is_named() -> None:
    ranges = [files(networks=networks)["common"]["http"]["middlewares"]["closed"]["ipAllowList"] for networks in ([], ["10.0.0.0/24"])]
    assert ranges == [{"sourceRange": ["127.0.0.1/32"]}, {"sourceRange": ["10.0.0.0/24"]}]


def test_no_hsts_header_when_it_is_switched_off() -> None:
    headers = files(common={**COMMON, "hsts_seconds": 0})["common"]["http"]["middlewares"]["headers"]["headers"]
    assert "stsSeconds" not in headers


def test_the_first_sites_certificate_is_the_default() -> None:
    other = {**SITE, "name": "other", "domains": ["b.example"], "certificate": "other"}
    second = {**PEM, "certificate": PEM["certificate"].replace("x", "y")}
    tls = files(other, SITE, certificates={"main": PEM, "other": second})["certificates"]["tls"]
    assert "y" in tls["stores"]["default"]["defaultCertificate"]["certFile"]
    assert len(tls["certificates"]) == 2


def test_each_file_proves_its_content() -> None:
    before, after = files(), files({**SITE, "web": ["http://10.0.0.2:8069"]})

    def route(found: dict[str, Any], name: str) -> str:
        return str(found[name]["http"]["routers"][f"revision-{name}"]["rule"])

    assert re.fullmatch(r"Path\(`/revision/site-main/[0-9a-f]{16}`\)", route(before, "site-main"))
    assert route(before, "site-main") != route(after, "site-main")
    assert route(before, "common") == route(after, "common")


def test_own_configuration_keeps_its_routers() -> None:
    extra = {"http": {"routers": {"mine": {"rule": "Path(`/x`)", "service": "noop@internal"}}}, "tcp": {}}
    found = files(extra=copy.deepcopy(extra))["extra"]
    assert set(found["http"]["routers"]) == {"mine", "revision-extra"}
    with pytest.raises(traefik.SiteError, match="htpp"):
        files(extra={"htpp": {}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Main`"}, r"\[0\].name is 'Main`'"),
        ({"domains": []}, "at least one domain"),
        ({"domains": ["a`) || Host(`b"]}, "must be a host name"),
        ({"domains": ["UPPER.example"]}, "must be a host name"),
        ({"web": ["odoo:8069"]}, "must be a URL"),
        ({"web": ["http://odoo:8069/path"]}, "must be a URL"),
        ({"websocket": []}, "websocket must be a list"),
        ({"certificate": "mian"}, r"certificate is 'mian', must be a name of traefik_certificates \(main\)"),
        ({"websockets": []}, "unknown key websockets; did you mean websocket"),
    ],
)
def test_bad_sites_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(traefik.SiteError, match=message):
        files({**SITE, **change})


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(traefik.SiteError) as caught:
        files({**SITE, "web": []}, {**SITE, "name": "other"}, networks=["10.0.0.1/24"])
    assert len(str(caught.value).splitlines()) == 4  # no web server, the two domains taken twice, a network with host bits


@pytest.mark.parametrize(
    "entry", ["text", {}, {"certificate": "x", "key": PEM["key"]}, {"certificate": PEM["certificate"], "key": "SECRET"}, {**PEM, "more": 1}]
)
def test_bad_certificates_are_refused_without_showing_them(entry: Any) -> None:
    with pytest.raises(traefik.SiteError) as caught:
        files(certificates={"main": entry})
    assert "traefik_certificates.main" in str(caught.value)
    assert "SECRET" not in str(caught.value)
