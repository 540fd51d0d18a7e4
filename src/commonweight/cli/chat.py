"""``commonweight chat``: a conversation in the terminal, an ordinary client of the turn."""

import asyncio
import contextlib
from typing import Any

from rich.console import Console

from commonweight.cli.loading import Setup, open_assistant
from commonweight.messages.errors import ApiError
from commonweight.messages.events import MessageFold
from commonweight.messages.request import MessageRequest
from commonweight.turn import Assistant

BYE = ("/exit", "/quit", "/bye")


def chat(setup: Setup, *, system: str | None, max_tokens: int, temperature: float | None) -> None:
    """Talk until the input ends. Ctrl-C stops an answer, a second one leaves."""
    console = Console()
    settings = {"model": "chat", "system": system, "max_tokens": max_tokens, "temperature": temperature}
    messages: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        assistant = runner.run(stack.enter_async_context(open_assistant(setup, console)))
        console.print(
            f"{assistant.card.id} listens. Ctrl-D or /exit leaves, Ctrl-C stops an answer.\n", style="dim"
        )
        try:
            while (text := console.input("[bold cyan]you[/]  ").strip()) not in BYE:
                if not text:
                    continue
                messages.append({"role": "user", "content": text})
                request = MessageRequest.model_validate({**settings, "messages": messages})
                answer = _answer(runner, assistant, request, console)
                if answer:
                    messages.append({"role": "assistant", "content": answer})
                else:
                    messages.pop()
        except (EOFError, KeyboardInterrupt):
            console.print()
        finally:
            runner.run(stack.aclose())


def _answer(runner: asyncio.Runner, assistant: Assistant, request: MessageRequest, console: Console) -> str:
    """Show the answer as it comes; returns what there was of it."""
    fold = MessageFold()

    async def show() -> None:
        turn = await assistant.prepare(request)
        async with contextlib.aclosing(assistant.stream(turn)) as events:
            async for event in events:
                fold.add(event)
                if event.type == "content_block_delta":
                    console.print(event.delta.text, end="", markup=False, highlight=False, soft_wrap=True)

    console.print("[bold green]it[/]   ", end="")
    try:
        runner.run(show())
    except ApiError as error:
        console.print(f"[red]{error.message}[/]")
        return ""
    except KeyboardInterrupt:
        console.print(" [dim](stopped)[/]", end="")
    console.print("\n")
    return "".join(block.text for block in fold.message().content)
