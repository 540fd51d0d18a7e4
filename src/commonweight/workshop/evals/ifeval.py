"""IFEval: answers to prompts with instructions that a program can check, such as a number of words.

Metrics: ``prompt strict`` and ``prompt loose`` count prompts all of whose instructions are followed,
``instruction strict`` and ``instruction loose`` count instructions. Loose also accepts an answer without its
markup, its first line or its last one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from commonweight.workshop.evals.checkers import Instructions, check_answer, find_unknown
from commonweight.workshop.evals.datasets import Dataset, choose_rows
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.generation import Answer, Sample
from commonweight.workshop.evals.ledger import SampleLine
from commonweight.workshop.evals.results import Figure, Tally
from commonweight.workshop.evals.settings import IfevalSettings

_METRICS = "prompt strict", "prompt loose", "instruction strict", "instruction loose"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: str = Field(min_length=1)
    instruction_id_list: list[str] = Field(min_length=1)
    kwargs: list[dict[str, Any]]


def make_samples(settings: IfevalSettings, dataset: Dataset) -> list[Sample]:
    """Make samples of a data set.

    Raises:
        EvaluationError: a row has other fields, or an instruction that nothing checks.
    """
    samples = []
    for number, row in _choose(settings, dataset):
        instructions = Instructions(row.prompt, row.instruction_id_list, row.kwargs)
        samples += [
            Sample(f"{dataset.identity.name}:{number}#{repeat}", row.prompt, partial(_score, instructions))
            for repeat in range(settings.samples)
        ]
    return samples


def make_figures(
    settings: IfevalSettings, dataset: Dataset, lines: Sequence[SampleLine], make: Callable[..., Figure]
) -> list[Figure]:
    """Make figures of the lines of all samples, in their order."""
    tallies: dict[str, list[Tally]] = {metric: [] for metric in _METRICS}
    for place, (_number, row) in enumerate(_choose(settings, dataset)):
        own = lines[place * settings.samples : (place + 1) * settings.samples]
        errors = sum(line.error is not None for line in own)
        for metric in _METRICS:
            each = 1 if metric.startswith("prompt") else len(row.instruction_id_list)
            right = sum(line.score.get(metric, 0) for line in own)
            tallies[metric].append(Tally(right, each * len(own), each * errors))
    return [make(metric, tallies[metric]) for metric in _METRICS]


def _score(instructions: Instructions, answer: Answer) -> Mapping[str, int]:
    verdict = check_answer(instructions, answer.text)
    counts = all(verdict.strict), all(verdict.loose), sum(verdict.strict), sum(verdict.loose)
    return dict(zip(_METRICS, map(int, counts), strict=True))


def _choose(settings: IfevalSettings, dataset: Dataset) -> list[tuple[int, _Row]]:
    rows = []
    name = dataset.identity.name
    for number, content in choose_rows(dataset.rows, settings.limit, settings.seed):
        try:
            row = _Row.model_validate(content)
        except ValidationError:
            raise EvaluationError(
                f"row {number} of {name} needs prompt, instruction_id_list and kwargs, as IFEval has them"
            ) from None
        if len(row.kwargs) != len(row.instruction_id_list):
            raise EvaluationError(f"row {number} of {name} has not one kwargs for each instruction")
        if find_unknown(row.instruction_id_list) is not None:
            raise EvaluationError(f"row {number} of {name} has an instruction that IFEval has no checker for")
        rows.append((number, row))
    return rows
