# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that knows nothing of our inventories, and what a reader of the READMEs would have put in."""

from __future__ import annotations

import os
from secrets import token_hex

import pytest

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab without our inventories."""
    name = os.environ.get("BERTH_LAB", "roles")
    return Lab(name, (REPOSITORY / ".cache/lab" / name / "inventory",))


@pytest.fixture(scope="session")
def environment(lab: Lab) -> dict[str, str]:
    """What the examples read from the environment, as a reader would export it."""
    secrets = lab.host.variables["odoo_instance_secrets"]["main"]
    authority = lab.host.variables["platform_authority"]
    return {
        **{f"{owner}_{name.upper()}": str(secrets[name]) for owner in ("APP", "ODOO") for name in secrets},
        "PLATFORM_AUTHORITY_CERTIFICATE": str(authority["certificate"]),
        "PLATFORM_AUTHORITY_KEY": str(authority["key"]),
        "APP_DATABASE_PASSWORD": str(secrets["db_password"]),
        "AUTHORITY_CERTIFICATE": str(lab.host.variables["platform_authority"]["certificate"]),
        "AUTHORITY_KEY": str(lab.host.variables["platform_authority"]["key"]),
        "APP_CERTIFICATE": (lab.directory / "server.crt").read_text(encoding="utf-8"),
        "APP_BACKUP_PASSPHRASE": token_hex(24),
        "APP_CERTIFICATE_KEY": (lab.directory / "server.key").read_text(encoding="utf-8"),
    }
