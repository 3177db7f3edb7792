"""Many prompts on one engine without a server: their order, and what a failure or Ctrl-C leaves."""

from collections.abc import Iterator
from typing import Any

import pytest
from serving import FakeSession, SlowEngine, fake_engine_thread

from localspec.decode.speculator import Plain
from localspec.dialogue.markup import PLAIN, UNOPENED
from localspec.engine.interrupt import Interrupt
from localspec.errors import LocalspecError, UserError
from localspec.serve.engine_thread import AHEAD, Many
from localspec.session.reply import Reply, Turns
from localspec.session.reply_options import reply_options


def asked(session: FakeSession, prompts: list[Any]) -> Iterator[Reply | LocalspecError]:
    for prompt, n in prompts:
        if isinstance(prompt, LocalspecError):
            yield prompt
            continue
        options = reply_options(max_tokens=n, temperature=0)
        parser = session.parser(options, PLAIN, UNOPENED)
        turns = Turns(Interrupt())
        made = session.generations.of(prompt, options)
        yield Reply(made, iter(()), parser, options, turns, Plain())


def many(engine: SlowEngine, prompts: list[Any], interrupt: Interrupt | None = None) -> Many:
    scheduler = fake_engine_thread(engine, AHEAD).scheduler
    return Many(scheduler, interrupt or Interrupt(), asked(FakeSession(engine), prompts))


def test_replies_come_in_the_order_of_their_prompts_and_are_those_alone() -> None:
    """The first is the longest, and most are done before it."""
    wrong = UserError("no prompt")
    prompts = [([1, 2], 40), ([3, 4], 3), (wrong, 0), ([5, 1], 1), *[([i, 2], 5) for i in range(6)]]
    found = list(many(SlowEngine(n_sequences=3), prompts).answered())
    assert [place for place, _ in found] == list(range(len(prompts)))
    assert found[2][1] is wrong
    for (_, reply), (prompt, n) in zip(found, prompts, strict=True):
        if isinstance(reply, Reply):
            ((_, alone),) = many(SlowEngine(n_sequences=1), [(prompt, n)]).answered()
            assert isinstance(alone, Reply)
            assert (reply.tokens, reply.text) == (alone.tokens, alone.text)
            assert (len(reply.tokens), reply.finish_reason) == (n, "length")
            assert reply.timings.prefill_s is not None


def test_there_may_be_more_prompts_than_wait_at_once() -> None:
    prompts = [([i % 5, 1], 2) for i in range(3 * AHEAD)]
    found = many(SlowEngine(n_sequences=2), prompts).answered()
    assert [place for place, _ in found] == list(range(3 * AHEAD))


def test_ctrl_c_gives_what_is_done_and_ends() -> None:
    interrupt = Interrupt()

    class Interrupting(SlowEngine):
        n_passes = 0

        def decode(self, requests: Any) -> Any:
            self.n_passes += 1
            if self.n_passes == 5:
                interrupt.request()
            return super().decode(requests)

    prompts = [([1, 2], 400), ([3, 4], 1), ([5, 1], 400)]
    found: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(n for n, _ in many(Interrupting(n_sequences=2), prompts, interrupt).answered())
    assert found == [1]
