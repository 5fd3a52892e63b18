# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore takes for a target, and what drills of several leave, with repositories that answer at once."""

from __future__ import annotations

import fcntl
import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "roles/restore/files"
MODULES = ("rules", "sources", "copies", "loading", "restore")

SETS = {
    "a": {"time": "2026-11-25T11:00:00Z", "lsn": "0/5000000", "image": {"id": "sha256:old"}, "attachments": {"location": "files"}},
    "b": {"time": "2026-11-25T12:00:00Z", "lsn": "0/7000000", "image": {"id": "sha256:old"}, "attachments": {"location": "files"}},
    # Of a release, with which attachments went to S3.
    "c": {"time": "2026-11-25T13:00:00Z", "lsn": "0/9000000", "image": {"id": "sha256:new"}, "attachments": {"location": "s3"}},
    "d": {"time": "2026-11-25T14:00:00Z", "lsn": "0/B000000", "image": {"id": "sha256:new"}, "attachments": {"location": "s3"}},
}
INSTANCE = {"database": "main", "data_dir": "/var/lib/berth/odoo/main", "login": "admin"}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program restore.py, whose modules find each other beside it."""
    monkeypatch.syspath_prepend(str(PROGRAM))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("restore")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def sources(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Its module sources, with four sets and one backup."""
    module = importlib.import_module("sources")
    gaps: set[str] = set()
    monkeypatch.setattr(module, "gaps", gaps, raising=False)

    class Files:
        def __init__(self, *_of: Any) -> None:
            self.snapshots = self.every = [{"id": name * 64, "time": one["time"], "paths": []} for name, one in SETS.items()]

        def manifest(self, one: dict[str, Any]) -> dict[str, Any]:
            return {"database": "main", "system_identifier": "7", "timeline": 1, **SETS[one["id"][0]]}

    class Archive:
        def __init__(self, *_of: Any) -> None:
            self.backups = [{"label": "full", "timestamp": {"stop": 0}, "lsn": {"stop": "0/1"}, "archive": {"stop": "0000000100000000"}}]
            self.known = {"db": [{"system-id": 7}], "backup": self.backups}

        def gap(self, _backup: Any, segment: str) -> str:
            return f"{segment} is missing" if segment in gaps else ""

        def hole(self, _backup: Any, point: Any) -> str:
            return f"WAL before {' '.join(point)} is missing" if gaps else ""

        def left(self, timeline: int = 0) -> dict[int, int]:
            return {timeline or 1: 1 << 64}

        def ending(self, number: int) -> Any:
            return module.Ending(number, True, "0/8000000", "2026-11-25T12:30:00+00:00")

    monkeypatch.setattr(module, "Files", Files)
    monkeypatch.setattr(module, "Archive", Archive)
    monkeypatch.setattr(module.Job, "find_image", lambda self, wanted: wanted or self.manifest["image"]["id"])
    return module


def site(directory: Path) -> Any:
    return SimpleNamespace(
        config={"stanza": "berth", "drilled": ["main"]},
        evidence_dir=directory,
        instance=lambda name: INSTANCE,
        repository=lambda name: {"name": "near"},
    )


@pytest.mark.parametrize(
    ("kind", "value", "image", "location", "sets"),
    [
        ("latest", "", "new", "s3", "d"),
        ("set", "a" * 8, "old", "files", "a"),
        ("time", "2026-11-25T11:30:00Z", "old", "files", "ab"),
        # Between them was the release: files that the database of then names are wanted.
        ("time", "2026-11-25T12:30:00Z", "old", "files", "bc"),
        ("time", "2026-11-25T13:30:00Z", "new", "s3", "cd"),
        # Before the first set, and after the last one.
        ("time", "2026-11-25T10:30:00Z", "old", "files", "a"),
        ("time", "2026-11-25T14:30:00Z", "new", "s3", "d"),
        ("lsn", "0/8FFFFFF", "old", "files", "cd"),
        ("lsn", "0/9000000", "new", "s3", "cd"),
        ("lsn", "0/2", "old", "files", "cd"),
        ("xid", "4711", "old", "files", "bc"),
    ],
)
def test_a_moment_is_restored_with_what_was_before_it(
    sources: ModuleType, tmp_path: Path, kind: str, value: str, image: str, location: str, sets: str
) -> None:
    job = sources.Job(site(tmp_path), "main", sources.Target(kind, value), "", "")
    assert job.image == f"sha256:{image}"
    assert job.manifest["attachments"]["location"] == location
    assert "".join(one["id"][0] for one in job.snapshots) == sets
    assert (job.set_manifest is None) == (kind not in ("latest", "set"))
    assert job.database == "main"


