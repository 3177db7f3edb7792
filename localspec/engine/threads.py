"""How many threads compute: what a measurement of this machine says, else its usable cores.

Memory can be busy with fewer threads than there are cores, and a neighbour, a slow core or a
hypervisor can make a thread more a loss. So parts and all of the usable cores are timed
(`engine.cpu_ways`). The usable cores stay unless another number is clearly faster, because noise
must not move a default.
"""

from collections.abc import Mapping

from localspec.engine.cpu_ways import USUAL_TYPE, Ways, kept_ways
from localspec.engine.cpu_ways_question import WayQuestion, measured_ways
from localspec.errors import NoRoomError
from localspec.hardware.detect import thread_limit, usable_cores
from localspec.notify import Notify

CLEARLY = 1.08
"""Of the speed with the usable cores."""


def thread_counts() -> tuple[int, ...]:
    """Numbers to try: parts and all of the usable cores, and all that the system allows."""
    cores, most = usable_cores(), thread_limit()
    counts = {
        max(1, cores // 2),
        max(1, 3 * cores // 4),
        max(1, cores - 1),
        cores,
        max(cores, most),
    }
    return tuple(sorted(counts))


def default_threads() -> int:
    """What was measured here with this engine build and power state, else the usable cores."""
    return _decoding(kept_ways())


def measured_threads(notify: Notify, *, repack: bool, again: bool = False) -> int:
    """What was kept or, if nothing was, measured now, which takes seconds.

    Raises EngineError where the engine cannot be measured.
    """
    counts = thread_counts()
    if len(counts) == 1:
        return counts[0]
    repacks = (True, False) if repack else (False,)
    question = WayQuestion(USUAL_TYPE, None, counts, repacks)
    told = "measuring how many threads are fastest"
    try:
        return _decoding(measured_ways(question, lambda: notify(told), again=again))
    except NoRoomError:
        return default_threads()


def _decoding(ways: Ways) -> int:
    """The best number for a token, of the usual type and repacked where the build can."""
    known = ways.weights.get(USUAL_TYPE, ())
    is_repacked = any(way.repack for way in known)
    alike = [way for way in known if way.repack == is_repacked and not way.is_mapped]
    seconds = {way.n_threads: way.token_s for way in alike}
    return fastest(seconds, usable_cores())


def fastest(seconds: Mapping[int, float], usual: int) -> int:
    """The number with the shortest pass; `usual` where that is not clearly slower, or not known."""
    if usual not in seconds:
        return usual
    best = min(seconds, key=lambda n: (seconds[n], n))
    return best if seconds[usual] > CLEARLY * seconds[best] else usual
