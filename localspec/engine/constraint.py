"""What a reply may say: a JSON schema, a grammar or an expression that each of its tokens keeps.

llguidance matches; see https://github.com/guidance-ai/llguidance for what it takes. A `Constraint`
follows a history: before it answers it takes back what the history lost and takes in what it
gained. So draft positions, rejected drafts and cut replies need no calls of their own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from localspec.engine.base import shared_prefix
from localspec.engine.vocabulary import Vocabulary
from localspec.errors import EngineError, UserError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

GrammarKind = Literal["schema", "grammar", "regex", "tools"]
_FORMATS: dict[GrammarKind, Literal["json_schema", "gbnf", "regex", "lark"]] = {
    "tools": "lark",
    "schema": "json_schema",
    "grammar": "gbnf",
    "regex": "regex",
}
LONGEST_MARK = 32
"""Tokens that what comes before a grammar may have."""
NO_TOKEN = "no token of the model continues it"
_CONTROL = b"\xff"
"""How llguidance knows a control token, which no text contains."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A JSON schema in JSON, a grammar in GBNF or Lark, or a regular expression of Rust's.

    `after`: an expression of Python's for what a reply says before the grammar counts, control
    tokens by their names; empty: it counts from the start.
    """

    kind: GrammarKind
    text: str
    after: str = ""

    def checked(self) -> Self:
        """The same. Raises UserError for what cannot be kept."""
        self.compiled()
        return self

    def compiled(self, tokenizer: "LLTokenizer | None" = None) -> str:
        """As the matcher takes it. Raises UserError for what cannot be kept."""
        from llguidance import LLMatcher, grammar_from  # noqa: PLC0415 - seldom used

        try:
            made = grammar_from(_FORMATS[self.kind], self.text)
        except (ValueError, RecursionError) as error:
            raise self._refused(str(error)) from error
        is_wrong, reasons = LLMatcher.validate_grammar_with_warnings(made, tokenizer)
        if is_wrong or reasons:
            raise self._refused(reasons[0])
        return made

    def _refused(self, reason: str) -> UserError:
        lines = [line.strip() for line in reason.splitlines() if line.strip()] or ["no reason"]
        said = lines[0].removeprefix("WARNING: ")
        # What is wrong with an expression stands below a drawing of it.
        below = next((line for line in lines if line.startswith("error: ")), "")
        reason = f"{said} {below.removeprefix('error: ')}".rstrip()
        return UserError(f"the {self.kind} cannot be kept: {reason}")


_GIVEN: tuple[GrammarKind, ...] = ("schema", "grammar", "regex")


def grammar_of(given: Mapping[str, Any]) -> Grammar | None:
    """The one of `schema`, `grammar` and `regex` that is given. UserError for several, and for one
    that cannot be kept."""
    found: list[tuple[GrammarKind, Any]] = [(kind, given[kind]) for kind in _GIVEN if kind in given]
    if len(found) > 1:
        raise UserError(f"a reply cannot keep a {found[0][0]} and a {found[1][0]}: give one")
    if not found:
        return None
    kind, value = found[0]
    if kind == "schema" and isinstance(value, str):
        try:  # the matcher's place of an error is that in a grammar around it
            json.loads(value)
        except ValueError as error:
            raise UserError(f"the schema is no JSON: {error}") from error
    return Grammar(kind, value if isinstance(value, str) else json.dumps(value)).checked()


class GrammarTokenizer:
    """A vocabulary as the matcher reads it; made once, which takes up to a second."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415 - seldom used

        if not vocabulary.eog:
            raise UserError("this model has no token that ends a reply, which a grammar needs")
        self.n_tokens = vocabulary.n_tokens
        self.eog = vocabulary.eog
        described = _Described(vocabulary)
        self.texts = [token.removeprefix(_CONTROL) for token in described.tokens]
        """Of each token, control tokens by their names."""
        wrapper = TokenizerWrapper(described)
        self.handle: LLTokenizer = LLTokenizer(wrapper, eos_token=sorted(vocabulary.eog))

    def matcher(self, grammar: Grammar) -> "LLMatcher":
        """At the start of a reply. Raises UserError for a grammar that cannot be kept."""
        from llguidance import LLMatcher  # noqa: PLC0415 - seldom used

        matcher = LLMatcher(self.handle, grammar.compiled(self.handle), log_level=0)
        if matcher.is_error():
            raise UserError(f"the {grammar.kind} cannot be kept: {matcher.get_error()}")
        return matcher


