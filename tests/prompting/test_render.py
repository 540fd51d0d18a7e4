"""Prompts are what the model's own template and llama.cpp's own tokenizer make of a conversation."""

from typing import Any

import pytest
from families import CALLING, CHATML, FAMILIES, STARTER, WITHOUT_TEMPLATE, Family
from hostile import (
    assistant,
    conversation,
    document,
    found,
    hostile_texts,
    parsed,
    reference,
    schema,
    system,
    text,
    tool,
    tool_result,
    tool_use,
    user,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from model_writers import grammar_tokenizer
from vocabularies import byte_level_tokenizer, mistral_tokenizer, phi_tokenizer, reference_ids, starter_tokenizer

from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting import Prompt, Renderer

EVERY = [*FAMILIES, WITHOUT_TEMPLATE]
TAKING_SYSTEM = [family for family in FAMILIES if family.takes_system]
BY_NAME = {family.name: family for family in EVERY}
GEMMA, MISTRAL, LLAMA_3 = BY_NAME["gemma"], BY_NAME["mistral"], BY_NAME["llama-3"]
LATE = [family for family in FAMILIES if family.renderer.template.has_late_system]
NOT_LATE = [family for family in FAMILIES if family not in LATE]

words = st.sampled_from(
    ["hello", "Hello,", "two words", "x = 1", "a\n\nb", "déjà", "日本", "🙂", "if a < b:", "[1]", "don't"]
)
spaces = st.sampled_from(["", "", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\x1c", "\u2028"])
plain_texts = st.tuples(spaces, words, spaces, words, spaces).map("".join)


def prompt(family: Family, *messages: dict[str, Any], **fields: object) -> Prompt:
    return family.renderer.render(parsed(conversation(*messages, **fields)))


def ids(family: Family, *messages: dict[str, Any], **fields: object) -> list[int]:
    return prompt(family, *messages, **fields).token_ids


def text_of_prompt(family: Family, *messages: dict[str, Any], **fields: object) -> str:
    """Text of a prompt without its special tokens."""
    return b"".join(family.tokenizer.decode(i) for i in ids(family, *messages, **fields)).decode()


def expected_ids(family: Family, *turns: tuple[str, str], then: str = "") -> list[int]:
    """llama.cpp's tokens of what the template writes, with everything in it that looks special being so."""
    tokenizer = family.tokenizer
    then = family.no_thinking + (family.before_prefill + then if then else "")
    token_ids = reference_ids(tokenizer, family.rendered(*turns) + then)
    if tokenizer.adds_bos and token_ids[:1] != [tokenizer.bos_id]:
        assert tokenizer.bos_id is not None
        return [tokenizer.bos_id, *token_ids]
    return token_ids


# Ordinary conversations


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@settings(max_examples=40)
@given(texts=st.lists(plain_texts, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1))
def test_a_conversation_is_tokenised_as_llama_cpp_does(family: Family, texts: list[str]) -> None:
    turns = [("user" if i % 2 == 0 else "assistant", content) for i, content in enumerate(texts)]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert ids(family, *messages) == expected_ids(family, *turns)


@pytest.mark.parametrize("family", TAKING_SYSTEM, ids=str)
@settings(max_examples=25)
@given(instructions=plain_texts, content=plain_texts)
def test_system_text_is_tokenised_as_llama_cpp_does(family: Family, instructions: str, content: str) -> None:
    assert ids(family, user(content), system=instructions) == expected_ids(
        family, ("system", instructions), ("user", content)
    )


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@settings(max_examples=25)
@given(content=plain_texts, begun=plain_texts)
def test_a_prefill_is_tokenised_as_llama_cpp_does(family: Family, content: str, begun: str) -> None:
    begun = begun.rstrip()
    found_prompt = prompt(family, user(content), assistant(begun))
    assert found_prompt.token_ids == expected_ids(family, ("user", content), then=begun)
    assert found_prompt.parser_config.continues_text


def test_the_starters_prompt_in_full() -> None:
    expected = (
        "<|im_start|>system\nBe kind.\n\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\nHow are you?<|im_end|>\n"
        "<|im_start|>assistant\nI am"
    )
    messages = [user("Hello"), assistant("Hi"), user("How are you?"), assistant("I am")]
    instructions = [text("Be kind."), text("Be brief.")]
    assert ids(STARTER, *messages, system=instructions) == reference_ids(starter_tokenizer(), expected)


def test_a_model_without_a_template_continues_a_transcript() -> None:
    expected = "System: Be kind.\n\nUser: Hello\n\nAssistant: Hi\n\nUser: And?\n\nAssistant:"
    messages = [user("Hello"), assistant("Hi"), user("And?")]
    assert ids(WITHOUT_TEMPLATE, *messages, system="Be kind.") == reference_ids(starter_tokenizer(), expected)


@pytest.mark.parametrize(
    ("source", "bos_count"), [(CHATML, 1), ("{{ bos_token }}" + CHATML, 1), ("{{ bos_token * 2 }}" + CHATML, 2)]
)
def test_bos_is_added_where_the_model_wants_it_and_the_template_does_not(source: str, bos_count: int) -> None:
    tokenizer = mistral_tokenizer()
    token_ids = Renderer(tokenizer, source).render(parsed(conversation(user("hello")))).token_ids
    assert token_ids.count(tokenizer.special_tokens["<s>"]) == bos_count
    assert token_ids[0] == tokenizer.bos_id


def test_bos_is_not_added_where_the_model_does_not_want_it() -> None:
    tokenizer = byte_level_tokenizer()
    assert tokenizer.bos_id not in ids(BY_NAME["chatml"], user("hello"))


def test_space_beside_a_special_token_that_swallows_it_is_only_what_llama_cpp_takes_for_space() -> None:
    family = BY_NAME["zephyr"]
    assert any(phi_tokenizer().strips(i)[1] for i in phi_tokenizer().special_tokens.values())
    for content in ("\u00a0x", "\u3000x", "\x1cx", "\x85x", " \t\n\v\f\rx", "\u2028 x"):
        assert ids(family, user(content)) == expected_ids(family, ("user", content))


# One form for what clients write in several


@pytest.mark.parametrize("family", EVERY, ids=str)
@settings(max_examples=25)
@given(content=hostile_texts(STARTER.tokenizer.special_tokens))
def test_a_string_and_one_block_are_the_same(family: Family, content: str) -> None:
    marked = {**text(content), "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    strings = ids(
        family, user(content), assistant(content), user(content), assistant(content + "."), system=content
    )
    blocks = ids(
        family,
        user([marked]),
        assistant([text(content)]),
        user([marked]),
        assistant([text(content + ".")]),
        system=[marked],
    )
    assert strings == blocks


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_consecutive_messages_of_one_role_are_one(family: Family) -> None:
    apart = ids(family, user("a"), user("b"), assistant("c"), assistant(" d"), user("e"))
    assert apart == ids(family, user([text("a"), text("b")]), assistant([text("c"), text(" d")]), user("e"))
    assert apart == ids(family, user("a\n\nb"), assistant("c d"), user("e"))


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_consecutive_assistant_messages_at_the_end_are_one_prefill(family: Family) -> None:
    apart = prompt(family, user("a"), assistant("One,"), assistant(" two"))
    assert apart == prompt(family, user("a"), assistant([text("One,"), text(" two")]))
    assert apart == prompt(family, user("a"), assistant("One, two"))
    assert apart.parser_config.continues_text


ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.330.a1b; cc_entrypoint=cli;"


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_the_attribution_block_is_dropped(family: Family) -> None:
    without = ids(family, user("hello"), system=[text("Be kind.")])
    assert ids(family, user("hello"), system=[text(ATTRIBUTION), text("Be kind.")]) == without
    assert ids(family, user("hello"), system=[text(ATTRIBUTION)]) == ids(family, user("hello"))


def test_the_attribution_block_is_dropped_only_where_agents_put_it() -> None:
    assert ATTRIBUTION in text_of_prompt(STARTER, user("hello"), system=[text("Be kind."), text(ATTRIBUTION)])
    assert ATTRIBUTION in text_of_prompt(STARTER, user(ATTRIBUTION))


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_empty_system_text_is_none(family: Family) -> None:
    assert (
        ids(family, user("hello"), system="")
        == ids(family, user("hello"), system=[])
        == ids(family, user("hello"))
    )


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_a_system_message_with_only_settings_says_nothing(family: Family) -> None:
    settings_only = {**system([]), "output_config": {"effort": "low"}}
    with_it = ids(family, user("a"), settings_only, assistant("b"), user("c"), {**settings_only, "content": ""})
    assert with_it == ids(family, user("a"), assistant("b"), user("c"), output_config={"effort": "low"})


# System messages in mid-conversation


def test_who_has_a_place_for_late_system_messages() -> None:
    without = {"gemma", "mistral", "mistral-nemo", "ministral", "deepseek-3.1", "harmony", "minimax", "qwen-3.5"}
    assert {family.name for family in NOT_LATE} == without


@pytest.mark.parametrize("family", LATE, ids=str)
def test_a_late_system_message_stays_where_it_is(family: Family) -> None:
    turns = [("user", "first"), ("system", "late"), ("assistant", "second"), ("user", "third")]
    messages = [{"role": role, "content": content} for role, content in turns]
    if family.renderer.template.has_default_system:  # which a late one alone would take away
        turns[:2] = [("user", "first\n\n<system>\nlate\n</system>")]
    assert ids(family, *messages) == expected_ids(family, *turns)


@pytest.mark.parametrize("family", NOT_LATE, ids=str)
def test_a_late_system_message_without_a_place_becomes_a_marked_part_of_the_users_turn(family: Family) -> None:
    late = ids(family, user("first"), system("late"), assistant("second"), user("third"), system("last"))
    assert late == expected_ids(
        family,
        ("user", "first\n\n<system>\nlate\n</system>"),
        ("assistant", "second"),
        ("user", "third\n\n<system>\nlast\n</system>"),
    )


def test_first_system_text_without_a_place_becomes_a_marked_part_of_the_users_turn() -> None:
    expected = expected_ids(GEMMA, ("user", "<system>\nbe kind\n</system>\n\nhello"))
    assert ids(GEMMA, user("hello"), system="be kind") == expected


def test_first_system_text_with_a_place_stays_there() -> None:
    assert ids(MISTRAL, user("hello"), system="be kind") == expected_ids(
        MISTRAL, ("system", "be kind"), ("user", "hello")
    )


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_a_system_message_for_one_turn_is_not_read_after_it(family: Family) -> None:
    note = {**system("only now"), "clear_at": "next_user_message"}
    kept = {**note, "clear_at": "never"}
    during = ids(family, user("a"), note)
    assert during == ids(family, user("a"), kept) != ids(family, user("a"))
    assert ids(family, user("a"), note, assistant("b")) == ids(family, user("a"), kept, assistant("b"))
    later = ids(family, user("a"), note, assistant("b"), user("c"), {**note, "content": "and now"})
    assert later == ids(family, user("a"), assistant("b"), user("c"), system("and now"))
    results = [assistant([tool_use()]), user([tool_result("r")])]
    assert ids(family, user("a"), note, *results) == ids(family, user("a"), *results)


# Prefill


@pytest.mark.parametrize("family", EVERY, ids=str)
@settings(max_examples=25)
@given(content=hostile_texts(STARTER.tokenizer.special_tokens), begun=words)
def test_a_prompt_with_prefill_goes_on_where_the_prompt_without_ends(
    family: Family, content: str, begun: str
) -> None:
    without = prompt(family, user(content))
    prefilled = prompt(family, user(content), assistant(begun))
    assert not without.parser_config.continues_text
    assert prefilled.parser_config.continues_text
    after = (family.before_prefill or _after(family)) + begun
    assert text_of_prompt(family, user(content), assistant(begun)) == text_of_prompt(family, user(content)) + after
    if family.name not in (
        "without-template",
        "qwen-3-untagged",
    ):  # whose prompts end in ordinary tokens that the prefill may join
        shared = len(without.token_ids)
        assert prefilled.token_ids[:shared] == without.token_ids


def _after(family: Family) -> str:
    """What the tokenizer puts between the prompt's last token and a text."""
    follows_special = ids(family, user("x"))[-1] in family.tokenizer.special_tokens.values()
    return " " if follows_special and family.tokenizer.marks_word_starts else ""


@pytest.mark.parametrize("family", CALLING, ids=str)
def test_an_answer_goes_on_as_text_whatever_tools_there_are(family: Family) -> None:
    tools = [tool(input_schema=schema({"q": {"type": "string"}}))]
    asked = {"tools": tools, "tool_choice": {"type": "any"}}
    begun = prompt(family, user("Answer."), assistant("It"), **asked)
    assert begun.grammar is not None
    guide = LLMatcher(grammar_tokenizer(family.tokenizer), begun.grammar)
    text_ids = family.tokenizer.encode(' is {"so', continues=True)
    assert guide.try_consume_tokens(text_ids) == len(text_ids)
    form = family.renderer.template.format
    # A call may follow, and here has to, where calls need no beginning of their own.
    assert guide.is_accepting() == (form.is_whole_answer or form.text_openings != ())


@pytest.mark.parametrize("family", EVERY, ids=str)
@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_prefill_is_none(family: Family, empty: object) -> None:
    assert prompt(family, user("a"), assistant(empty)) == prompt(family, user("a"))


@pytest.mark.parametrize("family", EVERY, ids=str)
@pytest.mark.parametrize("ending", [" ", "\n", "\t", "\u3000", " \n "])
def test_a_prefill_that_ends_with_space_is_refused(family: Family, ending: str) -> None:
    with pytest.raises(InvalidRequestError, match="final assistant content cannot end with trailing whitespace"):
        prompt(family, user("a"), assistant("b" + ending))
    assert ids(family, user("a"), assistant("b" + ending), user("c"))  # not the end: it is history


# Refusals


USERS = [
    text("hello"),
    document("body"),
    document([text("a")], title="t"),
    found(),
    {"type": "image", "source": {"type": "url", "url": "u"}},
    document("body") | {"source": {"type": "base64", "media_type": "application/pdf", "data": ""}},
    {"type": "container_upload", "file_id": "f"},
]
ASSISTANTS = [
    text("hello"),
    {"type": "thinking", "thinking": "t", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "compaction", "content": "c"},
    {"type": "compaction", "content": None},
    {"type": "fallback"},
    {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"title": "t"}]},
    {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []},
]
CALL = tool_use(input={"a": [1, None, "x"]})
RESULTS = [tool_result("r"), tool_result([text("r"), reference("search")]), tool_result([document("body")])]


def any_of(blocks: list[dict[str, Any]], at_least: int = 0) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Blocks that every model reads, or also those that few do."""
    return st.lists(st.sampled_from(blocks[:2]), min_size=at_least, max_size=3) | st.lists(
        st.sampled_from(blocks), min_size=at_least, max_size=3
    )


said_by_users = st.builds(user, any_of(USERS, 1) | words).map(lambda message: [message])
said_by_systems = st.builds(lambda before, late: [user(before), system(late)], words, words)
said_by_assistants = st.builds(assistant, any_of(ASSISTANTS, 1) | words).map(lambda message: [message])
called = st.builds(
    lambda before, result, after: [assistant([*before, CALL]), user([result, *after])],
    any_of(ASSISTANTS),
    st.sampled_from(RESULTS),
    any_of(USERS),
)
spoken = st.lists(said_by_users | said_by_systems | said_by_assistants, max_size=2)
messages_of_any_kind = (
    st.tuples(spoken, called.map(lambda messages: [messages]) | st.just([]), spoken)
    .map(lambda parts: [message for part in parts for messages in part for message in messages])
    .filter(bool)
)


@pytest.mark.parametrize("family", EVERY, ids=str)
@settings(max_examples=60)
@given(messages=messages_of_any_kind, instructions=st.none() | st.text(max_size=5))
def test_any_conversation_becomes_a_prompt_or_is_refused(
    family: Family, messages: list[dict[str, Any]], instructions: str | None
) -> None:
    request = parsed(conversation(*messages, system=instructions))
    try:
        token_ids = family.renderer.render(request).token_ids
    except InvalidRequestError as error:
        assert error.message.startswith("messages")
        return
    assert all(0 <= token_id < family.tokenizer.size for token_id in token_ids)
    assert family.renderer.render(request).token_ids == token_ids


def test_what_the_template_says_is_passed_on() -> None:
    source = "{% if messages | length == 3 %}{{ raise_exception('Three is a crowd.') }}{% endif %}ok"
    with pytest.raises(InvalidRequestError) as error:
        Renderer(starter_tokenizer(), source).render(parsed(conversation(user("a"), assistant("b"), user("c"))))
    assert error.value.message == (
        "messages: this model's chat template refuses the conversation: Three is a crowd."
    )


@pytest.mark.parametrize(
    "stumble",
    [
        "raise_exception('no')",
        "messages[0].content.missing.deeper",
        "1 // 0",
        "messages[0].content + 1",
        "messages[0].content.index('nowhere')",
        "range(200000) | list",
        "''.__class__.__mro__",
        "[1, 'a'] | sort",
        "strftime_now(1)",
        "messages[0].content.format()",
    ],
)
def test_whatever_a_template_stumbles_over_is_a_refusal(stumble: str) -> None:
    source = "{% if messages[0].content == 'stumble {0}' %}{{ " + stumble + " }}{% endif %}ok"
    renderer = Renderer(starter_tokenizer(), source)
    with pytest.raises(
        InvalidRequestError, match=r"^messages: this model's chat template refuses the conversation"
    ):
        renderer.render(parsed(conversation(user("stumble {0}"))))
    assert renderer.render(parsed(conversation(user("go on")))).token_ids == reference_ids(
        starter_tokenizer(), "ok"
    )


def test_the_conversation_does_not_reach_the_next_one() -> None:
    """Templates cannot keep or change what they are given."""
    source = "{% if messages[0].content == 'hello' %}{% set _ = messages.append(messages[0]) %}{% endif %}ok"
    with pytest.raises(InvalidRequestError, match="append"):
        Renderer(starter_tokenizer(), source).render(parsed(conversation(user("hello"))))


@given(content=st.text(min_size=1))
def test_every_text_can_be_rendered(content: str) -> None:
    for family in (STARTER, LLAMA_3, GEMMA):
        assert ids(family, user(content))


# Reasoning


@pytest.mark.parametrize("family", [one for one in FAMILIES if one.renderer.template.thinking], ids=str)
def test_reasoning_between_tools_is_asked_for_after_a_tools_result_alone(family: Family) -> None:
    def asked(kind: str, *messages: dict[str, Any]) -> tuple[list[int], str | None]:
        found = prompt(family, *messages, tools=[tool()], thinking={"type": kind})
        return found.token_ids, found.grammar

    called = [user([text("hi")]), assistant([tool_use()]), user([tool_result("seen")])]
    later = [*called, assistant([text("It is there.")]), user([text("thanks")])]
    for first in ([user([text("hi")])], later):
        assert asked("between_tools", *first) == asked("disabled", *first) != asked("adaptive", *first)
    assert asked("between_tools", *called) == asked("adaptive", *called) != asked("disabled", *called)
