"""Files of a run elsewhere: which of them are read, their shapes, and what its log says. Needs no torch."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from commonweight.workshop.training.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from commonweight.workshop.training.settings import TrainingError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
STATE = "trainer_state.json"
"""The log of transformers' trainer, which TRL and axolotl write."""
HEAD = "lm_head.weight"
"""Tensor that a model with tied embeddings may hold twice."""

_MAX_JSON_BYTES = 256 * 2**20


@dataclass(frozen=True)
class RunFiles:
    """The files of a run that are read: weights of a whole model or of an adapter, and the log."""

    folder: Path
    weights: tuple[str, ...]
    is_adapter: bool
    state: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All files that are read, relative to the folder."""
        config = (ADAPTER_CONFIG,) if self.is_adapter else ()
        return (*config, *self.weights, *((self.state,) if self.state else ()))


def find_run_files(folder: Path) -> RunFiles:
    """Find weights and log in the folder that a trainer wrote: safetensors in Hugging Face's or peft's layout.

    Raises:
        TrainingError: it is not there, or holds no such weights.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder of a run")
    state = _find_state(folder)
    if (folder / ADAPTER_WEIGHTS).is_file():
        if not (folder / ADAPTER_CONFIG).is_file():
            raise TrainingError(f"{folder} has an adapter without its {ADAPTER_CONFIG}")
        return RunFiles(folder, (ADAPTER_WEIGHTS,), True, state)
    if (folder / WEIGHTS).is_file():
        return RunFiles(folder, (WEIGHTS,), False, state)
    if (folder / INDEX).is_file():
        shards = read_json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
        if names and all(Path(name).name == name and (folder / name).is_file() for name in names):
            return RunFiles(folder, tuple(names), False, state)
        raise TrainingError(f"{folder} has not all of the files that its {INDEX} names")
    raise TrainingError(f"{folder} holds neither {ADAPTER_WEIGHTS} nor {WEIGHTS}; other formats are not read")


def read_shapes(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of safetensors files, by name.

    Raises:
        TrainingError: one is damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            with safe_open(path, framework="numpy") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise TrainingError(f"{path.name} of the run is not a sound safetensors file") from error
    return shapes


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, is_tied: bool = False
) -> None:
    """Compare a run's tensors with those of the model that it began with.

    Args:
        is_tied: the output's weights are those of the embeddings, whether or not the run wrote them again.

    Raises:
        TrainingError: one is missing, unknown or of another shape.
    """
    optional = {HEAD} if is_tied else set()
    if missing := expected.keys() - found.keys() - optional:
        raise TrainingError(f"the run lacks {min(missing)}, which the model that it began with has")
    if unknown := found.keys() - expected.keys() - optional:
        raise TrainingError(f"the run has {min(unknown)}, which the model that it began with lacks")
    for name in sorted(found.keys() & expected.keys()):
        if found[name] != expected[name]:
            raise TrainingError(f"{name} of the run has the shape {found[name]}, and {expected[name]} is wanted")


def read_history(run: RunFiles) -> list[dict[str, Any]]:
    """The entries of a run's log, none where it has none.

    Raises:
        TrainingError: the log is not one of transformers' trainer.
    """
    if run.state is None:
        return []
    history = read_json(run.folder / run.state).get("log_history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) and "step" in entry for entry in history):
        raise TrainingError(f"{run.state} of the run is not the state of a trainer")
    return history


def find_last(history: Iterable[Mapping[str, Any]], *names: str) -> float | None:
    """The last value that a log has under one of the names; None where it has none."""
    values = [entry[name] for entry in history for name in names if isinstance(entry.get(name), int | float)]
    return float(values[-1]) if values and math.isfinite(values[-1]) else None


def read_json(path: Path) -> dict[str, Any]:
    """Read an object of JSON.

    Raises:
        TrainingError: it is none.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise TrainingError(f"{path.name} of the run is larger than {_MAX_JSON_BYTES // 2**20} MiB")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(f"{path.name} of the run is not JSON") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path.name} of the run is not an object of JSON")
    return content


def _find_state(folder: Path) -> str | None:
    """The newest log: the trainer's own, else that of its last checkpoint."""
    if (folder / STATE).is_file():
        return STATE
    steps = [
        path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if (path / STATE).is_file()
    ]
    numbers = [int(step) for step in steps if step.isdecimal()]
    return f"checkpoint-{max(numbers)}/{STATE}" if numbers else None
