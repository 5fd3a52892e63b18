# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a host the image archives that it lacks; documented in plugins/modules/images.py."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.berth.odoo.plugins.module_utils import _image_archive, _images

ARGUMENTS: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "source": {"type": "str", "choices": ["archive", "registry", "present"], "default": "archive"},
    "archive_dir": {"type": "path"},
    "references": {"type": "dict", "default": {}},
    "require_digests": {"type": "bool", "default": False},
    "temp_dir": {"type": "path", "default": "/var/tmp"},  # noqa: S108 - as in the module
}


class ActionModule(ActionBase):
    """Read the manifest on the controller, ask the host what it lacks, send that."""

    # True would make a temporary directory on the host before anybody knows whether something must be sent.
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(ARGUMENTS)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Arguments and results: see the module's documentation."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _result, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            wanted, entries = self._wanted(arguments)
            parameters = {
                **{key: value for key, value in arguments.items() if value is not None},
                "wanted": [{"name": item.name, "id": item.image_id, "reference": item.reference} for item in wanted],
            }
            result = self._module(parameters, task_vars)
            if result.get("failed") or arguments["source"] != "archive" or not result["missing"] or self._task.check_mode:
                result.pop("engine", None)
                return result
            return self._send(arguments, parameters, entries, result, task_vars)
        except (_images.ImageError, _image_archive.ArchiveError) as error:
            raise AnsibleActionFail(str(error)) from error

    def _module(self, parameters: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module("berth.odoo.images", parameters, task_vars=task_vars)
        return answer

    def _wanted(self, arguments: dict[str, Any]) -> tuple[list[_images.Wanted], dict[str, dict[str, Any]]]:
        """Return the images this host should have, and the manifest's entries when they come from archives."""
        names, source = arguments["names"], arguments["source"]
        if source != "archive":
            return _images.wanted_from_references(
                names, arguments["references"], require_digests=arguments["require_digests"], pulled=source == "registry"
            ), {}
        if not arguments["archive_dir"]:
            raise AnsibleActionFail("archive_dir is missing: the directory on the controller that holds manifest.json and the archives")
        manifest = Path(arguments["archive_dir"], _images.MANIFEST_NAME)
        try:
            entries = _images.parse_manifest(manifest.read_text(encoding="utf-8"), str(manifest))
        except FileNotFoundError as error:
            raise AnsibleActionFail(
                f"no image archives in {manifest.parent}: {manifest.name} is missing. Build them with: ansible-playbook -i <inventory> berth.odoo.images,"
                " or copy a directory of archives there and say so in images_archive_dir"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleActionFail(f"cannot read {manifest}: {error}") from error
        return _images.wanted_from_manifest(names, entries, str(manifest)), entries

    def _send(
        self,
        arguments: dict[str, Any],
        parameters: dict[str, Any],
        entries: dict[str, dict[str, Any]],
        looked: dict[str, Any],
        task_vars: dict[str, Any],
    ) -> dict[str, Any]:
        """Send the missing images and have them loaded."""
        host = task_vars.get("inventory_hostname", "this host")
        present = _image_archive.chains(looked["engine"]["layers"])
        with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as scratch:
            sending: list[tuple[str, Path]] = []
            unpacked = 0
            for name in looked["missing"]:
                archive = self._verified(Path(arguments["archive_dir"], entries[name]["file"]), entries[name])
                contents = _image_archive.read(archive)
                layers = _image_archive.to_send(contents.layers, present)
                # The next image finds the layers of this one on the host.
                present |= _image_archive.chains([[layer.diff_id for layer in contents.layers]])
                unpacked += sum(layer.size for layer in layers)
                if layers != contents.layers:
                    subset = Path(scratch, archive.name)
                    _image_archive.write_subset(archive, layers, subset)
                    archive = subset
                sending.append((name, archive))
            stored = [path.stat().st_size for _name, path in sending]
            (temp, temp_device, temp_free), (root, root_device, root_free) = looked["engine"]["disks"]
            _images.check_disk(
                host,
                [
                    ("archives in transfer", temp, temp_device, temp_free, sum(stored)),
                    # docker load unpacks an archive beside the images before it reads the layers.
                    ("images", root, root_device, root_free, unpacked + max(stored)),
                ],
            )
            result = self._transfer_and_load(sending, temp, parameters, task_vars)
        for name, image in result.get("images", {}).items():
            image["action"] = "loaded" if name in looked["missing"] else "present"
        result["missing"] = looked["missing"]
        result["sent_bytes"] = sum(stored)
        return result

    def _verified(self, archive: Path, entry: dict[str, Any]) -> Path:
        """Return the archive's path when its content is what the manifest says."""
        try:
            found = _image_archive.file_digest(archive)
        except OSError as error:
            raise AnsibleActionFail(
                f"{archive}: {error.strerror}. The manifest beside it names it; build again or copy it there."
            ) from error
        if found != entry["sha256"]:
            raise AnsibleActionFail(
                f"{archive} is damaged: SHA-256 {found}, the manifest says {entry['sha256']}. Delete it and run "
                "ansible-playbook -i <inventory> berth.odoo.images, or copy it again."
            )
        return archive

    def _transfer_and_load(
        self, sending: list[tuple[str, Path]], temp_dir: str, parameters: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Put the files into a directory of the login user's on the host, load them, remove the directory."""
        # One fixed directory, so that a later run overwrites and removes what an interrupted one left. The login user makes it,
        # because the connection writes as that user; the test keeps out a directory that somebody else made first.
        quoted = shlex.quote(f"{temp_dir}/berth-images.")
        make = (
            f'd={quoted}"$(id -u)" && {{ mkdir -m 0700 "$d" 2>/dev/null || test -d "$d"; }} && test -O "$d" && ! test -L "$d" && echo "$d"'
        )
        made = self._low_level_execute_command(make, sudoable=False)
        directory = made.get("stdout", "").strip().splitlines()[-1:]
        if made["rc"] != 0 or not directory:
            raise AnsibleActionFail(
                f"cannot make a directory of my own for archives in {temp_dir}: {made.get('stderr', '').strip() or 'it belongs to another user'}."
                " Set images_temp_dir to a directory on disk that the login user may write to."
            )
        try:
            load = []
            for name, path in sending:
                remote = f"{directory[0]}/{name}.tar"
                self._transfer_file(str(path), remote)
                load.append({"path": remote, "sha256": _image_archive.file_digest(path)})
            return self._module({**parameters, "load": load}, task_vars)
        finally:
            self._low_level_execute_command(f"rm -rf {shlex.quote(directory[0])}", sudoable=False)