@pytest.mark.parametrize("kind", ["latest", "set"])
def test_a_set_without_its_wal_is_refused_before_anything_is_restored(
    sources: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    sources.gaps.add("00000001000000000000000B")
    # One that is being made: it arrives.
    monkeypatch.setattr(sources, "YOUNG_S", float("inf"))
    sources.Job(site(tmp_path), "main", sources.Target(kind, "d" * 8), "", "")
    monkeypatch.setattr(sources, "YOUNG_S", float("-inf"))
    with pytest.raises(
        sources.Refused, match=r"the set d{8} of 2026-11-25T14:00:00Z cannot be restored: 00000001000000000000000B is missing"
    ):
        sources.Job(site(tmp_path), "main", sources.Target(kind, "d" * 8), "", "")
    assert sources.Job(site(tmp_path), "main", sources.Target("set", "c" * 8), "", "").snapshots


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (
            "time",
            "2026-11-25T12:30:00Z",
            "time 2026-11-25T12:30:00Z cannot be restored: WAL before time 2026-11-25T12:30:00Z is missing. Name a moment before",
        ),
        ("lsn", "0/9000000", "lsn 0/9000000 cannot be restored: WAL before lsn 0/9000000 is missing"),
        # Newer than every set, and so perhaps of this minute.
        ("lsn", "0/C000000", ""),
        ("xid", "4711", "xid 4711 cannot be restored: WAL before lsn 0/8000000 is missing"),
    ],
)
def test_a_moment_behind_a_hole_in_the_wal_is_refused_before_anything_is_restored(
    sources: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, value: str, why: str
) -> None:
    sources.Job(site(tmp_path), "main", sources.Target(kind, value), "", "")
    sources.gaps.add("any")
    # What is half an hour old at most may be on its way.
    now = sources.datetime(2026, 11, 25, 14, 20, tzinfo=sources.UTC)
    monkeypatch.setattr(sources, "datetime", SimpleNamespace(now=lambda _zone: now))
    if why:
        with pytest.raises(sources.Refused, match=why):
            sources.Job(site(tmp_path), "main", sources.Target(kind, value), "", "")
    else:
        sources.Job(site(tmp_path), "main", sources.Target(kind, value), "", "")
    sources.Job(site(tmp_path), "main", sources.Target("time", "2026-11-25T14:00:00Z"), "", "")


def segment(number: int) -> str:
    return f"17-1/0000000100000000/00000001000000000000000{number:X}-{'0' * 40}.zst"


