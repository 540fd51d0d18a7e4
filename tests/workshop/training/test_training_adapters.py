"""Adapters: how they are trained, stored and merged, and which ones are refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commonweight.lineage.digests import digest_content, digest_file
from commonweight.lineage.record import Record
from commonweight.workshop.training.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, find_adapter
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tuning_settings import AdapterSettings, LoraSettings, SftSettings

pytestmark = pytest.mark.workshop
pytest_plugins = ["training_fixtures"]

BASE = "example/base"
TINY = SftSettings(
    max_steps=4, evaluation_interval=2, batch_size=4, max_length=96, learning_rate=1e-2, lora=LoraSettings(r=4)
)
Tune = Callable[[SftSettings, Path], Path]


@pytest.fixture(scope="module")
def tune(pretrained: tuple[Path, dict[str, Any]], conversations: Path) -> Tune:
    """Fine-tunes the tiny model into a folder."""
    from commonweight.workshop.training.sft import run_sft

    def run(settings: SftSettings, folder: Path) -> Path:
        output = folder / "model"
        output.mkdir(parents=True)
        run_sft(settings, conversations, pretrained[0], output, folder / "checkpoints", print, BASE)
        return output

    return run


@pytest.fixture(scope="module")
def tuned(tune: Tune, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(TINY, tmp_path_factory.mktemp("adapted"))


@pytest.fixture
def adapter(tuned: Path, tmp_path: Path) -> Path:
    """A copy of the adapter."""
    return shutil.copytree(tuned / "adapter", tmp_path / "adapter")


def read_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def change_config(adapter: Path, **fields: object) -> None:
    path = adapter / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_adapters_are_merged_into_the_layers_and_stored_in_peft_layout(
    tuned: Path, pretrained: tuple[Path, dict[str, Any]]
) -> None:
    import torch
    from safetensors.torch import load_file

    before, after = read_weights(pretrained[0]), read_weights(tuned)
    assert before.keys() == after.keys()
    changed = {name for name in after if not after[name].equal(before[name])}
    assert changed == {name for name in before if "proj" in name}
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    stored = load_file(tuned / "adapter" / ADAPTER_WEIGHTS)
    assert len(stored) == 2 * len(changed)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    config = json.loads((tuned / "adapter" / ADAPTER_CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == (BASE, 4, 8)
    assert config["target_modules"] == sorted(name.removesuffix(".weight") for name in changed)
    assert json.loads((tuned / "training.json").read_text())["peft"] == {
        "r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM",
    }  # fmt: skip
    for file in tuned.rglob("*.json*"):
        assert str(tuned.parent) not in file.read_text()


def test_peft_makes_the_same_model_of_base_and_adapter(
    tuned: Path, pretrained: tuple[Path, dict[str, Any]]
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(pretrained[0]), tuned / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tuned)
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        expected, found = adapted(ids).logits, merged(ids).logits
        with adapted.disable_adapter():
            assert not torch.allclose(found, adapted(ids).logits, atol=1e-2)
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_stage_makes_the_same_bytes_of_base_and_adapter(
    tuned: Path, adapter: Path, pretrained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    from commonweight.workshop.training.adapter import run_adapter

    output = tmp_path / "output"
    output.mkdir()
    settings = AdapterSettings.model_validate({"from": "adapter", "licence": "Apache-2.0"})
    observed = run_adapter(find_adapter(settings, tmp_path), pretrained[0], output, print)
    assert observed["adapter_bytes"] == (adapter / ADAPTER_WEIGHTS).stat().st_size
    files = {file.name for file in tuned.iterdir() if file.is_file()} - {"metrics.jsonl", "training.json"}
    assert {file.name for file in output.iterdir()} == files
    for name in files:
        assert (output / name).read_bytes() == (tuned / name).read_bytes()


@pytest.mark.parametrize(
    "fields",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"lora_alpha": 64, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ".*mlp.*proj", "exclude_modules": ["down_proj"], "init_lora_weights": "gaussian"},
        {
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"q_proj": 16},
            "layers_to_transform": [1],
            "target_modules": ["q_proj", "up_proj"],
        },
    ],
)
def test_fields_of_lora_reach_peft_and_can_be_merged(
    tune: Tune, pretrained: tuple[Path, dict[str, Any]], tmp_path: Path, fields: dict[str, Any]
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    lora = LoraSettings.model_validate({"r": 4} | fields)
    tuned = tune(TINY.model_copy(update={"max_steps": 2, "lora": lora}), tmp_path)
    config = json.loads((tuned / "adapter" / ADAPTER_CONFIG).read_text())
    for name, value in fields.items():
        found = config[name]
        assert found == (sorted(value) if isinstance(value, list) and isinstance(value[0], str) else value)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(pretrained[0]), tuned / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tuned)
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(pretrained[0])
        assert not torch.allclose(merged(ids).logits, base(ids).logits, atol=1e-3)


def test_every_field_of_lora_is_one_of_pefts() -> None:
    from peft import LoraConfig

    known = {field.name for field in dataclasses.fields(LoraConfig)}
    assert LoraSettings.model_fields.keys() <= known


def test_modules_that_the_model_has_not_are_refused(tune: Tune, tmp_path: Path) -> None:
    lora = LoraSettings(target_modules=("query",))
    with pytest.raises(TrainingError, match=r"SFTTrainer refuses the settings: .*query"):
        tune(TINY.model_copy(update={"lora": lora}), tmp_path)


def test_a_base_in_four_bits_is_refused_without_a_device(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="quantised_base needs a CUDA device, and this machine has none"):
        tune(TINY.model_copy(update={"quantised_base": True}), tmp_path)


def test_a_base_in_four_bits_is_refused_without_its_library(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TrainingError, match="quantised_base needs the library bitsandbytes"):
        tune(TINY.model_copy(update={"quantised_base": True}), tmp_path)


def test_several_devices_are_refused(tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match="set CUDA_VISIBLE_DEVICES to one of them"):
        tune(TINY, tmp_path)


def test_digests_of_folder_and_file_are_checked(adapter: Path, tmp_path: Path) -> None:
    digests = {name: digest_file(adapter / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    for location, sha256 in (
        ("adapter", digest_content(digests)),
        (f"adapter/{ADAPTER_WEIGHTS}", digests[ADAPTER_WEIGHTS]),
    ):
        entry = {"from": location, "licence": "Apache-2.0", "sha256": sha256}
        assert find_adapter(AdapterSettings.model_validate(entry), tmp_path).digests == digests
        with pytest.raises(TrainingError, match=f"has the SHA-256 {sha256}, not 0000"):
            find_adapter(AdapterSettings.model_validate(entry | {"sha256": "0" * 64}), tmp_path)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("elsewhere", "the adapter elsewhere is not there"),
        (f"adapter/{ADAPTER_CONFIG}", "is neither a folder nor an"),
        ("/adapter", "is not found: .* no path relative to the recipe"),
        ("package:no_such_package/adapter", "is not found: The package no_such_package is not installed"),
        ("https://example.org/adapter", "is neither a path nor in a package"),
    ],
)
def test_adapters_that_are_not_there_are_named(adapter: Path, tmp_path: Path, location: str, message: str) -> None:
    settings = AdapterSettings.model_validate({"from": location, "licence": "MIT"})
    with pytest.raises(TrainingError, match=message):
        find_adapter(settings, tmp_path)


def test_a_record_must_be_of_the_adapter(adapter: Path, tmp_path: Path) -> None:
    settings = AdapterSettings.model_validate({"from": "adapter", "licence": "MIT"})
    assert find_adapter(settings, tmp_path).record is None
    files = {f"adapter/{name}": digest_file(adapter / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    record = Record(kind="sft", name="chat", files=files)
    (adapter / "record.json").write_bytes(record.encode())
    assert find_adapter(settings, tmp_path).record == record
    change_config(adapter, lora_alpha=16)
    with pytest.raises(TrainingError, match=f"is of another one: its digest of {ADAPTER_CONFIG} differs"):
        find_adapter(settings, tmp_path)
    (adapter / "record.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"record\.json of the adapter adapter is not a record"):
        find_adapter(settings, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "of the type .*IA3.*, and only LoRA is merged"),
        ({"peft_type": "NONE"}, "cannot be read"),
        ({"init_lora_weights": "pissa"}, "began with init_lora_weights 'pissa'"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
        ({"target_modules": ["query"]}, "does not fit the model: .*query"),
        ({"target_modules": ["q_proj"]}, "which its configuration or the model does not have"),
        ({"r": 8}, r"lora_A.weight has the shape \[4, \d+\], and the model wants \[8, \d+\]"),
    ],
)
def test_configurations_that_cannot_be_merged_are_refused(
    adapter: Path, pretrained: tuple[Path, dict[str, Any]], fields: dict[str, Any], message: str
) -> None:
    from commonweight.workshop.training.adapter import merge_adapter

    change_config(adapter, **fields)
    with pytest.raises(TrainingError, match=message):
        merge_adapter(pretrained[0], adapter)


def test_adapters_of_other_weights_and_torn_ones_are_refused(
    tuned: Path, adapter: Path, pretrained: tuple[Path, dict[str, Any]]
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from commonweight.workshop.training.adapter import merge_adapter

    with pytest.raises(TrainingError, match=r"of a model whose weights have the digest \w{64}, not \w{64}"):
        merge_adapter(tuned, adapter)
    weights = adapter / ADAPTER_WEIGHTS
    tensors = load_file(weights)
    name = min(tensors)
    save_file(tensors | {name: torch.full_like(tensors[name], float("inf"))}, weights)
    with pytest.raises(TrainingError, match="holds numbers that are not finite"):
        merge_adapter(pretrained[0], adapter)
    save_file({other: tensor for other, tensor in tensors.items() if other != name}, weights)
    with pytest.raises(TrainingError, match=f"lacks {name}"):
        merge_adapter(pretrained[0], adapter)
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="it is torn or no safetensors"):
        merge_adapter(pretrained[0], adapter)
    (adapter / ADAPTER_CONFIG).write_text("{")
    save_file(tensors, weights)
    with pytest.raises(TrainingError, match=f"{ADAPTER_CONFIG} cannot be read"):
        merge_adapter(pretrained[0], adapter)
