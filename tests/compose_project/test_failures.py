# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads when something is wrong, and what the next run makes of it."""

from __future__ import annotations

from ansible_collections.berth.odoo.tests.compose_project.conftest import BASE, IMAGE, NAME, ROOT, Bench, service, services, text
from ansible_collections.berth.odoo.tests.support.lab import leaks, wait_for

KILL_BEFORE_UP = """#!/bin/sh
case "$*" in *" up "*) kill -9 $PPID; exit 1;; esac
exec /usr/bin/docker "$@"
"""
KILL_AFTER_UP = """#!/bin/sh
case "$*" in *" up "*) /usr/bin/docker "$@"; kill -9 $PPID; exit 1;; esac
exec /usr/bin/docker "$@"
"""


def test_a_run_killed_between_writing_and_starting_is_repaired_by_the_next(bench: Bench) -> None:
    definition = services(web=service(volumes=["./config:/config:ro"]), db=service())

    def files(content: str) -> list[dict[str, object]]:
        live = {"dest": "config/live", "content": content, "reload": {"service": "db", "command": ["touch", "/tmp/reloaded"]}}
        return [text("config/a", content, "web"), live]

    bench.apply(definition, files=files("1"))
    before = bench.ids()
    bench.sh(f"cat > /usr/local/sbin/docker <<'X'\n{KILL_BEFORE_UP}\nX\nchmod +x /usr/local/sbin/docker")
    killed = bench.run(definition, files=files("2"))
    assert killed.result.get("failed")
    assert bench.sh(f"cat {ROOT}/config/a") == "2"
    assert bench.ids() == before, "the kill was before any container changed"
    bench.sh("rm /usr/local/sbin/docker")
    repaired = bench.apply(definition, files=files("2"))
    assert repaired.actions == {"web": "recreated", "db": "reloaded"}
    assert bench.exec("web", "cat", "/config/a") == "2"
    assert bench.exec("db", "ls", "/tmp/reloaded") == "/tmp/reloaded"
    assert not bench.apply(definition, files=files("2")).changed

    # The same after the containers were started: only the reload is left. And a file repaired after an edit by hand.
    bench.sh(f"echo x > {ROOT}/config/a; cat > /usr/local/sbin/docker <<'X'\n{KILL_BEFORE_UP}\nX\nchmod +x /usr/local/sbin/docker")
    assert bench.run(definition, files=files("2")).result.get("failed")
    bench.sh("rm /usr/local/sbin/docker")
    repaired = bench.apply(definition, files=files("2"))
    assert repaired.reasons("web") == "file config/a was changed on the host"
    bench.sh(f"cat > /usr/local/sbin/docker <<'X'\n{KILL_AFTER_UP}\nX\nchmod +x /usr/local/sbin/docker")
    assert bench.run(definition, files=files("3")).result.get("failed")
    bench.sh("rm /usr/local/sbin/docker")
    assert bench.apply(definition, files=files("3")).actions == {"web": "unchanged", "db": "reloaded"}


def test_a_service_that_never_becomes_healthy_fails_in_its_own_words(bench: Bench) -> None:
    ill = service(
        "/bin/sh", "-c", "echo cannot open /data/db; exec sleep 1000", health=["CMD-SHELL", "echo no answer on port 5432; exit 3"]
    )
    failed = bench.run(services(ill=ill, well=service()), wait_timeout=60)
    assert "service ill is unhealthy: its health check ended with exit code 3: no answer on port 5432" in failed.message
    assert "    cannot open /data/db" in failed.message
    assert "well" not in failed.message
    assert failed.result["failures"][0]["log"] == ["cannot open /data/db"]
    assert failed.changed
    assert failed.seconds < 30, "Docker's verdict ends the wait, not the timeout"
    # Unchanged, it is restarted, and fails again.
    again = bench.run(services(ill=ill, well=service()))
    assert again.actions == {"ill": "started", "well": "unchanged"}


def test_time_limits(bench: Bench) -> None:
    slow = service("/bin/sh", "-c", "sleep 3; touch /tmp/up; exec sleep 1000", health=["CMD", "ls", "/tmp/up"])
    slow["healthcheck"] |= {"start_period": "20s", "start_interval": "500ms"}
    bench.apply(services(slow=slow), wait_timeout=1)
    never = service(health=["CMD", "false"])
    never["healthcheck"] |= {"retries": 1000}
    failed = bench.run(services(never=never), wait_timeout=10)
    assert "not well within 10 s (wait_timeout): never" in failed.message
    assert "service never is not healthy yet: its health check ended with exit code 1" in failed.message


