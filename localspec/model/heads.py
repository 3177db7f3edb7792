"""What a draft head is: the facts of it that an engine needs before it makes a context.

A head is the last layers of a model's own file (MTP), or a small file of its own that belongs to
one target. libllama ends its process where a head does not fit, so these facts come from headers:
`model.head_fit` makes them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

N_KEPT = 64
"""Rows of a target's hidden states that are kept for a head, and the most that it reads at once."""

HeadMethod = Literal["mtp", "gemma4-assistant", "eagle3", "dflash", "dspark"]
HEAD_METHODS: dict[str, frozenset[HeadMethod]] = {
    "mtp": frozenset({"mtp", "gemma4-assistant"}),
    "eagle3": frozenset({"eagle3"}),
    "dflash": frozenset({"dflash", "dspark"}),
}
"""The methods of heads that a --spec value means."""


@dataclass(frozen=True, slots=True)
class HeadBlock:
    """How a head that drafts a whole block at once (DFlash, DSpark) is asked.

    It reads the pending token and `mask_token` `n_tokens` - 1 times. `first`: the first of its rows
    that drafts, 1, or 0 where the pending token's own row does (DSpark). `n_lattice`: candidates a
    position in the lattice of DFlash2, 0 without one.
    """

    n_tokens: int
    mask_token: int
    first: int = 1
    is_causal: bool = False
    has_confidence: bool = False
    n_lattice: int = 0


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """One head. `path` None: it is in the target's own file, in `n_heads` layers behind the others.

    `n_draft_max`: the longest draft that it can make; None: any. `taps`: layers whose inputs it
    reads, at the target; none: the state behind the last layer. `needs_target_cache`: it attends to
    the target's cache and has none.
    """

    method: HeadMethod
    path: Path | None = None
    n_heads: int = 1
    n_draft_max: int | None = None
    taps: tuple[int, ...] = ()
    needs_target_cache: bool = False
    block: HeadBlock | None = None
