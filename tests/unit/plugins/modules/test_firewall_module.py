# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the module learns through which connection it was sent. What it does on a host is tried in the labs."""

from __future__ import annotations

import os
import subprocess
import sys

QUESTION = "from ansible_collections.berth.odoo.plugins.modules import firewall; print(firewall.connection())"
CONNECTION = "192.0.2.7 50000 192.0.2.1 22"


def test_the_connection_is_found_in_a_parent_where_sudo_took_it_out_of_the_environment() -> None:
    # The shell stays, as the login's does: it has something to do afterwards.
    login = f"env -u SSH_CONNECTION {sys.executable} -c '{QUESTION}'; exit $?"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SSH_CONNECTION": CONNECTION}
    done = subprocess.run(["/bin/sh", "-c", login], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == CONNECTION
