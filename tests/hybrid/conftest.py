# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for a lab in which application hosts run different instances."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.s3 import Store


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab under test: BERTH_LAB, which Molecule sets, or `hybrid`."""
    from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab

    name = os.environ.get("BERTH_LAB", "hybrid")
    sources = ["inventories/hybrid", f".cache/lab/{name}/inventory", "tests/hybrid/inventory"]
    return Lab(name, tuple(REPOSITORY / source for source in sources))


@pytest.fixture(scope="session")
def host(lab: Lab) -> Host:
    """The machine with the edge, Redis and the database."""
    return lab.hosts["front"]


@pytest.fixture(scope="session")
def store(lab: Lab) -> Store:
    """The server of the backups."""
    from ansible_collections.berth.odoo.tests.support.s3 import Store

    machine = lab.hosts["store1"]
    keys = machine.variables["backup_secrets"]["offsite"]
    return Store(machine, keys["access_key"], keys["secret_key"])
