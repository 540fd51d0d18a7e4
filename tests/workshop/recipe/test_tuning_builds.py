"""Builds with stages that train a model further: what their records say, and what an adapter may bring in."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_recipe import build, make_recipe, read_built, write_recipe

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.digests import LineageError
from commonweight.workshop.recipe.parse import read_recipe
from commonweight.workshop.recipe.plan import compute_key
from commonweight.workshop.recipe.stages import KINDS

pytestmark = pytest.mark.workshop

SHORT = {"max_steps": 2, "evaluation_interval": 1, "batch_size": 2, "max_length": 128, "lora": {"r": 2}}
STAGES: dict[str, dict[str, Any]] = {
    "talks": {"kind": "source", "from": "talks.jsonl", "format": "messages", "licence": "CC0-1.0"},
    "pairs": {"kind": "source", "from": "pairs.jsonl", "format": "preference", "licence": "MIT"},
    "chat": {"kind": "sft", "data": "talks", "model": "base", **SHORT},
    "better": {
        **{"kind": "preference", "data": "pairs", "ordinary": "talks", "model": "chat"},
        **{**SHORT, "ordinary_tolerance": 5.0},
    },
}
AGAIN = {"kind": "adapter", "model": "base", "from": "shipped", "licence": "Apache-2.0"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that is built, with the adapter of ``chat`` beside it as if it came from outside."""
    folder = tmp_path_factory.mktemp("tuned")
    talks, pairs = [], []
    for number in range(12):
        asked = f"When is loaf {number} baked?"
        answered = [{"role": "user", "content": asked}, {"role": "assistant", "content": f"At {number}."}]
        talks.append(json.dumps({"messages": answered}))
        pairs.append(json.dumps({"prompt": asked, "chosen": f"At {number}.", "rejected": "Go away."}))
    (folder / "talks.jsonl").write_text("\n".join(talks) + "\n")
    (folder / "pairs.jsonl").write_text("\n".join(pairs) + "\n")
    path = write_recipe(folder, make_recipe(**STAGES))
    build(path)
    chat = get_output(path, "chat")
    shutil.copytree(chat / "adapter", folder / "shipped")
    shutil.copyfile(chat / "record.json", folder / "shipped" / "record.json")
    return path


def get_output(path: Path, stage: str) -> Path:
    folder = BuildFolder(path.parent / "build")
    stages: Any = (folder.read_status() or {})["stages"]
    return folder.get_output(stage, stages[stage]["key"])


def test_records_say_what_was_trained(built: Path) -> None:
    records = read_built(built)
    better, chat = records["better"], records["chat"]
    assert better.licences == ("CC0-1.0", "MIT")
    assert {item.role for item in better.inputs} == {"data", "ordinary", "model"}
    assert better.facts.keys() >= {"trained_tokens", "kept_step", "ordinary_logp_before", "ordinary_logp_after"}
    assert chat.parameters["lora"] == {
        "r": 2, "lora_alpha": None, "lora_dropout": 0.0, "target_modules": "all-linear", "exclude_modules": None,
        "use_rslora": False, "use_dora": False, "init_lora_weights": "default", "layers_to_transform": None,
        "layers_pattern": None, "rank_pattern": {}, "alpha_pattern": {},
    }  # fmt: skip
    assert chat.files.keys() >= {"training.json", "adapter/adapter_config.json", "model.safetensors"}
    config = json.loads((get_output(built, "chat") / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].startswith("sha256:")  # made here, so that no publisher names it


def test_an_adapter_from_outside_makes_the_same_model_and_declares_its_origin(built: Path) -> None:
    write_recipe(built.parent, make_recipe(**STAGES, again=AGAIN))
    assert build(built) == ["again"]
    assert build(built) == []
    records = read_built(built)
    again, chat = records["again"], records["chat"]
    assert again.files["model.safetensors"] == chat.files["model.safetensors"]
    assert again.facts["trained_tokens"] == chat.facts["trained_tokens"]
    assert (again.facts["declared_record"], again.facts["declared_kind"]) == (chat.identity, "sft")
    assert again.licences == ("Apache-2.0", "CC0-1.0")
    assert [(item.source, item.licence, item.verdict) for item in again.decisions] == [
        ("shipped", "Apache-2.0", "pass")
    ]
    assert {item.name for item in again.inputs} == {"base", "shipped", "shipped (record)"}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"generators": ("gpt-4o",)}, "its terms forbid the use of outputs"),
        ({"generators": ("nobody/knows",)}, "whose terms are not known"),
        ({"licences": ("CC-BY-NC-4.0", "CC0-1.0")}, "CC-BY-NC-4.0 permits no commercial use"),
    ],
)
def test_what_an_adapter_declares_is_decided_on(built: Path, fields: dict[str, Any], problem: str) -> None:
    record = read_built(built)["chat"].model_copy(update=fields)
    folder = built.parent / "declared"
    shutil.copytree(built.parent / "shipped", folder, dirs_exist_ok=True)
    (folder / "record.json").write_bytes(record.encode())
    path = write_recipe(built.parent, make_recipe(**STAGES, again=AGAIN | {"from": "declared"}))
    with pytest.raises(LineageError, match=problem):
        build(path)


def test_an_adapter_without_a_record_leaves_the_tokens_unknown(built: Path) -> None:
    folder = shutil.copytree(built.parent / "shipped", built.parent / "bare", dirs_exist_ok=True)
    (folder / "record.json").unlink()
    path = write_recipe(built.parent, make_recipe(**STAGES, again=AGAIN | {"from": "bare"}))
    lines: list[str] = []
    assert build(path, "again", lines.append) == ["again"]
    assert any("what it was trained on is not known" in line for line in lines)
    assert "trained_tokens" not in read_built(path)["again"].facts


def test_another_adapter_or_policy_is_another_key(built: Path) -> None:
    base = read_built(built)["base"]

    def find_key(**fields: Any) -> str:
        recipe = read_recipe(write_recipe(built.parent, make_recipe(**STAGES, again=AGAIN) | fields))
        spec, kind = recipe.stages["again"], KINDS["adapter"]
        sources = kind.digest_sources(spec, built.parent, None)
        return compute_key(recipe, "again", spec, kind, {"base": base}, sources)

    first = find_key()
    assert find_key() == first
    assert find_key(share_alike="propagate") != first
    shipped = built.parent / "shipped" / "adapter_config.json"
    before = shipped.read_bytes()
    record = built.parent / "shipped" / "record.json"
    kept = record.read_bytes()
    record.unlink()
    assert find_key() != first
    shipped.write_bytes(before + b" ")
    other = find_key()
    assert other != first
    shipped.write_bytes(before)
    assert find_key() not in (first, other)
    record.write_bytes(kept)
    assert find_key() == first


def test_a_plan_of_such_stages_imports_no_training_library(built: Path) -> None:
    write_recipe(built.parent, make_recipe(**STAGES, again=AGAIN))
    code = (
        "import sys\n"
        "from commonweight.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    found = [name for name in ('torch', 'transformers', 'trl', 'peft') if name in sys.modules]\n"
        "    sys.stderr.write(repr(found))\n"
    )
    command = [sys.executable, "-c", code, "build", str(built), "--dry-run"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=built.parent)
    assert "again" in ran.stdout
    assert ran.stderr.endswith("[]")
