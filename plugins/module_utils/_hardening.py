# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hardening wants of a host, and whether an operator still gets in afterwards. No input, no output."""

from __future__ import annotations

import difflib
import fnmatch
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

LISTS = {"packages", "files", "lines", "modes", "modules", "masked", "units", "ensure"}
DICTS = {"mounts", "sshd", "sysctl"}
KEYS = LISTS | DICTS | {"cis"}
"""What a topic may hold."""

MARKERS = {"ext-info-s", "kex-strict-s-v00@openssh.com"}
"""Names among the key exchanges that are none."""


class HardeningError(Exception):
    """The host cannot become what was asked for. The message says what to type."""


def merge(topics: Mapping[str, Mapping[str, Any]], switches: Mapping[str, bool]) -> dict[str, Any]:
    """Put the topics that are on into one list of wishes, in their order.

    :raises HardeningError: a switch belongs to no topic or is neither true nor false, or a topic holds something unknown.
    """
    for name, on in switches.items():
        if name not in topics:
            near = difflib.get_close_matches(name, topics, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(topics)}."
            raise HardeningError(f"hardening_topics has {name}, which is no topic: {hint}")
        if not isinstance(on, bool):
            raise HardeningError(f"hardening_topics: {name} is {on!r}, expected true or false.")
    wanted: dict[str, Any] = {**{key: [] for key in LISTS}, **{key: {} for key in DICTS}}
    for name, topic in topics.items():
        if not switches.get(name, True):
            continue
        for key, value in topic.items():
            if key not in KEYS:
                raise HardeningError(f"topic {name} holds {key}, expected only {', '.join(sorted(KEYS))}")
            if key in DICTS:
                wanted[key].update(value)
            elif key != "cis":
                wanted[key].extend(value)
    wanted["packages"] = list(dict.fromkeys(wanted["packages"]))
    return wanted


def sshd_config(settings: Mapping[str, Any], header: str) -> str:
    """Write sshd's main file. What it says first counts, so the directory of others' files is included last."""
    lines = []
    for key, value in sorted(settings.items()):
        if value is None or value in ("", []):
            continue
        for one in value if key in {"HostKey", "Subsystem"} and isinstance(value, list) else [value]:
            separator = "," if key in {"KexAlgorithms", "Ciphers", "MACs", "HostKeyAlgorithms", "PerSourcePenaltyExemptList"} else " "
            text = separator.join(map(str, one)) if isinstance(one, list) else {True: "yes", False: "no"}.get(one, one)
            lines.append(f"{key} {text}\n")
    return header + "".join(lines) + "Include /etc/ssh/sshd_config.d/*.conf\n"


def effective(output: str) -> dict[str, list[str]]:
    """Read the answer of ``sshd -T``: keywords in lower case, each with its values."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        key, _space, value = line.strip().partition(" ")
        found.setdefault(key, []).append(value)
    return found


def moved(now: Mapping[str, Sequence[str]], then: Mapping[str, Sequence[str]]) -> str:
    """Say how a configuration changes where sshd listens, and what to type to keep that; nothing when it does not."""
    if sorted(now["listenaddress"]) == sorted(then["listenaddress"]):
        return ""
    # What sshd says has the port of each: such as 10.0.0.5:22, and [::]:22 for all addresses.
    lines = " and ".join(f"'ListenAddress {address}'" for address in sorted(now["listenaddress"]))
    return (
        f"It listens at {', '.join(sorted(now['listenaddress']))}, and would at {', '.join(sorted(then['listenaddress']))}. To keep that, write {lines} into a "
        "file in /etc/ssh/sshd_config.d, which stays. To change it, set Port or ListenAddress in hardening_ssh"
    )


def vanishing(text: str) -> list[str]:
    """Return the lines of sshd's main file that begin what nothing can tell from outside: C(Match) blocks, and files elsewhere than in its directory."""
    found = re.findall(r"^[ \t]*((?:match|include)(?:[ \t]*=|[ \t])[^\n]*)", text, re.MULTILINE | re.IGNORECASE)
    return [line for line in map(str.strip, found) if not re.fullmatch(r'(?i)include[\s=]+"?(/etc/ssh/)?sshd_config\.d/\*\.conf"?', line)]


def let_in(now: Mapping[str, Sequence[str]], then: Mapping[str, Sequence[str]], chosen: Iterable[str], vanish: Iterable[str] = ()) -> str:
    """Say what would no longer keep anybody out, and what to type to keep that; nothing when all of it stays.

    Args:
        now: What sshd says that holds.
        then: And what would.
        chosen: Keywords that whoever runs this has set, and means.
        vanish: Further lines that would be gone.
    """

    def names(sshd: Mapping[str, Sequence[str]], key: str) -> list[str]:
        return " ".join(sshd.get(key.lower(), [])).split()

    lost = [
        f"{key} {' '.join(gone)}"
        for key in ("AllowUsers", "AllowGroups", "DenyUsers", "DenyGroups")
        if key not in chosen and (gone := [name for name in names(now, key) if name not in names(then, key)])
    ]
    if not (lost := [*lost, *vanish]):
        return ""
    return (
        f"{'; '.join(lost)}. To keep that, move it (a Match with all lines of its block) into a file in /etc/ssh/sshd_config.d, which stays, or set "
        "AllowUsers, AllowGroups, DenyUsers or DenyGroups in hardening_ssh. What shall go, take out of /etc/ssh/sshd_config"
    )


