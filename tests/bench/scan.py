#!/usr/bin/env python3
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let an auditor's scanners judge a host before and after hardening, and a platform that is deployed: `make scan`.

Prints one line a figure, tab-separated: name, wanted, got, unit, `ok` or `short`. Progress and each finding that no waiver covers go to standard
error. Takes a bare lab VM and leaves it hardened; takes a lab with a platform, and only adds the scanners. What is not there is left out. Ends with 0
when the measuring worked, whatever the figures are.

A VM with a kernel of its own (`vm-machine`) is recognised: what a container is forgiven counts there, and the figures have a section of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from pathlib import Path

import yaml

from ansible_collections.berth.odoo.tests.bench import scan_platform
from ansible_collections.berth.odoo.tests.bench.converge import Figure, machine, say, write
from ansible_collections.berth.odoo.tests.bench.scan_platform import DIRECTORY
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, Lab
from ansible_collections.berth.odoo.tests.support.playbook import EMULATED, Player, Run

SSH_AUDIT = "3.9.0"
# Debian 13's own package has no rules for Debian 13: every one is "not applicable" there.
SSG_VERSION = "0.1.82"
SSG_FILE = f"pool/main/s/scap-security-guide/ssg-debian_{SSG_VERSION}-1_all.deb"
SSG_SHA256 = "cfde145916f1f37ec96c0fe2a9ea5f44a2db0ee6f0a2dacfcf86534c0977755a"
PROFILE = "xccdf_org.ssgproject.content_profile_cis_level1_server"
WAIVERS = Path(__file__).with_name("scan_waivers.yml")
RULES = "/tmp/berth-scan-arf.xml"
KEPT = "scan.json"
"""What the last scan found, beside the other files of its lab."""
# As a machine that is rented has it: without one, the scanner passes over its rules. It is put on no disk, QEMU loads the kernel itself.
BOOT_LOADER = (
    "test -e /boot/grub/grub.cfg || { echo 'grub-pc grub-pc/install_devices_empty boolean true' | debconf-set-selections && "
    "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends grub-pc && mkdir -p /boot/grub && update-grub 2>&1; }"
)


@dataclasses.dataclass(frozen=True)
class Scan:
    """What the scanners said.

    Attributes:
        lynis: hardening index, 0 to 100.
        warnings: ids of Lynis' warnings.
        suggestions: ids of its suggestions; that about sshd with the setting that it means.
        rules: result of each CIS rule that was selected: ``pass``, ``fail``, ``notapplicable`` …
        ssh: names of the algorithms that ssh-audit fails, and those it warns of.
    """

    lynis: int
    warnings: list[str]
    suggestions: list[str]
    rules: dict[str, str]
    ssh: tuple[list[str], list[str]]

    def count(self, result: str) -> int:
        """How many rules ended so."""
        return sum(1 for found in self.rules.values() if found == result)

    @property
    def failed(self) -> list[str]:
        """Rules that failed, or could not be judged."""
        return sorted(name for name, result in self.rules.items() if result in {"fail", "error", "unknown"})

    @property
    def applicable(self) -> int:
        """Rules that judged something."""
        return self.count("pass") + len(self.failed)


def virtualisation(host: Host) -> str:
    """What a host runs in: nothing for a container, else what its kernel runs on, such as ``kvm``, or ``qemu`` with an emulated processor."""
    if host.run("systemd-detect-virt --container", check=False).strip() != "none":
        return ""
    return host.run("systemd-detect-virt", check=False).strip()


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was found on a host, before it is judged.

    Attributes:
        where: what was measured where and with what.
        kind: as ``virtualisation`` says.
        before: before hardening, where that was looked at.
        after: after it.
        seconds: what the run took that had nothing to do.
        changed: how many tasks changed something in it.
    """

    where: str
    kind: str
    before: Scan | None
    after: Scan
    seconds: float
    changed: int

    def keep(self, file: Path) -> None:
        """Write it down, so that it can be judged again by other waivers."""
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def kept(cls, file: Path) -> Measured:
        """Read what was written down.

        Raises:
            SystemExit: nothing was.
        """
        if not file.exists():
            raise SystemExit(f"There is no {file}: scan this lab first, without --again.")
        data = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**data, **{name: Scan(**data[name]) for name in ("before", "after") if data[name]}})


def prepare(host: Host, kind: str) -> dict[str, str]:
    """Put the scanners on the host, and a boot loader where it is a machine; return the scanners' versions."""
    say("Installing the scanners")
    packages = "lynis openscap-scanner openscap-common linux-base curl ca-certificates"
    host.run(f"apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends {packages}", timeout=900)
    if kind:
        host.run(BOOT_LOADER, timeout=900)
    archive = host.run("apt-get indextargets --format '$(SITE)' | grep -v security | head -n 1").strip()
    host.run(
        f"mkdir -p {DIRECTORY} && cd {DIRECTORY} && curl -sSf -o ssg.deb {archive.rstrip('/')}/{SSG_FILE} && "
        f"echo '{SSG_SHA256}  ssg.deb' | sha256sum --quiet -c - && dpkg-deb -x ssg.deb .",
        timeout=120,
    )
    scan_platform.install(host, "ssh-audit", SSH_AUDIT)
    versions = host.run("dpkg-query -W -f '${Package} ${Version}\n' lynis openscap-scanner").split()
    return {**dict(zip(versions[::2], versions[1::2], strict=True)), "ssg-debian": SSG_VERSION, "ssh-audit": SSH_AUDIT}


