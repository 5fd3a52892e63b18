# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where restic keeps the files of instances, and how it gets in. Pure functions: no Ansible import, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._pgbackrest import below, check

FILES = "files"
"""What is below a repository's path; PostgreSQL's backups are beside it."""


def place(repository: Mapping[str, Any]) -> str:
    """Return restic's name of the directory that holds a repository for each instance.

    Args:
        repository: one of C(backup_repositories).
    """
    path = below(repository, FILES)
    return f"s3:{str(repository['endpoint']).rstrip('/')}/{repository['bucket']}{path}" if repository["type"] == "s3" else path


def environment(repository: Mapping[str, Any], secrets: Mapping[str, Any]) -> str:
    """Return the text of the file with what restic needs to get into a repository in S3; empty for a directory."""
    if repository["type"] != "s3":
        return ""
    keys = secrets[repository["name"]]
    values = {
        "AWS_ACCESS_KEY_ID": keys["access_key"],
        "AWS_SECRET_ACCESS_KEY": keys["secret_key"],
        "AWS_DEFAULT_REGION": repository.get("region") or "us-east-1",
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def reach(repositories: Sequence[Mapping[str, Any]], secrets: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what a program that runs restic reads beside its own configuration.

    Args:
        repositories: C(backup_repositories).
        secrets: C(backup_secrets).

    Returns:
        The repositories, each with C(name), C(type), C(path), C(restic) and C(authority), whether it has a certificate of its own; and files of
        C(compose_project), the passphrase and each repository's keys below C(secrets/), its certificate below C(config/).

    Raises:
        ValueError: one of the repositories or their secrets is not as it must be.
    """
    check(repositories, secrets)
    secret = {"sensitive": True, "mode": "0400", "services": []}
    files = [{**secret, "dest": "secrets/passphrase", "content": str(secrets["passphrase"])}] if repositories else []
    found = []
    for one in repositories:
        authority = str(one.get("authority_certificate") or "")
        described = {"name": one["name"], "type": one["type"], "path": str(one.get("path") or ""), "restic": place(one)}
        found.append({**described, "authority": bool(authority)})
        files.append({**secret, "dest": f"secrets/{one['name']}.env", "content": environment(one, secrets)})
        if authority:
            files.append({"dest": f"config/{one['name']}.crt", "content": authority, "services": []})
    return found, files
