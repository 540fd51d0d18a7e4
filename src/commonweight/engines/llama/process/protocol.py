"""The channel between server and engine process: MessagePack frames, each behind its length.

The process reads frames from its standard input and writes them to its standard output, so it sees the server
vanish as the end of its input, on every platform. All events of one step travel in one frame: one wake-up of the
server's event loop a step, not one a token.
"""

import struct
from collections.abc import AsyncGenerator
from io import RawIOBase
from typing import Protocol

import msgspec

from commonweight.engines.contract import EngineEvent, Job, Stats

_LENGTH = struct.Struct("<I")
_READ_SIZE = 1 << 16


class Submit(msgspec.Struct, tag=True):
    """Server to process: do this job."""

    job_id: int
    job: Job


class Cancel(msgspec.Struct, tag=True):
    """Server to process: nobody waits for this job any more."""

    job_id: int
    keep: int | None = None
    """Of its tokens only so many are worth remembering."""


class Shutdown(msgspec.Struct, tag=True):
    """Server to process: leave now, in order."""


class LoadProgress(msgspec.Struct, tag=True):
    """Process to server: this fraction of the weights is loaded."""

    fraction: float


class Ready(msgspec.Struct, tag=True):
    """Process to server: jobs can come."""


class LoadFailed(msgspec.Struct, tag=True):
    """Process to server: this model cannot be loaded, for this reason. The process leaves."""

    reason: str


class JobRejected(msgspec.Struct, tag=True):
    """Process to server: this job cannot be done, for this reason."""

    job_id: int
    reason: str


class StepEvents(msgspec.Struct, tag=True):
    """Process to server: what one step brought, by run, and now and then the figures."""

    events: list[tuple[int, EngineEvent]]
    stats: Stats | None = None


EngineCommand = Submit | Cancel | Shutdown
WorkerMessage = LoadProgress | Ready | LoadFailed | JobRejected | StepEvents

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[EngineCommand] = msgspec.msgpack.Decoder(EngineCommand)
_messages: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)


class AsyncReader(Protocol):
    """The part of :class:`asyncio.StreamReader` that frames need."""

    async def read(self, n: int) -> bytes:
        """Up to ``n`` bytes as soon as there are some; none at the end."""


def encode_frame(message: EngineCommand | WorkerMessage) -> bytes:
    """A message as it travels."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read_messages(reader: AsyncReader) -> AsyncGenerator[WorkerMessage]:
    """The process's frames until it is gone; one awakening for all that have arrived."""
    arrived = b""
    while data := await reader.read(_READ_SIZE):
        arrived += data
        start = 0
        while len(arrived) >= start + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(arrived, start)
            end = start + _LENGTH.size + length
            if len(arrived) < end:
                break
            yield _messages.decode(memoryview(arrived)[start + _LENGTH.size : end])
            start = end
        arrived = arrived[start:]


def read_command(stream: RawIOBase) -> EngineCommand | None:
    """The process's next frame, waiting for it; None when the server is gone."""
    try:
        (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
        return _commands.decode(_read_exactly(stream, length))
    except EOFError:
        return None


def _read_exactly(stream: RawIOBase, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = stream.read(length - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
