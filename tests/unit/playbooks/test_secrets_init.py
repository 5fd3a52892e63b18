# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/secrets_init.yml, as an operator runs it, on a copy of the example inventory. It touches no host."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, ansible, environment

ONLY = "secrets_only=platform_authority"


class Site:
    """An inventory directory with a vault password."""

    def __init__(self, directory: Path, example: str = "single") -> None:
        self.inventory = directory / "my site"  # people have spaces
        shutil.copytree(REPOSITORY / "inventories" / example, self.inventory)
        self.group_vars = self.inventory / "group_vars/all"
        self.secrets = self.group_vars / "secrets.yml"
        self.password = directory / "vault-password"
        self.password.write_text("a vault password\n")

    def run(self, *arguments: str, vault: bool = True, **environs: str) -> tuple[int, str]:
        """Run the playbook; its exit code and what a person sees, white space joined."""
        settings = {**({"ANSIBLE_VAULT_PASSWORD_FILE": str(self.password)} if vault else {}), **environs}
        argv = [*ansible("ansible-playbook"), "-vvv", "-i", str(self.inventory), *arguments, "playbooks/secrets_init.yml"]
        done = subprocess.run(argv, cwd=REPOSITORY, env=environment(**settings), capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, " ".join((done.stdout + done.stderr).split()).replace("''", "'")  # as YAML quotes

    def read(self, file: Path) -> dict[str, Any]:
        """The content of an encrypted file."""
        assert file.read_text().startswith("$ANSIBLE_VAULT;1.1;AES256\n")
        argv = [*ansible("ansible-vault"), "view", "--vault-password-file", str(self.password), str(file)]
        found = yaml.safe_load(subprocess.run(argv, env=environment(), capture_output=True, text=True, check=True).stdout)
        assert isinstance(found, dict)
        return found

    def write(self, content: dict[str, Any]) -> None:
        """Write secrets.yml, encrypted."""
        self.secrets.write_text(yaml.safe_dump(content))
        argv = [*ansible("ansible-vault"), "encrypt", "--vault-password-file", str(self.password), str(self.secrets)]
        subprocess.run(argv, env=environment(), capture_output=True, check=True)

    def files(self) -> dict[str, bytes]:
        """Every file of the inventory, byte for byte."""
        return {str(path.relative_to(self.inventory)): path.read_bytes() for path in self.inventory.rglob("*") if path.is_file()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def expect_authority(value: dict[str, str], name: str) -> None:
    loaded = _authority.load(value["certificate"], value["key"], int(time.time()))
    assert loaded.certificate.subject.rfc4514_string() == f"CN={name}"
    assert value["certificate"] == loaded.bundle, "not a space and not a line more than PEM"


def test_instances_of_every_host_get_secrets(tmp_path: Path) -> None:
    site = Site(tmp_path, "hybrid")
    # Whichever host comes first.
    hosts = site.inventory / "hosts.yml"
    content = yaml.safe_load(hosts.read_text())
    content["all"]["hosts"] = dict(reversed(content["all"]["hosts"].items()))
    hosts.write_text(yaml.safe_dump(content, sort_keys=False))
    code, text = site.run()
    assert code == 0, text
    assert "The passwords of 3 instance(s)" in text
    assert set(site.read(site.secrets)["odoo_instance_secrets"]) == {"acme", "globex", "initech"}


def test_secrets_are_written_once_and_never_overwritten(site: Site) -> None:
    code, text = site.run()
    assert code == 0, text
    assert f"The passwords of 1 instance(s) and the platform's authority are in {site.secrets}, encrypted." in text
    made = site.read(site.secrets)
    assert set(made) == {"odoo_instance_secrets", "platform_authority", "backup_secrets", "redis_replication_password"}
    passwords = made["odoo_instance_secrets"]["main"]
    assert set(passwords) == {"db_password", "admin_password", "redis_password"}
    assert {name: len(value) for name, value in passwords.items()} == {"db_password": 40, "admin_password": 24, "redis_password": 40}
    assert len(set(passwords.values())) == 3
    expect_authority(made["platform_authority"], "berth.odoo my site")
    assert len(made["backup_secrets"]["passphrase"]) == 48
    assert len(made["redis_replication_password"]) == 40
    hidden = [made["backup_secrets"]["passphrase"], *passwords.values(), *made["platform_authority"]["key"].splitlines()[1:-1]]
    assert [secret for secret in hidden if secret in text] == []

    before = site.files()
    code, text = site.run()
    assert code != 0
    assert f"{site.secrets} exists and is kept. To add a secret, type: ansible-vault edit '{site.secrets}'" in text
    code, text = site.run("-e", ONLY)
    assert code != 0
    assert "platform_authority is already set for this inventory and is kept" in text
    assert site.files() == before
    # One to change to is made elsewhere.
    another = site.inventory.parent / "new-authority.yml"
    code, text = site.run("-e", ONLY, "-e", f"secrets_file={another}")
    assert code == 0, text
    expect_authority(site.read(another)["platform_authority"], "berth.odoo my site")
    assert site.read(another)["platform_authority"] != made["platform_authority"]
    assert site.files() == before


def test_without_a_vault_password_nothing_is_written(site: Site) -> None:
    before = site.files()
    code, text = site.run(vault=False)
    assert code != 0
    assert "export ANSIBLE_VAULT_PASSWORD_FILE=" in text
    assert site.files() == before


def test_an_authority_is_added_to_older_secrets(site: Site) -> None:
    site.write({"odoo_instance_secrets": {"main": {"db_password": "old"}}})
    before = site.files()
    code, text = site.run()
    assert code != 0
    command = f"ansible-playbook -i '{site.inventory}' berth.odoo.secrets_init -e {ONLY}"
    assert f"{site.secrets} exists and is kept. It has no platform_authority. To add one, type: {command}" in text
    assert site.files() == before

    code, text = site.run("-e", ONLY)
    assert code == 0, text
    added = site.group_vars / "platform_authority.yml"
    assert f"the platform's authority are in {added}" in text
    made = site.read(added)
    assert set(made) == {"platform_authority"}
    expect_authority(made["platform_authority"], "berth.odoo my site")
    after = site.files()
    assert {name: content for name, content in after.items() if name != "group_vars/all/platform_authority.yml"} == before

    code, text = site.run("-e", ONLY)
    assert code != 0
    assert site.files() == after


def test_what_would_not_be_read_is_not_written(site: Site) -> None:
    (site.group_vars / "main.yml").rename(site.inventory / "group_vars/all.yml")
    site.group_vars.rmdir()
    before = site.files()
    code, text = site.run()
    assert code != 0
    assert f"There is no directory {site.group_vars}. Make it, and if there is a file {site.group_vars}.yml, move that into it" in text
    code, text = site.run("-e", "secrets_only=odoo_instance_secrets")
    assert code != 0
    assert "secrets_only is 'odoo_instance_secrets'. The only secret that can be written alone is platform_authority" in text
    assert site.files() == before


def test_sops_encrypts_them_when_it_can_decrypt_them_again(site: Site) -> None:
    key = pyrage.x25519.Identity.generate()
    file, before = site.group_vars / "secrets.sops.yml", site.files()
    read, unlocked = {"ANSIBLE_VARS_ENABLED": "host_group_vars,community.sops.sops"}, {"SOPS_AGE_KEY": str(key)}

    def refused(*words: str, **environs: str) -> None:
        code, text = site.run("-e", "secrets_format=sops", **environs)
        assert code != 0
        assert [word for word in words if word not in text] == [], text
        assert site.files() == before

    refused("Type: export ANSIBLE_VARS_ENABLED=host_group_vars,community.sops.sops", **unlocked)
    refused("nothing was written: SOPS does not decrypt what it has encrypted here", "no creation rules", **read, **unlocked)
    (site.inventory / ".sops.yaml").write_text(f"creation_rules: [{{age: {key.to_public()}}}]\n")
    before = site.files()
    wrong = str(pyrage.x25519.Identity.generate())
    refused("Failed to get the data key required to decrypt", "export SOPS_AGE_KEY_FILE=<file>", **read, SOPS_AGE_KEY=wrong)

    code, text = site.run("-e", "secrets_format=sops", **read, **unlocked)
    assert code == 0, text
    assert f"are in {file}, encrypted. Show them: sops decrypt '{file}'" in text
    done = subprocess.run(["sops", "decrypt", str(file)], env=environment(**unlocked), capture_output=True, text=True, check=True)
    made = yaml.safe_load(done.stdout)
    assert set(made) == {"odoo_instance_secrets", "platform_authority", "backup_secrets", "redis_replication_password"}
    expect_authority(made["platform_authority"], "berth.odoo my site")
    hidden = [*made["odoo_instance_secrets"]["main"].values(), *made["platform_authority"]["key"].splitlines()[1:-1]]
    assert [secret for secret in hidden if secret in text + file.read_text()] == []

    before = site.files()
    refused(f"{file} exists and is kept. To add a secret, type: sops edit '{file}'", **read, **unlocked)
    code, text = site.run()
    assert code != 0
    assert f"{file} exists and is kept: what it holds is in use." in text
    assert site.files() == before
