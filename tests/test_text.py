"""Characters come in pieces, stop strings straddle tokens."""

from hypothesis import given
from hypothesis import strategies as st

from localspec.dialogue.answer_parser import TextStream


@given(st.text(), st.integers(1, 5))
def test_text_comes_out_as_it_went_in_however_it_is_cut(text: str, size: int) -> None:
    """Tokens cut emoji in the middle; nothing may be lost, doubled or shown as U+FFFD."""
    data, stream = text.encode(), TextStream()
    shown = "".join(stream.push(data[i : i + size]) for i in range(0, len(data), size))
    assert shown + stream.finish() == text


def test_bytes_that_are_not_utf8_are_marked_and_end() -> None:
    stream = TextStream()
    assert stream.push(b"a\xffb\xf0\x9f") == "a\N{REPLACEMENT CHARACTER}b"
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    stream, shown = TextStream(stop), ""
    for character in text:
        shown += stream.push(character.encode())
        assert not any(s in shown for s in stop), "a stop string was shown"
        if stream.is_stopped:
            break
    shown += stream.finish()
    # The first to be complete ends the text; of those complete at once, the one that began first.
    ends = [(i, s) for i in range(1, len(text) + 1) for s in stop if text[:i].endswith(s)]
    if not ends:
        assert shown == text
        assert not stream.is_stopped
    else:
        end = ends[0][0]
        assert stream.is_stopped
        assert shown == text[: min(end - len(s) for e, s in ends if e == end)]
