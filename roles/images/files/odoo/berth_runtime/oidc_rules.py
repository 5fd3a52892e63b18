# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sign-in by OpenID Connect has to prove. Pure functions, without Odoo."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""What the cookie of a browser holds that began to sign in: 256 bits."""


def encoded(digest: bytes) -> str:
    """Return a digest as base64url without padding, 43 characters of SHA-256."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def derived(secret: str, purpose: str) -> str:
    """Return a value that only the browser with this secret can have begun with: it needs no memory on the server, so any host may answer."""
    return encoded(hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).digest())


def challenge(verifier: str) -> str:
    """Return the challenge of PKCE for a verifier, method S256 (RFC 7636, 4.2)."""
    return encoded(hashlib.sha256(verifier.encode()).digest())


def claims_problem(claims: Mapping[str, Any], issuer: str, client_id: str, nonce: str) -> str:
    """Return why a token whose signature is right must be refused all the same, empty when it may not be.

    auth_oidc and python-jose check the audience and the end only where a token has them, and neither issuer nor nonce (OpenID Connect Core, 3.1.3.7).
    """
    if not claims:
        return "it is signed with a key that the provider does not publish"
    if claims.get("iss") != issuer:
        return f"its issuer is {claims.get('iss')!r}, expected {issuer!r}"
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or client_id not in audiences:
        return f"its audience is {audience!r}, expected {client_id!r}"
    if ("azp" in claims or len(audiences) > 1) and claims.get("azp") != client_id:
        return f"it was made for {claims.get('azp')!r}, expected {client_id!r}"
    if not isinstance(claims.get("exp"), (int, float)):
        return "it does not say when it ends"
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        return "it does not say who signs in"
    if not hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode()):
        return "it answers another browser's request"
    return ""
