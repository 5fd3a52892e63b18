# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validation: what is refused, what is let through, and that no secret is ever said."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _validate
from ansible_collections.berth.odoo.plugins.module_utils._validate import Problem

CANARY = "kanarienvogel-Zx81-$(id)`id`{{ x }}"

GOOD = {"domains": ["odoo.example.com"], "database": "main"}
SECRETS = {key: f"{key}-abcdefghijklmnop" for key in _validate.INSTANCE_SECRETS}

HOSTILE = [
    "a;drop",
    "../x",
    "Demo DB",
    "-x",
    "a" * 64,
    "$(id)",
    "`id`",
    "a\nb",
    "a'b",
    'a"b',
    "--upload-pack=x",
    "-oProxyCommand=x",
    "{{ x }}",
    "",
    " a",
    "a ",
    "ä",
    "a\0b",
    "A",
    "1a",
]


def said(problems: list[Problem]) -> str:
    return "\n".join(_validate.format_problems(problems, ["vm1"]))


def subjects(problems: list[Problem]) -> list[str]:
    return [problem.subject for problem in problems]


# -- names


@pytest.mark.parametrize("name", [*HOSTILE, "a_b"])
def test_hostile_instance_names_are_refused_with_the_rule(name: str) -> None:
    problems = list(_validate.check_instances("vm1", {name: GOOD}))
    assert [problem.expected for problem in problems] == [_validate.INSTANCE_RULE]


@pytest.mark.parametrize("name", [*HOSTILE, "a-b", "postgres", "template0", "template1"])
def test_hostile_database_names_are_refused_with_the_rule(name: str) -> None:
    problems = list(_validate.check_instances("vm1", {"main": {**GOOD, "database": name}}))
    assert [(problem.subject, problem.expected) for problem in problems] == [("odoo_instances.main.database", _validate.DATABASE_RULE)]


@pytest.mark.parametrize(
    "name", [item for item in HOSTILE if item not in {"a" * 64, "1a"}] + ["a_b", "a..b", ".a", "a.", "-a.b", "a-.b", "x" * 64, "*.a"]
)
def test_hostile_domains_are_refused_with_the_rule(name: str) -> None:
    problems = list(_validate.check_instances("vm1", {"main": {**GOOD, "domains": [name]}}))
    assert [problem.expected for problem in problems] == [_validate.DOMAIN_RULE]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_modules_are_refused_with_the_rule(name: str) -> None:
    if name == "a" * 64:
        return  # a long name is Odoo's to refuse
    problems = list(_validate.check_instances("vm1", {"main": {**GOOD, "modules": [name]}}))
    assert [problem.expected for problem in problems] == [_validate.MODULE_RULE]


@given(st.text(alphabet=string.printable + "äß\0\u2028", max_size=70))
def test_an_accepted_name_is_safe_everywhere(name: str) -> None:
    """In a shell, a path, SQL, YAML, a URL, a container name and a regular expression."""
    if not list(_validate.check_instances("vm1", {name: GOOD})):
        assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
        assert 1 <= len(name) <= 31
        assert name[0].isalpha()
    if not list(_validate.check_instances("vm1", {"main": {**GOOD, "database": name}})):
        assert set(name) <= set(string.ascii_lowercase + string.digits + "_")
        assert 1 <= len(name) <= 50


@pytest.mark.parametrize("domain", ["odoo.berth.test", "10.213.0.11", "a", "xn--bcher-kva.example", "1a.example"])
def test_good_domains_pass(domain: str) -> None:
    assert not list(_validate.check_instances("vm1", {"main": {**GOOD, "domains": [domain]}}))


def test_a_full_instance_passes() -> None:
    instance = {
        **GOOD,
        "image": "berth/odoo:19.0-0a1b2c3d4e5f",
        "modules": ["stock", "sale_management"],
        "users": 30,
        "service_class": "staging",
        "language": "de_DE",
        "country": "DE",
        "admin_login": "admin",
        "certificate": "main",
        "cpus": "1.5",
        "web_workers": "4",
        "extra_settings": {"log_level": "warn"},
    }
    assert not list(_validate.check_instances("vm1", {"main": instance}, ["main"]))


# -- instances


