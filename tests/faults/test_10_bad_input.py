# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person may get wrong in an inventory: each is refused with the words that help, before anything on the host has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

HOSTILE_INSTANCES = [
    "Main",
    "two words",
    'quo"te',
    "apos'trophe",
    "semi;colon",
    "../escape",
    "-dash",
    "9lives",
    "a" * 64,
    "$(reboot)",
    "`id`",
]
HOSTILE_DATABASES = ["Main", "two words", 'quo"te', "apos'trophe", "a;drop", "../x", "-x", "a" * 64, "postgres", "template1", "$(reboot)"]


@pytest.fixture(autouse=True)
def nothing_moves(host: Host) -> Iterator[None]:
    """Around every test: the host is afterwards exactly as it was before."""
    before = host.state()
    yield
    assert host.state() == before


def instance(**changes: Any) -> dict[str, Any]:
    """An instance of which everything else is right."""
    return {"domains": ["other.berth.test"], "database": "other", "modules": ["stock"], "users": 5, "service_class": "production"} | changes


def test_mistyped_variable(play: Player) -> None:
    play("playbooks/site.yml", variables={"odoo_web_worker": 2}).expect_refusal("odoo_web_worker", "odoo_web_workers")


def test_several_mistakes_are_reported_together(host: Host, play: Player) -> None:
    variables = {"redis_maxmemory": 64, "postgresql_disk_kind": "floppy", "odoo_web_workers": "many"}
    play("playbooks/site.yml", variables=variables).expect_refusal(
        "redis_maxmemory_mb", "postgresql_disk_kind", "floppy", "odoo_web_workers", "many", host.name
    )


def test_unknown_key_of_an_instance(play: Player) -> None:
    instances = {"main": instance(databse="main")}
    play("playbooks/site.yml", variables={"odoo_instances": instances}).expect_refusal("databse", "database")


def test_missing_secrets(lab: Lab, play: Player, tmp_path: Path) -> None:
    """An inventory whose owner has not run secrets_init yet."""
    for name in ("hosts.yml", "group_vars/all/lab.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((lab.directory / "inventory" / name).read_bytes())
    run = play("playbooks/site.yml", inventories=[lab.inventories[0], tmp_path])
    run.expect_refusal(
        *(f"odoo_instance_secrets.main.{name}_password" for name in ("db", "admin", "redis")), "platform_authority", "secrets_init"
    )


def test_one_missing_secret_of_an_instance(host: Host, play: Player) -> None:
    secrets = {key: value for key, value in host.variables["odoo_instance_secrets"]["main"].items() if key != "redis_password"}
    run = play("playbooks/site.yml", variables={"odoo_instance_secrets": {"main": secrets}})
    run.expect_refusal("redis_password", "main")


def test_secret_of_the_wrong_type_is_not_shown(host: Host, play: Player) -> None:
    secrets = host.variables["odoo_instance_secrets"]["main"] | {"db_password": 48151623421234567890}
    run = play("playbooks/site.yml", "-vvv", variables={"odoo_instance_secrets": {"main": secrets}})
    run.expect_refusal("odoo_instance_secrets.main.db_password")
    assert "48151623421234567890" not in run.output


def test_missing_authority(play: Player) -> None:
    """Secrets that were made before there was an authority."""
    run = play("playbooks/site.yml", variables={"platform_authority": None})
    run.expect_refusal("platform_authority", "berth.odoo.secrets_init -e secrets_only=platform_authority")


def test_authority_with_the_key_of_another_is_refused_and_not_shown(lab: Lab, host: Host, play: Player) -> None:
    key = (lab.directory / "server.key").read_text(encoding="utf-8")
    variables = {"platform_authority": {"certificate": host.variables["platform_authority"]["certificate"], "key": key}}
    run = play("playbooks/site.yml", "-vvv", variables=variables)
    run.expect_refusal("platform_authority.key", "the key of another certificate (not shown)")
    assert max(key.splitlines(), key=len) not in run.output


@pytest.mark.parametrize("password", ["changeme", "short", "line one of two\nand line two of two"])
def test_weak_password_is_refused_and_not_shown(host: Host, play: Player, password: str) -> None:
    secrets = host.variables["odoo_instance_secrets"]["main"] | {"admin_password": password}
    run = play("playbooks/site.yml", variables={"odoo_instance_secrets": {"main": secrets}})
    run.expect_refusal("admin_password")
    assert password not in run.output.replace("odoo_instance_secrets", "")


def test_wrong_vault_password(lab: Lab, play: Player, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("certainly not the password\n", encoding="utf-8")
    file = lab.directory / "inventory/group_vars/all/secrets.yml"
    assert file.read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT;"), "the lab's secrets are not encrypted"
    play("playbooks/site.yml", vault_password_file=wrong).expect_refusal("Decryption failed")


def test_hostile_instance_names(play: Player) -> None:
    instances = {name: instance(database=f"db{number}", domains=[f"d{number}.berth.test"]) for number, name in enumerate(HOSTILE_INSTANCES)}
    run = play("playbooks/site.yml", variables={"odoo_instances": instances})
    run.expect_refusal("1 to 31 of a-z, 0-9 and '-', starting with a letter")
    for name in HOSTILE_INSTANCES:
        assert name[:31] in run.output.replace('\\"', '"').replace("\\'", "'"), f"{name!r} was not complained of"


def test_hostile_database_names(play: Player) -> None:
    instances = {
        f"instance{number}": instance(database=name, domains=[f"d{number}.berth.test"]) for number, name in enumerate(HOSTILE_DATABASES)
    }
    run = play("playbooks/site.yml", variables={"odoo_instances": instances})
    run.expect_refusal("1 to 50 of a-z, 0-9 and '_', starting with a letter", "template0")
    for number, name in enumerate(HOSTILE_DATABASES):
        assert f"instance{number}" in run.output, f"the database name {name!r} was not complained of"


def test_two_instances_with_one_database_or_domain(play: Player) -> None:
    instances = {"one": instance(database="same", domains=["a.berth.test"]), "two": instance(database="same", domains=["a.berth.test"])}
    play("playbooks/site.yml", variables={"odoo_instances": instances}).expect_refusal("same", "a.berth.test", "one", "two")


def test_image_without_digest_where_digests_are_required(play: Player) -> None:
    variables = {"preflight_require_image_digests": True, "redis_image": "registry.example.com/redis:8.0"}
    play("playbooks/site.yml", variables=variables).expect_refusal("redis_image", "registry.example.com/redis:8.0", "@sha256:")


def test_more_memory_than_the_machine_has(host: Host, play: Player) -> None:
    run = play("playbooks/site.yml", variables={"odoo_web_memory_mb": 200_000})
    run.expect_refusal(host.name, "200000")
