# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images_build module decides to build."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _image_build, _images
from ansible_collections.berth.odoo.plugins.modules import images_build

ID = "sha256:" + "a" * 64
FILES = {
    "common/apt-install": (0o755, b"#!/bin/sh"),
    "odoo/Dockerfile": (0o644, b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG LANGUAGES=\n"),
    "traefik/Dockerfile": (0o644, b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG EXTRA_CA_CERTIFICATES\n"),
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build host with a base image, an authority of its own, and no settings in the environment."""
    for name in _images.ACCESS_ARGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_image_build, "base_image_id", lambda _base, may_pull: ID)
    monkeypatch.setattr(_image_build, "local_authorities", lambda: "PEM\n")


def params(**changes: Any) -> dict[str, Any]:
    defaults = {
        "names": ["odoo", "traefik"],
        "files": _image_build.pack_files(FILES),
        "base_image": "debian:trixie-slim",
        "build_args": {},
        "refresh": "",
        "addons": {},
    }
    return {**defaults, **changes}


def test_contexts_survive_the_way_to_the_host() -> None:
    assert _image_build.unpack_files(_image_build.pack_files(FILES)) == FILES


def test_an_image_sees_its_own_files_and_arguments_alone() -> None:
    odoo, traefik = images_build.plan(params(build_args={"LANGUAGES": "fr"}), may_pull=True)
    assert set(odoo.files) == {"common/apt-install", "odoo/Dockerfile"}
    assert odoo.args == {"LANGUAGES": "fr"}
    assert traefik.args == {"EXTRA_CA_CERTIFICATES": base64.b64encode(b"PEM\n").decode()}


def test_one_images_argument_does_not_rebuild_another() -> None:
    before = images_build.plan(params(), may_pull=True)
    after = images_build.plan(params(build_args={"LANGUAGES": "fr"}), may_pull=True)
    assert before[0].inputs != after[0].inputs
    assert before[1].inputs == after[1].inputs


def test_an_argument_of_an_image_that_is_not_built_today_is_accepted() -> None:
    (traefik,) = images_build.plan(params(names=["traefik"], build_args={"LANGUAGES": "fr"}), may_pull=True)
    assert "LANGUAGES" not in traefik.args


def test_what_a_person_gives_wins_over_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://machine:3128")
    (traefik,) = images_build.plan(params(names=["traefik"], build_args={"HTTP_PROXY": "http://mine:3128"}), may_pull=True)
    assert traefik.args["HTTP_PROXY"] == "http://mine:3128"


def test_more_authorities_than_an_argument_can_carry_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_image_build, "local_authorities", lambda: "x" * 100_000)
    with pytest.raises(_image_build.BuildError, match="more than a build argument takes; give the ones your package index needs"):
        images_build.plan(params(), may_pull=True)


@pytest.mark.parametrize(("there", "action"), [(ID, "unchanged"), (None, "built")])
def test_a_prediction_looks_for_an_image_of_the_same_inputs(monkeypatch: pytest.MonkeyPatch, there: str | None, action: str) -> None:
    (odoo,) = images_build.plan(params(names=["odoo"]), may_pull=False)
    monkeypatch.setattr(_image_build, "built", lambda _build: there)
    monkeypatch.setattr(_image_build, "reference_of", lambda _image, _name: "berth/odoo:19.0-x")
    assert images_build.predict(odoo)["action"] == action


ADDONS = {"modules": ["acme"], "requirements": "", "revision": "abc", "sha256": "e" * 64, "path": "/var/tmp/odoo-modules.tar"}
WITH_ADDONS = {
    **FILES,
    "odoo/contract.sh": (0o644, b"echo version=19.0"),
    "odoo_addons/Dockerfile": (0o644, b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG PIP_INDEX_URL\nARG EXTRA_CA_CERTIFICATES\n"),
}


def with_addons(**changes: Any) -> _image_build.Build:
    given = {**ADDONS, **{key: changes.pop(key) for key in list(changes) if key in ADDONS}}
    (build,) = images_build.plan(
        params(names=["odoo"], files=_image_build.pack_files(WITH_ADDONS), addons={"odoo": given}, **changes), may_pull=True
    )
    return build


def test_add_ons_are_laid_on_the_image_of_odoo_and_keep_its_contract() -> None:
    build = with_addons(build_args={"LANGUAGES": "fr"})
    (plain,) = images_build.plan(
        params(names=["odoo"], files=_image_build.pack_files(WITH_ADDONS), build_args={"LANGUAGES": "fr"}), may_pull=True
    )
    assert build.on == plain
    assert (build.name, build.directory, build.contract, build.modules) == ("odoo", "odoo_addons", "odoo", "/var/tmp/odoo-modules.tar")
    assert build.files["odoo/contract.sh"] == WITH_ADDONS["odoo/contract.sh"]
    assert build.files["odoo_addons/modules.txt"] == (0o644, b"acme\n")
    assert "LANGUAGES" not in build.args and "EXTRA_CA_CERTIFICATES" in build.args


@pytest.mark.parametrize(
    "change",
    [{"sha256": "f" * 64}, {"requirements": "x==1"}, {"build_args": {"LANGUAGES": "fr"}}, {"refresh": "2026-12"}, {"base_image": "other"}],
)
def test_whatever_decides_what_comes_out_is_an_input(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = with_addons().inputs
    monkeypatch.setattr(_image_build, "base_image_id", lambda base, may_pull: ID if base == "debian:trixie-slim" else "sha256:" + "9" * 64)
    assert with_addons(**change).inputs != before


@pytest.mark.parametrize("change", [{"revision": "def"}, {"path": ""}, {"build_args": {"PIP_INDEX_URL": "https://x"}}])
def test_where_things_come_from_is_no_input(change: dict[str, Any]) -> None:
    assert with_addons(**change).inputs == with_addons().inputs


def test_an_image_without_add_ons_is_what_it_was() -> None:
    (without,) = images_build.plan(params(names=["odoo"]), may_pull=True)
    assert (without.on, without.directory, without.contract) == (None, "odoo", "odoo")


def test_more_images_of_odoo_lie_on_one() -> None:
    given = {"odoo": ADDONS, "odoo-acme": {**ADDONS, "sha256": "f" * 64}}
    first, second = images_build.plan(
        params(names=["odoo", "odoo-acme"], files=_image_build.pack_files(WITH_ADDONS), addons=given), may_pull=True
    )
    assert first.on == second.on and first.inputs != second.inputs
    assert (second.name, second.contract) == ("odoo-acme", "odoo")