def suggestion(line: str) -> str:
    """Name what Lynis suggests, from a line of its report: id, text, detail, remedy."""
    name, _text, detail = line.split("|")[:3]
    return f"{name} {detail.split()[0]}" if name == "SSH-7408" else name


def scan(host: Host) -> Scan:
    """Run all scanners."""
    # Half of the rules are "not applicable" where this file says that the host is a container. Docker makes it anew at each start.
    host.run("rm -f /.dockerenv")
    say("Lynis")
    host.run("lynis audit system --quick --quiet --no-colors >/dev/null 2>&1", timeout=900, check=False)
    report = [line.partition("=")[::2] for line in host.run("cat /var/log/lynis-report.dat").splitlines()]
    say("OpenSCAP")
    ignore = "OSCAP_PROBE_IGNORE_PATHS=/var/lib/docker:/var/lib/containerd"
    content = f"{DIRECTORY}/usr/share/xml/scap/ssg/content/ssg-debian13-ds.xml"
    # 2 says that a rule failed.
    command = f"{ignore} oscap xccdf eval --profile {PROFILE} --results {RULES} {content} >/dev/null 2>&1; case $? in 0|2) echo done;; esac"
    if host.run(command, timeout=900, check=False).strip() != "done":
        raise SystemExit(f"oscap did not end as it should. Try on {host.name}: {command}")
    reader = (
        "import json,sys,xml.etree.ElementTree as e;n='{http://checklists.nist.gov/xccdf/1.2}';"
        f"print(json.dumps({{r.get('idref').split('content_rule_')[-1]: r.find(n+'result').text for r in e.parse('{RULES}').iter(n+'rule-result')}}))"
    )
    rules = {name: result for name, result in json.loads(host.run(f'python3 -c "{reader}"')).items() if result != "notselected"}
    say("ssh-audit")
    audit = json.loads(host.run(f"cd {DIRECTORY} && python3 -m ssh_audit.ssh_audit --skip-rate-test -j 127.0.0.1", check=False))
    found: dict[str, set[str]] = {"fail": set(), "warn": set()}
    for kind in ("kex", "key", "enc", "mac"):
        for algorithm in audit[kind]:
            for level, names in found.items():
                if algorithm.get("notes", {}).get(level):
                    names.add(algorithm["algorithm"])
    return Scan(
        int(next(value for key, value in report if key == "hardening_index")),
        [value.split("|")[0] for key, value in report if key == "warning[]"],
        sorted({suggestion(value) for key, value in report if key == "suggestion[]"}),
        rules,
        (sorted(found["fail"]), sorted(found["warn"])),
    )


@dataclasses.dataclass(frozen=True)
class Waivers:
    """What is accepted, by the name of the finding, each with its reason.

    Attributes:
        accepted: what hardening leaves on purpose, on every host.
        cannot: what a container's kernel or boot does not allow; on a machine of its own these count.
        suggestions: what Lynis suggests and is not done.
        tls: what sslyze finds missing of Mozilla's profiles, by door and finding.
        docker: what docker-bench-security warns of, by the number of the check.
    """

    accepted: dict[str, str]
    cannot: dict[str, str]
    suggestions: dict[str, str]
    tls: dict[str, str]
    docker: dict[str, str]

    def reason(self, name: str) -> str | None:
        """Why a finding is left, or nothing."""
        return next((part[name] for part in (self.accepted, self.cannot, self.suggestions, self.tls, self.docker) if name in part), None)


