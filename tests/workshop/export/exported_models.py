"""Models for the tests of import and export: tiny ones with random weights, and the starter."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

TEMPLATE = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = (
    "A model is a folder. Its weights are numbers, and numbers are 12, 345 or 6.78. It isn't what they'd say! "
    "def f(x):\n    return x + 1\n\nThe table lists what a file holds: names, shapes, types and offsets.  Two. "
) * 12


def write_tokenizer(folder: Path, pre: str) -> int:
    """Write a byte-level BPE of a few hundred tokens; returns how many."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre != "qwen2")
    first = {
        "qwen2": pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
        "smollm": pre_tokenizers.Digits(individual_digits=True),
    }[pre]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "TokenizersBackend",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return int(tokenizer.get_vocab_size())


def make_model(folder: Path, layout: str, *, is_tied: bool, width: int = 64, layers: int = 2) -> Path:
    """Write a model with random weights in one of the layouts."""
    import torch
    import transformers

    folder.mkdir()
    vocab_size = write_tokenizer(folder, "qwen2" if layout == "qwen3" else "smollm")
    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }
    config_class, model_class = classes[layout]
    config = config_class(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=is_tied,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    model_class(config).save_pretrained(folder)
    return folder


@pytest.fixture
def write_model() -> Callable[..., Path]:
    """Writes further models."""
    return make_model


@pytest.fixture(scope="session")
def sample_text() -> str:
    """What the tiny models' tokenizers are made from."""
    return TEXT


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untied embeddings, and rows of 64 that no K-quant fits."""
    return make_model(tmp_path_factory.mktemp("models") / "llama", "llama", is_tied=False)


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied embeddings, and rows of 256, which K-quants fit."""
    return make_model(tmp_path_factory.mktemp("models") / "qwen3", "qwen3", is_tied=True, width=256)
