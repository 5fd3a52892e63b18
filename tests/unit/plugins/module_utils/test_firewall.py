# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is open to whom, and the rules that say so."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _firewall, _validate
from ansible_collections.berth.odoo.plugins.module_utils._firewall import FirewallError, Opening
from ansible_collections.berth.odoo.plugins.module_utils._wiring import topology

TIERS = ("edge", "app", "database", "cache", "witness")
INSTANCES = {"main": {"database": "main"}}
HA = {"edge": ["app1"], "app": ["app1"], "cache": ["app1"], "database": ["db1", "db2", "db3"]}
AT = {"app1": "10.0.0.10", "db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"}


def _needed(tiers: dict[str, list[str]], addresses: dict[str, str], **more: Any) -> dict[str, list[dict[str, Any]]]:
    published = topology(tiers, addresses, readers=more.pop("readers", False))
    return _firewall.needed(tiers, addresses, published, dict.fromkeys(addresses, more.pop("instances", INSTANCES)), **more)


# -- what the platform needs


def test_one_host_has_its_edge_open_and_nothing_else() -> None:
    found = _needed({tier: ["vm1"] for tier in TIERS[:4]}, {"vm1": "vm1"})
    assert [(entry["port"], entry["sources"]) for entry in found["vm1"]] == [(80, ["any"]), (443, ["any"])]


def test_an_edge_may_have_other_ports() -> None:
    found = _needed({tier: ["vm1"] for tier in TIERS[:4]}, {"vm1": "vm1"}, edge_ports={"vm1": (8080, 8443)})
    assert [entry["port"] for entry in found["vm1"]] == [8080, 8443]


def test_a_member_of_a_cluster_is_open_to_the_others_and_to_application_hosts() -> None:
    found = {entry["port"]: entry["sources"] for entry in _needed(HA, AT)["db2"]}
    assert found == {
        5432: ["10.0.0.10", "10.0.0.11", "10.0.0.13"],
        8008: ["10.0.0.10", "10.0.0.11", "10.0.0.13"],
        2379: ["10.0.0.11", "10.0.0.13"],
        2380: ["10.0.0.11", "10.0.0.13"],
    }


def test_pgbackrest_of_a_member_is_open_to_the_other_members_where_there_are_backups() -> None:
    found = {host: {entry["port"]: entry["sources"] for entry in entries} for host, entries in _needed(HA, AT, backups=True).items()}
    assert found["db2"][8432] == ["10.0.0.11", "10.0.0.13"]
    assert 8432 not in found["app1"]
    alone = {"edge": ["app1"], "app": ["app1"], "cache": ["app1"], "database": ["db1"]}
    assert 8432 not in {entry["port"] for entry in _needed(alone, AT, backups=True)["db1"]}


def test_an_application_host_is_open_to_edges_and_redis_to_application_hosts() -> None:
    tiers = {"edge": ["front"], "app": ["app1", "app2"], "cache": ["front"], "database": ["front"]}
    found = _needed(tiers, {"front": "10.0.0.1", "app1": "10.0.0.2", "app2": "10.0.0.3"})
    assert {entry["port"]: entry["sources"] for entry in found["app2"]} == {port: ["10.0.0.1"] for port in (8069, 8070, 8072)}
    assert {entry["port"]: entry["sources"] for entry in found["front"]} == {
        80: ["any"],
        443: ["any"],
        6379: ["10.0.0.2", "10.0.0.3"],
        5432: ["10.0.0.2", "10.0.0.3"],
        8008: ["10.0.0.2", "10.0.0.3"],
    }


def test_an_instance_is_open_on_the_hosts_that_run_it() -> None:
    tiers = {"edge": ["front"], "app": ["app1", "app2"], "cache": ["front"], "database": ["front"]}
    addresses = {"front": "10.0.0.1", "app1": "10.0.0.2", "app2": "10.0.0.3"}
    by_host = {"app1": {"a": {"database": "a"}}, "app2": {"b": {"database": "b", "port": 8100}}, "front": None}
    found = _firewall.needed(tiers, addresses, topology(tiers, addresses), by_host)
    assert [entry["port"] for entry in found["app1"]] == [8069, 8070, 8072]
    assert [entry["port"] for entry in found["app2"]] == [8100, 8101, 8103]


def test_a_person_who_reads_a_database_reaches_postgresql_alone() -> None:
    instances = {"main": {"database": "main", "analyst": {"networks": ["10.0.5.0/24"]}}}
    found = _needed({tier: ["vm1"] for tier in TIERS[:4]}, {"vm1": "10.0.0.1"}, instances=instances, readers=True)
    assert [entry["port"] for entry in found["vm1"] if "10.0.5.0/24" in entry["sources"]] == [5432]


