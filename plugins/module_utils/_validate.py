# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules for what a person may write into an inventory, and for the machines it names.

Pure functions: no Ansible, no input or output, no clock. Each yields :class:`Problem` objects, so that one run can
report everything that is wrong. A secret's value never enters a problem: where a value would be shown, an option
marked ``no_log`` or named like a secret is described by its type alone.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import _odoo_filestore, _odoo_oidc, _wiring


class Problem(NamedTuple):
    """One thing that must be put right before anything is changed.

    *hosts* is empty when the problem belongs to the whole inventory.
    """

    hosts: tuple[str, ...]
    subject: str
    """The variable, or what was looked at on the machine (``port 443``, ``clock``)."""
    found: str
    expected: str
    remedy: str
    """What to type or do."""


# --------------------------------------------------------------------------------------------------------------------
# Names

INSTANCE_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
INSTANCE_RULE = "1 to 31 of a-z, 0-9 and '-', starting with a letter"
DATABASE_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
DATABASE_RULE = "1 to 50 of a-z, 0-9 and '_', starting with a letter, and none of postgres, template0, template1"
RESERVED_DATABASES = frozenset({"postgres", "template0", "template1"})
MODULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
MODULE_RULE = "an Odoo module's technical name (a-z, 0-9 and '_')"
LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z0-9]{2,3})?(@[a-z]+)?")
LANGUAGE_RULE = "a locale such as en_US or sr@latin"
COUNTRY = re.compile(r"[A-Z]{2}")
COUNTRY_RULE = "a two-letter country code in capitals such as DE"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
DOMAIN_RULE = "a host name in lower case (a-z, 0-9, '-' and '.') or an IPv4 address"
CERTIFICATE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
CERTIFICATE_RULE = "a name of traefik_certificates"
_COMPONENT = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
IMAGE = re.compile(
    r"sha256:[0-9a-f]{64}"
    rf"|(?:{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
IMAGE_RULE = "an image reference such as registry.example.com/odoo:19.0@sha256:<64 hex digits>"
IMAGE_DIGEST = re.compile(r"(?:.*@)?sha256:[0-9a-f]{64}")

SECRET_NAME = re.compile(r"(?:^|_)(?:passwords?|passphrases?|secrets?|tokens?|(?:private_|api_|secret_)?keys?)$")
PASSWORD_NAME = re.compile(r"(?:^|_)(?:password|passphrase|secret|token)$")

WEAK_WORDS = frozenset(
    [
        "admin",
        "administrator",
        "changeme",
        "change-me",
        "change_me",
        "default",
        "demo",
        "example",
        "letmein",
        "master",
        "odoo",
        "openerp",
        "passw0rd",
        "password",
        "pgbouncer",
        "postgres",
        "postgresql",
        "qwerty",
        "redis",
        "replication",
        "root",
        "secret",
        "super",
        "superuser",
        "test",
        "todo",
        "welcome",
        "xxx",
    ]
)


MISTYPED = 0.7
"""Likeness from which a name counts as mistyped: ``worker`` and ``web_workers`` have 0.71. Names of other tools stay below:
``docker_users`` 0.42, ``docker_registry`` 0.67, ``redis_version`` 0.46, ``postgresql_hba_entries`` 0.38, ``host_name`` 0.57."""


def is_secret(name: str, option: Mapping[str, Any] | None = None) -> bool:
    """Tell whether the value of a variable must never be shown."""
    return bool((option or {}).get("no_log")) or bool(SECRET_NAME.search(name))


def describe(value: Any, secret: bool = False) -> str:
    """Describe a value for a person: quoted and short, or by its type alone when it is a secret."""
    if value is None:
        return "nothing"
    kind = {
        bool: "a yes/no value",
        int: "a whole number",
        float: "a decimal number",
        str: "a text",
        dict: "a dictionary",
        list: "a list",
    }
    name = next((text for type_, text in kind.items() if isinstance(value, type_)), type(value).__name__)
    if secret:
        return f"{name}, not shown because it may be a secret"
    if isinstance(value, (dict, list)) and value:
        return name
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 70 else f"{text[:60]}… ({len(str(value))} characters)"


def nearest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the candidate that *name* was most likely meant to be, or nothing."""
    found = difflib.get_close_matches(name, sorted(candidates), n=1, cutoff=cutoff)
    return found[0] if found else None


def nearest_variable(name: str, known: Collection[str], prefix: str, cutoff: float = MISTYPED) -> str | None:
    """Return the variable with the same prefix that *name* was most likely meant to be, or nothing.

    Only what follows the prefix is compared: a long common prefix makes everything look alike.
    """
    tails = {candidate.removeprefix(prefix) for candidate in known if candidate.startswith(prefix)}
    match = nearest(name.removeprefix(prefix), tails, cutoff)
    return f"{prefix}{match}" if match else None


# --------------------------------------------------------------------------------------------------------------------
# Values against an argument specification

_EXAMPLES = {
    "int": "<number>",
    "float": "<number>",
    "bool": "true",
    "list": "[…]",
    "dict": "{…}",
}


def _example(option: Mapping[str, Any]) -> str:
    if option.get("choices"):
        return str(option["choices"][0])
    return _EXAMPLES.get(option.get("type", "str"), "<text>")


def _type_problem(option: Mapping[str, Any], value: Any) -> str | None:
    """Return what was expected when *value* has the wrong type.

    Stricter than Ansible where its leniency hides a mistake: role arguments are never converted, so a text for a
    list stays a text, and a number for a text has already lost its leading zeros.
    """
    kind = option.get("type", "str")
    if kind in {"str", "path"} and not isinstance(value, str):
        return "a text: put it in quotes" if isinstance(value, (int, float)) else "a text"
    if kind == "int" and (isinstance(value, bool) or not (isinstance(value, int) or re.fullmatch(r"-?[0-9]+", str(value)))):
        return "a whole number"
    if kind == "float" and (isinstance(value, bool) or not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", str(value))):
        return "a number"
    if kind == "bool" and not (isinstance(value, bool) or str(value).lower() in {"yes", "no", "true", "false", "on", "off", "1", "0"}):
        return "true or false"
    if kind == "list" and (isinstance(value, (str, bytes)) or not isinstance(value, Sequence)):
        return "a list"
    if kind == "dict" and not isinstance(value, Mapping):
        return "a dictionary"
    return None


def check_value(host: str, path: str, option: Mapping[str, Any], value: Any, *, secret: bool = False) -> Iterator[Problem]:
    """Check one variable against its entry of an argument specification, into every depth.

    :param path: the variable as a person writes it, with ``.key`` and ``[n]`` for what lies inside.
    :param secret: an outer option already is a secret, so that nothing inside may be shown.
    """
    secret = secret or is_secret(re.split(r"[.\[]", path)[-1], option)
    expected = _type_problem(option, value)
    if expected:
        yield Problem((host,), path, describe(value, secret), expected, f"{path}: {_example(option)}")
        return
    choices = option.get("choices")
    for item in value if option.get("type") == "list" and choices else [value]:
        if choices and item not in choices and str(item) not in [str(choice) for choice in choices]:
            match = nearest(str(item), [str(choice) for choice in choices], 0.5)
            yield Problem(
                (host,),
                path,
                describe(item, secret),
                f"one of {', '.join(map(str, choices))}",
                f"{path}: {match or choices[0]}",
            )
    options = option.get("options")
    if option.get("type") == "list":
        element = {**option, "type": option.get("elements", "raw")}
        element.pop("choices", None)
        for index, item in enumerate(value):
            yield from check_value(host, f"{path}[{index}]", element, item, secret=secret)
    elif option.get("type") == "dict" and options:
        yield from check_keys(host, path, options, value, secret=secret)


def check_keys(host: str, path: str, options: Mapping[str, Any], value: Mapping[str, Any], *, secret: bool = False) -> Iterator[Problem]:
    """Check the keys of a dictionary: unknown ones with the nearest match, missing ones, and each value."""
    known = set(options).union(*(option.get("aliases", []) for option in options.values()))
    for key in value:
        if key not in known:
            match = nearest(str(key), known)
            yield Problem(
                (host,),
                f"{path}.{key}",
                "a key that nothing reads",
                f"{match}?" if match else f"one of {', '.join(sorted(known))}",
                f"{path}: {{{match}: …}}" if match else f"remove {key} from {path}",
            )
    for name, option in options.items():
        if value.get(name) is not None:
            yield from check_value(host, f"{path}.{name}", option, value[name], secret=secret)
        elif option.get("required"):
            yield Problem((host,), f"{path}.{name}", "nothing", "a value", f"{path}: {{{name}: {_example(option)}}}")


OBJECTIVES = {
    "switchover_stall_s": "float",
    "failover_stall_s": "float",
    "lost_writes": "int",
    "failed_requests": "int",
    "logouts": "int",
    "restore_minutes": "float",
    "rpo_minutes": "float",
}
"""What can be promised in C(objectives), and the type of the promise."""


def check_objectives(host: str, objectives: Any) -> Iterator[Problem]:
    """Check C(objectives): a promise that nothing reads is one that nobody keeps."""
    if not isinstance(objectives, Mapping):
        return  # its specification has already said so
    found = list(check_keys(host, "objectives", {name: {"type": kind} for name, kind in OBJECTIVES.items()}, objectives))
    yield from found
    if not found:
        for name, value in objectives.items():
            if value is not None and float(value) < 0:
                yield Problem((host,), f"objectives.{name}", describe(value), "0 or more", f"objectives: {{{name}: 0}}")


def unknown_variables(
    host: str,
    names: Iterable[str],
    known: Collection[str],
    prefixes: Collection[str],
    ignored: Collection[str] = (),
) -> tuple[list[Problem], list[Problem]]:
    """Find variables of an inventory that nothing reads although they look like ours.

    Other tools own names that start like ours (``docker_users``, ``redis_version``), so a prefix alone refuses
    nothing: only a name that is also close to one of ours is a mistake. The rest is worth a note.

    :param names: variables that a person wrote (not facts, not Ansible's own).
    :param known: every variable that the collection reads.
    :param prefixes: role names of the collection, without the underscore.
    :param ignored: names a person declared as their own.
    :returns: problems, notes.
    """
    problems: list[Problem] = []
    notes: list[Problem] = []
    for name in names:
        if name in known or name in ignored or name.startswith(("ansible_", "__", "molecule_")):
            continue
        found = "a variable that nothing reads"
        prefix = max((f"{prefix}_" for prefix in prefixes if name.startswith(f"{prefix}_")), key=len, default="")
        match = nearest_variable(name, known, prefix) if prefix else nearest(name, known, 0.93)
        if prefix and match:
            own = f"{match}: … (your own variable? preflight_ignored_variables: [{name}])"
            problems.append(Problem((host,), name, found, f"{match}?", own))
        elif prefix:
            far = nearest_variable(name, known, prefix, 0.6)
            notes.append(Problem((host,), name, found, f"{far}?" if far else "", f"remove {name}"))
        elif match:
            # "postgres_max_connections", "odo_web_workers": no prefix of ours, yet nearly one of our names.
            notes.append(Problem((host,), name, found, f"{match}?", f"{match}: …"))
    return problems, notes


# --------------------------------------------------------------------------------------------------------------------
# Secrets


def check_secret(host: str, path: str, value: Any, minimum_length: int) -> Iterator[Problem]:
    """Check a password: its type, length, strength, and that a file or protocol line can hold it."""
    remedy = f"{path}: a generated value, e.g. from: openssl rand -base64 30"
    if not isinstance(value, str):
        yield Problem((host,), path, describe(value, True), "a text: put it in quotes", remedy)
        return
    if not value:
        yield Problem((host,), path, "an empty text", "a password", remedy)
        return
    if value.startswith("ENC[AES256_GCM,"):
        remedy = "export ANSIBLE_VARS_ENABLED=host_group_vars,community.sops.sops (docs/secrets.md)"
        yield Problem((host,), path, "what SOPS has encrypted (not shown)", "the password: nobody has decrypted the file", remedy)
        return
    if any(character in value for character in "\n\r\0"):
        yield Problem((host,), path, "a line break or NUL inside (not shown)", "a password of one line", remedy)
    if value.lower() in WEAK_WORDS or value.lower().rstrip("0123456789!.") in WEAK_WORDS:
        yield Problem((host,), path, "a word that is tried first (not shown)", "a generated password", remedy)
    elif len(value) < minimum_length:
        yield Problem((host,), path, f"{len(value)} characters (not shown)", f"at least {minimum_length} characters", remedy)
    elif len(set(value)) < 5:
        yield Problem((host,), path, "fewer than 5 different characters (not shown)", "a generated password", remedy)


def check_distinct(host: str, secrets: Mapping[str, Any]) -> Iterator[Problem]:
    """Check that no two passwords of a host are the same.

    :param secrets: path to value.
    """
    owners: dict[str, list[str]] = {}
    for path, value in secrets.items():
        if isinstance(value, str) and value:
            owners.setdefault(value, []).append(path)
    for paths in owners.values():
        if len(paths) > 1:
            yield Problem(
                (host,),
                ", ".join(sorted(paths)),
                "the same value (not shown)",
                "a different value for each: one leak must not open another door",
                f"{sorted(paths)[-1]}: another generated value, e.g. from: openssl rand -base64 30",
            )


def passwords_in(path: str, option: Mapping[str, Any], value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the passwords inside a variable as (path, value), by the names of its specification.

    Keys and certificates (PEM) are no passwords; they are left to the role that reads them.
    """
    kind = option.get("type", "str")
    if PASSWORD_NAME.search(re.split(r"[.\[]", path)[-1]) and kind in {"str", "raw"}:
        yield path, value
    elif kind == "dict" and isinstance(value, Mapping):
        for name, inner in option.get("options", {}).items():
            if value.get(name) is not None:
                yield from passwords_in(f"{path}.{name}", inner, value[name])
    elif kind == "list" and isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            element = {**option, "type": option.get("elements", "raw")}
            yield from passwords_in(f"{path}[{index}]", element, item)


# --------------------------------------------------------------------------------------------------------------------
# Images


def check_image(host: str, path: str, value: Any, require_digest: bool) -> Iterator[Problem]:
    """Check an image reference, and that it names its content where digests are required."""
    if not isinstance(value, str) or not IMAGE.fullmatch(value):
        yield Problem((host,), path, describe(value), IMAGE_RULE, f"{path}: <name>:<tag>@sha256:<digest>")
    elif require_digest and not IMAGE_DIGEST.fullmatch(value):
        yield Problem(
            (host,),
            path,
            describe(value),
            "a digest, because preflight_require_image_digests is true: a tag can point to other content tomorrow",
            f"{path}: {value}@sha256:<digest, shown by docker buildx imagetools inspect {value}>",
        )


# --------------------------------------------------------------------------------------------------------------------
# Instances

SERVICE_CLASSES = ("production", "staging", "development")

INSTANCE_OPTIONS: dict[str, dict[str, Any]] = {
    "domains": {"type": "list", "elements": "str", "required": True},
    "database": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "stopped"]},
    "image": {"type": "str"},
    "modules": {"type": "list", "elements": "str"},
    "users": {"type": "int"},
    "service_class": {"type": "str", "choices": list(SERVICE_CLASSES)},
    "language": {"type": "str"},
    "country": {"type": "str"},
    "admin_login": {"type": "str"},
    "certificate": {"type": "str"},
    "sessions": {"type": "str", "choices": ["files", "redis"]},
    "attachments": {"type": "str", "choices": ["files", "database"]},
    "port": {"type": "int"},
    "filestore": {
        "type": "dict",
        "options": {
            "endpoint": {"type": "str", "required": True},
            "bucket": {"type": "str", "required": True},
            "region": {"type": "str"},
            "authority_certificate": {"type": "str"},
        },
    },
    "oidc": {
        "type": "dict",
        "options": {
            "issuer": {"type": "str", "required": True},
            "client_id": {"type": "str", "required": True},
            "label": {"type": "str"},
            "authority_certificate": {"type": "str"},
            "passwords": {"type": "bool"},
        },
    },
    "legacy_rpc": {"type": "bool"},
    "system_parameters": {"type": "dict"},
    "limits": {"type": "dict"},
    "api_paths": {"type": "list", "elements": "str"},
    "portal_paths": {"type": "list", "elements": "str"},
    "cpus": {"type": "float"},
    "web_workers": {"type": "int"},
    "batch_workers": {"type": "int"},
    "queue_workers": {"type": "int"},
    "cron_workers": {"type": "int"},
    "web_memory_mb": {"type": "int"},
    "batch_memory_mb": {"type": "int"},
    "queue_memory_mb": {"type": "int"},
    "websocket_memory_mb": {"type": "int"},
    "cron_memory_mb": {"type": "int"},
    "extra_settings": {"type": "dict"},
    "analyst": {
        "type": "dict",
        "options": {
            "connections": {"type": "int"},
            "networks": {"type": "list", "elements": "str"},
            "settings": {"type": "dict"},
        },
    },
}
"""Keys of an entry of ``odoo_instances``, in the form of an argument specification."""