def test_containers_that_end(bench: Bench) -> None:
    plain = {"healthcheck": {"disable": True}}
    # runc itself needs about 8 MB in the container before its command starts: with less, it sometimes does not start at all.
    failed = bench.run(
        services(
            code=service("/bin/sh", "-c", "echo bad option >&2; exit 5", **plain),
            memory=service("/bin/sh", "-c", "a=x; while true; do a=$a$a; done", mem_limit="32m", memswap_limit="32m", **plain),
            loop=service("/bin/sh", "-c", "echo dying; exit 7", restart="always", **plain),
        ),
        wait_timeout=4,
    )
    assert "service code exited with code 5" in failed.message
    assert "    bad option" in failed.message
    failed = bench.run(
        services(
            memory=service("/bin/sh", "-c", "a=x; while true; do a=$a$a; done", init=False, mem_limit="32m", memswap_limit="32m", **plain),
        ),
    )
    assert "service memory was killed because it reached its memory limit (exit code 137)" in failed.message
    failed = bench.run(services(loop=service("/bin/sh", "-c", "echo dying; exit 7", restart="always", **plain)), wait_timeout=8)
    assert "service loop " in failed.message
    assert "restarted" in failed.message
    assert "    dying" in failed.message
    failed = bench.run(services(typo=service("/bin/nothing", init=False)))
    assert 'service typo cannot start: exec: "/bin/nothing": stat /bin/nothing: no such file or directory' in failed.message


def test_a_taken_port_names_who_has_it(bench: Bench) -> None:
    bench.sh(f"docker run -d --name trial-holder -p 18080:80 {IMAGE}; systemd-run --unit=trial-web python3 -m http.server 18081")
    try:
        wait_for("the port is taken", lambda: bench.sh("ss -Hltn sport = 18081"), seconds=10)
        failed = bench.run(services(web=service(ports=["18080:80"])))
        assert "service web cannot publish 0.0.0.0:18080: taken by container trial-holder" in failed.message
        failed = bench.run(services(web=service(ports=["18081:80"])))
        assert "service web cannot publish 0.0.0.0:18081: taken by process " in failed.message
        assert "(python3, trial-web.service)" in failed.message
        failed = bench.run(services(web=service(ports=["192.0.2.7:18082:80"])))
        assert "service web cannot publish on 192.0.2.7: this host does not have that address" in failed.message
    finally:
        bench.sh("systemctl stop trial-web; docker rm -f trial-holder")
    assert bench.apply(services(web=service(ports=["18080:80"]))).actions == {"web": "recreated"}


def test_refusals_before_anything_is_touched(bench: Bench) -> None:
    missing = bench.run(services(web={**service(), "image": "berth-test/nothing:1"}, db=service()))
    assert "image berth-test/nothing:1 (service web)" in missing.message
    assert "role berth.odoo.images" in missing.message
    assert bench.sh(f"ls {BASE} 2>/dev/null | wc -l") == "0"
    predicted = bench.apply(services(web={**service(), "image": "berth-test/nothing:1"}), check=True)
    assert predicted.reasons("web") == "image berth-test/nothing:1 is not on this host yet; no container yet"

    bench.apply(services(web=service()))
    before = bench.ids(), bench.sh(f"cat {ROOT}/compose.yml")
    refused = bench.run(services(web=service()), override={"services": {"web": {"comand": "x"}}})
    assert "Compose refuses the definition, no container was touched" in refused.message
    assert "services.web Additional property comand is not allowed" in refused.message
    assert (bench.ids(), bench.sh(f"cat {ROOT}/compose.yml")) == before
    assert not bench.apply(services(web=service())).changed


def test_what_others_made_is_not_taken_over(bench: Bench) -> None:
    bench.sh(
        f"mkdir -p {ROOT} /root/theirs; printf 'services: {{web: {{image: \"{IMAGE}\", init: true}}}}' | tee {ROOT}/compose.yml > /root/theirs/compose.yml"
    )
    for check in (False, True):
        refused = bench.run(services(web=service()), check=check)
        assert f"{ROOT}/compose.yml exists and was not written by this collection" in refused.message
    bench.sh(f"rm {ROOT}/compose.yml; cd /root/theirs; docker compose -p {NAME} up -d")
    before = bench.ids()
    for options in ({}, {"state": "stopped"}, {"state": "absent"}):
        refused = bench.run(services(web=service()), **options)
        assert (
            f"a Compose project named '{NAME}' that this collection did not make is already on this host, from /root/theirs"
            in refused.message
        )
        assert f"docker compose -p {NAME} down" in refused.message
    assert bench.ids() == before
    # Links that lead elsewhere are not followed.
    bench.sh(f"docker rm -f {NAME}-web-1; rm -rf {ROOT}; mkdir -p {ROOT} /root/elsewhere; ln -s /root/elsewhere {ROOT}/config")
    refused = bench.run(services(web=service()), files=[text("config/a", "1", "web")])
    assert f"{ROOT}/config is not a directory but a file or a link" in refused.message
    assert bench.sh("ls /root/elsewhere") == ""
    bench.sh("mkdir -p /var/lib/trials/open; chown 4711 /var/lib/trials/open; ln -s /etc /var/lib/trials/open/data")
    refused = bench.run(services(web=service()), directories=[{"path": "/var/lib/trials/open/data", "owner": 4711}])
    assert "/var/lib/trials/open/data is a symbolic link in a directory that others than root can write to" in refused.message
    assert bench.sh("stat -c %u /etc") == "0"


