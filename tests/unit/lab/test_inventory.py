# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from berth_lab import inventory, pki
from berth_lab.settings import Settings, Vm

POOL = ipaddress.IPv4Network("10.213.0.0/16")
ADDRESSES = {"vm1": "10.213.0.11", "vm2": "10.213.0.12"}
NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A lab in a directory with a space, as people have."""
    project = tmp_path / "my project"
    made = Settings("demo", (Vm("vm1", ("app",)), Vm("vm2")), "", "", POOL, (), ("main",), ("odoo.berth.test",), project)
    made.directory.mkdir(parents=True)
    return made


@pytest.fixture
def certified(settings: Settings) -> Settings:
    pki.ensure_authority(settings.directory, "demo", settings.domains, POOL, NOW)
    pki.ensure_server(settings.directory, ADDRESSES.values(), settings.domains, NOW)
    return settings


def test_password_holds_everything_nasty_and_no_template() -> None:
    for _ in range(200):
        password = inventory.password()
        assert len(password) == 32
        assert set(inventory.NASTY) <= set(password)
        assert not re.search(r"\{[{%#]|[}%#]\}", password)
        assert password == password.strip()
    assert inventory.password() != inventory.password()


def test_secrets_of_a_new_lab() -> None:
    made = inventory.complete_secrets({}, ["main", "second"], "CERT", "KEY", lambda: {"certificate": "CA", "key": "CA KEY"})
    assert sorted(made["odoo_instance_secrets"]) == ["main", "second"]
    main = made["odoo_instance_secrets"]["main"]
    assert sorted(main) == ["admin_password", "analyst_password", "db_password", "redis_password"]
    assert not set(main["admin_password"]) & set("\"'\\ ")
    values = list(main.values())
    assert len(set(values)) == len(values)
    assert all(len(value) >= 24 for value in values)
    assert made["traefik_certificates"] == {"main": {"certificate": "CERT", "key": "KEY"}}
    assert made["platform_authority"] == {"certificate": "CA", "key": "CA KEY"}


def test_secrets_of_a_living_lab_stay() -> None:
    first = inventory.complete_secrets({}, ["main"], "CERT", "KEY", lambda: {"certificate": "CA", "key": "CA KEY"})
    second = inventory.complete_secrets(first, ["main", "second"], "NEW", "KEY", lambda: {"certificate": "NEW", "key": "NEW"})
    assert second["odoo_instance_secrets"]["main"] == first["odoo_instance_secrets"]["main"]
    assert second["platform_authority"] == first["platform_authority"]
    assert second["traefik_certificates"]["main"]["certificate"] == "NEW"


def test_a_lab_from_before_there_was_an_authority_gets_one() -> None:
    known = {"odoo_instance_secrets": {"main": {"db_password": "x"}}, "traefik_certificates": {}}
    made = inventory.complete_secrets(known, ["main"], "CERT", "KEY", lambda: {"certificate": "CA", "key": "CA KEY"})
    assert made["odoo_instance_secrets"]["main"]["db_password"] == "x"
    assert made["platform_authority"]["key"] == "CA KEY"


def test_the_platforms_authority_is_one(tmp_path: Path) -> None:
    made = pki.platform_authority("demo", NOW)
    certificate = tmp_path / "ca.crt"
    certificate.write_text(made["certificate"])
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-subject", "-enddate", "-ext", "basicConstraints,keyUsage"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "subject=CN = berth.odoo demo" in text.replace("CN=", "CN = ")
    assert "notAfter=Nov 18 00:00:00 2036 GMT" in text
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign" in text
    assert made["key"].startswith("-----BEGIN PRIVATE KEY-----\n")


def test_secrets_file_is_encrypted_and_written_once(certified: Settings) -> None:
    assert inventory.ensure_secrets(certified, NOW)
    file = certified.directory / "inventory/group_vars/all/secrets.yml"
    first = file.read_bytes()
    assert first.startswith(b"$ANSIBLE_VAULT;1.1;AES256\n")
    assert (certified.directory / "vault-password").stat().st_mode & 0o777 == 0o600
    assert not inventory.ensure_secrets(certified, NOW)
    assert file.read_bytes() == first


def test_inventory_says_the_way_in(settings: Settings) -> None:
    data = inventory.hosts_inventory(settings, ADDRESSES)
    host = data["all"]["hosts"]["vm2"]
    assert host["ansible_host"] == "10.213.0.12"
    assert host["ansible_user"] == "berth"
    assert shlex.split(host["ansible_ssh_common_args"])[1] == f'UserKnownHostsFile="{settings.directory}/known_hosts"'
    assert "StrictHostKeyChecking=yes" in shlex.split(host["ansible_ssh_common_args"])
    assert data["all"]["children"] == {"app": {"hosts": {"vm1": {}}}}


def test_inventory_of_a_lab_without_groups(settings: Settings) -> None:
    alone = dataclasses.replace(settings, vms=(Vm("vm2"),))
    assert "children" not in inventory.hosts_inventory(alone, {"vm2": "10.213.0.12"})["all"]


def test_keys_are_made_once(settings: Settings) -> None:
    inventory.ensure_keys(settings)
    before = {file: file.read_bytes() for file in (settings.directory / "ssh").iterdir()}
    assert sorted(file.name for file in before) == ["host_vm1", "host_vm1.pub", "host_vm2", "host_vm2.pub", "id_ed25519", "id_ed25519.pub"]
    inventory.ensure_keys(settings)
    assert before == {file: file.read_bytes() for file in (settings.directory / "ssh").iterdir()}
    lines = inventory.known_hosts(settings, ADDRESSES).splitlines()
    assert lines[1].startswith("10.213.0.12,vm2 ssh-ed25519 ")
    assert (settings.directory / "ssh/host_vm2.pub").read_text().split()[1] in lines[1]


def test_ssh_understands_the_configuration(settings: Settings) -> None:
    file = settings.directory / "ssh_config"
    file.write_text(inventory.ssh_config(settings, ADDRESSES))
    output = subprocess.run(["ssh", "-G", "-F", str(file), "vm2"], capture_output=True, text=True, check=True).stdout
    options = dict(line.split(" ", 1) for line in output.splitlines() if " " in line)
    assert options["hostname"] == "10.213.0.12"
    assert options["user"] == "berth"
    assert options["identityfile"] == f"{settings.directory}/ssh/id_ed25519"
    assert options["userknownhostsfile"] == f"{settings.directory}/known_hosts"
    assert options["stricthostkeychecking"] == "true"


def test_hosts_file() -> None:
    assert inventory.hosts_file(ADDRESSES, ["odoo.berth.test"], "berth.test") == (
        "10.213.0.11 vm1.berth.test vm1 odoo.berth.test # lab\n10.213.0.12 vm2.berth.test vm2 # lab\n"
    )


def test_yaml_keeps_certificates_readable(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    data = {"key": "one\ntwo\n", "password": inventory.password(), "list": ["10.213.0.11"]}
    assert inventory.write_yaml(file, data)
    assert "key: |\n  one\n  two\n" in file.read_text()
    assert yaml.safe_load(file.read_text()) == data
    assert not inventory.write_yaml(file, data)


def verify(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Judge the certificate as an independent implementation does."""
    directory = settings.directory
    moment = str(int(NOW.timestamp()) + 60)
    argv = [
        "openssl",
        "verify",
        "-x509_strict",
        "-attime",
        moment,
        "-CAfile",
        str(directory / "ca.crt"),
        *arguments,
        str(directory / "server.crt"),
    ]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_certificate_is_good_for_the_site(certified: Settings) -> None:
    for arguments in (["-verify_hostname", "odoo.berth.test"], ["-verify_ip", "10.213.0.12"], ["-purpose", "sslserver"]):
        done = verify(certified, *arguments)
        assert done.returncode == 0, done.stderr
    assert verify(certified, "-verify_hostname", "other.berth.test").returncode != 0


