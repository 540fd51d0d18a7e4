"""Backend for llama.cpp's own server: ``/completion`` with token ids.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from commonweight.engines.contract import Job
from commonweight.engines.grammars import TokenIds
from commonweight.engines.remote.backend import Chunk, UpstreamError

ALLOWED_BIAS = 1e4
"""Bias on the logits of allowed tokens; no model's own logits come near."""

MAX_MISSING_TOKENS, MAX_TOKEN_BYTES = 6, 16
"""Maximum of tokens that a character consists of, and bytes of each: the first may begin with other text."""


class _LlamaServerLogprob(msgspec.Struct):
    logprob: float


class _Progress(msgspec.Struct):
    cache: int


class _LlamaServerLine(msgspec.Struct):
    content: str = ""
    tokens: list[int] = []
    tokens_predicted: int = 0
    stop: bool = False
    stop_type: str = "none"
    completion_probabilities: list[_LlamaServerLogprob] | None = None
    prompt_progress: _Progress | None = None
    error: Any = None


_lines = msgspec.json.Decoder(_LlamaServerLine)


class LlamaServerCompletion:
    """Adapter of ``/completion``. Some versions leave out the stop token.

    ``pieces``: bytes of each token of the vocabulary.
    """

    path = "/completion"
    # Its grammars are GBNF, unless it was built with llguidance.
    supports_grammars = False

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._tokens = {piece: token for token, piece in enumerate(pieces) if piece}

    def make_body(
        self, job: Job, salt: str, only: TokenIds | None = None, *, is_alone: bool = False
    ) -> dict[str, Any]:
        """Request body of a job."""
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
            "logit_bias": [] if only is None else [[token, ALLOWED_BIAS] for token in only.tolist()],
            # It cannot isolate tenants. So that no tenant can probe another's prompts by timing, its cache is used
            # only as long as there is one tenant.
            "cache_prompt": is_alone,
            "return_tokens": True,
            "return_progress": True,
            # Otherwise the last line repeats the prompt.
            "response_fields": ["tokens", "stop", "stop_type", "completion_probabilities"],
            # A stream omits a token that ends within a character.
            "stream": only is None,
        }

    def make_scoring_body(self, job: Job, salt: str) -> None:
        """None: ``n_probs`` is about generated tokens only."""

    def make_reader(self) -> "_LlamaServerReader":
        """A new decoder for one response stream."""
        return _LlamaServerReader(self._pieces, self._tokens)


class _LlamaServerReader:
    """Stream decoder that reconstructs omitted tokens: while a character is incomplete, llama-server sends
    nothing, and then all of the text but only the last token. It does send the number of tokens."""

    def __init__(self, pieces: Sequence[bytes], tokens: Mapping[bytes, int]) -> None:
        self._pieces = pieces
        self._tokens = tokens
        self._count = 0

    def __call__(self, line: bytes) -> Chunk:
        line_data = _lines.decode(line)
        if line_data.error is not None:
            raise UpstreamError(f"it reports {str(line_data.error)[:500]!r}")
        if line_data.prompt_progress is not None:
            return Chunk(cached_tokens=line_data.prompt_progress.cache)  # such a line has no token
        logprobs = (
            None
            if line_data.completion_probabilities is None
            else [e.logprob for e in line_data.completion_probabilities]
        )
        if line_data.stop:
            return Chunk(line_data.tokens, logprobs, "length" if line_data.stop_type == "limit" else "stop")
        lost = line_data.tokens_predicted - self._count - len(line_data.tokens)
        self._count = max(line_data.tokens_predicted, self._count)
        if lost <= 0 or not line_data.tokens:
            return Chunk(line_data.tokens, logprobs)
        before = self._find_spelling(
            line_data.content.encode().removesuffix(self._pieces[line_data.tokens[-1]]), lost
        )
        unknown = [0.0] * len(before)
        return Chunk([*before, *line_data.tokens], None if logprobs is None else unknown + logprobs)

    def _find_spelling(self, text: bytes, count: int) -> list[int]:
        """``count`` tokens that spell a text."""
        if count > MAX_MISSING_TOKENS or len(text) > MAX_MISSING_TOKENS * MAX_TOKEN_BYTES:
            raise UpstreamError(f"it left out {count} tokens")
        found = self._split(text, count)
        if found is None:
            raise UpstreamError("it left out tokens that no others can stand for")
        return found

    def _split(self, text: bytes, count: int) -> list[int] | None:
        if count == 1:
            return [self._tokens[text]] if text in self._tokens else None
        for length in range(len(text) - count + 1, 0, -1):
            if text[:length] in self._tokens and (rest := self._split(text[length:], count - 1)):
                return [self._tokens[text[:length]], *rest]
        return None
