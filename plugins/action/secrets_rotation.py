# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take one step of a rotation in an encrypted file, on the controller; documented in plugins/modules/secrets_rotation.py."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import string
import subprocess
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
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _number in range(PASSWORD_LENGTH))


def plain(value: Any) -> Any:
    """Copy without Ansible's tags, and with strings for what was encrypted or lazy."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


class Vault:
    """A file that Ansible Vault has encrypted as a whole."""

    def __init__(self, vault: VaultLib, content: bytes) -> None:
        """Decrypt it, and remember with which password."""
        self._vault = vault
        decrypted, vault_id, self._secret = vault.decrypt_and_get_vault_id(content)
        self._id = None if vault_id == "default" else vault_id
        self.text = bytes(decrypted).decode("utf-8")

    def encrypt(self, text: str) -> tuple[bytes, str]:
        """Return another text encrypted with the same password, and what comes out of that again."""
        encrypted: bytes = self._vault.encrypt(text, secret=self._secret, vault_id=self._id)
        return encrypted, bytes(self._vault.decrypt(encrypted)).decode("utf-8")


class Sops:
    """A file whose values SOPS has encrypted."""

    def __init__(self, file: Path) -> None:
        """Decrypt it."""
        self._file = file
        self.text = self._run("--decrypt", file)

    @staticmethod
    def made(content: bytes) -> bool:
        """Whether SOPS has encrypted this."""
        return b"ENC[AES256_GCM," in content and any(line.startswith(b"sops:") for line in content.splitlines())

    def encrypt(self, text: str) -> tuple[bytes, str]:
        """Return another text for the same recipients, and what comes out of that again.

        SOPS alone knows how to keep recipients of every kind, and does so when somebody edits: that is a program which reads the new text from its
        input. It gets a file to write to, which is in memory where the system has such a place.
        """
        memory = Path("/dev/shm")  # noqa: S108 - a directory of our own in it
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
            file = Path(name, self._file.name)
            file.write_bytes(self._file.read_bytes())
            self._run(file, stdin=text, TMPDIR=name, EDITOR="tee", SOPS_EDITOR="tee")
            return file.read_bytes(), self._run("--decrypt", file)

    @staticmethod
    def _run(*arguments: str | Path, stdin: str = "", **environment: str) -> str:
        program = shutil.which("sops")
        if not program:
            raise _rotation.RotationError(
                "SOPS has encrypted it, and there is no program sops: install it, https://github.com/getsops/sops"
            )
        done = subprocess.run(
            [program, *map(str, arguments)], input=stdin, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise _rotation.RotationError(f"sops ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout


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
    if not is_encrypted(before) and not Sops.made(before):
        raise _rotation.RotationError(f"it is not encrypted as a whole. Type: ansible-vault encrypt {file}")
    store = Vault(vault, before) if is_encrypted(before) else Sops(file)
    text = store.text
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
        encrypted, again = store.encrypt(text)
        if _rotation.values(again) != _rotation.values(text):
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
        # What a link leads to is what others read.
        file = Path(arguments["file"]).resolve()
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
