"""Tasks whose answers a model generates: run by inspect-ai against a server of the Messages API."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.workshop.evals.conversations import Conversation, Tool
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.kept_answers import AnswerFile, KeptAnswer
from commonweight.workshop.evals.ledger import Ledger, SampleLine, Score, digest_text

if TYPE_CHECKING:
    from inspect_ai.model import Model, ModelOutput
    from inspect_ai.scorer import Score as InspectScore
    from inspect_ai.scorer import Target
    from inspect_ai.solver import Solver, TaskState

NO_KEY = "none"
"""Sent to servers that need no key; the client library refuses to go without one."""


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    text: str
    refused: bool
    """The server says that the model, or a guard before it, refused."""
    calls: str = ""
    """What it wrote into the arguments of calls of tools."""
    tokens: int = 0
    is_cut: bool = False
    """It reached the most tokens that it may have."""


@dataclass(frozen=True)
class Sample:
    """One answer to be generated, and how it is scored."""

    id: str
    prompt: str
    score: Callable[[Answer], Score]
    """Right outcomes by metric."""
    conversation: Conversation | None = None
    """What is sent; None: the prompt as the user's message."""
    failed_score: Score = field(default_factory=dict)
    """Metrics that the sample counts in without an answer, with what it adds to them."""
    is_kept: bool = False
    """Its answer is kept in the private logs, for what reads it again."""

    @property
    def digest(self) -> str:
        """SHA-256 of what is sent."""
        return digest_text(self.conversation.identity if self.conversation else self.prompt)


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
    digests = {sample.id: sample.digest for sample in samples}
    missing = [sample for sample in samples if ledger.find(task, sample.id, digests[sample.id]) is None]
    if missing:
        by_id = {sample.id: sample for sample in missing}
        is_any_kept = any(sample.is_kept for sample in missing)

        def finish(sample_id: str, answer: Answer) -> Score:
            sample = by_id[sample_id]
            score = dict(sample.score(answer))
            if sample.is_kept and kept is not None:
                kept.add(_keep(task, sample, answer))
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

        with contextlib.closing(AnswerFile(logs)) if is_any_kept else contextlib.nullcontext() as kept:
            await _evaluate(task, missing, finish, generation, logs)
    lines = []
    for sample in samples:
        line = ledger.find(task, sample.id, digests[sample.id])
        if line is None:  # inspect-ai gave it up
            line = SampleLine(
                task=task,
                sample_id=sample.id,
                digest=digests[sample.id],
                answer=None,
                score=dict(sample.failed_score),
                error=True,
            )
            ledger.add(line)
        lines.append(line)
    return lines


def _keep(task: str, sample: Sample, answer: Answer) -> KeptAnswer:
    return KeptAnswer(
        task=task,
        sample_id=sample.id,
        digest=sample.digest,
        request=sample.prompt,
        beginning=sample.conversation.beginning if sample.conversation else "",
        text="\n".join(part for part in (answer.text, answer.calls) if part),
    )


async def _evaluate(
    name: str,
    samples: Sequence[Sample],
    finish: Callable[[str, Answer], Score],
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
    from inspect_ai.scorer import Score as InspectScore
    from inspect_ai.scorer import scorer
    from inspect_ai.solver import generate

    from commonweight.workshop.evals.inspect_conversations import make_input

    tools = {
        sample.id: sample.conversation.tools
        for sample in samples
        if sample.conversation is not None and sample.conversation.tools
    }

    @scorer(metrics=[], name=f"commonweight_{name}")  # samples differ in what they are scored for
    def write_to_ledger() -> "Callable[[TaskState, Target], Any]":
        async def score(state: "TaskState", _target: "Target") -> "InspectScore":
            # An error of the server (a prompt past its window) comes as an output with the error's text.
            refused = state.output.stop_reason == "content_filter"
            if state.output.error and not refused:
                raise RuntimeError("the server refused the prompt with an error")
            return InspectScore(value=dict(finish(str(state.sample_id), _read_output(state.output, refused))))

        return score

    task = inspect_ai.Task(
        dataset=MemoryDataset(
            [
                InspectSample(
                    id=sample.id,
                    input=make_input(sample.conversation) if sample.conversation else sample.prompt,
                )
                for sample in samples
            ],
            name=name,
        ),
        solver=generate() if not tools else _make_solver(tools),
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


def _make_solver(tools: Mapping[str, Sequence[Tool]]) -> "Solver":
    """One answer to each conversation, with its own tools, none of which runs."""
    from inspect_ai.model import get_model
    from inspect_ai.solver import solver

    from commonweight.workshop.evals.inspect_conversations import make_tools

    @solver
    def answer() -> "Callable[[TaskState, Any], Any]":
        async def solve(state: "TaskState", _generate: Any) -> "TaskState":  # noqa: ANN401 - inspect-ai's protocol
            state.output = await get_model().generate(
                state.messages, tools=make_tools(tools.get(str(state.sample_id), ()))
            )
            return state

        return solve

    return answer()


def _read_output(output: "ModelOutput", refused: bool) -> Answer:
    calls = output.message.tool_calls or [] if output.choices else []
    return Answer(
        output.completion,
        refused,
        calls="\n".join(value for call in calls for value in call.arguments.values() if isinstance(value, str)),
        tokens=output.usage.output_tokens if output.usage else 0,
        is_cut=output.stop_reason == "max_tokens",
    )


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
    """Let inspect-ai write into the private folder only, and leave logging as it was.

    Its traces, which it keeps writing to the same file as long as this process lives, are not kept.
    """
    from inspect_ai.util import display_type

    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.chmod(0o700)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with tempfile.TemporaryDirectory() as traces:
        variables = {"INSPECT_DISPLAY": "none", "XDG_DATA_HOME": traces}
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
