"""A head that does not fit ends a command with a sentence, before any engine is loaded."""

from pathlib import Path

import pytest
from command import assert_refused, localspec, tiny
from head_files import File, eagle3_of, ints

from localspec.gguf.reader import read_header

WRONG = {
    "a tap behind the end": ({"target_layers": ints(0, 1, 99)}, "it reads layer 99"),
    "another width": ({"target_hidden_size": 4096}, "target_hidden_size is 4,096"),
    "two layers": ({"block_count": 2}, "has 2 layers, and EAGLE-3 has one"),
}


def head() -> File:
    return eagle3_of(read_header(tiny()), 0, 1, 1)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_head_is_refused(tmp_path: Path, name: str) -> None:
    keys, said = WRONG[name]
    path = head().but(**keys).write(tmp_path / "head.gguf")
    assert_refused(localspec("generate", tiny(), "--draft", path, "-p", "Hi", "-n", "4"), 1, said)


def test_a_head_that_was_cut_short(tmp_path: Path) -> None:
    path = head().write(tmp_path / "head.gguf")
    path.write_bytes(path.read_bytes()[:-9000])
    run = localspec("generate", tiny(), "--draft", path, "-p", "Hi", "-n", "4")
    assert_refused(run, 1, "bytes short; download it again")


def test_a_model_without_the_head_that_is_asked_for() -> None:
    run = localspec("generate", tiny(), "--draft", "own", "-p", "Hi", "-n", "4")
    assert_refused(run, 1, "has no draft head (MTP) inside")


def test_what_the_engine_would_die_of_dies_in_a_child(tmp_path: Path) -> None:
    """Weights of whole numbers, of which a header that fits says nothing."""
    n = read_header(tiny()).integer("llama.embedding_length") or 0
    path = head().having("I16", blk__0__attn_q__weight=(2 * n, 64)).write(tmp_path / "head.gguf")
    run = localspec("generate", tiny(), "--draft", path, "-p", "Hi", "-n", "4", "--threads", "1")
    assert_refused(run, 1, "head.gguf does not draft for tiny.gguf", "the engine would die of it")
