#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets_rotation
short_description: Take one step of a rotation in the encrypted secrets of an inventory
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Changes the passwords of instances in a file that Ansible Vault or SOPS has encrypted, on the controller. No host is touched; what the file says is put
    into effect by the playbook C(berth.odoo.site). The playbook C(berth.odoo.rotate_secrets) does both in their order.
  - The new file is written beside the old one, read back, and takes its place at once. Whatever fails before that, the old one is as it was.
  - It is encrypted with the password that decrypts it, with SOPS for the same recipients. Everything else in it stays as it is written.
  - A step whose result is there already changes nothing.
attributes:
  action:
    description: Runs as an action plugin.
    support: full
  check_mode:
    description: Says which instances would be changed and writes nothing.
    support: full
  diff_mode:
    description: Secrets are not shown.
    support: none
options:
  file:
    description: The file with C(odoo_instance_secrets), encrypted as a whole by Ansible Vault, or by SOPS.
    type: path
    required: true
  step:
    description:
      - V(begin) adds a new password; from then on both are valid and the new one is to be used.
      - V(accept) makes it the only one, and keeps the old one in the file.
      - V(finish) removes the old one from the file.
    type: str
    choices: [begin, accept, finish]
    required: true
  kind:
    description: What is rotated. V(database) is the password with which an instance logs in to PostgreSQL.
    type: str
    choices: [database]
    default: database
  databases:
    description: Instance to the name of its database, of those whose password is rotated.
    type: dict
    required: true
  effective:
    description: C(odoo_instance_secrets) as the playbook sees it. When it is not what the file says, it comes from elsewhere, and nothing is changed.
    type: raw
    required: true
notes:
  - The task needs no C(no_log). No secret is returned.
"""

EXAMPLES = r"""
- name: Add new passwords
  berth.odoo.secrets_rotation:
    file: "{{ inventory_dir }}/group_vars/all/secrets.yml"
    step: begin
    databases: {main: main}
    effective: "{{ odoo_instance_secrets }}"
  run_once: true
"""

RETURN = r"""
instances:
  description: The instances whose secrets were changed.
  returned: success
  type: list
  elements: str
  sample: [main]
"""
