# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load on a platform and an account of what it felt: writers, users who are logged in, questions to every database member.

    probe.py run                 until SIGTERM; then looks for every acknowledged write, cleans up and prints one JSON summary
    probe.py state               print what it sees now, as JSON
    probe.py wait [options]      wait for the platform to be as it should be

`run` reads config.json beside this file and its passwords from files. Runs where psycopg2 is: in Odoo's image, and as a writer beside
the primary in PostgreSQL's.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measures

HERE = Path(__file__).resolve().parent
DATA = Path("/var/lib/drill")  # survives the container
STATE = Path("/tmp/state.json")  # noqa: S108, a tmpfs of the container's own
READY = Path("/tmp/ready")  # noqa: S108
PASSWORD = Path("/run/secrets/drill/password")
SCHEMA = "berth_drill"
REST_PORT = 8008
SERVER_NAME = "postgresql"  # the name that every member's certificate has
CSRF = re.compile(r'name="csrf_token"\s+value="([^"]+)"')
PATIENCE = 120.0  # seconds for an HTTP answer; Odoo ends a worker that takes longer
WRITE_PAUSE = 0.02
POLL_PAUSE = 0.1
AFTER_ERROR = 0.1
FRESH = 1.0  # seconds; a path without an acknowledged write for longer is not well


class Refused(Exception):
    """The platform is not fit for a drill, or the probe's own login is not."""


class Journal:
    """Events as JSON lines, for people who want to know more than the summary."""

    def __init__(self, path: Path) -> None:
        """Begin a new one."""
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def note(self, kind: str, **facts: Any) -> None:
        """Write one event with the time."""
        line = json.dumps({"time": round(time.time(), 4), "event": kind, **facts}, separators=(",", ":"))
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._file.close()


class Writer:
    """Inserts a row, waits a moment, inserts the next, and remembers what was acknowledged."""

    def __init__(self, probe: Probe, path: str, number: int) -> None:
        """``path`` is a key of the configuration's paths."""
        self.probe = probe
        self.path = path
        self.name = f"{path}-{number}"
        self.acknowledged: list[tuple[int, float]] = []
        self.errors = 0

    def run(self) -> None:
        """Write until told to stop."""
        connection = None
        row = 0
        while not self.probe.stopping.wait(WRITE_PAUSE):
            row += 1  # never again after an error: nobody knows whether that row is there
            sent = time.time()
            try:
                if connection is None:
                    connection = self.probe.connect(self.path)
                with connection.cursor() as cursor:
                    cursor.execute(f"INSERT INTO {SCHEMA}.writes (writer, number) VALUES (%s, %s)", (self.name, row))  # noqa: S608, a constant
                received = time.time()
            except self.probe.database_error as error:
                self.errors += 1
                self.probe.journal.note(
                    "write failed", writer=self.name, row=row, sent=round(sent, 4), why=" ".join(str(error).split())[:200]
                )
                connection = _closed(connection)
                self.probe.stopping.wait(AFTER_ERROR)
                continue
            self.acknowledged.append((row, received))
            self.probe.journal.note("write", writer=self.name, row=row, sent=round(sent, 4))
        _closed(connection)


