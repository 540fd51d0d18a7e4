"""Validation of GGUF headers, before the file is passed to llama.cpp.

Model files are untrusted. Everything that its header counts, sizes or points at is compared with the file, so that
llama.cpp reads what is there and no more. The file is streamed: the check takes little memory and, for absurd
files, little time. It also refuses what is well-formed and makes llama.cpp abort the process, such as a token that
the vocabulary holds twice.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_KEYS, MAX_TENSORS = 10_000, 100_000
MAX_KEY_BYTES, MAX_STRING_BYTES = 1024, 16 << 20
"""Bytes of a key, and of a text: chat templates have a few thousand."""
MAX_STRINGS = 4_000_000
"""Strings of all arrays together: tokens and merges of the largest vocabularies are less than a million."""
MAX_ARRAY_BYTES = 256 << 20
"""Bytes of an array of numbers, which llama.cpp holds in memory."""
MAX_TENSOR_NAME_BYTES = 63
"""Bytes of a tensor's name; llama.cpp cuts no longer ones."""
MAX_DIMENSIONS = 4
MAX_ALIGNMENT_BYTES = 1 << 20
MAX_PARTS = 1000
"""Files that a model may be split into."""

_UINT8, _INT8, _UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 0, 1, 4, 5, 6, 7, 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by its type."""
TENSOR_TYPES = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)},
    **{23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18)},
}
"""Values of a block and its bytes, by the type of a tensor."""

_TOKENS = "tokenizer.ggml.tokens"
_ARRAYS = {
    _TOKENS: (_STRING,),
    "tokenizer.ggml.merges": (_STRING,),
    "tokenizer.ggml.scores": (_FLOAT32, _INT32),
    "tokenizer.ggml.token_type": (_INT32,),
    "tokenizer.ggml.precompiled_charsmap": (_UINT8, _INT8),
}
"""Types of values allowed in the arrays of a vocabulary."""
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


class UnreadableModelError(OSError):
    """The file is missing, is no GGUF, or holds a model that this llama.cpp does not know."""


class _BadHeaderError(Exception):
    """The header is invalid; the message names the defect."""


@dataclass(frozen=True)
class ModelSizes:
    """Sizes that a header states."""

    keys: Mapping[str, int]
    """Whole numbers by their keys; of arrays their lengths."""
    values: int
    """Of all tensors together: the model's parameters."""


def check_header(path: Path) -> None:
    """Raise :class:`UnreadableModelError` unless the file is safe to pass to llama.cpp.

    All files of a model that is split are looked at.
    """
    read_sizes(path)


def read_sizes(path: Path) -> ModelSizes:
    """Read the sizes of a model, of all its files together.

    Raises:
        UnreadableModelError: it is no GGUF file that is safe to pass to llama.cpp.
    """
    sizes = _check_file(path)
    if _TOKENS not in sizes.keys:
        raise UnreadableModelError(f"{path} holds no vocabulary")
    parts = [_check_file(part) for part in _list_parts(path, sizes.keys.get("split.count", 1))]
    return ModelSizes(sizes.keys, sizes.values + sum(part.values for part in parts))


def _check_file(path: Path) -> ModelSizes:
    try:
        # Asked first, because opening a pipe blocks until it has a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableModelError(f"{path} is not a file")
        with path.open("rb", buffering=1 << 16) as file:
            if file.read(4) != b"GGUF":
                raise UnreadableModelError(f"{path} is not a GGUF file")
            return _GgufHeader(file).check()
    except _BadHeaderError as error:
        raise UnreadableModelError(f"{path} is a damaged GGUF file: {error}") from error
    except OSError as error:
        if isinstance(error, UnreadableModelError):
            raise
        raise UnreadableModelError(f"cannot read {path}: {error.strerror}") from error


def _list_parts(path: Path, count: int) -> Iterator[Path]:
    """The other files of a model, by the names under which llama.cpp looks for them."""
    if count <= 1:
        return
    match = _SPLIT.fullmatch(path.name)
    if match is None or int(match[2]) != 1 or int(match[3]) != count:
        raise UnreadableModelError(f"{path} is not the first of the {count} files of its model")
    for number in range(2, count + 1):
        yield path.with_name(f"{match[1]}-{number:05}-of-{match[3]}.gguf")


