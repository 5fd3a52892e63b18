# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for a lab of one host with a kernel of its own, on which the smallest production runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab under test, BERTH_LAB or `vm_site`."""
    from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab

    name = os.environ.get("BERTH_LAB", "vm_site")
    sources = ("inventories/single", f".cache/lab/{name}/inventory", "tests/vm_site/inventory.yml")
    return Lab(name, tuple(REPOSITORY / source for source in sources))
