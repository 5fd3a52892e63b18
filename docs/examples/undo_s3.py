# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give objects of a bucket that keeps versions the content that they had at a time: what was deleted or overwritten since comes back.

    S3_ACCESS_KEY=… S3_SECRET_KEY=… python3 undo_s3.py ENDPOINT BUCKET PREFIX '2026-11-25 14:03:59' [--authority ca.crt] [--region us-east-1]

With the bucket owner's key, from a machine that nobody took over. The time is UTC. No version is destroyed, so it can be run again with another time.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import hmac
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.etree import ElementTree


class Entry(NamedTuple):
    """A version of an object, or the mark that it was deleted."""

    key: str
    version: str
    time: datetime.datetime
    latest: bool
    deleted: bool


class Bucket:
    """A bucket, asked with signed requests (AWS signature 4)."""

    def __init__(self, endpoint: str, name: str, region: str, keys: tuple[str, str], authority: str = "") -> None:
        """Nothing is asked yet."""
        self.endpoint, self.name, self.region, self.keys = endpoint.rstrip("/"), name, region, keys
        self.context = ssl.create_default_context(cafile=authority or None)

    def ask(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> bytes:
        """Send a request and return the answer. Raises HTTPError."""
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        path = urllib.parse.quote(f"/{self.name}/{key}" if key else f"/{self.name}")
        text = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted((query or {}).items()))
        content = hashlib.sha256(body).hexdigest()
        sent = {
            "host": urllib.parse.urlsplit(self.endpoint).netloc,
            "x-amz-content-sha256": content,
            "x-amz-date": moment,
            **(headers or {}),
        }
        names = ";".join(sorted(sent))
        canonical = "\n".join([method, path, text, *(f"{name}:{sent[name]}" for name in sorted(sent)), "", names, content])
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        signed = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        secret = ("AWS4" + self.keys[1]).encode()
        for part in scope.split("/"):
            secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()
        sent["authorization"] = f"AWS4-HMAC-SHA256 Credential={self.keys[0]}/{scope}, SignedHeaders={names}, Signature={signature}"
        url = f"{self.endpoint}{path}{'?' + text if text else ''}"
        request = urllib.request.Request(url, data=body if method == "PUT" else None, method=method, headers=sent)  # noqa: S310 - the endpoint is typed
        with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:  # noqa: S310 - the same
            read: bytes = answer.read()
            return read

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Every version of everything below a prefix."""
        query = {"versions": "", "prefix": prefix, "max-keys": "1000"}
        while True:
            page = ElementTree.fromstring(self.ask("GET", query=query))  # noqa: S314 - of the own bucket
            space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""

            def said(node: ElementTree.Element, name: str, space: str = space) -> str:
                return node.findtext(f"{space}{name}") or ""

            for node in page:
                kind = node.tag.removeprefix(space)
                if kind in {"Version", "DeleteMarker"}:
                    moment = datetime.datetime.fromisoformat(said(node, "LastModified"))
                    yield Entry(
                        said(node, "Key"), said(node, "VersionId"), moment, said(node, "IsLatest") == "true", kind == "DeleteMarker"
                    )
            if said(page, "IsTruncated") != "true":
                return
            query |= {"key-marker": said(page, "NextKeyMarker"), "version-id-marker": said(page, "NextVersionIdMarker")}

    def undo(self, prefix: str, since: datetime.datetime) -> dict[str, int]:
        """Give everything below a prefix the content of then; return how many objects came back, were overwritten back, and went."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries(prefix):
            found.setdefault(entry.key, []).append(entry)
        done = {"undeleted": 0, "overwritten": 0, "deleted": 0}
        for key, entries in found.items():
            # Of two in the same second the latest is the newer one.
            entries.sort(key=lambda entry: (entry.time, entry.latest))
            then = next((entry for entry in reversed(entries) if entry.time <= since), None)
            later = [entry for entry in entries if entry.time > since]
            if not later:
                continue
            if then is None or then.deleted:
                if not entries[-1].deleted:
                    self.ask("DELETE", key)
                    done["deleted"] += 1
            elif all(entry.deleted for entry in later):
                for entry in later:
                    self.ask("DELETE", key, {"versionId": entry.version})
                done["undeleted"] += 1
            else:
                source = f"{urllib.parse.quote(f'/{self.name}/{key}')}?versionId={then.version}"
                self.ask("PUT", key, headers={"x-amz-copy-source": source})
                done["overwritten"] += 1
        return done


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("endpoint", "bucket", "prefix", "time"):
        parser.add_argument(name)
    parser.add_argument(
        "--authority", default="", help="PEM file with the authority of the endpoint's certificate; without it, the system's"
    )
    parser.add_argument("--region", default="us-east-1")
    options = parser.parse_args()
    try:
        keys = os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]
        since = datetime.datetime.fromisoformat(options.time)
    except KeyError as error:
        sys.exit(f"nothing was done: {error.args[0]} is not in the environment")
    except ValueError:
        sys.exit(f"nothing was done: {options.time!r} is no time. Type one such as '2026-11-25 14:03:59'")
    since = since if since.tzinfo else since.replace(tzinfo=datetime.UTC)
    try:
        done = Bucket(options.endpoint, options.bucket, options.region, keys, options.authority).undo(options.prefix.strip("/"), since)
    except urllib.error.HTTPError as error:
        sys.exit(
            f"the bucket answered {error.code}: {error.read().decode(errors='replace')[:400]}. What was done before is done; run it again"
        )
    except OSError as error:
        sys.exit(f"{options.endpoint} does not answer: {error}. What was done before is done; run it again")
    sys.stdout.write(", ".join(f"{number} {what}" for what, number in done.items()) + "\n")


if __name__ == "__main__":
    main()
