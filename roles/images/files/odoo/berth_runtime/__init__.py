# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-wide add-on of berth.odoo: what Odoo 19 does not do itself. The environment says what is wanted of it."""

from __future__ import annotations

import os

from . import bundles, logs, remote, repeat, sessions


def post_load() -> None:
    """Put the pieces in place. Odoo calls this once, before it serves anything."""
    answers = os.environ.get("BERTH_REQUEST_IDS") == "1"
    logs.post_load(numbered=answers, as_json=os.environ.get("BERTH_LOG") == "json")
    remote.post_load()
    if answers:
        bundles.post_load()
    if file := os.environ.get("BERTH_SESSIONS"):
        sessions.post_load(file)
    else:
        sessions.limit_files()
    if os.environ.get("BERTH_REPEAT_REQUESTS") == "1":
        repeat.post_load()
    if os.environ.get("BERTH_FILESTORE") == "s3":
        # Only here: not every image has what it is for.
        from . import filestore

        filestore.post_load()
    if file := os.environ.get("BERTH_OIDC"):
        from . import oidc

        oidc.post_load(file)
    # Last, because the others look at Odoo as it came.
    sessions.mark_cookie()
