"""Importing the starter, and exporting it again: what goes through unchanged."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commonweight.catalog.starter import STARTER_SHA256, find_starter
from commonweight.workshop.export.settings import ExportError, ImportSettings

pytestmark = pytest.mark.workshop
pytest_plugins = ["exported_models"]

SETTINGS = ImportSettings.model_validate(
    {"from": "starter", "model_id": "HuggingFaceTB/SmolLM2-135M-Instruct", "licence": "Apache-2.0"}
)


def ignore(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def starter() -> Path:
    path = find_starter()
    assert path is not None, "the starter is not installed"
    return path


@pytest.fixture(scope="module")
def imported(starter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from commonweight.workshop.export.importing import run_import

    folder = tmp_path_factory.mktemp("imported")
    observed = run_import(SETTINGS, starter, folder, ignore)
    assert observed["bytes"] == (folder / "model.safetensors").stat().st_size
    return folder


def test_the_starter_goes_through(starter: Path, imported: Path, tmp_path: Path) -> None:
    """To float32 exactly; and to F16, where each number is the nearest, in llama.cpp's order of rows."""
    import gguf
    from safetensors import safe_open

    from commonweight.workshop.export.f16 import write_f16
    from commonweight.workshop.export.gguf_file import open_gguf
    from commonweight.workshop.export.quantise import requantise

    path = tmp_path / "starter-F16.gguf"
    write_f16(imported, path, {"general.name": "SmolLM2 135M Instruct", "general.license": "apache-2.0"})
    before, after = open_gguf(starter), open_gguf(path)
    tensors = {tensor.name: tensor for tensor in after.tensors}
    assert tensors.keys() == {tensor.name for tensor in before.tensors}
    with safe_open(imported / "model.safetensors", framework="numpy") as weights:
        names = set(weights.keys())
        down = weights.get_tensor("model.layers.3.mlp.down_proj.weight")
    assert len(names) == len(tensors) == 272
    for tensor in before.tensors:
        exact = gguf.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name == "blk.3.ffn_down.weight":
            assert np.array_equal(down, exact)
        written = tensors[tensor.name]
        dtype = np.float32 if exact.ndim == 1 else np.float16
        assert np.array_equal(written.data, exact.astype(dtype)), tensor.name
    for name in (
        "tokens",
        "token_type",
        "merges",
        "pre",
        "model",
        "bos_token_id",
        "eos_token_id",
        "padding_token_id",
    ):
        key = f"tokenizer.ggml.{name}"
        assert after.fields[key].contents() == before.fields[key].contents()
    key = "tokenizer.chat_template"
    assert after.fields[key].contents() == before.fields[key].contents()
    requantise(path, "Q8_0", tmp_path / "starter-Q8_0.gguf")
    assert _answer(tmp_path / "starter-Q8_0.gguf") > 0


def _answer(path: Path) -> int:
    """Tokens of an answer by our engine."""
    import asyncio
    from contextlib import closing

    from commonweight.catalog.gguf import Gguf
    from commonweight.engines.llama import LlamaEngine, WorkerConfig
    from commonweight.workshop.export.divergence import answer_greeting

    async def run() -> int:
        engine = LlamaEngine(WorkerConfig(path=str(path), window=256, cells=256, sequences=1, threads=1))
        try:
            await engine.start()
            with closing(Gguf(path)) as gguf:
                return await answer_greeting(engine, gguf, gguf.metadata["tokenizer.chat_template"])
        finally:
            await engine.aclose()

    return asyncio.run(run())


