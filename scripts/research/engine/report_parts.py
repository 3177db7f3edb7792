"""The parts of the report on speed: each measures one thing and returns rows.

What is compared takes turns, there and back, and ratios are of the medians; of exact settings,
which share their weights, of the least times: other programs only add to them.
"""

import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

from models import named
from research.engine.llama_bench import ENVIRONMENT
from research.serve.servers import running
from research.speculation.questions import choose, read_questions

from localspec.bench.case import Case, Work
from localspec.bench.visit import visit
from localspec.engine.base import EngineConfig
from localspec.engine.sampling import Sampling
from localspec.engine.threads import thread_counts
from localspec.engine.timing import Timer, there_and_back
from localspec.hardware.energy import Meter
from localspec.notify import silent
from localspec.session.fastest import repacks_here
from localspec.session.loading import EnginePlan, sound_plan
from localspec.session.opening import chosen_plan
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import Expected, SessionConfig
from localspec.settings import Settings

Row = dict[str, Any]
DEPTHS, TURNS, N_TOKENS = (0, 512, 1024, 2048), 6, 6
KERNELS = ("auto", "off")
OPEN = Settings().left_open(frozenset())


def settings_rows(model: str) -> Iterator[Row]:
    """Automatic settings, and the best of all exact ones, to the engine's own, by depth."""
    config = SessionConfig.of(named(model), spec="none", ctx=max(DEPTHS) + 256)
    plan = sound_plan(config, silent)
    chosen = {depth: _chosen(plan, config, depth) for depth in DEPTHS}
    is_copied = repacks_here(plan.target, plan.facts)
    with ExitStack() as stack:
        timers = _timers(stack, plan.target, _loadings(is_copied))
        for depth in DEPTHS:
            best = _least(timers, depth)
            keys = _key(plan.target, is_copied), _key(chosen[depth], is_copied)
            own, auto = best[keys[0]], best[keys[1]]
            least = min(best, key=lambda key: best[key])
            yield {
                "part": "settings", "model": model, "depth": depth, "default_tps": 1 / own,
                "auto": own / auto, "best": own / best[least], "auto_to_best": best[least] / auto,
                "chosen": _words(keys[1], is_copied), "fastest": _words(least, is_copied),
            }  # fmt: skip


LASTING = 10_000
"""Texts of a session whose loading is soon forgotten."""
Loaded = tuple[bool, bool, str]
"""Repacked, mapped, kernel."""
Key = tuple[bool, bool, str, int]
"""The same, and threads."""


def _chosen(plan: EnginePlan, config: SessionConfig, depth: int) -> EngineConfig:
    asked = replace(config, open=OPEN, expected=Expected(depth, LASTING))
    return chosen_plan(plan, asked, silent).target


def _loadings(is_copied: bool) -> list[tuple[bool, bool]]:
    """Repacked and mapped, where they differ: a copy is not mapped, and of some types none is
    made."""
    return [*([(True, True)] if is_copied else []), (False, True), (False, False)]


def _key(config: EngineConfig, is_copied: bool) -> Key:
    settings = config.settings
    repack = settings.repack and is_copied
    return repack, settings.mmap or repack, settings.flash_attn, config.n_threads


def _words(key: Key, is_copied: bool) -> str:
    repack, is_mapped, kernel, n = key
    loading = "" if repack or not is_copied else ", not repacked"
    loading += "" if is_mapped else ", read"
    return f"flash attention {'on' if kernel == 'auto' else 'off'}, {n} threads{loading}"


def _timers(
    stack: ExitStack, config: EngineConfig, loadings: Sequence[tuple[bool, bool]]
) -> dict[Loaded, Timer]:
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - --help needs no engine

    found: dict[Loaded, Timer] = {}
    for repack, is_mapped in loadings:
        loading = config.with_settings(repack=repack, mmap=is_mapped)
        owner = stack.enter_context(closing(LlamaEngine(loading.with_settings(ctx=256))))
        for kernel in KERNELS:
            own = owner.sibling(loading.with_settings(flash_attn=kernel))
            found[repack, is_mapped, kernel] = Timer(stack.enter_context(closing(own)).context())
    return found


def _least(timers: dict[Loaded, Timer], depth: int) -> dict[Key, float]:
    """Seconds a token of each setting."""
    ways = [(*loaded, n) for loaded, n in product(timers, thread_counts())]
    best = dict.fromkeys(ways, inf)
    for order in there_and_back(ways, TURNS):
        for way in order:
            *loaded, n = way
            timer = timers[*loaded]
            timer.context.engine.set_threads(n, max(thread_counts()))
            best[way] = min(best[way], timer.token_s(N_TOKENS, depth))
    return best


