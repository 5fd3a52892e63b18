# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What compose_project decides. The fixtures were recorded from Docker 26.1.5 and Compose 2.26.1 on Debian 13."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _compose as compose
from ansible_collections.berth.odoo.plugins.module_utils._compose import Container, DefinitionError, ManagedFile, Reload

ANY = ".".join("0000")  # the address that means all of them
FIXTURES = Path(__file__).with_name("fixtures") / "compose"
INSPECTED = json.loads((FIXTURES / "inspect.json").read_text())
LISTED = json.loads((FIXTURES / "containers.json").read_text())
KEY = b"k" * 32


def stderr(name: str) -> str:
    return (FIXTURES / f"{name}.stderr").read_text()


def managed(dest: str, content: bytes = b"x", **options: Any) -> ManagedFile:
    given: dict[str, Any] = {"owner": 0, "group": 0, "mode": 0o444, "sensitive": False, "services": (), "reloads": (), **options}
    return ManagedFile(dest, content, **given)


# --- the definition -----------------------------------------------------------------------------------------------------


def test_merge_is_recursive_null_removes_lists_replace() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}
    assert compose.merge(base, {"a": {"b": None, "c": [3]}, "d": {"x": 1}, "e": 5, "n": {"m": {"o": 1, "p": None}}}) == {
        "a": {"c": [3]},
        "d": {"x": 1},
        "e": 5,
        "n": {"m": {"o": 1}},
    }
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
MAPPINGS = st.dictionaries(st.text(max_size=3), TREES, max_size=4)


@given(MAPPINGS)
def test_merging_nothing_changes_nothing(tree: dict[str, Any]) -> None:
    assert compose.merge(tree, {}) == tree


def test_notations_of_pairs_become_one() -> None:
    listed = compose.normalise({"services": {"a": {"image": "i", "environment": ["A=1", "B=x=y", "C"], "labels": ["l=1"]}}})
    mapped = compose.normalise({"services": {"a": {"image": "i", "environment": {"A": 1, "B": "x=y", "C": None}, "labels": {"l": 1}}}})
    assert listed == mapped
    assert listed["services"]["a"]["environment"] == {"A": "1", "B": "x=y", "C": None}
    assert compose.normalise({"services": {"a": {"environment": {"T": True}}}})["services"]["a"]["environment"] == {"T": "true"}


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ([], "definition must be a mapping"),
        ({"services": {}, "secrets": {}, "name": "x"}, "definition has name, secrets; only services"),
        ({"services": []}, "definition.services must be a mapping of names, not list"),
        ({"services": {"a": "x"}}, "definition.services.a must be a mapping, not str"),
    ],
)
def test_malformed_definitions_are_refused(definition: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message.replace(".", r"\.")):
        compose.normalise(definition)


def test_every_contradiction_is_reported_at_once() -> None:
    definition = {
        "services": {
            "built": {"build": "."},
            "named": {"image": "i", "labels": {"berth.hash": "x"}, "command": ["a", "b\0"]},
            "tool": {"image": "i", "profiles": ["x"]},
        }
    }
    files = [managed("a", services=("nobody",)), managed("b", reloads=(Reload("tool", ("x",)),))]
    with pytest.raises(DefinitionError) as caught:
        compose.check_definition(definition, files)
    assert str(caught.value).splitlines() == [
        "definition.services.built.image is missing: give the reference of an image that is on the host",
        "definition.services.built.build is not supported: images are built once, elsewhere; remove it and set image",
        "definition.services.named.labels sets berth.hash, which compose_project sets itself",
        "files: a names the service 'nobody', which the definition does not have",
        "files: b reloads the service 'tool', which has profiles and so is not running",
        "definition.services.named.command[1] contains a NUL character",
    ]
    with pytest.raises(DefinitionError, match="at least one service"):
        compose.check_definition({"services": {}}, [])
    compose.check_definition({"services": {}}, [managed("a")], files_alone=True)


