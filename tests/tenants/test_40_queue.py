# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue: jobs run in its container and nowhere else, print reports, and are out of reach from outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.tenants import psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.tenants import Tenant

ENQUEUE = """
import json
report = env.ref("base.ir_module_reference_print")
module = env["ir.module.module"].search([("name", "=", "contacts")])
jobs = [env["ir.actions.report"].with_delay(description=f"print {n}")._render_qweb_pdf(report.report_name, module.ids) for n in range(3)]
env.cr.commit()
print("jobs=" + json.dumps([job.uuid for job in jobs]))
"""
CRON = """
env["ir.cron"].create({
    "name": "test print", "model_id": env.ref("base.model_ir_module_module").id, "state": "code", "interval_number": 1, "interval_type": "days",
    "code": "pdf = env['ir.actions.report']._render_qweb_pdf('base.report_irmodulereference', model.search([('name', '=', 'contacts')]).ids)[0]\\n"
            "env['ir.config_parameter'].sudo().set_param('test.printed_by_cron', pdf[:5].decode())",
})._trigger()
env.cr.commit()
"""
SHELL = "docker exec -i odoo-acme-web-1 odoo shell --no-http --log-level=error"


def test_jobs_run_in_the_queue_and_print_reports(host: Host) -> None:
    output = host.run(SHELL, stdin=ENQUEUE, timeout=120)
    uuids = json.loads(re.findall(r"jobs=(\[.*\])", output)[-1])

    def done() -> bool:
        rows = psql(host, "SELECT uuid, state, exc_info FROM queue_job", "acme")
        states = {row.split("|")[0]: row.split("|")[1] for row in rows if row.split("|")[0] in uuids}
        assert set(states.values()) == {"done"}, f"{states}: {rows}"
        return True

    wait_for("the end of the jobs", done, seconds=120, interval=1)
    for tier in ("web", "websocket", "cron", "queue"):
        log = host.run(f"docker logs odoo-acme-{tier}-1 2>&1")
        served = [uuid for uuid in uuids if f"/queue_job/runjob?job_uuid={uuid}" in log]
        assert served == (uuids if tier == "queue" else []), f"{tier} served {served}"


def test_scheduled_actions_print_reports(host: Host) -> None:
    host.run(SHELL, stdin=CRON, timeout=120)
    question = "SELECT value FROM ir_config_parameter WHERE key = 'test.printed_by_cron'"
    wait_for("a report by cron", lambda: psql(host, question, "acme") == ["%PDF-"], seconds=90, interval=1)


def test_the_runner_keeps_its_session(host: Host) -> None:
    """The runner's connection keeps its session: it holds a lock that a transaction pool would lose."""
    question = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'advisory' AND datname = 'acme' AND application_name LIKE 'odoo-queue-%'"
    )
    wait_for("the runner's lock", lambda: psql(host, question) == ["1"], seconds=60, interval=1)


def test_it_has_limits_of_its_own_and_time_for_its_longest_job(host: Host) -> None:
    queue, web = (host.container(f"odoo-acme/{tier}").facts for tier in ("queue", "web"))
    settings = dict(line.split(" = ") for line in host.run("cat /opt/berth/odoo-acme/config/queue/odoo.conf").splitlines() if " = " in line)
    assert int(settings["limit_time_real"]) < queue["Config"]["StopTimeout"]
    assert int(settings["limit_memory_soft"]) < queue["HostConfig"]["Memory"] * 2
    assert queue["HostConfig"]["CpuShares"] < web["HostConfig"]["CpuShares"]
    assert settings["workers"] == "2" and settings["db_app_name"] == "odoo-queue-{pid}"
    assert queue["NetworkSettings"]["Ports"] in ({}, None) or not any(queue["NetworkSettings"]["Ports"].values())


def test_the_door_is_closed_at_the_edge(tenant: Callable[[str], Tenant]) -> None:
    for path in ("/queue_job/runjob", "/QUEUE_JOB/runjob", "/de/queue_job/runjob", "//queue_job//runjob?db=acme&job_uuid=x"):
        assert tenant("acme").request(path).status == 403, path
