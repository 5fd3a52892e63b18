#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: images_build
short_description: Build the platform's images and keep them as archives on the controller
version_added: 0.1.0
description:
  - Builds each image with the Docker engine of the host it runs on, from a directory of Dockerfiles on the controller.
  - Runs each image's C(contract.sh) in it, as its own user without network, capabilities or a writable root; an image that
    does not hold what it should is not named, archived or used.
  - Labels each image with its version and the hash of its inputs, which are the Dockerfile and the files beside it, the build
    arguments, the id of the base image and O(refresh). With the same inputs nothing is built again.
  - After it has built something it removes images of its own that newer ones of the same name have replaced. The newest three of a name,
    those of the last seven days, what they are built on, and those that a container has, also a stopped one, stay.
  - With O(archive_dir) it writes one archive an image and C(manifest.json) there, for M(berth.odoo.images), and beside each archive a
    bill of materials in CycloneDX's JSON, with Debian's packages, Python's and Odoo's modules.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Says what would be built, also where Docker is not installed yet.
    support: full
  diff_mode:
    description: An image has no difference to show.
    support: none
options:
  names:
    description: Images to build, each a directory of O(contexts_dir) with a C(Dockerfile) and a C(contract.sh).
    type: list
    elements: str
    required: true
  contexts_dir:
    description:
      - Directory on the controller with a directory an image, and C(common), which every image's build also sees.
    type: path
    required: true
  base_image:
    description: Image of Debian 13 that all are built from. Pulled when the build host does not have it.
    type: str
    required: true
  build_args:
    description:
      - Build arguments; each image takes those that its Dockerfile declares. One that no Dockerfile declares is refused.
      - C(EXTRA_CA_CERTIFICATES) (PEM text in base64) defaults to the authorities the build host's administrator added,
        C(PIP_INDEX_URL) and proxies to the environment of the build host.
    type: dict
    default: {}
  refresh:
    description: Free text that enters the inputs' hash. Changing it builds again, with the packages of the day.
    type: str
    default: ''
  archive_dir:
    description: Directory on the controller for archives and C(manifest.json). Without, the images stay on the build host.
    type: path
  temp_dir:
    description: Directory on the build host for archives in transfer. On disk, not in memory.
    type: path
    default: /var/tmp
  parallel:
    description: Images built at the same time.
    type: int
    default: 2
  files:
    description: The build contexts, packed. Set by the action plugin.
    type: str
    default: ''
  addons:
    description:
      - Odoo modules and Python packages by image. Such an image is laid on the image C(odoo), is checked as that is, and may have any
        name that no Dockerfile has, or C(odoo).
      - C(addons) is a list of directories and archives of modules on the controller, C(requirements) a file there with packages pinned by
        version and hash.
    type: dict
    default: {}
  known:
    description: Inputs' hash of each archive that is there. Set by the action plugin.
    type: dict
    default: {}
  save_dir:
    description: Directory on the build host to write archives to. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: Lay a site's own modules and a package of OCA on the image of Odoo
  berth.odoo.images_build:
    names: [odoo]
    contexts_dir: "{{ role_path }}/files"
    base_image: debian:trixie-slim
    addons:
      odoo:
        addons: [/srv/acme/addons]
        requirements: /srv/acme/requirements.txt

- name: Build the images on the machine that runs Ansible
  berth.odoo.images_build:
    names: [odoo, postgresql]
    contexts_dir: "{{ role_path }}/files"
    base_image: debian:trixie-slim
    archive_dir: /srv/images
  delegate_to: localhost
"""

RETURN = r"""
references:
  description: Image id by name; in check mode the coming tag where an image would be built.
  returned: success
  type: dict
  sample: {odoo: "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"}
images:
  description: What was done for each image, by name.
  returned: success
  type: dict
  contains:
    action: {type: str, description: "C(built), C(saved) (built before, archived now) or C(unchanged)."}
    id: {type: str, description: Image id.}
    reference: {type: str, description: Name and tag.}
    version: {type: str, description: Version of the software.}
    inputs: {type: str, description: Hash of the inputs.}
    revision: {type: str, description: "Git revision of the modules in O(addons), C(-dirty) at its end when files differ from it."}
    sbom: {type: str, description: "The bill of materials, a file in O(archive_dir)."}
    contract: {type: dict, description: What the contract check found.}
    seconds: {type: float, description: Time for building and archiving.}
