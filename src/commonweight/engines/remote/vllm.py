"""vLLM: tokens in and tokens out at ``/inference/v1/generate``, or else completions with ids.

Source: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html and the routes' own schema
"""

from dataclasses import dataclass
from typing import Any, cast, get_args

import msgspec

from commonweight.engines.contract import Job
from commonweight.engines.grammars import Ids
from commonweight.engines.remote.backend import Chunk, Ending, PlaceError, Reader

BATCH_PRIORITY = 10
"""Behind what people wait for, which has 0; a larger number is later."""


class _Entry(msgspec.Struct):
    logprob: float


class _Logprobs(msgspec.Struct):
    content: list[_Entry] | None = None
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


class _Line(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_lines = msgspec.json.Decoder(_Line)


def _read(line: bytes) -> Chunk:
    said = _lines.decode(line)
    if said.error is not None:
        raise PlaceError(f"it reports {str(said.error)[:500]!r}")
    details = said.usage.prompt_tokens_details if said.usage else None
    cached = details.cached_tokens if details else None
    if not said.choices:
        return Chunk(cached_tokens=cached)
    choice = said.choices[0]
    if choice.finish_reason not in (None, *get_args(Ending)):
        raise PlaceError(f"it ended the answer with {choice.finish_reason!r}")
    logprobs = choice.logprobs.values if choice.logprobs else None
    ending = cast(Ending | None, choice.finish_reason)
    return Chunk(choice.token_ids or [], logprobs, ending, cached)


@dataclass(frozen=True)
class _Vllm:
    """What both ways have in common."""

    model: str
    keeps_grammars: bool = False
    has_priorities: bool = False

    def reader(self) -> Reader:
        """What understands an answer: each of its lines does without the others."""
        return _read

    def _sampling(self, job: Job, only: Ids | None) -> dict[str, Any]:
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
            # What ends an answer is the job's to say, not the model's configuration's.
            "ignore_eos": True,
        }
        if job.want_logprobs:
            wanted["logprobs"] = 0
        if job.grammar is not None and only is None and self.keeps_grammars:
            wanted["structured_outputs"] = {"grammar": job.grammar}
        if only is not None:
            wanted["allowed_token_ids"] = only.tolist()
        return wanted

    def _frame(self, job: Job, salt: str) -> dict[str, Any]:
        frame = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_salt": salt,
        }
        if self.has_priorities and job.priority == "batch":
            frame["priority"] = BATCH_PRIORITY
        return frame


class Generate(_Vllm):
    """Tokens in, tokens out; nothing is made of text on the way."""

    path = "/inference/v1/generate"

    def body(self, job: Job, salt: str, only: Ids | None = None, *, is_alone: bool = False) -> dict[str, Any]:
        """The request for a job."""
        return self._frame(job, salt) | {
            "token_ids": job.token_ids,
            "sampling_params": self._sampling(job, only) | {"detokenize": False},
            # Its reasoning parser, if it has one, would keep the grammar waiting.
            "reasoning_ended": True,
        }


class Completions(_Vllm):
    """What every version and every router passes on."""

    path = "/v1/completions"

    def body(self, job: Job, salt: str, only: Ids | None = None, *, is_alone: bool = False) -> dict[str, Any]:
        """The request for a job."""
        return (
            self._frame(job, salt)
            | self._sampling(job, only)
            | {"prompt": job.token_ids, "return_token_ids": True, "add_special_tokens": False}
        )
