"""File names of GGUFs: models, parts of models, and quantisations."""

import pytest

from commonweight.catalog.gguf_names import (
    is_model,
    list_parts,
    make_display_name,
    match_quantisation,
    parse_quantisation,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.gguf", True),
        ("Q8_0/M.GGUF", True),
        ("m-00001-of-00002.gguf", True),
        ("m-00002-of-00002.gguf", False),
        ("mmproj-m-f16.gguf", False),
        ("m.mmproj-Q8_0.gguf", False),
        ("mmproj/m.gguf", True),
        ("README.md", False),
        ("gguf", False),
    ],
)
def test_models(name: str, expected: bool) -> None:
    assert is_model(name) is expected


def test_parts() -> None:
    assert list_parts("a/m-00002-of-00002.gguf") == ["a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf"]
    assert list_parts("m.gguf") == ["m.gguf"]
    assert list_parts("m-00001-of-00000.gguf") == ["m-00001-of-00000.gguf"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen3-0.6B-Q4_K_M.gguf", "Q4_K_M"),
        ("ggml-model-q4_0.gguf", "q4_0"),
        ("m_q8_0.gguf", "q8_0"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m.i1-IQ4_XS.gguf", "IQ4_XS"),
        ("gpt-oss-20b-mxfp4.gguf", "mxfp4"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("m-bf16.gguf", "bf16"),
        ("m-bf16.Q6_K.gguf", "Q6_K"),
        ("m-Q8_0-F16.gguf", "Q8_0"),
        ("BF16/m-BF16-00001-of-00003.gguf", "BF16"),
        ("Q5_0/m.gguf", "Q5_0"),
        ("Q5_0/m-Q4_0.gguf", "Q4_0"),
        ("QwQ-32B.gguf", None),
        ("m.gguf", None),
    ],
)
def test_quantisations(name: str, expected: str | None) -> None:
    assert parse_quantisation(name) == expected


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("q4_k_m", ["m-Q4_K_M.gguf"]),
        ("Q4_K", []),
        ("K_M", []),
        ("UD-Q4_K_M", ["m-UD-Q4_K_M.gguf"]),
        ("Q3_K_L", ["m-UD-Q3_K_L.gguf"]),
        ("imat", ["m-imat-Q2_K.gguf"]),
        (".*", []),
    ],
)
def test_matches_are_whole_parts(wanted: str, names: list[str]) -> None:
    there = ["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf", "m-UD-Q3_K_L.gguf", "m-imat-Q2_K.gguf"]
    assert match_quantisation(there, wanted) == names


@pytest.mark.parametrize(
    ("stem", "title", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1", "Smollm2 135M 8k Lc100K Mix1 Ep2", "SmolLM2 135M Instruct"),
        ("Qwen3-4B-Instruct-2507-UD-Q4_K_XL", "Qwen3-4B-Instruct-2507", "Qwen3 4B Instruct 2507"),
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M-00001-of-00002", "Models Meta", "Models Meta"),
        ("gemma-3-4b-it-q4_0", "Gemma 3 4b It", "gemma 3 4b it"),
        ("model", "Qwen3 4B", "Qwen3 4B"),
        ("ggml_model_f16", "phi_2", "phi 2"),
        ("Qwen3-4B-Q8_0", None, "Qwen3 4B"),
        ("Qwen3-4B-Q8_0", "", "Qwen3 4B"),
        ("Q8_0", None, "Q8_0"),
        ("Q8_0", " - ", "Q8_0"),
    ],
)
def test_names_for_people(stem: str, title: str | None, name: str) -> None:
    assert make_display_name(stem, title) == name
