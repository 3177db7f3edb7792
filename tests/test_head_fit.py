"""A draft head is judged by its header: the right ones give their facts, wrong ones a sentence."""

import os
import re
from pathlib import Path

import pytest
from babbling import byte_vocabulary
from head_files import (
    N_LAYERS,
    N_VOCAB,
    File,
    N,
    assistant,
    bools,
    dflash,
    dspark,
    eagle3,
    gemma4,
    ints,
    mtp,
    target,
    with_mtp,
)

from localspec.errors import ModelError
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadBlock, HeadFacts
from localspec.model.head_fit import ONE_HEAD, SEVERAL_HEADS, head_of, is_head
from localspec.model.head_pair import TAPPED, TAPPED_AT_END

HEAD = "head.gguf"


def judged(folder: Path, model: File, head: File | None) -> HeadFacts | str:
    ours = model.header(folder / "model.gguf")
    return head_of(ours, head and head.header(folder / HEAD))


@pytest.mark.parametrize("architecture", sorted(ONE_HEAD | SEVERAL_HEADS))
def test_heads_inside_and_beside(tmp_path: Path, architecture: str):
    n = 3 if architecture in SEVERAL_HEADS else 1
    longest = n if n > 1 else None
    assert judged(tmp_path, with_mtp(architecture, n), None) == HeadFacts("mtp", None, n, longest)
    path = tmp_path / HEAD
    for model in (with_mtp(architecture, n), target(architecture)):
        facts = judged(tmp_path, model, mtp(architecture, n))
        assert facts == HeadFacts("mtp", path, n, longest)


def test_heads_of_other_methods(tmp_path: Path):
    path = tmp_path / HEAD
    facts = judged(tmp_path, gemma4(), assistant())
    assert facts == HeadFacts("gemma4-assistant", path, needs_target_cache=True)
    assert judged(tmp_path, target(), eagle3()) == HeadFacts("eagle3", path, taps=(1, 3, 5))
    facts = judged(tmp_path, target(), dflash())
    assert isinstance(facts, HeadFacts)
    assert (facts.method, facts.n_draft_max, facts.taps) == ("dflash", 7, (1, 3, 4, 5))
    assert facts.block == HeadBlock(8, 7)
    facts = judged(tmp_path, target(), dspark())
    assert isinstance(facts, HeadFacts)
    assert (facts.method, facts.n_draft_max) == ("dspark", 8)
    assert facts.block == HeadBlock(8, 7, first=0, has_confidence=True)


@pytest.mark.parametrize(
    "head",
    [
        eagle3().without("output.weight"),
        eagle3().but(norm_before_fc=True).having(enc__output_norm__weight=(3 * N,)),
        eagle3().having(output__weight=(N, 100)).having("I64", d2t=(100,)),
        eagle3(32).having(token_embd__weight=(32, N_VOCAB)),
    ],
    ids=["target's scores", "norm before fc", "reduced vocabulary", "another width of its own"],
)
def test_variants_of_eagle3(tmp_path: Path, head: File):
    assert isinstance(judged(tmp_path, target(), head), HeadFacts)


def test_a_block_that_does_not_draft_from_its_anchor(tmp_path: Path):
    facts = judged(tmp_path, target(), dspark().but(sample_from_anchor=False, block_size=4))
    assert isinstance(facts, HeadFacts)
    assert facts.n_draft_max == 3
    assert facts.block == HeadBlock(4, 7, first=1, has_confidence=True)


@pytest.mark.parametrize("architecture", sorted(TAPPED_AT_END))
def test_what_leaves_the_last_layer_is_given_by_few(tmp_path: Path, architecture: str):
    head = eagle3().but(target_layers=ints(1, 3, N_LAYERS))
    facts = judged(tmp_path, target(architecture), head)
    assert isinstance(facts, HeadFacts)
    assert facts.taps[-1] == N_LAYERS


