# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate authority and server certificate of a lab."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DOMAIN = "berth.test"  # .test is reserved (RFC 2606): it can never be anybody's
LIFETIME = datetime.timedelta(days=365)  # Mozilla's profiles allow 366, browsers 397
RENEW_BEFORE = datetime.timedelta(days=30)
PLATFORM_LIFETIME = datetime.timedelta(days=3650)


def ensure_authority(directory: Path, lab: str, domains: Iterable[str], pool: ipaddress.IPv4Network, now: datetime.datetime) -> bool:
    """Write ``ca.crt`` and ``ca.key`` of a lab unless they are there and stay valid.

    The authority may only vouch for ``berth.test``, the site's own domains and addresses in the labs' range. So a person can trust it in a
    browser without risk to any real site, even if its key leaks.

    Args:
        directory: directory of the lab.
        lab: name of the lab, for the authority's name.
        domains: DNS names of the site.
        pool: addresses that labs use.
        now: time of day, with zone.

    Returns:
        True when it was made now.
    """
    foreign = sorted(domain for domain in domains if not domain.endswith(f".{DOMAIN}"))
    permitted = [*(x509.DNSName(domain) for domain in [DOMAIN, *foreign]), x509.IPAddress(pool)]
    certificate_file, key_file = directory / "ca.crt", directory / "ca.key"
    if certificate_file.exists() and key_file.exists():
        current = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        if current.not_valid_after_utc - now > RENEW_BEFORE and _permitted(current) == permitted:
            return False
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"berth lab {lab}, made {now:%Y-%m-%d %H:%M}")])
    certificate = (
        _builder(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(certificate_file, key_file, certificate, key)
    return True


def platform_authority(lab: str, now: datetime.datetime) -> dict[str, str]:
    """A new authority for the services of a platform, such as ``secrets_init`` makes one for a site: certificate and key, both PEM.

    Args:
        lab: name of the lab, for the authority's name.
        now: time of day, with zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"berth.odoo {lab}"[:64])])
    certificate = (
        _builder(name, name, key.public_key(), now, PLATFORM_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return {"certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(), "key": _pem(key).decode()}


def ensure_server(directory: Path, addresses: Iterable[str], domains: Iterable[str], now: datetime.datetime) -> bool:
    """Write ``server.crt`` and ``server.key`` signed by the lab's authority, unless they are there and fit.

    Args:
        directory: directory of the lab.
        addresses: IP addresses the certificate is good for.
        domains: DNS names the certificate is good for.
        now: time of day, with zone.

    Returns:
        True when it was made now.
    """
    wanted: list[x509.GeneralName] = [x509.DNSName(domain) for domain in domains]
    wanted += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    authority = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    certificate_file, key_file = directory / "server.crt", directory / "server.key"
    if certificate_file.exists() and key_file.exists():
        current = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        names = list(current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        if names == wanted and current.issuer == authority.subject and current.not_valid_after_utc - now > RENEW_BEFORE:
            return False
    authority_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{directory / 'ca.key'} is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, next(iter(domains), DOMAIN))])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), now)
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(certificate_file, key_file, certificate, key)
    return True


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta = LIFETIME,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _permitted(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or [])


def _write(certificate_file: Path, key_file: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    key_file.touch(mode=0o600)
    key_file.write_bytes(_pem(key))
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
