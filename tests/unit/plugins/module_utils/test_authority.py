# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The authority and what it issues, judged by independent implementations: openssl, and a handshake of Python's ssl."""

from __future__ import annotations

import datetime
import itertools
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.plugins.module_utils._authority import Authority, AuthorityError
from ansible_collections.berth.odoo.plugins.module_utils._compose import Leaf

NOW = int(time.time())
DAY = 86400
PEM, PKCS8, OPEN = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
OURS = _authority.create("berth.odoo test", 3650, NOW)
OTHER = _authority.create("berth.odoo other", 3650, NOW)


def authority(certificate: str = OURS[0], key: str = OURS[1]) -> Authority:
    return _authority.load(certificate, key, NOW)


def refusal(certificate: str = OURS[0], key: str = OURS[1], now: int = NOW) -> AuthorityError:
    with pytest.raises(AuthorityError) as caught:
        _authority.load(certificate, key, now)
    return caught.value


def foreign(key: Any, *extensions: tuple[x509.ExtensionType, bool]) -> tuple[str, str]:
    """An authority of somebody else, without the extensions that ours has."""
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "foreign")])
    now = datetime.datetime.fromtimestamp(NOW - 60, datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=10))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    return signed.public_bytes(PEM).decode(), key.private_bytes(PEM, PKCS8, OPEN).decode()


CA = (x509.BasicConstraints(ca=True, path_length=None), True)


# --- the authority ------------------------------------------------------------------------------------------------------


def test_a_new_authority_signs_services_and_no_further_authority() -> None:
    (made,) = x509.load_pem_x509_certificates(OURS[0].encode())
    assert made.subject.rfc4514_string() == made.issuer.rfc4514_string() == "CN=berth.odoo test"
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)
    assert authority().not_after == NOW + 3650 * DAY
    assert authority().bundle == OURS[0]
    assert _authority.create("x", 1, NOW) != _authority.create("x", 1, NOW)
    (long,) = x509.load_pem_x509_certificates(_authority.create("y" * 100, 1, NOW)[0].encode())
    assert long.subject.rfc4514_string() == f"CN={'y' * 64}"


def test_the_first_of_several_signs_and_all_are_in_the_bundle() -> None:
    both = authority(OURS[0] + "some comment\n" + OTHER[0] + OTHER[1])
    assert both.bundle == OURS[0] + OTHER[0], "what is no certificate, such as a key, does not come into the bundle"
    assert both.fingerprint == authority().fingerprint
    assert authority(OTHER[0] + OURS[0], OTHER[1]).fingerprint != both.fingerprint


@pytest.mark.parametrize(
    ("given", "part", "found"),
    [
        ({"certificate": "canary"}, "certificate", "no certificate that can be read"),
        ({"certificate": ""}, "certificate", "no certificate that can be read"),
        ({"certificate": OURS[1]}, "certificate", "no certificate that can be read"),
        ({"certificate": OURS[0].replace("M", "canary", 1)}, "certificate", "no certificate that can be read"),
        ({"certificate": OURS[0][:200]}, "certificate", "no certificate that can be read"),
        ({"key": "canary"}, "key", "no private key that can be read"),
        ({"key": ""}, "key", "no private key that can be read"),
        ({"key": OURS[0]}, "key", "no private key that can be read"),
        ({"key": OURS[1][:100]}, "key", "no private key that can be read"),
        ({"key": OTHER[1]}, "key", "the key of another certificate"),
        ({"certificate": OTHER[0] + OURS[0]}, "key", "the key of another certificate"),
        ({"now": NOW + 3651 * DAY}, "certificate", "'CN=berth.odoo test', expired on 20"),
        ({"now": NOW - DAY}, "certificate", "'CN=berth.odoo test', valid only from 20"),
    ],
)
def test_what_cannot_sign_is_refused_and_not_shown(given: dict[str, Any], part: str, found: str) -> None:
    error = refusal(**given)
    assert error.part == part
    assert error.found.startswith(found)
    assert error.expected and error.remedy
    text = str(error)
    assert text.startswith(f"{part}: {found}")
    secrets = [*OURS[1].splitlines()[1:-1], *OTHER[1].splitlines()[1:-1], *OURS[0].splitlines()[1:-1], "canary"]
    assert [secret for secret in secrets if secret in text] == []


