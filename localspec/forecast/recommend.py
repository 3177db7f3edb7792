"""What to run on a machine: which model, in which quantization and cache types, and how fast.

Every model of models.toml whose header is known is predicted, in every quantization that its
repository is known to have, without a network and without measuring. RULE says how they are ranked:

    value = size * 2^years * exp(-LOSS * divergence) * min(1, speed / comfortable)
                 * min(1, speed / READING_TPS) * min(1, comfortable first token / first token)

`size` is the parameters; of a mixture the geometric mean of all and those that a token uses. That a
year makes a model as good as one of twice the size is the slow half of what Xiao et al. 2024
("Densing Law of LLMs") measured. Benchmarks are not consulted: they are not known for every model,
and are trained for. Memory counts the copy that is used, the caches of all users, and the draft.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp, sqrt

from localspec.errors import LocalspecError
from localspec.forecast.known_machine import KnownMachine
from localspec.forecast.known_models import AS_TRAINED, known_facts
from localspec.model.facts import ModelFacts
from localspec.model.kv import types_of
from localspec.prediction.memory import Memory, memory_of
from localspec.prediction.quants import quant_named
from localspec.prediction.rates import Seconds, Speed
from localspec.prediction.roofline import Roofline
from localspec.registry.catalog import STARTER, Entry, load_catalog
from localspec.registry.variants import quantization_of
from localspec.settings import Attention

RULE = (
    "Larger is better (a mixture counts as the geometric mean of all and active parameters), and a"
    " year newer counts as twice as large; a quantization's published loss, and less speed than is"
    " comfortable, count against it."
)
LOSS = 2.0
"""Per nat of Kullback-Leibler divergence: Q4_K_M costs 6 % of a model's size, Q2_K 59 %."""
FIRST_YEAR = 2024
UNKNOWN_LOSS = 0.1
COMFORTABLE_TPS, READING_TPS = 20.0, 6.0
"""The latter is as fast as people read: below it slowness counts twice."""
BATCH = 512
"""Tokens of a micro-batch."""
MODEST_BYTES = 6e9
"""Of a first model: a download of minutes, which leaves the machine to others."""
CODER = 1.5
"""How much larger a model that was made for code counts, for code."""


@dataclass(frozen=True, slots=True)
class UseCase:
    """What is asked of a machine; tokens. `depth` is what the context holds while writing."""

    name: str
    n_ctx: int
    depth: int
    n_prompt: int
    comfortable_tps: float
    comfortable_first_s: float
    n_users: int = 1
    wants_code: bool = False


