# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole judgement, with the specifications of the collection's own roles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.berth.odoo.plugins.action.preflight import read_specifications
from ansible_collections.berth.odoo.plugins.module_utils import _authority, _preflight, _validate
from ansible_collections.berth.odoo.plugins.module_utils._preflight import Host, Report, Rules

COLLECTION = Path(__file__).parents[4]
SPECIFICATIONS = read_specifications(COLLECTION / "roles")
TIERS = {tier: ["vm1"] for tier in _validate.REQUIRED_TIERS}

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
DAY = 86400
CERTIFICATE, KEY = _authority.create("berth.odoo test", 3650, NOW)

FACTS: dict[str, Any] = {
    "os": {"id": "debian", "version_id": "13", "pretty_name": "Debian GNU/Linux 13 (trixie)"},
    "container": "",
    "machine": "x86_64",
    "cpus": 2,
    "memory_mb": 6144,
    "cpu_flags": ["sse4_2", "popcnt"],
    "disks": [{"path": "/var/lib/berth", "mount": "/", "device": "254:0", "kind": "ssd", "size_mb": 40_000, "free_mb": 30_000}],
    "listeners": [],
    "packages": {},
    "peers": [],
    "clock_synchronized": True,
    "clock_offset_s": 0.1,
    "clock_error_s": 0.2,
}

VARIABLES: dict[str, Any] = {
    "odoo_instances": {"main": {"domains": ["odoo.example.com"], "database": "main", "users": 10}},
    "odoo_instance_secrets": {"main": {key: f"{key}-abcdefghijklmnop" for key in _validate.INSTANCE_SECRETS}},
    "platform_authority": {"certificate": CERTIFICATE, "key": KEY},
}


TWO = {**TIERS, "app": ["vm1", "vm2"], "edge": ["vm1", "vm2"]}
SHARED: dict[str, Any] = {
    "odoo_instances": {"main": {**VARIABLES["odoo_instances"]["main"], "sessions": "redis", "attachments": "database"}}
}


def host(variables: dict[str, Any] | None = None, facts: dict[str, Any] | None = None, **more: Any) -> Host:
    values = {**VARIABLES, **(variables or {})}
    return Host(values, list(values), {}, None if "failure" in more else {**FACTS, **(facts or {})}, **more)


def examine(hosts: dict[str, Host] | None = None, tiers: dict[str, list[str]] | None = None, **rules: Any) -> Report:
    return _preflight.examine(hosts or {"vm1": host()}, tiers or TIERS, SPECIFICATIONS, Rules(**rules), NOW)


def subjects(report: Report) -> list[str]:
    return [problem.subject for problem in report.problems]


def test_a_good_inventory_gets_a_plan() -> None:
    report = examine()
    assert report.problems == []
    assert report.notes == []
    assert report.plan["vm1"]["odoo"]["main"]["web_workers"] == 2
    assert report.table[0].startswith("host")


def test_an_instance_that_the_inventory_does_not_know_is_neither_run_over_nor_removed() -> None:
    report = examine({"vm1": host(facts={"instances": ["main", "shop"]})})
    assert subjects(report) == ["odoo_instances"]
    assert "no shop" in report.problems[0].found
    assert "remove_instance -e target=shop -e confirm=shop -e backup=none" in report.problems[0].remedy
    stopped = {name: {"domains": [f"{name}.example.com"], "database": name, "state": "stopped"} for name in ("main", "shop")}
    secrets = {name: {key: f"{name}-{key}-abcdefghijklmnop" for key in _validate.INSTANCE_SECRETS} for name in stopped}
    variables = {"odoo_instances": stopped, "odoo_instance_secrets": secrets, "preflight_room_for_instances": 2}
    assert examine({"vm1": host(variables, {"instances": ["main", "shop"], "memory_mb": 12288})}).problems == []


@pytest.mark.parametrize(
    ("directories", "found"),
    [
        (("/srv/odoo", "/srv/odoo/"), "/srv/odoo for main, and /srv/odoo/ for shop"),
        (("/srv/odoo", "/srv/odoo/shop"), "/srv/odoo for main, and /srv/odoo/shop for shop"),
        (("/srv/odoo/main", "/srv/odoo/shop"), ""),
    ],
)
def test_instances_of_a_host_have_a_directory_each(directories: tuple[str, str], found: str) -> None:
    data_dirs = dict(zip(("main", "shop"), directories, strict=True))
    report = examine({"vm1": host(data_dirs=data_dirs)})
    assert [problem.found for problem in report.problems] == ([found] if found else [])
    for problem in report.problems:
        assert problem.subject == "odoo_data_dir" and 'odoo_data_dir: "/srv/odoo/{{ odoo_name }}"' in problem.remedy
    # On two hosts one directory is two.
    apart = {name: host(SHARED, data_dirs={"main": "/srv/odoo"}) for name in ("vm1", "vm2")}
    assert "odoo_data_dir" not in subjects(examine(apart, TWO))
    # Nothing of it is where no instance runs.
    elsewhere = {"vm1": host(), "vm2": host(data_dirs=data_dirs)}
    assert "odoo_data_dir" not in subjects(examine(elsewhere))


