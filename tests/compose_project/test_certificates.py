# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that compose_project gives to services, on a real host: when they are made, who can read them, who is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.tests.compose_project.conftest import AUTHORITY, NAME, ROOT, Bench, service, services
from ansible_collections.berth.odoo.tests.support.lab import leaks

DAY = 86400
TLS = f"{ROOT}/tls"
NEW_AUTHORITY = dict(zip(("certificate", "key"), _authority.create("berth.odoo trial", 3650, int(time.time())), strict=True))

DEFINITION = services(
    web=service(user="4711:4711", volumes=["./tls:/tls:ro"]),
    live=service(volumes=["./live:/live:ro"]),
    other=service(),
)


def certificate(*names: str, **options: Any) -> dict[str, Any]:
    """A certificate for web, which is recreated when it changes."""
    return {
        "dest": "tls",
        "common_name": "vm1",
        "names": [*names, "127.0.0.1"],
        "owner": 4711,
        "group": 4711,
        "services": ["web"],
        **options,
    }


def live(**options: Any) -> dict[str, Any]:
    """A certificate that the service live takes over while it runs."""
    reload = {"service": "live", "command": ["/bin/sh", "-c", "cp /live/tls.crt /tmp/taken || rm -f /tmp/taken"]}
    return {"dest": "live", "common_name": "live", "reload": reload, **options}


def authority(bench: Bench) -> dict[str, str]:
    """The authority among the lab's secrets."""
    found: dict[str, str] = bench.host.variables["platform_authority"]
    return found


def verdicts(ran: Any) -> dict[str, str]:
    return {item["dest"]: item["action"] for item in ran.result["certificates"]}


def verify(bench: Bench, *arguments: str) -> None:
    """Let the host's own openssl judge certificate and key."""
    for purpose in ("sslserver", "sslclient"):
        bench.sh(f"openssl verify -x509_strict -purpose {purpose} {' '.join(arguments)} -CAfile {TLS}/ca.crt {TLS}/tls.crt")
    match_each_other(bench)


def match_each_other(bench: Bench, directory: str = TLS) -> None:
    """The key is that of the certificate: else Python's ssl refuses to load them, as a server would."""
    bench.sh(f'python3 -c \'import ssl; ssl.create_default_context().load_cert_chain("{directory}/tls.crt", "{directory}/tls.key")\'')


def fingerprints(bench: Bench, directory: str = "tls") -> list[str]:
    """Digests of the three files: ca.crt, tls.crt, tls.key."""
    return bench.sh(f"cd {ROOT}/{directory}; sha256sum ca.crt tls.crt tls.key").split()[::2]


def test_a_certificate_is_predicted_issued_and_then_left_alone(bench: Bench) -> None:
    options = {"authority": AUTHORITY, "certificates": [certificate("etcd", "10.213.0.11"), live()]}
    predicted = bench.play(DEFINITION, "--check", **options)
    assert verdicts(predicted) == {"tls": "issued", "live": "issued"}
    assert bench.sh(f"ls {ROOT} 2>&1 | grep -c 'No such'") == "1"
    first = bench.play(DEFINITION, **options)
    assert first.result["services"] == predicted.result["services"]
    assert first.result["files"] == predicted.result["files"]
    assert first.result["certificates"][0]["reason"] == "no certificate yet"
    verify(bench, "-verify_hostname", "etcd")
    verify(bench, "-verify_hostname", "vm1")
    verify(bench, "-verify_ip", "127.0.0.1")
    assert bench.sh(f"cd {ROOT}; stat -c '%n %u:%g %a' tls tls/*").splitlines() == [
        "tls 0:4711 750",
        "tls/ca.crt 0:4711 444",
        "tls/tls.crt 0:4711 444",
        "tls/tls.key 4711:4711 400",
    ]
    assert bench.exec("web", "head", "-1", "/tls/tls.key") == "-----BEGIN PRIVATE KEY-----"
    for identity in ("4712:4712", "4712:4711"):
        refused = f"docker exec -u {identity} {NAME}-web-1 cat /tls/tls.key 2>&1"
        assert "Permission denied" in bench.sh(f"{refused} || true"), f"{identity} reads the key"

    before = bench.ids(), bench.sh(f"find {ROOT} -printf '%p %T@ %i\\n'")
    # Any use of the docker command would be an error from now on, and of openssl, too.
    for name in ("docker", "openssl"):
        bench.sh(f"printf '#!/bin/sh\\nexit 99\\n' > /usr/local/sbin/{name}; chmod +x /usr/local/sbin/{name}")
    try:
        again = bench.play(DEFINITION, **options)
        output, _ = bench.start(DEFINITION, "-vvv", json_output=False, **options).communicate(timeout=60)
    finally:
        bench.sh("rm /usr/local/sbin/docker /usr/local/sbin/openssl")
    assert (again.changed, verdicts(again)) == (False, {"tls": "unchanged", "live": "unchanged"})
    assert (bench.ids(), bench.sh(f"find {ROOT} -printf '%p %T@ %i\\n'")) == before
    assert output.count("SSH: EXEC") == 1, "a run without changes must cost one connection"


