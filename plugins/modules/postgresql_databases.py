#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_databases
short_description: Converge roles and databases for Odoo in a PostgreSQL container
version_added: 0.1.0
description:
  - Brings roles, their passwords, databases and their privileges to what is given, in one task.
  - Runs C(psql) inside the container as the server's own user, so that the host needs neither a PostgreSQL client nor a
    driver and the superuser needs no password. The modules of C(community.postgresql) need a driver on the host and
    at least five tasks for the same.
  - Roles can log in and nothing else; what else they had is taken from them. Their passwords are sent as SCRAM-SHA-256 verifiers through
    standard input.
  - A template database is kept that has the extensions C(pg_trgm) and C(unaccent), with the function
    C(unaccent(text)) marked immutable as Odoo's trigram indexes need it. Databases are created from it, and existing
    ones get the same.
  - C(PUBLIC) loses its rights on the databases, the template, C(postgres) and C(template1), and its right to create anything in their
    schema C(public). Roles may connect to C(postgres), where Odoo listens for notifications.
  - Odoo's roles are exempt from C(idle_in_transaction_session_timeout), C(statement_timeout) and C(transaction_timeout), whatever the
    server has for others. A scheduled action that one of them cuts off loses its lock and runs again every minute.
  - A role that reads (O(roles[].reads)) may C(SELECT) from the tables, views and future tables of the owner, and nothing else. It does not
    read what holds passwords and keys, the tables C(auth_totp_device), C(fetchmail_server), C(iap_account), C(ir_config_parameter), C(ir_mail_server),
    C(payment_provider), C(payment_token) and C(res_users_apikeys), and the columns of C(res_users) whose names hold C(password), C(secret) or C(token).
    From those that a module installation makes it is kept by the next run.
  - A database of the list that allows no connections, as a restore that was interrupted while it exchanged two leaves one, allows them again.
  - Nothing is dropped but O(removed_databases) and O(removed_roles); roles and databases that are not listed are left alone.
  - After a change everything is read again, and what still differs is an error.
  - On a standby it changes nothing.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Predicts. Without a running container everything is predicted to be created.
    support: full
  diff_mode:
    description: Shows roles and databases before and the steps after, without passwords and verifiers.
    support: full
options:
  project:
    description: Compose project of the container.
    type: str
    default: postgresql
  service:
    description: Compose service of the container.
    type: str
    default: postgresql
  roles:
    description: Roles.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, C([a-z][a-z0-9_]*) of at most 63 characters and not one that PostgreSQL keeps for itself.
        type: str
        required: true
      password:
        description: Password. Every character works except newline and NUL. Without one the role can log in with a certificate only.
        type: str
      connection_limit:
        description: Connections the role may have at the same moment. V(-1) means no limit of its own.
        type: int
        default: -1
      settings:
        description:
          - Parameters of the role's sessions (C(ALTER ROLE … SET)), beside or in place of the three timeouts above. V(null) resets one.
          - Settings that are not named stay. Sessions that are open keep what they began with; those of a pooler end by themselves.
          - The same parameter for the role in a single database is reset, because it would win.
        type: dict
        default: {}
      member_of:
        description: Roles it is a member of, of O(roles) or C(pg_monitor), with which it may connect to every database. It leaves all others.
        type: list
        elements: str
        default: []
      reads:
        description: Databases of O(databases) that it reads. A role that reads may connect to these and to no other, not to C(postgres) either.
        type: list
        elements: str
        default: []
  databases:
    description: Databases.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, under the same rule as a role's.
        type: str
        required: true
      owner:
        description: Name of one of O(roles).
        type: str
        required: true
  removed_databases:
    description: Databases to drop, with everything in them and with whoever is connected.
    type: list
    elements: str
    default: []
  removed_roles:
    description: Roles to drop after O(removed_databases). One that owns another database is refused.
    type: list
    elements: str
    default: []
  template:
    description: Name of the template database.
    type: str
    default: template_odoo
  timeout:
    description: Seconds that the server may be silent. Creating a database copies the template.
    type: int
    default: 60
seealso:
  - module: berth.odoo.compose_project
  - module: berth.odoo.patroni_config
"""

EXAMPLES = r"""
- name: Converge the databases
  berth.odoo.postgresql_databases:
    roles:
      - name: odoo_main
        password: "{{ odoo_main_db_password }}"
        settings:
          work_mem: 64MB
      - name: main_analyst
        password: "{{ analyst_db_password }}"
        connection_limit: 5
        reads: [main]
        settings:
          default_transaction_read_only: true
          statement_timeout: 60s
      - name: berth_monitoring
        member_of: [pg_monitor]
        connection_limit: 5
    databases:
      - name: main
        owner: odoo_main

