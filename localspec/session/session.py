"""A loaded target, its drafter, and one context that each reply builds on."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from localspec.dialogue.template import ChatTemplate, Message
from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.errors import UserError
from localspec.notify import Notify, Progress
from localspec.session.calibration import fastest_draft
from localspec.session.config import ReplyOptions, SessionConfig
from localspec.session.experience import Experiences
from localspec.session.loading import EnginePlan, check_pair, load_engine, sound_plan
from localspec.session.reply import Reply
from localspec.settings import Speculation
from localspec.speculate.adaptive import Adaptive
from localspec.speculate.drafters.base import Drafter
from localspec.speculate.drafters.model import ModelDrafter
from localspec.speculate.drafters.suffix import SuffixDrafter
from localspec.speculate.driver import drive
from localspec.speculate.generation import Generation, Limits
from localspec.speculate.length import DraftLength, Fixed

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
        self._experiences: Experiences | None = None
        self._suffix = SuffixDrafter()
        self._model = ModelDrafter(draft, target.vocabulary.n_tokens) if draft else None

    @classmethod
    def open(
        cls,
        config: SessionConfig,
        notify: Notify = lambda message: None,
        on_progress: Progress = lambda fraction: None,
    ) -> Self:
        """Check what can be checked without loading, then load.

        `talk` hears what the user should know, `on_progress` the loaded fraction of the target.
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
        """Load what is known of costs here, or measure it, where drafts are chosen by them."""
        if self.speculation != "auto":
            return
        self._experiences = Experiences(self.plan, self.target, self.draft)
        self._experiences.load()

    def forget(self) -> None:
        """Drop the texts that drafters have indexed, as if each reply were the first."""
        self._suffix.forget()
        if self._model:
            self._model.forget()

    def close(self) -> None:
        """Keep what was learned of costs and free the models; a second call does nothing."""
        if self._experiences:
            self._experiences.keep()
            self._experiences = None
        for engine in (self.draft, self.target):
            if engine:
                engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def n_ctx(self) -> int:
        return self.plan.target.n_ctx

    @property
    def speculation(self) -> Speculation:
        """What drafts are made with."""
        return self.plan.spec if self.plan.max_draft else "none"

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The model's chat template, None for a base model. ModelError where it is broken."""
        vocabulary = self.target.vocabulary
        if vocabulary.chat_template is None:
            return None
        return ChatTemplate(vocabulary.chat_template, vocabulary.bos_text, vocabulary.eos_text)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids that ask for the assistant's next turn; without a template, the messages as text."""
        if self.template is None:
            return self.raw_prompt("\n\n".join(message["content"] for message in messages))
        text = self.template.render(messages)
        vocabulary = self.target.vocabulary
        # Templates write BOS themselves where their model wants it; a second one would only confuse
        # it.
        has_bos = bool(vocabulary.bos_text) and text.startswith(vocabulary.bos_text)
        return vocabulary.tokenize(text, add_special=not has_bos)

    def raw_prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued."""
        return self.target.vocabulary.tokenize(text, add_special=True)

    def reply(
        self,
        prompt: Sequence[int],
        options: ReplyOptions,
        drafters: Sequence[Drafter] | None = None,
    ) -> Reply:
        """A reply to a prompt of token ids, generated while it is iterated over.

        Drafters of your own take the place of the session's.
        Raises UserError for a prompt that is empty or longer than the context.
        """
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
        policy = self._policy(options)
        generation = Generation(prompt, sampling, policy, limits, options.verify)
        interrupt = self.target.interrupt
        if drafters is None:
            drafters = self._drafters(options.spec or self.speculation)
        passes = drive(generation, self.context, drafters, interrupt)
        return Reply(generation, passes, self.target.vocabulary, options.stop, interrupt, policy)

    def _policy(self, options: ReplyOptions) -> DraftLength:
        spec = options.spec or self.speculation
        experience = self._experiences and self._experiences.experience
        if experience is None or spec != "auto":
            n = self.plan.max_draft if options.draft_max is None else options.draft_max
            return Fixed(min(n, self.plan.max_draft))
        regime = "greedy" if options.sampling.is_greedy else options.verify
        has_model = self._model is not None
        return Adaptive(experience, self.plan.max_draft, has_model=has_model, regime=regime)

    def _drafters(self, spec: Speculation) -> list[Drafter]:
        wanted: dict[Speculation, list[Drafter | None]] = {
            "auto": [self._suffix, self._model],
            "lookup": [self._suffix],
            "draft": [self._model],
            "none": [],
        }
        return [drafter for drafter in wanted[spec] if drafter]
