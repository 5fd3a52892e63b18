# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of an etcd cluster: from C(etcdctl member list) to what has to be done. Pure functions: no Ansible import, no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple


class Member(NamedTuple):
    """One member of the cluster."""

    id: str
    """In hexadecimal, as etcdctl's commands take it."""
    name: str
    """Empty until it has started for the first time."""
    peer_url: str
    learner: bool = False
    """Gets the data and has no vote yet."""


class Action(NamedTuple):
    """One call of etcdctl."""

    text: str
    """What it does, for people."""
    arguments: tuple[str, ...]


def parse_members(text: str) -> list[Member]:
    """Return the members from the output of ``etcdctl member list --write-out=json`` (etcd 3.5)."""
    return [
        Member(f"{entry['ID']:x}", entry.get("name", ""), entry["peerURLs"][0], bool(entry.get("isLearner")))
        for entry in json.loads(text)["members"]
    ]


def changes(members: Sequence[Member], name: str, peer_url: str, state: str) -> list[Action]:
    """Return what has to be done for one member.

    Args:
        members: The present members.
        name: The member's name.
        peer_url: Where the others reach it.
        state: ``voting``, it is a member that runs, only its address may have changed and its vote be missing; ``blank``, it has no data and is
            to join, so that a member of its name can only be its predecessor; ``joining``, the same with data, as an interrupted run leaves it;
            ``absent``.
    """
    named = [member for member in members if member.name == name]
    # One that was added and has not started yet has no name.
    waiting = [member for member in members if not member.name and member.peer_url == peer_url]
    if state == "voting":
        return [
            *(
                Action(
                    f"member {name}: peer address {member.peer_url} becomes {peer_url}", ("update", member.id, f"--peer-urls={peer_url}")
                )
                for member in named
                if member.peer_url != peer_url
            ),
            *(Action(f"member {name} gets a vote", ("promote", member.id)) for member in named if member.learner),
        ]
    if state == "joining" and named:
        return []
    removed = [Action(f"remove member {name} ({member.id})", ("remove", member.id)) for member in named]
    if state == "absent":
        return [
            *removed,
            *(Action(f"remove member {name} ({member.id}), which never started", ("remove", member.id)) for member in waiting),
        ]
    # Without a vote at first: the cluster must not lose its quorum while it waits for a member that has never run.
    added = Action(f"add member {name} at {peer_url}", ("add", name, f"--peer-urls={peer_url}", "--learner"))
    return [*removed, *([] if waiting else [added])]


def initial_cluster(members: Sequence[Member], name: str, peer_url: str) -> str:
    """Return etcd's setting ``initial-cluster`` for a member that joins: every member, it included."""
    return ",".join(f"{member.name or name}={member.peer_url}" for member in members if member.name or member.peer_url == peer_url)
