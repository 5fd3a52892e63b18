# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab and its machines, as the tests reach them: over SSH as the playbooks do, and from outside as power supply and neighbour."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


class CommandFailed(AssertionError):
    """A command that a test needs ended with a non-zero code; the text says where, which and what it wrote."""


SLOWNESS = 4
"""Deadlines are those of a machine that has nothing else to do. On others everything takes up to this many times as long, and a test fails by what it
measures, not by when somebody lost patience."""
BOOT = 300
"""Seconds for a boot, and for containers that come back after it, on an emulated processor."""


def wait_for[T](what: str, probe: Callable[[], T], *, seconds: float, interval: float = 0.5) -> T:
    """Call ``probe`` until it returns something true, and return that.

    Args:
        what: completes the sentence "… did not happen within N s".
        probe: must not raise while the thing has not happened yet, except AssertionError or OSError.
        seconds: deadline on a machine that has nothing else to do.
        interval: seconds between two calls.

    Raises:
        AssertionError: the deadline passed; holds the last failure.
    """
    patience = seconds * SLOWNESS
    deadline = time.monotonic() + patience
    last = ""
    while True:
        try:
            if found := probe():
                return found
        except (AssertionError, OSError) as error:
            last = f": {error}"
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {patience:g} s{last}")
        time.sleep(interval)


@dataclasses.dataclass(frozen=True)
class Container:
    """One container of a host, from ``docker inspect``."""

    project: str
    service: str
    facts: dict[str, Any]

    @property
    def id(self) -> str:
        """The full id: another one means that the container was made anew."""
        return str(self.facts["Id"])

    @property
    def name(self) -> str:
        """``project/service``, as status.yml prints it."""
        return f"{self.project}/{self.service}"

    @property
    def identity(self) -> tuple[str, str]:
        """Changes when the container is made anew or started again."""
        return self.id, str(self.facts["State"]["StartedAt"])

    @property
    def healthy(self) -> bool:
        """Running, and healthy where it says so."""
        state = self.facts["State"]
        return bool(state["Running"]) and state.get("Health", {}).get("Status", "healthy") == "healthy"


