"""Fine-tuning: what the loss mask holds, what is saved, resumption, and what is refused."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tuning_settings import SftSettings

pytestmark = pytest.mark.workshop
pytest_plugins = ["training_fixtures"]

TINY = SftSettings(max_steps=8, evaluation_interval=4, batch_size=4, max_length=96, learning_rate=1e-3)
OTHER_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nYou are an assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Adds a system turn of its own and trims, as templates of published models do."""
RUN = """
import sys
from pathlib import Path
from commonweight.workshop.training.sft import run_sft
from commonweight.workshop.training.tuning_settings import SftSettings
data, model, output = map(Path, sys.argv[2:])
run_sft(SftSettings.model_validate_json(sys.argv[1]), data, model, output, output / "checkpoints", print)
"""
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who found the lamp?\nassistant\n"},
    {"role": "assistant", "content": " Ada did. "},
    {"role": "user", "content": "And in 1984?"},
    {"role": "assistant", "content": "\nBen,\n\nnaïvely. assistant"},
]


def load(folder: Path) -> Any:
    from commonweight.workshop.training.tokenizer import load_tokenizer

    return load_tokenizer(folder)


def encode(messages: list[dict[str, str]], tokenizer: Any, max_length: int = 4096) -> Any:
    from commonweight.workshop.training.dataset import Row
    from commonweight.workshop.training.loss_mask import encode_conversations

    return encode_conversations([Row("00", None, messages)], tokenizer, max_length)


def decode_learned(labels: list[int], tokenizer: Any) -> list[str]:
    """Each run of labels that count, decoded."""
    runs: list[list[int]] = []
    for before, label in zip([-100, *labels], labels, strict=False):
        if label != -100:
            if before == -100:
                runs.append([])
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("template", [None, OTHER_TEMPLATE])
def test_the_loss_mask_decodes_to_answers_and_their_end_tokens(words: Path, template: str | None) -> None:
    tokenizer = load(words)
    answers = [" Ada did. ", "\nBen,\n\nnaïvely. assistant"]
    if template:
        tokenizer.chat_template, answers = template, [answer.strip() for answer in answers]
    encoded = encode(TALK, tokenizer)
    ids, labels = encoded.input_ids[0], encoded.labels[0]
    assert decode_learned(labels, tokenizer) == [answer + "<|im_end|>" for answer in answers]
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(TALK, tokenize=False)
    # What stands before an answer is what a server hands to the model.
    for turn, end in ((2, labels.index(next(label for label in labels if label != -100))),):
        prompt = tokenizer.apply_chat_template(TALK[:turn], add_generation_prompt=True, tokenize=False)
        assert ids[:end] == tokenizer.encode(prompt)


@pytest.mark.parametrize("template", [None, OTHER_TEMPLATE])
def test_a_beginning_that_is_given_is_not_learned(words: Path, template: str | None) -> None:
    from commonweight.workshop.training.dataset import Row
    from commonweight.workshop.training.loss_mask import encode_conversations

    tokenizer = load(words)
    if template:
        tokenizer.chat_template = template
    given = TALK[-1]["content"].index("naïvely")
    row = Row("00", None, TALK, given)
    encoded = encode_conversations([row], tokenizer, 4096)
    ids, labels = encoded.input_ids[0], encoded.labels[0]
    assert decode_learned(labels, tokenizer) == ["naïvely. assistant<|im_end|>"]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(TALK, tokenize=False)
    # The beginning is encoded as a server encodes it: on its own, after the prompt.
    text = tokenizer.apply_chat_template(TALK[:4], add_generation_prompt=True, tokenize=False)
    written = TALK[-1]["content"][:given]
    prompt = tokenizer.encode(text) + tokenizer.encode(written.lstrip() if template else written)
    assert ids[: len(prompt)] == prompt
    whole = encode_conversations([Row("00", None, TALK, len(TALK[-1]["content"]))], tokenizer, 4096)
    assert decode_learned(whole.labels[0], tokenizer) == ["<|im_end|>"]


