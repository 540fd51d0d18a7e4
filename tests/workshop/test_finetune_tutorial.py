"""The page that fine-tunes a model, run as it is written, with a tiny model as the one that it begins with."""

import re
import shutil
from pathlib import Path

import pytest
from pages import run_page

from commonweight.lineage.build_folder import BuildFolder
from commonweight.workshop.recipe.build import Builder
from commonweight.workshop.recipe.parse import parse_recipe

pytestmark = pytest.mark.workshop

BASE = b"""
name: base
stages:
  pages:
    kind: source
    from: package:commonweight/workshop/recipe/recipes/sqlite/text.jsonl
    format: text
    licence: LicenseRef-Public-Domain
  text: {kind: mix, weights: {pages: 1}, validation: 0.05}
  tokenizer: {kind: tokenizer, data: text, vocab_size: 1024}
  base:
    {kind: pretrain, data: text, tokenizer: tokenizer, layers: 1, dim: 256, heads: 4, kv_heads: 1, context: 256,
     batch_tokens: 1024, steps: 4}
  gguf: {kind: export, model: base, text: text, name: base, quantisations: []}
"""


@pytest.mark.timeout(900)
def test_the_page_runs_as_written(tmp_path: Path) -> None:
    folder = BuildFolder(tmp_path / "base")
    builder = Builder(parse_recipe(BASE, "base"), folder, tmp_path, None, "2026-11-30")
    builder.build(lambda line: None)
    made = builder.find_served_file()
    assert made is not None
    shutil.move(made, tmp_path / "base.gguf")
    _, _, _, plan, build, again, served, exported = run_page("finetune.md", tmp_path)
    assert "tuned" in plan
    assert "6 of 6 stages ran" in build
    assert "0 of 6 stages ran" in again
    assert re.search(
        r"^Serve it: commonweight serve --model build/outputs/gguf/\w+/bakery-Q8_0.gguf$", again, re.M
    )
    assert '"type":"message"' in served
    assert "trl sft --config config.yaml" in exported
    [adapter] = (tmp_path / "assistant" / "build" / "outputs" / "tuned").glob(
        "*/adapter/adapter_model.safetensors"
    )
    assert adapter.stat().st_size > 0
