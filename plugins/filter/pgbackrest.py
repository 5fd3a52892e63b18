# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.pgbackrest): pgBackRest's configuration from the repositories of the site."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pgbackrest
short_description: Write pgBackRest's configuration as files of a Compose project
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes C(backup_repositories) and returns C(pgbackrest.conf) and the certificates of the repositories' authorities, as files that
    M(berth.odoo.compose_project) takes. No repository, no file.
  - The configuration holds secrets.
positional: secrets, stanza, data_dir
options:
  _input:
    description: One or two repositories.
    type: list
    elements: dict
    required: true
  secrets:
    description: C(backup_secrets).
    type: dict
    required: true
  stanza:
    description: Name of the cluster.
    type: str
    required: true
  data_dir:
    description: PostgreSQL's data directory in the container.
    type: str
    required: true
  process_max:
    description: Processes that compress and send.
    type: int
    default: 1
  queue_max:
    description: WAL that may wait for the repository before it is dropped, with its unit.
    type: str
    default: 4GB
  retention:
    description: C(backup_retention), with C(days) or C(full).
    type: dict
    default: {}
  group:
    description: Id of the group that may read the files.
    type: int
    default: 45432
"""

EXAMPLES = r"""
- name: Converge PostgreSQL with backups
  berth.odoo.compose_project:
    name: postgresql
    definition: "{{ app_definition }}"
    files: "{{ backup_repositories | berth.odoo.pgbackrest(backup_secrets, 'berth', '/var/lib/postgresql/17') }}"
"""

RETURN = r"""
_value:
  description: Files with C(dest) below C(pgbackrest/), C(content), C(mode), C(group), C(services) and C(sensitive).
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils import _pgbackrest


def pgbackrest(
    repositories: Any,
    secrets: Any,
    stanza: Any,
    data_dir: Any,
    process_max: Any = 1,
    queue_max: Any = "4GB",
    retention: Any = None,
    group: Any = 45432,
) -> list[dict[str, Any]]:
    """Convert what Jinja hands over and call the pure functions."""
    if not repositories:
        return []
    try:
        text = _pgbackrest.configuration(
            repositories,
            secrets,
            str(stanza),
            str(data_dir),
            process_max=int(process_max),
            queue_max=str(queue_max),
            retention=retention,
        )
        return _pgbackrest.files(repositories, text, int(group))
    except (ValueError, TypeError) as error:
        raise AnsibleFilterError(f"pgbackrest: {error}") from error


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"pgbackrest": pgbackrest}
