# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the roles' README.md and docs/variables.md from what the roles say about themselves, and hold the roles to it; and what the firewall opens
in each example inventory, docs/network.md.

    python tools/docs.py            write what is out of date
    python tools/docs.py --check    write nothing; name what is out of date

Both name every place where a role's argument_specs, its defaults, its internal variables and its example disagree, or where it reads
variables of another role, and then exit with 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = "berth.odoo"
# The one role that knows all the others' variables: it checks and plans them together.
OVERSEER = "preflight"
MISSING = object()


@dataclass(frozen=True)
class Role:
    """What a role says about itself.

    Attributes:
        name: without the collection.
        specs: entry points of meta/argument_specs.yml.
        defaults: defaults/main.yml.
        internal: vars/main.yml.
        example: text of meta/example.yml, a playbook that runs the role alone.
        sources: text of the files that run, by path in the role: defaults, vars, tasks, templates.
    """

    name: str
    specs: Mapping[str, Any]
    defaults: Mapping[str, Any]
    internal: Mapping[str, Any]
    example: str
    sources: Mapping[str, str]

    @property
    def options(self) -> Mapping[str, Any]:
        """Variables of the main entry point."""
        return self.specs.get("main", {}).get("options") or {}


def load(directory: Path) -> Role:
    """Read a role.

    Raises:
        SystemExit: a file is not YAML.
    """

    def data(name: str) -> Any:
        file = directory / name
        try:
            return (yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None) or {}
        except yaml.YAMLError as error:
            raise SystemExit(f"{file}: {error}") from error

    example = directory / "meta/example.yml"
    sources = sorted(
        file for name in ("defaults", "vars", "tasks", "templates") for file in (directory / name).rglob("*") if file.is_file()
    )
    return Role(
        name=directory.name,
        specs=data("meta/argument_specs.yml").get("argument_specs") or {},
        defaults=data("defaults/main.yml"),
        internal=data("vars/main.yml"),
        example=example.read_text(encoding="utf-8") if example.exists() else "",
        sources={str(file.relative_to(directory)): file.read_text(encoding="utf-8") for file in sources},
    )


# --- what must agree ---------------------------------------------------------------------------------------------------------------


def problems(role: Role, roles: Iterable[Role]) -> Iterator[str]:
    """Everything in a role that contradicts its argument_specs or its independence.

    Args:
        role: the role in question.
        roles: all roles, itself included.

    Yields:
        Sentences that say where and what to do.
    """
    yield from _spec_problems(role)
    yield from _default_problems(role)
    for name in role.internal:
        if not name.startswith(f"__{role.name}_"):
            yield f"vars/main.yml: {name} must be named __{role.name}_…; a variable that users may set belongs into defaults/main.yml"
    yield from _example_problems(role)
    if role.name != OVERSEER:
        yield from _independence_problems(role, roles)


def _spec_problems(role: Role) -> Iterator[str]:
    where = "meta/argument_specs.yml"
    if "main" not in role.specs:
        yield f"{where}: has no entry point main"
    for entry, spec in role.specs.items():
        if not spec.get("short_description"):
            yield f"{where}: {entry} has no short_description"
        for name, option in _walk(spec.get("options") or {}):
            missing = [key for key in ("type", "description") if not option.get(key)]
            if option.get("type") == "list" and not option.get("elements"):
                missing.append("elements")
            if missing:
                yield f"{where}: {name} has no {' and no '.join(missing)}"
    for name in role.options:
        if role.name != OVERSEER and not name.startswith(f"{role.name}_"):
            yield f"{where}: {name} must be named {role.name}_…"


def _default_problems(role: Role) -> Iterator[str]:
    for name in [*role.options, *(name for name in role.defaults if name not in role.options)]:
        if name not in role.options:
            yield f"defaults/main.yml: {name} is not in meta/argument_specs.yml"
            continue
        default = role.defaults.get(name, MISSING)
        documented = role.options[name].get("default", MISSING)
        if role.options[name].get("required") and default is not MISSING:
            yield f"defaults/main.yml: {name} is required, so it can have no default"
        elif default is MISSING and documented is not MISSING:
            yield f"meta/argument_specs.yml: {name} has the default {documented!r}, defaults/main.yml has none; a role's spec sets nothing"
        # A computed default of a number cannot stand in a spec, which would take the expression for a wrong number.
        elif documented is MISSING and isinstance(default, str) and "{{" in default:
            continue
        elif documented is MISSING and default is not MISSING:
            yield f"meta/argument_specs.yml: {name} has no default, defaults/main.yml has {default!r}"
        # Types too: True == 1 in Python, but not for a reader.
        elif (default, type(default)) != (documented, type(documented)):
            yield f"{name} has the default {default!r} in defaults/main.yml and {documented!r} in meta/argument_specs.yml"


