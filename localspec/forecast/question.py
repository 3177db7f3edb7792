"""What a user asks of a forecast, by keyword, to the answer, for the library and the CLI alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

from localspec.errors import UserError, no_such
from localspec.fields import ALL_LAYERS
from localspec.forecast.corrections import MeasuredRun
from localspec.forecast.forecast import Forecast, Question, facts_of, forecast, header_of
from localspec.forecast.from_runs import named_by_runs, only_runs_know, with_runs
from localspec.forecast.head_forecast import asked_head
from localspec.forecast.machine import MachineChoice, PredictedMachine, ProbeChoice
from localspec.forecast.rated_machine import predicted_machine
from localspec.model.facts import ModelFacts
from localspec.model.kv import cache_type, types_of
from localspec.model.tokenizer import pair_problem
from localspec.notify import Notify
from localspec.prediction.quants import variants_of
from localspec.registry.heads_here import found_head
from localspec.registry.resolve import locate
from localspec.settings import AUTO, MAX_THREADS, NONE, Attention, FlashAttention, Split

MAX_TOKENS = 16_777_216
MAX_BATCH = 4096
DEFAULT_CTX = 4096
USUAL_TYPES = ("f16", "bf16", "q8_0")


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What is asked of a model: every product of cache types, depths and batches is a row.

    `kv_k` and `kv_v` None: the usual types, each for both. `flash_attn` "auto" counts as on. No
    `batch`: all that are worth it, up to the break-even. `ctx` None: 4096 or the model's, the
    smaller, but no less than the depths need. `draft` names a model or head to draft, which need
    not be here; `own`: the head in the model's file; `auto`: that, or one beside
    it. `runs`: measured ones that correct the prediction.
    """

    kv_k: tuple[str, ...] | None = None
    kv_v: tuple[str, ...] | None = None
    flash_attn: FlashAttention = "auto"
    depth: tuple[int, ...] = (0, 1024, 4096)
    batch: tuple[int, ...] = (1,)
    accept: tuple[float, ...] = (0.5, 0.7, 0.9)
    prompt_tokens: int = 512
    ctx: int | None = None
    quants: bool = False
    draft: str | None = None
    runs: tuple[MeasuredRun, ...] = ()

    def question(self, facts: ModelFacts, notify: Notify) -> Question:
        """What this model can be asked; what it cannot is left out with a word.

        Raises UserError where nothing is left.
        """
        limit = facts.n_ctx_train or MAX_TOKENS
        depths = _within(self.depth, limit, notify)
        return Question(
            caches=self._caches(facts, notify),
            depths=depths,
            batches=self.batch,
            acceptances=self.accept,
            n_prompt=self.prompt_tokens,
            n_ctx=self.ctx or min(limit, max(DEFAULT_CTX, *depths)),
            with_quants=self.quants,
        )

    def _caches(self, facts: ModelFacts, notify: Notify) -> tuple[Attention, ...]:
        problems, possible = dict[str, None](), list[Attention]()
        for kv_k, kv_v in self._pairs():
            attention = Attention(kv_k, kv_v, self.flash_attn)
            flash = attention.is_flash
            problem = facts.kv_problem(*types_of(attention), flash_attention=flash)
            if problem:
                problems[problem] = None
            else:
                possible.append(attention)
        if not possible:
            raise UserError(next(iter(problems)))
        for problem in problems:
            notify(f"left out: {problem}")
        return tuple(possible)

    def _pairs(self) -> list[tuple[str, str]]:
        if self.kv_k is None and self.kv_v is None:
            return [(name, name) for name in USUAL_TYPES]
        keys, values = (
            [cache_type(name).name.lower() for name in types or ("f16",)]
            for types in (self.kv_k, self.kv_v)
        )
        return [(k, v) for k in keys for v in values]


def answer(
    model: str | None, choice: MachineChoice, asked: QuestionOptions, notify: Notify
) -> Forecast:
    """The forecast for a model by any name it has. Raises LocalspecError."""
    facts = facts_of(model)
    drafter = _here(model) if asked.draft == AUTO else asked.draft
    head = asked_head(drafter, lambda: header_of(model), header_of)
    named = asked.draft if asked.draft not in (AUTO, NONE) else None
    draft = head.model if head else facts_of(named) if named else None
    if draft and not head:
        _check_pair(facts, draft)
    question = asked.question(facts, notify)
    models = [facts, draft] if draft else [facts]
    machine = _machine(choice, asked, models, question, notify)
    return forecast(facts, head or draft, machine, question)


def _here(model: str | None) -> str:
    """Who drafts for a model that is here: its head. Of one that is not, its header tells."""
    place = locate(model)
    return (found_head(place, model) or NONE) if isinstance(place, Path) else AUTO


