# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of compose_project: validate, render, and send everything to the host in one module execution."""

from __future__ import annotations

import base64
import getpass
import json
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.basic import missing_required_lib
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible.utils.display import Display

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.plugins.module_utils import _compose as compose
from ansible_collections.berth.odoo.plugins.module_utils import _compose_certificates as certificates
from ansible_collections.berth.odoo.plugins.module_utils._compose_host import Request
from ansible_collections.berth.odoo.plugins.module_utils._compose_spec import ARGUMENT_SPEC

display = Display()

MODE = re.compile(r"0?[0-7]{3,4}")
MANAGED = "Managed by Ansible (berth.odoo): changes made here are undone by the next run."


class ActionModule(ActionBase):
    """Run compose_project."""

    clock: Callable[[], float] = staticmethod(time.time)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        parameters = self._parameters()

        def send(request: Request) -> dict[str, Any]:
            packed = base64.b64encode(zlib.compress(json.dumps(request.to_dict()).encode())).decode()
            arguments = {"name": request.name, "state": request.state, "request": packed}
            answer: dict[str, Any] = self._execute_module(
                module_name="berth.odoo.compose_project", module_args=arguments, task_vars=task_vars
            )
            return answer

        try:
            result.update(self._converge(parameters, task_vars, send))
        except compose.DefinitionError as error:
            raise AnsibleActionFail(f"compose_project {parameters['name']}: {error}") from error
        return result

    def _converge(self, parameters: dict[str, Any], task_vars: dict[str, Any], send: Callable[[Request], dict[str, Any]]) -> dict[str, Any]:
        """Send a request; when the host says that certificates are due, issue them and send it again with them.

        Args:
            parameters: The task's arguments.
            task_vars: Variables of the host.
            send: Lets the host carry out a request and returns the result.

        Raises:
            DefinitionError: The arguments cannot work.
        """
        request = self._request(parameters, task_vars)
        answer = send(request)
        due = answer.pop("issue", None)
        if due:
            answer = send(self._issued(request, due, parameters))
            if answer.pop("issue", None):
                raise AnsibleActionFail(
                    f"compose_project {request.name}: another run changed the project's certificates while this one issued some. Run again"
                )
        return answer

    def _parameters(self) -> dict[str, Any]:
        """Return the task's arguments, validated and with defaults. No message repeats the content of a file."""
        arguments = dict(self._task.args)
        if "request" in arguments:
            raise AnsibleActionFail("compose_project: 'request' is internal and cannot be set")
        files = arguments.get("files") or []
        if isinstance(files, (list, tuple)):
            arguments["files"] = [self._file_arguments(item, index) for index, item in enumerate(files)]
        arguments.update({name: arguments.get(name) or {} for name in ("override", "joins")})
        arguments.update({name: arguments.get(name) or [] for name in ("directories", "certificates")})
        if arguments.get("authority") is not None:
            arguments["authority"] = self._authority_arguments(arguments["authority"])
        if isinstance(arguments["certificates"], (list, tuple)):
            arguments["certificates"] = [_with_reload_list(item) for item in arguments["certificates"]]
        validated = ArgumentSpecValidator(ARGUMENT_SPEC).validate(arguments)
        if validated.error_messages:
            raise AnsibleActionFail("compose_project: " + "; ".join(validated.error_messages))
        parameters: dict[str, Any] = validated.validated_parameters
        if not compose.PROJECT_NAME.fullmatch(parameters["name"]):
            raise AnsibleActionFail(
                f"compose_project: name '{parameters['name']}' must be lower-case letters, digits, _ and -, "
                "at most 63, and start with a letter or digit"
            )
        if not re.fullmatch(r"(/[A-Za-z0-9_.-]+)+", parameters["base_dir"]) or ".." in parameters["base_dir"].split("/"):
            raise AnsibleActionFail(f"compose_project: base_dir '{parameters['base_dir']}' must be a plain absolute path")
        return parameters

    @staticmethod
    def _file_arguments(item: Any, index: int) -> Any:
        """Return one entry of files in the form of the spec. Checked here, because the spec would print a wrong content."""
        if not isinstance(item, Mapping):
            raise AnsibleActionFail(f"compose_project: files[{index}] must be a mapping with dest and content, template or src")
        item = dict(item)
        content = item.get("content")
        if isinstance(content, (Mapping, list, tuple, bool)):  # numbers are text that Ansible has taken for numbers
            kind = "a mapping" if isinstance(content, Mapping) else "a boolean" if isinstance(content, bool) else "a list"
            raise AnsibleActionFail(
                f"compose_project: files[{index}].content (dest {item.get('dest')}) must be text, not {kind}; put it through to_json or to_nice_yaml"
            )
        return _with_reload_list(item)

    @staticmethod
    def _authority_arguments(value: Any) -> dict[str, str]:
        """Return the authority in the form of the spec. Checked here, because the spec would print what has a wrong type."""
        remedy = 'give authority: "{{ platform_authority }}", which is among the secrets of the inventory'
        if not isinstance(value, Mapping) or set(value) != {"certificate", "key"}:
            raise AnsibleActionFail(f"compose_project: authority must be a mapping with certificate and key and nothing else; {remedy}")
        for name, text in value.items():
            if not text or isinstance(text, (Mapping, list, tuple, bool, int, float)):
                raise AnsibleActionFail(f"compose_project: authority.{name} must be PEM text; {remedy}")
        return {name: str(text) for name, text in value.items()}

    # --- the request ----------------------------------------------------------------------------------------------------

    def _request(self, parameters: dict[str, Any], task_vars: dict[str, Any]) -> Request:
        """Return what is sent to the host. Raises DefinitionError when it cannot work."""
        absent = parameters["state"] == "absent"
        definition: dict[str, Any] = {}
        files: tuple[compose.ManagedFile, ...] = ()
        wanted: tuple[compose.Certificate, ...] = ()
        now = int(self.clock())
        if not absent:
            if parameters["definition"] is None:
                raise AnsibleActionFail(f"compose_project: state '{parameters['state']}' needs a definition")
            definition = compose.merge(compose.normalise(parameters["definition"]), compose.normalise(parameters["override"], "override"))
            files = tuple(self._file(item, task_vars) for item in parameters["files"])
            wanted = self._certificates(parameters, now)
            certificates.check_certificates(wanted)
            compose.check_files(
                (*files, *(file for item in wanted for file in certificates.files_of(item, certificates.expected(item, now), 0)))
            )
            compose.check_definition(definition, files, wanted, files_alone=parameters["definition"].get("services") == {} and bool(files))
        return Request(
            name=parameters["name"],
            base_dir=parameters["base_dir"],
            state=parameters["state"],
            wait_timeout=parameters["wait_timeout"],
            lock_timeout=parameters["lock_timeout"],
            definition=definition,
            files=files,
            directories=tuple(self._directory(item) for item in parameters["directories"]) if not absent else (),
            certificates=wanted,
            joins=compose.joins(definition, parameters["joins"]) if not absent else {},
            now=now,
            holder=f"{getpass.getuser()} on {socket.gethostname()}, process {os.getpid()}",
        )

    def _directory(self, item: dict[str, Any]) -> compose.DataDirectory:
        path = item["path"]
        if not path.startswith("/") or ".." in path.split("/") or path.strip("/") == "":
            raise compose.DefinitionError(f"directories: path '{path}' must be absolute, without '..', and not /")
        return compose.DataDirectory(path, item["owner"], item["group"], _mode(item["mode"], f"directories: {path}"))

    # --- certificates ---------------------------------------------------------------------------------------------------

    def _certificates(self, parameters: dict[str, Any], now: int) -> tuple[compose.Certificate, ...]:
        """Return the certificates that the project shall have, not issued yet."""
        items = parameters["certificates"]
        if not items:
            return ()
        authority = self._load_authority(parameters, now)
        longest = max(items, key=lambda item: item["days"])
        if authority.not_after < now + longest["days"] * certificates.DAY:
            display.warning(
                f"compose_project {parameters['name']}: the authority expires on {certificates.as_text(authority.not_after)}, "
                f"and with it every certificate, although {longest['dest']} should be valid for {longest['days']} days. "
                "Change to a new one; the documentation of compose_project, option authority, says how"
            )
        return tuple(
            compose.Certificate(
                dest=item["dest"],
                common_name=item["common_name"],
                names=certificates.alternative_names(item["common_name"], item["names"] or ()),
                days=item["days"],
                owner=item["owner"],
                group=item["group"],
                bundle=authority.bundle,
                signer=authority.fingerprint,
                signer_not_after=authority.not_after,
                usage=item["usage"],
                **_meaning(item, "certificates"),
            )
            for item in items
        )

    @staticmethod
    def _load_authority(parameters: dict[str, Any], now: int) -> _authority.Authority:
        if _authority.LIBRARY_ERROR:
            reason = "on the controller, to issue certificates"
            raise AnsibleActionFail(f"compose_project {parameters['name']}: {missing_required_lib('cryptography', reason=reason)}")
        given = parameters["authority"]
        if given is None:
            raise compose.DefinitionError(
                'certificates need an authority that signs them: give authority: "{{ platform_authority }}". '
                f"If the inventory's secrets have none, type: {_authority.ADD}"
            )
        try:
            return _authority.load(given["certificate"], given["key"], now)
        except _authority.AuthorityError as error:
            raise compose.DefinitionError(f"authority.{error}") from None

    def _issued(self, request: Request, due: Collection[str], parameters: dict[str, Any]) -> Request:
        """Return the request with new certificates where the host has asked for them."""
        authority = self._load_authority(parameters, request.now)

        def completed(item: compose.Certificate) -> compose.Certificate:
            if item.dest not in due:
                return item
            return replace(item, leaf=_authority.issue(authority, item.common_name, item.names, item.days, request.now, item.usage))

        return replace(request, certificates=tuple(completed(item) for item in request.certificates))

    # --- files ----------------------------------------------------------------------------------------------------------

    def _file(self, item: dict[str, Any], task_vars: dict[str, Any]) -> compose.ManagedFile:
        dest, sensitive = item["dest"], item["sensitive"]
        meaning = _meaning(item, "files")
        return compose.ManagedFile(
            dest=dest,
            content=self._content(item, task_vars),
            owner=item["owner"],
            group=item["group"],
            mode=_mode(item["mode"] or ("0440" if sensitive else "0444"), f"files: {dest}"),
            sensitive=sensitive,
            **meaning,
        )

    def _content(self, item: dict[str, Any], task_vars: dict[str, Any]) -> bytes:
        if item["content"] is not None:
            return str(item["content"]).encode()
        if item["template"] is not None:
            return self._render(item["template"], task_vars).encode()
        try:
            path = self._find_needle("files", item["src"])
            # A vaulted file comes back as a decrypted temporary copy, which cleanup removes.
            real = self._loader.get_real_file(path, decrypt=True)
            try:
                return Path(real).read_bytes()
            finally:
                self._loader.cleanup_tmp_file(real)
        except AnsibleError as error:
            raise AnsibleActionFail(f"compose_project: files: {item['dest']}: src: {error}") from error

    def _render(self, name: str, task_vars: dict[str, Any]) -> str:
        """Render a template like ansible.builtin.template does with its defaults."""
        try:
            path = self._find_needle("templates", name)
        except AnsibleError as error:
            raise AnsibleActionFail(f"compose_project: template {name}: {error}") from error
        roots = [*task_vars.get("ansible_search_path", []), self._loader.get_basedir(), str(Path(path).parent)]
        search = [place for root in roots for place in (str(Path(root) / "templates"), root)]
        # The usual ansible_managed may hold a time or a user name, which would change files from run to run.
        variables = {**task_vars, "ansible_managed": MANAGED, "template_path": path}
        templar = self._templar.copy_with_new_env(searchpath=search, available_variables=variables)
        options: dict[str, Any] = {} if hasattr(templar, "evaluate_expression") else {"convert_data": False}
        text = templar.template(
            trust_as_template(self._loader.get_text_file_contents(path)),
            preserve_trailing_newlines=True,
            escape_backslashes=False,
            overrides={"trim_blocks": True, "lstrip_blocks": False},
            **options,
        )
        if not isinstance(text, str):
            raise AnsibleActionFail(f"compose_project: template {name} gave {type(text).__name__}, not text; use to_json")
        return text


def _with_reload_list(item: Any) -> Any:
    """Return an entry of files or certificates in which a single reload is a list of one."""
    return {**item, "reload": [item["reload"]]} if isinstance(item, Mapping) and isinstance(item.get("reload"), Mapping) else item


def _meaning(item: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Return what a change of a file or certificate means."""
    if item["services"] is None and not item["reload"]:
        raise compose.DefinitionError(
            f"{option}: {item['dest']} does not say what its change means: give services: [NAME] to recreate, reload: to reload, "
            "or services: [] when nothing has to happen"
        )
    reloads = (compose.Reload(entry["service"], tuple(entry["command"] or ()), entry["signal"] or "") for entry in item["reload"] or ())
    return {"services": tuple(item["services"] or ()), "reloads": tuple(reloads)}


def _mode(text: str, where: str) -> int:
    """Return an octal mode; a number that YAML has already turned into decimal is refused."""
    if not MODE.fullmatch(text):
        raise compose.DefinitionError(f"{where}: mode '{text}' must be a quoted octal number such as '0440'")
    return int(text, 8)