OWN_PARAMETERS = ("report.url", "web.base.url", "web.base.url.freeze", "ir_attachment.location")
"""System parameters that the role odoo keeps by itself."""

SECRETS_REMEDY = "ansible-playbook -i <inventory> berth.odoo.secrets_init, or add it with ansible-vault edit"
"""Where a missing password comes from."""

INSTANCE_SECRETS = ("db_password", "admin_password", "redis_password")
"""Keys of an entry of ``odoo_instance_secrets``; all are required."""

ANALYST_SECRET = "analyst_password"  # noqa: S105 - a name
"""One more, of an instance with C(analyst)."""

FILESTORE_SECRETS = ("s3_access_key", "s3_secret_key")
"""Those of an instance with C(filestore). Whoever runs the S3 server gives them."""

PROVIDER_SECRET = "oidc_client_secret"  # noqa: S105 - a name
"""That of an instance with C(oidc). Whoever runs the provider gives it."""

ROTATION_SECRETS = ("db_user", "db_password_next", "db_password_old")
"""What C(rotate_secrets) adds."""


def check_instances(
    host: str, instances: Any, certificates: Collection[str] | None = None, *, require_digests: bool = False
) -> Iterator[Problem]:
    """Check ``odoo_instances`` in depth.

    :param certificates: names of the certificates the edge serves; ``None`` leaves them unchecked.
    """
    if not isinstance(instances, Mapping):
        yield Problem((host,), "odoo_instances", describe(instances), "a dictionary of instances by name", "odoo_instances: {…}")
        return
    databases: dict[str, str] = {}
    domains: dict[str, str] = {}
    for name, instance in instances.items():
        path = f"odoo_instances.{name}"
        if not isinstance(name, str) or not INSTANCE_NAME.fullmatch(name):
            yield Problem((host,), "odoo_instances", f"an instance named {describe(name)}", INSTANCE_RULE, "rename it")
            path = f"odoo_instances[{describe(name)}]"
        if not isinstance(instance, Mapping):
            yield Problem((host,), path, describe(instance), "a dictionary", f"{path}: {{domains: […], database: …}}")
            continue
        broken = list(check_keys(host, path, INSTANCE_OPTIONS, instance))
        yield from broken
        # A value of the wrong type was reported; the rules below read only well-typed ones.
        wrong = {problem.subject.removeprefix(f"{path}.").split("[")[0] for problem in broken}
        good = {key: value for key, value in instance.items() if key not in wrong and value is not None}
        yield from _check_instance_values(host, path, good, certificates, require_digests)
        yield from _check_taken(host, f"{path}.database", [good.get("database")], str(name), databases)
        yield from _check_taken(host, f"{path}.domains", good.get("domains", []), str(name), domains)
    for database, name in databases.items():
        yield from _check_roles(host, f"odoo_instances.{name}.database", database, databases)


