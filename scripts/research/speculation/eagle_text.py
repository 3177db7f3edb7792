"""What an EAGLE-3 head learns from: text that the target writes, with its states and its choices.

The target continues pieces of a book and answers questions, many sequences in one pass, because a
head that drafts for it meets its words and not the book's. Then it reads all of it once more, while
the inputs of the tapped layers are kept. Layer 0 is tapped as well: its input is the embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig, rows_of
from localspec.engine.llama.binding import C
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.features import Features
from localspec.engine.threads import default_threads
from localspec.model.heads import N_KEPT

BOOK = Path(__file__).parents[3] / "localspec" / "quality" / "opticks.txt"
SEQUENCES, LENGTH = 16, 256
N_BEGINNING = 24
TOPICS = (
    "the colours of a soap bubble", "a walk by the sea", "how bread is made", "a function that"
    " sorts a list in Python", "the water cycle", "a letter to a friend", "why the sky is blue",
    "a recipe for soup", "the history of clocks", "how to learn a language", "a short story of a"
    " fox", "the planets", "how a bicycle works", "a poem about rain", "saving money", "the Romans",
)  # fmt: skip
ASKED = (
    "Explain {} in simple words.", "Write about {}.", "Give five facts about {}.",
    "Summarise what matters about {}.", "What is {}, and why does it matter?",
)  # fmt: skip
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class Read:
    """One sequence: its tokens, the target's best next token behind each, its tapped states of
    shape (n, taps x n_embd), and its embeddings, shape (n, n_embd)."""

    tokens: npt.NDArray[np.int32]
    best: npt.NDArray[np.int32]
    states: npt.NDArray[np.float16]
    embeddings: npt.NDArray[np.float16]


def engine_for(model: Path) -> LlamaEngine:
    """As many sequences as are written at once; rows for reading."""
    config = EngineConfig.of(
        model, SEQUENCES * N_KEPT, ctx=LENGTH + N_BEGINNING + 8, threads=default_threads(),
        gpu_layers=0, n_sequences=SEQUENCES, ubatch=512, kv_unified=True,
    )  # fmt: skip
    return LlamaEngine(config)


def written(engine: LlamaEngine, n_tokens: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Sequences of `LENGTH` tokens that the target wrote, until there are `n_tokens` of them."""
    contexts = [engine.context() for _ in range(SEQUENCES)]
    for _ in range(-(-n_tokens // (SEQUENCES * LENGTH))):
        texts = [_beginning(engine, rng) for _ in contexts]
        jobs = [(context, text, 1) for context, text in zip(contexts, texts, strict=True)]
        while min(map(len, texts)) < LENGTH:
            for text, result in zip(texts, engine.decode(jobs), strict=True):
                text.append(_sampled(rows_of(result).row(0), rng))
            jobs = [(context, text[-1:], 1) for context, text in zip(contexts, texts, strict=True)]
        for context, text in zip(contexts, texts, strict=True):
            context.truncate(0)
            yield text[:LENGTH]


def _beginning(engine: LlamaEngine, rng: np.random.Generator) -> list[int]:
    """A question in the form of a chat, or some words of the book; all of one length."""
    if rng.random() < 0.6:
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


def read(engine: LlamaEngine, texts: Sequence[list[int]], taps: Sequence[int]) -> Iterator[Read]:
    """Every text once more, with its states. Contexts of `written` are used again."""
    assert engine.handle
    context, width = engine.scratch(), 0
    for text in texts:
        if engine.features is None:
            width = int(C.llama_model_n_embd(engine.model))
            engine.features = Features(engine.handle, width, (0, *taps))
        best, rows = list[int](), list[npt.NDArray[np.float16]]()
        for start in range(0, len(text), N_KEPT):
            part = text[start : start + N_KEPT]
            engine.features.ask()
            logits = context.eval(part, len(part))
            best += [logits.argmax(i) for i in range(len(part))]
            kept = engine.features.of(context.sequence).of(start, start + len(part))
            rows.append(kept.astype(np.float16))
        context.truncate(0)
        both = np.concatenate(rows)
        tokens, choices = np.array(text, np.int32), np.array(best, np.int32)
        yield Read(tokens, choices, both[:, width:], both[:, :width])
