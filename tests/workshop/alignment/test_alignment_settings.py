"""Entries of alignment stages in recipes, terms of models, and how votes are read."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from commonweight.charter import DEFAULT, parse
from commonweight.lineage.digests import LineageError
from commonweight.lineage.provenance import ProvenancePolicy
from commonweight.lineage.record import Record
from commonweight.workshop.alignment.conversations import digest_prompt, format_prompt, get_prompt, split_answer
from commonweight.workshop.alignment.origins import ModelOrigin, check_origin, combine_licences, read_origin
from commonweight.workshop.alignment.questions import (
    ask_critique,
    format_principle,
    introduce_critique,
    introduce_revision,
    read_revision,
    read_vote,
)
from commonweight.workshop.data.rows import Content, Message, Row
from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import RecipeError

ENGINE = {
    "url": "http://127.0.0.1:1",
    "model": "starter",
    "generator": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "licence": "Apache-2.0",
}
STARTER = ModelOrigin("gguf", ("HuggingFaceTB/SmolLM2-135M-Instruct",), ("Apache-2.0",))


def parse_stages(**stages: dict[str, Any]) -> Recipe:
    prompts = {"kind": "source", "from": "prompts.jsonl", "format": "prompts", "licence": "CC0-1.0"}
    content = {"name": "bakery", "stages": {"prompts": prompts, **stages}}
    return parse_recipe(json.dumps(content).encode(), "recipe.yaml")


def make_row(*messages: Message, kind: Any = "messages", given: int = 0) -> Row:
    content = Content(kind, messages=messages, given=given)
    return Row(content.compute_row_id(), content, "made", "CC0-1.0")


def test_stages_name_their_model_in_one_way() -> None:
    recipe = parse_stages(
        first={"kind": "generate", "data": "prompts", "engine": ENGINE, "samples": 4},
        judged={"kind": "critique", "data": "first", "engine": ENGINE},
        revised={"kind": "revise", "data": "judged", "method": "compose"},
        kept={"kind": "select", "data": "first"},
    )
    assert [reference.stage for reference in recipe.stages["judged"].list_references()] == ["first"]
    # Where the server is stands in no key and no record.
    assert "127.0.0.1" not in json.dumps(recipe.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("stage", "problem"),
    [
        ({"kind": "generate"}, "name the model that answers"),
        ({"kind": "critique"}, "name the model that answers"),
        ({"kind": "revise"}, "name the model that answers"),
        ({"kind": "revise", "method": "compose", "engine": ENGINE}, "need no model"),
        ({"kind": "generate", "engine": {"url": "http://x:1"}}, "engine has no model, generator, licence"),
        ({"kind": "generate", "engine": ENGINE | {"licence": None}}, "engine has no licence"),
        ({"kind": "generate", "engine": ENGINE | {"url": "http://me:secret@x:1"}}, "holds no key"),
        ({"kind": "generate", "engine": ENGINE | {"url": "x:1"}}, "is written like http"),
        ({"kind": "generate", "engine": ENGINE | {"key": "secret"}}, "key"),
        ({"kind": "generate", "engine": ENGINE, "samples": 0}, "samples"),
        ({"kind": "generate", "engine": ENGINE, "temperature": 3}, "temperature"),
        ({"kind": "critique", "engine": ENGINE, "votes": 0}, "votes"),
        ({"kind": "revise", "method": "compose", "most_opening_share": 0}, "most_opening_share"),
        ({"kind": "select", "min_words": 9, "max_words": 8}, "min_words is above max_words"),
        ({"kind": "select", "near_duplicate_similarity": 0.1}, "near_duplicate_similarity"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(stage: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem) as caught:
        parse_stages(wrong={"data": "prompts", **stage})
    assert "secret@" not in str(caught.value)


def test_a_stage_with_a_model_takes_only_the_address_of_an_engine() -> None:
    stages: dict[str, Any] = {
        "base": {"kind": "import", "from": "starter", "model_id": ENGINE["generator"], "licence": "Apache-2.0"},
        "gguf": {"kind": "export", "model": "base", "text": "prompts", "name": "Starter"},
    }
    address = {"url": "http://127.0.0.1:1"}
    recipe = parse_stages(
        **stages, first={"kind": "generate", "data": "prompts", "model": "gguf", "engine": address}
    )
    assert [one.role for one in recipe.stages["first"].list_references()] == ["data", "model"]
    with pytest.raises(RecipeError, match=r"engine\.model and the stage gguf say the same thing"):
        parse_stages(**stages, first={"kind": "generate", "data": "prompts", "model": "gguf", "engine": ENGINE})
    with pytest.raises(RecipeError, match="'base' is of the kind import; export is wanted here"):
        parse_stages(**stages, first={"kind": "generate", "data": "prompts", "model": "base"})


@pytest.mark.parametrize(
    ("origin", "problem"),
    [
        (ModelOrigin("critic", ("claude-sonnet-4",), ("Apache-2.0",)), "forbids training a model on outputs"),
        (ModelOrigin("critic", ("gpt-4o",), ("MIT",)), "forbid the use of outputs"),
        (ModelOrigin("critic", ("some-model",), ("MIT",)), "terms are not known"),
        (ModelOrigin("critic", STARTER.generators, ("CC-BY-NC-4.0",)), "permits no commercial use"),
        (ModelOrigin("critic", STARTER.generators, ("LicenseRef-Own",)), "is not known"),
        (ModelOrigin("critic", STARTER.generators, ()), "has no licence"),
        # A model of our own that began as another one keeps that one's terms.
        (ModelOrigin("ours", (*STARTER.generators, "Llama-3-8B"), ("Apache-2.0",)), "Llama 2 and 3"),
    ],
)
def test_a_model_whose_terms_forbid_training_is_refused(origin: ModelOrigin, problem: str) -> None:
    with pytest.raises(LineageError, match=problem):
        check_origin(origin, 5, ProvenancePolicy())


def test_the_origin_of_a_model_is_that_of_its_export() -> None:
    decisions = check_origin(STARTER, 5, ProvenancePolicy())
    assert {(one.verdict, one.content, one.rows) for one in decisions} == {("pass", "answers", 5)}
    assert [one.rule for one in decisions] == ["generator", "licence"]
    record = Record(kind="export", name="gguf", files={}, licences=("Apache-2.0",), generators=STARTER.generators)
    assert read_origin("Starter", record).generator == STARTER.generators[0]
    several = read_origin("Ours", record.model_copy(update={"generators": ("Qwen3-8B", *STARTER.generators)}))
    assert several.generator == "commonweight/Ours"
    alone = read_origin("Tiny", record.model_copy(update={"generators": ()}))
    assert alone.generator == "commonweight/Tiny"
    assert check_origin(alone, 1, ProvenancePolicy())[0].verdict == "pass"
    assert combine_licences("MIT", "CC0-1.0 AND MIT", "Apache-2.0") == "Apache-2.0 AND CC0-1.0 AND MIT"


def test_prompts_and_answers_are_told_apart() -> None:
    asked = (Message("system", "Be brief."), Message("user", "Rye?"))
    answered = (*asked, Message("assistant", "Yes."))
    assert get_prompt(make_row(*asked)) == asked
    assert get_prompt(make_row(*asked, kind="prompt")) == asked
    assert get_prompt(make_row(*answered)) is None
    assert split_answer(make_row(*answered)) == (asked, "Yes.")
    assert split_answer(make_row(*answered, given=2)) is None
    assert split_answer(make_row(*asked)) is None
    assert split_answer(make_row(Message("assistant", "Yes."))) is None
    assert format_prompt(asked) == "Rye?"
    assert format_prompt((*answered, Message("user", "Why?"))) == "User: Rye?\n\nAssistant: Yes.\n\nUser: Why?"
    assert digest_prompt(asked) != digest_prompt(asked[1:])


@pytest.mark.parametrize(
    ("text", "reading", "vote"),
    [
        ("yes", "constrained", "yes"),
        (" No\n", "constrained", "no"),
        ("yes, it does", "constrained", None),
        ("", "constrained", None),
        ("It names a knife.\nAnswer: yes", "last_line", "yes"),
        ("Answer: yes at first.\n**Answer: No.**", "last_line", "no"),
        ("Answer: maybe", "last_line", None),
        ("Answer: yes\nBut who knows.", "last_line", None),
        ("yes", "last_line", None),
    ],
)
def test_votes_are_read_strictly(text: str, reading: Any, vote: str | None) -> None:
    assert read_vote(text, reading) == vote


def test_questions_hold_both_halves_of_the_principle() -> None:
    principle = parse(DEFAULT.read_bytes()).principles[0]
    for text in (introduce_critique(principle), introduce_revision(principle), format_principle(principle)):
        assert principle.restricts in text
        assert principle.permits in text
    assert principle.message in introduce_revision(principle)
    question = ask_critique((Message("user", "Rye?"),), "Yes.", "constrained").content
    assert "Rye?" in question
    assert "Yes." in question
    assert read_revision(" **Revised answer:** Try rye.\n") == "Try rye."


def test_reading_a_recipe_with_these_stages_imports_no_engine() -> None:
    code = (
        "import sys\n"
        "from commonweight.workshop.recipe.schema import make_schema\n"
        "assert 'GenerateStage' in make_schema()['$defs']\n"
        "heavy = {'pyarrow', 'torch', 'uvicorn', 'commonweight.runtime.assistant'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
