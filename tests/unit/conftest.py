# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the tests of pure logic."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same inputs in every run, so that a red build stays red until it is repaired. Time limits would only measure how
# busy the machine is.
settings.register_profile("berth", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("berth")
