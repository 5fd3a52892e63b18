# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A step of a rotation either happens in the file or leaves it as it was."""

from __future__ import annotations

import resource
import signal
import subprocess
from pathlib import Path

import pyrage
import pytest
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.berth.odoo.plugins.action.secrets_rotation import rotate
from ansible_collections.berth.odoo.plugins.module_utils._rotation import RotationError, values

TEXT = """---
# kept
odoo_instance_secrets:
  main:
    db_password: 'old secret'
    redis_password: other
"""
EFFECTIVE = values(TEXT)


def vault(password: bytes = b"right", name: str = "default") -> VaultLib:
    return VaultLib([(name, VaultSecret(password))])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "secrets.yml"
    found.write_bytes(vault().encrypt(TEXT))
    found.chmod(0o640)
    return found


def text(file: Path) -> str:
    return bytes(vault().decrypt(file.read_bytes())).decode()


def begin(file: Path, lib: VaultLib | None = None, *, write: bool = True, effective: object = EFFECTIVE) -> list[str]:
    return rotate(file, lib or vault(), "begin", {"main": "main"}, effective, write=write)


def test_the_file_is_replaced_and_stays_encrypted(file: Path) -> None:
    assert begin(file) == ["main"]
    assert file.read_bytes().startswith(b"$ANSIBLE_VAULT;1.1;AES256\n")
    assert file.stat().st_mode & 0o777 == 0o640
    assert len(values(text(file))["main"]["db_password_next"]) == 40
    assert "# kept" in text(file)
    assert [path.name for path in file.parent.iterdir()] == ["secrets.yml"]
    content = file.read_bytes()
    assert begin(file, effective=values(text(file))) == [], "begun already"
    assert file.read_bytes() == content


def test_the_name_of_a_vault_password_stays(tmp_path: Path) -> None:
    file, lib = tmp_path / "secrets.yml", vault(name="prod")
    file.write_bytes(lib.encrypt(TEXT, vault_id="prod"))
    begin(file, VaultLib([("default", VaultSecret(b"another")), ("prod", VaultSecret(b"right"))]))
    assert file.read_bytes().startswith(b"$ANSIBLE_VAULT;1.2;AES256;prod\n")
    assert "db_password_next" in bytes(lib.decrypt(file.read_bytes())).decode()


def test_in_check_mode_nothing_is_written(file: Path) -> None:
    before = file.read_bytes()
    assert begin(file, write=False) == ["main"]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lib": vault(b"wrong")}, "Decryption failed"),
        ({"effective": {"main": {"db_password": "from elsewhere", "redis_password": "other"}}}, "not what the inventory says"),
        ({"effective": None}, "not what the inventory says"),
    ],
)
def test_what_is_refused_changes_nothing(file: Path, change: dict[str, object], words: str) -> None:
    before = file.read_bytes()
    with pytest.raises((RotationError, AnsibleError), match=words) as error:
        begin(file, **change)  # type: ignore[arg-type]
    assert "secret'" not in str(error.value) and "from elsewhere" not in str(error.value)
    assert file.read_bytes() == before


def test_a_file_in_clear_is_refused(file: Path) -> None:
    file.write_text(TEXT)
    with pytest.raises(RotationError, match="ansible-vault encrypt"):
        begin(file)
    assert file.read_text() == TEXT


@pytest.fixture
def sops_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that SOPS has encrypted for the key of age that is set."""
    key, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    monkeypatch.setenv("SOPS_AGE_KEY", str(key))
    (tmp_path / "inventory").mkdir()
    found = tmp_path / "inventory/secrets.sops.yml"
    recipients = f"{key.to_public()},{other.to_public()}"
    subprocess.run(
        ["sops", "encrypt", "--age", recipients, "--filename-override", str(found), "--output", str(found)],
        input=TEXT,
        text=True,
        check=True,
    )
    found.chmod(0o640)
    return found


def decrypted(file: Path) -> str:
    return subprocess.run(["sops", "decrypt", str(file)], capture_output=True, text=True, check=True).stdout


def test_what_sops_has_encrypted_stays_so_for_the_same_recipients(sops_file: Path) -> None:
    recipients = [line for line in sops_file.read_text().splitlines() if "recipient: age1" in line]
    assert len(recipients) == 2
    content = sops_file.read_bytes()
    assert begin(sops_file, write=False) == ["main"]
    assert sops_file.read_bytes() == content
    assert begin(sops_file) == ["main"]
    assert [line for line in sops_file.read_text().splitlines() if "recipient: age1" in line] == recipients
    new = values(decrypted(sops_file))["main"]
    assert new == {**EFFECTIVE["main"], "db_password_next": new["db_password_next"]}
    assert len(new["db_password_next"]) == 40
    assert "# kept" in decrypted(sops_file)
    assert not any(secret in sops_file.read_text() for secret in new.values())
    assert sops_file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in sops_file.parent.iterdir()] == ["secrets.sops.yml"]
    content = sops_file.read_bytes()
    assert begin(sops_file, effective=values(decrypted(sops_file))) == [], "begun already"
    assert sops_file.read_bytes() == content


@pytest.mark.parametrize("key", ["", str(pyrage.x25519.Identity.generate())])
def test_without_the_right_key_sops_changes_nothing(sops_file: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sops_file.read_bytes()
    monkeypatch.setenv("SOPS_AGE_KEY", key)
    with pytest.raises(RotationError, match="sops ended with 128: Failed to get the data key"):
        begin(sops_file)
    assert sops_file.read_bytes() == before


def test_without_the_program_the_message_says_what_to_install(sops_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(sops_file.parent))
    with pytest.raises(RotationError, match="no program sops: install it"):
        begin(sops_file)


def test_a_disk_without_room_leaves_the_old_file(file: Path) -> None:
    """The kernel refuses to write as much, as it does on a full disk or beyond a quota."""
    before = file.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            begin(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["secrets.yml"]
