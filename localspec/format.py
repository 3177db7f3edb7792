"""Numbers for people: three digits, SI prefixes, "-" for what is not known."""

NOTHING = "-"


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return NOTHING
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def interval(mid: float, low: float | None, high: float | None) -> str:
    """A value with its interval, where there is one."""
    if low is None or high is None:
        return number(mid)
    return f"{number(mid)} ({number(low)}–{number(high)})"  # noqa: RUF001


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.0%}"


def seconds(value: float | None) -> str:
    """Of a wait: milliseconds show."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value < 0.1 else number(value)


def milliseconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else number(1e3 * seconds)


def gigabytes(n_bytes: float | None) -> str:
    return NOTHING if n_bytes is None else number(n_bytes / 1e9)


def times(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.0f} x"
