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