- name: Drop what an instance left
  berth.odoo.postgresql_databases:
    removed_databases: [shop]
    removed_roles: [shop, shop_login2]
"""

RETURN = r"""
steps:
  description: What was done, or would be in check mode, in its order.
  returned: always
  type: list
  elements: str
  sample: [create role odoo_main, set password of role odoo_main, create database main]
standby:
  description: Whether the server only repeats another one, which is where changes are made.
  returned: always
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._postgresql_objects import (
    ObjectsError,
    check_removed,
    check_wanted,
    describe,
    parse_state,
    plan,
    plan_opening,
    plan_removal,
    read_script,
    run_script,
)
from ..module_utils._psql import Container, PsqlError, find_container, psql

NOTHING: dict[str, Any] = {
    "in_recovery": False,
    "roles": {},
    "databases": {name: {"public": ["CONNECT"], "connect": []} for name in ("postgres", "template1")},
}


def converge(module: AnsibleModule, client: DockerClient, container: Container | None) -> dict[str, Any]:
    """Plan, run unless in check mode, check, and return the module's result."""
    wanted = module.params["roles"], module.params["databases"], module.params["template"]
    removed = {kind: module.params[f"removed_{kind}"] for kind in ("databases", "roles")}
    question = read_script(wanted[0], [database["name"] for database in wanted[1]], wanted[2], removed)
    state = parse_state(psql(client, container, question)) if container else NOTHING
    if state["in_recovery"]:
        return {"changed": False, "steps": [], "standby": True}
    before, opening = state, plan_opening(module.params["databases"], state)
    if container and opening and not module.check_mode:
        # Nobody can ask what is in one that is closed.
        psql(client, container, run_script(opening))
        state = parse_state(psql(client, container, question))
        steps = plan_removal(removed, state) + plan(*wanted, state)
    else:
        steps, opening = plan_removal(removed, state) + plan(*wanted, state), []
    texts = [step.text for step in opening + steps]
    result: dict[str, Any] = {"changed": bool(texts), "steps": texts, "standby": False}
    after = state
    if container and steps and not module.check_mode:
        psql(client, container, run_script(steps))
        after = parse_state(psql(client, container, question))
        left = plan_removal(removed, after) + plan(*wanted, after)
        if left:
            raise PsqlError("PostgreSQL took every statement and still differs: " + "; ".join(s.text for s in left))
    if module._diff:
        # In check mode there is no state after; the steps say what would become of it. A verifier shows in neither.
        shown = describe(after) + "".join(f"{text}\n" for text in texts)
        result["diff"] = {"before": describe(before), "after": shown}
    return result


class _SilentModule(AnsibleModule):
    """A module whose invocation does not go to the journal.

    Ansible masks a password there by looking for it in the printed list, where one with a quote or a backslash looks different. The
    constructor's no_log is overwritten by the task's, and no_log on the whole list would mask the roles' names in every message.
    """

    def _log_invocation(self) -> None:
        return


def main() -> None:
    """Module entry."""
    module = _SilentModule(
        argument_spec={
            "project": {"type": "str", "default": "postgresql"},
            "service": {"type": "str", "default": "postgresql"},
            "roles": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "no_log": True},
                    "connection_limit": {"type": "int", "default": -1},
                    "settings": {"type": "dict", "default": {}},
                    "member_of": {"type": "list", "elements": "str", "default": []},
                    "reads": {"type": "list", "elements": "str", "default": []},
                },
            },
            "databases": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "owner": {"type": "str", "required": True},
                },
            },
            "removed_databases": {"type": "list", "elements": "str", "default": []},
            "removed_roles": {"type": "list", "elements": "str", "default": []},
            "template": {"type": "str", "default": "template_odoo"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        check_wanted(options["roles"], options["databases"], options["template"])
        removed = {"databases": options["removed_databases"], "roles": options["removed_roles"]}
        check_removed(removed, options["roles"], options["databases"], options["template"])
        client = DockerClient(timeout=options["timeout"])
        container = find_container(client, options["project"], options["service"], optional=module.check_mode)
        module.exit_json(**converge(module, client, container))
    except (ObjectsError, PsqlError, DockerError, DockerUnavailable, ValueError) as error:
        module.fail_json(msg=f"PostgreSQL roles and databases: {error}")


if __name__ == "__main__":
    main()
