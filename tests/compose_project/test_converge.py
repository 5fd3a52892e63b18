# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What compose_project does when nothing goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.berth.odoo.tests.compose_project.conftest import BASE, IMAGE, NAME, ROOT, Bench, service, services, text

AWKWARD = """ $HOME ${x:-y} $$ % %s " ' {{ a }} {% b %} {# c #} # \\ \\n & ; | < > * ~ `id` é 中 🚢 """


def test_first_run_is_predicted_done_and_then_nothing_is_left_to_do(bench: Bench) -> None:
    definition = services(web=service(), db=service())
    options = {
        "files": [text("config/a.conf", "1\n", "web")],
        "directories": [{"path": "/var/lib/trials/data", "owner": 4711, "mode": "0700"}],
    }
    predicted = bench.play(definition, "--check", **options)
    assert predicted.actions == {"web": "created", "db": "created"}
    assert predicted.result["files"]["created"] == ["config/a.conf", "compose.yml"]
    assert bench.sh(f"ls -d {BASE} /var/lib/trials 2>&1 | grep -c 'No such'") == "2"

    first = bench.play(definition, **options)
    assert first.result["services"] == predicted.result["services"]
    assert first.result["files"] == predicted.result["files"]
    assert bench.sh("stat -c '%u %g %a' /var/lib/trials/data") == "4711 0 700"
    assert bench.sh(f"cd {ROOT}; stat -c '%n %u:%g %a' . config config/a.conf compose.yml .berth.json ../.key").splitlines() == [
        ". 0:0 755",
        "config 0:0 755",
        "config/a.conf 0:0 444",
        "compose.yml 0:0 640",
        ".berth.json 0:0 600",
        "../.key 0:0 600",
    ]
    before = bench.sh(f"find {ROOT} -printf '%p %T@ %i\\n'; docker ps -a --format '{{.ID}} {{.CreatedAt}}'")

    again = bench.play(definition, **options)
    assert not again.changed
    assert again.actions == {"web": "unchanged", "db": "unchanged"}
    assert bench.sh(f"find {ROOT} -printf '%p %T@ %i\\n'; docker ps -a --format '{{.ID}} {{.CreatedAt}}'") == before


def test_doing_nothing_is_one_short_remote_task_without_compose(bench: Bench) -> None:
    definition = services(**{f"s{number}": service() for number in range(4)})
    files = [text(f"config/{number}", "x" * 5000, "s0") for number in range(10)]
    first = bench.apply(definition, files=files)
    # Any use of the docker command would be an error from now on.
    bench.sh("printf '#!/bin/sh\\nexit 99\\n' > /usr/local/sbin/docker; chmod +x /usr/local/sbin/docker")
    output, _ = bench.start(definition, "-vvv", json_output=False, files=files).communicate(timeout=60)
    assert output.count("SSH: EXEC") == 1, "a run without changes must cost one connection"
    again = min((bench.apply(definition, files=files) for _ in range(3)), key=lambda ran: ran.seconds)
    assert not again.changed
    assert again.seconds < first.seconds / 3, f"doing nothing took {again.seconds:.2f} s, doing everything {first.seconds:.2f} s"


def test_a_changed_value_recreates_one_service_and_says_why(bench: Bench) -> None:
    bench.apply(services(web=service(environment={"A": "1"}), db=service()))
    before = bench.ids()
    definition = services(web=service(environment={"A": "2"}), db=service())
    predicted = bench.apply(definition, check=True)
    assert bench.ids() == before
    done = bench.apply(definition)
    assert predicted.result["services"] == done.result["services"]
    assert done.actions == {"web": "recreated", "db": "unchanged"}
    assert done.reasons("web") == "environment changed"
    after = bench.ids()
    assert (after["web"] != before["web"], after["db"] == before["db"]) == (True, True)
    (shown,) = predicted.result["diff"]
    assert '      A: "1"\n' in shown["before"]
    assert '      A: "2"\n' in shown["after"]
    assert "berth.hash" not in shown["after"]
    # Another notation of the same is no change; the override comes last and null removes.
    same = services(web=service(environment=["A=2"]), db=service())
    assert not bench.apply(same).changed
    overridden = bench.apply(same, override={"services": {"web": {"environment": {"A": None, "B": True}}, "db": None}})
    assert overridden.actions == {"web": "recreated", "db": "removed"}
    assert bench.exec("web", "/bin/sh", "-c", "echo ${A-none} $B") == "none true"


