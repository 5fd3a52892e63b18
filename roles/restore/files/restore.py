# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore an instance into a throw-away copy beside what serves, prove it, or load it into the cluster.

    restore.py sets --instance NAME                       what can be restored
    restore.py plan --instance NAME [TARGET] [--raw]      what a restore would do; changes nothing
    restore.py up --instance NAME [TARGET] [--raw]        make a copy: database, files, neutralised Odoo on an internal network
    restore.py remove --name NAME                         remove a copy
    restore.py drill --instance NAME [TARGET] | --all     make a copy without any network, prove it, keep the evidence, remove it;
                                                          --more: before it, one of an older set or of a moment, by chance
    restore.py load --name NAME --database NEW …          load a copy's database into an empty one of the cluster
    restore.py files --name NAME --data-dir … [--aside …] bring a copy's files beside an instance's, then in their place

TARGET: --set ID | --time TIME | --lsn POSITION; without one the newest set. Answers are JSON on standard output, progress is on standard error.
Runs as root on the host, from playbooks and from a timer alike; config.json beside it says what there is. Needs docker and restic.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import rules
from rules import Refused, Target

HERE = Path(__file__).resolve().parent
POSTGRES, ODOO = 45432, 48069
MANIFEST = "/var/lib/berth/backup/{instance}/manifest.json"
DATA = "/var/lib/postgresql/17"
LABEL = "berth.restore"
READY_TIMEOUT = 3600.0
"""Seconds that replaying WAL may take without end."""

HARDENED = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--log-driver=json-file", "--log-opt=max-size=10m")


class Failed(Exception):
    """A step did not work. The text says which, and what the program said."""


