#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster_info
short_description: Read the state of a PostgreSQL cluster from one of its hosts
version_added: 0.1.0
description:
  - Asks the Patroni of this host for the cluster and its configuration, and every other member for its own view, over TLS.
  - Members that do not answer, and an etcd that does not, are problems that are reported and no failure. It fails when the
    Patroni of this host cannot be asked.
  - While etcd is away Patroni answers from a copy of it for some time; RV(dcs_error) says so. After that only this host's member is
    known, and what comes from the shared configuration (such as RV(synchronous_mode) and RV(expected_stall)) is V(null).
author: [berth.odoo contributors (@berth-odoo)]
extends_documentation_fragment: [berth.odoo.patroni]
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
seealso:
  - module: berth.odoo.postgresql_cluster
  - module: berth.odoo.patroni_config
"""

EXAMPLES = r"""
- name: Read the cluster
  berth.odoo.postgresql_cluster_info:
  register: __cluster

- name: Stop when something is wrong with it
  ansible.builtin.assert:
    that: __cluster.problems is falsy
    fail_msg: "{{ __cluster.problems | join('; ') }}"
"""

RETURN = r"""
cluster_name:
  description: Name of the cluster (Patroni's scope).
  returned: always
  type: str
  sample: berth
system_identifier:
  description: PostgreSQL's identifier of the data, the same on all members; V(null) before there is any.
  returned: always
  type: str
member:
  description: Name of the member on this host.
  returned: always
  type: str
leader:
  description: Name of the member that leads; V(null) when nobody does, or when etcd does not say.
  returned: always
  type: str
members:
  description: Every member. After etcd has been away for some time, only the one on this host.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: "Name."
      type: str
    role:
      description: "One of C(leader), C(replica), C(sync_standby), C(quorum_standby) and C(standby_leader)."
      type: str
    host:
      description: "Address of its PostgreSQL."
      type: str
    port:
      description: "Port of its PostgreSQL."
      type: int
    state:
      description: "C(running) for a leader, C(streaming) for others; anything else is a problem."
      type: str
    timeline:
      description: "Timeline of its WAL."
      type: int
    lag_bytes:
      description: "Bytes of WAL by which it was behind when it last told etcd; V(null) for a leader and when unknown."
      type: int
    receive_lag_bytes:
      description: "Bytes of WAL that it has not received now; V(null) for a leader and when unknown."
      type: int
    replay_lag_bytes:
      description: "Bytes of WAL that it has not repeated now; V(null) for a leader and when unknown."
      type: int
    wal_position:
      description: "Position to which it has written or received WAL, in bytes; V(null) when unknown."
      type: int
    pending_restart:
      description: "Whether parameters wait for a restart."
      type: bool
    pending_restart_reason:
      description: "Which ones, each with C(old_value) and C(new_value)."
      type: dict
    tags:
      description: "Patroni's tags of the member."
      type: dict
    writable:
      description: "Whether it says itself that it accepts writes."
      type: bool
    paused:
      description: "Whether it says itself that Patroni is paused."
      type: bool
    started_at:
      description: "Time at which its PostgreSQL started; V(null) when unknown."
      type: str
    error:
      description: "Why it does not answer; empty when it does."
      type: str
  sample:
    - name: db1
      role: leader
      host: 10.0.0.11
      port: 5432
      state: running
      timeline: 3
      lag_bytes:
      pending_restart: false
      writable: true
      error: ""
synchronous_mode:
  description: V(off), V(on) (the named standbys confirm) or V(quorum) (any of them).
  returned: always
  type: str
synchronous_mode_strict:
  description: Whether commits wait when no synchronous standby is there.
  returned: always
  type: bool
synchronous_node_count:
  description: How many standbys confirm a commit.
  returned: always
  type: int
paused:
  description: Whether Patroni is paused, so that nobody takes over.
  returned: always
  type: bool
failsafe_mode:
  description: Whether a primary that reaches all members goes on while etcd is away.
  returned: always
  type: bool
failsafe_active:
  description: Whether it does so now.
  returned: always
  type: bool
scheduled_switchover:
  description: Keys C(at), C(from) and C(to); V(null) when none is scheduled.
  returned: always
  type: dict
ttl:
  description: Seconds for which the leader's lease in etcd holds.
  returned: always
  type: int
loop_wait:
  description: Seconds between two looks of Patroni.
  returned: always
  type: int
retry_timeout:
  description: Seconds for which Patroni tries again when etcd or PostgreSQL does not answer.
  returned: always
  type: int
maximum_lag_on_failover:
  description: Bytes of WAL by which a member may be behind and still take over.
  returned: always
  type: int
expected_stall:
  description:
    - Seconds without a primary after the leader's machine is gone, from the lease alone. When the leader of etcd was on it too, add
      an election, 1 to 3 seconds, and up to 2 until etcd ends the lease.
  returned: always
  type: dict
  contains:
    min_seconds:
      description: "C(ttl) - C(loop_wait)."
      type: int
    max_seconds:
      description: "C(ttl)."
      type: int
restart_in_place:
  description: Why a restart of the leader that is due cannot be spared by a switchover; empty when it can.
  returned: always
  type: str
  sample: a standby does not run with less than its primary of max_connections
dcs_error:
  description: Why etcd counts as away for the Patroni of this host; empty when it does not.
  returned: always
  type: str
health:
  description: What the PostgreSQL of this host says of itself; V(null) when it does not answer.
  returned: always
  type: dict
  contains:
    damaged:
      description: "Database to the times that a page with a wrong checksum was read from it."
      type: dict
    lost_slots:
      description: "Replication slots whose WAL is gone."
      type: list
      elements: str
    archive_waiting:
      description: "WAL files that wait for archive_command."
      type: int
    archive_waiting_s:
      description: "Seconds for which the oldest of them waits."
      type: int
    huge_pages:
      description: "Whether its shared memory is in huge pages."
      type: bool
    huge_pages_needed:
      description: "How many pages its shared memory takes, whether it is in them or not."
      type: int
problems:
  description: What an operator should know, one sentence each; empty when all is well.
  returned: always
  type: list
  elements: str
  sample: ["db3 is on timeline 2 and the leader on 3: it does not follow"]
summary:
  description: The cluster and its members as a table for a person, one line each.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._patroni_api import PATRONI_OPTIONS, PatroniError, container_hosts, own_api, read_cluster, read_health
from ..module_utils._psql import PsqlError, find_container


def main() -> None:
    """Module entry."""
    module = AnsibleModule(argument_spec=PATRONI_OPTIONS, supports_check_mode=True)
    options = module.params
    try:
        client = DockerClient()
        container = find_container(client, options["project"], options["service"], optional=False)
        own = own_api(container, options["tls_dir"])
        cluster = read_cluster(own, options["tls_dir"], container_hosts(client, container), read_health(client, container))
    except (PatroniError, PsqlError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"Patroni: {error}")
    module.exit_json(changed=False, **cluster)


if __name__ == "__main__":
    main()
