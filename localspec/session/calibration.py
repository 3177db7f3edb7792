"""What passes cost here, before the first token: kept, else predicted and then measured.

The prediction is the roofline's, where this machine was probed before. The widths of a verification
batch are then measured in the order of their worth to the choice of a draft length until `LIMIT_S`
is over; if time is left, again behind some text, for the slope with depth; then the cost of a
change of width. The draft model is measured alike. Costs are kept by model, engine build, settings
and power state, and what a session learned from its passes is kept at its end.

Other programs hold up wide passes most, and a width that seems dear is never tried again. So what
was measured beside them is measured anew on a calm machine, and what passes cost beside them is not
kept.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import Any

from localspec import paths
from localspec.decode.chances import Learned
from localspec.decode.costs import PLAIN_ERROR, PassCosts
from localspec.decode.curve import PassCurve, Point, predicted
from localspec.decode.drafters import head_kind
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.offers import WINDOW
from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_fingerprint
from localspec.engine.timing import Timed, TimedEngine, TimedHead, Timer
from localspec.gguf.reader import fingerprint
from localspec.hardware.activity import BUSY, Watch, is_calm
from localspec.hardware.detect import power
from localspec.model.facts import HeadFacts
from localspec.prediction.speculation import expected_tokens
from localspec.session.loading import EnginePlan
from localspec.store import Kept, hashed

LIMIT_S = 2.5
"""For the target and its draft model together."""
TARGET_SHARE = 0.75
DEPTH = 256
"""Where the slope is measured; it is assumed to hold further on."""
_VERSION = 4
_N_TIMED = 2
_N_CHANGES = 3
_FEW = 16
_TYPICAL = 0.7
"""An acceptance, to rank widths by their expected rate."""


def calibration_path(
    target: EngineConfig, draft: EngineConfig | None, head: HeadFacts | None = None
) -> Path:
    """Where the calibration of a target with a draft model or head is kept."""
    parts: list[Any] = [_dependence(target), _dependence(draft) if draft else None]
    if head:
        parts.append([head.method, fingerprint(head.path) if head.path else None])
    key = json.dumps([_VERSION, parts, engine_fingerprint(), power().text])
    return hashed(paths.cache_dir() / "calibration", key, 20)


def _dependence(config: EngineConfig) -> dict[str, Any]:
    """Everything that changes what a pass costs."""
    settings = asdict(replace(config.settings.for_engine, ctx=None))
    return settings | {"model": fingerprint(config.model)}


def kept_costs(path: Path) -> Kept[dict[str, Any]]:
    """The document of a pair's costs and acceptance at `path`."""
    return Kept(path, _checked, dict)


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    PassCurve.of(document["target"])
    float(document["change_s"])
    return document


def measure_change(engine: TimedEngine, plain_s: float, limit_s: float) -> float:
    """Extra seconds of a one-token pass after one of two tokens; 0 if time is short.

    Other programs lengthen passes and shorten none, so the fastest of each kind are compared.
    """
    if 3 * _N_CHANGES * plain_s > limit_s:
        return 0.0
    timer = Timer(engine.scratch())
    rounds = [
        [timer.seconds(n, 0, turn) for n, turn in ((2, i), (1, i), (1, i + _N_CHANGES))]
        for i in range(_N_CHANGES)
    ]
    _, changed, following = map(min, zip(*rounds, strict=True))
    return max(0.0, changed - following)


def measure(
    engine: Timed, widths: Sequence[int], limit_s: float, start: PassCurve | None = None
) -> PassCurve:
    """T(n, depth) of the widths that fit into `limit_s`; one token is measured in any case.

    `start`, a prediction, ranks the widths and gives the slopes where time is short.
    """
    started = perf_counter()

    def left_s() -> float:
        return limit_s - (perf_counter() - started)

    timer = Timer(engine.scratch())
    order = [1, *_ranked([n for n in widths if n > 1], start)]
    empty: dict[int, float] = {}
    for n in order:
        if empty and left_s() < 2 * (_N_TIMED + 1) * _at_most(empty, n) + _reserve_s(
            empty, limit_s
        ):
            break
        empty[n] = _fastest(timer, n, 0)
    slopes = _slopes(timer, empty, left_s, start)
    timer.hold(0)
    widths = sorted(empty, reverse=True)
    least = accumulate((empty[n] for n in widths), min)  # fewer rows never take longer
    return PassCurve(
        tuple(Point(n, s, slopes.get(n, 0.0)) for n, s in zip(widths, least, strict=True))[::-1]
    )


