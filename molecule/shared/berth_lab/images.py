# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of the lab VMs, from a registry's Debian 13 or from nothing, cached by the hash of what goes into them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

from .run import CommandError, LabError, run
from .settings import MACHINE, MACHINE_TEMPLATE, TEMPLATE

SUITE = "trixie"
CONTEXT = Path(__file__).resolve().parent.parent / "image"
MACHINE_CONTEXT = CONTEXT.parent / "machine"
LABEL = "berth.lab.image"
# Where Debian keeps the sources of its own packages: the format of today, and the old one.
APT_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
# Where distributions keep the certificate authorities that an administrator added: Debian and Ubuntu, Fedora and RHEL, Arch, openSUSE.
LOCAL_AUTHORITIES = (
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
)
PROBE_TIMEOUT = 4  # seconds in which a registry must answer
PULL_TIMEOUT = 180  # seconds for 50 MB


def ensure_images(flavours: Iterable[str], base_image: str, debian_mirror: str, cache: Path) -> tuple[dict[str, str], list[str]]:
    """Return image references by flavour, building what is missing.

    Args:
        flavours: "vm", "vm-docker", "vm-images", "vm-machine", "vm-machine-images"; "base" always comes with them, "vm-docker" with the last three.
        base_image: registry reference with digest, or "".
        debian_mirror: URL of a Debian archive, or "" for the machine's own.
        cache: directory for build logs.

    Returns:
        References by flavour, and the flavours that were built now.

    Raises:
        LabError: neither a registry nor mmdebstrap is there, or a build failed.
    """
    mirror = debian_mirror or apt_mirror(Path(file).read_text() for file in APT_SOURCES if Path(file).exists())
    site = site_files(mirror if debian_mirror else "", _machine_proxy(), _local_authorities())
    context = {name: (CONTEXT / name).read_bytes() for name in ("Dockerfile", "lab-init")}
    debian = "berth-lab/debian:" + inputs_hash({"image": base_image.encode(), "mirror": mirror.encode()})
    tag = inputs_hash({"debian": debian.encode(), **context, **{f"site{path}": data for path, data in site.items()}})
    wanted = set(flavours)
    over_docker = wanted & {MACHINE, MACHINE_TEMPLATE, TEMPLATE}
    wanted = wanted - over_docker | {"base"} | ({"vm-docker"} if over_docker else set())
    images = {flavour: f"berth-lab/{flavour}:{tag}" for flavour in sorted(wanted)}
    built = _ensure_containers(images, debian, base_image, mirror, context, site, cache)
    if TEMPLATE in over_docker:
        # What it has more is in a volume, see preload.
        images[TEMPLATE] = images["vm-docker"]
    if over_docker - {TEMPLATE}:
        files = {file.name: file.read_bytes() for file in sorted(MACHINE_CONTEXT.iterdir())}
        images[MACHINE] = f"berth-lab/{MACHINE}:" + inputs_hash({"vm-docker": images["vm-docker"].encode(), **files})
        if not image_exists(images[MACHINE]):
            cache.mkdir(parents=True, exist_ok=True)
            _build(MACHINE_CONTEXT, MACHINE, images[MACHINE], images["vm-docker"], cache / f"build-{MACHINE}.log")
            built.append(MACHINE)
        images[MACHINE_TEMPLATE] = images[MACHINE]
    return images, built


def _ensure_containers(
    images: Mapping[str, str],
    debian: str,
    base_image: str,
    mirror: str,
    context: Mapping[str, bytes],
    site: Mapping[str, bytes],
    cache: Path,
) -> list[str]:
    """Build those of the images that need no kernel and are missing; return their flavours."""
    missing = [flavour for flavour, image in images.items() if not image_exists(image)]
    if not missing:
        return []
    cache.mkdir(parents=True, exist_ok=True)
    if not image_exists(debian):
        _make_debian(debian, base_image, mirror, cache)
    staging = cache / "image.context"
    shutil.rmtree(staging, ignore_errors=True)
    for name, data in [*context.items(), *((f"site{path}", data) for path, data in site.items())]:
        file = staging / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o755 if name == "lab-init" else 0o644)
    for directory in staging.glob("**/"):
        directory.chmod(0o755)  # the builder copies modes, and /etc must not get this user's umask
    for flavour in missing:
        _build(staging, flavour, images[flavour], debian, cache / f"build-{flavour}.log")
    shutil.rmtree(staging)
    return missing


