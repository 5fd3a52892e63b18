# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of several members are read from a standby, whoever leads, and from the leader when no standby can be read."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.drill import MEMBERS, cluster, leader, wait_until_fit
from ansible_collections.berth.odoo.tests.support.lab import CommandFailed, wait_for
from ansible_collections.berth.odoo.tests.support.s3 import Store
from ansible_collections.berth.odoo.tests.support.writers import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

SERVER, READER = "postgresql-postgresql-1", "postgresql-pgbackrest-1"
# 60 MB that compress badly.
CONTENT = "CREATE TABLE berth_proof AS SELECT n AS id, (SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 60) m) AS entry"
ROWS = "SELECT count(*), md5(string_agg(p::text, '|' ORDER BY id)) FROM berth_proof p"
RESTORE = """
SETTINGS='-c listen_addresses= -c archive_mode=off -c ssl=off -c unix_socket_directories=/tmp -c hba_file=/restored/pg_hba.conf'
mkdir -m 0700 /restored/17
echo 'local all all trust' > /restored/pg_hba.conf
pgbackrest --stanza=berth --pg1-path=/restored/17 --no-delta restore
pg_ctl -D /restored/17 -s -w -t 120 -o "$SETTINGS" start >&2
until [ "$(psql -XAtq -h /tmp -d postgres -c 'SELECT pg_is_in_recovery()')" = f ]; do sleep 0.2; done
psql -XAtq -h /tmp -d main -f -
pg_ctl -D /restored/17 -s -w -m fast stop >&2
pg_checksums --check -D /restored/17
"""


@pytest.fixture(scope="module")
def store(host: Host) -> Store:
    """An S3 server on the machine beside the database hosts."""
    keys = host.variables["backup_secrets"]["offsite"]
    return Store(host, keys["access_key"], keys["secret_key"])


@pytest.fixture(scope="module")
def backups(host: Host, store: Store) -> Mapping[str, Any]:
    """What turns backups on."""
    where = {"name": "offsite", "type": "s3", "endpoint": f"https://{host.address}:8333", "bucket": store.bucket, "path": "/ha"}
    return {"backup_repositories": [{**where, "authority_certificate": host.variables["platform_authority"]["certificate"]}]}


def back_up(lab: Lab, kind: str) -> dict[str, Any]:
    """Do what the timers of all members do, and return what came of it where there was something to do."""
    led = leader(lab)
    for name in MEMBERS:
        lab.hosts[name].run(f"systemctl start berth-postgresql-backup@{kind}.service", timeout=300)
    [result] = [json.loads(line) for line in lab.hosts[led].run("cat /var/lib/berth/backup/postgresql.json").splitlines()]
    assert not result["error"], result
    return dict(result)


def said(host: Host, kind: str) -> str:
    """What the last run of a backup wrote on a host."""
    unit = f"berth-postgresql-backup@{kind}.service"
    run = host.run(f"systemctl show --value --property=InvocationID {unit}").strip()
    return host.run(f"journalctl --sync; journalctl --quiet --output=cat --identifier=python3 _SYSTEMD_INVOCATION_ID={run}")


def sent(lab: Lab) -> dict[str, int]:
    """Bytes that each member's reader has sent since it was started."""
    found = {}
    for name in MEMBERS:
        lines = lab.hosts[name].run(f"docker exec {READER} cat /proc/net/dev").splitlines()
        found[name] = int(next(line for line in lines if "eth0:" in line).split()[9])
    return found


def begun(lab: Lab) -> str:
    """Begin a full backup and return the standby that is being read."""
    standby = str(back_up(lab, "incremental")["source"]).removeprefix("read from ")
    processes = f"docker exec {READER} sh -c 'ls -d /proc/[0-9]*/exe | wc -l'"
    idle = int(lab.hosts[standby].run(processes))
    lab.hosts[leader(lab)].run("systemctl start --no-block berth-postgresql-backup@full.service")
    # One asks PostgreSQL, another one reads.
    wait_for("its reader", lambda: int(lab.hosts[standby].run(processes)) > idle + 1, seconds=60, interval=0.2)
    return standby


def restored(host: Host) -> str:
    """The rows of a restore of everything that is archived, into a place of its own, with the checksums of all its pages looked at."""
    image = host.run(f"docker inspect --format '{{{{.Image}}}}' {SERVER}").strip()
    host.run("rm -rf /var/lib/berth-test-restored && install -d -o 45432 -g 45432 -m 0700 /var/lib/berth-test-restored")
    options = (
        f"--volumes-from {SERVER}:ro --network container:{SERVER} --tmpfs /run/postgresql:uid=45432,gid=45432 --memory 700m --shm-size 64m"
    )
    options += " --env PGBACKREST_SPOOL_PATH=/tmp/spool"
    host.run("cat > /run/berth-test-restore.sh", stdin=RESTORE)
    try:
        words = host.run(
            f"docker run --rm -i {options} --volume /var/lib/berth-test-restored:/restored --volume /run/berth-test-restore.sh:/restore.sh:ro"
            f" --entrypoint sh {image} -e /restore.sh",
            stdin=ROWS,
            timeout=300,
        ).splitlines()
    finally:
        host.run("rm -rf /var/lib/berth-test-restored /run/berth-test-restore.sh")
    assert any(re.search(r"Bad checksums:\s+0$", word) for word in words), words
    return words[0]


