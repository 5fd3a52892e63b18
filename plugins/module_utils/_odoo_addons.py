# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's own Odoo modules and pinned Python packages, as they lie on the controller, made ready for a build.

Everything that can be said without an image is said here, before anything is built: a path that is wrong, an archive that is none, a module
that is there twice, a manifest that cannot be read, a requirement without a hash. What needs the image is said by its contract check.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "__manifest__.py"
# Archives of code hosts put a repository into a directory of their own, and people keep repositories side by side.
DEPTH = 3

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_ARCHIVE = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz|txz)$", re.IGNORECASE)
_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*==\s*([^\s;*]+)(?:\s*;.*?)?")
_HASH = re.compile(r"--hash[= ]sha256:[0-9a-f]{64}(?=\s|$)")


class AddonsError(ValueError):
    """Something about the given modules or requirements is wrong; the message says where, what was found, and what to type."""


class Addons(NamedTuple):
    """Modules for one image.

    Attributes:
        modules: Directory of each module, by its name.
        revision: Git revisions of the sources, such as C(addons=0a1b2c3…); empty when none is under Git.
    """

    modules: dict[str, Path]
    revision: str


def manifest(text: str) -> dict[str, Any]:
    """Return a module's manifest. Raises ValueError with the reason and the line."""
    try:
        found = ast.literal_eval(text)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"it must be one dictionary of plain values ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"it must be one dictionary, not a {type(found).__name__}")
    return found


def find_modules(directory: Path) -> list[Path]:
    """Return the directories of the modules in a directory, or the directory itself when it is one. Raises OSError."""
    if (directory / MANIFEST).is_file():
        return [directory]
    found: list[Path] = []
    level = [directory]
    for _depth in range(DEPTH):
        below: list[Path] = []
        for parent in level:
            for child in sorted(parent.iterdir()):
                if child.name.startswith(".") or not child.is_dir():
                    continue
                (found if (child / MANIFEST).is_file() else below).append(child)
        level = below
    return found


