# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge and draw the state of a platform. Pure functions: no Ansible import, no I/O.

The input is what the module C(platform_info) reads on each host; the output is one screen for a person, and a list of
problems that decides the exit code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ._ledger import HOST_PATH as _LEDGER

MIB = 1024 * 1024

ODOO = "odoo-"
"""How the projects of instances begin."""

#: A certificate with fewer days left than this is a problem: an operator needs a working week to get a new one.
CERTIFICATE_WARNING_DAYS = 7

#: Days after which the latest proof of a restore is too old. The timer drills once a week, and makes up for a missed one.
DRILL_DAYS = 8

#: Days after which the latest backup is too old: a set is made every hour, and a database once a week at least.
SET_DAYS, BACKUP_DAYS = 2, 8

#: How full a file system may be: from the first on it is shown, from the second on it is a problem. PostgreSQL stops at 100.
DISK_NOTE_PERCENT, DISK_PROBLEM_PERCENT = 80, 90


def service_problem(service: Mapping[str, Any]) -> str | None:
    """Return why a service counts as down, or None.

    Args:
        service: one entry of C(services) as returned by C(platform_info).
    """
    state = service["state"]
    if service.get("stopped"):
        return (
            "is running although its instance shall be stopped; run ansible-playbook -i <inventory> berth.odoo.site"
            if state == "running"
            else None
        )
    words = f": {service['last_words']}" if service.get("last_words") else ""
    if state == "missing":
        return "has no container; run ansible-playbook -i <inventory> berth.odoo.site"
    if state != "running":
        return f"is {state} (exit code {service.get('exit_code')}){words}"
    if service["health"] not in ("healthy", "none"):
        return f"is running but {service['health']}{words}"
    return None


def cluster_problems(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what the members say is wrong with the PostgreSQL cluster, each sentence once, after the hosts that say it.

    Args:
        hosts: host name → what C(platform_info) returned. Its C(postgresql) is judged by C(_patroni_cluster.describe).
    """
    said: dict[str, list[str]] = {}
    for host, info in hosts.items():
        cluster = info.get("postgresql") or {}
        for problem in [cluster["error"]] if cluster.get("error") else cluster.get("problems", []):
            said.setdefault(problem, []).append(host)
    return [f"{', '.join(names)}: PostgreSQL: {problem}" for problem, names in said.items()]


def _mapping(pairs: Sequence[str]) -> dict[str, str]:
    """Return what Redis answers as a list of names and values."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def sentinel_view(master: Sequence[str], replicas: Sequence[Sequence[str]], sentinels: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what a Sentinel's answers say: C(primary), C(epoch), and by host whether C(replicas) are in sync and other C(sentinels) answer it."""

    def up(entry: Mapping[str, str]) -> bool:
        return not {"s_down", "o_down", "disconnected"} & set(entry["flags"].split(","))

    def host(entry: Mapping[str, str]) -> str:
        return entry["ip"].removesuffix("-redis")

    first = _mapping(master)
    followers, others = ([_mapping(entry) for entry in entries] for entries in (replicas, sentinels))
    return {
        "primary": host(first),
        "epoch": int(first["config-epoch"]),
        "replicas": {host(entry): up(entry) and entry["master-link-status"] == "ok" for entry in followers},
        "sentinels": {host(entry): up(entry) for entry in others},
    }


def _caches(hosts: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any] | None]:
    """Return the newest word of a Sentinel, after its host."""
    told = {host: info["redis"] for host, info in hosts.items() if (info.get("redis") or {}).get("primary")}
    newest = max(told, key=lambda host: told[host]["epoch"], default="")
    return newest, told.get(newest)


