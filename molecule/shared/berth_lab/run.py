# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands of the machine that carries the labs, and the one error type of this package."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


class LabError(Exception):
    """Something a person has to act on. The text says what was found, what was expected and what to type."""


class CommandError(LabError):
    """A command ended with a non-zero code or ran out of time.

    Attributes:
        returncode: exit code, None when the command was stopped for taking too long.
        output: what it wrote (standard output, then standard error), stripped.
    """

    def __init__(self, argv: Sequence[str], returncode: int | None, output: str) -> None:
        """Describe a command that failed."""
        self.returncode = returncode
        self.output = output
        ending = "did not end in time" if returncode is None else f"ended with code {returncode}"
        super().__init__(f"The command `{' '.join(argv)}` {ending}:\n{output or '(no output)'}")


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60,
    stdin: bytes | str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command without a shell and return what it wrote to standard output.

    Args:
        argv: program and arguments.
        timeout: seconds until the command is killed.
        stdin: what the command reads; nothing when None.
        env: the whole environment; the caller's when None.

    Raises:
        CommandError: the command failed, was not found or took longer than ``timeout``.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(list(argv), input=data or b"", capture_output=True, timeout=timeout, env=env, check=False)
    except FileNotFoundError as error:
        raise CommandError(argv, 127, str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, None, _text(error.stdout) + _text(error.stderr)) from error
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, (_text(done.stdout) + _text(done.stderr)).strip())
    return _text(done.stdout)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
