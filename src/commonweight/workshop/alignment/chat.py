"""Questions to a model: through the embedded engine in process, or through a server, in journalled batches.

Every question has a seed of its own. Texts that many questions share come first and are marked, so that the prefix
cache computes them once.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from pydantic import JsonValue, ValidationError

from commonweight.catalog.reference import FileReference
from commonweight.engines.contract import EngineError
from commonweight.engines.contract import Sampling as EngineSampling
from commonweight.engines.settings import EngineSettings, RemoteSettings
from commonweight.messages.errors import ApiError, InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputText
from commonweight.runtime.assistant import open_assistant
from commonweight.runtime.data import DataFolder
from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import AssistantSettings
from commonweight.turn import Assistant
from commonweight.turn.record import Origin, TurnRecord, TurnRecorder
from commonweight.workshop.alignment.conversations import Prompt
from commonweight.workshop.alignment.journal import Journal, Reply
from commonweight.workshop.alignment.settings import AlignmentError, ModelSettings
from commonweight.workshop.data.rows import draw_fraction

TOO_LONG, UNFIT = "too-long", "unfit"
"""Endings of questions that were not asked: longer than the window, or nothing that the template renders."""
MAX_SEED = 2**32 - 2


@dataclass(frozen=True)
class Question:
    """A conversation that a model goes on with."""

    messages: Prompt
    seed: int
    shared: str = ""
    """Text that the model reads before it, and that other questions share."""
    grammar: str | None = None
    """Grammar that holds the answer, in llguidance's dialect of Lark."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    max_tokens: int
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class ChatModel:
    """A model that answers: a file of weights, or the vocabulary and template of what a server computes."""

    path: Path
    digest: str
    """SHA-256 of the file."""
    settings: ModelSettings

    def make_settings(self) -> AssistantSettings:
        """Settings that open it: no guard, nothing kept on disk.

        Raises:
            AlignmentError: the variable that holds the server's key is not set.
        """
        settings = self.settings
        engine = EngineSettings(context=settings.context, parallel=settings.parallel, cache_disk=0)
        remote: RemoteSettings | None = None
        if settings.engine is not None:
            variable = settings.engine.key_variable
            if variable is not None and not os.environ.get(variable):
                raise AlignmentError(f"The environment variable {variable}, which key_variable names, is not set.")
            remote = RemoteSettings(
                kind=settings.engine.kind,
                urls=(settings.engine.url,),
                key=os.environ.get(variable) if variable else None,
                read_timeout=settings.engine.read_timeout,
            )
        return AssistantSettings(model=str(FileReference(self.path)), engine=engine, remote=remote)

    def __str__(self) -> str:
        return f"The server at {self.settings.engine.url}" if self.settings.engine else "The engine"


