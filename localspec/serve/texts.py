"""What a request says: messages for the model's chat template, or a prompt without one.

A prompt is a text, token ids, or both in one; or what stands around a middle to fill in. What a
prompt by hand spells as control tokens is meant. The parts of a middle that is to be filled in are
text alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.dialogue.prompts import made_call, without_empty_answers
from localspec.dialogue.template import Message
from localspec.engine.vocabulary import FimTokens
from localspec.serve.problem import refused
from localspec.serve.request_body import among
from localspec.session.session import Session

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant",
          "tool": "tool", "function": "tool"}  # fmt: skip
_UNREAD = ("images", "audio", "videos")
"""What other servers take beside a message's content."""
TEXTS = ("text", "input_text", "output_text", "refusal")


def messages_of(asked: Any) -> list[Message]:
    """Messages for the template. BadRequestError names the one that is wrong."""
    if not isinstance(asked, list) or not asked:
        raise refused("messages is no list with something in it: send at least one", "messages")
    said = [_message(each, f"messages[{i}]") for i, each in enumerate(asked)]
    said = said if any(each.get("tool_calls") for each in said) else without_empty_answers(said)
    if not any(each["content"].strip() for each in said):
        raise refused("the messages say nothing: give some text", "messages")
    return said


def continues(given: Mapping[str, Any], said: Sequence[Message]) -> bool:
    """Whether the answer goes on where the last message ends, as it does behind an assistant's
    text. `continue_final_message` says otherwise, `add_generation_prompt` the opposite."""
    last: Mapping[str, Any] = said[-1]
    can = last["role"] == "assistant" and bool(last["content"].strip())
    can = can and not last.get("tool_calls")
    wanted, asks = given.get("continue_final_message"), given.get("add_generation_prompt")
    for name, value in (("continue_final_message", wanted), ("add_generation_prompt", asks)):
        if not isinstance(value, bool | None):
            raise refused(f"{name} {value!r} is neither true nor false", name)
    if wanted and asks:
        sentence = "continue_final_message and add_generation_prompt exclude each other"
        raise refused(sentence, "continue_final_message")
    if wanted and not can:
        sentence = "continue_final_message: the last message is no text of the assistant's"
        raise refused(sentence, "continue_final_message")
    if asks is False and not can:
        sentence = "add_generation_prompt: false needs a text of the assistant's to go on with"
        raise refused(sentence, "add_generation_prompt")
    if wanted is None and asks is None and can and _is_second(said):
        sentence = "the last two messages are texts of the assistant's: join them"
        raise refused(sentence, f"messages[{len(said) - 1}]")
    return can and not asks if wanted is None else wanted


def _is_second(said: Sequence[Message]) -> bool:
    """Whether a text of the assistant's stands before the last one."""
    before = said[-2] if len(said) > 1 else None
    return before is not None and before["role"] == "assistant" and bool(before["content"].strip())


def _message(given: Any, where: str) -> Message:
    role = given.get("role") if isinstance(given, Mapping) else None
    if not among(role, _ROLES):
        raise refused(f"{where} has no role that is one of {', '.join(_ROLES)}", where)
    between = "\n\n" if role == "assistant" else "\n"  # as llama.cpp joins an answer's beginning
    if unread := next((name for name in _UNREAD if given.get(name)), None):
        raise refused(f"{where} has {unread}: this server reads text", where)
    content = _content(given.get("content"), f"{where}.content", between)
    made: dict[str, Any] = {"role": _ROLES[role], "content": content}
    thought = given.get("reasoning_content") or given.get("reasoning")
    if thought is not None:
        made["thought"] = utf8(thought, f"{where}.reasoning_content")
    if calls := _calls(given, where):
        made["tool_calls"] = calls
    for name in ("tool_call_id", "name"):
        if given.get(name) is not None:
            made[name] = utf8(given[name], f"{where}.{name}")
    if role == "user" and not content.strip():
        raise refused(f"{where} says nothing: give some text", where)
    message: Any = made
    return message


def _content(content: Any, where: str, between: str) -> str:
    """A text, or several of them as parts with a text between them."""
    if content is None:
        return ""
    if isinstance(content, str):
        return utf8(content, where)
    texts: list[str] = []
    for part in _list(content, where):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not among(kind, TEXTS):
            raise refused(f"{where} has a part of type {kind!r}: this server reads text", where)
        texts.append(utf8(part.get("text", part.get("refusal")), where))
    return between.join(texts)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise refused(f"{where} is neither a text nor a list", where)
    return value


def tools_of(given: dict[str, Any], made: Callable[[Any, str], dict[str, Any]]) -> dict[str, Any]:
    """`tools` of another protocol as OpenAI's; none where none are given."""
    tools = given.pop("tools", [])
    if not isinstance(tools, list):
        raise refused("tools is no list", "tools")
    return {"tools": [made(each, f"tools[{i}]") for i, each in enumerate(tools)]} if tools else {}


def utf8(text: Any, where: str) -> str:
    """A text of a request. BadRequestError for anything else, and for half a character."""
    if not isinstance(text, str):
        raise refused(f"{where} is no text", where)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refused(f"{where} cannot be written in UTF-8: {error}", where) from error
    return text


def _calls(given: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Those of a message; there was a field for one before there were tools."""
    if function := given.get("function_call"):
        return [_call({"function": function}, f"{where}.function_call")]
    calls = given.get("tool_calls") or []
    return [_call(call, f"{where}.tool_calls") for call in _list(calls, where)]


def _call(call: Any, where: str) -> dict[str, Any]:
    try:
        return made_call(call)
    except ValueError as error:
        raise refused(f"{where} has {error}", where) from error


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
