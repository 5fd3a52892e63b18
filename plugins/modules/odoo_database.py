#!/usr/bin/python
# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: odoo_database
short_description: Make an empty database an Odoo database and keep its administrator, modules, parameters and tables
version_added: 0.1.0
description:
  - Initialises the empty database of an instance that M(berth.odoo.compose_project) deployed, without demo data, with a language, a
    country and an administrator. An initialisation that was interrupted is continued.
  - Afterwards keeps the administrator's login and password, the language and chosen system parameters as given, and modules installed.
  - Keeps storage parameters, statistics and indexes of those tables of Odoo for which PostgreSQL's general ones are wrong. The list, with
    the reason and the source of each, is in the collection's C(plugins/module_utils/_odoo_tables.py). Nothing else is changed, and
    a table that does not exist is left out until its module is installed.
  - Tables are changed beside their users, who keep reading and writing. A table that somebody else keeps locked, or an index that waits
    for somebody's transaction, is tried twice, for seven seconds in all, and then left for the next run, with a warning.
  - Updates modules of which the image has a newer version than the database, when O(update_modules) allows it. Otherwise such an image is refused,
    and always one that lacks a module that is installed. Where the image's version is the older one, a warning says so.
  - Creates no database and drops none. A database that holds other tables is refused, and before anything is changed also modules that
    the image does not have.
  - Asks a container that runs, in about 0.2 s; only when something has to change it starts a container of the project's service
    C(maintenance). Operations on one database exclude each other by an advisory lock in it, from whatever host they come.
  - Odoo's own C(odoo db init) is not used. It wants to create the database itself, and ends with 0 when the initialisation failed.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description:
      - Predicts. Where nothing is deployed yet, everything is predicted to be created; tables of modules that are not installed yet
        are not known.
    support: full
  diff_mode:
    description: Shows the managed facts before and after, of tables those that differ, never a password.
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
    description: Password of the administrator. Reaches Odoo through standard input. Required, except with O(only_check).
    type: str
  update_password:
    description: V(always) sets the password again when it is another one, V(on_create) only on initialisation.
    type: str
    choices: [always, on_create]
    default: always
  parameters:
    description:
      - System parameters (C(ir.config_parameter)) to keep, by key. The others are left alone.
      - A module that is installed in the same run does not change them.
      - C(auth_signup.invitation_scope), where it is among them, is also what all websites say, which the module C(website) asks instead.
    type: dict
    default: {}
  attachments_in_database:
    description:
      - Copy attachments that are in files of this host into the database. The files stay. Where new ones go is decided by the system parameter
        C(ir_attachment.location), V(db) or V(file), which must be among O(parameters) with V(db).
      - Attachments whose file is not on this host are left alone, with a warning.
    type: bool
    default: false
  oidc:
    description:
      - OpenID provider at which people sign in. Its record in the database is kept as given here and as the provider says of itself. The button of
        Odoo.com, which comes with the module, is taken away. The module C(auth_oidc) must be among O(modules).
      - The provider is asked in each run. While it does not answer, what is known of it stays, with a warning.
      - Without it, a provider that was given before is taken from the login page. Users stay linked to it.
      - The client secret is not handed to this module, and one that somebody typed into the record is removed.
    type: dict
    suboptions:
      issuer:
        description: Address of the provider, C(https), exactly as it calls itself.
        type: str
        required: true
      client_id:
        description: What the provider calls this instance.
        type: str
        required: true
      label:
        description: Text of the button on the login page.
        type: str
        default: Single sign-on
      authority_certificate:
        description: PEM text of the authorities that sign the provider's certificate. Without it the public ones.
        type: str
        default: ""
      passwords:
        description:
          - With V(false) neither the administrator nor a user that is linked to a provider has a password; each run takes one that somebody gave.
            O(admin_password) is what the administrator gets when it is V(true) again.
          - Refused while no active administrator is linked to this provider.
        type: bool
        default: true
  modules:
    description: Technical names of modules that shall be installed. Others are left alone; M(berth.odoo.odoo_module) uninstalls.
    type: list
    elements: str
    default: []
  server_wide_modules:
    description:
      - Modules that Odoo's configuration says to load without being installed. Given before an image or configuration is taken into use, empty when
        none is. One that the image lacks is refused; Odoo itself would serve without it. A setting that Odoo cannot read is refused as well, and
        an image that does not fit the database, see O(update_modules).
      - Each run starts a container of the service C(maintenance) for the question, because those that run may have the former image. In check
        mode only those that run can be asked.
    type: list
    elements: str
    default: []
  update_modules:
    description:
      - Update installed modules of which the image that O(server_wide_modules) asks has a newer version. It cannot be undone but by a restore.
      - The services of O(pause) stop meanwhile; the others serve on with their own code.
      - An update that failed or was killed is begun anew by the next run that allows it; others are refused.
    type: bool
    default: false
  only_check:
    description:
      - Name of a database that is to take the place of the instance's, and has the same owner. Nothing is changed; it is refused when the image lacks one of
        its modules, and a warning names those of which the image has another version. Needs O(server_wide_modules), of which C([base]) will do.
    type: str
    default: ""
  table_parameters:
    description:
      - Entries by table that replace the collection's or come beside them. V(null) in place of an entry or a whole table takes the
        collection's out, and what the database has stays as it is.
      - An entry is a storage parameter of PostgreSQL, with C(toast.) before it for the table's TOAST table; C(statistics(column)) with
        a statistics target; C(statistics(column, column)) or C(index(column)) with V(true).
      - A fillfactor holds for pages that are written from then on. New statistics are collected at once.
    type: dict
    default: {}
  pause:
    description: Services of the project to stop while modules are installed. They finish their current work first.
    type: list
    elements: str
    default: [cron]
  lock_timeout:
    description: Seconds to wait for another operation on this project or its database.
    type: int
    default: 300
  timeout:
    description: Seconds after which Odoo is ended. An update of a large database takes hours.
    type: int
    default: 14400
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
    modules: [stock, sale_management, auth_oidc]
    oidc:
      issuer: https://login.example.com/realms/acme
      client_id: odoo
    table_parameters:
      stock_move: {fillfactor: 80, statistics(product_id): 1000}
      x_barcode_log: {index(create_date): true}
      mail_followers: null
