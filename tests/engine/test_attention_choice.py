"""Flash attention that nobody chose is what is faster here: measured once, kept, and said."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import tiny
from models import smollm2

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupted
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.timing import TimedEngine, Timer
from localspec.session import attention
from localspec.session.attention import Found, fastest, is_open
from localspec.session.config import SessionConfig, session_config
from localspec.session.loading import checked_facts
from localspec.session.session import Session
from localspec.settings import Settings


class Loads:
    """Loads engines and remembers them."""

    def __init__(self) -> None:
        self.engines: list[LlamaEngine] = []

    def __call__(self, config: EngineConfig) -> TimedEngine:
        self.engines.append(LlamaEngine(config))
        return self.engines[-1]


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share what was calibrated, but not here."""

    def path(config: EngineConfig, draft: None) -> Path:
        return tmp_path / f"{config.model.name}.json"

    monkeypatch.setattr(attention, "calibration_path", path)
    monkeypatch.delenv("LOCALSPEC_NO_AUTO")


@pytest.fixture
def load() -> Iterator[Loads]:
    loads = Loads()
    yield loads
    for engine in loads.engines:
        engine.close()


def config_of(model: Path) -> EngineConfig:
    return EngineConfig.of(model, ctx=1024, threads=1, gpu_layers=0)


def test_the_faster_one_is_measured_once_and_the_weights_stay_usable(
    load: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BUSY", 1.0)  # other tests' processes count as other programs
    said: list[str] = []
    config, engine = fastest(config_of(smollm2()), load, said.append)
    assert said[0].startswith("measuring once")
    assert engine.config == config
    assert len(load.engines[-1].context().eval([1, 2, 3], 1).row(0)) > 0
    n_loaded = len(load.engines)
    again, _ = fastest(config_of(smollm2()), load, said.append)
    assert again == config
    assert len(load.engines) == n_loaded + 1
    assert sum("measuring" in each for each in said) == 1


def test_a_kept_choice_is_used_and_said(load: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Found(512, auto_s=2.0, off_s=1.0)
    monkeypatch.setattr(attention, "BUSY", 1.0)
    monkeypatch.setattr(attention, "_measured", lambda config, engine: plain)
    said: list[str] = []
    for n_loaded in (2, 3):  # once with the fused kernel, to be measured
        config, _ = fastest(config_of(tiny()), load, said.append)
        assert config.settings.flash_attn == "off"
        assert len(load.engines) == n_loaded
    assert "2.00 x as fast here, 512 tokens deep" in said[-1]


def test_too_busy_to_tell_is_not_kept(load: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BUSY", -1.0)
    monkeypatch.setattr(attention, "READING_S", 0.0)
    said: list[str] = []
    for _ in range(2):
        fastest(config_of(tiny()), load, said.append)
    assert sum("measuring" in each for each in said) == 2


def test_an_interrupted_measurement_leaves_nothing_loaded(
    load: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(timer: Timer, depth: int) -> float:
        raise Interrupted

    monkeypatch.setattr(Timer, "hold", interrupted)
    with pytest.raises(Interrupted):
        fastest(config_of(tiny()), load, lambda sentence: None)
    with pytest.raises(Exception, match="closed"):
        load.engines[0].model  # noqa: B018


@pytest.mark.parametrize(
    "settings",
    [
        {"flash_attn": "on"},
        {"flash_attn": "off"},
        {"kv_v": "q8_0"},
        {"workers": ("localhost:1",)},
        {"gpu_layers": 1},
        {"ctx": 2**30},  # scores of the plain kernel would not fit into memory
    ],
)
def test_there_is_no_choice_where_somebody_or_something_decides(
    settings: dict[str, object],
) -> None:
    model = tiny()
    facts = checked_facts(model)
    assert is_open(config_of(model), facts)
    assert not is_open(config_of(model).with_settings(**settings), facts)


@pytest.mark.parametrize(
    ("auto_s", "off_s", "choice"), [(1, 0.99, "auto"), (1, 0.5, "off"), (0, 0, "auto")]
)
def test_noise_moves_no_default(auto_s: float, off_s: float, choice: str) -> None:
    assert Found(512, auto_s, off_s).choice == choice


def test_a_session_tells_what_it_uses_and_measurements_of_the_engine_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "_measured", lambda config, engine: Found(512, 2.0, 1.0))
    chosen = session_config(str(tiny()), Settings(draft="none", spec="none"), frozenset())
    with Session.open(chosen) as session:
        assert session.plan.settings.flash_attn == "off"
        assert session.target.config.settings.flash_attn == "off"
    monkeypatch.setenv("LOCALSPEC_NO_AUTO", "1")
    everywhere = session_config(str(tiny()), Settings(draft="none"), None)
    as_it_is = session_config(str(tiny()), Settings(draft="none"), None, is_auto=False)
    for config in (everywhere, as_it_is, SessionConfig.of(tiny())):
        with Session.open(config) as session:
            assert session.plan.settings.flash_attn == "auto"
