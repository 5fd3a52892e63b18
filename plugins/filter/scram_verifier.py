# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.scram_verifier): what PostgreSQL and PgBouncer store instead of a password."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scram_verifier
short_description: Compute the SCRAM-SHA-256 verifier of a role's password
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Returns the verifier that PostgreSQL stores for a role and that PgBouncer's user list may hold instead of the
    password. The same password and name give the same verifier on every host and in every run.
  - A verifier is a secret, too. Keep it out of logs and give its file the mode of a secret.
positional: user
options:
  _input:
    description: The password. Every character works except newline and NUL.
    type: str
    required: true
  user:
    description: Name of the role.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write PgBouncer's user list
  ansible.builtin.copy:
    dest: /etc/pgbouncer/userlist.txt
    content: |
      "odoo" "{{ odoo_db_password | berth.odoo.scram_verifier('odoo') }}"
    mode: "0440"
  no_log: true
"""

RETURN = r"""
_value:
  description: The verifier, C(SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>).
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._scram import scram_verifier as compute


def scram_verifier(password: Any, user: Any) -> str:
    """Check the types (a number is a missing pair of quotes in the inventory) and call the pure function."""
    if not isinstance(password, str):
        raise AnsibleFilterError(f"scram_verifier: the password of {user} is a {type(password).__name__}, not a string: quote it")
    try:
        return compute(password, str(user))
    except ValueError as error:
        raise AnsibleFilterError(f"scram_verifier: {error}") from error


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"scram_verifier": scram_verifier}
