"""A model that llama.cpp would abort over takes a process with it that nobody needs."""

import struct
from pathlib import Path

import pytest
import tiny

from commonweight.catalog.header import UnreadableModelError
from commonweight.catalog.resolve import resolve
from commonweight.engines.llama.model.load_check import check_loads


def damaged(folder: Path, key: str, value: int) -> Path:
    """A small model that says something else under a key."""
    path = tiny.write(folder, key.partition(".")[0])
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(key.encode()) + len(key) + 4, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("key", "value"), [("jamba.attention.key_length", 1), ("llama.block_count", 2**32 - 1)])
def test_it_is_refused_in_words(key: str, value: int, tmp_path: Path) -> None:
    words = r"^llama\.cpp breaks down over .*\.gguf, which must be damaged: GGML_ASSERT\(.*\) failed$"
    with pytest.raises(UnreadableModelError, match=words):
        check_loads(damaged(tmp_path, key, value))


def test_good_models_pass_and_others_are_left_to_who_opens_them(tmp_path: Path) -> None:
    check_loads(resolve(None))
    check_loads(damaged(tmp_path, "llama.vocab_size", 1))
    with pytest.raises(UnreadableModelError, match="not a GGUF file"):
        check_loads(Path(__file__))