def test_backups_are_turned_on(play: Player, lab: Lab, store: Store, backups: Mapping[str, Any]) -> None:
    store.create(play)
    wait_until_fit(lab)
    play("playbooks/site.yml", "--tags", "database,backup", variables=backups).expect_success()
    wait_until_fit(lab)
    assert play("playbooks/site.yml", "--tags", "database,backup", variables=backups).expect_success().changed == []
    assert play("playbooks/site.yml", "--tags", "database,backup", "--check", variables=backups).expect_success().changed == []


def test_a_full_backup_is_read_from_a_standby(lab: Lab, play: Player) -> None:
    led = leader(lab)
    sql(lab.hosts[led], f"DROP TABLE IF EXISTS berth_proof; {CONTENT} FROM generate_series(1, 30000) n; CHECKPOINT")
    before = sent(lab)
    result = back_up(lab, "full")
    after = sent(lab)
    standby = result["source"].removeprefix("read from ")
    assert standby in set(MEMBERS) - {led}, result
    assert result["label"].endswith("F") and result["bytes"] > 30_000_000, result
    grown = {name: after[name] - before[name] for name in MEMBERS}
    play.say(f"{result['bytes']} bytes of {result['size']} in {result['seconds']} s; led by {led}; readers sent {grown}")
    # What is in the repository came out of the standby: the leader has few files of its own to send.
    assert grown[standby] > 0.9 * result["bytes"]
    assert max(grown[name] for name in MEMBERS if name != standby) < 1_000_000
    assert f"to offsite, read from {standby}" in said(lab.hosts[led], "full")
    other = next(name for name in MEMBERS if name != led)
    assert "another member leads, and does it" in said(lab.hosts[other], "full")


def test_a_restore_of_it_is_right(lab: Lab) -> None:
    led = lab.hosts[leader(lab)]
    sql(led, "INSERT INTO berth_proof VALUES (0, 'after the backup'); SELECT pg_switch_wal()")
    wait_for(
        "the archive",
        lambda: sql(led, "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) FROM pg_stat_archiver") == "t",
        seconds=60,
    )
    expected = sql(led, ROWS)
    assert expected.startswith("30001|")
    assert restored(lab.hosts[next(name for name in MEMBERS if name != led.name)]) == expected


def test_who_leads_next_goes_on(play: Player, lab: Lab) -> None:
    """An incremental backup that another leader makes, out of the files of another standby, and what a restore of it has."""
    old = leader(lab)
    full = json.loads(lab.hosts[old].run("cat /var/lib/berth/backup/postgresql.json").splitlines()[0])["label"]
    play("playbooks/switchover.yml").expect_success()
    wait_until_fit(lab)
    led = leader(lab)
    sql(lab.hosts[led], "UPDATE berth_proof SET entry = reverse(entry) WHERE id % 100 = 0")
    result = back_up(lab, "incremental")
    assert result["label"].startswith(f"{full}_") and result["label"].endswith("I"), result
    assert result["source"].removeprefix("read from ") in set(MEMBERS) - {led}
    assert restored(lab.hosts[old]) == sql(lab.hosts[led], ROWS)


def test_standbys_that_do_not_answer_cost_no_backup(play: Player, lab: Lab, backups: Mapping[str, Any]) -> None:
    led = leader(lab)
    first = back_up(lab, "incremental")["source"].removeprefix("read from ")
    [second] = set(MEMBERS) - {led, first}
    lab.hosts[first].run(f"docker stop {READER}")
    try:
        one = back_up(lab, "incremental")
        lab.hosts[second].run(f"docker stop {READER}")
        none = back_up(lab, "incremental")
    finally:
        for name in (first, second):
            lab.hosts[name].run(f"docker start {READER}")
    assert one["source"].startswith(f"read from {second}, because standby {first} could not be read: [049]: unable to connect"), one
    assert none["source"].startswith(f"read from the leader, because standby {first} could not be read"), none
    assert f"standby {second} could not be read" in none["source"]
    assert max(one["seconds"], none["seconds"]) < 90, "it tried for long"
    assert "the leader's own files are read" in said(lab.hosts[led], "incremental")
    shown = play("playbooks/status.yml", variables=backups).text
    assert f"hours old, read from the leader, because standby {first} could not be read" in shown


