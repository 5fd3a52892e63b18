# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import re
import tarfile
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from berth_lab import vms
from berth_lab.run import CommandError, LabError
from berth_lab.settings import Settings, Vm

SETTINGS = Settings(
    "demo", (Vm("vm1"),), "", "", IPv4Network("10.213.0.0/16"), (), ("main",), ("odoo.berth.test",), Path("/src/my project")
)


def values(argv: list[str], flag: str) -> list[str]:
    return [argv[index + 1] for index, item in enumerate(argv) if item == flag]


def test_create_command() -> None:
    argv = vms.create_argv(Vm("vm1", memory_mb=2048, cpus=1.5), "10.213.0.11", "berth-lab/vm:1", SETTINGS, ["SYS_ADMIN", "NET_ADMIN"])
    assert argv[-1] == "berth-lab/vm:1"
    assert values(argv, "--label") == ["berth.lab=demo", "berth.lab.project=/src/my project"]
    assert values(argv, "--cap-add") == ["SYS_ADMIN", "NET_ADMIN"]
    assert values(argv, "--memory") == values(argv, "--memory-swap") == ["2048m"]
    assert values(argv, "--cpus") == ["1.5"]
    assert values(argv, "--ip") == ["10.213.0.11"]
    assert "--privileged" not in argv
    assert "--publish" not in argv


def test_machine_gets_its_memory_and_the_emulator_more() -> None:
    argv = vms.create_argv(Vm("vm1", memory_mb=2048, cpus=2, image="vm-machine"), "10.213.0.11", "berth-lab/vm-machine:1", SETTINGS, [])
    assert values(argv, "--memory") == values(argv, "--memory-swap") == ["2560m"]
    assert {"LAB_MEMORY_MB=2048", "LAB_CPUS=2"} <= set(values(argv, "--env"))
    assert "--cpus" not in argv


def test_all_cores_by_default() -> None:
    assert "--cpus" not in vms.create_argv(Vm("vm1"), "10.213.0.11", "berth-lab/vm:1", SETTINGS, [])


def test_archive_owners_and_modes() -> None:
    data = vms.archive(
        {
            "/etc/lab/hosts": b"x",
            "/etc/ssh/ssh_host_ed25519_key": b"-----BEGIN OPENSSH PRIVATE KEY-----",
            "/home/berth/.ssh/authorized_keys": b"key",
            "/usr/local/share/ca-certificates/berth-lab.crt": b"PEM",
        }
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {entry.name: (entry.uid, entry.gid, oct(entry.mode)) for entry in tar.getmembers()}
    assert found == {
        "etc/lab": (0, 0, "0o755"),
        "etc/lab/hosts": (0, 0, "0o644"),
        "etc/ssh/ssh_host_ed25519_key": (0, 0, "0o600"),
        "home/berth/.ssh": (1000, 1000, "0o700"),
        "home/berth/.ssh/authorized_keys": (1000, 1000, "0o644"),
        "usr/local/share/ca-certificates/berth-lab.crt": (0, 0, "0o644"),
    }


def test_checkouts_have_labs_of_their_own() -> None:
    names = {vms.container_name("demo", "vm1", Path(place)) for place in ("/src", "/elsewhere")}
    assert len(names) == 2
    assert all(re.fullmatch("berth-demo-[0-9a-f]{6}-vm1", name) for name in names)


def test_destroying_spares_the_lab_of_another_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    removed = []

    def fake(argv: list[str], **options: object) -> str:
        if "--format" in argv:
            return "c1\tdemo\t/src\nc2\tdemo\t/other\nc3\tmine\t/src\n" if argv[1] == "ps" else ""
        removed.extend(argv[4:])
        return ""

    monkeypatch.setattr(vms, "run", fake)
    assert vms.destroy("demo", Path("/src"), tmp_path / "none")
    assert removed == ["c1"]


def test_removal_spares_what_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def fake(argv: list[str], **options: object) -> str:
        commands.append(argv)
        listings = {"ps": "c1\tdemo\t/src\nc2\tdemo\t/other\nc3\tmine\t\n", "volume": "v1\tdemo\t/src\n", "network": "n1\tdemo\t/other\n"}
        return listings[argv[1]] if "--format" in argv else ""

    monkeypatch.setattr(vms, "run", fake)
    assert vms.remove_labelled(lambda _name, owner: owner in ("/src", "")) == ["demo", "mine"]
    assert [argv for argv in commands if "--format" not in argv] == [
        ["docker", "rm", "--force", "--volumes", "c1", "c3"],
        ["docker", "volume", "rm", "--force", "v1"],
    ]
    assert vms.labs() == [("demo", "/other"), ("demo", "/src")]


def test_vm_that_does_not_boot_shows_its_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(argv: list[str], **options: object) -> str:
        if "is-system-running" in argv:
            raise CommandError(argv, 1, "degraded")
        return {"systemctl": "ssh.service loaded failed failed\n", "journalctl": "sshd: no hostkeys available\n"}[argv[3]]

    monkeypatch.setattr(vms, "run", fake)
    with pytest.raises(LabError) as refusal:
        vms.wait(SETTINGS, {"vm1": "10.213.0.11"}, ["ssh"])
    assert "vm1: units failed at boot:\nssh.service" in str(refusal.value)
    assert "no hostkeys available" in str(refusal.value)


def test_vm_that_died_shows_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(argv: list[str], **options: object) -> str:
        if argv[1] == "exec":
            raise CommandError(argv, 1, "container is not running")
        return {"inspect": "false\n", "logs": "lab-init: mount: permission denied\n"}[argv[1]]

    monkeypatch.setattr(vms, "run", fake)
    with pytest.raises(LabError) as refusal:
        vms.wait(SETTINGS, {"vm1": "10.213.0.11"}, ["ssh"])
    assert "vm1 is not ready: container is not running" in str(refusal.value)
    assert "permission denied" in str(refusal.value)
