"""Lighter weights of the same model that are known: offered once, with their gain and their cost.

A token takes the time of the bytes that it reads, so fewer bits a weight are faster, and every
number moves. Known are files beside the model, what models.toml names in its repository, and what
`quantize` makes of weights that are not quantized. The gain is what was measured of a type here,
else the share of the bytes; the divergence is the published one of an 8B model
(`prediction.quants`), which says no more than its order of magnitude.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from localspec.errors import LocalspecError
from localspec.format import percent
from localspec.model.facts import ModelFacts
from localspec.prediction.quants import QUANTS, Quant, quant_named
from localspec.registry.catalog import Entry, load_catalog
from localspec.registry.resolve import hub_name
from localspec.registry.variants import goes_beside, model_of, quantization_of
from localspec.session.fastest import FastestHere
from localspec.session.loading import checked_facts

GAIN, MOST_DIVERGENCE = 1.2, 0.05
"""From which gain on, and up to which published divergence, in nats a token: Q4_K_M has 0.031."""
LEAST_BYTES = 50_000_000
"""Of a model that is worth it: a smaller one answers at once."""
UNQUANTIZED = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True)
class Lighter:
    """The model in other weights; `where`: how one comes by them, `settle`: how one measures what
    they lose."""

    quant: Quant
    facts: ModelFacts
    where: str
    settle: str


def lighter_weights(here: FastestHere, *, by_bytes: bool = False) -> str | None:
    """A sentence on the least lossy of them that brings something; None where there is none.

    `by_bytes`: what was measured of the processor does not count.
    """
    own = here.facts.streamed_bytes
    least = min(_in(here.facts, quant).streamed_bytes for quant in QUANTS if _is_close(quant))
    if here.facts.weight_bytes < LEAST_BYTES or own < GAIN * least:  # most files are light already
        return None
    known = [(_gain(here, each.facts, by_bytes=by_bytes), each) for each in _known(here)]
    worth = [pair for pair in known if pair[0] >= GAIN]
    if not worth:
        return None
    gain, best = min(worth, key=lambda pair: pair[1].quant.kld or 0.0)
    saved = 1 - best.facts.weight_bytes / here.facts.weight_bytes
    return (
        f"{best.quant.name} weights would decode some {gain:.1f} x as fast and take"
        f" {percent(saved)} less memory ({best.where}); published for an 8B model they lose"
        f" {best.quant.kld} nats a token, and smaller ones lose more: `{best.settle}` measures it"
    )


def _is_close(quant: Quant | None) -> bool:
    return quant is not None and quant.kld is not None and quant.kld <= MOST_DIVERGENCE


def _in(facts: ModelFacts, quant: Quant) -> ModelFacts:
    return quant.for_rows_of(facts.n_embd).applied(facts)


def _gain(here: FastestHere, other: ModelFacts, *, by_bytes: bool) -> float:
    ratio = here.facts.streamed_bytes / other.streamed_bytes
    own_s = 0.0 if by_bytes else here.weights_s
    if not own_s:
        return ratio
    other_s = replace(here, facts=other).weights_s or own_s / ratio
    return here.token_s / (here.token_s - own_s + other_s)


def _known(here: FastestHere) -> Iterator[Lighter]:
    """Files first: they are here already."""
    path, facts = here.config.model, here.facts
    for file in sorted(path.parent.glob("*.gguf")):
        quant = quant_named(quantization_of(file.name) or "")
        is_other = file.name != path.name and not goes_beside(file.name)
        is_same_model = is_other and model_of(file.name) == model_of(path.name)
        if quant and _is_close(quant) and is_same_model:
            other = _facts_of(file, facts)
            if other:
                settle = f"localspec quality {file} --reference {path}"
                yield Lighter(quant, other, f"{file.name} lies beside it", settle)
    entry = _entry_of(path)
    for kind in (quantization_of(entry.file), *entry.quants) if entry else ():
        quant = quant_named(kind or "")
        if entry and quant and _is_close(quant):
            settle = f"localspec quality {hub_name(entry, kind)} --reference {path}"
            where = f"`localspec pull {hub_name(entry, kind)}`"
            yield Lighter(quant, _in(facts, quant), where, settle)
    if facts.file_type in UNQUANTIZED:
        for quant in filter(_is_close, QUANTS):
            where = f"`localspec quantize {path} --to {quant.name}` makes them"
            settle = f"localspec quality {path} --weights {quant.name}"
            yield Lighter(quant, _in(facts, quant), where, settle)


def _facts_of(file: Path, like: ModelFacts) -> ModelFacts | None:
    """Names propose, headers decide."""
    try:
        facts = checked_facts(file)
    except LocalspecError:
        return None
    shapes = [(each.architecture, each.n_layers, each.n_embd) for each in (facts, like)]
    return facts if shapes[0] == shapes[1] else None


def _entry_of(path: Path) -> Entry | None:
    try:
        entries = load_catalog().values()
    except LocalspecError:
        return None
    name = model_of(path.name)
    return next((entry for entry in entries if model_of(entry.file) == name), None)