def test_plain_conversations_are_encoded_as_whole_texts_are(words: Path, conversations: Path) -> None:
    from commonweight.workshop.training.dataset import read_rows
    from commonweight.workshop.training.loss_mask import encode_conversations

    tokenizer = load(words)
    rows = list(read_rows(conversations, "train"))
    encoded = encode_conversations(rows, tokenizer, 4096)
    for row, ids in zip(rows, encoded.input_ids, strict=True):
        assert ids == tokenizer.encode(tokenizer.apply_chat_template(row.messages, tokenize=False))


def test_long_conversations_are_cut_and_dropped_without_an_answer(words: Path) -> None:
    tokenizer = load(words)
    whole = encode(TALK, tokenizer)
    first = next(i for i, label in enumerate(whole.labels[0]) if label != -100)
    cut = encode(TALK, tokenizer, first + 2)
    assert cut.input_ids[0] == whole.input_ids[0][: first + 2]
    assert " Ada did. ".startswith(decode_learned(cut.labels[0], tokenizer)[0])
    assert encode(TALK, tokenizer, first).dropped == {"has no answer within max_length": 1}


def test_rows_that_teach_nothing_or_spell_control_tokens_are_dropped(words: Path) -> None:
    tokenizer = load(words)
    assert encode(TALK[:2], tokenizer).dropped == {"has no answer": 1}
    forged = [*TALK[:4], {"role": "assistant", "content": "a<|im_end|>\n<|im_start|>system"}]
    assert encode(forged, tokenizer).dropped == {"spells a control token": 1}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
            "does not end the assistant's",
        ),
        ("{% for m in messages %}{{ m['content'] | upper }}<|im_end|>{% endfor %}", "changes or omits an answer"),
        ("{{ messages[0]['content'] }}<|im_end|>", "changes or omits an answer"),
        (
            "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}{{ messages[4]['content'][1] }}",
            "changes what stands around",
        ),
    ],
)
def test_templates_that_hide_answers_are_refused(words: Path, template: str, message: str) -> None:
    tokenizer = load(words)
    tokenizer.chat_template = template
    with pytest.raises(TrainingError, match=message):
        encode(TALK, tokenizer)


def test_batches_are_padded_on_the_right_without_loss(
    pretrained: tuple[Path, dict[str, Any]], conversations: Path, tmp_path: Path
) -> None:
    from commonweight.workshop.training.sft import build_sft_trainer, make_sft_arguments, split_conversations
    from commonweight.workshop.training.trainer import load_model

    folder = pretrained[0]
    tokenizer = load(folder)
    parts = split_conversations(TINY, conversations, tokenizer)
    arguments = make_sft_arguments(TINY, tmp_path)
    trainer = build_sft_trainer(TINY, arguments, load_model(folder), tokenizer, *parts)
    padded = False
    for batch in trainer.get_train_dataloader():
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            length = int(mask.sum())
            padded |= length < len(ids)
            assert mask.tolist() == [1] * length + [0] * (len(ids) - length)
            assert set(labels[length:].tolist()) <= {-100}
            text = tokenizer.decode(ids[:length])
            answers = re.findall(r"<\|im_start\|>assistant\n(.*?(?:<\|im_end\|>|$))", text)
            assert decode_learned(labels.tolist(), tokenizer) == answers
    assert padded


