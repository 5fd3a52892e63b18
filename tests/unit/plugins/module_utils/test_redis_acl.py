# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis ACL files: who may touch what, and which users are refused."""

from __future__ import annotations

import hashlib

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._redis_acl import AclError, redis_acl

AWKWARD = 'r $b%c "d"\'e {{ x }} {f} #g \\h ü'


def test_nobody_gets_in_without_a_password_but_to_ping_and_reload():
    assert redis_acl([]).splitlines() == [
        "user default off resetpass allkeys allchannels +@all",
        "user berth on nopass resetkeys resetchannels -@all +ping +acl|load",
    ]


def test_a_user_has_its_own_keys_and_channels_only():
    line = redis_acl([{"name": "main", "password": AWKWARD, "prefix": "main"}]).splitlines()[-1]
    words = line.split(" ")
    assert words[:7] == [
        "user",
        "main",
        "on",
        "#" + hashlib.sha256(AWKWARD.encode()).hexdigest(),
        "resetkeys",
        "~main:*",
        "resetchannels",
    ]
    assert [word for word in words if word[0] in "~&%"] == ["~main:*", "&main:*"]
    assert {"-@dangerous", "-@admin", "-scan", "-randomkey", "-client|tracking", "-client|caching"} < set(words)
    assert AWKWARD not in line


def test_extra_rules_come_last():
    line = redis_acl([{"name": "a", "password": "x", "prefix": "a", "commands": ["+@scripting"]}]).splitlines()[-1]
    assert line.endswith(" +@scripting")


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"name": "a b", "prefix": "a", "password": "x"}, "name 'a b'"),
        ({"name": "a\nuser b on nopass +@all ~*", "prefix": "a", "password": "x"}, "name "),
        ({"name": "default", "prefix": "a", "password": "x"}, "keeps this name"),
        ({"name": "berth", "prefix": "a", "password": "x"}, "keeps this name"),
        ({"name": "a", "prefix": "*", "password": "x"}, "prefix '\\*'"),
        ({"name": "a", "prefix": "a:b", "password": "x"}, "prefix 'a:b'"),
        ({"name": "a", "prefix": "a", "password": ""}, "password of Redis user 'a'"),
        ({"name": "a", "prefix": "a", "password": 5}, "password of Redis user 'a'"),
        ({"name": "a", "prefix": "a", "password": "x\ny"}, "password of Redis user 'a'"),
        ({"name": "a", "prefix": "a"}, "password of Redis user 'a'"),
    ],
)
def test_refused(user, message):
    with pytest.raises(AclError, match=message):
        redis_acl([user])


def test_two_tenants_cannot_share_a_prefix_and_all_problems_are_named():
    users = [{"name": "a", "prefix": "p", "password": "x"}, {"name": "b", "prefix": "p", "password": ""}]
    with pytest.raises(AclError) as error:
        redis_acl(users)
    assert "prefix 'p' is given to two" in str(error.value)
    assert "password of Redis user 'b'" in str(error.value)


def test_members_have_a_user_of_their_own_where_there_are_several():
    user = {"name": "main", "prefix": "main", "password": "p"}
    assert "berth-peer" not in redis_acl([user])
    with_peer = redis_acl([user], "secret")
    [peer] = [line for line in with_peer.splitlines() if line.startswith("user berth-peer ")]
    assert hashlib.sha256(b"secret").hexdigest() in peer and "secret" not in peer
    assert "+psync" in peer and "+@all" not in peer and "~" not in peer
    assert "+role" in with_peer.splitlines()[1]


def test_at_a_sentinel_a_tenant_asks_who_is_the_primary_and_nothing_else():
    lines = redis_acl([{"name": "main", "prefix": "main", "password": "p"}], "secret", sentinel=True).splitlines()
    [tenant] = [line for line in lines if line.startswith("user main ")]
    assert tenant.partition(" -@all ")[2] == "+ping +client|setinfo +client|setname +sentinel|master"
    assert "+role" not in lines[1]
    assert all("sentinel|set" not in line and "+@all" not in line for line in lines[1:])


def test_a_password_of_members_that_cannot_be_written_is_refused():
    with pytest.raises(AclError, match="the password of Redis user 'berth-peer'"):
        redis_acl([], "a\nb")
    with pytest.raises(AclError, match="'berth-peer': the role keeps this name"):
        redis_acl([{"name": "berth-peer", "prefix": "x", "password": "p"}])
