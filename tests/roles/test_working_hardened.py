# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardening while a stack runs: nobody is shut out, no connection breaks, and what was lost on the way is found again."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from ansible_collections.berth.odoo.tests.roles.test_roles import offered_by_sshd
from ansible_collections.berth.odoo.tests.support.lab import Host, docker, wait_for
from ansible_collections.berth.odoo.tests.support.playbook import Player, Run

PLAYBOOK = "playbooks/harden.yml"
SWITCHES = {"hardening_topics": {"integrity": False}}


def sshd(host: Host, key: str) -> str:
    return next(line.split(" ", 1)[1] for line in host.run("sshd -T").splitlines() if line.startswith(f"{key} "))


@pytest.fixture(scope="module")
def hardened(host: Host, play: Player) -> Run:
    """A host on which everything is as it shall be, and the run that found nothing to do."""
    play(PLAYBOOK, variables=SWITCHES).expect_success()
    return play(PLAYBOOK, variables=SWITCHES).expect_success()


def test_second_run_is_idle_and_quick(hardened: Run) -> None:
    assert hardened.changed == []
    # 7 s are wanted on an idle machine.
    assert hardened.seconds < 30


@pytest.fixture
def connection(host: Host) -> Iterator[http.client.HTTPConnection]:
    """A connection to a container of the stack, by the port that Docker publishes. It is never opened anew."""
    opened = http.client.HTTPConnection(host.address, 80, timeout=10)
    opened.connect()
    opened.auto_open = 0
    yield opened
    opened.close()


