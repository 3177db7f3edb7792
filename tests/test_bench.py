"""Would a sweep lose or repeat a measurement, or say something that was not measured?"""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import assert_refused, finish, localspec, start, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import IDEAL, cases, config, prediction, prompts, results, visited

from localspec.bench.case import Case, Work, read_prompts
from localspec.bench.compare import compare
from localspec.bench.findings import findings
from localspec.bench.measure import measure
from localspec.bench.plan import ANCHOR_EVERY, Sweep, anchor_of, make_plan, schedule
from localspec.bench.prediction import Prediction, facts_of, predict
from localspec.bench.row import rows_of
from localspec.bench.sample import loops
from localspec.bench.store import Visited, read_results
from localspec.bench.visit import CHILD, visit
from localspec.cli.options import numbers
from localspec.errors import UserError
from localspec.hardware.activity import Circumstances
from localspec.session.session_config import SessionConfig
from localspec.store import document_of, value_of

SHORT = ("-p", "8", "-n", "4", "-t", "1", "-r", "1", "--probe", "off")


def plain(n: int) -> list[Case]:
    return [Case(config(), Work(depth=depth)) for depth in range(n)]


@given(st.integers(1, 20), st.integers(1, 5))
def test_every_case_is_visited_in_every_round_and_the_anchor_all_along(n: int, rounds: int) -> None:
    some = plain(n)
    planned = schedule(some, rounds)
    counts = Counter(each.case for each in planned)
    assert [each.number for each in planned] == list(range(len(planned)))
    assert all(counts[case] >= rounds for case in some)
    assert planned[0].is_anchor
    assert planned[-1].is_anchor
    places = [each.number for each in planned if each.is_anchor]
    assert all(b - a <= ANCHOR_EVERY + 1 for a, b in pairwise(places))


def test_rounds_go_forwards_and_backwards() -> None:
    some = plain(4)
    order = [each.case for each in schedule(some, 2) if not each.is_anchor]
    assert order == [*some[1:], *some[:0:-1]]


def test_the_anchor_is_plain_and_shallow() -> None:
    assert anchor_of(cases()) == cases()[0]
    assert anchor_of([Case(config("lookup"), Work(prompts=prompts())), *plain(2)]).work.depth == 0


def test_a_case_survives_json() -> None:
    for case in cases():
        assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_a_newer_version_may_add_fields() -> None:
    document = plain(1)[0].to_json()
    document["config"]["of_tomorrow"] = 1
    assert Case.from_json(document) == plain(1)[0]


@pytest.mark.parametrize(
    ("text", "values"),
    [("1,2,2", (1, 2)), ("0-3", (0, 1, 2, 3)), ("1-8*2", (1, 2, 4, 8)), ("0-10+5", (0, 5, 10))],
)
def test_llama_benchs_ranges(text: str, values: tuple[int, ...]) -> None:
    assert numbers("-d", text, 0, 100) == values


@pytest.mark.parametrize(
    "text", ["", "x", "5-1", "0-8*2", "1-8*1", "1-99999999", "3.5", "-2", "101"]
)
def test_a_range_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="-d"):
        numbers("-d", text, 0, 100)


def test_what_cannot_be_is_left_out_before_anything_is_loaded() -> None:
    sweep = Sweep(
        (tiny(),), kv=(("f16", "f16"), ("q8_0", "q8_0")), batch=(1, 2), depth=(0, 10**6),
        n_prompt=(8,), n_gen=(4,),
        settings={
            "flash_attn": ("auto", "off"), "threads": (1,), "spec": ("none", "lookup", "draft"),
        },
    )  # fmt: skip
    plan = make_plan(sweep)
    assert len(plan.cases) + len(plan.skipped) == len(list(sweep.cases()))
    assert {case.settings.spec for case in plan.cases} == {"none"}
    assert len(plan.cases) == 6
    reasons = " ".join(plan.skipped.values())
    for word in ("--prompts", "flash attention", "tokens"):
        assert word in reasons


ONE_THREAD = {"threads": (1,)}


def test_curves_are_cases_of_their_own() -> None:
    plan = make_plan(
        Sweep((tiny(),), depth=(0, 64), settings=ONE_THREAD, n_prompt=(8,), with_curve=True)
    )
    assert [bool(case.work.widths) for case in plan.cases] == [False, False, True, True]


