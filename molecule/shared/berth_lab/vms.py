# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab VMs: create, start, wait for, destroy."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import preload
from .run import CommandError, LabError, run
from .settings import Settings, Vm

LABEL = "berth.lab"  # the lab's name, on everything that it is made of
OWNER = "berth.lab.project"  # the checkout that made it
BOOT_TIMEOUT = 120  # seconds until systemd and sshd must be ready
MACHINE_BOOT_TIMEOUT = 900  # the same for a machine whose processor is emulated
EMULATOR_MEMORY_MB = 512  # what QEMU needs beside the memory of its machine


def network_name(lab: str, project: Path) -> str:
    """Name of a lab's Docker network. It tells checkouts apart: each has labs of its own, also under the same names."""
    return f"berth-{lab}-{hashlib.sha256(str(project).encode()).hexdigest()[:6]}"


def container_name(lab: str, vm: str, project: Path) -> str:
    """Name of the container that is a lab VM."""
    return f"{network_name(lab, project)}-{vm}"


def labels(lab: str, project: Path) -> dict[str, str]:
    """Labels of everything that a lab is made of."""
    return {LABEL: lab, OWNER: str(project)}


def existing(lab: str, project: Path) -> dict[str, dict[str, Any]]:
    """What `docker inspect` says about the VMs of a lab, by host name."""
    filters = [word for key, value in labels(lab, project).items() for word in ("--filter", f"label={key}={value}")]
    identifiers = run(["docker", "ps", "--all", "--quiet", *filters]).split()
    if not identifiers:
        return {}
    return {container["Config"]["Hostname"]: container for container in json.loads(run(["docker", "inspect", *identifiers]))}


def address(container: Mapping[str, Any]) -> str:
    """Fixed address of an inspected VM."""
    (network,) = container["NetworkSettings"]["Networks"].values()
    return str(network["IPAMConfig"]["IPv4Address"])


def create_argv(vm: Vm, address: str, image: str, settings: Settings, capabilities: Sequence[str]) -> list[str]:
    """The `docker create` command of a lab VM.

    It is what ``--privileged`` gives, item by item, without the devices of the machine: ``--privileged`` itself fails where the engine's
    capability bounding set has a gap.
    """
    argv = ["docker", "create", "--name", container_name(settings.name, vm.name, settings.project), "--hostname", vm.name]
    for key, value in labels(settings.name, settings.project).items():
        argv += ["--label", f"{key}={value}"]
    argv += ["--network", network_name(settings.name, settings.project), "--ip", address]
    memory_mb = vm.memory_mb
    if vm.machine:
        argv += ["--env", f"LAB_MEMORY_MB={vm.memory_mb}", "--env", f"LAB_CPUS={vm.cpus or os.cpu_count() or 1}"]
        memory_mb += EMULATOR_MEMORY_MB
    argv += ["--memory", f"{memory_mb}m", "--memory-swap", f"{memory_mb}m"]
    if vm.cpus is not None and not vm.machine:
        argv += ["--cpus", str(vm.cpus)]
    argv += [flag for name in capabilities for flag in ("--cap-add", name)]
    argv += [flag for option in ("seccomp", "apparmor", "systempaths") for flag in ("--security-opt", f"{option}=unconfined")]
    argv += ["--device-cgroup-rule", "a *:* rwm", "--cgroupns", "private"]
    argv += ["--tmpfs", "/run:exec,mode=755", "--tmpfs", "/run/lock"]
    # The nested engine cannot put overlay2 on top of the outer engine's. The label finds the volume when its container is gone.
    argv += ["--mount", f"type=volume,target=/var/lib/docker,volume-label={LABEL}={settings.name},volume-label={OWNER}={settings.project}"]
    # systemd reads the variable to know what it runs in.
    return [*argv, "--env", "container=docker", image]


def create(
    vm: Vm, address: str, images: Mapping[str, str], settings: Settings, capabilities: Sequence[str], files: Mapping[str, bytes]
) -> None:
    """Create and start a VM that does not exist.

    Args:
        vm: what to make.
        address: its fixed address.
        images: references by flavour.
        settings: its lab.
        capabilities: names of the capabilities to give.
        files: content by absolute path, put into it before its first boot.
    """
    run(create_argv(vm, address, images[vm.image], settings, capabilities))
    container = container_name(settings.name, vm.name, settings.project)
    run(["docker", "cp", "-", f"{container}:/"], stdin=archive(files))
    if vm.template:
        archives = settings.project / ".cache" / "images"
        preload.fill(container, images["vm-docker"], archives, capabilities, machine=images[vm.image] if vm.machine else "")
    start(settings, vm.name)


def start(settings: Settings, name: str) -> None:
    """Start a VM that exists."""
    run(["docker", "start", container_name(settings.name, name, settings.project)])


