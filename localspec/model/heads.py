"""What a draft head is: the facts of it that an engine needs before it makes a context.

A head is the last layers of a model's own file (MTP), or a small file of its own that belongs to
one target. libllama ends its process where a head does not fit, so these facts come from headers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HeadMethod = Literal["mtp", "gemma4-assistant", "eagle3"]


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """One head. `path` None: it is in the target's own file, in `n_heads` layers behind the others.

    `taps`: layers whose inputs it reads, at the target; none: the state behind the last layer.
    `needs_target_cache`: it attends to the target's cache and has none.
    """

    method: HeadMethod
    path: Path | None = None
    n_heads: int = 1
    n_draft_max: int | None = None
    taps: tuple[int, ...] = ()
    needs_target_cache: bool = False
