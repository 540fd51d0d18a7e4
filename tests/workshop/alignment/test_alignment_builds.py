"""Builds with alignment stages through a server, which dies; terms and charters that stop them."""

import json
from pathlib import Path
from typing import Any

import pytest
from alignment_rows import BAKERY, QUESTIONS, SMOLLM, get_charter, list_answers, serve_far

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.digests import LineageError
from commonweight.lineage.record import Record
from commonweight.workshop.alignment.settings import AlignmentError
from commonweight.workshop.recipe.build import Builder
from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.stage_kind import RecipeError

pytestmark = [pytest.mark.workshop, pytest.mark.timeout(600)]

YES, END = "yes", 2


def make_engine(url: str, **changes: Any) -> dict[str, Any]:
    return {"url": url, "model": "starter", "generator": SMOLLM, "licence": "Apache-2.0", **changes}


def write_recipe(folder: Path, engine: dict[str, Any], **critic: Any) -> dict[str, Any]:
    """The content of a recipe, with its files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bakery.md").write_text(BAKERY)
    rows = [{"prompt": text} for text in QUESTIONS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {"context": 1024, "batch": 2, "parallel": 2, "charter": "bakery.md"}
    return {
        "name": "bakery",
        "stages": {
            "prompts": {"kind": "source", "from": "prompts.jsonl", "format": "prompts", "licence": "CC-BY-4.0"},
            "first": {"kind": "generate", "data": "prompts", "engine": engine, "max_tokens": 8, **small},
            "judged": {"kind": "critique", "data": "first", "engine": {**engine, **critic}, "votes": 1, **small},
            "revised": {"kind": "revise", "data": "judged", "method": "compose", "charter": "bakery.md"},
            "kept": {"kind": "select", "data": "revised", "expect": "refusal"},
        },
    }


def build(folder: Path, content: dict[str, Any], only: str | None = None) -> tuple[list[str], list[str]]:
    """Stages that ran, and the lines that they reported."""
    lines: list[str] = []
    recipe = parse_recipe(json.dumps(content).encode(), "recipe.yaml")
    builder = Builder(recipe, BuildFolder(folder / "build"), folder, None, "2026-11-30")
    return builder.build(lines.append, only), lines


def find_output(folder: Path, stage: str) -> tuple[Path, Record]:
    built = BuildFolder(folder / "build")
    status: Any = (built.read_status() or {})["stages"]
    record = built.find_record(stage, status[stage]["key"])
    assert record is not None
    return built.get_output(stage, status[stage]["key"]), record


def speak(body: dict[str, Any]) -> list[int]:
    """Five words for every prompt; where a grammar holds the answer, a vote."""
    from outcomes import starter_tokenizer

    is_vote = "structured_outputs" in body["sampling_params"]
    return [*starter_tokenizer().encode(YES if is_vote else "Flour, water and salt."), END]


def test_a_server_that_dies_half_way_loses_nothing(tmp_path: Path) -> None:
    with serve_far(words=speak) as far:
        content = write_recipe(tmp_path, make_engine(far.url))
        from fake_upstreams import answering, dying

        good = answering([19556, 30, END])
        far.answers += [good, good, good, dying([19556]), *[dying()] * 20]
        with pytest.raises(AlignmentError, match=r"The server at http://\S+ stopped after 3 of 6 answers: .*kept"):
            build(tmp_path, content)
        [journal] = (tmp_path / "build" / "drafts").glob("first-*.checkpoints/answers.jsonl")
        assert journal.read_bytes().count(b"\n") == 3
        asked = len(far.asked)
        far.answers.clear()
    # The same model may answer elsewhere tomorrow.
    with serve_far(words=speak) as far:
        assert far.url != content["stages"]["first"]["engine"]["url"]
        ran, lines = build(tmp_path, write_recipe(tmp_path, make_engine(far.url)))
        assert ran == ["first", "judged", "revised", "kept"]
        assert lines[0] == "first: 3 of 6 answers are there already"
        assert asked + len(far.asked) >= 6 + 6
        assert all(body["priority"] == 10 for body in far.asked)
        assert len({body["sampling_params"]["seed"] for body in far.asked}) == len(far.asked)
    first, record = find_output(tmp_path, "first")
    assert len(list_answers(first)) == 6
    assert "Flour, water and salt." in list_answers(first)
    assert record.generators == (SMOLLM,)
    assert record.licences == ("Apache-2.0", "CC-BY-4.0")
    assert record.charter is None
    assert far.url not in record.encode().decode()
    _, judged = find_output(tmp_path, "judged")
    assert judged.charter == get_charter().sha256
    assert judged.facts == {"breaks": 6, "keeps": 0, "undecided": 0, "unreadable_votes": 0}
    revised, record = find_output(tmp_path, "revised")
    assert len(set(list_answers(revised))) == 6
    assert "Flour" not in json.dumps(list_answers(revised))
    assert record.facts["opening_share"] == round(1 / 6, 4)
    assert "CC0-1.0" in record.licences
    assert len(list_answers(find_output(tmp_path, "kept")[0])) >= 1
    assert not list((tmp_path / "build" / "drafts").iterdir())


def test_a_server_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match=r"The server at http://127\.0\.0\.1:9 cannot be used: no server"):
        build(tmp_path, write_recipe(tmp_path, make_engine("http://127.0.0.1:9")), "first")
    keyed = make_engine("http://127.0.0.1:9", key_variable="COMMONWEIGHT_TEST_NO_SUCH_KEY")
    with pytest.raises(AlignmentError, match="The environment variable COMMONWEIGHT_TEST_NO_SUCH_KEY"):
        build(tmp_path, write_recipe(tmp_path, keyed), "first")
    missing = make_engine("http://127.0.0.1:9", model="none.gguf")
    with pytest.raises(RecipeError, match=r"The model none\.gguf, whose vocabulary the engine has, is not there"):
        build(tmp_path, write_recipe(tmp_path, missing), "first")


def test_a_critic_whose_terms_forbid_training_stops_the_build(tmp_path: Path) -> None:
    with serve_far(words=speak) as far:
        content = write_recipe(tmp_path, make_engine(far.url), generator="claude-opus-4")
        with pytest.raises(LineageError, match="usage policy forbids training a model on outputs"):
            build(tmp_path, content)
        asked = len(far.asked)
    assert len(list_answers(find_output(tmp_path, "first")[0])) == 6
    assert asked == 6


def test_a_charter_that_cannot_be_used_stops_the_build(tmp_path: Path) -> None:
    content = write_recipe(tmp_path, make_engine("http://127.0.0.1:9"))
    before, _, after = BAKERY.partition("### Permits\n")
    (tmp_path / "bakery.md").write_text(before + after[after.index("### Message") :])
    with serve_far(words=speak) as far:
        content["stages"]["first"]["engine"] = make_engine(far.url)
        content["stages"]["revised"]["data"] = "first"
        del content["stages"]["judged"], content["stages"]["kept"]
        with pytest.raises(AlignmentError, match=r"bakery\.md cannot be used: line \d+: .*### Permits"):
            build(tmp_path, content)
        (tmp_path / "bakery.md").write_text(BAKERY.replace("licence: CC0-1.0", "licence: LicenseRef-Secret"))
        with pytest.raises(LineageError, match="the licence 'LicenseRef-Secret' is not known"):
            build(tmp_path, content)