def test_everything_wrong_is_said_at_once() -> None:
    variables = {
        "odoo_worker": 4,
        "redis_maxmemory_mb": "lots",
        "docker_log_driver": "jornald",
        "odoo_image": "berth/odoo:19",
        "odoo_instances": {"main": {"domains": ["odoo.example.com"], "database": "a;drop"}},
        "odoo_instance_secrets": {"main": {"db_password": "changeme", "admin_password": "x" * 30}},
    }
    hosts = {
        "vm1": host(
            variables, {"listeners": [{"port": 443, "address": "::", "pid": 7, "process": "nginx", "container": "", "ours": False}]}
        )
    }
    hosts["vm2"] = host(failure="unreachable: no route to host")
    report = examine(hosts, require_image_digests=True)
    assert set(subjects(report)) == {
        "odoo_worker",
        "redis_maxmemory_mb",
        "docker_log_driver",
        "odoo_image",
        "odoo_instances.main.database",
        "odoo_instance_secrets.main.db_password",
        "odoo_instance_secrets.main.admin_password",
        "odoo_instance_secrets.main.redis_password",
        "port 443",
        "connection",
    }


def test_no_secret_is_said_wherever_it_stands() -> None:
    canary = "canary-Zx81"
    variables = {
        "odoo_instance_secrets": {"main": dict.fromkeys(_validate.INSTANCE_SECRETS, canary), canary[:5]: {"db_password": canary}},
        "pgbouncer_users": [{"name": "odoo_main", "password": canary, "pasword": canary}],
        "redis_users": {"password": canary},
        "odoo_db_password": [canary],
    }
    report = examine({"vm1": host(variables)})
    assert len(report.problems) > 6
    assert canary not in "\n".join([*_validate.format_problems(report.problems, ["vm1"]), *report.notes])


def test_one_password_for_two_purposes_is_refused_across_roles() -> None:
    shared = "one-password-for-all-of-it"
    secrets = {"main": {**VARIABLES["odoo_instance_secrets"]["main"], "db_password": shared}}
    report = examine(
        {"vm1": host({"odoo_instance_secrets": secrets, "odoo_admin_password": shared})}, ignored_variables=("odoo_admin_password",)
    )
    assert subjects(report) == ["odoo_admin_password, odoo_instance_secrets.main.db_password"]


def test_no_instance_at_all_is_refused() -> None:
    assert "odoo_instances" in subjects(examine({"vm1": host({"odoo_instances": None, "odoo_instance_secrets": None})}))


def test_what_cannot_be_rendered_is_said_once() -> None:
    plain = host()
    broken = plain._replace(
        variables={key: value for key, value in plain.variables.items() if key != "odoo_instance_secrets"},
        unrenderable={"odoo_instance_secrets": "AnsibleVaultError", "traefik_certificates": "no such file: main.crt"},
    )
    report = examine({"vm1": broken})
    assert subjects(report) == ["odoo_instance_secrets", "traefik_certificates"]


OTHER, OTHER_KEY = _authority.create("berth.odoo other", 3650, NOW)
EXPIRED = dict(zip(("certificate", "key"), _authority.create("old", 10, NOW - 11 * DAY), strict=True))


@pytest.mark.parametrize(
    ("authority", "subject", "found"),
    [
        ("canary", "platform_authority", "a text, not shown because it may be a secret"),
        ({"certificate": CERTIFICATE}, "platform_authority.key", "nothing"),
        ({"certificate": CERTIFICATE, "key": KEY, "keyy": "canary"}, "platform_authority.keyy", "a key that nothing reads"),
        ({"certificate": CERTIFICATE, "key": 48151623421234567890}, "platform_authority.key", "a whole number, not shown"),
        ({"certificate": "canary", "key": KEY}, "platform_authority.certificate", "no certificate that can be read (not shown)"),
        ({"certificate": CERTIFICATE, "key": "canary"}, "platform_authority.key", "no private key that can be read (not shown)"),
        ({"certificate": KEY, "key": CERTIFICATE}, "platform_authority.certificate", "no certificate that can be read (not shown)"),
        ({"certificate": CERTIFICATE, "key": OTHER_KEY}, "platform_authority.key", "the key of another certificate (not shown)"),
        (EXPIRED, "platform_authority.certificate", "'CN=old', expired on 2027-01-14T08:00:00Z"),
    ],
)
def test_an_authority_that_cannot_sign_is_refused_and_not_shown(authority: Any, subject: str, found: str) -> None:
    report = examine({"vm1": host({"platform_authority": authority})})
    assert [(problem.subject, problem.hosts) for problem in report.problems] == [(subject, ("vm1",))]
    assert report.problems[0].found.startswith(found)
    text = "\n".join([*_validate.format_problems(report.problems, ["vm1"]), *report.notes])
    secrets = [line for key in (KEY, OTHER_KEY, EXPIRED["key"]) for line in key.splitlines()[1:-1]]
    assert [secret for secret in ("canary", "48151623421234567890", *secrets) if secret in text] == []


