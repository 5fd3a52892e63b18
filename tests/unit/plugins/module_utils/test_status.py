# Copyright: (c) 2026, berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of a platform's state, and what makes the playbook fail."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _status


def service(**changes: Any) -> dict[str, Any]:
    return {
        "project": "odoo-main",
        "service": "web",
        "state": "running",
        "health": "healthy",
        "exit_code": 0,
        "memory_bytes": 300 * _status.MIB,
        "memory_limit_bytes": 1200 * _status.MIB,
        "version": "19.0",
        "image_id": "sha256:0123456789abcdef",
        **changes,
    }


def host(**changes: Any) -> dict[str, Any]:
    return {"services": [service()], "postgresql": None, "certificates": [], "docker_error": "", **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "exited", "health": "none", "exit_code": 137}, "is exited (exit code 137)"),
        ({"state": "missing", "health": "none"}, "has no container; run playbooks/site.yml"),
        ({"health": "unhealthy"}, "is running but unhealthy"),
        ({"health": "starting"}, "is running but starting"),
        ({"state": "restarting", "exit_code": 1}, "is restarting (exit code 1)"),
    ],
)
def test_a_service_that_does_not_serve_is_a_problem(changes: dict[str, Any], words: str) -> None:
    found = _status.problems({"vm1": host(services=[service(), service(service="cron", **changes)])})
    assert found == [f"vm1: odoo-main/cron {words}"]


def test_everything_up_is_no_problem() -> None:
    assert _status.problems({"vm1": host(services=[service(), service(health="none")])}) == []


def test_a_silent_or_empty_host_is_a_problem() -> None:
    found = _status.problems(
        {
            "vm1": {"unreachable": "timed out"},
            "vm2": host(services=[]),
            "vm3": host(services=[], docker_error="Docker does not answer"),
        }
    )
    assert found == [
        "vm1: unreachable: timed out",
        "vm2: nothing is deployed; run playbooks/site.yml",
        "vm3: Docker does not answer",
    ]


@pytest.mark.parametrize(
    ("cluster", "found"),
    [
        ({"members": [{"name": "vm1", "role": "leader", "state": "running"}]}, []),
        (
            {"members": [{"name": "vm1", "role": "replica", "state": "streaming"}]},
            ["PostgreSQL: the cluster has no leader"],
        ),
        (
            {
                "members": [
                    {"name": "vm1", "role": "leader", "state": "running"},
                    {"name": "vm2", "role": "replica", "state": "start failed"},
                ]
            },
            [
                "PostgreSQL: member vm2 is start failed",
                "PostgreSQL: no synchronous standby, so a failover now would lose what was acknowledged last",
            ],
        ),
        (
            {
                "members": [
                    {"name": "vm1", "role": "leader", "state": "running"},
                    {"name": "vm2", "role": "quorum_standby", "state": "streaming"},
                ]
            },
            [],
        ),
        ({"error": "Patroni did not answer in 3 s"}, ["PostgreSQL: Patroni did not answer in 3 s"]),
    ],
)
def test_the_database_cluster(cluster: dict[str, Any], found: list[str]) -> None:
    assert _status.cluster_problems(cluster) == found


@pytest.mark.parametrize(
    ("days", "words"),
    [(90.0, None), (7.0, None), (6.9, "expires in 6.9 days"), (-2.0, "expired 2 days ago")],
)
def test_a_certificate_near_its_end(days: float, words: str | None) -> None:
    problem = _status.certificate_problem({"server_name": "odoo.example.com", "days_left": days})
    assert problem == (words and f"certificate of odoo.example.com {words}")


def test_the_screen_shows_memory_versions_cluster_and_certificates() -> None:
    text = _status.screen(
        {
            "vm1": host(
                postgresql={"members": [{"name": "vm1", "role": "leader", "state": "running", "timeline": 3, "pending_restart": True}]},
                certificates=[{"server_name": "a.example", "days_left": 30.2, "not_after": "2027-01-01", "issuer": "Some CA"}],
            )
        }
    )
    assert "vm1   odoo-main/web  running  healthy  300 of 1200 MiB (25 %)  19.0     0123456789ab" in text
    assert "vm1 is leader, running, timeline 3, lag 0, restart pending" in text
    assert "Certificate of a.example on vm1: 30 days left (until 2027-01-01), issued by Some CA" in text
    assert text.endswith("1 of 1 services are up on 1 host(s).")


def test_columns_line_up() -> None:
    lines = _status.table([("A", "B"), ("long cell", "x")])
    assert lines == ["A          B", "long cell  x"]
