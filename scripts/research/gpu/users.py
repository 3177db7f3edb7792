"""What a server's passes take on a device: one token for each of several users, alone and beside a
piece of a newcomer's prompt."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from statistics import median
from time import perf_counter

from localspec.engine.base import Context, EngineConfig, Request

N_PROMPT, N_PIECE, N_PASSES = 64, 256, 24


def user_costs(config: EngineConfig, counts: Sequence[int]) -> Iterator[tuple[str, str]]:
    """(What, figures) by number of users. EngineError where the engine cannot."""
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    n_users = max(counts)
    settings = {"ctx": 1024, "n_sequences": n_users + 1, "kv_unified": True}
    roomy = replace(config.with_settings(**settings), n_outputs=n_users + 1)
    with closing(LlamaEngine(roomy)) as engine:
        *users, newcomer = [engine.context() for _ in range(n_users + 1)]
        for user in users:
            user.eval(list(range(3, 3 + N_PROMPT)), 1)

        def pass_s(n: int, n_piece: int = 0) -> float:
            times = list[float]()
            for i in range(N_PASSES):
                newcomer.clear()
                started = perf_counter()
                engine.decode(_requests(users[:n], 3 + i, newcomer, n_piece))
                times.append(perf_counter() - started)
            return median(times[2:])

        seconds = {n: pass_s(n) for n in counts}
        for n, each_s in seconds.items():
            gain = f"{n * seconds[counts[0]] / each_s:.2f} x one user's"
            yield f"{n} users", f"{n / each_s:.1f} tok/s in all, {gain}"
        beside = pass_s(n_users, N_PIECE) / seconds[n_users]
        yield f"a pass of {n_users} users with {N_PIECE} tokens of a prompt", f"{beside:.2f} passes"


def _requests(
    users: Sequence[Context], token: int, newcomer: Context, n_piece: int
) -> list[Request]:
    piece = [(newcomer, list(range(3, 3 + n_piece)), 0)] if n_piece else []
    return [*((user, [token], 1) for user in users), *piece]
