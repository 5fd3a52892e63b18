# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a host should have, which it has, and what names and hashes say about them.

Pure functions: no Ansible, no input or output.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MANIFEST_FORMAT = 1
MANIFEST_NAME = "manifest.json"

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
DIGEST_REFERENCE = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
# https://github.com/distribution/reference: what may stand in a tag.
NOT_IN_TAG = re.compile(r"[^A-Za-z0-9_.-]+")

INPUTS_LABEL = "berth.inputs"
VERSION_LABEL = "org.opencontainers.image.version"
BASE_LABEL = "org.opencontainers.image.base.digest"

# To go back to, when a release turns out to be a mistake: so many images of a name, and all of the last days.
KEPT_IMAGES = 3
KEPT_SECONDS = 7 * 24 * 3600

# Build arguments that say how the build reaches its sources and not what comes out: they do not enter the inputs' hash.
# The first eight are Docker's own: https://docs.docker.com/reference/dockerfile/#predefined-args
ACCESS_ARGS = frozenset(
    [
        *(name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY") for name in (upper, upper.lower())),
        "DEBIAN_MIRROR",
        "EXTRA_CA_CERTIFICATES",
        "PIP_INDEX_URL",
    ]
)

# A host whose disk is filled to the last byte by an image has no room left for what the image does.
DISK_RESERVE = 512 << 20


class ImageError(ValueError):
    """Something about the wanted images is wrong; the message says what was found, what was expected and what to type."""


class Wanted(NamedTuple):
    """An image that a host should have.

    Attributes:
        name: The role's name for it, such as C(odoo).
        image_id: C(sha256:…) when it is known beforehand.
        reference: Name with tag or digest; empty when only the id is known.
    """

    name: str
    image_id: str
    reference: str


def check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be a directory, a tag and a key of a dictionary. Raises ImageError."""
    for name in names:
        if not NAME.fullmatch(name):
            raise ImageError(f"image name {name!r}: expected 1 to 63 of a-z, 0-9, '_' and '-', such as odoo or postgresql")


def wanted_from_references(names: Sequence[str], references: Mapping[str, str], *, require_digests: bool, pulled: bool) -> list[Wanted]:
    """Return what a host should have by the references a person gave.

    Args:
        names: Images this host needs.
        references: Reference by name.
        require_digests: Refuse a reference whose content can change.
        pulled: The images come from a registry, which an image id cannot name.

    Raises:
        ImageError: A reference is missing, names nothing a registry has, or has no digest where one is required.
    """
    check_names(names)
    wanted, problems = [], []
    for name in names:
        reference = references.get(name) or ""
        if not reference:
            problems.append(f"images_registry has no entry {name!r}; add {name}: <registry>/<repository>@sha256:<64 hex digits>")
        elif IMAGE_ID.fullmatch(reference):
            if pulled:
                problems.append(
                    f"images_registry.{name} is {reference}, an id on one host; a registry needs <registry>/<repository>@sha256:<digest>"
                )
            wanted.append(Wanted(name, reference, ""))
        elif require_digests and not DIGEST_REFERENCE.fullmatch(reference):
            problems.append(
                f"images_registry.{name} is {reference!r}, a tag that can be moved to other content; expected <repository>@sha256:<digest>."
                f" The digest is in the answer of: docker buildx imagetools inspect {reference}"
                f" (or, where it was pulled: docker image inspect --format '{{{{.RepoDigests}}}}' {reference})"
            )
        else:
            wanted.append(Wanted(name, "", reference))
    if problems:
        raise ImageError("; ".join(problems))
    return wanted


def parse_manifest(text: str, path: str) -> dict[str, dict[str, Any]]:
    """Return the entries of an archive directory's manifest by image name.

    Raises:
        ImageError: Not a manifest, or one that a newer version of this collection wrote.
    """
    try:
        manifest = json.loads(text)
        found, images = manifest["format"], dict(manifest["images"])
        for entry in images.values():
            if not IMAGE_ID.fullmatch(entry["id"]):
                raise ImageError(
                    f"{path} is broken: {entry['id']!r} is no image id; build the images again with ansible-playbook -i <inventory> berth.odoo.images"
                )
            for key in ("reference", "inputs", "file", "sha256", "version"):
                str(entry[key])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"{path} is no manifest of images ({type(error).__name__}: {error}); build the images again with ansible-playbook -i <inventory> berth.odoo.images"
        ) from error
    if found != MANIFEST_FORMAT:
        raise ImageError(f"{path} has format {found}, this version of the collection reads format {MANIFEST_FORMAT}: use the same version")
    return images


def manifest_text(images: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of a manifest."""
    return json.dumps({"format": MANIFEST_FORMAT, "images": images}, indent=2, sort_keys=True) + "\n"


def wanted_from_manifest(names: Sequence[str], images: Mapping[str, Mapping[str, Any]], path: str) -> list[Wanted]:
    """Return what a host should have by an archive directory's manifest.

    Raises:
        ImageError: The manifest lacks an image.
    """
    check_names(names)
    missing = [name for name in names if name not in images]
    if missing:
        raise ImageError(
            f"{path} has no image {', '.join(missing)} (it has {', '.join(sorted(images)) or 'none'});"
            f" build with: ansible-playbook -i <inventory> berth.odoo.images -e '{{\"images_names\": {json.dumps(missing)}}}'"
        )
    return [Wanted(name, str(images[name]["id"]), str(images[name]["reference"])) for name in names]


def present_ids(wanted: Iterable[Wanted], listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the ids of the wanted images that an engine has, by name.

    Args:
        wanted: Images a host should have. One with a known id is present only by that id: a tag may have moved.
        listed: Answer of C(GET /images/json).
    """
    ids: dict[str, str] = {}
    for image in listed:
        ids[image["Id"]] = image["Id"]
        for reference in [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]:
            ids[reference] = image["Id"]
    found = {}
    for item in wanted:
        known = next((ids[key] for key in ([item.image_id] if item.image_id else spellings(item.reference)) if key in ids), None)
        if known:
            found[item.name] = known
    return found


def superseded(listed: Iterable[Mapping[str, Any]], keep: Iterable[str], now: float) -> dict[str, list[str]]:
    """Return the images that newer ones of the same name have replaced for good, as id and tags.

    Only what this collection has built counts, by its label. Kept are the newest C(KEPT_IMAGES) of a name, everything younger than
    C(KEPT_SECONDS), and what a kept one was built on.

    Args:
        listed: Answer of C(GET /images/json).
        keep: Ids to keep in any case.
        now: Seconds since 1970.
    """
    ours = [image for image in listed if INPUTS_LABEL in (image.get("Labels") or {}) and image.get("RepoTags")]
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for image in sorted(ours, key=lambda image: int(image["Created"]), reverse=True):
        by_name.setdefault(str(image["RepoTags"][0]).rpartition(":")[0], []).append(image)
    kept = set(keep)
    for images in by_name.values():
        kept.update(image["Id"] for image in images[:KEPT_IMAGES])
        kept.update(image["Id"] for image in images if now - int(image["Created"]) < KEPT_SECONDS)
    kept.update((image.get("Labels") or {}).get(BASE_LABEL, "") for image in ours if image["Id"] in kept)
    return {image["Id"]: list(image["RepoTags"]) for image in ours if image["Id"] not in kept}


def spellings(reference: str) -> list[str]:
    """Ways in which an engine may list a reference: without C(docker.io/library/), with C(:latest), without the tag before a digest."""
    name, _at, digest = reference.partition("@")
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/library/", "index.docker.io/"):
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, "latest"
    return [f"{path}@{digest}"] if digest else [f"{path}:{tag}"]


def inputs_hash(files: Mapping[str, tuple[int, bytes]], base_id: str, args: Mapping[str, str], refresh: str) -> str:
    """Return 64 hexadecimal digits that change with anything that decides what a build gives.

    Args:
        files: Mode and content of the build context by path.
        base_id: Id of the base image.
        args: Build arguments; those of ACCESS_ARGS do not count.
        refresh: Free text that a person changes to build again with the packages of the day.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        mode, content = files[path]
        digest.update(json.dumps([path, bool(mode & 0o100), len(content)]).encode())
        digest.update(content)
    relevant = {key: value for key, value in args.items() if key not in ACCESS_ARGS and value}
    digest.update(json.dumps([base_id, relevant, refresh], sort_keys=True).encode())
    return digest.hexdigest()


def tag(version: str, inputs: str) -> str:
    """Return an image's tag: the version of the software and twelve digits of the inputs' hash."""
    return f"{NOT_IN_TAG.sub('_', version).lstrip('.-_') or 'unknown'}-{inputs[:12]}"


def parse_contract(output: str, name: str) -> dict[str, str]:
    """Return what a contract check printed as C(key=value) lines.

    Raises:
        ImageError: It did not say a version.
    """
    facts = {}
    for line in output.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            facts[key.strip()] = value.strip()
    if not facts.get("version"):
        raise ImageError(f"the contract check of image {name} printed no version= line, only: {output.strip()!r}")
    return facts


def gibibytes(size: int) -> str:
    """Bytes for a person, in GiB with one decimal."""
    return f"{size / (1 << 30):.1f} GiB"


def check_disk(host: str, places: Sequence[tuple[str, str, int, int, int]]) -> None:
    """Refuse to fill a host's disk.

    Args:
        host: Its name in the inventory.
        places: (what for, path, device number, bytes free, bytes needed). Needs on one device add up.

    Raises:
        ImageError: Names the host, the path, what is needed and what is free.
    """
    devices: dict[int, list[tuple[str, str, int, int]]] = {}
    for what, path, device, free, needed in places:
        devices.setdefault(device, []).append((what, path, free, needed))
    for shared in devices.values():
        needed = sum(item[3] for item in shared)
        free = min(item[2] for item in shared)
        if needed and needed + DISK_RESERVE > free:
            paths = " and ".join(f"{path} ({what})" for what, path, _free, need in shared if need)
            raise ImageError(
                f"not enough disk on {host}: {paths} need {gibibytes(needed)} and {gibibytes(DISK_RESERVE)} to spare, {gibibytes(free)} free."
                f" Make room or give the host a larger disk; unused images go with: docker image prune --all"
            )
