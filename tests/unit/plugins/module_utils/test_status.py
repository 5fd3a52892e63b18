# Copyright: (c) 2026, berth.odoo contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of a platform's state, and what makes the playbook fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.berth.odoo.plugins.module_utils import _status

PLAYBOOKS = Path(__file__).parents[4] / "playbooks"


def service(**changes: Any) -> dict[str, Any]:
    return {
        "project": "odoo-main",
        "service": "web",
        "state": "running",
        "health": "healthy",
        "exit_code": 0,
        "memory_bytes": 300 * _status.MIB,
        "memory_limit_bytes": 1200 * _status.MIB,
        "version": "19.0",
        "image_id": "sha256:0123456789abcdef",
        **changes,
    }


def host(**changes: Any) -> dict[str, Any]:
    return {"services": [service()], "postgresql": None, "certificates": [], "docker_error": "", **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "exited", "health": "none", "exit_code": 137}, "is exited (exit code 137)"),
        ({"state": "missing", "health": "none"}, "has no container; run ansible-playbook -i <inventory> berth.odoo.site"),
        ({"health": "unhealthy"}, "is running but unhealthy"),
        ({"health": "starting"}, "is running but starting"),
        ({"state": "restarting", "exit_code": 1}, "is restarting (exit code 1)"),
    ],
)
def test_a_service_that_does_not_serve_is_a_problem(changes: dict[str, Any], words: str) -> None:
    found = problems({"vm1": host(services=[service(), service(service="cron", **changes)])})
    assert found == [f"vm1: odoo-main/cron {words}"]


def problems(hosts: dict[str, Any]) -> list[str]:
    return _status.problems(hosts, list(hosts))


def screen(hosts: dict[str, Any]) -> str:
    return _status.screen(hosts, list(hosts))


def entry(name: str, flags: str = "slave", link: str = "ok") -> list[str]:
    return ["name", name, "ip", f"{name}-redis", "port", "6379", "flags", flags, "master-link-status", link]


def cache(primary: str, epoch: int, replicas: list[list[str]], sentinels: list[list[str]]) -> dict[str, Any]:
    master = ["name", "berth", "ip", f"{primary}-redis", "flags", "master", "config-epoch", str(epoch)]
    return host(redis=_status.sentinel_view(master, replicas, sentinels), services=[service(project="redis", service="sentinel")])


def test_several_redis_that_are_well_are_one_line() -> None:
    hosts = {
        name: cache("b", 2, [entry("a"), entry("c")], [entry(other, "sentinel") for other in "abc" if other != name]) for name in "abc"
    }
    assert problems(hosts) == []
    assert "Redis: b is the primary, 2 of 2 replicas are in sync (a, c), 3 of 3 Sentinels answer" in screen(hosts)


def test_a_replica_that_does_not_follow_and_a_sentinel_that_is_away() -> None:
    view = cache("a", 1, [entry("b", link="err")], [entry("b", "sentinel"), entry("c", "s_down,sentinel,disconnected")])
    down = host(services=[service(project="redis", service="sentinel", state="exited", health="none", exit_code=137)])
    assert problems({"a": view, "b": cache("a", 1, [entry("b", link="err")], [entry("a", "sentinel")]), "c": down}) == [
        "c: redis/sentinel is exited (exit code 137)",
        "Redis: b does not have what a has, it is not in sync",
        "Redis: c follows nobody; run ansible-playbook -i <inventory> berth.odoo.site --tags cache",
        "Redis: the Sentinel of c does not answer that of a: the others still let somebody take over when a is gone",
    ]


def test_without_a_majority_of_sentinels_nobody_takes_over() -> None:
    view = cache("a", 1, [entry("b"), entry("c")], [entry("b", "s_down,sentinel"), entry("c", "s_down,sentinel")])
    assert problems({"a": view}) == [
        "Redis: the Sentinel of b, c does not answer that of a: the rest is no majority, so nobody takes over when a is gone"
    ]
    silent = host(services=[service(project="redis", service="sentinel")])
    [found] = problems({"a": silent})
    assert found.startswith("Redis: no Sentinel of a answers, so none takes over")


