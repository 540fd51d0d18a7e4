"""Chat templates run as their authors meant them, and can do no harm."""

import re

import pytest
from families import CHATML, GEMMA, LLAMA_3, MISTRAL, QWEN_3, SMOL_3, STARTER, ZEPHYR

from commonweight.prompting.template import PLAIN, BadConversationError, ChatTemplate

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
        ("{{ tools is defined and tools }}{{ documents is defined }}", "FalseFalse"),
    ],
)
def test_templates_find_what_they_expect(source: str, text: str) -> None:
    assert template(source).render(HELLO) == text


def test_templates_can_tell_the_date() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", template("{{ strftime_now('%Y-%m-%d') }}").render(HELLO))


@pytest.mark.parametrize(
    ("source", "has_system", "has_late_system"),
    [
        (PLAIN, True, True),
        (CHATML, True, True),
        (LLAMA_3, True, True),
        (ZEPHYR, True, True),
        (QWEN_3, True, True),
        (SMOL_3, True, True),
        (MISTRAL, True, False),
        (GEMMA, False, False),
        (STARTER.template_source, True, True),
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
    ("source", "may_cut"),
    [
        (CHATML, False),
        (LLAMA_3, False),
        (QWEN_3, False),
        (SMOL_3, True),
        ("{{ messages[0].content | replace('a', '') }}", True),
        ("{{ messages[0].content.split('a') | join('') }}", True),
        ("{{ messages[0].content | striptags }}", True),
    ],
)
def test_templates_that_may_take_something_out_of_a_text_are_known(source: str, may_cut: bool) -> None:
    assert template(source).may_cut_texts == may_cut


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
        template(source).render(messages)
    assert messages == HELLO


def test_the_templates_own_words_are_kept() -> None:
    with pytest.raises(BadConversationError, match=r"^Only one, please$"):
        template("{{ raise_exception('Only one, please') }}").render(HELLO)
