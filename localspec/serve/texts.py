"""Prompts without a chat template: texts, token ids, both in one, and a middle to fill in.

What a prompt by hand spells as control tokens is meant. The parts of a middle that is to be filled
in are text alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.engine.vocabulary import FimTokens
from localspec.serve.problem import refused
from localspec.serve.turns import utf8
from localspec.session.session import Session

TEXT_KEY, MEDIA_KEY = "prompt_string", "multimodal_data"
SNIP = "\n\n--- snip ---\n\n"
"""Between other files, for models that know no mark of a file."""
PROJECT, FILE = "project\n", "file\n"


@dataclass(frozen=True, slots=True)
class Texts:
    """Makes token ids for a loaded model."""

    session: Session

    def prompts(self, given: Mapping[str, Any]) -> list[list[int]]:
        """Of `prompt`, which is one or several; with `suffix` the middle before it is wanted."""
        suffix, asked = given.get("suffix"), given.get("prompt")
        several = [asked] if _is_one(asked) else asked
        if not isinstance(several, list) or not several:
            raise refused("prompt is neither a text nor a list with something in it", "prompt")
        if suffix:
            return [self.middle(each, utf8(suffix, "suffix")) for each in several]
        return [self._ids(each) for each in several]

    def middle(self, before: Any, suffix: str) -> list[int]:
        """For what stands between a text and `suffix`."""
        if not isinstance(before, str):
            raise refused("prompt with a suffix is a text", "prompt")
        marks = self.marks("suffix")
        parts = [marks.prefix, *self._plain(utf8(before, "prompt"))]
        return self._begun([*parts, marks.suffix, *self._plain(suffix), marks.middle])

    def infill(self, given: Mapping[str, Any]) -> list[int]:
        """Of /infill: other files, what stands before and behind, and how the middle begins."""
        marks = self.marks("input_prefix")
        texts = [utf8(given.get(name, ""), name) for name in ("input_prefix", "input_suffix")]
        before, behind = map(self._plain, texts)
        begun = self._plain(utf8(given.get("prompt", ""), "prompt"))
        around = [marks.prefix, *before, marks.suffix, *behind, marks.middle, *begun]
        return self._begun([*self._files(given.get("input_extra", []), marks), *around])

    def marks(self, field: str) -> FimTokens:
        """The model's. BadRequestError where it has none."""
        marks = self.session.target.vocabulary.fim
        if marks is None:
            sentence = "this model has no tokens for filling in a middle: use a model for code"
            raise refused(sentence, field)
        return marks

    def _files(self, extra: Any, marks: FimTokens) -> Iterator[int]:
        files = _files_of(extra)
        if files and marks.repo is not None:
            yield from (marks.repo, *self._plain(PROJECT))
        for name, text in files:
            head = self._plain(SNIP) if marks.file is None else self._head(marks.file, name)
            yield from (*head, *self._plain(text))
        if files and marks.file is not None:
            yield from self._head(marks.file, FILE)

    def _head(self, mark: int, name: str) -> list[int]:
        return [mark, *self._plain(name)]

    def _plain(self, text: str) -> list[int]:
        tokenize = self.session.target.vocabulary.tokenize
        return tokenize(text, add_special=False, parse_special=False, goes_on=True)

    def _begun(self, ids: list[int]) -> list[int]:
        """With what begins every text of the model."""
        return [*self.session.target.vocabulary.tokenize("", add_special=True), *ids]

    def _ids(self, prompt: Any) -> list[int]:
        """Of a text, ids, or a list of both, whose texts go on where something stands before."""
        if not _is_one(prompt):
            raise refused(f"prompt has {prompt!r}, which is neither a text nor ids", "prompt")
        parts = prompt if isinstance(prompt, list) else [prompt]
        vocabulary, ids = self.session.target.vocabulary, list[int]()
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(checked_id(part, vocabulary.n_tokens))
            elif i == 0:
                ids += self.session.raw_prompt(_text_of(part))
            else:
                ids += vocabulary.tokenize(_text_of(part), add_special=False, goes_on=True)
        if not ids:
            raise refused("the prompt is empty: give some text", "prompt")
        return ids


def _is_one(prompt: Any) -> bool:
    """Whether this is one prompt, and no list of several."""
    if isinstance(prompt, list):
        is_mixed = any(_is_id(each) for each in prompt)
        return is_mixed and all(_is_id(each) or isinstance(each, str) for each in prompt)
    return isinstance(prompt, str | Mapping)


def _text_of(part: Any) -> str:
    """Of a text, or of llama.cpp's object with a text in it."""
    if isinstance(part, Mapping):
        if part.get(MEDIA_KEY):
            raise refused(f"prompt has {MEDIA_KEY}: this server reads text", "prompt")
        part = part.get(TEXT_KEY)
    return utf8(part, "prompt")


def _files_of(extra: Any) -> list[tuple[str, str]]:
    """`input_extra`: names and texts."""
    if not isinstance(extra, Sequence) or isinstance(extra, str):
        raise refused("input_extra is no list", "input_extra")
    files: list[tuple[str, str]] = []
    for i, each in enumerate(extra):
        where = f"input_extra[{i}]"
        if not isinstance(each, Mapping) or "text" not in each:
            raise refused(f"{where} has no text", where)
        name = utf8(each.get("filename", FILE.strip()), f"{where}.filename")
        files.append((name + "\n", utf8(each["text"], f"{where}.text")))
    return files


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def checked_id(value: Any, n_vocab: int, field: str = "prompt") -> int:
    """BadRequestError for what is no id of the model."""
    if not _is_id(value) or not 0 <= value < n_vocab:
        raise refused(
            f"{field} has the id {value!r}, and the model's are 0 to {n_vocab - 1:,}", field
        )
    return value
