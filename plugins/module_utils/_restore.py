# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a restore reaches the repositories: configuration of pgBackRest, and places and keys for restic. Pure: no Ansible import, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._pgbackrest import configuration
from ._pgbackrest import files as pgbackrest_files
from ._restic import reach

PGBACKREST_GROUP = 45432


def instances(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """What a restore knows of each instance.

    Args:
        found: C(odoo_instances), or the same with C(data_dir) where Odoo's data directory is elsewhere.
    """
    return {
        name: {
            "database": str(one["database"]),
            "data_dir": str(one.get("data_dir") or f"/var/lib/berth/odoo/{name}"),
            "login": str(one.get("admin_login") or "admin"),
        }
        for name, one in found.items()
    }


def files(repositories: Sequence[Mapping[str, Any]], secrets: Mapping[str, Any], stanza: str, data_dir: str) -> dict[str, Any]:
    """What the program of the role C(restore) reads beside its own configuration.

    Args:
        repositories: C(backup_repositories).
        secrets: C(backup_secrets).
        stanza: name of the cluster.
        data_dir: where the data are restored to, in the container.

    Returns:
        C(repositories), as of restic's; C(files) of C(compose_project), restic's and pgBackRest's.

    Raises:
        ValueError: one of the repositories or their secrets is not as it must be.
    """
    found, files = reach(repositories, secrets)
    if repositories:
        files += pgbackrest_files(repositories, configuration(repositories, secrets, stanza, data_dir), PGBACKREST_GROUP)
    return {"repositories": found, "files": files}
