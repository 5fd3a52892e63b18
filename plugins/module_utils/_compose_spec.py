# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of compose_project, shared by its module and its action plugin, which is the one that validates them."""

from __future__ import annotations

from typing import Any

RELOAD: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "service": {"type": "str", "required": True},
        "command": {"type": "list", "elements": "str"},
        "signal": {"type": "str"},
    },
    "mutually_exclusive": [["command", "signal"]],
    "required_one_of": [["command", "signal"]],
}

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "base_dir": {"type": "str", "default": "/opt/berth"},
    "state": {"type": "str", "choices": ["present", "prepared", "stopped", "absent"], "default": "present"},
    "definition": {"type": "dict"},
    "override": {"type": "dict", "default": {}},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "dest": {"type": "str", "required": True},
            "template": {"type": "str"},
            "content": {"type": "str"},
            "src": {"type": "str"},
            "owner": {"type": "int", "default": 0},
            "group": {"type": "int", "default": 0},
            "mode": {"type": "str"},
            "sensitive": {"type": "bool", "default": False},
            "services": {"type": "list", "elements": "str"},
            "reload": RELOAD,
        },
        "mutually_exclusive": [["template", "content", "src"]],
        "required_one_of": [["template", "content", "src"]],
    },
    "authority": {
        "type": "dict",
        "no_log": True,
        "options": {
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
        },
    },
    "certificates": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "dest": {"type": "str", "required": True},
            "common_name": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "owner": {"type": "int", "default": 0},
            "group": {"type": "int", "default": 0},
            "days": {"type": "int", "default": 90},
            "usage": {"type": "str", "choices": ["both", "server"], "default": "both"},
            "services": {"type": "list", "elements": "str"},
            "reload": RELOAD,
        },
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "owner": {"type": "int", "default": 0},
            "group": {"type": "int", "default": 0},
            "mode": {"type": "str", "default": "0750"},
        },
    },
    "joins": {"type": "dict", "default": {}},
    "wait_timeout": {"type": "int", "default": 120},
    "lock_timeout": {"type": "int", "default": 15},
    "request": {"type": "str", "no_log": True},
}
