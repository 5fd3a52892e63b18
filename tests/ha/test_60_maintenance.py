# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance on three members: a report that leaves nothing, a window, and a table that becomes smaller while it is written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, evidence, leader

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

PLAYBOOK = "playbooks/maintenance.yml"
BLOATED = """
CREATE TABLE berth_bloat (id serial PRIMARY KEY, words text);
CREATE TABLE berth_full (id serial PRIMARY KEY, words text) WITH (fillfactor = 35);
INSERT INTO berth_bloat (words) SELECT repeat('x', 200) FROM generate_series(1, 60000);
INSERT INTO berth_full (words) SELECT repeat('x', 200) FROM generate_series(1, 20000);
DELETE FROM berth_bloat WHERE id % 3 <> 0;
VACUUM berth_bloat, berth_full;
"""
EXTENSIONS = "SELECT count(*) FROM pg_extension WHERE extname IN ('pg_repack', 'pgstattuple')"
SIZE = "SELECT pg_total_relation_size('berth_bloat')"


def ask(host: Host, script: str) -> str:
    """What the database answers."""
    return host.run("docker exec -i postgresql-postgresql-1 psql -v ON_ERROR_STOP=1 -U postgres -d main -XAtq", stdin=script).strip()


@pytest.fixture(scope="module")
def primary(lab: Lab) -> Iterator[Host]:
    """The host that leads, with a table of which two thirds are waste, one whose room is meant to be free, and an index that failed."""
    host = lab.hosts[leader(lab)]
    ask(host, BLOATED)
    assert not host.succeeds(
        "docker exec postgresql-postgresql-1 psql -U postgres -d main -c 'CREATE UNIQUE INDEX CONCURRENTLY bad ON berth_bloat (words)'"
    )
    yield host
    ask(host, "DROP TABLE berth_bloat, berth_full")


def test_a_report_needs_no_window_and_leaves_nothing(primary: Host, play: Player) -> None:
    before = int(ask(primary, SIZE))
    run = play(PLAYBOOK, "--check", variables={"maintenance_bloat_mb": 1}).expect_success()
    assert run.changed == []
    assert "public.berth_bloat: " in run.text
    assert "the index bad of berth_bloat is invalid" in run.text
    assert "public.berth_full" not in run.text, "what a fill factor leaves is no waste"
    assert int(ask(primary, SIZE)) == before
    assert ask(primary, EXTENSIONS) == "0"


def test_outside_of_its_window_it_does_nothing(primary: Host, play: Player) -> None:
    before = int(ask(primary, SIZE))
    play(PLAYBOOK).expect_refusal("maintenance_window is not set", "maintenance_now=true")
    clock = "to_char(now() AT TIME ZONE 'UTC' + interval '{} hours', 'HH24:MI')"
    window = ask(primary, f"SELECT {clock.format(2)} || '-' || {clock.format(3)}")
    play(PLAYBOOK, variables={"maintenance_window": window}).expect_refusal("nothing was changed: the window", "opens at")
    assert int(ask(primary, SIZE)) == before


def test_what_is_wasted_is_given_back(lab: Lab, primary: Host, play: Player) -> None:
    before, rows = int(ask(primary, SIZE)), ask(primary, "SELECT count(*), sum(id) FROM berth_bloat")
    run = play(PLAYBOOK, variables={"maintenance_bloat_mb": 1, "maintenance_now": True}).expect_success()
    assert "and has an invalid index, which is to be repaired first" in run.text
    assert int(ask(primary, SIZE)) == before
    # The extension is what a run that was killed leaves.
    ask(primary, "DROP INDEX bad; CREATE EXTENSION pg_repack")
    before = int(ask(primary, SIZE))
    play(PLAYBOOK, variables={"maintenance_bloat_mb": 1, "maintenance_window": "00:00-00:00"}).expect_success()
    assert int(ask(primary, SIZE)) < before / 2
    assert ask(primary, "SELECT count(*), sum(id) FROM berth_bloat") == rows
    assert ask(primary, EXTENSIONS) == "0"
    for name in MEMBERS:
        found = {file: record for file, record in evidence(lab.hosts[name]).items() if record["kind"] == "maintenance"}
        record = found[max(found)]
        assert record["freed_bytes"] > before / 2
        assert [step["table"] for step in record["done"] if step["what"] == "repack"] == ["public.berth_bloat"]
        assert record["left"] == []
