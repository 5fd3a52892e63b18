# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.wire): what the instances of an inventory mean to each tier."""

from __future__ import annotations

DOCUMENTATION = r"""
name: wire
short_description: Turn the instances of an inventory into the lists that the tier roles take
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes C(odoo_instances) and returns, for each tier, the list that its role expects, one entry an instance.
  - The result holds passwords. Never print it.
positional: secrets
options:
  _input:
    description: Instances by name.
    type: dict
    required: true
  secrets:
    description: Instance name to C(db_password), C(redis_password) and what a rotation adds.
    type: dict
    required: true
  plan:
    description:
      - C(berth_plan), the capacity plan by host. It says how many workers a site has; without it the site's classes have no limits.
      - A host that was drained is none of a site's servers, and its workers do not count.
    type: dict
  apps:
    description:
      - C(traefik_apps) of the filter P(berth.odoo.topology#filter), application hosts and the addresses at which this edge reaches them. Needs
        O(plan). Without it a site's servers are the containers on the edge's own host.
    type: dict
"""

EXAMPLES = r"""
- name: Hand PostgreSQL its databases
  ansible.builtin.include_role:
    name: berth.odoo.postgresql
  vars:
    postgresql_databases: "{{ (odoo_instances | berth.odoo.wire(odoo_instance_secrets)).postgresql_databases }}"
"""

RETURN = r"""
_value:
  description: >-
    C(postgresql_roles), C(postgresql_databases), C(pgbouncer_users), C(redis_users), C(traefik_sites), C(traefik_drained), C(odoo_logins) and C(networks).
  type: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._wiring import wire as compute


def wire(
    instances: Mapping[str, Any],
    secrets: Mapping[str, Any],
    plan: Mapping[str, Any] | None = None,
    apps: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Call the pure function; name what is missing without showing what is there."""
    try:
        return compute(instances, secrets, plan, apps)
    except KeyError as error:
        raise AnsibleFilterError(f"wire: {error} is missing in odoo_instances or odoo_instance_secrets") from None


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return name and function."""
        return {"wire": wire}
