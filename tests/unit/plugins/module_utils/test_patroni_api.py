# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of Patroni's REST API against real TLS servers with certificates of an authority of their own."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ansible_collections.berth.odoo.plugins.module_utils._docker_api import ExecResult
from ansible_collections.berth.odoo.plugins.module_utils._patroni_api import (
    PatroniApi,
    PatroniError,
    container_hosts,
    patronictl,
    read_cluster,
)
from ansible_collections.berth.odoo.plugins.module_utils._psql import Container

FIXTURES = Path(__file__).parent / "fixtures/patroni"
CONTAINER = Container("abc", "172.17.0.2")
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority in a directory, ``ca.crt``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, directory.name)])
        self.certificate = (
            self._builder(self.name, self.key, DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        (directory / "ca.crt").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + lifetime)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    def issue(self, *names: str, lifetime: datetime.timedelta = DAY) -> Path:
        """A file with a server certificate for some names, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "member")]), key, lifetime)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        file = self.directory / f"{certificate.serial_number}.pem"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        return file


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


class Member:
    """A server that answers as Patroni does: HTTP/1.0, JSON, nothing at all for what is not in ``answers``."""

    def __init__(self, pem: Path | None, silent: threading.Event | None = None) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        member = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                member.asked.append(self.path)
                if silent:
                    silent.wait(timeout=30)
                if self.path not in member.answers:
                    return  # closes the connection, as Patroni's handler does when it meets an exception
                status, document = member.answers[self.path]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port: int = self.server.server_address[1]
        # A refused handshake raises in the server; that is the client's story.
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=5)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "own")


@pytest.fixture(scope="session")
def pem(authority: Authority) -> Path:
    return authority.issue("postgresql", "localhost")


@pytest.fixture
def start() -> Iterator[Callable[..., Member]]:
    started: list[Member] = []

    def make(*arguments: Any) -> Member:
        started.append(Member(*arguments))
        return started[-1]

    yield make
    for member in started:
        member.stop()


def api(member: Member, authority: Authority, timeout: float = 5) -> PatroniApi:
    return PatroniApi("127.0.0.1", str(authority.directory), "docker logs abc", member.port, timeout)


def test_an_answer_comes_over_tls_though_the_address_is_not_in_the_certificate(
    start: Callable[..., Member], authority: Authority, pem: Path
) -> None:
    member = start(pem)
    member.answers["/config"] = (200, {"ttl": 30})
    assert api(member, authority).get("/config") == {"ttl": 30}
    assert member.asked == ["/config"]


@pytest.mark.parametrize(
    ("names", "lifetime", "words"),
    [(("db1",), DAY, "as postgresql: Hostname mismatch"), (("postgresql",), -DAY, "as postgresql: certificate has expired")],
)
def test_a_certificate_for_somebody_else_or_of_yesterday_is_refused(
    start: Callable[..., Member], authority: Authority, names: tuple[str, ...], lifetime: datetime.timedelta, words: str
) -> None:
    member = start(authority.issue(*names, lifetime=lifetime))
    with pytest.raises(PatroniError, match=words) as caught:
        api(member, authority).get("/config")
    assert f"https://127.0.0.1:{member.port}/config" in str(caught.value)
    assert "--tags database" in str(caught.value)
    assert member.asked == [], "nothing is asked of a server that is not trusted"


def test_a_certificate_of_another_authority_is_refused(start: Callable[..., Member], authority: Authority, tmp_path: Path) -> None:
    member = start(Authority(tmp_path / "other").issue("postgresql"))
    with pytest.raises(PatroniError, match=f"{authority.directory}/ca.crt does not vouch for as postgresql"):
        api(member, authority).get("/config")
    assert member.asked == []


def test_there_is_no_way_without_tls(start: Callable[..., Member], authority: Authority) -> None:
    member = start(None)
    member.answers["/config"] = (200, {})
    with pytest.raises(PatroniError, match=r"no TLS at https://127\.0\.0\.1:\d+/config: .*berth\.odoo\.site"):
        api(member, authority).get("/config")
    assert member.asked == []


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_missing_or_broken_authority_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ca.crt").write_text(content, encoding="utf-8")
    with pytest.raises(PatroniError, match=f"cannot be read from {tmp_path}/ca.crt: .*set tls_dir"):
        PatroniApi("127.0.0.1", str(tmp_path), "x")


def test_silence_a_closed_port_and_a_broken_answer_say_what_to_type(start: Callable[..., Member], authority: Authority, pem: Path) -> None:
    member = start(pem)
    with pytest.raises(PatroniError, match=r"no answer from .*/cluster: .*Does Patroni reach etcd\? Type: docker logs abc"):
        api(member, authority).get("/cluster")
    released = threading.Event()
    silent = start(pem, released)
    with pytest.raises(PatroniError, match=r"/config: .*timed out"):
        api(silent, authority, timeout=0.3).get("/config")
    with pytest.raises(PatroniError, match=r"/config: .*timed out"):
        api(silent, authority).get("/config", timeout=0.3)
    released.set()
    closed = api(member, authority)
    member.stop()
    with pytest.raises(PatroniError, match="Connection refused"):
        closed.get("/config")


def test_another_status_is_an_error(start: Callable[..., Member], authority: Authority, pem: Path) -> None:
    member = start(pem)
    member.answers["/config"] = (502, None)
    with pytest.raises(PatroniError, match=r"/config answered 502 Bad Gateway\. Type: docker logs abc"):
        api(member, authority).get("/config")


HOSTS = dict.fromkeys(("db1", "db2", "db3"), "127.0.0.1")


class Inspected:
    """Docker's description of a container."""

    def __init__(self, extra: list[str] | None) -> None:
        self.extra = extra

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/containers/abc/json"
        return {"HostConfig": {"ExtraHosts": self.extra}}


def test_names_are_those_that_the_container_was_given() -> None:
    assert container_hosts(Inspected(["db2:10.0.0.12", "db3:fd00::13"]), CONTAINER) == {"db2": "10.0.0.12", "db3": "fd00::13"}
    assert container_hosts(Inspected(None), CONTAINER) == {}


# --- a whole cluster ---------------------------------------------------------------------------------------------------------------


def serve(name: str, start: Callable[..., Member], pem: Path) -> tuple[dict[str, Any], dict[str, Member]]:
    """The members of a recorded cluster as servers; who did not answer then does not listen now."""
    recorded = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    recorded["patroni"]["dcs_last_seen"] = int(datetime.datetime.now(datetime.UTC).timestamp())
    members = {}
    for listed in recorded["cluster"]["members"]:
        members[listed["name"]] = member = start(pem)
        # Members know each other by names that this machine does not know.
        listed["api_url"] = f"https://{listed['name']}:{member.port}/patroni"
        status = recorded["members"][listed["name"]]
        if isinstance(status, dict):
            member.answers["/patroni"] = (200, status)
        else:
            member.stop()
    own = members[recorded["patroni"]["patroni"]["name"]]
    own.answers.update({f"/{path}": (200, recorded[path]) for path in ("patroni", "cluster", "config", "history")})
    return recorded, members


def test_every_member_is_asked_itself(start: Callable[..., Member], authority: Authority, pem: Path) -> None:
    _recorded, members = serve("lagging", start, pem)
    cluster = read_cluster(api(members["db2"], authority), str(authority.directory), HOSTS)
    assert [one["error"] for one in cluster["members"]] == ["", "", ""]
    assert cluster["members"][0]["receive_lag_bytes"] > 280_000_000
    assert members["db1"].asked == members["db3"].asked == ["/patroni"]
    assert sorted(members["db2"].asked) == ["/cluster", "/config", "/patroni"]


def test_a_member_that_does_not_answer_is_part_of_the_answer(start: Callable[..., Member], authority: Authority, pem: Path) -> None:
    _recorded, members = serve("leader_dead_with_lease", start, pem)
    cluster = read_cluster(api(members["db2"], authority), str(authority.directory), HOSTS)
    error = cluster["members"][0]["error"]
    assert "Connection refused" in error
    assert "on the host of db1" in error


def test_an_impostor_among_the_members_is_not_believed(
    start: Callable[..., Member], authority: Authority, pem: Path, tmp_path: Path
) -> None:
    recorded, members = serve("three", start, pem)
    impostor = start(Authority(tmp_path / "other").issue("postgresql"))
    impostor.answers["/patroni"] = (200, recorded["members"]["db1"])
    recorded["cluster"]["members"][0]["api_url"] = f"https://db1:{impostor.port}/patroni"
    cluster = read_cluster(api(members["db2"], authority), str(authority.directory), HOSTS)
    assert "does not vouch" in cluster["members"][0]["error"]
    assert cluster["members"][0]["writable"] is False


def test_while_etcd_is_away_a_member_still_tells_of_itself(start: Callable[..., Member], authority: Authority, pem: Path) -> None:
    _recorded, members = serve("three", start, pem)
    for path in ("/cluster", "/config"):
        del members["db2"].answers[path]
    cluster = read_cluster(api(members["db2"], authority), str(authority.directory), HOSTS)
    assert [one["name"] for one in cluster["members"]] == ["db2"]
    assert "/cluster" in cluster["dcs_error"]


# --- patronictl --------------------------------------------------------------------------------------------------------------------


class Engine:
    """Runs nothing: gives the result of an exec."""

    def __init__(self, *result: Any) -> None:
        self.result = ExecResult(*result)
        self.argv: list[str] = []

    def exec(self, _container: str, argv: list[str], stdin: bytes | None = None) -> ExecResult:
        self.argv = argv
        return self.result


def test_patronictl_prints() -> None:
    engine = Engine(0, "Success: restart on member db1\n", "")
    assert patronictl(engine, CONTAINER, "restart", "--force", "berth", "db1") == "Success: restart on member db1\n"
    assert engine.argv == ["patronictl", "restart", "--force", "berth", "db1"]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        # Recorded from patronictl 4.0.7, which ends with 0 when Patroni refuses.
        (
            (1, "", "Traceback (…)\n\nError: Cluster is already paused\n"),
            "^patronictl pause ended with 1: Error: Cluster is already paused$",
        ),
        ((137, "", ""), "^patronictl pause ended with 137: it said nothing$"),
        (
            (
                0,
                "Current cluster topology\nSwitchover failed, details: 412, switchover is not possible: no good candidates have been found\n",
                "",
            ),
            "^Switchover failed, details: 412, switchover is not possible: no good candidates have been found$",
        ),
        (
            (0, "Failed: restart for member db2, status code=503, (restart already in progress)\n", ""),
            r"^Failed: restart for member db2, status code=503, \(restart already in progress\)$",
        ),
    ],
)
def test_patronictl_that_was_refused(result: tuple[int, str, str], words: str) -> None:
    with pytest.raises(PatroniError, match=words):
        patronictl(Engine(*result), CONTAINER, "pause")
