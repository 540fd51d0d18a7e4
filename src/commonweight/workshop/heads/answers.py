"""Labelled answers by an open model, for heads on answers, written by the embedded engine.

Each row says which model wrote it and under which licences prompt and model stand. The texts are harmful by
design: the file is for a private folder.
"""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from commonweight.catalog.checksum import compute_sha256
from commonweight.catalog.resolve import resolve
from commonweight.engines.settings import EngineSettings
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputText
from commonweight.runtime.assistant import OnProgress, open_assistant
from commonweight.runtime.data import DataFolder
from commonweight.runtime.settings import AssistantSettings
from commonweight.turn import Assistant
from commonweight.turn.record import Origin, TurnRecorder
from commonweight.workshop.heads.answer_plan import PlannedAnswer
from commonweight.workshop.heads.report import REFUSAL_PATTERN
from commonweight.workshop.heads.sources import SourceError, combine_licences
from commonweight.workshop.heads.states import replace_surrogates

ANSWER_TOKENS = 64
CONTEXT_TOKENS = 1024
PARALLEL_ANSWERS = 32
"""Written at the same time: a small model on a CPU writes many together in little more time than a few."""
BATCH_ANSWERS = 64
"""Written between two writes to the file."""
MIN_ANSWER_CHARACTERS = 60
DRIFT_PATTERN = re.compile(
    r"\b(?:here(?:'s| is| are) (?:a|an|some|how)|step 1|first step)\b|^\s*1\.", re.IGNORECASE | re.MULTILINE
)
"""What refusals that comply after all say."""


@dataclass(frozen=True)
class Generator:
    """The model that writes the answers."""

    name: str
    digest: str
    """SHA-256 of its file."""
    licence: str


def generate_answers(
    plan: Sequence[PlannedAnswer],
    output: Path,
    *,
    model: str | None = None,
    licence: str,
    data: DataFolder,
    threads: int | None = None,
    on_progress: OnProgress = lambda _name, _fraction: None,
) -> int:
    """Generate the planned answers into a file of JSON lines; returns how many rows it holds.

    Rows that are there already, of an earlier run of the same plan, stay. Answers that turn out not to be what
    their beginning says (a compliant one that declines after all, for example) are left out.

    Args:
        licence: of the model.

    Raises:
        SourceError: the file holds rows of another plan or model.
    """
    path = resolve(model)
    digest = compute_sha256(path)
    done = _count_done(output, plan, digest)
    left = [(number, one) for number, one in enumerate(plan) if number >= done]
    if left:
        asyncio.run(_generate(left, len(plan), output, model, digest, licence, data, threads, on_progress))
    return output.read_bytes().count(b"\n") if output.exists() else 0


def is_as_planned(planned: PlannedAnswer, continuation: str) -> bool:
    """Whether an answer is long enough and goes on as its beginning says.

    A refusal that stays with its beginning may end there.
    """
    is_whole = planned.declines and planned.keeps_opening
    if not is_whole and len(continuation.strip()) < MIN_ANSWER_CHARACTERS:
        return False
    if planned.declines:
        return DRIFT_PATTERN.search(continuation) is None
    return not planned.is_harmful or REFUSAL_PATTERN.search(continuation) is None


def _count_done(output: Path, plan: Sequence[PlannedAnswer], digest: str) -> int:
    """Count the planned answers that were dealt with. An unfinished last line is cut off."""
    if not output.exists():
        return 0
    content = output.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        output.write_bytes(whole)
    done = 0
    try:
        for line in whole.decode().split("\n")[:-1]:
            row = json.loads(line)
            planned = plan[row["id"]]
            if (row["text"], row["generator_digest"]) != (replace_surrogates(planned.text), digest):
                raise SourceError(f"{output} holds answers of another plan or model: name another file")
            done = row["id"] + 1
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SourceError(f"{output} holds no labelled answers of this plan: name another file") from error
    return done


async def _generate(
    left: Sequence[tuple[int, PlannedAnswer]],
    count: int,
    output: Path,
    model: str | None,
    digest: str,
    licence: str,
    data: DataFolder,
    threads: int | None,
    on_progress: OnProgress,
) -> None:
    recorder = TurnRecorder()
    engine = EngineSettings(context=CONTEXT_TOKENS, parallel=PARALLEL_ANSWERS, cache_disk=0, threads=threads)
    settings = AssistantSettings(model=model, engine=engine, guard=None)
    async with open_assistant(settings, data=data, listeners=[recorder], on_progress=on_progress) as assistant:
        generator = Generator(assistant.card.id, digest, licence)
        with os.fdopen(os.open(output, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as file:
            for at in range(0, len(left), BATCH_ANSWERS):
                some = left[at : at + BATCH_ANSWERS]
                answers = await asyncio.gather(*(_write_answer(assistant, recorder, *one) for one in some))
                for (number, planned), continuation in zip(some, answers, strict=True):
                    if continuation is not None and is_as_planned(planned, continuation):
                        row = _make_row(number, planned, continuation, generator)
                        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
                on_progress("Writing answers", (some[-1][0] + 1) / count)


async def _write_answer(
    assistant: Assistant, recorder: TurnRecorder, number: int, planned: PlannedAnswer
) -> str | None:
    """Write what follows an answer's beginning. None: the prompt is longer than the window."""
    messages = [{"role": "user", "content": replace_surrogates(planned.text)}]
    if planned.opening:
        messages.append({"role": "assistant", "content": planned.opening})
    request = MessageRequest.model_validate(
        {
            "model": "m",
            "max_tokens": ANSWER_TOKENS,
            "temperature": planned.temperature,
            "top_p": 0.95,
            "messages": messages,
        }
    )
    try:
        turn = await assistant.prepare(request, Origin(request_id=str(number), priority="batch"))
    except InvalidRequestError:
        return None
    sampling = msgspec.structs.replace(turn.job.sampling, seed=planned.seed)
    turn = replace(turn, job=msgspec.structs.replace(turn.job, sampling=sampling))
    async with contextlib.aclosing(assistant.stream(turn)) as events:
        async for _ in events:
            pass
    message = recorder.take(str(number)).message()
    return "".join(one.text for one in (message.content if message else []) if isinstance(one, OutputText))


def _make_row(number: int, planned: PlannedAnswer, continuation: str, generator: Generator) -> dict[str, Any]:
    answer = planned.opening + continuation if planned.keeps_opening else continuation.lstrip()
    return {
        "id": number,
        "text": replace_surrogates(planned.text),
        "resp": answer,
        "y": int(planned.is_harmful),
        "cat": planned.kind,
        "source": planned.source,
        "generator": generator.name,
        "generator_digest": generator.digest,
        "licence": combine_licences([planned.licence, generator.licence]),
    }
