# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for containers and explaining their failures, with recorded answers of a real engine and a clock that obeys."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _compose as compose
from ansible_collections.berth.odoo.plugins.module_utils import _compose_engine as engine_module
from ansible_collections.berth.odoo.plugins.module_utils._compose import Reload
from ansible_collections.berth.odoo.plugins.module_utils._compose_engine import ConvergeError, Engine, listening_process
from ansible_collections.berth.odoo.plugins.module_utils._compose_files import HostError
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import DockerClient, DockerError, ExecResult

FIXTURES = Path(__file__).with_name("fixtures") / "compose"
INSPECTED = json.loads((FIXTURES / "inspect.json").read_text())


class Docker:
    """Answers with prepared containers; ``turn`` is called before each look at them, as the world turns meanwhile."""

    socket_path = "/run/docker.sock"

    def __init__(self, **containers: dict[str, Any]) -> None:
        self.containers = {name: self._named(name, copy.deepcopy(item)) for name, item in containers.items()}
        self.published: list[dict[str, Any]] = []
        self.turns = 0
        self.turn = lambda _number: None
        self.posts: list[str] = []
        self.result = ExecResult(0, "", "")

    @staticmethod
    def _named(name: str, item: dict[str, Any]) -> dict[str, Any]:
        config = item.setdefault("Config", {})
        config["Labels"] = {compose.COMPOSE_SERVICE: name, compose.COMPOSE_PROJECT: "p"}
        return {**item, "Id": name, "Name": f"/p-{name}-1"}

    def get(self, path: str, **query: Any) -> Any:
        if path == "/containers/json" and "filters" in query:
            self.turns += 1
            self.turn(self.turns)  # type: ignore[no-untyped-call]
            return [
                {"Id": name, "Names": [f"/p-{name}-1"], "State": item["State"]["Status"], "Labels": item["Config"]["Labels"]}
                for name, item in self.containers.items()
            ]
        if path == "/containers/json":
            return self.published
        if path == "/networks":
            return [{"Name": "bridge"}]
        return self.containers[path.split("/")[2]]

    def post(self, path: str, body: Any = None, **query: Any) -> None:
        self.posts.append(f"{path} {query}")

    def exec(self, container_id: str, argv: Any, **options: Any) -> ExecResult:
        self.posts.append(f"exec {container_id} {list(argv)}")
        return self.result

    def logs(self, container_id: str, tail: int) -> str:
        return f"{container_id} says\nmy password is correct-Horse7"


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(engine_module, "time", made)
    return made


def make(docker: Docker, directory: str = "/opt/berth/p", wait_timeout: float = 30, **services: dict[str, Any]) -> Engine:
    definition = {"services": {name: {"image": "i", **services.get(name, {})} for name in {*docker.containers, *services}}}
    return Engine(cast(DockerClient, docker), "p", directory, definition, [b"password = correct-Horse7"], wait_timeout)


def running(health: str = "", **options: Any) -> dict[str, Any]:
    state = {"Status": "running", "StartedAt": "1", **({"Health": {"Status": health, "Log": []}} if health else {})}
    return {"State": state, "Config": {}, **options}


# --- waiting ------------------------------------------------------------------------------------------------------------


def test_health_ends_the_wait(clock: Clock) -> None:
    docker = Docker(web=running("starting"), db=running("healthy"))
    docker.turn = lambda number: docker.containers["web"]["State"]["Health"].update(Status="healthy") if number == 5 else None
    make(docker).wait(["web", "db"], {})
    assert docker.turns == 5
    assert clock.now - 100 == pytest.approx(4 * engine_module.POLL_SECONDS)


def test_without_a_health_check_a_container_must_stay_up_for_a_moment(clock: Clock) -> None:
    docker = Docker(web=running())
    make(docker).wait(["web"], {})
    assert clock.now - 100 >= engine_module.STABLE_SECONDS
    docker, clock.now = Docker(web=running()), 100
    docker.turn = lambda number: docker.containers["web"]["State"].update(StartedAt="2") if number == 4 else None
    make(docker).wait(["web"], {})
    assert clock.now - 100 >= 3 * engine_module.POLL_SECONDS + engine_module.STABLE_SECONDS, "a restart begins a new moment"


