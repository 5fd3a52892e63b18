# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance comes, stops, starts and goes, and nobody of another one notices."""

from __future__ import annotations

import secrets as random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.tenants import nobody_notices, psql, redis_keys

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.playbook import Player
    from ansible_collections.berth.odoo.tests.support.tenants import Tenant

REMOVE = "playbooks/remove_instance.yml"

ASIDE = ("initech_db_before_20261125140359", "initech_db_restoring")
"""What a restore in its place keeps, and what an interrupted one leaves."""


def identities(host: Host, *, without: str = "") -> dict[str, tuple[str, str]]:
    """Every container that is not of one instance, with what changes when it is made anew or started again."""
    return {name: container.identity for name, container in host.containers().items() if container.project != f"odoo-{without}"}


def of_initech(host: Host) -> dict[str, str]:
    """What of the instance is on the machine: empty where nothing is."""
    found = {
        "containers": "docker ps -aq --filter label=com.docker.compose.project=odoo-initech",
        "network": "docker network ls -q --filter name=berth-odoo-initech",
        "project": "ls -d /opt/berth/odoo-initech 2>/dev/null || true",
        "attachments": "ls -d /var/lib/berth/odoo/initech 2>/dev/null || true",
        "pooler": "grep -l initech /opt/berth/pgbouncer/secrets/userlist.txt || true",
        "Redis": "grep -o 'user initech' /opt/berth/redis/secrets/users.acl || true",
        "route": "ls /opt/berth/traefik/config/dynamic | grep initech || true",
    }
    rows = {
        "database": "SELECT datname FROM pg_database WHERE datname LIKE 'initech%'",
        "roles": "SELECT rolname FROM pg_roles WHERE rolname LIKE 'initech%'",
        "rules": "SELECT line_number FROM pg_hba_file_rules WHERE 'initech_db' = ANY (database)",
    }
    answers = {
        **{what: host.run(command).strip() for what, command in found.items()},
        **{what: " ".join(psql(host, query)) for what, query in rows.items()},
        "keys": " ".join(redis_keys(host, "initech:")),
    }
    return {what: text for what, text in answers.items() if text}


