"""What to run: it fits, people would take it, and more machine is never worse."""

import json
import re
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import localspec
from localspec.cli.recommend import _bytes as memory_option
from localspec.cli.recommend import command_of, document
from localspec.cli.recommend import recommend as command
from localspec.errors import ModelError, UserError
from localspec.forecast import known_machine
from localspec.forecast import recommend as module
from localspec.forecast.forecast import facts_of
from localspec.forecast.known_machine import KnownMachine, RoughRates
from localspec.forecast.recommend import (
    RULE,
    USES,
    Recommendation,
    UseCase,
    better_than_starter,
    head_of,
    is_coder,
    known_speed,
    recommendations,
)
from localspec.hardware.devices import GIB
from localspec.hardware.machine import LocalDevice, Reported, local_devices
from localspec.registry.catalog import load_catalog
from localspec.settings import Attention

ENTRIES = list(load_catalog().values())
CHAT, CODE, LONG, MANY = USES


def offers(device: str, use: UseCase = CHAT, gib: int | None = None) -> tuple[Recommendation, ...]:
    machine = KnownMachine.named(device, gib and gib * GIB)
    return recommendations(ENTRIES, machine, use)


def processor(room: float, bytes_per_s: float | None = None) -> KnownMachine:
    rates = RoughRates.of_read(bytes_per_s) if bytes_per_s else None
    return KnownMachine("a processor", int(room), int(room), rates)


@pytest.mark.parametrize(
    ("device", "gib", "use", "among"),
    [
        ("Apple M1", 8, CHAT, {"gemma4-e4b", "qwen3.5-9b", "gemma4-e2b", "granite4.1-8b"}),
        ("RTX 3060 12GB", None, CHAT, {"gemma4-12b", "ministral3-14b"}),
        ("RTX 4090", None, CHAT, {"qwen3.8-27b", "gemma4-31b"}),
        ("RTX 5090", None, CODE, {"qwen3.8-27b", "gemma4-31b", "devstral-small-2"}),
        ("M4 Max (40-core GPU)", 128, CODE, {"qwen3.5-122b-a10b", "qwen3-coder-next"}),
        ("Strix Halo", 128, CHAT, {"qwen3.5-122b-a10b", "gpt-oss-120b", "glm4.5-air"}),
    ],
)
def test_what_is_first_is_what_people_run_there(
    device: str, gib: int | None, use: UseCase, among: set[str]
) -> None:
    assert offers(device, use, gib)[0].entry.name in among


@pytest.mark.parametrize("use", USES, ids=lambda use: use.name)
@pytest.mark.parametrize("device", ["RTX 3060 12GB", "Apple M2 Pro", "DGX Spark"])
def test_everything_fits_with_its_caches_and_draft(device: str, use: UseCase) -> None:
    machine = KnownMachine.named(device)
    found = recommendations(ENTRIES, machine, use)
    assert found
    for offer in found:
        memory = offer.memory
        assert memory.used_bytes <= machine.room_bytes < machine.memory_bytes
        assert memory.weights_bytes == offer.facts.weight_bytes
        assert offer.n_ctx >= use.n_ctx / 2
        assert (memory.draft_bytes > 0) == (offer.draft is not None)
        assert offer.decode.low < offer.decode.mid < offer.decode.high
        if use.n_users > 1:
            assert offer.draft is None
    values = [offer.value for offer in found]
    assert values == sorted(values, reverse=True)
    assert len({offer.entry.name for offer in found}) == len(found)


@given(st.integers(2, 200), st.integers(2, 200), st.floats(1e10, 2e12), st.floats(1e10, 2e12))
@settings(max_examples=15, deadline=None)
def test_more_memory_or_speed_never_makes_the_best_worse(
    a: int, b: int, slow: float, fast: float
) -> None:
    def best(gb: int, rate: float) -> float:
        found = recommendations(ENTRIES[::4], processor(gb * 1e9, rate), CHAT)
        return found[0].value if found else 0.0

    small, large = sorted((a, b))
    lower, higher = sorted((slow, fast))
    least = (1 - 1e-9) * best(small, lower)  # sums of floating point differ in their last digits
    assert best(large, lower) >= least
    assert best(small, higher) >= least


def test_models_for_code_are_for_code() -> None:
    assert not any(is_coder(offer.entry) for offer in offers("RTX 4090", CHAT))
    assert any(is_coder(offer.entry) for offer in offers("RTX 4090", CODE))


def test_eight_users_share_the_speed_and_have_a_cache_each() -> None:
    one, many = offers("RTX 4090", CHAT), offers("RTX 4090", MANY)
    by_name = {offer.entry.name: offer for offer in one}
    both = [offer for offer in many if offer.entry.name in by_name]
    assert both
    for offer in both:
        alone = by_name[offer.entry.name]
        if (offer.cache, offer.quantization) == (alone.cache, alone.quantization):
            assert offer.decode.mid < alone.decode.mid
            assert offer.memory.cache_bytes == 8 * alone.memory.cache_bytes


