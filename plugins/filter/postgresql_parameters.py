# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.postgresql_parameters): PostgreSQL parameters for Odoo from the container's size."""

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_parameters
short_description: Compute PostgreSQL parameters for Odoo from the size of the container
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes the memory that PostgreSQL may use and returns a dictionary of PostgreSQL 17 parameters tuned for Odoo.
  - The rule, the reason and the source of each parameter are in the docstring of the function it calls,
    C(plugins/module_utils/_sizing.py).
positional: cpus, disk_kind, max_connections, workers
options:
  _input:
    description: Memory that PostgreSQL may use, page cache included, in MB. At least 256.
    type: int
    required: true
  cpus:
    description: Processors that PostgreSQL may use.
    type: int
    required: true
  disk_kind:
    description: Kind of the disk that holds the data.
    type: str
    choices: [hdd, ssd, nvme]
    required: true
  max_connections:
    description: Upper bound of client connections.
    type: int
    required: true
  workers:
    description:
      - Connections that work at the same moment at most, usually the sum of the pools.
      - V(0) takes 60 % of O(max_connections).
    type: int
    default: 0
  disk_mb:
    description: Size of the file system that holds the data in MB, which bounds the write-ahead log. V(0) means unknown.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Show the parameters of a 4 GB container
  ansible.builtin.debug:
    msg: "{{ 4096 | berth.odoo.postgresql_parameters(cpus=2, disk_kind='ssd', max_connections=100) }}"
"""

RETURN = r"""
_value:
  description: Parameter names and their values; sizes are strings with a unit.
  type: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._sizing import SizingError
from ..module_utils._sizing import postgresql_parameters as compute


def postgresql_parameters(
    memory_mb: Any,
    cpus: Any,
    disk_kind: Any,
    max_connections: Any,
    workers: Any = 0,
    disk_mb: Any = 0,
) -> dict[str, str | int]:
    """Convert what Jinja hands over and call the pure function."""
    try:
        return compute(int(memory_mb), int(cpus), str(disk_kind), int(max_connections), int(workers), disk_mb=int(disk_mb))
    except (SizingError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"postgresql_parameters: {error}") from error


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"postgresql_parameters": postgresql_parameters}