@pytest.mark.parametrize(
    "dest",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        ".",
        "compose.yml",
        ".env",
        ".berth.json",
        "docker-compose.yml/x",
        "a\0b",
    ],
)
def test_files_stay_inside_the_project(dest: str) -> None:
    with pytest.raises(DefinitionError):
        compose.check_files([managed(dest)])


def test_file_lists_that_contradict_themselves() -> None:
    files = [
        managed("a"),
        managed("a"),
        managed("a/b"),
        managed("secret", sensitive=True),
        managed("s/1", sensitive=True, group=1),
        managed("s/2", sensitive=True, group=2),
    ]
    with pytest.raises(DefinitionError) as caught:
        compose.check_files(files)
    assert str(caught.value).splitlines() == [
        "files: dest 'a' is listed twice",
        "files: sensitive file 'secret' must be in a directory of its own, such as secrets/secret",
        "files: s/ holds sensitive files for the groups 1, 2; use one directory for each group",
        "files: 'a' is a file and also the directory of another file",
    ]
    compose.check_files([managed("a"), managed("s/1", sensitive=True, group=7), managed("s/2", sensitive=True, group=7)])


def test_networks() -> None:
    definition = {
        "services": {
            "a": {"networks": {"shared": {"aliases": ["x"]}, "own": None}},
            "b": {},
            "c": {"network_mode": "service:a"},
            "tool": {"networks": ["data"], "profiles": ["p"]},
        },
        "networks": {
            "shared": {"external": True, "name": "berth-app"},
            "own": {"internal": True},
            "data": {"external": True},
            "unused": {"external": True},
        },
    }
    assert compose.network_names(definition, "p") == {"data": "data", "default": "p_default", "own": "p_own", "shared": "berth-app"}
    assert compose.external_networks(definition, "p") == ["data", "berth-app"]
    hashes = compose.network_hashes(KEY, definition, "p")
    assert set(hashes) == {"p_default", "p_own"}
    definition["networks"]["own"] = {"internal": False}
    assert compose.network_hashes(KEY, definition, "p")["p_own"] != hashes["p_own"]


def test_mounted_directories() -> None:
    volumes = [
        "./config:/c:ro",
        "/opt/berth/p/secrets/a/:/s",
        "named:/n",
        "/var/lib:/v",
        {"type": "bind", "source": "./x/y", "target": "/t"},
    ]
    definition = {"services": {"a": {"volumes": volumes}, "b": {}}}
    assert compose.mounted_directories(definition, "/opt/berth/p") == {"config", "secrets/a", "x/y"}


# --- YAML ---------------------------------------------------------------------------------------------------------------

# Everything that UTF-8 can carry; a NUL is refused before.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20)


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_yaml_is_read_back_as_it_was(value: dict[str, Any]) -> None:
    assert yaml.safe_load(compose.to_yaml(value)) == value


WORDS = "yes No on null ~ 1 1.5 0x1f 1e3 1.0e-6 12:30 1_000 2026-01-01 .inf = << - *a &a !a @a `a %a true y".split()


@pytest.mark.parametrize("word", [*WORDS, "", " a", "a ", "a: b", "a #b", "a\nb", "a:", "- a", "{a}", "[a"])
def test_text_stays_text(word: str) -> None:
    assert yaml.safe_load(compose.to_yaml({"k": word, word: ["x"]})) == {"k": word, word: ["x"]}


def test_yaml_is_for_people() -> None:
    value = {"a": "plain", "image": "berth/redis:8.0.2-abc", "l": ["x", {"k": 1, "m": [1, 2]}, [[1], 2]], "e": {}, "f": [], "none": None}
    assert compose.to_yaml(value) == (
        "a: plain\nimage: berth/redis:8.0.2-abc\nl:\n  - x\n  - k: 1\n    m:\n      - 1\n      - 2\n"
        "  - - - 1\n    - 2\ne: {}\nf: []\nnone: null\n"
    )
    with pytest.raises(DefinitionError):
        compose.to_yaml({"a": float("inf")})


