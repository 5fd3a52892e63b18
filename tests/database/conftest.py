# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for a lab of database hosts alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab under test, BERTH_LAB or `database`, with all three hosts in the group database."""
    from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab

    name = os.environ.get("BERTH_LAB", "database")
    return Lab(name, (REPOSITORY / "tests/database/inventory/three.yml", REPOSITORY / ".cache/lab" / name / "inventory"))


@pytest.fixture(scope="session")
def host(lab: Lab) -> Host:
    """The host that the cluster begins with."""
    return lab.hosts["db1"]
