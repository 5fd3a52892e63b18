# SPDX-License-Identifier: GPL-3.0-or-later
"""The generated documentation, and the disagreements it must find in a role."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.berth.odoo.tools import docs

SPEC: dict[str, Any] = {
    "argument_specs": {
        "main": {
            "short_description": "Sessions",
            "description": ["Runs C(redis-server)."],
            "options": {
                "redis_image": {"type": "str", "required": True, "description": "Image."},
                "redis_users": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "description": ["Users.", "Example: V([{name: a|b}])."],
                    "options": {"name": {"type": "str", "required": True, "description": "Name."}},
                },
            },
        }
    }
}
DEFAULTS: dict[str, Any] = {"redis_users": []}
EXAMPLE = [
    {"name": "Run Redis", "hosts": "all", "roles": [{"role": "berth.odoo.redis", "vars": {"redis_image": "{{ images_references.redis }}"}}]}
]


def write_role(root: Path, name: str, files: Mapping[str, Any]) -> None:
    for path, content in files.items():
        file = root / "roles" / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A collection with two sound roles."""
    write_role(
        tmp_path,
        "redis",
        {
            "meta/argument_specs.yml": SPEC,
            "defaults/main.yml": DEFAULTS,
            "vars/main.yml": {"__redis_uid": 1},
            "meta/example.yml": EXAMPLE,
        },
    )
    etcd = yaml.safe_load(yaml.safe_dump([SPEC, DEFAULTS, EXAMPLE]).replace("redis", "etcd"))
    write_role(tmp_path, "etcd", {"meta/argument_specs.yml": etcd[0], "defaults/main.yml": etcd[1], "meta/example.yml": etcd[2]})
    (tmp_path / "README.md").write_text("before\n<!-- roles -->\nold\n<!-- /roles -->\nafter\n")
    return tmp_path


def run(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = docs.main(list(arguments), root)
    return code, capsys.readouterr().err


def test_sound_roles_are_written_and_then_up_to_date(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, capsys) == (0, "")
    assert run(root, capsys, "--check") == (0, "")


def test_check_names_stale_and_missing_pages_and_writes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs.main([], root)
    capsys.readouterr()
    (root / "roles/redis/README.md").write_text("edited by hand")
    (root / "docs/variables.md").unlink()
    code, err = run(root, capsys, "--check")
    assert code == 1
    assert err.splitlines() == [f"{name}: is out of date. Type: make docs" for name in ("roles/redis/README.md", "docs/variables.md")]
    assert (root / "roles/redis/README.md").read_text() == "edited by hand"
    assert not (root / "docs/variables.md").exists()


def test_readme_shows_the_example_and_every_variable(root: Path) -> None:
    docs.main([], root)
    text = (root / "roles/redis/README.md").read_text()
    assert "Sessions.\n\nRuns `redis-server`.\n" in text
    assert f"```yaml\n{yaml.safe_dump(EXAMPLE).strip()}\n```" in text
    assert "| `redis_image` | str | required | Image. |" in text
    assert "| `redis_users` | list of dict | `[]` | Users. Example: `[{name: a\\|b}]`. |" in text
    assert "| `redis_users[].name` | str | required | Name. |" in text


def test_the_collections_readme_lists_the_roles(root: Path) -> None:
    docs.main([], root)
    rows = [f"| [{name}](roles/{name}/README.md) | Sessions |" for name in ("etcd", "redis")]
    assert (root / "README.md").read_text().splitlines() == ["before", "<!-- roles -->", *rows, "<!-- /roles -->", "after"]


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        (
            "defaults/main.yml",
            {**DEFAULTS, "redis_memory_mb": 64},
            "roles/redis/defaults/main.yml: redis_memory_mb is not in meta/argument_specs.yml",
        ),
        ("defaults/main.yml", {}, "redis_users has the default [], defaults/main.yml has none"),
        (
            "defaults/main.yml",
            {"redis_users": [{}]},
            "redis_users has the default [{}] in defaults/main.yml and [] in meta/argument_specs.yml",
        ),
        ("defaults/main.yml", {**DEFAULTS, "redis_image": "x"}, "redis_image is required, so it can have no default"),
        ("vars/main.yml", {"redis_uid": 1}, "redis_uid must be named __redis_…"),
        ("meta/argument_specs.yml", {"argument_specs": {}}, "has no entry point main"),
        ("meta/example.yml", "", "must be a playbook"),
        ("meta/example.yml", [{"hosts": "cache", "roles": []}], "runs on cache"),
        ("meta/example.yml", [{"hosts": "all", "roles": ["berth.odoo.etcd"]}], "does not use the role berth.odoo.redis"),
        ("meta/example.yml", [{"hosts": "all", "roles": [{"role": "berth.odoo.redis"}]}], "does not set redis_image, which is required"),
        (
            "meta/example.yml",
            [{"hosts": "all", "roles": [{"role": "berth.odoo.redis", "vars": {"redis_image": "berth/redis:latest"}}]}],
            "redis_image is berth/redis:latest, which a reader's host does not have",
        ),
        ("templates/redis.conf.j2", "bind {{ etcd_image }}", "templates/redis.conf.j2: reads etcd_image, a variable of the role etcd"),
        ("tasks/main.yml", [{"debug": {"var": "groups['cache']"}}], "tasks/main.yml: uses groups; only playbooks know groups"),
    ],
)
def test_disagreements_are_found(root: Path, capsys: pytest.CaptureFixture[str], path: str, content: Any, problem: str) -> None:
    write_role(root, "redis", {path: content})
    code, err = run(root, capsys)
    assert code == 1
    assert problem in err


