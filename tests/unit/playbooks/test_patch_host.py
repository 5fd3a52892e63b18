# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For which updates a host makes way. The way itself is tried in the labs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
KEEPALIVED = [{"name": "openssl"}, {"name": "keepalived"}]


@pytest.mark.parametrize(
    ("now", "floating", "makes_way"),
    [
        ({}, ["front"], False),
        ({"packages": KEEPALIVED}, ["front", "back"], True),
        ({"packages": KEEPALIVED}, ["back"], False),
        ({"engine": ["docker.io"]}, [], True),
        ({"engine_replaced": True}, [], True),
    ],
)
def test_way_is_made_for_what_restarts(now: dict[str, Any], floating: list[str], makes_way: bool) -> None:
    tasks = yaml.safe_load((ROOT / "playbooks/tasks/patch_host.yml").read_text(encoding="utf-8"))
    task = next(task for task in tasks if task["name"] == "patch_host | Make way for a new engine or keepalived")
    facts = {"packages": [], "engine": [], "engine_replaced": False, **now}
    asked = jinja2.Environment(autoescape=True).compile_expression(task["when"])
    assert asked(target="front", hostvars={"front": {"__now": facts}}, __floating=floating) is makes_way


def test_what_restarts_is_left_to_a_person() -> None:
    topics = yaml.safe_load((ROOT / "roles/hardening/vars/main.yml").read_text(encoding="utf-8"))["__hardening_topics"]
    [line] = re.findall(r"Package-Blacklist \{(.*)\}", str(topics["updates"]["files"]))
    for name in ("docker.io", "docker-ce", "containerd.io", "runc", "keepalived"):
        assert any(re.match(pattern, name) for pattern in re.findall(r'"([^"]+)"', line)), name
