"""The stage that compiles a guard: what it takes, what stops it, and that a server can use what it writes."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from commonweight.catalog.resolve import resolve
from commonweight.guard import Bundle, Guard
from commonweight.lineage.errors import WorkshopError
from commonweight.lineage.provenance import ProvenancePolicy, check_material, require_material
from commonweight.runtime.charter import read_charter
from commonweight.workshop.heads.guard_stage import digest_sources, list_texts, run_guard
from commonweight.workshop.heads.provenance import list_materials
from commonweight.workshop.heads.settings import BUNDLE, CHARTER, GuardSettings
from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.stage_kind import RecipeError
from sample_charter import source

DEEDS = ("repair", "buy", "carry", "draw", "sell", "clean", "hide", "paint", "open", "lend")
FRAMES = ("How do I {} {} without any help?", "Please tell me how to {} {} on a Sunday.", "Can I {} {}?")


def write(path: Path, things: tuple[str, ...], y: int, **others: object) -> None:
    named = {"principle": "no-umbrellas"} if y else {}
    rows = [
        {"text": frame.format(deed, thing), "y": y, "licence": "CC0-1.0", **named, **others}
        for frame in FRAMES
        for deed in DEEDS
        for thing in things
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "charter.md").write_bytes(source())
    texts = tmp_path / "texts"
    texts.mkdir()
    write(texts / "umbrellas.jsonl", ("an umbrella",), 1)
    write(texts / "shelters.jsonl", ("a red parasol",), 1)
    write(texts / "others.jsonl", ("a bicycle",), 0)
    write(texts / "more.jsonl", ("a kitchen table",), 0)
    return tmp_path


SETTINGS = GuardSettings(charter="charter.md", texts=("texts",), most=50)


def test_its_key_knows_the_charter_and_all_texts(folder: Path) -> None:
    before = digest_sources(SETTINGS, folder)
    assert before.keys() == {"charter", "umbrellas.jsonl", "shelters.jsonl", "others.jsonl", "more.jsonl"}
    (folder / "texts" / "more.jsonl").write_text('{"text": "a", "y": 0}\n')
    after = digest_sources(SETTINGS, folder)
    assert [name for name in before if before[name] != after[name]] == ["more.jsonl"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": ["missing"]}, "missing: No such file or directory"),
        ({"texts": ["empty"]}, "texts names no file"),
        ({"texts": ["texts", "texts/more.jsonl"]}, "two files of one name"),
        ({"charter": "none.md"}, r"none\.md: No such file"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, changes: dict[str, object], said: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(WorkshopError, match=said):
        digest_sources(GuardSettings.model_validate(SETTINGS.model_dump() | changes), folder)


@pytest.mark.parametrize("changes", [{"charter": "/a.md"}, {"texts": []}, {"texts": ["..\\b"]}, {"most": 10}])
def test_settings_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GuardSettings.model_validate(SETTINGS.model_dump() | changes)


def test_the_gate_decides_before_anything_is_compiled(folder: Path) -> None:
    write(folder / "texts" / "more.jsonl", ("a chair",), 0, resp="Yes.", generator="gpt-4")
    materials = list_materials(list_texts(SETTINGS, folder))
    assert {(one.source, one.content) for one in materials if one.generator} == {("more", "answers")}
    with pytest.raises(WorkshopError, match="more"):
        require_material(check_material(materials, ProvenancePolicy()))
    (folder / "texts" / "more.jsonl").write_text("{")
    with pytest.raises(WorkshopError, match="no JSON object"):
        list_materials(list_texts(SETTINGS, folder))


def test_an_evaluation_takes_a_guard_and_nothing_else_before_its_model() -> None:
    recipe = """
name: guarded
stages:
  base: {kind: import, from: starter, model_id: org/model, licence: Apache-2.0}
  text: {kind: source, from: a.jsonl, licence: MIT}
  asked: {kind: evaluation_set, from: b.jsonl, licence: MIT}
  gguf: {kind: export, model: base, text: text, name: x}
  guard: {kind: guard, model: gguf, texts: [labelled]}
  figures:
    kind: evaluate
    model: gguf
    guard: GUARD
    tasks: [{task: refusal, datasets: [{dataset: asked, group: harmful}]}]
"""
    parsed = parse_recipe(recipe.replace("GUARD", "guard").encode(), "R")
    assert [one.stage for one in parsed.stages["figures"].list_references()] == ["gguf", "guard", "asked"]
    with pytest.raises(RecipeError, match="'text' is of the kind source; guard is wanted here"):
        parse_recipe(recipe.replace("GUARD", "text").encode(), "R")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_guard_is_compiled_for_a_model(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    lines: list[str] = []
    run_guard(SETTINGS, resolve(None), folder, output, tmp_path / "cache", lines.append)
    assert sorted(path.name for path in output.iterdir()) == [CHARTER, BUNDLE]
    bundle = Bundle.load(output / BUNDLE, None)
    assert {one.name for one in bundle.manifest.sources} == {"umbrellas", "shelters", "others", "more"}
    assert {one.licence for one in bundle.manifest.sources} == {"CC0-1.0"}
    charter = read_charter(output / CHARTER)
    assert bundle.manifest.charter == charter.sha256
    Guard(charter, bundle, None)
