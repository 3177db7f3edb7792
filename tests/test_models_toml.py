"""models.toml: what is shipped is in its form; a mistake is named with its table and key."""

from pathlib import Path

import pytest

from localspec import paths
from localspec.errors import UserError
from localspec.registry.catalog import entry_of, load_catalog, named_entry, read_models, split_type
from localspec.registry.resolve import draft_of, hub_name, resolve
from localspec.registry.variants import (
    RepositoryFile,
    Variant,
    by_model,
    quantization_of,
    variants,
)
from localspec.settings import CACHE_TYPES

GOOD = """\
# mine
[models.mine]
title = "Mine"
repository = "me/mine"
file = "mine-Q4_K_M.gguf"
license = "MIT"
"""


def test_what_is_shipped_covers_what_people_run() -> None:
    catalog = load_catalog()
    assert any(entry.draft is not None for entry in catalog.values())
    for entry in catalog.values():
        assert entry.license
        assert entry.good_for
        assert entry.params_b
        assert 0 < (entry.active_params_b or entry.params_b) <= entry.params_b
        assert entry.checked
        assert {entry.kv_k, entry.kv_v} <= set(CACHE_TYPES)
        assert quantization_of(entry.file), entry.file
    assert [name for name, entry in catalog.items() if entry.verified] == ["starter"]


def test_aliases_and_case_do_not_matter() -> None:
    for name in ("coder", "CODER", "qwen2.5-coder-7b", "Qwen2.5-Coder-7B"):
        entry = entry_of(name)
        assert entry is not None
        assert entry.name == "qwen2.5-coder-7b"
    assert resolve("smollm2-135m") == resolve("starter")
    assert draft_of("smollm2") == resolve("starter")


