"""One table of settings, and everything that is derived from it: a new option is one row."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import ANSWER, localspec, tiny

from localspec.bench.case import Case, Work
from localspec.bench.report.tables import SETTINGS as COLUMNS
from localspec.cli.bench_options import SweepFlags, sweep_of
from localspec.errors import UserError
from localspec.export import TARGETS
from localspec.fields import (
    Choice,
    DeviceName,
    Layers,
    ModelName,
    Names,
    Row,
    Switch,
    TemplateName,
    Whole,
)
from localspec.session.loading import plan_engines
from localspec.session.profile import Profile, TunedFor
from localspec.session.session_config import SessionConfig
from localspec.settings import ROWS, Settings, read, with_former_names

OFFERED = [row for row in ROWS.values() if row.is_offered]
NAMES = [row.name for row in OFFERED]


def other(row: Row) -> Any:  # noqa: C901 - a line a kind
    """A value that the setting can have and does not have by default."""
    match row.kind:
        case Choice(values=values):
            return next(value for value in values if value != row.default)
        case Whole(low=low):
            return max(low, 64)
        case Switch():
            return not row.default
        case ModelName():
            return str(tiny())
        case TemplateName():
            return "chatml"
        case DeviceName():
            return "CPU"
        case Names():
            return ("one", "two")
        case Layers():
            return 64


def flags_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])-{1,2}[a-z][\w-]*", text))


@pytest.fixture(scope="module")
def helps() -> dict[str, set[str]]:
    commands = ("generate", "chat", "export", "bench")
    return {name: flags_of(localspec(name, "--help", COLUMNS="200").stdout) for name in commands}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    run = localspec("generate", tiny(), *ANSWER, "-p", "x", "-n", "1", "--json")
    return run.document["config"]


@pytest.mark.parametrize("row", OFFERED, ids=NAMES)
def test_what_is_offered_is_an_option_and_has_its_value_in_json(
    row: Row, helps: dict[str, set[str]], config: dict[str, Any]
) -> None:
    for name in ("generate", "chat", "export"):
        assert row.flag in helps[name]
    assert row.name in config
    if row.name != "draft":
        assert config[row.name] is not None, "effective values leave nothing open"


@pytest.mark.parametrize(
    "row", [r for r in ROWS.values() if not r.is_offered], ids=lambda r: r.name
)
def test_what_does_nothing_yet_is_no_option(row: Row, helps: dict[str, set[str]]) -> None:
    assert all(row.flag not in flags for flags in helps.values())


@pytest.mark.parametrize("row", [r for r in OFFERED if r.is_swept], ids=lambda r: r.name)
def test_what_is_swept_is_an_option_of_bench_a_case_and_a_column(
    row: Row, helps: dict[str, set[str]]
) -> None:
    assert {row.flag, *row.aliases} <= helps["bench"]
    value = other(row)
    text = {True: "on", False: "off"}.get(value, str(value)) if row.kind == Switch() else str(value)
    flags = SweepFlags(**{row.name: text})
    settings = {case.settings for case in sweep_of(flags, [str(tiny())]).cases()}
    if row.name != "draft_max":  # of no use without drafts, which real text alone can have
        assert {getattr(each, row.name) for each in settings} == {value}
    assert row.name in [column.key for column in COLUMNS]


@pytest.mark.parametrize("row", OFFERED, ids=NAMES)
def test_documents_of_results_and_profiles_keep_it(row: Row) -> None:
    value = other(row)
    case = Case(
        SessionConfig(Path("m.gguf"), replace(Settings(draft="none"), **{row.name: value})), Work()
    )
    assert Case.from_json(case.to_json()) == case
    profile = Profile("m", "today", 1, "speed", TunedFor("a", "b", 1), {row.name: value})
    assert Profile.from_json(profile.to_json()) == profile
    assert profile.text not in ("", "the defaults")


@pytest.mark.parametrize("row", list(ROWS.values()), ids=list(ROWS))
def test_a_value_that_it_cannot_have_is_refused_by_every_door(row: Row) -> None:
    wrong: Any = object()
    with pytest.raises(UserError, match=row.flag):
        Settings.of(**{row.name: wrong})
    with pytest.raises(ValueError, match=row.name):
        read({row.name: wrong})


@pytest.mark.parametrize("row", [r for r in OFFERED if r.is_engine], ids=lambda r: r.name)
@pytest.mark.parametrize("target", TARGETS)
def test_an_export_carries_it_or_says_that_it_cannot(row: Row, target: str) -> None:
    """But for servers of original weights on a GPU, to which a CPU's settings mean nothing."""
    base = SessionConfig.of(Path("m.gguf"), spec="none", ctx=2048, threads=2)
    value = 3 if row.name == "threads" else "bf16" if row.name in ("kv_k", "kv_v") else other(row)
    plain, changed = (
        TARGETS[target](each) for each in (base, base.with_settings(**{row.name: value}))
    )
    if (
        target not in ("vllm", "sglang", "tgi", "tensorrt-llm", "transformers")
        and row.name != "flash_attn"
    ):
        assert changed != plain


def test_a_misspelt_name_is_a_sentence_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'threads'"):
        Settings.of(thread=3)
    with pytest.raises(UserError, match="did you mean 'ubatch'"):
        Settings.of(n_batch=512)
    with pytest.raises(UserError, match="there is no setting"):
        SessionConfig.of(tiny(), colour="red")


def test_names_of_earlier_versions_are_read_and_documents_keep_them() -> None:
    old = {
        "draft": None, "spec": "none", "draft_max": None, "kv_k": "q8_0", "kv_v": "f16",
        "flash_attn": "on", "n_ctx": 1024, "n_threads": 2, "n_gpu_layers": 0,
        "n_threads_batch": 4, "n_batch": 256, "n_cpu_moe": 3, "use_mmap": False, "repack": False,
    }  # fmt: skip
    settings = Settings(**read(old))
    assert (settings.ctx, settings.ubatch, settings.cpu_moe) == (1024, 256, 3)
    assert (settings.mmap, settings.draft) == (False, "none")
    assert with_former_names(settings.to_json()).items() >= old.items()


def test_settings_are_decided_in_one_place() -> None:
    plan = plan_engines(SessionConfig.of(tiny(), kv_v="Q8_0", spec="none", ubatch=64))
    target = plan.target.settings
    assert (target.kv_v, target.flash_attn, target.ubatch) == ("q8_0", "on", 64)
    assert plan.settings.threads == plan.settings.threads_batch == plan.target.n_threads
    assert plan.facts.n_layers


def test_weights_are_shared_by_what_need_not_be_loaded_anew() -> None:
    base = Settings(threads=2, kv_k="q8_0", cpu_moe=3, mmap=False)
    assert base.loading == replace(base, threads=4, kv_k="f16", ubatch=64).loading
    assert base.loading != replace(base, cpu_moe=0).loading
    assert base.with_loading(Settings()).changed == {"threads": 2, "kv_k": "q8_0"}


def test_only_too_few_drafts_are_told_how_to_have_none() -> None:
    with pytest.raises(UserError, match="--spec none"):
        Settings.of(draft_max=0)
    with pytest.raises(UserError) as refused:
        Settings.of(draft_max=999)
    assert "--spec none" not in str(refused.value)