def _check_roles(host: str, path: str, database: str, owners: Mapping[str, str]) -> Iterator[Problem]:
    """Check that no role of PostgreSQL has the name of another one: whoever logs in as it would own, or read, a database that is not theirs."""
    taken = {role: f"instance {owner}" for owned, owner in owners.items() if owned != database for role in _wiring.roles_of(owned)}
    taken[str(_wiring.MONITORING_ROLE["name"])] = "monitoring"
    if database in taken:
        found = f"{describe(database)}, the name of a database role of {taken[database]}"
        yield Problem((host,), path, found, "a name that no role of another has", f"{path}: another one")


def _check_taken(host: str, path: str, values: Iterable[Any], name: str, owners: dict[str, str]) -> Iterator[Problem]:
    for value in values:
        if value is None:
            continue
        owner = owners.setdefault(value, name)
        if owner != name:
            yield Problem((host,), path, f"{describe(value)}, which instance {owner} has", "each only once", f"{path}: another one")


def _check_instance_values(
    host: str,
    path: str,
    instance: Mapping[str, Any],
    certificates: Collection[str] | None,
    require_digests: bool,
) -> Iterator[Problem]:
    rules = {
        "database": (DATABASE_NAME, DATABASE_RULE),
        "modules": (MODULE_NAME, MODULE_RULE),
        "domains": (DOMAIN_NAME, DOMAIN_RULE),
        "language": (LANGUAGE, LANGUAGE_RULE),
        "country": (COUNTRY, COUNTRY_RULE),
        "certificate": (CERTIFICATE_NAME, CERTIFICATE_RULE),
    }
    for key, (pattern, rule) in rules.items():
        value = instance.get(key)
        for item in value if isinstance(value, list) else [value]:
            if item is not None and (not pattern.fullmatch(item) or (key == "database" and item in RESERVED_DATABASES)):
                yield Problem((host,), f"{path}.{key}", describe(item), rule, f"{path}: {{{key}: …}}")
    if "domains" in instance:
        listed = list(instance["domains"])
        if not listed:
            yield Problem((host,), f"{path}.domains", "an empty list", "at least one host name", f"{path}: {{domains: [odoo.example.com]}}")
        for domain in sorted({item for item in listed if listed.count(item) > 1}):
            yield Problem((host,), f"{path}.domains", f"{describe(domain)} twice", "each only once", "remove one")
    for key, lowest in {
        "users": 1,
        "cpus": 0,
        "web_workers": 1,
        "batch_workers": 0,
        "queue_workers": 0,
        "cron_workers": 1,
        "web_memory_mb": 1,
        "batch_memory_mb": 1,
        "queue_memory_mb": 1,
        "websocket_memory_mb": 1,
        "cron_memory_mb": 1,
    }.items():
        if key in instance and float(instance[key]) < lowest:
            yield Problem((host,), f"{path}.{key}", str(instance[key]), f"{lowest} or more", f"{path}: {{{key}: {lowest}}}")
    if "port" in instance and not 1 <= int(instance["port"]) <= 65536 - _wiring.PORTS:
        yield Problem(
            (host,), f"{path}.port", str(instance["port"]), f"1 to {65536 - _wiring.PORTS}", f"{path}: {{port: {_wiring.FIRST_PORT}}}"
        )
    yield from _check_analyst(host, path, instance.get("analyst") or {})
    yield from _check_filestore(host, path, instance)
    yield from _check_oidc(host, path, instance.get("oidc") or {})
    yield from _check_parameters(host, f"{path}.system_parameters", instance.get("system_parameters") or {})
    certificate = instance.get("certificate")
    if certificates is not None and certificate is not None and certificate not in certificates:
        match = nearest(str(certificate), certificates, 0.5)
        yield Problem(
            (host,),
            f"{path}.certificate",
            describe(certificate),
            f"one of {', '.join(sorted(certificates))}" if certificates else "a certificate in traefik_certificates",
            f"{path}: {{certificate: {match}}}" if match else f"traefik_certificates: {{{certificate}: {{…}}}}",
        )
    if "image" in instance:
        yield from check_image(host, f"{path}.image", instance["image"], require_digests)