def test_two_runs_at_once(bench: Bench) -> None:
    slow = service(
        "/bin/sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; touch /tmp/up; exec sleep 1000", health=["CMD", "ls", "/tmp/up"]
    )
    slow["healthcheck"]["retries"] = 100000
    first = bench.start(services(slow=slow))
    wait_for(
        "the first run has the lock",
        lambda: bench.sh(f"docker ps -q --filter name={NAME}-slow"),
        seconds=20,
    )
    impatient = bench.run(services(slow=slow), lock_timeout=0)
    assert f"project {NAME} is being changed by another run (process " in impatient.message
    assert "started by " in impatient.message
    bench.sh(f"(sleep 2; docker exec {NAME}-slow-1 touch /tmp/go) > /dev/null 2>&1 &")
    patient = bench.apply(services(slow=slow))
    assert not patient.changed, "it waited for the first run and found everything done"
    assert bench.finish(first).actions == {"slow": "created"}


def test_without_docker(bench: Bench) -> None:
    bench.sh("systemctl stop docker.socket docker.service")
    try:
        predicted = bench.apply(services(web=service()), check=True, files=[text("a", "1", "web")])
        assert predicted.actions == {"web": "created"}
        assert "Docker cannot be reached yet" in predicted.result["warnings"][0]
        failed = bench.run(services(web=service()))
        assert "cannot connect to /run/docker.sock" in failed.message
        assert "systemctl status docker" in failed.message
        bench.sh("mv /usr/bin/docker /usr/bin/docker.away")
        try:
            assert "apt-get install" in bench.run(services(web=service())).message
        finally:
            bench.sh("mv /usr/bin/docker.away /usr/bin/docker")
    finally:
        bench.sh("systemctl start docker.socket docker.service")


def test_secrets_are_seen_nowhere(bench: Bench) -> None:
    secrets = {"word": "S3cret-canary", "awkward": "p$a%s\"s'w{o}r#d\\ with space", "short": "Kp7#"}
    content = "\n".join(f"{name} = {value}" for name, value in secrets.items())
    well = service(volumes=["./secrets:/run/secrets/app:ro"])
    talkative = "cat /run/secrets/app/conf; grep -o 'S3.*' /run/secrets/app/conf"
    ill = {**well, "command": ["/bin/sh", "-c", f"{talkative}; exec sleep 1000"]}
    ill["healthcheck"] = {**well["healthcheck"], "test": ["CMD-SHELL", f"{talkative}; exit 1"]}
    since = bench.sh("date '+%F %T'")
    outputs = []
    for definition, addition, expected in (
        (well, "", "(sensitive, changed)"),
        (well, "\n#", "(sensitive, changed)"),
        (ill, "", "********"),
    ):
        files = [{"dest": "secrets/conf", "content": content + addition, "sensitive": True, "group": 4711, "services": ["web"]}]
        output, _ = bench.start(services(web=definition), "-vvv", "--diff", json_output=False, files=files).communicate(timeout=60)
        assert expected in output
        outputs.append(output)
    assert "its last log lines" in outputs[-1]
    assert bench.sh(f"stat -c '%u:%g %a' {ROOT}/secrets {ROOT}/secrets/conf").splitlines() == ["0:4711 750", "0:4711 440"]
    seen = {
        "output": "".join(outputs),
        "journal": bench.sh(f"journalctl --since '{since}' -o cat --no-pager"),
        "labels and environment": bench.sh(f"docker inspect {NAME}-web-1 -f '{{{{json .Config}}}}'"),
        "compose.yml and manifest": bench.sh(f"cat {ROOT}/compose.yml {ROOT}/.berth.json /run/berth/{NAME}.lock"),
        "temporary files": bench.sh("find /tmp /root/.ansible /home/*/.ansible -type f 2>/dev/null | xargs -r cat"),
    }
    assert [(place, leaks(secrets, found)) for place, found in seen.items() if leaks(secrets, found)] == []
    assert '"file secrets/conf":"' in bench.sh(f"docker inspect {NAME}-web-1 -f '{{{{index .Config.Labels \"berth.inputs\"}}}}'")