class _Described:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = min(vocabulary.eog)
        self.tokens = [
            vocabulary.piece(i) or _CONTROL + vocabulary.text(i).encode()
            for i in range(vocabulary.n_tokens)
        ]
        self.special_token_ids = [i for i, t in enumerate(self.tokens) if t.startswith(_CONTROL)]

    def __call__(self, text: bytes | str) -> list[int]:
        said = text.decode(errors="replace") if isinstance(text, bytes) else text
        return self._vocabulary.tokenize(said, add_special=False, parse_special=False, goes_on=True)


class _Beginning:
    """Finds the place in a reply from which its grammar counts, behind `pattern`.

    Only what is new of a reply is looked at, with the tokens before that a mark may begin in.
    """

    def __init__(self, pattern: str, texts: Sequence[bytes]) -> None:
        self._pattern = re.compile(pattern.encode())
        self._texts = texts
        self._seen: list[int] = []
        self._place: int | None = None

    def of(self, said: list[int]) -> int | None:
        """How many tokens come before it; None: it has not come."""
        n_shared = shared_prefix(self._seen, said)
        if self._place is not None and n_shared >= self._place:
            return self._place
        self._seen, start = said, max(0, n_shared - LONGEST_MARK)
        self._place = self._found(said, start)
        return self._place

    def _found(self, said: list[int], start: int) -> int | None:
        text = b"".join(self._texts[token] for token in said[start:])
        found = self._pattern.search(text)
        if found is None:
            return None
        ends = accumulate(len(self._texts[token]) for token in said[start:])
        return next(i for i, end in enumerate(ends, start + 1) if end >= found.end())


class Constraint:
    """One reply's: which tokens may follow its history, of which `n_prompt` are the prompt's.

    Before its grammar counts (`Grammar.after`) all may but those that end the reply.
    """

    def __init__(
        self, matcher: "LLMatcher", tokenizer: GrammarTokenizer, n_prompt: int, after: str = ""
    ) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._n_prompt = n_prompt
        self._beginning = _Beginning(after, tokenizer.texts) if after else None
        self._ends = np.array(sorted(tokenizer.eog), np.int64)
        self._taken: list[int] = []

    @classmethod
    def of(cls, grammar: Grammar, tokenizer: GrammarTokenizer, n_prompt: int) -> Self:
        """Raises UserError for a grammar that cannot be kept."""
        return cls(tokenizer.matcher(grammar), tokenizer, n_prompt, grammar.after)

    def allows(self, history: Sequence[int], token: int) -> bool:
        """Whether `token` may follow; much cheaper than all that may."""
        said = self._counting(history)
        if said is None:
            return token not in self._tokenizer.eog
        if self._is_over(said):
            return True
        if token in self._tokenizer.eog:
            return self._matcher.is_accepting()
        return self._matcher.validate_tokens([token]) == 1

    def allowed(self, history: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Of each token whether it may follow, shape (n_vocab,). Raises UserError where none may,
        as with a schema that is its own part, or where the matcher gives up."""
        n_tokens = self._tokenizer.n_tokens
        said = self._counting(history)
        if said is None or self._is_over(said):
            allowed = np.ones(n_tokens, np.bool_)
            allowed[self._ends] = said is not None
            return allowed
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(mask, count=n_tokens, bitorder="little").astype(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            reason = self._matcher.get_error().partition("\n")[0]
            reason = NO_TOKEN if not reason or reason.startswith("NoExtension") else reason
            raise UserError(f"the grammar cannot be followed further: {reason}")
        return allowed

    def forced(self, history: Sequence[int]) -> list[int]:
        """The usual tokens of the text that must follow, perhaps none."""
        said = self._counting(history)
        is_free = said is None or self._is_over(said)
        return [] if is_free else self._matcher.compute_ff_tokens()

    def is_done(self, history: Sequence[int]) -> bool:
        """Whether nothing but an end may follow."""
        said = self._counting(history)
        return said is not None and not self._is_over(said) and self._matcher.is_stopped()

    def _counting(self, history: Sequence[int]) -> list[int] | None:
        """The part of a reply that the grammar speaks of; None: it has not begun."""
        said = list(history[self._n_prompt :])
        n_before = self._beginning.of(said) if self._beginning else 0
        return None if n_before is None else said[n_before:]

    def _is_over(self, said: list[int]) -> bool:
        """Follow what was said; whether a token in it has ended the reply."""
        n_shared = shared_prefix(self._taken, said)
        if n_shared < len(self._taken):
            self._matcher.rollback(len(self._taken) - n_shared)
        new = said[n_shared:]
        end = next((i for i, token in enumerate(new) if token in self._tokenizer.eog), len(new))
        if end and not self._matcher.consume_tokens(new[:end]):
            raise EngineError(f"the reply left its grammar: {self._matcher.get_error()}")
        self._taken = said[: n_shared + end]
        return end < len(new)
