# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send the bundles of programs and style sheets as brotli makes them when it may take its time, to browsers that understand it.

The edge compresses each answer anew, and quickly. A bundle is the same for everybody until the next release: a process beside the requests compresses it once,
after it had to be sent without, and what comes of it is a file (``copies.py``). Without that file everything is as Odoo does it.

Written for Odoo 19.0; what it relies on is checked when it is loaded.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import re
from pathlib import Path
from typing import Any

from odoo import http
from odoo.addons.base.models import ir_attachment
from odoo.addons.web.controllers import binary
from odoo.tools import config

from . import fits
from .copies import Copies, takes_brotli

_logger = logging.getLogger(__name__)

PREFIX = "/web/assets/"
TYPES = ("application/javascript", "text/javascript", "text/css")
SMALL = 10_000
"""Bytes of a content below which the edge's compression is good enough."""

CHECKSUM = re.compile(r"[0-9a-f]{40}")

EXPECTED: fits.Expected = {
    "odoo.http.Stream.get_response": (
        http.Stream.get_response,
        '(self, as_attachment=None, immutable=None, content_security_policy="default-src none", **send_file_kwargs)',
        (
            "'etag': self.etag",
            "'conditional': self.conditional",
            "'last_modified': self.last_modified",
            "_send_file(self.path, **send_file_kwargs)",
        ),
    ),
    "odoo.addons.base.models.ir_attachment.IrAttachment._to_http_stream": (
        ir_attachment.IrAttachment._to_http_stream,
        "(self)",
        ("etag=self.checksum", "stream.size ="),
    ),
    "odoo.addons.base.models.ir_attachment.IrAttachment._compute_checksum": (
        ir_attachment.IrAttachment._compute_checksum,
        "(self, bin_data)",
        ("hashlib.sha1(",),
    ),
    "odoo.addons.web.controllers.binary.Binary.content_assets": (
        binary.Binary.content_assets,
        "(self, *args, **params)",
        (
            "'/web/assets/<string:unique>/<string:filename>'",
            "send_file_kwargs['immutable'] = True",
            "stream.get_response(**send_file_kwargs)",
        ),
    ),
}


def unexpected() -> list[str]:
    """Return what is not as in the Odoo that this was written for, in words."""
    return fits.differences(EXPECTED)


def is_bundle(stream: Any, immutable: Any) -> bool:
    """Whether this is a program or a style sheet that browsers keep for a year, and no small one. With ``debug=assets`` it is none."""
    return bool(
        immutable
        and stream.type in ("data", "path")
        and stream.mimetype in TYPES
        and (stream.size or 0) >= SMALL
        and isinstance(stream.etag, str)
        and CHECKSUM.fullmatch(stream.etag)
        and http.request.httprequest.path.startswith(PREFIX)
    )


def as_brotli(stream: Any, file: Path) -> Any:
    """Return the stream of a copy: what is asked of it, a part or whether it has changed, is of the compressed bytes."""
    other = copy.copy(stream)
    other.type, other.path, other.data = "path", str(file), None
    other.size = file.stat().st_size
    other.etag = f"{stream.etag}-br"
    return other


def post_load() -> None:
    """Put the function in place; a line in the log where that cannot be. Then bundles are sent as before, which is no reason not to serve."""
    if problems := unexpected():
        _logger.warning("Bundles are not compressed beforehand, because berth_runtime does not fit this Odoo: %s", "; ".join(problems))
        return
    if importlib.util.find_spec("brotli") is None:
        _logger.warning("Bundles are not compressed beforehand: the image does not have Debian's python3-brotli")
        return
    # Beside the filestore and not in it: what is there is backed up and counted.
    copies = Copies(Path(config["data_dir"], "bundles"))
    original = http.Stream.get_response

    def get_response(self: Any, *arguments: Any, **more: Any) -> Any:
        """Answer with the copy where there is one and the client takes it."""
        if not is_bundle(self, more.get("immutable")):
            return original(self, *arguments, **more)
        response = None
        if takes_brotli(http.request.httprequest.headers.get("Accept-Encoding", "")):
            if file := copies.find(self.etag):
                try:
                    response = original(as_brotli(self, file), *arguments, **more)
                    response.headers["Content-Encoding"] = "br"
                except OSError:
                    # Removed in this moment.
                    response = None
            else:
                copies.want(self.etag, self.read)
        if response is None:
            response = original(self, *arguments, **more)
        response.headers["Vary"] = "Accept-Encoding"
        return response

    http.Stream.get_response = get_response
