"""Control tokens are a template's own. In what a user, a file or a model says, they are text.

A break, a private-use character, is put before each text of a control token in such a text, and
where its beginning or end is a part of one, which the template could complete. Templates pass it
through. What they rendered is cut at the control tokens without a break; what lies between them is
read as text where a control token is spelled in it. libllama cuts a prompt in the same way
(`tokenizer_st_partition` in src/llama-vocab.cpp), so a prompt without foreign control tokens has
the same ids as at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from localspec.engine.vocabulary import Vocabulary

_SPACE = " \t\n\v\f\r"
"""What C's isspace accepts, which control tokens can swallow."""
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Specials:
    """The control tokens of a vocabulary, and others that the template `source` writes."""

    vocabulary: Vocabulary
    source: str = ""

    def guarded(self, text: str, mark: str) -> str:
        """`text` with a `mark` at each place where a template could make it a control token."""
        places = {start for start, _ in self._spans(text)} | self._ends(text)
        parts = list(text)
        for place in places:
            parts[place] = mark + parts[place]
        return "".join(parts) if places else text

    def ids(self, text: str, mark: str, *, add_special: bool, goes_on: bool = False) -> list[int]:
        """Ids of a text that has a `mark` before what is no control token."""
        parts = self._parts(text, mark)
        if parts == [(text, False)]:
            return self.vocabulary.tokenize(text, add_special=add_special, goes_on=goes_on)
        ids: list[int] = []
        for part, is_plain in parts:
            if is_plain:
                ids += self._plain(part, goes_on=goes_on)
            else:
                ids += self.vocabulary.tokenize(part, add_special=False, goes_on=goes_on)
            goes_on = False
        before, after = self._frame if add_special else ([], [])
        return [*before, *ids, *after]

    def _parts(self, text: str, mark: str) -> list[tuple[str, bool]]:
        """Stretches of a marked text, without its marks; True: no control token is meant in it."""
        parts: list[tuple[str, bool]] = []
        start, before = 0, ""
        for first, end in [*self._own(text, mark), (len(text), len(text))]:
            marked, after = text[start:first], text[first:end]
            run = marked.replace(mark, "")
            if run != marked or next(self._spans(run), None):
                parts += [(self._trimmed(before, run, after), True), (after, False)]
            else:
                parts.append((run + after, False))
            start, before = end, after
        return _joined(parts)

    def _own(self, text: str, mark: str) -> Iterator[Span]:
        """Where the template's own control tokens stand."""
        end = 0
        for span in self._spans(text):
            start = span[0]
            is_own = start >= end and (start == 0 or text[start - 1] != mark)
            if is_own and text[start : span[1]] not in self._ordinary:
                end = span[1]
                yield span

    def _plain(self, text: str, *, goes_on: bool) -> list[int]:
        """Ids of a text that has no control token, whatever it spells."""
        ids: list[int] = []
        start = 0
        for first, end in self._spans(text):
            if text[first:end] in self._always and first >= start:
                ids += self._text(text[start : first + 1], goes_on=goes_on or start > 0)
                start = first + 1
        return ids + self._text(text[start:], goes_on=goes_on or start > 0)

    def _text(self, text: str, *, goes_on: bool) -> list[int]:
        tokenize = self.vocabulary.tokenize
        return tokenize(text, add_special=False, parse_special=False, goes_on=goes_on)

    def _spans(self, text: str) -> Iterator[Span]:
        """Where texts of control tokens begin and end, the longest at each place."""
        for place in self._places(text):
            for n in self._lengths:
                if text[place : place + n] in self._texts:
                    yield place, place + n
                    break

    def _places(self, text: str) -> list[int]:
        """Where one may begin."""
        places: list[int] = []
        for head in self._heads:
            place = text.find(head)
            while place >= 0:
                places.append(place)
                place = text.find(head, place + 1)
        return sorted(places)

    def _ends(self, text: str) -> set[int]:
        """Where a part of a control token ends or begins the text, spaces apart."""
        core = text.strip()
        if not core:
            return set()
        first, longest = text.index(core[0]), self._lengths[0] if self._lengths else 0
        found = {first} if any(core[:n] in self._tails for n in range(1, longest)) else set[int]()
        last = first + len(core)
        sizes = range(1, min(longest, len(core) + 1))
        return found | {last - n for n in sizes if core[-n:] in self._beginnings}

    def _trimmed(self, before: str, run: str, after: str) -> str:
        """Without spaces that a control token swallows."""
        if before and self._swallows(before, " x", before, "x"):
            run = run.lstrip(_SPACE)
        if after and self._swallows("x ", after, "x", after):
            run = run.rstrip(_SPACE)
        return run

    def _swallows(self, *texts: str) -> bool:
        one, other = (
            self.vocabulary.tokenize(texts[i] + texts[i + 1], add_special=False) for i in (0, 2)
        )
        return one == other

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The ids that begin and end every text of the vocabulary."""
        framed, bare = (self.vocabulary.tokenize("a", add_special=each) for each in (True, False))
        n = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
        return framed[:n], framed[n + len(bare) :]

    @cached_property
    def _texts(self) -> frozenset[str]:
        kinds = self.vocabulary.specials
        return self._always | {text for text, kind in kinds.items() if kind != "user"}

    @cached_property
    def _ordinary(self) -> frozenset[str]:
        kinds = self.vocabulary.specials
        return frozenset(text for text, kind in kinds.items() if kind == "ordinary")

    @cached_property
    def _always(self) -> frozenset[str]:
        """Tokens of the template that are read wherever they stand: marks, unlike words."""
        users = [text for text, kind in self.vocabulary.specials.items() if kind == "user"]
        marks = (t for t in users if len(t) > 1 and not t.isspace() and not t.isalnum())
        return frozenset(t for t in marks if t in self.source)

    @cached_property
    def _heads(self) -> tuple[str, ...]:
        return tuple({text[:2] for text in self._texts})

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(sorted({len(text) for text in self._texts}, reverse=True))

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(text[:n] for text in self._texts for n in range(1, len(text)))

    @cached_property
    def _tails(self) -> frozenset[str]:
        return frozenset(text[n:] for text in self._texts for n in range(1, len(text)))


def _joined(parts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """With neighbours that are read alike as one."""
    joined: list[tuple[str, bool]] = []
    for text, is_plain in parts:
        if joined and joined[-1][1] == is_plain and not is_plain:
            joined[-1] = joined[-1][0] + text, is_plain
        elif text:
            joined.append((text, is_plain))
    return joined
