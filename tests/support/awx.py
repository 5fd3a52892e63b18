# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do what AWX does for a project, an inventory and a job, without an AWX: the same files, settings, arguments and answers, given to the same ansible-runner.

After AWX's source of October 2024, which the comments cite: awx/main/tasks/jobs.py and receptor.py where no file is named. What stays different: no container,
so a directory stands for the ``/runner`` of one; no database, so the inventory goes from one file to the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible_runner
import yaml

from ansible_collections.berth.odoo.tests.support.lab import SLOWNESS, ansible, leaks
from ansible_collections.berth.odoo.tests.support.playbook import kill_tree

TIMEOUT = 900
"""Seconds for a job, on a machine that has nothing else to do."""
HOST = "https://awx.example.com"
REVISION = "c0ffee" + "0" * 34
"""The commit that AWX says the project is at; it copies a project without its history."""

SETTINGS = {
    # awx/settings/defaults.py, each that begins with ANSIBLE_
    "ANSIBLE_HOST_KEY_CHECKING": "False",
    "ANSIBLE_PARAMIKO_RECORD_HOST_KEYS": "False",
    "ANSIBLE_FORCE_COLOR": "True",
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
}
INVENTORY_UPDATE = {
    # awx/main/constants.py, STANDARD_INVENTORY_UPDATE_ENV
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
    "ANSIBLE_INVENTORY_EXPORT": "True",
    "ANSIBLE_VERBOSE_TO_STDERR": "True",
    "ANSIBLE_HOST_PATTERN_MISMATCH": "error",
}
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class _Unsafe(yaml.SafeDumper):
    """awx/main/utils/safe_yaml.py, SafeStringDumper: no string of an extra variable is a template."""

    def represent_data(self, data: Any) -> yaml.Node:
        return self.represent_scalar("!unsafe", data) if isinstance(data, str) else super().represent_data(data)


@dataclasses.dataclass(frozen=True)
class Job:
    """A job that has ended.

    Attributes:
        what: the playbook and what was typed into the job's form.
        status: as AWX shows it: successful, failed, …
        events: what AWX keeps of it.
        seconds: wall-clock time.
    """

    what: str
    status: str
    events: list[dict[str, Any]]
    seconds: float

    @property
    def output(self) -> str:
        """What AWX shows: the text of all events, here without its colours."""
        return ESCAPES.sub("", "\n".join(event["stdout"] for event in self.events if event.get("stdout")))

    @property
    def text(self) -> str:
        """The same with each run of white space as one space."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        """How many tasks changed something, as the job's last event counts them."""
        [stats] = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        return sum(stats["changed"].values())

    @property
    def failures(self) -> list[str]:
        """What a click on each failed task shows."""
        return [
            str(event["event_data"]["res"].get("msg", ""))
            for event in self.events
            if event["event"] == "runner_on_failed" and not event["event_data"].get("ignore_errors")
        ]

    def expect(self, status: str) -> Job:
        """Return itself, or fail with the end of the output."""
        end = "\n".join(self.output.splitlines()[-60:])
        assert self.status == status, f"{self.what} was {self.status} and not {status}:\n{end}"
        return self