def _check_filestore(host: str, path: str, instance: Mapping[str, Any]) -> Iterator[Problem]:
    filestore = instance.get("filestore") or {}
    if filestore and instance.get("attachments") == "database":
        yield Problem((host,), f"{path}.attachments", "database, with a filestore in S3", "one of them", f"remove {path}.attachments")
    for key, found, expected in _odoo_filestore.value_problems(filestore):
        yield Problem((host,), f"{path}.filestore.{key}", found, expected, f"{path}.filestore: {{{key}: …}}")


def _check_parameters(host: str, path: str, given: Mapping[Any, Any]) -> Iterator[Problem]:
    for key, value in given.items():
        if key in OWN_PARAMETERS:
            yield Problem((host,), f"{path}.{key}", "given", "left to the platform, which keeps it by itself", "remove it")
        elif not isinstance(value, str):
            yield Problem((host,), f"{path}.{key}", describe(value), "a text, as Odoo keeps it", f"{key}: '{value}'")


def _check_oidc(host: str, path: str, oidc: Mapping[str, Any]) -> Iterator[Problem]:
    for key, found, expected in _odoo_oidc.value_problems(oidc):
        yield Problem((host,), f"{path}.oidc.{key}", found, expected, f"{path}.oidc: {{{key}: …}}")