def test_unknown_keys_name_the_nearest() -> None:
    (problem,) = _validate.check_instances("vm1", {"main": {**GOOD, "modulse": []}})
    assert (problem.subject, problem.expected) == ("odoo_instances.main.modulse", "modules?")


def test_all_mistakes_are_reported_at_once() -> None:
    broken = {
        "domains": "a.example",
        "users": "many",
        "service_class": "prod",
        "cpus": -1,
        "web_workers": 0,
        "language": "german",
        "extra_settings": [],
    }
    found = subjects(list(_validate.check_instances("vm1", {"main": broken, "Other": 5})))
    assert set(found) == {
        "odoo_instances.main.domains",
        "odoo_instances.main.database",
        "odoo_instances.main.users",
        "odoo_instances.main.service_class",
        "odoo_instances.main.cpus",
        "odoo_instances.main.web_workers",
        "odoo_instances.main.language",
        "odoo_instances.main.extra_settings",
        "odoo_instances",
        "odoo_instances['Other']",
    }


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("database", {**GOOD}, {**GOOD, "domains": ["b.example"]}),
        ("domains", {**GOOD}, {**GOOD, "database": "other"}),
    ],
)
def test_nothing_belongs_to_two_instances(key: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    (problem,) = _validate.check_instances("vm1", {"one": first, "two": second})
    assert problem.subject == f"odoo_instances.two.{key}"
    assert "which instance one has" in problem.found


@pytest.mark.parametrize("database", ["main_login2", "main_analyst", "berth_monitoring"])
def test_no_database_has_the_name_of_a_role_of_another(database: str) -> None:
    instances = {"one": {**GOOD, "database": "main"}, "two": {"domains": ["b.example"], "database": database}}
    (problem,) = _validate.check_instances("vm1", instances)
    assert problem.subject == "odoo_instances.two.database"
    assert "the name of a database role of" in problem.found


def test_a_domain_twice_and_no_domain_are_refused() -> None:
    assert subjects(list(_validate.check_instances("vm1", {"main": {**GOOD, "domains": ["a.b", "a.b"]}}))) == [
        "odoo_instances.main.domains"
    ]
    assert subjects(list(_validate.check_instances("vm1", {"main": {**GOOD, "domains": []}}))) == ["odoo_instances.main.domains"]


def test_a_certificate_must_exist() -> None:
    (problem,) = _validate.check_instances("vm1", {"main": {**GOOD, "certificate": "mani"}}, ["main", "other"])
    assert problem.remedy == "odoo_instances.main: {certificate: main}"


# -- secrets


@given(st.one_of(st.text(min_size=1, max_size=60), st.integers(), st.lists(st.text(min_size=4), min_size=1), st.booleans()))
def test_no_value_of_a_secret_is_ever_said(value: Any) -> None:
    marked = f"{CANARY}{value}" if isinstance(value, str) else value
    problems = list(_validate.check_secret("vm1", "x_password", marked, 200))
    problems += _validate.check_value("vm1", "x_password", {"type": "str"}, marked)
    problems += _validate.check_value(
        "vm1", "users", {"type": "list", "elements": "dict", "options": {"token": {"type": "int"}}}, [{"token": marked}]
    )
    problems += _validate.check_value("vm1", "x", {"type": "int", "no_log": True}, marked)
    problems += _validate.check_distinct("vm1", {"a": marked, "b": marked})
    problems += _validate.check_instance_secrets("vm1", {"main": {}}, {"main": {"db_password": marked, "admin_password": marked}}, 200)
    text = said(problems)
    assert CANARY not in text
    if isinstance(value, int) and abs(value) > 1000:
        assert str(value) not in text


@pytest.mark.parametrize(
    "value",
    [
        "admin",
        "changeme",
        "Password123",
        "short",
        "a" * 40,
        "",
        12345678,
        None,
        ["x"],
        "line\nbreak-abcdefghijklmnop",
        "nul\0-abcdefghijklmnopqrst",
    ],
)
def test_weak_secrets_are_refused(value: Any) -> None:
    assert list(_validate.check_secret("vm1", "db_password", value, 20))


def test_what_nobody_has_decrypted_is_no_password() -> None:
    encrypted = f"ENC[AES256_GCM,data:{CANARY},iv:x,tag:y,type:str]"
    (problem,) = _validate.check_instance_secrets(
        "vm1",
        {"main": {}},
        {"main": {"db_password": encrypted, "admin_password": "a" * 9 + "bcdefghijkl", "redis_password": "z" * 9 + "bcdefghijkl"}},
        20,
    )
    assert problem.subject == "odoo_instance_secrets.main.db_password"
    assert "ANSIBLE_VARS_ENABLED=host_group_vars,community.sops.sops" in problem.remedy
    assert CANARY not in said([problem])


@pytest.mark.parametrize("value", ["$ % \" ' { } # \\ and spaces", "correct horse battery staple", "äöü€-abcdefghijklmnop"])
def test_awkward_secrets_pass(value: str) -> None:
    assert not list(_validate.check_secret("vm1", "db_password", value, 20))


def test_one_value_for_two_secrets_is_refused() -> None:
    (problem,) = _validate.check_distinct("vm1", {"a_password": "x" * 20, "b_password": "x" * 20, "c_password": "y" * 20})
    assert problem.subject == "a_password, b_password"


def test_missing_unknown_and_foreign_secrets_of_instances() -> None:
    secrets = {"main": {**SECRETS, "db_pasword": "x"}, "mian": SECRETS, "half": {"db_password": SECRETS["db_password"]}}
    problems = list(_validate.check_instance_secrets("vm1", {"main": GOOD, "half": GOOD, "none": GOOD}, secrets, 20))
    assert subjects(problems) == [
        "odoo_instance_secrets",
        "odoo_instance_secrets.main.db_pasword",
        "odoo_instance_secrets.half.admin_password",
        "odoo_instance_secrets.half.redis_password",
        *(f"odoo_instance_secrets.none.{key}" for key in _validate.INSTANCE_SECRETS),
    ]
    assert problems[0].expected == "main?"
    assert problems[1].expected == "db_password?"


REMOTE = {**GOOD, "filestore": {"endpoint": "https://s3.example.com:9000", "bucket": "odoo-files"}}
KEYS = {"s3_access_key": "AK", "s3_secret_key": "a b/+="}


def test_an_instance_with_a_filestore_has_keys() -> None:
    assert not list(_validate.check_instances("vm1", {"main": REMOTE}))
    assert not list(_validate.check_instance_secrets("vm1", {"main": REMOTE}, {"main": {**SECRETS, **KEYS}}, 20))
    missing, broken = _validate.check_instance_secrets("vm1", {"main": REMOTE}, {"main": {**SECRETS, "s3_secret_key": "canary\n"}}, 20)
    assert (missing.subject, missing.found) == ("odoo_instance_secrets.main.s3_access_key", "nothing")
    assert "main: {s3_access_key: …}" in missing.remedy
    assert broken.subject == "odoo_instance_secrets.main.s3_secret_key"
    assert "canary" not in str(broken)
    # Those of a filestore that is no more do no harm; a mistyped one is named.
    assert not list(_validate.check_instance_secrets("vm1", {"main": GOOD}, {"main": {**SECRETS, **KEYS}}, 20))
    (problem,) = _validate.check_instance_secrets("vm1", {"main": REMOTE}, {"main": {**SECRETS, **KEYS, "s3_acces_key": "x"}}, 20)
    assert problem.expected == "s3_access_key?"


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("web.base.url", "https://odoo.example.com", "remove it"),
        ("base.login_cooldown_after", 5, "base.login_cooldown_after: '5'"),
        ("auth_signup.invitation_scope", None, "'None'"),
    ],
)
def test_a_wrong_system_parameter_is_refused(key: str, value: Any, remedy: str) -> None:
    (problem,) = _validate.check_instances("vm1", {"main": {**GOOD, "system_parameters": {key: value, "sale.async_emails": "True"}}})
    assert problem.subject == f"odoo_instances.main.system_parameters.{key}"
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("filestore", "subject"),
    [
        ({"bucket": "odoo-files"}, "endpoint"),
        ({"endpoint": "https://s3.example.com"}, "bucket"),
        ({"endpoint": "http://s3.example.com", "bucket": "odoo-files"}, "endpoint"),
        ({"endpoint": "https://s3.example.com/odoo", "bucket": "odoo-files"}, "endpoint"),
        ({"endpoint": "https://s3.example.com", "bucket": "Odoo"}, "bucket"),
        ({"endpoint": "https://s3.example.com", "bucket": "odoo-files/main"}, "bucket"),
        ({"endpoint": "https://s3.example.com", "bucket": "odoo-files", "region": "Frankfurt am Main"}, "region"),
        ({"endpoint": "https://s3.example.com", "bucket": "odoo-files", "authority_certificate": "ca.crt"}, "authority_certificate"),
        ({"endpoint": "https://s3.example.com", "bucket": "odoo-files", "bukket": "x"}, "bukket"),
    ],
)
def test_a_wrong_filestore_is_refused(filestore: dict[str, str], subject: str) -> None:
    (problem,) = _validate.check_instances("vm1", {"main": {**GOOD, "filestore": filestore}})
    assert problem.subject == f"odoo_instances.main.filestore.{subject}"


