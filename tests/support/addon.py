# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load pieces of the add-on berth_runtime without Odoo, beside modules that stand for it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY

if TYPE_CHECKING:
    import pytest


ADDON = REPOSITORY / "roles/images/files/odoo/berth_runtime"


def load(monkeypatch: pytest.MonkeyPatch, directory: Path, sources: Mapping[str, str], pieces: Sequence[str]) -> Any:
    """Load pieces of the add-on anew, and return the last.

    Args:
        directory: where the modules that stand for Odoo's go, as files, because the add-on looks at their source.
        sources: full name of such a module to its source.
        pieces: names of the add-on's modules, each after those that it imports.
    """
    for name, source in sources.items():
        parts = name.split(".")
        for length in range(1, len(parts)):
            package = ".".join(parts[:length])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, ModuleType(package))
        file = directory / f"{name}.py"
        file.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], parts[-1], module, raising=False)
        spec.loader.exec_module(module)
    addon = ModuleType("berth_runtime")
    addon.__path__ = [str(ADDON)]
    names = [f"berth_runtime.{piece}" for piece in pieces]
    for name in ("berth_runtime", *names):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "berth_runtime", addon)
    found = importlib.import_module(names[-1])
    for name in names:
        # So that it goes with the rest.
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    return found
