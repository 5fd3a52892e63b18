# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another apt is waited for, and nothing else is; the words of apt are those of Debian 13."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _apt as apt

LOCKED = (
    "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 2120 (apt-get)\nE: Unable to lock directory /var/lib/apt/lists/\n"
)


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(apt, "time", clock)
    monkeypatch.setattr(apt, "_lists_are_fresh", lambda lists: False)
    return clock


@pytest.mark.parametrize("verb", ["update", "install"])
def test_another_apt_is_waited_for(clock: Clock, verb: str) -> None:
    calls: list[str] = []

    def run(argv: list[str], **_options: Any) -> tuple[int, str, str]:
        calls.append(argv[3])
        return (100, "", LOCKED) if argv[3] == verb and clock.now < 60 else (0, "", "")

    apt.install(run, ["hello"])
    assert list(dict.fromkeys(calls)) == ["update", "install"] and calls.count(verb) == 31


def test_one_that_does_not_end_is_named(clock: Clock) -> None:
    with pytest.raises(apt.AptError, match="held by process 2120"):
        apt.install(lambda argv, **_options: (100, "", LOCKED), ["hello"])
    assert 300 <= clock.now < 310


def test_what_is_wrong_fails_at_once(clock: Clock) -> None:
    with pytest.raises(apt.AptError, match="Unable to locate"):
        apt.install(lambda argv, **_options: (100, "", "E: Unable to locate package helo"), ["helo"])
    assert clock.now == 0
