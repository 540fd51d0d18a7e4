"""A recipe that is built in seconds, its source, and how tests build it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.record import Record
from commonweight.workshop.recipe.build import Builder
from commonweight.workshop.recipe.parse import read_recipe

DAY = "2026-11-30"
_PEOPLE = ["Ada", "Ben", "Cleo", "Dora", "Emil", "Fay"]
_THINGS = ["river", "lamp", "garden", "bridge", "letter", "apple"]


def write_texts(path: Path, count: int = 60, seed: int = 7) -> Path:
    """Texts as JSON lines."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        sentences = [
            f"{dice.choice(_PEOPLE)} saw the {dice.choice(_THINGS)} by the {dice.choice(_THINGS)} of {number}."
            for _ in range(6)
        ]
        lines.append(json.dumps({"text": " ".join(sentences)}))
    path.write_text("\n".join(lines) + "\n")
    return path


def make_recipe(**stages: dict[str, Any]) -> dict[str, Any]:
    """The content of the recipe; ``stages`` are merged into those of the same names, or added."""
    content: dict[str, Any] = {
        "name": "small",
        "stages": {
            "pages": {"kind": "source", "from": "pages.jsonl", "format": "text", "licence": "CC0-1.0"},
            "clean": {"kind": "filter", "inputs": ["pages"]},
            "text": {"kind": "mix", "weights": {"clean": 1}, "validation": 0.1},
            "tokenizer": {"kind": "tokenizer", "data": "text", "vocab_size": 512},
            "base": {
                **{"kind": "pretrain", "data": "text", "tokenizer": "tokenizer", "layers": 1, "dim": 64},
                **{"heads": 1, "kv_heads": 1, "context": 64, "batch_tokens": 128, "steps": 20},
                **{"evaluation_interval": 10, "checkpoint_interval": 5},
            },
        },
    }
    for name, fields in stages.items():
        content["stages"][name] = content["stages"].get(name, {}) | fields
    return content


def write_recipe(folder: Path, content: dict[str, Any]) -> Path:
    """The recipe's file, with its source beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pages.jsonl").exists():
        write_texts(folder / "pages.jsonl")
    path = folder / "recipe.yaml"
    # Without what is shared in memory: it would be written as an alias, which recipes have not.
    path.write_text(yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False))
    return path


def build(path: Path, only: str | None = None, report: Callable[[str], None] = lambda line: None) -> list[str]:
    """Build a recipe beside its file.

    Returns:
        The stages that ran.
    """
    return make_builder(path).build(report, only)


def make_builder(path: Path) -> Builder:
    """What builds a recipe beside its file."""
    return Builder(read_recipe(path), BuildFolder(path.parent / "build"), path.parent, None, DAY)


def read_built(path: Path) -> dict[str, Record]:
    """The records of the last build beside a recipe, by stage."""
    folder = BuildFolder(path.parent / "build")
    stages: Any = (folder.read_status() or {})["stages"]
    records = {name: folder.find_record(name, stage["key"]) for name, stage in stages.items()}
    return {name: record for name, record in records.items() if record is not None}
