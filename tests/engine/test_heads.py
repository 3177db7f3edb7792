"""A draft head at the seam: whatever it guesses, a verified text is the target's own."""

from pathlib import Path

import pytest
from heads import write_agreeing

from localspec.engine.base import EngineConfig
from localspec.engine.llama.chain_head import ChainHead
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.features import N_AWAKE
from localspec.model.facts import HeadFacts

PROMPT, N_TOKENS = list(range(20, 60)), 24
MTP = HeadFacts("mtp")


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["agrees", "guesses wrong"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_agreeing(tmp_path_factory.mktemp("head") / "m.gguf", request.param)


def engine_of(model: Path, n: int, n_sequences: int = 1) -> LlamaEngine:
    return LlamaEngine(
        EngineConfig.of(
            model, n_sequences * (n + 1), ctx=256, threads=1, gpu_layers=0, load_mtp=True,
            n_rs_seq=n, n_sequences=n_sequences,
        )
    )  # fmt: skip


def plain(context: LlamaContext, prompt: list[int], n: int = N_TOKENS) -> list[int]:
    text = [context.eval(prompt, 1).argmax(0)]
    while len(text) < n:
        text.append(context.eval(text[-1:], 1).argmax(0))
    context.truncate(0)
    return text


def step(head: ChainHead, context: LlamaContext, last: int, n: int) -> list[int]:
    """Draft n tokens, verify them, go back: what stands, and the target's own next one."""
    tokens, n_held = [last], len(context.tokens)
    for _ in range(n):
        tokens.append(head.draft([(context, tokens)])[0].argmax(0))
    rows = context.eval(tokens, n + 1)
    said = [rows.argmax(i) for i in range(n + 1)]
    n_accepted = next((i for i in range(n) if tokens[i + 1] != said[i]), n)
    context.go_back(n_held + n_accepted + 1)
    assert len(context.tokens) == n_held + n_accepted + 1
    return said[: n_accepted + 1]


@pytest.mark.parametrize("n", [1, 3, 8])
def test_the_text_is_the_targets_own(model: Path, n: int, request: pytest.FixtureRequest):
    """And where the head agrees, all of each draft stands, at one call a drafted token."""
    agrees = "agrees" in request.node.name
    engine = engine_of(model, n)
    context = engine.context()
    wanted = plain(context, PROMPT, N_TOKENS)
    head = engine.head(MTP, n)
    text, n_steps = [context.eval(PROMPT, 1).argmax(0)], 0
    n_before = head.n_decodes
    while len(text) < N_TOKENS:
        new = step(head, context, text[-1], n)
        assert len(new) == n + 1 or not agrees
        text, n_steps = text + new, n_steps + 1
    assert text[:N_TOKENS] == wanted
    assert head.n_decodes - n_before <= n_steps * n + 2
    engine.close()


def test_a_head_left_alone_and_a_text_taken_back(model: Path):
    """Steps without drafts, another end of the text, and a context that was cleared."""
    engine = engine_of(model, 3)
    context = engine.context()
    wanted, other = plain(context, PROMPT), plain(context, PROMPT[:20])
    head = engine.head(MTP, 3)
    text = [context.eval(PROMPT, 1).argmax(0)]
    while len(text) < N_TOKENS:
        is_plain = len(text) in (5, 6, 7)
        last = text[-1]
        text += [context.eval([last], 1).argmax(0)] if is_plain else step(head, context, last, 3)
    assert text[:N_TOKENS] == wanted
    for prompt, said in ((PROMPT[:20], other), (PROMPT, wanted)):
        context.truncate(0)
        text = [context.eval(prompt, 1).argmax(0)]
        while len(text) < N_TOKENS:
            text += step(head, context, text[-1], 3)
        assert text[:N_TOKENS] == said
    engine.close()


def test_several_sequences_in_one_call(model: Path):
    engine = engine_of(model, 2, n_sequences=3)
    contexts = [engine.context() for _ in range(3)]
    prompts = [PROMPT, PROMPT[:7], PROMPT[5:30]]
    wanted = [plain(c, p, 2)[1] for c, p in zip(contexts, prompts, strict=True)]
    head = engine.head(MTP, 2)
    last = [c.eval(p, 1).argmax(0) for c, p in zip(contexts, prompts, strict=True)]
    alone = [head.draft([(c, [t])])[0].argmax(0) for c, t in zip(contexts, last, strict=True)]
    asked = [(c, [t]) for c, t in zip(contexts, last, strict=True)]
    together = [row.argmax(0) for row in head.draft(asked)]
    assert together == alone
    said = [c.eval([t], 1).argmax(0) for c, t in zip(contexts, last, strict=True)]
    assert said == wanted
    engine.close()


def test_states_cost_nothing_while_nobody_asks_for_them(model: Path) -> None:
    """A head that does not pay must not slow the passes of its target; the first of them after it
    asked again bring the states back."""
    engine = engine_of(model, 3)
    context, head = engine.context(), engine.head(MTP, 3)
    features = engine.features
    assert features
    last = context.eval(PROMPT, 1).argmax(0)
    assert head.is_ready(context)
    for _ in range(N_AWAKE + 1):
        assert features._is_on
        last = context.eval([last], 1).argmax(0)
    assert not features._is_on
    assert not head.is_ready(context)
    context.eval([last], 1)
    assert features._is_on
    assert head.is_ready(context)
    engine.close()
