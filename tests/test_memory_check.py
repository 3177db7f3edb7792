"""What loading takes of a machine's memory is said before, and each part is counted once."""

from pathlib import Path

import pytest
from command import tiny

from localspec.engine.base import EngineConfig
from localspec.errors import UserError
from localspec.gguf.reader import read_header
from localspec.hardware.limits import reservable_bytes
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape, write_random_model
from localspec.prediction.memory import Host, memory_of
from localspec.session import placing
from localspec.session.placing import check_memory, warn_of_reading
from localspec.settings import Attention

AVX2 = frozenset({"avx2"})
AVX512 = AVX2 | {"avx512f", "avx512_vnni"}
AMX = AVX512 | {"amx_int8"}
ARM = frozenset({"asimd", "asimddp"})


def facts(tmp_path: Path, kind: str, n_vocab: int = 320) -> ModelFacts:
    path = tmp_path / f"{kind}-{n_vocab}.gguf"
    if not path.exists():
        shape = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=4, n_ff=512, n_vocab=n_vocab)
        write_random_model(path, shape, kind)
    return ModelFacts.of(read_header(path))


def matrices(of: ModelFacts) -> int:
    return sum(group.n_bytes for group in of.weights if group.role != "norm" and group.is_streamed)


@pytest.mark.parametrize(
    ("features", "kinds"),
    [
        (AVX2, {"Q4_0", "Q4_K"}),
        (AVX512, {"Q4_0", "Q4_K"}),
        (AMX, {"Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0", "F16"}),
        (ARM, {"Q4_0", "Q4_K", "Q6_K", "Q8_0"}),
        (frozenset({"sse4_2", "avx"}), set()),
    ],
)
def test_types_are_copied_by_instruction_set(
    tmp_path: Path, features: frozenset[str], kinds: set[str]
) -> None:
    """As ggml's tables of kernels say; a prediction without the copy is half of what is taken."""
    for kind in ("Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0", "F16"):
        of = facts(tmp_path, kind)
        copied = Host(features).second_copy_bytes(of)
        assert copied == (matrices(of) if kind in kinds else 0), kind


def test_an_odd_vocabulary_is_not_copied(tmp_path: Path) -> None:
    even, odd = facts(tmp_path, "Q4_0"), facts(tmp_path, "Q4_0", 323)
    assert Host(AVX2).second_copy_bytes(odd) < matrices(odd)
    assert Host(AVX2).second_copy_bytes(even) == matrices(even)


def test_read_weights_lie_there_once(tmp_path: Path) -> None:
    """Only tied embeddings are needed in both forms."""
    of = facts(tmp_path, "Q4_0")
    tied = sum(group.n_bytes for group in of.weights if group.role == "embedding")
    assert Host(AVX2, is_mapped=False).second_copy_bytes(of) in (0, tied)
    assert Host(AVX2, repacks=False).second_copy_bytes(of) == 0


def test_memory_has_both_copies_and_uses_one(tmp_path: Path) -> None:
    of = facts(tmp_path, "Q4_0")
    plain = memory_of(of, Attention(), 256, Host(AVX2, repacks=False))
    repacked = memory_of(of, Attention(), 256, Host(AVX2))
    assert repacked.total_bytes - plain.total_bytes == repacked.repacked_bytes > 0
    assert repacked.used_bytes == plain.total_bytes
    assert memory_of(of, Attention(), 256).program_bytes == 0


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """What the machine has; every test sets it."""
    has: dict[str, int | None] = {"free": 10**12, "reserve": None, "swap": 0}
    monkeypatch.setattr(placing, "available_memory_bytes", lambda: has["free"])
    monkeypatch.setattr(placing, "reservable_bytes", lambda mapped: has["reserve"])
    monkeypatch.setattr(placing, "swap_bytes", lambda: has["swap"])
    monkeypatch.setattr(placing, "host_of", lambda s: Host(AVX2, s.mmap, s.repack))
    return has


def config(ctx: int = 4096, **settings: object) -> EngineConfig:
    return EngineConfig.of(tiny(), ctx=ctx, threads=1, gpu_layers=0, **settings)


def refusal(*models: tuple[EngineConfig, ModelFacts]) -> str:
    with pytest.raises(UserError) as caught:
        check_memory(models)
    return str(caught.value)


def test_the_way_on_is_named(tmp_path: Path, free: dict[str, int | None]) -> None:
    """`--no-repack` where the copy is what does not fit, else the context that would fit."""
    of = facts(tmp_path, "Q4_0")
    memory = memory_of(of, Attention(), 4096, Host(AVX2))
    free["free"] = memory.own_bytes
    check_memory([(config(), of)])
    free["free"] = memory.own_bytes - 1
    assert "--no-repack" in refusal((config(), of))
    check_memory([(config(repack=False), of)])
    free["free"] = memory_of(of, Attention(), 2048, Host(AVX2)).own_bytes
    assert "--ctx 2048 would fit" in refusal((config(), of))
    free["free"] = 1000
    assert "smaller file" in refusal((config(), of))


def test_weights_that_are_read_count_in_full(tmp_path: Path, free: dict[str, int | None]) -> None:
    of = facts(tmp_path, "F16")
    free["free"] = memory_of(of, Attention(), 4096, Host(AVX2)).own_bytes
    check_memory([(config(), of)])
    refusal((config(mmap=False), of))


def test_swap_and_limits_on_reserving_are_said(tmp_path: Path, free: dict[str, int | None]) -> None:
    of = facts(tmp_path, "F16")
    free |= {"free": 1000, "swap": 8 * 10**9}
    assert "swap (8.0 GB)" in refusal((config(), of))
    free |= {"free": 10**12, "reserve": 1000}
    assert "overcommitment" in refusal((config(), of))


def test_weights_that_do_not_stay_in_memory_get_a_word(
    tmp_path: Path, free: dict[str, int | None]
) -> None:
    of = facts(tmp_path, "Q4_0")
    heard: list[str] = []
    memory = memory_of(of, Attention(), 4096, Host(AVX2))
    free["free"] = memory.used_bytes
    warn_of_reading([(config(), of)], heard.append)
    assert heard == []
    free["free"] = memory.used_bytes - 1
    warn_of_reading([(config(), of)], heard.append)
    assert "from the disk" in heard[0]
    assert "--no-repack" in heard[0]


@pytest.mark.parametrize(("mode", "left"), [("2", 3 * 1024), ("0", None), ("1", None), ("", None)])
def test_strict_overcommitment_limits_what_is_reserved(
    tmp_path: Path, mode: str, left: int | None
) -> None:
    (tmp_path / "proc/sys/vm").mkdir(parents=True)
    (tmp_path / "proc/sys/vm/overcommit_memory").write_text(mode)
    meminfo = "MemTotal: 9 kB\nCommitLimit:    8 kB\nCommitted_AS:   5 kB\nHugePages_Total: 0\n"
    (tmp_path / "proc/meminfo").write_text(meminfo)
    assert reservable_bytes(tmp_path) == left
