# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab is made of, as the playbooks say it."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .run import LabError

NAME_RULE = re.compile(r"[a-z][a-z0-9_-]{0,30}")
TEMPLATE = "vm-images"  # the flavour with the platform's images in its engine
MACHINE = "vm-machine"  # the flavour that has a kernel of its own
MACHINE_TEMPLATE = "vm-machine-images"  # the flavour with both
FLAVOURS = ("vm", "vm-docker", TEMPLATE, MACHINE, MACHINE_TEMPLATE)


@dataclasses.dataclass(frozen=True)
class Vm:
    """One lab VM.

    Attributes:
        name: host name, also the name in the inventory.
        groups: inventory groups it belongs to.
        memory_mb: memory limit in MiB; there is no swap beyond it.
        cpus: limit of processor time in cores, None for all cores of the machine.
        image: "vm" (bare Debian), "vm-docker" (Docker Engine and Compose installed), "vm-images" (with the platform's images as well, once
            they were built), "vm-machine" (vm-docker under a kernel of its own) or "vm-machine-images" (vm-images under one).
    """

    name: str
    groups: tuple[str, ...] = ()
    memory_mb: int = 6144
    cpus: float | None = None
    image: str = "vm"

    @property
    def machine(self) -> bool:
        """Whether it has a kernel of its own."""
        return self.image in (MACHINE, MACHINE_TEMPLATE)

    @property
    def template(self) -> bool:
        """Whether it comes with the platform's images."""
        return self.image in (TEMPLATE, MACHINE_TEMPLATE)


@dataclasses.dataclass(frozen=True)
class Settings:
    """One lab.

    Attributes:
        name: name of the lab; several live side by side.
        vms: its virtual machines, at least one.
        base_image: reference, with digest, of a Debian 13 image in a registry; "" to go without a registry.
        debian_mirror: URL of the Debian archive ("…/debian"); security updates come from the same with "-security" added.
            "" for the one that this machine's apt uses, else Debian's default.
        network_pool: addresses that labs may use; each lab takes a free /24 of it.
        nameservers: addresses of DNS servers for the VMs; empty for those of this machine.
        instances: Odoo instances to generate secrets for.
        domains: DNS names of the site; the certificate of the demo carries them and the addresses of the VMs.
        project: the checkout that the lab belongs to.
    """

    name: str
    vms: tuple[Vm, ...]
    base_image: str
    debian_mirror: str
    network_pool: ipaddress.IPv4Network
    nameservers: tuple[str, ...]
    instances: tuple[str, ...]
    domains: tuple[str, ...]
    project: Path

    @property
    def cache(self) -> Path:
        """Directory of all labs of this checkout."""
        return self.project / ".cache" / "lab"

    @property
    def directory(self) -> Path:
        """Directory of this lab."""
        return self.cache / self.name


def parse(data: Mapping[str, Any], project: Path) -> Settings:
    """Turn the playbook's variables into settings.

    Args:
        data: the ``lab_*`` variables without their prefix.
        project: root of the checkout.

    Raises:
        LabError: with every mistake found, one a line.
    """
    errors: list[str] = []
    known = {field.name for field in dataclasses.fields(Settings)} - {"project"}
    listed = ", ".join(f"lab_{key}" for key in sorted(known))
    errors += [f"lab_{key} is not a variable of the lab. Known: {listed}" for key in set(data) - known]
    name = str(data.get("name", ""))
    if not NAME_RULE.fullmatch(name):
        errors.append(f"lab_name is {name!r}; expected 1-31 of a-z, 0-9, _ and -, beginning with a letter, as in: demo")
    vms = tuple(_vm(item, errors) for item in data.get("vms") or [])
    names = [vm.name for vm in vms]
    if not vms:
        errors.append("lab_vms is empty; expected at least one, as in: [{name: vm1}]")
    errors += [f"lab_vms names {twice!r} more than once" for twice in sorted({n for n in names if names.count(n) > 1})]
    base_image = str(data.get("base_image") or "")
    if base_image and not re.fullmatch(r"[^\s@]+@sha256:[0-9a-f]{64}", base_image):
        errors.append(f"lab_base_image is {base_image!r}; expected a reference with digest, as in: docker.io/library/debian:13@sha256:…")
    mirror = str(data.get("debian_mirror") or "").rstrip("/")
    if mirror and not re.fullmatch(r"https?://[^\s/]+/\S*", mirror):
        errors.append(f"lab_debian_mirror is {mirror!r}; expected a URL with a path, as in: http://mirror.example/debian")
    try:
        pool = ipaddress.IPv4Network(str(data.get("network_pool", "")))
        if pool.prefixlen > 24:
            errors.append(f"lab_network_pool is {pool}; each lab takes a /24 of it, so expected /24 or larger, as in: 10.213.0.0/16")
    except ValueError as error:
        pool = ipaddress.IPv4Network("0.0.0.0/0")
        errors.append(f"lab_network_pool: {error}; expected an IPv4 network, as in: 10.213.0.0/16")
    for server in data.get("nameservers") or []:
        try:
            ipaddress.ip_address(str(server))
        except ValueError:
            errors.append(f"lab_nameservers holds {server!r}; expected addresses, as in: [9.9.9.9]")
    if errors:
        raise LabError("The lab's variables are wrong:\n  " + "\n  ".join(sorted(errors)))
    return Settings(
        name=name,
        vms=vms,
        base_image=base_image,
        debian_mirror=mirror,
        network_pool=pool,
        nameservers=tuple(map(str, data.get("nameservers") or [])),
        instances=tuple(map(str, data.get("instances") or [])),
        domains=tuple(map(str, data.get("domains") or [])),
        project=project,
    )


def _vm(item: Mapping[str, Any], errors: list[str]) -> Vm:
    known = {field.name for field in dataclasses.fields(Vm)}
    name = str(item.get("name", ""))
    unknown = sorted(set(item) - known)
    if unknown:
        errors.append(f"lab_vms, {name or item}: unknown {', '.join(unknown)}. Known: {', '.join(sorted(known))}")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        errors.append(f"lab_vms: {name!r} is not a name; expected 1-31 of a-z, 0-9 and -, beginning with a letter, as in: vm1")
    vm = Vm(
        name=name,
        groups=tuple(map(str, item.get("groups") or [])),
        memory_mb=item.get("memory_mb") or Vm.memory_mb,
        cpus=item.get("cpus"),
        image=item.get("image") or Vm.image,
    )
    if vm.image not in FLAVOURS:
        errors.append(f"lab_vms, {name}: image is {vm.image!r}; expected one of {', '.join(FLAVOURS)}")
    if not isinstance(vm.memory_mb, int) or vm.memory_mb < 256:
        errors.append(f"lab_vms, {name}: memory_mb is {vm.memory_mb!r}; expected MiB as a number of 256 or more, as in: 6144")
    if vm.machine and vm.cpus is not None and not (isinstance(vm.cpus, int) and vm.cpus > 0):
        errors.append(f"lab_vms, {name}: cpus is {vm.cpus!r}; a {vm.image} has whole cores, as in: 2")
    elif vm.cpus is not None and not (isinstance(vm.cpus, int | float) and vm.cpus > 0):
        errors.append(f"lab_vms, {name}: cpus is {vm.cpus!r}; expected cores as a number above 0, as in: 1.5")
    return vm
