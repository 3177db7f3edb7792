"""Chat templates are untrusted programs, each written for conversations of one form."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hostile import HOSTILE

from localspec.dialogue.families import FAMILIES, family_of, template_named
from localspec.dialogue.forms import Message
from localspec.dialogue.renderer import RenderBudget, SpentError, TemplateRenderer
from localspec.dialogue.template import ChatTemplate, TemplateError
from localspec.errors import UserError

CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ m['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LETTERED = "{% for m in messages %}[{{ m.role[0] }}:{{ m.content }}]{% endfor %}"
PARTS = (
    "{% for m in messages %}[{{ m.role[0] }}:"
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}]"
    "{% endfor %}"
)
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}"
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.content }}]{% endfor %}"
)


def said(*texts: str, system: str | None = None) -> list[Message]:
    """Question, answer, question, ..."""
    turns = [Message(role=("user", "assistant")[i % 2], content=t) for i, t in enumerate(texts)]
    return [Message(role="system", content=system), *turns] if system else turns


def rendered(source: str, messages: list[Message], **options: object) -> str:
    return ChatTemplate(source, **options).render(messages)


def test_a_template_renders_what_its_model_was_trained_on() -> None:
    assert rendered(CHATML, said("Hi", system="Be brief.")) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompt_can_end_where_the_last_message_does() -> None:
    template = ChatTemplate(CHATML)
    asking, told = (
        template.render(said("Hi"), add_generation_prompt=asks) for asks in (True, False)
    )
    assert asking == told + "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{% generation %}{{ m.content }}{% endgeneration %}|", "Q|A|R|"),
        ("{%- generation -%} {{ m.content }} {%- endgeneration -%} |", "Q|A|R|"),
        ("{%+ generation %}{% set x = 1 %}{{ m.content }}{% endgeneration %}{{ x }}", "QAR"),
        ("{% generation %}{{ loop.index }}{% if loop.last %}{% break %}{% endif %}"
         "{% endgeneration %}", "123"),
        ("{% generation %}{% generation %}{{ m.content }}{% endgeneration %}!{% endgeneration %}",
         "Q!A!R!"),
    ],
)  # fmt: skip
def test_what_is_marked_for_training_is_written(body: str, text: str) -> None:
    """SmolLM3, LFM2.5 and Phi-4-reasoning publish templates that mark what to train on."""
    source = f"{{% for m in messages %}}{body}{{% endfor %}}"
    if text == "123":
        assert rendered(source + "{{ messages[-1].content }}", said("Q", "A", "R")) == "123R"
    else:
        assert rendered(source, said("Q", "A", "R")) == text


SYSTEM_FORMS = {
    "ignored": (NO_SYSTEM, "[S\n\nQ][A][R]"),
    "refused": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + NO_SYSTEM,
        "[S\n\nQ][A][R]",
    ),
    "known": (LETTERED, "[s:S][u:Q][a:A][u:R]"),
    "shouted": ("{% for m in messages %}[{{ m.content|upper }}]{% endfor %}", "[S][Q][A][R]"),
    "only the last pair is seen": (
        "{{ messages[-2].content }}|{{ messages[-1].content }}", "A|S\n\nR",
    ),
    "only first": (
        "{% if messages[0].role == 'system' %}<{{ messages[0].content }}>"
        "{% set messages = messages[1:] %}{% endif %}" + NO_SYSTEM, "<S>[Q][A][R]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SYSTEM_FORMS)
def test_a_system_text_is_never_lost(kind: str) -> None:
    """Phi-3, Mistral and Gemma know no system role, and `--system` must still be in the prompt."""
    source, text = SYSTEM_FORMS[kind]
    assert rendered(source, said("Q", "A", "R", system="S")) == text


def test_a_system_text_in_the_middle_is_kept_by_a_template_that_looks_at_the_first_alone() -> None:
    source = SYSTEM_FORMS["only first"][0]
    messages = [*said("Q", "A"), Message(role="system", content="S"), *said("R")]
    assert rendered(source, messages) == "[S\n\nQ][A][R]"


def test_content_is_a_list_of_parts_where_the_template_wants_that() -> None:
    """SmolVLM and Llama Guard loop over parts: of a text they would print nothing."""
    assert rendered(PARTS, said("Q", "A", "R", system="S")) == "[s:S][u:Q][a:A][u:R]"


def test_parts_are_for_the_roles_that_want_them() -> None:
    parts = "{% for p in m.content %}{{ p.text }}{% endfor %}"
    either = f"{{% if m.role == 'user' %}}{parts}{{% else %}}{{{{ m.content }}}}{{% endif %}}"
    source = LETTERED.replace("{{ m.content }}", either)
    assert rendered(source, said("Q", "A", "R", system="S")) == "[s:S][u:Q][a:A][u:R]"


def test_parts_whose_brackets_would_be_written_are_no_way_out() -> None:
    source = "{% if messages[0].content is not string %}{{ messages }}{% endif %}"
    with pytest.raises(TemplateError, match="leaves out what the user says"):
        rendered(source, said("Q"))


def test_a_question_that_is_lost_both_ways_is_an_error() -> None:
    source = "{{ messages[0].content }}"
    assert rendered(source, said("Q")) == "Q"
    with pytest.raises(TemplateError, match="leaves out what the user says") as caught:
        rendered(source, said("Q", "A", "R"))
    assert "--template chatml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "check",
    [
        "{% if not m.content %}{{ raise_exception('empty') }}{% endif %}",
        "{% if m.content[0].type == 'x' %}!{% endif %}",
        "{% if m.content.split('|')[0][0].x %}!{% endif %}",
    ],
)
@pytest.mark.parametrize("empty", ["", "\n "])
def test_an_empty_answer_does_not_end_the_conversation(check: str, empty: str) -> None:
    """Ministral raises on one, SmolVLM indexes it; the user would have to find /undo."""
    source = f"{{% for m in messages %}}{check}[{{{{ m.content }}}}]{{% endfor %}}"
    text = rendered(source, said("Q", empty, "R"))
    assert text in ("[Q\n\nR]", f"[Q][{empty}][R]")
    if empty == "":
        assert text == "[Q\n\nR]"
        assert rendered(source, said("Q", "A", "R", "", "T")) == "[Q][A][R\n\nT]"


def test_an_empty_answer_stays_where_the_template_takes_it() -> None:
    assert rendered(ALTERNATING, said("Q", "", "R")) == "[Q][][R]"


def test_a_question_without_an_answer_does_not_break_alternation() -> None:
    """Ctrl-C before the first token leaves two questions in a row."""
    messages = [*said("Q"), *said("R", "A", "T", system="S")[1:]]
    assert rendered(ALTERNATING, messages) == "[Q\n\nR][A][T]"
    assert rendered(LETTERED, messages) == "[u:Q][u:R][a:A][u:T]"


THINKING = [
    *said("Q"),
    Message(role="assistant", content="A", thought="why"),
    *said("R"),
]


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
@pytest.mark.parametrize("named", ["m.{0}", "m['{0}']", "m.get('{0}')"])
def test_a_thought_has_the_name_that_the_template_has_for_it(field: str, named: str) -> None:
    thought = f"{{{{ {named.format(field)} or '' }}}}|"
    source = LETTERED.replace("{{ m.role[0] }}:", thought)
    assert rendered(source, THINKING) == "[|Q][why|A][|R]"


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}[{{ m.content.split('</think>')[-1] }}]{% endfor %}",
        "{% for m in messages %}[{% for k, v in m.items() if k != 'role' %}{{ v }}{% endfor %}]"
        "{% endfor %}",
        "{% if thinking %}T{% endif %}{% for m in messages %}[{{ m.content }}]{% endfor %}",
    ],
)
def test_a_thought_without_a_name_in_the_template_stays_out(source: str) -> None:
    assert rendered(source, THINKING) == "[Q][A][R]"


def test_a_thought_is_not_written_under_two_names() -> None:
    source = (
        "{% for m in messages %}[{{ m.thinking }}{{ m.reasoning_content }}{{ m.content }}]"
        "{% endfor %}"
    )
    assert rendered(source, THINKING) == "[Q][A][R]"


def test_a_thought_with_an_empty_answer_goes_on() -> None:
    source = (
        "{% for m in messages %}{% if not m.content and not m.reasoning_content %}"
        "{{ raise_exception('empty') }}{% endif %}[{{ m.reasoning_content }}|{{ m.content }}]"
        "{% endfor %}"
    )
    cut = [*said("Q"), Message(role="assistant", content="", thought="wh"), *said("R")]
    assert rendered(source, cut) == "[|Q][wh|][|R]"


def test_tools_are_undefined_and_none_where_there_are_none() -> None:
    """Command R+ loops over them, Llama 3.1 asks whether they are none, others if defined."""
    source = (
        "{% for t in tools %}x{% endfor %}{{ tools is defined }} {{ tools is none }}"
        " {{ tools is not none }} {{ tools == none }} {{ tools|length }} {{ not tools }}"
        " {{ tools|tojson }}{{ messages[0].content }}"
    )
    assert rendered(source, said("Q")) == "False True False True 0 True nullQ"
    tools = [{"name": "f"}]
    assert rendered("{{ tools[0].name }}{{ messages[0].content }}", said("Q"),
                    variables={"tools": tools}) == "fQ"  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    ["", "indent=4", "ensure_ascii=True", "separators=(',', ':')", "sort_keys=True", "True, 2"],
)
def test_json_is_written_as_transformers_does(arguments: str) -> None:
    value = {"ü": [1, "<&>"], "a": None}
    keywords = eval(f"(lambda ensure_ascii=False, indent=None, **k: dict(ensure_ascii=ensure_ascii,"
                    f" indent=indent, **k))({arguments})")  # fmt: skip
    source = f"{{{{ x|tojson({arguments}) }}}}{{{{ messages[0].content }}}}"
    assert (
        rendered(source, said("Q"), variables={"x": value}) == json.dumps(value, **keywords) + "Q"
    )


def test_a_conversation_keeps_its_date() -> None:
    """Where the prompt has today's date, a cache of yesterday would be lost at midnight."""
    source = "{{ strftime_now('%d %b %Y %H:%M') }}{{ messages[0].content }}"
    first = datetime(2026, 11, 28, 23, 59, tzinfo=UTC)
    assert rendered(source, said("Q"), now=first) == "28 Nov 2026 23:59Q"
    assert rendered("{{ strftime_now('%Y') }}{{ messages[0].content }}", said("Q")).startswith("20")


