# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who changed what is written down on both sides, and nobody changes it unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._ledger import HOST_PATH
from ansible_collections.berth.odoo.tests.support.lab import leaks

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

SYSCTL = "/etc/sysctl.d/80-berth.conf"


class Ledger:
    """Runs with the callback, and what they wrote."""

    def __init__(self, host: Host, play: Player, path: Path) -> None:
        """Nothing was run yet."""
        self.host, self.path, self._play = host, path, play

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        """Run a playbook with the callback enabled."""
        settings = {"ANSIBLE_CALLBACKS_ENABLED": "berth_test,berth.odoo.ledger", "BERTH_LEDGER": str(self.path)}
        return self._play(playbook, *arguments, variables=variables, settings=settings)

    def here(self) -> list[dict[str, Any]]:
        """The records on the controller."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def there(self) -> list[dict[str, Any]]:
        """The records on the host."""
        return [json.loads(line) for line in self.host.run(f"cat {HOST_PATH} 2>/dev/null || true").splitlines()]


@pytest.fixture(scope="module")
def ledger(host: Host, play: Player, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A new one, on a host that has none."""
    host.run(f"rm -f {HOST_PATH}")
    yield Ledger(host, play, tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    host.run(f"rm -f {HOST_PATH}")


def test_a_change_is_written_down_on_both_sides(host: Host, lab: Lab, ledger: Ledger) -> None:
    host.run(f"rm {SYSCTL}")
    run = ledger.play("playbooks/site.yml", "--tags", "host", awx_user_name="jane", harmless="word").expect_success()
    assert run.changed
    start, end, kept = ledger.here()
    assert (start["event"], end["event"], kept["event"]) == ("start", "end", "kept")
    [there] = ledger.there()
    for record in (end, there):
        assert (record["user"], record["variables"], record["tags"]) == ("jane", ["awx_user_name", "harmless"], ["host"])
        assert record["playbook"].endswith("playbooks/site.yml")
        assert record["hosts"][host.name]["changed"] == len(run.changed)
        assert all(any(name in told for told in record["hosts"][host.name]["tasks"]) for name in run.changed)
    assert "word" not in json.dumps(end).replace("password", "")
    assert leaks(lab.secrets(), ledger.path.read_text(encoding="utf-8") + json.dumps(there)) == []
    assert host.run(f"stat -c '%a %U' {HOST_PATH}").strip() == "600 root"


def test_a_run_without_a_change_does_not_touch_the_host(ledger: Ledger) -> None:
    ledger.play("playbooks/site.yml", "--tags", "host").expect_success()
    assert [record["event"] for record in ledger.here()[3:]] == ["start", "end"]
    assert len(ledger.there()) == 1


def test_the_status_says_who_was_last(host: Host, ledger: Ledger) -> None:
    run = ledger.play("playbooks/status.yml").expect_success()
    assert f"Last change of {host.name}: " in run.text
    assert "jane with" in run.text


def test_what_was_changed_or_cut_off_is_named(host: Host, ledger: Ledger) -> None:
    host.run(f"rm {SYSCTL}")
    ledger.play("playbooks/site.yml", "--tags", "host").expect_success()
    assert len(ledger.there()) == 2
    host.run(f"cp -p {HOST_PATH} {HOST_PATH}.whole && sed -i '1s/jane/john/' {HOST_PATH}")
    ledger.play("playbooks/status.yml").expect_refusal(f"{host.name}: {HOST_PATH}: line 2 does not follow the one before it")
    host.run(f"head -n 1 {HOST_PATH}.whole > {HOST_PATH}")
    ledger.play("playbooks/status.yml").expect_refusal(f"{host.name}: its ledger lacks the run that ended at")
    host.run(f"mv {HOST_PATH}.whole {HOST_PATH}")
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    ledger.play("playbooks/status.yml").expect_refusal(f"{host.name}: its ledger has a run of", "on this controller lacks")
    ledger.path.write_bytes(whole)
    ledger.play("playbooks/status.yml").expect_success()


def test_nothing_runs_that_cannot_be_written_down(host: Host, ledger: Ledger) -> None:
    before, whole = host.state(), ledger.path.read_bytes()
    ledger.path.unlink()
    ledger.path.mkdir()
    try:
        run = ledger.play("playbooks/site.yml")
    finally:
        ledger.path.rmdir()
        ledger.path.write_bytes(whole)
    assert run.code != 0
    assert "Nothing was run: the ledger" in run.text
    assert "BERTH_LEDGER" in run.text
    assert run.tasks == []
    assert host.state() == before


def test_a_host_that_cannot_write_it_down_is_named(host: Host, ledger: Ledger) -> None:
    host.run(f"mv {HOST_PATH} {HOST_PATH}.away && mkdir {HOST_PATH} && rm {SYSCTL}")
    try:
        run = ledger.play("playbooks/site.yml", "--tags", "host").expect_success()
    finally:
        host.run(f"rmdir {HOST_PATH} && mv {HOST_PATH}.away {HOST_PATH}")
    assert f"the ledger of {host.name} lacks this run: the ledger {HOST_PATH} cannot be written" in run.text
    assert ledger.here()[-1]["hosts"] == {}
