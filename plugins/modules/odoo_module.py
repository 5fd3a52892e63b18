#!/usr/bin/python
# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: odoo_module
short_description: Install or uninstall Odoo modules
version_added: 0.1.0
description:
  - Makes the named modules installed, or not installed, in the database of an instance that M(berth.odoo.compose_project) deployed. Only
    the difference is worked on; modules that are not named are left alone, and nothing is upgraded.
  - Before anything is changed it refuses modules that the image does not have, dependencies that it does not have, a database of
    another version, a database that is not initialised, and one where another operation is unfinished.
  - Afterwards it checks that every module is in the wanted state. Odoo itself reports success after many failures.
  - Asks a container that runs, in about 0.2 s; only when something has to change it starts a container of the project's service
    C(maintenance). Web workers notice new modules by themselves.
  - Operations on one database exclude each other by an advisory lock in it, from whatever host they come. An operation of this module
    that was killed is cleaned up by the next one.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Predicts. Where nothing is deployed yet, every module is predicted to be installed.
    support: full
  diff_mode:
    description: Shows the installed modules among the named ones.
    support: full
options:
  project:
    description: Compose project of the instance. Its service C(maintenance) must reach PostgreSQL without a transaction pooler.
    type: str
    required: true
  base_dir:
    description: Directory that holds the projects.
    type: path
    default: /opt/berth
  name:
    description: Technical names of the modules.
    type: list
    elements: str
    required: true
    aliases: [modules]
  state:
    description:
      - V(present) installs what is not installed, with its dependencies.
      - V(absent) uninstalls with all data of the modules. It is refused when that would take others along.
    type: str
    choices: [present, absent]
    default: present
  pause:
    description:
      - Services of the project to stop meanwhile. They finish their current work first.
      - A scheduled action that runs during an installation fails or makes the installation fail.
    type: list
    elements: str
    default: [cron]
  lock_timeout:
    description: Seconds to wait for another operation on this project or its database.
    type: int
    default: 300
  timeout:
    description: Seconds after which Odoo is ended.
    type: int
    default: 14400
seealso:
  - module: berth.odoo.odoo_database
  - module: berth.odoo.compose_project
"""

EXAMPLES = r"""
- name: Install the modules
  berth.odoo.odoo_module:
    project: odoo-main
    name: [stock, sale_management]
"""

RETURN = r"""
database:
  description: Name of the database; empty when nothing is deployed yet.
  returned: always
  type: str
  sample: main
requested:
  description: Named modules that were not in the wanted state.
  returned: always
  type: list
  elements: str
  sample: [sale_management]
installed:
  description: Modules that are installed now and were not before, dependencies included. Empty in check mode.
  returned: always
  type: list
  elements: str
  sample: [sale, sale_management]
uninstalled:
  description: Modules that were installed before and are not now. Empty in check mode.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._compose_files import HostError
from ..module_utils._docker_api import DockerError, DockerUnavailable
from ..module_utils._odoo import after_problems, modules_to_change, name_problems
from ..module_utils._odoo_project import OdooError, OdooProject, Silent


def read_state(project: OdooProject, module: AnsibleModule) -> dict[str, Any] | None:
    """Return the database's state, None when there is nothing to ask yet."""
    question = {"do": "state", "parameters": [], "tables": {}, "wait": module.params["lock_timeout"]}
    try:
        return project.ask(question)
    except Silent:
        if project.deployed and not module.check_mode:
            return project.work(question, module.params["timeout"])[0]
        return None


def converge(module: AnsibleModule, project: OdooProject) -> dict[str, Any]:
    """Compare, change unless in check mode, check, and return the module's result."""
    names, install = module.params["name"], module.params["state"] == "present"
    problems = name_problems(names)
    if problems:
        raise OdooError("\n".join(problems))
    state = read_state(project, module)
    if state is None and not module.check_mode:
        raise OdooError(f"project {project.name} is not on this host: run compose_project for it first")
    before = state["modules"] if state else {}
    wrong = modules_to_change(names, install, before)
    # An operation of ours that died is cleaned up also when it got as far as the named modules.
    unfinished = bool(state and state["unfinished"] and state["initialised"])
    result: dict[str, Any] = {
        "changed": bool(wrong or unfinished),
        "database": state["database"] if state else "",
        "requested": wrong,
        "installed": [],
        "uninstalled": [],
    }
    if module._diff:
        present = {name for name in names if (name in wrong) != install}
        sides = {"before": present, "after": set(names) if install else set()}
        result["diff"] = {side: "".join(f"{name}\n" for name in sorted(shown)) for side, shown in sides.items()}
    if not result["changed"]:
        return result
    if module.check_mode:
        for problem in project.module_problems(wrong) if state and install else ():
            module.warn(f"with the image that runs now the installation would be refused: {problem}")
        return result
    request = {
        "do": "modules",
        "install": wrong if install else [],
        "uninstall": [] if install else wrong,
        "wait": module.params["lock_timeout"],
        "only_check": False,
    }
    if project.runs(module.params["pause"]):
        # A refusal must not stop anything.
        project.work({**request, "only_check": True}, module.params["timeout"])
    after, logged = project.work(request, module.params["timeout"], module.params["pause"])
    failures = after_problems(names, install, after)
    if failures:
        raise OdooError("\n".join(["Odoo reported success, but:", *failures, *logged]))
    for line in logged:
        module.warn(f"Odoo logged: {line}")
    was, now = ({name for name, how in side.items() if how == "installed"} for side in (before, after["modules"]))
    return {**result, "installed": sorted(now - was), "uninstalled": sorted(was - now)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "base_dir": {"type": "path", "default": "/opt/berth"},
            "name": {"type": "list", "elements": "str", "required": True, "aliases": ["modules"]},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "pause": {"type": "list", "elements": "str", "default": ["cron"]},
            "lock_timeout": {"type": "int", "default": 300},
            "timeout": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    project = OdooProject(module.params["project"], module.params["base_dir"], "odoo_module")
    try:
        module.exit_json(**converge(module, project))
    except (OdooError, HostError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"{project.name}: {error}")


if __name__ == "__main__":
    main()
