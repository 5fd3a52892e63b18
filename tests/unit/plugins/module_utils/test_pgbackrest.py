# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of backups, and pgBackRest's configuration made of them."""

from __future__ import annotations

import configparser
import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.berth.odoo.plugins.filter.pgbackrest import pgbackrest as as_filter
from ansible_collections.berth.odoo.plugins.module_utils._pgbackrest import ELSEWHERE, backed, configuration, files, mistakes

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
S3 = {
    "name": "offsite",
    "type": "s3",
    "endpoint": "https://s3.example:8333",
    "bucket": "berth",
    "path": "/site1",
    "authority_certificate": PEM,
}
POSIX = {"name": "near", "type": "posix", "path": "/srv/backup"}
SECRETS = {"passphrase": "p" * 32, "offsite": {"access_key": "AKIA", "secret_key": "the/secret+key="}}


def read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(text)
    return parser


def test_two_repositories():
    parser = read(configuration([S3, POSIX], SECRETS, "berth", "/var/lib/postgresql/17", process_max=2, queue_max="2048MB"))
    settings = parser["global"]
    assert settings["repo1-type"] == "s3"
    assert settings["repo1-path"] == "/site1/postgresql"
    assert (settings["repo1-s3-endpoint"], settings["repo1-storage-port"]) == ("s3.example", "8333")
    assert settings["repo1-storage-ca-file"] == "/etc/pgbackrest/offsite.crt"
    assert settings["repo1-s3-key-secret"] == "the/secret+key="
    assert (settings["repo2-type"], settings["repo2-path"]) == ("posix", "/srv/backup/postgresql")
    assert {settings[f"repo{number}-cipher-type"] for number in (1, 2)} == {"aes-256-cbc"}
    assert "repo2-s3-key" not in settings
    assert settings["archive-push-queue-max"] == "2048MB"
    assert parser["berth"]["pg1-path"] == "/var/lib/postgresql/17"


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        (None, ("time", "14")),
        ({"days": 30}, ("time", "30")),
        ({}, ("time", "14")),
        ({"full": 4}, ("count", "4")),
    ],
)
def test_retention(retention, expected):
    settings = read(configuration([POSIX], SECRETS, "berth", "/d", retention=retention))["global"]
    assert (settings.get("repo1-retention-full-type"), settings["repo1-retention-full"]) == expected


@pytest.mark.parametrize(
    ("retention", "subjects"),
    [
        ({"days": 14, "full": 2}, ["backup_retention"]),
        ({"days": 0}, ["backup_retention.days"]),
        ({"full": "4"}, ["backup_retention.full"]),
        ({"weeks": 2}, ["backup_retention"]),
        ("14d", ["backup_retention"]),
        ({"days": True}, ["backup_retention.days"]),
    ],
)
def test_a_wrong_retention_is_named(retention, subjects):
    assert [item.subject for item in mistakes([POSIX], SECRETS, retention)] == subjects
    with pytest.raises(ValueError, match=r"backup_retention.*\{days: 14\}"):
        configuration([POSIX], SECRETS, "berth", "/d", retention=retention)


def test_the_port_of_https_and_the_systems_authorities():
    text = configuration([{**S3, "endpoint": "https://s3.example", "authority_certificate": ""}], SECRETS, "berth", "/d")
    assert "repo1-storage-port=443" in text
    assert "storage-ca-file" not in text


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({"name": "Off site"}, "backup_repositories[0].name"),
        ({"name": "passphrase"}, "backup_repositories[0].name"),
        ({"type": "ftp"}, "backup_repositories[0].type"),
        ({"endpoint": "http://s3.example"}, "backup_repositories[0].endpoint"),
        ({"endpoint": "https://s3.example:x"}, "backup_repositories[0].endpoint"),
        ({"endpoint": "https://s3.example/\nrepo1-type=posix"}, "backup_repositories[0].endpoint"),
        ({"endpoint": "https://user@s3.example"}, "backup_repositories[0].endpoint"),
        ({"bucket": "a b"}, "backup_repositories[0].bucket"),
        ({"region": "eu central"}, "backup_repositories[0].region"),
        ({"path": "site1"}, "backup_repositories[0].path"),
        ({"path": "/site1/../other"}, "backup_repositories[0].path"),
        ({"path": "/site1\nx=y"}, "backup_repositories[0].path"),
        ({"authority_certificate": "ca.crt"}, "backup_repositories[0].authority_certificate"),
        ({"passphrase": "x"}, "backup_repositories[0].passphrase"),
    ],
)
def test_a_wrong_repository_is_named(change, subject):
    secrets = {**SECRETS, str(change.get("name")): SECRETS["offsite"]} if change.get("name") == "Off site" else SECRETS
    assert [item.subject for item in mistakes([{**S3, **change}], secrets) if not item.subject.startswith("backup_secrets")] == [subject]


def test_a_posix_repository_needs_a_path_and_no_bucket():
    found = [item.subject for item in mistakes([{"name": "near", "type": "posix", "bucket": "x"}], SECRETS)]
    assert found == ["backup_repositories[0].bucket", "backup_repositories[0].path"]


