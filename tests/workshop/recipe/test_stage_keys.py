"""Keys of stages: what makes a stage run again, and what does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_recipe import build, make_recipe, read_built, write_recipe, write_texts

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.chain import make_chain
from commonweight.lineage.digests import LineageError
from commonweight.workshop.data.rows import DataError
from commonweight.workshop.recipe import build as building
from commonweight.workshop.recipe import plan as planning
from commonweight.workshop.recipe.parse import read_recipe
from commonweight.workshop.recipe.plan import make_plan
from commonweight.workshop.recipe.stages import KINDS

pytestmark = pytest.mark.workshop

DATA = ("pages", "clean", "text")
CHANGES: dict[str, dict[str, Any]] = {
    "pages": {"format": "auto", "generator": "x", "limit": 50, "row_characters": 512, "name": "other"},
    "clean": {"exact_duplicates": False, "min_characters": 2, "decontaminate": False, "near_duplicates": True},
    "text": {"validation": 0.2, "seed": 3, "max_epochs": 2, "characters": 10},
    "tokenizer": {"vocab_size": 600, "extra_tokens": ["<x>"]},
    "base": {"steps": 30, "muon_lr": 0.1, "seed": 9, "layers": 2, "checkpoint_interval": 6},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose data is built."""
    path = write_recipe(tmp_path_factory.mktemp("built"), make_recipe())
    assert build(path, "text") == list(DATA)
    return path


def list_keys(folder: Path, content: dict[str, Any]) -> dict[str, str | None]:
    """Keys by stage in a folder where the data is built; None: an input is not there."""
    path = write_recipe(folder, content)
    return {
        stage.name: stage.key
        for stage in make_plan(read_recipe(path), BuildFolder(folder / "build"), folder, None)
    }


@pytest.mark.parametrize(
    ("stage", "field"), [(stage, field) for stage, fields in CHANGES.items() for field in fields]
)
def test_a_parameter_is_in_the_key_of_its_stage_only(
    built: Path, stage: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tokenizer is taken as built, so that pretraining has a key, too.
    records = read_built(built)
    monkeypatch.setattr(
        BuildFolder, "find_record", lambda _self, name, _key: records.get(name, records["text"]), raising=True
    )
    before = list_keys(built.parent, make_recipe())
    after = list_keys(built.parent, make_recipe(**{stage: {field: CHANGES[stage][field]}}))
    assert [name for name in before if before[name] != after[name]] == [stage]


@pytest.mark.parametrize("use", ["research", "commercial"])
def test_the_policy_is_in_the_keys_of_sources_only(built: Path, use: str) -> None:
    before, after = (
        list_keys(built.parent, make_recipe() | policy) for policy in ({"share-alike": "propagate"}, {"use": use})
    )
    assert [name for name in ("pages",) if before[name] != after[name]] == ["pages"]
    imports = {
        "name": "x",
        "stages": {"m": {"kind": "import", "from": "starter", "model_id": "a/b", "licence": "MIT"}},
    }
    other = list_keys(built.parent, {**imports, "use": "research"})
    assert list_keys(built.parent, imports)["m"] != other["m"]


def test_equal_outputs_stop_what_follows(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe())
    assert build(path, "text") == list(DATA)
    before = read_built(path)
    write_recipe(tmp_path, make_recipe(clean={"max_characters": 999_999}))
    assert build(path, "text") == ["clean"]
    after = read_built(path)
    assert after["clean"].content == before["clean"].content
    # The mix was not made again; its record names the record that its input has now, so that the chain holds.
    assert after["text"].files == before["text"].files
    assert after["text"].inputs[0].record == after["clean"].identity != before["clean"].identity
    make_chain([after["text"].identity], BuildFolder(tmp_path / "build").read_records())
    assert build(path, "text") == []


def test_another_licence_reaches_what_follows_without_work(tmp_path: Path) -> None:
    content = make_recipe(pages={"generator": None, "licence": "CC0-1.0"})
    path = write_recipe(tmp_path, content)
    build(path, "text")
    (tmp_path / "LICENSE").write_text("CC0 1.0 Universal")
    write_recipe(tmp_path, make_recipe(pages={"licence_texts": ["LICENSE"]}))
    assert build(path, "text") == ["pages"]
    write_recipe(tmp_path, make_recipe(pages={"licence": "MIT"}))
    assert build(path, "text") == list(DATA)
    assert read_built(path)["text"].licences == ("MIT",)


def test_a_source_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe())
    build(path, "text")
    write_texts(tmp_path / "pages.jsonl", seed=8)
    assert build(path, "text") == list(DATA)


def test_a_licence_text_that_changed_is_looked_at_again(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("CC0 1.0 Universal")
    path = write_recipe(tmp_path, make_recipe(pages={"licence_texts": ["LICENSE"]}))
    assert build(path, "pages") == ["pages"]
    (tmp_path / "LICENSE").write_text(
        "Attribution-NonCommercial 4.0 International\nYou may not use it commercially."
    )
    with pytest.raises(LineageError, match=r"pages .* is blocked by the rule licence-text"):
        build(path, "pages")


def test_a_source_that_becomes_an_evaluation_set_is_looked_at_again(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe())
    build(path, "text")
    measured = {"kind": "evaluation_set", "from": "pages.jsonl", "format": "text", "licence": "CC0-1.0"}
    write_recipe(tmp_path, make_recipe(measured=measured))
    with pytest.raises(LineageError, match="it is the evaluation set measured"):
        build(path, "text")


def test_a_source_that_changed_under_its_digest_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe(pages={"sha256": "0" * 64}))
    with pytest.raises(DataError, match=f"has changed under its name: the recipe states the digest {'0' * 64}"):
        build(path)
    assert BuildFolder(tmp_path / "build").read_records() == {}


def test_a_new_version_of_a_kind_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(tmp_path, make_recipe())
    build(path, "text")
    kinds = {**KINDS, "filter": replace(KINDS["filter"], version=KINDS["filter"].version + 1)}
    monkeypatch.setattr(building, "KINDS", kinds)
    monkeypatch.setattr(planning, "KINDS", kinds)
    assert build(path, "text") == ["clean"]
    assert read_built(path)["clean"].stage_version == KINDS["filter"].version + 1
