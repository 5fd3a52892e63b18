# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run of compose_project against a simulated engine: above all, runs that are killed at every single step."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from ansible_collections.berth.odoo.plugins.module_utils import _compose as compose
from ansible_collections.berth.odoo.plugins.module_utils import _compose_certificates as certificates
from ansible_collections.berth.odoo.plugins.module_utils import _compose_files as files
from ansible_collections.berth.odoo.plugins.module_utils import _compose_host as host
from ansible_collections.berth.odoo.plugins.module_utils._compose import Certificate, Container, DataDirectory, Leaf, ManagedFile, Reload
from ansible_collections.berth.odoo.plugins.module_utils._compose_engine import ConvergeError, Engine
from ansible_collections.berth.odoo.plugins.module_utils._compose_files import HostError, ProjectDirectory
from ansible_collections.berth.odoo.plugins.module_utils._compose_host import Outcome, Project, Request
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import DockerClient, DockerError, DockerUnavailable

UID, GID = os.geteuid(), os.getegid()


class Killed(BaseException):
    """The process is gone: nothing catches this."""


@dataclasses.dataclass
class Simulated:
    """A container, and what it read when it started or was reloaded."""

    serial: int
    labels: dict[str, str]
    state: str = "running"
    health: str = "healthy"
    loaded: dict[str, bytes] = dataclasses.field(default_factory=dict)
    joined: set[str] = dataclasses.field(default_factory=set)


