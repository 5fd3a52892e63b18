# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration of sshd on trial is kept, undone or missed, and what the role holds fits the module. What it does on a host is tried in the labs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.berth.odoo.plugins.module_utils import _hardening
from ansible_collections.berth.odoo.plugins.modules import hardening

ROLE = Path(__file__).resolve().parents[4] / "roles/hardening"


class Module:
    """As much of AnsibleModule as a host needs."""

    def __init__(self, check_mode: bool = False, **params: Any) -> None:
        self.params = {"topics": {}, "switches": {}, "confirm_seconds": 60, **params}
        self.check_mode = check_mode
        self.calls: list[list[str]] = []

    def run_command(self, argv: list[str], **_options: Any) -> tuple[int, str, str]:
        self.calls.append(argv)
        return 0, "", ""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSHD", "BEFORE", "PENDING"):
        monkeypatch.setattr(hardening, name, tmp_path / name)


def test_a_confirmation_that_comes_too_late_is_no_success() -> None:
    with pytest.raises(_hardening.HardeningError, match="the old one came back because nobody confirmed"):
        hardening.Host(Module()).confirmed()  # type: ignore[arg-type]
    hardening.Host(Module(check_mode=True)).confirmed()  # type: ignore[arg-type]


def test_sshd_waits_for_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(hardening.Host, "judge_sshd", lambda self: done.append("judged") or "Port 22\n")
    monkeypatch.setattr(hardening.Host, "sshd", lambda self, content: done.append("loaded"))
    monkeypatch.setattr(hardening._apt, "install", lambda run, names: done.append("installed"))
    topics = {"ssh": {"packages": ["no-such-package"], "sshd": {"Port": 22}}}
    hardening.Host(Module(topics=topics)).converge()  # type: ignore[arg-type]
    assert done == ["judged", "installed"]
    hardening.Host(Module(topics=topics)).load()  # type: ignore[arg-type]
    assert done == ["judged", "installed", "judged", "loaded"]
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text(encoding="utf-8"))
    states = [task["berth.odoo.hardening"].get("state") for task in tasks if "berth.odoo.hardening" in task]
    assert states == [None, "loaded"]


def test_a_trial_upon_a_trial_goes_back_to_what_was_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = hardening._systemd.Unit("loaded", "inactive", "enabled", True, 0, 0)
    monkeypatch.setattr(hardening._systemd, "show", lambda run, names: dict.fromkeys(names, state))
    hardening.SSHD.write_text("confirmed\n", encoding="utf-8")
    for content in ("tried\n", "tried again\n"):
        host = hardening.Host(Module())  # type: ignore[arg-type]
        host.sshd(content)
        assert host.confirm and hardening.PENDING.exists()
        assert hardening.BEFORE.read_text(encoding="utf-8") == "confirmed\n"
    host.confirmed()
    assert not hardening.PENDING.exists() and not hardening.BEFORE.exists()
    assert hardening.SSHD.read_text(encoding="utf-8") == "tried again\n"


def test_sshd_may_turn_away_whoever_asks_while_it_reads_its_new_file(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        ConnectionRefusedError("refused"),
        _hardening.HardeningError("sshd at 0.0.0.0:22 closes the connection at once"),
        ValueError("not SSH_MSG_KEXINIT"),
        ["ciphers: aes128-ctr"],
        [],
    ]

    def stale(_self: hardening.Host) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(hardening.Host, "stale", stale)
    monkeypatch.setattr(hardening.time, "sleep", lambda seconds: None)
    hardening.Host(Module()).settled()  # type: ignore[arg-type]
    assert not answers
    answers.append(_hardening.HardeningError("sshd at 0.0.0.0:22 closes the connection at once"))
    clock = iter((0.0, 61.0))
    monkeypatch.setattr(hardening.time, "monotonic", lambda: next(clock))
    with pytest.raises(_hardening.HardeningError, match=r"sshd was reloaded and does not do what .*closes the connection at once"):
        hardening.Host(Module()).settled()  # type: ignore[arg-type]


def test_the_boot_brings_back_the_file_that_the_module_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    [unit] = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__hardening_topics"]["ssh"]["files"]
    assert f"ConditionPathExists={hardening.BEFORE}\n" in unit["content"]
    assert f"ExecStart=/usr/bin/mv -f {hardening.BEFORE} {hardening.SSHD}\n" in unit["content"]
    # ssh.socket in it would be a cycle with basic.target, and nobody would listen.
    assert "\nBefore=ssh.service\n" in unit["content"]


