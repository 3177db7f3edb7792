"""Whatever users type and whatever their files are: a sentence, code 1 or 2, nothing written."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from babbling import write_babbling_model
from command import (
    ANSWER,
    LOCALSPEC,
    SHAPE,
    Run,
    assert_refused,
    clean_environment,
    localspec,
    mamba,
    tiny,
)
from models import gemma, smollm2

from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import write_gguf
from localspec.model.synthetic import RandomTensors, write_random_model

ENTRY = 'title = "x"\nrepository = "a/b"\nfile = "x.gguf"\nlicense = "MIT"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    """Where commands run and must leave nothing; what a test puts there it names `given...`."""
    here = tmp_path / "here"
    here.mkdir()
    yield here
    assert [path.name for path in here.iterdir() if not path.name.startswith("given")] == []


@pytest.fixture
def ask(here: Path):
    """Ask the tiny model, or another, with these options."""

    def ask(
        *options: str | bytes | Path, model: str | bytes | Path | None = None, **environment: str
    ) -> Run:
        model = tiny() if model is None else model
        arguments = ("generate", model, *ANSWER, *options)
        return localspec(*arguments, cwd=here, **environment)

    return ask


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ([], "-p TEXT"),
        (["-p", "x", "-f", "y"], "-p TEXT"),
        (["-p", ""], "empty"),
        (["-p", " \n\t"], "empty"),
        (["-p", b"caf\xe9"], "not UTF-8"),
        (["-p", "x", "--system", b"\xff"], "--system"),
        (["-p", "x", "--stop", b"\xff"], "--stop"),
        (["-f", "missing.txt"], "missing.txt"),
        (["-f", "."], "directory"),
        (["-f", ""], "-f"),
        (["--jsonl", "."], "directory"),
        (["--jsonl", "missing.jsonl"], "missing.jsonl"),
        (["-p", "x", "--logprobs", "1"], "--json"),
        (["-p", "x", "--raw", "--system", "Be brief."], "--raw"),
        (["-p", "x", "--nonsense"], "--nonsense"),
        (["-p"], "'-p'"),
        (["-p", "x", "--ctx", "many"], "--ctx"),
        (["-p", "x", "--ctx", "0"], "--ctx 0"),
        (["-p", "x", "--ctx", "-5"], "--ctx -5"),
        (["-p", "x", "--ctx", "2000000000"], "would fit"),
        (["-p", "x", "--threads", "0"], "--threads 0"),
        (["-p", "x", "--draft-max", "0"], "--spec none"),
        (["-p", "x", "--draft-max", "65"], "64"),
        (["-p", "x", "-ngl", "many"], "--gpu-layers 'many'"),
        (["-p", "x", "--spec", "draft"], "--draft"),
        (["-p", "x", "--spec", "draft", "--draft", "none"], "--draft none"),
        (["-p", "x", "--spec", "nonsense"], "nonsense"),
        (["-p", "x", "--kv-k", "nonsense"], "nonsense"),
        (["-p", "x", "--kv-v", "q4_0", "--flash-attn", "off"], "flash attention"),
        (["-p", "x", "--temp", "inf"], "--temp"),
        (["-p", "x", "--temp", "hot"], "--temp 'hot' is not a number"),
        (["-p", "x", "-n", "-1"], "--max-tokens '-1' is not at least 0"),
        (["-p", "x", "--seed", "1.5"], "--seed '1.5' is not a whole number"),
        (["-p", "x", "--temp", "nan"], "--temp"),
        (["-p", "x", "--draft", "missing.gguf"], "missing.gguf"),
        pytest.param(["-p", "x " * 100, "--ctx", "64"], "--ctx", marks=pytest.mark.engine),
        (["-p", "x", "another"], "another"),
    ],
)
def test_a_wrong_request_is_refused(ask, options: list[str | bytes], word: str) -> None:
    assert_refused(ask(*options), 2, word)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-p", "x", "--threads", "100000"], "--threads"),
        (["-p", "x", "-n", "1", "--ctx", "5000000000"], "--ctx"),
    ],
)
def test_a_number_that_the_engine_cannot_take_is_refused(
    ask, options: list[str], word: str
) -> None:
    """Mamba's memory does not grow with the context, so nothing else would stop that one."""
    assert_refused(ask(*options, model=mamba()), 2, word)


@pytest.mark.parametrize("data", [b"caf\xe9", b"", b" \n"])
def test_a_piped_prompt_is_text(here: Path, data: bytes) -> None:
    run = localspec("generate", tiny(), "-f", "-", stdin=data, cwd=here)
    assert_refused(run, 2, "the prompt is")


