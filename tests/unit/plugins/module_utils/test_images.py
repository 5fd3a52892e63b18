# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a host should have, and what is said about wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _images
from ansible_collections.berth.odoo.plugins.module_utils._images import ImageError, Wanted

ID = "sha256:" + "a" * 64
OTHER_ID = "sha256:" + "b" * 64
DIGEST = "registry.example.com/odoo@sha256:" + "c" * 64

ENTRY = {
    "id": ID,
    "reference": "berth/odoo:19.0-aaaaaaaaaaaa",
    "inputs": "d" * 64,
    "file": "odoo.tar",
    "sha256": "e" * 64,
    "version": "19.0",
}


@pytest.mark.parametrize("name", ["Odoo", "../odoo", "odoo 19", "", "-odoo", "o" * 64, "odoo;reboot"])
def test_a_name_that_cannot_be_a_directory_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(ImageError, match="expected 1 to 63 of a-z"):
        _images.check_names([name])


def test_a_tag_is_refused_where_digests_are_required_and_the_message_says_what_to_type() -> None:
    with pytest.raises(ImageError) as caught:
        _images.wanted_from_references(["odoo"], {"odoo": "registry.example.com/odoo:19.0"}, require_digests=True, pulled=True)
    message = str(caught.value)
    assert "images_registry.odoo is 'registry.example.com/odoo:19.0'" in message
    assert "docker buildx imagetools inspect registry.example.com/odoo:19.0" in message


def test_every_wrong_reference_is_reported_at_once() -> None:
    with pytest.raises(ImageError) as caught:
        _images.wanted_from_references(["odoo", "redis", "etcd"], {"odoo": "odoo:19", "redis": ID}, require_digests=True, pulled=True)
    message = str(caught.value)
    assert "images_registry.odoo" in message
    assert "images_registry.redis" in message
    assert "no entry 'etcd'" in message


def test_a_tag_is_accepted_where_digests_are_not_required() -> None:
    assert _images.wanted_from_references(["odoo"], {"odoo": "odoo:19"}, require_digests=False, pulled=True) == [
        Wanted("odoo", "", "odoo:19")
    ]


@pytest.mark.parametrize(("pulled", "reference"), [(True, DIGEST), (False, DIGEST), (False, ID)])
def test_a_fixed_content_is_accepted_where_digests_are_required(pulled: bool, reference: str) -> None:
    (wanted,) = _images.wanted_from_references(["odoo"], {"odoo": reference}, require_digests=True, pulled=pulled)
    assert reference in (wanted.image_id, wanted.reference)


def test_a_manifest_survives_a_round_trip() -> None:
    images = _images.parse_manifest(_images.manifest_text({"odoo": ENTRY}), "manifest.json")
    assert _images.wanted_from_manifest(["odoo"], images, "manifest.json") == [Wanted("odoo", ID, "berth/odoo:19.0-aaaaaaaaaaaa")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is no manifest of images"),
        ("[]", "is no manifest of images"),
        ("{}", "is no manifest of images"),
        ('{"format": 1, "images": {"odoo": {}}}', "is no manifest of images"),
        ('{"format": 1, "images": {"odoo": {"id": "odoo:19"}}}', "'odoo:19' is no image id"),
        ('{"format": 2, "images": {}}', "has format 2, this version of the collection reads format 1"),
    ],
)
def test_a_broken_manifest_is_named(text: str, expected: str) -> None:
    with pytest.raises(ImageError, match=r"/srv/manifest\.json") as caught:
        _images.parse_manifest(text, "/srv/manifest.json")
    assert expected in str(caught.value)


def test_an_image_that_was_not_built_is_reported_with_the_command() -> None:
    with pytest.raises(ImageError) as caught:
        _images.wanted_from_manifest(["odoo", "redis"], {"odoo": ENTRY}, "manifest.json")
    assert str(caught.value) == (
        "manifest.json has no image redis (it has odoo);"
        """ build with: ansible-playbook -i <inventory> berth.odoo.images -e '{"images_names": ["redis"]}'"""
    )


def test_an_image_with_a_known_id_is_not_taken_by_its_tag() -> None:
    listed = [{"Id": OTHER_ID, "RepoTags": ["berth/odoo:19.0"], "RepoDigests": None}]
    assert _images.present_ids([Wanted("odoo", ID, "berth/odoo:19.0")], listed) == {}
    assert _images.present_ids([Wanted("odoo", "", "berth/odoo:19.0")], listed) == {"odoo": OTHER_ID}


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        ("debian", "debian:latest"),
        ("docker.io/library/debian:trixie", "debian:trixie"),
        ("registry.example.com:5000/odoo", "registry.example.com:5000/odoo:latest"),
        ("registry.example.com:5000/odoo:19@sha256:" + "c" * 64, "registry.example.com:5000/odoo@sha256:" + "c" * 64),
        ("docker.io/acme/odoo@sha256:" + "c" * 64, "acme/odoo@sha256:" + "c" * 64),
    ],
)
def test_a_reference_is_found_under_the_name_the_engine_gives_it(wanted: str, listed: str) -> None:
    tags, digests = ([], [listed]) if "@" in listed else ([listed], [])
    assert _images.present_ids([Wanted("x", "", wanted)], [{"Id": ID, "RepoTags": tags, "RepoDigests": digests}]) == {"x": ID}


