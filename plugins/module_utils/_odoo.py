# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What odoo_database and odoo_module decide, as pure functions: comparing, explaining Odoo's log, checking a password's hash.

No Ansible, no input or output. ``_odoo_project`` talks to containers, ``_odoo_inside`` runs in them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.berth.odoo.plugins.module_utils._odoo_inside import ANSWER, TableStep, leftovers, listed, shown, website_scope
from ansible_collections.berth.odoo.plugins.module_utils._odoo_oidc import provider_changes, provider_view
from ansible_collections.berth.odoo.plugins.module_utils._validate import MODULE_NAME

# 2026-11-21 10:00:00,123 7 ERROR demo odoo.modules.registry: Failed to load registry
_RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+ (?P<level>[A-Z]+) \S+ (?P<logger>[\w.]+): (?P<text>.*)$")
_BAD_LEVELS = frozenset(("ERROR", "CRITICAL"))


class BrokenAnswer(ValueError):
    """A container did not answer a request in the agreed form."""


def parse_answer(stdout: str) -> dict[str, Any]:
    """Return the answer that ``_odoo_inside`` wrote among other output.

    Raises:
        BrokenAnswer: There is none: the program was killed, or the container has no Python or no Odoo.
    """
    for line in reversed(stdout.splitlines()):
        if line.startswith(ANSWER):
            answer = json.loads(line[len(ANSWER) :])
            if isinstance(answer, dict):
                return answer
    raise BrokenAnswer("no answer")


def error_lines(log: str, limit: int = 20) -> list[str]:
    """Return the errors of an Odoo log: each record's text and, of its traceback, the last line.

    Args:
        log: Standard error of an Odoo process, in Odoo's own log format.
        limit: Most lines to return; the last ones win, because the first cause is repeated below.
    """
    found: list[str] = []
    bad = traceback = False
    last = ""
    for line in [*log.splitlines(), ""]:
        match = _RECORD.match(line)
        if match is None and line.strip():
            if line.startswith("Traceback (most recent call last)"):
                traceback = True
            last = line.rstrip()
            continue
        if bad and traceback and last:
            found.append(f"  {last.strip()}")
        traceback, last = False, ""
        if match:
            bad = match["level"] in _BAD_LEVELS
            if bad:
                found.append(f"{match['level']} {match['logger']}: {match['text']}")
    distinct = list(dict.fromkeys(found))
    return distinct[-limit:]


# --- the administrator's password ---------------------------------------------------------------------------------------


def password_matches(stored: str, password: str) -> bool | None:
    """Check a password against the hash in ``res_users``; None when the hash is of a kind this does not know.

    Odoo 19 stores passlib's ``$pbkdf2-sha512$<rounds>$<salt>$<checksum>`` (``res_users.py``, ``_crypt_context``), whose base64
    has no padding and ``.`` in place of ``+``:
    https://passlib.readthedocs.io/en/stable/lib/passlib.hash.pbkdf2_digest.html

    It costs as long as a login, about half a second: see ``password_note``.
    """
    if not stored:
        # A user without a password, which is no way in.
        return False
    parts = stored.split("$")
    if len(parts) != 5 or parts[1] != "pbkdf2-sha512" or not parts[2].isdigit():
        return None
    salt, checksum = (base64.b64decode(part.replace(".", "+") + "=" * (-len(part) % 4)) for part in parts[3:])
    computed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, int(parts[2]))
    return hmac.compare_digest(computed, checksum)


def password_note(key: bytes, stored: str, password: str) -> str:
    """Return what is kept on the host so that an unchanged password need not be hashed again.

    Keyed with the host's secret, because the digest of a password alone can be reversed a million times faster than Odoo's hash.
    """
    return hmac.new(key, f"{stored}\0{password}".encode(), hashlib.sha256).hexdigest()


# --- comparing ----------------------------------------------------------------------------------------------------------


