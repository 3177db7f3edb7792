"""What a pass takes by its width, and what it takes more when the one before had another.

    scripts/research/run bench-widths [MODEL] [--widths 2,4,8] [--depth N] [--json]

libllama keeps the graph of a pass for the next one of the same shape and builds it anew for any
other. Passes of 1 and of n tokens follow each other in all four orders, in turn; medians, and the
quartiles of the differences.
"""

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer
from models import named

from localspec.engine.timing import Timer
from localspec.errors import UserError
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

LONGEST = 64


@dataclass(frozen=True, slots=True)
class Widths:
    """Milliseconds of a pass over 1 or `n` tokens, after one over 1 or `n`."""

    n: int
    one_after_one: float
    one_after_n: float
    n_after_one: float
    n_after_n: float
    there_and_back: tuple[float, float, float]
    """Lower quartile, median and upper quartile of what both changes together take."""

    @property
    def v(self) -> float:
        return self.n_after_n / self.one_after_one


def main(
    model: Annotated[str, typer.Argument(metavar="[MODEL]")] = "smollm2",
    widths: Annotated[str, typer.Option(help="With commas.")] = "2,3,4,5,8,16",
    depth: Annotated[int, typer.Option(min=1)] = 300,
    rounds: Annotated[int, typer.Option(min=4)] = 40,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure, and print a line a width."""
    asked = _widths(widths)
    config = SessionConfig.of(named(model), draft_max=max(asked) - 1, ctx=depth + LONGEST)
    with Session.open(config) as session:
        timer = Timer(session.context)
        found = [_measured(timer, depth, n, rounds) for n in asked]
    if as_json:
        print(
            json.dumps({"model": model, "depth": depth, "widths": [asdict(one) for one in found]})
        )
        return
    for one in found:
        low, middle, high = one.there_and_back
        print(
            f"{one.n:3} tokens: {one.n_after_n:.3f} ms, {one.v:.2f} x one"
            f" ({one.one_after_one:.3f} ms);"
            f" after another width {one.n_after_one:.3f}, one after it {one.one_after_n:.3f};"
            f" there and back {middle:.3f} ms ({low:.3f} to {high:.3f}),"
            f" {middle / one.one_after_one:.2f} of a plain pass"
        )


def _widths(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and 2 <= int(part) <= LONGEST for part in parts):
        raise UserError(f"--widths {text!r}: give numbers from 2 to {LONGEST}, with commas")
    return [int(part) for part in parts]


def _measured(timer: Timer, depth: int, n: int, rounds: int) -> Widths:
    def ms(width: int) -> float:
        return 1e3 * timer.seconds(width, depth)

    rows: list[tuple[float, float, float, float]] = []
    for _ in range(rounds):
        ms(1), ms(1)
        one_after_one, n_after_one, one_after_n = ms(1), ms(n), ms(1)
        ms(n), ms(n)
        rows.append((one_after_one, one_after_n, n_after_one, ms(n)))
    times = np.array(rows)
    changes = times[:, 1] - times[:, 0] + times[:, 2] - times[:, 3]
    low, middle, high = (float(q) for q in np.quantile(changes, (0.25, 0.5, 0.75)))
    return Widths(n, *(float(x) for x in np.median(times, axis=0)), (low, middle, high))
