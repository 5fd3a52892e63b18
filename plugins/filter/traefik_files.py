# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter C(berth.odoo.traefik_files): the files of Traefik's dynamic directory from a list of sites."""

from __future__ import annotations

DOCUMENTATION = r"""
name: traefik_files
short_description: Turn Odoo sites into Traefik's dynamic configuration files
version_added: 0.1.0
author: berth.odoo contributors (@berth-odoo)
description:
  - Takes sites and returns entries for O(berth.odoo.compose_project#module:files), one file a site, one for what they share, one for the
    certificates.
  - Everything is checked first, and all problems are reported at once. A certificate must fit its key and the domains of its sites.
positional: certificates
options:
  _input:
    description: Sites, as the role's C(traefik_sites).
    type: list
    elements: dict
    required: true
  certificates:
    description: Certificates and keys as PEM text by name, as the role's C(traefik_certificates).
    type: dict
    required: true
  networks:
    description: Networks that may reach the closed paths.
    type: list
    elements: str
    default: []
  trusted:
    description: Balancers in front, whose word about the client's address is believed.
    type: list
    elements: str
    default: []
  extra:
    description: More dynamic configuration.
    type: dict
    default: {}
  acme:
    description: How sites with the certificate C(acme) get it, as the role's C(traefik_acme).
    type: dict
    default: {}
  secrets:
    description: What the DNS provider wants kept secret, as the role's C(traefik_acme_secrets).
    type: dict
    default: {}
  common:
    description: C(maximum_body_mb), C(response_timeout), C(hsts_seconds) and C(tls_profile).
    type: dict
    required: true
  entry:
    description: Keys that every dynamic file's entry gets, such as C(group) and C(reload).
    type: dict
    default: {}
  static:
    description: Keys that the entries of secrets get.
    type: dict
    default: {}
  others:
    description: Entries to return before those that are made.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Show the names of the files
  ansible.builtin.debug:
    msg: "{{ sites | berth.odoo.traefik_files(certificates, common=common) | map(attribute='dest') }}"
"""

RETURN = r"""
_value:
  description: O(others), then entries with C(dest) below C(config/dynamic) or C(secrets), C(content) and C(sensitive).
  type: list
  elements: dict
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleFilterError

from ..module_utils._compose import to_yaml
from ..module_utils._traefik import ACME, SiteError, dynamic_files

if TYPE_CHECKING:
    from cryptography import x509

HEADER = "# Managed by Ansible (berth.odoo): changes made here are undone by the next run.\n"
SENSITIVE = ("certificates", "extra")


def _names(certificate: x509.Certificate) -> tuple[set[str], set[str]]:
    """Return the host names and the addresses that a certificate is for."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set(), set()
    hosts = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return hosts, {str(address) for address in names.get_values_for_type(x509.IPAddress)}


def covers(hosts: set[str], addresses: set[str], domain: str) -> bool:
    """Tell whether a certificate's names include a domain or address; a wildcard stands for one label (RFC 6125)."""
    try:
        return str(ipaddress.ip_address(domain)) in addresses
    except ValueError:
        return domain in hosts or "*." + domain.partition(".")[2] in hosts


def certificate_problems(sites: Iterable[Mapping[str, Any]], certificates: Mapping[str, Any]) -> list[str]:
    """Return which certificates do not fit their keys or the domains of their sites. No key is repeated in a message."""
    # Not at the top: ansible-core brings it; ansible-test reads documentation without it.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    problems = []
    for name, entry in certificates.items():
        where = f"traefik_certificates.{name}"
        try:
            certificate = x509.load_pem_x509_certificate(str(entry["certificate"]).encode())
        except ValueError as error:
            problems.append(f"{where}.certificate cannot be read: {error}")
            continue
        try:
            key = load_pem_private_key(str(entry["key"]).encode(), None).public_key()
        except (ValueError, TypeError):
            problems.append(f"{where}.key cannot be read: it is damaged, or has a passphrase")
            continue
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if certificate.public_key().public_bytes(*form) != key.public_bytes(*form):
            problems.append(f"{where}: the key is not that of the certificate, which must come first in the chain")
        hosts, addresses = _names(certificate)
        for site in sites:
            missing = [domain for domain in site["domains"] if site["certificate"] == name and not covers(hosts, addresses, domain)]
            if missing:
                known = ", ".join(sorted({*hosts, *addresses})) or "no name"
                problems.append(f"{where} is for {known}, not for {', '.join(missing)} of site {site['name']}")
            had = [domain for domain in site["domains"] if site["certificate"] == ACME and covers(hosts, addresses, domain)]
            if had:
                problems.append(
                    f"{where} is for {', '.join(had)} of site {site['name']}, whose certificate is {ACME}: Traefik asks for none that it has. "
                    f"Remove {where}, or let the site have it"
                )
    return problems


def traefik_files(
    sites: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, Any],
    common: Mapping[str, Any],
    networks: Sequence[str] = (),
    trusted: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
    acme: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
    entry: Mapping[str, Any] | None = None,
    static: Mapping[str, Any] | None = None,
    others: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Check everything, then return the entries."""
    try:
        found = dynamic_files(sites, certificates, extra or {}, networks, common, trusted, acme, secrets)
        problems = certificate_problems(sites, certificates)
        if problems:
            raise SiteError("\n".join(problems))
    except SiteError as error:
        raise AnsibleFilterError(f"Traefik's sites cannot be served:\n{error}") from None
    made = [
        {
            **(entry or {}),
            "dest": f"config/dynamic/{name}.yml",
            "content": HEADER + to_yaml(configuration),
            "sensitive": name in SENSITIVE,
        }
        for name, configuration in found.items()
    ]
    kept = [
        {**(static or {}), "dest": f"secrets/{name}", "content": str(value), "sensitive": True} for name, value in (secrets or {}).items()
    ]
    return [*map(dict, others), *kept, *made]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return name and function."""
        return {"traefik_files": traefik_files}
