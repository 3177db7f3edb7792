"""How much noise on a head's projection lowers its acceptance: each guess is what NumPy says.

Layers add nothing in these fixtures, so a guess is the best score of the noisy projection of the
pending token's embedding, and of the state behind the token before it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from agreeing import write_agreeing_eagle3, write_target
from beside import write_assistant, write_gemma4
from drafted import run
from head_reference import Arrays, arrays, mtp_guess, norm
from heads import ORDER, write_agreeing

from localspec.decode.drafters import head_kind
from localspec.decode.driver import Slot
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.sampling import Sampling
from localspec.gguf.reader import read_header
from localspec.model.head_fit import head_of

N_CTX = 192
Guess = Callable[[Arrays, Arrays, int, int], int]
"""From the target's tensors, the head's, the token before the pending one, and that."""


def assistant_guess(target: Arrays, head: Arrays, before: int, token: int) -> int:
    words = target["token_embd.weight"]
    scaled = words * np.sqrt(words.shape[1])
    read = np.concatenate([scaled[token], norm(scaled[before], 1)])
    state = head["nextn.pre_projection.weight"] @ read
    return int((head["token_embd.weight"] @ state).argmax())


def eagle3_guess(target: Arrays, head: Arrays, before: int, token: int) -> int:
    state = head["blk.0.attn_output.weight"] @ norm(target["token_embd.weight"][token], 1)
    return int((target["output.weight"] @ state).argmax())


@dataclass(frozen=True)
class Noisy:
    """How a target and its head are written, and the noise at which about half is accepted."""

    noise: float
    target: Callable[[Path, float], Path]
    head: Callable[[Path, float], Path] | None
    guess: Guess


KINDS = {
    "MTP, dense": Noisy(0.25, lambda p, x: write_agreeing(p, x, "dense"), None, mtp_guess),
    "MTP, hybrid": Noisy(0.25, lambda p, x: write_agreeing(p, x, "hybrid"), None, mtp_guess),
    "assistant": Noisy(0.25, lambda p, _: write_gemma4(p), write_assistant, assistant_guess),
    "EAGLE-3": Noisy(0.35, lambda p, _: write_target(p), write_agreeing_eagle3, eagle3_guess),
}


@pytest.mark.parametrize("name", KINDS)
def test_noise_lowers_acceptance_as_predicted(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    target = kind.target(tmp_path / "t.gguf", kind.noise)
    head = kind.head and kind.head(tmp_path / "head.gguf", kind.noise)
    facts = head_of(read_header(target), head and read_header(head))
    assert not isinstance(facts, str), facts
    settings = {"ctx": N_CTX, "threads": 1, "gpu_layers": 0, "n_rs_seq": 1}
    engine = LlamaEngine(EngineConfig.of(target, 2, load_mtp=head is None, **settings))
    speculator = Fixed(head_kind(facts.method)(engine.head(facts, 1)), 1)
    context, weights, own = engine.context(), arrays(target), arrays(head or target)
    right: list[bool] = []
    for start in range(0, 80, 4):
        prompt = ORDER[start : start + 10]
        generation = Generation(prompt, Sampling(temperature=0), Limits(N_CTX, 5))
        (steps,) = run([Slot(generation, context)], engine, speculator)
        n_held = len(prompt)
        for step in steps:
            if step.drafted:
                before, token = generation.history[n_held - 2 : n_held]
                guess = kind.guess(weights, own, before, token)
                right.append(guess == generation.history[n_held])
                assert step.accepted == right[-1]
            n_held += len(step.tokens)
    engine.close()
    assert 0.15 < np.mean(right) < 0.85