@given(
    st.dictionaries(st.sampled_from(TIERS), st.lists(st.sampled_from([f"h{number}" for number in range(6)]), min_size=1, unique=True)),
    st.booleans(),
)
def test_every_published_port_is_open_to_somebody_and_only_the_edge_to_everybody(tiers: dict[str, list[str]], readers: bool) -> None:
    addresses = {f"h{number}": f"10.0.0.{number + 1}" for number in range(6)}
    instances = {"main": {"database": "main", **({"analyst": {"networks": ["10.9.0.0/16"]}} if readers else {})}}
    published = topology(tiers, addresses, readers=readers)
    found = _firewall.needed(tiers, addresses, published, dict.fromkeys(addresses, instances))
    for host, variables in published.items():
        ports = {entry["port"] for entry in found[host]}
        # PostgreSQL of a host that nobody but its own containers uses is open to nobody.
        if variables["etcd_publish_address"]:
            assert {2379, 2380} <= ports
        if variables["redis_publish_address"]:
            assert 6379 in ports
        if variables["odoo_publish_address"]:
            assert {8069, 8070, 8072} <= ports
        assert bool({80, 443} & ports) == (host in tiers.get("edge", []))
        for entry in found[host]:
            assert entry["sources"], entry
            assert addresses[host] not in entry["sources"]
            assert ("any" in entry["sources"]) == (entry["port"] in {80, 443})


@given(
    st.fixed_dictionaries(
        {tier: st.lists(st.sampled_from([f"h{number}" for number in range(6)]), min_size=1, unique=True) for tier in TIERS}
    )
)
def test_every_peer_that_preflight_asks_for_is_let_in(tiers: dict[str, list[str]]) -> None:
    addresses = {f"h{number}": f"10.0.0.{number + 1}" for number in range(6)}
    variables = {"odoo_instances": {"main": {"database": "main"}, "still": {"database": "still", "port": 8100, "state": "stopped"}}}
    found = _needed(tiers, addresses, instances=variables["odoo_instances"])
    for host in addresses:
        for peer in _validate.peers_of(host, tiers, lambda name, key: addresses[name] if key == "host_address" else variables.get(key)):
            openings = _firewall.openings(found[peer["name"]], [], ["192.0.2.1"])
            assert any(entry.admits("tcp", peer["port"], addresses[host]) for entry in openings), (host, peer)


def test_edges_of_a_floating_address_hear_each_other_and_nobody_else() -> None:
    tiers, addresses = {"edge": ["app1", "front"], "app": ["app1", "app2"]}, {"app1": "10.0.0.1", "app2": "10.0.0.2", "front": "10.0.0.3"}
    assert not [entry for entries in _needed(tiers, addresses).values() for entry in entries if "protocol" in entry]
    found = _needed(tiers, addresses, floating=True)
    vrrp = {host: [entry["sources"] for entry in entries if entry.get("protocol") == "vrrp"] for host, entries in found.items()}
    assert vrrp == {"app1": [["10.0.0.3"]], "app2": [], "front": [["10.0.0.1"]]}
    text = _firewall.ruleset(_firewall.openings(found["front"], [], []))
    assert 'ip saddr { 10.0.0.1 } meta l4proto 112 accept comment "edges agree' in text
    assert "| front | vrrp | app1 | edges agree" in _firewall.table(
        {"front": _firewall.openings(found["front"], [], [])}, {address: name for name, address in addresses.items()}
    )


# -- what people write


def test_ssh_is_open_to_the_management_networks_or_to_everybody() -> None:
    assert _firewall.openings([], [], [])[0] == Opening(22, "tcp", (), "SSH")
    [ssh] = _firewall.openings([], [], ["10.0.0.0/24", "fd00::1"], 2222)
    assert ssh.port == 2222
    assert ssh.admits("tcp", 2222, "10.0.0.7") and ssh.admits("tcp", 2222, "::ffff:10.0.0.7") and ssh.admits("tcp", 2222, "fd00::1")
    assert not ssh.admits("tcp", 2222, "10.0.1.7") and not ssh.admits("tcp", 2222, "fd00::2") and not ssh.admits("udp", 2222, "10.0.0.7")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"port": 0, "sources": ["any"]}, "firewall_extra_openings[0].port is 0, expected a number from 1 to 65535"),
        ({"port": "http", "sources": ["any"]}, "firewall_extra_openings[0].port is 'http'"),
        ({"port": 80, "protocol": "sctp", "sources": ["any"]}, "protocol is 'sctp', expected tcp, udp or vrrp"),
        ({"port": 80, "protocol": "vrrp", "sources": ["10.0.0.1"]}, "port is 80, and vrrp has no ports: leave it out"),
        ({"port": 80, "sources": []}, "To open it to everybody type: [any]"),
        ({"port": 80, "sources": ["any", "10.0.0.1"]}, "any says everything"),
        ({"port": 80, "sources": ["10.0.0.5/24"]}, "Type 10.0.0.0/24"),
        ({"port": 80, "sources": ["app1"]}, "'app1' is no address and no network. Type for example 10.0.0.0/24"),
        ({"port": 80, "sources": ["0.0.0.0/0"]}, "'0.0.0.0/0' is everybody"),
        ({"port": 80, "sources": ["any"], "form": 1}, "there is no key form"),
    ],
)
def test_a_wrong_opening_is_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(FirewallError, match=re.escape(words)):
        _firewall.openings([], [entry], [])


