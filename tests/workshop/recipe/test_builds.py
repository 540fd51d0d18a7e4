"""Builds: killed, damaged, in each other's way, refused; nothing that is done is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from killed_build import CHECKPOINT, MOMENTS
from small_recipe import build, make_builder, make_recipe, read_built, write_recipe, write_texts

from command import one_line_error, run
from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.digests import LineageError
from commonweight.lineage.record import check_files
from commonweight.workshop.recipe.stage_kind import RecipeError
from commonweight.workshop.training.settings import TrainingError

pytestmark = pytest.mark.workshop

HERE = Path(__file__).parent
STAGES = ["pages", "clean", "text", "tokenizer", "base"]
HEAVY = ("torch", "transformers", "pyarrow", "trl", "tokenizers", "datasets")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that was built without an interruption."""
    path = write_recipe(tmp_path_factory.mktemp("whole"), make_recipe())
    assert build(path) == STAGES
    return path


def copy(whole: Path, folder: Path) -> Path:
    """A copy of a recipe with its build."""
    shutil.copytree(whole.parent, folder, dirs_exist_ok=True)
    return folder / whole.name


def kill(path: Path, moment: str, *only: str) -> None:
    """Build until a moment comes."""
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_build.py"), str(path), moment, *only],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def check_outputs(path: Path) -> None:
    """Every output in the build folder has a record and exactly the files that it names."""
    for name, record in read_built(path).items():
        folder = BuildFolder(path.parent / "build")
        stages: Any = (folder.read_status() or {})["stages"]
        check_files(folder.get_output(name, stages[name]["key"]), record)
    for output in (path.parent / "build" / "outputs").glob("*/*"):
        assert (output / "record.json").exists()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("moment", "step"), [(CHECKPOINT, 10), ("before the record", 20)])
def test_a_training_that_was_killed_goes_on_from_its_checkpoint(
    whole: Path, moment: str, step: int, tmp_path: Path
) -> None:
    path = copy(whole, tmp_path)
    shutil.rmtree(tmp_path / "build" / "outputs" / "base")
    kill(path, moment)
    check_outputs(path)
    status = BuildFolder(tmp_path / "build").read_status()
    assert status is not None
    assert status["stages"]["base"]["state"] == "running"  # type: ignore[index]
    lines: list[str] = []
    assert build(path, report=lines.append) == ["base"]
    assert [line for line in lines if f"from step {step}" in line]
    before, after = read_built(whole), read_built(path)
    assert {name: record.identity for name, record in after.items()} == {
        name: record.identity for name, record in before.items()
    }
    check_outputs(path)
    assert list((tmp_path / "build" / "drafts").iterdir()) == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_build_that_was_killed_leaves_no_torn_output(moment: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe())
    kill(path, moment, "pages")
    assert len(list((tmp_path / "build" / "outputs").glob("*/*"))) == (moment == "after the rename")
    check_outputs(path)
    lines: list[str] = []
    ran = build(path, "pages", lines.append)
    assert ran == ([] if moment == "after the rename" else ["pages"])
    # What was finished is taken over, not made again.
    assert bool(lines) == (moment == "before the record")
    check_outputs(path)
    other = write_recipe(tmp_path / "other", make_recipe())
    build(other, "pages")
    assert read_built(path) == read_built(other)
    assert list((tmp_path / "build" / "drafts").iterdir()) == []


def test_a_draft_that_is_not_as_its_record_says_is_made_again(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe())
    kill(path, "before publishing", "pages")
    [draft] = (tmp_path / "build" / "drafts").iterdir()
    (draft / "rows-00000.parquet").write_bytes(b"PAR1")
    lines: list[str] = []
    assert build(path, "pages", lines.append) == ["pages"]
    assert lines
    check_outputs(path)


