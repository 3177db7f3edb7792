"""A loaded target, its drafter, and one context that each reply builds on."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Self

from localspec.decode.drafters import drafters_for
from localspec.decode.driver import drive
from localspec.decode.generation import Generation, Limits
from localspec.decode.policy import Adaptive
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.dialogue.template import ChatTemplate, Message, Prompts
from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.errors import UserError
from localspec.notify import Notify, Progress
from localspec.session.calibration import LearnedStore, fastest_draft
from localspec.session.config import ReplyOptions, SessionConfig
from localspec.session.loading import EnginePlan, check_pair, load_engine, sound_plan
from localspec.session.reply import Reply, Turns
from localspec.settings import Speculation

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine


def _load_draft(plan: EnginePlan, interrupt: Interrupt) -> tuple[EnginePlan, "LlamaEngine"]:
    def load(config: EngineConfig) -> "LlamaEngine":
        if interrupt.requested:
            raise Interrupted
        return load_engine(config, interrupt, lambda fraction: None)

    assert plan.draft
    config = fastest_draft(plan.draft, load)
    return replace(plan, draft=config), load(config)


class Session:
    """Close it, or use it in a `with` statement. One reply at a time."""

    def __init__(
        self, plan: EnginePlan, target: "LlamaEngine", draft: "LlamaEngine | None"
    ) -> None:
        self.plan = plan
        self.target = target
        self.draft = draft
        self.load_s = 0.0
        self.context = target.context()
        self._turns = Turns(target.interrupt)
        self._store: LearnedStore | None = None
        self._drafters = drafters_for(target, draft)

    @classmethod
    def open(
        cls,
        config: SessionConfig,
        notify: Notify = lambda message: None,
        on_progress: Progress = lambda fraction: None,
    ) -> Self:
        """Check what can be checked without loading, then load.

        `notify` hears what the user should know, `on_progress` the loaded fraction of the target.
        Raises LocalspecError, or KeyboardInterrupt if Ctrl-C came meanwhile.
        """
        plan = sound_plan(config, notify)
        started = perf_counter()
        target = draft = None
        try:
            with Interrupt() as interrupt:
                target = load_engine(plan.target, interrupt, on_progress)
                plan = plan.limited_by(target, notify)
                if plan.draft:
                    plan, draft = _load_draft(plan, interrupt)
                    check_pair(target, draft)
                session = cls(plan, target, draft)
                session.prepare()
                if interrupt.requested:
                    raise Interrupted
        except BaseException as error:
            for engine in (draft, target):
                if engine:
                    engine.close()
            if isinstance(error, Interrupted):
                raise KeyboardInterrupt from None
            raise
        session.load_s = perf_counter() - started
        return session

    def prepare(self) -> None:
        """Load or measure the costs of passes, if drafts are chosen by them."""
        if self.speculation != "auto":
            return
        self._store = LearnedStore(self.plan, self.target, self.draft)
        self._store.load()

    def forget(self) -> None:
        """Drop the texts that drafters have indexed, as if each reply were the first."""
        for drafter in self._drafters.values():
            drafter.forget()

    def close(self) -> None:
        """Keep the learned costs and free the models; a second call does nothing.

        A reply that runs ends first, as interrupted.
        """
        with self._turns.closed():
            if self._store:
                self._store.keep()
                self._store = None
            for engine in (self.draft, self.target):
                if engine:
                    engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def check_open(self) -> None:
        """Raise UserError after `close`."""
        self._turns.check()

    @property
    def n_ctx(self) -> int:
        return self.plan.target.n_ctx

    @property
    def speculation(self) -> Speculation:
        """The kind of drafter in use."""
        return self.plan.spec if self.plan.max_draft else "none"

    @cached_property
    def prompts(self) -> Prompts:
        """Messages to prompts of the target. ModelError where its chat template is broken."""
        vocabulary = self.target.vocabulary
        source, bos, eos = vocabulary.chat_template, vocabulary.bos_text, vocabulary.eos_text
        template = None if source is None else ChatTemplate(source, bos, eos)
        return Prompts(template, vocabulary, bos)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids that ask for the assistant's next turn; without a template, paragraphs."""
        return self.prompts.of(messages)

    def raw_prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued."""
        self.check_open()
        return self.target.vocabulary.tokenize(text, add_special=True)

    def reply(
        self,
        prompt: Sequence[int],
        options: ReplyOptions,
        speculator: Speculator | None = None,
    ) -> Reply:
        """A reply to a prompt of token ids, generated while it is iterated over.

        Your own `speculator` replaces the session's.
        Raises UserError for a prompt that is empty or longer than the context, or after `close`.
        """
        self.check_open()
        if not prompt:
            raise UserError("the prompt is empty: give some text")
        if len(prompt) > self.n_ctx:
            raise UserError(
                f"the prompt has {len(prompt):,} tokens and the context holds {self.n_ctx:,}: "
                "use a larger --ctx"
            )
        eog = self.target.vocabulary.eog
        sampling = options.sampling
        if options.ignore_eos:
            sampling = replace(sampling, banned=sampling.banned | eog)
        limits = Limits(
            n_ctx=self.n_ctx,
            max_tokens=options.max_tokens,
            stop_tokens=frozenset() if options.ignore_eos else eog,
        )
        generation = Generation(prompt, sampling, limits, options.verify)
        speculator = speculator or self._speculator(options)
        steps = drive(generation, self.context, speculator, self.target.interrupt)
        vocabulary = self.target.vocabulary
        return Reply(generation, steps, vocabulary, options, self._turns, speculator)

    def _speculator(self, options: ReplyOptions) -> Speculator:
        spec = options.spec or self.speculation
        learned = self._store and self._store.learned
        if spec == "auto" and learned:
            return Adaptive(learned, list(self._drafters.values()), self.plan.max_draft)
        drafter = self._drafters.get("lookup" if spec == "auto" else spec)
        n = self.plan.max_draft if options.draft_max is None else options.draft_max
        return Fixed(drafter, min(n, self.plan.max_draft)) if drafter else Plain()