FILES = {"odoo/Dockerfile": (0o644, b"FROM x"), "common/apt-install": (0o755, b"#!/bin/sh")}


def test_the_inputs_hash_ignores_how_sources_are_reached_and_who_can_read_the_files() -> None:
    plain = _images.inputs_hash(FILES, ID, {}, "")
    assert plain == _images.inputs_hash(FILES, ID, {"PIP_INDEX_URL": "https://x", "http_proxy": "y", "LANGUAGES": ""}, "")
    assert plain == _images.inputs_hash({**FILES, "odoo/Dockerfile": (0o600, b"FROM x")}, ID, {}, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ({**FILES, "odoo/Dockerfile": (0o644, b"FROM y")}, ID, {}, ""),
        ({**FILES, "odoo/more": (0o644, b"")}, ID, {}, ""),
        ({**FILES, "common/apt-install": (0o644, b"#!/bin/sh")}, ID, {}, ""),
        (FILES, OTHER_ID, {}, ""),
        (FILES, ID, {"LANGUAGES": "fr"}, ""),
        (FILES, ID, {}, "2026-11"),
    ],
)
def test_the_inputs_hash_changes_with_anything_that_decides_the_result(arguments: tuple) -> None:
    assert _images.inputs_hash(*arguments) != _images.inputs_hash(FILES, ID, {}, "")


@given(st.text(max_size=40), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_tag_is_always_one_docker_accepts(version: str, inputs: str) -> None:
    assert _images.NOT_IN_TAG.search(_images.tag(version, inputs)) is None
    assert _images.tag(version, inputs)[0] not in ".-"


def test_the_contract_needs_a_version() -> None:
    assert _images.parse_contract("noise\nversion=19.0\nuser = 1\n", "odoo") == {"version": "19.0", "user": "1"}
    with pytest.raises(ImageError, match="printed no version= line"):
        _images.parse_contract("user=1\n", "odoo")


GIB = 1 << 30


def test_needs_on_one_disk_add_up() -> None:
    places = [("archives", "/var/tmp", 7, 3 * GIB, GIB), ("images", "/var/lib/docker", 7, 3 * GIB, 2 * GIB)]
    with pytest.raises(ImageError) as caught:
        _images.check_disk("app1", places)
    assert (
        "not enough disk on app1: /var/tmp (archives) and /var/lib/docker (images) need 3.0 GiB and 0.5 GiB to spare, 3.0 GiB free."
        in str(caught.value)
    )
    _images.check_disk("app1", [places[0], ("images", "/var/lib/docker", 8, 3 * GIB, 2 * GIB)])


def test_a_disk_that_needs_nothing_is_not_judged() -> None:
    _images.check_disk("app1", [("archives", "/var/tmp", 1, 0, 0)])


DAY = 24 * 3600
NOW = 100 * DAY


def image(name: str, tag: str, age_days: int, base: str = "", labels: dict[str, str] | None = None) -> dict[str, object]:
    own = {_images.INPUTS_LABEL: "x", **({_images.BASE_LABEL: base} if base else {})}
    return {
        "Id": f"sha256:{name}-{tag}",
        "RepoTags": [f"berth/{name}:{tag}"],
        "Created": NOW - age_days * DAY,
        "Labels": own if labels is None else labels,
    }


def test_the_newest_three_of_a_name_stay_and_older_ones_go() -> None:
    listed = [image("odoo", str(age), age) for age in (10, 20, 30, 40, 50)] + [image("redis", "x", 90)]
    assert _images.superseded(listed, [], NOW) == {
        "sha256:odoo-40": ["berth/odoo:40"],
        "sha256:odoo-50": ["berth/odoo:50"],
    }


def test_what_is_wanted_young_or_below_a_kept_one_stays() -> None:
    listed = [image("odoo", str(age), age, base="sha256:odoo-80") for age in (1, 2, 3, 4, 5, 60, 70)] + [image("odoo", "80", 80)]
    assert set(_images.superseded(listed, ["sha256:odoo-60"], NOW)) == {"sha256:odoo-70"}


def test_images_of_others_and_without_a_name_are_left_alone() -> None:
    foreign = [image("odoo", str(age), age, labels={}) for age in (10, 20, 30, 40)]
    nameless = [{**image("odoo", str(age), age), "RepoTags": None} for age in (50, 60, 70, 80)]
    unlabelled = [{**image("odoo", "90", 90), "Labels": None}]
    assert _images.superseded([*foreign, *nameless, *unlabelled], [], NOW) == {}
