# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pgBackRest in PostgreSQL's container: prepare its repositories, make a backup, verify what is there.

Run by systemd and by people, as root on a database host; every member may run it, the one that leads does the work. Where there are others the files come
from a standby, whose own pgBackRest reads, compresses and encrypts them; what is left to the leader is to send them on.

    python3 -B backup.py prepare|full|incremental|verify --stanza NAME --repositories NAME,… [--members NAME,…]

A backup leaves its result in /var/lib/berth/backup/postgresql.json, one line a repository, and in /var/lib/berth/metrics. Exit status: 0 it worked or
another member leads; 69 nobody on this host can say who leads, so it is the business of the others; 75 the repository does not answer, so try again; 1
anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONTAINER = "postgresql-postgresql-1"
RESULT = Path("/var/lib/berth/backup/postgresql.json")
METRICS = Path("/var/lib/berth/metrics/berth_postgresql_backup.prom")
AWAY = 75
# Of no member that is alone: of it nothing else is known, and a backup that it does not make nobody makes. systemd takes it for a success.
UNKNOWN = 69
# Commands that read everything.
LONG = ("backup", "verify")
# As much as a batch of Odoo: next to nothing beside people, and never nothing.
CPU_SHARES = 128
RUN = "/proc/1/root/run/postgresql"
SPOOL = "/var/lib/postgresql/pgbackrest"
LOCKED = "unable to acquire lock"
# Of an incremental backup after a full one that ended in its middle: SeaweedFS goes on listing the directory whose files are deleted.
BEHIND_A_DEAD_ONE = "is not later than latest backup label"
# The archiver lets go of its lock after each try, and begins the next one within a second.
LOCK_WAIT_S = 60
# Nobody waits for minutes when nobody answers: pgBackRest repeats each of its many questions.
QUICK = "--io-timeout=15"
# A standby's server answers at once, or the next one is asked. Without this a backup tries for three minutes.
PING = "--io-timeout=3"
# Of a standby: pgBackRest itself waits for half an hour. Where the host stands still, or the network is cut, nobody answers the kernel's own questions, and
# it gives up after a minute; while something was under way to it, it asks nothing, and was seen to give up after less than six. Where only the reader does,
# nothing comes for five minutes; the longest that a reader is rightly silent is for a file of 1 GB of which nothing has changed, which it reads at more than
# 4 MB/s. What ends too early costs no backup: the leader's files are read, with pgBackRest's own patience.
PATIENCE = ("--protocol-timeout=5m", "--tcp-keep-alive-idle=30", "--tcp-keep-alive-interval=10", "--tcp-keep-alive-count=3")
TYPES = {"full": "full", "incremental": "incr"}
# A backup waits until its standby has replayed what was written when it began.
LAG_BYTES = 64 << 20
# In a handover nobody leads, or answers, for some seconds.
HANDOVER_S = 60
STATE = "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
# This member's name for Patroni, and what etcd says of all of them.
CLUSTER = "sed -n 's/^name: //p' /etc/patroni/patroni.yml && exec patronictl list --format=json 2>/dev/null"
# First those for which no commit waits by name.
STANDBYS = (
    "SELECT application_name, current_setting('data_directory'), pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint FROM pg_stat_replication "
    "WHERE state = 'streaming' ORDER BY sync_state = 'sync', application_name"
)
# As whom a standby's pgBackRest asks its PostgreSQL. It reads all files already.
MAY = "SELECT pg_has_role('rewind', 'pg_read_all_settings', 'USAGE') AND pg_has_role('rewind', 'pg_checkpoint', 'USAGE')"
GRANT = "GRANT pg_read_all_settings, pg_checkpoint TO rewind"
TLS = "/etc/patroni-tls"
UNREAD = "standby {} could not be read: {}"
# What pgBackRest says when PATIENCE ends: of the reader, and of the host, of which it finds an answer missing that it waits for, or gets the number of
# ETIMEDOUT or EHOSTUNREACH from OpenSSL (with the bit that marks an error of the system).
SILENT_WORDS = r"waiting for read from|client state is 'response'|TLS error \[5:(2147483758|2147483761)\]"

