#!/usr/bin/python
# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_project
short_description: Bring one Docker Compose project with its files into the wanted state
version_added: 0.1.0
description:
  - Takes a Compose definition as data and the configuration files of its services, and makes the host run exactly that, in one task.
  - Only services whose own inputs changed are recreated. Inputs are the service's definition, the image that is on the host under its name,
    the networks and volumes it uses, and the files that list it in O(files[].services). They are kept as keyed digests in labels of the
    container, so a run that was killed half way is repaired by the next one.
  - An unchanged project is recognised through the Docker API, without running C(docker compose).
  - Services that are missing, stopped, paused, unhealthy or restarting again and again are repaired.
  - Nothing is pulled or built. Images must be on the host already.
  - Gives services certificates of the platform's own authority, and renews them. The authority's key stays on the controller.
author: [berth.odoo contributors (@berth-odoo)]
requirements:
  - Docker Engine 20.10 or later with the Compose plugin 2.20 or later on the managed host
  - root on the managed host, so C(become=true)
  - for O(certificates) the Python package C(cryptography) on the controller, which ansible-core brings along
attributes:
  action:
    description: Renders templates on the controller and sends everything in one module execution.
    support: full
  check_mode:
    description: Predicts what would be done to each service and why. Works before Docker is installed.
    support: full
  diff_mode:
    description: Shows the files and the Compose definition before and after; of sensitive files only that they change.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  name:
    description:
      - Name of the project. Lower-case letters, digits, C(_) and C(-), at most 63 characters, a letter or digit first.
      - The project's directory is O(base_dir)/O(name).
    type: str
    required: true
  base_dir:
    description:
      - Absolute directory in which projects have their directories.
      - It also holds C(.key), the secret that digests of files are keyed with. Losing it costs one recreation of every container.
    type: str
    default: /opt/berth
  state:
    description:
      - V(present) makes files, containers and health as wanted.
      - V(prepared) makes the files as wanted and touches no container, so that something can be done between the two, such as migrating a
        database. RV(services) says what V(present) would do then.
      - V(stopped) makes the files as wanted and stops the containers.
      - V(absent) removes the containers, the project's own networks and every file this module wrote. Named volumes, O(directories) and files that
        this module did not write stay.
    type: str
    choices: [present, prepared, stopped, absent]
    default: present
  definition:
    description:
      - The Compose file as data, with C(services), and where needed C(networks) and C(volumes). Required unless O(state=absent).
      - An empty mapping of C(services) makes it a project of O(files) alone, such as a program that a timer of the host starts.
      - Values are literal. A C($) stays a C($); nothing is taken from the environment or from an C(.env) file.
      - A service with C(profiles) is written but never started; it is for C(docker compose run).
      - Networks with C(external) are made (driver bridge) when they do not exist.
      - Not a place for secrets, since everybody who may talk to Docker can read it. Use O(files) with O(files[].sensitive).
    type: dict
  override:
    description:
      - Merged into O(definition) recursively, last. A null removes a key; lists replace lists.
    type: dict
    default: {}
  files:
    description:
      - Files below the project's directory. Files that were listed by an earlier run and no longer are, are removed.
      - Mount their directory, not the single file, because a file is replaced by a new one when it changes.
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description: Path below the project's directory, such as V(config/redis.conf).
        type: str
        required: true
      template:
        description: A template, searched and rendered like those of M(ansible.builtin.template).
        type: str
      content:
        description: The content as text.
        type: str
      src:
        description: A file of the controller, searched like those of M(ansible.builtin.copy), copied byte for byte. A vaulted file is decrypted.
        type: str
      owner:
        description: Numeric user id of the owner.
        type: int
        default: 0
      group:
        description: Numeric group id.
        type: int
        default: 0
      mode:
        description:
          - Octal mode as a quoted string. The default is V('0444'), for sensitive files V('0440').
          - The directory of a sensitive file gets mode 0750, owner root and the file's group; other directories get 0755.
        type: str
      sensitive:
        description: The content never appears in results, diffs, logs, labels or command lines.
        type: bool
        default: false
      services:
        description:
          - Services to recreate when the file changes. One that also has a O(files[].reload) here is only reloaded.
          - Required unless O(files[].reload) is given; V([]) says that a change needs no action.
        type: list
        elements: str
      reload:
        description:
          - How services take over a change without being recreated, after everything else has been started. One mapping or a list of them.
          - Not done for a service that this run starts anyway. When it fails, the task fails, and the next run tries again.
        type: list
        elements: dict
        suboptions:
          service:
            description: Service whose containers are told.
            type: str
            required: true
          command:
            description: Command and arguments, run in the container without a shell.
            type: list
            elements: str
          signal:
            description: Signal for the container's first process, such as V(HUP).
            type: str
  authority:
    description:
      - The authority that signs O(certificates), such as C(platform_authority) of the inventory's secrets, which the playbook
        C(berth.odoo.secrets_init) makes. Required when O(certificates) is not empty. It is never shown, and its key is not sent to the host.
    type: dict
    suboptions:
      certificate:
        description:
          - Certificate of the authority as PEM text. When there are several, the first one signs, and all of them are trusted.
          - To change the authority without an interruption, run three times with V(old, new) and the old key, with V(new, old) and the new
            key, and with V(new) alone. Only the second run makes new keys.
        type: str
        required: true
      key:
        description: Private key of the first certificate as PEM text, without a passphrase.
        type: str
        required: true
  certificates:
    description:
      - Certificates for the services, each with a key of its own (EC, P-256). They are issued when missing, damaged,
        for other names or another use, of another authority, or longer valid than O(certificates[].days), and renewed when a third of their validity is left.
      - When all are good, nothing is parsed or sent; the task costs what it costs without them. Otherwise the module runs a second time with what
        the controller has made.
      - In check mode nothing is made; RV(certificates) says what would be, and why.
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description:
          - Directory below the project's, such as V(tls). It gets C(ca.crt) (every certificate of O(authority.certificate)), C(tls.crt) and C(tls.key).
          - Mode 0750, owner root and O(certificates[].group), as for sensitive files.
        type: str
        required: true
      common_name:
        description: Common name, at most 64 characters. It is among the alternative names, too.
        type: str
        required: true
      names:
        description: Further names, DNS names or IP addresses. Their order does not matter.
        type: list
        elements: str
        default: []
      owner:
        description: Numeric user id that owns C(tls.key), which nobody else may read (mode 0400). The other two belong to root, mode 0444.
        type: int
        default: 0
      group:
        description: Numeric group id.
        type: int
        default: 0
      days:
        description: Validity in days. It ends with the authority's at the latest.
        type: int
        default: 90
      usage:
        description:
          - What it is good for. V(server) for a service that shows it to nobody as a client. Whoever gets its key then is no client of the
            services that let in every certificate of the authority.
        type: str
        choices: [both, server]
        default: both
      services:
        description:
          - Services to recreate when one of the three files changes. One that also has a O(certificates[].reload) here is only reloaded.
          - Required unless O(certificates[].reload) is given; V([]) says that a change needs no action.
        type: list
        elements: str
      reload:
        description: How services take over a change without being recreated, as O(files[].reload).
        type: list
        elements: dict
        suboptions:
          service:
            description: Service whose containers are told.
            type: str
            required: true
          command:
            description: Command and arguments, run in the container without a shell.
            type: list
            elements: str
          signal:
            description: Signal for the container's first process, such as V(HUP).
            type: str
  directories:
    description: Directories for data, made with owner and mode when missing, corrected when different, never removed. Their content is not touched.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      owner:
        description: Numeric user id.
        type: int
        default: 0
      group:
        description: Numeric group id.
        type: int
        default: 0
      mode:
        description: Octal mode as a quoted string.
        type: str
        default: "0750"
  joins:
    description:
      - Networks that services join beside those of O(definition), a list of names by service. A container joins, and leaves what an earlier run let it
        join, as it runs - it is not made anew, as it would be for a network of the definition. It has the names there that it has on its own networks.
      - For a server that many others use, each on a network of its own, because on one network all of them would reach each other.
      - A network that does not exist is made. When the last container leaves, it is removed.
      - Name the networks so that they come after those of the definition in the alphabet, because a container's default route is that of the first.
    type: dict
    default: {}
  wait_timeout:
    description:
      - Seconds for all changed services to become healthy. A service with a longer C(start_period) gets that, and one more health check.
      - It ends early when a service ended, restarts again and again, or stays unhealthy, which is when twice as many checks in a row have failed as its
        C(retries) say. Compose itself gives up at once where C(depends_on) has the condition C(service_healthy).
      - A service without a health check counts as well when it has been running for a second.
    type: int
    default: 120
  lock_timeout:
    description: Seconds to wait for another run that changes the same project on the same host.
    type: int
    default: 15
  request:
    description: Internal. What the action plugin sends to the host; it cannot be set in a playbook.
    type: str
