# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from berth_lab.run import LabError
from berth_lab.settings import Vm, parse

GOOD: dict[str, Any] = {
    "name": "demo",
    "vms": [{"name": "vm1"}],
    "base_image": "docker.io/library/debian:13@sha256:" + "0" * 64,
    "debian_mirror": "",
    "network_pool": "10.213.0.0/16",
    "nameservers": [],
    "instances": ["main"],
    "domains": ["odoo.berth.test"],
}


def test_defaults_of_a_vm() -> None:
    settings = parse(GOOD, Path("/src"))
    assert settings.vms == (Vm("vm1", (), 6144, None, "vm"),)
    assert settings.network_pool == ipaddress.IPv4Network("10.213.0.0/16")
    assert settings.directory == Path("/src/.cache/lab/demo")


def test_everything_of_a_vm() -> None:
    item = {"name": "db1", "groups": ["database"], "memory_mb": 2048, "cpus": 1.5, "image": "vm-docker"}
    assert parse({**GOOD, "vms": [item]}, Path("/src")).vms == (Vm("db1", ("database",), 2048, 1.5, "vm-docker"),)


def test_mirror_without_slash_at_the_end() -> None:
    assert parse({**GOOD, "debian_mirror": "http://mirror.example/debian/"}, Path("/src")).debian_mirror == "http://mirror.example/debian"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../demo"}, "lab_name is '../demo'; expected 1-31 of"),
        ({"name": "Demo"}, "lab_name is 'Demo'"),
        ({"name": ""}, "lab_name is ''"),
        ({"name": "x" * 32}, "lab_name is"),
        ({"vms": []}, "lab_vms is empty"),
        ({"vms": [{"name": "vm1"}, {"name": "vm1"}]}, "lab_vms names 'vm1' more than once"),
        ({"vms": [{"name": "vm_1"}]}, "'vm_1' is not a name"),
        ({"vms": [{"name": "vm1", "memory": 1}]}, "lab_vms, vm1: unknown memory. Known: cpus, groups, image, memory_mb, name"),
        ({"vms": [{"name": "vm1", "memory_mb": "4g"}]}, "memory_mb is '4g'; expected MiB"),
        ({"vms": [{"name": "vm1", "cpus": "two"}]}, "cpus is 'two'; expected cores"),
        ({"vms": [{"name": "vm1", "image": "debian:13"}]}, "image is 'debian:13'; expected one of vm, vm-docker, vm-images"),
        ({"base_image": "debian:13"}, "lab_base_image is 'debian:13'; expected a reference with digest"),
        ({"debian_mirror": "mirror.example/debian"}, "lab_debian_mirror is 'mirror.example/debian'; expected a URL"),
        ({"network_pool": "10.0.0.0/28"}, "lab_network_pool is 10.0.0.0/28; each lab takes a /24"),
        ({"network_pool": "10.0.0.1/16"}, "lab_network_pool: 10.0.0.1/16 has host bits set"),
        ({"nameservers": ["dns.example"]}, "lab_nameservers holds 'dns.example'; expected addresses"),
        ({"memory": 1}, "lab_memory is not a variable of the lab"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError) as refusal:
        parse({**GOOD, **changes}, Path("/src"))
    assert message in str(refusal.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(LabError) as refusal:
        parse({**GOOD, "name": "", "vms": [], "network_pool": "x"}, Path("/src"))
    assert len(str(refusal.value).splitlines()) == 4
