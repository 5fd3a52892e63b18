# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image archives: tar files that C(docker load) reads, with each layer compressed by itself.

C(docker save) writes layers as they are, 1.9 GB for Odoo. Compressing the layers inside the archive and not the archive
as a whole has two merits: C(docker load) first unpacks an archive into a temporary directory, and now writes a quarter
of the bytes there; and a layer that the receiving engine has already can be left out without touching the others.

Standard library only: the build host needs Python and, for the better compression, the C(zstd) command.

Formats: https://github.com/moby/moby/blob/v26.1.5/image/tarexport/load.go (what load reads: C(manifest.json), then per
layer any compression that Docker knows, and the file of a layer it has is never opened) and
https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md (diff_ids).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

CHUNK = 1 << 20
# An image's configuration, the only file besides the layers that matters, is a few kilobytes.
LARGEST_CONFIG = 1 << 20


class ArchiveError(Exception):
    """An archive is not what it should be; the message names the file and what was found."""


class Layer(NamedTuple):
    """One layer of an archive.

    Attributes:
        diff_id: C(sha256:…) of the uncompressed layer, as the image's configuration lists it.
        member: Name inside the archive; empty in an archive that leaves the layer out.
        stored: Bytes in the archive, compressed.
        size: Bytes of the uncompressed layer, about what it takes on the engine's disk.
    """

    diff_id: str
    member: str
    stored: int
    size: int


class Contents(NamedTuple):
    """What an archive holds: the image's id, its references and its layers from the bottom up."""

    image_id: str
    references: list[str]
    layers: list[Layer]


def zstd_command() -> str | None:
    """Path of the C(zstd) command, None where it is not installed."""
    return shutil.which("zstd")


@contextlib.contextmanager
def _compressor(target: Path, zstd: str | None) -> Iterator[IO[bytes]]:
    """A stream that compresses what is written to it into a file.

    zstd -3 takes 5 s for the Odoo image and docker load unpacks it as fast as it can write; gzip -1 takes four times
    as long on both sides, and Python has it everywhere.
    """
    if zstd is None:
        with gzip.GzipFile(target, "wb", compresslevel=1, mtime=0) as stream:
            yield stream  # type: ignore[misc]  # GzipFile is an IO in everything but its type
        return
    with target.open("wb") as output:
        # run_command would take the gigabytes that go in as one string.
        process = subprocess.Popen([zstd, "-q", "-3", "-c"], stdin=subprocess.PIPE, stdout=output)  # pylint: disable=ansible-bad-function
        stdin = cast(IO[bytes], process.stdin)
        try:
            yield stdin
        finally:
            stdin.close()
            rc = process.wait()
    if rc != 0:
        raise ArchiveError(f"{zstd} ended with exit code {rc} while it wrote {target}")


class _Blob(NamedTuple):
    path: Path
    size: int
    data: bytes | None
    """The uncompressed bytes of a small blob, which may be the image's configuration."""


def _read_blobs(stream: IO[bytes], directory: Path, zstd: str | None) -> dict[str, _Blob]:
    """Compress every file of a saved image into a directory, by the digest of its uncompressed bytes.

    Docker has named these files in three ways over the years; their digests say what they are.
    """
    blobs: dict[str, _Blob] = {}
    with tarfile.open(fileobj=stream, mode="r|") as saved:
        for number, member in enumerate(saved):
            source = saved.extractfile(member) if member.isreg() else None
            if source is None:
                continue
            digest = hashlib.sha256()
            path = directory / str(number)
            small = source.read() if member.size <= LARGEST_CONFIG else None
            with _compressor(path, zstd) as compressed:
                for chunk in [small] if small is not None else iter(lambda: source.read(CHUNK), b""):  # noqa: B023
                    digest.update(chunk)
                    compressed.write(chunk)
            blobs["sha256:" + digest.hexdigest()] = _Blob(path, member.size, small)
    return blobs