def test_another_image_under_the_same_name_is_noticed(bench: Bench) -> None:
    image = "berth-test/moving:1"
    bench.sh(f"docker tag {IMAGE} {image}")
    definition = services(web={**service(), "image": image}, db=service())
    bench.apply(definition)
    bench.sh(f"docker commit -c 'ENV NEW=1' $(docker create --name trial-commit {IMAGE}) {image}")
    done = bench.apply(definition)
    assert done.actions == {"web": "recreated", "db": "unchanged"}
    assert done.reasons("web") == f"image {image} has other content"
    assert not bench.apply(definition).changed
    moved = bench.apply(services(web=service(), db=service()))
    assert moved.reasons("web") == f"image changed from {image} to {IMAGE}"


def test_files_change_vanish_and_leave_the_work_of_people_alone(bench: Bench) -> None:
    definition = services(web=service(volumes=["./config:/config:ro"]), db=service())
    both = [text("config/a", "1", "web"), text("config/sub/deep/b", "1", "db"), text("note", "x")]
    bench.apply(definition, files=both)
    bench.sh(f"echo mine > {ROOT}/config/mine")
    done = bench.apply(definition, files=[text("config/a", "2", "web"), text("note", "y")])
    assert done.actions == {"web": "recreated", "db": "recreated"}
    assert done.reasons("web") == "file config/a changed"
    assert done.reasons("db") == "file config/sub/deep/b removed"
    assert done.result["files"] == {"created": [], "changed": ["config/a", "note", "compose.yml"], "removed": ["config/sub/deep/b"]}
    assert bench.sh(f"cd {ROOT}; find . | sort").split() == [
        ".",
        "./.berth.json",
        "./compose.yml",
        "./config",
        "./config/a",
        "./config/mine",
        "./note",
    ]
    assert bench.exec("web", "cat", "/config/a") == "2"
    assert bench.apply(definition, files=[text("config/a", "2", "web"), text("note", "z")]).actions == {
        "web": "unchanged",
        "db": "unchanged",
    }


def test_sources_of_content_and_awkward_characters(bench: Bench) -> None:
    (bench.directory / "templates").mkdir(exist_ok=True)
    (bench.directory / "files").mkdir(exist_ok=True)
    (bench.directory / "templates/t.j2").write_text(
        "{% if true %}\nhost={{ inventory_hostname }}\n{% endif %}\n{% include 'part.j2' %}", encoding="utf-8"
    )
    (bench.directory / "templates/part.j2").write_text("part\n\n", encoding="utf-8")
    blob = bytes(range(256))
    (bench.directory / "files/blob").write_bytes(blob)
    (bench.directory / "files/vaulted").write_text("vaulted $x\n", encoding="utf-8")
    _encrypt(bench, bench.directory / "files/vaulted")
    definition = services(
        web=service(
            environment={"AWKWARD": AWKWARD, "PLAIN": "yes"},
            labels={"text": AWKWARD},
            volumes=["./config:/config:ro"],
            health=["CMD-SHELL", 'test "$PLAIN" = yes'],
        )
    )
    files = [
        text("config/awkward", AWKWARD, "web"),
        {"dest": "config/rendered", "template": "t.j2", "services": []},
        {"dest": "config/blob", "src": "blob", "services": []},
        {"dest": "config/vaulted", "src": "vaulted", "services": []},
    ]
    bench.play(definition, files=files)
    assert not bench.play(definition, files=files).changed
    inspected = json.loads(bench.sh(f"docker inspect {NAME}-web-1"))[0]
    assert f"AWKWARD={AWKWARD}" in inspected["Config"]["Env"]
    assert inspected["Config"]["Labels"]["text"] == AWKWARD
    assert bench.host.run(f"cat {ROOT}/config/awkward") == AWKWARD
    assert bench.host.run(f"cat {ROOT}/config/rendered") == "host=vm1\npart\n"
    assert bench.sh(f"od -An -v -tx1 {ROOT}/config/blob").split() == [f"{byte:02x}" for byte in blob]
    assert bench.host.run(f"cat {ROOT}/config/vaulted") == "vaulted $x\n"


def _encrypt(bench: Bench, path: Path) -> None:
    import subprocess

    from ansible_collections.berth.odoo.tests.support.lab import ansible, environment

    command = [*ansible("ansible-vault"), "encrypt", "--vault-password-file", str(bench.lab.vault_password_file), str(path)]
    subprocess.run(command, check=True, capture_output=True, env=environment())