def _example_problems(role: Role) -> Iterator[str]:
    where = "meta/example.yml"
    plays = yaml.safe_load(role.example) if role.example else None
    if not isinstance(plays, list):
        yield f"{where}: must be a playbook that runs the role alone on a fresh VM"
        return
    if wrong := {str(play.get("hosts")) for play in plays} - {"all", "localhost"}:
        yield f"{where}: runs on {', '.join(sorted(wrong))}; a reader's inventory has other names, write hosts: all"
    entries = [entry for play in plays for entry in play.get("roles", []) if isinstance(entry, dict)]
    if not any(entry.get("role") == f"{COLLECTION}.{role.name}" for entry in entries):
        yield f"{where}: does not use the role {COLLECTION}.{role.name}"
    given = {name: value for item in [*entries, *plays] for name, value in (item.get("vars") or {}).items()}
    # Nothing pulls an image that nobody put there.
    for name, value in given.items():
        if name.endswith("_image") and "images_references" not in str(value):
            yield f"{where}: {name} is {value}, which a reader's host does not have; run {COLLECTION}.images first and take images_references"
    for name, option in role.options.items():
        if option.get("required") and name not in given:
            yield f"{where}: does not set {name}, which is required"


def _independence_problems(role: Role, roles: Iterable[Role]) -> Iterator[str]:
    foreign = {name: other.name for other in roles if other.name != role.name for name in other.options if name not in role.options}
    for path, text in role.sources.items():
        code = re.sub(r"(?m)^\s*#.*$", "", text)
        words = set(re.findall(r"\b[A-Za-z_]\w*", code))
        for name in sorted(words & set(foreign)):
            yield f"{path}: reads {name}, a variable of the role {foreign[name]}; take what is needed as a {role.name}_ variable"
        for name in sorted(words & {"groups", "group_names"}):
            yield f"{path}: uses {name}; only playbooks know groups, hand in hosts as a variable"


