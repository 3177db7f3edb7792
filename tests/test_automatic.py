"""What nobody chose becomes what is fastest here, for the text that is expected."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter, time
from typing import Any

import pytest
from command import SHAPE, tiny

from localspec.engine import cpu_ways, cpu_ways_question, threads
from localspec.engine.base import EngineConfig
from localspec.engine.child import Ending, Say
from localspec.engine.cpu_ways import (
    CALM,
    TRIES,
    AttentionWay,
    Ways,
    WeightsWay,
    kept_ways,
)
from localspec.engine.cpu_ways_question import WayQuestion, measured_ways
from localspec.errors import NoRoomError
from localspec.hardware.activity import Circumstances
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import write_random_model
from localspec.prediction.memory import Host
from localspec.prediction.quants import QUANTS
from localspec.registry.catalog import Entry
from localspec.session import fastest, opening, placing
from localspec.session import lighter_weights as lighter
from localspec.session.fastest import FastestHere, main_heads, main_type
from localspec.session.lighter_weights import lighter_weights
from localspec.session.loading import EnginePlan, checked_facts
from localspec.session.opening import chosen_plan, offer, offer_weights, offered, slower_prompts
from localspec.session.session_config import (
    USUAL_DEPTH,
    Depths,
    Expected,
    SessionConfig,
    session_config,
)
from localspec.settings import ROWS, Settings

OPEN = frozenset({"flash_attn", "threads", "threads_batch", "repack", "mmap", "ubatch"})
FUSED = AttentionWay(True, "f16", 4e-4, 4e-3, 4e-5, 4e-4)
PLAIN = AttentionWay(False, "f16", 12e-4, 2e-3, 12e-5, 2e-4)
"""It costs more at first and less behind a text."""


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return checked_facts(tiny())


def config(**settings: Any) -> EngineConfig:
    return EngineConfig.of(tiny(), **{"ctx": 4096, "threads": 4, "gpu_layers": 0, **settings})


@pytest.fixture(autouse=True)
def repacking(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """The processor repacks the tiny model's weights, until a test says otherwise."""

    def say(repacks: bool) -> None:
        monkeypatch.setattr(Host, "copies", lambda self, kind: self.repacks and repacks)

    say(True)
    return say


def weights(seconds: dict[tuple[bool, int], tuple[float, float]], load_s: float = 0.0) -> Any:
    """Repacked or not; the latter are mapped, as they are unless they are chosen to be read."""
    return tuple(
        WeightsWay(repack, n, *times, load_s if repack else 0.0, is_mapped=not repack)
        for (repack, n), times in seconds.items()
    )


def choice(facts: ModelFacts, rows: Any, depth: int = 0, n_texts: int = 8) -> FastestHere:
    """Kernels are known where a depth is expected."""
    heads = main_heads(facts)
    assert heads
    attention = {cpu_ways.named(heads): (FUSED, PLAIN)} if depth else {}
    known = Ways({main_type(facts): rows}, attention)
    return FastestHere(config(), facts, known, Expected(depth, n_texts))


SAME = weights(dict.fromkeys([(True, 2), (True, 4), (False, 2), (False, 4)], (0.02, 0.001)))


def test_the_kernel_follows_the_depth(facts: ModelFacts) -> None:
    for depth, kernel in ((64, "auto"), (4000, "off")):
        found, reasons = choice(facts, SAME, depth).of(OPEN)
        assert found.settings.flash_attn == kernel
        assert len(reasons) == (kernel == "off")
    assert "4,000 tokens deep" in reasons[0]


def test_what_servers_saw_is_expected_of_the_next_one() -> None:
    """A word or two say little; many answers say all, and a later use replaces an earlier one."""
    few, short, deep = (Depths(n, n * depth) for n, depth in ((10, 50), (1e5, 100), (1e5, 3000)))
    assert Depths().expected(1) == Expected(USUAL_DEPTH, 1)
    assert few.expected(1).depth > 0.9 * USUAL_DEPTH
    assert short.expected(1).depth < 120
    assert (short + deep + deep + deep).expected(1).depth > 2500
    assert (deep + short + short + short).expected(1).depth < 500


def test_the_plain_kernel_pays_for_what_others_have_in_the_cells(facts: ModelFacts) -> None:
    """It computes all cells for each reply: what one gains behind a long text, many lose."""
    alone = choice(facts, SAME, 1000)
    assert alone.of(OPEN)[0].settings.flash_attn == "off"
    for users, kernel in (({"kv_unified": True}, "auto"), ({}, "off")):
        many = replace(alone, config=config(n_sequences=4, **users))
        assert many.of(OPEN)[0].settings.flash_attn == kernel


