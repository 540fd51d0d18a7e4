"""Quantised files as a function of the F16 file: compared with llama.cpp's own quantisation, and byte for byte."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.workshop.export.settings import ExportError

pytestmark = pytest.mark.workshop
pytest_plugins = ["exported_models"]

KINDS = {"Q8_0": 7, "Q4_K_M": 15}
"""With llama.cpp's numbers for them."""


class _Parameters(ctypes.Structure):
    """``llama_model_quantize_params``, of which the first two numbers are set: threads and file type."""

    _fields_ = (("numbers", ctypes.c_int32 * 64),)


def quantise_by_llama_cpp(source: Path, target: Path, file_type: int) -> None:
    from commonweight.llamacpp import api

    get_defaults = api.library.find_symbol("llama_model_quantize_default_params")
    get_defaults.restype = _Parameters
    quantise = api.library.find_symbol("llama_model_quantize")
    quantise.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Parameters)]
    quantise.restype = ctypes.c_uint32
    parameters = get_defaults()
    parameters.numbers[0], parameters.numbers[1] = 1, file_type
    assert quantise(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) == 0


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_qwen3"])
def f16(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from commonweight.workshop.export.f16 import write_f16

    path = tmp_path_factory.mktemp("f16") / "tiny-F16.gguf"
    write_f16(request.getfixturevalue(request.param), path, {"general.name": "tiny"})
    return path


def compare_with_llama_cpp(f16: Path, folder: Path, kind: str) -> None:
    import gguf

    from commonweight.workshop.export.quantise import requantise

    requantise(f16, kind, folder / "ours.gguf")
    quantise_by_llama_cpp(f16, folder / "theirs.gguf", KINDS[kind])
    ours, theirs = (gguf.GGUFReader(folder / name) for name in ("ours.gguf", "theirs.gguf"))
    expected = {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in theirs.tensors}
    assert {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in ours.tensors} == expected
    assert {name: field.contents() for name, field in ours.fields.items()} == {
        name: field.contents() for name, field in theirs.fields.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_those_of_llama_cpp(f16: Path, tmp_path: Path, kind: str) -> None:
    compare_with_llama_cpp(f16, tmp_path, kind)


@pytest.mark.parametrize("layers", [31, 80])
def test_deep_models_are_quantised_as_by_llama_cpp(
    write_model: Callable[..., Path], tmp_path: Path, layers: int
) -> None:
    """With 80 layers and grouped queries it takes a model for the Llama of 70 billion parameters."""
    from commonweight.workshop.export.f16 import write_f16

    model = write_model(tmp_path / "deep", "llama", is_tied=True, layers=layers)
    write_f16(model, tmp_path / "F16.gguf", {})
    compare_with_llama_cpp(tmp_path / "F16.gguf", tmp_path, "Q4_K_M")


def test_a_changed_byte_of_a_tensor_is_noticed(f16: Path, tmp_path: Path) -> None:
    """The file that it was in and the quantised ones do not belong together any more."""
    import gguf

    from commonweight.workshop.export.quantise import requantise

    again, changed = tmp_path / "again.gguf", tmp_path / "changed.gguf"
    exported: dict[str, bytes] = {}
    for kind in KINDS:
        requantise(f16, kind, again)
        exported[kind] = again.read_bytes()
    data = f16.read_bytes()
    tensors = [tensor for tensor in gguf.GGUFReader(f16).tensors if tensor.tensor_type.name == "F16"]

    @settings(max_examples=12)
    @given(st.sampled_from(tensors), st.integers(0, 2000), st.sampled_from(sorted(KINDS)))
    def check(tensor: gguf.ReaderTensor, number: int, kind: str) -> None:
        content = bytearray(data)
        # The highest bit of an exponent. Quantisation loses the lowest bits, so that not all changes are seen.
        content[tensor.data_offset + 2 * number + 1] ^= 0x40
        changed.write_bytes(content)
        requantise(changed, kind, again)
        assert again.read_bytes() != exported[kind]

    check()


def test_choices_for_deep_models() -> None:
    from commonweight.workshop.export.quantise import QuantisedModel, choose_type

    def list_types(layers: int, tensor: str) -> str:
        model = QuantisedModel(layers, is_tied=True)
        types = [choose_type(f"blk.{i}.{tensor}.weight", "Q4_K_M", model).name for i in range(layers)]
        return "".join(name[1] for name in types)

    # llama.cpp's rule: the first eighth, the last one, and every third between.
    assert list_types(32, "ffn_down") == list_types(32, "attn_v") == "6666" + "446" * 8 + "6666"
    assert list_types(32, "attn_k") == list_types(32, "ffn_up") == "4" * 32
    tied, untied = QuantisedModel(2, is_tied=True), QuantisedModel(2, is_tied=False)
    assert choose_type("token_embd.weight", "Q4_K_M", tied).name == "Q6_K"
    assert choose_type("token_embd.weight", "Q4_K_M", untied).name == "Q4_K"
    assert choose_type("output.weight", "Q4_K_M", untied).name == "Q6_K"
    assert choose_type("output.weight", "Q8_0", untied).name == "Q8_0"


def test_what_is_not_quantised(f16: Path, tmp_path: Path) -> None:
    from commonweight.workshop.export.quantise import requantise

    with pytest.raises(ExportError, match=r"^Q5_K_M is no quantisation that is made here"):
        requantise(f16, "Q5_K_M", tmp_path / "again.gguf")
    requantise(f16, "Q8_0", tmp_path / "Q8_0.gguf")
    with pytest.raises(ExportError, match="in Q8_0, not in F16"):
        requantise(tmp_path / "Q8_0.gguf", "Q4_K_M", tmp_path / "again.gguf")
    (tmp_path / "broken.gguf").write_bytes(f16.read_bytes()[:5000])
    with pytest.raises(ExportError, match="no GGUF file that can be read"):
        requantise(tmp_path / "broken.gguf", "Q8_0", tmp_path / "again.gguf")


def test_neither_torch_nor_an_engine_is_loaded() -> None:
    program = (
        "import sys; import commonweight.workshop.export.quantise, commonweight.workshop.export.importing, "
        "commonweight.workshop.export.f16; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "transformers", "commonweight.engines", "commonweight.llamacpp"} & set(loaded)