def test_every_dollar_is_doubled_in_values_only() -> None:
    assert compose.escape({"$k": ["$a", {"b": "${c:-d} $$"}], "n": 1}) == {"$k": ["$$a", {"b": "$${c:-d} $$$$"}], "n": 1}


def test_compose_file() -> None:
    definition = {
        "services": {"a": {"image": "i", "labels": {"own": "$x"}, "pull_policy": "always"}, "tool": {"image": "i", "profiles": ["p"]}},
        "networks": {"unused": {"external": True}},
        "volumes": {"v": None},
    }
    inputs = {"a": {"image": "12", "command": "34"}, "tool": {}}
    text = compose.compose_file("p", definition, inputs, {"a": "h1", "tool": "h2"}, {"p_default": "n1"})
    document = yaml.safe_load(text)
    assert document["name"] == "p"
    assert document["services"]["a"]["pull_policy"] == "never"
    labels = document["services"]["a"]["labels"]
    assert labels == {
        "own": "$$x",
        "berth.managed": "true",
        "berth.project": "p",
        "berth.hash": "h1",
        "berth.inputs": '{"command":"34","image":"12"}',
    }
    assert document["networks"] == {
        "default": {"labels": {"berth.managed": "true", "berth.project": "p", "berth.hash": "n1"}},
        "unused": {"external": True},
    }
    assert document["volumes"] == {"v": None}
    shown = compose.without_hashes(text)
    assert "berth.hash" not in shown
    assert "berth.inputs" not in shown
    assert yaml.safe_load(shown)["services"]["a"]["labels"]["berth.project"] == "p"


# --- digests ------------------------------------------------------------------------------------------------------------

DEFINITION: dict[str, Any] = {
    "services": {
        "a": {"image": "i:1", "environment": {"A": "1"}, "networks": ["own"], "volumes": ["data:/d", "./x:/x"]},
        "b": {"image": "i:1"},
    },
    "networks": {"own": {"internal": True}, "other": {}},
    "volumes": {"data": {"driver_opts": {"o": "size=1"}}, "other": None},
}
FILES = [managed("f", b"1", services=("a",)), managed("live", b"1", reloads=(Reload("a", ("x",)),)), managed("note", b"1")]


def inputs_of(
    name: str = "a", definition: Any = None, files: Any = None, image: str | None = "sha256:1", key: bytes = KEY, where: str = "/p"
) -> Any:
    return compose.service_inputs(key, where, name, definition or DEFINITION, FILES if files is None else files, image)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_each_input_has_its_own_digest() -> None:
    base = inputs_of()
    assert set(base) == {"project directory", "image", "environment", "networks", "volumes", "file f"}
    assert changed(base, inputs_of(definition=compose.merge(DEFINITION, {"services": {"a": {"environment": {"A": "2"}}}}))) == {
        "environment"
    }
    assert changed(base, inputs_of(definition=compose.merge(DEFINITION, {"services": {"a": {"init": True}}}))) == {"init"}
    assert changed(base, inputs_of(definition=compose.merge(DEFINITION, {"networks": {"own": {"internal": False}}}))) == {"networks"}
    assert changed(base, inputs_of(definition=compose.merge(DEFINITION, {"volumes": {"data": {"driver": "x"}}}))) == {"volumes"}
    assert changed(base, inputs_of(image="sha256:2")) == {"image"}
    assert changed(base, inputs_of(where="/elsewhere")) == {"project directory"}
    for change in ({"content": b"2"}, {"mode": 0o400}, {"owner": 1}, {"group": 1}):
        assert changed(base, inputs_of(files=[dataclasses.replace(FILES[0], **change)])) == {"file f"}
    assert changed(base, inputs_of(key=b"j" * 32)) == set(base)


