"""One reply as text while it is generated, with its statistics; a model makes one at a time."""

import threading
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from time import perf_counter
from typing import Any

from localspec.decode.generation import FinishReason, Generation
from localspec.decode.logprobs import TokenLogprobs
from localspec.decode.speculator import Gain, Speculator
from localspec.decode.stats import DraftStats, Timings, summary
from localspec.decode.step import Step
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.markup import AnswerPart
from localspec.dialogue.tools import calls_of
from localspec.engine.interrupt import Interrupt
from localspec.errors import LocalspecError, UserError
from localspec.hardware.energy import Meter
from localspec.session.reply_options import ReplyOptions


class Turns:
    """The turn of replies on a context that holds one at a time, for any thread.

    `evaluating` is held while the engine works for a reply, so that it is not freed meanwhile.
    """

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt
        self.meter = Meter.here()
        self.evaluating = threading.Lock()
        self.is_closed = False
        self._taken = threading.Lock()
        self.running: Reply | None = None

    def check(self) -> None:
        """UserError after `close`."""
        if self.is_closed:
            raise UserError("the model is closed: load it again")

    @contextmanager
    def taken_by(self, reply: "Reply") -> Generator[None]:
        """While this reply runs. UserError where another one does, or after `close`."""
        self.check()
        if not self._taken.acquire(blocking=False):
            raise UserError(
                "the model is busy with another reply: finish or leave that one first, or load the"
                " model a second time"
            )
        self.running = reply
        try:
            yield
        finally:
            self.running = None
            self._taken.release()

    @contextmanager
    def closed(self) -> Generator[None]:
        """End the reply that runs, as soon as its pass is over; the engine can be freed inside."""
        self.is_closed = True
        if running := self.running:
            running.stop()
        with self.evaluating:
            yield


def parsed(
    step: Step, n_before: int, generation: Generation, parser: AnswerParser
) -> tuple[Step, list[AnswerPart]]:
    """The parts that a step behind `n_before` tokens has made certain; reply and step end at a stop
    text."""
    parts: list[AnswerPart] = []
    for n, token in enumerate(step.tokens, 1):
        parts += parser.push(token)
        if parser.stops and parser.is_stopped:
            generation.cut(n_before + n)
            return step.cut(n), parts
    return step, parts


