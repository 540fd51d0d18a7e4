"""The tokenizer folder: lossless, digits apart, the same in transformers, alone and beside a model."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commonweight.workshop.training.settings import CONTROL_TOKENS, TokenizerSettings, TrainingError

pytestmark = pytest.mark.workshop
pytest_plugins = ["training_fixtures"]

ODD = [
    "",
    " ",
    "\n\n  \n",
    "In 1984, 3.14",
    "naïve café",
    unicodedata.normalize("NFD", "naïve"),
    "🤖\u200d漢字",
    "I'LL\tgo\r\n",
]


def load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_texts_come_back_to_the_byte(words: Path) -> None:
    tokenizer = load(words)
    for text in ODD:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)) == [0, 1, 2]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 2, None)
    assert len(tokenizer.encode("1984")) == 4


def test_encodes_the_same_beside_a_model(words: Path, pretrained: tuple[Path, dict[str, Any]]) -> None:
    """The architecture's own tokenizer class would normalise."""
    alone, beside = load(words), load(pretrained[0])
    assert [beside.encode(text) for text in ODD] == [alone.encode(text) for text in ODD]


def test_training_is_deterministic(words: Path, texts: Path, tmp_path: Path) -> None:
    from commonweight.workshop.training.tokenizer import run_tokenizer

    observed = run_tokenizer(TokenizerSettings(vocab_size=1024), texts, tmp_path, print)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / file).read_bytes() == (words / file).read_bytes()
    assert observed["vocab_size"] == len(load(words)) <= 1024


def test_extra_tokens_and_a_template_of_ones_own(texts: Path, tmp_path: Path) -> None:
    from commonweight.workshop.training.tokenizer import run_tokenizer

    settings = TokenizerSettings(
        vocab_size=512, extra_tokens=("<tool>",), chat_template="{{ messages[0]['content'] }}!"
    )
    run_tokenizer(settings, texts, tmp_path, print)
    tokenizer = load(tmp_path)
    assert tokenizer.encode("<tool>") == [3]
    assert 3 in tokenizer.all_special_ids
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "a!"


def test_datasets_without_rows_are_refused(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    from commonweight.workshop.training.tokenizer import run_tokenizer

    with pytest.raises(TrainingError, match="holds no rows"):
        run_tokenizer(TokenizerSettings(), tmp_path, tmp_path, print)
    empty = write_rows(tmp_path / "held-out", [{"text": "a", "split": "validation"}])
    with pytest.raises(TrainingError, match="no training rows"):
        run_tokenizer(TokenizerSettings(), empty, tmp_path, print)
    (empty / "rows-00000.parquet").write_bytes((empty / "rows-00000.parquet").read_bytes()[:-20])
    with pytest.raises(TrainingError, match=r"held-out/rows-00000.parquet cannot be read as rows"):
        run_tokenizer(TokenizerSettings(), empty, tmp_path, print)
    half = write_rows(tmp_path / "half", [{"kind": "text"}])
    with pytest.raises(TrainingError, match="of kind text has no text"):
        run_tokenizer(TokenizerSettings(), half, tmp_path, print)