def _check_analyst(host: str, path: str, analyst: Mapping[str, Any]) -> Iterator[Problem]:
    if "connections" in analyst and int(analyst["connections"]) < 1:
        yield Problem(
            (host,), f"{path}.analyst.connections", str(analyst["connections"]), "1 or more", f"{path}.analyst: {{connections: 5}}"
        )
    for network in analyst.get("networks") or []:
        try:
            ipaddress.IPv4Network(network)
        except ValueError as error:
            yield Problem(
                (host,), f"{path}.analyst.networks", str(error), "an IPv4 network", f"{path}.analyst: {{networks: [10.0.5.0/24]}}"
            )


def _check_login(host: str, path: str, instance: Any, secrets: Mapping[str, Any]) -> Iterator[Problem]:
    users = _wiring.DatabaseLogins.names(str(instance.get("database") if isinstance(instance, Mapping) else None))
    if secrets.get("db_user", users[0]) not in users:
        remedy = "correct it, or remove it: ansible-vault edit"
        yield Problem((host,), f"{path}.db_user", describe(secrets["db_user"]), " or ".join(users), remedy)


def _check_secret_keys(host: str, path: str, given: Mapping[str, Any], required: Collection[str]) -> Iterator[Problem]:
    for key in given:
        # That of an analyst, a filestore or a provider that is no more does no harm.
        if key not in (*required, ANALYST_SECRET, *FILESTORE_SECRETS, PROVIDER_SECRET, *ROTATION_SECRETS):
            match = nearest(str(key), required, 0.5)
            yield Problem(
                (host,),
                f"{path}.{key}",
                "a key that nothing reads",
                f"{match}?" if match else f"one of {', '.join(required)}",
                f"rename or remove {key}",
            )


def _check_given_secrets(host: str, path: str, given: Mapping[str, Any], required: Mapping[str, str]) -> Iterator[Problem]:
    """Check keys that others made: no rule about their length or strength, but a line of a file must hold them.

    :param required: key to who gives it, and why it is wanted.
    """
    for key, giver in required.items():
        value = given.get(key)
        remedy = f"ansible-vault edit the file with odoo_instance_secrets: {{{path.rpartition('.')[2]}: {{{key}: …}}}}"
        if value is None:
            yield Problem(
                (host,),
                f"{path}.{key}",
                "nothing",
                giver,
                remedy,
            )
        elif not isinstance(value, str):
            yield Problem((host,), f"{path}.{key}", describe(value, True), "a text: put it in quotes", remedy)
        elif not re.fullmatch(r"\S([^\n\r\0]*\S)?", value):
            yield Problem(
                (host,), f"{path}.{key}", "white space at an end, a line break, or nothing (not shown)", "text on one line", remedy
            )


def _foreign_secrets(instance: Any) -> dict[str, str]:
    """Return the keys that others make for an instance, and who gives each."""
    found: dict[str, str] = {}
    if isinstance(instance, Mapping) and _odoo_filestore.is_shared(instance):
        found.update(dict.fromkeys(FILESTORE_SECRETS, "the key that the S3 server's operator gave you, because the instance has filestore"))
    if isinstance(instance, Mapping) and instance.get("oidc"):
        found[PROVIDER_SECRET] = "the client secret that the OpenID provider made for client_id, because the instance has oidc"
    return found


