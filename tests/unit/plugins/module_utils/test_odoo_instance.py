# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose files are where: what is deleted with an instance must be nobody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _odoo_instance
from ansible_collections.berth.odoo.plugins.modules import odoo_instance_info


def definition(source: str) -> dict[str, Any]:
    volumes = [
        {"type": "bind", "source": "/opt/berth/odoo-x/secrets", "target": "/run/secrets/odoo", "read_only": True},
        {"type": "bind", "source": source, "target": "/var/lib/odoo"},
        {"type": "volume", "source": "cache", "target": "/var/cache"},
    ]
    return {"services": {"web": {"volumes": volumes}, "cron": {"volumes": volumes}, "proxy": {}}}


def test_the_directory_is_the_one_that_the_containers_have() -> None:
    assert _odoo_instance.directories(definition("/srv/odoo/main")) == ["/srv/odoo/main"]
    assert _odoo_instance.directories({"services": None}) == _odoo_instance.directories({}) == []


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("/srv/odoo", "/srv/odoo/", True),
        ("/srv/odoo", "/srv/odoo/shop", True),
        ("/srv/odoo/shop/../main", "/srv/odoo/main", True),
        ("/", "/srv/odoo", True),
        ("/srv/odoo/main", "/srv/odoo/main2", False),
        ("/srv/odoo/main", "/srv/odoo/shop", False),
    ],
)
def test_directories_that_cannot_be_deleted_apart(one: str, other: str, wanted: bool) -> None:
    assert _odoo_instance.overlap(one, other) is _odoo_instance.overlap(other, one) is wanted


def test_whoever_has_files_there_is_named() -> None:
    others = {"shop": ["/srv/odoo"], "main": ["/srv/odoo/main"], "inner": ["/srv/odoo/stage/inner"], "none": []}
    assert _odoo_instance.shared(["/srv/odoo/stage", "/var/lib/berth/odoo/stage"], others) == [
        "inner has /srv/odoo/stage/inner",
        "shop has /srv/odoo",
    ]


class Answered(Exception):
    """The module has ended."""


def ask(base: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, Any]:
    class Module:
        def __init__(self, **_options: Any) -> None:
            self.params = {"name": name, "base_dir": str(base)}

        def run_command(self, argv: list[str], check_rc: bool) -> tuple[int, str, str]:
            project = next(part for part in argv if part.startswith("--project-name=")).removeprefix("--project-name=")
            return 0, json.dumps(definition((base / project / "source").read_text(encoding="utf-8"))), ""

        def exit_json(self, **result: Any) -> None:
            raise Answered(result)

    monkeypatch.setattr(odoo_instance_info, "AnsibleModule", Module)
    with pytest.raises(Answered) as ended:
        odoo_instance_info.main()
    found: dict[str, Any] = ended.value.args[0]
    return found


def test_an_instance_is_read_with_links_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "srv")
    for name, source in (("main", "srv"), ("shop", "link"), ("apart", "elsewhere")):
        project = tmp_path / f"odoo-{name}"
        (project / "config/maintenance").mkdir(parents=True)
        (project / "config/maintenance/odoo.conf").write_text(f"[options]\ndb_name = {name}_db\n", encoding="utf-8")
        (project / "compose.yml").touch()
        (project / "source").write_text(str(tmp_path / source), encoding="utf-8")
    assert ask(tmp_path, monkeypatch, "shop") == {
        "changed": False,
        "database": "shop_db",
        "directories": [str(tmp_path / "srv"), "/var/lib/berth/odoo/shop"],
        "attachments_in_s3": False,
        "shared": [f"main has {tmp_path}/srv"],
    }
    assert ask(tmp_path, monkeypatch, "apart")["shared"] == []
    # What a host that never had it would delete.
    assert ask(tmp_path, monkeypatch, "gone") == {
        "changed": False,
        "database": "",
        "directories": ["/var/lib/berth/odoo/gone"],
        "attachments_in_s3": False,
        "shared": [],
    }
