"""What the policy brings on replies of real models, without their noise and without an engine.

    scripts/research/run replay-speculation --prompts FILE [--target MODEL] [--draft MODEL]
    scripts/research/run replay-speculation --recordings FILE.jsonl --calibration FILE.json

A recording is a greedy reply and the draft model's best token at each place; --prompts records
what is missing. Speculation changes no greedy reply, so one plain decoding tells what would have
been accepted of every draft. Each setting drafts for it again with real lookups and the real
policy, while the clock runs by what a calibration has measured. `auto` learns from reply to
reply, as in a session; every index begins empty. Replies that loop are a category of their own.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import typer
from models import named
from research.speculation.play import Reply
from research.speculation.questions import choose, read_questions
from research.speculation.recording import recorded

from localspec.bench.sample import LOOPING, loops
from localspec.decode.chances import Learned
from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve
from localspec.decode.drafters.base import Draft, DraftRequest
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.decode.drafters.unfinished import confidence_bin
from localspec.decode.offers import WINDOW
from localspec.decode.policy import Adaptive
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.decode.step import Step
from localspec.engine.base import shared_prefix
from localspec.errors import UserError
from localspec.session.calibration import calibration_path
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

MAX_DRAFT = 16
FIXED = "lookup-2,lookup-3,lookup-5,lookup-8,draft-1,draft-2,draft-3,draft-4"


@dataclass(frozen=True, slots=True)
class Recording:
    """Token ids of a prompt and its greedy reply, which ended by itself if it `ends`; for each of
    its tokens the draft model's best one and how sure it was, if there is a draft model."""

    category: str
    prompt: list[int]
    reply: list[int]
    ends: bool
    guesses: list[tuple[int, int]]

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Recording":
        guesses = [(g["token"], confidence_bin(g["confidence"])) for g in row["guesses"]]
        return cls(row["category"], row["prompt"], row["reply"], row["ends"], guesses)


@dataclass(slots=True)
class Machine:
    """Seconds of passes, which scatter by `noise`, and of a choice, before and again after."""

    target: PassCosts
    draft: PassCosts | None
    deciding_s: float
    noise: float
    rng: np.random.Generator

    def pass_s(self, width: int, last: int, depth: int) -> float:
        change_s = self.target.change_s if width != last else 0.0
        seconds = self.target.seconds(width, depth) + change_s
        return seconds * float(np.exp(self.rng.normal(0, self.noise)))

    def draft_s(self, n_evaluated: int, n_missing: int, depth: int) -> float:
        assert self.draft
        read_s = self.draft.seconds(WINDOW, depth) / WINDOW
        return n_evaluated * self.draft.seconds(1, depth) + max(0, n_missing - 2) * read_s


@dataclass(slots=True)
class Replay(Reply):
    """A recorded reply in progress."""

    recording: Recording = field(kw_only=True)

    @classmethod
    def of(cls, recording: Recording, max_tokens: int) -> Self:
        history = [*recording.prompt, recording.reply[0]]
        return cls(history, len(recording.prompt), max_tokens, recording=recording)


class CountedLookup(LookupDrafter):
    """Real lookups, and whether they were asked for this pass."""

    is_asked = False

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        self.is_asked = any(request.n_tokens for request in requests)
        return super().draft(requests)


