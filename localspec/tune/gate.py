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
WINDOW = 512
CHEAPER = 0.7
"""What reading a window takes of the time that the reference took, which keeps what it reads."""
SURE = 4
"""Standard errors above the limit, at which reading on is given up."""
READINGS = 1.5
"""By how many candidates there should be time to have all windows read."""


class Gate:
    """Divergence from the default cache on about 1,000 tokens; the reference is computed once."""

    def __init__(self, work: Work, until: float) -> None:
        self._work, self._until = work, until
        self._reference: Reference | None = None
        self._windows: Windows | None = None
        self.window_s = 0.0

    def judge(self, trial: Trial) -> bool:
        """Measure a trial's quality if there is time; False where that was not to be."""
        work = self._work
        try:
            windows = self._prepared()
        except _NoTimeError:
            return False
        cost_s = CHEAPER * windows.n_windows * self.window_s
        if work.clock.until(self._until) < cost_s:
            return False
        work.tell(f"quality of {trial.setting.attention.text}")
        assert self._reference
        trial.quality = self._evaluated(trial.setting, windows, self._reference)
        return True

    def is_hopeless(self, quality: Divergence) -> bool:
        """Whether no further window would bring it within the limit."""
        return quality.kld - SURE * quality.kld_error > self._work.goal.max_loss

    def _evaluated(self, setting: Setting, windows: Windows, reference: Reference) -> Divergence:
        seat = _reading_seat(self._work, setting, windows)
        try:
            return divergence_of(
                seat.engine, seat.context, windows, reference, is_enough=self.is_hopeless
            )
        finally:
            self._work.rig.leave(seat)

    def _prepared(self) -> Windows:
        """The windows that there is time for, with the default cache's predictions of them."""
        if self._windows:
            return self._windows
        work = self._work
        if work.clock.until(self._until) < READINGS * WINDOW / work.fill_per_s:
            raise _NoTimeError
        text = windows_of(work.rig.owner.vocabulary, shipped_text(), n_windows=GATE_WINDOWS)
        work.tell(f"quality of the defaults on {text.n_scored:,} tokens")
        seat = _reading_seat(work, work.setting.with_attention(Attention()), text)
        try:
            self._reference = self._read(seat, text)
        finally:
            work.rig.leave(seat)
        self._windows = text.first(len(self._reference.windows))
        return self._windows

    def _read(self, seat: Seat, text: Windows) -> Reference:
        """Window after window, as long as there is time for others to read them, too."""
        reference, clock = Reference(), self._work.clock
        for i in range(text.n_windows):
            before_s = clock.spent_s
            reference.windows += reference_of(seat.engine, seat.context, text.only(i)).windows
            self.window_s = clock.spent_s - before_s
            if clock.until(self._until) < self.window_s * (1 + READINGS * (i + 2)):
                break
        return reference


class _NoTimeError(Exception):
    """The budget does not allow for a look at quality."""


def _reading_seat(work: Work, setting: Setting, windows: Windows) -> Seat:
    n_outputs = n_outputs_for(windows, work.rig.owner.vocabulary.n_tokens)
    return work.rig.seat(setting, windows.n_ctx, n_outputs)
