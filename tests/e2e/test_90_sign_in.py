# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sign-in by OpenID Connect at a real provider: who gets in, which tokens and browsers do not, new keys, an outage, and the way back."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from ansible_collections.berth.odoo.tests.support.browser import browser, image
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, leaks
from ansible_collections.berth.odoo.tests.support.odoo import Odoo
from ansible_collections.berth.odoo.tests.support.openid import OpenID, agree, arrive, button

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Answer
    from ansible_collections.berth.odoo.tests.support.playbook import Player

pytestmark = pytest.mark.nightly

VARIANTS = {"odoo-oidc": {"requirements": str(REPOSITORY / "docs/examples/oidc-requirements.txt")}}
LABEL = "Sign in at Acme"
SUBJECT = "7c1d-4711"
LOGIN = "jane"
STRANGER = "no-account"
NO_ACCOUNT = "You do not have access to this database"
NOT_ACCEPTED = "The sign-in service did not answer, or its answer was not accepted"


@pytest.fixture(scope="module")
def provider(lab: Lab, host: Host) -> Iterator[OpenID]:
    """The provider. It vouches for a stranger's e-mail address that is the administrator's login, which must open nothing."""
    found = OpenID(lab, host, str(host.variables["odoo_instance_secrets"]["main"]["oidc_client_secret"]))
    found.start({SUBJECT: "jane@example.com", STRANGER: "admin"})
    yield found
    found.remove()


def site(host: Host, provider: OpenID, **oidc: Any) -> dict[str, Any]:
    """Variables of a site at which people sign in with the provider; without it when told ``issuer=None``."""
    declared = {
        "issuer": provider.issuer,
        "client_id": provider.client_id,
        "label": LABEL,
        "authority_certificate": provider.authority_certificate,
    }
    main = host.variables["odoo_instances"]["main"] | {"domains": [host.address], "image": "odoo-oidc", "oidc": declared | oidc}
    if main["oidc"]["issuer"] is None:
        del main["oidc"]
    return {"odoo_instances": {"main": main}, "images_odoo_variants": VARIANTS}


@pytest.fixture(scope="module")
def signed(lab: Lab, url: str) -> Callable[[], Odoo]:
    """A browser of its own."""
    return lambda: Odoo(url, lab.ca)


def sql(host: Host, statement: str) -> str:
    return host.run(f"docker exec -i {host.container('postgresql/postgresql').id} psql -U postgres -d main -At", stdin=statement).strip()


def sign_in(client: Odoo, subject: str) -> Answer:
    """Press the button, be somebody, come back."""
    return arrive(client, agree(client, button(client, LABEL), subject))


def is_in(page: Answer) -> bool:
    """Whether a page is the back office. What is neither that nor the login page is a fault."""
    inside = '"is_internal_user": true' in page.body
    assert page.status == 200 and inside != ('name="login"' in page.body), f"{page.status}: {page.body[:1500]}"
    return inside


def test_without_the_module_or_the_provider_nothing_changes(host: Host, provider: OpenID, play: Player) -> None:
    before = {name: container.identity for name, container in host.containers().items()}
    run = play("playbooks/site.yml", "--tags", "app", variables=_with_image(site(host, provider), "odoo"))
    run.expect_refusal("auth_oidc: no such module in the image", "images_odoo_requirements")
    play("playbooks/images.yml", variables={"images_odoo_variants": VARIANTS, "images_names": ["odoo-oidc"]}).expect_success()
    provider.stop()
    run = play("playbooks/site.yml", "--tags", "app", variables=site(host, provider))
    run.expect_refusal(f"the OpenID provider {provider.issuer} cannot be asked", "oidc.issuer")
    provider.begin()
    run = play("playbooks/site.yml", "--tags", "app", variables=site(host, provider, issuer=f"{provider.issuer}/"))
    run.expect_refusal(f"it calls itself '{provider.issuer}'", "write that as issuer")
    assert {name: container.identity for name, container in host.containers().items()} == before
    assert sql(host, "SELECT to_regclass('auth_oauth_provider') IS NULL") == "t"


def _with_image(variables: dict[str, Any], name: str) -> dict[str, Any]:
    variables["odoo_instances"]["main"]["image"] = name
    return variables


