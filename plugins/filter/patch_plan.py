# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.patch_plan): which host is patched when."""

from __future__ import annotations

DOCUMENTATION = r"""
name: patch_plan
short_description: Turn what waits on the hosts of a platform into an order of patching them
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes what M(berth.odoo.patch_info) returned, by host.
positional: tiers
options:
  _input:
    description: What M(berth.odoo.patch_info) returned, by host.
    type: dict
    required: true
  tiers:
    description: Groups and their hosts. C(database), C(witness), C(app), C(edge) and C(cache) count.
    type: dict
    required: true
  leads:
    description: Hosts whose member leads its database cluster.
    type: list
    elements: str
    default: []
  drained:
    description: Application hosts that get no requests.
    type: list
    elements: str
    default: []
  floating:
    description: Edges that may have the floating address.
    type: list
    elements: str
    default: []
  reboot:
    description: V(needed), V(always) or V(never).
    type: str
    default: needed
  outage:
    description: Whether hosts whose work nobody does meanwhile may go away.
    type: bool
    default: false
  instances:
    description: Application hosts and the names of their instances.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show what would be done
  ansible.builtin.debug:
    msg: "{{ (found | berth.odoo.patch_plan(groups)).lines }}"
"""

RETURN = r"""
_value:
  description: >-
    C(order), hosts with something to do; C(hosts), of each C(alone), why it may not go away, C(only), instances that nobody else runs, and C(reboot),
    whether it is rebooted although nothing asks for it; C(lines), for a person; C(refused), why nothing may begin.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._patch import plan as compute


def patch_plan(
    found: Mapping[str, Mapping[str, Any]],
    tiers: Mapping[str, Sequence[str]],
    leads: Sequence[str] = (),
    drained: Sequence[str] = (),
    floating: Sequence[str] = (),
    reboot: str = "needed",
    outage: bool = False,
    instances: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Call the pure function."""
    try:
        return compute(found, tiers, list(leads), list(drained), list(floating), reboot, outage, instances)
    except KeyError as error:
        raise AnsibleFilterError(f"patch_plan: a host's answer lacks {error}: is it that of another version?") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return name and function."""
        return {"patch_plan": patch_plan}
