# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords are tried at the login pages alone: the method behind them is refused to others, in an Odoo of a few lines. A real one is in tests/e2e."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DIRECTORY = Path(__file__).resolve().parents[3] / "roles/images/files/odoo/berth_runtime"
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
    for name, source in ODOO.items():
        parts = name.split(".")
        for length in range(1, len(parts)):
            package = ".".join(parts[:length])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, ModuleType(package))
        file = directory / f"{name}.py"
        file.write_text(replaced.get(parts[-1], source), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], parts[-1], module, raising=False)
        spec.loader.exec_module(module)
    package = ModuleType("berth_runtime")
    package.__path__ = [str(DIRECTORY)]
    for name in ("berth_runtime", "berth_runtime.fits", "berth_runtime.remote"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "berth_runtime", package)
    remote = importlib.import_module("berth_runtime.remote")
    for name in ("berth_runtime.fits", "berth_runtime.remote"):
        # So that it goes with the rest.
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    return remote


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
