# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give objects of a bucket that keeps versions the content that they had at a time: what was deleted or overwritten since comes back.

    apt-get install python3-boto3
    AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… python3 undo_s3.py ENDPOINT BUCKET PREFIX '2026-11-25 14:03:59' [--authority ca.crt] [--region us-east-1]

With the bucket owner's key, from a machine that nobody took over. The time is UTC. No version is destroyed, so it can be run again with another time.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def undo(client: Any, bucket: str, prefix: str, since: datetime.datetime) -> dict[str, int]:
    """Give everything below a prefix the content of then; return how many objects came back, were overwritten back, and went."""
    found: dict[str, list[dict[str, Any]]] = {}
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for kind in ("Versions", "DeleteMarkers"):
            for one in page.get(kind, []):
                found.setdefault(one["Key"], []).append({**one, "deleted": kind == "DeleteMarkers"})
    done = {"undeleted": 0, "overwritten": 0, "deleted": 0}
    for key, entries in found.items():
        # Of two in the same second the latest is the newer one.
        entries.sort(key=lambda entry: (entry["LastModified"], entry["IsLatest"]))
        then = next((entry for entry in reversed(entries) if entry["LastModified"] <= since), None)
        later = [entry for entry in entries if entry["LastModified"] > since]
        if not later:
            continue
        if then is None or then["deleted"]:
            if not entries[-1]["deleted"]:
                client.delete_object(Bucket=bucket, Key=key)
                done["deleted"] += 1
        elif all(entry["deleted"] for entry in later):
            for entry in later:
                client.delete_object(Bucket=bucket, Key=key, VersionId=entry["VersionId"])
            done["undeleted"] += 1
        else:
            client.copy({"Bucket": bucket, "Key": key, "VersionId": then["VersionId"]}, bucket, key)
            done["overwritten"] += 1
    return done


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("endpoint", "bucket", "prefix", "time"):
        parser.add_argument(name)
    parser.add_argument("--authority", help="PEM file with the authority of the endpoint's certificate; without it, the system's")
    parser.add_argument("--region", default="us-east-1")
    options = parser.parse_args()
    try:
        since = datetime.datetime.fromisoformat(options.time)
    except ValueError:
        sys.exit(f"nothing was done: {options.time!r} is no time. Type one such as '2026-11-25 14:03:59'")
    since = since if since.tzinfo else since.replace(tzinfo=datetime.UTC)
    prefix = options.prefix.strip("/")
    try:
        client = boto3.client("s3", endpoint_url=options.endpoint, region_name=options.region, verify=options.authority)
        done = undo(client, options.bucket, f"{prefix}/" if prefix else "", since)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"{options.endpoint}: {error}. What was done before is done; run it again")
    sys.stdout.write(", ".join(f"{number} {what}" for what, number in done.items()) + "\n")


if __name__ == "__main__":
    main()
