# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three database hosts from inventories/ha: a cluster that could fail over, and whose members only talk to those who may."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, POSTGRESQL, cluster, leader, wait_until_fit

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

ETCD = "docker ps -q --filter label=com.docker.compose.project=etcd"

# The startup message of PostgreSQL's protocol, with or without TLS before it; prints the kind of the answer and its text. What
# host-based authentication does not let in is refused (E) before a password is asked for (R).
STARTUP = """
import socket, ssl, struct, sys
address, tls = sys.argv[1], sys.argv[2] == "tls"
connection = socket.create_connection((address, 5432), timeout=10)
if tls:
    connection.sendall(struct.pack(">ii", 8, 80877103))
    assert connection.recv(1) == b"S", "the server knows no TLS"
    context = ssl.create_default_context(cafile="/opt/berth/haproxy/config/ca.crt")
    connection = context.wrap_socket(connection, server_hostname="postgresql")
words = b"user\\0main\\0database\\0main\\0\\0"
connection.sendall(struct.pack(">ii", 8 + len(words), 196608) + words)
print(connection.recv(4096).decode("utf-8", "replace").replace("\\0", " "))
"""


def test_the_first_run_converges(play: Player) -> None:
    play("playbooks/site.yml").expect_success()


def test_the_second_run_changes_nothing(play: Player) -> None:
    assert play("playbooks/site.yml").expect_success().changed == []


def test_three_members_one_leader_one_synchronous_standby(lab: Lab) -> None:
    wait_until_fit(lab)
    members = cluster(lab)
    assert sorted(member["Member"] for member in members) == list(MEMBERS)
    assert [member["Role"] for member in members].count("Leader") == 1
    assert len({member["TL"] for member in members}) == 1


def test_etcd_has_three_members_and_its_leader_is_not_beside_the_primary(lab: Lab) -> None:
    leaders = []
    for name in MEMBERS:
        host = lab.hosts[name]
        [status] = json.loads(host.run(f"docker exec $({ETCD}) etcdctl endpoint status --write-out=json"))
        listing = json.loads(host.run(f"docker exec $({ETCD}) etcdctl member list --write-out=json"))
        assert len(listing["members"]) == 3
        if status["Status"]["leader"] == status["Status"]["header"]["member_id"]:
            leaders.append(name)
    assert len(leaders) == 1
    assert leaders != [leader(lab)]


def test_postgresql_lets_nobody_in_without_tls(lab: Lab, host: Host) -> None:
    """The same question from the same host as the same user, once with TLS and once without."""
    for name in MEMBERS:
        address = lab.hosts[name].address
        assert host.run(f"python3 - {address} tls", stdin=STARTUP).startswith("R"), f"{name} does not ask for a password"
        refusal = host.run(f"python3 - {address} plain", stdin=STARTUP)
        assert refusal.startswith("E") and "no encryption" in refusal, refusal


def test_etcd_lets_nobody_in_without_a_certificate(lab: Lab, host: Host) -> None:
    for name in MEMBERS:
        member = lab.hosts[name]
        url = f"https://{member.address}:2379/version"
        known = "--cert /opt/berth/etcd/tls/tls.crt --key /opt/berth/etcd/tls/tls.key"
        assert "etcdserver" in member.run(f"curl -sk --max-time 10 {known} {url}"), f"{name} does not answer a member"
        assert not host.succeeds(f"curl -sk --max-time 10 {url}"), f"{name} answers somebody without a certificate"
        assert not host.succeeds(f"curl -s --max-time 10 http://{member.address}:2379/version"), f"{name} answers without TLS"


def test_patroni_tells_everybody_and_obeys_only_those_with_a_certificate(lab: Lab, host: Host) -> None:
    """HAProxy asks without one."""
    primary = lab.hosts[leader(lab)]
    url = f"https://{primary.address}:8008"
    assert host.run(f"curl -sk --max-time 10 -o /dev/null -w '%{{http_code}}' {url}/primary").strip() == "200"
    refused = host.run(f"curl -sk --max-time 10 -o /dev/null -w '%{{http_code}}' -X POST -d '{{}}' {url}/reload").strip()
    assert refused == "403"
    assert primary.run(f"docker exec $({POSTGRESQL}) patronictl list --format json").strip()