def _member(name: str, size: int) -> tarfile.TarInfo:
    """An archive member without owner and time, so that the same content gives the same archive."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_member(name, len(data)), io.BytesIO(data))


def pack(stream: IO[bytes], image_id: str, reference: str, target: Path) -> Contents:
    """Write the archive of one image.

    Args:
        stream: Output of C(docker save).
        image_id: C(sha256:…), the digest of the image's configuration.
        reference: Name and tag that the image gets when it is loaded.
        target: File to write; appears only when it is complete.

    Raises:
        ArchiveError: The stream does not hold this image, or holds its layers compressed.
    """
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=target.parent) as scratch:
        try:
            blobs = _read_blobs(stream, Path(scratch), zstd_command())
        except tarfile.TarError as error:
            raise ArchiveError(f"docker save of {reference} ended early: {error}") from error
        config = blobs[image_id].data if image_id in blobs else None
        if config is None:
            raise ArchiveError(
                f"docker save of {reference} has no image configuration {image_id}. An engine that keeps images in containerd's store"
                ' numbers them differently; set "features": {"containerd-snapshotter": false} in its daemon.json and build again'
            )
        layers = []
        unfinished = Path(scratch, "archive")
        with tarfile.open(unfinished, "w") as archive:
            _add_bytes(archive, _config_member(image_id), config)
            for diff_id in json.loads(config)["rootfs"]["diff_ids"]:
                if diff_id not in blobs:
                    raise ArchiveError(f"docker save of {reference} lacks the uncompressed layer {diff_id}")
                blob = blobs[diff_id]
                layer = Layer(diff_id, _layer_member(diff_id), blob.path.stat().st_size, blob.size)
                # A layer can occur twice, such as an empty directory made again.
                if layer not in layers:
                    with blob.path.open("rb") as source:
                        archive.addfile(_member(layer.member, layer.stored), source)
                layers.append(layer)
            _add_bytes(archive, "manifest.json", _manifest(image_id, [reference], layers))
            sizes = {layer.diff_id: layer.size for layer in layers}
            _add_bytes(archive, "berth.json", json.dumps({"layer_sizes": sizes}, sort_keys=True).encode())
        os.replace(unfinished, target)
    return Contents(image_id, [reference], layers)


def _config_member(image_id: str) -> str:
    return image_id.removeprefix("sha256:") + ".json"


def _layer_member(diff_id: str) -> str:
    return diff_id.removeprefix("sha256:") + ".tar"


def _manifest(image_id: str, references: Sequence[str], layers: Sequence[Layer]) -> bytes:
    entry = {
        "Config": _config_member(image_id),
        "RepoTags": list(references),
        "Layers": [_layer_member(layer.diff_id) for layer in layers],
    }
    return json.dumps([entry], sort_keys=True).encode()


def _json_member(archive: tarfile.TarFile, name: str, path: Path) -> Any:
    try:
        member = archive.extractfile(name)
        return json.loads(member.read()) if member is not None else None
    except (KeyError, ValueError) as error:
        raise ArchiveError(f"{path} is no image archive of this collection: {name} is missing or broken ({error})") from error


def read(path: Path) -> Contents:
    """Describe an archive without unpacking a layer.

    Raises:
        ArchiveError: Not an archive that :func:`pack` wrote, or cut short.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            (entry,) = _json_member(archive, "manifest.json", path)
            sizes = _json_member(archive, "berth.json", path)["layer_sizes"]
            diff_ids = _json_member(archive, entry["Config"], path)["rootfs"]["diff_ids"]
            stored = {member.name: member.size for member in archive}
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArchiveError(f"{path} is no image archive of this collection: {error}") from error
    layers = []
    for diff_id, member in zip(diff_ids, entry["Layers"], strict=True):
        layers.append(Layer(diff_id, member if member in stored else "", stored.get(member, 0), sizes[diff_id]))
    return Contents("sha256:" + entry["Config"].removesuffix(".json"), entry["RepoTags"], layers)


def chains(diff_ids: Collection[Sequence[str]]) -> set[tuple[str, ...]]:
    """Every prefix of every image's layers. A layer is stored together with the ones below it: only a prefix is shared."""
    return {tuple(layers[: length + 1]) for layers in diff_ids for length in range(len(layers))}


def to_send(layers: Sequence[Layer], present: Collection[tuple[str, ...]]) -> list[Layer]:
    """Return the layers above the longest prefix that the receiving engine has, from the bottom up.

    Args:
        layers: Layers of the archive.
        present: Prefixes that the engine has, from :func:`chains`.
    """
    ids = tuple(layer.diff_id for layer in layers)
    shared = next((length for length in range(len(ids), 0, -1) if ids[:length] in present), 0)
    return list(layers[shared:])


def write_subset(path: Path, layers: Collection[Layer], target: Path) -> None:
    """Copy an archive with some of its layers only; C(docker load) takes the others from what the engine has.

    Raises:
        OSError: The disk is full, a file cannot be read or written.
    """
    wanted = {layer.member for layer in layers}
    with tarfile.open(path, "r:") as source, tarfile.open(target, "w") as archive:
        for member in source:
            if not member.name.endswith(".tar") or member.name in wanted:
                archive.addfile(member, source.extractfile(member))


def file_digest(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sizes(contents: Mapping[str, Contents]) -> dict[str, int]:
    """Uncompressed bytes of each image, by its name."""
    return {name: sum(layer.size for layer in item.layers) for name, item in contents.items()}
