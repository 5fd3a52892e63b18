# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of compose_project: what is refused, how it is said, and what is sent."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from cryptography import x509

from ansible_collections.berth.odoo.plugins.action import compose_project
from ansible_collections.berth.odoo.plugins.action.compose_project import ActionModule
from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.plugins.module_utils._compose import DefinitionError, Reload
from ansible_collections.berth.odoo.plugins.module_utils._compose_host import Request

DEFINITION = {"services": {"web": {"image": "i:1"}}}
NOW = 1_800_000_000
DAY = 86400
AUTHORITY = dict(zip(("certificate", "key"), _authority.create("berth.odoo test", 3650, NOW), strict=True))
ANOTHER = dict(zip(("certificate", "key"), _authority.create("berth.odoo other", 3650, NOW), strict=True))
CA = AUTHORITY["certificate"]
CA_KEY = AUTHORITY["key"]
OTHER = ANOTHER["certificate"]
OTHER_KEY = ANOTHER["key"]


def action_for(**arguments: Any) -> ActionModule:
    given = {"name": "p", "definition": DEFINITION, **arguments}
    task = types.SimpleNamespace(args={name: value for name, value in given.items() if value is not ...}, async_val=0)
    action = ActionModule(task=task, connection=None, play_context=None, loader=None, templar=None, shared_loader_obj=None)
    action.clock = lambda: float(NOW)
    return action


def request(**arguments: Any) -> Request:
    action = action_for(**arguments)
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
        ({"definition": {"services": {}}}, "a project needs at least one service"),
        ({"definition": {}, "files": [file(services=[])]}, "a project needs at least one service"),
        ({"definition": {"services": {}}, "files": [file()]}, "names the service 'web', which the definition does not have"),
    ],
)
def test_refusals(arguments: dict[str, Any], expected: str) -> None:
    assert expected in refusal(**arguments)


def test_files_alone_are_a_project() -> None:
    assert request(definition={"services": {}}, files=[file(services=[])]).definition == {"services": {}}


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


# --- certificates -------------------------------------------------------------------------------------------------------


def certificate(**options: Any) -> dict[str, Any]:
    given = {"dest": "tls", "common_name": "vm1", "services": ["web"], **options}
    return {name: value for name, value in given.items() if value is not ...}


def test_defaults_of_certificates() -> None:
    (made,) = request(authority=AUTHORITY, certificates=[certificate(names=["etcd", "VM1", "10.0.0.1"])]).certificates
    assert (made.names, made.common_name, made.days, made.owner, made.group) == (("10.0.0.1", "etcd", "vm1"), "vm1", 90, 0, 0)
    assert (made.bundle, made.leaf, made.signer_not_after) == (CA, None, NOW + 3650 * DAY)
    assert (made.services, made.reloads, made.usage) == (("web",), (), "both")
    (made,) = request(
        authority=AUTHORITY, certificates=[certificate(services=..., reload={"service": "web", "signal": "HUP"})]
    ).certificates
    assert (made.services, made.reloads) == ((), (Reload("web", (), "HUP"),))


def test_the_authoritys_key_is_in_nothing_that_is_sent() -> None:
    action = action_for(authority=AUTHORITY, certificates=[certificate()])
    sent: list[dict[str, Any]] = []

    def send(wanted: Request) -> dict[str, Any]:
        sent.append(wanted.to_dict())
        return {"changed": len(sent) > 1, **({"issue": ["tls"]} if len(sent) == 1 else {})}

    assert action._converge(action._parameters(), {}, send) == {"changed": True}
    assert [item["certificates"][0]["leaf"] is None for item in sent] == [True, False]
    assert "PRIVATE KEY" not in str(sent[0])
    assert str(sent[1]).count("BEGIN PRIVATE KEY") == 1
    assert [line for line in CA_KEY.splitlines()[1:-1] if line in str(sent)] == []
    leaf = sent[1]["certificates"][0]["leaf"]
    assert (leaf["not_before"], leaf["not_after"]) == (NOW - 300, NOW + 90 * DAY)