def test_what_is_not_an_input_changes_nothing() -> None:
    base = inputs_of()
    unrelated = {"services": {"b": {"init": True}}, "networks": {"other": {"internal": True}}, "volumes": {"other": {"driver": "x"}}}
    assert inputs_of(definition=compose.merge(DEFINITION, unrelated)) == base
    assert inputs_of(files=[FILES[0], dataclasses.replace(FILES[1], content=b"2"), dataclasses.replace(FILES[2], content=b"2")]) == base
    reordered = {
        "services": {"a": dict(reversed(DEFINITION["services"]["a"].items()))},
        "networks": DEFINITION["networks"],
        "volumes": DEFINITION["volumes"],
    }
    assert inputs_of(definition=reordered) == base


def test_a_file_may_recreate_one_service_and_be_reloaded_by_another() -> None:
    both = managed("f", services=("a", "b"), reloads=(Reload("a", ("x",)),))
    assert "file f" not in inputs_of("a", files=[both])
    assert "file f" in inputs_of("b", files=[both])


@given(st.lists(st.binary(max_size=8), max_size=3), st.lists(st.binary(max_size=8), max_size=3))
def test_digests_do_not_run_parts_together(left: list[bytes], right: list[bytes]) -> None:
    assert (compose.digest(KEY, *left) == compose.digest(KEY, *right)) == (left == right)


def container(name: str = "a", **options: Any) -> Container:
    labels = {
        compose.LABEL_PROJECT: "p",
        compose.LABEL_HASH: "h",
        compose.LABEL_INPUTS: json.dumps({"image": "1", "environment": "2", "file f": "3"}),
    }
    given: dict[str, Any] = {
        "id": name,
        "name": f"p-{name}-1",
        "service": name,
        "state": "running",
        "health": "healthy",
        "exit_code": None,
        "image": "i:1",
        "labels": labels,
        "networks": frozenset(["p_default"]),
        **options,
    }
    return Container(**given)


@pytest.mark.parametrize(
    ("new", "image", "expected"),
    [
        ({"image": "1", "environment": "9", "file f": "3"}, "i:1", ["environment changed"]),
        ({"image": "9", "environment": "2", "file f": "3"}, "i:1", ["image i:1 has other content"]),
        ({"image": "9", "environment": "2", "file f": "3"}, "i:2", ["image changed from i:1 to i:2"]),
        ({"image": "1", "environment": "2", "init": "1"}, "i:1", ["file f removed", "init added"]),
        ({"image": "1", "environment": "2", "file f": "3"}, "i:1", ["the host's key changed"]),
    ],
)
def test_reasons(new: dict[str, str], image: str, expected: list[str]) -> None:
    assert compose.changed_inputs(container(), new, image) == expected


@pytest.mark.parametrize("label", ["", "{", "[]", "null"])
def test_an_unreadable_record_of_inputs_is_a_reason_and_no_error(label: str) -> None:
    broken = container(labels={compose.LABEL_INPUTS: label})
    assert compose.changed_inputs(broken, {"image": "1"}, "i:1") == ["its record of inputs is missing"]


# --- what runs and what to do -------------------------------------------------------------------------------------------


def test_containers_are_read_from_the_list() -> None:
    def seen(scenario: str) -> dict[str, tuple[str, str, int | None]]:
        return {item.name: (item.state, item.health, item.exit_code) for item in map(compose.parse_container, LISTED[scenario])}

    assert seen("dependency-unhealthy") == {
        "rec-web-1": ("created", "", None),
        "rec-db-1": ("running", "unhealthy", None),
        "rec-holder": ("running", "", None),
    }
    assert seen("dependency-exited")["rec-db-1"] == ("exited", "", 4)
    assert seen("loop")["rec-oom-1"] == ("exited", "", 137)
    assert seen("paused")["p1"] == ("paused", "", None)
    (db,) = [item for item in map(compose.parse_container, LISTED["dependency-exited"]) if item.name == "rec-db-1"]
    assert (db.service, db.networks, compose.is_oneoff(db)) == ("db", frozenset(["rec_default"]), False)
    assert compose.parse_container({"Id": "1", "Status": "Up 2 seconds (health: starting)"}).health == "starting"
    assert compose.parse_container({"Id": "1", "Status": "Restarting (7) 1 second ago"}).exit_code == 7


