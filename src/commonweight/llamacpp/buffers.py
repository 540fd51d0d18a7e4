"""Texts that llama.cpp writes into a caller's buffer, which is made larger until they fit."""

import ctypes
from collections.abc import Callable

from commonweight.llamacpp import api as llama


def read_piece(vocab: int, token_id: int, *, special: bool) -> bytes:
    """The bytes that a token stands for; of special tokens none, or with ``special`` their text."""
    room = 64
    while True:
        buffer = ctypes.create_string_buffer(room)
        length = llama.llama_token_to_piece(vocab, token_id, buffer, room, 0, special)
        if length >= 0:
            return buffer.raw[:length]
        room = -length


def read_metadata(
    read: Callable[[int, int, "ctypes.Array[ctypes.c_char]", int], int], model: int, index: int
) -> str:
    """A key or value of a model's metadata; ``read`` works like snprintf."""
    room = 1024
    while True:
        buffer = ctypes.create_string_buffer(room)
        length = read(model, index, buffer, room)
        if length < room:
            return buffer.value.decode(errors="replace")
        room = length + 1