def test_a_missing_authority_says_how_to_add_it() -> None:
    (problem,) = examine({"vm1": host({"platform_authority": None})}).problems
    assert (problem.subject, problem.found, problem.remedy) == ("platform_authority", "nothing", _authority.ADD)
    assert "secrets_only=platform_authority" in problem.remedy
    nothing = {"platform_authority": None, "odoo_instance_secrets": None}
    remedies = {problem.subject: problem.remedy for problem in examine({"vm1": host(nothing)}).problems}
    assert remedies["platform_authority"] == remedies["odoo_instance_secrets.main.db_password"], "one command makes both"


def test_an_authority_is_needed_where_there_is_a_database_and_judged_where_it_is_set() -> None:
    tiers = {**TIERS, "database": []}
    assert subjects(examine({"vm1": host({"platform_authority": None})}, tiers)) == ["group database"]
    assert subjects(examine({"vm1": host({"platform_authority": "x"})}, tiers)) == ["group database", "platform_authority"]


def test_an_authority_that_ends_soon_is_worth_a_note() -> None:
    def report(days: int) -> Report:
        certificate, key = _authority.create("short", days, NOW)
        return examine({"vm1": host({"platform_authority": {"certificate": certificate, "key": key}})})

    assert (report(181).problems, report(181).notes) == ([], [])
    assert report(170).problems == []
    assert report(170).notes[0].startswith("vm1: platform_authority expires on 2027-07-04T08:00:00Z; ")


def test_without_cryptography_one_problem_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_authority, "LIBRARY_ERROR", "no module")
    (problem,) = examine({"vm1": host(), "vm2": host()}).problems
    assert problem.found == "no Python package cryptography"


def test_a_certificate_is_looked_for_among_traefiks() -> None:
    instances = {"main": {**VARIABLES["odoo_instances"]["main"], "certificate": "main"}}
    assert subjects(examine({"vm1": host({"odoo_instances": instances})})) == ["odoo_instances.main.certificate"]


def test_flat_overrides_feed_the_plan_and_are_checked() -> None:
    assert examine({"vm1": host({"odoo_web_workers": 3})}).plan["vm1"]["odoo"]["main"]["web_workers"] == 3
    assert subjects(examine({"vm1": host({"postgresql_max_connections": 30})})) == ["postgresql_max_connections"]


def test_what_the_playbooks_replace_is_refused_and_says_where_it_belongs() -> None:
    report = examine({"vm1": host({"odoo_language": "de_DE", "restore_schedule": "Sun 05:00", "redis_members": {}})})
    assert {problem.subject: problem.remedy for problem in report.problems} == {
        "odoo_language": "write it into odoo_instances.<name>.language, and remove odoo_language",
        "restore_schedule": "write it into backup_schedule.drill, and remove restore_schedule",
        "redis_members": "remove redis_members",
    }
    # It would be read by berth.odoo.images alone, and what that builds is not what the others look for then.
    [problem] = examine({"vm1": host({"images_names": ["redis"]})}).problems
    assert (problem.subject, problem.remedy) == ("images_names", "remove images_names")
    # Somebody who uses the role alone on the same hosts.
    assert examine({"vm1": host({"odoo_language": "de_DE"})}, ignored_variables=("odoo_language",)).problems == []


def test_a_secret_that_the_playbooks_replace_is_not_said() -> None:
    canary = "canary-Zx81-abcdefghijklm"
    report = examine({"vm1": host({"odoo_db_password": canary})})
    assert subjects(report) == ["odoo_db_password"]
    assert canary not in str(report)


def test_parameters_of_tables_are_checked_before_anything_is_touched() -> None:
    report = examine({"vm1": host({"odoo_table_parameters": {"stock_move": {"fill_factor": 50}}})})
    assert subjects(report) == ["odoo_table_parameters.stock_move.fill_factor"]
    assert examine({"vm1": host({"odoo_table_parameters": {"stock_move": {"fillfactor": 50}, "mail_mail": None}})}).problems == []
    assert subjects(examine({"vm1": host({"odoo_table_parameters": "stock_move"})})) == ["odoo_table_parameters"]


def test_a_port_moves_with_its_variable() -> None:
    listener = {"port": 8443, "address": "::", "pid": 7, "process": "nginx", "container": "", "ours": False}
    assert not examine({"vm1": host(facts={"listeners": [listener]})}).problems
    assert subjects(examine({"vm1": host({"traefik_https_port": 8443}, {"listeners": [listener]})})) == ["port 8443"]


def test_a_host_outside_of_the_limit_counts_like_its_fellow() -> None:
    """Else a limited run would plan fewer connections, and PostgreSQL would have to restart."""
    both = examine({"vm1": host(SHARED), "vm2": host(SHARED)}, TWO)
    limited = examine({"vm1": host(SHARED), "vm2": host(SHARED, failure="unreachable: timed out", limited=True)}, TWO)
    assert limited.problems == []
    assert limited.plan["vm1"]["postgresql"]["max_connections"] == both.plan["vm1"]["postgresql"]["max_connections"]
    assert "vm2: outside of --limit" in limited.notes[0]


def test_a_tier_of_an_unknown_host_is_refused() -> None:
    assert subjects(examine(tiers={**TIERS, "witness": ["vm8", "vm9"]})) == ["preflight_tier_hosts.witness"] * 2


