# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sign-in to Odoo by OpenID Connect: what may be written in an inventory, the provider's record that follows from it, and what differs.

Pure functions: no Ansible, no input or output. ``_odoo_inside`` asks the provider and the database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLACE = r"https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[^\s?#]*)?"
ISSUER = re.compile(_PLACE)
ISSUER_RULE = "https:// with a host, as the provider's own configuration names it, such as https://login.example.com/realms/acme"
LINE = re.compile(r"\S([^\n\r\0]*\S)?")
LINE_RULE = "text on one line, without white space at its ends"
LABEL = "Single sign-on"
"""Of the button on the login page."""
SCOPE = "openid email profile"
ENDPOINTS = {"auth_endpoint": "authorization_endpoint", "token_endpoint": "token_endpoint", "jwks_uri": "jwks_uri"}
"""Fields of Odoo's record, and where the provider's configuration has them."""
SECRET = "client_secret"  # noqa: S105 - a name
"""Never in the database: Odoo reads it from a file."""


def value_problems(oidc: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield key, what was found and what was expected of each value that cannot be right. Missing keys are not looked at."""
    for key, pattern, rule in (("issuer", ISSUER, ISSUER_RULE), ("client_id", LINE, LINE_RULE), ("label", LINE, LINE_RULE)):
        value = oidc.get(key)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            yield key, repr(value), rule
    certificate = oidc.get("authority_certificate")
    if certificate and "-----BEGIN CERTIFICATE-----" not in str(certificate):
        yield "authority_certificate", "a text without a certificate", "PEM text of the authorities that sign the issuer's certificate"


def configuration_problem(issuer: str, configuration: Mapping[str, Any]) -> str:
    """Return why people could not sign in with what a provider says of itself, empty when they can (OpenID Connect Discovery 1.0, 3)."""
    if configuration.get("issuer") != issuer:
        return f"it calls itself {configuration.get('issuer')!r}: write that as issuer, to the letter"
    for name in ENDPOINTS.values():
        if not ISSUER.fullmatch(str(configuration.get(name))):
            return f"its {name} is {configuration.get(name)!r}, expected an address with https and without a query"
    for name, needed, default in (
        ("response_types_supported", "code", ["code"]),
        ("id_token_signing_alg_values_supported", "RS256", ["RS256"]),
        ("token_endpoint_auth_methods_supported", "client_secret_basic", ["client_secret_basic"]),
    ):
        offered = configuration.get(name, default)
        if needed not in offered:
            return f"its {name} are {', '.join(map(str, offered))}, and Odoo needs {needed}"
    return ""


def provider_record(oidc: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the values of Odoo's record of the provider, and a remark when it keeps addresses of before.

    The name is the issuer: it says whose addresses a record has. Without ``token_map`` a person is who ``sub`` says; an e-mail address may change its owner.

    Args:
        oidc: ``issuer``, ``client_id``, ``label``.
        state: ``provider``, the record as it is; ``configuration``, what the provider says, or ``silence``, why it says nothing.

    Raises:
        ValueError: Nobody could sign in. The text says why.
    """
    issuer, before = oidc["issuer"], state["provider"]
    remark, configuration = "", state.get("configuration")
    if configuration is not None:
        problem = configuration_problem(issuer, configuration)
        if problem:
            raise ValueError(f"the OpenID provider {issuer} does not fit: {problem}")
        places = {field: configuration[name] for field, name in ENDPOINTS.items()}
    elif before.get("name") == issuer:
        places = {field: before.get(field) for field in ENDPOINTS}
        remark = f"the OpenID provider {issuer} cannot be asked ({state.get('silence')}): what is known of it stays"
    else:
        raise ValueError(
            f"the OpenID provider {issuer} cannot be asked ({state.get('silence')}): check oidc.issuer, that this host reaches it, and with an authority of "
            "your own oidc.authority_certificate"
        )
    record = {
        "name": issuer,
        "body": oidc.get("label") or LABEL,
        "client_id": oidc["client_id"],
        "flow": "id_token_code",
        "scope": SCOPE,
        "enabled": True,
        "token_map": None,
        SECRET: None,
        **places,
    }
    return record, remark


def provider_changes(wanted: Mapping[str, Any], state: Mapping[str, Any], passwords: bool = True) -> list[str]:
    """Say in words what is to do.

    Args:
        wanted: As :func:`provider_record` returns it, empty when nobody shall sign in that way.
        state: ``provider``, the record as it is; ``odoo_com``, whether the login page offers accounts of Odoo.com, which ``auth_oauth`` brings;
            ``passwords``, how many of those who sign in there have one.
        passwords: Whether they may.
    """
    before = state.get("provider") or {}
    if not wanted:
        return [f"take {before['name']} from the login page"] if before.get("enabled") else []
    changes = [f"let people sign in at {wanted['name']}"] if not before else []
    if before:
        changes += [f"set {key} of the OpenID provider" for key in wanted if (before.get(key) or None) != wanted[key]]
    changes += ["take Odoo.com from the login page"] if state.get("odoo_com") else []
    return changes + (
        [] if passwords or not state["passwords"] else [f"take the passwords of {state['passwords']} who sign in at the provider"]
    )


def password_problem(state: Mapping[str, Any]) -> str:
    """Return why nobody may be left without a password, empty when somebody administers the instance without one.

    Args:
        state: ``administrators``, how many of them are linked to the provider.
    """
    if state["administrators"]:
        return ""
    return (
        "oidc.passwords is false, and no administrator is linked to the provider: nobody could set Odoo up any more. Leave passwords true, run this, sign in "
        "as an administrator that is linked (Settings, Users, tab OAuth), and then set it"
    )


def provider_view(record: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a diff shows of a record."""
    return {key: "(a secret)" if key == SECRET and record.get(key) else record.get(key) or None for key in sorted(keys) if record}
