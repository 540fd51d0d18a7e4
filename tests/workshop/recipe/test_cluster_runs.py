"""A stage that is trained elsewhere: exported, run by TRL's own command, brought back, recorded as declared."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_recipe import DAY
from tuned_recipe import GIVEN, make_tuned_recipe, write_tuned_recipe

from command import one_line_error, run
from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.digests import LineageError, digest_file
from commonweight.lineage.provenance import ProvenancePolicy
from commonweight.workshop.data.dataset import DatasetWriter
from commonweight.workshop.data.manifest import SourceOrigin
from commonweight.workshop.data.rows import Content, Message, Row, Split
from commonweight.workshop.recipe.build import Builder
from commonweight.workshop.recipe.cluster_export import CONVERSATIONS, check_rows, export_training
from commonweight.workshop.recipe.cluster_manifest import MANIFEST, read_cluster_manifest
from commonweight.workshop.recipe.imported_runs import make_imported_kinds, parse_runs
from commonweight.workshop.recipe.parse import read_recipe
from commonweight.workshop.recipe.plan import make_plan
from commonweight.workshop.recipe.shipped_stages import replace_training
from commonweight.workshop.recipe.stage_kind import RecipeError
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.trainer_config import Trainer
from commonweight.workshop.training.trainer_rows import write_sft_rows
from commonweight.workshop.training.tuning_settings import SftSettings

pytestmark = pytest.mark.workshop

ORIGIN = SourceOrigin(name="own", location="own.jsonl", revision=None, sha256="0" * 64, files=1)
Trained = tuple[Path, Path]


def make_builder(recipe: Path, *runs: str) -> Builder:
    """What builds a recipe beside its file, with runs from elsewhere."""
    parsed = read_recipe(recipe)
    kinds = make_imported_kinds(parsed, parse_runs(runs))
    return Builder(parsed, BuildFolder(recipe.parent / "build"), recipe.parent, None, DAY, kinds)


def quiet(line: str) -> None:
    """Reports nothing."""
    del line


def run_trl(folder: Path, method: str = "sft") -> None:
    """What ``trl sft --config config.yaml`` does, on a processor, in this process."""
    from trl.scripts import dpo, sft

    module: Any = {"sft": sft, "dpo": dpo}[method]
    on_cpu = ["--use_cpu", "true", "--bf16", "false", "--disable_tqdm", "true"]
    before = Path.cwd()
    os.chdir(folder)
    try:
        module.main(*module.make_parser().parse_args_and_config(["--config", "config.yaml", *on_cpu]))
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A recipe up to its fine-tuning, and the folder in which TRL did that."""
    folder = tmp_path_factory.mktemp("cluster")
    recipe = write_tuned_recipe(folder, make_tuned_recipe())
    export_training(make_builder(recipe), "chat", "trl", folder / "export", quiet)
    run_trl(folder / "export")
    return recipe, folder / "export"


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Trained:
    """Copies of both, to be changed."""
    shutil.copytree(trained[0].parent, tmp_path / "all")
    return tmp_path / "all" / trained[0].name, tmp_path / "all" / "export"


