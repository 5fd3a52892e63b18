# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tier roles hand to compose_project, rendered by Ansible itself, against golden files.

A golden file shows in a review what a change of a role means on a host. Write them anew with: BERTH_GOLDEN=write make unit
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ansible_collections.berth.odoo.plugins.module_utils import _scram

ROOT = Path(__file__).resolve().parents[3]
COLLECTIONS = Path(_scram.__file__).parents[5]
GOLDEN = Path(__file__).parent / "golden"
AWKWARD = 'a $b%c "d"\'e {f} #g \\h'

AUTHORITY = {"certificate": "-----BEGIN CERTIFICATE-----\nca\n", "key": "a $b%c the key of the authority"}

INPUTS = {
    "etcd": {"etcd_image": "sha256:0e", "etcd_authority": AUTHORITY},
    "etcd-member": {
        "etcd_image": "sha256:0e",
        "etcd_authority": AUTHORITY,
        "etcd_name": "db2",
        "etcd_members": {"db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"},
        "etcd_publish_address": "10.0.0.12",
    },
    "postgresql": {
        "postgresql_image": "sha256:0f",
        "postgresql_authority": AUTHORITY,
        "postgresql_roles": [{"name": "odoo_main", "password": AWKWARD}],
        "postgresql_databases": [{"name": "main", "owner": "odoo_main"}],
    },
    "postgresql-backup": {
        "postgresql_image": "sha256:0f",
        "postgresql_authority": AUTHORITY,
        "postgresql_backup_repositories": [
            {"name": "offsite", "type": "s3", "endpoint": "https://s3.example:8333", "bucket": "berth", "path": "/site1"},
            {"name": "near", "type": "posix", "path": "/srv/backup"},
        ],
        "postgresql_backup_secrets": {"passphrase": "p" * 32, "offsite": {"access_key": "a", "secret_key": "b"}},
        "postgresql_restore": "2026-11-25 14:03:59+00",
    },
    "postgresql-member": {
        "postgresql_image": "sha256:0f",
        "postgresql_authority": AUTHORITY,
        "postgresql_member_name": "db2",
        "postgresql_members": {"db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"},
        "postgresql_failover_plan": "fast",
        "postgresql_watchdog": "required",
        "postgresql_etcd_hosts": ["db1-etcd:2379", "db2-etcd:2379", "db3-etcd:2379"],
        "postgresql_hosts": {"db1": "10.0.0.11", "db1-etcd": "10.0.0.11", "db3": "10.0.0.13", "db3-etcd": "10.0.0.13"},
        "postgresql_publish_address": "10.0.0.12",
        "postgresql_replica_reads": "false",
        "postgresql_client_networks": ["10.0.1.0/24"],
        "postgresql_memory_mb": 16384,
        "postgresql_cpus": 4,
        "postgresql_parameters": {"work_mem": "20MB", "max_connections": 150},
        "postgresql_extra_settings": {"tags": {"nofailover": True}},
        "postgresql_roles": [
            {"name": "odoo_main", "password": AWKWARD},
            {"name": "main_analyst", "password": AWKWARD, "reads": ["main"], "networks": ["10.0.5.0/24"]},
            {"name": "berth_monitoring", "member_of": ["pg_monitor"]},
        ],
        "postgresql_databases": [{"name": "main", "owner": "odoo_main"}],
    },
    "postgresql-member-backup": {
        "postgresql_image": "sha256:0f",
        "postgresql_authority": AUTHORITY,
        "postgresql_member_name": "db2",
        "postgresql_members": {"db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"},
        "postgresql_etcd_hosts": ["db1-etcd:2379", "db2-etcd:2379", "db3-etcd:2379"],
        "postgresql_hosts": {"db1": "10.0.0.11", "db1-etcd": "10.0.0.11", "db3": "10.0.0.13", "db3-etcd": "10.0.0.13"},
        "postgresql_publish_address": "10.0.0.12",
        "postgresql_backup_repositories": [{"name": "near", "type": "posix", "path": "/srv/backup"}],
        "postgresql_backup_secrets": {"passphrase": "p" * 32},
    },
    "haproxy": {
        "haproxy_image": "sha256:19",
        "haproxy_authority_certificate": AUTHORITY["certificate"],
        "haproxy_members": {"db1": "postgresql", "db2": "10.0.0.12"},
        "haproxy_extra_settings": {"timeout client": "2h"},
        "haproxy_replica_reads": True,
    },
    "pgbouncer": {
        "pgbouncer_image": "sha256:1a",
        "pgbouncer_authority_certificate": AUTHORITY["certificate"],
        "pgbouncer_users": [{"name": "odoo_main", "password": AWKWARD}],
        "pgbouncer_pool_size": 3,
        "pgbouncer_hold": "false",
        "pgbouncer_networks": ["berth-odoo-main"],
        "pgbouncer_extra_settings": {"query_wait_timeout": 90},
    },
    "pgbouncer-hold": {
        "pgbouncer_image": "sha256:1a",
        "pgbouncer_authority_certificate": AUTHORITY["certificate"],
        "pgbouncer_users": [{"name": "odoo_main", "password": AWKWARD}],
        "pgbouncer_hold": True,
        "pgbouncer_replica_port": 5433,
    },
    "redis": {
        "redis_image": "sha256:1b",
        "redis_users": [{"name": "main", "password": AWKWARD, "prefix": "main"}],
        "redis_maxmemory_mb": 128,
    },
    "redis-apart": {
        "redis_image": "sha256:1b",
        "redis_users": [{"name": "main", "password": AWKWARD, "prefix": "main"}],
        "redis_publish_address": "10.0.0.31",
        "redis_authority": AUTHORITY,
    },
    "redis-member": {
        "redis_image": "sha256:1b",
        "redis_users": [{"name": "main", "password": AWKWARD, "prefix": "main"}],
        "redis_publish_address": "10.0.0.32",
        "redis_authority": AUTHORITY,
        "redis_name": "cache2",
        "redis_members": {"cache1": "10.0.0.31", "cache2": "10.0.0.32", "cache3": "10.0.0.33"},
        "redis_first": "cache1",
        "redis_replication_password": AWKWARD,
        "redis_networks": ["berth-odoo-main"],
    },
    "odoo": {
        "odoo_image": "sha256:1c",
        "odoo_name": "main",
        "odoo_database": "main",
        "odoo_db_password": AWKWARD + ":",
        "odoo_admin_password": AWKWARD,
        "odoo_web_workers": 3,
        "odoo_batch_workers": 2,
        "odoo_queue_workers": 2,
        "odoo_sessions": "redis",
        "odoo_redis_password": AWKWARD,
        "odoo_extra_settings": {"limit_time_real": 300, "log_handler": [":INFO", "werkzeug:WARNING"]},
    },
    "odoo-apart": {
        "odoo_image": "sha256:1c",
        "odoo_name": "main",
        "odoo_database": "main",
        "odoo_db_password": AWKWARD + ":",
        "odoo_admin_password": AWKWARD,
        "odoo_cpus": 1.5,
        "odoo_batch_workers": 1,
        "odoo_publish_address": "10.0.0.21",
        "odoo_publish_port": 8079,
        "odoo_attachments": "database",
        "odoo_sessions": "redis",
        "odoo_redis": "10.0.0.31:6379",
        "odoo_redis_authority_certificate": AUTHORITY["certificate"],
        "odoo_redis_password": AWKWARD,
    },
    "odoo-plain": {
        "odoo_image": "sha256:1c",
        "odoo_name": "main",
        "odoo_database": "main",
        "odoo_db_password": AWKWARD,
        "odoo_admin_password": AWKWARD,
        "odoo_batch_workers": 1,
        "odoo_queue_workers": 1,
        "odoo_repeat_requests": "false",  # as -e gives it
    },
    "odoo-s3": {
        "odoo_image": "sha256:1c",
        "odoo_name": "main",
        "odoo_database": "main",
        "odoo_db_password": AWKWARD,
        "odoo_admin_password": AWKWARD,
        "odoo_filestore": {"endpoint": "https://s3.example.com", "bucket": "odoo-files", "authority_certificate": AUTHORITY["certificate"]},
        "odoo_filestore_access_key": "AK",
        "odoo_filestore_secret_key": AWKWARD,
        "odoo_oidc": {
            "issuer": "https://login.example.com/realms/acme",
            "client_id": "odoo",
            "authority_certificate": AUTHORITY["certificate"],
        },
        "odoo_oidc_client_secret": AWKWARD,
    },
    "traefik": {
        "traefik_image": "sha256:1d",
        "traefik_drained": {"app2": "2026-11-25T02:00:00Z"},
        "traefik_publish_address": "10.0.0.5",
        "traefik_https_port": 8443,
        "traefik_trusted_ips": ["10.0.0.9"],
        "traefik_extra_settings": {"log": {"level": "WARN"}},
    },
    "traefik-acme": {
        "traefik_image": "sha256:1d",
        "traefik_publish_address": "10.0.0.5",
        "traefik_acme": {
            "email": "ops@example.com",
            "directory": "https://10.0.0.7:14000/dir",
            "authority_certificate": AUTHORITY["certificate"],
            "dns_provider": "rfc2136",
            "dns_settings": {"RFC2136_NAMESERVER": "10.0.0.53:53"},
        },
        "traefik_acme_secrets": {"RFC2136_TSIG_SECRET": AWKWARD},
    },
}


