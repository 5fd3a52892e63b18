#!/usr/bin/python
# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: odoo_instance_info
short_description: Read what an Odoo instance has on a host
version_added: 0.1.0
description:
  - Reads the files that M(berth.odoo.compose_project) put on the host for an instance, which may have left the inventory.
author: [berth.odoo contributors (@berth-odoo)]
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  name:
    description: Name of the instance, C([a-z][a-z0-9-]*).
    type: str
    required: true
  base_dir:
    description: Directory that holds the projects.
    type: path
    default: /opt/berth
seealso:
  - module: berth.odoo.compose_project
"""

EXAMPLES = r"""
- name: Read what it has
  berth.odoo.odoo_instance_info:
    name: shop
  register: __instance
"""

RETURN = r"""
database:
  description: Name of its database; empty where the instance is not on the host.
  returned: always
  type: str
  sample: shop
directories:
  description: Directories of its files, that of its containers and the one that instances have where the inventory says nothing.
  returned: always
  type: list
  elements: str
  sample: [/var/lib/berth/odoo/shop]
attachments_in_s3:
  description: Whether it has keys of S3, where its attachments are then, below the name of its database.
  returned: always
  type: bool
shared:
  description: Each other instance of the host with files in one of RV(directories), or around it.
  returned: always
  type: list
  elements: str
  sample: [main has /srv/odoo]
"""

import json
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._odoo_instance import HOME, directories, shared


def read_directories(module: AnsibleModule, project: Path) -> list[str]:
    """Ask Compose, because an override may say something else than the role, and follow links, because what they lead to is what is deleted."""
    command = [
        "docker",
        "compose",
        "--ansi=never",
        f"--project-name={project.name}",
        "--env-file=/dev/null",
        f"--project-directory={project}",
    ]
    _rc, output, _words = module.run_command([*command, f"--file={project}/compose.yml", "config", "--format=json"], check_rc=True)
    return [str(Path(path).resolve()) for path in directories(json.loads(output))]


def main() -> None:
    module = AnsibleModule(
        argument_spec={"name": {"type": "str", "required": True}, "base_dir": {"type": "path", "default": "/opt/berth"}},
        supports_check_mode=True,
    )
    name, base = module.params["name"], Path(module.params["base_dir"])
    settings = base / f"odoo-{name}/config/maintenance/odoo.conf"
    database = re.search(r"^db_name = (.+)$", settings.read_text(encoding="utf-8"), re.MULTILINE) if settings.exists() else None
    found = {
        file.parent.name.removeprefix("odoo-"): read_directories(module, file.parent) for file in sorted(base.glob("odoo-*/compose.yml"))
    }
    # Where it would be without odoo_data_dir: restores have put files there.
    own = list(dict.fromkeys([*found.pop(name, []), str(Path(HOME, name).resolve())]))
    module.exit_json(
        changed=False,
        database=database[1] if database else "",
        directories=own,
        attachments_in_s3=(base / f"odoo-{name}/secrets/s3.ini").exists(),
        shared=shared(own, found),
    )


if __name__ == "__main__":
    main()