AWAY_WORDS = r"HostConnectError|unable to get address|timeout connecting|\[Errno|Connection (refused|reset|timed out)"
# What a store says whose disk is full, among others.
ILL_WORDS = r"HTTP request failed with 5\d\d|\[ServiceError\]"
# An archive that is behind says why in its own files, once it has tried for half a minute.
BEHIND_WORDS = r"was not archived before"
MEANINGS = (
    (
        r"RequestTimeTooSkewed|certificate is not yet valid|certificate has expired",
        "the clock of this host and that of repository {repository} differ, or a certificate is out of date: type timedatectl on both",
    ),
    (LOCKED, "another backup of this cluster runs already; nothing was done"),
    (r"InvalidAccessKeyId|not exist in our records", "the repository does not know backup_secrets.{repository}.access_key"),
    (r"SignatureDoesNotMatch", "the repository refuses backup_secrets.{repository}.secret_key"),
    (r"AccessDenied|\(Forbidden\)", "the key backup_secrets.{repository}.access_key may not do this in the bucket of backup_repositories"),
    (r"NoSuchBucket", "the bucket of backup_repositories, repository {repository}, does not exist: create it"),
    (
        r"CryptoError|key/value found outside of section|cipher header",
        "backup_secrets.passphrase is not the one that encrypted repository {repository}",
    ),
    (
        r"certificate verify failed|unable to verify certificate|CERT",
        "the certificate of repository {repository} is not trusted: set its authority_certificate",
    ),
    (
        r"do not match the database",
        "repository {repository} holds the backups of another cluster: restore from it, or give this site another path",
    ),
    (r"No space left", "the repository {repository} is full"),
    (r"Permission denied", "the directory of repository {repository} must belong to user 45432 on every database host"),
    (ILL_WORDS, "repository {repository} answers with an error of its own: look at its log, and whether its disk is full"),
    (AWAY_WORDS, "repository {repository} does not answer: look at its endpoint in backup_repositories, and at the network"),
    (BEHIND_WORDS, f"WAL does not reach repository {{repository}} in time: docker logs --since 5m {CONTAINER} says why"),
    (
        r"missing stanza path|does not exist.*stanza|stanza-create",
        "repository {repository} has not been prepared: converge with berth.odoo.site",
    ),
)


def meaning(text: str, repository: str) -> str:
    """What words of pgBackRest mean, as a sentence that names the variable; nothing when unknown."""
    for pattern, sentence in MEANINGS:
        if re.search(pattern, text):
            return sentence.format(repository=repository)
    return ""


def last_words(text: str) -> str:
    """The first error of an output, in printable characters: with a wrong key, names of files that decrypt to anything follow.

    That no standby was found is the consequence of a warning.
    """
    found = re.search(r"WARN: (unable to check pg2.*)", text) or re.search(r"ERROR: (.*)", text)
    line = (found.group(1) if found else text.strip().rsplit("\n", 1)[-1]).strip()
    return re.sub(r"[^\x20-\x7e]", "?", line)[:300]


def is_away(text: str) -> bool:
    """Whether an output says that the repository does not answer, or cannot do what it is for, and nothing else."""
    return meaning(text, "x") in {meaning("HostConnectError", "x"), meaning("[ServiceError]", "x")}


def damaged(report: str) -> list[str]:
    """What C(verify --output=text) found wrong. Its exit status is 0 even then, and without C(--output) it prints nothing."""
    return [
        re.sub(r"\s+", " ", line).strip()
        for line in report.splitlines()
        if re.search(r"status: (invalid|error)|(checksum invalid|missing|size invalid|other): [1-9]", line)
    ]