MASK = "tokenizer.ggml.mask_token_id"
OTHER_TOKENS = byte_vocabulary(N_VOCAB) | {
    "tokenizer.ggml.tokens": byte_vocabulary(N_VOCAB - 20)["tokenizer.ggml.tokens"]
}
WIDE = {"embedding_length": 128}
WRONG: dict[str, tuple[File, File | None, str]] = {
    # inside
    "no head inside": (target("qwen35"), None, "no draft head (MTP) inside: get a file"),
    "its weights were lost": (
        with_mtp().without("nextn"), None, "lacks the tensor 'blk.6.nextn.eh_proj.weight'",
    ),
    "one norm was lost": (with_mtp().without("hnorm"), None, "lacks the tensor 'blk.6.nextn.hnorm"),
    "a projection of another shape": (
        with_mtp().having(blk__6__nextn__eh_proj__weight=(N, N)), None, "of shape (64, 64)",
    ),
    "no graph for it": (with_mtp("glm5-next"), None, "cannot run heads (MTP) of the architecture"),
    "heads of a dense cousin": (with_mtp("nemotron_h"), None, "cannot run heads (MTP)"),
    "a router's layer": (with_mtp("graniteswitch"), None, "cannot run heads (MTP)"),
    "an architecture of the future": (with_mtp("qwen9"), None, "of the architecture 'qwen9'"),
    "two heads where one runs": (with_mtp("qwen35", 2), None, "has 2 heads, and llama.cpp"),
    "no last norm": (
        with_mtp("bailingmoe3").without("layer_output_norm"), None, "blk.6.layer_output_norm",
    ),
    "no router": (with_mtp("nemotron_h_moe").without("ffn_gate_inp"), None, "blk.6.ffn_gate_inp"),
    "split attention": (with_mtp("mimo2", 2).without("attn_qkv"), None, "blk.6.attn_qkv"),
    # beside
    "a sidecar of another architecture": (
        with_mtp("qwen35moe"), mtp(), "of a model of 'qwen35', and the target of qwen35moe",
    ),
    "a sidecar of another size": (
        with_mtp().but(**WIDE).having(token_embd__weight=(128, N_VOCAB)), mtp(),
        "embedding_length is 64, and hidden states of the target have 128",
    ),
    "a sidecar of another depth": (
        with_mtp(), mtp().but(block_count=9).having(
            blk__8__nextn__eh_proj__weight=(2 * N, N), blk__8__nextn__enorm__weight=(N,),
            blk__8__nextn__hnorm__weight=(N,),
        ), "of a model of 8 layers, and the target has 6",
    ),
    "a sidecar of another tokenizer": (
        with_mtp(), mtp().speaking(OTHER_TOKENS), "knows 280 tokens, and the target 300",
    ),
    "a sidecar without embeddings": (with_mtp(), mtp().without("token_embd"), "token_embd.weight"),
    "a sidecar without its last norm": (with_mtp(), mtp().without("output_norm"), "output_norm"),
    "a sidecar without scores": (
        with_mtp("step35", 3), mtp("step35", 3).without("output.weight"), "output.weight",
    ),
    "a sidecar without its block": (with_mtp(), mtp().without("blk.6.nextn"), "eh_proj"),
    "a sidecar whose keys do not turn": (
        with_mtp(), mtp().but(rope__dimension_count=0), "turns 0 numbers of its keys",
    ),
    "a file that says nothing of itself": (
        target(), eagle3().but(target_layers=None).named(""), "does not say its architecture",
    ),
    "a whole model as a head": (target(), target(), "it is no draft head but a model"),
    "a model with its head as a head": (with_mtp(), with_mtp(), "but a model with MTP"),
    "a head as a target": (mtp(), mtp(), "the target is a draft head itself"),
    # Gemma 4
    "an assistant of an old converter": (
        gemma4(), assistant().named("gemma4_assistant"), "calls 'gemma4-assistant' today",
    ),
    "an assistant of a fork": (gemma4(), assistant().named("gemma4_mtp"), "'gemma4_mtp', which"),
    "an assistant of another family": (target("gemma3"), assistant(), "it is for Gemma 4, and the"),
    "an assistant of another size": (
        gemma4(), assistant().but(embedding_length_out=128), "embedding_length_out is 128",
    ),
    "an assistant as wide as its target": (
        gemma4(), assistant().but(embedding_length=N), "as wide as the target's",
    ),
    "an assistant that says no width": (
        gemma4(), assistant().but(embedding_length_out=None), "has None for 'gemma4-assistant.emb",
    ),
    "an assistant that drafts with no layer": (
        gemma4(), assistant().but(nextn_predict_layers=0), "of none of its layers",
    ),
    "an assistant whose keys do not turn within its window": (
        gemma4(), assistant().but(rope__dimension_count_swa=0), "turns 0 numbers of its keys",
    ),
    "an assistant without a window": (
        gemma4(), assistant().but(attention__sliding_window_pattern=bools(0, 0, 0, 0)),
        "no layer with a sliding window",
    ),
    "an assistant that reads other keys": (
        gemma4(), assistant().but(attention__key_length=32, attention__value_length=32),
        "reads a cache of (2, 32, 32) (heads, key, value), and the target has (2, 16, 16)",
    ),
    "an assistant with uneven keys": (
        gemma4(), assistant().but(attention__value_length=8), "keys of 16 and values of 8",
    ),
    "an assistant without a projection": (
        gemma4(), assistant().without("post_projection"), "nextn.post_projection.weight",
    ),
    "an assistant with a projection of another width": (
        gemma4(), assistant().having(nextn__pre_projection__weight=(N, 32)), "of shape (64, 32)",
    ),
    "a target that ends otherwise": (
        gemma4().but(attention__sliding_window_pattern=bools(0, 1, 1, 1, 1, 1)), assistant(),
        "not one with a window and one without",
    ),
    # EAGLE-3
    "taps of a target that gives none": (
        target("gemma3"), eagle3(), "does not give out of the architecture 'gemma3'",
    ),
    "taps in another width": (target("qwen4exp"), eagle3(), "does not give out of the"),
    "two taps": (target(), eagle3().but(target_layers=ints(1, 3)), "reads 2 layers of its target"),
    "no taps": (target(), eagle3().but(target_layers=ints()), "does not say which layers"),
    "a tap behind the end": (
        target(), eagle3().but(target_layers=ints(1, 3, 7)), "reads layer 7, and the target has 6",
    ),
    "a tap before the beginning": (
        target(), eagle3().but(target_layers=ints(-1, 3, 5)), "reads layer -1, and the",
    ),
    "a tap at the end that is not given": (
        target(), eagle3().but(target_layers=ints(1, 3, 6)), "what leaves the target's last layer",
    ),
    "taps of another width": (
        target(), eagle3().but(target_hidden_size=128), "target_hidden_size is 128, and hidden",
    ),
    "no width": (target(), eagle3().but(target_hidden_size=None), "has None for 'eagle3.target"),
    "two layers": (target(), eagle3().but(block_count=2), "has 2 layers, and EAGLE-3 has one"),
    "uneven keys": (
        target(), eagle3().but(attention__value_length=8), "keys of 16 and values of 8",
    ),
    "fewer heads than heads of keys": (
        target(), eagle3().but(attention__head_count_kv=1 << 40), "heads of keys and values",
    ),
    "less than no heads of keys": (
        target(), eagle3().but(attention__head_count_kv=-1), "4 attention heads for -1 heads",
    ),
    "keys that do not turn": (
        target(), eagle3().but(rope__dimension_count=0), "turns 0 numbers of its keys",
    ),
    "keys that turn too far": (
        target(), eagle3().but(rope__dimension_count=96), "rotates 96 numbers of keys of 16",
    ),
    "tokens numbered in halves": (
        target(), eagle3().having(output__weight=(N, 100)).having("I32", d2t=(100,)),
        "numbers its tokens (d2t) in I32",
    ),
    "more tokens than scores": (
        target(), eagle3().having(output__weight=(N, 100)).having("I64", d2t=(90,)),
        "'output.weight' of shape (64, 100) in place of (64, 90)",
    ),
    "tokens numbered without scores": (
        target(), eagle3().without("output.weight").having("I64", d2t=(90,)), "output.weight",
    ),
    "more tokens than the target": (
        target(), eagle3().having(output__weight=(N, 400)).having("I64", d2t=(400,)),
        "400 tokens in d2t, and its target 300",
    ),
    "a narrow head with the target's embeddings": (
        target(), eagle3(32), "works with the target's embeddings or scores, of 64 numbers",
    ),
    "other tokens": (target(), eagle3().speaking(OTHER_TOKENS), "knows 280 tokens"),
    "an encoder of another width": (
        target(), eagle3().having(fc__weight=(N, N)), "'fc.weight' of shape (64, 64)",
    ),
    "a norm that is promised": (
        target(), eagle3().but(norm_before_fc=True), "lacks the tensor 'enc.output_norm.weight'",
    ),
    "an old name of EAGLE-3": (target(), eagle3().named("llama-eagle3"), "calls 'eagle3' today"),
    # DFlash
    "blocks of another width": (
        target().but(**WIDE).having(token_embd__weight=(128, N_VOCAB)), dflash(),
        "embedding_length is 64, and hidden",
    ),
    "no mask": (target(), dflash().speaking(byte_vocabulary(N_VOCAB)), "(mask_token_id)"),
    "a mask of another vocabulary": (
        target(), dflash().speaking(byte_vocabulary(N_VOCAB) | {MASK: 999}),
        "fills in for token 999, and its target has 300",
    ),
    "a block of one": (target(), dflash().but(block_size=1), "has 1 for its block's size"),
    "a chain without a block": (
        target(), dspark().but(block_size=None), "has None for its block's",
    ),
    "taps behind the end": (
        target(), dflash().but(target_layers=ints(1, 3, 4, 9)), "reads layer 9",
    ),
    "an encoder for fewer taps": (
        target(), dflash().having(fc__weight=(3 * N, N)), "'fc.weight' of shape (192, 64)",
    ),
    "stages without groups": (
        target(), dflash().but(hyper_connection__count=4), "attention.output_group_count",
    ),
    "a lattice without a size": (
        target(), dflash().having(selector_hidden__weight=(N, 8)), "dflash.selector_rank",
    ),
    "an old name of DFlash": (target(), dflash().named("dflash-draft"), "calls 'dflash' today"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_head_gets_a_sentence(tmp_path: Path, name: str):
    model, head, expected = WRONG[name]
    said = judged(tmp_path, model, head)
    assert isinstance(said, str)
    assert expected in said
    assert "\n" not in said
    assert not said.endswith(".")
    assert said.startswith(("head.gguf", "model.gguf", "the draft head in", str(tmp_path)))


def test_a_model_is_no_head_beside_itself(tmp_path: Path):
    path = with_mtp().write(tmp_path / "model.gguf")
    said = head_of(read_header(path), read_header(path))
    assert said == "model.gguf is no head beside itself: --draft own asks for the one inside it"


def test_a_head_that_is_cut_short_is_not_read(tmp_path: Path):
    path = eagle3().write(tmp_path / HEAD)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="bytes short; download it again"):
        read_header(path)


def test_a_key_of_another_kind_is_said(tmp_path: Path):
    said = judged(tmp_path, target(), eagle3().but(target_hidden_size="64"))
    assert isinstance(said, str)
    assert "something else than a whole number in 'eagle3.target_hidden_size'" in said


def test_what_is_a_head(tmp_path: Path):
    heads = (mtp(), assistant(), eagle3(), dflash(), dspark())
    models = (target(), with_mtp())
    assert all(is_head(head.header(tmp_path / HEAD)) for head in heads)
    assert not any(is_head(model.header(tmp_path / HEAD)) for model in models)


def _sources() -> dict[str, str]:
    """The graphs of llama.cpp's models by architecture, from its source archive."""
    folder = Path(os.environ.get("LOCALSPEC_LLAMA_CPP", "/nowhere"))
    if not folder.exists():
        pytest.skip("LOCALSPEC_LLAMA_CPP does not name llama.cpp's source")
    names = dict(
        re.findall(
            r"\{ LLM_ARCH_(\w+),\s+\"([\w-]+)\"", (folder / "src/llama-arch.cpp").read_text()
        )
    )
    by_file = {names[key].replace("_", "-"): names[key] for key in names}
    by_file |= {"openai-moe": "gpt-oss", "glm4-moe": "glm4moe"}
    files = (folder / "src/models").glob("*.cpp")
    return {by_file.get(file.stem, file.stem): file.read_text() for file in files}


def test_the_lists_are_those_of_the_source():
    sources = _sources()
    tapped = {name for name, text in sources.items() if "t_layer_inp[il] =" in text}
    assert TAPPED - {"hunyuan-dense", "lfm2moe", "nemotron_h_moe"} == tapped - {"qwen4exp"}
    at_end = {name for name, text in sources.items() if "t_layer_inp[n_layer] =" in text}
    assert TAPPED_AT_END - {"nemotron_h_moe"} == at_end
    run = {name for name, text in sources.items() if "gtype == LLM_GRAPH_TYPE_DECODER_MTP" in text}
    assert run - {"glm5-next"} == ONE_HEAD | SEVERAL_HEADS
    one = {n for n in run if re.search(r"ASSERT\(hparams.n_layer_nextn == 1", sources[n])}
    assert one == ONE_HEAD