def inputs_hash(inputs: Mapping[str, bytes]) -> str:
    """Twelve hexadecimal digits that change when a name or a content changes."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        digest.update(f"{name}\0{len(inputs[name])}\0".encode())
        digest.update(inputs[name])
    return digest.hexdigest()[:12]


def site_files(mirror: str, proxy: str, authorities: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files that let a fresh Debian work on this machine's network, by absolute path.

    Args:
        mirror: archive to use instead of what the image names; "" to leave it.
        proxy: URL of the proxy that apt must use, or "".
        authorities: certificate authorities (PEM) by file name.
    """
    files = {f"/usr/local/share/ca-certificates/{name}": data for name, data in authorities.items()}
    # The directory must exist for the Dockerfile's COPY, and a documented apt setting is the cheapest content for it.
    conf = 'Acquire::Languages "none";\n'
    if proxy:
        conf += f'Acquire::http::Proxy "{proxy}";\nAcquire::https::Proxy "{proxy}";\n'
    files["/etc/apt/apt.conf.d/90lab"] = conf.encode()
    if mirror:
        files["/etc/apt/sources.list"] = ("\n".join(debian_sources(mirror)) + "\n").encode()
    return files


def debian_sources(mirror: str) -> list[str]:
    """Lines of a sources.list for a Debian archive: release, updates and security updates."""
    return [
        f"deb {mirror} {SUITE} main",
        f"deb {mirror} {SUITE}-updates main",
        f"deb {mirror}-security {SUITE}-security main",
    ]


