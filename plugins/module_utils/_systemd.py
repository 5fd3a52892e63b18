# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask and command systemd with as few processes as possible."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

Run = Callable[..., tuple[int, str, str]]
"""``AnsibleModule.run_command``."""

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "ConditionResult",
    "ConditionTimestamp",
    "MainPID",
    "ActiveEnterTimestamp",
    "InactiveEnterTimestamp",
    "Type",
    "RemainAfterExit",
)


class SystemdError(Exception):
    """A unit did not do what it was told. The message holds systemd's words and the unit's own."""


class Unit(NamedTuple):
    """State of a unit."""

    load: str
    """``loaded``, ``not-found`` or ``masked``."""
    active: str
    enabled: str
    condition: bool
    """False when the unit's own conditions forbid it to run here, e.g. a clock in a container."""
    pid: int
    since: float
    """When it became active, in whole seconds since 1970; 0 when it is not. Of what ends (``ends``), when it ended."""
    ends: bool = False
    """It does its work and is inactive after that, so that inactive does not mean that it has to be started."""


def parse(output: str) -> dict[str, Unit]:
    """Read the answer of ``systemctl show --timestamp=unix`` for several units."""
    units = {}
    for block in output.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if values.get("Id"):
            ends = values.get("Type") == "oneshot" and values.get("RemainAfterExit") == "no"
            units[values["Id"]] = Unit(
                load=values.get("LoadState", ""),
                active=values.get("ActiveState", ""),
                enabled=values.get("UnitFileState", ""),
                # A unit that was never started says "no" too, without a time.
                condition=values.get("ConditionResult") != "no" or not values.get("ConditionTimestamp"),
                pid=int(values.get("MainPID") or 0),
                since=float(values.get("InactiveEnterTimestamp" if ends else "ActiveEnterTimestamp", "").lstrip("@") or 0),
                ends=ends,
            )
    return units


def show(run: Run, names: Iterable[str]) -> dict[str, Unit]:
    """Return the state of several units in one call."""
    argv = ["systemctl", "show", "--timestamp=unix", f"--property={','.join(PROPERTIES)}", "--", *names]
    code, output, errors = run(argv)
    if code:
        raise SystemdError(f"`{' '.join(argv)}` failed: {errors.strip()}")
    return parse(output)


def last_words(log: str) -> str:
    """Pick from a unit's log the lines that say why it failed, or its last ones."""
    lines = log.strip().splitlines()
    telling = [line for line in lines if re.search(r"level=(error|fatal)|\b(failed|cannot|error)\b", line, re.IGNORECASE)]
    return "\n".join((telling or lines)[-5:])


def command(run: Run, verb: str, *units: str) -> None:
    """Run ``systemctl``.

    :raises SystemdError: it failed; the message ends with what the first unit had to say.
    """
    code, _output, errors = run(["systemctl", *verb.split(), *units])
    if code:
        run(["journalctl", "--sync"])
        _code, log, _errors = run(["journalctl", "--no-pager", "--output=cat", "--lines=30", f"--unit={units[0]}"])
        raise SystemdError(f"systemctl {verb} {' '.join(units)}: {errors.strip()}\n{last_words(log)}".strip())