class User:
    """Somebody who is logged in to Odoo, and reads, writes and loads pages in turn."""

    def __init__(self, probe: Probe, number: int) -> None:
        """Not logged in yet."""
        self.probe = probe
        self.name = f"user-{number}"
        self.address = urllib.parse.urlsplit(probe.config["url"])
        self.session = ""
        self.partner = 0
        self.requests: list[measures.Request] = []
        self.ready = threading.Event()

    def run(self) -> None:
        """Work until told to stop; log in again after a logout, as a person would."""
        step = 0
        while not self.probe.stopping.is_set():
            if not self.session:
                self._attempt(self.log_in)
            elif not self.partner:
                self._attempt(self.make_partner)
            else:
                self.ready.set()
                self._attempt((self.read, self.write, self.load_page)[step % 3])
                step += 1
            self.probe.stopping.wait(self.probe.config["user_pause_s"])

    def _attempt(self, action: Callable[[], tuple[str, str]]) -> None:
        sent = time.time()
        try:
            verdict, words = action()
        except (OSError, http.client.HTTPException) as error:
            verdict, words = "failed", f"{type(error).__name__}: {error}"
        request = measures.Request(sent, time.time() - sent, verdict, f"{action.__name__}: {words}" if words else "")
        self.requests.append(request)
        self.probe.journal.note("request", user=self.name, what=action.__name__, **request._asdict())
        if verdict == "logout":
            self.session = ""
        if verdict != "ok":
            self.probe.stopping.wait(AFTER_ERROR)

    def exchange(self, method: str, path: str, body: str | None = None, kind: str = "application/json") -> tuple[int, str, str]:
        """Return status, location and body of an answer."""
        connection = http.client.HTTPConnection(self.address.hostname or "", self.address.port or 80, timeout=PATIENCE)
        try:
            headers = {"Cookie": f"session_id={self.session}"} if self.session else {}
            if body is not None:
                headers["Content-Type"] = kind
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _sign, value = cookie.split(";")[0].partition("=")
            if name == "session_id" and value:
                self.session = value
        return answer.status, answer.headers.get("Location") or "", text

    def log_in(self) -> tuple[str, str]:
        """Log in through the form, as a person does."""
        status, location, page = self.exchange("GET", "/web/login")
        token = CSRF.search(page)
        if status != 200 or not token:
            self.session = ""
            return "failed", f"/web/login answered {status} {location}, no form"
        form = {"csrf_token": token[1], "login": self.probe.config["login"], "password": self.probe.password, "redirect": "/odoo"}
        status, location, page = self.exchange("POST", "/web/login", urllib.parse.urlencode(form), "application/x-www-form-urlencoded")
        if status == 303 and "/web/login" not in location:
            return "ok", ""
        self.session = ""
        return "failed", f"the login of {self.probe.config['login']} was answered with {status} {location}, expected a redirect into Odoo"

    def call(self, method: str, *arguments: Any) -> tuple[str, str, Any]:
        """Call a method of the partner model; return verdict, words and result."""
        model = "res.partner"
        parameters = {"model": model, "method": method, "args": list(arguments), "kwargs": {}}
        body = json.dumps({"jsonrpc": "2.0", "method": "call", "params": parameters})
        status, _location, text = self.exchange("POST", f"/web/dataset/call_kw/{model}/{method}", body)
        verdict, words = measures.judge_call(status, text)
        return verdict, words, json.loads(text)["result"] if verdict == "ok" else None

    def make_partner(self) -> tuple[str, str]:
        """Create the record that this user works on; archived, so that nobody sees it."""
        verdict, words, result = self.call("create", [{"name": f"{SCHEMA} {self.name}", "active": False}])
        if verdict == "ok":
            self.partner = result[0]
        return verdict, words

    def read(self) -> tuple[str, str]:
        """Read the record."""
        return self.call("read", [self.partner], ["name", "comment"])[:2]

    def write(self) -> tuple[str, str]:
        """Change the record."""
        return self.call("write", [self.partner], {"comment": f"{time.time()}"})[:2]

    def load_page(self) -> tuple[str, str]:
        """Load the web client; Odoo ends the login of somebody who does this while the database is away."""
        status, location, _body = self.exchange("GET", "/odoo")
        return measures.judge_page(status, location)

    def leave(self) -> str:
        """Remove the record; return what went wrong."""
        if not self.partner:
            return ""
        try:
            verdict, words, _result = self.call("unlink", [self.partner])
        except (OSError, http.client.HTTPException) as error:
            verdict, words = "failed", str(error)
        return "" if verdict == "ok" else f"partner {self.partner} of {self.name} was not removed: {words}"