def test_a_provider_is_declared_and_stays_so(host: Host, provider: OpenID, play: Player) -> None:
    run = play("playbooks/site.yml", "--tags", "app", variables=site(host, provider)).expect_success()
    assert "Converge the database" in run.changed
    assert play("playbooks/site.yml", "--tags", "app", variables=site(host, provider)).expect_success().changed == []
    record = json.loads(sql(host, f"SELECT row_to_json(p) FROM auth_oauth_provider p WHERE name = '{provider.issuer}'"))  # noqa: S608
    wanted = {"client_id": provider.client_id, "flow": "id_token_code", "enabled": True, "client_secret": None, "token_map": None}
    assert {key: record[key] for key in wanted} == wanted
    assert sql(host, "SELECT count(*) FROM auth_oauth_provider WHERE enabled") == "1", "the button of Odoo.com is still there"


def test_what_somebody_changed_is_shown_and_put_back(host: Host, provider: OpenID, play: Player) -> None:
    sql(host, "UPDATE auth_oauth_provider SET token_endpoint = 'https://evil.example/token', client_secret = 'typed by hand' WHERE enabled")
    run = play("playbooks/site.yml", "--tags", "app", "--check", "--diff", variables=site(host, provider)).expect_success()
    assert run.changed == ["Converge the database"]
    assert "https://evil.example/token" in run.output and "typed by hand" not in run.output
    assert "evil.example" in sql(host, "SELECT token_endpoint FROM auth_oauth_provider WHERE enabled")
    run = play("playbooks/site.yml", "--tags", "app", "--diff", variables=site(host, provider)).expect_success()
    assert run.changed == ["Converge the database"] and "typed by hand" not in run.output
    assert sql(host, "SELECT token_endpoint, client_secret FROM auth_oauth_provider WHERE enabled") == f"{provider.issuer}/token|"


@pytest.fixture(scope="module")
def jane(host: Host, url: str, lab: Lab, admin_password: str) -> int:
    """A user of the back office, linked to the provider's subject, without a password."""
    admin = Odoo(url, lab.ca)
    admin.log_in("admin", admin_password)
    number = int(sql(host, "SELECT id FROM auth_oauth_provider WHERE enabled"))
    found: int = admin.call("res.users", "create", [{"name": "Jane", "login": LOGIN, "oauth_provider_id": number, "oauth_uid": SUBJECT}])[0]
    return found


def test_a_linked_user_signs_in(signed: Callable[[], Odoo], provider: OpenID, jane: int) -> None:
    client = signed()
    link = button(client, LABEL)
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(link).query))
    assert (query["response_type"], query["code_challenge_method"], len(query["code_challenge"])) == ("code", "S256", 43)
    assert query["redirect_uri"] == f"{client.url}/auth_oauth/signin"
    assert is_in(arrive(client, agree(client, link, SUBJECT)))
    assert client.rpc("/web/session/get_session_info")["uid"] == jane


def test_a_browser_signs_in(lab: Lab, host: Host, url: str, provider: OpenID, jane: int) -> None:
    with browser(lab, image(host.variables["images_base_image"])) as driver:

        def see(selector: str) -> Any:
            message = f"nothing to see of {selector}"
            return WebDriverWait(driver, 60).until(expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, selector)), message)

        driver.get(f"{url}/web/login")
        see("a[href*='/auth?']").click()
        see("form[action*='/interaction/'] input[name=login]").send_keys(SUBJECT)
        see("input[name=password]").send_keys("whatever")
        see("button[type=submit]").click()
        see("input[name=prompt][value=consent] ~ button[type=submit]").click()
        see(".o_main_navbar")
        assert driver.current_url.startswith(f"{url}/odoo")