def unprepared(information: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Which of the repositories, counted from 1, have no stanza yet, according to C(info --output=json)."""
    states = {repository["key"]: repository["status"]["code"] for stanza in information for repository in stanza.get("repo", [])}
    # 1: no directory of the stanza; 3: one without what belongs into it.
    return [number for number in range(1, count + 1) if states.get(number, 1) in {1, 3}]


def newest(information: Sequence[Mapping[str, Any]], number: int) -> Mapping[str, Any] | None:
    """The newest backup in a repository, according to C(info --output=json)."""
    found = [one for stanza in information for one in stanza.get("backup", []) if one["database"]["repo-key"] == number]
    return max(found, key=lambda one: one["timestamp"]["stop"], default=None)


def made_at(information: Sequence[Mapping[str, Any]], number: int) -> int:
    """When the newest backup in a repository was complete, whichever member made it; 0 when there is none."""
    found = newest(information, number)
    return int(found["timestamp"]["stop"]) if found else 0


def reading(standby: str, directory: str) -> list[str]:
    """Options of a backup that takes what a standby has from there. It ends when it cannot, at once: the leader has the same files.

    The standby's server has pgBackRest's own port.
    """
    files = [f"--pg2-host-{name}-file={TLS}/{file}" for name, file in (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))]
    return [
        "--backup-standby=y",
        "--job-retry=0",
        *PATIENCE,
        f"--pg2-host={standby}",
        "--pg2-host-type=tls",
        f"--pg2-path={directory}",
        *files,
    ]


def metrics(results: Sequence[Mapping[str, Any]]) -> str:
    """The results for node_exporter's textfile collector."""
    names = {
        "berth_postgresql_backup_failed": lambda one: int(bool(one["error"])),
        "berth_postgresql_backup_last_success_timestamp_seconds": lambda one: one["last_success"],
        "berth_postgresql_backup_seconds": lambda one: one["seconds"],
        "berth_postgresql_backup_bytes": lambda one: one["bytes"],
    }
    lines = []
    for name, value in names.items():
        lines.append(f"# TYPE {name} gauge")
        lines += [f'{name}{{stanza="{one["stanza"]}",repository="{one["repository"]}"}} {value(one)}' for one in results]
    return "\n".join(lines) + "\n"


class Failed(Exception):
    """pgBackRest failed; the message says why."""

    def __init__(self, message: str, *, away: bool = False, locked: bool = False, unknown: bool = False, words: str = "") -> None:
        """With *away* it is to be tried again later, with *locked* at once; with *unknown* others may do it. *words* are pgBackRest's own."""
        super().__init__(message)
        self.away, self.locked, self.unknown, self.words = away, locked, unknown, words


class Runner:
    """pgBackRest in the container of this host."""

    def __init__(self, stanza: str, repositories: Sequence[str], members: Sequence[str] = ()) -> None:
        """Nothing is done yet. *members* are all of the cluster; none when this one is alone."""
        self.stanza, self.repositories, self.members = stanza, repositories, members

    def inside(self, *argv: str) -> tuple[int, str]:
        """Run a command in the container and return its exit status and its output."""
        done = subprocess.run(["docker", "exec", CONTAINER, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout.decode(errors="replace")

    def beside(self, *argv: str) -> tuple[int, str]:
        """Run a command in a container of its own beside PostgreSQL's, with its files, network and processes, and return exit status and output.

        The processor is shared among containers first, and PostgreSQL's has the largest share of all: what runs in it, however nice, takes from Odoo.
        """
        image = subprocess.run(["docker", "inspect", "--format={{.Image}}", CONTAINER], stdout=subprocess.PIPE, check=False, text=True)
        if image.returncode:
            raise Failed(f"there is no container {CONTAINER} on this host: run berth.odoo.site")
        options = [
            *("--rm", "--pull=never", f"--pid=container:{CONTAINER}", f"--network=container:{CONTAINER}", f"--volumes-from={CONTAINER}"),
            *("--user=45432:45432", "--read-only", "--tmpfs=/tmp:size=64m", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *(f"--cpu-shares={CPU_SHARES}", "--memory=1g", "--pids-limit=200"),
            # That of PostgreSQL's container, which is memory and therefore among no volumes.
            *(f"--env=PGBACKREST_PG1_SOCKET_PATH={RUN}", f"--env=PGBACKREST_LOCK_PATH={RUN}/pgbackrest"),
        ]
        argv = ("docker", "run", *options, f"--entrypoint={argv[0]}", image.stdout.strip(), *argv[1:])
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout.decode(errors="replace")

    def pgbackrest(self, command: str, *options: str, number: int = 0) -> str:
        """Run pgBackRest, what takes long with what others leave of the processor and the disk. Raises Failed."""
        chosen = [f"--repo={number}"] if number else []
        run = self.beside if command in LONG else self.inside
        code, output = run("ionice", "-c3", "pgbackrest", f"--stanza={self.stanza}", *chosen, *options, command)
        if code:
            name = self.repositories[number - 1] if number else ", ".join(self.repositories)
            if re.search(BEHIND_WORDS, output):
                found = self.inside("sh", "-c", f"cat {SPOOL}/archive/{self.stanza}/out/*.error")
                output += found[1] if not found[0] else ""
            raise self.failed(output, name, command)
        return output

    @staticmethod
    def failed(output: str, repository: str, what: str) -> Failed:
        """An exception that says what an output means."""
        sentence = meaning(output, repository)
        return Failed(
            f"pgBackRest {what}: {sentence + ' (' if sentence else ''}{last_words(output)}{')' if sentence else ''}",
            away=is_away(output),
            locked=LOCKED in output,
            words=last_words(output),
        )

    def information(self, *options: str, number: int = 0) -> list[dict[str, Any]]:
        """What is in the repositories, or in one. Raises Failed, because C(info) itself succeeds when it cannot read one."""
        found: list[dict[str, Any]] = json.loads(self.pgbackrest("info", "--output=json", *options, number=number))
        for stanza in found:
            for repository in stanza.get("repo", []):
                if repository["status"]["code"] == 99:
                    raise self.failed(repository["status"]["message"], self.repositories[repository["key"] - 1], "info")
        return found

    def ask(self, question: str) -> list[list[str]]:
        """What PostgreSQL on this host answers to its superuser. Raises Failed."""
        code, output = self.inside("psql", "-XAtq", "-h/run/postgresql", "-Upostgres", "-dpostgres", f"-c{question}")
        if code:
            raise Failed(f"PostgreSQL on this host does not answer: {last_words(output)}. Look: docker logs --tail 50 {CONTAINER}")
        return [line.split("|") for line in output.splitlines() if line]

    def leads(self) -> bool:
        """Whether this member leads. Raises Failed.

        Where there are others, one that follows nobody or does not answer is asked again: who led stops, and who is to lead does not do so yet. Then etcd
        is asked: what is wrong with this member is no reason to miss a backup that another one makes.
        """
        until = time.monotonic() + HANDOVER_S
        while True:
            try:
                [[follows, streams]] = self.ask(STATE)
                why = "PostgreSQL on this host is a standby and follows nobody"
            except Failed as failure:
                follows, streams, why = "", "", str(failure)
                if not self.members:
                    raise
            if follows == "f" or streams == "t" or not self.members:
                return follows == "f"
            if time.monotonic() > until:
                break
            time.sleep(1)
        own, leader = self.cluster(why)
        if leader in ("", own):
            raise Failed(f"{why}. {'It is the one that leads' if leader else 'No member leads'}: type berth.odoo.status")
        print(f"{leader} leads, and makes it. Of this member: {why}")
        return False

    def cluster(self, why: str) -> tuple[str, str]:
        """The names of this member and of the one that leads, empty when none does, according to etcd. Raises Failed: nobody here can ask it.

        Its container does not run, or etcd is out of reach: this host may be cut off, while the others go on.
        """
        _code, output = self.inside("sh", "-c", CLUSTER)
        try:
            own, members = output.split("\n", 1)
            found = {one["Role"]: one["Member"] for one in json.loads(members)}
        except (ValueError, TypeError, LookupError) as error:
            raise Failed(f"{why}. Whether another member leads cannot be asked here", unknown=True) from error
        return own.strip("'\""), found.get("Leader", "")

    def standby(self) -> tuple[str, str, str]:
        """The standby that a backup is read from, its data directory, and what is wrong with those before it. No name when there is none. Raises Failed."""
        wrong = []
        for name, directory, behind in self.ask(STANDBYS):
            if name in self.members and int(behind or LAG_BYTES) < LAG_BYTES:
                code, output = self.inside("pgbackrest", PING, "server-ping", name)
                if not code:
                    return name, directory, "; ".join(wrong)
                wrong.append(UNREAD.format(name, last_words(output)))
        return "", "", "; ".join(wrong) or f"no standby streams and is less than {LAG_BYTES >> 20} MB behind"

    def prepare(self) -> str:
        """Make the stanza where it is missing, let members ask what a backup asks, and have one WAL segment archived. Raises Failed."""
        done = []
        if self.members and self.ask(MAY) == [["f"]]:
            self.ask(GRANT)
            done.append("granted rewind what a backup asks a standby")
        missing = unprepared(self.information(QUICK), len(self.repositories))
        if missing:
            self.create()
            done.insert(0, f"created in {', '.join(self.repositories[number - 1] for number in missing)}")
        self.pgbackrest("check", QUICK)
        return ", ".join(done) or "nothing to do"

    def create(self) -> None:
        """Make the stanza. WAL that waits for it keeps the archiver busy, which has the same lock. Raises Failed."""
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                self.pgbackrest("stanza-create", QUICK)
            except Failed as failure:
                if not failure.locked or time.monotonic() > until:
                    raise
                time.sleep(0.2)
            else:
                return

    def make(self, kind: str, number: int) -> str:
        """Make a backup, a full one where no other can be made, and return in words what it was read from. Raises Failed."""
        try:
            return self.copy(kind, number)
        except Failed as failure:
            if kind == "full" or BEHIND_A_DEAD_ONE not in failure.words:
                raise
        print("a full backup ended in its middle and is in the way of this one, so another full one is made")
        return self.copy("full", number)

    def copy(self, kind: str, number: int) -> str:
        """Make a backup, of a standby where one can, and return in words what it was read from. Raises Failed."""
        option = f"--type={TYPES[kind]}"
        if not self.members:
            self.pgbackrest("backup", option, number=number)
            return ""
        name, directory, why = self.standby()
        if name:
            try:
                self.pgbackrest("backup", option, *reading(name, directory), number=number)
            except Failed as failure:
                if failure.locked or BEHIND_A_DEAD_ONE in failure.words:
                    raise
                self.still_leading(failure)
                # Raises when it was the repository.
                self.information(QUICK, number=number)
                silent = "it answers no more: " if re.search(SILENT_WORDS, failure.words) else ""
                why = UNREAD.format(name, silent + failure.words)
            else:
                return f"read from {name}, because {why}" if why else f"read from {name}"
        print(f"{why}; the leader's own files are read", flush=True)
        try:
            self.pgbackrest("backup", option, number=number)
        except Failed as failure:
            self.still_leading(failure)
            raise
        return f"read from the leader, because {why}"

    def still_leading(self, failure: Failed) -> None:
        """Raise Failed when a backup failed because this member leads no more."""
        if not self.leads():
            raise Failed(
                f"another member leads since the backup began, which ended it ({failure.words}). What was there before is still there: make another one "
                "with berth.odoo.backup, or leave it to the timer"
            ) from failure

    def backup(self, kind: str) -> int:
        """Back up into every repository, write the results and return the exit status."""
        before = {one["repository"]: one for one in read(RESULT)}
        results, away = [], False
        for number, name in enumerate(self.repositories, 1):
            begin, error, found, source = time.time(), "", None, ""
            # Of a repository that does not answer, this member knows what it did itself. Status asks the others' results too.
            listed, last = False, before.get(name, {}).get("last_success", 0)
            try:
                last, listed = made_at(self.information(QUICK, number=number), number), True
                source = self.make(kind, number)
                information = self.information(number=number)
                found, last = newest(information, number), made_at(information, number)
                # Once a week is what a repository can bear, and the backups before are still there.
                if kind == "full" and (bad := self.damage(number)):
                    raise Failed(f"the backup was made, and what is kept in repository {name} is damaged: {'; '.join(bad)}")
            except Failed as failure:
                error, away = str(failure), failure.away
                print(error, file=sys.stderr)
            now = time.time()
            results.append(
                {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
                    # Of systemd, so that who began it knows what it did.
                    "run": os.environ.get("INVOCATION_ID", ""),
                    "repository": name,
                    "stanza": self.stanza,
                    "type": kind,
                    "label": found["label"] if found else "",
                    "bytes": found["info"]["repository"]["delta"] if found else 0,
                    "size": found["info"]["size"] if found else 0,
                    "seconds": round(now - begin, 1),
                    "last_success": last,
                    "listed": listed,
                    "source": source,
                    "error": error or ("" if found else "pgBackRest says that it worked, and lists no backup"),
                }
            )
        write(RESULT, "".join(json.dumps(one) + "\n" for one in results), 0o644)
        write(METRICS, metrics(results), 0o644)
        for one in results:
            if not one["error"]:
                words = f", {one['source']}" if one["source"] else ""
                print(f"{one['label']}: {one['bytes']} bytes for {one['size']} in {one['seconds']} s to {one['repository']}{words}")
        return 0 if not any(one["error"] for one in results) else AWAY if away else 1

    def damage(self, number: int) -> list[str]:
        """Read everything in a repository again, and return what does not fit its checksums. Raises Failed."""
        return damaged(self.pgbackrest("verify", "--output=text", number=number))

    def verify(self) -> int:
        """Look for damage in every repository."""
        bad = 0
        for number, name in enumerate(self.repositories, 1):
            found = self.damage(number)
            for line in found:
                print(f"{name}: {line}", file=sys.stderr)
            bad += len(found)
        return 1 if bad else 0


def read(path: Path) -> list[dict[str, Any]]:
    """The results of the last backup; none when there was none."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    os.replace(new, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prepare", *TYPES, "verify"])
    parser.add_argument("--stanza", required=True)
    parser.add_argument("--repositories", required=True)
    parser.add_argument("--members", default="")
    options = parser.parse_args(arguments)
    runner = Runner(options.stanza, options.repositories.split(","), options.members.split(",") if options.members else ())
    try:
        if not runner.leads():
            print("another member leads, and does it")
            return 0
        if options.command == "prepare":
            print(runner.prepare())
            return 0
        return runner.verify() if options.command == "verify" else runner.backup(options.command)
    except Failed as failure:
        print(failure, file=sys.stderr)
        return AWAY if failure.away else UNKNOWN if failure.unknown else 1


if __name__ == "__main__":
    sys.exit(main())
