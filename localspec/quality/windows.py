"""A text cut into windows, as llama-perplexity does it.

Each window is read on its own, from an empty cache and with BOS for its first token where the model
wants one. Only the second half is scored, so that every scored token has half a window before it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from localspec.engine.base import Vocabulary
from localspec.errors import UserError

DEFAULT_WINDOW = 512
MIN_WINDOW = 16


@dataclass(frozen=True, slots=True)
class Windows:
    """Token ids, shape (windows, tokens of a window)."""

    tokens: npt.NDArray[np.int32]

    @property
    def n_ctx(self) -> int:
        return self.tokens.shape[1]

    @property
    def n_windows(self) -> int:
        return self.tokens.shape[0]

    @property
    def n_unscored(self) -> int:
        """Tokens of a window whose next one is not scored."""
        return self.n_ctx // 2

    @property
    def n_scored(self) -> int:
        """Of all windows; the last token of each has no next one."""
        return self.n_windows * self.n_scored_each

    @property
    def n_scored_each(self) -> int:
        return self.n_ctx - 1 - self.n_unscored

    def targets(self, window: int) -> npt.NDArray[np.int32]:
        """What really follows each scored position."""
        return self.tokens[window, self.n_unscored + 1 :]

    def only(self, window: int) -> "Windows":
        """One of them."""
        return Windows(self.tokens[window : window + 1])

    def first(self, n_windows: int) -> "Windows":
        """The same with its first windows only."""
        return Windows(self.tokens[:n_windows])


def windows_of(
    vocabulary: Vocabulary, text: str, n_ctx: int = DEFAULT_WINDOW, n_windows: int | None = None
) -> Windows:
    """The windows of a text; `n_windows` None: all. UserError where it does not fill one."""
    tokens = vocabulary.tokenize(text, add_special=True)
    n_all = len(tokens) // n_ctx
    if n_all == 0:
        raise UserError(
            f"the text has {len(tokens):,} tokens and a window {n_ctx:,}: give a longer --text"
        )
    n = n_all if n_windows is None else min(n_windows, n_all)
    cut = np.array(tokens[: n * n_ctx], np.int32).reshape(n, n_ctx)
    if bos := vocabulary.tokenize("", add_special=True)[:1]:
        cut = np.hstack([np.full((n, 1), bos[0], np.int32), cut[:, 1:]])
    return Windows(cut)