def share(result: Scan, without: int = 0) -> float:
    """Percentage of the rules that pass, of all that judged something but ``without``."""
    return 100 * result.count("pass") / (result.applicable - without)


def figures(measured: Measured, waivers: Waivers) -> list[Figure]:
    """Everything that is promised, and where it began."""
    before, after, emulated = measured.before, measured.after, measured.kind == "qemu"
    unwaived = [name for name in after.failed if not waivers.reason(name)]
    warnings = [name for name in after.warnings if not waivers.reason(name)]
    suggestions = [name for name in after.suggestions if not waivers.reason(name)]

    cannot = sum(1 for name in after.failed if name in waivers.cannot)
    rows = [
        Figure("lynis_index", 85, after.lynis, "points", least=True),
        Figure("lynis_warnings_not_waived", 0, len(warnings), "warnings"),
        Figure("lynis_suggestions_not_waived", 0, len(suggestions), "suggestions"),
        Figure("cis_level1", 95, share(after), "%", least=True),
        Figure("cis_level1_applicable", 340, after.applicable, "rules", least=True),
        Figure("cis_level1_not_waived", 0, len(unwaived), "rules"),
        Figure("ssh_audit_fail", 0, len(after.ssh[0]), "algorithms"),
        Figure("ssh_audit_warn", 0, len(after.ssh[1]), "algorithms"),
        # How long it takes is a promise for a processor that is there.
        Figure("hardening_unchanged", 0 if emulated else 6, measured.seconds, "s", least=emulated),
        Figure("hardening_unchanged_changes", 0, measured.changed, "tasks"),
    ]
    if not measured.kind:
        rows.append(Figure("cis_level1_that_can_apply", 95, share(after, cannot), "%", least=True))
    if before:
        rows += [
            Figure("lynis_index_before", 0, before.lynis, "points", least=True),
            Figure("cis_level1_before", 0, share(before), "%", least=True),
            Figure("ssh_audit_fail_before", 99, len(before.ssh[0]), "algorithms"),
        ]
    return sorted(rows, key=lambda row: ("lynis", "cis", "ssh", "hardening").index(row.name.partition("_")[0]))


def circumstances(versions: dict[str, str], where: str) -> str:
    """What was measured where and with what."""
    tools = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {machine()}, with `make scan`, {where}: {tools}."


def heading(where: str, rows: list[Figure]) -> list[str]:
    """The circumstances, and the figures."""
    return [
        where,
        "",
        "| Figure | Wanted | Got | Unit | |",
        "|---|---:|---:|---|---|",
        *("| " + " | ".join(row.cells) + " |" for row in rows),
    ]


def judge(measured: Measured, waivers: Waivers) -> tuple[list[Figure], str]:
    """Return the figures and their section of docs/benchmarks.md, and say what is left."""
    before, after = measured.before, measured.after
    if measured.kind:
        # It has all that a container lacks, so it is forgiven nothing of that.
        waivers = dataclasses.replace(waivers, cannot={})
    left = [*after.failed, *(f"Lynis {name}" for name in (*after.warnings, *after.suggestions))]
    reasons = {name: waivers.reason(name.removeprefix("Lynis ")) for name in left}
    for name in (*left, *after.ssh[0], *after.ssh[1]):
        say(f"{name}: {reasons.get(name) or 'NO WAIVER'}")
    rows = figures(measured, waivers)
    began = f"before: {before.count('pass')} pass, {len(before.failed)} fail; " if before else ""
    lines = [
        *heading(measured.where, rows),
        "",
        f"CIS {began}after: {after.count('pass')} pass, {len(after.failed)} fail.",
        "",
        "| Left | Why |",
        "|---|---|",
        *(f"| {name} | {reason or '**no waiver**'} |" for name, reason in reasons.items()),
    ]
    return rows, "\n".join(lines)


