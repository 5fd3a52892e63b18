# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore an instance into a throw-away copy beside what serves, prove it, or load it into the cluster.

    restore.py sets --instance NAME                       what can be restored
    restore.py plan --instance NAME [TARGET] [--raw]      what a restore would do; changes nothing
    restore.py up --instance NAME [TARGET] [--raw]        make a copy: database, files, neutralised Odoo on an internal network
    restore.py remove --name NAME                         remove a copy
    restore.py drill --instance NAME [TARGET] | --all     (of this host) make a copy without any network, prove it, keep the evidence, remove it;
                                                          --more: before it, one of an older set or of a moment, by chance
    restore.py load --name NAME --database NEW …          load a copy's database into an empty one of the cluster
    restore.py files --name NAME --instance NAME [--aside …]  bring a copy's files beside an instance's, then in their place
    restore.py objects --name NAME --instance NAME        bring what a copy names in S3 into an instance's place there; both, with keys, on standard input

TARGET: --set ID | --time TIME | --lsn POSITION | --xid TRANSACTION, all before it; without one the newest set. Answers are JSON on standard output, progress
is on standard error. Runs as root on the host, from playbooks and from a timer alike; config.json beside it says what there is. Needs docker, restic and zstd.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rules
from copies import Copy
from loading import load, place_files, place_objects
from rules import Refused, Target
from sources import Archive, Failed, Files, Job, Site, reading, say

HERE = Path(__file__).resolve().parent


def target_of(options: argparse.Namespace) -> Target:
    """Raises Refused: several were given."""
    given = [Target(kind, value) for kind in ("set", "time", "lsn", "xid") if (value := getattr(options, kind))]
    if len(given) > 1:
        raise Refused(f"give one of set, time, lsn and xid, not {' and '.join(one.kind for one in given)}")
    return given[0] if given and given[0].value != "latest" else Target("latest")


def job_of(site: Site, options: argparse.Namespace) -> Job:
    """What was asked for. Raises Refused, Failed."""
    return Job(site, options.instance, target_of(options), options.repository, options.image)


def drill_one(site: Site, options: argparse.Namespace, name: str, target: Target) -> dict[str, Any]:
    """Prove one target of an instance, and keep the evidence. Returns it."""
    copy = Copy(site, f"{name}.drill")
    with copy.locked(), reading(name):
        began = datetime.now(UTC)
        try:
            record = copy.drill(Job(site, name, target, options.repository, options.image), newest=target.kind == "latest")
        except (Failed, Refused) as error:
            # A drill that could not begin is one that failed: whoever needs the backup now cannot begin either.
            found = {"target": " ".join(target).strip()}
            objectives = site.config.get("promises") or {}
            record = rules.evidence(instance=name, began=began, steps=copy.steps, found=found, problems=[str(error)], objectives=objectives)
    # Neither proves the other.
    record["of"] = "newest" if target.kind == "latest" else "older"
    site.evidence_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    file = site.evidence_dir / rules.evidence_name(record)
    file.write_text(json.dumps(record, indent=4, sort_keys=True) + "\n", encoding="utf-8")
    file.chmod(0o444)
    for line in rules.lines(record):
        say(line)
    return record


def drill(site: Site, options: argparse.Namespace) -> int:
    """Prove one instance or all of them, with --more also what somebody may want who found a mistake late. Returns the exit code."""
    records = []
    for name in site.config["drilled"] if options.all else [options.instance]:
        if options.more:
            # Before the newest one, which says it when nothing can be asked.
            with contextlib.suppress(Failed, Refused):
                job = Job(site, name, Target("latest"), options.repository, options.image)
                if target := rules.older(job.files.snapshots, job.archive.backups, secrets.SystemRandom()):
                    records.append(drill_one(site, options, name, target))
        records.append(drill_one(site, options, name, target_of(options)))
    kept = all(record["kept"] for record in records)
    print(json.dumps({"kept": kept, "records": records, "lines": [line for record in records for line in rules.lines(record)]}))
    return 0 if kept else 3


def sets(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """What an instance can go back to."""
    site.instance(options.instance)
    files = Files(site, site.repository(options.repository), options.instance)
    ordered = sorted(files.snapshots, key=rules.snapshot_time)
    return {"sets": [{"id": one["id"][:8], "time": rules.stamp(rules.snapshot_time(one)), "bytes": files.size(one)} for one in ordered]}


def archive(site: Site, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Why the end of a set cannot be reached, by the repository's name: C(missing) WAL and since when there are backups, or C(unknown), why nobody could look.

    PostgreSQL does not know: what was dropped counts as archived there.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(site.config["repositories"], 1):
        try:
            there = Archive(site, {**one, "number": number}, site.config["stanza"])
            backup = rules.pick_backup(there.known, Target("lsn", options.lsn), there.left(int(options.segment[:8], 16)))
            found[one["name"]] = {"missing": there.gap(backup, options.segment), "since": rules.oldest(there.backups)}
        except (Refused, Failed) as error:
            found[one["name"]] = {"unknown": " ".join(str(error).split())}
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "config.json")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("archive", "sets", "plan", "up", "drill", "remove", "load", "files", "objects"):
        command = commands.add_parser(name)
        command.add_argument("--instance", default="")
        command.add_argument("--name", default="")
        command.add_argument("--repository", default="")
        for option in ("set", "time", "lsn", "xid", "segment", "image"):
            command.add_argument(f"--{option}", default="")
        command.add_argument("--raw", action="store_true")
        command.add_argument("--anonymise", action="store_true")
        command.add_argument("--all", action="store_true")
        command.add_argument("--more", action="store_true")
        command.add_argument("--database", default="")
        command.add_argument("--project", default="")
        command.add_argument("--aside", default="")
    return parser.parse_args()


def perform(site: Site, options: argparse.Namespace) -> int:
    """Do it and print the answer. Raises Refused, Failed."""
    if options.command == "drill":
        return drill(site, options)
    answer: Any
    if options.command == "archive":
        answer = archive(site, options)
    elif options.command == "sets":
        answer = sets(site, options)
    elif options.command == "plan":
        answer = job_of(site, options).plan(raw=options.raw)
    else:
        copy = Copy(site, options.name or options.instance)
        with copy.locked():
            if options.command == "up":
                with reading(options.instance):
                    answer = copy.up(job_of(site, options), raw=options.raw, anonymise=options.anonymise)
            elif options.command == "remove":
                answer = {"removed": copy.remove()}
            elif options.command == "load":
                answer = load(site, copy, options.database, options.project)
            elif options.command == "objects":
                answer = place_objects(copy, options.instance, json.load(sys.stdin))
            else:
                answer = place_files(site, copy, site.instance(options.instance), options.aside)
    print(json.dumps(answer))
    return 0


def told_to_stop(_number: int, _frame: object) -> None:
    """Turn a signal into an exception. Raises Failed."""
    raise Failed("it was told to stop")


def main() -> int:
    """Command line."""
    options = arguments()
    # Stopped by systemd or by a person, it cleans up as after a failure.
    signal.signal(signal.SIGTERM, told_to_stop)
    try:
        return perform(Site(options.config), options)
    except (Refused, Failed) as error:
        print(re.sub(r"\s+", " ", str(error)), file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
