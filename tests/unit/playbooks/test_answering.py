# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts a restore and a clone cannot do without, with hosts that are this machine, or are away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, ansible, environment

HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# Nobody listens there.
AWAY = {"ansible_host": "127.0.0.1", "ansible_port": 1}
KEPT = ("Refuse what cannot be meant", "See who answers", "See who leads")


@pytest.mark.parametrize(
    ("playbook", "given", "away", "missed"),
    [
        ("restore", {"into": "place"}, "db2", ""),
        ("restore", {"into": "place"}, "app2", "app2"),
        ("restore", {"into": "place"}, "app3", ""),
        ("restore", {}, "app2", ""),
        ("clone", {"source": "shop"}, "db2", ""),
        ("clone", {"source": "shop"}, "app2", "app2"),
    ],
)
def test_who_is_away_is_missed_at_once_or_never(tmp_path: Path, playbook: str, given: dict[str, str], away: str, missed: str) -> None:
    play = yaml.safe_load((REPOSITORY / f"playbooks/{playbook}.yml").read_text(encoding="utf-8"))[0]
    exchange = yaml.safe_load((REPOSITORY / "playbooks/plays/exchange.yml").read_text(encoding="utf-8"))[-1]
    tasks = json.dumps([task for task in play["tasks"] if task["name"] in KEPT])
    first = {**play, "become": False, "tasks": json.loads(tasks.replace("tasks/", f"{REPOSITORY}/playbooks/tasks/"))}
    ask = {"ansible.builtin.command": "touch {{ directory }}/{{ inventory_hostname }}"}
    last = {"hosts": exchange["hosts"], "gather_facts": False, "any_errors_fatal": True, "tasks": [ask]}
    (tmp_path / "play.yml").write_text(json.dumps([first, last]), encoding="utf-8")
    (tmp_path / "docker").write_text("#!/bin/sh\necho t\n", encoding="utf-8")
    (tmp_path / "docker").chmod(0o755)
    run: dict[str, dict[str, Any]] = {"app1": {"main": {}, "shop": {}}, "app2": {"main": {}}, "app3": {"shop": {}}}
    # One leads: a second member that is here would say that it does, too.
    names = [*run, "db1", *({"db2"} & {away})]
    hosts = {
        name: {
            "host_address": f"10.0.0.{number}",
            **(AWAY if name == away else HERE),
            **({"odoo_instances": run[name]} if name in run else {}),
        }
        for number, name in enumerate(names, 1)
    }
    groups = {
        "app": {"hosts": {name: one for name, one in hosts.items() if name in run}},
        "database": {"hosts": {name: one for name, one in hosts.items() if name not in run}},
    }
    known = {"backup_repositories": [{"name": "near", "type": "posix", "path": "/srv"}], "directory": str(tmp_path)}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": known, "children": groups}}), encoding="utf-8")
    given = {"target": "main", **given}
    argv = [*ansible("ansible-playbook"), "-i", str(tmp_path / "hosts.json"), "-e", json.dumps(given), str(tmp_path / "play.yml")]
    settings = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = subprocess.run(argv, cwd=REPOSITORY, env=settings, capture_output=True, text=True, check=False, timeout=120)
    said = " ".join((done.stdout + done.stderr).split())
    asked = {name for name in hosts if (tmp_path / name).exists()}
    if missed:
        assert done.returncode and f"nothing was changed. {missed} cannot be reached by SSH" in said, said
        assert not asked
    else:
        assert done.returncode == 0, said
        assert asked == {*hosts} - {away}
