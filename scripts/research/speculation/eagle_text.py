"""What an EAGLE-3 head learns from: text that the target writes, with its states and its choices.

The target continues pieces of a book and answers questions, many sequences in one pass, because a
head that drafts for it meets its words and not the book's. The passes that write also give the
inputs of the tapped layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from localspec.engine.base import Context, EngineConfig, Logits, rows_of
from localspec.engine.llama.binding import C
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.features import Features
from localspec.engine.threads import default_threads
from localspec.errors import UserError
from localspec.gguf.header import Header

BOOK = Path(__file__).parents[3] / "localspec" / "quality" / "opticks.txt"
SEQUENCES, LENGTH = 32, 256
N_BEGINNING = 48
TOPICS = (
    "the colours of a soap bubble", "a walk by the sea", "how bread is made", "the water cycle",
    "a friend who moved away", "why the sky is blue", "soup", "the history of clocks", "learning a"
    " language", "a fox in winter", "the planets", "how a bicycle works", "rain", "saving money",
    "the Romans", "a small garden", "trains and the people in them", "a new telephone", "volcanoes",
    "music at school", "how computers store numbers", "a long night at work", "vaccines", "chess",
)  # fmt: skip
ASKED = (
    "Explain {} in simple words.", "Write about {}.", "Give five facts about {}.",
    "Summarise what matters about {}.", "What is known about {}, and why does it matter?",
    "Write a short story about {}.", "Write a Python program about {}.", "Write a letter about {}.",
    "List the steps that {} takes, as JSON.", "Translate into French: I often think of {}.",
    "Solve step by step: a book about {} costs 12 dollars, and I buy 7. How much do I pay?",
    "Is {} good or bad? Argue for both sides.", "Write an advertisement about {}.",
)  # fmt: skip
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class Written:
    """Sequences of `LENGTH` tokens: the tokens, the target's best next token behind each, both of
    shape (n, LENGTH), and its tapped states, shape (n, LENGTH, taps x n_embd)."""

    tokens: npt.NDArray[np.int32]
    best: npt.NDArray[np.int32]
    states: npt.NDArray[np.float16]


def engine_for(model: Path, taps: Sequence[int]) -> LlamaEngine:
    """It keeps the inputs of the layers `taps`."""
    config = EngineConfig.of(
        model, SEQUENCES + N_BEGINNING, ctx=LENGTH + N_BEGINNING, threads=default_threads(),
        gpu_layers=0, n_sequences=SEQUENCES, ubatch=512, kv_unified=True,
    )  # fmt: skip
    engine = LlamaEngine(config)
    assert engine.handle
    engine.features = Features(engine.handle, int(C.llama_model_n_embd(engine.model)), taps)
    return engine


def written(engine: LlamaEngine, n_tokens: int, seed: int, folder: Path) -> Written:
    """What the target writes, `n_tokens` in all.

    Each group of sequences has its own random numbers and is kept in `folder` at once, so that a
    later call goes on where this one was stopped.
    """
    folder.mkdir(exist_ok=True)
    contexts, groups = [engine.context() for _ in range(SEQUENCES)], list[Written]()
    for number in range(-(-n_tokens // (SEQUENCES * LENGTH))):
        file = folder / f"{number}.npz"
        if not file.exists():
            group = _group(engine, contexts, np.random.default_rng((seed, number)))
            np.savez(file, tokens=group.tokens, best=group.best, states=group.states)
        groups.append(Written(**np.load(file)))
    return Written(*(np.concatenate([getattr(each, name) for each in groups]) for name in FIELDS))


FIELDS = ("tokens", "best", "states")


@dataclass(slots=True)
class _Writing:
    """One sequence in the making; `new`: what its context has not read yet."""

    engine: LlamaEngine
    context: Context
    text: list[int]
    new: list[int]
    best: list[int] = field(default_factory=list[int])
    states: list[npt.NDArray[np.float16]] = field(default_factory=list[npt.NDArray[np.float16]])

    def take(self, rows: Logits, rng: np.random.Generator) -> None:
        """The scores behind each of `new`; the last ones say what is written next."""
        assert self.engine.features
        n, end = len(self.new), len(self.context.tokens)
        kept = self.engine.features.of(self.context.sequence).of(end - n, end)
        self.states.append(kept.reshape(n, -1).astype(np.float16))
        self.best += [rows.argmax(k) for k in range(n)]
        self.new = [_sampled(rows.row(n - 1), rng)]
        self.text += self.new


def _group(engine: LlamaEngine, contexts: Sequence[Context], rng: np.random.Generator) -> Written:
    """Beginnings are read one after another, then all write side by side."""
    assert engine.features
    group: list[_Writing] = []
    for context in contexts:
        context.truncate(0)
        text = _beginning(engine, rng)
        group.append(_Writing(engine, context, text, list(text)))
        engine.features.ask()
        group[-1].take(context.eval(text, len(text)), rng)
    while min(len(each.best) for each in group) < LENGTH:
        engine.features.ask()
        results = engine.decode([(each.context, each.new, 1) for each in group])
        for each, result in zip(group, results, strict=True):
            each.take(rows_of(result), rng)
    return Written(
        np.array([each.text[:LENGTH] for each in group], np.int32),
        np.array([each.best[:LENGTH] for each in group], np.int32),
        np.stack([np.concatenate(each.states)[:LENGTH] for each in group]),
    )


def _beginning(engine: LlamaEngine, rng: np.random.Generator) -> list[int]:
    """A question in the form of a chat, or some words of the book."""
    if rng.random() < 0.8:
        question = ASKED[rng.integers(len(ASKED))].format(TOPICS[rng.integers(len(TOPICS))])
        text = CHAT.format(question)
    else:
        book = BOOK.read_text()
        start = int(rng.integers(len(book) - 1000))
        text = book[start : start + 400]
    return engine.vocabulary.tokenize(text, add_special=False)[:N_BEGINNING]


def _sampled(row: npt.NDArray[np.float32], rng: np.random.Generator) -> int:
    """Among the 20 best, at temperature 0.7: what a user's settings would write."""
    best = np.argpartition(row, -20)[-20:]
    chances = np.exp((row[best] - row[best].max()) / 0.7)
    return int(rng.choice(best, p=chances / chances.sum()))


def floats_of(header: Header, name: str) -> npt.NDArray[np.float32]:
    """A tensor of a file of one part, shape (rows, length of a row)."""
    tensor = next(each for each in header.tensors if each.name == name)
    if tensor.type.name not in ("F16", "F32"):
        raise UserError(f"{header.name}: {name} is {tensor.type.name}; F16 or F32 can be read")
    kind = "<f2" if tensor.type.name == "F16" else "<f4"
    flat = np.fromfile(header.name, kind, tensor.n_elements, offset=tensor.offset_bytes)
    return flat.reshape(-1, tensor.shape[0]).astype(np.float32)
