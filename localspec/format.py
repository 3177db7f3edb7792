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


def percent(share: float | None, digits: int = 0) -> str:
    """A share, with a space before its sign."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def seconds(value: float | None) -> str:
    """Of a wait: milliseconds show."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value < 0.1 else number(value)


def milliseconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else number(1e3 * seconds)


def elapsed(seconds: float) -> str:
    """A time with its unit."""
    if seconds < 0.1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s"


def count(n: int, noun: str) -> str:
    """A number of things, in the plural where it is due."""
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def size(n_bytes: float) -> str:
    """Of a file or of memory, with its unit."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.0f} MB"


def gigabytes(n_bytes: float | None) -> str:
    return NOTHING if n_bytes is None else number(n_bytes / 1e9)


def speed(tokens_a_second: float) -> str:
    """Of decoding, with its unit."""
    return f"{tokens_a_second:.1f} tok/s"


def plus_minus(low: float, high: float) -> str:
    """An interval as its middle and half of its width."""
    return f"{(low + high) / 2:.0f} ± {(high - low) / 2:.0f}"


def times(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.0f} x"
