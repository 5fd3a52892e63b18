# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what C(platform_info) found on all hosts, on the controller; documented in plugins/modules/platform_status.py."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.berth.odoo.plugins.module_utils import _ledger, _status

display = Display()


def read_certificate(served: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Replace the DER bytes that a server sent by what a person wants to know of them."""
    if served.get("error"):
        return {"server_name": served["server_name"], "error": served["error"]}
    # Not at the top: ansible-core brings it; ansible-test reads documentation without it.
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    certificate = x509.load_der_x509_certificate(base64.b64decode(served["der"]))
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    issuer = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "server_name": served["server_name"],
        "days_left": round((until - now).total_seconds() / 86400, 2),
        "not_before": since.strftime("%Y-%m-%d %H:%M:%S") if since > now else "",
        "not_after": until.strftime("%Y-%m-%d"),
        "issuer": str(issuer[0].value) if issuer else certificate.issuer.rfc4514_string(),
    }


def judge_ledger(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return what is wrong with this controller's ledger, alone and beside those of the hosts."""
    path = Path(os.environ.get("BERTH_LEDGER") or _ledger.CONTROLLER_PATH).expanduser()
    try:
        lines = _ledger.read(path)
    except OSError as error:
        return [f"the ledger {path} on this controller cannot be read: {error}"]
    return [
        *(f"{path} on this controller: {reason}" for reason in _ledger.broken(lines)),
        *_ledger.disagreements(lines, str(path), _ledger.controller(), runs),
    ]


class ActionModule(ActionBase):
    """Draw the screen, write the JSON, fail when something is down."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run on the controller. Arguments and results: see the module's documentation."""
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "dict", "required": True},
                "instances": {"type": "dict", "default": {}},
                "json_file": {"type": "path", "default": ""},
            }
        )
        now = datetime.now(UTC)
        hosts: dict[str, dict[str, Any]] = {}
        for host, answer in arguments["hosts"].items():
            if not isinstance(answer, dict) or answer.get("unreachable"):
                hosts[host] = {"unreachable": (answer or {}).get("msg", "no answer")}
                continue
            if answer.get("failed"):
                hosts[host] = {"unreachable": f"could not be read: {answer.get('msg')}"}
                continue
            hosts[host] = {
                **{
                    key: answer.get(key)
                    for key in (
                        "services",
                        "postgresql",
                        "watchdog",
                        "huge_pages",
                        "redis",
                        "disks",
                        "docker_error",
                        "drained",
                        "floating",
                        "drills",
                        "backups",
                        "ledger",
                    )
                },
                **{key: [read_certificate(one, now) for one in answer.get(key, [])] for key in ("certificates", "leaves")},
            }
            known = arguments["instances"].get(host)
            hosts[host]["services"] = (
                _status.with_instances(hosts[host]["services"] or [], known) if known else hosts[host]["services"] or []
            )
        inventory = (task_vars or {})["groups"]["all"]
        runs = {host: (info.get("ledger") or {}).get("latest", []) for host, info in hosts.items() if "unreachable" not in info}
        controller = judge_ledger(runs)
        found = _status.problems(hosts, inventory, controller)
        if arguments["json_file"]:
            try:
                Path(arguments["json_file"]).write_text(
                    json.dumps({"hosts": hosts, "problems": found}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
                )
            except OSError as error:
                raise AnsibleActionFail(f"json_file {arguments['json_file']}: {error}") from error
        display.display("\n" + _status.screen(hosts, inventory, controller) + "\n")
        return {
            "changed": False,
            "failed": bool(found),
            "msg": f"{len(found)} problem(s): " + "; ".join(found) if found else "everything is up",
            "problems": found,
        }
