# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verifiers against those that PostgreSQL 17 computed for the same passwords (fixtures/scram/postgresql-17.json)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.filter.scram_verifier import scram_verifier as as_filter
from ansible_collections.berth.odoo.plugins.module_utils._scram import saslprep, scram_verifier, verifier

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "scram" / "postgresql-17.json").read_text())


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["case"])
def test_same_as_postgresql(recorded):
    iterations, salt = recorded["verifier"].split("$")[1].split(":")
    assert verifier(recorded["password"], base64.b64decode(salt), int(iterations)) == recorded["verifier"]


def test_same_arguments_same_verifier_and_another_user_another():
    assert scram_verifier("secret", "odoo_main") == scram_verifier("secret", "odoo_main")
    assert scram_verifier("secret", "odoo_main") != scram_verifier("secret", "odoo_test")
    assert scram_verifier("secret", "odoo_main") != scram_verifier("secret2", "odoo_main")


@given(st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_text_has_a_verifier_and_preparing_twice_changes_nothing(password):
    prepared = saslprep(password)
    assert saslprep(prepared) == prepared
    assert scram_verifier(password, "odoo").startswith("SCRAM-SHA-256$4096:")


@pytest.mark.parametrize("password", ["", "with\nnewline", "with\0nul", "with\rreturn"])
def test_impossible_passwords_are_refused_without_showing_them(password):
    with pytest.raises(ValueError, match="password of odoo") as error:
        scram_verifier(password, "odoo")
    assert "with" not in str(error.value)


def test_a_number_is_a_missing_pair_of_quotes():
    with pytest.raises(AnsibleFilterError, match="is a int, not a string: quote it") as error:
        as_filter(31337, "odoo")
    assert "31337" not in str(error.value)
