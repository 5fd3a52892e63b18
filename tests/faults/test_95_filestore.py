# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments in S3, a real server over TLS: what is refused before anything changes, the move, an outage, and garbage.

The last file, because an instance does not go back.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, ansible, environment, leaks, wait_for
from ansible_collections.berth.odoo.tests.support.odoo import Odoo
from ansible_collections.berth.odoo.tests.support.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

OLD = b"written before S3\n" * 100
NEW = b"written into S3\n" * 100
WORDS = "storage of attachments does not answer"


def name_of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # noqa: S324 - Odoo's


@pytest.fixture(scope="module")
def s3(host: Host, play: Player) -> Iterator[S3]:
    """The server, and the image beside Odoo's own that is on this controller."""
    play("playbooks/images.yml", variables={"images_odoo_variants": VARIANTS, "images_names": ["odoo-s3"]}).expect_success()
    secrets = host.variables["odoo_instance_secrets"]["main"]
    server = S3(host, secrets["s3_access_key"], secrets["s3_secret_key"])
    server.start(host.container("odoo-main/web").facts["Image"])
    yield server
    server.remove()


@pytest.fixture(scope="module")
def admin(url: str, lab: Lab, admin_password: str) -> Odoo:
    """Whoever logged in before was logged out by the tests of sessions."""
    client = Odoo(url, lab.ca)
    client.log_in("admin", admin_password)
    return client


@pytest.fixture(scope="module")
def old(admin: Odoo) -> int:
    """An attachment of before."""
    return upload(admin, OLD)


VARIANTS = {"odoo-s3": {"requirements": str(REPOSITORY / "docs/examples/filestore-requirements.txt")}}


def site(host: Host, s3: S3, bucket: str = "", image: str = "odoo-s3") -> dict[str, Any]:
    """Variables of a site whose instance has its attachments in S3."""
    filestore = {"endpoint": s3.endpoint, "bucket": bucket or s3.bucket, "authority_certificate": s3.authority_certificate}
    main = host.variables["odoo_instances"]["main"] | {"domains": [host.address], "filestore": filestore, "image": image}
    return {"odoo_instances": {"main": main}, "images_odoo_variants": VARIANTS}


def upload(client: Odoo, content: bytes) -> int:
    return int(client.call("ir.attachment", "create", [{"name": "note.txt", "datas": base64.b64encode(content).decode()}])[0])


def place(client: Odoo, attachment: int) -> str:
    (found,) = client.call("ir.attachment", "read", [attachment], ["store_fname"])
    return str(found["store_fname"])


def content(client: Odoo, attachment: int) -> bytes:
    (found,) = client.call("ir.attachment", "read", [attachment], ["datas"])
    return base64.b64decode(found["datas"])


def sql(host: Host, statement: str) -> str:
    return host.run(f"docker exec -i {host.container('postgresql/postgresql').id} psql -U postgres -d main -At", stdin=statement).strip()


def check(lab: Lab, host: Host, **filestore: str) -> str:
    """What the module says to another place, asked on the host without changing anything."""
    argv = [*ansible("ansible"), host.name, "--become", "--vault-password-file", str(lab.vault_password_file)]
    argv += [part for source in lab.inventories for part in ("-i", str(source))]
    arguments = json.dumps({"project": "odoo-main", "only_check": True, "filestore": filestore})
    argv += ["-m", "berth.odoo.odoo_filestore", "-a", arguments]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=REPOSITORY, env=environment(), timeout=120, check=False)
    assert not leaks(lab.secrets(), done.stdout + done.stderr)
    return " ".join((done.stdout + done.stderr).split())


def test_an_image_without_the_module_is_refused(host: Host, s3: S3, play: Player, admin: Odoo) -> None:
    before = {name: container.identity for name, container in host.containers().items()}
    run = play("playbooks/site.yml", "--tags", "app", variables=site(host, s3, image="odoo"))
    run.expect_refusal("fs_attachment_s3: no such module in the image", "docs/filestore.md")
    assert {name: container.identity for name, container in host.containers().items()} == before
    assert sql(host, "SELECT to_regclass('fs_storage') IS NULL") == "t"
    assert admin.request("/web/login").status in (200, 303)


def test_a_missing_bucket_is_refused(host: Host, s3: S3, play: Player) -> None:
    before = {name: container.identity for name, container in host.containers().items()}
    play("playbooks/site.yml", "--tags", "app", variables=site(host, s3, "no-such-bucket")).expect_refusal("no-such-bucket/main", "exists")
    assert {name: container.identity for name, container in host.containers().items()} == before
    assert sql(host, "SELECT to_regclass('fs_storage') IS NULL") == "t"


def test_attachments_are_moved_and_none_is_lost(host: Host, s3: S3, play: Player, admin: Odoo, old: int) -> None:
    local = place(admin, old)
    assert "://" not in local
    run = play("playbooks/site.yml", "--tags", "app", variables=site(host, s3)).expect_success()
    assert "Keep the attachments in S3" in run.changed
    assert sql(host, "SELECT count(*) FROM ir_attachment WHERE store_fname NOT LIKE 'berth://%'") == "0"
    assert place(admin, old) == f"berth://{name_of(OLD)}"
    assert content(admin, old) == OLD
    assert name_of(OLD) in s3.objects("main")
    assert host.succeeds(f"test -s /var/lib/berth/odoo/main/filestore/main/{local}"), "the local file was deleted"
    assert play("playbooks/site.yml", "--tags", "app", variables=site(host, s3)).expect_success().changed == []