def test_without_speeds_size_decides() -> None:
    found = recommendations(ENTRIES, processor(24e9), CHAT)
    assert found[0].decode is None
    assert found[0].first_token is None
    assert found[0].facts.n_params > 2e10


def test_a_processor_s_first_token_is_promised_in_a_wide_interval() -> None:
    """A read of memory says little of arithmetic, and less of what is not known at all."""
    found = recommendations(ENTRIES, processor(24e9, 4e10), CHAT)
    assert found[0].decode.high > 2 * found[0].decode.low
    assert all(offer.first_token.high > 5 * offer.first_token.low for offer in found)
    assert known_speed(load_catalog()["qwen3-8b"], processor(1e9)) is None


def test_a_first_token_has_the_interval_of_its_prompt() -> None:
    """Of a card with published runs it is narrower than of a processor that nobody measured."""
    card = {offer.entry.name: offer.first_token for offer in offers("RTX 4090")}["qwen3-8b"]
    rough = {offer.entry.name: offer.first_token for offer in offers("DDR5-5600 dual", CHAT, 16)}
    assert card.low < card.mid < card.high
    assert card.high / card.low < rough["qwen3-8b"].high / rough["qwen3-8b"].low


@pytest.mark.parametrize("columns", [70, 120])
def test_the_first_token_is_in_the_table_of_any_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command(device="DDR5-5600 dual channel", memory="8GB", use="chat", as_json=False)
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    rows = [line for line in shown.splitlines() if line.startswith("gemma4-e4b")]
    assert rows
    assert " s (" in rows[0]
    assert "first token" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines()[3:12])) <= columns
    (line,) = [line for line in shown.splitlines() if line.startswith("  localspec pull")]
    assert line.endswith("--ctx 8192"), "a line to copy is not broken"


def test_memory_is_counted_as_it_is_sold() -> None:
    """A machine of 16 GB has 16 GiB; a command of the page gives the page's answers."""
    assert memory_option("16GB") == memory_option("16") == memory_option("16 GiB") == 16 * 2**30
    assert memory_option("512mb") == 2**29


def test_a_laptop_without_a_gpu_is_named_by_its_memory() -> None:
    found = offers("DDR5-5600 dual channel", CHAT, 8)
    assert {"gemma4-e2b", "lfm2.5-8b-a1b", "qwen3.5-4b"} & {o.entry.name for o in found[:3]}
    assert found[0].memory.program_bytes


def test_cache_types_are_given_up_before_the_model() -> None:
    roomy = {offer.entry.name: offer for offer in recommendations(ENTRIES, processor(9e9), CHAT)}
    tight = roomy["qwen3-8b"]
    assert tight.cache.kv_k == "f16"
    needed = tight.memory.used_bytes - tight.memory.draft_bytes
    close = {
        offer.entry.name: offer for offer in recommendations(ENTRIES, processor(needed - 1), CHAT)
    }
    assert close["qwen3-8b"].cache.kv_k == "q8_0"


def test_heads_are_named_and_their_files_are_no_second_row() -> None:
    catalog = load_catalog()
    assert head_of(catalog["qwen3.6-27b"], ENTRIES) == "qwen3.6-27b-mtp"
    assert head_of(catalog["qwen3.8-27b"], ENTRIES).endswith("mtp-Qwen3.8-27B-Q4_0.gguf")
    assert head_of(catalog["qwen3-8b"], ENTRIES) is None
    assert not any("mtp" in offer.entry.name for offer in offers("RTX 5090"))


def test_the_command_fetches_and_talks_with_what_was_counted() -> None:
    by_name = {offer.entry.name: offer for offer in offers("RTX 3060 12GB")}
    line = command_of(by_name["qwen3.5-9b"], CHAT)
    assert line == "localspec pull qwen3.5-9b:Q8_0 && localspec chat qwen3.5-9b:Q8_0 --ctx 8192"
    assert "--no-draft" not in command_of(by_name["gemma3-12b"], CHAT), "its draft was counted"
    assert "--no-draft" in command_of(by_name["qwen3-14b"], CHAT), "its draft does not fit"
    served = command_of(by_name["qwen3-8b"], MANY)
    assert served.endswith("&& localspec serve qwen3-8b:Q4_K_M --ctx 8192 --parallel 8")


def test_the_document_is_plain_and_whole() -> None:
    machine = KnownMachine.named("RTX 4090")
    found = document(recommendations(ENTRIES, machine, CHAT), machine, CHAT)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["rule"] == RULE
    assert again["use"]["name"] == "chat"
    assert {"name", "quantization", "kv_k", "draft", "head", "ctx", "memory_bytes", "decode_tps",
            "ttft_s", "ttft_interval_s", "kld", "command"} <= again["models"][0].keys()  # fmt: skip


