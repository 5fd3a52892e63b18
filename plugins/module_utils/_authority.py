# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform's own certificate authority: made, judged, and asked for certificates. For the controller; hosts parse no certificate.

No message repeats what it was given: where a certificate is expected, people paste keys.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ansible_collections.berth.odoo.plugins.module_utils._compose import Leaf
from ansible_collections.berth.odoo.plugins.module_utils._compose_certificates import (
    BACKDATED,
    LONGEST_COMMON_NAME,
    as_address,
    as_text,
    end_of,
)

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    LIBRARY_ERROR = traceback.format_exc()
    """Why cryptography cannot be used; empty when it can."""
else:
    LIBRARY_ERROR = ""
    _USAGES = {
        "both": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        "server": [ExtendedKeyUsageOID.SERVER_AUTH],
    }

ADD = "ansible-playbook -i <inventory> berth.odoo.secrets_init -e secrets_only=platform_authority"
"""What to type for an authority where there is none."""
REPLACE = f"remove the old one from the secrets (ansible-vault edit), then type: {ADD}"

_CERTIFICATE_FORM = "PEM text from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
_KEY_FORM = "PEM text of the authority's private key, without a passphrase (-----BEGIN PRIVATE KEY-----)"


class AuthorityError(ValueError):
    """An authority that cannot sign.

    Attributes:
        part: ``certificate`` or ``key``.
        found: What is wrong with it.
        expected: What it should be.
        remedy: What to type or do.
    """

    def __init__(self, part: str, found: str, expected: str, remedy: str) -> None:
        """Keep the parts beside the message, which has them all."""
        super().__init__(f"{part}: {found}; expected {expected}. To repair it, {remedy}")
        self.part, self.found, self.expected, self.remedy = part, found, expected, remedy


@dataclass(frozen=True)
class Authority:
    """An authority that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    bundle: str
    """PEM of every certificate it was given, the signing one first, and of nothing else."""
    fingerprint: str
    """SHA-256 of the signing certificate, as hex."""
    not_after: int
    """Its last second, since 1970."""


def load(certificate: str, key: str, now: int) -> Authority:
    """Return an authority after a thorough look at it.

    Args:
        certificate: PEM, one certificate or several. The first one signs.
        key: PEM of its private key.
        now: Seconds since 1970.

    Raises:
        AuthorityError: It cannot sign.
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
        signs = _may_sign(chain[0])
    except (ValueError, x509.DuplicateExtension):
        raise AuthorityError("certificate", "no certificate that can be read (not shown)", _CERTIFICATE_FORM, _correct()) from None
    signer = chain[0]
    begin, end = int(signer.not_valid_before_utc.timestamp()), int(signer.not_valid_after_utc.timestamp())
    if not signs:
        found = f"the certificate of {_name(signer)}, which may not sign others"
        raise AuthorityError("certificate", found, "an authority's (basicConstraints CA:TRUE, keyUsage keyCertSign)", _correct())
    if end <= now:
        raise AuthorityError("certificate", f"{_name(signer)}, expired on {as_text(end)}", "an authority that is still valid", REPLACE)
    if begin > now:
        found = f"{_name(signer)}, valid only from {as_text(begin)}, and it is {as_text(now)}"
        raise AuthorityError("certificate", found, "an authority that is already valid", "set this machine's clock, or wait")
    private = _load_key(key)
    if _encoded(private.public_key()) != _encoded(signer.public_key()):
        expected = f"the key of {_name(signer)}, the first certificate of authority.certificate"
        raise AuthorityError("key", "the key of another certificate (not shown)", expected, _correct())
    bundle = "".join(item.public_bytes(serialization.Encoding.PEM).decode() for item in chain)
    return Authority(signer, private, bundle, signer.fingerprint(hashes.SHA256()).hex(), end)


def _correct() -> str:
    return f"correct it with ansible-vault edit, or for a new one {REPLACE}"


def _name(certificate: x509.Certificate) -> str:
    return f"'{certificate.subject.rfc4514_string()}'"


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    try:
        return authority and certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:  # then it is not restricted: RFC 5280, 4.2.1.3
        return authority


def _load_key(text: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey:
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
    except TypeError:
        raise AuthorityError("key", "a key with a passphrase (not shown)", _KEY_FORM, _correct()) from None
    except (ValueError, UnsupportedAlgorithm):
        raise AuthorityError("key", "no private key that can be read (not shown)", _KEY_FORM, _correct()) from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        raise AuthorityError("key", "a key that cannot sign certificates (not shown)", "an EC, RSA or EdDSA key", _correct())
    return key


def _encoded(key: object) -> bytes:
    """Return a public key so that it can be compared."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


def issue(authority: Authority, common_name: str, names: Iterable[str], days: int, now: int, usage: str = "both") -> Leaf:
    """Make a key, and a certificate for it.

    EC P-256: etcd, PostgreSQL, libpq and HAProxy take it, and making one costs a millisecond, RSA would cost half a second.

    Args:
        authority: Who signs.
        common_name: Common name.
        names: DNS names and IP addresses, the common name among them.
        days: Validity; it ends with the authority's at the latest.
        now: Seconds since 1970.
        usage: ``both``: for servers and clients; ``server``: for servers alone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    begin, end = now - BACKDATED, end_of(days, authority.not_after, now)
    addresses = {name: as_address(name) for name in names}
    alternatives = [x509.IPAddress(address) if address else x509.DNSName(name) for name, address in addresses.items()]
    try:
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )
    except x509.ExtensionNotFound:
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_subject(common_name), authority.certificate.subject, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    digest = None if isinstance(authority.key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)) else hashes.SHA256()
    return Leaf(_pem(builder.sign(authority.key, digest)), _key_pem(key), begin, end)


def create(common_name: str, days: int, now: int) -> tuple[str, str]:
    """Make a new authority that may sign certificates of services and no further authority; return its certificate and key, both PEM.

    Args:
        common_name: Its name. What is longer than a common name may be is cut off.
        days: Validity.
        now: Seconds since 1970.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(common_name[:LONGEST_COMMON_NAME])
    certificate = (
        _builder(name, name, key.public_key(), now - BACKDATED, now + days * 86400)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: int, end: int) -> x509.CertificateBuilder:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(epoch + timedelta(seconds=begin))
        .not_valid_after(epoch + timedelta(seconds=end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()
