#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_member
short_description: Let a member join an etcd cluster, leave it, or change its address
version_added: 0.1.0
description:
  - Runs on a host whose etcd container belongs to the cluster, and works on any member. etcd refuses what would lose the quorum.
  - Data directories and containers are left alone.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Predicts.
    support: full
  diff_mode:
    description: Shows the members before and after.
    support: full
  idempotent:
    description: A second run changes nothing. With O(state=blank) that holds until the member has started.
    support: full
options:
  name:
    description: Name of the member.
    type: str
    required: true
  peer_url:
    description: Where the other members reach it.
    type: str
    required: true
  state:
    description:
      - V(voting), it is a member that runs; its O(peer_url) is made right, and it gets a vote as soon as it has caught up.
      - V(blank), it has no data and is to join, without a vote yet. A member of its name is its predecessor, whose data is gone, and is removed
        first. Start it with RV(initial_cluster) then.
      - V(joining), the same for one that has data, because an earlier run started it and did not come to its end.
      - V(absent), it is removed.
    type: str
    choices: [voting, blank, joining, absent]
    default: voting
  timeout:
    description: Seconds that it may take to catch up, and an election to end.
    type: int
    default: 180
  project:
    description: Compose project of etcd on this host.
    type: str
    default: etcd
  service:
    description: Its service.
    type: str
    default: etcd
seealso:
  - module: berth.odoo.compose_project
"""

EXAMPLES = r"""
- name: Let db3 join
  berth.odoo.etcd_member:
    name: db3
    peer_url: https://db3-etcd:2380
    state: blank
  delegate_to: db1
  register: __joining
"""

RETURN = r"""
initial_cluster:
  description: Value of etcd's setting C(initial-cluster) with which the member has to start, C(initial-cluster-state) being C(existing).
  returned: always
  type: str
  sample: db1=https://db1-etcd:2380,db3=https://db3-etcd:2380
steps:
  description: What was done, or would be in check mode, in its order.
  returned: always
  type: list
  elements: str
  sample: [add member db3 at https://db3-etcd:2380]
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._etcd import Member, changes, initial_cluster, parse_members
from ..module_utils._psql import PsqlError, find_container

INTERVAL = 0.5
Wanted = tuple[str, str, str]
"""Name, address for peers and state of a member."""


PASSING = ("in sync with leader", "leader changed", "timed out", "deadline exceeded", "unhealthy cluster")
"""Words of refusals that end by themselves: a member catches up, an election ends, a peer that was connected anew counts as healthy after 5 s."""
RECONNECTED = 15.0
"""Seconds after which an unhealthy cluster stays one."""


class EtcdError(Exception):
    """etcd refused or did not answer. The message holds its words.

    Args:
        message: For a person.
        words: What etcdctl said.
    """

    def __init__(self, message: str, words: str = "") -> None:
        super().__init__(message)
        self.passes = any(passing in words for passing in PASSING)
        self.unhealthy = "unhealthy cluster" in words


def etcdctl(client: DockerClient, container: str, *arguments: str) -> str:
    """Run C(etcdctl member) in the container, whose environment says where and with which certificate."""
    done = client.exec(container, ["etcdctl", "--command-timeout=10s", "member", *arguments])
    if done.rc != 0:
        words = (done.stderr or done.stdout).strip()
        if arguments[0] == "remove" and "unhealthy cluster" in words:
            raise EtcdError(
                "etcd does not let it go: of the members that stay too few run for a majority. Start them first (berth.odoo.status)", words
            )
        last = words.splitlines()[-1] if words else "no output"
        raise EtcdError(f"etcdctl member {arguments[0]} ended with {done.rc}: {last}. Type: docker logs --tail 20 etcd-etcd-1", words)
    return done.stdout


def read_members(client: DockerClient, container: str) -> list[Member]:
    """Return the present members. Raises EtcdError."""
    return parse_members(etcdctl(client, container, "list", "--write-out=json"))


def carry_out(client: DockerClient, container: str, wanted: Wanted, timeout: float) -> list[Member]:
    """Make a member what it shall be, and return all members afterwards.

    What is left to do is read anew before each step: a command that timed out may have been carried out.

    Raises:
        EtcdError: etcd refused, and not for a moment only.
    """
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        try:
            members = read_members(client, container)
            left = changes(members, *wanted)
            if not left:
                return members
            if waited > timeout:
                raise EtcdError(f"etcd took every command and still differs: {'; '.join(step.text for step in left)}")
            etcdctl(client, container, *left[0].arguments)
        except EtcdError as error:
            if not error.passes or waited > (min(timeout, RECONNECTED) if error.unhealthy else timeout):
                raise
            time.sleep(INTERVAL)


def describe(members: list[Member]) -> str:
    """Return the members as lines for a diff."""
    return "".join(f"{member.name or '(not started)'} {member.peer_url}\n" for member in sorted(members, key=lambda one: one.peer_url))


def main() -> None:
    """Module entry."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "peer_url": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["voting", "blank", "joining", "absent"], "default": "voting"},
            "timeout": {"type": "int", "default": 180},
            "project": {"type": "str", "default": "etcd"},
            "service": {"type": "str", "default": "etcd"},
        },
        supports_check_mode=True,
    )
    options = module.params
    wanted: Wanted = (options["name"], options["peer_url"], options["state"])
    try:
        client = DockerClient(timeout=30)
        container = find_container(client, options["project"], options["service"], optional=False).id
        before = after = read_members(client, container)
        steps = changes(before, *wanted)
        if steps and not module.check_mode:
            after = carry_out(client, container, wanted, options["timeout"])
    except (EtcdError, PsqlError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"etcd member {options['name']}: {error}")
    module.exit_json(
        changed=bool(steps),
        steps=[step.text for step in steps],
        initial_cluster=initial_cluster(after, *wanted[:2]),
        diff={"before": describe(before), "after": describe(after)},
    )


if __name__ == "__main__":
    main()