class Awx:
    """One organization with one project, one inventory that is sourced from it, and one credential for SSH."""

    def __init__(
        self,
        directory: Path,
        project: Path,
        *,
        user: str,
        key: str,
        task_environment: Mapping[str, str],
        secrets: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        """Update the project, and the inventory from it.

        Args:
            directory: of its own.
            project: what a Git repository would hold.
            user: of the credential for SSH.
            key: its private key.
            task_environment: the setting "Extra Environment Variables".
            secrets: what no event may hold.
            say: prints a line of progress.
        """
        self.project, self.say = project, say
        self._directory, self._user, self._key, self._secrets = directory, user, key, dict(secrets)
        self.task_environment = dict(task_environment)
        self._numbers = itertools.count(1)
        self._cache = directory / "cache"
        self.update_project()
        self.inventory = self.update_inventory("inventory/hosts.yml")

    def update_project(self) -> None:
        """Install the collections that the project asks for; awx/playbooks/project_update.yml."""
        done = subprocess.run(
            [*ansible("ansible-galaxy"), "collection", "install", "-r", str(self.project / "collections/requirements.yml")],
            cwd=self.project,
            env=self._bare(self._directory)
            | {
                # After 24.6.1, which has it with an S at its end; ansible-core 2.19 does not know that any more.
                "ANSIBLE_COLLECTIONS_PATH": str(self._cache / "requirements_collections"),
                "ANSIBLE_ROLES_PATH": str(self._cache / "requirements_roles"),
                "ANSIBLE_LOCAL_TEMP": str(self._cache / "tmp"),
                "ANSIBLE_FORCE_COLOR": "false",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"the project's update ended with {done.returncode}:\n{done.stdout}{done.stderr}"

    def update_inventory(self, source: str) -> dict[str, Any]:
        """Read a file of the project as an inventory, without a credential for its vault; return what AWX makes of it for jobs."""
        with self._private_data() as (number, private, runner):
            words = ["ansible-inventory", "--list", "--export", "-i", f"{runner}/project/{source}"]
            words += ["--output", f"{runner}/artifacts/{number}/output.json", "--playbook-dir", f"{runner}/project/{Path(source).parent}"]
            (private / "args").write_text(" ".join(words), encoding="utf-8")
            environment = self._environment(private, runner) | INVENTORY_UPDATE
            environment |= {"INVENTORY_SOURCE_ID": "1", "INVENTORY_UPDATE_ID": str(number)}
            self._run(f"the inventory's update from {source}", private, runner, ident=number, envvars=environment).expect("successful")
            data = json.loads((private / f"artifacts/{number}/output.json").read_text(encoding="utf-8"))
        # awx/main/utils/mem_inventory.py, dict_to_mem_data, and awx/main/models/inventory.py, get_script_data
        hosts = {
            name: own | {"remote_host_enabled": "true", "remote_host_id": key, "remote_tower_enabled": "true", "remote_tower_id": key}
            for key, (name, own) in enumerate(data.pop("_meta")["hostvars"].items(), 1)
        }
        variables = data.pop("all").get("vars", {})
        data.pop("ungrouped", None)
        grouped = {name for group in data.values() for name in group.get("hosts", ())}
        everything = {"vars": variables, "hosts": sorted(set(hosts) - grouped), "children": list(data)}
        return {"all": everything, **data, "_meta": {"hostvars": hosts}}

    def job(
        self,
        playbook: str,
        *,
        job_type: str = "run",
        variables: Mapping[str, Any] | None = None,
        vault: Mapping[str, str] | None = None,
        limit: str = "",
        tags: str = "",
        diff: bool = False,
        verbosity: int = 0,
        launched_by: str = "jane",
    ) -> Job:
        """Run a job of the class RunJob.

        Args:
            playbook: a file of the project.
            job_type: run or check.
            variables: extra variables.
            vault: the credentials of the kind Vault: vault id, empty for none, to password.
            limit: limit.
            tags: job tags.
            diff: show changes.
            verbosity: 0 to 5; from 3 on the events have the arguments of modules.
            launched_by: who presses the button.
        """
        # awx_meta_vars of awx/main/models/unified_jobs.py and jobs.py
        meta = {"job_launch_type": "manual", "user_name": launched_by, "inventory_name": "site", "project_revision": REVISION}
        meta |= {"user_first_name": "", "user_last_name": "", "user_email": "", "project_scm_branch": "", "job_template_name": playbook}
        extra = {**(variables or {}), **{f"{prefix}_{name}": value for name, value in meta.items() for prefix in ("awx", "tower")}}
        # build_args
        arguments = [*(["--check"] if job_type == "check" else []), "-u", self._user, *(["--diff"] if diff else [])]
        for name in vault or {}:
            arguments += ["--vault-id", f"{name}@prompt"] if name else ["--ask-vault-pass"]
        arguments += [*(["-l", limit] if limit else []), *([f"-{'v' * verbosity}"] if verbosity else []), *(["-t", tags] if tags else [])]
        # get_password_prompts, create_expect_passwords_data_struct
        silent = [
            "Enter passphrase for .*",
            "Bad passphrase, try again for .*",
            "sudo password.*",
            "BECOME password.*",
            "SSH password",
            "Password",
        ]
        answers = dict.fromkeys([*silent, "Vault password"], "")
        answers |= {rf"Vault password \({name}\)" if name else "Vault password": password for name, password in (vault or {}).items()}
        what = " ".join([playbook, *arguments, *(f"-e {name}=…" for name in variables or {})])
        with self._private_data() as (number, private, runner):
            # write_inventory_file
            script = private / "inventory/hosts"
            printed = json.dumps(self.inventory)
            script.write_text(f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({printed!r})\n", encoding="utf-8")
            script.chmod(0o700)
            # _write_extra_vars_file, write_args_file
            dumped = [yaml.dump_all([{name: value}], None, Dumper=_Unsafe, default_flow_style=False) for name, value in extra.items()]
            (private / "env/extravars").write_text("".join(dumped), encoding="utf-8")
            (private / "env/cmdline").write_text(ansible_runner.utils.args2cmdline(*arguments), encoding="utf-8")
            # The class RunJob, build_env
            environment = self._environment(private, runner) | {"JOB_ID": str(number), "INVENTORY_ID": "1", "PROJECT_REVISION": REVISION}
            environment |= {"ANSIBLE_RETRY_FILES_ENABLED": "False", "MAX_EVENT_RES": "700000", "AWX_HOST": HOST}
            environment["ANSIBLE_SSH_CONTROL_PATH_DIR"] = f"{runner}/cp"
            environment["ANSIBLE_COLLECTIONS_PATH"] = environment["ANSIBLE_COLLECTIONS_PATHS"]
            environment["ANSIBLE_ROLES_PATH"] = f"{runner}/requirements_roles:~/.ansible/roles:/usr/share/ansible/roles:/etc/ansible/roles"
            # The class BaseTask, run
            job = self._run(
                what,
                private,
                runner,
                ident=number,
                playbook=playbook,
                inventory=str(script),
                passwords={rf"{prompt}:\s*?$": answer for prompt, answer in answers.items()},
                envvars=environment,
                ssh_key=self._key,
            )
        self.say(f"job {number}, {what}: {job.status} after {job.seconds:.1f} s, {len(job.events)} events")
        found = leaks(self._secrets, json.dumps(job.events) + job.output)
        assert not found, f"the events of {what} hold the secrets {found}"
        return job

    @contextlib.contextmanager
    def _private_data(self) -> Iterator[tuple[int, Path, Path]]:
        """Make a job's directory, and the empty one that stands for /runner; build_private_data_dir, make_local_copy."""
        number = next(self._numbers)
        # Below /tmp as AWX's, because the path of a socket may not have more than 107 characters.
        with tempfile.TemporaryDirectory(prefix=f"awx_{number}_") as one, tempfile.TemporaryDirectory(prefix="runner_") as other:
            private, runner = Path(one), Path(other)
            for name in ("inventory", "env", "cp"):
                (private / name).mkdir(mode=0o700)
            shutil.copytree(self.project, private / "project", ignore=shutil.ignore_patterns(".git"), symlinks=True)
            shutil.copytree(self._cache / "requirements_collections", private / "requirements_collections", symlinks=True)
            settings = {"job_timeout": 0, "suppress_ansible_output": True, "suppress_output_file": True}
            (private / "env/settings").write_text(json.dumps(settings), encoding="utf-8")
            yield number, private, runner

    def _environment(self, private: Path, runner: Path) -> dict[str, str]:
        """What jobs and updates have in common; the class BaseTask, build_env."""
        collections = f"{runner}/requirements_collections:~/.ansible/collections:/usr/share/ansible/collections"
        return {**SETTINGS, **self.task_environment, "AWX_PRIVATE_DATA_DIR": str(private), "ANSIBLE_COLLECTIONS_PATHS": collections}

    def _bare(self, home: Path) -> dict[str, str]:
        """The environment in a container of an execution environment."""
        return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]), "HOME": str(home), "LANG": "C.UTF-8"}

    def _run(self, what: str, private: Path, runner: Path, **parameters: Any) -> Job:
        """Send a job to where it runs, run it, take the answer: transmit and processor of receptor.py, and between them the command of a pod."""
        parameters |= {"private_data_dir": str(private), "suppress_env_files": True, "fact_cache_type": ""}
        events: list[dict[str, Any]] = []
        told: list[dict[str, Any]] = []

        def keep(event: dict[str, Any]) -> bool:
            events.append(event)
            return False  # and in no file

        def never() -> bool:
            return False  # Without it, ansible-runner would take the signals that end the tests.

        began = time.monotonic()
        with tempfile.TemporaryFile() as order, tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as errors:
            ansible_runner.interface.run(streamer="transmit", _output=order, cancel_callback=never, **parameters)
            order.seek(0)
            argv = [*ansible("ansible-runner"), "worker", f"--private-data-dir={runner}"]
            worker = subprocess.Popen(argv, stdin=order, stdout=answer, stderr=errors, env=self._bare(runner))
            try:
                worker.wait(TIMEOUT * SLOWNESS)
            finally:
                if worker.poll() is None:
                    kill_tree(worker.pid)
                    worker.wait()
            answer.seek(0)
            result = ansible_runner.interface.run(
                streamer="process",
                quiet=True,
                _input=answer,
                event_handler=keep,
                status_handler=lambda status, runner_config: told.append(status),
                cancel_callback=never,
                **parameters,
            )
            errors.seek(0)
            assert result.status not in ("error", "unstarted"), f"{what}: {told[-1:]} {errors.read().decode()}"
        return Job(what, result.status, events, time.monotonic() - began)
