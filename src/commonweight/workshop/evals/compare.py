"""The stage ``compare``: two evaluations, and perhaps their models, to a file, a table and pictures."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from commonweight.workshop.evals.comparison import compare_evaluations, encode_comparison
from commonweight.workshop.evals.comparison_table import format_comparison
from commonweight.workshop.evals.contamination import LineageStage, find_contamination
from commonweight.workshop.evals.datasets import DatasetFile, read_dataset
from commonweight.workshop.evals.divergence import measure_divergence
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.pictures import draw_pictures
from commonweight.workshop.evals.results import write_whole
from commonweight.workshop.evals.settings import ComparisonSettings
from commonweight.workshop.evals.targets import check_targets

COMPARISON = "comparison.json"
TABLE = "comparison.txt"
PICTURES = "pictures"


@dataclass(frozen=True)
class ComparedModels:
    """GGUF files of the two models, for their divergence."""

    before: Path
    after: Path


def run_comparison(
    settings: ComparisonSettings,
    before: Path,
    after: Path,
    models: ComparedModels | None,
    datasets: Mapping[str, DatasetFile],
    stages: Sequence[LineageStage],
    measured: Sequence[Path],
    output: Path,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    """Compare two evaluations, and write and print what came of it.

    Args:
        before, after: outputs of evaluations.
        datasets: the file of prompts for the divergence, by its name.
        stages: what the later model depends on.
        measured: dataset folders of the sets that it was measured on.

    Returns:
        Targets met, missed and not to be had.

    Raises:
        EvaluationError: they cannot be compared.
    """
    comparison = compare_evaluations(before, after)
    if settings.divergence is not None:
        if models is None:
            raise EvaluationError("the divergence needs before_model and after_model")
        dataset = read_dataset(settings.divergence.dataset, datasets)
        found = measure_divergence(
            settings.divergence,
            dataset,
            models.before,
            models.after,
            output,
            parallel=settings.parallel,
            report=report,
        )
        comparison = replace(comparison, divergence=found)
    comparison = replace(comparison, contamination=find_contamination(stages, measured))
    targets = list(check_targets(settings.targets, comparison))
    encoded = encode_comparison(comparison) | {"targets": [target.model_dump() for target in targets]}
    write_whole(output / COMPARISON, json.dumps(round_numbers(encoded), indent=1, allow_nan=False) + "\n")
    table = format_comparison(comparison, targets)
    write_whole(output / TABLE, table)
    (output / PICTURES).mkdir(exist_ok=True)
    for name, picture in draw_pictures(comparison).items():
        write_whole(output / PICTURES / f"{name}.svg", picture)
    for line in table.splitlines():
        report(line)
    verdicts = [target.verdict for target in targets]
    return {f"targets {verdict}": verdicts.count(verdict) for verdict in ("met", "missed", "n/a")}


def round_numbers(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Six digits behind the point; what is infinite is null."""
    if isinstance(value, dict):
        return {key: round_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_numbers(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
