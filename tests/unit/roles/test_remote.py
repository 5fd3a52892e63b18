# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords are tried at the login pages alone: the method behind them is refused to others, in an Odoo of a few lines. A real one is in tests/e2e."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.tests.support import addon

ODOO = {
    "odoo.orm.models": "class BaseModel: pass",
    "odoo.service.model": """
from odoo.orm.models import BaseModel

def get_public_method(model: BaseModel, name: str):
    cls = type(model)
    method = getattr(cls, name, None)
    for mro_cls in cls.mro():
        if not (cla_method := getattr(mro_cls, name, None)):
            continue
        if getattr(cla_method, '_api_private', False):
            raise PermissionError(name)
    return method
""",
    "odoo.addons.base.models.res_users": """
class ResUsers:
    def authenticate(self, credential, user_agent_env):
        return self._login(credential, user_agent_env=user_agent_env)

    def _login(self, credential, user_agent_env):
        return {"uid": 2, **credential}

    def read(self):
        return []
""",
    "odoo.service.common": """
env = {}

def exp_authenticate(db, login, password, user_agent_env):
    credential = {'login': login}
    return env['res.users'].authenticate(credential, {})['uid']
""",
}


def load(monkeypatch: pytest.MonkeyPatch, directory: Path, **replaced: str) -> Any:
    """Load the piece of the add-on beside an Odoo whose sources are files, because they are looked at."""
    sources = {name: replaced.get(name.rpartition(".")[2], source) for name, source in ODOO.items()}
    return addon.load(monkeypatch, directory, sources, ("fits", "remote"))


def test_nobody_calls_it_from_outside_and_odoo_still_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    remote = load(monkeypatch, tmp_path)
    base = remote.res_users.ResUsers

    class Overriding(base):  # type: ignore[misc]
        def authenticate(self, credential: Any, user_agent_env: Any) -> Any:
            return super().authenticate(credential, user_agent_env)

    for users in (base(), Overriding()):
        assert remote.model.get_public_method(users, "authenticate")
    remote.post_load()
    for users in (base(), Overriding()):
        with pytest.raises(PermissionError):
            remote.model.get_public_method(users, "authenticate")
        assert remote.model.get_public_method(users, "read")
        remote.common.env["res.users"] = users
        assert remote.common.exp_authenticate("main", "admin", "secret", None) == 2


def test_another_odoo_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    remote = load(monkeypatch, tmp_path, model=ODOO["odoo.service.model"].replace("cls.mro()", "[cls]"))
    with pytest.raises(SystemExit, match=r"get_public_method does not contain 'for mro_cls in cls\.mro\(\):'"):
        remote.post_load()
    assert remote.model.get_public_method(remote.res_users.ResUsers(), "authenticate")
