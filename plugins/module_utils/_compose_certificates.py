# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When compose_project issues, renews or keeps a certificate, as pure functions: no input or output, no clock, no X.509.

The host knows its certificates by what was written down when they were issued (:class:`CertificateRecord`), so that a run without changes parses
nothing. The record holds a fingerprint of certificate and key together: files that were edited, or that a killed run left as half
of the old pair and half of the new, do not match it and are issued again. Making them is in ``_authority``, on the controller.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.plugins.module_utils._compose import (
    RESERVED,
    Certificate,
    CertificateRecord,
    DefinitionError,
    Leaf,
    ManagedFile,
)

if TYPE_CHECKING:
    import ipaddress

BUNDLE_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "tls.crt", "tls.key"
ISSUED, RENEWED, UNCHANGED = "issued", "renewed", "unchanged"

DAY = 86400
BACKDATED = 300
"""Seconds before the moment of issue from which a certificate counts, for hosts whose clock is a little late."""
CLOCKS = DAY
"""Seconds by which a certificate may seem to be valid too long, because another controller with another clock issued it."""

LONGEST_COMMON_NAME = 64
"""Characters: ub-common-name of RFC 5280, appendix A."""
# Docker's and Compose's names may have underscores; a wildcard would stand for hosts that nobody named.
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)


# --- what is wanted -----------------------------------------------------------------------------------------------------


def as_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a name as an IP address, None when it is none."""
    import ipaddress  # hosts never come here, and should not load it

    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def alternative_names(common_name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return all names of a certificate in one notation, sorted, each once. The common name keeps its case elsewhere; here case means nothing."""
    return tuple(sorted({str(as_address(name) or name.lower()) for name in (common_name, *names)}))


def check_certificates(certificates: Sequence[Certificate]) -> None:
    """Check names, places and times. The names must be in the notation of :func:`alternative_names`.

    Raises:
        DefinitionError: With all problems, one a line.
    """
    problems: list[str] = []
    seen: set[str] = set()
    for item in certificates:
        where = f"certificates: {item.dest}"
        parts = item.dest.split("/")
        if any(part in ("", ".", "..") for part in parts) or parts[0] in RESERVED or "\0" in item.dest or len(item.dest) > 190:
            problems.append(f"certificates: dest '{item.dest}' must be a plain relative path such as tls, without '..'")
        if item.dest in seen:
            problems.append(f"certificates: dest '{item.dest}' is listed twice")
        seen.add(item.dest)
        if len(item.common_name) > LONGEST_COMMON_NAME:
            problems.append(f"{where}: common_name '{item.common_name}' has more than {LONGEST_COMMON_NAME} characters")
        problems.extend(
            f"{where}: '{name}' is neither a DNS name (letters, digits, '-', '_' and '.') nor an IP address"
            for name in item.names
            if not as_address(name) and not _DNS_NAME.fullmatch(name)
        )
        if item.days < 1:
            problems.append(f"{where}: days is {item.days}, it must be 1 or more")
    if problems:
        raise DefinitionError("\n".join(problems))


def files_of(wanted: Certificate, leaf: Leaf, root: int) -> tuple[ManagedFile, ManagedFile, ManagedFile]:
    """Return the three files of a certificate.

    Args:
        wanted: The certificate.
        leaf: Certificate and key.
        root: User id that owns what everybody may read.
    """
    meaning = (wanted.services, wanted.reloads)
    return (
        ManagedFile(f"{wanted.dest}/{BUNDLE_FILE}", wanted.bundle.encode(), root, wanted.group, 0o444, False, *meaning),
        ManagedFile(f"{wanted.dest}/{CERTIFICATE_FILE}", leaf.certificate.encode(), root, wanted.group, 0o444, False, *meaning),
        ManagedFile(f"{wanted.dest}/{KEY_FILE}", leaf.key.encode(), wanted.owner, wanted.group, 0o400, True, *meaning),
    )


def end_of(days: int, signer_not_after: int, now: int) -> int:
    """Return the last second of a certificate issued now: after some days, or with the authority that signs it."""
    return min(now + days * DAY, signer_not_after)


