# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away copy of an instance beside what serves: its database, its files, its Odoo; made, looked at and removed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rules
from rules import Refused
from sources import DATA, HARDENED, LABEL, ODOO, POSTGRES, Failed, Job, Site, as_odoo, run, say

HERE = Path(__file__).resolve().parent
# What is there under the name and not of that content is reported as missing.
ADD = """
umask 027
while read -r name checksum; do
  from=/from/filestore/{database}/$name to=/to/filestore/{database}/$name
  if [ -f "$from" ] && [ "$(sha1sum < "$from")" = "$checksum  -" ]; then
    mkdir -p "${{to%/*}}"
    cp "$from" "$to"
  fi
done
"""
# pg_repack's goes, and with it what maintenance had under way at that moment, or an interrupted one has left: it belongs to no extension, and would be loaded
# without the functions that it is made of. public is there in each database, and what is PostgreSQL's own.
EXTENSIONS = """
DROP EXTENSION IF EXISTS pg_repack CASCADE;
SELECT json_build_object('schema', n.oid::bigint, 'make',
  CASE WHEN nspname ~ '^(pg_|public$)' THEN '' ELSE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION pg_database_owner; ', nspname) END
  || format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I CASCADE;', extname, nspname))
FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace ORDER BY e.oid;
"""
STILL_S = 3600.0
"""Seconds that a server which comes up may be at one and the same thing. All of the WAL may take hours, a segment of it seconds."""
SAID_S = 60.0