def test_only_an_authority_may_sign() -> None:
    leaf = _authority.issue(authority(), "vm1", ["vm1"], 90, NOW)
    assert "'CN=vm1', which may not sign others" in refusal(leaf.certificate, leaf.key).found
    key = ec.generate_private_key(ec.SECP256R1())
    assert "which may not sign others" in refusal(*foreign(key)).found
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    assert "which may not sign others" in refusal(*foreign(key, CA, (usage, True))).found


def test_keys_that_cannot_be_used_say_so() -> None:
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"canary"))
    assert "a key with a passphrase" in refusal(key=encrypted.decode()).found
    unsuitable = dsa.generate_private_key(2048).private_bytes(PEM, PKCS8, OPEN).decode()
    assert "a key that cannot sign certificates" in refusal(key=unsuitable).found


# --- what it issues -----------------------------------------------------------------------------------------------------

NAMES = ("10.213.0.11", "etcd", "fe80::1", "vm1")


@pytest.fixture
def leaf() -> Leaf:
    return _authority.issue(authority(), "vm1", NAMES, 90, NOW)


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)


def written(directory: Path, leaf: Leaf, bundle: str) -> tuple[Path, Path, Path]:
    files = directory / "ca.crt", directory / "tls.crt", directory / "tls.key"
    for file, text in zip(files, (bundle, leaf.certificate, leaf.key), strict=True):
        file.write_text(text)
    return files


def test_openssl_agrees(leaf: Leaf, tmp_path: Path) -> None:
    ca, certificate, _key = written(tmp_path, leaf, OURS[0])
    for purpose in ("sslserver", "sslclient"):
        for name in (["-verify_hostname", "vm1"], ["-verify_hostname", "etcd"], ["-verify_ip", "10.213.0.11"], ["-verify_ip", "fe80::1"]):
            done = openssl("verify", "-x509_strict", "-purpose", purpose, *name, "-CAfile", ca, certificate)
            assert done.returncode == 0, done.stderr
    assert openssl("verify", "-verify_hostname", "vm2", "-CAfile", ca, certificate).returncode != 0
    assert openssl("verify", "-attime", str(NOW + 91 * DAY), "-CAfile", ca, certificate).returncode != 0
    assert openssl("verify", "-attime", str(NOW - 290), "-CAfile", ca, certificate).returncode == 0, "for a host whose clock is late"
    assert openssl("verify", "-attime", str(NOW - 310), "-CAfile", ca, certificate).returncode != 0
    other = tmp_path / "other.crt"
    other.write_text(OTHER[0])
    assert openssl("verify", "-CAfile", other, certificate).returncode != 0


def test_its_content(leaf: Leaf) -> None:
    made = x509.load_pem_x509_certificate(leaf.certificate.encode())
    assert (leaf.not_before, leaf.not_after) == (NOW - 300, NOW + 90 * DAY)
    assert made.not_valid_before_utc.timestamp() == leaf.not_before
    assert made.not_valid_after_utc.timestamp() == leaf.not_after
    key = serialization.load_pem_private_key(leaf.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == made.public_key()
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(str(name.value) for name in names) == sorted(NAMES)
    subject = x509.load_pem_x509_certificate(OURS[0].encode()).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == subject.digest
    again = x509.load_pem_x509_certificate(_authority.issue(authority(), "vm1", NAMES, 90, NOW).certificate.encode())
    assert again.serial_number != made.serial_number
    assert again.public_key() != made.public_key()


def test_it_does_not_outlive_the_authority() -> None:
    certificate, key = _authority.create("short", 10, NOW)
    made = _authority.issue(_authority.load(certificate, key, NOW), "vm1", ["vm1"], 90, NOW)
    assert made.not_after == NOW + 10 * DAY


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()], ids=type
)
def test_an_authority_of_ones_own_may_have_another_kind_of_key(key: Any, tmp_path: Path) -> None:
    certificate, pem = foreign(key, CA)
    made = _authority.issue(_authority.load(certificate, pem, NOW), "vm1", ["vm1"], 5, NOW)
    ca, crt, _key = written(tmp_path, made, certificate)
    assert openssl("verify", "-CAfile", ca, crt).returncode == 0


