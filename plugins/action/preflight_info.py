# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(preflight_info): what to ask the host about, and how far its clock is away."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.berth.odoo.plugins.module_utils._validate import is_address, peers_of, published_ports

EDGE_PORTS = {"traefik_http_port": 80, "traefik_https_port": 443}


class ActionModule(ActionBase):
    """Run the module with what the inventory says about the host."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module once. Arguments and results: see the module's documentation."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        tiers = arguments.get("tier_hosts") or {}
        host = self._task.delegate_to or variables["inventory_hostname"]
        hostvars = variables["hostvars"]

        def variable(peer: str, name: str) -> Any:
            try:
                return hostvars[peer].get(name)
            except (AnsibleError, KeyError):
                return None  # `preflight` reports what cannot be rendered

        if host in (tiers.get("edge") or []):
            wanted = [*arguments.get("ports", [])]
            for name, port in EDGE_PORTS.items():
                own = str(variable(host, name) or port)
                wanted.append(int(own) if own.isdigit() else port)
            arguments["ports"] = wanted
            floating, own = (str(variable(host, name) or "") for name in ("keepalived_address", "host_address"))
            own = own or str(variable(host, "ansible_host") or host)
            if is_address(floating) and is_address(own):  # `preflight` reports one that is none
                arguments.update(floating_address=floating, own_address=own)
        arguments["ports"] = [*arguments.get("ports", []), *published_ports(host, tiers, variable(host, "odoo_instances"))]
        for name in ("etcd_data_dir", "postgresql_data_dir", "redis_data_dir"):
            own_data = variable(host, name)
            if isinstance(own_data, str) and own_data:
                arguments[name] = own_data
        if boolean(arguments.get("check_peers", True)):
            arguments["peers"] = [*arguments.get("peers", []), *peers_of(host, tiers, variable)]

        start = time.time()
        result = self._execute_module("berth.odoo.preflight_info", module_args=arguments, task_vars=task_vars)
        end = time.time()
        facts = result.get("host")
        if isinstance(facts, dict):
            facts["clock_offset_s"] = round(facts["time"] - (start + end) / 2, 3)
            facts["clock_error_s"] = round((end - start) / 2, 3)
        return result
