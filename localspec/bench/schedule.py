"""In which order cases are visited: A B C C B A, and the anchor again in between.

What a machine does meanwhile (warming up, a neighbour, a download) then falls on all cases alike.
The anchor is the cheapest of the plain cases; how its visits differ tells how far the machine
drifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from localspec.bench.case import Case

ANCHOR_EVERY = 6
"""Visits between two of the anchor."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One visit: the place in the schedule names it, also across an interruption."""

    number: int
    case: Case
    is_anchor: bool


def schedule(cases: Sequence[Case], n_rounds: int) -> tuple[Planned, ...]:
    """`n_rounds` visits to each case; the anchor first, last, and every few visits."""
    if not cases:
        return ()
    anchor = anchor_of(cases)
    order: list[Case] = [anchor]
    since = 0
    for round_number in range(n_rounds):
        for case in _round(cases, anchor, round_number):
            if since >= ANCHOR_EVERY:
                order.append(anchor)
                since = 0
            order.append(case)
            since += 1
        if len(order) > 1 or len(cases) == 1:
            order.append(anchor)
            since = 0
    if len(cases) == 1:
        order = order[1:]
    return tuple(Planned(i, case, case == anchor) for i, case in enumerate(order))


def anchor_of(cases: Sequence[Case]) -> Case:
    """A plain case of the least depth and batch; with none, the first."""

    def effort(case: Case) -> tuple[bool, bool, int, int]:
        work = case.work
        return (
            not work.n_gen,
            case.config.spec != "none" or bool(work.prompts),
            work.depth,
            work.batch,
        )

    return min(cases, key=effort)


def _round(cases: Sequence[Case], anchor: Case, number: int) -> list[Case]:
    """The other cases, forwards and backwards in turns."""
    rest = [case for case in cases if case != anchor]
    return rest[::-1] if number % 2 else rest
