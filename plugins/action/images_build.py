# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send build contexts to a build host and fetch the archives; documented in plugins/modules/images_build.py."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.berth.odoo.plugins.module_utils import _image_archive, _image_build, _images

ARGUMENTS: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "contexts_dir": {"type": "path", "required": True},
    "base_image": {"type": "str", "required": True},
    "build_args": {"type": "dict", "default": {}},
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
        if not arguments["archive_dir"]:
            result: dict[str, Any] = self._execute_module("berth.odoo.images_build", parameters, task_vars=task_vars)
            return result
        return self._build_archives(Path(arguments["archive_dir"]), parameters, task_vars or {})

    def _build_archives(self, directory: Path, parameters: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
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
        save_dir = ""
        try:
            if not self._task.check_mode:
                directory.mkdir(parents=True, exist_ok=True)
                save_dir = parameters["save_dir"] = self._make_save_dir(parameters["temp_dir"])
            result: dict[str, Any] = self._execute_module("berth.odoo.images_build", parameters, task_vars=task_vars)
            if result.get("failed"):
                return result
            for name, image in result["images"].items():
                image.pop("seconds", None) if image["action"] == "unchanged" else None
                if image.get("path"):
                    self._fetch(image.pop("path"), directory, image)
                    former = entries.get(name)
                    entries[name] = {key: value for key, value in image.items() if key not in ("action", "seconds")}
                    self._write(manifest, _images.manifest_text(entries))
                    if former and former["file"] != image["file"]:
                        (directory / former["file"]).unlink(missing_ok=True)
                elif name in entries and image["action"] == "unchanged":
                    image.update({key: entries[name][key] for key in ("id", "reference", "version")})
                result["references"][name] = image.get("id") or image.get("reference", "")
            return result
        except OSError as error:
            raise AnsibleActionFail(f"cannot write the archives to {directory}: {error}") from error
        finally:
            if save_dir:
                self._low_level_execute_command(f"rm -rf {shlex.quote(save_dir)}", sudoable=False)

    def _make_save_dir(self, temp_dir: str) -> str:
        """Make a directory on the build host that only its login user and root can enter."""
        quoted = shlex.quote(temp_dir)
        # A build takes minutes; what is a day old was left by a run that was killed.
        clean = f"find {quoted} -maxdepth 1 -name 'berth-build.*' -user \"$(id -u)\" -mtime +0 -exec rm -rf {{}} +"
        made = self._low_level_execute_command(f"{clean}; mktemp -d {quoted}/berth-build.XXXXXXXX", sudoable=False)
        lines = made.get("stdout", "").strip().splitlines()
        if made["rc"] != 0 or not lines:
            raise AnsibleActionFail(f"cannot make a directory in {temp_dir} on the build host: {made.get('stderr', '').strip()}")
        return str(lines[-1])

    def _fetch(self, remote: str, directory: Path, image: dict[str, Any]) -> None:
        """Bring one archive to the controller; it appears under its name only when it is whole."""
        unfinished = directory / (image["file"] + ".part")
        self._connection.fetch_file(remote, str(unfinished))
        found = _image_archive.file_digest(unfinished)
        if found != image["sha256"]:
            unfinished.unlink()
            raise AnsibleActionFail(
                f"{image['file']} arrived broken from the build host: SHA-256 {found} instead of {image['sha256']}. Run again."
            )
        os.replace(unfinished, directory / image["file"])

    def _write(self, path: Path, text: str) -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
