# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Production full of ways into the world becomes staging, and nothing gets out of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support import history as the
from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.tenants import psql

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

CLONE = "playbooks/clone.yml"
SMTP, WEBHOOK, IMAP = 2525, 9000, 1143
LISTENER = f"""
import socket, threading
def take(port):
    server = socket.create_server(("", port))
    while True:
        peer, _ = server.accept()
        with open("/run/berth-test-heard", "a") as file:
            print(port, file=file)
        peer.close()
for port in ({SMTP}, {WEBHOOK}, {IMAP}):
    threading.Thread(target=take, args=(port,)).start()
"""
# What must be nothing in the clone, and is something in what it was made of.
POISON = {
    "mail servers": "SELECT count(*) FROM ir_mail_server WHERE active AND smtp_host <> 'invalid' OR smtp_pass <> '' OR smtp_user <> ''",
    "keys of mail servers": "SELECT count(*) FROM ir_mail_server WHERE smtp_ssl_private_key <> ''",
    "tokens of logins by others": "SELECT count(*) FROM res_users WHERE oauth_access_token <> ''",
    "incoming mail": "SELECT count(*) FROM fetchmail_server WHERE active OR password <> ''",
    "webhooks that are called": "SELECT count(*) FROM ir_act_server WHERE webhook_url LIKE 'http://10.%'",
    "the address that is known to others": "SELECT count(*) FROM base_automation WHERE webhook_uuid = 'poison'",
    "scheduled actions": "SELECT count(*) FROM ir_cron c JOIN ir_act_server a ON a.id = c.ir_actions_server_id WHERE c.active AND a.webhook_url IS NOT NULL",
    "payments": "SELECT count(*) FROM payment_provider WHERE state = 'enabled'",
    "keys of users": "SELECT count(*) FROM res_users_apikeys",
    "logins by others": "SELECT count(*) FROM auth_oauth_provider WHERE enabled",
    "secret parameters": "SELECT count(*) FROM ir_config_parameter WHERE key = 'proof.api_key' OR value LIKE '%poison%'",
    "in-app purchases": "SELECT count(*) FROM iap_account WHERE account_token = 'poison'",
    "a person": "SELECT count(*) FROM res_partner WHERE name = 'Erika Mustermann' OR email LIKE 'erika@%'",
}


def create(odoo: Odoo, model: str, **values: Any) -> int:
    """Create a record."""
    [number] = odoo.call(model, "create", [values])
    return int(number)


@pytest.fixture(scope="module")
def listener(lab: Lab) -> Iterator[Host]:
    """Whoever connects to the machine of the store is written down."""
    machine = lab.hosts["store1"]
    machine.run("cat > /run/berth-test-listener.py; : > /run/berth-test-heard", stdin=LISTENER)
    machine.run("systemd-run --quiet --unit=berth-test-listener python3 /run/berth-test-listener.py")
    yield machine
    machine.run("systemctl stop berth-test-listener")


