"""How a token is chosen: one frozen value, and one table of its fields.

A field of `Sampling` is its row: name, default, bounds, help, its flag, its names in requests and
in model files. Options, keywords of a reply, fields of the server and `--json` read the rows. What
the numbers do is in `engine/sampling.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """A number from `low` to `high`. `also`: further names in requests; `file_key`: its name in
    model files, below `general.sampling.` (llama.cpp PR 17120)."""

    help: str
    low: float
    high: float = inf
    is_whole: bool = False
    option: str = ""
    also: tuple[str, ...] = ()
    file_key: str = ""
    name: str = ""
    default: float = 0.0

    @property
    def wanted(self) -> str:
        """What a value is, in words."""
        noun = "a whole number" if self.is_whole else "a number"
        if self.low == -inf:
            return noun
        least = f"{noun} of at least {self.low}"
        return least if self.high == inf else f"{noun} from {self.low} to {self.high}"

    def accepts(self, value: Any) -> bool:
        """Whether this is one of them."""
        kind: type[Any] = Integral if self.is_whole else Real
        return is_a(value, kind) and self.low <= value <= self.high


def is_a(value: Any, kind: type[Any]) -> bool:
    """Whether this is a number of that kind, and not true or false."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _row(default: float, help_: str, low: float, high: float = inf, **columns: Any) -> Any:
    return field(default=default, metadata={"row": SamplingRow(help_, low, high, **columns)})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen. `temperature` 0 is greedy; 0, 1, 0, 1, 0 and 0 turn the others off.

    Penalties look at the newest `repeat_last_n` tokens, the prompt's too, as llama.cpp's do: 0 at
    none, -1 at all of them.
    """

    temperature: float = _row(
        0.8, "Temperature; 0 takes the best token.", 0, 100, option="temp", file_key="temp"
    )
    top_k: int = _row(
        40, "Keep the K best tokens; 0: all.", 0, is_whole=True, file_key="top_k"
    )  # fmt: skip
    top_p: float = _row(
        0.95, "Keep the best tokens up to this total probability.", 0, 1, file_key="top_p"
    )
    min_p: float = _row(
        0.05, "Drop tokens less likely than this x the best.", 0, 1, file_key="min_p"
    )
    repeat_penalty: float = _row(
        1.0, "Above 1: discourage repetition.", 0.01, 100, also=("repetition_penalty",),
        file_key="penalty_repeat",
    )  # fmt: skip
    frequency_penalty: float = _row(
        0.0, "Above 0: discourage a token by how often it was there.", -2, 2
    )
    presence_penalty: float = _row(
        0.0, "Above 0: discourage a token that was there.", -2, 2
    )  # fmt: skip
    repeat_last_n: int = _row(
        64, "Tokens that penalties look at; -1: all, 0: none.", -1, is_whole=True,
        also=("penalty_last_n",), file_key="penalty_last_n",
    )  # fmt: skip
    seed: int = 0
    banned: frozenset[int] = frozenset()
    """Ids that are never chosen."""
    bias: tuple[tuple[int, float], ...] = ()
    """Ids and what is added to their logits."""

    @property
    def is_greedy(self) -> bool:
        return self.temperature <= 0


SAMPLING: Mapping[str, SamplingRow] = {
    each.name: replace(
        each.metadata["row"],
        name=each.name,
        default=each.default,
        option=each.metadata["row"].option or each.name,
    )
    for each in fields(Sampling)
    if "row" in each.metadata
}
"""The table."""