def test_a_sentinel_that_names_a_primary_of_the_past_is_named() -> None:
    hosts = {
        "a": cache("b", 2, [entry("a"), entry("c")], [entry("b", "sentinel"), entry("c", "sentinel")]),
        "c": cache("a", 1, [entry("b"), entry("c")], [entry("a", "sentinel"), entry("b", "sentinel")]),
    }
    assert problems(hosts) == ["c: Redis: its Sentinel takes a for the primary, and that of a says b since later"]


def test_a_member_that_the_inventory_does_not_know_is_a_problem() -> None:
    cluster = {"problems": [], "summary": ["berth"], "dcs_error": "", "members": [{"name": "db1"}, {"name": "db2"}, {"name": "db3"}]}
    # db2 was not asked, as with --limit.
    found = _status.problems({"db1": host(postgresql=cluster)}, ["db1", "db2"])
    assert len(found) == 1
    assert "db3 is a member and no host of the inventory" in found[0]
    assert "berth.odoo.remove_member -e target=db3 -e confirm=db3" in found[0]


def test_everything_up_is_no_problem() -> None:
    assert problems({"vm1": host(services=[service(), service(health="none")])}) == []


def test_a_silent_or_empty_host_is_a_problem() -> None:
    found = problems(
        {
            "vm1": {"unreachable": "timed out"},
            "vm2": host(services=[]),
            "vm3": host(services=[], docker_error="Docker does not answer"),
        }
    )
    assert found == [
        "vm1: unreachable: timed out",
        "vm2: nothing is deployed; run ansible-playbook -i <inventory> berth.odoo.site",
        "vm3: Docker does not answer",
    ]


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (
            host(
                services=[service(project="etcd", service="etcd", version="3.5.16")],
                redis=None,
                watchdog=None,
                huge_pages={"wanted": 0, "reserved": 0},
            ),
            "",
        ),
        (host(services=[service(project="etcd", service="etcd", state="exited", health="none")]), "etcd/etcd is exited (exit code 0)"),
        (host(services=[service(project="etcd", service="etcd", health="unhealthy")]), "etcd/etcd is running but unhealthy"),
        ({"unreachable": "timed out"}, "unreachable: timed out"),
    ],
)
def test_a_witness_runs_etcd_alone_and_is_missed_when_it_does_not(info: dict[str, Any], words: str) -> None:
    hosts = {"db1": host(services=[service(project="etcd", service="etcd")]), "witness1": info}
    assert problems(hosts) == ([f"witness1: {words}"] if words else [])
    assert "on 2 host(s)." in screen(hosts)


def test_status_asks_each_host_that_site_prepares() -> None:
    status, site = (yaml.safe_load((PLAYBOOKS / name).read_text(encoding="utf-8")) for name in ("status.yml", "site.yml"))
    assert [status[0]["hosts"]] == [play["hosts"] for play in site if play["name"] == "Prepare the hosts"]


def test_what_the_members_say_is_said_once() -> None:
    """Who judges the cluster is _patroni_cluster.describe."""
    hosts = {
        "db1": host(postgresql={"problems": ["db3 is start failed"], "summary": ["berth: led by db1"], "dcs_error": ""}),
        "db2": host(postgresql={"problems": ["db3 is start failed", "db2 read damaged pages"], "summary": ["other"], "dcs_error": ""}),
        "db3": host(postgresql={"error": "no answer from https://172.18.0.2:8008"}),
        "app1": host(),
    }
    assert problems(hosts) == [
        "db1, db2: PostgreSQL: db3 is start failed",
        "db2: PostgreSQL: db2 read damaged pages",
        "db3: PostgreSQL: no answer from https://172.18.0.2:8008",
    ]
    assert [line for line in screen(hosts).splitlines() if line.startswith("PostgreSQL: ")] == ["PostgreSQL: berth: led by db1"]