def say(text: str) -> None:
    """Progress, for people and the journal."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str], *, stdin: str | None = None, env: Mapping[str, str] | None = None, what: str = "", timeout: float | None = None
) -> str:
    """Run a program and return what it wrote. Raises Failed."""
    environment = {**os.environ, **env} if env else None
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, errors="replace", env=environment, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise Failed(f"{argv[0]} is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{what or argv[0]} did not end within {timeout:g} s") from error
    if done.returncode != 0:
        words = rules.last_words(done.stderr + "\n" + done.stdout)
        raise Failed(f"{what or argv[0]}: {rules.cause(done.stderr + done.stdout)}{words or 'ended with ' + str(done.returncode)}")
    return done.stdout


def tree_bytes(directory: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(file.lstat().st_size for file in directory.rglob("*") if file.is_file()) if directory.is_dir() else 0


class Site:
    """What config.json says, and the repositories."""

    def __init__(self, file: Path) -> None:
        """Raises Refused: it is not there."""
        try:
            self.config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise Refused(f"{file} does not exist: run berth.odoo.site with backup_repositories") from error
        self.home = file.parent.parent
        self.data_dir = Path(self.config["data_dir"])
        self.evidence_dir = Path(self.config["evidence_dir"])

    def instance(self, name: str) -> dict[str, Any]:
        """Raises Refused: there is none of that name."""
        found: dict[str, Any] | None = self.config["instances"].get(name)
        if found is None:
            raise Refused(f"instance {name!r} is not in odoo_instances, which has {', '.join(self.config['instances']) or 'none'}")
        return found

    def repository(self, name: str) -> dict[str, Any]:
        """The one of a name, or the first one. Raises Refused."""
        known: list[dict[str, Any]] = self.config["repositories"]
        for number, repository in enumerate(known, 1):
            if name in ("", repository["name"]):
                return {**repository, "number": number}
        raise Refused(f"repository {name!r} is not in backup_repositories, which has {', '.join(one['name'] for one in known) or 'none'}")

    def records(self) -> list[dict[str, Any]]:
        """What drills found on this host."""
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(self.evidence_dir.glob("restore-*.json"))]


class Files:
    """The repository of an instance's files: restic."""

    def __init__(self, site: Site, repository: Mapping[str, Any], instance: str) -> None:
        """Nothing is asked yet."""
        self.instance = instance
        base = repository["restic"]
        self.environment = {
            "RESTIC_REPOSITORY": f"{base}/{instance}",
            "RESTIC_PASSWORD_FILE": str(site.home / "secrets/passphrase"),
            "RESTIC_CACHE_DIR": str(site.data_dir / "cache"),
            "RESTIC_PROGRESS_FPS": "0.1",
        }
        for line in (site.home / f"secrets/{repository['name']}.env").read_text(encoding="utf-8").splitlines():
            name, _equals, value = line.partition("=")
            if name.strip():
                self.environment[name] = value
        authority = site.home / f"config/{repository['name']}.crt"
        self.options = [f"--cacert={authority}"] if authority.is_file() and authority.stat().st_size else []

    def call(self, *arguments: str, what: str) -> str:
        """Run restic. Raises Failed."""
        # A repository that another machine locks may be read.
        return run(["restic", "--no-lock", *self.options, *arguments], env=self.environment, what=what)

    @cached_property
    def snapshots(self) -> list[dict[str, Any]]:
        """Every snapshot of the instance."""
        listed = self.call("snapshots", "--json", f"--tag=instance={self.instance}", what="asking restic for the sets")
        found: list[dict[str, Any]] = json.loads(listed) or []
        return found

    def manifest(self, snapshot: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest in a snapshot. Raises Failed."""
        text = self.call(
            "dump", snapshot["id"], MANIFEST.format(instance=self.instance), what=f"reading the manifest of {snapshot['id'][:8]}"
        )
        found: dict[str, Any] = json.loads(text)
        return found

    def size(self, snapshot: Mapping[str, Any]) -> int:
        """Bytes that a snapshot restores to."""
        if summary := snapshot.get("summary"):
            return int(summary["total_bytes_processed"])
        return int(json.loads(self.call("stats", "--json", snapshot["id"], what="asking restic for a size"))["total_size"])

    def restore(self, snapshot: Mapping[str, Any], source: str, directory: Path) -> None:
        """Put the files of a snapshot's directory into another one; what is there already stays. Raises Failed."""
        arguments = ["restore", f"{snapshot['id']}:{source}", f"--target={directory}", "--overwrite=never", "--quiet"]
        self.call(*arguments, what=f"restoring the files of {snapshot['id'][:8]}")


def server_options(site: Site, repository: Mapping[str, Any]) -> list[str]:
    """Options of every container that asks the repository. The host's network: the way to the repository is the one that backups take."""
    mount = repository.get("path") if repository["type"] == "posix" else ""
    return [
        *("--network=host", f"--user={POSTGRES}:{POSTGRES}", *HARDENED, "--tmpfs=/tmp:size=256m,mode=1777", f"--label={LABEL}"),
        *("--pull=never", f"--volume={site.home}/pgbackrest:/etc/pgbackrest:ro"),
        *([f"--volume={mount}:{mount}"] if mount else []),
        # Nothing of this is written to the repository or to files of the container.
        *(
            "--env=PGBACKREST_LOG_LEVEL_FILE=off",
            "--env=PGBACKREST_LOG_LEVEL_CONSOLE=warn",
            "--env=PGBACKREST_LOCK_PATH=/tmp/pgbackrest",
        ),
        *("--env=PGBACKREST_ARCHIVE_ASYNC=n", "--env=PGBACKREST_SPOOL_PATH=/tmp", f"--env=PGBACKREST_PG1_PATH={DATA}"),
    ]


def pgbackrest(site: Site, repository: Mapping[str, Any], arguments: Sequence[str], *, what: str, volumes: Sequence[str] = ()) -> str:
    """Run pgBackRest in a container, for one repository. Raises Failed."""
    argv = ["docker", "run", "--rm", *server_options(site, repository), *volumes, "--entrypoint=pgbackrest", site.config["server_image"]]
    return run([*argv, f"--repo={repository['number']}", *arguments], what=what)


class Job:
    """What to restore: an instance, a target, and what the repositories have for it."""

    def __init__(self, site: Site, instance: str, target: Target, repository: str, image: str) -> None:
        """Ask the repositories. Raises Refused, Failed."""
        self.site, self.name, self.target = site, instance, target
        self.instance = site.instance(instance)
        self.repository = site.repository(repository)
        self.files = Files(site, self.repository, instance)
        if target.kind in ("time", "lsn"):
            # Judged before anything is asked.
            (rules.moment if target.kind == "time" else rules.lsn)(target.value)
        self.snapshots = rules.pick_snapshots(self.files.snapshots, target)
        self.manifest = self.files.manifest(self.snapshots[-1]) if self.snapshots else {}
        if target.kind == "latest":
            self.target = Target("set", self.snapshots[-1]["id"])
        self.set_manifest = self.manifest if self.target.kind == "set" else None
        self.database = str(self.manifest.get("database") or self.instance["database"])
        self.stanza = str(self.manifest.get("stanza") or site.config["stanza"])
        # Not strictly: its messages have line breaks.
        information = json.loads(self.pgbackrest(["info", "--output=json"], what="asking pgBackRest for the backups"), strict=False)
        known = rules.stanza_of(information, self.stanza)
        self.backups: list[dict[str, Any]] = known["backup"]
        self.backup = rules.pick_backup(known, self.target, self.set_manifest)
        self.image = self.find_image(image)

    def pgbackrest(self, arguments: Sequence[str], *, what: str, volumes: Sequence[str] = ()) -> str:
        """Run pgBackRest in a container. Raises Failed."""
        return pgbackrest(self.site, self.repository, [f"--stanza={self.stanza}", *arguments], what=what, volumes=volumes)

    def server_options(self) -> list[str]:
        """Options of every container that asks the repository."""
        return server_options(self.site, self.repository)

    def find_image(self, wanted: str) -> str:
        """The image of Odoo that the set was made with, as this host has it. Raises Refused."""
        recorded = self.manifest.get("image") or {}
        candidates = [wanted] if wanted else [recorded.get("id", ""), recorded.get("reference", "")]
        for candidate in filter(None, candidates):
            found = subprocess.run(
                ["docker", "image", "inspect", "--format={{.Id}}", candidate], capture_output=True, text=True, check=False
            )
            if found.returncode == 0 and (wanted or not recorded.get("id") or found.stdout.strip() == recorded["id"]):
                return found.stdout.strip()
        if wanted:
            raise Refused(f"image {wanted} is not on this host: docker load it, or let berth.odoo.images bring it")
        raise Refused(
            f"the image of the set, {recorded.get('reference')} ({recorded.get('id')}), is not on this host. Load it from the archive or the registry where "
            "images are kept (docs/images.md), or accept another one: -e image=<reference>"
        )

    @property
    def file_bytes(self) -> int:
        """Bytes of the files, at most: what two snapshots share is counted once by neither."""
        return max((self.files.size(snapshot) for snapshot in self.snapshots), default=0)

    @property
    def database_bytes(self) -> int:
        """Bytes of the cluster in the backup."""
        return int(self.backup["info"]["size"])

    @property
    def position(self) -> str:
        """The time that the copy will be of, where it is known before."""
        if self.target.kind == "time":
            return rules.moment(self.target.value).isoformat()
        return str(self.set_manifest["time"]) if self.set_manifest else ""

    def plan(self, *, raw: bool = False) -> dict[str, Any]:
        """What a restore would do, in place of an instance (``raw``) or beside it."""
        self.site.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        copied = rules.needed(self.database_bytes, self.file_bytes)
        # Into the cluster it goes as a dump, and is there a second time; so are the files.
        wanted = rules.needed(self.database_bytes * 3, self.file_bytes * 2) if raw else copied
        free = shutil.disk_usage(self.site.data_dir).free
        now = datetime.now(UTC)
        return {
            "instance": self.name,
            "database": self.database,
            "repository": self.repository["name"],
            "target": " ".join(self.target).strip(),
            "position": self.position,
            "lsn": self.set_manifest["lsn"] if self.set_manifest else self.target.value if self.target.kind == "lsn" else "",
            "system_identifier": str(self.manifest.get("system_identifier", "")),
            "backup": self.backup["label"],
            "sets": [snapshot["id"][:8] for snapshot in self.snapshots],
            "image": self.image,
            "attachments": (self.manifest.get("attachments") or {}).get("location", "files"),
            "needed_bytes": wanted,
            "free_bytes": free,
            "needed": rules.size(wanted),
            "free": rules.size(free),
            "room_problem": rules.room_problem(wanted, free, str(self.site.data_dir)),
            "lost_from": self.position,
            "lost_to": rules.stamp(now),
            "estimated_minutes": rules.estimate(copied, self.site.records()),
        }


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
        self.server, self.odoo, self.network = (f"berth-restore-{name}-{part}" for part in ("postgresql", "odoo", "network"))
        self.steps: dict[str, float] = {}

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
        found = [name for name in (self.odoo, self.server, f"{self.server}-recovery") if self.container_exists(name)]
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
        deadline = time.monotonic() + READY_TIMEOUT
        ready = ["docker", "exec", name, "pg_isready", "--quiet", "--host=/run/postgresql"]
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            running = run(["docker", "inspect", "--format={{.State.Running}}", name]).strip() == "true"
            if not running or time.monotonic() > deadline:
                log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, errors="replace", check=False)
                words = log.stderr + log.stdout
                raise Failed(f"PostgreSQL did not come up from what was restored: {rules.cause(words)}{rules.last_words(words)}")
            time.sleep(0.2)

    def stop_server(self, name: str) -> None:
        """Stop and remove a server's container."""
        run(["docker", "stop", "--time=600", name])
        run(["docker", "rm", "--volumes", name])

    def psql(self, script: str, database: str = "") -> list[Any]:
        """Run a script, all of it or nothing; the JSON documents that its queries gave. Raises Failed."""
        options = [
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            "--host=/run/postgresql",
            "--username=postgres",
        ]
        argv = [
            "docker",
            "exec",
            "--interactive",
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
                job.pgbackrest(["info", f"--set={job.backup['label']}", "--output=json"], what="asking pgBackRest for the backup")
            )
            known = [one["name"] for backup in rules.stanza_of(details, job.stanza)["backup"] for one in backup.get("database-ref") or []]
            only = [job.database] if job.database in known else []
            arguments = ["restore", *rules.restore_arguments(job.target, job.set_manifest, job.backup["label"], only)]
            job.pgbackrest(arguments, what="restoring the database", volumes=self.volumes())
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

    def owner(self, database: str) -> str:
        """The role that Odoo logs in as. In the copy it may, whatever the cluster says."""
        literal = database.replace("'", "''")
        [owner] = self.psql(f"SELECT to_json(pg_get_userbyid(datdba)) FROM pg_database WHERE datname = '{literal}'")  # noqa: S608 - names are quoted
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

    def add_files(self, job: Job) -> None:
        """Take from the instance what was stored after the last set, where this host has it: no set has it yet."""
        if (job.manifest.get("attachments") or {}).get("location", "files") != "files":
            return
        with self.step("files: newer than the sets"):
            kept, copied = Path(job.instance["data_dir"], "filestore", job.database), self.odoo_data / "filestore" / job.database
            for one in self.attachments(job.database):
                source, target = kept / one["name"], copied / one["name"]
                # What is there under the name and not of that content is reported as missing.
                if target.exists() or not source.is_file() or self.digest(source) != one["checksum"]:
                    continue
                run(["install", "-D", f"--owner={ODOO}", f"--group={ODOO}", "--mode=0640", str(source), str(target)])
                for directory in (target.parent, copied, copied.parent):
                    os.chown(directory, ODOO, ODOO)

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
            owner = self.owner(job.database)
            settings = {
                "db_host": "/run/postgresql",
                "db_user": owner,
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
            "address": address,
            "files": figures,
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
            "target": " ".join(job.target).strip(),
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


# --- into the cluster ---------------------------------------------------------------------------------------------------

LOAD = """
set -euo pipefail
docker exec "$1" pg_dump --host=/run/postgresql --username=postgres --format=custom --compress=0 --no-owner --no-privileges --dbname="$2" > "$3/dump"
chown "$4" "$3/dump"
docker run --rm --network=none --user "$4" --volume "$3:/dump:ro" --entrypoint=pg_restore "$5" --list /dump/dump |
  grep -vE '^[0-9]+; [0-9]+ [0-9]+ (EXTENSION|COMMENT - EXTENSION|SCHEMA - public|COMMENT - SCHEMA public)' > "$3/list"
"""


def load(site: Site, copy: Copy, database: str, project: str) -> dict[str, Any]:
    """Load a copy's database into an empty one of the cluster, as the instance's own role. Raises Refused, Failed.

    Args:
        site: this host.
        copy: the copy.
        database: an empty database of the cluster, made from the template that has Odoo's extensions.
        project: Compose project of the instance, whose login and way to the primary are used.
    """
    state = copy.exists()
    home = Path("/opt/berth", project)
    if not (home / "secrets/pg_service.conf").is_file():
        raise Refused(f"{home} is no instance on this host")
    options = dict(
        line.split(" = ", 1) for line in (home / "config/maintenance/odoo.conf").read_text(encoding="utf-8").splitlines() if " = " in line
    )
    scratch = copy.directory / "dump"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    os.chown(scratch, 0, ODOO)
    scratch.chmod(0o750)
    image = site.config["server_image"]
    try:
        with copy.step("load: dump"):
            run(
                ["bash", "-c", LOAD, "load", copy.server, state["database"], str(scratch), f"{ODOO}:{ODOO}", image], what="dumping the copy"
            )
            for name in ("dump", "list"):
                os.chown(scratch / name, 0, ODOO)
                (scratch / name).chmod(0o440)
        with copy.step("load: restore"):
            connection = f"service=odoo host={options['db_host']} port={options['db_port']} dbname={database} sslmode={options.get('db_sslmode', 'prefer')}"
            argv = [
                "docker",
                "run",
                "--rm",
                "--network=berth-data",
                f"--user={ODOO}:{ODOO}",
                *HARDENED,
                "--tmpfs=/tmp:size=64m,mode=1777",
                "--pull=never",
            ]
            argv += [
                f"--volume={home}/secrets:/run/secrets/odoo:ro",
                f"--volume={home}/config/maintenance:/etc/odoo:ro",
                f"--volume={scratch}:/dump:ro",
            ]
            argv += ["--env=PGSERVICEFILE=/run/secrets/odoo/pg_service.conf", "--env=PGSSLROOTCERT=/etc/odoo/ca.crt", f"--label={LABEL}"]
            argv += ["--entrypoint=pg_restore", image, "--no-owner", "--no-privileges", "--exit-on-error", "--use-list=/dump/list"]
            run([*argv, f"--dbname={connection}", "/dump/dump"], what=f"loading the database {database}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"steps": copy.steps, "database": database}


def place_files(copy: Copy, data_dir: Path, database: str, aside: str) -> dict[str, Any]:
    """Bring a copy's files beside an instance's, or put them in their place. Raises Refused.

    Args:
        copy: the copy.
        data_dir: Odoo's data directory of the instance.
        database: the instance's.
        aside: what the instance's are called from then on. Empty: the copy's are brought, which takes time, and nothing is exchanged.
    """
    state = copy.exists()
    target = data_dir / "filestore" / database
    fresh = target.with_name(f"{database}.restoring")
    if not aside:
        source = copy.odoo_data / "filestore" / state["database"]
        shutil.rmtree(fresh, ignore_errors=True)
        if source.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.chown(target.parent, ODOO, ODOO)
            shutil.copytree(source, fresh)
            for path in (fresh, *fresh.rglob("*")):
                os.chown(path, ODOO, ODOO, follow_symlinks=False)
        return {"files": sum(1 for path in fresh.rglob("*") if path.is_file())}
    # Without files in the copy, those of the instance are left: they are in the database, or in S3.
    kept = target.with_name(aside)
    if fresh.is_dir():
        if target.exists():
            target.rename(kept)
        fresh.rename(target)
    return {"kept": str(kept) if kept.is_dir() else ""}


# --- command line -------------------------------------------------------------------------------------------------------


def target_of(options: argparse.Namespace) -> Target:
    """Raises Refused: several were given."""
    given = [Target(kind, value) for kind in ("set", "time", "lsn") if (value := getattr(options, kind))]
    if len(given) > 1:
        raise Refused(f"give one of set, time and lsn, not {' and '.join(one.kind for one in given)}")
    return given[0] if given and given[0].value != "latest" else Target("latest")


def job_of(site: Site, options: argparse.Namespace) -> Job:
    """What was asked for. Raises Refused, Failed."""
    return Job(site, options.instance, target_of(options), options.repository, options.image)


def drill_one(site: Site, options: argparse.Namespace, name: str, target: Target) -> dict[str, Any]:
    """Prove one target of an instance, and keep the evidence. Returns it."""
    copy = Copy(site, f"{name}.drill")
    with copy.locked():
        began = datetime.now(UTC)
        try:
            record = copy.drill(Job(site, name, target, options.repository, options.image), newest=target.kind == "latest")
        except (Failed, Refused) as error:
            # A drill that could not begin is one that failed: whoever needs the backup now cannot begin either.
            found = {"target": " ".join(target).strip()}
            objectives = site.config.get("promises") or {}
            record = rules.evidence(instance=name, began=began, steps=copy.steps, found=found, problems=[str(error)], objectives=objectives)
    site.evidence_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    file = site.evidence_dir / rules.evidence_name(record)
    file.write_text(json.dumps(record, indent=4, sort_keys=True) + "\n", encoding="utf-8")
    file.chmod(0o444)
    for line in rules.lines(record):
        say(line)
    return record


def drill(site: Site, options: argparse.Namespace) -> int:
    """Prove one instance or all of them, with --more also what somebody may want who found a mistake late. Returns the exit code."""
    records = []
    for name in site.config["instances"] if options.all else [options.instance]:
        if options.more:
            # Before the newest one, whose record is then the latest, and which says it when nothing can be asked.
            with contextlib.suppress(Failed, Refused):
                job = Job(site, name, Target("latest"), options.repository, options.image)
                if target := rules.older(job.files.snapshots, job.backups, secrets.SystemRandom()):
                    records.append(drill_one(site, options, name, target))
        records.append(drill_one(site, options, name, target_of(options)))
    kept = all(record["kept"] for record in records)
    print(json.dumps({"kept": kept, "records": records, "lines": [line for record in records for line in rules.lines(record)]}))
    return 0 if kept else 3


def sets(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """What an instance can go back to."""
    site.instance(options.instance)
    files = Files(site, site.repository(options.repository), options.instance)
    ordered = sorted(files.snapshots, key=rules.snapshot_time)
    return {"sets": [{"id": one["id"][:8], "time": rules.stamp(rules.snapshot_time(one)), "bytes": files.size(one)} for one in ordered]}


def unarchived(site: Site, repository: Mapping[str, Any], position: str, segment: str) -> str:
    """Why a position cannot be reached from a backup in a repository; nothing when it can. Raises Refused, Failed."""
    stanza = site.config["stanza"]
    options = [f"--stanza={stanza}", "info", "--output=json"]
    information = json.loads(pgbackrest(site, repository, options, what="asking pgBackRest for the backups"), strict=False)
    backup = rules.pick_backup(rules.stanza_of(information, stanza), Target("lsn", position))
    place = f"archive/{stanza}"
    names = json.loads(pgbackrest(site, repository, ["repo-ls", place, "--recurse", "--output=json"], what="asking pgBackRest for the WAL"))
    history = next((name for name in sorted(names, reverse=True) if name.endswith(f"/{segment[:8]}.history")), "")
    parents = pgbackrest(site, repository, ["repo-get", f"{place}/{history}"], what="reading the history of the WAL") if history else ""
    missing = rules.missing_wal(names, backup["archive"]["start"], segment, parents)
    if not missing:
        return ""
    ranges = ", ".join(first if first == last else f"{first} to {last}" for first, last in missing)
    return (
        f"WAL after the backup {backup['label']} is missing: {ranges}. PostgreSQL's hosts drop it when more than max_slot_wal_keep_size waits. "
        "Nothing after it can be restored until there is a new backup: run berth.odoo.backup"
    )


def archive(site: Site, options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Why the end of a set cannot be reached, by the repository's name: C(missing) WAL, or C(unknown), why nobody could look.

    PostgreSQL does not know: what was dropped counts as archived there.
    """
    found: dict[str, dict[str, str]] = {}
    for number, one in enumerate(site.config["repositories"], 1):
        try:
            found[one["name"]] = {"missing": unarchived(site, {**one, "number": number}, options.lsn, options.segment)}
        except (Refused, Failed) as error:
            found[one["name"]] = {"unknown": " ".join(str(error).split())}
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "config.json")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("archive", "sets", "plan", "up", "drill", "remove", "load", "files"):
        command = commands.add_parser(name)
        command.add_argument("--instance", default="")
        command.add_argument("--name", default="")
        command.add_argument("--repository", default="")
        for option in ("set", "time", "lsn", "segment", "image"):
            command.add_argument(f"--{option}", default="")
        command.add_argument("--raw", action="store_true")
        command.add_argument("--anonymise", action="store_true")
        command.add_argument("--all", action="store_true")
        command.add_argument("--more", action="store_true")
        command.add_argument("--database", default="")
        command.add_argument("--project", default="")
        command.add_argument("--data-dir", type=Path)
        command.add_argument("--aside", default="")
    return parser.parse_args()


def perform(site: Site, options: argparse.Namespace) -> int:
    """Do it and print the answer. Raises Refused, Failed."""
    if options.command == "drill":
        return drill(site, options)
    answer: Any
    if options.command == "archive":
        answer = archive(site, options)
    elif options.command == "sets":
        answer = sets(site, options)
    elif options.command == "plan":
        answer = job_of(site, options).plan(raw=options.raw)
    else:
        copy = Copy(site, options.name or options.instance)
        with copy.locked():
            if options.command == "up":
                answer = copy.up(job_of(site, options), raw=options.raw, anonymise=options.anonymise)
            elif options.command == "remove":
                answer = {"removed": copy.remove()}
            elif options.command == "load":
                answer = load(site, copy, options.database, options.project)
            else:
                answer = place_files(copy, options.data_dir, options.database, options.aside)
    print(json.dumps(answer))
    return 0


def told_to_stop(_number: int, _frame: object) -> None:
    """Turn a signal into an exception. Raises Failed."""
    raise Failed("it was told to stop")


def main() -> int:
    """Command line."""
    options = arguments()
    # Stopped by systemd or by a person, it cleans up as after a failure.
    signal.signal(signal.SIGTERM, told_to_stop)
    try:
        return perform(Site(options.config), options)
    except (Refused, Failed) as error:
        print(re.sub(r"\s+", " ", str(error)), file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