def test_a_stranger_gets_no_account_and_nobody_elses(
    host: Host, lab: Lab, url: str, signed: Callable[[], Odoo], provider: OpenID, admin_password: str, jane: int
) -> None:
    count = sql(host, "SELECT count(*) FROM res_users")
    page = sign_in(signed(), STRANGER)
    assert not is_in(page) and NO_ACCOUNT in page.body
    # Where customers may sign up by themselves the provider still makes no account.
    admin = Odoo(url, lab.ca)
    admin.log_in("admin", admin_password)
    admin.call("ir.config_parameter", "set_param", "auth_signup.invitation_scope", "b2c")
    page = sign_in(signed(), STRANGER)
    assert "Don't have an account?" in page.body, "customers cannot sign up by themselves"
    assert not is_in(page) and NO_ACCOUNT in page.body
    admin.call("ir.config_parameter", "set_param", "auth_signup.invitation_scope", "b2b")
    assert sql(host, "SELECT count(*) FROM res_users") == count


INVITE = """
user = env["res.users"].with_context(no_reset_password=True).create({"name": "Invited", "login": "invited@example.com"})
user.partner_id.signup_prepare()
env.cr.commit()
print("invitation=" + user.partner_id._get_signup_url())
"""


def test_an_invitation_links_whoever_presses_the_button(host: Host, signed: Callable[[], Odoo], provider: OpenID, jane: int) -> None:
    output = host.run("docker exec -i odoo-main-web-1 odoo shell --no-http --log-level=error", stdin=INVITE, timeout=120)
    invitation = urllib.parse.urlsplit(re.findall(r"invitation=(\S+)", output)[-1])
    client = signed()
    assert is_in(arrive(client, agree(client, button(client, LABEL, f"{invitation.path}?{invitation.query}"), "4712")))
    assert sql(host, "SELECT oauth_uid, password IS NULL FROM res_users WHERE login = 'invited@example.com'") == "4712|t"
    assert is_in(sign_in(signed(), "4712"))