def ask_all(
    model: ChatModel,
    questions: Sequence[Question],
    sampling: Sampling,
    journal: Journal,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    """Ask every question that the journal has no reply to, in batches; each is on disk before the next begins.

    Returns:
        What was computed, which differs from run to run.

    Raises:
        AlignmentError: the model cannot be opened, or stops answering; replies until then are in the journal.
    """
    if journal.replies:
        report(f"{len(journal.replies):,} of {len(questions):,} answers are there already")
    if len(journal.replies) == len(questions):
        return {}
    return asyncio.run(_ask_missing(model, questions, sampling, journal, report))


async def _ask_missing(
    model: ChatModel,
    questions: Sequence[Question],
    sampling: Sampling,
    journal: Journal,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    recorder = TurnRecorder()
    begun, size = time.monotonic(), model.settings.batch
    async with _open(model, recorder) as assistant:
        gate = asyncio.Semaphore(model.settings.parallel)
        loaded = time.monotonic()
        before = len(journal.replies)
        # Batches begin where they began in a run that was killed: answers depend a little on what runs beside.
        for start in range(0, len(questions), size):
            numbers = range(start, min(start + size, len(questions)))
            batch = [number for number in numbers if number not in journal.replies]
            if not batch:
                continue
            done = await asyncio.gather(
                *(_ask(assistant, recorder, number, questions[number], sampling, gate) for number in batch),
                return_exceptions=True,
            )
            journal.add(reply for reply in done if isinstance(reply, Reply))
            for failure in done:
                if isinstance(failure, ApiError):
                    raise AlignmentError(
                        f"{model} stopped after {len(journal.replies):,} of {len(questions):,} answers: "
                        f"{str(failure).rstrip('.')}. They are kept, and the next build goes on from there."
                    ) from failure
                if isinstance(failure, BaseException):
                    raise failure
            report(f"{len(journal.replies):,} of {len(questions):,} answers")
        stats = assistant.engine.stats
        return {
            "load_seconds": loaded - begun,
            "answer_seconds": time.monotonic() - loaded,
            "answers": float(len(questions) - before),
            "generated_tokens": float(stats.generated_tokens),
            "prefilled_tokens": float(stats.prefilled_tokens),
            "reused_tokens": float(
                stats.shared_tokens + stats.ram_tokens + stats.disk_tokens + stats.remote_tokens
            ),
        }


@contextlib.asynccontextmanager
async def _open(model: ChatModel, recorder: TurnRecorder) -> AsyncIterator[Assistant]:
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())  # of the key that signs reasoning
        try:
            assistant = await stack.enter_async_context(
                open_assistant(
                    model.make_settings(),
                    data=DataFolder(Path(folder)),
                    listeners=[recorder],
                    report=lambda _line: None,
                )
            )
        except (EngineError, UserError, OSError) as error:
            raise AlignmentError(f"{model} cannot be used: {str(error).rstrip('.')}.") from error
        yield assistant


async def _ask(
    assistant: Assistant,
    recorder: TurnRecorder,
    number: int,
    question: Question,
    sampling: Sampling,
    gate: asyncio.Semaphore,
) -> Reply:
    async with gate:
        try:
            request = _make_request(question, sampling.max_tokens)
            turn = await assistant.prepare(request, Origin(request_id=str(number), priority="batch"))
        except (InvalidRequestError, ValidationError) as error:
            is_too_long = str(error).startswith(("prompt is too long", "input length"))
            return Reply(number, "", TOO_LONG if is_too_long else UNFIT, asked=False)
        # Not by the request, whose temperature ends at 1.
        drawn = EngineSampling(temperature=sampling.temperature, top_p=sampling.top_p, seed=question.seed)
        job = msgspec.structs.replace(turn.job, sampling=drawn, grammar=question.grammar)
        async with contextlib.aclosing(assistant.stream(replace(turn, job=job))) as events:
            async for _ in events:
                pass
        return _make_reply(number, recorder.take(str(number)))


def _make_reply(number: int, record: TurnRecord) -> Reply:
    message = record.message()
    text = "".join(one.text for one in (message.content if message else []) if isinstance(one, OutputText))
    return Reply(number, text, record.outcome, record.usage.output_tokens)


def _make_request(question: Question, max_tokens: int) -> MessageRequest:
    own = [message.content for message in question.messages if message.role == "system"]
    shared = [question.shared] if question.shared else []
    system: list[dict[str, JsonValue]] = [
        {"type": "text", "text": text} for text in (*shared, *own) if text.strip()
    ]
    if question.shared:
        system[0] |= {"cache_control": {"type": "ephemeral"}}
    fields = {
        "model": "m",
        "max_tokens": max_tokens,
        "messages": [
            {"role": message.role, "content": message.content}
            for message in question.messages
            if message.role != "system"
        ],
    }
    return MessageRequest.model_validate(fields | ({"system": system} if system else {}))


def draw_seed(*parts: str) -> int:
    """A seed that depends on the parts alone."""
    return int(draw_fraction(*parts) * MAX_SEED)
