# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traefik's dynamic configuration for Odoo sites, as pure functions. No Ansible, no input or output, no clock.

Facts of Traefik 3.7.15 this relies on:

* One file of the directory that cannot be parsed stops every later reload, silently. So everything here is data that was checked, and
  each file carries a route on the internal entry point whose path names its content: when that answers, the file is in force.
* ``PathRegexp`` sees the path after percent-decoding and after ``//``, ``/./`` and ``/../`` were cleaned, except that ``%2F`` stays
  encoded; Odoo's router would decode it.
* Without the ``buffering`` middleware a slow client holds an Odoo worker as long as it likes, and slow downloads are cut off. What it wraps
  begins when the request is whole and ends with Odoo's answer, so that only what is counted inside of it is what Odoo has in hand.
* An ``ipStrategy`` with ``excludedIPs`` reads ``X-Forwarded-For`` alone: who comes past the balancers has no address for it.
* ``certFile`` and ``keyFile`` take PEM text as well as a file's name, and a changed file of the directory is noticed at once.
* Every router has its own instance of a middleware it names, so one ``inFlightReq`` counts for each class of each site. It counts by a
  header that is the same in all requests, because by host (the default) each further domain of a site would get the limit anew.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.berth.odoo.plugins.module_utils._sizing import truth
from ansible_collections.berth.odoo.plugins.module_utils._validate import (
    CERTIFICATE_NAME,
    CERTIFICATE_RULE,
    DOMAIN_NAME,
    DOMAIN_RULE,
    INSTANCE_NAME,
    INSTANCE_RULE,
    nearest,
)

INTERNAL_ENTRY_POINT = "internal"
# Set to the same value in every request before anything is counted.
CONSTANT_HEADER = "X-Forwarded-Proto"
# The classes of requests. Of two that match, the one with the larger number is taken; Traefik's own default is the length of the rule.
PRIORITY = {"deny": 1000, "websocket": 900, "login": 800, "api": 700, "report": 600, "portal": 500, "static": 400, "web": 100}
# Paths that nobody needs from outside. Database manager: odoo/addons/web/controllers/database.py. queue_job's runner is anonymous.
# The names of installed modules are on /website/info, the model of every field on /doc.
# A zip file with modules is taken on /base_import_module for an administrator's password; people at work upload through the web client.
# The editor's preview of a link fetches for everybody whatever address is named, from inside, without a limit of time or size.
PREVIEW = "html_editor/link_preview_external"
DENIED = ("web/database", "queue_job", "website/info", "doc", "doc-bearer", "base_import_module", PREVIEW)
# Login by password and unlimited calls; removed in Odoo 20. The successor is /json/2 with API keys.
DENIED_LEGACY_RPC = ("xmlrpc", "jsonrpc")
# Each attempt costs a worker a deliberately slow hash (passlib, pbkdf2).
LOGIN = ("web/login", "web/session/authenticate", "web/reset_password", "web/signup")
# Odoo takes a password at the first whatever the method is. The others tell by a GET whether an address has an account (signup_email, which Odoo
# also reads from the body of a GET, so that a rule for the query would not do). /web/login is a form that everybody may look at.
LOGIN_BY_ANY_METHOD = ("web/session/authenticate", "web/reset_password", "web/signup")
# What an administrator has called a language in addresses (res.lang, url_code) may be any text, and precedes these. The other paths could be the end
# of somebody else's, so that only names which Odoo itself gives languages may precede them.
AFTER_ANYTHING = ("web/database", "queue_job", "base_import_module", PREVIEW, *DENIED_LEGACY_RPC, *LOGIN)
API = ("json", *DENIED_LEGACY_RPC)
# wkhtmltopdf calls Odoo while a worker waits for it. Barcodes and previews of pictures are no reports.
REPORT = ("report/pdf", "report/html", "report/text", "report/download", "web/export")
PORTAL = ("my", "shop")
# The part of a site's workers that a class may occupy, so that the rest is there for people at work. They themselves have no limit: while
# the database fails over their requests wait, and more than the queue of Odoo's listener holds is refused by the kernel.
SHARE = {"api": 0.4, "report": 0.25, "portal": 0.4}
LOGIN_PER_MINUTE = 30
# What servers of their own may have waiting for each of their workers: with both classes no more than Odoo's listener queues (8 a worker).
BATCH = ("api", "report")
BATCH_QUEUE = 4
# Where a site has several servers: a request that reached none of them, because the connection was refused or not taken, is sent again, also a POST.
# One of which a server has got so much as the headers never is (Traefik 3.7.15, measured). The pauses, which are half as long at worst, last longer
# than the health check needs to find the server gone: it has the fewest requests in flight, so all attempts might meet it until then.
SEVERAL = {"retry": {"attempts": 12, "initialInterval": "500ms"}}
# Seconds between two questions to a server that answers: 2 and the 3 for a connection are the time in which a host that is gone is left out.
SEVERAL_INTERVAL = "2s"
# TLS 1.2 suites with forward secrecy and authenticated encryption; TLS 1.3 has no others. Mozilla's "intermediate" without DHE.
CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
_SERVER_URL = re.compile(r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[1-9][0-9]{0,4})?")
_SITE_KEYS = (
    "name",
    "domains",
    "web",
    "websocket",
    "certificate",
    "batch",
    "legacy_rpc",
    "workers",
    "batch_workers",
    "limits",
    "api_paths",
    "portal_paths",
)
_SECTIONS = ("http", "tcp", "udp", "tls")
_PATH = re.compile(r"/?[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?")
LIMITS = (*SHARE, "login_per_minute")
"""Keys of a site's ``limits``."""

