"""A loaded target, its drafter, and one context that each reply builds on."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Self

from localspec.decode.chances import Learned
from localspec.decode.drafters import drafters_for
from localspec.decode.driver import drive
from localspec.decode.policy import Adaptive
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.decode.step import Step
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.markup import PLAIN, UNOPENED, Markup, Opening
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.specials import Specials
from localspec.dialogue.tail import n_stable
from localspec.dialogue.template import Message, TemplateError
from localspec.dialogue.tools import CALL, TOOLS, knows_tools
from localspec.engine.interrupt import Interrupted
from localspec.engine.timing import TimedEngine, TimedHead
from localspec.hardware.activity import Watch
from localspec.notify import Notify, Progress, silent
from localspec.session.calibration import LearnedStore
from localspec.session.chat_template import choose_template
from localspec.session.disk_cache import KeptPrompts
from localspec.session.generations import (
    Generations,
    Prompting,
    TemplateValues,
    check_tools,
    constrained,
)
from localspec.session.loading import EnginePlan, check_pair, load_engine
from localspec.session.opening import Begun, load_head, opening
from localspec.session.reply import Reply, Turns
from localspec.session.reply_options import ReplyOptions, recommended_sampling
from localspec.session.session_config import SessionConfig
from localspec.settings import Speculation


class Session:
    """Close it, or use it in a `with` statement. One reply at a time."""

    def __init__(
        self,
        plan: EnginePlan,
        target: TimedEngine,
        draft: TimedEngine | None,
        notify: Notify = silent,
        head: TimedHead | None = None,
    ) -> None:
        self.plan = plan
        self.target = target
        self.draft = draft
        self.head = head
        self.notify = notify
        self.load_s = 0.0
        self.context = target.context()
        self.generations = Generations(target.vocabulary, plan.target.n_ctx)
        self.recommended = recommended_sampling(plan.facts.sampling)
        self._turns = Turns(target.interrupt)
        self._loading: Watch | None = None
        self._store: LearnedStore | None = None
        self._kept: KeptPrompts | None = None
        self._drafters = drafters_for(target, draft, head)
        self.speculation: Speculation = plan.spec if plan.max_draft else "none"
        """The kind of drafter in use."""

    @classmethod
    def open(
        cls,
        config: SessionConfig,
        notify: Notify = lambda message: None,
        on_progress: Progress = lambda fraction: None,
        *,
        talks: bool = False,
    ) -> Self:
        """Check what can be checked without loading, then load.

        `notify` hears what the user should know, `on_progress` the loaded fraction of the target.
        `talks`: the chat template will be used, so that a broken one costs no loading.
        Raises LocalspecError, or KeyboardInterrupt if Ctrl-C came meanwhile.
        """
        with opening(config, notify, on_progress, talks=talks) as begun:
            return cls.opened(begun)

    @classmethod
    def opened(cls, begun: Begun) -> Self:
        """The session that `opening` began. Raises as `open`."""
        plan, interrupt, notify = begun.plan, begun.interrupt, begun.notify
        target = draft = head = None
        try:
            target = load_engine(plan.target, interrupt, begun.on_progress, notify, begun.early)
            plan = plan.limited_by(target, notify)
            if plan.draft:
                draft = load_engine(plan.draft, interrupt, lambda fraction: None)
                check_pair(target, draft)
            if plan.head:
                plan, head = load_head(plan, target, notify)
            session = cls(plan, target, draft, notify, head)
            session._loading = begun.watch
            session._kept = KeptPrompts.of(begun.config, plan.target, session.context)
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
        session.load_s = begun.watch.elapsed_s
        return session

    def prepare(self) -> None:
        """Load or measure the costs of passes, if drafts are chosen by them."""
        if self.speculation == "auto":
            self.learned()

    def learned(self) -> Learned:
        """What passes cost here, loaded or measured once, and kept at the end."""
        if self._store is None:
            engines = self.target, self.draft, self.head
            self._store = LearnedStore(self.plan, *engines, self._loading)
        return self._store.learned or self._store.load()

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
            if self._kept:
                self._kept.keep()
                self._kept = None
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

    def leave_thread(self) -> None:
        """This thread, which has loaded the model, computes no more; another one will."""
        binding = sys.modules.get("localspec.engine.llama.binding")  # another process has its own
        if binding:
            binding.disband()

    @property
    def n_ctx(self) -> int:
        return self.plan.target.n_ctx

    @cached_property
    def prompting(self) -> Prompting:
        """How the target is asked."""
        chosen = choose_template(self.plan.facts.tokenizer, self.plan.template)
        return Prompting(chosen, self.target.vocabulary, self.notify)

    @property
    def prompts(self) -> Prompts:
        """Messages to prompts of the target. ModelError where its chat template is broken."""
        return self.prompting.prompts()

    def prompts_for(self, options: ReplyOptions, now: datetime | None = None) -> Prompts:
        """The same as a reply's options and the date of a conversation want it."""
        args = options.template_args
        if options.tools:
            check_tools(self.prompts.template)
            args = {**args, TOOLS: list(options.tools.told)}
        return self.prompting.prompts(TemplateValues(options.think, args, now))

    @cached_property
    def markup(self) -> Markup:
        """The marks of the target's thoughts and tool calls."""
        template = self.prompts.template
        return Markup.of(template.source if template else None, self.target.vocabulary)

    def markup_for(self, options: ReplyOptions) -> Markup:
        """The same with the marks of calls, where a template knows no tools and text tells them."""
        template = self.prompts.template
        if not options.tools or template is None or knows_tools(template):
            return self.markup
        return self.markup.with_section(CALL, self.target.vocabulary)

    def parser(self, options: ReplyOptions, markup: Markup, opening: Opening) -> AnswerParser:
        """What takes one answer apart."""
        return AnswerParser(markup, self.target.vocabulary, options.stop, opening)

    def constrained(
        self, options: ReplyOptions, opening: Opening, prompts: Prompts
    ) -> ReplyOptions:
        """The same with what the answer to a prompt keeps. As `generations.constrained`."""
        vocabulary = self.target.vocabulary
        return constrained(options, opening, prompts, self.markup_for(options), vocabulary)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids that ask for the assistant's next turn, to measure with; else as `prompts.of`."""
        try:
            return self.prompts.of(messages)
        except TemplateError as error:
            raise TemplateError(error.reason, "measure another file of this model") from error

    def raw_prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued: a prompt by hand, whose control tokens are meant."""
        self.check_open()
        return Specials(self.target.vocabulary).ids(text, "", add_special=True)

    def reply(
        self,
        prompt: Sequence[int],
        options: ReplyOptions,
        speculator: Speculator | None = None,
        parser: AnswerParser | None = None,
    ) -> Reply:
        """A reply to a prompt of token ids, generated while it is iterated over.

        Your own `speculator` replaces the session's. `parser` splits the answer; without one all
        of it is text.
        Raises UserError for a prompt that is empty or longer than the context, or after `close`.
        """
        self._turns.check()
        options = self.effective(options)
        generation = self.generations.of(prompt, options)
        speculator = speculator or self.speculator(options.spec, options.draft_max)
        n_repeated = self.n_repeated(prompt)

        def steps_of(places: Sequence[int] = ()) -> Iterator[Step]:
            interrupt = self.target.interrupt
            return drive(generation, self.context, speculator, interrupt, [*places, n_repeated])

        n_end = n_repeated or len(prompt) - 1
        steps = self._kept.followed(prompt, n_end, steps_of) if self._kept else steps_of()
        parser = parser or self.parser(options, PLAIN, UNOPENED)
        return Reply(generation, steps, parser, options, self._turns, speculator)

    def effective(self, options: ReplyOptions) -> ReplyOptions:
        """With the sampling that the file recommends where nobody chose another."""
        if options.chosen is not None and self.recommended.note:
            self.notify(self.recommended.note)
            self.recommended = replace(self.recommended, note=None)
        return options.with_recommended(self.recommended.values)

    def n_repeated(self, prompt: Sequence[int]) -> int:
        """How much of a prompt the next one repeats, where the memory needs to know that."""
        is_free = self.target.rollback_limit is None
        return 0 if is_free else n_stable(prompt, self.prompting.tails)

    def speculator(
        self, spec: Speculation | None = None, draft_max: int | None = None
    ) -> Speculator:
        """Who drafts for a reply, or for a batch of them; None: as the session is set."""
        spec = spec or self.speculation
        learned = self._store and self._store.learned
        if spec == "auto" and learned:
            return Adaptive(learned, list(self._drafters.values()), self.plan.max_draft)
        drafter = self._drafters.get("lookup" if spec == "auto" else spec)
        n = self.plan.max_draft if draft_max is None else draft_max
        return Fixed(drafter, min(n, self.plan.max_draft)) if drafter else Plain()