SIGNED = {**GOOD, "oidc": {"issuer": "https://login.example.com:8443/realms/acme", "client_id": "odoo main"}}


def test_an_instance_with_a_provider_has_its_secret() -> None:
    assert not list(_validate.check_instances("vm1", {"main": SIGNED}))
    # Neither its length nor its strength is ours to judge.
    assert not list(_validate.check_instance_secrets("vm1", {"main": SIGNED}, {"main": {**SECRETS, "oidc_client_secret": "x"}}, 20))
    (missing,) = _validate.check_instance_secrets("vm1", {"main": SIGNED}, {"main": SECRETS}, 20)
    assert (missing.subject, missing.found) == ("odoo_instance_secrets.main.oidc_client_secret", "nothing")
    assert "client_id" in missing.expected and "main: {oidc_client_secret: …}" in missing.remedy
    (broken,) = _validate.check_instance_secrets("vm1", {"main": SIGNED}, {"main": {**SECRETS, "oidc_client_secret": "canary\n"}}, 20)
    assert broken.subject == "odoo_instance_secrets.main.oidc_client_secret" and "canary" not in str(broken)
    (number,) = _validate.check_instance_secrets("vm1", {"main": SIGNED}, {"main": {**SECRETS, "oidc_client_secret": 4711}}, 20)
    assert number.expected == "a text: put it in quotes" and "4711" not in str(number)
    # That of a provider that is no more does no harm; a mistyped one is named.
    assert not list(_validate.check_instance_secrets("vm1", {"main": GOOD}, {"main": {**SECRETS, "oidc_client_secret": "x"}}, 20))
    problems = list(_validate.check_instance_secrets("vm1", {"main": SIGNED}, {"main": {**SECRETS, "oidc_secret": "x"}}, 20))
    assert problems[0].expected == "oidc_client_secret?"


