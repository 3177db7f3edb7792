"""`generate --jsonl`: many prompts over one loaded model, several at once, answers in their order.

A line is a JSON string, or an object with `prompt` or `messages`; its other fields are keywords of
the Python API and go before the options. A line that is wrong, or fails, gets its sentence.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.prompt_flags import PromptFlags, read_prompts
from localspec.errors import LocalspecError, UserError

if TYPE_CHECKING:
    from localspec.api import Model
    from localspec.session.reply import Reply

Document = Callable[["Reply"], dict[str, Any]]
_OWN = ("id", "prompt", "messages", "system")


class PromptLines:
    """The lines of a file; `keywords` are those that the options gave."""

    def __init__(self, flags: PromptFlags, system: str | None, keywords: Mapping[str, Any]) -> None:
        assert flags.jsonl is not None
        self._flags, self._system, self._keywords = flags, system, keywords
        self._texts = read_prompts(flags.jsonl)

    @property
    def n_prompts(self) -> int:
        """Lines with something in them; 1 at the least."""
        return max(1, sum(bool(text.strip()) for text in self._texts.split("\n")))

    def answer(self, model: "Model", document: Document) -> int:
        """Print an answer a line; how many have none. Raises KeyboardInterrupt."""
        n_failed = 0
        for answer in self._answers(model, document):
            n_failed += "error" in answer
            typer.echo(json.dumps(answer, allow_nan=False))
        return n_failed

    def _answers(self, model: "Model", document: Document) -> Iterator[dict[str, Any]]:
        from localspec.serve.many import AHEAD, Many
        from localspec.serve.server import Load, scheduler_of

        heads: list[dict[str, Any]] = []
        scheduler = scheduler_of(model.session, Load(n_waiting=AHEAD))
        asked = self._asked(model, heads)
        for i, found in Many(scheduler, model.session.target.interrupt, asked).answered():
            is_wrong = isinstance(found, LocalspecError)
            yield heads[i] | ({"error": str(found)} if is_wrong else document(found))

    def _asked(
        self, model: "Model", heads: list[dict[str, Any]]
    ) -> Iterator["Reply | LocalspecError"]:
        """Replies that have not begun; `heads` is told of which line."""
        for n, text in enumerate(self._texts.split("\n"), 1):
            if not text.strip():
                continue
            heads.append({"line": n})
            try:
                asked = _read(text)
                heads[-1] |= {"id": asked["id"]} if "id" in asked else {}
                yield self._reply(model, asked)
            except LocalspecError as error:
                yield error

    def _reply(self, model: "Model", asked: Mapping[str, Any]) -> "Reply":
        more = {name: value for name, value in asked.items() if name not in _OWN}
        return model.stream(self._prompt(asked), raw=self._flags.raw, **{**self._keywords, **more})

    def _prompt(self, asked: Mapping[str, Any]) -> Any:
        given = [name for name in ("prompt", "messages") if name in asked]
        if len(given) != 1:
            raise UserError("the line has no prompt and no messages, or both: give one of them")
        if given == ["messages"]:
            if self._flags.raw:
                raise UserError("--raw takes a prompt, and the line has messages")
            return asked["messages"]
        from localspec.dialogue.prompts import checked_text

        text, system = checked_text(asked["prompt"]), asked.get("system", self._system)
        return self._flags.messages(text, system and checked_text(system))


def _read(text: str) -> dict[str, Any]:
    """A line's fields. UserError for what is neither an object nor a text."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the line is no JSON ({error}): write an object or a string") from error
    if isinstance(line, str):
        return {"prompt": line}
    if not isinstance(line, dict):
        raise UserError("the line is neither an object nor a string")
    for name in ("sampling", "raw", "split_thought", "asked"):
        if name in line:
            raise UserError(f"the line has {name!r}, which is no field of a line")
    return line
