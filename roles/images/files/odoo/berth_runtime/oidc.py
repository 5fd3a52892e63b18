# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the OCA's auth_oidc check what it leaves out, for the provider that the instance's inventory declares.

* It verifies the signature of a token, RS256 alone, and neither issuer nor nonce. See :func:`oidc_rules.claims_problem`.
* Its verifier for PKCE is a constant in the database and its nonce is forgotten, so a code that somebody got hold of lets him in, and a link lets a victim
  into somebody else's account. Here both come out of a cookie of the browser that began.
* It reads the client secret from the database, of which there are backups and copies; here it is in a file.
* It keeps a provider's keys for as long as a process lives, also those that the provider has withdrawn, and that it did not find one. Here they are
  fetched for each sign-in.
* Odoo makes an account for whomever the provider knows, once it lets customers sign up. Here the provider makes none without an invitation.

Written for auth_oidc 19.0.1.0.0; what it relies on is checked when it is loaded.
"""

from __future__ import annotations

import functools
import json
import logging
import secrets
import urllib.parse
from pathlib import Path
from typing import Any

import requests
from jose.exceptions import JWTError
from odoo.addons.auth_oauth.controllers import main as oauth
from odoo.addons.auth_oidc.controllers import main as controllers
from odoo.addons.auth_oidc.models import auth_oauth_provider, res_users
from odoo.http import request

from . import fits
from .oidc_rules import SECRET, challenge, claims_problem, derived

_logger = logging.getLogger(__name__)

COOKIE = "berth_oidc"
LIFETIME = 900
"""Seconds between the login page and the way back from the provider."""

TIMEOUT = 10
"""Seconds in which the provider must answer; a web worker is busy meanwhile."""

FLOW = "id_token_code"

FAILED = "The sign-in service did not answer, or its answer was not accepted. Try again; the reason is in Odoo's log."

EXPECTED: fits.Expected = {
    "OpenIDLogin.list_providers": (
        controllers.OpenIDLogin.list_providers,
        "(self)",
        ('params["nonce"]', 'params["code_challenge"]', 'provider["auth_link"]'),
    ),
    "OAuthLogin.web_login": (
        oauth.OAuthLogin.web_login.original_endpoint,
        "(self, *args, **kw)",
        ("oauth_error", "response.qcontext['error']"),
    ),
    "OAuthController.signin": (
        oauth.OAuthController.signin.original_endpoint,
        "(self, *a, **kw)",
        ("auth_oauth(provider, kw)", "oauth_error=2", "oauth_error=3"),
    ),
    "AuthOauthProvider._get_keys": (auth_oauth_provider.AuthOauthProvider._get_keys, "(*args, **kwargs)", ("requests.get(self.jwks_uri",)),
    "AuthOauthProvider._decode_id_token": (
        auth_oauth_provider.AuthOauthProvider._decode_id_token,
        "(self, access_token, id_token, kid)",
        ("self._get_keys(kid)", 'algorithms=["RS256"]', "audience=self.client_id", "access_token=access_token"),
    ),
    "AuthOauthProvider._parse_id_token": (
        auth_oauth_provider.AuthOauthProvider._parse_id_token,
        "(self, id_token, access_token)",
        ("self._decode_id_token(access_token, id_token",),
    ),
    "ResUsers._auth_oauth_get_tokens_auth_code_flow": (
        res_users.ResUsers._auth_oauth_get_tokens_auth_code_flow,
        "(self, oauth_provider, params)",
        ("code_verifier=oauth_provider.code_verifier", 'request.httprequest.url_root + "auth_oauth/signin"'),
    ),
    "ResUsers.auth_oauth": (
        res_users.ResUsers.auth_oauth,
        "(self, provider, params)",
        ("_auth_oauth_get_tokens_auth_code_flow(", "_parse_id_token(id_token, access_token)", '"user_id" not in validation'),
    ),
}


class Declared:
    """The provider as the inventory declares it."""

    def __init__(self, file: str) -> None:
        """Read what the role wrote: ``issuer``, ``client_id``, ``client_secret`` and ``authority``, a file or nothing."""
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
        self.issuer: str = settings["issuer"]
        self.client_id: str = settings["client_id"]
        # RFC 6749, 2.3.1: each is encoded by itself first.
        self.login = (urllib.parse.quote_plus(settings["client_id"]), urllib.parse.quote_plus(settings["client_secret"]))
        self.trust: str | bool = settings["authority"] or True

    def is_meant(self, provider: Any) -> bool:
        """Whether a record, or what was read of one, is this provider."""
        return bool(provider["flow"] == FLOW and provider["client_id"] == self.client_id)


def browser_secret() -> str:
    """Return the secret of the browser that sends this request."""
    secret = request.httprequest.cookies.get(COOKIE, "")
    if not SECRET.fullmatch(secret):
        raise JWTError(f"this browser did not begin to sign in, or more than {LIFETIME} s ago")
    return str(secret)


def guard_links(declared: Declared) -> None:
    """Tie the button on the login page to the browser that shows it."""
    original = controllers.OpenIDLogin.list_providers

    def list_providers(self: Any) -> list[dict[str, Any]]:
        providers: list[dict[str, Any]] = original(self)
        for provider in filter(declared.is_meant, providers):
            # The same for several windows of a browser.
            secret = request.httprequest.cookies.get(COOKIE, "")
            if not SECRET.fullmatch(secret):
                secret = secrets.token_urlsafe(32)
            secure = request.httprequest.scheme == "https"
            request.future_response.set_cookie(COOKIE, secret, max_age=LIFETIME, expires=None, httponly=True, secure=secure, samesite="Lax")
            address, _separator, query = provider["auth_link"].rpartition("?")
            bound = {"nonce": derived(secret, "nonce"), "code_challenge": challenge(derived(secret, "verifier"))}
            provider["auth_link"] = f"{address}?{urllib.parse.urlencode({**dict(urllib.parse.parse_qsl(query)), **bound})}"
        return providers

    controllers.OpenIDLogin.list_providers = list_providers


def guard_tokens(declared: Declared) -> None:
    """Fetch keys and tokens as declared, and look at what a token says."""
    provider_class, users_class = auth_oauth_provider.AuthOauthProvider, res_users.ResUsers
    get_keys, decode, get_tokens = (
        provider_class._get_keys,
        provider_class._decode_id_token,
        users_class._auth_oauth_get_tokens_auth_code_flow,
    )

    def _get_keys(self: Any, kid: str | None) -> Any:
        if not declared.is_meant(self):
            return get_keys(self, kid)
        answer = requests.get(self.jwks_uri, timeout=TIMEOUT, verify=declared.trust)
        answer.raise_for_status()
        # Keys for encryption and of other kinds may have the same id.
        fitting = [key for key in answer.json()["keys"] if key.get("kty") == "RSA" and key.get("use", "sig") == "sig"]
        return [key for key in fitting if kid is None or key.get("kid") == kid]

    def _decode_id_token(self: Any, access_token: str, id_token: str, kid: str | None) -> Any:
        claims = decode(self, access_token, id_token, kid)
        if declared.is_meant(self):
            problem = claims_problem(claims, declared.issuer, declared.client_id, derived(browser_secret(), "nonce"))
            if problem:
                raise JWTError(f"the token of {declared.issuer} is refused: {problem}")
        return claims

    def _auth_oauth_get_tokens_auth_code_flow(self: Any, oauth_provider: Any, params: dict[str, Any]) -> tuple[Any, Any]:
        if not declared.is_meant(oauth_provider):
            found: tuple[Any, Any] = get_tokens(self, oauth_provider, params)
            return found
        form = {
            "grant_type": "authorization_code",
            "code": params.get("code"),
            "code_verifier": derived(browser_secret(), "verifier"),
            "redirect_uri": request.httprequest.url_root + "auth_oauth/signin",
        }
        answer = requests.post(oauth_provider.token_endpoint, data=form, auth=declared.login, timeout=TIMEOUT, verify=declared.trust)
        if not answer.ok:
            # The provider says why, such as invalid_client; a code is used up by then.
            _logger.error("OpenID Connect: %s answered %s: %s", oauth_provider.token_endpoint, answer.status_code, answer.text[:300])
        answer.raise_for_status()
        tokens = answer.json()
        return tokens.get("access_token"), tokens.get("id_token")

    provider_class._get_keys = _get_keys
    provider_class._decode_id_token = _decode_id_token
    users_class._auth_oauth_get_tokens_auth_code_flow = _auth_oauth_get_tokens_auth_code_flow


def guard_accounts(declared: Declared) -> None:
    """Let in whoever has an account or an invitation, and tell users apart from faults."""
    auth_oauth, web_login = res_users.ResUsers.auth_oauth, oauth.OAuthLogin.web_login

    @functools.wraps(auth_oauth)
    def known(self: Any, provider: int, params: dict[str, Any]) -> Any:
        if declared.is_meant(self.env["auth.oauth.provider"].browse(provider)) and not json.loads(params["state"]).get("t"):
            self = self.with_context(no_user_creation=True)
        return auth_oauth(self, provider, params)

    @functools.wraps(web_login)
    def told(self: Any, *arguments: Any, **more: Any) -> Any:
        response = web_login(self, *arguments, **more)
        if response.is_qweb and request.params.get("oauth_error") == "2":
            response.qcontext["error"] = FAILED
        return response

    res_users.ResUsers.auth_oauth = known
    oauth.OAuthLogin.web_login = told


def unexpected() -> list[str]:
    """Return what is not as in the auth_oidc that this was written for, in words."""
    return fits.differences(EXPECTED)


def post_load(file: str) -> None:
    """Put the functions in place.

    Raises:
        SystemExit: auth_oidc is not as expected. Odoo logs any other error of an add-on and serves without it.
    """
    if problems := unexpected():
        raise SystemExit(
            f"berth_runtime does not fit this auth_oidc: {'; '.join(problems)}. docs/access.md names the version that it is made for"
        )
    declared = Declared(file)
    guard_links(declared)
    guard_tokens(declared)
    guard_accounts(declared)
    _logger.info("Signing in by OpenID Connect at %s is guarded", declared.issuer)