def test_a_reader_that_dies_meanwhile_costs_no_backup(lab: Lab) -> None:
    led = leader(lab)
    standby = begun(lab)
    lab.hosts[standby].run(f"docker kill {READER}")
    try:
        ended = "systemctl is-active berth-postgresql-backup@full.service"
        wait_for("its end", lambda: "inactive" in lab.hosts[led].run(ended, check=False), seconds=180)
    finally:
        lab.hosts[standby].run(f"docker start {READER}")
    assert f"read from the leader, because standby {standby} could not be read" in said(lab.hosts[led], "full")
    assert restored(lab.hosts[standby]) == sql(lab.hosts[led], ROWS)


def test_without_a_standby_the_leader_is_read(lab: Lab) -> None:
    led = leader(lab)
    standbys = [lab.hosts[name] for name in MEMBERS if name != led]
    for host in standbys:
        host.run(f"docker stop {SERVER}", timeout=180)
    try:
        lab.hosts[led].run("systemctl start berth-postgresql-backup@incremental.service", timeout=300)
    finally:
        for host in standbys:
            host.run(f"docker start {SERVER}")
    assert "no standby streams and is less than 64 MB behind; the leader's own files are read" in said(lab.hosts[led], "incremental")
    wait_until_fit(lab)
    assert back_up(lab, "incremental")["source"].removeprefix("read from ") in set(MEMBERS) - {led}


def test_a_member_that_is_down_fails_no_backup(play: Player, lab: Lab, backups: Mapping[str, Any]) -> None:
    led = leader(lab)
    down = next(name for name in MEMBERS if name != led)
    lab.hosts[down].run(f"docker stop {SERVER}", timeout=180)
    try:
        made = play("playbooks/backup.yml", "--limit", "database", variables=backups).expect_success()
        unit = lab.hosts[down].run("systemctl is-failed berth-postgresql-backup@incremental.service", check=False)
    finally:
        lab.hosts[down].run(f"docker start {SERVER}")
    assert f"{led} made 20" in made.text
    assert f"{down} could not answer: PostgreSQL on this host does not answer" in made.text
    assert "Whether another member leads cannot be asked here" in made.text
    assert unit.strip() == "inactive"
    wait_until_fit(lab)
    # Its PostgreSQL alone: Patroni, which would start it again, stands still, and etcd says who leads.
    patroni = f"$(docker inspect --format '{{{{.State.Pid}}}}' {SERVER})"
    lab.hosts[down].run(f"kill -STOP {patroni} && docker exec {SERVER} pg_ctl -D /var/lib/postgresql/17 -m fast -w stop", timeout=180)
    try:
        lab.hosts[down].run("systemctl start berth-postgresql-backup@incremental.service", timeout=300)
    finally:
        lab.hosts[down].run(f"kill -CONT {patroni}")
    assert f"{led} leads, and makes it. Of this member: PostgreSQL on this host does not answer" in said(lab.hosts[down], "incremental")
    wait_until_fit(lab)


def test_without_a_leader_nobody_is_content(play: Player, lab: Lab, backups: Mapping[str, Any]) -> None:
    for name in MEMBERS:
        lab.hosts[name].run(f"docker stop --time 100 {SERVER}", timeout=180)
    try:
        words = "no backup of the database was made: db1 could not answer: PostgreSQL on this host does not answer"
        play("playbooks/backup.yml", "--limit", "database", variables=backups).expect_refusal(words, "db3 could not answer")
    finally:
        for name in MEMBERS:
            lab.hosts[name].run(f"docker start {SERVER}")
    wait_until_fit(lab)


def test_a_host_that_stands_still_is_left_within_minutes(play: Player, lab: Lab) -> None:
    led, standby = leader(lab), begun(lab)
    began = time.monotonic()
    # Nobody answers there any more, not even its kernel.
    cut = [f"FORWARD -p tcp --{end}port 8432 -j DROP" for end in ("d", "s")]
    lab.hosts[standby].run("; ".join(f"iptables -I {rule}" for rule in cut))
    try:
        ended = "systemctl is-active berth-postgresql-backup@full.service"
        wait_for("its end", lambda: "inactive" in lab.hosts[led].run(ended, check=False), seconds=600)
    finally:
        lab.hosts[standby].run("; ".join(f"iptables -D {rule}" for rule in cut))
    play.say(f"ended {time.monotonic() - began:.0f} s after the cut")
    assert f"read from the leader, because standby {standby} could not be read: it answers no more" in said(lab.hosts[led], "full")
    # What it held there is given back by itself, so that it is read again.
    wait_for("the reader", lambda: back_up(lab, "incremental")["source"] == f"read from {standby}", seconds=600)