def test_one_that_stays_unhealthy_fails_in_its_own_words_long_before_the_time_is_over(clock: Clock) -> None:
    """Docker says so after two checks here, one every second."""
    docker = Docker(db=INSPECTED["dependency-unhealthy"], web=running("starting"))

    def check(_turn: int) -> None:
        docker.containers["db"]["State"]["Health"]["FailingStreak"] = 2 + int(clock.now - 100)

    docker.turn = check  # type: ignore[assignment]
    with pytest.raises(ConvergeError) as caught:
        make(docker).wait(["web", "db"], {})
    assert clock.now == 102
    assert str(caught.value).splitlines() == [
        "project p: service db is unhealthy: its health check ended with exit code 3: no answer on 5432",
        "its last log lines:",
        "    db says",
        "    my password is ********",
        "not ready yet either: web",
        "More: docker compose -p p logs",
    ]
    assert caught.value.failures[0]["container"] == "p-db-1"


def test_one_that_was_unhealthy_may_get_well(clock: Clock) -> None:
    docker = Docker(db=INSPECTED["dependency-unhealthy"])
    docker.turn = lambda number: docker.containers["db"]["State"]["Health"].update(Status="healthy") if number == 5 else None
    make(docker).wait(["db"], {})
    assert docker.turns == 5


def test_one_that_is_unhealthy_when_the_time_is_over_says_so() -> None:
    with pytest.raises(ConvergeError) as caught:
        make(Docker(db=INSPECTED["dependency-unhealthy"]), wait_timeout=2).wait(["db"], {})
    assert "not well within 2 s (wait_timeout): db" in str(caught.value)
    assert "service db is unhealthy: its health check ended with exit code 3: no answer on 5432" in str(caught.value)


def test_the_time_limit_and_its_extension_by_a_start_period(clock: Clock) -> None:
    with pytest.raises(ConvergeError, match=r"project p: not well within 30 s \(wait_timeout\): web"):
        make(Docker(web=running("starting"))).wait(["web"], {})
    assert clock.now - 100 == pytest.approx(30, abs=0.5)
    clock.now = 100
    check = {"StartPeriod": 60 * 10**9, "Interval": 5 * 10**9, "Timeout": 5 * 10**9}
    with pytest.raises(ConvergeError, match="not well within 70 s"):
        make(Docker(web=running("starting", Config={"Healthcheck": check}))).wait(["web"], {})
    assert clock.now - 100 == pytest.approx(70, abs=0.5)


def test_a_crash_loop_is_given_some_time_and_no_more(clock: Clock) -> None:
    docker = Docker(web={"State": {"Status": "restarting", "ExitCode": 7}, "RestartCount": 9, "Config": {}})
    with pytest.raises(ConvergeError, match="service web exited with code 7 and was restarted 9 times"):
        make(docker).wait(["web"], {})
    assert clock.now - 100 == pytest.approx(engine_module.CRASH_LOOP_SECONDS, abs=0.5)
    clock.now = 100
    with pytest.raises(ConvergeError, match="not well within 30 s"):
        make(docker).wait(["web"], {"web": 8})  # restarts from before this run are not held against it
    assert clock.now - 100 == pytest.approx(30, abs=0.5)


def test_missing_containers_and_ended_jobs() -> None:
    with pytest.raises(ConvergeError, match="not well within 30 s"):
        make(Docker(), web={}).wait(["web"], {})
    make(Docker(), web={"scale": 0}).wait(["web"], {})
    job = {"State": {"Status": "exited", "ExitCode": 0}, "Config": {}}
    depends = {"depends_on": {"job": {"condition": "service_completed_successfully"}}}
    make(Docker(job=job), web={"scale": 0, **depends}).wait(["job"], {})
    with pytest.raises(ConvergeError, match="service job exited with code 0"):
        make(Docker(job=job)).wait(["job"], {})


def test_a_container_that_goes_away_meanwhile_is_missing_and_no_error() -> None:
    docker = Docker(web=running("healthy"))
    original = docker.get

    def get(path: str, **query: Any) -> Any:
        if path == "/containers/web/json" and docker.turns == 1:
            raise DockerError(404, "No such container")
        return original(path, **query)

    docker.get = get  # type: ignore[method-assign]
    make(docker).wait(["web"], {})
    assert docker.turns == 2


