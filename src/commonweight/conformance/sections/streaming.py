"""Streams: section 10. Every check reads its stream with the whole grammar, whatever else it looks at."""

import anthropic

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import COUNTING, ENDS_SOON, GREETING, STORY, Json, assistant
from commonweight.conformance.grammar import fold
from commonweight.conformance.shapes import check_error, check_message, join_text, prompt_tokens
from commonweight.conformance.target import Target

WIRE_EVENTS = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
}


@check()
async def a_plain_stream(target: Target) -> None:
    """A stream keeps to the grammar: named frames, one block after the other, `message_stop` last (§8, §10)."""
    check_message((await target.stream(messages=STORY, max_tokens=24)).message)


@check()
async def a_stream_cut_by_max_tokens(target: Target) -> None:
    """The last `message_delta` says that `max_tokens` ended the answer, and how many there were (§8, §10)."""
    stream = await target.stream(max_tokens=6, messages=COUNTING, temperature=0)
    assert stream.message["stop_reason"] == "max_tokens", f"stop_reason is {stream.message['stop_reason']!r}"
    assert stream.last_usage["output_tokens"] == 6, f"{stream.last_usage['output_tokens']} output tokens, not 6"


@check()
async def a_stream_that_continues(target: Target) -> None:
    """A stream that continues the assistant's message keeps to the grammar (§5, §10)."""
    await target.stream(messages=[*COUNTING, assistant("1, 2, 3,")])


@check()
async def an_empty_stream(target: Target) -> None:
    """A stream of no tokens is still a whole message (§5, §10)."""
    stream = await target.stream(max_tokens=0)
    assert stream.message["content"] == [], f"content is {stream.message['content']}"


@check()
async def text_comes_in_pieces(target: Target) -> None:
    """A text of many tokens comes in more than one delta (§10)."""
    stream = await target.stream(max_tokens=24, messages=COUNTING, temperature=0)
    pieces = len(stream.deltas("text_delta"))
    assert pieces > 1, f"{stream.last_usage['output_tokens']} tokens came in {pieces} delta(s)"


@check()
async def a_stream_tells_what_a_message_says(target: Target) -> None:
    """Streamed or not, an answer has the same fields, prompt tokens and ending (§8, §10)."""
    arguments: Json = {"max_tokens": 4, "messages": COUNTING, "temperature": 0}
    streamed, message = (await target.stream(**arguments)).message, await target.create_message(**arguments)
    assert streamed.keys() == message.keys(), f"not in both: {sorted(streamed.keys() ^ message.keys())}"
    for what, told in (
        ("stop_reason", [streamed["stop_reason"], message["stop_reason"]]),
        ("prompt tokens", [prompt_tokens(streamed["usage"]), prompt_tokens(message["usage"])]),
        ("output tokens", [streamed["usage"]["output_tokens"], message["usage"]["output_tokens"]]),
        ("blocks", [[block["type"] for block in whole["content"]] for whole in (streamed, message)]),
    ):
        assert told[0] == told[1], f"{what}: {told[0]} streamed and {told[1]} not"


@check()
async def usage_is_cumulative(target: Target) -> None:
    """The last `message_delta` repeats the prompt's tokens, which LangChain reads only there (§1.14, §10)."""
    stream = await target.stream()
    for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"):
        at_first, at_last = stream.first_usage.get(name), stream.last_usage.get(name)
        assert at_last is not None, f"message_delta does not say {name}"
        assert at_first == at_last, f"{name} is {at_first} in message_start and {at_last} in message_delta"


@check()
async def the_sdk_adds_it_up(target: Target) -> None:
    """What the official SDK makes of a stream is what its events say (§10)."""
    arguments = target.request(max_tokens=12, messages=STORY)
    async with target.sdk.messages.stream(**arguments) as stream:
        # It gives the events of the wire, and some of its own making between them.
        raw = [
            event.model_dump(mode="json", warnings=False) async for event in stream if event.type in WIRE_EVENTS
        ]
        final = await stream.get_final_message()
    told = fold(raw)
    for name in ("id", "model", "stop_reason", "stop_sequence"):
        made = getattr(final, name)
        assert made == told[name], f"{name}: {made!r} by the SDK, {told[name]!r} by the events"
    text = "".join(block.text for block in final.content if isinstance(block, anthropic.types.TextBlock))
    assert text == join_text(told), f"text: {text!r} by the SDK, {join_text(told)!r} by the events"


@check()
async def the_headers_of_a_stream(target: Target) -> None:
    """A stream is `text/event-stream`, is not cached, and is not compressed (§3, §4)."""
    body = target.request(stream=True)
    response = await target.post(body, headers=target.headers | {"accept-encoding": "gzip, deflate, br, zstd"})
    kind = response.headers.get("content-type", "")
    assert kind.startswith("text/event-stream"), f"content-type is {kind!r}"
    assert "no-cache" in response.headers.get("cache-control", ""), "no cache-control: no-cache"
    assert response.headers.get("content-encoding", "identity") == "identity", "the stream is compressed"


@check()
async def an_error_before_the_stream(target: Target) -> None:
    """An invalid request is refused with status and body, also where a stream was asked for (§9.1)."""
    response = await target.post(target.request(stream=True, messages=[]))
    check_error(response, 400, "invalid_request_error")
    kind = response.headers.get("content-type", "")
    assert kind.startswith("application/json"), f"content-type is {kind!r}"


@check()
async def a_stream_that_nobody_reads(target: Target) -> None:
    """A client that leaves in the middle of a stream does no harm (§10)."""
    body = target.request(stream=True, max_tokens=2000, messages=STORY)
    async with target.http.stream("POST", "/v1/messages", json=body, headers=target.headers) as response:
        async for line in response.aiter_lines():
            if "content_block_delta" in line:
                break
    await target.create_message(max_tokens=64, stop_sequences=ENDS_SOON, messages=GREETING)
