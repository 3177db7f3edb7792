"""Replays of recorded replies: their clock runs by given costs, so the result can be worked out."""

from dataclasses import replace

import pytest
from localspec.speculate.adaptive import Adaptive
from localspec.speculate.costs import Curve, PassCosts, Point
from localspec.speculate.experience import Experience
from localspec.speculate.length import Fixed
from research.speculation.recording import Guess, Recording
from research.speculation.replay import Machine, Player

MAX_TOKENS = 128
REPLY = [int(7919 * i % 251) for i in range(60)]


def _recording(reply: list[int], *, right: float = 1.0) -> Recording:
    """The draft model is right at `right` of the places, evenly spread."""
    guesses = [
        Guess(token if int((i + 1) * right) > int(i * right) else -1, 0.9)
        for i, token in enumerate(reply)
    ]
    return Recording("target", "draft", "all", 1, [300, 301, 302], reply, False, guesses)


def _machine(v2: float, v4: float, change_s: float = 0.0) -> Machine:
    curve = Curve((Point(1, 1.0), Point(2, v2), Point(4, v4)))
    draft = PassCosts(Curve((Point(1, 0.1), Point(64, 0.64))))
    return Machine(PassCosts(curve, change_s=change_s), draft, deciding_s=0.0, noise=0.0)


def test_plain_decoding_takes_one_pass_a_token() -> None:
    seconds = Player(_recording(REPLY), _machine(1.5, 2.0), Fixed(0)).play(MAX_TOKENS)
    assert seconds == pytest.approx(59.0)


def test_a_reply_that_ends_by_itself_takes_one_more() -> None:
    recording = _recording(REPLY)
    ended = replace(recording, ends=True)
    assert Player(ended, _machine(1.5, 2.0), Fixed(0)).play(MAX_TOKENS) == pytest.approx(60.0)


def test_a_draft_model_that_is_always_right_takes_a_quarter_of_the_passes() -> None:
    """58 tokens after the first: 14 passes of 4, and what is left, each with its evaluations."""
    player = Player(_recording(REPLY), _machine(1.2, 1.6), Fixed(3, "model"))
    seconds = player.play(MAX_TOKENS)
    assert player.n_passes == 15
    reading_s = (4 - 2) * 0.01
    assert seconds == pytest.approx(14 * (1.6 + 0.3) + (1.4 + 0.2) + reading_s, abs=0.35)


def test_a_change_of_width_takes_longer() -> None:
    steady = Player(_recording(REPLY), _machine(1.2, 1.6, 0.0), Fixed(3, "model")).play(MAX_TOKENS)
    player = Player(_recording(REPLY), _machine(1.2, 1.6, 0.5), Fixed(3, "model"))
    assert player.play(MAX_TOKENS) > steady


def test_the_real_policy_copies_what_repeats_and_leaves_the_rest() -> None:
    """The second half says the first again."""
    machine = _machine(1.2, 1.6)

    def seconds(reply: list[int]) -> float:
        policy = Adaptive(Experience(PassCosts(machine.target.curve)), 8)
        return Player(_recording(reply), machine, policy).play(MAX_TOKENS)

    assert seconds([*REPLY, *REPLY]) < 0.75 * 119
    assert seconds(REPLY) == pytest.approx(59.0)
