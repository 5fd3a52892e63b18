# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that need a lab. Tests of pure logic never touch them and stay quick."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line("markers", "first_run: needs a machine on which nothing was deployed yet")
    config.addinivalue_line("markers", "nightly: takes minutes, and what it proves rarely breaks; `make test` leaves it out")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by file, whatever the order on the command line: e2e before faults, and those in the order of their numbers."""
    items.sort(key=lambda item: str(item.path))


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line of progress now, also while output is captured."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"    {text}")

    return line


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab under test: BERTH_LAB, which Molecule's scenarios set, or `default`."""
    from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab

    name = os.environ.get("BERTH_LAB", "default")
    sources = [REPOSITORY / "inventories/single", REPOSITORY / ".cache/lab" / name / "inventory", REPOSITORY / "tests/e2e/inventory"]
    return Lab(name, tuple(sources))


@pytest.fixture(scope="session")
def host(lab: Lab) -> Host:
    """The lab's only machine."""
    return lab.host


@pytest.fixture(scope="session")
def play(lab: Lab, say: Callable[[str], None]) -> Player:
    """Run a playbook against the lab."""
    from ansible_collections.berth.odoo.tests.support.playbook import Player

    return Player(lab, say)


@pytest.fixture(scope="session")
def url(host: Host) -> str:
    """The site's address."""
    return f"https://{host.address}"


@pytest.fixture
def visitor(url: str, lab: Lab) -> Odoo:
    """A client that has not logged in."""
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo

    return Odoo(url, lab.ca)


@pytest.fixture(scope="session")
def admin_password(host: Host) -> str:
    """The password of Odoo's administrator."""
    return str(host.variables["odoo_instance_secrets"]["main"]["admin_password"])


@pytest.fixture(scope="session")
def admin(url: str, lab: Lab, admin_password: str) -> Odoo:
    """A client that logged in as administrator once; its session outlives restarts."""
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo

    client = Odoo(url, lab.ca)
    client.log_in("admin", admin_password)
    return client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After a failure on a lab, add what its containers said."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        try:
            report.sections.append((f"state of {host.name}", host.report()))
        except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
            report.sections.append((f"state of {host.name}", f"cannot be read: {error}"))
    return report
