# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, directories, locks and the host's key for compose_project: everything that touches a disk.

The rules that hold here: a file is complete or not there (temporary file, fsync, rename in the same directory); nothing is
followed that somebody other than root could have redirected; nothing is removed that was not written by this collection.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ansible_collections.berth.odoo.plugins.module_utils._compose import DataDirectory, ManagedFile

LOCK_DIRECTORY = "/run/berth"
KEY_FILE = ".key"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class HostError(Exception):
    """The host is in a state in which the request must not be carried out. The message says what to do."""


@dataclass(frozen=True)
class FileState:
    """A regular file as it is on the disk."""

    content: bytes
    owner: int
    group: int
    mode: int

    def matches(self, wanted: ManagedFile) -> bool:
        """Tell whether nothing about the file has to change."""
        return self == FileState(wanted.content, wanted.owner, wanted.group, wanted.mode)


# --- directories --------------------------------------------------------------------------------------------------------


def _only_root_can_change(directory: int) -> bool:
    status = os.fstat(directory)
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def _open_below(parent: int, name: str, path: str, *, create: bool) -> int:
    """Open a directory inside an opened one. A symbolic link is followed only where nobody but root can have made it."""
    for attempt in ("existing", "made"):
        try:
            return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            if not create or attempt == "made":
                raise
            os.mkdir(name, 0o755, dir_fd=parent)
            made = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            os.fchmod(made, 0o755)  # whatever the umask was
            return made
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            if not stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise HostError(f"{path} is not a directory: move it away") from error
            if not _only_root_can_change(parent):
                raise HostError(
                    f"{path} is a symbolic link in a directory that others than root can write to; it is not followed. "
                    "Replace it by a directory or a bind mount"
                ) from error
            return os.open(name, _DIRECTORY, dir_fd=parent)
    raise AssertionError("unreachable: the second attempt returns or raises")


@contextlib.contextmanager
def opened_directory(path: str, *, create: bool = False) -> Iterator[int]:
    """Open an absolute directory step by step and yield its descriptor.

    Args:
        path: Absolute path.
        create: Make what is missing, owned by root with mode 0755.

    Raises:
        FileNotFoundError: Something is missing and create is false.
        HostError: A part is not a directory, or a symbolic link that cannot be trusted.
    """
    current = os.open("/", _DIRECTORY)
    walked = ""
    try:
        for part in (part for part in path.split("/") if part):
            walked = f"{walked}/{part}"
            following = _open_below(current, part, walked, create=create)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def set_ownership(directory: int, owner: int, group: int, mode: int) -> bool:
    """Give an opened directory or file its owner and mode; tell whether that changed anything."""
    status = os.fstat(directory)
    changed = False
    if (status.st_uid, status.st_gid) != (owner, group):
        os.fchown(directory, owner, group)
        changed = True
    if stat.S_IMODE(status.st_mode) != mode or changed:  # chown clears set-id bits, so the mode is set after it
        os.fchmod(directory, mode)
        changed = True
    return changed