def test_an_undisciplined_clock_is_a_note_except_in_a_container() -> None:
    assert examine({"vm1": host(facts={"clock_synchronized": False})}).notes
    assert not examine({"vm1": host(facts={"clock_synchronized": False, "container": "docker"})}).notes
    assert "apart" in examine({"vm1": host(facts={"clock_offset_s": -3600.0})}).notes[0]


@pytest.mark.parametrize("garbage", [5, "text", ["list"], {"main": 5}, {5: {}}, {"main": {"users": [1], "domains": 5, "database": {}}}])
def test_garbage_is_reported_and_breaks_nothing(garbage: Any) -> None:
    assert examine({"vm1": host({"odoo_instances": garbage, "odoo_instance_secrets": garbage})}).problems


# -- drift between what is known here and the rest of the collection


def given_by_site() -> dict[str, set[str]]:
    """Role to the variables that playbooks/site.yml gives it, itself or in the plays and tasks that it imports."""
    given: dict[str, set[str]] = {}
    plays = yaml.safe_load((COLLECTION / "playbooks/site.yml").read_text(encoding="utf-8"))
    for imported in [play["ansible.builtin.import_playbook"] for play in plays if "ansible.builtin.import_playbook" in play]:
        plays += yaml.safe_load((COLLECTION / "playbooks" / imported).read_text(encoding="utf-8"))
    for play in plays:
        for entry in play.get("roles", []):
            given.setdefault(entry["role"].rpartition(".")[2], set()).update(entry.get("vars", {}))
        tasks = play.get("tasks", [])
        for task in tasks:
            if file := task.get("ansible.builtin.import_tasks"):
                tasks += yaml.safe_load((COLLECTION / "playbooks/plays" / file).read_text(encoding="utf-8"))
            include = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role")
            if include:
                given.setdefault(include["name"].rpartition(".")[2], set()).update(task.get("vars", {}))
    return given


def given_from_the_plan() -> set[str]:
    """Variables that the plan reads, so that an inventory's value reaches the role through it."""
    sizing = (COLLECTION / "plugins/module_utils/_sizing.py").read_text(encoding="utf-8")
    flat = {f"odoo_{key}" for key in _validate.INSTANCE_OPTIONS if key.endswith(("_workers", "_memory_mb"))}
    return flat | {name for options in SPECIFICATIONS.values() for name in options if f'"{name}"' in sizing}


def test_everything_that_is_handed_over_and_not_planned_is_refused_in_an_inventory() -> None:
    given = {name for names in given_by_site().values() for name in names if not name.startswith("__")}
    restore = yaml.safe_load((COLLECTION / "playbooks/tasks/restore_program.yml").read_text(encoding="utf-8"))[0]["vars"]
    firewall = yaml.safe_load((COLLECTION / "playbooks/firewall.yml").read_text(encoding="utf-8"))[1]["roles"][0]["vars"]
    given |= {name for name in {**restore, **firewall} if not name.startswith("__")}
    # The topology takes an inventory's watchdog.
    assert set(_preflight.HANDED_OVER) == given - given_from_the_plan() - {"postgresql_watchdog"}
    assert set(_preflight.HANDED_OVER) <= {name for options in SPECIFICATIONS.values() for name in options}
    for where in _preflight.HANDED_OVER.values():
        if where.startswith("odoo_instances.<name>."):
            assert where.rpartition(".")[2] in _validate.INSTANCE_OPTIONS


def test_a_person_need_not_give_what_a_role_requires_beyond_instances_and_secrets() -> None:
    """Else preflight would have to ask for it, and it does not."""
    given = given_by_site()
    for roles in _preflight.TIER_ROLES.values():
        for role in roles:
            required = {name for name, option in SPECIFICATIONS.get(role, {}).items() if option.get("required")}
            assert required <= given.get(role, set()), role


def test_what_playbooks_read_of_an_inventory_is_known() -> None:
    """Else the reference lacks it, and a note calls it a variable that nothing reads."""
    own = re.compile(r"\b((?:backup|maintenance|patch|reinit)_[a-z_]+) \| default")
    read = {name for path in COLLECTION.glob("playbooks/**/*.yml") for name in own.findall(path.read_text(encoding="utf-8"))}
    # Of one run, not of a site: they are typed with -e.
    assert read - {"backup_database", "maintenance_now"} <= {name for options in SPECIFICATIONS.values() for name in options}
    assert {"backup_hours", "maintenance_window", "patch_reboot", "reinit_timeout"} <= read


def test_facts_that_roles_set_are_no_mistyped_variables() -> None:
    """A second run in one play sees them among the host's variables."""
    facts = set()
    for path in COLLECTION.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
            facts |= set(task.get("ansible.builtin.set_fact", {})) - {"cacheable"}
    assert {fact for fact in facts if not fact.startswith("__")} <= _preflight.SET_BY_ROLES


