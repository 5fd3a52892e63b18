# SPDX-License-Identifier: GPL-3.0-or-later
"""Run `ansible-test sanity` on a copy of this checkout, without the internet beyond a package index.

    python tools/sanity.py [arguments of ansible-test sanity]

ansible-test wants the collection at ansible_collections/berth/odoo in a git repository and follows no symbolic links. It hands pip neither
the environment nor HOME's usual configuration, and fetches get-pip.py; this program gives it a HOME that has both, .cache/sanity/home,
where its virtual environments stay between runs.

Only what users get is tested, and tests/sanity: the rules are about code that Ansible loads (no name `_`, no subprocess, its own docstrings),
not about programs and tests of our own, which ruff, mypy and shellcheck read.
"""

from __future__ import annotations

import ast
import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages

ROOT = Path(__file__).resolve().parents[1]
SANITY = ROOT / ".cache/sanity"
COPY = SANITY / "ansible_collections/berth/odoo"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def pip_configuration() -> configparser.RawConfigParser:
    """What pip is told on this machine by files and environment variables, as one configuration file."""
    listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True).stdout
    configuration = configparser.RawConfigParser()
    # Lines are section.key='value'; those of the environment, section ":env:", come first there but win in pip.
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        name, value = line.split("=", 1)
        section, key = name.rsplit(".", 1)
        section = "global" if section == ":env:" else section
        if not configuration.has_section(section):
            configuration.add_section(section)
        configuration.set(section, key, str(ast.literal_eval(value)))
    return configuration


def main() -> int:
    """Prepare the copy and HOME, run the tests."""
    subprocess.run([ROOT / "tools/export", COPY], check=True)
    for entry in (COPY / "molecule", COPY / "tools", *COPY.glob("tests/*")):
        if entry.is_dir() and entry.name != "sanity":
            shutil.rmtree(entry)
    for program in COPY.glob("tests/*.py"):
        program.unlink()
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=COPY, check=True)

    home = SANITY / "home"
    for directory in (home / ".ansible/test/cache", home / ".config/pip"):
        directory.mkdir(parents=True, exist_ok=True)
    with (home / ".config/pip/pip.conf").open("w") as file:
        pip_configuration().write(file)
    pip_version = get_venv_packages(SimpleNamespace(version=PYTHON))["pip"]
    (home / f".ansible/test/cache/get_pip_{pip_version.replace('.', '_')}.py").write_text(
        "import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n"
    )

    command = ["ansible-test", "sanity", "--python", PYTHON, "--color", "no", *sys.argv[1:]]
    return subprocess.run(command, cwd=COPY, env=os.environ | {"HOME": str(home)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
