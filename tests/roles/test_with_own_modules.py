# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's own modules and a package of OCA: built, refused where they do not fit, and running on the VM that test_roles.py left."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.tests.support.lab import Host, docker
from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

pytestmark = pytest.mark.nightly

REQUIREMENTS = Path(__file__).parent / "acme/requirements.txt"
LOADED = ["base", "rpc", "web", "berth_runtime"]

Build = Callable[..., Run]


def write_module(directory: Path, name: str, code: str = "", **manifest: Any) -> None:
    """Write a small module; C(code) is its Python."""
    (directory / name).mkdir(parents=True)
    given = {"name": name, "version": "19.0.1.0.0", "license": "OPL-1", "author": "Acme", "depends": ["base"], **manifest}
    (directory / name / "__manifest__.py").write_text(repr(given), encoding="utf-8")
    (directory / name / "__init__.py").write_text(code, encoding="utf-8")


def old_image(tag: str, day: int) -> bytes:
    """An archive of an image that this collection might have built in January 2020, as C(docker load) takes it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        member = tarfile.TarInfo(tag)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    content = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": f"2020-01-{day:02}T00:00:00Z",
        "config": {"Labels": {"berth.inputs": tag}, "Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [f"berth/odoo-acme:{tag}"], "Layers": ["layer.tar"]}]
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", content),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return whole.getvalue()


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive directory of these tests."""
    return tmp_path_factory.mktemp("archives")


@pytest.fixture(scope="session")
def build(play: Player, archives: Path) -> Build:
    """Build the image odoo-acme from modules and requirements."""

    def run(addons: Path, requirements: Path | None = None) -> Run:
        acme = {"addons": [str(addons)], "requirements": str(requirements or "")}
        return play(
            "playbooks/images.yml",
            variables={"images_names": ["odoo-acme"], "images_odoo_variants": {"odoo-acme": acme}, "images_archive_dir": str(archives)},
        )

    return run


CODE = "from odoo import fields, models\n\n\nclass Partner(models.Model):\n    _inherit = 'res.partner'\n\n    acme_dock = fields.Char()\n"


@pytest.fixture(scope="session")
def addons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a module that needs one of OCA's."""
    directory = tmp_path_factory.mktemp("acme-addons")
    write_module(directory, "acme_dock", CODE, depends=["stock", "queue_job"])
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    # The same commit in every run, because the image of a run before is used again.
    dates = {f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "Add a module"]):
        subprocess.run(["git", "-C", str(directory), *identity, *command], check=True, env={**os.environ, **dates})
    return directory


def test_modules_that_do_not_fit_are_refused_with_what_to_type(build: Build, tmp_path: Path, archives: Path) -> None:
    before = docker("image", "ls", "--quiet", "berth/odoo-acme").split()
    write_module(tmp_path, "acme_needs", depends=["acme_gone"], external_dependencies={"python": ["acme-lib>=1"], "bin": ["acmetool"]})
    write_module(tmp_path, "acme_old", version="18.0.1.0.0")
    write_module(tmp_path, "acme_broken", "import acme_nowhere\n")
    write_module(tmp_path, "stock")
    build(tmp_path).expect_refusal(
        "image odoo-acme was built and does not keep its contract",
        "module acme_needs depends on acme_gone, which the image does not have: add its directory to images_odoo_addons, or"
        " odoo-addon-acme-gone with version and hash to images_odoo_requirements",
        "module acme_needs needs the Python package acme-lib>=1, which its manifest names",
        "module acme_needs needs the program acmetool, which its manifest names: add its Debian package to images_odoo_packages",
        "module acme_old has version 18.0.1.0.0, which Odoo 19.0 does not install",
        "module stock is there twice, in /usr/local/lib/python3.13/dist-packages/odoo/addons/stock and in",
        "module acme_broken cannot be imported: ModuleNotFoundError: No module named 'acme_nowhere'",
        "acme_broken/__init__.py line 1: add acme_nowhere==<version> with its hash to images_odoo_requirements",
    )
    assert docker("image", "ls", "--quiet", "berth/odoo-acme").split() == before
    assert list(archives.iterdir()) == []