def unpack(archive: Path, target: Path) -> None:
    """Unpack a .zip or .tar archive.

    Raises:
        AddonsError: It is neither, or a member would be written outside of the directory.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for member in packed.infolist():
                    name = member.filename
                    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
                        raise AddonsError(f"{archive}: its member {name!r} leaves the directory it is unpacked to; pack the modules again")
                    packed.extract(member, target)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(target, filter="data")
        else:
            raise AddonsError(
                f"{archive} is no archive: expected a .zip or .tar file (also .tar.gz, .tar.bz2, .tar.xz) or a directory, found"
                f" {archive.stat().st_size} bytes of something else"
            )
    except tarfile.FilterError as error:
        raise AddonsError(f"{archive}: {error}; pack the modules again, without links out of them") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise AddonsError(f"{archive} is damaged or of an unknown kind ({error}): copy or pack it again") from error


def revision(directory: Path) -> str:
    """Return the Git revision of a directory, with C(-dirty) when files differ from it; empty when it is not under Git.

    Raises:
        AddonsError: Git is there and refuses.
    """
    if not any((parent / ".git").exists() for parent in (directory.resolve(), *directory.resolve().parents)):
        return ""

    def git(*arguments: str) -> str:
        # On the controller, where there is no module whose run_command could be used.
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)  # pylint: disable=ansible-bad-function
        if done.returncode != 0:
            raise AddonsError(f"{directory} is under Git, and git {arguments[0]} failed there: {done.stderr.strip()}")
        return done.stdout.strip()

    try:
        # Not yet a commit: there is no revision to speak of.
        if not git("rev-list", "--all", "--max-count=1"):
            return ""
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except FileNotFoundError:
        return ""


def collect(paths: Sequence[str], scratch: Path) -> Addons:
    """Find the modules in directories and archives.

    Args:
        paths: Directories of modules, modules, or archives of them, on this machine.
        scratch: Where archives are unpacked to; must live as long as the result.

    Raises:
        AddonsError: A source has no modules, is unreadable, or a module is there twice or cannot be read.
    """
    modules: dict[str, Path] = {}
    origins: dict[str, str] = {}
    revisions: dict[str, str] = {}
    for number, text in enumerate(paths):
        path = Path(os.path.expandvars(text)).expanduser()
        if not path.exists():
            raise AddonsError(f"images_odoo_addons: {path} does not exist on the machine that runs Ansible")
        directory = path
        try:
            if not path.is_dir():
                directory = scratch / str(number) / _ARCHIVE.sub("", path.name)
                directory.mkdir(parents=True)
                unpack(path, directory)
            elif rev := revision(path):
                revisions[path.resolve().name] = rev
            found = find_modules(directory)
        except OSError as error:
            raise AddonsError(f"images_odoo_addons: cannot read {path}: {error}") from error
        if not found:
            inside = ", ".join(sorted(child.name for child in directory.iterdir())[:8]) or "nothing"
            raise AddonsError(f"images_odoo_addons: no Odoo module in {path}: expected directories with a {MANIFEST}, found {inside}")
        for module in found:
            _add(modules, origins, module, path)
    return Addons(
        modules, " ".join(f"{name}={rev}" for name, rev in revisions.items()) if len(revisions) > 1 else "".join(revisions.values())
    )


def _add(modules: dict[str, Path], origins: dict[str, str], module: Path, source: Path) -> None:
    """Take a module in. Raises AddonsError."""
    name = module.resolve().name if module == source else module.name
    where = str(module if module.is_relative_to(source) else source)
    if not _MODULE.fullmatch(name):
        raise AddonsError(f"{where}: a module cannot be called {name!r}, Python imports it by this name; rename the directory")
    if name in modules:
        # The same directory by two ways, such as a link to it, is one module.
        if modules[name].resolve() == module.resolve():
            return
        raise AddonsError(f"module {name} is there twice, in {origins[name]} and in {where}: leave one of them out of images_odoo_addons")
    try:
        manifest((module / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AddonsError(f"module {name}: {where}/{MANIFEST} cannot be read: {error}") from error
    modules[name] = module
    origins[name] = where


def write_tar(modules: Mapping[str, Path], target: Path) -> str:
    """Write modules to a tar file that is the same for the same content, and return its SHA-256.

    Raises:
        AddonsError: A module holds what cannot go into an image.
        OSError: A file cannot be read or written.
    """
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        # Docker unpacks only what it recognises, and an archive of no files has nothing to recognise.
        top = tarfile.TarInfo(".")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(top)
        for name in sorted(modules):
            for file, member in _files(name, modules[name]):
                info = tarfile.TarInfo(member)
                status = file.stat()
                info.size, info.mode = status.st_size, 0o755 if status.st_mode & stat.S_IXUSR else 0o644
                with file.open("rb") as stream:
                    archive.addfile(info, stream)
    digest = hashlib.sha256()
    with target.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _files(name: str, module: Path) -> list[tuple[Path, str]]:
    """Return the files of a module and their names in the image. Raises AddonsError."""
    found = []
    for directory, below, files in os.walk(module):
        for child in list(below):
            if child == "__pycache__" or child.startswith("."):
                below.remove(child)
            elif Path(directory, child).is_symlink():
                raise AddonsError(f"module {name}: {Path(directory, child)} is a link to a directory; put the files themselves there")
        for file in files:
            path = Path(directory, file)
            if file.endswith((".pyc", ".pyo")):
                continue
            if not path.is_file():
                raise AddonsError(f"module {name}: {path} is no file, or a link to something that is not there; remove it")
            found.append((path, f"{name}/{path.relative_to(module).as_posix()}"))
    return sorted(found, key=lambda item: item[1])


def check_requirements(text: str, path: str) -> dict[str, str]:
    """Return version by package of a requirements file in which everything is pinned by version and hash.

    Raises:
        AddonsError: Names every line that is not, and how to write it.
    """
    found: dict[str, str] = {}
    problems = []
    number, joined = 0, ""
    for current, line in enumerate([*text.splitlines(), ""], 1):
        number = number if joined else current
        joined += re.sub(r"(^|\s)#.*", "", line).strip()
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        requirement, joined = joined.strip(), ""
        if not requirement:
            continue
        pinned = _PINNED.fullmatch(requirement.partition("--hash")[0].strip())
        if requirement.startswith("-"):
            problems.append(
                f"line {number}: options such as {requirement.split()[0]} do not belong there; another index goes into images_build_args:"
                " {PIP_INDEX_URL: …}"
            )
        elif not pinned:
            problems.append(f"line {number}: {requirement.split()[0]!r} is not pinned; expected name==version")
        elif not _HASH.search(requirement):
            problems.append(f"line {number}: {pinned[1]} has no hash; expected {pinned[1]}=={pinned[2]} --hash=sha256:<64 hex digits>")
        else:
            found[re.sub(r"[-_.]+", "-", pinned[1]).lower()] = pinned[2]
    if problems:
        raise AddonsError(
            f"images_odoo_requirements: {path}: {'; '.join(problems)}."
            " Write the names into requirements.in and run: uv pip compile --no-deps --generate-hashes --output-file requirements.txt requirements.in"
        )
    return found
