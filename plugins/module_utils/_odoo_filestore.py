# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What odoo_filestore decides: the storage that an instance shall have, what differs, and what may not be written in an inventory.

Pure functions: no Ansible, no input or output. ``_odoo_inside`` does the work in a container.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

ENDPOINT = re.compile(r"https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
ENDPOINT_RULE = "https:// with a host, and a port where it is not 443, such as https://s3.example.com"
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
BUCKET_RULE = "3 to 63 of a-z, 0-9, '-' and '.', such as odoo-files"
REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
REGION_RULE = "a region such as eu-central-1"
DEFAULT_REGION = "us-east-1"
"""What servers without regions expect."""

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 10
"""s3fs asks five times where an answer stays out: less than a minute, half of what a web worker has."""


def value_problems(filestore: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield key, what was found and what was expected of each value that cannot be right. Missing keys are not looked at."""
    for key, pattern, rule in (("endpoint", ENDPOINT, ENDPOINT_RULE), ("bucket", BUCKET, BUCKET_RULE), ("region", REGION, REGION_RULE)):
        value = filestore.get(key)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            yield key, repr(value), rule
    certificate = filestore.get("authority_certificate")
    if certificate and "-----BEGIN CERTIFICATE-----" not in str(certificate):
        yield "authority_certificate", "a text without a certificate", "PEM text of the authorities that sign the endpoint's certificate"


def is_shared(instance: Mapping[str, Any]) -> bool:
    """Tell whether every application host sees the attachments of an entry of C(odoo_instances)."""
    return bool(instance.get("filestore"))


def storage_record(filestore: Mapping[str, Any], collect: bool | None = None) -> dict[str, Any]:
    """Return the values of Odoo's C(fs.storage) record. The keys are not among them: botocore reads them from a file.

    * An object is named by its content's SHA-1. Names of files would be copied and deleted in S3 with each upload, two users who upload
      the same content at the same moment fail each other then, and they say what is in them.
    * The database's name is in the path, so a copy under another name neither reads nor deletes what is the original's.
    * Nothing is asked before each use: every operation says by itself what is wrong.
    * Odoo does not cache the file system: fsspec does, and knows of forks.

    Args:
        filestore: ``endpoint``, ``bucket``, and if there are any ``region`` and ``ca_file``, a path in the container.
        collect: Whether objects that nobody uses any more are deleted. None leaves it as it is, which is yes in a new storage and no after a restore or
            a clone, until what it replaced is forgotten: that has its attachments in the same place.
    """
    client = {"region_name": filestore.get("region") or DEFAULT_REGION}
    if filestore.get("ca_file"):
        client["verify"] = filestore["ca_file"]
    options = {
        "endpoint_url": filestore["endpoint"],
        "client_kwargs": client,
        "config_kwargs": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            # s3fs repeats by itself; both would multiply.
            "retries": {"mode": "standard", "total_max_attempts": 1},
            # Own servers have neither the names nor the certificates for a host name a bucket; AWS takes both ways.
            "s3": {"addressing_style": "path"},
        },
        "use_listings_cache": False,
    }
    return {
        "protocol": "s3",
        "options": json.dumps(options, sort_keys=True),
        "directory_path": f"{filestore['bucket']}/{{db_name}}",
        "eval_options_from_env": False,
        "is_cacheable": False,
        "check_connection_method": False,
        "optimizes_directory_path": False,
        "use_as_default_for_attachments": True,
        "use_filename_obfuscation": True,
        **({} if collect is None else {"autovacuum_gc": collect}),
    }


def filestore_changes(wanted: Mapping[str, Any] | None, state: Mapping[str, Any]) -> list[str]:
    """Say in words what is to do, moving aside.

    Args:
        wanted: As :func:`storage_record` returns it.
        state: As ``_odoo_inside.read_filestore`` returns it.
    """
    if wanted is None:
        return []
    storage = state["storage"]
    if not storage:
        return [f"keep attachments in {wanted['directory_path']}"]
    return [f"set {key} of the storage" for key in wanted if _plain(key, storage.get(key)) != _plain(key, wanted[key])]


def _plain(key: str, value: Any) -> Any:
    if key == "options":
        try:
            return json.loads(value or "{}")
        except ValueError:
            return value
    return value or None


def refusal(wanted: Mapping[str, Any] | None, state: Mapping[str, Any]) -> str:
    """Return why the attachments cannot be where they are wanted; empty when they can.

    Args:
        wanted: As :func:`storage_record` returns it, nothing for a local filestore.
        state: As ``_odoo_inside.read_filestore`` returns it.
    """
    storage = state["storage"]
    if not storage or not state["used"]:
        return ""
    where = storage.get("directory_path")
    if wanted is None:
        return (
            f"the database has attachments in S3 ({where}), and odoo_filestore is empty: they would not be found. "
            "Put odoo_filestore back as it was, and the keys with it"
        )
    if where != wanted["directory_path"]:
        return (
            f"the database has attachments in {where}, and odoo_filestore names {wanted['directory_path']}: they would not be found there. "
            "Copy the objects to the new bucket first, change directory_path of the storage berth in Odoo (Settings, Technical, FS Storage), then run again"
        )
    return ""