class World:
    """A host: images, containers and networks that outlive a killed run, and a step at which the run is killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.images = {"i:1": "sha256:1"}
        self.containers: dict[str, Simulated] = {}
        self.networks: dict[str, dict[str, str]] = {}
        self.kill_at: int | None = None
        self.steps = 0
        self.serial = itertools.count()
        self.down = False

    def step(self) -> None:
        """Count something that changes the host; die before the chosen one."""
        if self.steps == self.kill_at:
            raise Killed
        self.steps += 1

    def read(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}

    def start(self, name: str, service: Mapping[str, Any], *, fresh: bool) -> None:
        labels = {key: value.replace("$$", "$") for key, value in service["labels"].items()}
        labels |= {compose.COMPOSE_SERVICE: name, compose.COMPOSE_CONFIG_HASH: json.dumps(service, sort_keys=True)}
        known = self.containers.get(name)
        if known is None or fresh or known.labels != labels:
            known = self.containers[name] = Simulated(next(self.serial), labels)
        elif known.state == "running":
            return
        known.state, known.health, known.loaded = "running", "healthy", self.read()

    # What DockerClient is asked directly.
    socket_path = "/nonexistent/docker.sock"

    def image_id(self, reference: str) -> str | None:
        return self.images.get(reference)


class SimulatedEngine(Engine):
    """An engine that acts on a World."""

    @property
    def world(self) -> World:
        return cast(World, self.docker)

    def installed(self) -> bool:
        return not self.world.down

    def containers(self) -> list[Container]:
        if self.world.down:
            raise DockerUnavailable("cannot connect")
        return [
            Container(
                str(item.serial),
                f"p-{name}-1",
                name,
                item.state,
                item.health,
                0,
                "i:1",
                item.labels,
                frozenset(["p_default", "shared", *item.joined]),
            )
            for name, item in self.world.containers.items()
        ]

    def missing_networks(self, more: Iterable[str] = ()) -> list[str]:
        return [name for name in [*compose.external_networks(self.definition, self.name), *more] if name not in self.world.networks]

    def own_networks(self) -> list[dict[str, Any]]:
        return [{"Id": name, "Name": name, "Labels": labels} for name, labels in self.world.networks.items() if name.startswith("p_")]

    def docker_command(self) -> str:
        return "docker"

    def validate(self, path: str) -> None:
        if "refused" in Path(path).read_text():
            raise HostError("Compose refuses the definition")

    def up(self, names: Sequence[str], flags: Sequence[str], touched: Sequence[str]) -> None:
        document = yaml.safe_load(Path(self.directory, "compose.yml").read_text())
        for name in names:
            self.world.step()
            for network, entry in (document.get("networks") or {}).items():
                if not entry.get("external"):
                    self.world.networks.setdefault(f"p_{network}", entry["labels"])
            self.world.start(name, document["services"][name], fresh=bool(flags))

    def stop_all(self) -> None:
        self.world.step()
        for item in self.world.containers.values():
            item.state = "exited"

    def restart(self, item: Container) -> None:
        self.world.step()
        known = self.world.containers[item.service]
        known.state, known.health, known.loaded = "running", "healthy", self.world.read()

    def unpause(self, item: Container) -> None:
        self.world.step()
        self.world.containers[item.service].state = "running"

    def remove(self, item: Container) -> None:
        self.world.step()
        del self.world.containers[item.service]

    def create_network(self, name: str) -> None:
        self.world.step()
        self.world.networks[name] = {}

    def remove_network(self, entry: Mapping[str, Any]) -> str | None:
        self.world.step()
        del self.world.networks[entry["Name"]]
        return None

    def connect(self, item: Container, network: str) -> None:
        self.world.step()
        assert network in self.world.networks
        self.world.containers[item.service].joined.add(network)

    def disconnect(self, item: Container, network: str) -> None:
        self.world.step()
        self.world.containers[item.service].joined.remove(network)

    def restart_counts(self, names: Any) -> dict[str, int]:
        return {}

    def probe(self, item: Container) -> str | None:
        return "ill"

    def wait(self, names: Sequence[str], baseline: Mapping[str, int]) -> None:
        ill = [name for name in names if self.world.containers[name].health != "healthy"]
        if ill:
            raise ConvergeError(f"{ill} not well")

    def run_reload(self, entry: Reload, dests: Sequence[str]) -> None:
        self.world.step()
        self.world.containers[entry.service].loaded = self.world.read()


@pytest.fixture(autouse=True)
def _simulate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "Engine", SimulatedEngine)
    monkeypatch.setattr(files, "LOCK_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "base/p")


def managed(dest: str, content: str, *services: str, reloads: Sequence[str] = (), sensitive: bool = False) -> ManagedFile:
    entries = tuple(Reload(name, ("reload",)) for name in reloads)
    return ManagedFile(dest, content.encode(), UID, GID, 0o440 if sensitive else 0o444, sensitive, services, entries)


WEB, DB = {"image": "i:1", "volumes": ["./config:/c"]}, {"image": "i:1"}
DEFINITION = {"services": {"web": WEB, "db": DB}}


def request(world: World, definition: Any = None, listed: Sequence[ManagedFile] = (), state: str = "present", **options: Any) -> Request:
    base = str(world.directory.parent)
    given = {"name": "p", "base_dir": base, "wait_timeout": 5, "lock_timeout": 0, "directories": (), **options}
    return Request(state=state, definition=DEFINITION if definition is None else definition, files=tuple(listed), **given)


def run(world: World, *args: Any, check: bool = False, **options: Any) -> Outcome:
    return Project(request(world, *args, **options), cast(DockerClient, world), check).run()


def actions(outcome: Outcome) -> dict[str, str]:
    return {name: plan.action for name, plan in outcome.services.items()}


# --- files without services ---------------------------------------------------------------------------------------------


def test_files_alone_are_written_and_removed_and_compose_is_not_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Any, _path: str) -> None:
        raise HostError("no service selected")

    monkeypatch.setattr(SimulatedEngine, "validate", refuse)
    nothing: dict[str, Any] = {"services": {}}
    one, two = managed("config/run.py", "1"), managed("secrets/key", "2", sensitive=True)
    assert run(world, nothing, [one, two], check=True).files["created"] == ["config/run.py", "secrets/key", "compose.yml"]
    assert run(world, nothing, [one, two]).changed
    assert world.read()["config/run.py"] == b"1"
    assert not run(world, nothing, [one, two]).changed
    assert run(world, nothing, [one]).files["removed"] == ["secrets/key"]
    assert world.containers == {}


# --- networks that containers join as they run --------------------------------------------------------------------------


def test_a_container_joins_and_leaves_networks_without_being_made_anew(world: World) -> None:
    run(world)
    serial = world.containers["db"].serial
    joins = {"db": ("net-a", "net-b")}
    predicted = run(world, joins=joins, check=True)
    assert (predicted.changed, world.containers["db"].joined) == (True, set())
    outcome = run(world, joins=joins)
    assert outcome.joins == predicted.joins == ["db joins net-a", "db joins net-b"]
    assert outcome.networks == ["net-a", "net-b"]
    assert actions(outcome) == {"web": "unchanged", "db": "unchanged"}
    assert world.containers["db"].joined == {"net-a", "net-b"}
    assert not run(world, joins=joins).changed
    assert run(world, joins={"db": ("net-b",)}).joins == ["db leaves net-a"]
    assert run(world).joins == ["db leaves net-b"]
    assert (world.containers["db"].serial, world.containers["db"].joined) == (serial, set())


def test_a_container_that_is_made_anew_joins_again(world: World) -> None:
    joins = {"db": ("net-a",)}
    assert run(world, joins=joins).joins == []
    changed = {"services": {"web": WEB, "db": {**DB, "init": True}}}
    assert actions(run(world, changed, joins=joins)) == {"web": "unchanged", "db": "recreated"}
    assert world.containers["db"].joined == {"net-a"}
    assert not run(world, changed, joins=joins).changed


def test_a_network_that_somebody_took_away_is_joined_again(world: World) -> None:
    joins = {"db": ("net-a",)}
    run(world, joins=joins)
    world.containers["db"].joined.clear()
    assert run(world, joins=joins).joins == ["db joins net-a"]
    assert world.containers["db"].joined == {"net-a"}


def test_a_run_that_was_killed_while_joining_goes_on(world: World) -> None:
    run(world)
    for kill_at in range(6):
        joins = {"db": (f"net-{kill_at}", "net-x")}
        world.kill_at, world.steps = kill_at, 0
        with contextlib.suppress(Killed):
            run(world, joins=joins)
        world.kill_at = None
        run(world, joins=joins)
        assert world.containers["db"].joined == set(joins["db"])


# --- killed runs --------------------------------------------------------------------------------------------------------

BEFORE = [
    managed("config/a", "1", "web"),
    managed("config/live", "1", reloads=["web", "db"]),
    managed("secrets/s", "1", "db", sensitive=True),
    managed("old/gone", "1", "db"),
    managed("old/live", "1", reloads=["db"]),
]
AFTER = [
    managed("config/a", "2", "web"),
    managed("config/live", "2", reloads=["web", "db"]),
    managed("secrets/s", "2", "db", sensitive=True),
    managed("new/b", "1"),
]
SAME_SERVICES = [BEFORE[0], AFTER[1], BEFORE[2], BEFORE[3]]
NEW_DEFINITION = {
    "services": {"web": {**WEB, "init": True}, "cache": {"image": "i:1", "networks": ["shared", "default"]}, "db": DB},
    "networks": {"shared": {"external": True}, "default": {"internal": True}},
}


@pytest.fixture
def killable(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Let also every change of a file be a step."""
    for name in ("write", "remove", "ensure_directory"):
        original = getattr(ProjectDirectory, name)

        def stepped(self: ProjectDirectory, *args: Any, _original: Callable[..., Any] = original, **options: Any) -> Any:
            world.step()
            return _original(self, *args, **options)

        monkeypatch.setattr(ProjectDirectory, name, stepped)
    return world