def test_foreign_containers() -> None:
    ours, theirs = container(), container("b", labels={})
    oneoff = container("c", labels={compose.COMPOSE_ONEOFF: "True"})
    assert compose.foreign_containers([ours, theirs, oneoff], "p") == [theirs]
    assert compose.foreign_containers([ours], "q") == [ours]


def plan(
    *containers: Container, services: dict[str, Any] | None = None, forced: dict[str, str] | None = None
) -> dict[str, tuple[str, str]]:
    services = services or {"a": {"image": "i:1"}}
    inputs = {name: {"image": "1", "environment": "2", "file f": "3"} for name in services}
    plans = compose.plan_services({"services": services}, "p", containers, inputs, dict.fromkeys(services, "h"), forced or {})
    return {name: (item.action, item.how) for name, item in plans.items()}


@pytest.mark.parametrize(
    ("state", "action", "how"),
    [
        ({}, "unchanged", "none"),
        ({"health": ""}, "unchanged", "none"),
        ({"health": "starting"}, "unchanged", "wait"),
        ({"health": "unhealthy"}, "started", "restart"),
        ({"state": "paused"}, "started", "unpause"),
        ({"state": "restarting", "exit_code": 1}, "started", "restart"),
        ({"state": "exited", "exit_code": 0}, "started", "up"),
        ({"state": "created"}, "started", "up"),
        ({"state": "dead"}, "recreated", "force"),
        ({"state": "removing"}, "created", "up"),
        ({"networks": frozenset()}, "recreated", "force"),
        ({"labels": {compose.LABEL_HASH: "old"}}, "recreated", "up"),
        ({"labels": {compose.LABEL_HASH: "old"}, "state": "exited", "exit_code": 1}, "recreated", "up"),
    ],
)
def test_what_is_done_about_a_container(state: dict[str, Any], action: str, how: str) -> None:
    assert plan(container(**state)) == {"a": (action, how)}


def test_missing_unwanted_and_forced_services() -> None:
    assert plan() == {"a": ("created", "up")}
    assert plan(container(), container("old")) == {"a": ("unchanged", "none"), "old": ("removed", "remove")}
    assert plan(container(), forced={"a": "x"}) == {"a": ("recreated", "force")}
    assert plan(container(labels={}), forced={"a": "x"}) == {"a": ("recreated", "up")}
    tool = {"a": {"image": "i:1"}, "tool": {"image": "i:1", "profiles": ["x"]}}
    assert plan(container(), services=tool) == {"a": ("unchanged", "none")}
    assert plan(container(), container("tool"), services=tool) == {"a": ("unchanged", "none")}


def test_several_containers_of_a_service() -> None:
    two = {"a": {"image": "i:1", "deploy": {"replicas": 2}}}
    assert plan(container(id="1"), services=two) == {"a": ("started", "up")}
    assert plan(container(id="1"), container(id="2"), services=two) == {"a": ("unchanged", "none")}
    assert plan(container(id="1"), container(id="2", health="unhealthy"), services=two) == {"a": ("started", "restart")}
    assert plan(services={"a": {"image": "i:1", "scale": 0}}) == {"a": ("unchanged", "none")}


def test_one_shot_services_may_have_ended_well() -> None:
    services = {
        "job": {"image": "i:1"},
        "a": {"image": "i:1", "depends_on": {"job": {"condition": "service_completed_successfully"}}},
    }
    ended = container("job", state="exited", health="", exit_code=0)
    assert plan(ended, container(), services=services)["job"] == ("unchanged", "none")
    failed = dataclasses.replace(ended, exit_code=1)
    assert plan(failed, container(), services=services)["job"] == ("started", "up")


