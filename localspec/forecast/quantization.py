"""Which quantization of a model to get for this machine, with the reasons.

The best quality (the least Kullback-Leibler divergence, as published for one 8B model) wins among
those that fit into free memory, with the cache of 4,096 tokens and the draft, and that are
predicted to write 20 tokens a second. Where none is that fast, it is Q4_K_M or the nearest to it;
where none fits, the smallest. F16 is left out: Q8_0 loses 0.001 nats to it and is twice as fast.
Without a prediction speed does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from localspec.errors import LocalspecError
from localspec.forecast.machine import MachineChoice, PredictedMachine
from localspec.forecast.rated_machine import predicted_machine
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.memory import memory_of
from localspec.prediction.quants import Quant, quant_named
from localspec.prediction.rates import Speed
from localspec.registry.variants import Variant
from localspec.settings import Attention

N_CTX = 4096
COMFORTABLE_TPS = 20.0
USUAL = "Q4_K_M"
_UNQUANTIZED = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True)
class QuantizationOffer:
    """One quantization on this machine; `needed_bytes` with cache, buffers and draft."""

    variant: Variant
    quant: Quant
    needed_bytes: int
    speed: Speed | None


@dataclass(frozen=True, slots=True)
class QuantizationChoice:
    """The quantization to get, and sentences on why this one."""

    variant: Variant
    reasons: tuple[str, ...]


def choose(
    variants: Sequence[Variant],
    facts: ModelFacts,
    draft: ModelFacts | None,
    where: MachineChoice,
    notify: Notify,
) -> QuantizationChoice | None:
    """The best variant, None if no variant has a known quality. `facts` are of any variant."""
    quants = {one: quant_named(one.type) for one in variants if one.type not in _UNQUANTIZED}
    known = {variant: quant for variant, quant in quants.items() if quant}
    if not known:
        return None
    others = [_as(variant, quant, facts) for variant, quant in known.items()]
    machine = _machine(where, [facts, draft] if draft else [facts], others, notify)
    free = available_memory_bytes()
    if machine is not None:
        free = machine.free_bytes or machine.memory_bytes or free
    beside = memory_of(draft, Attention(), N_CTX).total_bytes if draft else 0
    offers = [
        _offer(variant, quant, other, beside, machine)
        for (variant, quant), other in zip(known.items(), others, strict=True)
    ]
    best = _best(offers, free)
    return QuantizationChoice(best.variant, tuple(_reasons(best, offers, free)))


def _machine(
    where: MachineChoice,
    models: Sequence[ModelFacts],
    variants: Sequence[ModelFacts],
    notify: Notify,
) -> PredictedMachine | None:
    try:
        return predicted_machine(where, models, (Attention(),), N_CTX, notify, variants)
    except LocalspecError as error:
        notify(f"no prediction of speed: {error}")
        return None


def _as(variant: Variant, quant: Quant, facts: ModelFacts) -> ModelFacts:
    """The model in that quantization, of the size that its file has."""
    other = quant.for_rows_of(facts.n_embd).applied(facts)
    return replace(other, weight_bytes=variant.n_bytes)


def _offer(
    variant: Variant,
    quant: Quant,
    facts: ModelFacts,
    beside_bytes: int,
    machine: PredictedMachine | None,
) -> QuantizationOffer:
    needed = memory_of(facts, Attention(), N_CTX).total_bytes + beside_bytes
    speed = machine.roofline(facts, Attention()).decode(0) if machine else None
    return QuantizationOffer(variant, quant, needed, speed)


def _best(offers: Sequence[QuantizationOffer], free_bytes: int) -> QuantizationOffer:
    fitting = [offer for offer in offers if offer.needed_bytes <= free_bytes]
    if not fitting:
        return min(offers, key=lambda offer: offer.needed_bytes)
    fast = [offer for offer in fitting if offer.speed and offer.speed.mid >= COMFORTABLE_TPS]
    if fast:
        return min(fast, key=_loss)
    usual = quant_named(USUAL)
    target = usual.kld if usual and usual.kld else 0.0
    return min(fitting, key=lambda offer: abs(_loss(offer) - target))


def _loss(offer: QuantizationOffer) -> float:
    return 1.0 if offer.quant.kld is None else offer.quant.kld


def _reasons(
    best: QuantizationOffer, offers: Sequence[QuantizationOffer], free_bytes: int
) -> list[str]:
    verb = "fits" if best.needed_bytes <= free_bytes else "is the smallest and does not fit"
    sentence = (
        f"{_size(best)} {verb}: {best.needed_bytes / 1e9:.1f} GB with {N_CTX:,} tokens of context,"
        f" {free_bytes / 1e9:.1f} GB are free{_at_speed(best)}"
    )
    better = [offer for offer in offers if _loss(offer) < _loss(best)]
    reasons = [sentence]
    if better:
        nearest = max(better, key=_loss)
        reasons.append(f"the next better one, {_size(nearest)}, {_why_not(nearest, free_bytes)}")
    return reasons


def _size(offer: QuantizationOffer) -> str:
    return f"{offer.variant.type} ({offer.variant.n_bytes / 1e9:.2f} GB)"


def _at_speed(offer: QuantizationOffer) -> str:
    speed = offer.speed
    if speed is None:
        return ""
    return f", {speed.mid:.1f} tok/s predicted ({speed.low:.1f} to {speed.high:.1f})"


def _why_not(offer: QuantizationOffer, free_bytes: int) -> str:
    if offer.needed_bytes > free_bytes:
        return f"would need {offer.needed_bytes / 1e9:.1f} GB"
    if offer.speed is None:
        return "is larger and slower"
    return f"would write {offer.speed.mid:.1f} tok/s"
