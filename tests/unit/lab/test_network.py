# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_lab import network
from berth_lab.run import LabError

POOL = IPv4Network("10.213.0.0/16")
# Recorded: a default route, eth0, Docker's bridge, one lab.
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
br-6652ea71ff0b\t0000D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_routes() -> None:
    assert [str(route) for route in network.routes(ROUTES)] == ["0.0.0.0/0", "172.17.0.0/16", "10.213.0.0/24", "192.0.2.0/24"]


def test_default_route_takes_nothing() -> None:
    assert network.free_subnet(POOL, network.routes(ROUTES)) == IPv4Network("10.213.1.0/24")


@given(st.sets(st.integers(0, 255), max_size=255))
def test_free_subnet_overlaps_nothing(taken: set[int]) -> None:
    networks = [IPv4Network(f"10.213.{number}.0/24") for number in taken]
    subnet = network.free_subnet(POOL, networks)
    assert subnet.subnet_of(POOL)
    assert not any(subnet.overlaps(other) for other in networks)


def test_full_pool_says_what_to_type() -> None:
    with pytest.raises(LabError) as refusal:
        network.free_subnet(POOL, [IPv4Network("10.0.0.0/8")])
    assert "-e lab_network_pool=" in str(refusal.value)


def test_addresses_in_order() -> None:
    assert network.assign(["vm1", "vm2"], {}, IPv4Network("10.213.4.0/24")) == {"vm1": "10.213.4.11", "vm2": "10.213.4.12"}


def test_existing_hosts_keep_their_addresses() -> None:
    known = {"vm2": "10.213.4.11", "gone": "10.213.4.13"}
    assert network.assign(["vm1", "vm2", "vm3"], known, IPv4Network("10.213.4.0/24")) == {
        "vm1": "10.213.4.12",
        "vm2": "10.213.4.11",
        "vm3": "10.213.4.14",
    }


def test_address_of_another_subnet_is_not_kept() -> None:
    assert network.assign(["vm1"], {"vm1": "10.213.5.11"}, IPv4Network("10.213.4.0/24")) == {"vm1": "10.213.4.11"}


def test_too_many_hosts() -> None:
    with pytest.raises(LabError, match="no address left"):
        network.assign([f"vm{number}" for number in range(250)], {}, IPv4Network("10.213.4.0/24"))


def test_nameservers_behind_a_stub() -> None:
    stub = "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0\n"
    assert network.nameservers([stub, "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example\n"]) == ["192.0.2.53", "2001:db8::53"]


def test_nameservers_of_the_first_file_that_names_some() -> None:
    assert network.nameservers(["nameserver 192.0.2.1\nnameserver 127.0.0.1\n", "nameserver 192.0.2.2\n"]) == ["192.0.2.1"]


def test_link_local_nameserver_is_of_no_use() -> None:
    assert network.nameservers(["nameserver fe80::1%eth0\nnameserver ::1\nnameserver\n"]) == []
