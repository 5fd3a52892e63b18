#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Judge all variables and all hosts at once, and plan the capacity
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Checks the variables of every host against the argument specifications of the collection's roles, finds mistyped ones,
    weak or missing secrets, hostile names, wrong topology and hosts that lack something, and computes the capacity plan.
  - Prints every problem of every host in one list and fails, or prints the plan. Values of secrets are never shown.
  - Runs on the controller alone and is meant for one run per play (C(run_once)).
attributes:
  action:
    description: Runs as an action plugin.
    support: full
  check_mode:
    description: Changes nothing on any host, so check mode makes no difference.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  tier_hosts:
    description: Host names by C(edge), C(app), C(database), C(cache) and C(witness).
    type: dict
    required: true
  hosts:
    description: Host name to the registered result of M(berth.odoo.preflight_info); a failed or unreachable result is a problem of that host.
    type: dict
    required: true
  other_hosts:
    description:
      - Results of M(berth.odoo.preflight_info) for hosts outside of the run's limit, each with the host's name in C(item).
      - They count in the plan; one that does not answer is planned like another host of its tier.
    type: list
    elements: dict
    default: []
  minimum_memory_mb:
    description: Memory that every host must have, in MB, as its kernel counts it.
    type: int
    default: 900
  minimum_disk_gb:
    description: Size of the disks that hold data and images, in GB, as their file system counts it.
    type: int
    default: 18
  minimum_free_gb:
    description: Free space on these disks, in GB.
    type: int
    default: 5
  cpu_flags:
    description: Features that an x86_64 processor must have.
    type: list
    elements: str
    default: [sse4_2, popcnt]
  maximum_clock_skew_s:
    description: Seconds by which the hosts' clocks may differ.
    type: float
    default: 2.0
  minimum_secret_length:
    description: Characters that a password must have.
    type: int
    default: 20
  require_image_digests:
    description: Refuse images that are named by a tag alone.
    type: bool
    default: false
  ignored_variables:
    description: Variables that look like mistyped ones of the collection and are none, and those of roles used alone that the playbooks replace.
    type: list
    elements: str
    default: []
seealso:
  - module: berth.odoo.preflight_info
"""

EXAMPLES = r"""
- name: Report every problem, or print the plan
  berth.odoo.preflight:
    tier_hosts: {edge: [vm1], app: [vm1], database: [vm1], cache: [vm1]}
    hosts: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, '__host'))) }}"
  run_once: true
  register: report
"""

RETURN = r"""
notes:
  description: What is worth knowing and stops nothing.
  returned: success
  type: list
  elements: str
plan:
  description: The capacity plan by host.
  returned: success
  type: dict
"""
