# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.drill_record): what a drill found, beside what was promised."""

from __future__ import annotations

DOCUMENTATION = r"""
name: drill_record
short_description: Turn what a failover drill's probes saw into evidence
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes the JSON summaries of the drill role's probes, joins them, and compares them with what was promised.
options:
  _input:
    description: Summaries, that of the probe first, those of writers beside members after it.
    type: list
    elements: dict
    required: true
  fault:
    description: What was done to the platform, a choice of the drill role's C(drill_fault).
    type: str
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  victim:
    description: Member that led before.
    type: str
    required: true
  promises:
    description: C(objectives) of the inventory. What has none is measured and not judged, two primaries at once excepted.
    type: dict
    default: {}
  machines:
    description: Host to its C(cpus) and C(memory_mb), as M(berth.odoo.preflight_info) returns them.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show what was found
  ansible.builtin.debug:
    msg: "{{ (summaries | berth.odoo.drill_record(fault='switchover', cluster='berth', victim='db1', promises=objectives)).table }}"
"""

RETURN = r"""
_value:
  description: C(record), the evidence; C(name) of its file; C(table), lines for a person; C(broken), a sentence for each broken promise.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._drill import record as compute


def drill_record(
    summaries: Sequence[Mapping[str, Any]],
    fault: str,
    cluster: str,
    victim: str,
    promises: Mapping[str, Any] | None = None,
    machines: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Call the pure function."""
    try:
        return compute(summaries, fault=fault, cluster=cluster, victim=victim, objectives=promises or {}, machines=machines or {})
    except (KeyError, IndexError) as error:
        raise AnsibleFilterError(f"drill_record: a summary lacks {error}: is it that of another version?") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return name and function."""
        return {"drill_record": drill_record}