@dataclass(slots=True)
class RecordedModel:
    """What the draft model would have guessed. Behind a token that is not accepted it guesses
    something that nobody looks at."""

    replay: Replay
    machine: Machine
    source: ClassVar[str] = "model"
    is_free: ClassVar[bool] = False
    n_longest: ClassVar[int | None] = None
    is_at_once: ClassVar[bool] = False
    seconds: float = 0.0
    n_read: int = 0

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        (request,) = requests
        depth = len(request.history)
        tokens, bins, n_evaluated = self._guess(request)
        n_missing = min(depth - self.n_read, request.window or WINDOW)
        self.seconds = self.machine.draft_s(n_evaluated, n_missing, depth)
        self.n_read = depth
        return [Draft(tokens, self.source, None, bins)]

    def _guess(self, request: DraftRequest) -> tuple[list[int], list[int], int]:
        guesses, start = self.replay.recording.guesses, self.replay.n_tokens
        said, stop = self.replay.recording.reply, request.stop
        tokens: list[int] = []
        bins: list[int] = []
        for n_evaluated in range(1, request.n_tokens + 1):
            place = start + len(tokens)
            is_right = tokens == said[start:place] and place < len(guesses)
            token, found = guesses[place] if is_right else (-1, confidence_bin(0.5))
            if stop and not stop.takes(bins, found):
                return tokens, bins, n_evaluated
            tokens.append(token)
            bins.append(found)
            if stop and n_evaluated < request.n_tokens and not stop.evaluates(bins):
                break
        return tokens, bins, len(tokens)


Make = Callable[[list[Any]], Speculator]
"""A policy for drafters: lookups, and perhaps a recorded draft model."""


def play(recording: Recording, machine: Machine, make: Make, max_tokens: int) -> float:
    """Seconds after the first token, of a reply of more than one."""
    replay, lookup = Replay.of(recording, max_tokens), CountedLookup()
    model = RecordedModel(replay, machine)
    policy = make([lookup, model] if machine.draft else [lookup])
    is_idle, total_s, last = isinstance(policy, Plain), 0.0, 0
    while replay.n_tokens < len(recording.reply) + recording.ends:
        lookup.is_asked, model.seconds = False, 0.0
        (draft,) = policy.draft([replay])
        draft_s = model.seconds + (machine.deciding_s if lookup.is_asked and not is_idle else 0.0)
        step = _passed(replay, machine, draft, draft_s, last)
        if draft.source == model.source:
            model.n_read += min(step.accepted, max(0, step.drafted - 1))
        seconds = draft_s + step.eval_s
        policy.learn([step], step.evaluated, seconds)
        total_s += seconds + (machine.deciding_s if lookup.is_asked and not is_idle else 0.0)
        last = step.evaluated
    return total_s


def _passed(replay: Replay, machine: Machine, draft: Draft, draft_s: float, last: int) -> Step:
    rest, depth = replay.recording.reply[replay.n_tokens :], len(replay.history)
    accepted = shared_prefix(draft.tokens, rest)
    width, new = 1 + len(draft.tokens), rest[: accepted + 1]
    # The token that ended the reply is not recorded; nothing follows it.
    replay.history += new if len(new) > accepted else [*new, -1]
    return Step(
        tokens=tuple(new),
        drafted=width - 1,
        accepted=accepted,
        source=draft.source,
        evaluated=width,
        draft_s=draft_s,
        eval_s=machine.pass_s(width, last, depth),
        confidences=draft.confidences,
        why=draft.why,
    )


def ratios(
    recordings: Sequence[Recording], machine: Machine, setting: str, max_tokens: int
) -> dict[str, float]:
    """Times plain speed by category: geometric means."""
    make, logs = _policy(setting, machine), defaultdict[str, list[float]](list)
    for recording in recordings:
        if len(recording.reply) > 1:
            plain_s = play(recording, machine, lambda _: Plain(), max_tokens)
            took_s = play(recording, machine, make, max_tokens)
            category = LOOPING if loops(recording.reply) else recording.category
            logs[category].append(float(np.log(plain_s / took_s)))
    return {name: float(np.exp(np.mean(found))) for name, found in sorted(logs.items())}


def _policy(setting: str, machine: Machine) -> Make:
    """`auto`, `lookup-N` or `draft-N`."""
    if setting == "auto":
        target = PassCosts(machine.target.curve, change_s=machine.target.change_s)
        learned = Learned(target)
        if machine.draft:
            learned.drafting["model"] = PassCosts(machine.draft.curve, reference=target)
        return lambda drafters: Adaptive(learned, drafters, MAX_DRAFT)
    name, n = setting.split("-")
    return lambda drafters: Fixed(drafters[0 if name == "lookup" else 1], int(n))


