# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every container is confined as promised, and no secret lies where it should not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.lab import PLACES, keys, leaks, seen

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Container, Host, Lab

EXPECTED = {
    "etcd/etcd",
    "postgresql/postgresql",
    "haproxy/haproxy",
    "pgbouncer/pgbouncer",
    "pgbouncer/pgbouncer-session",
    "redis/redis",
    "odoo-main/web",
    "odoo-main/websocket",
    "odoo-main/cron",
    "traefik/traefik",
}


@pytest.fixture(scope="module")
def containers(host: Host) -> dict[str, Container]:
    return host.containers()


def test_exactly_the_expected_containers_run(host: Host, containers: dict[str, Container]) -> None:
    assert set(containers) == EXPECTED
    assert [container.name for container in containers.values() if not container.healthy] == []
    assert int(host.run("docker ps -aq | wc -l")) == len(EXPECTED), "there are containers that nobody manages"


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_container_is_confined(containers: dict[str, Container], name: str) -> None:
    facts = containers[name].facts
    settings = facts["HostConfig"]
    user = facts["Config"]["User"].split(":")[0]
    assert user.isdigit() and int(user) > 0, f"runs as {user!r}"
    assert settings["ReadonlyRootfs"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert not settings["Privileged"]
    assert "no-new-privileges:true" in settings["SecurityOpt"] or "no-new-privileges" in settings["SecurityOpt"]
    assert settings["Memory"] > 0
    assert settings["MemorySwap"] == settings["Memory"]
    assert settings["PidsLimit"] > 0
    assert settings["NanoCpus"] > 0 or settings["CpuShares"] > 0
    assert settings["RestartPolicy"]["Name"] == "unless-stopped"
    assert facts["Config"]["Healthcheck"]["Test"]
    assert settings["PidMode"] == "" and settings["IpcMode"] == "private" and settings["NetworkMode"] != "host"
    assert not [mount["Source"] for mount in facts["Mounts"] if mount["Source"].endswith("docker.sock")]
    published = {port for port, bindings in (settings["PortBindings"] or {}).items() if bindings}
    assert not published or name == "traefik/traefik", f"publishes {published}"
    assert containers[name].facts["RestartCount"] == 0, "was restarted by Docker during the deployment"


def test_limits_are_real(host: Host, containers: dict[str, Container]) -> None:
    """What the kernel enforces on the first process of each container, and not only what Docker was told."""
    for container in containers.values():
        pid = container.facts["State"]["Pid"]
        status = dict(line.split(":", 1) for line in host.run(f"cat /proc/{pid}/status").splitlines() if ":" in line)
        assert status["Uid"].split() == [container.facts["Config"]["User"].split(":")[0]] * 4
        assert int(status["CapEff"], 16) == 0
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"
        limit = host.run(
            f"docker exec {container.id} sh -c 'cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes'"
        )
        assert int(limit) == container.facts["HostConfig"]["Memory"], f"{container.name}: the kernel's memory limit is {limit}"


def test_limits_fit_the_machine(host: Host, containers: dict[str, Container]) -> None:
    total = int(host.run("awk '/MemTotal/ {print $2 * 1024}' /proc/meminfo"))
    assert sum(container.facts["HostConfig"]["Memory"] for container in containers.values()) < total


@pytest.fixture(scope="module")
def secrets(lab: Lab, host: Host) -> dict[str, str]:
    """The inventory's, and the keys that were made for services."""
    made = keys(host)
    assert len(made) >= 2, "there are no keys of services to look for"
    return {**lab.secrets(), **made}


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_in(secrets: dict[str, str], host: Host, place: str) -> None:
    assert seen(host, secrets, place) == []


def test_the_search_for_secrets_finds_them_where_they_belong(secrets: dict[str, str], host: Host) -> None:
    """Or the tests above would prove nothing. The other servers keep verifiers and no passwords."""
    found = leaks(secrets, host.run("find /opt/berth -path '*/secrets/*' -type f -exec cat {} +; cat /opt/berth/*/tls/*.key"))
    assert {"odoo_instance_secrets.main.db_password", *keys(host)} <= set(found)


def test_secrets_on_disk_belong_to_their_service_alone(host: Host) -> None:
    """Root's, or those of the service's own user; nobody else may read them, and the service may not write them."""
    users = {container.facts["Config"]["User"].split(":")[0] for container in host.containers().values()}
    lines = host.run("find /opt/berth -path '*/secrets*' -printf '%y %U %m %p\\n'").splitlines()
    assert len([line for line in lines if line.startswith("f")]) >= 3
    wrong = [
        line
        for kind, user, mode, line in ((*line.split()[:3], line) for line in lines)
        if user not in {"0", *users} or mode not in ({"d": ["750"], "f": ["440", "400"]}[kind])
    ]
    assert wrong == []
