# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether functions that are wrapped are still those for which that was written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

Expected = Mapping[str, tuple[Any, str, tuple[str, ...]]]
"""By name: a function, its arguments, and pieces of its source without which the reasoning of its wrapper does not hold."""


def differences(expected: Expected) -> list[str]:
    """Return what is not as expected, in words."""
    found = []
    for name, (function, arguments, pieces) in expected.items():
        if (signature := str(inspect.signature(function, follow_wrapped=False)).replace("'", "")) != arguments:
            found.append(f"{name} takes {signature}, expected {arguments}")
        source = inspect.getsource(function)
        found += [f"{name} does not contain {piece!r}" for piece in pieces if piece not in source]
    return found
