# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as jobs of AWX, from a project and an inventory as docs/awx.md describes them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.berth.odoo.plugins.module_utils._ledger import HOST_PATH
from ansible_collections.berth.odoo.tests.support.awx import HOST, REVISION, Awx
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, is_secret, leaks

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab

VAULT = {"": "what the vault's credential holds"}
SYSCTL = "/etc/sysctl.d/80-berth.conf"
# Of the lab's variables, what is said of the machine and not of the site.
CONNECTION = ("ansible_host", "ansible_python_interpreter", "ansible_pipelining", "host_address", "lab_container")
KNOWN_HOSTS = "-o UserKnownHostsFile=known_hosts -o StrictHostKeyChecking=yes"


class _Vaulted(str):
    """Text of a value that is encrypted by itself."""


yaml.SafeDumper.add_representer(_Vaulted, lambda dumper, data: dumper.represent_scalar("!vault", str(data), style="|"))


def _encrypted(value: Any, path: str = "") -> Any:
    """Encrypt each secret in a value, as ``ansible-vault encrypt_string`` does."""
    if isinstance(value, dict):
        return {key: _encrypted(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, str) and value and is_secret(path):
        return _Vaulted(VaultLib([("default", VaultSecret(VAULT[""].encode()))]).encrypt(value).decode())
    return value


@pytest.fixture(scope="module")
def project(host: Host, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of the page, for the site that is there, with the collection from a Git repository."""
    directory = tmp_path_factory.mktemp("awx")
    collection = directory / "berth"
    subprocess.run([REPOSITORY / "tools/export", collection], check=True)
    git = ["git", "-C", str(collection), "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "--all", "--force"], ["commit", "--quiet", "--message", "Export"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    sources = [{"name": collection.as_uri(), "type": "git", "version": commit}]
    connection = {name: host.variables[name] for name in CONNECTION} | {"ansible_ssh_common_args": KNOWN_HOSTS}
    groups = {group: {"hosts": {host.name: {}}} for group in ("edge", "app", "database", "cache")}
    variables = {name: value for name, value in host.variables.items() if not name.startswith("ansible_") and name not in CONNECTION}
    encrypted = {name: _encrypted(value, name) for name, value in variables.items()}
    secret = {name for name, value in encrypted.items() if value != variables[name]}
    files = {
        "collections/requirements.yml": {"collections": sources},
        "inventory/hosts.yml": {"all": {"hosts": {host.name: connection}, "children": groups}},
        "inventory/group_vars/all/main.yml": {name: value for name, value in variables.items() if name not in secret},
        "inventory/group_vars/all/secrets.yml": {name: encrypted[name] for name in sorted(secret)},
        **{f"playbooks/{name}.yml": [{"import_playbook": f"berth.odoo.{name}"}] for name in ("site", "status", "restore")},
    }
    for name, content in files.items():
        file = directory / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
    (directory / "project/known_hosts").write_bytes((lab.directory / "known_hosts").read_bytes())
    (directory / "project/ansible.cfg").write_text("[defaults]\ncallbacks_enabled = berth.odoo.ledger\n", encoding="utf-8")
    return directory / "project"


@pytest.fixture(scope="module")
def awx(host: Host, lab: Lab, project: Path, say: Callable[[str], None]) -> Awx:
    """An AWX that has the project, and the lab's key."""
    return Awx(
        project.parent,
        project,
        user=host.variables["ansible_user"],
        key=(lab.directory / "ssh/id_ed25519").read_text(encoding="utf-8"),
        task_environment={"BERTH_LEDGER": str(project.parent / "ledger.jsonl"), "ANSIBLE_HOST_KEY_CHECKING": "True"},
        secrets=lab.secrets() | {"vault": VAULT[""]},
        say=say,
    )


def test_the_inventory_in_the_database_holds_no_secret(lab: Lab, awx: Awx) -> None:
    assert leaks(lab.secrets(), json.dumps(awx.inventory)) == []
    assert "__ansible_vault" in awx.inventory["all"]["vars"]["odoo_instance_secrets"]["main"]["db_password"]


def test_a_file_that_is_encrypted_as_a_whole_is_refused(awx: Awx) -> None:
    file = awx.project / "inventory/group_vars/all/more.yml"
    file.write_bytes(VaultLib([("default", VaultSecret(VAULT[""].encode()))]).encrypt("harmless: word"))
    try:
        with pytest.raises(AssertionError, match="no vault secrets"):
            awx.update_inventory("inventory/hosts.yml")
    finally:
        file.unlink()


def test_a_schedule_of_the_status_is_green(host: Host, awx: Awx) -> None:
    job = awx.job("playbooks/status.yml", vault=VAULT).expect("successful")
    assert job.changed == 0
    for name in host.containers():
        [line] = [line for line in job.output.splitlines() if f" {name} " in line]
        assert " healthy " in line


def test_a_refusal_says_why_where_a_person_looks(awx: Awx) -> None:
    job = awx.job("playbooks/restore.yml", vault=VAULT, variables={"target": "nobody"}).expect("failed")
    [why] = job.failures
    assert "Found target=nobody, into=side. target is one of" in why
    assert " ".join(why.split()) in job.text


@pytest.mark.nightly
def test_a_check_predicts_nothing_and_a_run_changes_nothing(host: Host, awx: Awx) -> None:
    assert awx.job("playbooks/site.yml", vault=VAULT, job_type="check", diff=True, verbosity=3).expect("successful").changed == 0
    assert awx.job("playbooks/site.yml", vault=VAULT, limit=host.name).expect("successful").changed == 0


@pytest.mark.nightly
@pytest.mark.parametrize("vault", [{"": "wrong"}, {}])
def test_the_wrong_vault_password_or_none_is_named(host: Host, awx: Awx, vault: dict[str, str]) -> None:
    before = host.state()
    job = awx.job("playbooks/site.yml", vault=vault).expect("failed")
    assert "no vault secrets" in job.text
    assert host.state() == before


@pytest.mark.nightly
@pytest.mark.parametrize("vault_id", ["", "site"])
def test_the_ledger_names_who_pressed_the_button(host: Host, awx: Awx, vault_id: str) -> None:
    ledger = Path(awx.task_environment["BERTH_LEDGER"])
    ledger.unlink(missing_ok=True)
    host.run(f"rm -f {HOST_PATH} {SYSCTL}")
    try:
        job = awx.job("playbooks/site.yml", vault={vault_id: VAULT[""]}, tags="host", launched_by="jane").expect("successful")
        assert job.changed == 1
        assert "lacks this run" not in job.text
        start, end, kept = (json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines())
        assert (start["event"], end["event"], kept["event"]) == ("start", "end", "kept")
        assert list(kept["hosts"]) == [host.name]
        there = json.loads(host.run(f"cat {HOST_PATH}"))
        for record in (end, there):
            assert (record["user"], record["controller"], record["revision"]) == ("jane", HOST, REVISION)
        job = awx.job("playbooks/status.yml", vault=VAULT).expect("successful")
        assert f"Last change of {host.name}: " in job.text
        ledger.unlink()
        job = awx.job("playbooks/status.yml", vault=VAULT).expect("failed")
        assert f"{host.name}: its ledger has a run of jane at " in job.failures[0]
    finally:
        host.run(f"rm -f {HOST_PATH}")
