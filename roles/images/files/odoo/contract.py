# SPDX-License-Identifier: GPL-3.0-or-later
"""What Odoo's modules need, checked in the image by its contract check, as the image's user.

Odoo itself would say most of this only when a module is installed or a process starts, and some of it never: a module that is missing for
C(--load) is an error in a log and the server goes on without it.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.metadata
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Debian's package. What it brings is Debian's to test; what is beside it is ours.
CORE = "/usr/lib/python3/dist-packages"
LIBRARIES = ("odoo", "odoo.http", "psycopg2", "gevent", "ldap", "redis", "lxml", "PIL", "reportlab", "phonenumbers", "packaging")
MODULES = ("base", "web", "stock", "sale_management", "account")
ADD_MODULE = "add its directory to images_odoo_addons, or odoo-addon-{package} with version and hash to images_odoo_requirements"
ADD_PACKAGE = "add {package}==<version> with its hash to images_odoo_requirements, or Debian's python3-{package} to images_odoo_packages"


class Module(NamedTuple):
    """A module of Odoo, and what its manifest says; C(error) says why it cannot be read."""

    name: str
    path: str
    manifest: Mapping[str, Any]
    error: str = ""

    @property
    def ours(self) -> bool:
        """Whether it was laid on Debian's package."""
        return not self.path.startswith(f"{CORE}/") or self.name == "berth_runtime"

    @property
    def installable(self) -> bool:
        """Whether its author says that it can be installed."""
        return bool(self.manifest.get("installable", True))

    @property
    def depends(self) -> list[str]:
        """Modules that it needs; Odoo takes none for base."""
        return [] if self.name == "base" else [str(name) for name in self.manifest.get("depends") or ["base"]]


def read_modules(paths: Iterable[Path]) -> list[Module]:
    """Read every module below the directories."""
    found = []
    for path in paths:
        for file in sorted(path.glob("*/__manifest__.py")):
            try:
                manifest = ast.literal_eval(file.read_text(encoding="utf-8"))
                if not isinstance(manifest, dict):
                    raise ValueError(f"it is a {type(manifest).__name__} and not a dictionary")
                found.append(Module(file.parent.name, str(file.parent), manifest))
            except (OSError, ValueError, SyntaxError, TypeError) as error:
                where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
                found.append(Module(file.parent.name, str(file.parent), {}, where))
    return found


def module_problems(modules: Sequence[Module], series: str) -> list[str]:
    """Say which of our modules cannot be used: unreadable, there twice, for another Odoo, or without a module that they need.

    Args:
        modules: All modules of the image.
        series: Version of Odoo, such as C(19.0).
    """
    problems = []
    by_name: dict[str, Module] = {}
    for module in modules:
        if module.error:
            problems.append(f"module {module.name}: {module.path}/__manifest__.py cannot be read: {module.error}")
        # Debian's package brings most modules twice; Odoo takes the first.
        if module.name in by_name and (module.ours or by_name[module.name].ours):
            problems.append(
                f"module {module.name} is there twice, in {by_name[module.name].path} and in {module.path}: rename yours or leave it out of"
                " images_odoo_addons and images_odoo_requirements"
            )
        by_name.setdefault(module.name, module)
    for module in modules:
        if not module.ours or module.error or not module.installable:
            continue
        version = str(module.manifest.get("version", "1.0"))
        if len(version.split(".")) > 3 and not version.startswith(f"{series}."):
            problems.append(f"module {module.name} has version {version}, which Odoo {series} does not install: take the one for {series}")
        for needed in module.depends:
            if needed not in by_name:
                near = difflib.get_close_matches(needed, by_name, 1, 0.85)
                problems.append(
                    f"module {module.name} depends on {needed}, which the image does not have: "
                    + (f"did you mean {near[0]}? Otherwise " if near else "")
                    + ADD_MODULE.format(package=needed.replace("_", "-"))
                )
            elif by_name[needed].error == "" and not by_name[needed].installable:
                problems.append(
                    f"module {module.name} depends on {needed}, whose manifest says that it is not installable: take a newer one"
                )
    return problems


def in_order(modules: Sequence[Module]) -> list[Module]:
    """Return our installable modules and all that they need, each after what it needs."""
    by_name = {module.name: module for module in reversed(modules)}
    ordered: dict[str, Module] = {}

    def visit(name: str, above: frozenset[str]) -> None:
        if name in ordered or name in above or name not in by_name:
            return
        for needed in by_name[name].depends:
            visit(needed, above | {name})
        ordered[name] = by_name[name]

    for module in modules:
        if module.ours and module.installable and not module.error:
            visit(module.name, frozenset())
    return list(ordered.values())


def outside_problems(modules: Iterable[Module], check_python: Callable[[str], object], find_program: Callable[[str], object]) -> list[str]:
    """Say which Python packages and programs are missing that manifests name.

    Args:
        modules: Modules whose C(external_dependencies) count.
        check_python: Raises when a requirement, by name of package or import, is not met.
        find_program: Returns something true for a program that is there.
    """
    problems = []
    for module in modules:
        outside = module.manifest.get("external_dependencies") or {}
        for package in outside.get("python") or []:
            try:
                check_python(package)
            except Exception as error:  # noqa: BLE001 - importing a package by its name may fail in any way
                problems.append(
                    f"module {module.name} needs the Python package {package}, which its manifest names"
                    f" ({error}): {ADD_PACKAGE.format(package=re.split(r'[^A-Za-z0-9._-]', package)[0].lower())}"
                )
        problems.extend(
            f"module {module.name} needs the program {program}, which its manifest names: add its Debian package to images_odoo_packages"
            for program in outside.get("bin") or []
            if not find_program(program)
        )
    return problems


