"""Thinking: `thinking` and `effort` of section 5, their blocks in sections 8 and 10."""

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import ENDS_SOON, GREETING, Json, assistant, user
from commonweight.conformance.grammar import Stream
from commonweight.conformance.shapes import check_error
from commonweight.conformance.target import Target

BUDGET: Json = {"type": "enabled", "budget_tokens": 1024}
MAX_TOKENS = 1280
"""Tokens for a budget and an answer, which the stop sequences keep short."""


@check()
async def adaptive_thinking(target: Target) -> None:
    """`adaptive` is accepted, or refused in the words that make agents ask for `enabled` (§5, §9.4)."""
    response = await target.post(request(target, {"type": "adaptive"}))
    if response.status_code != 200:
        message = check_error(response, 400, "invalid_request_error")
        assert "adaptive thinking is not supported on this model" in message, f"refused in other words: {message}"


@check()
async def thinking_with_a_budget(target: Target) -> None:
    """`enabled` is never refused: agents have nothing to fall back to (§9.4)."""
    await think(target, BUDGET)


@check()
async def thinking_switched_off(target: Target) -> None:
    """With `disabled`, and without asking, there is no thinking block (§5)."""
    for more in ({}, {"thinking": {"type": "disabled"}}):
        message = await target.create_message(**more, max_tokens=64, stop_sequences=ENDS_SOON)
        assert not thoughts(message), "a thinking block that nobody asked for"


@check()
async def thinking_between_tools(target: Target) -> None:
    """`between_tools` is accepted (§5)."""
    await think(target, {"type": "between_tools"})


@check()
async def every_display(target: Target) -> None:
    """Each `display` is accepted (§5)."""
    for display in ("summarized", "omitted"):
        await think(target, BUDGET | {"display": display})


@check()
async def every_effort(target: Target) -> None:
    """Each `effort` is accepted, whether or not the model has any use for it (§5)."""
    for effort in ("low", "medium", "high", "xhigh", "max"):
        await target.create_message(output_config={"effort": effort}, max_tokens=1)


@check()
async def settings_that_cannot_be(target: Target) -> None:
    """A budget below 1024 or not below `max_tokens`, and unknown kinds, are refused by name (§5)."""
    for setting in (
        {"type": "enabled", "budget_tokens": 1023},
        {"type": "enabled", "budget_tokens": MAX_TOKENS},
        {"type": "enabled"},
        {"type": "sometimes"},
        BUDGET | {"display": "sung"},
    ):
        refusal = await target.read_refusal(thinking=setting, max_tokens=MAX_TOKENS)
        assert "thinking" in refusal or "budget_tokens" in refusal, f"{setting} is refused for: {refusal}"
    refusal = await target.read_refusal(output_config={"effort": "heroic"})
    assert "effort" in refusal, f"an unknown effort is refused for: {refusal}"


@check(lacks="thinking")
async def models_that_do_not_reason(target: Target) -> None:
    """A model without reasoning answers without a thinking block, and without an error (§5)."""
    message = await think(target, BUDGET)
    assert not thoughts(message), f"a thinking block of a model that declares it cannot: {thoughts(message)}"


@check(needs="thinking")
async def thinking_comes_first(target: Target) -> None:
    """Reasoning is a thinking block with a signature before the answer, and its tokens are counted (§8)."""
    message = await think(target, BUDGET)
    assert thoughts(message), f"no thinking block, but {[block['type'] for block in message['content']]}"
    first = message["content"][0]
    assert first["type"] == "thinking", f"the first block is {first['type']}"
    assert first["thinking"] and first.get("signature"), "the thinking or its signature is empty"
    spent = (message["usage"].get("output_tokens_details") or {}).get("thinking_tokens")
    assert spent, f"output_tokens_details.thinking_tokens is {spent!r}"
    assert spent <= message["usage"]["output_tokens"], "more thinking tokens than output tokens"


@check(needs="thinking")
async def streamed_thinking(target: Target) -> None:
    """Thinking comes in deltas, and its signature in one of its own, last (§10)."""
    stream = await stream_thinking(target, BUDGET)
    assert stream.deltas("thinking_delta"), "no thinking_delta"
    signatures = stream.deltas("signature_delta")
    assert len(signatures) == len(thoughts(stream.message)), f"{len(signatures)} signature deltas"


@check(needs="thinking")
async def omitted_thinking(target: Target) -> None:
    """With `omitted` the text is empty and the signature is there; in a stream it comes alone (§1.10, §10)."""
    omitted = BUDGET | {"display": "omitted"}
    for message in (await think(target, omitted), (stream := await stream_thinking(target, omitted)).message):
        assert thoughts(message), "no thinking block"
        for block in thoughts(message):
            assert block["thinking"] == "", f"the text is {block['thinking']!r}"
            assert block.get("signature"), "the signature is empty"
    assert not stream.deltas("thinking_delta"), "thinking deltas of omitted thinking"


@check(needs="thinking")
async def thinking_goes_back(target: Target) -> None:
    """Thinking blocks are accepted as they were answered, shown or omitted (§6)."""
    for display in ("summarized", "omitted"):
        message = await think(target, BUDGET | {"display": display})
        await target.create_message(
            messages=send_back(message), thinking=BUDGET, max_tokens=MAX_TOKENS, stop_sequences=ENDS_SOON
        )


@check(needs="thinking")
async def tampered_thinking(target: Target) -> None:
    """A thinking block with a signature that was changed is refused, in words that agents act on (§9.4)."""
    message = await think(target, BUDGET)
    assert thoughts(message), "no thinking block"
    for block in thoughts(message):
        middle = len(block["signature"]) // 2
        other = "A" if block["signature"][middle] != "A" else "B"
        block["signature"] = block["signature"][:middle] + other + block["signature"][middle + 1 :]
    refusal = await target.read_refusal(messages=send_back(message), thinking=BUDGET, max_tokens=MAX_TOKENS)
    known = "signature` in `thinking` block", "signature in thinking block", "cannot be modified"
    assert any(words.replace("`", "") in refusal.replace("`", "") for words in known), f"refused for: {refusal}"


@check()
async def thinking_of_others(target: Target) -> None:
    """A thinking block that another server signed is ignored, not refused (§6)."""
    foreign: Json = {
        "type": "thinking",
        "thinking": "They want a greeting.",
        "signature": "EqQBCgIYAhIM1gbcDa9GJwZA",
    }
    said: Json = {"type": "text", "text": "Hello."}
    await target.create_message(messages=[*GREETING, assistant([foreign, said]), user("Again.")], max_tokens=1)


def request(target: Target, thinking: Json, **changes: object) -> Json:
    """A greeting, with room to think about it."""
    return target.request(thinking=thinking, max_tokens=MAX_TOKENS, stop_sequences=ENDS_SOON, **changes)


async def think(target: Target, thinking: Json) -> Json:
    """The answer to a greeting."""
    return await target.create_message(**request(target, thinking))


async def stream_thinking(target: Target, thinking: Json) -> Stream:
    """The same as a stream."""
    return await target.stream(**request(target, thinking))


def thoughts(message: Json) -> list[Json]:
    """The thinking blocks."""
    return [block for block in message["content"] if block["type"] == "thinking"]


def send_back(message: Json) -> list[Json]:
    """The conversation that goes on after an answer."""
    return [*GREETING, assistant(message["content"]), user("Again.")]
