# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Building an image with the C(docker) command, checking what came out, and writing its archive.

The command and not the API, because it knows the builder, the proxies and the credentials of its machine.
"""

from __future__ import annotations

import base64
import datetime
import difflib
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from . import _image_archive, _images, _sbom

REPOSITORY = "berth"
COMMON = "common"
# The image that add-ons are laid on, and the directory of the Dockerfile that does it.
ODOO = "odoo"
ADDONS = "odoo_addons"
MODULES_TAR = f"{ADDONS}/modules.tar"
# Where distributions keep the certificate authorities that an administrator added: Debian and Ubuntu, Fedora and RHEL, Arch, openSUSE.
LOCAL_AUTHORITIES = (
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
)
# Linux refuses a longer string in the environment of a process (MAX_ARG_STRLEN), which is how a build argument travels.
LARGEST_ARGUMENT = 128 * 1024 - 1
# The last lines of a failed build hold the reason; apt and pip explain themselves in fewer.
ERROR_LINES = 25

_ARG = re.compile(r"^\s*ARG\s+([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE | re.IGNORECASE)
# What the command says of every build where the plugin buildx is missing.
_LEGACY = re.compile(r"DEPRECATED: The legacy builder is deprecated(.*\n)*?.*https://docs\.docker\.com/go/buildx/\n?")
# Isolation for a container that only says what is in the image.
_ISOLATED = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108


class BuildError(Exception):
    """A build, its check or its packing failed; the message says which and shows the last lines of the reason."""


class Build(NamedTuple):
    """One image to build.

    Attributes:
        name: What it is called; also the directory of its contract check, and of its Dockerfile when that is not said.
        files: Mode and content of the build context by path: the common files and the image's own.
        args: Build arguments that its Dockerfile declares, without BASE_IMAGE.
        base: Reference of the base image.
        base_id: Its id.
        inputs: Hash of all of these.
        on: The image of ours that it is laid on, with the base image below that; None without.
        modules: Tar file with a site's own modules, for an image laid on another.
        revision: Git revision of the modules.
    """

    name: str
    files: Mapping[str, tuple[int, bytes]]
    args: Mapping[str, str]
    base: str
    base_id: str
    inputs: str
    on: Build | None = None
    modules: str = ""
    revision: str = ""

    @property
    def directory(self) -> str:
        """Directory of its Dockerfile."""
        return ADDONS if self.on else self.name

    @property
    def contract(self) -> str:
        """Directory of its contract check. Add-ons must leave the image as the role needs it."""
        return self.on.name if self.on else self.name


def docker(arguments: Sequence[str], stdin: str | None = None) -> str:
    """Run C(docker) and return its standard output.

    Raises:
        BuildError: The command failed or is not installed.
    """
    try:
        # On the controller, where there is no module whose run_command could be used.
        done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)  # pylint: disable=ansible-bad-function
    except FileNotFoundError as error:
        raise BuildError("the docker command is not installed on this build host: apt-get install docker.io docker-cli") from error
    if done.returncode != 0:
        # The classic builder writes what a step says to standard output, and to the other one only that the step failed.
        words = done.stdout + _LEGACY.sub("", done.stderr) if arguments[0] == "build" else done.stderr or done.stdout
        raise BuildError(f"docker {arguments[0]} failed: {last_lines(words)}")
    return done.stdout


def last_lines(text: str) -> str:
    """The end of a command's output, without the colours of a terminal."""
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return "\n".join(lines[-ERROR_LINES:])


def pack_files(files: Mapping[str, tuple[int, bytes]]) -> str:
    """Return build contexts as one short string for a module's argument, which also ends in the host's journal."""
    plain = {path: [mode, base64.b64encode(content).decode("ascii")] for path, (mode, content) in files.items()}
    return base64.b64encode(zlib.compress(json.dumps(plain, sort_keys=True).encode(), 9)).decode("ascii")


def unpack_files(packed: str) -> dict[str, tuple[int, bytes]]:
    """Reverse :func:`pack_files`."""
    plain = json.loads(zlib.decompress(base64.b64decode(packed)))
    return {path: (mode, base64.b64decode(content)) for path, (mode, content) in plain.items()}


def declared_args(dockerfile: bytes) -> set[str]:
    """Names of a Dockerfile's build arguments."""
    return set(_ARG.findall(dockerfile.decode("utf-8")))


def check_args(args: Mapping[str, str], declared: Iterable[str]) -> None:
    """Refuse a build argument that no Dockerfile reads: a typing error would build something else than was meant.

    Raises:
        BuildError: Names the nearest that exists.
    """
    known = sorted({*declared, *_images.ACCESS_ARGS} - {"BASE_IMAGE"})
    for name in args:
        if name == "BASE_IMAGE":
            raise BuildError("the base image is said with images_base_image, not with a build argument")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise BuildError(
                f"no Dockerfile has a build argument {name!r}"
                + (f": did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")
            )


