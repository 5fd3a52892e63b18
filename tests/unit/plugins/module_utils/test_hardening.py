# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Topics become wishes, sshd's file says first what counts, and nobody is shut out."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _hardening as hardening

ROLE = Path(__file__).resolve().parents[4] / "roles/hardening"
SSHD = {
    "permitrootlogin": ["no"],
    "pubkeyauthentication": ["yes"],
    "passwordauthentication": ["no"],
    "authorizedkeyscommand": ["none"],
    "trustedusercakeys": ["none"],
    "authorizedkeysfile": [".ssh/authorized_keys .ssh/authorized_keys2"],
}


def account(**different: Any) -> hardening.Account:
    return hardening.Account(
        **{"name": "ada", "groups": ["ada", "sudo"], "keys": 1, "looked_in": ["/home/ada/.ssh/authorized_keys"], **different}
    )


def test_topics_of_the_role_hold_what_the_module_knows() -> None:
    topics = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__hardening_topics"]
    for name, topic in topics.items():
        assert set(topic) <= hardening.KEYS, name
        assert "cis" in topic, name


def test_no_topic_touches_forwarding() -> None:
    settings = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__hardening_sysctl"]
    assert len(settings) > 20
    assert not [key for key in settings if "forward" in key]


def test_a_topic_that_is_off_wants_nothing() -> None:
    topics = {"a": {"packages": ["x"], "sysctl": {"k": 1}}, "b": {"packages": ["x", "y"], "cis": [1.1]}}
    assert hardening.merge(topics, {})["packages"] == ["x", "y"]
    wanted = hardening.merge(topics, {"a": False})
    assert wanted["packages"] == ["x", "y"] and wanted["sysctl"] == {}
    assert hardening.merge(topics, {"a": False, "b": False})["packages"] == []


@pytest.mark.parametrize(
    ("topics", "switches", "words"),
    [
        ({"ssh": {}}, {"shh": False}, "did you mean ssh?"),
        ({"ssh": {}}, {"quantum": False}, "there are ssh."),
        ({"ssh": {}}, {"ssh": "no"}, "ssh is 'no', expected true or false"),
        ({"ssh": {"sshdd": {}}}, {}, "topic ssh holds sshdd"),
    ],
)
def test_what_is_mistyped_is_named(topics: dict[str, Any], switches: dict[str, Any], words: str) -> None:
    with pytest.raises(hardening.HardeningError, match=words.replace("?", r"\?")):
        hardening.merge(topics, switches)


def test_files_of_others_come_last() -> None:
    text = hardening.sshd_config(
        {
            "MACs": ["a", "b"],
            "AllowGroups": ["x", "y"],
            "UsePAM": True,
            "X11Forwarding": False,
            "MaxAuthTries": 4,
            "Banner": None,
            "Port": [],
        },
        "# us\n",
    )
    assert text.splitlines() == [
        "# us",
        "AllowGroups x y",
        "MACs a,b",
        "MaxAuthTries 4",
        "UsePAM yes",
        "X11Forwarding no",
        "Include /etc/ssh/sshd_config.d/*.conf",
    ]


def test_sshd_stays_where_somebody_has_put_it() -> None:
    everywhere = {"listenaddress": ["[::]:22", "0.0.0.0:22"]}
    assert hardening.moved(everywhere, {"listenaddress": ["0.0.0.0:22", "[::]:22"]}) == ""
    words = hardening.moved({"listenaddress": ["10.0.0.5:2222"]}, everywhere)
    assert "It listens at 10.0.0.5:2222, and would at 0.0.0.0:22, [::]:22" in words
    assert "write 'ListenAddress 10.0.0.5:2222' into a file in /etc/ssh/sshd_config.d" in words


@pytest.mark.parametrize(
    ("now", "then", "chosen", "lost"),
    [
        ({}, {}, set(), ""),
        ({"allowusers": ["ada", "bob"]}, {"allowusers": ["ada", "bob"]}, set(), ""),
        ({"allowusers": ["ada", "bob"]}, {}, set(), "AllowUsers ada bob. "),
        ({"denygroups": ["guests old"]}, {"denygroups": ["old"]}, set(), "DenyGroups guests. "),
        ({"allowgroups": ["sudo"]}, {"allowgroups": ["operators"]}, {"AllowGroups"}, ""),
        ({"allowgroups": ["sudo"], "denyusers": ["eve"]}, {"allowgroups": ["operators"]}, {"AllowGroups"}, "DenyUsers eve. "),
    ],
)
def test_nobody_comes_in_who_was_kept_out(now: dict[str, list[str]], then: dict[str, list[str]], chosen: set[str], lost: str) -> None:
    words = hardening.let_in(now, then, chosen)
    assert words.startswith(lost) if lost else words == ""
    assert ("/etc/ssh/sshd_config.d" in words) == bool(lost)


