# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read all hosts' variables and judge them on the controller; documented in plugins/modules/preflight.py."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.berth.odoo.plugins.module_utils import _preflight, _validate

display = Display()

ROLES = Path(__file__).parents[2] / "roles"

ARGUMENTS: dict[str, dict[str, Any]] = {
    "tier_hosts": {"type": "dict", "required": True},
    "hosts": {"type": "dict", "required": True},
    "other_hosts": {"type": "list", "elements": "dict", "default": []},
    "minimum_memory_mb": {"type": "int", "default": 900},
    "minimum_disk_gb": {"type": "int", "default": 18},
    "minimum_free_gb": {"type": "int", "default": 5},
    "cpu_flags": {"type": "list", "elements": "str", "default": ["sse4_2", "popcnt"]},
    "maximum_clock_skew_s": {"type": "float", "default": 2.0},
    "minimum_secret_length": {"type": "int", "default": 20, "no_log": False},
    "require_image_digests": {"type": "bool", "default": False},
    "ignored_variables": {"type": "list", "elements": "str", "default": []},
}


def read_specifications(roles: Path) -> dict[str, dict[str, Any]]:
    """Return role to the options of its argument specification, for every role of the collection."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506, a safe loader
        found[path.parents[1].name] = content["argument_specs"]["main"].get("options") or {}
    return found


class ActionModule(ActionBase):
    """Report every problem, or print the plan."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run on the controller. Arguments and results: see the module's documentation."""
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            specifications = read_specifications(ROLES)
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise AnsibleActionFail(f"cannot read the roles' argument specifications: {error}") from error
        known = {name for options in specifications.values() for name in options}
        # What is typed with -e wins also over what the playbooks hand over.
        typed = known & set(load_extra_vars(self._loader))
        answers = {name: (answer, False) for name, answer in arguments["hosts"].items()}
        answers.update({answer["item"]: (answer, True) for answer in arguments["other_hosts"]})
        variables = task_vars or {}
        hosts = {name: self._host(name, *answers[name], known, variables) for name in sorted(answers, key=variables["groups"]["all"].index)}
        report = _preflight.examine(
            hosts,
            {tier: list(names or []) for tier, names in arguments["tier_hosts"].items()},
            specifications,
            _preflight.Rules(
                minimum_memory_mb=arguments["minimum_memory_mb"],
                minimum_disk_gb=arguments["minimum_disk_gb"],
                minimum_free_gb=arguments["minimum_free_gb"],
                cpu_flags=tuple(arguments["cpu_flags"]),
                maximum_clock_skew_s=arguments["maximum_clock_skew_s"],
                minimum_secret_length=arguments["minimum_secret_length"],
                require_image_digests=arguments["require_image_digests"],
                ignored_variables=(*arguments["ignored_variables"], *typed),
            ),
            int(time.time()),
        )
        return self._tell(report, hosts)

    def _host(self, name: str, answer: Any, limited: bool, known: Iterable[str], task_vars: dict[str, Any]) -> _preflight.Host:
        """Collect a host's variables.

        Those of the inventory are the host's own. Those of the play and of roles (a playbook's ``vars``) are the same
        for every host and are only seen through the task.
        """
        hostvars = task_vars["hostvars"]
        own = hostvars.raw_get(name)
        mine = hostvars.raw_get(task_vars["inventory_hostname"])
        variables: dict[str, Any] = {}
        unrenderable: dict[str, str] = {}
        for variable in known:
            if variable not in own and (variable not in task_vars or variable in mine):
                continue
            try:
                value = hostvars[name][variable] if variable in own else self._templar.template(task_vars[variable])
                variables[variable] = _preflight.render(value)
            except AnsibleError as error:
                secret = _validate.is_secret(variable)
                unrenderable[variable] = type(error).__name__ if secret else " ".join(str(error).split())[:300]
        everybodys = {variable: value for variable, value in task_vars.items() if variable not in mine}
        data_dirs = self._data_dirs({**everybodys, **own}, variables.get("odoo_instances"))
        if data_dirs:
            unrenderable.pop(_preflight.DATA_DIR, None)
        facts, failure = _facts(answer)
        return _preflight.Host(variables, [str(key) for key in own], unrenderable, facts, failure, limited, data_dirs)

    def _data_dirs(self, variables: Mapping[str, Any], instances: Any) -> dict[str, str]:
        """Return the directory of each instance, as the role will see it; nothing where the inventory says nothing or it has no value."""
        if _preflight.DATA_DIR not in variables or not isinstance(instances, Mapping):
            return {}
        try:
            return {
                str(name): str(
                    self._templar.copy_with_new_env(available_variables={**variables, "odoo_name": name}).template(
                        variables[_preflight.DATA_DIR]
                    )
                )
                for name in instances
            }
        except AnsibleError:
            return {}

    @staticmethod
    def _tell(report: _preflight.Report, hosts: Mapping[str, Any]) -> dict[str, Any]:
        lines = [f"note: {note}" for note in report.notes]
        if report.problems:
            lines += ["", *_validate.format_problems(report.problems, hosts)]
        else:
            lines = [*report.table, *lines]
        display.display("\n" + "\n".join(lines) + "\n")
        if report.problems:
            # Ansible shows the whole result of a failed task: the list was printed for people, once is enough.
            return {"changed": False, "failed": True, "msg": f"{len(report.problems)} problem(s), listed above. Nothing was changed."}
        return {"changed": False, "notes": report.notes, "plan": report.plan}


def _facts(answer: Any) -> tuple[Mapping[str, Any] | None, str]:
    """Return what the host said, or why it said nothing."""
    if isinstance(answer, Mapping) and isinstance(answer.get("host"), Mapping):
        return answer["host"], ""
    # Where no module ran at all (sudo, Python), the reason is what the remote shell said.
    message = (answer.get("module_stderr") or answer.get("msg")) if isinstance(answer, Mapping) else None
    kind = "unreachable" if isinstance(answer, Mapping) and answer.get("unreachable") else "could not be read"
    words = " ".join(str(message or "no answer").split()).removeprefix("Task failed: ")
    return None, f"{kind}: {words[:300]}"