def test_reload_instead_of_recreate(bench: Bench) -> None:
    definition = services(
        web=service(volumes=["./config:/config:ro"]),
        sleeper=service("/bin/sh", "-c", "trap 'echo got it > /tmp/got' HUP; while true; do sleep 0.1; done", init=False),
    )

    def files(content: str, command: str) -> list[dict[str, object]]:
        reloads = [{"service": "web", "command": ["/bin/sh", "-c", command]}, {"service": "sleeper", "signal": "HUP"}]
        return [{"dest": "config/live", "content": content, "reload": reloads}]

    copy = "cat /config/live >> /tmp/seen || true"
    assert bench.apply(definition, files=files("1", copy)).actions == {"web": "created", "sleeper": "created"}
    before = bench.ids()
    assert not bench.apply(definition, files=files("1", copy)).changed
    predicted = bench.apply(definition, check=True, files=files("2", copy))
    done = bench.apply(definition, files=files("2", copy))
    assert predicted.result["services"] == done.result["services"]
    assert done.actions == {"web": "reloaded", "sleeper": "reloaded"}
    assert done.reasons("web") == "file config/live changed"
    assert bench.ids() == before
    assert bench.exec("web", "cat", "/tmp/seen") == "2", "a service that was started with the file needs no reload"
    assert bench.exec("sleeper", "cat", "/tmp/got") == "got it"

    # A reload that fails is an error now, and is tried again by the next run, which has nothing else to do.
    failed = bench.run(definition, files=files("3", "echo no such user >&2; exit 3"))
    assert "service web did not take over config/live" in failed.message
    assert "exit code 3: no such user" in failed.message
    repaired = bench.apply(definition, files=files("3", copy))
    assert repaired.actions["web"] == "reloaded"
    assert bench.exec("web", "cat", "/tmp/seen") == "23"
    assert not bench.apply(definition, files=files("3", copy)).changed
    # The reload also runs when the file goes.
    removed = bench.apply(definition, files=[])
    assert removed.actions == {"web": "reloaded", "sleeper": "reloaded"}
    assert removed.result["files"]["removed"] == ["config/live"]
    # The directory that is mounted must stay, or the container would never see what comes back.
    bench.apply(definition, files=files("4", copy))
    assert bench.ids() == before
    assert bench.exec("web", "cat", "/config/live") == "4"
    bench.sh(f"rm -r {ROOT}/config")
    assert bench.apply(definition, files=files("4", copy)).reasons("web") == "directory config was removed on the host"
    assert bench.exec("web", "cat", "/config/live") == "4"


def test_stopped_present_absent(bench: Bench) -> None:
    definition = services(web=service(), db=service(volumes=["named:/data"])) | {"volumes": {"named": {}}}
    options = {"files": [text("config/a", "1", "web")], "directories": [{"path": "/var/lib/trials/keep"}]}
    bench.apply(definition, **options)
    bench.sh(f"touch /var/lib/trials/keep/data {ROOT}/config/mine")
    ids = bench.ids()
    assert bench.apply(definition, state="stopped", **options).actions == {"web": "stopped", "db": "stopped"}
    assert bench.sh(f"docker ps -q --filter label=com.docker.compose.project={NAME}") == ""
    assert not bench.apply(definition, state="stopped", **options).changed
    assert bench.apply(definition, **options).actions == {"web": "started", "db": "started"}
    assert bench.ids() == ids
    predicted = bench.apply(None, check=True, state="absent")
    gone = bench.apply(None, state="absent")
    assert predicted.result["services"] == gone.result["services"]
    assert gone.actions == {"web": "removed", "db": "removed"}
    assert gone.result["networks"] == [f"{NAME}_default"]
    assert gone.result["files"]["removed"] == ["config/a", "compose.yml", ".berth.json"]
    assert "config" in gone.result["warnings"][0], "what stays is named"
    assert bench.sh(f"find {ROOT} -type f; ls /var/lib/trials/keep; docker volume ls -q").split() == [
        f"{ROOT}/config/mine",
        "data",
        f"{NAME}_named",
    ]
    assert bench.ids() == {}
    assert not bench.apply(None, state="absent").changed


def test_networks_profiles_and_orphans(bench: Bench) -> None:
    definition = {
        "services": {
            "web": service(networks=["shared", "own"]),
            "old": service(networks=["own"]),
            "tool": {**service(), "profiles": ["tool"]},
        },
        "networks": {"shared": {"external": True, "name": "trial-shared"}, "own": {"internal": True}},
    }
    first = bench.apply(definition)
    assert first.result["networks"] == ["trial-shared"]
    assert set(bench.ids()) == {"web", "old"}
    # A maintenance task that somebody runs is not ours to touch.
    bench.sh(f"cd {ROOT} && docker compose run -d --name trial-oneoff tool /bin/sleep 1000")
    assert not bench.apply(definition).changed
    # Compose itself leaves a network as it is when its definition changes.
    del definition["services"]["old"]
    definition["networks"]["own"] = {"internal": False}
    done = bench.apply(definition)
    assert done.actions == {"web": "recreated", "old": "removed"}
    assert bench.sh(f"docker network inspect {NAME}_own -f '{{{{.Internal}}}}'") == "false"
    assert bench.sh("docker inspect trial-oneoff -f '{{.State.Running}}'") == "true"
    assert not bench.apply(definition).changed
    # A network nobody uses any more goes, shared ones stay.
    bench.sh("docker rm -f trial-oneoff")
    bench.apply(services(web=service()))
    assert bench.sh("docker network ls --format '{{.Name}}' --filter name=trial").split() == ["trial-shared", f"{NAME}_default"]