def test_defaults_of_another_type_are_different(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = yaml.safe_load(yaml.safe_dump(SPEC))
    spec["argument_specs"]["main"]["options"]["redis_enabled"] = {"type": "bool", "default": 1, "description": "On."}
    write_role(root, "redis", {"meta/argument_specs.yml": spec, "defaults/main.yml": {**DEFAULTS, "redis_enabled": True}})
    code, err = run(root, capsys)
    assert code == 1
    assert "redis_enabled has the default True in defaults/main.yml and 1" in err


def test_a_computed_default_may_stand_in_the_defaults_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = yaml.safe_load(yaml.safe_dump(SPEC))
    spec["argument_specs"]["main"]["options"]["redis_memory_mb"] = {"type": "int", "description": "Limit."}
    write_role(root, "redis", {"meta/argument_specs.yml": spec, "defaults/main.yml": {**DEFAULTS, "redis_memory_mb": "{{ 2 * 3 }}"}})
    assert run(root, capsys) == (0, "")
    assert "| `redis_memory_mb` | int | `'{{ 2 * 3 }}'` | Limit. |" in (root / "roles/redis/README.md").read_text()


def test_an_option_without_type_or_elements_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = yaml.safe_load(yaml.safe_dump(SPEC))
    del spec["argument_specs"]["main"]["options"]["redis_users"]["options"]["name"]["type"]
    del spec["argument_specs"]["main"]["options"]["redis_users"]["elements"]
    write_role(root, "redis", {"meta/argument_specs.yml": spec})
    code, err = run(root, capsys)
    assert code == 1
    assert "redis_users has no elements" in err
    assert "redis_users[].name has no type" in err


def test_the_overseer_may_read_all_variables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "roles/etcd").rename(root / "roles/preflight")
    spec = (root / "roles/preflight/meta/argument_specs.yml").read_text()
    example = (root / "roles/preflight/meta/example.yml").read_text().replace("odoo.etcd", "odoo.preflight")
    files = {"meta/argument_specs.yml": spec, "meta/example.yml": example, "tasks/main.yml": [{"debug": {"var": "redis_image"}}]}
    write_role(root, "preflight", files)
    assert run(root, capsys) == (0, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Runs C(redis-cli) as V(root).", "Runs `redis-cli` as `root`."),
        (
            "See L(the page,https://example.com/a) or U(https://example.com).",
            "See [the page](https://example.com/a) or <https://example.com>.",
        ),
        ("Escaped V(lookup('env', 'X'\\)) and nested C(f(x)) parentheses.", "Escaped `lookup('env', 'X')` and nested `f(x)` parentheses."),
        ("B(Never) I(ever) a|b. ABC(x) stays.", "**Never** *ever* a\\|b. ABC(x) stays."),
    ],
)
def test_markup_becomes_markdown(text: str, expected: str) -> None:
    assert docs.markdown(text) == expected


def test_the_page_of_the_network_has_a_table_for_each_inventory_it_names(tmp_path: Path) -> None:
    (tmp_path / "one/group_vars/all").mkdir(parents=True)
    groups = {tier: {"hosts": {"vm1": None}} for tier in ("edge", "app", "database", "cache")}
    (tmp_path / "one/hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"vm1": {"ansible_host": "192.0.2.1"}}, "children": groups}}))
    (tmp_path / "one/group_vars/all/main.yml").write_text(yaml.safe_dump({"odoo_instances": {"main": {"database": "main"}}}))
    page = docs.network("before\n<!-- open one -->\nold\n<!-- /open -->\nafter\n", tmp_path)
    assert page.startswith("before\n<!-- open one -->\n| Host |") and page.endswith("\n<!-- /open -->\nafter\n") and "old" not in page
    assert "| vm1 | 22/tcp | `firewall_management_networks` | SSH |\n" in page
    assert "| vm1 | 443/tcp | everybody | the edge |\n" in page
    assert docs.network(page, tmp_path) == page
