"""The workshop's commands: what they print, refuse, and import."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from command import environment, one_line_error, run
from commonweight.cli.workshop import _user_errors
from commonweight.runtime.errors import UserError
from commonweight.workshop.recipe.shipped import list_shipped
from lineage_builds import write_build

LIBRARIES = {"torch", "transformers", "tokenizers", "pyarrow", "datasets", "trl", "inspect_ai", "gguf", "yaml"}
RECIPE: dict[str, Any] = {
    "name": "small",
    "stages": {
        "pages": {"kind": "source", "from": "pages.jsonl", "format": "text", "licence": "CC0-1.0"},
        "text": {"kind": "mix", "weights": {"pages": 1}},
        "words": {"kind": "tokenizer", "data": "text", "vocab_size": 512},
        "base": {"kind": "pretrain", "data": "text", "tokenizer": "words", "tokens": 100_000},
    },
}
TABLE = (
    "name\trepository\trows\tlicence\tuse\tkind\tgenerator\n"
    "a\tr\t10\tMIT\ttrain\tprompts\tpeople\n"
    "b\tr\t20\tCC-BY-SA-4.0\ttrain\tprompts\tpeople\n"
)


def imported(stderr: str) -> set[str]:
    """The top-level modules that ``-X importtime`` reports."""
    return {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", stderr, re.MULTILINE)}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "pages.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return path


@pytest.mark.parametrize(
    "arguments", [("--help",), ("serve", "--help"), ("build", "--help"), ("verify", "--help")]
)
def test_help_imports_no_library_of_the_workshop(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0
    assert imported(done.stderr) & LIBRARIES == set()
    assert "commonweight.workshop.recipe" not in done.stderr


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("", ["new", "build", "release", "verify", "lineage", "provenance", "recipe", "Making models"]),
        ("new", ["FOLDER", "--recipe", "tiny", "finetune"]),
        (
            "build",
            [
                "RECIPE",
                "--folder",
                "--stage",
                "--dry-run",
                "--import-run",
                "--use-shipped",
                "--diff",
                "--data-root",
                "--json",
            ],
        ),
        ("release", ["BUILD", "--output", "--keys"]),
        ("verify", ["DIR_OR_FILE", "--trust", "--quick", "--json"]),
        ("lineage", ["FOLDER", "--dot", "--json"]),
        ("provenance", ["TABLE", "--use", "--generated-prompts", "--share-alike", "--json"]),
        ("recipe", ["schema", "export"]),
        (
            "recipe export",
            ["RECIPE", "--to", "trl|axolotl", "--output", "--stage", "--folder", "--import-run", "--data-root"],
        ),
    ],
)
def test_every_command_has_help(command: str, names: list[str]) -> None:
    done = run(*command.split(), "-h")
    assert done.returncode == 0
    assert [name for name in names if name not in done.stdout] == []
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_schema_is_printed() -> None:
    schema = json.loads(run("recipe", "schema").stdout)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "stages" in schema["properties"]


def test_a_recipe_is_written_once(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    done = run("new", folder)
    assert done.returncode == 0
    assert (folder / ".gitignore").read_text() == "build/\nkeys/\n"
    assert one_line_error(run("new", folder)) == f"{folder / 'recipe.yaml'} is there already."
    assert one_line_error(run("new", tmp_path / "other", "--recipe", "x")).endswith(
        f"{', '.join(list_shipped())}."
    )
    assert not (tmp_path / "other").exists()


def test_the_plan_is_shown_without_work(recipe: Path) -> None:
    done = run("build", recipe, "--dry-run", python=("-X", "importtime"), COLUMNS="200")
    assert done.returncode == 0
    assert imported(done.stderr) & (LIBRARIES - {"yaml"}) == set()
    assert re.search(
        r"base +pretrain +waiting +[\d.]+ M parameters, 0\.1 M tokens, \d\.\de\+\d+ FLOPs, [\d.]+ GB memory, "
        r"[\d.]+ GB disk, about \d+ s",
        done.stdout,
    )
    assert not (recipe.parent / "build").exists()
    plan = json.loads(run("build", recipe, "--dry-run", "--json", "--stage", "text").stdout)["stages"]
    assert [(stage["name"], stage["state"]) for stage in plan] == [("pages", "to do"), ("text", "waiting")]
    assert re.fullmatch("[0-9a-f]{64}", plan[0]["key"])
    assert plan[1]["key"] is None


def test_two_recipes_are_compared(recipe: Path) -> None:
    other = recipe.with_name("other.yaml")
    changed = {**RECIPE, "stages": {**RECIPE["stages"], "words": {**RECIPE["stages"]["words"], "vocab_size": 600}}}
    other.write_text(yaml.safe_dump(changed))
    assert run("build", "--diff", recipe, other).stdout == "stages.words.vocab_size: 512 -> 600\n"
    assert json.loads(run("build", "--diff", recipe, other, "--json").stdout) == {
        "differences": ["stages.words.vocab_size: 512 -> 600"]
    }
    assert run("build", "--diff", recipe, recipe).stdout == "No difference.\n"


def test_two_builds_are_compared(tmp_path: Path) -> None:
    for name, licence in (("one", "CC0-1.0"), ("two", "MIT")):
        write_build(tmp_path / name, licence)
    lines = run("build", "--diff", tmp_path / "one", tmp_path / "two").stdout.splitlines()
    assert "pages.own_licences[0]: CC0-1.0 -> MIT" in lines
    assert [line for line in lines if line.startswith("pages.files")] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "missing.yaml"), "missing.yaml: No such file or directory."),
        (("build", "."), ".: Is a directory."),
        (
            ("build", "recipe.yaml", "--stage", "x"),
            "The recipe has no stage 'x'; it has pages, text, words, base.",
        ),
        (("build", "recipe.yaml", "--folder", "pages.jsonl"), "pages.jsonl: File exists"),
        (("build", "--diff", "a", "b"), "a: No such file or directory."),
        (("build", "pages.jsonl"), "pages.jsonl:2: expected '<document start>', but found '{'."),
        (("verify", "missing"), "missing cannot be read: No such file or directory."),
        (("lineage", "missing"), "missing has no lineage.jsonl, status.json or record.json: .*"),
        (("provenance", "missing"), "missing: No such file or directory"),
        (("provenance", "pages.jsonl"), "The table of sources has no column .*"),
        (("provenance", "latin.tsv"), "latin.tsv is not UTF-8."),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], said: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent)
    Path("latin.tsv").write_bytes(b"name\xe9\n")
    assert re.fullmatch(said, one_line_error(run(*arguments)))


def test_a_recipe_with_problems_is_not_built(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "colour: red\nshape: round\n")
    done = run("build", recipe)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.rpartition(":")[2] for line in lines] == [" this key is unknown"] * 2
    assert not (recipe.parent / "build").exists()


def test_a_library_that_is_missing_is_named(recipe: Path) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from commonweight.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "build", str(recipe)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert one_line_error(done) == (
        "This needs pyarrow, which is not installed: "
        f"run `make workshop` in a clone, or `{sys.executable} -m pip install 'commonweight[workshop]'`."
    )


@pytest.mark.parametrize("extra", ["workshop", "release"])
def test_the_extra_that_a_command_needs_is_named(extra: Literal["workshop", "release"]) -> None:
    with (
        pytest.raises(UserError, match=rf"needs missing_library, .*'commonweight\[{extra}\]'"),
        _user_errors(extra),
    ):
        importlib.import_module("missing_library.part")


def test_a_release_names_all_that_is_missing_before_any_work(tmp_path: Path) -> None:
    missing = ("cryptography", "gguf", "model_signing")
    code = f"import sys; sys.modules |= dict.fromkeys({missing}); from commonweight.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "release", str(tmp_path / "build"), "-o", str(tmp_path / "out")],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    words = re.match(r"This needs (.*), which is not installed: run `(.*)`\.$", one_line_error(done))
    assert words is not None
    assert set(missing) <= set(words[1].split(", "))
    assert words[2] == f"{sys.executable} -m pip install 'commonweight[release]'"
    assert list(tmp_path.iterdir()) == []


def test_our_own_modules_are_no_extra() -> None:
    with pytest.raises(ModuleNotFoundError), _user_errors():
        importlib.import_module("commonweight.workshop.missing")


def test_lineage_is_shown(tmp_path: Path) -> None:
    records = write_build(tmp_path / "build", licence="CC-BY-4.0", origin="pages\x1b[2J.jsonl")
    done = run("lineage", tmp_path / "build", COLUMNS="200")
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        f"base (pretrain)  {records['base'].identity[:12]}  CC-BY-4.0",
        f"  data: clean (filter)  {records['clean'].identity[:12]}  CC-BY-4.0",
        f"    data: pages (source)  {records['pages'].identity[:12]}  CC-BY-4.0",
        f"      source: pages\ufffd[2J.jsonl  {records['pages'].inputs[0].digest[:12]}",
    ]
    assert lines[5].endswith("(above)")
    assert "Licences of all material: CC-BY-4.0" in lines
    shown = json.loads(run("lineage", tmp_path / "build", "--json").stdout)
    assert shown["roots"] == [records["base"].identity]
    assert shown["records"].keys() == {record.identity for record in records.values()}
    dot = run("lineage", tmp_path / "build", "--dot").stdout
    assert dot.startswith("digraph lineage {\n")
    [output] = (tmp_path / "build" / "outputs" / "pages").iterdir()
    assert run("lineage", output).stdout.startswith("pages (source)")


def test_sources_are_decided(tmp_path: Path) -> None:
    table = tmp_path / "SOURCES.tsv"
    table.write_text(TABLE)
    done = run("provenance", table)
    assert done.returncode == 1
    assert "1 of 2 pass." in done.stdout
    done = run("provenance", table, "--share-alike", "propagate", "--json")
    assert done.returncode == 0
    decisions = json.loads(done.stdout)["decisions"]
    assert [(one["source"], one["rule"], one["verdict"]) for one in decisions] == [
        ("a", "licence", "pass"),
        ("b", "share-alike", "pass"),
        ("b", "licence", "pass"),
    ]
    assert run("provenance", table, "--use", "fun").returncode == 2
