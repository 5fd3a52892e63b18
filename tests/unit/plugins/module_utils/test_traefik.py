# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traefik's dynamic configuration. That Traefik takes it is tested with a real one."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def routers(**change: Any) -> dict[str, Any]:
    return dict(files({**SITE, **change})["site-main"]["http"]["routers"])


def test_the_classes_of_a_site_have_an_order_and_its_domains() -> None:
    found = routers()
    order = ["deny", "websocket", "login", "api", "report", "portal", "static", "web"]
    assert [f"main-{kind}" for kind in order] == [name for name in found if name.startswith("main-")]
    assert sorted((found[f"main-{kind}"]["priority"] for kind in order), reverse=True) == [
        found[f"main-{kind}"]["priority"] for kind in order
    ]
    assert found["main-web"]["rule"] == "(Host(`odoo.example.com`) || Host(`203.0.113.10`))"
    assert all(router["rule"].startswith(found["main-web"]["rule"]) for name, router in found.items() if name.startswith("main-"))


def test_bodies_are_buffered_and_websockets_are_not() -> None:
    for name, router in routers().items():
        kind = name.removeprefix("main-")
        if name.startswith("main-"):
            assert ("buffering" in router["middlewares"]) == (kind not in ("deny", "websocket")), kind


def holds(rule: str, path: str, method: str) -> bool:
    """Whether a rule takes a request to the right host, as Traefik would find it: its regular expressions are Go's, and these use nothing that
    Python reads otherwise."""
    matchers = {
        "Host": lambda _name: True,
        "Method": lambda name: method == name,
        "Path": lambda text: path == text,
        "PathPrefix": path.startswith,
        "PathRegexp": lambda pattern: re.search(pattern, path) is not None,
    }
    code = re.sub(r"`(.*?)`", lambda text: repr(text[1]), rule).replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    return bool(eval(code, {"__builtins__": {}}, matchers))  # noqa: S307 - a rule of ours


def matching(path: str, method: str = "GET", **change: Any) -> str:
    """The class that takes a request."""
    found = sorted(routers(**change).items(), key=lambda item: -item[1].get("priority", 0))
    return next(name.removeprefix("main-") for name, router in found if name.startswith("main-") and holds(router["rule"], path, method))


@pytest.mark.parametrize(
    ("path", "method", "kind"),
    [
        ("/web/login", "POST", "login"),
        ("/web/login", "GET", "web"),
        ("/WEB//Login", "POST", "login"),
        ("/de/web/login", "POST", "login"),
        ("/web/session/authenticate", "POST", "login"),
        # Odoo takes a password here in whatever request.
        ("/web/session/authenticate", "PUT", "login"),
        ("/web/session/authenticate", "GET", "login"),
        # An address that has an account is answered differently (signup_email).
        ("/web/reset_password", "GET", "login"),
        ("/de/web//Signup", "GET", "login"),
        ("/web/login/totp", "POST", "login"),
        ("/english/web/login", "POST", "login"),
        ("/json/2/res.partner/read", "POST", "api"),
        ("/jsonx", "GET", "web"),
        ("/edi/orders/7", "POST", "api"),
        ("/report/pdf/stock.report_picking/1", "GET", "report"),
        ("/report/barcode/Code128/x", "GET", "web"),
        ("/web/export/xlsx", "POST", "report"),
        ("/my", "GET", "portal"),
        ("/fr/my/orders", "GET", "portal"),
        ("/shop;x", "GET", "portal"),
        ("/myself", "GET", "web"),
        ("/event/fair-1", "GET", "portal"),
        ("/web/assets/1/abc/web.assets_web.min.js", "GET", "static"),
        ("/stock/static/src/x.png", "GET", "static"),
        ("/web/dataset/call_kw/stock.picking/button_validate", "POST", "web"),
        ("/websocket", "GET", "websocket"),
        ("/odoo", "GET", "web"),
        ("/xmlrpc/2/object", "POST", "deny"),
    ],
)
def test_a_request_has_a_class(path: str, method: str, kind: str) -> None:
    assert matching(path, method, api_paths=["/edi/"], portal_paths=["event"]) == kind