def get(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_interrupted_run_is_undone_and_nobody_was_shut_out(
    host: Host, play: Player, hardened: Run, connection: http.client.HTTPConnection
) -> None:
    before = sshd(host, "maxauthtries")
    first = get(connection)
    changed = {**SWITCHES, "hardening_ssh": {"MaxAuthTries": 5}}
    killed = play(PLAYBOOK, variables=changed, kill_at="confirm | Keep the configuration of sshd with which this one was made")
    assert killed.code < 0
    assert sshd(host, "maxauthtries") == "5" != before
    # Meanwhile: a configuration under which the only account has no key is refused, and nothing is written.
    nowhere = {**SWITCHES, "hardening_ssh": {"AuthorizedKeysFile": "/etc/ssh/keys/%u"}}
    state = host.run("find /etc -xdev -type f -newermt '-1 hour' -printf '%p %T@\\n' | sort")
    play(PLAYBOOK, variables=nowhere).expect_refusal("nothing was changed", "no public key in /etc/ssh/keys/", "ssh-copy-id")
    groups = {**SWITCHES, "hardening_ssh_groups": ["operators"]}
    play(PLAYBOOK, variables=groups).expect_refusal("in none of AllowGroups operators", "usermod -aG operators")
    assert host.run("find /etc -xdev -type f -newermt '-1 hour' -printf '%p %T@\\n' | sort") == state
    # Within the minute that is left it would come back by itself: what the timer starts is started now.
    (timer,) = json.loads(host.run("systemctl list-timers --output=json berth-sshd-revert.timer"))
    assert 0 < timer["next"] / 1e6 - float(host.run("date +%s")) <= 60
    host.run("systemctl start berth-sshd-revert.service")
    wait_for("return of the old configuration", lambda: sshd(host, "maxauthtries") == before, seconds=20)
    wait_for("end of the return", lambda: not host.succeeds("test -e /run/berth-sshd-pending.json"), seconds=20)
    # The connection through the container has seen none of this.
    assert get(connection) == first
    # What was interrupted is done by the next run.
    play(PLAYBOOK, variables=changed).expect_success()
    assert sshd(host, "maxauthtries") == "5"
    assert not host.succeeds("systemctl is-active --quiet berth-sshd-revert.timer")


def test_boot_undoes_what_nobody_confirmed(host: Host, play: Player, hardened: Run) -> None:
    before = sshd(host, "maxauthtries")
    changed = {**SWITCHES, "hardening_ssh": {"MaxAuthTries": 6}}
    killed = play(PLAYBOOK, variables=changed, kill_at="confirm | Keep the configuration of sshd with which this one was made")
    assert killed.code < 0
    assert sshd(host, "maxauthtries") == "6" != before
    # In time: the timer is lost with the boot.
    assert host.succeeds("systemctl is-active --quiet berth-sshd-revert.timer")
    boot = host.run("cut -d ' ' -f 22 /proc/1/stat")
    docker("restart", "--time", "60", host.variables["lab_container"], timeout=180)
    wait_for("login over SSH", lambda: host.run("cut -d ' ' -f 22 /proc/1/stat", check=False) not in ("", boot), seconds=180)
    assert sshd(host, "maxauthtries") == before
    assert not host.succeeds("test -e /etc/ssh/.sshd_config.berth-before || test -e /run/berth-sshd-pending.json")
    # A confirmation that comes now is none.
    play("tests/roles/confirm_sshd.yml").expect_refusal("no configuration of sshd waits: the old one came back")
    play(PLAYBOOK, variables=SWITCHES).expect_success()


def test_whom_sshd_keeps_out_stays_outside(host: Host, play: Player, hardened: Run) -> None:
    host.run("cp -a /etc/ssh/sshd_config /etc/ssh/kept")
    lines = "AllowUsers berth\nMatch User probe\n  ForceCommand /bin/false\n"
    try:
        host.run(f"printf 'Include /etc/ssh/sshd_config.d/*.conf\n{lines}' > /etc/ssh/sshd_config && systemctl reload ssh")
        play(PLAYBOOK, variables=SWITCHES).expect_refusal(
            "nothing was changed, because sshd would let in whom /etc/ssh/sshd_config keeps out: AllowUsers berth; Match User probe. To keep that"
        )
        # As it says.
        host.run(
            f"cd /etc/ssh && printf '{lines}' > sshd_config.d/20-kept.conf && echo 'Include /etc/ssh/sshd_config.d/*.conf' > sshd_config"
        )
        play(PLAYBOOK, variables=SWITCHES).expect_success()
        assert "forcecommand /bin/false" in host.run("sshd -T -C user=probe,host=x,addr=192.0.2.1")
        assert sshd(host, "allowusers") == "berth"
        assert play(PLAYBOOK, variables=SWITCHES).expect_success().changed == []
    finally:
        host.run("cd /etc/ssh && mv kept sshd_config && rm -f sshd_config.d/20-kept.conf && systemctl reload ssh")


def test_lost_reload_and_lost_setting_are_found(host: Host, play: Player, hardened: Run) -> None:
    changed = {**SWITCHES, "hardening_ssh": {"MaxAuthTries": 5}}
    play(PLAYBOOK, variables=changed).expect_success()
    # The right file with an old date, a server that read another one: what a handler that never ran leaves behind.
    host.run("cd /etc/ssh && cp -a sshd_config kept && sed -i '/^MACs/d' sshd_config && systemctl reload ssh")
    wait_for("sshd with weak algorithms", lambda: "hmac-sha1" in offered_by_sshd(host), seconds=20)
    host.run("cd /etc/ssh && mv kept sshd_config && touch -d '1 hour ago' sshd_config && sysctl -q net.ipv4.conf.all.log_martians=0")
    looked = play(PLAYBOOK, "--check", "-v", variables=changed).expect_success()
    assert "reloaded ssh: macs: " in looked.text and "set net.ipv4.conf.all.log_martians from 0 to 1" in looked.text
    play(PLAYBOOK, variables=changed).expect_success()
    assert play(PLAYBOOK, "--check", variables=changed).expect_success().changed == []
    assert host.run("sysctl -n net.ipv4.conf.all.log_martians").strip() == "1"


def test_passwords_are_judged_and_guessing_ends(host: Host, hardened: Run) -> None:
    def enters(word: str) -> bool:
        return host.succeeds(f"echo {word} | pamtester other probe authenticate acct_mgmt")

    right = "Right-pass-2word9"
    host.run("DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends pamtester && useradd --create-home probe")
    try:
        assert not host.succeeds("echo probe:Short-1 | chpasswd")
        host.run(f"echo probe:{right} | chpasswd")
        assert enters(right)
        for _time in range(4):
            assert not enters("wrong")
        assert not enters(right)
        host.run("faillock --user probe --reset")
        assert enters(right)
    finally:
        host.run("userdel --remove probe 2>&1", check=False)


def test_what_is_mistyped_is_refused(host: Host, play: Player, hardened: Run) -> None:
    play(PLAYBOOK, variables={"hardening_topics": {"integrty": False}}).expect_refusal("did you mean integrity?")
    play(PLAYBOOK, variables={**SWITCHES, "hardening_ssh": {"MaxAuthTriez": 3}}).expect_refusal(
        "sshd refuses hardening_ssh", "MaxAuthTriez"
    )


def test_forwarding_is_left_to_docker(host: Host, hardened: Run) -> None:
    assert host.run("sysctl -n net.ipv4.ip_forward").strip() == "1"
    assert json.loads(host.run("docker info --format '{{json .ContainersRunning}}'")) > 0


def test_what_the_host_may_not_do_is_said(hardened: Run) -> None:
    assert "[WARNING]: this host may not do all of it: " in hardened.text


def test_root_mail_reaches_the_table_of_postfix(host: Host, play: Player, hardened: Run) -> None:
    # In place of Postfix, which would be a server: what its table is made by.
    host.run("cp -a /etc/aliases /etc/aliases.kept 2>/dev/null || touch /etc/aliases")
    host.run("printf '#!/bin/sh\\ncp /etc/aliases /etc/aliases.db\\n' > /usr/local/sbin/newaliases && chmod +x /usr/local/sbin/newaliases")
    try:
        play(PLAYBOOK, variables={**SWITCHES, "hardening_root_mail": "operations@example.com"}).expect_success()
        assert "root: operations@example.com\n" in host.run("cat /etc/aliases.db")
    finally:
        host.run(
            "rm -f /usr/local/sbin/newaliases /etc/aliases.db /etc/aliases; [ ! -e /etc/aliases.kept ] || mv /etc/aliases.kept /etc/aliases"
        )