def play(name: str, variables: dict, output: Path) -> dict:
    """Return a play that writes the arguments of the role's compose_project task, rendered, into a file."""
    role = ROOT / "roles" / name.split("-")[0]
    inputs = output / f"{name}.inputs.yml"
    inputs.write_text(yaml.safe_dump({"inventory_hostname": "vm1", **variables}))
    tasks = yaml.safe_load((role / "tasks" / "main.yml").read_text())
    arguments = next(task["berth.odoo.compose_project"] for task in tasks if "berth.odoo.compose_project" in task)
    for file in arguments["files"] if isinstance(arguments["files"], list) else []:
        if "template" in file:
            file["content"] = f"{{{{ lookup('ansible.builtin.template', '{file['template']}') }}}}"
    return {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"rendered": arguments},
        "vars_files": [str(role / "defaults" / "main.yml"), str(inputs), str(role / "vars" / "main.yml")],
        "tasks": [
            {
                "name": f"Render {name}",
                "ansible.builtin.copy": {
                    "content": "{{ rendered | to_nice_yaml }}",
                    "dest": str(output / f"{name}.yml"),
                    "mode": "0600",
                },
            }
        ],
    }


class Dumper(yaml.SafeDumper):
    """Writes text of several lines as it stands, and everything in full where it is."""

    def ignore_aliases(self, data):
        return True


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Return what each role hands over, from one run of ansible-playbook."""
    directory = tmp_path_factory.mktemp("definitions")
    (directory / "templates").mkdir()
    for template in ROOT.glob("roles/*/templates/*"):
        (directory / "templates" / template.name).symlink_to(template)
    plays = [play(name, variables, directory) for name, variables in INPUTS.items()]
    (directory / "playbook.yml").write_text(yaml.safe_dump(plays))
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_HOME": str(directory),
    }
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", str(directory / "playbook.yml")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: yaml.safe_load((directory / f"{name}.yml").read_text()) for name in INPUTS}


@pytest.mark.parametrize("name", INPUTS)
def test_golden(rendered, name):
    golden = GOLDEN / f"{name}.yml"
    text = yaml.dump(rendered[name], Dumper=Dumper, width=140, allow_unicode=True)
    if os.environ.get("BERTH_GOLDEN") == "write":
        golden.write_text(text)
    assert golden.read_text() == text, f"{golden} differs; if that is meant: BERTH_GOLDEN=write make unit"


@pytest.mark.parametrize("name", INPUTS)
def test_every_container_is_confined(rendered, name):
    for service, item in rendered[name]["definition"]["services"].items():
        user, group = item["user"].split(":")
        assert int(user) > 40000 and user == group, service
        assert item["read_only"] is True
        assert item["cap_drop"] == ["ALL"]
        assert item["security_opt"] == ["no-new-privileges:true"]
        assert item["mem_limit"] == item["memswap_limit"]
        assert item["pids_limit"] > 0
        assert item["pull_policy"] == "never"
        if "profiles" in item:  # runs only while somebody waits for it
            assert item["restart"] == "no"
        else:
            assert item["restart"] == "unless-stopped"
            assert item["healthcheck"]["test"][0] == "CMD"
            assert item["stop_grace_period"].endswith("s")
        assert all(volume["read_only"] for volume in item["volumes"] if volume["source"].startswith("./"))


@pytest.mark.parametrize("name", INPUTS)
def test_nothing_is_published_but_on_a_given_address(rendered, name):
    given = [value for key, value in INPUTS[name].items() if key.endswith("_publish_address")]
    services = rendered[name]["definition"]["services"]
    assert any(item.get("ports") for item in services.values()) == bool(given)
    for service, item in services.items():
        ports = item.get("ports", [])
        assert not ports or service not in ("cron", "maintenance"), "nobody asks them anything"
        assert all(port["host_ip"] == given[0] if isinstance(port, dict) else port.startswith(f"{given[0]}:") for port in ports)


@pytest.mark.parametrize("name", INPUTS)
def test_no_password_leaves_a_sensitive_file(rendered, name):
    for file in rendered[name]["files"]:
        if "src" in file:
            continue
        assert AWKWARD not in file["content"] or file["sensitive"]
        if "SCRAM" in file["content"] or " #" in file["content"].replace("\n#", ""):
            assert file["sensitive"]


def test_only_the_plan_s_own_networks_may_reach_what_has_no_password(rendered):
    """Who writes to etcd commands PostgreSQL, so etcd and PostgreSQL meet where nobody else is."""
    assert list(rendered["etcd"]["definition"]["services"]["etcd"]["networks"]) == ["berth-dcs"]
    for name in ("haproxy", "pgbouncer", "redis"):
        for item in rendered[name]["definition"]["services"].values():
            assert "berth-dcs" not in item["networks"]


@pytest.mark.parametrize("name", [name for name in INPUTS if name.startswith("odoo")])
def test_every_container_that_answers_loads_what_keeps_passwords_from_being_tried(rendered, name):
    """The add-on, whatever else is turned off: without it whoever is logged in may call the method behind the login pages."""
    files = {file["dest"]: file for file in rendered[name]["files"]}
    staying = {service for service, item in rendered[name]["definition"]["services"].items() if "profiles" not in item}
    assert {"web", "websocket", "cron"} <= staying
    for service in staying:
        [loaded] = re.findall(r"^server_wide_modules = (.*)$", files[f"config/{service}/odoo.conf"]["content"], re.MULTILINE)
        assert loaded.split(",") == ["base", "rpc", "web", "berth_runtime", *(["queue_job"] if service == "queue" else [])]


def test_the_keys_of_s3_are_in_a_file_that_every_container_reads(rendered):
    """A name of the file is all that the environment holds."""
    for item in rendered["odoo-s3"]["definition"]["services"].values():
        assert item["environment"]["AWS_SHARED_CREDENTIALS_FILE"] == "/run/secrets/odoo/s3.ini"
        assert item["environment"]["BERTH_FILESTORE"] == "s3"
    files = {file["dest"]: file for file in rendered["odoo-s3"]["files"]}
    assert files["secrets/s3.ini"]["content"] == f"[default]\naws_access_key_id = AK\naws_secret_access_key = {AWKWARD}\n"
    assert files["secrets/s3.ini"]["mode"] == "0400"
    for tier in ("web", "websocket", "cron", "maintenance"):
        assert "berth_runtime" in files[f"config/{tier}/odoo.conf"]["content"]


def test_the_secret_of_the_openid_provider_is_in_a_file_that_answering_containers_read(rendered):
    services = rendered["odoo-s3"]["definition"]["services"]
    reading = [name for name, item in services.items() if "BERTH_OIDC" in item["environment"]]
    assert reading == ["web"]
    files = {file["dest"]: file for file in rendered["odoo-s3"]["files"]}
    assert json.loads(files["secrets/oidc.json"]["content"]) == {
        "issuer": "https://login.example.com/realms/acme",
        "client_id": "odoo",
        "client_secret": AWKWARD,
        "authority": "/run/secrets/odoo/oidc-ca.crt",
    }
    assert files["secrets/oidc.json"]["sensitive"] and files["secrets/oidc.json"]["mode"] == "0440"
    assert files["secrets/oidc-ca.crt"]["content"] == AUTHORITY["certificate"]
    assert "secrets/oidc.json" not in {file["dest"] for file in rendered["odoo"]["files"]}
    assert AWKWARD not in yaml.safe_dump(services)


def test_access_to_postgresql(rendered):
    patroni = yaml.safe_load(rendered["postgresql-member"]["files"][0]["content"])
    assert patroni["postgresql"]["pg_hba"] == [
        "local all postgres peer",
        "local replication replicator peer map=replicator",
        "hostssl replication replicator samenet cert map=replicator",
        "hostssl postgres rewind samenet cert map=rewind",
        *(
            f"hostssl {database} {role} 10.0.0.{number}/32 cert map={role}"
            for number in (11, 12, 13)
            for database, role in (("replication", "replicator"), ("postgres", "rewind"))
        ),
        "hostssl main,postgres odoo_main samenet scram-sha-256",
        "hostssl main,postgres odoo_main 10.0.1.0/24 scram-sha-256",
        "hostssl main main_analyst samenet scram-sha-256",
        "hostssl main main_analyst 10.0.5.0/24 scram-sha-256",
        "hostssl all berth_monitoring samenet cert map=berth_monitoring",
    ]
    assert patroni["postgresql"]["pg_ident"] == [
        "replicator postgres replicator",
        *(f"{role} {member} {role}" for member in ("db1", "db2", "db3") for role in ("replicator", "rewind")),
        "berth_monitoring berth_monitoring berth_monitoring",
    ]


def test_members_let_each_other_read_for_a_backup_and_give_nothing_else_away(rendered):
    for name in ("postgresql", "postgresql-backup", "postgresql-member"):
        assert list(rendered[name]["definition"]["services"]) == ["postgresql"]
    services = rendered["postgresql-member-backup"]["definition"]["services"]
    alone = rendered["postgresql-member"]["definition"]["services"]["postgresql"]
    assert services["postgresql"]["ports"] == alone["ports"]
    reader = services["pgbackrest"]
    assert [word for word in reader["command"] if "auth" in word] == ["--tls-server-auth=db1=berth", "--tls-server-auth=db3=berth"]
    assert reader["ports"] == ["10.0.0.12:8432:8432"]
    assert {volume["source"] for volume in reader["volumes"]} == {"./tls", "/var/lib/berth/postgresql"}
    assert all(volume["read_only"] for volume in reader["volumes"])
    [certificate] = rendered["postgresql-member-backup"]["certificates"]
    assert [told["service"] for told in certificate["reload"]] == ["postgresql", "pgbackrest"]


def test_what_members_must_share_is_in_etcd_and_the_rest_in_the_member_s_file(rendered):
    patroni = yaml.safe_load(rendered["postgresql-member"]["files"][0]["content"])
    shared = patroni["bootstrap"]["dcs"]["postgresql"]["parameters"]
    own = patroni["postgresql"]["parameters"]
    assert shared["max_connections"] == 150
    assert own["work_mem"] == "20MB"
    assert own["shared_buffers"] == "4096MB"
    assert not set(shared) & set(own)
    dcs = patroni["bootstrap"]["dcs"]
    assert dcs["failsafe_mode"] is True
    assert dcs["synchronous_mode"] == "quorum"


@pytest.mark.parametrize(("name", "ttl"), [("postgresql", 30), ("postgresql-member", 20)])
def test_failover_plans_keep_to_patroni_s_rule(rendered, name, ttl):
    dcs = yaml.safe_load(rendered[name]["files"][0]["content"])["bootstrap"]["dcs"]
    assert dcs["ttl"] == ttl
    assert dcs["loop_wait"] + 2 * dcs["retry_timeout"] <= dcs["ttl"]


def test_one_member_waits_for_no_standby(rendered):
    dcs = yaml.safe_load(rendered["postgresql"]["files"][0]["content"])["bootstrap"]["dcs"]
    assert dcs["synchronous_mode"] == "off"
