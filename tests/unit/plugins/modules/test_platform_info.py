# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host beside Docker: its file systems, its certificates, and the words of a container that is not well."""

from __future__ import annotations

import base64
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.plugins.module_utils._psql import Container, PsqlError
from ansible_collections.berth.odoo.plugins.modules import platform_info

NOW = 1_800_000_000


def test_each_file_system_is_read_once_as_df_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postgresql/17").mkdir(parents=True)
    # 5 % are kept for root: what is free and what may be used differ.
    space = SimpleNamespace(f_blocks=1000, f_bfree=150, f_bavail=100, f_frsize=1 << 20)
    monkeypatch.setattr(platform_info.os, "statvfs", lambda path: space)
    found = platform_info.read_disks({str(tmp_path / "postgresql/17"), str(tmp_path), str(tmp_path / "gone")})
    assert found == [{"path": str(tmp_path), "used_percent": 90, "free_mb": 100}]


def test_certificates_of_projects_are_read_without_their_issuers(tmp_path: Path) -> None:
    certificate, key = _authority.create("test", 10, NOW)
    leaf = _authority.issue(_authority.load(certificate, key, NOW), "db1", ["db1"], 1, NOW)
    for project, content in (("etcd", leaf.certificate + certificate), ("redis", "no certificate")):
        (tmp_path / project / "tls").mkdir(parents=True)
        (tmp_path / project / "tls/tls.crt").write_text(content, encoding="ascii")
    etcd, redis = platform_info.read_leaves(str(tmp_path))
    assert etcd == {"server_name": "etcd", "der": base64.b64encode(ssl.PEM_cert_to_DER_cert(leaf.certificate)).decode()}
    assert redis["server_name"] == "redis"
    assert "redis/tls/tls.crt" in redis["error"]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("starting\nlistening\n", "listening"),
        ("starting\nCRITICAL: system ID mismatch\nstarting again\n\n", "CRITICAL: system ID mismatch"),
    ],
)
def test_the_words_that_say_why(log: str, words: str) -> None:
    client: Any = SimpleNamespace(logs=lambda container_id, tail: log)
    assert platform_info.last_words(client, "c0ffee") == words


def test_of_each_instance_the_latest_drill_of_each_kind_is_read(tmp_path: Path) -> None:
    def drilled(minute: int, instance: str, target: str, **more: Any) -> None:
        record = {"instance": instance, "kept": True, "broken": [], "restore_s": 1.0, "rpo_s": None, "found": {"target": target}, **more}
        record["date"] = f"2027-01-15T07:{minute:02}:00Z"
        (tmp_path / f"restore-20270115T07{minute:02}00Z-{instance}.json").write_text(json.dumps(record), encoding="utf-8")

    # As drills of before wrote it.
    drilled(1, "main", "")
    drilled(2, "main", "time 2027-01-14T12:00:00+00:00", of="older", kept=False, broken=["x"])
    drilled(3, "main", f"set {'5a8f0c1e' * 8}", of="newest")
    drilled(4, "shop", "set 1", of="newest", found={})
    # Another host drills now.
    assert platform_info.read_drills(str(tmp_path), NOW, str(tmp_path / "restore"))["found"] == []
    (tmp_path / "restore/secrets").mkdir(parents=True)
    found = platform_info.read_drills(str(tmp_path), NOW, str(tmp_path / "restore"))["found"]
    assert [(one["instance"], one["of"], one["target"], one["kept"]) for one in found] == [
        ("main", "newest", "set 5a8f0c1e", True),
        ("main", "older", "time 2027-01-14T12:00:00+00:00", False),
        ("shop", "newest", "", True),
    ]
    assert [one["broken"] for one in found] == [[], ["x"], []]


def test_backups_are_read_that_a_timer_makes(tmp_path: Path) -> None:
    results, timers = tmp_path / "backup", tmp_path / "wants"
    timers.mkdir()
    an_hour_ago = datetime.fromtimestamp(NOW - 3600, UTC).isoformat()
    database = {
        "time": "t",
        "repository": "offsite",
        "type": "full",
        "last_success": NOW - 86400,
        "listed": True,
        "source": "read from db2",
        "error": "away",
    }
    for instance, result in {
        "main": {"good": {"time": an_hour_ago, "finished": "f", "problems": ["1 file is missing"]}},
        "shop": {"failed": {"finished": "g", "why": "no TLS"}},
        "old": {"failed": {"finished": "h", "why": "no TLS"}},
    }.items():
        (results / instance).mkdir(parents=True)
        (results / instance / "result.json").write_text(json.dumps(result))
    (results / "postgresql.json").write_text(json.dumps(database) + "\n")
    assert platform_info.read_backups(str(results), str(timers), NOW) == [], "no timer, no promise"

    for name in ("berth-postgresql-backup-full.timer", "berth-set@main.timer", "berth-set@shop.timer"):
        (timers / name).touch()
    assert platform_info.read_backups(str(results), str(timers), NOW) == [
        {
            "of": "",
            "repository": "offsite",
            "date": "t",
            "days": 1.0,
            "listed": True,
            "source": "read from db2",
            "problems": ["full backup of the database failed: away"],
        },
        {"of": "main", "repository": "", "date": "f", "days": 0.04, "problems": ["the set of main: 1 file is missing"]},
        {"of": "shop", "repository": "", "date": "g", "days": None, "problems": ["no set of shop was made: no TLS"]},
    ]


def test_the_leader_alone_is_asked_what_an_interrupted_repack_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers: Any = [[["main", 'odd"one']], [{"database": "main", "tables": ["stock_move"]}, {"database": 'odd"one', "tables": []}]]

    def psql(_client: Any, _container: Any, script: str) -> Any:
        asked.append(script)
        if not answers:
            raise PsqlError("psql ended with exit code 3")
        return answers.pop(0)

    monkeypatch.setattr(platform_info, "psql", psql)
    monkeypatch.setattr(platform_info, "find_container", lambda *_words, **_more: Container("c0ffee", ""))
    cluster = {"leader": "db1", "member": "db1", "health": {"damaged": {}}}
    client: Any = None
    for other in (None, {"error": "Patroni does not answer"}, {**cluster, "member": "db2"}, {**cluster, "health": None}):
        assert platform_info.read_repack(client, other) is None
    assert not asked
    assert platform_info.read_repack(client, cluster) == {"found": [{"database": "main", "tables": ["stock_move"]}], "error": ""}
    assert '\\connect -reuse-previous=on "odd""one"\n' in asked[1]
    assert platform_info.read_repack(client, cluster) == {"found": [], "error": "psql ended with exit code 3"}
