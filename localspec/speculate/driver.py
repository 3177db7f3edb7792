"""Drive one Generation on one Context: the loop that is all of decoding, plain or speculative."""

from collections.abc import Iterator, Sequence
from time import perf_counter

from localspec.engine.base import Context, missing
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.speculate.drafters.base import NO_DRAFT, Draft, Drafter
from localspec.speculate.generation import Cost, Generation
from localspec.speculate.step import Step


def drive(
    generation: Generation, context: Context, drafters: Sequence[Drafter], interrupt: Interrupt
) -> Iterator[Step]:
    """Yield one Step a pass of the target until the generation is finished.

    What `context` shares with the prompt is kept, the rest is evaluated with the first pass. On an
    interrupt the generation finishes with what it has, and the context stays in step with it.
    """
    while not generation.is_finished:
        try:
            yield _step(generation, context, drafters)
        except Interrupted:
            generation.finish("interrupted")
        if interrupt.requested:
            generation.finish("interrupted")


def _step(generation: Generation, context: Context, drafters: Sequence[Drafter]) -> Step:
    history = generation.history
    started = perf_counter()
    offered = generation.offer(_draft(generation, drafters) if drafters else NO_DRAFT)
    drafted = perf_counter()
    # After the first pass the context is in step with the history; before, it holds an older text.
    known = len(context.tokens) if generation.n_tokens else 0
    tokens = [*missing(context, history, 1, known)[:-1], *offered]
    logits = context.eval(tokens, len(offered))
    evaluated = perf_counter()
    step = generation.observe(logits, Cost(drafted - started, evaluated - drafted, len(tokens)))
    # The newest token of a reply that goes on is pending; at its end the next turn can use it all.
    n_kept = len(history) - (0 if generation.is_finished else 1)
    context.truncate(min(len(context.tokens), n_kept))
    generation.learn(step, perf_counter() - started)
    return step


def _draft(generation: Generation, drafters: Sequence[Drafter]) -> Draft:
    """What the generation chooses: an offer of a drafter that costs nothing, or a draft to make."""
    n_offered = generation.n_offered()
    offers: list[Draft] = []
    if n_offered:
        request = generation.request(n_offered)
        offers = [drafter.draft([request])[0] for drafter in drafters if drafter.is_free]
    choice = generation.choose(offers)
    if choice.n_tokens == 0:
        return NO_DRAFT
    for offer in offers:
        if offer.source == choice.source:
            return offer.first(choice.n_tokens)
    chosen = next(d for d in drafters if choice.source in (None, d.source))
    request = generation.request(choice.n_tokens, choice.patience, choice.window)
    return chosen.draft([request])[0]
