"""What servers speak: jobs to the bodies of requests, and lines of their streams to tokens."""

from typing import Any, Literal, Protocol

import msgspec

from commonweight.engines.contract import Job
from commonweight.engines.grammars import TokenIds

FinishReason = Literal["stop", "length"]


class UpstreamError(Exception):
    """A server did not do its part. The message is for the log, and may quote the server."""


class UnreachableError(UpstreamError):
    """Nobody is there."""


class UpstreamBusyError(UpstreamError):
    """It is well, and has no room now."""


class RequestRejectedError(UpstreamError):
    """It takes the request for wrong: another server would, too."""


class Chunk(msgspec.Struct, frozen=True):
    """What one line of a stream says."""

    token_ids: list[int] = []
    logprobs: list[float] | None = None
    """For each token, if asked for."""
    finish_reason: FinishReason | None = None
    """The generation is over, and why. The token that stopped it need not be among the tokens."""
    cached_tokens: int | None = None
    """Of the prompt, as soon as it is known."""


class ChunkReader(Protocol):
    """Understands the lines of one answer, in their order."""

    def __call__(self, line: bytes) -> Chunk:
        """What a line says.

        Raises:
            PlaceError: it reports an error.
            msgspec.MsgspecError: it is no such line.
        """


class Backend(Protocol):
    """One way to ask a server for tokens."""

    @property
    def path(self) -> str:
        """Where it is asked."""

    @property
    def supports_grammars(self) -> bool:
        """Whether it holds answers to grammars itself."""

    def body(self, job: Job, salt: str, only: TokenIds | None = None, *, is_alone: bool = False) -> dict[str, Any]:
        """The request for a job.

        ``salt`` is for its tenant's cache, ``only`` the tokens that may be drawn. ``is_alone``: the server never
        had a job of another tenant.
        """

    def reader(self) -> ChunkReader:
        """What understands one answer, line by line."""