def plain_rows(model: str, llama_bench: str) -> Iterator[Row]:
    """Decoding and prompts beside llama-bench, each in several processes of their own.

    Weights are mapped or read, and micro-batches as long, as the automatic choice has it;
    llama-bench maps them. Which pages a process gets decides as much as what it runs, so each
    measures once. Both read a prompt once before, as llama-bench does by itself.
    """
    config = SessionConfig.of(named(model), spec="none", threads=max(thread_counts()))
    chosen = _chosen(sound_plan(config, silent), config, min(DEPTHS[1:])).settings
    works = [
        Work(0, 64, 0),
        Work(0, 64, 1024),
        Work(0, 32, 4096),
        Work(512, 0, 0),
        Work(2048, 0, 0),
    ]
    for work in works:
        theirs, ours = list[float](), list[float]()
        for is_ours in (False, True, True, False) * PLAIN_ROUNDS:
            if is_ours:
                own = config.with_settings(mmap=chosen.mmap, ubatch=chosen.ubatch)
                ours += _localspec_tps(own, work)
            else:
                theirs += _llama_bench_tps(model, work, llama_bench)
        mid, other = statistics.median(ours), statistics.median(theirs)
        yield {
            "part": "plain", "model": model, "n_prompt": work.n_prompt, "depth": work.depth,
            "mmap": chosen.mmap, "llama_bench_tps": other, "tps": mid, "ratio": mid / other,
            "best_to_best": max(ours) / max(theirs),
        }  # fmt: skip


PLAIN_ROUNDS = 3
"""Of there and back: six processes of each."""


def _localspec_tps(config: SessionConfig, work: Work) -> list[float]:
    found = visit(Case(config, work), 2 if work.n_prompt else 1).measurement
    if found is None:
        sys.exit("localspec could not measure")
    if work.n_prompt:
        return [work.n_prompt / each.prefill_s for each in found.samples[1:] if each.prefill_s]
    return [each.n_tokens / each.decode_s for each in found.samples if each.decode_s]


def _llama_bench_tps(model: str, work: Work, program: str) -> list[float]:
    done = subprocess.run(
        [program, "-m", named(model), "-p", str(work.n_prompt), "-n", str(work.n_gen),
         "-d", str(work.depth), "-t", str(max(thread_counts())), "-r", "1", "-o", "json"],
        capture_output=True, text=True, check=True, env=ENVIRONMENT,
    )  # fmt: skip
    (result,) = json.loads(done.stdout)
    return result["samples_ts"]


def energy_rows(model: str) -> Iterator[Row]:
    """Joules a token of plain decoding; None where this machine does not tell."""
    config = SessionConfig.of(named(model), spec="none", threads=max(thread_counts()))
    spent: list[float] = []
    with Session.open(config) as session:
        for _ in range(ENERGY_TURNS if Meter.here().tells else 0):
            prompt = session.chat_prompt([{"role": "user", "content": "Count to a hundred."}])
            options = ReplyOptions(Sampling(temperature=0), 128, ignore_eos=True)
            joules = session.reply(prompt, options).finish().timings.joules_per_token
            spent += [] if joules is None else [joules]
    median = statistics.median(spent) if spent else None
    yield {"part": "energy", "model": model, "joules_per_token": median}


ENERGY_TURNS = 5

TYPES: dict[str, list[str]] = {
    "none": [],
    "ngram-simple": ["--spec-type", "ngram-simple"],
    "ngram-mod": ["--spec-type", "ngram-mod"],
    "draft": ["--spec-type", "draft-simple"],
}
"""llama-server's own speculation."""


def speculation_rows(pair: str, prompts: Path, llama_server: str, n: int) -> Iterator[Row]:
    """`--spec auto` and plain decoding beside llama-server's types, question by question.

    Nobody is asked a question twice: ngram-mod keeps what it has seen, and would know the answer.
    """
    target, draft = (named(name) for name in pair.split(","))
    asked = choose(read_questions(prompts), n, 0)
    with ExitStack() as stack:
        config = SessionConfig.of(target, draft, ctx=4096, threads=max(thread_counts()))
        session = stack.enter_context(Session.open(config))
        ways: dict[str, Callable[[str], float]] = {
            "auto": lambda text: _reply_tps(session, text, "auto"),
            "plain": lambda text: _reply_tps(session, text, "none"),
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for i, (name, flags) in enumerate(TYPES.items()):
            drafting = ["-md", str(draft)] if name == "draft" else []
            command = [llama_server, "-m", str(target), "-c", "4096", "-np", "1", "--jinja",
                       "-t", str(max(thread_counts())), *flags, *drafting]  # fmt: skip
            port = 18900 + i
            command += ["--port", str(port)]
            stack.enter_context(running(command, port, folder / f"{name}.log"))
            ways[f"llama-server {name}"] = lambda text, port=port: _server_tps(port, text)
        for question, order in zip(asked, there_and_back(list(ways), len(asked)), strict=True):
            tps = {name: ways[name](question.text) for name in order}
            yield {"part": "speculation", "model": pair, "category": question.category, **tps}


def _reply_tps(session: Session, text: str, spec: Any) -> float:
    session.context.go_back(0)
    options = ReplyOptions(Sampling(temperature=0), 64, spec=spec)
    prompt = session.chat_prompt([{"role": "user", "content": text}])
    return session.reply(prompt, options).finish().timings.decode_tps or 0.0


def _server_tps(port: int, text: str) -> float:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 64, "temperature": 0,
            "cache_prompt": False}  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with closing(connection):
        head = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
        document = json.loads(connection.getresponse().read())
    timings = document["timings"]  # as ours: the first token comes with the prompt
    return 1e3 * (timings["predicted_n"] - 1) / timings["predicted_ms"]


def program(name: str, given: str | None) -> str | None:
    """The path of one of llama.cpp's programs: as given, from its variable, or on the path."""
    found = given or os.environ.get(name.upper().replace("-", "_")) or name
    return shutil.which(found)
