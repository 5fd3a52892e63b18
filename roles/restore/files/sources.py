# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host and what its repositories have for a restore: databases in pgBackRest's, files in restic's, and which of them a target needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import rules
from rules import Refused, Target

POSTGRES, ODOO = 45432, 48069
MANIFEST = "/var/lib/berth/backup/{instance}/manifest.json"
DATA = "/var/lib/postgresql/17"
LABEL = "berth.restore"

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
