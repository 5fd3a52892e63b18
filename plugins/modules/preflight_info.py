#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_info
short_description: Read what a host has, in a quarter of a second
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Reads operating system, processors, memory, disks, clock, listening ports and Docker of a host from C(/proc), C(/sys)
    and a few files. It runs no command and changes nothing.
  - Inside a container the limits of the control group count, not the outer machine.
  - Needs root to name the processes that hold ports.
  - Its action plugin adds RV(host.clock_offset_s), which only the controller can measure.
attributes:
  check_mode:
    description: Reads the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
options:
  paths:
    description: Directories whose disks are described. They need not exist yet.
    type: list
    elements: path
    default: [/var/lib/berth, /var/lib/docker]
  ports:
    description: TCP ports; whoever listens on one of them is named.
    type: list
    elements: int
    default: []
  peers:
    description: Hosts to which this one must be able to connect.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name for messages.
        type: str
        required: true
      address:
        description: Address or host name.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
  peer_timeout:
    description: Seconds that all peers together have to answer.
    type: float
    default: 5.0
  etcd_data_dir:
    description: Directory of etcd's data, as in the role C(etcd).
    type: path
    default: /var/lib/berth/etcd
  postgresql_data_dir:
    description: Directory of PostgreSQL's data, as in the role C(postgresql).
    type: path
    default: /var/lib/berth/postgresql
  redis_data_dir:
    description: Directory of Redis' data, as in the role C(redis).
    type: path
    default: /var/lib/berth/redis
  base_dir:
    description: Directory that holds the projects.
    type: path
    default: /opt/berth
  docker_socket:
    description: Socket of the Docker Engine.
    type: path
    default: /run/docker.sock
  tier_hosts:
    description:
      - Which hosts do what, as in O(berth.odoo.preflight#module:tier_hosts).
      - The action plugin adds to O(ports) and O(peers) what follows from it and from the inventory; the module ignores it.
    type: dict
    default: {}
  floating_address:
    description:
      - IPv4 address that several edges share. Whoever has it is asked for on the wire. Nothing where it is empty.
      - The action plugin sets it, and O(own_address), on edges.
    type: str
    default: ""
  own_address:
    description: IPv4 address of this host at which the others know it.
    type: str
    default: ""
  check_peers:
    description: Whether the action plugin adds to O(peers); the module ignores it.
    type: bool
    default: true
seealso:
  - module: berth.odoo.preflight
"""

EXAMPLES = r"""
- name: Read the host
  berth.odoo.preflight_info:
    ports: [80, 443]
  become: true
  register: result

- name: Show its memory
  ansible.builtin.debug:
    var: result.host.memory_mb
"""

RETURN = r"""
host:
  description: What was found.
  returned: success
  type: dict
  contains:
    os:
      description: C(id), C(version_id), C(codename) and C(pretty_name) of os-release.
      type: dict
    kernel:
      description: Release of the kernel.
      type: str
    machine:
      description: Architecture as the kernel names it.
      type: str
    python:
      description: Version of the interpreter that ran the module.
      type: str
    container:
      description: Kind of the container this host is, empty on a real or virtual machine.
      type: str
    cpus:
      description: Processors that may be used.
      type: int
    cpu_flags:
      description: Features of the first processor.
      type: list
      elements: str
    memory_mb:
      description: Memory that may be used, in MB.
      type: int
    memory_total_mb:
      description: Memory of the machine, in MB. Larger than RV(host.memory_mb) inside a container.
      type: int
    disks:
      description: The file system of each of O(paths).
      type: list
      elements: dict
    time:
      description: The host's clock, in seconds since 1970.
      type: float
    clock_synchronized:
      description: Whether the kernel's clock is disciplined; null when it may not be asked.
      type: bool
    clock_offset_s:
      description: Seconds by which the host's clock is ahead of the controller's.
      type: float
    clock_error_s:
      description: Uncertainty of RV(host.clock_offset_s).
      type: float
    listeners:
      description: Who listens on O(ports).
      type: list
      elements: dict
    docker:
      description: Version and API version of the Docker Engine, empty when none answers.
      type: dict
    packages:
      description: Versions of the installed packages that matter to the platform.
      type: dict
    etcd:
      description: V(member) where an etcd member has its data; V(joining) where it has, and the run that let it join did not come to its end; empty.
      type: str
    etcd_healthy:
      description: Whether its container says that it is well, which takes a quorum.
      type: bool
    postgresql:
      description: V(leader) or V(standby) where PostgreSQL runs and is well; V(blank) where it has no data; empty.
      type: str
    redis:
      description:
        - C(deployed), whether Redis is here; C(data), whether it has any, which stay when it is removed; C(primary), the host of the group C(cache) that its
          Sentinel takes for the primary, empty where none is; C(epoch), how often that has changed; C(first), whom Redis was told to follow when it had no
          data.
      type: dict
      sample: {deployed: true, data: true, primary: cache1, epoch: 3, first: cache2}
    drained:
      description: Application hosts that the edge on this host leaves out, and since when.
      type: dict
      sample: {app2: "2026-11-25T02:00:00Z"}
    floating:
      description:
        - What O(floating_address) is to the host, empty without one.
        - C(held), whether the host has it; C(drained), since when it shall not; C(interface), on whose network the address is, empty where on none;
          C(own_interface), the same for O(own_address); C(claimed_by), the hardware of whoever else has it.
      type: dict
    keepalived:
      description: Whether the role C(keepalived) was here, and nobody undid it.
      type: bool
    instances:
      description: Names of the Odoo instances that were put on the host, whether they run or not.
      type: list
      elements: str
    peers:
      description: O(peers), each with C(state).
      type: list
      elements: dict
"""

import os
import platform
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _apt, _machine
from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable

# What the role etcd wrote last.
ETCD_SETTINGS = "/opt/berth/etcd/config/etcd.yml"
PROJECTS = "/opt/berth"
PACKAGES = ("docker.io", "docker-compose", "docker-ce", "systemd-timesyncd", "chrony", "ntpsec")


def ask_docker(socket_path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the engine says about itself, and its running containers; nothing where no engine answers."""
    try:
        with DockerClient(socket_path, timeout=30) as engine:
            return engine.get("/version"), engine.get("/containers/json")
    except (DockerUnavailable, DockerError):
        return {}, []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": ["/var/lib/berth", "/var/lib/docker"]},
            "ports": {"type": "list", "elements": "int", "default": []},
            "peers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                },
            },
            "peer_timeout": {"type": "float", "default": 5.0},
            "etcd_data_dir": {"type": "path", "default": "/var/lib/berth/etcd"},
            "postgresql_data_dir": {"type": "path", "default": "/var/lib/berth/postgresql"},
            "redis_data_dir": {"type": "path", "default": "/var/lib/berth/redis"},
            "base_dir": {"type": "path", "default": "/opt/berth"},
            "docker_socket": {"type": "path", "default": "/run/docker.sock"},
            "tier_hosts": {"type": "dict", "default": {}},
            "check_peers": {"type": "bool", "default": True},
            "floating_address": {"type": "str", "default": ""},
            "own_address": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    root = Path("/")
    engine, containers = ask_docker(module.params["docker_socket"])
    system = os.uname()
    floating = module.params["floating_address"]
    try:
        drained = _machine.drained(module.params["base_dir"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        host={
            "os": _machine.operating_system(root),
            "kernel": system.release,
            "machine": system.machine,
            "python": platform.python_version(),
            "container": _machine.read(root / "run/systemd/container").strip(),
            **_machine.memory(root),
            **_machine.processors(root, len(os.sched_getaffinity(0))),
            "disks": [_machine.disk(root, path) for path in module.params["paths"]],
            "clock_synchronized": _machine.clock_synchronized(),
            "listeners": _machine.ports(root, set(module.params["ports"]), containers),
            "docker": {key: engine[name] for key, name in (("version", "Version"), ("api", "ApiVersion")) if name in engine},
            "packages": _apt.installed(root, PACKAGES),
            "etcd": _machine.etcd(module.params["etcd_data_dir"], ETCD_SETTINGS),
            "etcd_healthy": _machine.healthy("etcd", containers),
            "postgresql": _machine.postgresql(module.params["postgresql_data_dir"], containers),
            "redis": _machine.redis(module.params["redis_data_dir"], module.params["base_dir"]),
            "drained": drained,
            "floating": _machine.floating(root, floating, module.params["own_address"], ask=True) if floating else {},
            "keepalived": os.path.exists(_machine.EDGE_CHECK),
            "instances": _machine.instances(PROJECTS),
            "peers": _machine.peers(module.params["peers"], module.params["peer_timeout"]),
            "time": time.time(),
        },
    )


if __name__ == "__main__":
    main()