def _walk(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Options and those nested in them, the latter named as in ``redis_users[].name``."""
    for name, option in options.items():
        yield f"{prefix}{name}", option
        nested = f"{prefix}{name}[]." if option.get("type") == "list" else f"{prefix}{name}."
        yield from _walk(option.get("options") or {}, nested)


# --- what is written ---------------------------------------------------------------------------------------------------------------


def readme(role: Role) -> str:
    """README.md of a role."""
    main = role.specs.get("main", {})
    parts = [f"<!-- Written by `make docs` from meta/argument_specs.yml and meta/example.yml. -->\n# {COLLECTION}.{role.name}"]
    parts += [f"{markdown(main.get('short_description', ''))}.", *map(markdown, _paragraphs(main.get("description")))]
    parts += [f"## Use it alone\n\n```yaml\n{role.example.strip()}\n```"]
    parts += [f"## Variables\n\n{table(role.options, role.defaults)}"]
    for entry, spec in role.specs.items():
        if entry != "main":
            parts += [
                f"## Entry point {entry}",
                f"{markdown(spec.get('short_description', ''))}.",
                *map(markdown, _paragraphs(spec.get("description"))),
            ]
            parts += [table(spec.get("options") or {}, {})]
    return "\n\n".join(parts) + "\n"


def reference(roles: Iterable[Role]) -> str:
    """docs/variables.md: the variables of all roles on one page."""
    roles = sorted(roles, key=lambda role: (role.name != OVERSEER, role.name))
    parts = [
        "<!-- Written by `make docs` from the roles' meta/argument_specs.yml. -->\n# Variables",
        "A variable is set in the inventory. `preflight` comes first because it holds what describes the whole platform, from which the playbooks know "
        "many of the others' values. Workers, memory and connections are planned, and setting one of those yourself overrides the plan. What else the "
        "playbooks hand to a role wins over the inventory: there `preflight` refuses it and says where it belongs, such as `odoo_language` in "
        "`odoo_instances.<name>.language`. All of them are for a role that you use alone.",
        "\n".join(f"* [{role.name}](#{role.name}): {markdown(role.specs['main']['short_description'])}" for role in roles),
    ]
    for role in roles:
        parts.append(f"## {role.name}\n\n{table(role.options, role.defaults)}")
    return "\n\n".join(parts) + "\n"


def overview(roles: Iterable[Role], page: str) -> str:
    """The collection's README.md with the list of roles between its two marks renewed.

    Args:
        roles: all roles.
        page: the README as it is.
    """
    rows = [f"| [{role.name}](roles/{role.name}/README.md) | {markdown(role.specs['main']['short_description'])} |\n" for role in roles]
    return re.sub(r"(?s)(<!-- roles -->\n).*(<!-- /roles -->)", lambda marks: marks[1] + "".join(rows) + marks[2], page)


def network(page: str, inventories: Path) -> str:
    """docs/network.md with the tables of what is open between their marks renewed.

    Args:
        page: the page as it is. A mark names the inventory of its table: <!-- open ha -->.
        inventories: directory of the inventories.
    """
    return re.sub(
        r"(?s)(<!-- open (\w+) -->\n).*?(<!-- /open -->)",
        lambda marks: f"{marks[1]}{_open_ports(inventories / marks[2])}\n{marks[3]}",
        page,
    )


def _open_ports(inventory: Path) -> str:
    """Markdown table of what is open on the hosts of an inventory."""
    # What the playbook hands to the role. Only this table needs the collection where Python finds it.
    from ansible_collections.berth.odoo.plugins.filter.topology import topology
    from ansible_collections.berth.odoo.plugins.module_utils import _firewall

    everything = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))["all"]
    common = yaml.safe_load((inventory / "group_vars/all/main.yml").read_text(encoding="utf-8"))
    # Backups are what an operator adds, and a port where there are several database hosts.
    backups = {"backup_repositories": [{"name": "offsite"}]}
    hostvars = {host: {**common, **backups, **variables} for host, variables in everything["hosts"].items()}
    groups = {group: list(content["hosts"]) for group, content in everything["children"].items()}
    placeholder = "192.0.2.22"
    names = {variables["host_address"]: host for host, variables in everything["hosts"].items() if "host_address" in variables}
    openings = {
        host: _firewall.openings(variables["firewall_openings"], [], [placeholder])
        for host, variables in topology(groups, hostvars).items()
    }
    return _firewall.table(openings, {**names, placeholder: "`firewall_management_networks`"})


def table(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Markdown table of options, nested ones after the one that holds them.

    Args:
        options: options of an entry point.
        defaults: defaults/main.yml, for those that are computed.
    """
    if not options:
        return "None."
    rows = ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, option in _walk(options):
        kind = f"list of {option.get('elements', 'any')}" if option.get("type") == "list" else option.get("type", "any")
        text = " ".join(markdown(paragraph) for paragraph in _paragraphs(option.get("description")))
        if option.get("choices"):
            text += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
        default = option.get("default", defaults.get(name, MISSING))
        shown = "required" if option.get("required") else "" if default is MISSING else _code(default)
        rows.append(f"| `{name}` | {kind} | {shown} | {text} |".replace("\n", " "))
    return "\n".join(rows)


def _code(value: Any) -> str:
    """A default as YAML in one line, as Markdown code in a table."""
    text = yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize, sort_keys=False).strip().removesuffix("...").strip()
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _paragraphs(description: str | list[str] | None) -> list[str]:
    return [description] if isinstance(description, str) else list(description or [])


# Markup of Ansible's documentation: a letter and text in parentheses, in which ")" may be escaped. antsibull-docs-parser renders it too, but
# escapes every punctuation mark, which nobody can read as text.
_MARKUP = re.compile(r"\b(C|V|O|RV|E|I|B|U|L|M|P)\(((?:\([^()\\]*\)|[^)\\]|\\.)*)\)")


def markdown(text: str) -> str:
    """Ansible's documentation markup as Markdown, fit for a table."""

    def render(match: re.Match[str]) -> str:
        kind, content = match[1], re.sub(r"\\(.)", r"\1", match[2])
        if kind == "I":
            return f"*{content}*"
        if kind == "B":
            return f"**{content}**"
        if kind == "U":
            return f"<{content}>"
        if kind == "L":
            label, _, address = content.rpartition(",")
            return f"[{label}]({address.strip()})"
        return f"`{content}`"

    return _MARKUP.sub(render, text).replace("|", "\\|")


# --- command line ------------------------------------------------------------------------------------------------------------------


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    roles = [load(directory) for directory in sorted((root / "roles").iterdir()) if (directory / "meta").is_dir()]
    found = [f"roles/{role.name}/{problem}" for role in roles for problem in problems(role, roles)]
    complete = [role for role in roles if "main" in role.specs]
    wanted = {root / "roles" / role.name / "README.md": readme(role) for role in complete}
    wanted[root / "docs/variables.md"] = reference(complete)
    wanted[root / "README.md"] = overview(complete, (root / "README.md").read_text(encoding="utf-8"))
    if (page := root / "docs/network.md").exists():
        wanted[page] = network(page.read_text(encoding="utf-8"), root / "inventories")
    for file, text in wanted.items():
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        if check:
            found.append(f"{file.relative_to(root)}: is out of date. Type: make docs")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"wrote {file.relative_to(root)}")
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
