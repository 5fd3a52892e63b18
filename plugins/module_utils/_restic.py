# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where restic keeps the files of instances, and how it gets in. Pure functions: no Ansible import, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FILES = "files"
"""What is below a repository's path; PostgreSQL's backups are beside it."""


class Missing(ValueError):
    """A variable lacks something. The text names it and says what to type."""


def place(repository: Mapping[str, Any]) -> str:
    """Return restic's name of the directory that holds a repository for each instance.

    Args:
        repository: one of C(backup_repositories).

    Raises:
        Missing: it lacks what its type needs.
    """
    name, kind = repository.get("name"), repository.get("type")
    for key in ("endpoint", "bucket") if kind == "s3" else ("path",):
        if not repository.get(key):
            raise Missing(f"backup_repositories: {name} is of type {kind} and has no {key}; add {key}: … to it")
    path = "/".join(part for part in (str(repository.get("path") or "").strip("/"), FILES) if part)
    return f"s3:{str(repository['endpoint']).rstrip('/')}/{repository['bucket']}/{path}" if kind == "s3" else f"/{path}"


def environment(repository: Mapping[str, Any], secrets: Mapping[str, Any]) -> str:
    """Return the text of the file with what restic needs to get into a repository in S3; empty for a directory.

    Raises:
        Missing: C(backup_secrets) has no keys for it, or some that cannot be lines of such a file.
    """
    if repository["type"] != "s3":
        return ""
    name = repository["name"]
    keys = secrets.get(name)
    lines = []
    for key, variable in (("access_key", "AWS_ACCESS_KEY_ID"), ("secret_key", "AWS_SECRET_ACCESS_KEY")):
        value = keys.get(key) if isinstance(keys, Mapping) else None
        # Never the value: it may be the right one under the wrong name.
        if not isinstance(value, str) or not value or any(character in value for character in "\n\r\0"):
            raise Missing(
                f"backup_secrets.{name}.{key} must be text on one line; type: ansible-vault edit, and add it below backup_secrets"
            )
        lines.append(f"{variable}={value}\n")
    return "".join([*lines, f"AWS_DEFAULT_REGION={repository.get('region') or 'us-east-1'}\n"])


def files(repositories: Sequence[Mapping[str, Any]], secrets: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the program of the role C(backup) reads beside its own configuration.

    Args:
        repositories: C(backup_repositories).
        secrets: C(backup_secrets).

    Returns:
        C(repositories), each with C(name), C(type), C(restic), C(path) and C(authority); C(authorities) and C(secrets), name of a file to its content.

    Raises:
        Missing: as of :func:`place` and :func:`environment`, or there is no passphrase.
    """
    passphrase = secrets.get("passphrase")
    if repositories and (not isinstance(passphrase, str) or not passphrase or "\n" in passphrase):
        raise Missing("backup_secrets.passphrase must be text on one line; berth.odoo.secrets_init makes one")
    secret = {"passphrase": passphrase} if repositories else {}
    return {
        "repositories": [
            {
                "name": one["name"],
                "type": one["type"],
                "restic": place(one),
                "path": str(one.get("path") or ""),
                "authority": bool(one.get("authority_certificate")),
            }
            for one in repositories
        ],
        "authorities": {f"{one['name']}.crt": one["authority_certificate"] for one in repositories if one.get("authority_certificate")},
        "secrets": {**secret, **{f"{one['name']}.env": environment(one, secrets) for one in repositories}},
    }