def test_opened_old_rpc_is_an_api() -> None:
    assert matching("/xmlrpc/2/object", "POST", legacy_rpc=True) == "api"


@given(workers=st.integers(1, 200))
def test_no_class_can_take_every_worker(workers: int) -> None:
    limits = traefik.class_limits(workers, 0, {})
    for kind in traefik.SHARE:
        assert 1 <= limits[kind] <= max(1, workers - 1)
        assert limits[kind] <= traefik.class_limits(workers + 1, 0, {})[kind]


def test_limits_follow_the_workers_and_the_operator() -> None:
    def amounts(**change: Any) -> dict[str, Any]:
        found = files({**SITE, **change})["site-main"]["http"]["middlewares"]
        return {name: value.get("inFlightReq", {}).get("amount") or value["rateLimit"]["average"] for name, value in found.items()}

    assert amounts() == {"main-login": 30}
    assert amounts(workers=8) == {"main-api": 3, "main-report": 2, "main-portal": 3, "main-login": 30}
    assert amounts(workers=8, limits={"api": 6, "report": 0, "login_per_minute": 100}) == {
        "main-api": 6,
        "main-portal": 3,
        "main-login": 100,
    }
    chains = routers(workers=8, limits={"report": 0})
    assert chains["main-report"]["middlewares"] == ["headers", "compress", "buffering"]


def test_what_odoo_works_on_is_counted_and_not_who_is_slow() -> None:
    """Within buffering a client that sends no body takes no place; an attempt to log in counts when it begins."""
    chains = {
        name: router.get("middlewares") for name, router in routers(workers=8, web=["http://10.0.0.1:8069", "http://10.0.0.2:8069"]).items()
    }
    for kind in traefik.SHARE:
        assert chains[f"main-{kind}"] == ["headers", "compress", "buffering", f"main-{kind}", "again"]
    assert chains["main-login"] == ["headers", "main-login", "compress", "buffering", "again"]


def test_answers_of_static_files_vary_once() -> None:
    """Odoo says so of what it compressed itself, Traefik adds it to what it compresses and to nothing else: outside of that it is written once."""
    assert routers()["main-static"]["middlewares"] == ["headers", "vary", "compress-assets", "buffering"]


def test_servers_of_their_own_answer_machines_and_reports() -> None:
    site = {**SITE, "workers": 4, "batch": ["http://odoo-main-batch:8069"], "batch_workers": 2}
    http = files(site)["site-main"]["http"]
    services = {name: router["service"] for name, router in http["routers"].items()}
    assert services["main-api"] == services["main-report"] == "main-batch"
    assert services["main-portal"] == services["main-web"] == services["main-login"] == services["main-static"] == "main-web"
    assert http["services"]["main-batch"]["loadBalancer"]["servers"] == [{"url": "http://odoo-main-batch:8069"}]
    amounts = {name: limit["inFlightReq"]["amount"] for name, limit in http["middlewares"].items() if "inFlightReq" in limit}
    assert amounts == {"main-api": 8, "main-report": 8, "main-portal": 2}


def test_what_is_counted_by_is_set_before_counting() -> None:
    found = files({**SITE, "workers": 8})
    header = found["site-main"]["http"]["middlewares"]["main-api"]["inFlightReq"]["sourceCriterion"]["requestHeaderName"]
    assert header in found["common"]["http"]["middlewares"]["headers"]["headers"]["customRequestHeaders"]


def test_behind_a_balancer_logins_are_counted_by_client() -> None:
    login = files(trusted=["10.0.0.5"])["site-main"]["http"]["middlewares"]["main-login"]["rateLimit"]
    assert login["sourceCriterion"] == {"ipStrategy": {"excludedIPs": ["10.0.0.5"]}}


