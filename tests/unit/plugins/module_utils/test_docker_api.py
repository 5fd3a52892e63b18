# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker client against a daemon made of a unix socket and prepared answers."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._docker_api import (
    DockerClient,
    DockerError,
    DockerUnavailable,
    demultiplex,
)

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.45\r\nContent-Length: 2\r\n\r\nOK"


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def frame(number: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", number, len(data)) + data


class Daemon:
    """Accepts connections and answers each request with the next prepared answer; None closes the connection instead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: list[bytes | None] = []
        self.requests: list[tuple[str, str]] = []
        self.connections = 0
        self.stdin = b""
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                headers = {}
                while (header := stream.readline()) not in (b"\r\n", b""):
                    name, _separator, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", "0"))).decode()
                self.requests.append((line.decode().rsplit(" ", 1)[0], body))
                reply = self.answers.pop(0)
                if reply is None:
                    return
                if headers.get("upgrade") == "tcp" and reply.startswith(b"HTTP/1.1 101"):
                    head, output = reply.split(b"\r\n\r\n", 1)
                    connection.sendall(head + b"\r\n\r\n")
                    if json.loads(self.requests[-2][1]).get("AttachStdin"):
                        self.stdin = stream.read()
                    connection.sendall(output)
                    return
                connection.sendall(reply)

    def close(self) -> None:
        # shutdown, unlike close alone, wakes the thread that waits in accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(timeout=5)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "docker.sock")
    yield made
    made.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Callable[..., DockerClient]]:
    clients = []

    def make(*answers: bytes | None, timeout: float = 5) -> DockerClient:
        daemon.answers = [PING, *answers]
        clients.append(DockerClient(str(daemon.path), timeout=timeout))
        return clients[-1]

    yield make
    for made in clients:
        made.close()


def test_get_post_delete(daemon: Daemon, client: Callable[..., DockerClient]) -> None:
    docker = client(answer(b'[{"Id": "1"}]'), answer(b'{"Id": "2"}', "201 Created"), answer(b"", "204 No Content"))
    assert docker.get("/containers/json", all=True, filters={"label": ["a=b c"]}, limit=None) == [{"Id": "1"}]
    assert docker.post("/networks/create", {"Name": "n"}, dry=False) == {"Id": "2"}
    assert docker.delete("/networks/2", v=1) is None
    assert daemon.requests == [
        ("GET /_ping", ""),
        ("GET /v1.44/containers/json?all=true&filters=%7B%22label%22%3A+%5B%22a%3Db+c%22%5D%7D", ""),
        ("POST /v1.44/networks/create?dry=false", '{"Name": "n"}'),
        ("DELETE /v1.44/networks/2?v=1", ""),
    ]


def test_reading_uses_one_connection(daemon: Daemon, client: Callable[..., DockerClient]) -> None:
    docker = client(answer(b"1"), answer(b"2"), answer(b"3"))
    assert [docker.get("/x") for _ in range(3)] == [1, 2, 3]
    assert daemon.connections == 1


def test_an_older_daemon_gets_its_own_version(daemon: Daemon, client: Callable[..., DockerClient]) -> None:
    docker = client(answer(b"{}"))
    daemon.answers[0] = PING.replace(b"1.45", b"1.41")
    docker.get("/info")
    assert daemon.requests[-1][0] == "GET /v1.41/info"


def test_errors_carry_the_daemons_words(client: Callable[..., DockerClient]) -> None:
    docker = client(answer(b'{"message":"No such container: x\\n"}', "404 Not Found"), answer(b"gateway trouble", "502 Bad Gateway"))
    with pytest.raises(DockerError, match=r"^No such container: x$") as caught:
        docker.get("/containers/x/json")
    assert (caught.value.status, caught.value.message) == (404, "No such container: x")
    with pytest.raises(DockerError, match=r"^gateway trouble$"):
        docker.get("/containers/x/json")


def test_images(daemon: Daemon, client: Callable[..., DockerClient]) -> None:
    docker = client(answer(b'{"Id":"sha256:1"}'), answer(b'{"message":"no"}', "404 Not Found"), answer(b'{"message":"broken"}', "500 Oops"))
    assert docker.image_id("registry:5000/berth/odoo@sha256:ab") == "sha256:1"
    assert daemon.requests[-1][0] == "GET /v1.44/images/registry:5000/berth/odoo@sha256:ab/json"
    assert docker.image_id("missing") is None
    with pytest.raises(DockerError, match="broken"):
        docker.image_id("x")


def test_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(DockerUnavailable, match=r"cannot connect to .*nothing\.sock: No such file or directory"):
        DockerClient(str(tmp_path / "nothing.sock")).get("/info")


def test_a_connection_that_the_daemon_closed_meanwhile_is_opened_again(daemon: Daemon, client: Callable[..., DockerClient]) -> None:
    docker = client(answer(b"{}"), None, answer(b'{"ok": 1}'))
    docker.get("/info")
    assert docker.get("/info") == {"ok": 1}
    assert daemon.connections == 2


def test_a_daemon_that_dies_twice_is_unavailable(client: Callable[..., DockerClient]) -> None:
    docker = client(answer(b"{}"), None, None)
    docker.get("/info")
    with pytest.raises(DockerUnavailable, match=r"no answer from .* to GET /info"):
        docker.get("/info")


def test_silence_ends_with_the_timeout_and_is_not_repeated(daemon: Daemon, client: Callable[..., DockerClient]) -> None:
    docker = client(b"", timeout=0.2)
    with pytest.raises(DockerUnavailable, match="to POST /containers/x/restart: timed out"):
        docker.post("/containers/x/restart")
    assert len(daemon.requests) == 2, "a request that may have been carried out is not sent again"


UPGRADE = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def test_exec_gives_input_and_separates_output(daemon: Daemon, client: Callable[..., DockerClient]) -> None:
    output = frame(1, b"out ") + frame(2, b"err\xff") + frame(1, b"put")
    docker = client(answer(b'{"Id":"e1"}', "201 Created"), UPGRADE + output, answer(b'{"ExitCode":3}'))
    result = docker.exec("c1", ["psql", "-c", "x"], user="postgres", env={"A": "b=c"}, stdin=b"secret")
    assert result == (3, "out put", "err\ufffd")
    assert json.loads(daemon.requests[1][1]) == {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Cmd": ["psql", "-c", "x"],
        "Env": ["A=b=c"],
        "User": "postgres",
    }
    assert daemon.stdin == b"secret"


def test_exec_without_input_and_failures(client: Callable[..., DockerClient]) -> None:
    created = answer(b'{"Id":"e1"}', "201 Created")
    docker = client(created, UPGRADE, answer(b'{"ExitCode":0}'))
    assert docker.exec("c1", ["true"]) == (0, "", "")
    docker = client(answer(b'{"message":"container c1 is not running"}', "409 Conflict"))
    with pytest.raises(DockerError, match="c1 is not running"):
        docker.exec("c1", ["true"])
    docker = client(created, answer(b'{"message":"no such exec"}', "404 Not Found"))
    with pytest.raises(DockerError, match="no such exec"):
        docker.exec("c1", ["true"])
    docker = client(created, UPGRADE, answer(b'{"ExitCode":null}'))
    with pytest.raises(DockerError, match="the command sleep in container c1 has no exit code"):
        docker.exec("c1", ["sleep"])
    docker = client(created, None)
    with pytest.raises(DockerUnavailable, match="to POST /exec/e1/start"):
        docker.exec("c1", ["true"])


def test_logs(client: Callable[..., DockerClient]) -> None:
    docker = client(
        answer(frame(1, b"one\n") + frame(2, b"two\n"), "200 OK", "Content-Type: application/vnd.docker.multiplexed-stream"),
        answer(frame(1, b"old daemons say raw\n"), "200 OK", "Content-Type: application/vnd.docker.raw-stream"),
        answer(b"from a terminal\r\n", "200 OK", "Content-Type: application/vnd.docker.raw-stream"),
        answer(b'{"message":"configured logging driver does not support reading"}', "501 Not Implemented"),
    )
    assert docker.logs("c", tail=2) == "one\ntwo"
    assert docker.logs("c") == "old daemons say raw"
    assert docker.logs("c") == "from a terminal"
    assert docker.logs("c") == "(no logs: configured logging driver does not support reading)"


@pytest.mark.parametrize("cut", [3, 8, 10])
def test_an_output_that_breaks_off_is_an_error(cut: int) -> None:
    with pytest.raises(DockerError, match="inside a frame"):
        list(demultiplex(io.BytesIO(frame(1, b"whole") + frame(1, b"half")[:cut])))