@pytest.mark.parametrize(
    ("oidc", "subject", "found"),
    [
        ({"client_id": "odoo"}, "issuer", "nothing"),
        ({"issuer": "https://login.example.com"}, "client_id", "nothing"),
        ({"issuer": "http://login.example.com", "client_id": "odoo"}, "issuer", "'http://login.example.com'"),
        ({"issuer": "login.example.com", "client_id": "odoo"}, "issuer", "'login.example.com'"),
        ({"issuer": "https://login.example.com?realm=x", "client_id": "odoo"}, "issuer", "'https://login.example.com?realm=x'"),
        ({"issuer": "https://login.example.com", "client_id": " odoo"}, "client_id", "' odoo'"),
        ({"issuer": "https://login.example.com", "client_id": "odoo", "label": "a\nb"}, "label", "'a\\nb'"),
        (
            {"issuer": "https://login.example.com", "client_id": "odoo", "authority_certificate": "ca.crt"},
            "authority_certificate",
            "a text without a certificate",
        ),
        ({"issuer": "https://login.example.com", "client_id": "odoo", "clientid": "x"}, "clientid", "a key that nothing reads"),
        # Whoever writes the secret here is told, and it is not shown.
        (
            {"issuer": "https://login.example.com", "client_id": "odoo", "client_secret": "canary"},
            "client_secret",
            "a key that nothing reads",
        ),
    ],
)
def test_a_wrong_provider_is_refused(oidc: dict[str, str], subject: str, found: str) -> None:
    (problem,) = _validate.check_instances("vm1", {"main": {**GOOD, "oidc": oidc}})
    assert (problem.subject, problem.found) == (f"odoo_instances.main.oidc.{subject}", found)
    assert "canary" not in str(problem)


