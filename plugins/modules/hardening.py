#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hardening
short_description: Harden a Debian host by topics in one step, without locking anybody out
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Converges packages, files, single lines, modes, kernel settings, units and sshd as the topics say. No handler is involved, what runs is
    compared with what is on disk in each run, so an interrupted one is completed by the next.
  - What this host may not do is tried and not guessed from its kind of virtualisation. It is named in RV(not_applied) and a warning.
  - sshd's configuration is judged by C(sshd -T) before anything is changed. It is refused when whoever runs this could not log in with it,
    or when it would let in whom the old one keeps out.
    It is loaded by O(state=loaded) alone, which is quick, because O(confirm_seconds) later the old one comes back, unless O(state=confirmed) was
    called through a connection made since.
attributes:
  check_mode:
    description: Predicts.
    support: full
  diff_mode:
    description: Shows the files before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  state:
    description:
      - V(present) converges the topics, all but sshd's configuration, which it judges.
      - V(loaded) puts sshd's configuration in place and loads it.
      - V(confirmed) keeps a configuration of sshd that waits for it. It fails on a connection that is older than the configuration, and when none
        waits, because the old one came back.
    type: str
    choices: [present, loaded, confirmed]
    default: present
  topics:
    description:
      - Name of a topic to what it wants. C(packages), C(files) (C(path), C(content), C(mode)), C(lines) (C(path), C(match), C(line), C(then), a command to run
        after its change where it is installed), C(modes) (C(path),
        which may be a pattern, C(mode), which takes away only, and C(group)), C(sysctl), C(modules) that shall not be loaded, C(mounts) (path to options),
        C(masked) units, C(units) (C(name), C(state), C(files) after whose change it is restarted, C(probe), a command that fails where it cannot run,
        and of one that ends C(shows), which are C(lines) that C(argv) answers until its work is undone),
        C(ensure) (C(path), C(contains), C(argv)) and C(sshd), settings of its main file. A file and what is ensured may have C(where), a list
        of paths; a host that lacks one of them is not concerned.
    type: dict
    default: {}
  switches:
    description: Name of a topic to whether it is on. A topic that is not named is.
    type: dict
    default: {}
  confirm_seconds:
    description: Seconds after which a configuration of sshd that nobody confirmed is taken back.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Forbid core dumps
  berth.odoo.hardening:
    topics:
      core_dumps:
        cis: [1.5.11]
        files:
          - path: /etc/security/limits.d/80-berth.conf
            content: "* hard core 0\n"
  become: true

- name: Load a configuration of sshd
  berth.odoo.hardening:
    state: loaded
    topics:
      ssh:
        cis: [5.1]
        sshd:
          PermitRootLogin: false
  register: ssh
  become: true

- name: Close the old connection
  ansible.builtin.meta: reset_connection

- name: Keep the configuration of sshd with which this connection was made
  berth.odoo.hardening:
    state: confirmed
  become: true
  when: ssh.confirm
"""

RETURN = r"""
changes:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: ["wrote /etc/security/limits.d/80-berth.conf"]
not_applied:
  description: What this host may not do, with the reason.
  returned: success
  type: dict
  sample: {"kernel.kptr_restrict": "read-only here, it is 0"}
confirm:
  description: Whether the old configuration of sshd comes back unless a new connection confirms the new one.
  returned: success
  type: bool
  sample: true