def test_other_names_make_another_certificate_for_one_service(bench: Bench) -> None:
    options = {"authority": authority(bench)}
    bench.apply(DEFINITION, certificates=[certificate(), live()], **options)
    before, ids, lives = fingerprints(bench), bench.ids(), fingerprints(bench, "live")
    wanted = [certificate("etcd"), live()]
    predicted = bench.apply(DEFINITION, check=True, certificates=wanted, **options)
    assert fingerprints(bench) == before
    done = bench.apply(DEFINITION, certificates=wanted, **options)
    assert predicted.result["services"] == done.result["services"]
    assert done.actions == {"web": "recreated", "live": "unchanged", "other": "unchanged"}
    assert done.result["certificates"][0]["reason"] == "names changed: added etcd"
    assert [one == other for one, other in zip(before, fingerprints(bench), strict=True)] == [True, False, False]
    assert {name for name, identifier in bench.ids().items() if ids[name] == identifier} == {"live", "other"}
    assert fingerprints(bench, "live") == lives
    verify(bench, "-verify_hostname", "etcd")
    shown = {entry["after_header"]: (entry["before"], entry["after"]) for entry in done.result["diff"]}
    assert "names: 127.0.0.1, vm1\n" in shown[f"{TLS}/tls.crt"][0]
    assert "names: 127.0.0.1, etcd, vm1\n" in shown[f"{TLS}/tls.crt"][1]
    assert shown[f"{TLS}/tls.key"] == ("(sensitive)\n", "(sensitive, changed)\n")
    # One that is no longer listed goes; its directory stays, because live has it mounted.
    done = bench.apply(DEFINITION, certificates=[certificate("etcd")], **options)
    assert done.result["files"]["removed"] == ["live/ca.crt", "live/tls.crt", "live/tls.key"]
    assert bench.sh(f"ls -A {ROOT}/live") == ""
    assert not bench.apply(DEFINITION, certificates=[certificate("etcd")], **options).changed
    bench.apply(None, state="absent")
    assert bench.sh(f"find {ROOT} -type f | wc -l") == "0"


