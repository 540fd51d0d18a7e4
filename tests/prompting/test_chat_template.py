"""Chat templates render like in transformers, and their features are detected."""

import re

import pytest
from families import (
    CALLING,
    CHATML,
    FAMILIES,
    GEMMA,
    LLAMA_3,
    MISTRAL,
    SMOL_3,
    STARTER,
    WITHOUT_TEMPLATE,
    ZEPHYR,
    Family,
)
from tool_templates import LLAMA_31, QWEN_3

from commonweight.prompting.template.chat_template import (
    PLAIN_TEMPLATE,
    BadConversationError,
    BadTemplateError,
    ChatTemplate,
)

HELLO = [{"role": "user", "content": "<b>hello</b> & 'é'"}]


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[0].content }}", "<b>hello</b> & 'é'"),  # not escaped as HTML
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<b>hello</b> & \'é\'"}'),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ 'é' | tojson(ensure_ascii=True) }}", '"\\u00e9"'),
        ("{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}", "<s></s>True"),
        ("{% generation %}{{ 1 + 1 }}{% endgeneration %}", "2"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "023"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ tools is defined and tools }}{{ documents is defined }}", "NoneFalse"),
    ],
)
def test_templates_find_what_they_expect(source: str, text: str) -> None:
    assert template(source).render(HELLO) == text


def test_templates_can_tell_the_date() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", template("{{ strftime_now('%Y-%m-%d') }}").render(HELLO))


@pytest.mark.parametrize(
    ("source", "has_system", "has_late_system"),
    [
        (PLAIN_TEMPLATE, True, True),
        (CHATML, True, True),
        (LLAMA_3, True, True),
        (ZEPHYR, True, True),
        (QWEN_3, True, True),
        (SMOL_3, True, True),
        (MISTRAL, True, False),
        (GEMMA, False, False),
        (STARTER.template_source, True, True),
        # System text that moves on to the latest message has no place.
        (
            "{% for m in messages if m.role != 'system' %}{{ messages[0].content if loop.last }}{{ m.content }}"
            "{% endfor %}",
            False,
            False,
        ),
        # System text that is swallowed, or hoisted to the front, has no place.
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", False, False),
        (
            "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
            "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
            True,
            False,
        ),
    ],
)
def test_where_system_text_has_a_place(source: str, has_system: bool, has_late_system: bool) -> None:
    assert (template(source).has_system, template(source).has_late_system) == (has_system, has_late_system)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.clear() }}",
        "{{ messages[0].update({'content': ''}) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__.items() }}",
        "{{ self.__init__.__globals__.items() }}",
        "{% include '/etc/hostname' %}",
        "{{ range(10000000) | length }}",
    ],
)
def test_templates_are_kept_in_a_sandbox(source: str) -> None:
    messages = [dict(HELLO[0])]
    with pytest.raises(BadConversationError):
        template(only_at_hello(source)).render(messages)
    assert messages == HELLO


def test_the_templates_own_words_are_kept() -> None:
    with pytest.raises(BadConversationError, match=r"^Only one, please$"):
        template(only_at_hello("{{ raise_exception('Only one, please') }}")).render(HELLO)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('never') }}", "never"),
        ("{% for m in messages %}{{ m.parts.text }}{% endfor %}", "'dict object' has no attribute 'parts'"),
        ("{{ messages | map(attribute='content') | join }}{{ tools.first.name }}", "has no attribute"),
    ],
)
def test_a_template_that_fails_on_every_message_is_refused(source: str, words: str) -> None:
    with pytest.raises(BadTemplateError, match=f"^the model's chat template fails on every message: .*{words}"):
        template(source)


def test_a_template_that_wants_a_system_message_is_taken() -> None:
    source = "{% if messages[0].role != 'system' %}{{ raise_exception('who am I?') }}{% endif %}hello"
    assert template(source).render([{"role": "system", "content": "You are."}, *HELLO]) == "hello"


def only_at_hello(source: str) -> str:
    """A template that does so with the message above and not with those that it is tried with."""
    return "{% if 'hello' in messages[0].content %}" + source + "{% endif %}"


# What a template knows of tools and reasoning


@pytest.mark.parametrize("family", [*FAMILIES, WITHOUT_TEMPLATE], ids=str)
def test_the_format_of_calls_is_detected(family: Family) -> None:
    found = family.renderer.template
    assert found.format.name == family.calls
    assert found.has_calls == (family in CALLING)
    assert (found.thinking_switch or "") == family.switch


BY_NAME = {family.name: family for family in CALLING}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("qwen-3", "reasoning_content"),
        ("glm-4.6", "reasoning_content"),
        ("minimax", "reasoning_content"),
        ("harmony", "thinking"),
        ("ministral", "content"),
        ("deepseek-3.1", None),
        ("llama-3.1", None),
        ("kimi", None),
    ],
)
def test_the_place_of_reasoning_is_detected(name: str, key: str | None) -> None:
    assert BY_NAME[name].renderer.template.reasoning_key == key


def test_blocks_of_content_that_a_template_writes_out_are_no_place_for_reasoning() -> None:
    assert template("{{ messages[1].content | tojson }}").reasoning_key is None
    assert template("{{ messages[1].content }}").reasoning_key is None


def test_the_place_of_tool_definitions_is_detected() -> None:
    assert {f.name for f in CALLING if not f.renderer.template.has_tools} == {"deepseek-3.1"}
    tool_first = {f.name for f in CALLING if f.renderer.template.has_tools and f.renderer.template.has_tools_first}
    assert tool_first == {"glm-4.6", "kimi"}
    later = {f.name for f in CALLING if f.renderer.template.has_text_after_results}
    assert later == {f.name for f in CALLING} - {"mistral-nemo"}


def test_arguments_are_text_only_for_templates_that_cannot_write_objects() -> None:
    call = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ CALL }}{% endfor %}{% endfor %}"
    )
    name = """'<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' + """
    assert template(call.replace("CALL", name + "c.function.arguments")).has_text_arguments
    assert not template(call.replace("CALL", name + "c.function.arguments | tojson")).has_text_arguments
    assert not template(CHATML).has_text_arguments


def test_a_template_that_goes_through_the_tools_unasked_gets_an_empty_list() -> None:
    source = "{% for tool in tools %}{{ tool }}{% endfor %}{{ messages[0].content }}"
    assert template(source).render(HELLO) == HELLO[0]["content"]
    # But for most, none is None.
    assert template("{{ tools is none }}").render(HELLO) == "True"
    assert "Respond with" not in template(LLAMA_31).render(HELLO)
