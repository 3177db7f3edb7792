"""From a model's name and a machine to speeds, memory and the gain of speculation.

An `Expectation` is the same for a loaded model, from an earlier probe; it measures nothing. Its
ceiling is a machine that loses nothing but the bandwidth of its memory: the difference is what can
still be gained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from localspec.engine.base import EngineConfig
from localspec.errors import ModelError
from localspec.forecast.head_forecast import AskedHead, HeadForecast, draft_bytes, forecast_head
from localspec.forecast.known_models import known_facts
from localspec.forecast.machine import PredictedMachine, ideal_roofline
from localspec.forecast.probing import kept_rates
from localspec.gguf.hub_name import HubRepository, hub_name_of
from localspec.gguf.reader import Header, read_header
from localspec.gguf.remote import read_remote
from localspec.model.facts import ModelFacts
from localspec.model.usable import usable_facts
from localspec.notify import silent
from localspec.prediction.memory import Host, Memory, memory_of
from localspec.prediction.quants import QUANTS, variants_of
from localspec.prediction.rates import Seconds, Speed
from localspec.prediction.roofline import Roofline, Share
from localspec.prediction.speculation import (
    Advice,
    BestDraft,
    DraftCosts,
    Drafting,
    advice,
    speculation_at,
)
from localspec.registry.catalog import named_entry
from localspec.registry.repository import usual_file
from localspec.registry.resolve import locate, written_name
from localspec.settings import Attention

MAX_BATCHES, STEEP = 256, 32


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: every product of cache setting, depth and batch is a row of the answer.

    No `batches`: all that are worth it, up to the one from which arithmetic is the limit.
    """

    caches: tuple[Attention, ...]
    depths: tuple[int, ...] = (0, 1024, 4096)
    batches: tuple[int, ...] = (1,)
    n_prompt: int = 512
    n_ctx: int = 4096
    acceptances: tuple[float, ...] = (0.5, 0.7, 0.9)
    with_quants: bool = False


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """`decode` and `prefill` in tokens per second of all sequences together."""

    cache: Attention
    depth: int
    batch: int
    decode: Speed
    prefill: Speed
    n_prompt: int
    memory: Memory
    bound: str

    @property
    def first_token(self) -> Seconds:
        """Of waiting for the prompt to be read."""
        return self.prefill.seconds_of(self.n_prompt)

    @property
    def token_s(self) -> float:
        """How long each sequence waits for its next token."""
        return self.batch / self.decode.mid

    def with_draft(self, draft_bytes: int) -> Self:
        return replace(self, memory=self.memory.with_draft(draft_bytes))


@dataclass(frozen=True, slots=True)
class SpeculationRow:
    """One depth and batch: what drafts of each length gain, by acceptance."""

    depth: int
    batch: int
    costs: DraftCosts
    best: tuple[BestDraft, ...]
    break_even: float | None


@dataclass(frozen=True, slots=True)
class QuantRow:
    """The model in another quantization; `kld` as published for LLaMA-3-8B, None if it is not."""

    name: str
    weight_bytes: int
    decode: Speed
    prefill: Speed
    kld: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """The answer. `ceiling_tps`: decode at the device's bandwidth, with nothing lost. `draft` may
    be a head, as the small model that a step of it is."""

    machine: PredictedMachine
    facts: ModelFacts
    draft: ModelFacts | None
    rows: tuple[ForecastRow, ...]
    ceiling_tps: float | None
    break_even_batch: int | None
    speculation: tuple[SpeculationRow, ...]
    advice: tuple[Advice, ...]
    quants: tuple[QuantRow, ...] = field(repr=False)
    head: HeadForecast | None = None


def facts_of(reference: str | None) -> ModelFacts:
    """The facts of a model by any name it has, read here or by HTTP range, never fetched whole.

    Where the hub cannot be asked, a model of models.toml is known from its published
    configuration. Raises UserError or ModelError.
    """
    try:
        return usable_facts(header_of(reference))
    except ModelError:
        known = _published_facts(reference)
        if known is None or isinstance(locate(reference), Path):
            raise
        return known


def header_of(reference: str | None) -> Header:
    place = locate(reference)
    if isinstance(place, Path):
        return read_header(place)
    name = hub_name_of(place)
    is_repository = isinstance(name, HubRepository)
    return read_remote(usual_file(name, silent) if is_repository else place)


def _published_facts(reference: str | None) -> ModelFacts | None:
    """Without a tokenizer, which no configuration tells."""
    entry, kind = named_entry(written_name(reference))
    facts = known_facts(entry, kind) if entry else None
    return facts and replace(facts, path=f"{facts.path} (from its published configuration)")


