# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What odoo_filestore decides. What it does with Odoo and S3 is tested with real ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _odoo_filestore as filestore

PLACE = {"endpoint": "https://s3.example.com", "bucket": "odoo-files"}
RECORD = filestore.storage_record(PLACE)


def state(**changes: Any) -> dict[str, Any]:
    return {"storage": {"id": 1, "name": "berth.odoo", **RECORD}, "used": True, "local": 0, "owner": "u", **changes}


def test_the_record_holds_no_keys_and_bounds_every_wait() -> None:
    options = json.loads(RECORD["options"])
    assert not {"key", "secret", "token"} & set(options)
    assert options["config_kwargs"]["read_timeout"] * 5 < 120 / 2
    assert options["client_kwargs"] == {"region_name": "us-east-1"}
    own = json.loads(filestore.storage_record({**PLACE, "region": "eu", "ca_file": "/ca.crt"})["options"])
    assert own["client_kwargs"] == {"region_name": "eu", "verify": "/ca.crt"}
    assert RECORD["directory_path"].format(db_name="main") == "odoo-files/main"


def test_only_what_differs_is_named() -> None:
    assert filestore.filestore_changes(RECORD, state()) == []
    assert filestore.filestore_changes(None, state(storage={})) == []
    assert filestore.filestore_changes(RECORD, state(storage={})) == ["keep attachments in odoo-files/{db_name}"]
    other = {
        **RECORD,
        "options": "{broken",
        "check_connection_method": None,
        "eval_options_from_env": None,
        "use_as_default_for_attachments": None,
    }
    assert filestore.filestore_changes(RECORD, state(storage=other)) == [
        "set options of the storage",
        "set use_as_default_for_attachments of the storage",
    ]
    same = json.dumps(json.loads(RECORD["options"]), indent=4)
    assert filestore.filestore_changes(RECORD, state(storage={**RECORD, "options": same})) == []


def test_what_holds_back_the_collector_is_undone_by_who_says_so_alone() -> None:
    held = state(storage={**RECORD, "autovacuum_gc": None})
    assert filestore.filestore_changes(RECORD, held) == []
    assert filestore.filestore_changes(filestore.storage_record(PLACE, True), held) == ["set autovacuum_gc of the storage"]
    assert filestore.filestore_changes(filestore.storage_record(PLACE, False), held) == []


@pytest.mark.parametrize(
    ("wanted", "found", "words"),
    [
        (RECORD, state(), ""),
        (RECORD, state(storage={}, used=False), ""),
        (None, state(storage={}, used=False), ""),
        (None, state(used=False), ""),
        (None, state(), "Put odoo_filestore back"),
        (filestore.storage_record({**PLACE, "bucket": "other"}), state(), "Copy the objects"),
        (filestore.storage_record({**PLACE, "bucket": "other"}), state(used=False), ""),
        (filestore.storage_record({**PLACE, "endpoint": "https://new.example.com"}), state(), ""),
    ],
)
def test_attachments_are_never_left_behind(wanted: dict[str, Any] | None, found: dict[str, Any], words: str) -> None:
    refusal = filestore.refusal(wanted, found)
    assert words in refusal
    assert bool(refusal) == bool(words)


@pytest.mark.parametrize(("instance", "shared"), [({}, False), ({"filestore": {}}, False), ({"filestore": PLACE}, True)])
def test_who_shares_attachments(instance: dict[str, Any], shared: bool) -> None:
    assert filestore.is_shared(instance) is shared
