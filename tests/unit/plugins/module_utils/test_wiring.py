# Copyright (c) 2026 berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance means to each tier."""

from __future__ import annotations

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._wiring import MONITORING_ROLE, roles_of, topology, voters, wire

INSTANCES = {
    "main": {"database": "main", "domains": ["odoo.example.com"], "certificate": "main"},
    "test": {"database": "trial", "domains": ["a.example", "b.example"]},
}
SECRETS = {
    "main": {"db_password": "p 1", "redis_password": "r1", "admin_password": "a1"},
    "test": {"db_password": "p$2", "redis_password": "r2", "admin_password": "a2"},
}


def test_each_tier_gets_its_own_list() -> None:
    wiring = wire(INSTANCES, SECRETS)
    logins = [{"name": "main", "password": "p 1"}, {"name": "trial", "password": "p$2"}]
    assert wiring["postgresql_roles"] == [MONITORING_ROLE, *logins]
    assert wiring["postgresql_databases"] == [{"name": "main", "owner": "main"}, {"name": "trial", "owner": "trial"}]
    assert wiring["pgbouncer_users"] == logins
    assert wiring["redis_users"][1] == {"name": "test", "password": "r2", "prefix": "test"}
    assert wiring["traefik_sites"][0] == {
        "name": "main",
        "domains": ["odoo.example.com"],
        "web": ["http://odoo-main-web:8069"],
        "websocket": ["http://odoo-main-websocket:8072"],
        "certificate": "main",
    }
    assert "certificate" not in wiring["traefik_sites"][1]


def test_a_site_knows_its_limits_and_the_workers_of_all_hosts() -> None:
    instances = {"main": {**INSTANCES["main"], "legacy_rpc": True, "limits": {"api": 2}, "api_paths": ["/edi"], "users": 5}}
    sizes = [{"web_workers": 4, "batch_workers": 1}, {"web_workers": 6, "batch_workers": 1}]
    plan = {"app1": {"odoo": {"main": sizes[0]}}, "app2": {"odoo": {"main": sizes[1]}}, "db1": {}}
    site = wire(instances, SECRETS, plan)["traefik_sites"][0]
    assert (site["workers"], site["batch_workers"], site["batch"]) == (10, 2, ["http://odoo-main-batch:8069"])
    alone = wire(instances, SECRETS, {"app1": {"odoo": {"main": {**sizes[0], "batch_workers": 0}}}})["traefik_sites"][0]
    assert "batch" not in alone and "batch_workers" not in alone
    assert (site["legacy_rpc"], site["limits"], site["api_paths"]) == (True, {"api": 2}, ["/edi"])
    assert "users" not in site


def test_an_analyst_reads_one_database_and_has_no_pool() -> None:
    instances = {**INSTANCES, "test": {**INSTANCES["test"], "analyst": {"networks": ["10.0.5.0/24"], "settings": {"work_mem": "64MB"}}}}
    wiring = wire(instances, {**SECRETS, "test": {**SECRETS["test"], "analyst_password": "an"}})
    [analyst] = [role for role in wiring["postgresql_roles"] if role.get("reads")]
    assert analyst["name"] == "trial_analyst"
    assert analyst["reads"] == ["trial"]
    assert analyst["networks"] == ["10.0.5.0/24"]
    assert analyst["connection_limit"] == 5
    assert analyst["settings"]["default_transaction_read_only"] is True
    assert analyst["settings"]["work_mem"] == "64MB"
    assert len(wiring["pgbouncer_users"]) == 2


def test_an_instance_without_secrets_is_an_error() -> None:
    with pytest.raises(KeyError):
        wire(INSTANCES, {"main": SECRETS["main"]})


ADDRESSES = {name: f"10.0.0.{number}" for number, name in enumerate(("app1", "db1", "db2", "db3", "w1"), 1)}


def test_one_host_publishes_nothing_and_uses_names() -> None:
    alone = topology({tier: ["vm1"] for tier in ("edge", "app", "database", "cache")}, {"vm1": "vm1"})["vm1"]
    assert alone["etcd_members"] == alone["postgresql_members"] == {}
    assert alone["etcd_publish_address"] == alone["postgresql_publish_address"] == ""
    assert alone["postgresql_etcd_hosts"] == ["etcd:2379"]
    assert alone["postgresql_client_networks"] == []
    assert alone["postgresql_hosts"] == {}
    assert alone["haproxy_members"] == {"vm1": "postgresql"}
    assert set(alone["images_names"]) == {"odoo", "pgbouncer", "haproxy", "redis", "postgresql", "etcd", "traefik"}


