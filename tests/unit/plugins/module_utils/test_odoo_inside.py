# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the program that runs inside an Odoo container. What it does with Odoo is tested with a real one."""

from __future__ import annotations

import inspect
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _odoo_inside as inside


def module(*depends: str, installable: bool = True) -> dict[str, Any]:
    return {"depends": list(depends), "installable": installable, "version": "19.0.1.0"}


IMAGE = {
    "base": module(),
    "web": module("base"),
    "stock": module("web"),
    "sale_management": module("stock"),
    "orphan": module("web", "enterprise_thing"),
    "child": module("orphan"),
    "old": module("base", installable=False),
    "on_old": module("old"),
    "circle_a": module("circle_b"),
    "circle_b": module("circle_a"),
}


def test_modules_that_can_be_installed() -> None:
    assert inside.module_problems(["stock", "sale_management", "circle_a"], IMAGE) == []


def test_every_reason_is_named() -> None:
    assert inside.module_problems(["sale_managment", "zzzzzz", "old", "child", "on_old"], IMAGE) == [
        f"sale_managment: no such module in the image; did you mean sale_management? Otherwise {inside.MODULES_FROM}",
        f"zzzzzz: no such module in the image; {inside.MODULES_FROM}",
        "old: its manifest says that it is not installable",
        "child: needs enterprise_thing (a dependency of orphan), which the image does not have",
        "on_old: needs old (a dependency of on_old), which the image does not have",
    ]


class Records:
    """Odoo's records of one model, as far as parameters are set."""

    def __init__(self, scopes: list[str]) -> None:
        self.scopes = scopes
        self.written: list[Any] = []

    def set_param(self, key: str, value: str) -> None:
        self.written.append((key, value))

    def with_context(self, **context: Any) -> Records:
        assert context == {"active_test": False}
        return self

    def search(self, domain: list[Any]) -> Any:
        ((field, operator, [scope, nothing]),) = domain
        assert (field, operator, nothing) == ("auth_signup_uninvited", "not in", False)
        return self if any(found not in ("", scope) for found in self.scopes) else []

    def write(self, values: dict[str, str]) -> None:
        self.written.append(values)


@pytest.mark.parametrize(
    ("given", "scopes", "written"),
    [
        ({"auth_signup.invitation_scope": "b2b"}, ["b2c", "b2b"], [{"auth_signup_uninvited": "b2b"}]),
        ({"auth_signup.invitation_scope": "b2c"}, ["b2b"], [{"auth_signup_uninvited": "b2c"}]),
        ({"auth_signup.invitation_scope": "nobody"}, ["b2c"], [{"auth_signup_uninvited": "b2b"}]),
        ({"auth_signup.invitation_scope": "b2b"}, ["b2b", ""], []),
        ({"report.url": "http://web:8069"}, ["b2c"], []),
    ],
)
def test_websites_get_who_may_sign_up(given: dict[str, str], scopes: list[str], written: list[dict[str, str]]) -> None:
    env = {"ir.config_parameter": Records([]), "website": Records(scopes)}
    inside.set_parameters(env, given)
    assert env["ir.config_parameter"].written == list(given.items())
    assert env["website"].written == written


def test_parameters_are_set_where_there_are_no_websites() -> None:
    env = {"ir.config_parameter": Records([])}
    inside.set_parameters(env, {"auth_signup.invitation_scope": "b2b"})
    assert env["ir.config_parameter"].written == [("auth_signup.invitation_scope", "b2b")]


def test_connection_arguments_are_those_of_odoo() -> None:
    options = {"db_name": "main", "db_host": "pgbouncer", "db_port": "6432", "db_user": "odoo", "db_password": "False", "workers": "2"}
    assert inside.connection_arguments(options) == {"dbname": "main", "host": "pgbouncer", "port": "6432", "user": "odoo"}


@pytest.mark.parametrize(
    ("kinds", "typed"),
    [
        (["ImportError"], "docs/filestore.md"),
        (["FileNotFoundError", "OSError"], "make the bucket files, or correct odoo_filestore.bucket"),
        (["PermissionError", "OSError"], "odoo_filestore_secret_key"),
        (["SSLError", "ConnectionError"], "odoo_filestore.authority_certificate"),
        (["EndpointConnectionError", "ConnectionError", "BotoCoreError"], "check odoo_filestore.endpoint"),
    ],
)
def test_why_a_place_in_s3_cannot_be_used(kinds: list[str], typed: str) -> None:
    words = inside.place_problem([*kinds, "Exception"], "what it\n says", "https://s3:9000", "files/main")
    assert "what it" in words
    assert typed in words


