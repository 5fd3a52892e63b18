# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a lab on the controller: keys, secrets, inventory."""

from __future__ import annotations

import datetime
import secrets
import shlex
import string
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import pki
from .run import run
from .settings import Settings
from .vms import container_name

USER = "berth"
# Every character that has ever broken a template, a URL, a shell, a configuration file or a Compose file. The order keeps them from
# forming Jinja's "{{", "{%" and "{#": these passwords are ordinary strings of an inventory.
NASTY = "$%\"'{}#\\ "


def ensure_keys(settings: Settings) -> None:
    """Generate the SSH key of the lab's user and the host key of every VM, where missing."""
    directory = settings.directory / "ssh"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ["id_ed25519", *(f"host_{vm.name}" for vm in settings.vms)]:
        if not (directory / name).exists():
            comment = f"{USER}@{settings.name}" if name == "id_ed25519" else f"root@{name.removeprefix('host_')}"
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(directory / name)])


def known_hosts(settings: Settings, addresses: Mapping[str, str]) -> str:
    """Content of the lab's known_hosts: we made the host keys, so nothing is trusted at first sight."""
    lines = []
    for name, address in addresses.items():
        key = (settings.directory / "ssh" / f"host_{name}.pub").read_text().split()
        lines.append(f"{address},{name} {key[0]} {key[1]}\n")
    return "".join(lines)


def ssh_options(settings: Settings) -> list[str]:
    """Options of ssh for the VMs of a lab, beside the key."""
    # ssh splits the value at spaces, unless it is quoted for ssh too.
    return [
        "-o",
        f'UserKnownHostsFile="{settings.directory / "known_hosts"}"',
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "IdentitiesOnly=yes",
    ]


def ssh_command(settings: Settings) -> list[str]:
    """The ssh command for a person or a script; an address follows."""
    return ["ssh", "-i", str(settings.directory / "ssh" / "id_ed25519"), *ssh_options(settings), "-l", USER]


def ssh_config(settings: Settings, addresses: Mapping[str, str]) -> str:
    """Configuration for `ssh -F`, so that a person types only the name of the VM."""
    options = [option for option in ssh_options(settings) if option != "-o"]
    lines = [
        f"User {USER}",
        f'IdentityFile "{settings.directory / "ssh" / "id_ed25519"}"',
        *(option.replace("=", " ", 1) for option in options),
    ]
    common = "".join(f"  {line}\n" for line in lines)
    return "".join(f"Host {name} {address}\n  HostName {address}\n{common}" for name, address in addresses.items())


def hosts_file(addresses: Mapping[str, str], domains: Sequence[str], domain: str) -> str:
    """Lines for /etc/hosts of the VMs: every VM by its name, the site's domains at the first one."""
    lines = []
    for index, (name, address) in enumerate(addresses.items()):
        names = [f"{name}.{domain}", name, *(domains if index == 0 else [])]
        lines.append(f"{address} {' '.join(names)} # lab\n")
    return "".join(lines)


def vm_files(settings: Settings, name: str, hosts: str, nameservers: Iterable[str]) -> dict[str, bytes]:
    """Files that make a VM of the lab out of the image, by absolute path."""
    ssh = settings.directory / "ssh"
    return {
        "/etc/lab/hosts": hosts.encode(),
        "/etc/lab/resolv.conf": "".join(f"nameserver {server}\n" for server in nameservers).encode(),
        "/etc/ssh/ssh_host_ed25519_key": (ssh / f"host_{name}").read_bytes(),
        "/etc/ssh/ssh_host_ed25519_key.pub": (ssh / f"host_{name}.pub").read_bytes(),
        f"/home/{USER}/.ssh/authorized_keys": (ssh / "id_ed25519.pub").read_bytes(),
        "/usr/local/share/ca-certificates/berth-lab.crt": (settings.directory / "ca.crt").read_bytes(),
    }


