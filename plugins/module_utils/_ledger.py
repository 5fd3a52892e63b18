# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of JSON lines in which each holds the hash of the one before it, so that no line changes, comes or goes unseen.

Nothing in the file protects its end: who cuts off the last lines, or writes all of them anew, leaves a chain that fits. That is why the controller
and every host have one, and each holds hashes of the other's lines.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONTROLLER_PATH = "~/.local/state/berth/ledger.jsonl"
HOST_PATH = "/var/lib/berth/ledger.jsonl"

START, END, KEPT = "start", "end", "kept"
"""The lines that a run leaves on the controller: it began, it ended, and which hosts wrote its end down. Hosts have the end only."""

# A run changes some tasks, or it makes a host from nothing: the names of the first ones say enough.
MOST_TASKS = 50
# Of these the status compares what the controller and a host have.
MOST_LINES = 50
_BLOCK = 64 * 1024


def controller() -> str:
    """Return what this controller is called. Jobs of AWX run in a container each, with a name of its own, and are of one controller."""
    return os.environ.get("AWX_HOST") or socket.gethostname()


def digest(line: bytes) -> str:
    """Return the hash of a line, without its end."""
    return hashlib.sha256(line).hexdigest()


def _last_line(file: Any) -> bytes:
    """Return the last line of a file that is open for reading, without its end; empty for an empty file."""
    position = file.seek(0, os.SEEK_END)
    tail = b""
    while position and b"\n" not in tail.rstrip(b"\n"):
        step = min(_BLOCK, position)
        position = file.seek(position - step)
        tail = file.read(step) + tail
    return tail.rstrip(b"\n").rpartition(b"\n")[2]


def append(path: Path, record: Mapping[str, Any]) -> str:
    """Write one record to the end of a ledger, and wait until the disk has it. Others that write at the same time wait.

    Args:
        path: The file; it and its directory are made when they are not there.
        record: What to write, as JSON; C(previous) is added.

    Returns:
        The hash of the new line.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        last = _last_line(file)
        line = json.dumps({**record, "previous": digest(last) if last else ""}, sort_keys=True, ensure_ascii=False).encode()
        size = file.seek(0, os.SEEK_END)
        # A machine that lost its power in the middle of a line left one without an end. It stays, and is named when the chain is read.
        whole = not size or os.pread(file.fileno(), 1, size - 1) == b"\n"
        file.write((b"" if whole else b"\n") + line + b"\n")
        os.fsync(file.fileno())
    return digest(line)


def read(path: Path) -> list[bytes]:
    """Return the lines of a ledger, without their ends; none when it is not there. Raises OSError."""
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []


def parse(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None when it has none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def broken(lines: Sequence[bytes]) -> list[str]:
    """Return where a chain does not hold, one sentence each; empty when it does."""
    found = []
    before = ""
    for number, line in enumerate(lines, 1):
        record = parse(line)
        if record is None:
            found.append(f"line {number} is no record: it was changed, or a machine lost its power while it was written")
        elif record.get("previous") != before:
            found.append(
                f"line {number} does not follow the one before it: that one was changed, or lines between them were removed or inserted"
                if number > 1
                else "line 1 is not the first that was written: the beginning was removed"
            )
        before = digest(line)
    return found


def latest(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return of the last runs in a host's ledger what :func:`disagreements` wants to know, with C(digest), the hash of the line."""
    wanted = ("controller", "ledger", "line", "playbook", "time", "user")
    return [{**{key: (parse(line) or {}).get(key, "") for key in wanted}, "digest": digest(line)} for line in lines[-MOST_LINES:]]


def disagreements(lines: Sequence[bytes], path: str, controller: str, hosts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return what the ledgers of hosts say against the controller's, and the other way round.

    Args:
        lines: the controller's.
        path: where the controller has it.
        controller: name of the controller.
        hosts: host name → what :func:`latest` says of its ledger. Hosts that were not read are not judged.
    """
    known = {digest(line) for line in lines}
    found = [
        f"{host}: its ledger has a run of {run['user']} at {run['time']} ({run['playbook']}) that {path} on this controller lacks:"
        " lines were removed or changed here"
        for host, runs in hosts.items()
        for run in runs
        if (run["controller"], run["ledger"]) == (controller, path) and run["line"] not in known
    ]
    kept: dict[str, Mapping[str, Any]] = {}
    for record in filter(None, map(parse, lines)):
        if record.get("event") == KEPT:
            kept.update(dict.fromkeys(record.get("hosts") or {}, record))
    for host, told in kept.items():
        runs = hosts.get(host)
        if runs is None or (len(runs) == MOST_LINES and runs[0]["time"] > told["time"]):
            continue
        if told["hosts"][host] not in {run["digest"] for run in runs}:
            found.append(
                f"{host}: its ledger lacks the run that ended at {told['time']} and was written there: lines were removed or changed on the host"
            )
    return found
