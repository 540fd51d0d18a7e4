"""Errors: section 9.1."""

from collections.abc import Awaitable, Callable

import anthropic

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import GREETING, Json, assistant, text, user
from commonweight.conformance.shapes import check_error
from commonweight.conformance.target import COUNT, Target

WRONG: tuple[tuple[Json, str], ...] = (
    ({"model": None}, "model"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": "10"}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
    ({"messages": [user([{"type": "hologram"}])]}, "messages.0.content.0"),
    ({"messages": [user([{"type": "text"}])]}, "messages.0.content.0"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
    ({"system": 3}, "system"),
    ({"stream": "yes"}, "stream"),
    ({"temperature": 1.5}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"stop_sequences": "x"}, "stop_sequences"),
    ({"tools": "x"}, "tools"),
    ({"thinking": "yes"}, "thinking"),
    ({"output_config": {"effort": 3}}, "output_config"),
)
"""Changes that make a request invalid, and the place that the refusal has to name."""


@check()
async def the_shape_of_an_error(target: Target) -> None:
    """An error has `type`, `error{type,message}` and the `request_id` of its header (§9.1)."""
    for response in (
        await target.post(target.request(max_tokens=-1)),
        await target.get("/v1/models/no-such-model"),
    ):
        body = response.json()
        assert body.get("type") == "error", f"type is {body.get('type')!r}"
        assert {"type", "message"} <= body.get("error", {}).keys(), f"error is {body.get('error')!r}"
        id_ = response.headers.get("request-id")
        assert body.get("request_id") == id_, f"request_id is {body.get('request_id')!r}, the header says {id_!r}"


@check()
async def invalid_fields_are_named(target: Target) -> None:
    """A refusal begins with the path of what is wrong, such as `messages.0.content` (§9.1)."""
    for changes, place in WRONG:
        refusal = await target.read_refusal(**changes)
        assert refusal.startswith(place), f"{changes} is refused for: {refusal}"


@check()
async def missing_fields_are_named(target: Target) -> None:
    """What is missing is named: `max_tokens: Field required` (§9.1)."""
    whole = target.request()
    for field in ("model", "max_tokens", "messages"):
        body = {name: value for name, value in whole.items() if name != field}
        refusal = check_error(await target.post(body), 400, "invalid_request_error")
        assert refusal == f"{field}: Field required", f"without {field} it is refused for: {refusal}"


@check()
async def empty_messages(target: Target) -> None:
    """Only a last assistant message may be empty, and no text block (§5)."""
    for content in ("", [], [text("")]):
        refusal = await target.read_refusal(messages=[user(content), *GREETING])
        assert "messages" in refusal, f"an empty message is refused for: {refusal}"
    await target.create_message(messages=[*GREETING, assistant("")])


@check()
async def more_messages_than_are_allowed(target: Target) -> None:
    """A conversation has at most 100,000 messages (§5)."""
    refusal = await target.read_refusal(messages=GREETING * 100_001)
    assert refusal.startswith("messages"), f"refused for: {refusal}"


@check()
async def a_begun_answer_that_ends_in_space(target: Target) -> None:
    """A begun answer must not end in white space (§5)."""
    refusal = await target.read_refusal(messages=[*GREETING, assistant("Hello ")])
    assert "final assistant content cannot end with trailing whitespace" in refusal, f"refused for: {refusal}"


@check()
async def blank_stop_sequences(target: Target) -> None:
    """A stop sequence must hold more than white space (§5)."""
    refusal = await target.read_refusal(stop_sequences=[" "])
    assert refusal.startswith("stop_sequences"), f"refused for: {refusal}"


@check()
async def bodies_that_are_no_request(target: Target) -> None:
    """What is no JSON, no UTF-8 or no object is refused with 400, never a failure (§9.1)."""
    bodies = (
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b'{"max_tokens": NaN}',
        b"[" * 100_000,
    )
    for body in bodies:
        check_error(await target.post(body), 400, "invalid_request_error")


@check()
async def no_value_makes_it_fail(target: Target) -> None:
    """Whatever stands in a field, the answer is a message or a 400, never a failure (§9.1)."""
    fields = (
        "model",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "stop_sequences",
        "metadata",
        "output_config",
        "context_management",
        "cache_control",
        "top_k",
        "mcp_servers",
        "container",
    )
    values: tuple[object, ...] = (
        7,
        1e308,
        10**30,
        "x" * 1000,
        True,
        [[]],
        [{}],
        {},
        {"type": "x"},
        [None],
        "\x00",
    )
    for field in fields:
        for value in values:
            response = await target.post(target.request(max_tokens=1) | {field: value})
            assert response.status_code in (200, 400), (
                f"HTTP {response.status_code} for {field} {str(value)[:40]!r}"
            )


@check()
async def the_sdk_raises_its_own(target: Target) -> None:
    """Errors become the exceptions of the official SDK, with message and request id (§9.1)."""
    calls: list[tuple[type[anthropic.APIStatusError], Callable[[], Awaitable[object]]]] = [
        (anthropic.BadRequestError, lambda: target.sdk.messages.create(**target.request(messages=[]))),
        (anthropic.NotFoundError, lambda: target.sdk.models.retrieve("no-such-model")),
    ]
    if target.key is not None:
        stranger = target.sdk.with_options(api_key="sk-wrong")
        calls.append((anthropic.AuthenticationError, lambda: stranger.messages.create(**target.request())))
    for kind, call in calls:
        try:
            await call()
        except kind as error:
            assert error.request_id, f"{kind.__name__} without a request id"
        else:
            raise AssertionError(f"no {kind.__name__}")


@check()
async def errors_while_counting(target: Target) -> None:
    """Counting refuses in the same shape and words (§9.1)."""
    for changes, place in (({"messages": []}, "messages"), ({"system": 3}, "system")):
        refusal = await target.read_refusal(COUNT, **changes)
        assert refusal.startswith(place), f"{changes} is refused for: {refusal}"
