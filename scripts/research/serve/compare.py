"""localspec's server and llama.cpp's under the same load, interleaved: ratios with intervals.

    scripts/research/run bench-servers --llama-server PATH [--model smollm2] [--users 1,2,4,8]
        [--spec FLAGS]... [--save FILE]
    scripts/research/run bench-servers --table FILE

All are started with the same file, the same context for each user and the same threads, and are
asked by the same client. For each number N of users: throughput of a closed loop, in which each of
N users asks the next question when the last one is answered; then Poisson arrivals at 70 % of the
slowest one's throughput, for times to the first token and between tokens. Runs go A B B A, and a
ratio is that of neighbours; its interval is a bootstrap's over all of them. `--spec` gives
llama-server flags of its own speculation, as one more server. `--save` adds a line of JSON for each
part, and `--table` joins the lines of one file: a long study can be run in pieces.
"""

import asyncio
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from models import named
from research.serve.client import Talked, arrivals, closed_loop, p99, questions, ratio
from research.serve.load import KINDS
from research.serve.servers import all_of, commands

T = TypeVar("T")
UTILISATION = 0.7
N_EACH = 3
"""Questions of each user in a run."""
CTX = 2048
"""Tokens of each user."""
BASE, PLAIN = "llama-server", "localspec, no drafts"
WHAT = {"tps": "tok/s", "ttft_s": "first token, ms", "p99_gap_s": "99 % of gaps, ms"}
HEAD = (
    "| Model | Questions | Users | | Server | | : llama-server | : localspec, no drafts | runs |",
    "|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One model, number of users and kind of question."""

    model: str
    kind: str
    users: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What one call measured: by server, `figures` of its runs in order. `what` is in WHAT."""

    case: Case
    what: str
    figures: dict[str, list[float]]


def throughput(ports: dict[str, int], case: Case, rounds: int, seed: int) -> Iterator[Piece]:
    """Tokens a second of a closed loop; a first run warms each up."""

    def run(port: int, i: int, n_each: int = N_EACH) -> float:
        asked = questions(case.kind, case.users * n_each, seed + i)
        return asyncio.run(closed_loop(port, case.users, asked, case.tokens))

    for port in ports.values():
        run(port, -1, 1)
    yield Piece(case, "tps", _interleaved(ports, rounds, run))


def waits(ports: dict[str, int], case: Case, rounds: int, seed: int, tps: float) -> Iterator[Piece]:
    """Times to the first token, and between tokens, of requests that come as they like."""
    per_s = UTILISATION * tps / case.tokens

    def run(port: int, i: int) -> list[Talked]:
        asked = questions(case.kind, case.users * N_EACH, seed + 1000 + i)
        return asyncio.run(arrivals(port, asked, case.tokens, per_s, seed + i))

    talked = _interleaved(ports, rounds, run)
    yield Piece(case, "ttft_s", {
        name: [statistics.median(each.ttft_s for each in found) for found in runs]
        for name, runs in talked.items()
    })  # fmt: skip
    yield Piece(case, "p99_gap_s", {
        name: [p99([gap for each in found for gap in each.gaps_s]) for found in runs]
        for name, runs in talked.items()
    })  # fmt: skip


def _interleaved(
    ports: dict[str, int], rounds: int, run: Callable[[int, int], T]
) -> dict[str, list[T]]:
    """A B C C B A, `rounds` times."""
    found: dict[str, list[T]] = {name: [] for name in ports}
    for i in range(rounds):
        for j, names in enumerate((list(ports), list(reversed(ports)))):
            for name in names:  # on the way back other questions: none answers from its cache
                found[name].append(run(ports[name], 2 * i + j))
    return found


def rows_of(pieces: Sequence[Piece]) -> Iterator[str]:
    """One line for each server of one case, over all pieces that have it."""
    case, what = pieces[0].case, pieces[0].what
    names = dict.fromkeys(name for piece in pieces for name in piece.figures)
    scale, digits = (1.0, 1) if what == "tps" else (1e3, 0)
    for name in names:
        own = [value for piece in pieces for value in piece.figures.get(name, ())]
        ratios = " | ".join(_beside(pieces, name, other) for other in (BASE, PLAIN))
        yield (
            f"| {case.model} | {case.kind} | {case.users} | {WHAT[what]} | {name} |"
            f" {scale * statistics.median(own):.{digits}f} | {ratios} | {len(own)} |"
        )


def _beside(pieces: Sequence[Piece], name: str, other: str) -> str:
    both = [p.figures for p in pieces if name in p.figures and other in p.figures]
    if name == other or not both:
        return ""
    ours = [value for figures in both for value in figures[name]]
    theirs = [value for figures in both for value in figures[other]]
    mid, low, high = ratio(ours, theirs)
    return f"{mid:.2f} ({low:.2f} to {high:.2f})"


def table(pieces: Sequence[Piece]) -> Iterator[str]:
    """All cases, in order."""
    yield from HEAD

    def key(piece: Piece) -> tuple[str, str, int, int]:
        case = piece.case
        return case.model, case.kind, case.users, list(WHAT).index(piece.what)

    for _, same in groupby(sorted(pieces, key=key), key):
        yield from rows_of(list(same))


def read(path: Path) -> list[Piece]:
    """The pieces of a file."""
    documents = map(json.loads, path.read_text().splitlines() if path.exists() else ())
    return [Piece(Case(**each["case"]), each["what"], each["figures"]) for each in documents]


def main(  # noqa: PLR0913 - one option each
    llama_server: Annotated[str, typer.Option(help="llama.cpp's server, of the same source.")] = "",
    model: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    users: Annotated[str, typer.Option(help="Numbers of users.")] = "1,2,4,8",
    kinds: Annotated[str, typer.Option("--questions", help="Kinds.")] = ",".join(KINDS),
    rounds: Annotated[int, typer.Option(min=1, help="Of A B B A.")] = 4,
    tokens: Annotated[int, typer.Option(min=4, help="Of each reply.")] = 96,
    spec: Annotated[list[str] | None, typer.Option(help="Its own speculation.")] = None,
    only: Annotated[str, typer.Option(help="throughput or waits; default: both.")] = "",
    save: Annotated[Path | None, typer.Option(help="Add lines of JSON to it.")] = None,
    table_of: Annotated[Path | None, typer.Option("--table", help="Measure nothing.")] = None,
) -> None:
    if table_of:
        print(*table(read(table_of)), sep="\n")
        return
    before = read(save) if save else []
    measured: list[Piece] = []
    for n in map(int, users.split(",")):
        started = commands(named(model), llama_server, n, CTX, spec or ())
        with all_of(started, Path("bench-servers.log")) as ports:
            for kind in kinds.split(","):
                case = Case(model, kind, n, tokens)
                for piece in _pieces(ports, case, rounds, before, only):
                    measured.append(piece)
                    if save:
                        with save.open("a") as file:
                            file.write(json.dumps(asdict(piece)) + "\n")
    print(*table(measured), sep="\n")


def _pieces(
    ports: dict[str, int], case: Case, rounds: int, before: Sequence[Piece], only: str
) -> Iterator[Piece]:
    """Of one case. What was measured of it before gives other questions and the rate."""
    known = [piece for piece in before if piece.case == case and piece.what == "tps"]
    seed = 10 + 10_000 * len([piece for piece in before if piece.case == case])
    if only != "waits":
        for piece in throughput(ports, case, rounds, seed):
            known.append(piece)
            yield piece
    if only != "throughput":
        assert known, "measure throughput first: it gives the rate of arrivals"
        figures = [runs for piece in known for runs in piece.figures.values()]
        yield from waits(ports, case, rounds, seed, min(map(statistics.median, figures)))


if __name__ == "__main__":
    typer.run(main)