def _ranked(widths: Sequence[int], start: PassCurve | None) -> list[int]:
    """By the predicted rate of a draft of that width; without a prediction, as given."""
    if start is None:
        return list(widths)

    def rate(n: int) -> float:
        return expected_tokens((_TYPICAL,) * (n - 1)) / start.seconds(n, 0)

    return sorted(widths, key=rate, reverse=True)


def _at_most(known: dict[int, float], n: int) -> float:
    """Seconds of a pass over `n` at most: per token no more than the widest known pass."""
    width = max(known)
    return known[width] * max(1.0, min(n, _FEW) / width)


def _reserve_s(empty: dict[int, float], limit_s: float) -> float:
    """What the slopes will take, which matter more than further widths; 0 where there is no time
    for them in any case."""
    widest = max(empty)
    slopes_s = _reading_s(empty) + 3 * (_N_TIMED + 1) * (empty[1] + empty[widest])
    return slopes_s if slopes_s < 0.75 * limit_s else 0.0


def _reading_s(empty: dict[int, float]) -> float:
    widest = max(empty)
    return DEPTH * empty[widest] / max(widest, 4)


def _fastest(timer: Timer, n: int, depth: int) -> float:
    """The fastest of some passes over `n` tokens, after one that builds the graph."""
    return min([timer.seconds(n, depth, i) for i in range(_N_TIMED + 1)][1:])


def _slopes(
    timer: Timer, empty: dict[int, float], left_s: Callable[[], float], start: PassCurve | None
) -> dict[int, float]:
    """Seconds more for each token of depth: measured, else predicted.

    The widest pass shows it best, because each row reads the cache for itself. More rows never take
    less, whatever a short measurement says.
    """
    widest = max(empty)
    depth = min(DEPTH, timer.context.engine.config.n_ctx - widest - 1)
    if depth < DEPTH // 2 or left_s() < _reading_s(empty) + 3 * (_N_TIMED + 1) * empty[1]:
        return {n: start.slope(n) for n in empty} if start else {}
    measured: dict[int, float] = {}
    for n in sorted(empty, key=lambda n: (n != 1, n != widest, n != 4, n)):
        if not measured or left_s() > 2 * (_N_TIMED + 1) * empty[n]:
            measured[n] = max(0.0, (_fastest(timer, n, depth) - empty[n]) / depth)
    ordered = sorted(measured)
    least = accumulate((measured[n] for n in ordered), max)
    known = PassCurve(tuple(map(Point, ordered, least)))
    return {n: known.seconds(n, 0) for n in empty}


WIDTHS = (4, 2, 3, 5, 8, 6, 12, 17)
"""Of verification batches, the most useful first."""
CHANGE_LIMIT_S = 0.2
"""Where passes take longer, a change of width does not matter."""
DRAFT_WIDTHS = (WINDOW, 2)
_MEMORY = 0.5
"""The weight of the acceptance that earlier sessions learned."""
_OTHERS = "others_share"
"""Of the processors, while the kept costs were measured."""
_FORMER_SOURCES = {"suffix": "lookup"}