def test_replacement_spreads_to_those_who_borrow_or_asked_for_it() -> None:
    services = {
        "db": {"image": "i:1"},
        "side": {"image": "i:1", "network_mode": "service:db"},
        "deeper": {"image": "i:1", "volumes_from": ["side:ro"]},
        "restarts": {"image": "i:1", "depends_on": {"db": {"condition": "service_healthy", "restart": True}}},
        "calm": {"image": "i:1", "depends_on": ["db"]},
    }
    others = [container("side", networks=frozenset()), container("deeper"), container("restarts"), container("calm")]
    assert plan(container("db", labels={}), *others, services=services) == {
        "db": ("recreated", "up"),
        "side": ("recreated", "force"),
        "deeper": ("recreated", "force"),
        "restarts": ("started", "restart"),
        "calm": ("unchanged", "none"),
    }
    assert {how for _action, how in plan(container("db"), *others, services=services).values()} == {"none"}


STATES = st.sampled_from(["running", "paused", "restarting", "exited", "created", "dead", "removing"])


@given(STATES, st.sampled_from(["", "healthy", "unhealthy", "starting"]), st.integers(0, 255), st.booleans())
def test_no_state_is_left_without_a_decision(state: str, health: str, code: int, outdated: bool) -> None:
    labels = {} if outdated else container().labels
    ((action, how),) = plan(container(state=state, health=health, exit_code=code, labels=labels)).values()
    well = state == "running" and health in ("", "healthy", "starting") and not outdated
    assert (action == "unchanged") == well
    assert (how in ("none", "wait")) == well


# --- waiting ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "verdict"),
    [
        ("success", "running"),
        ("dependency-unhealthy", "waiting"),
        ("dependency-unhealthy.web", "waiting"),
        ("dependency-exited", "failed"),
        ("port-container", "failed"),
        ("command-missing", "failed"),
        ("oom", "failed"),
        ("loop", "running"),
    ],
)
def test_verdicts_on_recorded_containers(scenario: str, verdict: str) -> None:
    assert compose.judge(INSPECTED[scenario], one_shot=False, looping=False) == verdict


def test_verdicts_on_special_cases() -> None:
    def state(**options: Any) -> dict[str, Any]:
        return {"State": options}

    assert compose.judge(INSPECTED["loop"], one_shot=False, looping=True) == "failed"
    assert compose.judge(state(Status="restarting", ExitCode=1), one_shot=False, looping=False) == "waiting"
    assert compose.judge(state(Status="restarting", ExitCode=1), one_shot=False, looping=True) == "failed"
    assert compose.judge(state(Status="exited", ExitCode=0), one_shot=True, looping=False) == "well"
    assert compose.judge(state(Status="exited", ExitCode=0), one_shot=False, looping=False) == "failed"
    assert compose.judge(state(Status="running", Health={"Status": "healthy"}), one_shot=False, looping=True) == "well"
    assert compose.judge(state(Status="running", Health={"Status": "healthy"}), one_shot=True, looping=False) == "waiting"
    assert compose.judge(state(Status="running", Health={"Status": "starting"}), one_shot=False, looping=False) == "waiting"
    for streak, verdict in ((3, "waiting"), (5, "waiting"), (6, "failed")):
        ill = state(Status="running", Health={"Status": "unhealthy", "FailingStreak": streak})
        assert compose.judge(ill, one_shot=False, looping=False) == verdict
        assert compose.judge(ill, one_shot=False, looping=True) == "failed"


