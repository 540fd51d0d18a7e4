"""What is asked. Prompts that must be new begin, from their first words on, unlike all others."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

PARAGRAPH = (
    "The keeper climbed the stairs before dusk, counted the steps aloud as his father had done, and wrote the "
    "weather into the log: wind from the west, a swell that would not settle, two sails far out beyond the reef. "
)
PARAGRAPH_TOKENS = 46
"""As the starter model counts; others differ a little, and reports say how many tokens there really were."""
HEROES = (
    "a ferryman",
    "a clockmaker",
    "a beekeeper",
    "a mapmaker",
    "a glassblower",
    "a miller",
    "a diver",
    "a baker",
)

FILE_LINES = 300
BEGUN_LINES = 15
"""Of the edited file; not empty at their end, where the API permits no white space."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True)
class Prompt:
    """What a client sends: the system prompt, then messages."""

    system: str
    messages: tuple[Message, ...]

    def then(self, answer: str, user: str) -> "Prompt":
        """The next turn of the conversation: all that was said, and something new."""
        return replace(self, messages=(*self.messages, Message("assistant", answer), Message("user", user)))


def story(number: int, hero: str = "the keeper of a lighthouse") -> Prompt:
    """About 50 tokens; asks for more than anybody waits for."""
    task = f"Write a very long story about {hero}, with many chapters. Do not stop early."
    return Prompt(f"{_opening(number)} You write stories.", (Message("user", task),))


def session(number: int, tokens: int, question: int = 0) -> Prompt:
    """A system prompt of about ``tokens`` tokens that depends on ``number`` alone, and one of many questions."""
    book = PARAGRAPH * max(1, tokens // PARAGRAPH_TOKENS)
    # A story, since answers must not end early.
    asked = (
        f"Write a very long story about {HEROES[question % len(HEROES)]} who reads this book. Do not stop early."
    )
    return Prompt(f"{_opening(number)} You know this book by heart. {book}", (Message("user", asked),))


def new_tokens(number: int, tokens: int) -> str:
    """A message of about ``tokens`` tokens, such as a tool's result is in an agent's next turn."""
    log = PARAGRAPH * (tokens // PARAGRAPH_TOKENS)
    return f"Log {_digits(number)}. {log}Go on with the story. Do not stop early."


def edit() -> tuple[Prompt, str]:
    """A request to change one line of a file of 300, its answer begun; and how that goes on if the rest is copied.

    The file is one that even a very small model copies without a slip, since it sees how each line follows from
    the last: the starter model loses its way in ordinary code of that length.
    """
    lines = [line for step in range(1, FILE_LINES // 4 + 1) for line in _function(step)]
    changed = [lines[0].replace("step_1", "first"), *lines[1:]]
    order = "\n".join(lines) + "\n\nRename step_1 to first, and write the whole file again."
    begun, rest = "\n".join(changed[:BEGUN_LINES]), "\n" + "\n".join(changed[BEGUN_LINES:])
    system = "You edit source code, and answer with the whole file."
    return Prompt(system, (Message("user", order), Message("assistant", begun))), rest


def _function(step: int) -> list[str]:
    return [
        f"def step_{step}(state):",
        f'    """Step {step} of the way."""',
        f'    return state.then("step {step}")',
        "",
    ]


def _opening(number: int) -> str:
    # In the system prompt, since templates put one of their own there otherwise.
    return f"{_digits(number)} is the number of this conversation."


def _digits(number: int) -> str:
    # Always six, so that every round has the same length; multiplied, so that the first of them differs as well.
    return f"{(number + 1) * 618_033 % 1_000_000:06d}"
