# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium in a container on the lab's network, trusting the lab's CA as a person's browser would."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from selenium import webdriver

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Lab, docker, wait_for

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

CONTEXT = Path(__file__).with_name("browser")
BUILD_TIMEOUT = 1800  # seconds; about 60 s plus downloading some 150 MB of packages


def artifacts() -> Path:
    """The directory for screenshots; BERTH_ARTIFACTS overrides it."""
    directory = Path(os.environ.get("BERTH_ARTIFACTS") or REPOSITORY / ".cache/artifacts")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def image(base: str) -> str:
    """Build the browser's image on a Debian 13 base unless the same inputs were built before, and return its reference."""
    inputs = hashlib.sha256(docker("image", "inspect", "-f", "{{.Id}}", base).encode())
    for file in sorted(CONTEXT.iterdir()):
        inputs.update(file.name.encode() + file.read_bytes())
    reference = f"berth-lab/browser:{inputs.hexdigest()[:12]}"
    if not docker("image", "ls", "-q", reference):
        docker(
            *("build", "--quiet", "--label", "berth.lab.image=browser", "--build-arg", f"BASE_IMAGE={base}", "--tag", reference),
            str(CONTEXT),
            timeout=BUILD_TIMEOUT,
        )
    return reference


@contextmanager
def browser(lab: Lab, reference: str) -> Iterator[WebDriver]:
    """Start a browser with an empty profile on a lab's network; it can reach the lab's machines and nothing else."""
    addresses = [host.address for host in lab.hosts.values()]
    # All machines of a lab are on one network.
    machine = next(iter(lab.hosts.values())).variables["lab_container"]
    network = docker("inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}", machine)
    labels = {"berth.lab": lab.name, "berth.lab.project": str(REPOSITORY)}  # destroying the lab takes the browser along
    container = docker(
        *("run", "--detach", "--init", "--name", f"{network}-browser", "--network", network),
        *(word for key, value in labels.items() for word in ("--label", f"{key}={value}")),
        *("--shm-size", "512m", "--memory", "2g", "--volume", f"{lab.ca}:/ca.crt:ro", reference),
    )
    try:
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        server = f"http://{docker('inspect', '-f', template, container)}:9515"
        options = webdriver.ChromeOptions()
        for switch in (
            "--headless",
            "--no-sandbox",  # needs user namespaces, which containers do not get
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1400,1000",
            "--lang=en-US",
            # No name is ever looked up, so nothing outside of the lab is ever asked for anything.
            "--host-resolver-rules=MAP * ~NOTFOUND" + "".join(f", EXCLUDE {address}" for address in addresses),
        ):
            options.add_argument(switch)
        # Its content is what a person would read in the developer tools.
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})

        def ready() -> bool:
            with urllib.request.urlopen(f"{server}/status", timeout=5) as answer:  # noqa: S310 - always http
                return bool(json.load(answer)["value"]["ready"])

        wait_for("start of chromedriver", ready, seconds=60)
        driver = webdriver.Remote(server, options=options)
        try:
            yield driver
        finally:
            driver.quit()
    except BaseException:
        (artifacts() / "browser.log").write_text(docker("logs", container), encoding="utf-8")
        raise
    finally:
        docker("rm", "--force", "--volumes", container)
