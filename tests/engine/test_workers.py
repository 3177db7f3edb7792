"""Other machines' devices, on loopback: the same numbers, and a lost one loses nothing.

A worker is a device of type GPU with the processor's exact logits, so these tests are also those of
placing layers, for machines without a GPU.
"""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ANSWER, LOCALSPEC, clean_environment, localspec
from models import smollm2
from working import Running, free_port

from localspec.engine.backends import reply_s
from localspec.engine.base import EngineConfig, hold, rows_of
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.process import EngineProcess
from localspec.engine.workers import Worker, check_types, devices_of
from localspec.errors import EngineError, UserError
from localspec.hardware.machine import Reported
from localspec.model.synthetic import Shape, write_random_model

SHAPE = Shape(n_layers=12, n_embd=128, n_heads=4, n_kv_heads=2, n_ff=256, n_vocab=512)
TOKENS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38]


@pytest.fixture(scope="session")
def workers() -> Iterator[list[str]]:
    """Two of them."""
    running = [Running(free_port()) for _ in range(2)]
    yield [each.address for each in running]
    for each in running:
        each.kill()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "random.gguf"
    write_random_model(path, SHAPE, "Q8_0")
    return path


def config_of(model: Path, **settings: Any) -> EngineConfig:
    chosen = {"ctx": 512, "threads": 1, "n_outputs": 4, "repack": False, **settings}
    return EngineConfig.of(model, **chosen)


@contextmanager
def loaded(config: EngineConfig) -> Iterator[EngineProcess]:
    engine = EngineProcess(config, Interrupt())
    try:
        yield engine
    finally:
        engine.close()


def logits_of(engine: Any) -> np.ndarray:
    """After a prompt, single tokens, a rollback and another token."""
    context = engine.context()
    rows = [context.eval(TOKENS[:6], 2).row(i).copy() for i in range(2)]
    rows += [context.eval([token], 1).row(0).copy() for token in TOKENS[6:]]
    context.truncate(7)
    rows.append(context.eval([5], 1).row(0).copy())
    return np.stack(rows)


@pytest.mark.parametrize("n_layers", [0, 1, 10, -1])
def test_layers_elsewhere_give_the_same_numbers(
    model: Path, workers: list[str], n_layers: int
) -> None:
    here = LlamaEngine(config_of(model, gpu_layers=0))
    expected = logits_of(here)
    here.close()
    for used in (workers[:1], workers):
        with loaded(config_of(model, gpu_layers=n_layers, workers=used)) as engine:
            assert np.array_equal(logits_of(engine), expected)


@pytest.mark.parametrize("n_layers", [0, 1, 10, -1])
def test_a_saved_state_of_layers_elsewhere_is_held_again(
    model: Path, workers: list[str], tmp_path: Path, n_layers: int
) -> None:
    with loaded(config_of(model, workers=workers, gpu_layers=n_layers)) as engine:
        context = engine.context()
        context.eval(TOKENS, 1)
        context.save(tmp_path / "state")
        expected = context.eval([7], 1).row(0).copy()
        context.clear()
        assert context.restore(tmp_path / "state")
        assert context.tokens == TOKENS
        assert np.array_equal(context.eval([7], 1).row(0), expected)
        assert context.state_bytes > 0


def test_a_request_that_does_not_fit_ends_alone(model: Path, workers: list[str]) -> None:
    with loaded(config_of(model, ctx=256, n_sequences=2, workers=workers[:1])) as engine:
        small, large = engine.context(), engine.context()
        fits, refused = engine.decode([(small, TOKENS, 1), (large, [1] * 300, 1)])
        assert rows_of(fits).row(0).shape == (SHAPE.n_vocab,)
        with pytest.raises(EngineError, match="do not fit"):
            rows_of(refused)
        assert (small.tokens, large.tokens) == (TOKENS, [])


def test_a_stop_is_seen_and_the_context_goes_on(model: Path, workers: list[str]) -> None:
    with loaded(config_of(model, ctx=512, ubatch=32, workers=workers[:1])) as engine:
        context = engine.context()
        engine.interrupt.request()
        with pytest.raises(Interrupted):
            context.eval([1] * 500, 0)
        engine.interrupt.requested = False
        assert len(context.tokens) < 500
        assert hold(context, TOKENS, 1).row(0).shape == (SHAPE.n_vocab,)


