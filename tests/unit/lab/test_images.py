# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from berth_lab import images
from berth_lab.run import LabError


def test_hash_depends_on_names_and_contents() -> None:
    hashes = {
        images.inputs_hash(inputs)
        for inputs in ({"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"}, {"a": b"1b\x002"}, {"a": b"1", "b": b"2", "c": b""}, {})
    }
    assert len(hashes) == 5
    assert images.inputs_hash({"b": b"2", "a": b"1"}) == images.inputs_hash({"a": b"1", "b": b"2"})


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        ("Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm\n", "http://mirror.example/debian"),
        ("URIs: http://mirror.example/debian/\nSuites: trixie\n", "http://mirror.example/debian"),
        ("deb [signed-by=/k.gpg arch=amd64] https://mirror.example/debian trixie main\n", "https://mirror.example/debian"),
        ("# deb http://old.example/debian buster main\ndeb http://mirror.example/debian/ trixie main\n", "http://mirror.example/debian"),
        ("deb http://security.example/debian-security trixie-security main\n", ""),
        ("deb http://archive.example/ubuntu noble main\n", ""),
        ("deb cdrom:[Debian]/ trixie main\n", ""),
        ("", ""),
    ],
)
def test_mirror_out_of_apt_sources(sources: str, mirror: str) -> None:
    assert images.apt_mirror([sources]) == mirror


def test_first_file_that_names_a_mirror_wins() -> None:
    assert (
        images.apt_mirror(["", "deb http://one.example/debian trixie main\n", "URIs: http://two.example/debian\n"])
        == "http://one.example/debian"
    )


def test_site_files_of_an_open_network() -> None:
    assert images.site_files("", "", {}) == {"/etc/apt/apt.conf.d/90lab": b'Acquire::Languages "none";\n'}


def test_site_files_behind_a_proxy_with_an_own_mirror_and_authority() -> None:
    files = images.site_files("http://mirror.example/debian", "http://proxy.example:3128", {"corp.crt": b"PEM"})
    assert files["/usr/local/share/ca-certificates/corp.crt"] == b"PEM"
    assert b'Acquire::http::Proxy "http://proxy.example:3128";' in files["/etc/apt/apt.conf.d/90lab"]
    assert files["/etc/apt/sources.list"].decode().splitlines() == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]


def test_no_way_to_debian_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "image_exists", lambda reference: False)
    monkeypatch.setattr(images, "registry_answers", lambda reference: False)
    monkeypatch.setattr(images, "run", lambda argv, **options: "0\n")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(LabError) as refusal:
        images._make_debian("berth-lab/debian:x", "docker.io/library/debian:13@sha256:0", "", tmp_path)
    text = str(refusal.value)
    assert "the registry of docker.io/library/debian:13@sha256:0 does not answer; mmdebstrap is not installed" in text
    assert "sudo apt-get install mmdebstrap" in text
    assert "lab_base_image=" in text


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("docker.io/library/debian:13@sha256:0", "https://registry-1.docker.io/v2/"),
        ("library/debian:13@sha256:0", "https://registry-1.docker.io/v2/"),
        ("debian:13@sha256:0", "https://registry-1.docker.io/v2/"),
        ("registry.example:5000/debian@sha256:0", "https://registry.example:5000/v2/"),
        ("localhost:5000/debian@sha256:0", "https://localhost:5000/v2/"),
    ],
)
def test_registry_of_a_reference(reference: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(address: str, timeout: float) -> None:
        asked.append(address)
        raise OSError("closed network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert not images.registry_answers(reference)
    assert asked == [url]
