# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of compose_project: what is refused, how it is said, and what is sent."""

from __future__ import annotations

import types
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.berth.odoo.plugins.action.compose_project import ActionModule
from ansible_collections.berth.odoo.plugins.module_utils._compose import DefinitionError, Reload
from ansible_collections.berth.odoo.plugins.module_utils._compose_host import Request

DEFINITION = {"services": {"web": {"image": "i:1"}}}


def request(**arguments: Any) -> Request:
    given = {"name": "p", "definition": DEFINITION, **arguments}
    task = types.SimpleNamespace(args={name: value for name, value in given.items() if value is not ...}, async_val=0)
    action = ActionModule(task=task, connection=None, play_context=None, loader=None, templar=None, shared_loader_obj=None)
    return action._request(action._parameters(), {})


def refusal(**arguments: Any) -> str:
    with pytest.raises((AnsibleActionFail, DefinitionError)) as caught:
        request(**arguments)
    return str(caught.value)


def file(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in {"dest": "config/a", "content": "x", "services": ["web"], **options}.items() if value is not ...}


def test_defaults() -> None:
    made = request(files=[file(), file(dest="s/b", sensitive=True, group=7)], directories=[{"path": "/d"}])
    assert (made.base_dir, made.state, made.wait_timeout, made.project_dir) == ("/opt/berth", "present", 120, "/opt/berth/p")
    assert [(item.mode, item.owner, item.group) for item in made.files] == [(0o444, 0, 0), (0o440, 0, 7)]
    assert (made.directories[0].mode, made.directories[0].owner) == (0o750, 0)
    assert " on " in made.holder


@pytest.mark.parametrize("name", ["UPPER", "with space", "a;b", "../x", "a" * 64, "", "ä"])
def test_names(name: str) -> None:
    assert "must be lower-case letters, digits, _ and -, at most 63" in refusal(name=name)


@pytest.mark.parametrize("path", ["relative", "/", "/a/../b", "/with space", ""])
def test_base_directories(path: str) -> None:
    assert "must be a plain absolute path" in refusal(base_dir=path)


@pytest.mark.parametrize("path", ["relative", "/", "/a/../b", ""])
def test_data_directories(path: str) -> None:
    assert "must be absolute, without '..', and not /" in refusal(directories=[{"path": path}])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"definition": ...}, "state 'present' needs a definition"),
        ({"request": "x"}, "'request' is internal"),
        ({"unknown": 1}, "unknown. Supported parameters include"),
        ({"state": "started"}, "value of state must be one of: present, prepared, stopped, absent, got: started"),
        ({"files": ["x"]}, "files[0] must be a mapping with dest and content, template or src"),
        ({"files": [file(services=...)]}, "config/a does not say what its change means: give services: [NAME] to recreate"),
        ({"files": [file(content=...)]}, "one of the following is required: template, content, src"),
        ({"files": [file(src="y")]}, "mutually exclusive: template|content|src"),
        ({"files": [file(mode=288)]}, "mode '288' must be a quoted octal number such as '0440'"),
        ({"files": [file(mode="u=r")]}, "mode 'u=r' must be a quoted octal number"),
        ({"files": [file(dest="../x")]}, "must be a plain relative path such as config/app.conf, without '..'"),
        ({"files": [file(dest="/etc/x")]}, "must be a plain relative path"),
        ({"files": [file(services=["nobody"])]}, "names the service 'nobody', which the definition does not have"),
        ({"files": [file(reload={"service": "web"})]}, "one of the following is required: command, signal"),
        ({"files": [file(reload={"command": ["x"]})]}, "missing required arguments: service"),
        ({"definition": {"services": {"web": {"build": "."}}}}, "definition.services.web.build is not supported"),
        ({"definition": {"secrets": {}}}, "definition has secrets; only services, networks and volumes are understood"),
        ({"override": {"configs": {}}}, "override has configs; only services"),
        ({"override": {"services": {"web": None}}}, "a project needs at least one service"),
    ],
)
def test_refusals(arguments: dict[str, Any], expected: str) -> None:
    assert expected in refusal(**arguments)


@pytest.mark.parametrize("content", [{"password": "S3cret-canary"}, ["S3cret-canary"], True])
def test_content_that_is_no_text_is_refused_without_being_shown(content: Any) -> None:
    message = refusal(files=[file(content=content)])
    assert "files[0].content (dest config/a) must be text, not a" in message
    assert "to_json" in message
    assert "canary" not in message


@pytest.mark.parametrize(
    "wrong",
    [{"owner": "nobody"}, {"mode": "9"}, {"services": None}, {"dest": "../x"}, {"unknown": 1}, {"sensitive": "perhaps"}, {"reload": [{}]}],
)
def test_no_error_shows_the_content_of_a_file(wrong: dict[str, Any]) -> None:
    assert "canary" not in refusal(files=[file(content="S3cret-canary", **wrong)])


def test_numbers_are_text_that_ansible_has_taken_for_numbers() -> None:
    assert request(files=[file(content=5)]).files[0].content == b"5"


def test_override_comes_last_and_reloads_may_be_one_or_many() -> None:
    made = request(
        override={"services": {"web": {"environment": ["A=1"]}}},
        files=[
            file(reload={"service": "web", "signal": "HUP"}, services=...),
            file(dest="b", reload=[{"service": "web", "command": ["a", "b"]}], services=...),
        ],
    )
    assert made.definition["services"]["web"]["environment"] == {"A": "1"}
    assert made.files[0].reloads == (Reload("web", (), "HUP"),)
    assert made.files[1].reloads == (Reload("web", ("a", "b"), ""),)


def test_absent_needs_a_name_only() -> None:
    made = request(definition=..., state="absent", files=[file()], directories=[{"path": "/d"}])
    assert (made.definition, made.files, made.directories) == ({}, (), ())
