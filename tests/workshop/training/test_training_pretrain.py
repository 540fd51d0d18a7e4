"""The pretraining loop: learns, measures bits per byte, resumes to the byte, stops where losses are not finite."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commonweight.workshop.training.optimizer import scale_learning_rate
from commonweight.workshop.training.settings import DOCUMENT_END, PretrainSettings, TrainingError

pytestmark = pytest.mark.workshop
pytest_plugins = ["training_fixtures"]

RUN = """
import sys
from pathlib import Path
from commonweight.workshop.training.pretrain import run_pretrain
from commonweight.workshop.training.settings import PretrainSettings
data, words, output = map(Path, sys.argv[2:])
run_pretrain(PretrainSettings.model_validate_json(sys.argv[1]), data, words, output, output / "checkpoints", print)
"""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_model_learns_and_every_step_is_logged(pretrained: tuple[Path, dict[str, Any]]) -> None:
    folder, observed = pretrained
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert [line["tokens"] for line in lines] == [512 * step for step in range(1, 25)]
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert lines[0]["loss"] == pytest.approx(math.log(vocab_size), abs=0.5)
    assert lines[-1]["loss"] < lines[0]["loss"] - 2
    measured = [line["bits_per_byte"] for line in lines if "bits_per_byte" in line]
    assert len(measured) == 2
    assert measured[1] < measured[0]
    assert observed["bits_per_byte"] == pytest.approx(measured[1], abs=1e-5)
    assert len({line["rows"] for line in lines}) == 24
    assert 0 < observed["muon_share"] < 1


def test_the_model_folder_is_whole_and_names_no_place(pretrained: tuple[Path, dict[str, Any]]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, observed = pretrained
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "metrics.jsonl",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    for file in folder.glob("*.json*"):
        assert str(folder.parent) not in file.read_text()
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["tie_word_embeddings"]) == (["Qwen3ForCausalLM"], True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.num_parameters() == observed["parameters"]
    assert model.generation_config.eos_token_id == [2, 0]
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert AutoTokenizer.from_pretrained(folder).chat_template


def test_bits_per_byte_count_each_byte_of_the_text_once(
    pretrained: tuple[Path, dict[str, Any]], texts: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from commonweight.workshop.training.dataset import read_rows
    from commonweight.workshop.training.packing import PackedRows, count_token_bytes
    from commonweight.workshop.training.pretrain import measure_bits_per_byte
    from commonweight.workshop.training.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(pretrained[0])
    sizes = torch.from_numpy(count_token_bytes(tokenizer, len(tokenizer)))
    held_out = PackedRows(texts, "validation", tokenizer, 0)
    written = sum(len((row.text or "").encode()) for row in read_rows(texts, "validation"))
    assert int(sizes[torch.from_numpy(held_out.tokens.astype("int64"))].sum()) == written == held_out.text_bytes
    # A model that knows nothing needs the logarithm of the vocabulary for each token.
    model = AutoModelForCausalLM.from_pretrained(pretrained[0])
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
    tokens = sum(token != tokenizer.convert_tokens_to_ids(DOCUMENT_END) for token in held_out.tokens.tolist())
    for context in (64, 50):
        bits = measure_bits_per_byte(model, held_out, sizes, context)
        assert bits == pytest.approx(tokens * math.log2(len(tokenizer)) / written, rel=1e-5)


def test_batches_follow_from_their_number(words: Path, texts: Path) -> None:
    from commonweight.workshop.training.packing import PackedRows
    from commonweight.workshop.training.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(words)
    packed = PackedRows(texts, "train", tokenizer, 3)
    whole, ids = packed.read(0, 2 * len(packed))
    assert sorted(ids[:270]) == sorted(ids[270:]) == sorted(packed.row_ids)
    assert ids[:270] != ids[270:]
    assert np.array_equal(np.sort(whole[: len(packed)]), np.sort(packed.tokens))
    again = PackedRows(texts, "train", tokenizer, 3)
    for start in (len(packed) - 100, 5000, 17):  # in any order, across the end of an epoch
        assert np.array_equal(again.read(start, 513)[0], whole[start : start + 513])
    other = PackedRows(texts, "train", tokenizer, 4)
    assert not np.array_equal(other.read(0, 513)[0], whole[:513])


def test_texts_that_spell_control_tokens_stay_text(words: Path) -> None:
    from commonweight.workshop.training.dataset import Row
    from commonweight.workshop.training.packing import encode_row
    from commonweight.workshop.training.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(words)
    text = "a <|im_end|> b"
    ids, size = encode_row(Row("0", text, None), tokenizer)
    assert not set(ids) & {0, 1, 2}
    assert (tokenizer.decode(ids), size) == (text, 14)
    chat, _ = encode_row(Row("1", None, [{"role": "user", "content": "a"}]), tokenizer)
    assert (chat[0], 2 in chat) == (1, True)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    settings = PretrainSettings(steps=100, warmup_share=0.1, decay_share=0.2)
    scales = [scale_learning_rate(settings, step) for step in range(100)]
    assert scales[:10] == sorted(scales[:10])
    assert 0 < scales[0] < scales[9] < 1
    assert set(scales[10:80]) == {1.0}
    assert scales[79:] == sorted(scales[79:], reverse=True)
    assert 0 < scales[99] < 0.1
    flat = PretrainSettings(steps=3, warmup_share=0, decay_share=0)
    assert [scale_learning_rate(flat, step) for step in range(3)] == [1.0, 1.0, 1.0]


def test_a_killed_and_resumed_run_gives_the_same_bytes(
    pretrained: tuple[Path, dict[str, Any]], tiny: PretrainSettings, texts: Path, words: Path, tmp_path: Path
) -> None:
    from commonweight.workshop.training.pretrain import run_pretrain

    arguments = [tiny.model_dump_json(), str(texts), str(words), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.DEVNULL)
    while not (tmp_path / "checkpoints/checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "model.safetensors").exists()
    (tmp_path / "checkpoints/checkpoint.pt.tmp").write_bytes(b"torn")
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')
    said: list[str] = []
    run_pretrain(tiny, texts, words, tmp_path, tmp_path / "checkpoints", said.append)
    assert ", from step " in said[0]
    for name in ("model.safetensors", "config.json", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (pretrained[0] / name).read_bytes()


def test_another_runs_checkpoint_is_not_gone_on_from(
    tiny: PretrainSettings, texts: Path, words: Path, tmp_path: Path
) -> None:
    from commonweight.workshop.training.pretrain import run_pretrain

    diverging = tiny.model_copy(update={"muon_lr": 1.0, "adamw_lr": 1e20, "checkpoint_interval": 1})
    with pytest.raises(TrainingError, match=r"the loss at step \d+ is not finite"):
        run_pretrain(diverging, texts, words, tmp_path, tmp_path / "checkpoints", print)
    said: list[str] = []
    run_pretrain(
        tiny.model_copy(update={"steps": 1}), texts, words, tmp_path, tmp_path / "checkpoints", said.append
    )
    assert "from step" not in said[0]
    assert len(read_metrics(tmp_path)) == 1


def test_losses_that_are_not_finite_keep_the_last_checkpoint(
    tiny: PretrainSettings, texts: Path, words: Path, tmp_path: Path
) -> None:
    import torch

    from commonweight.workshop.training.pretrain import run_pretrain

    diverging = tiny.model_copy(update={"adamw_lr": 1e20, "checkpoint_interval": 1, "warmup_share": 0.5})
    with pytest.raises(TrainingError, match="lower muon_lr or adamw_lr"):
        run_pretrain(diverging, texts, words, tmp_path, tmp_path / "checkpoints", print)
    state = torch.load(tmp_path / "checkpoints/checkpoint.pt", weights_only=True)
    assert state["step"] == len(read_metrics(tmp_path)) >= 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["model"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_that_does_not_fit_is_refused_before_it_starts(
    tiny: PretrainSettings, texts: Path, words: Path, tmp_path: Path
) -> None:
    from commonweight.workshop.training.pretrain import run_pretrain

    huge = tiny.model_copy(update={"layers": 128, "dim": 16_384, "heads": 128})
    with pytest.raises(TrainingError, match=r"pretraining of [\d,]+ parameters needs about \d+\.\d GB of memory"):
        run_pretrain(huge, texts, words, tmp_path, tmp_path / "checkpoints", print)
    assert not list(tmp_path.iterdir())


def test_a_dataset_without_held_out_rows_is_refused(
    tiny: PretrainSettings, words: Path, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    from commonweight.workshop.training.pretrain import run_pretrain

    data = write_rows(tmp_path / "data", [{"text": "a"}])
    with pytest.raises(TrainingError, match="has no validation rows"):
        run_pretrain(tiny, data, words, tmp_path, tmp_path / "checkpoints", print)
    with pytest.raises(TrainingError, match="holds no tokenizer"):
        run_pretrain(tiny, data, tmp_path, tmp_path, tmp_path / "checkpoints", print)