"""

RETURN = r"""
database:
  description: Name of the database; empty when nothing is deployed yet.
  returned: without O(only_check)
  type: str
  sample: main
version:
  description: Version of C(base) in the database; empty when it is not initialised.
  returned: without O(only_check)
  type: str
  sample: 19.0.1.3
changes:
  description: What was done, or would be in check mode.
  returned: without O(only_check)
  type: list
  elements: str
  sample: [set system parameter web.base.url, "set on table bus_bus: autovacuum_vacuum_threshold = 5000 (was 50)"]
installed:
  description: Modules that are installed now and were not before, dependencies included. Empty in check mode.
  returned: without O(only_check)
  type: list
  elements: str
  sample: [sale, sale_management]
updated:
  description: Modules that were updated.
  returned: without O(only_check)
  type: list
  elements: str
  sample: [acme_dock]
locked:
  description: What could not be done to tables because they were in use, and by whom. The next run tries again.
  returned: without O(only_check)
  type: list
  elements: str
"""

from collections.abc import Iterable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._compose_files import HostError
from ..module_utils._docker_api import DockerError, DockerUnavailable
from ..module_utils._odoo import (
    after_problems,
    database_changes,
    database_view,
    modules_to_change,
    name_problems,
    password_matches,
    wanted_view,
)
from ..module_utils._odoo_inside import listed, table_steps, unknown_entries
from ..module_utils._odoo_oidc import password_problem, provider_record, value_problems
from ..module_utils._odoo_project import OdooError, OdooProject, Silent
from ..module_utils._odoo_tables import absent_tables, check_tables, merge_tables
from ..module_utils._validate import COUNTRY, COUNTRY_RULE, LANGUAGE, LANGUAGE_RULE, nearest

PROVIDER = {
    "issuer": {"type": "str", "required": True},
    "client_id": {"type": "str", "required": True},
    "label": {"type": "str", "default": "Single sign-on"},
    "authority_certificate": {"type": "str", "default": ""},
    "passwords": {"type": "bool", "default": True, "no_log": False},
}


def read_wanted(params: dict[str, Any]) -> dict[str, Any]:
    """Return what the database shall be. Raises OdooError for values that cannot be."""
    country = (params["country"] or "").upper()
    if country and not COUNTRY.fullmatch(country):
        raise OdooError(f"country {params['country']!r} must be {COUNTRY_RULE}")
    if not LANGUAGE.fullmatch(params["language"]):
        raise OdooError(f"language {params['language']!r} must be {LANGUAGE_RULE}")
    if not params["admin_login"].strip() or not params["admin_password"]:
        raise OdooError("admin_login and admin_password must not be empty")
    if params["attachments_in_database"] and params["parameters"].get("ir_attachment.location") != "db":
        raise OdooError(
            "attachments_in_database needs the system parameter ir_attachment.location: db among parameters, or new ones go into files"
        )
    problems = name_problems(params["modules"])
    problems += [
        f"{item.subject} is {item.found}, not {item.expected}: {item.remedy}" for item in check_tables("", params["table_parameters"])
    ]
    problems += [f"oidc.{key} is {found}, not {expected}" for key, found, expected in value_problems(params["oidc"] or {})]
    if problems:
        raise OdooError("\n".join(problems))
    return {
        "language": params["language"],
        "country": country,
        "login": params["admin_login"].strip(),
        "parameters": {str(key): str(value) for key, value in params["parameters"].items()},
        "attachments_in_database": params["attachments_in_database"],
        "modules": list(dict.fromkeys(params["modules"])),
        "tables": merge_tables(params["table_parameters"]),
        # The record follows from what the provider says.
        "provider": {},
        "passwords": params["oidc"] is None or params["oidc"]["passwords"],
    }


def read_state(project: OdooProject, wanted: dict[str, Any], module: AnsibleModule) -> dict[str, Any] | None:
    """Return the database's state, None when there is nothing to ask yet."""
    question = {
        "do": "state",
        "parameters": list(wanted["parameters"]),
        "tables": wanted["tables"],
        "attachments_in_database": wanted["attachments_in_database"],
        "oidc": module.params["oidc"],
        "wait": module.params["lock_timeout"],
    }
    try:
        return project.ask(question)
    except Silent:
        if project.deployed and not module.check_mode:
            return project.work(question, module.params["timeout"])[0]
        return None


