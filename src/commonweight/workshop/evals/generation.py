"""Tasks whose answers a model generates: run by inspect-ai against a server of the Messages API."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import Ledger, SampleLine, digest_text

if TYPE_CHECKING:
    from inspect_ai.model import Model
    from inspect_ai.scorer import Score, Target
    from inspect_ai.solver import TaskState

NO_KEY = "none"
"""Sent to servers that need no key; the client library refuses to go without one."""


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    text: str
    refused: bool
    """The server says that the model, or a guard before it, refused."""


@dataclass(frozen=True)
class Sample:
    """One answer to be generated, and how it is scored."""

    id: str
    prompt: str
    score: Callable[[Answer], Mapping[str, int]]
    """Right outcomes by metric."""


@dataclass(frozen=True)
class Generation:
    """Where and how answers are generated."""

    url: str
    model: str
    key: str
    max_tokens: int
    temperature: float | None
    parallel: int
    timeout: int
    retries: int


async def run_samples(
    task: str, samples: Sequence[Sample], generation: Generation, ledger: Ledger, logs: Path
) -> list[SampleLine]:
    """Generate and score the answers that the ledger does not hold yet; returns the lines of all, in order.

    Each finished sample is in the ledger before the next one is. inspect-ai's own logs, which hold all texts, are
    written to ``logs``.

    Raises:
        EvaluationError: the run itself failed; samples that fail are lines with an error.
    """
    digests = {sample.id: digest_text(sample.prompt) for sample in samples}
    missing = [sample for sample in samples if ledger.find(task, sample.id, digests[sample.id]) is None]
    if missing:
        by_id = {sample.id: sample for sample in missing}

        def finish(sample_id: str, answer: Answer) -> Mapping[str, int]:
            score = dict(by_id[sample_id].score(answer))
            ledger.add(
                SampleLine(
                    task=task,
                    sample_id=sample_id,
                    digest=digests[sample_id],
                    answer=digest_text(answer.text),
                    score=score,
                )
            )
            return score

        await _evaluate(task, missing, finish, generation, logs)
    lines = []
    for sample in samples:
        line = ledger.find(task, sample.id, digests[sample.id])
        if line is None:  # inspect-ai gave it up
            line = SampleLine(
                task=task, sample_id=sample.id, digest=digests[sample.id], answer=None, score={}, error=True
            )
            ledger.add(line)
        lines.append(line)
    return lines


async def _evaluate(
    name: str,
    samples: Sequence[Sample],
    finish: Callable[[str, Answer], Mapping[str, int]],
    generation: Generation,
    logs: Path,
) -> None:
    try:
        import inspect_ai
    except ImportError:
        raise EvaluationError(
            f"{name} needs inspect-ai, which `pip install 'commonweight[evals]'` brings"
        ) from None
    from inspect_ai.dataset import MemoryDataset
    from inspect_ai.dataset import Sample as InspectSample
    from inspect_ai.scorer import Score, mean, scorer
    from inspect_ai.solver import generate

    @scorer(metrics={"*": [mean()]}, name=f"commonweight_{name}")
    def write_to_ledger() -> "Callable[[TaskState, Target], Any]":
        async def score(state: "TaskState", _target: "Target") -> "Score":
            # An error of the server (a prompt past its window) comes as an output with the error's text.
            refused = state.output.stop_reason == "content_filter"
            if state.output.error and not refused:
                raise RuntimeError("the server refused the prompt with an error")
            return Score(value=dict(finish(str(state.sample_id), Answer(state.output.completion, refused))))

        return score

    task = inspect_ai.Task(
        dataset=MemoryDataset([InspectSample(id=sample.id, input=sample.prompt) for sample in samples], name=name),
        solver=generate(),
        scorer=write_to_ledger(),
        name=name,
    )
    with _keep_private(logs):
        found = await inspect_ai.eval_async(
            task,
            model=_make_model(generation),
            log_dir=str(logs),
            log_format="eval",
            log_buffer=1,
            log_realtime=False,
            log_level="error",
            log_level_transcript="error",
            fail_on_error=False,
            retry_on_error=0,
            max_samples=generation.parallel,
            ctl_server=False,
            score_display=False,
        )
    if found[0].status != "success":
        raise EvaluationError(f"the task {name} ended early; the reason stands in the logs of the evaluation")


def _make_model(generation: Generation) -> "Model":
    from inspect_ai.model import GenerateConfig, get_model

    # inspect-ai drops the temperature, which the newest version of the API does not have but ours takes, and what
    # stands before a slash in the model's name.
    body: dict[str, str | float] = {"model": generation.model}
    if generation.temperature is not None:
        body["temperature"] = generation.temperature
    return get_model(
        f"anthropic/{generation.model}",
        base_url=generation.url,
        api_key=generation.key,
        memoize=False,
        config=GenerateConfig(
            max_tokens=generation.max_tokens,
            max_connections=generation.parallel,
            max_retries=generation.retries,
            attempt_timeout=generation.timeout,
        ),
        extra_body=body,
    )


@contextmanager
def _keep_private(logs: Path) -> Iterator[None]:
    """Let inspect-ai write into the private folder only, and leave logging as it was."""
    from inspect_ai.util import display_type

    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.chmod(0o700)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    variables = {"INSPECT_DISPLAY": "none", "XDG_DATA_HOME": str(logs.resolve())}  # its traces go there
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    display_type()  # read from the environment now; later it would be "plain"
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
