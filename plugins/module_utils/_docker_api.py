# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client for the Docker Engine API over its unix socket, with the standard library only.

Managed hosts have Python and nothing else, and one ``docker`` command costs more than ten requests over the socket.

Source of every path, field and stream format: https://docs.docker.com/reference/api/engine/version/v1.44/
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

# The newest API this client was written for (Docker 25). Docker 29 still accepts it; an older daemon gets its own.
NEWEST_API = (1, 44)
DEFAULT_SOCKET = "/run/docker.sock"


class DockerUnavailable(Exception):
    """The daemon cannot be reached: not installed, not running, or no permission on its socket."""


class DockerError(Exception):
    """The daemon answered a request with an error.

    Attributes:
        status: HTTP status, 404 for an object that does not exist.
        message: The daemon's own words.
    """

    def __init__(self, status: int, message: str) -> None:
        """Keep the status beside the message, so that callers can tell "missing" from "broken"."""
        super().__init__(message)
        self.status = status
        self.message = message


class ExecResult(NamedTuple):
    """What a command run in a container returned: exit code and its two output streams as text."""

    rc: int
    stdout: str
    stderr: str


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection whose socket is a unix socket."""

    def __init__(self, socket_path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = _connect(self._socket_path, self.timeout or 0)


def _connect(socket_path: str, timeout: float) -> socket.socket:
    """Open the daemon's socket; raises DockerUnavailable with the system's reason."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(socket_path)
    except OSError as error:
        sock.close()
        raise DockerUnavailable(f"cannot connect to {socket_path}: {error.strerror or error}") from error
    return sock


