# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Production with its attachments in S3 becomes staging with its own there, on another host: nothing of production's bucket is touched, then or later.

The last file, because an instance does not go back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support import history as the
from ansible_collections.berth.odoo.tests.support.lab import PLACES, REPOSITORY, Lab, leaks, processes, seen
from ansible_collections.berth.odoo.tests.support.tenants import psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player, Run
    from ansible_collections.berth.odoo.tests.support.s3 import Store

pytestmark = pytest.mark.nightly

CLONE = "playbooks/clone.yml"
VARIANTS = {"odoo-s3": {"requirements": str(REPOSITORY / "docs/examples/filestore-requirements.txt")}}
BUCKETS = {"initech": "production-files", "acme": "staging-files"}
GROUPS = {"initech": "dedicated", "acme": "shared"}
# Test data, in clear on purpose.
KEYS = {
    "initech": {"s3_access_key": "AKIAIOSFODNN7INITECH", "s3_secret_key": "s3$secret%of \"production\" 'and' {no} #other \\one ;=, /+"},
    "acme": {"s3_access_key": "AKIAIOSFODNN7ACMEXXX", "s3_secret_key": "s3$secret%of \"staging\" 'and' {no} #other \\one ;=, /+"},
}
CREATE = """
for bucket in {buckets!r}:
    if bucket not in [one["Name"] for one in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={{"Status": "Enabled"}})
"""
LIST = """
pages = s3.get_paginator("list_objects_v2").paginate(Bucket={bucket!r})
answer = {{one["Key"]: one["ETag"] for page in pages for one in page.get("Contents") or []}}
"""
# With what is gone, a content cannot be read from an older version.
TAKE = """
import base64
answer = base64.b64encode(s3.get_object(Bucket={bucket!r}, Key={key!r})["Body"].read()).decode()
for one in s3.list_object_versions(Bucket={bucket!r}, Prefix={key!r})["Versions"]:
    s3.delete_object(Bucket={bucket!r}, Key={key!r}, VersionId=one["VersionId"])
"""
PUT = """
import base64
s3.put_object(Bucket={bucket!r}, Key={key!r}, Body=base64.b64decode({content!r}))
"""
COLLECT = """
env["fs.file.gc"]._gc_files()
print("collected")
"""


class Site:
    """Both instances with their attachments in S3."""

    def __init__(self, lab: Lab, store: Store, play: Player) -> None:
        """Buckets, keys and the image; nothing is changed on the platform yet."""
        store.others = [
            {
                "name": name,
                "credentials": [{"accessKey": KEYS[name]["s3_access_key"], "secretKey": KEYS[name]["s3_secret_key"]}],
                "actions": [f"{action}:{bucket}" for action in ("Read", "Write", "List")],
            }
            for name, bucket in BUCKETS.items()
        ]
        store.let_in(store.secret_key)
        store.boto(CREATE.format(buckets=list(BUCKETS.values())))
        play("playbooks/images.yml", variables={"images_odoo_variants": VARIANTS, "images_names": ["odoo-s3"]}).expect_success()
        self.lab, self.store, self._play = lab, store, play
        # Read anew: tests before this one replaced some.
        fresh = Lab(lab.name, lab.inventories).hosts["front"].variables
        place = {"endpoint": f"https://{store.host.address}:8333", "authority_certificate": fresh["platform_authority"]["certificate"]}
        instances: dict[str, dict[str, Any]] = {group: {} for group in GROUPS.values()}
        for name, group in GROUPS.items():
            found = {key: value for key, value in fresh["site_instances"][group][name].items() if key != "attachments"}
            instances[group][name] = {**found, "image": "odoo-s3", "filestore": {**place, "bucket": BUCKETS[name]}}
        self.variables = {
            "images_odoo_variants": VARIANTS,
            "site_instances": instances,
            "odoo_instance_secrets": {name: {**fresh["odoo_instance_secrets"][name], **KEYS[name]} for name in KEYS},
        }

    def play(self, playbook: str, variables: Mapping[str, Any] | None = None) -> Run:
        """With the variables of this site, and without its keys in what is printed."""
        run = self._play(playbook, variables={**self.variables, **(variables or {})})
        assert not leaks(secrets(), run.output)
        return run

    def clone(self, **more: Any) -> Run:
        return self.play(CLONE, {"source": "initech", "target": "acme", "confirm": "acme", **more})

    def objects(self, instance: str) -> dict[str, str]:
        """What is in the bucket of an instance, with what the server says of the contents."""
        return dict(self.store.boto(LIST.format(bucket=BUCKETS[instance])))

    def take(self, instance: str, path: str) -> str:
        """Take an object away with all its versions. Returns its content."""
        return str(self.store.boto(TAKE.format(bucket=BUCKETS[instance], key=f"{instance}/{path}")))

    def put(self, instance: str, path: str, content: str) -> None:
        """Put it back."""
        self.store.boto(PUT.format(bucket=BUCKETS[instance], key=f"{instance}/{path}", content=content))

    def collect(self, instance: str) -> None:
        """Run the collector of an instance, two days later."""
        front, machine = self.lab.hosts["front"], self.lab.hosts[{"initech": "initech1", "acme": "shared1"}[instance]]
        psql(front, "UPDATE fs_file_gc SET create_date = create_date - interval '2 days'", instance)
        command = f"docker compose -f /opt/berth/odoo-{instance}/compose.yml run --rm -T --no-deps maintenance odoo shell --no-http"
        assert "collected" in machine.run(command, stdin=COLLECT, timeout=120)


