# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a certificate is issued, renewed or kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _compose_certificates as certificates
from ansible_collections.berth.odoo.plugins.module_utils._compose import Certificate, CertificateRecord, DefinitionError, Leaf, Reload

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
DAY = certificates.DAY
FOREVER = NOW + 3650 * DAY


def certificate(**options: Any) -> Certificate:
    given: dict[str, Any] = {
        "dest": "tls",
        "common_name": "vm1",
        "names": ("10.0.0.1", "vm1"),
        "days": 90,
        "owner": 42,
        "group": 43,
        "services": ("db",),
        "reloads": (),
        "bundle": "CA\n",
        "signer": "s1",
        "signer_not_after": FOREVER,
        **options,
    }
    return Certificate(**given)


LEAF = Leaf("CERTIFICATE\n", "KEY\n", NOW - certificates.BACKDATED, NOW + 90 * DAY)
KNOWN = certificates.record_of(certificate(), LEAF)


def verdict(
    now: int = NOW,
    known: CertificateRecord | None = KNOWN,
    crt: bytes | None = b"CERTIFICATE\n",
    key: bytes | None = b"KEY\n",
    **wanted: Any,
) -> tuple[str, str]:
    return certificates.judge(certificate(**wanted), known, {"tls.crt": crt, "tls.key": key}, now)


def test_a_good_one_is_kept_whatever_does_not_concern_it() -> None:
    assert verdict() == ("unchanged", "")
    assert verdict(bundle="CA\nANOTHER\n", owner=1, group=2, services=(), reloads=(Reload("db", ("x",)),)) == ("unchanged", "")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"known": None, "crt": None, "key": None}, "no certificate yet"),
        ({"crt": None, "key": None}, "tls.crt and tls.key are missing"),
        ({"key": None}, "tls.key is missing"),
        ({"crt": None}, "tls.crt is missing"),
        ({"known": None}, "nothing is known about the one that is there"),
        ({"crt": b"OTHER\n"}, "tls.crt and tls.key are not the pair that was issued last"),
        ({"key": b"OTHER\n"}, "tls.crt and tls.key are not the pair that was issued last"),
        ({"key": b""}, "tls.crt and tls.key are not the pair that was issued last"),
        ({"crt": b"KEY\n", "key": b"CERTIFICATE\n"}, "tls.crt and tls.key are not the pair that was issued last"),
        ({"signer": "s2"}, "another authority signs"),
        ({"usage": "server"}, "usage changed from both to server"),
        ({"common_name": "vm2"}, "common name changed from vm1 to vm2"),
        ({"names": ("db", "etcd", "vm1")}, "names changed: added db, etcd; removed 10.0.0.1"),
        ({"names": ("10.0.0.1", "db", "vm1")}, "names changed: added db"),
        ({"names": ("vm1",)}, "names changed: removed 10.0.0.1"),
        ({"days": 30}, "it is valid until 2027-04-15T08:00:00Z, longer than 30 days"),
    ],
)
def test_why_one_is_issued(given: dict[str, Any], reason: str) -> None:
    assert verdict(**given) == ("issued", reason)


def test_one_is_renewed_when_a_third_is_left() -> None:
    assert verdict(NOW + 60 * DAY - 400)[0] == "unchanged"
    reason = "it expires on 2027-04-15T08:00:00Z, a third of its validity or less is left"
    assert verdict(NOW + 60 * DAY) == ("renewed", reason)
    assert verdict(NOW + 90 * DAY) == ("renewed", "it expired on 2027-04-15T08:00:00Z")
    assert verdict(NOW + 900 * DAY)[0] == "renewed"


