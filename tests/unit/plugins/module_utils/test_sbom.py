# SPDX-License-Identifier: GPL-3.0-or-later
"""The bill of materials of an image."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from ansible_collections.berth.odoo.plugins.module_utils import _sbom

ID = "sha256:" + "a" * 64
LISTING = "\n".join(
    [
        "os\tdebian\t13",
        "deb\tlibc6\t2.41-12+deb13u5\tamd64\tglibc\t2.41-12+deb13u5",
        "deb\todoo-19\t1:19.0.0+dfsg-1\tall\todoo-19\t1:19.0.0+dfsg-1",
        "py\todoo-addon-queue_job\t19.0.2.4.0.1\tLGPL-3",
        "py\tcssselect\t1.3.0\t",
        "odoo\tqueue_job\t19.0.2.4.0\tLGPL-3",
        "odoo\tacme_wms\t1.0\tOPL-1",
    ]
)


def schema(name: str) -> dict[str, Any]:
    """One of CycloneDX's own schemas, as its library carries them."""
    found: dict[str, Any] = json.loads((resources.files("cyclonedx.schema") / "_res" / name).read_text(encoding="utf-8"))
    return found


def validate(document: dict[str, Any]) -> None:
    names = ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    parts = [(f"http://cyclonedx.org/schema/{name}", Resource.from_contents(schema(name))) for name in names]
    registry = Registry().with_resources([*parts, *((name, part) for name, (_address, part) in zip(names, parts, strict=True))])
    jsonschema.Draft7Validator(schema(f"bom-{_sbom.SPEC_VERSION}.SNAPSHOT.schema.json"), registry=registry).validate(document)


def test_it_is_what_cyclonedx_says_it_must_be() -> None:
    document = _sbom.document("berth/odoo:19.0-0a1b2c3d4e5f", ID, LISTING)
    validate(document)
    with pytest.raises(jsonschema.ValidationError):
        validate({**document, "components": [{"name": "x"}]})
    with pytest.raises(jsonschema.ValidationError):
        validate({**document, "components": [{"type": "library", "name": "x", "licenses": [{"license": {"id": "LGPL-3"}}]}]})


def test_every_kind_of_component_is_named_as_scanners_know_it() -> None:
    components = {item["bom-ref"]: item for item in _sbom.document("berth/odoo:19.0-x", ID, LISTING)["components"]}
    assert components["deb:libc6:amd64"]["purl"] == (
        "pkg:deb/debian/libc6@2.41-12%2Bdeb13u5?arch=amd64&distro=debian-13&upstream=glibc%402.41-12%2Bdeb13u5"
    )
    assert components["deb:odoo-19:all"]["purl"] == "pkg:deb/debian/odoo-19@1%3A19.0.0%2Bdfsg-1?arch=all&distro=debian-13"
    assert components["pypi:odoo-addon-queue_job"]["purl"] == "pkg:pypi/odoo-addon-queue-job@19.0.2.4.0.1"
    assert "licenses" not in components["pypi:cssselect"]
    assert components["odoo:queue_job"]["licenses"] == [{"license": {"id": "LGPL-3.0-only"}}]
    assert components["odoo:acme_wms"] == {
        "bom-ref": "odoo:acme_wms",
        "type": "library",
        "group": "odoo-module",
        "name": "acme_wms",
        "version": "1.0",
        "licenses": [{"license": {"name": "OPL-1"}}],
    }


def test_one_image_has_one_document() -> None:
    document = _sbom.document("berth/odoo:19.0-x", ID, LISTING)
    assert document == _sbom.document("berth/odoo:19.0-x", ID, "\n".join([LISTING.splitlines()[0], *reversed(LISTING.splitlines()[1:])]))
    assert document["serialNumber"] != _sbom.document("berth/odoo:19.0-x", "sha256:" + "b" * 64, LISTING)["serialNumber"]


@pytest.mark.parametrize("listing", ["", "os\tdebian\t13", "os\tdebian\t13\nrpm\tbash\t5"])
def test_a_listing_that_is_none_is_not_made_a_document(listing: str) -> None:
    with pytest.raises(ValueError, match="the listing of berth/odoo:1"):
        _sbom.document("berth/odoo:1", ID, listing)
