# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outer Docker Engine: find it, start it when we may, stop it again when we were the ones who started it."""

from __future__ import annotations

import grp
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from .run import CommandError, LabError, run

START_TIMEOUT = 180  # seconds until a dockerd that we started must answer
SYSTEMD_RUNNING = Path("/run/systemd/system")  # exists when systemd is PID 1, see sd_booted(3)
SOCKET = Path("/var/run/docker.sock")


def engine_info() -> dict[str, Any] | None:
    """Return what the engine says about itself (`docker info`), None when none answers."""
    try:
        info = json.loads(run(["docker", "info", "--format", "{{json .}}"], timeout=120))
    except (CommandError, ValueError):
        return None
    return None if info.get("ServerErrors") or not info.get("ServerVersion") else info


def ensure_engine(cache: Path) -> tuple[dict[str, Any], bool]:
    """Find a usable engine; start one when none answers and we are allowed to.

    Args:
        cache: directory for the log and the record of an engine that we start (``.cache/lab``).

    Returns:
        What the engine says about itself, and whether it was started now.

    Raises:
        LabError: no engine and no permission to start one, or an engine that cannot carry labs.
    """
    info = engine_info()
    started = info is None
    if info is None:
        refuse_unless_startable(
            docker_installed=shutil.which("docker") is not None,
            dockerd_installed=_dockerd() is not None,
            is_root=os.geteuid() == 0,
            socket_exists=SOCKET.exists(),
            in_docker_group=_in_docker_group(),
            docker_host=os.environ.get("DOCKER_HOST", ""),
        )
        _start(cache)
        info = engine_info()
        if info is None:
            raise LabError("The Docker Engine was started but `docker info` still fails. Type `docker info` to see why.")
    refuse_unsuitable(info, os.environ.get("DOCKER_HOST", ""))
    return info, started


def refuse_unless_startable(
    *,
    docker_installed: bool,
    dockerd_installed: bool,
    is_root: bool,
    socket_exists: bool,
    in_docker_group: bool,
    docker_host: str,
) -> None:
    """Say what is missing when no engine answers and this process may not start one.

    Raises:
        LabError: with the command that solves it.
    """
    if docker_host:
        raise LabError(
            f"No Docker Engine answers at DOCKER_HOST={docker_host}. Start that engine, or type `unset DOCKER_HOST` to use the local one."
        )
    if not docker_installed or not dockerd_installed:
        missing = "the docker command" if not docker_installed else "dockerd"
        raise LabError(
            f"No Docker Engine answers and {missing} is not installed. The lab needs Docker Engine 20.10 or newer.\n"
            "On Debian or Ubuntu type: sudo apt-get install docker.io"
        )
    if is_root:
        return
    if socket_exists and not in_docker_group:
        raise LabError(
            f"This user may not use the Docker Engine: {SOCKET} exists but `docker info` is refused.\n"
            "Type: sudo usermod -aG docker $USER   (then log out and in, or `newgrp docker`)"
        )
    raise LabError("No Docker Engine answers and only root can start one.\nType: sudo systemctl start docker   (or: sudo dockerd)")


def refuse_unsuitable(info: dict[str, Any], docker_host: str) -> None:
    """Refuse engines whose containers cannot be lab VMs.

    Raises:
        LabError: remote, rootless or desktop engines, and operating systems other than Linux.
    """
    found = ""
    if docker_host and not docker_host.startswith("unix://"):
        found = f"a remote engine (DOCKER_HOST={docker_host}), whose containers have no address here"
    elif any("rootless" in option for option in info.get("SecurityOptions") or []):
        found = "a rootless engine, which cannot run another Docker Engine with real limits inside"
    elif info.get("OSType") != "linux" or "Docker Desktop" in str(info.get("OperatingSystem", "")):
        found = f"{info.get('OperatingSystem') or info.get('OSType')}, whose containers have no address here"
    if found:
        raise LabError(f"The lab needs a local Docker Engine on Linux that runs as root. Found {found}.")


