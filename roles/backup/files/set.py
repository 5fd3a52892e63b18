# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a set of one instance: a position of its database, and its files, in every repository.

    set.py INSTANCE

Runs as root, from berth-set@INSTANCE.service, which people, the timer and berth.odoo.backup start. config.json beside it says what there is, and
result.json in the instance's directory what came of it. The exit code is 0 for a set that is complete, 1 for a failure, 2 for a set that was made and
needs attention.

The database comes first: a row of the position then has its file, because Odoo writes the file before the row, and its collector of files is kept off
until they are copied.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
ANSWER = "berth-answer:"
NO_REPOSITORY, WRONG_PASSPHRASE, INCOMPLETE = 10, 12, 3
"""Exit codes of restic 0.18."""
ODOO_DATA = "/var/lib/odoo"
"""Odoo's data directory in its containers."""
PROGRAM = "/opt/berth/restore/config/restore.py"
"""Of the role restore, which has pgBackRest and what it needs to read the repositories."""
LOCKS = Path("/run/lock")
CONNECT_S = 10.0
SKEW_S = 600.0
# How long restic may ask a repository for a few bytes: it repeats by itself for a quarter of an hour.
PROBE_S = 90
# How long restic may try to write and get no further.
PATIENCE_S = 120
FORGET_EVERY_S = 20 * 3600
# One part a day is read again, so that each has been read within the usual retention.
PARTS = 14
SHOWN = 10
DELETES_ELSEWHERE = "its keys may not delete, so another place deletes what is old (docs/backup.md)"
CONFIG: dict[str, Any] = {}
"""What config.json says."""


class Failed(Exception):
    """No set was made. The text says why and what to do; nothing in it is secret."""


# --- rules --------------------------------------------------------------------------------------------------------------


def meaning(repository: Mapping[str, Any], words: str, code: int = 1) -> str:
    """Return what restic's words mean for whoever has the inventory before them, followed by the words."""
    name = repository["name"]
    patterns = (
        (r"wrong password|no key found", "backup_secrets.passphrase is not the one that the repository was made with; put that one back"),
        (
            r"internal error, please try again|InternalError|ServiceUnavailable",
            "it answers with an error of its own: look at its log, and whether its disk is full",
        ),
        (
            r"access ?denied|InvalidAccessKeyId|SignatureDoesNotMatch|forbidden|\b403\b",
            f"the keys are refused: correct backup_secrets.{name}.access_key and secret_key, or what the server lets them do, then run berth.odoo.site",
        ),
        (r"NoSuchBucket|bucket does not exist", f"there is no such bucket: correct bucket of {name} in backup_repositories"),
        (r"no space left|disk quota", f"it is full: make room in {repository.get('path') or repository['restic']}"),
        (r"permission denied|read-only file system", f"root may not write there: look at the mount of {repository.get('path')}"),
    )
    if code == WRONG_PASSPHRASE:
        words = f"wrong password: {words}"
    told = [str(one.get("message")) for one in map(parsed, words.splitlines()) if one.get("message")]
    said = " ".join((" ".join(told) or words).split())[-400:]
    for pattern, sentence in patterns:
        if re.search(pattern, words, re.IGNORECASE):
            return f"repository {name}: {sentence}. restic: {said}"
    return f"repository {name}: restic ended with {code}: {said}"


def may_not_delete(words: str) -> bool:
    """Tell whether restic failed because its keys may not delete, which is how they ought to be."""
    return bool(re.search(r"access ?denied|forbidden|\b403\b|permission denied|not permitted", words, re.IGNORECASE))


