# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a Linux host has, from /proc, /sys and a few files; no commands, so that it takes milliseconds.

Each reader takes the root of the file tree, so that tests can give it a recorded one.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import json
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VIRTUAL_VENDORS = ("QEMU", "VMware", "Msft", "Virtual", "VBOX", "Xen")


def read(path: Path) -> str:
    """Return a file's text, empty when it does not exist or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def operating_system(root: Path) -> dict[str, str]:
    """Return id, version_id, pretty_name and codename of os-release."""
    values = dict(re.findall(r'^([A-Z_]+)="?(.*?)"?$', read(root / "etc/os-release"), re.MULTILINE))
    return {
        "id": values.get("ID", ""),
        "version_id": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
        "pretty_name": values.get("PRETTY_NAME", ""),
    }


def memory(root: Path) -> dict[str, int]:
    """Return memory in MB: what may be used, and what /proc/meminfo says.

    Inside a system container meminfo shows the outer machine; the cgroup's limit is what counts there.
    """
    found = re.search(r"^MemTotal:\s+(\d+) kB", read(root / "proc/meminfo"), re.MULTILINE)
    total = int(found.group(1)) // 1024 if found else 0
    usable = total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = read(root / "sys/fs/cgroup" / name).strip()
        if limit.isdigit():
            usable = min(usable, int(limit) >> 20)
    return {"memory_mb": usable, "memory_total_mb": total}


def huge_pages(root: Path) -> dict[str, int]:
    """Return how many huge pages the role C(host) wants at each boot, 0 where it wants none, and how many the kernel keeps."""
    wanted = re.search(r"^vm\.nr_hugepages = (\d+)$", read(root / "etc/sysctl.d/80-berth.conf"), re.MULTILINE)
    return {"wanted": int(wanted[1]) if wanted else 0, "reserved": int(read(root / "proc/sys/vm/nr_hugepages").strip() or 0)}


WATCHDOG = os.makedev(10, 130)
"""The device C(/dev/watchdog), the first watchdog of a kernel by whatever name."""


def watchdog(root: Path) -> dict[str, Any]:
    """Return whether the kernel of this host has a watchdog, what it is, and whether somebody holds it."""
    first = root / "sys/class/watchdog/watchdog0"
    there = (root / "dev/watchdog").exists()
    return {
        # A container sees those of the kernel below, and has no such device.
        "there": there,
        "active": there and read(first / "state").strip() == "active",
        "identity": read(first / "identity").strip() if there else "",
        "timeout": int(read(first / "timeout").strip() or 0) if there else 0,
    }


def holds(processes: Iterable[int], device: int) -> bool:
    """Return whether one of some processes has a device open, whatever its name is where they see it."""
    for process in processes:
        for descriptor in Path("/proc", str(process), "fd").glob("*"):
            try:
                if descriptor.stat().st_rdev == device:
                    return True
            except OSError:  # closed, or gone, meanwhile
                continue
    return False


def processors(root: Path, affinity: int) -> dict[str, Any]:
    """Return how many processors may be used, rounded up where a quota allows a part of one, and their flags."""
    cpus = affinity
    quota = read(root / "sys/fs/cgroup/cpu.max").split()
    if not quota:
        quota = [read(root / "sys/fs/cgroup/cpu" / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[0]) > 0:
        cpus = min(cpus, -(-int(quota[0]) // int(quota[1])))
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", read(root / "proc/cpuinfo"), re.MULTILINE)
    return {"cpus": max(1, cpus), "cpu_flags": sorted(flags.group(1).split()) if flags else []}


def disk_kind(root: Path, major: int, minor: int) -> str:
    """Return hdd, ssd or nvme for a block device, ssd when it cannot be known.

    Hypervisors call virtual disks rotating whatever lies below, so only a physical device is believed.
    """
    link = root / f"sys/dev/block/{major}:{minor}"
    if not link.exists():
        return "ssd"
    device = Path(os.path.realpath(link))
    if not (device / "queue").exists():  # a partition: its disk is one level up
        device = device.parent
    name = device.name
    if name.startswith("nvme"):
        return "nvme"
    vendor = read(device / "device/vendor").strip()
    virtual = name.startswith(("vd", "xvd")) or vendor.startswith(VIRTUAL_VENDORS)
    return "hdd" if read(device / "queue/rotational").strip() == "1" and not virtual else "ssd"


def mounts(root: Path) -> list[tuple[str, str, str]]:
    """Return (mount point, file system, device number as major:minor), the last mount of a point winning."""
    found = {}
    for line in read(root / "proc/self/mountinfo").splitlines():
        before, _separator, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and after:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
            found[point] = (point, after.split()[0], fields[2])
    return list(found.values())


def disk(root: Path, path: str) -> dict[str, Any]:
    """Describe the file system that holds *path*, or that would hold it once it is made."""
    existing = Path(path)
    while not existing.exists():
        existing = existing.parent
    space = os.statvfs(existing)
    number = existing.stat().st_dev
    major, minor = os.major(number), os.minor(number)
    real = os.path.realpath(existing)
    inside = [mount for mount in mounts(root) if real == mount[0] or real.startswith(mount[0].rstrip("/") + "/")]
    point, kind, _device = max(inside, key=lambda mount: len(mount[0]), default=("/", "", ""))
    return {
        "path": path,
        "mount": point,
        "filesystem": kind,
        "device": f"{major}:{minor}",
        "kind": disk_kind(root, major, minor),
        "size_mb": space.f_blocks * space.f_frsize >> 20,
        "free_mb": space.f_bavail * space.f_frsize >> 20,
        "free_inodes": space.f_favail,
    }


def address(text: str) -> str:
    """Decode an address of /proc/net/tcp or tcp6 (hexadecimal words in host order, which is little endian here)."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 16 and raw[:12] == bytes(10) + b"\xff\xff":
        raw = raw[12:]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def listeners(root: Path) -> list[dict[str, Any]]:
    """Return the listening TCP sockets: port, address, inode."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in read(root / "proc/net" / name).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == "0A":
                host, _separator, port = fields[1].partition(":")
                found.append({"port": int(port, 16), "address": address(host), "inode": fields[9]})
    return sorted(found, key=lambda item: (item["port"], item["address"]))


def holders(root: Path, inodes: set[str]) -> dict[str, tuple[int, str]]:
    """Find the process of each socket: inode to (pid, name). Needs root for other users' processes."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, tuple[int, str]] = {}
    for process in (root / "proc").glob("[0-9]*"):
        if len(found) == len(wanted):
            break
        try:
            links = [os.readlink(entry.path) for entry in os.scandir(process / "fd")]
        except OSError:  # it ended meanwhile
            continue
        for link in links:
            if link in wanted:
                found[wanted[link]] = (int(process.name), read(process / "comm").strip())
    return found


