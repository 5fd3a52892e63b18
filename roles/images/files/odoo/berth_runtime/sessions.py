# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep sessions in Redis, where several application hosts see the same ones, keep those of nobody small in either store, and mark their cookie.

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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import redis
from odoo import http
from odoo.tools._vendor import sessions
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from . import fits

_logger = logging.getLogger(__name__)

ANONYMOUS_LIFETIME = 3600
"""Seconds for which a session is kept that nobody has logged in with. Odoo stores one only when something was put into it."""

ANONYMOUS_BYTES = 4096
"""What such a session may hold as JSON; Odoo's own hold some hundred bytes. Anybody can put text into one (``?debug=``), as often as he likes."""

QUIET = 60.0
"""Seconds between two lines in the log about sessions that are too big."""

TIMEOUT = 0.5
"""Seconds in which Redis must answer, or take a connection."""

PAUSE = 0.2
"""Seconds between two tries."""

PATIENCE = 15.0
"""Seconds for which a request waits for one Redis that is away, a restart's. Then it fails."""

FAILOVER_PATIENCE = 20.0
"""The same where another one takes over: some eight seconds after the death of the primary."""

AWAY = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, OSError)
"""A server that loads its file after a restart is away, too (BusyLoadingError is a ConnectionError), and one that follows now. Docker does not know the
name of a container that is stopped."""

SERVICE = "berth"
"""Sentinel's name for what it watches."""

FRESH = 1.0
"""Seconds for which the Sentinels' answer is believed. Longer, and a host that was frozen would go on with a primary that is none any more."""

CONFIRM_MS = 200
"""How long a write waits for a replica that has it too."""

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
    "odoo.http.FilesystemSessionStore.save": (http.FilesystemSessionStore.save, "(self, session)", ("super().save(session)",)),
    "odoo.http.Request._save_session": (
        http.Request._save_session,
        "(self, env=None)",
        ("root.session_store.rotate(sess, env)", "root.session_store.save(sess)"),
    ),
    "odoo.http.Session.__init__": (http.Session.__init__, "(self, data, sid, new=False)", ("self.is_new = new",)),
}


COOKIE_SETTERS = (http.FutureResponse, http._Response)
"""Both ways to set a cookie: for the answer to come, and on the answer itself."""


_last_told = float("-inf")


def is_excessive(session: Any) -> bool:
    """Whether a session that nobody has logged in with is too big to be stored. What was stored of it before stays."""
    global _last_told
    if session.uid or (size := len(json.dumps(dict(session)))) <= ANONYMOUS_BYTES:
        return False
    if time.monotonic() - _last_told > QUIET:
        _last_told = time.monotonic()
        _logger.warning("A session without a login is not stored: it has %d bytes, more than %d", size, ANONYMOUS_BYTES)
    return True


class Server:
    """The Redis that takes writes. Where there are several the Sentinels say which one that is."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Connect to nothing yet.

        Args:
            settings: ``host``, ``port``, ``user`` and ``password``; with ``authority``, PEM text, over TLS with a certificate that it signed. With
                ``members``, the name of each to ``redis`` and ``sentinel``, host and port of both, instead of ``host`` and ``port``.
        """
        self._settings = settings
        self._members: dict[str, dict[str, str]] = settings.get("members") or {}
        self._sentinels = [self._connect(member["sentinel"]) for member in self._members.values()]
        self._patience = FAILOVER_PATIENCE if self._members else PATIENCE
        self._name, self._asked = "", float("-inf")
        self._client = None if self._members else self._connect(f"{settings['host']}:{settings['port']}")

    def _connect(self, address: str) -> redis.Redis:
        """Return a client. It connects when it is used, and repeats nothing by itself."""
        host, _separator, port = address.rpartition(":")
        authority = self._settings.get("authority")
        return redis.Redis(
            host=host,
            port=int(port),
            username=self._settings["user"],
            password=self._settings["password"],
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            socket_keepalive=True,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 0),
            **({"ssl": True, "ssl_ca_data": authority, "ssl_check_hostname": True} if authority else {}),
        )

    def _name_of_primary(self) -> str:
        """Return the name that the newest of two answers has: a Sentinel that was frozen, or is cut off, believes what was true before.

        Raises:
            redis.ConnectionError: no Sentinel answers.
        """
        answers = []
        for sentinel in list(self._sentinels):
            try:
                state = sentinel.sentinel_master(SERVICE)
            except (redis.RedisError, OSError):
                # Asked last from now on.
                self._sentinels.remove(sentinel)
                self._sentinels.append(sentinel)
                continue
            answers.append((int(state["config-epoch"]), str(state["ip"])))
            if len(answers) > len(self._sentinels) // 2:
                break
        if not answers:
            raise redis.ConnectionError("no Sentinel says who is the primary")
        return max(answers)[1]

    def _primary(self) -> redis.Redis:
        """Return a client of the primary."""
        if self._members and time.monotonic() - self._asked > FRESH:
            try:
                name = self._name_of_primary()
            except redis.ConnectionError:
                # Without Sentinels nothing fails over: who was it still is.
                if self._client is None:
                    raise
                name = self._name
            if name != self._name:
                _logger.info("%s is the primary of Redis", name)
                self._client, self._name = self._connect(self._members[name]["redis"]), name
            self._asked = time.monotonic()
        assert self._client is not None  # noqa: S101 - for the type checker
        return self._client

    def run(self, action: Callable[[redis.Redis], Any]) -> Any:
        """Return what an action with the primary returns. While there is none it waits; it may be done twice."""
        until = time.monotonic() + self._patience
        while True:
            try:
                return action(self._primary())
            except redis.AuthenticationError:
                raise
            except AWAY:
                if time.monotonic() > until:
                    raise
                self._asked = float("-inf")
                time.sleep(PAUSE)

    def write(self, commands: Callable[[Pipeline], Any]) -> None:
        """Do commands one after the other, and wait until a replica has done them too, where there are some.

        When no replica says so, this may be a primary that another one has replaced, which it does not know yet: the Sentinels are asked, and if they
        name another one it is done there. Otherwise there is no replica at the moment, and work goes on.
        """

        def send(client: redis.Redis) -> bool:
            with client.pipeline(transaction=False) as pipeline:
                commands(pipeline)
                if self._members:
                    pipeline.wait(1, CONFIRM_MS)
                confirmed = pipeline.execute()[-1]
            return not self._members or confirmed > 0

        while not self.run(send):
            before, self._asked = self._name, float("-inf")
            self.run(lambda client: client)
            if self._name == before:
                _logger.warning("No replica of Redis has confirmed a write: if %s is lost now, so is a login", before)
                return


