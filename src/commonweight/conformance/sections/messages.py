"""Requests and answers: sections 5, 6 and 8."""

import json

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import (
    COUNTING,
    ENDS_SOON,
    GREETING,
    LETTER_PAIRS,
    STORY,
    Json,
    assistant,
    result,
    system,
    text,
    tool_use,
    user,
)
from commonweight.conformance.shapes import check_error, check_message, join_text
from commonweight.conformance.target import NEW_VERSION, Target, check_accepted
from commonweight.conformance.toolbox import WEATHER

AGENTS_BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24"
)
BILLING = "x-anthropic-billing-header: cc_version=2.1.330.{}; cc_entrypoint=cli;"


@check()
async def the_shape_of_a_message(target: Target) -> None:
    """An answer has all fields of a `Message`, which agree with each other (§8)."""
    check_message(await target.create_message())


@check()
async def no_null_in_place_of_citations(target: Target) -> None:
    """A text without citations has no key for them, streamed or not: strict clients refuse a `null` (§8, §10)."""
    text_blocks = [block for block in (await target.create_message())["content"] if block["type"] == "text"]
    starts = [event["content_block"] for event in (await target.stream()).events if "content_block" in event]
    for block in (*text_blocks, *starts):
        assert block.get("citations", []) is not None, f"a block with a null: {block}"


@check()
async def whole_numbers_with_a_point(target: Target) -> None:
    """JSON knows only numbers: `16.0` and `1.6e1` are integers, and `16.5` is none (§5)."""
    for written in (b"16.0", b"1.6e1"):
        body = json.dumps(target.request(max_tokens=987654)).encode().replace(b"987654", written)
        check_accepted(await target.post(body))
    check_error(await target.post(target.request(max_tokens=16.5)), 400, "invalid_request_error")


@check()
async def numbers_beyond_64_bits(target: Target) -> None:
    """No number is too large for an error in the API's shape (§9.1)."""
    for number in (2**63, 2**64, 10**300):
        check_error(await target.post(target.request(max_tokens=number)), 400, "invalid_request_error")


@check()
async def ids_of_messages(target: Target) -> None:
    """The id of a message begins with `msg_`, and is never the same (§8)."""
    ids = [(await target.create_message(max_tokens=1))["id"] for _ in range(2)]
    assert all(id_.startswith("msg_") for id_ in ids), f"the ids are {ids}"
    assert len(set(ids)) == len(ids), f"the same id twice: {ids[0]}"


@check()
async def the_sdk_reads_it(target: Target) -> None:
    """The official SDK, validating strictly, reads an answer as its own type (§8)."""
    message = await target.sdk.messages.create(**target.request(max_tokens=8))
    assert message.usage.output_tokens <= 8, f"{message.usage.output_tokens} tokens where 8 were allowed"


@check()
async def any_model_name_is_echoed(target: Target) -> None:
    """Whatever model a client asks for, the served one answers under that name (§1.8)."""
    for name in ("claude-opus-5-5", "qwen3-coder"):
        model = (await target.create_message(model=name, max_tokens=1))["model"]
        assert model == name, f"asked for {name!r}, answered as {model!r}"


@check()
async def a_string_is_one_text_block(target: Target) -> None:
    """`"x"` and `[{"type":"text","text":"x"}]` are the same, in messages and in `system` (§1.7)."""
    as_strings = await target.count_prompt_tokens(system="Be brief.", messages=[user("Say hello.")])
    as_blocks = await target.count_prompt_tokens(system=[text("Be brief.")], messages=[user([text("Say hello.")])])
    assert as_strings == as_blocks, f"{as_strings} tokens as strings and {as_blocks} as blocks"


@check()
async def the_system_prompt_is_read(target: Target) -> None:
    """A longer `system` is a longer prompt, and so is a further block of it (§5)."""
    short, long = (
        await target.count_prompt_tokens(system="Be brief."),
        await target.count_prompt_tokens(system="Be brief. " + "Be kind. " * 9),
    )
    assert long > short, f"{long} tokens with 9 more sentences, {short} without"
    blocks = await target.count_prompt_tokens(system=[text("Be brief."), text("Be kind.")])
    assert blocks > short, f"{blocks} tokens with two blocks, {short} with one"


@check()
async def turns_of_the_same_role(target: Target) -> None:
    """Consecutive messages of one role are one turn, not an error (§5)."""
    await target.create_message(
        messages=[user("Say hello."), user("And goodbye."), assistant("Hello."), assistant("Bye."), user("Again.")]
    )