def expect_converged(world: World, definition: Any, listed: Sequence[ManagedFile]) -> None:
    """Files as listed and nothing else; every service runs with what is on the disk now, whatever way it took it over."""
    on_disk = {dest: content for dest, content in world.read().items() if dest not in ("compose.yml", ".berth.json")}
    assert on_disk == {item.dest: item.content for item in listed}
    assert set(world.containers) == set(definition["services"])
    for name, container in world.containers.items():
        wanted = yaml.safe_load((world.directory / "compose.yml").read_text())["services"][name]["labels"]
        assert container.labels[compose.LABEL_HASH] == wanted[compose.LABEL_HASH]
        for item in listed:
            if name in item.services or name in {entry.service for entry in item.reloads}:
                assert container.loaded.get(item.dest) == item.content, f"{name} runs with an old {item.dest}"
        assert "old/live" not in container.loaded or any(item.dest == "old/live" for item in listed)


def change_files(world: World) -> tuple[Any, Sequence[ManagedFile]]:
    return DEFINITION, AFTER


def only_reload(world: World) -> tuple[Any, Sequence[ManagedFile]]:
    return DEFINITION, SAME_SERVICES


def change_definition(world: World) -> tuple[Any, Sequence[ManagedFile]]:
    return NEW_DEFINITION, BEFORE


def repair_edits(world: World) -> tuple[Any, Sequence[ManagedFile]]:
    for dest in ("config/a", "config/live", "secrets/s"):
        (world.directory / dest).chmod(0o644)
        (world.directory / dest).write_text("edited")
    # Somebody restarted it, so it runs with the edited file and the right labels.
    world.containers["web"].loaded = world.containers["db"].loaded = world.read()
    return DEFINITION, BEFORE


def repair_containers(world: World) -> tuple[Any, Sequence[ManagedFile]]:
    del world.containers["db"]
    world.containers["web"].state = "exited"
    return DEFINITION, BEFORE


SCENARIOS = [change_files, only_reload, change_definition, repair_edits, repair_containers]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_killed_at_any_step_is_repaired_by_the_next(killable: World, scenario: Callable[[World], Any], tmp_path: Path) -> None:
    for step in itertools.count():
        world = killable
        world.__init__(tmp_path / str(step) / "p")  # type: ignore[misc]
        run(world, DEFINITION, BEFORE)
        definition, listed = scenario(world)
        world.kill_at, world.steps = step, 0
        try:
            run(world, definition, listed)
        except Killed:
            world.kill_at = None
            run(world, definition, listed)
            expect_converged(world, definition, listed)
            last = run(world, definition, listed)
            assert not last.changed, f"killed at step {step}, repaired, and then: {last}"
        else:
            break
    expect_converged(world, definition, listed)
    assert step >= 4, "the scenario must have steps to be killed at"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_prediction_is_what_happens_and_changes_nothing(world: World, scenario: Callable[[World], Any]) -> None:
    run(world, DEFINITION, BEFORE)
    definition, listed = scenario(world)
    before = world.read(), {name: item.serial for name, item in world.containers.items()}, dict(world.networks)
    predicted = run(world, definition, listed, check=True)
    assert (world.read(), {name: item.serial for name, item in world.containers.items()}, dict(world.networks)) == before
    done = run(world, definition, listed)
    assert predicted == done


