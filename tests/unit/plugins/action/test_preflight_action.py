# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of preflight: whose variable is whose, and what becomes of a value that cannot be rendered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template

from ansible_collections.berth.odoo.plugins.action import preflight, preflight_info
from ansible_collections.berth.odoo.plugins.module_utils._preflight import Report
from ansible_collections.berth.odoo.plugins.module_utils._validate import Problem


class Broken:
    """A variable whose rendering fails."""


class HostVars(dict[str, Any]):
    """As Ansible's: reading renders, raw_get does not."""

    def raw_get(self, host: str) -> Any:
        return dict.__getitem__(self, host)

    def __getitem__(self, host: str) -> Any:
        class Rendering(dict[str, Any]):
            def __getitem__(self, name: str) -> Any:
                value = dict.__getitem__(self, name)
                if isinstance(value, Broken):
                    raise AnsibleUndefinedVariable("'x' is undefined: {{ x }}-hidden")
                return value

            def get(self, name: str, default: Any = None) -> Any:
                return self[name] if name in self else default  # noqa: SIM401, get is what is defined here

        return Rendering(dict.__getitem__(self, host))


def action(module: Any, **arguments: Any) -> Any:
    plugin = object.__new__(module.ActionModule)
    plugin._task = SimpleNamespace(args=arguments, delegate_to=None)
    plugin._templar = SimpleNamespace(template=lambda value: f"rendered {value}")
    return plugin


def test_a_plays_variables_are_everybodys_and_a_hosts_own_are_not() -> None:
    hostvars = HostVars(vm1={"redis_memory_mb": 1}, vm2={"docker_log_driver": "local"})
    task_vars = {"hostvars": hostvars, "inventory_hostname": "vm1", "redis_memory_mb": 1, "host_timezone": "{{ zone }}"}
    known = ["redis_memory_mb", "docker_log_driver", "host_timezone"]
    first = action(preflight)._host("vm1", {"host": {}}, False, known, task_vars)
    second = action(preflight)._host("vm2", {"host": {}}, False, known, task_vars)
    assert first.variables == {"redis_memory_mb": 1, "host_timezone": "rendered {{ zone }}"}
    assert second.variables == {"docker_log_driver": "local", "host_timezone": "rendered {{ zone }}"}
    assert second.names == ["docker_log_driver"]


def test_what_cannot_be_rendered_is_named_and_a_secrets_reason_is_not_said() -> None:
    hostvars = HostVars(vm1={"redis_image": Broken(), "odoo_db_password": Broken()})
    host = action(preflight)._host(
        "vm1", {"host": {}}, False, ["redis_image", "odoo_db_password"], {"hostvars": hostvars, "inventory_hostname": "vm1"}
    )
    assert "'x' is undefined" in host.unrenderable["redis_image"]
    assert host.unrenderable["odoo_db_password"] == "AnsibleUndefinedVariable"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("/srv/{{ odoo_name }}", {"main": "/srv/main", "shop": "/srv/shop"}),
        ("/srv/odoo", {"main": "/srv/odoo", "shop": "/srv/odoo"}),
        # A variable of another host, where the task happens to run.
        ("{{ of_vm1 }}", {}),
    ],
)
def test_a_directory_is_read_for_each_instance(written: str, wanted: dict[str, str]) -> None:
    of_all: dict[str, Any] = {"odoo_instances": {"main": {}, "shop": {}}}
    hostvars = HostVars(vm1={**of_all, "of_vm1": "/srv/vm1"}, vm2={**of_all, "odoo_data_dir": trust_as_template(written)})
    task_vars = {"hostvars": hostvars, "inventory_hostname": "vm1", **hostvars.raw_get("vm1")}
    plugin = action(preflight)
    plugin._templar = Templar(variables=task_vars)
    assert plugin._host("vm2", {"host": {}}, False, [], task_vars).data_dirs == {}
    assert plugin._host("vm2", {"host": {}}, False, ["odoo_instances"], task_vars).data_dirs == wanted
    assert plugin._host("vm1", {"host": {}}, False, ["odoo_instances"], task_vars).data_dirs == {}


def test_a_directory_that_differs_by_instance_has_a_value() -> None:
    own = {"odoo_instances": {"main": {}}, "odoo_data_dir": Broken()}
    plugin = action(preflight)
    plugin._templar = SimpleNamespace(copy_with_new_env=lambda **_variables: SimpleNamespace(template=lambda _value: "/srv/main"))
    task_vars = {"hostvars": HostVars(vm1=own), "inventory_hostname": "vm1"}
    found = plugin._host("vm1", {"host": {}}, False, ["odoo_instances", "odoo_data_dir"], task_vars)
    assert (found.unrenderable, found.data_dirs) == ({}, {"main": "/srv/main"})


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ({"unreachable": True, "msg": "no route\n to host"}, "unreachable: no route to host"),
        ({"failed": True, "msg": "Missing sudo password"}, "could not be read: Missing sudo password"),
        (
            {"failed": True, "msg": "deserialization failed", "module_stderr": "sudo: unknown user x\n"},
            "could not be read: sudo: unknown user x",
        ),
        (None, "could not be read: no answer"),
    ],
)
def test_a_host_that_does_not_answer_says_why(answer: Any, failure: str) -> None:
    assert preflight._facts(answer) == (None, failure)


def test_problems_fail_without_repeating_themselves() -> None:
    problem = Problem(("vm1",), "a", "b", "c", "d")
    result = preflight.ActionModule._tell(Report([problem], [], {}, []), {"vm1": None})
    assert result == {"changed": False, "failed": True, "msg": "1 problem(s), listed above. Nothing was changed."}
    assert preflight.ActionModule._tell(Report([], ["n"], {"vm1": {}}, ["t"]), {})["plan"] == {"vm1": {}}


def test_the_host_is_asked_about_its_ports_and_peers_and_its_clock_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    hostvars = HostVars(vm1={"traefik_https_port": 8443}, vm2={"host_address": "10.0.0.2"}, vm3={"host_address": Broken()})
    tiers = {"edge": ["vm1"], "app": ["vm1"], "database": ["vm2", "vm3"]}
    asked: dict[str, Any] = {}
    plugin = action(preflight_info, tier_hosts=tiers)

    def execute(name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        asked.update(module_args)
        return {"host": {"time": 1100.5}}

    plugin._execute_module = execute
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    times = iter([1000.0, 1001.0])
    monkeypatch.setattr("time.time", lambda: next(times))
    result = plugin.run(None, {"hostvars": hostvars, "inventory_hostname": "vm1"})
    assert asked["ports"] == [80, 8443]
    assert asked["peers"][0] == {"name": "vm2", "address": "10.0.0.2", "port": 5432}
    assert {"name": "vm3", "address": "vm3", "port": 8008} in asked["peers"]
    assert (result["host"]["clock_offset_s"], result["host"]["clock_error_s"]) == (100.0, 0.5)


def test_the_host_is_asked_about_no_peer_where_what_is_closed_is_to_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    plugin = action(preflight_info, tier_hosts={"app": ["vm1"], "database": ["vm2"]}, check_peers=False)
    plugin._execute_module = lambda name, module_args, task_vars: asked.update(module_args) or {}
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    plugin.run(None, {"hostvars": HostVars(vm1={}, vm2={"host_address": "10.0.0.2"}), "inventory_hostname": "vm1"})
    assert asked.get("peers", []) == []
