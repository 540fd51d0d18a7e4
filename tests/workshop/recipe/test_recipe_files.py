"""Recipe files: what is refused, with the line and the path of the key."""

import json
from datetime import date
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from commonweight.workshop.recipe.parse import MAX_RECIPE_BYTES, parse_recipe, read_recipe
from commonweight.workshop.recipe.schema import Recipe, make_schema
from commonweight.workshop.recipe.shipped import list_shipped, read_shipped
from commonweight.workshop.recipe.stage_kind import RecipeError
from commonweight.workshop.recipe.stages.data import MixStage

BASE = """\
name: probe
stages:
  pages:
    kind: source
    from: text.jsonl
    licence: CC0-1.0
  text:
    kind: mix
    weights: {pages: 1}
"""
TOKENIZERS = "  t:\n    kind: tokenizer\n    data: u\n  u:\n    kind: tokenizer\n    data: text\n"
CLEAN = "  c:\n    kind: filter\n    inputs: [text]\n"
WAIVER = "{row: speed, name: Ada, reason: later, until: %s}"
TASKS = (
    "  e:\n    kind: evaluate\n    model: text\n"
    "    tasks:\n      - {task: bits_per_byte, dataset: d, context: 2}\n"
)
RELEASE = "release: {name: x, title: X, licence: CC0-1.0, description: d, limitations: l, export: pages}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BASE + "    colour: red\n", "10: stages.text.colour: this key is unknown"),
        (BASE + "colour: red\n", "10: colour: this key is unknown"),
        (BASE.replace("    from: text.jsonl\n", ""), "4: stages.pages.from: this key is missing"),
        (BASE.replace("    kind: source\n", ""), "4: stages.pages.kind: this key is missing"),
        (
            BASE.replace("kind: mix", "kind: sauce"),
            "8: stages.text.kind: 'sauce' is none of source, evaluation_set, .*",
        ),
        (BASE + "    seed: red\n", "10: stages.text.seed: a whole number is wanted"),
        (BASE + "    seed: yes\n", "10: stages.text.seed: a whole number is wanted"),
        (BASE + "    seed: 1.0\n", "10: stages.text.seed: a whole number is wanted"),
        (BASE + '    seed: "1"\n', "10: stages.text.seed: a whole number is wanted"),
        (BASE + "    seed: 010\n", "10: write a number in decimal digits without a zero before it; .*"),
        (BASE + "    seed: 1:30\n", "10: write a number in decimal digits without a zero before it; .*"),
        (BASE + "    seed: !!int [1]\n", "10: expected a scalar node, but found sequence."),
        (BASE + '    validation: "0.1"\n', "10: stages.text.validation: a number is wanted"),
        (BASE + "    validation: on\n", "10: stages.text.validation: a number is wanted"),
        (BASE.replace("1}", "yes}"), "9: stages.text.weights.pages: a number is wanted"),
        (BASE + CLEAN + "    near_duplicates: 1\n", "13: stages.c.near_duplicates: true or false is wanted"),
        (BASE + CLEAN + '    near_duplicates: "yes"\n', "13: stages.c.near_duplicates: true or false is wanted"),
        (BASE + CLEAN.replace("text", "1"), "12: stages.c.inputs.0: text is wanted; quote it .*"),
        (BASE + CLEAN.replace("[text]", "text"), "12: stages.c.inputs: a list is wanted"),
        (BASE + "description: !!binary aGVsbG8=\n", "10: description: text is wanted; quote it .*"),
        (
            BASE + RELEASE.replace("}", f", waivers: [{WAIVER % '1798675200'}]}}"),
            "10: release.waivers.0.until: a date is wanted, such as 2026-12-31",
        ),
        (
            BASE + RELEASE.replace("}", f", waivers: [{WAIVER % 'soon'}]}}"),
            "10: release.waivers.0.until: a date is wanted, such as 2026-12-31",
        ),
        (BASE.replace("1}", "heavy}"), "9: stages.text.weights.pages: a number is wanted"),
        (BASE.replace("1}", ".nan}"), "9: stages.text.weights.pages: a finite number is wanted"),
        (BASE.replace("{pages: 1}", "[pages]"), "9: stages.text.weights: keys with values are wanted"),
        (BASE.replace("probe", "12"), "1: name: text is wanted; quote it .*"),
        (BASE + "    validation: 2\n", "10: stages.text.validation: it should be less than or equal to 0.5"),
        (
            BASE + "  Big:\n    kind: mix\n",
            "10: stages.Big: it must match .*\nR:11: stages.Big.weights: this key is missing",
        ),
        (BASE + "share-alike: maybe\n", "10: share-alike: it should be 'propagate', 'attribute' or 'block'"),
        (BASE + "share_alike: maybe\n", "10: share.alike: it should be 'propagate', 'attribute' or 'block'"),
        (BASE + "  empty:\n", "10: stages.empty: keys with values are wanted"),
        (BASE + "    seed: 1\n    seed: 2\n", "11: the key 'seed' stands here a second time."),
        (BASE + "1: a\n", "10: a key is text here; .*"),
        (BASE + "? [a]\n: b\n", "10: a key is text here; .*"),
        (BASE + "    <<: {seed: 3}\n", "10: a key is text here; .*"),
        (BASE.replace("CC0-1.0", "&l CC0-1.0"), "6: anchors and aliases are not used here."),
        (BASE + "description: *l\n", "10: anchors and aliases are not used here."),
        (BASE + "\tseed: 1\n", "10: a tab stands here; YAML is indented with spaces."),
        (BASE + "---\nname: other\n", "10: a second document begins here; a recipe is one."),
        (
            BASE + "description: !!python/name:os.system x\n",
            "10: could not determine a constructor for the tag .*",
        ),
        (BASE + "description: 2020-13-45\n", "10: this is no number or date that can be read."),
        (BASE + f"    seed: {'9' * 5000}\n", "10: this is no number or date that can be read."),
        (BASE + 'description: "\\ud800"\n', "10: this holds half a character .*"),
        (BASE + "description: \x01\n", "10: the character U[+]0001 is not allowed."),
        (BASE + "description: [\n", "11: expected the node content, but found '<stream end>'."),
        ("", "1: a recipe is a mapping, which begins with `name:`."),
        ("- a\n", "1: a recipe is a mapping, which begins with `name:`."),
        (BASE.replace("{pages", "{page"), "9: stages.text.weights.page: the recipe has no stage 'page'"),
        (BASE.replace("{pages", "{text"), "8: stages.text: .* in a circle: text -> text"),
        (
            BASE + TOKENIZERS,
            "12: stages.t.data: the stage 'u' is of the kind tokenizer; source or .* is wanted here",
        ),
        (BASE + TASKS, "14: stages.e.tasks.0.context: it should be greater than or equal to 16"),
        (
            BASE + TASKS.replace("2}", "32}"),
            "12: stages.e.model: .* kind mix; export .*\nR:14: stages.e.tasks: .* 'd'",
        ),
        (BASE + RELEASE, "10: release.export: the stage 'pages' is of the kind source; export is wanted here"),
        (BASE + RELEASE.replace("pages", "[pages]"), "10: release.export: text is wanted; quote it .*"),
        (BASE.replace("    licence: CC0-1.0\n", ""), "4: stages.pages: The source 'pages' has no licence; .*"),
        (
            BASE.replace("CC0-1.0", "MIT OR ISC"),
            "6: stages.pages.licence: 'MIT OR ISC' is not one SPDX identifier .*",
        ),
        (BASE.replace("text.jsonl", "https://a.example/x"), "4: stages.pages: .* is a URL without sha256, .*"),
    ],
)
def test_a_problem_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=rf"\AR:{problem}\Z"):
        parse_recipe(text.encode("utf-8", "surrogatepass"), "R")


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-3", 0.001), ("1E-1", 0.1), ("5.e-2", 0.05), ("0", 0.0), (".25", 0.25), ("+0.5", 0.5)],
)
def test_numbers_are_those_of_the_schema(written: str, value: float) -> None:
    text = BASE + f"    validation: {written}\n"
    mix = parse_recipe(text.encode(), "R").stages["text"]
    assert isinstance(mix, MixStage)
    assert (mix.validation, type(mix.validation)) == (value, float)


