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
PEER_USER = "berth-peer"
RESERVED = frozenset({"default", SERVICE_USER, PEER_USER})

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
    # Redis would tell the name of every key that anybody changes.
    "-client|tracking",
    "-client|caching",
)
"""What a tenant may do with its keys. ``@dangerous`` has KEYS, FLUSHALL, FLUSHDB, INFO, SORT, SWAPDB and the like."""

PEER_RULES = (
    # What a replica says to its primary, then what a Sentinel says to either, then what one that is to stop says to itself.
    "+psync +replconf +ping",
    "+subscribe +publish +info +role +multi +exec +slaveof +config|rewrite +client|setname +client|kill +script|kill",
    "+replicaof +client|pause +client|unpause",
)
"""What several Redis and their Sentinels do with each other. https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/"""

SENTINEL_PEER_RULES = (
    "+ping +publish +subscribe +client|setname +sentinel|is-master-down-by-addr",
    "+sentinel|failover +sentinel|get-master-addr-by-name +sentinel|master +sentinel|replicas +sentinel|sentinels +sentinel|ckquorum",
)
"""What Sentinels do with each other, and what a host asks its own."""

SENTINEL_TENANT_RULES = ("+ping +client|setinfo +client|setname +sentinel|master",)
"""What a tenant may ask a Sentinel: who is the primary, and how often that has changed."""


class AclError(ValueError):
    """A user that cannot be. The message says what was found, what was expected and what to type; no password."""


def _digest(name: Any, password: Any, problems: list[str]) -> str:
    """Return how a password is written; what is wrong with it goes to the problems."""
    if not isinstance(password, str) or not password or any(char in password for char in "\0\r\n"):
        problems.append(f"the password of Redis user {name!r} is empty, not a string, or holds a newline or NUL")
        return ""
    return f"#{hashlib.sha256(password.encode()).hexdigest()}"


def redis_acl(users: Iterable[Mapping[str, Any]], peer: Any = "", *, sentinel: bool = False) -> str:
    """Return the content of an ACL file.

    Every user may touch only keys and channels that start with its prefix and a colon. The user ``default``, which an
    unauthenticated client would be, is off. The user ``berth`` has no password and may say PING and load this file
    again, which is all that the health check and a reload need, and harmless in anybody's hands.

    The user ``berth-peer``, where there are several Redis, is how they and their Sentinels speak to each other.

    :param peer: password of ``berth-peer``; nothing where there is one Redis.
    :param sentinel: the file is for a Sentinel, which has no keys.
    :param users: each with ``name``, ``password`` and ``prefix``, and optionally ``commands``, rules that are added last.
    :raises AclError: with everything that is wrong.
    """
    problems: list[str] = []
    lines = [
        # Off: nobody can be this user, an unauthenticated client least of all. It has all rights, because Redis replays the transactions of its
        # append-only file as this user, and drops those that it may not execute (8.0.2, measured: logins were gone after a restart).
        "user default off resetpass allkeys allchannels +@all",
        f"user {SERVICE_USER} on nopass resetkeys resetchannels -@all +ping +acl|load{' +role' if peer and not sentinel else ''}",
    ]
    if peer:
        rules = SENTINEL_PEER_RULES if sentinel else PEER_RULES
        lines.append(f"user {PEER_USER} on {_digest(PEER_USER, peer, problems)} resetkeys allchannels -@all {' '.join(rules)}")
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
        digest = _digest(name, password, problems)
        if sentinel:
            lines.append(f"user {name} on {digest} resetkeys resetchannels -@all {' '.join(SENTINEL_TENANT_RULES)}")
            continue
        commands = " ".join([*TENANT_RULES, *(user.get("commands") or [])])
        lines.append(f"user {name} on {digest} resetkeys ~{prefix}:* resetchannels &{prefix}:* {commands}")
    if problems:
        raise AclError("; ".join(problems))
    return "\n".join([*lines, ""])