@pytest.mark.parametrize(("addresses", "domains"), [(["192.0.2.1"], ["odoo.berth.test"]), (["10.213.0.11"], ["bank.example"])])
def test_authority_cannot_vouch_for_anybody_else(settings: Settings, addresses: list[str], domains: list[str]) -> None:
    pki.ensure_authority(settings.directory, "demo", ["odoo.berth.test"], POOL, NOW)
    pki.ensure_server(settings.directory, addresses, domains, NOW)
    done = verify(settings)
    assert done.returncode != 0
    assert "permitted subtree violation" in done.stderr


def test_authority_vouches_for_the_site_of_a_user(settings: Settings) -> None:
    pki.ensure_authority(settings.directory, "demo", ["odoo.example.com"], POOL, NOW)
    pki.ensure_server(settings.directory, [], ["odoo.example.com"], NOW)
    assert verify(settings, "-verify_hostname", "odoo.example.com").returncode == 0


def test_certificates_are_kept_until_they_run_out_or_do_not_fit(certified: Settings) -> None:
    directory, domains = certified.directory, certified.domains
    assert not pki.ensure_authority(directory, "demo", domains, POOL, NOW)
    assert not pki.ensure_server(directory, ADDRESSES.values(), domains, NOW)
    assert pki.ensure_server(directory, ["10.213.0.13"], domains, NOW)
    late = NOW + datetime.timedelta(days=380)
    assert pki.ensure_server(directory, ["10.213.0.13"], domains, late)
    assert pki.ensure_authority(directory, "demo", domains, POOL, late)
    assert pki.ensure_server(directory, ["10.213.0.13"], domains, late), "a new authority needs a new certificate"
    assert (directory / "ca.key").stat().st_mode & 0o777 == 0o600