def apt_mirror(sources: Iterable[str]) -> str:
    """URL of the Debian archive that a machine uses, out of the contents of its apt sources; "" when they name none.

    Only a URL that ends in "/debian" counts: such an archive keeps Debian's layout, with the security updates next to it. apt itself could
    tell (`apt-get indextargets`), but takes a second for it.
    """
    for text in sources:
        found = re.search(r"^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if found:
            return found[1]
    return ""


def image_exists(reference: str) -> bool:
    """Whether the engine has this image."""
    try:
        run(["docker", "image", "inspect", "--format", "{{.Id}}", reference])
    except CommandError:
        return False
    return True


def registry_answers(reference: str) -> bool:
    """Whether the registry of an image reference speaks to us within a few seconds."""
    host = reference.split("/")[0] if "/" in reference and re.search(r"[.:]", reference.split("/")[0]) else "docker.io"
    url = f"https://{'registry-1.docker.io' if host == 'docker.io' else host}/v2/"
    try:
        with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # asks for a token, which is how a registry says hello
    except OSError:
        return False


def remove_images() -> list[str]:
    """Remove every image of the lab, also those built on its base, except those that a container still uses, and the volumes of VMs with images.

    Returns:
        Names of the removed images and volumes.
    """
    removed = run(["docker", "volume", "ls", "--quiet", "--filter", f"label={LABEL}"]).split()
    if removed:
        run(["docker", "volume", "rm", *removed])
    while True:
        ls = ["docker", "images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]
        lines = run([*ls, "--filter", f"label={LABEL}"]).splitlines() + run([*ls, "berth-lab/debian"]).splitlines()
        used = _images_in_use()
        todo = dict(line.split(" ", 1) for line in lines if line.split(" ", 1)[0] not in used)
        before = len(removed)
        for identifier, name in todo.items():
            try:
                run(["docker", "rmi", "--force", identifier], timeout=120)
            except CommandError as error:
                if not re.search(r"being used|dependent child|No such image", error.output):
                    raise
            else:
                removed.append(name)
        if len(removed) == before:  # nothing left, or only what containers use
            return removed


def _images_in_use() -> set[str]:
    containers = run(["docker", "ps", "--all", "--quiet"]).split()
    if not containers:
        return set()
    return set(run(["docker", "inspect", "--format", "{{.Image}}", *containers]).split())


def _make_debian(tag: str, base_image: str, mirror: str, cache: Path) -> None:
    reasons = []
    # An engine with a registry mirror reaches Docker Hub where this machine cannot.
    mirrored = run(["docker", "info", "--format", "{{len .RegistryConfig.Mirrors}}"]).strip() != "0"
    if base_image:
        if image_exists(base_image) or mirrored or registry_answers(base_image):
            try:
                if not image_exists(base_image):
                    run(["docker", "pull", "--quiet", base_image], timeout=PULL_TIMEOUT)
                run(["docker", "tag", base_image, tag])
            except CommandError as error:
                reasons.append(f"the registry did not deliver {base_image} ({error.output or 'too slow'})")
            else:
                return
        else:
            reasons.append(f"the registry of {base_image} does not answer")
    if shutil.which("mmdebstrap") is None:
        raise LabError(
            f"There is no way to a Debian 13 image: {'; '.join([*reasons, 'mmdebstrap is not installed'])}.\n"
            "On Debian or Ubuntu type: sudo apt-get install mmdebstrap debian-archive-keyring\n"
            "Or name an image that can be pulled here: -e lab_base_image=REGISTRY/debian:13@sha256:…"
        )
    _bootstrap(tag, mirror, cache / "build-debian.log")


def _bootstrap(tag: str, mirror: str, log: Path) -> None:
    """Make a Debian image out of packages."""
    sources = debian_sources(mirror) if mirror else []
    # dpkg's fsync after every file is half of the time, and nothing here has to survive a power cut.
    options = ["--variant=minbase", "--include=ca-certificates", "--format=tar", "--dpkgopt=force-unsafe-io"]
    options.append('--aptopt=Acquire::Languages "none"')
    proxy = _machine_proxy()
    if proxy:
        options.append(f'--aptopt=Acquire::http::Proxy "{proxy}"')
    make = ["mmdebstrap", *options, SUITE, "-", *sources]
    load = ["docker", "import", "--change", f"LABEL {LABEL}=debian", "--change", 'CMD ["bash"]', "-", tag]
    with log.open("wb") as output:
        output.write(f"{' '.join(make)}\n".encode())
        output.flush()
        maker = subprocess.Popen(make, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output)
        loader = subprocess.run(load, stdin=maker.stdout, stdout=output, stderr=output, check=False)
        if maker.stdout:
            maker.stdout.close()
        made = maker.wait()
    if made != 0 or loader.returncode != 0:
        if image_exists(tag):  # docker import is content with a torn archive
            run(["docker", "rmi", tag])
        raise LabError(f"mmdebstrap could not make a Debian image. The end of {log}:\n{_tail(log)}")


def _build(context: Path, flavour: str, tag: str, base: str, log: Path) -> None:
    argv = ["docker", "build", "--target", flavour, "--build-arg", f"BASE_IMAGE={base}", "--tag", tag]
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if os.environ.get(name) or os.environ.get(name.upper()):
            argv += ["--build-arg", f"{name}={os.environ.get(name) or os.environ[name.upper()]}"]
    # The engine's own builder sees local images and needs no plugin, on every version of the command.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    with log.open("wb") as output:
        done = subprocess.run([*argv, str(context)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, check=False)
    if done.returncode != 0:
        raise LabError(f"The lab image {flavour} could not be built. The end of {log}:\n{_tail(log)}")


def _machine_proxy() -> str:
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY") or ""
    if not proxy and shutil.which("apt-config"):
        proxy = run(["apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy"]).strip()
    return proxy


def _local_authorities() -> dict[str, bytes]:
    files = (file for directory in LOCAL_AUTHORITIES for file in sorted(Path(directory).glob("**/*.[cp][re][tm]")) if file.is_file())
    return {file.with_suffix(".crt").name: file.read_bytes() for file in files if b"BEGIN CERTIFICATE" in file.read_bytes()}


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
