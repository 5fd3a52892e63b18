# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sessions are stored, with stand-ins for Odoo and redis-py. The add-on itself runs in tests/faults."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

DIRECTORY = Path(__file__).resolve().parents[3] / "roles/images/files/odoo/berth_runtime"
SID = "a" * 84


class Session(dict[str, Any]):
    """As Odoo's."""

    sid = SID

    def __init__(self, data: Any, sid: str = SID, new: bool = False) -> None:
        super().__init__(data)
        self.sid = sid
        self.is_new = new

    @property
    def uid(self) -> Any:
        return self.get("uid")


class Directory:
    """As the store that Odoo's own is made of."""

    def save(self, session: Any) -> None:
        self.__dict__.setdefault("saved", []).append(session.sid)


class FilesystemSessionStore(Directory):
    """As Odoo's, with what the add-on looks for in its source."""

    def save(self, session):  # type: ignore[no-untyped-def]
        super().save(session)

    def rotate(self, session, env, soft=False):  # type: ignore[no-untyped-def]
        _ = lambda: (self.get(session.sid), self.delete(session), self.save(session))  # noqa: E731

    def delete_old_sessions(self, session):  # type: ignore[no-untyped-def]
        _ = "'gc_previous_sessions' in session", "SESSION_DELETION_TIMER < time.time()"

    def get_missing_session_identifiers(self, identifiers):  # type: ignore[no-untyped-def]
        pass

    def delete_from_identifiers(self, identifiers: list):  # type: ignore[no-untyped-def, type-arg]
        _ = "_session_identifier_re.match(identifier)"

    def vacuum(self, max_lifetime=604800):  # type: ignore[no-untyped-def]
        pass

    def is_valid_key(self, key: str) -> bool:
        return len(key) == 84


class Request:
    def _save_session(self, env=None):  # type: ignore[no-untyped-def]
        _ = "root.session_store.rotate(sess, env)", "root.session_store.save(sess)"


class Answer:
    def set_cookie(self, key, secure=False, samesite=None):  # type: ignore[no-untyped-def]
        pass


class Application:
    session_store = None


class FakeServer:
    """What the store says to Redis."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def write(self, commands: Any) -> None:
        def teller(name: str) -> Any:
            return lambda *arguments: self.said.append((name, *arguments))

        commands(SimpleNamespace(hset=teller("hset"), expire=teller("expire"), hdel=teller("hdel")))


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The add-on's module between stand-ins."""

    def module(name: str, **content: Any) -> ModuleType:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    class Error(Exception):
        pass

    store = type("FilesystemSessionStore", (FilesystemSessionStore,), {"save": FilesystemSessionStore.save})
    http = module(
        "odoo.http",
        FilesystemSessionStore=store,
        Session=SimpleNamespace(__init__=_init),
        Request=Request,
        FutureResponse=Answer,
        _Response=Answer,
        Application=Application,
        SESSION_LIFETIME=604800,
        STORED_SESSION_BYTES=42,
    )
    module("odoo", http=http)
    module("odoo.tools")
    module("odoo.tools._vendor", sessions=SimpleNamespace(SessionStore=SimpleNamespace(__init__=lambda self, session_class: None)))
    errors = {
        name: type(name, (Error,), {}) for name in ("ConnectionError", "TimeoutError", "ReadOnlyError", "AuthenticationError", "RedisError")
    }
    module("redis", Redis=object, **errors)
    module("redis.backoff", NoBackoff=object)
    module("redis.client", Pipeline=object)
    module("redis.retry", Retry=object)
    package = module("berth_runtime_under_test")
    package.__path__ = [str(DIRECTORY)]
    for name in ("fits", "sessions"):
        spec = importlib.util.spec_from_file_location(f"berth_runtime_under_test.{name}", DIRECTORY / f"{name}.py")
        assert spec and spec.loader
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, made)
        setattr(package, name, made)
        spec.loader.exec_module(made)
    return sys.modules["berth_runtime_under_test.sessions"]


def _init(self, data, sid, new=False):  # type: ignore[no-untyped-def]
    self.is_new = new


def of_size(size: int, **more: Any) -> Session:
    session = Session({"debug": "", **more})
    session["debug"] = "1" * (size - len(json.dumps(dict(session))))
    assert len(json.dumps(dict(session))) == size
    return session


def test_a_big_session_of_nobody_is_not_stored_in_redis(sessions: Any) -> None:
    server = FakeServer()
    store = sessions.RedisSessionStore(server, "main")
    store.save(of_size(4097))
    store.save(of_size(30000, uid=None, login="somebody"))
    assert server.said == []
    store.save(of_size(4096))
    store.save(of_size(30000, uid=2))
    assert [name for name, *_rest in server.said] == ["hset", "expire", "hset", "expire"]


def test_every_key_expires_and_that_of_nobody_first(sessions: Any) -> None:
    """Redis forgets what expires first when its memory is full."""
    server = FakeServer()
    store = sessions.RedisSessionStore(server, "main")
    store.save(Session({"create_time": 1}))
    store.save(Session({"create_time": 1, "uid": 2}))
    assert [entry for entry in server.said if entry[0] == "expire"] == [
        ("expire", f"main:session:{SID[:42]}", 3600),
        ("expire", f"main:session:{SID[:42]}", 604800),
    ]


def test_nor_in_odoos_own_store(sessions: Any) -> None:
    sessions.limit_files()
    store = sessions.http.FilesystemSessionStore()
    store.save(of_size(4097))
    assert not hasattr(store, "saved")
    store.save(of_size(4096))
    store.save(of_size(30000, uid=2))
    assert store.saved == [SID, SID]


def test_the_log_says_so_once_a_minute(sessions: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    monkeypatch.setattr(sessions, "time", SimpleNamespace(monotonic=lambda: now))
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            assert sessions.is_excessive(of_size(5000))
        assert caplog.messages == ["A session without a login is not stored: it has 5000 bytes, more than 4096"]
        now += 61
        assert sessions.is_excessive(of_size(5000))
    assert len(caplog.messages) == 2


def test_another_odoo_is_refused(sessions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sessions.unexpected() == []

    def save(self, session, now):  # type: ignore[no-untyped-def]
        pass

    expected = {**sessions.EXPECTED, "odoo.http.FilesystemSessionStore.save": (save, "(self, session)", ("super().save(session)",))}
    monkeypatch.setattr(sessions, "EXPECTED", expected)
    with pytest.raises(SystemExit, match=r"does not fit this Odoo: .*save takes \(self, session, now\)"):
        sessions.limit_files()
