# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests' search for secrets sees one in each form in which a program writes it."""

from __future__ import annotations

import base64
import html
import json
import shlex
import subprocess
import urllib.parse

import pytest
import yaml

from ansible_collections.berth.odoo.tests.support.lab import leaks

SECRET = "p$a%s\"s'w{o}r#d\\ with & space?>~"


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_in_base64_wherever_it_begins(before: str, encode) -> None:  # type: ignore[no-untyped-def]
    assert leaks({"secret": SECRET}, encode(f"{before}{SECRET} and more".encode()).decode()) == ["secret"]
    assert leaks({"secret": SECRET}, encode(f"{before}{SECRET}".encode()).decode()) == ["secret"]
    assert leaks({"secret": SECRET}, encode(f"{before}{SECRET[:-3]}".encode()).decode()) == []


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        json.dumps({"key": SECRET}),
        json.dumps(json.dumps([SECRET])),
        yaml.safe_dump({"key": SECRET}, width=1000),
        repr([SECRET]),
        shlex.quote(SECRET),
        subprocess.run(["bash", "-c", 'printf %q "$1"', "bash", SECRET], capture_output=True, text=True, check=True).stdout,
        f"password = {SECRET.replace('%', '%%')}",
        urllib.parse.urlencode({"key": SECRET}),
        urllib.parse.quote(SECRET, safe=""),
        html.escape(SECRET),
        SECRET.encode().hex(),
    ],
)
def test_as_programs_write_it(text: str) -> None:
    assert leaks({"secret": SECRET, "other": "something else"}, text) == ["secret"]
