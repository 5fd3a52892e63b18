# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What berth.odoo.backup says of members that are down or away, with hosts that are this machine, or are away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, ansible, environment

HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# Nobody listens there.
AWAY = {"ansible_host": "127.0.0.1", "ansible_port": 1}
RESULT = {"run": "r", "repository": "near", "label": "20261130-1F", "bytes": 5, "seconds": 2.5, "source": "read from db2", "error": ""}
DOWN = "PostgreSQL on this host does not answer: container postgresql-postgresql-1 is not running"
DOES, STANDS_BY, SILENT = (RESULT, 0, "20261130-1F: 5 bytes"), (None, 0, "another member leads, and does it"), (None, 69, DOWN)
MADE = "db1 made 20261130-1F in near: 5 bytes in 2.5 s, read from db2"


@pytest.mark.parametrize(
    ("members", "good", "expected"),
    [
        # The first host is the one that says it for all.
        (
            {"db0": None, "db1": DOES, "db2": STANDS_BY, "db3": SILENT},
            True,
            [MADE, "db0 could not be reached: ", f"db3 could not answer: {DOWN}"],
        ),
        # It led, as the other one knows.
        ({"db1": None, "db2": STANDS_BY}, False, ["no backup of the database was made: db1 could not be reached: "]),
    ],
)
def test_a_backup_that_was_made_is_good_whoever_is_down(tmp_path: Path, members: dict, good: bool, expected: list[str]) -> None:
    play = yaml.safe_load((REPOSITORY / "playbooks/backup.yml").read_text(encoding="utf-8"))[0]
    text = json.dumps([{**play, "become": False}, {"hosts": "all", "gather_facts": False, "tasks": [{"meta": "noop"}]}])
    (tmp_path / "play.yml").write_text(text.replace("/var/lib/berth/backup/", "{{ directory }}/"), encoding="utf-8")
    hosts = {}
    for name, one in members.items():
        (tmp_path / name).mkdir()
        hosts[name] = AWAY if one is None else HERE
        if one is not None:
            result, status, words = one
            # The programs find which host they are of by their own place.
            for program, script in {
                "systemctl": f'case "$*" in start*) exit {min(status, 1)};; *InvocationID*) echo r;; *ExecMainStatus*) echo {status};; esac',
                "journalctl": f'echo "{words}"',
            }.items():
                (tmp_path / name / program).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
                (tmp_path / name / program).chmod(0o755)
            if result:
                (tmp_path / name / "postgresql.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
        hosts[name] = {**hosts[name], "directory": str(tmp_path / name)}
    known = {"backup_repositories": [{"name": "near", "type": "posix", "path": "/srv"}], "odoo_instances": {"main": {}}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": known, "children": {"database": {"hosts": hosts}}}}), encoding="utf-8")
    paths = {"PATH": "{{ directory }}:" + os.environ["PATH"]}
    plays = json.loads((tmp_path / "play.yml").read_text(encoding="utf-8"))
    (tmp_path / "play.yml").write_text(json.dumps([{**plays[0], "environment": paths}, plays[1]]), encoding="utf-8")
    argv = [*ansible("ansible-playbook"), "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml")]
    done = subprocess.run(argv, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    said = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode == 0) is good, said
    for words in expected:
        assert words in said