def test_the_screen_asks_a_member_that_reaches_etcd() -> None:
    hosts = {
        "db1": host(postgresql={"problems": [], "summary": ["of old"], "dcs_error": "Patroni reached it 40 s ago"}),
        "db2": host(postgresql={"problems": [], "summary": ["berth: led by db2"], "dcs_error": ""}),
    }
    assert "PostgreSQL: berth: led by db2" in screen(hosts)
    assert "of old" not in screen(hosts)


@pytest.mark.parametrize(("used", "shown", "problem"), [(79, False, False), (80, True, False), (89, True, False), (90, True, True)])
def test_a_disk_that_fills(used: int, shown: bool, problem: bool) -> None:
    hosts = {"db1": host(disks=[{"path": "/var/lib/berth", "used_percent": used, "free_mb": 812}])}
    assert (f"/var/lib/berth on db1 is {used} % full, 812 MB are left" in screen(hosts)) == shown
    assert any(f"is {used} % full" in line for line in problems(hosts)) == problem


def test_why_a_container_stopped_is_in_the_problem() -> None:
    ill = service(state="restarting", exit_code=1, last_words="CRITICAL: system ID mismatch")
    assert problems({"db1": host(services=[ill])}) == ["db1: odoo-main/web is restarting (exit code 1): CRITICAL: system ID mismatch"]


def test_a_certificate_of_the_platform_s_own_is_renewed_by_a_run() -> None:
    hosts = {"db1": host(leaves=[{"server_name": "postgresql", "days_left": -0.1}, {"server_name": "etcd", "days_left": 300.0}])}
    assert problems(hosts) == [
        "db1: certificate of postgresql expired 2.4 hours ago; run ansible-playbook -i <inventory> berth.odoo.site, which renews it"
    ]


@pytest.mark.parametrize(
    ("days", "words"),
    [(90.0, None), (7.0, None), (6.9, "expires in 6.9 days"), (-2.0, "expired 2 days ago")],
)
def test_a_certificate_near_its_end(days: float, words: str | None) -> None:
    problem = _status.certificate_problem({"server_name": "odoo.example.com", "days_left": days})
    assert problem == (words and f"certificate of odoo.example.com {words}")


def test_a_certificate_of_the_future_tells_of_a_wrong_clock() -> None:
    problem = _status.certificate_problem({"server_name": "postgresql", "days_left": 300.0, "not_before": "2026-11-25 10:00:00"})
    assert problem is not None
    assert "valid from 2026-11-25 10:00:00 UTC on only: a clock is wrong" in problem


def test_the_screen_shows_memory_versions_cluster_and_certificates() -> None:
    text = screen(
        {
            "vm1": host(
                postgresql={"problems": [], "summary": ["berth: led by vm1, asynchronous"], "dcs_error": ""},
                certificates=[{"server_name": "a.example", "days_left": 30.2, "not_after": "2027-01-01", "issuer": "Some CA"}],
            )
        }
    )
    assert "vm1   odoo-main/web  running  healthy  300 of 1200 MiB (25 %)  19.0     0123456789ab" in text
    assert "PostgreSQL: berth: led by vm1, asynchronous" in text
    assert "Certificate of a.example on vm1: 30 days left (until 2027-01-01), issued by Some CA" in text
    assert text.endswith("1 of 1 services are up on 1 host(s).")


def test_columns_line_up() -> None:
    lines = _status.table([("A", "B"), ("long cell", "x")])
    assert lines == ["A          B", "long cell  x"]


def test_a_drained_host_is_named_and_no_problem() -> None:
    edge = host(drained={"app2": "2026-11-25T02:00:00Z"})
    screen = _status.screen({"edge1": edge, "edge2": edge, "app2": host()}, ["edge1", "edge2", "app2"])
    assert "Drained: app2 gets no requests from edge1, edge2 since 2026-11-25T02:00:00Z" in screen
    assert "berth.odoo.undrain -e target=app2" in screen
    assert problems({"edge1": edge}) == []


