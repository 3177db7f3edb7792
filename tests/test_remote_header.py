"""A model's header can be read where the model lies: no more than the header moves."""

import os
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Generator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from babbling import write_babbling_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web import Answer, Server, ranges

from localspec.errors import ModelError, UserError
from localspec.gguf import remote
from localspec.gguf.cursor import MAX_HEADER_BYTES, SMALLEST_PIECE_BYTES, ValueType
from localspec.gguf.reader import part_names, read_header, read_source
from localspec.gguf.remote import LARGEST_READ_BYTES, HttpSource, place_of, read_remote
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, Typed, write_gguf
from localspec.model.synthetic import Shape

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server() -> Generator[Server]:
    with Server().running() as running:
        yield running


def model_bytes(tmp_path: Path) -> bytes:
    path = tmp_path / "model.gguf"
    write_babbling_model(path, Shape(n_layers=8, n_embd=512, n_ff=1024))
    return path.read_bytes()


# --- what it is for ----------------------------------------------------------------------------


def test_the_remote_header_is_the_local_one_and_little_else_moves(
    server: Server, tmp_path: Path
) -> None:
    server.files["/a/model.gguf"] = model_bytes(tmp_path)
    remote = read_remote(f"{server.address}/a/model.gguf")
    local = read_header(tmp_path / "model.gguf")
    assert (remote.metadata, remote.tensors) == (local.metadata, local.tensors)
    assert remote.parts[0].size_bytes == local.parts[0].size_bytes
    assert len(server.seen) == 1  # one range was enough for the header
    source = HttpSource.of(f"{server.address}/a/model.gguf")
    source.read(0, 1 << 30)
    assert source.n_bytes_fetched <= LARGEST_READ_BYTES < len(server.files["/a/model.gguf"])


@pytest.mark.slow
def test_the_packaged_models_at_a_distance(
    server: Server, gguf_smollm2: Path, gguf_gemma: Path
) -> None:
    """Nobody waits for gigabytes to see a prediction: the header, and not one page more."""
    for path in (gguf_smollm2, gguf_gemma):
        server.files["/m.gguf"] = path.read_bytes()
        source, local = HttpSource.of(f"{server.address}/m.gguf"), read_header(path)
        header = read_source(source)
        assert (header.tensors, header.metadata) == (local.tensors, local.metadata)
        n_header = local.parts[0].data_offset_bytes
        assert n_header <= source.n_bytes_fetched <= n_header + SMALLEST_PIECE_BYTES
        assert len(server.seen) <= 24
        server.seen.clear()


def to(address: str) -> Answer:
    def redirect(request: BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(302)
        request.send_header("Location", address)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return redirect


def test_a_model_on_the_hub_is_asked_with_the_token_and_the_cdn_without(
    server: Server, gguf_smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is asked once: every later range comes from where the first one did."""
    cdn = Server()
    with cdn.running():
        cdn.files["/blob"] = gguf_smollm2.read_bytes()
        server.answer = to(cdn.address.replace("127.0.0.1", "localhost") + "/blob")
        server.files["/owner/repo/resolve/v2/sub/model.gguf"] = b""
        use_hub(server, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        header = read_remote("hf:owner/repo/sub/model.gguf@v2")
    assert header.tensors == read_header(gguf_smollm2).tensors
    assert asked_of(server) == [("/owner/repo/resolve/v2/sub/model.gguf", "Bearer hf_secret")]
    assert len(cdn.seen) > 1
    assert {token for _, token in cdn.seen} == {None}


def test_a_redirect_on_the_same_host_keeps_the_token(
    server: Server, gguf_smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private model in a renamed repository can be read past its first range."""

    def renamed(request: BaseHTTPRequestHandler, body: bytes) -> None:
        (ranges if body else to("/new/repo/resolve/main/m.gguf"))(request, body)

    server.answer = renamed
    server.files["/old/repo/resolve/main/m.gguf"] = b""
    server.files["/new/repo/resolve/main/m.gguf"] = gguf_smollm2.read_bytes()
    use_hub(server, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    read_remote("hf:old/repo/m.gguf")
    assert len(asked_of(server)) > 2
    assert {token for _, token in asked_of(server)} == {"Bearer hf_secret"}


def asked_of(hub: Server) -> list[tuple[str, str | None]]:
    """Files that were asked for; the hub's library has questions of its own."""
    return [(path, token) for path, token in hub.seen if "/resolve/" in path]


def use_hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does for a program that starts."""
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


CHILD = """
import sys
from localspec.errors import ModelError
from localspec.gguf.remote import read_remote
assert "huggingface_hub" not in sys.modules, "slow to import"
try:
    print(len(read_remote(sys.argv[1]).tensors))
except ModelError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "extra", "said"),
    [
        ("hf:owner/repo/m.gguf", {}, "74"),
        ("{address}/owner/repo/blob/main/m.gguf?show=1", {}, "74"),
        ("hf:owner/repo/other.gguf", {}, "hf:owner/repo/other.gguf does not exist"),
        ("hf:owner/repo/m.gguf", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set: unset it"),
    ],
)
def test_the_variables_of_the_hub_are_heeded(
    server: Server, tmp_path: Path, reference: str, extra: dict[str, str], said: str
) -> None:
    server.files["/owner/repo/resolve/main/m.gguf"] = model_bytes(tmp_path)
    own = {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path)}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, reference.format(address=server.address)],
        cwd=ROOT, env=os.environ | own | extra, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said in child.stdout
    assert "secret" not in child.stdout
    assert {token for _, token in asked_of(server)} <= {"Bearer hf_secret"}