notes:
  - The task needs no C(no_log). It returns nothing sensitive, and C(no_log) would hide the explanation of a failure.
seealso:
  - module: community.docker.docker_compose_v2
"""

EXAMPLES = r"""
- name: Converge Redis
  berth.odoo.compose_project:
    name: redis
    definition:
      services:
        redis:
          image: berth/redis:8.0.2-0a1b2c3d4e5f
          command: [redis-server, /etc/redis/redis.conf]
          volumes:
            - ./config:/etc/redis:ro
            - ./secrets:/run/secrets/redis:ro
            - /var/lib/berth/redis:/data
          healthcheck:
            test: [CMD, redis-cli, ping]
            interval: 5s
    override: "{{ redis_compose_override }}"
    files:
      - dest: config/redis.conf
        template: redis.conf.j2
        services: [redis]
      - dest: secrets/users.acl
        template: users.acl.j2
        group: 46379
        sensitive: true
        reload:
          service: redis
          command: [redis-cli, ACL, LOAD]
    directories:
      - {path: /var/lib/berth/redis, owner: 46379, group: 46379, mode: "0750"}
    wait_timeout: 60

- name: Converge etcd with a certificate for its peers and clients
  berth.odoo.compose_project:
    name: etcd
    definition: "{{ etcd_definition }}"
    authority: "{{ platform_authority }}"
    certificates:
      - dest: tls
        common_name: "{{ inventory_hostname }}"
        names: [etcd, localhost, 127.0.0.1, "{{ etcd_publish_address }}"]
        owner: 42379
        group: 42379
        services: [etcd]