class RedisSessionStore(http.FilesystemSessionStore):
    """Odoo's session store on Redis. Ids and rotation are Odoo's own."""

    def __init__(self, server: Server, prefix: str) -> None:
        """Keep sessions below ``prefix``, the instance's own."""
        # Not the directory's constructor: there is none.
        sessions.SessionStore.__init__(self, session_class=http.Session)
        self._server = server
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
        if not is_excessive(session):
            self._store(session)

    def _store(self, session: Any, forgotten: Iterable[str] = ()) -> None:
        """Write a session, then forget other ids of it: in this order nobody who asks in between is logged out."""
        key, field = self._split(session.sid)
        content = json.dumps(dict(session))

        def commands(pipeline: Pipeline) -> None:
            pipeline.hset(key, field, content)
            # No key is without: when the memory is full Redis takes the one that would expire first.
            pipeline.expire(key, http.SESSION_LIFETIME if session.uid else ANONYMOUS_LIFETIME)
            if forgotten:
                pipeline.hdel(key, *forgotten)

        self._server.write(commands)

    def delete(self, session: Any) -> None:
        """Forget one id of a session."""
        key, field = self._split(session.sid)
        self._server.write(lambda pipeline: pipeline.hdel(key, field))

    def get(self, sid: str) -> Any:
        """Return a session, a new one with another id when there is none."""
        if not self.is_valid_key(sid):
            return self.new()
        key, field = self._split(sid)
        stored = self._server.run(lambda client: client.hget(key, field))
        return self.session_class(json.loads(stored), sid, False) if stored is not None else self.new()

    def delete_old_sessions(self, session: Any) -> None:
        """Forget the id of before a rotation, once nobody can be on his way with it any more.

        Odoo deletes all and saves the new one again, and who asks in between is logged out.
        """
        if "gc_previous_sessions" not in session or session["create_time"] + http.SESSION_DELETION_TIMER >= time.time():
            return
        del session["gc_previous_sessions"]
        key, field = self._split(session.sid)
        found = self._server.run(lambda client: client.hkeys(key))
        self._store(session, [name for name in map(_text, found) if name != field])

    def vacuum(self, max_lifetime: int = http.SESSION_LIFETIME) -> None:
        """Do nothing: Redis forgets what has expired."""

    def get_missing_session_identifiers(self, identifiers: Iterable[str]) -> set[str]:
        """Return those of the identifiers that no session has."""
        wanted = list(dict.fromkeys(identifiers))

        def ask(client: redis.Redis) -> list[int]:
            with client.pipeline(transaction=False) as pipeline:
                for identifier in wanted:
                    pipeline.exists(self._key(identifier))
                return list(pipeline.execute())

        there = self._server.run(ask)
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
            self._server.write(lambda pipeline: pipeline.delete(*map(self._key, identifiers)))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


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
        file: JSON with the settings of :class:`Server` and ``prefix``.

    Raises:
        SystemExit: Odoo is not as expected, or the file is not. Odoo logs any other error of an add-on and serves without it.
    """
    if problems := unexpected():
        raise SystemExit(f"berth_runtime does not fit this Odoo: {'; '.join(problems)}. To serve without it, set odoo_sessions: files")
    try:
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
        store = RedisSessionStore(Server(settings), settings["prefix"])
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(
            f"berth_runtime cannot read {file}: {type(error).__name__}. It is written by the role odoo: converge again"
        ) from None
    # A cached property of a class whose only instance may have read it already.
    vars(http.root).pop("session_store", None)
    http.Application.session_store = store
    where = settings.get("members") or f"{settings['host']}:{settings['port']}"
    _logger.info("Sessions are kept in Redis at %s", ", ".join(where) if isinstance(where, dict) else where)


def limit_files() -> None:
    """Store no big session that nobody has logged in with in Odoo's own store, either: there it would take the disk, for a week.

    Raises:
        SystemExit: Odoo is not as expected.
    """
    if problems := unexpected():
        raise SystemExit(f"berth_runtime does not fit this Odoo: {'; '.join(problems)}")
    original = http.FilesystemSessionStore.save

    def save(self: Any, session: Any) -> None:
        if not is_excessive(session):
            original(self, session)

    http.FilesystemSessionStore.save = save


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
