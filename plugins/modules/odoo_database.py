#!/usr/bin/python
# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: odoo_database
short_description: Make an empty database an Odoo database and keep its administrator and parameters
version_added: 0.1.0
description:
  - Initialises the empty database of an instance that M(berth.odoo.compose_project) deployed, without demo data, with a language, a
    country and an administrator. An initialisation that was interrupted is continued.
  - Afterwards keeps the administrator's login and password, the language and chosen system parameters as given.
  - Creates no database and drops none. A database that holds other tables is refused.
  - Asks a container that runs, in about 0.2 s; only when something has to change it starts a container of the project's service
    C(maintenance). Operations on one database exclude each other by an advisory lock in it, from whatever host they come.
  - Odoo's own C(odoo db init) is not used. It wants to create the database itself, and ends with 0 when the initialisation failed.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Predicts. Where nothing is deployed yet, everything is predicted to be created.
    support: full
  diff_mode:
    description: Shows the managed facts before and after, never a password.
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
  language:
    description: Language to load. On initialisation it also becomes the administrator's. Nobody's choice is changed later.
    type: str
    default: en_US
  country:
    description:
      - Two-letter code of the main company's country, with its currency and, when it has only one, its time zone.
      - Used on initialisation only; afterwards it is business data.
    type: str
  admin_login:
    description: Login of the administrator, the user that Odoo made with the database.
    type: str
    default: admin
  admin_password:
    description: Password of the administrator. Reaches Odoo through standard input.
    type: str
    required: true
  update_password:
    description: V(always) sets the password again when it is another one, V(on_create) only on initialisation.
    type: str
    choices: [always, on_create]
    default: always
  parameters:
    description: System parameters (C(ir.config_parameter)) to keep, by key. The others are left alone.
    type: dict
    default: {}
  lock_timeout:
    description: Seconds to wait for another operation on this database.
    type: int
    default: 300
  timeout:
    description: Seconds after which Odoo is ended.
    type: int
    default: 1800
seealso:
  - module: berth.odoo.odoo_module
  - module: berth.odoo.compose_project
"""

EXAMPLES = r"""
- name: Initialise the database
  berth.odoo.odoo_database:
    project: odoo-main
    country: DE
    admin_login: operations@example.com
    admin_password: "{{ odoo_admin_password }}"
    parameters:
      web.base.url: https://odoo.example.com
      web.base.url.freeze: "True"
"""

RETURN = r"""
database:
  description: Name of the database; empty when nothing is deployed yet.
  returned: always
  type: str
  sample: main
version:
  description: Version of C(base) in the database; empty when it is not initialised.
  returned: always
  type: str
  sample: 19.0.1.3
changes:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [set system parameter web.base.url]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._compose_files import HostError
from ..module_utils._docker_api import DockerError, DockerUnavailable
from ..module_utils._odoo import database_changes, database_view, password_matches, wanted_view
from ..module_utils._odoo_project import OdooError, OdooProject, Silent
from ..module_utils._validate import COUNTRY, COUNTRY_RULE, LANGUAGE, LANGUAGE_RULE


def read_wanted(params: dict[str, Any]) -> dict[str, Any]:
    """Return what the database shall be. Raises OdooError for values that cannot be."""
    country = (params["country"] or "").upper()
    if country and not COUNTRY.fullmatch(country):
        raise OdooError(f"country {params['country']!r} must be {COUNTRY_RULE}")
    if not LANGUAGE.fullmatch(params["language"]):
        raise OdooError(f"language {params['language']!r} must be {LANGUAGE_RULE}")
    if not params["admin_login"].strip() or not params["admin_password"]:
        raise OdooError("admin_login and admin_password must not be empty")
    return {
        "language": params["language"],
        "country": country,
        "login": params["admin_login"].strip(),
        "parameters": {str(key): str(value) for key, value in params["parameters"].items()},
    }


def read_state(project: OdooProject, wanted: dict[str, Any], module: AnsibleModule) -> dict[str, Any] | None:
    """Return the database's state, None when there is nothing to ask yet."""
    question = {"do": "state", "parameters": list(wanted["parameters"])}
    try:
        return project.ask(question)
    except Silent:
        if project.deployed and not module.check_mode:
            return project.work(question, module.params["timeout"])[0]
        return None


def password_is_right(project: OdooProject, state: dict[str, Any], module: AnsibleModule) -> bool:
    """Tell whether the administrator has the wanted password, or nobody asked for that."""
    password, stored = module.params["admin_password"], state["password_hash"]
    if module.params["update_password"] == "on_create" or not state["initialised"]:
        return True
    if project.password_is_known(stored, password):
        return True
    matches = password_matches(stored, password)
    if matches is None:
        raise OdooError("the administrator's password is stored in a way that this module cannot check: set update_password to on_create")
    if matches and not module.check_mode:
        project.note_password(stored, password)
    return matches


def converge(module: AnsibleModule, project: OdooProject) -> dict[str, Any]:
    """Compare, change unless in check mode, compare again, and return the module's result."""
    wanted = read_wanted(module.params)
    state = read_state(project, wanted, module)
    if state is None:
        if not module.check_mode:
            raise OdooError(f"project {project.name} is not on this host: run compose_project for it first")
        return {"changed": True, "database": "", "version": "", "changes": ["initialise the database"]}
    right = password_is_right(project, state, module)
    changes = database_changes(wanted, state, right)
    result = {"changed": bool(changes), "changes": changes}
    if module._diff:
        result["diff"] = {"before": database_view(state, wanted), "after": wanted_view(state, wanted, right)}
    if changes and not module.check_mode:
        request = {
            "do": "converge",
            **wanted,
            "password": module.params["admin_password"],
            "set_password": not right,
            "wait": module.params["lock_timeout"],
        }
        state, logged = project.work(request, module.params["timeout"])
        for line in logged:
            module.warn(f"Odoo logged: {line}")
        left = database_changes(wanted, state, password_right=True)
        if left:
            raise OdooError("Odoo reported success, and this is still to do: " + "; ".join(left))
        if module.params["update_password"] == "always":
            # Odoo has just hashed it.
            project.note_password(state["password_hash"], module.params["admin_password"])
    return {"database": state["database"], "version": state["version"], **result}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "base_dir": {"type": "path", "default": "/opt/berth"},
            "language": {"type": "str", "default": "en_US"},
            "country": {"type": "str"},
            "admin_login": {"type": "str", "default": "admin"},
            "admin_password": {"type": "str", "required": True, "no_log": True},
            "update_password": {"type": "str", "choices": ["always", "on_create"], "default": "always", "no_log": False},
            "parameters": {"type": "dict", "default": {}},
            "lock_timeout": {"type": "int", "default": 300},
            "timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    project = OdooProject(module.params["project"], module.params["base_dir"], "odoo_database")
    try:
        module.exit_json(**converge(module, project))
    except (OdooError, HostError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"{project.name}: {error}")


if __name__ == "__main__":
    main()
