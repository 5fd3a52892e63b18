# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories that are damaged, by a disk or by somebody who has taken the host over and holds its keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.playbook import Player
    from ansible_collections.berth.odoo.tests.support.s3 import Store

pytestmark = pytest.mark.nightly

UNDO = REPOSITORY / "docs/examples/undo_s3.py"
PROGRAM = "/opt/berth/backup/config/set.py"
RESULT = "/var/lib/berth/backup/main/result.json"
SNAPSHOTS = "s3.list_objects_v2(Bucket='berth-locked', Prefix='site1/files/main/snapshots/')"
VERSIONS = "s3.list_object_versions(Bucket='berth-locked', Prefix='site1/files/main/snapshots/')"
PGBACKREST = "docker exec postgresql-postgresql-1 pgbackrest --stanza=berth --log-level-console=error"


def repositories(host: Host) -> list[dict[str, Any]]:
    """The site's repository, and one in the bucket that keeps versions."""
    (offsite,) = host.variables["backup_repositories"]
    return [offsite, {**offsite, "name": "locked", "bucket": "berth-locked"}]


def keys(host: Host) -> dict[str, Any]:
    """The secrets of both."""
    known = host.variables["backup_secrets"]
    return {**known, "locked": known["offsite"]}


def client(authority: Path, store: Store, access_key: str, secret_key: str) -> Any:
    """Who asks the store with these keys."""
    options = {"region_name": "us-east-1", "aws_access_key_id": access_key, "aws_secret_access_key": secret_key}
    return boto3.client("s3", endpoint_url=f"https://{store.host.address}:8333", verify=str(authority), **options)


def steal(authority: Path, store: Store, host: Host) -> dict[str, dict[str, int]]:
    """Try what a thief of the host can with the keys that are on it: everything goes, then every version, then the protection itself."""
    found = dict(line.split("=", 1) for line in host.run("cat /opt/berth/backup/secrets/locked.env").splitlines())
    thief = client(authority, store, found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"])
    said: dict[str, dict[str, int]] = {}

    def attempt(what: str, do: Callable[..., Any], **options: Any) -> None:
        try:
            do(Bucket=store.locked, **options)
            answer = "done"
        except ClientError as error:
            answer = str(error.response["ResponseMetadata"]["HTTPStatusCode"])
        said.setdefault(what, {}).setdefault(answer, 0)
        said[what][answer] += 1

    def versions() -> list[dict[str, Any]]:
        pages = thief.get_paginator("list_object_versions").paginate(Bucket=store.locked)
        return [one for page in pages for one in page.get("Versions", [])]

    for one in versions():
        if one["IsLatest"]:
            attempt("delete", thief.delete_object, Key=one["Key"])
    for one in versions():
        attempt("destroy", thief.delete_object, Key=one["Key"], VersionId=one["VersionId"])
    attempt("unlock", thief.put_object_lock_configuration, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    attempt("suspend", thief.put_bucket_versioning, VersioningConfiguration={"Status": "Suspended"})
    attempt("drop", thief.delete_bucket)
    return said


def at(moment: int) -> str:
    """Let pgBackRest see the repository as it was, in seconds since 1970."""
    return f"'--repo-target-time={time.strftime('%Y-%m-%d %H:%M:%S+00', time.gmtime(moment))}'"


def labels(host: Host, *options: str) -> list[str]:
    """The backups of PostgreSQL in the second repository, as pgBackRest on the host finds them with its keys."""
    found = json.loads(host.run(f"{PGBACKREST} --repo=2 --output=json {' '.join(options)} info"))
    return [backup["label"] for stanza in found for backup in stanza["backup"]]


def keep_the_newest(host: Host) -> dict[str, Any]:
    """Make a set as if all before it were too old, because time cannot be hurried; return what its program says of it."""
    result = json.loads(host.run(f"cat {RESULT}"))
    result.setdefault("retention", {})["tried"] = 0
    host.run(f"cat > {RESULT}", stdin=json.dumps(result))
    host.run(f"cp -p {PROGRAM} /run/berth-test-set && sed -i 's/^    return f.{{days}}d.*/    return \"0d\"/' {PROGRAM}")
    try:
        host.run("systemctl start berth-set@main", timeout=180)
    finally:
        host.run(f"mv /run/berth-test-set {PROGRAM}")
    good: dict[str, Any] = json.loads(host.run(f"cat {RESULT}"))["good"]
    return good


def test_who_has_the_hosts_keys_destroys_nothing_in_a_locked_bucket(play: Player, tmp_path: Path, host: Host, store: Store) -> None:
    """Everything that a thief of the host deletes comes back, and a restore out of it is proven."""
    authority = tmp_path / "authority.crt"
    authority.write_text(host.variables["platform_authority"]["certificate"], encoding="utf-8")
    both = {"backup_repositories": repositories(host), "backup_secrets": keys(host)}
    play("playbooks/site.yml", "--tags", "database,backup", variables=both).expect_success()
    play("playbooks/backup.yml", variables={**both, "backup_database": "full"}).expect_success()
    old = labels(host)[-1]
    moment = int(host.run("date +%s"))
    wait_for("the next second", lambda: time.time() > moment + 1, seconds=5)
    # Expiry works there, and what it deletes can be had back until the lock ends.
    play("playbooks/backup.yml", variables={**both, "backup_database": "full"}).expect_success()
    host.run(f"{PGBACKREST} --repo=2 --repo2-retention-full-type=count --repo2-retention-full=1 expire", timeout=120)
    (label,) = labels(host)
    assert label > old
    assert labels(host, at(moment))[-1] == old
    assert keep_the_newest(host)["problems"] == []
    assert len(store.boto(f"answer = [one['Key'] for one in {SNAPSHOTS}.get('Contents', [])]")) == 1
    assert len(store.boto(f"answer = [one['Key'] for one in {VERSIONS}.get('Versions', [])]")) > 1
    moment = int(host.run("date +%s"))
    wait_for("the next second", lambda: time.time() > moment + 1, seconds=5)

    said = steal(authority, store, host)
    assert set(said["delete"]) == {"done"}, said
    assert said["delete"]["done"] > 20
    assert set(said["destroy"]) == {"403"}, f"keys of the host destroyed versions: {said}"
    assert "done" not in {**said["unlock"], **said["suspend"], **said["drop"]}, said
    assert labels(host) == [], "nothing was deleted, so nothing is proven"
    # With the thief's own keys, which are all that is left on the host.
    assert labels(host, at(moment)) == [label]

    argv = [sys.executable, str(UNDO), f"https://{store.host.address}:8333", store.locked, "site1"]
    argv += [time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment)), "--authority", str(authority)]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": store.owner[0], "AWS_SECRET_ACCESS_KEY": store.owner[1]}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{said['delete']['done']} undeleted" in done.stdout
    assert labels(host) == [label]
    play("playbooks/drill_restore.yml", variables={**both, "target": "main", "repository": "locked"}).expect_success()
    play("playbooks/site.yml", "--tags", "database,backup").expect_success()