def test_attachments_have_one_place() -> None:
    (problem,) = _validate.check_instances("vm1", {"main": {**REMOTE, "attachments": "database"}})
    assert (problem.subject, problem.remedy) == ("odoo_instances.main.attachments", "remove odoo_instances.main.attachments")
    assert problem.remedy


def test_passwords_are_found_at_any_depth_and_keys_are_none() -> None:
    option = {
        "type": "list",
        "elements": "dict",
        "options": {"name": {}, "password": {"type": "raw"}, "key": {"type": "str"}, "inner": {"type": "dict", "options": {"token": {}}}},
    }
    value = [{"name": "a", "password": "p", "key": "-----BEGIN", "inner": {"token": "t"}}]
    assert list(_validate.passwords_in("users", option, value)) == [("users[0].password", "p"), ("users[0].inner.token", "t")]


# -- values


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ({"type": "int"}, "many"),
        ({"type": "int"}, True),
        ({"type": "int"}, 1.5),
        ({"type": "float"}, "fast"),
        ({"type": "bool"}, "maybe"),
        ({"type": "str"}, 17),
        ({"type": "path"}, ["x"]),
        ({"type": "list"}, "a,b"),
        ({"type": "dict"}, "a=b"),
        ({"type": "list", "elements": "int"}, [1, "x"]),
        ({"type": "str", "choices": ["ssd", "hdd"]}, "sdd"),
        ({"type": "dict", "options": {"name": {"required": True}}}, {}),
        ({"type": "dict", "options": {"name": {}}}, {"nmae": "x"}),
    ],
)
def test_wrong_values_are_refused(option: dict[str, Any], value: Any) -> None:
    assert len(list(_validate.check_value("vm1", "x", option, value))) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ({"type": "int"}, "8"),
        ({"type": "int"}, -1),
        ({"type": "float"}, 2),
        ({"type": "bool"}, "yes"),
        ({"type": "str"}, "17"),
        ({"type": "raw"}, object()),
        ({"type": "list", "elements": "dict"}, [{"any": 1}]),
        ({"type": "list", "choices": ["a", "b"]}, ["a"]),
        ({"type": "int", "choices": [16, 17]}, "17"),
        ({"type": "dict", "options": {"name": {"aliases": ["title"]}}}, {"title": "x"}),
        ({"type": "dict", "options": {"name": {"type": "int"}}}, {"name": None}),
    ],
)
def test_right_values_pass(option: dict[str, Any], value: Any) -> None:
    assert not list(_validate.check_value("vm1", "x", option, value))


def test_a_wrong_choice_names_the_nearest() -> None:
    (problem,) = _validate.check_value("vm1", "postgresql_disk_kind", {"choices": ["hdd", "ssd", "nvme"]}, "nvm")
    assert (problem.found, problem.remedy) == ("'nvm'", "postgresql_disk_kind: nvme")


# -- mistyped variables

KNOWN = {
    "odoo_web_workers",
    "odoo_cron_workers",
    "odoo_instances",
    "docker_log_driver",
    "docker_registry_mirrors",
    "postgresql_max_connections",
    "host_timezone",
    "redis_users",
}
PREFIXES = {"odoo", "docker", "postgresql", "host", "redis", "berth"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("odoo_worker", "odoo_web_workers"),
        ("odoo_instance", "odoo_instances"),
        ("docker_log_drivers", "docker_log_driver"),
        ("postgresql_max_connection", "postgresql_max_connections"),
        ("host_time_zone", "host_timezone"),
    ],
)
def test_mistyped_variables_name_the_nearest(name: str, meant: str) -> None:
    (problem,), _notes = _validate.unknown_variables("vm1", [name], KNOWN, PREFIXES)
    assert (problem.subject, problem.expected) == (name, f"{meant}?")