def stop_engine(cache: Path) -> bool:
    """Stop the engine if the record in ``cache`` says that we started it, and remove the record.

    Returns:
        True when an engine was stopped.

    Raises:
        LabError: it did not end in time.
    """
    record = cache / "dockerd.json"
    if not record.exists():
        return False
    started = json.loads(record.read_text())
    stopped = False
    if started.get("unit"):
        run(["systemctl", "stop", "docker.socket", "docker.service"], timeout=120)
        stopped = True
    elif _start_time(started["pid"]) == started["start_time"]:
        os.kill(started["pid"], signal.SIGTERM)
        deadline = time.monotonic() + 60
        while _start_time(started["pid"]) == started["start_time"]:
            if time.monotonic() > deadline:
                raise LabError(f"dockerd (process {started['pid']}) did not end within 60 s of SIGTERM; see {cache / 'dockerd.log'}.")
            time.sleep(0.2)
        stopped = True
    record.unlink()
    return stopped


def bounding_capabilities(status: str, last: int) -> list[str]:
    """Names of the capabilities in the bounding set of a process.

    A container can never get more than its engine has, and Docker fails to start a ``--privileged`` container where one is missing
    ("unable to apply caps"). Granting exactly the set that exists gives the same machine on both kinds of host.

    Args:
        status: content of ``/proc/<pid>/status``.
        last: content of ``/proc/sys/kernel/cap_last_cap``, the highest number this kernel knows.

    Returns:
        Names as ``docker --cap-add`` takes them ("SYS_ADMIN"), in the kernel's order.
    """
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    mask = int(line.split()[1], 16)
    return [name for number, name in enumerate(CAPABILITIES) if number <= last and mask >> number & 1]


def engine_capabilities(cache: Path) -> list[str]:
    """Names of the capabilities that containers of the running engine can get."""
    pids = [str(json.loads(file.read_text()).get("pid", "")) for file in [cache / "dockerd.json"] if file.exists()]
    pids += [file.read_text().strip() for file in [Path("/run/docker.pid")] if os.access(file, os.R_OK)]
    statuses = [Path("/proc", pid, "status") for pid in pids if pid.isdigit()] + [Path("/proc/self/status")]
    status = next(path for path in statuses if path.exists())
    return bounding_capabilities(status.read_text(), int(Path("/proc/sys/kernel/cap_last_cap").read_text()))


# Numbers 0..37 of linux/capability.h; the position is the number. The newer ones (PERFMON, BPF, CHECKPOINT_RESTORE) only split off
# parts of SYS_ADMIN, and Docker 20.10 refuses their names.
CAPABILITIES = tuple(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN "
    "NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ".split()
)


def _start(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    record = cache / "dockerd.json"
    if SYSTEMD_RUNNING.is_dir():
        run(["systemctl", "start", "docker.service"], timeout=START_TIMEOUT)
        record.write_text(json.dumps({"unit": "docker.service"}))
        return
    log = cache / "dockerd.log"
    with log.open("ab") as output:
        # Its own session: it must survive the playbook and the terminal that started it.
        process = subprocess.Popen(
            [str(_dockerd())], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd="/"
        )
    record.write_text(json.dumps({"pid": process.pid, "start_time": _start_time(process.pid)}))
    deadline = time.monotonic() + START_TIMEOUT
    while engine_info() is None:
        if process.poll() is not None or time.monotonic() > deadline:
            state = "is not answering" if process.poll() is None else f"ended with code {process.returncode}"
            if process.poll() is None:
                process.terminate()
            record.unlink()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise LabError(f"dockerd was started but {state}. Its last log lines ({log}):\n{tail}")
        time.sleep(0.3)


def _start_time(pid: int) -> int | None:
    """Start of a process in clock ticks since boot: with the number it names a process for good. None when it does not run."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _dockerd() -> str | None:
    return shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def _in_docker_group() -> bool:
    names = {group.gr_gid: group.gr_name for group in grp.getgrall()}
    return "docker" in {names.get(gid) for gid in os.getgroups()}
