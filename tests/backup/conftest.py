# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for a lab of one platform machine and one that keeps its backups."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.s3 import Store


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab under test: BERTH_LAB, which Molecule sets, or `backup`."""
    from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab

    name = os.environ.get("BERTH_LAB", "backup")
    sources = ["inventories/single", f".cache/lab/{name}/inventory", "tests/backup/inventory"]
    return Lab(name, tuple(REPOSITORY / source for source in sources))


@pytest.fixture(scope="session")
def host(lab: Lab) -> Host:
    """The platform's machine."""
    return lab.hosts["vm1"]


@pytest.fixture(scope="session")
def store(lab: Lab) -> Store:
    """The S3 server of test_10."""
    from ansible_collections.berth.odoo.tests.support.s3 import Store

    machine = lab.hosts["store1"]
    keys = machine.variables["backup_secrets"]["offsite"]
    return Store(machine, keys["access_key"], keys["secret_key"])
