# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where instances keep their files on a host, and who else has something there. Pure functions: no Ansible, no input or output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import normpath
from pathlib import PurePosixPath
from typing import Any

DATA_DIR = "/var/lib/odoo"
"""Odoo's data directory in its containers."""

HOME = "/var/lib/berth/odoo"
"""Where the data directories are on a host whose inventory does not say C(odoo_data_dir)."""


def directories(definition: Mapping[str, Any]) -> list[str]:
    """Return what a project's containers have as Odoo's data directory, by its name on the host.

    Args:
        definition: What C(docker compose config) says of the project.
    """
    volumes = [volume for service in (definition.get("services") or {}).values() for volume in service.get("volumes") or []]
    return sorted({volume["source"] for volume in volumes if volume["type"] == "bind" and volume["target"] == DATA_DIR})


def overlap(one: str, other: str) -> bool:
    """Tell whether one of two directories is the other or is inside of it."""
    paths = [PurePosixPath(normpath(path)) for path in (one, other)]
    return paths[0].is_relative_to(paths[1]) or paths[1].is_relative_to(paths[0])


def shared(own: Sequence[str], others: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each other instance that has something where an instance has its files.

    Args:
        own: The instance's directories.
        others: Name of another instance to its directories.
    """
    return [f"{name} has {path}" for name, paths in sorted(others.items()) for path in paths if any(overlap(path, mine) for mine in own)]