class LearnedStore:
    """Loads and keeps what sessions learn about a target with a draft model or head.

    `loading`: a watch on the machine since the session began to load.
    """

    def __init__(
        self,
        plan: EnginePlan,
        target: TimedEngine,
        draft: TimedEngine | None,
        head: TimedHead | None = None,
        loading: Watch | None = None,
    ) -> None:
        self._loading = loading
        self._target, self._draft = target, draft or head
        self._source = head_kind(head.facts.method).source if head else ModelDrafter.source
        self._facts, self._max_draft = plan.facts, plan.max_draft
        path = calibration_path(
            target.config, draft.config if draft else None, head.facts if head else None
        )
        self._kept = kept_costs(path)
        self._watch = Watch()
        self._loaded: dict[str, Any] = {}
        self.learned: Learned | None = None

    def load(self) -> Learned:
        """Load what is kept, or measure now."""
        kept = self._kept.load()
        if kept is None:
            kept = self._measured()
            self._kept.save(kept)
        elif kept.get(_OTHERS, 0.0) > BUSY and is_calm(self._loading):
            kept |= self._measured() | {_OTHERS: 0.0}
            self._kept.save(kept)
        self._loaded = kept
        target = PassCosts(PassCurve.of(kept["target"]), change_s=kept["change_s"])
        self.learned = Learned(target)
        if self._draft and kept["draft"]:
            draft = PassCosts(PassCurve.of(kept["draft"]), reference=target)
            self.learned.drafting[self._source] = draft
        acceptance: dict[str, dict[str, Any]] = kept.get("acceptance", {})
        for law, by_source in acceptance.items():
            for source, counts in by_source.items():
                chances = self.learned.chances(law, _FORMER_SOURCES.get(source, source))
                chances.recall(_counts(counts), _MEMORY)
        return self.learned

    def keep(self) -> None:
        """Keep what was learned. Beside other programs passes say what this machine does now, and
        nothing of later sessions."""
        learned = self.learned
        if learned is None:
            return
        target, draft = learned.target, learned.drafting.get(self._source)
        curve, is_calm_enough = target.learned(), self._watch.stop().taken_share <= BUSY
        document = dict(self._loaded)
        if is_calm_enough:
            document |= _document(curve, target.change_s, draft.learned() if draft else None)
        document["acceptance"] = {
            law: {name: each.counts() for name, each in by_source.items() if each.n_judged}
            for law, by_source in learned.by_law.items()
        }
        self._kept.save(document)
        if is_calm_enough and target.plain_error < PLAIN_ERROR:
            self._remember(curve.seconds(1, 0))

    def _remember(self, plain_s: float) -> None:
        """What plain passes took beside the prediction."""
        from localspec.forecast.experience import remember  # noqa: PLC0415 - at the end alone
        from localspec.forecast.forecast import Expectation  # noqa: PLC0415

        expected = Expectation.of(self._target.config, self._facts)
        if expected:
            remember(self._target.config, self._facts, expected.roofline.seconds(1, 0), plain_s)

    def _measured(self) -> dict[str, Any]:
        watch, widths = Watch(), [n for n in WIDTHS if n <= self._max_draft + 1]
        share = TARGET_SHARE if self._draft else 1.0
        target = measure(self._target, widths, share * LIMIT_S, self._prediction([1, *widths]))
        change_s = measure_change(self._target, target.seconds(1, 0), CHANGE_LIMIT_S)
        draft = None
        if self._draft:
            draft = measure(self._draft, DRAFT_WIDTHS, (1 - share) * LIMIT_S)
        return _document(target, change_s, draft) | {_OTHERS: watch.stop().taken_share}

    def _prediction(self, widths: Sequence[int]) -> PassCurve | None:
        """The roofline's, if this machine was probed for these weight types before."""
        from localspec.forecast.forecast import Expectation  # noqa: PLC0415 - once for a pair

        expected = Expectation.of(self._target.config, self._facts)
        return expected and predicted(expected.roofline.seconds, sorted(widths))


def _document(target: PassCurve, change_s: float, draft: PassCurve | None) -> dict[str, Any]:
    return {"target": target.rows, "change_s": change_s, "draft": draft.rows if draft else None}


def _counts(kept: dict[str, Any]) -> dict[str, Any]:
    """Counts by bin; the first edition named them otherwise."""
    if "bins" in kept:
        return kept
    return {"n_judged": kept["n_seen"], "any": kept["all"], "bins": kept["by_quality"]}