def test_it_is_quick_and_needs_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    started = process_time()
    command(device="Strix Halo", memory="128GB", use="chat", as_json=True)
    assert process_time() - started < 2
    assert json.loads(capsys.readouterr().out)["models"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"memory": "much"}, "--memory"),
        ({"memory": "0GB"}, "--memory"),
        ({"device": "no such thing"}, "no device"),
        ({"device": "RTX 4090", "memory": "100MB"}, "fits"),
        ({"device": "DDR5-5600 dual channel"}, "--memory"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        command(**{"use": "chat", "memory": None, "device": None, "as_json": False} | arguments)
    assert words in str(caught.value)


def test_the_help_states_the_rule() -> None:
    said = " ".join((command.__doc__ or "").split())
    assert RULE in said


@pytest.mark.parametrize(
    ("room", "rate", "word"),
    [(24e9, 60e9, "tok/s"), (24e9, None, "GB"), (3e8, 60e9, None), (24e9, 5e8, None)],
)
def test_the_greeting_names_what_would_be_better(
    monkeypatch: pytest.MonkeyPatch, room: float, rate: float | None, word: str | None
) -> None:
    here = processor(room, rate)
    monkeypatch.setattr(module.KnownMachine, "here", classmethod(lambda cls, **_: here))
    said = better_than_starter()
    if word is None:
        assert said is None or (rate > 1e9 and "localspec pull" in said)
    else:
        assert word in said
        assert "localspec recommend" in said
        assert float(said.split("(")[1].split(" GB")[0]) <= 6.0, "nobody asked for a long download"


def test_predict_knows_a_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(place: object) -> None:
        raise ModelError(f"{place} cannot be read")

    monkeypatch.setattr("localspec.forecast.forecast.read_remote", offline)
    found = facts_of("qwen3-8b")
    assert "published configuration" in found.path
    assert found.weight_bytes == pytest.approx(5.03e9, rel=0.01)
    with pytest.raises(ModelError, match="cannot be read"):
        facts_of("hf:owner/repo/model.gguf")


@pytest.mark.slow
def test_the_page_of_twelve_machines_is_today_s() -> None:
    """Speeds may move by one where constants are fitted anew; models and their order may not."""
    page = Path(__file__).parents[1] / "docs/measurements/recommendations.md"
    rows = [row for row in page.read_text("utf-8").splitlines() if row.count("|") == 6]
    rows = rows[2:]  # below the head
    assert len(rows) == 12
    for row in rows:
        name, *shown = (cell.strip() for cell in row.split("|")[1:-1])
        device, _, size = name.rpartition(", ")
        gib = int(size.removesuffix(" GB"))
        found = [*offers(device, CHAT, gib)[:3], *offers(device, CODE, gib)[:1]]
        for offer, cell in zip(found, shown, strict=True):
            model, memory, speed, first = cell.split(", ")
            assert f"{offer.entry.name} {offer.quantization}" == model, name
            assert f"{offer.memory.used_bytes / 1e9:.1f} GB" == memory, name
            assert offer.decode.mid == pytest.approx(float(speed), rel=0.03, abs=1.5), name
            first_s = float(first.removesuffix(" s"))
            assert offer.first_token.mid == pytest.approx(first_s, rel=0.05, abs=0.2), name


def test_a_slow_machine_is_told_what_can_be_read_along() -> None:
    """Two cores at 20 GB/s: not a 30B at four tokens a second."""
    best = recommendations(ENTRIES, processor(22e9, 2e10), CHAT)[0]
    assert best.decode.mid >= module.READING_TPS


def test_two_gpus_hold_more_and_share_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [
        local_devices([Reported(name, name, 24 * GIB, 24 * GIB, "gpu", "cuda")], [])[0]
        for name in ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3090")
    ]

    def here(devices: list[LocalDevice]) -> KnownMachine:
        monkeypatch.setattr(known_machine, "_devices_here", lambda: devices)
        return KnownMachine.here()

    both, fast, slow = here(cards), here(cards[:1]), here(cards[1:])
    assert both.room_bytes == fast.room_bytes + slow.room_bytes
    facts, cache = facts_of("qwen3-8b"), Attention()
    rooflines = [machine.roofline(facts, cache) for machine in (slow, both, fast)]
    speeds = [roofline.decode(0).mid for roofline in rooflines if roofline]
    assert speeds[0] < speeds[1] < speeds[2], "layers are computed one after the other"


def test_a_draft_by_name_needs_no_network_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its file is a head cannot be seen then, and its configuration is known."""

    def offline(place: object) -> None:
        raise ModelError(f"{place} cannot be read")

    monkeypatch.setattr("localspec.forecast.forecast.read_remote", offline)
    found = localspec.predict("qwen3-8b", "RTX 4060", draft="qwen3-0.6b", depth=0, kv_k="f16")
    assert found.draft is not None
    assert "Qwen3 0.6B" in (found.draft.name or "")
    with pytest.raises(ModelError, match="cannot be read"):
        localspec.predict("qwen3-8b", "RTX 4060", draft="hf:owner/repo/model.gguf")


@pytest.mark.parametrize("n_gib", [8, 12])
def test_memory_tells_cards_of_one_name_apart(n_gib: int) -> None:
    assert KnownMachine.named("RTX 3060", n_gib * GIB).name.endswith(f"3060 {n_gib} GB")
    with pytest.raises(UserError, match="give more of the name"):
        KnownMachine.named("RTX 3060")
