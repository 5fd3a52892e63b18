# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run that tells hosts of another one reaches them as that one did, and asks nobody."""

from __future__ import annotations

from ansible_collections.berth.odoo.plugins.callback.ledger import connection_arguments


def test_the_way_to_the_hosts_is_repeated() -> None:
    options = {"inventory": ("site", "more"), "remote_user": "admin", "vault_ids": ("site@file",), "extra_vars": ("@a.json", "b=c")}
    assert connection_arguments(options) == [
        *("--inventory", "site", "--inventory", "more", "--vault-id", "site@file", "--user", "admin"),
        *("--extra-vars", "@a.json", "--extra-vars", "b=c"),
    ]


def test_a_password_is_asked_for_once() -> None:
    options = {"vault_ids": ("site@prompt", "prompt", "old@prompt_of_mine.sh"), "ask_vault_pass": True}
    assert connection_arguments(options) == ["--vault-id", "old@prompt_of_mine.sh"]
