"""What each way of drafting would bring on this machine, by category, without its noise.

    scripts/research/run replay-speculation --prompts FILE [--target MODEL] [--draft MODEL] ...

Greedy replies are recorded once (--store keeps them); then every setting drafts for them again with
real look-ups, the real guesses of the draft model and the real policy, while the clock runs by what
passes cost as the calibration of this machine has measured them. Replies that loop are a category
of their own. `auto` begins with what the calibration knows and learns from reply to reply, as in a
session; every index begins empty. Models and settings: as bench-speculation has them.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from localspec.session.experience import Experiences
from localspec.speculate.acceptance import quality_of
from localspec.speculate.adaptive import RESTING, Adaptive
from localspec.speculate.costs import PassCosts
from localspec.speculate.drafters.base import NO_DRAFT, Draft, DraftRequest
from localspec.speculate.drafters.suffix import SuffixDrafter
from localspec.speculate.experience import READ_WIDTH, Experience
from localspec.speculate.length import Choice, DraftLength, Fixed, Situation
from localspec.speculate.model_choice import WINDOW
from localspec.speculate.step import Step
from models import named
from research.speculation.bench import Setting, has_loop, settings_of
from research.speculation.questions import choose, read_questions
from research.speculation.recording import Recording, recorded

from localspec.engine.sampling import Sampling
from localspec.session import Session, SessionConfig

GREEDY = Sampling(temperature=0)
MAX_DRAFT = 16
FIXED = "lookup-2,lookup-3,lookup-5,lookup-8,draft-1,draft-2,draft-3,draft-4"


@dataclass(slots=True)
class Machine:
    """Seconds of passes, which scatter by `noise`; `deciding_s` before and again after a choice."""

    target: PassCosts
    draft: PassCosts | None
    deciding_s: float
    noise: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def pass_s(self, n: int, last: int, depth: int) -> float:
        change_s = self.target.change_s if n != last else 0.0
        seconds = self.target.seconds(n, depth) + change_s
        return seconds * float(np.exp(self.rng.normal(0, self.noise)))

    def draft_s(self, n_evaluated: int, n_missing: int, depth: int) -> float:
        assert self.draft
        one_s = self.draft.seconds(1, depth)
        read_s = self.draft.seconds(READ_WIDTH, depth) / READ_WIDTH
        return n_evaluated * one_s + max(0, n_missing - 2) * read_s


@dataclass(slots=True)
class Player:
    """One recorded reply under one policy."""

    recording: Recording
    machine: Machine
    policy: DraftLength
    n: int = 1
    width: int = 0
    seconds: float = 0.0
    n_passes: int = 0
    _n_read: int = 0
    _suffix: SuffixDrafter = field(default_factory=SuffixDrafter)
    _history: list[int] = field(default_factory=list[int])

    def play(self, max_tokens: int) -> float:
        """Seconds after the first token, of a reply of more than one."""
        said = self.recording.reply
        self._history = [*self.recording.prompt, said[0]]
        while self.n < len(said) + self.recording.ends:
            room = max(0, max_tokens - self.n - 1)
            now = Situation(room, len(self._history), self.n)
            draft, choice, draft_s = self._draft(now) if room else (NO_DRAFT, Choice(0), 0.0)
            self._pass(now, draft, choice, draft_s)
        return self.seconds

    def _draft(self, now: Situation) -> tuple[Draft, Choice, float]:
        n_offered = self.policy.n_offered(now)
        offers = [self._look_up(n_offered)] if n_offered else []
        choice = self.policy.choose(now, offers)
        draft_s = self.machine.deciding_s if n_offered else 0.0
        if choice.n_tokens == 0:
            return NO_DRAFT, choice, draft_s
        if choice.source == "suffix":
            return (
                (offers or [self._look_up(choice.n_tokens)])[0].first(choice.n_tokens),
                choice,
                draft_s,
            )
        draft, n_evaluated = self._guess(choice)
        n_missing = min(now.depth - self._n_read, choice.window or WINDOW)
        draft_s += self.machine.draft_s(n_evaluated, n_missing, now.depth)
        self._n_read = now.depth
        if choice.verified:
            return draft, choice, draft_s
        self.policy.watch(draft)
        return NO_DRAFT, choice, draft_s

    def _look_up(self, n: int) -> Draft:
        return self._suffix.draft([DraftRequest(self._history, n, GREEDY)])[0]

    def _guess(self, choice: Choice) -> tuple[Draft, int]:
        """What the draft model drafts, and its evaluations. Behind a token that does not stand it
        guesses something that will not be looked at."""
        guesses, said, patience = self.recording.guesses, self.recording.reply, choice.patience
        tokens: list[int] = []
        qualities: list[int] = []
        for n_evaluated in range(1, choice.n_tokens + 1):
            place = self.n + len(tokens)
            stands = tokens == said[self.n : place] and place < len(guesses)
            quality = quality_of(guesses[place].confidence if stands else 0.5)
            if patience and not patience.takes(qualities, quality):
                return Draft(tokens, "model", None, qualities), n_evaluated
            tokens.append(guesses[place].token if stands else -1)
            qualities.append(quality)
            if patience and not patience.evaluates(qualities):
                break
        return Draft(tokens, "model", None, qualities), len(tokens)

    def _pass(self, now: Situation, draft: Draft, choice: Choice, draft_s: float) -> None:
        rest = self.recording.reply[self.n :]
        pairs = zip(draft.tokens, rest, strict=False)
        stood = next(
            (i for i, (a, b) in enumerate(pairs) if a != b), min(len(draft.tokens), len(rest))
        )
        width = 1 + len(draft.tokens)
        eval_s = self.machine.pass_s(width, self.width, now.depth)
        new = tuple(rest[: stood + 1])
        step = Step(
            new, width - 1, stood, draft.source, width, draft_s, eval_s, draft.qualities, choice.why
        )
        if draft.source == "model":
            self._n_read = now.depth + min(stood, max(0, width - 2))
        self.policy.learn(step, draft_s + eval_s)
        is_idle = choice is RESTING or isinstance(self.policy, Fixed)
        self.seconds += draft_s + eval_s + (0.0 if is_idle else self.machine.deciding_s)
        self.width, self.n_passes = width, self.n_passes + 1
        self._history += new
        self.n += stood + 1


def main(  # noqa: PLR0913 - one option each
    prompts: Annotated[Path, typer.Option(help="Questions, one JSON object a line.")],
    target: Annotated[str, typer.Option(metavar="MODEL")] = "smollm2:F16",
    draft: Annotated[str, typer.Option(metavar="MODEL|none")] = "smollm2:Q4_0",
    settings: Annotated[str, typer.Option(help="With commas.")] = f"auto,{FIXED}",
    questions: Annotated[int, typer.Option(min=1, help="Of each category, at most.")] = 8,
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens", min=2)] = 128,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions.")] = 0,
    store: Annotated[Path | None, typer.Option(help="Keep recordings here.")] = None,
    deciding_ms: Annotated[float, typer.Option(min=0, help="Before and after a choice.")] = 0.06,
    noise: Annotated[float, typer.Option(min=0, help="Scatter of passes.")] = 0.03,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Replay, and print times plain speed by category and setting."""
    pair = target, None if draft == "none" else draft
    chosen = [s for s in settings_of(settings) if pair[1] or not s.name.startswith("draft")]
    asked = choose(read_questions(prompts), questions, seed)
    recordings = recorded(pair, asked, max_tokens, store)
    costs = _calibrated(pair)
    machine = Machine(costs.target, costs.draft, deciding_ms / 1e3, noise)
    ratios = {s.name: _ratios(s, recordings, machine, max_tokens) for s in chosen}
    table = {name: _by_category(recordings, of_setting) for name, of_setting in ratios.items()}
    if as_json:
        print(json.dumps({"target": target, "draft": pair[1], "ratios": table}))
        return
    _show(table)


