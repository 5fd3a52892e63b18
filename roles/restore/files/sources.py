# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host and what its repositories have for a restore: databases in pgBackRest's, files in restic's, and which of them a target needs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import rules
from rules import Ending, Refused, Target

POSTGRES, ODOO = 45432, 48069
ODOO_DATA = "/var/lib/odoo"
"""Odoo's data directory in its containers."""
DATA = "/var/lib/postgresql/17"
LABEL = "berth.restore"
LOCKS = Path("/run/lock")
YOUNG_S = 1800.0
"""Seconds within which the program that makes a set looks for the set's WAL by itself."""

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


def as_odoo(image: str, script: str, volumes: Sequence[str], *, stdin: str = "", what: str) -> str:
    """Run a shell script on files that an instance can change, as its user and where nothing else can be reached. Raises Failed.

    What looks like a file of it may lead elsewhere, or be made to, while it is looked at.
    """
    argv = [
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--network=none",
        f"--user={ODOO}:{ODOO}",
        *HARDENED,
        "--pull=never",
        f"--label={LABEL}",
    ]
    argv += [*(f"--volume={volume}" for volume in volumes), "--entrypoint=bash", image, "-euc", script]
    return run(argv, stdin=stdin, what=what)


def data_dir(instance: str) -> str:
    """Odoo's data directory of an instance on this host, empty where it is not on it. Raises Failed."""
    file = Path("/opt/berth", f"odoo-{instance}", "compose.yml")
    if not file.is_file():
        return ""
    found = json.loads(run(["docker", "compose", f"--file={file}", "config", "--format=json"], what=f"reading {file}"))
    return next((str(one["source"]) for one in found["services"]["web"]["volumes"] if one["target"] == ODOO_DATA), "")


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
        return {**found, "data_dir": data_dir(name) or found["data_dir"]}

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


