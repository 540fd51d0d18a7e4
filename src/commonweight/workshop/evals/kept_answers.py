"""Answers that are kept with their texts: in the private logs of an evaluation, for what reads them again."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from commonweight.workshop.evals.errors import EvaluationError

ANSWERS = "answers.jsonl"
"""File of the logs, readable by its owner only."""


class KeptAnswer(BaseModel):
    """An answer, and what it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    sample_id: str
    digest: str
    """SHA-256 of the prompt, as the sample's line has it."""
    request: str
    beginning: str = ""
    """Of the answer, supplied by the client."""
    text: str
    """What the model wrote; of an answer that was begun, what it added."""


class AnswerFile:
    """Answers in a private file that is appended to; a last line that a kill tore is dropped."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs.chmod(0o700)
        path = logs / ANSWERS
        content = path.read_bytes() if path.exists() else b""
        handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        self._file = os.fdopen(handle, "wb")
        self._file.truncate(content.rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, answer: KeptAnswer) -> None:
        """Add an answer; it is on disk when this returns."""
        self._file.write(json.dumps(answer.model_dump()).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_answers(logs: Path, task: str) -> Mapping[str, KeptAnswer]:
    """The last answer to each sample of a task.

    Raises:
        EvaluationError: there is no file, or a line of it is damaged.
    """
    try:
        lines = (logs / ANSWERS).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise EvaluationError(f"the evaluation has no {ANSWERS} in its logs: it kept no answers") from None
    found: dict[str, KeptAnswer] = {}
    for number, line in enumerate(lines, 1):
        try:
            answer = KeptAnswer.model_validate_json(line)
        except ValidationError:
            raise EvaluationError(f"line {number} of {ANSWERS} is damaged") from None
        if answer.task == task:
            found[answer.sample_id] = answer
    return found