def test_a_second_build_does_nothing_and_imports_nothing(whole: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from small_recipe import build\n"
        f"assert build(Path({str(whole)!r})) == []\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_one_build_at_a_time(whole: Path) -> None:
    folder = BuildFolder(whole.parent / "build")
    with folder.lock():
        said = one_line_error(run("build", whole))
    assert said == f"Another build is running in {folder.path}."
    assert build(whole) == []


def test_the_build_folder_is_private(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir(mode=0o755)
    path = write_recipe(tmp_path, make_recipe())
    build(path, "pages")
    assert (tmp_path / "build").stat().st_mode & 0o777 == 0o700
    # Beside it there is what was there before, and nothing else.
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["build", "pages.jsonl", "recipe.yaml"]


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    path = write_recipe(tmp_path, make_recipe())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(7 * 2**20))
    with pytest.raises(RecipeError, match=r"Only 7 MiB are free in .*; a stage wants 200 MiB\."):
        build(path)


def test_a_stage_that_fails_leaves_what_was_done(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe(clean={"min_characters": 10**6, "max_characters": 10**6}))
    with pytest.raises(ValueError, match="leaves no row of 60"):
        build(path)
    status: Any = BuildFolder(tmp_path / "build").read_status()
    assert {name: stage["state"] for name, stage in status["stages"].items()} == {
        "pages": "done",
        "clean": "failed",
    }
    check_outputs(path)
    write_recipe(tmp_path, make_recipe())
    assert build(path, "clean") == ["clean"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"licence": "Imaginary-1.0"}, r"rule licence: the licence 'Imaginary-1.0' is not known"),
        ({"licence": "CC-BY-NC-4.0"}, r"rule non-commercial: CC-BY-NC-4.0 permits no commercial use"),
        ({"licence": "CC-BY-SA-4.0"}, r"rule share-alike: CC-BY-SA-4.0 asks for the same licence"),
        ({"evaluation": True}, r"rule evaluation-set: its publisher keeps it for testing"),
        ({"generator": "gpt-4", "format": "messages", "from": "talks.jsonl"}, r"rule generator: .*gpt-4"),
        ({"generator": "nobody-knows", "format": "messages", "from": "talks.jsonl"}, r"rule generator: .* known"),
        ({"from": "missing.jsonl"}, r"there is nothing for missing.jsonl"),
        ({"from": "torn.parquet", "format": "auto"}, r"The source pages: .*torn"),
    ],
)  # fmt: skip
def test_material_that_may_not_train_stops_the_build(fields: dict[str, Any], problem: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    path = write_recipe(tmp_path, make_recipe(pages=fields))
    with pytest.raises(ValueError, match=problem) as caught:
        build(path)
    assert "\n" not in str(caught.value)
    folder = BuildFolder(tmp_path / "build")
    assert folder.read_records() == {}
    assert list((tmp_path / "build" / "outputs").iterdir()) == []
    status: Any = folder.read_status()
    assert status["stages"]["pages"]["state"] == "failed"


def test_a_file_that_is_measured_on_trains_nothing(tmp_path: Path) -> None:
    measured = {"kind": "evaluation_set", "from": "pages.jsonl", "format": "text", "licence": "CC0-1.0"}
    path = write_recipe(tmp_path, make_recipe(measured=measured))
    with pytest.raises(LineageError, match="it is the evaluation set measured"):
        build(path)


def test_decisions_are_in_the_records_of_sources(whole: Path) -> None:
    records = read_built(whole)
    assert [(one.rule, one.verdict, one.rows) for one in records["pages"].decisions] == [("licence", "pass", 60)]
    assert [name for name, record in records.items() if record.decisions] == ["pages"]
    assert records["base"].licences == ("CC0-1.0",)
    assert records["base"].seed == 0
    assert records["base"].facts["trained_tokens"] == 2560


def test_an_input_that_was_damaged_is_named(whole: Path, tmp_path: Path) -> None:
    path = copy(whole, tmp_path)
    [shard] = (tmp_path / "build" / "outputs" / "text").glob("*/rows-00000.parquet")
    os.truncate(shard, shard.stat().st_size // 2)
    assert build(path) == []  # nothing is read, so nothing is noticed
    write_recipe(tmp_path, make_recipe(tokenizer={"vocab_size": 600}))
    with pytest.raises(
        RecipeError, match=rf"rows-00000.parquet is not the file .* Remove {shard.parent}, and it is"
    ):
        build(path, "tokenizer")
    shutil.rmtree(shard.parent)
    assert build(path, "tokenizer") == ["text", "tokenizer"]


@pytest.mark.timeout(300)
def test_a_loss_that_is_not_finite_stops_the_build(whole: Path, tmp_path: Path) -> None:
    path = copy(whole, tmp_path)
    write_recipe(
        tmp_path, make_recipe(base={"muon_lr": 1, "adamw_lr": 1, "weight_decay": 0, "gradient_clip": 1e30})
    )
    from commonweight.workshop.training import pretrain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "compute_gradients", lambda *_arguments: float("nan"))
        with pytest.raises(TrainingError, match="the loss at step 1 is not finite: lower muon_lr or adamw_lr"):
            build(path)
    status: Any = BuildFolder(tmp_path / "build").read_status()
    assert status["stages"]["base"]["state"] == "failed"
    assert status["stages"]["tokenizer"]["state"] == "done"


def test_a_stage_that_the_recipe_does_not_have(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make_recipe())
    with pytest.raises(RecipeError, match="no stage 'missing'; it has pages, clean, text, tokenizer, base"):
        make_builder(path).build(print, "missing")
    write_texts(tmp_path / "pages.jsonl", count=3)
    assert build(path, "pages") == ["pages"]