@pytest.mark.parametrize(
    ("there", "kind", "value", "why"),
    [
        ("123456", "time", "2026-11-25T11:00:00+00:00", ""),
        # Nothing follows: it may be on its way, and what is said of it is said by PostgreSQL.
        ("123", "lsn", "0/5000100", ""),
        ("12356", "lsn", "0/3000100", ""),
        ("12356", "lsn", "0/4000100", "000000010000000000000004."),
        ("12389", "lsn", "0/9000100", "000000010000000000000004 to 000000010000000000000007."),
        # The last transaction before the hole, of segment 2, ended at 10:00.
        ("12356", "time", "2026-11-25T09:59:59+00:00", ""),
        ("12356", "time", "2026-11-25T10:00:00+00:00", ""),
        ("12356", "time", "2026-11-25T10:00:00.5+00:00", "What is before that ends at 2026-11-25T10:00:00.5"),
        ("12356", "time", "2026-11-25T10:00:01+00:00", "000000010000000000000004."),
        ("1356", "time", "2026-11-25T10:00:01+00:00", "What is before that ends with the backup"),
        ("356", "time", "2026-11-25T10:00:01+00:00", "000000010000000000000001 to 000000010000000000000002, 000000010000000000000004."),
    ],
)
def test_a_hole_counts_for_what_is_behind_it(program: ModuleType, there: str, kind: str, value: str, why: str) -> None:
    archive = object.__new__(importlib.import_module("sources").Archive)
    backup = {"label": "full", "database": {"id": 1}, "archive": {"start": "000000010000000000000001"}}
    archive.stanza, archive.known = "berth", {"archive": [{"id": "17-1", "database": {"id": 1}}]}
    archive.listed = [segment(int(one)) for one in there]
    ended = "rmgr: Transaction len (rec/tot):     34/    34, tx:        739, lsn: 0/02000100, prev 0/02000028, desc: COMMIT 2026-11-25 10:00:00.5 UTC\n"
    archive.records = lambda segments, _names: ended if segments == ["000000010000000000000002"] else ""
    found = archive.hole(backup, importlib.import_module("rules").Target(kind, value))
    assert why in found and bool(found) is bool(why), found