def hosts_inventory(settings: Settings, addresses: Mapping[str, str]) -> dict[str, Any]:
    """The inventory file: hosts with their addresses, the way to log in, and the groups that the lab was asked for."""
    children: dict[str, Any] = {}
    for vm in settings.vms:
        for group in vm.groups:
            children.setdefault(group, {"hosts": {}})["hosts"][vm.name] = {}
    # Variables of each host and not of the group: those of inventories/* are, and a group's variable would lose against them.
    way_in = {
        "ansible_connection": "ssh",
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(settings.directory / "ssh" / "id_ed25519"),
        "ansible_ssh_common_args": shlex.join(ssh_options(settings)),
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    inventory: dict[str, Any] = {
        "hosts": {
            # The container's name is for those who cut a VM's power or pull its cable.
            name: {
                "ansible_host": address,
                "host_address": address,
                **way_in,
                "lab_container": container_name(settings.name, name, settings.project),
            }
            for name, address in addresses.items()
        }
    }
    return {"all": inventory | ({"children": children} if children else {})}


def lab_variables(settings: Settings, addresses: Mapping[str, str], base_image: str) -> dict[str, Any]:
    """Plain group variables: what inventories/* leave to the site."""
    return {
        "site_domains": [*settings.domains, next(iter(addresses.values()))],
        "images_base_image": base_image,
        # Built once on this machine's engine, loaded by each VM: a lab VM has no registry to pull a base from.
        "images_source": "archive",
        "images_archive_dir": str(settings.project / ".cache" / "images"),
        # What a drill may do to a VM from outside; evaluated for the VM in question.
        "drill_commands": {
            name: ["docker", command, "{{ lab_container }}"]
            for name, command in {"power_off": "kill", "power_on": "start", "freeze": "pause", "thaw": "unpause"}.items()
        },
    }


def password(length: int = 32) -> str:
    """A random password in which every character that breaks software occurs, each between two ordinary ones."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) + nasty for nasty in NASTY) + _token(length - 2 * len(NASTY))


def _token(length: int = 32) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def complete_secrets(
    current: Mapping[str, Any], instances: Iterable[str], certificate: str, key: str, new_authority: Callable[[], dict[str, str]]
) -> dict[str, Any]:
    """Secrets of a lab: those it has stay, missing ones are generated, the certificate is the current one.

    The administrator's password is typed by people, so it alone has no quotes, spaces or backslashes.

    Args:
        current: the secrets so far.
        instances: names of the Odoo instances.
        certificate: PEM of the server certificate and its issuer.
        key: PEM of its key.
        new_authority: makes the authority of the platform's services; called only when there is none yet.
    """
    known = current.get("odoo_instance_secrets", {})
    made = {}
    for name in instances:
        fresh = {
            "db_password": password(),
            "admin_password": f"{_token(20)}$%#{_token(2)}{{}}{_token(2)}",
            "redis_password": password(),
            "analyst_password": password(),
        }
        made[name] = fresh | known.get(name, {})
    return {
        "odoo_instance_secrets": {**known, **made},
        "redis_replication_password": current.get("redis_replication_password") or password(),
        "platform_authority": current.get("platform_authority") or new_authority(),
        "traefik_certificates": {"main": {"certificate": certificate, "key": key}},
    }


def ensure_secrets(settings: Settings, now: datetime.datetime) -> bool:
    """Write the vault password and the encrypted group_vars/all/secrets.yml of a lab; keep what a living lab already uses.

    Args:
        settings: the lab.
        now: time of day, with zone.

    Returns:
        True when something was written.
    """
    # ansible-core is there when a playbook calls us, and only then is this needed: destroying works without it.
    from ansible.parsing.vault import VaultLib, VaultSecret

    password_file = settings.directory / "vault-password"
    if not password_file.exists():
        password_file.touch(mode=0o600)
        password_file.write_text(_token(40) + "\n")
    vault = VaultLib([("default", VaultSecret(password_file.read_text().strip().encode()))])
    file = settings.directory / "inventory" / "group_vars" / "all" / "secrets.yml"
    current = yaml.safe_load(vault.decrypt(file.read_bytes())) if file.exists() else {}
    chain = "".join((settings.directory / name).read_text() for name in ("server.crt", "ca.crt"))
    wanted = complete_secrets(
        current,
        settings.instances,
        chain,
        (settings.directory / "server.key").read_text(),
        lambda: pki.platform_authority(settings.name, now),
    )
    if wanted == current:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(vault.encrypt(_yaml(wanted).encode()))
    return True


def write_yaml(file: Path, data: Mapping[str, Any]) -> bool:
    """Write a YAML file unless it holds just that.

    Returns:
        True when it was written.
    """
    return write_text(file, _yaml(data))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines (certificates) as blocks, as a person would."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None))


def _yaml(data: Mapping[str, Any]) -> str:
    body = yaml.dump(dict(data), Dumper=_Dumper, width=sys.maxsize, sort_keys=False)
    return f"---\n# Written by molecule/shared/create.yml.\n{body}"


def write_text(file: Path, content: str) -> bool:
    """Write a file unless it holds just that.

    Returns:
        True when it was written.
    """
    if file.exists() and file.read_text() == content:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return True
