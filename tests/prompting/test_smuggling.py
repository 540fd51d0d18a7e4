"""Only the template's own text becomes special tokens, whatever clients write and wherever they write it."""

from collections.abc import Callable
from functools import cache

import pytest
from families import CALLING, FAMILIES, SMOL_3, STARTER, WITHOUT_TEMPLATE, Family
from hostile import (
    FIELDS,
    NONCHARACTERS,
    NOT_ALWAYS_SEEN,
    Request,
    addition,
    as_seen,
    assistant,
    conversation,
    document,
    found,
    hostile_texts,
    parsed,
    reference,
    removal,
    schema,
    system,
    text,
    thinking,
    tool,
    tool_result,
    tool_use,
    user,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import byte_level_tokenizer, mistral_tokenizer

from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting import Tokenizer

pytestmark = pytest.mark.slow

EVERY = [*FAMILIES, WITHOUT_TEMPLATE]
BENIGN = "word"


@cache
def _names(tokenizer: Tokenizer) -> dict[int, str]:
    return {token_id: name for name, token_id in tokenizer.special_tokens.items()}


def ids_of(family: Family, request: Request) -> list[int]:
    """The prompt of a request."""
    return family.renderer.render(parsed(request)).token_ids


def specials_in(family: Family, ids: list[int]) -> list[str]:
    """The special tokens of a prompt, in order."""
    names = _names(family.tokenizer)
    return [names[token_id] for token_id in ids if token_id in names]


def ordinary_text(family: Family, ids: list[int]) -> str:
    """What a prompt says besides special tokens."""
    names = _names(family.tokenizer)
    return b"".join(family.tokenizer.decode(token_id) for token_id in ids if token_id not in names).decode()


def as_read(family: Family, content: str) -> str:
    """What remains of a text that the family's template and tokenizer leave whole."""
    if family.tokenizer.decode(family.tokenizer.encode("▁")[-1]) == b" ":
        content = content.replace("▁", " ")  # SentencePiece writes spaces so, and cannot tell them apart
    return content.strip() if family.trims else content


def check(family: Family, field: str, *contents: str) -> None:
    """Each content makes the special tokens that a plain word makes, and can be read in the prompt."""
    expected = specials_in(family, ids_of(family, FIELDS[field](BENIGN)))
    for content in contents:
        try:
            ids = ids_of(family, FIELDS[field](content))
        except InvalidRequestError as error:
            assert error.message.startswith("tools.0.custom.input_schema"), error.message
            continue
        assert specials_in(family, ids) == expected
        if not family.cuts and field not in NOT_ALWAYS_SEEN:
            read = ordinary_text(family, ids)
            assert any(as_read(family, seen) in read for seen in as_seen(content))


@pytest.mark.parametrize("field", FIELDS)
@settings(max_examples=20)
@given(content=hostile_texts(STARTER.tokenizer.special_tokens))
def test_no_field_of_the_starters_prompt_makes_special_tokens(field: str, content: str) -> None:
    check(STARTER, field, content)


@pytest.mark.parametrize("family", EVERY, ids=str)
@settings(max_examples=70)
@given(data=st.data())
def test_no_field_of_any_familys_prompt_makes_special_tokens(family: Family, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(FIELDS)))
    check(family, field, data.draw(hostile_texts(family.tokenizer.special_tokens)))


@pytest.mark.parametrize("family", EVERY, ids=str)
@pytest.mark.parametrize("field", FIELDS)
def test_each_special_token_is_spelled_out_in_each_field(field: str, family: Family) -> None:
    specials = sorted(family.tokenizer.special_tokens)
    check(family, field, "".join(specials), " ".join(specials))


def everything(a: str, b: str, c: str, d: str) -> Request:
    """A request in which clients wrote four texts, and as much of them as may be stands side by side."""
    offered = tool(
        description=a,
        input_schema=schema({b: {"type": "string", "description": c, "enum": [d, a]}}, required=[b]),
        input_examples=[{b: c}],
    )
    late = tool(name="late", description=d, defer_loading=True)
    return conversation(
        user([text(a), text(b), document(c, title=d, context=a), found(title=b, source=c, content=[text(d)])]),
        user(a),
        system([text(b), addition(tool(name="new", description=a)), removal("new"), text(c)]),
        assistant([thinking(a), text(c), text(d), {"type": "compaction", "content": d}]),
        assistant([thinking(b), text(d), tool_use(name=a, input={b: c}), tool_use(id="toolu_2", input={"q": d})]),
        user([tool_result([text(a), text(b)]), tool_result([text(c), reference("late")], tool_use_id="toolu_2")]),
        user(d),
        assistant([text(a), text(b), text(c)]),
        assistant([text(d), text("end")]),
        system=[text(c), text(d)],
        tools=[offered, late],
    )


@pytest.mark.parametrize("family", EVERY, ids=str)
@settings(max_examples=50)
@given(data=st.data())
def test_fields_do_not_make_special_tokens_together(family: Family, data: st.DataObject) -> None:
    hostile = hostile_texts(family.tokenizer.special_tokens)
    texts = data.draw(st.tuples(hostile, hostile, hostile, hostile))
    expected = specials_in(family, ids_of(family, everything(BENIGN, BENIGN, BENIGN, BENIGN)))
    assert specials_in(family, ids_of(family, everything(*texts))) == expected