def directory_differs(wanted: DataDirectory) -> bool:
    """Tell whether a data directory is missing or has another owner or mode."""
    try:
        with opened_directory(wanted.path) as descriptor:
            status = os.fstat(descriptor)
    except FileNotFoundError:
        return True
    return (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (wanted.owner, wanted.group, wanted.mode)


def ensure_directory(wanted: DataDirectory) -> None:
    """Make a data directory, or correct its owner and mode. What is inside it is never touched."""
    with opened_directory(wanted.path, create=True) as descriptor:
        set_ownership(descriptor, wanted.owner, wanted.group, wanted.mode)


# --- the project directory ----------------------------------------------------------------------------------------------


class ProjectDirectory:
    """The files of one project, addressed by their paths relative to it.

    Args:
        path: Absolute path of the project directory.
    """

    def __init__(self, path: str) -> None:
        """Remember the path; nothing is opened or made yet."""
        self.path = path

    @contextlib.contextmanager
    def _parent(self, dest: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the directory of a file and yield it with the file's own name. No symbolic link inside is followed."""
        *directories, name = dest.split("/")
        with opened_directory(self.path, create=create) as root:
            current = os.dup(root)
            try:
                walked = self.path
                for part in directories:
                    walked = f"{walked}/{part}"
                    try:
                        following = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                    except OSError as error:
                        if error.errno in (errno.ELOOP, errno.ENOTDIR):
                            raise HostError(f"{walked} is not a directory but a file or a link: move it away") from error
                        raise
                    os.close(current)
                    current = following
                yield current, name
            finally:
                os.close(current)

    def exists(self, dest: str) -> bool:
        """Tell whether a directory of the project is there."""
        try:
            with self._parent(f"{dest}/."):
                return True
        except FileNotFoundError:
            return False

    def read(self, dest: str) -> FileState | None:
        """Return a file, None when it is not there.

        Raises:
            HostError: Something else than a regular file has its name.
        """
        try:
            with self._parent(dest) as (parent, name):
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise HostError(f"{self.path}/{dest} is a symbolic link, a file was expected: move it away") from error
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise HostError(f"{self.path}/{dest} is not a regular file: move it away")
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                return FileState(stream.read(), status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        finally:
            os.close(descriptor)

    def directory_matches(self, dest: str, group: int, mode: int) -> bool:
        """Tell whether a directory of the project exists with the wanted group and mode (owner: root)."""
        try:
            with self._parent(f"{dest}/.") as (directory, _name):
                status = os.fstat(directory)
        except FileNotFoundError:
            return False
        return (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), group, mode)

    def ensure_directory(self, dest: str, group: int, mode: int) -> None:
        """Make a directory of the project whose parent exists, or correct its owner and mode."""
        with self._parent(dest, create=True) as (parent, name), contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        with self._parent(f"{dest}/.") as (directory, _name):
            set_ownership(directory, os.geteuid(), group, mode)

    def write(self, wanted: ManagedFile, check: Callable[[str], None] | None = None) -> None:
        """Put a file in place, whole or not at all. Its directory must exist.

        Args:
            wanted: The file.
            check: Called with the path of the complete temporary file; when it raises, the old file stays.
        """
        with self._parent(wanted.dest, create="/" not in wanted.dest) as (parent, name):
            temporary = _temporary_name(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)  # left by a run that was killed; the lock excludes a living one
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(wanted.content)
                    stream.flush()
                    set_ownership(stream.fileno(), wanted.owner, wanted.group, wanted.mode)
                    os.fsync(stream.fileno())
                if check:
                    check(os.path.join(self.path, os.path.dirname(wanted.dest), temporary))
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=parent)
                raise
            os.fsync(parent)

    def remove(self, dest: str, keep: Collection[str] = ()) -> None:
        """Remove a file and the directories above it that became empty.

        Args:
            dest: The file; it need not be there.
            keep: Directories that stay although they are empty.
        """
        with contextlib.suppress(FileNotFoundError), self._parent(dest) as (parent, name):
            for victim in (_temporary_name(name), name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(victim, dir_fd=parent)
            os.fsync(parent)
        directory = dest.rpartition("/")[0]
        while directory and directory not in keep and self._remove_directory(directory):
            directory = directory.rpartition("/")[0]

    def _remove_directory(self, dest: str) -> bool:
        try:
            with self._parent(dest) as (parent, name):
                os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
                return False
            raise
        return True

    def remove_itself(self) -> list[str]:
        """Remove the project directory when it is empty; return the names that keep it."""
        try:
            with opened_directory(self.path) as root:
                left = sorted(os.listdir(root))
        except FileNotFoundError:
            return []
        if not left:
            os.rmdir(self.path)
        return left


def _temporary_name(name: str) -> str:
    return f".{name}.berth-new"


# --- the host's key -----------------------------------------------------------------------------------------------------


def read_key(base_dir: str) -> bytes | None:
    """Return the secret that the digests in labels are keyed with, None when this host has none yet."""
    state = ProjectDirectory(base_dir).read(KEY_FILE)
    return state.content if state and len(state.content) >= 32 else None


def ensure_key(base_dir: str) -> bytes:
    """Return the host's key, made on first use. Losing it costs one recreation of every container, nothing else."""
    key = read_key(base_dir)
    if key is None:
        fresh = ManagedFile(KEY_FILE, secrets.token_bytes(32), os.geteuid(), os.getegid(), 0o600, True, (), ())
        with project_lock(KEY_FILE, timeout=10, holder="creation of the host's key"):
            if read_key(base_dir) is None:  # another project may have made it meanwhile
                ProjectDirectory(base_dir).write(fresh)
        key = read_key(base_dir)
        if key is None:
            raise HostError(f"{base_dir}/{KEY_FILE} cannot be read back after it was written")
    return key


# --- one run at a time --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def project_lock(name: str, timeout: float, holder: str) -> Iterator[int]:
    """Hold the lock of a project; yield its descriptor, which child processes inherit so that they hold it, too.

    The kernel drops the lock with the last process that has it, so a killed run leaves nothing to clean up.

    Args:
        name: Project.
        timeout: Seconds to wait for another run.
        holder: Who we are, for the message that the other one shows.

    Raises:
        HostError: Another run still holds it; the message says which.
    """
    os.makedirs(LOCK_DIRECTORY, mode=0o700, exist_ok=True)
    path = os.path.join(LOCK_DIRECTORY, f"{name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise HostError(_lock_message(name, path, timeout, descriptor)) from None
                time.sleep(0.1)
        note = json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"), "by": holder})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_message(name: str, path: str, timeout: float, descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        who = f"process {note['pid']}, since {note['since']}, started by {note['by']}"
        remedy = f"Wait for it; if it hangs, end it with: kill {note['pid']}"
    except (ValueError, KeyError, TypeError):
        who = "another process"
        remedy = f"Find it with: fuser -v {path}"
    return f"project {name} is being changed by another run ({who}); waited {timeout:g} s. {remedy}. The lock ends with it"