def test_a_certificate_is_renewed_by_the_run_that_finds_a_third_left(bench: Bench) -> None:
    """With a validity of one day, and a controller whose clock is hours ahead: the host has no say in what time it is."""
    options = {"authority": authority(bench), "certificates": [certificate(days=1), live(days=1)]}
    begin = time.time()
    bench.apply(DEFINITION, at=begin, **options)
    before, ids = [*fingerprints(bench), *fingerprints(bench, "live")], bench.ids()
    assert not bench.apply(DEFINITION, at=begin + 15.5 * 3600, **options).changed
    late = begin + 16.5 * 3600
    predicted = bench.apply(DEFINITION, check=True, at=late, **options)
    done = bench.apply(DEFINITION, at=late, **options)
    assert predicted.result["certificates"] == done.result["certificates"]
    assert verdicts(done) == {"tls": "renewed", "live": "renewed"}
    assert done.actions == {"web": "recreated", "live": "reloaded", "other": "unchanged"}
    assert bench.ids()["live"] == ids["live"]
    assert bench.exec("live", "cat", "/tmp/taken") == bench.sh(f"cat {ROOT}/live/tls.crt")
    same = [one == other for one, other in zip(before, [*fingerprints(bench), *fingerprints(bench, "live")], strict=True)]
    assert same == [True, False, False, True, False, False]
    verify(bench, "-attime", str(int(begin + 40 * 3600)))
    match_each_other(bench, f"{ROOT}/live")
    assert not bench.apply(DEFINITION, at=late, **options).changed
    # Nobody ran it for a week.
    assert verdicts(bench.apply(DEFINITION, at=begin + 7 * DAY, **options)) == {"tls": "renewed", "live": "renewed"}


def test_an_authority_is_replaced_in_three_runs(bench: Bench) -> None:
    old, new = authority(bench), NEW_AUTHORITY
    steps = {
        "old": {"certificate": old["certificate"], "key": old["key"]},
        "old, new": {"certificate": old["certificate"] + new["certificate"], "key": old["key"]},
        "new, old": {"certificate": new["certificate"] + old["certificate"], "key": new["key"]},
        "new": new,
    }
    seen: dict[str, tuple[list[str], dict[str, str]]] = {}
    for step, given in steps.items():
        ran = bench.apply(DEFINITION, authority=given, certificates=[certificate()])
        assert ran.changed, step
        seen[step] = fingerprints(bench), verdicts(ran)
        verify(bench)
        assert bench.exec("web", "cat", "/tls/ca.crt") == given["certificate"].strip()
        assert not bench.apply(DEFINITION, authority=given, certificates=[certificate()]).changed
    assert [said["tls"] for _files, said in seen.values()] == ["issued", "unchanged", "issued", "unchanged"]
    keys = [files[2] for files, _said in seen.values()]
    assert (keys[0] == keys[1], keys[1] == keys[2], keys[2] == keys[3]) == (True, False, True)
    assert len({files[0] for files, _said in seen.values()}) == 4


@pytest.mark.parametrize("dest", ["tls/tls.crt", "tls/tls.key", "compose.yml"])
def test_a_run_killed_while_it_writes_is_repaired_by_the_next(bench: Bench, dest: str) -> None:
    options = {"authority": authority(bench)}
    bench.apply(DEFINITION, certificates=[certificate()], **options)
    before, ids = fingerprints(bench), bench.ids()
    killed = bench.run(DEFINITION, certificates=[certificate("etcd")], kill_before=dest, **options)
    assert "ended with" in killed.message
    left = [one == other for one, other in zip(before, fingerprints(bench), strict=True)]
    assert left == {"tls/tls.crt": [True, True, True], "tls/tls.key": [True, False, True], "compose.yml": [True, False, False]}[dest]
    assert bench.ids() == ids, "the kill was before any container changed"
    repaired = bench.apply(DEFINITION, certificates=[certificate("etcd")], **options)
    # What was written whole is kept; half a pair is worth nothing.
    assert verdicts(repaired) == {"tls": "unchanged" if dest == "compose.yml" else "issued"}
    assert repaired.actions == {"web": "recreated", "live": "unchanged", "other": "unchanged"}
    verify(bench, "-verify_hostname", "etcd")
    assert bench.exec("web", "cat", "/tls/tls.key") == bench.sh(f"cat {TLS}/tls.key")
    assert not bench.apply(DEFINITION, certificates=[certificate("etcd")], **options).changed


