"""A stream of text, split into what a model thinks and what it says at `<think>` and `</think>`.

Only a section that opens the answer is reasoning; tags further down are text, as in an answer about
them.
"""

from dataclasses import dataclass

from localspec.dialogue.stream import overlap

OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """Text of an answer, all of one kind."""

    text: str
    is_thought: bool


def opens_thought(prompt: str) -> bool:
    """Whether the template begins the answer's reasoning in the prompt itself."""
    return prompt.rstrip().endswith(OPEN)


class Thoughts:
    """Splits pieces of text; holds back what may be the beginning of a tag."""

    def __init__(self, *, in_thought: bool) -> None:
        self.in_thought = in_thought
        self._is_decided = in_thought
        self._held = ""

    def feed(self, text: str) -> list[AnswerPart]:
        """The parts that are certain now."""
        if self._is_decided and not self.in_thought:
            return [AnswerPart(text, is_thought=False)]
        self._held += text
        return self._thinking() if self.in_thought else self._opening()

    def finish(self) -> list[AnswerPart]:
        """What was held back."""
        rest, self._held = self._held, ""
        return [AnswerPart(rest, is_thought=self.in_thought)] if rest else []

    def _opening(self) -> list[AnswerPart]:
        start = self._held.lstrip()
        if start.startswith(OPEN):
            self._held, self.in_thought, self._is_decided = start[len(OPEN) :], True, True
            return self._thinking()
        if OPEN.startswith(start):
            return []
        self._is_decided = True
        return self.finish()

    def _thinking(self) -> list[AnswerPart]:
        thought, closed, said = self._held.partition(CLOSE)
        if closed:
            self._held, self.in_thought = "", False
            parts = [
                AnswerPart(thought, is_thought=True),
                AnswerPart(said.lstrip(), is_thought=False),
            ]
            return [part for part in parts if part.text]
        n_certain = len(thought) - overlap(thought, CLOSE)
        self._held = thought[n_certain:]
        return [AnswerPart(thought[:n_certain], is_thought=True)] if n_certain else []
