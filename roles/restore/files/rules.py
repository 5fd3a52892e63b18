# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore decides: which backup, what it needs, what must not be left in a copy, what a drill found. No input, no output, no clock."""

from __future__ import annotations

import base64
import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache
from random import Random
from typing import Any, NamedTuple

RESERVE = 1 << 30
"""Bytes that stay free on the file system: what serves is on it, too."""

ROOM = 1.1
"""What a copy may need beyond the sizes that the repositories know, for WAL and what Odoo writes."""

ROW_TOLERANCE = 0.001
"""Share of a table's rows by which a set may differ from what was counted: people worked while they were counted."""

POSITION_S = 180
"""Seconds by which the position of a set may be older than its snapshot: it waits for the collector of files."""

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}(\.(clone|drill|place))?")
"""Of a copy: that of the instance, and after a dot what it is for where it does not stay."""
SEGMENT = 16 << 20
"""Bytes of a segment of the WAL, PostgreSQL's own choice."""
PER_LOG = (1 << 32) // SEGMENT

FIRST_XID = 3
"""Numbers below it are PostgreSQL's own."""

STORED = re.compile(r"[0-9a-f]{2}/[0-9a-f]{40}")
"""The name of an attachment's file in the filestore, as Odoo makes it. The database says it, and who may write there may write anything."""
TIMES = "2026-11-25T14:03:59 (UTC) or 2026-11-25T15:03:59+01:00"
"""The same moment as people may write it, without a blank."""

LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Refused(Exception):
    """It cannot or must not be done, and nothing was changed. The text says why and what to type."""


class Target(NamedTuple):
    """What to go back to."""

    kind: str
    """``latest``, ``set``, ``time``, ``lsn`` or ``xid``."""
    value: str = ""


class Ending(NamedTuple):
    """Where a transaction became valid, or did not."""

    number: int
    """Of the transaction itself, where a part of it (a savepoint) was asked for."""
    committed: bool
    lsn: str
    """Of the record that says so."""
    time: str
    """Of the same, UTC."""


# --- positions and times ------------------------------------------------------------------------------------------------


def lsn(text: str) -> int:
    """Position in the WAL as a number. Raises Refused."""
    match = LSN.fullmatch(text)
    if match is None:
        raise Refused(f"lsn {text!r} is no position of PostgreSQL's WAL: expected such as 0/5000148")
    return (int(match[1], 16) << 32) + int(match[2], 16)


def moment(text: str) -> datetime:
    """A point in time, UTC where it names no zone. Raises Refused."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise Refused(f"time {text!r} is none: expected such as {TIMES}") from error
    with suppress(ValueError):
        # Python reads a date alone as its midnight, which nobody meant who typed a time behind a blank.
        date.fromisoformat(text.strip())
        raise Refused(
            f"time {text!r} is a date without a time of day. With -e a value ends at a blank, also within quotes: type a T in its place, such as "
            f"-e time={TIMES}. Midnight is T00:00"
        )
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def xid(text: str) -> int:
    """The number of a transaction as the WAL has it: 32 bits of what pg_current_xact_id() answers. Raises Refused."""
    number = int(text) % (1 << 32) if re.fullmatch(r"[0-9]{1,20}", text) else 0
    if number < FIRST_XID:
        raise Refused(f"xid {text!r} is no number of a transaction: expected such as 4711, what the column xmin says of a row")
    return number


def stamp(when: datetime) -> str:
    """For people and for file contents: seconds, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- which backup -------------------------------------------------------------------------------------------------------