def split_model(folder: Path) -> list[str]:
    names = part_names("a model-00001-of-00003.gguf", 3) or []
    for part, name in enumerate(names):
        values = {
            "split.no": Typed(ValueType.UINT16, part),
            "split.count": Typed(ValueType.UINT16, 3),
            "split.tensors.count": Typed(ValueType.INT32, 3),
        }
        tensor = TensorPlan(f"t{part}", BY_NAME["F32"], (8,), lambda: [bytes(32)])
        write_gguf(folder / name, values, [tensor])
    return names


def test_a_split_model_is_one_from_the_hub_and_from_any_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(server, monkeypatch)
    local = read_header(tmp_path / split_model(tmp_path)[0])
    for name in (part.name.rpartition("/")[2] for part in local.parts):
        quoted, content = name.replace(" ", "%20"), (tmp_path / name).read_bytes()
        server.files[f"/o/r/resolve/v1/q4/{quoted}"] = content
        server.files[f"/x/{quoted}?download=true"] = content
    second = "a model-00002-of-00003.gguf"
    web = f"{server.address}/x/{second.replace(' ', '%20')}?download=true"
    for reference in (f"hf:o/r/q4/{second}@v1", web):
        header = read_remote(reference)
        assert [tensor.name for tensor in header.tensors] == ["t0", "t1", "t2"]
        assert [part.size_bytes for part in header.parts] == [p.size_bytes for p in local.parts]
    del server.files["/o/r/resolve/v1/q4/a%20model-00003-of-00003.gguf"]
    with pytest.raises(ModelError, match=r"00003-of-00003\.gguf does not exist"):
        read_remote(f"hf:o/r/q4/{second}@v1")


# --- what goes wrong ---------------------------------------------------------------------------


def answered(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        with suppress(OSError):  # whoever asked has heard enough
            request.wfile.write(body)

    return answer


def hub_error(status: int, code: str) -> Answer:
    return answered(status, X_Error_Code=code)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (answered(200, bytes(9), Content_Length=str(1 << 40)), "whole files only"),
        (answered(200, b"<html>", Content_Type="text/html; charset=utf-8"), "is a web page"),
        (answered(206, bytes(50), Content_Range="bytes 0-99/900"), "50 bytes where 100 were"),
        (
            answered(206, bytes(50), Content_Range="bytes 0-99/900", Content_Length="100"),
            "try again later",
        ),
        (answered(206, bytes(50), Content_Range="bytes 0-9/900"), "more where 10 were"),
        (answered(206, bytes(10), Content_Range="bytes 7-16/900"), "another part"),
        (answered(206, bytes(10), Content_Range="bytes 0-16000000/16000001"), "another part"),
        (answered(206, bytes(10), Content_Range=f"bytes 0-{'9' * 5000}/9"), "another part"),
        (answered(206, bytes(10), Content_Range="bytes 0-²/9"), "another part"),
        (answered(206, bytes(10)), "another part"),
        (answered(206, bytes(10), Content_Encoding="gzip"), "compressed"),
        (answered(302, Location="ftp://127.0.0.1/m.gguf"), "cannot be read"),
        (answered(302, Location="http://127.0.0.1:99999/m.gguf"), "cannot be read"),
        (answered(302, Location="/m.gguf"), "cannot be read"),  # for ever
        (answered(401), "HF_TOKEN"),
        (answered(403), "licence"),
        (answered(404), "does not exist: check the name"),
        (answered(429), "too many requests"),
        (answered(503), "refused by its server (503)"),
        (hub_error(401, "RepoNotFound"), "does not exist or is private"),
        (hub_error(401, "GatedRepo"), "accept its licence"),
        (hub_error(404, "EntryNotFound"), "check the file's name"),
        (hub_error(404, "RevisionNotFound"), "after @"),
    ],
)
def test_what_a_server_may_do_wrong_is_one_sentence(
    server: Server, answer: Answer, sentence: str
) -> None:
    server.files["/m.gguf"], server.answer = b"", answer
    assert sentence in said(f"{server.address}/m.gguf")


def said(reference: str) -> str:
    """Why a remote file is refused: a sentence that names it, soon and in little memory."""
    tracemalloc.start()
    start_s = time.monotonic()
    try:
        with pytest.raises(ModelError) as caught:
            read_remote(reference)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start_s < 5
    assert peak_bytes < 16 << 20
    sentence = str(caught.value)
    assert sentence.startswith(reference)
    assert "\n" not in sentence
    assert len(sentence) < 600
    return sentence