def _calibrated(pair: tuple[str, str | None]) -> Experience:
    """What passes cost here, as a session finds it."""
    target, draft = named(pair[0]), named(pair[1]) if pair[1] else None
    config = SessionConfig.of(target, draft, draft_max=MAX_DRAFT, ctx=4096)
    with Session.open(config) as session:
        return Experiences(session.target, session.draft, MAX_DRAFT).load()


def _ratios(
    setting: Setting, recordings: Sequence[Recording], machine: Machine, max_tokens: int
) -> list[float | None]:
    """Of each reply, to plain decoding."""
    experience = Experience(
        PassCosts(machine.target.curve, change_s=machine.target.change_s),
        machine.draft and PassCosts(machine.draft.curve),
    )
    if experience.draft:
        experience.draft.reference = experience.target
    ratios: list[float | None] = []
    for recording in recordings:
        if len(recording.reply) < 2:
            ratios.append(None)
            continue
        plain_s = Player(recording, machine, Fixed(0)).play(max_tokens)
        policy = _policy(setting, experience, has_model=machine.draft is not None)
        ratios.append(plain_s / Player(recording, machine, policy).play(max_tokens))
    return ratios


def _policy(setting: Setting, experience: Experience, *, has_model: bool) -> DraftLength:
    if setting.n_draft is not None:
        return Fixed(setting.n_draft, "suffix" if setting.spec == "lookup" else "model")
    if setting.spec == "none":
        return Fixed(0)
    return Adaptive(experience, MAX_DRAFT, has_model=has_model)


def _by_category(
    recordings: Sequence[Recording], ratios: Sequence[float | None]
) -> dict[str, float]:
    logs: dict[str, list[float]] = defaultdict(list)
    for recording, ratio in zip(recordings, ratios, strict=True):
        if ratio is not None:
            category = "looping" if has_loop(recording.reply) else recording.category
            logs[category].append(float(np.log(ratio)))
    return {category: float(np.exp(np.mean(values))) for category, values in sorted(logs.items())}


def _show(table: dict[str, dict[str, float]]) -> None:
    names = list(table)
    categories = list(next(iter(table.values())))
    print(f"{'':15}" + "".join(f"{name:>10}" for name in names))
    for category in categories:
        print(f"{category:15}" + "".join(f"{table[name][category]:10.3f}" for name in names))
    counted = [category for category in categories if category != "looping"]
    means = [float(np.exp(np.mean([np.log(table[n][c]) for c in counted]))) for n in names]
    print(f"{'all':15}" + "".join(f"{mean:10.3f}" for mean in means))
    if "auto" in names and len(names) > 1:
        others = [name for name in names if name != "auto"]
        best = [max(table[name][c] for name in others) for c in counted]
        to_best = np.mean(
            [np.log(table["auto"][c] / b) for c, b in zip(counted, best, strict=True)]
        )
        print(f"auto to the best of the others in each category: {np.exp(to_best):.3f}")
