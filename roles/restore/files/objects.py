# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the objects that a clone names from the original's place in S3 into the clone's own, in a container of its own between the two.

Reads one JSON document from standard input: ``source`` and ``target``, each with ``instance``, ``endpoint``, ``region``, ``authority`` (PEM text, may be
empty), ``bucket``, ``directory``, ``access_key`` and ``secret_key``; ``owner``, the id that must lie in the target; ``wanted``, each with ``name``, ``size``
and ``label``. Prints one JSON document; what ended it is in its ``error``. The source is read and nothing else. Needs botocore, which every image has that
keeps attachments in S3.

An object is named by the SHA-1 of its content, so one that is in the target with the right size is the right one, and an interrupted run goes on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORKERS = 8
CHUNK = 1 << 20
SAID_S = 30.0
SCRATCH = "/scratch"
OWNER = ".berth-owner"
NAME = re.compile(r"[0-9a-f]{40}")
ABSENT = ("NoSuchKey", "404", "NotFound")


class Failed(Exception):
    """It cannot go on. The text says why and what to do."""


class Place:
    """A directory of a bucket."""

    def __init__(self, found: Mapping[str, Any], client: Any, errors: tuple[type[Exception], ...]) -> None:
        """Nothing is asked yet.

        Args:
            found: as in the request.
            client: botocore's, of S3.
            errors: what it raises.
        """
        self.bucket, self.directory, self.instance = found["bucket"], found["directory"], found["instance"]
        self.words = f"the attachments of {self.instance}, {self.bucket}/{self.directory} at {found['endpoint']}"
        self.client, self.errors = client, errors

    @contextmanager
    def spoken(self, what: str) -> Iterator[None]:
        """Say whose place it is that does not do what it must. Raises Failed."""
        try:
            yield
        except self.errors as error:
            raise Failed(
                f"{self.words}: {what}: {' '.join(str(error).split())}. Look at odoo_instances.{self.instance}.filestore, at s3_access_key and "
                f"s3_secret_key of odoo_instance_secrets.{self.instance}, and whether this host reaches the server"
            ) from error

    def key(self, name: str) -> dict[str, str]:
        """Where an object is, as botocore takes it."""
        return {"Bucket": self.bucket, "Key": f"{self.directory}/{name}"}

    def read(self, name: str) -> Any:
        """The answer with an object; of one that was deleted its last version, where the bucket keeps some. None when there is nothing."""
        try:
            return self.client.get_object(**self.key(name))
        except self.errors as error:
            if getattr(error, "response", {}).get("Error", {}).get("Code") not in ABSENT:
                raise
        version = self.last_version(name)
        return self.client.get_object(**self.key(name), VersionId=version) if version else None

    def last_version(self, name: str) -> str:
        """The newest version of an object that was deleted. Empty: there is none, or the server does not say."""
        key = self.key(name)["Key"]
        try:
            found = self.client.list_object_versions(Bucket=self.bucket, Prefix=key).get("Versions") or []
        except self.errors:
            return ""
        return next((str(one["VersionId"]) for one in found if one["Key"] == key), "")

    def sizes(self) -> dict[str, int]:
        """What is there, by name. Raises Failed."""
        with self.spoken("listing"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.directory}/")
            return {str(one["Key"]).rpartition("/")[2]: int(one["Size"]) for page in pages for one in page.get("Contents") or []}


def copy(source: Place, target: Place, name: str) -> tuple[str, int]:
    """Copy one object, through a file where it is large. Returns ``copied``, ``missing`` or ``damaged``, and its bytes. Raises Failed."""
    # Of MD5 the server makes sure that no byte was lost on the way.
    content, check, size = hashlib.sha1(usedforsecurity=False), hashlib.md5(usedforsecurity=False), 0
    with tempfile.SpooledTemporaryFile(max_size=CHUNK, dir=SCRATCH) as file:
        with source.spoken(f"reading {name}"):
            found = source.read(name)
            if found is None:
                return "missing", 0
            for chunk in iter(lambda: found["Body"].read(CHUNK), b""):
                file.write(chunk)
                content.update(chunk)
                check.update(chunk)
                size += len(chunk)
        if content.hexdigest() != name:
            return "damaged", size
        file.seek(0)
        kind = {"ContentType": found["ContentType"]} if found.get("ContentType") else {}
        digest = base64.b64encode(check.digest()).decode()
        with target.spoken(f"writing {name}"):
            target.client.put_object(**target.key(name), Body=file, ContentLength=size, ContentMD5=digest, **kind)
    return "copied", size


def check_owner(target: Place, owner: str) -> None:
    """Two databases in one place would delete each other's attachments. Raises Failed."""
    with target.spoken(f"reading {OWNER}"):
        found = target.read(OWNER)
        if found is not None and found["Body"].read().decode("utf-8", "replace") == owner:
            return
    raise Failed(
        f"{target.words}: they are not {target.instance}'s, because {OWNER} there does not hold the id of its database. Run berth.odoo.site, which says what "
        "is wrong"
    )


def bring(source: Place, target: Place, request: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what is not in the target yet. Raises Failed."""
    check_owner(target, request["owner"])
    there, wanted = target.sizes(), {one["name"]: one for one in request["wanted"]}
    left = [name for name, one in wanted.items() if there.get(name) != one["size"]]
    answer: dict[str, Any] = {"there": len(wanted) - len(left), "copied": 0, "bytes": 0, "missing": [], "damaged": []}
    answer["others"] = sorted(name for name in there if NAME.fullmatch(name) and name not in wanted)
    said = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        begun = {pool.submit(copy, source, target, name): name for name in left}
        try:
            for number, done in enumerate(as_completed(begun), 1):
                what, size = done.result()
                if what == "copied":
                    answer["copied"] += 1
                    answer["bytes"] += size
                else:
                    answer[what].append(wanted[begun[done]]["label"])
                if time.monotonic() - said > SAID_S:
                    said = time.monotonic()
                    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {number} of {len(left)} objects", file=sys.stderr, flush=True)
        finally:
            # After a failure nothing else is begun.
            pool.shutdown(wait=True, cancel_futures=True)
    return {**answer, "missing": sorted(answer["missing"]), "damaged": sorted(answer["damaged"])}


def places(request: Mapping[str, Any]) -> tuple[Place, Place]:
    """Source and target, each with its keys."""
    import botocore.session

    # It reads its description of S3 once for both.
    session = botocore.session.get_session()
    return place(session, "source", request["source"]), place(session, "target", request["target"])


def place(session: Any, which: str, found: Mapping[str, Any]) -> Place:
    """A place with its keys."""
    import botocore.config
    import botocore.exceptions

    authority = f"/tmp/{which}.crt" if found["authority"] else None  # noqa: S108 - in a container of its own
    if authority:
        Path(authority).write_text(found["authority"], encoding="utf-8")
    client = session.create_client(
        "s3",
        endpoint_url=found["endpoint"],
        region_name=found["region"],
        verify=authority,
        aws_access_key_id=found["access_key"],
        aws_secret_access_key=found["secret_key"],
        config=botocore.config.Config(
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=WORKERS,
            retries={"mode": "standard", "total_max_attempts": 5},
            # As Odoo's storage has it: own servers have neither the names nor the certificates for a host name a bucket.
            s3={"addressing_style": "path"},
            # Own servers do not know the newer ones.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    return Place(found, client, (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError))


def main() -> int:
    """Answer one request."""
    request = json.load(sys.stdin)
    try:
        answer = bring(*places(request), request)
    except ImportError as error:
        answer = {"error": f"the image that the set was made with cannot reach S3 ({error}): name another one, -e image=<reference>"}
    except Failed as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
