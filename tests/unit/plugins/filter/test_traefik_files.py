# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter that makes Traefik's files: certificates that fit, text that YAML readers agree on."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.berth.odoo.plugins.filter.traefik_files import covers, traefik_files

COMMON = {"maximum_body_mb": 128, "response_timeout": 150, "hsts_seconds": 300}


def pair(*domains: str) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    names: list[x509.GeneralName] = [x509.DNSName(domain) for domain in domains if not domain[0].isdigit()]
    names += [x509.IPAddress(ipaddress.ip_address(domain)) for domain in domains if domain[0].isdigit()]
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(), "key": private.decode()}


def site(*domains: str) -> dict[str, Any]:
    servers = {"web": ["http://web:8069"], "websocket": ["http://websocket:8072"]}
    return {"name": "main", "domains": list(domains), "certificate": "main", **servers}


@pytest.fixture(scope="module")
def fitting() -> dict[str, str]:
    return pair("odoo.example.com", "*.wild.example", "203.0.113.10")


def test_entries_for_compose_project(fitting: dict[str, str]) -> None:
    entries = traefik_files([site("odoo.example.com")], {"main": fitting}, COMMON, entry={"group": 5})
    assert [entry["dest"] for entry in entries] == [f"config/dynamic/{name}.yml" for name in ("common", "certificates", "site-main")]
    assert [entry["sensitive"] for entry in entries] == [False, True, False]
    assert {entry["group"] for entry in entries} == {5}
    certificates = yaml.safe_load(entries[1]["content"])["tls"]
    assert certificates["certificates"] == [{"certFile": fitting["certificate"], "keyFile": fitting["key"]}]


def test_the_text_says_what_was_meant(fitting: dict[str, str]) -> None:
    entries = traefik_files([site("odoo.example.com")], {"main": fitting}, COMMON)
    common = yaml.safe_load(entries[0]["content"])
    assert common["http"]["middlewares"]["headers"]["headers"]["customRequestHeaders"]["X-Odoo-Database"] == ""
    assert common["http"]["serversTransports"]["odoo"]["maxIdleConnsPerHost"] == -1
    assert common["tls"]["options"]["default"]["minVersion"] == "VersionTLS12"


@pytest.mark.parametrize("domains", [["odoo.example.com"], ["a.wild.example"], ["203.0.113.10"]])
def test_a_certificate_that_covers_its_domains(fitting: dict[str, str], domains: list[str]) -> None:
    traefik_files([site(*domains)], {"main": fitting}, COMMON)


@pytest.mark.parametrize("domain", ["other.example.com", "a.b.wild.example", "wild.example", "203.0.113.11"])
def test_a_certificate_for_other_names_is_refused(fitting: dict[str, str], domain: str) -> None:
    with pytest.raises(AnsibleFilterError, match=rf"not for {domain} of site main"):
        traefik_files([site(domain)], {"main": fitting}, COMMON)


def test_a_key_of_another_certificate_is_refused(fitting: dict[str, str]) -> None:
    other = pair("odoo.example.com")
    with pytest.raises(AnsibleFilterError, match="the key is not that of the certificate") as caught:
        traefik_files([site("odoo.example.com")], {"main": {**fitting, "key": other["key"]}}, COMMON)
    assert "PRIVATE KEY" not in str(caught.value)


def test_damaged_texts_are_refused(fitting: dict[str, str]) -> None:
    for part in ("certificate", "key"):
        with pytest.raises(AnsibleFilterError, match=f"main.{part} cannot be read"):
            traefik_files([site("odoo.example.com")], {"main": {**fitting, part: fitting[part].replace("M", "-")}}, COMMON)


def test_a_wildcard_stands_for_one_label() -> None:
    assert covers({"*.example.com"}, set(), "a.example.com")
    assert not covers({"*.example.com"}, set(), "a.b.example.com")
    assert not covers(set(), {"10.0.0.1"}, "10.0.0.2")


def test_a_given_certificate_for_a_domain_of_acme_is_refused_because_nobody_would_ask(fitting: dict[str, str]) -> None:
    acme = {"email": "ops@example.com"}
    with pytest.raises(
        AnsibleFilterError, match=r"traefik_certificates.main is for odoo.example.com of site main, whose certificate is acme"
    ):
        traefik_files([{**site("odoo.example.com"), "certificate": "acme"}], {"main": fitting}, COMMON, acme=acme)
    assert traefik_files([{**site("new.example.com"), "certificate": "acme"}], {"main": fitting}, COMMON, acme=acme)
