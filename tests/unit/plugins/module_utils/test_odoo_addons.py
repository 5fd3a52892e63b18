# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's own modules and requirements: what is found, and what is said about wrong ones."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _odoo_addons as addons
from ansible_collections.berth.odoo.plugins.module_utils._odoo_addons import AddonsError

HASH = "--hash=sha256:" + "a" * 64


def make_module(parent: Path, name: str, manifest: str = "{'name': 'x'}") -> Path:
    directory = parent / name
    (directory / "models").mkdir(parents=True)
    (directory / "__manifest__.py").write_text(manifest)
    (directory / "__init__.py").write_text("from . import models\n")
    (directory / "models/__init__.py").write_text("")
    return directory


def collect(tmp_path: Path, *paths: Path) -> addons.Addons:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return addons.collect([str(path) for path in paths], scratch)


def test_modules_are_found_in_a_directory_in_repositories_and_alone(tmp_path: Path) -> None:
    make_module(tmp_path / "own", "acme_base")
    make_module(tmp_path / "oca/queue", "queue_job")
    make_module(tmp_path / "oca/.github", "template")
    single = make_module(tmp_path / "elsewhere", "acme_wms")
    assert set(collect(tmp_path, tmp_path / "own", tmp_path / "oca", single).modules) == {"acme_base", "queue_job", "acme_wms"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_of_a_repository_is_a_source(tmp_path: Path, kind: str) -> None:
    make_module(tmp_path / "tree/vendor-1.2", "vendor_label")
    archive = tmp_path / f"vendor.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted((tmp_path / "tree").rglob("*")):
                packed.write(path, path.relative_to(tmp_path / "tree"))
    else:
        with tarfile.open(archive, "w:gz") as packed_tar:
            packed_tar.add(tmp_path / "tree/vendor-1.2", "vendor-1.2")
    assert set(collect(tmp_path, archive).modules) == {"vendor_label"}


def test_an_archive_of_one_module_is_called_as_the_file(tmp_path: Path) -> None:
    make_module(tmp_path, "vendor_label")
    with tarfile.open(tmp_path / "vendor_label.tar", "w") as packed:
        packed.add(tmp_path / "vendor_label", ".")
    assert set(collect(tmp_path, tmp_path / "vendor_label.tar").modules) == {"vendor_label"}


def test_something_else_than_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vendor.zip").write_text("<html>not found</html>")
    with pytest.raises(AddonsError, match=r"vendor\.zip is no archive: expected a \.zip or \.tar file .* found 22 bytes of something else"):
        collect(tmp_path, tmp_path / "vendor.zip")


def test_a_torn_archive_is_refused(tmp_path: Path) -> None:
    make_module(tmp_path / "tree", "vendor_label")
    with tarfile.open(tmp_path / "v.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "tree", ".")
        info = tarfile.TarInfo("vendor_label/data")
        info.size = 300_000
        packed.addfile(info, io.BytesIO(os.urandom(300_000)))
    whole = (tmp_path / "v.tar.gz").read_bytes()
    (tmp_path / "v.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AddonsError, match=r"v\.tar\.gz is damaged or of an unknown kind .*: copy or pack it again"):
        collect(tmp_path, tmp_path / "v.tar.gz")


@pytest.mark.parametrize("member", ["../evil.py", "acme/../../evil.py", "/etc/cron.d/evil"])
def test_an_archive_whose_members_leave_it_is_refused_and_writes_nothing(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as packed:
        packed.writestr(member, "x")
    with tarfile.open(tmp_path / "v.tar", "w") as packed_tar:
        packed_tar.addfile(tarfile.TarInfo(member))
    with pytest.raises(AddonsError, match="leaves the directory it is unpacked to"):
        collect(tmp_path, tmp_path / "v.zip")
    if not member.startswith("/"):
        # An absolute name becomes a relative one; the rest is refused by tarfile's own words.
        (tmp_path / "again").mkdir()
        with pytest.raises(AddonsError, match=r"v\.tar: .*outside the destination"):
            collect(tmp_path / "again", tmp_path / "v.tar")
    assert not [path for path in tmp_path.rglob("evil.py") if "scratch" not in path.parts]


def test_a_link_out_of_an_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "v.tar", "w") as packed:
        link = tarfile.TarInfo("acme/secret")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        packed.addfile(link)
    with pytest.raises(AddonsError, match="pack the modules again, without links out of them"):
        collect(tmp_path, tmp_path / "v.tar")


def test_two_copies_of_a_module_are_named_both(tmp_path: Path) -> None:
    make_module(tmp_path / "a", "queue_job")
    make_module(tmp_path / "b", "queue_job")
    with pytest.raises(AddonsError, match=rf"module queue_job is there twice, in {tmp_path}/a/queue_job and in {tmp_path}/b/queue_job"):
        collect(tmp_path, tmp_path / "a", tmp_path / "b")


def test_a_link_to_a_module_is_no_second_copy(tmp_path: Path) -> None:
    make_module(tmp_path / "a", "queue_job")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/queue_job").symlink_to(tmp_path / "a/queue_job")
    assert set(collect(tmp_path, tmp_path / "a", tmp_path / "b").modules) == {"queue_job"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{'name': 'x',\n 'depends': ['base'\n", r"line 2: .*"),
        ("{'name': open('/etc/passwd').read()}", r"it must be one dictionary of plain values"),
        ("['base']", r"it must be one dictionary, not a list"),
    ],
)
def test_a_broken_manifest_is_explained_with_its_line(tmp_path: Path, text: str, reason: str) -> None:
    make_module(tmp_path / "own", "acme", text)
    with pytest.raises(AddonsError, match=rf"module acme: {tmp_path}/own/acme/__manifest__\.py cannot be read: {reason}"):
        collect(tmp_path, tmp_path / "own")


def test_a_name_that_python_cannot_import_is_refused(tmp_path: Path) -> None:
    make_module(tmp_path / "own", "acme-wms")
    with pytest.raises(AddonsError, match="a module cannot be called 'acme-wms', Python imports it by this name"):
        collect(tmp_path, tmp_path / "own")


def test_a_source_without_modules_shows_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "own/doc").mkdir(parents=True)
    with pytest.raises(AddonsError, match=r"no Odoo module in .*own: expected directories with a __manifest__\.py, found doc"):
        collect(tmp_path, tmp_path / "own")
    with pytest.raises(AddonsError, match="does not exist on the machine that runs Ansible"):
        collect(tmp_path, tmp_path / "onw")


def test_the_tar_file_depends_on_the_content_alone(tmp_path: Path) -> None:
    first, second = make_module(tmp_path / "a", "acme"), make_module(tmp_path / "b", "acme")
    os.utime(second / "__init__.py", (1, 1))
    (second / "models/__pycache__").mkdir()
    (second / "models/__pycache__/x.pyc").write_bytes(b"x")
    (second / ".git").mkdir()
    (second / ".git/HEAD").write_text("x")
    digests = [addons.write_tar({"acme": module}, tmp_path / f"{module.parent.name}.tar") for module in (first, second)]
    assert digests[0] == digests[1]
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert archive.getnames() == [".", "acme/__init__.py", "acme/__manifest__.py", "acme/models/__init__.py"]
        assert {(item.uid, item.uname, item.mtime) for item in archive} == {(0, "", 0)}
    (second / "__init__.py").write_text("# changed\n")
    assert addons.write_tar({"acme": second}, tmp_path / "c.tar") != digests[0]


def test_links_that_cannot_go_into_an_image_are_refused(tmp_path: Path) -> None:
    module = make_module(tmp_path, "acme")
    (module / "lib").symlink_to(tmp_path)
    with pytest.raises(AddonsError, match="acme/lib is a link to a directory; put the files themselves there"):
        addons.write_tar({"acme": module}, tmp_path / "a.tar")
    (module / "lib").unlink()
    (module / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AddonsError, match="acme/gone is no file, or a link to something that is not there"):
        addons.write_tar({"acme": module}, tmp_path / "a.tar")


def test_the_git_revision_of_the_sources_is_known(tmp_path: Path) -> None:
    module = make_module(tmp_path / "own", "acme")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path / "own"), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert collect(tmp_path, tmp_path / "own").revision == ""
    git("init", "--quiet")
    assert collect(tmp_path, tmp_path / "own").revision == ""
    git("add", ".")
    git("commit", "--quiet", "--message", "x")
    head = git("rev-parse", "HEAD")
    assert collect(tmp_path, tmp_path / "own").revision == head
    (module / "__init__.py").write_text("# changed\n")
    assert collect(tmp_path, tmp_path / "own").revision == f"{head}-dirty"


def test_requirements_are_read_as_they_are_compiled() -> None:
    text = f"# made by uv\nodoo-addon-queue_job==19.0.2.4.0.1 \\\n    {HASH} \\\n    {HASH}\n    # via x\nfsspec[s3]==2026.9.0 ; python_version < '4' {HASH}\n"
    assert addons.check_requirements(text, "r.txt") == {"odoo-addon-queue-job": "19.0.2.4.0.1", "fsspec": "2026.9.0"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("queue-job==1", r"line 2: queue-job has no hash; expected queue-job==1 --hash=sha256:<64 hex digits>"),
        (f"queue-job==1 {HASH[:-1]}", r"line 2: queue-job has no hash"),
        (f"queue-job>=1 {HASH}", r"line 2: 'queue-job>=1' is not pinned; expected name==version"),
        (f"queue-job==19.0.* {HASH}", r"line 2: 'queue-job==19\.0\.\*' is not pinned"),
        (f"queue-job @ https://example.com/x.whl {HASH}", r"line 2: 'queue-job' is not pinned"),
        ("--index-url https://example.com", r"line 2: options such as --index-url do not belong there; .*{PIP_INDEX_URL: …}"),
    ],
)
def test_a_requirement_that_is_not_pinned_is_refused_with_its_line(line: str, message: str) -> None:
    with pytest.raises(AddonsError, match=message) as caught:
        addons.check_requirements(f"# ours\n{line}\n", "/srv/r.txt")
    assert "uv pip compile --no-deps --generate-hashes" in str(caught.value)
