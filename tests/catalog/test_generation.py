"""Sampling that is recommended for a model: what is read, from where, and what is not believed."""

from pathlib import Path

import pytest

from commonweight.catalog.generation import API_DEFAULTS, GenerationDefaults, find_generation_defaults

NAMED = {"general.name": "Qwen3 8B"}
PATH = Path("model.gguf")


def test_nothing_is_known() -> None:
    assert find_generation_defaults(PATH, {}) == API_DEFAULTS == GenerationDefaults(1, 1, 0, 0, "api", None)


def test_the_files_own_values_come_first(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.1}')
    embedded = {"general.sampling.temp": "0.800000", "general.sampling.top_k": "30", **NAMED}
    found = find_generation_defaults(tmp_path / "model.gguf", embedded)
    assert found == GenerationDefaults(temperature=0.8, top_k=30, source="file")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"temperature": 0.7, "top_p": 0.8, "top_k": 20, "do_sample": true}', (0.7, 0.8, 20, 0)),
        ('{"min_p": 0.05}', (1, 1, 0, 0.05)),
        ('{"do_sample": false, "temperature": 0.7}', (0, 1, 0, 0)),
    ],
)
def test_a_config_beside_the_file(config: str, expected: tuple[float, ...], tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(config)
    found = find_generation_defaults(tmp_path / "model.gguf", NAMED)
    assert (found.temperature, found.top_p, found.top_k, found.min_p) == expected
    assert found.source == "generation_config.json"


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "{",
        '{"temperature": "hot"}',
        '{"temperature": -1, "top_p": 7, "top_k": null}',
        '{"temperature": NaN}',
        "{" + " " * (1 << 20) + "}",
    ],
    ids=range(7),
)
def test_a_config_that_says_nothing_useful(config: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(config)
    assert find_generation_defaults(tmp_path / "model.gguf", {}) == API_DEFAULTS
    assert find_generation_defaults(tmp_path / "model.gguf", NAMED).source == "family"


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("SmolLM2 135M Instruct", 0.2),
        ("Qwen2.5 7B Instruct", 0.7),
        ("Qwen3-30B-A3B", 0.6),
        ("Qwen3.5 9B", 1.0),  # another family, of which nothing is known
        ("Meta Llama 3.1 8B Instruct", 0.6),
        ("Llama_3.2_1B", 0.6),
        ("gemma-3-4b-it", 1.0),
        ("DeepSeek R1 Distill Qwen2.5 7B", 0.6),
        ("LFM2 1.2B", 0.3),
    ],
)
def test_families(name: str, temperature: float) -> None:
    found = find_generation_defaults(PATH, {"general.name": name})
    assert found.temperature == temperature
    by_path = find_generation_defaults(Path(f"{name}.Q4_K_M.gguf"), {})
    assert by_path == found


def test_a_system_text_needs_a_template() -> None:
    starter = {"general.basename": "smollm2", "general.size_label": "135M"}
    assert find_generation_defaults(PATH, starter).system is None
    found = find_generation_defaults(PATH, starter | {"tokenizer.chat_template": "{{ messages }}"})
    assert found.system is not None
    assert (found.temperature, found.top_p, found.source) == (0.2, 0.9, "family")
