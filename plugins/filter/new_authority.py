# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.new_authority): an authority for a platform that has none yet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: new_authority
short_description: Make a new certificate authority
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Returns another authority at each use, with a new EC key (P-256). It signs itself, and may sign certificates of services and no
    further authority. M(berth.odoo.compose_project) takes it as O(berth.odoo.compose_project#module:authority).
  - The key opens every service that trusts the authority. Keep it encrypted and out of logs.
requirements:
  - the Python package C(cryptography) on the controller, which ansible-core brings along
positional: days
options:
  _input:
    description: Name of the authority. What is longer than 64 characters is cut off.
    type: str
    required: true
  days:
    description: Validity in days.
    type: int
    default: 3650
"""

EXAMPLES = r"""
- name: Write the authority, encrypted
  ansible.builtin.command:
    argv: [ansible-vault, encrypt, --output, group_vars/all/platform_authority.yml, "-"]
    stdin: "{{ {'platform_authority': 'example.com' | berth.odoo.new_authority} | to_nice_yaml }}"
    creates: group_vars/all/platform_authority.yml
  delegate_to: localhost
  no_log: true
"""

RETURN = r"""
_value:
  description: C(certificate) and C(key), both PEM text.
  type: dict
"""

import time
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.basic import missing_required_lib

from ..module_utils import _authority


def new_authority(name: Any, days: Any = 3650) -> dict[str, str]:
    """Check the arguments and make an authority that begins now."""
    if _authority.LIBRARY_ERROR:
        raise AnsibleFilterError(f"new_authority: {missing_required_lib('cryptography', reason='on the controller')}")
    if not isinstance(name, str) or not name:
        raise AnsibleFilterError("new_authority: the name must be a text that is not empty")
    if not isinstance(days, int) or isinstance(days, bool) or days < 1:
        raise AnsibleFilterError(f"new_authority: days must be a whole number, 1 or more, not {days!r}")
    certificate, key = _authority.create(name, days, int(time.time()))
    return {"certificate": certificate, "key": key}


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"new_authority": new_authority}