def hash_of(directory: Path) -> str:
    """Return a hash of the names and contents of the files of a directory."""
    total = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = file.read_bytes()
        total.update(f"{file.relative_to(directory)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def now() -> str:
    """Return the time, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def say(text: str) -> None:
    """Tell whoever looks: the journal, mostly."""
    print(text, flush=True)


# --- repositories -------------------------------------------------------------------------------------------------------


class Repository:
    """One place for the files of one instance."""

    def __init__(self, home: Path, settings: Mapping[str, Any], instance: str, cache: Path) -> None:
        """Nothing is asked yet."""
        self.settings, self.instance, self.name = settings, instance, str(settings["name"])
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "RESTIC_REPOSITORY": f"{settings['restic']}/{instance}",
            "RESTIC_PASSWORD_FILE": str(home / "secrets/passphrase"),
            "RESTIC_CACHE_DIR": str(cache),
            "RESTIC_PROGRESS_FPS": "0.2",
            "GOMAXPROCS": "2",
        }
        for line in (home / f"secrets/{self.name}.env").read_text(encoding="utf-8").splitlines():
            key, _equals, value = line.partition("=")
            self.environment[key] = value
        self.authority = home / f"config/{self.name}.crt" if settings["authority"] else None

    def argv(self, *arguments: str) -> list[str]:
        """Return a command of restic."""
        return ["restic", *([f"--cacert={self.authority}"] if self.authority else []), *arguments]

    def run(self, *arguments: str, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run restic to its end. Raises Failed when there is none or it takes longer."""
        try:
            return subprocess.run(
                self.argv(*arguments),
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise Failed("restic is not on this host: run berth.odoo.site") from error
        except subprocess.TimeoutExpired as error:
            said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr or ""
            raise Failed(meaning(self.settings, f"no answer within {seconds:.0f} s: {said}")) from error

    def reach(self) -> None:
        """Try the way there, because restic goes on trying for a quarter of an hour. Raises Failed."""
        if self.settings["type"] == "posix":
            if not Path(self.settings["path"]).is_dir():
                raise Failed(
                    f"repository {self.name}: there is no directory {self.settings['path']} on {socket.gethostname()}: mount it, or correct path of "
                    f"{self.name} in backup_repositories"
                )
            return
        address = urlsplit(str(self.settings["restic"]).removeprefix("s3:"))
        host, port = address.hostname or "", address.port or 443
        try:
            context = ssl.create_default_context(cafile=str(self.authority) if self.authority else None)
            connection = HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
            connection.request("HEAD", "/")
            date = connection.getresponse().getheader("Date", "")
            connection.close()
        except ssl.SSLCertVerificationError as error:
            raise Failed(
                f"repository {self.name}: the certificate of {host}:{port} is not believed: {error.verify_message}. Correct authority_certificate of "
                f"{self.name} in backup_repositories"
            ) from error
        except OSError as error:
            raise Failed(
                f"repository {self.name}: no TLS at {host}:{port}: {error}. Look at the server, or correct endpoint of {self.name} in backup_repositories"
            ) from error
        except HTTPException as error:
            raise Failed(
                f"repository {self.name}: {host}:{port} does not speak HTTP: {error!r}. Correct endpoint of {self.name}"
            ) from error
        # A store refuses what seems to be signed a quarter of an hour ago, and restic then calls the keys wrong.
        if date and abs(ahead := time.time() - parsedate_to_datetime(date).timestamp()) > SKEW_S:
            raise Failed(
                f"repository {self.name}: the clock of {socket.gethostname()} is {abs(ahead) / 60:.0f} minutes {'ahead of' if ahead > 0 else 'behind'} that of "
                f"{host}:{port}, which refuses requests therefore. Type timedatectl on both"
            )

    def open(self, known: str) -> str:
        """Return the repository's id; make it where there never was one.

        Args:
            known: its id, when sets are in it.

        Raises:
            Failed: it cannot be reached or opened, or is not there any more.
        """
        self.reach()
        asked = self.run("cat", "config", "--json", "--no-lock", seconds=PROBE_S)
        if asked.returncode == NO_REPOSITORY:
            if known:
                raise Failed(
                    f"repository {self.name}: sets of {self.instance} were in {self.environment['RESTIC_REPOSITORY']}, and now nothing is. Look for what "
                    f"took it away: a disk that is not mounted, another path. To begin anew: rm {result_path(self.instance)}"
                )
            say(f"{self.name}: make a repository")
            made = self.run("init", "--json", seconds=PROBE_S)
            if made.returncode:
                raise Failed(meaning(self.settings, made.stderr, made.returncode))
            asked = self.run("cat", "config", "--json", "--no-lock", seconds=PROBE_S)
        if asked.returncode:
            raise Failed(meaning(self.settings, asked.stderr, asked.returncode))
        found = str(json.loads(asked.stdout)["id"])
        if known and found != known:
            raise Failed(
                f"repository {self.name}: it is another one ({found[:8]}) than the one with the sets of {self.instance} ({known[:8]}); look at path"
            )
        # Of what was killed, such as by a reset while it deleted: restic heeds such a lock for ever. This takes only those of processes that are gone.
        self.run("unlock", seconds=PROBE_S)
        return found

    def copy(self, paths: Sequence[str], excluded: Sequence[str]) -> dict[str, Any]:
        """Take a snapshot; return restic's summary. Raises Failed."""
        # Its name and not the machine's, so that a new machine goes on where the old one was.
        arguments = ["backup", "--json", f"--host={self.instance}", f"--tag=instance={self.instance}", "--retry-lock=5m"]
        arguments += [f"--exclude={path}" for path in excluded]
        summary: dict[str, Any] = {}
        words: list[str] = []
        shown = done = 0
        moved = time.monotonic()
        with subprocess.Popen(
            self.argv(*arguments, *paths),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        ) as process:
            for line in process.stdout or ():
                message = parsed(line)
                kind = message.get("message_type")
                if kind == "status":
                    if message.get("bytes_done", 0) > done:
                        done, moved = message["bytes_done"], time.monotonic()
                    percent = int(100 * message.get("percent_done", 0))
                    if percent >= shown + 10:
                        shown = percent
                        say(f"{self.name}: {percent} % of {message.get('total_bytes', 0) >> 20} MiB")
                elif kind == "summary":
                    summary = message
                elif kind in ("error", "exit_error"):
                    words.append(str(message.get("message") or (message.get("error") or {}).get("message") or line))
                elif not message:
                    words.append(line)
                    say(f"{self.name}: {line.strip()}")
                    # It would go on for a quarter of an hour, and the collector of files is kept off meanwhile.
                    if time.monotonic() - moved > PATIENCE_S:
                        process.terminate()
            code = process.wait()
        if code == INCOMPLETE:
            if summary:
                self.void(summary["snapshot_id"])
            raise Failed(f"repository {self.name}: files could not be read, and the snapshot is not a set: {' '.join(words)[-400:]}")
        if code or not summary:
            raise Failed(meaning(self.settings, " ".join(words), code))
        return summary

    def void(self, snapshot: str) -> None:
        """Take a snapshot back that is no set: a restore would take the newest one for whole."""
        with suppress(Failed):
            if not self.run("forget", snapshot, seconds=PROBE_S).returncode:
                return
            # Keys that may not delete may add a word about it, which restores heed (roles/restore/files/rules.py).
            word = ["--stdin", "--stdin-filename=failed", f"--host={self.instance}", f"--tag=failed={snapshot}"]
            if not self.run("backup", *word, seconds=PROBE_S).returncode:
                return
        say(f"{self.name}: the snapshot {snapshot[:8]} stays there, and is no set")

    def forget(self, within: str) -> str:
        """Delete what is older than a duration of restic's, never the newest; return what keeps that from being done, or nothing."""
        group = [f"--host={self.instance}", f"--tag=instance={self.instance}", "--group-by=host,tags"]
        # Not both at once: where keys may not delete, pruning writes much anew before it finds out.
        for arguments in (["forget", *group, "--keep-last=1", f"--keep-within={within}"], ["prune", "--max-unused=10%"]):
            done = self.run(*arguments)
            if done.returncode:
                return DELETES_ELSEWHERE if may_not_delete(done.stderr) else meaning(self.settings, done.stderr, done.returncode)
        return ""

    def damage(self, part: int) -> str:
        """Read one of the parts again; return what is damaged and which sets need it, or nothing."""
        done = self.run("check", "--json", f"--read-data-subset={part}/{PARTS}", "--retry-lock=5m")
        if not done.returncode:
            return ""
        told = [parsed(line) for line in [*done.stdout.splitlines(), *done.stderr.splitlines()]]
        packs = sorted({str(pack) for one in told for pack in one.get("broken_packs") or []})
        if not packs:
            return meaning(self.settings, done.stderr or done.stdout, done.returncode)
        sets = set()
        for pack in packs:
            sets.update(re.findall(r"in snapshot ([0-9a-f]{8})", self.run("find", "--pack", pack, "--no-lock").stdout))
        return (
            f"repository {self.name}: {len(packs)} of its packs are damaged ({', '.join(pack[:8] for pack in packs[:SHOWN])}); sets that need them: "
            f"{', '.join(sorted(sets)) or 'unknown, so take all of them for damaged'}. Restore from another set or repository, then repair it: "
            f"docs/backup.md"
        )


def parsed(line: str) -> dict[str, Any]:
    """Return a message of restic; empty for words that are none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# --- the database -------------------------------------------------------------------------------------------------------


class Web(NamedTuple):
    """What an instance serves with."""

    image: str
    image_id: str
    data_dir: Path
    """On this host."""


class Inside:
    """The process in a maintenance container that holds the collector and knows the database."""

    def __init__(self, instance: str) -> None:
        """Start it; what an earlier one left is removed first."""
        project, name = f"odoo-{instance}", f"berth-set-{instance}"
        directory = Path("/opt/berth") / project
        if not (directory / "compose.yml").is_file():
            raise Failed(f"instance {instance} is not on this host ({directory}/compose.yml is not there): run berth.odoo.site")
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
        compose = [
            "docker",
            "compose",
            "--ansi=never",
            f"--project-name={project}",
            "--env-file=/dev/null",
            f"--project-directory={directory}",
        ]
        self.compose = [*compose, f"--file={directory}/compose.yml"]
        program = (HERE / "inside.py").read_text(encoding="utf-8")
        self.name = name
        self.process = subprocess.Popen(
            [*self.compose, "run", "--rm", "--no-deps", "-T", f"--name={name}", "maintenance", "python3", "-I", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> dict[str, Any]:
        """Send a line and wait for the answer. Raises Failed."""
        if line:
            # One that has ended may have answered before; what follows finds out.
            with suppress(BrokenPipeError):
                print(line, file=self.process.stdin, flush=True)
        for answer in self.process.stdout or ():
            if answer.startswith(ANSWER):
                found: dict[str, Any] = json.loads(answer.removeprefix(ANSWER))
                if "refused" in found:
                    raise Failed(found["refused"])
                return found
        words = self.process.stderr.read().split() if self.process.stderr else []
        raise Failed(f"the maintenance container ended without an answer: {' '.join(words)[-600:]}")

    def web(self) -> Web:
        """Return what the instance serves with. Raises Failed."""
        found = json.loads(docker([*self.compose, "config", "--format", "json"]))["services"]["web"]
        (source,) = (one["source"] for one in found["volumes"] if one["target"] == ODOO_DATA)
        return Web(found["image"], docker(["docker", "image", "inspect", "--format={{.Id}}", found["image"]]).strip(), Path(source))

    def close(self) -> None:
        """End it. Whatever happened, its lock goes with it."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False)


def docker(argv: list[str]) -> str:
    """Return what a command of Docker prints. Raises Failed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`{' '.join(argv[:2])} …` failed: {' '.join(done.stderr.split())[-400:]}")
    return done.stdout


# --- a set --------------------------------------------------------------------------------------------------------------


def result_path(instance: str) -> Path:
    """Return where the result of an instance's sets is kept."""
    return Path(CONFIG["data_dir"]) / instance / "result.json"


def write(path: Path, value: Any) -> None:
    """Write a file at once, or not."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)


@contextmanager
def alone(instance: str) -> Iterator[None]:
    """Be the only one that makes a set of an instance. Raises Failed."""
    with Path(f"/run/berth-set-{instance}.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Failed(
                f"a set of {instance} is being made already, by {file.read().strip() or 'another process'}; look at: journalctl -f -u berth-set@{instance}"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} since {now()}\n")
        file.flush()
        yield


@contextmanager
def whole(repositories: Sequence[Repository], copies: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Take the snapshots of a set back that comes to nothing: its files may have gone while they were copied, or its WAL is not there."""
    try:
        yield
    except BaseException:
        for one in repositories:
            if one.name in copies:
                one.void(copies[one.name]["snapshot_id"])
        raise


def make(instance: str, before: dict[str, Any]) -> dict[str, Any]:
    """Make a set; return what there is to know of it. Raises Failed."""
    data = Path(CONFIG["data_dir"])
    started, clock = now(), time.monotonic()
    if not CONFIG["repositories"]:
        raise Failed("backup_repositories is empty, so there is no place for a set: add one, docs/backup.md says how")
    repositories = [Repository(HERE.parent, one, instance, data / "cache") for one in CONFIG["repositories"]]
    ids: dict[str, str] = dict(before.get("repositories") or {})
    lost: dict[str, str] = {}
    for one in repositories:
        # The other one gets its set nevertheless.
        attempt(lost, one.name, lambda one=one: ids.update({one.name: one.open(ids.get(one.name, ""))}))
    if len(lost) == len(repositories):
        raise Failed("; ".join(lost.values()))
    copies: dict[str, Any] = {}
    with whole(repositories, copies):
        inside = Inside(instance)
        try:
            say("ask the database")
            answer = inside.tell(json.dumps({"archive_seconds": CONFIG["archive_seconds"]}))
            missing, names = answer.pop("missing"), answer.pop("missing_names")
            mark = answer.pop("mark")
            web = inside.web()
            filestore = web.data_dir / "filestore" / answer["database"]
            manifest = {
                "format": 1,
                "instance": instance,
                "started": started,
                "stanza": CONFIG["stanza"],
                "image": {"reference": web.image, "id": web.image_id},
                "configuration": hash_of(Path(f"/opt/berth/odoo-{instance}/config")),
                **answer,
                "missing": {"files": missing, "some": names},
            }
            write(data / instance / "manifest.json", manifest)
            paths = [str(data / instance / "manifest.json"), *([str(filestore)] if filestore.is_dir() else [])]
            say(f"position {answer['lsn']} of timeline {answer['timeline']}, {answer['attachments']['files']} files")
            for one in repositories:
                if one.name not in lost:
                    # What a dead process was writing, and Odoo's list of what to look at: nothing of a position.
                    attempt(lost, one.name, lambda one=one: copies.update({one.name: one.copy(paths, [f"{filestore}/checklist"])}))
            if not copies:
                raise Failed("; ".join(lost.values()))
            inside.tell("end")
            say(f"files are copied, wait for {mark} in the archive")
            inside.tell("")
        finally:
            inside.close()
        # PostgreSQL calls archived what pgBackRest dropped.
        gaps, doubts, since = unarchived(answer["lsn"], mark)
    lost = {**doubts, **gaps, **lost}
    for one in repositories:
        # Nobody can restore it, ever, and drills would try.
        if one.name in gaps and one.name in copies:
            one.void(copies.pop(one.name)["snapshot_id"])
    if not copies:
        raise Failed("; ".join(lost.values()))
    notes = [f"{missing} files of attachments are missing on this host: " + "; ".join(names) + ". Restore them from an older set, or delete the "
             "attachments in Odoo"] if missing else []  # fmt: skip
    if answer["attachments"].get("versioning", "Enabled") != "Enabled":
        notes.append(f"the bucket of the attachments keeps no versions ({answer['attachments']['versioning']}): turn its versioning on")
    return {
        "started": started,
        "time": answer["time"],
        "finished": now(),
        "seconds": round(time.monotonic() - clock, 1),
        "lsn": answer["lsn"],
        "attachments": answer["attachments"],
        "snapshots": {name: one["snapshot_id"] for name, one in copies.items()},
        "added_bytes": {name: one["data_added"] for name, one in copies.items()},
        "problems": [*lost.values(), *notes],
        "repositories": ids,
        "since": since,
    }


def unarchived(lsn: str, mark: str) -> tuple[dict[str, str], dict[str, str], dict[str, int]]:
    """Ask what a restore of a position would find.

    Returns:
        By repository what it lacks of the WAL from a backup to the position, why that is not known, and the time of its oldest backup.

    Raises:
        Failed: nothing is known.
    """
    done = subprocess.run(
        [sys.executable, "-B", PROGRAM, "archive", f"--lsn={lsn}", f"--segment={mark}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"whether a backup leads to this set is not known: {' '.join(done.stderr.split())[-400:]}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    gaps, doubts = (
        {name: f"repository {name}: {one[kind]}" for name, one in found.items() if one.get(kind)} for kind in ("missing", "unknown")
    )
    return gaps, doubts, {name: int(one["since"]) for name, one in found.items() if "since" in one}


def kept_within(days: int, since: int, clock: float) -> str:
    """Return how long sets are kept, as restic writes it: days, or as far back as there is a backup of the database."""
    return f"{days}d" if days else f"{int((clock - since) // 3600) + 1}h"


def attempt(lost: dict[str, str], name: str, do: Callable[[], Any]) -> None:
    """Do something with one repository, and remember why it could not be done."""
    try:
        do()
    except Failed as error:
        lost[name] = str(error)
        say(str(error))


def retain(instance: str, made: Mapping[str, Any], before: Mapping[str, Any], since: Mapping[str, int]) -> dict[str, Any]:
    """Once a day, in the repositories that have the new set: delete what is old, and read a part again. Return when, and what was in the way or damaged."""
    found = dict(before.get("retention") or {})
    if time.time() - float(found.get("tried", 0)) < FORGET_EVERY_S:
        return found
    cache = Path(CONFIG["data_dir"]) / "cache"
    repositories = [Repository(HERE.parent, one, instance, cache) for one in CONFIG["repositories"] if one["name"] in made["snapshots"]]
    held, damaged = {}, {}
    LOCKS.mkdir(exist_ok=True)
    with (LOCKS / f"berth-files-{instance}").open("a", encoding="utf-8") as file:
        try:
            # Of the role restore, which reads without a lock of restic: another machine may have left one, and keys may do nothing but read.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{instance} is restored or drilled just now, so nothing is deleted before the next set")
            return found
        for one in repositories:
            # A repository that did not say when its oldest backup is keeps everything.
            words = one.forget(kept_within(int(CONFIG["retention_days"]), since.get(one.name, 0), time.time()))
            say(f"{one.name}: {words or 'sets that are too old are deleted'}")
            if words:
                held[one.name] = words
    # What is damaged stays so until the same part is sound.
    part = int(found.get("part", 0)) % PARTS + 1 if not found.get("damaged") else int(found["part"])
    for one in repositories:
        if words := one.damage(part):
            say(words)
            damaged[one.name] = words
    return {"tried": int(time.time()), "held": held, "part": part, "damaged": damaged}


def main(argv: Sequence[str]) -> int:
    """Make the set, and keep what came of it."""
    CONFIG.update(json.loads((HERE / "config.json").read_text(encoding="utf-8")))
    if len(argv) != 1 or argv[0] not in CONFIG["instances"]:
        stop(f"type: systemctl start berth-set@INSTANCE, with one of {', '.join(CONFIG['instances']) or 'none'} instead of INSTANCE")
    instance = argv[0]
    path = result_path(instance)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    started = now()
    try:
        with alone(instance):
            before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            try:
                made = make(instance, before)
            except Failed as error:
                write(path, {**before, "failed": {"started": started, "finished": now(), "why": str(error)}})
                raise
            since = made.pop("since")
            result: dict[str, Any] = {"good": made, "repositories": made.pop("repositories"), "retention": before.get("retention") or {}}
            write(path, result)
            result["retention"] = retain(instance, made, before, since)
            made["problems"] += [words for words in result["retention"].get("held", {}).values() if words != DELETES_ELSEWHERE]
            made["problems"] += result["retention"].get("damaged", {}).values()
            write(path, result)
    except Failed as error:
        stop(f"no set of {instance} was made: {error}")
    files, places = made["attachments"]["files"], ", ".join(made["snapshots"])
    say(f"a set of {instance} as of {made['time']}, {made['lsn']}: {files} files, in {made['seconds']} s, in {places}")
    for problem in made["problems"]:
        print(problem, file=sys.stderr, flush=True)
    return 2 if made["problems"] else 0


def stop(text: str) -> NoReturn:
    """End with a sentence."""
    print(text, file=sys.stderr, flush=True)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