class Member:
    """One database member, asked again and again whether it is the primary."""

    def __init__(self, probe: Probe, name: str, address: str) -> None:
        """``address`` as this container reaches it."""
        self.probe = probe
        self.name = name
        self.address = address
        self.polls: list[measures.Poll] = []

    @property
    def last(self) -> measures.Poll | None:
        """The last answer."""
        return self.polls[-1] if self.polls else None

    def get(self, path: str, timeout: float = 2.0) -> tuple[int, str]:
        """Return status and body of an answer of Patroni's REST API."""
        connection = _RestConnection(self.address, self.probe.context, timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def run(self) -> None:
        """Ask until told to stop."""
        before = -1
        while not self.probe.stopping.is_set():
            sent = time.time()
            try:
                status = self.get("/primary")[0]
            except (OSError, http.client.HTTPException):
                status = 0
            poll = measures.Poll(sent, time.time(), status)
            self.polls.append(poll)
            if status != before:
                self.probe.journal.note("member", member=self.name, status=status, sent=round(sent, 4))
                before = status
            self.probe.stopping.wait(max(0.0, POLL_PAUSE - (poll.received - sent)))


class _RestConnection(http.client.HTTPConnection):
    """An HTTPS connection to an address whose certificate is for another name."""

    def __init__(self, address: str, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(address, REST_PORT, timeout=timeout)
        self._context = context

    def connect(self) -> None:
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=SERVER_NAME)


class Probe:
    """Everything together."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Read what was given; nothing is touched yet."""
        # Not at the top: `state` and `wait` do without, and start the quicker.
        import psycopg2

        self.driver = psycopg2
        self.database_error = psycopg2.Error
        self.config = config
        self.password = PASSWORD.read_text(encoding="utf-8") if config["users"] else ""
        self.context = ssl.create_default_context(cafile=str(HERE / "ca.crt"))
        self.stopping = threading.Event()
        self.terminated = threading.Event()
        self.journal = Journal(DATA / "events.jsonl")
        self.members = [Member(self, name, address) for name, address in config["members"].items()]
        self.writers = [Writer(self, path, number) for path, place in config["paths"].items() for number in range(place["writers"])]
        self.users = [User(self, number) for number in range(config["users"])]
        self.threads: list[threading.Thread] = []
        self.warm = self.start = 0.0

    def connect(self, path: str) -> Any:
        """Return a connection that commits each statement."""
        place = self.config["paths"][path]
        connection = self.driver.connect(
            dbname=self.config["database"],
            user=self.config["user"],
            connect_timeout=5,
            application_name="berth-drill",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            **place["connection"],
        )
        connection.autocommit = True
        return connection

    # --- the way through a drill ---

    def run(self) -> dict[str, Any]:
        """Refuse, warm up, wait for the end, account."""
        if self.config["leads"]:
            problems = measures.cluster_problems(self.cluster(), self.config["members"])
            if problems:
                raise Refused(f"the cluster is not fit for a drill: {'; '.join(problems)}")
            self.make_schema()
        self.begin()
        try:
            self.warm_up()
            self.watch()
        finally:
            end = time.time()
            left = self.finish()
        try:
            summary = self.account(end)
        finally:
            if self.config["leads"]:
                self.drop_schema()
        return {**summary, "left_behind": left}

    def make_schema(self) -> None:
        """Make the table anew; an interrupted drill may have left one."""
        path = next(iter(self.config["paths"]))
        try:
            with contextlib.closing(self.connect(path)) as connection, connection.cursor() as cursor:
                cursor.execute(
                    f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}; "
                    f"CREATE TABLE {SCHEMA}.writes (writer text, number int, at timestamptz DEFAULT now(), PRIMARY KEY (writer, number))"
                )
        except self.database_error as error:
            raise Refused(f"the database {self.config['database']} cannot be written to by way of {path}: {error}") from error

    def drop_schema(self) -> None:
        """Remove the table."""
        with contextlib.closing(self.connect(next(iter(self.config["paths"])))) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")

    def begin(self) -> None:
        """Start every thread."""
        targets = [*(one.run for one in self.members), *(one.run for one in self.writers), *(one.run for one in self.users)]
        self.threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self.threads:
            thread.start()

    def warm_up(self) -> None:
        """Wait until everything works, and some seconds more to know what is usual."""
        deadline = time.monotonic() + self.config["warm_up_timeout_s"]
        while not self.terminated.is_set():
            problems = self.problems() + [f"{user.name} is not logged in: {_last(user)}" for user in self.users if not user.ready.is_set()]
            if not problems:
                break
            if time.monotonic() > deadline:
                raise Refused(f"not everything works after {self.config['warm_up_timeout_s']} s: {'; '.join(problems)}")
            time.sleep(0.2)
        self.warm = time.time()
        self.terminated.wait(self.config["warm_up_s"])
        self.start = time.time()
        self.journal.note("ready")

    def watch(self) -> None:
        """Say every half a second how things are, until told to stop, or for so long that whoever started the drill must be gone."""
        deadline = time.monotonic() + self.config["lifetime_s"]
        while not self.terminated.is_set() and time.monotonic() < deadline:
            state = {"time": time.time(), "primary": self.primary(), "problems": self.problems()}
            scratch = STATE.with_suffix(".new")
            scratch.write_text(json.dumps(state), encoding="utf-8")
            scratch.replace(STATE)
            READY.touch()
            self.terminated.wait(0.5)

    def finish(self) -> list[str]:
        """Stop every thread, let requests under way end, and remove what the users made."""
        self.stopping.set()
        deadline = time.monotonic() + PATIENCE / 2
        for thread in self.threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self.threads)
        left = [words for words in (user.leave() for user in self.users) if words]
        return [*left, *([f"{stuck} writer(s) or user(s) were still waiting for an answer"] if stuck else [])]

    def account(self, end: float) -> dict[str, Any]:
        """Look for every acknowledged row and return the summary."""
        path = next(iter(self.config["paths"]))
        wanted = {(writer.name, row) for writer in self.writers for row, _time in writer.acknowledged}
        missing = wanted - self.rows(path)
        deadline = time.monotonic() + 30
        # Beside what was the primary there may be a standby now, which repeats what it has received a moment later.
        while missing and time.monotonic() < deadline:
            time.sleep(1)
            missing = wanted - self.rows(path)
        for writer, row in sorted(missing):
            self.journal.note("lost", writer=writer, row=row)
        writes: dict[str, list[float]] = {name: [] for name in self.config["paths"]}
        errors = dict.fromkeys(self.config["paths"], 0)
        for writer in self.writers:
            writes[writer.path] += [received for _row, received in writer.acknowledged]
            errors[writer.path] += writer.errors
        return {
            **measures.summarise(
                writes=writes,
                errors=errors,
                lost=len(missing),
                requests=[request for user in self.users for request in user.requests],
                polls={member.name: member.polls for member in self.members},
                warm=self.warm,
                start=self.start,
                end=end,
            ),
            **(self.versions(path) if self.config["leads"] else {}),
        }

    def rows(self, path: str) -> set[tuple[str, int]]:
        """Every row that is there."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with contextlib.closing(self.connect(path)) as connection, connection.cursor() as cursor:
                    cursor.execute(f"SELECT writer, number FROM {SCHEMA}.writes")  # noqa: S608, a constant
                    return set(cursor.fetchall())
            except self.database_error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    # --- what it sees ---

    def ask(self, path: str) -> Any:
        """Return an answer of the first member that gives one, None when nobody does."""
        # First those that answered last time: each of the others costs a timeout.
        for member in sorted(self.members, key=lambda one: not (one.last and one.last.status)):
            try:
                status, body = member.get(path)
                if status == 200:
                    return json.loads(body)
            except (OSError, http.client.HTTPException, ValueError):
                continue
        return None

    def cluster(self) -> dict[str, Any] | None:
        """Patroni's description of the cluster."""
        found = self.ask("/cluster")
        return found if isinstance(found, dict) else None

    def primary(self) -> str:
        """Name of the member that says to be the primary; empty when nobody does."""
        return next((member.name for member in self.members if member.last and member.last.status == measures.PRIMARY), "")

    def problems(self) -> list[str]:
        """Everything that is not as it should be now."""
        now = time.time()
        found = []
        if self.config["leads"]:
            found += measures.view_problems({member.name: member.last for member in self.members}, now)
            found += measures.cluster_problems(self.cluster(), self.config["members"])
        for path in self.config["paths"]:
            last = max((writer.acknowledged[-1][1] for writer in self.writers if writer.path == path and writer.acknowledged), default=0.0)
            if now - last > FRESH:
                found.append(f"no write is acknowledged on the path {path}")
        return found

    def versions(self, path: str) -> dict[str, Any]:
        """What the measurement was made of, and the timers that decide how long a failover takes."""
        with contextlib.closing(self.connect(path)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            postgresql = cursor.fetchone()[0].split()[0]
        config = self.ask("/config") or {}
        patroni = (self.ask("/patroni") or {}).get("patroni", {})
        timers = {name: config.get(name) for name in ("ttl", "loop_wait", "retry_timeout", "primary_start_timeout", "synchronous_mode")}
        odoo = ""
        if self.users:
            status, _location, text = self.users[0].exchange("POST", "/web/webclient/version_info", '{"jsonrpc": "2.0", "params": {}}')
            odoo = json.loads(text).get("result", {}).get("server_version", "") if status == 200 else ""
        return {"versions": {"postgresql": postgresql, "patroni": patroni.get("version", ""), "odoo": odoo}, "timers": timers}


def _closed(connection: Any) -> None:
    """Close a connection that may be broken."""
    if connection is not None:
        with contextlib.suppress(Exception):
            connection.close()


def _last(user: User) -> str:
    return next((request.words for request in reversed(user.requests) if request.words), "no answer yet")


def run() -> int:
    """The command run."""
    for file in (DATA / "summary.json", STATE, READY):
        file.unlink(missing_ok=True)
    probe = Probe(json.loads((HERE / "config.json").read_text(encoding="utf-8")))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: probe.terminated.set())
    try:
        summary = probe.run()
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return 3
    finally:
        probe.journal.close()
    text = json.dumps(summary)
    scratch = DATA / "summary.new"
    scratch.write_text(text + "\n", encoding="utf-8")
    scratch.replace(DATA / "summary.json")
    print(text)
    return 0