@pytest.mark.parametrize(("text", "expected"), [("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("1.5s", 1.5), (5_000_000_000, 5), (None, 10)])
def test_durations(text: Any, expected: float) -> None:
    assert compose.seconds(text, 10) == pytest.approx(expected)


def test_a_start_period_extends_the_wait() -> None:
    check = {"StartPeriod": 60_000_000_000, "Interval": 5_000_000_000, "Timeout": 2_000_000_000}
    assert compose.health_allowance({"Config": {"Healthcheck": check}}) == 67
    assert compose.health_allowance({"Config": {"Healthcheck": {"Interval": 5_000_000_000}}}) == 0
    assert compose.health_allowance({"Config": {}}) == 0


# --- explaining failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("success", ""),
        ("unknown-key", "validating /tmp/rec/unknown-key.yml: services.web Additional property comand is not allowed"),
        ("wrong-type", "validating /tmp/rec/wrong-type.yml: services.web.ports must be a list"),
        ("undefined-network", 'service "web" refers to undefined network nope: invalid compose project'),
        ("external-missing", "network nope not found"),
        ("image-missing", "No such image: berth-test/nothing:1"),
        ("bad-mount", 'invalid mount config for type "bind": bind source path does not exist: /nonexistent/x'),
        ("command-missing", 'cannot start: exec: "/bin/nothing": stat /bin/nothing: no such file or directory'),
        ("dependency-unhealthy", "dependency failed to start: container rec-db-1 is unhealthy"),
        ("dependency-exited", 'service "db" didn\'t complete successfully: exit 4'),
    ],
)
def test_what_compose_complained_about(scenario: str, expected: str) -> None:
    assert compose.compose_error(stderr(scenario)) == expected


def test_progress_of_newer_releases_is_no_complaint() -> None:
    assert compose.compose_error(" Container rec-web-1 Starting \n Container rec-web-1 Started \n Network x  Created\n") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (stderr("port-container"), (ANY, 18080)),
        (stderr("port-process"), (ANY, 18081)),
        (INSPECTED["port-container"]["State"]["Error"], (ANY, 18080)),
        ("failed to bind host port for 10.0.0.1:443:172.17.0.2:443/tcp: address already in use", ("10.0.0.1", 443)),
        ("failed to bind host port 0.0.0.0:8080/tcp: address already in use", (ANY, 8080)),
        ("Bind for :::80 failed: port is already allocated", ("::", 80)),
        (stderr("address-missing"), None),
        ("", None),
    ],
)
def test_taken_ports(text: str, expected: tuple[str, int] | None) -> None:
    assert compose.taken_port(text) == expected


def test_published_address_that_the_host_does_not_have() -> None:
    assert compose.missing_address(stderr("address-missing")) == "192.0.2.7"
    assert compose.missing_address(stderr("port-process")) is None


@pytest.mark.parametrize(
    "text",
    [
        "docker: 'compose' is not a docker command.\nSee 'docker --help'",
        "docker: unknown command: docker compose\n\nRun 'docker --help' for more information",
        "unknown shorthand flag: 'p' in -p\nSee 'docker --help'.",
    ],
)
def test_a_missing_plugin_is_recognised(text: str) -> None:
    assert compose.compose_missing(text)
    assert not compose.compose_missing(stderr("image-missing"))


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("success", None),
        ("dependency-unhealthy", "is unhealthy: its health check ended with exit code 3: no answer on 5432"),
        ("dependency-unhealthy.web", None),
        ("dependency-exited", "exited with code 4"),
        ("command-missing", 'cannot start: exec: "/bin/nothing": stat /bin/nothing: no such file or directory'),
        ("oom", "was killed because it reached its memory limit (exit code 137)"),
        ("loop", "ends again and again, it was restarted 4 times"),
    ],
)
def test_why_a_container_failed(scenario: str, expected: str | None) -> None:
    assert compose.failure_reason(INSPECTED[scenario], one_shot=False) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Status": "exited", "ExitCode": 127}, "exited with code 127: the command was not found in the image"),
        ({"Status": "exited", "ExitCode": 126}, "exited with code 126: the command cannot be executed"),
        ({"Status": "exited", "ExitCode": 139}, "was ended by signal 11 (exit code 139)"),
        ({"Status": "exited", "ExitCode": 255}, "exited with code 255"),
        ({"Status": "restarting", "ExitCode": 1}, "exited with code 1 and was restarted 0 times"),
        ({"Status": "dead"}, "is dead"),
        ({"Status": "running", "Health": {"Status": "starting", "Log": []}}, "is not healthy yet: its health check has not run yet"),
        ({"Status": "running", "Health": {"Status": "starting", "Log": None}}, "is not healthy yet: its health check has not run yet"),
    ],
)
def test_why_other_containers_failed(state: dict[str, Any], expected: str) -> None:
    assert compose.failure_reason({"State": state}, one_shot=False) == expected


