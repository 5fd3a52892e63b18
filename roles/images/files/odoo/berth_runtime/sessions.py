# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep sessions in Redis, where several application hosts see the same ones, and mark their cookie.

A hash a session identity: the first 42 characters of the session's id name it, as they do in Odoo's list of devices, and its fields are the last
42 of each id that is valid, two of them while a rotation is fresh. So a device is revoked by deleting one key, nothing has to be searched, and
Redis forgets by itself what nobody uses any more.

Written for Odoo 19.0 and redis-py 6; what it relies on is checked when it is loaded.
"""

from __future__ import annotations

import inspect
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
from odoo import http
from odoo.tools._vendor import sessions
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from . import fits

_logger = logging.getLogger(__name__)

ANONYMOUS_LIFETIME = 3600
"""Seconds for which a session is kept that nobody has logged in with. Odoo stores one only when something was put into it."""

TIMEOUT = 0.5
"""Seconds in which Redis must answer, or take a connection."""

RETRIES = 14
"""How often a command is repeated when Redis is away, with pauses up to half a second: some six seconds, a restart's. Then the request fails."""

EXPECTED: fits.Expected = {
    "odoo.http.FilesystemSessionStore.rotate": (
        http.FilesystemSessionStore.rotate,
        "(self, session, env, soft=False)",
        ("self.get(session.sid)", "self.delete(session)", "self.save(session)"),
    ),
    "odoo.http.FilesystemSessionStore.delete_old_sessions": (
        http.FilesystemSessionStore.delete_old_sessions,
        "(self, session)",
        ("'gc_previous_sessions' in session", "SESSION_DELETION_TIMER < time.time()"),
    ),
    "odoo.http.FilesystemSessionStore.get_missing_session_identifiers": (
        http.FilesystemSessionStore.get_missing_session_identifiers,
        "(self, identifiers)",
        (),
    ),
    "odoo.http.FilesystemSessionStore.delete_from_identifiers": (
        http.FilesystemSessionStore.delete_from_identifiers,
        "(self, identifiers: list)",
        ("_session_identifier_re.match(identifier)",),
    ),
    "odoo.http.FilesystemSessionStore.vacuum": (http.FilesystemSessionStore.vacuum, "(self, max_lifetime=604800)", ()),
    "odoo.http.Session.__init__": (http.Session.__init__, "(self, data, sid, new=False)", ("self.is_new = new",)),
}


COOKIE_SETTERS = (http.FutureResponse, http._Response)
"""Both ways to set a cookie: for the answer to come, and on the answer itself."""


