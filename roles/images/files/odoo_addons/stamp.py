# SPDX-License-Identifier: GPL-3.0-or-later
"""Give every file below a directory a time that says what is in it, and compile the Python among them.

Odoo names an asset bundle after the times of its files. With the time of the build two builds of the same code would destroy each other's
bundles; with one fixed time changed code would keep the name of what browsers have already.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import sys
from pathlib import Path

# Between 2001 and 2023: in the past for every browser, and far from what programs take for "no time".
EARLIEST = 1_000_000_000
SPAN = 700_000_000


def time_of(content: bytes) -> int:
    """Return seconds since 1970 that differ with the content, but for one pair of contents in 700 million."""
    return EARLIEST + int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % SPAN


def stamp(root: Path) -> None:
    """Set the times of everything below a directory. Raises OSError."""
    for directory, _below, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(directory, name)
            seconds = EARLIEST if path.is_symlink() else time_of(path.read_bytes())
            os.utime(path, (seconds, seconds), follow_symlinks=False)
        os.utime(directory, (EARLIEST, EARLIEST))


if __name__ == "__main__":
    tree = Path(sys.argv[1])
    stamp(tree)
    # Compiled once here and not at each start of a container that may not write. What does not compile, such as a template that ends in
    # .py, is left to whoever imports it: the contract check imports every module.
    compileall.compile_dir(
        tree, quiet=2, stripdir=str(tree), prependdir="/", invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, force=True
    )
    stamp(tree)
