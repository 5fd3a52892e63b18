# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a copy into what serves: its database into an empty one of the cluster, its files beside an instance's and then in their place, its objects in S3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rules
from copies import Copy
from rules import Refused
from sources import HARDENED, LABEL, ODOO, Failed, Site, as_odoo, run, say

HERE = Path(__file__).resolve().parent
LOAD = """
set -euo pipefail
docker exec "$1" pg_dump --host=/run/postgresql --username=postgres --format=custom --compress=0 --no-owner --no-privileges --dbname="$2" > "$3/dump"
chown "$4" "$3/dump"
docker run --rm --network=none --user "$4" --volume "$3:/dump:ro" --entrypoint=pg_restore "$5" --list /dump/dump |
  grep -vE "^[0-9]+; ([0-9]+ [0-9]+ (EXTENSION|COMMENT - EXTENSION|SCHEMA - public|COMMENT - SCHEMA public)|2615 ($6) )" > "$3/list"
"""

BRING = """
mkdir -p /data/filestore
cd /data/filestore
rm -rf "$database.restoring"
cp -a /copy "$database.restoring"
"""
EXCHANGE = """
[ -d "$database.restoring" ] || exit 0
[ ! -e "$database" ] || mv -T "$database" "{aside}"
mv -T "$database.restoring" "$database"
"""


def load(site: Site, copy: Copy, database: str, project: str) -> dict[str, Any]:
    """Load a copy's database into an empty one of the cluster, as the instance's own role. Raises Refused, Failed.

    Args:
        site: this host.
        copy: the copy.
        database: an empty database of the cluster that has the copy's extensions: most of them are made by the superuser alone.
        project: Compose project of the instance, whose login and way to the primary are used.
    """
    state = copy.exists()
    home = Path("/opt/berth", project)
    if not (home / "secrets/pg_service.conf").is_file():
        raise Refused(f"{home} is no instance on this host")
    options = dict(
        line.split(" = ", 1) for line in (home / "config/maintenance/odoo.conf").read_text(encoding="utf-8").splitlines() if " = " in line
    )
    scratch = copy.directory / "dump"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    os.chown(scratch, 0, ODOO)
    scratch.chmod(0o750)
    image = site.config["server_image"]
    if "autovacuum_gc" in copy.columns(state["database"]).get("fs_storage", {}):
        # What stays aside has its attachments in the same place in S3. Until it is forgotten, nothing is deleted there.
        copy.psql("UPDATE fs_storage SET autovacuum_gc = false WHERE code = 'berth'", state["database"])
    try:
        with copy.step("load: dump"):
            schemas = "|".join(sorted({str(one["schema"]) for one in state["extensions"]}))
            arguments = [copy.server, state["database"], str(scratch), f"{ODOO}:{ODOO}", image, schemas]
            run(["bash", "-c", LOAD, "load", *arguments], what="dumping the copy")
            for name in ("dump", "list"):
                os.chown(scratch / name, 0, ODOO)
                (scratch / name).chmod(0o440)
        with copy.step("load: restore"):
            connection = f"service=odoo host={options['db_host']} port={options['db_port']} dbname={database} sslmode={options.get('db_sslmode', 'prefer')}"
            argv = [
                "docker",
                "run",
                "--rm",
                "--network=berth-data",
                f"--user={ODOO}:{ODOO}",
                *HARDENED,
                "--tmpfs=/tmp:size=64m,mode=1777",
                "--pull=never",
            ]
            argv += [
                f"--volume={home}/secrets:/run/secrets/odoo:ro",
                f"--volume={home}/config/maintenance:/etc/odoo:ro",
                f"--volume={scratch}:/dump:ro",
            ]
            argv += ["--env=PGSERVICEFILE=/run/secrets/odoo/pg_service.conf", "--env=PGSSLROOTCERT=/etc/odoo/ca.crt", f"--label={LABEL}"]
            argv += ["--entrypoint=pg_restore", image, "--no-owner", "--no-privileges", "--exit-on-error", "--use-list=/dump/list"]
            run([*argv, f"--dbname={connection}", "/dump/dump"], what=f"loading the database {database}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"steps": copy.steps, "database": database}


def place_files(site: Site, copy: Copy, instance: dict[str, Any], aside: str) -> dict[str, Any]:
    """Bring a copy's files beside an instance's, or put them in their place. Raises Refused, Failed.

    Args:
        site: this host.
        copy: the copy.
        instance: ``database`` of the instance, and ``data_dir``, Odoo's.
        aside: what the instance's are called from then on. Empty: the copy's are brought, which takes time, and nothing is exchanged.
    """
    source = copy.odoo_data / "filestore" / copy.exists()["database"]
    # Without files in the copy, those of the instance are left: they are in the database, or in S3.
    if not source.is_dir():
        return {"brought": False}
    volumes = [f"{instance['data_dir']}:/data", f"{source}:/copy:ro"]
    script = f"cd /data/filestore; {EXCHANGE.format(aside=aside)}" if aside else BRING
    as_odoo(site.config["server_image"], f"database={instance['database']}; {script}", volumes, what="bringing the files")
    return {"brought": True}


def place_objects(copy: Copy, instance: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what a copy's attachments need in S3 into an instance's place there, and let the copy name that place. Raises Refused, Failed.

    Done again it brings what went meanwhile.

    Args:
        copy: the copy.
        instance: name of the instance, in whose network the work is done: it has the way to S3.
        request: as ``objects.py`` reads it, without ``wanted``; ``record``, columns of the storage that say where.
    """
    state = copy.exists()
    wanted, problems = rules.objects(copy.stored(state["database"]))
    scratch = copy.directory / "objects"
    scratch.mkdir(exist_ok=True)
    os.chown(scratch, ODOO, ODOO)
    scratch.chmod(0o700)
    argv = ["docker", "run", "--rm", "--interactive", f"--name={copy.carrier}", f"--network=berth-odoo-{instance}", f"--user={ODOO}:{ODOO}"]
    argv += [*HARDENED, "--tmpfs=/tmp:size=16m,mode=1777", "--memory=1g", "--pids-limit=100", "--pull=never", f"--label={LABEL}"]
    # The program and the keys come in through a pipe: nothing else of the host sees them, and they are in no file.
    code = "import io, sys; program, _, request = sys.stdin.read().partition('\\0'); sys.stdin = io.StringIO(request); exec(program)"
    argv += [f"--volume={scratch}:/scratch", "--entrypoint=python3", state["plan"]["image"], "-I", "-c", code]
    program = (HERE / "objects.py").read_text(encoding="utf-8")
    given = {**request, "wanted": wanted}
    try:
        with copy.step("objects: copy"):
            # Its progress is on standard error.
            done = subprocess.run(argv, input=f"{program}\0{json.dumps(given)}", stdout=subprocess.PIPE, text=True, check=False)
    finally:
        if copy.container_exists(copy.carrier):
            run(["docker", "rm", "--force", copy.carrier])
        shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode != 0:
        raise Failed(f"copying the attachments in S3 ended with {done.returncode}, what it said is above")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise Failed(answer["error"])
    copy.psql(";\n".join(rules.moving(request["record"], request["owner"], answer["others"])) + ";", state["database"])
    say(f"{copy.name}: {answer['copied']} objects copied, {rules.size(answer['bytes'])}; {answer['there']} were there")
    return {
        "steps": copy.steps,
        **{name: answer[name] for name in ("there", "copied", "bytes")},
        "problems": problems + rules.file_problems(answer["missing"], answer["damaged"]),
    }
