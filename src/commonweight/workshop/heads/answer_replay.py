"""Replay of given answers as streams: what of an answer leaves before the guard refuses it."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from commonweight.engines.contract import EngineEvent, Finish, Prefilled, Step, Timings
from commonweight.guard import Guard, extract_segments
from commonweight.messages.events import ContentBlockDelta, TextDelta, ThinkingDelta
from commonweight.prompting import OutputParser, Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn.answer import Answer
from commonweight.turn.block_filter import BlockFilter
from commonweight.turn.pipeline import answer_steps, release_events, screen_steps
from commonweight.turn.release import ReleaseGate
from commonweight.workshop.heads.answer_reading import ReadAnswer

SIGNER = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
"""Signs the thinking of replayed answers, which are sent to no client."""


@dataclass(frozen=True)
class ReplayedAnswer:
    """What became of an answer on its way to the client."""

    left: int
    """Its tokens that left."""
    late: int
    """Those of them that begin after the marked end."""
    is_refused: bool


async def replay_answer(guard: Guard, tokenizer: Tokenizer, read: ReadAnswer, end: int) -> ReplayedAnswer:
    """Replay an answer through the stages of a turn, from the engine's steps to the events that leave.

    The request is not screened: what is asked here is what the guard makes of the answer.

    Args:
        tokenizer: the model's.
        end: characters of the answer, after which tokens are late.
    """
    request, prompt = read.turn.request, read.turn.prompt
    answer = Answer(request, prompt, OutputParser(tokenizer, prompt.parser_config, []), SIGNER, "max_tokens")
    screening = guard.start_screening(extract_segments(request))
    gate = ReleaseGate(whole_calls=screening.buffers_tool_calls)
    blocks = BlockFilter(screening, answer) if screening.screens_blocks else None

    steps = screen_steps(answer_steps(_play_steps(read), answer), screening, answer, prompt, blocks)
    released = ""
    async for event in release_events(steps, gate, answer, lambda: None):
        match event:
            case ContentBlockDelta(delta=TextDelta(text=text) | ThinkingDelta(thinking=text)):
                released += text
            case _:
                pass
    pieces = [piece for _, piece in read.tokens]
    # White space that an answer begins with is in no block.
    until = _find_start("".join(pieces), released) + len(released)
    left = late = at = 0
    for piece in pieces:
        begun, at = at, at + len(piece)
        left += at <= until
        late += at <= until and begun >= end
    return ReplayedAnswer(left, late, answer.stop_reason == "refusal")


def _find_start(text: str, released: str) -> int:
    return 0 if text.startswith(released) else len(text) - len(text.lstrip())


async def _play_steps(read: ReadAnswer) -> AsyncGenerator[EngineEvent]:
    # No scores of the prompt, so that it is not screened.
    yield Prefilled()
    for (token, _), scores in zip(read.tokens, read.scores, strict=True):
        yield Step(token, None, scores)
    yield Finish("stop", Timings(0, 0, 0))
