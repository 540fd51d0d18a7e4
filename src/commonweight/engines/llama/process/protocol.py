"""Messages between server and engine process: MessagePack frames with a length prefix.

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
    """Server to process: run a job."""

    job_id: int
    job: Job


class Cancel(msgspec.Struct, tag=True):
    """Server to process: cancel a job."""

    job_id: int
    keep: int | None = None
    """Cache at most so many of its tokens; None: all."""


class Shutdown(msgspec.Struct, tag=True):
    """Server to process: finish the step and exit."""


class LoadProgress(msgspec.Struct, tag=True):
    """Process to server: fraction of the weights loaded so far."""

    fraction: float


class Ready(msgspec.Struct, tag=True):
    """Process to server: the model is loaded."""


class LoadFailed(msgspec.Struct, tag=True):
    """Process to server: the model cannot be loaded. The process exits."""

    reason: str


class JobRejected(msgspec.Struct, tag=True):
    """Process to server: a job failed."""

    job_id: int
    reason: str
    is_grammar_refused: bool = False
    """Its grammar cannot be compiled."""


class StepEvents(msgspec.Struct, tag=True):
    """Process to server: events of one or more steps with their job ids, and the latest statistics."""

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
    """Encode a message with its length prefix."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read_messages(reader: AsyncReader) -> AsyncGenerator[WorkerMessage]:
    """Decode the process's messages until it exits; all that have arrived in one wake-up."""
    arrived = bytearray()  # grows in place: a frame with rows of a vocabulary has megabytes
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
        del arrived[:start]


def read_command(stream: RawIOBase) -> EngineCommand | None:
    """Read the next command, blocking; None at the end of input, when the server has exited."""
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
