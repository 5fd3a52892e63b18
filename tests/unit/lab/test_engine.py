# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from berth_lab import engine
from berth_lab.run import LabError

STARTABLE: dict[str, Any] = {
    "docker_installed": True,
    "dockerd_installed": True,
    "is_root": True,
    "socket_exists": False,
    "in_docker_group": False,
    "docker_host": "",
}


def test_root_may_start_an_installed_engine() -> None:
    engine.refuse_unless_startable(**STARTABLE)


@pytest.mark.parametrize(
    ("changes", "to_type"),
    [
        ({"dockerd_installed": False}, "sudo apt-get install docker.io"),
        ({"docker_installed": False}, "sudo apt-get install docker.io"),
        ({"is_root": False, "socket_exists": True}, "sudo usermod -aG docker $USER"),
        ({"is_root": False, "socket_exists": True, "in_docker_group": True}, "sudo systemctl start docker"),
        ({"is_root": False}, "sudo systemctl start docker"),
        ({"docker_host": "unix:///elsewhere"}, "unset DOCKER_HOST"),
    ],
)
def test_what_to_type_when_no_engine_answers(changes: dict[str, Any], to_type: str) -> None:
    with pytest.raises(LabError) as refusal:
        engine.refuse_unless_startable(**{**STARTABLE, **changes})
    assert to_type in str(refusal.value)


LINUX = {"OSType": "linux", "OperatingSystem": "Debian GNU/Linux 12", "SecurityOptions": ["name=seccomp,profile=default"]}


def test_local_engine_is_suitable() -> None:
    engine.refuse_unsuitable(LINUX, "")
    engine.refuse_unsuitable(LINUX, "unix:///run/docker.sock")


@pytest.mark.parametrize(
    ("info", "docker_host", "found"),
    [
        (LINUX, "ssh://elsewhere", "a remote engine (DOCKER_HOST=ssh://elsewhere)"),
        ({**LINUX, "SecurityOptions": ["name=rootless"]}, "", "a rootless engine"),
        ({**LINUX, "OperatingSystem": "Docker Desktop"}, "", "Found Docker Desktop"),
        ({"OSType": "windows"}, "", "Found windows"),
    ],
)
def test_unsuitable_engines(info: dict[str, Any], docker_host: str, found: str) -> None:
    with pytest.raises(LabError) as refusal:
        engine.refuse_unsuitable(info, docker_host)
    assert found in str(refusal.value)


def test_full_bounding_set() -> None:
    names = engine.bounding_capabilities("Name:\tdockerd\nCapBnd:\t000001ffffffffff\n", 40)
    assert names == list(engine.CAPABILITIES)
    assert names[21] == "SYS_ADMIN"
    assert names[37] == "AUDIT_READ"


def test_bounding_set_with_a_gap() -> None:
    """As on a machine where CAP_SYS_RESOURCE (24) is taken away."""
    names = engine.bounding_capabilities("CapBnd:\t000001fffeffffff\n", 40)
    assert set(engine.CAPABILITIES) - set(names) == {"SYS_RESOURCE"}


def test_kernel_that_knows_fewer() -> None:
    assert "AUDIT_READ" not in engine.bounding_capabilities("CapBnd:\t000001ffffffffff\n", 36)


@pytest.fixture
def sleeper() -> Any:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_stop_ends_the_engine_that_we_started(tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dockerd.json").write_text(json.dumps({"pid": sleeper.pid, "start_time": engine._start_time(sleeper.pid)}))
    assert engine.stop_engine(tmp_path)
    assert sleeper.wait(5) != 0
    assert not (tmp_path / "dockerd.json").exists()


def test_stop_spares_a_process_that_got_the_same_number(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    (tmp_path / "dockerd.json").write_text(json.dumps({"pid": sleeper.pid, "start_time": 1}))
    assert not engine.stop_engine(tmp_path)
    assert sleeper.poll() is None
    assert not (tmp_path / "dockerd.json").exists()


def test_stop_without_record(tmp_path: Path) -> None:
    assert not engine.stop_engine(tmp_path)


def test_dead_daemon_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "dockerd"
    bad.write_text("#!/bin/sh\necho failed to start daemon: no space left >&2\nexit 1\n")
    bad.chmod(0o755)
    monkeypatch.setattr(engine, "_dockerd", lambda: str(bad))
    monkeypatch.setattr(engine, "engine_info", lambda: None)
    monkeypatch.setattr(engine, "SYSTEMD_RUNNING", tmp_path / "no systemd")
    with pytest.raises(LabError) as refusal:
        engine._start(tmp_path / "cache")
    assert "ended with code 1" in str(refusal.value)
    assert "no space left" in str(refusal.value)
    assert not (tmp_path / "cache" / "dockerd.json").exists()


def test_start_time_names_a_process_for_good() -> None:
    assert engine._start_time(os.getpid()) == engine._start_time(os.getpid())
    assert engine._start_time(2**22 + 1) is None