def test_what_is_no_error_of_s3_stays_as_it_is() -> None:
    record = {"options": '{"endpoint_url": "https://s3:9000"}', "directory_path": "files/{db_name}"}
    with pytest.raises(inside.Refused, match=r"files/main at https://s3:9000.*no way"), inside.place_errors(record, "main"):
        raise OSError("no way")
    with pytest.raises(inside.Refused, match=r"^as it was$"), inside.place_errors(record, "main"):
        raise inside.Refused("as it was")


@pytest.mark.parametrize("name", ["", "a,b", " , "])
def test_a_configuration_is_for_one_database(name: str) -> None:
    with pytest.raises(inside.Refused, match="db_name"):
        inside.connection_arguments({"db_name": name})


def test_attachments_whose_file_is_elsewhere_are_not_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odoo would read an empty file and store that."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/abcd").write_bytes(b"x")
    monkeypatch.setattr(inside, "rows", lambda *_: [(1, "ab/abcd"), (2, "ab/gone"), (3, "ab/abcd"), (4, "ab")])
    assert inside.attachment_files(None, str(tmp_path)) == ([1, 3], 2)


def test_attachments_are_moved_in_portions_that_fit_into_memory() -> None:
    many, big = 60 * [1000], [15 << 20, 15 << 20, 900 << 20, 1]
    assert [len(portion) for portion in inside.portions(enumerate(many))] == [50, 10]
    assert list(inside.portions(enumerate(big))) == [[0], [1], [2], [3]]
    assert list(inside.portions([])) == []


def test_states_between_two_others() -> None:
    assert inside.leftovers({"a": "installed", "b": "to install", "c": "to remove"}) == {"b": "to install", "c": "to remove"}


def test_long_lists_are_cut() -> None:
    assert inside.listed(["b", "a"]) == "a, b"
    assert inside.listed(str(number) for number in range(10)).endswith("and 2 more")


def test_a_database_of_another_version_is_refused() -> None:
    available = {"base": module()}
    inside.check_version({"version": "", "database": "main"}, available)
    # A newer base of the same Odoo is updated like any other module.
    for version in ("19.0.1.0", "19.0.1.1"):
        inside.check_version({"version": version, "database": "main"}, available)
    with pytest.raises(inside.Refused, match=r"18\.0\.1\.3"):
        inside.check_version({"version": "18.0.1.3", "database": "main"}, available)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the database has, which a test may add to; Odoo's own order of versions."""
    found = [("base", "19.0.1.0"), ("web", "19.0.1.0"), ("stock", "19.0.1.0")]
    monkeypatch.setattr(inside, "rows", lambda _connection, _query: [(*pair, pair[0] == "imported") for pair in found])
    order = ModuleType("odoo.tools.parse_version")
    vars(order)["parse_version"] = lambda version: [int(part) for part in version.split(".") if part]
    for name, fake in (("odoo", ModuleType("odoo")), ("odoo.tools", ModuleType("odoo.tools")), ("odoo.tools.parse_version", order)):
        monkeypatch.setitem(sys.modules, name, fake)
    return found


STATE = {"initialised": True, "version": "19.0.1.0", "database": "main", "unfinished": ""}


def test_an_image_that_fits_its_database(installed: list[tuple[str, str]]) -> None:
    installed.append(("imported", "19.0.1.0"))
    assert inside.other_versions(None, STATE, IMAGE) == []


def test_modules_of_another_version_are_listed(installed: list[tuple[str, str]]) -> None:
    installed[1:2] = [("web", "19.0.0.9"), ("sale_management", "19.0.1.10")]
    assert inside.other_versions(None, STATE, IMAGE) == [
        {"name": "web", "was": "19.0.0.9", "now": "19.0.1.0", "newer": True, "text": "web 19.0.0.9 (image: 19.0.1.0)"},
        {
            "name": "sale_management",
            "was": "19.0.1.10",
            "now": "19.0.1.0",
            "newer": False,
            "text": "sale_management 19.0.1.10 (image: 19.0.1.0)",
        },
    ]


def test_a_module_that_needs_another_one_now_has_to_be_updated(installed: list[tuple[str, str]]) -> None:
    installed.append(("sale_management", "19.0.1.0"))
    installed.remove(("stock", "19.0.1.0"))
    [found] = inside.other_versions(None, STATE, IMAGE)
    assert (found["newer"], found["text"]) == (True, "sale_management (now needs stock)")
    installed.append(("orphan", "19.0.1.0"))
    with pytest.raises(inside.Refused, match=r"orphan: needs enterprise_thing .*, which the image does not have"):
        inside.other_versions(None, STATE, IMAGE)


