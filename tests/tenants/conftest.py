# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for a lab with several instances on one machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.tenants import Tenant


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab under test: BERTH_LAB, which Molecule sets, or `tenants`."""
    from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab

    name = os.environ.get("BERTH_LAB", "tenants")
    sources = ["inventories/multi_tenant", f".cache/lab/{name}/inventory", "tests/tenants/inventory"]
    return Lab(name, tuple(REPOSITORY / source for source in sources))


@pytest.fixture(scope="session")
def tenant(lab: Lab, host: Host) -> Callable[[str], Tenant]:
    """Return a client of an instance that has not logged in."""
    from ansible_collections.berth.odoo.tests.support.tenants import Tenant

    return lambda name: Tenant(host.address, lab.ca, name)


@pytest.fixture(scope="session")
def instances(host: Host) -> dict[str, dict[str, Any]]:
    """The instances of the inventory."""
    found: dict[str, dict[str, Any]] = host.variables["odoo_instances"]
    return found


@pytest.fixture(scope="session")
def secrets(host: Host) -> dict[str, dict[str, str]]:
    """Their secrets."""
    found: dict[str, dict[str, str]] = host.variables["odoo_instance_secrets"]
    return found