def test_prepared_writes_files_and_leaves_containers_for_later(world: World) -> None:
    run(world, DEFINITION, BEFORE)
    before = {name: item.serial for name, item in world.containers.items()}
    (world.directory / "config/a").chmod(0o644)
    (world.directory / "config/a").write_text("edited")
    listed = SAME_SERVICES
    prepared = run(world, DEFINITION, listed, state="prepared")
    assert prepared.changed
    assert {name: item.serial for name, item in world.containers.items()} == before
    assert actions(prepared) == {"web": "recreated", "db": "reloaded"}
    again = run(world, DEFINITION, listed, state="prepared")
    assert not again.changed
    assert actions(again) == actions(prepared), "what is owed does not get forgotten"
    done = run(world, DEFINITION, listed)
    assert actions(done) == actions(prepared)
    expect_converged(world, DEFINITION, listed)
    assert not run(world, DEFINITION, listed).changed


# --- certificates -------------------------------------------------------------------------------------------------------

NOW = 1_800_000_000
DAY = certificates.DAY
SERIALS = itertools.count(1)


def certificate(*names: str, services: Sequence[str] = ("db",), reloads: Sequence[str] = (), **options: Any) -> Certificate:
    given: dict[str, Any] = {
        "dest": "tls",
        "common_name": "vm1",
        "names": tuple(sorted({"vm1", *names})),
        "days": 90,
        "owner": UID,
        "group": GID,
        "services": tuple(services),
        "reloads": tuple(Reload(name, ("reload",)) for name in reloads),
        "bundle": "CA 1\n",
        "signer": "s1",
        "signer_not_after": NOW + 3650 * DAY,
        **options,
    }
    return Certificate(**given)


def issue(wanted: Certificate, now: int) -> Certificate:
    """What the controller does: certificate and key that belong together carry one number."""
    serial = next(SERIALS)
    end = certificates.end_of(wanted.days, wanted.signer_not_after, now)
    return dataclasses.replace(wanted, leaf=Leaf(f"certificate {serial}\n", f"key {serial}\n", now - certificates.BACKDATED, end))


def certify(world: World, *wanted: Certificate, now: int = NOW, check: bool = False, **options: Any) -> Outcome:
    """Run as the action plugin does: once, and a second time when something must be issued."""
    before = world.read()
    outcome = run(world, check=check, certificates=wanted, now=now, **options)
    if not outcome.issue:
        return outcome
    assert (outcome.changed, outcome.services, world.read()) == (False, {}, before), "the host touches nothing before it has everything"
    assert not check
    completed = [issue(item, now) if item.dest in outcome.issue else item for item in wanted]
    outcome = run(world, certificates=completed, now=now, **options)
    assert not outcome.issue
    return outcome


def verdicts(outcome: Outcome) -> list[tuple[str, str]]:
    return [(item["dest"], item["action"]) for item in outcome.certificates]


def pair(world: World, dest: str = "tls") -> tuple[str, str]:
    """The numbers on certificate and key."""
    found = world.read()
    return found[f"{dest}/tls.crt"].decode().split()[1], found[f"{dest}/tls.key"].decode().split()[1]


def test_a_certificate_is_issued_once(world: World) -> None:
    predicted = certify(world, certificate("etcd"), check=True)
    assert not world.directory.exists()
    first = certify(world, certificate("etcd"))
    assert predicted == first
    assert first.certificates == [{"dest": "tls", "action": "issued", "reason": "no certificate yet", "not_after": "2027-04-15T08:00:00Z"}]
    assert first.files["created"] == ["tls/ca.crt", "tls/tls.crt", "tls/tls.key", "compose.yml"]
    assert {path.name: path.stat().st_mode & 0o777 for path in (world.directory / "tls").iterdir()} == {
        "ca.crt": 0o444,
        "tls.crt": 0o444,
        "tls.key": 0o400,
    }
    assert (world.directory / "tls").stat().st_mode & 0o777 == 0o750
    before = world.read()
    again = certify(world, certificate("etcd"))
    assert (again.changed, verdicts(again), world.read()) == (False, [("tls", "unchanged")], before)
    assert again.certificates[0]["not_after"] == first.certificates[0]["not_after"]


