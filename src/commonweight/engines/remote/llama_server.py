"""llama.cpp's own server: ``/completion`` with tokens.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from commonweight.engines.contract import Job
from commonweight.engines.grammars import Ids
from commonweight.engines.remote.backend import Chunk, PlaceError

STRONG = 1e4
"""Added to the logits of tokens that alone may be drawn; no model's own come near."""


class _Entry(msgspec.Struct):
    logprob: float


class _Timings(msgspec.Struct):
    cache_n: int | None = None


class _Progress(msgspec.Struct):
    cache: int


class _Line(msgspec.Struct):
    tokens: list[int] = []
    stop: bool = False
    stop_type: str = "none"
    completion_probabilities: list[_Entry] | None = None
    timings: _Timings | None = None
    prompt_progress: _Progress | None = None
    error: msgspec.Raw | None = None


_lines = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class Completion:
    """Tokens of a prompt in, tokens of the answer out, without the one that ends it."""

    path = "/completion"
    # Its grammars are of another kind, unless it was built otherwise.
    keeps_grammars = False

    def body(self, job: Job, salt: str, only: Ids | None = None) -> dict[str, Any]:
        """The request for a job."""
        sampling = job.sampling
        return {
            "prompt": job.token_ids,
            "n_predict": job.max_tokens,
            "samplers": ["temperature", "top_k", "top_p", "min_p"],
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "seed": -1 if sampling.seed is None else sampling.seed,
            "n_probs": 1 if job.want_logprobs else 0,
            "logit_bias": [] if only is None else [[token, STRONG] for token in only.tolist()],
            # It cannot keep tenants apart. So that none can time another's prompts, only those who have no key,
            # and are all one tenant, find theirs again.
            "cache_prompt": not job.tenant,
            "return_tokens": True,
            "return_progress": True,
            "stream": True,
        }

    def read(self, line: bytes) -> Chunk:
        """What a line of the answer says."""
        said = _lines.decode(line)
        if said.error is not None:
            raise PlaceError(f"it reports {bytes(said.error)[:500]!r}")
        cached = said.prompt_progress.cache if said.prompt_progress else None
        if said.timings is not None and said.timings.cache_n is not None:
            cached = said.timings.cache_n
        entries = said.completion_probabilities
        logprobs = None if entries is None else [entry.logprob for entry in entries]
        ending = None if not said.stop else "length" if said.stop_type == "limit" else "stop"
        return Chunk(said.tokens, logprobs, ending, cached)  # type: ignore[arg-type]