def password_is_kept(module: AnsibleModule, wanted: dict[str, Any]) -> bool:
    """Tell whether the administrator has the given password, and not one of its own or none."""
    return bool(wanted["passwords"] and module.params["update_password"] == "always")


def password_is_right(project: OdooProject, state: dict[str, Any], module: AnsibleModule, wanted: dict[str, Any]) -> bool:
    """Tell whether the administrator has the wanted password, or nobody asked for that."""
    password, stored = module.params["admin_password"], state["password_hash"]
    if not password_is_kept(module, wanted) or not state["initialised"]:
        return True
    if project.password_is_known(stored, password):
        return True
    matches = password_matches(stored, password)
    if matches is None:
        raise OdooError("the administrator's password is stored in a way that this module cannot check: set update_password to on_create")
    if matches and not module.check_mode:
        project.note_password(stored, password)
    return matches


def work(module: AnsibleModule, project: OdooProject, wanted: dict[str, Any], state: dict[str, Any], set_password: bool) -> dict[str, Any]:
    """Change everything but tables alone, check it, and return the state afterwards."""
    request = {
        "do": "converge",
        **wanted,
        "password": module.params["admin_password"],
        "set_password": set_password,
        "wait": module.params["lock_timeout"],
        "only_check": False,
    }
    timeout = module.params["timeout"]
    installs = bool(state["unfinished"] or wanted["update"] or modules_to_change(wanted["modules"], True, state["modules"]))
    pause = module.params["pause"] if installs else []
    if project.runs(pause):
        # A refusal must not stop anything.
        project.work({**request, "only_check": True}, timeout)
    after, logged = project.work(request, timeout, pause)
    # What somebody stored in a file meanwhile is the next run's.
    left = database_changes(wanted, {**after, "files": 0}, password_right=True)
    if installs:
        left += after_problems(wanted["modules"], True, after)
    newer = {other["name"]: other for other in after["others"] if other["newer"]}
    left += [f"update {name}" for name in wanted["update"] if name in newer]
    if left:
        raise OdooError("\n".join(["Odoo reported success, but this is left:", *left, *logged]))
    for line in logged:
        module.warn(f"Odoo logged: {line}")
    if newer:
        # The containers that run have it: the database is of before.
        module.warn(outdated(state["database"], newer.values()))
    if password_is_kept(module, wanted):
        # Odoo has just hashed it.
        project.note_password(after["password_hash"], module.params["admin_password"])
    return after