ACME = "acme"
"""The certificate of a site that Traefik gets from an ACME server itself, and the name of the resolver that does."""
# Of lego, Traefik's ACME library. Each variable can also be given as NAME_FILE, the file that holds it.
_DNS_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_DNS_SECRET = re.compile(r"(?:TOKEN|SECRET|PASSWORD|KEY)$")
_DNS_PROVIDER = re.compile(r"[a-z0-9][a-z0-9-]*")
# Mozilla's, and before them the one that a quantum computer does not open later. Go would take P-521 as well.
CURVES = ("X25519MLKEM768", "X25519", "CurveP256", "CurveP384")
TLS_PROFILES = {"intermediate": "VersionTLS12", "modern": "VersionTLS13"}
"""Oldest version of TLS by the name of Mozilla's profile."""


class SiteError(ValueError):
    """Sites or certificates cannot be served. The message lists every problem, one a line; no key appears in it."""


# --- checking -----------------------------------------------------------------------------------------------------------


def check(
    sites: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, Any],
    networks: Sequence[str],
    acme: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> None:
    """Find everything that Traefik would refuse, or accept and not do.

    Args:
        sites: As ``traefik_sites``.
        certificates: As ``traefik_certificates``.
        networks: Networks that may reach the closed paths.
        acme: As ``traefik_acme``.
        secrets: As ``traefik_acme_secrets``.

    Raises:
        SiteError: With all problems.
    """
    problems = [*_network_problems(networks)]
    problems.extend(f"{key} is {found}, must be {expected}" for key, found, expected in acme_problems(acme or {}, secrets or {}))
    taken: dict[str, dict[str, str]] = {"name": {}, "domain": {}}
    for index, site in enumerate(sites):
        where = f"traefik_sites[{index}]"
        for key in sorted(str(key) for key in site if key not in _SITE_KEYS):
            match = nearest(key, _SITE_KEYS, 0.5)
            problems.append(f"{where}: unknown key {key}" + (f"; did you mean {match}?" if match else ""))
        name = str(site.get("name", ""))
        if not INSTANCE_NAME.fullmatch(name):
            problems.append(f"{where}.name is {name!r}, must be {INSTANCE_RULE}")
        elif taken["name"].setdefault(name, where) != where:
            problems.append(f"{where}.name {name} is that of {taken['name'][name]}, too")
        problems.extend(_domain_problems(site.get("domains"), where, taken["domain"]))
        problems.extend(_server_problems(site, where))
        problems.extend(f"{where}.{key} is {found}, must be {expected}" for key, found, expected in class_problems(site))
        problems.extend(_choice_problems(site, where, certificates, bool(acme)))
    for name, entry in certificates.items():
        problems.extend(_certificate_problems(name, entry))
    if problems:
        raise SiteError("\n".join(problems))


