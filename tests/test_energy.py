"""Joules come from what the machine says, in the layouts that kernels and drivers write."""

import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest

from localspec.hardware import energy
from localspec.hardware.energy import Counter, Meter, Sampled, apple_watts, sources_of


def put(path: Path, text: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def rapl(root: Path, folder: str, name: str, micro_j: int) -> Path:
    """As in Documentation/power/powercap/powercap.rst of the Linux kernel."""
    zone = root / "sys/class/powercap" / folder
    put(zone / "name", name)
    put(zone / "max_energy_range_uj", 262143328850)
    return put(zone / "energy_uj", micro_j)


@pytest.fixture(autouse=True)
def no_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_nvidia", list)


def test_packages_count_and_their_parts_do_not(tmp_path: Path) -> None:
    package = rapl(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    core = rapl(tmp_path, "intel-rapl:0:0", "core", 500_000)
    second = rapl(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    meter = Meter(sources_of(tmp_path))
    meter.start()
    put(package, 3_500_000)
    put(core, 2_000_000)
    put(second, 7_250_000)
    spent = meter.stop()
    assert spent
    assert spent.joules == pytest.approx(2.75)
    assert spent.sources == ("processor",)


def test_a_counter_that_starts_anew_loses_nothing(tmp_path: Path) -> None:
    package = rapl(tmp_path, "intel-rapl:0", "package-0", 262143000000)
    meter = Meter(sources_of(tmp_path))
    meter.start()
    put(package, 1_000_000)
    spent = meter.stop()
    assert spent
    assert spent.joules == pytest.approx(0.32885 + 1.0)


def test_what_may_not_be_read_tells_nothing(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 1).unlink()
    assert sources_of(tmp_path) == ()
    meter = Meter(())
    meter.start()
    assert meter.stop() is None
    assert not meter.tells


def test_a_counter_that_falls_silent_gives_no_number(tmp_path: Path) -> None:
    package = rapl(tmp_path, "intel-rapl:0", "package-0", 1)
    meter = Meter(sources_of(tmp_path))
    meter.start()
    package.unlink()
    assert meter.stop() is None


BATTERIES: dict[str, tuple[dict[str, object], float | None]] = {
    # Documentation/ABI/testing/sysfs-class-power: microwatts, microamperes, microvolts
    "power": ({"status": "Discharging", "power_now": 12_500_000}, 12.5),
    "current": (
        {"status": "Discharging", "current_now": 1_000_000, "voltage_now": 11_400_000}, 11.4,
    ),
    "a driver that counts what flows out as negative": (
        {"status": "Discharging", "current_now": -500_000, "voltage_now": 8_000_000}, 4.0,
    ),
    "charging": ({"status": "Charging", "power_now": 30_000_000}, None),
    "full": ({"status": "Full", "power_now": 0}, None),
    "no number": ({"status": "Discharging", "power_now": "unknown"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BATTERIES)
def test_a_battery_tells_while_it_feeds_the_machine(name: str, tmp_path: Path) -> None:
    files, watts = BATTERIES[name]
    folder = tmp_path / "sys/class/power_supply/BAT0"
    for file, text in {"type": "Battery", **files}.items():
        put(folder / file, text)
    put(tmp_path / "sys/class/power_supply/AC/type", "Mains")
    put(tmp_path / "sys/class/power_supply/hidpp_battery_0/type", "Battery")
    put(tmp_path / "sys/class/power_supply/hidpp_battery_0/scope", "Device")
    put(tmp_path / "sys/class/power_supply/hidpp_battery_0/power_now", 9)
    (source,) = sources_of(tmp_path)
    assert isinstance(source, Sampled)
    found = source.watts()
    assert found is None if watts is None else found == pytest.approx(watts)


def test_parts_are_preferred_to_the_battery(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 1)
    card = tmp_path / "sys/class/drm/card0/device/hwmon/hwmon3"
    put(card / "name", "amdgpu")
    put(card / "power1_average", 35_000_000)
    put(tmp_path / "sys/class/drm/card1/device/hwmon/hwmon4/name", "i915")
    put(tmp_path / "sys/class/power_supply/BAT0/type", "Battery")
    put(tmp_path / "sys/class/power_supply/BAT0/power_now", 1)
    processor, gpu = sources_of(tmp_path)
    assert isinstance(processor, Counter)
    assert isinstance(gpu, Sampled)
    assert (gpu.name, gpu.watts()) == ("GPU", 35.0)


def in_steps(*watts: float | None) -> Callable[[], float | None]:
    left = list(watts)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_power_is_added_up_over_time() -> None:
    meter = Meter([Sampled("battery", lambda: 20.0)])
    threads = threading.active_count()
    meter.start()
    sleep(0.25)
    spent = meter.stop()
    assert spent
    assert 20 * 0.25 <= spent.joules < 20 * 2
    sleep(2 * energy.SAMPLED_S)
    assert threading.active_count() == threads


def test_a_plug_in_the_middle_gives_no_number() -> None:
    meter = Meter([Sampled("battery", in_steps(20.0, None))])
    meter.start()
    assert meter.stop() is None


IOREG = """
    "ExternalConnected" = {plug}
    "InstantAmperage" = {current}
    "Voltage" = 12480
"""


@pytest.mark.parametrize(("plug", "current", "watts"), [
    ("No", 2**64 - 800, 9.984), ("Yes", 1200, None), ("No", 0, None), ("No", "none", None),
])  # fmt: skip
def test_a_mac_s_battery(plug: str, current: object, watts: float | None) -> None:
    found = apple_watts(IOREG.format(plug=plug, current=current))
    assert found is None if watts is None else found == pytest.approx(watts)
    assert apple_watts("") is None


@pytest.mark.engine
def test_a_reply_has_its_joules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from measured import config

    from localspec.session.reply_options import ReplyOptions
    from localspec.session.session import Session

    monkeypatch.setattr(energy, "sources_here", lambda: (Sampled("battery", lambda: 5.0),))
    with Session.open(config()) as session:
        options = ReplyOptions(max_tokens=24, ignore_eos=True)
        reply = session.reply(session.raw_prompt("one two three"), options).finish()
    timings = reply.timings
    assert timings.decode_s
    assert timings.decode_j
    assert timings.decode_j >= 0.9 * 5.0 * timings.decode_s
    assert timings.joules_per_token == pytest.approx(timings.decode_j / (24 - timings.n_first))


def test_a_server_counts_joules_where_the_machine_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    from localspec.serve.metrics import Metrics

    name = "localspec:energy_joules_total"
    monkeypatch.setattr(energy, "sources_here", lambda: ())
    assert name not in Metrics().text(0, 0)
    monkeypatch.setattr(energy, "sources_here", lambda: (Sampled("battery", lambda: 5.0),))
    metrics = Metrics()
    sleep(0.02)
    assert name in metrics.text(0, 0)
    metrics.meter.stop()
