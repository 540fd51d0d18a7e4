"""The file that is measured: the starter model again, in a format for which llama.cpp has fast batch kernels."""

import ctypes
from pathlib import Path

import llama_cpp.llama_cpp as llama

# Imported for what it does: llama.cpp logs nothing to the terminal from then on.
from commonweight.catalog.gguf import take_errors


def requantised(source: Path, folder: Path, threads: int) -> Path:
    """``source`` as Q8_0, in ``folder``: seconds for a small model.

    The starter's own Q4_1 has neither a fast matrix kernel nor a repacked one: a row of a batch costs nearly as
    much as a single token does, whatever a server makes of it.

    Raises:
        OSError: llama.cpp could not do it.
    """
    target = folder / f"{source.stem.removesuffix('.Q4_1')}.Q8_0.gguf"
    params = llama.llama_model_quantize_default_params()
    params.ftype = llama.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
    params.nthread = threads
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise OSError(f"llama.cpp could not requantise {source.name}: {take_errors() or 'no reason given'}")
    return target
