"""A model file is anybody's: what its header says is checked before llama.cpp reads it."""

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from commonweight.catalog import header
from commonweight.catalog.header import TENSOR_TYPES, UnreadableModelError, check_header
from commonweight.catalog.resolve import resolve
from commonweight.llamacpp import api as llama

TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab", "\u2581"]
EXTREMES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


def written(
    path: Path, add: Callable[[gguf.GGUFWriter], object] = lambda _: None, tokens: list[str] = TOKENS
) -> Path:
    """A vocabulary and two tensors. ``add`` puts in what is wrong."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    add(writer)
    for name in ("token_embd.weight", "output.weight"):
        writer.add_tensor(name, np.zeros((len(tokens), 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refusal(path: Path) -> str:
    """Why a file is refused."""
    with pytest.raises(UnreadableModelError) as refused:
        check_header(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def changed(path: Path, place: bytes, change: bytes, ahead: int = 0) -> Path:
    """The file with other bytes ``ahead`` of the end of ``place``."""
    data = bytearray(path.read_bytes())
    start = data.index(place) + len(place) + ahead
    data[start : start + len(change)] = change
    path.write_bytes(data)
    return path


def test_the_starter_and_small_models_are_fine(tmp_path: Path) -> None:
    check_header(resolve(None))
    check_header(written(tmp_path / "m.gguf"))


def test_the_types_of_tensors_are_those_of_the_library() -> None:
    size, block = map(llama.library.find_symbol, ("ggml_type_size", "ggml_blck_size"))
    size.restype, block.restype = ctypes.c_size_t, ctypes.c_int64
    for kind in gguf.GGMLQuantizationType:
        if kind is not gguf.GGMLQuantizationType.Q8_K:  # for llama.cpp's own sums, never in a file
            assert TENSOR_TYPES[kind.value] == (block(kind.value), size(kind.value)), kind
    for number, sizes in TENSOR_TYPES.items():
        assert sizes == (block(number), size(number)), number


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.alignment", 3, "alignment"),
        ("general.alignment", 2**30, "alignment"),
        ("split.count", 70_000, "files"),
        ("split.count", 2, "not the first of the 2 files"),
    ],
)
def test_numbers_that_lead_astray(key: str, value: int, words: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf", lambda writer: writer.add_uint32(key, 32))
    assert words in refusal(changed(path, key.encode(), struct.pack("<I", value), 4))


@pytest.mark.parametrize(
    ("place", "change", "ahead", "words"),
    [
        (b"GGUF", struct.pack("<I", 1), 0, "version 1"),
        (b"GGUF", struct.pack(">I", 3), 0, "byte order"),
        (b"GGUF", struct.pack("<Q", 2**40), 4, "tensors"),
        (b"GGUF", struct.pack("<Q", 2**63), 12, "keys"),
        (b"tokenizer.ggml.model", struct.pack("<Q", 2**62), 4, "bytes long"),
        (b"tokenizer.ggml.tokens", struct.pack("<Q", 2**60), 8, "strings"),
        (b"tokenizer.ggml.tokens", struct.pack("<Q", 0), 8, "damaged"),
        (b"tokenizer.ggml.tokens", struct.pack("<I", 4), 4, "holds values of type 4"),
        (b"tokenizer.ggml.scores", struct.pack("<Q", 2**60), 8, "bytes of"),
        (b"tokenizer.ggml.scores", struct.pack("<I", 9), 4, "holds values of type 9"),
        (b"output.weight", struct.pack("<I", 77), 0, "77 dimensions"),
        (b"output.weight", struct.pack("<Q", 2**62), 4, "larger than the file"),
        (b"output.weight", struct.pack("<Q", 0), 4, "empty"),
        (b"output.weight", struct.pack("<I", 4), 20, "unknown type 4"),
        (b"output.weight", struct.pack("<I", 8), 20, "whole blocks"),
        (b"output.weight", struct.pack("<Q", 2**40), 24, "does not follow"),
        (b"output.weight", struct.pack("<Q", 0), 24, "does not follow"),
    ],
)
def test_counts_sizes_and_places_that_are_not_in_the_file(
    place: bytes, change: bytes, ahead: int, words: str, tmp_path: Path
) -> None:
    assert words in refusal(changed(written(tmp_path / "m.gguf"), place, change, ahead))


def test_a_file_without_its_last_tensor(tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:-100])
    assert "ends before its last tensor does" in refusal(path)


def test_tokens_that_llama_cpp_would_abort_over(tmp_path: Path) -> None:
    assert "'a' is there twice" in refusal(written(tmp_path / "twice.gguf", tokens=[*TOKENS, "a"]))
    # Tokens without text get a name, which may be another's.
    assert "there twice" in refusal(written(tmp_path / "unnamed.gguf", tokens=[*TOKENS, "[EMPTY_8]", ""]))


def test_what_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    assert refusal(pipe).endswith("is not a file")  # and is not waited for
    assert refusal(tmp_path).endswith("is not a file")


def test_limits_bear_the_largest_vocabularies() -> None:
    assert header.MAX_STRINGS > 5 * 262_144
    assert header.MAX_STRING_BYTES > 100 * 32_768


class Opener:
    """A process that opens files as the server would, one after the other, and may die of it."""

    CODE = """
import sys
from pathlib import Path
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.header import UnreadableModelError
from commonweight.prompting import Tokenizer
for line in sys.stdin:
    try:
        gguf = Gguf(Path(line.rstrip("\\n")))
    except UnreadableModelError:
        print("refused", flush=True)
        continue
    Tokenizer(gguf).special_tokens
    gguf.close()
    print("opened", flush=True)
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.CODE],
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def open(self, path: Path) -> str:
        """What became of it; nothing if the process is gone."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{path}\n")
            self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    with contextlib.closing(Opener()) as opener:
        yield opener


def mutated(data: DataObject, whole: bytes) -> bytes:
    """The file, damaged in one to three places."""
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["number", "bytes", "cut", "remove", "repeat"])):
            case "number":
                layout = data.draw(st.sampled_from(["<B", "<I", "<Q"]))
                number = data.draw(st.sampled_from(EXTREMES)) & (2 ** (8 * struct.calcsize(layout)) - 1)
                damaged[place : place + struct.calcsize(layout)] = struct.pack(layout, number)
            case "bytes":
                new = data.draw(st.binary(min_size=1, max_size=8))
                damaged[place : place + len(new)] = new
            case "cut":
                del damaged[max(place, 8) :]
            case "remove":
                del damaged[place : place + data.draw(st.integers(1, 16))]
            case "repeat":
                damaged[place:place] = damaged[place : place + data.draw(st.integers(1, 64))]
    return bytes(damaged)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_ends_the_process(
    data: DataObject, opener: Opener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    whole = written(path).read_bytes()
    path.write_bytes(mutated(data, whole))
    assert opener.open(path) in ("refused", "opened")


def test_what_is_whole_is_opened_there(opener: Opener, tmp_path: Path) -> None:
    assert opener.open(written(tmp_path / "m.gguf")) == "opened"
