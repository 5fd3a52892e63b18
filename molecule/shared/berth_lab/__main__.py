# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab: ``python -m berth_lab --project DIRECTORY COMMAND``.

The playbooks call ``images``, ``create`` and ``wait`` with the lab's variables as JSON on standard input. ``engine``, ``destroy``, ``clean``
and ``list`` also serve the Makefile, CI and people; they need nothing but Python.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import engine, images, network, vms
from .run import LabError, run
from .settings import NAME_RULE, Settings, parse


def main(arguments: list[str]) -> int:
    """Run a command; its result is one line of JSON.

    Returns:
        Exit code: 0, or 1 after a message on standard error.
    """
    parser = argparse.ArgumentParser(prog="berth_lab", description="Lab virtual machines of berth.odoo.")
    parser.add_argument("--project", type=Path, required=True, help="root of the checkout; labs live in its .cache/lab")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, description in (
        ("engine", "find or start the Docker Engine"),
        ("images", "make the images that the lab needs"),
        ("create", "create and start the VMs, write the inventory"),
        ("wait", "wait until the VMs are booted and reachable"),
        ("list", "say which labs there are"),
        ("clean", "remove all labs of this checkout, the lab's images, and the engine if we started it"),
    ):
        commands.add_parser(name, help=description, description=description)
    destroying = commands.add_parser("destroy", help="remove one lab", description="remove one lab")
    destroying.add_argument("name", help="name of the lab")
    options = parser.parse_args(arguments)
    project: Path = options.project.resolve()
    try:
        if options.command in ("engine", "list", "clean"):
            result = {"engine": _engine, "list": _list, "clean": _clean}[options.command](project)
        elif options.command == "destroy":
            result = _destroy(options.name, project)
        else:
            settings = parse(json.load(sys.stdin), project)
            result = {"images": _images, "create": _create, "wait": _wait}[options.command](settings)
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _engine(project: Path) -> dict[str, Any]:
    info, started = engine.ensure_engine(project / ".cache" / "lab")
    return {"changed": started, "version": info["ServerVersion"]}


def _images(settings: Settings) -> dict[str, Any]:
    references, built = _references(settings)
    return {"changed": bool(built), "images": references}


def _references(settings: Settings) -> tuple[dict[str, str], list[str]]:
    flavours = sorted({vm.image for vm in settings.vms})
    with _lock(settings.cache):
        return images.ensure_images(flavours, settings.base_image, settings.debian_mirror, settings.cache)


def _create(settings: Settings) -> dict[str, Any]:
    # Imported here: destroying a lab must work without the Python packages that making one needs.
    from . import inventory, pki

    references, _built = _references(settings)
    changed = []
    with _lock(settings.cache):
        name = vms.network_name(settings.name, settings.project)
        subnet, created = network.ensure_network(name, vms.labels(settings.name, settings.project), settings.network_pool)
        changed += [f"network {name} {subnet}"] if created else []
    there = vms.existing(settings.name, settings.project)
    # A container that has never run is the rest of an interrupted creation: it may lack its files.
    for host in [host for host, container in there.items() if container["State"]["Status"] == "created"]:
        run(["docker", "rm", "--force", "--volumes", vms.container_name(settings.name, host, settings.project)])
        del there[host]
    _refuse_lost_keys(settings, list(there))
    known = {host: vms.address(container) for host, container in there.items()}
    addresses = network.assign([vm.name for vm in settings.vms], known, subnet)

    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = datetime.datetime.now(datetime.UTC)
    inventory.ensure_keys(settings)
    pki.ensure_authority(settings.directory, settings.name, settings.domains, settings.network_pool, now)
    names = [*settings.domains, *(f"{vm.name}.{pki.DOMAIN}" for vm in settings.vms)]
    pki.ensure_server(settings.directory, addresses.values(), names, now)
    directory = settings.directory / "inventory"
    variables = inventory.lab_variables(settings, addresses, references["base"])
    written = [
        inventory.write_text(settings.directory / "known_hosts", inventory.known_hosts(settings, addresses)),
        inventory.write_text(settings.directory / "ssh_config", inventory.ssh_config(settings, addresses)),
        inventory.ensure_secrets(settings, now),
        inventory.write_yaml(directory / "hosts.yml", inventory.hosts_inventory(settings, addresses)),
        inventory.write_yaml(directory / "group_vars" / "all" / "lab.yml", variables),
    ]
    changed += ["inventory"] if any(written) else []

    hosts = inventory.hosts_file(addresses, settings.domains, pki.DOMAIN)
    servers = settings.nameservers or network.machine_nameservers()
    capabilities = engine.engine_capabilities(settings.cache)
    for vm in settings.vms:
        if vm.name not in there:
            files = inventory.vm_files(settings, vm.name, hosts, servers)
            # One loads the images of a template; who comes meanwhile waits for them.
            with _lock(settings.cache):
                vms.create(vm, addresses[vm.name], references, settings, capabilities, files)
            changed.append(vm.name)
        elif there[vm.name]["State"]["Running"]:
            changed += [f"{vm.name}: hosts"] if vms.set_hosts(settings, vm.name, hosts) else []
        else:
            vms.start(settings, vm.name)
            changed.append(vm.name)
    return {"changed": bool(changed), "changes": changed, "addresses": addresses, "directory": str(settings.directory)}


