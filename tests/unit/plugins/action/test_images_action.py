# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images action sends to a host, without a host."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleActionFail

from ansible_collections.berth.odoo.plugins.action.images import ActionModule
from ansible_collections.berth.odoo.plugins.module_utils import _image_archive, _images

BASE = b"base" * 50_000
GIB = 1 << 30


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Host:
    """Stands for the remote side: answers the module's calls and keeps what was sent."""

    def __init__(self, missing: list[str], layers: list[list[str]], free: int = 20 * GIB) -> None:
        self.missing, self.layers, self.free = missing, layers, free
        self.sent: dict[str, _image_archive.Contents] = {}
        self.commands: list[str] = []
        self.loaded: list[dict[str, str]] = []

    def module(self, _name: str, parameters: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        images = {item["name"]: {"id": item["id"], "action": "present"} for item in parameters["wanted"]}
        references = {item["name"]: item["id"] for item in parameters["wanted"]}
        if parameters.get("load"):
            self.loaded = parameters["load"]
            return {"changed": True, "missing": [], "images": images, "references": references}
        disks = [["/var/tmp", 1, self.free], ["/var/lib/docker", 2, self.free]]
        result = {"changed": bool(self.missing), "missing": self.missing, "images": images, "references": references}
        return {**result, "engine": {"layers": self.layers, "disks": disks}} if self.missing else result

    def command(self, command: str, **_kwargs: Any) -> dict[str, Any]:
        self.commands.append(command)
        return {"rc": 0, "stdout": "/var/tmp/berth-images.1000\n", "stderr": ""}

    def transfer(self, local: str, remote: str) -> None:
        self.sent[remote] = _image_archive.read(Path(local))


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images on one base, as images_build leaves them."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    directory = tmp_path / "archives"
    directory.mkdir()
    entries = {}
    for name in ("redis", "etcd"):
        config = json.dumps({"rootfs": {"diff_ids": [digest(BASE), digest(name.encode())]}}).encode()
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for data in (BASE, name.encode(), config):
                info = tarfile.TarInfo(digest(data))
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        stream.seek(0)
        path = directory / f"{name}.tar"
        _image_archive.pack(stream, digest(config), f"berth/{name}:1", path)
        entries[name] = {
            "id": digest(config),
            "reference": f"berth/{name}:1",
            "inputs": "0" * 64,
            "file": path.name,
            "sha256": _image_archive.file_digest(path),
            "version": "1",
        }
    (directory / "manifest.json").write_text(_images.manifest_text(entries))
    return directory


def run(host: Host, archives: Path, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    task = SimpleNamespace(
        args={"names": ["redis", "etcd"], "archive_dir": str(archives), **arguments},
        check_mode=check_mode,
        async_val=0,
        action="berth.odoo.images",
        diff=False,
        delegate_to=None,
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    action = ActionModule(task, connection, SimpleNamespace(check_mode=check_mode), None, None, None)
    action._execute_module = host.module  # type: ignore[method-assign]
    action._low_level_execute_command = host.command  # type: ignore[method-assign]
    action._transfer_file = host.transfer  # type: ignore[method-assign]
    return action.run(task_vars={"inventory_hostname": "app1"})


def test_a_host_with_everything_is_only_asked(archives: Path) -> None:
    host = Host([], [])
    result = run(host, archives)
    assert result["changed"] is False
    assert host.commands == []
    assert set(result["references"]) == {"redis", "etcd"}


def test_a_base_that_two_images_share_is_sent_once(archives: Path) -> None:
    host = Host(["redis", "etcd"], [])
    result = run(host, archives)
    redis, etcd = host.sent["/var/tmp/berth-images.1000/redis.tar"], host.sent["/var/tmp/berth-images.1000/etcd.tar"]
    assert [bool(layer.member) for layer in redis.layers] == [True, True]
    assert [bool(layer.member) for layer in etcd.layers] == [False, True]
    assert {image["action"] for image in result["images"].values()} == {"loaded"}
    assert host.commands[-1] == "rm -rf /var/tmp/berth-images.1000"


def test_layers_that_the_host_has_are_not_sent(archives: Path) -> None:
    host = Host(["etcd"], [[digest(BASE), "sha256:other"]])
    run(host, archives)
    (etcd,) = host.sent.values()
    assert [bool(layer.member) for layer in etcd.layers] == [False, True]


def test_check_mode_sends_nothing_and_says_what_is_missing(archives: Path) -> None:
    host = Host(["etcd"], [])
    result = run(host, archives, check_mode=True)
    assert (result["changed"], result["missing"], host.commands, host.sent) == (True, ["etcd"], [], {})


def test_a_full_disk_is_refused_before_anything_is_sent(archives: Path) -> None:
    host = Host(["etcd"], [], free=GIB // 4)
    with pytest.raises(AnsibleActionFail, match=r"not enough disk on app1: /var/tmp \(archives in transfer\) need"):
        run(host, archives)
    assert host.commands == []


def test_a_damaged_archive_is_not_sent(archives: Path) -> None:
    with (archives / "etcd.tar").open("ab") as stream:
        stream.write(b"x")
    host = Host(["etcd"], [])
    with pytest.raises(AnsibleActionFail, match=r"etcd\.tar is damaged: SHA-256 [0-9a-f]{64}, the manifest says"):
        run(host, archives)
    assert host.commands == []


def test_an_archive_that_is_gone_is_named(archives: Path) -> None:
    (archives / "etcd.tar").unlink()
    with pytest.raises(AnsibleActionFail, match=r"etcd\.tar: No such file or directory\. The manifest beside it names it"):
        run(Host(["etcd"], []), archives)


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"Build them with: ansible-playbook -i <inventory> berth\.odoo\.images"):
        run(Host([], []), tmp_path)


def test_the_directory_is_removed_when_the_transfer_breaks(archives: Path) -> None:
    host = Host(["etcd"], [])
    host.transfer = lambda _local, _remote: (_ for _ in ()).throw(AnsibleActionFail("connection lost"))  # type: ignore[method-assign]
    with pytest.raises(AnsibleActionFail, match="connection lost"):
        run(host, archives)
    assert host.commands[-1] == "rm -rf /var/tmp/berth-images.1000"


def test_a_tag_is_refused_before_the_host_is_asked(tmp_path: Path) -> None:
    host = Host([], [])
    host.module = lambda *_args, **_kwargs: pytest.fail("the host was asked")  # type: ignore[method-assign]
    with pytest.raises(AnsibleActionFail, match="a tag that can be moved"):
        run(host, tmp_path, names=["odoo"], source="registry", references={"odoo": "x/odoo:19"}, require_digests=True)