def published(containers: Any) -> dict[int, dict[str, Any]]:
    """Return host port to the container that publishes it, and whether it is one of ours."""
    found = {}
    for container in containers or []:
        for port in container.get("Ports") or []:
            if port.get("PublicPort") and port.get("Type") == "tcp":
                found[port["PublicPort"]] = {
                    "container": (container.get("Names") or ["?"])[0].lstrip("/"),
                    "ours": (container.get("Labels") or {}).get("berth.managed") == "true",
                }
    return found


def ports(root: Path, wanted: set[int], containers: Any) -> list[dict[str, Any]]:
    """Return who listens on the *wanted* ports: address, process, container, and whether it is ours."""
    sockets = [item for item in listeners(root) if item["port"] in wanted]
    processes = holders(root, {item["inode"] for item in sockets}) if sockets else {}
    by_port = published(containers)
    found = []
    for item in sockets:
        pid, process = processes.get(item["inode"], (None, ""))
        # A port that Docker publishes is held by docker-proxy, or by dockerd itself without the userland proxy.
        container = by_port.get(item["port"]) if process in {"", "docker-proxy", "dockerd"} else None
        found.append(
            {
                "port": item["port"],
                "address": item["address"],
                "pid": pid,
                "process": process,
                "container": container["container"] if container else "",
                "ours": bool(container and container["ours"]),
            }
        )
    return found


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2); only the size matters here, and ``modes`` = 0, which changes nothing."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_char * 256))


