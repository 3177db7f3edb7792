"""A model's header can be read where the model lies: no more than the header moves."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from localspec.errors import ModelError, UserError
from localspec.model.gguf import read_header
from localspec.model.remote import LARGEST_READ_BYTES, HttpSource, read_remote
from localspec.model.synthetic import Shape, write_random_model

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def ranges(request: BaseHTTPRequestHandler, body: bytes) -> None:
    first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
    piece = body[int(first) : int(last) + 1]
    if not piece:
        request.send_error(416)
        return
    request.send_response(206)
    end = int(first) + len(piece) - 1
    request.send_header("Content-Range", f"bytes {first}-{end}/{len(body)}")
    request.send_header("Content-Length", str(len(piece)))
    request.end_headers()
    request.wfile.write(piece)


class Server:
    """Files by path, how they are answered, and what was asked."""

    def __init__(self, answer: Answer = ranges) -> None:
        self.files: dict[str, bytes] = {}
        self.answer = answer
        self.seen: list[tuple[str, str | None]] = []
        self.address = ""

    @contextmanager
    def running(self) -> Generator["Server"]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers.get("Authorization")))
                if self.path not in outer.files:
                    self.send_error(404)
                    return
                outer.answer(self, outer.files[self.path])

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def server() -> Generator[Server]:
    with Server().running() as running:
        yield running


def model_bytes(tmp_path: Path) -> bytes:
    path = tmp_path / "model.gguf"
    write_random_model(path, Shape(n_layers=8, n_embd=512, n_ff=1024), with_text=True)
    return path.read_bytes()


def test_the_remote_header_is_the_local_one_and_little_else_moves(
    server: Server, tmp_path: Path
) -> None:
    server.files["/a/model.gguf"] = model_bytes(tmp_path)
    source = HttpSource.of(f"{server.address}/a/model.gguf")
    remote = read_remote(f"{server.address}/a/model.gguf")
    local = read_header(tmp_path / "model.gguf")
    assert (remote.metadata, remote.tensors) == (local.metadata, local.tensors)
    source.read(0, 1 << 30)
    assert source.n_bytes_fetched <= LARGEST_READ_BYTES < len(server.files["/a/model.gguf"])
    assert len(server.seen) == 2  # one range was enough for the header


def test_the_packaged_model_at_a_distance(server: Server, gguf_smollm2: Path) -> None:
    server.files["/m.gguf"] = gguf_smollm2.read_bytes()
    assert read_remote(f"{server.address}/m.gguf").tensors == read_header(gguf_smollm2).tensors
    assert len(server.seen) * LARGEST_READ_BYTES < gguf_smollm2.stat().st_size / 5


def test_a_model_on_the_hub_is_asked_with_the_token_and_the_cdn_without(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdn = Server()
    with cdn.running():
        cdn.files["/blob"] = model_bytes(tmp_path)
        elsewhere = cdn.address.replace("127.0.0.1", "localhost")

        def redirect(request: BaseHTTPRequestHandler, _: bytes) -> None:
            request.send_response(302)
            request.send_header("Location", f"{elsewhere}/blob")
            request.send_header("Content-Length", "0")
            request.end_headers()

        server.answer = redirect
        server.files["/owner/repo/resolve/v2/sub/model.gguf"] = b""
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        header = read_remote("hf:owner/repo/sub/model.gguf@v2")
    assert header.tensors == read_header(tmp_path / "model.gguf").tensors
    asked = [token for path, token in server.seen if "resolve" in path]
    assert asked == ["Bearer hf_secret"]
    assert [token for _, token in cdn.seen] == [None]


def whole_file(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(1 << 40))
    request.end_headers()
    request.wfile.write(body)


def cut_short(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(206)
    request.send_header("Content-Range", f"bytes 0-9999/{len(body)}")
    request.send_header("Content-Length", "10000")
    request.end_headers()
    request.wfile.write(body[:50])
    request.close_connection = True


def another_part(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(206)
    request.send_header("Content-Range", f"bytes 7-16/{len(body)}")
    request.send_header("Content-Length", "10")
    request.end_headers()
    request.wfile.write(body[7:17])


def refused(code: int) -> Answer:
    return lambda request, _: request.send_error(code)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (whole_file, "whole files only"),
        (cut_short, "try again later"),
        (another_part, "another part"),
        (refused(401), "HF_TOKEN"),
        (refused(403), "licence"),
        (refused(404), "does not exist"),
        (refused(503), "refused (503)"),
    ],
)
def test_what_a_server_may_do_wrong_is_one_sentence(
    server: Server, tmp_path: Path, answer: Answer, sentence: str
) -> None:
    server.files["/m.gguf"] = model_bytes(tmp_path)
    server.answer = answer
    with pytest.raises(ModelError) as caught:
        read_remote(f"{server.address}/m.gguf")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_there(server: Server) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_remote("http://127.0.0.1:9/model.gguf")


def test_a_file_that_is_cut_or_is_none(server: Server, tmp_path: Path) -> None:
    server.files["/cut.gguf"] = model_bytes(tmp_path)[:5000]
    server.files["/page.gguf"] = b"<!doctype html>" * 100
    server.files["/huge.gguf"] = b"GGUF\x03\0\0\0" + b"\xff" * 4000
    for name in ("cut", "page", "huge"):
        with pytest.raises(ModelError):
            read_remote(f"{server.address}/{name}.gguf")


def test_parts_of_a_split_model_are_found_beside_it(server: Server) -> None:
    source = HttpSource.of(f"{server.address}/x/m-00001-of-00002.gguf?download=true")
    assert source.name.endswith("/x/m-00001-of-00002.gguf")
    server.files["/x/m-00002-of-00002.gguf?download=true"] = b"second"
    assert source.sibling("m-00002-of-00002.gguf").read(0, 100) == b"second"


@pytest.mark.parametrize("reference", ["hf:owner", "hf:a/b", "ftp://host/file", "http://"])
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(UserError):
        HttpSource.of(reference)
