"""Which file of a repository to pull: the one that is named, or the one that fits this machine.

Headers decide what is a model at all; the smallest one's describes every quantization. The best
quality (the least Kullback-Leibler divergence, as published for one 8B model) wins among those that
fit into free memory, with the cache of 4,096 tokens and the draft, and that are predicted to write
20 tokens a second. Where none is that fast, it is Q4_K_M or the nearest to it; where none fits, the
smallest. F16 is left out: Q8_0 loses 0.001 nats to it and is twice as fast. Without a prediction
speed does not count.

`sibling_head` finds the draft head that goes with it: names propose one, headers decide.
Repositories keep heads beside a model: `mtp-NAME.gguf`, `eagle3-NAME.gguf` or a folder `MTP/`; the
catalog names some. A few headers are read by range, and one that does not fit is left where it is.
A model whose file has its head inside needs none.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from localspec.errors import LocalspecError, ModelError, UserError
from localspec.forecast.machine import MachineChoice, PredictedMachine
from localspec.forecast.rated_machine import predicted_machine
from localspec.forecast.recommend import COMFORTABLE_TPS
from localspec.gguf.header import Header
from localspec.gguf.hub_name import HUB, HubFile, HubRepository, hub_name_of, with_file
from localspec.gguf.remote import read_remote
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.model.head_fit import head_of
from localspec.model.kind import kind_of
from localspec.model.usable import usable_facts
from localspec.notify import Notify
from localspec.prediction.memory import memory_of
from localspec.prediction.quants import Quant, quant_named
from localspec.prediction.rates import Speed
from localspec.registry.catalog import Entry
from localspec.registry.remote_file import RemoteFile, describe
from localspec.registry.repository import gguf_files, variants_of
from localspec.registry.resolve import hub_name
from localspec.registry.variants import Variant, model_of, names_a_head, quantization_of
from localspec.settings import OWN, Attention

MOST_READ = 4
"""Headers that are read to find the head."""


def sibling_head(
    header_of: Callable[[], Header], model: RemoteFile, entry: Entry | None, notify: Notify
) -> tuple[RemoteFile, ...]:
    """The files of the head that fits a model which will be fetched, or none.

    `header_of` reads the model's header, which is asked for where a name proposes a head.
    """
    names = list(islice(_proposed(model, entry, notify), MOST_READ))
    target = header_of() if names else None
    if target is None or not isinstance(head_of(target), str):
        return ()
    for proposed in names:
        try:
            files = describe(proposed, notify)
            if not isinstance(head_of(target, read_remote(files[0].pinned)), str):
                return files
        except LocalspecError:  # a head that cannot be had is no reason against the model
            continue
    return ()


def _proposed(model: RemoteFile, entry: Entry | None, notify: Notify) -> Iterator[str]:
    """References, the likeliest first: the catalog's, of the same model, of the same type."""
    if entry and entry.head not in (None, OWN):
        yield f"{HUB}{entry.head}"
    name = hub_name_of(model.reference)
    if not isinstance(name, HubFile):
        return
    try:
        files = gguf_files(HubRepository(name.repository, revision=name.revision), notify)
    except LocalspecError:
        return
    heads = [file for file in files if names_a_head(file.file)]
    own, kind = model_of(name.file), quantization_of(name.file)
    heads.sort(
        key=lambda file: (
            own not in model_of(file.file),
            quantization_of(file.file) != kind,
            file.n_bytes,
        )
    )
    for file in heads:
        yield HubFile(name.repository, file.file, name.revision).name


USUAL_BITS = 4.85
"""A weight of Q4_K_M."""

Chosen = tuple[str, tuple[str, ...]]
"""The reference of a file, and sentences on why it is this one."""


def of_repository(name: HubRepository, where: MachineChoice, notify: Notify) -> Chosen:
    """The file of a repository that is named by a tag, else the one that fits.

    Raises UserError or ModelError, also where no file of it can write text.
    """
    return _fitting_one(name, variants_of(name, notify), None, where, notify)


def of_entry(
    entry: Entry, draft: ModelFacts | None, where: MachineChoice, notify: Notify
) -> Chosen:
    """The quantization of an entry that fits, with its draft."""
    found = _listed(entry, notify)
    if len(found) < 2:
        return spelled(entry, None, notify), ()
    return _fitting_one(HubRepository(entry.repository), found, draft, where, notify)


def spelled(entry: Entry, kind: str | None, notify: Notify) -> str:
    """The reference of an entry's file, as its repository spells it today."""
    found, wanted = _listed(entry, notify), kind or quantization_of(entry.file)
    if any(variant.file == entry.file for variant in found) and kind is None:
        return hub_name(entry)
    fitting = [variant for variant in found if variant.type == wanted]
    if fitting:
        return with_file(HubRepository(entry.repository), fitting[0].file).name
    if kind and found:
        types = ", ".join(f"{entry.name}:{variant.type}" for variant in found if variant.type)
        raise UserError(f"{entry.name} has no {kind} in {entry.repository}: name one of {types}")
    return hub_name(entry, kind)


def _listed(entry: Entry, notify: Notify) -> list[Variant]:
    """The quantizations of an entry's repository; none where it cannot be listed."""
    try:
        return variants_of(HubRepository(entry.repository), notify, entry.file)
    except (ModelError, UserError):
        return []


def _fitting_one(
    name: HubRepository,
    found: list[Variant],
    draft: ModelFacts | None,
    where: MachineChoice,
    notify: Notify,
) -> Chosen:
    facts, found = _facts(name, found)
    if len(found) > 1 and (choice := choose(found, facts, draft, where, notify)):
        variant, reasons = choice
        return with_file(name, variant.file).name, reasons
    # No published quality tells the types apart: the one nearest to Q4_K_M in bits.
    nearest = min(found, key=lambda one: abs(8 * one.n_bytes / facts.n_params - USUAL_BITS))
    return with_file(name, nearest.file).name, ()


def _facts(name: HubRepository, found: list[Variant]) -> tuple[ModelFacts, list[Variant]]:
    """Of the smallest file that is a model, and the files from there on."""
    for i, variant in enumerate(found, start=1):
        header = read_remote(with_file(name, variant.file).name)
        if kind_of(header).is_model or i == len(found):
            return usable_facts(header), found[i - 1 :]
    raise AssertionError("a repository without files is refused before")


N_CTX = 4096
USUAL = "Q4_K_M"
_UNQUANTIZED = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True)
class QuantizationOffer:
    """One quantization on this machine; `needed_bytes` with cache, buffers and draft."""

    variant: Variant
    quant: Quant
    needed_bytes: int
    speed: Speed | None


def choose(
    variants: Sequence[Variant],
    facts: ModelFacts,
    draft: ModelFacts | None,
    where: MachineChoice,
    notify: Notify,
) -> tuple[Variant, tuple[str, ...]] | None:
    """The best variant, and why it is this one; None if no variant has a known quality. `facts` are
    of any variant."""
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
    return best.variant, tuple(_reasons(best, offers, free))


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