@pytest.mark.parametrize(
    "name",
    [
        "docker_users",
        "docker_compose_version",
        "docker_registry",
        "redis_version",
        "redis_port",
        "postgresql_hba_entries",
        "host_name",
        "host_os",
        "berth_x",
    ],
)
def test_variables_of_other_tools_are_only_noted(name: str) -> None:
    problems, notes = _validate.unknown_variables("vm1", [name], KNOWN, PREFIXES)
    assert not problems
    assert subjects(notes) == [name]


@pytest.mark.parametrize(
    "name", ["ansible_odoo_worker", "__odoo_worker", "site_domains", "hostname", "odoo", "mail_server", "odoo_web_workers"]
)
def test_variables_that_are_not_ours_are_left_alone(name: str) -> None:
    assert _validate.unknown_variables("vm1", [name], KNOWN, PREFIXES) == ([], [])


def test_a_foreign_prefix_that_nearly_is_ours_is_noted() -> None:
    problems, notes = _validate.unknown_variables("vm1", ["postgres_max_connections"], KNOWN, PREFIXES)
    assert not problems
    assert [note.expected for note in notes] == ["postgresql_max_connections?"]


def test_own_variables_can_be_declared() -> None:
    assert _validate.unknown_variables("vm1", ["odoo_worker"], KNOWN, PREFIXES, ["odoo_worker"]) == ([], [])


# -- images

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "image",
    [
        DIGEST,
        "a",
        "berth/odoo:19.0-abc",
        "registry.example.com:5000/x/y:1.0",
        f"registry.example.com/odoo:19@{DIGEST}",
        f"localhost:5000/odoo@{DIGEST}",
    ],
)
def test_image_references_pass(image: str) -> None:
    assert not list(_validate.check_image("vm1", "odoo_image", image, False))
    assert bool(list(_validate.check_image("vm1", "odoo_image", image, True))) == ("sha256" not in image)


@pytest.mark.parametrize("image", ["", "-x", "a b", "$(id)", "A/b", "a:", "a@sha256:12", "a//b", "a;b", 5, None, "https://a/b"])
def test_what_is_no_image_reference_is_refused(image: Any) -> None:
    assert list(_validate.check_image("vm1", "odoo_image", image, False))


# -- topology


def test_database_hosts_may_come_alone_and_not_with_half_of_odoo() -> None:
    assert not list(_validate.check_topology({"database": ["db1"]}))
    missing = [problem.subject for problem in _validate.check_topology({"database": ["db1"], "app": ["app1"]})]
    assert missing[:2] == ["group edge", "group cache"]
    assert next(problem.subject for problem in _validate.check_topology({"witness": ["w"]})) == "group database"


def test_a_small_and_a_large_topology_pass() -> None:
    assert not list(_validate.check_topology({tier: ["vm1"] for tier in _validate.REQUIRED_TIERS}))
    three = {**{tier: ["a", "b"] for tier in _validate.REQUIRED_TIERS}, "database": ["a", "b", "c"], "cache": ["a"]}
    assert not list(_validate.check_topology(three))


def test_even_quorum_empty_group_and_unknown_tier_are_refused() -> None:
    tiers = {"edge": ["a"], "app": [], "database": ["a", "b"], "cache": ["a"], "databse": ["a"]}
    problems = list(_validate.check_topology(tiers))
    assert subjects(problems) == ["preflight_tier_hosts", "group app", "groups database and witness"]
    assert problems[0].expected == "database?"
    assert "2 etcd members (a, b)" in problems[2].found
    assert "group witness" in problems[2].remedy
    assert "go on with 1" in problems[2].remedy


def test_a_witness_makes_two_database_hosts_odd() -> None:
    tiers = {**{tier: ["a"] for tier in _validate.REQUIRED_TIERS}, "database": ["a", "b"], "witness": ["w"]}
    assert not list(_validate.check_topology(tiers))