class Reply:
    """What a model says to a prompt. Iterate over it, once, for pieces of text as they come.

    `text`, `thought`, `tool_call`, `tokens`, `steps`, `stats` and `timings` grow meanwhile. `text`
    is a str and the pieces together; `thought` is the reasoning without its marks and `tool_call`
    the text of tool calls with theirs; both are empty where there is none. `said` is text and tool
    calls in their order. `stats` counts drafted and accepted tokens and passes of the target;
    `timings` has seconds (`prefill_s`, `ttft_s`, `decode_s`), tokens per second (`prefill_tps`,
    `decode_tps`) and `joules_per_token`; `options` is how the reply is made, with the drawn seed.

    Ctrl-C in the main thread, `stop()`, or leaving the loop ends it with what it has
    (`finish_reason` "interrupted"); a second Ctrl-C raises. Iterating raises UserError where the
    model is busy with another reply or closed, EngineError or ModelError where the engine fails.
    """

    def __init__(
        self,
        generation: Generation,
        pass_steps: Iterator[Step],
        parser: AnswerParser,
        options: ReplyOptions,
        turns: Turns,
        speculator: Speculator,
    ) -> None:
        self.text = self.thought = self.tool_call = self.said = ""
        self.options = options
        self.steps, self._times, self._n_counted = list[Step](), list[float](), 0
        self._stats, self._timings = DraftStats(), Timings()
        self._generation, self._pass_steps = generation, pass_steps
        self._parser, self._turns, self._speculator = parser, turns, speculator
        self.is_stopped = False

    def __repr__(self) -> str:
        return f"<Reply {self.text!r}, {len(self.tokens)} tokens, ended by {self.finish_reason}>"

    @property
    def stats(self) -> DraftStats:
        """Passes and drafts so far."""
        self._count()
        return self._stats

    @property
    def timings(self) -> Timings:
        """When its tokens came."""
        self._count()
        return self._timings

    def _count(self) -> None:
        """Steps are counted when somebody asks: after a pass the processor's caches are empty."""
        n = self._n_counted
        for step, now in zip(self.steps[n:], self._times[n:], strict=False):  # a thread adds more
            self._stats.add(step)
            self._timings.add(step, now)
            self._n_counted += 1

    @property
    def tokens(self) -> list[int]:
        """Emitted ids, without the end of generation."""
        return self._generation.tokens

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """Calls as OpenAI writes them, with `id`, `type` and `function`: its `name`, and
        `arguments` as JSON. Empty where `tool_call` is no known form."""
        return calls_of(self.tool_call) or []

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """How likely each of `tokens` was; empty where nobody asked for it."""
        return self._generation.logprobs

    @property
    def n_thought_tokens(self) -> int:
        """Tokens of the reasoning, without its marks."""
        return self._parser.n_tokens.get("thought", 0)

    @property
    def n_prompt_tokens(self) -> int:
        return self._generation.n_prompt

    @property
    def acceptance(self) -> float | None:
        """Share of drafted tokens that were accepted, 0 to 1; None without drafts."""
        return self.stats.accepted / self.stats.drafted if self.stats.drafted else None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended: "stop" (by itself, or at a stop text), "length" (`max_tokens`), "context"
        (it is full), "interrupted" or "failed"; None before it has."""
        return self._generation.finish_reason

    @property
    def gain(self) -> Gain:
        """Times plain speed, expected and measured; unknown without an adaptive policy."""
        return self._speculator.gain

    @property
    def speculation_summary(self) -> str:
        """What speculation did and why, in one line; empty where there was none."""
        return summary(self.stats, self.gain, self._speculator.reason)

    def __iter__(self) -> Generator[str]:
        """Generate; yields text as soon as it is certain."""
        with closing(self.by_step()) as steps:
            for parts in steps:
                for part in parts:
                    if part.kind == "text":
                        yield part.text

    def by_step(self) -> Generator[list[AnswerPart]]:
        """Generate; yields the parts of each step, perhaps none, and last what was held back."""
        if self._generation.finish_reason is not None:
            return
        with self._turns.taken_by(self):
            self._timings.started = perf_counter()
            try:
                with self._turns.interrupt:
                    while (parts := self._next()) is not None:
                        yield parts
            except LocalspecError:
                self._generation.finish("failed")
                raise
            finally:
                # A caller that leaves early closes this generator.
                self._generation.finish("interrupted")
                if self._turns.meter.tells:
                    spent = self._turns.meter.stop()
                    self._timings.decode_j = spent and spent.joules
        yield self._keep(self._parser.finish())

    def finish(self) -> "Reply":
        """Generate to the end."""
        for _ in self.by_step():
            pass
        return self

    @property
    def parts_to_make(self) -> tuple[Generation, AnswerParser]:
        """For whoever makes it together with others, and tells it by `hear` and `settle`."""
        return self._generation, self._parser

    def hear(self, parts: Sequence[AnswerPart]) -> None:
        """More of it is certain."""
        self._keep(list(parts))

    def settle(self, stats: DraftStats, timings: Timings) -> None:
        """It is over."""
        self._stats, self._timings = stats, timings

    def stop(self) -> None:
        """End it within a step, from any thread; its text stays."""
        self.is_stopped = True
        if self._turns.running is self:
            self._turns.interrupt.request()

    def _next(self) -> list[AnswerPart] | None:
        """The parts of the next step; None: it is over."""
        generation = self._generation
        with self._turns.evaluating:
            if self.is_stopped:
                generation.finish("interrupted")
            step = next(self._pass_steps, None)
        if step is None:
            return None
        n_before = len(generation.history) - generation.n_prompt - len(step.tokens)
        step, parts = parsed(step, n_before, generation, self._parser)
        self.steps.append(step)
        self._times.append(perf_counter())
        if len(self.steps) == 1 and step.tokens and self._turns.meter.tells:
            self._turns.meter.start()
        return self._keep(parts)

    def _keep(self, parts: list[AnswerPart]) -> list[AnswerPart]:
        """Add what has become certain."""
        for part in parts:
            if part.kind == "thought":
                self.thought += part.text
                continue
            self.said += part.text
            if part.kind == "text":
                self.text += part.text
            else:
                self.tool_call += part.text
        return parts


class AsyncPieces(AsyncIterator[str]):
    """The pieces of a reply for `async for`; `reply` is the reply itself, which grows meanwhile."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self._pieces = iter(reply)

    async def __anext__(self) -> str:
        import asyncio  # noqa: PLC0415 - only who awaits has it

        pull = asyncio.get_running_loop().run_in_executor(None, next, self._pieces, None)
        try:
            piece = await asyncio.shield(pull)
        except asyncio.CancelledError:
            self.reply.stop()
            with suppress(Exception):
                await pull
            self.close()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """End the reply where it is."""
        self.reply.stop()
        with suppress(ValueError):  # a thread is in it, and ends it now
            self._pieces.close()

    def __del__(self) -> None:
        # A caller that leaves the loop finds the model free at once.
        self.close()
