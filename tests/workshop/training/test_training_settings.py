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
from commonweight.workshop.training.estimate import check_resources, count_parameters, estimate, estimate_sft
from commonweight.workshop.training.settings import (
    CHAT_TEMPLATE,
    CONTROL_TOKENS,
    TURN_END,
    TURN_START,
    PretrainSettings,
    SftSettings,
    TokenizerSettings,
    TrainingError,
)


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
    "fields", [{"eval_share": 1}, {"lora_rank": 0}, {"epochs": 0}, {"report_to": ("all",)}, {"packing": True}]
)
def test_bad_sft_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SftSettings(**fields)


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
    shape = {"parameters": 134_515_008, "layers": 30, "dim": 576, "vocab_size": 49_152, "tokens": 100_000}
    full, adapters = estimate_sft(SftSettings(), **shape), estimate_sft(SftSettings(lora_rank=16), **shape)
    assert adapters.memory_bytes < full.memory_bytes
    assert adapters.disk_bytes < full.disk_bytes


def test_too_little_memory_is_said_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = estimate(PretrainSettings(steps=1, layers=128, dim=16_384, heads=128), 262_144)
    with pytest.raises(TrainingError, match=r"needs about \d+\.\d GB of memory, and \d+\.\d GB are free"):
        check_resources(needs, tmp_path, "pretraining")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**62))
    too_large = needs.model_copy(update={"disk_bytes": 2**60})
    with pytest.raises(TrainingError, match=r"needs about \d+\.\d GB of disk for its checkpoints, and \d+\.\d GB"):
        check_resources(too_large, tmp_path, "pretraining")


def test_settings_and_estimates_load_no_training_library() -> None:
    code = (
        "import sys, commonweight.workshop.training.settings, commonweight.workshop.training.estimate;"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'pyarrow') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"