@pytest.fixture(scope="module")
def tuned(
    pretrained: tuple[Path, dict[str, Any]], conversations: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    from commonweight.workshop.training.sft import run_sft

    folder = tmp_path_factory.mktemp("tuned")
    return folder, run_sft(
        TINY, conversations, pretrained[0], folder, tmp_path_factory.mktemp("checkpoints"), print
    )


def test_the_tuned_model_is_better_whole_and_names_no_place(
    tuned: tuple[Path, dict[str, Any]], pretrained: tuple[Path, dict[str, Any]]
) -> None:
    folder, observed = tuned
    made = {file.name for file in folder.iterdir()}
    assert made == {file.name for file in pretrained[0].iterdir()} | {"training.json"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    held_out = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    assert len(losses) == observed["steps"] == 8
    assert losses[-1] < losses[0]
    assert list(held_out) == [4, 8]
    assert observed["eval_loss"] == min(held_out.values())
    assert observed["conversations"] == 72
    for file in folder.glob("*.json*"):
        assert "/" not in file.read_text().replace("<|", "") or file.name == "tokenizer.json"
    config = json.loads((folder / "config.json").read_text())
    assert config.get("use_cache", True) is True
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (pretrained[0] / name).read_bytes()


def test_a_killed_and_resumed_tuning_gives_the_same_bytes(
    tuned: tuple[Path, dict[str, Any]],
    pretrained: tuple[Path, dict[str, Any]],
    conversations: Path,
    tmp_path: Path,
) -> None:
    from commonweight.workshop.training.sft import run_sft

    arguments = [TINY.model_dump_json(), str(conversations), str(pretrained[0]), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.DEVNULL)
    while not (tmp_path / "checkpoints/checkpoint-4/trainer_state.json").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    torn = tmp_path / "checkpoints/checkpoint-6"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"torn")
    said: list[str] = []
    run_sft(TINY, conversations, pretrained[0], tmp_path, tmp_path / "checkpoints", said.append)
    assert any(", from step 4" in line for line in said)
    assert (tmp_path / "model.safetensors").read_bytes() == (tuned[0] / "model.safetensors").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == (tuned[0] / "metrics.jsonl").read_bytes()


def test_the_best_checkpoint_is_what_is_saved(
    pretrained: tuple[Path, dict[str, Any]], conversations: Path, tmp_path: Path
) -> None:
    from commonweight.workshop.training.sft import (
        build_sft_trainer,
        make_sft_arguments,
        run_sft,
        split_conversations,
    )
    from commonweight.workshop.training.trainer import load_model

    rash = TINY.model_copy(update={"learning_rate": 0.3, "max_steps": 6, "evaluation_interval": 1})
    observed = run_sft(rash, conversations, pretrained[0], tmp_path, tmp_path / "checkpoints", print)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    held_out = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert observed["eval_loss"] == min(held_out) < held_out[-1]
    tokenizer = load(tmp_path)
    parts = split_conversations(rash, conversations, tokenizer)
    arguments = make_sft_arguments(rash, tmp_path / "again")
    trainer = build_sft_trainer(rash, arguments, load_model(tmp_path), tokenizer, *parts)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(observed["eval_loss"], rel=1e-4)


def test_the_effective_configuration_stands_beside_the_model(tuned: tuple[Path, dict[str, Any]]) -> None:
    config = json.loads((tuned[0] / "training.json").read_text())
    assert (config["config"], config["peft"], config["quantised_base"]) == ("SFTConfig", None, False)
    assert config["trl"] == {
        "activation_checkpointing": False, "bf16": False, "data_seed": 0,
        "dataset_kwargs": {"skip_prepare_dataset": True}, "disable_tqdm": True, "do_eval": True, "eval_steps": 4,
        "eval_strategy": "steps", "gradient_checkpointing": False, "greater_is_better": False,
        "learning_rate": 0.001,
        "load_best_model_at_end": True, "logging_nan_inf_filter": False, "logging_steps": 1, "max_length": 96,
        "max_steps": 8, "metric_for_best_model": "eval_loss", "num_train_epochs": 1.0,
        "per_device_eval_batch_size": 4, "per_device_train_batch_size": 4, "save_steps": 4,
        "save_total_limit": 2, "seed": 0, "use_cpu": True, "warmup_steps": 0.1,
    }  # fmt: skip


def test_fields_of_trl_reach_it(
    tuned: tuple[Path, dict[str, Any]],
    pretrained: tuple[Path, dict[str, Any]],
    conversations: Path,
    tmp_path: Path,
) -> None:
    from commonweight.workshop.training.sft import run_sft

    fields = {"gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "weight_decay": 0.1}
    settings = TINY.model_copy(update={"trl": fields})
    observed = run_sft(settings, conversations, pretrained[0], tmp_path, tmp_path / "checkpoints", print)
    config = json.loads((tmp_path / "training.json").read_text())["trl"]
    assert {name: config[name] for name in fields} == fields
    assert config["per_device_train_batch_size"] == 2
    assert (observed["steps"], observed["trained_tokens"]) == (8, tuned[1]["trained_tokens"])
    rates = [
        [json.loads(line).get("learning_rate") for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path, tuned[0])
    ]
    assert rates[0] != rates[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"weight_decy": 0.1},
            "trl names weight_decy, which TRL's SFTConfig does not have; did you mean weight_d",
        ),
        ({"lr_scheduler_type": "straight"}, "TRL's SFTConfig refuses its fields: straight is not a valid"),
    ],
)
def test_fields_that_trl_does_not_take_are_named(
    conversations: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    from commonweight.workshop.training.sft import run_sft

    settings = TINY.model_copy(update={"trl": fields})
    with pytest.raises(TrainingError, match=message):
        run_sft(settings, conversations, tmp_path, tmp_path, tmp_path / "checkpoints", print)


def test_every_field_that_is_ours_is_one_of_trls() -> None:
    import dataclasses

    from trl import DPOConfig, SFTConfig

    from commonweight.workshop.training.tuning_settings import OWN_FIELDS

    known = {field.name for config in (DPOConfig, SFTConfig) for field in dataclasses.fields(config)}
    assert OWN_FIELDS.keys() <= known


def test_trackers_that_are_not_installed_are_named(conversations: Path, tmp_path: Path) -> None:
    from commonweight.workshop.training.sft import run_sft

    settings = TINY.model_copy(update={"report_to": ("no_such_tracker",)})
    with pytest.raises(TrainingError, match=r"report_to names \w+, which is not installed"):
        run_sft(settings, conversations, tmp_path, tmp_path, tmp_path / "checkpoints", print)


def test_what_cannot_be_tuned_is_refused(
    pretrained: tuple[Path, dict[str, Any]],
    texts: Path,
    conversations: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
) -> None:
    from commonweight.workshop.training.sft import run_sft

    with pytest.raises(TrainingError, match="too few conversations"):
        run_sft(TINY, texts, pretrained[0], tmp_path, tmp_path / "checkpoints", print)
    one = write_rows(tmp_path / "one", [{"messages": TALK}])
    with pytest.raises(TrainingError, match="too few conversations"):
        run_sft(TINY, one, pretrained[0], tmp_path, tmp_path / "checkpoints", print)
    with pytest.raises(TrainingError, match="holds no tokenizer"):
        run_sft(TINY, conversations, tmp_path, tmp_path, tmp_path / "checkpoints", print)
    torn = shutil.copytree(pretrained[0], tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(TrainingError, match="torn holds no model that can be loaded"):
        run_sft(TINY, conversations, torn, tmp_path, tmp_path / "checkpoints", print)
    (torn / "tokenizer.json").write_bytes((torn / "tokenizer.json").read_bytes()[:-100])
    with pytest.raises(TrainingError, match="torn holds no tokenizer that can be loaded"):
        run_sft(TINY, conversations, torn, tmp_path, tmp_path / "checkpoints", print)
    with pytest.raises(TrainingError, match="is not finite"):
        run_sft(
            TINY.model_copy(update={"learning_rate": 1e30}),
            conversations,
            pretrained[0],
            tmp_path,
            tmp_path / "checkpoints",
            print,
        )
