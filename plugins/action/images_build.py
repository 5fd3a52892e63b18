# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send build contexts to a build host and fetch the archives; documented in plugins/modules/images_build.py."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.berth.odoo.plugins.module_utils import _image_archive, _image_build, _images, _odoo_addons

ARGUMENTS: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "contexts_dir": {"type": "path", "required": True},
    "base_image": {"type": "str", "required": True},
    "build_args": {"type": "dict", "default": {}},
    "addons": {"type": "dict", "default": {}},
    "refresh": {"type": "str", "default": ""},
    "archive_dir": {"type": "path"},
    "temp_dir": {"type": "path", "default": "/var/tmp"},  # noqa: S108 - as in the module
    "parallel": {"type": "int", "default": 2},
}


def read_contexts(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of every file below a directory of Dockerfiles. Raises OSError."""
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files[path.relative_to(directory).as_posix()] = (path.stat().st_mode & 0o777, path.read_bytes())
    return files


def read_addons(
    names: list[str], given: dict[str, Any], scratch: Path, contexts: dict[str, tuple[int, bytes]]
) -> dict[str, dict[str, Any]]:
    """Return what the module needs to know of the add-ons of each image, and leave their modules in C(<name>.tar) in a directory.

    Raises:
        AddonsError: Something about them is wrong.
    """
    found = {}
    for name, entry in given.items():
        wrong = ""
        if not isinstance(entry, dict):
            wrong = f"is {entry!r}"
        elif unknown := sorted(map(str, entry.keys() - {"addons", "requirements"})):
            wrong = f"has a key {unknown[0]!r}"
        elif not isinstance(entry.get("addons") or [], list):
            wrong = f"has addons {entry['addons']!r}"
        if wrong:
            raise _odoo_addons.AddonsError(
                f"images_odoo_variants: {name} {wrong}; expected {{addons: [<directory or archive>, …], requirements: <file>}}"
            )
    for name in names:
        paths, requirements = (given.get(name) or {}).get("addons") or [], (given.get(name) or {}).get("requirements") or ""
        if not paths and not requirements:
            continue
        if name != _image_build.ODOO and f"{name}/Dockerfile" in contexts:
            raise _odoo_addons.AddonsError(f"images_odoo_variants: {name} is another image of the platform; call yours odoo-<something>")
        text = ""
        if requirements:
            try:
                text = Path(requirements).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise _odoo_addons.AddonsError(f"images_odoo_requirements: cannot read {requirements}: {error}") from error
            _odoo_addons.check_requirements(text, requirements)
        (scratch / f"{name}.unpacked").mkdir()
        addons = _odoo_addons.collect(paths, scratch / f"{name}.unpacked")
        found[name] = {
            "modules": sorted(addons.modules),
            "requirements": text,
            "revision": addons.revision,
            "sha256": _odoo_addons.write_tar(addons.modules, scratch / f"{name}.tar"),
            "path": "",
        }
    return found


class ActionModule(ActionBase):
    """Read the contexts and the manifest on the controller, build on the host, bring the archives back."""

    # True would make a temporary directory on the host before anybody knows whether something must be sent.
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(ARGUMENTS)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Arguments and results: see the module's documentation."""
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        contexts = Path(arguments["contexts_dir"])
        try:
            _images.check_names(arguments["names"])
            files = read_contexts(contexts)
        except OSError as error:
            raise AnsibleActionFail(f"cannot read the build contexts in {contexts}: {error}") from error
        except _images.ImageError as error:
            raise AnsibleActionFail(str(error)) from error
        parameters = {**{key: value for key, value in arguments.items() if value is not None}, "files": _image_build.pack_files(files)}
        self._remote_dir = ""
        try:
            with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as scratch:
                parameters["addons"] = read_addons(arguments["names"], arguments["addons"], Path(scratch), files)
                if not arguments["archive_dir"]:
                    return self._build(parameters, Path(scratch), task_vars or {})
                return self._build_archives(Path(arguments["archive_dir"]), parameters, Path(scratch), task_vars or {})
        except _odoo_addons.AddonsError as error:
            raise AnsibleActionFail(str(error)) from error
        finally:
            if self._remote_dir:
                self._low_level_execute_command(f"rm -rf {shlex.quote(self._remote_dir)}", sudoable=False)

    def _build(self, parameters: dict[str, Any], scratch: Path, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module; send it the modules of Odoo when it says that it needs them."""
        result: dict[str, Any] = self._execute_module("berth.odoo.images_build", parameters, task_vars=task_vars)
        if not result.get("send"):
            return result
        directory = self._directory_on_host(parameters["temp_dir"])
        addons = {name: dict(given) for name, given in parameters["addons"].items()}
        for name in result["send"]:
            addons[name]["path"] = f"{directory}/{name}-modules.tar"
            self._transfer_file(str(scratch / f"{name}.tar"), addons[name]["path"])
        built: dict[str, Any] = self._execute_module("berth.odoo.images_build", {**parameters, "addons": addons}, task_vars=task_vars)
        return built

    def _build_archives(self, directory: Path, parameters: dict[str, Any], scratch: Path, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Build what the archive directory lacks and write it there, the manifest last."""
        manifest = directory / _images.MANIFEST_NAME
        entries: dict[str, dict[str, Any]] = {}
        try:
            if manifest.exists():
                entries = _images.parse_manifest(manifest.read_text(encoding="utf-8"), str(manifest))
        except (OSError, _images.ImageError) as error:
            raise AnsibleActionFail(f"{error}. Delete {manifest} to build everything again.") from error
        known = {
            name: entry["inputs"]
            for name, entry in entries.items()
            if (directory / entry["file"]).is_file() and (directory / entry["file"]).stat().st_size == entry.get("size")
        }
        parameters["known"] = known
        try:
            if not self._task.check_mode:
                directory.mkdir(parents=True, exist_ok=True)
                parameters["save_dir"] = self._directory_on_host(parameters["temp_dir"])
            result = self._build(parameters, scratch, task_vars)
            if result.get("failed"):
                return result
            for name, image in result["images"].items():
                image.pop("seconds", None) if image["action"] == "unchanged" else None
                if image.get("path"):
                    self._fetch(image.pop("path"), directory / image["file"], image["sha256"])
                    self._fetch(image.pop("sbom_path"), directory / image["sbom"], image.pop("sbom_sha256"))
                    former = entries.get(name)
                    entries[name] = {key: value for key, value in image.items() if key not in ("action", "seconds")}
                    self._write(manifest, _images.manifest_text(entries))
                    if former and former["file"] != image["file"]:
                        for file in (former["file"], former.get("sbom")):
                            if file:
                                (directory / file).unlink(missing_ok=True)
                elif name in entries and image["action"] == "unchanged":
                    image.update({key: entries[name][key] for key in ("id", "reference", "version")})
                result["references"][name] = image.get("id") or image.get("reference", "")
            return result
        except OSError as error:
            raise AnsibleActionFail(f"cannot write the archives to {directory}: {error}") from error

    def _directory_on_host(self, temp_dir: str) -> str:
        """Return this run's directory on the build host, which only its login user and root can enter."""
        if self._remote_dir:
            return self._remote_dir
        quoted = shlex.quote(temp_dir)
        # A build takes minutes; what is a day old was left by a run that was killed.
        clean = f"find {quoted} -maxdepth 1 -name 'berth-build.*' -user \"$(id -u)\" -mtime +0 -exec rm -rf {{}} +"
        made = self._low_level_execute_command(f"{clean}; mktemp -d {quoted}/berth-build.XXXXXXXX", sudoable=False)
        lines = made.get("stdout", "").strip().splitlines()
        if made["rc"] != 0 or not lines:
            raise AnsibleActionFail(f"cannot make a directory in {temp_dir} on the build host: {made.get('stderr', '').strip()}")
        self._remote_dir = str(lines[-1])
        return self._remote_dir

    def _fetch(self, remote: str, target: Path, sha256: str) -> None:
        """Bring one file to the controller; it appears under its name only when it is whole."""
        unfinished = target.with_name(f"{target.name}.part")
        self._connection.fetch_file(remote, str(unfinished))
        found = _image_archive.file_digest(unfinished)
        if found != sha256:
            unfinished.unlink()
            raise AnsibleActionFail(f"{target.name} arrived broken from the build host: SHA-256 {found} instead of {sha256}. Run again.")
        os.replace(unfinished, target)

    def _write(self, path: Path, text: str) -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
