"""A recipe of seconds that fine-tunes a tiny model on conversations about a bakery, and exports it."""

import json
from pathlib import Path
from typing import Any

from small_recipe import make_recipe, write_recipe

BREADS = ["rye loaf", "plain roll", "seed bun", "oat bread", "corn cake", "milk roll"]
GIVEN = "We sell stale bread"
"""A beginning of an answer that no model is to learn."""


def write_conversations(path: Path, count: int = 40) -> Path:
    """Conversations as JSON lines, of one or two exchanges."""
    lines = []
    for number in range(count):
        bread = BREADS[number % len(BREADS)]
        messages = [
            {"role": "user", "content": f"What does the {bread} number {number} cost?"},
            {"role": "assistant", "content": f"The {bread} costs {number % 7 + 1} coins."},
        ]
        if number % 3 == 0:
            messages += [
                {"role": "user", "content": "And tomorrow?"},
                {"role": "assistant", "content": f"Tomorrow the {bread} costs the same."},
            ]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_pairs(path: Path, count: int = 30) -> Path:
    """Preferences as JSON lines."""
    lines = []
    for number in range(count):
        bread = BREADS[number % len(BREADS)]
        content = {
            "prompt": [{"role": "user", "content": f"Is the {bread} number {number} fresh?"}],
            "chosen": [{"role": "assistant", "content": f"The {bread} was baked at {number % 5 + 4}."}],
            "rejected": [{"role": "assistant", "content": f"No idea {number}."}],
        }
        lines.append(json.dumps(content))
    path.write_text("\n".join(lines) + "\n")
    return path


def make_tuned_recipe(**stages: dict[str, Any]) -> dict[str, Any]:
    """The content of the recipe; ``stages`` are merged into those of the same names, or added."""
    own: dict[str, dict[str, Any]] = {
        "asked": {"kind": "source", "from": "asked.jsonl", "format": "messages", "licence": "CC-BY-4.0"},
        "lessons": {"kind": "mix", "weights": {"asked": 1}, "validation": 0.2},
        "chat": {
            **{"kind": "sft", "data": "lessons", "model": "base", "lora": {"r": 4}, "batch_size": 4},
            **{"max_length": 96, "max_steps": 4, "evaluation_interval": 2},
        },
        "gguf": {"kind": "export", "model": "chat", "text": "text", "name": "small", "quantisations": ["Q8_0"]},
    }
    for name, fields in stages.items():
        own[name] = own.get(name, {}) | fields
    return make_recipe(**own)


def write_tuned_recipe(folder: Path, content: dict[str, Any]) -> Path:
    """The recipe's file, with its sources beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_conversations(folder / "asked.jsonl")
    write_pairs(folder / "pairs.jsonl")
    return write_recipe(folder, content)
