"""Replays of recorded replies, whose clock runs by given costs, so the result can be worked out.

And replies by a script, which bench-speculation --synthetic drafts for.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine
from research.speculation.replay import MAX_DRAFT, Machine, Recording, main, play
from research.speculation.synthetic import ScriptedContext, SyntheticDrafter, scripted

from localspec.decode.chances import Learned
from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve, Point
from localspec.decode.drafters.unfinished import confidence_bin
from localspec.decode.driver import drive
from localspec.decode.generation import Generation, Limits
from localspec.decode.policy import Adaptive
from localspec.decode.speculator import Fixed, Plain
from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling

MAX_TOKENS = 128
REPLY = [int(7919 * i % 251) for i in range(60)]
READ_S = 0.01
"""Of a token that the draft model reads of a prompt."""


def recording_of(reply: list[int], *, n_prompt: int = 3) -> Recording:
    """The draft model is right everywhere, and rather sure."""
    guesses = [(token, confidence_bin(0.9)) for token in reply]
    return Recording("all", list(range(300, 300 + n_prompt)), reply, False, guesses)


def machine(v2: float, v4: float, change_s: float = 0.0) -> Machine:
    """Seconds of passes over 2 and 4 tokens, where one takes 1 s and a drafted token 0.1 s."""
    curve = PassCurve((Point(1, 1.0), Point(2, v2), Point(4, v4)))
    draft = PassCosts(PassCurve((Point(1, 0.1), Point(64, 64 * READ_S))))
    target = PassCosts(curve, change_s=change_s)
    return Machine(target, draft, deciding_s=0.0, noise=0.0, rng=np.random.default_rng(0))


def plain(recording: Recording) -> float:
    return play(recording, machine(1.5, 2.0), lambda _: Plain(), MAX_TOKENS)


def with_draft_model(recording: Recording, machine: Machine, n: int) -> float:
    return play(recording, machine, lambda drafters: Fixed(drafters[1], n), MAX_TOKENS)


def test_plain_decoding_takes_one_pass_a_token() -> None:
    assert plain(recording_of(REPLY)) == pytest.approx(59.0)


def test_a_reply_that_ends_by_itself_takes_one_more() -> None:
    assert plain(replace(recording_of(REPLY), ends=True)) == pytest.approx(60.0)


def test_a_draft_model_that_is_always_right_takes_a_quarter_of_the_passes() -> None:
    """59 tokens after the first are 15 passes of 4; it reads 3 + 1 tokens, two of them for free."""
    seconds = with_draft_model(recording_of(REPLY), machine(1.2, 1.6), 3)
    assert seconds == pytest.approx(15 * (1.6 + 3 * 0.1) + 2 * READ_S)


def test_reading_a_prompt_takes_time() -> None:
    near, far = (
        with_draft_model(recording_of(REPLY, n_prompt=n), machine(1.2, 1.6), 3) for n in (3, 23)
    )
    assert far - near == pytest.approx(20 * READ_S)


def test_a_change_of_width_takes_longer() -> None:
    steady, changing = (
        with_draft_model(recording_of(REPLY), machine(1.2, 1.6, change_s), 3)
        for change_s in (0.0, 0.5)
    )
    assert changing - steady == pytest.approx(0.5)


def test_the_real_policy_copies_what_repeats_and_leaves_the_rest() -> None:
    """The second half says the first again."""

    def seconds(reply: list[int]) -> float:
        lookup_only = replace(machine(1.2, 1.6), draft=None)
        learned = Learned(lookup_only.target)
        return play(
            recording_of(reply),
            lookup_only,
            lambda drafters: Adaptive(learned, drafters, MAX_DRAFT),
            MAX_TOKENS,
        )

    assert seconds([*REPLY, *REPLY]) < 0.75 * 119
    assert seconds(REPLY) == pytest.approx(59.0)


def test_files_of_recordings_and_a_kept_calibration_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reply that no lookup helps is as fast as plain; a draft model that is right saves most."""
    guesses = [{"token": token, "confidence": 0.9} for token in REPLY]
    row = {"category": "all", "prompt": [300], "reply": REPLY, "ends": True, "guesses": guesses}
    recordings, calibration = tmp_path / "replies.jsonl", tmp_path / "kept.json"
    recordings.write_text(json.dumps(row) + "\n")
    costs = {"target": [[1, 1.0, 0.0], [4, 1.6, 0.0]], "draft": [[1, 0.1, 0.0]], "change_s": 0.0}
    calibration.write_text(json.dumps(costs))
    main(
        recordings=recordings,
        calibration=calibration,
        settings="lookup-2,draft-3",
        deciding_ms=0.0,
        noise=0.0,
        as_json=True,
    )
    ratios = json.loads(capsys.readouterr().out)["ratios"]
    assert ratios["lookup-2"]["all"] == pytest.approx(1.0)
    assert ratios["draft-3"]["all"] > 1.9


@pytest.mark.parametrize(("acceptance", "n_passes"), [(1.0, 9), (0.0, 41)])
def test_a_scripted_reply_accepts_made_up_drafts_as_often_as_wished(
    acceptance: float, n_passes: int
) -> None:
    """The first pass takes no draft, the others 4 tokens and one more, or one."""
    generation = Generation([33, 34], Sampling(temperature=0), Limits(512, 41))
    context = ScriptedContext(FakeEngine(n_vocab=128).context())
    speculator = Fixed(SyntheticDrafter(acceptance, 1), 4)
    steps = list(drive(generation, context, speculator, Interrupt()))  # pyright: ignore[reportArgumentType]
    assert generation.tokens == [scripted(2 + i) for i in range(41)]
    assert len(steps) == n_passes