def test_a_one_shot_that_ended_well_did_not_fail() -> None:
    assert compose.failure_reason({"State": {"Status": "exited", "ExitCode": 0}}, one_shot=True) is None


def test_the_message_says_service_reason_and_last_words() -> None:
    failures = [{"service": "db", "reason": "exited with code 1", "log": ["a", "b"]}, {"service": "web", "reason": "is dead", "log": []}]
    assert compose.failure_message("p", failures, "compose said so", ["slow"]).splitlines() == [
        "project p: compose said so",
        "project p: service db exited with code 1",
        "its last log lines:",
        "    a",
        "    b",
        "project p: service web is dead",
        "it logged nothing",
        "not ready yet either: slow",
        "More: docker compose -p p logs",
    ]
    assert compose.failure_message("p", failures, "Error: exited with code 1").splitlines()[0] == "project p: service db exited with code 1"


@pytest.mark.parametrize(
    ("test", "expected"), [(["CMD", "a", "b"], ["a", "b"]), (["CMD-SHELL", "a | b"], ["/bin/sh", "-c", "a | b"]), (["NONE"], []), ([], [])]
)
def test_health_check_commands(test: list[str], expected: list[str]) -> None:
    assert compose.probe_command(test) == expected


def test_listening_sockets() -> None:
    assert compose.listening_inodes((FIXTURES / "proc-net-tcp").read_text(), 22) == {"143443"}
    assert compose.listening_inodes((FIXTURES / "proc-net-tcp6").read_text(), 22) == {"143451"}
    assert compose.listening_inodes((FIXTURES / "proc-net-tcp").read_text(), 58452) == set(), "a client's port is not listening"


# --- never showing secrets ----------------------------------------------------------------------------------------------


def test_secrets_are_hidden_and_the_rest_stays_readable() -> None:
    content = b"""[options]
db_host = localhost
db_port = 5432
data_dir = /var/lib/odoo
db_password = correcthorse
admin_passwd = "p a$s w:o=rd"
user odoo on >Xy7$k ~prefix:*
"""
    words = compose.secret_words([content])
    log = "odoo@localhost:5432 /var/lib/odoo: password correcthorse refused, p a$s w:o=rd and >Xy7$k too"
    assert compose.mask(log, words) == "odoo@localhost:5432 /var/lib/odoo: password ******** refused, ******** and ******** too"


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=4, max_size=30),
    st.sampled_from(["password = {}", "api_key: {}", "secret={}"]),
)
def test_no_secret_survives_masking(secret: str, line: str) -> None:
    content = line.format(secret)
    shown = secret.strip("\"'").removesuffix(",")
    if len(shown) >= compose.SHORTEST_SECRET and shown.strip("\"'") == shown:
        assert shown not in compose.mask(f"login with {shown} failed", compose.secret_words([content.encode()]))


@pytest.mark.parametrize("name", ["odoo-main", "redis", "a", "0_x", "a" * 63])
def test_project_names(name: str) -> None:
    assert compose.PROJECT_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a.b", "a b", "a/b", "../a", "a\n", "é", "a" * 64])
def test_names_that_are_no_project(name: str) -> None:
    assert not compose.PROJECT_NAME.fullmatch(name)


def test_joins_name_services_and_networks() -> None:
    definition = {"services": {"db": {"networks": {"data": {"aliases": ["primary"]}, "other": None}}, "web": {"networks": ["data"]}}}
    assert compose.joins(definition, {"db": ["net-a", "net-a"]}) == {"db": ("net-a",)}
    assert compose.joins(definition, None) == {}
    assert compose.aliases(definition, "db") == ["db", "primary"]
    assert compose.aliases(definition, "web") == ["web"]
    for wrong in ({"cache": ["net-a"]}, {"db": "net-a"}, {"db": ["net a"]}, {"db": {"net-a": None}}):
        with pytest.raises(compose.DefinitionError, match="joins"):
            compose.joins(definition, wrong)