def cache_problems(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with several Redis: who does not follow, who is not seen, and whether a failover is possible."""
    found = [f"{host}: Redis: {info['redis']['error']}" for host, info in hosts.items() if (info.get("redis") or {}).get("error")]
    teller, view = _caches(hosts)
    members = [host for host, info in hosts.items() if any(one["service"] == "sentinel" for one in info.get("services") or [])]
    if view is None:
        if members:
            found.append(
                f"Redis: no Sentinel of {', '.join(members)} answers, so none takes over when the primary is gone; who works goes on. "
                "Run ansible-playbook -i <inventory> berth.odoo.site --tags cache"
            )
        return found
    primary = view["primary"]
    found += [f"Redis: {host} does not have what {primary} has, it is not in sync" for host, well in view["replicas"].items() if not well]
    found += [
        f"Redis: {host} follows nobody; run ansible-playbook -i <inventory> berth.odoo.site --tags cache"
        for host in members
        if host != primary and host not in view["replicas"]
    ]
    missing = [host for host, well in view["sentinels"].items() if not well]
    known = 1 + len(view["sentinels"])
    if missing:
        rest = known - len(missing)
        effect = "the rest is no majority, so nobody takes over" if rest <= known // 2 else "the others still let somebody take over"
        found.append(f"Redis: the Sentinel of {', '.join(missing)} does not answer that of {teller}: {effect} when {primary} is gone")
    found += [
        f"{host}: Redis: its Sentinel takes {info['redis']['primary']} for the primary, and that of {teller} says {primary} since later"
        for host, info in hosts.items()
        if (info.get("redis") or {}).get("primary", primary) != primary
    ]
    return found


def cache_notes(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return who is the primary of several Redis, and who follows."""
    _teller, view = _caches(hosts)
    if view is None:
        return []
    well = [host for host, in_sync in view["replicas"].items() if in_sync]
    answering = 1 + sum(view["sentinels"].values())
    return [
        f"Redis: {view['primary']} is the primary, {len(well)} of {len(view['replicas'])} replicas are in sync ({', '.join(well) or 'none'}), "
        f"{answering} of {1 + len(view['sentinels'])} Sentinels answer"
    ]


def strangers(hosts: Mapping[str, Mapping[str, Any]], inventory: Collection[str]) -> list[str]:
    """Return members of the PostgreSQL cluster that are no hosts of the inventory, one line each: nobody maintains them, and they may come to lead."""
    members = {
        member["name"]: None
        for info in hosts.values()
        for member in (info.get("postgresql") or {}).get("members", [])
        if member.get("name")
    }
    return [
        f"PostgreSQL: {name} is a member and no host of the inventory: stop it for good, then type: ansible-playbook … berth.odoo.remove_member "
        f"-e target={name} -e confirm={name}"
        for name in members
        if name not in inventory
    ]


def with_instances(services: Sequence[Mapping[str, Any]], instances: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mark services of instances that shall not run (C(stopped)), and of those that the inventory does not know (C(unknown)).

    Args:
        services: as C(platform_info) returns them.
        instances: C(odoo_instances) of the host.
    """
    stopped = {f"{ODOO}{name}" for name, instance in instances.items() if instance.get("state") == "stopped"}
    known = {f"{ODOO}{name}" for name in instances}
    return [
        {
            **service,
            **({"stopped": True} if service["project"] in stopped else {}),
            **({"unknown": True} if service["project"].startswith(ODOO) and service["project"] not in known else {}),
        }
        for service in services
    ]


def unknown_instances(services: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a problem for each instance that the inventory does not know: nobody plans for it, backs it up or updates it."""
    names = sorted({service["project"].removeprefix(ODOO) for service in services if service.get("unknown")})
    return [
        f"instance {name} is here and not in odoo_instances: put it back, or delete it with all its data: ansible-playbook … "
        f"berth.odoo.remove_instance -e target={name} -e confirm={name} -e backup=none"
        for name in names
    ]


def disk_problem(disk: Mapping[str, Any]) -> str | None:
    """Return why a file system needs attention, or None."""
    if disk["used_percent"] < DISK_PROBLEM_PERCENT:
        return None
    return f"the file system of {disk['path']} is {disk['used_percent']} % full, {disk['free_mb']} MB are left: make room, PostgreSQL stops without"


def certificate_problem(certificate: Mapping[str, Any]) -> str | None:
    """Return why a served certificate needs attention, or None.

    Args:
        certificate: keys C(server_name), and either C(error) or C(days_left) (float, days) and C(not_before) (time, empty when that is past).
    """
    name = certificate["server_name"]
    if certificate.get("error"):
        return f"certificate of {name}: {certificate['error']}"
    days = certificate["days_left"]
    if certificate.get("not_before"):
        return f"certificate of {name} is valid from {certificate['not_before']} UTC on only: a clock is wrong, here or where it was issued"
    if days < 0:
        return (
            f"certificate of {name} expired {-days:.0f} days ago"
            if days <= -1
            else f"certificate of {name} expired {-24 * days:.1f} hours ago"
        )
    if days < CERTIFICATE_WARNING_DAYS:
        return f"certificate of {name} expires in {days:.1f} days"
    return None


def _restored(drill: Mapping[str, Any]) -> str:
    """Return what a drill restored: an instance, and how far back where that was not its newest set."""
    return f"{drill['instance']} back to {drill['target']}" if drill["of"] == "older" else str(drill["instance"])


def drill_problems(drills: Mapping[str, Any]) -> list[str]:
    """Return what the drills of restores say against the backups: the latest of a kind failed, or the latest good one of the newest set is too old."""
    found = []
    for drill in drills.get("found") or []:
        if not drill["kept"]:
            found.append(f"the restore drill of {_restored(drill)} on {drill['date']} failed: {'; '.join(drill['broken'])}")
        # There may be nothing older to drill.
        elif drills.get("scheduled") and drill["days"] > DRILL_DAYS and drill["of"] == "newest":
            found.append(
                f"the restore of {drill['instance']} was proven {drill['days']:.0f} days ago: look at systemctl status berth-drill-restore.timer"
            )
    return found


def drill_notes(drills: Mapping[str, Any]) -> list[str]:
    """Return one line for each restore that was proven."""
    return [
        f"Restore of {_restored(drill)}: proven on {drill['date']}, {drill['restore_s'] / 60:.1f} min"
        + (f", {drill['rpo_s'] / 60:.0f} min of work lost" if drill["rpo_s"] is not None and drill["of"] == "newest" else "")
        for drill in drills.get("found") or []
        if drill["kept"]
    ]


def backups(hosts: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return of each kind of backup the latest, with its host: whoever led before keeps what it did last."""
    found: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for host, info in hosts.items():
        for one in info.get("backups") or []:
            found.setdefault((one["of"], one["repository"]), []).append((host, one))
    return [_latest_backup(found[key]) for key in sorted(found)]


def _latest_backup(results: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[str, Mapping[str, Any]]:
    """Return the latest of what several hosts did with a repository, with the age of the newest backup in there.

    A member that could not list the repository knows only what it made itself, and a new leader made nothing yet.
    """
    host, latest = max(results, key=lambda result: result[1]["date"])
    if latest.get("listed", True):
        return host, latest
    newest = min((one for _host, one in results if one["days"] is not None), key=lambda one: float(one["days"]), default=latest)
    return host, {**latest, "days": newest["days"], "source": newest.get("source", "")}


def backup_problems(one: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the latest backup of a kind: it failed, needs attention, or is too old."""
    what = f"set of {one['of']}" if one["of"] else f"backup of the database in {one['repository']}"
    unit = f"berth-set@{one['of']}.timer" if one["of"] else "'berth-postgresql-backup-*.timer'"
    found = list(one["problems"])
    if one["days"] is None:
        found.append(f"there is no {what}" if one.get("listed", True) else f"no {what} is known, and the repository could not be asked")
    elif one["days"] > (SET_DAYS if one["of"] else BACKUP_DAYS):
        found.append(f"the latest {what} is {one['days']:.0f} days old: look at systemctl status {unit}")
    return found


def backup_note(one: Mapping[str, Any]) -> str:
    """Return the line of a backup that is there."""
    what = f"Set of {one['of']}" if one["of"] else f"Backup of the database in {one['repository']}"
    source = f", {one['source']}" if one.get("source") else ""
    return f"{what}: {one['days'] * 24:.1f} hours old{source}"


def ledger_note(ledger: Mapping[str, Any]) -> str:
    """Return the line that says who was the last to change a host."""
    last = ledger["latest"][-1]
    return f"{last['time']} {last['user']} with {last['playbook']}, run {ledger['lines']} in the ledger"


def watchdog_problem(info: Mapping[str, Any]) -> str | None:
    """Return why a member could lead, or leads, without the watchdog that it shall have; None when all is well."""
    watchdog, cluster = info.get("watchdog"), info.get("postgresql") or {}
    if not watchdog:
        return None
    if watchdog["mode"] == "required" and not watchdog["there"]:
        return (
            "PostgreSQL does not lead here: postgresql_watchdog is required, and the kernel has no watchdog. Type on the host: modprobe softdog; "
            "a container has none, set postgresql_watchdog: never for it"
        )
    leads = cluster.get("leader") and cluster["leader"] == cluster.get("member") and not cluster.get("paused")
    if leads and watchdog["there"] and not watchdog["held"]:
        why = (
            f"somebody else holds {watchdog['identity']}, systemd where RuntimeWatchdogSec is set (/etc/systemd/system.conf)"
            if watchdog["active"]
            else "its Patroni did not open it, which is tried once; type: ansible-playbook … berth.odoo.site --tags database, then berth.odoo.switchover"
        )
        return f"PostgreSQL leads here, and nothing resets the host when Patroni hangs: {why}"
    return None


def watchdog_notes(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return who is reset when Patroni hangs there, and where nothing does that."""
    told = {host: info["watchdog"] for host, info in hosts.items() if info.get("watchdog")}
    without = [host for host, one in told.items() if not one["there"]]
    found = [
        f"Watchdog: {one['identity']} resets {host} when Patroni is silent for {one['timeout']} s"
        for host, one in told.items()
        if one["held"]
    ]
    if without:
        found.append(
            f"Watchdog: none on {', '.join(without)}; a leader that hangs there is not reset, and gives its lease up when it wakes"
        )
    return found


def huge_pages_problem(info: Mapping[str, Any]) -> str | None:
    """Return why the huge pages that are kept for PostgreSQL serve nobody; None when they do."""
    pages, health = info.get("huge_pages") or {}, (info.get("postgresql") or {}).get("health") or {}
    if not pages.get("wanted") or "huge_pages" not in health or health["huge_pages"]:
        return None
    wanted, reserved, needed = pages["wanted"], pages["reserved"], health["huge_pages_needed"]
    lost = f"; {2 * reserved} MB are kept for nobody" if reserved else ""
    if wanted < needed:
        remedy = f"host_sysctl: {{vm.nr_hugepages: {needed + needed // 50}}}, and berth.odoo.site"
        return f"PostgreSQL runs without huge pages: it needs {needed}, and {wanted} are wanted{lost}. Type: {remedy}"
    if reserved < needed:
        return (
            f"PostgreSQL runs without huge pages: the kernel found {reserved} of {wanted} in one piece{lost}. Reboot the host (berth.odoo.patch -e "
            "patch_reboot=always), or give them back: host_sysctl: {vm.nr_hugepages: 0}"
        )
    return (
        f"PostgreSQL runs without the {reserved} huge pages that are kept for it, because it was started before. Type: ansible-playbook … "
        "berth.odoo.restart_rolling -e restart_all=true"
    )


def repack_problems(repack: Mapping[str, Any]) -> list[str]:
    """Return what an interrupted pg_repack left, with what removes it, or why that cannot be read."""
    if repack.get("error"):
        return [f"PostgreSQL does not say whether an interrupted pg_repack left something: {repack['error']}"]
    return [
        f"PostgreSQL: pg_repack was interrupted in {one['database']}: each change of {', '.join(one['tables'])} is kept a second time, until the disk is "
        "full. Type in the next maintenance window: ansible-playbook -i <inventory> berth.odoo.maintenance; at once: -e maintenance_now=true"
        for one in repack.get("found") or []
    ]


def problems(hosts: Mapping[str, Mapping[str, Any]], inventory: Collection[str], controller: Sequence[str] = ()) -> list[str]:
    """Return every problem of every host, each as one line that starts with the host's name.

    Args:
        hosts: host name → what C(platform_info) returned, or C({"unreachable": reason}).
        inventory: every host of the inventory, also those that were not asked.
        controller: what is wrong with the controller's own ledger.
    """
    found = [f"{host}: {reason}" for host, one in backups(hosts) for reason in backup_problems(one)]
    for host, info in hosts.items():
        if "unreachable" in info:
            found.append(f"{host}: unreachable: {info['unreachable']}")
            continue
        if info.get("docker_error"):
            found.append(f"{host}: {info['docker_error']}")
        if not info.get("services") and not info.get("docker_error"):
            found.append(f"{host}: nothing is deployed; run ansible-playbook -i <inventory> berth.odoo.site")
        for service in info.get("services", []):
            reason = service_problem(service)
            if reason:
                found.append(f"{host}: {service['project']}/{service['service']} {reason}")
        found.extend(f"{host}: {reason}" for reason in unknown_instances(info.get("services", [])))
        found.extend(f"{host}: {reason}" for reason in drill_problems(info.get("drills") or {}))
        found.extend(f"{host}: {_LEDGER}: {reason}" for reason in (info.get("ledger") or {}).get("problems", []))
        found.extend(f"{host}: {reason}" for reason in filter(None, map(disk_problem, info.get("disks") or [])))
        found.extend(f"{host}: {reason}" for reason in repack_problems(info.get("repack") or {}))
        found.extend(f"{host}: {reason}" for reason in filter(None, (watchdog_problem(info), huge_pages_problem(info))))
        found.extend(f"{host}: {reason}" for reason in filter(None, map(certificate_problem, info.get("certificates", []))))
        # They are renewed by every run, in time.
        found.extend(
            f"{host}: {reason}; run ansible-playbook -i <inventory> berth.odoo.site, which renews it"
            for reason in filter(None, map(certificate_problem, info.get("leaves", [])))
        )
    return [*found, *floating_problems(hosts), *cache_problems(hosts), *cluster_problems(hosts), *strangers(hosts, inventory), *controller]


def drained(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line for each application host that edges leave out. No problem: somebody wanted it, and shall not forget it."""
    found: dict[tuple[str, str], list[str]] = {}
    for edge, info in hosts.items():
        for name, since in (info.get("drained") or {}).items():
            found.setdefault((name, since), []).append(edge)
    return [
        f"Drained: {name} gets no requests from {', '.join(edges)} since {since}; to undo it: ansible-playbook … berth.odoo.undrain -e target={name}"
        for (name, since), edges in found.items()
    ]


def _floating(hosts: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[str], dict[str, str]]:
    """Return the floating address, the edges that have it, and those that were drained, with since when."""
    told = {host: info["floating"] for host, info in hosts.items() if info.get("floating")}
    address = next((one["address"] for one in told.values()), "")
    return (
        address,
        [host for host, one in told.items() if one["held"]],
        {host: one["drained"] for host, one in told.items() if one["drained"]},
    )


def floating_problems(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with the address that edges share: nobody has it, or more than one."""
    address, holders, _drained = _floating(hosts)
    if len(holders) > 1:
        return [
            f"{', '.join(holders)}: each has the floating address {address}: they do not hear each other. Run berth.odoo.firewall, which opens VRRP "
            "(IP protocol 112) between them, and look at journalctl -u keepalived"
        ]
    # One that is not seen may have it, and is a problem already.
    if address and not holders and not any("unreachable" in info for info in hosts.values()):
        return [f"nobody has the floating address {address}: does Traefik answer on any edge? Look at journalctl -u keepalived"]
    return []


def floating_notes(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return who has the address, and which edges shall not have it."""
    address, holders, since = _floating(hosts)
    found = [f"Floating address: {address} is at {', '.join(holders)}"] if holders else []
    return found + [
        f"Drained: {host} does not get the floating address since {moment}; to undo it: ansible-playbook … berth.odoo.undrain -e target={host}"
        for host, moment in since.items()
    ]


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align rows of cells in columns; the first row is the heading. Returns lines without trailing spaces."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _memory(service: Mapping[str, Any]) -> str:
    used, limit = service.get("memory_bytes"), service.get("memory_limit_bytes")
    if used is None:
        return "-"
    if not limit:
        return f"{used // MIB} MiB, no limit"
    return f"{used // MIB} of {limit // MIB} MiB ({100 * used // limit} %)"


def screen(hosts: Mapping[str, Mapping[str, Any]], inventory: Collection[str], controller: Sequence[str] = ()) -> str:
    """Draw the one screen of C(berth.odoo.status).

    Args:
        hosts: host name → what C(platform_info) returned, or C({"unreachable": reason}).
        inventory: every host of the inventory, also those that were not asked.
        controller: what is wrong with the controller's own ledger.
    """
    rows: list[Sequence[str]] = [("HOST", "SERVICE", "STATE", "HEALTH", "MEMORY", "VERSION", "IMAGE")]
    notes: list[str] = []
    for host, info in hosts.items():
        for service in info.get("services", []):
            rows.append(
                (
                    host,
                    f"{service['project']}/{service['service']}",
                    service["state"],
                    service["health"],
                    _memory(service),
                    service.get("version") or "-",
                    (service.get("image_id") or "-").removeprefix("sha256:")[:12],
                )
            )
        notes.extend(
            f"Disk: the file system of {disk['path']} on {host} is {disk['used_percent']} % full, {disk['free_mb']} MB are left"
            for disk in info.get("disks") or []
            if disk["used_percent"] >= DISK_NOTE_PERCENT
        )
        notes.extend(drill_notes(info.get("drills") or {}))
        if info.get("ledger"):
            notes.append(f"Last change of {host}: {ledger_note(info['ledger'])}")
        for certificate in info.get("certificates", []):
            if not certificate.get("error"):
                notes.append(
                    f"Certificate of {certificate['server_name']} on {host}: {certificate['days_left']:.0f} days left "
                    f"(until {certificate['not_after']}), issued by {certificate['issuer']}"
                )
    notes.extend(backup_note(one) for _host, one in backups(hosts) if one["days"] is not None)
    clusters = [info["postgresql"] for info in hosts.values() if (info.get("postgresql") or {}).get("summary")]
    # Every member says the same of all; one that does not reach etcd knows less.
    for cluster in sorted(clusters, key=lambda one: bool(one["dcs_error"]))[:1]:
        notes = [*(f"PostgreSQL: {line}" for line in cluster["summary"]), *notes]
    notes = [*drained(hosts), *floating_notes(hosts), *cache_notes(hosts), *watchdog_notes(hosts), *notes]
    found = problems(hosts, inventory, controller)
    services = [service for info in hosts.values() for service in info.get("services", []) if not service.get("stopped")]
    up = sum(1 for service in services if service_problem(service) is None)
    verdict = [f"{up} of {len(services)} services are up on {len(hosts)} host(s)."]
    if found:
        verdict.append(f"{len(found)} problem(s):")
        verdict.extend(f"  - {line}" for line in found)
    return "\n".join([*table(rows), "", *notes, "", *verdict])