def test_what_is_damaged_by_hand_is_made_anew(bench: Bench) -> None:
    options = {"authority": authority(bench), "certificates": [certificate(), live()]}
    bench.apply(DEFINITION, **options)
    for command, reason in (
        (f"rm {TLS}/tls.key", "tls.key is missing"),
        (f"cp {ROOT}/live/tls.crt {TLS}/tls.crt", "tls.crt and tls.key are not the pair that was issued last"),
        (f"echo >> {TLS}/tls.key", "tls.crt and tls.key are not the pair that was issued last"),
        (f"rm -r {TLS}", "tls.crt and tls.key are missing"),
    ):
        bench.sh(command)
        done = bench.apply(DEFINITION, **options)
        assert done.result["certificates"][0] | {"not_after": ""} == {"dest": "tls", "action": "issued", "reason": reason, "not_after": ""}
        assert done.actions == {"web": "recreated", "live": "unchanged", "other": "unchanged"}
        verify(bench)
        assert bench.exec("web", "cat", "/tls/tls.key") == bench.sh(f"cat {TLS}/tls.key")
    # A mode is repaired without another key.
    before = fingerprints(bench)
    bench.sh(f"chmod 644 {TLS}/tls.key; chmod 755 {TLS}")
    assert verdicts(bench.apply(DEFINITION, **options)) == {"tls": "unchanged", "live": "unchanged"}
    assert bench.sh(f"stat -c %a {TLS} {TLS}/tls.key").split() == ["750", "400"]
    assert fingerprints(bench) == before
    assert not bench.apply(DEFINITION, **options).changed


def test_keys_are_seen_nowhere(bench: Bench) -> None:
    since = bench.sh("date '+%F %T'")
    talkative = {**DEFINITION["services"]["web"], "command": ["/bin/sh", "-c", "cat /tls/tls.key; exec sleep 1000"]}
    talkative["healthcheck"] = {**talkative["healthcheck"], "test": ["CMD-SHELL", "cat /tls/tls.key; exit 1"]}
    outputs, keys = [], []
    for names, definition in (((), DEFINITION), (("etcd",), DEFINITION), (("etcd",), services(web=talkative))):
        options = {"authority": AUTHORITY, "certificates": [certificate(*names)]}
        output, _ = bench.start(definition, "-vvv", "--diff", json_output=False, **options).communicate(timeout=60)
        outputs.append(output)
        keys.append(max(bench.sh(f"cat {TLS}/tls.key").splitlines(), key=len))
    assert keys[0] != keys[1] == keys[2]
    assert "(sensitive, changed)" in outputs[1]
    assert "names: 127.0.0.1, etcd, vm1" in outputs[1]
    assert "its last log lines" in outputs[2]
    assert "********" in outputs[2]
    ours = max(authority(bench)["key"].splitlines(), key=len)
    secrets = {"first key": keys[0], "second key": keys[1], "authority's key": ours}
    seen = {
        "output": "".join(outputs),
        "labels and environment": bench.sh(f"docker inspect {NAME}-web-1 -f '{{{{json .Config}}}}'"),
        "compose.yml and manifest": bench.sh(f"cat {ROOT}/compose.yml {ROOT}/.berth.json /run/berth/{NAME}.lock"),
        "temporary files": bench.sh("find /tmp /root/.ansible /home/*/.ansible -type f 2>/dev/null | xargs -r cat"),
    }
    assert [(place, leaks(secrets, found)) for place, found in seen.items() if leaks(secrets, found)] == []
    # The host has never seen the authority's key; its log has what the container itself wrote.
    everywhere = bench.sh(f"journalctl --since '{since}' -o cat --no-pager; find {ROOT} -type f | xargs cat")
    assert leaks({"authority's key": ours}, everywhere) == []


def test_an_authority_that_cannot_sign_changes_nothing(bench: Bench) -> None:
    options = {"certificates": [certificate()]}
    bench.apply(DEFINITION, authority=authority(bench), **options)
    before = bench.ids(), fingerprints(bench)
    mixed = {"certificate": authority(bench)["certificate"], "key": NEW_AUTHORITY["key"]}
    output, _ = bench.start(DEFINITION, "-vvv", json_output=False, authority=mixed, **options).communicate(timeout=60)
    assert "authority.key: the key of another certificate (not shown)" in " ".join(output.split())
    assert (bench.ids(), fingerprints(bench)) == before