@pytest.fixture(scope="module")
def poisoned(play: Player, host: Host, lab: Lab, listener: Host) -> dict[str, str]:
    """Production with everything that reaches somebody, in a set; afterwards it is harmless, so that only the clone could be heard."""
    odoo = the.admin(host, lab)
    [model] = odoo.call("ir.model", "search", [["model", "=", "res.partner"]])
    webhook = {"model_id": model, "state": "webhook", "webhook_url": f"http://{listener.address}:{WEBHOOK}/"}
    smtp = {"smtp_host": listener.address, "smtp_port": SMTP, "smtp_user": "poison", "smtp_pass": "poison", "smtp_authentication": "login"}
    create(odoo, "ir.mail_server", name="poison", **smtp)
    imap = {"server_type": "imap", "server": listener.address, "port": IMAP, "user": "poison", "password": "poison", "state": "done"}
    create(odoo, "fetchmail.server", name="poison", **imap)
    create(odoo, "ir.cron", name="poison", interval_number=1, interval_type="minutes", active=True, **webhook)
    calls = [[0, 0, {"name": "poison", "usage": "base_automation", **webhook}]]
    create(odoo, "base.automation", name="poison", model_id=model, trigger="on_create", action_server_ids=calls)
    called = create(odoo, "base.automation", name="poison, called", model_id=model, trigger="on_webhook")
    create(odoo, "iap.account", name="poison", account_token="poison", service_id=odoo.call("iap.service", "search", [])[0])
    [provider] = odoo.call("auth.oauth.provider", "search", [], limit=1)
    odoo.call("auth.oauth.provider", "write", [provider], {"enabled": True, "client_id": "poison"})
    odoo.call("ir.config_parameter", "set_param", "proof.api_key", "poison")
    psql(host, f"UPDATE base_automation SET webhook_uuid = 'poison' WHERE id = {called}", "main")  # noqa: S608 - ours
    psql(host, "UPDATE payment_provider SET state = 'enabled'", "main")
    psql(host, "UPDATE ir_mail_server SET smtp_ssl_private_key = 'poison'", "main")
    key = "INSERT INTO res_users_apikeys (name, user_id, scope, key, index) SELECT 'poison', id, 'rpc', 'x', 'poisoned' FROM res_users"
    psql(host, f"{key} WHERE login = 'admin'", "main")
    create(odoo, "res.partner", name="Erika Mustermann", email="erika@example.com")
    # Heard, so silence later means something.
    wait_for("the webhook of production", lambda: str(WEBHOOK) in listener.run("cat /run/berth-test-heard").split(), seconds=30)
    psql(host, "UPDATE res_users SET oauth_access_token = 'poison' WHERE login = 'admin'", "main")
    found = {words: psql(host, question, "main")[0] for words, question in POISON.items()}
    assert "0" not in found.values(), found
    with the.hurry(host):
        play("playbooks/backup.yml", variables={"target": "main"}).expect_success()
    odoo = the.admin(host, lab)  # a token is part of a login
    for name in ("base.automation", "ir.mail_server", "fetchmail.server", "ir.cron"):
        odoo.call(name, "unlink", odoo.call(name, "search", [["name", "like", "poison"]]))
    psql(host, "UPDATE payment_provider SET state = 'disabled'", "main")
    secrets = psql(host, "SELECT value FROM ir_config_parameter WHERE key IN ('database.uuid', 'database.secret') ORDER BY key", "main")
    return dict(zip(("secret", "uuid"), secrets, strict=True))


def test_it_says_what_it_would_do_and_refuses_production(play: Player, host: Host, poisoned: dict[str, str]) -> None:
    before = the.state(host)
    play(CLONE, variables={"source": "staging", "target": "main", "confirm": "main"}).expect_refusal(
        "of the service class production", "production=overwrite"
    )
    play(CLONE, variables={"source": "main", "target": "staging", "confirm": "main"}).expect_refusal(
        "type: -e confirm=staging", "Personal data stay"
    )
    assert the.state(host) == before
    assert poisoned["uuid"]


def test_nothing_gets_out_of_the_clone(play: Player, host: Host, lab: Lab, listener: Host, poisoned: dict[str, str]) -> None:
    production = [one.identity for name, one in host.containers().items() if name.startswith("odoo-main/")]
    listener.run(": > /run/berth-test-heard")
    play(CLONE, variables={"source": "main", "target": "staging", "confirm": "staging", "anonymise": True}).expect_success()
    assert [one.identity for name, one in host.containers().items() if name.startswith("odoo-main/")] == production
    left = {words: psql(host, question, "staging")[0] for words, question in POISON.items()}
    assert set(left.values()) == {"0"}, left
    now = psql(host, "SELECT value FROM ir_config_parameter WHERE key IN ('database.uuid', 'database.secret') ORDER BY key", "staging")
    assert not set(now) & set(poisoned.values())
    assert psql(host, "SELECT value FROM ir_config_parameter WHERE key = 'web.base.url'", "staging") == ["https://staging.berth.test"]
    # People go on in it: what was automatic in production is done, and mail is sent.
    odoo = the.admin(host, lab, "staging")
    create(odoo, "res.partner", name="somebody")
    mail = create(odoo, "mail.mail", subject="proof", email_to="erika@example.com", body_html="<p>proof</p>")
    odoo.call("mail.mail", "send", [mail])
    for action in odoo.call("ir.cron", "search", [["active", "=", True]]):
        odoo.call("ir.cron", "method_direct_trigger", [action])
    # Who is told takes less than a second.
    time.sleep(5)
    assert listener.run("cat /run/berth-test-heard") == ""


def test_what_staging_had_stays_until_it_is_forgotten(play: Player, host: Host) -> None:
    kept = "SELECT count(*) FROM pg_database WHERE datname LIKE 'staging_before_%'"
    assert psql(host, kept) != ["0"]
    play("playbooks/restore.yml", variables={"target": "staging", "forget": True, "confirm": "staging"}).expect_success()
    assert psql(host, kept) == ["0"]
    assert host.run("ls /var/lib/berth/odoo/staging/filestore").split() == ["staging"]