def test_an_instance_that_shall_not_run_is_no_problem_and_one_that_nobody_knows_is() -> None:
    stopped = {"state": "exited", "health": "none", "exit_code": 0}
    services = [service(project="redis"), service(project="odoo-shop", **stopped), service(project="odoo-old")]
    marked = _status.with_instances(services, {"shop": {"state": "stopped"}, "main": {}})
    assert [one.get("unknown") for one in marked] == [None, None, True]
    (problem,) = problems({"vm1": host(services=marked)})
    assert problem.startswith("vm1: instance old is here and not in odoo_instances: put it back")
    assert "2 of 2 services are up" in screen({"vm1": host(services=marked)})
    running = _status.with_instances([service(project="odoo-shop")], {"shop": {"state": "stopped"}})
    assert problems({"vm1": host(services=running)}) == [
        "vm1: odoo-shop/web is running although its instance shall be stopped; run ansible-playbook -i <inventory> berth.odoo.site"
    ]


def drilled(*others: dict[str, Any], **changes: Any) -> dict[str, Any]:
    drill = {
        "instance": "main",
        "of": "newest",
        "target": "set 5a8f0c1e",
        "date": "2026-11-22T05:03:11Z",
        "days": 3.0,
        "kept": True,
        "broken": [],
        "restore_s": 90.0,
        "rpo_s": 1260.0,
    }
    return {"vm1": host(drills={"scheduled": True, "found": [{**drill, **one} for one in (changes, *others)]})}


def test_a_restore_that_was_proven_is_shown() -> None:
    assert problems(drilled()) == []
    assert "Restore of main: proven on 2026-11-22T05:03:11Z, 1.5 min, 21 min of work lost" in screen(drilled())
    assert "proven on 2026-11-22T05:03:11Z, 1.5 min\n" in screen(drilled(rpo_s=None))


def test_a_restore_that_failed_or_was_not_tried_for_long_is_a_problem() -> None:
    assert problems(drilled(kept=False, broken=["1 files of attachments are missing: ab/abcd"])) == [
        "vm1: the restore drill of main on 2026-11-22T05:03:11Z failed: 1 files of attachments are missing: ab/abcd"
    ]
    [words] = problems(drilled(days=9.0))
    assert "was proven 9 days ago" in words
    unscheduled = drilled(days=90.0)
    unscheduled["vm1"]["drills"]["scheduled"] = False
    assert problems(unscheduled) == []


def test_a_drill_of_something_older_that_failed_is_not_hidden_by_the_newest_set_s() -> None:
    older = {"of": "older", "target": "time 2026-11-20T10:00:00+00:00", "date": "2026-11-22T05:00:11Z"}
    assert problems(drilled({**older, "kept": False, "broken": ["Odoo in the copy: KeyError"]})) == [
        "vm1: the restore drill of main back to time 2026-11-20T10:00:00+00:00 on 2026-11-22T05:00:11Z failed: Odoo in the copy: KeyError"
    ]
    assert len(problems(drilled({**older, "kept": False, "broken": ["x"]}, kept=False, broken=["y"]))) == 2
    # A set that is the only one is the newest.
    assert problems(drilled({**older, "days": 90.0})) == []
    shown = screen(drilled(older))
    assert "Restore of main back to time 2026-11-20T10:00:00+00:00: proven on 2026-11-22T05:00:11Z, 1.5 min\n" in shown
    assert "Restore of main: proven on 2026-11-22T05:03:11Z, 1.5 min, 21 min of work lost" in shown


def backed_up(of: str = "main", **changes: Any) -> dict[str, Any]:
    """The latest backup of a kind, which is good."""
    return {"of": of, "repository": "" if of else "offsite", "date": "2026-11-25T12:39:26Z", "days": 0.05, "problems": [], **changes}


