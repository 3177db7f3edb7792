"""A draft head in a file of its own is no model: every command says so, and none dies of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from babbling import write_babbling_model
from command import Run, assert_refused, localspec
from head_files import (
    File,
    assistant,
    dflash,
    dspark,
    eagle3,
    gemma4,
    ints,
    mtp,
    target,
    with_mtp,
)
from hub import Hub
from hybrids import MambaShape, write_random_mamba
from sparse import HEAD, KINDS, N_BLOCKS, N_VOCAB, layers, write_blocks, write_mtp_head

from localspec.errors import ModelError
from localspec.gguf.reader import read_header
from localspec.model.synthetic import Shape
from localspec.model.usable import check_usable

OF_ANOTHER = "sidecar.gguf cannot draft for model.gguf: it is of a model of 'qwen35', and the"
REFUSED = "has only the draft head (MTP) of a model, not its layers; give the path of a whole"


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_usable(read_header(path))
    return str(caught.value)


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    return write_mtp_head(tmp_path / "sidecar.gguf")


@pytest.mark.parametrize("architecture", ["qwen35", "glm4moe", "deepseek2", "brand-new"])
@pytest.mark.parametrize("shared", [("token_embd", "output_norm", "output"), ("output_norm",)])
def test_a_head_alone_is_no_model(tmp_path: Path, architecture: str, shared: tuple[str, ...]):
    """With embeddings of its own, or with those of its target."""
    path = write_blocks(tmp_path / "model.gguf", {4: HEAD}, architecture, shared)
    assert REFUSED in refusal(path)


def test_heads_that_are_all_blocks(tmp_path: Path):
    path = write_blocks(tmp_path / "model.gguf", {0: HEAD}, block_count=1)
    assert REFUSED in refusal(path)


def test_a_head_with_pieces_of_the_first_layer(tmp_path: Path):
    """libllama tells a sidecar by the first norm, whatever else is there."""
    path = write_blocks(tmp_path / "model.gguf", {0: ("attn_q",), **layers(1, 2, 3), 4: HEAD})
    assert REFUSED in refusal(path)


@pytest.mark.parametrize("missing", [0, 1, 3])
@pytest.mark.parametrize("n_heads", [0, 1])
def test_a_layer_without_weights(tmp_path: Path, missing: int, n_heads: int):
    numbers = [i for i in range(N_BLOCKS) if i != missing]
    path = write_blocks(tmp_path / "m.gguf", layers(*numbers), nextn_predict_layers=n_heads)
    n_layers = N_BLOCKS - n_heads
    expected = f"has no weights for layer {missing} of {n_layers}; download or convert it again"
    assert (REFUSED if n_heads and not missing else expected) in refusal(path)


def test_models_with_a_head_inside_pass(tmp_path: Path):
    check_usable(read_header(write_blocks(tmp_path / "m.gguf", {**layers(0, 1, 2, 3), 4: HEAD})))


@pytest.mark.parametrize("name", ["ln1", "ssm_in", "time_mix_w1", "ffn_up", "attn_post_norm"])
def test_layers_with_weights_of_any_name_pass(tmp_path: Path, name: str):
    """Recurrent layers, and norms after instead of before, are nothing to wonder at."""
    blocks = dict.fromkeys(range(N_BLOCKS), (name,))
    path = write_blocks(tmp_path / "m.gguf", blocks, "brand-new", nextn_predict_layers=0)
    check_usable(read_header(path))


def test_layers_that_only_pass_on_need_no_weights(tmp_path: Path):
    """Nemotron Ultra has layers without attention and without feed-forward."""
    path = write_blocks(tmp_path / "m.gguf", layers(0, 1, 4), "deci", nextn_predict_layers=0)
    check_usable(read_header(path))


def test_mamba_passes(tmp_path: Path):
    write_random_mamba(tmp_path / "m.gguf", MambaShape())
    check_usable(read_header(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "FILE", "--probe", "off"),
        ("generate", "FILE", "-p", "Hi"),
        ("chat", "FILE", "-p", "Hi"),
        ("bench", "FILE"),
        ("tune", "FILE"),
        ("quality", "FILE"),
        ("quantize", "FILE", "--to", "Q8_0"),
        ("export", "FILE", "--to", "llama-server"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_it(sidecar: Path, command: tuple[str, ...]):
    words = (sidecar if word == "FILE" else word for word in command)
    assert_refused(localspec(*words), 1, REFUSED)


DRAFTED = [
    ("predict", "MODEL", "--draft", "FILE", "--probe", "off"),
    ("generate", "MODEL", "--draft", "FILE", "-p", "Hi"),
    ("generate", "MODEL", "--draft", "FILE", "--jsonl", "TEXT"),
    ("chat", "MODEL", "--draft", "FILE", "-p", "Hi"),
    ("serve", "MODEL", "--draft", "FILE"),
    ("bench", "MODEL", "--draft", "FILE", "--same-answer"),
    ("bench", "MODEL", "--draft", "FILE", "--spec", "auto", "--prompts", "TEXT"),
    ("tune", "MODEL", "--draft", "FILE"),
    ("export", "MODEL", "--draft", "FILE", "--to", "llama-server"),
]
"""Every command that takes a draft."""


def drafted(folder: Path, command: tuple[str, ...], model: Path, head: Path) -> Run:
    text = folder / "prompts.jsonl"
    text.write_text('{"prompt": "Hi"}\n')
    names = {"FILE": head, "MODEL": model, "TEXT": text}
    return localspec(*(names.get(word, word) for word in command))


@pytest.mark.parametrize("command", DRAFTED, ids=" ".join)
def test_every_command_refuses_one_of_another_model_as_a_draft(
    sidecar: Path, tmp_path: Path, command: tuple[str, ...]
):
    model = tmp_path / "model.gguf"
    shape = Shape(n_embd=64, n_heads=1, n_kv_heads=1, n_ff=64, n_vocab=N_VOCAB)
    write_babbling_model(model, shape)
    run = drafted(tmp_path, command, model, sidecar)
    assert_refused(run, 2 if "--prompts" in command else 1, OF_ANOTHER)


def test_a_head_is_nothing_to_compare_a_model_with(sidecar: Path):
    assert_refused(localspec("quality", sidecar, "--reference", sidecar), 1, REFUSED)


WRONG: dict[str, tuple[File, File, str]] = {
    "EAGLE-3 of another width": (
        target(), eagle3().but(target_hidden_size=128), "its target_hidden_size is 128",
    ),
    "EAGLE-3 with sizes that cannot be": (
        target(), eagle3().but(attention__head_count_kv=1 << 40), "heads of keys and values",
    ),
    "DFlash without a tensor": (target(), dflash().without("fc.weight"), "lacks the tensor"),
    "DSpark with layers of another model": (
        target(), dspark().but(target_layers=ints(1, 2, 3, 99)), "it reads layer 99",
    ),
    "an assistant by its old name": (
        gemma4(), assistant().named("gemma4_assistant"), "calls 'gemma4-assistant' today",
    ),
    "a model in place of a sidecar": (with_mtp(), mtp("step35", 3), "is of a model of 'step35'"),
}  # fmt: skip


@pytest.mark.parametrize("command", DRAFTED[:-3], ids=" ".join)
@pytest.mark.parametrize("name", WRONG)
def test_every_kind_of_wrong_head_is_refused(tmp_path: Path, name: str, command: tuple[str, ...]):
    """By the file's name and what is wrong with it, before any engine is asked for."""
    model, head, expected = WRONG[name]
    paths = model.write(tmp_path / "model.gguf"), head.write(tmp_path / "head.gguf")
    assert_refused(drafted(tmp_path, command, *paths), 1, "head.gguf", expected)


