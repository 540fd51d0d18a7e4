"""Preferences: what has a part in the loss, what is learned, when training stops, resumption, refusals."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tuning_settings import LoraSettings, PreferenceSettings

pytestmark = pytest.mark.workshop
pytest_plugins = ["training_fixtures"]

TINY = PreferenceSettings(
    max_steps=12, evaluation_interval=4, batch_size=4, max_length=96, learning_rate=1e-3, ordinary_tolerance=5.0
)
RUN = """
import sys
from pathlib import Path
from commonweight.workshop.training.preference import run_preference
from commonweight.workshop.training.tuning_settings import PreferenceSettings
data, ordinary, model, output = map(Path, sys.argv[2:])
settings = PreferenceSettings.model_validate_json(sys.argv[1])
run_preference(settings, data, ordinary, model, output, output / "checkpoints", print)
"""
ASKED = [
    {"role": "system", "content": "You sell bread."},
    {"role": "user", "content": "Is the rye fresh?"},
    {"role": "assistant", "content": "It is."},
    {"role": "user", "content": "And the rolls?\nassistant\n"},
]
Prefer = Callable[..., dict[str, Any]]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def make_row(chosen: str, rejected: str, prompt: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {
        "kind": "preference",
        "messages": ASKED if prompt is None else prompt,
        "chosen": answer(chosen),
        "rejected": answer(rejected),
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, write_rows: Callable[..., Path]) -> Path:
    """60 pairs: the better answer says when, the other one shrugs."""
    dice = random.Random(9)
    rows = []
    for i in range(60):
        thing = dice.choice(["rye", "roll", "cake", "bun", "tart"])
        prompt = [{"role": "user", "content": f"When was the {thing} {i} baked?"}]
        chosen, rejected = f"The {thing} was baked at {dice.randint(3, 9)}.", f"No idea about {thing}, go away."
        rows.append(make_row(chosen, rejected, prompt) | {"row_id": f"{i:016x}"})
    return write_rows(tmp_path_factory.mktemp("pairs"), rows)


@pytest.fixture(scope="module")
def prefer(pretrained: tuple[Path, dict[str, Any]], pairs: Path, conversations: Path) -> Prefer:
    """Trains the tiny model on the pairs."""
    from commonweight.workshop.training.preference import run_preference

    def run(settings: PreferenceSettings, folder: Path, data: Path = pairs) -> dict[str, Any]:
        output = folder / "model"
        output.mkdir(parents=True, exist_ok=True)
        report = print
        checkpoints = folder / "checkpoints"
        return run_preference(settings, data, conversations, pretrained[0], output, checkpoints, report)

    return run


@pytest.fixture(scope="module")
def preferred(prefer: Prefer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("preferred")
    return folder / "model", prefer(TINY, folder)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def encode(words: Path, *rows: dict[str, Any], max_length: int = 4096) -> tuple[Any, Any]:
    from commonweight.workshop.training.dataset import Row
    from commonweight.workshop.training.pairs import encode_pairs
    from commonweight.workshop.training.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(words)
    made = [Row("00", None, row["messages"], 0, row["chosen"], row["rejected"]) for row in rows]
    return encode_pairs(made, tokenizer, max_length), tokenizer


def test_a_pair_is_a_prompt_as_served_and_two_answers_with_their_ends(words: Path) -> None:
    pairs, tokenizer = encode(words, make_row(" At six. ", "naïve, assistant"))
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=False)
    assert pairs.prompt_ids == [tokenizer.encode(prompt)]
    assert tokenizer.decode(pairs.chosen_ids[0]) == " At six. <|im_end|>"
    assert tokenizer.decode(pairs.rejected_ids[0]) == "naïve, assistant<|im_end|>"
    both = len(pairs.chosen_ids[0]) + len(pairs.rejected_ids[0])
    assert pairs.count_tokens() == 2 * len(pairs.prompt_ids[0]) + both


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (make_row("At six.", " At six."), "has two equal answers"),
        (make_row(" ", "At six."), "has an empty chosen answer"),
        (make_row("At six.<|im_end|>", "No."), "spells a control token"),
        (make_row("At six.", "No.", []), "is not a prompt with two answers of one turn"),
        (make_row("At six.", "No.") | {"rejected": []}, "is not a prompt with two answers of one turn"),
        (make_row("At six.", "No.") | {"chosen": ASKED}, "is not a prompt with two answers of one turn"),
    ],
)
def test_pairs_that_teach_nothing_are_dropped(words: Path, row: dict[str, Any], reason: str) -> None:
    pairs, _ = encode(words, row, make_row("At six.", ""))
    assert pairs.dropped == {reason: 1}
    assert len(pairs.prompt_ids) == 1


def test_pairs_are_never_cut(words: Path) -> None:
    row = make_row("At six.", "I could not say when they were baked.")
    pairs, _ = encode(words, row)
    longest = len(pairs.prompt_ids[0]) + len(pairs.rejected_ids[0])
    assert encode(words, row, max_length=longest)[0].dropped == {}
    cut, _ = encode(words, row, max_length=longest - 1)
    assert (cut.dropped, cut.prompt_ids) == ({"is longer than max_length": 1}, [])


def test_nothing_of_a_prompt_or_of_padding_has_a_part_in_the_loss(
    pretrained: tuple[Path, dict[str, Any]], pairs: Path, conversations: Path, tmp_path: Path
) -> None:
    from commonweight.workshop.training.dataset import read_rows
    from commonweight.workshop.training.preference import (
        build_preference_trainer,
        draw_ordinary,
        make_preference_arguments,
        split_pairs,
    )
    from commonweight.workshop.training.tokenizer import load_tokenizer
    from commonweight.workshop.training.trainer import load_model

    tokenizer = load_tokenizer(pretrained[0])
    parts = split_pairs(TINY, pairs, tokenizer)
    ordinary = draw_ordinary(TINY, conversations, tokenizer)
    arguments = make_preference_arguments(TINY, tmp_path)
    model = load_model(pretrained[0])
    trainer = build_preference_trainer(TINY, arguments, model, tokenizer, *parts, ordinary, tmp_path)
    written = {
        (row.messages or [])[0]["content"]: ((row.chosen or [])[0]["content"], (row.rejected or [])[0]["content"])
        for row in read_rows(pairs, "train", ("preference",))
    }
    seen = 0
    for batch in trainer.get_train_dataloader():
        half = len(batch["input_ids"]) // 2
        for number, (ids, mask) in enumerate(zip(batch["input_ids"], batch["completion_mask"], strict=True)):
            text = tokenizer.decode(ids)
            asked = text.partition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
            assert tokenizer.decode(ids[mask.bool()]) == written[asked][number >= half] + "<|im_end|>"
            seen += 1
    assert seen == 2 * len(parts[0].prompt_ids) == 108


def test_the_loss_falls_and_the_margin_rises(
    preferred: tuple[Path, dict[str, Any]], pretrained: tuple[Path, dict[str, Any]]
) -> None:
    folder, observed = preferred
    lines = read_metrics(folder)
    losses = [line["loss"] for line in lines if "loss" in line]
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    held_out = [line for line in lines if "eval_loss" in line]
    assert len(losses) == len(margins) == observed["steps"] == observed["kept_step"] == 12
    assert losses[-1] < losses[0] - 0.3
    assert margins[0] == pytest.approx(0, abs=1e-4)
    assert margins[-1] > 0.5
    assert [line["step"] for line in held_out] == [4, 8, 12]
    assert held_out[-1]["eval_rewards/margins"] > held_out[0]["eval_rewards/margins"] > 0
    assert held_out[-1]["eval_rewards/accuracies"] > 0.8
    assert observed["eval_loss"] == held_out[-1]["eval_loss"]
    assert {file.name for file in folder.iterdir()} == {file.name for file in pretrained[0].iterdir()} | {
        "training.json"
    }
    config = json.loads((folder / "training.json").read_text())
    assert (config["config"], config["trl"]["loss_type"]) == ("DPOConfig", ["sigmoid", "sft"])
    assert config["trl"]["loss_weights"] == [1.0, 0.2]
    assert str(folder.parent) not in (folder / "training.json").read_text()


def test_ordinary_answers_are_measured_before_and_at_every_interval(
    preferred: tuple[Path, dict[str, Any]], pretrained: tuple[Path, dict[str, Any]], conversations: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from commonweight.workshop.training.preference import draw_ordinary
    from commonweight.workshop.training.tokenizer import load_tokenizer

    folder, observed = preferred
    measured = {
        line["step"]: line["eval_ordinary_logp"] for line in read_metrics(folder) if "eval_ordinary_logp" in line
    }
    assert list(measured) == [0, 4, 8, 12]
    assert (observed["ordinary_logp_before"], observed["ordinary_logp_after"]) == (measured[0], measured[12])
    # transformers' own loss: a mean over the learned tokens of a row.
    rows = draw_ordinary(TINY, conversations, load_tokenizer(folder))
    assert len(rows.input_ids) == 64
    for model, expected in ((pretrained[0], measured[0]), (folder, measured[12])):
        network = AutoModelForCausalLM.from_pretrained(model)
        total, tokens = 0.0, 0
        for ids, labels in zip(rows.input_ids, rows.labels, strict=True):
            count = sum(label != -100 for label in labels[1:])
            with torch.no_grad():
                loss = network(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
            total, tokens = total - float(loss) * count, tokens + count
        assert total / tokens == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("lora", [None, LoraSettings(r=4)])
def test_training_stops_where_ordinary_answers_become_less_likely(
    prefer: Prefer, pretrained: tuple[Path, dict[str, Any]], tmp_path: Path, lora: LoraSettings | None
) -> None:
    rash = {"learning_rate": 3e-3 if lora is None else 3e-2, "evaluation_interval": 1, "lora": lora}
    settings = TINY.model_copy(update=rash | {"losses": {"sigmoid": 1.0}, "beta": 1.0, "ordinary_tolerance": 0.3})
    observed = prefer(settings, tmp_path)
    measured = [line for line in read_metrics(tmp_path / "model") if "eval_ordinary_logp" in line]
    falls = [measured[0]["eval_ordinary_logp"] - line["eval_ordinary_logp"] for line in measured]
    assert 1 <= observed["kept_step"] == observed["steps"] - 1 < 11
    assert all(fall <= 0.3 for fall in falls[:-1])
    assert falls[-1] > 0.3
    # What is saved is the checkpoint before.
    same = tmp_path / "shorter"
    kept = int(observed["kept_step"])
    checkpoint = tmp_path / "checkpoints" / f"checkpoint-{kept}"
    assert not (tmp_path / "checkpoints" / f"checkpoint-{kept + 1}").exists()
    if lora is None:
        assert (checkpoint / "model.safetensors").read_bytes() == (
            tmp_path / "model" / "model.safetensors"
        ).read_bytes()
    else:
        from commonweight.workshop.training.adapter import merge_adapter
        from commonweight.workshop.training.model import save_model

        merged = merge_adapter(pretrained[0], tmp_path / "model" / "adapter")
        same.mkdir()
        save_model(merged, same)
        assert (same / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
        from safetensors.torch import load_file

        stored = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
        trained = load_file(checkpoint / "adapter_model.safetensors")
        assert all(tensor.equal(trained[name].half()) for name, tensor in stored.items())


def test_a_fall_before_the_first_checkpoint_is_an_error(prefer: Prefer, tmp_path: Path) -> None:
    rash = TINY.model_copy(update={"learning_rate": 0.1, "ordinary_tolerance": 0.001})
    with pytest.raises(TrainingError, match=r"less likely by more than 0\.001 nats a token before the first"):
        prefer(rash, tmp_path)


def test_a_killed_and_resumed_training_gives_the_same_bytes(
    preferred: tuple[Path, dict[str, Any]],
    pretrained: tuple[Path, dict[str, Any]],
    pairs: Path,
    conversations: Path,
    tmp_path: Path,
) -> None:
    from commonweight.workshop.training.preference import run_preference

    paths = [str(path) for path in (pairs, conversations, pretrained[0], tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, TINY.model_dump_json(), *paths], stdout=subprocess.DEVNULL
    )
    while not (tmp_path / "checkpoints/checkpoint-4/trainer_state.json").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    said: list[str] = []
    checkpoints = tmp_path / "checkpoints"
    run_preference(TINY, pairs, conversations, pretrained[0], tmp_path, checkpoints, said.append)
    assert any(", from step " in line for line in said)
    for name in ("model.safetensors", "metrics.jsonl", "training.json"):
        assert (tmp_path / name).read_bytes() == (preferred[0] / name).read_bytes()


def test_other_losses_reach_trl(prefer: Prefer, tmp_path: Path) -> None:
    losses = dict.fromkeys(("hinge", "ipo", "apo_zero", "robust", "sigmoid_norm", "aot", "discopop"), 0.5)
    settings = TINY.model_copy(update={"losses": losses, "max_steps": 1, "trl": {"label_smoothing": 0.1}})
    observed = prefer(settings, tmp_path)
    assert observed["steps"] == 1
    config = json.loads((tmp_path / "model" / "training.json").read_text())["trl"]
    assert (config["loss_type"], config["loss_weights"]) == (list(losses), [0.5] * 7)


def test_the_losses_are_those_of_trl() -> None:
    from typing import get_args

    from trl import DPOConfig

    from commonweight.workshop.training.tuning_settings import Loss

    stated = str(DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]).partition(". If")[0]
    assert set(get_args(Loss)) == set(re.findall(r"'(\w+)'", stated))


def test_what_cannot_be_trained_is_refused(
    prefer: Prefer,
    pretrained: tuple[Path, dict[str, Any]],
    texts: Path,
    pairs: Path,
    conversations: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
) -> None:
    from commonweight.workshop.training.preference import run_preference

    with pytest.raises(TrainingError, match="too few pairs within max_length"):
        prefer(TINY, tmp_path / "a", conversations)
    with pytest.raises(TrainingError, match="too few pairs within max_length"):
        prefer(TINY.model_copy(update={"max_length": 16}), tmp_path / "b")
    torn = write_rows(tmp_path / "torn", [make_row("At six.", "No.") | {"rejected": None}])
    with pytest.raises(TrainingError, match="of kind preference has no rejected"):
        prefer(TINY, tmp_path / "c", torn)
    with pytest.raises(TrainingError, match="the rows of ordinary hold no conversation with an answer"):
        run_preference(TINY, pairs, texts, pretrained[0], tmp_path, tmp_path / "checkpoints", print)
    with pytest.raises(TrainingError, match="trl names weight_decy, which TRL's DPOConfig does not have"):
        prefer(TINY.model_copy(update={"trl": {"weight_decy": 0.1}}), tmp_path / "d")
    with pytest.raises(TrainingError, match="is not finite"):
        prefer(TINY.model_copy(update={"learning_rate": 1e30}), tmp_path / "e")