def test_a_draft_is_found_by_the_hub_s_name_of_its_target() -> None:
    entry = load_catalog()["smollm2-1.7b"]
    assert draft_of(hub_name(entry)) == resolve("starter")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (GOOD + 'kv_k = "q9"\n', "[models.mine] has 'q9' for kv_k"),
        (GOOD + 'kv_k = "q4_0"\nspeed = 9\n', "[models.mine] has the unknown key 'speed'"),
        (GOOD + "\n\n[other]\nx = 1\n", "[models.NAME]"),
        (GOOD + '\n[models."a b"]\n', "is no name"),
        (
            GOOD + '\n[models.second]\ntitle = "Second"\n',
            "[models.second] lacks repository and file and license",
        ),
        (GOOD.replace("me/mine", "mine"), "no owner/repository"),
        (GOOD.replace("mine-Q4_K_M.gguf", "mine.bin"), "no .gguf file"),
        (GOOD + 'aliases = "x"\n', "no list of names"),
        (
            GOOD + 'aliases = ["mine"]\n',
            "[models.mine] has the alias 'mine', which is a name of its own",
        ),
        (GOOD + "verified = 1\n", "true or false"),
        (GOOD + "params_b = true\n", "number above 0"),
        ("models = 3\n", "[models.NAME]"),
        ("[models]\nx = 3\n", "[models.x] is not a table"),
    ],
)
def test_a_mistake_is_named_with_its_table(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_models(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert word in str(caught.value)


def test_broken_toml_has_the_line_of_its_parser(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(GOOD + "title =\n")
    with pytest.raises(UserError, match="line 7"):
        read_models(path)


def test_a_draft_that_is_no_entry_is_named() -> None:
    (paths.config_dir() / "models.toml").write_text(GOOD + 'draft = "nobody"\n')
    with pytest.raises(UserError, match=r"\[models.mine\].*'nobody'"):
        load_catalog()


# --- quantizations by file name ----------------------------------------------------------------


def test_a_model_with_its_head_inside_is_a_model() -> None:
    """Many repositories of such models have nothing else."""
    files = [RepositoryFile("Model-27B-MTP-Q4_K_M.gguf", 4)]
    assert [variant.file for variant in variants(files)] == ["Model-27B-MTP-Q4_K_M.gguf"]


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-coder-7b-instruct-q8_0.gguf", "Q8_0"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("model-IQ3_XXS.gguf", "IQ3_XXS"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("BF16/model-BF16-00001-of-00002.gguf", "BF16"),
        ("model-Q2_K_L.gguf", "Q2_K_L"),
        ("model-q6_k.gguf", "Q6_K"),
        ("Q8_0_is_not_a_type.gguf", None),
        ("model.gguf", None),
    ],
)
def test_a_file_name_tells_its_quantization(file: str, kind: str | None) -> None:
    assert quantization_of(file) == kind


def test_one_model_of_a_repository_in_its_quantizations() -> None:
    files = [
        RepositoryFile("Model-7B-Q4_K_M.gguf", 4),
        RepositoryFile("Model-7B-Q8_0-00002-of-00002.gguf", 4),
        RepositoryFile("Model-7B-Q8_0-00001-of-00002.gguf", 5),
        RepositoryFile("mmproj-Model-7B-F16.gguf", 1),
        RepositoryFile("mtp-Model-7B-Q4_0.gguf", 1),
        RepositoryFile("MTP/Model-7B-Q4_1.gguf", 1),
        RepositoryFile("Model-7B-abliterated-Q4_K_M.gguf", 4),
        RepositoryFile("F16/Model-7B.F16.gguf", 14),
    ]
    assert variants(files, "Model-7B-Q4_K_M.gguf") == [
        Variant("Q4_K_M", "Model-7B-Q4_K_M.gguf", 4),
        Variant("Q8_0", "Model-7B-Q8_0-00001-of-00002.gguf", 9),
        Variant("F16", "F16/Model-7B.F16.gguf", 14),
    ]
    assert len(by_model(variants(files))) == 2


def test_a_quantization_after_a_colon() -> None:
    assert split_type("qwen3-8b:q8_0") == ("qwen3-8b", "Q8_0")
    assert split_type("llama3.2:3b") == ("llama3.2:3b", None)
    entry = load_catalog()["qwen2.5-coder-7b"]
    assert hub_name(entry, "Q8_0").endswith("/qwen2.5-coder-7b-instruct-q8_0.gguf")


@pytest.mark.parametrize(
    ("name", "entry", "kind"),
    [
        ("llama3.2:1b-instruct-q8_0", "llama3.2-1b", "Q8_0"),
        ("qwen3:30b", "qwen3-30b-a3b", None),
        ("qwen3:30b-a3b-q4_K_M", "qwen3-30b-a3b", "Q4_K_M"),
        ("qwen3.6:35b", "qwen3.6-35b-a3b", None),
        ("qwen3:4b-instruct-2507", "qwen3-4b-2507", None),
        ("gemma3:4b-it", "gemma3-4b", None),
        ("ministral-3:8b", "ministral3-8b", None),
        ("mistral-small3.2:24b", "mistral-small-3.2", None),
        ("phi4-mini:3.8b", "phi4-mini", None),
        ("nemotron-3-nano", "nemotron3-nano-30b-a3b", None),
        ("Qwen3 8B", "qwen3-8b", None),
        ("docker:ai/smollm2:360M-Q4_K_M", "smollm2-360m", "Q4_K_M"),
        ("docker:ai/qwen3-coder:30B-A3B-UD-Q4_K_XL", "qwen3-coder-30b-a3b", "UD-Q4_K_XL"),
        ("lmstudio:google/gemma-3-4b:q4_k_m", "gemma3-4b", "Q4_K_M"),
        ("lmstudio:zai-org/glm-4.7-flash", "glm4.7-flash", None),
        # other models than any entry, and names that several have
        ("gemma3:4b-it-qat", None, None),
        ("qwen3:4b-thinking-2507", None, None),
        ("granite4", None, None),
        ("devstral", None, None),
        ("phi4-mini:14b", None, None),
        ("qwen2.5-coder", None, None),
    ],
)
def test_an_entry_has_the_names_of_other_programs(
    name: str, entry: str | None, kind: str | None
) -> None:
    found, its_kind = named_entry(name)
    assert (found and found.name) == entry
    assert its_kind == kind


def test_no_file_is_two_entries() -> None:
    files = [(entry.repository, entry.file) for entry in load_catalog().values()]
    assert len(set(files)) == len(files) >= 45
