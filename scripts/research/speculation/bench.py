"""What speculation gains: the ratio to plain decoding, by category and setting.

    scripts/research/run bench-speculation --prompts FILE [--target MODEL] [--draft MODEL] [--json]

Every question is answered under every setting, in order and then backwards (A B B A), on one loaded
pair; drafters begin every reply with empty indexes. A ratio is that of the speeds after the first
token; those of a category are averaged geometrically, with a 95 % interval over its questions
(bootstrap). Replies that loop (eight tokens in a row that occur three times when decoded plainly)
flatter speculation and are reported as a category of their own. With --store a run that was stopped
goes on where it was. With --apart plain decoding has a session of its own in the same process, so
that a head costs it nothing.

MODEL is a name, a path, or one of this script's own: smollm2 (Q4_1), smollm2:F16, smollm2:Q4_0,
gemma (Q4_K_M), gemma:F16, random (1.2 GB of random F16 weights); --draft may be a head. Settings:
none, auto, lookup-N, draft-N, mtp-N, eagle3-N, dflash-N. With --synthetic all drafts are made up,
and right with that chance.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

import psutil
import typer
from models import named
from research.speculation.gains import DISTURBED, Row, results_of
from research.speculation.questions import Question, choose, read_questions
from research.speculation.synthetic import ScriptedContext, SyntheticDrafter

from localspec.bench.sample import loops
from localspec.decode.chances import Learned
from localspec.decode.policy import Adaptive
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.dialogue.template import Message
from localspec.engine.sampling import Sampling
from localspec.errors import UserError
from localspec.hardware.activity import Watch
from localspec.session.calibration import LearnedStore
from localspec.session.reply import Reply
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE, Speculation

N_CTX = 4096
"""Some questions that bring a text have more than 2,000 tokens."""
N_TRIES = 3
LISTEN_S, PATIENCE_S = 0.2, 30.0
LONGEST = 16
NOTHING = {"spec": NONE, "draft": NONE}
KINDS: tuple[Speculation, ...] = ("lookup", "draft", "mtp", "eagle3", "dflash")


@dataclass(frozen=True, slots=True)
class Setting:
    """How drafts are made; `n_draft` None for those that have no number."""

    name: str
    spec: Speculation
    n_draft: int | None = None

    @classmethod
    def of(cls, name: str) -> "Setting":
        kind, _, number = name.partition("-")
        if name in ("none", "auto"):
            return cls(name, "none" if name == "none" else "auto")
        spec = next((each for each in KINDS if each == kind), None)
        if spec and number.isdigit() and 1 <= int(number) <= LONGEST:
            return cls(name, spec, int(number))
        raise UserError(
            f"setting {name!r} is not known: use none, auto or KIND-N, N to {LONGEST}, with KIND"
            f" one of {', '.join(KINDS)}"
        )


def main(  # noqa: PLR0913 - one option each
    prompts: Annotated[Path, typer.Option(help="Questions, one JSON object a line.")],
    target: Annotated[str, typer.Option(metavar="MODEL")] = "smollm2:F16",
    draft: Annotated[str, typer.Option(metavar="MODEL|none")] = "smollm2:Q4_0",
    settings: Annotated[str, typer.Option(help="With commas; none is always measured.")] = "auto",
    questions: Annotated[int, typer.Option(min=1, help="Of each category, at most.")] = 8,
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens", min=2)] = 128,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions.")] = 0,
    temp: Annotated[float, typer.Option(min=0)] = 0.0,
    verify: Annotated[Literal["match", "rejection"], typer.Option()] = "match",
    turns: Annotated[
        int, typer.Option(min=1, help="2: there and back (A B B A). More bear more disturbance.")
    ] = 2,
    synthetic: Annotated[
        float | None, typer.Option(min=0, max=1, help="Acceptance of made-up drafts.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep replies here and go on from them.")
    ] = None,
    apart: Annotated[
        bool, typer.Option(help="Decode plainly in a session of its own, which loads no draft.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure, and print ratios to plain decoding."""
    chosen = settings_of(settings)
    asked = choose(read_questions(prompts), questions, seed)
    sampling = Sampling(temperature=temp, seed=seed)
    options = ReplyOptions(sampling, max_tokens, verify=verify)
    rows = _stored(store)
    pair = target, None if draft == "none" else draft
    bench = Bench(pair, chosen, options, store, rows, synthetic, apart)
    try:
        bench.run(asked, turns)
    except KeyboardInterrupt:
        print("stopped: results are of what was measured", file=sys.stderr)
    results = results_of(bench.relevant(asked, turns), [setting.name for setting in chosen])
    if as_json:
        print(json.dumps({"results": results}))
    _show(results, sys.stderr if as_json else sys.stdout)


def settings_of(text: str) -> list[Setting]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [Setting.of(name) for name in dict.fromkeys(["none", *names])]


def _stored(path: Path | None) -> dict[tuple[Any, ...], Row]:
    if path is None or not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [Row(**json.loads(line)) for line in lines if line.endswith("}")]
    return {row.key: row for row in rows}