def test_more_days_come_with_the_next_renewal_and_fewer_at_once() -> None:
    assert verdict(days=900)[0] == "unchanged"
    assert verdict(NOW - DAY // 2)[0] == "unchanged", "another controller's clock may be ahead"
    assert verdict(NOW - 2 * DAY)[0] == "issued"
    assert verdict(NOW + 50 * DAY, days=40)[0] == "unchanged", "what is left is no more than is wanted now"


def test_an_authority_that_ends_soon_does_not_make_every_run_issue() -> None:
    """The last certificate ends with it; nothing that is issued after that would end later."""
    now, signer_not_after, issued = NOW, NOW + 100 * DAY, 0
    known, leaf = None, LEAF
    while now < signer_not_after:
        wanted = certificate(signer_not_after=signer_not_after)
        on_disk = {"tls.crt": leaf.certificate.encode(), "tls.key": leaf.key.encode()}
        if certificates.judge(wanted, known, on_disk, now)[0] != "unchanged":
            issued += 1
            leaf = Leaf("C", "K", now - certificates.BACKDATED, certificates.end_of(90, signer_not_after, now))
            known = certificates.record_of(wanted, leaf)
        now += DAY // 2
    assert known and known.not_after == signer_not_after
    assert issued == 2


@given(st.integers(1, 1000), st.integers(1, 4000), st.integers(0, 4000 * 24))
def test_a_new_one_is_kept_by_the_next_run(days: int, authority_days: int, hours: int) -> None:
    """Whatever the validity and however long the authority still lives: no run issues twice."""
    now = NOW + hours * 3600
    wanted = certificate(days=days, signer_not_after=now + authority_days * DAY)
    leaf = certificates.expected(wanted, now)
    on_disk: dict[str, bytes | None] = {"tls.crt": leaf.certificate.encode(), "tls.key": leaf.key.encode()}
    assert certificates.judge(wanted, certificates.record_of(wanted, leaf), on_disk, now + 60) == ("unchanged", "")


def test_names_have_one_notation_and_order_means_nothing() -> None:
    names = certificates.alternative_names("VM1", ["etcd", "127.0.0.1", "Etcd", "vm1", "::1", "0:0:0:0:0:0:0:1"])
    assert names == ("127.0.0.1", "::1", "etcd", "vm1")
    assert certificates.alternative_names("10.0.0.1", []) == ("10.0.0.1",)
    assert certificates.alternative_names("a", ["b", "c"]) == certificates.alternative_names("a", ["c", "b", "c"])


@pytest.mark.parametrize(
    "name", ["vm1", "berth_replication", "etcd-1", "a.b-c.example.com", "_x", "xn--bcher-kva.example", "10.0.0.1", "fe80::1", "9"]
)
def test_names_that_are_good(name: str) -> None:
    certificates.check_certificates([certificate(common_name=name, names=certificates.alternative_names(name, []))])


@pytest.mark.parametrize(
    "name",
    ["", " ", "two words", "*.example.com", "a..b", ".a", "a.", "-a", "a-", "ä", "a/b", "a:1", "a\n", "x" * 64, "10.0.0.1/24", "a@b"],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="is neither a DNS name") as caught:
        certificates.check_certificates([certificate(names=(name,))])
    assert f"certificates: tls: '{name}'" in str(caught.value)


def test_all_other_problems_are_said_at_once() -> None:
    listed = [
        certificate(dest="../x"),
        certificate(dest="compose.yml"),
        certificate(),
        certificate(days=0),
        certificate(dest="long", common_name="x" * 65),
    ]
    with pytest.raises(DefinitionError) as caught:
        certificates.check_certificates(listed)
    assert str(caught.value).splitlines() == [
        "certificates: dest '../x' must be a plain relative path such as tls, without '..'",
        "certificates: dest 'compose.yml' must be a plain relative path such as tls, without '..'",
        "certificates: dest 'tls' is listed twice",
        "certificates: tls: days is 0, it must be 1 or more",
        f"certificates: long: common_name '{'x' * 65}' has more than 64 characters",
    ]


def test_only_the_key_is_secret_and_only_its_owner_reads_it() -> None:
    bundle, crt, key = certificates.files_of(certificate(), LEAF, 0)
    assert [(item.dest, item.content) for item in (bundle, crt, key)] == [
        ("tls/ca.crt", b"CA\n"),
        ("tls/tls.crt", b"CERTIFICATE\n"),
        ("tls/tls.key", b"KEY\n"),
    ]
    assert [(item.owner, item.group, oct(item.mode), item.sensitive) for item in (bundle, crt, key)] == [
        (0, 43, "0o444", False),
        (0, 43, "0o444", False),
        (42, 43, "0o400", True),
    ]
    assert {(item.services, item.reloads) for item in (bundle, crt, key)} == {(("db",), ())}


def test_a_record_in_words_has_names_and_dates() -> None:
    assert certificates.describe(KNOWN) == (
        "common name: vm1\nnames: 10.0.0.1, vm1\nusage: both\nvalid: 2027-01-15T07:55:00Z to 2027-04-15T08:00:00Z\nsigned by: s1\n"
    )
    assert dataclasses.replace(KNOWN, pair="x") != KNOWN