def clock_synchronized() -> bool | None:
    """Ask the kernel whether something disciplines its clock; nothing when it may not be asked."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(_Timex()))
    except (OSError, AttributeError):
        return None
    time_error = 5
    return None if state < 0 else state != time_error


def peers(wanted: list[dict[str, Any]], timeout_s: float) -> list[dict[str, Any]]:
    """Try to connect to all peers at once.

    :param wanted: name, address and port of each.
    :returns: the same with ``state``: ``open``, ``refused`` (the way is open, nothing listens), or what went wrong.
    """
    found = []
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for peer in wanted:
            result = {**peer, "state": f"no answer within {timeout_s:g} s"}
            found.append(result)
            try:
                family, kind, _protocol, _name, where = socket.getaddrinfo(peer["address"], peer["port"], type=socket.SOCK_STREAM)[0]
            except OSError:
                result["state"] = "the name does not resolve"
                continue
            client = socket.socket(family, kind)
            client.setblocking(False)
            code = client.connect_ex(where)
            if code in {0, errno.EINPROGRESS}:
                selector.register(client, selectors.EVENT_WRITE, (client, result))
            else:
                result["state"] = _connect_state(code)
                client.close()
        while selector.get_map():
            left = deadline - time.monotonic()
            # After the deadline once more: this machine may have stood still, and not the peer.
            for key, _events in selector.select(max(0, left)):
                client, result = key.data
                result["state"] = _connect_state(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                selector.unregister(client)
                client.close()
            if left <= 0:
                break
        for key in list(selector.get_map().values()):
            key.data[0].close()
    return found


def _connect_state(code: int) -> str:
    return {0: "open", errno.ECONNREFUSED: "refused"}.get(code) or os.strerror(code).lower()


def local_addresses(root: Path) -> set[str]:
    """Return the host's own IPv4 addresses, as the kernel's routing table knows them."""
    return set(re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", read(root / "proc/net/fib_trie")))


def interface_to(root: Path, text: str) -> str:
    """Return the interface that has an IPv4 address in its own network, without a router between; nothing where none has."""
    wanted = int(ipaddress.IPv4Address(text))
    found = [(0, "")]
    for line in read(root / "proc/net/route").splitlines()[1:]:
        fields = line.split()
        # Hexadecimal words in host order, which is little endian here.
        network, router, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 2, 7))
        if mask and not router and wanted & mask == network:
            found.append((mask, fields[0]))
    return max(found)[1]


EDGE_CHECK = "/etc/keepalived/berth-check"
"""What the role C(keepalived) puts on an edge."""

DRAINED_EDGE = "/etc/keepalived/drained"
"""On an edge that shall not have the floating address: since when."""


PROBES = 3
"""Questions after an address that nobody answers (RFC 5227, PROBE_NUM)."""


def claimed_by(interface: str, text: str, seconds: float = 0.5) -> str:
    """Ask on an interface who has an IPv4 address, as one does before one takes it (RFC 5227), and return the hardware's address; nothing where nobody says so.

    Args:
        interface: The network interface.
        text: The address.
        seconds: To wait for an answer to each question.

    Raises:
        OSError: The interface is not there, or the caller is not root.
    """
    arp = 0x0806
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(arp)) as wire:  # type: ignore[attr-defined, unused-ignore]
        wire.bind((interface, arp))
        own, wanted = wire.getsockname()[4], socket.inet_aton(text)
        question = struct.pack("!6s6sHHHBBH6s4s6s4s", b"\xff" * 6, own, arp, 1, 0x0800, 6, 4, 1, own, bytes(4), bytes(6), wanted)
        for _probe in range(PROBES):
            wire.send(question)
            deadline = time.monotonic() + seconds
            while True:
                # After the deadline what has arrived meanwhile: this machine may have stood still.
                wire.settimeout(max(deadline - time.monotonic(), 0.001))
                try:
                    answer = wire.recv(128)
                except TimeoutError:
                    break
                if answer[20:22] == b"\x00\x02" and answer[28:32] == wanted:
                    return answer[22:28].hex(":")
    return ""


def floating(root: Path, text: str, own: str, *, ask: bool = False) -> dict[str, Any]:
    """Return what a floating address is to this host: ``address``, ``held``, ``drained``, since when it shall not have it, ``interface``, on which it would be,
    ``own_interface``, of its own address, and ``claimed_by``, the hardware of whoever else has it.

    Args:
        root: Of the file tree.
        text: The address.
        own: Address of this host at which the others know it.
        ask: Ask on the wire.
    """
    held, interface = text in local_addresses(root), interface_to(root, text)
    return {
        "address": text,
        "held": held,
        "drained": read(root / DRAINED_EDGE.lstrip("/")).strip(),
        "interface": interface,
        "own_interface": interface_to(root, own),
        "claimed_by": claimed_by(interface, text) if ask and interface and not held else "",
    }


def instances(base_dir: str) -> list[str]:
    """Return the Odoo instances that the role C(odoo) has put on this host, whether they run or not."""
    return sorted(path.parent.name.removeprefix("odoo-") for path in Path(base_dir).glob("odoo-*/.berth.json"))


def etcd(data_dir: str, settings: str) -> str:
    """Return whether an etcd member has its data here: ``member``, ``joining`` while it may still lack a vote, or nothing.

    Args:
        data_dir: Directory of the role's data.
        settings: The configuration of the member. It says "existing" only while the member joins.
    """
    if not Path(data_dir, "data", "member").is_dir():
        return ""
    return "joining" if "initial-cluster-state: existing" in read(Path(settings)) else "member"


def redis(data_dir: str, base_dir: str) -> dict[str, Any]:
    """Return what the Redis of this host has.

    C(deployed), whether it is there; C(data), which stay when it is removed; and where there are several C(primary), who that is, C(epoch), how often that
    has changed, and C(first), whom it was told to follow at first, which one that is alone does not have.

    Args:
        base_dir: Directory that holds the projects.
        data_dir: Directory of the role's data. The Sentinel beside it writes down in its own what is decided.
    """
    decided = read(Path(f"{data_dir}-sentinel", "sentinel.conf"))
    primary = re.search(r"^sentinel monitor berth (\S+)-redis ", decided, re.MULTILINE)
    epoch = re.search(r"^sentinel config-epoch berth (\d+)", decided, re.MULTILINE)
    return {
        "deployed": Path(base_dir, "redis", ".berth.json").is_file(),
        "data": Path(data_dir, "appendonlydir").is_dir(),
        "primary": primary[1] if primary else "",
        "epoch": int(epoch[1]) if epoch else 0,
        "first": read(Path(base_dir, "redis", "config", "first")).strip().removesuffix("-redis"),
    }


def drained(base_dir: str) -> dict[str, str]:
    """Return the application hosts that the edge on this host leaves out, and since when; empty where there is no edge.

    Args:
        base_dir: Directory that holds the projects. The role ``traefik`` keeps the list with the configuration that follows from it.

    Raises:
        ValueError: The list cannot be read. Taken for an empty one, it would send requests to a host that was taken out.
    """
    path = Path(base_dir, "traefik", "config", "drained.json")
    text = read(path)
    try:
        found = json.loads(text or "{}")
        return {str(name): str(since) for name, since in found.items()}
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is damaged: remove it, and drain again what shall be drained") from None


def healthy(project: str, containers: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a container of a Compose project runs and its health check says that it is well.

    Args:
        project: Name of the project.
        containers: Answer of ``GET /containers/json``.
    """
    return any(
        (entry.get("Labels") or {}).get("com.docker.compose.project") == project and "(healthy)" in (entry.get("Status") or "")
        for entry in containers
    )


def postgresql(data_dir: str, containers: Iterable[Mapping[str, Any]]) -> str:
    """Return what the PostgreSQL of this host is: ``leader``, ``standby``, ``blank`` without data, or nothing where it has data and is not well.

    Args:
        data_dir: Directory of the role's data, with a directory for each version.
        containers: Answer of ``GET /containers/json``.
    """
    versions = [found.parent for found in Path(data_dir).glob("*/PG_VERSION")]
    if not versions:
        return "blank"
    if not healthy("postgresql", containers):
        return ""
    return "standby" if any((version / "standby.signal").exists() for version in versions) else "leader"
