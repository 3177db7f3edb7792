"""What the splitters of answers share: text that is held back, marks that can come, counts.

What may be the beginning of a mark is held back, so the parts do not depend on how the text is cut.
Whitespace round a thought belongs to neither part.
"""

from collections import Counter, deque
from functools import lru_cache

from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import AnswerPart
from localspec.dialogue.stream import Marks

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
            self._drop(len(text), kind)

    def pass_on(self, text: str, kind: Kind, marks: Marks) -> list[AnswerPart]:
        """A token's text as one part, if nothing is held back and no mark is near; else empty."""
        if self.text or self._starts or self.is_fresh or not marks.first.isdisjoint(text):
            return []
        self._offset += len(text)
        self.n_tokens[kind] += 1
        return [AnswerPart(text, kind)]

    def skip(self, n: int) -> None:
        """The first `n` characters are no part of the answer."""
        self._drop(n, None)

    def take(self) -> list[AnswerPart]:
        """The parts that have become certain."""
        parts, self._parts = self._parts, []
        return parts

    def _drop(self, n: int, kind: Kind | None) -> None:
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
