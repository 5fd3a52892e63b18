# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups: what is wrong with the description of repositories, pgBackRest's configuration, what members did. Pure: no Ansible import, no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

HOME = "/etc/pgbackrest"
"""Where the container finds the configuration and the certificates. pgBackRest looks there by itself."""

KEYS = {
    "s3": {"name", "type", "endpoint", "region", "bucket", "path", "authority_certificate"},
    "posix": {"name", "type", "path"},
}
"""What a repository of each type may say."""

PASSPHRASE_LENGTH = 20
"""Characters that the passphrase must have: it protects everything that leaves the platform."""


class Mistake(NamedTuple):
    """Something that is wrong with the repositories or their secrets. A secret's value is never in it."""

    subject: str
    """The variable with its key, such as C(backup_repositories[0].endpoint)."""
    found: str
    expected: str
    remedy: str
    """What to type."""


def below(repository: Mapping[str, Any], name: str) -> str:
    """A directory below a repository's path, with a slash before it and none after it."""
    return "/" + "/".join(part for part in [str(repository.get("path") or "").strip("/"), name] if part)


def _word(value: Any) -> bool:
    """Whether a value can stand in a line of the configuration: text without whitespace and control characters."""
    return isinstance(value, str) and bool(re.fullmatch(r"[\x21-\x7e]+", value))


def mistakes(repositories: Any, secrets: Any, retention: Any = None) -> Iterator[Mistake]:
    """Look at C(backup_repositories), C(backup_secrets) and C(backup_retention) before anything is made of them."""
    example = "backup_repositories: [{name: offsite, type: s3, endpoint: 'https://s3.example:8333', bucket: berth}]"
    if not isinstance(repositories, Sequence) or isinstance(repositories, str) or not all(isinstance(one, Mapping) for one in repositories):
        yield Mistake("backup_repositories", f"a {type(repositories).__name__}", "a list of one or two repositories", example)
        return
    if len(repositories) > 2:
        yield Mistake("backup_repositories", f"{len(repositories)} repositories", "one or two", "remove the others")
    names = [one.get("name") for one in repositories]
    for number, one in enumerate(repositories):
        subject = f"backup_repositories[{number}]"
        if not isinstance(one.get("name"), str) or not re.fullmatch(r"[a-z][a-z0-9]{0,15}", one["name"]) or one["name"] == "passphrase":
            yield Mistake(
                f"{subject}.name", repr(one.get("name")), "1 to 16 of a-z and 0-9, a letter first, and not passphrase", "name: offsite"
            )
        elif names.index(one["name"]) < number:
            yield Mistake(f"{subject}.name", f"{one['name']}, like another one", "a name of its own", f"name: {one['name'][:15]}2")
        yield from _repository(subject, one)
    if repositories:
        yield from _secrets(repositories, secrets)
    yield from _retention(retention or {})


