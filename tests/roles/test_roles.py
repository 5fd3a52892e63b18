# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each public role alone: the playbook of its README, as it is, on a VM that knows nothing of our inventories.

Only secrets, the address of a neighbour and where images come from are given from outside, as a reader would put in their own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, wait_for
from ansible_collections.berth.odoo.tests.support.playbook import Player

WITH_IMAGES = ("etcd", "haproxy", "odoo", "pgbouncer", "postgresql", "redis", "traefik", "restore")
NETWORKS = "docker network ls -q --filter name=berth-"


def answers_within_container(name: str, *argv: str) -> Callable[[Host], None]:
    """A check that a command in a role's container ends with 0."""

    def check(host: Host) -> None:
        host.run(f"docker exec {host.container(name).id} {' '.join(argv)}")

    return check


def postgresql_is_primary(host: Host) -> None:
    identifier = host.container("postgresql/postgresql").id
    assert host.run(f"docker exec {identifier} psql -h /run/postgresql -U postgres -tAc 'select pg_is_in_recovery()'").strip() == "f"


def haproxy_finds_the_primary(host: Host) -> None:
    identifier = host.container("postgresql/postgresql").facts["Image"]
    command = f"docker run --rm --network berth-data --entrypoint pg_isready {identifier} -h postgresql-primary -p 5432"
    wait_for("the way to the primary", lambda: host.succeeds(command), seconds=30)


def redis_takes_the_password(host: Host) -> None:
    command = (
        f"docker exec -i {host.container('redis/redis').id} sh -c "
        "'IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --user app --no-auth-warning set app:key value'"
    )
    assert host.run(command, stdin=str(host.variables["odoo_instance_secrets"]["main"]["redis_password"]) + "\n").strip() == "OK"
    assert "WRONGPASS" in host.run(command + " 2>&1", stdin="wrong\n")


def pgbouncer_reaches_the_database(host: Host) -> None:
    identifier = host.container("postgresql/postgresql").facts["Image"]
    command = (
        f"docker run --rm -i --network berth-app --entrypoint sh {identifier} -c "
        "'IFS= read -r PGPASSWORD; export PGPASSWORD; psql -h pgbouncer -p 6432 -d app -U odoo -tAc \"select 1\"'"
    )
    assert host.run(command, stdin=str(host.variables["odoo_instance_secrets"]["main"]["db_password"]) + "\n").strip() == "1"
    assert not host.succeeds(command + " 2>&1", stdin="wrong\n")


def odoo_answers(host: Host) -> None:
    identifier = host.container("odoo-app/web").id
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    address = host.run(f"docker inspect -f '{template}' {identifier}").split()[0]
    assert 'name="password"' in host.run(f"curl -sf http://{address}:8069/web/login")


def traefik_serves_its_certificate(host: Host) -> None:
    text = host.run("curl -sk --max-time 10 -o /dev/null -w '%{http_code} %{certs}' https://127.0.0.1/")
    assert text.startswith(("404", "502", "503")), text[:200]
    assert "BEGIN CERTIFICATE" in text


def a_set_needs_its_repository(host: Host) -> None:
    """The whole way is tests/backup's."""
    host.run("systemctl is-active berth-set@app.timer")
    text = host.run("python3 -B /opt/berth/backup/config/set.py app 2>&1", check=False)
    assert "no set of app was made: repository nas: there is no directory /mnt/backup" in text


def a_restore_needs_a_set(host: Host) -> None:
    """The whole way is tests/backup's."""
    host.run("systemctl is-active berth-drill-restore.timer")
    text = host.run("python3 -B /opt/berth/restore/config/restore.py sets --instance app 2>&1", check=False)
    assert "there is no repository of files of this instance" in text


