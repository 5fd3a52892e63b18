#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger
short_description: Write a record to the end of a host's ledger
version_added: 0.1.0
description:
  - The callback P(berth.odoo.ledger#callback) calls it on each host that a run changed. Each line of the file has the hash of the line before.
  - M(berth.odoo.platform_status) names what was changed, removed or inserted afterwards.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Writes nothing.
    support: full
  diff_mode:
    description: It only adds.
    support: none
  idempotent:
    description: Each call adds a line.
    support: none
options:
  record:
    description: What to write.
    type: dict
    required: true
  path:
    description: The ledger.
    type: path
    default: /var/lib/berth/ledger.jsonl
"""

EXAMPLES = r"""
- name: Write down what was done by hand
  berth.odoo.ledger:
    record: {event: note, time: "2026-11-25T17:00:00Z", user: jane, text: replaced the disk of db2}
"""

RETURN = r"""
line:
  description: Hash of the new line.
  returned: except in check mode
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _ledger


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"record": {"type": "dict", "required": True}, "path": {"type": "path", "default": _ledger.HOST_PATH}},
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        line = _ledger.append(Path(module.params["path"]), module.params["record"])
    except OSError as error:
        module.fail_json(msg=f"the ledger {module.params['path']} cannot be written: {error}")
    module.exit_json(changed=True, line=line)


if __name__ == "__main__":
    main()