- name: Stop it, for example to restore its data
  berth.odoo.compose_project:
    name: redis
    definition: "{{ redis_definition }}"
    files: "{{ redis_files }}"
    state: stopped

- name: Remove it, keep its data
  berth.odoo.compose_project:
    name: redis
    state: absent
"""

RETURN = r"""
project_dir:
  description: The project's directory.
  returned: always
  type: str
  sample: /opt/berth/redis
services:
  description: What was done, or in check mode would be done, to each service.
  returned: always
  type: dict
  contains:
    action:
      description: >-
        One of V(created), V(recreated), V(started) (also restarted or unpaused), V(reloaded), V(stopped), V(removed), V(unchanged).
      type: str
    reasons:
      description: Why.
      type: list
      elements: str
  sample:
    redis: {action: recreated, reasons: ["environment changed", "file config/redis.conf changed"]}
files:
  description: Files below the project's directory that were written or removed.
  returned: always
  type: dict
  contains:
    created:
      description: Files that were not there.
      type: list
      elements: str
    changed:
      description: Files with another content, owner or mode.
      type: list
      elements: str
    removed:
      description: Files that are no longer listed.
      type: list
      elements: str
certificates:
  description: What was done, or in check mode would be done, to each certificate.
  returned: when the request was understood
  type: list
  elements: dict
  contains:
    dest:
      description: Its directory below the project's.
      type: str
    action:
      description: One of V(issued), V(renewed), V(unchanged). A renewed one only had too little time left.
      type: str
    reason:
      description: Why; empty when it is unchanged.
      type: str
    not_after:
      description: Its last second, UTC.
      type: str
  sample: [{dest: tls, action: issued, reason: no certificate yet, not_after: "2027-02-22T18:00:00Z"}]
directories:
  description: Data directories that were made or corrected.
  returned: always
  type: list
  elements: str
networks:
  description: External networks that were made; with O(state=absent) the project's networks that were removed.
  returned: always
  type: list
  elements: str
joins:
  description: Containers that joined or left a network as they ran. New ones are not among them.
  returned: always
  type: list
  elements: str
  sample: [pgbouncer joins berth-odoo-shop]
failures:
  description: Services that did not become well.
  returned: when a service failed
  type: list
  elements: dict
  contains:
    service:
      description: Name of the service.
      type: str
    container:
      description: Name of the container.
      type: str
    reason:
      description: What is wrong with it.
      type: str
    log:
      description: Its last log lines.
      type: list
      elements: str
"""

import base64
import json
import os
import zlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.berth.odoo.plugins.module_utils._compose_host import Request, execute
from ansible_collections.berth.odoo.plugins.module_utils._compose_spec import ARGUMENT_SPEC
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import DockerClient

SILENCE = 300.0
"""Seconds without an answer of the engine. A command with which a service takes over changed files says nothing until it is through."""


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # What Ansible would return as the invocation holds the whole request; this is what may be shown of it.
    shown: dict[str, Any] = {"invocation": {"module_args": {"name": module.params["name"], "state": module.params["state"]}}}
    if not module.params["request"]:
        module.fail_json("compose_project was run without its action plugin; call it as berth.odoo.compose_project", **shown)
    if os.geteuid() != 0:
        module.fail_json("compose_project needs root on the host: set become: true for the play or the task", **shown)
    request = Request.from_dict(json.loads(zlib.decompress(base64.b64decode(module.params["request"]))))
    with DockerClient(timeout=SILENCE) as docker:
        result = execute(request, docker, module.check_mode)
    for warning in result.pop("warnings"):
        module.warn(warning)
    if not module._diff:
        del result["diff"]
    if result.get("failed"):
        module.fail_json(**shown, **result)
    module.exit_json(**shown, **result)


if __name__ == "__main__":
    main()
