"""Templates are untrusted, characters come in pieces, stop strings straddle tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.dialogue.stream import TextStream
from localspec.dialogue.template import ChatTemplate, Message
from localspec.errors import ModelError

HELLO = [Message(role="system", content="Be brief."), Message(role="user", content="Hi")]
CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ m['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_renders_what_its_model_was_trained_on() -> None:
    assert ChatTemplate(CHATML).render(HELLO) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_without_a_system_role_gets_its_text_with_the_first_question() -> None:
    """Gemma's template raises on a system message; the user's system prompt must not be lost."""
    source = (
        "{{ bos_token }}{% if messages[0].role == 'system' %}"
        "{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    )
    assert ChatTemplate(source, bos="<bos>").render(HELLO) == "<bos>[Be brief.\n\nHi]"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{{ 'a' * 100000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a' * 99999 * 99999 }}",
        "{{ '%99999999999s' % 1 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(10**12) %}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ undefined.thing }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_hostile_or_broken_template_is_a_sentence(source: str) -> None:
    """A template comes out of a downloaded file: it may reach no object and fill no memory."""
    with pytest.raises(ModelError, match="--raw"):
        ChatTemplate(source).render(HELLO)


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