@pytest.mark.parametrize(
    ("window", "n_scored", "is_small"),
    [(512, 1, True), (512, 200, False), (None, 1, False), (100_000, 1, False)],
)
def test_a_prompt_is_read_in_small_batches_where_layers_slide(
    facts: ModelFacts, window: int | None, n_scored: int, is_small: bool
) -> None:
    """A row attends to its window and to all rows of its pass, seen or not."""
    sliding = replace(
        facts, layers=tuple(replace(each, window_tokens=window) for each in facts.layers)
    )
    one = choice(sliding, SAME, 1000)
    one = replace(one, config=replace(one.config, n_outputs=n_scored))
    found, reasons = one.of(OPEN - {"flash_attn"})
    assert (found.settings.ubatch < config().settings.ubatch) is is_small
    assert any("in long prompts" in each for each in reasons) is is_small


def test_decoding_and_prompts_have_their_own_threads(facts: ModelFacts) -> None:
    rows = weights({(True, 2): (0.010, 0.002), (True, 4): (0.020, 0.001)})
    found, reasons = choice(facts, rows).of(OPEN)
    assert (found.n_threads, found.n_threads_batch) == (2, 4)
    assert reasons[0].startswith("threads 2 (")
    noisy = weights({(True, 2): (0.0100, 0.0010), (True, 4): (0.0104, 0.0010)})
    assert choice(facts, noisy).of(OPEN)[0] == config()


def test_a_neighbour_takes_no_thread_away(facts: ModelFacts) -> None:
    """With another program beside each measurement fewer threads seem best; a calm one counts."""
    rows = weights({(True, 2): (0.010, 0.001), (True, 4): (0.020, 0.002)})
    one = choice(facts, rows)
    for n_disturbed, n_threads in ((1, 4), (TRIES, 4), (CALM, 2)):
        known = replace(one.ways, disturbed={main_type(facts): n_disturbed})
        assert replace(one, ways=known).of(OPEN)[0].n_threads == n_threads


def test_repacking_must_be_worth_its_loading(facts: ModelFacts) -> None:
    rows = weights({(True, 4): (0.02, 0.0010), (False, 4): (0.03, 0.0015)}, load_s=10.0)
    assert not choice(facts, rows, n_texts=1).of(OPEN)[0].settings.repack
    assert choice(facts, rows, n_texts=10_000).of(OPEN)[0].settings.repack


@pytest.mark.parametrize(
    ("n_texts", "token_s", "is_mapped"), [(1, 0.018, True), (100, 0.018, False), (100, 0.02, True)]
)
def test_reading_weights_must_be_worth_its_loading(
    facts: ModelFacts,
    repacking: Callable[[bool], None],
    n_texts: int,
    token_s: float,
    is_mapped: bool,
) -> None:
    repacking(False)
    mapped = WeightsWay(False, 4, 0.02, 0.001, 0.0, is_mapped=True)
    read = WeightsWay(False, 4, token_s, 0.001, 0.01)
    found, reasons = choice(facts, (mapped, read), n_texts=n_texts).of(OPEN)
    assert found.settings.mmap is is_mapped
    assert [each.split(" (")[0] for each in reasons] == ([] if is_mapped else ["mmap off"])


