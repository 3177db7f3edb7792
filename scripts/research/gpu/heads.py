"""What a draft head costs on a device: v(n) with its taps on, a step of it, and the loop with it.

The head has EAGLE-3's shape beside the target's and random weights, because times do not depend on
values; none of its guesses stand. Decoding with drafts of one length then takes a pass and the
head's steps for every token, from which the least acceptance that pays follows.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from beside import write_eagle3

from localspec.decode.drafters import drafters_for
from localspec.decode.driver import drive
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.engine.base import Context, EngineConfig
from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling
from localspec.engine.timing import Timer
from localspec.errors import EngineError
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadFacts
from localspec.model.head_fit import head_of
from localspec.model.synthetic import Shape

LENGTHS = (1, 3, 7)
N_TOKENS, N_PROMPT = 32, 64


def head_costs(config: EngineConfig, shape: Shape, widths: Sequence[int]) -> list[tuple[str, str]]:
    """(What, figures) of a target's file and a random head of its shape. EngineError where the
    engine cannot."""
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    with TemporaryDirectory(prefix="localspec-") as folder:
        facts = _head(Path(folder) / "eagle3.gguf", config.model, shape)
        engine = LlamaEngine(replace(config, n_outputs=max(*widths, *LENGTHS) + 1))
        try:
            head = engine.head(facts, max(LENGTHS))
            step = Timer(head.scratch())
            drafting = {n: step.median(n, 0) for n in (1, 64)}
            context = engine.context()
            timer = Timer(context)
            times = {n: timer.median(n, 0) for n in widths}
            timer.hold(0)
            found = [
                (
                    "v(n) with a head",
                    ", ".join(f"{n}: {s / times[1]:.2f}" for n, s in times.items()),
                ),
                ("a step of the head", f"{drafting[1] / times[1]:.3f} passes"),
                ("64 tokens read by the head", f"{drafting[64] / times[1]:.3f} passes"),
            ]
            drafter = drafters_for(engine, None, head)["eagle3"]
            plain_s = _pass_s(context, Plain())
            for n in LENGTHS:
                ratio = _pass_s(context, Fixed(drafter, n)) / plain_s
                found += [(f"a pass with {n} drafted by the head", f"{ratio:.2f} passes")]
        finally:
            engine.close()
    return found


def _head(path: Path, target: Path, shape: Shape) -> HeadFacts:
    header = read_header(target)
    vocabulary = {k: value for k, value in header.metadata.items() if k.startswith("tokenizer.")}
    write_eagle3(path, replace(shape, n_experts=0), vocabulary=vocabulary)
    facts = head_of(header, read_header(path))
    if isinstance(facts, str):
        raise EngineError(f"the random head does not fit: {facts}")
    return replace(facts, path=path)


def _pass_s(context: Context, speculator: Speculator) -> float:
    """Median seconds of a pass, its drafts included."""
    context.truncate(0)
    generation = Generation(
        list(range(3, 3 + N_PROMPT)), Sampling(temperature=0), Limits(4096, N_TOKENS)
    )
    times, last = list[float](), perf_counter()
    for _ in drive(generation, context, speculator, Interrupt()):
        now = perf_counter()
        times.append(now - last)
        last = now
    return median(times[2:])
