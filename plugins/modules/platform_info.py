#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_info
short_description: Read the state of one host's services, database cluster and served certificates
version_added: 0.1.0
description:
  - Asks the Docker API for every container that M(berth.odoo.compose_project) manages, its health and its memory.
  - Services that a project's manifest names and that have no container are reported as C(missing).
  - Asks Patroni for the cluster where a member runs on this host, and PostgreSQL for its own ills.
  - Reads how full the file systems are that the containers write to, and the certificates that M(berth.odoo.compose_project) gave them.
  - Performs a TLS handshake for each given server name and returns the certificate that was really served.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  base_dir:
    description: Directory that holds the projects.
    type: path
    default: /opt/berth
  floating_address:
    description: IPv4 address that this host shares with others. Empty where it shares none.
    type: str
    default: ""
  server_names:
    description: Names to ask a certificate for. Empty where the host serves none.
    type: list
    elements: str
    default: []
  https_address:
    description: Address on this host that answers TLS.
    type: str
    default: 127.0.0.1
  https_port:
    description: Port that answers TLS.
    type: int
    default: 443
  timeout:
    description: Seconds to wait for Patroni and for each TLS handshake.
    type: float
    default: 10.0
"""

EXAMPLES = r"""
- name: Read the state of the host
  berth.odoo.platform_info:
    server_names: [odoo.example.com]
  register: __platform
"""

RETURN = r"""
services:
  description: One entry a service; missing ones included.
  returned: always
  type: list
  elements: dict
  contains:
    project:
      description: "Compose project."
      type: str
    service:
      description: "Service of the project."
      type: str
    state:
      description: "Docker's state (running, exited, restarting, …) or C(missing)."
      type: str
    health:
      description: "One of C(healthy), C(unhealthy), C(starting), or C(none) where the service has no health check."
      type: str
    exit_code:
      description: "Exit code of a container that is not running."
      type: int
    restarts:
      description: "Restarts since the container was created."
      type: int
    started_at:
      description: "ISO 8601 time of the last start."
      type: str
    image:
      description: "Reference that the container was created from."
      type: str
    image_id:
      description: "Identifier of the image (sha256)."
      type: str
    version:
      description: "Label org.opencontainers.image.version of the image."
      type: str
    memory_bytes:
      description: "Memory in use without the page cache that can be dropped."
      type: int
    memory_limit_bytes:
      description: "Limit of the container; 0 without."
      type: int
    sources:
      description: "Directories of the host that it writes to."
      type: list
      elements: str
    last_words:
      description: "Where it does not run or is not healthy, the last line of its log that says why, else the last line."
      type: str
  sample: [{project: redis, service: redis, state: running, health: healthy, restarts: 0}]
postgresql:
  description: The cluster as M(berth.odoo.postgresql_cluster_info) returns it, C(error) when Patroni does not answer, V(null) where no member runs here.
  returned: always
  type: dict
repack:
  description:
    - What an interrupted C(pg_repack) left, V(null) where the leader of the cluster does not run.
    - C(found), one entry a database with C(database) and C(tables), those that have its trigger; C(error), why that cannot be read.
  returned: always
  type: dict
  sample: {found: [{database: main, tables: [stock_move]}], error: ""}
redis:
  description:
    - What the Sentinel of this host says of several Redis, V(null) where none runs here; C(error) when it does not answer.
    - C(primary), its host, and C(epoch), how often that has changed; C(replicas), by host whether it has what the primary has; C(sentinels), by host
      whether it answers this one.
  returned: always
  type: dict
  sample: {primary: cache1, epoch: 3, replicas: {cache2: true, cache3: true}, sentinels: {cache2: true, cache3: true}}
disks:
  description: One entry a file system that a container writes to, with C(path), C(used_percent) and C(free_mb).
  returned: always
  type: list
  elements: dict
  sample: [{path: /var/lib/berth, used_percent: 41, free_mb: 61440}]
leaves:
  description: One entry a project with a certificate of the platform's authority, C(server_name) being the project, with C(der) (base64) or C(error).
  returned: always
  type: list
  elements: dict
huge_pages:
  description: C(wanted), how many the role C(host) keeps at each boot; C(reserved), how many the kernel keeps now.
  returned: always
  type: dict
  sample: {wanted: 2208, reserved: 2208}