def test_a_certificate_is_for_what_it_was_wanted_for() -> None:
    action = action_for(authority=AUTHORITY, certificates=[certificate(usage="server"), certificate(dest="other")])
    answers: list[dict[str, Any]] = [{"issue": ["tls", "other"]}, {}]
    sent: list[Request] = []

    def send(wanted: Request) -> dict[str, Any]:
        sent.append(wanted)
        return answers[len(sent) - 1]

    action._converge(action._parameters(), {}, send)
    made = [x509.load_pem_x509_certificate(item.leaf.certificate.encode()) for item in sent[1].certificates if item.leaf]
    usages = [list(item.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for item in made]
    server, client = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
    assert usages == [[server], [server, client]]
    assert "value of usage must be one of: both, server" in refusal(authority=AUTHORITY, certificates=[certificate(usage="client")])


def test_only_what_is_due_is_issued_and_nothing_when_nothing_is() -> None:
    action = action_for(authority=AUTHORITY, certificates=[certificate(), certificate(dest="other")])
    answers: list[dict[str, Any]] = [{"issue": ["other"]}, {}]
    sent: list[Request] = []

    def send(wanted: Request) -> dict[str, Any]:
        sent.append(wanted)
        return answers[len(sent) - 1]

    action._converge(action._parameters(), {}, send)
    assert [item.leaf is not None for item in sent[1].certificates] == [False, True]
    sent.clear()
    answers = [{"changed": False}]
    assert action._converge(action._parameters(), {}, send) == {"changed": False}
    assert len(sent) == 1


def test_another_run_at_the_same_time_does_not_make_it_go_on_for_ever() -> None:
    action = action_for(authority=AUTHORITY, certificates=[certificate()])
    with pytest.raises(AnsibleActionFail, match=r"another run changed the project's certificates while this one issued some\. Run again"):
        action._converge(action._parameters(), {}, lambda _request: {"issue": ["tls"]})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"authority": ...}, "certificates need an authority that signs them: give authority:"),
        ({"authority": ...}, "berth.odoo.secrets_init -e secrets_only=platform_authority"),
        ({"certificates": [certificate(services=...)]}, "certificates: tls does not say what its change means: give services: [NAME]"),
        (
            {"certificates": [certificate(services=["nobody"])]},
            "certificates: tls names the service 'nobody', which the definition does not",
        ),
        ({"certificates": [certificate(common_name=...)]}, "missing required arguments: common_name"),
        ({"certificates": [certificate(names=["a b"])]}, "certificates: tls: 'a b' is neither a DNS name"),
        ({"certificates": [certificate(days=0)]}, "certificates: tls: days is 0, it must be 1 or more"),
        ({"certificates": [certificate(dest="/etc/tls")]}, "certificates: dest '/etc/tls' must be a plain relative path such as tls"),
        ({"certificates": [certificate(), certificate()]}, "certificates: dest 'tls' is listed twice"),
        ({"files": [file(dest="tls/ca.crt")]}, "files: dest 'tls/ca.crt' is listed twice"),
        ({"files": [file(dest="tls")]}, "files: 'tls' is a file and also the directory of another file"),
        ({"files": [file(dest="tls/x", sensitive=True, group=7)]}, "tls/ holds sensitive files for the groups 0, 7"),
        ({"certificates": ["x"]}, "certificates"),
        ({"certificates": [certificate(reload={"service": "web"})]}, "one of the following is required: command, signal"),
    ],
)
def test_refusals_of_certificates(arguments: dict[str, Any], expected: str) -> None:
    assert expected in refusal(**{"authority": AUTHORITY, "certificates": [certificate()], **arguments})


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("canary", "authority must be a mapping with certificate and key and nothing else; give authority:"),
        ({"certificate": CA, "canary": "canary"}, "authority must be a mapping with certificate and key and nothing else"),
        ({"certificate": CA}, "authority must be a mapping with certificate and key and nothing else"),
        ({"certificate": CA, "key": ["canary"]}, "authority.key must be PEM text"),
        ({"certificate": CA, "key": ""}, "authority.key must be PEM text"),
        ({"certificate": {"canary": 1}, "key": CA_KEY}, "authority.certificate must be PEM text"),
        (
            {"certificate": "canary", "key": CA_KEY},
            "authority.certificate: no certificate that can be read (not shown); expected PEM text from",
        ),
        ({"certificate": CA_KEY, "key": CA_KEY}, "authority.certificate: no certificate that can be read (not shown)"),
        ({"certificate": CA, "key": "canary"}, "authority.key: no private key that can be read (not shown)"),
        (
            {"certificate": CA, "key": OTHER_KEY},
            "authority.key: the key of another certificate (not shown); expected the key of 'CN=berth.odoo test'",
        ),
        ({"certificate": OTHER + CA, "key": CA_KEY}, "authority.key: the key of another certificate (not shown)"),
    ],
)
def test_an_authority_that_cannot_sign_is_refused_and_not_shown(authority: Any, expected: str) -> None:
    message = refusal(authority=authority, certificates=[certificate()])
    assert expected in message
    secrets = [line for key in (CA_KEY, OTHER_KEY) for line in key.splitlines()[1:-1]]
    assert [secret for secret in ("canary", *secrets) if secret in message] == []


def test_an_expired_authority_is_refused_with_what_to_type() -> None:
    action = action_for(authority=AUTHORITY, certificates=[certificate()])
    action.clock = lambda: NOW + 3650.0 * DAY
    with pytest.raises(DefinitionError) as caught:
        action._request(action._parameters(), {})
    text = str(caught.value)
    assert text.startswith(
        "authority.certificate: 'CN=berth.odoo test', expired on 2037-01-12T08:00:00Z; expected an authority that is still valid"
    )
    assert "ansible-vault edit" in text
    assert "berth.odoo.secrets_init -e secrets_only=platform_authority" in text


def test_an_authority_that_ends_before_what_it_signs_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(compose_project.display, "warning", said.append)
    short, key = _authority.create("short", 60, NOW)
    authority = {"certificate": short, "key": key}
    request(authority=authority, certificates=[certificate(days=60)])
    assert said == []
    made, _other = request(authority=authority, certificates=[certificate(), certificate(dest="other", days=30)]).certificates
    assert made.signer_not_after == NOW + 60 * DAY
    assert "compose_project p: the authority expires on 2027-03-16T08:00:00Z, and with it every certificate" in said[0]


def test_without_cryptography_it_says_so_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_authority, "LIBRARY_ERROR", "no module")
    assert "Failed to import the required Python library (cryptography)" in refusal(authority=AUTHORITY, certificates=[certificate()])
    request(authority=AUTHORITY)


def test_nothing_is_asked_of_the_authority_where_no_certificate_is_wanted() -> None:
    unusable: Mapping[str, Any] = {"certificate": "canary", "key": "canary"}
    assert request(authority=unusable, certificates=[]).certificates == ()
    assert request(authority=unusable, certificates=None).certificates == ()
    assert request(authority=unusable, certificates=[certificate()], state="absent", definition=...).certificates == ()