@pytest.mark.parametrize(("program", "ran"), [(True, [["newaliases"]]), (False, [])])
def test_what_reads_a_line_is_told_of_its_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bool, ran: list[list[str]]
) -> None:
    monkeypatch.setattr(Module, "get_bin_path", lambda self, name: program, raising=False)
    path = tmp_path / "aliases"
    path.write_text("root: ada\n", encoding="utf-8")
    module = Module()
    for _time in range(2):
        hardening.Host(module).line(path, "^root:", "root: bob", ["newaliases"])  # type: ignore[arg-type]
    assert path.read_text(encoding="utf-8") == "root: bob\n" and module.calls == ran


def test_a_group_without_a_name_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardening.os, "getgrouplist", lambda name, gid: [gid, 4242424])
    monkeypatch.setattr(Module, "run_command", lambda self, argv: (0, "allowgroups nobody-is-in-here\n", ""))
    assert "in none of AllowGroups" in hardening.Host(Module()).shut_out("root", Path("/dev/null"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("active", "since", "rules", "ran"),
    [
        ("inactive", 0, "-w /etc/ssh -p wa", True),  # never
        ("inactive", 1000, "-w /etc/ssh -p wa", True),  # before its file was changed
        ("inactive", 3000, "-w /etc/ssh -p wa", False),
        ("inactive", 3000, "No rules", True),  # somebody took away what it did
        ("failed", 3000, "-w /etc/ssh -p wa", True),
    ],
)
def test_what_ends_is_not_started_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: str, since: float, rules: str, ran: bool
) -> None:
    path = tmp_path / "rules"
    path.touch()
    os.utime(path, (2000, 2000))
    monkeypatch.setattr(Module, "run_command", lambda self, argv: (self.calls.append(argv), (0, f"{rules}\n", ""))[1])
    module = Module()
    unit = {"files": [str(path)], "shows": {"argv": ["auditctl", "-l"], "lines": ["-w /etc/ssh -p wa"]}}
    state = hardening._systemd.Unit("loaded", active, "enabled", True, 0, since, ends=True)
    hardening.Host(module).start("audit-rules.service", unit, state)  # type: ignore[arg-type]
    assert (["systemctl", "start", "audit-rules.service"] in module.calls) is ran


@pytest.mark.parametrize(("there", "program"), [(True, True), (True, False), (False, True)])
def test_a_boot_loader_that_is_not_there_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, program: bool
) -> None:
    """Neither is one of which only a file is left."""
    config, setting, grub = tmp_path / "grub.cfg", tmp_path / "80-berth.cfg", there and program
    if there:
        config.write_text("linux /vmlinuz quiet\n", encoding="utf-8")
    if program:
        (tmp_path / "update-grub").touch()
    needs = [str(config), str(tmp_path / "update-grub")]

    def run(self: Module, argv: list[str]) -> tuple[int, str, str]:
        self.calls.append(argv)
        config.write_text(f"linux /vmlinuz quiet {setting.read_text(encoding='utf-8')}", encoding="utf-8")
        return 0, "", ""

    monkeypatch.setattr(Module, "run_command", run)
    steps = {
        "files": [{"path": str(setting), "where": needs, "content": "apparmor=1\n"}],
        "ensure": [{"path": str(config), "where": needs, "contains": ["apparmor=1"], "argv": ["update-grub"]}],
        "modes": [{"path": str(config), "mode": "0600"}],
    }
    for expected in ([["update-grub"]] if grub else [], []):
        module = Module(topics={"boot": steps})
        hardening.Host(module).converge()  # type: ignore[arg-type]
        assert module.calls == expected
    assert setting.exists() is grub and config.exists() is there
    assert not there or config.stat().st_mode & 0o777 == 0o600


def test_grub_is_told_where_it_is_whole() -> None:
    boot = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__hardening_topics"]["boot"]
    [step] = boot["ensure"]
    assert {step["path"], f"/usr/sbin/{step['argv'][0]}"} == set(step["where"]) == set(boot["files"][0]["where"])


@pytest.mark.parametrize(
    ("load", "active", "verbs"),
    [
        ("loaded", "active", ["stop", "mask"]),
        ("masked", "failed", ["reset-failed"]),
        ("masked", "inactive", []),
        ("not-found", "inactive", []),
    ],
)
def test_a_timer_is_stopped_before_it_is_masked(monkeypatch: pytest.MonkeyPatch, load: str, active: str, verbs: list[str]) -> None:
    state = hardening._systemd.Unit(load, active, "", True, 0, 0)
    monkeypatch.setattr(hardening._systemd, "show", lambda run, names: dict.fromkeys(names, state))
    module = Module(topics={"integrity": {"masked": ["dailyaidecheck.timer"]}})
    hardening.Host(module).units()  # type: ignore[arg-type]
    assert [argv[1] for argv in module.calls] == verbs
