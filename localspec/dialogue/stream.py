"""Tokens' bytes to text, as soon as the text is certain."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Takes tokens' bytes and gives text.

    It holds back bytes of an unfinished character, and text that may begin a stop string. Bytes
    that are not UTF-8 become U+FFFD. `n_decoded` characters have been read, `n_held` of them are
    held back.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.is_stopped = False
        self.n_decoded = 0
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    @property
    def n_held(self) -> int:
        return len(self._held)

    def push(self, piece: bytes) -> str:
        """Take a token's bytes; returns the text that is certain now."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """Returns what was held back: the reply is over."""
        text = self._release(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        if self.is_stopped:
            return ""
        self.n_decoded += len(text)
        if not self._stop:
            return text
        self._held += text
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.is_stopped = True
            n_certain = min(places)
        else:
            n_certain = len(self._held) - max(
                (overlap(self._held, stop) for stop in self._stop), default=0
            )
        certain, self._held = self._held[:n_certain], self._held[n_certain:]
        if self.is_stopped:
            self._held = ""
        return certain


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that begins `marker` and is not all of it."""
    sizes = range(min(len(marker) - 1, len(text)), 0, -1)
    return next((n for n in sizes if text.endswith(marker[:n])), 0)