def test_what_is_not_well_is_repaired(bench: Bench) -> None:
    check = ["CMD-SHELL", "test ! -e /tmp/ill || { echo feeling bad; exit 1; }"]
    names = ("well", "stopped", "missing", "paused", "ill", "recovered")
    definition = services(**{name: service(health=check) for name in names})
    bench.apply(definition)
    before = bench.ids()
    bench.sh(
        f"cd {ROOT}; docker exec {NAME}-ill-1 touch /tmp/ill; docker exec {NAME}-recovered-1 touch /tmp/ill; docker stop -t 0 {NAME}-stopped-1; "
        f"docker rm -f {NAME}-missing-1; docker pause {NAME}-paused-1; "
        f"until docker ps | grep {NAME}-ill-1 | grep -q unhealthy; do sleep 0.1; done; "
        f"until docker ps | grep {NAME}-recovered-1 | grep -q unhealthy; do sleep 0.1; done; docker exec {NAME}-recovered-1 rm /tmp/ill"
    )
    # Its container keeps /tmp/ill over a restart, so the first attempt must fail in its own words.
    failed = bench.run(definition)
    assert "service ill is unhealthy: its health check ended with exit code 1: feeling bad" in failed.message
    assert failed.reasons("ill") == "was unhealthy: exit code 1: feeling bad"
    assert failed.actions == {
        "well": "unchanged",
        "stopped": "started",
        "missing": "created",
        "paused": "started",
        "ill": "started",
        "recovered": "unchanged",
    }
    bench.sh(f"docker exec {NAME}-ill-1 rm /tmp/ill")
    bench.apply(definition)
    after = bench.ids()
    assert {name for name in names if after[name] == before[name]} == set(names) - {"missing"}
    assert bench.sh(f"docker ps -q --filter label=com.docker.compose.project={NAME} --filter status=running | wc -l") == "6"
    bench.host.wait_until_healthy(seconds=10)
    assert not bench.apply(definition).changed


def test_changes_by_hand_are_undone_where_they_were_made(bench: Bench) -> None:
    definition = services(web=service(volumes=["./config:/config:ro"]), db=service(), cache=service())
    files = [text("config/a", "1", "web")]
    bench.apply(definition, files=files)
    before = bench.ids()
    bench.sh(
        f"cd {ROOT}; echo 2 > config/a; chmod 666 config/a; "
        "sed -i 's/^  cache:$/  cache:\\n    hostname: other/' compose.yml; docker compose up -d cache; sed -i '/hostname: other/d' compose.yml"
    )
    done = bench.apply(definition, files=files)
    assert done.actions == {"web": "recreated", "db": "unchanged", "cache": "recreated"}
    assert done.reasons("web") == "file config/a was changed on the host"
    assert done.reasons("cache") == "was recreated by somebody with another configuration"
    assert done.result["files"]["changed"] == ["config/a"]
    assert bench.ids()["db"] == before["db"]
    assert bench.sh(f"docker inspect {NAME}-cache-1 -f '{{{{.Config.Hostname}}}}'") != "other"
    assert not bench.apply(definition, files=files).changed


def test_dependencies(bench: Bench) -> None:
    definition = services(
        job=service("/bin/true", healthcheck={"disable": True}),
        db=service(),
        web=service(
            depends_on={"db": {"condition": "service_healthy", "restart": True}, "job": {"condition": "service_completed_successfully"}}
        ),
        side=service(network_mode="service:db"),
        plain=service(depends_on=["db"]),
    )
    bench.apply(definition)
    assert not bench.apply(definition).changed
    before = bench.ids()
    definition["services"]["db"]["environment"] = {"A": "1"}
    done = bench.apply(definition)
    assert done.actions == {"job": "unchanged", "db": "recreated", "web": "started", "side": "recreated", "plain": "unchanged"}
    assert {name for name, container in bench.ids().items() if before[name] == container} == {"job", "web", "plain"}
    assert not bench.apply(definition).changed