class _GgufHeader:
    """Reader and validator of one header, starting behind the magic number."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._place = 4
        self._strings = 0
        self._found: dict[str, int] = {}
        """Keys; the value of whole numbers, the length of arrays, 0 for anything else."""
        self._values = 0

    def check(self) -> ModelSizes:
        """Raise :class:`_BadHeaderError` unless all is well."""
        version = self._number("<I")
        if version & 0xFFFF == 0:
            raise _BadHeaderError("it was written for machines of the other byte order")
        if version not in (2, 3):
            raise _BadHeaderError(f"version {version} is unknown")
        tensors, keys = self._number("<Q"), self._number("<Q")
        self._check_count(tensors, MAX_TENSORS, "tensors")
        self._check_count(keys, MAX_KEYS, "keys")
        for _ in range(keys):
            self._check_pair()
        self._check_vocabulary()
        self._check_tensors(tensors)
        return ModelSizes(self._found, self._values)

    def _check_pair(self) -> None:
        key = self._text(MAX_KEY_BYTES, "a key")
        if not key:
            raise _BadHeaderError("a key is empty")
        if key in self._found:
            raise _BadHeaderError(f"{key} is there twice")
        kind = self._number("<I")
        self._found[key] = 0
        if kind == _ARRAY:
            self._check_array(key)
        elif key in _ARRAYS:
            raise _BadHeaderError(f"{key} is not a list")
        elif kind == _STRING:
            self._text(MAX_STRING_BYTES, key)
        elif kind in _SIZES:
            value = self._read(_SIZES[kind])
            if kind not in (_FLOAT32, 12):
                self._found[key] = int.from_bytes(value, "little")
        else:
            raise _BadHeaderError(f"{key} has the unknown type {kind}")
        if key == "general.alignment":
            alignment = self._found[key]
            if kind != _UINT32 or alignment.bit_count() != 1 or alignment > MAX_ALIGNMENT_BYTES:
                raise _BadHeaderError("its alignment is not a power of two")
        if key == "split.count":
            self._check_count(self._found[key], MAX_PARTS, "files")

    def _check_array(self, key: str) -> None:
        kind, count = self._number("<I"), self._number("<Q")
        if kind not in _ARRAYS.get(key, (kind,)):
            raise _BadHeaderError(f"{key} holds values of type {kind}")
        self._found[key] = count
        if kind == _STRING:
            self._strings += count
            self._check_count(self._strings, MAX_STRINGS, "strings")
            self._check_strings(key, count)
        elif kind in _SIZES:
            self._check_count(count * _SIZES[kind], MAX_ARRAY_BYTES, f"bytes of {key}")
            self._skip(count * _SIZES[kind])
        else:
            raise _BadHeaderError(f"{key} is a list of {'lists' if kind == _ARRAY else f'unknown type {kind}'}")

    def _check_strings(self, key: str, count: int) -> None:
        if self._size - self._place < 8 * count:
            raise _BadHeaderError("it ends too early")
        seen: set[bytes] = set()
        for i in range(count):
            text = self._read(self._length(MAX_KEY_BYTES if key == _TOKENS else MAX_STRING_BYTES, key))
            if key == _TOKENS:
                # llama.cpp gives tokens without text a name.
                text = text or b"[EMPTY_%d]" % i
                if text in seen:
                    raise _BadHeaderError(f"the token {text.decode(errors='replace')!r} is there twice")
                seen.add(text)

    def _check_vocabulary(self) -> None:
        if _TOKENS not in self._found:
            return
        tokens = self._found[_TOKENS]
        if tokens == 0:
            raise _BadHeaderError("its vocabulary is empty")
        for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
            if self._found.get(key, tokens) != tokens:
                raise _BadHeaderError(f"{key} does not have a value for each of the {tokens} tokens")

    def _check_tensors(self, count: int) -> None:
        alignment = self._found.get("general.alignment", 32)
        names: set[str] = set()
        end = last = 0
        for _ in range(count):
            name = self._text(MAX_TENSOR_NAME_BYTES, "the name of a tensor")
            if name in names:
                raise _BadHeaderError(f"the tensor {name!r} is there twice")
            names.add(name)
            size = self._read_tensor_size(name)
            if self._number("<Q") != end:
                raise _BadHeaderError(f"the tensor {name!r} does not follow the one before it")
            last = end + size
            end = last + -last % alignment
        if count and self._place + -self._place % alignment + last > self._size:
            raise _BadHeaderError("it ends before its last tensor does")

    def _read_tensor_size(self, name: str) -> int:
        dimensions = self._number("<I")
        if dimensions > MAX_DIMENSIONS:
            raise _BadHeaderError(f"the tensor {name!r} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind = self._number("<I")
        if kind not in TENSOR_TYPES:
            raise _BadHeaderError(f"the tensor {name!r} has the unknown type {kind}")
        values, size = TENSOR_TYPES[kind]
        elements = 1
        for length in shape:
            elements *= length
            if not 0 < elements <= self._size * 32:  # the smallest type has four values a byte
                raise _BadHeaderError(f"the tensor {name!r} is larger than the file, or empty")
        if (shape[0] if shape else 1) % values:
            raise _BadHeaderError(f"the rows of the tensor {name!r} are not whole blocks")
        self._values += elements
        return elements // values * size

    def _number(self, layout: str) -> int:
        number: int
        (number,) = struct.unpack(layout, self._read(struct.calcsize(layout)))
        return number

    def _length(self, most: int, what: str) -> int:
        length = self._number("<Q")
        if length > most:
            raise _BadHeaderError(f"{what} is {length} bytes long")
        return length

    def _text(self, most: int, what: str) -> str:
        try:
            return self._read(self._length(most, what)).decode()
        except UnicodeDecodeError as error:
            raise _BadHeaderError(f"{what} is not UTF-8") from error

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        self._place += length
        if len(data) < length:
            raise _BadHeaderError("it ends too early")
        return data

    def _skip(self, length: int) -> None:
        self._place += length
        if self._place > self._size:
            raise _BadHeaderError("it ends too early")
        self._file.seek(length, os.SEEK_CUR)

    @staticmethod
    def _check_count(count: int, most: int, what: str) -> None:
        if count > most:
            raise _BadHeaderError(f"it counts {count} {what}")
