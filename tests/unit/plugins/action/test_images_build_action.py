# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images_build action sends to a build host and brings back, without a host."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleActionFail

from ansible_collections.berth.odoo.plugins.action.images_build import ActionModule

REMOTE = "/var/tmp/berth-build.x"


class Host:
    """Stands for the build host: says that it needs the modules, then builds, and keeps what it was sent."""

    def __init__(self, needs: list[str]) -> None:
        self.needs = needs
        self.calls: list[dict[str, Any]] = []
        self.sent: dict[str, list[str]] = {}
        self.commands: list[str] = []
        self.files = {f"{REMOTE}/odoo.tar": b"archive", f"{REMOTE}/odoo.cdx.json": b"{}"}

    def module(self, _name: str, parameters: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        self.calls.append(parameters)
        if [name for name in self.needs if not parameters["addons"][name]["path"]]:
            return {"changed": False, "images": {}, "references": {}, "send": self.needs}
        entry = {
            "action": "built",
            "id": "sha256:" + "a" * 64,
            "reference": "berth/odoo:19.0-x",
            "version": "19.0",
            "inputs": "d" * 64,
            "file": "odoo-19.0-x.tar",
            "size": 7,
            "sha256": hashlib.sha256(b"archive").hexdigest(),
            "path": f"{REMOTE}/odoo.tar",
            "sbom": "odoo-19.0-x.cdx.json",
            "sbom_path": f"{REMOTE}/odoo.cdx.json",
            "sbom_sha256": hashlib.sha256(b"{}").hexdigest(),
        }
        return {"changed": True, "images": {"odoo": entry}, "references": {}}

    def command(self, command: str, **_kwargs: Any) -> dict[str, Any]:
        self.commands.append(command)
        return {"rc": 0, "stdout": f"{REMOTE}\n", "stderr": ""}

    def transfer(self, local: str, remote: str) -> None:
        with tarfile.open(local) as archive:
            self.sent[remote] = archive.getnames()

    def fetch(self, remote: str, local: str) -> None:
        Path(local).write_bytes(self.files[remote])


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of Dockerfiles, and one of modules beside it."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    for name in ("odoo", "odoo_addons", "redis"):
        (tmp_path / "contexts" / name).mkdir(parents=True)
        (tmp_path / "contexts" / name / "Dockerfile").write_text("FROM x")
    (tmp_path / "addons/acme").mkdir(parents=True)
    (tmp_path / "addons/acme/__manifest__.py").write_text("{}")
    return tmp_path / "contexts"


def run(host: Host, contexts: Path, **arguments: Any) -> dict[str, Any]:
    task = SimpleNamespace(
        args={"names": ["odoo"], "contexts_dir": str(contexts), "base_image": "debian", **arguments},
        check_mode=False,
        async_val=0,
        action="berth.odoo.images_build",
        diff=False,
        delegate_to=None,
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None), fetch_file=host.fetch)
    action = ActionModule(task, connection, SimpleNamespace(check_mode=False), None, None, None)
    action._execute_module = host.module  # type: ignore[method-assign]
    action._low_level_execute_command = host.command  # type: ignore[method-assign]
    action._transfer_file = host.transfer  # type: ignore[method-assign]
    return action.run(task_vars={})


def test_modules_are_sent_only_when_they_are_needed(contexts: Path) -> None:
    addons = {"odoo": {"addons": [str(contexts.parent / "addons")], "requirements": ""}}
    host = Host(needs=[])
    run(host, contexts, addons=addons)
    assert host.sent == {} and host.commands == []
    host = Host(needs=["odoo"])
    run(host, contexts, addons=addons)
    assert host.sent == {f"{REMOTE}/odoo-modules.tar": [".", "acme/__manifest__.py"]}
    first, second = (call["addons"]["odoo"] for call in host.calls)
    assert first == {**second, "path": ""} and second["modules"] == ["acme"]
    assert host.commands[-1] == f"rm -rf {REMOTE}"


def test_archive_and_bill_of_materials_come_back_and_the_former_ones_go(contexts: Path, tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    former = {"id": "sha256:" + "b" * 64, "reference": "berth/odoo:19.0-w", "inputs": "c" * 64, "file": "odoo-19.0-w.tar"}
    former |= {"sha256": "e" * 64, "version": "19.0", "size": 3, "sbom": "odoo-19.0-w.cdx.json"}
    (archives / "manifest.json").write_text(json.dumps({"format": 1, "images": {"odoo": former}}))
    for name in ("odoo-19.0-w.tar", "odoo-19.0-w.cdx.json"):
        (archives / name).write_text("old")
    run(Host(needs=[]), contexts, archive_dir=str(archives))
    assert sorted(path.name for path in archives.iterdir()) == ["manifest.json", "odoo-19.0-x.cdx.json", "odoo-19.0-x.tar"]
    (entry,) = json.loads((archives / "manifest.json").read_text())["images"].values()
    assert entry["sbom"] == "odoo-19.0-x.cdx.json" and not {"path", "sbom_path", "sbom_sha256", "action"} & entry.keys()


def test_a_file_that_arrives_broken_is_not_kept(contexts: Path, tmp_path: Path) -> None:
    host = Host(needs=[])
    host.files[f"{REMOTE}/odoo.cdx.json"] = b"torn"
    with pytest.raises(AnsibleActionFail, match=r"odoo-19\.0-x\.cdx\.json arrived broken from the build host"):
        run(host, contexts, archive_dir=str(tmp_path / "archives"))
    assert [path.name for path in (tmp_path / "archives").iterdir()] == ["odoo-19.0-x.tar"]


def test_what_is_wrong_with_add_ons_is_said_before_the_host_is_asked(contexts: Path) -> None:
    host = Host(needs=[])
    requirements = contexts.parent / "requirements.txt"
    requirements.write_text("queue-job\n")
    for given, message in (
        ({"odoo": {"addons": ["/nowhere"]}}, "/nowhere does not exist on the machine that runs Ansible"),
        ({"odoo": {"requirements": "/nowhere.txt"}}, r"cannot read /nowhere\.txt"),
        ({"odoo": {"requirements": str(requirements)}}, "line 1: 'queue-job' is not pinned"),
        (
            {"odoo": {"addon": ["/nowhere"]}},
            r"odoo has a key 'addon'; expected \{addons: \[<directory or archive>, …\], requirements: <file>\}",
        ),
        ({"odoo": {"addons": "/nowhere"}}, "odoo has addons '/nowhere'; expected"),
        ({"odoo": ["/nowhere"]}, r"odoo is \['/nowhere'\]; expected"),
        ({"redis": {"addons": [str(contexts.parent / "addons")]}}, "redis is another image of the platform; call yours odoo-<something>"),
    ):
        with pytest.raises(AnsibleActionFail, match=message):
            run(host, contexts, names=["odoo", "redis"], addons=given)
    assert host.calls == []