def denied(path: str, *, legacy_rpc: bool | str = False) -> bool:
    """Whether a path is closed."""
    return holds(routers(legacy_rpc=legacy_rpc)["main-deny"]["rule"], path, "GET")


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
        # A language may have any name in addresses.
        "/english/web/database/manager",
        "/Deutsch (Sie)/jsonrpc",
        "/x.y~z%2fqueue_job/runjob",
        "/base_import_module/login_upload",
        "/html_editor/link_preview_external",
        "/our english//html_editor%2flink_preview_external/",
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
        "/odoo/doc",
        "/slides/doc/1",
        "/odoo/website/info",
        "/html_editor/link_preview_internal",
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
    assert denied("/xmlrpc/2/common", legacy_rpc="false")


def test_nobody_reaches_closed_paths_unless_a_network_is_named() -> None:
    ranges = [files(networks=networks)["common"]["http"]["middlewares"]["closed"]["ipAllowList"] for networks in ([], ["10.0.0.0/24"])]
    assert ranges == [{"sourceRange": ["127.0.0.1/32"]}, {"sourceRange": ["10.0.0.0/24"]}]
    deny = files()["site-main"]["http"]["routers"]["main-deny"]
    assert (deny["middlewares"], deny["service"]) == (["headers", "closed"], "noop@internal")


def test_a_named_network_reaches_odoo_at_closed_paths() -> None:
    site = {**SITE, "web": ["http://10.0.0.1:8069", "http://10.0.0.2:8069"]}
    deny = files(site, networks=["10.0.0.0/24"])["site-main"]["http"]["routers"]["main-deny"]
    assert (deny["middlewares"], deny["service"]) == (["headers", "closed", "compress", "buffering", "again"], "main-web")


def test_a_balancer_in_a_named_network_opens_nothing_to_its_clients() -> None:
    closed = files(networks=["10.0.0.0/24"], trusted=["10.0.0.5"])["common"]["http"]["middlewares"]["closed"]["ipAllowList"]
    assert closed == {"sourceRange": ["10.0.0.0/24"], "ipStrategy": {"excludedIPs": ["10.0.0.5"]}}


def test_no_hsts_header_when_it_is_switched_off() -> None:
    headers = files(common={**COMMON, "hsts_seconds": 0})["common"]["http"]["middlewares"]["headers"]["headers"]
    assert "stsSeconds" not in headers


def test_the_first_sites_certificate_is_the_default() -> None:
    other = {**SITE, "name": "other", "domains": ["b.example"], "certificate": "other"}
    second = {**PEM, "certificate": PEM["certificate"].replace("x", "y")}
    tls = files(other, SITE, certificates={"main": PEM, "other": second})["certificates"]["tls"]
    assert "y" in tls["stores"]["default"]["defaultCertificate"]["certFile"]
    assert len(tls["certificates"]) == 2


MAIL = {"email": "ops@example.com"}


def test_a_site_can_have_its_certificate_from_an_acme_server() -> None:
    site = {**SITE, "domains": ["odoo.example.com", "www.example.com"], "certificate": "acme"}
    found = files(site, {**SITE, "name": "other", "domains": ["b.example"]}, acme=MAIL)
    asking = {name: router["tls"] for name, router in found["site-main"]["http"]["routers"].items() if "tls" in router}
    assert asking == {"main-web": {"certResolver": "acme", "domains": [{"main": "odoo.example.com", "sans": ["www.example.com"]}]}}
    assert found["certificates"]["tls"]["stores"]["default"]["defaultCertificate"]["certFile"] == PEM["certificate"] + "\n"
    assert "stores" not in files(site, acme=MAIL)["certificates"]["tls"]