def test_a_second_engine_on_a_worker_is_a_sentence_and_waits_for_nobody(
    model: Path, workers: list[str]
) -> None:
    """A worker serves one after the other, and libllama would wait without end."""
    config = config_of(model, workers=workers[:1])
    with loaded(config) as engine:
        context = engine.context()
        expected = context.eval(TOKENS, 1).row(0).copy()
        started = time.monotonic()
        with pytest.raises(UserError, match="does no other program use it now"):
            EngineProcess(config, Interrupt())
        assert time.monotonic() - started < 3.5
        context.clear()
        assert np.array_equal(context.eval(TOKENS, 1).row(0), expected)
    with loaded(config) as engine:
        assert np.array_equal(engine.context().eval(TOKENS, 1).row(0), expected)


SIBLINGS = """
import sys
from pathlib import Path
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine

config = EngineConfig.of(Path(sys.argv[1]), ctx=512, threads=1, workers=(sys.argv[2],))
engine = LlamaEngine(config)
context = engine.context()
for n_ctx in (64, 512):
    tops = [context.eval([token], 1).argmax(0) for token in (3, 14, 15)]
    sibling = engine.sibling(config.with_settings(ctx=n_ctx))
    tops += [context.eval([token], 1).argmax(0) for token in (92, 65)]
    sibling.close()
    tops += [context.eval([token], 1).argmax(0) for token in (35, 89)]
    context.truncate(0)
    print(tops)
"""
"""A worker forgets its graph when another context's memory is freed, and the process dies of it."""


def test_contexts_come_and_go_beside_one_that_computes(model: Path, workers: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SIBLINGS, str(model), workers[0]],
        env=clean_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first == second


def test_rows_of_all_kinds_of_decode_are_those_of_an_engine_here(model: Path) -> None:
    """Few and many tokens, growing numbers of rows, several sequences, more than a micro-batch."""
    config = config_of(
        model, ctx=512, gpu_layers=0, ubatch=32, n_sequences=3, n_outputs=48, kv_unified=True
    )
    here = LlamaEngine(config)
    with loaded(config) as there:
        pairs = [(here.context(), there.context()) for _ in range(3)]
        rng = np.random.default_rng(2)
        for widths in ((1,), (3,), (1, 2), (30, 2, 1), (40,), (70, 1), (1,), (16, 16, 16), (2, 1)):
            tokens = [rng.integers(SHAPE.n_vocab, size=n).tolist() for n in widths]
            wanted = [min(n, 16) for n in widths]
            asked = list(zip(pairs, tokens, wanted, strict=False))
            near = here.decode([(pair[0], *rest) for pair, *rest in asked])
            far = there.decode([(pair[1], *rest) for pair, *rest in asked])
            for a, b, n in zip(near, far, wanted, strict=True):
                rows = [[rows_of(each).row(i) for i in range(n)] for each in (a, b)]
                assert np.array_equal(*rows), widths
            assert all(a.tokens == b.tokens for a, b in pairs)
            for a, b in pairs[: len(widths)]:
                n = len(a.tokens) - 1
                a.go_back(n)
                b.go_back(n)
    here.close()


class SlowEngine(LlamaEngine):
    """On a device that takes 10 ms a row, and that nothing stops in the middle of a pass."""

    def _decode_batch(self) -> int:
        n_rows = self._batch.n_rows
        code = super()._decode_batch()
        time.sleep(0.01 * n_rows)
        return code


def test_a_stop_in_a_long_prompt_is_seen_soon_on_a_slow_device(
    model: Path, workers: list[str]
) -> None:
    engine = SlowEngine(config_of(model, ctx=2048, workers=workers[:1]))
    try:
        context = engine.context()
        asked: list[float] = []

        def stop() -> None:
            asked.append(time.monotonic())
            engine.interrupt.request()

        threading.Timer(0.8, stop).start()
        with pytest.raises(Interrupted):
            context.eval([1] * 1500, 1)
        assert time.monotonic() - asked[0] < 0.5
        engine.interrupt.requested = False
        n_read = len(context.tokens)
        assert 0 < n_read < 1500
        assert context.tokens == [1] * n_read
        assert hold(context, TOKENS, 1).row(0).shape == (SHAPE.n_vocab,)
    finally:
        engine.close()