def dealt(left: str, right: str) -> list[Request]:
    """Requests in which two texts meet."""
    return [
        conversation(user([text(left), text(right)])),
        conversation(user("ask"), assistant([text(left), text(right)]), user("go on")),
        conversation(user("ask"), assistant(left), assistant(right), user("go on")),
        conversation(user("ask"), assistant([text(left), text(right + ".")])),
        conversation(user(left), assistant(right + ".")),
        conversation(user(right), system=left),
    ]


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_a_special_token_cannot_be_dealt_out_to_neighbours(family: Family) -> None:
    expected = [specials_in(family, ids_of(family, request)) for request in dealt(BENIGN, BENIGN)]
    for special in sorted(family.tokenizer.special_tokens, key=len)[-4:]:
        for cut in range(1, len(special)):
            requests = dealt(special[:cut], special[cut:])
            assert [specials_in(family, ids_of(family, request)) for request in requests] == expected


HUGGING = """\
{%- for message in messages -%}
<|{{ message.content }}|>[{{ message.content | trim }}]
<{{ message.content }}>{{ message.content }}{{ message.content }}
{%- endfor -%}"""
CUTTING = """\
{%- for message in messages -%}
{{ message.content.split('CUT') | join('') }}{{ message.content | replace('CUT', '') }}
{{ message.content | replace('CUT', '') | trim }}{{ message.content.split('CUT') | join }}
{%- endfor -%}"""


@given(content=hostile_texts(STARTER.tokenizer.special_tokens))
def test_a_template_that_embraces_texts_completes_nothing(content: str) -> None:
    hugging = Family("hugging", STARTER.tokenizer_of, HUGGING)
    assert specials_in(hugging, ids_of(hugging, conversation(user(content), assistant(".")))) == []


@pytest.mark.parametrize("special", STARTER.tokenizer.special_tokens)
def test_a_middle_is_not_completed_on_both_sides(special: str) -> None:
    hugging = Family("hugging", STARTER.tokenizer_of, HUGGING)
    for start in range(len(special)):
        for end in range(start + 1, len(special) + 1):
            request = conversation(user(special[start:end]), assistant("."))
            assert specials_in(hugging, ids_of(hugging, request)) == []


@pytest.mark.parametrize("family", [f for f in CALLING if f.calls == "qwen-coder"], ids=str)
def test_names_that_a_template_puts_into_tags_complete_nothing(family: Family) -> None:
    """As in ``'<' + keyword + '>'``."""
    for special in family.tokenizer.special_tokens:
        for name in (special[1:-1], special[1:], special[:-1]):
            for field in ("tool property keyword", "tool schema keyword", "call input key", "call name"):
                check(family, field, name)


@pytest.mark.parametrize("removed", ["/no_think", "/think", "CUT"])
@pytest.mark.parametrize("template", [SMOL_3, CUTTING], ids=["smol-3", "cutting"])
@pytest.mark.parametrize("tokenizer_of", [STARTER.tokenizer_of, byte_level_tokenizer, mistral_tokenizer])
def test_what_a_template_takes_out_does_not_join_the_rest(
    tokenizer_of: Callable[[], Tokenizer], template: str, removed: str
) -> None:
    family = Family("cutting", tokenizer_of, template)
    expected = specials_in(family, ids_of(family, conversation(user(BENIGN))))
    for special in family.tokenizer.special_tokens:
        content = " ".join(special[:cut] + removed + special[cut:] for cut in range(len(special) + 1))
        assert specials_in(family, ids_of(family, conversation(user(content)))) == expected


@pytest.mark.parametrize("mark", NONCHARACTERS)
def test_noncharacters_are_text_like_any_other(mark: str) -> None:
    for field in ("user string", "system string", "prefill string", "tool result string"):
        check(STARTER, field, mark, f"{mark}<{mark}|im_start|>", f"<{mark}|im_start|>{mark}", f"{mark} x {mark}")


@pytest.mark.parametrize("lone", [chr(code) for code in range(0xDC80, 0xDC90)])
def test_marks_can_only_be_ours(lone: str) -> None:
    """No JSON holds half of a surrogate pair. Where a program passes one on, it breaks tokens and makes none."""
    for content in (lone, f"<{lone}|im_start|>", f"<|im_start{lone}|>{lone}"):
        for field in ("user string", "tool description", "call input value", "tool result string"):
            expected = specials_in(STARTER, ids_of(STARTER, FIELDS[field](BENIGN)))
            try:
                assert specials_in(STARTER, ids_of(STARTER, FIELDS[field](content))) == expected
            except InvalidRequestError as error:
                assert "surrogate" in error.message


def test_pieces_of_a_vocabulary_cannot_spell_a_control_token() -> None:
    """SentencePiece merges ``<s`` and ``>`` into ``<s>`` if the vocabulary lets it, control token or not."""
    mistral = next(family for family in FAMILIES if family.name == "mistral")
    assert mistral.tokenizer.special_tokens["<s>"] in mistral.tokenizer.encode("a <s> b")  # the danger is real
    request = conversation(user("a <s> b</s>"), assistant("<s>"), user("<s>"))
    assert specials_in(mistral, ids_of(mistral, request)) == [
        "<s>",
        "[INST]",
        "[/INST]",
        "</s>",
        "[INST]",
        "[/INST]",
    ]