# --- Compose ------------------------------------------------------------------------------------------------------------

FAKE_DOCKER = """#!/bin/sh
printf '%s\\n' "$@" > {directory}/argv
env > {directory}/environment
cat {directory}/stderr >&2
exit $(cat {directory}/rc)
"""


@pytest.fixture
def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "docker"
    script.write_text(FAKE_DOCKER.format(directory=tmp_path))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "stderr").write_text("")
    (tmp_path / "rc").write_text("0")
    return tmp_path


def prepare(directory: Path, scenario: str, rc: int = 1) -> None:
    (directory / "stderr").write_bytes((FIXTURES / f"{scenario}.stderr").read_bytes())
    (directory / "rc").write_text(str(rc))


def test_up_touches_the_named_services_and_heeds_nothing_around_it(fake_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COMPOSE_FILE", "other.yml"), ("DOCKER_HOST", "tcp://elsewhere"), ("SECRET", "x"), ("HOME", "/root")):
        monkeypatch.setenv(name, value)
    make(Docker(web=running()), str(fake_docker)).up(["web"], ["--force-recreate"], ["web"])
    assert (fake_docker / "argv").read_text().split() == [
        *("compose", "--ansi", "never", "--progress", "plain", "--project-name", "p", "--project-directory", str(fake_docker)),
        *("--env-file", "/dev/null", "--file", f"{fake_docker}/compose.yml"),
        *("up", "--detach", "--no-build", "--pull", "never", "--no-deps", "--remove-orphans", "--force-recreate", "web"),
    ]
    environment = dict(line.split("=", 1) for line in (fake_docker / "environment").read_text().splitlines())
    assert environment["DOCKER_HOST"] == "unix:///run/docker.sock"
    assert set(environment) <= {"PATH", "HOME", "DOCKER_HOST", "LC_ALL", "PWD", "SHLVL", "_"}


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("command-missing", 'project p: service web cannot start: exec: "/bin/nothing": stat /bin/nothing: no such file or directory'),
        ("image-missing", "project p: No such image: berth-test/nothing:1"),
        ("external-missing", "project p: network nope not found"),
        ("address-missing", "project p: service web cannot publish on 192.0.2.7: this host does not have that address"),
    ],
)
def test_failures_of_up(fake_docker: Path, scenario: str, expected: str) -> None:
    prepare(fake_docker, scenario)
    docker = Docker(**({"web": INSPECTED[scenario]} if scenario in INSPECTED else {}))
    with pytest.raises(ConvergeError) as caught:
        make(docker, str(fake_docker), web={}).up(["web"], [], ["web"])
    assert expected in str(caught.value).splitlines()


def test_a_port_taken_by_a_container(fake_docker: Path) -> None:
    prepare(fake_docker, "port-container")
    docker = Docker(web=INSPECTED["port-container"])
    docker.published = [
        {"Names": ["/other"]},
        {"Names": ["/edge"], "Ports": [{"PublicPort": 18080}], "Labels": {compose.COMPOSE_PROJECT: "x"}},
    ]
    with pytest.raises(
        ConvergeError, match=r"service web cannot publish 0\.0\.0\.0:18080: taken by container edge of project x\. Stop that"
    ):
        make(docker, str(fake_docker)).up(["web"], [], ["web"])


def test_a_silent_failure_still_says_something(fake_docker: Path) -> None:
    (fake_docker / "rc").write_text("9")
    with pytest.raises(ConvergeError, match="docker compose ended with exit code 9"):
        make(Docker(web=running("healthy")), str(fake_docker)).up(["web"], [], ["web"])
    with pytest.raises(ConvergeError, match="project p: cannot be stopped: "):
        make(Docker(web=running("healthy")), str(fake_docker)).stop_all()


@pytest.mark.parametrize("deaf", ["", "trap '' TERM\n"])
def test_a_compose_that_hangs_is_ended(fake_docker: Path, monkeypatch: pytest.MonkeyPatch, deaf: str) -> None:
    """Also one that does not hear that it shall end."""
    monkeypatch.setattr(engine_module, "END_TIMEOUT", 0.2)
    monkeypatch.setattr(engine_module, "VALIDATE_TIMEOUT", 0.2)
    (fake_docker / "docker").write_text(f"#!/bin/sh\n{deaf}sleep 20 & wait\n")
    with pytest.raises(HostError, match=r"docker compose config was ended after 0\.2 s"):
        make(Docker(), str(fake_docker)).validate(f"{fake_docker}/x")