def warn_about_leftovers(module: AnsibleModule, wanted: dict[str, Any], state: dict[str, Any]) -> None:
    """Say what of the tables could not be done or means nothing, and which attachments are nowhere to be found."""
    if state.get("files_elsewhere"):
        module.warn(
            f"{state['files_elsewhere']} attachments of {state['database']} are in files that this host does not have: run this where they are, or bring "
            "them into its data directory"
        )
    for text in state.get("tables_locked", []):
        module.warn(f"left for the next run: {text}")
    for text in unknown_entries(wanted["tables"], state["tables"]):
        module.warn(f"table_parameters.{text}")
    for table in absent_tables(module.params["table_parameters"], wanted["tables"], state["tables"]) if state["initialised"] else ():
        match = nearest(table, state["tables"], 0.8)
        module.warn(f"table_parameters.{table}: the database has no such table" + (f"; did you mean {match}?" if match else ""))


def read_provider(module: AnsibleModule, state: dict[str, Any]) -> dict[str, Any]:
    """Return what the OpenID provider's record shall be. Raises OdooError where nobody could sign in, or nobody who sets Odoo up."""
    try:
        record, remark = provider_record(module.params["oidc"], state["oidc"])
    except ValueError as error:
        raise OdooError(str(error)) from error
    if remark:
        module.warn(remark)
    if not module.params["oidc"]["passwords"] and (problem := password_problem(state["oidc"])):
        raise OdooError(problem)
    return record


def outdated(database: str, newer: Iterable[dict[str, Any]]) -> str:
    """Say that modules of a database are older than those of the image."""
    versions = listed(other["text"] for other in newer)
    return (
        f"database {database} has older modules than the image: {versions}. New code would serve on tables of before. Make a backup, then run again "
        "with update_modules, which in playbooks is -e odoo_update_modules=true"
    )


def check_image(module: AnsibleModule, project: OdooProject) -> list[dict[str, Any]]:
    """Refuse an image that does not fit, and return the modules to update; in check mode warn by the image that runs now."""
    names = module.params["server_wide_modules"]
    if not names or not project.deployed:
        return []
    question = {"do": "loadable", "names": names, "database": module.params["only_check"], "wait": module.params["lock_timeout"]}
    if module.check_mode:
        try:
            project.ask(question)
        except Silent:
            pass
        except OdooError as error:
            module.warn(f"with the image that runs now this would be refused: {error}")
        return []
    answer, _logged = project.work(question, module.params["timeout"])
    newer = [other for other in answer["others"] if other["newer"]]
    if older := listed(other["text"] for other in answer["others"] if not other["newer"]):
        module.warn(f"the image has older modules than database {answer['database']}: {older}")
    if newer and module.params["only_check"]:
        module.warn(outdated(answer["database"], newer))
    elif newer and not module.params["update_modules"]:
        raise OdooError(f"nothing was restarted. {outdated(answer['database'], newer)}")
    return newer


