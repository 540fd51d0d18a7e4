"""Scoring through vLLM: one request with ``prompt_logprobs``, and its response as events of the contract.

Source: ``GenerateResponse`` and ``CompletionResponse`` in vLLM's ``entrypoints``
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping

import msgspec
import numpy as np

from commonweight.engines.contract import (
    ALL_TOKENS,
    Admitted,
    EngineError,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Scored,
    Scoring,
    ScoringUnsupportedError,
    Timings,
)
from commonweight.engines.remote.backend import Backend, UpstreamError
from commonweight.engines.remote.upstream import Upstream

MAX_RESPONSE_BYTES = 64 << 20
"""Maximum of a response's size: about a million log-probabilities."""
CHUNK_POSITIONS = 64
"""Positions of one event."""
_TOP_LIMIT = re.compile(r"greater than max allowed: (\d+)")


class _Logprob(msgspec.Struct):
    logprob: float


LogprobPosition = dict[int, _Logprob]
"""Log-probabilities by token id: the given token and the most likely ones."""


class _ScoredChoice(msgspec.Struct):
    prompt_logprobs: list[LogprobPosition | None] | None = None
    """Of completions."""


class _Response(msgspec.Struct):
    choices: list[_ScoredChoice] = []
    prompt_logprobs: list[LogprobPosition | None] | None = None
    """At ``/inference/v1/generate``."""


_responses = msgspec.json.Decoder(_Response)


async def score_on(
    upstream: Upstream, backend: Backend, job: Job, salt: str, headers: Mapping[str, str], size: int
) -> AsyncGenerator[EngineEvent]:
    """Events of a scoring job on one upstream; ``size`` is the vocabulary's.

    Raises:
        ScoringUnsupportedError: its API cannot score; nothing was sent.
        EngineError: it limits ``top``, or the response is too large.
        UpstreamError: it failed, or did not give what was asked for.
    """
    assert job.scoring is not None
    body = backend.make_scoring_body(job, salt)
    if body is None:
        raise ScoringUnsupportedError(
            "llama-server gives no log-probabilities of a prompt's tokens; vLLM and the embedded engine do."
        )
    begun = time.monotonic()
    data = bytearray()
    try:
        async with upstream.open_response(backend.path, body, headers) as response:
            async for part in response.iter_any():
                data += part
                if len(data) > MAX_RESPONSE_BYTES:
                    raise EngineError(
                        f"The log-probabilities take more than {MAX_RESPONSE_BYTES >> 20} MiB; "
                        "score fewer tokens, or ask for fewer of the most likely ones."
                    )
            positions = await asyncio.to_thread(_read, data)
    except UpstreamError as error:
        if limit := _TOP_LIMIT.search(str(error)):
            wanted = "the whole vocabulary" if job.scoring.top == ALL_TOKENS else job.scoring.top
            raise EngineError(
                f"The server that computes gives at most {limit[1]} of the most likely tokens for each position "
                f"(vLLM's --max-logprobs), not {wanted}."
            ) from error
        raise
    if len(positions) != len(job.token_ids):
        raise UpstreamError(f"it gives log-probabilities of {len(positions)} tokens, not {len(job.token_ids)}")
    yield Admitted(0)
    for start in range(job.scoring.start, len(positions), CHUNK_POSITIONS):
        stop = start + CHUNK_POSITIONS
        yield _make_scored(start, job.token_ids[start:stop], positions[start:stop], job.scoring, size)
    yield Prefilled()
    yield Finish("length", Timings(0.0, time.monotonic() - begun, 0.0))


def _read(data: bytearray) -> list[LogprobPosition | None]:
    response = _responses.decode(data)
    return response.prompt_logprobs or (response.choices[0].prompt_logprobs if response.choices else None) or []


def _make_scored(
    start: int, token_ids: list[int], positions: list[LogprobPosition | None], scoring: Scoring, size: int
) -> Scored:
    try:
        found = [{token: entry.logprob for token, entry in (position or {}).items()} for position in positions]
        logprobs = [position[token] for position, token in zip(found, token_ids, strict=True)]
        if scoring.top == ALL_TOKENS:
            rows = [[position[token] for token in range(size)] for position in found]
            return Scored(start, logprobs, rows=np.array(rows, "<f4").tobytes())
    except KeyError as error:
        raise UpstreamError(f"it does not say how likely token {error} is") from error
    if scoring.top == 0:
        return Scored(start, logprobs)
    if min(map(len, found)) < scoring.top:
        raise UpstreamError(f"it gives fewer than {scoring.top} tokens for a position")
    # The given token is there, too, and may be less likely. Of equals the one with the smallest id comes first.
    ids = [sorted(position, key=lambda token: (-position[token], token))[: scoring.top] for position in found]
    top = [[position[token] for token in tokens] for position, tokens in zip(found, ids, strict=True)]
    return Scored(start, logprobs, ids, top)