@dataclasses.dataclass(frozen=True)
class Host:
    """A lab VM.

    Attributes:
        name: inventory name.
        variables: its inventory variables, secrets decrypted.
    """

    name: str
    variables: dict[str, Any]

    @property
    def address(self) -> str:
        """IP address."""
        return str(self.variables["ansible_host"])

    @cached_property
    def ssh(self) -> list[str]:
        """The ssh command up to and including the destination."""
        control = Path(tempfile.gettempdir(), "berth-test-%C")
        user = self.variables["ansible_user"]
        return [
            "ssh",
            *(["-i", self.variables["ansible_ssh_private_key_file"]] if "ansible_ssh_private_key_file" in self.variables else []),
            *shlex.split(self.variables.get("ansible_ssh_common_args", "")),
            *("-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=5", "-o", "LogLevel=ERROR"),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=600s", "-o", f"ControlPath={control}"),
            f"{user}@{self.address}",
        ]

    def run(self, command: str, *, stdin: str = "", timeout: float = 60, check: bool = True) -> str:
        """Run a shell command as root on the host and return what it wrote to standard output.

        Raises:
            CommandFailed: ``check`` and a non-zero code, or no end within ``timeout`` seconds.
        """
        argv = [*self.ssh, f"sudo -n bash -c {shlex.quote(command)}"]
        try:
            patience = timeout * SLOWNESS
            done = subprocess.run(argv, input=stdin, capture_output=True, text=True, errors="replace", timeout=patience, check=False)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{self.name}: `{command}` did not end within {patience:g} s") from error
        if check and done.returncode != 0:
            raise CommandFailed(f"{self.name}: `{command}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def succeeds(self, command: str, *, stdin: str = "", timeout: float = 60) -> bool:
        """Whether a shell command ends with 0. A lost connection is no answer and raises."""
        return self.run(f"if {command}; then echo __yes; else echo __no; fi", stdin=stdin, timeout=timeout).split()[-1] == "__yes"

    def containers(self) -> dict[str, Container]:
        """Every container of the host that this collection manages, by ``project/service``."""
        text = self.run("docker ps -aq --no-trunc --filter label=berth.managed=true | xargs -r docker inspect")
        found = {}
        for facts in json.loads(text or "[]"):
            labels = facts["Config"]["Labels"]
            container = Container(labels["com.docker.compose.project"], labels["com.docker.compose.service"], facts)
            found[container.name] = container
        return found

    def container(self, name: str) -> Container:
        """The container of ``project/service``."""
        containers = self.containers()
        assert name in containers, f"{self.name} has no container {name}; it has {', '.join(sorted(containers))}"
        return containers[name]

    def state(self) -> list[str]:
        """Everything that a refused run must not move, one line each: containers, what they were made from, what Docker was told."""
        return self.run(
            "docker ps -aq --no-trunc | xargs -r docker inspect -f '{{.Name}} {{.Id}} {{.State.Status}} {{.State.StartedAt}}' | sort; "
            "docker network ls --no-trunc --format '{{.Name}} {{.ID}}' | sort; "
            "find /opt/berth /etc/docker /etc/sysctl.d -type f -exec sha256sum {} + | sort -k 2; "
            "find /opt/berth /var/lib/berth -maxdepth 2 -printf '%p %U:%G %m\\n' | sort"
        ).splitlines()

    def boot_id(self) -> str:
        """What the kernel calls the boot that it is in; a lab VM that is a container has that of the machine around it."""
        return self.run("cat /proc/sys/kernel/random/boot_id", timeout=30)

    def reboot(self) -> None:
        """Boot a host with a kernel of its own anew, and wait until it answers and its units have started or failed."""
        before = self.boot_id()
        subprocess.run([*self.ssh, "sudo -n systemctl reboot"], capture_output=True, timeout=120, check=False)
        self.wait_for_boot(before)
        self.run("systemctl is-system-running --wait", timeout=BOOT, check=False)

    def wait_for_boot(self, before: str) -> None:
        """Wait until it is in another boot than ``before``. While it is down it does not answer."""
        wait_for(f"another boot of {self.name}", lambda: self.boot_id() != before, seconds=BOOT, interval=2)

    def wait_until_healthy(self, *, seconds: float = 120, names: Sequence[str] = ()) -> None:
        """Wait until all (or the named) containers run and are healthy."""

        def probe() -> bool:
            containers = self.containers()
            wanted = names or sorted(containers)
            ill = [name for name in wanted if name not in containers or not containers[name].healthy]
            assert not ill, f"still not healthy: {', '.join(ill)}"
            return bool(wanted)

        wait_for(f"{self.name}: health of all containers", probe, seconds=seconds, interval=1)

    def report(self) -> str:
        """What to look at when a test failed: containers, and the last words of those that are not healthy."""
        text = self.run("docker ps -a --format 'table {{.Names}}\\t{{.Status}}\\t{{.Image}}' 2>&1", check=False)
        for container in self.containers().values():
            if not container.healthy:
                text += f"\n--- {container.name}: {container.facts['State']}\n"
                text += self.run(f"docker logs --tail 25 {container.id} 2>&1", check=False)
        return text


@dataclasses.dataclass(frozen=True)
class Lab:
    """A lab made by molecule/shared: machines, addresses, keys, a CA.

    Attributes:
        name: as in ``.cache/lab/<name>``.
        inventories: inventory sources of a deployment into it, in Ansible's order (later wins).
    """

    name: str
    inventories: tuple[Path, ...]

    @property
    def directory(self) -> Path:
        """Where the lab keeps its files."""
        return REPOSITORY / ".cache/lab" / self.name

    @property
    def ca(self) -> Path:
        """The certificate of the CA that signed the lab's certificates."""
        return self.directory / "ca.crt"

    @property
    def vault_password_file(self) -> Path:
        """Decrypts the lab's secrets."""
        return self.directory / "vault-password"

    @cached_property
    def hosts(self) -> dict[str, Host]:
        """The machines by inventory name."""
        assert self.directory.is_dir(), f"{self.directory} does not exist: make the lab first, type: molecule create -s {self.name}"
        done = subprocess.run(
            [
                *ansible("ansible-inventory"),
                *(part for source in self.inventories for part in ("-i", str(source))),
                *("--vault-password-file", str(self.vault_password_file), "--list"),
            ],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, f"ansible-inventory ended with {done.returncode}:\n{done.stderr}"
        data = json.loads(done.stdout)
        common = data["all"].get("vars", {})
        return {name: Host(name, {**common, **own}) for name, own in data["_meta"]["hostvars"].items()}

    @property
    def host(self) -> Host:
        """The only machine of a single-VM lab."""
        (host,) = self.hosts.values()
        return host

    def secrets(self) -> dict[str, str]:
        """Every secret of the deployment by its path in the inventory; multi-line ones (keys) by their longest line."""
        found: dict[str, str] = {}
        for host in self.hosts.values():
            for path, value in _secrets(host.variables):
                found[path] = max(value.splitlines(), key=len)
        assert len(found) >= 4, f"the inventory of lab {self.name} holds too few secrets to look for: {sorted(found)}"
        return found


def _secrets(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and value of every string whose key names a secret."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _secrets(item, f"{path}.{number}")
    elif isinstance(value, str) and value and is_secret(path):
        yield path, value


def is_secret(path: str) -> bool:
    """Whether the string at a path in the inventory, such as ``odoo_instance_secrets.main.db_password``, is a secret."""
    return path.endswith(("_password", ".password", ".key")) or "_secrets." in path


def encodings(secret: str) -> set[str]:
    """The forms in which a secret could be lying around: escaped for JSON, YAML, Python, shell, INI, Compose, libpq, HTML or a URL, in base64."""
    quoted_json = json.dumps(secret)[1:-1]
    return {
        secret,
        quoted_json,
        json.dumps(quoted_json)[1:-1],
        secret.replace("'", "''"),
        secret.replace("$", "$$"),
        secret.replace("%", "%%"),
        quoted_json.replace("$", "$$"),
        repr(secret)[1:-1],
        secret.replace("\\", "\\\\"),
        secret.replace("\\", "\\\\").replace("'", "\\'"),
        secret.replace("\\", "\\\\").replace(":", "\\:"),
        shlex.quote(secret),
        re.sub(r"([^\w@%+=:,./#~-])", r"\\\1", secret),
        html.escape(secret),
        urllib.parse.quote(secret),
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        secret.encode().hex(),
        *_base64(secret.encode()),
    }


def _base64(secret: bytes) -> Iterator[str]:
    """What base64 shows of a secret, wherever in a longer text it is: four characters hold three bytes, so there are three ways to begin."""
    for before in range(3):
        # The first and the last character hold bits of the neighbours as well.
        first = -(-before * 8 // 6)
        last = (before + len(secret)) * 8 // 6
        shown = base64.b64encode(b"\0" * before + secret)[first:last].decode()
        yield from (shown, shown.translate(str.maketrans("+/", "-_")))


def leaks(secrets: dict[str, str], text: str) -> list[str]:
    """Names of the secrets that ``text`` holds in any encoding. The values are not in the answer."""
    return sorted(name for name, secret in secrets.items() if any(form in text for form in encodings(secret)))


PLACES = {
    "docker inspect": "docker ps -aq | xargs -r docker inspect; docker network ls -q | xargs docker network inspect; "
    "docker volume ls -q | xargs -r docker volume inspect",
    "images and their history": "docker image ls -q | xargs docker image inspect; docker image ls -q | xargs -n 1 docker history --no-trunc",
    "what the engine keeps": "find /var/lib/docker/containers /var/lib/docker/image -type f -size -4M -exec cat {} + || true",
    "what containers wrote into their image": "docker ps -aq | xargs -r docker inspect -f '{{.GraphDriver.Data.UpperDir}}' "
    "| xargs -r -I@ find @ -type f -size -4M -exec cat {} +",
    "Compose files": "cat /opt/berth/*/compose.yml",
    "command lines of all processes": "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '",
    "environments of all processes": "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'",
    "the journal": "journalctl --no-pager --output=cat",
    "other logs": "find /var/log -type f ! -path '*/journal/*' -exec cat {} +",
    "container logs": "for id in $(docker ps -aq); do docker logs $id 2>&1; done",
    "files that anybody can read": "find /opt/berth /etc /var/lib/berth -xdev -type f -perm -o=r -size -4M -exec cat {} +",
    "temporary files and homes": "find /tmp /var/tmp /dev/shm /home /root -xdev -type f -size -4M -exec cat {} + || true",
    "evidence and ledger": "find /var/lib/berth/evidence /var/lib/berth/ledger* -type f -exec cat {} + 2>/dev/null || true",
}
"""Where a secret must not be seen, and how everything in there is read. Files may vanish meanwhile; that there was something to read is looked at."""
MAY_BE_EMPTY = ("other logs", "what containers wrote into their image", "evidence and ledger")


def keys(host: Host) -> dict[str, str]:
    """The keys of the certificates that services have, by their path, which only their host knows; each by its longest line."""
    text = host.run(
        "for key in $(find /opt/berth -path '*/tls/*.key' -type f); do echo \"$key $(awk '{print length, $0}' $key | sort -n | tail -n 1)\"; done"
    )
    return {path: secret for path, _length, secret in (line.split(" ", 2) for line in text.splitlines())}


# Until its input ends. Programs live for milliseconds; who looks twenty times a second sees most of a deployment's.
WATCH = """
import os, select, sys
known = set()
while not select.select([sys.stdin], [], [], 0.05)[0]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    known.add(file.read())
            except OSError:  # it has ended
                continue
sys.stdout.buffer.write(b"\\n".join(known).replace(b"\\0", b" "))
"""


@contextlib.contextmanager
def processes(host: Host) -> Iterator[list[str]]:
    """Watch command lines and environments of all processes of a host; the list holds them as one text after that."""
    found: list[str] = []
    argv = [*host.ssh, f"sudo -n python3 -c {shlex.quote(WATCH)}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace") as watch:
        try:
            yield found
        finally:
            output, _errors = watch.communicate(timeout=60)
        assert watch.returncode == 0, f"{host.name}: its processes could not be watched"
        found.append(output)


def seen(host: Host, secrets: dict[str, str], place: str) -> list[str]:
    """Names of the secrets that lie in one of ``PLACES``."""
    text = host.run(PLACES[place], timeout=120)
    assert len(text) > 100 or place in MAY_BE_EMPTY, f"{host.name}: {place}: nothing to search in"
    return leaks(secrets, text)


def ansible(command: str) -> list[str]:
    """An ansible command of the same Python environment that runs the tests."""
    return [str(Path(sys.executable).with_name(command))]


def environment(**extra: str) -> dict[str, str]:
    """The environment of every Ansible command: the checkout's settings, plain output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_", "PYTEST_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {
        **kept,
        "PATH": path,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def docker(*arguments: str, timeout: float = 120) -> str:
    """Run the docker command against the engine that carries the labs, and return its output, stripped."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout * SLOWNESS, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"`docker {' '.join(arguments)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()