def converge(module: AnsibleModule, project: OdooProject) -> dict[str, Any]:
    """Compare, change unless in check mode, compare again, and return the module's result."""
    if module.params["only_check"]:
        check_image(module, project)
        return {"changed": False}
    wanted = read_wanted(module.params)
    newer = check_image(module, project)
    wanted["update"] = [other["name"] for other in newer]
    state = read_state(project, wanted, module)
    if state is None:
        if not module.check_mode:
            raise OdooError(f"project {project.name} is not on this host: run compose_project for it first")
        changes = ["initialise the database"]
        return {"changed": True, "database": "", "version": "", "changes": changes, "installed": [], "updated": [], "locked": []}
    if module.params["oidc"]:
        wanted["provider"] = read_provider(module, state)
    right = password_is_right(project, state, module, wanted)
    changes = [f"update {other['text']}" for other in newer]
    changes += database_changes(wanted, state, right)
    steps = table_steps(wanted["tables"], state["tables"])
    result: dict[str, Any] = {}
    if module._diff:
        result["diff"] = {"before": database_view(state, wanted, steps), "after": wanted_view(state, wanted, right, steps)}
        for side, key in (("before", "was"), ("after", "now")):
            result["diff"][side].update({f"version of {other['name']}": other[key] for other in newer})
    after = state
    if module.check_mode:
        done = [step.text for step in steps]
        for problem in project.module_problems(modules_to_change(wanted["modules"], True, state["modules"])):
            module.warn(f"with the image that runs now the installation would be refused: {problem}")
    else:
        if changes:
            after = work(module, project, wanted, state, not right)
        elif steps:
            question = {"do": "tables", "parameters": [], "tables": wanted["tables"], "wait": module.params["lock_timeout"]}
            after = project.work(question, module.params["timeout"])[0]
        done = after.get("tables_done", [])
        still = table_steps(wanted["tables"], after["tables"])
        if len(still) > len(after.get("tables_locked", [])):
            raise OdooError("PostgreSQL reported success, and this is still to do: " + "; ".join(step.text for step in still))
    warn_about_leftovers(module, wanted, after)
    was, now = ({name for name, how in side["modules"].items() if how == "installed"} for side in (state, after))
    return {
        "changed": bool(changes or done),
        "database": after["database"],
        "version": after["version"],
        "changes": [*changes, *done],
        "installed": sorted(now - was),
        "updated": wanted["update"],
        "locked": after.get("tables_locked", []),
        **result,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "base_dir": {"type": "path", "default": "/opt/berth"},
            "language": {"type": "str", "default": "en_US"},
            "country": {"type": "str"},
            "admin_login": {"type": "str", "default": "admin"},
            "admin_password": {"type": "str", "no_log": True},
            "update_password": {"type": "str", "choices": ["always", "on_create"], "default": "always", "no_log": False},
            "parameters": {"type": "dict", "default": {}},
            "attachments_in_database": {"type": "bool", "default": False},
            "oidc": {"type": "dict", "options": PROVIDER},
            "modules": {"type": "list", "elements": "str", "default": []},
            "server_wide_modules": {"type": "list", "elements": "str", "default": []},
            "update_modules": {"type": "bool", "default": False},
            "only_check": {"type": "str", "default": ""},
            "table_parameters": {"type": "dict", "default": {}},
            "pause": {"type": "list", "elements": "str", "default": ["cron"]},
            "lock_timeout": {"type": "int", "default": 300},
            "timeout": {"type": "int", "default": 14400},
        },
        required_one_of=[("admin_password", "only_check")],
        required_by={"only_check": ["server_wide_modules"]},
        supports_check_mode=True,
    )
    project = OdooProject(module.params["project"], module.params["base_dir"], "odoo_database")
    try:
        module.exit_json(**converge(module, project))
    except (OdooError, HostError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"{project.name}: {error}")


if __name__ == "__main__":
    main()
