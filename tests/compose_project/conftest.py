# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run compose_project from a playbook against a lab VM with a real engine.

By hand, against a lab that stays:

    ansible-playbook molecule/shared/create.yml -e lab_name=mine -e '{"lab_vms": [{"name": "vm1", "image": "vm-docker"}]}'
    BERTH_LAB=mine pytest tests/compose_project
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.berth.odoo.plugins.action.compose_project import ActionModule
from ansible_collections.berth.odoo.plugins.module_utils._compose_host import Request
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab, ansible, docker, environment
from ansible_collections.berth.odoo.tests.support.playbook import CALLBACKS

IMAGE = "berth-test/busybox:1"
NAME = "trial"
BASE = "/opt/trials"
ROOT = f"{BASE}/{NAME}"
AUTHORITY = "{{ platform_authority }}"
"""In a playbook: the authority among the lab's secrets."""


class _Literal(yaml.SafeDumper):
    """Writes texts with braces as ``!unsafe``: what a test gives is what the module gets. Only AUTHORITY is rendered."""


_Literal.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "!unsafe" if "{" in text and text != AUTHORITY else "tag:yaml.org,2002:str", text, style='"'
    ),
)


@dataclasses.dataclass(frozen=True)
class Ran:
    """One run of the task: its result, and everything a person would have seen."""

    result: dict[str, Any]
    output: str
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether it reported a change."""
        return bool(self.result["changed"])

    @property
    def actions(self) -> dict[str, str]:
        """What was done to each service."""
        return {name: service["action"] for name, service in self.result["services"].items()}

    def reasons(self, service: str) -> str:
        """Why something was done to a service."""
        return "; ".join(self.result["services"][service]["reasons"])

    @property
    def message(self) -> str:
        """The error."""
        assert self.result.get("failed"), f"expected a failure: {self.result}"
        return str(self.result["msg"])


# The host's half of compose_project, without what Ansible puts around it: four times as fast as a playbook. It can lose its power just before it
# writes one file.
HOST_SIDE = """
import json, os, sys
sys.path.insert(0, "/tmp/berth-collections")
from ansible_collections.berth.odoo.plugins.module_utils._compose_files import ProjectDirectory
from ansible_collections.berth.odoo.plugins.module_utils._compose_host import Request, execute
from ansible_collections.berth.odoo.plugins.module_utils._docker_api import DockerClient
given = json.load(open(0))
write = ProjectDirectory.write
def write_or_die(self, wanted, check=None):
    if wanted.dest == given["kill_before"]:
        os.kill(os.getpid(), 9)
    write(self, wanted, check)
ProjectDirectory.write = write_or_die
with DockerClient() as docker:
    json.dump(execute(Request.from_dict(given["request"]), docker, given["check"]), sys.stdout)
