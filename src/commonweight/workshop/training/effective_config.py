"""The effective configuration of a training run: what reached TRL and peft and differs from their defaults."""

import dataclasses
import json
import warnings
from enum import Enum
from pathlib import Path
from typing import Any

EFFECTIVE_CONFIG = "training.json"
_OF_A_RUN = (
    "output_dir",
    "logging_dir",
    "run_name",
    "base_model_name_or_path",
    "runtime_config",
)
"""Fields that hold paths, or what differs between equal runs."""


def write_effective_config(output: Path, arguments: Any, adapters: Any, **others: object) -> None:  # noqa: ANN401
    """Writes ``training.json`` beside the model.

    Args:
        arguments: TRL's configuration.
        adapters: peft's configuration; None: all weights were trained.
        others: what else the run was given.
    """
    # bf16 is the default on any machine, and some refuse it.
    machine = {name: getattr(arguments, name) for name in ("bf16", "use_cpu")}
    with warnings.catch_warnings(action="ignore"):  # of defaults that are deprecated
        usual = type(arguments)(output_dir=arguments.output_dir, **machine)
    content = {
        "config": type(arguments).__name__,
        "trl": list_changed_fields(arguments, usual, tuple(machine)),
        "peft": None if adapters is None else list_changed_fields(adapters, type(adapters)()),
        **others,
    }
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    (output / EFFECTIVE_CONFIG).write_text(text + "\n", encoding="utf-8")


def list_changed_fields(config: Any, usual: Any, always: tuple[str, ...] = ()) -> dict[str, object]:  # noqa: ANN401
    """Fields of a configuration that differ from those of another, without paths.

    Args:
        usual: a configuration of the same class with nothing set.
        always: fields that are listed even if they are the same.
    """
    names = [field.name for field in dataclasses.fields(config) if field.init and field.name not in _OF_A_RUN]
    values = {name: (to_json(getattr(config, name)), to_json(getattr(usual, name))) for name in names}
    return {name: value for name, (value, other) in values.items() if value != other or name in always}


def to_json(value: Any) -> Any:  # noqa: ANN401 - any value of a dataclass
    """A value as JSON has it; sets in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, set | frozenset):
        return sorted(to_json(item) for item in value)
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