def test_a_new_attachment_is_in_s3_alone(host: Host, s3: S3, admin: Odoo) -> None:
    new = upload(admin, NEW)
    assert place(admin, new) == f"berth://{name_of(NEW)}"
    assert name_of(NEW) in s3.objects("main")
    assert not host.run(f"find /var/lib/berth/odoo/main/filestore -name {name_of(NEW)}").strip()
    assert admin.request(f"/web/content/{new}").body.encode() == NEW


def test_the_keys_are_in_their_file_alone(lab: Lab, host: Host) -> None:
    keys = {name: value for name, value in lab.secrets().items() if name.endswith(("s3_access_key", "s3_secret_key"))}
    assert len(keys) == 2
    storage = sql(host, "SELECT row_to_json(s) FROM fs_storage s")
    assert "berth-test-s3" in storage
    seen = storage + host.run(
        "docker ps -aq | xargs docker inspect; for id in $(docker ps -aq); do docker logs $id 2>&1; done", timeout=120
    )
    assert not leaks(keys, seen)


def test_an_outage_loses_nothing_and_ends_by_itself(host: Host, s3: S3, admin: Odoo, old: int) -> None:
    count = sql(host, "SELECT count(*) FROM ir_attachment")
    web = host.container("odoo-main/web").identity
    s3.stop()
    with pytest.raises(AssertionError, match=WORDS):
        upload(admin, b"lost?" * 1000)
    with pytest.raises(AssertionError, match=WORDS):
        content(admin, old)
    assert admin.request(f"/web/content/{old}").status == 503
    assert sql(host, "SELECT count(*) FROM ir_attachment") == count
    assert admin.request("/odoo").status == 200, "the rest of Odoo does not need S3"
    s3.begin()
    wait_for("a read after the outage", lambda: content(admin, old) == OLD, seconds=60)
    assert content(admin, upload(admin, b"lost?" * 1000)) == b"lost?" * 1000
    assert host.container("odoo-main/web").identity == web


def s3_refuses(client: Odoo, attachment: int) -> bool:
    """Whether a read fails; one that returned nothing would be the fault that is looked for."""
    try:
        found = content(client, attachment)
    except AssertionError as error:
        assert WORDS in str(error)
        return True
    assert found == OLD
    return False


def test_a_refused_request_is_not_an_empty_file(lab: Lab, host: Host, s3: S3, admin: Odoo, old: int) -> None:
    """What s3fs raises then is an OSError, as for a file that is not there."""
    place_in_s3 = {"endpoint": s3.endpoint, "bucket": s3.bucket, "ca_file": "/run/secrets/odoo/s3-ca.crt", "region": "elsewhere"}
    s3.let_in("another key")
    wait_for("a refusal", lambda: s3_refuses(admin, old), seconds=30)
    with pytest.raises(AssertionError, match=WORDS):
        admin.call("ir.attachment", "copy", [old])
    assert "odoo_filestore_secret_key" in check(lab, host, **place_in_s3)
    s3.let_in(s3.secret_key)
    wait_for("a read with the right key", lambda: content(admin, old) == OLD, seconds=60)
    assert "odoo_filestore.endpoint" in check(lab, host, **{**place_in_s3, "endpoint": s3.endpoint.replace("8333", "8999")})
    assert "odoo_filestore.authority_certificate" in check(lab, host, endpoint=s3.endpoint, bucket=s3.bucket)


def test_an_instance_does_not_leave_its_attachments_behind(lab: Lab, host: Host, s3: S3, admin: Odoo) -> None:
    assert "Copy the objects to the new bucket first" in check(lab, host, endpoint=s3.endpoint, bucket="another-bucket")
    with pytest.raises(AssertionError, match=r"berth\.odoo playbook"):
        admin.call("ir.attachment", "force_storage")


COLLECT = """
env["fs.file.gc"]._gc_files()
print("collected")
"""


def test_garbage_goes_a_day_after_its_last_use(host: Host, s3: S3, admin: Odoo, old: int) -> None:
    first, second = b"deleted long ago" * 100, b"deleted just now" * 100
    for text in (first, second):
        admin.call("ir.attachment", "unlink", [upload(admin, text)])
    young = f"'berth://{name_of(second)}'"
    sql(host, f"UPDATE fs_file_gc SET create_date = create_date - interval '25 hours' WHERE store_fname <> {young}")  # noqa: S608
    command = "docker compose -f /opt/berth/odoo-main/compose.yml run --rm -T --no-deps maintenance odoo shell --no-http"
    assert "collected" in host.run(command, stdin=COLLECT, timeout=120)
    objects = s3.objects("main")
    assert name_of(first) not in objects
    assert {name_of(second), name_of(OLD), name_of(NEW)} <= objects
    assert content(admin, old) == OLD
