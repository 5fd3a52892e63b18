# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rotation changes in the secrets of an inventory, and how that gets into the text of their file. Pure functions.

A secret that is being replaced has two values that both work, and the file says at every moment which one is used. So a converging run that
comes in between, or that continues an interrupted rotation, does what the file says and breaks nothing:

========= ============================================== =====================================
State     Keys of an instance                            What a converging run makes of them
========= ============================================== =====================================
settled   ``db_password`` (``db_user`` after the first)  one login
begun     and ``db_password_next``                       both logins, the next one is used
accepted  new ``db_user``, ``db_password``, and          the new login alone
          ``db_password_old``
settled   ``db_user``, ``db_password``                   nothing
========= ============================================== =====================================

The file is edited as text, so that comments, order and everything else in it stay, and what the edit made is read again and compared.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from typing import Any

from ._wiring import DatabaseLogins

try:
    import yaml
except ImportError:
    LIBRARY_ERROR = traceback.format_exc()
    """Why PyYAML cannot be used; the machine that runs Ansible always has it."""
else:
    LIBRARY_ERROR = ""

VARIABLE = "odoo_instance_secrets"
KINDS = ("database",)
"""What can be rotated. A later kind is another set of keys, and a tier that lets two values in."""
STEPS = ("begin", "accept", "finish")


class RotationError(ValueError):
    """A rotation that cannot be. The message says what was found, what was expected and what to type, and shows no secret."""


class Copy:
    """The value of another key, as it is written."""

    def __init__(self, key: str) -> None:
        """``key`` of the same instance."""
        self.key = key


def changes(step: str, database: str, secrets: Mapping[str, Any], fresh: str) -> dict[str, str | Copy | None]:
    """Return what a step changes in the secrets of one instance: a key's new value, or nothing for a key that goes.

    A step whose result is there already changes nothing, so that a rotation can be continued wherever it was interrupted.

    Args:
        step: one of :data:`STEPS`.
        database: the instance's database, after which its logins are named.
        secrets: the instance's.
        fresh: a new password.
    """
    begun, accepted = "db_password_next" in secrets, "db_password_old" in secrets
    if step == "begin" and not begun and not accepted:
        return {"db_password_next": fresh}
    if step == "accept" and begun:
        return {
            "db_user": DatabaseLogins.other(database, secrets.get("db_user")),
            "db_password_old": Copy("db_password"),
            "db_password": Copy("db_password_next"),
            "db_password_next": None,
        }
    if step == "finish" and accepted and not begun:
        return {"db_password_old": None}
    return {}


def edit(text: str, instance: str, wanted: Mapping[str, str | Copy | None]) -> str:
    """Return the text of a secrets file with some keys of an instance changed.

    Raises:
        RotationError: the text is not what can be edited safely.
    """
    before = _read(text)
    expected = json.loads(json.dumps(before))
    entry = _entry(expected, instance)
    sources = {key: _source(text, instance, value.key) for key, value in wanted.items() if isinstance(value, Copy)}
    for key, value in wanted.items():
        if isinstance(value, Copy):
            entry[key] = _entry(before, instance)[value.key]
        elif value is None:
            del entry[key]
        else:
            entry[key] = ["tag:yaml.org,2002:str", value]
    for key, value in wanted.items():
        text = _set(text, instance, key, None if value is None else sources.get(key) or json.dumps(value))
    if _read(text) != expected:
        raise RotationError(
            f"{VARIABLE}.{instance} is written in a way that cannot be edited safely; expected one key and value a line, as secrets_init writes them"
        )
    return text


def values(text: str) -> dict[str, dict[str, str]]:
    """Return the instances' secrets in a text, strings alone.

    Raises:
        RotationError: the text holds none.
    """
    found = _read(text).get(VARIABLE)
    if not isinstance(found, dict):
        raise RotationError(f"it has no {VARIABLE}: name the file that has them, -e secrets_file=<file>")
    return {
        name: {key: item[1] for key, item in entry.items() if isinstance(item, list) and isinstance(item[1], str)}
        for name, entry in found.items()
        if isinstance(entry, dict)
    }


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # Not the error itself, which shows the line.
        raise RotationError(f"it is no YAML{f' in line {mark.line + 1}' if mark else ''}: correct it with ansible-vault edit") from None


def _read(text: str) -> dict[str, Any]:
    """Return mappings as dictionaries and everything else as its tag and its value, without asking what a tag means."""
    found = _plain(_compose(text))
    if not isinstance(found, dict):
        raise RotationError("it is no mapping of variables: write <variable>: <value>")
    return found


def _plain(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.MappingNode):
        found = {key.value: _plain(value) for key, value in node.value}
        if len(found) != len(node.value):
            raise RotationError(f"line {node.start_mark.line + 1} and following: a key is there twice, remove one")
        return found
    if isinstance(node, yaml.SequenceNode):
        return [node.tag, [_plain(item) for item in node.value]]
    return [node.tag, node.value] if node is not None else None


def _entry(document: dict[str, Any], instance: str) -> dict[str, Any]:
    entry = (document.get(VARIABLE) or {}).get(instance)
    if not isinstance(entry, dict) or "db_password" not in entry:
        raise RotationError(f"it has no {VARIABLE}.{instance}.db_password: name the file that has it, -e secrets_file=<file>")
    found: dict[str, Any] = entry
    return found


def _pairs(text: str, instance: str) -> yaml.MappingNode:
    """Return the node of an instance's secrets."""
    node = _compose(text)
    for name in (VARIABLE, instance):
        assert isinstance(node, yaml.MappingNode)  # noqa: S101 - _entry has looked
        node = next(value for key, value in node.value if key.value == name)
    assert isinstance(node, yaml.MappingNode)  # noqa: S101 - as above
    return node


def _source(text: str, instance: str, key: str) -> str:
    """Return a value as it is written, tag included."""
    value = next(value for name, value in _pairs(text, instance).value if name.value == key)
    if value.style in ("|", ">") or value.start_mark.line != value.end_mark.line:
        raise RotationError(f"{VARIABLE}.{instance}.{key} goes over several lines; write it on one, in quotes: ansible-vault edit")
    return text[value.start_mark.index : value.end_mark.index]


def _set(text: str, instance: str, key: str, source: str | None) -> str:
    """Put a value into the text, in the place of the old one, or before all others."""
    node = _pairs(text, instance)
    found = [(name, value) for name, value in node.value if name.value == key]
    if source is None:
        ((name, value),) = found
        end = value.end_mark.index
        rest = re.match(r"[ \t]*,[ \t]*" if node.flow_style else r"[ \t]*(#[^\n]*)?(\n[ \t]*|\Z)", text[end:])
        return text[: name.start_mark.index] + text[end + (rest.end() if rest else 0) :]
    if found:
        value = found[0][1]
        return text[: value.start_mark.index] + source + text[value.end_mark.index :]
    first = node.value[0][0].start_mark
    end_of_pair = ", " if node.flow_style else "\n" + " " * first.column
    return text[: first.index] + f"{key}: {source}{end_of_pair}" + text[first.index :]
