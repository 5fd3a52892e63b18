# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: a lab VM with a real Odoo 19 on it. `make help` lists its verbs.

python tools/demo.py up        make the VM, deploy, say how to use it
python tools/demo.py status    every service, its health and memory
python tools/demo.py ssh       log in to the VM
python tools/demo.py url | ca | password     print the address, the CA's file, the administrator's password, and nothing else
"""

from __future__ import annotations

import argparse
import os
import shlex
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / ".cache/lab/demo"
BIN = Path(sys.prefix, "bin")
LOGIN_TIMEOUT = 60  # seconds; site.yml waits for health, so the page is there at once unless something is wrong


def lab_host() -> dict[str, Any]:
    """How to reach the VM, as the lab's inventory has it.

    Raises:
        SystemExit: there is no demo.
    """
    inventory = LAB / "inventory/hosts.yml"
    if not inventory.exists():
        raise SystemExit("There is no demo here. Type: make demo")
    return next(iter(yaml.safe_load(inventory.read_text())["all"]["hosts"].values()))


def url() -> str:
    """Address of the demo's Odoo."""
    return f"https://{lab_host()['ansible_host']}/"


def secrets() -> dict[str, Any]:
    """The demo's secrets, decrypted."""
    file = LAB / "inventory/group_vars/all/secrets.yml"
    command: list[str | Path] = [BIN / "ansible-vault", "view", "--vault-password-file", LAB / "vault-password", file]
    return yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def playbook(*arguments: str | Path) -> None:
    """Run ansible-playbook in the checkout.

    Raises:
        SystemExit: it failed; Ansible has said why.
    """
    environment = os.environ | {"PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}"}
    code = subprocess.run([BIN / "ansible-playbook", *arguments], cwd=ROOT, env=environment, check=False).returncode
    if code:
        raise SystemExit(code)


def site_playbook(name: str) -> None:
    """Run one of the collection's playbooks on the demo, with the inventory a person would copy."""
    playbook(
        *("--inventory", "inventories/single", "--inventory", LAB / "inventory"),
        *("--vault-password-file", LAB / "vault-password", f"playbooks/{name}.yml"),
    )


def wait_for_login_page() -> None:
    """Open the login page as a browser would, with the lab's CA alone.

    Raises:
        SystemExit: it does not answer 200 in time.
    """
    context = ssl.create_default_context(cafile=str(LAB / "ca.crt"))
    deadline = time.monotonic() + LOGIN_TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(f"{url()}web/login", timeout=10, context=context) as answer:  # noqa: S310 - the scheme is ours
                if answer.status == 200:
                    return
                problem = f"status {answer.status}"
        except OSError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise SystemExit(f"{url()}web/login does not answer: {problem}. Type `make demo-status` to see which service is down.")
        time.sleep(1)


def up() -> None:
    """Make the VM, deploy, say how to use it."""
    times: list[tuple[str, float]] = []

    def stage(name: str, began: float) -> None:
        times.append((name, time.monotonic() - began))
        print(f"\n--- {name}: {times[-1][1]:.0f} s\n", flush=True)

    began = time.monotonic()
    playbook("molecule/shared/create.yml", "--extra-vars", "lab_name=demo")
    stage("lab VM", began)
    began = time.monotonic()
    playbook(
        "--inventory",
        "localhost,",
        "--connection",
        "local",
        "--extra-vars",
        f"@{LAB / 'inventory/group_vars/all/lab.yml'}",
        "playbooks/images.yml",
    )
    stage("images", began)
    began = time.monotonic()
    site_playbook("site")
    stage("site.yml", began)
    began = time.monotonic()
    wait_for_login_page()
    stage("login page", began)

    authority = (LAB / "ca.crt").relative_to(ROOT)
    address = lab_host()["ansible_host"]
    print(f"""\
Odoo 19 answers at   {url()}
                     (https://odoo.berth.test/ too, after: echo "{address} odoo.berth.test" | sudo tee -a /etc/hosts)
Trust its CA         browser: import {authority} as an authority; curl: --cacert {authority}
                     Debian: sudo cp {authority} /usr/local/share/ca-certificates/berth-demo.crt && sudo update-ca-certificates
Log in as            admin, with the password that `make demo-password` prints (kept encrypted in the lab's inventory)

Next   make demo-status   every service, its health, memory and certificate
       make demo-ssh      a shell on the VM; docker ps shows the containers
       make demo          converges again: nothing changes
       make demo-down     removes the VM and everything that belongs to it

{", ".join(f"{name} {seconds:.0f} s" for name, seconds in times)}; in all {sum(seconds for _, seconds in times):.0f} s""")


def shell() -> None:
    """Replace this process by ssh."""
    host = lab_host()
    command = ["ssh", "-i", host["ansible_ssh_private_key_file"], *shlex.split(host["ansible_ssh_common_args"])]
    os.execvp("ssh", [*command, f"{host['ansible_user']}@{host['ansible_host']}"])  # noqa: S606 - an interactive program takes our place


VERBS = {
    "up": up,
    "status": lambda: site_playbook("status"),
    "ssh": shell,
    "url": lambda: print(url()),
    "ca": lambda: lab_host() and print(LAB / "ca.crt"),
    "password": lambda: lab_host() and print(secrets()["odoo_instance_secrets"]["main"]["admin_password"]),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=VERBS)
    VERBS[parser.parse_args().verb]()
