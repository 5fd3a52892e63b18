# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore reads where the backups are, and no key is readable by others."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _restic, _restore

PEM = "-----BEGIN CERTIFICATE-----\nx\n"
S3: dict[str, Any] = {
    "name": "offsite",
    "type": "s3",
    "endpoint": "https://s3.example:8333",
    "region": "eu-central-1",
    "bucket": "berth",
    "path": "/site1",
    "authority_certificate": PEM,
}
POSIX = {"name": "nas", "type": "posix", "path": "/mnt/backup"}
SECRETS = {"passphrase": "p" * 20 + "a$s", "offsite": {"access_key": "AK", "secret_key": "SK"}}


@pytest.mark.parametrize(
    ("repository", "place"),
    [
        (S3, "s3:https://s3.example:8333/berth/site1/files"),
        ({**S3, "path": ""}, "s3:https://s3.example:8333/berth/files"),
        (POSIX, "/mnt/backup/files"),
    ],
)
def test_restic_looks_below_the_path(repository: dict[str, Any], place: str) -> None:
    assert _restic.place(repository) == place


def test_keys_are_in_files_that_others_do_not_read() -> None:
    found = _restore.files([S3, POSIX], SECRETS, "berth", "/data")
    for file in found["files"]:
        assert file["dest"].endswith(".crt") or (file["sensitive"] and file["mode"] in ("0400", "0440"))
    texts = {file["dest"]: file["content"] for file in found["files"]}
    assert texts["secrets/offsite.env"].splitlines() == [
        "AWS_ACCESS_KEY_ID=AK",
        "AWS_SECRET_ACCESS_KEY=SK",
        "AWS_DEFAULT_REGION=eu-central-1",
    ]
    assert texts["secrets/nas.env"] == "" and texts["config/offsite.crt"] == PEM
    assert not any(secret in str(found["repositories"]) for secret in ("AK", "SK", "a$s"))
    assert [(one["name"], one["authority"]) for one in found["repositories"]] == [("offsite", True), ("nas", False)]
    # The program that makes sets reads the same, and no configuration of pgBackRest.
    repositories, files = _restic.reach([S3, POSIX], SECRETS)
    assert repositories == found["repositories"]
    assert [file for file in found["files"] if not file["dest"].startswith("pgbackrest/")] == files
    assert _restore.files([], {}, "berth", "/data") == {"repositories": [], "files": []}


def test_a_repository_without_keys_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"backup_secrets\.offsite\.access_key"):
        _restore.files([S3], {"passphrase": "x" * 20}, "berth", "/data")


def test_of_an_instance_only_what_a_restore_needs_is_kept() -> None:
    given = {
        "main": {"database": "db", "domains": ["a"], "filestore": {"bucket": "x"}},
        "two": {"database": "two", "admin_login": "boss", "data_dir": "/d"},
    }
    assert _restore.instances(given) == {
        "main": {"database": "db", "data_dir": "/var/lib/berth/odoo/main", "login": "admin"},
        "two": {"database": "two", "data_dir": "/d", "login": "boss"},
    }
