# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.backed): what came of a backup that every member of the database was asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backed
short_description: Judge a backup of the database by what all its hosts say
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - One member makes the backup. It is good when that one made it, whatever is wrong with the others; they are named with the reason.
positional: read
options:
  _input:
    description: Host to the registered result of starting the unit C(berth-postgresql-backup@).
    type: dict
    required: true
  read:
    description: Host to the registered result of a command that printed the unit's C(InvocationID), its C(ExecMainStatus) and
      C(/var/lib/berth/backup/postgresql.json), and after a line C(--) the words of that run.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say what came of it
  ansible.builtin.debug:
    msg: "{{ (begun | berth.odoo.backed(read)).lines }}"
"""

RETURN = r"""
_value:
  description: C(failed), why there is no backup, empty when there is; C(lines), what was made and who could not answer.
  type: dict
"""

from typing import Any

from ..module_utils import _pgbackrest


def backed(begun: Any, read: Any) -> dict[str, Any]:
    """Return the judgement as a dictionary."""
    return _pgbackrest.backed(begun, read)._asdict()


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"backed": backed}