def _machine(
    choice: MachineChoice,
    asked: QuestionOptions,
    models: Sequence[ModelFacts],
    question: Question,
    notify: Notify,
) -> PredictedMachine:
    """As it is known, corrected by measured runs."""
    choice = named_by_runs(choice, asked.runs)
    variants = variants_of(models[0]) if asked.quants else ()
    machine = only_runs_know(choice, asked.runs) or predicted_machine(
        choice, models, question.caches, question.n_ctx, notify, variants
    )
    return with_runs(machine, choice, asked.runs, models, notify) if asked.runs else machine


def read_question(**keywords: Any) -> tuple[MachineChoice, QuestionOptions]:
    """The machine and the question, by keyword; one value stands for a list of one.

    Raises UserError for an unknown name or an invalid value.
    """
    values: dict[str, Any] = {}
    for name, value in keywords.items():
        if name not in _KEYWORDS:
            raise no_such("keyword", name, _KEYWORDS)
        if value is not None:
            values[name] = _checked(name, value)
    machine = {_MACHINE[name]: values.pop(name) for name in _MACHINE if name in values}
    return MachineChoice(**machine), QuestionOptions(**values)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    def is_right(value: Any) -> bool:
        is_bool = isinstance(value, bool)
        return isinstance(value, Integral) and not is_bool and low <= int(value) <= high

    return is_right


def _is_share(value: Any) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1


def _word(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in words, f"one of {', '.join(words)}"


def _is_cache_type(value: Any) -> bool:
    return isinstance(value, str) and bool(cache_type(value))


_MACHINE = {
    "device": "device",
    "threads": "n_threads",
    "gpu_layers": "n_gpu_layers",
    "cpu_moe": "n_cpu_moe",
    "probe": "probe",
    "workers": "workers",
    "split": "split",
}
_LISTS = ("kv_k", "kv_v", "depth", "batch", "accept", "workers", "runs")
_TOKENS = "a number of tokens"
_KEYWORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "kv_k": (_is_cache_type, "a type of the K cache"),
    "kv_v": (_is_cache_type, "a type of the V cache"),
    "flash_attn": _word(*get_args(FlashAttention)),
    "depth": (_whole(0, MAX_TOKENS), _TOKENS),
    "batch": (_whole(1, MAX_BATCH), f"a number from 1 to {MAX_BATCH}, nor 'auto'"),
    "accept": (_is_share, "a number from 0 to 1"),
    "prompt_tokens": (_whole(1, MAX_TOKENS), _TOKENS),
    "ctx": (_whole(2, MAX_TOKENS), _TOKENS),
    "quants": (lambda value: isinstance(value, bool), "True or False"),
    "draft": (lambda value: isinstance(value, str), "the name of a model"),
    "runs": (lambda value: isinstance(value, MeasuredRun), "a measured run"),
    "device": (lambda value: isinstance(value, str), "the name of a device"),
    "threads": (_whole(1, MAX_THREADS), f"a number from 1 to {MAX_THREADS}"),
    "gpu_layers": (_whole(-MAX_TOKENS, MAX_TOKENS), "a number of layers"),
    "cpu_moe": (_whole(0, ALL_LAYERS), "a number of layers"),
    "probe": _word(*get_args(ProbeChoice)),
    "workers": (lambda value: isinstance(value, str), "a list of host:port"),
    "split": _word(*get_args(Split)),
}
"""What each may be, and that in words."""


def _checked(name: str, value: Any) -> Any:
    if (name, value) in (("batch", "auto"), ("workers", ())):
        return ()
    is_right, wanted = _KEYWORDS[name]
    is_list = name in _LISTS and isinstance(value, Sequence) and not isinstance(value, str)
    values: tuple[Any, ...] = tuple(dict.fromkeys(value)) if is_list else (value,)
    wrong = [one for one in values if not is_right(one)]
    if wrong or not values:
        raise UserError(f"{name} {(wrong or [value])[0]!r} is not {wanted}")
    return values if name in _LISTS else value


def _within(depths: tuple[int, ...], limit: int, notify: Notify) -> tuple[int, ...]:
    fitting = tuple(depth for depth in depths if depth < limit)
    if not fitting:
        raise UserError(f"--depth {depths[0]:,} is beyond the {limit:,} tokens of this model")
    if fitting != depths:
        notify(f"depths beyond the {limit:,} tokens that the model can hold are left out")
    return fitting


def _check_pair(facts: ModelFacts, draft: ModelFacts) -> None:
    problem = pair_problem(facts.tokenizer, draft.tokenizer, rolls_back=draft.rolls_back)
    if problem:
        raise UserError(
            f"{draft.path} cannot draft for {facts.path}: {problem}; use a smaller attention model"
            " of the same family"
        )