"""

import contextlib
import errno
import glob
import grp
import json
import os
import pwd
import shlex
import socket
import stat
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _apt, _hardening, _systemd

HEADER = "# Managed by Ansible (berth.odoo.hardening).\n"
SYSCTL = Path("/etc/sysctl.d/85-berth-hardening.conf")
MODPROBE = Path("/etc/modprobe.d/berth-hardening.conf")
SSHD = Path("/etc/ssh/sshd_config")
SOMEBODY = "user=root,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
"""For whom sshd says what holds, where its configuration makes a difference."""
BEFORE = Path("/etc/ssh/.sshd_config.berth-before")
PENDING = Path("/run/berth-sshd-pending.json")
REVERT_UNIT = "berth-sshd-revert"


class Host:
    """One host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the module's parameters; nothing is looked at yet."""
        self.module = module
        self.wanted = _hardening.merge(module.params["topics"], module.params["switches"])
        self.changes: list[str] = []
        self.diff: list[dict[str, str]] = []
        self.not_applied: dict[str, str] = {}
        self.confirm = False

    def converge(self) -> None:
        """Bring everything but sshd to what is wanted; its refusal comes before any change."""
        self.judge_sshd()
        found = _apt.installed(Path("/"), self.wanted["packages"])
        missing = [name for name in self.wanted["packages"] if name not in found]
        if missing and self.change(f"installed {', '.join(missing)}"):
            _apt.install(self.module.run_command, missing)
        for file in filter(self.concerns, self.wanted["files"]):
            self.write(Path(file["path"]), str(file["content"]), int(str(file.get("mode", "0644")), 8), file.get("validate", ""))
        for line in self.wanted["lines"]:
            self.line(Path(line["path"]), line["match"], line["line"], line.get("then", []))
        for step in filter(self.concerns, self.wanted["ensure"]):
            self.ensure(step)
        # What was just run makes files anew, groupadd that with the groups before.
        for mode in self.wanted["modes"]:
            self.modes(mode["path"], int(str(mode["mode"]), 8), mode.get("group", ""))
        self.mounts()
        self.modules()
        self.sysctl()
        self.units()

    def load(self) -> None:
        """Bring sshd to what is wanted: apart from the rest, so that no host's packages use up the minute that another one has."""
        if candidate := self.judge_sshd():
            self.sshd(candidate)

    def change(self, text: str) -> bool:
        """Note a change, and tell whether it may be made."""
        self.changes.append(text)
        return not self.module.check_mode

    def call(self, argv: list[str]) -> str:
        """Run a command and return its output.

        :raises HardeningError: it failed.
        """
        code, output, errors = self.module.run_command(argv)
        if code:
            raise _hardening.HardeningError(f"`{shlex.join(argv)}` failed with {code}: {(errors.strip() or output.strip())[-600:]}")
        return output

    # -- files

    def concerns(self, step: dict[str, Any]) -> bool:
        """Tell whether the host has all that a step is about, where the step says what that is."""
        return all(Path(path).exists() for path in step.get("where", []))

    def write(self, path: Path, content: str, mode: int = 0o644, validate: str = "") -> bool:
        """Write a file of ours atomically where it differs, and tell whether it changed.

        *validate* is a command that judges the candidate, whose path is put for ``%s``.
        """
        try:
            before = path.read_text(encoding="utf-8", errors="replace")
            now = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            before, now = None, mode
        if before == content:
            if now != mode and self.change(f"set the mode of {path} to {mode:04o}"):
                path.chmod(mode)
            return False
        self.diff.append({"before_header": str(path), "after_header": str(path), "before": before or "", "after": content})
        if self.change(f"wrote {path}"):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            # Neither sudo, nor cron, nor run-parts, nor systemd reads a name that begins with a dot.
            candidate = path.with_name(f".{path.name}.new")
            candidate.unlink(missing_ok=True)
            candidate.write_text(content, encoding="utf-8")
            candidate.chmod(mode)
            if validate:
                try:
                    self.call([part.replace("%s", str(candidate)) for part in shlex.split(validate)])
                except _hardening.HardeningError:
                    candidate.unlink()
                    raise
            candidate.replace(path)
        return True

    def line(self, path: Path, match: str, line: str, then: list[str]) -> None:
        """Hold one line of a file that belongs to Debian. A file that is not there has nothing to hold."""
        try:
            before = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            if self.module.check_mode and any(change.startswith("installed ") for change in self.changes):
                self.change(f"wrote {path}")  # the package that brings it is not there yet
            else:
                self.not_applied[f"{path}: {line}"] = "no such file"
            return
        changed = self.write(path, _hardening.with_line(before, match, line), stat.S_IMODE(path.stat().st_mode))
        if changed and then and self.module.get_bin_path(then[0]) and self.change(f"ran {shlex.join(then)}"):
            self.call(then)

    def modes(self, pattern: str, mode: int, group: str) -> None:
        """Take away the permissions that *mode* does not have, nobody gets more than before; and give the file to *group*."""
        for name in sorted(glob.glob(pattern)):
            # Its owner could put a link in its place in between: what was opened is what is changed.
            try:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENOENT, errno.ENXIO}:  # a link, gone meanwhile, a socket
                    continue
                raise
            try:
                found = os.fstat(file)
                now = stat.S_IMODE(found.st_mode)
                if now & ~mode and self.change(f"set the mode of {name} to {now & mode:04o}"):
                    os.fchmod(file, now & mode)
                if group and found.st_gid != (gid := grp.getgrnam(group).gr_gid) and self.change(f"gave {name} to the group {group}"):
                    os.fchown(file, -1, gid)
            finally:
                os.close(file)

    def ensure(self, step: dict[str, Any]) -> None:
        """Run a command whose work is told by a file: it is there, and holds all that it shall."""
        path = Path(step["path"])

        def missing() -> list[str]:
            try:
                text = path.read_text(encoding="utf-8", errors="replace") if step.get("contains") else str(path.stat())
            except FileNotFoundError:
                return [str(path)]
            return [word for word in step.get("contains", []) if word not in text]

        lacks = missing()
        unit = step.get("unit", "")
        state = _systemd.show(self.module.run_command, [unit])[unit].active if lacks and unit else ""
        if not lacks or state in {"active", "activating"}:
            return
        if state == "failed":
            self.not_applied[str(path)] = f"{unit} failed the last time and is tried again. Look: journalctl -u {unit}"
        if self.change(f"ran {shlex.join(step['argv'])}"):
            if state == "failed":
                _systemd.command(self.module.run_command, "reset-failed", unit)
            self.call(step["argv"])
            if not unit and (left := missing()):
                raise _hardening.HardeningError(
                    f"`{shlex.join(step['argv'])}` ran, and {path} still lacks {', '.join(left)}. Look into {path}."
                )

    # -- kernel

    def mounts(self) -> None:
        """Give mounted file systems their options."""
        mounted = dict(line.split()[4:6] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines())
        for path, options in self.wanted["mounts"].items():
            lacks = set(options) - set(mounted.get(path, "").split(","))
            if path not in mounted:
                self.not_applied[path] = "not mounted"
            elif lacks and self.change(f"mounted {path} with {', '.join(sorted(lacks))}"):
                code, _output, errors = self.module.run_command(["mount", "-o", f"remount,{','.join(options)}", path])
                if code:
                    self.changes.pop()
                    self.not_applied[path] = f"cannot be mounted with {', '.join(sorted(lacks))}: {errors.strip()}"

    def modules(self) -> None:
        """Forbid kernel modules, and name those that are loaded already: they stay until the next boot."""
        names = self.wanted["modules"]
        if not names:
            return
        self.write(MODPROBE, HEADER + "".join(f"install {name} /bin/false\nblacklist {name}\n" for name in names))
        listed = Path("/proc/modules")  # a kernel without modules has none
        loaded = {line.split()[0] for line in listed.read_text(encoding="ascii").splitlines()} if listed.exists() else set()
        for name in names:
            if name.replace("-", "_") in loaded:
                self.not_applied[f"module {name}"] = "loaded already, gone after the next boot"

    def sysctl(self) -> None:
        """Write the settings for the next boot, and apply those that differ now."""
        settings = {str(key): " ".join(str(value).split()) for key, value in self.wanted["sysctl"].items() if value is not None}
        if settings:
            self.write(SYSCTL, HEADER + "".join(f"{key} = {value}\n" for key, value in sorted(settings.items())))
        for key, value in settings.items():
            path = Path("/proc/sys") / key.translate(str.maketrans("./", "/."))
            try:
                now = " ".join(path.read_text(encoding="ascii").split())
            except FileNotFoundError:
                self.not_applied[key] = "unknown to this kernel"
                continue
            except PermissionError:
                now = ""
            if now == value:
                continue
            if not os.access(path, os.W_OK):
                self.not_applied[key] = f"read-only here, it is {now or 'unreadable'}"
            elif self.change(f"set {key} from {now} to {value}"):
                self.set(path, key, value, now)

    def set(self, path: Path, key: str, value: str, now: str) -> None:
        """Set one kernel setting and read it back."""
        try:
            path.write_text(f"{value}\n", encoding="ascii")
        except OSError as error:
            if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
                self.changes.pop()
                self.not_applied[key] = f"{os.strerror(error.errno).lower()}, it is {now}"
                return
            raise _hardening.HardeningError(f"the kernel refuses {key} = {value}: {error.strerror}. It is {now}.") from error
        if (left := " ".join(path.read_text(encoding="ascii").split())) != value:
            raise _hardening.HardeningError(f"{key} was set to {value}, and the kernel says {left}.")

    # -- units

    def units(self) -> None:
        """Mask, enable, start or restart units; what is older than its files is restarted."""
        wanted = {unit["name"]: unit for unit in self.wanted["units"]}
        names = [*wanted, *self.wanted["masked"]]
        if not names:
            return
        if any(change.startswith("wrote /etc/systemd/system/") for change in self.changes) and not self.module.check_mode:
            _systemd.command(self.module.run_command, "daemon-reload")
        states = _systemd.show(self.module.run_command, names)
        for name in self.wanted["masked"]:
            now = states.get(name)
            if now and now.load == "loaded" and self.change(f"masked {name}"):
                # A timer that runs while it is masked has failed for systemd, and the host is degraded until it boots.
                _systemd.command(self.module.run_command, "stop", name)
                _systemd.command(self.module.run_command, "mask --now --quiet", name)
            elif now and (now.load, now.active) == ("masked", "failed") and self.change(f"forgot that {name} failed"):
                _systemd.command(self.module.run_command, "reset-failed", name)
        for name, unit in wanted.items():
            now = states.get(name)
            if now is None or now.load == "not-found":
                if not self.module.check_mode:
                    self.not_applied[name] = "no such unit"
                else:
                    # The package or file that brings it is not there yet.
                    self.change(f"{unit['state']} {name}")
                continue
            if unit.get("probe") and self.module.run_command(unit["probe"])[0]:
                self.not_applied[name] = f"`{shlex.join(unit['probe'])}` fails here"
                continue
            if now.enabled == "disabled" and self.change(f"enabled {name}"):
                _systemd.command(self.module.run_command, "enable --quiet", name)
            if unit["state"] == "started":
                self.start(name, unit, now)

    def start(self, name: str, unit: dict[str, Any], now: _systemd.Unit) -> None:
        """Start a unit, or restart it where it is older than one of its files."""
        files = [Path(file) for file in unit.get("files", [])]
        stale = any(f"wrote {file}" in self.changes or (file.exists() and int(file.stat().st_mtime) > now.since) for file in files)
        if now.ends:
            done = now.since and now.active == "inactive" and not stale
            if not (done and self.shown(unit.get("shows", {}))) and self.change(f"ran {name}"):
                _systemd.command(self.module.run_command, "start", name)
        elif now.active != "active":
            if now.condition and self.change(f"started {name}"):
                _systemd.command(self.module.run_command, "start", name)
        elif stale and self.change(f"restarted {name}"):
            _systemd.command(self.module.run_command, "restart", name)

    def shown(self, shows: dict[str, Any]) -> bool:
        """Tell whether what a unit has done is still there: every line in the answer of a command."""
        return not shows or set(shows["lines"]) <= set(map(str.strip, self.call(shows["argv"]).splitlines()))

    # -- sshd

    def judge_sshd(self) -> str:
        """Return what sshd's main file shall hold, once it is sure that it is valid and that whoever runs this still gets in."""
        settings = self.wanted["sshd"]
        if not settings:
            return ""
        if not Path("/usr/sbin/sshd").exists():
            self.not_applied["sshd"] = "not installed"
            return ""
        content = _hardening.sshd_config(settings, HEADER)
        trial = Path("/run") / f"berth-sshd-{os.getpid()}.conf"
        trial.write_text(content, encoding="utf-8")
        try:
            code, _output, errors = self.module.run_command(["/usr/sbin/sshd", "-t", "-f", str(trial)])
            if code:
                raise _hardening.HardeningError(f"sshd refuses hardening_ssh: {errors.strip()}")
            self.refuse_to_lose(trial, settings)
            reasons = {name: self.shut_out(name, trial) for name in self.operators()}
        finally:
            trial.unlink()
        if reasons and all(reasons.values()):
            lines = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise _hardening.HardeningError(f"nothing was changed, because nobody would get in by SSH afterwards. {lines}.")
        return content

    def refuse_to_lose(self, trial: Path, settings: dict[str, Any]) -> None:
        """Refuse to take away what somebody chose in the file that is about to be replaced: where sshd listens, and whom it keeps out.

        :raises HardeningError: something of it would be gone.
        """
        chosen = {key for key, value in settings.items() if value not in (None, "", [])}
        before = SSHD.read_text(encoding="utf-8", errors="replace") if SSHD.exists() else ""
        code, now, _errors = self.module.run_command(["/usr/sbin/sshd", "-T", "-C", SOMEBODY])
        # Nobody listens by what is not valid; what it begins with Match was meant all the same.
        found = {} if code else _hardening.effective(now)
        then = _hardening.effective(self.call(["/usr/sbin/sshd", "-T", "-f", str(trial), "-C", SOMEBODY]))
        # A list of ours goes with the variable that it came from.
        ours = before.startswith(HEADER)
        if kept_out := _hardening.let_in({} if ours else found, then, chosen, _hardening.vanishing(before)):
            raise _hardening.HardeningError(f"nothing was changed, because sshd would let in whom {SSHD} keeps out: {kept_out}.")
        # Whoever says where it shall listen means it.
        if not {"Port", "ListenAddress"} & chosen and found and (moved := _hardening.moved(found, then)):
            raise _hardening.HardeningError(f"nothing was changed, because sshd would no longer listen where it does. {moved}")

    def operators(self) -> list[str]:
        """Those of whom one must get in: who runs this over SSH, else every member of the group sudo and root."""
        if me := os.environ.get("SUDO_USER"):
            return [me]
        if self.session():
            return ["root"]
        try:
            members = list(grp.getgrnam("sudo").gr_mem)
        except KeyError:
            members = []
        return [*members, "root"]

    def shut_out(self, name: str, config: Path) -> str:
        """Say why a user could not log in under a configuration, or nothing."""
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            return "no such user"
        condition = SOMEBODY.replace("root", name)
        sshd = _hardening.effective(self.call(["/usr/sbin/sshd", "-T", "-f", str(config), "-C", condition]))
        groups = []
        for number in os.getgrouplist(name, user.pw_gid):
            # One without a name, as of a group that was deleted, is in no list of sshd.
            with contextlib.suppress(KeyError):
                groups.append(grp.getgrgid(number).gr_name)
        files = _hardening.key_files(sshd.get("authorizedkeysfile", []), name, user.pw_dir, user.pw_uid)
        keys = sum(
            _hardening.count_keys(Path(file).read_text(encoding="utf-8", errors="replace")) for file in files if Path(file).is_file()
        )
        return _hardening.refusal(_hardening.Account(name, groups, keys, files), sshd)

    def sshd(self, content: str) -> None:
        """Put the configuration in place, load it, and let the old one come back unless it is confirmed."""
        run = self.module.run_command
        before = SSHD.read_text(encoding="utf-8", errors="replace") if SSHD.exists() else ""
        unit = _systemd.show(run, ["ssh.service"])["ssh.service"]
        if before != content:
            if not self.module.check_mode:
                run(["systemctl", "stop", f"{REVERT_UNIT}.timer"])
                # What it holds was confirmed; what a run that was interrupted put in its place was not.
                if not BEFORE.exists():
                    candidate = BEFORE.with_suffix(".new")
                    candidate.write_text(before, encoding="utf-8")
                    candidate.chmod(0o600)
                    candidate.replace(BEFORE)
                self.arm()
            self.write(SSHD, content, 0o600)
            self.confirm = True
        elif stat.S_IMODE(SSHD.stat().st_mode) & 0o077 and self.change(f"set the mode of {SSHD} to 0600"):
            SSHD.chmod(0o600)
        if unit.active != "active":
            if before != content:
                self.not_applied["sshd"] = "ssh.service does not run, a socket or something else starts sshd"
            return
        reasons = [] if before != content else self.stale()
        if (before != content or reasons) and self.change(f"reloaded ssh{': ' + '; '.join(reasons) if reasons else ''}"):
            _systemd.command(run, "reload", "ssh.service")
            self.settled()
        if PENDING.exists() and not self.module.check_mode:
            self.confirm = True

    def stale(self) -> list[str]:
        """Name what the running sshd does that its file does not say."""
        found = []
        changed = self.call(["systemctl", "show", "--timestamp=unix", "--property=StateChangeTimestamp", "--value", "ssh.service"])
        if int(SSHD.stat().st_mtime) > float(changed.strip().lstrip("@") or 0):
            found.append("it is older than its file")
        sshd = _hardening.effective(self.call(["/usr/sbin/sshd", "-T"]))
        return found + _hardening.drift(self.ask(sshd), sshd)

    def ask(self, sshd: dict[str, list[str]]) -> dict[str, list[str]]:
        """Let the running sshd say which algorithms it offers."""
        failure: OSError | None = None
        for address in sshd.get("listenaddress", []):
            host, _colon, port = address.rpartition(":")
            host = host.strip("[]")
            target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where it listens, not we
            try:
                connection = socket.create_connection((target, int(port)), timeout=10)
            except OSError as error:  # a family that this host does not have; another address may do
                failure = error
                continue
            with connection, connection.makefile("rb") as stream:
                connection.sendall(b"SSH-2.0-berth\r\n")
                while not (line := stream.readline()).startswith(b"SSH-"):
                    if not line:
                        raise _hardening.HardeningError(f"sshd at {address} closes the connection at once. Look: journalctl -u ssh")
                head = stream.read(4)
                return _hardening.offered(head + stream.read(int.from_bytes(head, "big")))
        raise failure or _hardening.HardeningError("sshd -T names no address at which sshd listens")

    def settled(self) -> None:
        """Wait until sshd has read its new file: it starts itself anew and does not say when it is through."""
        deadline = time.monotonic() + 60
        while True:
            try:
                left = self.stale()
            # It also closes connections at once, or in the middle of an answer, while it starts, and while too many others try to log in (MaxStartups).
            except (OSError, ValueError, _hardening.HardeningError) as error:
                left = [str(error)]
            if not left:
                return
            if time.monotonic() > deadline:
                raise _hardening.HardeningError(f"sshd was reloaded and does not do what {SSHD} says: {'; '.join(left)}.")
            time.sleep(0.1)

    def arm(self) -> None:
        """Have the old configuration back in a minute, whatever becomes of this run."""
        self.module.run_command(["systemctl", "reset-failed", f"{REVERT_UNIT}.service"])
        PENDING.write_text(json.dumps({"since": time.clock_gettime(time.CLOCK_BOOTTIME)}), encoding="ascii")
        script = f"mv -f {BEFORE} {SSHD} && rm -f {PENDING} && /usr/sbin/sshd -t && systemctl reload ssh.service"
        timer = [f"--on-active={self.module.params['confirm_seconds']}", "--timer-property=AccuracySec=1s", f"--unit={REVERT_UNIT}"]
        self.call(["systemd-run", "--quiet", "--collect", *timer, "/bin/sh", "-c", script])

    def session(self) -> float:
        """Seconds since boot at which the SSH session that carries this began; 0 when there is none."""
        pid, found = os.getpid(), 0.0
        while pid > 1:
            text = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
            name = text[text.index("(") + 1 : text.rindex(")")]
            fields = text[text.rindex(")") + 2 :].split()
            # The listening sshd is above the session; its age says nothing.
            if name.startswith("sshd-") or (name == "sshd" and int(fields[1]) > 1):
                found = int(fields[19]) / os.sysconf("SC_CLK_TCK")
            pid = int(fields[1])
        return found

    def confirmed(self) -> None:
        """Keep the configuration that waits, if this connection was made with it."""
        if not PENDING.exists():
            if self.module.check_mode:
                return
            raise _hardening.HardeningError(
                f"no configuration of sshd waits: the old one came back because nobody confirmed the new one within {self.module.params['confirm_seconds']} s. "
                "Run again; where many hosts take turns, with more of them at once (--forks)"
            )
        since = float(json.loads(PENDING.read_text(encoding="ascii"))["since"])
        began = self.session()
        if began and began < since:
            raise _hardening.HardeningError(
                f"this connection was made {since - began:.0f} s before sshd got its new configuration and proves nothing. "
                f"Use meta: reset_connection before. The old configuration comes back within {self.module.params['confirm_seconds']} s."
            )
        if not began:
            self.not_applied["confirmation"] = "this is no SSH connection; sshd's own test has to do"
        if self.change("kept the new configuration of sshd"):
            self.call(["systemctl", "stop", f"{REVERT_UNIT}.timer"])
            # The timer may have fired between the question and the command.
            if not PENDING.exists():
                raise _hardening.HardeningError("the old configuration of sshd came back before this confirmation. Run again.")
            # In this order: what is left when this is interrupted is confirmed by the next run, and not undone by the next boot.
            BEFORE.unlink(missing_ok=True)
            PENDING.unlink()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "loaded", "confirmed"], "default": "present"},
            "topics": {"type": "dict", "default": {}},
            "switches": {"type": "dict", "default": {}},
            "confirm_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        host = Host(module)
        if module.params["state"] == "confirmed":
            host.confirmed()
        elif module.params["state"] == "loaded":
            host.load()
        else:
            host.converge()
    except (_hardening.HardeningError, _apt.AptError, _systemd.SystemdError, OSError, ValueError) as error:
        changes = host.changes if "host" in locals() else []
        module.fail_json(msg=str(error), changed=bool(changes), changes=changes)
    if host.not_applied:
        module.warn("this host may not do all of it: " + ", ".join(f"{key} ({reason})" for key, reason in sorted(host.not_applied.items())))
    module.exit_json(changed=bool(host.changes), changes=host.changes, not_applied=host.not_applied, confirm=host.confirm, diff=host.diff)


if __name__ == "__main__":
    main()