FORGERIES: dict[str, tuple[dict[str, Any], str]] = {
    "issuer": ({"claims": {"iss": "https://other.example"}}, "its issuer is 'https://other.example'"),
    "audience": ({"claims": {"aud": "another client"}}, "Invalid audience"),
    "no audience": ({"claims": {"aud": None}}, "its audience is None"),
    "made for another": ({"claims": {"azp": "another client"}}, "it was made for 'another client'"),
    "of another browser": ({"claims": {"nonce": "x"}}, "it answers another browser's request"),
    "over": ({"claims": {"exp": 1700000000}}, "Signature has expired"),
    "without an end": ({"claims": {"exp": None}}, "it does not say when it ends"),
    "signed by another key": ({"foreign": True}, "Signature verification failed"),
    "signed with the client secret": ({"alg": "HS256"}, "The specified alg value is not allowed"),
    "not signed": ({"alg": "none"}, "The specified alg value is not allowed"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_token_is_refused(host: Host, signed: Callable[[], Odoo], provider: OpenID, jane: int, name: str) -> None:
    how, words = FORGERIES[name]
    seen = host.run("docker logs odoo-main-web-1 2>&1").count("\n")
    provider.forge(**how)
    try:
        page = sign_in(signed(), SUBJECT)
    finally:
        provider.forge()
    assert not is_in(page) and NOT_ACCEPTED in page.body
    log = host.run(f"docker logs odoo-main-web-1 2>&1 | tail -n +{seen}")
    assert words in log, log[-3000:]
    assert is_in(sign_in(signed(), SUBJECT)), "an honest token must be accepted, or the refusal above says nothing"


def test_a_code_works_in_the_browser_that_asked_for_it_alone(signed: Callable[[], Odoo], provider: OpenID, jane: int) -> None:
    """Who finds a code in a log, and who sends somebody a link that would sign him in as another."""
    victim, without, other = signed(), signed(), signed()
    page = arrive(without, agree(victim, button(victim, LABEL), SUBJECT))
    assert not is_in(page) and NOT_ACCEPTED in page.body
    assert button(other, LABEL), "the other browser has a cookie of its own now"
    page = arrive(other, agree(victim, button(victim, LABEL), SUBJECT))
    assert not is_in(page) and NOT_ACCEPTED in page.body
    assert is_in(sign_in(victim, SUBJECT))


def test_new_keys_of_the_provider_need_nothing_done(signed: Callable[[], Odoo], provider: OpenID, jane: int) -> None:
    assert is_in(sign_in(signed(), SUBJECT))
    provider.rotate()
    assert is_in(sign_in(signed(), SUBJECT))


def test_an_outage_leaves_passwords_and_the_site_working(
    host: Host, lab: Lab, url: str, signed: Callable[[], Odoo], provider: OpenID, play: Player, admin_password: str, jane: int
) -> None:
    client = signed()
    back = agree(client, button(client, LABEL), SUBJECT)
    provider.stop()
    page = arrive(client, back)
    assert not is_in(page) and NOT_ACCEPTED in page.body
    signed().log_in("admin", admin_password)
    run = play("playbooks/site.yml", "--tags", "app", variables=site(host, provider)).expect_success()
    assert run.changed == [] and "cannot be asked" in run.text
    provider.begin()
    assert is_in(sign_in(signed(), SUBJECT))


def test_passwords_can_be_switched_off_and_on_again(
    host: Host, provider: OpenID, play: Player, signed: Callable[[], Odoo], admin_password: str, jane: int
) -> None:
    without = site(host, provider, passwords=False)
    run = play("playbooks/site.yml", "--tags", "app", variables=without)
    run.expect_refusal("oidc.passwords is false, and no administrator is linked to the provider")
    signed().log_in("admin", admin_password)
    sql(
        host,
        "UPDATE res_users SET oauth_uid = 'boss', oauth_provider_id = p.id FROM auth_oauth_provider p WHERE p.enabled AND login = 'admin'",
    )
    boss, former = signed(), signed()
    assert is_in(sign_in(boss, "boss"))
    former.log_in("admin", admin_password)
    former.call("res.users", "write", [jane], {"password": "typed-by-hand"})
    run = play("playbooks/site.yml", "--tags", "app", "--check", "--diff", variables=without).expect_success()
    assert run.changed == ["Converge the database"] and "passwords beside the OpenID provider: 2" in run.output
    signed().log_in(LOGIN, "typed-by-hand")
    assert play("playbooks/site.yml", "--tags", "app", variables=without).expect_success().changed == ["Converge the database"]
    assert play("playbooks/site.yml", "--tags", "app", variables=without).expect_success().changed == []
    for login, password in (("admin", admin_password), (LOGIN, "typed-by-hand"), ("admin", ""), ("admin", "False")):
        with pytest.raises(AssertionError, match="was answered with 200"):
            signed().log_in(login, password)
    with pytest.raises(AssertionError, match="Session Expired"):
        former.call("res.users", "read", [jane], ["name"])
    assert is_in(sign_in(signed(), "boss")) and is_in(sign_in(signed(), SUBJECT))
    # Break glass.
    assert play("playbooks/site.yml", "--tags", "app", variables=site(host, provider)).expect_success().changed == ["Converge the database"]
    signed().log_in("admin", admin_password)
    sql(host, "UPDATE res_users SET oauth_uid = NULL, oauth_provider_id = NULL WHERE login = 'admin'")


def test_the_secret_is_in_its_file_alone(lab: Lab, host: Host) -> None:
    secret = {name: value for name, value in lab.secrets().items() if name.endswith("oidc_client_secret")}
    assert len(secret) == 1
    seen = sql(host, "SELECT row_to_json(p) FROM auth_oauth_provider p")
    seen += host.run("docker ps -aq | xargs docker inspect; for id in $(docker ps -aq); do docker logs $id 2>&1; done", timeout=120)
    assert not leaks(secret, seen)
    assert re.fullmatch(r"440 root 48069", host.run("stat -c '%a %U %g' /opt/berth/odoo-main/secrets/oidc.json").strip())


def test_the_button_goes_and_so_does_the_module(
    host: Host, provider: OpenID, play: Player, signed: Callable[[], Odoo], admin_password: str
) -> None:
    """Back to where the scenario was: the tests after this have an image without the module."""
    run = play("playbooks/site.yml", "--tags", "app", variables=site(host, provider, issuer=None)).expect_success()
    assert "Converge the database" in run.changed
    assert not button(signed(), LABEL)
    play("tests/e2e/uninstall.yml", variables={"modules": ["auth_oidc", "auth_oauth"]}).expect_success()
    play("playbooks/site.yml", "--tags", "app").expect_success()
    signed().log_in("admin", admin_password)