def test_only_what_uses_a_certificate_is_recreated(world: World) -> None:
    certify(world, certificate(), certificate(dest="other", services=[], reloads=["web"]))
    untouched = pair(world, "other")
    predicted = certify(world, certificate("new"), certificate(dest="other", services=[], reloads=["web"]), check=True)
    done = certify(world, certificate("new"), certificate(dest="other", services=[], reloads=["web"]))
    assert predicted == done
    assert verdicts(done) == [("tls", "issued"), ("other", "unchanged")]
    assert actions(done) == {"web": "unchanged", "db": "recreated"}
    assert done.services["db"].reasons == ["file tls/tls.crt changed", "file tls/tls.key changed"]
    assert pair(world, "other") == untouched
    done = certify(world, certificate("new"), certificate("new", dest="other", services=[], reloads=["web"]))
    assert actions(done) == {"web": "reloaded", "db": "unchanged"}


def test_another_bundle_makes_no_new_key_and_another_authority_does(world: World) -> None:
    certify(world, certificate())
    before = pair(world)
    done = certify(world, certificate(bundle="CA 1\nCA 2\n"))
    assert (verdicts(done), done.files["changed"], pair(world)) == ([("tls", "unchanged")], ["tls/ca.crt", "compose.yml"], before)
    assert actions(done)["db"] == "recreated"
    assert not certify(world, certificate(bundle="CA 1\nCA 2\n")).changed
    done = certify(world, certificate(bundle="CA 2\nCA 1\n", signer="s2"))
    assert done.certificates[0]["reason"] == "another authority signs"
    assert pair(world) != before


