# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a clone brings from the original's place in S3 into its own, with a server of dictionaries. With a real one: tests/hybrid."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import pytest

FILES = Path(__file__).resolve().parents[3] / "roles/restore/files"


def program(name: str) -> Any:
    """A file of the role that stands alone."""
    specification = importlib.util.spec_from_file_location(f"restore_{name}", FILES / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[f"restore_{name}"] = module
    specification.loader.exec_module(module)
    return module


objects, rules = program("objects"), program("rules")


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str) -> None:
        """Of a code."""
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}}


class Server:
    """A bucket: what is there by key, older versions by key, and what was written."""

    def __init__(self, found: dict[str, bytes], versions: dict[str, bytes] | None = None) -> None:
        """``versions`` are of objects that were deleted."""
        self.found, self.versions, self.written, self.refused = dict(found), versions or {}, [], ""

    def get_object(self, *, Bucket: str, Key: str, VersionId: str = "") -> dict[str, Any]:  # noqa: N803 - botocore's
        if self.refused:
            raise ClientError(self.refused)
        assert Bucket == "files"
        content = self.versions.get(Key) if VersionId else self.found.get(Key)
        if content is None:
            raise ClientError("NoSuchKey")
        return {"Body": io.BytesIO(content), "ContentType": "text/plain"}

    def list_object_versions(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:  # noqa: N803
        if self.versions is None:
            raise ClientError("AccessDenied")
        # A longer name begins so, too.
        return {
            "Versions": [
                {"Key": f"{Prefix}0", "VersionId": "x"},
                *({"Key": key, "VersionId": "1"} for key in self.versions if key == Prefix),
            ]
        }

    def get_paginator(self, _name: str) -> Server:
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803
        entries = [{"Key": key, "Size": len(content)} for key, content in sorted(self.found.items()) if key.startswith(Prefix)]
        return [{"Contents": entries[:1]}, {"Contents": entries[1:]}, {}]

    def put_object(self, *, Bucket: str, Key: str, Body: Any, ContentLength: int, ContentMD5: str, ContentType: str) -> None:  # noqa: N803
        content = Body.read()
        assert (len(content), ContentType) == (ContentLength, "text/plain")
        assert base64.b64decode(ContentMD5) == hashlib.md5(content, usedforsecurity=False).digest()
        self.found[Key] = content
        self.written.append(Key)


def name(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def place(instance: str, server: Server) -> Any:
    found = {"instance": instance, "bucket": "files", "directory": instance, "endpoint": "https://s3"}
    return objects.Place(found, server, (ClientError,))


def request(*contents: bytes) -> dict[str, Any]:
    return {"owner": "id", "wanted": [{"name": name(one), "size": len(one), "label": one.decode()[:10]} for one in contents]}


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SCRATCH", str(tmp_path))


LARGE = b"large" * (1 << 19)


def test_what_is_there_stays_and_what_is_not_is_copied() -> None:
    source = Server({f"main/{name(one)}": one for one in (b"new", LARGE)})
    target = Server(
        {"staging/.berth-owner": b"id", f"staging/{name(b'old')}": b"old", f"staging/{name(b'unused')}": b"unused", "staging/probe": b""}
    )
    answer = objects.bring(place("main", source), place("staging", target), request(b"new", b"old", LARGE))
    assert answer == {"there": 1, "copied": 2, "bytes": 3 + len(LARGE), "missing": [], "damaged": [], "others": [name(b"unused")]}
    assert sorted(target.written) == sorted(f"staging/{name(one)}" for one in (b"new", LARGE))
    assert source.written == []
    again = objects.bring(place("main", Server({})), place("staging", target), request(b"new", b"old", LARGE))
    assert (again["there"], again["copied"], again["missing"]) == (3, 0, [])


def test_what_is_torn_is_copied_again() -> None:
    target = Server({"staging/.berth-owner": b"id", f"staging/{name(b'whole')}": b"who"})
    objects.bring(place("main", Server({f"main/{name(b'whole')}": b"whole"})), place("staging", target), request(b"whole"))
    assert target.found[f"staging/{name(b'whole')}"] == b"whole"


def test_what_was_deleted_is_read_from_its_last_version_and_what_is_gone_is_named() -> None:
    source = Server({f"main/{name(b'damaged')}": b"other"}, {f"main/{name(b'deleted')}": b"deleted"})
    target = Server({"staging/.berth-owner": b"id"})
    answer = objects.bring(place("main", source), place("staging", target), request(b"deleted", b"gone", b"damaged"))
    assert (answer["copied"], answer["missing"], answer["damaged"]) == (1, ["gone"], ["damaged"])
    assert target.written == [f"staging/{name(b'deleted')}"]


@pytest.mark.parametrize("found", [{}, {"staging/.berth-owner": b"another"}])
def test_nothing_is_written_where_another_database_is(found: dict[str, bytes]) -> None:
    target = Server(found)
    with pytest.raises(objects.Failed, match=r"not staging's.*berth\.odoo\.site"):
        objects.bring(place("main", Server({f"main/{name(b'new')}": b"new"})), place("staging", target), request(b"new"))
    assert target.written == []


@pytest.mark.parametrize("refusing", ["main", "staging"])
def test_a_server_that_refuses_is_named_with_what_to_look_at(refusing: str) -> None:
    source, target = Server({}), Server({"staging/.berth-owner": b"id"})
    {"main": source, "staging": target}[refusing].refused = "AccessDenied"
    with pytest.raises(objects.Failed, match=rf"files/{refusing} at https://s3.*AccessDenied.*odoo_instance_secrets\.{refusing}"):
        objects.bring(place("main", source), place("staging", target), request(b"new"))


def test_only_what_the_platform_stores_is_brought() -> None:
    stored = [
        {"name": f"berth://{'a' * 40}", "size": 3, "example": 1},
        {"name": f"other://{'b' * 40}", "size": 3, "example": 2},
        {"name": "berth://../main/x", "size": 3, "example": 3},
        {"name": f"cc/{'c' * 40}", "size": 3, "example": 4},
    ]
    wanted, problems = rules.objects(stored)
    assert wanted == [{"name": "a" * 40, "size": 3, "label": f"{'a' * 40} (attachment 1)"}]
    assert len(problems) == 1 and problems[0].startswith("3 files of attachments are not in the bucket") and "attachment 4" in problems[0]
    assert rules.objects([]) == ([], [])


def test_a_copy_that_moves_in_says_so_and_hands_what_is_left_there_to_its_collector() -> None:
    record = {"options": '{"endpoint_url": "https://o\'brien"}', "directory_path": "files/{db_name}", "protocol": "s3"}
    storage, identity, garbage = rules.moving(record, "id'", ["a" * 40, "'); DROP", "b" * 40])
    assert storage == (
        "UPDATE fs_storage SET \"options\" = '{\"endpoint_url\": \"https://o''brien\"}', \"directory_path\" = 'files/{db_name}' WHERE code = 'berth'"
    )
    assert identity == "UPDATE ir_config_parameter SET value = 'id''' WHERE key = 'database.uuid'"
    assert "'{" + "a" * 40 + "," + "b" * 40 + "}'" in garbage and "DROP" not in garbage


def test_no_storage_keeps_an_address() -> None:
    columns = {"fs_storage": dict.fromkeys(("options", "directory_path"), "text"), "ir_attachment": {"fs_url": "character varying"}}
    statements = rules.neutralising(columns)
    assert "UPDATE fs_storage SET options = '{}', directory_path = 'neutralised'" in statements
    assert "UPDATE ir_attachment SET fs_url = NULL WHERE fs_url IS NOT NULL" in statements
    assert "SELECT count(*) FROM fs_storage WHERE options <> '{}' OR directory_path <> 'neutralised'" in rules.leak_checks(columns).values()
    assert not any("fs_" in text for text in [*rules.neutralising({}), *rules.leak_checks({}).values()])