@pytest.mark.parametrize("until", ["2026-12-31", '"2026-12-31"'])
def test_a_date_may_be_quoted(until: str) -> None:
    release = RELEASE.replace("pages", "gguf").replace("}", f", waivers: [{WAIVER % until}]}}")
    export = "  base:\n    {kind: import, from: x.gguf, model_id: a/b, licence: MIT}\n"
    export += "  gguf: {kind: export, model: base, text: text, name: x}\n"
    recipe = parse_recipe((BASE + export + release).encode(), "R")
    assert recipe.release is not None
    assert recipe.release.waivers[0].until == date(2026, 12, 31)
    assert Recipe.model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe


def test_all_problems_are_named_by_line() -> None:
    text = (
        BASE.replace("probe", "P P").replace("1}", "x}").replace("licence:", "shade: 3\n    licence:") + "z: 1\n"
    )
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.encode(), "R")
    assert [line.rpartition(": ")[0] for line in str(caught.value).splitlines()] == [
        "R:1: name",
        "R:6: stages.pages.shade",
        "R:10: stages.text.weights.pages",
        "R:11: z",
    ]


def test_very_many_problems_are_counted() -> None:
    text = BASE + "".join(f"key{number}: 1\n" for number in range(50))
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.encode(), "R")
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "30 more problems."


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (BASE.encode() + b"description: \xff\n", "R:10: this is not UTF-8."),
        (BASE.encode() + b"description: " + b"[" * 3000 + b"]" * 3000 + b"\n", "R is nested too deeply."),
    ],
)
def test_bytes_that_are_no_recipe(data: bytes, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(data, "R")
    assert str(caught.value) == problem


def test_a_file_that_is_too_large_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    with pytest.raises(RecipeError, match="No such file"):
        read_recipe(path)
    path.write_bytes(BASE.encode() + b"#" * MAX_RECIPE_BYTES)
    with pytest.raises(RecipeError, match=f"at most {MAX_RECIPE_BYTES}"):
        read_recipe(path)


def test_long_circles_are_found_without_recursion() -> None:
    count = 3000
    stages = {f"s{i}": {"kind": "filter", "inputs": [f"s{(i + 1) % count}"]} for i in range(count)}
    with pytest.raises(RecipeError, match="in a circle: s0 -> s1 -> "):
        parse_recipe(yaml.dump({"name": "x", "stages": stages}, sort_keys=False).encode(), "R")


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("between", ["-", "_"])
def test_spellings_that_are_taken(mark: str, end: str, between: str) -> None:
    text = mark + BASE + f"generated{between}prompts: allow\nshare{between}alike: attribute\n"
    recipe = parse_recipe(text.replace("\n", end).encode(), "R")
    assert recipe.policy.generated_prompts == "allow"
    assert recipe.policy.share_alike == "attribute"


def test_comments_and_order_change_nothing() -> None:
    content = yaml.safe_load(BASE)
    turned = {
        name: dict(reversed(content[name].items())) if name == "stages" else content[name] for name in content
    }
    turned["stages"]["text"] = dict(reversed(turned["stages"]["text"].items()))
    text = "# a comment\n" + yaml.dump(dict(reversed(turned.items())), sort_keys=False)
    assert parse_recipe(text.encode(), "R") == parse_recipe(BASE.encode(), "R")


@pytest.mark.parametrize("name", list_shipped())
def test_the_schema_accepts_what_ships(name: str) -> None:
    content = yaml.safe_load(read_shipped(name))
    validator = jsonschema_rs.Draft202012Validator(make_schema())
    assert [error.message for error in validator.iter_errors(content)] == []
    content["stages"][next(iter(content["stages"]))]["colour"] = "red"
    assert not validator.is_valid(content)


@pytest.mark.parametrize("change", [{"colour": 1}, {"name": 3}, {"stages": {}}, {"share_alike": "no"}])
def test_the_schema_refuses_what_is_refused(change: dict[str, object]) -> None:
    validator = jsonschema_rs.Draft202012Validator(make_schema())
    content = yaml.safe_load(BASE)
    assert validator.is_valid(content)
    assert validator.is_valid(content | {"share-alike": "block"})
    assert validator.is_valid(content | {"share_alike": "block"})
    assert not validator.is_valid(content | change)


def test_the_schema_is_one() -> None:
    schema = make_schema()
    jsonschema_rs.meta.validate(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_the_effective_recipe_is_read_again_as_it_was() -> None:
    recipe = parse_recipe((BASE + 'description: "\U0001f600 \\x7f"\n').encode(), "R")
    assert Recipe.model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe
