# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done for a member of an etcd cluster."""

from __future__ import annotations

import json

from ansible_collections.berth.odoo.plugins.module_utils._etcd import Member, changes, initial_cluster, parse_members

DB1 = Member("33a4f35e43f0f277", "db1", "https://db1-etcd:2380")
DB2 = Member("c6cb60a3f913eee7", "db2", "https://db2-etcd:2380")
WAITING = Member("cd8813b323360bc4", "", "https://db3-etcd:2380", learner=True)
URL = "https://db3-etcd:2380"


def arguments(members: list[Member], name: str, url: str, state: str) -> list[tuple[str, ...]]:
    return [action.arguments for action in changes(members, name, url, state)]


def test_members_as_etcd_3_5_prints_them() -> None:
    """The shape that etcdctl 3.5.16 prints: a member that has not started has no name and no client address."""
    text = json.dumps(
        {
            "header": {"cluster_id": 9588216459187577856, "member_id": int(DB1.id, 16), "raft_term": 2},
            "members": [
                {"ID": int(DB1.id, 16), "name": "db1", "peerURLs": [DB1.peer_url], "clientURLs": ["https://db1-etcd:2379"]},
                {"ID": int(WAITING.id, 16), "peerURLs": [WAITING.peer_url], "isLearner": True},
            ],
        }
    )
    assert parse_members(text) == [DB1, WAITING]


def test_a_new_member_is_added_once() -> None:
    assert arguments([DB1, DB2], "db3", URL, "blank") == [("add", "db3", f"--peer-urls={URL}", "--learner")]
    assert arguments([DB1, DB2, WAITING], "db3", URL, "blank") == []
    assert initial_cluster([DB1, WAITING], "db3", URL) == f"db1={DB1.peer_url},db3={URL}"


def test_a_blank_machine_takes_the_place_of_its_predecessor() -> None:
    assert arguments([DB1, DB2], "db2", DB2.peer_url, "blank") == [
        ("remove", DB2.id),
        ("add", "db2", f"--peer-urls={DB2.peer_url}", "--learner"),
    ]


def test_a_member_that_was_alone_gets_an_address_for_others() -> None:
    alone = Member(DB1.id, "db1", "https://etcd:2380")
    assert arguments([alone], "db1", DB1.peer_url, "voting") == [("update", DB1.id, f"--peer-urls={DB1.peer_url}")]
    assert arguments([DB1], "db1", DB1.peer_url, "voting") == []


def test_an_interrupted_join_goes_on() -> None:
    learner = Member("cd8813b323360bc4", "db3", URL, learner=True)
    assert arguments([DB1, learner], "db3", URL, "joining") == []
    assert arguments([DB1, learner], "db3", URL, "voting") == [("promote", learner.id)]
    assert arguments([DB1, learner._replace(learner=False)], "db3", URL, "joining") == []
    assert arguments([DB1], "db3", URL, "joining") == [("add", "db3", f"--peer-urls={URL}", "--learner")]


def test_leaving() -> None:
    assert arguments([DB1, DB2], "db2", DB2.peer_url, "absent") == [("remove", DB2.id)]
    assert arguments([DB1, WAITING], "db3", URL, "absent") == [("remove", WAITING.id)]
    assert arguments([DB1], "db2", DB2.peer_url, "absent") == []
