"""The file that is measured: the starter model again, in a format for which llama.cpp has fast batch kernels."""

import ctypes
from pathlib import Path
from typing import Annotated, Any

from commonweight.llamacpp import api as llama
from commonweight.llamacpp.log import take_errors

MOSTLY_Q8_0 = 7


class QuantizeParams(ctypes.Structure):
    """``llama_model_quantize_params``: the first fields, and room for the others."""

    _fields_ = (
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_tensor_type", ctypes.c_int),
        ("token_embedding_type", ctypes.c_int),
        ("allow_requantize", ctypes.c_bool),
        ("others", ctypes.c_uint8 * 111),
    )


QuantizeParamsPointer = Annotated[Any, ctypes.POINTER(QuantizeParams)]


@llama.declare
def llama_model_quantize_default_params() -> QuantizeParams: ...


@llama.declare
def llama_model_quantize(
    source: llama.Text, target: llama.Text, params: QuantizeParamsPointer
) -> llama.Uint32: ...


def requantised(source: Path, folder: Path, threads: int) -> Path:
    """``source`` as Q8_0, in ``folder``: seconds for a small model.

    The starter's own Q4_1 has neither a fast matrix kernel nor a repacked one: a row of a batch costs nearly as
    much as a single token does, whatever a server makes of it.

    Raises:
        OSError: llama.cpp could not do it.
    """
    target = folder / f"{source.stem.removesuffix('.Q4_1')}.Q8_0.gguf"
    params = llama_model_quantize_default_params()
    params.ftype = MOSTLY_Q8_0
    params.allow_requantize = True
    params.nthread = threads
    if llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise OSError(f"llama.cpp could not requantise {source.name}: {take_errors() or 'no reason given'}")
    return target
