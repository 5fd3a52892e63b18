# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compress what comes in with brotli, with nothing but what others leave: a program, which ``copies.py`` starts.

Its arguments are the content's checksum and the parent's process id. It never ends with 3: Odoo's first process stops everything when a process ends so.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import resource
import signal
import sys
from pathlib import Path

QUALITY = 10
"""Of 11, which makes Odoo's program another 2 % smaller in twice the time."""

WINDOW = 24
"""Two to this power, in bytes, is how far back it looks. More than a bundle has."""

PR_SET_PDEATHSIG = 1


def yield_to_others(parent: int) -> None:
    """Take the processor when it is idle, end with the parent, and when memory is short be the one that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before that was said.
        sys.exit(1)
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
        # The parent's own, for one request.
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (hard, hard))
    os.nice(19)
    # Not every system has or allows the rest.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main() -> None:
    """Compress."""
    yield_to_others(int(sys.argv[2]))
    import brotli

    content = sys.stdin.buffer.read()
    # Browsers keep it for a year: what was cut or damaged on the way must not become one.
    if hashlib.sha1(content, usedforsecurity=False).hexdigest() != sys.argv[1]:
        sys.exit("what came in is not what its checksum says")
    compressed = brotli.compress(content, quality=QUALITY, lgwin=WINDOW)
    if brotli.decompress(compressed) != content:
        sys.exit("what was compressed is not what came in")
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(compressed)


if __name__ == "__main__":
    main()
