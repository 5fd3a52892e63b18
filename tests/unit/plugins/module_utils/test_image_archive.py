# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that docker load reads, on what the two formats of docker save look like."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.berth.odoo.plugins.module_utils import _image_archive
from ansible_collections.berth.odoo.plugins.module_utils._image_archive import ArchiveError, Layer

BASE, TOP = b"base layer " * 300_000, b"top layer"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config_of(*layers: bytes) -> bytes:
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}).encode()


def saved(members: dict[str, bytes], links: dict[str, str] | None = None) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    stream.seek(0)
    return stream


def docker_20() -> tuple[io.BytesIO, str]:
    """A directory a layer, a link for a layer that is there twice: docker save before version 25."""
    config = config_of(BASE, TOP, BASE)
    image_id = digest(config)
    manifest = [{"Config": f"{image_id[7:]}.json", "RepoTags": None, "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}]
    members = {"1/VERSION": b"1.0", "1/json": b"{}", "1/layer.tar": BASE, "2/layer.tar": TOP, f"{image_id[7:]}.json": config}
    return saved({**members, "manifest.json": json.dumps(manifest).encode()}, {"3/layer.tar": "../1/layer.tar"}), image_id


def docker_26() -> tuple[io.BytesIO, str]:
    """An OCI layout: docker save since version 25."""
    config = config_of(BASE, TOP)
    members = {f"blobs/sha256/{digest(data)[7:]}": data for data in (BASE, TOP, config)}
    return saved({**members, "index.json": b"{}", "oci-layout": b"{}"}), digest(config)


@pytest.fixture(params=["zstd", "gzip"])
def compression(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "gzip":
        monkeypatch.setattr(_image_archive, "zstd_command", lambda: None)
    elif _image_archive.zstd_command() is None:
        pytest.skip("the zstd command is not installed on this machine")
    return str(request.param)


@pytest.mark.parametrize("source", [docker_20, docker_26])
def test_an_archive_says_what_is_in_it_whatever_docker_wrote_it(source, compression: str, tmp_path: Path) -> None:
    stream, image_id = source()
    target = tmp_path / "odoo.tar"
    packed = _image_archive.pack(stream, image_id, "berth/odoo:19.0", target)
    assert packed == _image_archive.read(target)
    assert packed.image_id == image_id
    assert packed.references == ["berth/odoo:19.0"]
    assert [layer.size for layer in packed.layers][:2] == [len(BASE), len(TOP)]
    assert target.stat().st_size < len(BASE) // 10
    assert [path.name for path in tmp_path.iterdir()] == ["odoo.tar"]


def test_layers_hold_their_content_and_the_manifest_is_the_one_docker_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_image_archive, "zstd_command", lambda: None)
    stream, image_id = docker_20()
    target = tmp_path / "odoo.tar"
    _image_archive.pack(stream, image_id, "berth/odoo:19.0", target)
    with tarfile.open(target) as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}
    (manifest,) = json.loads(contents["manifest.json"])
    assert manifest["RepoTags"] == ["berth/odoo:19.0"]
    assert digest(contents[manifest["Config"]]) == image_id
    assert [gzip.decompress(contents[name]) for name in manifest["Layers"]] == [BASE, TOP, BASE]
    assert len(contents) == 5, "a layer that is in the image twice is in the archive once"


def test_the_same_image_gives_the_same_archive(compression: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _image_archive.pack(*docker_26(), "berth/odoo:19.0", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_image_that_is_not_in_the_stream_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="containerd-snapshotter"):
        _image_archive.pack(docker_26()[0], "sha256:" + "0" * 64, "berth/odoo:19.0", tmp_path / "odoo.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    stream, image_id = docker_20()
    with pytest.raises(ArchiveError):
        _image_archive.pack(io.BytesIO(stream.read(len(BASE) // 2)), image_id, "berth/odoo:19.0", tmp_path / "odoo.tar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a tar file" * 100])
def test_a_file_that_is_no_archive_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odoo.tar"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"odoo\.tar is no image archive"):
        _image_archive.read(path)


def test_a_host_with_the_base_gets_the_rest(tmp_path: Path) -> None:
    stream, image_id = docker_26()
    whole, part = tmp_path / "whole.tar", tmp_path / "part.tar"
    layers = _image_archive.pack(stream, image_id, "berth/odoo:19.0", whole).layers
    missing = _image_archive.to_send(layers, _image_archive.chains([[digest(BASE)]]))
    assert missing == layers[1:]
    _image_archive.write_subset(whole, missing, part)
    sent = _image_archive.read(part)
    assert [layer.member for layer in sent.layers] == ["", layers[1].member]
    assert sent.image_id == image_id


names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=5)


@given(names, st.lists(names, max_size=4))
def test_what_is_left_out_is_there_under_the_very_same_layers(wanted: list[str], hosts: list[list[str]]) -> None:
    layers = [Layer(name, name, 1, 1) for name in wanted]
    sent = _image_archive.to_send(layers, _image_archive.chains(hosts))
    kept = len(layers) - len(sent)
    assert sent == layers[kept:]
    assert kept == 0 or any(host[:kept] == wanted[:kept] for host in hosts)
    assert all(host[: kept + 1] != wanted[: kept + 1] for host in hosts if kept < len(wanted))
