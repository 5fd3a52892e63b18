# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of two VMs from creation to nothing left, through a reboot and an interrupted creation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
NAME = "lifecycle"
DIRECTORY = PROJECT / ".cache/lab" / NAME
KINDS = (["docker", "ps", "--all"], ["docker", "volume", "ls"], ["docker", "network", "ls"])


def tool(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the lab's tool as the playbooks do, with their own default variables."""
    defaults = yaml.safe_load((PROJECT / "molecule/shared/vars/main.yml").read_text())
    settings = {key: defaults[f"lab_{key}"] for key in defaults["lab_settings"]}
    vms = [{"name": "vm1", "memory_mb": 512, "groups": ["app"]}, {"name": "vm2", "memory_mb": 512}]
    return subprocess.run(
        [sys.executable, "-m", "berth_lab", "--project", str(PROJECT), command, *arguments],
        input=json.dumps({**settings, "name": NAME, "vms": vms}),
        env={**os.environ, "PYTHONPATH": str(PROJECT / "molecule/shared")},
        capture_output=True,
        text=True,
        check=False,
    )


def lab(command: str, *arguments: str) -> dict[str, Any]:
    done = tool(command, *arguments)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def ssh(vm: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", "-F", str(DIRECTORY / "ssh_config"), "-o", "BatchMode=yes", *options, vm, command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)


def answer(vm: str, command: str) -> str:
    done = ssh(vm, command)
    assert done.returncode == 0, f"{vm}: {command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def container(vm: str) -> str:
    """Name of a VM's container."""
    return str(yaml.safe_load((DIRECTORY / "inventory/hosts.yml").read_text())["all"]["hosts"][vm]["lab_container"])


def leftovers() -> list[str]:
    return [
        line
        for ls in KINDS
        for line in subprocess.check_output(
            [*ls, "--quiet", "--filter", f"label=berth.lab={NAME}", "--filter", f"label=berth.lab.project={PROJECT}"], text=True
        ).split()
    ]


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    lab("destroy", NAME)
    lab("engine")
    lab("images")
    created = lab("create")
    assert created["changed"]
    lab("wait")
    yield created["addresses"]
    lab("destroy", NAME)


def test_login_and_root(addresses: dict[str, str]) -> None:
    assert answer("vm1", "hostname; id -un; sudo -n id -un").split() == ["vm1", "berth", "root"]
    assert "Permission denied" in ssh("vm1", "true", "-l", "root").stderr


def test_wrong_host_key_is_refused(addresses: dict[str, str], tmp_path: Path) -> None:
    lines = (DIRECTORY / "known_hosts").read_text().splitlines()
    swapped = [f"{lines[0].split()[0]} {' '.join(lines[1].split()[1:])}", f"{lines[1].split()[0]} {' '.join(lines[0].split()[1:])}"]
    (tmp_path / "known_hosts").write_text("\n".join(swapped) + "\n")
    done = ssh("vm1", "true", "-o", f"UserKnownHostsFile={tmp_path / 'known_hosts'}")
    assert "Host key verification failed" in done.stderr


def test_vms_reach_each_other_by_name(addresses: dict[str, str]) -> None:
    assert answer("vm1", "getent hosts vm2").split()[0] == addresses["vm2"]
    assert "SSH-2.0" in answer("vm1", "timeout 60 bash -c 'read -r line < /dev/tcp/vm2.berth.test/22; echo $line'")


def test_packages_can_be_installed(addresses: dict[str, str]) -> None:
    assert answer("vm1", "sudo apt-get update -qq && sudo apt-get install -qq -y tree >/dev/null 2>&1 && tree --version").startswith(
        "tree v"
    )


def test_limits_and_kernel_settings_are_those_of_a_vm(addresses: dict[str, str]) -> None:
    limits = answer("vm1", "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes").split()
    assert limits == [str(512 * 2**20)]
    assert "permission denied" in ssh("vm1", "sudo sysctl -w vm.swappiness=61").stderr
    answer("vm1", "sudo sysctl -w net.ipv4.ip_forward=1")


def test_files_that_docker_mounts_can_be_replaced(addresses: dict[str, str]) -> None:
    """As Ansible's modules replace files: by renaming."""
    answer("vm1", "for f in hosts hostname resolv.conf; do sudo cp /etc/$f /etc/$f.new && sudo mv /etc/$f.new /etc/$f || exit 1; done")


def test_lab_authority_is_trusted(addresses: dict[str, str]) -> None:
    certificate = (DIRECTORY / "server.crt").read_text()
    assert answer("vm2", f"openssl verify -verify_ip {addresses['vm1']} <<'EOF'\n{certificate}EOF").endswith("OK")


def test_second_creation_changes_nothing(addresses: dict[str, str]) -> None:
    assert lab("create") == {"changed": False, "changes": [], "addresses": addresses, "directory": str(DIRECTORY)}


def test_inventory_reaches_every_vm(addresses: dict[str, str]) -> None:
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "all",
        "-i",
        str(DIRECTORY / "inventory"),
        "-b",
        "-m",
        "ansible.builtin.ping",
        "-o",
    ]
    environment = {
        **os.environ,
        "ANSIBLE_VAULT_PASSWORD_FILE": str(DIRECTORY / "vault-password"),
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
    }
    done = subprocess.run(argv, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == 2


def test_reboot_keeps_address_and_files(addresses: dict[str, str]) -> None:
    answer("vm1", "echo '192.0.2.7 printer' | sudo tee -a /etc/hosts; sudo touch /var/lib/docker/kept; touch kept")
    before = answer("vm1", "cat /etc/machine-id; stat -c %Y /proc/1")
    subprocess.run(["docker", "restart", container("vm1")], check=True, capture_output=True, timeout=300)
    assert lab("wait")["addresses"] == addresses
    after = answer("vm1", "cat /etc/machine-id; stat -c %Y /proc/1")
    assert before.split()[0] == after.split()[0]
    assert before.split()[1] != after.split()[1]
    assert answer("vm1", "getent hosts printer vm2; ls kept; sudo ls /var/lib/docker/kept").split() == [
        *("192.0.2.7", "printer", addresses["vm2"], "vm2.berth.test", "vm2"),
        *("kept", "/var/lib/docker/kept"),
    ]
    assert "permission denied" in ssh("vm1", "sudo sysctl -w vm.swappiness=61").stderr


def test_interrupted_creation_is_completed(addresses: dict[str, str]) -> None:
    """Killed between making a VM and giving it its files: the container exists, has never run, and has no keys."""
    vm2 = container("vm2")
    image = subprocess.check_output(["docker", "inspect", "--format", "{{.Config.Image}}", vm2], text=True).strip()
    subprocess.run(["docker", "rm", "--force", "--volumes", vm2], check=True, capture_output=True)
    labels = ["--label", f"berth.lab={NAME}", "--label", f"berth.lab.project={PROJECT}"]
    network = ["--network", vm2.removesuffix("-vm2"), "--ip", addresses["vm2"], "--hostname", "vm2"]
    subprocess.run(["docker", "create", "--name", vm2, *labels, *network, image], check=True, capture_output=True)
    created = lab("create")
    assert created["changes"] == ["vm2"]
    assert created["addresses"] == addresses
    lab("wait")
    assert answer("vm2", "hostname") == "vm2"


def test_lost_keys_are_named(addresses: dict[str, str]) -> None:
    (DIRECTORY / "ssh").rename(DIRECTORY / "lost")
    try:
        done = tool("create")
        assert done.returncode == 1
        assert "vm1, vm2 of the lab lifecycle still run, but their keys" in done.stderr
        assert "destroy.yml -e lab_name=lifecycle" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        (DIRECTORY / "lost").rename(DIRECTORY / "ssh")


def test_destruction_leaves_nothing(addresses: dict[str, str]) -> None:
    assert leftovers()
    # What a killed destruction leaves: the network and a volume, but no container.
    subprocess.run(["docker", "rm", "--force", container("vm1"), container("vm2")], check=True, capture_output=True)
    assert lab("destroy", NAME)["changed"]
    assert leftovers() == []
    assert not DIRECTORY.exists()
    assert not lab("destroy", NAME)["changed"]