def test_two_caches_are_refused_and_tiers_may_be_apart() -> None:
    apart = {"edge": ["e"], "app": ["a", "b"], "cache": ["c"], "database": ["d"]}
    assert not list(_validate.check_topology(apart))
    (problem,) = _validate.check_topology({**apart, "cache": ["c", "e"]})
    assert problem.subject == "group cache"
    assert "2 hosts (c, e), of which 1 may not fail" in problem.found
    assert "add a host to the group cache" in problem.remedy and "leave c in it alone" in problem.remedy
    assert list(_validate.check_topology({**apart, "cache": ["c", "e", "a"]})) == []
    assert "(c, e)" in problem.found


@pytest.mark.parametrize("port", [0, 65533, 70000])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    (problem,) = _validate.check_instances("vm1", {"main": {"domains": ["a.example"], "database": "a", "port": port}})
    assert problem.subject == "odoo_instances.main.port"


def test_edges_and_caches_are_reached_where_they_are() -> None:
    tiers = {"edge": ["front"], "app": ["app1", "front"], "cache": ["front"], "database": ["front"]}
    instances = {"main": {"port": 9000}, "broken": {"port": "x"}, "worse": None}
    variable = lambda host, name: instances if name == "odoo_instances" else None  # noqa: E731
    assert _validate.peers_of("front", tiers, variable) == [
        {"name": "app1", "address": "app1", "port": 9000},
        {"name": "app1", "address": "app1", "port": 9003},
    ]
    assert {"name": "front", "address": "front", "port": 6379} in _validate.peers_of("app1", tiers, variable)


def test_one_host_has_no_peers() -> None:
    assert _validate.peers_of("vm1", {tier: ["vm1"] for tier in _validate.REQUIRED_TIERS}, lambda host, name: None) == []


def test_peers_are_reached_at_the_platform_s_addresses() -> None:
    tiers = {"app": ["app1"], "database": ["db1", "db2"], "witness": ["w1"], "cache": ["app1"]}
    given = {("db1", "host_address"): "10.0.0.1", ("db1", "ansible_host"): "203.0.113.1", ("db2", "ansible_host"): "10.0.0.2"}
    variable = lambda host, name: given.get((host, name))  # noqa: E731
    assert {(peer["address"], peer["port"]) for peer in _validate.peers_of("app1", tiers, variable)} == {
        *(("10.0.0.1", 5432), ("10.0.0.1", 8008), ("10.0.0.2", 5432), ("10.0.0.2", 8008)),
    }
    assert {(peer["name"], peer["port"]) for peer in _validate.peers_of("db2", tiers, variable)} == {
        *(("db1", port) for port in (5432, 8008, 2379, 2380)),
        *(("w1", port) for port in (2379, 2380)),
    }
    assert _validate.peers_of("w1", tiers, variable)[0] == {"name": "db1", "address": "10.0.0.1", "port": 2380}


# -- machines

FACTS: dict[str, Any] = {
    "os": {"id": "debian", "version_id": "13", "pretty_name": "Debian GNU/Linux 13 (trixie)"},
    "machine": "x86_64",
    "memory_mb": 6144,
    "cpu_flags": ["sse4_2", "popcnt", "aes"],
    "disks": [{"path": "/var/lib/berth", "mount": "/", "device": "254:0", "size_mb": 40_000, "free_mb": 30_000}],
    "listeners": [],
    "packages": {},
}


def listener(port: int = 443, address: str = "::", **more: Any) -> dict[str, Any]:
    return {"port": port, "address": address, "pid": 12, "process": "nginx", "container": "", "ours": False, **more}


def test_a_good_machine_passes() -> None:
    assert not list(_validate.check_host("vm1", FACTS, _validate.HostRules(ports=(("", 443),))))


def test_what_is_sold_as_1_gb_and_20_gb_passes() -> None:
    # MemTotal of 1 GiB, and ext4 on 20,000,000,000 bytes beside the other partitions of Debian's image for clouds.
    disk = {**FACTS["disks"][0], "size_mb": 18_505, "free_mb": 16_000}
    assert not list(_validate.check_host("vm1", {**FACTS, "memory_mb": 957, "disks": [disk]}, _validate.HostRules()))