def test_blocks_that_would_vanish() -> None:
    debian = "Include /etc/ssh/sshd_config.d/*.conf\n#Port 22\nUsePAM yes\n# Example\n#Match User anoncvs\n#\tForceCommand cvs server\n"
    assert hardening.vanishing(debian) == []
    assert hardening.vanishing(hardening.sshd_config({"UsePAM": True}, "# us\n")) == []
    ours = debian + "match Group sftp\n\tChrootDirectory /srv\n  Match=User eve\ninclude sshd_config.d/*.conf\nInclude /etc/ssh/more.conf\n"
    assert hardening.vanishing(ours) == ["match Group sftp", "Match=User eve", "Include /etc/ssh/more.conf"]
    assert "Match Group sftp. To keep that" in hardening.let_in({}, {}, (), ["Match Group sftp"])


def test_answer_of_sshd() -> None:
    assert hardening.effective("port 22\nallowusers a\nallowusers b\npermitrootlogin no\n") == {
        "port": ["22"],
        "allowusers": ["a", "b"],
        "permitrootlogin": ["no"],
    }


@pytest.mark.parametrize(
    ("who", "sshd", "words"),
    [
        ({}, {}, ""),
        ({"keys": 0}, {}, "no public key in /home/ada/.ssh/authorized_keys"),
        ({"keys": 0}, {"passwordauthentication": ["yes"]}, ""),
        ({"keys": 0}, {"trustedusercakeys": ["/etc/ssh/ca.pub"]}, ""),
        ({"keys": 0}, {"authorizedkeyscommand": ["/usr/bin/keys"]}, ""),
        ({}, {"pubkeyauthentication": ["no"]}, "neither passwords nor keys"),
        ({"name": "root"}, {}, "root may not log in"),
        ({"name": "root"}, {"permitrootlogin": ["without-password"]}, ""),
        ({"name": "root"}, {"permitrootlogin": ["without-password"], "pubkeyauthentication": ["no"]}, "neither"),
        ({}, {"allowgroups": ["operators"]}, "usermod -aG operators ada"),
        ({}, {"allowgroups": ["operators", "su*"]}, ""),
        ({}, {"allowusers": ["bob"]}, "not among AllowUsers bob"),
        ({}, {"allowusers": ["ada@10.0.0.0/8"]}, ""),
        ({}, {"denyusers": ["a*"]}, "denied"),
        ({}, {"denygroups": ["sudo"]}, "denied"),
    ],
)
def test_who_would_be_shut_out(who: dict[str, Any], sshd: dict[str, Any], words: str) -> None:
    reason = hardening.refusal(account(**who), {**SSHD, **sshd})
    assert (words in reason) if words else reason == ""


def test_key_files() -> None:
    files = hardening.key_files([".ssh/authorized_keys /etc/ssh/keys/%u none %h/%U%%"], "ada", "/home/ada", 1000)
    assert files == ["/home/ada/.ssh/authorized_keys", "/etc/ssh/keys/ada", "/home/ada/1000%"]


def test_keys_are_counted_not_lines() -> None:
    text = '# ssh-ed25519 AAAA\n\nssh-ed25519 AAAAC3Nz x\nfrom="10.0.0.1" ecdsa-sha2-nistp256 AAAAE2 y\nsk-ssh-ed25519@openssh.com AAAAG z\nnonsense\n'
    assert hardening.count_keys(text) == 3


def packet(*lists: str) -> bytes:
    body = (
        bytes([20])
        + bytes(16)
        + b"".join(struct.pack(">I", len(part)) + part.encode() for part in (*lists, "none", "none", "", ""))
        + bytes(5)
    )
    return struct.pack(">IB", len(body) + 5, 4) + body + bytes(4)


def test_a_running_server_that_lost_its_reload_is_noticed() -> None:
    running = hardening.offered(packet("new,ext-info-s,kex-strict-s-v00@openssh.com", "ssh-ed25519", "c1", "c1", "m1,weak", "m1,weak"))
    assert running == {"kexalgorithms": ["new"], "hostkeys": ["ssh-ed25519"], "ciphers": ["c1"], "macs": ["m1", "weak"]}
    assert hardening.drift(running, {"kexalgorithms": ["new"], "ciphers": ["c1"], "macs": ["m1"]}) == ["macs: weak"]
    assert hardening.drift(running, {"kexalgorithms": ["new"], "ciphers": ["c1"], "macs": ["weak,m1"]}) == []
    with pytest.raises(ValueError, match="KEXINIT"):
        hardening.offered(b"not ssh at all, but long enough for it")


def test_lines() -> None:
    assert hardening.with_line("A 1\nB 2\nA 3\n", r"^A\s", "A 9") == "A 9\nB 2\n"
    assert hardening.with_line("B 2\n", r"^A\s", "A 9") == "B 2\nA 9\n"
    assert hardening.with_line("A 1\nB 2", r"^A\s", "") == "B 2\n"


@given(st.lists(st.text("AB 1#", max_size=6), max_size=6))
def test_a_line_that_was_set_stays(lines: list[str]) -> None:
    once = hardening.with_line("\n".join(lines), r"^A\s", "A 9")
    assert hardening.with_line(once, r"^A\s", "A 9") == once
    assert once.splitlines().count("A 9") == 1