def test_rules_that_would_cut_off_whoever_loads_them_are_refused() -> None:
    found = _firewall.openings([], [], ["10.0.0.0/24"])
    _firewall.refuse_to_cut(found, "10.0.0.7 50000 10.0.0.11 22")
    _firewall.refuse_to_cut(found, "")
    with pytest.raises(
        FirewallError, match=r"from 192\.0\.2\.9 to port 22, .* To keep it, add 192\.0\.2\.9 to firewall_management_networks$"
    ):
        _firewall.refuse_to_cut(found, "192.0.2.9 50000 10.0.0.11 22")
    with pytest.raises(FirewallError, match=r"To keep it, set firewall_ssh_port to 2222, it is 22$"):
        _firewall.refuse_to_cut(found, "10.0.0.7 50000 10.0.0.11 2222")
    with pytest.raises(FirewallError, match=r"set firewall_ssh_port to 2222, it is 22 and add fd00::1 to firewall_management_networks$"):
        _firewall.refuse_to_cut(found, "fd00::1 50000 fd00::2 2222")


def test_rules_are_confirmed_through_another_connection_than_that_which_loaded_them() -> None:
    _firewall.refuse_old_connection("10.0.0.7 50000 10.0.0.11 22", "10.0.0.7 50001 10.0.0.11 22")
    _firewall.refuse_old_connection("", "")
    with pytest.raises(FirewallError, match="proves nothing"):
        _firewall.refuse_old_connection("10.0.0.7 50000 10.0.0.11 22", "10.0.0.7 50000 10.0.0.11 22")


def test_an_interface_that_looks_like_docker_s_is_refused() -> None:
    _firewall.refuse_bridges(["lo", "eth0", "br0", "docker0", "br-0123456789ab", "veth1"])
    with pytest.raises(FirewallError, match="br-lan, and names that begin with br-"):
        _firewall.refuse_bridges(["br-lan", "br-0123456789ab"])


# -- rules

RULE = re.compile(
    r"^(?:ip6? saddr \{ (?P<sources>[^}]+) \} )?meta l4proto (?P<protocol>\w+) ct original proto-dst (?P<port>\d+) accept(?: comment \"[^\"]*\")?$"
)


def _accepted(found: list[Opening], protocol: str, port: int, address: str) -> bool:
    """What the rules say, read back."""
    chain = re.search(r"(?s)chain open \{\n(.*?)  \}", _firewall.ruleset(found))
    assert chain
    for line in chain[1].splitlines():
        rule = RULE.match(line.strip())
        assert rule, line
        sources = rule["sources"]
        networks = [ipaddress.ip_network(text.strip()) for text in sources.split(",")] if sources else []
        if (rule["protocol"], int(rule["port"])) == (protocol, port) and (
            not networks or any(ipaddress.ip_address(address) in network for network in networks)
        ):
            return True
    return False


addresses = st.one_of(st.ip_addresses(v=4, network="10.0.0.0/29"), st.ip_addresses(v=6, network="fd00::/125"))
networks = st.builds(
    lambda address, bits: str(ipaddress.ip_network((address, address.max_prefixlen - bits), strict=False)), addresses, st.integers(0, 3)
)
entries = st.fixed_dictionaries(
    {"port": st.integers(1, 4), "protocol": st.sampled_from(["tcp", "udp"]), "why": st.text(max_size=200)},
).flatmap(
    lambda entry: st.one_of(st.just(["any"]), st.lists(networks, min_size=1, max_size=6)).map(lambda sources: {**entry, "sources": sources})
)


@given(st.lists(entries, max_size=5), st.sampled_from(["tcp", "udp"]), st.integers(1, 4), addresses)
def test_the_rules_say_what_the_table_says(listed: list[dict[str, Any]], protocol: str, port: int, address: Any) -> None:
    found = _firewall.openings([], listed, [])
    assert _accepted(found, protocol, port, str(address)) == any(entry.admits(protocol, port, str(address)) for entry in found)


