"""Tokenizers for the tests: the starter's own, and small ones of other kinds, written as GGUF files."""

import ctypes
import struct
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.starter import find_starter
from commonweight.llamacpp import api as llama
from commonweight.prompting import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

Token = tuple[str, int]
"""A token's text in the vocabulary, and what kind of token it is."""


@cache
def starter_gguf() -> Gguf:
    """The starter model's file; only its vocabulary is read."""
    path = find_starter()
    assert path is not None, "install the extra `starter`"
    return Gguf(path)


@cache
def starter_tokenizer() -> Tokenizer:
    """Byte-level BPE with control tokens, and no BOS added."""
    return Tokenizer(starter_gguf())


@cache
def byte_level_tokenizer() -> Tokenizer:
    """Like Qwen's and Llama 3's: byte-level BPE; its user-defined tokens are found in any text, special or not."""
    tokens = [
        *((letter, NORMAL) for letter in _byte_letters()),
        *((word, NORMAL) for word in ("th", "in", "thin", "think", "us", "er")),
        *((text, CONTROL) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>")),
        *((text, CONTROL) for text in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
        *((text, USER_DEFINED) for text in ("<think>", "</think>", "<tool_call>", "</tool_call>")),
        *((text, USER_DEFINED) for text in ("    ", "<br>")),  # plain text that has a token of its own
    ]
    merges = ["t h", "i n", "th in", "thin k", "u s", "e r"]
    return _tokenizer("gpt2", tokens, bos="<|begin_of_text|>", eos="<|im_end|>", pre="qwen2", merges=merges)


@cache
def markup_tokenizer(*controls: str, tags: tuple[str, ...] = (), eos: str) -> Tokenizer:
    """Byte-level BPE with a family's own control tokens, of which the first is BOS, and user-defined tags."""
    words = ("th", "in", "thin", "think", "us", "er", '{"', '":', '"}', "\u010a\u010a", "\u0120th", "\u0120the")
    tokens = [
        *((letter, NORMAL) for letter in _byte_letters()),
        *((word, NORMAL) for word in words),
        *((text, CONTROL) for text in controls),
        *((text, USER_DEFINED) for text in tags),
    ]
    merges = [
        "t h",
        "i n",
        "th in",
        "thin k",
        "u s",
        "e r",
        '{ "',
        '" :',
        '" }',
        "\u010a \u010a",
        "\u0120 th",
        "\u0120th e",
    ]
    return _tokenizer("gpt2", tokens, bos=controls[0], eos=eos, pre="qwen2", merges=merges)


@cache
def gemma_tokenizer() -> Tokenizer:
    """SentencePiece without a space in front; BOS is added."""
    tokens = [
        *_sentence_pieces("\n", "\n\n"),
        *((text, CONTROL) for text in ("<bos>", "<eos>")),
        *((text, USER_DEFINED) for text in ("<start_of_turn>", "<end_of_turn>", "[multimodal]", "<table>", "  ")),
    ]
    return _tokenizer("llama", tokens, bos="<bos>", eos="<eos>", adds_bos=True, adds_space=False)


@cache
def mistral_tokenizer() -> Tokenizer:
    """SentencePiece where a text begins with a space of its own; BOS is added. It can spell ``<s>`` by merging."""
    tokens = [
        *_sentence_pieces("<s", "s>", "</"),
        *((text, CONTROL) for text in ("[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]")),
        ("[/TOOL_RESULTS]", CONTROL),
        *((text, CONTROL) for text in ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[SYSTEM_PROMPT]")),
        *((text, USER_DEFINED) for text in ("<|im_start|>", "<|im_end|>")),
    ]
    return _tokenizer("llama", tokens, bos="<s>", eos="</s>", adds_bos=True)


@cache
def phi_tokenizer() -> Tokenizer:
    """Like Phi-3's: most special tokens swallow the space that follows them."""
    tokens = [
        *_sentence_pieces(),
        *((text, CONTROL) for text in ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    ]
    return _tokenizer("llama", tokens, bos="<s>", eos="<|endoftext|>", name="phi-3")


@cache
def spaced_tokenizer() -> Tokenizer:
    """Byte-level BPE with tokens for runs of spaces and lines, and for pieces of each other."""
    texts = [" " * n for n in range(2, 9)] + [
        "\n",
        "\n\n",
        "\n\n\n",
        "\t",
        "<br>",
        "<br><br>",
        "ab",
        "bc",
        "<b",
        "br>",
    ]
    tokens = [
        *((letter, NORMAL) for letter in _byte_letters()),
        ("<|end|>", CONTROL),
        *((text, USER_DEFINED) for text in texts),
    ]
    return _tokenizer("gpt2", tokens, bos="<|end|>", eos="<|end|>", pre="qwen2")


def regex_tokenizer(pre: str) -> Tokenizer:
    """Byte-level BPE whose words are found by one of llama.cpp's pre-tokenizers."""
    tokens = [*((letter, NORMAL) for letter in _byte_letters()), ("<|end|>", CONTROL)]
    return _tokenizer("gpt2", tokens, bos="<|end|>", eos="<|end|>", pre=pre)


def reference_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """llama.cpp's own tokenisation, in which whatever looks like a special token is one."""
    data = text.encode()
    room = 2 * len(data) + 8
    buffer = (ctypes.c_int32 * room)()
    count = llama.llama_tokenize(tokenizer._vocab, data, len(data), buffer, room, False, True)
    assert count >= 0
    return list(buffer[:count])


def _sentence_pieces(*pieces: str) -> list[Token]:
    ascii_letters = [chr(code) for code in range(33, 127)]
    return [
        ("<unk>", UNKNOWN),
        ("<s>", CONTROL),
        ("</s>", CONTROL),
        *((f"<0x{byte:02X}>", BYTE) for byte in range(256)),
        *((piece, NORMAL) for piece in [*ascii_letters, "▁", "▁he", "he", "llo", "▁hello", *pieces]),
    ]


def _byte_letters() -> list[str]:
    """The letters that byte-level BPE writes the 256 bytes with (Radford et al., 2019)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


def _tokenizer(
    model: str,
    tokens: Sequence[Token],
    *,
    bos: str,
    eos: str,
    pre: str = "default",
    merges: Sequence[str] = (),
    adds_bos: bool = False,
    adds_space: bool = True,
    name: str = "test",
) -> Tokenizer:
    texts = [text for text, _ in tokens]
    entries = [
        _entry("general.architecture", "string", "llama"),
        _entry("general.name", "string", name),
        _entry("tokenizer.ggml.model", "string", model),
        _entry("tokenizer.ggml.pre", "string", pre),
        _entry("tokenizer.ggml.tokens", "string", texts),
        # Longer pieces are merged first.
        _entry("tokenizer.ggml.scores", "float32", [len(text) for text in texts]),
        _entry("tokenizer.ggml.token_type", "int32", [kind for _, kind in tokens]),
        _entry("tokenizer.ggml.merges", "string", merges),
        _entry("tokenizer.ggml.bos_token_id", "uint32", texts.index(bos)),
        _entry("tokenizer.ggml.eos_token_id", "uint32", texts.index(eos)),
        _entry("tokenizer.ggml.add_bos_token", "bool", adds_bos),
        _entry("tokenizer.ggml.add_space_prefix", "bool", adds_space),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))
        return Tokenizer(Gguf(path))


# https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_KINDS = {"uint32": (4, "<I"), "int32": (5, "<i"), "float32": (6, "<f"), "bool": (7, "<?"), "string": (8, "")}
_ARRAY = 9


def _entry(key: str, kind: str, value: str | int | Sequence[str | int]) -> bytes:
    """One metadata entry of a GGUF file."""
    number, layout = _KINDS[kind]
    if isinstance(value, (str, int)):
        return _string(key) + struct.pack("<I", number) + _encoded(value, layout)
    items = b"".join(_encoded(item, layout) for item in value)
    return _string(key) + struct.pack("<IIQ", _ARRAY, number, len(value)) + items


def _encoded(value: str | int, layout: str) -> bytes:
    return _string(value) if isinstance(value, str) else struct.pack(layout, value)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