def test_a_server_that_trickles_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then never is silence: without a limit, a command would hang for hours."""
    monkeypatch.setattr(remote, "SLOWEST_READ_S", 0.2)

    def trickle(request: BaseHTTPRequestHandler, _: bytes) -> None:
        answered(206, Content_Range="bytes 0-9999/90000", Content_Length="10000")(request, b"")
        with suppress(OSError):
            for _ in range(100):
                request.wfile.write(b"x")
                time.sleep(0.02)

    server.files["/m.gguf"], server.answer = b"", trickle
    assert "bytes/s" in said(f"{server.address}/m.gguf")


def test_silence_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE_S", 0.1)
    server.files["/m.gguf"], server.answer = b"", lambda *_: time.sleep(0.4)
    assert "timed out" in said(f"{server.address}/m.gguf")


def test_a_file_that_is_replaced_meanwhile_is_no_mixture(server: Server) -> None:
    server.files["/m.gguf"] = bytes(5000)
    source = HttpSource.of(f"{server.address}/m.gguf")
    source.read(0, 1000)
    server.files["/m.gguf"] = bytes(6000)
    with pytest.raises(ModelError, match="changed while it was read"):
        source.read(1000, 1000)


def test_nobody_there() -> None:
    assert "cannot be read" in said("http://127.0.0.1:9/model.gguf")


def key(kind: int, body: bytes) -> bytes:
    return struct.pack("<QI", 3, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", kind) + body


HOSTILE = {
    "empty": (b"", "is empty"),
    "a page": (b"<!doctype html>" * 100, "is not a GGUF file"),
    "old": (struct.pack("<IQQ", 1, 0, 0), "of version 1"),
    "big-endian": (struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "2^60 tensors": (struct.pack("<IQQ", 3, 1 << 60, 0), "claims"),
    "cut": (struct.pack("<IQQ", 3, 5, 5), "ends inside"),
    "a string of 2^60": (
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
        + struct.pack("<IQ", 8, 1 << 60) + bytes(100), "2^",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("claimed_bytes", [None, 1 << 62])
def test_hostile_files_are_refused_in_little_memory(
    server: Server, case: str, claimed_bytes: int | None
) -> None:
    """Also where the server claims that the file is large enough for what its header claims."""
    body, words = HOSTILE[case]
    whole = body if case in ("empty", "a page") else b"GGUF" + body

    def answer(request: BaseHTTPRequestHandler, content: bytes) -> None:
        first = int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
        piece = content[first:]
        span = f"bytes {first}-{first + len(piece) - 1}/{claimed_bytes or len(content)}"
        (answered(206, piece, Content_Range=span) if piece else answered(416))(request, b"")

    server.files["/m.gguf"], server.answer = whole, answer
    sentence = said(f"{server.address}/m.gguf")
    mib = f"more than {MAX_HEADER_BYTES >> 20} MiB"
    wanted = (mib if claimed_bytes else "ends inside") if words == "2^" else words
    assert wanted in sentence


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bytes_at_a_distance(server: Server, data: st.DataObject, flipped: bytes) -> None:
    content = bytearray(flipped)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    server.files["/m.gguf"] = bytes(content)
    with suppress(ModelError):  # anything else fails the test
        read_remote(f"{server.address}/m.gguf")


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("flipped") / "m.gguf"
    write_babbling_model(path, Shape(n_layers=1, n_embd=64, n_ff=64, n_vocab=300))
    return path.read_bytes()


# --- references --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        "hf:", "hf:owner", "hf:a/b", "hf:a/b/", "hf:/a/b/c.gguf", "hf:a//c.gguf", "hf:a/b/../c",
        "hf:a b/c/d.gguf", "ftp://host/file", "http://", "http://host", "http://host/a/", "m.gguf",
        "http://[::1/m.gguf", "http://host:port/m.gguf", "http://host:99999/m.gguf", "",
    ],
)  # fmt: skip
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(UserError) as caught:
        place_of(reference)
    assert "\n" not in str(caught.value)


@given(st.sampled_from(["hf:", "http://", "https://", "hf:a/b/", "http://h/"]), st.text())
def test_any_text_is_a_place_or_an_error(start: str, rest: str) -> None:
    with suppress(UserError):
        place_of(start + rest)


@pytest.mark.parametrize("path", ["a b.gguf", "ä%zz.gguf", "x\x7f.gguf", "%00.gguf", "?.gguf/.."])
def test_odd_addresses_are_sentences(server: Server, path: str) -> None:
    with pytest.raises((ModelError, UserError)):
        read_remote(f"{server.address}/{path}")


def test_a_login_in_an_address_is_used_and_not_shown(server: Server, tmp_path: Path) -> None:
    server.files["/m.gguf?key=hidden"] = model_bytes(tmp_path)
    address = server.address.replace("//", "//me:hidden@") + "/m.gguf?key=hidden"
    source = HttpSource.of(address)
    source.read(0, 10)
    source.read(10, 10)
    assert all(token and token.startswith("Basic ") for _, token in server.seen)
    assert source.name == f"{server.address}/m.gguf"
    assert "hidden" not in repr(place_of(address))
