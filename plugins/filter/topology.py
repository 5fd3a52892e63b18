# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.topology): who reaches whom, and where."""

from __future__ import annotations

DOCUMENTATION = r"""
name: topology
short_description: Turn the groups of an inventory into the addresses that the roles take
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes the inventory's groups and returns, for each host, the members, addresses and images that its roles expect.
  - Odoo is published where an edge is on another host, and Redis where an application host is, or another Redis.
  - C(postgresql_watchdog) of a host is its variable, else V(automatic) where it does nothing but its part in a cluster.
  - PostgreSQL is published where other hosts need it, or where C(odoo_instances.*.analyst.networks) lets somebody in.
  - Of each instance the first host of C(app) whose C(odoo_instances) has it makes the sets and restores them, its host in C(backup_hosts).
  - The address of a host is its variable C(host_address), else C(ansible_host), else its name.
positional: hostvars
options:
  _input:
    description: Groups and their hosts. C(database), C(witness), C(app), C(cache) and C(edge) count.
    type: dict
    required: true
  hostvars:
    description: Variables of all hosts.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Hand etcd its members
  ansible.builtin.include_role:
    name: berth.odoo.etcd
  vars:
    etcd_members: "{{ (groups | berth.odoo.topology(hostvars))[inventory_hostname].etcd_members }}"
"""

RETURN = r"""
_value:
  description: >-
    By host, variables of the roles C(images), C(etcd), C(postgresql), C(haproxy), C(redis), C(odoo), C(backup), C(restore), C(firewall) and C(drill),
    C(traefik_apps) for the filter P(berth.odoo.wire#filter), and C(backup_hosts), by instance the host of its sets.
  type: dict
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._firewall import HTTP_PORT, HTTPS_PORT, needed, reverse
from ..module_utils._wiring import IMAGES, analyst_networks, variants
from ..module_utils._wiring import topology as compute


def topology(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Look the addresses up and call the pure function."""
    tiers = {tier: [str(name) for name in groups.get(tier) or []] for tier in IMAGES}
    hosts = {name for names in tiers.values() for name in names}
    readers = any(analyst_networks(hostvars[host].get("odoo_instances")) for host in tiers["database"])
    addresses = {}
    for host in hosts:
        variables = hostvars[host]
        address = str(variables.get("host_address") or variables.get("ansible_host") or host)
        # Docker publishes on an address, and PostgreSQL lets addresses in. Alone, a host needs none.
        if (len(hosts) > 1 or readers) and not _is_address(address):
            raise AnsibleFilterError(
                f"host {host}: its address is {address!r}, expected an IPv4 address at which the other hosts reach it. "
                f"Type in host_vars/{host}.yml: host_address: 10.0.0.11"
            )
        addresses[host] = address
    found = compute(tiers, addresses, readers=readers)
    ports = {
        host: (hostvars[host].get("traefik_http_port") or HTTP_PORT, hostvars[host].get("traefik_https_port") or HTTPS_PORT)
        for host in tiers["edge"]
    }
    instances = {host: hostvars[host].get("odoo_instances") for host in hosts}
    floating = next(filter(None, (str(hostvars[host].get("keepalived_address") or "") for host in tiers["edge"])), "")
    backups = any(hostvars[host].get("backup_repositories") for host in tiers["database"])
    openings = needed(tiers, addresses, found, instances, ports, floating=bool(floating), backups=backups)
    destinations = reverse(openings, addresses, floating, {host: int(https) for host, (_http, https) in ports.items()})
    for host in openings:
        found[host] |= {"firewall_openings": openings[host], "firewall_destinations": destinations[host]}
    for host in tiers["database"]:
        found[host]["postgresql_watchdog"] = hostvars[host].get("postgresql_watchdog") or found[host]["postgresql_watchdog"]
    for host in tiers["app"]:
        found[host]["images_names"] += variants(hostvars[host].get("odoo_instances"), hostvars[host].get("images_odoo_variants") or {})
    run = {host: dict(instances[host] or {}) for host in tiers["app"]}
    every: dict[str, Any] = {}
    backup_hosts: dict[str, str] = {}
    for host in tiers["app"]:
        for name, one in run[host].items():
            every.setdefault(name, one)
            backup_hosts.setdefault(name, host)
    for host in found:
        own = [name for name in run.get(host, {}) if backup_hosts[name] == host]
        # A clone may be of an instance that another host runs.
        found[host] |= {"backup_hosts": backup_hosts, "backup_instances": own, "restore_instances": every}
        # Where backups are restored to prove them.
        if own and hostvars[host].get("backup_repositories") and "postgresql" not in found[host]["images_names"]:
            found[host]["images_names"].append("postgresql")
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return name and function."""
        return {"topology": topology}