def secrets() -> dict[str, str]:
    return {f"{name}.{key}": value for name, keys in KEYS.items() for key, value in keys.items() if key == "s3_secret_key"}


def keep(odoo: Odoo, name: str, size: int = 100_000) -> tuple[int, str]:
    """Attach a file, and return its id and the name of its object."""
    the.store_file(odoo, name, size)
    [found] = odoo.call("ir.attachment", "search_read", [["name", "=", f"proof {name}"]], fields=["store_fname"])
    code, _separator, path = found["store_fname"].partition("://")
    assert code == "berth"
    return int(found["id"]), str(path)


def path_of(host: Host, name: str) -> str:
    [found] = psql(host, f"SELECT store_fname FROM ir_attachment WHERE name = 'proof {name}'", "initech")  # noqa: S608 - ours
    return found.partition("://")[2]


def stored(host: Host, instance: str) -> set[str]:
    return {
        one.partition("://")[2]
        for one in psql(host, "SELECT DISTINCT store_fname FROM ir_attachment WHERE store_fname IS NOT NULL", instance)
    }


def identity(host: Host, instance: str) -> list[str]:
    return psql(host, "SELECT value FROM ir_config_parameter WHERE key IN ('database.uuid', 'database.secret') ORDER BY key DESC", instance)


@pytest.fixture(scope="module")
def site(lab: Lab, store: Store, play: Player) -> Site:
    """Both instances work in S3."""
    found = Site(lab, store, play)
    found.play("playbooks/site.yml").expect_success()
    return found


@pytest.fixture(scope="module")
def production(site: Site, host: Host, lab: Lab) -> dict[str, str]:
    """A set of production; afterwards one of its attachments was deleted, and its object is gone from the bucket. The files of the set by hash."""
    odoo = the.admin(host, lab, "initech")
    kept = [keep(odoo, f"production {number}", size) for number, size in enumerate((100_000, 200_000, 3_000_000))]
    deleted = keep(odoo, "production, deleted")
    found = the.files(odoo)
    assert len(found) == 4
    with the.hurry(host):
        site.play("playbooks/backup.yml", {"target": "initech"}).expect_success()
    odoo.call("ir.attachment", "unlink", [deleted[0]])
    site.collect("initech")
    there = site.objects("initech")
    assert f"initech/{deleted[1]}" not in there
    assert {f"initech/{path}" for _number, path in kept} <= set(there)
    return found


@pytest.fixture(scope="module")
def own(site: Site, host: Host, lab: Lab) -> tuple[int, str]:
    """An attachment that staging had before."""
    assert site
    return keep(the.admin(host, lab, "acme"), "staging")


def test_a_target_without_a_place_of_its_own_is_refused(site: Site, production: dict[str, str]) -> None:
    assert production
    instances = json.loads(json.dumps(site.variables["site_instances"]))
    del instances["shared"]["acme"]["filestore"]
    site.clone(site_instances=instances).expect_refusal("odoo_instances.acme has no filestore for their copies", "berth.odoo.site")


def test_a_place_that_the_target_does_not_work_in_is_refused(site: Site, production: dict[str, str], own: tuple[int, str]) -> None:
    """As after a slip in the inventory: staging would work in production's bucket."""
    assert production and own
    instances = json.loads(json.dumps(site.variables["site_instances"]))
    instances["shared"]["acme"]["filestore"]["bucket"] = BUCKETS["initech"]
    before = site.objects("initech")
    site.clone(site_instances=instances).expect_refusal("the database has attachments in staging-files/{db_name}")
    assert site.objects("initech") == before


def test_a_missing_object_is_named_and_the_target_is_as_it_was(
    site: Site, host: Host, lab: Lab, production: dict[str, str], own: tuple[int, str]
) -> None:
    assert production
    path = path_of(host, "production 1")
    before = identity(host, "acme"), {name: one.identity for name, one in lab.hosts["shared1"].containers().items() if "odoo-acme" in name}
    content = site.take("initech", path)
    run = site.clone().expect_refusal(f"1 files of attachments are missing: {path} (attachment ", "acme is as it was", "damaged=accept")
    assert "Stop the instance" not in run.changed
    after = identity(host, "acme"), {name: one.identity for name, one in lab.hosts["shared1"].containers().items() if "odoo-acme" in name}
    assert after == before
    assert set(the.files(the.admin(host, lab, "acme"))) == {"staging"}
    assert f"acme/{own[1]}" in site.objects("acme")
    site.put("initech", path, content)


