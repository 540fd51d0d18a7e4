"""Settings and estimates: bounds, shapes, and a refusal that gives the numbers. No training library is loaded."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2.sandbox
import psutil
import pytest
from pydantic import ValidationError

from commonweight.prompting.template.chat_template import ChatTemplate
from commonweight.workshop.training.estimate import (
    Estimate,
    check_resources,
    count_parameters,
    estimate,
    estimate_tuning,
)
from commonweight.workshop.training.settings import (
    CHAT_TEMPLATE,
    CONTROL_TOKENS,
    TURN_END,
    TURN_START,
    PretrainSettings,
    TokenizerSettings,
    TrainingError,
)
from commonweight.workshop.training.tuning_settings import (
    LoraSettings,
    PreferenceSettings,
    SftSettings,
)

SHAPE = SimpleNamespace(num_hidden_layers=30, hidden_size=576, vocab_size=49_152)
RUN = (134_515_008, 1000, 100_000)
"""Parameters, rows and tokens."""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 256, "heads": 3}, "must be heads"),
        ({"dim": 96, "heads": 8, "kv_heads": 8}, "multiple of 8"),
        ({"heads": 4, "kv_heads": 3}, "multiple of kv_heads"),
        ({"dim": 48, "heads": 2}, "multiple of 32"),
        ({"context": 256, "batch_tokens": 1000}, "multiple of context"),
        ({"steps": 5, "tokens": 5}, "either steps or tokens"),
        ({"steps": None}, "either steps or tokens"),
        ({"warmup_share": 0.6, "decay_share": 0.6}, "not exceed 1"),
        ({"muon_lr": 0}, "greater than 0"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"momentum": 0.9}, "Extra inputs"),
    ],
)
def test_bad_pretrain_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PretrainSettings(**({"steps": 10} | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": 300},
        {"extra_tokens": ("<|im_end|>",)},
        {"extra_tokens": ("<a>", "<a>")},
        {"extra_tokens": (" ",)},
        {"chat_template": ""},
        {"dropout": 0.1},
    ],
)
def test_bad_tokenizer_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TokenizerSettings(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eval_share": 1}, "eval_share"),
        ({"lora_rank": 8}, "lora_rank"),
        ({"epochs": 0}, "epochs"),
        ({"report_to": ("all",)}, "report_to"),
        ({"packing": True}, "packing"),
        ({"lora": {"r": 0}}, "lora.r"),
        ({"lora": {"rank": 8}}, "lora.rank"),
        ({"lora": {"init_lora_weights": "pissa"}}, "lora.init_lora_weights"),
        ({"lora": {"target_modules": []}}, "target_modules names no module"),
        ({"quantised_base": True}, "quantised_base needs lora"),
        ({"trl": {"output_dir": "x"}}, "output_dir is not taken from trl: checkpoints stand in the build folder"),
        ({"trl": {"packing": True}}, "packing is not taken from trl"),
        ({"trl": {"learning_rate": 1e-4}}, "learning_rate is not taken from trl: it is a setting of the stage"),
        ({"trl": {"hub_model_id": "a/b"}}, "hub_model_id is not taken from trl: nothing is uploaded"),
        ({"trl": {"gradient_accumulation_steps": 0}}, "must be a whole number of at least 1"),
        ({"trl": {"gradient_accumulation_steps": True}}, "must be a whole number of at least 1"),
        ({"batch_size": 6, "trl": {"gradient_accumulation_steps": 4}}, r"batch_size \(6\) must be a multiple"),
    ],
)
def test_bad_sft_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftSettings(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"losses": {}}, "at least 1 item"),
        ({"losses": {"kto": 1.0}}, "losses.kto"),
        ({"losses": {"sigmoid": 0.0}}, "greater than 0"),
        ({"losses": {"sft": 1.0}}, "must name one besides sft"),
        ({"losses": {"exo_pair": 1.0}}, "label_smoothing above 0"),
        ({"beta": 0}, "greater than 0"),
        ({"ordinary_tolerance": 0}, "greater than 0"),
        ({"trl": {"loss_type": ["ipo"]}}, "loss_type is not taken from trl: the setting losses decides"),
        ({"trl": {"beta": 0.2}}, "beta is not taken from trl"),
        ({"max_prompt_length": 64}, "max_prompt_length"),
    ],
)
def test_bad_preference_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PreferenceSettings(**fields)


def test_an_adapters_scale_is_twice_its_rank_unless_it_is_set() -> None:
    assert LoraSettings(r=8).alpha == 16
    assert LoraSettings(r=8, lora_alpha=8).alpha == 8


def test_steps_follow_from_tokens_rounded_up() -> None:
    assert PretrainSettings(tokens=4097).total_steps == 2
    assert PretrainSettings(tokens=4096).total_steps == 1
    assert PretrainSettings(steps=7).total_steps == 7


def test_feed_forward_width_keeps_whole_quantisation_blocks() -> None:
    assert PretrainSettings(steps=1, dim=256, ffn_multiple=2.7).ffn_dim == 768
    assert PretrainSettings(steps=1, dim=64, heads=2, ffn_multiple=2.7).ffn_dim == 160
    assert PretrainSettings(steps=1, dim=32, heads=2, ffn_multiple=0.5).ffn_dim == 32


def test_chat_template_renders_system_turns_and_generation_prompt() -> None:
    template = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    turns = [{"role": "user", "content": "Hi"}]
    assert template.render(messages=turns) == "<|im_start|>user\nHi<|im_end|>\n"
    system = [{"role": "system", "content": "Be brief."}, *turns]
    assert template.render(messages=system, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_our_server_takes_the_chat_template() -> None:
    template = ChatTemplate(CHAT_TEMPLATE, bos_token="", eos_token=TURN_END)
    assert (template.has_system, template.has_late_system, template.has_default_system) == (True, True, False)
    assert template.select_written(CONTROL_TOKENS) == [TURN_START, TURN_END]
    stand_ins = {TURN_START: "\ue000", TURN_END: "\ue001"}
    template.trace(stand_ins, lambda text: text.replace("\ue000", TURN_START).replace("\ue001", TURN_END))
    turns = [{"role": "user", "content": "Hi"}]
    assert template.render(turns) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_estimate_grows_with_the_run() -> None:
    small = PretrainSettings(layers=2, dim=64, heads=2, kv_heads=1, context=64, batch_tokens=512, steps=10)
    needs = estimate(small, 1024)
    matrices, parameters = count_parameters(small, 1024)
    assert needs.parameters == parameters
    assert needs.tokens == 5120
    assert needs.flops >= 6 * parameters * needs.tokens
    assert needs.disk_bytes > 4 * parameters
    assert matrices == 2 * (64 * 32 * 4 + 64 * 64 + 3 * 64 * 192)
    longer = estimate(small.model_copy(update={"steps": 20}), 1024)
    assert longer.seconds == pytest.approx(2 * needs.seconds)
    assert longer.memory_bytes == needs.memory_bytes


def test_adapters_need_less_than_all_weights() -> None:
    full, adapters = (estimate_tuning(SftSettings(lora=lora), SHAPE, *RUN) for lora in (None, LoraSettings()))
    assert adapters.memory_bytes < full.memory_bytes
    assert adapters.disk_bytes < full.disk_bytes


def test_estimates_of_tuning_follow_the_settings() -> None:
    def estimate_with(sequences: int = 1, **fields: Any) -> Estimate:
        return estimate_tuning(SftSettings(**fields), SHAPE, *RUN, sequences=sequences)

    plain = estimate_with()
    assert estimate_with(epochs=2.0).tokens == 2 * plain.tokens == 200_000
    assert estimate_with(max_steps=3, batch_size=5).tokens == 1500
    assert estimate_with(trl={"gradient_accumulation_steps": 4}).memory_bytes < plain.memory_bytes
    assert estimate_with(sequences=2).memory_bytes > plain.memory_bytes
    assert estimate_with(sequences=2).seconds > plain.seconds
    adapters = estimate_with(lora=LoraSettings())
    assert estimate_with(lora=LoraSettings(), quantised_base=True).memory_bytes < adapters.memory_bytes


def test_too_little_memory_is_said_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = estimate(PretrainSettings(steps=1, layers=128, dim=16_384, heads=128), 262_144)
    with pytest.raises(TrainingError, match=r"needs about \d+\.\d GB of memory, and \d+\.\d GB are free"):
        check_resources(needs, tmp_path, "pretraining")
    with pytest.raises(TrainingError, match=r"and 0\.5 GB are free"):
        check_resources(needs, tmp_path, "pretraining", 500_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**62))
    too_large = needs.model_copy(update={"disk_bytes": 2**60})
    with pytest.raises(TrainingError, match=r"needs about \d+\.\d GB of disk for its checkpoints, and \d+\.\d GB"):
        check_resources(too_large, tmp_path, "pretraining")


def test_settings_and_estimates_load_no_training_library() -> None:
    code = (
        "import sys, commonweight.workshop.training.estimate, commonweight.workshop.training.adapter_files;"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'pyarrow') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"
