# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds: what goes in, and what is said when it does not come out. The docker command is a script of the test's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ansible_collections.berth.odoo.plugins.module_utils import _image_build, _images
from ansible_collections.berth.odoo.plugins.module_utils._image_build import Build, BuildError

REPOSITORY = Path(__file__).parents[4]
CONTEXTS = REPOSITORY / "roles/images/files"
ID = "sha256:" + "a" * 64
IMAGES = sorted(path.parent.name for path in CONTEXTS.glob("*/Dockerfile"))
# Laid on another image, whose contract it keeps.
CONTRACTS = {"odoo_addons": "odoo"}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker command on the path that writes its arguments to a log; the file `answers` is shell code."""
    command = tmp_path / "bin/docker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/log\n. {tmp_path}/answers\n')
    command.chmod(0o755)
    (tmp_path / "answers").write_text("exit 0\n")
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    return tmp_path


def example(**changes: object) -> Build:
    files = {"redis/Dockerfile": (0o644, b"FROM x"), "redis/contract.sh": (0o644, b"echo version=8")}
    return Build("redis", files, {"X": "a b"}, "debian:trixie-slim", ID, "d" * 64)._replace(**changes)


def test_an_image_gets_its_name_only_after_its_contract(docker: Path) -> None:
    (docker / "answers").write_text('[ "$1" != run ] || echo version=8.0.2\n')
    reference, facts = _image_build.build_image(example())
    assert (reference, facts) == ("berth/redis:8.0.2-dddddddddddd", {"version": "8.0.2"})
    build, run, label, remove = (docker / "log").read_text().splitlines()
    assert "--build-arg X=a b --build-arg BASE_IMAGE=debian:trixie-slim" in build
    assert "--network none --read-only" in run and "--cap-drop ALL" in run
    assert "--label berth.inputs=" + "d" * 64 in label and "--tag berth/redis:8.0.2-dddddddddddd" in label
    assert re.fullmatch(r"rmi berth/redis:build-dddddddddddd-[0-9a-f]{8}", remove)


def test_a_broken_contract_ends_in_its_own_words_and_gives_no_name(docker: Path) -> None:
    (docker / "answers").write_text('if [ "$1" = run ]; then echo "user is root" >&2; exit 1; fi\n')
    with pytest.raises(BuildError, match="image redis was built and does not keep its contract: docker run failed: user is root"):
        _image_build.build_image(example())
    assert "--label" not in (docker / "log").read_text()


def test_a_failed_build_shows_its_last_lines_without_colours(docker: Path) -> None:
    (docker / "answers").write_text(
        "for i in $(seq 100); do echo line $i >&2; done; printf '\\033[91mE: no such package\\033[0m\\n' >&2; exit 100\n"
    )
    with pytest.raises(BuildError) as caught:
        _image_build.build_image(example())
    message = str(caught.value)
    assert message.startswith("image redis could not be built: docker build failed: line 77\n")
    assert message.endswith("line 100\nE: no such package")


def test_what_a_step_says_is_shown_where_the_classic_builder_writes_it(docker: Path) -> None:
    (docker / "answers").write_text(
        "printf 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\\n'; printf 'DEPRECATED: The legacy builder is deprecated and will be removed\\n"
        "    Install the buildx component\\n   https://docs.docker.com/go/buildx/\\n\\nreturned a non-zero code: 1\\n' >&2; exit 1\n"
    )
    with pytest.raises(BuildError) as caught:
        _image_build.build_image(example())
    assert str(caught.value) == (
        "image redis could not be built: docker build failed: ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\nreturned a non-zero code: 1"
    )


def test_a_base_image_that_is_nowhere_is_explained(docker: Path) -> None:
    (docker / "answers").write_text(
        'if [ "$1" = image ]; then echo "Error: No such image: x" >&2; else echo "no route to host" >&2; fi; exit 1\n'
    )
    with pytest.raises(BuildError) as caught:
        _image_build.base_image_id("debian:trixie-slim", may_pull=True)
    assert "base image debian:trixie-slim is not on this build host and cannot be pulled (docker pull failed: no route to host)" in str(
        caught.value
    )
    assert "mmdebstrap --variant=minbase trixie | docker import - berth/base:trixie" in str(caught.value)
    assert _image_build.base_image_id("debian:trixie-slim", may_pull=False) is None


def test_a_missing_docker_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="apt-get install docker"):
        _image_build.docker(["info"])


def test_an_image_of_the_same_inputs_is_not_built_again(docker: Path) -> None:
    (docker / "answers").write_text(
        f'case "$1 $2" in "image ls") echo {ID};; "image inspect") echo berth/redis:8.0.2-dddddddddddd;; run*) echo version=8.0.2;; *) exit 1;; esac\n'
    )
    assert _image_build.ensure_built(example()) == ("berth/redis:8.0.2-dddddddddddd", {"version": "8.0.2"}, False)


def test_a_mistyped_build_argument_gets_the_nearest() -> None:
    with pytest.raises(BuildError, match="no Dockerfile has a build argument 'LANGUAGE': did you mean LANGUAGES"):
        _image_build.check_args({"LANGUAGE": "fr"}, {"LANGUAGES", "BASE_IMAGE"})
    with pytest.raises(BuildError, match="images_base_image"):
        _image_build.check_args({"BASE_IMAGE": "x"}, {"BASE_IMAGE"})
    _image_build.check_args({"LANGUAGES": "fr", "PIP_INDEX_URL": "https://x"}, {"LANGUAGES"})


def test_an_image_without_a_dockerfile_is_refused_with_those_that_exist() -> None:
    with pytest.raises(BuildError, match="no Dockerfile for an image 'oddo'; there are odoo"):
        _image_build.context_of("oddo", {"odoo/Dockerfile": (0o644, b""), "common/x": (0o644, b"")})


def test_only_certificates_that_are_text_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    (tmp_path / "a.crt").write_text(pem)
    (tmp_path / "twice.crt").write_text(pem + "\n\n")
    (tmp_path / "b.crt").write_bytes(b"\x30\x82\x01")
    (tmp_path / "notes.txt").write_text(pem)
    monkeypatch.setattr(_image_build, "LOCAL_AUTHORITIES", (str(tmp_path), str(tmp_path / "none")))
    assert _image_build.local_authorities() == pem + "\n"


def test_the_images_of_the_platform_are_all_there() -> None:
    assert set(IMAGES) == {"odoo", "odoo_addons", "postgresql", "etcd", "haproxy", "pgbouncer", "pgupgrade", "redis", "traefik"}


@pytest.mark.parametrize("name", IMAGES)
def test_a_dockerfile_builds_with_every_builder_from_one_base(name: str) -> None:
    text = (CONTEXTS / name / "Dockerfile").read_text()
    instructions = re.findall(r"^([A-Z]+) ", text, re.MULTILINE)
    assert "BASE_IMAGE" in _image_build.declared_args(text.encode())
    assert {line for line in text.splitlines() if line.startswith("FROM")} <= {"FROM ${BASE_IMAGE}", "FROM ${BASE_IMAGE} AS fetch"}
    assert "--mount" not in text and "<<" not in text, "the classic builder knows neither"
    assert "VOLUME" not in instructions, "data goes where the role mounts it, not into an anonymous volume"
    assert re.search(r"^ENTRYPOINT \[\]\nCMD \[", text, re.MULTILINE)
    user = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)[-1]
    assert user[0] == user[1]
    assert f"{user[0]}:{user[0]}" in (CONTEXTS / CONTRACTS.get(name, name) / "contract.sh").read_text()
    copied = re.findall(r"^(?:COPY|ADD) (?!--from)(.+) \S+$", text, re.MULTILINE)
    written = {"odoo_addons/needs.txt", "odoo_addons/requirements.txt", "odoo_addons/modules.txt", _image_build.MODULES_TAR}
    for path in set(" ".join(copied).split()) - written:
        assert (CONTEXTS / path).exists() and path.split("/")[0] in ("common", name)


def test_no_dockerfile_names_a_package_mirror() -> None:
    for path in CONTEXTS.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            # A licence is named by its address.
            text = path.read_text().replace("https://www.gnu.org/licenses/", "")
            assert not re.search(r"https?://", text), f"{path} names a host; sources come from the base image"


def test_every_downloaded_file_is_pinned_by_hash() -> None:
    for requirements in CONTEXTS.rglob("requirements*.txt"):
        text = requirements.read_text()
        assert len(re.findall(r"^\S+==", text, re.MULTILINE)) <= len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text))


def test_build_arguments_that_reach_sources_are_not_inputs() -> None:
    declared = set().union(*(_image_build.declared_args((CONTEXTS / name / "Dockerfile").read_bytes()) for name in IMAGES))
    assert declared - {"BASE_IMAGE", "LANGUAGES", "EXTRA_PACKAGES"} <= _images.ACCESS_ARGS


def laid_on(modules: str) -> Build:
    below = example(name="odoo", files={"odoo/Dockerfile": (0o644, b"FROM x"), "odoo/contract.sh": (0o644, b"true")})
    files = {
        "odoo_addons/Dockerfile": (0o644, b"FROM x"),
        "odoo/contract.sh": (0o644, b"echo sh"),
        "odoo/contract.py": (0o644, b"print(1)"),
    }
    return Build("odoo-acme", files, {}, "debian:trixie-slim", ID, "e" * 64, below, modules, "0a1b2c")


def test_add_ons_are_built_on_the_image_below_and_checked_with_its_contract(docker: Path, tmp_path: Path) -> None:
    modules = tmp_path / "modules.tar"
    modules.write_text("tar")
    (docker / "answers").write_text(
        f'case "$*" in "image ls"*) echo {ID};; *RepoTags*) echo berth/odoo:19.0-dddddddddddd;; *Size*) echo {ID} 1;;\n'
        f'build*/Dockerfile*) for c; do :; done; cp -r "$c" {tmp_path}/context;;\n'
        f"run*) cat > {tmp_path}/script; echo version=19.0;; esac\n"
    )
    reference, _facts = _image_build.build_image(laid_on(str(modules)))
    assert reference == "berth/odoo-acme:19.0-eeeeeeeeeeee"
    log = (docker / "log").read_text()
    assert "--build-arg BASE_IMAGE=berth/odoo:19.0-dddddddddddd" in log and "odoo_addons/Dockerfile" in log
    assert f"base.digest={ID}" in log and "org.opencontainers.image.revision=0a1b2c" in log
    assert (tmp_path / "context/odoo_addons/modules.tar").read_text() == "tar"
    assert (tmp_path / "script").read_text() == "echo sh\npython3 - <<'CONTRACT'\nprint(1)\nCONTRACT\n"


def test_what_a_failed_build_left_on_an_image_is_not_taken_for_it(docker: Path) -> None:
    (docker / "answers").write_text(
        f'case "$*" in "image ls"*) echo {ID}; echo sha256:{"b" * 64};; *{ID}) echo berth/redis:build-dddddddddddd-01234567;;\n'
        "*RepoTags*) echo berth/redis:8.0.2-dddddddddddd;; esac\n"
    )
    assert _image_build.built(example()) == "sha256:" + "b" * 64


def test_old_images_of_ours_go_and_one_in_use_is_left(docker: Path) -> None:
    listed = [
        {
            "Id": f"sha256:{n}",
            "RepoTags": [f"berth/redis:{n}"],
            "Config": {"Labels": {"berth.inputs": "x"}},
            "Created": f"2020-01-0{n}T00:00:00.123456789Z",
        }
        for n in range(1, 7)
    ]
    (docker / "listed").write_text(json.dumps(listed))
    (docker / "answers").write_text(
        f'case "$*" in "image ls"*) echo a;; "image inspect"*) cat {docker}/listed;;\n'
        '"image rm berth/redis:2") echo "conflict: unable to remove repository reference" >&2; exit 1;; "image rm"*) ;; *) exit 1;; esac\n'
    )
    assert _image_build.remove_superseded() == ["berth/redis:1", "berth/redis:3"]
