# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in an image, as a bill of materials in CycloneDX's JSON. Pure functions: no Ansible import, no I/O.

Formats: https://cyclonedx.org/docs/1.6/json/ and https://github.com/package-url/purl-spec/blob/main/PURL-TYPES.rst (deb, pypi).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SPEC_VERSION = "1.6"
# Of documents about images; the image's id is the name in it, so that one image has one serial number.
NAMESPACE = uuid.UUID("5e0f1b0a-5d7a-4c8e-9a0e-2f3d0a6c9b41")

# What Odoo calls licences, and SPDX: https://www.odoo.com/documentation/19.0/developer/reference/backend/module.html
LICENCES = {
    "GPL-2": "GPL-2.0-only",
    "GPL-2 or any later version": "GPL-2.0-or-later",
    "GPL-3": "GPL-3.0-only",
    "GPL-3 or any later version": "GPL-3.0-or-later",
    "AGPL-3": "AGPL-3.0-only",
    "LGPL-3": "LGPL-3.0-only",
    "MIT": "MIT",
    "BSD-3-Clause": "BSD-3-Clause",
    "Apache-2.0": "Apache-2.0",
}

LISTING = r"""
set -eu
. /etc/os-release
printf 'os\t%s\t%s\n' "$ID" "$VERSION_ID"
dpkg-query --show --showformat 'deb\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n'
if command -v python3 > /dev/null; then
python3 -I - <<'LISTING'
import ast, importlib.metadata, pathlib, sys
clean = lambda text: " ".join(str(text or "").split())
for item in importlib.metadata.distributions():
    # What Debian packaged is listed as that, with the corrections that only Debian's version number tells.
    if not str(item.locate_file("")).startswith("/usr/lib/python3/"):
        licence = item.metadata["License-Expression"] or item.metadata["License"]
        print("py", clean(item.name), clean(item.version), clean(licence)[:80], sep="\t")
seen = set()
for entry in sys.path:
    for file in sorted(pathlib.Path(entry).glob("odoo/addons/*/__manifest__.py")):
        manifest = ast.literal_eval(file.read_text(encoding="utf-8"))
        if file.parent.name not in seen:
            seen.add(file.parent.name)
            print("odoo", file.parent.name, clean(manifest.get("version", "1.0")), clean(manifest.get("license", "LGPL-3")), sep="\t")
LISTING
fi
"""
"""Shell that lists an image's contents, a line each, with tabs between kind, name, version and what else there is."""


def _purl(kind: str, name: str, version: str, qualifiers: Mapping[str, str] | None = None) -> str:
    ending = "&".join(f"{key}={quote(value, safe='')}" for key, value in sorted((qualifiers or {}).items()) if value)
    return f"pkg:{kind}/{quote(name, safe='.-_~/')}@{quote(version, safe='.-_~')}" + (f"?{ending}" if ending else "")


def _licences(name: str, *, spdx: str = "") -> dict[str, Any]:
    if spdx:
        return {"licenses": [{"license": {"id": spdx}}]}
    return {"licenses": [{"license": {"name": name}}]} if name else {}


def document(reference: str, image_id: str, listing: str) -> dict[str, Any]:
    """Return the bill of materials of an image; the same for the same image.

    Args:
        reference: Name and tag.
        image_id: C(sha256:…).
        listing: What :data:`LISTING` printed.

    Raises:
        ValueError: The listing has a line that is none, or no package at all.
    """
    name, _colon, version = reference.rpartition(":")
    distribution = "debian"
    components: dict[str, dict[str, Any]] = {}
    for line in listing.splitlines():
        kind, *rest = line.split("\t")
        if kind == "os":
            distribution = f"{rest[0]}-{rest[1]}"
        elif kind == "deb":
            package, installed, architecture, source, source_version = rest
            upstream = "" if (source, source_version) == (package, installed) else f"{source}@{source_version}"
            found = {"type": "library", "name": package, "version": installed}
            found["purl"] = _purl(
                "deb", f"debian/{package}", installed, {"arch": architecture, "distro": distribution, "upstream": upstream}
            )
            components[f"deb:{package}:{architecture}"] = found
        elif kind == "py":
            package, installed, licence = rest
            found = {"type": "library", "name": package, "version": installed, **_licences(licence)}
            found["purl"] = _purl("pypi", re.sub(r"[-_.]+", "-", package).lower(), installed)
            components[f"pypi:{package}"] = found
        elif kind == "odoo":
            module, installed, licence = rest
            spdx = LICENCES.get(licence, "")
            components[f"odoo:{module}"] = {
                "type": "library",
                "group": "odoo-module",
                "name": module,
                "version": installed,
                **_licences(licence, spdx=spdx),
            }
        else:
            raise ValueError(f"the listing of {reference} has a line that is none: {line!r}")
    if not components:
        raise ValueError(f"the listing of {reference} names no package")
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": uuid.uuid5(NAMESPACE, image_id).urn,
        "version": 1,
        "metadata": {
            "component": {
                "bom-ref": image_id,
                "type": "container",
                "name": name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": image_id.removeprefix("sha256:")}],
            }
        },
        "components": [{"bom-ref": key, **components[key]} for key in sorted(components)],
    }