def test_a_new_leader_that_cannot_back_up_knows_what_the_former_one_made(
    play: Player, lab: Lab, store: Store, backups: Mapping[str, Any]
) -> None:
    back_up(lab, "incremental")
    before = leader(lab)
    other = next(name for name in MEMBERS if name != before)
    # As if it had never led.
    lab.hosts[other].run("rm -f /var/lib/berth/backup/postgresql.json")
    play("playbooks/switchover.yml", variables={"target": other}).expect_success()
    wait_until_fit(lab)
    store.stop()
    try:
        lab.hosts[other].run("systemctl start berth-postgresql-backup@incremental.service", check=False, timeout=300)
        shown = play("playbooks/status.yml", variables=backups).text
    finally:
        store.begin()
    assert f"{other}: incremental backup of the database failed: " in shown and "repository offsite does not answer" in shown
    assert "Backup of the database in offsite: 0." in shown
    assert "there is no backup" not in shown and "is known" not in shown


def test_a_handover_ends_a_backup_with_a_sentence_and_the_next_one_works(play: Player, lab: Lab) -> None:
    led, standby = leader(lab), begun(lab)
    # Everything is asked of it, and nothing comes.
    lab.hosts[standby].run(f"docker pause {READER}")
    try:
        other = next(name for name in MEMBERS if name not in (led, standby))
        play("playbooks/switchover.yml", variables={"target": other}).expect_success()
    finally:
        lab.hosts[standby].run(f"docker unpause {READER}")
    ended = "systemctl is-active berth-postgresql-backup@full.service"
    wait_for("its end", lambda: "failed" in lab.hosts[led].run(ended, check=False), seconds=180)
    words = said(lab.hosts[led], "full")
    play.say(words)
    assert "another member leads since the backup began, which ended it" in words
    wait_until_fit(lab)
    # Whatever is left of the one that ended. An empty directory of it, which SeaweedFS lists, would be in the way of an incremental one.
    assert back_up(lab, "incremental")["source"].startswith("read from db")
    assert restored(lab.hosts[led]) == sql(lab.hosts[leader(lab)], ROWS)


def asked(host: Host, *options: str) -> str:
    """What pgBackRest says that asks a reader beside this host's server, and its exit status."""
    words = " ".join(f"--{option}" for option in options)
    tls = "--pg2-host-type=tls --pg2-host-ca-file=/etc/patroni-tls/ca.crt --pg2-host-cert-file=/etc/patroni-tls/tls.crt"
    command = f"pgbackrest --pg2-path=/var/lib/postgresql/17 {tls} --pg2-host-key-file=/etc/patroni-tls/tls.key --backup-standby=y {words} --io-timeout=5 check"
    return host.run(f"docker exec {SERVER} {command} 2>&1; echo ended with $?")


def test_members_are_let_in_for_their_own_cluster(lab: Lab) -> None:
    led = leader(lab)
    other = next(name for name in MEMBERS if name != led)
    # One that is let in looks at the standby's server and files, archives a segment and says nothing. Whoever does not come that far ends otherwise.
    assert asked(lab.hosts[led], "stanza=berth", f"pg2-host={other}") == "ended with 0\n"
    words = asked(lab.hosts[led], "stanza=another", "pg1-path=/var/lib/postgresql/17", f"pg2-host={other}")
    assert f"on '{other}': access denied" in words and not words.endswith("ended with 0\n"), words


def test_a_new_certificate_is_taken_up_without_a_restart(play: Player, lab: Lab, backups: Mapping[str, Any]) -> None:
    name = next(name for name in MEMBERS if name != leader(lab))
    host = lab.hosts[name]
    shown = f"echo | openssl s_client -connect {host.address}:8432 2>/dev/null | openssl x509 -noout -serial"
    before, started = host.run(shown), host.container("postgresql/pgbackrest").facts["State"]["StartedAt"]
    assert before.startswith("serial=")
    host.run("rm /opt/berth/postgresql/tls/tls.crt")
    play("playbooks/site.yml", "--tags", "database", variables=backups).expect_success()
    wait_for("the new certificate", lambda: host.run(shown) not in ("", before), seconds=10)
    assert host.container("postgresql/pgbackrest").facts["State"]["StartedAt"] == started
    assert back_up(lab, "incremental")["source"].startswith("read from db")


def test_turned_off_nothing_of_it_is_left(play: Player, lab: Lab, store: Store) -> None:
    play("playbooks/site.yml", "--tags", "database,backup").expect_success()
    wait_until_fit(lab)
    for name in MEMBERS:
        assert "postgresql/pgbackrest" not in lab.hosts[name].containers()
        with pytest.raises(CommandFailed):
            lab.hosts[name].run("systemctl cat berth-postgresql-backup@full.service")
    sql(lab.hosts[leader(lab)], "DROP TABLE berth_proof")
    store.stop()
    assert len(cluster(lab)) == len(MEMBERS)
