# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories as Ansible reads them: preflight finds nothing on machines that are large enough, and requests find their instance."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

from ansible_collections.berth.odoo.plugins.action.preflight import read_specifications
from ansible_collections.berth.odoo.plugins.filter.topology import topology
from ansible_collections.berth.odoo.plugins.module_utils import _authority, _preflight, _validate, _wiring

COLLECTION = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (COLLECTION / "inventories").iterdir())
SPECIFICATIONS = read_specifications(COLLECTION / "roles")
NOW = 1_800_000_000
CERTIFICATE, KEY = _authority.create("berth.odoo test", 3650, NOW)
FACTS: dict[str, Any] = {
    "os": {"id": "debian", "version_id": "13", "pretty_name": "Debian GNU/Linux 13 (trixie)"},
    "container": "",
    "machine": "x86_64",
    "cpus": 4,
    "memory_mb": 16384,
    "cpu_flags": ["sse4_2", "popcnt"],
    "disks": [{"path": "/var/lib/berth", "mount": "/", "device": "254:0", "kind": "ssd", "size_mb": 80_000, "free_mb": 60_000}],
    "listeners": [],
    "packages": {},
    "peers": [],
    "clock_synchronized": True,
    "clock_offset_s": 0.1,
    "clock_error_s": 0.2,
}


class Example:
    """An example inventory, with secrets and certificates that somebody would have made for it."""

    def __init__(self, name: str) -> None:
        loader = DataLoader()
        manager = InventoryManager(loader=loader, sources=[str(COLLECTION / "inventories" / name)])
        variables = VariableManager(loader=loader, inventory=manager)
        self.groups = {group: [str(host) for host in manager.get_hosts(group)] for group in manager.groups}
        self.tiers = {tier: self.groups.get(tier, []) for tier in _wiring.IMAGES}
        self.hostvars: dict[str, dict[str, Any]] = {}
        for host in manager.get_hosts():
            own = variables.get_vars(host=host)
            for key in ("odoo_instances", "objectives"):
                if key in own:
                    own[key] = Templar(loader=loader, variables=own).template(own[key])
            own["traefik_certificates"] = {key: {"certificate": "PEM", "key": "PEM"} for key in own["traefik_certificates"]}
            own["platform_authority"] = {"certificate": CERTIFICATE, "key": KEY}
            own["redis_replication_password"] = "replication-abcdefghijklmnop"
            self.hostvars[str(host)] = own
        self.instances = {name: entry for own in self.hostvars.values() for name, entry in own["odoo_instances"].items()}
        self.secrets = {name: {key: f"{name}-{key}-abcdefghijklmnop" for key in _validate.INSTANCE_SECRETS} for name in self.instances}
        for own in self.hostvars.values():
            own["odoo_instance_secrets"] = self.secrets

    def examine(self) -> _preflight.Report:
        """What preflight says."""
        hosts = {name: _preflight.Host(own, list(own), {}, FACTS) for name, own in self.hostvars.items()}
        return _preflight.examine(hosts, self.tiers, SPECIFICATIONS, _preflight.Rules(), NOW)


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Example:
    """Each of them."""
    return Example(request.param)


@pytest.mark.parametrize("name", EXAMPLES)
def test_certificates_have_a_place_that_is_no_inventory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = shutil.copytree(COLLECTION / "inventories" / name, tmp_path / name)
    place = directory / "group_vars/all/certificates"
    place.mkdir()
    (place / "main.crt").write_text(CERTIFICATE)
    (place / "main.key").write_text(KEY)
    monkeypatch.setattr(constants, "INVENTORY_ANY_UNPARSED_IS_FAILED", True)
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(directory)])
    own = VariableManager(loader=loader, inventory=manager).get_vars(host=manager.get_hosts()[0])
    for kind, file in own["traefik_certificates"]["main"].items():
        assert f"inventory_dir ~ '/group_vars/all/certificates/main.{'crt' if kind == 'certificate' else 'key'}'" in file


def test_preflight_finds_nothing(example: Example) -> None:
    assert example.examine().problems == []


def test_every_request_finds_a_server(example: Example) -> None:
    plan = example.examine().plan
    found = topology(example.groups, example.hostvars)
    for edge in example.tiers["edge"]:
        wiring = _wiring.wire(example.hostvars[edge]["odoo_instances"], example.secrets, plan, found[edge]["traefik_apps"])
        assert {site["name"] for site in wiring["traefik_sites"]} == set(example.instances)
        assert all(site["web"] and site["websocket"] and site["workers"] for site in wiring["traefik_sites"])


def test_an_instance_with_hosts_of_its_own_shares_them_with_none() -> None:
    hybrid = Example("hybrid")
    plan = hybrid.examine().plan
    assert {host: sorted(part["odoo"]) for host, part in plan.items() if part.get("odoo")} == {
        "shared1": ["acme", "globex"],
        "initech1": ["initech"],
    }
    found = topology(hybrid.groups, hybrid.hostvars)
    front = found["front"]
    sites = _wiring.wire(hybrid.hostvars["front"]["odoo_instances"], hybrid.secrets, plan, front["traefik_apps"])["traefik_sites"]
    assert {site["name"]: site["web"] for site in sites} == {
        "acme": ["http://10.0.0.21:8069"],
        "globex": ["http://10.0.0.21:8073"],
        "initech": ["http://10.0.0.22:8077"],
    }
    for host, instances in (("shared1", {"acme", "globex"}), ("initech1", {"initech"})):
        opened = {entry["why"].split()[2].strip(",") for entry in found[host]["firewall_openings"] if entry["why"].startswith("edges to")}
        assert opened == instances, host