USES = (
    UseCase("chat", 8192, 2048, 512, COMFORTABLE_TPS, 5.0),
    UseCase("code", 32768, 8192, 4096, 1.5 * COMFORTABLE_TPS, 20.0, wants_code=True),
    UseCase("long", 65536, 32768, 32768, COMFORTABLE_TPS / 2, 180.0),
    UseCase("many-users", 8192, 2048, 512, 10.0, 10.0, n_users=8),
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A model on a machine. `decode` and `first_token` are each user's; None: not known here.

    `kld` is published for another model, 0 where the model was trained in these types.
    """

    entry: Entry
    facts: ModelFacts
    quantization: str
    cache: Attention
    draft: Entry | None
    n_ctx: int
    memory: Memory
    decode: Speed | None
    first_token: Seconds | None
    kld: float | None
    value: float

    @property
    def reference(self) -> str:
        """The name with which commands take it, in this quantization."""
        return f"{self.entry.name}:{self.quantization}"


def recommendations(
    entries: Sequence[Entry], machine: KnownMachine, use: UseCase
) -> tuple[Recommendation, ...]:
    """What fits, best first; one line a model. Models for code alone are for code."""
    by_name = {entry.name: entry for entry in entries}
    asked = [e for e in entries if e.head != "own" and (use.wants_code or not is_coder(e))]
    best = (_best_of(entry, by_name, machine, use) for entry in asked)
    return tuple(sorted(filter(None, best), key=lambda offer: -offer.value))


def is_coder(entry: Entry) -> bool:
    return "coder" in entry.name or "devstral" in entry.name


def head_of(entry: Entry, entries: Iterable[Entry]) -> str | None:
    """A prediction head: its file, or the entry whose file has one."""
    own = (e.name for e in entries if e.head == "own" and e.name == f"{entry.name}-mtp")
    return entry.head or next(own, None)


def known_speed(entry: Entry, machine: KnownMachine) -> Speed | None:
    """Of an entry's own file at the beginning of a conversation."""
    facts = known_facts(entry)
    roofline = machine.roofline(facts, Attention()) if facts else None
    return roofline.decode(0) if roofline else None


def _best_of(
    entry: Entry, by_name: dict[str, Entry], machine: KnownMachine, use: UseCase
) -> Recommendation | None:
    kinds = dict.fromkeys((quantization_of(entry.file), *entry.quants))
    draft = by_name.get(entry.draft or "")
    offers = (_offer(entry, kind, draft, machine, use) for kind in kinds if kind)
    return max(filter(None, offers), key=lambda offer: offer.value, default=None)


def _offer(
    entry: Entry, kind: str, draft: Entry | None, machine: KnownMachine, use: UseCase
) -> Recommendation | None:
    facts = known_facts(entry, kind)
    if facts is None:
        return None
    n_ctx = min(use.n_ctx, facts.n_ctx_train or use.n_ctx)
    if n_ctx < use.n_ctx / 2:
        return None
    for cache, with_draft in _ways(entry, facts, draft if use.n_users == 1 else None):
        memory = _memory(facts, with_draft, cache, n_ctx, machine, use)
        if memory.used_bytes <= machine.room_bytes:
            roofline = machine.roofline(facts, cache)
            made = Recommendation(
                entry, facts, kind, cache, with_draft, n_ctx, memory,
                _speed(roofline, use, n_ctx), _first_token(roofline, use, n_ctx), _kld(kind), 0.0,
            )  # fmt: skip
            return replace(made, value=_value(made, use))
    return None


def _ways(
    entry: Entry, facts: ModelFacts, draft: Entry | None
) -> list[tuple[Attention, Entry | None]]:
    """Cache types and draft, the dearest first: an exact cache is given up before the model."""
    plain = Attention()
    short = Attention(entry.kv_k or "q8_0", entry.kv_v or "q8_0", "on")
    if short == plain or facts.kv_problem(*types_of(short)):
        short = Attention("q8_0", "q8_0", "on")
    caches = [plain] if facts.kv_problem(*types_of(short)) else [plain, short]
    return [(cache, drafter) for cache in caches for drafter in dict.fromkeys((draft, None))]


def _memory(
    facts: ModelFacts,
    draft: Entry | None,
    cache: Attention,
    n_ctx: int,
    machine: KnownMachine,
    use: UseCase,
) -> Memory:
    memory = memory_of(facts, cache, n_ctx, machine.host, n_sequences=use.n_users)
    beside = known_facts(draft) if draft else None
    if beside is None:
        return memory
    return memory.with_draft(memory_of(beside, cache, n_ctx, machine.host).beside_bytes)


def _speed(roofline: Roofline | None, use: UseCase, n_ctx: int) -> Speed | None:
    """Of each user, with the context as full as it is on average."""
    if roofline is None:
        return None
    speed = roofline.decode(min(use.depth, n_ctx // 2), use.n_users)
    return Speed(*(rate / use.n_users for rate in (speed.low, speed.mid, speed.high)))


def _first_token(roofline: Roofline | None, use: UseCase, n_ctx: int) -> Seconds | None:
    """A micro-batch in the middle stands for all, since time grows in proportion to depth."""
    if roofline is None:
        return None
    n_prompt = min(use.n_prompt, n_ctx // 2)
    return roofline.prefill(BATCH, (n_prompt - BATCH) // 2).seconds_of(n_prompt)


def _kld(kind: str) -> float | None:
    quant = quant_named(kind)
    return 0.0 if kind in AS_TRAINED else quant.kld if quant else None


def _value(offer: Recommendation, use: UseCase) -> float:
    loss = UNKNOWN_LOSS if offer.kld is None else offer.kld
    value = _size(offer.facts) * 2 ** _years(offer.entry) * exp(-LOSS * loss)
    if use.wants_code and is_coder(offer.entry):
        value *= CODER
    if offer.decode is not None:
        tps = offer.decode.mid
        value *= min(1.0, tps / use.comfortable_tps) * min(1.0, tps / READING_TPS)
    if offer.first_token is not None:
        value *= min(1.0, use.comfortable_first_s / offer.first_token.mid)
    return value


def _size(facts: ModelFacts) -> float:
    """Billions. Embeddings that are only looked up are not active."""
    return sqrt(facts.n_params * facts.active_params) / 1e9


def _years(entry: Entry) -> float:
    """Since FIRST_YEAR began; what has no month counts as of then."""
    year, _, month = (entry.released or "").partition("-")
    return int(year) - FIRST_YEAR + (int(month) - 1) / 12 if year else 0.0


def better_than_starter() -> str | None:
    """What would be better here than the starter and is soon there, in a sentence; None where
    nothing is known."""
    try:
        machine = KnownMachine.here()
    except LocalspecError:
        return None
    offers = recommendations(list(load_catalog().values()), machine, USES[0])
    pleasant = [
        offer
        for offer in offers
        if (offer.decode is None or offer.decode.mid >= READING_TPS)
        and offer.facts.weight_bytes <= MODEST_BYTES
    ]
    if not pleasant or pleasant[0].entry.name == STARTER:
        return None
    best = pleasant[0]
    speed = f", about {best.decode.mid:.0f} tok/s" if best.decode else ""
    return (
        "this model is for trying out and knows little: `localspec pull"
        f" {best.reference}` ({best.facts.weight_bytes / 1e9:.1f} GB{speed} here) answers better;"
        " `localspec recommend` shows others"
    )