def test_one_host_whose_database_somebody_reads_publishes_it() -> None:
    alone = topology({tier: ["vm1"] for tier in ("edge", "app", "database", "cache")}, {"vm1": "10.0.0.9"}, readers=True)["vm1"]
    assert (alone["postgresql_publish_address"], alone["etcd_publish_address"]) == ("10.0.0.9", "")


def test_three_caches_know_each_other_and_odoo_asks_the_sentinel_beside_it_last() -> None:
    addresses = {"front": "10.0.0.1", "app1": "10.0.0.2", "app2": "10.0.0.3"}
    names = list(addresses)
    found = topology({"edge": ["front"], "app": ["app1", "app2"], "cache": names, "database": ["front"]}, addresses)
    assert all(found[name]["redis_members"] == addresses for name in names)
    assert {name: found[name]["redis_publish_address"] for name in names} == addresses
    assert all(found[name]["odoo_redis_published"] for name in names)
    members = found["app1"]["odoo_redis_members"]
    assert list(members) == ["front-redis", "app2-redis", "app1-redis"]
    assert members["front-redis"] == {"redis": "10.0.0.1:6379", "sentinel": "10.0.0.1:26379"}
    assert members["app1-redis"] == {"redis": "redis:6379", "sentinel": "sentinel:26379"}


def test_one_cache_is_no_member() -> None:
    found = topology({tier: ["vm1"] for tier in ("edge", "app", "database", "cache")}, {"vm1": "vm1"})["vm1"]
    assert (found["redis_members"], found["odoo_redis_members"]) == ({}, {})


def test_three_members_and_an_application_host() -> None:
    tiers = {"edge": ["app1"], "app": ["app1"], "cache": ["app1"], "database": ["db1", "db2", "db3"]}
    found = topology(tiers, ADDRESSES)
    members = {name: ADDRESSES[name] for name in ("db1", "db2", "db3")}
    assert found["db2"]["etcd_members"] == found["db2"]["postgresql_members"] == members
    assert found["db2"]["etcd_publish_address"] == found["db2"]["postgresql_publish_address"] == "10.0.0.3"
    assert found["db2"]["postgresql_etcd_hosts"] == ["db1-etcd:2379", "db2-etcd:2379", "db3-etcd:2379"]
    assert found["db2"]["postgresql_hosts"] == {name: ADDRESSES[name[:3]] for name in ("db1", "db3", "db1-etcd", "db3-etcd")}
    assert found["db2"]["postgresql_client_networks"] == ["10.0.0.1/32"]
    assert found["db2"]["images_names"] == ["postgresql", "etcd"]
    assert found["app1"]["etcd_publish_address"] == found["app1"]["postgresql_publish_address"] == ""
    assert found["app1"]["haproxy_members"] == members
    assert "postgresql" not in found["app1"]["images_names"]


def test_a_database_on_a_host_of_its_own_is_published_and_its_etcd_is_not() -> None:
    found = topology({"app": ["app1"], "database": ["db1"]}, ADDRESSES)["db1"]
    assert (found["postgresql_publish_address"], found["etcd_publish_address"]) == ("10.0.0.2", "")
    assert found["postgresql_etcd_hosts"] == ["etcd:2379"]


def test_a_witness_votes_and_holds_no_data() -> None:
    tiers = {"app": ["app1"], "database": ["db1", "db2"], "witness": ["w1"]}
    assert voters(tiers) == ["db1", "db2", "w1"]
    found = topology(tiers, ADDRESSES)
    assert list(found["w1"]["etcd_members"]) == ["db1", "db2", "w1"]
    assert list(found["db1"]["postgresql_members"]) == ["db1", "db2"]
    assert found["w1"]["images_names"] == ["etcd"]
    assert found["w1"]["postgresql_publish_address"] == ""


def test_a_member_on_the_application_s_own_host_is_next_door() -> None:
    found = topology({"app": ["db1"], "database": ["db1", "db2", "db3"]}, ADDRESSES)["db1"]
    assert found["haproxy_members"] == {"db1": "postgresql", "db2": "10.0.0.3", "db3": "10.0.0.4"}