@pytest.mark.parametrize(
    ("facts", "subject", "words"),
    [
        ({"os": {"id": "ubuntu", "version_id": "24.04", "pretty_name": "Ubuntu 24.04"}}, "operating system", "Ubuntu 24.04"),
        ({"os": {"id": "debian", "version_id": "12", "pretty_name": "Debian 12"}}, "operating system", "no Compose plugin"),
        ({"memory_mb": 500}, "memory", "500 MB"),
        ({"cpu_flags": ["aes"]}, "processor", "no popcnt, sse4_2"),
        ({"machine": "riscv64"}, "processor", "riscv64"),
        ({"disks": [{**FACTS["disks"][0], "size_mb": 9000}]}, "disk of /var/lib/berth", "8.8 GB in all"),
        ({"disks": [{**FACTS["disks"][0], "free_mb": 900}]}, "disk of /var/lib/berth", "0.9 GB free"),
        ({"listeners": [listener()]}, "port 443", "taken on :: by nginx (pid 12)"),
        ({"listeners": [listener(container="web", process="docker-proxy")]}, "port 443", "container web"),
        ({"listeners": [listener(address="127.0.0.1")]}, "port 443", "127.0.0.1"),
        ({"packages": {"docker-ce": "5:28.1"}}, "package docker-ce", "docker-ce 5:28.1"),
    ],
)
def test_what_a_machine_lacks_is_named(facts: dict[str, Any], subject: str, words: str) -> None:
    (problem,) = _validate.check_host("vm1", {**FACTS, **facts}, _validate.HostRules(ports=(("", 443),)))
    assert problem.subject == subject
    assert words in problem.found + problem.expected


def test_our_own_container_may_hold_the_port_and_debian_12_may_run_without_docker() -> None:
    ours = {**FACTS, "listeners": [listener(ours=True)], "os": {"id": "debian", "version_id": "12"}}
    assert not list(_validate.check_host("vm1", ours, _validate.HostRules(ports=(("", 443),), runs_docker=False)))


def test_another_address_of_the_same_port_is_free() -> None:
    other = {**FACTS, "listeners": [listener(address="10.0.0.5")]}
    assert not list(_validate.check_host("vm1", other, _validate.HostRules(ports=(("10.0.0.6", 443),))))
    assert list(_validate.check_host("vm1", other, _validate.HostRules(ports=(("10.0.0.5", 443),))))


def test_one_disk_for_two_directories_is_reported_once() -> None:
    small = {**FACTS["disks"][0], "size_mb": 100}
    facts = {**FACTS, "disks": [small, {**small, "path": "/var/lib/docker"}]}
    assert len(list(_validate.check_host("vm1", facts, _validate.HostRules()))) == 1


def test_a_clock_that_is_away_is_named_and_an_uncertain_one_is_not() -> None:
    offsets = {"a": (0.1, 0.2), "b": (0.0, 0.2), "c": (-3600.0, 0.3)}
    (problem,) = _validate.check_clocks(offsets, 2)
    assert problem.hosts == ("c",)
    assert problem.found == "3600.0 s behind the others"
    assert not list(_validate.check_clocks({"a": (0.0, 0.1), "b": (2.5, 0.7)}, 2))
    assert not list(_validate.check_clocks({"a": (500.0, 0.1)}, 2))


def test_two_clocks_apart_are_refused() -> None:
    (problem,) = _validate.check_clocks({"a": (0.0, 0.1), "b": (10.0, 0.1)}, 2)
    assert (problem.hosts, problem.found) == (("b",), "10.0 s ahead of the others")


def test_a_refused_connection_is_a_way_and_silence_is_none() -> None:
    peers = [
        {"name": "db1", "address": "10.0.0.1", "port": 5432, "state": "refused"},
        {"name": "db2", "address": "10.0.0.2", "port": 5432, "state": "no answer within 1 s"},
    ]
    (problem,) = _validate.check_peers("app1", peers)
    assert problem.subject == "peer db2"
    assert "10.0.0.2:5432 does not answer from app1" in problem.found


# -- report


def test_a_problem_of_all_hosts_is_said_once() -> None:
    one = [Problem((host,), "odoo_worker", "a", "b", "c") for host in ("vm1", "vm2")]
    lines = _validate.format_problems([*one, Problem(("vm2",), "memory", "a", "b", "c")], ["vm1", "vm2"])
    assert lines[0] == "all hosts: odoo_worker"
    assert "vm2: memory" in lines
    assert len(lines) == 8