@pytest.mark.engine
def test_speeds_are_of_what_was_asked() -> None:
    depth = measure(Case(config(), Work(8, 6, depth=64)), 2).samples
    users = measure(Case(config(), Work(8, 6, batch=3)), 2).samples
    only_read = measure(Case(config(), Work(8, 0)), 1).samples
    only_write = measure(Case(config(), Work(0, 6)), 1).samples
    assert [(s.n_prompt, s.n_tokens, s.n_passes) for s in depth] == [(8, 6, 6)] * 2
    assert [(s.n_prompt, s.n_tokens, s.n_passes) for s in users] == [(24, 18, 6)] * 2
    assert only_read[0].decode_s is None
    assert only_write[0].prefill_s is None
    assert all(0 < s.engine_s < (s.decode_s or 0) for s in (*depth, *users, *only_write))


def test_a_reply_that_repeats_itself_loops() -> None:
    sentence = list(range(8))
    assert loops([*sentence, 9, *sentence, 10, *sentence])
    assert not loops([*sentence, 9, *sentence, 10])
    assert not loops(list(range(100)))


@pytest.mark.engine
def test_drafts_are_counted_by_category() -> None:
    samples = measure(
        Case(config("lookup"), Work(0, 9, prompts=prompts(), per_category=1)), 1
    ).samples
    assert [s.category for s in samples] == ["echo", "chat"]
    assert sum(s.drafted for s in samples) > 0
    for s in samples:
        assert s.n_tokens == s.n_passes + s.accepted


@pytest.mark.engine
def test_a_failing_case_is_a_result_with_its_reason() -> None:
    found = visit(Case(config("none", "q8_0"), Work(8, 4)), 1)
    assert found.measurement is not None
    broken = Case(SessionConfig.of(Path("nowhere.gguf"), spec="none"), Work(8, 4))
    found = visit(broken, 1)
    assert found.measurement is None
    assert "nowhere.gguf" in (found.reason or "")
    assert "did not end" in (visit(plain(1)[0], 1, limit_s=0.05).reason or "")


@pytest.mark.engine
def test_parts_of_the_gap_sum_to_what_was_measured(tmp_path: Path) -> None:
    for row in rows_of(results(tmp_path / "a.jsonl").visits):
        if row.is_curve:
            continue
        assert row.gap
        assert sum(part.seconds for part in row.gap.parts) == pytest.approx(row.gap.token_s)
        assert row.gap.token_s == pytest.approx(1e-3 * (row.tpot_ms or 0))
        drafted = next(part for part in row.gap.parts if part.name == "rejected work").seconds
        assert drafted >= -1e-12 if row.case.settings.spec == "lookup" else drafted == 0


@pytest.mark.engine
def test_a_machine_that_loses_nothing_has_no_gap() -> None:
    """Had the case taken what the ceiling says, all of it would be explained by streamed bytes."""
    case = cases()[1]
    said = predict(case, IDEAL, facts_of(case.config.model))
    row = rows_of([visited(case, 0)])[0]
    assert row.gap
    names = {part.name: part.seconds for part in row.gap.parts}
    streamed = names["weights"] + names["K cache"] + names["V cache"]
    computed = streamed + names["weights: arithmetic"] + names["attention: arithmetic"]
    assert computed == pytest.approx(said.passes[0].seconds, rel=0.02)
    assert names["overhead"] == 0


def test_quantized_caches_stream_fewer_bytes() -> None:
    f16, q8 = (prediction(case) for case in (cases()[1], cases()[3]))
    assert f16
    assert q8
    assert q8.k_bytes == pytest.approx(f16.k_bytes * 8.5 / 16)
    assert q8.weights_bytes == f16.weights_bytes


def test_a_prediction_survives_json() -> None:
    said = prediction(cases()[0])
    assert said
    assert value_of(Prediction, json.loads(json.dumps(document_of(said)))) == said


@pytest.mark.engine
def test_a_visit_survives_json() -> None:
    one = visited(cases()[-2], 3)
    assert value_of(Visited, json.loads(json.dumps(document_of(one)))) == one


@pytest.mark.engine
def test_a_slower_run_is_a_regression(tmp_path: Path) -> None:
    # By far: passes of the tiny model take so little that a hiccup makes them 30 x as long.
    a, b = results(tmp_path / "a.jsonl"), results(tmp_path / "b.jsonl", factor=1e4)
    found = compare(a, b)
    assert {case.ratio.verdict for case in found.cases} == {"slower"}
    assert compare(b, a).cases[0].ratio.verdict == "faster"
    same = compare(a, results(tmp_path / "c.jsonl"))
    assert {case.ratio.verdict for case in same.cases} == {"no significant difference"}