def test_a_bit_that_turned_over_is_named(host: Host, store: Store) -> None:
    """The verification names the backup of PostgreSQL; the part of a day of the files' repository names the set."""
    pieces = host.run(f"{PGBACKREST} --output=json repo-ls backup/berth --recurse")
    sizes = {name: facts["size"] for name, facts in json.loads(pieces).items() if facts["type"] == "file" and "/bundle/" in name}
    bundle = max(sizes, key=lambda name: sizes[name])
    store.damage(f"site1/postgresql/backup/berth/{bundle}")
    verify = "python3 -B /opt/berth/postgresql/backup/backup.py --stanza=berth --repositories=offsite verify 2>&1; echo ended with $?"
    said = host.run(verify, timeout=120)
    assert f"backup: {bundle.split('/')[0]}, status: invalid" in said
    assert "ended with 1" in said
    # The same bit again.
    store.damage(f"site1/postgresql/backup/berth/{bundle}")
    assert "ended with 0" in host.run(verify, timeout=120)

    result = json.loads(host.run(f"cat {RESULT}"))
    snapshot = result["good"]["snapshots"]["offsite"][:8]
    pack = store.packs("site1/files/main/data")[-1]
    result["retention"] = {"tried": 0, "part": int(pack[:2], 16) % 14}
    store.damage(f"site1/files/main/data/{pack[:2]}/{pack}")
    host.run(f"cat > {RESULT}", stdin=json.dumps(result))
    said = host.run(
        "systemctl start berth-set@main; journalctl --sync; journalctl --quiet --output=cat --unit=berth-set@main --lines=12",
        timeout=180,
        check=False,
    )
    assert f"1 of its packs are damaged ({pack[:8]})" in said, said
    assert snapshot in said.partition("sets that need them:")[2], said
    store.damage(f"site1/files/main/data/{pack[:2]}/{pack}")
    result = json.loads(host.run(f"cat {RESULT}"))
    assert pack[:8] in result["good"]["problems"][0]
    # Not before the next day, and then the same part.
    assert len(sets(host)) > 1
    good = keep_the_newest(host)
    assert good["problems"] == []
    assert sets(host) == [good["snapshots"]["offsite"][:8]]


def sets(host: Host) -> list[str]:
    """The sets of the instance in its repository."""
    return [one["id"] for one in json.loads(host.run("python3 -B /opt/berth/restore/config/restore.py sets --instance main"))["sets"]]
