# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform's images in the engine of a new VM, as a virtual machine that was made from a template has them.

An engine loads the archives once, into a volume. A VM's engine gets links to the files of its layers: no engine changes those, it makes
layers and removes them. A machine with a kernel of its own sees no files of the machine outside: it gets a disk with copies of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .images import LABEL, inputs_hash
from .run import CommandError, run

ABSENT = 9  # exit code of LINK when the volume was not filled, or not to the end
LINK = f"""
test -e "/volumes/$1/_data/complete" || exit {ABSENT}
cp --archive --link "/volumes/$1/_data/overlay2" "/volumes/$2/_data/" && cp --archive "/volumes/$1/_data/image" "/volumes/$2/_data/"
"""
# 16 GB are what the disk may hold in the end; what is empty takes no place.
DISK = f"""
test -e "/volumes/$1/_data/complete" || exit {ABSENT}
root="/volumes/$2/_data/images"
rm -rf "$root" && mkdir "$root" && cp --archive --link "/volumes/$1/_data/overlay2" "/volumes/$1/_data/image" "$root/" &&
mke2fs -q -t ext4 -d "$root" "$root.img" 16G && rm -rf "$root"
"""
# What an interrupted run left is thrown away. Without a network: nothing runs in this engine.
LOAD = """
rm -rf /var/lib/docker/*
dockerd --iptables=false --bridge=none > /tmp/log 2>&1 &
until docker info > /dev/null 2>&1; do kill -0 $! || { tail -n 20 /tmp/log; exit 1; }; sleep 0.2; done
for archive; do docker load --quiet --input "/archives/$archive" || exit; done
kill $! && wait $! && touch /var/lib/docker/complete
"""


def fill(container: str, image: str, archives: Path, capabilities: Sequence[str], machine: str = "") -> None:
    """Put the images into a VM that was created and not started. Without all archives nothing is done: deploying will bring the images.

    Args:
        container: the VM.
        image: reference of an image that has the engine.
        archives: directory that playbooks/images.yml wrote.
        capabilities: names of the capabilities that an engine needs.
        machine: reference of its image where it has a kernel of its own.

    Raises:
        CommandError: an archive cannot be loaded.
    """
    manifest = archives / "manifest.json"
    if not manifest.exists():
        return
    # Images with modules of somebody's own come and go, and share their layers with these.
    files = [entry["file"] for name, entry in sorted(json.loads(manifest.read_text())["images"].items()) if "-" not in name]
    if not all((archives / file).exists() for file in files):
        return
    volume = "berth-lab-images-" + inputs_hash(dict.fromkeys([image, str(archives), *files], b""))
    run(["docker", "volume", "create", "--label", f"{LABEL}={archives}", volume])
    give = (machine, DISK) if machine else (image, LINK)
    try:
        _give(volume, container, *give)
    except CommandError as error:
        if error.returncode != ABSENT:
            raise
        _load(volume, image, archives, files, capabilities)
        _give(volume, container, *give)
        _remove_others(volume, archives)


def _remove_others(volume: str, archives: Path) -> None:
    """Remove the volumes of earlier archives, also of checkouts that are gone. VMs keep what they have when the volume that it came from goes."""
    ls = ["docker", "volume", "ls", "--filter", f"label={LABEL}", "--format", f'{{{{.Name}}}}\t{{{{.Label "{LABEL}"}}}}']
    for name, place in (line.split("\t") for line in run(ls).splitlines()):
        if name != volume and (place == str(archives) or not Path(place).exists()):
            run(["docker", "volume", "rm", name])


def _give(volume: str, container: str, image: str, script: str) -> None:
    ask = '{{range .Mounts}}{{if eq .Destination "/var/lib/docker"}}{{.Name}}{{end}}{{end}}'
    target = run(["docker", "inspect", "--format", ask, container]).strip()
    volumes = Path(run(["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]).strip()).parents[1]
    # Links do not reach from one mount into another, so both are seen through the directory that they are in.
    mount = ["--mount", f"type=bind,source={volumes},target=/volumes"]
    run(
        ["docker", "run", "--rm", "--network", "none", *mount, "--entrypoint", "sh", image, "-c", script, "sh", volume, target], timeout=600
    )


def _load(volume: str, image: str, archives: Path, files: Sequence[str], capabilities: Sequence[str]) -> None:
    # Whoever is killed leaves its engine at work on the volume.
    left = run(["docker", "ps", "--all", "--quiet", "--filter", f"name=^/{volume}$"]).split()
    if left:
        run(["docker", "rm", "--force", *left])
    argv = [
        "docker",
        "run",
        "--rm",
        "--name",
        volume,
        "--network",
        "none",
        "--mount",
        f"type=volume,source={volume},target=/var/lib/docker",
    ]
    argv += ["--mount", f"type=bind,source={archives},target=/archives,readonly", "--tmpfs", "/run"]
    argv += [flag for name in capabilities for flag in ("--cap-add", name)]
    argv += [flag for option in ("seccomp", "apparmor", "systempaths") for flag in ("--security-opt", f"{option}=unconfined")]
    run([*argv, "--entrypoint", "sh", image, "-c", LOAD, "sh", *files], timeout=1800)
