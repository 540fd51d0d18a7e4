"""Sampling and system text that a model's publisher recommends, for requests that say nothing of them.

Looked for in the file's metadata (``general.sampling.*``, https://github.com/ggml-org/llama.cpp/pull/17120), then
in a ``generation_config.json`` beside it, then in a table of families. Parameters that a recommendation leaves out
are those of the API: every token may be drawn, at temperature 1.
"""

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger(__name__)

CONFIG_FILE: Literal["generation_config.json"] = "generation_config.json"
MAX_CONFIG_BYTES = 1 << 20

Source = Literal["api", "file", "generation_config.json", "family"]


@dataclass(frozen=True)
class GenerationDefaults:
    """What holds where a request sets none of ``temperature``, ``top_p`` and ``top_k``, or no system text."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    source: Source = "api"
    """Where the sampling was found; ``api``: nowhere."""
    system: str | None = None
    """System text; None: the chat template's own, if it has one."""


API_DEFAULTS = GenerationDefaults()

_STARTER_SYSTEM = "You are a helpful assistant. Give short, correct answers."
_FAMILIES = {
    # From the models' cards and their publishers' own examples.
    r"smollm2": GenerationDefaults(temperature=0.2, top_p=0.9),
    # Its template's own text costs right answers: "What is the capital of France?" 45 of 100 instead of 40 of 40.
    r"smollm2.*135m": GenerationDefaults(temperature=0.2, top_p=0.9, system=_STARTER_SYSTEM),
    r"smollm3": GenerationDefaults(temperature=0.6, top_p=0.95),
    r"qwen2\.5": GenerationDefaults(temperature=0.7, top_p=0.8, top_k=20),
    r"qwen3(?![.\d])": GenerationDefaults(temperature=0.6, top_p=0.95, top_k=20),
    r"gemma-?3": GenerationDefaults(temperature=1.0, top_p=0.95, top_k=64),
    r"llama-?3": GenerationDefaults(temperature=0.6, top_p=0.9),
    r"mistral-small-3": GenerationDefaults(temperature=0.15),
    r"deepseek-r1": GenerationDefaults(temperature=0.6, top_p=0.95),
    r"lfm2": GenerationDefaults(temperature=0.3, min_p=0.15),
}
"""By a pattern that the model's name has; the last that fits holds, as distilled models carry two."""


def find_generation_defaults(path: Path, metadata: Mapping[str, str]) -> GenerationDefaults:
    """Find what is recommended for a model file with this metadata."""
    family = _find_family(path, metadata)
    keys = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
    embedded = {name: metadata.get(f"general.sampling.{key}") for name, key in keys.items()}
    found = _read(embedded, "file") or _read(_load_config(path.with_name(CONFIG_FILE)), CONFIG_FILE)
    defaults = replace(found, system=family.system) if found else family
    return defaults if "tokenizer.chat_template" in metadata else replace(defaults, system=None)


def _find_family(path: Path, metadata: Mapping[str, str]) -> GenerationDefaults:
    keys = ("general.basename", "general.name", "general.finetune", "general.size_label")
    name = re.sub(r"[\s_]+", "-", " ".join([*(metadata.get(key, "") for key in keys), path.stem]).lower())
    fits = [defaults for pattern, defaults in _FAMILIES.items() if re.search(pattern, name)]
    return replace(fits[-1], source="family") if fits else API_DEFAULTS


def _load_config(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("it is too large")
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s is not used: %s", path, error)
        return {}
    if config.get("do_sample") is False:
        return {"temperature": 0.0}
    return config


def _read(values: Mapping[str, Any], source: Source) -> GenerationDefaults | None:
    """The parameters among ``values`` that can be used; None if there are none."""
    found: dict[str, Any] = {}
    for name, most in (("temperature", 10.0), ("top_p", 1.0), ("top_k", 1e6), ("min_p", 1.0)):
        try:
            value = float(values[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value) and 0 <= value <= most:
            found[name] = int(value) if name == "top_k" else value
    return GenerationDefaults(**found, source=source) if found else None