def offered_by_sshd(host: Host) -> str:
    """The algorithms that the running sshd offers, as the ssh client prints them."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    argv = ["ssh", "-vv", *(part for option in options for part in ("-o", option)), f"nobody@{host.address}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    offered = done.stderr.partition("peer server KEXINIT proposal")[2].partition("first_kex_follows")[0]
    assert offered, done.stderr[-2000:]
    return offered


def sshd_offers_what_it_is_told(host: Host) -> None:
    offered = offered_by_sshd(host)
    assert "mlkem768x25519-sha256,sntrup761x25519-sha512@openssh.com" in offered
    assert "nistp256," not in offered and "hmac-sha1" not in offered


# What breaks a cluster refuses one member alone; tests/ha runs it. An address that moves takes two hosts; tests/apps does.
ELSEWHERE = {"drill", "keepalived"}

# In the order in which a later one can use what an earlier one left. What each leaves running, and the proof that it works.
ROLES: dict[str, Callable[[Host], None]] = {
    # Its example knows another instance than the role odoo's, which it would refuse to lose.
    "preflight": lambda host: None,
    "host": lambda host: None,
    "docker": lambda host: host.run("docker info") and None,
    # From here on the others are tried behind it.
    "firewall": lambda host: (
        host.run("nft list table inet berth | grep 'proto-dst 5432' && systemctl is-active berth-firewall-watch.timer") and None
    ),
    "images": lambda host: host.run("docker image inspect " + " ".join(images(host).values())) and None,
    "etcd": answers_within_container("etcd/etcd", "etcdctl", "endpoint", "health"),
    "postgresql": postgresql_is_primary,
    "haproxy": haproxy_finds_the_primary,
    "pgbouncer": pgbouncer_reaches_the_database,
    "redis": redis_takes_the_password,
    "odoo": odoo_answers,
    "traefik": traefik_serves_its_certificate,
    "backup": a_set_needs_its_repository,
    "restore": a_restore_needs_a_set,
    "hardening": sshd_offers_what_it_is_told,
}


def images(host: Host) -> dict[str, str]:
    """The images on the host, by tier."""
    lines = host.run("docker image ls --format '{{.Repository}} {{.ID}}' --no-trunc").splitlines()
    return {
        repository.removeprefix("berth/"): identifier for repository, identifier in map(str.split, lines) if repository.startswith("berth/")
    }


def test_every_public_role_is_tried() -> None:
    assert {path.name for path in (REPOSITORY / "roles").iterdir()} == {*ROLES, *ELSEWHERE}


@pytest.fixture(scope="session")
def registry(lab: Lab, host: Host, play: Player) -> None:
    """The images that the examples need, and the base that one of them builds on: what a registry would deliver."""
    play("tests/roles/load_images.yml").expect_success()
    base = str(host.variables["images_base_image"])
    with subprocess.Popen(["docker", "save", base], stdout=subprocess.PIPE) as save:
        load = subprocess.run([*host.ssh, "sudo -n docker load --quiet"], stdin=save.stdout, capture_output=True, check=False, timeout=120)
    assert save.returncode == 0 and load.returncode == 0, load.stderr.decode()


@pytest.mark.parametrize("role", ROLES)
def test_role_from_its_readme(host: Host, play: Player, registry: None, environment: dict[str, str], role: str) -> None:
    # The name that the lab's certificate is for.
    variables = {"pgbouncer_upstream_host": "postgresql-primary", "app_domain": str(host.variables["site_domains"][0])}
    if role in WITH_IMAGES:
        variables["images_source"] = "archive"  # to build what an archive brings takes minutes, and the example of images does
    example = f"roles/{role}/meta/example.yml"
    play(example, variables=variables, settings=environment).expect_success()
    assert play(example, variables=variables, settings=environment).expect_success().changed == []
    ROLES[role](host)


def test_docker_after_a_run_that_was_killed(host: Host, play: Player) -> None:
    # As SIGHUP leaves it while packages are installed.
    host.run("systemctl stop docker.socket docker.service && systemctl disable --quiet docker.socket docker.service")
    host.run("systemctl mask --runtime --quiet docker.service docker.socket")
    play("roles/docker/meta/example.yml").expect_success()
    assert host.run("systemctl is-enabled docker.service docker.socket").split() == ["enabled", "enabled"]
    host.run("docker info")
    assert play("roles/docker/meta/example.yml").expect_success().changed == []


def test_another_apt_is_waited_for(host: Host, play: Player) -> None:
    """Its locks of lists and of downloads, for which apt itself does not wait."""
    packages = {"docker_packages": ["docker.io", "docker-cli", "docker-compose", "hello"]}
    hold = "; ".join(
        [
            "import fcntl, time",
            "lists, downloads = open('/var/lib/apt/lists/lock', 'w'), open('/var/cache/apt/archives/lock', 'w')",
            "fcntl.lockf(lists, fcntl.LOCK_EX)",
            "fcntl.lockf(downloads, fcntl.LOCK_EX)",
            "time.sleep(20)",
            "fcntl.lockf(lists, fcntl.LOCK_UN)",
            "time.sleep(20)",
        ]
    )
    try:
        host.run(f'systemd-run --quiet --collect --unit=other-apt python3 -c "{hold}"')
        wait_for("the other apt", lambda: not host.succeeds("apt-get --quiet=2 update 2>/dev/null"), seconds=10)
        host.run("touch -d '2 hours ago' /var/lib/apt/lists")
        play("roles/docker/meta/example.yml", variables=packages).expect_success()
        assert host.succeeds("dpkg --status hello | grep -q 'ok installed'") and not host.succeeds("systemctl is-active --quiet other-apt")
    finally:
        host.run("systemctl stop other-apt; apt-get --quiet=2 --yes purge hello", check=False)