def demultiplex(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (stream number, bytes) frames of an attached container: 1 is stdout, 2 is stderr.

    Each frame starts with eight bytes: the stream, three zeros, the length as big-endian integer.

    Raises:
        DockerError: The stream ended inside a frame.
    """
    while True:
        header = stream.read(8)
        if not header:
            return
        if len(header) < 8:
            raise DockerError(500, "the daemon closed an output stream inside a frame header")
        number, length = struct.unpack(">BxxxL", header)
        data = stream.read(length)
        if len(data) < length:
            raise DockerError(500, "the daemon closed an output stream inside a frame")
        yield number, data


def _error_message(body: bytes) -> str:
    """Return the text of an error response, which is JSON unless something else than Docker answered."""
    text = body.decode("utf-8", "replace").strip()
    try:
        return str(json.loads(text)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return text


def _query_string(query: dict[str, Any]) -> str:
    """Encode query values as the API wants them: booleans as true/false, filters and other mappings as JSON."""
    encoded = {}
    for name, value in query.items():
        if value is None:
            continue
        if isinstance(value, bool):
            encoded[name] = "true" if value else "false"
        elif isinstance(value, (dict, list)):
            encoded[name] = json.dumps(value)
        else:
            encoded[name] = str(value)
    return "?" + urlencode(encoded) if encoded else ""


class DockerClient:
    """Requests to one Docker daemon. Not thread-safe: one connection is kept open and used again.

    Args:
        socket_path: The daemon's unix socket.
        timeout: Seconds without an answer after which a request fails with DockerUnavailable.
    """

    def __init__(self, socket_path: str = DEFAULT_SOCKET, timeout: float = 60.0) -> None:
        """Remember where the daemon is; nothing is sent before the first request."""
        self.socket_path = socket_path
        self.timeout = timeout
        self._connection: _UnixConnection | None = None
        self._prefix: str | None = None

    def __enter__(self) -> DockerClient:
        """Use as a context manager closes the connection at the end."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection to the daemon. The next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, **query: Any) -> Any:
        """GET an object, parsed from JSON. Raises DockerError, DockerUnavailable."""
        return self._json("GET", path, None, query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """POST a JSON body, return the parsed answer or None. Raises DockerError, DockerUnavailable."""
        return self._json("POST", path, body, query)

    def delete(self, path: str, **query: Any) -> Any:
        """DELETE an object. Raises DockerError, DockerUnavailable."""
        return self._json("DELETE", path, None, query)

    def image_id(self, reference: str) -> str | None:
        """Return the id (``sha256:…``) of a local image, None when this host does not have it."""
        try:
            return str(self.get(f"/images/{quote(reference, safe='/:@')}/json")["Id"])
        except DockerError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise

    def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        user: str | None = None,
        env: dict[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> ExecResult:
        """Run a command in a running container and wait for its end.

        Secrets belong into stdin: argv and env can be read by others through ``docker inspect`` and /proc.

        Args:
            container_id: Id or name of the container.
            argv: Command and arguments; no shell is involved.
            user: User inside the container, the container's own when None.
            env: Additional environment.
            stdin: Bytes written to the command's standard input, which is then closed.

        Raises:
            DockerError: The container is not running or the command does not exist.
            DockerUnavailable: The daemon went away or the command was silent for longer than the timeout.
        """
        body = {
            "AttachStdin": stdin is not None,
            "AttachStdout": True,
            "AttachStderr": True,
            "Cmd": list(argv),
            "Env": [f"{name}={value}" for name, value in (env or {}).items()],
            "User": user or "",
        }
        exec_id = self.post(f"/containers/{quote(container_id)}/exec", body)["Id"]
        output: dict[int, list[bytes]] = {1: [], 2: []}
        for number, data in self._attach(f"/exec/{exec_id}/start", {"Detach": False, "Tty": False}, stdin):
            output.setdefault(number, []).append(data)
        rc = self.get(f"/exec/{exec_id}/json")["ExitCode"]
        if rc is None:
            raise DockerError(500, f"the command {argv[0]} in container {container_id} has no exit code")
        stdout, stderr = (b"".join(output[number]).decode("utf-8", "replace") for number in (1, 2))
        return ExecResult(int(rc), stdout, stderr)

    def logs(self, container_id: str, tail: int = 20) -> str:
        """Return the last lines a container wrote on both streams, in their order.

        A log driver that cannot be read gives the daemon's explanation instead of an error: logs only ever explain
        something else that went wrong.
        """
        path = f"/containers/{quote(container_id)}/logs"
        try:
            status, content_type, body = self._request("GET", path, None, {"stdout": True, "stderr": True, "tail": tail})
        except DockerUnavailable as error:
            return f"(no logs: {error})"
        if status >= http.client.BAD_REQUEST:
            return f"(no logs: {_error_message(body)})"
        if "multiplexed" in content_type or body[:4] in (b"\1\0\0\0", b"\2\0\0\0"):
            body = b"".join(data for _number, data in demultiplex(io.BytesIO(body)))
        return body.decode("utf-8", "replace").rstrip()

    def _json(self, method: str, path: str, body: Any, query: dict[str, Any]) -> Any:
        status, _content_type, answer = self._request(method, path, body, query)
        if status >= http.client.BAD_REQUEST:
            raise DockerError(status, _error_message(answer))
        return json.loads(answer) if answer.strip() else None

    def _request(self, method: str, path: str, body: Any, query: dict[str, Any]) -> tuple[int, str, bytes]:
        """Send one request.

        Reading uses the kept connection, and a new one when the daemon had closed it meanwhile. Everything else gets a new
        connection, so that it never has to be guessed whether a request that got no answer was carried out.
        """
        url = self._versioned(path) + _query_string(query)
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if payload is not None else {}
        if method != "GET":
            self.close()
        while True:
            kept = self._connection
            connection = self._connection = kept or _UnixConnection(self.socket_path, self.timeout)
            try:
                connection.request(method, url, payload, headers)
                response = connection.getresponse()
                return response.status, response.getheader("Content-Type") or "", response.read()
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if kept is None or isinstance(error, TimeoutError):
                    raise DockerUnavailable(f"no answer from {self.socket_path} to {method} {path}: {error}") from error

    def _versioned(self, path: str) -> str:
        """Put the API version in front of a path, asking the daemon once which it speaks."""
        if path == "/_ping":
            return path
        if self._prefix is None:
            self._prefix = ""
            connection = _UnixConnection(self.socket_path, self.timeout)
            try:
                connection.request("GET", "/_ping")
                response = connection.getresponse()
                response.read()
                offered = response.getheader("Api-Version")
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                self._prefix = None
                raise DockerUnavailable(f"no answer from {self.socket_path}: {error}") from error
            self._connection = connection
            if offered:
                version = min(NEWEST_API, tuple(int(part) for part in offered.split(".")[:2]))
                self._prefix = f"/v{version[0]}.{version[1]}"
        return self._prefix + path

    def _attach(self, path: str, body: Any, stdin: bytes | None) -> Iterator[tuple[int, bytes]]:
        """POST a request that turns its connection into a raw stream, write stdin, yield the output frames."""
        url = self._versioned(path)
        payload = json.dumps(body).encode()
        head = (
            f"POST {url} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        with contextlib.closing(_connect(self.socket_path, self.timeout)) as sock, sock.makefile("rb") as stream:
            try:
                sock.sendall(head.encode() + payload)
                status = int(stream.readline().split()[1])
                headers = http.client.parse_headers(stream)
                if status >= http.client.BAD_REQUEST:
                    raise DockerError(status, _error_message(stream.read(int(headers.get("Content-Length", "0")))))
                if stdin is not None:
                    # A command that ends without reading its input closes the pipe; its exit code tells the story.
                    with contextlib.suppress(BrokenPipeError):
                        sock.sendall(stdin)
                        sock.shutdown(socket.SHUT_WR)
                yield from demultiplex(stream)
            except (http.client.HTTPException, OSError, IndexError, ValueError) as error:
                raise DockerUnavailable(f"no answer from {self.socket_path} to POST {path}: {error}") from error