def test_the_modern_profile_speaks_tls_1_3_alone() -> None:
    intermediate = files()["common"]["tls"]["options"]["default"]
    assert intermediate["minVersion"] == "VersionTLS12"
    assert intermediate["curvePreferences"] == ["X25519MLKEM768", "X25519", "CurveP256", "CurveP384"]
    assert files(common={**COMMON, "tls_profile": "modern"})["common"]["tls"]["options"]["default"]["minVersion"] == "VersionTLS13"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acme": {}}, "traefik_acme is empty: it must have the key email"),
        ({"acme": {"email": "ops"}}, "traefik_acme.email is 'ops'"),
        ({"acme": {**MAIL, "directory": "http://ca"}}, "traefik_acme.directory is 'http://ca', must be the https://"),
        ({"acme": {**MAIL, "authority_certificate": "file.crt"}}, "authority_certificate is no certificate"),
        ({"acme": {**MAIL, "dns_provider": "Route 53"}}, "dns_provider is 'Route 53'"),
        ({"acme": MAIL, "secrets": {"OVH_SECRET": "hidden"}}, r"traefik_acme_secrets is given \(OVH_SECRET\) without a provider"),
        ({"acme": {**MAIL, "dns_provider": "ovh"}, "secrets": {"token": "hidden"}}, "a variable named 'token'"),
        (
            {"acme": {**MAIL, "dns_provider": "ovh", "dns_settings": {"OVH_CONSUMER_KEY": "hidden"}}},
            "dns_settings.OVH_CONSUMER_KEY is in the environment",
        ),
        ({"acme": MAIL, "certificates": {"acme": PEM}}, "traefik_certificates.acme must have another name"),
    ],
)
def test_bad_acme_is_refused_without_showing_secrets(change: dict[str, Any], message: str) -> None:
    with pytest.raises(traefik.SiteError, match=message) as caught:
        files({**SITE, "domains": ["odoo.example.com"], "certificate": "acme"}, **change)
    assert "hidden" not in str(caught.value)


def test_an_address_gets_no_certificate_by_acme() -> None:
    with pytest.raises(traefik.SiteError, match=r"203.0.113.10 is an address, for which there is no certificate by ACME"):
        files({**SITE, "certificate": "acme"}, acme=MAIL)


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
        ({"batch": ["odoo:8069"]}, r"\[0\].batch: 'odoo:8069' must be a URL"),
        ({"workers": 0}, r"\[0\].workers is 0, must be a number of workers"),
        ({"limits": {"apo": 1}}, r"unknown key apo, must be api, perhaps"),
        ({"limits": {"api": -1}}, r"limits.api is -1, must be a number, 0 for no limit"),
        ({"api_paths": ["/edi`) || Path(`/"]}, "must be a path of letters"),
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


def test_with_several_servers_a_request_that_reached_none_is_sent_again() -> None:
    two = files({**SITE, "web": ["http://10.0.0.1:8069", "http://10.0.0.2:8069"]})["site-main"]["http"]
    again = {name.removeprefix("main-"): router["middlewares"][-1] == "again" for name, router in two["routers"].items() if "main-" in name}
    assert again == {kind: kind not in ("deny", "websocket") for kind in traefik.PRIORITY}
    balancer = two["services"]["main-web"]["loadBalancer"]
    assert balancer["strategy"] == "p2c"
    alone = files()["site-main"]["http"]
    assert not any("again" in router.get("middlewares", []) for router in alone["routers"].values())
    assert "strategy" not in alone["services"]["main-web"]["loadBalancer"]
    retry = files()["common"]["http"]["middlewares"]["again"]["retry"]
    assert set(retry) == {"attempts", "initialInterval"}, "one with a status would send again what a server has answered"


def test_attempts_outlast_the_search_for_a_server_that_is_gone() -> None:
    two = files({**SITE, "web": ["http://10.0.0.1:8069", "http://10.0.0.2:8069"]})
    interval = float(two["site-main"]["http"]["services"]["main-web"]["loadBalancer"]["healthCheck"]["interval"].removesuffix("s"))
    retry = two["common"]["http"]["middlewares"]["again"]["retry"]
    shortest = float(retry["initialInterval"].removesuffix("ms")) / 1000 * 0.5
    assert (retry["attempts"] - 1) * shortest > interval + 0.5
