# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from berth_lab import preload
from berth_lab.run import CommandError

if TYPE_CHECKING:
    from pathlib import Path


class Engine:
    """Answers for docker as if it had volumes."""

    def __init__(self, archives: Path) -> None:
        self.volumes = {"berth-lab-images-old": str(archives), "berth-lab-images-gone": "/nowhere", "berth-lab-images-other": "/"}
        self.filled: set[str] = set()
        self.loaded: list[str] = []
        self.linked: list[tuple[str, str]] = []
        self.scripts: list[tuple[str, str]] = []

    def run(self, argv: list[str], **_options: object) -> str:
        match argv[1:3]:
            case ["volume", "create"]:
                self.volumes[argv[-1]] = argv[-2].partition("=")[2]
            case ["volume", "inspect"]:
                return f"/var/lib/docker/volumes/{argv[-1]}/_data\n"
            case ["volume", "ls"]:
                return "".join(f"{name}\t{place}\n" for name, place in self.volumes.items())
            case ["volume", "rm"]:
                del self.volumes[argv[-1]]
            case ["inspect", _]:
                return "volume-of-the-vm\n"
            case ["run", _] if preload.LOAD in argv:
                self.loaded += argv[argv.index("sh", argv.index(preload.LOAD)) + 1 :]
                self.filled |= {name for name in self.volumes if f"type=volume,source={name},target=/var/lib/docker" in argv}
            case ["run", _]:
                if argv[-2] not in self.filled:
                    raise CommandError(argv, preload.ABSENT, "")
                self.linked.append((argv[-2], argv[-1]))
                self.scripts.append((argv[argv.index("sh") + 1], argv[argv.index("-c") + 1]))
        return ""


def manifest(directory: Path, **files: str) -> None:
    entries = {name.replace("_", "-"): {"file": file} for name, file in files.items()}
    for file in files.values():
        (directory / file).touch()
    (directory / "manifest.json").write_text(json.dumps({"images": entries}))


def test_archives_are_loaded_once_and_linked_into_every_vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path)
    monkeypatch.setattr(preload, "run", engine.run)
    manifest(tmp_path, odoo="odoo-1.tar", odoo_own="odoo-own-1.tar", etcd="etcd-1.tar")
    preload.fill("vm1", "berth-lab/vm-docker:1", tmp_path, ["SYS_ADMIN"])
    # A variant more is no reason to load all of them again.
    manifest(tmp_path, odoo="odoo-1.tar", odoo_other="odoo-other-1.tar", etcd="etcd-1.tar")
    preload.fill("vm2", "berth-lab/vm-docker:1", tmp_path, ["SYS_ADMIN"])
    assert engine.loaded == ["etcd-1.tar", "odoo-1.tar"]
    [(volume, _), _] = engine.linked
    assert engine.linked == [(volume, "volume-of-the-vm")] * 2
    assert set(engine.volumes) == {volume, "berth-lab-images-other"}


def test_other_archives_are_loaded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path)
    monkeypatch.setattr(preload, "run", engine.run)
    for number in (1, 2):
        manifest(tmp_path, etcd=f"etcd-{number}.tar")
        preload.fill("vm1", "berth-lab/vm-docker:1", tmp_path, [])
    assert engine.loaded == ["etcd-1.tar", "etcd-2.tar"]
    assert [name for name, place in engine.volumes.items() if place == str(tmp_path)] == [engine.linked[-1][0]]


def test_without_archives_a_vm_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "run", lambda argv, **_options: pytest.fail(f"it ran {argv}"))
    preload.fill("vm1", "berth-lab/vm-docker:1", tmp_path, [])
    manifest(tmp_path, odoo="odoo-1.tar", etcd="etcd-1.tar")
    (tmp_path / "etcd-1.tar").unlink()
    preload.fill("vm1", "berth-lab/vm-docker:1", tmp_path, [])


def test_an_archive_that_cannot_be_loaded_is_no_empty_vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path)

    def run(argv: list[str], **options: object) -> str:
        if preload.LOAD in argv:
            raise CommandError(argv, 1, "open /archives/etcd-1.tar: unexpected EOF")
        return engine.run(argv, **options)

    monkeypatch.setattr(preload, "run", run)
    manifest(tmp_path, etcd="etcd-1.tar")
    with pytest.raises(CommandError, match="unexpected EOF"):
        preload.fill("vm1", "berth-lab/vm-docker:1", tmp_path, [])


def test_a_machine_gets_a_disk_of_what_was_loaded_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path)
    monkeypatch.setattr(preload, "run", engine.run)
    manifest(tmp_path, etcd="etcd-1.tar")
    preload.fill("vm1", "berth-lab/vm-docker:1", tmp_path, [])
    preload.fill("vm2", "berth-lab/vm-docker:1", tmp_path, [], machine="berth-lab/vm-machine:1")
    assert engine.loaded == ["etcd-1.tar"]
    assert engine.scripts == [("berth-lab/vm-docker:1", preload.LINK), ("berth-lab/vm-machine:1", preload.DISK)]