@dataclass(slots=True)
class Bench:
    """Asks, and keeps a row for each reply."""

    pair: tuple[str, str | None]
    settings: list[Setting]
    options: ReplyOptions
    store: Path | None
    rows: dict[tuple[Any, ...], Row]
    synthetic: float | None = None
    is_apart: bool = False
    learned: Learned | None = None
    """What made-up drafts teach, beside what the session learns."""

    def run(self, asked: Sequence[Question], turns: int) -> None:
        """Answer what is not stored yet."""
        todo = [question for question in asked if self._missing(question, turns)]
        if not todo:
            return
        target, draft = self.pair
        models = named(target), named(draft) if draft else None
        config = SessionConfig.of(*models, draft_max=LONGEST, ctx=N_CTX)
        with ExitStack() as stack:
            session = stack.enter_context(Session.open(config, _say))
            plain = session
            if self.is_apart:
                plain = stack.enter_context(Session.open(config.with_settings(**NOTHING), _say))
            if self.synthetic is not None:
                session.context = ScriptedContext(session.context)
                self.learned = LearnedStore(session.plan, session.target, session.draft).load()
            of = {each: plain if each.spec == NONE else session for each in self.settings}
            for setting in self.settings:
                self._reply(of[setting], todo[0], setting, 8)
            for i, question in enumerate(todo, 1):
                print(f"\r{i} of {len(todo)}: {question.category:20}", end="", file=sys.stderr)
                for turn in range(turns):
                    order = self.settings[:: -1 if turn % 2 else 1]
                    for setting in order:
                        self._answer(of[setting], question, setting, turn)
            print(file=sys.stderr)

    def relevant(self, asked: Sequence[Question], turns: int) -> list[Row]:
        """The rows of this run."""
        keys = [
            self._key(question, setting, turn)
            for question in asked
            for setting in self.settings
            for turn in range(turns)
        ]
        return [self.rows[key] for key in keys if key in self.rows]

    def _key(self, question: Question, setting: Setting, turn: int) -> tuple[Any, ...]:
        return *self.pair, question.number, question.category, setting.name, turn

    def _missing(self, question: Question, turns: int) -> bool:
        return any(
            self._key(question, setting, turn) not in self.rows
            for setting in self.settings
            for turn in range(turns)
        )

    def _reply(
        self, session: Session, question: Question, setting: Setting, n: int | None
    ) -> Reply:
        session.forget()
        prompt = session.chat_prompt([Message(role="user", content=question.text)])
        options = ReplyOptions(
            self.options.sampling,
            n or self.options.max_tokens,
            verify=self.options.verify,
            spec=setting.spec,
            draft_max=setting.n_draft,
        )
        return session.reply(prompt, options, self._made_up(question, setting)).finish()

    def _made_up(self, question: Question, setting: Setting) -> Speculator | None:
        """Who makes drafts up; None without --synthetic."""
        if self.synthetic is None or self.learned is None:
            return None
        if setting.spec == "none":
            return Plain()
        drafter = SyntheticDrafter(self.synthetic, question.number)
        if setting.n_draft is not None:
            return Fixed(drafter, setting.n_draft)
        return Adaptive(self.learned, [drafter], LONGEST)

    def _answer(
        self,
        session: Session,
        question: Question,
        setting: Setting,
        turn: int,
        n_tries: int = N_TRIES,
    ) -> None:
        key = self._key(question, setting, turn)
        if key in self.rows:
            return
        wait_for_calm()
        watch = Watch()
        reply = self._reply(session, question, setting, None)
        others = watch.stop().taken_share
        if others > DISTURBED and n_tries > 1:
            self._answer(session, question, setting, turn, n_tries - 1)
            return
        if reply.finish_reason == "interrupted":
            raise KeyboardInterrupt
        counts = reply.stats
        row = Row(
            target=self.pair[0],
            draft=self.pair[1],
            category=question.category,
            number=question.number,
            setting=setting.name,
            turn=turn,
            n_tokens=len(reply.tokens),
            decode_tps=reply.timings.decode_tps,
            passes=counts.passes,
            drafted=counts.drafted,
            accepted=counts.accepted,
            loops=loops(reply.tokens),
            story=reply.speculation_summary,
            others=others,
        )
        self.rows[key] = row
        if self.store:
            with self.store.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def wait_for_calm() -> None:
    """Until other programs leave the machine alone for a moment, but not for ever."""
    deadline = perf_counter() + PATIENCE_S
    while perf_counter() < deadline and psutil.cpu_percent(LISTEN_S) > 100 * DISTURBED:
        pass


def _show(results: Sequence[dict[str, Any]], out: Any) -> None:
    for r in results:
        acceptance = "" if r["acceptance"] is None else f", {r['acceptance']:.0%} accepted"
        print(
            f"{r['category']:15} {r['setting']:9} {r['ratio']:.3f} x"
            f" ({r['low']:.3f} to {r['high']:.3f}), {r['tokens_per_pass']:.2f} tokens a pass"
            f"{acceptance}, {r['n_prompts']} questions",
            file=out,
        )
