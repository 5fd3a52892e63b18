# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse to programs and browsers what only Odoo's own code shall call: ``res.users.authenticate``.

It is a public method, so whoever is logged in, a customer too, may call it with somebody else's login and a password to try. The edge counts requests of
the login pages and not such calls, and Odoo's own brake is released by each success, also with the caller's own password. Signing in calls it directly.

Written for Odoo 19.0; what it relies on is checked when it is loaded.
"""

from __future__ import annotations

from odoo.addons.base.models import res_users
from odoo.service import common, model

from . import fits

EXPECTED: fits.Expected = {
    "odoo.service.model.get_public_method": (
        model.get_public_method,
        "(model: odoo.orm.models.BaseModel, name: str)",
        # Of all classes: a module that overrides the method does not open it again.
        ("for mro_cls in cls.mro():", "getattr(cla_method, '_api_private', False)"),
    ),
    "odoo.service.common.exp_authenticate": (
        common.exp_authenticate,
        "(db, login, password, user_agent_env)",
        ("env['res.users'].authenticate(credential",),
    ),
    "odoo.addons.base.models.res_users.ResUsers.authenticate": (
        res_users.ResUsers.authenticate,
        "(self, credential, user_agent_env)",
        ("self._login(credential",),
    ),
}


def unexpected() -> list[str]:
    """Return what is not as in the Odoo that this was written for, in words."""
    return fits.differences(EXPECTED)


def post_load() -> None:
    """Mark the method, as Odoo's ``api.private`` does.

    Raises:
        SystemExit: Odoo is not as expected. Odoo logs any other error of an add-on and serves without it.
    """
    if problems := unexpected():
        raise SystemExit(f"berth_runtime does not fit this Odoo: {'; '.join(problems)}")
    res_users.ResUsers.authenticate._api_private = True
