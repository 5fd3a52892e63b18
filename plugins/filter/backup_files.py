# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: backup_files
short_description: What makes restic reach the repositories of backups
version_added: 0.1.0
author: [berth.odoo contributors (@berth-odoo)]
description:
  - Takes C(backup_repositories) and returns restic's places, and its keys and certificates as files.
options:
  _input:
    description: C(backup_repositories), a list of dictionaries.
    type: list
    elements: dict
    required: true
  secrets:
    description: C(backup_secrets), the C(passphrase) and by repository in S3 C(access_key) and C(secret_key).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show where restic writes
  ansible.builtin.debug:
    msg: "{{ (backup_repositories | berth.odoo.backup_files(backup_secrets)).repositories | map(attribute='restic') }}"
"""

RETURN = r"""
_value:
  description: C(repositories), each with C(restic), its place; C(files), as M(berth.odoo.compose_project) takes them.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._restic import reach


def backup_files(repositories: Sequence[Mapping[str, Any]], secrets: Mapping[str, Any]) -> dict[str, Any]:
    """Call the pure function."""
    try:
        found, files = reach(repositories, secrets)
    except ValueError as error:
        raise AnsibleFilterError(f"backup_files: {error}") from error
    return {"repositories": found, "files": files}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return name and function."""
        return {"backup_files": backup_files}