@pytest.fixture(scope="module")
def with_initech(instances: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
    """Variables of a third instance, as large as the room that the plan has for one."""
    initech = {"domains": ["initech.berth.test"], "database": "initech_db", "sessions": "redis", "certificate": "main"}
    fresh = {key: random.token_urlsafe(24) for key in ("db_password", "admin_password", "redis_password")}
    return {"odoo_instances": {**instances, "initech": initech}, "odoo_instance_secrets": {**secrets, "initech": fresh}}


@pytest.mark.parametrize(("key", "value"), [("domains", ["acme.berth.test"]), ("database", "acme"), ("database", "acme_login2")])
def test_what_another_has_is_refused_with_both_names(play: Player, instances: dict[str, Any], key: str, value: Any) -> None:
    wrong = {"odoo_instances": {**instances, "globex": {**instances["globex"], key: value}}}
    play("playbooks/site.yml", "--check", variables=wrong).expect_refusal(f"odoo_instances.globex.{key}", "instance acme")


def test_an_image_without_the_queue_s_add_on_is_refused(host: Host, play: Player, instances: dict[str, Any]) -> None:
    """Before anything is stopped. What it has written of the instance is put right by the next run."""
    before = identities(host)
    wrong = {"odoo_instances": {**instances, "acme": {**instances["acme"], "image": "odoo"}}}
    play("playbooks/site.yml", variables=wrong).expect_refusal("server_wide_modules has queue_job", "images_odoo_requirements")
    assert identities(host) == before


def test_one_stops_and_starts_and_the_other_does_not_notice(
    host: Host, play: Player, instances: dict[str, Any], tenant: Callable[[str], Tenant]
) -> None:
    stopped = {"odoo_instances": {**instances, "globex": {**instances["globex"], "state": "stopped"}}}
    before, kept = identities(host), identities(host, without="globex")
    with nobody_notices(tenant("acme")):
        play("playbooks/site.yml", variables=stopped).expect_success()
    assert identities(host, without="globex") == kept
    running = [
        name for name, container in host.containers().items() if container.project == "odoo-globex" and container.facts["State"]["Running"]
    ]
    assert running == []
    assert tenant("globex").request("/web/login").status in (502, 503)
    assert play("playbooks/site.yml", variables=stopped).expect_success().changed == []
    play("playbooks/status.yml", variables=stopped).expect_success()
    play("playbooks/status.yml").expect_refusal("odoo-globex/web is exited")
    with nobody_notices(tenant("acme")):
        play("playbooks/site.yml").expect_success()
    assert identities(host, without="globex") == kept
    assert {name: identity[0] for name, identity in identities(host).items()} == {name: identity[0] for name, identity in before.items()}
    assert tenant("globex").request("/web/login").status == 200


def test_one_comes_and_the_others_do_not_notice(
    host: Host, play: Player, with_initech: dict[str, Any], tenant: Callable[[str], Tenant]
) -> None:
    before = identities(host)
    assert of_initech(host) == {}
    with nobody_notices(tenant("acme"), tenant("globex")):
        play("playbooks/site.yml", variables=with_initech).expect_success()
    assert identities(host, without="initech") == before
    client = tenant("initech")
    client.log_in("admin", with_initech["odoo_instance_secrets"]["initech"]["admin_password"])
    assert client.rpc("/web/session/get_session_info")["db"] == "initech_db"
    for name in ASIDE:
        psql(host, f"CREATE DATABASE {name} OWNER initech_db")


def test_one_that_the_inventory_forgot_is_named_and_stays(host: Host, play: Player, tenant: Callable[[str], Tenant]) -> None:
    before = host.state()
    play("playbooks/site.yml").expect_refusal("no initech, which is on vm1", "remove_instance -e target=initech", "Nothing was changed")
    play("playbooks/status.yml").expect_refusal("instance initech is here and not in odoo_instances")
    assert host.state() == before
    assert tenant("initech").request("/web/login").status == 200


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "target is not the name of an instance"),
        ({"target": "acme", "confirm": "acme", "backup": "none"}, "acme is in odoo_instances"),
        ({"target": "hooli", "confirm": "hooli", "backup": "none"}, "There is no instance hooli on vm1"),
        ({"target": "initech", "backup": "none"}, f"This deletes the database initech_db, {', '.join(ASIDE)}, the files of initech"),
        ({"target": "initech", "confirm": "initech"}, "type: -e target=initech -e confirm=initech -e backup=none"),
        ({"target": "initech", "confirm": "acme", "backup": "none"}, "there is no way back"),
    ],
)
def test_nothing_is_deleted_by_mistake(host: Host, play: Player, variables: dict[str, str], words: str) -> None:
    before = host.state()
    play(REMOVE, variables=variables).expect_refusal("nothing was changed", words)
    assert host.state() == before


def test_files_that_another_one_has_are_not_deleted(host: Host, play: Player) -> None:
    """As with one directory for several instances."""
    before, file = host.state(), "/opt/berth/odoo-globex/compose.yml"
    host.run(
        f"cp -p {file} /root/globex.yml && sed -i 's#source: /var/lib/berth/odoo/globex$#source: /var/lib/berth/odoo/initech/in#' {file}"
    )
    try:
        wanted = {"target": "initech", "confirm": "initech", "backup": "none"}
        play(REMOVE, variables=wanted).expect_refusal("nothing was changed", "globex has /var/lib/berth/odoo/initech/in")
    finally:
        host.run(f"mv /root/globex.yml {file}")
    assert host.state() == before


def test_one_goes_with_everything_and_the_others_do_not_notice(host: Host, play: Player, tenant: Callable[[str], Tenant]) -> None:
    kept = identities(host, without="initech")
    everything = {"containers", "network", "project", "attachments", "database", "roles", "rules", "pooler", "Redis", "keys", "route"}
    # Redis writes a login to the disk within a second.
    wait_for("everything that the instance has", lambda: set(of_initech(host)) == everything, seconds=10)
    with nobody_notices(tenant("acme"), tenant("globex")):
        run = play(REMOVE, variables={"target": "initech", "confirm": "initech", "backup": "none"}).expect_success()
    assert {"Drop the database and its roles", "Delete its attachments", "Delete the keys below its prefix"} <= set(run.changed)
    wait_for("nothing of the instance", lambda: of_initech(host) == {}, seconds=10)
    assert identities(host) == kept
    assert tenant("initech").request("/web/login").status == 404
    assert play("playbooks/site.yml").expect_success().changed == []
    play("playbooks/status.yml").expect_success()