def test_every_override_that_the_plan_reads_is_a_variable_of_a_role() -> None:
    known = {name for options in SPECIFICATIONS.values() for name in options}
    text = (COLLECTION / "plugins/module_utils/_sizing.py").read_text(encoding="utf-8")
    overrides = {
        f"{role}_{what}"
        for role, what in [
            ("traefik", "memory_mb"),
            ("redis", "memory_mb"),
            ("redis", "maxmemory_mb"),
            ("pgbouncer", "memory_mb"),
            ("pgbouncer", "pool_size"),
            ("pgbouncer", "session_pool_size"),
            ("pgbouncer", "max_client_connections"),
            ("etcd", "memory_mb"),
            ("postgresql", "memory_mb"),
            ("postgresql", "cpus"),
            ("postgresql", "disk_kind"),
            ("postgresql", "max_connections"),
            ("postgresql", "parameters"),
        ]
    }
    assert all(f'"{name}"' in text for name in overrides)
    assert overrides <= known
    assert {f"odoo_{key}" for key in ("web_workers", "cron_workers", "web_memory_mb", "websocket_memory_mb", "cron_memory_mb")} <= known


def test_who_is_not_well_is_first_and_who_leads_is_last() -> None:
    names = ("vm1", "vm2", "vm3")
    facts = (
        {"postgresql": "leader", "etcd_healthy": True},
        {"postgresql": "standby", "etcd_healthy": True},
        {"postgresql": "", "etcd_healthy": False},
    )
    hosts = {name: host(facts={"etcd": "member", **found}) for name, found in zip(names, facts, strict=True)}
    plan = examine(hosts, {**TIERS, "database": list(names)}).plan
    assert [plan[name]["postgresql"]["turn"] for name in names] == [2, 1, 0]
    assert [plan[name]["etcd"]["turn"] for name in names] == [1, 1, 0]


def test_a_host_without_data_comes_after_the_leader_from_which_it_copies() -> None:
    tiers = {"edge": ["db1"], "app": ["db1"], "cache": ["db1"], "database": ["db3", "db1", "db2"]}
    facts = {
        "db1": {"postgresql": "leader", "etcd": "member"},
        "db2": {"postgresql": "blank"},
        "db3": {"postgresql": "blank", "etcd": "joining"},
    }
    plan = examine({name: host({"host_address": f"10.0.0.{number}"}, facts[name]) for number, name in enumerate(facts, 1)}, tiers).plan
    turns = {name: plan[name]["postgresql"]["turn"] for name in facts}
    assert turns["db1"] < turns["db2"] == turns["db3"]


@pytest.mark.parametrize(
    ("states", "sponsors"),
    [
        (("", "", ""), ("", "", "")),  # a new cluster: all begin together
        (("member", "member", "member"), ("", "", "")),
        (("member", "", "joining"), ("", "vm1", "vm1")),
        (("", "member", "member"), ("vm2", "", "")),  # a blank machine in the place of a dead one
    ],
)
def test_who_lets_an_etcd_member_join(states: tuple[str, ...], sponsors: tuple[str, ...]) -> None:
    names = ("vm1", "vm2", "vm3")
    report = examine(
        {name: host(facts={"etcd": state}) for name, state in zip(names, states, strict=True)}, {**TIERS, "database": ["vm1", "vm2", "vm3"]}
    )
    assert report.problems == []
    assert tuple(report.plan[name]["etcd"]["sponsor"] for name in names) == sponsors
    assert [report.plan[name]["etcd"]["has_data"] for name in names] == [bool(state) for state in states]
    assert any("joins the cluster of" in note for note in report.notes) == any(sponsors)


@pytest.mark.parametrize(("state", "refused"), [("", True), ("joining", True), ("member", False)])
def test_nobody_founds_a_cluster_beside_one_that_cannot_be_asked(state: str, refused: bool) -> None:
    """Its database would be empty, and Odoo would fill it."""
    hosts = {"vm1": host(), "vm2": host(facts={"etcd": state}), "vm3": host(facts={"etcd": state})}
    hosts["vm1"] = hosts["vm1"]._replace(facts=None, failure="timed out", limited=True)
    problems = examine(hosts, {**TIERS, "edge": ["vm2"], "app": ["vm2"], "cache": ["vm2"], "database": ["vm1", "vm2", "vm3"]}).problems
    found = [problem for problem in problems if problem.subject == "groups database and witness"]
    assert bool(found) == refused
    assert not refused or ("vm1 cannot be asked" in found[0].found and found[0].hosts == ("vm2", "vm3"))


def test_reads_from_a_standby_need_one() -> None:
    (problem,) = examine({"vm1": host({"odoo_replica_reads": True})}).problems
    assert problem.subject == "odoo_replica_reads"
    assert problem.found == "true with 1 database host"
    assert examine({"vm1": host({"odoo_replica_reads": False})}).problems == []


def test_reads_from_a_standby_are_planned_and_the_same_for_all() -> None:
    tiers = {**TIERS, "database": ["db1", "db2"], "witness": ["w1"]}
    names = ("vm1", "db1", "db2", "w1")
    without, planned = (examine({name: host(variables) for name in names}, tiers) for variables in ({}, {"odoo_replica_reads": True}))
    assert planned.problems == []
    pool = planned.plan["vm1"]["pgbouncer"]["pool_size"]
    assert planned.plan["db1"]["postgresql"]["connections"]["pools"] == without.plan["db1"]["postgresql"]["connections"]["pools"] + pool
    assert "pgbouncer-replica" in planned.plan["vm1"]["memory"]["limits"]
    mixed = {name: host({"odoo_replica_reads": name != "db2"}) for name in names}
    assert "odoo_replica_reads" in subjects(examine(mixed, tiers))


