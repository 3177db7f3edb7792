"""Any name that people copy leads to the right file, or to a sentence with the next step."""

import json
import os
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from babbling import write_babbling_model
from hub import Hub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sparse import write_mtp_head

from localspec import paths
from localspec.errors import LocalspecError, UserError
from localspec.forecast.forecast import facts_of
from localspec.gguf.hub_name import HubFile, HubRepository, hub_name_of
from localspec.gguf.reader import read_header
from localspec.model.synthetic import Shape
from localspec.notify import silent
from localspec.registry.resolve import locate, resolve, written_name
from localspec.session.pull_plan import Wish, carry_out, plan_pull

REPO = "bartowski/Tiny-1B-GGUF"
TINY = Shape(n_layers=1, n_embd=64, n_heads=2, n_kv_heads=1, n_ff=128, n_vocab=320)
ENTRY = """
[models."pair3.2-3b"]
title = "Pair"
repository = "own/One"
file = "weights.gguf"
license = "MIT"
draft = "none3.2-1b"

[models."none3.2-1b"]
title = "None"
repository = "own/No-GGUF"
file = "none.gguf"
license = "MIT"

[models."tiny3.2-1b"]
title = "Tiny"
repository = "bartowski/Tiny-1B-GGUF"
file = "Tiny-1B-Q4_K_M.gguf"
license = "MIT"
aliases = ["tiny"]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "m.gguf"
    write_babbling_model(path, TINY)
    return path.read_bytes()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_mtp_head(tmp_path_factory.mktemp("head") / "h.gguf").read_bytes()


@pytest.fixture(scope="module")
def running(model: bytes, head: bytes) -> Generator[Hub]:
    """Repositories as they are: quantizations, folders of parts, files beside, other formats."""
    hub = Hub()
    for kind in ("Q4_K_M", "Q8_0", "UD-Q4_K_XL"):
        hub.add(REPO, f"Tiny-1B-{kind}.gguf", model)
    hub.add(REPO, "mmproj-Tiny-1B-f16.gguf", head)
    hub.add(REPO, "imatrix.gguf", head)
    hub.add(REPO, "README.md", b"# Tiny")
    hub.add("own/Odd-GGUF", "odd-apex-mini.gguf", model)
    hub.add("own/Odd-GGUF", "odd-apex-quality.gguf", model)
    hub.add("own/One", "weights.gguf", model)
    for part in (1, 2):
        for kind in ("Q4_K_M", "BF16"):
            hub.add("own/Split-GGUF", f"{kind}/Split-{kind}-{part:05d}-of-00002.gguf", model)
    hub.add("own/MTP-GGUF", "Big-27B-MTP-Q4_K_M.gguf", model)
    hub.add("own/MTP-GGUF", "mtp-Big-27B-Q4_0.gguf", head)
    hub.add("own/Hidden-GGUF", "big-head-Q4_K_M.gguf", head)
    hub.add("own/Hidden-GGUF", "big-Q4_K_M.gguf", model)
    hub.add("own/Beside", "MTP/mtp-big-Q4_0.gguf", head)
    hub.add("own/Beside", "big-Q4_K_M.gguf", model)
    hub.add("own/Safe", "model.safetensors", b"12345678{}")
    hub.add("own/Tiny3.2-1B", "model-00001-of-00002.safetensors", b"12345678{}")
    hub.add("own/Gated-GGUF", "gated-Q4_K_M.gguf", model)
    hub.gated["own/Gated-GGUF"] = "hf_good"
    hub.renamed["BARTOWSKI/tiny-1b-gguf"] = REPO  # as the hub answers to other capitals
    with hub.running():
        yield hub


@pytest.fixture
def hub(running: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """As the hub's variables do for a program that starts."""
    address = running.address
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    constants = {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": False,
    }
    for name, value in constants.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    (paths.config_dir() / "models.toml").write_text(ENTRY)
    return running


def planned(name: str) -> str:
    """The first file that `pull` would get, or why it gets none."""
    try:
        plan = plan_pull(name, Wish(), silent)
    except LocalspecError as error:
        return str(error)
    return plan.models[0].files[0].reference.removeprefix("hf:")