@pytest.fixture
def command(hub: Hub, tmp_path: Path) -> Callable[..., Run]:
    return lambda *words: localspec(*words, **hub.environment(tmp_path / "hf"))


@pytest.mark.parametrize("file", ["mtp-model-Q4_0.gguf", "MTP/model-Q4_0.gguf"])
def test_a_head_alone_can_be_pulled(
    hub: Hub, command: Callable[..., Run], sidecar: Path, file: str
):
    name = f"hf:owner/repo-GGUF/{file}"
    hub.add("owner/repo-GGUF", file, sidecar.read_bytes())
    (got,) = command("pull", name, "--json").document["files"]
    assert (got["role"], got["bytes"]) == ("head", sidecar.stat().st_size)
    (row,) = [row for row in command("list", "--json").document["models"] if row["name"] == name]
    assert (row["kind"], row["problem"], row["drafts_for"]) == ("MTP head", None, [])


def test_pull_reads_the_header_before_it_fetches_what_is_named_like_a_head(
    hub: Hub, command: Callable[..., Run], tmp_path: Path
):
    """A projector in a head's clothes."""
    projector = KINDS["projector"](tmp_path / "p.gguf").read_bytes()
    hub.add("owner/repo-GGUF", "mtp-model-Q4_0.gguf", projector + bytes(3_000_000))
    refused = "is the image or sound encoder of a model"
    assert_refused(command("pull", "hf:owner/repo-GGUF/mtp-model-Q4_0.gguf"), 1, refused)
    assert hub.n_stored_sent < 2_000_000
    assert not list(tmp_path.glob("hf/hub/**/*.gguf"))


