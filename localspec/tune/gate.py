"""The gate: no setting replaces the defaults before its quality has been measured.

Its predictions of about 1,000 tokens of the text that ships are held against those of the default
cache with the same weights; `localspec quality` reads the whole text.
"""

from localspec.quality import (
    Divergence,
    Reference,
    Windows,
    divergence_of,
    reference_of,
    shipped_text,
    windows_of,
)
from localspec.quality.evaluate import n_outputs_for
from localspec.tune.rig import Seat
from localspec.tune.settings import Attention, Setting
from localspec.tune.trial import Trial
from localspec.tune.work import Work

GATE_WINDOWS = 4
"""Of 512 tokens, 255 of them scored."""


class Gate:
    """Divergence from the default cache on about 1,000 tokens; the reference is computed once."""

    def __init__(self, work: Work, until: float) -> None:
        self._work, self._until = work, until
        self._reference: Reference | None = None
        self._windows: Windows | None = None

    def judge(self, trial: Trial) -> bool:
        """Measure a trial's quality if there is time; False where that was not to be."""
        work = self._work
        try:
            windows = self._prepared()
        except _NoTimeError:
            return False
        cost_s = windows.n_windows * windows.n_ctx / work.fill_per_s
        if work.clock.until(self._until) < cost_s:
            return False
        work.tell(f"quality of {trial.setting.attention.text}")
        assert self._reference
        trial.quality = _evaluated(work, trial.setting, windows, self._reference)
        return True

    def _prepared(self) -> Windows:
        if self._windows:
            return self._windows
        work = self._work
        vocabulary = work.rig.owner.vocabulary
        window_s = 512 / work.fill_per_s
        n = int(work.clock.until(self._until) / (2.5 * window_s))
        if n < 1:
            raise _NoTimeError
        windows = windows_of(vocabulary, shipped_text(), n_windows=min(n, GATE_WINDOWS))
        work.tell(f"quality of the defaults on {windows.n_scored:,} tokens")
        default = work.setting.with_attention(Attention())
        seat = _reading_seat(work, default, windows)
        try:
            self._reference = reference_of(seat.engine, seat.context, windows)
        finally:
            work.rig.leave(seat)
        self._windows = windows
        return windows


class _NoTimeError(Exception):
    """The budget does not allow for a look at quality."""


def _evaluated(work: Work, setting: Setting, windows: Windows, reference: Reference) -> Divergence:
    seat = _reading_seat(work, setting, windows)
    try:
        return divergence_of(seat.engine, seat.context, windows, reference)
    finally:
        work.rig.leave(seat)


def _reading_seat(work: Work, setting: Setting, windows: Windows) -> Seat:
    n_outputs = n_outputs_for(windows, work.rig.owner.vocabulary.n_tokens)
    return work.rig.seat(setting, windows.n_ctx, n_outputs)