def _network_problems(networks: Iterable[str]) -> Iterable[str]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield f"traefik_management_networks: {error}"


def _domain_problems(domains: Any, where: str, owners: dict[str, str]) -> Iterable[str]:
    if not isinstance(domains, (list, tuple)) or not domains:
        yield f"{where}.domains must be a list of at least one domain"
        return
    for domain in domains:
        if not DOMAIN_NAME.fullmatch(str(domain)):
            yield f"{where}.domains: {domain!r} must be {DOMAIN_RULE}"
        elif owners.setdefault(domain, where) != where:
            yield f"{where}.domains: {domain} belongs to {owners[domain]}, too"


def _server_problems(site: Mapping[str, Any], where: str) -> Iterable[str]:
    for key in ("web", "websocket", *(["batch"] if "batch" in site else [])):
        servers = site.get(key)
        if not isinstance(servers, (list, tuple)) or not servers:
            yield f"{where}.{key} must be a list of at least one URL"
            continue
        for url in servers:
            if not _SERVER_URL.fullmatch(str(url)):
                yield f"{where}.{key}: {url!r} must be a URL of scheme, host and port, such as http://10.0.0.21:8069"


def class_problems(site: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Return what is wrong with the limits and paths of a site, or of an instance: key, what was found, what is expected.

    That they are dictionaries and lists is the argument specification's to say.
    """
    for key in ("workers", "batch_workers"):
        if not _is_count(site.get(key, 1), 1):
            yield key, repr(site[key]), "a number of workers, 1 or more"
    limits = site.get("limits")
    for key, value in limits.items() if isinstance(limits, Mapping) else ():
        if key not in LIMITS:
            match = nearest(str(key), LIMITS, 0.5)
            yield "limits", f"an unknown key {key}", f"{match}, perhaps" if match else f"one of {', '.join(LIMITS)}"
        elif not _is_count(value, 0):
            yield f"limits.{key}", repr(value), "a number, 0 for no limit"
    for key in ("api_paths", "portal_paths"):
        paths = site.get(key)
        for path in paths if isinstance(paths, list) else ():
            if not _PATH.fullmatch(str(path)):
                yield key, repr(path), "a path of letters, digits, '.', '_', '~' and '-', such as /edi/orders"


def _is_count(value: Any, lowest: int) -> bool:
    """Tell whether a value is a whole number, also one that Ansible has made text of."""
    return not isinstance(value, bool) and str(value).isdecimal() and int(value) >= lowest


def _choice_problems(site: Mapping[str, Any], where: str, certificates: Mapping[str, Any], acme: bool) -> Iterable[str]:
    certificate = site.get("certificate")
    if certificate == ACME:
        if not acme:
            yield f"{where}.certificate is {ACME}, and traefik_acme is empty: it must have the key email"
        domains = site.get("domains")
        for domain in domains if isinstance(domains, (list, tuple)) else ():
            if re.fullmatch(r"[0-9.]+", str(domain)):
                yield f"{where}.domains: {domain} is an address, for which there is no certificate by ACME"
    elif certificate not in certificates:
        known = ", ".join([*sorted(certificates), *([ACME] if acme else [])]) or "none is given"
        yield f"{where}.certificate is {certificate!r}, must be a name of traefik_certificates ({known})"


def acme_problems(acme: Mapping[str, Any], secrets: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Return what is wrong with ``traefik_acme`` and ``traefik_acme_secrets``: variable, what was found, what is expected. Shows no secret."""
    if acme and not re.fullmatch(r"[^@\s]+@[^@\s]+", str(acme.get("email", ""))):
        yield "traefik_acme.email", repr(acme.get("email", "")), "the address to which the ACME server writes"
    if not re.fullmatch(r"https://\S+", str(acme.get("directory", "https://x"))):
        yield "traefik_acme.directory", repr(acme["directory"]), "the https:// URL of an ACME server's directory"
    if acme.get("authority_certificate") and "-----BEGIN CERTIFICATE-----" not in str(acme["authority_certificate"]):
        yield "traefik_acme.authority_certificate", "no certificate", "PEM text"
    provider = str(acme.get("dns_provider") or "")
    if provider and not _DNS_PROVIDER.fullmatch(provider):
        yield "traefik_acme.dns_provider", repr(provider), "the code of one of lego's DNS providers, such as rfc2136 or ovh"
    settings = acme.get("dns_settings") or {}
    for variable, names in (("traefik_acme.dns_settings", settings), ("traefik_acme_secrets", secrets)):
        if names and not provider:
            yield variable, f"given ({', '.join(map(str, names))}) without a provider", "empty, or traefik_acme.dns_provider set"
        for name in names:
            if not _DNS_VARIABLE.fullmatch(str(name)):
                yield variable, f"a variable named {name!r}", "variables of the DNS provider as lego names them, such as RFC2136_NAMESERVER"
    for name in settings:
        if _DNS_SECRET.search(str(name)):
            yield f"traefik_acme.dns_settings.{name}", "in the environment of the container", "in traefik_acme_secrets, encrypted"


def _certificate_problems(name: str, entry: Any) -> Iterable[str]:
    where = f"traefik_certificates.{name}"
    if name == ACME:
        yield f"{where} must have another name: {ACME} means the certificate that Traefik gets itself"
    if not CERTIFICATE_NAME.fullmatch(str(name)):
        yield f"{where} must be {CERTIFICATE_RULE}"
    if not isinstance(entry, Mapping) or set(entry) != {"certificate", "key"}:
        yield f"{where} must have certificate and key, nothing else"
        return
    if "-----BEGIN CERTIFICATE-----" not in str(entry["certificate"]):
        yield f"{where}.certificate must be PEM text with the chain, the site's own certificate first"
    if not re.search(r"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----", str(entry["key"])):
        yield f"{where}.key must be PEM text of a private key without a passphrase"


# --- the configuration --------------------------------------------------------------------------------------------------


def _either(parts: Sequence[str]) -> str:
    """Return a rule that holds when one of the parts does."""
    return parts[0] if len(parts) == 1 else "(" + " || ".join(parts) + ")"


def path_rule(paths: Sequence[str]) -> str:
    """Return a rule for paths and everything below them, however the slashes are written and in whatever case.

    A language may precede a path: Odoo strips it, also the only one (``http_routing``, ``_match``).
    """
    slash = "(/|%2f)+"

    def written(path: str) -> str:
        return slash.join(re.escape(part).replace("\\-", "-") for part in path.strip("/").split("/"))

    names = f"([a-z]{{2,3}}([_-][a-z0-9]+)?(@[a-z]+)?{slash})?({'|'.join(map(written, paths))})"
    anything = [written(path) for path in paths if path in AFTER_ANYTHING]
    either = f"({names}|[^/]+{slash}({'|'.join(anything)}))" if anything else names
    return f"PathRegexp(`(?i)^{slash}{either}({slash}|;|$)`)"


def class_limits(workers: int, batch_workers: int, limits: Mapping[str, Any]) -> dict[str, int]:
    """Return how much each limited class of a site may do; 0 is no limit.

    Args:
        workers: Odoo's workers for requests on all servers together; 0 when nobody knows.
        batch_workers: The same on the servers for API calls and reports; 0 when there are none.
        limits: What the operator has decided, by class.

    Returns:
        ``api``, ``report`` and ``portal``, requests in flight at an edge, and ``login_per_minute``, of each client address.
    """
    # With one worker there is nothing to share; with more, one is always left.
    planned = {name: max(1, min(round(part * workers), workers - 1)) if workers else 0 for name, part in SHARE.items()}
    if batch_workers:
        planned.update(dict.fromkeys(BATCH, BATCH_QUEUE * batch_workers))
    return {**planned, "login_per_minute": LOGIN_PER_MINUTE, **{str(name): int(value) for name, value in limits.items()}}


def site_configuration(site: Mapping[str, Any], trusted: Sequence[str] = (), networks: Sequence[str] = ()) -> dict[str, Any]:
    """Return routers, middlewares and services of one site.

    Args:
        site: One of ``traefik_sites``.
        trusted: Balancers in front, whose word about the client's address is believed.
        networks: Networks that may reach the closed paths.
    """
    name = str(site["name"])
    hosts = _either([f"Host(`{domain}`)" for domain in site["domains"]])
    denied = DENIED if truth(site.get("legacy_rpc")) else (*DENIED, *DENIED_LEGACY_RPC)
    rules = {
        "deny": path_rule(denied),
        "websocket": "(Path(`/websocket`) || PathPrefix(`/websocket/`))",
        "login": f"(!Method(`GET`) || {path_rule(LOGIN_BY_ANY_METHOD)}) && {path_rule(LOGIN)}",
        "api": path_rule([*API, *(site.get("api_paths") or [])]),
        "report": path_rule(REPORT),
        "portal": path_rule([*PORTAL, *(site.get("portal_paths") or [])]),
        "static": "(PathPrefix(`/web/assets/`) || PathRegexp(`^/[a-z0-9_]+/static/`))",
        "web": "",
    }
    limits = class_limits(int(site.get("workers") or 0), int(site.get("batch_workers") or 0), site.get("limits") or {})
    # An attempt is counted by address.
    source = {"sourceCriterion": _client(trusted)} if trusted else {}
    limiting: dict[str, dict[str, Any]] = {
        kind: {"inFlightReq": {"amount": limits[kind], "sourceCriterion": {"requestHeaderName": CONSTANT_HEADER}}}
        for kind in SHARE
        if limits[kind]
    }
    if per_minute := limits["login_per_minute"]:
        limiting["login"] = {"rateLimit": {"average": per_minute, "period": "1m", "burst": per_minute, **source}}
    # A websocket is never buffered: it would not begin before it ends.
    middlewares = {"websocket": ["headers"]}
    services = {"websocket": f"{name}-websocket"}
    if not networks:
        # Also who gets past the list of addresses finds nothing behind it.
        middlewares["deny"] = ["headers", "closed"]
        services["deny"] = "noop@internal"
    if site.get("batch"):
        services.update(dict.fromkeys(BATCH, f"{name}-batch"))

    def chain(kind: str) -> list[str]:
        limit = [f"{name}-{kind}"] if kind in limiting else []
        # Before buffering, an attempt counts when it begins. After it, a request takes a place while Odoo works on it, not while a client that sends
        # no body or does not read the answer lets it wait.
        outside, inside = ([], limit) if kind in SHARE else (["closed"] if kind == "deny" else limit, [])
        service = services.get(kind, f"{name}-web").removeprefix(f"{name}-")
        # Innermost: what is sent again is what the other middlewares have let through once.
        again = ["again"] if len(site.get(service) or []) > 1 else []
        compress = ["vary", "compress-assets"] if kind == "static" else ["compress"]
        return [*(middlewares.get(kind) or ["headers", *outside, *compress, "buffering", *inside]), *again]

    # One router asks for the certificate, which then serves all of them.
    asks = {"web": {"tls": {"certResolver": ACME, "domains": [_acme_names(site)]}}} if site["certificate"] == ACME else {}
    return {
        "http": {
            "routers": {
                f"{name}-{kind}": {
                    "entryPoints": ["websecure"],
                    "rule": " && ".join(part for part in (hosts, rule) if part),
                    "priority": PRIORITY[kind],
                    "middlewares": chain(kind),
                    "service": services.get(kind, f"{name}-web"),
                    **asks.get(kind, {}),
                }
                for kind, rule in rules.items()
            },
            "middlewares": {f"{name}-{kind}": middleware for kind, middleware in limiting.items()},
            "services": {f"{name}-{kind}": _service(site[kind]) for kind in ("web", "batch", "websocket") if site.get(kind)},
        }
    }


def _client(trusted: Sequence[str]) -> dict[str, Any]:
    """Return how a middleware finds the address of the client: behind balancers it is the last one that is none of theirs."""
    return {"ipStrategy": {"excludedIPs": list(trusted)}} if trusted else {}


def _acme_names(site: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of a site's one certificate as Traefik wants them."""
    first, *others = map(str, site["domains"])
    return {"main": first, **({"sans": others} if others else {})}


def _service(servers: Sequence[str]) -> dict[str, Any]:
    """Return a load balancer over Odoo servers.

    The probe waits in the same queue as users, so a short timeout would eject a busy server and move its load to its peers. It is for a
    static file, because /web/health asks the database (Odoo 19.0 with db_name), whose failover would empty the pool. During one all workers
    wait, for as long as requests may (60 s): with a shorter timeout Traefik answers everybody else with "no available server" meanwhile.

    Of two servers the one with fewer requests in flight gets the next: one that is busy with a long report, or gone and not yet missed, gets none.
    """
    several = len(servers) > 1
    return {
        "loadBalancer": {
            "servers": [{"url": str(url)} for url in servers],
            **({"strategy": "p2c"} if several else {}),
            "serversTransport": "odoo",
            "healthCheck": {
                "path": "/web/static/img/favicon.ico",
                "interval": SEVERAL_INTERVAL if several else "5s",
                "unhealthyInterval": "1s",
                "timeout": "75s",
            },
        }
    }


def common_configuration(
    maximum_body_mb: int,
    response_timeout: int,
    hsts_seconds: int,
    networks: Sequence[str],
    tls_profile: str = "intermediate",
    trusted: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what all sites share.

    Args:
        maximum_body_mb: Largest request in MB; a larger one is refused with 413. Odoo's own limit is 128.
        response_timeout: Seconds that Odoo may take until its answer begins.
        hsts_seconds: How long browsers shall insist on HTTPS; 0 sends no such header.
        networks: Networks that may reach the closed paths; empty means nobody.
        tls_profile: One of ``TLS_PROFILES``.
        trusted: Balancers in front, whose word about the client's address is believed.
    """
    headers: dict[str, Any] = {
        "customRequestHeaders": {
            # They would choose a database without a session; the second is an add-on's (dbfilter_from_header).
            "X-Odoo-Database": "",
            "X-Odoo-Dbfilter": "",
            # Traefik says "wss" for websockets, which Odoo does not take for HTTPS (odoo/odoo#194160).
            CONSTANT_HEADER: "https",
        },
        "customResponseHeaders": {"Server": ""},
        "contentTypeNosniff": True,
        # Odoo sets X-Frame-Options itself where a page must not be framed.
        "referrerPolicy": "strict-origin-when-cross-origin",
    }
    if hsts_seconds:
        headers["stsSeconds"] = hsts_seconds
    return {
        "http": {
            "middlewares": {
                "headers": {"headers": headers},
                # The first that a client takes. zstd takes a third of brotli's time.
                "compress": {"compress": {"encodings": ["zstd", "gzip", "br"], "minResponseBodyBytes": 1024}},
                # A browser asks for a bundle once in a year or a release, and brotli makes that a sixth smaller. What Odoo sends compressed stays as it is.
                "compress-assets": {"compress": {"encodings": ["br", "zstd", "gzip"], "minResponseBodyBytes": 1024}},
                # Odoo says so of bundles, and Traefik of what it compresses: twice, or not at all.
                "vary": {"headers": {"customResponseHeaders": {"Vary": "Accept-Encoding"}}},
                "buffering": {
                    "buffering": {
                        "maxRequestBodyBytes": maximum_body_mb * 1024 * 1024,
                        # What is larger goes to disk: Traefik holds this much for as long as a client takes, 200 slow ones 905 MB with 4 MB each.
                        "memRequestBodyBytes": 256 * 1024,
                        # No limit: a larger answer would become an error.
                        "maxResponseBodyBytes": 0,
                        "memResponseBodyBytes": 256 * 1024,
                    }
                },
                "again": SEVERAL,
                # An address that no request can come from, when nobody may. A balancer in one of the networks opens nothing to its clients.
                "closed": {"ipAllowList": {"sourceRange": list(networks) or ["127.0.0.1/32"], **_client(trusted)}},
            },
            "serversTransports": {
                "odoo": {
                    # Odoo closes every connection after the answer.
                    "maxIdleConnsPerHost": -1,
                    "forwardingTimeouts": {"dialTimeout": "3s", "responseHeaderTimeout": f"{response_timeout}s"},
                }
            },
        },
        "tls": {
            "options": {
                "default": {
                    "minVersion": TLS_PROFILES[tls_profile],
                    "cipherSuites": list(CIPHERS),
                    "curvePreferences": list(CURVES),
                }
            }
        },
    }


def certificate_configuration(sites: Sequence[Mapping[str, Any]], certificates: Mapping[str, Any]) -> dict[str, Any]:
    """Return the certificates. The first given one of a site also answers clients that name no host, as those that use an address do."""
    pairs = {
        name: {"certFile": str(entry["certificate"]).strip() + "\n", "keyFile": str(entry["key"]).strip() + "\n"}
        for name, entry in sorted(certificates.items())
    }
    tls: dict[str, Any] = {"certificates": list(pairs.values())}
    given = [pairs[site["certificate"]] for site in sites if site["certificate"] != ACME]
    if given:
        tls["stores"] = {"default": {"defaultCertificate": given[0]}}
    return {"tls": tls}


def with_revision(name: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with a route that answers only while exactly this content is in force.

    Args:
        name: Name of the file.
        configuration: Its content.
    """
    canonical = json.dumps(configuration, sort_keys=True, separators=(",", ":"))
    revision = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    http = dict(configuration.get("http") or {})
    http["routers"] = {
        **(http.get("routers") or {}),
        f"revision-{name}": {
            "entryPoints": [INTERNAL_ENTRY_POINT],
            "rule": f"Path(`/revision/{name}/{revision}`)",
            "service": "ping@internal",
        },
    }
    return {**configuration, "http": http}


def dynamic_files(
    sites: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, Any],
    extra: Mapping[str, Any],
    networks: Sequence[str],
    common: Mapping[str, Any],
    trusted: Sequence[str] = (),
    acme: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the content of every dynamic file by its name without suffix.

    Args:
        sites: As ``traefik_sites``.
        certificates: As ``traefik_certificates``.
        extra: More dynamic configuration, a file of its own.
        networks: Networks that may reach the closed paths.
        common: The other arguments of ``common_configuration``.
        trusted: Balancers in front, as ``traefik_trusted_ips``.
        acme: As ``traefik_acme``.
        secrets: As ``traefik_acme_secrets``; only their names are looked at.

    Raises:
        SiteError: With every problem of all of them.
    """
    check(sites, certificates, networks, acme, secrets)
    unknown = sorted(str(section) for section in extra if section not in _SECTIONS)
    if unknown:
        raise SiteError(f"traefik_extra_dynamic: {', '.join(unknown)} must be one of {', '.join(_SECTIONS)}")
    found = {
        "common": common_configuration(networks=networks, trusted=trusted, **common),
        "certificates": certificate_configuration(sites, certificates),
        **{f"site-{site['name']}": site_configuration(site, trusted, networks) for site in sites},
    }
    if extra:
        found["extra"] = dict(extra)
    return {name: with_revision(name, configuration) for name, configuration in found.items()}