def test_a_comment_can_be_nothing_else() -> None:
    text = _firewall.ruleset(_firewall.openings([{"port": 1, "sources": ["any"], "why": '"; flush ruleset\n}' + "x" * 200}], [], []))
    comment = re.search(r'proto-dst 1 accept comment "([^"\n]*)"\n', text)
    assert comment and comment[1].startswith("_; flush ruleset__x") and len(comment[1]) == 120


def test_the_table_is_replaced_in_one_transaction_and_no_other_is_named() -> None:
    text = _firewall.ruleset([])
    assert [line for line in text.splitlines() if line.startswith(("add", "delete", "table"))] == [
        "add table inet berth",
        "delete table inet berth",
        "table inet berth {",
    ]
    assert "flush" not in text


def test_the_table_for_people_names_hosts() -> None:
    found = _firewall.openings([{"port": 5432, "sources": ["10.0.0.10", "10.0.5.0/24"], "why": "PostgreSQL"}], [], [])
    assert _firewall.table({"db1": found}, {"10.0.0.10": "app1"}).splitlines()[2:] == [
        "| db1 | 22/tcp | everybody | SSH |",
        "| db1 | 5432/tcp | app1, 10.0.5.0/24 | PostgreSQL |",
    ]


# -- what leaves


def test_a_host_reaches_what_others_are_open_to_it_for() -> None:
    found = _firewall.reverse(_needed(HA, AT), AT)
    assert [(entry["port"], entry["to"]) for entry in found["app1"]] == [
        (port, [AT[db]]) for db in ("db1", "db2", "db3") for port in (5432, 8008)
    ]
    assert ("10.0.0.12", 2380) in [(entry["to"][0], entry["port"]) for entry in found["db1"]]
    assert all(AT["app1"] not in entry["to"] for entry in found["db1"])


def test_edges_speak_to_each_other_and_look_at_their_address() -> None:
    tiers = {"edge": ["e1", "e2"], "app": ["app1"], "cache": ["app1"], "database": ["app1"]}
    at = {"e1": "10.0.0.1", "e2": "10.0.0.2", "app1": "10.0.0.3"}
    found = _firewall.reverse(_needed(tiers, at, floating=True), at, "10.0.0.9", {"e1": 443, "e2": 8443})
    assert {"protocol": "vrrp", "to": ["10.0.0.2"], "why": "edges agree on who has the floating address"} in found["e1"]
    assert ("10.0.0.9", 8443) in [(entry["to"][0], entry.get("port")) for entry in found["e2"]]
    assert not any(entry["to"] == ["10.0.0.9"] for entry in found["app1"])


def test_everything_may_leave_until_a_list_is_given() -> None:
    assert _firewall.outgoing([{"port": 1, "to": ["10.0.0.1"]}], ["any"]) is None
    assert "hook output" not in _firewall.ruleset([])
    assert _firewall.outgoing([], []) == []
    [one, two] = _firewall.outgoing([{"port": 5432, "to": ["10.0.0.1"]}], [{"port": 443, "to": ["any"]}]) or []
    assert (one.port, two.port, two.sources) == (5432, 443, ())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["any", {"port": 1, "to": ["any"]}], "firewall_outgoing: any says everything"),
        (["everything"], "firewall_outgoing[0] is 'everything', expected keys port, protocol, to, why"),
        ([{"port": 25, "sources": ["any"]}], "firewall_outgoing[0]: there is no key sources. Keys: port, protocol, to, why"),
        ([{"port": 25, "to": ["mail.example.com"]}], "firewall_outgoing[0].to: 'mail.example.com' is no address and no network"),
        ([{"port": 25, "to": []}], "firewall_outgoing[0].to is [], expected a list of networks"),
    ],
)
def test_a_mistake_in_what_may_leave_is_named(entries: list[Any], message: str) -> None:
    with pytest.raises(FirewallError) as raised:
        _firewall.outgoing([], entries)
    assert message in str(raised.value)


def test_what_leaves_is_asked_by_port_and_destination_there() -> None:
    text = _firewall.ruleset([], _firewall.outgoing([], [{"port": 587, "to": ["192.0.2.25", "2001:db8::/64"], "why": "mail"}]))
    assert 'ip daddr { 192.0.2.25 } meta l4proto tcp th dport 587 accept comment "mail"' in text
    assert 'ip6 daddr { 2001:db8::/64 } meta l4proto tcp th dport 587 accept comment "mail"' in text
    assert 'iifname "br-*" goto leave' in text and 'iifname "br-*" accept' not in text