def test_a_context_beyond_the_memory_is_refused_before_it_is_filled(ask) -> None:
    """100 million tokens of SmolLM2 are 4.6 TB."""
    assert_refused(ask("-p", "x", "--ctx", "100000000", model=smollm2()), 2, "GB", "would fit")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("missing.gguf", "no file missing.gguf"),
        ("./missing", "no file missing"),
        ("./", "is a folder"),
        ("~nobody-is-called-this/x.gguf", "home"),
        ("strter", "did you mean 'starter'?"),
        ("qwertyuiop", "`localspec list --known` shows"),
        ("", "no model is called ''"),
        ("hf:", "hf:owner/repo/file.gguf"),
        ("hf:owner", "hf:owner/repo/file.gguf"),
        ("hf:owner/ /x.gguf", "hf:owner/repo/file.gguf"),
        ("hf:owner/repo/../x.gguf", "hf:owner/repo/file.gguf"),
        (b"caf\xe9.gguf", "no file"),
    ],
)
def test_a_model_that_is_not_there_is_refused(ask, name: str | bytes, word: str) -> None:
    assert_refused(ask("-p", "x", model=name), 2, word)


def test_a_model_that_must_be_fetched_needs_the_network(ask) -> None:
    assert_refused(ask("-p", "x", model="hf:owner/repo/x.gguf"), 1, "HF_HUB_OFFLINE", "x.gguf")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"hello world", "not a GGUF"),
        (b"GGUF", "ends inside its header"),
        (b"\0" * 64, "not a GGUF"),
    ],
)
def test_a_file_that_is_no_model_is_refused(ask, here: Path, data: bytes, word: str) -> None:
    path = here / "given.gguf"
    path.write_bytes(data)
    assert_refused(ask("-p", "x", model=path), 1, "given.gguf", word)