def _repository(subject: str, one: Mapping[str, Any]) -> Iterator[Mistake]:
    kind = one.get("type")
    if kind not in KEYS:
        yield Mistake(f"{subject}.type", repr(kind), "s3 or posix", "type: s3")
        return
    for key in sorted(set(one) - KEYS[kind]):
        yield Mistake(f"{subject}.{key}", "a key", f"one of {', '.join(sorted(KEYS[kind]))} for type {kind}", f"remove {key}")
    path = one.get("path") or ""
    if not isinstance(path, str) or (path and not re.fullmatch(r"(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+", path)) or (kind == "posix" and not path):
        yield Mistake(
            f"{subject}.path",
            repr(one.get("path")),
            "an absolute path of letters, digits, dots, - and _"
            + (", a directory that every database host has mounted" if kind == "posix" else ""),
            "path: /srv/backup" if kind == "posix" else "path: /site1",
        )
    if kind == "posix":
        return
    endpoint = one.get("endpoint")
    try:
        parts = urlsplit(endpoint if isinstance(endpoint, str) else "")
        good = parts.scheme == "https" and bool(parts.hostname) and parts.path in {"", "/"} and parts.port != 0
        good = good and not (parts.query or parts.fragment or parts.username) and _word(endpoint)
    except ValueError:
        good = False
    if not good:
        yield Mistake(f"{subject}.endpoint", repr(endpoint), "https://host or https://host:port", "endpoint: https://s3.example:8333")
    if not isinstance(one.get("bucket"), str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", one["bucket"]):
        yield Mistake(f"{subject}.bucket", repr(one.get("bucket")), "the name of a bucket, 3 to 63 of a-z, 0-9, - and .", "bucket: berth")
    if one.get("region") and not _word(one["region"]):
        yield Mistake(f"{subject}.region", repr(one["region"]), "a region's name, as the provider writes it", "region: us-east-1")
    authority = one.get("authority_certificate") or ""
    if authority and "-----BEGIN CERTIFICATE-----" not in str(authority):
        yield Mistake(
            f"{subject}.authority_certificate", "no PEM text", "the certificate of the authority that signed the endpoint's", "paste it"
        )


def _secrets(repositories: Sequence[Mapping[str, Any]], secrets: Any) -> Iterator[Mistake]:
    if not isinstance(secrets, Mapping):
        yield Mistake("backup_secrets", "nothing", "a dictionary", "backup_secrets: {passphrase: (vaulted)}, see docs/backup.md")
        return
    passphrase = secrets.get("passphrase")
    if not _word(passphrase) or len(str(passphrase)) < PASSPHRASE_LENGTH:
        expected = f"at least {PASSPHRASE_LENGTH} printable characters without spaces"
        yield Mistake("backup_secrets.passphrase", "something else", expected, "openssl rand -hex 32, and ansible-vault it")
    for one in repositories:
        if one.get("type") != "s3" or not isinstance(one.get("name"), str):
            continue
        keys = secrets.get(one["name"])
        for key in ("access_key", "secret_key"):
            if not isinstance(keys, Mapping) or not _word(keys.get(key)):
                subject = f"backup_secrets.{one['name']}.{key}"
                expected = "the key's text without spaces, quoted when it is all digits"
                yield Mistake(
                    subject, "nothing, or something else", expected, f"backup_secrets: {{{one['name']}: {{access_key: …, secret_key: …}}}}"
                )


def _retention(found: Any) -> Iterator[Mistake]:
    expected, remedy = "days, or full, a number above 0", "backup_retention: {days: 14}, or with the number of full backups {full: 4}"
    if not isinstance(found, Mapping) or set(found) - {"days", "full"}:
        yield Mistake("backup_retention", "something else", expected, remedy)
        return
    for key, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield Mistake(f"backup_retention.{key}", repr(value), expected, remedy)
    if len(found) > 1:
        # pgBackRest expires by one of them.
        yield Mistake("backup_retention", "both days and full", "one of them", remedy)


def check(repositories: Sequence[Mapping[str, Any]], secrets: Mapping[str, Any], retention: Any = None) -> None:
    """Raise ValueError for what :func:`mistakes` finds."""
    found = [
        f"{item.subject} is {item.found}, expected {item.expected}: {item.remedy}" for item in mistakes(repositories, secrets, retention)
    ]
    if found:
        raise ValueError("; ".join(found))


def configuration(
    repositories: Sequence[Mapping[str, Any]],
    secrets: Mapping[str, Any],
    stanza: str,
    data_dir: str,
    *,
    process_max: int = 1,
    queue_max: str = "4GB",
    retention: Mapping[str, Any] | None = None,
) -> str:
    """The text of pgbackrest.conf, which holds secrets.

    What it writes to is /run/postgresql (locks) and the file system of the data (the spool), because the
    container's own is read-only. Its log is what it prints.

    Args:
        repositories: C(backup_repositories).
        secrets: C(backup_secrets).
        stanza: name of the cluster.
        data_dir: PostgreSQL's data directory in the container.
        process_max: processes that compress and send.
        queue_max: WAL that may wait before it is dropped, so that it does not fill the disk; with a unit, as PostgreSQL writes it.
        retention: C(backup_retention): C(days), the window in which every moment can be restored, 14 without anything, or C(full), full backups kept.

    Raises:
        ValueError: one of the repositories or their secrets is not as it must be.
    """
    check(repositories, secrets, retention)
    kept = retention or {"days": 14}
    common: dict[str, Any] = {
        "archive-async": "y",
        "archive-push-queue-max": queue_max,
        "compress-type": "zst",
        "compress-level": 3,
        "delta": "y",
        "lock-path": "/run/postgresql/pgbackrest",
        "log-level-console": "warn",
        "log-level-file": "off",
        "process-max": max(1, int(process_max)),
        "spool-path": "/var/lib/postgresql/pgbackrest",
        "start-fast": "y",
    }
    lines = ["[global]", *(f"{name}={value}" for name, value in common.items())]
    for number, repository in enumerate(repositories, 1):
        options = _options(repository, secrets)
        # By time: a full backup goes when a newer one is older than the window, so every moment of it can be restored and one always stays.
        kind = "time" if "days" in kept else "count"
        options |= {"retention-full-type": kind, "retention-full": kept["days" if kind == "time" else "full"]}
        lines += [f"repo{number}-{name}={value}" for name, value in options.items()]
    # PostgreSQL waits for this command when it stops, and with it whoever wants to lead next. Sending goes on without it.
    lines += ["[global:archive-push]", "archive-timeout=10", "io-timeout=10"]
    return "\n".join([*lines, f"[{stanza}]", f"pg1-path={data_dir}", "pg1-socket-path=/run/postgresql"]) + "\n"


def _options(repository: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, Any]:
    """One repository's options without the prefix repoN-."""
    options: dict[str, Any] = {
        "type": repository["type"],
        "path": below(repository, "postgresql"),
        "bundle": "y",
        "block": "y",
        # A page of PostgreSQL, whatever the size of its file: pgBackRest takes up to eleven at a time, so that 1 % of the rows, anywhere, is all of a table.
        "block-size-map": "16KiB=8KiB",
        "cipher-type": "aes-256-cbc",
        "cipher-pass": secrets["passphrase"],
    }
    if repository["type"] == "s3":
        keys, endpoint = secrets[repository["name"]], urlsplit(str(repository["endpoint"]))
        options |= {
            "s3-endpoint": endpoint.hostname,
            "s3-region": repository.get("region") or "us-east-1",
            "s3-bucket": repository["bucket"],
            "s3-key": keys["access_key"],
            "s3-key-secret": keys["secret_key"],
            "s3-uri-style": "path",
            "storage-port": endpoint.port or 443,
        }
        if repository.get("authority_certificate"):
            options["storage-ca-file"] = f"{HOME}/{repository['name']}.crt"
    return options


def files(repositories: Sequence[Mapping[str, Any]], text: str, group: int) -> list[dict[str, Any]]:
    """The configuration and the certificates as files of C(compose_project), below C(pgbackrest/), readable by a group only.

    Args:
        repositories: C(backup_repositories).
        text: what :func:`configuration` returned.
        group: id of the group that reads them.
    """
    common = {"group": group, "mode": "0440", "services": []}
    found = [{**common, "dest": "pgbackrest/pgbackrest.conf", "content": text, "sensitive": True}] if repositories else []
    for one in repositories:
        if one.get("authority_certificate"):
            found.append({**common, "dest": f"pgbackrest/{one['name']}.crt", "content": str(one["authority_certificate"])})
    return found


ELSEWHERE = "another member leads, and does it"
"""What the program of a member says that follows the one that leads (roles/postgresql/files/backup.py)."""


class Backed(NamedTuple):
    """What came of a backup that every member was asked for."""

    failed: str
    """Why nobody made it, or not in every repository; empty when all is well."""
    lines: list[str]
    """What was made, and which members could not answer, for people."""


def _run_of(answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool, str]:
    """What the run of a host left: its results, whether it ended well, and its words. Nothing where the unit did not start."""
    lines = str(answer.get("stdout", "")).split("\n")
    if "--" not in lines:
        return [], False, ""
    run, status, *results = lines[: lines.index("--")]
    read = [json.loads(line) for line in results]
    return [one for one in read if run and one.get("run") == run], status == "0" and bool(run), "; ".join(lines[lines.index("--") + 1 :])


def backed(begun: Mapping[str, Mapping[str, Any]], read: Mapping[str, Mapping[str, Any]]) -> Backed:
    """Judge a backup of the database by what all hosts say together: one of them makes it, and what is wrong with another one is no reason to fail.

    Args:
        begun: host to the registered result of starting the unit.
        read: host to that of a command that printed the unit's InvocationID, its ExecMainStatus and the file of results, and after a line C(--) its words.
    """
    made, wrong, silent = [], [], []
    for host, answer in begun.items():
        looked = read.get(host) or {}
        if away := next((one for one in (answer, looked) if one.get("unreachable")), None):
            silent.append(f"{host} could not be reached: {' '.join(str(away.get('msg', 'no answer')).split())}")
            continue
        results, well, words = _run_of(looked)
        for one in results:
            if one["error"]:
                wrong.append(f"{host}: {one['error']}")
            else:
                source = f", {one['source']}" if one["source"] else ""
                made.append(f"{host} made {one['label']} in {one['repository']}: {one['bytes']} bytes in {one['seconds']} s{source}")
        if not results and not (well and words == ELSEWHERE):
            silent.append(f"{host} could not answer: {words or answer.get('stderr') or 'look at journalctl -u berth-postgresql-backup@*'}")
    if wrong:
        return Backed(f"no backup of the database was made everywhere: {'; '.join(wrong)}", [*made, *silent])
    if not made:
        return Backed(f"no backup of the database was made: {'; '.join(silent) or 'every member says that ' + ELSEWHERE}", [])
    return Backed("", [*made, *silent])
