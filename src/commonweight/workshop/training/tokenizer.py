"""Byte-level BPE, trained on a dataset and written as a Hugging Face tokenizer folder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from commonweight.workshop.training.dataset import read_rows
from commonweight.workshop.training.settings import (
    CONTROL_TOKENS,
    DOCUMENT_END,
    TURN_END,
    TokenizerSettings,
    TrainingError,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How text is cut before merges: GGUF's ``tokenizer.ggml.pre = qwen2``. Each digit is a piece of its own."""


def run_tokenizer(
    settings: TokenizerSettings, data: Path, output: Path, report: Callable[[str], None]
) -> dict[str, float | str]:
    """Trains the vocabulary on the training rows and writes the tokenizer folder."""
    tokenizer, characters = train_tokenizer(settings, iterate_texts(data))
    write_tokenizer(tokenizer, settings, output)
    size = tokenizer.get_vocab_size()
    report(f"tokenizer: {size:,} tokens from {characters:,} characters")
    return {"vocab_size": float(size), "characters": float(characters)}


def iterate_texts(data: Path) -> Iterator[str]:
    """Texts of the training rows; of conversations the contents of their turns."""
    for row in read_rows(data, "train"):
        if row.messages is None:
            yield row.text or ""
        else:
            yield from (message["content"] for message in row.messages)


def train_tokenizer(settings: TokenizerSettings, texts: Iterator[str]) -> tuple[Tokenizer, int]:
    """A byte-level BPE and the number of characters that it was trained on."""
    characters = 0

    def count(texts: Iterator[str]) -> Iterator[str]:
        nonlocal characters
        for text in texts:
            characters += len(text)
            yield text

    tokenizer = Tokenizer(models.BPE())
    # No normalizer: llama.cpp has none, and bits per byte count the bytes of the text as it is.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in (*CONTROL_TOKENS, *settings.extra_tokens)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(count(texts), trainer)
    if not characters:
        raise TrainingError("the dataset has no training rows of text or messages to make a tokenizer from")
    return tokenizer, characters


def write_tokenizer(tokenizer: Tokenizer, settings: TokenizerSettings, output: Path) -> None:
    """Writes ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja``."""
    tokenizer.save(str(output / "tokenizer.json"))
    config = {
        # The generic class: Qwen's own, the default for this architecture, would add a normalizer of its own.
        "tokenizer_class": "TokenizersBackend",
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": DOCUMENT_END,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": list(settings.extra_tokens),
        "model_max_length": 1_000_000_000,
    }
    (output / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (output / "chat_template.jinja").write_text(settings.chat_template, encoding="utf-8")


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """The folder's tokenizer as transformers loads it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of a torn file the tokenizers library raises no narrower class
        raise TrainingError(f"the folder {folder.name} holds no tokenizer that can be loaded") from error


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def copy_tokenizer(source: Path, output: Path) -> None:
    """Copies the tokenizer's files byte for byte: saving a loaded one again would write other fields."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            (output / name).write_bytes((source / name).read_bytes())
