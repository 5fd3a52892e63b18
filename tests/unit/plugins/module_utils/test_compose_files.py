# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of compose_project: whole or not at all, nowhere else, and only by one run at a time."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _compose_files as files
from ansible_collections.berth.odoo.plugins.module_utils._compose import DataDirectory, ManagedFile
from ansible_collections.berth.odoo.plugins.module_utils._compose_files import HostError, ProjectDirectory

UID, GID = os.geteuid(), os.getegid()


def managed(dest: str, content: bytes = b"new", mode: int = 0o440) -> ManagedFile:
    return ManagedFile(dest, content, UID, GID, mode, False, (), ())


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    return ProjectDirectory(str(tmp_path / "base" / "p"))


def prepare(project: ProjectDirectory, *directories: str) -> None:
    for path in directories:
        project.ensure_directory(path, GID, 0o755)


def test_files_are_written_read_and_replaced(project: ProjectDirectory) -> None:
    assert project.read("compose.yml") is None
    project.write(managed("compose.yml", b"1"))
    prepare(project, "a", "a/b")
    project.write(managed("a/b/c", b"2", 0o600))
    assert project.read("a/b/c") == files.FileState(b"2", UID, GID, 0o600)
    inode = Path(project.path, "a/b/c").stat().st_ino
    project.write(managed("a/b/c", b"3"))
    assert project.read("a/b/c") == files.FileState(b"3", UID, GID, 0o440)
    assert Path(project.path, "a/b/c").stat().st_ino != inode, "replaced by a new file, never written in place"
    assert sorted(os.listdir(Path(project.path, "a/b"))) == ["c"]


def test_modes_do_not_depend_on_the_umask(project: ProjectDirectory) -> None:
    before = os.umask(0o077)
    try:
        prepare(project, "open")
        project.ensure_directory("secret", GID, 0o750)
        project.write(managed("open/f", mode=0o666))
        files.ensure_directory(DataDirectory(f"{project.path}/x/data", UID, GID, 0o777))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(Path(project.path, name).stat().st_mode) for name in ("", "open", "secret", "open/f", "x", "x/data")}
    assert modes == {"": 0o755, "open": 0o755, "secret": 0o750, "open/f": 0o666, "x": 0o755, "x/data": 0o777}
    assert project.directory_matches("secret", GID, 0o750)
    assert not project.directory_matches("secret", GID, 0o755)
    assert not project.directory_matches("missing", GID, 0o755)
    assert not files.directory_differs(DataDirectory(f"{project.path}/x/data", UID, GID, 0o777))
    assert files.directory_differs(DataDirectory(f"{project.path}/x/data", UID, GID, 0o700))
    assert files.directory_differs(DataDirectory(f"{project.path}/nothing", UID, GID, 0o700))


def test_a_refused_file_leaves_the_old_one(project: ProjectDirectory) -> None:
    project.write(managed("compose.yml", b"old"))
    seen = []

    def refuse(path: str) -> None:
        seen.append((Path(path).read_bytes(), Path(path).parent == Path(project.path)))
        raise HostError("no")

    with pytest.raises(HostError, match="no"):
        project.write(managed("compose.yml", b"bad"), check=refuse)
    assert seen == [(b"bad", True)]
    assert os.listdir(project.path) == ["compose.yml"]
    assert project.read("compose.yml") == files.FileState(b"old", UID, GID, 0o440)


def test_what_a_killed_run_left_is_no_obstacle(project: ProjectDirectory) -> None:
    prepare(project, "a")
    Path(project.path, "a/.f.berth-new").write_text("half")
    project.write(managed("a/f"))
    assert os.listdir(Path(project.path, "a")) == ["f"]
    Path(project.path, "a/.f.berth-new").write_text("half")
    project.remove("a/f")
    assert not Path(project.path, "a").exists()


def test_removing_takes_empty_directories_and_nothing_else(project: ProjectDirectory) -> None:
    prepare(project, "a", "a/b", "kept", "shared")
    for dest in ("a/b/f", "kept/f", "shared/f"):
        project.write(managed(dest))
    Path(project.path, "shared/theirs").write_text("x")
    for dest in ("a/b/f", "kept/f", "shared/f", "never/there"):
        project.remove(dest, keep={"kept"})
    assert sorted(str(path.relative_to(project.path)) for path in Path(project.path).rglob("*")) == ["kept", "shared", "shared/theirs"]
    assert project.exists("kept")
    assert not project.exists("a")
    assert project.remove_itself() == ["kept", "shared"]
    project.remove("kept/f")
    Path(project.path, "shared/theirs").unlink()
    project.remove("shared/f")
    assert project.remove_itself() == []
    assert not Path(project.path).exists()
    assert project.remove_itself() == []