def test_a_refused_definition(fake_docker: Path) -> None:
    prepare(fake_docker, "unknown-key", 15)
    with pytest.raises(
        HostError, match=r"Compose refuses the definition, no container was touched: validating compose\.yml: services\.web"
    ):
        make(Docker(), str(fake_docker)).validate("/tmp/rec/unknown-key.yml")


def test_missing_commands_say_how_to_get_them(fake_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake_docker / "stderr").write_text("docker: 'compose' is not a docker command.\n")
    (fake_docker / "rc").write_text("1")
    with pytest.raises(HostError, match=r"docker has no compose plugin on this host.*apt-get install docker-compose"):
        make(Docker(), str(fake_docker)).stop_all()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match=r"the command docker is not on this host.*apt-get install docker\.io"):
        make(Docker()).docker_command()


# --- probing and reloading ----------------------------------------------------------------------------------------------


def test_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker(web=INSPECTED["dependency-unhealthy"])
    monkeypatch.setattr(engine_module, "DockerClient", lambda *_args, **_options: _Closing(docker))
    (item,) = make(docker).containers()
    assert make(docker).probe(item) is None
    assert docker.posts == ["exec web ['/bin/sh', '-c', 'echo no answer on 5432; exit 3']"]
    docker.result = ExecResult(3, "login with correct-Horse7\n", "failed\n")
    assert make(docker).probe(item) == "exit code 3: login with ******** failed"
    docker.result = ExecResult(3, "", "")
    assert make(docker).probe(item) == "exit code 3"
    docker.containers["web"]["Config"].pop("Healthcheck")
    assert make(docker).probe(item) == "it has no health check any more"


class _Closing:
    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    def __enter__(self) -> Docker:
        return self.docker

    def __exit__(self, *_: object) -> None:
        pass


def test_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(engine_module.os, "kill", lambda *sent: killed.append(sent))
    docker = Docker(web=running("healthy"), stopped={"State": {"Status": "exited"}, "Config": {}})
    docker.containers["web"]["State"]["Pid"] = 4711
    engine = make(docker)
    engine.run_reload(Reload("web", signal="HUP"), ["a"])
    engine.run_reload(Reload("web", signal="SIGUSR1"), ["a"])
    engine.run_reload(Reload("web", ("reload", "now")), ["a"])
    engine.run_reload(Reload("stopped", ("reload",)), ["a"])
    assert killed == [(4711, signal.SIGHUP), (4711, signal.SIGUSR1)]
    assert docker.posts == ["exec web ['reload', 'now']"]
    docker.result = ExecResult(2, "", "bad line 3, password correct-Horse7")
    with pytest.raises(ConvergeError) as caught:
        engine.run_reload(Reload("web", ("reload", "now")), ["a", "b"])
    assert str(caught.value) == (
        "project p: service web did not take over a, b: reload now: exit code 2: bad line 3, password ********. "
        "The files are in place; the next run tries again"
    )
    with pytest.raises(ConvergeError, match="signal NONE: there is no signal NONE"):
        engine.run_reload(Reload("web", signal="NONE"), ["a"])
    docker.containers["web"]["State"]["Pid"] = 0
    with pytest.raises(ConvergeError, match="signal HUP: the container has stopped"):
        engine.run_reload(Reload("web", signal="HUP"), ["a"])


def test_missing_networks() -> None:
    engine = make(Docker())
    networks = {"a": {"external": True, "name": "berth-app"}, "b": {"external": True, "name": "bridge"}}
    engine.definition = {"services": {"web": {"networks": ["a", "b"]}}, "networks": networks}
    assert engine.missing_networks() == ["berth-app"]
    engine.definition = {"services": {"web": {}}}
    assert engine.missing_networks() == []


def test_the_process_that_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        comm = Path("/proc/self/comm").read_text().strip()
        assert listening_process(port).startswith(f"process {os.getpid()} ({comm}")
    assert listening_process(port) == ""
