#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_config
short_description: Converge Patroni's dynamic configuration and check that PostgreSQL runs with its settings
version_added: 0.1.0
description:
  - Patches the configuration that all members of a Patroni cluster share, when it differs. The member that leads does
    it; on others nothing is changed.
  - While this member is being given its data, or recovers, waits for that as long as O(timeout) says. It fails then with RV(underway), so that it can be
    asked again.
  - Waits until this member has loaded its own configuration file, and asks for a reload if it has not.
  - Fails for parameters that Patroni dropped or changed, and for those that PostgreSQL cannot read.
  - Parameters that wait for a restart of PostgreSQL are returned, with a warning, unless O(restart) allows it.
author: [berth.odoo contributors (@berth-odoo)]
extends_documentation_fragment: [berth.odoo.patroni]
attributes:
  check_mode:
    description: Predicts. Without a running container the configuration is predicted to be set.
    support: full
  diff_mode:
    description: Shows the dynamic configuration before and after.
    support: full
options:
  config:
    description:
      - Keys of the dynamic configuration, merged into the present one. V(null) removes a key.
      - See U(https://patroni.readthedocs.io/en/latest/dynamic_configuration.html).
    type: dict
    default: {}
  config_file:
    description: Patroni's configuration file on this host, which PostgreSQL must have loaded.
    type: path
  parameters:
    description: PostgreSQL parameters from O(config_file) that must be in effect or wait for a restart.
    type: dict
    default: {}
  restart:
    description:
      - Restart PostgreSQL on this member when parameters wait for that. For a run that has just restarted it anyway.
    type: bool
    default: false
  as_leader:
    description:
      - Patch the configuration also when this member does not lead. For the one that has just handed over, so that what it would have done as
        leader is not left to the next run.
    type: bool
    default: false
  timeout:
    description: Seconds for a change to arrive in PostgreSQL. Patroni looks every C(loop_wait) seconds.
    type: int
    default: 60
seealso:
  - module: berth.odoo.compose_project
  - module: berth.odoo.postgresql_databases
  - module: berth.odoo.postgresql_cluster_info
"""

EXAMPLES = r"""
- name: Allow more connections, and keep the primary while etcd is away
  berth.odoo.patroni_config:
    config:
      failsafe_mode: true
      postgresql:
        parameters:
          max_connections: 200
  register: __patroni
"""

RETURN = r"""
config:
  description: The dynamic configuration. In check mode what it would be.
  returned: always
  type: dict
leader:
  description: Whether this member leads the cluster.
  returned: always
  type: bool
pending_restart:
  description: Parameters that wait for a restart of PostgreSQL.
  returned: always
  type: dict
  sample: {shared_buffers: {running: 128MB, configured: 256MB}}
reloaded:
  description: Whether this module had to ask Patroni to load its file.
  returned: always
  type: bool
underway:
  description: What the member is still doing before it serves, in Patroni's words. Nothing was changed.
  returned: when that has not ended within O(timeout)
  type: str
  sample: creating replica
restarted:
  description: Whether PostgreSQL was restarted.
  returned: always
  type: bool
"""

import contextlib
import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._patroni import SETTINGS_SCRIPT, merge, pending_restart, refused
from ..module_utils._patroni_api import PATRONI_OPTIONS, PatroniApi, PatroniError, own_api, patronictl
from ..module_utils._psql import Container, PsqlError, find_container, psql

INTERVAL = 1.0
ON_THE_WAY = ("creating replica", "initializing new cluster", "running custom bootstrap script", "starting", "restarting")
"""States of a member that will serve when it has done what it does (patroni/postgresql/__init__.py and bootstrap.py)."""
NOTHING_YET: dict[str, Any] = {"changed": True, "leader": True, "reloaded": False, "restarted": False, "pending_restart": {}}
"""What check mode answers before there is a container: Patroni will start with the configuration it is given."""


def read_settings(client: DockerClient, container: Container) -> dict[str, Any]:
    """Return PostgreSQL's view of its settings."""
    state: dict[str, Any] = psql(client, container, SETTINGS_SCRIPT)[0]
    return state


class Underway(Exception):
    """The member does not serve yet, and is on its way there. Holds what Patroni calls it."""


def first_settings(client: DockerClient, container: Container, api: PatroniApi, timeout: float) -> dict[str, Any]:
    """Return PostgreSQL's view of its settings as soon as it serves.

    Raises:
        Underway: It is still being given its data, or recovers.
        PsqlError: It does not serve for another reason, and not for a moment only: between a copy and its start it counts as stopped.
    """
    began = left = time.monotonic()
    while True:
        try:
            return read_settings(client, container)
        except PsqlError:
            doing, now = "", time.monotonic()
            with contextlib.suppress(PatroniError):  # it has just been started, or is gone
                doing = api.get("/patroni")["state"]
            if doing in ON_THE_WAY:
                if now - began >= timeout:
                    raise Underway(doing) from None
                left = now
            elif now - left >= timeout:
                raise
        time.sleep(INTERVAL)


def read_config(api: PatroniApi, timeout: float) -> dict[str, Any]:
    """Return the dynamic configuration.

    It is asked again for some seconds: Patroni takes a renewed certificate when its loop comes around, and the old one may have ended.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            config: dict[str, Any] = api.get("/config")
        except PatroniError:
            if time.monotonic() >= deadline:
                raise
        else:
            return config
        time.sleep(INTERVAL)


def wait_for_settings(
    client: DockerClient, container: Container, wanted: dict[str, Any], newer_than: float, timeout: float
) -> dict[str, Any]:
    """Return the settings as soon as they are loaded and as wanted, the last ones seen when that takes too long."""
    deadline = time.monotonic() + timeout
    while True:
        state = read_settings(client, container)
        arrived = state["loaded"] >= newer_than and not refused(wanted, state)
        if arrived or time.monotonic() >= deadline:
            return state
        time.sleep(INTERVAL)


def converge(module: AnsibleModule, client: DockerClient, container: Container, api: PatroniApi) -> dict[str, Any]:
    """Patch, reload, wait, check, and return the module's result."""
    options = module.params
    state = first_settings(client, container, api, 0 if module.check_mode else options["timeout"])
    leader = not state["in_recovery"]
    before = read_config(api, 0 if module.check_mode else options["timeout"])
    after = merge(before, options["config"]) if leader or options["as_leader"] else before
    written = os.stat(options["config_file"]).st_mtime if options["config_file"] else 0.0
    stale = state["loaded"] < written
    result = {
        "changed": after != before or stale,
        "config": after,
        "leader": leader,
        "reloaded": stale,
        "restarted": False,
        "diff": {
            "before": json.dumps(before, indent=2, sort_keys=True) + "\n",
            "after": json.dumps(after, indent=2, sort_keys=True) + "\n",
        },
    }
    wanted = {**options["parameters"], **((after.get("postgresql") or {}).get("parameters") or {})}
    if not module.check_mode:
        if after != before:
            patch = json.dumps(options["config"]).encode()
            patronictl(client, container, "edit-config", "--quiet", "--force", "--apply", "-", stdin=patch)
        if stale:
            # From within: a signal sent by Docker marks the container as stopped by hand, and it stays down after a reboot.
            client.exec(container.id, ["sh", "-c", "kill -HUP 1"])
        changed = bool(result["changed"])
        state = wait_for_settings(client, container, wanted, written, options["timeout"] if changed else 0)
        if state["loaded"] < written:
            raise PatroniError(
                f"Patroni has not loaded {options['config_file']} within {options['timeout']} s. "
                f"Type: docker logs --tail 50 {container.id[:12]}"
            )
        problems = refused(wanted, state)
        if problems:
            raise PatroniError("parameters that are not in effect: " + "; ".join(problems))
        if options["restart"] and state["pending"]:
            state = restart(client, container, api, options["timeout"])
            result.update(changed=True, restarted=True)
    result["pending_restart"] = pending_restart(wanted, state)
    return result


def restart(client: DockerClient, container: Container, api: PatroniApi, timeout: float) -> dict[str, Any]:
    """Restart PostgreSQL on this member and return its settings when it serves again as what it was."""
    member = api.get("/patroni")["patroni"]
    patronictl(client, container, "restart", "--force", member["scope"], member["name"])
    deadline = time.monotonic() + timeout
    while True:
        try:
            state = read_settings(client, container)
        except PsqlError:
            if time.monotonic() >= deadline:
                raise
        else:
            if not state["pending"] or time.monotonic() >= deadline:
                return state
        time.sleep(INTERVAL)


def main() -> None:
    """Module entry."""
    module = AnsibleModule(
        argument_spec={
            **PATRONI_OPTIONS,
            "config": {"type": "dict", "default": {}},
            "config_file": {"type": "path"},
            "parameters": {"type": "dict", "default": {}},
            "restart": {"type": "bool", "default": False},
            "as_leader": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    client = DockerClient()
    try:
        container = find_container(client, options["project"], options["service"], optional=module.check_mode)
        if container:
            result = converge(module, client, container, own_api(container, options["tls_dir"]))
        else:
            result = NOTHING_YET | {"config": merge({}, options["config"])}
    except Underway as state:
        module.fail_json(
            underway=str(state),
            msg=f"Patroni: nothing was changed, because PostgreSQL does not serve yet: {state}. It goes on without this run. To look at it, type: "
            f"docker exec {options['project']}-{options['service']}-1 patronictl list",
        )
    except (PatroniError, PsqlError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"Patroni: {error}")
    for name, values in result["pending_restart"].items():
        module.warn(
            f"PostgreSQL runs with {name} = {values['running']} until it is restarted; configured is "
            f"{values['configured']}. Restart it when users can wait: ansible-playbook … berth.odoo.restart_rolling"
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