def check_instance_secrets(
    host: str, instances: Any, secrets: Any, minimum_length: int, elsewhere: Collection[str] = ()
) -> Iterator[Problem]:
    """Check that every instance has its secrets, that each is strong, and that none belongs to nobody.

    :param elsewhere: instances of other hosts, whose secrets may be known here too.
    """
    variable = "odoo_instance_secrets"
    if not isinstance(instances, Mapping):
        return
    if secrets is None:
        secrets = {}
    if not isinstance(secrets, Mapping):
        yield Problem((host,), variable, describe(secrets, True), "a dictionary by instance", f"{variable}: {{…}}")
        return
    for name in secrets:
        if name not in instances and name not in elsewhere:
            match = nearest(str(name), map(str, instances), 0.5)
            yield Problem(
                (host,),
                variable,
                f"secrets of {describe(name)}, which is no instance",
                f"{match}?" if match else "a name of odoo_instances",
                f"rename or remove {name} in {variable}",
            )
    for name in instances:
        given = secrets.get(name)
        path = f"{variable}.{name}"
        if given is not None and not isinstance(given, Mapping):
            yield Problem((host,), path, describe(given, True), "a dictionary", f"{path}: {{db_password: …}}")
            continue
        analyst = isinstance(instances[name], Mapping) and instances[name].get("analyst") is not None
        required = (*INSTANCE_SECRETS, *([ANALYST_SECRET] if analyst else []))
        foreign = _foreign_secrets(instances[name])
        yield from _check_secret_keys(host, path, given or {}, (*required, *foreign))
        required = (*required, *(["db_password_next"] if (given or {}).get("db_password_next") is not None else []))
        yield from _check_login(host, path, instances[name], given or {})
        yield from _check_given_secrets(host, path, given or {}, foreign)
        for key in required:
            value = (given or {}).get(key)
            if value is None:
                yield Problem(
                    (host,),
                    f"{path}.{key}",
                    "nothing",
                    "a password",
                    SECRETS_REMEDY,
                )
            else:
                yield from check_secret(host, f"{path}.{key}", value, minimum_length)


# --------------------------------------------------------------------------------------------------------------------
# Topology

TIERS = ("edge", "app", "database", "cache", "witness")
REQUIRED_TIERS = ("edge", "app", "database", "cache")


def is_address(text: Any) -> bool:
    """Whether a value is an IPv4 address."""
    try:
        ipaddress.IPv4Address(str(text))
    except ValueError:
        return False
    return True


def check_topology(tiers: Any) -> Iterator[Problem]:
    """Check which hosts do what.

    :param tiers: tier to host names.
    """
    for tier in tiers:
        if tier not in TIERS:
            match = nearest(tier, TIERS, 0.5)
            yield Problem(
                (),
                "preflight_tier_hosts",
                f"a tier named {describe(tier)}",
                f"{match}?" if match else f"one of {', '.join(TIERS)}",
                f"preflight_tier_hosts: {{{match or TIERS[0]}: […]}}",
            )
    # The database's hosts may come alone, before Odoo's; Odoo's need all of theirs.
    alone = not any(tiers.get(tier) for tier in REQUIRED_TIERS if tier != "database")
    for tier in ["database"] if alone else REQUIRED_TIERS:
        if not tiers.get(tier):
            yield Problem((), f"group {tier}", "no host", "at least one host", f"add a host to the group {tier}")
    members = _wiring.voters(tiers)
    if members and len(members) % 2 == 0:
        yield Problem(
            (),
            "groups database and witness",
            f"{len(members)} etcd members ({', '.join(members)}), of which none may fail: the rest would be no majority, and nothing would fail over",
            "an odd number",
            f"add a host to the group witness (etcd alone, a machine with 1 GB of memory; an app host will do), or go on with {len(members) - 1}",
        )
    caches = list(tiers.get("cache") or [])
    if caches and len(caches) % 2 == 0:
        yield Problem(
            (),
            "group cache",
            f"{len(caches)} hosts ({', '.join(caches)}), of which {len(caches) // 2} may not fail: the Sentinels that are left would be no majority, "
            "and no other Redis would take over",
            "one host, or three",
            f"add a host to the group cache (any host of the platform will do, it takes 300 MB there), or leave {caches[0]} in it alone",
        )


