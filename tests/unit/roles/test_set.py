# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program that makes sets decides by itself. The rest is tried in a lab."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[3] / "roles/backup/files/set.py"
specification = importlib.util.spec_from_file_location("berth_set", FILE)
program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(program)


@pytest.mark.parametrize(
    ("days", "since", "wanted"),
    [
        (14, 0, "14d"),
        (0, 1_000_000 - 7200, "3h"),
        (0, 1_000_000 - 7199, "2h"),
        (0, 1_000_000, "1h"),
        # Nobody knows since when there are backups, so nothing is too old.
        (0, 0, "278h"),
    ],
)
def test_sets_are_kept_for_days_or_as_far_back_as_a_backup_leads_to_them(days, since, wanted):
    assert program.kept_within(days, since, 1_000_000.5) == wanted