"""


class Bench:
    """A place to try projects in: the VM, and a directory for playbooks, templates and files.

    ``apply`` and ``run`` send what the action plugin makes of the arguments straight to the host's half of the module;
    ``play`` runs a playbook.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        """Remember both."""
        self.lab = lab
        self.host: Host = lab.host
        self.directory = directory

    def start(self, definition: dict[str, Any] | None, *flags: str, json_output: bool = True, **options: Any) -> subprocess.Popen[str]:
        """Start a run and return its process."""
        arguments = {"name": NAME, "base_dir": BASE, **options}
        if definition is not None:
            arguments["definition"] = definition
        tasks = [{"name": "try", "berth.odoo.compose_project": arguments}]
        play = [{"hosts": "vm1", "become": True, "gather_facts": False, "tasks": tasks}]
        playbook = self.directory / f"{time.monotonic_ns()}.yml"
        playbook.write_text(yaml.dump(play, Dumper=_Literal, sort_keys=False), encoding="utf-8")
        settings = {"ANSIBLE_STDOUT_CALLBACK": "berth_json", "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS)} if json_output else {}
        return subprocess.Popen(
            [
                *ansible("ansible-playbook"),
                *(part for source in self.lab.inventories for part in ("-i", str(source))),
                *("--vault-password-file", str(self.lab.vault_password_file)),
                *flags,
                str(playbook),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env=environment(**settings),
        )

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> Ran:
        """Wait for a run and read its result."""
        started = time.monotonic()
        output, _ = process.communicate(timeout=120)
        begin = output.find("{\n")
        assert begin >= 0, f"ansible-playbook gave no result:\n{output}"
        report, _end = json.JSONDecoder().raw_decode(output[begin:])
        return Ran(report["hosts"]["vm1"], output, time.monotonic() - started)

    def play(self, definition: dict[str, Any] | None, *flags: str, **options: Any) -> Ran:
        """Run a playbook; it must succeed."""
        ran = self.finish(self.start(definition, *flags, **options))
        assert not ran.result.get("failed"), ran.result.get("msg")
        return ran

    def run(
        self, definition: dict[str, Any] | None, *, check: bool = False, at: float | None = None, kill_before: str = "", **options: Any
    ) -> Ran:
        """Run the host's half, again with certificates when it asks for some, and return its result, also a failed one.

        Args:
            definition: the definition.
            check: only predict.
            at: what the controller's clock says, in seconds since 1970; it decides when a certificate is renewed.
            kill_before: the host's half is killed before it writes this file, and has failed.
            options: more options of compose_project.
        """
        arguments = {"name": NAME, "base_dir": BASE, **options}
        if definition is not None:
            arguments["definition"] = definition
        task = types.SimpleNamespace(args=arguments, async_val=0)
        action = ActionModule(task=task, connection=None, play_context=None, loader=None, templar=None, shared_loader_obj=None)
        if at is not None:
            action.clock = lambda: at
        output = ""

        def send(request: Request) -> dict[str, Any]:
            nonlocal output
            given = json.dumps({"request": request.to_dict(), "check": check, "kill_before": kill_before})
            command = [*self.host.ssh, f"sudo python3 -c {shlex.quote(HOST_SIDE)}"]
            done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
            output += done.stdout + done.stderr
            answer = json.loads(done.stdout) if done.stdout else {"failed": True, "msg": f"ended with {done.returncode}: {done.stderr}"}
            assert isinstance(answer, dict)
            return answer

        started = time.monotonic()
        result = action._converge(action._parameters(), {}, send)
        return Ran(result, output, time.monotonic() - started)

    def apply(self, definition: dict[str, Any] | None, **options: Any) -> Ran:
        """Run the host's half; it must succeed."""
        ran = self.run(definition, **options)
        assert not ran.result.get("failed"), ran.result.get("msg")
        return ran

    def sh(self, command: str) -> str:
        """Run a command as root on the VM and return its output, stripped."""
        return self.host.run(command).strip()

    def ids(self) -> dict[str, str]:
        """The container of each service of the project."""
        lines = self.sh(
            f"docker ps -a --no-trunc --filter label=com.docker.compose.project={NAME} "
            "--format '{{.Label \"com.docker.compose.service\"}} {{.ID}}'"
        )
        return dict(line.split() for line in lines.splitlines())

    def exec(self, service: str, *argv: str) -> str:
        """Run a command in the container of a service."""
        words = " ".join(f"'{word}'" for word in argv)
        return self.sh(f"docker exec {NAME}-{service}-1 {words}")


def service(*command: str, **options: Any) -> dict[str, Any]:
    """A service that is up and healthy at once and stops at once; ``health`` replaces its check."""
    check = options.pop("health", ["CMD", "/bin/true"])
    return {
        "image": IMAGE,
        "init": True,
        "stop_grace_period": "1s",
        "command": list(command) or ["/bin/sleep", "1000000"],
        "healthcheck": {"test": check, "interval": "150ms", "retries": 2, "timeout": "30s"},
        **options,
    }


def services(**named: dict[str, Any]) -> dict[str, Any]:
    """A definition of these services."""
    return {"services": named}


def text(dest: str, content: str, *names: str, **options: Any) -> dict[str, Any]:
    """A file with content; its change recreates the named services."""
    return {"dest": dest, "content": content, "services": list(names), **options}


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The VM, with the test image in its engine."""
    name = os.environ.get("BERTH_LAB", "compose_project")
    lab = Lab(name, (REPOSITORY / ".cache/lab" / name / "inventory",))
    base = lab.host.variables["images_base_image"]
    docker(
        "build",
        "--quiet",
        "--label",
        f"berth.lab={name}",
        "--build-arg",
        f"BASE_IMAGE={base}",
        "--tag",
        IMAGE,
        str(Path(__file__).with_name("image")),
    )
    archive = subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE)
    subprocess.run([*lab.host.ssh, "sudo docker load"], stdin=archive.stdout, check=True, capture_output=True)
    assert archive.wait() == 0
    modules = [path for path in (REPOSITORY / "plugins/module_utils").iterdir() if path.name.startswith(("_compose", "_docker"))]
    target = "/tmp/berth-collections/ansible_collections/berth/odoo/plugins/module_utils"
    pack = subprocess.run(
        ["tar", "-cC", str(REPOSITORY / "plugins/module_utils"), *(path.name for path in modules)], check=True, capture_output=True
    )
    subprocess.run(
        [*lab.host.ssh, f"sudo sh -c 'rm -rf /tmp/berth-collections; mkdir -p {target}; tar -xC {target}'"], input=pack.stdout, check=True
    )
    return Bench(lab, tmp_path_factory.mktemp("play"))


@pytest.fixture(autouse=True)
def _clean(bench: Bench) -> Iterator[None]:
    """Leave nothing to the next test, also when this one failed half way."""
    yield
    bench.sh(
        f"rm -f /usr/local/sbin/docker; docker ps -aq --filter label=com.docker.compose.project={NAME} --filter name=trial- | xargs -r docker rm -fv; "
        f"docker ps -aq --filter name=trial- | xargs -r docker rm -fv; docker network prune -f; rm -rf {BASE} /var/lib/trials"
    )