@pytest.mark.parametrize(
    ("secrets", "subjects"),
    [
        (None, ["backup_secrets"]),
        ({**SECRETS, "passphrase": "short"}, ["backup_secrets.passphrase"]),
        ({**SECRETS, "passphrase": 12345678901234567890123}, ["backup_secrets.passphrase"]),
        ({**SECRETS, "passphrase": "p" * 30 + "\nrepo1-type=posix"}, ["backup_secrets.passphrase"]),
        ({"passphrase": "p" * 32}, ["backup_secrets.offsite.access_key", "backup_secrets.offsite.secret_key"]),
        ({**SECRETS, "offsite": {"access_key": "a", "secret_key": "hidden value"}}, ["backup_secrets.offsite.secret_key"]),
    ],
)
def test_a_wrong_secret_is_named_and_not_shown(secrets, subjects):
    found = list(mistakes([S3], secrets))
    assert [item.subject for item in found] == subjects
    assert not any(value in str(found) for value in ("short", "hidden value", "12345678901234567890123"))


def test_no_repository_needs_no_secret():
    assert not list(mistakes([], None))
    assert as_filter([], None, "berth", "/d") == []


@pytest.mark.parametrize("found", ["offsite", {"name": "offsite"}, ["offsite"]])
def test_something_else_than_a_list(found):
    assert [item.subject for item in mistakes(found, SECRETS)] == ["backup_repositories"]


def test_three_and_two_of_one_name():
    assert [item.subject for item in mistakes([POSIX, {**POSIX}, S3], SECRETS)] == ["backup_repositories", "backup_repositories[1].name"]


def test_files_are_for_the_group_alone():
    found = files([S3, POSIX], "text", 45432)
    assert [item["dest"] for item in found] == ["pgbackrest/pgbackrest.conf", "pgbackrest/offsite.crt"]
    assert {(item["mode"], item["group"]) for item in found} == {("0440", 45432)}
    assert found[0]["sensitive"]


def test_the_filter_says_what_is_wrong():
    with pytest.raises(AnsibleFilterError, match=r"backup_repositories\[0\]\.endpoint is 'http://x'.*https://s3\.example"):
        as_filter([{**S3, "endpoint": "http://x"}], SECRETS, "berth", "/d")


# --- what members did

RESULT = {"run": "r", "repository": "near", "label": "20261130-1F", "bytes": 5, "seconds": 2.5, "source": "read from db2", "error": ""}
DOWN = "PostgreSQL on this host does not answer: container postgresql-postgresql-1 is not running"
MADE = "db1 made 20261130-1F in near: 5 bytes in 2.5 s, read from db2"
AWAY = {"unreachable": True, "msg": "Failed to connect to the host via ssh:\nConnection refused"}


def ran(words: str, status: int = 0, *results: dict[str, Any]) -> dict[str, Any]:
    lines = ["r", str(status), *map(json.dumps, results), "--", *words.split("\n")]
    return {"stdout": "\n".join(lines)}


@pytest.mark.parametrize(
    ("members", "failed", "lines"),
    [
        ({"db1": ran("20261130-1F: 5 bytes", 0, RESULT), "db2": ran(ELSEWHERE)}, "", [MADE]),
        ({"db1": ran("x", 0, RESULT), "db2": ran(ELSEWHERE), "db3": ran(DOWN, 69)}, "", [MADE, f"db3 could not answer: {DOWN}"]),
        # etcd told it who leads.
        (
            {"db1": ran("x", 0, RESULT), "db3": ran(f"db1 leads, and makes it. Of this member: {DOWN}")},
            "",
            [MADE, f"db3 could not answer: db1 leads, and makes it. Of this member: {DOWN}"],
        ),
        (
            {"db1": ran("x", 0, RESULT), "db2": AWAY},
            "",
            [MADE, "db2 could not be reached: Failed to connect to the host via ssh: Connection refused"],
        ),
        # It led, as the other one knows, and is away.
        (
            {"db1": AWAY, "db2": ran(ELSEWHERE)},
            "no backup of the database was made: db1 could not be reached: Failed to connect to the host via ssh: Connection refused",
            [],
        ),
        ({"db1": ran(DOWN, 69)}, f"no backup of the database was made: db1 could not answer: {DOWN}", []),
        (
            {"db1": ran("x", 1, {**RESULT, "error": "near is full"}, {**RESULT, "repository": "far"}), "db2": ran(DOWN, 69)},
            "no backup of the database was made everywhere: db1: near is full",
            [MADE.replace("near", "far"), f"db2 could not answer: {DOWN}"],
        ),
        # What an earlier run left is not this one's.
        (
            {"db1": ran(ELSEWHERE, 0, {**RESULT, "run": "s"})},
            "no backup of the database was made: every member says that another member leads, and does it",
            [],
        ),
    ],
)
def test_a_backup_that_was_made_is_good_whoever_is_down(members: dict[str, Any], failed: str, lines: list[str]) -> None:
    assert backed(members, {name: one for name, one in members.items() if one is not AWAY}) == (failed, lines)


def test_a_host_without_the_unit_or_lost_meanwhile_has_a_reason() -> None:
    missing = {"stderr": "Unit berth-postgresql-backup@full.service not found."}
    assert backed({"db1": missing}, {"db1": {"stdout": "\n0\n--"}}).failed.endswith(f"db1 could not answer: {missing['stderr']}")
    assert "db1 could not be reached: Failed" in backed({"db1": {"stdout": ""}}, {"db1": AWAY}).failed
