# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.restore_files): how a restore reaches the repositories."""

from __future__ import annotations

DOCUMENTATION = r"""
name: restore_files
short_description: Turn repositories of backups into what a restore reads
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes C(backup_repositories) and returns pgBackRest's configuration, restic's environment and the certificates, as files.
options:
  _input:
    description: Repositories, each with C(name), C(type) and what its type needs.
    type: list
    elements: dict
    required: true
  secrets:
    description: C(backup_secrets), the C(passphrase) and by repository in S3 C(access_key) and C(secret_key).
    type: dict
    required: true
  stanza:
    description: Name of the cluster.
    type: str
    required: true
  known:
    description: C(odoo_instances), of which the result has C(instances).
    type: dict
    default: {}
  data_dir:
    description: Directory in the container to which the data are restored.
    type: str
    default: /var/lib/postgresql/17
"""

EXAMPLES = r"""
- name: Show where restic looks
  ansible.builtin.debug:
    msg: "{{ (backup_repositories | berth.odoo.restore_files(backup_secrets, 'berth')).repositories | map(attribute='restic') }}"
"""

RETURN = r"""
_value:
  description: C(repositories), each with C(restic), its place; C(files), as M(berth.odoo.compose_project) takes them; C(instances), what a
    restore knows of each.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._restore import files, instances


def restore_files(
    repositories: Sequence[Mapping[str, Any]],
    secrets: Mapping[str, Any],
    stanza: str,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    data_dir: str = "/var/lib/postgresql/17",
) -> dict[str, Any]:
    """Call the pure function."""
    try:
        return {**files(repositories, secrets, stanza, data_dir), "instances": instances(known or {})}
    except ValueError as error:
        raise AnsibleFilterError(f"restore_files: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return name and function."""
        return {"restore_files": restore_files}
