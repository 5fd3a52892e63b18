# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filter takes from the variables of hosts."""

from __future__ import annotations

from ansible_collections.berth.odoo.plugins.filter.topology import topology


def test_a_host_that_runs_instances_is_given_the_images_they_name() -> None:
    instances = {
        "main": {"database": "main"},
        "acme": {"database": "acme", "image": "odoo-acme"},
        "other": {"database": "other", "image": "registry.example.com/odoo:19"},
    }
    variables = {"odoo_instances": instances, "images_odoo_variants": {"odoo-acme": {}, "odoo-unused": {}}, "host_address": "10.0.0.1"}
    groups = {"app": ["app1"], "database": ["db1"], "cache": ["db1"], "edge": ["app1"]}
    found = topology(groups, {"app1": variables, "db1": {**variables, "host_address": "10.0.0.2"}})
    assert found["app1"]["images_names"] == ["odoo", "pgbouncer", "haproxy", "traefik", "odoo-acme"]
    assert "odoo-acme" not in found["db1"]["images_names"]


def test_what_is_open_follows_from_the_instances_and_the_ports_of_the_edge() -> None:
    groups = {"app": ["app1"], "database": ["db1"], "cache": ["app1"], "edge": ["db1"]}
    variables = {"odoo_instances": {"main": {"database": "main", "port": 8100}}}
    hosts = {
        "app1": {**variables, "ansible_host": "10.0.0.1"},
        "db1": {**variables, "ansible_host": "10.0.0.2", "traefik_https_port": 8443},
    }
    found = topology(groups, hosts)
    assert [(entry["port"], entry["sources"]) for entry in found["app1"]["firewall_openings"]] == [
        (8100, ["10.0.0.2"]),
        (8101, ["10.0.0.2"]),
        (8103, ["10.0.0.2"]),
    ]
    assert [entry["port"] for entry in found["db1"]["firewall_openings"]] == [80, 8443, 5432, 8008]


def test_who_has_a_watchdog_is_the_inventory_s_choice() -> None:
    groups = {"app": ["app1"], "database": ["db1", "db2", "db3"], "cache": ["app1"], "edge": ["app1"]}
    hosts = {name: {"ansible_host": f"10.0.0.{number}"} for number, name in enumerate(["app1", "db1", "db2", "db3"], 1)}
    hosts["db2"]["postgresql_watchdog"] = "required"
    found = topology(groups, hosts)
    assert [found[name]["postgresql_watchdog"] for name in groups["database"]] == ["automatic", "required", "automatic"]


def test_members_are_open_to_each_other_for_backups_where_there_are_any() -> None:
    groups = {"app": ["app1"], "cache": ["app1"], "edge": ["app1"], "database": ["db1", "db2"]}
    hosts: dict[str, dict[str, object]] = {
        name: {"ansible_host": f"10.0.0.{number}"} for number, name in enumerate(("app1", "db1", "db2"), 1)
    }

    def to_db1() -> dict[int, list[str]]:
        return {entry["port"]: entry["sources"] for entry in topology(groups, hosts)["db1"]["firewall_openings"]}

    assert 8432 not in to_db1()
    for variables in hosts.values():
        variables["backup_repositories"] = [{"name": "offsite"}]
    assert to_db1()[8432] == ["10.0.0.3"]


def test_of_each_instance_the_first_host_that_runs_it_makes_sets_and_restores() -> None:
    shared, own, staging = {"database": "acme"}, {"database": "initech"}, {"database": "staging"}
    groups = {"app": ["app1", "app2", "app3"], "database": ["db1"], "cache": ["db1"], "edge": ["db1"]}
    runs = {
        "db1": {"acme": shared, "initech": own, "staging": staging},
        "app1": {"acme": shared},
        "app2": {"acme": shared, "staging": staging},
        "app3": {"initech": own},
    }
    hosts = {
        name: {"ansible_host": f"10.0.0.{number}", "odoo_instances": runs[name], "backup_repositories": [{"name": "offsite"}]}
        for number, name in enumerate(runs, 1)
    }
    found = topology(groups, hosts)
    assert {name: found[name]["backup_instances"] for name in runs} == {
        "db1": [],
        "app1": ["acme"],
        "app2": ["staging"],
        "app3": ["initech"],
    }
    for name in runs:
        assert found[name]["backup_hosts"] == {"acme": "app1", "initech": "app3", "staging": "app2"}
        assert found[name]["restore_instances"] == runs["db1"]
    del hosts["app2"]["backup_repositories"]
    assert [name for name in groups["app"] if "postgresql" in topology(groups, hosts)[name]["images_names"]] == ["app1", "app3"]
    hosts["app1"]["odoo_instances"] = {}
    assert topology(groups, hosts)["app2"]["backup_instances"] == ["acme", "staging"]
