# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-wide add-on of berth.odoo: see repeat.py. Odoo calls post_load once, before it serves anything."""

from __future__ import annotations

from .repeat import post_load as post_load
