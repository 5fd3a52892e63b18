# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on of the Odoo image demands of a sign-in by OpenID Connect."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[3] / "roles/images/files/odoo/berth_runtime/oidc_rules.py"
_spec = importlib.util.spec_from_file_location("oidc_rules", FILE)
assert _spec is not None and _spec.loader is not None
rules = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rules)

ISSUER = "https://login.example.com"
CLAIMS = {"iss": ISSUER, "aud": "odoo", "exp": 2000000000, "sub": "4711", "nonce": "n"}


def problem(**change: Any) -> str:
    claims = {key: value for key, value in {**CLAIMS, **change}.items() if value is not ...}
    return str(rules.claims_problem(claims, ISSUER, "odoo", "n"))


def test_an_honest_token_is_accepted() -> None:
    assert problem() == problem(aud=["odoo"]) == problem(aud=["odoo", "api"], azp="odoo") == problem(azp="odoo") == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iss": f"{ISSUER}/"}, "issuer"),
        ({"iss": ...}, "issuer is None"),
        ({"aud": "other"}, "audience"),
        ({"aud": ["other"]}, "audience"),
        ({"aud": ...}, "audience is None"),
        ({"aud": {"odoo": 1}}, "audience"),
        ({"aud": ["odoo", "api"]}, "made for None"),
        ({"azp": "api"}, "made for 'api'"),
        ({"azp": ""}, "made for ''"),
        ({"exp": ...}, "when it ends"),
        ({"exp": "tomorrow"}, "when it ends"),
        ({"sub": ...}, "who signs in"),
        ({"sub": ""}, "who signs in"),
        ({"sub": 4711}, "who signs in"),
        ({"nonce": ...}, "another browser"),
        ({"nonce": "m"}, "another browser"),
        ({"nonce": "ü"}, "another browser"),
    ],
)
def test_any_other_is_not(change: dict[str, Any], words: str) -> None:
    assert words in problem(**change)


def test_a_token_of_an_unknown_key_has_no_claims() -> None:
    assert "does not publish" in rules.claims_problem({}, ISSUER, "odoo", "n")


def test_the_example_of_rfc_7636() -> None:
    assert rules.challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_what_a_secret_yields_is_a_verifier_and_says_nothing_of_the_rest() -> None:
    secret = "s" * 43
    found = {rules.derived(secret, purpose) for purpose in ("nonce", "verifier")} | {rules.derived("t" * 43, "nonce")}
    assert len(found) == 3 and all(rules.SECRET.fullmatch(value) for value in found)
    assert not rules.SECRET.fullmatch("s" * 42) and not rules.SECRET.fullmatch("s" * 42 + "\n")
