"""Many streams at the same time, and clients that leave in the middle of one."""

import asyncio
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam

from conftest import Server

WORDS = ("kiwi", "apple", "plum", "cherry", "grape", "lemon", "peach", "fig")


@pytest.fixture
def client(server: Server) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=server.url, api_key=server.key, max_retries=0)


def repeating(word: str, max_tokens: int) -> dict[str, Any]:
    """A request that even a small model answers with one word over and over, until ``max_tokens``."""
    messages: list[MessageParam] = [
        {"role": "user", "content": f"Write {word} again and again."},
        {"role": "assistant", "content": " ".join([word] * 12)},
    ]
    return {"model": "any", "max_tokens": max_tokens, "messages": messages, "extra_body": {"temperature": 0}}


async def test_eight_streams_at_once_each_get_their_own_answer(client: anthropic.AsyncAnthropic) -> None:
    running = most_running = 0

    async def stream(word: str) -> anthropic.types.Message:
        nonlocal running, most_running
        async with client.messages.stream(**repeating(word, 24)) as events:
            async for event in events:
                if event.type == "content_block_start":
                    running += 1
                    most_running = max(most_running, running)
                elif event.type == "content_block_stop":
                    running -= 1
            return await events.get_final_message()

    messages = await asyncio.gather(*map(stream, WORDS))
    for word, message in zip(WORDS, messages, strict=True):
        [block] = message.content
        assert block.type == "text"
        assert set(block.text.split()) - {word} == set(), f"{word}: {block.text}"
        assert message.usage.output_tokens == 24
    assert most_running > 1, "the streams ran one after the other"


async def test_the_server_goes_on_when_clients_leave_in_the_middle(client: anthropic.AsyncAnthropic) -> None:
    async def leave_after_some_text(word: str) -> None:
        async with client.messages.stream(**repeating(word, 7000)) as events:
            async for _ in events.text_stream:
                return
        pytest.fail("the stream ended before any text")

    async def stay(word: str) -> anthropic.types.Message:
        async with client.messages.stream(**repeating(word, 24)) as events:
            return await events.get_final_message()

    # More than run at the same time, so the last ones wait for the room that the first ones leave behind:
    # left to run to their ends, they would take many minutes.
    leaving = [leave_after_some_text(word) for word in (*WORDS, *WORDS[:4])]
    staying = asyncio.create_task(stay("melon"))
    await asyncio.gather(*leaving)
    message = await staying
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 24
    await answers(client)


async def test_the_server_goes_on_when_clients_give_up_waiting(client: anthropic.AsyncAnthropic) -> None:
    waiting = [asyncio.create_task(client.messages.create(**repeating(word, 7000))) for word in WORDS]
    # Time for all of them to run; were it too short for some, the test would only show a little less.
    await asyncio.sleep(0.5)
    for task in waiting:
        task.cancel()
    left = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in left] == [asyncio.CancelledError] * len(WORDS)
    await answers(client)


async def answers(client: anthropic.AsyncAnthropic) -> None:
    """The server still does."""
    message = await client.messages.create(**repeating("kiwi", 4))
    assert message.usage.output_tokens == 4