@check()
async def system_messages_in_the_conversation(target: Target) -> None:
    """A message may have the role `system`, as a string or blocks, and the model reads it (§1.4, §5)."""
    bare = await target.count_prompt_tokens()
    for content in ("You are in a terminal.", [text("You are in a terminal.")]):
        size = await target.count_prompt_tokens(messages=[*GREETING, system(content)])
        assert size > bare, f"{size} tokens with a system message, {bare} without"
    await target.create_message(messages=[*GREETING, system("Be brief."), assistant("Hello."), user("Again.")])


@check()
async def settings_in_a_system_message(target: Target) -> None:
    """A system message may carry `output_config` and `clear_at`, and nothing else (§5)."""
    effort = {"effort": "low"}
    await target.create_message(messages=[*GREETING, {**system("Be brief."), "output_config": effort}])
    await target.create_message(messages=[*GREETING, {**system("Be brief."), "clear_at": "next_user_message"}])
    await target.create_message(messages=[*GREETING, {**system([]), "output_config": effort}])


@check()
async def the_attribution_block_is_dropped(target: Target) -> None:
    """A first system block that starts with `x-anthropic-billing-header` is not part of the prompt (§1.6)."""
    bare = await target.count_prompt_tokens(system=[text("Be brief.")])
    size = await target.count_prompt_tokens(system=[text(BILLING.format("a1b")), text("Be brief.")])
    assert size == bare, f"{size} tokens with the block, {bare} without"


@check()
async def a_coding_agents_request(target: Target) -> None:
    """All that a coding agent sends at once is accepted (§13)."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    await target.with_betas(AGENTS_BETAS).create_message(
        max_tokens=32000,
        stop_sequences=ENDS_SOON,
        system=[text(BILLING.format("f00")), text("You are an agent.", **mark)],
        messages=[
            user([text("<system-reminder>Be brief.</system-reminder>"), text("Say hello.", **mark)]),
            {**system("You are in a terminal."), "output_config": {"effort": "medium"}},
        ],
        tools=[WEATHER, {**WEATHER, "name": "mcp__maps__find_a_place", "defer_loading": True}],
        thinking={"type": "adaptive", "display": "omitted"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        metadata={"user_id": "{}"},
        safeguards=[{"type": "dangerous_tool_use"}],
    )


@check()
async def every_block_in_the_history(target: Target) -> None:
    """All block types of a history are accepted, those of servers that offered more included (§6, §16)."""
    search: Json = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    histories: list[list[Json]] = [
        [tool_use(), text("Wait.")],
        [{"type": "thinking", "thinking": "Hm.", "signature": "of another server"}, text("Well.")],
        [{"type": "redacted_thinking", "data": "c2VjcmV0"}, text("Well.")],
        [{"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}, search],
        [
            {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "find", "server_name": "maps", "input": {}},
            {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": False, "content": [text("x")]},
        ],
        [{"type": "mcp_tool_listing", "mcp_server_name": "maps", "tools": []}, text("Well.")],
        [{"type": "compaction", "content": "They said hello."}, text("Well.")],
        [{"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}, text("Well.")],
    ]
    for blocks in histories:
        answer = [result()] if blocks[0]["type"] == "tool_use" else [text("Go on.")]
        body = target.request(max_tokens=1, messages=[*GREETING, assistant(blocks), user(answer)])
        response = await target.post(body)
        assert response.status_code == 200, f"{blocks[0]['type']} is refused: {response.text[:200]}"


@check()
async def the_sdk_holds_a_conversation(target: Target) -> None:
    """Answers are returned as the SDK holds them, turn after turn, and each prompt holds the last (§6)."""
    messages = [user("Name a colour.")]
    length = 0
    for _ in range(3):
        message = await target.sdk.messages.create(**target.request(max_tokens=8, messages=messages))
        usage = message.usage
        size = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
        assert size > length, f"a prompt of {size} tokens after one of {length}"
        length = size
        said = [block.model_dump(mode="json", exclude_none=True) for block in message.content]
        messages += [assistant(said or "Blue."), user("Another one.")]


@check()
async def a_last_assistant_message_is_continued(target: Target) -> None:
    """An answer continues the assistant's last message, and does not repeat it (§5)."""
    begun = "Certainly. The last word of this line, number 4711, is heliotrope, and"
    message = await target.create_message(messages=[*GREETING, assistant(begun)])
    said = join_text(message)
    assert not said.lstrip().startswith(begun), f"the answer repeats what was begun: {said!r}"
    size, bare = (
        await target.count_prompt_tokens(messages=[*GREETING, assistant(begun)]),
        await target.count_prompt_tokens(),
    )
    assert size > bare, f"the begun answer is no part of the prompt: {size} tokens with it, {bare} without"