def test_the_wal_of_a_set_is_looked_for_where_its_backup_has_it(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("sources")
    old, new = ({"label": one, "database": {"id": one}, "timestamp": {"stop": one}} for one in (1, 2))
    stanza = {
        "name": "berth",
        "backup": [old, new],
        "archive": [{"id": "17-1", "database": {"id": 1}}, {"id": "17-2", "database": {"id": 2}}],
    }
    names = [f"17-{one}/0000000100000000/00000001000000000000000{one}-{'0' * 40}.zst" for one in (1, 2)]
    monkeypatch.setattr(module.Archive, "pgbackrest", lambda _self, words, **_of: json.dumps([stanza] if words[0] == "info" else names))
    archive = module.Archive(None, {}, "berth")
    # The newest backup is one of the cluster after it was made anew.
    assert not archive.gap({**old, "archive": {"start": "000000010000000000000001"}}, "000000010000000000000001")
    assert archive.gap({**old, "archive": {"start": "000000010000000000000001"}}, "000000010000000000000002")


@pytest.mark.parametrize("replays", [True, False])
def test_replaying_may_take_hours_while_it_goes_on(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replays: bool
) -> None:
    copies = importlib.import_module("copies")
    clock = [0.0]

    def docker(argv: list[str], **_of: Any) -> SimpleNamespace:
        if argv[1] == "exec":
            clock[0] += 600
        hour = int(clock[0] // 3600) if replays else 0
        output = f"1 postgres: startup recovering {hour:024X}\n" if argv[1] == "top" else ""
        return SimpleNamespace(returncode=int(clock[0] < 36000), stdout=output, stderr="")

    monkeypatch.setattr(copies.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(copies.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(copies.subprocess, "run", docker)
    monkeypatch.setattr(copies, "run", lambda _argv, **_of: "true")
    monkeypatch.setattr(copies.rules, "server_settings", lambda _control: [])
    copy = copies.Copy(SimpleNamespace(data_dir=tmp_path), "main")
    job = SimpleNamespace(site=SimpleNamespace(config={"server_image": "postgresql"}))
    if replays:
        copy.start_server(job, "main", [])
        assert clock[0] >= 36000
    else:
        with pytest.raises(program.Failed, match=r"startup recovering 0+ for 60 minutes"):
            copy.start_server(job, "main", [])


@pytest.mark.parametrize("begun", [True, False])
def test_the_newest_set_s_drill_does_not_take_the_place_of_an_older_one_s(
    program: ModuleType, sources: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    class Copy:
        def __init__(self, *_of: Any) -> None:
            self.steps: dict[str, float] = {}

        def locked(self) -> Any:
            return nullcontext()

        def drill(self, job: Any, *, newest: bool) -> dict[str, Any]:
            with (tmp_path / "berth-files-main").open("a", encoding="utf-8") as file, pytest.raises(BlockingIOError):
                # What would delete packs that are read here.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not begun and not newest:
                raise program.Refused("the image of the set is not on this host")
            found = {"target": job.words, "position": job.position}
            began, problems = program.datetime.now(program.UTC), [] if newest else ["damaged"]
            made: dict[str, Any] = program.rules.evidence(
                instance=job.name, began=began, steps={}, found=found, problems=problems, objectives={}
            )
            return made

    monkeypatch.setattr(program, "Copy", Copy)
    monkeypatch.setattr(program, "Job", sources.Job)
    monkeypatch.setattr(sources, "LOCKS", tmp_path)
    options = Namespace(all=True, more=True, repository="", image="", set="", time="", lsn="", xid="")
    assert program.drill(site(tmp_path), options) == 3
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(tmp_path.glob("restore-*.json"))]
    assert sorted((record["of"], record["kept"]) for record in records) == [("newest", True), ("older", False)]


def test_without_a_set_the_newest_timeline_of_the_archive_is_followed(program: ModuleType) -> None:
    archive = object.__new__(importlib.import_module("sources").Archive)
    archive.stanza = "berth"
    archive.names = [
        "17-1",
        "17-1/0000000100000000",
        f"17-1/0000000100000000/0000000100000000000000A0-{'0' * 40}.zst",
        "17-1/00000002.history",
    ]
    asked = []
    archive.pgbackrest = lambda arguments, *, what: asked.append(arguments) or "1\t0/7000000\tno recovery target specified\n"
    assert archive.left() == {1: 0x7000000, 2: 1 << 64}
    assert asked == [["repo-get", "archive/berth/17-1/00000002.history"]]
    assert archive.left(1) == {1: 1 << 64}


# What pg_restore 17 lists of a database that has citext in a schema of its own.
LIST = """\
;
; Archive created at 2026-11-30 07:06:18 UTC
6; 2615 16400 SCHEMA - odd x odoo
7; 2615 24570 SCHEMA - mine odoo
5; 2615 2200 SCHEMA - public odoo
2; 3079 16401 EXTENSION - pgcrypto
3600; 0 0 COMMENT - EXTENSION pgcrypto
223; 1259 16400 TABLE public a odoo
3601; 0 16400 TABLE DATA public a odoo
"""


def test_extensions_are_there_before_what_needs_them_is_loaded(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in {"docker": f"case $1 in run) cat <<'L'\n{LIST}L\n;; esac", "chown": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script = importlib.import_module("loading").LOAD
    importlib.import_module("sources").run(["bash", "-c", script, "load", "server", "main", str(tmp_path), "0:0", "image", "11|16400|2200"])
    kept = [line.split()[3] for line in (tmp_path / "list").read_text(encoding="utf-8").splitlines() if not line.startswith(";")]
    assert kept == ["SCHEMA", "TABLE", "TABLE"]


def test_a_copy_says_how_its_extensions_are_made_and_forgets_pg_repack(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = importlib.import_module("copies")
    asked: list[tuple[list[str], str]] = []
    monkeypatch.setattr(copies, "run", lambda argv, *, stdin, what: asked.append((argv, stdin)) or '{"schema": 2200, "make": "x"}\n')
    copy = copies.Copy(SimpleNamespace(data_dir=Path("/nowhere")), "main.place")
    copy.login = "odoo"
    assert copy.psql(copies.EXTENSIONS, "main", login="postgres") == [{"schema": 2200, "make": "x"}]
    copy.psql("SELECT 1", "main")
    (argv, script), (other, _) = asked
    assert script.index("DROP EXTENSION IF EXISTS pg_repack CASCADE;") < script.index("SELECT")
    # An instance's role may have functions there that are called as PostgreSQL's.
    assert {"--username=postgres", "--dbname=main", "--env=PGOPTIONS=-c search_path=pg_catalog,pg_temp"} <= set(argv)
    assert "--username=odoo" in other and not any("PGOPTIONS" in word for word in other)
