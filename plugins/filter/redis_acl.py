# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.redis_acl): an ACL file for tenants that share one Redis."""

from __future__ import annotations

DOCUMENTATION = r"""
name: redis_acl
short_description: Write an ACL file for tenants that share one Redis
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Returns the text of a Redis ACL file in which each user may touch only keys and channels that start with its prefix
    and a colon, and run neither administration, scripts nor commands that show other users' keys.
  - Passwords are stored as SHA-256. The user C(default) is off.
  - The user C(berth) has no password and may run PING and ACL LOAD, for health checks and reloads.
positional: peer, sentinel
options:
  _input:
    description:
      - Users, each with C(name), C(password) and C(prefix), and optionally C(commands), a list of ACL rules added last.
    type: list
    elements: dict
    required: true
  peer:
    description: Password of the user C(berth-peer), as which several Redis and their Sentinels speak to each other. Empty where there is one Redis.
    type: str
    default: ""
  sentinel:
    description: Whether the file is for a Sentinel, where each user may ask who is the primary.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Write the ACL file
  ansible.builtin.copy:
    dest: /etc/redis/users.acl
    content: "{{ [{'name': 'main', 'prefix': 'main', 'password': main_redis_password}] | berth.odoo.redis_acl }}"
    mode: "0440"
  no_log: true
"""

RETURN = r"""
_value:
  description: Text of the ACL file.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._redis_acl import AclError
from ..module_utils._redis_acl import redis_acl as compute


def redis_acl(users: Any, peer: Any = "", sentinel: bool = False) -> str:
    """Call the pure function."""
    try:
        return compute(users, peer, sentinel=sentinel)
    except AclError as error:
        raise AnsibleFilterError(f"redis_acl: {error}") from error


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"redis_acl": redis_acl}
