"""Requests at the same time."""

import asyncio

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import COUNTING, ENDS_SOON, GREETING, STORY, Json, user
from commonweight.conformance.sections.tools import ONE, check_one_call
from commonweight.conformance.shapes import check_error, prompt_tokens
from commonweight.conformance.target import Target
from commonweight.conformance.toolbox import CLOCK, WEATHER

CONCURRENT_REQUESTS = 8
QUEUED_REQUESTS = 32
BUSY_ERRORS = {429: "rate_limit_error", 503: "api_error", 529: "overloaded_error"}


@check()
async def everybody_gets_their_own_answer(target: Target) -> None:
    """Requests at once get answers of their own: prompt, length and id (§8)."""
    prompts = [[user("Count from 1 to 100, with commas." + " Please." * i)] for i in range(CONCURRENT_REQUESTS)]
    sizes = [await target.count_prompt_tokens(messages=prompt) for prompt in prompts]
    answers = await asyncio.gather(
        *(target.create_message(messages=prompt, max_tokens=i + 1) for i, prompt in enumerate(prompts))
    )
    for i, (message, size) in enumerate(zip(answers, sizes, strict=True)):
        assert prompt_tokens(message["usage"]) == size, (
            f"{prompt_tokens(message['usage'])} prompt tokens, not {size}"
        )
        assert message["usage"]["output_tokens"] <= i + 1, f"{message['usage']['output_tokens']} tokens of {i + 1}"
    assert len({message["id"] for message in answers}) == CONCURRENT_REQUESTS, "two answers have the same id"


@check()
async def streams_at_once(target: Target) -> None:
    """Streams at once each keep to the grammar (§10)."""
    streams = await asyncio.gather(
        *(target.stream(messages=STORY, max_tokens=12) for _ in range(CONCURRENT_REQUESTS))
    )
    assert len({stream.message["id"] for stream in streams}) == CONCURRENT_REQUESTS, "two streams have the same id"


@check()
async def calls_at_once(target: Target) -> None:
    """Forced calls at once are each valid for their own tools (§7)."""
    tools = [WEATHER, CLOCK] * 2
    answers = await asyncio.gather(
        *(target.create_message(tools=[tool], tool_choice=ONE, max_tokens=64) for tool in tools)
    )
    for tool, message in zip(tools, answers, strict=True):
        check_one_call(message, tool)


@check()
async def the_same_request_at_once(target: Target) -> None:
    """Requests that are the same report the same prompt, whoever computed it (§8)."""
    answers = await asyncio.gather(
        *(target.create_message(messages=COUNTING, max_tokens=2) for _ in range(CONCURRENT_REQUESTS))
    )
    sizes = {prompt_tokens(message["usage"]) for message in answers}
    assert len(sizes) == 1, f"the same prompt has {sorted(sizes)} tokens"


@check()
async def counting_while_a_stream_runs(target: Target) -> None:
    """A count does not wait for a stream to end (§2)."""
    body: Json = target.request(stream=True, max_tokens=2000, messages=STORY)
    async with target.http.stream("POST", "/v1/messages", json=body, headers=target.headers) as response:
        async for line in response.aiter_lines():
            if "content_block_delta" in line:
                break
        assert await target.count() > 0, "a prompt of no tokens"


@check()
async def clients_that_give_up(target: Target) -> None:
    """Clients that leave before their answer, and in the middle of it, do no harm (§10)."""
    waiting = [
        asyncio.create_task(target.create_message(messages=STORY, max_tokens=2000))
        for _ in range(CONCURRENT_REQUESTS)
    ]
    await asyncio.sleep(0.5)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await target.create_message(max_tokens=64, messages=GREETING, stop_sequences=ENDS_SOON)


@check()
async def more_than_fit(target: Target) -> None:
    """More requests than run at once wait, or are told that the server is busy (§9.1)."""
    responses = await asyncio.gather(*(target.post(target.request(max_tokens=1)) for _ in range(QUEUED_REQUESTS)))
    for response in responses:
        if response.status_code != 200:
            assert response.status_code in BUSY_ERRORS, f"HTTP {response.status_code}: {response.text[:200]}"
            check_error(response, response.status_code, BUSY_ERRORS[response.status_code])
            assert "retry-after" in response.headers, f"{response.status_code} without retry-after"
