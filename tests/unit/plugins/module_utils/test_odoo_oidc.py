# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sign-in by OpenID Connect: what is refused, the record that follows, and what differs."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _odoo, _odoo_oidc

ISSUER = "https://login.example.com/realms/acme"
OIDC = {"issuer": ISSUER, "client_id": "odoo", "label": "Acme"}
CONFIGURATION = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/keys",
    "response_types_supported": ["code", "id_token"],
    "id_token_signing_alg_values_supported": ["ES256", "RS256"],
}
NOTHING: dict[str, Any] = {"provider": {}, "odoo_com": False, "passwords": 1, "administrators": 0}
RECORD, REMARK = _odoo_oidc.provider_record(OIDC, {**NOTHING, "configuration": CONFIGURATION})


def test_the_record_has_what_the_provider_says_and_no_secret() -> None:
    assert not REMARK
    assert (RECORD["name"], RECORD["auth_endpoint"], RECORD["token_endpoint"], RECORD["jwks_uri"]) == (
        ISSUER,
        f"{ISSUER}/auth",
        f"{ISSUER}/token",
        f"{ISSUER}/keys",
    )
    assert (RECORD["body"], RECORD["flow"], RECORD["enabled"]) == ("Acme", "id_token_code", True)
    assert RECORD["client_secret"] is None and RECORD["token_map"] is None
    assert _odoo_oidc.provider_record({**OIDC, "label": ""}, {**NOTHING, "configuration": CONFIGURATION})[0]["body"] == "Single sign-on"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"issuer": f"{ISSUER}/"}, f"calls itself '{ISSUER}/'"),
        ({"token_endpoint": "http://login.example.com/token"}, "token_endpoint is 'http://login.example.com/token'"),
        ({"authorization_endpoint": f"{ISSUER}/auth?tenant=1"}, "without a query"),
        ({"jwks_uri": None}, "jwks_uri is None"),
        ({"response_types_supported": ["id_token"]}, "response_types_supported are id_token, and Odoo needs code"),
        ({"id_token_signing_alg_values_supported": ["ES256"]}, "Odoo needs RS256"),
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "Odoo needs client_secret_basic"),
    ],
)
def test_a_provider_that_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="does not fit") as caught:
        _odoo_oidc.provider_record(OIDC, {**NOTHING, "configuration": {**CONFIGURATION, **change}})
    assert words in str(caught.value)


def test_a_silent_provider_keeps_what_is_known_of_it_and_no_other() -> None:
    silent = {"odoo_com": False, "silence": "Connection refused"}
    record, remark = _odoo_oidc.provider_record({**OIDC, "client_id": "other"}, {**silent, "provider": RECORD})
    assert record == {**RECORD, "client_id": "other"}
    assert ISSUER in remark and "Connection refused" in remark
    for known in ({}, {**RECORD, "name": "https://elsewhere.example.com"}):
        with pytest.raises(ValueError, match="cannot be asked") as caught:
            _odoo_oidc.provider_record(OIDC, {**silent, "provider": known})
        assert "oidc.authority_certificate" in str(caught.value)


def test_what_differs_is_named_and_nothing_else() -> None:
    changes = _odoo_oidc.provider_changes
    assert changes(RECORD, NOTHING) == [f"let people sign in at {ISSUER}"]
    # The database has more columns, and false in the place of nothing.
    stored = {**RECORD, "id": 7, "client_secret": "", "code_verifier": "x"}
    assert changes(RECORD, {**NOTHING, "provider": stored}) == []
    assert changes(RECORD, {**NOTHING, "provider": {**stored, "client_id": "x", "client_secret": "typed"}, "odoo_com": True}) == [
        "set client_id of the OpenID provider",
        "set client_secret of the OpenID provider",
        "take Odoo.com from the login page",
    ]


def test_without_a_provider_its_button_goes_once() -> None:
    assert _odoo_oidc.provider_changes({}, {"provider": {**RECORD, "id": 7}, "odoo_com": True}) == [f"take {ISSUER} from the login page"]
    assert _odoo_oidc.provider_changes({}, {"provider": {**RECORD, "enabled": False}, "odoo_com": True}) == []
    assert _odoo_oidc.provider_changes({}, NOTHING) == []


def test_passwords_are_taken_where_they_shall_not_be() -> None:
    there = {**NOTHING, "provider": {**RECORD, "id": 7}, "passwords": 3, "administrators": 1}
    assert _odoo_oidc.provider_changes(RECORD, there) == []
    assert _odoo_oidc.provider_changes(RECORD, there, passwords=False) == ["take the passwords of 3 who sign in at the provider"]
    assert _odoo_oidc.provider_changes(RECORD, {**there, "passwords": 0}, passwords=False) == []
    assert not _odoo_oidc.password_problem(there)
    assert "no administrator is linked" in _odoo_oidc.password_problem({**there, "administrators": 0})


def test_the_diff_shows_the_record_and_never_a_secret() -> None:
    wanted = {"language": "en_US", "login": "admin", "parameters": {}, "modules": ["auth_oidc"], "provider": RECORD, "passwords": True}
    state = {
        "initialised": True,
        "websites": [],
        "languages": ["en_US"],
        "login": "admin",
        "parameters": {},
        "modules": {"auth_oidc": "installed"},
    }
    view = "OpenID provider"

    def sides(wanted: dict[str, Any], provider: dict[str, Any]) -> tuple[Any, Any]:
        now = {**state, "oidc": {"provider": provider, "odoo_com": False}}
        return _odoo.database_view(now, wanted, [])[view], _odoo.wanted_view(now, wanted, True, [])[view]

    before, after = sides(wanted, {**RECORD, "client_id": "x", "client_secret": "canary", "id": 7})
    assert "canary" not in str((before, after))
    assert {key for key in before if before[key] != after[key]} == {"client_id", "client_secret"}
    assert sides(wanted, {}) == ({}, {key: RECORD[key] for key in sorted(RECORD)})
    assert sides(wanted, {**RECORD, "id": 7})[0] == sides(wanted, RECORD)[1]
    none = {**wanted, "provider": {}}
    assert sides(none, RECORD) == ({"enabled": True}, {"enabled": None})
    assert sides(none, {**RECORD, "enabled": False}) == ({"enabled": None}, {"enabled": None})
    assert sides(none, {}) == ({}, {})