watchdog:
  description:
    - What resets this host when the Patroni here hangs, V(null) where no member runs or none is wanted.
    - C(mode), V(automatic) or V(required); C(there), whether the kernel has one; C(held), whether Patroni holds it, as a leader does; C(active), whether
      anybody does; C(identity) and C(timeout), in seconds.
  returned: always
  type: dict
  sample: {mode: automatic, there: true, held: true, active: true, identity: Software Watchdog, timeout: 25}
certificates:
  description: One entry a server name, with C(der) (base64) or C(error).
  returned: always
  type: list
  elements: dict
drained:
  description: Application hosts that the edge on this host leaves out, and since when.
  returned: always
  type: dict
  sample: {app2: "2026-11-25T02:00:00Z"}
floating:
  description:
    - What O(floating_address) is to this host, empty without one.
    - C(address); C(held), whether the host has it; C(drained), since when it shall not.
  returned: always
  type: dict
  sample: {address: 203.0.113.9, held: true, drained: ""}
drills:
  description:
    - C(scheduled), whether a timer of this host restores backups; C(found), of each instance the latest drill of its newest set, and of anything older.
    - Nothing is found on a host that has no keys for it any more, because another one drills.
    - An entry has C(instance), C(of), V(newest) or V(older), C(target), what was restored, C(date), C(days), its age, C(kept), C(broken), C(restore_s) and
      C(rpo_s).
  returned: always
  type: dict
  sample:
    scheduled: true
    found:
      - {instance: main, of: newest, target: set 5a8f0c1e, date: "2026-11-22T05:03:11Z", days: 2.9, kept: true, broken: [], restore_s: 72.5, rpo_s: 1260.0}
backups:
  description:
    - What the timers of this host back up, and how the latest went; of the database for each repository, of an instance its set.
    - An entry has C(of), an instance, or empty for the database; C(repository), empty for a set; C(date), when it was tried; C(days), the age of the latest
      that is good, or V(null); C(problems), what is wrong; of the database C(source), which member's files were read, empty where there is one, and
      C(listed), whether the repository said which backups it has; without that, C(days) is of what this member made itself.
  returned: always
  type: list
  elements: dict
  sample: [{of: main, repository: "", date: "2026-11-25T12:39:26Z", days: 0.02, problems: []}]
