# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that talks to Patroni, with PATRONI_OPTIONS in module_utils/_patroni_api.py."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  project:
    description: Compose project of the container.
    type: str
    default: postgresql
  service:
    description: Compose service of the container.
    type: str
    default: postgresql
  tls_dir:
    description:
      - Directory on this host whose C(ca.crt) signed the certificates of Patroni's REST API. The certificates are for the name C(postgresql).
    type: path
    default: /opt/berth/postgresql/tls
"""
