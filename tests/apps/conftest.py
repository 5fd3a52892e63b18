# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for a lab with two application hosts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab under test: BERTH_LAB, which Molecule sets, or `apps`."""
    from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab

    name = os.environ.get("BERTH_LAB", "apps")
    sources = (REPOSITORY / "inventories/two_apps", REPOSITORY / ".cache/lab" / name / "inventory", REPOSITORY / "tests/apps/inventory")
    return Lab(name, sources)


@pytest.fixture(scope="session")
def host(lab: Lab) -> Host:
    """The machine with the edge, Redis and the database."""
    return lab.hosts["front"]
