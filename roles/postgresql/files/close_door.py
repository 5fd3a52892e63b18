# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Called by Patroni before it stops PostgreSQL: let nobody new in over the network, and give transactions that run a moment to end.

PostgreSQL ends every connection when it stops. Poolers that see a closed door let their clients wait first, so that nobody is in the middle of
something. Patroni writes pg_hba.conf anew at each start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

# A moment in which the poolers look twice. Longer for those that are busy: but a primary that was cut off must be gone before its lease is.
LEAST_S, MOST_S = 0.8, 2.0
KEPT = ("local", "hostssl replication", "hostssl postgres rewind")

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle' AND client_addr IS NOT NULL"


def sql(query: str) -> str:
    """Return the answer of the local server."""
    argv = ["psql", "--host=/run/postgresql", "--username=postgres", "--dbname=postgres", "--no-psqlrc", "--tuples-only", "--no-align"]
    done = subprocess.run([*argv, "--command", query], capture_output=True, text=True, timeout=MOST_S, check=True)
    return done.stdout.strip()


def closed(rules: str) -> str:
    """Return pg_hba.conf without the rules that let clients in; members of the cluster keep theirs."""
    return "".join(f"{line}\n" for line in rules.splitlines() if line.startswith(KEPT))


def main() -> int:
    """Close the door of a primary; a standby has no clients."""
    began = time.monotonic()
    try:
        recovering, file = sql("SELECT pg_is_in_recovery()::text || ' ' || current_setting('hba_file')").split(" ", 1)
        if recovering != "false":
            return 0
        with open(file, encoding="utf-8") as current:
            rules = closed(current.read())
        # Replaced at once: half a file would be refused as a whole.
        with open(f"{file}.closed", "w", encoding="utf-8") as new:
            new.write(rules)
        os.chmod(f"{file}.closed", 0o600)
        os.replace(f"{file}.closed", file)
        sql("SELECT pg_reload_conf()")
        while time.monotonic() < began + LEAST_S or (time.monotonic() < began + MOST_S and sql(BUSY) != "0"):
            time.sleep(0.05)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # It is stopped all the same; clients notice.
        print(f"close_door: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