ledger:
  description:
    - What runs of Ansible have written down on this host, see P(berth.odoo.ledger#callback), V(null) without a ledger.
    - C(lines), how many; C(problems), where the chain does not hold; C(latest), the last ones.
  returned: always
  type: dict
  sample: {lines: 12, problems: [], latest: []}
docker_error:
  description: Why the Docker engine could not be asked; empty when it answered.
  returned: always
  type: str
"""

import base64
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _ledger, _machine, _maintenance, _status
from ..module_utils._compose_host import MANIFEST
from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._patroni_api import PatroniError, container_hosts, own_api, read_health
from ..module_utils._patroni_api import read_cluster as read_cluster_of
from ..module_utils._psql import PsqlError, find_container, identifier, psql

# The label that compose_project gives every container.
MANAGED = "berth.managed=true"


def memory(client: DockerClient, container_id: str) -> tuple[int | None, int]:
    """Return (bytes in use without droppable page cache, limit in bytes or 0), as C(docker stats) computes it."""
    stats = client.get(f"/containers/{container_id}/stats", stream=False, **{"one-shot": True}).get("memory_stats", {})
    if "usage" not in stats:
        return None, 0
    details = stats.get("stats", {})
    # cgroup v1 names it total_inactive_file, v2 inactive_file.
    droppable = details.get("total_inactive_file", details.get("inactive_file", 0))
    return max(0, stats["usage"] - droppable), stats.get("limit", 0)


def last_words(client: DockerClient, container_id: str) -> str:
    """Return why a container that is not well is not: the last line that says so loudly, or else the last line."""
    lines = [line.strip() for line in client.logs(container_id, 40).splitlines() if line.strip()]
    # One that starts again and again says little after its next start.
    loud = [line for line in lines if re.search(r"\b(CRITICAL|FATAL|PANIC)\b", line)]
    return (loud or lines or [""])[-1]


def read_services(client: DockerClient) -> list[dict[str, Any]]:
    """Return one entry for each container that the collection manages, one-shot ones excepted."""
    services = []
    for listed in client.get("/containers/json", all=True, filters={"label": [MANAGED]}):
        labels = listed["Labels"]
        if labels.get("com.docker.compose.oneoff") == "True":
            continue
        inspected = client.get(f"/containers/{listed['Id']}/json")
        state = inspected["State"]
        used, limit = memory(client, listed["Id"]) if state["Running"] else (None, 0)
        health = state.get("Health", {}).get("Status", "none")
        well = state["Status"] == "running" and health in ("healthy", "none")
        services.append(
            {
                "project": labels.get("com.docker.compose.project"),
                "service": labels.get("com.docker.compose.service"),
                "state": state["Status"],
                "health": health,
                "exit_code": state["ExitCode"],
                "restarts": inspected["RestartCount"],
                "started_at": state["StartedAt"],
                "image": inspected["Config"]["Image"],
                "image_id": inspected["Image"],
                "version": inspected["Config"].get("Labels", {}).get("org.opencontainers.image.version"),
                "memory_bytes": used,
                "memory_limit_bytes": inspected["HostConfig"].get("Memory") and limit,
                "sources": [
                    mount["Source"] for mount in inspected["Mounts"] if mount.get("RW") and mount.get("Source", "").startswith("/")
                ],
                "last_words": "" if well else last_words(client, listed["Id"]),
            }
        )
    return sorted(services, key=lambda service: (service["project"], service["service"]))


def add_missing(services: list[dict[str, Any]], base_dir: str) -> list[dict[str, Any]]:
    """Add an entry for each service that a project's manifest names and that has no container."""
    present = {(service["project"], service["service"]) for service in services}
    missing: list[dict[str, Any]] = []
    for project in sorted(os.listdir(base_dir)) if os.path.isdir(base_dir) else []:
        try:
            with open(os.path.join(base_dir, project, MANIFEST), encoding="utf-8") as manifest:
                wanted = json.load(manifest)["config_hashes"]
        except (FileNotFoundError, NotADirectoryError):  # not a project, or a file such as the host's own key
            continue
        missing.extend(
            {"project": project, "service": service, "state": "missing", "health": "none"}
            for service in wanted
            if (project, service) not in present
        )
    return sorted(services + missing, key=lambda service: (service["project"], service["service"]))


def read_cluster(client: DockerClient, base_dir: str, timeout: float) -> dict[str, Any] | None:
    """Return the cluster as postgresql_cluster_info does, or why Patroni does not say; None where no member runs here."""
    container = find_container(client, "postgresql", "postgresql", optional=True)
    if container is None or not container.address:
        return None
    tls_dir = f"{base_dir}/postgresql/tls"
    try:
        own = own_api(container, tls_dir, timeout)
        return read_cluster_of(own, tls_dir, container_hosts(client, container), read_health(client, container))
    except PatroniError as error:
        return {"error": str(error)}


def read_repack(client: DockerClient, cluster: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what an interrupted pg_repack left in the databases, or why that cannot be read; None where the leader does not run."""
    # A server that does not answer is a problem already.
    if not cluster or not cluster.get("health") or cluster["leader"] != cluster["member"]:
        return None
    try:
        container = find_container(client, "postgresql", "postgresql", optional=False)
        [names] = psql(client, container, _maintenance.WHERE_REPACK)
        script = "".join(_maintenance.LEFT_BY_REPACK.format(dbname=identifier(name)) for name in names)
        return {"found": [one for one in psql(client, container, script) if one["tables"]], "error": ""}
    except PsqlError as error:
        return {"found": [], "error": str(error)}


def read_watchdog(client: DockerClient, base_dir: str) -> dict[str, Any] | None:
    """Return what the watchdog of this host is to the Patroni on it; None where no member runs or none is wanted."""
    container = find_container(client, "postgresql", "postgresql", optional=True)
    settings = _machine.read(Path(base_dir, "postgresql/config/patroni.yml"))
    mode = re.search(r"^watchdog:\n +mode: (automatic|required)$", settings, re.MULTILINE)
    if container is None or mode is None:
        return None
    top = client.get(f"/containers/{container.id}/top")
    processes = [dict(zip(top["Titles"], line, strict=True)) for line in top["Processes"]]
    patroni = [int(process["PID"]) for process in processes if "patroni" in process["CMD"]]
    return {"mode": mode[1], "held": _machine.holds(patroni, _machine.WATCHDOG), **_machine.watchdog(Path("/"))}


# The password is in the first line that the client reads, and in no argument.
ASK_SENTINEL = (
    "sh",
    "-c",
    "cat /etc/redis-secrets/login - | redis-cli --json -p 26379 --tls --cacert /etc/redis-tls/ca.crt 2> /dev/null",
)
SENTINEL_QUESTIONS = b"SENTINEL MASTER berth\nSENTINEL REPLICAS berth\nSENTINEL SENTINELS berth\n"


def read_redis(client: DockerClient) -> dict[str, Any] | None:
    """Return what the Sentinel of this host says, or why it says nothing; None where none runs here."""
    container = find_container(client, "redis", "sentinel", optional=True)
    if container is None:
        return None
    try:
        done = client.exec(container.id, ASK_SENTINEL, stdin=SENTINEL_QUESTIONS)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        if len(answers) != 4 or not all(isinstance(answer, list) for answer in answers[1:]):
            return {"error": f"the Sentinel of this host does not answer: {' '.join((done.stdout or done.stderr).split())[:200]}"}
        return _status.sentinel_view(*answers[1:])
    except (DockerError, ValueError) as error:
        return {"error": f"the Sentinel of this host cannot be asked: {error}"}


def read_disks(sources: set[str]) -> list[dict[str, Any]]:
    """Return how full each file system is that holds one of some directories, as df says it."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(sources):
        try:
            device, space = os.stat(path).st_dev, os.statvfs(path)
        except FileNotFoundError:  # removed since the container was made
            continue
        used = space.f_blocks - space.f_bfree
        # The shortest path names it best.
        if space.f_blocks and (device not in found or len(path) < len(found[device]["path"])):
            found[device] = {
                "path": path,
                "used_percent": -(-100 * used // max(1, used + space.f_bavail)),
                "free_mb": space.f_bavail * space.f_frsize >> 20,
            }
    return sorted(found.values(), key=lambda disk: disk["path"])


def read_leaves(base_dir: str) -> list[dict[str, str]]:
    """Return the certificates that compose_project gave the projects of this host: project, DER in base64 or why it cannot be read."""
    found = []
    for file in sorted(Path(base_dir).glob("*/tls/tls.crt")):
        try:
            der = ssl.PEM_cert_to_DER_cert(
                file.read_text(encoding="ascii").partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
            )
        except (OSError, ValueError) as error:
            found.append({"server_name": file.parts[-3], "error": f"{file}: {error}"})
        else:
            found.append({"server_name": file.parts[-3], "der": base64.b64encode(der).decode()})
    return found


def read_floating(address: str) -> dict[str, Any]:
    """Return what a floating address is to this host."""
    found = _machine.floating(Path("/"), address, address) if address else {}
    return {key: found[key] for key in ("address", "held", "drained") if found}


def read_drills(evidence_dir: str, now: float, home: str) -> dict[str, Any]:
    """Return whether restores are drilled here, and of each instance the latest one of its newest set and the latest one of anything older."""
    # Without keys nothing is: another host does it now, and what failed here would be a problem for ever.
    if not Path(home, "secrets").is_dir():
        return {"scheduled": False, "found": []}
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    # Their names are their times.
    for file in sorted(Path(evidence_dir).glob("restore-*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        of = record.get("of", "newest")
        latest[record["instance"], of] = {
            **{key: record[key] for key in ("instance", "date", "kept", "broken", "restore_s", "rpo_s")},
            "of": of,
            # Nobody types all of a set's name.
            "target": re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", record["found"].get("target", "")),
            "days": round((now - datetime.fromisoformat(record["date"]).timestamp()) / 86400, 2),
        }
    scheduled = Path("/etc/systemd/system/timers.target.wants/berth-drill-restore.timer").exists()
    return {"scheduled": scheduled, "found": [latest[key] for key in sorted(latest)]}


def read_ledger(path: Path) -> dict[str, Any] | None:
    """Return what is in this host's ledger and where its chain does not hold."""
    lines = _ledger.read(path)
    return {"lines": len(lines), "problems": _ledger.broken(lines), "latest": _ledger.latest(lines)} if lines else None


def read_backups(directory: str, timers: str, now: float) -> list[dict[str, Any]]:
    """Return how the latest backups went that timers of this host make.

    Args:
        directory: where the programs of the roles C(postgresql) and C(backup) keep their results.
        timers: directory with the timers that are enabled.
        now: seconds since the epoch.
    """

    def days(moment: float | None) -> float | None:
        return round((now - moment) / 86400, 2) if moment else None

    found: list[dict[str, Any]] = []
    database = Path(directory, "postgresql.json")
    if database.exists() and any(Path(timers).glob("berth-postgresql-backup-*.timer")):
        for line in database.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            problems = [f"{one['type']} backup of the database failed: {one['error']}"] if one["error"] else []
            found.append(
                {
                    "of": "",
                    "repository": one["repository"],
                    "date": one["time"],
                    "days": days(one["last_success"]),
                    "listed": one.get("listed", False),
                    "source": one.get("source", ""),
                    "problems": problems,
                }
            )
    for file in sorted(Path(directory).glob("*/result.json")):
        instance = file.parent.name
        if not Path(timers, f"berth-set@{instance}.timer").exists():
            continue
        result = json.loads(file.read_text(encoding="utf-8"))
        good, failed = result.get("good"), result.get("failed")
        problems = [f"no set of {instance} was made: {failed['why']}"] if failed else []
        problems += [f"the set of {instance}: {words}" for words in (good or {}).get("problems") or []]
        last = datetime.fromisoformat(good["time"]).timestamp() if good else None
        found.append({"of": instance, "repository": "", "date": (failed or good)["finished"], "days": days(last), "problems": problems})
    return found


def served_certificate(address: str, port: int, server_name: str, timeout: float) -> dict[str, str]:
    """Return the certificate that a TLS handshake for a name gets, base64 of DER, or why there is none.

    The chain is not verified here: an expired or foreign certificate is what the report wants to show.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
    except OSError as error:
        return {"server_name": server_name, "error": f"no TLS at {address}:{port}: {error}"}
    return {"server_name": server_name, "der": base64.b64encode(der or b"").decode()}


def main() -> None:
    """Module entry."""
    module = AnsibleModule(
        argument_spec={
            "base_dir": {"type": "path", "default": "/opt/berth"},
            "floating_address": {"type": "str", "default": ""},
            "server_names": {"type": "list", "elements": "str", "default": []},
            "https_address": {"type": "str", "default": "127.0.0.1"},
            "https_port": {"type": "int", "default": 443},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    options = module.params
    services: list[dict[str, Any]] = []
    cluster: dict[str, Any] | None = None
    repack: dict[str, Any] | None = None
    watchdog: dict[str, Any] | None = None
    redis: dict[str, Any] | None = None
    docker_error = ""
    try:
        client = DockerClient(timeout=options["timeout"] * 5)
        services = read_services(client)
        cluster = read_cluster(client, options["base_dir"], options["timeout"])
        repack = read_repack(client, cluster)
        watchdog = read_watchdog(client, options["base_dir"])
        redis = read_redis(client)
    except (DockerError, DockerUnavailable) as error:
        docker_error = f"the Docker engine cannot be asked: {error}"
    try:
        drained = _machine.drained(options["base_dir"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        drained=drained,
        floating=read_floating(options["floating_address"]),
        drills=read_drills("/var/lib/berth/evidence", time.time(), "/opt/berth/restore"),
        backups=read_backups("/var/lib/berth/backup", "/etc/systemd/system/timers.target.wants", time.time()),
        ledger=read_ledger(Path(_ledger.HOST_PATH)),
        docker_error=docker_error,
        services=add_missing(services, options["base_dir"]),
        postgresql=cluster,
        repack=repack,
        watchdog=watchdog,
        huge_pages=_machine.huge_pages(Path("/")),
        redis=redis,
        disks=read_disks({options["base_dir"], *(source for service in services for source in service["sources"])}),
        leaves=read_leaves(options["base_dir"]),
        certificates=[
            served_certificate(options["https_address"], options["https_port"], name, options["timeout"])
            for name in options["server_names"]
        ],
    )


if __name__ == "__main__":
    main()
