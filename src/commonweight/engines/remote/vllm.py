"""Backend for vLLM: ``/inference/v1/generate`` with token ids, or else ``/v1/completions``.

Source: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html and the routes' own schema
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, cast, get_args

import msgspec

from commonweight.engines.contract import Job
from commonweight.engines.grammars import TokenIds
from commonweight.engines.remote.backend import Chunk, ChunkReader, FinishReason, UpstreamError

BATCH_PRIORITY = 10
"""vLLM priority of batch jobs; interactive jobs have 0, and a larger number is later."""


class _VllmLogprob(msgspec.Struct):
    logprob: float


class _Logprobs(msgspec.Struct):
    content: list[_VllmLogprob] | None = None
    """At ``/inference/v1/generate``."""
    token_logprobs: list[float] | None = None
    """Of completions."""

    @property
    def values(self) -> list[float] | None:
        return [entry.logprob for entry in self.content] if self.content is not None else self.token_logprobs


class _Choice(msgspec.Struct):
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens_details: _Details | None = None


class _VllmLine(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_lines = msgspec.json.Decoder(_VllmLine)


def _read(line: bytes) -> Chunk:
    line_data = _lines.decode(line)
    if line_data.error is not None:
        raise UpstreamError(f"it reports {str(line_data.error)[:500]!r}")
    details = line_data.usage.prompt_tokens_details if line_data.usage else None
    cached = details.cached_tokens if details else None
    if not line_data.choices:
        return Chunk(cached_tokens=cached)
    choice = line_data.choices[0]
    if choice.finish_reason not in (None, *get_args(FinishReason)):
        raise UpstreamError(f"it ended the answer with {choice.finish_reason!r}")
    logprobs = choice.logprobs.values if choice.logprobs else None
    ending = cast(FinishReason | None, choice.finish_reason)
    return Chunk(choice.token_ids or [], logprobs, ending, cached)


_STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class _VllmBackend(ABC):
    """Common part of both APIs."""

    model: str
    supports_grammars: bool = False
    supports_priorities: bool = False

    def make_body(
        self, job: Job, salt: str, only: TokenIds | None = None, *, is_alone: bool = False
    ) -> dict[str, Any]:
        """Request body of a job."""
        return self._request(job, salt, self._make_sampling(job, only)) | _STREAM

    def make_scoring_body(self, job: Job, salt: str) -> dict[str, Any]:
        """Request body of a scoring job: vLLM does not stream log-probabilities of prompts."""
        assert job.scoring is not None
        return self._request(job, salt, self._make_sampling(job, None) | {"prompt_logprobs": job.scoring.top})

    def make_reader(self) -> ChunkReader:
        """Decoder of a response stream; stateless."""
        return _read

    @abstractmethod
    def _request(self, job: Job, salt: str, sampling: dict[str, Any]) -> dict[str, Any]:
        """Request body with sampling parameters where the API has them."""

    def _make_sampling(self, job: Job, only: TokenIds | None) -> dict[str, Any]:
        sampling = job.sampling
        wanted: dict[str, Any] = {
            "max_tokens": max(job.max_tokens, 1),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repetition_penalty": 1.0,
            "seed": sampling.seed,
            "stop_token_ids": job.stop_ids,
            # The job's stop_ids end an answer, not the model's configuration.
            "ignore_eos": True,
        }
        if job.want_logprobs:
            wanted["logprobs"] = 0
        if job.grammar is not None and only is None and self.supports_grammars:
            wanted["structured_outputs"] = {"grammar": job.grammar}
        if only is not None:
            wanted["allowed_token_ids"] = only.tolist()
        return wanted

    def _frame(self, job: Job, salt: str) -> dict[str, Any]:
        frame: dict[str, Any] = {"model": self.model, "cache_salt": salt}
        if self.supports_priorities and job.priority == "batch":
            frame["priority"] = BATCH_PRIORITY
        return frame


class VllmGenerate(_VllmBackend):
    """Adapter of ``/inference/v1/generate``: token ids in and out, without detokenization."""

    path = "/inference/v1/generate"

    def _request(self, job: Job, salt: str, sampling: dict[str, Any]) -> dict[str, Any]:
        return self._frame(job, salt) | {
            "token_ids": job.token_ids,
            "sampling_params": sampling | {"detokenize": False},
            # A reasoning parser, if there is one, would hold the grammar back.
            "reasoning_ended": True,
        }


class VllmCompletions(_VllmBackend):
    """Adapter of ``/v1/completions``, which every version and every router supports."""

    path = "/v1/completions"

    def _request(self, job: Job, salt: str, sampling: dict[str, Any]) -> dict[str, Any]:
        prompt = {"prompt": job.token_ids, "return_token_ids": True, "add_special_tokens": False}
        return self._frame(job, salt) | sampling | prompt
