# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which etcd member becomes the leader when PostgreSQL's primary is on the machine of the present one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[3] / "roles/postgresql/files/move_etcd_leader.py"
spec = importlib.util.spec_from_file_location("move_etcd_leader", FILE)
assert spec and spec.loader
program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)

A, B, C = 0xA1, 0xB2, 0xC3


def member(address: str, identifier: int, leader: int, index: int = 100, **more: Any) -> dict[str, Any]:
    """An entry as etcdctl 3.5 prints it."""
    status = {"header": {"member_id": identifier}, "leader": leader, "raftIndex": index, **more}
    return {"Endpoint": f"https://{address}:2379", "Status": status}


def test_the_leader_beside_the_primary_hands_over_to_the_most_advanced() -> None:
    status = [member("10.0.0.1", A, A), member("10.0.0.2", B, A, 98), member("10.0.0.3", C, A, 99)]
    assert program.choose(status, "10.0.0.1") == ("https://10.0.0.1:2379", "c3")


def test_a_leader_elsewhere_stays() -> None:
    status = [member("10.0.0.1", A, B), member("10.0.0.2", B, B), member("10.0.0.3", C, B)]
    assert program.choose(status, "10.0.0.1") is None


def test_learners_and_members_with_errors_are_passed_over() -> None:
    status = [member("10.0.0.1", A, A), member("10.0.0.2", B, A, 99, isLearner=True), member("10.0.0.3", C, A, 90, errors=["no space"])]
    assert program.choose(status, "10.0.0.1") is None


def test_one_member_alone_keeps_it() -> None:
    assert program.choose([member("etcd", A, A)], "postgresql") is None
    assert program.choose([member("10.0.0.1", A, A)], "10.0.0.1") is None
