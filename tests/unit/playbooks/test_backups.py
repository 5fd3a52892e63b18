# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml leaves of backups on the application hosts, with directories of this machine for those of theirs."""

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

REPOSITORIES = [{"name": "near", "type": "posix", "path": "/srv/near"}]
MAIN, SHOP = ({name: {"domains": [f"{name}.example.com"], "database": name}} for name in ("main", "shop"))


@pytest.mark.parametrize(
    ("repositories", "instances", "left"),
    [
        (REPOSITORIES, [MAIN, SHOP], ["app1", "app2"]),
        # Its sets are made by the one before it.
        (REPOSITORIES, [MAIN, MAIN], ["app1"]),
        ([], [MAIN, SHOP], []),
    ],
)
def test_timers_and_keys_stay_where_sets_are_made(tmp_path: Path, repositories: list[Any], instances: list[Any], left: list[str]) -> None:
    text = (REPOSITORY / "playbooks/site.yml").read_text(encoding="utf-8")
    [play] = [one for one in yaml.safe_load(text) if one["name"] == "Converge the backups"]
    play["tasks"] = [one for one in play["tasks"] if one["name"] == "Stop making sets"]
    play["become"] = False
    text = json.dumps([play]).replace("/etc/systemd/system/", "{{ directory }}/").replace("/opt/berth/", "{{ directory }}/")
    (tmp_path / "play.yml").write_text(text, encoding="utf-8")
    (tmp_path / "systemctl").write_text('#!/bin/sh\n[ "$1" = disable ] && rm "$4"\n', encoding="utf-8")
    (tmp_path / "systemctl").chmod(0o755)
    hosts = {}
    for number, own in enumerate(instances, 1):
        name = f"app{number}"
        (tmp_path / name / "timers.target.wants").mkdir(parents=True)
        (tmp_path / name / "timers.target.wants/berth-drill-restore.timer").symlink_to("/nowhere")
        for directory in ("backup", "restore/secrets"):
            (tmp_path / name / directory).mkdir(parents=True)
        hosts[name] = {"host_address": f"10.0.0.{number}", "odoo_instances": own, "directory": str(tmp_path / name)}
    known = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "backup_repositories": repositories}
    inventory = {
        "all": {"vars": known, "children": {"app": {"hosts": hosts}, "database": {"hosts": {"db1": {"host_address": "10.0.0.9"}}}}}
    }
    (tmp_path / "hosts.json").write_text(json.dumps(inventory), encoding="utf-8")
    argv = [*ansible("ansible-playbook"), "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml")]
    settings = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = subprocess.run(argv, cwd=REPOSITORY, env=settings, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in ("timers.target.wants/berth-drill-restore.timer", "backup", "restore/secrets"):
        assert [name for name in hosts if (tmp_path / name / path).is_symlink() or (tmp_path / name / path).exists()] == left