def archive(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of files: those below /home/berth belong to the user berth (1000), private keys are for root only."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in sorted({str(parent) for path in files for parent in Path(path).parents if str(parent) not in _STOCK_DIRECTORIES}):
            entry = tarfile.TarInfo(directory.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700 if directory.endswith("/.ssh") else 0o755
            _own(entry, directory)
            tar.addfile(entry)
        for path, data in sorted(files.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o600 if b"PRIVATE KEY" in data else 0o644
            _own(entry, path)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


# Directories that the image has; an archive that names them would change their modes.
_STOCK_DIRECTORIES = (
    *("/", "/etc", "/etc/ssh", "/home", "/home/berth"),
    *("/usr", "/usr/local", "/usr/local/share", "/usr/local/share/ca-certificates"),
)


def _own(entry: tarfile.TarInfo, path: str) -> None:
    if path.startswith("/home/berth/"):
        entry.uid = entry.gid = 1000


def set_hosts(settings: Settings, name: str, content: str) -> bool:
    """Tell a running VM the addresses of the lab's hosts.

    Returns:
        True when they were others before.
    """
    container = container_name(settings.name, name, settings.project)
    if run(["docker", "exec", container, "cat", "/etc/lab/hosts"]) == content:
        return False
    run(["docker", "exec", "--interactive", container, "sh", "-c", "cat > /etc/lab/hosts; exec /sbin/lab-init hosts"], stdin=content)
    return True


def wait(settings: Settings, addresses: Mapping[str, str], ssh: Sequence[str]) -> None:
    """Wait until systemd of every VM has finished booting and the lab's user can log in.

    Args:
        settings: the lab.
        addresses: addresses of the VMs by host name.
        ssh: the ssh command up to the address.

    Raises:
        LabError: a VM is not ready in time, with the end of its journal.
    """
    machines = {vm.name for vm in settings.vms if vm.machine}
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        ready = [pool.submit(_wait_one, settings, name, address, ssh, name in machines) for name, address in addresses.items()]
        errors = [str(error) for error in (future.exception() for future in ready) if error is not None]
    if errors:
        raise LabError("\n".join(errors))


def _wait_one(settings: Settings, name: str, address: str, ssh: Sequence[str], machine: bool) -> None:
    container = container_name(settings.name, name, settings.project)
    timeout = MACHINE_BOOT_TIMEOUT if machine else BOOT_TIMEOUT
    deadline = time.monotonic() + timeout
    # Around a machine there is a container too, but what it runs is QEMU.
    inside = [*ssh, address] if machine else ["docker", "exec", container]

    def booted() -> str:
        # Fails while PID 1 is not systemd yet or its bus is closed, and for "degraded"; the answer is in the output.
        try:
            run([*inside, "systemctl", "is-system-running", "--wait"], timeout=timeout)
        except CommandError as error:
            if error.output.splitlines()[:1] == ["degraded"]:
                failed = run([*inside, "systemctl", "--failed", "--plain", "--no-legend"])
                raise LabError(f"{name}: units failed at boot:\n{failed}{_journal(container)}") from error
            return error.output or "no answer from systemd"
        return ""

    def reachable() -> str:
        try:
            run([*ssh, address, "true"], timeout=20)
        except CommandError as error:
            return error.output or "no answer from sshd"
        return ""

    _poll(booted, name, container, deadline)
    _poll(reachable, name, container, deadline)


def _poll(probe: Callable[[], str], name: str, container: str, deadline: float) -> None:
    while (problem := probe()) != "":
        if time.monotonic() > deadline or run(["docker", "inspect", "--format", "{{.State.Running}}", container]).strip() != "true":
            raise LabError(f"{name} is not ready: {problem}\n{_journal(container)}")
        time.sleep(0.2)


def _journal(container: str) -> str:
    try:
        return "The end of its journal:\n" + run(["docker", "exec", container, "journalctl", "--no-pager", "--lines", "30"])
    except CommandError:
        return "No journal can be reached. What its first process or its console said:\n" + run(
            ["docker", "logs", "--tail", "30", container]
        )


def destroy(lab: str, project: Path, directory: Path) -> bool:
    """Remove a lab: containers with their volumes, network, files. Also what an interrupted run left of it.

    Returns:
        True when there was anything.
    """
    found = remove_labelled(lambda name, owner: (name, owner) == (lab, str(project)))
    if directory.exists():
        shutil.rmtree(directory)
        found.append(str(directory))
    return bool(found)


def remove_labelled(wanted: Callable[[str, str], bool]) -> list[str]:
    """Remove containers with their volumes, then left-over volumes and networks.

    Args:
        wanted: says yes or no to something, from the name of its lab and the checkout it belongs to ("" when it names none).

    Returns:
        Names of the labs that something was removed of, each once.
    """
    removed: list[str] = []
    for kind, rm in (
        ("container", ["docker", "rm", "--force", "--volumes"]),
        ("volume", ["docker", "volume", "rm", "--force"]),
        ("network", ["docker", "network", "rm"]),
    ):
        mine = {identifier: lab for identifier, lab, owner in _labelled(kind) if wanted(lab, owner)}
        if mine:
            run([*rm, *mine], timeout=180)
            removed += mine.values()
    return sorted(set(removed))


def labs() -> list[tuple[str, str]]:
    """Name and checkout of all labs on the engine, also of those of which only a network or a volume is left.

    Things that carry a lab's name and no checkout are not listed; tests and people make such.
    """
    return sorted({(lab, owner) for kind in ("container", "volume", "network") for _identifier, lab, owner in _labelled(kind) if owner})


def _labelled(kind: str) -> list[tuple[str, str, str]]:
    """Identifier, lab and checkout of everything of one kind that belongs to a lab."""
    ls = {"container": ["docker", "ps", "--all"], "volume": ["docker", "volume", "ls"], "network": ["docker", "network", "ls"]}[kind]
    identifier = "{{.Name}}" if kind == "volume" else "{{.ID}}"
    output = run([*ls, "--filter", f"label={LABEL}", "--format", f'{identifier}\t{{{{.Label "{LABEL}"}}}}\t{{{{.Label "{OWNER}"}}}}'])
    rows = (line.split("\t") for line in output.splitlines())
    return [(row[0], row[1], row[2]) for row in rows]
