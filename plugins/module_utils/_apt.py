# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install Debian packages, and know in milliseconds that there is nothing to install.

``ansible.builtin.apt`` loads python-apt and opens its cache, which takes about a second when nothing is to be done.
dpkg's own list answers the same question in a hundredth of that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

LISTS_MAXIMUM_AGE_S = 3600
LOCK_TIMEOUT_S = 300

Run = Callable[..., tuple[int, str, str]]
"""``AnsibleModule.run_command``: argv to exit code and both outputs."""


class AptError(Exception):
    """apt-get failed. The message holds its last words."""


def installed(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of *names* that are installed and configured."""
    try:
        status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = {}
    text = f"\n{status}"
    for name in names:
        # str.find, because a regular expression takes ten times as long over a file of megabytes.
        start = text.find(f"\nPackage: {name}\n")
        stanza = text[start:].partition("\n\n")[0] if start >= 0 else ""
        fields = dict(line.partition(": ")[::2] for line in stanza.splitlines() if not line.startswith(" "))
        if fields.get("Status", "").endswith(" ok installed"):
            found[name] = fields.get("Version", "")
    return found


def install(run: Run, names: Iterable[str]) -> None:
    """Install packages, after a fresh look at the archive where the lists are older than an hour.

    Changed configuration files are kept, recommended packages are left out, and another apt that runs is waited for.

    :raises AptError: a package could not be installed.
    """
    apt = ["apt-get", "--quiet=2", f"--option=DPkg::Lock::Timeout={LOCK_TIMEOUT_S}"]
    environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    if not _lists_are_fresh(Path("/var/lib/apt/lists")):
        _run(run, [*apt, "update"], environment)
    arguments = ["install", "--yes", "--no-install-recommends", "--option=Dpkg::Options::=--force-confold"]
    _run(run, [*apt, *arguments, "--", *names], environment)


def _lists_are_fresh(lists: Path) -> bool:
    try:
        index = [entry.stat().st_mtime for entry in os.scandir(lists) if entry.name.endswith(("Release", "_Packages"))]
        return bool(index) and time.time() - lists.stat().st_mtime < LISTS_MAXIMUM_AGE_S
    except OSError:
        return False


def _run(run: Run, argv: list[str], environment: dict[str, str]) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    code, output, errors = run(argv, environ_update=environment)
    # apt itself waits for dpkg's lock alone, not for those of its lists and of its downloads, which a first boot holds for minutes.
    while code and "Could not get lock" in errors + output and time.monotonic() < deadline:
        time.sleep(2)
        code, output, errors = run(argv, environ_update=environment)
    if code:
        words = "\n".join((errors.strip() or output.strip()).splitlines()[-8:])
        raise AptError(f"`{' '.join(argv)}` failed with {code}: {words}")