def test_a_certificate_by_acme_needs_to_know_how() -> None:
    instances = {"main": {**VARIABLES["odoo_instances"]["main"], "certificate": "acme"}}
    assert subjects(examine({"vm1": host({"odoo_instances": instances})})) == ["odoo_instances.main.certificate"]
    acme = {"email": "ops@example.com"}
    assert examine({"vm1": host({"odoo_instances": instances, "traefik_acme": acme})}).problems == []
    assert subjects(examine({"vm1": host({"odoo_instances": instances, "traefik_acme": {"email": ""}})})) == ["traefik_acme.email"]
    names = ("vm1", "vm2")
    tiers = {**TIERS, **{tier: list(names) for tier in ("edge", "app", "cache")}}
    found = examine({name: host({"odoo_instances": instances, "traefik_acme": acme}) for name in names}, tiers)
    assert "traefik_acme.dns_provider" in subjects(found)
    by_dns = {**acme, "dns_provider": "ovh"}
    found = examine({name: host({"odoo_instances": instances, "traefik_acme": by_dns}) for name in names}, tiers)
    assert "traefik_acme.dns_provider" not in subjects(found)


def test_an_analyst_is_planned_and_needs_a_password() -> None:
    instances = {"main": {**VARIABLES["odoo_instances"]["main"], "analyst": {"connections": 7}}}
    assert subjects(examine({"vm1": host({"odoo_instances": instances})})) == ["odoo_instance_secrets.main.analyst_password"]
    secrets = {"main": {**VARIABLES["odoo_instance_secrets"]["main"], "analyst_password": "an-abcdefghijklmnopqr"}}
    report = examine({"vm1": host({"odoo_instances": instances, "odoo_instance_secrets": secrets})})
    assert report.problems == []
    reserved = examine().plan["vm1"]["postgresql"]["connections"]["reserved"]
    assert report.plan["vm1"]["postgresql"]["connections"]["reserved"] == reserved + 7
    instances["main"]["analyst"] = {"networks": ["10.0.5.1/24"], "connection": 7}
    found = subjects(examine({"vm1": host({"odoo_instances": instances, "odoo_instance_secrets": secrets})}))
    assert "odoo_instances.main.analyst.connection" in found


def test_a_rotation_that_was_not_finished_is_said() -> None:
    secrets = {"main": {**VARIABLES["odoo_instance_secrets"]["main"], "db_user": "main_login2", "db_password_old": "o" * 12 + "abcdefghij"}}
    report = examine({"vm1": host({"odoo_instance_secrets": secrets})})
    assert report.problems == []
    assert [note for note in report.notes if "berth.odoo.rotate_secrets" in note]
    secrets["main"]["db_user"] = "somebody"
    assert subjects(examine({"vm1": host({"odoo_instance_secrets": secrets})})) == ["odoo_instance_secrets.main.db_user"]


def test_app_hosts_that_share_neither_logins_nor_files_are_refused_with_the_ways_out() -> None:
    sessions, attachments = examine({"vm1": host(), "vm2": host()}, TWO).problems
    assert (sessions.subject, sessions.hosts) == ("odoo_instances.main.sessions", ("vm1", "vm2"))
    assert sessions.remedy == "odoo_instances.main: {sessions: redis}"
    assert "(vm1, vm2)" in attachments.found and attachments.found.startswith("files, ")
    assert attachments.remedy.startswith("odoo_instances.main: {attachments: database} or odoo_instances.main: {filestore: ")
    assert examine({"vm1": host(SHARED), "vm2": host(SHARED)}, TWO).problems == []


def test_a_drained_host_is_noted_and_planned_without() -> None:
    since = "2026-11-25T02:00:00Z"
    hosts = {"vm1": host(SHARED, {"drained": {"vm2": since, "gone": since}}), "vm2": host(SHARED, {"drained": {}})}
    report = examine(hosts, TWO)
    assert (report.problems, report.plan["vm2"]["drained"]) == ([], since)
    assert "drained" not in report.plan["vm1"]
    (note,) = report.notes
    assert note.startswith(f"vm2: drained since {since}: ") and note.endswith("berth.odoo.undrain -e target=vm2")


def test_somebody_answers_when_all_that_is_left_was_drained() -> None:
    hosts = {"vm1": host(SHARED, {"drained": {"vm1": "2026-11-25T02:00:00Z"}})}
    report = examine(hosts)
    assert report.problems == []
    assert "drained" not in report.plan["vm1"]
    assert "gets requests all the same" in report.notes[0]