def test_the_clone_has_every_attachment_and_production_is_left_alone(
    site: Site, host: Host, lab: Lab, production: dict[str, str], own: tuple[int, str]
) -> None:
    originals, uuid = site.objects("initech"), identity(host, "acme")[0]
    serving = {name: one.identity for name, one in lab.hosts["initech1"].containers().items()}
    with processes(lab.hosts["shared1"]) as told:
        run = site.clone().expect_success()
    assert not leaks(secrets(), "".join(told))
    assert "attachments: copied in S3, from production-files/initech to staging-files/acme" in run.text
    assert the.files(the.admin(host, lab, "acme")) == production
    assert site.objects("initech") == originals
    assert {name: one.identity for name, one in lab.hosts["initech1"].containers().items()} == serving
    # Where it works is its own, and the place knows it.
    [options, directory] = psql(host, "SELECT options, directory_path FROM fs_storage", "acme")[0].split("|")
    assert directory == "staging-files/{db_name}" and json.loads(options)["client_kwargs"]["verify"] == "/run/secrets/odoo/s3-ca.crt"
    assert identity(host, "acme")[0] == uuid
    assert not set(identity(host, "acme")) & set(identity(host, "initech"))
    # What staging had before is still there, for what stays aside.
    copies = site.objects("acme")
    assert f"acme/{own[1]}" in copies
    assert all(
        copies[key.replace("initech/", "acme/")] == tag for key, tag in originals.items() if key.rpartition("/")[2] in stored(host, "acme")
    )


@pytest.mark.parametrize("place", PLACES)
def test_production_s_keys_are_nowhere_on_the_host_of_the_clone(lab: Lab, place: str) -> None:
    assert not seen(lab.hosts["shared1"], {"initech": KEYS["initech"]["s3_secret_key"]}, place)


def test_done_again_it_copies_what_is_not_there_and_goes_on_without_what_is_nowhere(
    site: Site, host: Host, lab: Lab, production: dict[str, str]
) -> None:
    again, nowhere = path_of(host, "production 2"), path_of(host, "production 1")
    for instance in ("initech", "acme"):
        content = site.take(instance, nowhere)
    site.take("acme", again)
    run = site.clone(damaged="accept").expect_success()
    assert "objects: 1 copied" in run.text
    files = the.files(the.admin(host, lab, "acme"))
    assert files == {**production, "production 1": hashlib.sha256(b"").hexdigest()}
    assert site.play("playbooks/site.yml").expect_success().changed == []
    # Once it is back, the next clone is whole, and has nothing else to do.
    site.put("initech", nowhere, content)
    assert "objects: 1 copied" in site.clone().expect_success().text
    assert the.files(the.admin(host, lab, "acme")) == production


def test_nothing_is_deleted_until_what_stays_aside_is_forgotten(
    site: Site, host: Host, lab: Lab, production: dict[str, str], own: tuple[int, str]
) -> None:
    originals = site.objects("initech")
    odoo = the.admin(host, lab, "acme")
    [gone] = odoo.call("ir.attachment", "search", [["name", "=", "proof production 0"]])
    path = path_of(host, "production 0")
    odoo.call("ir.attachment", "unlink", [gone])
    site.collect("acme")
    assert {f"acme/{path}", f"acme/{own[1]}"} <= set(site.objects("acme"))
    site.play("playbooks/restore.yml", {"target": "acme", "forget": True, "confirm": "acme"}).expect_success()
    site.collect("acme")
    left = set(site.objects("acme"))
    assert not {f"acme/{path}", f"acme/{own[1]}"} & left
    assert {f"acme/{name}" for name in stored(host, "acme")} <= left
    assert site.objects("initech") == originals
    files = the.files(the.admin(host, lab, "acme"))
    assert files == {name: digest for name, digest in production.items() if name != "production 0"}
    assert site.play("playbooks/site.yml").expect_success().changed == []


def test_after_a_restore_in_place_nothing_is_deleted_either(site: Site, host: Host, lab: Lab, production: dict[str, str]) -> None:
    """What stays aside is in the same place as what was restored."""
    newer = keep(the.admin(host, lab, "initech"), "newer than the set")
    restore = {"target": "initech", "into": "place", "lose": "newer", "confirm": "initech"}
    # Of what the set knows, one object was deleted since: it is there as an older version alone.
    site.play("playbooks/restore.yml", restore).expect_success()
    found = the.files(the.admin(host, lab, "initech"))
    assert found == {**production, "production, deleted": hashlib.sha256(b"").hexdigest()}
    site.collect("initech")
    assert f"initech/{newer[1]}" in site.objects("initech")
    assert site.play("playbooks/site.yml").expect_success().changed == []
    assert psql(host, "SELECT autovacuum_gc FROM fs_storage", "initech") == ["f"]
    site.play("playbooks/restore.yml", {"target": "initech", "forget": True, "confirm": "initech"}).expect_success()
    assert psql(host, "SELECT autovacuum_gc FROM fs_storage", "initech") == ["t"]