def test_backups_that_are_there_are_shown() -> None:
    good = {"vm1": host(backups=[backed_up(), backed_up("")])}
    assert problems(good) == []
    assert "Set of main: 1.2 hours old\n" in screen(good)
    assert "Backup of the database in offsite: 1.2 hours old\n" in screen(good)
    aside = {"db1": host(backups=[backed_up("", source="read from the leader, because no standby streams")])}
    assert "Backup of the database in offsite: 1.2 hours old, read from the leader, because no standby streams\n" in screen(aside)


def test_a_backup_that_failed_is_old_or_was_never_made_is_a_problem() -> None:
    failed = {"vm1": host(backups=[backed_up(problems=["no set of main was made: repository offsite: no TLS"])])}
    assert problems(failed) == ["vm1: no set of main was made: repository offsite: no TLS"]
    assert problems({"vm1": host(backups=[backed_up(days=None)])}) == ["vm1: there is no set of main"]
    assert problems({"vm1": host(backups=[backed_up(days=3.0)])}) == [
        "vm1: the latest set of main is 3 days old: look at systemctl status berth-set@main.timer"
    ]
    assert problems({"vm1": host(backups=[backed_up("", days=3.0)])}) == []
    [words] = problems({"vm1": host(backups=[backed_up("", days=9.0)])})
    assert words.startswith("vm1: the latest backup of the database in offsite is 9 days old")


def test_who_led_before_is_not_asked_for_backups() -> None:
    before = backed_up("", date="2026-11-20T01:00:00Z", days=5.5, problems=["full backup of the database failed: away"])
    assert problems({"db1": host(backups=[before]), "db2": host(backups=[backed_up("")])}) == []


def test_a_new_leader_that_fails_does_not_hide_what_is_there() -> None:
    """What the repository has counts; where it does not answer, what any member knows that it made."""
    why = "full backup of the database failed: repository offsite does not answer"
    before = backed_up("", date="2026-11-20T01:00:00Z", days=5.5, source="read from db3", listed=True)
    away = backed_up("", days=None, problems=[why], listed=False)
    led = {"db1": host(backups=[before]), "db2": host(backups=[away])}
    assert problems(led) == [f"db2: {why}"]
    assert "Backup of the database in offsite: 132.0 hours old, read from db3\n" in screen(led)
    # It led before, too, and what it made is older.
    assert "132.0 hours old" in screen({"db1": host(backups=[before]), "db2": host(backups=[{**away, "days": 7.5}])})
    # The repository answered, and has what the former leader made, or lost it.
    full = backed_up("", days=5.5, problems=[why], listed=True)
    assert "Backup of the database in offsite: 132.0 hours old\n" in screen({"db2": host(backups=[full])})
    assert problems({"db1": host(backups=[before]), "db2": host(backups=[{**full, "days": None}])}) == [
        f"db2: {why}",
        "db2: there is no backup of the database in offsite",
    ]
    assert problems({"db2": host(backups=[away])}) == [
        f"db2: {why}",
        "db2: no backup of the database in offsite is known, and the repository could not be asked",
    ]


def floating(held: bool, drained: str = "") -> dict[str, Any]:
    return host(floating={"address": "10.0.0.9", "held": held, "drained": drained})


def test_the_floating_address_is_at_one_edge() -> None:
    good = {"app1": floating(True), "front": floating(False, "2026-11-25T02:00:00Z"), "app2": host(floating={})}
    assert problems(good) == []
    assert "Floating address: 10.0.0.9 is at app1" in screen(good)
    assert "Drained: front does not get the floating address since 2026-11-25T02:00:00Z" in screen(good)
    [nobody] = problems({"app1": floating(False), "front": floating(False)})
    assert nobody.startswith("nobody has the floating address 10.0.0.9")
    [two] = problems({"app1": floating(True), "front": floating(True)})
    assert two.startswith("app1, front: each has the floating address 10.0.0.9") and "berth.odoo.firewall" in two


def test_an_edge_that_is_not_seen_may_have_the_floating_address() -> None:
    assert problems({"app1": {"unreachable": "timed out"}, "front": floating(False)}) == ["app1: unreachable: timed out"]


