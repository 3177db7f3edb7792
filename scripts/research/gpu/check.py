"""What a GPU really does: one command of at most nine minutes, the most valuable part first.

    scripts/research/run check-gpu [--part NAME] [--minutes 9] [--out FOLDER] [--page FILE]
    scripts/research/run check-gpu --size tiny --worker loopback      tries it where no GPU is

Each part is a process of its own with a time limit, so that one that fails or hangs costs no other
its result. Parts: self-test, probe, 8b-q4, moe, 8b-q8, cache, drafts, heads, users, 8b-f16. Models
are written here, with random weights in the shapes of Qwen3-8B and Qwen3-30B-A3B: speed does not
depend on values. llama-bench of the same build (LLAMA_BENCH or PATH) decodes beside it, if it is at
hand. `--page` writes the table of docs/measurements.

A machine that cannot compile takes a wheel: scripts/research/gpu/wheel builds one for sm_90 with
llama-bench in it, wherever nvcc is, without a card (48 MB with CUDA 13.0); `pip install` of it is
all that is needed there beside libcudart and libcublas of the same CUDA.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Annotated, Any, Literal

import typer
from research.gpu.heads import head_costs
from research.gpu.users import user_costs
from working import Running, free_port

from localspec.engine.base import EngineConfig
from localspec.engine.graphics import graphics
from localspec.engine.health import device_health
from localspec.engine.threads import default_threads
from localspec.engine.timing import Timer
from localspec.errors import LocalspecError
from localspec.forecast.machine import MachineChoice
from localspec.forecast.rated_machine import predicted_machine
from localspec.model.synthetic import Shape, write_random_model
from localspec.session.loading import checked_facts
from localspec.settings import Attention

DENSE = Shape(
    n_layers=36, n_embd=4096, n_heads=32, n_kv_heads=8, n_ff=12288, n_vocab=151936, n_ctx=32768
)
MIXTURE = Shape(
    n_layers=48, n_embd=2048, n_heads=32, n_kv_heads=4, n_ff=768, n_vocab=151936, n_ctx=32768,
    n_experts=128, n_experts_used=8, own_head_size=128,
)  # fmt: skip
TINY = Shape(n_layers=4, n_embd=512, n_heads=8, n_kv_heads=4, n_ff=1024, n_vocab=512, n_ctx=32768)
USERS = (1, 2, 4, 8)
WIDTHS = (1, 2, 3, 4, 6, 8, 9, 12, 16)
N_TOKENS = 64
KV = ("f16", "bf16", "q8_0", "q4_0")
DEEP = 16384
CHANCES = (0.5, 0.7, 0.9)
LIMIT_S = {"probe": 120.0, "self-test": 60.0}
PART_LIMIT_S = 110.0


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Place:
    """Where it computes, and how large the models are."""

    is_tiny: bool
    workers: tuple[str, ...]

    def shape(self, shape: Shape) -> Shape:
        """A mixture stays one."""
        experts = {"n_experts": 8, "n_experts_used": 2} if shape.n_experts else {}
        return replace(TINY, **experts) if self.is_tiny else shape

    def size_of(self, shape: Shape) -> str:
        """Its name in the table."""
        large = "30B-A3B" if shape.n_experts else "8B"
        return f"tiny for {large}" if self.is_tiny else large

    @property
    def depth(self) -> int:
        return 512 if self.is_tiny else DEEP

    def config(self, path: Path, **settings: Any) -> EngineConfig:
        ctx = self.depth + 512
        threads = default_threads()
        return EngineConfig.of(
            path, ctx=ctx, gpu_layers=-1, threads=threads, workers=self.workers, **settings
        )

    @contextmanager
    def model(self, shape: Shape, kind: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix="localspec-") as folder:
            path = Path(folder) / f"{kind}.gguf"
            write_random_model(path, self.shape(shape), kind)
            yield path

    @contextmanager
    def timer(self, path: Path, **settings: Any) -> Iterator[Timer]:
        from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

        engine = LlamaEngine(replace(self.config(path, **settings), n_outputs=max(WIDTHS)))
        try:
            yield Timer(engine.context())
        finally:
            engine.close()


def _self_test(place: Place) -> Iterator[Row]:
    for device in graphics((), place.workers):
        if device.backend == "rpc":
            yield Row(f"{device.name}", "another machine's device, which its own doctor judges")
            continue
        problem = device_health(device, _said).problem
        yield Row(f"{device.name} ({device.description})", problem or "computes as the processor")


def _probe(place: Place) -> Iterator[Row]:
    with place.model(DENSE, "Q4_K") as path:
        machine = _machine(place, path, again=True)
        yield Row("rates", machine.rates.source)
        for share in machine.peer_shares(checked_facts(path), Attention()):
            if link := share.link:
                there = f"{1e6 * link.round_trip_s:.0f} us there and back"
                speed = f"{link.bytes_per_s / 1e9:.1f} GB/s, a hop {1e6 * link.hop_s:.0f} us"
                yield Row(f"{share.name}, the way", there, speed)


def _machine(place: Place, path: Path, *, again: bool = False) -> Any:
    choice = MachineChoice(workers=place.workers, probe="again" if again else "auto")
    facts = checked_facts(path)
    return predicted_machine(choice, [facts], [Attention()], place.depth, _said)


def _decoding(shape: Shape, kind: str) -> Callable[[Place], Iterator[Row]]:
    def part(place: Place) -> Iterator[Row]:
        name = f"{place.size_of(shape)} {kind}"
        with place.model(shape, kind) as path:
            with place.timer(path) as timer:
                timer.token_s(4, 0)
                token_s = timer.token_s(N_TOKENS, 0)
                times = {n: timer.median(n, 0) for n in WIDTHS}
                prompt_s = timer.median(512, 0)
            predicted = _machine(place, path).roofline(checked_facts(path), Attention()).decode(0)
            speed = f"{1 / token_s:.1f} tok/s"
            interval = (
                f"predicted {predicted.mid:.1f} ({predicted.low:.1f} to {predicted.high:.1f})"
            )
            yield Row(f"{name}, decoding", speed, interval)
            yield Row(f"{name}, prompt of 512", f"{512 / prompt_s:.0f} tok/s")
            curve = ", ".join(f"{n}: {s / times[1]:.2f}" for n, s in times.items())
            yield Row(f"{name}, v(n)", curve)
            theirs = _llama_bench(path)
            if theirs:
                ratio = f"{1 / token_s / theirs:.3f} x"
                yield Row(f"{name} beside llama-bench", ratio, f"{theirs:.1f} tok/s")

    return part


def _llama_bench(path: Path) -> float | None:
    program = os.environ.get("LLAMA_BENCH") or shutil.which("llama-bench")
    if program is None:
        return None
    done = subprocess.run(
        [program, "-m", path, "-p", "0", "-n", str(N_TOKENS), "-ngl", "99", "-r", "3",
         "-o", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)[0]["avg_ts"]


def _cache(place: Place) -> Iterator[Row]:
    with place.model(DENSE, "Q4_K") as path:
        for kind in KV:
            with place.timer(path, kv_k=kind, kv_v=kind, flash_attn="on") as timer:
                timer.token_s(4, 0)
                flat, deep = (timer.token_s(16, depth) for depth in (0, place.depth))
            speeds = f"{1 / flat:.1f} tok/s at 0, {1 / deep:.1f} at {place.depth:,}"
            yield Row(f"{place.size_of(DENSE)} Q4_K, cache {kind}", speeds)


def _drafts(place: Place) -> Iterator[Row]:
    """What drafts of a free drafter gain where each token is accepted with a given chance."""
    with place.model(DENSE, "Q4_K") as path, place.timer(path) as timer:
        times = {n: timer.median(n, 0) for n in WIDTHS}
    for chance in CHANCES:
        gains = {
            n - 1: sum(chance**k for k in range(n)) * times[1] / seconds
            for n, seconds in times.items()
        }
        best = max(gains, key=lambda n: gains[n])
        yield Row(f"drafts accepted at {chance:.0%}", f"{gains[best]:.2f} x", f"{best} drafted")


def _heads(place: Place) -> Iterator[Row]:
    for shape in (DENSE, MIXTURE):
        with place.model(shape, "Q4_K") as path:
            for what, figures in head_costs(place.config(path), place.shape(shape), WIDTHS):
                yield Row(f"{place.size_of(shape)} Q4_K, {what}", figures)


def _users(place: Place) -> Iterator[Row]:
    for shape in (DENSE, MIXTURE):
        with place.model(shape, "Q4_K") as path:
            for what, figures in user_costs(place.config(path), USERS):
                yield Row(f"{place.size_of(shape)} Q4_K, {what}", figures)


PARTS: dict[str, Callable[[Place], Iterator[Row]]] = {
    "self-test": _self_test,
    "probe": _probe,
    "8b-q4": _decoding(DENSE, "Q4_K"),
    "moe": _decoding(MIXTURE, "Q4_K"),
    "8b-q8": _decoding(DENSE, "Q8_0"),
    "cache": _cache,
    "drafts": _drafts,
    "heads": _heads,
    "users": _users,
    "8b-f16": _decoding(DENSE, "F16"),
}
"""The most valuable first."""


def main(
    part: Annotated[str | None, typer.Option(help="One alone, as JSON lines.")] = None,
    minutes: Annotated[float, typer.Option(help="For all parts.")] = 9.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("gpu-check"),
    page: Annotated[Path | None, typer.Option(help="File of the table.")] = None,
    size: Annotated[Literal["full", "tiny"], typer.Option()] = "full",
    worker: Annotated[str, typer.Option(help="HOST:PORT, or `loopback`.")] = "",
) -> None:
    """Run the parts, or one of them."""
    if part is not None and part not in PARTS:
        raise typer.BadParameter(f"no part {part!r}: {', '.join(PARTS)}")
    with _address(worker) as address:
        if part is not None:
            _run(part, Place(size == "tiny", (address,) if address else ()))
            return
        out.mkdir(parents=True, exist_ok=True)
        until_s = monotonic() + 60 * minutes
        for name in PARTS:
            _child(name, size, address, out, until_s)
    rows = _found(out)
    if page:
        page.write_text(_page(rows), encoding="utf-8")
    for row in rows:
        print(f"{row.what}: {row.value} {row.beside}".rstrip())


@contextmanager
def _address(worker: str) -> Iterator[str]:
    if worker != "loopback":
        yield worker
        return
    running = Running(free_port(), is_quick=True)
    try:
        yield running.address
    finally:
        running.kill()


def _child(name: str, size: str, address: str, out: Path, until_s: float) -> None:
    """One part; what it said before its time was up is kept."""
    left_s = min(until_s - monotonic(), LIMIT_S.get(name, PART_LIMIT_S))
    path = out / f"{name}.jsonl"
    if left_s < 5:
        path.write_text(_line(Row(name, "no time was left")), encoding="utf-8")
        return
    _said(f"{name}, at most {left_s:.0f} s")
    own = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-B", str(own), "check-gpu", "--part", name, "--size", size]
    with path.open("w", encoding="utf-8") as file:
        try:
            subprocess.run([*command, "--worker", address], stdout=file, timeout=left_s, check=True)
        except subprocess.TimeoutExpired:
            file.write(_line(Row(name, f"did not end within {left_s:.0f} s")))
        except subprocess.CalledProcessError as error:
            file.write(_line(Row(name, f"ended with code {error.returncode}")))


def _run(name: str, place: Place) -> None:
    try:
        for row in PARTS[name](place):
            print(_line(row), end="", flush=True)
    except LocalspecError as error:
        print(_line(Row(name, str(error))), end="", flush=True)


def _line(row: Row) -> str:
    return json.dumps(asdict(row)) + "\n"


def _found(out: Path) -> list[Row]:
    lines = (
        line
        for name in PARTS
        if (out / f"{name}.jsonl").exists()
        for line in (out / f"{name}.jsonl").read_text("utf-8").splitlines()
    )
    return [Row(**json.loads(line)) for line in lines]


def _page(rows: list[Row]) -> str:
    devices = ", ".join(each.description for each in graphics()) or platform.machine()
    head = [
        "# GPU", "",
        "| Date | Machine | Command |", "|---|---|---|",
        f"| {datetime.now(UTC):%Y-%m-%d} | {devices} | `scripts/research/run check-gpu` |", "",
        "| What | Measured | Beside |", "|---|---|---|",
    ]  # fmt: skip
    return "\n".join([*head, *(f"| {r.what} | {r.value} | {r.beside} |" for r in rows)]) + "\n"


def _said(message: str) -> None:
    print(message, file=sys.stderr)