def mean_of(table: dict[str, float]) -> float:
    """The geometric mean over categories, without replies that loop."""
    return float(np.exp(np.mean([np.log(x) for name, x in table.items() if name != "looping"])))


def read(recordings: Path) -> list[Recording]:
    lines = recordings.read_text(encoding="utf-8").splitlines()
    return [Recording.of(json.loads(line)) for line in lines]


def machine_of(calibration: Path, deciding_ms: float, noise: float, seed: int) -> Machine:
    kept = json.loads(calibration.read_text(encoding="utf-8"))
    target = PassCosts(PassCurve.of(kept["target"]), change_s=kept["change_s"])
    draft = PassCosts(PassCurve.of(kept["draft"])) if kept["draft"] else None
    return Machine(target, draft, deciding_ms / 1e3, noise, np.random.default_rng(seed))


def calibrated(pair: tuple[str, str | None]) -> Path:
    """What passes cost here, as a session finds and keeps it."""
    target, draft = named(pair[0]), named(pair[1]) if pair[1] else None
    config = SessionConfig.of(target, draft, draft_max=MAX_DRAFT, ctx=4096)
    with Session.open(config) as session:
        drafting = session.draft.config if session.draft else None
        return calibration_path(session.target.config, drafting)


def main(  # noqa: PLR0913 - one option each
    prompts: Annotated[Path | None, typer.Option(help="Questions to record and to replay.")] = None,
    target: Annotated[str, typer.Option(metavar="MODEL")] = "smollm2:F16",
    draft: Annotated[str, typer.Option(metavar="MODEL|none")] = "smollm2:Q4_0",
    questions: Annotated[int, typer.Option(min=1, help="Of each category, at most.")] = 8,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions.")] = 0,
    store: Annotated[Path | None, typer.Option(help="Keep recordings here.")] = None,
    recordings: Annotated[Path | None, typer.Option(help="Instead: JSON lines.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="What passes cost, as kept.")] = None,
    settings: Annotated[str, typer.Option(help="With commas.")] = f"auto,{FIXED}",
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens", min=2)] = 128,
    seeds: Annotated[int, typer.Option(min=1, help="Of the scatter of passes.")] = 1,
    deciding_ms: Annotated[float, typer.Option(min=0, help="Before and after a choice.")] = 0.06,
    noise: Annotated[float, typer.Option(min=0, help="Scatter of passes.")] = 0.03,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Replay, and print times plain speed by category and setting."""
    pair = target, None if draft == "none" else draft
    if prompts:
        asked = choose(read_questions(prompts), questions, seed)
        with TemporaryDirectory() as folder:
            made = recorded(pair, asked, max_tokens, store or Path(folder) / "recordings.jsonl")
        replies = [Recording.of(asdict(each)) for each in made]
        calibration = calibration or calibrated(pair)
    elif recordings and calibration:
        replies = read(recordings)
    else:
        raise UserError("give --prompts, or --recordings with --calibration")
    tables = dict[str, dict[str, float]]()
    has_draft = any(each.guesses for each in replies)
    for setting in (s for s in settings.split(",") if has_draft or not s.startswith("draft")):
        found = [
            ratios(replies, machine_of(calibration, deciding_ms, noise, i), setting, max_tokens)
            for i in range(seeds)
        ]
        means = {name: float(np.mean([table[name] for table in found])) for name in found[0]}
        tables[setting] = {**means, "all": float(np.mean([mean_of(table) for table in found]))}
    if as_json:
        print(json.dumps({"ratios": tables}))
        return
    print(f"{'':15}" + "".join(f"{name:>10}" for name in tables))
    for category in next(iter(tables.values())):
        print(f"{category:15}" + "".join(f"{t[category]:10.3f}" for t in tables.values()))