APART = {"edge": ["e1", "app1"], "app": ["app1", "app2"], "cache": ["e1"], "database": ["e1"]}
AT = {"e1": "10.0.0.9", "app1": "10.0.0.1", "app2": "10.0.0.2"}


def test_what_other_hosts_need_is_published_on_the_private_address() -> None:
    found = topology(APART, AT)
    assert found["app1"]["traefik_apps"] == {"app1": "", "app2": "10.0.0.2"}
    assert found["e1"]["traefik_apps"] == {"app1": "10.0.0.1", "app2": "10.0.0.2"}
    assert {name: found[name]["odoo_publish_address"] for name in found} == {"e1": "", "app1": "10.0.0.1", "app2": "10.0.0.2"}
    assert {name: found[name]["redis_publish_address"] for name in found} == {"e1": "10.0.0.9", "app1": "", "app2": ""}
    assert {name: found[name]["odoo_redis"] for name in found} == {"e1": "redis:6379", "app1": "10.0.0.9:6379", "app2": "10.0.0.9:6379"}
    assert all(found[name]["odoo_redis_published"] for name in found)
    assert found["e1"]["postgresql_client_networks"] == ["10.0.0.1/32", "10.0.0.2/32"]


def test_one_host_has_all_tiers_next_door() -> None:
    alone = topology({tier: ["vm1"] for tier in ("edge", "app", "database", "cache")}, {"vm1": "vm1"})["vm1"]
    assert (alone["odoo_publish_address"], alone["redis_publish_address"], alone["odoo_redis"]) == ("", "", "redis:6379")
    assert alone["odoo_redis_published"] is False
    assert alone["traefik_apps"] == {"vm1": ""}


def test_an_edge_sends_requests_to_every_host_that_was_not_drained() -> None:
    sizes = {"web_workers": 4, "batch_workers": 1}
    plan = {"app1": {"odoo": {"main": sizes, "test": sizes}}, "app2": {"odoo": {"main": sizes}}, "e1": {}}
    instances = {"main": INSTANCES["main"], "test": {**INSTANCES["test"], "port": 8079}}
    apps = topology(APART, AT)["e1"]["traefik_apps"]
    main, test = wire(instances, SECRETS, plan, apps)["traefik_sites"]
    assert main["web"] == ["http://10.0.0.1:8069", "http://10.0.0.2:8069"]
    assert main["websocket"] == ["http://10.0.0.1:8072", "http://10.0.0.2:8072"]
    assert (main["batch"], main["workers"]) == (["http://10.0.0.1:8070", "http://10.0.0.2:8070"], 8)
    assert (test["web"], test["websocket"]) == (["http://10.0.0.1:8079"], ["http://10.0.0.1:8082"])
    plan["app2"]["drained"] = "2026-11-25T02:00:00Z"
    wiring = wire(instances, SECRETS, plan, apps)
    assert (wiring["traefik_sites"][0]["web"], wiring["traefik_sites"][0]["workers"]) == (["http://10.0.0.1:8069"], 4)
    assert wiring["traefik_drained"] == {"app2": "2026-11-25T02:00:00Z"}


def test_each_instance_has_a_network_and_its_roles_are_known() -> None:
    instances = {**INSTANCES, "test": {**INSTANCES["test"], "analyst": {}}}
    rotated = {**SECRETS["test"], "db_user": "trial_login2", "db_password_next": "n", "analyst_password": "an"}
    wiring = wire(instances, {**SECRETS, "test": rotated})
    assert wiring["networks"] == ["berth-odoo-main", "berth-odoo-test"]
    made = {role["name"] for role in wiring["postgresql_roles"]} - {MONITORING_ROLE["name"]}
    assert made <= {*roles_of("main"), *roles_of("trial")}


def test_only_a_host_that_does_nothing_else_is_reset_when_its_leader_hangs() -> None:
    tiers = {"edge": ["app1"], "app": ["app1", "db1"], "database": ["db1", "db2", "db3"], "witness": ["db3"]}
    found = topology(tiers, ADDRESSES)
    assert {host: found[host]["postgresql_watchdog"] for host in found} == {
        "app1": "never",
        "db1": "never",
        "db2": "automatic",
        "db3": "automatic",
    }
    # A member alone would be reset for nobody's sake.
    assert topology({"app": ["app1"], "database": ["db1"]}, ADDRESSES)["db1"]["postgresql_watchdog"] == "never"