def _refuse_lost_keys(settings: Settings, hosts: list[str]) -> None:
    """Refuse VMs whose keys are gone, as after deleting .cache by hand: nobody can log in to them any more.

    Raises:
        LabError: with what to type.
    """
    lost = sorted(host for host in hosts if not (settings.directory / "ssh" / f"host_{host}").exists())
    if lost:
        raise LabError(
            f"{', '.join(lost)} of the lab {settings.name} still run, but their keys in {settings.directory} are gone.\n"
            f"Destroy the lab, then create it anew: ansible-playbook molecule/shared/destroy.yml -e lab_name={settings.name}"
        )


def _wait(settings: Settings) -> dict[str, Any]:
    from . import inventory

    wanted = {vm.name for vm in settings.vms}
    there = vms.existing(settings.name, settings.project)
    addresses = {host: vms.address(container) for host, container in there.items() if host in wanted}
    missing = wanted - set(addresses)
    if missing:
        raise LabError(f"The lab {settings.name} has no VM {', '.join(sorted(missing))}. Create it first: molecule/shared/create.yml")
    ssh = [*inventory.ssh_command(settings), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    vms.wait(settings, addresses, ssh)
    return {"changed": False, "addresses": addresses}


def _list(_project: Path) -> dict[str, Any]:
    return {"changed": False, "labs": vms.labs() if engine.engine_info() else []}


def _destroy(name: str, project: Path) -> dict[str, Any]:
    if not NAME_RULE.fullmatch(name):
        raise LabError(f"{name!r} is not the name of a lab; expected 1-31 of a-z, 0-9, _ and -, beginning with a letter, as in: demo")
    directory = project / ".cache" / "lab" / name
    if _engine_for_removal(project, directory):
        return {"changed": vms.destroy(name, project, directory)}
    found = directory.exists()
    shutil.rmtree(directory, ignore_errors=True)
    return {"changed": found}


def _engine_for_removal(project: Path, trace: Path) -> bool:
    """Whether an engine answers. A stopped one keeps its containers, so where files tell of labs it is started again.

    Raises:
        LabError: the engine cannot be started; the text says what to type.
    """
    if engine.engine_info() is None:
        if not trace.exists() or shutil.which("docker") is None:
            return False
        engine.ensure_engine(project / ".cache" / "lab")
    return True


def _clean(project: Path) -> dict[str, Any]:
    cache = project / ".cache" / "lab"
    removed: list[str] = []
    if _engine_for_removal(project, cache):
        # What belongs to no checkout, or to one that was deleted, has nobody else to remove it.
        removed += [
            f"lab {name}"
            for name in vms.remove_labelled(lambda _name, owner: owner == str(project) or not owner or not Path(owner).exists())
        ]
        removed += images.remove_images()
    removed += ["Docker Engine"] if engine.stop_engine(cache) else []
    if cache.exists():
        shutil.rmtree(cache)
        removed.append(str(cache))
    return {"changed": bool(removed), "removed": removed}


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """One at a time: images and subnets are shared by the labs of a checkout."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