def guarded(leader: str = "db1", paused: bool = False, **watchdog: Any) -> dict[str, Any]:
    softdog = {"mode": "automatic", "there": True, "held": True, "active": True, "identity": "Software Watchdog", "timeout": 25}
    cluster = {"problems": [], "summary": ["berth"], "dcs_error": "", "member": "db1", "leader": leader, "paused": paused}
    return host(postgresql=cluster, watchdog={**softdog, **watchdog})


def test_a_leader_with_a_watchdog_is_said_and_no_problem() -> None:
    hosts = {"db1": guarded(), "db2": guarded(held=False, active=False)}
    hosts["db2"]["postgresql"]["member"] = "db2"
    assert problems(hosts) == []
    assert "Watchdog: Software Watchdog resets db1 when Patroni is silent for 25 s" in screen(hosts)


NONE = {"there": False, "held": False, "active": False, "identity": "", "timeout": 0}


def test_hosts_without_a_watchdog_are_named() -> None:
    hosts = {"db1": guarded(**NONE), "db2": guarded(**NONE), "app1": host()}
    assert problems(hosts) == []
    assert "Watchdog: none on db1, db2; " in screen(hosts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**NONE, "mode": "required"}, "postgresql_watchdog is required, and the kernel has no watchdog"),
        ({"held": False}, "somebody else holds Software Watchdog, systemd where RuntimeWatchdogSec is set"),
        ({"held": False, "active": False}, "its Patroni did not open it"),
        ({"held": False, "active": False, "leader": "db2"}, ""),
        # Patroni lets it go, and status says already that nobody takes over.
        ({"held": False, "active": False, "paused": True}, ""),
    ],
)
def test_a_leader_that_nothing_resets_is_a_problem(changes: dict[str, Any], words: str) -> None:
    found = problems({"db1": guarded(**changes)})
    assert len(found) == bool(words)
    assert all(words in line for line in found)


@pytest.mark.parametrize(
    ("wanted", "reserved", "used", "words"),
    [
        (1104, 1104, True, ""),
        (0, 0, False, ""),
        (0, 512, False, ""),  # somebody else's
        (1104, 812, False, "the kernel found 812 of 1104 in one piece; 1624 MB are kept for nobody"),
        (1104, 0, False, "the kernel found 0 of 1104 in one piece. "),
        (1000, 1000, False, "it needs 1090, and 1000 are wanted; 2000 MB are kept for nobody. Type: host_sysctl: {vm.nr_hugepages: 1111}"),
        (1104, 1104, False, "because it was started before. Type: ansible-playbook … berth.odoo.restart_rolling -e restart_all=true"),
    ],
)
def test_huge_pages_that_serve_nobody_are_a_problem(wanted: int, reserved: int, used: bool, words: str) -> None:
    cluster = {"problems": [], "summary": ["berth"], "dcs_error": "", "health": {"huge_pages": used, "huge_pages_needed": 1090}}
    found = problems({"db1": host(postgresql=cluster, huge_pages={"wanted": wanted, "reserved": reserved})})
    assert len(found) == bool(words)
    assert all(words in line for line in found)


def test_what_an_interrupted_repack_left_is_a_problem() -> None:
    found = [{"database": "main", "tables": ["stock_move", "mail_message"]}, {"database": "shop", "tables": ["sale_order"]}]
    main, shop = problems({"db1": host(repack={"found": found, "error": ""}), "db2": host(repack=None)})
    assert main.startswith(
        "db1: PostgreSQL: pg_repack was interrupted in main: each change of stock_move, mail_message is kept a second time"
    )
    assert "berth.odoo.maintenance; at once: -e maintenance_now=true" in main and "sale_order" in shop
    [unread] = problems({"db1": host(repack={"found": [], "error": "psql ended with exit code 3"})})
    assert unread.endswith("whether an interrupted pg_repack left something: psql ended with exit code 3")