def test_a_port_for_other_hosts_is_free_or_named_with_what_moves_it() -> None:
    listeners = [
        {"port": port, "address": "::", "pid": 7, "process": "odoo-bin", "container": "", "ours": False} for port in (8069, 8070, 6379)
    ]
    odoo, redis = examine({"vm1": host(SHARED, {"listeners": listeners}), "vm2": host(SHARED)}, TWO).problems
    assert (odoo.subject, redis.subject) == ("port 8069", "port 6379"), "nobody takes 8070 without batch_workers"
    assert odoo.remedy.endswith("Or choose another port: odoo_instances.main.port")
    assert "choose another" not in redis.remedy
    assert examine({"vm1": host(facts={"listeners": listeners})}).problems == [], "one host publishes nothing"


def test_instances_on_published_hosts_have_ports_of_their_own() -> None:
    first = SHARED["odoo_instances"]["main"]
    second = {**first, "domains": ["b.example.com"], "database": "b"}
    secrets = VARIABLES["odoo_instance_secrets"]["main"]
    both = {
        "odoo_instances": {"main": first, "b": second},
        "odoo_instance_secrets": {"main": secrets, "b": {key: f"other-{value}" for key, value in secrets.items()}},
    }
    (problem,) = examine({"vm1": host(both), "vm2": host(both)}, TWO, minimum_memory_mb=1).problems[:1]
    assert problem.subject == "odoo_instances.b.port"
    assert problem.found == "8069 (the default), so 8069 to 8072, of which main has some"
    assert problem.remedy == "odoo_instances.b: {port: 8079}"
    assert "odoo_instances.b.port" not in subjects(examine({"vm1": host(both)})), "one host publishes nothing"


def test_an_image_of_our_own_needs_no_digest_and_a_mistyped_one_gets_the_nearest() -> None:
    def instances(image: str) -> dict[str, Any]:
        main = {**VARIABLES["odoo_instances"]["main"], "image": image}
        return {"odoo_instances": {"main": main}, "images_odoo_variants": {"odoo-acme": {"addons": ["/srv/acme"]}}}

    assert examine({"vm1": host(instances("odoo-acme"))}, require_image_digests=True).problems == []
    (problem,) = examine({"vm1": host(instances("odoo-acm"))}).problems
    assert (problem.subject, problem.remedy) == ("odoo_instances.main.image", "odoo_instances: {main: {image: odoo-acme}}")
    assert examine({"vm1": host(instances("registry.example.com/odoo:19"))}).problems == []


FLOATING = {"address": "10.0.0.9", "held": False, "drained": "", "interface": "eth0", "own_interface": "eth1", "claimed_by": ""}


def floating(
    first: dict[str, Any] | None = None, second: dict[str, Any] | None = None, address: Any = "10.0.0.9", **variables: Any
) -> Report:
    values = {**SHARED, "keepalived_address": address, **variables}
    facts = [{"floating": {**FLOATING, **(changes or {})}} for changes in (first, second)]
    return examine(
        {"vm1": host({**values, "host_address": "10.0.0.1"}, facts[0]), "vm2": host({**values, "host_address": "10.0.0.2"}, facts[1])}, TWO
    )


def test_edges_of_a_floating_address_are_told_their_turn() -> None:
    report = floating()
    assert report.problems == []
    assert report.plan["vm1"]["keepalived"] == {"interface": "eth0", "peers_interface": "eth1", "priority": 200, "drained": ""}
    assert report.plan["vm2"]["keepalived"]["priority"] == 199
    assert "keepalived" not in examine().plan["vm1"]


def test_an_address_that_was_taken_out_is_given_up() -> None:
    assert examine({"vm1": host(facts={"keepalived": True})}).plan["vm1"]["keepalived"] == {"left": True}


def test_a_drained_edge_is_named() -> None:
    assert any(
        "vm2: drained since today: it does not get the floating address" in note for note in floating(None, {"drained": "today"}).notes
    )


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (lambda: floating({"interface": ""}), "no interface of vm1 is in its network"),
        (lambda: floating({"claimed_by": "02:42:0a:00:00:63"}), "the machine with the hardware address 02:42:0a:00:00:63 has"),
        (lambda: floating(address="10.0.0.9/24"), "'10.0.0.9/24'"),
        (lambda: floating(address="10.0.0.2"), "10.0.0.2, which is vm2's own"),
        (lambda: floating(traefik_publish_address="10.0.0.1"), "10.0.0.1 with keepalived_address 10.0.0.9, which is another"),
    ],
)
def test_a_floating_address_that_cannot_move_is_refused(report: Any, words: str) -> None:
    found = report().problems
    assert any(words in problem.found for problem in found), found
    assert all(problem.subject in {"keepalived_address", "traefik_publish_address"} for problem in found)


def test_an_edge_that_has_the_address_is_nobody_else() -> None:
    assert floating({"held": True}, {"claimed_by": "02:42:0a:00:00:01"}).problems == []


def test_a_floating_address_takes_two_edges_that_agree() -> None:
    [alone] = examine({"vm1": host({"keepalived_address": "10.0.0.9"}, {"floating": FLOATING})}).problems
    assert alone.found == "10.0.0.9 with one edge (vm1)" and "group edge" in alone.remedy
    found = examine({"vm1": host({**SHARED, "keepalived_address": "10.0.0.9"}), "vm2": host(SHARED)}, TWO).problems
    assert [problem.found for problem in found] == ["10.0.0.9 on vm1, nothing on vm2"]


