# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed copies of contents, as files that the checksum of the content names. Knows nothing of Odoo."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_logger = logging.getLogger(__name__)

SQUEEZE = Path(__file__).with_name("squeeze.py")
DAY = 86400
KEPT_DAYS = 30
"""How long a copy stays that nobody asked for. One that is asked for again is made again."""

PAUSE = 3600.0
"""Seconds for which a process makes no copies after one failed: a disk that is full stays so for a while."""


def takes_brotli(header: str) -> bool:
    """Whether a client says that it understands brotli.

    Args:
        header: its C(Accept-Encoding). C(*) is not enough: who says that may not know what it would get.
    """
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name == "br":
            quality = next((value for value in parameters if value.startswith("q=")), "q=1")
            try:
                return float(quality[2:]) > 0
            except ValueError:
                return False
    return False


class Copies:
    """The copies in one directory, which several processes and containers of a host may share."""

    def __init__(self, directory: Path) -> None:
        """Touch nothing yet."""
        self._directory = directory
        self._wanted: set[str] = set()
        self._turn = threading.Lock()
        self._paused_until = float("-inf")

    def find(self, name: str) -> Path | None:
        """Return the copy of a content, None where there is none. It is noted that somebody needs it, once a day.

        Args:
            name: checksum of the content, SHA-1 in hexadecimal.
        """
        file = self._directory / f"{name}.br"
        try:
            if time.time() - file.stat().st_mtime > DAY:
                # The time of the last access is not written everywhere.
                with contextlib.suppress(OSError):
                    os.utime(file)
        except OSError:
            return None
        return file

    def want(self, name: str, content: Callable[[], bytes]) -> None:
        """Let the copy of a content be made, and do not wait for it.

        Args:
            name: checksum of the content.
            content: returns it.
        """
        if name in self._wanted or time.monotonic() < self._paused_until:
            return
        self._wanted.add(name)
        # Nobody waits for it, also not when this process ends: what it has begun then ends, too.
        thread = threading.Thread(name=f"Copy of {name}", target=self._work, args=[name, content], daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # As many threads as there may be. Who asks next tries again.
            self._wanted.discard(name)

    def _work(self, name: str, content: Callable[[], bytes]) -> None:
        """Make a copy, after those that this process makes already. What fails is said once, and the others wait with it."""
        with self._turn:
            try:
                if time.monotonic() >= self._paused_until:
                    self._make(name, content)
            except (OSError, RuntimeError, MemoryError, subprocess.SubprocessError) as error:
                self._paused_until = time.monotonic() + PAUSE
                words = f"{type(error).__name__}: {error}"
                _logger.warning("A bundle cannot be compressed beforehand (%s). It is served as before, and tried again in an hour", words)
            finally:
                self._wanted.discard(name)

    def _make(self, name: str, content: Callable[[], bytes]) -> None:
        """Make a copy unless another process has made it, one at a time on this host. Raises OSError, RuntimeError."""
        self._directory.mkdir(mode=0o750, exist_ok=True)
        lock = os.open(self._directory, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.find(name):
                self._compress(name, content())
                self._forget()
        finally:
            os.close(lock)

    def _compress(self, name: str, content: bytes) -> None:
        """Compress a content in a process of its own, whose processor time and memory are not this one's. Raises OSError, RuntimeError."""
        part = self._directory / "part"
        # A new file: of one that a process left which was killed, the process that wrote it may not be gone yet.
        part.unlink(missing_ok=True)
        try:
            with part.open("xb") as file:
                command = [sys.executable, "-I", str(SQUEEZE), name, str(os.getpid())]
                done = subprocess.run(command, input=content, stdout=file, stderr=subprocess.PIPE, check=False)
                if done.returncode:
                    words = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
                    raise RuntimeError(words[-1])
                os.fsync(file.fileno())
            part.rename(self._directory / f"{name}.br")
        finally:
            part.unlink(missing_ok=True)

    def _forget(self) -> None:
        """Remove the copies that nobody has needed for long, as those of a release that was replaced."""
        oldest = time.time() - KEPT_DAYS * DAY
        for file in self._directory.glob("*.br"):
            if file.stat().st_mtime < oldest:
                file.unlink()