@contextmanager
def reading(instance: str) -> Iterator[None]:
    """Let this host's sets of an instance delete nothing meanwhile: the program of the role backup asks for the same lock before it does."""
    LOCKS.mkdir(exist_ok=True)
    with (LOCKS / f"berth-files-{instance}").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"wait until old sets of {instance} are deleted; how that goes: journalctl -f -u berth-set@{instance}")
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


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
        self.options = [f"--cacert={site.home}/config/{repository['name']}.crt"] if repository["authority"] else []

    def call(self, *arguments: str, what: str) -> str:
        """Run restic. Raises Failed."""
        # A repository that another machine locks may be read.
        return run(["restic", "--no-lock", *self.options, *arguments], env=self.environment, what=what)

    @cached_property
    def snapshots(self) -> list[dict[str, Any]]:
        """Every set of the instance."""
        return rules.sets_of(self.listed, self.instance)

    @cached_property
    def every(self) -> list[dict[str, Any]]:
        """Also those that were called no sets. Whoever has a host's keys can call any so, and who names one means it."""
        return rules.sets_of(self.listed, self.instance, also_failed=True)

    @cached_property
    def listed(self) -> list[dict[str, Any]]:
        """All that is in the repository."""
        return list(json.loads(self.call("snapshots", "--json", what="asking restic for the sets")) or [])

    def manifest(self, snapshot: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest in a snapshot. Raises Failed."""
        path = next((str(path) for path in snapshot["paths"] if str(path).endswith(f"/{self.instance}/manifest.json")), "")
        if not path:
            raise Failed(f"the set {snapshot['id'][:8]} has no manifest: it holds {', '.join(map(str, snapshot['paths']))}")
        text = self.call("dump", snapshot["id"], path, what=f"reading the manifest of {snapshot['id'][:8]}")
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


def pgbackrest_command(site: Site, repository: Mapping[str, Any], arguments: Sequence[str], volumes: Sequence[str] = ()) -> list[str]:
    """A command that runs pgBackRest in a container, for one repository."""
    argv = ["docker", "run", "--rm", *server_options(site, repository), *volumes, "--entrypoint=pgbackrest", site.config["server_image"]]
    return [*argv, f"--repo={repository['number']}", *arguments]


class Archive:
    """The WAL of a cluster in a repository, and the backups that it leads on from."""

    def __init__(self, site: Site, repository: Mapping[str, Any], stanza: str) -> None:
        """Ask for the backups. Raises Refused, Failed."""
        self.site, self.repository, self.stanza = site, repository, stanza
        # Not strictly: its messages have line breaks.
        information = json.loads(self.pgbackrest(["info", "--output=json"], what="asking pgBackRest for the backups"), strict=False)
        self.known = rules.stanza_of(information, stanza)
        self.backups: list[dict[str, Any]] = self.known["backup"]

    def pgbackrest(self, arguments: Sequence[str], *, what: str, volumes: Sequence[str] = ()) -> str:
        """Run pgBackRest in a container. Raises Failed."""
        return run(pgbackrest_command(self.site, self.repository, [f"--stanza={self.stanza}", *arguments], volumes), what=what)

    @cached_property
    def listed(self) -> list[str]:
        """The files of the archive below the stanza's directory."""
        found = self.pgbackrest(["repo-ls", f"archive/{self.stanza}", "--recurse", "--output=json"], what="asking pgBackRest for the WAL")
        return list(json.loads(found))

    def names_for(self, backup: Mapping[str, Any]) -> list[str]:
        """The files of the archive of the version that a backup is of."""
        of_it = [one["id"] for one in self.known["archive"] if one["database"] == backup["database"]]
        return [name for name in self.listed if name.split("/")[0] in of_it]

    @cached_property
    def names(self) -> list[str]:
        """Those of the newest backup."""
        return self.names_for(max(self.backups, key=lambda backup: backup["timestamp"]["stop"]))

    def way(self, first: str, last: str, names: Sequence[str]) -> list[str]:
        """The segments from one to another, of the names of an archive. Raises Failed."""
        return rules.way(first, last, self.history(int(last[:8], 16), names))

    def history(self, timeline: int, names: Sequence[str]) -> str:
        """Content of a timeline's history file, of the names of an archive; empty where there is none, as of the first one. Raises Failed."""
        history = next((name for name in names if name.endswith(f"/{timeline:08X}.history")), "")
        get = ["repo-get", f"archive/{self.stanza}/{history}"]
        return self.pgbackrest(get, what="reading the history of the WAL") if history else ""

    def left(self, timeline: int = 0) -> dict[int, int]:
        """The timelines that led to one, without it to the newest, which PostgreSQL follows by itself; and where each was left. Raises Failed."""
        if not timeline:
            found = (re.match(r"[^/]+/([0-9A-F]{8})(\.history$|[0-9A-F]{8})", name) for name in self.names)
            timeline = max((int(match[1], 16) for match in found if match), default=1)
        return rules.ends(timeline, self.history(timeline, self.names))

    def gap(self, backup: Mapping[str, Any], segment: str) -> str:
        """Why a segment cannot be reached from a backup; nothing when it can. Raises Failed."""
        names = self.names_for(backup)
        missing = rules.missing_wal(names, self.way(backup["archive"]["start"], segment, names))
        return self.lost(backup, missing) if missing else ""

    @staticmethod
    def lost(backup: Mapping[str, Any], missing: Sequence[tuple[str, str]]) -> str:
        """What a person has to know of WAL that is missing."""
        ranges = ", ".join(first if first == last else f"{first} to {last}" for first, last in missing)
        return (
            f"WAL after the backup {backup['label']} is missing: {ranges}. PostgreSQL's hosts drop it when more than max_slot_wal_keep_size waits. "
            "Nothing after it can be restored until there is a new backup: run berth.odoo.backup"
        )

    def hole(self, backup: Mapping[str, Any], point: Target) -> str:
        """Why a time or a position cannot be reached from a backup, because WAL before it is missing and later WAL is there; nothing when it can.

        Where nothing follows, WAL may be on its way. PostgreSQL stops at the first transaction that ended after a time, so it needs all before that one.
        Raises Failed.
        """
        names = self.names_for(backup)
        last = max(filter(None, map(rules.segment_of, names)), default="")
        if point.kind == "lsn" and last:
            last = min(last, rules.segment_at(int(last[:8], 16), point.value))
        way = self.way(backup["archive"]["start"], last, names) if last else []
        missing = rules.missing_wal(names, way)
        if not missing:
            return ""
        there = way[: way.index(missing[0][0])]
        if point.kind == "lsn":
            return self.lost(backup, missing)
        until = self.last_ending(there, names)
        if until and rules.moment(until) > rules.moment(point.value):
            return ""
        return f"{self.lost(backup, missing)}. What is before that ends {f'at {until}' if until else 'with the backup'}"

    def last_ending(self, segments: Sequence[str], names: Sequence[str]) -> str:
        """When the last transaction ended in some segments; empty when none did. Raises Failed."""
        ends = (rules.last_ending(self.records([segment], names)) for segment in reversed(segments))
        return next(filter(None, ends), "")

    def records(self, segments: Sequence[str], names: Sequence[str] = ()) -> str:
        """What pg_waldump says of adjacent segments: ends of transactions, and which number the next one has. Raises Failed.

        Without *names* they are those of the newest backup's version.
        """
        files = {rules.segment_of(name): name for name in names or self.names}
        with tempfile.TemporaryDirectory(prefix="wal-", dir=self.site.data_dir) as directory:
            for segment in segments:
                name = f"archive/{self.stanza}/{files[segment]}"
                get = shlex.join(pgbackrest_command(self.site, self.repository, [f"--stanza={self.stanza}", "repo-get", name]))
                unpack = " | zstd --decompress" if name.endswith(".zst") else ""
                script = f"{get}{unpack} > {shlex.quote(f'{directory}/{segment}')}"
                run(["bash", "-o", "pipefail", "-c", script], what=f"reading {segment} of the archive")
            for path in (Path(directory), *Path(directory).iterdir()):
                os.chown(path, POSTGRES, POSTGRES)
            look = [
                "docker",
                "run",
                "--rm",
                "--network=none",
                f"--user={POSTGRES}:{POSTGRES}",
                *HARDENED,
                f"--label={LABEL}",
                "--pull=never",
            ]
            look += [
                f"--volume={directory}:/wal:ro",
                "--env=TZ=UTC",
                "--entrypoint=pg_waldump",
                self.site.config["server_image"],
                "--path=/wal",
            ]
            look += ["--rmgr=Transaction", "--rmgr=Standby", "--rmgr=XLOG", segments[0], segments[-1]]
            return run(look, what=f"reading {segments[0]}")

    def ending(self, number: int) -> Ending:
        """Where a transaction was committed. Raises Refused: it was not, as far as the archive reaches."""
        first = min(backup["archive"]["start"] for backup in self.backups if not backup.get("error"))
        last = max(filter(None, map(rules.segment_of, self.names)))
        there = {rules.segment_of(name) for name in self.names}
        segments = [name for name in self.way(first, last, self.names) if name in there]
        say(f"looking for transaction {number} in {len(segments)} segments of the archive")
        found = rules.find_ending(number, segments, self.records)
        if found is None:
            raise Refused(
                f"transaction {number} did not end in what the repository {self.repository['name']} has of the WAL, {first} to {last}: it is "
                "older than the oldest backup, or so new that its WAL is not archived yet, or it never was. -e time=… goes back to a moment"
            )
        if not found.committed:
            raise Refused(
                f"transaction {number} was rolled back at {found.time}, so nothing of it is there: look for another one, or go back to a moment with -e time=…"
            )
        return found


class Job:
    """What to restore: an instance, a target, and what the repositories have for it."""

    def __init__(self, site: Site, instance: str, target: Target, repository: str, image: str) -> None:
        """Ask the repositories. Raises Refused, Failed."""
        self.site, self.name, self.target = site, instance, target
        self.instance = site.instance(instance)
        self.repository = site.repository(repository)
        self.files = Files(site, self.repository, instance)
        if judge := {"time": rules.moment, "lsn": rules.lsn, "xid": rules.xid}.get(target.kind):
            # Before anything is asked.
            judge(target.value)
        self.snapshots = rules.pick_snapshots(self.files.every if target.kind == "set" else self.files.snapshots, target)
        self.manifest = rules.of_moment([self.files.manifest(snapshot) for snapshot in self.snapshots])
        if target.kind == "lsn":
            before = rules.set_before(self.files.snapshots, target.value, self.files.manifest)
            self.manifest = rules.of_moment([before, self.manifest])
        if target.kind == "latest":
            self.target = Target("set", self.snapshots[-1]["id"])
        self.set_manifest = self.manifest if self.target.kind == "set" else None
        self.stanza = str(self.manifest.get("stanza") or site.config["stanza"])
        self.archive = Archive(site, self.repository, self.stanza)
        self.ending = self.archive.ending(rules.xid(target.value)) if target.kind == "xid" else None
        # PostgreSQL finds no transaction of which only a part is known, and each transaction of Odoo has parts.
        self.point = Target("lsn", self.ending.lsn) if self.ending else self.target
        left = self.archive.left(int(self.set_manifest["timeline"]) if self.set_manifest else 0)
        self.backup = rules.pick_backup(self.archive.known, self.point, left, self.set_manifest)
        if self.set_manifest:
            self.refuse_gap(self.set_manifest)
        else:
            self.refuse_hole()
        if self.ending:
            self.snapshots = rules.pick_snapshots(self.files.snapshots, Target("time", self.ending.time))
            self.manifest = rules.of_moment([self.files.manifest(snapshot) for snapshot in self.snapshots])
        self.database = str(self.manifest.get("database") or self.instance["database"])
        self.image = self.find_image(image)

    def refuse_gap(self, manifest: Mapping[str, Any]) -> None:
        """Find out at once what PostgreSQL would say after hours of restoring. Raises Refused, Failed."""
        # The WAL of one that is being made arrives while the database is restored.
        if (datetime.now(UTC) - rules.moment(manifest["time"])).total_seconds() < YOUNG_S:
            return
        if gap := self.archive.gap(self.backup, rules.segment_at(int(manifest["timeline"]), manifest["lsn"])):
            raise Refused(
                f"the set {self.snapshots[-1]['id'][:8]} of {manifest['time']} cannot be restored: {gap}. Before that, name an older one with -e set=<id>, or "
                f"a moment before the gap with -e time=…; repository=<name> asks another repository"
            )

    def refuse_hole(self) -> None:
        """Find out the same of a time, a position or a transaction. Raises Refused, Failed."""
        if self.point.kind == "time":
            when = rules.moment(self.point.value)
        elif self.ending:
            when = rules.moment(self.ending.time)
        else:
            # A position is as old as the next set.
            known = [self.files.manifest(snapshot) for snapshot in self.snapshots]
            after = [rules.moment(one["time"]) for one in known if rules.lsn(one["lsn"]) >= rules.lsn(self.point.value)]
            when = min(after, default=datetime.now(UTC))
        # Some segments are sent at once, so that later ones may be there first.
        if (datetime.now(UTC) - when).total_seconds() < YOUNG_S:
            return
        if hole := self.archive.hole(self.backup, self.point):
            raise Refused(
                f"{self.target.kind} {self.target.value} cannot be restored: {hole}. Name a moment before the gap with -e time=…, or a set after the next "
                "backup with -e set=<id>; repository=<name> asks another repository"
            )

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
    def words(self) -> str:
        """The target, for people."""
        if self.ending:
            part = f", of which {self.target.value} is a part" if self.ending.number != rules.xid(self.target.value) else ""
            return f"xid {self.target.value}: everything before transaction {self.ending.number}{part}, which was committed at {self.ending.time}"
        return " ".join(self.target).strip()

    @property
    def position(self) -> str:
        """The time that the copy will be of, where it is known before."""
        if self.target.kind == "time":
            return rules.moment(self.target.value).isoformat()
        if self.ending:
            return self.ending.time
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
            "target": self.words,
            "position": self.position,
            "lsn": self.set_manifest["lsn"] if self.set_manifest else self.point.value if self.point.kind == "lsn" else "",
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