@pytest.mark.engine
def test_a_disturbed_visit_counts_only_where_there_is_no_calm_one() -> None:
    case = cases()[0]
    calm = replace(visited(case, 0), circumstances=Circumstances("on mains power", 1.0, 0.01))
    slowed = visited(case, 1, factor=100.0)
    both, alone = rows_of([calm, slowed])[0], rows_of([slowed])[0]
    assert both.decode_tps == rows_of([calm])[0].decode_tps
    assert len(both.visits) == 2
    assert alone.decode_tps
    assert "1 of 2 visits were disturbed" in " ".join(findings([both]))


@pytest.mark.engine
def test_other_work_is_not_compared(tmp_path: Path) -> None:
    results(tmp_path / "a.jsonl")
    run = localspec("bench", tiny(), *SHORT, "--rounds", "1", "-o", tmp_path / "b")
    assert run.code == 0, run.stderr
    (other,) = (tmp_path / "b").glob("*.jsonl")
    assert_refused(localspec("compare", tmp_path / "a.jsonl", other), 2, "lengths", "-p 16", "-p 8")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line must be JSON at any time."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for_lines(process: Any, folder: Path, n: int) -> Path:
    while True:
        assert process.poll() is None, process.stderr.read()
        for path in folder.glob("*.jsonl"):
            if len(lines_of(path)) >= n:
                return path
        time.sleep(0.02)


@pytest.mark.engine
def test_a_killed_bench_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 in the middle, then --resume: nothing twice, nothing lost, JSON throughout."""
    process = start("bench", tiny(), *SHORT, "-d", "0,16,32", "--rounds", "2", "-o", tmp_path)
    path = wait_for_lines(process, tmp_path, 3)
    child = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    before = lines_of(path)
    _, alive = psutil.wait_procs(child, timeout=10)
    assert not alive, "a worker outlived the bench that it worked for"
    run = localspec("bench", "--resume", "-o", tmp_path, "--json", "--probe", "off")
    assert run.code == 0, run.stderr
    after = lines_of(path)
    assert after[: len(before)] == before
    n_planned = len(schedule(read_results(path).header.cases, 2))
    assert sorted(line["number"] for line in after[1:]) == list(range(n_planned))
    assert {row["n_visits"] for row in run.document["rows"]} == {2, 3}
    assert_refused(localspec("bench", "--resume", "-o", tmp_path), 2, "incomplete")


def worker_of(pid: int) -> psutil.Process | None:
    """The child that measures; a bench has others, which ask about the machine."""
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if CHILD in child.cmdline():
                return child
    return None


@pytest.mark.engine
def test_an_engine_that_dies_is_a_result_and_the_rest_is_measured(tmp_path: Path) -> None:
    process = start(
        "bench", tiny(), "-p", "0", "-n", "1500,8", "-d", "0", "-t", "1", "-r", "40", "--rounds",
        "1", "--probe", "off", "-o", tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while (worker := worker_of(process.pid)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker is not None
    time.sleep(0.3)
    worker.send_signal(signal.SIGSEGV)
    run = finish(process)
    assert run.code == 0, run.stderr
    (path,) = tmp_path.glob("*.jsonl")
    visits = read_results(path).visits
    assert visits[0].measurement is None
    assert "SIGSEGV" in (visits[0].reason or "")
    assert any(v.measurement for v in visits)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--quick", "--full"), ("--quick",)),
        (("-d", "x"), ("-d", "'x'")),
        (("--spec", "guess"), ("--spec", "none")),
        (("--kv", "q9_9"), ("q9_9",)),
        (("--spec", "lookup"), ("--prompts",)),
        (("--prompts", "nowhere.jsonl"), ("nowhere.jsonl",)),
        (("-p", "0", "-n", "0"), ("nothing to measure",)),
        (("--resume",), ("incomplete",)),
        (("-d", "1000000"), ("tokens",)),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(localspec("bench", tiny(), *arguments) if "--resume" not in arguments
                   else localspec("bench", *arguments), 2, *words)  # fmt: skip


def test_results_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    for text, word in (("", "no results"), ("{]", "line 1"), ('{"format": 99}', "format 99")):
        bad.write_text(text)
        assert_refused(localspec("report", bad), 2, word)
    assert_refused(localspec("report"), 2, "localspec bench")
    assert_refused(localspec("report", tmp_path / "nowhere.jsonl"), 2, "nowhere.jsonl")


@settings(max_examples=30)
@given(st.text(max_size=40))
def test_any_line_of_prompts_is_read_or_refused(tmp_path_factory: Any, line: str) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    path.write_text(line, encoding="utf-8", errors="replace")
    with contextlib.suppress(UserError):
        assert read_prompts(path, 1)