@pytest.mark.timeout(300)
def test_what_is_exported(trained: Trained) -> None:
    recipe, folder = trained
    manifest = read_cluster_manifest(folder)
    assert manifest is not None
    assert (manifest.recipe, manifest.stage, manifest.trainer) == ("small", "chat", "trl")
    built = make_builder(recipe)
    built.build(quiet, ("lessons", "base"))
    records = {item.stage: item.record for item in built.list_inputs(built.recipe.stages["chat"])}
    assert {item.stage: item.record for item in manifest.inputs} == {
        name: record.identity for name, record in records.items()
    }
    assert manifest.licences == ("CC-BY-4.0", "CC0-1.0")
    assert [(group.source, group.licence, group.rows) for group in manifest.provenance] == [
        ("asked", "CC-BY-4.0", 40)
    ]
    for name, digest in manifest.files.items():
        assert digest_file(folder / name) == digest
    assert {path.name for path in folder.iterdir()} - {"run"} == {
        *("README.md", "config.yaml", CONVERSATIONS, MANIFEST, "model", "rows")
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    rows = [json.loads(line) for line in (folder / "rows" / "train.jsonl").read_text().splitlines()]
    assert (len(rows), {tuple(row) for row in rows}) == (manifest.rows.train, {("input_ids", "labels")})
    assert sum(len(row["input_ids"]) for row in rows) == manifest.rows.tokens
    texts = [json.loads(line) for line in (folder / CONVERSATIONS).read_text().splitlines()]
    assert len(texts) == 40
    assert {(row["source"], row["licence"]) for row in texts} == {("asked", "CC-BY-4.0")}
    readme = (folder / "README.md").read_text()
    assert "    trl sft --config config.yaml\n" in readme
    assert "--import-run chat=FOLDER" in readme


@pytest.mark.timeout(300)
def test_a_run_that_comes_back_is_recorded_as_declared(trained: Trained) -> None:
    recipe, folder = trained
    builder = make_builder(recipe, f"chat={folder}")
    assert builder.build(quiet, "chat") == ["chat"]
    assert make_builder(recipe, f"chat={folder}").build(quiet, "chat") == []
    # Without its run the stage is to be trained: another key.
    [*_, planned] = make_plan(builder.recipe, builder.folder, recipe.parent, None, "chat")
    assert (planned.name, planned.state) == ("chat", "to do")
    kinds = make_imported_kinds(builder.recipe, {"chat": folder})
    [*_, planned] = make_plan(builder.recipe, builder.folder, recipe.parent, None, "chat", kinds)
    assert planned.state == "done"
    output = builder.get_output("chat")
    record = output.record
    assert record.is_imported
    assert (record.kind, record.facts["has_manifest"]) == ("sft", True)
    assert isinstance(record.facts["trained_tokens"], int)
    sources = {item.name: item.digest for item in record.inputs if item.role == "source"}
    assert sources["run/adapter_model.safetensors"] == digest_file(folder / "run" / "adapter_model.safetensors")
    assert sources[MANIFEST] == digest_file(folder / MANIFEST)
    assert {"data", "model"} <= {item.role for item in record.inputs}
    assert {"model.safetensors", "tokenizer.json", "metrics.jsonl", "adapter/adapter_model.safetensors"} <= set(
        record.files
    )
    assert str(folder) not in record.encode().decode()
    shown = run("lineage", recipe.parent / "build", COLUMNS="200").stdout
    assert "chat (sft, imported)" in shown


@pytest.mark.timeout(300)
def test_the_weights_are_those_of_the_run(trained: Trained) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    recipe, folder = trained
    builder = make_builder(recipe, f"chat={folder}")
    builder.build(quiet, "chat")
    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    merged = PeftModel.from_pretrained(base, folder / "run").merge_and_unload().state_dict()
    found = load_file(builder.get_output("chat").folder / "model.safetensors")
    assert any(bool((found[name] != before[name]).any()) for name in found)
    for name, tensor in found.items():
        assert float((tensor - merged[name]).abs().max()) < 1e-5


@pytest.mark.timeout(300)
def test_a_whole_model_comes_back_without_a_manifest(copy: Trained, tmp_path: Path) -> None:
    recipe, folder = copy
    whole = tmp_path / "whole"
    shutil.copytree(folder / "model", whole)
    builder = make_builder(recipe, f"chat={whole}")
    builder.build(quiet, "chat")
    record = builder.get_output("chat").record
    assert (record.facts["imported"], record.facts["has_manifest"]) == (True, False)
    assert "trained_tokens" not in record.facts
    assert digest_file(builder.get_output("chat").folder / "model.safetensors") == digest_file(
        folder / "model" / "model.safetensors"
    )


@pytest.mark.timeout(300)
def test_an_adapter_that_ships_gives_the_same_weights(copy: Trained) -> None:
    recipe, folder = copy
    imported = make_builder(recipe, f"chat={folder}")
    imported.build(quiet, "chat")
    adapter = recipe.parent / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(folder / "run" / name, adapter / name)
    weights = adapter / "adapter_model.safetensors"
    content = yaml.safe_load(recipe.read_text())
    shipped = {"from": "adapter/adapter_model.safetensors", "sha256": digest_file(weights), "licence": "CC-BY-4.0"}
    recipe.write_text(yaml.safe_dump(content | {"shipped": {"chat": shipped}}))
    plan = json.loads(run("build", recipe, "--use-shipped", "--dry-run", "--json").stdout)["stages"]
    assert [
        (stage["name"], stage["kind"], stage["state"]) for stage in plan if stage["name"] in ("chat", "gguf")
    ] == [*(("chat", "adapter", "to do"), ("gguf", "export", "waiting"))]
    assert not {"asked", "lessons"} & {stage["name"] for stage in plan}
    parsed, wanted = replace_training(read_recipe(recipe))
    assert wanted == ("gguf",)
    builder = Builder(parsed, BuildFolder(recipe.parent / "build"), recipe.parent, None, DAY)
    assert builder.build(quiet, "chat") == ["chat"]
    record = builder.get_output("chat").record
    assert record.kind == "adapter"
    assert record.files["model.safetensors"] == imported.get_output("chat").record.files["model.safetensors"]


def change_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensor(path: Path, change: Callable[[Any], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    name = min(tensors)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, path, {"format": "pt"})


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "rows": (
        lambda folder: (folder / "rows" / "train.jsonl").write_text("{}\n"),
        r"rows/train.jsonl of the run is not the file that its MANIFEST.json names: its digest differs\.",
    ),
    "stage": (
        lambda folder: change_json(folder / MANIFEST, stage="other"),
        r"The run is of the stage 'other' by its MANIFEST.json, not of 'chat'\.",
    ),
    "data": (
        lambda folder: (folder / MANIFEST).write_text(
            (folder / MANIFEST)
            .read_text()
            .replace(json.loads((folder / MANIFEST).read_text())["inputs"][0]["content"], "0" * 64)
        ),
        r"The run was trained with another data: the output of lessons is not what its MANIFEST.json names\.",
    ),
    "manifest": (
        lambda folder: (folder / MANIFEST).write_text("{}"),
        r".* is not the manifest of an exported .*\.",
    ),
    "shape": (
        lambda folder: change_tensor(folder / "run" / "adapter_model.safetensors", lambda tensor: tensor[:1]),
        r"the adapter's .* has the shape .*",
    ),
    "not finite": (
        lambda folder: change_tensor(folder / "run" / "adapter_model.safetensors", lambda tensor: tensor / 0),
        r"the adapter's .* holds numbers that are not finite",
    ),
    "torn": (
        lambda folder: (folder / "run" / "adapter_model.safetensors").write_bytes(b"PK"),
        r"the adapter's adapter_model.safetensors cannot be read: .*",
    ),
    "config": (
        lambda folder: (folder / "run" / "adapter_config.json").unlink(),
        r".* has an adapter without its adapter_config.json",
    ),
    "weights": (
        lambda folder: (folder / "run" / "adapter_model.safetensors").unlink(),
        r".* holds neither adapter_model.safetensors nor model.safetensors; other formats are not read",
    ),
    "log": (
        lambda folder: (folder / "run" / "trainer_state.json").write_text("[1]"),
        r"trainer_state.json of the run is not an object of JSON",
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_that_is_not_as_it_should_be_is_named(copy: Trained, damage: str) -> None:
    recipe, folder = copy
    change, says = DAMAGES[damage]
    change(folder)
    with pytest.raises((RecipeError, TrainingError), match=f"^{says}$"):
        make_builder(recipe, f"chat={folder}").build(quiet, "chat")


@pytest.mark.timeout(300)
def test_a_whole_model_of_another_shape_is_named(copy: Trained, tmp_path: Path) -> None:
    recipe, folder = copy
    whole = tmp_path / "whole"
    shutil.copytree(folder / "model", whole)
    change_tensor(whole / "model.safetensors", lambda tensor: tensor[:-1])
    with pytest.raises(TrainingError, match=r"of the run has the shape \(.*\), and \(.*\) is wanted$"):
        make_builder(recipe, f"chat={whole}").build(quiet, "chat")


@pytest.mark.timeout(300)
def test_other_settings_than_the_exported_are_named(copy: Trained) -> None:
    recipe, folder = copy
    content = yaml.safe_load(recipe.read_text())
    content["stages"]["chat"]["learning_rate"] = 0.5
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(
        RecipeError, match=r"^The run was exported with other settings of chat: learning_rate differs\.$"
    ):
        make_builder(recipe, f"chat={folder}").build(quiet, "chat")


def test_a_beginning_that_is_given_stays_masked(trained: Trained, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    answer = f"{GIVEN}, or rather: we give it to the birds."
    messages = (Message("user", "What becomes of old bread?"), Message("assistant", answer))
    (tmp_path / "data").mkdir()
    with DatasetWriter(tmp_path / "data") as writer:
        splits: tuple[Split, ...] = ("train", "validation")
        for number, split in enumerate(splits):
            asked = (Message("user", f"{number}: {messages[0].content}"), messages[1])
            content = Content("messages", messages=asked, given=len(GIVEN))
            writer.add(Row(content.compute_row_id(), content, "own", "CC0-1.0", split=split))
        writer.finish([ORIGIN], dropped={})
    model = trained[1] / "model"
    trainers: tuple[Trainer, ...] = ("trl", "axolotl")
    for trainer in trainers:
        folder = tmp_path / trainer
        folder.mkdir()
        counts = write_sft_rows(SftSettings(), tmp_path / "data", model, folder, trainer)
        assert (counts.train, counts.validation, counts.left_out) == (1, 1, {})
        [row] = [json.loads(line) for line in (folder / "rows" / "train.jsonl").read_text().splitlines()]
        tokenizer = AutoTokenizer.from_pretrained(model)
        learned = [token for token in row["labels"] if token != -100]
        assert tokenizer.decode(learned) == f"{answer.removeprefix(GIVEN)}<|im_end|>"
        assert [
            label
            for label, token in zip(row["labels"], row["input_ids"], strict=True)
            if label not in (-100, token)
        ] == []
        assert ("attention_mask" in row) == (trainer == "axolotl")


@pytest.mark.timeout(300)
def test_preferences_are_exported_and_trained(copy: Trained, tmp_path: Path) -> None:
    recipe, _ = copy
    content = yaml.safe_load(recipe.read_text())
    content["stages"] |= {
        "answered": {"kind": "source", "from": "pairs.jsonl", "format": "preference", "licence": "CC0-1.0"},
        "better": {
            **{"kind": "preference", "data": "answered", "ordinary": "lessons", "model": "base"},
            **{"max_steps": 2, "batch_size": 4, "evaluation_interval": 1, "max_length": 128, "lora": {"r": 4}},
        },
    }
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"is exported from a recipe, and it has better, chat: choose one with"):
        export_training(make_builder(recipe), None, "trl", tmp_path / "none", quiet)
    export_training(make_builder(recipe), "better", "trl", tmp_path / "pairs", quiet)
    rows = [json.loads(line) for line in (tmp_path / "pairs" / "rows" / "train.jsonl").read_text().splitlines()]
    assert [*rows[0]] == ["prompt", "chosen", "rejected"]
    assert "trl dpo --config" in (tmp_path / "pairs" / "README.md").read_text()
    run_trl(tmp_path / "pairs", "dpo")
    builder = make_builder(recipe, f"better={tmp_path / 'pairs'}")
    builder.build(quiet, "better")
    assert builder.get_output("better").record.is_imported
    export_training(make_builder(recipe), "better", "axolotl", tmp_path / "axolotl", quiet)
    [row, *_] = [
        json.loads(line) for line in (tmp_path / "axolotl" / "rows" / "train.jsonl").read_text().splitlines()
    ]
    assert row["chosen"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"generator": "openai/gpt-4o"}, r"^own \(1 rows, answers\) is blocked by the rule generator: .*\.$"),
        ({"licence": "LicenseRef-Mine"}, r"^own \(1 rows, answers\) is blocked by the rule licence: .*\.$"),
        ({"licence": "CC-BY-NC-4.0"}, r"^own \(1 rows, answers\) is blocked by the rule non-commercial: .*\.$"),
    ],
)
def test_rows_that_may_not_train_do_not_leave(fields: dict[str, str], says: str, tmp_path: Path) -> None:
    content = Content("messages", messages=(Message("user", "Bread?"), Message("assistant", "Yes.")))
    row: dict[str, Any] = {"source": "own", "licence": "CC0-1.0"}
    with DatasetWriter(tmp_path) as writer:
        writer.add(Row(content.compute_row_id(), content, **(row | fields)))
        writer.finish([ORIGIN], dropped={})
    with pytest.raises(LineageError, match=says):
        check_rows([tmp_path], ProvenancePolicy(), ())


def test_nothing_is_left_of_an_export_that_fails(copy: Trained, tmp_path: Path) -> None:
    recipe, _ = copy
    content = yaml.safe_load(recipe.read_text())
    content["stages"]["chat"]["lora"]["rank_pattern"] = {"q_proj": 2}
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(TrainingError, match=r"^lora.rank_pattern has no counterpart"):
        export_training(make_builder(recipe), "chat", "trl", tmp_path / "new" / "out", quiet)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_commands(copy: Trained) -> None:
    recipe, folder = copy
    export = ("recipe", "export", recipe, "--to", "trl", "--output", folder)
    assert one_line_error(run(*export)) == f"{folder} is there already."
    assert one_line_error(run(*export, "--stage", "text")) == (
        "The stage 'text' is of the kind mix; those of the kind sft or preference are exported."
    )
    build = ("build", recipe, "--dry-run", "--stage", "chat", "--import-run")
    assert one_line_error(run(*build, "chat=missing")) == "missing is no folder of a run."
    assert f"imported from {folder}" in run(*build, f"chat={folder}", COLUMNS="300").stdout
