# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said about modules that an Odoo image cannot carry, and how the files of one get their times."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

FILES = Path(__file__).parents[3] / "roles/images/files"


def program(path: str) -> ModuleType:
    """Load a program that runs in an image."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, FILES / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass or a named tuple looks its module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


contract, stamp = program("odoo/contract.py"), program("odoo_addons/stamp.py")
CORE = f"{contract.CORE}/odoo/addons"
OWN = "/usr/local/lib/python3.13/dist-packages/odoo/addons"


def module(name: str, *depends: str, path: str = OWN, **manifest: Any) -> Any:
    return contract.Module(name, f"{path}/{name}", {"depends": list(depends), **manifest})


BASE = module("base", path=CORE)
STOCK = module("stock", "base", path=CORE)


def test_modules_that_fit_are_not_complained_about() -> None:
    assert contract.module_problems([BASE, STOCK, module("acme", "stock", version="19.0.1.0.0")], "19.0") == []


def test_a_missing_dependency_says_what_to_type() -> None:
    assert contract.module_problems([BASE, STOCK, module("acme", "queue_job")], "19.0") == [
        "module acme depends on queue_job, which the image does not have: add its directory to images_odoo_addons, or odoo-addon-queue-job"
        " with version and hash to images_odoo_requirements"
    ]
    (problem,) = contract.module_problems([BASE, STOCK, module("acme", "stocks")], "19.0")
    assert "did you mean stock? Otherwise add" in problem


def test_a_second_copy_is_refused_but_for_debians_own() -> None:
    assert contract.module_problems([BASE, STOCK, module("stock", path=f"{contract.CORE}/addons")], "19.0") == []
    (problem,) = contract.module_problems([module("stock"), BASE, STOCK], "19.0")
    assert problem.startswith(f"module stock is there twice, in {OWN}/stock and in {CORE}/stock: rename yours")


def test_a_module_for_another_odoo_is_refused() -> None:
    (problem,) = contract.module_problems([BASE, module("acme", version="18.0.1.0.0")], "19.0")
    assert problem == "module acme has version 18.0.1.0.0, which Odoo 19.0 does not install: take the one for 19.0"


def test_what_its_author_has_switched_off_is_left_alone_until_somebody_needs_it() -> None:
    off = module("acme_old", "gone", installable=False)
    assert contract.module_problems([BASE, off], "19.0") == []
    (problem,) = contract.module_problems([BASE, off, module("acme", "acme_old")], "19.0")
    assert problem.startswith("module acme depends on acme_old, whose manifest says that it is not installable")


def test_a_manifest_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme/__manifest__.py").write_text("{'name': 'x',\n'depends': [}\n")
    (problem,) = contract.module_problems([BASE, *contract.read_modules([tmp_path])], "19.0")
    assert problem.startswith(f"module acme: {tmp_path}/acme/__manifest__.py cannot be read: line 2:")


def test_modules_are_imported_after_what_they_need_and_a_circle_ends() -> None:
    modules = [module("z", "stock"), module("a", "z"), STOCK, BASE, module("x", "y"), module("y", "x")]
    names = [item.name for item in contract.in_order(modules)]
    assert names[:4] == ["base", "stock", "z", "a"] and sorted(names[4:]) == ["x", "y"]


def test_packages_and_programs_of_manifests_are_looked_for() -> None:
    def check(name: str) -> None:
        if name != "requests":
            raise ImportError(f"External dependency {name!r} not installed")

    wanted = module("acme", external_dependencies={"python": ["requests", "python-Slugify>=8"], "bin": ["sh", "zint"]})
    assert contract.outside_problems([wanted], check, lambda name: name == "sh") == [
        "module acme needs the Python package python-Slugify>=8, which its manifest names (External dependency 'python-Slugify>=8' not"
        " installed): add python-slugify==<version> with its hash to images_odoo_requirements, or Debian's python3-python-slugify to"
        " images_odoo_packages",
        "module acme needs the program zint, which its manifest names: add its Debian package to images_odoo_packages",
    ]


def test_a_module_that_cannot_be_imported_is_named_and_those_above_it_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in {"good": "", "bad": "import nowhere_to_be_found", "above": "from odoo.addons import bad"}.items():
        (tmp_path / "odoo/addons" / name).mkdir(parents=True)
        (tmp_path / "odoo/addons" / name / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (problem,) = contract.import_problems([module("good"), module("bad", "good"), module("above", "bad")])
    assert problem == (
        "module bad cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
        f" at {tmp_path}/odoo/addons/bad/__init__.py line 1: add nowhere_to_be_found==<version> with its hash to images_odoo_requirements,"
        " or Debian's python3-nowhere_to_be_found to images_odoo_packages"
    )


def test_a_module_that_has_a_problem_already_is_not_imported() -> None:
    known = ["module nowhere_a depends on gone, which the image does not have"]
    assert contract.import_problems([module("nowhere_a"), module("nowhere_b", "nowhere_a")], known) == []


def test_what_packages_require_is_looked_for_with_their_extras() -> None:
    packages = {
        "addon": ("1", ["fsspec[s3]>=2", "odoo==19.0.*", "pytest; extra == 'test'"]),
        "fsspec": ("2", ["s3fs; extra == 's3'", "dask; extra == 'dask'"]),
        "odoo": ("19.0", []),
        "old": ("1", ["fsspec>=3"]),
    }

    def find(name: str) -> Any:
        if name not in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return SimpleNamespace(name=name, version=packages[name][0], requires=packages[name][1])

    assert contract.package_problems([find("addon"), find("old")], Requirement, find) == [
        "Python package old 1 needs fsspec >=3, the image has 2: add a version of fsspec that fits, with its hash, to images_odoo_requirements",
        "Python package fsspec 2 needs s3fs, the image does not have it: add a version of s3fs that fits, with its hash, to"
        " images_odoo_requirements",
    ]


def test_times_say_what_is_in_a_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "static").mkdir(parents=True)
        (tmp_path / name / "static/x.scss").write_text("a { color: red }")
        os.utime(tmp_path / name / "static/x.scss", (len(name), 5))
        stamp.stamp(tmp_path / name)
    first, second = ((tmp_path / name / "static/x.scss").stat().st_mtime for name in ("a", "b"))
    assert first == second
    assert (tmp_path / "a/static").stat().st_mtime == stamp.EARLIEST
    (tmp_path / "b/static/x.scss").write_text("a { color: blue }")
    stamp.stamp(tmp_path / "b")
    assert (tmp_path / "b/static/x.scss").stat().st_mtime != first
