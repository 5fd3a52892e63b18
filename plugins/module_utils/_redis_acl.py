# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis ACL rules for tenants that share one server, as pure functions.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
PREFIX = NAME
"""No character that means something in a key pattern (``* ? [ ] \\``) and no ``:``, which ends the prefix."""

SERVICE_USER = "berth"
RESERVED = frozenset({"default", SERVICE_USER})

TENANT_RULES = (
    "+@all",
    "-@admin",
    "-@dangerous",
    # Long scripts stop everybody.
    "-@scripting",
    # These show the names of other tenants' keys: key patterns do not limit them.
    "-scan",
    "-randomkey",
    "-dbsize",
    "-select",
)
"""What a tenant may do with its keys. ``@dangerous`` has KEYS, FLUSHALL, FLUSHDB, INFO, SORT, SWAPDB and the like."""


class AclError(ValueError):
    """A user that cannot be. The message says what was found, what was expected and what to type; no password."""


def redis_acl(users: Iterable[Mapping[str, Any]]) -> str:
    """Return the content of an ACL file.

    Every user may touch only keys and channels that start with its prefix and a colon. The user ``default``, which an
    unauthenticated client would be, is off. The user ``berth`` has no password and may say PING and load this file
    again, which is all that the health check and a reload need, and harmless in anybody's hands.

    :param users: each with ``name``, ``password`` and ``prefix``, and optionally ``commands``, rules that are added last.
    :raises AclError: with everything that is wrong.
    """
    problems: list[str] = []
    lines = [
        # Off: nobody can be this user, an unauthenticated client least of all. It has all rights, because Redis replays the transactions of its
        # append-only file as this user, and drops those that it may not execute (8.0.2, measured: logins were gone after a restart).
        "user default off resetpass allkeys allchannels +@all",
        f"user {SERVICE_USER} on nopass resetkeys resetchannels -@all +ping +acl|load",
    ]
    seen: dict[str, set[str]] = {"name": set(), "prefix": set()}
    for user in users:
        name, password, prefix = user.get("name"), user.get("password"), user.get("prefix")
        for kind, value, pattern in (("name", name, NAME), ("prefix", prefix, PREFIX)):
            if not isinstance(value, str) or not pattern.match(value):
                problems.append(f"{kind} {value!r} of a Redis user: expected {pattern.pattern}")
            elif value in seen[kind]:
                problems.append(f"{kind} {value!r} is given to two Redis users: tenants would share it")
            else:
                seen[kind].add(value)
        if name in RESERVED:
            problems.append(f"Redis user {name!r}: the role keeps this name for itself")
        if not isinstance(password, str) or not password or any(char in password for char in "\0\r\n"):
            problems.append(f"the password of Redis user {name!r} is empty, not a string, or holds a newline or NUL")
            continue
        digest = hashlib.sha256(password.encode()).hexdigest()
        commands = " ".join([*TENANT_RULES, *(user.get("commands") or [])])
        lines.append(f"user {name} on #{digest} resetkeys ~{prefix}:* resetchannels &{prefix}:* {commands}")
    if problems:
        raise AclError("; ".join(problems))
    return "\n".join([*lines, ""])
