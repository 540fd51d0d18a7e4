"""Functions of llama.cpp that Commonweight calls. Importing this module loads the library.

A declaration has the C function's name, and ctypes takes the types of arguments and result from its annotations.
"""

import ctypes
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from commonweight.llamacpp.library import LibraryError, load_library
from commonweight.llamacpp.structs import (
    ContextParams,
    ModelParams,
    NativeBatch,
)

library = load_library()
"""What the functions of this module call."""

Handle = Annotated[int, ctypes.c_void_p]
"""Address of a model, a vocabulary, a context or its memory. A false result: there is none."""
Bool = Annotated[bool, ctypes.c_bool]
Float = Annotated[float, ctypes.c_float]
Int32 = Annotated[int, ctypes.c_int32]
Uint32 = Annotated[int, ctypes.c_uint32]
Uint64 = Annotated[int, ctypes.c_uint64]
Size = Annotated[int, ctypes.c_size_t]
Text = Annotated[bytes, ctypes.c_char_p]
CharBuffer = Annotated["ctypes.Array[ctypes.c_char]", ctypes.c_char_p]
Bytes = Annotated[Any, ctypes.POINTER(ctypes.c_uint8)]
TokenIds = Annotated["ctypes.Array[ctypes.c_int32]", ctypes.POINTER(ctypes.c_int32)]

F = TypeVar("F", bound=Callable[..., Any])


def declare(function: F) -> F:
    """Replace a declaration by the library's function of that name.

    Raises:
        LibraryError: the library has none.
    """
    name = function.__name__
    native = library.find_symbol(name)
    if native is None:
        raise LibraryError(f"llama.cpp {library.version} of {library.package} lacks {name}")
    hints = get_type_hints(function, include_extras=True)
    native.restype = _get_ctype(hints.pop("return"))
    native.argtypes = tuple(map(_get_ctype, hints.values()))
    native.__doc__ = function.__doc__
    return native  # type: ignore[no-any-return]


def _get_ctype(hint: object) -> object:
    if hint is type(None):
        return None
    if hint is ContextParams:
        return library.context_params
    return get_args(hint)[1] if get_args(hint) else hint


# Library
@declare
def llama_print_system_info() -> Text: ...


@declare
def llama_supports_gpu_offload() -> Bool: ...


# Models
@declare
def llama_model_default_params() -> ModelParams: ...


@declare
def llama_model_load_from_file(path: Text, params: ModelParams) -> Handle: ...


@declare
def llama_model_free(model: Handle) -> None: ...


@declare
def llama_model_get_vocab(model: Handle) -> Handle: ...


@declare
def llama_model_size(model: Handle) -> Uint64: ...


@declare
def llama_model_n_params(model: Handle) -> Uint64: ...


@declare
def llama_model_n_layer(model: Handle) -> Int32: ...


@declare
def llama_model_n_embd(model: Handle) -> Int32: ...


@declare
def llama_model_n_swa(model: Handle) -> Int32: ...


@declare
def llama_model_has_encoder(model: Handle) -> Bool: ...


@declare
def llama_model_is_recurrent(model: Handle) -> Bool: ...


@declare
def llama_model_is_hybrid(model: Handle) -> Bool: ...


@declare
def llama_model_meta_count(model: Handle) -> Int32: ...


@declare
def llama_model_meta_val_str(model: Handle, key: Text, buffer: CharBuffer, size: Size) -> Int32: ...


@declare
def llama_model_meta_key_by_index(model: Handle, index: Int32, buffer: CharBuffer, size: Size) -> Int32: ...


@declare
def llama_model_meta_val_str_by_index(model: Handle, index: Int32, buffer: CharBuffer, size: Size) -> Int32: ...


# Vocabulary
@declare
def llama_vocab_n_tokens(vocab: Handle) -> Int32: ...


@declare
def llama_vocab_type(vocab: Handle) -> Int32: ...


@declare
def llama_vocab_bos(vocab: Handle) -> Int32: ...


@declare
def llama_vocab_eos(vocab: Handle) -> Int32: ...


@declare
def llama_vocab_get_add_bos(vocab: Handle) -> Bool: ...


@declare
def llama_vocab_get_text(vocab: Handle, token_id: Int32) -> Text: ...


@declare
def llama_vocab_get_attr(vocab: Handle, token_id: Int32) -> Int32: ...


@declare
def llama_vocab_is_eog(vocab: Handle, token_id: Int32) -> Bool: ...


@declare
def llama_tokenize(
    vocab: Handle, text: Text, length: Int32, buffer: TokenIds, room: Int32, add_special: Bool, parse_special: Bool
) -> Int32: ...


@declare
def llama_token_to_piece(
    vocab: Handle, token_id: Int32, buffer: CharBuffer, room: Int32, lstrip: Int32, special: Bool
) -> Int32: ...


# Contexts
@declare
def llama_context_default_params() -> ContextParams: ...


@declare
def llama_init_from_model(model: Handle, params: ContextParams) -> Handle: ...


@declare
def llama_free(context: Handle) -> None: ...


@declare
def llama_get_model(context: Handle) -> Handle: ...


@declare
def llama_n_ctx(context: Handle) -> Uint32: ...


@declare
def llama_n_batch(context: Handle) -> Uint32: ...


@declare
def llama_n_seq_max(context: Handle) -> Uint32: ...


@declare
def llama_set_n_threads(context: Handle, threads: Int32, threads_batch: Int32) -> None: ...


@declare
def llama_decode(context: Handle, batch: NativeBatch) -> Int32: ...


@declare
def llama_get_logits_ith(context: Handle, row: Int32) -> Handle: ...


# Memory and states
@declare
def llama_get_memory(context: Handle) -> Handle: ...


@declare
def llama_memory_clear(memory: Handle, data: Bool) -> None: ...


@declare
def llama_memory_seq_rm(memory: Handle, sequence: Int32, start: Int32, end: Int32) -> Bool: ...


@declare
def llama_memory_seq_cp(memory: Handle, source: Int32, target: Int32, start: Int32, end: Int32) -> None: ...


@declare
def llama_memory_seq_pos_max(memory: Handle, sequence: Int32) -> Int32: ...


@declare
def llama_state_seq_get_size_ext(context: Handle, sequence: Int32, flags: Uint32) -> Size: ...


@declare
def llama_state_seq_get_data_ext(
    context: Handle, target: Bytes, size: Size, sequence: Int32, flags: Uint32
) -> Size: ...


@declare
def llama_state_seq_set_data_ext(
    context: Handle, source: Bytes, size: Size, sequence: Int32, flags: Uint32
) -> Size: ...
