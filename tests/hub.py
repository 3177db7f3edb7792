"""A hub on this machine: it speaks the Hugging Face hub's protocol, and misbehaves when told to.

`/owner/repo/resolve/REVISION/FILE` answers a redirect to the storage on another host with the
file's size, hash and commit in headers; `/api/models/owner/repo` lists files. What goes over the
wire is counted. Source: what huggingface_hub 2.4 asks for and reads.
"""

import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from web import serving

CHUNK = 64 << 10
Fault = Callable[["Handler"], bool]
"""Answers a request in its own way and returns True, or leaves it."""


@dataclass
class Ask:
    """One request: what was asked, and what went out."""

    method: str
    path: str
    begin: int | None
    token: str | None
    n_sent: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)


@dataclass
class Hub:
    """Repositories by `owner/repo`, each with files by name; what was asked, in order."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)
    address: str = ""
    storage: str = ""
    pace_bytes_per_s: float | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    gated: dict[str, str] = field(default_factory=dict)
    """Repositories that want a token, and which."""
    hides_ranges: bool = False
    xet: bool = False
    plain: bool = False
    """Files are small: the hub sends them itself and names them by git's hash."""
    path: str = ""
    """Before each address but those of the storage: the hub is a mirror with a path."""
    tls: ssl.SSLContext | None = None

    def add(self, repository: str, file: str, data: bytes) -> bytes:
        self.repositories.setdefault(repository, {})[file] = data
        return data

    def commit(self, repository: str) -> str:
        """Changes with every file."""
        files = self.repositories[repository]
        text = "".join(f"{name}{_sha256(files[name])}" for name in sorted(files))
        return hashlib.sha1(text.encode()).hexdigest()

    @property
    def n_stored_sent(self) -> int:
        """Bytes of files that were sent. A client may have the last of them before they count here,
        so what is still being answered is waited for."""
        stored = [ask for ask in self.asked if ask.path.startswith("/storage/")]
        for ask in stored:
            assert ask.is_over.wait(timeout=30), f"still answering {ask.path}"
        return sum(ask.n_sent for ask in stored)

    @property
    def begins(self) -> list[int]:
        """Where each request for a file's bytes began."""
        stored = (ask for ask in self.asked if ask.path.startswith("/storage/"))
        return [ask.begin or 0 for ask in stored]

    def environment(self, home: Path) -> dict[str, str]:
        """What a command needs to use this hub and nothing else."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "",
            "HF_HUB_DOWNLOAD_TIMEOUT": "2",
            "HF_HUB_ETAG_TIMEOUT": "5",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    @contextmanager
    def running(self) -> Generator["Hub"]:
        handler = type("OneHandler", (Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.handle_error = lambda request, client: None  # clients are killed here
        if self.tls:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        scheme = "https" if self.tls else "http"
        self.address = f"{scheme}://127.0.0.1:{server.server_port}"
        self.storage = f"{scheme}://localhost:{server.server_port}"
        with serving(server):
            yield self


_HASHES: dict[int, tuple[bytes, str]] = {}


def _sha256(data: bytes) -> str:
    """Of the same bytes only once: they are large here."""
    if id(data) not in _HASHES:
        _HASHES[id(data)] = data, hashlib.sha256(data).hexdigest()
    return _HASHES[id(data)][1]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    ask: Ask

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def log_message(self, *_: object) -> None:
        pass

    @property
    def is_storage(self) -> bool:
        return self.command == "GET" and self.path.startswith("/storage/")

    def _handle(self) -> None:
        span = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        token = self.headers.get("Authorization")
        self.ask = Ask(self.command, self.path, int(span) if span else None, token)
        self.hub.asked.append(self.ask)
        try:
            with suppress(ConnectionError):
                self._answer()
        finally:
            self.ask.is_over.set()

    def _answer(self) -> None:
        if any(fault(self) for fault in list(self.hub.faults)):
            return
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        if not path.startswith("/storage/"):
            if not path.startswith(f"{self.hub.path}/"):
                self.refuse(404)
                return
            path = path.removeprefix(self.hub.path)
        if path.startswith("/storage/"):
            self._storage(path.removeprefix("/storage/"))
        elif path.startswith("/api/models/"):
            self._list(path.removeprefix("/api/models/"), parse_qs(parts.query))
        else:
            self._resolve(path.strip("/"))

    def refuse(self, status: int, code: str = "", **headers: str) -> None:
        """An error as the hub words it."""
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_part(self, n_bytes: int) -> None:
        """The beginning of what was asked of the only file; the connection stays open."""
        (files,) = self.hub.repositories.values()
        (data,) = files.values()
        begin = self.ask.begin or 0
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.send_bytes(data, begin, min(begin + n_bytes, len(data)))

    def send_json(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _is_open(self, repository: str) -> bool:
        wanted = self.hub.gated.get(repository)
        if repository not in self.hub.repositories:
            self.refuse(401, "RepoNotFound")
        elif wanted and self.ask.token is None:
            self.refuse(401, "GatedRepo")
        elif wanted and self.ask.token != f"Bearer {wanted}":
            self.refuse(403, "GatedRepo")
        else:
            return True
        return False

    def _list(self, path: str, query: dict[str, list[str]]) -> None:
        path, _, shown = path.partition("/tree/")
        repository, _, revision = path.partition("/revision/")
        revision = shown or revision
        if repository in self.hub.renamed:
            new = self.path.replace(repository, self.hub.renamed[repository])
            self.refuse(307, Location=new)
            return
        if not self._is_open(repository):
            return
        if revision not in ("", "main", self.hub.commit(repository)):
            self.refuse(404, "RevisionNotFound")
            return
        if shown:
            files = self.hub.repositories[repository].items()
            self.send_json(
                [{"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in files]
            )
            return
        siblings: list[dict[str, object]] = []
        for name, data in self.hub.repositories[repository].items():
            siblings.append({"rfilename": name})
            if "blobs" in query:
                lfs = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
                siblings[-1] |= {"size": len(data), "blobId": "0" * 40, "lfs": lfs}
        self.send_json({"id": repository, "sha": self.hub.commit(repository), "siblings": siblings})

    def _resolve(self, path: str) -> None:
        owner, repo, verb, revision, file = [*path.split("/", 4), "", "", "", "", ""][:5]
        repository = f"{owner}/{repo}"
        if repository in self.hub.renamed:
            new = self.path.replace(repository, self.hub.renamed[repository])
            self.refuse(307, Location=new)
            return
        if verb != "resolve" or not self._is_open(repository):
            if verb != "resolve":
                self.refuse(404)
            return
        commit, files = self.hub.commit(repository), self.hub.repositories[repository]
        if revision not in ("main", commit):
            self.refuse(404, "RevisionNotFound")
        elif file not in files:
            self.refuse(404, "EntryNotFound", X_Repo_Commit=commit)
        else:
            self._redirect(repository, file, commit)

    def _redirect(self, repository: str, file: str, commit: str) -> None:
        data = self.hub.repositories[repository][file]
        if self.hub.plain:
            name = hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()
            self._send(data, {"X-Repo-Commit": commit, "ETag": f'"{name}"'})
            return
        self.send_response(302)
        self.send_header("Location", f"{self.hub.storage}/storage/{repository}/{file}?sig=1")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Etag", f'"{_sha256(data)}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        if self.hub.xet:
            self.send_header("X-Xet-Hash", "ab" * 32)
            self.send_header("X-Xet-Refresh-Route", f"{self.hub.address}/api/xet")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _storage(self, path: str) -> None:
        owner, repo, file = path.split("/", 2)
        data = self.hub.repositories[f"{owner}/{repo}"][file]
        self._send(data, {"ETag": f'"{_sha256(data)}"'})

    def _send(self, data: bytes, headers: dict[str, str]) -> None:
        begin, end = 0, len(data)
        if self.ask.begin is None or self.hub.hides_ranges:
            self.send_response(200)
        else:
            last = self.headers["Range"].partition("-")[2]
            begin, end = self.ask.begin, min(int(last) + 1 if last else end, end)
            if begin >= len(data):
                self.refuse(416, Content_Range=f"bytes */{len(data)}")
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - begin))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_bytes(data, begin, end)

    def send_bytes(self, data: bytes, begin: int, end: int) -> None:
        """Counted, and no faster than the hub's pace."""
        started = time.monotonic()
        for at in range(begin, end, CHUNK):
            piece = memoryview(data)[at : min(at + CHUNK, end)]
            self.wfile.write(piece)
            self.ask.n_sent += len(piece)
            if self.hub.pace_bytes_per_s:
                ahead = self.ask.n_sent / self.hub.pace_bytes_per_s
                time.sleep(max(0.0, started + ahead - time.monotonic()))
