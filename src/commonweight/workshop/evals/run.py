"""Runs an evaluation: each task on its samples, then figures and a ledger without any text."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as calendar_date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import JsonValue

from commonweight import __version__
from commonweight.engines.contract import EngineError
from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import GuardSettings
from commonweight.turn import Assistant
from commonweight.workshop.evals import (
    answer_bits,
    bits_per_byte,
    collapse,
    compliance,
    hellaswag,
    ifeval,
    refusal,
)
from commonweight.workshop.evals.answer_bits import AnsweredPrompt
from commonweight.workshop.evals.bits_per_byte import Passage
from commonweight.workshop.evals.datasets import Dataset, DatasetFile, read_dataset
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.generation import NO_KEY, Generation, Sample, run_samples
from commonweight.workshop.evals.hellaswag import Question
from commonweight.workshop.evals.kept_answers import read_answers
from commonweight.workshop.evals.ledger import Ledger, SampleLine
from commonweight.workshop.evals.results import Figure, make_figure, write_results
from commonweight.workshop.evals.settings import (
    AnswerBitsSettings,
    BitsPerByteSettings,
    CollapseSettings,
    ComplianceSettings,
    EndpointSettings,
    EvaluationSettings,
    HellaSwagSettings,
    IfevalSettings,
    RefusalSettings,
    TaskSettings,
)

Report = Callable[[str], None]
AnySample = Sample | Question | Passage | AnsweredPrompt


@dataclass(frozen=True)
class _Part:
    """Samples that figures are made of."""

    samples: Sequence[AnySample]
    make_figures: Callable[[Sequence[SampleLine]], list[Figure]]


@dataclass(frozen=True)
class _Task:
    settings: TaskSettings
    parts: Sequence[_Part]

    @property
    def samples(self) -> list[AnySample]:
        return [sample for part in self.parts for sample in part.samples]


def run_evaluation(
    settings: EvaluationSettings,
    model: Path | None,
    datasets: Mapping[str, DatasetFile],
    output: Path,
    report: Report,
    date: str,
    guard: GuardSettings | None = None,
) -> dict[str, float | str]:
    """Measure a model, and write ``results.json``, ``samples.jsonl`` and the private ``logs``.

    What a killed run left in ``output`` is gone on from: finished samples are not repeated.

    Args:
        model: GGUF file to run in process; None: the settings name an endpoint.
        datasets: files by the names that the settings give to data sets.
        date: of the figures, as YYYY-MM-DD.
        guard: in front of the model that runs in process; None: it is measured alone.

    Returns:
        Seconds of each task.

    Raises:
        EvaluationError: settings, files and model do not go together, or a task could not be run.
    """
    _check_date(date)
    if (model is None) == (settings.endpoint is None):
        raise EvaluationError("an evaluation needs either a model file or an endpoint in its settings")
    if model is not None and not model.is_file():
        raise EvaluationError(f"the model {model.name} is no file")
    read = {name: read_dataset(name, datasets) for name in settings.datasets}
    tasks = [_make_task(task, read, date) for task in settings.tasks]
    with contextlib.closing(Ledger(output / "samples.jsonl")) as ledger:
        try:
            figures, observed = asyncio.run(
                _run_tasks(settings, tasks, model, guard, ledger, output / "logs", report)
            )
        except (EngineError, UserError, OSError) as error:
            raise EvaluationError(f"the model cannot be evaluated: {error}") from error
        ledger.finish([(task.settings.task, sample.id) for task in tasks for sample in task.samples])
    write_results(output / "results.json", figures)
    return observed


def _check_date(date: str) -> None:
    try:
        is_plain = calendar_date.fromisoformat(date).isoformat() == date
    except ValueError:
        is_plain = False
    if not is_plain:
        raise EvaluationError("the date of an evaluation is written YYYY-MM-DD")


def _make_task(settings: TaskSettings, datasets: Mapping[str, Dataset], date: str) -> _Task:
    sampling: dict[str, JsonValue] = settings.model_dump(
        include={"limit", "seed", "context", "words", "max_characters"}
    )
    harness = f"commonweight {__version__}"
    if isinstance(settings, HellaSwagSettings | BitsPerByteSettings | AnswerBitsSettings):
        sampling["method"] = "log-likelihood"
    else:
        sampling |= settings.model_dump(include={"max_tokens", "temperature", "samples"})
        harness += f", inspect-ai {_find_version('inspect-ai')}"
    if isinstance(settings, IfevalSettings):
        harness += f", checkers of lm-eval {_find_version('lm-eval')}"

    def make(dataset: Dataset, **own: JsonValue) -> Callable[..., Figure]:
        return partial(
            make_figure,
            settings.task,
            sampling=sampling | own,
            harness=harness,
            date=date,
            dataset=dataset.identity,
        )

    parts: list[_Part] = []
    match settings:
        case IfevalSettings():
            dataset = datasets[settings.dataset]
            samples = ifeval.make_samples(settings, dataset)
            parts.append(_Part(samples, partial(ifeval.make_figures, settings, dataset, make=make(dataset))))
        case HellaSwagSettings():
            dataset = datasets[settings.dataset]
            questions = hellaswag.read_questions(settings, dataset)
            parts.append(_Part(questions, partial(hellaswag.make_figures, make=make(dataset))))
        case BitsPerByteSettings():
            dataset = datasets[settings.dataset]
            passages = bits_per_byte.read_passages(settings, dataset)
            parts.append(_Part(passages, partial(bits_per_byte.make_figures, make=make(dataset))))
        case AnswerBitsSettings():
            dataset = datasets[settings.dataset]
            answers = answer_bits.read_answered_prompts(settings, dataset)
            parts.append(_Part(answers, partial(bits_per_byte.make_figures, make=make(dataset))))
        case CollapseSettings():
            dataset = datasets[settings.dataset]
            samples = collapse.make_samples(settings, dataset)
            parts.append(_Part(samples, partial(collapse.make_figures, make=make(dataset))))
        case ComplianceSettings():
            for requests in settings.datasets:
                dataset = datasets[requests.dataset]
                samples = compliance.make_samples(settings, requests, dataset)
                made = make(dataset, limit=requests.limit or settings.limit)
                parts.append(_Part(samples, partial(compliance.make_figures, settings, requests, make=made)))
        case RefusalSettings():
            for group in settings.datasets:
                dataset = datasets[group.dataset]
                samples = refusal.make_samples(settings, group, dataset)
                parts.append(_Part(samples, partial(refusal.make_figures, settings, group, make=make(dataset))))
    return _Task(settings, parts)


async def _run_tasks(
    settings: EvaluationSettings,
    tasks: Sequence[_Task],
    model: Path | None,
    guard: GuardSettings | None,
    ledger: Ledger,
    logs: Path,
    report: Report,
) -> tuple[list[Figure], dict[str, float | str]]:
    figures: list[Figure] = []
    observed: dict[str, float | str] = {}
    async with contextlib.AsyncExitStack() as stack:
        assistant: Assistant | None = None
        endpoint = settings.endpoint
        if model is not None:
            from commonweight.workshop.evals.model_server import open_model, serve_model

            report(f"loading {model.name}")
            assistant = await stack.enter_async_context(open_model(model, parallel=settings.parallel, guard=guard))
            url = await stack.enter_async_context(serve_model(assistant))
            endpoint = EndpointSettings(url=url, model=assistant.card.id)
        for task in tasks:
            report(f"{task.settings.task}: {len(task.samples)} samples")
            start = time.monotonic()
            lines = await _run_task(task, settings, assistant, endpoint, ledger, logs, report)
            observed[f"{task.settings.task} seconds"] = round(time.monotonic() - start, 1)
            for part in task.parts:
                own, lines = lines[: len(part.samples)], lines[len(part.samples) :]
                figures += part.make_figures(own)
    for figure in figures:
        report(
            f"{figure.task} {figure.metric} ({figure.dataset.name}): {figure.value:.4f} "
            f"[{figure.low:.4f}, {figure.high:.4f}], n={figure.n}, errors={figure.errors}"
        )
    return figures, observed


async def _run_task(
    task: _Task,
    settings: EvaluationSettings,
    assistant: Assistant | None,
    endpoint: EndpointSettings | None,
    ledger: Ledger,
    logs: Path,
    report: Report,
) -> list[SampleLine]:
    if isinstance(task.settings, HellaSwagSettings):
        assert assistant is not None, "settings refuse hellaswag with an endpoint"
        questions = [sample for sample in task.samples if isinstance(sample, Question)]
        return await hellaswag.run_questions(
            questions, assistant.engine, assistant.tokenize, ledger, parallel=settings.parallel, report=report
        )
    if isinstance(task.settings, BitsPerByteSettings):
        assert assistant is not None, "settings refuse bits_per_byte with an endpoint"
        passages = [sample for sample in task.samples if isinstance(sample, Passage)]
        return await bits_per_byte.run_passages(
            passages, task.settings, assistant.engine, assistant.tokenize, ledger, parallel=settings.parallel
        )
    if isinstance(task.settings, AnswerBitsSettings):
        assert assistant is not None, "settings refuse answer_bits with an endpoint"
        answers = [sample for sample in task.samples if isinstance(sample, AnsweredPrompt)]
        return await answer_bits.run_answers(answers, assistant, ledger, parallel=settings.parallel)
    assert endpoint is not None, "either a model is served, or the settings name an endpoint"
    samples = [sample for sample in task.samples if isinstance(sample, Sample)]
    generation = Generation(
        url=endpoint.url,
        model=endpoint.model,
        key=_find_key(endpoint),
        max_tokens=task.settings.max_tokens,
        temperature=task.settings.temperature,
        parallel=settings.parallel,
        timeout=settings.timeout,
        retries=settings.retries,
    )
    lines = await run_samples(task.settings.task, samples, generation, ledger, logs)
    if isinstance(task.settings, CollapseSettings) and any(line.error is None for line in lines):
        texts = {name: kept.text for name, kept in read_answers(logs, collapse.TASK).items()}
        lines = collapse.complete_lines(task.settings, lines, texts)
        for line in lines:
            ledger.add(line)
    return lines


def _find_key(endpoint: EndpointSettings) -> str:
    if endpoint.key_variable is None:
        return NO_KEY
    key = os.environ.get(endpoint.key_variable)
    if not key:
        raise EvaluationError(
            f"the environment variable {endpoint.key_variable}, for the endpoint's key, is not set"
        )
    return key


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise EvaluationError(f"{package} is missing: `pip install 'commonweight[evals]'` brings it") from None