def state() -> dict[str, Any]:
    """What the running probe said last."""
    found: dict[str, Any] = json.loads(STATE.read_text(encoding="utf-8"))
    age = time.time() - found["time"]
    if age > 10:
        found["problems"].append(f"the probe has said nothing for {age:.0f} s")
    return found


def wait(options: argparse.Namespace) -> int:
    """The command wait: for the platform to be well for some seconds in a row, or for somebody else to lead."""
    began = time.monotonic()
    well_since: float | None = None
    now: dict[str, Any] = {}
    while time.monotonic() - began < options.timeout:
        now = state()
        if options.other_than:
            well = bool(now["primary"]) and now["primary"] != options.other_than and not any("no write" in text for text in now["problems"])
        else:
            well = not now["problems"]
        well_since = (well_since or time.monotonic()) if well else None
        held = time.monotonic() - began >= options.at_least
        if held and well_since is not None and time.monotonic() - well_since >= options.stable:
            print(json.dumps({"primary": now["primary"], "seconds": round(well_since - began, 1)}))
            return 0
        time.sleep(0.25)
    print(f"after {options.timeout:g} s: {'; '.join(now.get('problems', [])) or 'nobody else leads'}", file=sys.stderr)
    return 4


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run")
    commands.add_parser("state")
    waiting = commands.add_parser("wait")
    waiting.add_argument("--timeout", type=float, default=300, help="seconds")
    waiting.add_argument("--at-least", type=float, default=0, help="seconds to wait in any case")
    waiting.add_argument("--stable", type=float, default=3, help="seconds for which all must have been well")
    waiting.add_argument("--other-than", default="", help="be content when a member other than this one leads and writes are acknowledged")
    options = parser.parse_args()
    if options.command == "run":
        return run()
    if options.command == "state":
        print(json.dumps(state()))
        return 0
    return wait(options)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
