"""What the splitters of answers share: text that is held back, marks that can come, counts.

What may be the beginning of a mark is held back, so the parts do not depend on how the text is cut.
Whitespace round a thought belongs to neither part.

Tokens' bytes become text as soon as the text is certain.
"""

import codecs
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import lru_cache

from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import AnswerPart


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


APART = "\n\n"
"""Between sections of one kind that something else stood between."""


@lru_cache(64)
def marks_of(texts: tuple[str, ...]) -> Marks:
    """Compiled once for a state of a model's answers."""
    return Marks(texts)


class Held:
    """Text of an answer that is not certain yet, and the parts that are.

    `n_tokens` counts tokens by the kind of the text that they begin; marks and spaces have none.
    """

    def __init__(self) -> None:
        self.text = ""
        self.n_tokens = Counter[Kind]()
        self.is_fresh = True
        self.trims = False
        self._offset = 0
        self._starts = deque[int]()
        self._marks = set[int]()
        self._parts: list[AnswerPart] = []
        self._seen = set[Kind]()

    def begin_token(self, n_behind: int, *, is_mark: bool) -> None:
        """A token begins `n_behind` characters behind what was fed; `is_mark`: it is one alone."""
        place = self._offset + len(self.text) + n_behind
        self._starts.append(place)
        if is_mark:
            self._marks.add(place)

    def is_mark(self, place: int) -> bool:
        """Whether the held text has a token there that is a mark by itself."""
        return self._offset + place in self._marks

    def enter(self) -> None:
        """A section begins: whitespace in front of its text is dropped."""
        self.is_fresh = self.trims = True

    def emit(self, n: int, kind: Kind) -> None:
        """The first `n` characters are certain; of whitespace alone nothing is known yet."""
        text = self.text[:n]
        if self.is_fresh:
            said = text.lstrip()
            if not said:
                return
            if self.trims:
                self.skip(len(text) - len(said))
                text = said
                if kind in self._seen:
                    self._parts.append(AnswerPart(APART, kind))
            self.is_fresh = False
        if text:
            self._seen.add(kind)
            self._parts.append(AnswerPart(text, kind))
            self.skip(len(text), kind)

    def pass_on(self, text: str, kind: Kind, marks: Marks) -> list[AnswerPart]:
        """A token's text as one part, if nothing is held back and no mark is near; else empty."""
        if self.text or self._starts or self.is_fresh or not marks.first.isdisjoint(text):
            return []
        self._offset += len(text)
        self.n_tokens[kind] += 1
        return [AnswerPart(text, kind)]

    def take(self) -> list[AnswerPart]:
        """The parts that have become certain."""
        parts, self._parts = self._parts, []
        return parts

    def skip(self, n: int, kind: Kind | None = None) -> None:
        """The first `n` characters are no part of the answer; those of a `kind` were emitted."""
        self.text = self.text[n:]
        self._offset += n
        while self._starts and self._starts[0] < self._offset:
            if kind is None and self._end_of_first() > self._offset:
                return  # the rest of the token can be a part
            start = self._starts.popleft()
            self._marks.discard(start)
            if kind is not None:
                self.n_tokens[kind] += 1

    def _end_of_first(self) -> int:
        """Where the first token ends that something is held of, as far as it was fed."""
        return self._starts[1] if len(self._starts) > 1 else self._offset + len(self.text)
