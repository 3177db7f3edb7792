"""Trains a small EAGLE-3 head for a target on a processor, to have real acceptance to measure.

    scripts/research/run train-eagle3 --out HEAD.gguf [--target MODEL] [--tokens N] [--minutes M]

Needs PyTorch, which localspec does not: `pip install torch` into the environment of the checkout.
The target writes the text (most of the time), reads it once more, and the head learns to draft
three tokens from its states. A seed makes it again. The share of drafts that agree with the target
on text that was held back is printed for each position; the head is not part of the repository.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from models import named

from localspec.errors import UserError
from localspec.gguf.reader import read_header
from localspec.model.head_pair import n_layers_of

if TYPE_CHECKING:
    import torch
    from research.speculation.eagle_head import EagleHead
    from research.speculation.eagle_text import Read

HELD_BACK = 0.05
BATCH = 8
DISCOUNT = 0.8
NOT_DRAFTED = -100


@dataclass(frozen=True, slots=True)
class Learning:
    """How the head is trained; `until` is a time by the clock."""

    n_steps: int
    n_epochs: int
    rate: float
    until: float
    seed: int


def main(  # noqa: PLR0913 - one option each
    out: Annotated[Path, typer.Option(help="The head's file, .gguf.")],
    target: Annotated[str, typer.Option(metavar="MODEL")] = "smollm2",
    tokens: Annotated[int, typer.Option(min=4096, help="To be written.")] = 200_000,
    vocabulary: Annotated[int, typer.Option(min=256, help="Tokens that it can draft.")] = 8192,
    steps: Annotated[int, typer.Option(min=1, max=8)] = 3,
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    rate: Annotated[float, typer.Option()] = 1e-3,
    minutes: Annotated[float, typer.Option(help="Training stops after so many.")] = 50.0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write the text, train, and say what agrees."""
    try:
        import torch  # noqa: F401, PLC0415 - no dependency of localspec
    except ImportError as error:
        raise UserError("train-eagle3 needs PyTorch: `pip install torch`") from error
    from research.speculation.eagle_head import EagleHead, HeadShape, write_head  # noqa: PLC0415

    model = named(target)
    header = read_header(model)
    taps = _taps(n_layers_of(header))
    texts = _texts(model, tokens, taps, seed)
    ids = _drafted(texts, vocabulary)
    head = EagleHead(HeadShape.of(header), len(taps), len(ids))
    n_held = max(1, round(HELD_BACK * len(texts)))
    learning = Learning(steps, epochs, rate, time.monotonic() + 60 * minutes, seed)
    _train(head, texts[n_held:], _places(ids, header), learning)
    write_head(out, head, header, taps, ids)
    _say(f"{out}: agrees with {_shares(head, texts[:n_held], _places(ids, header), steps)}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _taps(n_layers: int) -> tuple[int, ...]:
    """Low, middle and high, as the authors' heads read."""
    return 2, n_layers // 2, n_layers - 3


def _texts(model: Path, n_tokens: int, taps: Sequence[int], seed: int) -> "list[Read]":
    from research.speculation.eagle_text import engine_for, read, written  # noqa: PLC0415

    engine, started = engine_for(model), time.monotonic()
    texts = list(written(engine, n_tokens, np.random.default_rng(seed)))
    _say(f"wrote {sum(map(len, texts)):,} tokens in {time.monotonic() - started:.0f} s")
    found = list(read(engine, texts, taps))
    engine.close()
    return found


def _drafted(texts: "Sequence[Read]", n: int) -> list[int]:
    """The tokens that the target chose most."""
    counts = Counter(int(token) for text in texts for token in text.best)
    return sorted(token for token, _ in counts.most_common(n))


def _places(ids: Sequence[int], header: object) -> "torch.Tensor":
    """The head's number of each token of the target; `NOT_DRAFTED` of those that it lacks."""
    import torch  # noqa: PLC0415

    places = torch.full((1 << 20,), NOT_DRAFTED)
    places[torch.tensor(ids)] = torch.arange(len(ids))
    return places


Batch = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


def _batches(texts: "Sequence[Read]", places: "torch.Tensor") -> Iterator[Batch]:
    """States, embeddings, and the head's numbers of the target's choices."""
    import torch  # noqa: PLC0415

    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        states, words, best = (
            torch.from_numpy(np.stack([getattr(text, name) for text in part]))
            for name in ("states", "embeddings", "best")
        )
        yield states.float(), words.float(), places[best.long()]


def _labels(best: "torch.Tensor", k: int, n_steps: int) -> "torch.Tensor":
    """What the target says at the places that step `k` drafts: it chose token P + 2 + k at P + 1
    + k."""
    length = best.shape[1] - 1 - n_steps
    return best[:, 1 + k : 1 + k + length]


def _train(
    head: "EagleHead", texts: "Sequence[Read]", places: "torch.Tensor", how: Learning
) -> None:
    import torch  # noqa: PLC0415
    from torch.nn.functional import cross_entropy  # noqa: PLC0415

    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    total = how.n_epochs * -(-len(texts) // BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), how.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.rate, total, pct_start=0.05)
    for number in range(how.n_epochs):
        order = [texts[i] for i in rng.permutation(len(texts))]
        for states, words, best in _batches(order, places):
            scores = head.steps(states, words, how.n_steps)
            losses = [
                DISCOUNT**k
                * cross_entropy(
                    row.flatten(0, 1), _labels(best, k, how.n_steps).flatten(),
                    ignore_index=NOT_DRAFTED,
                )
                for k, row in enumerate(scores)
            ]  # fmt: skip
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if time.monotonic() > how.until:
                return
        _say(f"epoch {number + 1}: {', '.join(f'{float(loss.detach()):.2f}' for loss in losses)}")


def _shares(
    head: "EagleHead", texts: "Sequence[Read]", places: "torch.Tensor", n_steps: int
) -> str:
    """Of the target's choices, by position of the draft, each given that those before agree."""
    import torch  # noqa: PLC0415

    hits, judged = [0] * n_steps, [0] * n_steps
    with torch.no_grad():
        for states, words, best in _batches(texts, places):
            stands = None
            for k, row in enumerate(head.steps(states, words, n_steps)):
                agrees = row.argmax(-1) == _labels(best, k, n_steps)
                base = torch.ones_like(agrees) if stands is None else stands
                judged[k] += int(base.sum())
                stands = base & agrees
                hits[k] += int(stands.sum())
    return ", ".join(f"{h / max(1, n):.0%}" for h, n in zip(hits, judged, strict=True))
