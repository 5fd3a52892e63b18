#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: images
short_description: Put container images on a host and say which ids they have
version_added: 0.1.0
description:
  - Asks the Docker API which of the wanted images the host has, and fetches only what is missing. With everything present
    it is one request.
  - With O(source=archive) the images come from an archive directory on the controller, written by
    M(berth.odoo.images_build). Free disk is checked first, layers that the host has already are not sent, the
    transferred file is verified, loaded and deleted, and the image's id is verified after that.
  - With O(source=registry) the host pulls them itself, with the credentials its C(docker login) stored.
  - With O(source=present) they must be there, put by somebody else.
  - With O(source=archive) it removes images that M(berth.odoo.images_build) made and newer ones of the same name have replaced. The newest
    three of a name, those of the last seven days and those that a container has, also a stopped one, stay.
  - An interrupted run is repaired by the next one.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Says what would be fetched, also where Docker is not installed yet.
    support: full
  diff_mode:
    description: An image has no difference to show.
    support: none
options:
  names:
    description: Images this host needs, such as V(odoo) and V(redis).
    type: list
    elements: str
    required: true
  source:
    description: Where missing images come from.
    type: str
    choices: [archive, registry, present]
    default: archive
  archive_dir:
    description: Directory on the controller that holds C(manifest.json) and the archives. Required with O(source=archive).
    type: path
  references:
    description:
      - Reference by name, with O(source=registry) and O(source=present).
      - An image id (C(sha256:…)) names an image that is present.
    type: dict
    default: {}
  require_digests:
    description: Refuse a reference by tag, whose content can change. Ids and archives always name one content.
    type: bool
    default: false
  temp_dir:
    description: Directory on the host for archives in transfer. On disk, not in memory.
    type: path
    default: /var/tmp
  wanted:
    description: The images with ids and references. Set by the action plugin.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {type: str, required: true, description: The image's name.}
      id: {type: str, default: '', description: "Its id, when it is known."}
      reference: {type: str, default: '', description: "Its reference, when it has one."}
  load:
    description: Archives on the host to load and delete. Set by the action plugin.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {type: path, required: true, description: File on the host.}
      sha256: {type: str, required: true, description: Its SHA-256.}
"""

EXAMPLES = r"""
- name: Load the images that the archive directory has and the host has not
  berth.odoo.images:
    names: [odoo, postgresql]
    archive_dir: /srv/images
  register: __images

- name: Pull by digest
  berth.odoo.images:
    names: [odoo]
    source: registry
    references:
      odoo: registry.example.com/odoo@sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945
    require_digests: true
"""

RETURN = r"""
references:
  description: Image id by name, for C(<role>_image). In check mode the reference where the id is not known yet.
  returned: success
  type: dict
  sample: {odoo: "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"}
images:
  description: What was done for each image, by name.
  returned: success
  type: dict
  contains:
    id: {type: str, description: Image id.}
    reference: {type: str, description: Name and tag or digest.}
    action: {type: str, description: "C(present), C(loaded) or C(pulled)."}
missing:
  description: Names of images that the host did not have.
  returned: success
  type: list
  elements: str
removed:
  description: Tags of images that newer ones have replaced and that are gone from this host.
  returned: with O(source=archive), when no image is missing
  type: list
  elements: str
sent_bytes:
  description: Bytes sent to this host.
  returned: when archives were sent
  type: int
engine:
  description: What the action plugin needs to know of the host to send archives.
  returned: with O(source=archive), when images are missing
  type: dict
  contains:
    layers: {type: list, elements: list, description: Layers of each image the host has.}
    disks: {type: list, elements: list, description: "Path, device number and free bytes of the temporary and of Docker's directory."}
"""

import http.client
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._image_archive import file_digest
from ..module_utils._images import Wanted, present_ids, superseded

# How an engine with containerd's image store says so; the default of new installations since Docker 29.
CONTAINERD_STORE = "io.containerd.snapshotter"


class ForeignStoreError(Exception):
    """The engine's way to keep images does not fit archives."""


def describe_engine(client: DockerClient, listed: list[dict[str, Any]], temp_dir: str) -> dict[str, Any]:
    """Return the layers this engine has, and the room on its disks."""
    layers = []
    for image in listed:
        try:
            layers.append(client.get(f"/images/{image['Id']}/json")["RootFS"].get("Layers") or [])
        except DockerError as error:
            # Removed by somebody else since it was listed.
            if error.status != http.client.NOT_FOUND:
                raise
    info = client.get("/info")
    if CONTAINERD_STORE in str(info.get("DriverStatus")):
        raise ForeignStoreError(
            "this host's engine keeps images in containerd's store, which numbers them differently and needs every layer."
            ' Set "features": {"containerd-snapshotter": false} in /etc/docker/daemon.json, or use images_source: registry.'
        )
    root = info["DockerRootDir"]
    disks = []
    for path in (temp_dir, root):
        space = os.statvfs(path)
        disks.append([path, Path(path).stat().st_dev, space.f_bavail * space.f_frsize])
    return {"layers": layers, "disks": disks}


def remove_superseded(client: DockerClient, listed: list[dict[str, Any]], keep: set[str], *, check_mode: bool) -> list[str]:
    """Remove images of ours that newer ones have replaced and that no container has, also none that is stopped. Return their tags."""
    found = superseded(listed, keep, time.time())
    if not found:
        return []
    used = {container["ImageID"] for container in client.get("/containers/json", all=True)}
    tags = [tag for image_id, names in found.items() if image_id not in used for tag in names]
    removed = []
    for tag in tags:
        try:
            if not check_mode:
                client.delete(f"/images/{tag}")
            removed.append(tag)
        except DockerError as error:
            # Somebody began to use it, or removed it, since we looked.
            if error.status not in (http.client.CONFLICT, http.client.NOT_FOUND):
                raise
    return removed


def load(module: AnsibleModule, archives: list[dict[str, str]]) -> None:
    """Verify, load and delete archives that were sent to this host."""
    for archive in archives:
        path = Path(archive["path"])
        found = file_digest(path)
        if found != archive["sha256"]:
            module.fail_json(
                msg=f"{path} arrived broken: SHA-256 {found} instead of {archive['sha256']}. Run again; if it stays, check disk and network."
            )
        rc, out, err = module.run_command(["docker", "load", "--quiet", "--input", str(path)])
        if rc != 0:
            module.fail_json(msg=f"docker load failed on this host: {err.strip() or out.strip()}", rc=rc)
        path.unlink()


def pull(module: AnsibleModule, item: Wanted) -> None:
    """Pull one image with the CLI, which knows the credentials and mirrors of this host."""
    rc, out, err = module.run_command(["docker", "pull", "--quiet", item.reference])
    if rc != 0:
        module.fail_json(
            msg=f"image {item.name}: docker pull {item.reference} failed: {err.strip() or out.strip()}. Check the reference in images_registry;"
            f" a private registry wants: docker login {item.reference.split('/')[0]} (as root, on this host)",
            rc=rc,
        )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "source": {"type": "str", "choices": ["archive", "registry", "present"], "default": "archive"},
            "archive_dir": {"type": "path"},
            "references": {"type": "dict", "default": {}},
            "require_digests": {"type": "bool", "default": False},
            "temp_dir": {"type": "path", "default": "/var/tmp"},  # noqa: S108 - the directory for temporary files that are on disk
            "wanted": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "id": {"type": "str", "default": ""},
                    "reference": {"type": "str", "default": ""},
                },
            },
            "load": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "sha256": {"type": "str", "required": True}},
            },
        },
        supports_check_mode=True,
    )
    source = module.params["source"]
    wanted = [Wanted(item["name"], item["id"], item["reference"]) for item in module.params["wanted"]]
    client = DockerClient()
    try:
        if module.params["load"]:
            load(module, module.params["load"])
        listed = client.get("/images/json")
        found = present_ids(wanted, listed)
        missing = [item for item in wanted if item.name not in found]
        result: dict[str, Any] = {"missing": [item.name for item in missing]}
        if missing and source == "archive" and not module.params["load"]:
            result["engine"] = describe_engine(client, listed, module.params["temp_dir"])
        if missing and source == "present":
            names = ", ".join(f"{item.name} ({item.reference or item.image_id})" for item in missing)
            module.fail_json(
                msg=f"images_source is 'present', and this host has no image {names}. It has:"
                f" {', '.join(sorted(tag for image in listed for tag in image.get('RepoTags') or ())) or 'none'}."
                " Put them there (docker load, docker pull) or set images_source to archive, registry or build."
            )
        if missing and source == "registry" and not module.check_mode:
            for item in missing:
                pull(module, item)
            found = present_ids(wanted, client.get("/images/json"))
        if source == "archive" and not missing:
            result["removed"] = remove_superseded(client, listed, set(found.values()), check_mode=module.check_mode)
    except DockerUnavailable as error:
        if not module.check_mode:
            module.fail_json(msg=f"Docker does not answer on this host: {error}. Install or start it first (role berth.odoo.docker).")
        found, missing = {}, wanted
        result = {"missing": [item.name for item in wanted]}
    except (DockerError, ForeignStoreError, OSError) as error:
        module.fail_json(msg=str(error))
    action = {"archive": "loaded", "registry": "pulled", "present": "missing"}[source]
    fetched = {item.name for item in missing}
    result["images"] = {
        item.name: {
            "id": found.get(item.name) or item.image_id,
            "reference": item.reference,
            "action": action if item.name in fetched else "present",
        }
        for item in wanted
    }
    result["references"] = {item.name: found.get(item.name) or item.image_id or item.reference for item in wanted}
    unfinished = [item.name for item in wanted if item.name not in found]
    # The first of the two calls with archives only looks; the action plugin reports the change.
    if unfinished and not module.check_mode and (module.params["load"] or source != "archive"):
        module.fail_json(msg=not_found_after(unfinished, wanted, found), **result)
    module.exit_json(changed=bool(missing) or bool(module.params["load"]) or bool(result.get("removed")), **result)


def not_found_after(unfinished: list[str], wanted: list[Wanted], found: dict[str, str]) -> str:
    """Explain images that are still not there after a load or pull that reported success."""
    expected = ", ".join(f"{item.name} {item.image_id or item.reference}" for item in wanted if item.name in unfinished)
    return (
        f"docker reported success and yet this host does not have {expected} (it has {found or 'none of the wanted images'})."
        " Somebody may have removed it in between, such as a scheduled docker image prune: run again."
    )


if __name__ == "__main__":
    main()
