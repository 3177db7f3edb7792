"""The Python API: load a model, ask it, predict its speed, tune it.

    with localspec.load("starter") as model:
        print(model.chat("Why is the sky blue?").text)

The command line uses it, so the defaults are the same. Its notes on stderr go here to the logger
`localspec`, at level INFO.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, get_args, overload

from localspec.dialogue.prompts import checked_text, messages_of
from localspec.dialogue.template import Message
from localspec.errors import UserError, no_such
from localspec.registry.resolve import resolve
from localspec.session.reply import AsyncPieces, Reply
from localspec.session.reply_options import ReplyKeywords, reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig, draft_for, session_config
from localspec.settings import NONE, Settings

if TYPE_CHECKING:
    from localspec.forecast.forecast import Forecast
    from localspec.session.profile import Profile
    from localspec.tuning.target import GoalName

Prompt = str | Sequence[Message]
_ASKED = ("kv_k", "kv_v", "flash_attn", "threads", "gpu_layers", "cpu_moe", "ctx")
"""Settings that a forecast depends on."""
_log = logging.getLogger("localspec")


def load(
    name_or_path: str | Path | None = None,
    draft: str | Path | None = "auto",
    settings: Settings | None = None,
    *,
    profile: bool = True,
    **fields: Any,
) -> "Model":
    """Load a model, with a draft model or head where one goes with it.

    `name_or_path`: a name of models.toml, a path to a .gguf, `hf:owner/repo/file.gguf` (pulled if
    it is not here) or a model of another program; None is the starter. `draft`: a draft model or
    head, "own" (the head in the model's file), "auto" (what goes with it, if it is here), "none"
    or None.
    `fields` are fields of `Settings` and go before `settings`. Settings that `tune` kept replace
    defaults, unless `profile` is False.

    Raises UserError for an unknown name or a wrong value, ModelError for an unusable file,
    EngineError where the engine refuses.
    """
    if draft != "auto":
        fields["draft"] = _drafter(draft)
    Settings.of(**fields)  # raises for a wrong one
    if not isinstance(settings, Settings | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(f"settings {settings!r} is no localspec.Settings: give its fields by name")
    chosen = replace(settings or Settings(), **fields)
    given = frozenset(chosen.changed) | frozenset(fields) if profile else None
    name = None if name_or_path is None else str(name_or_path)
    return Model(Session.open(session_config(name, chosen, given, _log.info), _log.info))


class Model:
    """A loaded model; close it, or use it in a `with` statement.

    One reply at a time: a second one raises UserError while the first runs. Any thread may use it.
    A reply's keywords (`**sampling`) are `temperature`, `top_k`, `top_p`, `min_p`,
    `repeat_penalty`, `seed`, `max_tokens`, `stop`, `verify`, `ignore_eos`, `think`,
    `template_args`, or a `Sampling` as `sampling`; a wrong one raises UserError. So does everything
    after `close`.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def close(self) -> None:
        """Free the engine's memory; a reply that runs ends first. A second call does nothing."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Model {self.session.plan.target.model.name}, a context of {self.n_ctx:,} tokens>"

    @property
    def n_ctx(self) -> int:
        """Limit of prompt and reply together, in tokens."""
        return self.session.n_ctx

    @property
    def load_s(self) -> float:
        """Loading time in seconds."""
        return self.session.load_s

    def chat(self, asked: Prompt, **sampling: Unpack[ReplyKeywords]) -> Reply:
        """The finished reply to a text, or to messages with `role` and `content`.

        Ctrl-C raises KeyboardInterrupt; the model stays usable.
        """
        return _whole(self.stream(asked, **sampling))

    def stream(
        self,
        asked: Prompt,
        *,
        raw: bool = False,
        split_thought: bool = True,
        **sampling: Unpack[ReplyKeywords],
    ) -> Reply:
        """A reply that is generated while you iterate once over pieces of its text.

        Leaving the loop ends it; so does Ctrl-C. `raw`: continue a text as it is, without the
        chat template. `split_thought` False: all of it is text, with its marks.
        """
        session = self.session
        session.check_open()
        options = reply_options(**sampling)
        if raw:
            if options.tools:
                raise UserError("tools belong to a conversation: ask without raw")
            return session.reply(session.raw_prompt(checked_text(asked)), options)
        prompts = session.prompts_for(options)
        prompt = prompts.rendered(messages_of(asked))
        markup = session.markup_for(options)
        markup = markup if split_thought else markup.unsplit()
        opening = markup.opening(prompt.clean, prompt.asking)
        options = session.constrained(options, opening, prompts)
        parser = session.parser(options, markup, opening)
        return session.reply(prompts.ids(prompt), options, parser=parser)

    def astream(self, asked: Prompt, **sampling: Unpack[ReplyKeywords]) -> AsyncPieces:
        """The same for `async for`: a thread generates each piece.

        Cancelling the task, or leaving the loop, ends the reply within a step.
        """
        return AsyncPieces(self.stream(asked, **sampling))

    @overload
    def generate(  # pyright: ignore[reportOverlappingOverload] - a str is a sequence of str
        self, prompts: str, **sampling: Unpack[ReplyKeywords]
    ) -> Reply: ...
    @overload
    def generate(
        self, prompts: Sequence[str], **sampling: Unpack[ReplyKeywords]
    ) -> list[Reply]: ...

    def generate(
        self, prompts: str | Sequence[str], **sampling: Unpack[ReplyKeywords]
    ) -> Reply | list[Reply]:
        """Continue one text without the chat template, or several, one after another.

        A list gives as many finished replies, in the same order. Ctrl-C raises KeyboardInterrupt.
        """
        if isinstance(prompts, str):
            return _whole(self.stream(prompts, raw=True, **sampling))
        if not isinstance(prompts, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"{prompts!r} is no text: give a str, or several in a list")
        texts = [checked_text(prompt) for prompt in prompts]
        return [_whole(self.stream(text, raw=True, **sampling)) for text in texts]

    def predict(self, **question: Any) -> "Forecast":
        """The forecast for this model and its settings on this machine."""
        session = self.session
        session.check_open()
        settings = session.plan.settings
        own = {name: getattr(settings, name) for name in _ASKED}
        own["draft"] = None if settings.draft == NONE else settings.draft
        return predict(session.plan.target.model, **{**own, **question})


def predict(
    model: str | Path | None = None, device: str | None = None, **question: Any
) -> "Forecast":
    """A machine's forecast for a model: speeds, memory, and the gain of drafts.

    `model` and `draft` are names as for `load`, and need not be here: headers are read by HTTP
    range. `device`: another machine, None is this one. `question`: `kv_k`, `kv_v`, `depth`,
    `batch` ("auto": up to the break-even), `accept` (one value or several), `flash_attn`, `ctx`,
    `prompt_tokens`, `quants`, `draft`, `threads`, `gpu_layers`, `cpu_moe`, `probe` ("auto",
    "again", "off"), `runs` (one or several files of results that correct the prediction).
    Speeds are in tokens per second of all sequences together, `low` to `high` an 80 % interval.

    Raises UserError for an unknown name or a wrong value, ModelError for an unreadable header,
    HardwareError where nothing is known of the machine.
    """
    from localspec.forecast.question import answer, read_question  # noqa: PLC0415 - seldom used

    name = None if model is None else str(model)
    if isinstance(draft := question.get("draft"), Path):
        question["draft"] = str(draft)
    files = question.pop("runs", None)
    if files:
        from localspec.bench.measured_runs import runs_of  # noqa: PLC0415 - and with it the benchmark

        question["runs"] = runs_of(_paths(files), _log.info)
    return answer(name, *read_question(device=device, **question), _log.info)


def tune(  # noqa: PLR0913 - one for each option
    model: str | Path | None = None,
    goal: "GoalName" = "speed",
    budget: float = 60.0,
    max_quality_loss: float = 0.01,
    ctx: int | None = None,
    draft: str | Path | None = "auto",
    workers: Sequence[str] = (),
) -> "Profile":
    """Find the fastest settings of a model here, and keep them for later calls of `load`.

    `goal` "memory": the smallest cache that is not slower; "quality": nothing below f16. `budget`:
    seconds. `max_quality_loss`: largest divergence of a cache type from f16, in nats a token.
    `ctx`: tokens of the contexts that matter. `workers`: `host:port` of each. The profile has
    `settings` by name, `ratio` (low, mid, high) to the defaults' decoding speed, `kld` and
    `seconds`.

    Raises UserError, ModelError, or EngineError, also where a worker is lost. Ctrl-C ends it with
    the best proven so far.
    """
    from localspec.tuning.search import tune_model  # noqa: PLC0415 - and with it the benchmark
    from localspec.tuning.target import Goal, GoalName  # noqa: PLC0415

    if goal not in get_args(GoalName):
        raise no_such("goal", goal, get_args(GoalName))
    for noun, value in (("budget", budget), ("max_quality_loss", max_quality_loss)):
        if not isinstance(value, Real) or value < 0:
            raise UserError(f"{noun} {value!r} is not a number of at least 0")
    name = None if model is None else str(model)
    target = resolve(name)
    drafter = draft_for(target, name, _drafter(draft))
    config = SessionConfig.of(target, drafter, ctx=ctx, workers=workers)
    return tune_model(config, Goal(goal, max_quality_loss), budget, _log.info).profile


def _drafter(draft: str | Path | None) -> str:
    """As settings have it."""
    return NONE if draft is None else str(draft)


def _paths(runs: Any) -> list[Path]:
    """One file of results or several. Raises UserError for what names none."""
    try:
        return [Path(runs)] if isinstance(runs, str | Path) else [Path(each) for each in runs]
    except TypeError as error:
        raise UserError(f"runs {runs!r} is no file of results: give a path or several") from error


def _whole(reply: Reply) -> Reply:
    """Generate to the end. Raises KeyboardInterrupt after Ctrl-C, not after `Reply.stop`."""
    if reply.finish().finish_reason == "interrupted" and not reply.is_stopped:
        raise KeyboardInterrupt
    return reply