def stanza_of(found: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The stanza in what ``pgbackrest info --output=json`` said. Raises Refused."""
    for stanza in found:
        if stanza.get("name") == name and stanza.get("backup"):
            return stanza
    parts = [part for stanza in found if stanza.get("name") == name for part in (stanza, *(stanza.get("repo") or []))]
    said = "; ".join(message for part in parts if (message := " ".join(str((part.get("status") or {}).get("message", "")).split())))
    if known := cause(said):
        # What follows may be what a wrong key made of the file.
        raise Refused(f"the repository cannot be read: {known}{said[:120].encode('ascii', 'replace').decode()}")
    raise Refused(
        f"the repository has no backup of the cluster {name}{f' ({said})' if said else ''}: run a backup first, or name another repository"
    )


def ends(timeline: int, history: str) -> dict[int, int]:
    """The timelines that led to one, and where each of them was left.

    Args:
        timeline: the one.
        history: content of its history file; empty for the first one, which has none.
    """
    matches = (re.match(r"\s*(\d+)\s+(\S+)", line) for line in history.splitlines())
    return {**{int(match[1]): lsn(match[2]) for match in matches if match}, timeline: 1 << 64}


def pick_backup(
    stanza: Mapping[str, Any], target: Target, left: Mapping[int, int], manifest: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """The newest backup from which the target can be reached.

    Args:
        stanza: of ``pgbackrest info``.
        target: what to go back to.
        left: the timelines that lead to it, and where each was left. After the cluster itself was restored into the same repository, that has backups of
            what was written between the moment it went back to and the restore; nothing leads on from them.
        manifest: of the set, where it is one.

    Raises:
        Refused: there is none, or it is that of another cluster.
    """
    identifiers = {str(database.get("system-id")) for database in stanza.get("db") or []}
    if manifest and str(manifest["system_identifier"]) not in identifiers:
        raise Refused(
            f"the set of {manifest['time']} is one of the cluster {manifest['system_identifier']}, and the repository is that of "
            f"{', '.join(sorted(identifiers))}: name the repository that this set belongs to"
        )
    backups = [backup for backup in stanza["backup"] if not backup.get("error")]
    position = manifest["lsn"] if manifest else target.value
    if target.kind in ("set", "lsn"):
        fitting = [backup for backup in backups if lsn(backup["lsn"]["stop"]) <= lsn(position)]
    elif target.kind == "time":
        fitting = [backup for backup in backups if backup["timestamp"]["stop"] <= moment(target.value).timestamp()]
    else:
        fitting = list(backups)
    old_enough = bool(fitting)
    fitting = [backup for backup in fitting if lsn(backup["lsn"]["stop"]) <= left.get(int(backup["archive"]["stop"][:8], 16), -1)]
    if old_enough and not fitting:
        raise Refused(
            f"no backup of the database leads to {target.value or position or 'the newest state'}: those that are old enough are of a timeline that was left, "
            f"as by postgresql_restore to an earlier moment, and it is on timeline {max(left)}. Type berth.odoo.backup -e backup_database=full: moments "
            "after that can be restored"
        )
    if not fitting:
        first = min(backups, key=lambda backup: backup["timestamp"]["stop"], default=None)
        since = (
            f"the oldest one reaches back to {stamp(datetime.fromtimestamp(first['timestamp']['stop'], UTC))}" if first else "there is none"
        )
        raise Refused(f"no backup of the database is old enough for {target.value or position}: {since}")
    return max(fitting, key=lambda backup: backup["timestamp"]["stop"])


def snapshot_time(snapshot: Mapping[str, Any]) -> datetime:
    """When a snapshot of restic was begun; it writes nanoseconds, which Python does not read."""
    return moment(re.sub(r"(\.\d{6})\d+", r"\1", snapshot["time"]))


def sets_of(snapshots: Sequence[dict[str, Any]], instance: str, *, also_failed: bool = False) -> list[dict[str, Any]]:
    """Those of a repository's snapshots that are sets of an instance, without those that it was told of that they are none (roles/backup/files/set.py)."""
    tags = [str(tag) for snapshot in snapshots for tag in snapshot.get("tags") or []]
    # Older versions of restic tell the one who makes a snapshot the first eight characters of its name.
    failed = tuple(tag.removeprefix("failed=") for tag in tags if re.match("failed=[0-9a-z]{8}", tag))
    made = [one for one in snapshots if f"instance={instance}" in (one.get("tags") or [])]
    return made if also_failed else [one for one in made if not one["id"].startswith(failed)]


def pick_snapshots(snapshots: Sequence[Mapping[str, Any]], target: Target) -> list[Mapping[str, Any]]:
    """The snapshots of the files that the target needs, oldest first: one for a set, two for a point between two of them.

    Files are named after their content, so those of two snapshots lie beside each other, and what the database does not name is harmless.

    Raises:
        Refused: there is none.
    """
    ordered = sorted(snapshots, key=snapshot_time)
    if not ordered:
        raise Refused("there is no set of this instance in the repository: run berth.odoo.backup first, or name another repository")
    if target.kind == "set":
        named = [snapshot for snapshot in ordered if snapshot["id"].startswith(target.value) and len(target.value) >= 6]
        if len(named) != 1:
            known = ", ".join(f"{snapshot['id'][:8]} ({stamp(snapshot_time(snapshot))})" for snapshot in ordered[-8:])
            raise Refused(f"set {target.value!r}: {'several begin so' if named else 'there is none of that name'}. The latest are {known}")
        return named
    if target.kind == "time":
        when = moment(target.value)
        before = [snapshot for snapshot in ordered if snapshot_time(snapshot) <= when][-1:]
        after = [snapshot for snapshot in ordered if snapshot_time(snapshot) > when][:1]
        return before + after
    if target.kind == "lsn":
        # Which ones are before and after is not known from their times alone; the newest has most.
        return ordered[-2:]
    return ordered[-1:]


def set_before(
    snapshots: Sequence[Mapping[str, Any]], position: str, manifest: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """The manifest of the latest set that was taken at a position of the WAL or before it; the earliest one's where all were taken later.

    Args:
        snapshots: of the files, at least one.
        position: in the WAL.
        manifest: gives that of a snapshot; as few are asked for as can be.
    """
    ordered = sorted(snapshots, key=snapshot_time)
    known = cache(lambda place: manifest(ordered[place]))
    place = bisect_right(range(len(ordered)), lsn(position), key=lambda one: lsn(known(one)["lsn"]))
    return known(max(place - 1, 0))


def of_moment(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of a moment between sets: what the set before it says, such as the image that ran, and that there are files if any of them has some.

    Args:
        manifests: of the sets around it, the earliest first. There is none before it where it is older than all of them.
    """
    files = [one["attachments"] for one in manifests if (one.get("attachments") or {}).get("location") == "files"]
    return {**manifests[0], **({"attachments": files[0]} if files else {})}


def oldest(backups: Sequence[Mapping[str, Any]]) -> int:
    """When the oldest backup was complete; 0 when there is none."""
    return min((int(backup["timestamp"]["stop"]) for backup in backups if not backup.get("error")), default=0)


def older(snapshots: Sequence[Mapping[str, Any]], backups: Sequence[Mapping[str, Any]], random: Random) -> Target | None:
    """An older set, or a moment between the oldest and the newest one, by chance; nothing while there are not two.

    Args:
        snapshots: of the files.
        backups: of the database; what is older than all of them cannot be reached any more.
        random: where chance comes from.
    """
    since = oldest(backups) + POSITION_S
    times = sorted((when, str(one["id"])) for one in snapshots if (when := snapshot_time(one)).timestamp() > since)
    if len(times) < 2:
        return None
    if random.random() < 0.5:
        return Target("set", random.choice(times[:-1])[1])
    first, last = times[0][0], times[-1][0]
    return Target("time", (first + (last - first) * random.random()).isoformat())


def included(database: str, known: Sequence[str]) -> list[str]:
    """The databases to bring back, as a backup has them, so that one is there as of the target; empty is all.

    A restore in place and a clone rename databases. A backup that began before that has under another name what has this one's afterwards.

    Args:
        database: what is wanted.
        known: names in the backup.
    """
    if database not in known:
        return []
    exchanged = re.compile(rf"{re.escape(database[:40])}_(restoring|before_[0-9]{{14}})")
    return [name for name in known if name == database or exchanged.fullmatch(name)]


def restore_arguments(target: Target, manifest: Mapping[str, Any] | None, backup: Mapping[str, Any], databases: Sequence[str]) -> list[str]:
    """What pgbackrest is told beside its configuration.

    Args:
        target: what to go back to.
        manifest: of the set, where it is one.
        backup: the one to begin with, of ``pgbackrest info``.
        databases: databases to bring back; of all others only what PostgreSQL needs to start. Empty: everything.
    """
    arguments = [f"--set={backup['label']}", "--archive-mode=off", *(f"--db-include={database}" for database in databases)]
    position = manifest["lsn"] if manifest else target.value
    if target.kind in ("set", "lsn"):
        # Not with what was written at the position itself: the set was taken before it.
        arguments += ["--type=lsn", f"--target={position}", "--target-exclusive", "--target-action=promote"]
        if manifest:
            # By its number PostgreSQL asks for the timeline's history, which a repository lacks that was added after that had begun.
            own = int(backup["archive"]["stop"][:8], 16) == int(manifest["timeline"])
            arguments.append(f"--target-timeline={'current' if own else manifest['timeline']}")
    elif target.kind == "time":
        arguments += ["--type=time", f"--target={moment(target.value):%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote"]
    else:
        arguments += ["--type=default"]
    return arguments


# --- the archive --------------------------------------------------------------------------------------------------------


def segment_of(name: str) -> str:
    """The segment of the WAL that a file of a repository holds; empty for others, such as a history or the part of a segment."""
    match = re.match(r"([0-9A-F]{24})-", name.rpartition("/")[2])
    return match[1] if match else ""


def segment_number(name: str) -> int:
    """The place of a segment in the WAL, whatever its timeline."""
    return int(name[8:16], 16) * PER_LOG + int(name[16:24], 16)


def segment_at(timeline: int, position: str) -> str:
    """The segment of the WAL that a position is in. Raises Refused."""
    number = lsn(position) // SEGMENT
    return f"{timeline:08X}{number // PER_LOG:08X}{number % PER_LOG:08X}"


def way(first: str, last: str, history: str = "") -> list[str]:
    """Names of the segments of the WAL from one to another, each on the timeline that led to the end.

    Args:
        first: the segment that a backup begins with.
        last: the segment up to which WAL is wanted, on the timeline that is wanted.
        history: content of the history file of that timeline; empty for the first one, which has none.
    """
    # Where a timeline ends, the next one has the whole segment again.
    begins, start = [], 0
    for timeline, end in ends(int(last[:8], 16), history).items():
        begins.append((start, timeline))
        start = end // SEGMENT
    names = []
    for position in range(segment_number(first), segment_number(last) + 1):
        timeline = max(one for one in begins if one[0] <= position)[1]
        names.append(f"{timeline:08X}{position // PER_LOG:08X}{position % PER_LOG:08X}")
    return names


def missing_wal(archived: Iterable[str], wanted: Iterable[str]) -> list[tuple[str, str]]:
    """Segments of the WAL that a repository does not have, as ranges: the names of the first and the last one of each.

    Args:
        archived: names of what it has, whatever follows them; directories before them are ignored.
        wanted: segments, in their order.
    """
    there = {segment_of(name) for name in archived}
    ranges: list[tuple[str, str]] = []
    adjacent = False
    for name in wanted:
        if name not in there:
            ranges = [*ranges[:-1], (ranges[-1][0], name)] if adjacent else [*ranges, (name, name)]
        adjacent = name not in there
    return ranges


def before(one: int, other: int) -> bool:
    """Whether a transaction's number was given before another one: they begin anew after 32 bits."""
    return 0 < (other - one) % (1 << 32) < 1 << 31


def next_xid(records: str) -> int | None:
    """The first number that pg_waldump shows to be the next one; none in a segment with neither a checkpoint nor a snapshot of a standby."""
    match = re.search(r"desc: (?:RUNNING_XACTS nextXid |CHECKPOINT_\w+ redo .*?; xid \d+:)(\d+)", records)
    return int(match[1]) if match else None


def ending(records: str, number: int) -> Ending | None:
    """Where records of pg_waldump say that a transaction, or one that it is a part of, ended; none when they do not."""
    pattern = r"^rmgr: Transaction .*? tx: +(\d+), lsn: (\S+), .*? desc: (COMMIT|ABORT) (\S+ \S+) UTC(?:.*?; subxacts:((?: \d+)+))?"
    for match in re.finditer(pattern, records, re.MULTILINE):
        if number in (int(match[1]), *map(int, (match[5] or "").split())):
            return Ending(int(match[1]), match[3] == "COMMIT", match[2], f"{match[4].replace(' ', 'T')}+00:00")
    return None


def last_ending(records: str) -> str:
    """When the last transaction ended in records of pg_waldump, UTC; empty when none did. A restore to a time needs one that ended later than that."""
    times = re.findall(r"^rmgr: Transaction .*? desc: (?:COMMIT|ABORT)\w* (?:\d+: )?(\d{4}-\d\d-\d\d \S+) UTC", records, re.MULTILINE)
    return f"{max(times).replace(' ', 'T')}+00:00" if times else ""


def spans(segments: Sequence[str], size: int = 3) -> Iterator[Sequence[str]]:
    """Segments that are read at once: adjacent ones of a timeline. Each begins with the last one of before, because a record may lie in two."""
    begin = 0
    while begin < len(segments):
        end = begin + 1
        while (
            end < min(begin + size, len(segments))
            and segments[end][:8] == segments[begin][:8]
            and segment_number(segments[end]) == segment_number(segments[end - 1]) + 1
        ):
            end += 1
        yield segments[begin:end]
        begin = end - 1 if end - begin > 1 and end < len(segments) else end


def find_ending(number: int, segments: Sequence[str], read: Callable[[Sequence[str]], str]) -> Ending | None:
    """Where a transaction ended, in as few segments of the WAL as can be.

    Args:
        number: of the transaction.
        segments: names, in their order.
        read: gives what pg_waldump says of adjacent ones.
    """

    @cache
    def following(place: int) -> int | None:
        return next_xid(read(segments[place : place + 1]))

    low, high = 0, len(segments)
    while high - low > 1:
        middle = (low + high) // 2
        known = next(((one, after) for one in range(middle, high) if (after := following(one)) is not None), None)
        if known is None or before(number, known[1]):
            high = middle
        else:
            low = known[0]
    # It was not there yet somewhere in the first of these, if it is in any.
    for span in spans(segments[low:]):
        records = read(span)
        if found := ending(records, number):
            return found
        if any(before(number, int(oldest)) for oldest in re.findall(r"desc: RUNNING_XACTS .*?oldestRunningXid (\d+)", records)):
            return None
    return None


# --- room and time ------------------------------------------------------------------------------------------------------


def needed(database_bytes: int, file_bytes: int) -> int:
    """Bytes that a copy needs."""
    return int((database_bytes + file_bytes) * ROOM)


def room_problem(bytes_needed: int, bytes_free: int, path: str) -> str:
    """Why there is not enough space; nothing when there is."""
    if bytes_needed + RESERVE <= bytes_free:
        return ""
    return (
        f"a copy needs {size(bytes_needed)} below {path} and {size(RESERVE)} must stay free, and {size(bytes_free)} are: make room, or set "
        "restore_data_dir to a directory on another disk"
    )


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def estimate(bytes_needed: int, records: Iterable[Mapping[str, Any]]) -> float | None:
    """Minutes that a restore will take, from the latest drill that measured; None without one.

    The time of what does not grow with the data, Odoo's start above all, is taken as it was.
    """
    measured = [record for record in records if record.get("kind") == "restore" and record.get("bytes") and record.get("restore_s")]
    if not measured:
        return None
    last = max(measured, key=lambda record: str(record["date"]))
    rate = last["bytes"] / max(0.1, last["copy_s"])
    return round((bytes_needed / ROOM / rate + last["restore_s"] - last["copy_s"]) / 60, 1)


# --- the copy's server --------------------------------------------------------------------------------------------------


def replaying(processes: str) -> str:
    """What a server that comes up is at, by the titles of its processes: a segment of the WAL, or the checkpoint after all of them."""
    return "; ".join(title.strip() for title in re.findall(r"postgres: ((?:startup|checkpointer) .*)", processes)).strip()


def server_settings(control: str) -> list[str]:
    """Parameters of the copy's PostgreSQL, ``name=value``.

    Those that recovery compares with the source's are the source's, from ``pg_controldata``.
    """
    found = dict(re.findall(r"^(max_\w+) setting:\s+(\d+)$", control, re.MULTILINE))
    for short, name in (("max_prepared_xacts", "max_prepared_transactions"), ("max_locks_per_xact", "max_locks_per_transaction")):
        if short in found:
            found[name] = found.pop(short)
    return [
        "listen_addresses=",
        "unix_socket_directories=/run/postgresql",
        "hba_file=/etc/berth/pg_hba.conf",
        "ident_file=/etc/berth/pg_ident.conf",
        "archive_mode=off",
        "shared_preload_libraries=",
        "ssl=off",
        "logging_collector=off",
        "log_destination=stderr",
        # Until the end of recovery nobody gets in.
        "hot_standby=off",
        # Thrown away after a crash of the machine.
        "fsync=off",
        "full_page_writes=off",
        "shared_buffers=128MB",
        "maintenance_work_mem=128MB",
        *(f"{name}={value}" for name, value in sorted(found.items())),
    ]


# --- nothing may get out ------------------------------------------------------------------------------------------------

SECRET_COLUMN = re.compile(r"(secret|password|passwd|smtp_pass|token|api_key|private_key|signature|_key$|^key_|credential)")
SECRET_TABLES = ("ir_mail_server", "fetchmail_server", "payment_provider", "delivery_carrier", "res_users_settings")
"""Whose columns of such names are emptied, whatever module brought them."""

SECRET_PARAMETER = "(secret|password|passwd|token|api_?key|private_?key)"  # noqa: S105 - names
# A key for TLS is kept as bytes.
TEXTS = ("text", "character varying", "bytea")
NOWHERE = {"options": "{}", "directory_path": "neutralised", "base_url": "", "base_url_for_files": ""}
"""What says where a storage of the OCA's fs_storage is, and with which keys; column → what it becomes."""
OWN_SERVER = "smtp_host = 'invalid'"
"""The mail server that Odoo's neutralize leaves active, so that no other is used."""


def secret_columns(columns: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Columns that hold keys of other services, by table."""
    return {
        table: names
        for table in SECRET_TABLES
        if (names := sorted(name for name, kind in columns.get(table, {}).items() if kind in TEXTS and SECRET_COLUMN.search(name)))
    }


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def neutralising(columns: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Statements for what Odoo's own neutralize leaves.

    Args:
        columns: table → column → its type, of the schema ``public``.
    """
    statements = [
        f"UPDATE {quoted(table)} SET {', '.join(f'{quoted(name)} = NULL' for name in names)}"  # noqa: S608 - names are quoted
        for table, names in secret_columns(columns).items()
    ]
    if "smtp_user" in columns.get("ir_mail_server", {}):
        statements.append("UPDATE ir_mail_server SET smtp_user = NULL")
    if "ir_config_parameter" in columns:
        statements += [
            "UPDATE ir_config_parameter SET value = gen_random_uuid()::text WHERE key IN ('database.uuid', 'database.secret')",
            f"DELETE FROM ir_config_parameter WHERE key ~* '{SECRET_PARAMETER}' AND key <> 'database.secret'",  # noqa: S608 - names are quoted
            "UPDATE ir_config_parameter SET value = 'http://localhost:8069' WHERE key IN ('web.base.url', 'report.url')",
        ]
    if "webhook_uuid" in columns.get("base_automation", {}):
        statements.append("UPDATE base_automation SET webhook_uuid = gen_random_uuid()::text WHERE webhook_uuid IS NOT NULL")
    if "provider_ref" in columns.get("payment_token", {}):
        statements.append("UPDATE payment_token SET provider_ref = 'neutralised', active = false")
    if "oauth_access_token" in columns.get("res_users", {}):
        statements.append("UPDATE res_users SET oauth_access_token = NULL")
    if "enabled" in columns.get("auth_oauth_provider", {}):
        statements.append("UPDATE auth_oauth_provider SET enabled = false")
    statements += [f"DELETE FROM {table}" for table in ("res_users_apikeys", "auth_totp_device") if table in columns]  # noqa: S608 - names are quoted
    # Of files elsewhere: their servers, with keys where a module keeps them there, and addresses at which browsers fetch them.
    if away := [f"{name} = '{value}'" for name, value in NOWHERE.items() if name in columns.get("fs_storage", {})]:
        statements.append(f"UPDATE fs_storage SET {', '.join(away)}")  # noqa: S608 - names are quoted
    if "fs_url" in columns.get("ir_attachment", {}):
        statements.append("UPDATE ir_attachment SET fs_url = NULL WHERE fs_url IS NOT NULL")
    return statements


def leak_checks(columns: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What must not be in a copy before Odoo starts: words → a question whose answer must be 0."""
    checks = {
        "the mark database.is_neutralized is missing": (
            "SELECT count(*) FROM (SELECT 1) one WHERE NOT EXISTS (SELECT FROM ir_config_parameter WHERE key = 'database.is_neutralized'"
            " AND lower(value) = 'true')"
        ),
        "active mail servers": f"SELECT count(*) FROM ir_mail_server WHERE active AND NOT ({OWN_SERVER})",  # noqa: S608 - names are quoted
        "active scheduled actions": (
            "SELECT count(*) FROM ir_cron WHERE active AND id NOT IN (SELECT res_id FROM ir_model_data WHERE model = 'ir.cron'"
            " AND module = 'base' AND name = 'autovacuum_job')"
        ),
        "system parameters that hold secrets": (
            f"SELECT count(*) FROM ir_config_parameter WHERE key ~* '{SECRET_PARAMETER}' AND key <> 'database.secret'"  # noqa: S608 - names are quoted
        ),
    }
    if "webhook_url" in columns.get("ir_act_server", {}):
        checks["webhooks"] = "SELECT count(*) FROM ir_act_server WHERE state = 'webhook' AND webhook_url ~* '^https?:'"
    if "fetchmail_server" in columns:
        checks["active incoming mail servers"] = "SELECT count(*) FROM fetchmail_server WHERE active"
    if "payment_provider" in columns:
        checks["payment providers that are in use"] = "SELECT count(*) FROM payment_provider WHERE state NOT IN ('test', 'disabled')"
    if "delivery_carrier" in columns:
        checks["carriers that are asked over the network"] = (
            "SELECT count(*) FROM delivery_carrier WHERE active AND delivery_type NOT IN ('fixed', 'base_on_rule')"
        )
    if "iap_account" in columns:
        checks["accounts for in-app purchases"] = "SELECT count(*) FROM iap_account WHERE account_token NOT LIKE '%+disabled'"
    if "auth_oauth_provider" in columns:
        checks["enabled OAuth providers"] = "SELECT count(*) FROM auth_oauth_provider WHERE enabled"
    if "oauth_access_token" in columns.get("res_users", {}):
        checks["tokens of OAuth providers"] = "SELECT count(*) FROM res_users WHERE oauth_access_token <> ''"
    for table, names in secret_columns(columns).items():
        held = " OR ".join(f"{quoted(name)} <> ''" for name in names)
        checks[f"keys or passwords in {table} ({', '.join(names)})"] = f"SELECT count(*) FROM {quoted(table)} WHERE {held}"  # noqa: S608 - names are quoted
    if away := [f"{name} <> '{value}'" for name, value in NOWHERE.items() if name in columns.get("fs_storage", {})]:
        checks["storages of files elsewhere that have an address"] = f"SELECT count(*) FROM fs_storage WHERE {' OR '.join(away)}"  # noqa: S608
    for table in ("res_users_apikeys", "auth_totp_device"):
        if table in columns:
            checks[f"rows of {table}"] = f"SELECT count(*) FROM {table}"  # noqa: S608 - names are quoted
    return checks


PERSONAL: dict[str, dict[str, str]] = {
    "res_partner": {
        **{name: f"'Contact ' || {quoted('id')}" for name in ("name", "complete_name", "commercial_company_name")},
        **dict.fromkeys(("email", "email_normalized"), "'contact' || id || '@example.invalid'"),
        **dict.fromkeys(
            (
                *("phone", "mobile", "phone_sanitized", "street", "street2", "vat", "website", "comment", "function", "ref", "barcode"),
                *("partner_latitude", "partner_longitude", "signup_type"),
            ),
            "NULL",
        ),
    },
    "res_users": {"signature": "NULL"},
    "hr_employee": {
        "name": "'Employee ' || id",
        "legal_name": "'Employee ' || id",
        "work_email": "'employee' || id || '@example.invalid'",
        **dict.fromkeys(
            (
                *("private_email", "private_phone", "private_street", "private_street2", "mobile_phone", "work_phone", "birthday"),
                *(
                    "emergency_contact",
                    "emergency_phone",
                    "identification_id",
                    "passport_id",
                    "ssnid",
                    "pin",
                    "barcode",
                    "permit_no",
                    "visa_no",
                ),
            ),
            "NULL",
        ),
    },
    "mail_message": {"body": "''", "subject": "NULL", "email_from": "'nobody@example.invalid'", "reply_to": "NULL"},
    "mail_mail": {"body_html": "''", "email_to": "NULL", "email_cc": "NULL", "headers": "NULL"},
    "mail_tracking_value": {"old_value_char": "NULL", "new_value_char": "NULL", "old_value_text": "NULL", "new_value_text": "NULL"},
    "crm_lead": {
        "name": "'Lead ' || id",
        "contact_name": "NULL",
        "partner_name": "NULL",
        "email_from": "'lead' || id || '@example.invalid'",
        "email_normalized": "'lead' || id || '@example.invalid'",
        "phone": "NULL",
        "phone_sanitized": "NULL",
        "description": "NULL",
        "street": "NULL",
        "street2": "NULL",
    },
    "res_partner_bank": {"acc_number": "'XX' || id", "sanitized_acc_number": "'XX' || id", "acc_holder_name": "NULL"},
}
"""Table → column → what it becomes. The companies' own contacts are kept: reports show them, and they are no persons."""


def anonymising(columns: Mapping[str, Mapping[str, str]], keep: str) -> list[str]:
    """Statements that take personal data out of a copy.

    Args:
        columns: table → column → its type.
        keep: login that stays as it is, so that somebody can log in.
    """
    statements = []
    for table, changes in PERSONAL.items():
        there = [f"{quoted(name)} = {value}" for name, value in changes.items() if name in columns.get(table, {})]
        if there:
            where = " WHERE id NOT IN (SELECT partner_id FROM res_company)" if table == "res_partner" else ""
            statements.append(f"UPDATE {quoted(table)} SET {', '.join(there)}{where}")  # noqa: S608 - names are quoted
    literal = keep.replace("'", "''")
    statements.append(
        f"UPDATE res_users SET login = 'user' || id, password = NULL WHERE login <> '{literal}'"  # noqa: S608 - names are quoted
        " AND id NOT IN (SELECT res_id FROM ir_model_data WHERE model = 'res.users' AND module = 'base')"
    )
    return statements


def password_hash(password: str, salt: bytes) -> str:
    """The hash of a password as ``res_users`` keeps it: passlib's pbkdf2-sha512, whose base64 has ``.`` for ``+`` and no padding."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode().rstrip("=").replace("+", ".")

    rounds = 25000
    return f"$pbkdf2-sha512${rounds}${text(salt)}${text(hashlib.pbkdf2_hmac('sha512', password.encode(), salt, rounds))}"


# --- what a drill found -------------------------------------------------------------------------------------------------


def row_problems(wanted: Mapping[str, int], found: Mapping[str, int], *, exact: bool) -> list[str]:
    """Tables that do not hold what the set says.

    Args:
        wanted: rows by table, from the manifest.
        found: rows by table, counted in the copy.
        exact: nobody wrote while they were counted for the manifest.
    """
    problems = []
    for table, number in sorted(wanted.items()):
        if table not in found:
            problems.append(f"the table {table} is gone; it had {number} rows")
        elif abs(found[table] - number) > (0 if exact else 10 + number * ROW_TOLERANCE):
            problems.append(f"the table {table} has {found[table]} rows, and the set says {number}")
    return problems


def some(names: Sequence[str], shown: int = 10) -> str:
    """Names for people, not all of many."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def file_problems(missing: Sequence[str], damaged: Sequence[str], shown: int = 10) -> list[str]:
    """Sentences about attachments whose file is not there or not what was stored."""
    return [
        *([f"{len(missing)} files of attachments are missing: {some(missing, shown)}"] if missing else []),
        *([f"{len(damaged)} files of attachments are damaged: {some(damaged, shown)}"] if damaged else []),
    ]


# --- attachments in S3 --------------------------------------------------------------------------------------------------

STORAGE = "berth"
"""Code of the platform's storage in Odoo."""
OBJECT = re.compile(rf"{STORAGE}://([0-9a-f]{{40}})")
"""Where an attachment is, as the platform has Odoo write it: an object is named by its content."""


def objects(stored: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """What a clone needs of a bucket, and sentences about what cannot be brought.

    Args:
        stored: each ``name`` (store_fname of attachments), ``size`` and ``example`` (an attachment).
    """
    wanted, others = [], []
    for one in stored:
        if match := OBJECT.fullmatch(one["name"]):
            wanted.append({"name": match[1], "size": one["size"], "label": f"{match[1]} (attachment {one['example']})"})
        else:
            others.append(f"{one['name']} (attachment {one['example']})")
    return wanted, [
        f"{len(others)} files of attachments are not in the bucket, and a clone does not bring them: {some(others)}"
    ] if others else []


def moving(record: Mapping[str, Any], owner: str, others: Iterable[str]) -> list[str]:
    """Statements with which a copy's attachments are where its objects were brought to.

    Args:
        record: columns of the storage that say where.
        owner: id of the database whose place that is. The copy becomes it; its own would be refused there.
        others: names of objects that are there and which the copy does not need. It deletes them when nothing is aside any more.
    """

    def literal(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    listed = ",".join(name for name in others if re.fullmatch(r"[0-9a-f]{40}", name))
    columns = ", ".join(f"{quoted(name)} = {literal(str(record[name]))}" for name in ("options", "directory_path"))
    return [
        f"UPDATE fs_storage SET {columns} WHERE code = '{STORAGE}'",  # noqa: S608 - names are quoted
        f"UPDATE ir_config_parameter SET value = {literal(owner)} WHERE key = 'database.uuid'",  # noqa: S608 - names are quoted
        "INSERT INTO fs_file_gc (store_fname, fs_storage_code, create_date)"  # noqa: S608 - of hexadecimal digits
        f" SELECT '{STORAGE}://' || name, '{STORAGE}', now() AT TIME ZONE 'UTC' FROM unnest('{{{listed}}}'::text[]) name ON CONFLICT (store_fname) DO NOTHING",
    ]


COPYING = ("database: restore", "database: replay", "files: restore")
"""Steps whose time grows with the data."""

CHECKING = ("database: checksums", "database: amcheck", "database: rows", "files: check")
"""Steps that a drill has and a restore has not."""

OBJECTIVES = {"restore_minutes": ("restore_s", 60.0, "minutes to restore"), "rpo_minutes": ("rpo_s", 60.0, "minutes of work lost")}


def evidence(
    *,
    instance: str,
    began: datetime,
    steps: Mapping[str, float],
    found: Mapping[str, Any],
    problems: Sequence[str],
    objectives: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a drill.

    Args:
        instance: whose set was restored.
        began: when the drill began; what was written after the set's position would have been lost then.
        steps: seconds by step.
        found: ``target``, ``set``, ``position`` (ISO 8601, may be empty), ``database_bytes``, ``file_bytes`` and what the checks saw.
        problems: sentences.
        objectives: of the inventory.
    """
    total = sum(steps.values())
    restore_s = sum(seconds for step, seconds in steps.items() if step not in CHECKING)
    copy_s = sum(steps.get(step, 0.0) for step in COPYING)
    copied = int(found.get("database_bytes", 0)) + int(found.get("file_bytes", 0))
    measured: dict[str, Any] = {
        "restore_s": round(restore_s, 1),
        "total_s": round(total, 1),
        "copy_s": round(copy_s, 1),
        "bytes": copied,
        "gb_per_minute": round(copied / (1 << 30) / max(copy_s, 0.001) * 60, 3),
        "rpo_s": round((began - moment(found["position"])).total_seconds(), 1) if found.get("position") else None,
    }
    broken = list(problems)
    for name, (key, factor, words) in OBJECTIVES.items():
        promised = objectives.get(name)
        if promised is not None and measured[key] is not None and measured[key] > float(promised) * factor:
            broken.append(f"{words}: {measured[key] / factor:.1f}, promised at most {float(promised):g}")
    return {
        "kind": "restore",
        "date": stamp(began),
        "instance": instance,
        "kept": not broken,
        "broken": broken,
        "objectives": {name: objectives[name] for name in OBJECTIVES if objectives.get(name) is not None},
        **measured,
        "steps": {step: round(seconds, 1) for step, seconds in steps.items()},
        "found": dict(found),
    }


def evidence_name(record: Mapping[str, Any]) -> str:
    """File name of a record."""
    # One that cannot begin takes no second, and that of the newest set follows at once.
    older = "older-" if record.get("of") == "older" else ""
    return f"restore-{re.sub('[-:]', '', str(record['date']))}-{older}{record['instance']}.json"


def lines(record: Mapping[str, Any]) -> list[str]:
    """A record for people."""
    width = max((len(step) for step in record["steps"]), default=0)
    rpo = record["rpo_s"]
    return [
        f"{record['instance']}, {record['found'].get('target', '')}, {record['date']}: {'kept' if record['kept'] else 'BROKEN'}",
        *(f"  {step.ljust(width)}  {seconds:7.1f} s" for step, seconds in record["steps"].items()),
        f"  restored in {record['restore_s'] / 60:.1f} min, {size(record['bytes'])}, {record['gb_per_minute']:.2f} GB/min; with all checks"
        f" {record['total_s'] / 60:.1f} min; work lost: {'unknown' if rpo is None else f'{rpo / 60:.1f} min'}",
        *(f"  BROKEN: {words}" for words in record["broken"]),
    ]


# --- what went wrong ----------------------------------------------------------------------------------------------------

CAUSES = (
    (
        r"wrong password or no key found|CryptoError|key/value found outside of section|unable to (flush|decrypt)|cipher header invalid",
        "the passphrase is not that of the repository: restore backup_secrets.passphrase from the escrow",
    ),
    (
        r"recovery ended before configured recovery target was reached",
        "the archive does not reach as far as that: choose an earlier time, or an existing set",
    ),
    (r"No space left on device", "the disk is full"),
    (r"RequestTimeTooSkewed|time is too large", "the clock of this host and that of the store differ: type timedatectl on both"),
    (r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|Forbidden", "the store refuses the keys: see backup_secrets"),
    (r"unable to connect|no route to host|connection refused|i/o timeout|HostConnectError", "the store does not answer"),
    (r"Is there a repository at the following location|repository does not exist", "there is no repository of files of this instance"),
)


def cause(words: str) -> str:
    """What words of pgBackRest, restic or PostgreSQL mean, as a sentence before them; nothing when unknown."""
    for pattern, meaning in CAUSES:
        if re.search(pattern, words, re.IGNORECASE):
            return f"{meaning}. "
    return ""


def last_words(text: str, number: int = 6) -> str:
    """The end of a program's output on one line; lines that name an error win."""
    # What the wait for it caused says nothing.
    found = [line.strip() for line in text.splitlines() if line.strip() and "not accepting connections" not in line]
    loud = [line for line in found if re.search(r"ERROR|FATAL|PANIC|CRITICAL|Fatal:|error:", line)]
    return " / ".join((loud or found)[-number:])
