# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive that a user installs: what is in it, and that it works where there is nothing else of this checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = {"meta", "playbooks", "plugins", "roles"}
SHIPPED = CODE | {
    "docs",
    "inventories",
    "changelogs",
    "CHANGELOG.rst",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, built as `make build` does."""
    directory = tmp_path_factory.mktemp("build")
    subprocess.run([ROOT / "tools/export", directory / "source"], check=True)
    subprocess.run(["ansible-galaxy", "collection", "build", directory / "source", "--output-path", directory], check=True)
    return next(directory.glob("berth-odoo-*.tar.gz"))


@pytest.fixture(scope="module")
def environment(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which the installed collection alone is found, reduced to the directories that are code."""
    target = tmp_path_factory.mktemp("installed")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (target / "ansible.cfg").touch()  # none of this checkout's or the user's settings
    clean |= {"ANSIBLE_COLLECTIONS_PATH": str(target), "ANSIBLE_CONFIG": str(target / "ansible.cfg")}
    subprocess.run(["ansible-galaxy", "collection", "install", archive, "--offline", "--collections-path", target], check=True, env=clean)
    collection = target / "ansible_collections/berth/odoo"
    for entry in collection.iterdir():
        if entry.is_dir() and entry.name not in CODE:
            shutil.rmtree(entry)
    return clean | {"BERTH_COLLECTION": str(collection)}


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_archive_holds_what_users_need_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert {name.partition("/")[0] for name in names} == SHIPPED
    assert not [name for name in names if "/." in name or "__pycache__" in name or "vault-password" in name]


def test_every_playbook_of_the_archive_resolves(environment: dict[str, str]) -> None:
    playbooks = sorted(Path(environment["BERTH_COLLECTION"], "playbooks").glob("*.yml"))
    assert playbooks
    for playbook in playbooks:
        run(environment, "ansible-playbook", "--syntax-check", "--inventory", "localhost,", f"berth.odoo.{playbook.stem}")


def test_every_plugin_of_the_archive_is_documented_and_loads(environment: dict[str, str]) -> None:
    collection = Path(environment["BERTH_COLLECTION"])
    modules = [f"berth.odoo.{file.stem}" for file in sorted((collection / "plugins/modules").glob("*.py"))]
    assert modules
    run(environment, "ansible-doc", "--type", "module", "--json", *modules)
    files = sorted((collection / "plugins").glob("*/*.py"))
    names = [".".join(("ansible_collections", *file.relative_to(collection.parents[1]).with_suffix("").parts)) for file in files]
    run(
        environment | {"PYTHONPATH": str(collection.parents[2])},
        "python",
        "-c",
        f"import importlib\nfor name in {names!r}: importlib.import_module(name)",
    )


def test_every_role_of_the_archive_has_a_contract(environment: dict[str, str]) -> None:
    roles = sorted(directory.name for directory in Path(environment["BERTH_COLLECTION"], "roles").iterdir())
    listing = json.loads(run(environment, "ansible-doc", "--type", "role", "--list", "--json", "berth.odoo"))
    assert sorted(listing) == [f"berth.odoo.{name}" for name in roles]
