# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patroni's configuration: patches, and parameters that were asked for and are not there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils._patroni import merge, pending_restart, refused

LEAVES = st.one_of(st.booleans(), st.integers(), st.text(max_size=3))
CONFIGS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | LEAVES, max_size=3),
    max_leaves=8,
)


def test_a_patch_keeps_what_it_does_not_name_and_none_removes():
    current = {"ttl": 30, "postgresql": {"parameters": {"max_connections": 100, "wal_level": "replica"}}, "pause": True}
    patch = {"pause": None, "postgresql": {"parameters": {"max_connections": 200}}, "gone": None}
    assert merge(current, patch) == {
        "ttl": 30,
        "postgresql": {"parameters": {"max_connections": 200, "wal_level": "replica"}},
    }
    assert current["pause"] is True


def test_a_scalar_gives_way_to_a_mapping():
    assert merge({"postgresql": None}, {"postgresql": {"use_slots": True}}) == {"postgresql": {"use_slots": True}}


@given(CONFIGS, CONFIGS)
def test_a_patch_applied_twice_changes_nothing_more(current, patch):
    once = merge(current, patch)
    assert merge(once, patch) == once


STATE = {
    "in_recovery": False,
    "file": {"work_mem": "64", "jit": "False", "shared_buffers": "256MB", "log_temp_files": "lots"},
    "errors": {"log_temp_files": "invalid value"},
    "pending": {"shared_buffers": "128MB", "max_connections": "100"},
}


def test_dropped_changed_and_unreadable_parameters_are_named():
    wanted = {"bogus": 3, "work_mem": "1kB", "jit": False, "shared_buffers": "256MB", "log_temp_files": "lots"}
    assert refused(wanted, STATE) == [
        "bogus: Patroni does not know this parameter or refused its value 3",
        "log_temp_files = 'lots': invalid value",
        "work_mem: asked for '1kB', Patroni wrote '64'",
    ]


def test_a_parameter_that_waits_for_a_restart_is_not_refused():
    assert refused({"shared_buffers": "256MB"}, STATE) == []
    assert pending_restart({}, STATE) == {
        "max_connections": {"running": "100", "configured": "(default)"},
        "shared_buffers": {"running": "128MB", "configured": "256MB"},
    }


def test_what_a_standby_keeps_as_high_as_its_primary_waits_and_is_not_refused():
    """Patroni starts a standby with the primary's value where the configured one is lower: it would not start otherwise."""
    standby = {"in_recovery": True, "file": {"max_connections": "100", "work_mem": "64"}, "errors": {}, "pending": {}}
    assert refused({"max_connections": 60}, standby) == []
    assert pending_restart({"max_connections": 60}, standby) == {"max_connections": {"running": "100", "configured": "60"}}
    assert refused({"max_connections": 200}, standby) == ["max_connections: asked for 200, Patroni wrote '100'"]
    assert refused({"work_mem": "32"}, standby) == ["work_mem: asked for '32', Patroni wrote '64'"]
    assert refused({"max_connections": 60}, {**standby, "in_recovery": False}) == ["max_connections: asked for 60, Patroni wrote '100'"]
