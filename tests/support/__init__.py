# SPDX-License-Identifier: GPL-3.0-or-later
"""What the end-to-end tests, the fault tests and the benches share: labs, hosts, playbook runs, Odoo's web interface."""

from __future__ import annotations