def test_another_usage_makes_a_new_key_once(world: World) -> None:
    """As with a record of a release that knew one usage."""
    certify(world, certificate())
    before = pair(world)
    manifest = json.loads(world.read()[".berth.json"])
    del manifest["certificates"]["tls"]["usage"]
    (world.directory / ".berth.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    assert verdicts(certify(world, certificate())) == [("tls", "unchanged")]
    done = certify(world, certificate(usage="server"))
    assert (done.certificates[0]["action"], done.certificates[0]["reason"]) == ("issued", "usage changed from both to server")
    assert pair(world) != before
    assert actions(done) == {"web": "unchanged", "db": "recreated"}
    assert not certify(world, certificate(usage="server")).changed


def test_a_certificate_is_renewed_in_time(world: World) -> None:
    certify(world, certificate(services=[], reloads=["db"]))
    before = pair(world)
    assert not certify(world, certificate(services=[], reloads=["db"]), now=NOW + 59 * DAY).changed
    predicted = certify(world, certificate(services=[], reloads=["db"]), now=NOW + 60 * DAY, check=True)
    assert pair(world) == before
    done = certify(world, certificate(services=[], reloads=["db"]), now=NOW + 60 * DAY)
    assert predicted == done
    assert (verdicts(done), actions(done)) == ([("tls", "renewed")], {"web": "unchanged", "db": "reloaded"})
    assert pair(world) != before
    assert not certify(world, certificate(services=[], reloads=["db"]), now=NOW + 60 * DAY).changed


def test_another_owner_makes_no_new_key(world: World) -> None:
    certify(world, certificate())
    (world.directory / "tls/tls.key").chmod(0o644)
    (world.directory / "tls").chmod(0o755)
    before = pair(world)
    done = certify(world, certificate())
    assert (verdicts(done), done.files["changed"], pair(world)) == ([("tls", "unchanged")], ["tls/tls.key"], before)
    assert (world.directory / "tls/tls.key").stat().st_mode & 0o777 == 0o400
    assert (world.directory / "tls").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("damage", ["tls.crt", "tls.key", "both", "directory", "swapped"])
def test_what_was_damaged_on_the_host_is_issued_again(world: World, damage: str) -> None:
    certify(world, certificate(), certificate(dest="other"))
    tls, before = world.directory / "tls", pair(world)
    if damage == "directory":
        for file in tls.iterdir():
            file.unlink()
        tls.rmdir()
    elif damage == "both":
        (tls / "tls.crt").unlink()
        (tls / "tls.key").unlink()
    elif damage == "swapped":
        (tls / "tls.key").chmod(0o600)
        (tls / "tls.key").write_bytes((world.directory / "other/tls.key").read_bytes())
    else:
        (tls / damage).chmod(0o600)
        (tls / damage).write_text("edited")
    done = certify(world, certificate(), certificate(dest="other"))
    assert verdicts(done) == [("tls", "issued"), ("other", "unchanged")]
    assert len(set(pair(world))) == 1
    assert pair(world) != before
    assert world.containers["db"].loaded["tls/tls.key"] == world.read()["tls/tls.key"]
    assert not certify(world, certificate(), certificate(dest="other")).changed


def test_a_certificate_that_is_no_longer_wanted_goes(world: World) -> None:
    certify(world, certificate(), certificate(dest="other", services=["web"]))
    done = certify(world, certificate())
    assert done.files["removed"] == ["other/ca.crt", "other/tls.crt", "other/tls.key"]
    assert actions(done) == {"web": "recreated", "db": "unchanged"}
    assert not (world.directory / "other").exists()
    assert set(json.loads(world.read()[".berth.json"])["certificates"]) == {"tls"}
    gone = run(world, {}, state="absent")
    assert {"tls/ca.crt", "tls/tls.crt", "tls/tls.key"} < set(gone.files["removed"])
    assert not world.directory.exists()


@pytest.mark.parametrize("change", ["first", "names", "renewal", "authority", "removal"])
def test_a_run_killed_at_any_step_leaves_no_pair_that_does_not_match(killable: World, change: str, tmp_path: Path) -> None:
    for step in itertools.count():
        world = killable
        world.__init__(tmp_path / str(step) / "p")  # type: ignore[misc]
        first = [certificate(), certificate(dest="live", services=[], reloads=["web"])]
        if change != "first":
            certify(world, *first)
        wanted, now = first, NOW
        if change == "names":
            wanted = [certificate("new"), certificate("new", dest="live", services=[], reloads=["web"])]
        elif change == "authority":
            again = {"signer": "s2", "bundle": "CA 2\n"}
            wanted = [certificate(**again), certificate(dest="live", services=[], reloads=["web"], **again)]
        elif change == "renewal":
            now += 80 * DAY
        elif change == "removal":
            wanted = first[1:]
        world.kill_at, world.steps = step, 0
        try:
            certify(world, *wanted, now=now)
        except Killed:
            world.kill_at = None
            certify(world, *wanted, now=now)
            on_disk = world.read()
            for item in wanted:
                assert len(set(pair(world, item.dest))) == 1, f"killed at step {step}: {item.dest} has two halves"
                for name in ("ca.crt", "tls.crt", "tls.key"):
                    loaded = world.containers["db" if item.dest == "tls" else "web"].loaded
                    assert loaded[f"{item.dest}/{name}"] == on_disk[f"{item.dest}/{name}"], f"killed at step {step}"
            assert len(list(world.directory.rglob("tls.*"))) == 2 * len(wanted)
            last = certify(world, *wanted, now=now)
            assert not last.changed, f"killed at step {step}, repaired, and then: {last}"
        else:
            break
    assert step >= 4, "the scenario must have steps to be killed at"


def test_certificates_in_other_states(world: World) -> None:
    assert verdicts(certify(world, certificate(), state="stopped")) == [("tls", "issued")]
    assert world.containers == {}
    prepared = certify(world, certificate(), state="prepared")
    assert (verdicts(prepared), actions(prepared)["db"]) == ([("tls", "unchanged")], "created")
    certify(world, certificate())
    renewed = certify(world, certificate(), state="prepared", now=NOW + 80 * DAY)
    assert (verdicts(renewed), actions(renewed)["db"]) == ([("tls", "renewed")], "recreated")
    assert actions(certify(world, certificate(), now=NOW + 80 * DAY))["db"] == "recreated", "what is owed does not get forgotten"


def test_what_another_run_has_issued_meanwhile_is_kept(world: World) -> None:
    late = issue(certificate(), NOW)
    certify(world, certificate())
    before = world.read()
    outcome = run(world, certificates=(late,), now=NOW)
    assert (outcome.changed, world.read()) == (False, before)


def test_a_diff_of_a_certificate_shows_names_and_dates_and_never_a_key(world: World) -> None:
    certify(world, certificate())
    key = world.read()["tls/tls.key"].decode()
    outcomes = [certify(world, certificate("etcd"), check=check) for check in (True, False)]
    for outcome in outcomes:
        shown = {Path(entry["after_header"]).name: (entry["before"], entry["after"]) for entry in outcome.diff}
        dates = "valid: 2027-01-15T07:55:00Z to 2027-04-15T08:00:00Z\nsigned by: s1\n"
        assert shown["tls.crt"] == (
            f"common name: vm1\nnames: vm1\nusage: both\n{dates}",
            f"common name: vm1\nnames: etcd, vm1\nusage: both\n{dates}",
        )
        assert shown["tls.key"] == ("(sensitive)\n", "(sensitive, changed)\n")
        text = repr(outcome.to_dict())
        assert key not in text and world.read()["tls/tls.key"].decode() not in text


def test_keys_are_hidden_in_what_containers_say(world: World) -> None:
    secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
    leaf = Leaf("certificate\n", f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n", NOW, NOW + 90 * DAY)
    for _run in ("issued", "kept"):
        project = Project(
            request(world, certificates=(dataclasses.replace(certificate(), leaf=leaf),), now=NOW), cast(DockerClient, world), False
        )
        project.run()
        assert project.engine._masked(f"bad key {secret}") == "bad key ********"


def test_a_manifest_from_before_there_were_certificates_is_good(world: World) -> None:
    run(world, DEFINITION, BEFORE)
    old = {name: value for name, value in json.loads(world.read()[".berth.json"]).items() if name != "certificates"}
    (world.directory / ".berth.json").write_text(json.dumps(old, indent=1, sort_keys=True) + "\n")
    assert not run(world, DEFINITION, BEFORE).changed
    assert verdicts(certify(world, certificate(), listed=BEFORE)) == [("tls", "issued")]


def test_a_damaged_record_is_named(world: World) -> None:
    certify(world, certificate())
    manifest = json.loads(world.read()[".berth.json"])
    for damaged in ([], {"tls": {}}, {"tls": {**manifest["certificates"]["tls"], "names": None}}):
        (world.directory / ".berth.json").write_text(json.dumps({**manifest, "certificates": damaged}))
        with pytest.raises(HostError, match=r"\.berth\.json is damaged"):
            certify(world, certificate())


# --- other states -------------------------------------------------------------------------------------------------------


def test_first_run_stop_start_remove(world: World, tmp_path: Path) -> None:
    data = DataDirectory(str(tmp_path / "data"), UID, GID, 0o700)
    first = run(world, DEFINITION, BEFORE, directories=(data,))
    assert actions(first) == {"web": "created", "db": "created"}
    assert first.directories == [data.path]
    assert [plan.reasons for plan in first.services.values()] == [["no container yet"]] * 2
    expect_converged(world, DEFINITION, BEFORE)
    assert actions(run(world, DEFINITION, BEFORE, state="stopped")) == {"web": "stopped", "db": "stopped"}
    assert not run(world, DEFINITION, BEFORE, state="stopped").changed
    assert actions(run(world, DEFINITION, AFTER, state="stopped")) == {"web": "unchanged", "db": "unchanged"}
    assert actions(run(world, DEFINITION, AFTER)) == {"web": "recreated", "db": "recreated"}
    expect_converged(world, DEFINITION, AFTER)
    (world.directory / "theirs").write_text("x")
    gone = run(world, {}, state="absent")
    assert actions(gone) == {"web": "removed", "db": "removed"}
    assert gone.networks == ["p_default"]
    assert gone.warnings == [f"{world.directory} stays, because it holds what this collection did not write: theirs"]
    assert set(world.read()) == {"theirs"}
    assert Path(data.path).is_dir()
    assert not run(world, {}, state="absent").changed


def test_a_service_that_fails_is_an_error_with_the_whole_result(world: World) -> None:
    run(world)
    world.containers["web"].health = "unhealthy"
    original = SimulatedEngine.restart
    try:
        SimulatedEngine.restart = lambda *_: None  # type: ignore[method-assign]
        result = host.execute(request(world), cast(DockerClient, world), check=False)
    finally:
        SimulatedEngine.restart = original  # type: ignore[method-assign]
    assert result["failed"]
    assert result["msg"] == "['web'] not well"
    assert result["services"]["web"] == {"action": "started", "reasons": ["was unhealthy: ill"]}
    assert result["changed"]


def test_a_changed_reload_command_is_remembered_without_a_change(world: World) -> None:
    run(world, DEFINITION, [managed("config/live", "1", reloads=["web"])])
    other = dataclasses.replace(managed("config/live", "1"), reloads=(Reload("web", ("other",)),))
    assert not run(world, DEFINITION, [other]).changed
    assert json.loads(world.read()[".berth.json"])["files"]["config/live"][0]["command"] == ["other"]


def test_sensitive_content_is_in_no_result(world: World) -> None:
    secret = "S3cret-canary"
    outcomes = [run(world, DEFINITION, [managed("secrets/s", secret + suffix, "db", sensitive=True)]) for suffix in ("", "x", "y")]
    text = repr([outcome.to_dict() for outcome in outcomes])
    assert secret not in text
    assert "(sensitive, changed)" in text
    everything_else = {dest: content for dest, content in world.read().items() if dest != "secrets/s"}
    assert secret.encode() not in b"".join(everything_else.values())
    assert (world.directory / "secrets").stat().st_mode & 0o777 == 0o750


def test_a_diff_shows_content_owner_and_mode(world: World) -> None:
    run(world, DEFINITION, [managed("config/a", "1\n", "web"), dataclasses.replace(managed("config/b", ""), content=b"\xff")])
    (world.directory / "config/a").chmod(0o600)
    outcome = run(world, DEFINITION, [managed("config/a", "2\n", "web"), dataclasses.replace(managed("config/b", ""), content=b"\xff\xff")])
    shown = {Path(entry["after_header"]).name: (entry["before"], entry["after"]) for entry in outcome.diff}
    assert shown["a"] == (f"# owner {UID}:{GID} mode 0600\n1\n", f"# owner {UID}:{GID} mode 0444\n2\n")
    assert shown["b"] == ("(1 bytes, not text)\n", "(2 bytes, not text)\n")
    assert set(shown) == {"a", "b"}, "compose.yml differs in its digests only, which nobody wants to read"


# --- refusals -----------------------------------------------------------------------------------------------------------


def test_a_missing_image_is_refused_before_anything_is_written(world: World) -> None:
    definition = {"services": {"web": {"image": "i:2"}, "tool": {"image": "i:3", "profiles": ["x"]}}}
    with pytest.raises(HostError, match=r"image i:2 \(service web\)\. Put it there"):
        run(world, definition)
    assert not world.directory.exists()
    predicted = run(world, definition, check=True)
    assert predicted.services["web"].reasons == ["image i:2 is not on this host yet", "no container yet"]
    world.images["i:2"] = "sha256:2"
    run(world, definition)
    del world.images["i:2"]
    predicted = run(world, definition, check=True)
    assert (predicted.services["web"].action, predicted.services["web"].reasons) == ("recreated", ["image i:2 is not on this host yet"])
    run(world, definition, state="stopped")


def test_a_refused_definition_leaves_the_old_one(world: World) -> None:
    run(world)
    before = world.read()["compose.yml"]
    with pytest.raises(HostError, match="Compose refuses"):
        run(world, {"services": {"web": {**WEB, "labels": {"x": "refused"}}, "db": DB}})
    assert world.read()["compose.yml"] == before
    assert not run(world).changed


def test_strangers_are_refused(world: World) -> None:
    world.directory.mkdir(parents=True)
    (world.directory / "compose.yml").write_text("services: {}")
    with pytest.raises(HostError, match=r"compose\.yml exists and was not written by this collection"):
        run(world)
    (world.directory / "compose.yml").unlink()
    world.containers["web"] = Simulated(1, {compose.COMPOSE_WORKING_DIR: "/home/x"})
    for state in ("present", "stopped", "absent"):
        with pytest.raises(HostError, match="that this collection did not make is already on this host, from /home/x: p-web-1"):
            run(world, state=state)


def test_a_damaged_manifest_is_named(world: World) -> None:
    run(world)
    (world.directory / ".berth.json").write_text("{}")
    with pytest.raises(HostError, match=r"\.berth\.json is damaged"):
        run(world)


def test_a_lost_key_recreates_everything_once(world: World) -> None:
    run(world, DEFINITION, BEFORE)
    (world.directory.parent / ".key").unlink()
    predicted = run(world, DEFINITION, BEFORE, check=True)
    assert not (world.directory.parent / ".key").exists()
    assert actions(predicted) == {"web": "recreated", "db": "recreated"}
    run(world, DEFINITION, BEFORE)
    assert not run(world, DEFINITION, BEFORE).changed


@pytest.fixture
def without_docker(world: World) -> Iterator[World]:
    world.down = True
    yield world


def test_without_docker_it_predicts_creation_and_fails_to_act(without_docker: World) -> None:
    definition = {**NEW_DEFINITION}
    predicted = run(without_docker, definition, BEFORE, check=True)
    assert set(actions(predicted).values()) == {"created"}
    assert predicted.networks == ["shared"]
    assert "Docker cannot be reached yet" in predicted.warnings[0]
    result = host.execute(request(without_docker), cast(DockerClient, without_docker), check=False)
    assert result["failed"]
    assert "apt-get install docker.io" in result["msg"]
    assert not run(without_docker, {}, state="absent").changed


def test_errors_of_the_daemon_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_reference: str) -> str:
        raise DockerError(500, "disk is full")

    monkeypatch.setattr(world, "image_id", broken)
    result = host.execute(request(world), cast(DockerClient, world), check=False)
    assert (result["failed"], result["msg"]) == (True, "disk is full")


def test_requests_survive_their_journey(world: World) -> None:
    listed = [managed("config/a", "é\0", "web"), managed("s/x", "1", reloads=["db"], sensitive=True)]
    wanted = (certificate(reloads=["web"]), issue(certificate("é", dest="b"), NOW))
    sent = request(world, DEFINITION, listed, directories=(DataDirectory("/x", 1, 2, 0o750),), holder="anna", certificates=wanted, now=NOW)
    assert Request.from_dict(json.loads(json.dumps(sent.to_dict()))) == sent