THREE = {"vm1": "10.0.0.1", "vm2": "10.0.0.2", "vm3": "10.0.0.3"}
PASSWORD = {"redis_replication_password": "a replication password 1"}


def caches(facts: dict[str, dict[str, Any]], variables: dict[str, Any] | None = None, names: list[str] | None = None) -> Report:
    hosts = {name: host({**(PASSWORD if variables is None else variables)}, {"redis": facts.get(name, {})}) for name in THREE}
    return examine(hosts, {**TIERS, "cache": names or list(THREE)})


def turns(report: Report) -> dict[str, tuple[str, int]]:
    return {name: (report.plan[name]["redis"]["first"], report.plan[name]["redis"]["turn"]) for name in THREE}


def decided(primary: str, epoch: int) -> dict[str, Any]:
    return {"deployed": True, "data": True, "primary": primary, "epoch": epoch, "first": primary}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        # Nobody yet: the first one, and it comes first, because it has to let in the others.
        ({}, {"vm1": ("vm1", 0), "vm2": ("vm1", 1), "vm3": ("vm1", 1)}),
        # Two hosts more for one that has the logins.
        ({"vm3": {"data": True, "primary": "", "epoch": 0}}, {"vm1": ("vm3", 1), "vm2": ("vm3", 1), "vm3": ("vm3", 0)}),
        # They run: the newest word counts, and who leads comes last. One is a blank machine.
        (
            {"vm2": decided("vm2", 4), "vm3": {**decided("vm1", 3), "first": "vm2"}},
            {"vm1": ("vm2", 0), "vm2": ("vm2", 1), "vm3": ("vm2", 0)},
        ),
        # Three became one, which leads by its Sentinel's last word, and two of them come back, one with data of before.
        (
            {
                "vm1": {"deployed": False, "data": True, "primary": "", "epoch": 0, "first": ""},
                "vm2": {**decided("vm2", 4), "first": ""},
            },
            {"vm1": ("vm2", 1), "vm2": ("vm2", 0), "vm3": ("vm2", 1)},
        ),
        # A host that was taken out is not followed.
        ({"vm1": decided("gone", 9), "vm2": decided("vm2", 4)}, {"vm1": ("vm2", 0), "vm2": ("vm2", 1), "vm3": ("vm2", 0)}),
    ],
)
def test_whom_a_blank_redis_follows_and_whose_turn_it_is(facts: dict[str, Any], expected: dict[str, tuple[str, int]]) -> None:
    report = caches(facts)
    assert subjects(report) == []
    assert turns(report) == expected
    assert report.plan["vm2"]["memory"]["limits"]["sentinel"] == 64


def test_whoever_takes_over_has_room_for_what_the_primary_has() -> None:
    hosts = {name: host(PASSWORD, {"memory_mb": 6144 if name == "vm1" else 1024}) for name in THREE}
    report = examine(hosts, {**TIERS, "cache": list(THREE)})
    assert subjects(report) == []
    planned = [report.plan[name]["redis"] for name in THREE]
    assert len({part["maxmemory_mb"] for part in planned}) == 1
    assert all(part["maxmemory_mb"] * 2 + 64 <= part["memory_mb"] for part in planned)


def test_after_a_failover_a_run_changes_nothing() -> None:
    facts = {name: {**decided("vm2", 4), "first": "vm1"} for name in THREE}
    assert turns(caches(facts)) == {"vm1": ("vm1", 0), "vm2": ("vm1", 1), "vm3": ("vm1", 0)}
    # A blank machine of the same name, and one that was told to follow a host that is none any more.
    facts["vm1"] = {"data": False, "primary": "", "epoch": 0, "first": "vm1"}
    facts["vm3"]["first"] = "gone"
    assert {name: first for name, (first, _turn) in turns(caches(facts)).items()} == {"vm1": "vm2", "vm2": "vm1", "vm3": "vm2"}


def test_the_word_of_a_sentinel_that_was_removed_is_not_believed() -> None:
    stale = {**decided("vm3", 9), "deployed": False}
    (problem,) = caches({"vm1": stale, "vm2": {**decided("vm2", 4), "first": ""}, "vm3": stale}).problems
    assert (problem.subject, problem.hosts) == ("what is left of Redis", ("vm1", "vm3"))
    assert "vm3 is the primary" in problem.found and "rm -r /var/lib/berth/redis /var/lib/berth/redis-sentinel" in problem.remedy
    # Where none is there any more, what is left is all that there is.
    assert caches(dict.fromkeys(THREE, stale)).problems == []


def test_several_redis_need_one_password() -> None:
    (problem,) = caches({}, {}).problems
    assert problem.subject == "redis_replication_password"
    assert "3 hosts in the group cache" in problem.found and "openssl rand" in problem.remedy


def test_one_that_is_left_alone_must_be_the_primary() -> None:
    (problem,) = caches({"vm1": decided("vm2", 3)}, names=["vm1"]).problems
    assert problem.found == "vm1 alone, and the primary of the several that there were is vm2"
    assert caches({"vm1": decided("vm1", 3)}, names=["vm1"]).problems == []
