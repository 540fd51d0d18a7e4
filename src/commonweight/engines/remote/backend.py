"""Interface of upstream APIs: jobs to request bodies, and lines of response streams to tokens."""

from typing import Any, Literal, Protocol

import msgspec

from commonweight.engines.contract import Job
from commonweight.engines.grammars import TokenIds

FinishReason = Literal["stop", "length"]


class UpstreamError(Exception):
    """An upstream failed. The message is for the log, and may quote the upstream."""


class UnreachableError(UpstreamError):
    """No connection to the upstream."""


class UpstreamBusyError(UpstreamError):
    """The upstream is healthy but full (429 or 503)."""


class RequestRejectedError(UpstreamError):
    """The upstream rejected the request (4xx): another one would, too."""


class Chunk(msgspec.Struct, frozen=True):
    """Decoded line of a response stream."""

    token_ids: list[int] = []
    logprobs: list[float] | None = None
    """For each token, if asked for."""
    finish_reason: FinishReason | None = None
    """Set at the end of the generation. The stop token need not be among the tokens."""
    cached_tokens: int | None = None
    """Cached prompt tokens, as soon as the number is known."""


class ChunkReader(Protocol):
    """Decoder of one response stream, called with its lines in order."""

    def __call__(self, line: bytes) -> Chunk:
        """Decode a line.

        Raises:
            UpstreamError: the line reports an error.
            msgspec.MsgspecError: the line does not have the expected form.
        """


class Backend(Protocol):
    """Adapter of one upstream API that generates from token ids."""

    @property
    def path(self) -> str:
        """URL path of requests."""

    @property
    def supports_grammars(self) -> bool:
        """Whether the upstream enforces grammars itself."""

    def make_body(
        self, job: Job, salt: str, only: TokenIds | None = None, *, is_alone: bool = False
    ) -> dict[str, Any]:
        """Request body of a job.

        ``salt`` isolates the cache of its tenant, ``only`` restricts sampling to some tokens. ``is_alone``: the
        upstream never had a job of another tenant.
        """

    def make_scoring_body(self, job: Job, salt: str) -> dict[str, Any] | None:
        """Request body of a scoring job, not streamed; None where the API has no log-probabilities of prompts."""

    def make_reader(self) -> ChunkReader:
        """A new decoder for one response stream."""