def context_of(name: str, files: Mapping[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    """The files one image is built from: those of its own directory and the common ones.

    Raises:
        BuildError: There is no such Dockerfile.
    """
    if f"{name}/Dockerfile" not in files:
        known = sorted(path.split("/")[0] for path in files if path.endswith("/Dockerfile"))
        raise BuildError(f"there is no Dockerfile for an image {name!r}; there are {', '.join(known) or 'none'}")
    return {path: value for path, value in files.items() if path.split("/")[0] in (COMMON, name)}


def local_authorities() -> str:
    """PEM text of the certificate authorities that this machine's administrator added, empty without."""
    texts = []
    for directory in LOCAL_AUTHORITIES:
        for path in sorted(Path(directory).glob("**/*")):
            if path.is_file() and path.suffix in (".crt", ".pem", ".cer"):
                content = path.read_bytes()
                # The anchor directories of some distributions also take DER.
                if b"-----BEGIN CERTIFICATE-----" in content:
                    texts.append(content.decode("ascii", "ignore").strip())
    return "".join(f"{text}\n" for text in dict.fromkeys(texts))


def base_image_id(base: str, *, may_pull: bool) -> str | None:
    """Return the id of the base image, pulling it when this engine does not have it.

    Raises:
        BuildError: Not there and not to be had.
    """
    try:
        return docker(["image", "inspect", "--format", "{{.Id}}", base]).strip()
    except BuildError as missing:
        if "No such image" not in str(missing):
            raise
    if not may_pull:
        return None
    try:
        docker(["pull", "--quiet", base])
    except BuildError as error:
        raise BuildError(
            f"base image {base} is not on this build host and cannot be pulled ({error}). Without a registry, make one:"
            " mmdebstrap --variant=minbase trixie | docker import - berth/base:trixie"
            " and set images_base_image to berth/base:trixie"
        ) from error
    return docker(["image", "inspect", "--format", "{{.Id}}", base]).strip()


def built(build: Build) -> str | None:
    """Return the id of an image that was built from the same inputs on this engine, None without."""
    listed = docker(["image", "ls", "--quiet", "--no-trunc", "--filter", f"label={_images.INPUTS_LABEL}={build.inputs}"])
    # What a failed build left on top of an image has its labels, too.
    return next((image_id for image_id in listed.split() if reference_of(image_id, build)), None)


def inspect(image: str) -> tuple[str, int]:
    """Return an image's id and its size in bytes."""
    image_id, size = docker(["image", "inspect", "--format", "{{.Id}} {{.Size}}", image]).split()
    return image_id, int(size)


def check_contract(build: Build, image: str) -> dict[str, str]:
    """Run the image's own check in it, as its user, without network, capabilities or a writable root.

    Returns:
        What it printed as key=value lines; C(version) is always there.

    Raises:
        BuildError: The check failed; its words are in the message.
    """
    script = build.files.get(f"{build.contract}/contract.sh")
    if script is None:
        raise BuildError(f"image {build.name} has no contract.sh beside its Dockerfile: it says what the image must hold, and its version")
    text = script[1].decode("utf-8")
    if program := build.files.get(f"{build.contract}/contract.py"):
        text += f"\npython3 - <<'CONTRACT'\n{program[1].decode('utf-8')}\nCONTRACT\n"
    try:
        output = docker(["run", "--rm", "--interactive", *_ISOLATED, "--entrypoint", "sh", image, "-s"], text)
        return _images.parse_contract(output, build.name)
    except (BuildError, _images.ImageError) as error:
        raise BuildError(f"image {build.name} was built and does not keep its contract: {error}") from error


def build_image(build: Build) -> tuple[str, dict[str, str]]:
    """Build one image, check it, and name it by version and inputs.

    Returns:
        Its reference and what the contract check found.

    Raises:
        BuildError: With the last lines of the build's output.
    """
    base, base_id = build.base, build.base_id
    if build.on:
        base = ensure_built(build.on)[0]
        base_id = inspect(base)[0]
    # A name of this run's own: another one may build the same inputs at the same time, and remove its name when it is done.
    unchecked = f"{REPOSITORY}/{build.name}:build-{build.inputs[:12]}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="berth-build-") as context:
        for path, (mode, content) in build.files.items():
            file = Path(context, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o755 if mode & 0o100 else 0o644)
            # The same content gets the same layer, whenever it was checked out.
            os.utime(file, (0, 0))
        if build.modules:
            shutil.copyfile(build.modules, Path(context, MODULES_TAR))
            os.utime(Path(context, MODULES_TAR), (0, 0))
        arguments = ["build", "--force-rm", "--tag", unchecked, "--file", str(Path(context, build.directory, "Dockerfile"))]
        for key, value in {**build.args, "BASE_IMAGE": base}.items():
            arguments += ["--build-arg", f"{key}={value}"]
        try:
            docker([*arguments, context])
        except BuildError as error:
            raise BuildError(f"image {build.name} could not be built: {error}") from error
    try:
        facts = check_contract(build, unchecked)
    except BuildError:
        # Nobody can use it, and under no name the next removal of unused images finds it.
        docker(["rmi", "--no-prune", unchecked])
        raise
    reference = f"{REPOSITORY}/{build.name}:{_images.tag(facts['version'], build.inputs)}"
    labels = {
        _images.INPUTS_LABEL: build.inputs,
        _images.VERSION_LABEL: facts["version"],
        "org.opencontainers.image.title": f"{REPOSITORY}/{build.name}",
        "org.opencontainers.image.vendor": "berth.odoo",
        "org.opencontainers.image.base.name": base,
        "org.opencontainers.image.base.digest": base_id,
    }
    if build.revision:
        labels["org.opencontainers.image.revision"] = build.revision
    # The version is known only now, so labels and the final name come in a step of their own that adds no layer.
    docker(
        ["build", "--tag", reference, *(word for label in labels.items() for word in ("--label", "=".join(label))), "-"],
        f"FROM {unchecked}\n",
    )
    docker(["rmi", unchecked])
    return reference, facts


def reference_of(image_id: str, build: Build) -> str | None:
    """Return the reference that :func:`build_image` gave an image, None when somebody removed it."""
    tags = docker(["image", "inspect", "--format", "{{range .RepoTags}}{{.}} {{end}}", image_id]).split()
    ending = f"-{build.inputs[:12]}"
    return next((tag for tag in tags if tag.startswith(f"{REPOSITORY}/{build.name}:") and tag.endswith(ending)), None)


def ensure_built(build: Build) -> tuple[str, dict[str, str], bool]:
    """Return reference and contract of an image with these inputs, and whether it had to be built."""
    image_id = built(build)
    reference = reference_of(image_id, build) if image_id else None
    if reference is None:
        return (*build_image(build), True)
    return reference, check_contract(build, reference), False


def save(reference: str, target: Path) -> _image_archive.Contents:
    """Write an image's archive.

    Raises:
        BuildError: C(docker save) failed or its output is not what it should be.
    """
    image_id, _size = inspect(reference)
    save_image = ["docker", "save", image_id]
    with subprocess.Popen(save_image, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # pylint: disable=ansible-bad-function
        stdout, stderr = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)
        try:
            contents = _image_archive.pack(stdout, image_id, reference, target)
        except _image_archive.ArchiveError as error:
            process.kill()
            raise BuildError(f"{error}: {last_lines(stderr.read().decode('utf-8', 'replace'))}".rstrip(": ")) from error
        # The archive's end has been read; what remains is padding.
        while stdout.read(_image_archive.CHUNK):
            pass
        message = stderr.read().decode("utf-8", "replace")
    if process.returncode != 0:
        target.unlink(missing_ok=True)
        raise BuildError(f"docker save {reference} failed: {last_lines(message)}")
    return contents


def entry(build: Build, reference: str, facts: Mapping[str, str], contents: _image_archive.Contents, archive: Path) -> dict[str, Any]:
    """Describe an archive for the manifest."""
    return {
        "id": contents.image_id,
        "reference": reference,
        "version": facts["version"],
        "inputs": build.inputs,
        "base": {"reference": build.base, "id": build.base_id},
        **({"revision": build.revision} if build.revision else {}),
        "contract": dict(facts),
        "file": f"{build.name}-{reference.rpartition(':')[2]}.tar",
        "size": archive.stat().st_size,
        "unpacked": sum(layer.size for layer in contents.layers),
        "sha256": _image_archive.file_digest(archive),
    }


def bill_of_materials(reference: str) -> str:
    """Return what is in an image, as CycloneDX JSON.

    Raises:
        BuildError: The image cannot say it.
    """
    image_id, _size = inspect(reference)
    listing = docker(["run", "--rm", "--interactive", *_ISOLATED, "--entrypoint", "sh", image_id, "-s"], _sbom.LISTING)
    try:
        return json.dumps(_sbom.document(reference, image_id, listing), indent=1, sort_keys=True) + "\n"
    except ValueError as error:
        raise BuildError(str(error)) from error


def remove_superseded() -> list[str]:
    """Remove images of ours that newer ones have replaced and that no container has. Return their tags.

    Raises:
        BuildError: An image could not be removed, or Docker does not answer.
    """
    ids = sorted(set(docker(["image", "ls", "--quiet", "--no-trunc", "--filter", f"label={_images.INPUTS_LABEL}"]).split()))
    if not ids:
        return []
    listed = [
        {
            "Id": image["Id"],
            "RepoTags": image["RepoTags"],
            "Labels": image["Config"]["Labels"],
            # Up to nanoseconds, which Python 3.10 does not read.
            "Created": datetime.datetime.fromisoformat(image["Created"][:19] + "+00:00").timestamp(),
        }
        for image in json.loads(docker(["image", "inspect", *ids]))
    ]
    removed = []
    for tags in _images.superseded(listed, (), time.time()).values():
        for tag in tags:
            try:
                docker(["image", "rm", tag])
                removed.append(tag)
            except BuildError as error:
                # A container has it, or another build on this host has removed it.
                if "conflict" not in str(error) and "No such image" not in str(error):
                    raise
    return removed


def remove_fetch_stages() -> None:
    """Remove the stages that only downloaded something; nothing refers to them once an image is built."""
    docker(["image", "prune", "--force", "--filter", "label=berth.build=fetch"])