@check()
async def stop_sequences(target: Target) -> None:
    """The answer ends before a stop sequence, which is reported (§5)."""
    message = await target.create_message(max_tokens=64, messages=STORY, stop_sequences=ENDS_SOON)
    check_stopped(message, ENDS_SOON)


@check()
async def stop_sequences_in_a_stream(target: Target) -> None:
    """Text that may become a stop sequence is held back until it is known not to (§5)."""
    stream = await target.stream(max_tokens=64, messages=STORY, stop_sequences=LETTER_PAIRS)
    check_stopped(stream.message, LETTER_PAIRS)


@check()
async def max_tokens_ends_the_answer(target: Target) -> None:
    """After `max_tokens` the answer ends, and says that this is why (§8)."""
    message = await target.create_message(max_tokens=6, messages=COUNTING, temperature=0)
    usage = message["usage"]
    assert message["stop_reason"] == "max_tokens", f"stop_reason is {message['stop_reason']!r}"
    assert usage["output_tokens"] == 6, f"{usage['output_tokens']} output tokens where 6 were allowed"


@check()
async def no_tokens_wanted(target: Target) -> None:
    """`max_tokens: 0` reads the prompt and answers nothing (§5)."""
    message = await target.create_message(max_tokens=0)
    assert message["content"] == [], f"content is {message['content']}"
    assert message["usage"]["output_tokens"] == 0, f"{message['usage']['output_tokens']} output tokens"


@check()
async def more_tokens_wanted_than_there_are(target: Target) -> None:
    """More `max_tokens` than fit are capped silently, or refused in words that agents act on (§1.12, §9.4)."""
    response = await target.post(target.request(max_tokens=128_000, stop_sequences=ENDS_SOON))
    if response.status_code != 200:
        message = check_error(response, 400, "invalid_request_error")
        known = "which is the maximum allowed number", "exceed context limit"
        assert any(words in message for words in known), f"refused in other words: {message}"


@check()
async def sampling_settings(target: Target) -> None:
    """`temperature`, `top_p` and `top_k` are accepted under 2023-06-01 (§5)."""
    await target.create_message(temperature=1.0, top_p=0.9, top_k=40)
    await target.create_message(temperature=0)


@check()
async def temperature_in_the_new_version(target: Target) -> None:
    """Under 2026-10-21 `temperature` is accepted, for LangChain, or refused in the API's words (§1.3)."""
    response = await target.post(
        target.request(temperature=0.5), headers=target.headers | {"anthropic-version": NEW_VERSION}
    )
    if response.status_code != 200:
        message = check_error(response, 400, "invalid_request_error")
        assert message == "temperature: Extra inputs are not permitted", message


@check()
async def the_likeliest_answer(target: Target) -> None:
    """At temperature 0, and with one choice, answers are alike (§5)."""
    answers = [
        join_text(await target.create_message(max_tokens=4, messages=COUNTING, **settings))
        for settings in ({"temperature": 0}, {"temperature": 1, "top_k": 1}, {"temperature": 0})
    ]
    # Two of three: a tie between tokens may fall either way with the shape of a batch.
    assert len(set(answers)) <= 2, f"three different answers: {answers}"


@check()
async def text_of_any_script(target: Target) -> None:
    """Text in any script, with emoji and controls, is read as UTF-8 (§6)."""
    await target.create_message(max_tokens=4, messages=[user("Grüße, 你好, שלום, 👩‍👩‍👧‍👦, \u0000 \u202e \ufffe")])


@check()
async def cache_control_anywhere(target: Target) -> None:
    """`cache_control` is accepted wherever it may stand, and is no part of the prompt (§1.7, §5)."""
    mark = {"cache_control": {"type": "ephemeral"}}
    bare = await target.count_prompt_tokens(
        system=[text("Be brief.")], tools=[WEATHER], messages=[user([text("Say hello.")])]
    )
    size = await target.count_prompt_tokens(
        system=[text("Be brief.", **mark)],
        tools=[WEATHER | mark],
        messages=[user([text("Say hello.", **mark)])],
        **mark,
    )
    assert size == bare, f"{size} tokens with cache_control, {bare} without"


def check_stopped(message: Json, stops: list[str]) -> None:
    """It ended at one of the stop sequences, with none of them in its text."""
    reason, sequence, said = message["stop_reason"], message["stop_sequence"], join_text(message)
    assert reason == "stop_sequence", f"stop_reason is {reason!r} after {said!r}"
    assert sequence in stops, f"stop_sequence is {sequence!r}"
    seen = [stop for stop in stops if stop in said]
    assert not seen, f"the text holds {seen}: {said!r}"
