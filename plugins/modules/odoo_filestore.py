#!/usr/bin/python
# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: odoo_filestore
short_description: Keep the attachments of an Odoo instance in S3, and move there what is in its data directory
version_added: 0.1.0
description:
  - Keeps the storage C(berth) of the OCA module C(fs_attachment_s3), which must be installed, in the wanted bucket, below the name of the database, and
    makes it the one for new attachments.
  - Copies attachments from the data directory to S3. Each one is read back before Odoo looks for it there, and each is a transaction of its own, so
    that an interruption costs nothing. Nothing in the data directory is deleted.
  - The keys are not handed to this module. Odoo reads them from the file that C(AWS_SHARED_CREDENTIALS_FILE) of its containers names; they are
    never in the database.
  - Refuses, before anything is changed, an image that lacks the module or its libraries, a place in S3 that it cannot list, read, write and delete in,
    one that belongs to another database, and another bucket than the one where attachments are.
  - Asks a container that runs, in about 0.2 s; only when something has to change it starts a container of the project's service C(maintenance).
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Predicts from what the database says, without asking S3.
    support: full
  diff_mode:
    description: The result says in words what changes.
    support: none
options:
  project:
    description: Compose project of the instance.
    type: str
    required: true
  base_dir:
    description: Directory that holds the projects.
    type: path
    default: /opt/berth
  filestore:
    description: Where attachments shall be. Without it in the data directory, which is refused while attachments are in S3.
    type: dict
    suboptions:
      endpoint:
        description: Address of the server, C(https) and without a path.
        type: str
        required: true
      bucket:
        description: Bucket, which must exist.
        type: str
        required: true
      region:
        description: Region of the bucket. Without it V(us-east-1), which servers without regions expect.
        type: str
      ca_file:
        description: Path in the containers of the PEM file of the authorities that sign the server's certificate. Without it the public ones.
        type: str
  only_check:
    description: Whether only to find out whether it can be done. Nothing is changed but a probe object, which is deleted at once.
    type: bool
    default: false
  collect:
    description:
      - Whether objects that nobody has used for a day are deleted. Without it that stays as it is. It is off after a restore in place and a clone, because what
        they replaced has its attachments in the same place, and on when that is forgotten.
    type: bool
  move_seconds:
    description: Seconds after which moving ends; the next run goes on.
    type: int
    default: 600
  lock_timeout:
    description: Seconds to wait for another operation on this project or its database.
    type: int
    default: 300
seealso:
  - module: berth.odoo.odoo_database
"""

EXAMPLES = r"""
- name: Keep attachments in S3
  berth.odoo.odoo_filestore:
    project: odoo-main
    filestore:
      endpoint: https://s3.example.com
      bucket: odoo-files
"""

RETURN = r"""
changes:
  description: What was done, or would be in check mode or with O(only_check).
  returned: always
  type: list
  elements: str
  sample: ["keep attachments in odoo-files/{db_name}", "move 1523 attachments to S3"]
moved:
  description: How many attachments were moved.
  returned: always
  type: int
  sample: 1523
local:
  description: How many are still in the data directory.
  returned: always
  type: int
  sample: 0
record:
  description: What the storage in Odoo shall say, in which there are no keys. Empty without O(filestore).
  returned: always
  type: dict
  sample: {"protocol": "s3", "directory_path": "odoo-files/{db_name}"}
owner:
  description: Id of the database, which lies in its place in S3. Empty when nothing could be asked.
  returned: always
  type: str
unreadable:
  description: Ids of attachments that cannot be moved, because their file is not in the data directory or has another content than it had.
  returned: always
  type: list
  elements: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._compose_files import HostError
from ..module_utils._docker_api import DockerError, DockerUnavailable
from ..module_utils._odoo_filestore import filestore_changes, refusal, storage_record, value_problems
from ..module_utils._odoo_inside import listed
from ..module_utils._odoo_project import OdooError, OdooProject, Silent

# For the container to start, and for the last attachment.
MARGIN_S = 120


def read_state(project: OdooProject, module: AnsibleModule) -> dict[str, Any] | None:
    """Return where the attachments are, None when there is nothing to ask yet."""
    question = {"do": "filestore_state", "wait": module.params["lock_timeout"]}
    try:
        return project.ask(question)
    except Silent:
        # Without a wanted place it is asked for attachments that would be lost; while nothing runs, that is not worth a container.
        if module.params["filestore"] and project.deployed and not module.check_mode:
            return project.work(question, MARGIN_S)[0]
        return None


def converge(module: AnsibleModule, project: OdooProject) -> dict[str, Any]:
    """Compare, change unless in check mode, and return the module's result."""
    filestore = module.params["filestore"] or {}
    problems = [f"filestore.{key} is {found}, not {expected}" for key, found, expected in value_problems(filestore)]
    if problems:
        raise OdooError("\n".join(problems))
    record = storage_record(filestore, module.params["collect"]) if filestore else None
    result: dict[str, Any] = {
        "changed": False,
        "changes": [],
        "moved": 0,
        "local": 0,
        "unreadable": [],
        "owner": "",
        "record": record or {},
    }
    state = read_state(project, module)
    if state is None:
        if module.check_mode and record:
            return {**result, "changed": True, "changes": [f"keep attachments in {record['directory_path']}"]}
        return result
    words = refusal(record, state)
    if words:
        raise OdooError(words)
    result["changes"], result["local"], result["owner"] = filestore_changes(record, state), state["local"], state["owner"]
    if record is None or not (result["changes"] or state["local"]):
        return result
    if module.check_mode:
        result["changes"] += [f"move {state['local']} attachments to S3"] if state["local"] else []
        return {**result, "changed": True}
    seconds = module.params["move_seconds"]
    request = {"do": "filestore", "record": record, "only_check": module.params["only_check"], "seconds": seconds}
    after, logged = project.work({**request, "wait": module.params["lock_timeout"]}, seconds + MARGIN_S)
    if module.params["only_check"]:
        return result
    left = filestore_changes(record, after)
    if left:
        raise OdooError("\n".join(["Odoo reported success, but this is left:", *left, *logged]))
    result.update(moved=after["moved"], unreadable=after["unreadable"], local=after["local"])
    if after["moved"]:
        result["changes"].append(f"move {after['moved']} attachments to S3")
    if after["unreadable"]:
        module.warn(
            f"{len(after['unreadable'])} attachments stay in the data directory, because their file is missing or damaged there: "
            f"ids {listed(map(str, after['unreadable']))}. Restore the files from a backup, or delete these attachments in Odoo"
        )
    waiting = after["local"] - len(after["unreadable"])
    if waiting > 0:
        module.warn(f"{waiting} attachments wait to be moved to S3 and are read from the data directory of this host until then: run again")
    return {**result, "changed": bool(result["changes"])}


def main() -> None:
    place = {
        "endpoint": {"type": "str", "required": True},
        "bucket": {"type": "str", "required": True},
        "region": {"type": "str"},
        "ca_file": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "base_dir": {"type": "path", "default": "/opt/berth"},
            "filestore": {"type": "dict", "options": place},
            "only_check": {"type": "bool", "default": False},
            "collect": {"type": "bool"},
            "move_seconds": {"type": "int", "default": 600},
            "lock_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    project = OdooProject(module.params["project"], module.params["base_dir"], "odoo_filestore")
    try:
        module.exit_json(**converge(module, project))
    except (OdooError, HostError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"{project.name}: {error}")


if __name__ == "__main__":
    main()