def import_problems(modules: Iterable[Module], known: Iterable[str] = ()) -> list[str]:
    """Import modules as Odoo does when it loads them, and say which fail.

    Args:
        modules: In the order of their dependencies.
        known: Problems that were found before. What they name, and what needs that or one that fails, is not tried.
    """
    problems: list[str] = []
    failed = {found[1] for text in known if (found := re.match(r"module (\w+)\b", text))}
    for module in modules:
        if module.name in failed or failed.intersection(module.depends):
            failed.add(module.name)
            continue
        try:
            importlib.import_module(f"odoo.addons.{module.name}")
        except Exception as error:  # noqa: BLE001 - whatever a module's code does when it is imported
            failed.add(module.name)
            last = error.__traceback__
            while last is not None and last.tb_next is not None:
                last = last.tb_next
            where = f" at {last.tb_frame.f_code.co_filename} line {last.tb_lineno}" if last is not None else ""
            remedy = ""
            if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("odoo"):
                remedy = ": " + ADD_PACKAGE.format(package=error.name.split(".")[0])
            problems.append(f"module {module.name} cannot be imported: {type(error).__name__}: {error}{where}{remedy}")
    return problems


def package_problems(
    distributions: Sequence[importlib.metadata.Distribution],
    parse: Callable[[str], Any],
    find: Callable[[str], importlib.metadata.Distribution] = importlib.metadata.distribution,
) -> list[str]:
    """Say which Python packages lack what they require themselves; C(pip install --no-deps) does not look.

    Args:
        distributions: The packages to check.
        parse: C(packaging.requirements.Requirement).
        find: Returns the package of a name.
    """
    problems: list[str] = []
    # With the extra for which somebody requires it, such as s3 in fsspec[s3].
    todo = [(distribution, "") for distribution in distributions]
    seen = {(distribution.name, "") for distribution in distributions}
    while todo:
        distribution, extra = todo.pop(0)
        for text in distribution.requires or []:
            requirement = parse(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            try:
                needed = find(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                found = "the image does not have it"
            else:
                more = [(needed, name) for name in sorted(requirement.extras) if (needed.name, name) not in seen]
                todo += more
                seen.update((needed.name, name) for _needed, name in more)
                if requirement.specifier.contains(needed.version, prereleases=True):
                    continue
                found = f"the image has {needed.version}"
            problems.append(
                f"Python package {distribution.name} {distribution.version} needs {requirement.name} {requirement.specifier}".rstrip()
                + f", {found}: add a version of {requirement.name} that fits, with its hash, to images_odoo_requirements"
            )
    return list(dict.fromkeys(problems))


def main() -> None:
    """Print what is there as C(key=value) lines; end with every problem when there is one."""
    for name in LIBRARIES:
        importlib.import_module(name)
    from odoo import release  # type: ignore[import-not-found]
    from odoo.modules.module import check_python_external_dependency, initialize_sys_path  # type: ignore[import-not-found]
    from odoo.tools import config  # type: ignore[import-not-found]
    from packaging.requirements import Requirement

    # Of a server that is not started here.
    logging.disable(logging.WARNING)
    config.parse_config([])
    initialize_sys_path()
    import odoo.addons  # type: ignore[import-not-found]
    from odoo.addons.berth_runtime import logs, remote, repeat, sessions  # type: ignore[import-not-found]

    if problems := [*logs.unexpected(), *remote.unexpected(), *repeat.unexpected(), *sessions.unexpected()]:
        raise SystemExit(f"the add-on berth_runtime does not fit this Odoo: {'; '.join(problems)}")
    paths = [Path(path) for path in odoo.addons.__path__]
    modules = read_modules(paths)
    known = {module.name for module in modules}
    problems = [f"module {name} is not in {', '.join(map(str, paths))}" for name in MODULES if name not in known]
    problems += module_problems(modules, release.major_version)
    ours = in_order(modules)
    problems += outside_problems(ours, check_python_external_dependency, shutil.which)
    laid_on = [item for item in importlib.metadata.distributions() if not str(item.locate_file("")).startswith(CORE)]
    problems += package_problems(laid_on, Requirement)
    problems += import_problems(ours, problems)
    if not problems and "fs_attachment" in known:
        from odoo.addons.berth_runtime import filestore  # type: ignore[import-not-found]

        if unexpected := filestore.unexpected():
            problems = [
                f"the add-on berth_runtime does not fit this fs_attachment: {'; '.join(unexpected)}: docs/filestore.md names a version"
            ]
    if not problems and "auth_oidc" in known:
        from odoo.addons.berth_runtime import oidc  # type: ignore[import-not-found]

        if unexpected := oidc.unexpected():
            problems = [f"the add-on berth_runtime does not fit this auth_oidc: {'; '.join(unexpected)}: docs/access.md names a version"]
    if problems:
        raise SystemExit("\n".join(problems))
    print("addons_path=" + ",".join(map(str, paths)))
    print(f"modules={len(known)}")
    print("own_modules=" + ",".join(sorted(module.name for module in modules if module.ours)))
    print("own_packages=" + ",".join(sorted(f"{item.name}=={item.version}" for item in laid_on)))


if __name__ == "__main__":
    sys.exit(main())