class Account(NamedTuple):
    """Someone who shall still get in."""

    name: str
    groups: Sequence[str]
    keys: int
    """Public keys in the files that sshd would read."""
    looked_in: Sequence[str]
    """Those files."""


def refusal(account: Account, sshd: Mapping[str, Sequence[str]]) -> str:
    """Say why the account could not log in under a configuration, or nothing when it could."""

    def one(key: str) -> str:
        return (sshd.get(key) or [""])[0]

    def named(key: str, names: Iterable[str]) -> bool:
        # user@host patterns hold for the user here: where from is not known beforehand.
        patterns = [part.partition("@")[0] for value in sshd.get(key, []) for part in value.split()]
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)

    if account.name == "root" and one("permitrootlogin") in {"no", "forced-commands-only"}:
        return "root may not log in (PermitRootLogin no). Make an account with sudo and a key, and connect as that (ansible_user)"
    if named("denyusers", [account.name]) or named("denygroups", account.groups):
        return "it is denied by DenyUsers or DenyGroups"
    if sshd.get("allowusers") and not named("allowusers", [account.name]):
        return f"it is not among AllowUsers {' '.join(sshd['allowusers'])}"
    if sshd.get("allowgroups") and not named("allowgroups", account.groups):
        return (
            f"it is in none of AllowGroups {' '.join(sshd['allowgroups'])} but in {' '.join(account.groups) or 'no group'}. "
            f"Type: sudo usermod -aG {sshd['allowgroups'][0].split()[0]} {account.name}"
        )
    if one("passwordauthentication") == "yes" and account.name != "root":
        return ""
    if one("pubkeyauthentication") == "no":
        return "neither passwords nor keys are accepted"
    others = any(one(key) not in {"", "none"} for key in ("authorizedkeyscommand", "trustedusercakeys"))
    if not account.keys and not others:
        return (
            f"it has no public key in {' or '.join(account.looked_in) or 'any file'}, and passwords are not accepted. "
            f"Type on your machine: ssh-copy-id {account.name}@<host>"
        )
    return ""


def key_files(patterns: Iterable[str], name: str, home: str, uid: int) -> list[str]:
    """Resolve ``AuthorizedKeysFile`` for a user."""
    files = []
    tokens = {"%%": "%", "%h": home, "%u": name, "%U": str(uid)}
    for pattern in " ".join(patterns).split():
        if pattern == "none":
            continue
        path = re.sub("%.", lambda found: tokens.get(found[0], found[0]), pattern)
        files.append(path if path.startswith("/") else f"{home.rstrip('/')}/{path}")
    return files


def count_keys(text: str) -> int:
    """Count the public keys of an ``authorized_keys`` file."""
    return sum(1 for line in text.splitlines() if re.search(r"(?:^|\s)(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+\s+AAAA", line.partition("#")[0]))


def offered(packet: bytes) -> dict[str, list[str]]:
    """Read the first packet of an SSH server, in which it offers its algorithms, by the keywords of sshd_config.

    :raises ValueError: it is no such packet.
    """
    if len(packet) < 22 or packet[5] != 20:
        raise ValueError("not SSH_MSG_KEXINIT")
    position, names = 22, []
    for _list in range(6):
        (length,) = struct.unpack_from(">I", packet, position)
        position += 4
        names.append(packet[position : position + length].decode("ascii").split(","))
        position += length
    kex, keys, _to, ciphers, _mac_to, macs = names
    return {"kexalgorithms": [name for name in kex if name not in MARKERS], "hostkeys": keys, "ciphers": ciphers, "macs": macs}


def drift(running: Mapping[str, Sequence[str]], sshd: Mapping[str, Sequence[str]]) -> list[str]:
    """Name what the running server offers beside or without what its configuration says."""
    found = []
    for key in ("kexalgorithms", "ciphers", "macs"):
        configured = set((sshd.get(key) or [""])[0].split(","))
        now = set(running[key])
        if now != configured:
            found.append(f"{key}: {', '.join(sorted(now ^ configured))}")
    return found


def with_line(text: str, match: str, line: str) -> str:
    """Replace the first line that *match* finds, drop the further ones, append where there is none. An empty *line* removes."""
    pattern = re.compile(match)
    lines, placed = [], not line
    for old in text.splitlines():
        if not pattern.search(old):
            lines.append(old)
        elif not placed:
            lines.append(line)
            placed = True
    if not placed:
        lines.append(line)
    return "".join(f"{one}\n" for one in lines)
