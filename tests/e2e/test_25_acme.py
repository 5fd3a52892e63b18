# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates from an ACME server (pebble) on the same machine, proven by HTTP and by records of a DNS server (BIND)."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import ssl
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from ansible_collections.berth.odoo.tests.support.lab import wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

DOMAIN = "acme.berth.test"  # of which the lab has no certificate
CUT = "iptables -{} INPUT -p tcp --dport 14000 -j REJECT --reject-with tcp-reset"
TSIG = base64.b64encode(secrets.token_bytes(32)).decode()
# dns.berth.test has no address: what is proven of it was proven by a record.
ZONE = """$TTL 1
@ SOA ns hostmaster 1 60 60 60 1
@ NS ns
acme A {0}
new A {0}
ns A {0}
"""
# A server that answers for one zone, and lets who knows the key change it.
NAMED = """
options {{ directory "/var/cache/bind"; listen-on {{ 127.0.0.1; {0}; }}; listen-on-v6 {{ none; }}; recursion no; }};
key berth {{ algorithm hmac-sha256; secret "{1}"; }};
zone berth.test {{ type primary; file "/var/lib/bind/berth.test"; allow-update {{ key berth; }}; }};
"""


@pytest.fixture(scope="module")
def acme(host: Host, lab: Lab, play: Player) -> Generator[dict[str, Any]]:
    """An ACME server on the host, which looks for domains at a DNS server beside it; the site is put back afterwards."""
    directory = lab.directory
    pebble = {
        "listenAddress": "0.0.0.0:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": "/run/pebble/server.crt",
        "privateKey": "/run/pebble/server.key",
        "httpPort": 80,
        "tlsPort": 443,
    }
    host.run(
        "mkdir -p /run/pebble; apt-get install -o DPkg::Lock::Timeout=300 --yes --quiet --no-install-recommends pebble bind9", timeout=300
    )
    for name in ("server.crt", "server.key"):
        host.run(f"cat > /run/pebble/{name}", stdin=(directory / name).read_text(encoding="utf-8"))
    host.run("cat > /run/pebble/config.json", stdin=json.dumps({"pebble": pebble}))
    host.run("cat > /var/lib/bind/berth.test; chown -R bind: /var/lib/bind", stdin=ZONE.format(host.address))
    host.run("cat > /etc/bind/named.conf; systemctl restart named", stdin=NAMED.format(host.address, TSIG))
    host.run(
        "systemd-run --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0 "
        "pebble -config /run/pebble/config.json -dnsserver 127.0.0.1:53"
    )
    try:
        wait_for("an ACME server", lambda: host.succeeds("curl -sk https://127.0.0.1:15000/roots/0 -o /run/pebble/root.crt"), seconds=30)
        yield {
            "email": "operations@berth.test",
            "directory": f"https://{host.address}:14000/dir",
            "authority_certificate": lab.ca.read_text(encoding="utf-8"),
        }
    finally:
        host.run("systemctl stop pebble; apt-get purge --yes --quiet bind9; rm -rf /run/pebble /var/lib/bind", timeout=120)
        play("playbooks/site.yml", "--tags", "edge").expect_success()
        # The next ACME server has another root.
        host.run("rm --force /var/lib/berth/traefik/acme/acme.json")


def site(host: Host, acme: dict[str, Any], *domains: str, **more: Any) -> dict[str, Any]:
    """Extra variables with which the site's certificate comes from the ACME server."""
    instance = {**host.variables["odoo_instances"]["main"], "domains": list(domains), "certificate": "acme"}
    return {"odoo_instances": {"main": instance}, "traefik_acme": acme, **more}


def served(host: Host, domain: str) -> x509.Certificate:
    """The certificate that a browser gets for a domain; it must come from the ACME server."""
    context = ssl.create_default_context(cadata=host.run("cat /run/pebble/root.crt"))
    with socket.create_connection((host.address, 443), timeout=60) as plain, context.wrap_socket(plain, server_hostname=domain) as tls:
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def test_without_an_address_for_mail_nothing_begins(host: Host, acme: dict[str, Any], play: Player) -> None:
    before = host.state()
    play("playbooks/site.yml", "--tags", "edge", variables=site(host, {"directory": acme["directory"]}, DOMAIN)).expect_refusal(
        "traefik_acme.email", "the address to which the ACME server writes"
    )
    assert host.state() == before


def test_a_given_certificate_for_the_same_domain_is_refused(host: Host, acme: dict[str, Any], play: Player) -> None:
    before = host.state()
    play("playbooks/site.yml", "--tags", "edge", variables=site(host, acme, "odoo.berth.test")).expect_refusal(
        "traefik_certificates.main is for odoo.berth.test of site main, whose certificate is acme"
    )
    assert host.state() == before


def test_a_certificate_is_proven_by_http(host: Host, acme: dict[str, Any], play: Player) -> None:
    variables = site(host, acme, DOMAIN)
    play("playbooks/site.yml", "--tags", "edge", variables=variables).expect_success()
    assert served(host, DOMAIN).issuer != served(host, DOMAIN).subject
    assert play("playbooks/site.yml", "--tags", "edge", variables=variables).expect_success().changed == []


def test_without_the_server_the_old_certificate_stays_and_the_next_run_asks_again(host: Host, acme: dict[str, Any], play: Player) -> None:
    before = served(host, DOMAIN)
    variables = site(host, acme, DOMAIN, "new.berth.test")
    host.run(CUT.format("I"))
    try:
        play("playbooks/site.yml", "--tags", "edge", variables=variables).expect_refusal(
            "No certificate for new.berth.test after", "what was served before is served still", "unable to communicate with the API server"
        )
        assert served(host, DOMAIN) == before
    finally:
        host.run(CUT.format("D"))
    play("playbooks/site.yml", "--tags", "edge", variables=variables).expect_success()
    assert served(host, "new.berth.test")


def test_a_certificate_is_proven_by_dns_with_a_key_that_no_one_sees(host: Host, acme: dict[str, Any], play: Player) -> None:
    settings = {"RFC2136_NAMESERVER": f"{host.address}:53", "RFC2136_TSIG_ALGORITHM": "hmac-sha256."}
    # The lab's domain is known to this DNS server alone; Traefik would look for the zone's servers by name with the host's resolver too.
    challenge = {"resolvers": [f"{host.address}:53"], "propagation": {"disableANSChecks": True, "requireAllRNS": True}}
    resolvers = {"certificatesResolvers": {"acme": {"acme": {"dnsChallenge": challenge}}}}
    variables = site(
        host,
        {**acme, "dns_provider": "rfc2136", "dns_settings": settings},
        "dns.berth.test",
        traefik_acme_secrets={"RFC2136_TSIG_KEY": "berth", "RFC2136_TSIG_SECRET": TSIG},
        traefik_extra_settings=resolvers,
    )
    run = play("playbooks/site.yml", "--tags", "edge", "--diff", variables=variables).expect_success()
    assert served(host, "dns.berth.test")
    assert TSIG not in run.output
    assert TSIG not in json.dumps(host.container("traefik/traefik").facts)
    assert play("playbooks/site.yml", "--tags", "edge", variables=variables).expect_success().changed == []
