"""The adaptive policy in a made-up world: its drafters, its replies, and what they took."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from research.speculation.worlds import MAX_DRAFT, Calibration, Luck, World

from localspec.decode.chances import Learned
from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve, Point
from localspec.decode.drafters.base import Draft, DraftRequest, StopRule
from localspec.decode.drafters.unfinished import confidence_bin
from localspec.decode.offers import WINDOW
from localspec.decode.policy import Adaptive
from localspec.decode.step import Step
from localspec.engine.sampling import Sampling

PLAIN_S = 0.02
GREEDY = Sampling(temperature=0)


@dataclass(slots=True)
class Reply:
    """A reply in progress: its prompt, its tokens, and how many it may have."""

    history: list[int]
    n_prompt: int
    max_tokens: int
    law: str = "greedy"

    @classmethod
    def numbered(cls, n_prompt: int, max_tokens: int) -> Self:
        """The token at place i of the reply is i."""
        return cls([-1] * n_prompt + [0], n_prompt, max_tokens)

    @property
    def n_tokens(self) -> int:
        return len(self.history) - self.n_prompt

    @property
    def room(self) -> int:
        return max(0, self.max_tokens - self.n_tokens - 1)

    def request(
        self, n_tokens: int, stop: StopRule | None = None, window: int | None = None
    ) -> DraftRequest:
        return DraftRequest(self.history, n_tokens, GREEDY, False, stop, window)


@dataclass(slots=True)
class LookupInWorld:
    """Offers a match at every place."""

    world: World
    luck: Luck
    source: str = "lookup"
    is_free: bool = True

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._draft(request) for request in requests]

    def _draft(self, request: DraftRequest) -> Draft:
        n, place = request.n_tokens, len(request.history) - self.world.n_prompt
        right = self.luck.lookup
        tokens = [k if right[k] else -1 for k in range(place, place + n)]
        return Draft(tokens, self.source, None, [self.world.match_confidence] * n)


@dataclass(slots=True)
class ModelInWorld:
    """Drafts while the stop rule lets it; `passes` is what that took."""

    world: World
    luck: Luck
    source: str = "model"
    is_free: bool = False
    n_longest: int | None = None
    is_at_once: bool = False
    passes: float = 0.0
    n_read: int = 0

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._draft(request) for request in requests]

    def _draft(self, request: DraftRequest) -> Draft:
        world, depth = self.world, len(request.history)
        n_missing = min(depth - self.n_read, request.window or depth)
        tokens, bins, n_evaluated, left = self._guess(request, depth - world.n_prompt)
        reading = world.reading(n_missing) if n_missing > 2 else 0.0
        self.passes = reading + (world.draft_cost or 0.0) * n_evaluated
        self.n_read = depth
        return Draft(tokens, self.source, None, bins, left=left)

    def _guess(
        self, request: DraftRequest, place: int
    ) -> tuple[list[int], list[int], int, tuple[int, int] | None]:
        luck, stop = self.luck, request.stop
        tokens: list[int] = []
        bins: list[int] = []
        for n_evaluated in range(1, request.n_tokens + 1):
            at = place + len(tokens)
            found = confidence_bin(luck.confidence[at])
            if stop and not stop.takes(bins, found):
                return tokens, bins, n_evaluated, (at if luck.model[at] else -1, found)
            tokens.append(at if luck.model[at] else -1)
            bins.append(found)
            if n_evaluated < request.n_tokens and stop and not stop.evaluates(bins):
                break
        return tokens, bins, len(tokens), None


def learned_of(world: World, reply: int) -> Learned:
    """What a session knows whose calibration came before that reply."""
    found = Calibration.of(world, reply)
    points = tuple(Point(n, PLAIN_S * passes) for n, passes in found.target.items())
    target = PassCosts(PassCurve(points), change_s=PLAIN_S * found.change)
    if found.draft is None:
        return Learned(target)
    points = Point(1, PLAIN_S * found.draft), Point(WINDOW, PLAIN_S * world.reading(WINDOW))
    return Learned(target, {"model": PassCosts(PassCurve(points), reference=target)})


@dataclass(slots=True)
class Played:
    """Plain passes that a reply took, and its steps."""

    passes: float
    steps: list[Step]


def play(world: World, learned: Learned, n: int, luck: Luck) -> Played:
    """One reply of `n` tokens; the first came with the prompt."""
    lookup = LookupInWorld(world, luck) if world.lookup else None
    model = ModelInWorld(world, luck) if world.draft_cost is not None else None
    policy = Adaptive(learned, [d for d in (lookup, model) if d], MAX_DRAFT)
    reply, played, last = Reply.numbered(world.n_prompt, n), Played(0.0, []), 1
    while reply.n_tokens < n:
        if model:
            model.passes = 0.0
        (draft,) = policy.draft([reply])
        noise = luck.noise[len(played.steps)]
        step = _passed(world, reply, draft, last, noise, model.passes if model else 0.0)
        if model and draft.source == model.source:
            model.n_read += min(step.accepted, max(0, step.drafted - 1))
        seconds = step.draft_s + step.eval_s
        policy.learn([step], step.evaluated, seconds)
        played.steps.append(step)
        played.passes += seconds / PLAIN_S
        last = step.evaluated
    return played


def _passed(
    world: World, reply: Reply, draft: Draft, last: int, noise: float, drafting: float
) -> Step:
    place, width = reply.n_tokens, 1 + len(draft.tokens)
    accepted = 0
    while accepted < len(draft.tokens) and draft.tokens[accepted] == place + accepted:
        accepted += 1
    tokens = tuple(range(place, place + accepted + 1))
    reply.history.extend(tokens)
    passes = world.v[width] + world.change * (width != last)
    return Step(
        tokens=tokens,
        drafted=width - 1,
        accepted=accepted,
        source=draft.source,
        evaluated=width,
        draft_s=PLAIN_S * drafting * noise,
        eval_s=PLAIN_S * passes * noise,
        confidences=draft.confidences,
        why=draft.why,
    )
