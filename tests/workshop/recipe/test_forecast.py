"""A plan foresees how many rows stages will hold and how large models are, and says what that takes."""

import json
from pathlib import Path

import pytest

from commonweight.catalog.starter import find_starter
from commonweight.lineage.build_folder import BuildFolder
from commonweight.workshop.data.settings import MixSettings
from commonweight.workshop.recipe.estimates import Work, compute_seconds
from commonweight.workshop.recipe.forecast import Volume, count_lengths, mix_volumes, read_model_size
from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.plan import make_plan

pytestmark = pytest.mark.workshop

RECIPE = """
name: planned
description: Prompts and what a model says to them.
use: commercial
stages:
  base:
    kind: import
    from: starter
    model_id: HuggingFaceTB/SmolLM2-135M-Instruct
    licence: Apache-2.0
    trained_tokens: 1
  prompts:
    kind: source
    from: prompts.jsonl
    format: prompts
    fields: {prompt: text, principle: cat}
    leave_out: [other]
    licence: CC0-1.0
  kept:
    kind: filter
    inputs: [prompts]
    max_characters: 100
  text:
    kind: mix
    weights: {prompts: 1}
  gguf:
    kind: export
    model: base
    text: text
    name: small
    quantisations: [Q8_0]
  answers:
    kind: generate
    data: kept
    model: gguf
    samples: 2
    max_tokens: 50
"""


def test_a_plan_counts_rows_that_are_not_made_yet(tmp_path: Path) -> None:
    rows = [{"text": "a" * 40}, {"text": "b" * 60}, {"text": "c" * 400}, {"text": "d" * 40, "cat": "other"}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = parse_recipe(RECIPE.encode(), "recipe.yaml")
    plan = make_plan(recipe, BuildFolder(tmp_path / "build"), tmp_path, None)
    estimates = {stage.name: stage.estimate for stage in plan}
    assert estimates["answers"].startswith("4 answers, 0 k tokens read, at most 0 k written, 0.")
    assert not (tmp_path / "build").exists()


def test_a_mix_is_as_large_as_its_scarcest_input_allows() -> None:
    volumes = {"one": count_lengths([100] * 10), "other": count_lengths([50] * 100)}
    settings = MixSettings(weights={"one": 1, "other": 1}, max_epochs=2)
    assert mix_volumes(settings, volumes) == Volume(60, 4000)
    fewer = MixSettings(weights={"one": 1, "other": 3}, max_epochs=2, characters=400)
    assert mix_volumes(fewer, volumes) == Volume(7, 400)
    assert mix_volumes(settings.model_copy(update={"characters": 5000}), volumes) is None


def test_answers_add_to_their_prompts() -> None:
    assert Volume(3, 300).answer(10, samples=2) == Volume(6, 600 + 6 * 40)
    assert Volume(10, 1000).take(4) == Volume(4, 400)


def test_the_size_of_a_model_is_read_from_its_header() -> None:
    starter = find_starter()
    assert starter is not None
    size = read_model_size(starter)
    assert 134_000_000 < size.parameters < 136_000_000
    assert (size.num_hidden_layers, size.hidden_size, size.vocab_size) == (30, 576, 49152)
    assert compute_seconds(size, Work(1, 0, 2000)) == pytest.approx(2 * compute_seconds(size, Work(1, 0, 1000)))