def tree_bytes(directory: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(file.lstat().st_size for file in directory.rglob("*") if file.is_file()) if directory.is_dir() else 0


class Copy:
    """A throw-away stack: directory, containers and network of a name."""

    def __init__(self, site: Site, name: str) -> None:
        """Nothing is made. Raises Refused: such a name cannot be one."""
        if not rules.NAME.fullmatch(name):
            raise Refused(f"{name!r} is no name of a copy: 1 to 31 of a-z, 0-9 and '-', starting with a letter")
        self.site, self.name = site, name
        self.directory = site.data_dir / name
        self.data, self.socket, self.settings = (self.directory / part for part in ("postgresql", "socket", "config"))
        self.odoo_data = self.directory / "odoo"
        self.server, self.odoo, self.network, self.carrier = (
            f"berth-restore-{name}-{part}" for part in ("postgresql", "odoo", "network", "objects")
        )
        self.steps: dict[str, float] = {}
        self.login = "postgres"

    # --- one at a time ---

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works on this copy meanwhile. Raises Refused."""
        Path("/run/lock").mkdir(exist_ok=True)
        with Path(f"/run/lock/berth-restore-{self.name}").open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(f"somebody else works on the copy {self.name} just now: wait until that has ended") from error
            yield

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure and say what is done."""
        say(f"{self.name}: {name} …")
        began = time.monotonic()
        try:
            yield
        finally:
            self.steps[name] = self.steps.get(name, 0.0) + time.monotonic() - began
        say(f"{self.name}: {name}: {time.monotonic() - began:.1f} s")

    # --- what is there ---

    @property
    def state(self) -> dict[str, Any]:
        """What was made; empty when there is nothing or it was not finished."""
        try:
            found: dict[str, Any] = json.loads((self.directory / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def exists(self) -> dict[str, Any]:
        """The state of a copy that was finished. Raises Refused."""
        if not (found := self.state):
            raise Refused(f"there is no copy {self.name}: make it first, with berth.odoo.restore")
        return found

    def remove(self) -> list[str]:
        """Remove everything of it, also of one that was interrupted. Returns what was there."""
        found = [name for name in (self.carrier, self.odoo, self.server, f"{self.server}-recovery") if self.container_exists(name)]
        for name in found:
            run(["docker", "rm", "--force", "--volumes", name])
        networks = run(["docker", "network", "ls", "--quiet", f"--filter=name=^{self.network}$"]).split()
        if networks:
            run(["docker", "network", "rm", self.network])
        if self.directory.exists():
            # Its end is not taken for a finished one.
            (self.directory / "state.json").unlink(missing_ok=True)
            shutil.rmtree(self.directory)
            found.append(str(self.directory))
        return found

    @staticmethod
    def container_exists(name: str) -> bool:
        """Whether there is a container of a name, running or not."""
        return bool(run(["docker", "ps", "--all", "--quiet", f"--filter=name=^{name}$"]).strip())

    # --- the database ---

    def prepare(self, job: Job) -> None:
        """Directories and settings. Raises Refused: there is not enough space."""
        plan = job.plan()
        if plan["room_problem"]:
            raise Refused(plan["room_problem"])
        self.directory.mkdir(parents=True, mode=0o700)
        for path, owner, group, mode in (
            (self.data, POSTGRES, POSTGRES, 0o700),
            # The only way to the server; its parents are root's.
            (self.socket, POSTGRES, ODOO, 0o770),
            (self.odoo_data, ODOO, ODOO, 0o750),
            (self.settings, 0, 0, 0o755),
        ):
            path.mkdir()
            os.chown(path, owner, group)
            path.chmod(mode)
        self.set("pg_hba.conf", "local all all trust\n")
        self.set("pg_ident.conf", "")

    def set(self, name: str, text: str) -> None:
        """Write a file of settings, which holds no secret and is read by users of containers."""
        (self.settings / name).write_text(text, encoding="utf-8")
        (self.settings / name).chmod(0o444)

    def volumes(self) -> list[str]:
        """What the server's containers see of it."""
        return [
            f"--volume={self.data}:/var/lib/postgresql",
            f"--volume={self.socket}:/run/postgresql",
            f"--volume={self.settings}:/etc/berth:ro",
            "--shm-size=256m",
        ]

    def offline(self, job: Job, *command: str, what: str) -> str:
        """Run a program of PostgreSQL on the data while no server does. Raises Failed."""
        argv = ["docker", "run", "--rm", "--network=none", f"--user={POSTGRES}:{POSTGRES}", *HARDENED, f"--label={LABEL}", "--pull=never"]
        return run([*argv, *self.volumes(), f"--entrypoint={command[0]}", job.site.config["server_image"], *command[1:]], what=what)

    def start_server(self, job: Job, name: str, options: Sequence[str]) -> None:
        """Start PostgreSQL and wait until it lets somebody in. Raises Failed."""
        control = self.offline(job, "pg_controldata", DATA, what="reading what was restored")
        settings = [part for setting in rules.server_settings(control) for part in ("-c", setting)]
        argv = ["docker", "run", "--detach", f"--name={name}", *options, *self.volumes(), "--stop-signal=SIGINT", "--entrypoint=postgres"]
        run([*argv, job.site.config["server_image"], "-D", DATA, *settings], what="starting PostgreSQL")
        ready = ["docker", "exec", name, "pg_isready", "--quiet", "--host=/run/postgresql"]
        began = moved = said = time.monotonic()
        doing = ""
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            running = run(["docker", "inspect", "--format={{.State.Running}}", name]).strip() == "true"
            # It lets nobody in before the end, so its processes' titles are what there is to see.
            top = subprocess.run(["docker", "top", name, "-eo", "pid,args"], capture_output=True, text=True, errors="replace", check=False)
            now = time.monotonic()
            if (seen := rules.replaying(top.stdout)) != doing:
                moved, doing = now, seen
            if not running or now - moved > STILL_S:
                log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, errors="replace", check=False)
                words = log.stderr + log.stdout
                still = f"{doing or 'nothing'} for {STILL_S / 60:.0f} minutes. " if running else ""
                raise Failed(f"PostgreSQL did not come up from what was restored: {still}{rules.cause(words)}{rules.last_words(words)}")
            if now - said > SAID_S:
                said = now
                say(f"{self.name}: {doing}")
            # Whoever waits for long does not notice seconds, and the processor is wanted for the WAL.
            time.sleep(0.2 if now - began < SAID_S else 5)

    def stop_server(self, name: str) -> None:
        """Stop and remove a server's container."""
        run(["docker", "stop", "--time=600", name])
        run(["docker", "rm", "--volumes", name])

    def psql(self, script: str, database: str = "", *, login: str = "") -> list[Any]:
        """Run a script, all of it or nothing; the JSON documents that its queries gave. Raises Failed.

        In the instance's database as its owner, who could have made functions there that have the names of PostgreSQL's, unless another login is named: it
        sees PostgreSQL's alone.
        """
        options = [
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            "--host=/run/postgresql",
            f"--username={login or (self.login if database else 'postgres')}",
        ]
        argv = [
            "docker",
            "exec",
            "--interactive",
            *(["--env=PGOPTIONS=-c search_path=pg_catalog,pg_temp"] if login else []),
            self.server,
            "psql",
            *options,
            "--single-transaction",
            f"--dbname={database or 'postgres'}",
        ]
        output = run(argv, stdin=script, what="asking the restored database")
        return [json.loads(line) for line in output.splitlines() if line.strip()]

    def restore_database(self, job: Job, *, checksums: bool) -> None:
        """From the repository to a running server without a network. Raises Failed."""
        with self.step("database: restore"):
            # Of all other databases only what PostgreSQL needs to start, where the backup knows this one already.
            details = json.loads(
                job.archive.pgbackrest(["info", f"--set={job.backup['label']}", "--output=json"], what="asking pgBackRest for the backup")
            )
            known = [one["name"] for backup in rules.stanza_of(details, job.stanza)["backup"] for one in backup.get("database-ref") or []]
            only = rules.included(job.database, known)
            arguments = ["restore", *rules.restore_arguments(job.point, job.set_manifest, job.backup, only)]
            job.archive.pgbackrest(arguments, what="restoring the database", volumes=self.volumes())
            # Patroni's, which name files that are not here.
            for name in ("postgresql.conf", "postgresql.base.conf", "patroni.dynamic.json"):
                (self.data / "17" / name).unlink(missing_ok=True)
            (self.data / "17/postgresql.conf").write_text("", encoding="utf-8")
            os.chown(self.data / "17/postgresql.conf", POSTGRES, POSTGRES)
        with self.step("database: replay"):
            recovery = f"{self.server}-recovery"
            self.start_server(job, recovery, job.server_options())
            self.stop_server(recovery)
        if checksums:
            with self.step("database: checksums"):
                self.offline(job, "pg_checksums", "--check", "--pgdata", DATA, what="checking the checksums of the restored database")
        with self.step("database: start"):
            options = ["--network=none", f"--user={POSTGRES}:{POSTGRES}", *HARDENED, "--tmpfs=/tmp:size=256m,mode=1777", f"--label={LABEL}"]
            self.start_server(job, self.server, [*options, "--pull=never", "--memory=2g", "--pids-limit=500"])
        names = self.psql("SELECT json_agg(datname) FROM pg_database")[0]
        if job.database not in names:
            raise Failed(f"the restored cluster has no database {job.database}; it has {', '.join(sorted(names))}")
        self.login = self.owner(job.database)

    def owner(self, database: str) -> str:
        """The role that Odoo logs in as. In the copy it may, whatever the cluster said at that moment: an exchange closes a database for a while."""
        literal = database.replace("'", "''")
        [owner] = self.psql(f"SELECT to_json(pg_get_userbyid(datdba)) FROM pg_database WHERE datname = '{literal}'")  # noqa: S608 - names are quoted
        self.psql(f"ALTER DATABASE {rules.quoted(database)} ALLOW_CONNECTIONS true")
        self.psql(f"ALTER ROLE {rules.quoted(owner)} LOGIN CONNECTION LIMIT -1")
        return str(owner)

    def columns(self, database: str) -> dict[str, dict[str, str]]:
        """Table → column → type."""
        [found] = self.psql(
            "SELECT coalesce(json_object_agg(table_name, names), '{}') FROM (SELECT table_name, json_object_agg(column_name, data_type) AS names"
            " FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name) tables",
            database,
        )
        return dict(found)

    # --- files ---

    def restore_files(self, job: Job) -> None:
        """The filestore of the snapshots beside each other. Raises Failed."""
        if (job.manifest.get("attachments") or {}).get("location", "files") != "files":
            return
        with self.step("files: restore"):
            for snapshot in job.snapshots:
                job.files.restore(snapshot, self.source(job, snapshot), self.odoo_data)
            for path in (self.odoo_data, *self.odoo_data.rglob("*")):
                # Odoo makes neither links nor pipes, and whoever follows them here is root.
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    path.unlink()
                else:
                    os.chown(path, ODOO, ODOO, follow_symlinks=False)

    @staticmethod
    def source(job: Job, snapshot: Mapping[str, Any]) -> str:
        """The directory of the snapshot that is Odoo's data directory."""
        wanted = str(job.instance["data_dir"])
        paths = [str(path) for path in snapshot["paths"]]
        # A snapshot may hold only the filestore; its parents are there all the same.
        if any(path == wanted or path.startswith(f"{wanted}/") or wanted.startswith(f"{path}/") for path in paths):
            return wanted
        found = [path.split("/filestore")[0] for path in paths if "/filestore" in path]
        if not found:
            raise Failed(f"the set {snapshot['id'][:8]} holds {', '.join(paths)}, and not {wanted}")
        return found[0]

    def attachments(self, database: str) -> list[dict[str, Any]]:
        """Every stored file that the database names: ``name`` in the filestore, ``checksum``, ``example`` (an attachment)."""
        [found] = self.psql(
            "SELECT coalesce(json_agg(json_build_object('name', store_fname, 'checksum', checksum, 'example', example)), '[]') FROM (SELECT store_fname,"
            " min(checksum) AS checksum, min(id) AS example FROM ir_attachment WHERE store_fname IS NOT NULL AND store_fname NOT LIKE '%://%'"
            " GROUP BY store_fname ORDER BY store_fname) files",
            database,
        )
        return list(found)

    def stored(self, database: str) -> list[dict[str, Any]]:
        """Every content that is not in the database itself, in S3 and in files: ``name`` (store_fname), ``size``, ``example`` (an attachment)."""
        [found] = self.psql(
            "SELECT coalesce(json_agg(json_build_object('name', store_fname, 'size', size, 'example', example)), '[]') FROM (SELECT store_fname,"
            " max(file_size) AS size, min(id) AS example FROM ir_attachment WHERE store_fname IS NOT NULL GROUP BY store_fname ORDER BY store_fname) files",
            database,
        )
        return list(found)

    def add_files(self, job: Job) -> None:
        """Take from the instance what was stored after the last set, where this host has it: no set has it yet."""
        if (job.manifest.get("attachments") or {}).get("location", "files") != "files":
            return
        with self.step("files: newer than the sets"):
            copied = self.odoo_data / "filestore" / job.database
            wanted = [
                one for one in self.attachments(job.database) if rules.STORED.fullmatch(one["name"]) and not (copied / one["name"]).exists()
            ]
            if wanted and Path(job.instance["data_dir"]).is_dir():
                names = "".join(f"{one['name']} {one['checksum']}\n" for one in wanted)
                volumes = [f"{job.instance['data_dir']}:/from:ro", f"{self.odoo_data}:/to"]
                as_odoo(
                    job.site.config["server_image"], ADD.format(database=job.database), volumes, stdin=names, what="copying newer files"
                )

    @staticmethod
    def digest(file: Path) -> str:
        """What Odoo names a file after. Raises FileNotFoundError."""
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha1").hexdigest()

    def check_files(self, database: str) -> tuple[dict[str, Any], list[str]]:
        """Look at every file that the database names. Returns figures and problems."""
        missing, damaged, total = [], [], 0
        wanted = self.attachments(database)
        for one in wanted:
            file = self.odoo_data / "filestore" / database / one["name"]
            label = f"{one['name']} (attachment {one['example']})"
            if not rules.STORED.fullmatch(one["name"]):
                damaged.append(label)
                continue
            try:
                digest = self.digest(file)
                total += file.stat().st_size
            except FileNotFoundError:
                missing.append(label)
                continue
            if one["checksum"] and digest != one["checksum"]:
                damaged.append(label)
        return {"files": len(wanted), "bytes": total, "missing": len(missing), "damaged": len(damaged)}, rules.file_problems(
            missing, damaged
        )

    # --- Odoo ---

    def odoo_options(self, job: Job, network: str) -> list[str]:
        """Options of Odoo's containers."""
        return [
            *(
                f"--network={network}",
                f"--user={ODOO}:{ODOO}",
                *HARDENED,
                "--tmpfs=/tmp:size=512m,mode=1777",
                f"--label={LABEL}",
                "--pull=never",
            ),
            *(
                "--init",
                "--memory=2g",
                "--pids-limit=200",
                f"--volume={self.settings}:/etc/odoo:ro",
                f"--volume={self.odoo_data}:/var/lib/odoo",
            ),
            *(f"--volume={self.socket}:/run/postgresql", "--env=ODOO_RC=/etc/odoo/odoo.conf", "--entrypoint=odoo", job.image),
        ]

    def neutralise(self, job: Job) -> dict[str, Any]:
        """Take away whatever could reach the world, and prove that it is gone. Raises Failed."""
        with self.step("odoo: neutralise"):
            settings = {
                "db_host": "/run/postgresql",
                "db_user": self.login,
                "db_name": job.database,
                "data_dir": "/var/lib/odoo",
                "list_db": "False",
                "admin_passwd": "",
                "workers": "0",
                "max_cron_threads": "0",
                "http_interface": "0.0.0.0",  # noqa: S104 - in a network of its own
                "proxy_mode": "False",
            }
            text = "".join(f"{name} = {value}\n" for name, value in settings.items())
            self.set("odoo.conf", f"[options]\n{text}")
            before = self.identity(job.database)
            run(["docker", "run", "--rm", *self.odoo_options(job, "none"), "neutralize"], what="neutralising with Odoo's own means")
            columns = self.columns(job.database)
            statements = [*rules.neutralising(columns), *self.site.config.get("neutralise_sql", [])]
            self.psql(";\n".join(statements) + ";", job.database)
            return self.verify(job.database, before)

    def identity(self, database: str) -> dict[str, str]:
        """What makes a database this one to Odoo's services, and its sessions valid; only as digests."""
        [found] = self.psql(
            "SELECT coalesce(json_object_agg(key, md5(value)), '{}') FROM ir_config_parameter WHERE key IN ('database.uuid', 'database.secret')",
            database,
        )
        return dict(found)

    def verify(self, database: str, before: Mapping[str, str]) -> dict[str, Any]:
        """Ask for everything that must not be there. Raises Failed: it is."""
        checks = {**rules.leak_checks(self.columns(database)), **self.site.config.get("verify_sql", {})}
        found = {
            words: int(self.psql(f"SELECT to_json(({question.strip().rstrip(';')}))", database)[0]) for words, question in checks.items()
        }
        left = [f"{number} {words}" if number != 1 or " " in words else words for words, number in found.items() if number]
        left += [f"{key} is still that of the original" for key, value in self.identity(database).items() if before.get(key) == value]
        if left:
            raise Failed(
                f"the copy is not neutralised, and Odoo was not started: {'; '.join(left)}. Own modules need SQL of their own: restore_neutralise_sql"
            )
        return {"checks": len(checks) + len(before)}

    def anonymise(self, job: Job) -> None:
        """Take personal data out of it. Raises Failed."""
        with self.step("odoo: anonymise"):
            self.psql(";\n".join(rules.anonymising(self.columns(job.database), job.instance["login"])) + ";", job.database)

    def boot(self, job: Job, network: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start Odoo and use it. Raises Failed."""
        with self.step("odoo: start"):
            run(["docker", "run", "--detach", f"--name={self.odoo}", *self.odoo_options(job, network)], what="starting Odoo")
            program = (HERE / "probe.py").read_text(encoding="utf-8")
            # The program and what it works with both come in through pipes: arguments can be read by others.
            code = (
                "import io, sys; program, _, request = sys.stdin.read().partition('\\0'); sys.stdin = io.StringIO(request); exec(program)"
            )
            argv = ["docker", "exec", "--interactive", self.odoo, "python3", "-c", code]
            output = run(argv, stdin=f"{program}\0{json.dumps(request)}", what="working in Odoo", timeout=request["timeout"] + 300)
        answer: dict[str, Any] = json.loads(output.splitlines()[-1])
        if answer["error"]:
            log = subprocess.run(["docker", "logs", "--tail=200", self.odoo], capture_output=True, text=True, errors="replace", check=False)
            raise Failed(f"Odoo in the copy: {answer['error']}. Its log: {rules.last_words(log.stderr + log.stdout)}")
        return answer

    def give_password(self, job: Job) -> str:
        """A password of its own for the administrator, in the copy."""
        password = secrets.token_urlsafe(24)
        login = str(job.instance["login"]).replace("'", "''")
        second = ", totp_secret = NULL" if "totp_secret" in self.columns(job.database).get("res_users", {}) else ""
        hashed = rules.password_hash(password, secrets.token_bytes(16))
        [changed] = self.psql(
            f"WITH changed AS (UPDATE res_users SET password = '{hashed}'{second} WHERE login = '{login}' AND active RETURNING id)"  # noqa: S608 - names are quoted
            " SELECT to_json(count(*)) FROM changed",
            job.database,
        )
        if changed != 1:
            raise Failed(f"the restored database has no active user {job.instance['login']}: set odoo_instances.{job.name}.admin_login")
        return password

    # --- the whole ---

    def up(self, job: Job, *, raw: bool, anonymise: bool) -> dict[str, Any]:
        """Make a copy that stays. Raises Refused, Failed; then nothing of it is left."""
        if self.state:
            raise Refused(f"there is a copy {self.name} already, made {self.state['made']}: remove it first, with -e remove=true")
        self.remove()
        self.prepare(job)
        try:
            self.restore_database(job, checksums=True)
            self.restore_files(job)
            self.add_files(job)
            [database_bytes] = self.psql("SELECT to_json(pg_database_size(current_database()))", job.database)
            [objects] = self.psql("SELECT to_json(count(*)) FROM ir_attachment WHERE store_fname LIKE '%://%'", job.database)
            figures: dict[str, Any] = {}
            problems: list[str] = []
            if (job.manifest.get("attachments") or {}).get("location", "files") == "files":
                with self.step("files: check"):
                    figures, problems = self.check_files(job.database)
            address = ""
            if not raw:
                self.neutralise(job)
                if anonymise:
                    self.anonymise(job)
                with self.step("odoo: network"):
                    run(["docker", "network", "create", "--internal", f"--label={LABEL}", self.network])
                self.boot(job, self.network, {"timeout": 300})
                address = run(["docker", "inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.odoo]).strip()
        except (Failed, Refused):
            self.remove()
            raise
        state = {
            "made": rules.stamp(datetime.now(UTC)),
            "instance": job.name,
            "database": job.database,
            "raw": raw,
            "anonymised": anonymise,
            "plan": job.plan(),
            "database_bytes": database_bytes,
            "extensions": self.psql(EXTENSIONS, job.database, login="postgres"),
            "address": address,
            "files": figures,
            # Of attachments in S3, which are not in the copy.
            "objects": objects,
            "problems": problems,
            "steps": self.steps,
        }
        scratch = self.directory / "state.new"
        scratch.write_text(json.dumps(state, indent=1), encoding="utf-8")
        scratch.rename(self.directory / "state.json")
        return state

    def drill(self, job: Job, *, newest: bool) -> dict[str, Any]:
        """Make a copy without a network, look at everything, remove it. Returns the evidence. Raises Refused: it cannot be tried."""
        began = datetime.now(UTC)
        found: dict[str, Any] = {
            "target": job.words,
            "backup": job.backup["label"],
            "repository": job.repository["name"],
            "image": job.image,
            "position": job.position,
            "sets": [snapshot["id"][:8] for snapshot in job.snapshots],
        }
        problems: list[str] = []
        self.remove()
        try:
            self.prepare(job)
            self.restore_database(job, checksums=True)
            self.restore_files(job)
            [found["database_bytes"]] = self.psql("SELECT to_json(sum(pg_database_size(oid))) FROM pg_database")
            found["file_bytes"] = tree_bytes(self.odoo_data)
            if not found["position"]:
                [found["position"]] = self.psql(
                    "SELECT to_json(max(write_date) AT TIME ZONE 'UTC') FROM (SELECT write_date FROM res_users UNION ALL SELECT write_date FROM ir_cron"
                    " UNION ALL SELECT create_date FROM res_users_log) dates",
                    job.database,
                )
            with self.step("database: amcheck"):
                argv = [
                    "pg_amcheck",
                    "--host=/run/postgresql",
                    "--username=postgres",
                    "--install-missing",
                    "--heapallindexed",
                    job.database,
                ]
                try:
                    run(["docker", "exec", self.server, *argv], what="pg_amcheck")
                except Failed as failure:
                    problems.append(f"the restored database is damaged: {failure}")
            with self.step("database: rows"):
                wanted = dict(job.set_manifest.get("rows") or {}) if job.set_manifest else {}
                found["rows"] = self.count(job.database, list(wanted))
                problems += rules.row_problems(wanted, found["rows"], exact=bool(job.manifest.get("exact")))
                [invalid] = self.psql(
                    "SELECT coalesce(json_agg(indexrelid::regclass), '[]') FROM pg_index WHERE NOT indisvalid", job.database
                )
                problems += [f"the index {name} is not valid" for name in invalid]
            if (job.manifest.get("attachments") or {}).get("location", "files") == "files":
                with self.step("files: check"):
                    found["files"], broken = self.check_files(job.database)
                    problems += broken
            else:
                found["files"] = f"not in the set: {job.manifest['attachments']['location']}"
            found["neutralised"] = self.neutralise(job)
            password = self.give_password(job)
            found["odoo"] = self.boot(job, "none", {"login": job.instance["login"], "password": password, "timeout": 300})
        except Failed as failure:
            problems.append(str(failure))
        finally:
            with self.step("remove"):
                self.remove()
        removal = self.steps.pop("remove")
        record = rules.evidence(
            instance=job.name,
            began=began,
            steps=self.steps,
            found=found,
            problems=problems,
            # How much would be lost now is a matter of the newest one.
            objectives={name: value for name, value in (self.site.config.get("promises") or {}).items() if newest or name != "rpo_minutes"},
        )
        return {**record, "removed_s": round(removal, 1)}

    def count(self, database: str, tables: Sequence[str]) -> dict[str, int]:
        """Rows of tables that are there."""
        there = self.columns(database)
        return {
            table: int(self.psql(f"SELECT to_json(count(*)) FROM {rules.quoted(table)}", database)[0])  # noqa: S608 - names are quoted
            for table in tables
            if table in there
        }