@pytest.mark.slow
def test_a_truncated_model_is_refused_wherever_it_was_cut(ask, here: Path) -> None:
    """Downloads break off. The engine would map such a file and die at the first missing page."""
    size, data_offset = smollm2().stat().st_size, read_header(smollm2()).tensors[0].offset_bytes
    in_header = [1, 3, 4, 7, 8, 23, 24, 31, 100, 1_000, 100_000, data_offset // 2, data_offset - 1]
    in_data = [data_offset, data_offset + 1, size // 4, size // 2, size - 4096, size - 2, size - 1]
    cuts = in_header + in_data
    assert len(cuts) == 20
    with smollm2().open("rb") as file:
        header = file.read(data_offset)

    def ask_cut(cut: int) -> Run:
        path = here / f"given-{cut}.gguf"
        path.write_bytes(header[:cut])
        os.truncate(path, cut)
        return ask("-p", "x", model=path)

    for cut, run in zip(cuts, in_pairs(ask_cut, cuts), strict=True):
        assert_refused(run, 1, f"given-{cut}.gguf")


@pytest.mark.engine
def test_a_damaged_header_is_refused_or_harmless(ask, here: Path) -> None:
    data = tiny().read_bytes()
    names = (b"GGUF", b"general.architecture", b"llama.block_count", b"llama.attention.head_count")
    places = [data.index(name) for name in names]
    places += [4, 8, 16, data.index(b"llama.embedding_length") + 22 + 4, data.index(b"blk.0") + 6]

    def ask_flipped(place: int) -> Run:
        path = here / f"given-{place}.gguf"
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        return ask("-p", "x", "-n", "2", model=path)

    for place, run in zip(places, in_pairs(ask_flipped, places), strict=True):
        if run.code:
            assert_refused(run, 1, f"given-{place}.gguf")


def in_pairs(ask: Callable[[int], Run], numbers: list[int]) -> list[Run]:
    """Ask for each number, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(ask, numbers))


def test_a_model_that_only_embeds_is_refused(ask, here: Path) -> None:
    """People name their embedding model; it has no text to answer with."""
    path = here / "given.gguf"
    sizes = {"block_count": 1, "context_length": 512, "embedding_length": 64}
    sizes |= {"feed_forward_length": 128, "attention.head_count": 2}
    metadata = {"general.architecture": "bert"} | {f"bert.{k}": v for k, v in sizes.items()}
    tensors = RandomTensors(BY_NAME["F16"], 0)
    weights = [
        tensors.matrix("token_embd.weight", 64, 128),
        tensors.vector("output_norm.weight", np.ones(64)),
    ]
    write_gguf(path, metadata, weights)
    assert_refused(ask("-p", "x", model=path), 1, "bert", "embeddings")


@pytest.mark.engine
def test_a_draft_with_another_vocabulary_is_refused(ask, here: Path) -> None:
    path = here / "given.gguf"
    write_babbling_model(path, replace(SHAPE, n_vocab=640), "F16")
    assert_refused(ask("-p", "x", "--draft", path), 1, "cannot draft", "320", "640")


@pytest.mark.engine
def test_a_draft_of_another_family_is_refused(ask) -> None:
    run = ask("-p", "x", "--draft", gemma(), model=smollm2())
    assert_refused(run, 1, "cannot draft", "same family")


@pytest.mark.engine
def test_a_draft_that_cannot_take_back_tokens_is_refused(ask) -> None:
    assert_refused(ask("-p", "x", "--draft", mamba()), 1, "cannot draft")


@pytest.mark.engine
def test_a_model_without_a_tokenizer_is_refused(ask, here: Path) -> None:
    path = here / "given.gguf"
    write_random_model(path, SHAPE, "F16")
    assert_refused(ask("-p", "x", model=path), 1, "tokenizer")


@pytest.mark.engine
def test_a_file_name_need_not_be_utf8(ask, here: Path) -> None:
    path = here / os.fsdecode(b"given-caf\xe9.gguf")
    shutil.copyfile(tiny(), path)
    assert ask("-p", "x", "-n", "1", model=path).code == 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[[[", "cannot be read"),
        ("models = 3", "[models.NAME]"),
        ("[models]\nx = 3", "not a table"),
        (f'[models.x]\n{ENTRY}size = "big"', "'size'"),
        ('[models.x]\ntitle = "x"', "lacks repository"),
        (f"[models.x]\n{ENTRY}draft = 1", "draft"),
    ],
)
def test_a_broken_models_toml_is_named(ask, here: Path, text: str, word: str) -> None:
    """The user wrote it by hand, so the sentence says where and what."""
    own = here / "given-home" / "config" / "models.toml"
    own.parent.mkdir(parents=True)
    own.write_text(text)
    run = ask("-p", "x", model="x", LOCALSPEC_HOME=str(here / "given-home"))
    assert_refused(run, 2, "models.toml", word)


def test_a_home_that_cannot_be_written_is_named(ask, here: Path) -> None:
    (here / "given-file").write_text("")
    assert_refused(
        ask("-p", "x", LOCALSPEC_HOME="given-file"), 1, "given-file", "set LOCALSPEC_HOME"
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["nonsense"], "nonsense"), (["--nonsense"], "--nonsense"), (["quantize"], "MODEL")],
)
def test_a_wrong_command_line_is_refused(here: Path, arguments: list[str], word: str) -> None:
    assert_refused(localspec(*arguments, cwd=here), 2, word, "--help")


def shell(command: str, here: Path) -> Run:
    """Run a line of bash in which $ask asks the tiny model for 300 tokens."""
    question = f"{LOCALSPEC} generate {tiny()} {' '.join(ANSWER)} -p x -n 300"
    environment = clean_environment() | {"ask": question}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, cwd=here, capture_output=True, check=False
    )
    return Run(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode())


@pytest.mark.engine
@pytest.mark.parametrize("pipe", ["-n 2000 | head -c 1 >/dev/null", "--json | true"])
def test_a_reader_that_goes_away_is_no_accident(here: Path, pipe: str) -> None:
    assert_refused(shell(f"set -o pipefail; $ask {pipe}", here), 1, "reader")


def test_a_closed_output_is_refused(here: Path) -> None:
    assert_refused(shell("$ask >&-", here), 1, "standard output")


@pytest.mark.engine
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_said(here: Path) -> None:
    assert_refused(shell("$ask --json >/dev/full", here), 1, "No space left")


@pytest.mark.engine
def test_a_closed_error_stream_does_no_harm(here: Path) -> None:
    run = shell("$ask 2>&-", here)
    assert (run.code, run.stderr) == (0, "")
    assert run.stdout


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--to", "nonsense"], 2, "nonsense"),
        ([], 2, "--to"),
        (["--to", "Q8_0", "-o", "."], 2, "folder"),
        (["--to", "Q8_0", "-o", "given.gguf"], 2, "exists"),
        (["--to", "Q8_0", "-o", "nowhere/x.gguf"], 2, "no folder nowhere"),
        (["--to", "Q8_0", "-o", "given.gguf/x.gguf"], 2, "no folder"),
        (["--to", "Q8_0", "--threads", "0"], 2, "--threads"),
        (["--to", "Q8_0", "--threads", "100000"], 2, "--threads"),
    ],
)
def test_quantize_refuses_what_it_cannot_write(
    here: Path, options: list[str], code: int, word: str
) -> None:
    model = here / "given.gguf"
    shutil.copyfile(tiny(), model)
    assert_refused(localspec("quantize", model, *options, cwd=here), code, word)
    assert model.read_bytes() == tiny().read_bytes()


def test_quantize_refuses_a_truncated_model(here: Path) -> None:
    model = here / "given.gguf"
    model.write_bytes(tiny().read_bytes()[:-100])
    run = localspec("quantize", model, "--to", "Q8_0", "-o", "x.gguf", cwd=here)
    assert_refused(run, 1, "100 bytes short")


def on_a_full_disk(
    here: Path, n_bytes: int, *arguments: str | Path, home: Path | None = None
) -> Run:
    """A limit on the size of files breaks the writing off as a full disk does."""
    done = subprocess.run(
        [LOCALSPEC, *arguments],
        cwd=here,
        env=clean_environment() | ({"LOCALSPEC_HOME": str(home)} if home else {}),
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes)),
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.engine
def test_quantize_leaves_nothing_on_a_full_disk(here: Path) -> None:
    run = on_a_full_disk(here, 40_000, "quantize", tiny(), "--to", "Q8_0", "-o", "x.gguf")
    assert_refused(run, 1, "cannot be written")


@pytest.mark.engine
def test_what_cannot_be_kept_keeps_nobody_from_an_answer(here: Path, tmp_path: Path) -> None:
    """As on a full disk: where the first answer kept what it had measured, a file is in the way."""
    asked = ("generate", tiny(), *ANSWER, "-p", "hi", "-n", "3")
    usual = localspec(*asked, cwd=here, LOCALSPEC_HOME=str(tmp_path / "usual"))
    folders = [path for path in (tmp_path / "usual" / "cache").iterdir() if path.is_dir()]
    assert len(folders) > 1
    for folder in folders:
        blocked = tmp_path / "blocked" / "cache" / folder.name
        blocked.parent.mkdir(parents=True, exist_ok=True)
        blocked.touch()
    run = localspec(*asked, cwd=here, LOCALSPEC_HOME=str(tmp_path / "blocked"))
    assert (run.code, run.stdout) == (0, usual.stdout), run.stderr


@pytest.mark.engine
def test_a_full_disk_is_named_by_what_must_be_kept(here: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    asked = on_a_full_disk(here, 0, "chat", tiny(), *ANSWER, "-p", "hi", home=home)
    assert_refused(asked, 1, f"cannot be saved to {home}", "--no-save")
    measured = on_a_full_disk(here, 0, "bench", tiny(), "--probe", "off", "-r", "1", home=home)
    assert_refused(measured, 1, f"{home}", "cannot be used: File too large")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["export", "starter"], ["--to", "one of llama-server, ollama"]),
        (["worker", "--device", "nosuch"], ["nosuch", "CPU"]),
        (["verify", "starter"], ["to verify"]),
        (["remove", "starter"], ["to remove"]),
        (["serve", "--api-key", ""], ["--api-key is empty"]),
        (["serve", "--host", ""], ["--host '' has no address in it"]),
        (["serve", "--host", "127.0.0.1,"], ["--host '127.0.0.1,' has no address in it"]),
        (["serve", "--users", "0"], ["--users '0' is not at least 1"]),
        (["serve", "--users=x"], ["--users 'x' is not a whole number"]),
        (["serve", "--parallel", "0"], ["--parallel '0' is not at least 1"]),
        (["serve", "--api-key-file", "missing"], ["missing cannot be read: No such file"]),
        (["serve", "--cors", "example.org"], ["'example.org' is no origin"]),
    ],
)
def test_a_wrong_command_is_refused_in_one_line_before_it_begins(
    here: Path, command: list[str], words: list[str]
) -> None:
    """An empty key, say from a variable that is not set, must not leave a server open."""
    assert_refused(localspec(*command, cwd=here), 2, *words)


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "given.gguf", "-p", "x"],
        ["chat", "given.gguf", "-p", "x"],
        ["export", "given.gguf", "--to", "ollama"],
        ["tune", "given.gguf", "--show"],
    ],
    ids=lambda command: command[0],
)
def test_a_pipe_in_place_of_a_model_is_not_waited_for(here: Path, command: list[str]) -> None:
    os.mkfifo(here / "given.gguf")
    assert_refused(localspec(*command, cwd=here), 1, "given.gguf", "not a regular file")


def test_a_file_that_was_not_pulled_is_not_said_to_be_missing(here: Path) -> None:
    shutil.copyfile(tiny(), here / "given.gguf")
    kept = localspec("remove", "given.gguf", "--yes", cwd=here)
    assert_refused(kept, 2, "nothing of given.gguf to remove", "not pulled")
    assert_refused(localspec("verify", "given.gguf", cwd=here), 2, "not pulled")
    assert (here / "given.gguf").exists()