Q4, Q8 = f"{REPO}/Tiny-1B-Q4_K_M.gguf", f"{REPO}/Tiny-1B-Q8_0.gguf"
BF16 = "own/Split-GGUF/BF16/Split-BF16-00001-of-00002.gguf"
MTP = "own/MTP-GGUF/Big-27B-MTP-Q4_K_M.gguf"
PAGE = f"https://huggingface.co/{REPO}"
FILES = {
    # a repository and a quantization, as llama.cpp and the hub's button write it
    f"{REPO}:Q4_K_M": Q4,
    f"{REPO}:q8_0": Q8,
    f"hf:{REPO}:Q8_0": Q8,
    f"hf://{REPO}:Q8_0": Q8,
    f"HF:{REPO}:q4_k_m": Q4,
    f"{REPO}:UD-Q4_K_XL": f"{REPO}/Tiny-1B-UD-Q4_K_XL.gguf",
    f"{REPO}:ud-q4 k xl": f"{REPO}/Tiny-1B-UD-Q4_K_XL.gguf",
    f"{REPO}:Q4-K-M": Q4,
    f"{REPO}:Q4_K_XL": f"{REPO}/Tiny-1B-UD-Q4_K_XL.gguf",
    f"{REPO}:UD_Q4_K_XL": f"{REPO}/Tiny-1B-UD-Q4_K_XL.gguf",
    f"{REPO}@Q8_0": Q8,
    f"{REPO}/Tiny-1B-Q8_0.gguf.": Q8,
    f"{REPO}:Q8_0/": Q8,
    f"“{REPO}:Q8_0”.": Q8,
    f"@{REPO}:Q8_0,": Q8,
    # with a host, as Ollama writes it
    f"hf.co/{REPO}:Q4_K_M": Q4,
    f"HF.co/{REPO}:q4_k_m": Q4,
    f"huggingface.co/{REPO}:Q8_0": Q8,
    f"www.huggingface.co/{REPO}:Q8_0": Q8,
    f"ollama:hf.co/{REPO}:Q8_0": Q8,
    f"hf.co/{REPO}:Tiny-1B-Q8_0.gguf": Q8,
    # a draft head by its own name
    "hf:own/MTP-GGUF/mtp-Big-27B-Q4_0.gguf": "own/MTP-GGUF/mtp-Big-27B-Q4_0.gguf",
    # addresses of files
    f"{PAGE}/blob/main/Tiny-1B-Q8_0.gguf": Q8,
    f"{PAGE}/resolve/main/Tiny-1B-Q8_0.gguf?download=true": Q8,
    f"https://HF.co/{REPO}/blob/main/Tiny-1B-Q8_0.gguf": Q8,
    f"HTTPS://HuggingFace.co:443/{REPO}/resolve/main/Tiny-1B-Q8_0.gguf#x": Q8,
    f"{PAGE}?show_file_info=Tiny-1B-Q8_0.gguf": Q8,
    f"{PAGE}/tree/main?show_file_info=Tiny-1B-Q8_0.gguf": Q8,
    f"hf:{REPO}/resolve/main/Tiny-1B-Q8_0.gguf": Q8,
    f"hf:{REPO}/blob/main/Tiny-1B-Q8_0.gguf": Q8,
    f"hf:{REPO}/Tiny-1B-Q8_0.gguf?download=true": Q8,
    f"hf.co/{REPO}/Tiny-1B-Q8_0.gguf": Q8,
    f"{REPO}/Tiny-1B-Q8_0.gguf": Q8,
    # split models, by type and by folder
    "own/Split-GGUF:BF16": BF16,
    "own/Split-GGUF:bf16": BF16,
    "https://huggingface.co/own/Split-GGUF/tree/main/BF16": BF16,
    "hf:own/Split-GGUF/BF16": BF16,
    "hf:own/Split-GGUF/BF16/Split-BF16-00002-of-00002.gguf": BF16,
    "https://hf.co/own/Split-GGUF/blob/main/BF16/Split-BF16-00001-of-00002.gguf": BF16,
    # repositories of one model, whatever is beside it
    "own/One": "own/One/weights.gguf",
    "hf:own/One:latest": "own/One/weights.gguf",
    "https://huggingface.co/own/One/": "own/One/weights.gguf",
    "https://huggingface.co/own/One/tree/main": "own/One/weights.gguf",
    "https://huggingface.co/own/One/discussions/3": "own/One/weights.gguf",
    "hf:own/MTP-GGUF": MTP,
    "own/MTP-GGUF:Q4_K_M": MTP,
    "hf:own/Hidden-GGUF": "own/Hidden-GGUF/big-Q4_K_M.gguf",
    "own/Hidden-GGUF:Q4_K_M": "own/Hidden-GGUF/big-Q4_K_M.gguf",
    "own/Split-GGUF/BF16": BF16,
    "own/Split-GGUF/BF16/*": BF16,
    "own/Split-GGUF/BF16/Split-BF16-0000*-of-00002.gguf": BF16,
    # types that are not known here
    "own/Odd-GGUF:apex-mini": "own/Odd-GGUF/odd-apex-mini.gguf",
    "own/Odd-GGUF:APEX-Quality": "own/Odd-GGUF/odd-apex-quality.gguf",
    # names of the catalog, and Ollama's of the same models
    "tiny:Q8_0": Q8,
    "TINY3.2-1B:q8_0": Q8,
    "tiny3.2:1b-instruct-q8_0": Q8,
    "ollama:tiny3.2:1b-q8_0": Q8,
    "https://ollama.com/library/tiny3.2:1b-instruct-q8_0": Q8,
    "ollama.com/library/tiny3.2:1b-instruct-q8_0": Q8,
    # commands, as pages and guides have them
    f"llama-server -hf {REPO}:Q8_0 -ngl 99": Q8,
    f"-hf {REPO}:q8_0": Q8,
    f"hf download {REPO} Tiny-1B-Q8_0.gguf --local-dir .": Q8,
    f'huggingface-cli download {REPO} --include "*Q8_0*"': Q8,
    f"ollama run hf.co/{REPO}:Q8_0": Q8,
    "ollama run tiny3.2:1b-instruct-q8_0": Q8,
    "docker exec -it ollama ollama run tiny3.2:1b-q8_0": Q8,
    f"docker run -p 80:80 ghcr.io/some/llama.cpp:server -hf {REPO}:Q8_0": Q8,
    f"pip install -U huggingface_hub && hf download {REPO} Tiny-1B-Q8_0.gguf": Q8,
    f"npx -y node-llama-cpp pull hf:{REPO}:Q8_0": Q8,
    f"aria2c -x 16 {PAGE}/resolve/main/Tiny-1B-Q8_0.gguf": Q8,
    f"# it serves\nllama-server -hf {REPO}:Q8_0 &": Q8,
    f"unheard-of run {REPO}:Q8_0": Q8,
    "docker model run ai/tiny3.2:1B-Q8_0": Q8,
    "lms get lmstudio/tiny3.2-1b@q8_0": Q8,
    # lines of files, sentences, and names of programs that ask many servers
    f'"model": "{REPO}:Q8_0",': Q8,
    f"model: hf.co/{REPO}:Q8_0": Q8,
    f"have a look at {PAGE}/blob/main/Tiny-1B-Q8_0.gguf !": Q8,
    f"huggingface/{REPO}": Q4,
    "ollama/tiny3.2:1b-q8_0": Q8,
    "tiny3.2-1B-Instruct-GGUF:Q8_0": Q8,
    "tiny3.2-1B-Q8_0": Q8,
    # a path of Windows, places in caches, other capitals
    r"bartowski\Tiny-1B-GGUF": Q4,
    r"bartowski\Tiny-1B-GGUF:Q8_0": Q8,
    r"hf:bartowski\Tiny-1B-GGUF\Tiny-1B-Q8_0.gguf": Q8,
    "models--bartowski--Tiny-1B-GGUF/snapshots/abc/Tiny-1B-Q8_0.gguf": Q8,
    f"{REPO}/tiny-1b-q8_0.GGUF": Q8,
    "BARTOWSKI/tiny-1b-gguf:q8_0": Q8,
    "https://hf.co/BARTOWSKI/tiny-1b-gguf/blob/main/Tiny-1B-Q8_0.gguf": Q8,
    # more commands of Ollama
    f"ollama cp hf.co/{REPO}:Q8_0 mine": Q8,
    "ollama rm tiny3.2:1b-q8_0": Q8,
    # other sites, links and code
    "docker.io/ai/tiny3.2:1B-Q8_0": Q8,
    "https://hub.docker.com/r/ai/tiny3.2:1B-Q8_0": Q8,
    "https://lmstudio.ai/models/lmstudio/tiny": Q4,
    f"lmstudio://open_from_hf?model={REPO}&file=Tiny-1B-Q8_0.gguf": Q8,
    f'Llama.from_pretrained(repo_id="{REPO}", filename="*q8_0.gguf")': Q8,
    f"https://hf-mirror.com/{REPO}/blob/main/Tiny-1B-Q8_0.gguf": Q8,
}
SENTENCES = {
    # what is not there is offered by file
    f"{REPO}:Q5_K_M": ("has no Q5_K_M", f"hf:{REPO}/Tiny-1B-Q4_K_M.gguf", f"{REPO}/Tiny-1B-Q8_0"),
    "hf:own/Odd-GGUF:Q4_K_M": ("has no Q4_K_M", "hf:own/Odd-GGUF/odd-apex-mini.gguf"),
    "hf:own/Odd-GGUF": ("several models", "hf:own/Odd-GGUF/odd-apex-quality.gguf"),
    "tiny:Q2_K": ("has no Q2_K", "tiny3.2-1b:Q4_K_M", "tiny3.2-1b:Q8_0"),
    # repositories that llama.cpp cannot use, and closed ones
    "own/Safe": ("only safetensors", "look for a GGUF of it", "search=Safe"),
    "https://huggingface.co/own/Tiny3.2-1B": ("only safetensors", "`localspec pull tiny3.2-1b`"),
    "own/Gated-GGUF:Q4_K_M": ("is gated", "accept its licence", "HF_TOKEN"),
    "lmstudio/tiny3.2-1b": ("does not exist or is private", "`localspec pull tiny3.2-1b`"),
    "own/Nothing-GGUF:Q4_K_M": ("does not exist or is private", "check the name"),
    "hf:own/Safe/model.safetensors": ("is no GGUF file",),
    "hf:own/One/weight.gguf": ("does not exist in its repo", "name one of hf:own/One/weights.gguf"),
    "own/Tiny3.2-1B-Instruct": ("does not exist or is private", "`localspec pull tiny3.2-1b`"),
    "https://huggingface.co/own/Beside/tree/main/MTP": ("has only the draft head (MTP)",),
    "own/Split-GGUF:Q2_K": ("has no Q2_K", "Split-Q4_K_M-00001-of-00002.gguf"),
    "tiny3.2-1b-Q8_0.gguf": ("there is no file", "`localspec pull tiny3.2-1b:Q8_0` gets one"),
    "https://cas-bridge.xethub.hf.co/x/abc?Signature=s": ("passing address", "hf:owner/repo/file"),
    "pair3.2-3b": ("own/No-GGUF", "`localspec pull pair3.2-3b --no-draft` gets pair3.2-3b alone"),
    # a head where a model is asked for
    "own/Hidden-GGUF:big-head-Q4_K_M.gguf": ("only the draft head (MTP)",),
    # names that lead nowhere
    "https://huggingface.co/datasets/a/b": ("is a data set of the hub and no model",),
    "https://huggingface.co/own": ("is an owner of the hub", "hf:owner/repo"),
    "hf:own": ("is an owner of the hub", "hf:owner/repo"),
    "ollama:nobody:7b": ("`ollama pull nobody:7b`", "list --known"),
    "nobody:7b": ("no model is called 'nobody:7b'",),
    "./nobody.gguf": ("there is no file nobody.gguf",),
    "models/a/b.gguf": ("there is no file models/a/b.gguf",),
    r"C:\Users\me\nobody.gguf": (r"there is no file C:\Users\me\nobody.gguf",),
    # pages of the hub that are no model's
    "https://huggingface.co/collections/a/b-64f9a55b": ("is a collection of the hub and no model",),
    "https://huggingface.co/spaces/a/b": ("is a space of the hub", "hf:owner/repo"),
    "https://huggingface.co/blog/gguf": ("is a page of the blog of the hub",),
    "https://huggingface.co/models?search=a": ("is a list of models of the hub",),
    "https://huggingface.co/own/collections": ("is a list of the hub and no model",),
    # pages of sites that show no file, and places on other machines
    "https://github.com/a/nobody/releases/tag/v1": ("a page of GitHub", "gguf&search=nobody"),
    "github.com/a/nobody": ("a page of GitHub and no file", ".gguf file there"),
    "https://www.kaggle.com/models/a/nobody/gguf/1b": ("a page of Kaggle", "gguf&search=nobody"),
    "kaggle models instances versions download a/nobody/gguf/1b/1": ("a page of Kaggle",),
    "https://ai.gitee.com/hf-models/nobody": ("a page of Gitee", "gguf&search=nobody"),
    "https://wisemodel.cn/models/a/nobody/file": ("a page of wisemodel", "gguf&search=nobody"),
    "https://modelscope.cn/collections/nobody-1": ("a page of ModelScope and no file",),
    "magnet:?xt=urn:btih:a": ("an address of magnet:", "name hf:owner/repo"),
    "ollama create mine -f ./Modelfile": ("there is no file Modelfile: check the path",),
    "ollama create -q q4_K_M mine": ("there is no file Modelfile: check the path",),
    r"C:\Users\me\.lmstudio\models\a\b\c.gguf": ("`localspec pull hf:a/b/c.gguf` gets one",),
    "/mnt/hub/models--a--b/snapshots/0f/c/d.gguf": ("`localspec pull hf:a/b/c/d.gguf` gets one",),
    # other sites
    "ai/nobody:7B-Q4_K_M": ("in a registry of containers", "search=nobody", "list --known"),
    "oci://quay.io/some/nobody": ("in a registry of containers", "search=nobody"),
    "lms get some/nobody-7b": ("LM Studio has no some/nobody-7b", "`lms get some/nobody-7b`"),
    "https://modelscope.cn/models/some/nobody": ("ms:some/nobody/file.gguf", "hf:some/nobody"),
    "ms:some": ("is not of the form ms:owner/repo/file.gguf",),
    "s3://bucket/nobody.gguf": ("an address of s3:", "name hf:owner/repo"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_name_leads_to_its_file(hub: Hub, name: str) -> None:
    assert planned(name) == FILES[name]


@pytest.mark.parametrize("name", SENTENCES)
def test_a_name_without_a_file_gets_its_sentence(hub: Hub, name: str) -> None:
    sentence = planned(name)
    assert "\n" not in sentence
    assert [words for words in SENTENCES[name] if words not in sentence] == [], sentence


@pytest.mark.parametrize("name", ["hf:own/Odd-GGUF", f"{REPO}:Q5_K_M", "tiny:Q2_K"])
def test_what_a_sentence_offers_works_when_it_is_typed(hub: Hub, name: str) -> None:
    offers = planned(name).partition("name one of ")[2].split(", ")
    assert len(offers) > 1
    assert all(planned(offer).endswith(".gguf") for offer in offers)


# --- what is here ------------------------------------------------------------------------------


def in_ollama(name: str, data: bytes) -> Path:
    folder, digest = Path(os.environ["OLLAMA_MODELS"]), f"{len(name):064x}"
    blob = folder / "blobs" / f"sha256-{digest}"
    kind = "application/vnd.ollama.image.model"
    layers = {"layers": [{"mediaType": kind, "digest": f"sha256:{digest}", "size": 1}]}
    for path, content in (
        (blob, data),
        (folder / "manifests" / name, json.dumps(layers).encode()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return blob


def test_names_of_ollama_are_its_blobs(hub: Hub, model: bytes) -> None:
    own = in_ollama("registry.ollama.ai/library/tiny3.2/1b", model)
    other = in_ollama(f"hf.co/{REPO}/Q4_K_M", model)
    for name in ("tiny3.2:1b", "ollama:tiny3.2:1b", "Ollama:TINY3.2:1b", "ollama.com/tiny3.2:1b"):
        assert resolve(name) == own, name
        assert "is here already" in planned(name)
    for name in (f"hf.co/{REPO}:Q4_K_M", f"{REPO}:q4_k_m", f"hf:{REPO}", f"ollama:hf.co/{REPO}"):
        assert resolve(name) == other, name


def test_files_of_the_hub_are_found_whoever_brought_them(hub: Hub, model: bytes) -> None:
    snapshots = Path(os.environ["HOME"], "hub", f"models--{REPO.replace('/', '--')}", "snapshots")
    file = snapshots / "abc" / "Tiny-1B-Q8_0.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(model)
    for name in (REPO, f"hf:{REPO}", f"hf.co/{REPO}:Q8_0", f"https://hf.co/{REPO}"):
        assert resolve(name) == file, name
    assert locate(f"{REPO}:Q4_K_M") == f"hf:{REPO}:Q4_K_M"
    assert resolve(f"hf:{REPO}/Tiny-1B-Q8_0.gguf") == file, "though no branch leads to its commit"
    (file.parent / "Tiny-1B-Q4_K_M.gguf").write_bytes(model)
    with pytest.raises(LocalspecError, match=r"several models .* name one of hf:bartowski"):
        resolve(REPO)


@pytest.mark.parametrize("name", [f"{REPO}:Q4_K_M", f"hf:{REPO}", "tiny", "tiny3.2:1b"])
def test_what_is_not_here_is_offered_to_be_pulled(hub: Hub, name: str) -> None:
    with pytest.raises(LocalspecError, match=f"not here: `localspec pull {name}` gets it"):
        resolve(name)


def test_an_entry_in_a_quantization_is_one_name_for_all_commands(hub: Hub) -> None:
    """`recommend` prints it to be copied: what it fetches is what the next command finds."""
    plan = plan_pull("tiny3.2-1b:Q8_0", Wish(), silent)
    (got,) = carry_out(plan, silent, lambda *_: None)
    assert got.path.name == "Tiny-1B-Q8_0.gguf"
    assert resolve("tiny3.2-1b:Q8_0") == got.path
    with pytest.raises(LocalspecError, match="not here"):
        resolve("tiny3.2-1b:Q4_K_M")


# --- the grammar alone -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("hf:o/r/f.gguf@v1", HubFile("o/r", "f.gguf", "v1")),
        ("https://hf.co/o/r/blob/refs%2Fpr%2F1/f.gguf", HubFile("o/r", "f.gguf", "refs/pr/1")),
        ("https://hf.co/o/r/resolve/refs/pr/1/f.gguf", HubFile("o/r", "f.gguf", "refs/pr/1")),
        ("hf:o/r:Q8_0@v1", HubRepository("o/r", "Q8_0", None, "v1")),
        ("https://hf.co/o/r/tree/v1/a/b", HubRepository("o/r", None, "a/b", "v1")),
        ("hf://o/r@refs/pr/1/a b/f.gguf", HubFile("o/r", "a b/f.gguf", "refs/pr/1")),
        ("hf://o/r@v1/f.gguf", HubFile("o/r", "f.gguf", "v1")),
        ("hf://o/r@refs%2Fpr%2F1/f.gguf", HubFile("o/r", "f.gguf", "refs/pr/1")),
        ("hf:o/r@v1:Q8_0", HubRepository("o/r", "Q8_0", None, "v1")),
        ("hf:o/r@feature/x", HubRepository("o/r", None, None, "feature/x")),
        ("hf:o/r:Q8_0/m-00001-of-00002.gguf", HubFile("o/r", "Q8_0/m-00001-of-00002.gguf")),
        ("hf://models/o/r", HubRepository("o/r")),
        ("hf:o/r//a%20b.GGUF", HubFile("o/r", "a b.GGUF")),
        ("https://huggingface.co/o/r.git", HubRepository("o/r")),
        ("https://huggingface.co/api/models/o/r", HubRepository("o/r")),
        ("https://hf.co/o/r/blame/v1/f.gguf", HubFile("o/r", "f.gguf", "v1")),
        ("<https://hf.co/o/r>", HubRepository("o/r")),
        ("'hf.co/o/r:q8_0'", HubRepository("o/r", "q8_0")),
        ("https://host/o/r/resolve/main/f.gguf", None),
        ("model.gguf", None),
        ("qwen3:8b", None),
    ],
)
def test_a_name_is_read(name: str, meaning: object) -> None:
    found = hub_name_of(name)
    assert found == meaning
    assert found is None or hub_name_of(found.name) == found


PASTED = {
    # llama.cpp's programs
    "llama-server -hf o/r:Q4_K_M -c 8192": "hf:o/r:Q4_K_M",
    "$ ./build/bin/llama-cli --hf-repo o/r --hf-file f.gguf -p 'a b'": "hf:o/r/f.gguf",
    "llama-server --hf-repo=o/r:Q8_0 -hfd o/d:Q4_0": "hf:o/r:Q8_0",
    "LLAMA_CACHE=/x llama run -hf o/r": "hf:o/r",
    "llama-server.exe -m folder\\f.gguf": "folder\\f.gguf",
    "llama-server -dr ai/x:1B": "docker:ai/x:1B",
    "llama-server -mu https://host/f.gguf": "https://host/f.gguf",
    # clients of the hub
    "hf download o/r f.gguf --local-dir here": "hf:o/r/f.gguf",
    "hf download o/r --revision v1 f.gguf": "hf:o/r/f.gguf@v1",
    "huggingface-cli download o/r --include '*Q4_K_M*'": "hf:o/r:Q4_K_M",
    "git lfs clone git@hf.co:o/r.git": "hf.co/o/r.git",
    "curl -L -o f.gguf https://hf.co/o/r/resolve/main/f.gguf": (
        "https://hf.co/o/r/resolve/main/f.gguf"
    ),
    "vllm serve o/r --dtype auto": "hf:o/r",
    # Ollama
    "ollama run --verbose x:1b": "ollama:x:1b",
    "FROM x:1b": "ollama:x:1b",
    "ollama pull hf.co/o/r:Q4_K_M": "hf.co/o/r:Q4_K_M",
    "ollama://x:1b": "ollama:x:1b",
    "https://ollama.com/library/x/tags": "ollama:x",
    "registry.ollama.ai/library/x:1b": "ollama:x:1b",
    # Docker
    "docker model pull ai/x:1B-Q4_K_M": "docker:ai/x:1B-Q4_K_M",
    "docker model run hf.co/o/r:Q4_K_M": "hf.co/o/r:Q4_K_M",
    "ai/x": "docker:ai/x",
    "https://hub.docker.com/r/ai/x/tags": "docker:ai/x",
    "index.docker.io/ai/x:latest": "docker:ai/x:latest",
    "oci://docker.io/ai/x": "docker:ai/x",
    # LM Studio, and programs that open links
    "lms get o/x@q4_k_m": "lmstudio:o/x:q4_k_m",
    "lms get o/X-GGUF@q4_k_m": "hf:o/X-GGUF:q4_k_m",
    "lmstudio.ai/models/o/x": "lmstudio:o/x",
    "lmstudio://open_from_hf?model=o/r": "hf:o/r",
    "jan://models/huggingface/o/r": "hf:o/r",
    "ramalama run huggingface://o/r/f.gguf": "huggingface://o/r/f.gguf",
    # ModelScope
    "ms:o/r/f.gguf": "https://modelscope.cn/models/o/r/resolve/master/f.gguf",
    "modelscope download --model o/r f.gguf": (
        "https://modelscope.cn/models/o/r/resolve/master/f.gguf"
    ),
    "www.modelscope.cn/models/o/r/file/view/master/a%2Ff.gguf?status=2": (
        "https://modelscope.cn/models/o/r/resolve/master/a/f.gguf"
    ),
    "modelscope://o/r/f.gguf@v1": "https://modelscope.cn/models/o/r/resolve/v1/f.gguf",
    # code, lists and signs around
    'Llama.from_pretrained("o/r", filename="f.gguf", n_ctx=1)': "hf:o/r/f.gguf",
    "hf_hub_download(repo_id='o/r', filename='f.gguf', revision='v1')": "hf:o/r/f.gguf@v1",
    "o/r (Q4_K_M)": "o/r:Q4_K_M",
    "models--o--r": "hf:o/r",
    "https://huggingface.co/o/r.": "https://huggingface.co/o/r",
    "https://huggingface.co/o/r),": "https://huggingface.co/o/r",
    "[r](https://huggingface.co/o/r)": "https://huggingface.co/o/r",
    "llama-server \\\n    -hf o/r:Q4_K_M \\\n    -c 8192": "hf:o/r:Q4_K_M",
    "hf download `\n  o/r f.gguf": "hf:o/r/f.gguf",
    "\u201cx-7b\u201d": "x-7b",
    "«o/r-GGUF»": "o/r-GGUF",
    "\ufeffo/r\u2011GGUF\u200b": "o/r-GGUF",
    "llama-server \u2013hf o/r\uff1aQ8_0": "hf:o/r:Q8_0",
    "o / r-GGUF": "o/r-GGUF",
    "//huggingface.co/o/r": "https://huggingface.co/o/r",
    "https://huggingface.co/o/r%20": "https://huggingface.co/o/r",
    "MODEL=o/r:Q8_0": "o/r:Q8_0",
    "FROM ./f.gguf": "./f.gguf",
    "PS C:\\> llama-cli.exe -hf o/r": "hf:o/r",
    "nohup llama-server -hf o/r 2>&1 | tee log": "hf:o/r",
    "docker run IMAGE -m /models/f.gguf": "/models/f.gguf",
    "mistralrs-server gguf -m o/r -f f.gguf": "hf:o/r/f.gguf",
    'snapshot_download(repo_id="o/r", allow_patterns=["*q8_0*"])': "hf:o/r:Q8_0",
    'AutoModel.from_pretrained("o/r", gguf_file="f.gguf")': "hf:o/r/f.gguf",
    "modelscope.cn/api/v1/models/o/r/repo?Revision=master&FilePath=a%2Ff.gguf": (
        "https://modelscope.cn/models/o/r/resolve/master/a/f.gguf"
    ),
    "https://github.com/o/r/blob/main/a/f.gguf": "https://github.com/o/r/raw/main/a/f.gguf",
    "https://gitlab.com/o/r/-/blob/main/f.gguf": "https://gitlab.com/o/r/-/raw/main/f.gguf",
    "https://github.com/o/r/releases/download/v1/f.gguf": (
        "https://github.com/o/r/releases/download/v1/f.gguf"
    ),
    "https://www.dropbox.com/s/x/f.gguf?dl=0": "https://dropbox.com/s/x/f.gguf?dl=1",
    "ollama create mine": "./Modelfile",
    r'llama-server -m "C:\models\f.gguf"': r"C:\models\f.gguf",
    """curl http://localhost:11434/api/chat -d '{"model": "x:1b"}'""": "x:1b",
    "python download-model.py o/r --specific-file f.gguf": "hf:o/r/f.gguf",
    "* [r](https://huggingface.co/o/r)": "https://huggingface.co/o/r",
    "o/r-GGUF (Q4_K_M, 4.9 GB)": "o/r-GGUF:Q4_K_M",
    'Llama(model_path="./models/f.gguf")': "./models/f.gguf",
    # what is a name already
    "hf://o/r": "hf://o/r",
    "My Model.gguf": "My Model.gguf",
    "ai/f.gguf": "ai/f.gguf",
    "/models/My Models/f.gguf": "/models/My Models/f.gguf",
    "My Models/o/r.gguf": "My Models/o/r.gguf",
    "ollama/f.gguf": "ollama/f.gguf",
    "https://host/f.gguf": "https://host/f.gguf",
    "llama-3-8b": "llama-3-8b",
    "ollama": "ollama",
}


@pytest.mark.parametrize("text", PASTED)
def test_the_name_is_found_in_what_people_paste(text: str) -> None:
    name = written_name(text)
    assert name == PASTED[text]
    assert written_name(name) == name


def test_a_file_of_that_name_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ollama run x", "ai/x", "'x'"):
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert locate(name) == path


def test_a_folder_is_its_one_model(tmp_path: Path) -> None:
    """Folders of LM Studio and of the hub's cache hold a model and what goes beside it."""
    place = tmp_path / "snapshots" / "abc"
    place.mkdir(parents=True)
    with pytest.raises(UserError, match=r"without a \.gguf file of a model: name a file"):
        locate(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"safetensors llama\.cpp does not read"):
        locate(str(tmp_path))
    for name in ("m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf", "mmproj-m.gguf"):
        (place / name).touch()
    assert locate(str(tmp_path)) == place / "m-Q4_K_M-00001-of-00002.gguf"
    (place / "m-Q8_0.gguf").touch()
    with pytest.raises(UserError, match=r"several models: name one of .*m-Q8_0\.gguf"):
        locate(str(tmp_path))


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_one_sentence(text: str) -> None:
    with suppress(UserError):
        written_name(text)


def test_a_mirror_may_have_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.lan/hf/")
    file = HubFile("o/r", "f.gguf")
    assert hub_name_of("https://mirror.lan/hf/o/r/resolve/main/f.gguf") == file
    assert hub_name_of("https://huggingface.co/o/r/resolve/main/f.gguf") == file
    assert hub_name_of("https://mirror.lan/other/o/r/resolve/main/f.gguf") is None


def test_there_are_sixty_names() -> None:
    assert len(FILES) + len(SENTENCES) >= 60


# --- files that are called .gguf and are none --------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, ("is not a GGUF file but a Git LFS pointer", "`git lfs pull`")),
        (b"<!DOCTYPE html><html><title>Sign in</title>", ("web page that was saved ('Sign in')",)),
        (b"\xef\xbb\xbf\n<html>", ("web page that was saved",)),
        (b"Entry not found", ("a server's answer ('Entry not found')", "`localspec pull`")),
        (b"Invalid username or password.", ("a server's answer ('Invalid username",)),
        (b'{"error":"Access to model x is restricted"}', ("('Access to model x is restricted')",)),
        (b'{"error": "' + b"x" * 900, ("a server's answer",)),
        (b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{}}', ("but a safetensors file",)),
        (b"PK\x03\x04....", ("but a ZIP archive",)),
        (b"tjgg....", ("format before it",)),
        (b"FUGG\0\0\0\3", ("for big-endian machines",)),
        (b"GGUF\0\0\0\3" + bytes(80), ("for big-endian machines",)),
        (b"GGUF\1\0\0\0" + bytes(80), ("GGUF file of version 1",)),
        (b"GGUF\4\0\0\0" + bytes(80), ("GGUF file of version 4",)),
        (b"\2\0\0\0\x13\0\0\0blk.0.attn_q.weight", ("an importance matrix", "old format")),
        (b"MZqFpD='\n", ("but a llamafile",)),
        (b"\x89HDF\r\n", ("HDF5 weights",)),
        (b"m.gguf".ljust(257, b"\0") + b"ustar\0", ("but a tar archive",)),
        (b"# of mine\nFROM ./m.gguf\n", ("but a Modelfile",)),
        (b'{"architectures":["LlamaForCausalLM"]}', ("a configuration of a model",)),
        (b'{"schemaVersion":2}', ("a manifest of Ollama",)),
        (bytes(600), ("begins with zeros",)),
        (b"", ("it is empty",)),
        (b"MZ..", ("it begins with 'MZ..'",)),
    ],
)
def test_a_file_that_is_none_says_what_it_is(
    tmp_path: Path, content: bytes, words: tuple[str, ...]
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(LocalspecError) as caught:
        read_header(path)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert "\n" not in str(caught.value)


# --- other doors -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [REPO, f"hf.co/{REPO}:q8_0", "own/Hidden-GGUF", "own/One"])
def test_a_repository_is_predicted_from_a_header(hub: Hub, name: str) -> None:
    assert facts_of(name).n_layers == TINY.n_layers


STARTS = ("", "hf:", "hf.co/", "https://hf.co/", "ollama:", "o/r", "o/r:", "hf:o/r@", "file://")


@given(st.sampled_from(STARTS), st.text(max_size=20))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_a_place_or_a_sentence(hub: Hub, start: str, rest: str) -> None:
    with suppress(LocalspecError):
        locate(start + rest)
