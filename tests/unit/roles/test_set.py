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


RETRIED = "Save(<lock/999790a445>) returned error, retrying after 1.47223912s: client.PutObject: We encountered an internal error, please try again.\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (RETRIED, 130, "it answers with an error of its own: look at its log, and whether its disk is full"),
        ("Fatal: client.BucketExists: Access Denied.", 1, "the keys are refused"),
        ("", 12, "backup_secrets.passphrase is not the one"),
    ],
)
def test_words_of_restic_are_explained(words, code, sentence):
    assert sentence in program.meaning({"name": "offsite", "restic": "s3:x"}, words, code)
