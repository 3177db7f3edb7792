"""What would be faster here and changes numbers: offered once, with its gain and its cost.

Coarser keys are read faster, but with some kernels a prompt is not, and every number moves a
little. So nobody gets them unasked; `tune` measures gain and divergence on the model itself. So it
is with lighter weights (`session.lighter`), which `quality` measures.
"""

from contextlib import suppress
from dataclasses import replace

from localspec import paths
from localspec.engine.base import EngineConfig
from localspec.engine.ways import KEYS, VALUES, kept_ways
from localspec.format import count
from localspec.model.identity import fingerprint
from localspec.session.asking import SessionConfig
from localspec.session.fastest import FastestHere
from localspec.session.loading import EnginePlan
from localspec.store import hashed

SLOWER_PROMPTS = 0.8
"""Of the usual speed: worth a word."""
OFFERED, OFFER_GAIN, DIVERGENCE = KEYS[1], 1.1, 0.001
"""What is offered from which gain on, and its usual divergence in nats a token (llama.cpp, pull
request 7412: 0.00094 for LLaMA-3-8B with q8_0 keys; small models lose some 0.004)."""


def offered(plan: EnginePlan, config: SessionConfig) -> str | None:
    """A sentence on keys or weights that would be faster and change numbers; each only once for a
    model, and not where somebody tuned it or wants nothing chosen."""
    if not config.open:
        return None
    settings = plan.target.settings
    here = FastestHere(plan.target, plan.facts, kept_ways(), config.expected)
    if settings.gpu_layers or settings.workers:
        return offer_weights(here, by_bytes=True)
    return slower_prompts(here) or offer(here) or offer_weights(here)


def slower_prompts(here: FastestHere) -> str | None:
    """A sentence on keys and values that somebody chose and that make prompts take longer here."""
    settings = here.config.settings
    chosen, usual_types = (settings.kv_k, settings.kv_v), (KEYS[0], VALUES)
    usual = replace(here, config=here.config.with_settings(kv_k=KEYS[0], kv_v=VALUES))
    known = {way.types for way in here.attention_ways}
    if chosen == usual_types or not {chosen, usual_types} <= known:
        return None
    ratio = usual.read_s / here.read_s
    if ratio > SLOWER_PROMPTS:
        return None
    kinds = ((settings.kv_k, KEYS[0], "keys"), (settings.kv_v, VALUES, "values"))
    named = " and ".join(f"{kind} {noun}" for kind, usual_kind, noun in kinds if kind != usual_kind)
    return (
        f"prompts of {here.depth:,} tokens are read {ratio:.2f} x as fast with {named} as with"
        f" {KEYS[0]} ones here"
    )


def offer(here: FastestHere) -> str | None:
    """The same for a text that is expected."""
    faster = here.config.with_settings(kv_k=OFFERED)
    other = replace(here, config=faster)
    types = here.config.settings.kv_k, here.config.settings.kv_v
    is_known = (OFFERED, VALUES) in {way.types for way in here.attention_ways}
    if not is_known or types != (KEYS[0], VALUES) or not other.token_s:
        return None
    gain, reading = here.token_s / other.token_s, here.read_s / other.read_s
    if gain < OFFER_GAIN or not _first_time(here.config):
        return None
    return (
        f"{OFFERED} keys would decode {gain:.2f} x as fast {count(here.depth, 'token')} deep"
        f" and read prompts {reading:.2f} x as fast, for some {DIVERGENCE} nats a token:"
        " `localspec tune --quick` settles it"
    )


def offer_weights(here: FastestHere, *, by_bytes: bool = False) -> str | None:
    """The same for lighter weights, which are looked for once."""
    if not _first_time(here.config, " weights"):
        return None
    from localspec.session.lighter import lighter_weights  # noqa: PLC0415 - once for a model

    return lighter_weights(here, by_bytes=by_bytes)


def _first_time(config: EngineConfig, what: str = "") -> bool:
    """Whether this model has not been offered that yet; from now on it has."""
    path = hashed(paths.cache_dir() / "offers", fingerprint(config.model) + what)
    is_first = not path.exists()
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return is_first
