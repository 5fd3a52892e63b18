# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take one step of a rotation in an encrypted file, on the controller; documented in plugins/modules/secrets_rotation.py."""

from __future__ import annotations

import os
import secrets
import stat
import string
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted
from ansible.plugins.action import ActionBase

from ansible_collections.berth.odoo.plugins.module_utils import _rotation

PASSWORD_LENGTH = 40


def new_password() -> str:
    """Return a password of letters and digits, which need quoting nowhere."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(PASSWORD_LENGTH))


def plain(value: Any) -> Any:
    """Copy without Ansible's tags, and with strings for what was encrypted or lazy."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


def replace(file: Path, encrypted: bytes, before: bytes) -> None:
    """Put new content in the place of the old in one step that either happens or does not.

    Raises:
        OSError: it could not be written; the old content is there.
        RotationError: somebody else changed the file meanwhile.
    """
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(encrypted)
            stream.flush()
            os.fsync(stream.fileno())
        owner = file.stat()
        os.chmod(name, stat.S_IMODE(owner.st_mode))
        if os.geteuid() == 0:
            os.chown(name, owner.st_uid, owner.st_gid)
        if file.read_bytes() != before:
            raise _rotation.RotationError("somebody changed it meanwhile: run this again")
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def rotate(file: Path, vault: VaultLib, step: str, databases: Mapping[str, str], effective: Any, *, write: bool) -> list[str]:
    """Take a step and return the instances that it changes.

    Raises:
        RotationError, OSError, AnsibleError: nothing was changed.
    """
    before = file.read_bytes()
    if not is_encrypted(before):
        raise _rotation.RotationError(f"it is not encrypted as a whole. Type: ansible-vault encrypt {file}")
    decrypted, vault_id, secret = vault.decrypt_and_get_vault_id(before)
    text = bytes(decrypted).decode("utf-8")
    found = _rotation.values(text)
    changed = []
    for instance, database in databases.items():
        if instance not in found:
            raise _rotation.RotationError(f"it has no {_rotation.VARIABLE}.{instance}: name the file that has it, -e secrets_file=<file>")
        seen = effective.get(instance) if isinstance(effective, Mapping) else None
        if seen != found[instance]:
            raise _rotation.RotationError(
                f"what it says of {_rotation.VARIABLE}.{instance} is not what the inventory says, where another file or -e comes after it. "
                f"Remove the other, or name it: -e secrets_file=<file>"
            )
        wanted = _rotation.changes(step, database, found[instance], new_password())
        if wanted:
            text = _rotation.edit(text, instance, wanted)
            changed.append(instance)
    if changed and write:
        encrypted: bytes = vault.encrypt(text, secret=secret, vault_id=None if vault_id == "default" else vault_id)
        if bytes(vault.decrypt(encrypted)).decode("utf-8") != text:
            raise _rotation.RotationError("what was encrypted is not what comes out of it again")
        replace(file, encrypted, before)
    return changed


class ActionModule(ActionBase):
    """Change the file, or say why not."""

    _requires_connection = False
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run on the controller. Arguments and results: see the module's documentation."""
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(
            argument_spec={
                "file": {"type": "path", "required": True},
                "step": {"type": "str", "required": True, "choices": list(_rotation.STEPS)},
                "kind": {"type": "str", "default": "database", "choices": list(_rotation.KINDS)},
                "databases": {"type": "dict", "required": True},
                "effective": {"type": "raw", "required": True},
            }
        )
        file = Path(arguments["file"])
        try:
            changed = rotate(
                file,
                VaultLib(self._loader._vault.secrets),
                arguments["step"],
                plain(arguments["databases"]),
                plain(arguments["effective"]),
                write=not self._task.check_mode,
            )
        except (_rotation.RotationError, OSError, AnsibleError) as error:
            raise AnsibleActionFail(f"{file}: nothing was changed: {error}") from error
        return {"changed": bool(changed), "instances": changed}
