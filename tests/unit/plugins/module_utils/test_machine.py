# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a host: recorded files of a lab VM, and of kernels that write them differently."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _apt, _machine

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00007F:9EAD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 492082 1 000000001660ef15 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 496324 1 000000003cc28e91 100 0 0 10 0
   3: 0B08D50A:0016 0108D50A:8062 01 00000000:00000000 02:000AFC38 00000000     0        0 858434 3 0000000042a789ad 20 4 18 22 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 496332 1 0
   1: 0000000000000000FFFF00000B08D50A:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 496333 1 0
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_os_release_with_and_without_quotes(tmp_path: Path) -> None:
    text = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nID=debian\nHOME_URL="https://x/"\n'
    assert _machine.operating_system(write(tmp_path, {"etc/os-release": text})) == {
        "id": "debian",
        "version_id": "13",
        "codename": "trixie",
        "pretty_name": "Debian GNU/Linux 13 (trixie)",
    }


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({}, 24105),
        ({"sys/fs/cgroup/memory.max": "max\n"}, 24105),
        ({"sys/fs/cgroup/memory.max": "6442450944\n"}, 6144),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "6442450944\n"}, 6144),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 24105),
    ],
)
def test_memory_is_what_the_control_group_allows(tmp_path: Path, files: dict[str, str], usable: int) -> None:
    root = write(tmp_path, {"proc/meminfo": "MemTotal:       24683520 kB\nMemFree: 1 kB\n", **files})
    assert _machine.memory(root) == {"memory_mb": usable, "memory_total_mb": 24105}


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_processors_are_what_the_quota_allows(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    root = write(tmp_path, {"proc/cpuinfo": "processor : 0\nflags\t\t: sse2 popcnt aes\n", **files})
    assert _machine.processors(root, 8) == {"cpus": cpus, "cpu_flags": ["aes", "popcnt", "sse2"]}


@pytest.mark.parametrize(
    ("device", "vendor", "rotational", "kind"),
    [
        ("vda", "0x1af4", "1", "ssd"),
        ("sda", "ATA", "1", "hdd"),
        ("sda", "ATA", "0", "ssd"),
        ("sda", "QEMU", "1", "ssd"),
        ("sda", "VMware", "1", "ssd"),
        ("nvme0n1", "", "0", "nvme"),
        ("dm-0", "", "1", "hdd"),
    ],
)
@pytest.mark.parametrize("partition", [False, True])
def test_only_a_physical_disk_is_believed_to_rotate(
    tmp_path: Path, device: str, vendor: str, rotational: str, kind: str, partition: bool
) -> None:
    base = tmp_path / "sys/devices" / device
    write(tmp_path, {f"sys/devices/{device}/queue/rotational": f"{rotational}\n", f"sys/devices/{device}/device/vendor": f"{vendor}  \n"})
    target = base / f"{device}1" if partition else base
    target.mkdir(exist_ok=True)
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/8:1").symlink_to(target)
    assert _machine.disk_kind(tmp_path, 8, 1) == kind


def test_an_overlay_has_no_disk(tmp_path: Path) -> None:
    assert _machine.disk_kind(tmp_path, 0, 226) == "ssd"


def test_mounts_with_escaped_names_and_optional_fields(tmp_path: Path) -> None:
    text = (
        "672 525 0:226 / / rw,relatime master:10 - overlay overlay rw,lowerdir=/x\n"
        "728 672 254:0 /v /var/lib/my\\040data rw,relatime - ext4 /dev/vda rw\n"
    )
    root = write(tmp_path, {"proc/self/mountinfo": text})
    assert _machine.mounts(root) == [("/", "overlay", "0:226"), ("/var/lib/my data", "ext4", "254:0")]


def test_a_directory_that_does_not_exist_yet_has_its_parents_disk(tmp_path: Path) -> None:
    text = f"1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:1 / {tmp_path} rw - xfs /dev/vdb rw\n"
    root = write(tmp_path, {"proc/self/mountinfo": text})
    described = _machine.disk(root, f"{tmp_path}/a/b/c")
    assert (described["mount"], described["filesystem"]) == (str(tmp_path), "xfs")
    assert described["size_mb"] >= described["free_mb"] > 0
    assert _machine.disk(root, f"{tmp_path}x/y")["mount"] == "/"


def test_listening_sockets_of_both_families(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/net/tcp": TCP, "proc/net/tcp6": TCP6})
    assert [(item["port"], item["address"]) for item in _machine.listeners(root)] == [
        (22, "0.0.0.0"),  # noqa: S104, read and not bound
        (22, "::"),
        (443, "10.213.8.11"),
        (40621, "127.0.0.11"),
    ]


def test_the_process_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = _machine.ports(Path("/"), {port}, [])
        assert (found["pid"], found["address"]) == (os.getpid(), "127.0.0.1")
        assert found["process"]
        assert not found["ours"]


CONTAINERS = [
    {
        "Names": ["/traefik-traefik-1"],
        "Labels": {"berth.managed": "true"},
        "Ports": [{"PrivatePort": 8443, "PublicPort": 443, "Type": "tcp"}],
    },
    {
        "Names": ["/web"],
        "Labels": None,
        "Ports": [{"PublicPort": 80, "Type": "tcp"}, {"PublicPort": 443, "Type": "udp"}, {"PrivatePort": 1}],
    },
    {"Names": None, "Labels": {}, "Ports": None},
]


def test_published_ports_name_their_container() -> None:
    assert _machine.published(CONTAINERS) == {
        443: {"container": "traefik-traefik-1", "ours": True},
        80: {"container": "web", "ours": False},
    }


@pytest.mark.parametrize(("process", "ours"), [("dockerd", True), ("docker-proxy", True), ("nginx", False)])
def test_only_what_docker_holds_is_a_containers(tmp_path: Path, process: str, ours: bool) -> None:
    """A process that listens on 443 of another address is not excused by our container."""
    root = write(tmp_path, {"proc/net/tcp6": TCP6, "proc/77/comm": f"{process}\n"})
    (root / "proc/77/fd").mkdir()
    (root / "proc/77/fd/3").symlink_to("socket:[496333]")
    (found,) = _machine.ports(root, {443}, CONTAINERS)
    assert (found["process"], found["pid"], found["ours"]) == (process, 77, ours)


def test_peers_are_tried_together() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        wanted = [
            {"name": "a", "address": "127.0.0.1", "port": server.getsockname()[1]},
            {"name": "b", "address": "127.0.0.1", "port": closed.getsockname()[1]},
            {"name": "c", "address": "no-such-host.invalid", "port": 1},
        ]
        assert [peer["state"] for peer in _machine.peers(wanted, 2)] == ["open", "refused", "the name does not resolve"]


def test_a_silent_peer_costs_no_more_than_the_time_given() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # A full queue drops further requests for a connection, as a firewall does.
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        (peer,) = _machine.peers([{"name": "a", "address": "127.0.0.1", "port": server.getsockname()[1]}], 0.2)
    assert peer["state"] == "no answer within 0.2 s"


def test_asking_for_the_clock_changes_nothing_and_answers() -> None:
    assert _machine.clock_synchronized() in {True, False, None}


# -- packages

STATUS = """\
Package: docker.io
Status: install ok installed
Priority: optional
Version: 26.1.5+dfsg1-9+b7
Description: Linux container runtime
 Package: fake
 Status: install ok installed

Package: docker-compose
Status: deinstall ok config-files
Version: 2.26.1-4

Package: chrony
Status: install ok half-configured
Version: 4.6

Package: tzdata
Status: hold ok installed
Version: 2025b-4
"""


def test_only_what_is_installed_and_configured_counts(tmp_path: Path) -> None:
    root = write(tmp_path, {"var/lib/dpkg/status": STATUS})
    names = ["docker.io", "docker-compose", "chrony", "tzdata", "docker", "fake"]
    assert _apt.installed(root, names) == {"docker.io": "26.1.5+dfsg1-9+b7", "tzdata": "2025b-4"}
    assert _apt.installed(tmp_path / "none", names) == {}


def test_a_failing_apt_is_told_in_its_own_words() -> None:
    calls = []

    def run(argv: list[str], **options: object) -> tuple[int, str, str]:
        calls.append(argv)
        return (100, "", "E: Unable to locate package nope") if "install" in argv else (0, "", "")

    with pytest.raises(_apt.AptError, match="Unable to locate package nope"):
        _apt.install(run, ["nope"])
    assert calls[-1][-2:] == ["--", "nope"]


def test_whether_an_etcd_member_lives_here(tmp_path: Path) -> None:
    data, settings = tmp_path / "etcd", tmp_path / "etcd.yml"
    assert _machine.etcd(str(data), str(settings)) == ""
    (data / "data/member").mkdir(parents=True)
    assert _machine.etcd(str(data), str(settings)) == "member"
    settings.write_text("name: db2\ninitial-cluster-state: existing\n")
    assert _machine.etcd(str(data), str(settings)) == "joining"
    settings.write_text("name: db2\ninitial-cluster-state: new\n")
    assert _machine.etcd(str(data), str(settings)) == "member"


def container(project: str, status: str) -> dict[str, object]:
    return {"Labels": {"com.docker.compose.project": project}, "Status": status}


def test_what_the_database_of_this_host_is(tmp_path: Path) -> None:
    well = [container("etcd", "Up 2 hours (healthy)"), container("postgresql", "Up 2 hours (healthy)")]
    ill = [
        container("postgresql", "Up 2 hours (unhealthy)"),
        container("etcd", "Restarting (1) 3 seconds ago"),
        {"Labels": None, "Status": None},
    ]
    assert _machine.healthy("etcd", well)
    assert not _machine.healthy("etcd", ill)
    assert _machine.postgresql(str(tmp_path), well) == "blank"
    (tmp_path / "17").mkdir()
    (tmp_path / "17/PG_VERSION").write_text("17\n")
    assert _machine.postgresql(str(tmp_path), well) == "leader"
    (tmp_path / "17/standby.signal").touch()
    assert _machine.postgresql(str(tmp_path), well) == "standby"
    assert _machine.postgresql(str(tmp_path), ill) == ""


def test_who_was_drained(tmp_path: Path) -> None:
    assert _machine.drained(str(tmp_path)) == {}
    file = tmp_path / "traefik/config/drained.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"app2": "2026-11-25T02:00:00Z"}')
    assert _machine.drained(str(tmp_path)) == {"app2": "2026-11-25T02:00:00Z"}
    file.write_text("[")
    with pytest.raises(ValueError, match=r"drained\.json is damaged: remove it"):
        _machine.drained(str(tmp_path))


def test_instances_are_the_projects_of_the_role_odoo(tmp_path: Path) -> None:
    for name in ("odoo-shop", "odoo-main", "redis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".berth.json").write_text("{}")
    (tmp_path / "odoo-by-hand").mkdir()
    assert _machine.instances(str(tmp_path)) == ["main", "shop"]
    assert _machine.instances(str(tmp_path / "nothing")) == []


FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
           |-- 10.213.4.0
              /24 link UNICAST
           |-- 10.213.4.11
              /32 host LOCAL
           |-- 10.213.4.255
              /32 link BROADCAST
"""
ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0104D50A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0004D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_what_a_floating_address_is_to_a_host(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/net/fib_trie": FIB_TRIE, "proc/net/route": ROUTE, "etc/keepalived/drained": "2026-11-25T02:00:00Z\n"})
    assert _machine.floating(root, "10.213.4.250", "10.213.4.11") == {
        "address": "10.213.4.250",
        "held": False,
        "drained": "2026-11-25T02:00:00Z",
        "interface": "eth0",
        "own_interface": "eth0",
        "claimed_by": "",
    }
    assert _machine.floating(root, "10.213.4.11", "10.213.4.11")["held"]
    # Behind a router is not in the network.
    assert _machine.floating(root, "10.213.5.250", "10.213.4.11")["interface"] == ""


def test_nobody_claims_an_address_of_the_loopback() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, as raw sockets do")
    assert _machine.claimed_by("lo", "192.0.2.1", 0.1) == ""


def test_huge_pages_that_are_wanted_and_kept(tmp_path: Path) -> None:
    assert _machine.huge_pages(tmp_path) == {"wanted": 0, "reserved": 0}
    for name, text in (
        ("etc/sysctl.d/80-berth.conf", "vm.dirty_bytes = 7\nvm.nr_hugepages = 1104\n"),
        ("proc/sys/vm/nr_hugepages", "812\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert _machine.huge_pages(tmp_path) == {"wanted": 1104, "reserved": 812}


def test_a_container_does_not_have_the_watchdog_that_it_sees(tmp_path: Path) -> None:
    first = tmp_path / "sys/class/watchdog/watchdog0"
    first.mkdir(parents=True)
    for name, text in (("state", "active\n"), ("identity", "Software Watchdog\n"), ("timeout", "25\n")):
        (first / name).write_text(text, encoding="ascii")
    assert _machine.watchdog(tmp_path) == {"there": False, "active": False, "identity": "", "timeout": 0}
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/watchdog").touch()
    assert _machine.watchdog(tmp_path) == {"there": True, "active": True, "identity": "Software Watchdog", "timeout": 25}


def test_who_holds_a_device_is_found_by_its_number() -> None:
    null = os.stat("/dev/null").st_rdev
    with open("/dev/null", "wb"):
        assert _machine.holds([os.getpid()], null)
    assert not _machine.holds([os.getpid()], _machine.WATCHDOG)
    assert not _machine.holds([2**22 + 1], null)
