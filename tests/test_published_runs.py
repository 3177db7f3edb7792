"""What is read out of a published run: its engine's age, its weights, its cache, its limits."""

import csv
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from research.efficiency import builds, places, power, shapes, thirds
from research.efficiency.fit import BATCH_TABLES, DATA, TABLES
from research.efficiency.notes import Notes
from research.efficiency.runs import read_runs

from localspec.hardware import described
from localspec.hardware.devices import all_devices
from localspec.prediction.conditions import RunConditions, cache_class, of_part
from localspec.prediction.families import BRAIN, HALF, K_QUANTS, MICROSCALED, type_class
from localspec.registry.catalog import load_catalog


@pytest.mark.parametrize(
    ("source", "notes", "month"),
    [
        ("anybody", "build=b9789; fa=1", "2026-07"),
        ("anybody", "build=9187; env=vulkan_radv", "2026-06"),
        ("github kyuz0/mi50-gfx906-toolboxes", "build=982e3472; rocm=6.3.4", "2025-07"),
        ("anybody", "build=abcdef1(b8396); date=2026-04-02", "2026-04"),
        ("llama.cpp discussion #15013 (via a copy)", "build=9c35706", "2025-10"),
        ("llama.cpp discussion #10879", "build=7f76692", None),
        ("anybody", "build=9c35706", None),
    ],
)
def test_an_engine_s_month(source: str, notes: str, month: str | None) -> None:
    """A hash is no date: counted as today's, builds of 2025 taught what builds of 2026 do."""
    assert builds.month_of(source, Notes(notes)) == month


def test_an_engine_s_age() -> None:
    assert builds.age_years("2025-10") == pytest.approx(1.0)
    assert builds.age_years("2026-12") == 0.0
    assert builds.age_years("2019-01") == builds.OLDEST_YEARS
    assert builds.era_of("localscore.ai", "2025-03") == "llamafile"
    assert builds.era_of("anybody", None) == "undated"


def test_gpt_oss_is_of_mxfp4_whatever_a_file_is_called() -> None:
    assert places.class_of("gpt-oss-120b-F16", "F16", 4.5) == MICROSCALED
    assert places.class_of("gpt-oss-20b", "Q4_K_M", 4.4) == MICROSCALED
    assert places.class_of("gpt-oss-20b-BF16", "BF16", 16.0) == BRAIN
    assert places.class_of("Qwen3-8B", "Q4_K_M", 4.9) == K_QUANTS


def test_bfloat16_is_of_16_bits_and_a_class_of_its_own() -> None:
    assert (type_class("BF16"), type_class("F16")) == (BRAIN, HALF)
    run = RunConditions("vulkan", "AMD RDNA4", BRAIN, 6e11, 4e13)
    kinds = [name for kind, name, _ in of_part(run, "weights") if kind == "type"]
    assert kinds == [HALF, BRAIN]


def test_a_cache_is_read_as_its_quantized_half_is() -> None:
    assert cache_class("f16", "q8_0") == "q8_0"
    assert cache_class("q4_0", "f16") == "q4_0"
    assert Notes("ctk=f16; ctv=q4_0; fa=1").cache == ("q4_0", True)
    assert Notes("ctk=q8_0").cache_types == ("q8_0", "q8_0")


def test_a_cache_of_a_fork_is_quantized_and_of_no_known_size() -> None:
    run = RunConditions("cuda", "NVIDIA Ada", HALF, 1e12, 8e13, cache=("turbo3", True))
    kinds = [kind for kind, _, _ in of_part(run, "attention")]
    assert "attention by group of quantized cache" in kinds
    assert "attention by size of quantized cache" not in kinds


def test_a_limit_of_power_slows_a_card_as_published() -> None:
    card = "NVIDIA GeForce RTX 3090"
    assert power.share_left(card, 200) == pytest.approx(0.64, abs=0.01)
    assert power.share_left(card, 280) == 1.0
    assert power.share_left(card, None) == power.share_left("another", 50) == 1.0
    assert set(power.RATED_W) <= {device.name for device in all_devices()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [*TABLES, *BATCH_TABLES])
def test_every_measured_row_names_its_source(name: str) -> None:
    assert all(row["source"].strip() for row in rows_of(DATA / name))


def test_every_shape_names_its_source() -> None:
    entries = load_catalog()
    for row in rows_of(shapes.TABLE):
        kind, _, what = row["source"].partition(": ")
        assert kind in ("catalogue", "listed"), row["name"]
        pages = ("github.com/", "arxiv.org/")
        assert what in entries if kind == "catalogue" else what.startswith(pages), row["name"]


def test_the_processors_name_their_source() -> None:
    assert tomllib.loads(
        (resources.files(described.__package__) / "processors.toml").read_text("utf-8")
    )["source"]


def test_every_device_names_its_source() -> None:
    assert all(device.source for device in all_devices())


@pytest.mark.parametrize(
    ("name", "n_cores"),
    [("AMD EPYC 9474F", 48), ("Qualcomm Snapdragon 8 Gen 2 (CPU)", 8), ("Intel Core i3-N305", 8)],
)
def test_processors_whose_cores_their_name_does_not_say(name: str, n_cores: int) -> None:
    """Prompts on one are predicted only where its arithmetic is known."""
    found = described.processor_of(name)
    assert found
    assert found.n_cores == n_cores
    assert found.flops_per_s


@pytest.mark.parametrize(
    ("device", "backend", "chip"),
    [
        ("MacBook Air M3", "metal", "Apple M3"),
        ("Apple A17 Pro (iPhone 15 Pro)", "metal", "Apple A17 Pro"),
        ("Qualcomm Snapdragon 8 Elite", "opencl", "Qualcomm Adreno 830"),
        ("ASUS Ascent GX10", "cuda", "NVIDIA GB10"),
        ("Moore Threads MTT S80", "musa", "Moore Threads MTT S80"),
        ("NVIDIA GB10 (CPU only)", "cpu", "nvidia gb10"),
        ("AMD EPYC 9554 (12x DDR5-4800)", "cpu", "epyc 9554"),
    ],
)
def test_sources_name_computers_phones_and_memory(device: str, backend: str, chip: str) -> None:
    """A row whose device nobody recognizes would not be predicted."""
    row = {"device": device, "backend": backend, "source": "", "model": "m", "test": "tg128"}
    place = places.place_of(row, Notes(""), HALF, shapes.Shape(8e9, 32, 4096, 131072, 128256))
    assert isinstance(place, places.Place)
    assert place.chip.startswith(chip)
    assert place.circumstances.backend == backend


def test_thirds_of_the_devices_teach_nothing_about_themselves() -> None:
    runs, _ = read_runs(DATA / TABLES[1])
    found = thirds.lots(runs, 1)
    assert sum(map(len, found)) == len(set.union(*found)) == len({run.chip for run in runs})
    for lot in found:
        sources = {run.source for run in runs if run.chip in lot}
        kept = thirds.rest(runs, lot, sources)
        assert not lot & {run.chip for run in kept}
        assert not sources & {run.source for run in kept}