def test_weights_are_not_read_without_room(
    facts: ModelFacts, repacking: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    repacking(False)
    rows = (WeightsWay(False, 4, 2.0, 1.0, 0.0, True), WeightsWay(False, 4, 1.0, 1.0, 0.0))
    assert not choice(facts, rows).of(OPEN)[0].settings.mmap
    monkeypatch.setattr(fastest, "available_memory_bytes", lambda: facts.weight_bytes)
    assert choice(facts, rows).of(OPEN)[0].settings.mmap


def test_what_somebody_chose_stays(facts: ModelFacts) -> None:
    rows = weights({(True, 2): (0.010, 0.001), (True, 4): (0.020, 0.002)})
    found, reasons = choice(facts, rows, 4000).of(frozenset())
    assert (found, reasons) == (config(), [])


@pytest.mark.parametrize("changes", [{"gpu_layers": 1}, {"workers": ("localhost:1",)}])
def test_devices_are_left_to_the_engine(
    facts: ModelFacts, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "measured_ways", lambda *_: pytest.fail("measured"))
    target = config(**changes)
    plan = EnginePlan(target, None, 0, facts)
    asked = SessionConfig(tiny(), target.settings, OPEN)
    assert chosen_plan(plan, asked, lambda _: None).target == target


@pytest.mark.parametrize(
    "changes", [{"kv_v": "q8_0"}, {"flash_attn": "on"}, {"ctx": 2**30}], ids=lambda each: str(each)
)
def test_the_plain_kernel_needs_its_room_and_types(
    facts: ModelFacts, changes: dict[str, Any]
) -> None:
    assert opening.may_be_plain(config(), facts)
    assert not opening.may_be_plain(config(**changes), facts)


def test_one_line_says_what_differs_and_the_draft_is_chosen_alike(
    facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = choice(facts, SAME, 4000).ways
    monkeypatch.setattr(opening, "measured_ways", lambda question, on_start: known)
    plan = EnginePlan(config(), config(), 3, facts, facts)
    asked = SessionConfig(tiny(), config().settings, OPEN, Expected(4000))
    said: list[str] = []
    found = chosen_plan(plan, asked, said.append)
    assert found.draft == found.target
    assert found.target.settings.flash_attn == "off"
    assert len(said) == 1
    assert said[0].startswith("fastest here: flash attention off (")
    assert chosen_plan(plan, replace(asked, open=frozenset()), said.append) == plan


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastestHere:
    """A model with weights of 16 bits, of which a token takes half its time; nothing beside it."""
    monkeypatch.setattr(lighter, "LEAST_BYTES", 0)
    path = tmp_path / "thing-F16.gguf"
    write_random_model(path, SHAPE, "F16")
    own, expected = checked_facts(path), Expected(64)
    rows = weights({(False, 4): (0.02, 0.001)})
    here = EngineConfig.of(path, ctx=4096, threads=4, gpu_layers=0)
    return FastestHere(here, own, Ways({"F16": rows}), expected)


def test_lighter_weights_are_offered_once_with_gain_and_cost(heavy: FastestHere) -> None:
    """Of weights that are not quantized `quantize` makes others: the least lossy that pays."""
    path = heavy.config.model
    told = offer_weights(heavy)
    assert told
    assert told.startswith("Q8_0 weights would decode some 1.")
    assert "0.00136 nats a token" in told
    assert f"localspec quantize {path} --to Q8_0" in told
    assert f"localspec quality {path} --weights Q8_0" in told
    assert offer_weights(heavy) is None


@pytest.mark.parametrize(("kind", "is_offered"), [("Q8_0", True), ("Q2_K", False)])
def test_a_lighter_file_beside_the_model_is_offered(
    heavy: FastestHere, kind: str, is_offered: bool
) -> None:
    """By its header, which must be of the same model; one that loses much is not."""
    path = heavy.config.model
    quantized = heavy.facts.file_type
    write_random_model(path.with_name("thing-Q6_K.gguf"), replace(SHAPE, n_layers=1), "Q8_0")
    write_random_model(path.with_name(f"thing-{kind}.gguf"), SHAPE, "Q8_0")
    told = lighter_weights(replace(heavy, facts=replace(heavy.facts, file_type="other")))
    assert quantized == "F16"
    assert bool(told) is is_offered
    if told:
        assert f"thing-{kind}.gguf lies beside it" in told
        assert f"--reference {path}" in told


def test_what_the_catalog_names_is_offered(
    heavy: FastestHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("thing", "Thing", "a/b", "Thing-Q4_K_M.gguf", "MIT", quants=("Q6_K",))
    monkeypatch.setattr(lighter, "load_catalog", lambda: {"thing": entry})
    told = lighter_weights(replace(heavy, facts=replace(heavy.facts, file_type="other")))
    assert told
    assert "localspec pull hf:a/b/Thing-Q6_K.gguf" in told


def test_lighter_weights_are_not_offered_where_nothing_may_be_chosen(heavy: FastestHere) -> None:
    plan = EnginePlan(heavy.config, None, 0, heavy.facts)
    closed = SessionConfig(heavy.config.model, heavy.config.settings)
    assert offered(plan, closed) is None
    assert offered(plan, replace(closed, open=OPEN))


def test_quantized_weights_are_light_enough(heavy: FastestHere) -> None:
    light = next(quant for quant in QUANTS if quant.name == "Q4_K_M").applied(heavy.facts)
    assert lighter_weights(replace(heavy, facts=light)) is None


def test_what_changes_numbers_is_offered_once(facts: ModelFacts) -> None:
    here = choice(facts, SAME, 4000)
    assert offer(here) is None, "nothing is known of other keys"
    heads = main_heads(facts)
    assert heads
    for token_s, is_offered in ((FUSED.deep_token_s, False), (FUSED.deep_token_s / 2, True)):
        coarse = replace(FUSED, kv_k="q8_0", deep_token_s=token_s, deep_read_s=4e-3)
        kernels = {cpu_ways.named(heads): (FUSED, coarse)}
        known = replace(here, ways=replace(here.ways, attention=kernels))
        assert bool(told := offer(known)) == is_offered
    assert told
    assert "prompts 0.1" in told, "what it costs is said before anybody chooses it"
    assert "tune --quick" in told
    assert offer(known) is None
    chosen = replace(known, config=known.config.with_settings(kv_k="q8_0"))
    told = slower_prompts(chosen)
    assert told
    assert "with q8_0 keys" in told
    assert slower_prompts(known) is None
    both = replace(coarse, kv_k="bf16", kv_v="q8_0")
    kernels = {cpu_ways.named(heads): (FUSED, both)}
    chosen = replace(
        known,
        config=known.config.with_settings(kv_k="bf16", kv_v="q8_0"),
        ways=replace(known.ways, attention=kernels),
    )
    assert "with bf16 keys and q8_0 values" in (slower_prompts(chosen) or "")


def test_flags_profiles_and_a_variable_close_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    name, nothing = str(tiny()), Settings(draft="none")
    assert not session_config(name, nothing, frozenset()).open, "the tests' variable"
    monkeypatch.delenv("LOCALSPEC_NO_AUTO")
    everything = frozenset(name for name, row in ROWS.items() if row.is_automatic)
    assert session_config(name, nothing, frozenset()).open == session_config(name, nothing).open
    assert session_config(name, nothing).open == everything == OPEN
    assert not session_config(name, nothing, is_auto=False).open
    given = session_config(name, nothing, frozenset({"repack", "threads"})).open
    assert given == {"flash_attn", "mmap", "ubatch"}
    assert session_config(name, Settings(draft="none", flash_attn="on")).open == OPEN - {
        "flash_attn"
    }
    assert not SessionConfig.of(tiny()).open


class Measuring:
    """Stands for the child process; each time it takes a little less."""

    def __init__(self) -> None:
        self.asked: list[WayQuestion] = []

    def __call__(self, question: WayQuestion) -> Ways:
        self.asked.append(question)
        token_s = 0.02 / len(self.asked)
        rows = [
            WeightsWay(repack, n, token_s, 0.1, 0.1, is_mapped)
            for repack, is_mapped in question.loadings
            for n in (1, 2)
        ]
        heads = {cpu_ways.named(question.heads): (FUSED, PLAIN)} if question.heads else {}
        return Ways({question.weights: tuple(rows)} if question.weights else {}, heads)


@pytest.fixture
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measuring:
    child = Measuring()
    monkeypatch.setattr(cpu_ways.paths, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(cpu_ways, "machine_key", lambda: "machine")
    monkeypatch.setattr(cpu_ways, "engine_fingerprint", lambda: "engine")
    monkeypatch.setattr(cpu_ways_question, "_measure", child)
    return child


QUESTION = WayQuestion("Q4_0", None, (1, 2))


def taken_by_others(share: float) -> Any:
    return lambda self: Circumstances("", 1.0, share)


def test_a_measurement_that_has_no_room_is_left_out(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, facts: ModelFacts
) -> None:
    """It would swap, or be killed with what runs beside it."""
    monkeypatch.setattr(cpu_ways_question, "available_memory_bytes", lambda: 700e6)
    with pytest.raises(NoRoomError, match=r"takes 0\.8 GB of memory"):
        measured_ways(WayQuestion("Q4_0", None, (1, 2)), lambda: pytest.fail("started"))
    with pytest.raises(NoRoomError):
        measured_ways(WayQuestion(None, (128, 128, 256), (1, 2)), lambda: pytest.fail("started"))
    heavy, light = (WayQuestion(kind, None, (1,)).memory_bytes for kind in ("F16", "Q4_0"))
    assert heavy > 1.5 * light
    monkeypatch.setattr(threads, "thread_counts", lambda: (1, 2))
    assert threads.measured_threads(lambda _: None, repack=True) == threads.default_threads()
    monkeypatch.setattr(cpu_ways_question, "available_memory_bytes", lambda: 1e6)
    said: list[str] = []
    same, _ = opening._chosen(OPEN, Expected(), config(), facts, said.append)
    assert same == config()
    assert "which are not free; the engine's own choices stand" in said[0]
    assert measuring.asked == []


def test_what_was_measured_is_kept_by_power_state(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_ways_question.Watch, "stop", taken_by_others(0.0))
    said: list[bool] = []
    for _ in range(2):
        measured_ways(QUESTION, lambda: said.append(True))
    assert len(measuring.asked) == len(said) == 1
    battery = replace(cpu_ways.power(), on_battery=True)
    monkeypatch.setattr(cpu_ways, "power", lambda: battery)
    measured_ways(QUESTION, lambda: None)
    assert len(measuring.asked) == 2
    next(cpu_ways.paths.cache_dir().glob("ways/*")).write_text("{}")


def test_what_others_disturbed_is_measured_again_a_few_times(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_ways_question.Watch, "stop", taken_by_others(0.5))
    for _ in range(TRIES + 2):
        measured_ways(QUESTION, lambda: None)
    assert len(measuring.asked) == TRIES
    assert kept_ways().weights["Q4_0"][0].token_s == pytest.approx(0.02 / TRIES), "the least counts"


@pytest.mark.parametrize("told", [0, 2], ids=["nothing", "weights"])
def test_a_measurement_is_ended_after_three_seconds_and_goes_on_next_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: int
) -> None:
    """What the child has told counts; without a word the engine's own choices stand, and after some
    tries nobody waits again."""
    monkeypatch.setattr(cpu_ways.paths, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(cpu_ways, "machine_key", lambda: "machine")
    monkeypatch.setattr(cpu_ways, "engine_fingerprint", lambda: "engine")
    monkeypatch.setattr(cpu_ways_question.Watch, "stop", taken_by_others(0.0))
    limits: list[float] = []

    def child(
        function: str, question: WayQuestion, until: float, *, hear: Say, limit_s: float
    ) -> Ending:
        limits.append(limit_s)
        assert 0 < until - time() < limit_s <= 3.0
        if question.weights:
            for is_mapped in (False, True)[:told]:
                hear(WeightsWay(False, 1, 0.02, 0.001, 0.1, is_mapped))
        return Ending(-9, "", is_timeout=True)

    monkeypatch.setattr(cpu_ways_question, "call", child)
    asked = WayQuestion("Q4_0", (9, 3, 64), (1,), (False,))
    for _ in range(TRIES + 2):
        found = measured_ways(asked, lambda: None)
    assert len(limits) == TRIES
    assert set(found.weights) == ({"Q4_0"} if told else set())
    assert not found.attention


def test_what_was_measured_is_chosen_in_less_than_a_third_of_a_second(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, facts: ModelFacts
) -> None:
    """The second load; the first one is over after three seconds, as above."""
    monkeypatch.setattr(cpu_ways_question.Watch, "stop", taken_by_others(0.0))
    plan = EnginePlan(config(), None, 0, facts)
    asked = SessionConfig(tiny(), config().settings, OPEN, Expected(64))
    seconds: list[float] = []
    for _ in range(3):
        started = perf_counter()
        chosen_plan(plan, asked, lambda _: None)
        seconds.append(perf_counter() - started)
    assert len(measuring.asked) == 1
    assert min(seconds[1:]) < 0.3


def test_default_threads_are_those_that_were_measured(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "thread_limit", lambda: 2)
    assert threads.default_threads() == 2
    one = [WeightsWay(True, 1, 0.01, 0.1, 0.0), WeightsWay(True, 2, 0.02, 0.1, 0.0)]
    monkeypatch.setattr(cpu_ways_question, "_measure", lambda _: Ways({"Q4_0": tuple(one)}))
    assert threads.measured_threads(lambda _: None, repack=True) == 1
    assert threads.default_threads() == 1
    next((cpu_ways.paths.cache_dir() / "ways").glob("*.json")).write_text('{"weights": 0}')
    assert kept_ways() == Ways()
    assert threads.default_threads() == 2


@pytest.mark.parametrize(("layers", "is_told"), [(99, True), (-1, False), (0, False)])
def test_layers_for_a_gpu_that_is_not_there_are_told(
    monkeypatch: pytest.MonkeyPatch, layers: int, is_told: bool
) -> None:
    monkeypatch.setattr(placing, "graphics", lambda *_: [])
    monkeypatch.setattr(placing, "may_have_graphics", lambda: False)
    notes: list[str] = []
    placing.on_sound_devices(Settings(gpu_layers=layers), notes.append)
    assert any("no GPU is here" in note for note in notes) == is_told
