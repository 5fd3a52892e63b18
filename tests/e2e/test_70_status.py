# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One screen that says how the platform is, and an exit code for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.playbook import Player


def test_everything_is_up(host: Host, play: Player, tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    run = play("playbooks/status.yml", variables={"status_json_file": str(file)}).expect_success()
    assert run.changed == []
    lines = run.output.splitlines()
    for name, container in host.containers().items():
        [line] = [line for line in lines if f" {name} " in line]
        assert " running " in line
        assert " healthy " in line
        assert f" of {container.facts['HostConfig']['Memory'] // 2**20} MiB" in line
    assert f"PostgreSQL: berth: led by {host.name}" in run.output
    assert f"Certificate of {host.address} on {host.name}: " in run.output
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["problems"] == []
    assert {f"{service['project']}/{service['service']}" for service in data["hosts"][host.name]["services"]} == set(host.containers())


def test_a_stopped_container_is_named_and_the_exit_code_is_not_zero(host: Host, play: Player) -> None:
    container = host.container("redis/redis")
    services = len(host.containers())
    host.run(f"docker stop {container.id}")
    try:
        assert not host.container("redis/redis").facts["State"]["Running"]
        play("playbooks/status.yml").expect_refusal(f"{host.name}: redis/redis is exited", f"{services - 1} of {services} services are up")
    finally:
        host.run(f"docker start {container.id}")
        host.wait_until_healthy(names=["redis/redis"])
    play("playbooks/status.yml").expect_success()


def test_no_wal_waits_where_nothing_is_archived(host: Host, play: Player) -> None:
    """Patroni leaves such a mark where it recovers a server that crashed."""
    mark = host.run("find /var/lib -path '*/pg_wal/archive_status' -type d").strip() + "/000000010000000000000001.ready"
    host.run(f"touch -d '1 hour ago' {mark}")
    try:
        play("playbooks/status.yml").expect_success()
    finally:
        host.run(f"rm {mark}")


def test_a_machine_that_does_not_answer_is_named(host: Host, play: Player) -> None:
    """Port 1 refuses at once, like a machine whose sshd is gone."""
    play("playbooks/status.yml", variables={"ansible_port": 1}).expect_refusal(f"{host.name}: unreachable:")