@pytest.mark.slow
def test_a_head_with_a_model_s_name(hub: Hub, command: Callable[..., Run], sidecar: Path):
    name = "hf:owner/repo-GGUF/model-Q4_0.gguf"
    hub.add("owner/repo-GGUF", "model-Q4_0.gguf", sidecar.read_bytes())
    assert_refused(command("predict", name, "--probe", "off"), 1, REFUSED)  # remote
    assert command("pull", name).code == 0
    (row,) = [row for row in command("list", "--json").document["models"] if row["name"] == name]
    assert (row["kind"], row["predicted_tps"]) == ("MTP head", None)


REPOSITORY = "owner/repo-GGUF"


def put(hub: Hub, folder: Path, **files: File) -> None:
    for number, (name, file) in enumerate(files.items()):
        data = file.write(folder / f"{number}.gguf").read_bytes()
        hub.add(REPOSITORY, name.replace("__", "/").replace("_", "-") + ".gguf", data)


def test_pull_fetches_the_head_that_fits(hub: Hub, command: Callable[..., Run], tmp_path: Path):
    """Names propose: the likeliest is of another model, and stays where it is."""
    wrong, right = eagle3().but(target_hidden_size=128), eagle3()
    put(hub, tmp_path, model_Q8=target(), eagle3_model_Q8=wrong, EAGLE3__model_F16=right)
    files = command("pull", f"hf:{REPOSITORY}/model-Q8.gguf", "--json").document["files"]
    assert [(file["role"], Path(file["path"]).name) for file in files] == [
        ("model", "model-Q8.gguf"), ("head", "model-F16.gguf"),
    ]  # fmt: skip
    rows = {row["name"]: row for row in command("list", "--json").document["models"]}
    model, head = (
        rows[f"hf:{REPOSITORY}/model-Q8.gguf"],
        rows[f"hf:{REPOSITORY}/EAGLE3/model-F16.gguf"],
    )
    assert model["head"] == head["name"]
    assert head["drafts_for"] == [model["name"]]
    assert head["kind"] == "EAGLE-3 head"


@pytest.mark.parametrize("model", [target(), with_mtp()], ids=["none fits", "one inside"])
def test_pull_leaves_heads_that_are_of_no_use(
    hub: Hub, command: Callable[..., Run], tmp_path: Path, model: File
):
    put(hub, tmp_path, model_Q8=model, mtp_model_Q8=mtp("step35", 3), dflash_model=dflash().but(
        block_size=1))  # fmt: skip
    files = command("pull", f"hf:{REPOSITORY}/model-Q8.gguf", "--json").document["files"]
    assert [file["role"] for file in files] == ["model"]


def test_a_head_can_be_left_out(hub: Hub, command: Callable[..., Run], tmp_path: Path):
    put(hub, tmp_path, model_Q8=target(), eagle3_model_Q8=eagle3())
    files = command("pull", f"hf:{REPOSITORY}/model-Q8.gguf", "--no-draft", "--json")
    assert [file["role"] for file in files.document["files"]] == ["model"]
