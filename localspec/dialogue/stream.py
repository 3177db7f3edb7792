"""Tokens' bytes to text, as soon as the text is certain."""

import codecs
import re
from collections.abc import Iterable, Sequence


class Marks:
    """Texts to look for in a stream, as one pattern; the longest goes first."""

    def __init__(self, texts: Iterable[str]) -> None:
        every = sorted(set(texts), key=lambda text: (-len(text), text))
        self.pattern = re.compile("|".join(map(re.escape, every)) or "(?!)")
        self.first = frozenset(text[0] for text in every)
        """Characters that they begin with: without one of these a text has none of them."""
        self._beginnings = {text[:n] for text in every for n in range(1, len(text))}
        self._n_longest = max(map(len, every), default=1)

    def n_certain(self, text: str) -> int:
        """Length of `text` without an end that may begin one of them."""
        near = max(0, len(text) - self._n_longest + 1)
        starts = () if self.first.isdisjoint(text) else range(near, len(text))
        return next((i for i in starts if text[i:] in self._beginnings), len(text))


class TextStream:
    """Takes tokens' bytes and gives text.

    It holds back bytes of an unfinished character, and text that may begin a stop string. Bytes
    that are not UTF-8 become U+FFFD. `stopped_by` is the stop text that has come. `n_decoded`
    characters have been read; `held` is what of them is held back.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped_by: str | None = None
        self.n_decoded = 0
        self._stop = Marks(text for text in stop if text)
        self._stops = any(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_open = False
        """Whether a character has begun."""
        self.held = ""

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by is not None

    def push(self, piece: bytes) -> str:
        """Take a token's bytes; returns the text that is certain now."""
        if self._is_open or not piece.isascii():
            text = self._decoder.decode(piece)
            self._is_open = bool(self._decoder.getstate()[0])
        else:
            text = piece.decode()
        if self._stops:
            return self._release(text)
        self.n_decoded += len(text)
        return text

    def finish(self) -> str:
        """Returns what was held back: the reply is over."""
        text = self._release(self._decoder.decode(b"", final=True)) + self.held
        self.held = ""
        return text

    def _release(self, text: str) -> str:
        if self.stopped_by is not None:
            return ""
        self.n_decoded += len(text)
        self.held += text
        found = self._stop.pattern.search(self.held)
        self.stopped_by = found[0] if found else None
        n_certain = found.start() if found else self._stop.n_certain(self.held)
        certain = self.held[:n_certain]
        self.held = "" if found else self.held[n_certain:]
        return certain