def test_a_package_with_another_content_is_refused(build: Build, addons: Path, tmp_path: Path) -> None:
    digest = "7d4316aaea12a6d4eec92994ea701e94c0dcbe21643dd6d334377e2a44be93b2"
    wrong = tmp_path / "requirements.txt"
    wrong.write_text(REQUIREMENTS.read_text(encoding="utf-8").replace(digest, "0" * 64), encoding="utf-8")
    build(addons, wrong).expect_refusal(
        "image odoo-acme could not be built", "THESE PACKAGES DO NOT MATCH THE HASHES", f"Expected sha256 {'0' * 64}", f"Got {digest}"
    )


def test_the_image_says_what_is_in_it(build: Build, addons: Path, archives: Path) -> None:
    build(addons, REQUIREMENTS).expect_success()
    entry = json.loads((archives / "manifest.json").read_text(encoding="utf-8"))["images"]["odoo-acme"]
    assert entry["contract"]["own_modules"] == "acme_dock,berth_runtime,queue_job"
    assert entry["contract"]["own_packages"] == "cssselect==1.6.0,odoo-addon-queue_job==19.0.2.4.0.1,openupgradelib==3.13.7"
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", entry["id"]))
    head = subprocess.run(["git", "-C", str(addons), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert labels["org.opencontainers.image.revision"] == entry["revision"] == head
    assert labels["berth.inputs"] == entry["inputs"] and labels["org.opencontainers.image.base.name"].startswith("berth/odoo:19.0-")
    components = {item["bom-ref"]: item for item in json.loads((archives / entry["sbom"]).read_text(encoding="utf-8"))["components"]}
    assert components["odoo:acme_dock"]["version"] == "19.0.1.0.0" and components["odoo:queue_job"]["licenses"]
    assert {"deb:odoo-19:all", "pypi:odoo-addon-queue_job", "odoo:stock"} <= components.keys()
    again = build(addons, REQUIREMENTS).expect_success()
    assert again.changed == []


def test_an_instance_runs_with_them(host: Host, play: Player, archives: Path) -> None:
    for day in range(1, 6):
        load = subprocess.run(
            [*host.ssh, "sudo -n docker load --quiet"], input=old_image(f"old{day}", day), capture_output=True, check=False
        )
        assert load.returncode == 0, load.stderr.decode()
    host.run("docker create --name stopped berth/odoo-acme:old2")
    variables = {"images_archive_dir": str(archives), "acme_server_wide_modules": [*LOADED, "queue_job"]}
    play("tests/roles/acme/deploy.yml", variables=variables).expect_success()
    identifier = host.container("postgresql/postgresql").id
    modules = "select name, state from ir_module_module where name in ('acme_dock', 'queue_job') order by 1"
    column = "select count(acme_dock) from res_partner"
    psql = f"docker exec {identifier} psql -h /run/postgresql -U postgres -d app -tAc"
    assert host.run(f'{psql} "{modules}"').split() == ["acme_dock|installed", "queue_job|installed"]
    assert host.run(f'{psql} "{column}"').strip() == "0"
    # What Debian's package makes of the image was there; only what is ours came.
    layers = "docker image inspect --format '{{json .RootFS.Layers}}' "
    below, ours = (
        json.loads(host.run(layers + name))
        for name in ("$(docker image ls -q berth/odoo | head -n 1)", host.container("odoo-app/web").facts["Image"])
    )
    assert ours[: len(below)] == below and len(ours) == len(below) + 2


def test_images_that_were_replaced_are_gone_but_for_the_last_and_those_in_use(host: Host, archives: Path) -> None:
    manifest = json.loads((archives / "manifest.json").read_text(encoding="utf-8"))
    new = manifest["images"]["odoo-acme"]["reference"].rpartition(":")[2]
    # With the new one, three are kept; a container that does not even run keeps a fourth.
    assert sorted(host.run("docker image ls --format '{{.Tag}}' berth/odoo-acme").split()) == sorted([new, "old5", "old4", "old2"])


def test_a_server_wide_module_that_the_image_lacks_restarts_nothing(host: Host, play: Player, archives: Path) -> None:
    before = {container.name: container.identity for container in host.containers().values()}
    variables = {"images_archive_dir": str(archives), "acme_server_wide_modules": [*LOADED, "queue_jobs"]}
    play("tests/roles/acme/deploy.yml", variables=variables).expect_refusal(
        "server_wide_modules has queue_jobs, and there is no such module in the image: did you mean queue_job?"
    )
    assert {container.name: container.identity for container in host.containers().values()} == before


@pytest.fixture
def deploy(play: Player, archives: Path) -> Callable[..., Run]:
    """Converge the instance with the image that was built last."""

    def run(**variables: Any) -> Run:
        given = {"images_archive_dir": str(archives), "acme_server_wide_modules": [*LOADED, "queue_job"]}
        return play("tests/roles/acme/deploy.yml", variables={**given, **variables})

    return run


def identities(host: Host) -> dict[str, Any]:
    """Every container that runs, as long as it is the same."""
    return {container.name: container.identity for container in host.containers().values()}


def test_an_image_without_a_module_that_is_installed_is_refused(
    host: Host, build: Build, deploy: Callable[..., Run], tmp_path: Path
) -> None:
    write_module(tmp_path, "acme_other")
    build(tmp_path, REQUIREMENTS).expect_success()
    before = identities(host)
    deploy().expect_refusal(
        "the image lacks what is installed in database app: acme_dock. Odoo would serve without it. Nothing was restarted",
        "images_odoo_addons",
        "odoo_module with state absent",
    )
    assert identities(host) == before


def test_newer_modules_are_updated_by_whoever_asks_for_it(
    host: Host, build: Build, deploy: Callable[..., Run], addons: Path, tmp_path: Path
) -> None:
    newer = CODE + "    acme_gate = fields.Char()\n"
    good = tmp_path / "good"
    write_module(good, "acme_dock", newer, depends=["stock", "queue_job"], version="19.0.1.1.0")
    build(good, REQUIREMENTS).expect_success()
    before = identities(host)
    deploy().expect_refusal(
        "nothing was restarted",
        "database app has older modules than the image: acme_dock 19.0.1.0.0 (image: 19.0.1.1.0)",
        "-e odoo_update_modules=true",
    )
    assert identities(host) == before
    psql = f"docker exec {host.container('postgresql/postgresql').id} psql -h /run/postgresql -U postgres -d app -tAc"
    version = "select latest_version from ir_module_module where name = 'acme_dock'"
    column = "select count(acme_gate) from res_partner"
    assert host.run(f'{psql} "{version}"').strip() == "19.0.1.0.0"
    # What fails is tried again by whoever asks for it, and by nobody else.
    broken = tmp_path / "broken"
    write_module(broken, "acme_dock", newer, depends=["stock", "queue_job"], version="19.0.1.1.0", data=["broken.xml"])
    (broken / "acme_dock/broken.xml").write_text("<odoo><record id='x' model='acme.nothing'/></odoo>", encoding="utf-8")
    build(broken, REQUIREMENTS).expect_success()
    deploy(odoo_update_modules=True).expect_refusal("acme.nothing")
    note = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'app'"
    assert host.run(f'{psql} "{note}"').strip() == "berth: changing modules; to update: acme_dock"
    # Scheduled actions waited meanwhile.
    before["odoo-app/cron"] = identities(host)["odoo-app/cron"]
    assert identities(host) == before
    build(good, REQUIREMENTS).expect_success()
    deploy().expect_refusal("-e odoo_update_modules=true")
    deploy(odoo_update_modules=True).expect_success()
    assert host.run(f'{psql} "{note}"').strip() == ""
    assert host.run(f'{psql} "{version}"').strip() == "19.0.1.1.0"
    assert host.run(f'{psql} "{column}"').strip() == "0"
    assert deploy(odoo_update_modules=True).expect_success().changed == []
    # The way back is open: whoever takes the former image again is told.
    build(addons, REQUIREMENTS).expect_success()
    back = deploy().expect_success()
    assert "the image has older modules than database app: acme_dock 19.0.1.1.0 (image: 19.0.1.0.0)" in back.text