class RedisSessionStore(http.FilesystemSessionStore):
    """Odoo's session store on Redis. Ids and rotation are Odoo's own."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        """Keep sessions of ``client`` below ``prefix``, the instance's own."""
        # Not the directory's constructor: there is none.
        sessions.SessionStore.__init__(self, session_class=http.Session)
        self._client = client
        self._prefix = prefix

    def _key(self, identifier: str) -> str:
        return f"{self._prefix}:session:{identifier}"

    def _split(self, sid: str) -> tuple[str, str]:
        """Return the key and the field of a session's id. Raises ValueError."""
        if not self.is_valid_key(sid):
            raise ValueError(f"Invalid session id {sid!r}")
        return self._key(sid[: http.STORED_SESSION_BYTES]), sid[http.STORED_SESSION_BYTES :]

    def save(self, session: Any) -> None:
        """Store a session, for as long as Odoo would keep one that nobody uses."""
        key, field = self._split(session.sid)
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, field, json.dumps(dict(session)))
            pipeline.expire(key, http.SESSION_LIFETIME if session.uid else ANONYMOUS_LIFETIME)
            pipeline.execute()

    def delete(self, session: Any) -> None:
        """Forget one id of a session."""
        self._client.hdel(*self._split(session.sid))

    def get(self, sid: str) -> Any:
        """Return a session, a new one with another id when there is none."""
        if not self.is_valid_key(sid):
            return self.new()
        stored = self._client.hget(*self._split(sid))
        return self.session_class(json.loads(stored), sid, False) if stored is not None else self.new()

    def delete_old_sessions(self, session: Any) -> None:
        """Forget the id of before a rotation, once nobody can be on his way with it any more.

        In one step. Odoo deletes all and saves the new one again, and who asks in between is logged out.
        """
        if "gc_previous_sessions" not in session or session["create_time"] + http.SESSION_DELETION_TIMER >= time.time():
            return
        del session["gc_previous_sessions"]
        key, field = self._split(session.sid)
        others = [name for name in map(_text, self._client.hkeys(key)) if name != field]
        with self._client.pipeline(transaction=True) as pipeline:
            if others:
                pipeline.hdel(key, *others)
            pipeline.hset(key, field, json.dumps(dict(session)))
            pipeline.expire(key, http.SESSION_LIFETIME if session.uid else ANONYMOUS_LIFETIME)
            pipeline.execute()

    def vacuum(self, max_lifetime: int = http.SESSION_LIFETIME) -> None:
        """Do nothing: Redis forgets what has expired."""

    def get_missing_session_identifiers(self, identifiers: Iterable[str]) -> set[str]:
        """Return those of the identifiers that no session has."""
        wanted = list(dict.fromkeys(identifiers))
        with self._client.pipeline(transaction=False) as pipeline:
            for identifier in wanted:
                pipeline.exists(self._key(identifier))
            there = pipeline.execute()
        return {identifier for identifier, found in zip(wanted, there, strict=True) if not found}

    def delete_from_identifiers(self, identifiers: list[str]) -> None:
        """Revoke devices.

        Raises:
            ValueError: One is not an identifier; nothing was deleted then.
        """
        for identifier in identifiers:
            if not http._session_identifier_re.match(identifier):
                raise ValueError("Identifier format incorrect, did you pass in a string instead of a list?")
        if identifiers:
            self._client.delete(*map(self._key, identifiers))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def connect(settings: dict[str, Any]) -> redis.Redis:
    """Return a client of one Redis server. It connects when it is used.

    Args:
        settings: ``host``, ``port``, ``user`` and ``password``; with ``authority``, PEM text, over TLS with a certificate that it signed.
    """
    encryption = {"ssl": True, "ssl_ca_data": settings["authority"], "ssl_check_hostname": True} if settings.get("authority") else {}
    return redis.Redis(
        host=settings["host"],
        port=int(settings["port"]),
        username=settings["user"],
        password=settings["password"],
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=TIMEOUT, base=0.05), RETRIES),
        # A server that loads its file after a restart is away, too, and Docker does not know the name of a container that is stopped.
        retry_on_error=[redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, OSError],
        **encryption,
    )


def unexpected() -> list[str]:
    """Return what is not as in the Odoo that this was written for, in words."""
    found = fits.differences(EXPECTED)
    for kind in COOKIE_SETTERS:
        if missing := {"key", "secure", "samesite"} - set(inspect.signature(kind.set_cookie, follow_wrapped=False).parameters):
            found.append(f"{kind.__name__}.set_cookie does not take {', '.join(sorted(missing))}")
    if "session_store" not in vars(http.Application):
        found.append("odoo.http.Application has no session_store")
    return found


def post_load(file: str) -> None:
    """Put the store in place.

    Args:
        file: JSON with the keys of :func:`connect` and ``prefix``.

    Raises:
        SystemExit: Odoo is not as expected, or the file is not. Odoo logs any other error of an add-on and serves without it.
    """
    if problems := unexpected():
        raise SystemExit(f"berth_runtime does not fit this Odoo: {'; '.join(problems)}. To serve without it, set odoo_sessions: files")
    try:
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
        store = RedisSessionStore(connect(settings), settings["prefix"])
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(
            f"berth_runtime cannot read {file}: {type(error).__name__}. It is written by the role odoo: converge again"
        ) from None
    # A cached property of a class whose only instance may have read it already.
    vars(http.root).pop("session_store", None)
    http.Application.session_store = store
    _logger.info("Sessions are kept in Redis at %s:%s", settings["host"], settings["port"])


def mark_cookie() -> None:
    """Send the session's cookie over HTTPS alone, and to no other site's requests but links: Odoo says neither.

    ``proxy_mode`` makes Odoo believe the proxy about the scheme. Over plain HTTP, as a health check or a report's program speaks it, the cookie stays as it is.
    """
    for kind in COOKIE_SETTERS:
        kind.set_cookie = _marking(kind.set_cookie)


def _marking(original: Any) -> Any:
    def set_cookie(self: Any, key: str, *arguments: Any, **more: Any) -> None:
        if key == "session_id" and http.request and http.request.httprequest.scheme == "https":
            more = {"secure": True, "samesite": "Lax", **more}
        original(self, key, *arguments, **more)

    return set_cookie
