# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.berth.odoo.plugins.filter.new_authority import FilterModule
from ansible_collections.berth.odoo.plugins.module_utils import _authority

new_authority = FilterModule().filters()["new_authority"]


def test_it_makes_one_that_can_sign() -> None:
    made = new_authority("berth.odoo site")
    assert set(made) == {"certificate", "key"}
    now = int(time.time())
    loaded = _authority.load(made["certificate"], made["key"], now)
    assert loaded.certificate.subject.rfc4514_string() == "CN=berth.odoo site"
    assert abs(loaded.not_after - now - 3650 * 86400) < 60
    assert new_authority("berth.odoo site") != made


@pytest.mark.parametrize(
    ("arguments", "message"), [(("",), "name must be"), ((5,), "name must be"), (("x", 0), "days must be"), (("x", "1"), "days")]
)
def test_what_it_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        new_authority(*arguments)


def test_without_cryptography_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_authority, "LIBRARY_ERROR", "no module")
    with pytest.raises(AnsibleFilterError, match="cryptography"):
        new_authority("x")