def test_an_update_that_did_not_end_is_not_forgotten(installed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Odoo has committed the module, puts the states of those that depend on it back, and fails."""
    assert installed
    notes: list[str | None] = []
    monkeypatch.setattr(inside, "annotate", lambda _connection, note: notes.append(note))
    monkeypatch.setattr(inside, "read_state", lambda _connection, _parameters: {"modules": {"stock": "installed"}})

    class Registry:
        @staticmethod
        def new(*_arguments: object, **_options: object) -> None:
            raise ValueError("a view is broken")

    state = {**STATE, "modules": {}}
    with pytest.raises(ValueError, match="broken"):
        inside.change_modules(None, Registry, state, [], [], ["web", "stock"])
    assert notes == ["berth: changing modules; to update: web stock"]
    later = {**STATE, "unfinished": notes[0], "modules": {"stock": "installed"}}
    assert [found["text"] for found in inside.other_versions(None, later, IMAGE)] == [
        "web (its update did not end)",
        "stock (its update did not end)",
    ]
    with pytest.raises(inside.Refused, match=r"the update of stock, web did not end\. Run again with update_modules"):
        inside.change_modules(None, Registry, later, ["sale_management"], [])
    # An installation that fails leaves nothing to remember.
    with pytest.raises(ValueError, match="broken"):
        inside.change_modules(None, Registry, state, ["sale_management"], [])
    assert notes[1:] == ["berth: changing modules", None]


def test_an_image_that_lacks_installed_modules_is_refused(installed: list[tuple[str, str]]) -> None:
    installed += [("acme_dock", "19.0.1.0"), ("old", "19.0.1.0")]
    with pytest.raises(
        inside.Refused, match=r"lacks what is installed in database main: acme_dock, old\. .*Nothing was restarted; build one"
    ):
        inside.other_versions(None, STATE, IMAGE)


def test_an_empty_database_fits_every_image(installed: list[tuple[str, str]]) -> None:
    installed.append(("acme_dock", "19.0.1.0"))
    assert inside.other_versions(None, {"initialised": False}, IMAGE) == []


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (inside.Refused("no such module"), {"refused": "no such module"}),
        (ValueError("two\n   lines"), {"failed": "ValueError: two lines"}),
    ],
)
def test_every_request_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, answer: dict[str, str]
) -> None:
    def fail(_request: object) -> None:
        raise error

    monkeypatch.setitem(inside.REQUESTS, "state", fail)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"do": "state"}'))
    assert inside.main() == 0
    out = capsys.readouterr().out
    assert out == inside.ANSWER + json.dumps(answer) + "\n"


def test_its_source_fits_into_an_argument() -> None:
    # Linux refuses a single argument of 128 KiB; Docker keeps it in the description of every container made with it.
    assert len(inspect.getsource(inside).encode()) < 64 * 1024


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which Python finds an image's modules; Odoo can read its configuration."""
    for name in ("base", "queue_job"):
        (tmp_path / "odoo/addons" / name).mkdir(parents=True)
        (tmp_path / "odoo/addons" / name / "__manifest__.py").write_text("{}")
    (tmp_path / "odoo/tools").mkdir()
    (tmp_path / "odoo/tools/config.py").write_text("")
    (tmp_path / "odoo.conf").write_text("[options]\naddons_path = \n")
    monkeypatch.setenv("ODOO_RC", str(tmp_path / "odoo.conf"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("odoo", "odoo.tools", "odoo.tools.config"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_server_wide_module_that_the_image_lacks_is_refused_with_the_nearest(image: Path) -> None:
    assert image.is_dir()
    options = inside.read_configuration()
    inside.check_start(["queue_job"], options)
    with pytest.raises(inside.Refused, match=r"server_wide_modules has queue_jobs, .* did you mean queue_job\?") as caught:
        inside.check_start(["queue_job", "queue_jobs", "sentry"], options)
    assert "server_wide_modules has sentry, and there is no such module in the image: add it with images_odoo_addons" in str(caught.value)


def test_a_setting_that_odoo_cannot_read_is_named(image: Path) -> None:
    (image / "odoo/tools/config.py").write_text("def parse(option_name, value):\n    return int(value)\nparse('limit_request', 'many')\n")
    expected = (
        r"odoo.conf: limit_request is 'many', and Odoo cannot read that: invalid literal .*Correct it in the instance's extra_settings"
    )
    with pytest.raises(inside.Refused, match=expected):
        inside.check_start(["base"], inside.read_configuration())
