"""Reading of given answers: the tokens of an answer within its prompt, with the scores that a stream of it has."""

import re
from dataclasses import dataclass

import msgspec
import numpy as np

from commonweight.engines.contract import Prefilled
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.turn.assistant import Assistant, Turn
from commonweight.turn.record import ANONYMOUS, Origin
from commonweight.workshop.heads.request_places import make_request
from commonweight.workshop.heads.states import replace_surrogates

TOO_LONG = re.compile("^(prompt is too long|input length and)")
"""How the API's errors begin that say that a request does not fit into the window."""


@dataclass(frozen=True)
class ReadAnswer:
    """An answer that was read as the continuation of a prompt."""

    turn: Turn
    """Of the prompt."""
    tokens: list[tuple[int, str]]
    """Each with the characters that end in it."""
    scores: list[bytes | None]
    """What comes with each token when the model generates it: the probe's scores at the token before."""


async def prepare_turn(assistant: Assistant, request: MessageRequest, origin: Origin = ANONYMOUS) -> Turn | None:
    """Prepare a request; None: it is longer than the window."""
    try:
        return await assistant.prepare(request, origin)
    except InvalidRequestError as error:
        if TOO_LONG.search(str(error)):
            return None
        raise


async def read_answer(assistant: Assistant, text: str, answered: str) -> ReadAnswer | None:
    """Read an answer to a text; None: both together are longer than the window."""
    tokens = assistant.split_tokens(replace_surrogates(answered))
    turn = await prepare_turn(assistant, make_request(text))
    if turn is None or len(turn.prompt.token_ids) + len(tokens) > assistant.engine.window:
        return None
    prompt = turn.prompt.token_ids
    scores: list[bytes | None] = [None] * len(tokens)
    probe = assistant.guard.probe if assistant.guard else None
    if probe is not None:
        job = msgspec.structs.replace(
            turn.job, token_ids=[*prompt, *(token for token, _ in tokens)], max_tokens=0, grammar=None
        )
        async with assistant.engine.run(job) as events:
            async for event in events:
                if isinstance(event, Prefilled) and event.scores is not None:
                    rows = np.frombuffer(event.scores, "<f4").reshape(-1, probe.heads)
                    scores = [one.tobytes() for one in rows[len(prompt) - 1 : -1]]
    return ReadAnswer(turn, tokens, scores)
