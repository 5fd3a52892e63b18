#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_status
short_description: Show the state of the whole platform on one screen
version_added: 0.1.0
description:
  - Judges what M(berth.odoo.platform_info) read on every host, prints one screen, and fails when something is down.
  - Runs on the controller only. It reads nothing by itself, so it is quick and it can also judge hosts that did not answer.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  action:
    description: Runs on the controller.
    support: full
  check_mode:
    description: Changes nothing on any host, so check mode makes no difference.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  hosts:
    description: Host name to the registered result of M(berth.odoo.platform_info); a failed or unreachable result is a problem of that host.
    type: dict
    required: true
  instances:
    description: Host name to its C(odoo_instances). Containers of one that is V(stopped) need not run, and one that is not in there is a problem.
    type: dict
    default: {}
  json_file:
    description: Also write everything as JSON to this file on the controller.
    type: path
    default: ""
seealso:
  - module: berth.odoo.platform_info
"""

EXAMPLES = r"""
- name: Show the platform
  berth.odoo.platform_status:
    hosts: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, '__platform'))) }}"
    json_file: /tmp/status.json
  run_once: true
"""

RETURN = r"""
problems:
  description: Every problem of every host, one line each; empty when everything is up.
  returned: always
  type: list
  elements: str
  sample: ["vm1: odoo-main/cron is exited (exit code 255)"]
"""
