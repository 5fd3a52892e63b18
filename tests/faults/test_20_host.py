# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be wrong with a machine, and what may happen to it: port taken, disk short, Docker restarted, machine rebooted."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.lab import docker, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

BOOT_SECONDS = 180  # the most that a reboot may take until users can work again, on a loaded machine with 2 cores


@contextmanager
def foreign_listener(host: Host, port: int) -> Iterator[None]:
    """A process that is not ours listens on a port of the host."""
    unit = "berth-test-listener"
    host.run(f"systemd-run --unit {unit} --collect python3 -m http.server {port} --directory /nonexistent")
    try:
        wait_for("start of the listener", lambda: host.run(f"ss -Hlnt 'sport = :{port}'").strip(), seconds=15)
        assert "python3" in host.run(f"ss -Hlntp 'sport = :{port}'")
        yield
    finally:
        host.run(f"systemctl stop {unit}", check=False)


def test_port_443_taken(host: Host, play: Player, visitor: Odoo) -> None:
    edge = host.container("traefik/traefik")
    host.run(f"docker stop {edge.id}", timeout=180)
    try:
        with foreign_listener(host, 443):
            before = host.state()
            play("playbooks/site.yml").expect_refusal(host.name, "443", "python3")
            assert host.state() == before
        play("playbooks/site.yml").expect_success()
        visitor.wait_until_up(seconds=30)
    finally:
        # Whatever happened: the tests after this one need the edge.
        host.run(f"docker start {edge.id}", check=False)


def test_disk_with_less_than_needed(host: Host, play: Player) -> None:
    """A small file system over the data directory of a live machine; the services go on with the one below it."""
    host.run("mount -t tmpfs -o size=64m berth-test /var/lib/berth")
    try:
        assert int(host.run("stat -f -c '%a * %S' /var/lib/berth | xargs -I{} sh -c 'echo $(({}))'")) < 2**26 + 1
        before = host.state()
        run = play("playbooks/site.yml").expect_refusal(host.name, "/var/lib/berth")
        assert "GB" in run.text or "GiB" in run.text
        assert host.state() == before
    finally:
        host.run("umount /var/lib/berth")
    assert play("playbooks/site.yml").expect_success().changed == []


def test_docker_daemon_restarted(host: Host, admin: Odoo, marker: int) -> None:
    before = host.containers()
    pid = host.run("systemctl show docker -P MainPID")
    host.run("systemctl restart docker", timeout=120)
    assert host.run("systemctl show docker -P MainPID") != pid
    host.wait_until_healthy(seconds=120, names=sorted(before))
    # Live-restore keeps the containers. Requests of one to three seconds do fail, while the daemon writes its network rules anew.
    assert {name: container.identity for name, container in host.containers().items()} == {
        name: container.identity for name, container in before.items()
    }
    assert admin.call("res.partner", "search_count", [["id", "=", marker]]) == 1


def test_machine_rebooted(host: Host, play: Player, admin: Odoo, marker: int) -> None:
    boot = host.run("cat /proc/1/stat | awk '{print $22}'")
    before = {name: container.id for name, container in host.containers().items()}
    docker("restart", "--time", "60", host.variables["lab_container"], timeout=180)
    wait_for("login over SSH", lambda: host.run("cat /proc/1/stat | awk '{print $22}'") not in ("", boot), seconds=BOOT_SECONDS)
    host.wait_until_healthy(seconds=BOOT_SECONDS, names=sorted(before))
    admin.wait_until_up(seconds=30)
    assert {name: container.id for name, container in host.containers().items()} == before, "the same containers came back"
    assert admin.call("res.partner", "search_count", [["id", "=", marker]]) == 1, "the session and the data survived"
    play("playbooks/status.yml").expect_success()
    assert play("playbooks/site.yml").expect_success().changed == []


@pytest.fixture
def marker(admin: Odoo) -> int:
    """A record that was written, and acknowledged, before the fault."""
    created = admin.call("res.partner", "create", [{"name": "written before the fault"}])
    return int(created[0])