def test_variables_are_given_and_known() -> None:
    source = (
        "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
        "{% set date_string = date_string|default('D') %}{% set effort = reasoning_effort %}"
        "{% set ns = namespace(x=1) %}{% for m in messages %}{% set content = m.content %}"
        "{% if loop.first and content %}{{ content }}{% endif %}{% endfor %}"
        "{{ enable_thinking }}{{ date_string }}{{ effort }}{% if tools %}{{ bos_token }}{% endif %}"
    )
    template = ChatTemplate(source, variables={"enable_thinking": False, "reasoning_effort": "low"})
    assert template.variables == {"enable_thinking", "date_string", "reasoning_effort"}
    assert template.render(said("Q")) == f"QFalse{datetime.now():%d %b %Y}low"


@pytest.mark.parametrize(
    "messages",
    [
        said("{{ x }} {% y %} <b>&amp;\"' \\n"),
        said("Grüße 世界 \U0001f30d \U000f0001 \u2028 \ufeff"),
        said("\ud83d lone", "\x00\x1b[0m", "  both ends\n\n"),
    ],
)
def test_texts_pass_through_as_they_are(messages: list[Message]) -> None:
    text = "".join(f"[{m['role'][0]}:{m['content']}]" for m in messages)
    assert rendered(LETTERED, messages) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ strftime_now.__self__ }}{{ strftime_now.__self__.__class__.now() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ undefined.thing }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{% endgeneration %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_a_broken_template_is_a_sentence(source: str) -> None:
    with pytest.raises(TemplateError, match="--template chatml"):
        rendered(source, said("Q"))


def test_variables_that_are_no_json_are_refused() -> None:
    with pytest.raises(UserError, match="JSON"):
        ChatTemplate(LETTERED, variables={"x": object()})


def test_a_source_of_megabytes_is_refused_before_it_is_copied() -> None:
    with pytest.raises(TemplateError, match="characters"):
        ChatTemplate("{{ messages }}" * 100_000)


def test_the_words_of_a_template_cannot_pose_as_ours() -> None:
    with pytest.raises(TemplateError) as caught:
        rendered(
            "{{ raise_exception('\x1b]0;x\x07\nlocalspec: all is well' ~ 'x' * 999) }}", said("Q")
        )
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


QUICK = (
    "center of a variable", "percent", "three times", "parentheses", "conditions", "nested loops",
    "a long number", "no cycle", "loop that calls itself",
)  # fmt: skip


@pytest.mark.parametrize("kind", QUICK)
def test_a_hostile_template_is_a_sentence(kind: str) -> None:
    with pytest.raises(TemplateError, match="--template chatml"):
        rendered(HOSTILE[kind], said("Q"))


MEASURED = """
import json, resource, sys
from localspec.dialogue.renderer import RENDERER
from localspec.dialogue.template import ChatTemplate, TemplateError
from localspec.hardware.detect import peak_resident_bytes
before_s = 0.0
for source in json.load(sys.stdin):
    try:
        ChatTemplate(source).render([{"role": "user", "content": "Q"}])
        what = "rendered"
    except TemplateError as error:
        what = str(error)
    RENDERER.close()
    own, child = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    spent_s = sum(each.ru_utime + each.ru_stime for each in (own, child))
    print(json.dumps([spent_s - before_s, peak_resident_bytes() + 1024 * child.ru_maxrss, what]))
    before_s = spent_s
"""
"""Its own peak is not that of `own`, which counts what this test's process had before the exec."""


@pytest.mark.slow
def test_a_hostile_template_has_a_second_and_300_mb() -> None:
    """Both processes together, and processor time: other programs share the clock on the wall."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], input=json.dumps(list(HOSTILE.values())),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(figures) == len(HOSTILE) >= 25
    for kind, (seconds, peak_bytes, what) in zip(HOSTILE, figures, strict=True):
        assert what.startswith("the chat template failed"), kind
        assert seconds < 1, kind
        assert peak_bytes < 300e6, kind


@pytest.fixture
def renderer() -> TemplateRenderer:
    made = TemplateRenderer()
    yield made
    made.close()


HELLO = {"messages": said("Q"), "values": {}, "now": None}


def test_a_budget_that_is_spent_ends_one_template_and_no_other(renderer: TemplateRenderer) -> None:
    with pytest.raises(SpentError, match=r"more than 0\.1 s of processor time"):
        renderer.answer(HOSTILE["loops"], HELLO, RenderBudget(cpu_s=0.1))
    with pytest.raises(SpentError, match="more than 64 MB of memory"):
        renderer.answer(HOSTILE["doubling by ~"], HELLO, RenderBudget(memory_bytes=64_000_000))
    assert renderer.answer(LETTERED, HELLO) == {"text": "[u:Q]"}


def test_a_system_without_limits_is_watched(
    renderer: TemplateRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no `resource`, macOS enforces no limit of memory."""
    (tmp_path / "resource.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    grows = "{% set n = namespace(x=[]) %}" + HOSTILE["loops that set"].replace(
        "{% set c = a * b %}", "{% set n.x = n.x + ['x' * (99999 + b)] %}"
    )
    with pytest.raises(SpentError, match="more than 64 MB of memory"):
        renderer.answer(grows, HELLO, RenderBudget(cpu_s=5.0, memory_bytes=64_000_000))
    assert renderer.answer(LETTERED, HELLO) == {"text": "[u:Q]"}


def test_ctrl_c_ends_a_rendering_at_once(renderer: TemplateRenderer) -> None:
    renderer.answer(LETTERED, HELLO)
    pressed = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.1, press).start()
    with pytest.raises(KeyboardInterrupt):
        renderer.answer(HOSTILE["loops"], HELLO, RenderBudget(cpu_s=20.0))
    assert time.monotonic() - pressed[0] < 0.1
    assert renderer.answer(LETTERED, HELLO) == {"text": "[u:Q]"}


def test_a_child_that_somebody_killed_is_replaced(renderer: TemplateRenderer) -> None:
    """The system, short of memory, may choose it while it idles."""
    renderer.answer(LETTERED, HELLO)
    assert renderer._child
    renderer._child._process.kill()
    renderer._child._process.wait()
    assert renderer.answer(LETTERED, HELLO) == {"text": "[u:Q]"}


def test_threads_share_the_child(renderer: TemplateRenderer) -> None:
    texts: dict[int, str] = {}

    def ask(i: int) -> None:
        say = {**HELLO, "messages": said(str(i) * 1000)}
        texts[i] = renderer.answer(LETTERED, say)["text"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {i: f"[u:{str(i) * 1000}]" for i in range(8)}


def test_a_long_conversation_has_a_larger_budget(renderer: TemplateRenderer) -> None:
    """Five million characters in 200 turns: a budget for short ones would refuse them."""
    turns = said(*(["word " * 2500] * 401))
    say = {"messages": turns, "values": {}, "now": None}
    assert len(renderer.answer(LETTERED, say)["text"]) > 5_000_000


def test_a_template_may_look_at_all_messages_for_each_one(renderer: TemplateRenderer) -> None:
    """As Gemma 4's does: the budget grows with the square of their number."""
    inner = "{% for n in messages %}{% if n.role == 'x' %}{% endif %}{% endfor %}"
    source = f"{{% for m in messages %}}{inner}{{{{ m.content }}}}{{% endfor %}}"
    say = {"messages": said(*(["w"] * 601)), "values": {}, "now": None}
    tight = RenderBudget(cpu_s=0.02)
    assert renderer.answer(source, say, tight)["text"] == "w" * 601


def test_every_family_writes_all_that_is_said() -> None:
    messages = said("quince", "medlar", "rowan", system="sorb")
    for name in FAMILIES:
        text = ChatTemplate(template_named(name), "<s>", "</s>").render(messages)
        places = [text.index(m["content"]) for m in messages]
        assert places == sorted(places), name
        assert "<EOS>" not in text
        assert text.startswith(ChatTemplate(template_named(name), "<s>", "</s>").render(
            messages[:2])), name  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "family"),
    [
        ({"<|im_start|>", "<|im_end|>", "<|endoftext|>"}, "chatml"),
        ({"<start_of_turn>", "<end_of_turn>", "<bos>"}, "gemma"),
        ({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, "llama3"),
        ({"<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"}, "granite"),
        ({"<|im_start|>", "<|im_end|>", "<|im_sep|>"}, "phi4"),
        ({"[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, "mistral-v7"),
        ({"<|im_start|>", "<|start_header_id|>"}, "chatml"),
        ({"<s>", "</s>", "<unk>"}, None),
        (set(), None),
    ],
)
def test_control_tokens_name_a_family(tokens: set[str], family: str | None) -> None:
    assert family_of(tokens) == family


def test_an_unknown_family_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'chatml'"):
        template_named("chatlm")