def scan_host(lab: Lab, kind: str, *, after_only: bool) -> Measured:
    """Scan a bare VM, harden it, scan it again."""
    host, player = lab.host, Player(lab, say)

    def play(playbook: str) -> Run:
        # Only members of one group may log in, as the benchmark wants it.
        variables = {"hardening_ssh_groups": [str(host.variables["ansible_user"])], "hardening_confirm_seconds": 600}
        return player(playbook, variables=variables, **EMULATED).expect_success()

    where = "on a bare lab VM, a container whose kernel is not its own"
    if kind:
        processor = "emulated" if kind == "qemu" else f"run by {kind}"
        where = f"on a lab VM with a kernel of its own ({host.run('uname -r').strip()}) and a processor that is {processor}"
    versions = prepare(host, kind)
    before = None if after_only else scan(host)
    play("tests/bench/scan_host.yml")
    play("playbooks/harden.yml")
    host.run("while systemctl is-active --quiet berth-aide-init; do sleep 1; done", timeout=1800)
    again = play("playbooks/harden.yml")
    return Measured(circumstances(versions, where), kind, before, scan(host), again.seconds, len(again.changed))


def scan_site(lab: Lab, checkout: Path | None, waivers: Waivers) -> tuple[list[Figure], str]:
    """Scan every host of a platform; return the figures and their section of docs/benchmarks.md."""
    rows, left, versions = [], {}, {}
    doors: dict[str, dict[str, str]] = {}
    warned: dict[str, str] = {}
    for host in lab.hosts.values():
        versions = scan_platform.versions(host, checkout)
        say(f"sslyze on {host.name}")
        for door, found in scan_platform.tls(host).items():
            doors.setdefault(door, {}).update({f"{door} {name}": text for name, text in found.items()})
        if checkout:
            warned |= scan_platform.bench(host, checkout)
    for door in (door for door in scan_platform.DOORS if door.name in doors):
        open_findings = [name for name in doors[door.name] if name not in waivers.tls]
        rows.append(Figure(f"tls_{door.name}_{door.profile}_not_waived", 0, len(open_findings), "findings"))
        left |= doors[door.name]
    if checkout:
        rows.append(Figure("docker_bench_not_waived", 0, sum(not waivers.reason(name) for name in warned), "warnings"))
        left |= warned
    else:
        say("docker-bench-security is not run: it comes in no package. Type: make scan BENCH='--docker-bench=<checkout>'")
    for name, text in left.items():
        say(f"{name}: {text}: {waivers.reason(name) or 'NO WAIVER'}")
    own = any(virtualisation(host) for host in lab.hosts.values())
    kinds = "a machine with a kernel of its own" if own else "a container whose kernel is not its own"
    lines = [
        *heading(circumstances(versions, f"on the lab {lab.name}, deployed by the collection, {kinds}"), rows),
        "",
        "| Left | What | Why |",
        "|---|---|---|",
        *(f"| {name} | {text} | {waivers.reason(name) or '**no waiver**'} |" for name, text in left.items()),
    ]
    return rows, "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", default="roles", help="a lab with one bare VM (default: roles)")
    parser.add_argument("--platform", default="demo", help="a lab with a deployed platform (default: demo)")
    parser.add_argument(
        "--docker-bench", type=Path, help="a checkout of https://github.com/docker/docker-bench-security, to be run on the platform"
    )
    parser.add_argument("--after-only", action="store_true", help="do not scan before hardening, which takes long on an emulated processor")
    parser.add_argument(
        "--again", action="store_true", help="judge what the last scan of the bare VM found, as after a change of the waivers"
    )
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    bare, platform = (Lab(name, (REPOSITORY / ".cache/lab" / name / "inventory",)) for name in (options.lab, options.platform))
    if not bare.directory.is_dir() and not platform.directory.is_dir():
        raise SystemExit(
            f"There is no lab {bare.name} and no lab {platform.name} to scan. Type: make demo, or for a bare one: "
            f"ansible-playbook molecule/shared/create.yml -e lab_name={bare.name}"
        )
    waivers = Waivers(**yaml.safe_load(WAIVERS.read_text(encoding="utf-8")))
    done = {}
    if bare.directory.is_dir():
        if not options.again:
            scan_host(bare, virtualisation(bare.host), after_only=options.after_only).keep(bare.directory / KEPT)
        measured = Measured.kept(bare.directory / KEPT)
        done["scan-machine" if measured.kind else "scan"] = judge(measured, waivers)
    if platform.directory.is_dir() and not options.again:
        done["scan-platform"] = scan_site(platform, options.docker_bench, waivers)
    for section, (rows, text) in done.items():
        for row in rows:
            sys.stdout.write("\t".join(row.cells) + "\n")
        if options.write:
            write(text, section)


if __name__ == "__main__":
    main()
