"""An agent made with the agent SDK: one question, told as JSON on standard output."""

import asyncio
import json

from claude_agent_sdk import (  # type: ignore[import-not-found]
    AssistantMessage,
    ClaudeAgentOptions,
    ResultMessage,
    TextBlock,
    query,
)


async def main() -> None:
    """Ask, and tell what came."""
    options = ClaudeAgentOptions(system_prompt="You are terse.", tools=["Bash", "Read"], max_turns=4)
    texts: list[str] = []
    async for message in query(prompt="Say hello.", options=options):
        match message:
            case AssistantMessage():
                texts += [block.text for block in message.content if isinstance(block, TextBlock)]
            case ResultMessage():
                print(json.dumps({"texts": texts, "is_error": message.is_error, "usage": message.usage}))  # noqa: T201


asyncio.run(main())