def forecast(
    facts: ModelFacts,
    draft: ModelFacts | AskedHead | None,
    machine: PredictedMachine,
    question: Question,
) -> Forecast:
    """Every number that `predict` shows. Raises nothing: what is not known is None."""
    first = question.caches[0]
    target, ceiling = machine.roofline(facts, first), machine.ceiling(facts, first)
    drafter = _drafting(draft, machine, first)
    break_even = target.break_even_batch()
    if not question.batches:
        question = replace(question, batches=_batches_up_to(break_even))
    head, depth = None, question.depths[0]
    if isinstance(draft, AskedHead) and drafter:
        head = forecast_head(draft, target, drafter, question.n_ctx, depth)
    return Forecast(
        machine=machine,
        facts=facts,
        draft=draft.model if isinstance(draft, AskedHead) else draft,
        rows=tuple(_rows(facts, draft, machine, question)),
        ceiling_tps=ceiling and ceiling.decode(0).mid,
        break_even_batch=break_even,
        speculation=tuple(_speculation(target, drafter, question)),
        advice=advice(target, drafter, question.n_ctx),
        quants=tuple(_quants(facts, machine, first)) if question.with_quants else (),
        head=head,
    )


def _drafting(
    draft: ModelFacts | AskedHead | None, machine: PredictedMachine, cache: Attention
) -> Drafting | None:
    if isinstance(draft, AskedHead):
        return draft.drafting(machine.roofline(draft.model, cache))
    return Drafting(machine.roofline(draft, cache)) if draft else None


def _batches_up_to(break_even: int | None) -> tuple[int, ...]:
    """Doubling, or faster where the way is long, with the break-even itself at the end."""
    end = min(break_even or MAX_BATCHES, MAX_BATCHES)
    step = 2 if end <= STEEP else 4
    powers = [step**k for k in range(end.bit_length()) if step**k < end]
    return *powers, end


def _rows(
    facts: ModelFacts,
    draft: ModelFacts | AskedHead | None,
    machine: PredictedMachine,
    question: Question,
) -> Sequence[ForecastRow]:
    rows: list[ForecastRow] = []
    for cache in question.caches:
        roofline = machine.roofline(facts, cache)
        for depth in question.depths:
            for batch in question.batches:
                row = _row(roofline, depth, batch, question, machine.host)
                n_bytes = draft_bytes(draft, roofline, batch, question.n_ctx, machine.host)
                rows.append(row.with_draft(n_bytes))
    return rows


def _row(
    roofline: Roofline, depth: int, batch: int, question: Question, host: Host | None
) -> ForecastRow:
    n_ctx = max(question.n_ctx, depth + question.n_prompt)
    memory = memory_of(roofline.facts, roofline.cache, n_ctx, host, n_sequences=batch)
    return ForecastRow(
        cache=roofline.cache,
        depth=depth,
        batch=batch,
        decode=roofline.decode(depth, batch),
        prefill=roofline.prefill(question.n_prompt, depth),
        n_prompt=question.n_prompt,
        memory=memory,
        bound=roofline.pass_time(1, depth, batch).bound,
    )


def _speculation(
    target: Roofline, drafter: Drafting | None, question: Question
) -> Sequence[SpeculationRow]:
    rows: list[SpeculationRow] = []
    for depth in question.depths:
        for batch in question.batches:
            costs = speculation_at(target, drafter, depth, batch)
            best = tuple(costs.best(alpha) for alpha in question.acceptances)
            rows.append(SpeculationRow(depth, batch, costs, best, costs.break_even_acceptance()))
    return rows


def _quants(facts: ModelFacts, machine: PredictedMachine, cache: Attention) -> Sequence[QuantRow]:
    variants = variants_of(facts)
    lines = (machine.roofline(other, cache) for other in variants)
    return [
        QuantRow(quant.name, other.weight_bytes, line.decode(0), line.prefill(512), quant.kld)
        for quant, other, line in zip(QUANTS, variants, lines, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a model should do with one engine's settings, from an earlier probe of this machine;
    `ceiling` None where the memory's bandwidth is not known."""

    roofline: Roofline
    ceiling: Roofline | None

    @classmethod
    def of(cls, config: EngineConfig, facts: ModelFacts) -> Self | None:
        """None where this machine was not measured for such a model."""
        attention = config.settings.attention
        rates = kept_rates(config, facts, attention)
        if rates is None:
            return None
        read = rates.read_bytes_per_s
        return cls(
            Roofline(facts, (Share(rates, facts.n_layers),), attention),
            ideal_roofline(facts, attention, read) if read else None,
        )

    def decode(self, depth: int, n_users: int = 1) -> Speed:
        """Tokens per second of all users' plain decoding with `depth` tokens in each cache."""
        return self.roofline.decode(depth, n_users)

    def bound(self, depth: int) -> str:
        """What binds plain decoding there."""
        return self.roofline.pass_time(1, depth).bound

    def first_token_s(self, n_new: int, depth: int) -> float:
        """Seconds until the first token of an answer, with `n_new` tokens to read."""
        return self.roofline.prefill_s(n_new, depth)

    def ceiling_tps(self, depth: int) -> float | None:
        """Tokens per second if nothing but the memory's bandwidth took time."""
        return self.ceiling.decode(depth).mid if self.ceiling else None