@pytest.mark.parametrize("name", ["config", "f"])
def test_links_inside_the_project_are_refused(project: ProjectDirectory, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f").write_text("theirs")
    prepare(project, "real")
    if name == "config":
        Path(project.path, "config").symlink_to(elsewhere)
        for action in (lambda: project.read("config/f"), lambda: project.write(managed("config/f")), lambda: project.remove("config/f")):
            with pytest.raises(HostError, match="config is not a directory but a file or a link"):
                action()
    else:
        Path(project.path, "real/f").symlink_to(elsewhere / "f")
        with pytest.raises(HostError, match="real/f is a symbolic link"):
            project.read("real/f")
    assert (elsewhere / "f").read_text() == "theirs"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: os.mkfifo(path)])
def test_only_regular_files_are_read(project: ProjectDirectory, make: Any) -> None:
    prepare(project, "a")
    make(Path(project.path, "a/f"))
    with pytest.raises(HostError, match="a/f is not a regular file"):
        project.read("a/f")


def test_links_are_followed_only_where_root_alone_can_have_made_them(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    trusted = tmp_path / "trusted"
    trusted.mkdir(mode=0o755)
    (trusted / "data").symlink_to(disk)
    files.ensure_directory(DataDirectory(str(trusted / "data" / "x"), UID, GID, 0o700))
    assert (disk / "x").is_dir()
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "data").symlink_to(disk)
    with pytest.raises(HostError, match="is a symbolic link in a directory that others than root can write to"):
        files.ensure_directory(DataDirectory(str(open_to_all / "data"), UID, GID, 0o777))
    assert stat.S_IMODE(disk.stat().st_mode) != 0o777
    (tmp_path / "file").write_text("x")
    with pytest.raises(HostError, match="file is not a directory: move it away"):
        files.ensure_directory(DataDirectory(str(tmp_path / "file" / "x"), UID, GID, 0o700))


def test_content_of_data_directories_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/f").write_text("x")
    (tmp_path / "data/f").chmod(0o604)
    files.ensure_directory(DataDirectory(str(tmp_path / "data"), UID, GID, 0o700))
    assert stat.S_IMODE((tmp_path / "data/f").stat().st_mode) == 0o604


def test_the_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_DIRECTORY", str(tmp_path / "run"))
    base = str(tmp_path / "base")
    assert files.read_key(base) is None
    key = files.ensure_key(base)
    assert len(key) == 32
    assert files.ensure_key(base) == key == files.read_key(base)
    assert stat.S_IMODE((tmp_path / "base/.key").stat().st_mode) == 0o600
    (tmp_path / "base/.key").write_bytes(b"short")
    assert files.read_key(base) is None
    assert len(files.ensure_key(base)) == 32


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_DIRECTORY", str(tmp_path))
    with files.project_lock("p", 0, "anna on laptop"):
        with pytest.raises(HostError) as caught, files.project_lock("p", 0.2, "bert"):
            pass
        message = str(caught.value)
        assert f"project p is being changed by another run (process {os.getpid()}, since 2" in message
        assert "started by anna on laptop); waited 0.2 s" in message
        assert f"kill {os.getpid()}" in message
        with files.project_lock("q", 0, "bert"):
            pass
    with files.project_lock("p", 0, "bert"):
        pass


def test_the_lock_lives_as_long_as_a_child_that_inherited_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.setattr(files, "LOCK_DIRECTORY", str(tmp_path))
    with files.project_lock("p", 0, "anna") as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(HostError), files.project_lock("p", 0, "bert"):
        pass
    child.communicate()
    with files.project_lock("p", 0, "bert"):
        pass


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_without_a_readable_note_still_tells_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: str) -> None:
    monkeypatch.setattr(files, "LOCK_DIRECTORY", str(tmp_path))
    with files.project_lock("p", 0, "anna"):
        (tmp_path / "p.lock").write_text(note)
        with pytest.raises(HostError, match=r"another process.*fuser -v .*p\.lock"), files.project_lock("p", 0, "bert"):
            pass
