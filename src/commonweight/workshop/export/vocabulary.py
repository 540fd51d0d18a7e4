"""Tokenizers of model folders and of GGUF files: byte-level BPE with the pre-tokenizers that are known here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
from gguf import GGUFValueType, TokenType

from commonweight.workshop.export.gguf_file import Field
from commonweight.workshop.export.settings import ExportError

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def _make_byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _make_split(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _make_byte_level(use_regex=False)]}


# By llama.cpp's names (`tokenizer.ggml.pre`), as the tokenizers library describes them.
_PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _make_byte_level(use_regex=True),
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _make_byte_level(use_regex=True)],
    },
    "qwen2": _make_split(_QWEN2),
    "llama-bpe": _make_split(_LLAMA3),
}


def name_pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer of a ``tokenizer.json``.

    Raises:
        ExportError: it is none of those that are known, or the text is changed before it.
    """
    if tokenizer.get("normalizer") is not None:
        raise ExportError("The tokenizer normalises its text, which llama.cpp would not do.")
    described = _strip(tokenizer.get("pre_tokenizer"))
    for name, known in _PRE_TOKENIZERS.items():
        if described == _strip(known):
            return name
    raise ExportError(
        f"The tokenizer splits text in a way that is not known here; {', '.join(_PRE_TOKENIZERS)} are."
    )


def make_vocabulary(folder: Path, vocab_size: int) -> list[Field]:
    """The vocabulary of a model folder as GGUF's metadata.

    Raises:
        ExportError: it is no byte-level BPE of a known kind.
    """
    tokenizer = _read_json(folder / "tokenizer.json")
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ExportError("The tokenizer is no byte-level BPE; others are not exported.")
    pre = name_pre_tokenizer(tokenizer)
    by_id = {index: token for token, index in model["vocab"].items()}
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    if (last := max({*by_id, *added}, default=-1)) >= vocab_size:
        raise ExportError(f"The tokenizer has the token id {last}, and the model only {vocab_size} embeddings.")
    tokens: list[str] = []
    types: list[int] = []
    for index in range(vocab_size):
        if index in added:
            content = added[index]["content"]
            is_control = added[index]["special"] or _looks_special(content)
            tokens.append(content)
            types.append(TokenType.CONTROL if is_control else TokenType.USER_DEFINED)
        elif index in by_id:
            tokens.append(by_id[index])
            types.append(TokenType.NORMAL)
        else:
            tokens.append(f"[PAD{index}]")
            types.append(TokenType.UNUSED)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocab_size)
    template = read_template(folder)
    fields = [
        Field("tokenizer.ggml.model", "gpt2", GGUFValueType.STRING),
        Field("tokenizer.ggml.pre", pre, GGUFValueType.STRING),
        Field("tokenizer.ggml.tokens", tokens, GGUFValueType.ARRAY, GGUFValueType.STRING),
        Field("tokenizer.ggml.token_type", [int(t) for t in types], GGUFValueType.ARRAY, GGUFValueType.INT32),
        Field("tokenizer.ggml.merges", special.merges, GGUFValueType.ARRAY, GGUFValueType.STRING),
    ]
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for kind, name in names.items():
        if kind in special.special_token_ids:
            index = int(special.special_token_ids[kind])
            fields.append(Field(f"tokenizer.ggml.{name}_token_id", index, GGUFValueType.UINT32))
    # Always said: for some pre-tokenizers llama.cpp would put a token in front of texts by itself.
    adds_bos = bool(special.add_special_token.get("bos"))
    fields.append(Field("tokenizer.ggml.add_bos_token", adds_bos, GGUFValueType.BOOL))
    if template:
        fields.append(Field("tokenizer.chat_template", template, GGUFValueType.STRING))
    return fields


def write_tokenizer(fields: Mapping[str, Any], folder: Path) -> None:
    """Write the tokenizer of a GGUF file into a model folder.

    Raises:
        ExportError: it is no byte-level BPE of a known kind.
    """
    pre = fields.get("tokenizer.ggml.pre", "no pre-tokenizer")
    if fields.get("tokenizer.ggml.model") != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise ExportError(
            f"The file's tokenizer ({fields.get('tokenizer.ggml.model')}, {pre}) is not imported; "
            f"byte-level BPE with {', '.join(_PRE_TOKENIZERS)} is."
        )
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ExportError("The file's vocabulary has a token twice.")
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": types[index] == TokenType.CONTROL,
        }
        for index, token in enumerate(tokens)
        if types[index] in (TokenType.CONTROL, TokenType.USER_DEFINED)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZERS[pre],
        "post_processor": _make_beginning(fields),
        "decoder": _make_byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": vocab,
            "merges": [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config["add_bos_token"] = bool(fields.get("tokenizer.ggml.add_bos_token", False))
    config["model_max_length"] = fields[f"{fields['general.architecture']}.context_length"]
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{name}_token"] = tokens[index]
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    if template := fields.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _make_beginning(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """What puts the token that begins texts in front of them, if the file wants one there."""
    index = fields.get("tokenizer.ggml.bos_token_id")
    if not fields.get("tokenizer.ggml.add_bos_token") or index is None:
        return None
    token = fields["tokenizer.ggml.tokens"][index]
    first, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    other = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, other],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }


def _looks_special(token: str) -> bool:
    """Whether llama.cpp's converter takes an added token for markup, whatever the tokenizer says of it."""
    return token.startswith(("<|", "<\uff5c")) and token.endswith(("|>", "\uff5c>"))


def _strip(described: Any) -> Any:  # noqa: ANN401 - JSON
    """A description without what does not change the split."""
    if isinstance(described, dict):
        kept = {key: _strip(value) for key, value in described.items() if key != "trim_offsets"}
        if kept.get("type") == "Sequence" and len(kept["pretokenizers"]) == 1:
            return kept["pretokenizers"][0]
        return kept
    if isinstance(described, list):
        return [_strip(value) for value in described]
    return described


def read_template(folder: Path) -> str | None:
    """The chat template of a model folder, if it has one."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = _read_json(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ExportError(f"The model has no {path.name}.") from error
    except ValueError as error:
        raise ExportError(f"The model's {path.name} is not JSON.") from error
    return content if isinstance(content, dict) else {}
