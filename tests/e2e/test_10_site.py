# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a bare VM to the platform: what a run would do, the run, and that a second one does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.lab import leaks, processes

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

REMOTE_TASKS = 25  # the most that a run without changes may send to the host


@pytest.mark.first_run
def test_check_mode_on_a_bare_machine_says_what_it_would_do(host: Host, play: Player) -> None:
    untouched = "test ! -e /opt/berth && test ! -e /var/lib/berth && ! command -v docker"
    assert host.succeeds(untouched), f"{host.name} is not bare; make it anew, or deselect with: -m 'not first_run'"
    run = play("playbooks/site.yml", "--check", "--diff").expect_success()
    assert host.succeeds(untouched), "--check changed the host"
    projects = {task.task for task in run.tasks if task.action == "berth.odoo.compose_project" and task.changed}
    assert len(projects) >= 6, f"--check announced only these projects: {projects}"


@pytest.mark.first_run
def test_site_converges_and_shows_no_secret_meanwhile(lab: Lab, host: Host, play: Player, tmp_path: Path) -> None:
    """Neither in its words, however many, nor in what Ansible keeps of facts, nor in the processes that come and go."""
    facts = {
        "ANSIBLE_CACHE_PLUGIN": "jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts"),
        "ANSIBLE_LOG_PATH": str(tmp_path / "log"),
    }
    with processes(host) as watched:
        run = play("playbooks/site.yml", "-vvv", "--diff", settings=facts).expect_success()
    host.wait_until_healthy(seconds=60)
    assert "(sensitive, " in run.output, "no file with a secret was written, so nothing was proven"
    assert "docker compose" in watched[0].replace("docker-compose", "docker compose"), "what runs for a moment was not seen"
    assert leaks(lab.secrets(), watched[0]) == []
    kept = [path.read_text(encoding="utf-8", errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert leaks(lab.secrets(), "".join(kept)) == []


def test_second_run_changes_nothing(host: Host, play: Player) -> None:
    before = host.state()
    run = play("playbooks/site.yml", "--diff").expect_success()
    assert run.changed == []
    assert run.recap[host.name]["changed"] == 0
    assert host.state() == before
    slowest = sorted(run.tasks, key=lambda task: task.seconds, reverse=True)[:5]
    assert run.remote_tasks <= REMOTE_TASKS, f"{run.remote_tasks} remote tasks; the slowest: {slowest}"


def test_check_mode_on_a_converged_machine_announces_nothing(play: Player) -> None:
    assert play("playbooks/site.yml", "--check", "--diff").expect_success().changed == []