def check_shared(instances: Mapping[str, Mapping[str, Any]], apps: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """Check that the application hosts of an instance know the same logins and have the same files.

    :param instances: name to a well-formed entry of ``odoo_instances``.
    :param apps: instance to the application hosts that run it.
    """
    for name, instance in instances.items():
        hosts = tuple(apps.get(name, ()))
        if len(hosts) < 2:
            continue
        path, where = f"odoo_instances.{name}", ", ".join(hosts)
        if instance.get("sessions") != "redis":
            yield Problem(
                hosts,
                f"{path}.sessions",
                f"{instance.get('sessions') or 'files'}, with {len(hosts)} app hosts ({where}): each would know only the logins that it made",
                "redis, which all of them ask",
                f"{path}: {{sessions: redis}}",
            )
        if not shares_attachments(instance):
            yield Problem(
                hosts,
                f"{path}.attachments",
                f"{instance.get('attachments') or 'files'}, with {len(hosts)} app hosts ({where}): an attachment would be on the host alone that took it",
                "database, or a filestore in S3, which all of them reach",
                f"{path}: {{attachments: database}} or {path}: {{filestore: {{…}}}}, or leave one host in the group app",
            )


def shares_attachments(instance: Mapping[str, Any]) -> bool:
    """Tell whether all application hosts see the same attachments of an instance."""
    return instance.get("attachments") == "database" or _odoo_filestore.is_shared(instance)


def check_instance_ports(hosts: Sequence[str], instances: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Check that instances do not take each other's ports on hosts that publish them.

    The order of instances decides nothing: a port that moved would lead an edge to another tenant meanwhile.
    """
    taken: dict[str, int] = {}
    for name, instance in instances.items():
        port = whole_port(instance)
        other = next((owner for owner, first in taken.items() if port is not None and abs(first - port) < _wiring.PORTS), None)
        if port is None:
            continue
        if other is not None:
            used = [whole_port(item) or 0 for item in instances.values()]
            numbers = range(_wiring.FIRST_PORT, 65536 - _wiring.PORTS, 10)
            free = next((number for number in numbers if all(abs(number - first) >= _wiring.PORTS for first in used)), "<number>")
            last = port + _wiring.PORTS - 1
            yield Problem(
                tuple(hosts),
                f"odoo_instances.{name}.port",
                f"{port}{'' if instance.get('port') else ' (the default)'}, so {port} to {last}, of which {other} has some",
                f"{_wiring.PORTS} ports of its own on the app hosts, where edges on other hosts reach it",
                f"odoo_instances.{name}: {{port: {free}}}",
            )
        else:
            taken[name] = port


def whole_port(instance: Mapping[str, Any]) -> int | None:
    """Return the first port of an instance, or nothing when it is no number (reported elsewhere)."""
    try:
        return _wiring.first_port(instance)
    except (TypeError, ValueError):
        return None


PEER_PORTS = (
    ("app", "cache", _wiring.REDIS_PORT),
    ("app", "cache", _wiring.SENTINEL_PORT),
    ("cache", "cache", _wiring.REDIS_PORT),
    ("cache", "cache", _wiring.SENTINEL_PORT),
    ("app", "database", 5432),
    ("app", "database", 8008),
    ("database", "database", 5432),
    ("database", "database", 8008),
    ("database", "database", 2379),
    ("database", "database", 2380),
    ("database", "witness", 2379),
    ("database", "witness", 2380),
    ("witness", "database", 2380),
    ("witness", "witness", 2380),
)
"""Who connects to whom: tier, peer's tier, port."""


def peers_of(host: str, tiers: Mapping[str, Collection[str]], variable: Callable[[str, str], Any]) -> list[dict[str, Any]]:
    """Return the other hosts that *host* must reach: name, address, port.

    :param variable: returns a host's variable, or nothing.
    """
    found: dict[tuple[str, int], str] = {}

    def address(peer: str) -> str:
        return str(variable(peer, "host_address") or variable(peer, "ansible_host") or peer)

    alone = len(tiers.get("cache") or ()) < 2
    for tier, peer_tier, port in PEER_PORTS:
        if host in (tiers.get(tier) or ()) and not (alone and port == _wiring.SENTINEL_PORT):
            for peer in tiers.get(peer_tier) or ():
                if peer != host:
                    found[peer, port] = address(peer)
    if host in (tiers.get("edge") or ()):
        for peer in tiers.get("app") or ():
            instances = variable(peer, "odoo_instances")
            for instance in instances.values() if peer != host and isinstance(instances, Mapping) else ():
                first = whole_port(instance) if isinstance(instance, Mapping) else None
                if first is not None:
                    for tier in ("web", "websocket"):
                        found[peer, first + _wiring.PORT_OFFSETS[tier]] = address(peer)
    return [{"name": peer, "address": address, "port": port} for (peer, port), address in found.items()]


def published_ports(host: str, tiers: Mapping[str, Collection[str]], instances: Any) -> dict[int, str]:
    """Return the ports that *host* publishes for other hosts of the platform, with the variable that moves them, if one does.

    PostgreSQL and etcd are not among them: who has either on a host knows.
    """
    apps, found = set(tiers.get("app") or ()), dict[int, str]()
    if host in apps and set(tiers.get("edge") or ()) - {host}:
        for name, instance in instances.items() if isinstance(instances, Mapping) else ():
            first = whole_port(instance) if isinstance(instance, Mapping) else None
            if first is None:
                continue
            for tier, offset in _wiring.PORT_OFFSETS.items():
                if tier != "batch" or str(instance.get("batch_workers") or 0) != "0":
                    found[first + offset] = f"odoo_instances.{name}.port"
    caches = tiers.get("cache") or ()
    if host in caches and (len(caches) > 1 or apps - {host}):
        found[_wiring.REDIS_PORT] = ""
    if host in caches and len(caches) > 1:
        found[_wiring.SENTINEL_PORT] = ""
    return found


# --------------------------------------------------------------------------------------------------------------------
# Machines


class HostRules(NamedTuple):
    """What a machine must have, as its kernel says it: MemTotal of a machine sold as 1 GB is some 960 MB, ext4 on a disk sold as 20 GB some 18.1 GB."""

    minimum_memory_mb: int = 900
    minimum_disk_gb: int = 18
    minimum_free_gb: int = 5
    cpu_flags: tuple[str, ...] = ("sse4_2", "popcnt")
    ports: tuple[tuple[str, int], ...] = ()
    """Address (empty: all) and TCP port of each port that a service of ours takes."""
    settings: Mapping[int, str] = {}
    """The variable that moves a port; empty where none does."""
    runs_docker: bool = True


def check_host(host: str, facts: Mapping[str, Any], rules: HostRules) -> Iterator[Problem]:
    """Check one machine by what C(preflight_info) found on it."""
    system = facts["os"]
    if system.get("id") != "debian" or system.get("version_id") not in {"12", "13"}:
        found = system.get("pretty_name") or "unknown"
        yield Problem((host,), "operating system", found, "Debian 13", "reinstall the host with Debian 13 (trixie)")
    elif rules.runs_docker and system["version_id"] != "13":
        yield Problem(
            (host,),
            "operating system",
            system.get("pretty_name", "Debian 12"),
            "Debian 13, because Debian 12 has no Compose plugin",
            "upgrade the host to Debian 13 (trixie)",
        )
    if facts["memory_mb"] < rules.minimum_memory_mb:
        yield Problem(
            (host,),
            "memory",
            f"{facts['memory_mb']} MB",
            f"at least {rules.minimum_memory_mb} MB (preflight_minimum_memory_mb)",
            f"give {host} more memory",
        )
    if facts["machine"] in {"x86_64", "amd64"}:
        missing = sorted(set(rules.cpu_flags) - set(facts["cpu_flags"]))
        if missing:
            yield Problem(
                (host,),
                "processor",
                f"no {', '.join(missing)}",
                f"the flags {', '.join(rules.cpu_flags)} (preflight_cpu_flags)",
                "set the hypervisor's CPU model to host or x86-64-v2",
            )
    elif facts["machine"] not in {"aarch64", "arm64"}:
        yield Problem((host,), "processor", facts["machine"], "x86_64 or aarch64", "use another machine")
    yield from _check_disks(host, facts["disks"], rules)
    yield from _check_ports(host, facts["listeners"], rules)
    if rules.runs_docker and "docker-ce" in facts["packages"]:
        yield Problem(
            (host,),
            "package docker-ce",
            f"docker-ce {facts['packages']['docker-ce']} from Docker's archive",
            "Debian's docker.io, or none: installing docker.io removes docker-ce and stops its containers",
            f"on {host}: apt-get remove docker-ce docker-ce-cli containerd.io docker-compose-plugin",
        )


def _check_disks(host: str, disks: Sequence[Mapping[str, Any]], rules: HostRules) -> Iterator[Problem]:
    seen = set()
    for disk in disks:
        if disk["device"] in seen:
            continue
        seen.add(disk["device"])
        where = f"disk of {disk['path']}"
        if disk["size_mb"] < rules.minimum_disk_gb * 1024:
            yield Problem(
                (host,),
                where,
                f"{disk['size_mb'] / 1024:.1f} GB in all (mounted on {disk['mount']})",
                f"at least {rules.minimum_disk_gb} GB (preflight_minimum_disk_gb)",
                f"enlarge it, or mount a larger disk on {disk['path']}",
            )
        elif disk["free_mb"] < rules.minimum_free_gb * 1024:
            yield Problem(
                (host,),
                where,
                f"{disk['free_mb'] / 1024:.1f} GB free (mounted on {disk['mount']})",
                f"at least {rules.minimum_free_gb} GB free (preflight_minimum_free_gb)",
                f"free space, e.g. on {host}: docker system df; journalctl --vacuum-size=200M",
            )


def _check_ports(host: str, listeners: Sequence[Mapping[str, Any]], rules: HostRules) -> Iterator[Problem]:
    anywhere = {"", "0.0.0.0", "::"}  # noqa: S104, compared and not bound
    for listener in listeners:
        wanted = [address for address, port in rules.ports if port == listener["port"]]
        clash = any(address in anywhere or listener["address"] in {*anywhere, address} for address in wanted)
        if clash and not listener["ours"]:
            setting = rules.settings.get(listener["port"], "traefik_http_port, traefik_https_port")
            name, pid = listener.get("process") or "an unknown process", listener.get("pid")
            if listener.get("container"):
                name = f"container {listener['container']}"
                stop = f"docker stop {listener['container']}"
            else:
                name = f"{name} (pid {pid})" if pid else name
                stop = f"stop its service, which systemctl status {pid} names" if pid else f"ss -ltnp sport = :{listener['port']}"
            yield Problem(
                (host,),
                f"port {listener['port']}",
                f"taken on {listener['address']} by {name}",
                "free, or held by a container of this collection",
                f"on {host}: {stop}" + (f". Or choose another port: {setting}" if setting else ""),
            )


def check_clocks(offsets: Mapping[str, tuple[float, float]], limit_s: float) -> Iterator[Problem]:
    """Check that the machines agree on the time, the controller being one more witness.

    :param offsets: host to (seconds ahead of the controller, uncertainty in seconds). Two clocks differ for certain
        only by what remains after both uncertainties.
    :param limit_s: largest difference allowed, in seconds.
    """
    if len(offsets) < 2:
        return  # one host against the controller: nobody can say who is right
    witnesses = sorted([*offsets.values(), (0.0, 0.0)])
    middle, doubt = witnesses[len(witnesses) // 2]
    for host, (offset, error) in sorted(offsets.items()):
        ahead = offset - middle
        if abs(ahead) - error - doubt > limit_s:
            yield Problem(
                (host,),
                "clock",
                f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the others",
                f"at most {limit_s:g} s apart (preflight_maximum_clock_skew_s)",
                f"on {host}: timedatectl set-ntp true; then timedatectl timesync-status",
            )


def check_peers(host: str, peers: Iterable[Mapping[str, Any]]) -> Iterator[Problem]:
    """Check that a machine reaches its peers. A refused connection is fine: the way is open, nothing listens yet."""
    for peer in peers:
        if peer["state"] not in {"open", "refused"}:
            yield Problem(
                (host,),
                f"peer {peer['name']}",
                f"{peer['address']}:{peer['port']} does not answer from {host} ({peer['state']})",
                "an answer, if only a refusal",
                f"open TCP {peer['port']} from {host} to {peer['name']} in firewalls and routes (in ours: ansible-playbook … berth.odoo.firewall)",
            )


# --------------------------------------------------------------------------------------------------------------------
# Report


def merge(problems: Iterable[Problem]) -> list[Problem]:
    """Join equal problems of several hosts, as a mistake in a group's variables shows on each of them."""
    joined: dict[tuple[str, str, str, str], list[str]] = {}
    for problem in problems:
        hosts = joined.setdefault(problem[1:], [])
        hosts.extend(host for host in problem.hosts if host not in hosts)
    return [Problem(tuple(hosts), *rest) for rest, hosts in joined.items()]


def format_problems(problems: Iterable[Problem], all_hosts: Collection[str]) -> list[str]:
    """Lay out problems for a terminal, without colours: one block each, hosts first."""
    lines: list[str] = []
    for problem in merge(problems):
        everywhere = not problem.hosts or (len(all_hosts) > 1 and set(problem.hosts) == set(all_hosts))
        hosts = "all hosts" if everywhere else ", ".join(problem.hosts)
        lines.append(f"{hosts}: {problem.subject}")
        lines.append(f"    found     {problem.found}")
        if problem.expected:
            lines.append(f"    expected  {problem.expected}")
        lines.append(f"    type      {problem.remedy}")
    return lines