def expected(wanted: Certificate, now: int) -> Leaf:
    """Return what a prediction knows of a certificate that does not exist yet: its times."""
    nothing = "not issued yet\n"
    return Leaf(nothing, nothing, now - BACKDATED, end_of(wanted.days, wanted.signer_not_after, now))


# --- what is there ------------------------------------------------------------------------------------------------------


def pair_digest(certificate: bytes, key: bytes) -> str:
    """Return the fingerprint of a certificate and its key together.

    Not keyed, other than digests of files with passwords: nobody finds an EC key by trying.
    """
    return hashlib.sha256(hashlib.sha256(certificate).digest() + hashlib.sha256(key).digest()).hexdigest()


def record_of(wanted: Certificate, leaf: Leaf) -> CertificateRecord:
    """Return what is written down about a certificate."""
    pair = pair_digest(leaf.certificate.encode(), leaf.key.encode())
    return CertificateRecord(wanted.common_name, wanted.names, wanted.signer, pair, leaf.not_before, leaf.not_after, wanted.usage)


def judge(wanted: Certificate, known: CertificateRecord | None, on_disk: Mapping[str, bytes | None], now: int) -> tuple[str, str]:
    """Decide about a certificate: ``issued``, ``renewed`` or ``unchanged``, and why.

    Args:
        wanted: What it should be.
        known: What was written down when it was issued.
        on_disk: Content of ``tls.crt`` and ``tls.key``; None: not there.
        now: Seconds since 1970.
    """
    certificate, key = on_disk[CERTIFICATE_FILE], on_disk[KEY_FILE]
    if certificate is None and key is None:
        return ISSUED, "no certificate yet" if known is None else f"{CERTIFICATE_FILE} and {KEY_FILE} are missing"
    if certificate is None or key is None:
        return ISSUED, f"{KEY_FILE if key is None else CERTIFICATE_FILE} is missing"
    if known is None:
        return ISSUED, "nothing is known about the one that is there"
    if pair_digest(certificate, key) != known.pair:
        return ISSUED, f"{CERTIFICATE_FILE} and {KEY_FILE} are not the pair that was issued last"
    difference = _difference(wanted, known)
    if difference:
        return ISSUED, difference
    if known.not_after <= now:
        return RENEWED, f"it expired on {as_text(known.not_after)}"
    end = end_of(wanted.days, wanted.signer_not_after, now)
    if known.not_after > end + CLOCKS:
        return ISSUED, f"it is valid until {as_text(known.not_after)}, longer than {wanted.days} days"
    # Not when a new one would end no later: with an authority that is about to expire, every run would issue once more.
    if 3 * (known.not_after - now) <= known.not_after - known.not_before and known.not_after < end:
        return RENEWED, f"it expires on {as_text(known.not_after)}, a third of its validity or less is left"
    return UNCHANGED, ""


def _difference(wanted: Certificate, known: CertificateRecord) -> str:
    """Say what a certificate is about that is wanted otherwise; empty when nothing is."""
    if wanted.signer != known.signer:
        return "another authority signs"
    if wanted.common_name != known.common_name:
        return f"common name changed from {known.common_name} to {wanted.common_name}"
    if wanted.usage != known.usage:
        return f"usage changed from {known.usage} to {wanted.usage}"
    added, removed = sorted(set(wanted.names) - set(known.names)), sorted(set(known.names) - set(wanted.names))
    changes = [f"{word} {', '.join(names)}" for word, names in (("added", added), ("removed", removed)) if names]
    return f"names changed: {'; '.join(changes)}" if changes else ""


# --- saying it ----------------------------------------------------------------------------------------------------------


def as_text(moment: int) -> str:
    """Return seconds since 1970 as a time of day, UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(record: CertificateRecord) -> str:
    """Return a certificate in words, for a diff: names and dates."""
    return (
        f"common name: {record.common_name}\nnames: {', '.join(record.names)}\nusage: {record.usage}\n"
        f"valid: {as_text(record.not_before)} to {as_text(record.not_after)}\nsigned by: {record.signer}\n"
    )
