"""Configs for other trainers, read by TRL's own parser, and what no config of theirs can say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.trainer_config import (
    CONFIG,
    get_command,
    make_preference_config,
    make_sft_config,
    write_config,
)
from commonweight.workshop.training.tuning_settings import LoraSettings, PreferenceSettings, SftSettings

pytestmark = pytest.mark.workshop

ON_CPU = ["--use_cpu", "true", "--bf16", "false"]
LORA = LoraSettings(r=8, lora_dropout=0.05, target_modules=("q_proj", "v_proj"), use_rslora=True)


def parse(config: dict[str, Any], folder: Path, method: str) -> tuple[Any, Any, Any]:
    """The script's, the trainer's and the model's arguments, as TRL's command parses them."""
    from trl.scripts import dpo, sft

    write_config(config, folder)
    parser = {"sft": sft, "dpo": dpo}[method].make_parser()
    script, training, model, _ = parser.parse_args_and_config(["--config", str(folder / CONFIG), *ON_CPU])
    return script, training, model


def test_trl_reads_a_config_of_fine_tuning(tmp_path: Path) -> None:
    settings = SftSettings(
        learning_rate=1e-3, epochs=2.0, batch_size=8, max_length=256, lora=LORA, seed=3, evaluation_interval=7,
        trl={"gradient_accumulation_steps": 4, "weight_decay": 0.1, "lr_scheduler_type": "cosine"},
    )  # fmt: skip
    script, training, model = parse(make_sft_config(settings, "trl"), tmp_path, "sft")
    assert (script.dataset_name, script.dataset_train_split, script.dataset_test_split) == (
        *("rows", "train"),
        "validation",
    )
    assert (training.learning_rate, training.num_train_epochs, training.max_length) == (1e-3, 2.0, 256)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 4)
    assert (training.weight_decay, training.lr_scheduler_type, training.seed) == (0.1, "cosine", 3)
    assert (training.eval_strategy, training.eval_steps, training.packing) == ("steps", 7, False)
    assert (model.use_peft, model.lora_r, model.lora_alpha, model.lora_dropout) == (True, 8, 16, 0.05)
    assert (model.lora_target_modules, model.use_rslora) == (["q_proj", "v_proj"], True)
    assert model.model_name_or_path == "model"


def test_trl_reads_a_config_of_all_weights_for_some_steps(tmp_path: Path) -> None:
    _, training, model = parse(make_sft_config(SftSettings(max_steps=5), "trl"), tmp_path, "sft")
    assert (training.max_steps, model.use_peft) == (5, False)


def test_trl_reads_a_config_of_preference(tmp_path: Path) -> None:
    settings = PreferenceSettings(losses={"sigmoid": 1.0, "sft": 0.2}, beta=0.3, lora=LoraSettings())
    _, training, model = parse(make_preference_config(settings, "trl"), tmp_path, "dpo")
    assert (training.loss_type, training.loss_weights, training.beta) == (["sigmoid", "sft"], [1.0, 0.2], 0.3)
    assert (model.lora_r, model.lora_target_modules) == (16, "all-linear")
    assert not training.load_best_model_at_end


def test_axolotl_is_told_the_same_in_its_words(tmp_path: Path) -> None:
    settings = SftSettings(lora=LORA, batch_size=8, trl={"gradient_accumulation_steps": 2, "optim": "adamw_torch"})
    write_config(make_sft_config(settings, "axolotl"), tmp_path)
    config = yaml.safe_load((tmp_path / CONFIG).read_text())
    assert (config["adapter"], config["lora_r"], config["lora_alpha"]) == ("lora", 8, 16)
    assert (config["micro_batch_size"], config["gradient_accumulation_steps"]) == (4, 2)
    assert config["peft_use_rslora"] is True
    # Rows that are encoded already: an empty `type`, and columns of their own.
    assert config["datasets"] == [{"path": "rows/train.jsonl", "split": "train", "ds_type": "json", "type": None}]
    assert config["sample_packing"] is False
    preference = make_preference_config(PreferenceSettings(), "axolotl")
    assert (preference["rl"], preference["rl_beta"]) == ("dpo", 0.1)
    assert (preference["dpo_loss_type"], preference["dpo_loss_weights"]) == (["sigmoid", "sft"], [1.0, 0.2])
    assert preference["datasets"][0]["type"] == "chat_template.default"


def test_qlora_is_passed_on() -> None:
    settings = SftSettings(lora=LoraSettings(), quantised_base=True)
    assert make_sft_config(settings, "trl")["load_in_4bit"] is True
    assert make_sft_config(settings, "axolotl")["adapter"] == "qlora"


@pytest.mark.parametrize(
    ("trainer", "settings", "what"),
    [
        ("trl", SftSettings(lora=LoraSettings(rank_pattern={"q_proj": 4})), "lora.rank_pattern"),
        ("axolotl", SftSettings(lora=LoraSettings(exclude_modules="lm_head")), "lora.exclude_modules"),
        ("axolotl", SftSettings(trl={"torch_compile": True}), "trl.torch_compile"),
    ],
)
def test_what_a_trainer_has_no_words_for_is_refused(trainer: Any, settings: SftSettings, what: str) -> None:
    with pytest.raises(TrainingError, match=f"^{what} has no counterpart in a config of {trainer}"):
        make_sft_config(settings, trainer)


def test_the_commands() -> None:
    assert get_command("sft", "trl") == "trl sft --config config.yaml"
    assert get_command("dpo", "trl") == "trl dpo --config config.yaml"
    assert get_command("dpo", "axolotl") == "axolotl train config.yaml"
