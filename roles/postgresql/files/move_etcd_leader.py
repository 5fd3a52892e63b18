# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Called by Patroni with ACTION ROLE CLUSTER: keep etcd's leader off the machine of PostgreSQL's primary.

When both die together, etcd has to elect a leader before it can say that the primary's lease is over: about six seconds more without a primary (measured with
three members). The etcd member beside this one is named by BERTH_ETCD_MEMBER; one member alone has nowhere to move it to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

# A new primary often means that etcd has just lost its leader too.
PATIENCE_S = 30


def etcdctl(*arguments: str, endpoint: str = "") -> str:
    """Run etcdctl, against all members or one of them, and return what it printed."""
    # A variable and not an option: etcdctl refuses to have both.
    environment = {**os.environ, **({"ETCDCTL_ENDPOINTS": endpoint} if endpoint else {})}
    done = subprocess.run(["etcdctl", "--command-timeout=3s", *arguments], capture_output=True, text=True, check=False, env=environment)
    # With one member down it ends with 1 and still prints what the others said.
    if not done.stdout.strip():
        raise OSError(done.stderr.strip() or f"etcdctl {arguments[0]} ended with {done.returncode}")
    return done.stdout


def choose(status: list[dict[str, Any]], name: str) -> tuple[str, str] | None:
    """Return (endpoint of the leader, id of the member to make leader, in hexadecimal), None when nothing has to be moved.

    Args:
        status: what ``etcdctl endpoint status --write-out=json`` printed.
        name: name of this machine's etcd member, as in the endpoints.
    """
    members = {entry["Endpoint"]: entry["Status"] for entry in status if entry.get("Status")}
    here = next((endpoint for endpoint in members if endpoint.split("//")[-1].rpartition(":")[0] == name), None)
    if here is None or members[here]["leader"] != members[here]["header"]["member_id"]:
        return None
    others = [one for endpoint, one in members.items() if endpoint != here and not one.get("isLearner") and not one.get("errors")]
    # The one whose log is the furthest.
    best = max(others, key=lambda one: one["raftIndex"], default=None)
    return (here, f"{best['header']['member_id']:x}") if best else None


def main() -> int:
    """Move the leader when it is here and this is the primary."""
    _program, action, role, *_cluster = sys.argv
    if role not in ("primary", "master"):
        return 0
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            move = choose(json.loads(etcdctl("endpoint", "status", "--write-out=json")), os.environ["BERTH_ETCD_MEMBER"])
            if move:
                endpoint, member = move
                answer = etcdctl("move-leader", member, endpoint=endpoint)
                sys.stdout.write(f"{action}: {answer}")
            return 0
        except (OSError, ValueError, KeyError) as error:
            if time.monotonic() > deadline:
                sys.stderr.write(f"{action}: etcd's leader may be on the primary's machine still: {error}\n")
                return 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
