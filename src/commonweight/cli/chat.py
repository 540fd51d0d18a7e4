"""``commonweight chat``: a conversation in the terminal."""

import asyncio
import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

from commonweight.cli.greeting import describe_assistant, suggest_next
from commonweight.cli.progress import LoadingBar
from commonweight.cli.terminal import make_console
from commonweight.cli.word_wrap import WordWrapper
from commonweight.messages.errors import ApiError, InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.runtime.assistant import open_assistant, resolve_model
from commonweight.runtime.settings import AssistantSettings
from commonweight.turn import Assistant

BYE = ("/exit", "/quit", "/bye")
AFRESH = "/clear"
SYSTEM = "/system"
HELP = "/help"
HELP_LINES = (
    f"{HELP}           this list",
    f"{SYSTEM} TEXT    instructions for the model from now on; without a text: which they are; `-` for none",
    f"{AFRESH}          forget the conversation so far",
    f"{BYE[0]}           leave; so do {BYE[1]}, {BYE[2]} and Ctrl-D",
    "Ctrl-C          stop an answer",
)
YOU, IT = "you  ", "it   "


def chat(settings: AssistantSettings, *, system: str | None, max_tokens: int, temperature: float | None) -> None:
    """Chat until the input ends. Ctrl-C stops an answer, a second one exits.

    Lines from a pipe or a file are answered one after the other, and only the answers are printed.
    """
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may be any
    screen = _Screen()
    settings = resolve_model(settings)
    conversation = _Conversation(system, {"model": "chat", "max_tokens": max_tokens, "temperature": temperature})
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        with LoadingBar(make_console(stderr=True)) as bar:
            assistant = runner.run(stack.enter_async_context(open_assistant(settings, on_progress=bar.update)))
        screen.print_greeting([f"{describe_assistant(assistant)}.", *suggest_next(assistant, "chat")])
        try:
            while (text := screen.read_line()) not in BYE:
                if not text:
                    continue
                if conversation.run_command(text, screen):
                    continue
                answer = _answer(runner, assistant, conversation.make_request(text), screen)
                if answer:
                    conversation.add_turn(text, answer)
        except (EOFError, KeyboardInterrupt):
            screen.leave()
        finally:
            runner.run(stack.aclose())


class _Conversation:
    """What was said so far, and the instructions."""

    def __init__(self, system: str | None, settings: dict[str, Any]) -> None:
        self._system = system
        self._settings = settings
        self._messages: list[dict[str, str]] = []

    def make_request(self, text: str) -> MessageRequest:
        """The request that a text of the user's makes."""
        messages = [*self._messages, {"role": "user", "content": text}]
        return MessageRequest.model_validate({**self._settings, "system": self._system, "messages": messages})

    def add_turn(self, text: str, answer: str) -> None:
        """Keep what was said for later requests."""
        self._messages += {"role": "user", "content": text}, {"role": "assistant", "content": answer}

    def run_command(self, text: str, screen: "_Screen") -> bool:
        """Run a command; False if the text is none. An unknown command in a terminal gets a hint."""
        command, _, rest = text.partition(" ")
        if text == AFRESH:
            self._messages.clear()
            screen.print_note("The conversation so far is forgotten.\n")
        elif command == SYSTEM:
            if rest := rest.strip():
                self._system = None if rest == "-" else rest
            screen.print_note(f"Instructions: {self._system or 'none'}\n")
        elif text == HELP:
            screen.print_note("\n".join([*HELP_LINES, ""]))
        elif screen.is_interactive and re.fullmatch(r"/[a-z]+", command):
            screen.print_note(f"There is no {command}; {HELP} lists what there is.\n")
        else:
            return False
        return True


def _answer(runner: asyncio.Runner, assistant: Assistant, request: MessageRequest, screen: "_Screen") -> str:
    """Print the answer as it arrives; returns its text."""
    parts: list[str] = []

    async def show() -> None:
        turn = await assistant.prepare(request)
        async with contextlib.aclosing(assistant.stream(turn)) as events:
            async for event in events:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    parts.append(event.delta.text)
                    screen.show(event.delta.text)

    screen.begin_answer()
    try:
        runner.run(show())
    except InvalidRequestError as error:
        screen.fail(f"{error.message}; {AFRESH} starts afresh")
        return ""
    except ApiError as error:
        screen.fail(error.message)
        return ""
    except KeyboardInterrupt:
        screen.end_answer(" (stopped)")
    else:
        screen.end_answer()
    return "".join(parts).strip()


class _Screen:
    """Prints the conversation to a terminal, or the answers alone to a pipe."""

    def __init__(self) -> None:
        self._console = make_console()
        self._errors = make_console(stderr=True)
        self.is_interactive = sys.stdin.isatty() and self._console.is_terminal
        """Whether standard input and output are a terminal, and no pipes."""
        self._wrapper = self._make_wrapper()
        if self.is_interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - gives input() its line editing and history

    def print_greeting(self, lines: Sequence[str]) -> None:
        keys = f"Ctrl-C stops an answer, {AFRESH} starts afresh, {BYE[0]} or Ctrl-D leaves; {HELP} tells more."
        self.print_note("\n".join([*lines, keys, ""]))

    def print_note(self, text: str) -> None:
        if self.is_interactive:
            self._console.print(text, style="dim", soft_wrap=True)

    def read_line(self) -> str:
        """Read the next line; EOFError after the last."""
        return input(self._read_prompt() if self.is_interactive else "").strip()

    def _read_prompt(self) -> str:
        with self._console.capture() as shown:
            self._console.print(YOU, style="bold cyan", end="")
        # Readline has to know which characters take no room on the line.
        return re.sub(r"(\x1b\[[\d;]*m)", "\x01\\1\x02", shown.get())

    def begin_answer(self) -> None:
        if self.is_interactive:
            self._console.print(IT, style="bold green", end="")

        self._wrapper = self._make_wrapper(len(IT))

    def show(self, text: str) -> None:
        self._write(self._wrapper.feed(text) if self.is_interactive else text)

    def end_answer(self, remark: str = "") -> None:
        self._write(self._wrapper.flush())
        self._console.print(remark, style="dim", end="\n\n" if self.is_interactive else "\n")

    def _make_wrapper(self, column: int = 0) -> WordWrapper:
        return WordWrapper(lambda: self._console.width, column)

    def _write(self, text: str) -> None:
        self._console.print(text, end="", soft_wrap=True)

    def fail(self, message: str) -> None:
        if self.is_interactive:
            self._console.print(message, style="red", end="\n\n", soft_wrap=True)
        else:
            self._errors.print(f"Error: {message}", style="red", soft_wrap=True)

    def leave(self) -> None:
        if self.is_interactive:
            self._console.print()
