"""Proxies on this machine (HTTP, by TLS, SOCKS 5) and certificates for them, made by openssl.

Sources: RFC 9110, section 9.3.6 (CONNECT); RFC 1928 (SOCKS 5).
"""

import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest


@dataclass
class Proxy:
    """Relays connections; `asked` has the hosts and ports that were wanted."""

    kind: str = "http"
    refusal: str = ""
    """The status line of an answer to all, such as `407 Proxy Authentication Required`."""
    tls: ssl.SSLContext | None = None
    asked: list[str] = field(default_factory=list)
    address: str = ""

    @contextmanager
    def running(self) -> Generator["Proxy"]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            scheme = "https" if self.tls else "socks5" if self.kind == "socks" else "http"
            self.address = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
            yield self
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with suppress(OSError), self._opened(client) as opened:
            (self._socks if self.kind == "socks" else self._http)(opened)

    def _opened(self, client: socket.socket) -> socket.socket:
        if self.tls is None:
            return client
        with client:  # which is empty once it is wrapped
            return self.tls.wrap_socket(client, server_side=True)

    def _http(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (piece := client.recv(65_536)):
            head += piece
        method, target, _ = head.split(b" ", 2)
        parts = urlsplit(target.decode() if method != b"CONNECT" else f"//{target.decode()}")
        self.asked.append(f"{method.decode()} {parts.netloc}")
        if self.refusal:
            client.sendall(f"HTTP/1.1 {self.refusal}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        with socket.create_connection((parts.hostname, parts.port or 80)) as server:
            if method == b"CONNECT":
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = f"{parts.path}{'?' if parts.query else ''}{parts.query}"
                head = head.replace(target, path.encode(), 1)
                server.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            _relay(client, server)

    def _socks(self, client: socket.socket) -> None:
        client.recv(client.recv(2)[1])
        client.sendall(b"\x05\x00")
        kind = client.recv(4)[3]
        if kind == 3:
            host = client.recv(client.recv(1)[0]).decode()
        else:
            host = socket.inet_ntoa(client.recv(4))
        (port,) = struct.unpack(">H", client.recv(2))
        self.asked.append(f"SOCKS {host}:{port}")
        with socket.create_connection((host, port)) as server:
            client.sendall(b"\x05\x00\x00\x01" + bytes(6))
            _relay(client, server)


def _relay(one: socket.socket, other: socket.socket) -> None:
    while True:
        waiting = isinstance(one, ssl.SSLSocket) and one.pending()
        ready = [one] if waiting else select.select([one, other], [], [], 10)[0]
        for source in ready:
            data = source.recv(65_536)
            if not data:
                return
            (other if source is one else one).sendall(data)
        if not ready:
            return


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of one's own and a server's certificate for localhost."""

    certificates: Path
    server: ssl.SSLContext


def authority(folder: Path) -> Authority:
    """Made anew; skips the test where openssl is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates of these tests, and it is not installed")
    ca, key, cert = (folder / name for name in ("ca.pem", "key.pem", "cert.pem"))
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    commands = (
        f"req -x509 {curve} -keyout {folder}/ca.key -out {ca} -days 2 -subj /CN=Test",
        f"req {curve} -keyout {key} -out {folder}/csr -subj /CN=localhost",
        f"x509 -req -in {folder}/csr -CA {ca} -CAkey {folder}/ca.key -CAcreateserial -out {cert}"
        f" -days 2 -extfile {extensions}",
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return Authority(ca, context)