"""

import base64
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _image_build, _images
from ..module_utils._image_archive import ArchiveError, file_digest

# Measured for all six images: layers, and docker save's own copy of the largest while it is archived; then the archives.
NEEDED_BY_IMAGES = 6 << 30
NEEDED_BY_ARCHIVES = 1 << 30
# The name that CycloneDX gives to its files.
SBOM = ".cdx.json"


def access_args(given: dict[str, str]) -> dict[str, str]:
    """Build arguments by which the build reaches its sources, from this machine where nobody said otherwise."""
    found = {name: value for name in sorted(_images.ACCESS_ARGS) if (value := os.environ.get(name))}
    if "EXTRA_CA_CERTIFICATES" not in given and (authorities := _image_build.local_authorities()):
        encoded = base64.b64encode(authorities.encode()).decode()
        if len(encoded) > _image_build.LARGEST_ARGUMENT:
            raise _image_build.BuildError(
                f"the certificate authorities added on this build host are {len(encoded)} bytes in base64, more than a build argument takes;"
                " give the ones your package index needs: images_build_args: {EXTRA_CA_CERTIFICATES: <PEM in base64>}"
            )
        found["EXTRA_CA_CERTIFICATES"] = encoded
    return {**found, **given}


def plan(params: dict[str, Any], *, may_pull: bool) -> list[_image_build.Build]:
    """Return what each image is built from. Raises BuildError."""
    files = _image_build.unpack_files(params["files"])
    given = {key: str(value) for key, value in params["build_args"].items()}
    contexts = {name: _image_build.context_of(_image_build.ADDONS if name in params["addons"] else name, files) for name in params["names"]}
    # An argument belongs to one image or another: also to one that is not built today.
    everything = (content for path, (_mode, content) in files.items() if path.endswith("/Dockerfile"))
    _image_build.check_args(given, set().union(*map(_image_build.declared_args, everything)))
    base_id = _image_build.base_image_id(params["base_image"], may_pull=may_pull) or ""
    args = access_args(given)

    def own_args(dockerfile: tuple[int, bytes]) -> dict[str, str]:
        declared = _image_build.declared_args(dockerfile[1])
        # Docker knows the proxies without a declaration.
        return {key: value for key, value in args.items() if key in declared or key.upper().endswith("_PROXY")}

    def plain(name: str, context: dict[str, tuple[int, bytes]]) -> _image_build.Build:
        own = own_args(context[f"{name}/Dockerfile"])
        inputs = _images.inputs_hash(context, base_id, own, params["refresh"])
        return _image_build.Build(name, context, own, params["base_image"], base_id, inputs)

    def with_addons(name: str, given: dict[str, Any]) -> _image_build.Build:
        on = plain(_image_build.ODOO, _image_build.context_of(_image_build.ODOO, files))
        context = {
            **{path: value for path, value in on.files.items() if "/contract." in path},
            **_image_build.context_of(_image_build.ADDONS, files),
            f"{_image_build.ADDONS}/needs.txt": (0o644, b"pip\n" if given["requirements"].strip() else b""),
            f"{_image_build.ADDONS}/requirements.txt": (0o644, given["requirements"].encode()),
            f"{_image_build.ADDONS}/modules.txt": (0o644, "".join(f"{module}\n" for module in sorted(given["modules"])).encode()),
        }
        own = own_args(context[f"{_image_build.ADDONS}/Dockerfile"])
        # Not the id of the image below: another build host, which has it to build first, would call the same modules something else.
        content = {**context, _image_build.MODULES_TAR: (0o644, given["sha256"].encode())}
        inputs = _images.inputs_hash(content, on.inputs, own, "")
        return _image_build.Build(name, context, own, on.base, base_id, inputs, on, given["path"], given["revision"])

    return [
        with_addons(name, params["addons"][name]) if name in params["addons"] else plain(name, context)
        for name, context in contexts.items()
    ]


def make(build: _image_build.Build, save_dir: str | None) -> dict[str, Any]:
    """Build one image where needed and write its archive when a directory is given. Raises BuildError."""
    begin = time.monotonic()
    reference, facts, new = _image_build.ensure_built(build)
    if save_dir:
        archive = Path(save_dir, f"{build.name}.tar")
        entry = _image_build.entry(build, reference, facts, _image_build.save(reference, archive), archive)
        entry["path"] = str(archive)
        bill = Path(save_dir, f"{build.name}{SBOM}")
        bill.write_text(_image_build.bill_of_materials(reference), encoding="utf-8")
        entry["sbom"] = entry["file"].removesuffix(".tar") + SBOM
        entry["sbom_path"], entry["sbom_sha256"] = str(bill), file_digest(bill)
    else:
        entry = {
            "id": _image_build.inspect(reference)[0],
            "reference": reference,
            "version": facts["version"],
            "inputs": build.inputs,
            "contract": facts,
        }
    if new:
        entry["action"] = "built"
    else:
        entry["action"] = "saved" if save_dir else "unchanged"
    entry["seconds"] = round(time.monotonic() - begin, 1)
    return entry


def predict(build: _image_build.Build) -> dict[str, Any]:
    """Say what :func:`make` would do."""
    image_id = _image_build.built(build) if build.base_id else None
    reference = _image_build.reference_of(image_id, build) if image_id else None
    coming = f"{_image_build.REPOSITORY}/{build.name}:build-{build.inputs[:12]}"
    return {"id": image_id or "", "reference": reference or coming, "inputs": build.inputs, "action": "unchanged" if reference else "built"}


def run_all(
    module: AnsibleModule, builds: list[_image_build.Build], work: Callable[[_image_build.Build], dict[str, Any]]
) -> dict[str, Any]:
    """Make the images, some at a time; every failure is reported, not the first alone."""
    images, problems = {}, []
    with ThreadPoolExecutor(max_workers=max(1, module.params["parallel"])) as pool:
        running = {build.name: pool.submit(work, build) for build in builds}
        for name, future in running.items():
            try:
                images[name] = future.result()
            except (_image_build.BuildError, ArchiveError, OSError) as error:
                problems.append(str(error))
    if problems:
        module.fail_json(msg="\n\n".join(problems))
    return images


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "contexts_dir": {"type": "path", "required": True},
            "base_image": {"type": "str", "required": True},
            "build_args": {"type": "dict", "default": {}},
            "refresh": {"type": "str", "default": ""},
            "archive_dir": {"type": "path"},
            "temp_dir": {"type": "path", "default": "/var/tmp"},  # noqa: S108 - the directory for temporary files that are on disk
            "parallel": {"type": "int", "default": 2},
            "files": {"type": "str", "default": ""},
            "addons": {"type": "dict", "default": {}},
            "known": {"type": "dict", "default": {}},
            "save_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    save_dir = module.params["save_dir"]
    images: dict[str, Any] = {}
    try:
        try:
            builds = plan(module.params, may_pull=not module.check_mode)
        except _image_build.BuildError as error:
            # The first check of a fresh host: everything would be built, once Docker is there.
            if not module.check_mode or not docker_is_missing(str(error)):
                raise
            images = {
                name: {"id": "", "reference": f"{_image_build.REPOSITORY}/{name}:build", "action": "built"}
                for name in module.params["names"]
            }
            builds = []
        due = []
        for build in builds:
            if module.params["known"].get(build.name) == build.inputs:
                images[build.name] = {"action": "unchanged", "inputs": build.inputs}
            else:
                due.append(build)
        if due and module.check_mode:
            images.update({build.name: predict(build) for build in due})
        elif send := [build.name for build in due if build.on and not build.modules and _image_build.built(build) is None]:
            module.exit_json(changed=False, images=images, references={}, send=send)
        elif due:
            check_disk(save_dir or module.params["temp_dir"], due)
            # Before those that are laid on it, which would each build it, at the same time.
            below = {build.on.inputs: build.on for build in due if build.on and _image_build.built(build) is None}
            run_all(module, list(below.values()), lambda build: {"reference": _image_build.ensure_built(build)[0]})
            images.update(run_all(module, due, lambda build: make(build, save_dir)))
            if any(image["action"] == "built" for image in images.values()):
                _image_build.remove_fetch_stages()
                _image_build.remove_superseded()
    except (_image_build.BuildError, _images.ImageError, OSError) as error:
        module.fail_json(msg=str(error))
    changed = any(image["action"] != "unchanged" for image in images.values())
    references = {name: image.get("id") or image.get("reference", "") for name, image in images.items()}
    module.exit_json(changed=changed, images=images, references=references)


def docker_is_missing(message: str) -> bool:
    """Whether a failure means that this host has no Docker engine yet."""
    return "not installed on this build host" in message or "Cannot connect to the Docker daemon" in message


def check_disk(directory: str, due: list[_image_build.Build]) -> None:
    """Refuse to start a build that the disk cannot hold. Raises ImageError."""
    if not any(_image_build.built(build) is None for build in due):
        return
    root = _image_build.docker(["info", "--format", "{{.DockerRootDir}}"]).strip()
    places = []
    # An engine in another machine or container has its directory elsewhere.
    for what, path, needed in (("images", root, NEEDED_BY_IMAGES), ("archives", directory, NEEDED_BY_ARCHIVES)):
        if Path(path).is_dir():
            space = os.statvfs(path)
            places.append((what, path, Path(path).stat().st_dev, space.f_bavail * space.f_frsize, needed))
    _images.check_disk("the build host", places)


if __name__ == "__main__":
    main()