def database_changes(wanted: Mapping[str, Any], state: Mapping[str, Any], password_right: bool) -> list[str]:
    """Say in words what odoo_database has to do, tables aside; nothing when the database is as wanted.

    Args:
        wanted: ``language``, ``country``, ``login``, ``parameters``, ``modules``, ``provider``, ``passwords``.
        state: As ``_odoo_inside.read_state`` returns it.
        password_right: Whether the stored hash is that of the wanted password, or the password is not managed.
    """
    missing = modules_to_change(wanted["modules"], True, state["modules"])
    install = [f"install {listed(missing)}"] if missing else []
    if not state["initialised"]:
        verb = "continue the interrupted initialisation of" if state["unfinished"] else "initialise"
        return [f"{verb} database {state['database']}", *install, *provider_changes(wanted["provider"], state["oidc"])]
    changes = []
    if state["unfinished"]:
        changes.append("clean up an interrupted change of modules")
    if wanted["language"] not in state["languages"]:
        changes.append(f"load language {wanted['language']}")
    if wanted["login"] != state["login"]:
        changes.append(f"rename the administrator's login from {state['login']} to {wanted['login']}")
    if not password_right:
        changes.append("set the administrator's password")
    changes.extend(
        f"set system parameter {key}" for key, value in sorted(wanted["parameters"].items()) if state["parameters"].get(key) != value
    )
    scope = website_scope(wanted["parameters"])
    if others := sum(found != scope for found in state["websites"] if scope):
        changes.append(f"set who may sign up on {others} website{'s' if others > 1 else ''}")
    if state.get("files"):
        changes.append(f"copy {state['files']} attachments from files of this host into the database")
    return [*changes, *install, *provider_changes(wanted["provider"], state["oidc"], wanted["passwords"])]


def database_view(state: Mapping[str, Any], wanted: Mapping[str, Any], steps: Sequence[TableStep]) -> dict[str, Any]:
    """Return the side of a diff that shows a database as it is, without secrets; of tables only what differs."""
    return {
        "initialised": state["initialised"],
        "languages": state["languages"],
        "administrator's login": state["login"],
        "system parameters": {key: state["parameters"].get(key) for key in sorted(wanted["parameters"])},
        **_websites_view(wanted, state["websites"]),
        "modules": sorted(name for name in wanted["modules"] if state["modules"].get(name) == "installed"),
        "OpenID provider": provider_view(state["oidc"]["provider"], wanted["provider"] or {"enabled": False}),
        **({} if wanted["passwords"] else {"passwords beside the OpenID provider": state["oidc"]["passwords"]}),
        "tables": _tables_view((step.table, step.before) for step in steps),
    }


def wanted_view(state: Mapping[str, Any], wanted: Mapping[str, Any], password_right: bool, steps: Sequence[TableStep]) -> dict[str, Any]:
    """Return the side of a diff that shows a database as it shall be."""
    view = {
        "initialised": True,
        "languages": sorted({*state["languages"], wanted["language"]}),
        "administrator's login": wanted["login"],
        "system parameters": dict(sorted(wanted["parameters"].items())),
        **_websites_view(wanted, [website_scope(wanted["parameters"])] * len(state["websites"])),
        "modules": sorted(set(wanted["modules"])),
        "OpenID provider": provider_view(
            wanted["provider"] or (state["oidc"]["provider"] and {"enabled": False}), wanted["provider"] or {"enabled": False}
        ),
        **({} if wanted["passwords"] else {"passwords beside the OpenID provider": 0}),
        "tables": _tables_view((step.table, step.after) for step in steps),
    }
    if state["initialised"] and not password_right:
        view["administrator's password"] = "(another one)"
    return view


def _websites_view(wanted: Mapping[str, Any], scopes: Sequence[str]) -> dict[str, Any]:
    return {"sign-up on websites": list(scopes)} if scopes and website_scope(wanted["parameters"]) else {}


def _tables_view(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    view: dict[str, dict[str, Any]] = {}
    for table, values in entries:
        # As text: PostgreSQL keeps storage parameters as such, and 5000 is no other value than "5000".
        view.setdefault(table, {}).update({key: shown(value) for key, value in values.items()})
    return view


def name_problems(names: Iterable[str]) -> list[str]:
    """Return which names cannot be names of Odoo modules."""
    return [f"{name!r} is not the technical name of an Odoo module (a-z, 0-9 and '_')" for name in names if not MODULE_NAME.fullmatch(name)]


def modules_to_change(names: Sequence[str], install: bool, modules: Mapping[str, str]) -> list[str]:
    """Return which of the named modules are not in the wanted state, in the order given and each once.

    Args:
        names: The modules.
        install: Whether they shall be installed, or not be there.
        modules: State of every module that is not simply uninstalled.
    """
    present = {name for name, state in modules.items() if state == "installed"}
    return [name for name in dict.fromkeys(names) if (name in present) != install]


def after_problems(names: Sequence[str], install: bool, after: Mapping[str, Any]) -> list[str]:
    """Return what is wrong after Odoo reported success; it does so after many failures.

    Args:
        names: The modules that were to be changed.
        install: Whether they were to be installed or uninstalled.
        after: The state of the database now.
    """
    modules = after["modules"]
    problems = [f"{name} is {modules.get(name, 'uninstalled')}" for name in modules_to_change(names, install, modules)]
    between = leftovers(modules)
    if between:
        problems.append(f"left between two states: {listed(f'{name} ({how})' for name, how in between.items())}")
    if "base.partially_updated_database" in after["parameters"]:
        problems.append("Odoo marked the database as partially updated")
    return problems