def context(purpose: ssl.Purpose, directory: Path, leaf: Leaf, bundle: str) -> ssl.SSLContext:
    directory.mkdir()
    ca, crt, key = written(directory, leaf, bundle)
    made = ssl.create_default_context(purpose, cafile=str(ca))
    made.load_cert_chain(crt, key)
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    return made


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, Any]:
    """Let two sides greet each other in memory; return the certificate that the server has seen."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    two = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [two, one]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    return dict(one.getpeercert() or {})


def test_two_services_trust_each_other(tmp_path: Path) -> None:
    first, second = (_authority.issue(authority(), name, [name, "10.0.0.1"], 90, NOW) for name in ("vm1", "berth_replication"))
    server = context(ssl.Purpose.CLIENT_AUTH, tmp_path / "server", first, OURS[0])
    client = context(ssl.Purpose.SERVER_AUTH, tmp_path / "client", second, OURS[0])
    seen = shake_hands(server, client, "vm1")
    assert seen["subject"] == ((("commonName", "berth_replication"),),)
    shake_hands(server, client, "10.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(server, client, "vm2")


def test_a_server_is_no_client(tmp_path: Path) -> None:
    """As Patroni and etcd ask for a certificate: whoever has the key of a service that is only a server gets in nowhere."""
    member = _authority.issue(authority(), "vm1", ["vm1"], 90, NOW)
    redis = _authority.issue(authority(), "redis", ["redis"], 90, NOW, "server")
    server = context(ssl.Purpose.CLIENT_AUTH, tmp_path / "server", member, OURS[0])
    thief = context(ssl.Purpose.SERVER_AUTH, tmp_path / "thief", redis, OURS[0])
    for mode in (ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL):
        server.verify_mode = mode
        with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
            shake_hands(server, thief, "vm1")
    # It serves, and one that follows another does not mind its own: there nobody is asked for a certificate.
    one = context(ssl.Purpose.CLIENT_AUTH, tmp_path / "redis", redis, OURS[0])
    one.verify_mode = ssl.CERT_NONE
    assert shake_hands(one, thief, "redis") == {}


def test_two_authorities_live_side_by_side_while_one_replaces_the_other(tmp_path: Path) -> None:
    """As the documentation of compose_project says: old+new, then new+old, then new; at every step old and new hosts meet."""
    name = "berth.odoo same"
    old, new = (_authority.create(name, 3650, NOW) for _ in range(2))
    steps = [(old[0], old[1]), (old[0] + new[0], old[1]), (new[0] + old[0], new[1]), (new[0], new[1])]
    made = [(_authority.load(*step, NOW).bundle, _authority.issue(_authority.load(*step, NOW), "vm1", ["vm1"], 90, NOW)) for step in steps]
    for number, ((bundle, leaf), (next_bundle, next_leaf)) in enumerate(itertools.pairwise(made)):
        for side, (server, client) in enumerate((((bundle, leaf), (next_bundle, next_leaf)), ((next_bundle, next_leaf), (bundle, leaf)))):
            one = context(ssl.Purpose.CLIENT_AUTH, tmp_path / f"{number}{side}server", server[1], server[0])
            two = context(ssl.Purpose.SERVER_AUTH, tmp_path / f"{number}{side}client", client[1], client[0])
            assert shake_hands(one, two, "vm1")
