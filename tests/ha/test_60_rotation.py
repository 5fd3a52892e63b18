# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database passwords are replaced while users ask ten times a second: nobody notices, also when it stops in the middle."""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ansible_collections.berth.odoo.tests.support.lab import PLACES, ansible, environment, seen, wait_for
from ansible_collections.berth.odoo.tests.support.odoo import Odoo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

pytestmark = pytest.mark.nightly

ROTATE = "playbooks/rotate_secrets.yml"
INTERVAL = 0.1
"""Seconds between two requests."""


def secrets_file(lab: Lab) -> Path:
    return lab.directory / "inventory/group_vars/all/secrets.yml"


def stored(lab: Lab) -> dict[str, str]:
    """What the file says of the instance now."""
    argv = [*ansible("ansible-vault"), "view", "--vault-password-file", str(lab.vault_password_file), str(secrets_file(lab))]
    text = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = yaml.safe_load(text)["odoo_instance_secrets"]["main"]
    return found


def rotate(play: Player, **arguments: Any) -> Run:
    return play(ROTATE, variables={"secrets_file": str(secrets_file(play.lab))}, **arguments)


def logs_in(host: Host, user: str, password: str) -> list[str]:
    """The servers that take a password."""
    found = []
    for server in ("pgbouncer:6432", "pgbouncer-session:6433", "postgresql-primary:5432"):
        name, port = server.split(":")
        inside = f'IFS= read -r PGPASSWORD; export PGPASSWORD; psql -XAtq "host={name} port={port} user={user} dbname=main" -c "SELECT current_user" 2>&1'
        answer = host.run(f"docker exec -i pgbouncer-pgbouncer-1 sh -c {shlex.quote(inside)} || true", stdin=password + "\n").strip()
        if answer == "main":
            found.append(server)
        else:
            assert "authentication failed" in answer, answer
    return found


class Load:
    """Users that each do what needs the database, ten times a second together."""

    def __init__(self, users: list[Odoo]) -> None:
        self.users, self.stop = users, threading.Event()
        self.answers: list[tuple[float, str]] = []

    def work(self, user: Odoo, number: int) -> None:
        made = user.call("res.partner", "create", {"name": "berth rotation"})
        partner = made if isinstance(made, list) else [made]
        while not self.stop.wait(INTERVAL * len(self.users)):
            began = time.monotonic()
            try:
                user.call("res.partner", "write", partner, {"comment": f"<p>{began}</p>"})
                result = "ok"
            except (AssertionError, OSError, ValueError) as error:
                result = f"user {number} after {time.monotonic() - began:.1f} s: {error}"
            self.answers.append((time.monotonic() - began, result))

    @contextmanager
    def running(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self.work, args=(user, number), daemon=True) for number, user in enumerate(self.users)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(timeout=60)

    @property
    def failures(self) -> list[str]:
        return [result for _seconds, result in self.answers if result != "ok"]


@pytest.fixture(scope="module", autouse=True)
def secrets_before(lab: Lab) -> dict[str, str]:
    """The passwords that are rotated here."""
    return {f"{name} of before": value for name, value in stored(lab).items() if name != "db_user"}


@pytest.fixture(scope="module")
def users(lab: Lab, host: Host) -> list[Odoo]:
    found = [Odoo(f"https://{host.address}", lab.ca) for _ in range(4)]
    found[0].wait_until_up()
    for user in found:
        user.log_in("admin", host.variables["odoo_instance_secrets"]["main"]["admin_password"])
    return found


def test_a_wrong_vault_password_or_half_a_platform_changes_nothing(lab: Lab, host: Host, play: Player, tmp_path: Path) -> None:
    before, file = host.state(), secrets_file(lab).read_bytes()
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password\n")
    rotate(play, vault_password_file=wrong).expect_refusal("Decryption failed")
    for arguments in (["--limit", "db1,db2,db3"], ["--tags", "database"]):
        variables = {"secrets_file": str(secrets_file(lab))}
        play(ROTATE, *arguments, variables=variables).expect_refusal("nothing was changed. A rotation concerns all hosts and tiers")
    assert (host.state(), secrets_file(lab).read_bytes()) == (before, file)


def test_nobody_notices_and_an_interrupted_one_goes_on(lab: Lab, host: Host, play: Player, users: list[Odoo]) -> None:
    old = stored(lab)
    user = old.get("db_user", "main")
    other = {"main": "main_login2", "main_login2": "main"}[user]
    assert len(logs_in(host, user, old["db_password"])) == 3
    with Load(users).running() as load:
        wait_for("requests", lambda: len(load.answers) > 20, seconds=60)
        # The controller dies when the roles are there and the poolers know nothing of them.
        rotate(play, kill_at="Converge PgBouncer")
        begun = stored(lab)
        assert begun.keys() - old.keys() == {"db_password_next"}
        assert len(logs_in(host, user, old["db_password"])) == 3
        run = rotate(play).expect_success()
    new = stored(lab)
    assert new == {**old, "db_user": other, "db_password": begun["db_password_next"]}
    assert new["db_password"] not in run.output
    slowest = max(seconds for seconds, _result in load.answers)
    play.say(f"{len(load.answers)} requests, {len(load.failures)} failed, slowest {slowest:.1f} s")
    assert load.failures == []
    assert len(load.answers) > 100
    assert logs_in(host, other, new["db_password"]) == ["pgbouncer:6432", "pgbouncer-session:6433", "postgresql-primary:5432"]
    assert logs_in(host, user, old["db_password"]) == []


def test_what_the_second_login_makes_belongs_to_the_first(lab: Lab, host: Host) -> None:
    """Also in a server connection that another client has used before."""
    secrets = stored(lab)
    statements = "CREATE TABLE x_owner (); SELECT tableowner FROM pg_tables WHERE tablename = 'x_owner'; DROP TABLE x_owner"
    psql = f"psql -XAtq 'host=pgbouncer-session port=6433 user={secrets.get('db_user', 'main')} dbname=main' -c {shlex.quote(statements)}"
    for _ in range(2):
        command = f"docker exec -i pgbouncer-pgbouncer-1 sh -c {shlex.quote(f'IFS= read -r PGPASSWORD; export PGPASSWORD; {psql}')}"
        assert host.run(command, stdin=secrets["db_password"] + "\n").split() == ["main"]


def test_neither_the_old_nor_the_new_passwords_lie_anywhere(lab: Lab, secrets_before: dict[str, str]) -> None:
    """Also not in what drills and patches have left."""
    looked_for = {
        **lab.secrets(),
        **{f"{name} of now": value for name, value in stored(lab).items() if name != "db_user"},
        **secrets_before,
    }
    for name, host in lab.hosts.items():
        assert {place: found for place in PLACES if (found := seen(host, looked_for, place))} == {}, name
