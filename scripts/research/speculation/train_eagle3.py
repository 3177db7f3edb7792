"""Trains a small EAGLE-3 head for a target on a processor, to have real acceptance to measure.

    scripts/research/run train-eagle3 --out HEAD.gguf [--target MODEL] [--tokens N] [--minutes M]

Needs PyTorch, which localspec does not: `pip install torch` into the environment of the checkout.
The target writes the text (most of the time; kept in a folder beside the head), and the head learns
to draft three tokens from its states. It begins with the target's own matrix for scores. A seed
makes it again. The share of drafts that agree with the target on text that was held back is printed
for each position; the head is not part of the repository.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from models import named

from localspec.errors import UserError
from localspec.gguf.reader import read_header
from localspec.model.head_pair import n_layers_of

if TYPE_CHECKING:
    import torch
    from research.speculation.eagle_head import EagleHead
    from research.speculation.eagle_text import Written

HELD_BACK = 0.05
BATCH = 8
DISCOUNT = 0.8
WARM_UP = 0.05
NOT_DRAFTED = -100


@dataclass(frozen=True, slots=True)
class Learning:
    """How the head is trained, for so many seconds of computing at most."""

    n_steps: int
    n_epochs: int
    rate: float
    limit_s: float
    seed: int


def main(  # noqa: PLR0913 - one option each
    out: Annotated[Path, typer.Option(help="The head's file, .gguf.")],
    target: Annotated[str, typer.Option(metavar="MODEL")] = "smollm2:F16",
    tokens: Annotated[int, typer.Option(min=4096, help="To be written.")] = 100_000,
    vocabulary: Annotated[int, typer.Option(min=256, help="Tokens that it can draft.")] = 4096,
    steps: Annotated[int, typer.Option(min=1, max=8)] = 3,
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    rate: Annotated[float, typer.Option()] = 1e-3,
    minutes: Annotated[float, typer.Option(help="Of computing, for the training.")] = 40.0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write the text, train, and say what agrees."""
    try:
        import torch  # noqa: F401, PLC0415 - no dependency of localspec
    except ImportError as error:
        raise UserError("train-eagle3 needs PyTorch: `pip install torch`") from error
    from research.speculation.eagle_head import EagleHead, HeadShape, write_head  # noqa: PLC0415
    from research.speculation.eagle_text import floats_of  # noqa: PLC0415

    model = named(target)
    header = read_header(model)
    taps = _taps(n_layers_of(header))
    texts = _texts(model, tokens, taps, (seed, out.with_suffix("")))
    ids = _drafted(texts, vocabulary)
    lesson = Lesson.of(texts, floats_of(header, "token_embd.weight"), ids)
    head = EagleHead(HeadShape.of(header), len(taps), len(ids))
    head.begin(lesson.table[ids].numpy(), floats_of(header, "output_norm.weight")[0])
    n_held = max(1, round(HELD_BACK * len(texts.tokens)))
    _train(head, lesson, n_held, Learning(steps, epochs, rate, 60 * minutes, seed))
    write_head(out, head, header, taps, ids)
    _say(f"{out}: agrees with {_shares(head, lesson, n_held, steps)}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _taps(n_layers: int) -> tuple[int, ...]:
    """Low, middle and high, as the authors' heads read."""
    return 2, n_layers // 2, n_layers - 3


def _texts(model: Path, n_tokens: int, taps: Sequence[int], kept: tuple[int, Path]) -> "Written":
    from research.speculation.eagle_text import engine_for, written  # noqa: PLC0415

    engine, started = engine_for(model, taps), time.monotonic()
    texts = written(engine, n_tokens, *kept)
    engine.close()
    _say(f"{texts.tokens.size:,} tokens were written after {time.monotonic() - started:.0f} s")
    return texts


def _drafted(texts: "Written", n: int) -> list[int]:
    """The tokens that the target chose most."""
    counts = Counter(texts.best.ravel().tolist())
    return sorted(token for token, _ in counts.most_common(n))


@dataclass(frozen=True, slots=True)
class Lesson:
    """`best`: the head's number of each choice of the target; `NOT_DRAFTED` of those it lacks.
    `table`: the embeddings of all tokens."""

    texts: "Written"
    best: "torch.Tensor"
    table: "torch.Tensor"

    @classmethod
    def of(cls, texts: "Written", table: Any, ids: Sequence[int]) -> "Lesson":
        import torch  # noqa: PLC0415

        places = torch.full((len(table),), NOT_DRAFTED)
        places[torch.tensor(ids)] = torch.arange(len(ids))
        return cls(texts, places[torch.from_numpy(texts.best).long()], torch.from_numpy(table))

    def batches(self, numbers: Sequence[int]) -> Iterator["Batch"]:
        """States, embeddings and choices of the sequences of these numbers."""
        import torch  # noqa: PLC0415

        for start in range(0, len(numbers), BATCH):
            part = list(numbers[start : start + BATCH])
            states = torch.from_numpy(self.texts.states[part]).float()
            yield states, self.table[self.texts.tokens[part]], self.best[part]


Batch = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


def _labels(best: "torch.Tensor", k: int, n_steps: int) -> "torch.Tensor":
    """What the target says at the places that step `k` drafts: it chose token P + 2 + k at P + 1
    + k."""
    length = best.shape[1] - 1 - n_steps
    return best[:, 1 + k : 1 + k + length]


def _train(head: "EagleHead", lesson: Lesson, n_held: int, how: Learning) -> None:
    """With all but the first `n_held` sequences. The rate of learning follows the steps or the
    time, whichever is nearer to its end."""
    import torch  # noqa: PLC0415

    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    optimizer = torch.optim.AdamW(head.parameters(), how.rate, betas=(0.9, 0.95))
    n_learned = len(lesson.best) - n_held
    total, done, started = how.n_epochs * -(-n_learned // BATCH), 0, time.process_time()
    for number in range(how.n_epochs):
        for batch in lesson.batches(n_held + rng.permutation(n_learned)):
            used_s = (time.process_time() - started) / torch.get_num_threads()
            progress = max(done / total, used_s / how.limit_s)
            if progress >= 1:
                return
            for group in optimizer.param_groups:
                group["lr"] = how.rate * _share_of_rate(progress)
            loss = _loss(head, batch, how.n_steps)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            done += 1
        _say(f"epoch {number + 1}, {used_s:.0f} s of computing: loss {float(loss.detach()):.2f}")


def _share_of_rate(progress: float) -> float:
    """It rises fast, then falls as a cosine."""
    return min(1.0, (progress + 0.005) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))


def _loss(head: "EagleHead", batch: Batch, n_steps: int) -> "torch.Tensor":
    """Later positions count less: they are reached less often."""
    import torch  # noqa: PLC0415
    from torch.nn.functional import cross_entropy  # noqa: PLC0415

    states, words, best = batch
    with torch.autocast("cpu", torch.bfloat16):
        scores = head.steps(states, words, n_steps)
    losses = [
        DISCOUNT**k
        * cross_entropy(
            row.float().flatten(0, 1), _labels(best, k, n_steps).flatten(),
            ignore_index=NOT_DRAFTED,
        )
        for k, row in enumerate(scores)
    ]  # fmt: skip
    return torch.stack(losses).sum()


def _shares(head: "EagleHead", lesson: Lesson, n_held: int, n_steps: int) -> str:
    """Of the target's choices, by position of the draft, each given that those before agree."""
    import torch  # noqa: PLC0415

    hits, judged = [0] * n_steps, [0] * n_steps
    with torch.no_grad():
        for states, words, best in lesson.batches(range(n_held)):
            stands = None
            for k, row in enumerate(head.steps(states, words, n_steps)):
                agrees = row.argmax(-1) == _labels(best, k, n_steps)
                base = torch.ones_like(agrees) if stands is None else stands
                judged[k] += int(base.sum())
                stands = base & agrees
                hits[k] += int(stands.sum())
    return ", ".join(f"{h / max(1, n):.0%}" for h, n in zip(hits, judged, strict=True))