def test_its_folder(imported: Path) -> None:
    config = json.loads((imported / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rms_norm_eps"] == 1e-5
    assert (config["rope_parameters"]["rope_theta"], config["num_key_value_heads"]) == (100_000, 3)
    assert (imported / "chat_template.jinja").read_text().startswith("{% for message in messages %}")


def test_tokenizers_and_templates_agree(starter: Path, imported: Path) -> None:
    from commonweight.workshop.export.prompt_parity import compare_templates, compare_tokenizers

    assert compare_tokenizers(imported, starter).llama_cpp == 256
    assert compare_templates(imported, starter).server == 48


def test_digits_that_are_not_split_are_found(starter: Path, imported: Path, tmp_path: Path) -> None:
    """What transformers makes of the file itself, whose tokenizer it takes for GPT-2's."""
    from commonweight.workshop.export.prompt_parity import compare_tokenizers

    for path in imported.glob("*token*"):
        shutil.copy(path, tmp_path)
    shutil.copy(imported / "config.json", tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = tokenizer["pre_tokenizer"]["pretokenizers"][1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        ExportError, match=r"of llama.cpp gives other tokens than the model's for \d+ of 256 texts"
    ):
        compare_tokenizers(tmp_path, starter)


def test_exact_round_trip_of_a_tiny_model(tiny_qwen3: Path, tmp_path: Path) -> None:
    """To GGUF and back: the numbers of F16, and the same file from them."""
    from commonweight.workshop.export.f16 import write_f16
    from commonweight.workshop.export.importing import write_model_folder

    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    write_f16(tiny_qwen3, first, {})
    write_model_folder(first, tmp_path)
    write_f16(tmp_path, second, {})
    assert second.read_bytes() == first.read_bytes()


def _copy(source: Path, target: Path, changes: dict[str, Any]) -> Path:
    """A copy of a GGUF file with other metadata."""
    import gguf

    from commonweight.workshop.export.gguf_file import Field, Tensor, read_fields, write_gguf

    reader = gguf.GGUFReader(source)
    fields = {field.name: field for field in read_fields(reader)}
    architecture = changes.pop("general.architecture", reader.fields["general.architecture"].contents())
    for name, value in changes.items():
        kind = gguf.GGUFValueType.get_type(value)
        fields[name] = Field(name, value, kind)
    tensors = [
        Tensor(one.name, one.data.shape, one.tensor_type, partial(np.asarray, one.data)) for one in reader.tensors
    ]
    write_gguf(target, architecture, fields.values(), tensors)
    return target


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"general.architecture": "mamba"}, "architecture mamba are not imported"),
        ({"llama.rope.scaling.type": "yarn"}, "sets llama.rope.scaling.type to yarn"),
        ({"llama.expert_count": 8}, "sets llama.expert_count to 8"),
        ({"llama.block_count": 3}, "has no tensor blk.2"),
        ({"llama.block_count": 1}, "has the tensor blk.1"),
        ({"llama.embedding_length": "x"}, "has no number llama.embedding_length"),
        ({"tokenizer.ggml.pre": "tekken"}, r"tokenizer \(gpt2, tekken\) is not imported"),
        ({"general.license": "cc-by-nc-4.0"}, "says that its licence is cc-by-nc-4.0, and the recipe Apache-2.0"),
    ],
)
def test_what_is_not_imported(tiny_llama: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    from commonweight.workshop.export.f16 import write_f16
    from commonweight.workshop.export.importing import run_import

    write_f16(tiny_llama, tmp_path / "tiny.gguf", {})
    path = _copy(tmp_path / "tiny.gguf", tmp_path / "changed.gguf", changes)
    settings = SETTINGS.model_copy(update={"location": "changed.gguf"})
    with pytest.raises(ExportError, match=sentence):
        run_import(settings, path, tmp_path, ignore)


def test_a_file_that_is_another_one(tiny_llama: Path, tmp_path: Path) -> None:
    from commonweight.workshop.export.importing import find_base, run_import

    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ExportError, match=f"not {STARTER_SHA256}"):
        run_import(SETTINGS, tmp_path / "other.gguf", tmp_path, ignore)
    settings = SETTINGS.model_copy(update={"location": "other.gguf"})
    assert find_base(settings, tmp_path) == tmp_path / "other.gguf"
    with pytest.raises(ExportError, match=r"^other\.gguf is no GGUF file that can be read: "):
        run_import(settings, tmp_path / "other.gguf", tmp_path, ignore)
    with pytest.raises(ExportError, match=r"missing\.gguf is not there"):
        find_base(settings.model_copy(update={"location": "missing.gguf"}), tmp_path)
