"""One reply as text while it comes, with its account."""

from collections.abc import Iterator
from time import perf_counter

from localspec.decode.generation import FinishReason, Generation
from localspec.decode.speculator import Gain, Speculator
from localspec.decode.stats import DraftStats, Timings, summary
from localspec.decode.step import Step
from localspec.dialogue.stream import TextStream
from localspec.engine.base import Vocabulary
from localspec.engine.interrupt import Interrupt


class Reply:
    """Iterate once for pieces of text; `text`, `steps`, `stats` and `timings` grow with them.

    While it runs, Ctrl-C ends it with what it has (`finish_reason` "interrupted"); a second one
    raises.
    """

    def __init__(
        self,
        generation: Generation,
        pass_steps: Iterator[Step],
        vocabulary: Vocabulary,
        stop: tuple[str, ...],
        interrupt: Interrupt,
        speculator: Speculator,
    ) -> None:
        self.text = ""
        self.steps: list[Step] = []
        self.stats = DraftStats()
        self.timings = Timings()
        self._generation = generation
        self._pass_steps = pass_steps
        self._vocabulary = vocabulary
        self._stream = TextStream(stop)
        self._interrupt = interrupt
        self._speculator = speculator

    @property
    def gain(self) -> Gain:
        """Times plain speed, as expected and as it came; unknown without an adaptive policy."""
        return self._speculator.gain

    @property
    def speculation_summary(self) -> str:
        """What speculation did and why, in one line; empty where there was none."""
        return summary(self.stats, self.gain, self._speculator.reason)

    @property
    def tokens(self) -> list[int]:
        """Emitted ids, without the end of generation."""
        return self._generation.tokens

    @property
    def n_prompt_tokens(self) -> int:
        return self._generation.n_prompt

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None before it has."""
        return self._generation.finish_reason

    def __iter__(self) -> Iterator[str]:
        """Generate; yields text as soon as it is certain."""
        self.timings.start(perf_counter())
        with self._interrupt:
            for step in self._pass_steps:
                yield self._take(step)
        rest = self._stream.finish()
        self.text += rest
        yield rest

    def finish(self) -> "Reply":
        """Generate to the end."""
        for _ in self:
            pass
        return self

    def _take(self, step: Step) -> str:
        n_before = self._generation.n_tokens - len(step.tokens)
        text = ""
        for n, token in enumerate(step.tokens, n_before + 1):
            text += self._stream.push(self._vocabulary.piece(token))
            if self._stream.is_stopped:
                self._generation.cut(n)
                step = step.cut(n - n_before)
                break
        self.text += text
        self.steps.append(step)
        self.stats.add(step)
        self.timings.add(step, perf_counter())
        return text
