# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SCRAM-SHA-256 verifiers as PostgreSQL and PgBouncer store them, computed without either.

A verifier lets a server check a password without knowing it. Sending the verifier instead of the password keeps the
password out of server logs, and comparing verifiers is how a second run finds out that nothing changed.

The salt is derived from the role's name, so that every host computes the same verifier without talking to another.
PgBouncer needs that: it can log in to PostgreSQL with what a client proved to it only when both sides store the
identical verifier (https://www.pgbouncer.org/config.html, "SCRAM secrets"). What is given up is a salt that an
attacker with the verifier could not have known before: matters for passwords from a dictionary, which preflight
refuses, and not for generated ones.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import stringprep
import unicodedata

ITERATIONS = 4096
"""PostgreSQL's default for scram_iterations, and the minimum of RFC 7677."""

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def saslprep(password: str) -> str:
    """Normalise a password as libpq, PostgreSQL and PgBouncer do before hashing it (RFC 4013).

    Like theirs, this never refuses: pure ASCII and whatever the profile prohibits stay as they are
    (pg_saslprep() in src/common/saslprep.c and its callers).
    """
    if password.isascii():
        return password
    mapped = "".join(" " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char))
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(prohibited(char) for char in prepared for prohibited in _PROHIBITED):
        return password
    if any(stringprep.in_table_d1(char) for char in prepared):
        one_direction = not any(stringprep.in_table_d2(char) for char in prepared)
        if not (one_direction and stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            return password
    return prepared


def verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return the verifier of a password for a given salt, as scram_build_secret() of PostgreSQL does (RFC 5802)."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    parts = [salt, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")]
    salt64, stored64, server64 = (base64.b64encode(part).decode("ascii") for part in parts)
    return f"SCRAM-SHA-256${iterations}:{salt64}${stored64}:{server64}"


def scram_verifier(password: str, user: str) -> str:
    """Return the verifier of a role's password.

    :param password: the password as a person would type it. Not empty, without NUL and newline.
    :param user: name of the role; the salt is derived from it.
    :returns: ``SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>``, the same for the same arguments.
    :raises ValueError: the password is empty or holds a NUL or a newline. The message does not show it.
    """
    if not password or any(char in password for char in "\0\r\n"):
        raise ValueError(f"the password of {user} is empty or holds a newline or a NUL character: set another one")
    return verifier(password, hashlib.sha256(b"berth.odoo/scram/" + user.encode()).digest()[:16])