def test_a_lost_worker_is_an_error_and_the_engine_goes_on_alone(
    model: Path, workers: list[str]
) -> None:
    said: list[str] = []
    running = Running(free_port())
    config = config_of(model, workers=(running.address, workers[0]))
    engine = EngineProcess(config, Interrupt(), notify=said.append)
    try:
        context = engine.context()
        expected = context.eval(TOKENS, 1).row(0).copy()
        running.kill()
        with pytest.raises(EngineError, match="was lost"):
            context.eval([1], 1)
        assert context.tokens == []
        assert np.array_equal(hold(context, TOKENS, 1).row(0), expected)
        assert "goes on alone" in said[0]
    finally:
        engine.close()


def test_a_conversation_outlives_its_worker(workers: list[str]) -> None:
    running = Running(free_port())
    chat = subprocess.Popen(
        [LOCALSPEC, "chat", smollm2(), "--json-lines", "--no-save", "--temp", "0", "--spec", "none",
         "--threads", "1", "-n", "400", "--workers", f"{running.address},{workers[0]}"],
        env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert chat.stdin
    assert chat.stdout
    chat.stdin.write("Tell me a long story about a fox.\n")
    chat.stdin.flush()
    seen = [json.loads(chat.stdout.readline())]
    while seen[-1]["event"] != "text":
        seen.append(json.loads(chat.stdout.readline()))
    running.kill()
    while "was lost" not in seen[-1].get("text", ""):
        seen.append(json.loads(chat.stdout.readline()))
    chat.stdin.write("Say hello.\n")
    rest, _ = chat.communicate()
    answers = [e for line in rest.splitlines() if (e := json.loads(line))["event"] == "answer"]
    assert answers[-1]["finish_reason"] in ("stop", "length")
    assert answers[-1]["n_prompt"] > 40, "the question and what was said of the first answer"
    assert "goes on alone" in rest


def test_commands_take_workers_and_say_so(workers: list[str]) -> None:
    plain = localspec("generate", smollm2(), *ANSWER, "-p", "Count to ten.", "-n", "12",
                      "--no-repack", "--gpu-layers", "0", "--json")  # fmt: skip
    far = localspec("generate", smollm2(), *ANSWER, "-p", "Count to ten.", "-n", "12",
                    "--no-repack", "--workers", ",".join(workers), "--json")  # fmt: skip
    assert far.code == 0, far.stderr
    assert far.document["text"] == plain.document["text"]
    assert far.document["config"]["workers"] == workers


def test_a_draft_model_computes_on_a_worker_of_its_own(workers: list[str]) -> None:
    asked = ("generate", smollm2(), *ANSWER, "-p", "Count to ten.", "-n", "12", "--no-repack",
             "--gpu-layers", "0", "--json")  # fmt: skip
    drafted = ("--spec", "draft", "--draft", smollm2(), "--draft-device")
    plain = localspec(*asked, "--spec", "none")
    far = localspec(*asked, *drafted, workers[0])
    assert far.code == 0, far.stderr
    assert far.document["text"] == plain.document["text"]
    assert far.document["config"]["draft_device"] == workers[0]
    refused = localspec(*asked, *drafted, workers[0], "--workers", workers[0])
    assert refused.code == 2
    assert "serves one model at a time" in refused.stderr


def test_a_short_reply_is_timed_on_a_device(workers: list[str]) -> None:
    """By which one of two backends of a card is chosen; what cannot compute is never the faster."""
    far = Reported(workers[0], workers[0], None, None, "gpu", "rpc")
    assert 0 < reply_s(far) < 120
    assert reply_s(replace(far, name="NONE0", backend="cuda")) == inf


# --- who is no worker -------------------------------------------------------------------------


Talk = Callable[[socket.socket], None]


def framed(answer: bytes, size: int | None = None) -> bytes:
    return (len(answer) if size is None else size).to_bytes(8, "little") + answer


def version(major: int) -> bytes:
    return framed(bytes([major, 0, 0]) + bytes(25))


def saying(*replies: bytes, closes: bool = False) -> Talk:
    """One reply to each thing that is said."""

    def talk(peer: socket.socket) -> None:
        for reply in replies:
            if not peer.recv(4096):
                break
            peer.sendall(reply)
        if closes:
            peer.close()
        while not closes and peer.recv(4096):
            pass

    return talk


def dripping(reply: bytes) -> Talk:
    def talk(peer: socket.socket) -> None:
        for byte in reply:
            peer.sendall(bytes([byte]))
            time.sleep(0.3)

    return talk


def flooding(peer: socket.socket) -> None:
    while True:
        peer.sendall(bytes(1 << 16))


def echoing(peer: socket.socket) -> None:
    while said := peer.recv(4096):
        peer.sendall(said)


def resetting(peer: socket.socket) -> None:
    peer.recv(4096)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def half_closing(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)
    while peer.recv(4096):
        pass


HUGE = (1 << 64) - 1
PEERS: dict[str, Talk] = {
    "silent": saying(),
    "closing": lambda peer: peer.close(),
    "resetting": resetting,
    "half closing": half_closing,
    "echo": echoing,
    "flood": flooding,
    "slow drip": dripping(version(7)),
    "http": saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", closes=True),
    "ssh": lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "tls": saying(bytes([21, 3, 3, 0, 2, 2, 40]), closes=True),
    "other version": saying(version(99), framed(bytes([1, 0, 0, 0]))),
    "noise": saying(bytes(range(256)) * 8),
    "endless answer": saying(framed(bytes(28), HUGE)),
    "empty answer": saying(framed(b"")),
    "half an answer": saying(version(7)[:20], closes=True),
    "silent after hello": saying(version(7)),
    "closing after hello": saying(version(7), closes=True),
    "no devices": saying(version(7), framed(bytes(4))),
    "too many devices": saying(version(7), framed(b"\xff" * 4)),
    "endless count": saying(version(7), framed(bytes(4), HUGE)),
    "silent after count": saying(version(7), framed(bytes([1, 0, 0, 0]))),
}


def accepting(listener: socket.socket, talk: Talk) -> None:
    """Every peer is talked to, as often as it comes."""
    held: list[socket.socket] = []

    def served(peer: socket.socket) -> None:
        with suppress(OSError):
            talk(peer)

    with suppress(OSError):
        while True:
            held.append(listener.accept()[0])
            threading.Thread(target=served, args=(held[-1],), daemon=True).start()
    for peer in held:
        peer.close()


@pytest.mark.parametrize("kind", PEERS)
def test_a_foreign_peer_is_a_sentence_within_three_seconds(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accepting, args=(listener, PEERS[kind]), daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(UserError, match=address):
            devices_of(Worker.of(address))
        assert time.monotonic() - started < 3.5


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.1..7", "x" * 70])
def test_nobody_there_is_a_sentence(host: str) -> None:
    """A dot too many is no name at all, which Python says otherwise."""
    with pytest.raises(UserError, match="no worker listens"):
        devices_of(Worker.of(f"{host}:{free_port()}"))


@pytest.mark.parametrize("text", ["host:port", ":5", "host:70000", "host:1=lots", "", "a:1=8KB"])
def test_what_is_no_address_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="is no worker"):
        Worker.of(text)


def test_an_address_may_leave_out_the_port_and_limit_the_memory() -> None:
    assert Worker.of("box") == Worker("box:50052")
    assert Worker.of("10.0.0.2:7=8GB") == Worker("10.0.0.2:7", 8_000_000_000)
    assert Worker.of("box=1.5g").limited(9_000_000_000) == 1_500_000_000


def test_cache_types_that_can_end_a_worker_are_refused() -> None:
    check_types("q8_0", "q8_0")
    for pair in (("q8_0", "q4_0"), ("q4_1", "q4_1"), ("f16", "q8_0")):
        with pytest.raises(UserError, match="can end the worker"):
            check_types(*pair)


def test_a_worker_listens_elsewhere_only_when_told_that_the_network_is_trusted() -> None:
    run = localspec("worker", "--listen", "0.0.0.0")
    assert run.code == 2
    assert "--trust-network" in run.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = localspec("worker", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert run.code == 2
    assert "cannot be listened at" in run.stderr
