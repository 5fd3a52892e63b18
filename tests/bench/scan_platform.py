# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployed platform shows to scanners: its TLS to sslyze, its containers and their engine to docker-bench-security. Part of `make scan`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ansible_collections.berth.odoo.tests.bench.converge import say
from ansible_collections.berth.odoo.tests.support.lab import Host

DIRECTORY = "/opt/berth-scan"
SSLYZE = "6.3.1"
BENCH = "docker-bench-security.sh"


@dataclasses.dataclass(frozen=True)
class Door:
    """A port that speaks TLS.

    Attributes:
        name: what figures and waivers call it.
        container: ``project/service`` that listens.
        port: the port inside of the container; of a door without a server, the one that is published.
        profile: of Mozilla, that it has to keep.
        authority: file on the host with the authority of its certificate. A door without it speaks no TLS there.
        server: name in its certificate. Empty is the host's address, at which sslyze then has to reach it.
        starttls: protocol that comes before TLS.
    """

    name: str
    container: str
    port: int
    profile: str
    authority: str
    server: str = ""
    starttls: str = ""


DOORS = (
    Door("https", "traefik/traefik", 443, "intermediate", "/usr/local/share/ca-certificates/berth-lab.crt"),
    Door("postgresql", "postgresql/postgresql", 5432, "modern", "/opt/berth/postgresql/tls/ca.crt", "postgresql", "postgres"),
    Door("patroni", "postgresql/postgresql", 8008, "modern", "/opt/berth/postgresql/tls/ca.crt", "postgresql"),
    Door("etcd", "etcd/etcd", 2379, "modern", "/opt/berth/etcd/tls/ca.crt", "etcd"),
    Door("etcd_peer", "etcd/etcd", 2380, "modern", "/opt/berth/etcd/tls/ca.crt", "etcd"),
    Door("redis", "redis/redis", 6379, "modern", "/opt/berth/redis/tls/ca.crt", "redis"),
)


def install(host: Host, package: str, version: str) -> None:
    """Put a Python package and what it needs into ``DIRECTORY`` on the host, for the Python that it has."""
    python = host.run("python3 -c 'import sys; print(sys.version_info[0], sys.version_info[1], sep=\".\")'").strip()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as name:
        # Scanners are Python alone; some have no wheel. What they need may be compiled, so it has to be for the host's Python.
        subprocess.run([*pip, "--no-deps", "--target", name, f"{package}=={version}"], check=True, stdout=sys.stderr)
        (found,) = importlib.metadata.distributions(path=[name])
        if found.requires:
            binary = ["--only-binary=:all:", "--python-version", python]
            subprocess.run([*pip, *binary, "--target", name, *found.requires], check=True, stdout=sys.stderr)
        copy(host, Path(name), DIRECTORY)


def copy(host: Host, source: Path, target: str) -> None:
    """Copy what a directory holds into one on the host."""
    host.run(f"mkdir -p {target}")
    with subprocess.Popen(["tar", "-C", str(source), "--exclude=.git", "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run([*host.ssh, f"sudo -n tar --no-same-owner -C {target} -x"], stdin=tar.stdout, check=True)


def verdict(output: str) -> dict[str, str]:
    """Read what sslyze says a server lacks of a profile, by the name of the finding.

    Raises:
        ValueError: it gave no verdict.
    """
    _before, _heading, judged = output.partition("COMPLIANCE AGAINST TLS CONFIGURATION")
    found = dict(re.findall(r"^\s+\* (\w+): (.+)$", judged, re.MULTILINE))
    if "OK - Compliant." not in judged and not (found and "FAILED - Not compliant." in judged):
        raise ValueError(f"sslyze gave no verdict:\n{output[-2000:]}")
    return found


def tls(host: Host) -> dict[str, dict[str, str]]:
    """Let sslyze judge each door of a host; return what is wrong, by door and finding."""
    found = {}
    containers = host.containers()
    for door in DOORS:
        if door.container not in containers:
            continue
        if not host.succeeds(f"test -f {door.authority}"):
            say(f"{host.name}: {door.name} speaks no TLS: nothing outside of this host reaches it")
            continue
        address = next(
            network["IPAddress"]
            for network in containers[door.container].facts["NetworkSettings"]["Networks"].values()
            if network["IPAddress"]
        )
        target = f"{door.server}:{door.port}{{{address}}}" if door.server else f"{host.address}:{door.port}"
        command = (
            f"cd {DIRECTORY} && python3 -W ignore -m sslyze --mozilla_config {door.profile} --certinfo --certinfo_ca_file {door.authority} "
            f"{f'--starttls {door.starttls} ' if door.starttls else ''}'{target}'"
        )
        # It ends with 1 when something is wrong.
        found[door.name] = verdict(host.run(f"{command} 2>&1", timeout=120, check=False))
    if not found:
        raise SystemExit(f"{host.name} has no container that speaks TLS, so nothing was measured. Type: make demo")
    return found


def bench(host: Host, checkout: Path) -> dict[str, str]:
    """Let docker-bench-security judge a host; return what each check warns of, by its number."""
    if not (checkout / BENCH).is_file():
        raise SystemExit(f"{checkout} has no {BENCH}: give the path of a checkout of https://github.com/docker/docker-bench-security")
    say(f"docker-bench-security on {host.name}")
    copy(host, checkout, f"{DIRECTORY}/docker-bench")
    # With sh some checks warn of what is not so.
    host.run(f"cd {DIRECTORY}/docker-bench && rm -f log.json && bash {BENCH} -b -l log >/dev/null 2>&1", timeout=300)
    results = [
        result for section in json.loads(host.run(f"cat {DIRECTORY}/docker-bench/log.json"))["tests"] for result in section["results"]
    ]
    if not any(result["result"] == "PASS" for result in results):
        raise SystemExit(
            f"docker-bench-security passed nothing on {host.name}, so it measured nothing. See {DIRECTORY}/docker-bench/log there"
        )
    return {result["id"]: result.get("details") or result["desc"] for result in results if result["result"] == "WARN"}


def versions(host: Host, checkout: Path | None) -> dict[str, str]:
    """Install the scanners and return what they are."""
    say("Installing sslyze")
    install(host, "sslyze", SSLYZE)
    found = {"sslyze": SSLYZE}
    if checkout:
        text = (checkout / BENCH).read_text(encoding="utf-8") if (checkout / BENCH).is_file() else ""
        found["docker-bench-security"] = next(iter(re.findall(r"^version='(.+)'$", text, re.MULTILINE)), "of an unknown version")
    return found
